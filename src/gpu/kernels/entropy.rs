//! The range coder's kernels on the CPU.

use super::{Error, ErrorKind, Result};
use crate::entropy::{Bank, EntropyError, max_payload_len};

/// `Table` of `entropy.h`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Table {
    first: i32,
    size: i32,
    start: i32,
    unused: i32,
}

/// `Lane` of `entropy.h`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct Lane {
    bytes: i64,
    length: i64,
    low: u64,
    range: u64,
    read: i64,
    first: i64,
    count: i64,
    channels: i64,
    base: i64,
    finish: i64,
    error: i64,
}

/// `Coding` of `entropy.h`.
#[repr(C)]
pub(super) struct Coding {
    tables: *const Table,
    boundaries: *const u16,
    bytes: *mut u8,
    lanes: *mut Lane,
    count: i64,
    own_tables: *const u32,
    shifts: *const i32,
    values: *mut i16,
    low: i64,
    high: i64,
}

unsafe extern "C" {
    fn midspan_kernels_encode(coding: *const Coding, warps: i64);
    fn midspan_kernels_decode(coding: *const Coding, warps: i64);
}

/// A bank of tables laid out for the kernels.
pub struct KernelBank {
    tables: Vec<Table>,
    boundaries: Vec<u16>,
}

impl std::fmt::Debug for KernelBank {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KernelBank").field("tables", &self.tables.len()).finish_non_exhaustive()
    }
}

/// How the tables of some values are found.
#[derive(Clone, Copy, Debug)]
pub enum KernelTables<'a> {
    /// One after the other from `base` on, over and over, without shifts: W.
    Run {
        /// The first one.
        base: usize,
        /// How many.
        channels: usize,
    },
    /// Each value's own, and its shift: Y.
    Rows {
        /// The table's number.
        tables: &'a [u32],
        /// What is added to its values.
        shifts: &'a [i32],
    },
}

impl KernelBank {
    /// Lays a bank out.
    #[must_use]
    pub fn new(bank: &Bank) -> KernelBank {
        let (mut tables, mut boundaries) = (Vec::new(), Vec::new());
        for table in 0..bank.tables() {
            let start = boundaries.len() as i32;
            tables.push(Table { first: bank.first(table), size: bank.size(table).into(), start, unused: 0 });
            boundaries.push(0);
            boundaries.extend_from_slice(bank.boundaries(table));
        }
        KernelBank { tables, boundaries }
    }

    pub(super) fn tables(&self) -> &[Table] {
        &self.tables
    }

    pub(super) fn boundaries(&self) -> &[u16] {
        &self.boundaries
    }

