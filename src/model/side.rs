//! Side indices of a model: their embedding, and the tables that code them in a stream (spec 4.8).

#![deny(clippy::float_arithmetic)]

use super::network::{Invalid, invalid};
use super::{Tables, bank};
use crate::entropy::Bank;
use crate::error::ErrorKind;
use crate::number::to_usize;

/// The largest V.
pub const VOCABULARY_MAX: usize = (1 << 20) - 1;
/// The largest A.
pub const AGES_MAX: usize = 16;
/// The largest D.
pub const SIDE_WIDTH_MAX: usize = 8_191;
/// Values of the lower part of a side index.
const LOWER: u32 = 256;

pub(super) const EMBEDDING: &str = "decoder.side.embedding";
pub(super) const SIDE: &str = "decoder.side.";

/// What a model knows of side indices, before it is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SideParts {
    /// D, sums that g_y takes in addition to W.
    pub width: usize,
    /// V: side indices are 0 … V − 1; V says that a frame has none.
    pub vocabulary: usize,
    /// \[A, V, D\], −127 … 127: the row of each index at each age.
    pub embedding: Vec<i8>,
    /// Table 0 for the upper parts of indices, then one for the lower parts of each upper part.
    pub tables: Tables,
}

impl SideParts {
    pub(super) fn check(&self) -> Result<(), Invalid> {
        // [MODEL-3]
        if !(1..=SIDE_WIDTH_MAX).contains(&self.width) {
            return Err(invalid(ErrorKind::ModelConfig, "decoder.config", "D is not 0 to 8,191"));
        }
        // [MODEL-13] A, V or a dimension outside its range is error 703; a value of −128 is 708.
        let ages = self.embedding.len().checked_div(self.width.saturating_mul(self.vocabulary)).unwrap_or(0);
        let whole = ages.saturating_mul(self.width).saturating_mul(self.vocabulary) == self.embedding.len();
        if !(1..=VOCABULARY_MAX).contains(&self.vocabulary) || !(1..=AGES_MAX).contains(&ages) || !whole {
            let detail = "not [A, V, D] with A from 1 to 16 and V from 1 to 2^20 − 1";
            return Err(invalid(ErrorKind::ModelTensorShape, EMBEDDING, detail));
        }
        if self.embedding.contains(&i8::MIN) {
            return Err(invalid(ErrorKind::ModelValue, EMBEDDING, "a value of −128"));
        }
        Ok(())
    }

    /// The number of tables: one for upper parts, and one for each upper part.
    pub(super) fn table_count(vocabulary: usize) -> usize {
        vocabulary.checked_div(to_usize(u64::from(LOWER))).unwrap_or(0).saturating_add(2)
    }

    pub(super) fn bank(&mut self) -> Result<Bank, Invalid> {
        let (upper, _) = Side::split(u32::try_from(self.vocabulary).unwrap_or(u32::MAX));
        let lower = i64::from(LOWER).saturating_sub(1);
        let tables = std::mem::take(&mut self.tables);
        let last = |(first, m): (&i32, &u16)| i64::from(*first).saturating_add(i64::from(*m)).saturating_sub(1);
        let ends = tables.first.iter().zip(&tables.size).map(last).enumerate();
        // [MODEL-13] Table 0 holds only values 0 … floor(V / 256), the others only 0 … 255.
        let outside = ends
            .zip(&tables.first)
            .any(|((table, last), first)| *first < 0 || last > if table == 0 { i64::from(upper) } else { lower });
        if outside {
            let detail = "a table has values that no part of a side index has";
            return Err(invalid(ErrorKind::ModelTable, format!("{SIDE}first"), detail));
        }
        bank(tables, SIDE, SideParts::table_count(self.vocabulary), (|_, _| true, ""))
    }
}

/// What a model knows of side indices.
#[derive(Clone, Debug)]
pub struct Side {
    /// The tables have moved into the bank.
    parts: SideParts,
    bank: Bank,
}

impl Side {
    pub(super) fn new(parts: SideParts, bank: Bank) -> Side {
        Side { parts, bank }
    }

    pub(super) fn parts(&self) -> &SideParts {
        &self.parts
    }

