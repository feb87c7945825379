//! Lanes: which frames they hold (spec 2.6), and the table of their lengths (spec 2.7).
//!
//! The table predicts each length from the bytes and frames that remain, and codes the deviation with an Exp-Golomb
//! code whose order follows the prediction. The prediction counts the table's own bytes too, so the table's length
//! affects its contents. The table ends with any number of zero bits and a one bit; these zeros give a writer the room
//! to make length and contents agree. Without them one batch in a thousand (three lanes) to one in twenty (256 lanes)
//! would have no table.

use std::ops::Range;

use bytes::{BufMut, BytesMut};

use crate::error::{Error, ErrorKind};
use crate::number::to_u64;

/// The most lanes of a batch.
pub const MAX_LANES: u32 = 1_024;
/// The most zero bits before the one bit of an Exp-Golomb code.
const MAX_ZEROS: u32 = 24;

/// The most lanes that a batch of `frames` frames may have.
#[must_use]
pub const fn max_lanes(frames: u32) -> u32 {
    if frames < MAX_LANES { frames } else { MAX_LANES }
}

/// The frames of lane `lane` of `lanes`, counted within a chunk of `frames` frames.
///
/// Lanes from `lanes` on are empty, as is everything if `lanes` is 0.
#[must_use]
pub fn lane_frames(lane: u32, frames: u32, lanes: u32) -> Range<u32> {
    // [BATCH-3] The partition of T frames into L lanes is fixed: lane i holds frames floor(i·T / L) up to, not
    // including, floor((i+1)·T / L), counted within the chunk.
    let edge = |lane: u64| {
        let edge = lane.saturating_mul(u64::from(frames)).checked_div(u64::from(lanes)).unwrap_or(0);
        u32::try_from(edge).unwrap_or(frames).min(frames)
    };
    edge(u64::from(lane))..edge(u64::from(lane).saturating_add(1))
}

/// The bytes and frames that are not yet assigned to lanes, and the prediction that follows from them.
struct Prediction {
    remaining: u64,
    frames: u64,
}

impl Prediction {
    /// p and k of the next lane, which holds `frames` frames.
    fn next(&self, frames: u64) -> (u64, u32) {
        let p = self.remaining.saturating_mul(frames).checked_div(self.frames).unwrap_or(0);
        let bit_length = u64::BITS.saturating_sub(p.leading_zeros());
        (p, bit_length.saturating_sub(5))
    }

    fn take(&mut self, length: u64, frames: u64) {
        self.remaining = self.remaining.saturating_sub(length);
        self.frames = self.frames.saturating_sub(frames);
    }
}

/// The lengths of all lanes but the last, and the bytes of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneTable {
    /// Bytes of lanes 0 to L − 2.
    pub lengths: Vec<usize>,
    /// Bytes of the table itself.
    pub bytes: usize,
}

/// Reads the lane table at the start of `rest`, the body after the field *lanes − 1*.
///
/// `check` is the number of check bytes that follow the table. `lanes` is at most [`max_lanes`]; for one lane the
/// table is empty.
///
/// # Errors
/// [`ErrorKind::LaneTable`], [`ErrorKind::LanePadding`], and [`ErrorKind::ChunkLayout`] if the body ends inside the
/// table: all at offset 0, the table's start.
pub fn load(rest: &[u8], frames: u32, lanes: u32, check: usize) -> Result<LaneTable, Error> {
    let mut table = LaneTable { lengths: Vec::new(), bytes: 0 };
    if lanes <= 1 {
        return Ok(table);
    }
    let wrong = Error::new(ErrorKind::LaneTable, 0);
    let mut bits = BitReader { bytes: rest, next: 0 };
    let mut prediction = Prediction { remaining: to_u64(rest.len()), frames: u64::from(frames) };
    let mut total = 0_u64;
    for lane in 0..lanes.saturating_sub(1) {
        let range = lane_frames(lane, frames, lanes);
        let held = u64::from(range.end.saturating_sub(range.start));
        let (p, k) = prediction.next(held);
        let u = bits.exp_golomb(k)?;
        // [LANE-1] z above 24, a negative length, or lengths that together exceed what the body holds are error 312.
        let length = if u & 1 == 0 { p.checked_add(u >> 1) } else { p.checked_sub((u >> 1).saturating_add(1)) };
        let length = length.ok_or(wrong)?;
        total = total.saturating_add(length);
        prediction.take(length, held);
        table.lengths.push(usize::try_from(length).map_err(|_| wrong)?);
    }
    table.bytes = bits.close()?;
    let room = rest.len().saturating_sub(table.bytes).saturating_sub(check);
    if total > to_u64(room) {
        return Err(wrong);
    }
    Ok(table)
}

