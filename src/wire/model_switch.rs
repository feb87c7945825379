//! The model switch C8 (spec 2.8): another model and a new context from the next frame on.

use bytes::{BufMut, BytesMut};

use super::check;
use super::input::{self, array, byte};
use super::kind::Kind;
use super::varint;
use crate::error::{Error, ErrorKind};

/// The body of a model switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelSwitch {
    /// The fingerprint of the model (spec 4.6). It stands first in the body.
    pub fingerprint: [u8; 32],
    /// The model's version; information only.
    pub model_version: u32,
    /// The quality from here on.
    pub quality: u8,
}

impl ModelSwitch {
    /// Reads a body.
    ///
    /// # Errors
    /// [`ErrorKind::ControlCrcMismatch`], [`ErrorKind::FieldOutOfRange`], [`ErrorKind::ChunkLayout`], and those of a
    /// varint.
    pub fn load(body: &[u8]) -> Result<ModelSwitch, Error> {
        let fields = check::control_fields(Kind::ModelSwitch, body)?;
        input::whole(fields, ErrorKind::ChunkLayout, |input| {
            let (input, fingerprint) = array(input)?;
            let (input, model_version) = input::varint_u32(input)?;
            let (input, quality) = byte(input)?;
            Ok((input, ModelSwitch { fingerprint, model_version, quality }))
        })
    }

    /// Appends a body.
    ///
    /// # Errors
    /// None in practice: every value has a form.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), Error> {
        let start = out.len();
        out.put_slice(&self.fingerprint);
        varint::encode(u64::from(self.model_version), out)?;
        out.put_u8(self.quality);
        check::encode_control_crc(Kind::ModelSwitch, start, out);
        Ok(())
    }

    /// Where the quality stands in the body.
    #[must_use]
    pub const fn quality_offset(&self) -> usize {
        varint::len(self.model_version as u64).saturating_add(32)
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
    fn an_annotated_model_switch() {
        let switch = ModelSwitch { fingerprint: [7; 32], model_version: 300, quality: 1 };
        let mut out = BytesMut::new();
        switch.encode(&mut out).unwrap();
        assert_eq!(out[..32], [7; 32]);
        assert_eq!(out[32..35], [0x81, 0x2c, 1]); // version, quality
        assert_eq!(out[35..], check::control_crc(Kind::ModelSwitch, &out[..35]).to_le_bytes());
        assert_eq!(switch.quality_offset(), 34);
        assert_eq!(ModelSwitch::load(&out), Ok(switch));
    }

    #[test]
    fn layout_and_range() {
        let load = |further: &[u8]| {
            let mut out = BytesMut::from(&[7; 32][..]);
            out.put_slice(further);
            check::encode_control_crc(Kind::ModelSwitch, 0, &mut out);
            ModelSwitch::load(&out).unwrap_err()
        };
        assert_eq!(load(&[]), Error::new(ErrorKind::ChunkLayout, 32));
        assert_eq!(load(&[1]), Error::new(ErrorKind::ChunkLayout, 33));
        assert_eq!(load(&[1, 2, 3]), Error::new(ErrorKind::ChunkLayout, 34));
        assert_eq!(load(&[0xfa, 0, 0, 0, 0, 0, 1]), Error::new(ErrorKind::FieldOutOfRange, 32));
    }
}
