//! The escape code: how far a value lies outside its table.
//!
//! The distance d ≥ 0 is written as the binary number d + 1 of b bits: b − 1 one bits, a
//! zero bit (left out if b = 16, which is the longest), then the b − 1 bits below the
//! leading one. Every bit is a symbol of probability one half.

use core::borrow::Borrow;
use core::num::NonZeroU16;

use constriction::stream::model::{DecoderModel, EncoderModel, EntropyModel};

/// The largest number of bits of d + 1.
pub(super) const MAX_BITS: u32 = 16;

/// The largest distance that the escape code can write.
pub(super) const MAX_DISTANCE: u32 = 65_534;

/// Half of the probability mass.
const HALF: NonZeroU16 = NonZeroU16::new(32_768).unwrap();

/// The number of bits that the escape code of `distance` takes.
pub(super) const fn bits(distance: u32) -> u32 {
    let b = bit_length(distance);
    let prefix = if b == MAX_BITS { 15 } else { b };
    prefix.saturating_add(b).saturating_sub(1)
}

/// The number of bits b of `distance` + 1.
pub(super) const fn bit_length(distance: u32) -> u32 {
    u32::BITS.saturating_sub(distance.saturating_add(1).leading_zeros())
}

/// The model of one bit: the table {0, 32,768, 65,536}.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bit;

impl EntropyModel<16> for Bit {
    type Symbol = bool;
    type Probability = u16;
}

impl EncoderModel<16> for Bit {
    #[inline]
    fn left_cumulative_and_probability(
        &self,
        symbol: impl Borrow<bool>,
    ) -> Option<(u16, NonZeroU16)> {
        Some((if *symbol.borrow() { HALF.get() } else { 0 }, HALF))
    }
}

impl DecoderModel<16> for Bit {
    #[inline]
    fn quantile_function(&self, quantile: u16) -> (bool, u16, NonZeroU16) {
        let one = quantile >= HALF.get();
        (one, if one { HALF.get() } else { 0 }, HALF)
    }
}
