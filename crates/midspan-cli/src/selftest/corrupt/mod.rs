//! `midspan selftest --corrupt`: decodes random corruptions of random streams, and checks each against what was coded.

mod damage;
mod report;
mod source;
mod truth;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use anyhow::Result;

use super::author::side_index;
use super::draw::Draw;
use super::models::Models;
use super::workers;
use damage::{Damage, Unit};
use midspan::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll};
use midspan::error;
use midspan::model::CodecModel;
use midspan::model::synthetic::Random;
use midspan::stream::Binding;
use midspan::wire::CheckWidth;
pub(super) use report::print;
use source::Source;
use truth::{Findings, Judge, Truth};

/// Corruptions made from one pair of streams. A run with a pair's seed and this many corruptions repeats that pair.
const GROUP: u64 = 100;
/// One in this many pairs uses the large model.
const LARGE_MODEL: u64 = 40;
/// Under the default check, one in this many corruptions may hand out a wrong frame before it is noticed.
const ONE_IN: u64 = 200;
/// How many faults are reported in full.
const TOLD: usize = 10;

/// The outcome of the corruptions of one kind under one check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Corruptions.
    pub trials: u64,
    /// Corruptions that an error or an event showed.
    pub noticed: u64,
    /// Corruptions that led to at least one wrong frame.
    pub wrong: u64,
    /// Total of wrong frames.
    pub wrong_frames: u64,
    /// The largest number of wrong frames from one corruption.
    pub most_wrong: u64,
    /// Corruptions after which a wrong frame was confirmed.
    pub wrong_confirmed: u64,
    /// Corruptions after which the stream ended as complete, but with other frames.
    pub other_end: u64,
    /// Corruptions at which the decoder panicked.
    pub panics: u64,
}

impl Count {
    fn add(&mut self, other: Count) {
        self.trials += other.trials;
        self.noticed += other.noticed;
        self.wrong += other.wrong;
        self.wrong_frames += other.wrong_frames;
        self.most_wrong = self.most_wrong.max(other.most_wrong);
        self.wrong_confirmed += other.wrong_confirmed;
        self.other_end += other.other_end;
        self.panics += other.panics;
    }

    /// Whether a bound is broken that applies to every single corruption.
    fn broken(&self) -> bool {
        self.wrong_confirmed + self.other_end + self.panics > 0
    }
}

/// The outcome of all corruptions.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Counts by kind and by bits of the check.
    pub counts: BTreeMap<(Damage, u8), Count>,
    /// How many of them use the large model.
    pub large: u64,
    /// Streams without corruption that were checked too.
    pub streams: u64,
    /// The first few cases that broke a bound, each with the command that repeats it, and the number of further ones.
    pub faults: Vec<String>,
    pub more_faults: u64,
}

impl Outcome {
    fn add(&mut self, other: Outcome) {
        for (key, count) in other.counts {
            self.counts.entry(key).or_default().add(count);
        }
        self.large += other.large;
        self.streams += other.streams;
        self.faults.extend(other.faults);
        self.more_faults += other.more_faults;
        self.limit();
    }

    fn fault(&mut self, line: String) {
        self.faults.push(line);
        self.limit();
    }

    fn limit(&mut self) {
        self.more_faults += self.faults.len().saturating_sub(TOLD) as u64;
        self.faults.truncate(TOLD);
    }

    /// The sum over all corruptions under one check, or under any check.
    pub(super) fn total(&self, check: Option<u8>) -> Count {
        let mut total = Count::default();
        for ((_, width), count) in &self.counts {
            if check.is_none_or(|check| check == *width) {
                total.add(*count);
            }
        }
        total
    }

    /// Which bound is broken; `None` if all hold.
    pub(super) fn broken(&self) -> Option<String> {
        let (all, default) = (self.total(None), self.total(Some(8)));
        if all.broken() {
            return Some(format!(
                "{} corruptions had a wrong frame confirmed, {} ended with other frames, {} panicked",
                all.wrong_confirmed, all.other_end, all.panics
            ));
        }
        if !self.faults.is_empty() {
            return Some("a stream that nothing corrupted was not decoded as it was coded".into());
        }
        (default.wrong > allowed(default.trials)).then(|| {
            format!(
                "{} of {} corruptions under the 8-bit check handed out a wrong frame, more than 1 in {ONE_IN}",
                default.wrong, default.trials
            )
        })
    }
}

/// How many of `trials` corruptions under the default check may hand out a wrong frame: 1 in [`ONE_IN`]. In a run of
/// under 10,000, where chance matters, three standard deviations are added.
fn allowed(trials: u64) -> u64 {
    let mean = trials as f64 / ONE_IN as f64;
    (if trials < 10_000 { mean + 3.0 * mean.sqrt() } else { mean }) as u64
}

/// Makes and checks `corruptions`. `tell` is called with the number of corruptions that were just finished.
///
/// # Errors
/// A model cannot be run.
pub(super) fn run(
    model: &CodecModel,
    seed: u64,
    corruptions: u64,
    threads: usize,
    tell: &(dyn Fn(u64) + Sync),
) -> Result<Outcome> {
    let models = Models::new(model)?;
    let mut outcome = Outcome::default();
    let groups = corruptions.div_ceil(GROUP);
    let group = |number: u64| {
        let count = GROUP.min(corruptions - number * GROUP);
        let found = group(&models, seed.wrapping_add(number), count);
        tell(count);
        found
    };
    workers::each(groups, threads, group, &mut |found| outcome.add(found));
    outcome.faults.sort();
    Ok(outcome)
}

