//! `midspan selftest --sessions`: runs random sessions over a link that loses, delays and damages targets. Each decoder
//! is compared with a plain one: every event, and the state after it.

mod digests;
mod receiver;
mod report;
mod timeline;

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::Result;

use super::author::{Author, Chunk, Content};
use super::calls::Op;
use super::draw::Draw;
use super::models::Models;
use super::workers;
use midspan::codec::EncoderConfig;
use midspan::model::CodecModel;
use midspan::model::synthetic::Random;
use midspan::stream::{Binding, JoinPoint};
use midspan::wire::{CheckWidth, Identity, Mode};
use receiver::{Difference, Receiver};
pub(super) use report::print;

/// One in this many sessions uses the large model.
const LARGE_MODEL: u64 = 200;
/// The most decoders of one stream.
const RECEIVERS: usize = 4;
/// How many differences are reported in full.
const TOLD: usize = 10;

/// Counts of what happened in sessions. A campaign with low counts proves little.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub sessions: u64,
    pub decoders: u64,
    pub joined: u64,
    pub forks: u64,
    pub saved: u64,
    pub events: u64,
    pub slices: u64,
    pub w_confirmed: u64,
    pub y_confirmed: u64,
    pub unverifiable: u64,
    pub early: u64,
    pub parts: u64,
    pub late: u64,
    pub damaged: u64,
    pub dropped: u64,
    pub overdue: u64,
    pub concealed: u64,
    pub rewinds: u64,
    pub resets: u64,
    pub switches: u64,
    pub side_sent: u64,
    pub side_wanted: u64,
    /// Decoders that refused a stream because too many checkpoints waited.
    pub refused: u64,
}

impl Tally {
    /// Names and values, for reports.
    fn fields(&self) -> [(&'static str, u64); 23] {
        [
            ("sessions", self.sessions),
            ("decoders", self.decoders),
            ("decoders that joined at a reset or switch", self.joined),
            ("forks of both ends", self.forks),
            ("decoders saved and taken up again", self.saved),
            ("events compared", self.events),
            ("chunks cut by a bound on frames a poll", self.slices),
            ("W confirmed", self.w_confirmed),
            ("Y confirmed", self.y_confirmed),
            ("Y unverifiable", self.unverifiable),
            ("early targets", self.early),
            ("parts of targets, all but the last", self.parts),
            ("targets refused as late", self.late),
            ("targets refused as damaged", self.damaged),
            ("targets dropped", self.dropped),
            ("overdue", self.overdue),
            ("concealed", self.concealed),
            ("rewinds", self.rewinds),
            ("context resets", self.resets),
            ("model switches", self.switches),
            ("side indices in the stream", self.side_sent),
            ("side indices asked for", self.side_wanted),
            ("too many checkpoints waiting", self.refused),
        ]
    }

    fn add(&mut self, other: &Tally) {
        self.sessions += other.sessions;
        self.decoders += other.decoders;
        self.joined += other.joined;
        self.forks += other.forks;
        self.saved += other.saved;
        self.events += other.events;
        self.slices += other.slices;
        self.w_confirmed += other.w_confirmed;
        self.y_confirmed += other.y_confirmed;
        self.unverifiable += other.unverifiable;
        self.early += other.early;
        self.parts += other.parts;
        self.late += other.late;
        self.damaged += other.damaged;
        self.dropped += other.dropped;
        self.overdue += other.overdue;
        self.concealed += other.concealed;
        self.rewinds += other.rewinds;
        self.resets += other.resets;
        self.switches += other.switches;
        self.side_sent += other.side_sent;
        self.side_wanted += other.side_wanted;
        self.refused += other.refused;
    }
}

/// The outcome of all sessions.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Sums over all sessions.
    pub tally: Tally,
    /// Number of sessions with a difference.
    pub failed: u64,
    /// The first of these, each with the seed that repeats it.
    pub differences: Vec<(u64, Difference)>,
}

impl Outcome {
    /// The message about sessions that differ; `None` if all agree.
    pub(super) fn broken(&self) -> Option<String> {
        let (first, _) = self.differences.first()?;
        Some(format!(
            "{} of {} sessions differ from the plain model; the first: --seed {first} --sessions 1",
            self.failed, self.tally.sessions
        ))
    }
}

/// Runs sessions with the seeds from `seed` on. `tell` is called with the number of sessions that were just finished.
///
/// # Errors
/// A model cannot be run.
pub(super) fn run(
    model: &CodecModel,
    seed: u64,
    sessions: u64,
    threads: usize,
    tell: &(dyn Fn(u64) + Sync),
) -> Result<Outcome> {
    let models = Models::new(model)?;
    let mut outcome = Outcome::default();
    let session = |number: u64| {
        let seed = seed.wrapping_add(number);
        let mut tally = Tally { sessions: 1, ..Tally::default() };
        let found = catch_unwind(AssertUnwindSafe(|| session(&models, seed, &mut tally)));
        tell(1);
        (seed, tally, found.unwrap_or_else(|_| Err("a panic".into())))
    };
    workers::each(sessions, threads, session, &mut |(seed, tally, found)| {
        outcome.tally.add(&tally);
        if let Err(difference) = found {
            outcome.failed += 1;
            outcome.differences.push((seed, difference));
            outcome.differences.sort();
            outcome.differences.truncate(TOLD);
        }
    });
    Ok(outcome)
}

