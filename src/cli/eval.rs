//! `midspan eval`: rate and distortion on held-out text, from real bytes.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::generate::{ModeArg, measure_baseline};
use crate::codec::cost::Cost;
use crate::codec::{Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig};
use crate::host::bundle::Bundle;

/// Measure bits and perplexity through the codec on a text, in sequences of the host's context length.
#[derive(Clone, Debug, Args)]
pub struct EvalArgs {
    /// The text.
    #[arg(long)]
    text: PathBuf,
    /// Model folder; the embedded model without it.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Frames to measure.
    #[arg(long, default_value_t = 20_480)]
    frames: usize,
    /// Frames a chunk.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch: u32,
    /// Lanes a chunk.
    #[arg(long, default_value_t = 1)]
    lanes: u16,
    /// Coding mode.
    #[arg(long, value_enum, default_value = "joined")]
    mode: ModeArg,
    /// Leave the halves' perplexities out: faster.
    #[arg(long)]
    rate_only: bool,
}

/// Runs the command; prints one JSON object.
///
/// # Errors
/// One line for the user; integers that do not come back as they were are an error.
pub fn run(args: &EvalArgs) -> Result<()> {
    let bundle = Bundle::load(args.model.as_deref())?;
    let name = args.text.display();
    let text = String::from_utf8(std::fs::read(&args.text).with_context(|| name.to_string())?)
        .with_context(|| format!("{name}: not UTF-8"))?;
    let context = bundle.gpt.config().context;
    // About eight bytes a token at most; a token more than frames, for the last prediction.
    let mut end = text.len().min(args.frames.saturating_mul(8));
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut tokens = bundle.tokenizer.encode_long(&text[..end], 2)?;
    tokens.truncate(args.frames + 1);
    if tokens.len() < 2 {
        bail!("{name}: too little text");
    }
    let width = bundle.codec.model().hidden_width();
    let config = EncoderConfig { mode: args.mode.into(), lanes: args.lanes, ..EncoderConfig::default() };
    let mut encoder = Encoder::new(bundle.codec.clone(), config)?;
    encoder.track_cost(true);
    let mut decoder = Decoder::new(bundle.codec.clone(), DecoderConfig::default())?;
    decoder.push(&encoder.take_bytes())?;
    let bar = ProgressBar::new(tokens.len() as u64 - 1);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} frames, {eta} left") {
        bar.set_style(style);
    }
    let (mut cost, mut bytes, mut frames) = (Cost::default(), 0_usize, 0_usize);
    let (mut through, mut around) = (0.0, 0.0);
    let (mut encode_seconds, mut decode_seconds) = (0.0, 0.0);
    let mut all_y = Vec::new();
    for part in 0..(tokens.len() - 1).div_ceil(context) {
        let inputs: Vec<u32> = tokens[part * context..].iter().take(context).copied().collect();
        let targets: Vec<u32> = tokens[part * context + 1..].iter().take(context).copied().collect();
        let inputs = &inputs[..targets.len()];
        // [1, T] → [1, T, E]
        let hidden =
            bundle.gpt.forward_head(&Tensor::from_vec(inputs.to_vec(), (1, inputs.len()), &Device::Cpu)?, None)?;
        let values: Vec<f32> = hidden.flatten_all()?.to_vec1()?;
        if part > 0 {
            encoder.reset()?;
        }
        let (mut w, mut y) = (Vec::new(), Vec::new());
        for chunk in values.chunks(args.batch as usize * width) {
            let clock = Instant::now();
            encoder.push_hidden(chunk)?;
            encode_seconds += clock.elapsed().as_secs_f64();
            cost = cost.plus(encoder.last_cost().unwrap_or_default());
            w.extend_from_slice(encoder.last_w());
            y.extend_from_slice(encoder.last_y());
        }
        let sent = encoder.take_bytes();
        bytes += sent.len();
        let clock = Instant::now();
        decoder.push(&sent)?;
        let (mut got_w, mut got_y, mut received) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            match decoder.poll()? {
                DecoderPoll::Event(DecoderEvent::Frames(frames)) => {
                    got_w.extend(frames.w);
                    got_y.extend(frames.y);
                    received.extend(frames.hidden);
                }
                DecoderPoll::Event(DecoderEvent::HyperPrior(hyper_prior)) => got_w.extend(hyper_prior.w),
                DecoderPoll::Event(DecoderEvent::Targets(targets)) => {
                    got_y.extend(targets.y);
                    received.extend(targets.hidden);
                }
                DecoderPoll::Event(_) => {}
                _ => break,
            }
        }
        decode_seconds += clock.elapsed().as_secs_f64();
        if got_w != w || got_y != y {
            bail!("sequence {part}: the decoder's integers are not the encoder's");
        }
        if !args.rate_only {
            around += nats(&bundle, &hidden, &targets)?;
            through += nats(&bundle, &Tensor::from_vec(received, hidden.dims(), &Device::Cpu)?, &targets)?;
        }
        all_y.extend(y);
        frames += targets.len();
        bar.inc(targets.len() as u64);
    }
    bar.finish_and_clear();
    let per_frame = |bits: f64| bits / frames as f64;
    let baseline = measure_baseline(&all_y, width, context)?;
    let bits = per_frame(8.0 * bytes as f64);
    let perplexity = |nats: f64| (!args.rate_only).then(|| (nats / frames as f64).exp());
    let report = json!({
        "frames": frames,
        "batch": args.batch,
        "lanes": args.lanes,
        "bits": bits,
        "hyper_prior_bits": per_frame(cost.hyper_prior),
        "target_bits": per_frame(cost.target),
        "overhead_bits": bits - per_frame(cost.total()),
        "bits_per_element": bits / width as f64,
        "zstd_bits": per_frame(baseline.zstd as f64),
        "deflate_bits": per_frame(baseline.deflate as f64),
        "share_of_zstd": bits / per_frame(baseline.zstd as f64),
        "share_of_deflate": bits / per_frame(baseline.deflate as f64),
        "share_of_f16": bits / (16.0 * width as f64),
        "token_id_bits": f64::from(u32::try_from(bundle.gpt.config().vocab)?).log2(),
        "perplexity_through_codec": perplexity(through),
        "perplexity_unquantised": perplexity(around),
        "encode_ms": 1e3 * encode_seconds / frames as f64,
        "decode_ms": 1e3 * decode_seconds / frames as f64,
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

/// Sum over frames of −ln p(target), the second half run on `hidden`, `[1, T, E]`.
fn nats(bundle: &Bundle, hidden: &Tensor, targets: &[u32]) -> Result<f64> {
    // [1, T, vocab] → [T, vocab]
    let logits = bundle.gpt.forward_tail(hidden, None)?.squeeze(0)?;
    let log_p = candle_nn::ops::log_softmax(&logits, candle_core::D::Minus1)?;
    let targets = Tensor::from_vec(targets.to_vec(), (targets.len(), 1), &Device::Cpu)?;
    Ok(-f64::from(log_p.gather(&targets, 1)?.sum_all()?.to_scalar::<f32>()?))
}
