//! Counts and lengths as numbers of another width, none of which can be too large on a machine that holds what they count.

/// A count or length in 64 bits; no target has more.
pub(crate) fn to_u64(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// A number as a count or place; the largest there is, which nothing reaches, where it has more bits than the target.
pub(crate) fn to_usize(number: impl TryInto<usize>) -> usize {
    number.try_into().unwrap_or(usize::MAX)
}
