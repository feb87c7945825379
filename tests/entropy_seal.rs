//! There is one payload for one sequence. Everything else is refused, and nothing panics.
#![cfg(feature = "codec")]

use midspan::entropy::{Bank, BankError, EntropyError, LaneDecoder, LaneEncoder, decode_rows_2};
use midspan::model::synthetic::Random;
use proptest::collection::vec;
use proptest::prelude::*;

mod entropy_support;
use entropy_support::{Naive, RANGE, bank, naive_payload, payload};

fn small_bank() -> Bank {
    bank(vec![
        ([9_000, 20_000, 41_000, 50_000].into(), -1),
        ([1, 2, 65_534, 65_535].into(), -1),
        ([10, 32_000, 32_100].into(), 0),
        ([32_768, 65_535].into(), 0),
    ])
}

/// Decodes values from some bytes with the tables in turn. Returns the values and the verdict on
/// the seal.
fn read(bank: &Bank, bytes: &[u8], count: usize) -> (Vec<i32>, Result<(), EntropyError>) {
    let mut decoder = LaneDecoder::new(bytes);
    let mut values = Vec::new();
    for i in 0..count {
        match decoder.decode(bank, i % bank.tables(), 0, RANGE) {
            Ok(value) => values.push(value),
            Err(error) => return (values, Err(error)),
        }
    }
    (values, decoder.finish())
}

/// The same values with their tables.
fn with_tables(bank: &Bank, values: &[i32]) -> Vec<(usize, i32, i32)> {
    let tables = (0..bank.tables()).cycle();
    tables.zip(values).map(|(table, &value)| (table, 0, value)).collect()
}

/// Checks the result of `read` for bytes that may not be a payload.
fn check(bank: &Bank, bytes: &[u8], count: usize) -> Result<(), TestCaseError> {
    let (values, judgement) = read(bank, bytes, count);
    match judgement {
        Err(EntropyError::Corrupt | EntropyError::ValueOutOfRange) => {
            prop_assert!(values.len() < count);
        }
        _ => {
            prop_assert_eq!(values.len(), count);
            let expected = naive_payload(bank, &with_tables(bank, &values));
            prop_assert_eq!(judgement.is_ok(), expected == bytes, "canonical {:02x?}", expected);
        }
    }
    Ok(())
}

#[test]
fn every_string_of_two_bytes_is_judged_rightly() {
    let bank = small_bank();
    for count in 0..=5 {
        let mut canonical = 0;
        for n in 0..=2usize {
            for number in 0..1u32 << (8 * n) {
                let bytes = &number.to_be_bytes()[4 - n..];
                check(&bank, bytes, count).expect("judged rightly");
                canonical += usize::from(read(&bank, bytes, count).1.is_ok());
            }
        }
        // There is a payload for each sequence; for no symbols only the empty one.
        assert!(if count == 0 { canonical == 1 } else { canonical > 4 });
    }
}

#[test]
fn every_other_string_of_three_bytes_with_the_same_values_is_refused() {
    let bank = small_bank();
    let mut refused = 0;
    for start in (0..=255u8).step_by(3) {
        for count in [1, 2, 3, 5, 8] {
            let (values, Ok(()) | Err(EntropyError::SealNotCanonical)) = read(&bank, &[start, 0x5A], count) else {
                continue;
            };
            let symbols = with_tables(&bank, &values);
            let mut naive = Naive::default();
            for &(table, shift, value) in &symbols {
                naive.encode(&bank, table, shift, value);
            }
            let payload = payload(&bank, &symbols);
            // The strings next to the payload in both directions, until past the interval's ends.
            for n in payload.len()..=3.min(payload.len() + 1) {
                let mut padded = payload.clone();
                padded.resize(n, 0);
                let place = padded.iter().fold(0u32, |x, &byte| x << 8 | u32::from(byte));
                let mut judge = |number: u32| {
                    let bytes = &number.to_be_bytes()[4 - n..];
                    let (found, judgement) = read(&bank, bytes, count);
                    let same = found == values && judgement.err().is_none_or(|e| e.code() == 602);
                    assert_eq!(same, naive.holds(bytes), "{bytes:02x?}");
                    if same && bytes != payload {
                        assert_eq!(judgement, Err(EntropyError::SealNotCanonical), "{bytes:02x?}");
                        refused += 1;
                    }
                    same
                };
                let _ = (place..1 << (8 * n)).take_while(|&x| judge(x)).count();
                let _ = (0..place).rev().take_while(|&x| judge(x)).count();
            }
        }
    }
    assert!(refused > 100_000, "{refused} strings were refused");
}