    /// Payloads of lanes, all coded at once: each lane's values go through its tables part by part.
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`] for a table that is not in the bank, or lanes of different numbers of parts.
    pub fn encode(&self, lanes: &[Vec<(KernelTables<'_>, &[i16])>], warps: usize) -> Result<Vec<Vec<u8>>> {
        let room = |lane: &Vec<(KernelTables<'_>, &[i16])>| {
            let symbols: usize = lane.iter().map(|(_, values)| values.len()).sum();
            max_payload_len(symbols as u64) as usize
        };
        let mut offset = 0;
        let mut states = Vec::new();
        for lane in lanes {
            states.push(Lane { bytes: offset as i64, range: u64::MAX, ..Lane::default() });
            offset += room(lane);
        }
        let mut bytes = vec![0; offset];
        let parts = lanes.first().map_or(0, Vec::len);
        for part in 0..parts {
            let tables = lanes.iter().map(|lane| lane.get(part).map(|(tables, values)| (*tables, values.len())));
            let mut batch = self.batch(tables, &mut states, part + 1 == parts)?;
            batch.values.extend(lanes.iter().filter_map(|lane| lane.get(part)).flat_map(|(_, values)| *values));
            let coding = batch.coding(self, &mut bytes, &mut states, (0, 0));
            // SAFETY: the structures are those of `entropy.h` (tested). Tables, boundaries and values are where the lanes
            // say; each lane has room for its longest payload. All outlive the call, which keeps no pointer.
            unsafe { midspan_kernels_encode(&raw const coding, warps.max(1) as i64) };
        }
        let payload = |lane: &Lane| bytes[lane.bytes as usize..][..lane.length as usize].to_vec();
        Ok(states.iter().map(payload).collect())
    }

    /// The values of lanes, all decoded at once, each with its tables and the number of its values, part by part.
    ///
    /// # Errors
    /// As [`KernelBank::encode`]; what a payload is refused for stands in its lane's place.
    pub fn decode(
        &self,
        payloads: &[Vec<u8>],
        lanes: &[Vec<(KernelTables<'_>, usize)>],
        range: (i16, i16),
        warps: usize,
    ) -> Result<Vec<std::result::Result<Vec<i16>, EntropyError>>> {
        let mut bytes: Vec<u8> = payloads.concat();
        let mut offset = 0;
        let mut states = Vec::new();
        for payload in payloads {
            let mut start = [0; 8];
            start.iter_mut().zip(payload).for_each(|(to, from)| *to = *from);
            let (length, low) = (payload.len() as i64, u64::from_be_bytes(start));
            states.push(Lane { bytes: offset, length, low, range: u64::MAX, read: 8, ..Lane::default() });
            offset += length;
        }
        let mut values = vec![Vec::new(); lanes.len()];
        let parts = lanes.first().map_or(0, Vec::len);
        for part in 0..parts {
            let tables = lanes.iter().map(|lane| lane.get(part).copied());
            let mut batch = self.batch(tables, &mut states, part + 1 == parts)?;
            batch.values.resize(batch.places, 0);
            let coding = batch.coding(self, &mut bytes, &mut states, range);
            // SAFETY: as in `encode`; a payload is read inside its length alone.
            unsafe { midspan_kernels_decode(&raw const coding, warps.max(1) as i64) };
            for (values, lane) in values.iter_mut().zip(&states) {
                values.extend_from_slice(&batch.values[lane.first as usize..][..lane.count as usize]);
            }
        }
        let outcome = |(values, lane): (Vec<i16>, &Lane)| match lane.error {
            0 => Ok(values),
            1 => Err(EntropyError::Corrupt),
            2 => Err(EntropyError::ValueOutOfRange),
            _ => Err(EntropyError::SealNotCanonical),
        };
        Ok(values.into_iter().zip(&states).map(outcome).collect())
    }

    /// Brings lanes in front of their next values.
    fn batch<'a>(
        &self,
        parts: impl Iterator<Item = Option<(KernelTables<'a>, usize)>>,
        states: &mut [Lane],
        finish: bool,
    ) -> Result<Batch> {
        let wrong = || Error::new(ErrorKind::WrongShape, 0).with_detail("the tables of a lane's values");
        let mut batch = Batch::default();
        for (part, lane) in parts.zip(states) {
            let (tables, count) = part.ok_or_else(wrong)?;
            (lane.first, lane.count, lane.finish) = (batch.places as i64, count as i64, finish.into());
            batch.places += count;
            let known = match tables {
                KernelTables::Run { base, channels } => {
                    (lane.base, lane.channels) = (base as i64, channels as i64);
                    // Not looked at.
                    batch.tables.resize(batch.places, 0);
                    batch.shifts.resize(batch.places, 0);
                    channels > 0 && base + channels <= self.tables.len()
                }
                KernelTables::Rows { tables, shifts } => {
                    (lane.base, lane.channels) = (0, 0);
                    batch.tables.extend_from_slice(tables);
                    batch.shifts.extend_from_slice(shifts);
                    let known = tables.iter().all(|table| (*table as usize) < self.tables.len());
                    known && tables.len() == count && shifts.len() == count
                }
            };
            if !known {
                return Err(wrong());
            }
        }
        Ok(batch)
    }
}

/// Values of all lanes with their tables and shifts.
#[derive(Default)]
struct Batch {
    places: usize,
    tables: Vec<u32>,
    shifts: Vec<i32>,
    values: Vec<i16>,
}

impl Batch {
    fn coding(&mut self, bank: &KernelBank, bytes: &mut [u8], lanes: &mut [Lane], range: (i16, i16)) -> Coding {
        Coding {
            tables: bank.tables.as_ptr(),
            boundaries: bank.boundaries.as_ptr(),
            bytes: bytes.as_mut_ptr(),
            lanes: lanes.as_mut_ptr(),
            count: lanes.len() as i64,
            own_tables: self.tables.as_ptr(),
            shifts: self.shifts.as_ptr(),
            values: self.values.as_mut_ptr(),
            low: range.0.into(),
            high: range.1.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entropy::{LaneDecoder, LaneEncoder};
    use crate::model::synthetic::Random;

    /// Tables from one value to hundreds, some with likely escapes.
    fn bank(random: &mut Random) -> Bank {
        let (mut first, mut sizes, mut boundaries) = (Vec::new(), Vec::new(), Vec::new());
        for table in 0..40 {
            let size = match table % 5 {
                0 => random.within(1, 3),
                1 => random.within(29, 34),
                2 => random.within(60, 70),
                3 => random.within(1_020, 1_100),
                _ => random.within(1, 40),
            };
            let mut own: Vec<u16> = Vec::new();
            while own.len() < size as usize + 1 {
                own.extend((0..size + 1).map(|_| random.within(1, 65_535) as u16));
                own.sort_unstable();
                own.dedup();
            }
            own.truncate(size as usize + 1);
            first.push(random.within(-size, 3));
            sizes.push(size as u16);
            boundaries.extend(own);
        }
        Bank::new(first, &sizes, boundaries).unwrap()
    }

    struct Sample {
        w: Vec<i16>,
        y: Vec<i16>,
        tables: Vec<u32>,
        shifts: Vec<i32>,
    }

    const CHANNELS: usize = 6;
    const RANGE: (i16, i16) = (-3_000, 3_000);

    fn sample(random: &mut Random, frames: usize, width: usize) -> Sample {
        let mut value = |far: i32| match random.within(0, 9) {
            0 => random.within(-far, far) as i16,
            _ => random.within(-4, 4) as i16,
        };
        let w = (0..frames * CHANNELS).map(|_| value(300)).collect();
        let y = (0..frames * width).map(|_| value(3_000)).collect();
        let tables = (0..frames * width).map(|_| random.within(0, 39) as u32).collect();
        let shifts = (0..frames * width).map(|_| random.within(-20, 20)).collect();
        Sample { w, y, tables, shifts }
    }

    fn reference(bank: &Bank, sample: &Sample) -> Vec<u8> {
        let mut encoder = LaneEncoder::new();
        for frame in sample.w.chunks(CHANNELS) {
            encoder.encode_run(bank, 3, frame);
        }
        encoder.encode_row(bank, &sample.tables, &sample.shifts, &sample.y);
        encoder.finish()
    }

    fn reference_decode(bank: &Bank, payload: &[u8], like: &Sample) -> std::result::Result<Vec<i16>, EntropyError> {
        let mut decoder = LaneDecoder::new(payload);
        let mut all = vec![0; like.w.len()];
        let range = (RANGE.0.into(), RANGE.1.into());
        for frame in all.chunks_mut(CHANNELS) {
            decoder.decode_run(bank, 3, range, frame)?;
        }
        let mut y = vec![0; like.y.len()];
        decoder.decode_row(bank, &like.tables, &like.shifts, range, &mut y)?;
        decoder.finish()?;
        all.extend(y);
        Ok(all)
    }

    #[test]
    fn payloads_and_refusals_are_the_coders() {
        let mut refused = [0; 3];
        for seed in 0..60 {
            let mut random = Random::new(seed);
            let bank = bank(&mut random);
            let kernels = KernelBank::new(&bank);
            let samples: Vec<Sample> = (0..9)
                .map(|_| {
                    let (frames, width) = (random.within(0, 5) as usize, random.within(1, 70) as usize);
                    sample(&mut random, frames, width)
                })
                .collect();
            let run = KernelTables::Run { base: 3, channels: CHANNELS };
            let lanes: Vec<_> = samples
                .iter()
                .map(|s| {
                    let rows = KernelTables::Rows { tables: &s.tables, shifts: &s.shifts };
                    vec![(run, s.w.as_slice()), (rows, s.y.as_slice())]
                })
                .collect();
            let mut payloads = kernels.encode(&lanes, 1 + seed as usize % 4).unwrap();
            let expected: Vec<Vec<u8>> = samples.iter().map(|sample| reference(&bank, sample)).collect();
            assert!(payloads == expected, "seed {seed}");
            // Some stay, some are damaged, cut or made longer.
            for payload in &mut payloads {
                match random.within(0, 7) {
                    0 => drop(payload.pop()),
                    1 => payload.push(random.within(0, 255) as u8),
                    2 => payload.iter_mut().for_each(|byte| *byte = random.within(0, 255) as u8),
                    3 if !payload.is_empty() => {
                        let at = random.within(0, payload.len() as i32 - 1) as usize;
                        payload[at] ^= 1 << random.within(0, 7);
                    }
                    // The code's last numbers stand for no symbol.
                    4 => payload.fill(0xFF),
                    _ => (),
                }
            }
            let counts: Vec<_> = lanes
                .iter()
                .map(|lane| lane.iter().map(|(tables, values)| (*tables, values.len())).collect())
                .collect();
            let found = kernels.decode(&payloads, &counts, RANGE, 3).unwrap();
            for ((found, payload), sample) in found.into_iter().zip(&payloads).zip(&samples) {
                let expected = reference_decode(&bank, payload, sample);
                match expected {
                    Err(EntropyError::Corrupt) => refused[0] += 1,
                    Err(EntropyError::ValueOutOfRange) => refused[1] += 1,
                    Err(_) => refused[2] += 1,
                    Ok(_) => (),
                }
                assert!(found == expected, "seed {seed}: {:?} instead of {:?}", found.err(), expected.err());
            }
        }
        assert!(refused.iter().all(|count| *count > 2), "{refused:?}");
    }

    #[test]
    fn every_carry_and_every_end_is_the_coders() {
        // One frame of few values at a time: ends and carries of all kinds come often.
        let mut random = Random::new(77);
        let bank = bank(&mut random);
        let kernels = KernelBank::new(&bank);
        let samples: Vec<Sample> = (0..4_000).map(|i| sample(&mut random, 1, i % 9)).collect();
        let lanes: Vec<_> = samples
            .iter()
            .map(|s| {
                let rows = KernelTables::Rows { tables: &s.tables, shifts: &s.shifts };
                vec![(KernelTables::Run { base: 3, channels: CHANNELS }, s.w.as_slice()), (rows, s.y.as_slice())]
            })
            .collect();
        for (payload, sample) in kernels.encode(&lanes, 5).unwrap().iter().zip(&samples) {
            assert_eq!(*payload, reference(&bank, sample));
        }
    }

    #[test]
    fn tables_that_are_not_there_are_refused() {
        let bank = bank(&mut Random::new(1));
        let kernels = KernelBank::new(&bank);
        let kind = |tables: KernelTables<'_>| kernels.encode(&[vec![(tables, &[1, 2])]], 1).unwrap_err().kind();
        let wrong = ErrorKind::WrongShape;
        assert_eq!(kind(KernelTables::Run { base: 39, channels: 2 }), wrong);
        assert_eq!(kind(KernelTables::Run { base: 0, channels: 0 }), wrong);
        assert_eq!(kind(KernelTables::Rows { tables: &[0, 40], shifts: &[0, 0] }), wrong);
        assert_eq!(kind(KernelTables::Rows { tables: &[0], shifts: &[0] }), wrong);
        assert!(kernels.encode(&[], 1).unwrap().is_empty());
    }
}
