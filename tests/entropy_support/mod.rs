//! A plain implementation of chapter 3 of the specification, for tests to compare with.
#![allow(dead_code)]

use std::collections::BTreeSet;

use midspan::entropy::{Bank, LaneEncoder};

/// The declared range of the values in these tests.
pub const RANGE: (i32, i32) = (-32_767, 32_767);

/// A bank of tables given as boundaries and first value.
pub fn bank(tables: Vec<(BTreeSet<u16>, i32)>) -> Bank {
    let first = tables.iter().map(|t| t.1).collect();
    let sizes: Vec<u16> = tables.iter().map(|t| t.0.len() as u16 - 1).collect();
    let boundaries = tables.iter().flat_map(|t| t.0.iter().copied()).collect();
    Bank::new(first, &sizes, boundaries).expect("the tables are in order")
}

/// The crate's payload of some values, each with a table and a shift.
pub fn payload(bank: &Bank, symbols: &[(usize, i32, i32)]) -> Vec<u8> {
    let mut encoder = LaneEncoder::new();
    for &(table, shift, value) in symbols {
        encoder.encode(bank, table, shift, value);
    }
    encoder.finish()
}

/// The specification's payload of the same.
pub fn naive_payload(bank: &Bank, symbols: &[(usize, i32, i32)]) -> Vec<u8> {
    let mut naive = Naive::default();
    for &(table, shift, value) in symbols {
        naive.encode(bank, table, shift, value);
    }
    naive.seal()
}

/// All boundaries of a table, 0 and 65,536 included.
pub fn all_boundaries(bank: &Bank, table: usize) -> Vec<u64> {
    let own = bank.boundaries(table).iter().map(|&c| u64::from(c));
    [0].into_iter().chain(own).chain([65_536]).collect()
}

/// An encoder that keeps L as one long number.
#[derive(Clone)]
pub struct Naive {
    /// The bytes of L after the point: the words that were output, then `low` in eight bytes.
    lower: Vec<u8>,
    /// R, in units of L's last byte.
    range: u64,
    /// The most bytes that a single carry ran through.
    pub longest_carry: usize,
}

impl Default for Naive {
    fn default() -> Self {
        Naive { lower: vec![0; 8], range: u64::MAX, longest_carry: 0 }
    }
}

/// Adds `x` to a number, in units of its last byte. Returns the carry out of the number, and through how many bytes
/// before the last eight the carry ran.
fn add(number: &mut [u8], x: u64) -> (bool, usize) {
    let mut carry = 0u16;
    let mut run = 0;
    for (i, byte) in number.iter_mut().rev().enumerate() {
        let digit = if i < 8 { (x >> (8 * i)) as u8 } else { 0 };
        run += usize::from(i >= 8 && carry > 0);
        let sum = u16::from(*byte) + u16::from(digit) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    (carry > 0, run)
}

impl Naive {
    pub fn symbol(&mut self, boundaries: &[u64], i: usize) {
        let scale = self.range >> 16;
        let (carry, run) = add(&mut self.lower, scale * boundaries[i]);
        assert!(!carry, "L stays below 1");
        self.longest_carry = self.longest_carry.max(run);
        self.range = scale * (boundaries[i + 1] - boundaries[i]);
        if self.range < 1 << 48 {
            self.range <<= 16;
            self.lower.extend([0, 0]);
        }
    }

    pub fn encode(&mut self, bank: &Bank, table: usize, shift: i32, value: i32) {
        let c = all_boundaries(bank, table);
        let first = i64::from(bank.first(table));
        let size = i64::from(bank.size(table));
        let value = i64::from(value) - i64::from(shift);
        if value < first {
            self.symbol(&c, 0);
            self.escape(first - 1 - value);
        } else if value > first + size - 1 {
            self.symbol(&c, size as usize + 1);
            self.escape(value - (first + size));
        } else {
            self.symbol(&c, (value - first) as usize + 1);
        }
    }

    fn escape(&mut self, d: i64) {
        let binary = format!("{:b}", d + 1);
        let b = binary.len();
        assert!(b <= 16);
        let stop = if b < 16 { "0" } else { "" };
        for bit in format!("{}{stop}{}", "1".repeat(b - 1), &binary[1..]).chars() {
            self.symbol(&[0, 32_768, 65_536], usize::from(bit == '1'));
        }
    }

    /// 16 bits for each word that was output, plus the zero bits above the leading one of `range`. The difference
    /// between two places is the cost of the symbols between them (3.5).
    pub fn bits(&self) -> i64 {
        let words = (self.lower.len() as i64 - 8) / 2;
        16 * words + i64::from(self.range.leading_zeros())
    }

    /// Whether a string of bytes represents a number v in the interval, L ≤ v < L + R.
    pub fn holds(&self, string: &[u8]) -> bool {
        let len = string.len().max(self.lower.len());
        let padded = |bytes: &[u8]| [bytes, &vec![0; len - bytes.len()]].concat();
        let mut upper = self.lower.clone();
        let (whole, _) = add(&mut upper, self.range);
        let v = padded(string);
        padded(&self.lower) <= v && (whole || v < padded(&upper))
    }

    /// L itself.
    pub fn lowest(&self) -> Vec<u8> {
        self.lower.clone()
    }

    /// The largest multiple of one unit of L's last byte below L + R.
    pub fn highest(&self) -> Vec<u8> {
        let mut highest = self.lower.clone();
        assert!(!add(&mut highest, self.range - 1).0);
        highest
    }

    /// For n = 0, 1, 2, …: the smallest multiple of 256^−n not below L, if it is below
    /// L + R.
    pub fn seal(&self) -> Vec<u8> {
        (0..=self.lower.len())
            .find_map(|n| {
                let (head, tail) = self.lower.split_at(n);
                let mut string = head.to_vec();
                if tail.iter().any(|&byte| byte != 0) && add(&mut string, 1).0 {
                    return None; // the multiple is 1, and nothing is above 1
                }
                self.holds(&string).then_some(string)
            })
            .expect("L itself is a multiple")
    }
}
