//! `midspan encode`: encodes hidden states into a stream.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use super::decode::load;
use super::files::{Output, input_name, keep_inputs, model_files, remove_parts_on_signals, tell};
use super::generate::ModeArg;
use super::opening::OpeningArgs;
use super::rows::FormatArg;
use super::side::{SideArgs, send_none};
use super::tensor::States;
use super::terminal::say;
use super::warning::Warning;
use midspan::codec::{Clipping, Encoder, EncoderConfig, SideDelivery};
use midspan::error::{Detail, Error};
use midspan::stream::Limits;
use midspan::wire::header::{MAX_HORIZON, MAX_LENGTH_OFFSET};

/// Encode hidden states into a Midspan file.
///
/// The input is an F32, F16, BF16 or F64 tensor [T, E] or [1, T, E] in a .safetensors file, or bare rows.
#[derive(Clone, Debug, Args)]
pub(crate) struct EncodeArgs {
    /// The hidden states; - for standard input.
    input: PathBuf,
    /// The Midspan file to write; - for standard output.
    #[arg(short, long)]
    out: PathBuf,
    /// Format of the input.
    #[arg(long, value_enum, default_value = "safetensors")]
    format: FormatArg,
    /// Name of the tensor in a .safetensors file.
    #[arg(long, default_value = "hidden")]
    tensor: String,
    /// Codec model file or model folder. Default: the embedded model.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Coding mode.
    #[arg(long, value_enum, default_value = "joined")]
    mode: ModeArg,
    /// Frames in a chunk at most: a chunk never crosses a reset, and is shorter if its frames could exceed 4 MiB. Decoders
    /// accept at most 256 unless their limits are raised.
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch: u32,
    /// Begin a new context every N frames. A reader can start at a new context by the file's seek index. 0 for never.
    #[arg(long, value_name = "N", default_value_t = 4_096)]
    reset_every: u64,
    /// Lanes in a chunk.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1_024))]
    lanes: u16,
    /// Quality index.
    #[arg(long, default_value_t = 0)]
    quality: u8,
    /// Weight of one bit when Y is chosen, in squared quantiser steps of error; 0 sends the nearest integers. Default:
    /// the model's own weight.
    #[arg(long)]
    rate_weight: Option<f32>,
    /// Chunks of one frame (--batch 1) whose length, check included, is this or up to 127 bytes more state it in one byte,
    /// others in two or more. Default: what the model recommends; 0 in layered mode.
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(..=i64::from(MAX_LENGTH_OFFSET)))]
    length_offset: Option<u16>,
    /// Refuse values outside the range of the quality, instead of clamping and counting them.
    #[arg(long)]
    refuse_clipping: bool,
    #[command(flatten)]
    side: SideArgs,
    /// Leave side indices out of the stream: the decoder has them from elsewhere.
    #[arg(long)]
    side_known: bool,
    #[command(flatten)]
    opening: OpeningArgs,
}

/// Runs the command.
///
/// # Errors
/// One line for the user. An existing output file is then left unchanged.
pub(crate) fn run(args: &EncodeArgs) -> Result<()> {
    remove_parts_on_signals();
    let inputs = [Some(args.input.as_path()), args.side.file()].into_iter().flatten().map(Path::to_path_buf);
    keep_inputs([&args.out], inputs.chain(model_files(args.model.as_deref())))?;
    let codec = load(args.model.as_deref())?;
    let mut states = States::open(&args.input, args.format, &args.tensor, codec.model().hidden_width())?;
    let side = args.side.load_for(&codec, &args.input, &states, args.side_known)?;
    let delivery = if args.side_known { SideDelivery::Known } else { SideDelivery::Sent };
    let config = EncoderConfig::new(args.opening.identity()?)
        .mode(args.mode.into())
        .file(true)
        .check(args.opening.check)
        .lanes(args.lanes)
        .quality(args.quality)
        .max_frames_per_chunk(args.batch)
        // A chunk cannot have more frames than may wait for their target, so a batch beyond the format's bound is
        // split.
        .target_horizon(args.batch.clamp(Limits::default().target_horizon, MAX_HORIZON))
        // The input is the user's own, so it needs no limit.
        .memory_limit(usize::MAX)
        .rate_weight(args.rate_weight)
        .length_offset(args.length_offset)
        .clipping(if args.refuse_clipping { Clipping::Refuse } else { Clipping::Report });
    let mut encoder = Encoder::new(codec, config)?;
    let mut out = Output::create(&args.out)?;
    let (mut sum, mut hidden, mut warning) = (0, Vec::new(), Warning::of(&input_name(&args.input)));
    let mut write = |out: &mut Output, encoder: &mut Encoder| {
        let bytes = encoder.take_bytes()?;
        sum += bytes.len();
        out.write_bytes(&bytes)?;
        out.pass_on()
    };
    loop {
        let frames = states.frames();
        let until_reset = args.reset_every.checked_sub(frames.checked_rem(args.reset_every).unwrap_or(0));
        let until_reset = until_reset.filter(|until| *until > 0).unwrap_or(u64::MAX);
        let most = usize::try_from(until_reset.min(args.batch.into())).unwrap_or(usize::MAX);
        let count = states.read(most, &mut hidden)?;
        if count == 0 {
            break;
        }
        if frames > 0 && frames.checked_rem(args.reset_every) == Some(0) {
            encoder.reset()?;
        }
        match &side {
            Some(side) => encoder.set_side(side.of(frames, count)?, delivery)?,
            None => send_none(&mut encoder, count, SideDelivery::Sent)?,
        }
        encoder
            .push_hidden(&hidden)
            .map_err(|error| from_frame(error, frames))
            .with_context(|| input_name(&args.input))?;
        if let Some(warning) = warning.line(encoder.unlike()) {
            say(&warning);
        }
        write(&mut out, &mut encoder)?;
    }
    let frames = states.frames();
    states.finish()?;
    side.iter().try_for_each(|side| side.check(frames))?;
    let clipped = encoder.clipped();
    if clipped > 0 {
        let model = encoder.codec().model();
        let (low, high) = model.common_range(usize::from(args.quality));
        say(&format!(
            "{}: {clipped} of {} values lie outside the range of quality {} and were clamped; every element holds \
             {low} to {high}",
            input_name(&args.input),
            frames.saturating_mul(model.hidden_width() as u64),
            args.quality
        ));
    }
    encoder.end()?;
    write(&mut out, &mut encoder)?;
    let bits = 8.0 * sum as f64 / frames as f64;
    let standard = out.is_standard();
    out.commit()?;
    tell(standard, format_args!("{frames} frames, {sum} bytes, {bits:.1} bits a frame\n"))
}

/// Adds the frame's index in the input to the error of a push that began at frame `first`.
fn from_frame(error: Error, first: u64) -> Error {
    match error.detail() {
        Some(Detail::Clipped { count, frame, element }) => {
            error.with(Detail::Clipped { count, frame: first.saturating_add(frame), element })
        }
        _ => error,
    }
}
