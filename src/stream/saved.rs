//! Sessions saved as bytes, to continue in another process. Each type has one form, with reading next to writing.
//!
//! This is not a wire format: it belongs to the version of the library that wrote it. Numbers are little-endian,
//! lengths come first. Bytes are untrusted: a length never makes a load allocate more than the bytes that follow, and
//! every type's owner checks what its own code relies on.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::Binding;
use crate::error::{Error, ErrorKind, Result};
use crate::number::to_u64;
use crate::wire::{Payload, SeekEntry, StreamHeader};

/// The first bytes of a saved session.
const MAGIC: &[u8; 8] = b"mdspses5";
/// The kind of a saved session.
pub(crate) const READER: u8 = 1;
/// See [`READER`].
pub(crate) const WRITER: u8 = 2;
/// See [`READER`].
#[cfg(feature = "codec")]
pub(crate) const ENCODER: u8 = 3;
/// See [`READER`].
#[cfg(feature = "codec")]
pub(crate) const DECODER: u8 = 4;

/// A type that can be saved.
pub(crate) trait Saved: Sized {
    /// Appends the value.
    fn save(&self, out: &mut BytesMut);
    /// Takes a value from the front of `input`; `None` if the bytes hold none.
    fn load(input: &mut &[u8]) -> Option<Self>;
}

/// Implements [`Saved`] for a struct, field by field.
macro_rules! saved_fields {
    ($type:ty { $($field:ident),+ $(,)? }) => {
        impl $crate::stream::saved::Saved for $type {
            fn save(&self, out: &mut bytes::BytesMut) {
                $($crate::stream::saved::Saved::save(&self.$field, out);)+
            }

            fn load(input: &mut &[u8]) -> Option<Self> {
                Some(Self { $($field: $crate::stream::saved::Saved::load(input)?,)+ })
            }
        }
    };
}
pub(crate) use saved_fields;

/// The error for saved bytes that cannot be loaded.
pub(crate) fn damaged(detail: &'static str) -> Error {
    Error::of_call(ErrorKind::SavedSession).with_detail(detail)
}

/// A whole saved session: magic, what `fill` writes, and a crc over all of it.
pub(crate) fn seal(kind: u8, fill: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    let mut out = BytesMut::from(&MAGIC[..]);
    out.put_u8(kind);
    fill(&mut out);
    out.put_u32_le(crc32fast::hash(&out));
    out.to_vec()
}

/// The content between magic and crc of a saved session of this kind.
///
/// # Errors
/// [`ErrorKind::SavedSession`].
pub(crate) fn open(kind: u8, saved: &[u8]) -> Result<&[u8]> {
    let (body, crc) = saved.split_last_chunk::<4>().ok_or(damaged("too short"))?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err(damaged("the crc differs"));
    }
    match body.strip_prefix(MAGIC).and_then(<[u8]>::split_first) {
        Some((found, rest)) if *found == kind => Ok(rest),
        Some(_) => Err(damaged("a session of the other kind")),
        None => Err(damaged("no session of this version of the library")),
    }
}

/// Runs `load` over all that [`open`] returns.
///
/// # Errors
/// [`ErrorKind::SavedSession`].
pub(crate) fn restore<T>(kind: u8, saved: &[u8], load: impl FnOnce(&mut &[u8]) -> Option<T>) -> Result<T> {
    let mut input = open(kind, saved)?;
    match load(&mut input) {
        Some(value) if input.is_empty() => Ok(value),
        _ => Err(damaged("its fields contradict each other")),
    }
}

fn take<'a>(input: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(count)?;
    *input = rest;
    Some(taken)
}

/// The content of saved [`Bytes`], not copied.
#[cfg(feature = "codec")]
pub(crate) fn take_bytes<'a>(input: &mut &'a [u8]) -> Option<&'a [u8]> {
    let count = usize::load(input)?;
    take(input, count)
}

macro_rules! saved_number {
    ($($number:ty),+) => {
        $(impl Saved for $number {
            fn save(&self, out: &mut BytesMut) {
                out.put_slice(&self.to_le_bytes());
            }

            fn load(input: &mut &[u8]) -> Option<Self> {
                take(input, size_of::<Self>())?.first_chunk().map(|bytes| Self::from_le_bytes(*bytes))
            }
        })+
    };
}
saved_number!(u8, u16, u32, u64, i16, i32);

impl Saved for usize {
    fn save(&self, out: &mut BytesMut) {
        to_u64(*self).save(out);
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        usize::try_from(u64::load(input)?).ok()
    }
}

