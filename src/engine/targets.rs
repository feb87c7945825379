//! Layered mode: the target chunks of some frames, and how they are split to fit datagrams (spec 2.6).

use std::ops::Range;

use super::choice;
use super::parameters::TargetParameters;
use super::payload::PayloadCoder;
use crate::entropy;
use crate::model::CodecModel;
use crate::number::to_usize;
use crate::wire::{Target, varint};

/// The smallest [`EncoderConfig::datagram_limit`](crate::codec::EncoderConfig::datagram_limit).
pub(crate) const MIN_DATAGRAM: u32 = 256;
/// Bytes of a C2 that holds a part, without payload, count and first: kind, index low, epoch low, check, and the
/// closing 00.
const PART_FIELDS: usize = 1 + 2 + 1 + 2 + 1;
/// The same for a C2 that holds all elements, whose count is 0.
const FRAME_FIELDS: usize = PART_FIELDS + 1;

/// A target chunk of some frames of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPiece {
    /// Its frames, counted from the first of the chunk.
    pub frames: Range<usize>,
    /// The elements that it holds, if it holds a part of one frame.
    pub elements: Option<Range<usize>>,
    /// One payload per lane.
    pub lanes: Vec<Vec<u8>>,
}

impl TargetPiece {
    /// All of a chunk's frames in one target chunk.
    #[must_use]
    pub fn whole(frames: usize, lanes: Vec<Vec<u8>>) -> Self {
        Self { frames: 0..frames, elements: None, lanes }
    }
}

/// The target chunks for Y of a chunk's frames, `[T, E]`, in this many lanes.
///
/// Without a limit on datagrams there is one chunk. With a limit there is one if it fits, else one for each frame; a
/// frame that does not fit is split, with each part as long as its estimated cost allows.
pub(super) fn pieces(
    tables: &PayloadCoder<'_>,
    parameters: &TargetParameters,
    y: &[i16],
    lanes: usize,
    datagram_limit: Option<usize>,
) -> Vec<TargetPiece> {
    let width = tables.model.hidden_width();
    let frames = y.len().checked_div(width).unwrap_or(0);
    let Some(limit) = datagram_limit else {
        return vec![TargetPiece::whole(frames, tables.encode_target(lanes, y, parameters))];
    };
    if frames > 1 {
        let lanes = tables.encode_target(lanes, y, parameters);
        if Target::message_bytes(frames, &lanes) <= limit {
            return vec![TargetPiece::whole(frames, lanes)];
        }
    }
    let mut pieces = Vec::with_capacity(frames);
    for frame in 0..frames {
        let start = frame.saturating_mul(width);
        let encode = |elements: Range<usize>| {
            let (first, end) = (start.saturating_add(elements.start), start.saturating_add(elements.end));
            tables.encode_part(y, parameters, first..end)
        };
        let piece =
            |elements, payload| TargetPiece { frames: frame..frame.saturating_add(1), elements, lanes: vec![payload] };
        let payload = encode(0..width);
        if payload.len().saturating_add(FRAME_FIELDS) <= limit {
            pieces.push(piece(None, payload));
            continue;
        }
        let costs = costs(tables.model, parameters, y, start..start.saturating_add(width));
        pieces
            .extend(split(&costs, limit, encode).into_iter().map(|(elements, payload)| piece(Some(elements), payload)));
    }
    pieces
}

/// The costs of some elements of Y.
fn costs(model: &CodecModel, parameters: &TargetParameters, y: &[i16], elements: Range<usize>) -> Vec<ElementCost> {
    let bank = model.target();
    let places = parameters.tables.iter().zip(&parameters.shifts);
    let values = y.iter().zip(places).skip(elements.start).take(elements.len());
    let cost = |(y, (table, shift)): (&i16, (&u32, &i32))| {
        let table = to_usize(*table);
        let coded = choice::cost(bank.mass(table, *shift, i32::from(*y))).unsigned_abs();
        ElementCost { coded, plain: entropy::width(&[*y]) }
    };
    values.map(cost).collect()
}

/// The cost of an element.
#[derive(Clone, Copy)]
struct ElementCost {
    /// With its table, in 1/256 bit (spec 6.8).
    coded: u32,
    /// In a plain run alone, in bits (spec 3.5); in a longer run every element takes as many bits as the largest.
    plain: u32,
}

