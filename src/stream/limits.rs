//! Limits: the smaller of what the caller allows and the header declares (spec 7.2).

use crate::error::{Error, ErrorKind};
use crate::setters::setters;
use crate::wire::header::{MAX_CHUNK_BYTES, MAX_FRAMES, MAX_HORIZON, MAX_REWIND};
use crate::wire::{Mode, StreamHeader};

/// The most that a reader accepts.
///
/// A header that declares more is read all the same; what then exceeds a limit is refused when it comes ([HDR-9]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Limits {
    /// Frames of a chunk; 256 by default. This bounds output and computation, which a limit on bytes does not (spec
    /// 7.2, expansion).
    pub max_frames: u32,
    /// Bytes of a chunk's body; 4 MiB by default. A reader holds no more than this and the bytes pushed and not yet
    /// polled.
    pub max_chunk_bytes: u32,
    /// Frames that a rewind goes back; 1,024 by default.
    pub max_rewind: u32,
    /// Frames that may wait for their target; 1,024 by default. The reader passes it on; the decoder applies it
    /// ([DEC-14]).
    pub target_horizon: u32,
    /// Bytes of early targets that a decoder keeps until their hyper-prior comes, and bytes of datagrams that a reader
    /// holds until they are polled. Each may reach this limit, which includes the overhead of every chunk, with at most
    /// [`EARLY_CHUNKS`] chunks. The header does not declare it.
    pub early_bytes: u32,
}

/// The most early targets that a decoder keeps, and the most datagrams that a reader holds.
pub const EARLY_CHUNKS: usize = 4_096;

impl Limits {
    /// The largest values of the format.
    pub const FORMAT: Limits = Limits {
        max_frames: MAX_FRAMES,
        max_chunk_bytes: MAX_CHUNK_BYTES,
        max_rewind: MAX_REWIND,
        target_horizon: MAX_HORIZON,
        early_bytes: u32::MAX,
    };

    setters! {
        const
        max_frames: u32,
        max_chunk_bytes: u32,
        max_rewind: u32,
        target_horizon: u32,
        early_bytes: u32,
    }

    /// The limits that `header` declares; in joined mode no frame may wait for a target.
    #[must_use]
    pub fn declared(header: &StreamHeader) -> Limits {
        Limits {
            max_frames: header.max_frames,
            max_chunk_bytes: header.max_chunk_bytes,
            max_rewind: header.max_rewind,
            target_horizon: header.target_horizon.unwrap_or(0),
            early_bytes: u32::MAX,
        }
    }

    /// The same error. If it is about a limit, it now says whose: the header's, if that is exceeded too, otherwise the
    /// caller's. The caller's is a resource limit, not the stream's fault ([HDR-9]).
    pub(crate) fn attribute_limit(self, header: &StreamHeader, error: Error) -> Error {
        let declared = Limits::declared(header);
        let layered = header.mode == Mode::Layered;
        // [BATCH-1] In layered mode a frame count above the target horizon is refused too.
        let frames = |limits: Limits| match layered && limits.target_horizon < limits.max_frames {
            true => ("Limits::target_horizon", limits.target_horizon),
            false => ("Limits::max_frames", limits.max_frames),
        };
        let (own, declared) = match error.kind() {
            ErrorKind::ChunkTooLong => (("Limits::max_chunk_bytes", self.max_chunk_bytes), declared.max_chunk_bytes),
            ErrorKind::TooManyFrames => (frames(self), frames(declared).1),
            ErrorKind::RewindTooFar => (("Limits::max_rewind", self.max_rewind), declared.max_rewind),
            ErrorKind::TooManyCheckpoints => {
                // [DEC-18] One checkpoint more than the horizon has frames may wait.
                let most = |limits: Limits| limits.target_horizon.saturating_add(1);
                (("Limits::target_horizon", most(self)), most(declared))
            }
            _ => return error,
        };
        error.attribute_limit(own, declared)
    }

    /// The smaller of two, limit by limit.
    #[must_use]
    pub fn min(self, other: Limits) -> Limits {
        Limits {
            max_frames: self.max_frames.min(other.max_frames),
            max_chunk_bytes: self.max_chunk_bytes.min(other.max_chunk_bytes),
            max_rewind: self.max_rewind.min(other.max_rewind),
            target_horizon: self.target_horizon.min(other.target_horizon),
            early_bytes: self.early_bytes.min(other.early_bytes),
        }
    }
}

impl Default for Limits {
    /// For an untrusted peer (spec 7.2): 256 frames and 4 MiB per chunk, 1,024 frames of rewind and of horizon, 1 MiB
    /// of early targets. An encoder's defaults stay within these; if a stream needs more, raise a limit, up to
    /// [`Limits::FORMAT`].
    fn default() -> Limits {
        Limits {
            max_frames: 256,
            max_chunk_bytes: 1 << 22,
            max_rewind: 1_024,
            target_horizon: 1_024,
            early_bytes: 1 << 20,
        }
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
        let caller = Limits { max_frames: 20, max_chunk_bytes: 30, max_rewind: 50, target_horizon: 7, early_bytes: 9 };
        let expected =
            Limits { max_frames: 10, max_chunk_bytes: 30, max_rewind: 50, target_horizon: 0, early_bytes: 9 };
        assert_eq!(caller.min(Limits::declared(&header)), expected);
        assert_eq!(Limits::FORMAT.min(caller), caller);
    }
}
