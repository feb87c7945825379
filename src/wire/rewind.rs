//! The rewind C6 (spec 2.8): goes back to an earlier frame, as speculative decoding does.

use bytes::BytesMut;

use super::check;
use super::identity::Seed;
use super::input;
use super::kind::Kind;
use super::varint;
use crate::error::{Detail, Error, ErrorKind, Limit};

/// The body of a rewind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rewind {
    /// The absolute index that the next frame will have.
    pub index: u64,
}

/// How far back a rewind may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    /// S, the absolute index where the context began.
    pub start: u64,
    /// The absolute index of the next frame.
    pub next: u64,
    /// H, the largest index of the next frame since the context began.
    pub high: u64,
    /// The limit on H − index.
    pub max_rewind: u32,
}

impl Reach {
    /// Checks that a rewind to `index` is allowed.
    ///
    /// # Errors
    /// [`ErrorKind::RewindTarget`], [`ErrorKind::RewindTooFar`], both at offset 0, the index.
    pub fn judge(&self, index: u64) -> Result<(), Error> {
        // [CTRL-4] The rewind index MUST satisfy S ≤ index < index of the next frame (error 407) and
        // H − index ≤ max rewind (error 408).
        if index < self.start || index >= self.next {
            let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
            let (low, high) = (signed(self.start), signed(self.next).saturating_sub(1));
            let what =
                if low > high { "index to go back to, where there is no frame yet" } else { "index to go back to" };
            let detail = Detail::Range { what, low, high, found: signed(index) };
            return Err(Error::new(ErrorKind::RewindTarget, 0).with(detail));
        }
        let (most, found) = (u64::from(self.max_rewind), self.high.saturating_sub(index));
        if found > most {
            // The layer above says whether it was the header's limit or its own.
            let detail = Detail::Limit { what: "frames back", limit: Limit::Declared, most, found };
            return Err(Error::new(ErrorKind::RewindTooFar, 0).with(detail));
        }
        Ok(())
    }
}

impl Rewind {
    /// Reads a body.
    ///
    /// # Errors
    /// [`ErrorKind::ControlCrcMismatch`], those of [`Reach::judge`], [`ErrorKind::ChunkLayout`], and those of a
    /// varint.
    pub fn load(body: &[u8], reach: Reach, seed: Seed) -> Result<Rewind, Error> {
        let fields = check::control_fields(Kind::Rewind, seed, body)?;
        input::whole(fields, ErrorKind::ChunkLayout, |input| {
            let (rest, index) = input::varint(input)?;
            match reach.judge(index) {
                Ok(()) => Ok((rest, Rewind { index })),
                Err(error) => input::forward(error, input),
            }
        })
    }

    /// Appends a body.
    ///
    /// # Errors
    /// [`ErrorKind::FieldOutOfRange`] for an index above 2^56 − 1.
    pub fn encode(&self, seed: Seed, out: &mut BytesMut) -> Result<(), Error> {
        let start = out.len();
        varint::encode(self.index, out)?;
        check::encode_control_crc(Kind::Rewind, seed, start, out);
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

    const REACH: Reach = Reach { start: 10, next: 20, high: 25, max_rewind: 12 };

    #[test]
    fn an_annotated_rewind() {
        let mut out = BytesMut::new();
        Rewind { index: 15 }.encode(Seed::NONE, &mut out).unwrap();
        assert_eq!(out[..1], [15]);
        assert_eq!(out[1..], crc32fast::hash(&[0xc6, 15]).to_le_bytes());
        assert_eq!(Rewind::load(&out, REACH, Seed::NONE), Ok(Rewind { index: 15 }));
    }

    #[test]
    fn its_reach() {
        for (index, outcome) in [
            (9, Err(ErrorKind::RewindTarget)),
            (10, Err(ErrorKind::RewindTooFar)), // 25 − 10 = 15
            (12, Err(ErrorKind::RewindTooFar)),
            (13, Ok(())), // 25 − 13 = 12
            (19, Ok(())),
            (20, Err(ErrorKind::RewindTarget)),
            (21, Err(ErrorKind::RewindTarget)),
        ] {
            let mut out = BytesMut::new();
            Rewind { index }.encode(Seed::NONE, &mut out).unwrap();
            let expected = outcome.map(|()| Rewind { index }).map_err(|kind| Error::new(kind, 0));
            assert_eq!(Rewind::load(&out, REACH, Seed::NONE), expected, "{index}");
        }
    }

    #[test]
    fn bytes_behind_the_index() {
        let mut out = BytesMut::from(&[15, 0][..]);
        check::encode_control_crc(Kind::Rewind, Seed::NONE, 0, &mut out);
        assert_eq!(Rewind::load(&out, REACH, Seed::NONE), Err(Error::new(ErrorKind::ChunkLayout, 1)));
    }
}
