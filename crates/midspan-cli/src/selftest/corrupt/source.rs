//! Pairs of streams to be corrupted: the same calls with other frames and another identity.

use std::sync::Arc;

use crate::selftest::author::{Author, Chunk, Content};
use crate::selftest::calls::Op;
use crate::selftest::corrupt::damage::{Material, Unit};
use crate::selftest::draw::Draw;
use crate::selftest::models::Models;
use midspan::codec::{Codec, EncoderConfig};
use midspan::error::Result;
use midspan::model::synthetic::Random;
use midspan::stream::Binding;
use midspan::wire::{CheckWidth, Identity, Mode};

/// How many numbers are reserved for the chunks of one call.
const CALL: usize = 1_000;

/// A pair of streams.
#[derive(Debug)]
pub(super) struct Source {
    /// The models of both.
    pub models: Vec<Arc<Codec>>,
    /// Whether the stream or a transport delimits the chunks.
    pub binding: Binding,
    /// The check of both.
    pub check: CheckWidth,
    /// The complete first stream.
    pub chunks: Vec<Chunk>,
    /// A description of it for reports.
    pub what: String,
    own: Vec<Unit>,
    other: Vec<Unit>,
    resets: Vec<usize>,
}

impl Source {
    /// Draws a pair of random streams.
    ///
    /// # Errors
    /// The encoder's.
    pub(super) fn draw(models: &Models, large: bool, random: &mut Random) -> Result<Source> {
        let models = models.pick(large, random);
        let mode = random.pick(&[Mode::Joined, Mode::Layered]);
        let binding = random.pick(&[Binding::ByteStream, Binding::Message]);
        let check = random.pick(&[CheckWidth::None, CheckWidth::One, CheckWidth::Two]);
        let identified = !random.one_in(8);
        let config = EncoderConfig::new(Identity::none())
            .mode(mode)
            .binding(binding)
            .check(check)
            .file(binding == Binding::ByteStream && random.one_in(4))
            .lanes(random.pick(&[1, 1, 2, 3]))
            .max_rewind(random.pick(&[4, 64]))
            .target_horizon(random.pick(&[8, 12, 64]))
            .checkpoint_interval(random.pick(&[0, 0, 7]))
            .length_offset(random.pick(&[None, Some(1), Some(20)]))
            .datagram_limit(random.pick(&[None, Some(256)]));
        let calls = if large { 8 + random.below(8) } else { 8 + random.below(25) };
        let calls: Vec<Op> = (0..calls).map(|_| Op::draw(random, 8)).collect();
        // Each chunk with its number, which consists of the call and the chunk's place in what the call wrote.
        let mut write = || -> Result<Vec<(usize, Chunk)>> {
            let identity = if identified { Identity::new(random.next().to_le_bytes()) } else { Identity::none() };
            let mut author = Author::new(models.clone(), config.clone().identity(identity))?.with_typical_frames();
            let mut chunks = Vec::new();
            let numbered = |call, chunks: Vec<Chunk>| (call * CALL..).zip(chunks);
            for (call, op) in calls.iter().enumerate() {
                chunks.extend(numbered(call, author.apply(*op, random)?));
            }
            chunks.extend(numbered(calls.len(), author.end()?));
            Ok(chunks)
        };
        let (chunks, other) = (write()?, write()?);
        let datagrams = binding == Binding::Message && mode == Mode::Layered && random.one_in(2);
        let (own, other) = (units(&chunks, datagrams), units(&other, datagrams));
        // A file cannot lose or move targets, because its seek index gives their places.
        let lossy = mode == Mode::Layered && !config.file && random.one_in(2);
        let restarts = |chunk: &Chunk| matches!(chunk.content, Content::Reset { .. } | Content::Model { .. });
        Ok(Source {
            what: format!(
                "{} model, {mode:?}, {binding:?}, {check:?}{}{}{}",
                if large { "large" } else { "small" },
                if models[0].model().side().is_some() { ", side indices" } else { "" },
                if datagrams { ", datagrams" } else { "" },
                if identified { "" } else { ", no identity" }
            ),
            own: if lossy { late(&chunks, own, random) } else { own },
            other: if identified { other } else { Vec::new() },
            resets: chunks.iter().filter(|(_, chunk)| restarts(chunk)).map(|(number, _)| *number).collect(),
            models,
            binding,
            check,
            chunks: chunks.into_iter().map(|(_, chunk)| chunk).collect(),
        })
    }

    /// The streams that corruptions are made from.
    pub(super) fn material(&self) -> Material<'_> {
        Material { own: &self.own, other: &self.other, resets: &self.resets }
    }
}

fn units(chunks: &[(usize, Chunk)], datagrams: bool) -> Vec<Unit> {
    let unit = |(number, chunk): &(usize, Chunk)| Unit {
        number: *number,
        datagram: datagrams && matches!(chunk.content, Content::Target(..)),
        bytes: chunk.bytes.clone(),
    };
    chunks.iter().map(unit).collect()
}

/// A layered stream as a transport may deliver it: some targets are lost, late by up to six chunks, or early by up to
/// three.
fn late(chunks: &[(usize, Chunk)], units: Vec<Unit>, random: &mut Random) -> Vec<Unit> {
    let is_end = |(_, chunk): &(usize, Chunk)| matches!(chunk.content, Content::End { .. });
    let end = chunks.iter().position(is_end).unwrap_or(chunks.len());
    let mut sent = Vec::new();
    for (place, ((_, chunk), unit)) in chunks.iter().zip(units).enumerate() {
        let mut time = place;
        if matches!(chunk.content, Content::Target(..)) {
            match random.below(10) {
                0 => continue,
                1..=3 => time += random.below(6),
                4 => time = time.saturating_sub(1 + random.below(3)).max(1),
                _ => {}
            }
            // Nothing comes after the end of a byte stream.
            time = time.min(end - 1);
        }
        sent.push((time, place, unit));
    }
    sent.sort_by_key(|(time, place, _)| (*time, *place));
    sent.into_iter().map(|(.., unit)| unit).collect()
}
