//! Compares the coder with an implementation written from chapter 3 of the specification.
//!
//! The implementation here is slow and plain: it keeps the exact number L in a vector of bytes,
//! never outputs a word early, and finds the seal by its definition. It shares no code with the
//! crate.
#![cfg(feature = "codec")]

use constriction::stream::queue::{RangeDecoder, RangeEncoder};
use constriction::stream::{Decode, Encode};
use midspan::entropy::{Bank, LaneDecoder, LaneEncoder};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

mod entropy_support;
use entropy_support::{Naive, RANGE, bank, naive_payload, payload};

/// Runs of values through tables of any shape, near and far from the tables' edges.
fn lane() -> impl Strategy<Value = (Bank, Vec<(usize, i32, i32)>)> {
    let boundaries = prop_oneof![
        // Any tables.
        4 => btree_set(1u16..=u16::MAX, 2..40),
        // One symbol takes nearly all of the mass; the others have mass 1.
        4 => (2usize..40, any::<prop::sample::Index>()).prop_map(|(n, at)| {
            let at = at.index(n + 1) as u16;
            let n = n as u16;
            (1..=n)
                .map(|i| if i <= at { i } else { u16::MAX - n + i })
                .collect()
        }),
        // The largest table.
        1 => Just((1..=4_097u16).map(|i| i * 15).collect()),
    ];
    let table = (boundaries, -300i32..300);
    vec(table, 1..6)
        .prop_flat_map(|tables| {
            let bank = bank(tables);
            let count = bank.tables();
            let value = prop_oneof![
                8 => -40i32..40,
                2 => -3_000i32..3_000,
                1 => Just(RANGE.0),
                1 => Just(RANGE.1),
            ];
            let place = (0..count, -32_400i32..=32_400, value, any::<bool>());
            (Just(bank), vec(place, 0..120))
        })
        .prop_map(|(bank, places)| {
            let symbols = places
                .into_iter()
                .map(|(table, shift, value, near)| {
                    // Half of the values are close to those of the table.
                    let base = bank.first(table) + shift;
                    let value = if near { base + value % 64 } else { value };
                    (table, shift, value.clamp(RANGE.0, RANGE.1))
                })
                .collect();
            (bank, symbols)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn payloads_are_those_of_the_specification((bank, symbols) in lane()) {
        prop_assert_eq!(payload(&bank, &symbols), naive_payload(&bank, &symbols));
    }

    #[test]
    fn values_come_back((bank, symbols) in lane()) {
        let payload = payload(&bank, &symbols);
        let mut decoder = LaneDecoder::new(&payload);
        for (table, shift, value) in symbols {
            prop_assert_eq!(decoder.decode(&bank, table, shift, RANGE), Ok(value));
        }
        prop_assert_eq!(decoder.finish(), Ok(()));
    }

    #[test]
    fn a_payload_keeps_to_its_bounds((bank, symbols) in lane()) {
        let len = payload(&bank, &symbols).len();
        // 16 bits a symbol, 30 more an escape, and two bytes of seal.
        prop_assert!(len <= symbols.len() * 46 / 8 + 2);
        let ideal: f64 = symbols
            .iter()
            .map(|&(table, shift, value)| {
                let (mass, bits) = bank.mass(table, shift, value);
                16.0 - f64::from(mass).log2() + f64::from(bits)
            })
            .sum();
// It may be far shorter, because lanes of low symbols represent 0.
        prop_assert!((len as f64) * 8.0 < ideal + 16.0);
    }

    #[test]
    fn constriction_reads_and_writes_the_same((bank, symbols) in lane()) {
        // Only values in the tables, because constriction has no escapes.
        let symbols: Vec<_> = symbols
            .into_iter()
            .map(|(table, shift, value)| {
                let size = i32::from(bank.size(table));
                (table, shift, bank.first(table) + shift + value.rem_euclid(size))
            })
            .collect();
        let symbol = |(table, shift, value): (usize, i32, i32)| {
            (value - shift - bank.first(table) + 1) as u16
        };

        let mut bytes = payload(&bank, &symbols);
        bytes.resize(bytes.len().next_multiple_of(2), 0);
        let words = bytes.chunks_exact(2).map(|w| u16::from_be_bytes([w[0], w[1]]));
        let mut decoder =
            RangeDecoder::<u16, u64, _>::from_compressed(words.collect::<Vec<_>>()).unwrap();
        for &coded in &symbols {
            let found = decoder.decode_symbol(bank.model(coded.0)).unwrap();
            prop_assert_eq!(found, symbol(coded));
        }

        let mut encoder = RangeEncoder::<u16, u64>::new();
        for &coded in &symbols {
            encoder.encode_symbol(symbol(coded), bank.model(coded.0)).unwrap();
        }
        let bytes: Vec<u8> = encoder
            .into_compressed()
            .unwrap()
            .into_iter()
            .flat_map(u16::to_be_bytes)
            .collect();
        let mut decoder = LaneDecoder::new(&bytes);
        for (table, shift, value) in symbols {
            let found = decoder.decode(&bank, table, shift, (-200_000, 200_000));
            prop_assert_eq!(found, Ok(value));
        }
    }

    #[test]
    fn rows_are_like_single_values((bank, symbols) in lane()) {
        let tables: Vec<u32> = symbols.iter().map(|s| s.0 as u32).collect();
        let shifts: Vec<i32> = symbols.iter().map(|s| s.1).collect();
        let values: Vec<i16> = symbols.iter().map(|s| s.2 as i16).collect();
        let mut encoder = LaneEncoder::new();
        encoder.encode_row(&bank, &tables, &shifts, &values);
        let payload = encoder.finish();
        prop_assert_eq!(&payload, &naive_payload(&bank, &symbols));
        let mut out = vec![0; values.len()];
        let mut decoder = LaneDecoder::new(&payload);
        prop_assert_eq!(decoder.decode_row(&bank, &tables, &shifts, RANGE, &mut out), Ok(()));
        prop_assert_eq!(decoder.finish(), Ok(()));
        prop_assert_eq!(out, values);
    }
}

#[test]
fn nothing_is_coded_in_nothing() {
    assert!(LaneEncoder::new().finish().is_empty());
    assert_eq!(LaneDecoder::new(&[]).finish(), Ok(()));
    // The lowest symbol, again and again, needs no byte either.
    let bank = bank(vec![([30_000, 60_000].into(), 0)]);
    assert!(naive_payload(&bank, &[(0, 0, -1)]).is_empty());
    assert!(payload(&bank, &[(0, 0, -1); 20]).is_empty());
}

#[test]
fn escapes_are_spelled_out() {
    // One value, 0, with mass 1; the escapes share the rest.
    let bank = bank(vec![([32_767, 32_768].into(), 0)]);
    // d = 0 is one zero bit; d = 1 is 10 0, d = 2 is 10 1, d = 3 is 110 00.
    for (d, bits) in [(0, 1), (1, 3), (2, 3), (3, 5), (32_766, 29), (32_767, 30), (65_533, 30), (65_534, 30)] {
        assert_eq!(bank.mass(0, 0, 1 + d), (32_768, bits), "d = {d}");
        assert_eq!(bank.mass(0, 0, -1 - d), (32_767, bits), "d = {d}");
        for value in [1 + d, -1 - d] {
            let payload = payload(&bank, &[(0, 0, value)]);
            assert_eq!(payload, naive_payload(&bank, &[(0, 0, value)]));
            let mut decoder = LaneDecoder::new(&payload);
            assert_eq!(decoder.decode(&bank, 0, 0, (-70_000, 70_000)), Ok(value));
            assert_eq!(decoder.finish(), Ok(()));
        }
    }
    // The high escape is the bit 1, exactly: 1 110 00 is 0xE0.
    assert_eq!(payload(&bank, &[(0, 0, 4)]), [0xE0]);
}

/// The symbols that some bytes decode to, even if the bytes are not a payload.
fn symbols_of(bank: &Bank, bytes: &[u8], count: usize) -> Vec<(usize, i32, i32)> {
    let mut decoder = LaneDecoder::new(bytes);
    (0..count)
        .map(|i| {
            let table = i % bank.tables();
            let value = decoder.decode(bank, table, 0, (-100_000, 100_000));
            (table, 0, value.expect("decodes"))
        })
        .collect()
}

#[test]
fn carries_run_through_long_rows_of_ones() {
    // With a code value next to a short number the interval contains that number, until the bytes
    // after the run decide between the two sides.
    let bank = bank(vec![
        ([9_000, 20_000, 41_000, 50_000].into(), -1),
        ([1, 2, 65_534, 65_535].into(), -1),
        ([10, 32_000, 32_100].into(), 0),
    ]);
    let mut longest = 0;
    for start in [0x7F, 0x00, 0x37, 0xFE] {
        for run in [1, 2, 7, 8, 9, 40, 300] {
            for tail in [0x00, 0x01, 0x80, 0xFE, 0xFF] {
                for (first, middle) in [(start, 0xFF), (start + 1, 0x00)] {
                    let mut bytes = vec![first];
                    bytes.resize(1 + run, middle);
                    bytes.extend([tail; 6]);
                    for count in [run / 3, 4 * run, 4 * run + 40] {
                        let symbols = symbols_of(&bank, &bytes, count);
                        let mut naive = Naive::default();
                        for &(table, shift, value) in &symbols {
                            naive.encode(&bank, table, shift, value);
                        }
                        longest = longest.max(naive.longest_carry);
                        assert_eq!(payload(&bank, &symbols), naive.seal());
                        assert_eq!(symbols_of(&bank, &naive.seal(), count), symbols);
                    }
                }
            }
        }
    }
    assert!(longest >= 300, "the longest carry ran over {longest} bytes");
}

#[test]
fn an_encoder_starts_anew_after_finish_and_clear() {
    let bank = bank(vec![([9_000, 20_000, 41_000, 50_000].into(), -1)]);
    let other = [(0, 0, 1), (0, 0, -1), (0, 0, 0), (0, 0, 5)];
    let expected = naive_payload(&bank, &other);
    let mut encoder = LaneEncoder::new();
    let mut out = vec![1, 2, 3, 0];
    for bytes in [vec![0x7F; 1], vec![0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], vec![0x11; 40]] {
        for &(table, shift, value) in &symbols_of(&bank, &bytes, 24) {
            encoder.encode(&bank, table, shift, value);
        }
        encoder.clear();
        for (table, shift, value) in other {
            encoder.encode(&bank, table, shift, value);
        }
        let len = out.len();
        encoder.finish_into(&mut out);
        assert_eq!(out[len..], expected);
    }
    encoder.finish_into(&mut out);
    assert_eq!(out.len(), 4 + 3 * expected.len());
    assert_eq!(out[..4], [1, 2, 3, 0]);
}

#[test]
fn both_ends_of_an_interval_belong_to_it() {
    let bank = bank(vec![
        ([9_000, 20_000, 41_000, 50_000, 60_000, 65_000].into(), -2),
        ([1, 2, 65_534, 65_535].into(), -1),
        ((1..=300).map(|i| i * 200).collect(), -150),
    ]);
    for table in 0..bank.tables() {
        let (first, size) = (bank.first(table), i32::from(bank.size(table)));
        for before in [&[][..], &[(0, 0, 1)], &[(1, 0, -1), (0, 0, 0)]] {
            for value in first - 4..first + size + 4 {
                let mut symbols = before.to_vec();
                symbols.push((table, 0, value));
                let mut naive = Naive::default();
                for &(table, shift, value) in &symbols {
                    naive.encode(&bank, table, shift, value);
                }
                for end in [naive.lowest(), naive.highest()] {
                    assert!(naive.holds(&end));
                    let mut decoder = LaneDecoder::new(&end);
                    for &(table, shift, value) in &symbols {
                        let found = decoder.decode(&bank, table, shift, RANGE);
                        assert_eq!(found, Ok(value), "{end:02x?}");
                    }
                    assert_eq!(decoder.finish().is_ok(), end == naive.seal());
                }
            }
        }
    }
}

#[test]
fn a_range_of_2_48_stays_and_an_end_is_not_inside() {
    // Three low escapes, each with one zero bit, leave L = 0 and, since the product of their masses
    // is 4 · (2^33 + 1), a range of 2^48 exactly. No word is output yet. The last value then has
    // the interval from c to c' in units of 2^-32.
    let bank = bank(vec![
        ([20_857, 65_535].into(), 0),
        ([2_412, 65_535].into(), 0),
        ([683, 65_535].into(), 0),
        ([300, 512, 1_000].into(), 0),
    ]);
    let symbols = |last| [(0, 0, -1), (1, 0, -1), (2, 0, -1), (3, 0, last)];
    // 512 = 0x200 is the end of the first interval and is not part of it.
    for (last, expected) in [(0, &[0, 0, 0x01, 0x2C][..]), (1, &[0, 0, 0x02])] {
        let symbols = symbols(last);
        assert_eq!(naive_payload(&bank, &symbols), expected);
        assert_eq!(payload(&bank, &symbols), expected);
        let mut decoder = LaneDecoder::new(expected);
        for (table, shift, value) in symbols {
            assert_eq!(decoder.decode(&bank, table, shift, RANGE), Ok(value));
        }
        assert_eq!(decoder.finish(), Ok(()));
    }
}
