//! Conversions of counts and lengths between integer widths. None fails on a machine that holds what is counted.

/// A count or length in 64 bits; no target's `usize` is wider.
pub(crate) fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// A number as a count or index. One that does not fit becomes the largest `usize`, which no count reaches.
pub(crate) fn to_usize(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(usize::MAX)
}