/// Appends the table for lanes of these `lengths` (the last lane's is among them). The caller then appends `check`
/// check bytes and the lanes. For one lane it appends nothing.
///
/// # Errors
/// [`ErrorKind::LaneTable`] at offset 0 if a deviation has no code; `out` is then unchanged.
pub fn encode(lengths: &[usize], frames: u32, check: usize, out: &mut BytesMut) -> Result<(), Error> {
    let wrong = Error::of_call(ErrorKind::LaneTable).with_detail("lanes of too different lengths");
    let lanes = u32::try_from(lengths.len()).map_err(|_| wrong)?;
    if lanes <= 1 {
        return Ok(());
    }
    let behind = lengths.iter().try_fold(check, |sum, length| sum.checked_add(*length)).ok_or(wrong)?;
    // Begin with an empty table. A table that does not fit gives the size for the next try, which is larger. Codes have
    // at most 2·24 + 1 + 26 bits, so the loop ends.
    let mut bytes = 0_usize;
    loop {
        let mut bits = BitWriter::default();
        let remaining = u64::try_from(behind.checked_add(bytes).ok_or(wrong)?).map_err(|_| wrong)?;
        let mut prediction = Prediction { remaining, frames: u64::from(frames) };
        for (lane, length) in (0..lanes.saturating_sub(1)).zip(lengths) {
            let range = lane_frames(lane, frames, lanes);
            let held = u64::from(range.end.saturating_sub(range.start));
            let length = u64::try_from(*length).map_err(|_| wrong)?;
            let (p, k) = prediction.next(held);
            let u = match length.checked_sub(p) {
                Some(above) => above.checked_mul(2),
                None => p.saturating_sub(length).saturating_mul(2).checked_sub(1),
            };
            bits.exp_golomb(u.ok_or(wrong)?, k)?;
            prediction.take(length, held);
        }
        let needed = bits.bytes_closed();
        if needed <= bytes {
            out.put_slice(&bits.close(bytes));
            return Ok(());
        }
        bytes = needed;
    }
}

/// Bits of a byte string, most significant bit of each byte first.
struct BitReader<'a> {
    bytes: &'a [u8],
    /// The number of bits read.
    next: usize,
}

impl BitReader<'_> {
    fn bit(&mut self) -> Result<bool, Error> {
        let byte = self.bytes.get(self.next >> 3).ok_or(Error::new(ErrorKind::ChunkLayout, 0))?;
        let bit = byte.checked_shr(7_u32.saturating_sub(u32::try_from(self.next & 7).unwrap_or(0))).unwrap_or(0) & 1;
        self.next = self.next.saturating_add(1);
        Ok(bit == 1)
    }

    /// Reads u = (2^z − 1)·2^k + x, for k ≤ 26.
    fn exp_golomb(&mut self, k: u32) -> Result<u64, Error> {
        let mut zeros = 0_u32;
        while !self.bit()? {
            zeros = zeros.saturating_add(1);
            if zeros > MAX_ZEROS {
                return Err(Error::new(ErrorKind::LaneTable, 0));
            }
        }
        let mut x = 0_u64;
        for _ in 0..zeros.saturating_add(k) {
            x = x << 1 | u64::from(self.bit()?);
        }
        let base = 1_u64.checked_shl(zeros).unwrap_or(0).saturating_sub(1).checked_shl(k).unwrap_or(0);
        Ok(base.saturating_add(x))
    }

    /// Skips the bits that close the table, any number of zero bits and a one bit. Returns the number of bytes read.
    fn close(mut self) -> Result<usize, Error> {
        while !self.bit()? {}
        // [LANE-2] The one bit that closes the table MUST be the last bit of its byte (error 313).
        if self.next & 7 != 0 {
            return Err(Error::new(ErrorKind::LanePadding, 0));
        }
        Ok(self.next >> 3)
    }
}

