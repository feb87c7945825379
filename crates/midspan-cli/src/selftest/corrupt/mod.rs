//! `midspan selftest --corrupt`: random corruptions of random streams, each decoded and judged by what was coded.

mod damage;
mod report;
mod source;
mod truth;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use anyhow::Result;

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
pub use report::print;
use source::Source;
use truth::{Findings, Judge, Truth};

/// Corruptions of one pair of streams: with a seed and this many, a run repeats one pair.
const GROUP: u64 = 100;
/// The pairs of which one is of the large model.
const LARGE_MODEL: u64 = 40;
/// Of how many corruptions under the default check one may hand out a wrong frame before it is noticed.
const ONE_IN: u64 = 200;
/// Faults that are told in full.
const TOLD: usize = 10;

/// What became of the corruptions of one kind under one check.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Corruptions.
    pub trials: u64,
    /// Those that an error or an event showed.
    pub noticed: u64,
    /// Those of which any wrong frame was handed out.
    pub wrong: u64,
    /// Wrong frames in all.
    pub wrong_frames: u64,
    /// The most wrong frames of one corruption.
    pub most_wrong: u64,
    /// Those where a wrong frame was called right.
    pub wrong_confirmed: u64,
    /// Those that ended as a whole stream of other frames.
    pub other_end: u64,
    /// Those at which the decoder panicked.
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

    /// Whether a bound is broken that holds for every corruption.
    fn broken(&self) -> bool {
        self.wrong_confirmed + self.other_end + self.panics > 0
    }
}

/// What became of all.
#[derive(Debug, Default)]
pub struct Outcome {
    /// By kind and by bits of the check.
    pub counts: BTreeMap<(Damage, u8), Count>,
    /// Those of the large model among them.
    pub large: u64,
    /// Streams that no corruption touched, judged too.
    pub streams: u64,
    /// What broke a bound, with what repeats it: the first few, and how many more there were.
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

    /// All corruptions under a check, or under any.
    pub fn total(&self, check: Option<u8>) -> Count {
        let mut total = Count::default();
        for ((_, width), count) in &self.counts {
            if check.is_none_or(|check| check == *width) {
                total.add(*count);
            }
        }
        total
    }

    /// Which bound is broken; none if all hold.
    pub fn broken(&self) -> Option<String> {
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

/// How many of so many corruptions under the default check may hand out a wrong frame: 1 in [`ONE_IN`], and in a run of
/// under 10,000, where chance decides, three standard deviations more.
fn allowed(trials: u64) -> u64 {
    let mean = trials as f64 / ONE_IN as f64;
    (if trials < 10_000 { mean + 3.0 * mean.sqrt() } else { mean }) as u64
}

/// Makes and judges `corruptions`. `tell` hears how many more are done.
///
/// # Errors
/// A model that cannot be run.
pub fn run(
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
    let truth = Truth::of(&source.chunks);
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

/// What a decoder made of units: what was found, and whether the stream ended as it should; `Err(())` for a panic.
type Played = Result<(Findings, error::Result<bool>), ()>;

/// `whole` is what the stream without the corruption shows: targets that were lost or late before.
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

/// Bits of a check.
fn bits(check: CheckWidth) -> u8 {
    match check {
        CheckWidth::None => 0,
        CheckWidth::One => 8,
        CheckWidth::Two => 16,
    }
}

/// Decodes units and judges what the decoder says.
fn play(source: &Source, truth: &Truth, units: &[Unit]) -> Played {
    // The same pieces and the same frames concealed every time.
    let mut random = Random::new(source.chunks.len() as u64);
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut judge = Judge::new(truth);
        let outcome = decode(&source.models, source.binding, units, &mut judge, &mut random);
        (judge.findings(outcome == Ok(true)), outcome)
    }));
    played.map_err(drop)
}

/// Whether the stream ended as it should.
fn decode(
    models: &[Arc<Codec>],
    binding: Binding,
    units: &[Unit],
    judge: &mut Judge<'_>,
    random: &mut Random,
) -> error::Result<bool> {
    let frames_per_poll = random.pick(&[2, 64]);
    let config = DecoderConfig { binding, models: models.to_vec(), frames_per_poll, ..DecoderConfig::default() };
    let mut decoder = Decoder::new(Arc::clone(&models[0]), config)?;
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

/// Polls until there is nothing more; whether the stream ended.
fn drain(decoder: &mut Decoder, judge: &mut Judge<'_>) -> error::Result<bool> {
    loop {
        match decoder.poll() {
            Ok(DecoderPoll::Event(event)) => {
                if let DecoderEvent::TargetsOverdue { index, count } = event {
                    decoder.conceal(index, count)?;
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