impl Saved for bool {
    fn save(&self, out: &mut BytesMut) {
        out.put_u8(u8::from(*self));
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        match u8::load(input)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

impl<const N: usize> Saved for [u8; N] {
    fn save(&self, out: &mut BytesMut) {
        out.put_slice(self);
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        take(input, N)?.first_chunk().copied()
    }
}

impl Saved for Bytes {
    fn save(&self, out: &mut BytesMut) {
        self.len().save(out);
        out.put_slice(self);
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        let count = usize::load(input)?;
        take(input, count).map(Bytes::copy_from_slice)
    }
}

impl Saved for BytesMut {
    fn save(&self, out: &mut BytesMut) {
        self.len().save(out);
        out.put_slice(self);
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        Bytes::load(input).map(|bytes| BytesMut::from(&bytes[..]))
    }
}

impl<T: Saved> Saved for Option<T> {
    fn save(&self, out: &mut BytesMut) {
        self.is_some().save(out);
        if let Some(value) = self {
            value.save(out);
        }
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        if bool::load(input)? { T::load(input).map(Some) } else { Some(None) }
    }
}

impl<T: Saved> Saved for VecDeque<T> {
    fn save(&self, out: &mut BytesMut) {
        self.len().save(out);
        self.iter().for_each(|value| value.save(out));
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        let count = usize::load(input)?;
        // Every value takes at least one byte, so a count above the number of bytes left cannot be right.
        (count <= input.len()).then_some(())?;
        (0..count).map(|_| T::load(input)).collect()
    }
}

impl<T: Saved + Clone> Saved for Vec<T> {
    fn save(&self, out: &mut BytesMut) {
        self.len().save(out);
        self.iter().for_each(|value| value.save(out));
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        let mut values: Vec<T> = VecDeque::load(input)?.into();
        // Exactly its length, as the memory of the saved ones is counted.
        values.shrink_to_fit();
        Some(values)
    }
}

impl<A: Saved, B: Saved> Saved for (A, B) {
    fn save(&self, out: &mut BytesMut) {
        self.0.save(out);
        self.1.save(out);
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        Some((A::load(input)?, B::load(input)?))
    }
}

impl<T: Saved> Saved for Range<T> {
    fn save(&self, out: &mut BytesMut) {
        self.start.save(out);
        self.end.save(out);
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        Some(T::load(input)?..T::load(input)?)
    }
}

impl Saved for Binding {
    fn save(&self, out: &mut BytesMut) {
        (*self == Binding::Message).save(out);
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        Some(if bool::load(input)? { Binding::Message } else { Binding::ByteStream })
    }
}

/// A header is saved in its wire form.
impl Saved for StreamHeader {
    fn save(&self, out: &mut BytesMut) {
        let mut bytes = BytesMut::new();
        // A header that was read or written before can always be encoded.
        let _ = self.encode(&mut bytes);
        bytes.save(out);
    }

    fn load(input: &mut &[u8]) -> Option<Self> {
        let bytes = Bytes::load(input)?;
        match StreamHeader::load(&bytes, None) {
            Ok(Some((header, length))) if length == bytes.len() => Some(header),
            _ => None,
        }
    }
}

saved_fields!(Payload { bytes, offset });
saved_fields!(SeekEntry { frame, offset });

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back_and_cuts_are_seen() {
        let value = (Some(VecDeque::from([1_u64, 1 << 60])), (vec![7_u8], Bytes::from_static(b"abc")));
        let mut out = BytesMut::new();
        value.save(&mut out);
        let mut input = &out[..];
        assert_eq!(Saved::load(&mut input), Some(value));
        assert!(input.is_empty());
        type Value = (Option<VecDeque<u64>>, (Vec<u8>, Bytes));
        for end in 0..out.len() {
            assert_eq!(<Value as Saved>::load(&mut &out[..end]), None);
        }
    }

    #[test]
    fn a_huge_count_asks_for_nothing() {
        let mut out = BytesMut::new();
        (u64::MAX >> 1).save(&mut out);
        assert_eq!(Vec::<u64>::load(&mut &out[..]), None);
        assert_eq!(Bytes::load(&mut &out[..]), None);
    }

    #[test]
    fn a_session_is_sealed() {
        let saved = seal(1, |out| 5_u32.save(out));
        assert_eq!(open(1, &saved), Ok(&[5, 0, 0, 0][..]));
        assert!(open(2, &saved).is_err() && open(1, &saved[1..]).is_err());
        for bit in 0..saved.len() * 8 {
            let mut other = saved.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(1, &other).unwrap_err().kind(), ErrorKind::SavedSession);
        }
    }
}