/// A stream and its decoders.
#[derive(Clone)]
struct World {
    author: Author,
    receivers: Vec<Receiver>,
    binding: Binding,
    /// Bytes sent.
    offset: u64,
    /// Whether targets may come as datagrams.
    datagrams: bool,
}

fn session(pool: &Models, seed: u64, tally: &mut Tally) -> Result<(), Difference> {
    let mut random = Random::new(seed);
    let models = pool.pick(seed.is_multiple_of(LARGE_MODEL), &mut random);
    let mode = random.pick(&[Mode::Joined, Mode::Layered, Mode::Layered]);
    let models = pool.predicting(models, mode, &mut random);
    let binding = random.pick(&[Binding::ByteStream, Binding::Message]);
    let identity = Identity::new(random.next().to_le_bytes());
    let identity = random.pick(&[Identity::none(), identity]);
    let horizon = random.pick(&[2, 5, 12, 40]);
    let config = EncoderConfig::new(identity)
        .mode(mode)
        .binding(binding)
        .check(random.pick(&[CheckWidth::None, CheckWidth::One, CheckWidth::Two]))
        .lanes(random.pick(&[1, 1, 3]))
        .max_rewind(random.pick(&[3, 12, 64]))
        .target_horizon(horizon)
        .checkpoint_interval(random.pick(&[0, 0, 5]))
        .length_offset(random.pick(&[None, Some(1), Some(20)]))
        .datagram_limit(random.pick(&[None, Some(256)]));
    let author = Author::new(models, config).map_err(|error| format!("the encoder: {error}"))?;
    let mut world = World { author, receivers: Vec::new(), binding, offset: 0, datagrams: random.one_in(2) };
    let first = world.author.apply(Op::Save, &mut random).map_err(|error| format!("the encoder: {error}"))?;
    world.receive(None, &mut random, tally)?;
    first.iter().try_for_each(|chunk| world.send(chunk, &mut random, tally))?;
    let calls = 10 + random.below(60);
    world.run(calls, true, &mut random, tally)
}

impl World {
    /// Adds a decoder.
    fn receive(&mut self, join: Option<JoinPoint>, random: &mut Random, tally: &mut Tally) -> Result<(), Difference> {
        let Some(header) = self.author.header().cloned() else {
            return Err("the encoder has written no header".into());
        };
        let receiver =
            Receiver::new(&self.author.models, &header, self.binding, join, random.pick(&[1, 3, 64]), self.datagrams);
        self.receivers.push(receiver.map_err(|error| format!("a decoder cannot be opened: {error}"))?);
        tally.decoders += 1;
        tally.joined += u64::from(join.is_some());
        Ok(())
    }

    fn send(&mut self, chunk: &Chunk, random: &mut Random, tally: &mut Tally) -> Result<(), Difference> {
        let restarts = matches!(chunk.content, Content::Reset { .. } | Content::Model { .. });
        if restarts && self.receivers.len() < RECEIVERS && random.one_in(5) {
            let index = random.one_in(2).then_some(chunk.index);
            self.receive(Some(JoinPoint { offset: self.offset, index }), random, tally)?;
        }
        self.offset += chunk.bytes.len() as u64;
        self.receivers.iter_mut().try_for_each(|receiver| receiver.send(chunk, random, tally))
    }

    /// Makes `calls` calls, then ends the stream.
    fn run(mut self, calls: usize, may_fork: bool, random: &mut Random, tally: &mut Tally) -> Result<(), Difference> {
        // May write more checkpoints than are allowed to wait ([DEC-18]).
        let eager = random.one_in(8);
        for call in 0..calls {
            let op = if eager && random.one_in(2) { Op::Checkpoint } else { Op::draw(random, 9) };
            let chunks = self.author.apply(op, random);
            let chunks = chunks.map_err(|error| format!("call {call}, {op:?}: the encoder: {error}"))?;
            let at = |difference| format!("call {call}, {op:?}: {difference}");
            for (place, chunk) in chunks.iter().enumerate() {
                if let Some(next) = chunks.get(place + 1).filter(|next| matches!(next.content, Content::Target(..)))
                    && random.one_in(20)
                {
                    let mut receivers = self.receivers.iter_mut();
                    receivers.try_for_each(|receiver| receiver.send_early(next, random, tally)).map_err(at)?;
                }
                self.send(chunk, random, tally).map_err(at)?;
            }
            if may_fork && random.one_in(50) {
                tally.forks += 1;
                let mut own = Random::new(random.next());
                let calls = own.below(20);
                let fork = self.clone().run(calls, false, &mut own, tally);
                fork.map_err(|difference| format!("after a fork at call {call}: {difference}"))?;
            }
            if self.receivers.len() < RECEIVERS && random.one_in(40) {
                let fork = self.receivers[random.below(self.receivers.len())].clone();
                self.receivers.push(fork);
                tally.decoders += 1;
            }
        }
        let chunks = self.author.end().map_err(|error| format!("the end: the encoder: {error}"))?;
        chunks.iter().try_for_each(|chunk| self.send(chunk, random, tally))?;
        for receiver in self.receivers {
            tally.refused += u64::from(receiver.has_failed());
            receiver.finish(random, tally).map_err(|difference| format!("after the end: {difference}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
