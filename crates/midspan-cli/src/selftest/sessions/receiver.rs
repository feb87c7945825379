//! A decoder together with the plain one. Both get the same calls, and everything that they report is compared.

use std::sync::Arc;

use super::Tally;
use super::timeline::{Arrival, Said, Timeline};
use crate::selftest::author::{Chunk, Content, side_index};
use crate::selftest::draw::Draw;
use midspan::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, TargetRefusal, Verdict};
use midspan::error::{Error, ErrorKind};
use midspan::model::synthetic::Random;
use midspan::stream::{Binding, JoinPoint};
use midspan::wire::{Kind, Seed, StreamHeader, Target};

/// What differs, in words.
pub(super) type Difference = String;

/// Both decoders, and the targets in transit to them.
#[derive(Clone)]
pub(super) struct Receiver {
    codec: Arc<Codec>,
    models: Vec<Arc<Codec>>,
    config: DecoderConfig,
    decoder: Decoder,
    plain: Timeline,
    /// Late targets, each with the time of its arrival, counted in chunks sent.
    late: Vec<(u64, Arrival)>,
    sent: u64,
    seed: Seed,
    /// Whether targets may come as datagrams.
    datagrams: bool,
}

impl Receiver {
    /// Creates both decoders. They begin with the header, or join at the next chunk that is sent.
    pub(super) fn new(
        models: &[Arc<Codec>],
        header: &StreamHeader,
        binding: Binding,
        join: Option<JoinPoint>,
        frames_per_poll: usize,
        datagrams: bool,
    ) -> Result<Receiver, Error> {
        let config = DecoderConfig::default().binding(binding).frames_per_poll(frames_per_poll);
        let codec = Arc::clone(&models[0]);
        let mut decoder = match join {
            None => Decoder::new(Arc::clone(&codec), config.clone())?,
            Some(point) => Decoder::join(Arc::clone(&codec), config.clone(), header.clone(), point)?,
        };
        models.iter().for_each(|model| decoder.add_model(Arc::clone(model)));
        let plain = Timeline::new(models.to_vec(), header.clone(), join.is_some());
        Ok(Receiver {
            models: models.to_vec(),
            codec,
            config,
            decoder,
            plain,
            late: Vec::new(),
            sent: 0,
            seed: header.identity.seed(),
            datagrams,
        })
    }

    /// Whether an error ended the session.
    pub(super) fn has_failed(&self) -> bool {
        self.plain.has_failed()
    }

    /// Sends a chunk over a link that delivers everything in order except targets. Targets may be lost, late, early,
    /// repeated or damaged.
    ///
    /// # Errors
    /// What differs, in words.
    pub(super) fn send(&mut self, chunk: &Chunk, random: &mut Random, tally: &mut Tally) -> Result<(), Difference> {
        self.sent += 1;
        let due: Vec<Arrival> =
            self.late.extract_if(.., |(time, _)| *time <= self.sent).map(|(_, late)| late).collect();
        for arrival in due {
            self.hand_in(arrival, random, tally)?;
        }
        if let Content::End { .. } = chunk.content
            && self.config.binding == Binding::ByteStream
        {
            // Nothing comes after the end of a byte stream but datagrams.
            let own: Vec<_> = self.late.extract_if(.., |(_, arrival)| !arrival.datagram).collect();
            for (_, arrival) in own {
                self.hand_in(arrival, random, tally)?;
            }
        }
        let datagram = self.datagrams && random.one_in(2);
        let arrival = Arrival { chunk: chunk.clone(), damaged: false, datagram: false };
        if !matches!(chunk.content, Content::Target(..)) {
            return self.hand_in(arrival, random, tally);
        }
        let arrival = Arrival { datagram, ..arrival };
        match random.below(20) {
            0..=1 => Ok(()),
            2..=7 => {
                self.late.push((self.sent + 1 + random.below(9) as u64, arrival));
                Ok(())
            }
            8 => {
                self.late.push((self.sent + random.below(20) as u64, arrival.clone()));
                self.hand_in(arrival, random, tally)
            }
            9 => {
                self.hand_in(damaged(&arrival, self.config.binding, self.seed), random, tally)?;
                self.late.push((self.sent + random.below(5) as u64, arrival));
                Ok(())
            }
            _ => self.hand_in(arrival, random, tally),
        }
    }