#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    /// The number of bits written.
    bits: usize,
}

impl BitWriter {
    fn bit(&mut self, bit: bool) {
        if self.bits & 7 == 0 {
            self.bytes.push(0);
        }
        let mask = 0x80_u8.checked_shr(u32::try_from(self.bits & 7).unwrap_or(0)).unwrap_or(0);
        if let (true, Some(last)) = (bit, self.bytes.last_mut()) {
            *last |= mask;
        }
        self.bits = self.bits.saturating_add(1);
    }

    fn exp_golomb(&mut self, u: u64, k: u32) -> Result<(), Error> {
        let wrong = Error::of_call(ErrorKind::LaneTable).with_detail("lanes of too different lengths");
        // u = (2^z − 1)·2^k + x with x < 2^(z + k), so u + 2^k = 2^(z + k) + x.
        let sum = 1_u64.checked_shl(k).and_then(|base| u.checked_add(base)).ok_or(wrong)?;
        let exponent = 63_u32.saturating_sub(sum.leading_zeros());
        let zeros = exponent.saturating_sub(k);
        if zeros > MAX_ZEROS {
            return Err(wrong);
        }
        (0..zeros).for_each(|_| self.bit(false));
        for place in (0..=exponent).rev() {
            self.bit(sum.checked_shr(place).unwrap_or(0) & 1 == 1);
        }
        Ok(())
    }

    /// The fewest bytes that the closed table can have.
    fn bytes_closed(&self) -> usize {
        (self.bits >> 3).saturating_add(1)
    }

    /// The table, closed to exactly `bytes` bytes.
    fn close(mut self, bytes: usize) -> Vec<u8> {
        self.bytes.resize(bytes, 0);
        if let Some(last) = self.bytes.last_mut() {
            *last |= 1;
        }
        self.bytes
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]
mod tests {
    use super::*;

    fn round_trip(lengths: &[usize], frames: u32, check: usize) -> usize {
        let mut out = BytesMut::new();
        encode(lengths, frames, check, &mut out).unwrap();
        let bytes = out.len();
        out.resize(bytes + check + lengths.iter().sum::<usize>(), 0xaa);
        let table = load(&out, frames, lengths.len() as u32, check).unwrap();
        assert_eq!(table, LaneTable { lengths: lengths[..lengths.len() - 1].to_vec(), bytes });
        bytes
    }

    #[test]
    fn the_partition() {
        assert_eq!(lane_frames(0, 7, 3), 0..2);
        assert_eq!(lane_frames(1, 7, 3), 2..4);
        assert_eq!(lane_frames(2, 7, 3), 4..7);
        assert_eq!(lane_frames(0, 7, 0), 0..0);
        assert_eq!(lane_frames(1_023, 1 << 20, 1_024), ((1 << 20) - 1_024)..1 << 20);
    }