fn values() -> impl Strategy<Value = Vec<i32>> {
    vec(prop_oneof![6 => -2i32..4, 1 => -500i32..500], 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn appended_bytes_are_refused(values in values(), behind in vec(any::<u8>(), 1..12)) {
        let bank = small_bank();
        let mut bytes = payload(&bank, &with_tables(&bank, &values));
        for n in 0..=255u8 {
            let longer = [bytes.as_slice(), &[n]].concat();
            let (found, judgement) = read(&bank, &longer, values.len());
            prop_assert!(found != values || judgement == Err(EntropyError::SealNotCanonical));
        }
        bytes.extend(behind);
        let (found, judgement) = read(&bank, &bytes, values.len());
        prop_assert!(found != values || judgement == Err(EntropyError::SealNotCanonical));
    }

    #[test]
    fn appended_zeros_are_refused(values in values(), zeros in 1usize..20) {
        let bank = small_bank();
        let mut bytes = payload(&bank, &with_tables(&bank, &values));
        bytes.resize(bytes.len() + zeros, 0);
        let expected = (values.clone(), Err(EntropyError::SealNotCanonical));
        prop_assert_eq!(read(&bank, &bytes, values.len()), expected);
    }

    #[test]
    fn damaged_payloads_are_judged_rightly(
        values in values(),
        at in any::<prop::sample::Index>(),
        by in any::<u8>(),
        cut in 0usize..3,
        more in 0usize..3,
    ) {
        let bank = small_bank();
        let mut bytes = payload(&bank, &with_tables(&bank, &values));
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = bytes[at].wrapping_add(by);
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
        }
        check(&bank, &bytes, values.len())?;
        check(&bank, &bytes, values.len() + more)?;
        check(&bank, &bytes, values.len() / 2)?;
    }

    #[test]
    fn any_bytes_are_judged_rightly(
        mut bytes in vec(prop_oneof![Just(0), Just(255), any::<u8>()], 0..24),
        ones in 0usize..12,
        count in 0usize..60,
    ) {
        let bank = small_bank();
        check(&bank, &bytes, count)?;
        bytes.splice(0..0, vec![0xFF; ones]);
        check(&bank, &bytes, count)?;
    }

    #[test]
    fn two_lanes_are_like_one(
        a in vec(any::<u8>(), 0..24), b in vec(any::<u8>(), 0..24),
        len_a in 0usize..60, len_b in 0usize..60, low in -40_000i32..0, high in 0i32..40_000,
    ) {
        let bank = small_bank();
        let tables: Vec<u32> = (0..60).map(|i| i % 4).collect();
        let shifts: Vec<i32> = (0..60).map(|i| i * 7 % 13 - 6).collect();
        let range = (low, high);
        let single = |bytes, len| {
            let mut lane = LaneDecoder::new(bytes);
            let mut out = vec![0; len];
            let result = lane.decode_row(&bank, &tables[..len], &shifts[..len], range, &mut out);
            (result, result.and_then(|()| lane.finish()), out)
        };
        let (mut lane_a, mut lane_b) = (LaneDecoder::new(&a), LaneDecoder::new(&b));
        let (mut out_a, mut out_b) = (vec![0; len_a], vec![0; len_b]);
        let [result_a, result_b] = decode_rows_2(
            [&mut lane_a, &mut lane_b],
            &bank,
            [&tables[..len_a], &tables[..len_b]],
            [&shifts[..len_a], &shifts[..len_b]],
            range,
            [&mut out_a, &mut out_b],
        );
        let found_a = (result_a, result_a.and_then(|()| lane_a.finish()), out_a);
        let found_b = (result_b, result_b.and_then(|()| lane_b.finish()), out_b);
        prop_assert_eq!(found_a.0, single(&a, len_a).0);
        prop_assert_eq!(found_b.0, single(&b, len_b).0);
        if found_a.0.is_ok() {
            prop_assert_eq!(found_a, single(&a, len_a));
        }
        if found_b.0.is_ok() {
            prop_assert_eq!(found_b, single(&b, len_b));
        }
    }
}