    /// Sends a target before its hyper-prior.
    ///
    /// # Errors
    /// What differs, in words.
    pub(super) fn send_early(
        &mut self,
        chunk: &Chunk,
        random: &mut Random,
        tally: &mut Tally,
    ) -> Result<(), Difference> {
        self.hand_in(Arrival { chunk: chunk.clone(), damaged: false, datagram: self.datagrams }, random, tally)
    }

    /// Delivers what is still in transit, ends the input, and polls both decoders to the end.
    ///
    /// # Errors
    /// What differs, in words.
    pub(super) fn finish(mut self, random: &mut Random, tally: &mut Tally) -> Result<(), Difference> {
        for (_, arrival) in std::mem::take(&mut self.late) {
            self.hand_in(arrival, random, tally)?;
        }
        self.poll(random, tally)?;
        if random.one_in(2) {
            // Conceal the targets that never came.
            while let Some(oldest) = self.plain.oldest_pending().filter(|_| !self.has_failed()) {
                self.conceal(oldest, 1)?;
                self.poll(random, tally)?;
            }
        }
        self.decoder.finish();
        self.plain.finish();
        self.poll(random, tally)
    }

    fn hand_in(&mut self, arrival: Arrival, random: &mut Random, tally: &mut Tally) -> Result<(), Difference> {
        if self.has_failed() {
            return Ok(());
        }
        let bytes = &arrival.chunk.bytes;
        let outcome = match self.config.binding {
            _ if arrival.datagram => self.decoder.push_datagram(&datagram(bytes, self.config.binding)),
            Binding::Message => self.decoder.push_message(bytes),
            Binding::ByteStream => {
                let cut = random.below(bytes.len() + 1);
                self.decoder.push(&bytes[..cut]).and_then(|()| self.decoder.push(&bytes[cut..]))
            }
        };
        outcome.map_err(|error| format!("a push is refused: {error}"))?;
        self.plain.push(arrival);
        // Sometimes several chunks arrive before the next poll.
        if random.one_in(4) {
            return Ok(());
        }
        self.poll(random, tally)?;
        self.meddle(random, tally)
    }

    /// Polls both until they have nothing more to report.
    fn poll(&mut self, random: &mut Random, tally: &mut Tally) -> Result<(), Difference> {
        loop {
            let mut found = said(self.decoder.poll());
            while let Said::Event(event) = &found
                && let DecoderEvent::Working { .. } = **event
            {
                tally.slices += 1;
                self.meddle_at_work(random)?;
                found = said(self.decoder.poll());
            }
            let expected = self.plain.poll();
            if found != expected {
                return Err(format!("the decoder says {found:?}, the plain one {expected:?}"));
            }
            self.compare()?;
            match expected {
                Said::Event(event) => {
                    tally.count(&event);
                    if let DecoderEvent::SideWanted { index, count } = *event {
                        self.give_side(index, count, random)?;
                    }
                    if let DecoderEvent::TargetsOverdue { index, count } = *event {
                        // Polled again without a change, both have to return this error.
                        let refused = Said::Error(ErrorKind::TargetOverdue);
                        if random.one_in(3)
                            && (said(self.decoder.poll()), self.plain.poll()) != (refused.clone(), refused)
                        {
                            return Err("a chunk is taken up over overdue targets".into());
                        }
                        if random.one_in(4) {
                            self.save_and_restore()?;
                        }
                        let count = if random.one_in(3) { 1 + random.below(count) } else { count };
                        self.conceal(index, count)?;
                    }
                }
                Said::Error(kind @ (ErrorKind::DigestMismatchW | ErrorKind::DigestMismatchY)) => {
                    return Err(format!("error {} in a stream that nothing damaged", kind.code()));
                }
                Said::NeedMore | Said::End | Said::Error(_) => return Ok(()),
            }
        }
    }

    /// Makes the calls that a caller may make between chunks.
    fn meddle(&mut self, random: &mut Random, tally: &mut Tally) -> Result<(), Difference> {
        if self.has_failed() {
            return Ok(());
        }
        match random.below(24) {
            0..=1 => {
                if let Some(oldest) = self.plain.oldest_pending() {
                    self.conceal(oldest + random.below(2) as u64, 1 + random.below(2))?;
                    if random.one_in(2) {
                        self.poll(random, tally)?;
                    }
                }
            }
            2 => self.conceal(random.below(40) as u64, random.below(3))?,
            3..=4 => {
                tally.saved += 1;
                self.save_and_restore()?;
            }
            5 => self.decoder = self.decoder.clone(),
            // Pushes a datagram of random bytes.
            6 if self.datagrams => {
                let bytes: Vec<u8> = (0..1 + random.below(30)).map(|_| random.byte() & 0x7f).collect();
                self.decoder.push_datagram(&bytes).map_err(|error| format!("a datagram is refused: {error}"))?;
                self.plain.push(Arrival { chunk: nonsense(bytes), damaged: true, datagram: true });
            }
            _ => {}
        }
        self.compare()
    }

