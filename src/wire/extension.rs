//! Extensions E0 (ignorable) and F0 (critical), spec 2.8.

use bytes::{BufMut, Bytes, BytesMut};

use super::check;
use super::identity::Seed;
use super::input::{self, part};
use super::kind::Kind;
use super::varint;
use crate::error::{Detail, Error, ErrorKind};

/// The body of an ignorable extension. Version 1 assigns no id, so a critical one is always refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// The extension id.
    pub id: u32,
    /// The data, which a reader of version 1 ignores.
    pub data: Bytes,
}

impl Extension {
    /// The `n`th extension id reserved for grease, 27 + 31·n; `None` above 2^32 − 1.
    #[must_use]
    pub const fn grease_id(n: u32) -> Option<u32> {
        match n.checked_mul(31) {
            Some(id) => id.checked_add(27),
            None => None,
        }
    }

    /// Reads a body of `kind`, [`Kind::Ignorable`] or [`Kind::Critical`].
    ///
    /// # Errors
    /// [`ErrorKind::ControlCrcMismatch`], [`ErrorKind::UnknownCriticalExtension`], [`ErrorKind::FieldOutOfRange`],
    /// [`ErrorKind::ChunkLayout`], and those of a varint.
    pub fn load(body: &Bytes, kind: Kind, seed: Seed) -> Result<Extension, Error> {
        let fields = check::control_fields(kind, seed, body)?;
        let (id, data) = input::whole(fields, ErrorKind::ChunkLayout, |input| {
            // [CTRL-7] An unknown critical extension MUST be refused (error 315). An ignorable one MUST be ignored,
            // after its crc was checked.
            let (data, id) = input::varint_u32("extension id")(input)?;
            if kind == Kind::Critical {
                let detail = Detail::Id { what: "extension", found: id.into() };
                return input::fail_with(ErrorKind::UnknownCriticalExtension, input, detail);
            }
            Ok((&[], (id, data.len())))
        })?;
        Ok(Extension { id, data: part(body, fields.len().saturating_sub(data), fields.len()) })
    }

    /// Appends a body of `kind`.
    ///
    /// # Errors
    /// None in practice: every id fits a varint.
    pub fn encode(kind: Kind, seed: Seed, id: u32, data: &[u8], out: &mut BytesMut) -> Result<(), Error> {
        let start = out.len();
        varint::encode(u64::from(id), out)?;
        out.put_slice(data);
        check::encode_control_crc(kind, seed, start, out);
        Ok(())
    }
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

    #[test]
    fn an_annotated_extension() {
        let mut out = BytesMut::new();
        Extension::encode(Kind::Ignorable, Seed::NONE, 300, b"data", &mut out).unwrap();
        assert_eq!(out[..6], *b"\x81\x2cdata"); // id, data
        assert_eq!(out[6..], crc32fast::hash(b"\xe0\x81\x2cdata").to_le_bytes());
        let extension = Extension { id: 300, data: Bytes::from_static(b"data") };
        assert_eq!(Extension::load(&out.freeze(), Kind::Ignorable, Seed::NONE), Ok(extension));
    }

    #[test]
    fn a_critical_one_is_refused_once_its_crc_holds() {
        let mut out = BytesMut::new();
        Extension::encode(Kind::Critical, Seed::NONE, 27, b"data", &mut out).unwrap();
        let body = out.clone().freeze();
        assert_eq!(
            Extension::load(&body, Kind::Critical, Seed::NONE),
            Err(Error::new(ErrorKind::UnknownCriticalExtension, 0))
        );
        assert_eq!(
            Extension::load(&body, Kind::Ignorable, Seed::NONE),
            Err(Error::new(ErrorKind::ControlCrcMismatch, 5))
        );
    }

    #[test]
    fn ids() {
        assert_eq!(Extension::grease_id(0), Some(27));
        assert_eq!(Extension::grease_id(2), Some(89));
        assert_eq!(Extension::grease_id(u32::MAX), None);
        let mut out = BytesMut::from(&[0xf8, 8, 0, 0, 0, 0][..]); // 2^35
        check::encode_control_crc(Kind::Ignorable, Seed::NONE, 0, &mut out);
        assert_eq!(
            Extension::load(&out.freeze(), Kind::Ignorable, Seed::NONE),
            Err(Error::new(ErrorKind::FieldOutOfRange, 0))
        );
    }
}