#[test]
fn errors_have_their_numbers() {
    let bank = small_bank();
    // The number just below 1 is above the last symbol's interval.
    let mut decoder = LaneDecoder::new(&[0xFF; 8]);
    let error = decoder.decode(&bank, 0, 0, RANGE).unwrap_err();
    assert_eq!((error, error.code()), (EntropyError::Corrupt, 601));
    // The lowest offset that belongs to no symbol is scale · 65,536, here 2^64 − 65,536.
    let first = |number: u64, bank: &Bank, table| {
        LaneDecoder::new(&number.to_be_bytes()).decode(bank, table, 0, (i32::MIN, i32::MAX))
    };
    for table in 0..bank.tables() {
        assert_eq!(first(0xFFFF_FFFF_FFFF_0000, &bank, table), Err(EntropyError::Corrupt));
    }
    // The same in the first bit after an escape, in an interval whose range is 20,000 above a
    // multiple of 65,536.
    let wide = entropy_support::bank(vec![([10, 20_000].into(), 0)]);
    assert_eq!(first(0xFFFF_FFFF_FFFE_FFFF, &wide, 0), Err(EntropyError::Corrupt));
    assert_eq!(first(0xFFFF_FFFF_FFFE_FFFF - 19_999, &wide, 0), Err(EntropyError::Corrupt));
    let symbols = [(0, 0, 0), (0, 0, 9)];
    let payload = payload(&bank, &symbols);
    let mut decoder = LaneDecoder::new(&payload);
    assert_eq!(decoder.decode(&bank, 0, 0, (0, 0)), Ok(0));
    let error = decoder.decode(&bank, 0, 0, (0, 8)).unwrap_err();
    assert_eq!((error, error.code()), (EntropyError::ValueOutOfRange, 603));
    let mut decoder = LaneDecoder::new(&payload);
    let error = decoder.decode(&bank, 0, 0, (1, 8)).unwrap_err();
    assert_eq!(error, EntropyError::ValueOutOfRange);
    assert_eq!(EntropyError::SealNotCanonical.code(), 602);
    // A range wider than i16 does not make values of a row wrap around.
    let mut encoder = LaneEncoder::new();
    encoder.encode(&bank, 0, 32_767, 32_769);
    let payload = encoder.finish();
    let mut out = [0];
    let mut decoder = LaneDecoder::new(&payload);
    let result = decoder.decode_row(&bank, &[0], &[32_767], (-40_000, 40_000), &mut out);
    assert_eq!(result, Err(EntropyError::ValueOutOfRange));
}

#[test]
fn banks_are_checked() {
    let new = |first: &[i32], sizes: &[u16], boundaries: &[u16]| {
        Bank::new(first.to_vec(), sizes, boundaries.to_vec()).map(|bank| bank.tables())
    };
    assert_eq!(new(&[], &[], &[]), Ok(0));
    assert_eq!(new(&[0], &[1], &[1, 65_535]), Ok(1));
    assert_eq!(new(&[0], &[], &[]), Err(BankError::Count { first: 1, sizes: 0 }));
    assert_eq!(new(&[0], &[0], &[1]), Err(BankError::Size { table: 0, size: 0 }));
    let size = BankError::Size { table: 1, size: 4_097 };
    assert_eq!(new(&[0, 0], &[1, 4_097], &[]), Err(size));
    let length = BankError::Length { expected: 2, found: 3 };
    assert_eq!(new(&[0], &[1], &[1, 2, 3]), Err(length));
    assert_eq!(new(&[0, 0], &[1, 1], &[1, 2, 0, 2]), Err(BankError::Order { table: 1 }));
    assert_eq!(new(&[0], &[2], &[1, 7, 7]), Err(BankError::Order { table: 0 }));
    assert_eq!(new(&[0], &[2], &[9, 7, 8]), Err(BankError::Order { table: 0 }));
    let first = BankError::First { table: 0, first: i32::MIN };
    assert_eq!(new(&[i32::MIN], &[1], &[1, 2]), Err(first));
}

#[test]
fn a_seal_costs_a_third_of_a_byte() {
    let bank = small_bank();
    let mut random = Random::new(1);
    let mut next = move |n: u64| random.next() % n;
    let mut overhead = 0.0;
    const LANES: usize = 20_000;
    for _ in 0..LANES {
        let mut bits = 0.0;
        let symbols: Vec<_> = (0..24)
            .map(|_| {
                let table = [0, 2][next(2) as usize];
                // Drawn from the table's own masses, so that lengths are typical.
                let quantile = next(65_536) as u16;
                let symbol = bank.boundaries(table).partition_point(|&c| c <= quantile);
                let value = bank.first(table) + symbol as i32 - 1;
                let (mass, escape) = bank.mass(table, 0, value);
                bits += 16.0 - f64::from(mass).log2() + f64::from(escape);
                (table, 0, value)
            })
            .collect();
        overhead += payload(&bank, &symbols).len() as f64 - bits / 8.0;
    }
    let mean = overhead / LANES as f64;
    assert!((0.29..0.36).contains(&mean), "{mean} bytes");
}
