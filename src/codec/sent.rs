//! What an encoder has sent, and whether it is unlike what the model was made for (spec 4.4).
//!
//! A codec model is learned from, or fitted to, hidden states of some text. Other hidden states are coded too, but take
//! more bits, and may lie outside the range of the quality. The sums here tell a caller so.
#![deny(clippy::float_arithmetic)]

use std::fmt;

use crate::engine::CodedChunk;
use crate::number::to_u64;
use crate::stream::saved::saved_fields;

/// The recent sums are halved once they hold this many frames, so that they are about the last few hundred.
const HALVED_AT: u64 = 512;

/// Sums over the frames that an encoder has sent ([`Encoder::sent`](super::Encoder::sent)), including those that were
/// rewound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Sent {
    /// Frames.
    pub frames: u64,
    /// Values of W.
    pub w_values: u64,
    /// Values of Y.
    pub y_values: u64,
    /// Values of Y that lay outside the range of the quality and were clamped (spec 6.8); none in pushes of integers.
    pub clipped: u64,
    /// Values of W and of Y that their tables do not hold (spec 3.4), whatever the mode of their run.
    pub escaped: u64,
    /// Bits of the payloads of W and of Y, seals included. Framing, checks, side indices and the hidden states of exact
    /// frames are not counted.
    pub payload_bits: u64,
    /// Frames of which the model says how many bits it expects
    /// ([`CodecModel::expected_bits`](crate::model::CodecModel::expected_bits)). If it takes side indices, chunks are left
    /// out in which a frame has none: their frames take more bits.
    pub compared_frames: u64,
    /// Those among `payload_bits` that are these frames'.
    pub compared_bits: u64,
    /// Bits that are expected of these frames, in 1/256.
    expected_256ths: u64,
}

saved_fields!(Sent {
    frames,
    w_values,
    y_values,
    clipped,
    escaped,
    payload_bits,
    compared_frames,
    compared_bits,
    expected_256ths,
});

impl Sent {
    /// With fewer frames nothing is judged.
    pub const JUDGED_FROM: u64 = 128;

    /// Bits that the model expects of the compared frames, to compare with `compared_bits`. The model speaks of one payload
    /// a frame. Where a chunk has more, as in layered mode, each further one may take 8 bits for its seal.
    #[must_use]
    pub fn expected_bits(&self) -> u64 {
        self.expected_256ths.saturating_add(128).wrapping_shr(8)
    }

    /// The sums of a chunk of C values of W and E of Y in each frame. `expected_256ths` are the bits that the model expects
    /// of a frame, in 1/256, or 0 if it does not say.
    pub(super) fn of_chunk(chunk: &CodedChunk, (channels, width): (usize, usize), expected_256ths: u64) -> Self {
        let frames = to_u64(chunk.crcs.len());
        let payloads = || chunk.payloads.iter().chain(chunk.targets.iter().flat_map(|piece| &piece.lanes));
        let bits = payloads().map(|payload| to_u64(payload.len()).saturating_mul(8)).fold(0, u64::saturating_add);
        let further = to_u64(payloads().count()).saturating_sub(frames);
        let expected = frames.saturating_mul(expected_256ths).saturating_add(further.saturating_mul(SEAL_256THS));
        let if_known = |count: u64| if expected_256ths > 0 { count } else { 0 };
        Self {
            frames,
            w_values: frames.saturating_mul(to_u64(channels)),
            y_values: frames.saturating_mul(to_u64(width)),
            clipped: chunk.clipped,
            escaped: chunk.escaped,
            payload_bits: bits,
            compared_frames: if_known(frames),
            compared_bits: if_known(bits),
            expected_256ths: if_known(expected),
        }
    }

    /// The sum of both, field by field.
    pub(super) fn plus(self, other: Self) -> Self {
        self.fields_with(other, u64::saturating_add)
    }

