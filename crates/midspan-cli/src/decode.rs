//! `midspan decode` and `verify`: decodes a stream to hidden states, or checks it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::json;

use super::files::{
    Input, Output, codec_model, input_name, keep_inputs, model_files, print, remove_parts_on_signals, tell,
};
use super::limits::{Bounds, LimitArgs};
use super::rows::{FormatArg, RawFile, RawPipe, SafetensorsRows};
use super::side::SideArgs;
use super::terminal::counted;
use super::walk::{Nowhere, Rows, Tally, walk};
use midspan::codec::Codec;

/// Decode a Midspan file into a .safetensors file with `hidden` F32 [T, E], `w` I16 [T, C] and `y` I16 [T, E].
#[derive(Clone, Debug, Args)]
pub(crate) struct DecodeArgs {
    /// The Midspan file; - for standard input.
    input: PathBuf,
    /// The file to write; - for standard output. If the stream is damaged, the file gets the frames before the fault.
    #[arg(short, long)]
    out: PathBuf,
    /// Format of the output. A .safetensors file is complete only when the stream has ended; raw rows are written as
    /// they are decoded.
    #[arg(long, value_enum, default_value = "safetensors")]
    format: FormatArg,
    /// Codec model file or model folder. Default: the embedded model.
    #[arg(long)]
    model: Option<PathBuf>,
    #[command(flatten)]
    side: SideArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

/// Check a Midspan file against its model: every chunk, seal, digest and total.
#[derive(Clone, Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The Midspan file; - for standard input.
    input: PathBuf,
    /// Codec model file or model folder. Default: the embedded model.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    side: SideArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

/// The codec in a file or a model folder, or the embedded one.
///
/// # Errors
/// The file is missing or is not a codec model.
pub(crate) fn load(model: Option<&Path>) -> Result<Arc<Codec>> {
    Ok(Arc::new(Codec::new(codec_model(model)?)?))
}

/// Runs `decode`.
///
/// # Errors
/// One line for the user. If the stream is damaged, the frames before the fault are written first; if there are none,
/// no file is written.
pub(crate) fn decode(args: &DecodeArgs) -> Result<()> {
    remove_parts_on_signals();
    let inputs = [Some(args.input.as_path()), args.side.file()].into_iter().flatten().map(Path::to_path_buf);
    keep_inputs([&args.out], inputs.chain(model_files(args.model.as_deref())))?;
    let codec = load(args.model.as_deref())?;
    let (width, channels) = (codec.model().hidden_width(), codec.model().hyper_prior_width());
    let bounds = args.limits.bounds(Bounds::default());
    let name = input_name(&args.input);
    let side = args.side.load(&codec)?.map(|side| side.indices);
    let input = Input::open(&args.input)?;
    let walk = |rows: &mut dyn Rows| -> Result<Tally> {
        let tally = walk(input, &codec, &bounds, side.as_deref(), rows).with_context(|| name.clone())?;
        match &tally.fault {
            Some(fault) if tally.frames == 0 => {
                bail!("{name}: {}; no frame came before it, nothing was written", fault.message)
            }
            _ => Ok(tally),
        }
    };
    let (tally, output) = match args.format {
        FormatArg::Safetensors => {
            let mut rows = SafetensorsRows::new(Output::create_seekable(&args.out)?, width, channels)?;
            let tally = walk(&mut rows)?;
            let output = rows.close(tally.frames)?;
            (tally, output)
        }
        FormatArg::Raw => {
            let output = Output::create(&args.out)?;
            if output.is_direct() {
                let mut rows = RawPipe::new(output, width);
                (walk(&mut rows)?, rows.close())
            } else {
                let mut rows = RawFile::new(output, width)?;
                (walk(&mut rows)?, rows.close()?)
            }
        }
    };
    let standard = output.is_standard();
    output.commit()?;
    let frames = tally.frames;
    tell(standard, format_args!("{frames} frames\n"))?;
    match &tally.fault {
        Some(fault) => bail!("{name}: {}; {frames} frames before it were written", fault.message),
        None => tally.check_targets().context(name),
    }
}

/// Runs `verify`.
///
/// # Errors
/// One line for the user if the stream is incomplete or wrong.
pub(crate) fn verify(args: &VerifyArgs) -> Result<()> {
    let codec = load(args.model.as_deref())?;
    let name = input_name(&args.input);
    let bounds = args.limits.bounds(Bounds::default());
    let side = args.side.load(&codec)?.map(|side| side.indices);
    let input = Input::open(&args.input)?;
    let tally = walk(input, &codec, &bounds, side.as_deref(), &mut Nowhere).with_context(|| name.clone())?;
    let Tally { frames, confirmed, unverifiable, confirmed_frames, concealed, lost, damaged, fault } = &tally;
    if args.json {
        let report = json!({
            "frames": frames, "confirmed_frames": confirmed_frames, "confirmed": confirmed,
            "unverifiable": unverifiable, "concealed": concealed, "lost": lost, "damaged": damaged, "error": fault.as_ref().map(|fault| fault.json()),
        });
        print(format_args!("{report}\n"))?;
    } else {
        let (frames, checkpoints) = (counted(*frames, "frame"), counted(*confirmed, "checkpoint"));
        print(format_args!(
            "{frames}, {confirmed_frames} confirmed; {checkpoints} confirmed, {unverifiable} unverifiable\n"
        ))?;
    }
    match fault {
        Some(fault) => bail!("{name}: {}", fault.message),
        None => tally.check_targets().context(name),
    }
}
