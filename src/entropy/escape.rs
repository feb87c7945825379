//! The escape code: how far a value lies outside its table.
//!
//! The distance d ≥ 0 is written as the binary number d + 1 of b bits: b − 1 one bits, a
//! zero bit (left out if b = 16, which is the longest), then the b − 1 bits below the
//! leading one. Every bit is a symbol of probability one half.

/// The largest number of bits of d + 1.
pub(super) const MAX_BITS: u32 = 16;

/// The largest distance that the escape code can write.
pub(super) const MAX_DISTANCE: u32 = 65_534;

/// Half of the probability mass: the upper boundary of a zero bit.
pub(super) const HALF: u16 = 32_768;

/// The number of bits b of `distance` + 1.
pub(super) const fn bit_length(distance: u32) -> u32 {
    u32::BITS.saturating_sub(distance.saturating_add(1).leading_zeros())
}

/// The number of bits that the escape code of `distance` takes.
pub const fn cost(distance: u32) -> u32 {
    let below = bit_length(distance).saturating_sub(1);
    let stop = if below.saturating_add(1) < MAX_BITS { 1 } else { 0 };
    below.saturating_mul(2).saturating_add(stop)
}