    #[test]
    fn an_annotated_table() {
        // Four frames in two lanes of 9 and 7 bytes, no check. One byte of table: B = 17, p = 17·2/4 = 8, k = 0.
        // Deviation 9 − 8 = 1, u = 2 = (2^1 − 1)·2^0 + 1: one zero bit, a one bit, x = 1. Closed: 0000 1.
        let mut out = BytesMut::new();
        encode(&[9, 7], 4, 0, &mut out).unwrap();
        assert_eq!(out, &[0b0110_0001][..]);
        let mut body = vec![0b0110_0001];
        body.extend([0; 16]);
        assert_eq!(load(&body, 4, 2, 0), Ok(LaneTable { lengths: vec![9], bytes: 1 }));
        // The closing one bit must be the last of its byte.
        body[0] = 0b0110_0010;
        assert_eq!(load(&body, 4, 2, 0), Err(Error::new(ErrorKind::LanePadding, 0)));
        // It may be in a later byte; B, and so p and k, do not change here.
        let mut longer = vec![0b0110_0000, 0x01];
        longer.extend([0; 15]);
        assert_eq!(load(&longer, 4, 2, 0), Ok(LaneTable { lengths: vec![9], bytes: 2 }));
    }

    #[test]
    fn impossible_tables() {
        let wrong = Err(Error::new(ErrorKind::LaneTable, 0));
        // u = 17: deviation −9 below p = 8. u + 1 = 18 = 1_0010: four zeros, 1 0010.
        let mut body = vec![0b0000_1001, 0b0000_0001];
        body.extend([0; 15]);
        assert_eq!(load(&body, 4, 2, 0), wrong);
        // u = 18: deviation 9, length 17, but 15 bytes follow the table.
        body[..2].copy_from_slice(&[0b0000_1001, 0b1000_0001]);
        assert_eq!(load(&body, 4, 2, 0), wrong);
        // 25 zero bits.
        assert_eq!(load(&[0; 17], 4, 2, 0), wrong);
        // 24 zero bits, and then the body ends.
        assert_eq!(load(&[0; 3], 4, 2, 0), Err(Error::new(ErrorKind::ChunkLayout, 0)));
        assert_eq!(load(&[], 4, 2, 0), Err(Error::new(ErrorKind::ChunkLayout, 0)));
        // The check takes room too: p = 2, k = 0, u = 0, and 2 of the 3 bytes after it.
        assert_eq!(load(&[0b1000_0001, 0, 0, 0], 4, 2, 1), Ok(LaneTable { lengths: vec![2], bytes: 1 }));
        assert_eq!(load(&[0b1000_0001, 0, 0, 0], 4, 2, 2), wrong);
    }

    #[test]
    fn every_batch_has_a_table() {
        // A linear congruential generator. A table's cost changes with its own length in a way that no simple rule
        // predicts, so many tables are tried.
        let mut state = 1_u32;
        let mut random = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        for _ in 0..4_000 {
            let lanes = 1 + random(20);
            let frames = lanes + random(2_000);
            let mean = 1 + random(100);
            let lengths: Vec<usize> = (0..lanes)
                .map(|lane| {
                    let held = lane_frames(lane, frames, lanes).len() as u32;
                    (held * mean * (80 + random(40)) / 100) as usize
                })
                .collect();
            round_trip(&lengths, frames, random(3) as usize);
        }
    }

    #[test]
    fn extremes() {
        assert_eq!(round_trip(&[5], 1, 2), 0);
        round_trip(&[0, 0], 2, 0);
        round_trip(&[0, 100_000], 2, 0);
        round_trip(&[100_000, 0], 1 << 20, 0);
        round_trip(&[0; 1_024], 1_024, 2);
        let mut out = BytesMut::new();
        assert!(encode(&[0, 1 << 30], 2, 0, &mut out).is_ok());
        assert!(encode(&[1 << 30, 0], 1 << 20, 0, &mut out).is_ok());
        // A code of 25 zero bits would be needed.
        out.clear();
        assert_eq!(encode(&[1 << 30, 0], 1 << 20, 0, &mut out).map_err(|error| error.kind()), Ok(()));
    }

    #[test]
    fn a_lane_costs_little() {
        // 64 lanes of about 1,000 bytes, within 10 %.
        let lengths: Vec<usize> = (0..64).map(|lane| 900 + (lane * 37) % 200).collect();
        assert!(round_trip(&lengths, 64 * 16, 0) * 8 <= 64 * 11);
    }
}