/// Splits a frame's elements into parts whose messages have at most `limit` bytes: each part takes as many elements as
/// their costs, coded or plain, seem to allow, and fewer if its payload turns out too long. One element always fits.
fn split(
    costs: &[ElementCost],
    limit: usize,
    encode: impl Fn(Range<usize>) -> Vec<u8>,
) -> Vec<(Range<usize>, Vec<u8>)> {
    let bytes_of = |value: usize| varint::len(value as u64);
    let mut parts = Vec::new();
    let mut first = 0_usize;
    while first < costs.len() {
        // Bytes for count and payload.
        let room = limit.saturating_sub(PART_FIELDS).saturating_sub(bytes_of(first));
        let (mut count, mut coded, mut width) = (0_usize, 0_u64, 0_u32);
        for element in costs.iter().skip(first) {
            coded = coded.saturating_add(u64::from(element.coded));
            width = width.max(element.plain);
            let more = count.saturating_add(1);
            let plain = u64::from(width).saturating_mul(more as u64).saturating_add(entropy::PLAIN_BITS);
            let bits = coded.div_ceil(256).min(plain);
            let bytes = to_usize(bits.div_ceil(8));
            if bytes.saturating_add(bytes_of(more)) > room {
                break;
            }
            count = more;
        }
        let mut count = count.max(1);
        loop {
            let end = first.saturating_add(count);
            let payload = encode(first..end);
            let bytes = payload.len().saturating_add(bytes_of(count));
            if bytes <= room || count == 1 {
                parts.push((first..end, payload));
                first = end;
                break;
            }
            // The number of elements that take the excess bytes, if all cost the same.
            let over = bytes.saturating_sub(room).saturating_mul(count).div_ceil(bytes);
            count = count.saturating_sub(over).max(1);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coded(coded: u32) -> ElementCost {
        ElementCost { coded, plain: 1 << 20 }
    }

    #[test]
    fn parts_fill_their_datagrams_and_cover_the_frame() {
        // Payloads that are as long as the costs say, longer, and much shorter.
        for (numerator, denominator) in [(1, 1), (5, 4), (3, 1), (1, 9)] {
            let costs: Vec<ElementCost> = (0..5000).map(|i| coded(256 * (i % 23))).collect();
            let length = |elements: &Range<usize>| {
                let bits: u32 = costs[elements.clone()].iter().map(|cost| cost.coded).sum::<u32>() / 256;
                (bits as usize).div_ceil(8) * numerator / denominator
            };
            for limit in [256, 300, 1200] {
                let parts = split(&costs, limit, |elements| vec![1; length(&elements)]);
                let mut next = 0;
                for (elements, payload) in &parts {
                    assert_eq!(elements.start, next);
                    next = elements.end;
                    let message = PART_FIELDS
                        + varint::len(elements.start as u64)
                        + varint::len(elements.len() as u64)
                        + payload.len();
                    assert!(message <= limit);
                    let last = elements.end == costs.len();
                    assert!(
                        last || denominator > numerator || message + 8 * numerator >= limit,
                        "{message} of {limit}"
                    );
                }
                assert_eq!(next, costs.len());
            }
        }
    }

    #[test]
    fn parts_of_plain_values_are_filled_too() {
        // Escapes of 47 bits each, which the coder writes as plain numbers of 16 bits: 124 to a part of 256 bytes.
        let costs = [ElementCost { coded: 47 * 256, plain: 16 }; 1000];
        let parts = split(&costs, 256, |elements| vec![1; 2 * elements.len() + 2]);
        assert!(parts[..parts.len() - 1].iter().all(|(elements, _)| elements.len() >= 120), "{parts:?}");
    }

    #[test]
    fn an_element_that_costs_too_much_has_a_part_of_its_own() {
        let parts = split(&[coded(10), coded(u32::MAX), coded(10)], 256, |elements| vec![1; elements.len()]);
        assert_eq!(parts.iter().map(|part| part.0.clone()).collect::<Vec<_>>(), [0..1, 1..2, 2..3]);
        let parts = split(&[coded(10); 4], 256, |elements| vec![1; 300 * elements.len()]);
        assert_eq!(parts.len(), 4);
    }
}
