//! Modes of runs: compares payloads with an implementation written from chapter 3 of the specification, and checks the
//! bound.
#![cfg(feature = "codec")]

use std::collections::BTreeSet;

use midspan::entropy::{
    Bank, EntropyError, LaneDecoder, LaneEncoder, RunDecoder, RunEncoder, RunMode, max_payload_len,
};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

mod entropy_support;
use entropy_support::{Naive, bank};

const M0: [u64; 4] = [0, 65_504, 65_520, 65_536];
const M1: [u64; 4] = [0, 16_384, 16_448, 65_536];

/// Runs of one kind, with the tables and shifts of their values.
#[derive(Debug, Clone)]
struct Runs {
    bank: Bank,
    range: (i32, i32),
    width: usize,
    tables: Vec<u32>,
    shifts: Vec<i32>,
    /// \[runs, width\]
    values: Vec<i16>,
}

impl Runs {
    fn rows(&self) -> impl Iterator<Item = (&[u32], &[i32], &[i16])> {
        let rows = self.tables.chunks(self.width).zip(self.shifts.chunks(self.width));
        rows.zip(self.values.chunks(self.width)).map(|((tables, shifts), values)| (tables, shifts, values))
    }

    fn encode(&self) -> (Vec<u8>, Vec<RunMode>) {
        let mut lane = LaneEncoder::new();
        let mut runs = RunEncoder::new(&self.bank);
        let (mut modes, mut before) = (Vec::new(), None);
        for (tables, shifts, values) in self.rows() {
            modes.push(runs.encode_row(&mut lane, tables, shifts, values, before));
            before = Some(values);
        }
        (lane.finish(), modes)
    }

    fn decode(&self, payload: &[u8]) -> Result<(Vec<i16>, Vec<RunMode>), EntropyError> {
        let mut lane = LaneDecoder::new(payload);
        let mut runs = RunDecoder::new(&self.bank, self.range);
        let (mut modes, mut decoded) = (Vec::new(), Vec::<Vec<i16>>::new());
        for (tables, shifts, values) in self.rows() {
            let mut out = vec![0; values.len()];
            modes.push(runs.decode_row(&mut lane, tables, shifts, decoded.last().map(Vec::as_slice), &mut out)?);
            decoded.push(out);
        }
        lane.finish()?;
        Ok((decoded.concat(), modes))
    }

    /// The specification's payload of the runs, and the modes that this project's encoder chooses according to 3.5.
    fn naive(&self) -> (Vec<u8>, Vec<RunMode>) {
        let mut naive = Naive::default();
        let (mut modes, mut before) = (Vec::new(), None);
        for (tables, shifts, values) in self.rows() {
            let after_repeat = modes.last() == Some(&RunMode::Repeat);
            let table = if after_repeat { &M1 } else { &M0 };
            // A repeat if it is possible and the previous run is one.
            let repeats = before == Some(values);
            let mut coded = naive.clone();
            coded.symbol(table, 0);
            for ((table, shift), value) in tables.iter().zip(shifts).zip(values) {
                coded.encode(&self.bank, *table as usize, *shift, i32::from(*value));
            }
            // Otherwise the bits of the coded run decide: at least 12 bits, or more than 16 bits plus n for each value.
            let bits = coded.bits() - naive.bits();
            let width = smallest_width(values);
            let mode = if repeats && (after_repeat || bits >= 12) {
                RunMode::Repeat
            } else if bits > i64::from(width) * values.len() as i64 + 16 {
                RunMode::Plain
            } else {
                RunMode::Coded
            };
            if mode == RunMode::Coded {
                naive = coded;
            } else {
                naive.symbol(table, mode as usize);
            }
            if mode == RunMode::Plain {
                naive_plain(&mut naive, width, values);
            }
            modes.push(mode);
            before = Some(values);
        }
        (naive.seal(), modes)
    }