/// Corruptions of one pair of streams.
fn group(models: &Models, seed: u64, count: u64) -> Outcome {
    let mut outcome = Outcome::default();
    let mut random = Random::new(seed);
    let large = seed.is_multiple_of(LARGE_MODEL);
    let source = match Source::draw(models, large, &mut random) {
        Ok(source) => source,
        Err(error) => {
            outcome.fault(format!("seed {seed}: the encoder failed: {error}"));
            return outcome;
        }
    };
    outcome.streams = 1;
    let truth = Truth::from_chunks(&source.chunks);
    let material = source.material();
    let whole = match play(&source, &truth, material.own) {
        Ok((Findings { wrong: 0, wrong_confirmed: 0, other_end: false, noticed }, Ok(true))) => noticed,
        other => {
            outcome.fault(format!("seed {seed}, {}, not corrupted: {other:?}", source.what));
            return outcome;
        }
    };
    let check = bits(source.check);
    let kinds = material.kinds();
    for number in 0..count {
        let (damage, units) = loop {
            let damage = random.pick(kinds);
            if let Some(units) = material.corrupt(damage, &mut random) {
                break (damage, units);
            }
        };
        let played = play(&source, &truth, &units);
        let found = judge(&played, whole);
        if found.broken() {
            let (what, name) = (&source.what, damage.name());
            outcome.fault(format!("--seed {seed} --corrupt {GROUP}: number {number}, {name}, {what}: {played:?}"));
        }
        outcome.counts.entry((damage, check)).or_default().add(found);
        outcome.large += u64::from(large);
    }
    outcome
}

/// The result of decoding units: what was found, and whether the stream ended as it should. `Err(())` for a panic.
type Played = Result<(Findings, error::Result<bool>), ()>;

/// Counts one corruption. `whole` is the number of events that the stream shows without the corruption, because some of
/// its targets are lost or late anyway.
fn judge(played: &Played, whole: u64) -> Count {
    let mut count = Count { trials: 1, ..Count::default() };
    match played {
        Err(()) => count.panics = 1,
        Ok((findings, outcome)) => {
            count.noticed = u64::from(outcome.is_err() || findings.noticed != whole);
            count.wrong = u64::from(findings.wrong > 0);
            (count.wrong_frames, count.most_wrong) = (findings.wrong, findings.wrong);
            count.wrong_confirmed = u64::from(findings.wrong_confirmed > 0);
            count.other_end = u64::from(findings.other_end);
        }
    }
    count
}

/// The width of a check in bits.
fn bits(check: CheckWidth) -> u8 {
    match check {
        CheckWidth::None => 0,
        CheckWidth::One => 8,
        CheckWidth::Two => 16,
    }
}

/// Decodes units and checks what the decoder reports.
fn play(source: &Source, truth: &Truth, units: &[Unit]) -> Played {
    // The stream is cut into the same pieces, and the same frames are concealed, every time.
    let mut random = Random::new(source.chunks.len() as u64);
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut judge = Judge::new(truth);
        let outcome = decode(&source.models, source.binding, units, &mut judge, &mut random);
        (judge.findings(outcome == Ok(true)), outcome)
    }));
    played.map_err(drop)
}

/// Decodes the units. Returns whether the stream ended as it should.
fn decode(
    models: &[Arc<Codec>],
    binding: Binding,
    units: &[Unit],
    judge: &mut Judge<'_>,
    random: &mut Random,
) -> error::Result<bool> {
    let frames_per_poll = random.pick(&[2, 64]);
    let config = DecoderConfig::default().binding(binding).frames_per_poll(frames_per_poll);
    let mut decoder = Decoder::new(Arc::clone(&models[0]), config)?;
    models.iter().for_each(|model| decoder.add_model(Arc::clone(model)));
    match binding {
        Binding::ByteStream => {
            let bytes: Vec<u8> = units.iter().flat_map(|unit| &unit.bytes).copied().collect();
            let piece = if random.one_in(4) { 1 + random.below(40) } else { bytes.len().max(1) };
            for piece in bytes.chunks(piece) {
                decoder.push(piece)?;
                drain(&mut decoder, judge)?;
            }
        }
        Binding::Message => {
            for unit in units {
                if unit.datagram {
                    decoder.push_datagram(&unit.bytes)?;
                } else {
                    decoder.push_message(&unit.bytes)?;
                }
                drain(&mut decoder, judge)?;
                if random.one_in(16)
                    && let Some(oldest) = decoder.oldest_pending()
                {
                    decoder.conceal(oldest, 1)?;
                }
            }
        }
    }
    decoder.finish();
    drain(&mut decoder, judge)
}

/// Polls until there is nothing more. Returns whether the stream ended.
fn drain(decoder: &mut Decoder, judge: &mut Judge<'_>) -> error::Result<bool> {
    loop {
        match decoder.poll() {
            Ok(DecoderPoll::Event(event)) => {
                match event {
                    DecoderEvent::TargetsOverdue { index, count } => decoder.conceal(index, count)?,
                    DecoderEvent::SideWanted { index, count } => {
                        let model = decoder.codec().model();
                        let known = (index..index + count as u64).filter_map(|index| side_index(model, index));
                        let known: Vec<u32> = known.collect();
                        decoder.give_side(&known)?;
                    }
                    _ => {}
                }
                judge.hear(&event, decoder.confirmed_index(), decoder.resume_index());
            }
            other => {
                judge.pause(decoder.confirmed_index(), decoder.resume_index());
                return match other? {
                    DecoderPoll::End => Ok(true),
                    _ => Ok(false),
                };
            }
        }
    }
}

#[cfg(test)]
mod tests;
