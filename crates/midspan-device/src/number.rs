//! Conversions of counts.

/// A count as a number of 64 bits, which holds every count of every platform.
pub(crate) fn to_u64(count: usize) -> u64 {
    count as u64
}