    /// The cost of a value by its table, in bits.
    fn coded_bits(&self, table: u32, shift: i32, value: i16) -> f64 {
        let (mass, bits) = self.bank.mass(table as usize, shift, value.into());
        16.0 - f64::from(mass).log2() + f64::from(bits)
    }
}

/// The fewest bits in which two's complement can represent all values.
fn smallest_width(values: &[i16]) -> u32 {
    let holds =
        |bits: &u32| values.iter().all(|value| (-(1_i32 << (bits - 1))..1 << (bits - 1)).contains(&i32::from(*value)));
    (1..=16).find(holds).unwrap()
}

/// Codes a plain run, after its mode.
fn naive_plain(naive: &mut Naive, width: u32, values: &[i16]) {
    let mut uniform = |number: u32, bits: u32| {
        let table: Vec<u64> = (0..=1 << bits).map(|i| i << (16 - bits)).collect();
        naive.symbol(&table, number as usize);
    };
    uniform(width - 1, 4);
    for value in values {
        let number = i32::from(*value).rem_euclid(1 << width) as u32;
        if width > 8 {
            uniform(number >> 8, width - 8);
            uniform(number & 255, 8);
        } else {
            uniform(number, width);
        }
    }
}

/// Tables of any shape, ranges from two values to all, and runs near their tables, far from them, and equal to the
/// previous one.
fn runs() -> impl Strategy<Value = Runs> {
    let boundaries = prop_oneof![
        4 => btree_set(1_u16..=u16::MAX, 2..40),
        // One symbol has nearly all of the mass; the others have mass 1.
        4 => (2_usize..40, any::<prop::sample::Index>()).prop_map(|(n, at)| {
            let (n, at) = (n as u16, at.index(n + 1) as u16);
            (1..=n).map(|i| if i <= at { i } else { u16::MAX - n + i }).collect::<BTreeSet<u16>>()
        }),
    ];
    let range = prop_oneof![
        2 => Just((-32_767, 32_767)),
        1 => Just((0, 1)),
        1 => Just((-1, 0)),
        2 => (-300_i32..=0, 1_i32..300),
        2 => (-32_767_i32..=0, 1_i32..32_767),
    ];
    (vec((boundaries, -30_i32..30), 1..6), range, 1_usize..40, 1_usize..9).prop_flat_map(
        |(tables, range, width, count)| {
            let bank = bank(tables);
            let all = width * count;
            let place = (0..bank.tables() as u32, range.0..=range.1);
            let value = prop_oneof![3 => -9_i32..9, 1 => range.0..=range.1, 1 => Just(range.0), 1 => Just(range.1)];
            let kinds = vec(0_u8..6, count);
            (vec(place, all), vec(value, all), kinds).prop_map(move |(places, values, kinds)| {
                // Every table holds a value of the range ([MODEL-9], 6.2).
                let place = |(table, shift): (u32, i32)| {
                    let (first, size) = (bank.first(table as usize), i32::from(bank.size(table as usize)));
                    (table, shift.clamp(range.0 - first - size + 1, range.1 - first))
                };
                let (tables, shifts): (Vec<u32>, Vec<i32>) = places.into_iter().map(place).unzip();
                let mut own: Vec<i16> = Vec::new();
                for (run, kind) in kinds.into_iter().enumerate() {
                    for i in run * width..(run + 1) * width {
                        let near = bank.first(tables[i] as usize) + shifts[i] + values[i];
                        let value = match kind {
                            // Close to the tables.
                            0 | 1 => near.clamp(range.0, range.1) as i16,
                            // The previous run, if there is one.
                            2..=4 if run > 0 => own[i - width],
                            // Anywhere.
                            _ => values[i].clamp(range.0, range.1) as i16,
                        };
                        own.push(value);
                    }
                }
                Runs { bank: bank.clone(), range, width, tables, shifts, values: own }
            })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// This also shows that runs which were taken back leave no trace, nor do their carries.
    #[test]
    fn payloads_are_those_of_the_specification(runs in runs()) {
        let (payload, modes) = runs.encode();
        prop_assert_eq!((payload.clone(), modes.clone()), runs.naive());
        prop_assert_eq!(runs.decode(&payload), Ok((runs.values.clone(), modes)));
    }

    #[test]
    fn no_run_costs_more_than_the_bound(runs in runs()) {
        let (payload, modes) = runs.encode();
        let count = runs.values.len() / runs.width;
        prop_assert!(payload.len() as u64 <= max_payload_len(count as u64, runs.width as u64));
        // 3.6: a coded run costs less than a plain one plus one bit, a repeat at most 12 bits.
        let (mut total, mut last, mut before) = (0.0, RunMode::Coded, None);
        for ((tables, shifts, values), mode) in runs.rows().zip(&modes) {
            let table = if last == RunMode::Repeat { M1 } else { M0 };
            let coded: f64 =
                tables.iter().zip(shifts).zip(values).map(|((t, s), v)| runs.coded_bits(*t, *s, *v)).sum();
            let plain = f64::from(smallest_width(values)) * values.len() as f64 + 4.0;
            let own = match mode {
                RunMode::Coded => coded,
                RunMode::Plain => plain,
                RunMode::Repeat => 0.0,
            };
            let symbol = 16.0 - ((table[*mode as usize + 1] - table[*mode as usize]) as f64).log2();
            prop_assert!(own + symbol < plain + 13.0, "{:?}: {} bits", mode, own + symbol);
            let (equal, again) = (before == Some(values), *mode == RunMode::Repeat);
            prop_assert!(equal || !again);
            prop_assert!(again || !(equal && (last == RunMode::Repeat || coded > 13.0)));
            prop_assert!(!again || last == RunMode::Repeat || coded > 10.9);
            total += own + symbol;
            (last, before) = (*mode, Some(values));
        }
        prop_assert!((payload.len() as f64) * 8.0 < total + 16.0);
    }

    /// Any bytes give values of the range or an error, and never a panic.
    #[test]
    fn any_bytes_give_values_or_an_error(runs in runs(), bytes in vec(any::<u8>(), 0..60), start in 0_usize..3) {
        // Some begin like a payload.
        let mut payload = runs.encode().0;
        payload.truncate(payload.len() * start / 2);
        payload.extend(bytes);
        if let Ok((values, _)) = runs.decode(&payload) {
            prop_assert!(values.iter().all(|value| (runs.range.0..=runs.range.1).contains(&i32::from(*value))));
        }
    }
}

fn sample(range: (i32, i32), width: usize, values: &[i16]) -> Runs {
    let bank = Bank::new(vec![-1], &[3], vec![100, 15_100, 50_536, 65_436]).unwrap();
    Runs { bank, range, width, tables: vec![0; values.len()], shifts: vec![0; values.len()], values: values.to_vec() }
}

#[test]
fn an_encoder_takes_the_mode_that_costs_less() {
    use RunMode::{Coded, Plain, Repeat};
    let modes = |range, width, values: &[i16]| sample(range, width, values).encode().1;
    // In the tables, and never equal.
    assert_eq!(modes((-99, 99), 2, &[0, 1, 1, 0, 0, 0]), [Coded; 3]);
    // Equal, but cheaper than the 12 bits of a first repeat: 5 values of 0.9 bits.
    assert_eq!(modes((-99, 99), 5, &[0; 15]), [Coded; 3]);
    // Twenty of them are not.
    assert_eq!(modes((-99, 99), 20, &[0; 60]), [Coded, Repeat, Repeat]);
    // An escape among values of the tables is cheaper than numbers of 5 bits; eight are not.
    assert_eq!(modes((-32_767, 32_767), 8, &[9, 0, 0, 0, 0, 0, 0, 0]), [Coded]);
    assert_eq!(modes((-9, 9), 8, &[9; 8]), [Plain]);
    let three = [vec![7; 16], (0..8).collect()].concat();
    assert_eq!(modes((0, 7), 8, &three), [Plain, Repeat, Plain]);
}

#[test]
fn a_repeat_at_a_payloads_start_is_refused() {
    // A bank whose symbols have the masses of a mode: its high escape is a repeat, and a bit of the escape follows.
    let modes = bank(vec![(BTreeSet::from([65_504, 65_520]), 0)]);
    let mut lane = LaneEncoder::new();
    lane.encode(&modes, 0, 0, 1);
    let payload = lane.finish();
    assert_eq!(sample((-9, 9), 2, &[0, 0]).decode(&payload), Err(EntropyError::Corrupt));
    // The same symbol after a first run is a repeat.
    let mut lane = LaneEncoder::new();
    let runs = sample((-9, 9), 2, &[0, 1, 0, 1]);
    RunEncoder::new(&runs.bank).encode_row(&mut lane, &[0; 2], &[0; 2], &[0, 1], None);
    lane.encode(&modes, 0, 0, 1);
    let payload = lane.finish();
    let mut lane = LaneDecoder::new(&payload);
    let mut decoder = RunDecoder::new(&runs.bank, runs.range);
    let (mut first, mut second) = ([0; 2], [0; 2]);
    assert_eq!(decoder.decode_row(&mut lane, &[0; 2], &[0; 2], None, &mut first), Ok(RunMode::Coded));
    assert_eq!(decoder.decode_row(&mut lane, &[0; 2], &[0; 2], Some(&first), &mut second), Ok(RunMode::Repeat));
    assert_eq!((first, second), ([0, 1], [0, 1]));
}

/// The caller passes the previous run. A run of another length is refused, and nothing is copied.
#[test]
fn a_repeat_of_a_run_of_another_length_is_refused() {
    let runs = sample((-9, 9), 20, &[0; 40]);
    let (payload, modes) = runs.encode();
    assert_eq!(modes, [RunMode::Coded, RunMode::Repeat]);
    for (length, expected) in
        [(19, Err(EntropyError::Corrupt)), (20, Ok(RunMode::Repeat)), (21, Err(EntropyError::Corrupt))]
    {
        let mut lane = LaneDecoder::new(&payload);
        let mut decoder = RunDecoder::new(&runs.bank, runs.range);
        let mut out = [7; 20];
        decoder.decode_row(&mut lane, &[0; 20], &[0; 20], None, &mut out).unwrap();
        let before = vec![5; length];
        out = [7; 20];
        assert_eq!(decoder.decode_row(&mut lane, &[0; 20], &[0; 20], Some(&before), &mut out), expected);
        assert_eq!(out, [if length == 20 { 5 } else { 7 }; 20]);
    }
}

#[test]
fn a_plain_value_outside_the_range_is_refused() {
    let plain = |range: (i32, i32), width: u32, value: i16| {
        let runs = sample(range, 2, &[0, 0]);
        let mut naive = Naive::default();
        naive.symbol(&M0, 1);
        naive_plain(&mut naive, width, &[0, value]);
        runs.decode(&naive.seal()).map(|(values, _)| values[1])
    };
    // All numbers of 4 bits; only those within −5 … 6 are valid values.
    for value in -8..8 {
        let expected = if (-5..=6).contains(&value) { Ok(value) } else { Err(EntropyError::ValueOutOfRange) };
        assert_eq!(plain((-5, 6), 4, value), expected);
    }
    // A width that no value needs.
    assert_eq!(plain((-5, 6), 16, -5), Ok(-5));
    assert_eq!(plain((-5, 6), 16, 7), Err(EntropyError::ValueOutOfRange));
    assert_eq!(plain((-200, 200), 9, 200), Ok(200));
    assert_eq!(plain((-200, 200), 9, -201), Err(EntropyError::ValueOutOfRange));
    assert_eq!(plain((-32_767, 32_767), 16, -32_767), Ok(-32_767));
    assert_eq!(plain((-32_767, 32_767), 16, -32_768), Err(EntropyError::ValueOutOfRange));
}
