//! The head: turns text into tokens, runs the model's first half and the encoder, and receives the next tokens.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use sha2::{Digest, Sha256};

use super::channel::TailMessage;
use super::link::Link;
use super::live::Live;
use super::outcome::{Outcome, Sizes};
use super::tail::little_endian;
use crate::KEEPS_INTEGERS;
use crate::bundle::Bundle;
use crate::warning::Warning;
use midspan::adapter::hex;
use midspan::codec::{Encoder, EncoderConfig, SideDelivery};
use midspan_host::gpt::Cache;

/// The tokens of a prompt.
///
/// # Errors
/// The prompt is empty or does not fit the model's context.
pub(super) fn tokens(bundle: &Bundle, prompt: &str) -> Result<Vec<u32>> {
    let context = bundle.gpt.config().context;
    let tokens = bundle.tokenizer.encode(prompt)?;
    if tokens.is_empty() {
        bail!("the prompt is empty");
    }
    if tokens.len() > context {
        bail!("the prompt has {} tokens, the model's context holds {context}", tokens.len());
    }
    Ok(tokens)
}

/// Generates `count` tokens after those of the prompt, `tokens`, over an open connection to a tail.
///
/// # Errors
/// The tail fails or disconnects, or standard output was closed. Text generated before the error has been written.
pub(super) fn run(
    bundle: &Bundle,
    mut link: Link,
    tokens: Vec<u32>,
    count: usize,
    config: EncoderConfig,
    live: &mut Live,
) -> Result<Outcome> {
    let check_bits = 8 * config.check.bytes();
    let mut encoder = Encoder::new(bundle.codec.clone(), config)?;
    encoder.track_cost(true);
    let header = encoder.take_bytes()?;
    let mut outcome =
        Outcome { prompt_tokens: tokens.len(), header_bytes: header.len() as u64, check_bits, ..Outcome::default() };
    send(&mut link, &mut outcome, &header)?;
    let mut sizes = Sizes::new(bundle.codec.model().hidden_width(), bundle.gpt.config().context);
    let (mut w, mut y) = (Sha256::new(), Sha256::new());
    let (mut cache, mut warning) = (Cache::new(), Warning::default());
    let mut text = bundle.tokenizer.stream();
    live.text(&text.push(&tokens))?;
    let mut pending = tokens;
    let mut started = Instant::now();
    // The time of the compressors, which is not part of the generation.
    let mut aside = Duration::ZERO;
    for step in 0..count {
        let input = Tensor::from_vec(pending.clone(), (1, pending.len()), &Device::Cpu)?;
        let hidden = bundle.gpt.forward_head(&input, Some(&mut cache))?.flatten_all()?.to_vec1::<f32>()?;
        if let Some(side) = bundle.codec.model().side() {
            // The tail chose every token but those of the prompt.
            let delivery = if step == 0 { SideDelivery::Sent } else { SideDelivery::Known };
            let indices: Vec<u32> = pending.iter().map(|token| side.index_of((*token).into())).collect();
            encoder.set_side(&indices, delivery)?;
        }
        let clock = Instant::now();
        encoder.push_hidden(&hidden)?;
        if pending.len() == 1 {
            outcome.encode.add(clock.elapsed().as_secs_f64());
        }
        if let Some(warning) = warning.line(encoder.unlike()) {
            live.warn(warning);
        }
        outcome.cost = outcome.cost.plus(encoder.last_cost().unwrap_or_default());
        let sent = encoder.last_integers().context(KEEPS_INTEGERS)?;
        w.update(little_endian(&sent.w));
        y.update(little_endian(&sent.y));
        outcome.frames += pending.len();
        let bytes = encoder.take_bytes()?;
        send(&mut link, &mut outcome, &bytes)?;
        let token = match TailMessage::read(&mut link).context("the tail is gone")? {
            TailMessage::Token(token) => token,
            TailMessage::Failure(line) => bail!("the tail failed: {line}"),
            TailMessage::Report(_) => bail!("the tail ended the stream too early"),
        };
        if token as usize >= bundle.gpt.config().vocab {
            bail!("the tail chose token {token}, which the vocabulary does not have");
        }
        if step == 0 {
            started = Instant::now();
        }
        let clock = Instant::now();
        if sizes.add(&encoder.last_integers().context(KEEPS_INTEGERS)?.y)? && step > 0 {
            aside += clock.elapsed();
        }
        pending = vec![token];
        outcome.tokens += 1;
        live.text(&text.push(&pending))?;
        live.rate(&outcome, started.elapsed().saturating_sub(aside).as_secs_f64());
    }
    outcome.seconds = started.elapsed().saturating_sub(aside).as_secs_f64();
    live.text(&text.finish())?;
    encoder.end()?;
    let bytes = encoder.take_bytes()?;
    send(&mut link, &mut outcome, &bytes)?;
    // Half-close: the tail sees the end of input.
    link.finish_writing().context("the tail is gone")?;
    outcome.tail = match TailMessage::read(&mut link).context("the tail is gone")? {
        TailMessage::Report(report) => report,
        TailMessage::Failure(line) => bail!("the tail failed: {line}"),
        TailMessage::Token(_) => bail!("the tail sent a token too many"),
    };
    outcome.baseline = sizes.finish()?;
    outcome.sent = encoder.sent();
    outcome.matched = outcome.tail.w_sha256 == hex(&w.finalize()) && outcome.tail.y_sha256 == hex(&y.finalize());
    Ok(outcome)
}

/// Sends bytes. The tail's answer is due within the timeout.
fn send(link: &mut Link, outcome: &mut Outcome, bytes: &[u8]) -> Result<()> {
    outcome.bytes += bytes.len() as u64;
    link.step();
    link.write_all(bytes).context("the tail is gone")
}
