//! Messages from the tail to the head: chosen tokens and, at the end, a report.
//!
//! They belong to this program and are not part of the format. A message is one tag byte, then the
//! body.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

use super::link::plainly;

const TOKEN: u8 = 1;
const REPORT: u8 = 2;
const FAILURE: u8 = 3;
/// A report or a failure is text of at most this many bytes, whatever the length of the stream.
const TEXT_MAX: usize = 1 << 14;

/// The report that the tail sends to the head when the stream has ended. Its size is constant.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct TailReport {
    /// SHA-256 over all decoded W as i16le, hexadecimal.
    pub w_sha256: String,
    /// SHA-256 over all decoded Y as i16le, hexadecimal.
    pub y_sha256: String,
    /// Frames decoded.
    pub frames: u64,
    /// Checkpoints and ends whose digests held.
    pub confirmed: u64,
    /// Median seconds spent in the decoder for a chunk of one frame; `None` if there was no such
    /// chunk.
    pub decode_seconds: Option<f64>,
}

/// A message from the tail.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum TailMessage {
    /// The next token's id.
    Token(u32),
    /// The stream has ended.
    Report(TailReport),
    /// The tail gave up, with one line that says why.
    Failure(String),
}

impl TailMessage {
    /// Writes the message.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let (tag, mut body) = match self {
            TailMessage::Token(token) => {
                let [a, b, c, d] = token.to_le_bytes();
                return out.write_all(&[TOKEN, a, b, c, d]);
            }
            TailMessage::Report(report) => (REPORT, serde_json::to_vec(report).map_err(io::Error::other)?),
            TailMessage::Failure(line) => (FAILURE, line.as_bytes().to_vec()),
        };
        if tag == FAILURE {
            body.truncate(TEXT_MAX);
        }
        let len = u32::try_from(body.len()).map_err(io::Error::other)?;
        // Written in one piece, so that it is sent in one piece.
        out.write_all(&[&[tag][..], &len.to_le_bytes(), &body].concat())
    }

    /// Reads the next message.
    ///
    /// # Errors
    /// Those of the connection; `InvalidData` if the bytes are not such a message.
    pub(super) fn read(input: &mut impl Read) -> io::Result<TailMessage> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_string());
        let mut tag = [0];
        input.read_exact(&mut tag).map_err(plainly)?;
        if ![TOKEN, REPORT, FAILURE].contains(&tag[0]) {
            return Err(invalid("the other side does not speak this program's return channel"));
        }
        let mut number = [0; 4];
        input.read_exact(&mut number).map_err(plainly)?;
        let number = u32::from_le_bytes(number);
        if tag[0] == TOKEN {
            return Ok(TailMessage::Token(number));
        }
        let length = usize::try_from(number).unwrap_or(usize::MAX);
        if length > TEXT_MAX {
            return Err(invalid("the other side sent a report that is too long"));
        }
        let mut body = vec![0; length];
        input.read_exact(&mut body).map_err(plainly)?;
        match tag[0] {
            REPORT => serde_json::from_slice(&body).map(TailMessage::Report).map_err(io::Error::other),
            _ => Ok(TailMessage::Failure(String::from_utf8_lossy(&body).into_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_were() {
        let report = TailReport { frames: 7, decode_seconds: Some(0.5), ..TailReport::default() };
        for message in [TailMessage::Token(70_000), TailMessage::Report(report), TailMessage::Failure("no".into())] {
            let mut bytes = Vec::new();
            message.write(&mut bytes).unwrap();
            assert_eq!(TailMessage::read(&mut bytes.as_slice()).unwrap(), message);
            bytes.pop();
            assert!(TailMessage::read(&mut bytes.as_slice()).is_err());
        }
    }

    #[test]
    fn a_long_failure_is_cut() {
        let mut bytes = Vec::new();
        TailMessage::Failure("x".repeat(1 << 20)).write(&mut bytes).unwrap();
        assert_eq!(TailMessage::read(&mut bytes.as_slice()).unwrap(), TailMessage::Failure("x".repeat(TEXT_MAX)));
    }

    #[test]
    fn a_huge_length_is_refused_before_memory_is_taken() {
        assert!(TailMessage::read(&mut [REPORT, 0xFF, 0xFF, 0xFF, 0xFF].as_slice()).is_err());
    }

    #[test]
    fn another_protocol_is_named_at_its_first_byte() {
        let error = TailMessage::read(&mut b"HTTP/1.1".as_slice()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