    /// Makes the calls that a caller may make while a chunk is decoded slice by slice.
    fn meddle_at_work(&mut self, random: &mut Random) -> Result<(), Difference> {
        match random.below(6) {
            0 => self.decoder = self.decoder.clone(),
            1 if self.decoder.save().is_ok() => return Err("a decoder is saved in the middle of a chunk".into()),
            2 => {
                if let Some(oldest) = self.plain.oldest_pending() {
                    self.conceal(oldest, 1)?;
                }
            }
            _ => {}
        }
        self.compare()
    }

    fn conceal(&mut self, index: u64, count: usize) -> Result<(), Difference> {
        let found = self.decoder.conceal(index, count).map_err(|error| error.kind());
        let expected = self.plain.conceal(index, count);
        if found == expected {
            Ok(())
        } else {
            Err(format!("conceal({index}, {count}) gives {found:?}, the plain one {expected:?}"))
        }
    }

    /// Gives the side indices of frames, some time after the decoders asked for them.
    fn give_side(&mut self, index: u64, count: usize, random: &mut Random) -> Result<(), Difference> {
        if random.one_in(3) && self.plain.is_quiet() {
            let (found, expected) = (said(self.decoder.poll()), self.plain.poll());
            if found != expected {
                return Err(format!("while it waits for side indices: {found:?}, the plain one {expected:?}"));
            }
            self.compare()?;
            if let Said::Event(_) = found {
                // A datagram was taken meanwhile.
                return self.give_side(index, count, random);
            }
        }
        if random.one_in(4) {
            self.save_and_restore()?;
        }
        if self.decoder.wanted_side() != Some((index, count)) {
            return Err(format!("it wants {:?}, not {count} frames from {index} on", self.decoder.wanted_side()));
        }
        let model = self.decoder.codec().model();
        let known: Vec<u32> = (index..index + count as u64).filter_map(|index| side_index(model, index)).collect();
        let beyond = model.side().map_or(0, |side| side.vocabulary()) + 1;
        for wrong in [[&known[..], &[0]].concat(), known[1..].to_vec(), vec![beyond; count]] {
            if self.decoder.give_side(&wrong).map_err(|error| error.kind()) != Err(ErrorKind::WrongSideIndices) {
                return Err(format!("these side indices are taken: {wrong:?}"));
            }
        }
        if random.one_in(8) {
            self.end_without_side()?;
        }
        self.plain.give_side(&known);
        self.decoder.give_side(&known).map_err(|error| format!("side indices are refused: {error}"))
    }

    /// The input ends while a chunk waits for side indices.
    fn end_without_side(&self) -> Result<(), Difference> {
        let (mut decoder, mut plain) = (self.decoder.clone(), self.plain.clone());
        decoder.finish();
        plain.finish();
        loop {
            match (said(decoder.poll()), plain.poll()) {
                (found, expected) if found != expected => {
                    return Err(format!("it ends without side indices: {found:?}, the plain one {expected:?}"));
                }
                (Said::Event(_), _) => {}
                _ => return Ok(()),
            }
        }
    }

    fn save_and_restore(&mut self) -> Result<(), Difference> {
        match self.decoder.save() {
            Ok(saved) if self.plain.is_quiet() => {
                let restored = Decoder::restore(Arc::clone(&self.codec), &self.models, self.config.clone(), &saved);
                self.decoder = restored.map_err(|error| format!("a saved decoder is refused: {error}"))?;
                let again =
                    self.decoder.save().map_err(|error| format!("a restored decoder cannot be saved: {error}"))?;
                if again == saved { Ok(()) } else { Err("a restored decoder is saved to other bytes".into()) }
            }
            Err(error) if !self.plain.is_quiet() && error.kind() == ErrorKind::NotAvailable => Ok(()),
            Err(_) if self.plain.has_failed() => Ok(()),
            other => Err(format!("save gives {:?}, nothing left to tell: {}", other.map(drop), self.plain.is_quiet())),
        }
    }