    /// D, sums that g_y takes in addition to W.
    #[must_use]
    pub fn width(&self) -> usize {
        self.parts.width
    }

    /// V: side indices are 0 … V − 1; V says that a frame has none.
    #[must_use]
    pub fn vocabulary(&self) -> u32 {
        u32::try_from(self.parts.vocabulary).unwrap_or(u32::MAX)
    }

    /// The side index of a token: its id, or V if the model does not have it.
    #[must_use]
    pub fn index_of(&self, token: u64) -> u32 {
        u32::try_from(token).unwrap_or(u32::MAX).min(self.vocabulary())
    }

    /// A: how many side indices decide the sums of a frame, its own and those of frames before it.
    #[must_use]
    pub fn ages(&self) -> usize {
        self.parts.embedding.len().checked_div(self.parts.width.saturating_mul(self.parts.vocabulary)).unwrap_or(1)
    }

    /// The tables for the parts of side indices (spec 6.12).
    #[must_use]
    pub fn tables(&self) -> &Bank {
        &self.bank
    }

    /// The upper and the lower part of an index.
    #[must_use]
    pub fn split(index: u32) -> (u32, u32) {
        (index / LOWER, index % LOWER)
    }

    /// The index with these parts, if the model has it (\[SIDE-2\]).
    #[must_use]
    pub fn join(&self, upper: u32, lower: u32) -> Option<u32> {
        let index = upper.checked_mul(LOWER)?.checked_add(lower)?;
        (lower < LOWER && index <= self.vocabulary()).then_some(index)
    }

    /// The sums that g_y takes (spec 5.5, step 1), \[T, D\], for the last T of some frames in a row. `indices` are those
    /// of all these frames; frames before the first one count nothing. Indices that the model does not have count
    /// nothing either.
    #[must_use]
    pub fn sums(&self, indices: &[u32], frames: usize) -> Vec<i16> {
        let SideParts { width, vocabulary, embedding, .. } = &self.parts;
        let first = indices.len().saturating_sub(frames);
        let mut sums = vec![0_i16; frames.saturating_mul(*width)];
        for (at, sums) in (first..).zip(sums.chunks_exact_mut(*width)) {
            let recent = indices.get(..=at).unwrap_or(&[]).iter().rev();
            for (index, table) in recent.zip(embedding.chunks_exact(vocabulary.saturating_mul(*width).max(1))) {
                let row = table.chunks_exact(*width).nth(to_usize(u64::from(*index))).unwrap_or(&[]);
                // At most 16 · 127.
                sums.iter_mut().zip(row).for_each(|(sum, value)| *sum = sum.saturating_add((*value).into()));
            }
        }
        sums
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn side() -> Side {
        // Ages 0 and 1 of three indices, two sums.
        let embedding = vec![1, 2, 3, 4, 5, 6, 10, 20, 30, 40, 50, 60];
        let tables = Tables { first: vec![0; 2], size: vec![1, 4], boundaries: vec![1, 9, 1, 2, 3, 4, 5] };
        let mut parts = SideParts { width: 2, vocabulary: 3, embedding, tables };
        parts.check().unwrap();
        let bank = parts.bank().unwrap();
        Side::new(parts, bank)
    }

    #[test]
    fn sums_are_those_of_the_last_indices() {
        let side = side();
        assert_eq!((side.width(), side.vocabulary(), side.ages()), (2, 3, 2));
        // The first frame has none before it; 3 is no index.
        assert_eq!(side.sums(&[1, 0, 3, 2], 4), [3, 4, 1 + 30, 2 + 40, 10, 20, 5, 6]);
        assert_eq!(side.sums(&[1, 0, 3, 2], 2), [10, 20, 5, 6]);
        assert!(side.sums(&[], 0).is_empty());
    }

    #[test]
    fn an_index_has_two_parts() {
        let side = side();
        assert_eq!((Side::split(0x0203), side.join(0, 3), side.join(0, 4)), ((2, 3), Some(3), None));
        assert_eq!([0, 2, 3, u64::from(u32::MAX) + 1].map(|token| side.index_of(token)), [0, 2, 3, 3]);
        assert_eq!((side.join(1, 0), side.join(0, 300), side.join(u32::MAX, 0)), (None, None, None));
    }
}
