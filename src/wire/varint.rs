//! Prefix varints of 1 to 8 bytes (spec 1.2).
//!
//! The leading one bits of the first byte give the number of bytes that follow; after the zero bit come the value bits,
//! most significant first.

use bytes::{BufMut, BytesMut};

use crate::error::{Detail, Error, ErrorKind};
use crate::number::to_usize;

/// The largest value: 2^56 − 1.
pub const MAX: u64 = (1 << 56) - 1;

/// The number of bytes that hold `value`: 1 to 8. (A value above [`MAX`] has no form; the answer is 8 for it too.)
#[must_use]
pub const fn len(value: u64) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        0x20_0000..=0xfff_ffff => 4,
        0x1000_0000..=0x7_ffff_ffff => 5,
        0x8_0000_0000..=0x3ff_ffff_ffff => 6,
        0x400_0000_0000..=0x1_ffff_ffff_ffff => 7,
        _ => 8,
    }
}

/// Reads the varint at the start of `input`. Returns its value and its length in bytes, or `None` if `input` ends
/// inside it.
///
/// # Errors
/// [`ErrorKind::VarintNotShortest`], [`ErrorKind::VarintReserved`], both at offset 0.
pub fn load(input: &[u8]) -> Result<Option<(u64, usize)>, Error> {
    let Some((&first, rest)) = input.split_first() else {
        return Ok(None);
    };
    // [VARINT-2] The first byte 0xFF is reserved; a reader MUST refuse it (error 102).
    if first == 0xff {
        return Err(Error::new(ErrorKind::VarintReserved, 0));
    }
    let ones = first.leading_ones();
    let further = to_usize(ones);
    let Some(further) = rest.get(..further) else {
        return Ok(None);
    };
    let mask = 0x7f_u8.checked_shr(ones).unwrap_or(0);
    let value = further.iter().fold(u64::from(first & mask), |value, byte| (value << 8) | u64::from(*byte));
    // [VARINT-1] A value MUST be written in the fewest bytes that hold it. A reader MUST refuse any other form
    // (error 101).
    let bytes = further.len().saturating_add(1);
    if bytes != len(value) {
        let (wanted, found) = (len(value) as u64, bytes as u64);
        let detail = Detail::Number { what: "bytes of a varint", wanted, found };
        return Err(Error::new(ErrorKind::VarintNotShortest, 0).with(detail));
    }
    Ok(Some((value, bytes)))
}

/// Appends `value` in its shortest form.
///
/// # Errors
/// [`ErrorKind::FieldOutOfRange`] at offset 0 above [`MAX`]; nothing is written.
pub fn encode(value: u64, out: &mut BytesMut) -> Result<(), Error> {
    if value > MAX {
        let (high, found) = (MAX.cast_signed(), i64::try_from(value).unwrap_or(i64::MAX));
        let detail = Detail::Range { what: "a varint", low: 0, high, found };
        return Err(Error::of_call(ErrorKind::FieldOutOfRange).with(detail));
    }
    // The prefix of n − 1 ones and a zero, above the 7·n value bits of n bytes.
    let (prefix, bytes) = match len(value) {
        1 => (0, 1),
        2 => (0x80_u64 << 8, 2),
        3 => (0xc0_u64 << 16, 3),
        4 => (0xe0_u64 << 24, 4),
        5 => (0xf0_u64 << 32, 5),
        6 => (0xf8_u64 << 40, 6),
        7 => (0xfc_u64 << 48, 7),
        _ => (0xfe_u64 << 56, 8),
    };
    out.put_uint(prefix | value, bytes);
    Ok(())
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]
mod tests {
    use super::*;

    fn encoded(value: u64) -> BytesMut {
        let mut out = BytesMut::new();
        encode(value, &mut out).unwrap();
        out
    }

    #[test]
    fn the_examples_of_the_specification() {
        for (value, bytes) in [
            (0, &[0x00][..]),
            (127, &[0x7f]),
            (128, &[0x80, 0x80]),
            (300, &[0x81, 0x2c]),
            (16_384, &[0xc0, 0x40, 0x00]),
        ] {
            assert_eq!(encoded(value), bytes);
            assert_eq!(load(bytes), Ok(Some((value, bytes.len()))));
        }
    }

    #[test]
    fn each_length_from_its_smallest_to_its_largest_value() {
        let smallest = [0, 128, 16_384, 2_097_152, 268_435_456, 1 << 35, 1 << 42, 1 << 49, 1 << 56];
        for (bytes, pair) in (1..).zip(smallest.windows(2)) {
            for value in [pair[0], pair[0] + 1, pair[1] - 2, pair[1] - 1] {
                let out = encoded(value);
                assert_eq!((out.len(), len(value)), (bytes, bytes));
                assert_eq!(load(&out), Ok(Some((value, bytes))));
                for short in 0..bytes {
                    assert_eq!(load(&out[..short]), Ok(None));
                }
            }
        }
        assert_eq!(encode(MAX + 1, &mut BytesMut::new()).unwrap_err().kind(), ErrorKind::FieldOutOfRange);
    }

    #[test]
    fn longer_forms_are_refused() {
        for bytes in [
            &[0x80, 0x7f][..],                                 // 127 in two bytes
            &[0xc0, 0x3f, 0xff],                               // 16,383 in three
            &[0xfe, 0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], // 2^49 − 1 in eight
            &[0xfc, 0, 0, 0, 0, 0, 0],                         // 0 in seven
        ] {
            assert_eq!(load(bytes), Err(Error::new(ErrorKind::VarintNotShortest, 0)));
        }
        assert_eq!(load(&[0xff]), Err(Error::new(ErrorKind::VarintReserved, 0)));
    }
}