    /// Compares the state of both.
    fn compare(&self) -> Result<(), Difference> {
        let (decoder, plain) = (&self.decoder, &self.plain);
        let stands = |next, confirmed, resume, pending, missing| {
            format!(
                "next {next}, confirmed {confirmed}, resume {resume}, oldest pending {pending:?} without {missing:?}"
            )
        };
        let (oldest, plain_oldest) = (decoder.oldest_pending(), plain.oldest_pending());
        let missing = oldest.and_then(|index| decoder.missing_elements(index));
        let plain_missing = plain_oldest.and_then(|index| plain.missing_elements(index));
        let found = stands(decoder.next_index(), decoder.confirmed_index(), decoder.resume_index(), oldest, missing);
        let expected =
            stands(plain.next_index(), plain.confirmed_index(), plain.resume_index(), plain_oldest, plain_missing);
        if found == expected {
            Ok(())
        } else {
            Err(format!("the decoder stands at {found}; the plain one at {expected}"))
        }
    }
}

/// The target with a bit of its index changed, so that its check fails.
fn damaged(arrival: &Arrival, binding: Binding, seed: Seed) -> Arrival {
    let bytes = &arrival.chunk.bytes;
    let kind = if bytes[0] == Kind::Target.byte() { Kind::Target } else { Kind::TargetBatch };
    let body = body(bytes, binding);
    // The check may match by chance. Then another bit of the index is changed.
    let damaged = (0..3).find_map(|bit| {
        let mut changed = bytes.to_vec();
        changed[body.start] ^= 1 << bit;
        let index = arrival.chunk.index ^ 1 << bit;
        let target = Target::load(&changed[body.clone()].to_vec().into(), kind, u32::MAX).ok()?;
        (!target.check_holds(index, arrival.chunk.epoch, seed)).then_some(changed)
    });
    match damaged {
        Some(changed) => {
            Arrival { chunk: Chunk { bytes: changed.into(), ..arrival.chunk.clone() }, damaged: true, ..*arrival }
        }
        None => arrival.clone(),
    }
}

/// The place of a target's body: after the kind and, in a byte stream, the length; in a message, before the final 0x00.
fn body(bytes: &[u8], binding: Binding) -> std::ops::Range<usize> {
    match binding {
        Binding::Message => 1..bytes.len() - 1,
        Binding::ByteStream => 2 + bytes[1].leading_ones() as usize..bytes.len(),
    }
}

/// A target as a datagram, which is a message in either binding.
fn datagram(bytes: &[u8], binding: Binding) -> Vec<u8> {
    [&bytes[..1], &bytes[body(bytes, binding)], &[0]].concat()
}

/// A chunk that is not a target.
fn nonsense(bytes: Vec<u8>) -> Chunk {
    let content = Content::Target(Vec::new(), None);
    Chunk { bytes: bytes.into(), index: 0, epoch: 0, content, digests: None }
}

fn said(poll: Result<DecoderPoll, Error>) -> Said {
    match poll {
        Ok(DecoderPoll::Event(event)) => Said::Event(Box::new(event)),
        Ok(DecoderPoll::NeedMore) => Said::NeedMore,
        Ok(DecoderPoll::End) => Said::End,
        Err(error) => Said::Error(error.kind()),
    }
}

impl Tally {
    fn count(&mut self, event: &DecoderEvent) {
        self.events += 1;
        match event {
            DecoderEvent::Verdict { verdict: Verdict::WConfirmed, .. } => self.w_confirmed += 1,
            DecoderEvent::Verdict { verdict: Verdict::YConfirmed, .. } => self.y_confirmed += 1,
            DecoderEvent::Verdict { verdict: Verdict::YUnverifiable, .. } => self.unverifiable += 1,
            DecoderEvent::Targets(targets) if targets.concealed => self.concealed += 1,
            DecoderEvent::TargetRefused { reason: TargetRefusal::Late, .. } => self.late += 1,
            DecoderEvent::TargetRefused { .. } => self.damaged += 1,
            DecoderEvent::TargetEarly { .. } => self.early += 1,
            DecoderEvent::TargetPart { .. } => self.parts += 1,
            DecoderEvent::TargetsOverdue { .. } => self.overdue += 1,
            DecoderEvent::TargetsDropped { .. } => self.dropped += 1,
            DecoderEvent::Rewound { .. } => self.rewinds += 1,
            DecoderEvent::Reset { .. } => self.resets += 1,
            DecoderEvent::Model { .. } => self.switches += 1,
            DecoderEvent::SideIndices { .. } => self.side_sent += 1,
            DecoderEvent::SideWanted { .. } => self.side_wanted += 1,
            _ => {}
        }
    }
}