    fn fields_with(self, other: Self, sum: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            frames: sum(self.frames, other.frames),
            w_values: sum(self.w_values, other.w_values),
            y_values: sum(self.y_values, other.y_values),
            clipped: sum(self.clipped, other.clipped),
            escaped: sum(self.escaped, other.escaped),
            payload_bits: sum(self.payload_bits, other.payload_bits),
            compared_frames: sum(self.compared_frames, other.compared_frames),
            compared_bits: sum(self.compared_bits, other.compared_bits),
            expected_256ths: sum(self.expected_256ths, other.expected_256ths),
        }
    }

    /// The sums after `more`, where these are about recent frames: they are halved until they hold fewer than
    /// `HALVED_AT` frames.
    pub(super) fn then_recent(self, more: Self) -> Self {
        let mut recent = self.plus(more);
        while recent.frames >= HALVED_AT {
            recent = recent.fields_with(Self::default(), |own, _| own.wrapping_shr(1));
        }
        recent
    }

    /// Whether these sums are unlike what the model was made for.
    pub(super) fn unlike(&self) -> Option<Unlike> {
        let more = |count: u64, of: u64, than: u64| count.saturating_mul(than) > of;
        let values = self.w_values.saturating_add(self.y_values);
        let outside = self.frames >= Self::JUDGED_FROM
            && (more(self.escaped, values, ESCAPED) || more(self.clipped, self.y_values, CLIPPED));
        (self.is_long() || outside).then_some(Unlike { recent: *self })
    }

    /// Whether payloads are far longer than the model expects.
    fn is_long(&self) -> bool {
        let (numerator, denominator) = BITS;
        let found = self.compared_bits.saturating_mul(denominator).saturating_mul(256);
        self.compared_frames >= Self::JUDGED_FROM && found > self.expected_256ths.saturating_mul(numerator)
    }
}

/// More than this many times the expected bits are unlike what the model was made for: a numerator and a denominator.
///
/// With the default model, recent frames of novels never take more than 1.51 times, nor of plays 1.47. Program sources
/// take 1.9 to 2.3 in the coarse qualities, base64 3, and random hidden states 2 and more in the three qualities tried
/// (BENCHMARKS.md, *Unlike text*).
const BITS: (u64, u64) = (8, 5);

/// What a payload's seal takes at most, about, in 1/256 bit.
const SEAL_256THS: u64 = 8 * 256;

/// So is more than one escape in this many values. Of the texts measured none has more than one in 180, random
/// hidden states have one in 11 and more. This finds frames that are far from all tables although they cost little,
/// because they repeat.
const ESCAPED: u64 = 100;

/// So is more than one clamped value in this many of Y. No text that was measured has any; this many are one in every
/// fourth frame at E = 256.
const CLIPPED: u64 = 1_000;

/// A session sends what is unlike what its model was made for ([`Encoder::unlike`](super::Encoder::unlike)). `Display`
/// gives a sentence for users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unlike {
    /// Sums over recent frames, at least 128 and fewer than 512.
    pub recent: Sent,
}

impl fmt::Display for Unlike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sent { w_values, y_values, clipped, escaped, compared_frames, compared_bits, .. } = self.recent;
        write!(f, "the hidden states are unlike those that the codec was made for: ")?;
        if self.recent.is_long() {
            let mean = |bits: u64| bits.checked_div(compared_frames).unwrap_or(0);
            let expected = self.recent.expected_bits();
            write!(f, "{} bits a frame where {} are expected, ", mean(compared_bits), mean(expected))?;
        }
        let (escaped, clipped) = (Share(escaped, w_values.saturating_add(y_values)), Share(clipped, y_values));
        write!(f, "{escaped} of the values outside their tables, {clipped} clamped")
    }
}

/// A count as a share of another, in percent with one digit after the point.
struct Share(u64, u64);

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Share(count, of) = *self;
        let mille = count.saturating_mul(1_000).saturating_add(of.wrapping_shr(1)).checked_div(of).unwrap_or(0);
        write!(f, "{}.{} %", mille.wrapping_div(10), mille.wrapping_rem(10))
    }
}
