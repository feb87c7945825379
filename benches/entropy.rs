//! Measures the entropy coder: time per symbol, and bytes above the tables' ideal.
//!
//! `cargo bench --bench entropy` prints one line for each shape. The tables are
//! discretised normal distributions of many scales and four fractions of the mean, cut to
//! the values that hold nearly all of the mass, as a frozen model has them; the values
//! are drawn from the tables themselves, escapes included. A row is one run and one payload; the figures include its
//! mode, start, seal and canonical check. Two rows decoded together have no mode.

use std::hint::black_box;
use std::time::Instant;

use midspan::entropy::{Bank, LaneDecoder, LaneEncoder, RunDecoder, RunEncoder, decode_rows_2};
use midspan::model::synthetic::Random;

const SCALES: usize = 64;
const FRACTIONS: usize = 4;
const RANGE: (i32, i32) = (-4_096, 4_095);

/// The mass of a normal distribution in one unit around `x`, by summing its density.
fn unit_mass(x: f64, mean: f64, scale: f64) -> f64 {
    (0..32)
        .map(|i| {
            let z = (x - 0.5 + (f64::from(i) + 0.5) / 32.0 - mean) / scale;
            (-0.5 * z * z).exp() / (32.0 * scale * (2.0 * std::f64::consts::PI).sqrt())
        })
        .sum()
}

/// A bank of normal distributions with scales from `low` to `high`.
fn normal_bank(low: f64, high: f64) -> Bank {
    let (mut first, mut sizes, mut boundaries) = (Vec::new(), Vec::new(), Vec::new());
    for s in 0..SCALES {
        let scale = low * (high / low).powf(s as f64 / (SCALES - 1) as f64);
        let reach = (3.5 * scale).ceil().max(2.0) as i32;
        for f in 0..FRACTIONS {
            let mean = f as f64 / FRACTIONS as f64;
            let mut sum = 0.0;
            let size = (2 * reach + 1) as u16;
            let spare = 65_536.0 - f64::from(size) - 2.0;
            let tail =
                (1.0 - (-reach..=reach).map(|x| unit_mass(f64::from(x), mean, scale)).sum::<f64>()).max(0.0) / 2.0;
            sum += tail;
            let mut i = 1.0;
            boundaries.push((sum * spare + i) as u16);
            for x in -reach..=reach {
                sum = (sum + unit_mass(f64::from(x), mean, scale)).min(1.0);
                i += 1.0;
                boundaries.push((sum * spare + i) as u16);
            }
            first.push(-reach);
            sizes.push(size);
        }
    }
    Bank::new(first, &sizes, boundaries).expect("the boundaries rise")
}

/// Draws a value from a table, and its ideal cost in bits.
fn draw(random: &mut Random, bank: &Bank, table: usize, shift: i32) -> (i16, f64) {
    let quantile = random.within(0, 65_535) as u16;
    let symbol = bank.boundaries(table).partition_point(|&c| c <= quantile) as i32;
    let size = i32::from(bank.size(table));
    let place = match symbol {
        0 => -1 - random.within(0, 2),
        s if s == size + 1 => size + random.within(0, 2),
        s => s - 1,
    };
    let value = bank.first(table) + place + shift;
    let (mass, bits) = bank.mass(table, shift, value);
    (value as i16, 16.0 - f64::from(mass).log2() + f64::from(bits))
}

/// The best time of several passes, in nanoseconds for each of `symbols` symbols.
fn time(symbols: usize, mut pass: impl FnMut()) -> f64 {
    pass();
    (0..15)
        .map(|_| {
            let start = Instant::now();
            pass();
            start.elapsed().as_nanos() as f64 / symbols as f64
        })
        .fold(f64::INFINITY, f64::min)
}

fn measure(name: &str, bank: &Bank, width: usize, rows: usize) {
    let mut random = Random::new(1);
    let symbols = width * rows;
    let tables: Vec<u32> = (0..symbols).map(|_| random.within(0, bank.tables() as i32 - 1) as u32).collect();
    let shifts: Vec<i32> = (0..symbols).map(|_| random.within(-10, 10)).collect();
    let mut ideal = 0.0;
    let values: Vec<i16> = (0..symbols)
        .map(|i| {
            let (value, bits) = draw(&mut random, bank, tables[i] as usize, shifts[i]);
            ideal += bits;
            value
        })
        .collect();
    let row = |i: usize| i * width..(i + 1) * width;

    let mut lane = LaneEncoder::new();
    let mut buffer = Vec::new();
    let encode = time(symbols, || {
        for i in 0..rows {
            buffer.clear();
            let mut runs = RunEncoder::new(bank);
            runs.encode_row(&mut lane, &tables[row(i)], &shifts[row(i)], &values[row(i)], None);
            lane.finish_into(&mut buffer);
            black_box(&buffer);
        }
    });
    let mut payloads = |modes: bool| -> Vec<Vec<u8>> {
        let payload = |i: usize| {
            let (tables, shifts, values) = (&tables[row(i)], &shifts[row(i)], &values[row(i)]);
            let mut payload = Vec::new();
            if modes {
                RunEncoder::new(bank).encode_row(&mut lane, tables, shifts, values, None);
            } else {
                lane.encode_row(bank, tables, shifts, values);
            }
            lane.finish_into(&mut payload);
            payload
        };
        (0..rows).map(payload).collect()
    };
    let (payloads, without_modes) = (payloads(true), payloads(false));
    let mut out = vec![0i16; 2 * width];
    let decode = time(symbols, || {
        for (i, payload) in payloads.iter().enumerate() {
            let out = &mut out[..width];
            let mut lane = LaneDecoder::new(payload);
            let mut runs = RunDecoder::new(bank, RANGE);
            runs.decode_row(&mut lane, &tables[row(i)], &shifts[row(i)], None, out).expect("decodes");
            lane.finish().expect("canonical");
            black_box(&*out);
        }
    });
    let decode_2 = time(symbols, || {
        for i in (0..rows).step_by(2) {
            let (out_a, out_b) = out.split_at_mut(width);
            let mut a = LaneDecoder::new(&without_modes[i]);
            let mut b = LaneDecoder::new(&without_modes[i + 1]);
            let results = decode_rows_2(
                [&mut a, &mut b],
                bank,
                [&tables[row(i)], &tables[row(i + 1)]],
                [&shifts[row(i)], &shifts[row(i + 1)]],
                RANGE,
                [out_a, out_b],
            );
            assert_eq!(results, [Ok(()), Ok(())]);
            a.finish().expect("canonical");
            b.finish().expect("canonical");
            black_box(&out);
        }
    });

    let bytes: usize = payloads.iter().map(Vec::len).sum();
    println!(
        "{name:<12} {width:>4} {:>6.2} {encode:>7.2} {decode:>7.2} {decode_2:>7.2} {:>9.3}",
        ideal / symbols as f64,
        (bytes as f64 - ideal / 8.0) / rows as f64,
    );
}

fn main() {
    println!("best of 15 passes, ns/symbol; overhead in bytes a payload");
    println!("{:<12} {:>4} {:>6} {:>7} {:>7} {:>7} {:>9}", "tables", "row", "bits", "enc", "dec", "dec x2", "overhead");
    for (name, bank) in
        [("sharp", &normal_bank(0.1, 0.6)), ("narrow", &normal_bank(0.15, 2.0)), ("wide", &normal_bank(0.15, 8.0))]
    {
        measure(name, bank, 24, 16_384);
        measure(name, bank, 768, 512);
    }
}
