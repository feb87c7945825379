//! Numbers of JavaScript's.

/// The largest whole number up to which JavaScript's numbers hold all others: 2^53 - 1.
const MOST: u64 = (1 << 53) - 1;

/// A whole number in JavaScript, if its numbers hold it.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn exact(value: u64) -> Option<f64> {
    (value <= MOST).then_some(value as f64)
}

/// A number in JavaScript, rounded above what its numbers hold exactly.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn rounded(value: u64) -> f64 {
    value as f64
}

/// How many: memory has fewer things than 2^32.
pub(crate) fn count(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// A whole number of JavaScript's, which its side of the package has checked.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub(crate) fn whole(value: f64) -> u64 {
    value as u64
}
