//! What goes back from the tail to the head: chosen tokens and, at the end, a report.
//!
//! This is the program's own affair and no part of the format: one tag byte, then the body.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};

const TOKEN: u8 = 1;
const REPORT: u8 = 2;
const FAILURE: u8 = 3;
/// A report or a failure is text of at most this many bytes.
const TEXT_MAX: u32 = 1 << 20;

/// What the tail tells the head when the stream has ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TailReport {
    /// SHA-256 over all decoded W as i16le, hexadecimal.
    pub w_sha256: String,
    /// SHA-256 over all decoded Y as i16le, hexadecimal.
    pub y_sha256: String,
    /// Frames decoded.
    pub frames: u64,
    /// Checkpoints and ends whose digests held.
    pub confirmed: u64,
    /// Seconds spent in the decoder, frame by frame for one-frame chunks.
    pub decode_seconds: Vec<f64>,
    /// Seconds spent in the decoder for the prompt's batch.
    pub prompt_decode_seconds: f64,
}

/// A message from the tail.
#[derive(Clone, Debug, PartialEq)]
pub enum Back {
    /// The next token's id.
    Token(u32),
    /// The stream has ended.
    Report(TailReport),
    /// The tail gave up; one line.
    Failure(String),
}

impl Back {
    /// Writes the message.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let (tag, body) = match self {
            Back::Token(token) => {
                let [a, b, c, d] = token.to_le_bytes();
                return out.write_all(&[TOKEN, a, b, c, d]);
            }
            Back::Report(report) => (REPORT, serde_json::to_vec(report).map_err(io::Error::other)?),
            Back::Failure(line) => (FAILURE, line.as_bytes().to_vec()),
        };
        let len = u32::try_from(body.len()).map_err(io::Error::other)?;
        out.write_all(&[tag])?;
        out.write_all(&len.to_le_bytes())?;
        out.write_all(&body)
    }

    /// Reads the next message.
    ///
    /// # Errors
    /// Those of the connection; `InvalidData` for what is no such message.
    pub fn read(input: &mut impl Read) -> io::Result<Back> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_string());
        let mut tag = [0];
        read_exact(input, &mut tag)?;
        if ![TOKEN, REPORT, FAILURE].contains(&tag[0]) {
            return Err(invalid("the other side does not speak this program's return channel"));
        }
        let mut number = [0; 4];
        read_exact(input, &mut number)?;
        let number = u32::from_le_bytes(number);
        if tag[0] == TOKEN {
            return Ok(Back::Token(number));
        }
        if number > TEXT_MAX {
            return Err(invalid("the other side sent a report that is too long"));
        }
        let mut body = vec![0; number as usize];
        read_exact(input, &mut body)?;
        match tag[0] {
            REPORT => serde_json::from_slice(&body).map(Back::Report).map_err(io::Error::other),
            _ => Ok(Back::Failure(String::from_utf8_lossy(&body).into_owned())),
        }
    }
}

fn read_exact(input: &mut impl Read, bytes: &mut [u8]) -> io::Result<()> {
    input.read_exact(bytes).map_err(plainly)
}

/// The same error; an end of input and a timeout in plain words.
pub fn plainly(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "it closed the connection"),
        // Which of them a timeout gives depends on the system.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            io::Error::new(io::ErrorKind::TimedOut, "it has been silent for longer than --timeout")
        }
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_were() {
        let report = TailReport { frames: 7, decode_seconds: vec![0.5], ..TailReport::default() };
        for message in [Back::Token(70_000), Back::Report(report), Back::Failure("no".into())] {
            let mut bytes = Vec::new();
            message.write(&mut bytes).unwrap();
            assert_eq!(Back::read(&mut bytes.as_slice()).unwrap(), message);
            bytes.pop();
            assert!(Back::read(&mut bytes.as_slice()).is_err());
        }
    }

    #[test]
    fn a_huge_length_is_refused_before_memory_is_taken() {
        assert!(Back::read(&mut [REPORT, 0xFF, 0xFF, 0xFF, 0xFF].as_slice()).is_err());
    }

    #[test]
    fn another_protocol_is_named_at_its_first_byte() {
        let error = Back::read(&mut b"HTTP/1.1".as_slice()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
