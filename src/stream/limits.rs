//! Limits: the smaller of what the caller allows and what the header declares (spec 7.2).

use crate::wire::StreamHeader;
use crate::wire::header::{MAX_CHUNK_BYTES, MAX_FRAMES, MAX_HORIZON, MAX_REWIND};

/// What a reader takes up at most.
///
/// A header that declares more is read all the same; what then exceeds a limit is refused where it stands ([HDR-9]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limits {
    /// Frames of a chunk. This bounds output and computation, which bytes do not (spec 7.2, expansion).
    pub max_frames: u32,
    /// Bytes of a chunk's body: with the bytes pushed and not yet polled, all that a reader holds.
    pub max_chunk_bytes: u32,
    /// Frames that a rewind goes back.
    pub max_rewind: u32,
    /// Frames that may wait for their target. The reader hands it on; the decoder keeps it ([DEC-14]).
    pub target_horizon: u32,
}

impl Limits {
    /// The largest values of the format.
    pub const FORMAT: Limits = Limits {
        max_frames: MAX_FRAMES,
        max_chunk_bytes: MAX_CHUNK_BYTES,
        max_rewind: MAX_REWIND,
        target_horizon: MAX_HORIZON,
    };

    /// The limits that `header` declares; in joined mode no frame may wait for a target.
    #[must_use]
    pub fn declared(header: &StreamHeader) -> Limits {
        Limits {
            max_frames: header.max_frames,
            max_chunk_bytes: header.max_chunk_bytes,
            max_rewind: header.max_rewind,
            target_horizon: header.target_horizon.unwrap_or(0),
        }
    }

    /// The smaller of two, limit by limit.
    #[must_use]
    pub fn min(self, other: Limits) -> Limits {
        Limits {
            max_frames: self.max_frames.min(other.max_frames),
            max_chunk_bytes: self.max_chunk_bytes.min(other.max_chunk_bytes),
            max_rewind: self.max_rewind.min(other.max_rewind),
            target_horizon: self.target_horizon.min(other.target_horizon),
        }
    }
}

impl Default for Limits {
    /// Generous for one stream of a trusted peer: 65,536 frames and 64 MiB a chunk, 65,536 frames of rewind and of
    /// horizon. A server that counts what a request may cost sets less.
    fn default() -> Limits {
        Limits { max_frames: 1 << 16, max_chunk_bytes: 1 << 26, max_rewind: 1 << 16, target_horizon: MAX_HORIZON }
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
    fn the_smaller_one_holds() {
        let header = StreamHeader { max_frames: 10, max_rewind: 100, ..StreamHeader::new([0; 32]) };
        let caller = Limits { max_frames: 20, max_chunk_bytes: 30, max_rewind: 50, target_horizon: 7 };
        let expected = Limits { max_frames: 10, max_chunk_bytes: 30, max_rewind: 50, target_horizon: 0 };
        assert_eq!(caller.min(Limits::declared(&header)), expected);
        assert_eq!(Limits::FORMAT.min(caller), caller);
    }
}
