//! `midspan length-offset`: measures the length offsets and the expected bits of a codec on a text.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use super::bundle::Bundle;
use super::files::{keep_inputs, model_files, print, write};
use super::freeze::sequences;
use midspan_train::framing::with_measured_lengths;

/// Fit a codec's length offsets and its expected bits to a text.
///
/// With the length offsets, one frame a chunk takes the fewest bytes of framing. The expected bits are the mean of a
/// frame's payloads; encoders warn where they find far more. Nothing else of the codec changes, and its fingerprint stays
/// the same: decoders do not use these numbers. `freeze`, `fit` and `calibrate` measure both on their own text.
#[derive(Clone, Debug, Args)]
pub(crate) struct LengthOffsetArgs {
    /// Model folder. Default: the embedded model.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Text, from which sequences of the host's context length are taken.
    #[arg(long)]
    text: PathBuf,
    /// Sequences taken from the text, spread over it.
    #[arg(long, default_value_t = 8)]
    sequences: usize,
    /// The codec file that is written.
    #[arg(long)]
    out: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// One line for the user.
pub(crate) fn run(args: &LengthOffsetArgs) -> Result<()> {
    if args.sequences == 0 {
        bail!("--sequences must be at least 1");
    }
    keep_inputs([&args.out], model_files(args.model.as_deref()).iter().chain([&args.text]))?;
    let bundle = Bundle::load(args.model.as_deref())?;
    if !bundle.codec.model().has_encoder() {
        bail!("the codec has no encoder's part");
    }
    let states = sequences(&args.text, &bundle.tokenizer, &bundle.gpt, args.sequences)?;
    let model = bundle.codec.model().clone();
    let fitted =
        with_measured_lengths(model, states.iter().map(|sequence| (&sequence.hidden[..], Some(&sequence.ids[..]))), 1)?;
    write(&args.out, &fitted.to_bytes())?;
    for quality in 0..fitted.qualities() {
        let before = bundle.codec.model();
        let offsets = (before.length_offset(quality), fitted.length_offset(quality));
        let bits = [before, &fitted].map(|model| expected(model.expected_bits(quality)));
        print(format_args!(
            "quality {quality}: length offset {}, {} before; expected bits {}, {} before\n",
            offsets.1, offsets.0, bits[1], bits[0]
        ))?;
    }
    Ok(())
}

fn expected(bits: Option<f32>) -> String {
    bits.map_or("unknown".into(), |bits| format!("{bits:.1}"))
}
