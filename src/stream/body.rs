//! Reads bodies of whole chunks, judges them by what the sequence knows, and advances the sequence.

use bytes::Bytes;

use super::event::{Chunk, TargetStatus};
use super::sequence::Sequence;
use crate::error::{Error, ErrorKind};
use crate::wire::reset::Expected;
use crate::wire::{
    Batch, Checkpoint, End, ExactFrame, Extension, Frame, Kind, ModelSwitch, OpenCheck, Payload, Quality, Reset,
    Rewind, SideIndices, Target,
};

/// Reads the first chunk of a reader that joins. It sets the position; its index must be `index`, if that is given
/// ([FILE-3]).
pub(super) fn join(sequence: &mut Sequence, kind: Kind, body: &Bytes, index: Option<u64>) -> Result<Chunk, Error> {
    // [CTRL-3] A reader that joins here takes them over (6.6).
    let expected = Expected { index, epoch: None, fingerprint_prefix: None };
    if kind == Kind::Reset {
        let reset = Reset::load(body, expected, sequence.seed())?;
        sequence.join(reset.index, reset.epoch);
        sequence.take_reset(&reset);
        return Ok(Chunk::Reset(reset));
    }
    let switch = ModelSwitch::load(body, expected, sequence.seed())?;
    sequence.join(switch.index, switch.epoch);
    sequence.take_model_switch(&switch);
    Ok(Chunk::ModelSwitch(switch))
}

/// Reads a body by its kind, judges it by what the sequence knows, and advances the sequence. Offsets of errors and
/// payloads count from the start of the body.
pub(super) fn take(sequence: &mut Sequence, kind: Kind, body: &Bytes) -> Result<Chunk, Error> {
    let scope = sequence.scope();
    let (index, epoch, seed) = (scope.index, scope.epoch, scope.seed);
    let max_frames = sequence.limits().max_frames;
    Ok(match kind {
        Kind::Frame => {
            let Frame { payload, check } = Frame::load(body, scope)?;
            sequence.take_frames(1, false)?;
            Chunk::Frame { index, epoch, payload, check }
        }
        Kind::Batch => {
            let Batch { frames, lanes, check } = Batch::load(body, scope, max_frames)?;
            sequence.take_frames(frames, false)?;
            Chunk::Batch { index, epoch, frames, lanes, check }
        }
        Kind::Target | Kind::TargetBatch => target(sequence, index, kind, body),
        Kind::Checkpoint => Chunk::Checkpoint(Checkpoint::load(body, index, seed)?),
        Kind::Reset => {
            let reset = Reset::load(body, sequence.expected_reset(), seed)?;
            sequence.take_reset(&reset);
            Chunk::Reset(reset)
        }
        Kind::Rewind => {
            let rewind = Rewind::load(body, sequence.reach(), seed)?;
            sequence.take_rewind(rewind.index);
            Chunk::Rewind(rewind)
        }
        Kind::Quality => {
            let quality = Quality::load(body, seed)?;
            sequence.take_quality(quality);
            Chunk::Quality(quality)
        }
        Kind::ModelSwitch => {
            let switch = ModelSwitch::load(body, sequence.expected_reset(), seed)?;
            sequence.take_model_switch(&switch);
            Chunk::ModelSwitch(switch)
        }
        Kind::ExactFrame => {
            let ExactFrame { dtype, payload, hidden, check } = ExactFrame::load(body, scope)?;
            sequence.take_frames(1, true)?;
            Chunk::ExactFrame { index, epoch, dtype, payload, hidden, check }
        }
        Kind::End => {
            let end = End::load(body, index, sequence.frames_coded(), seed)?;
            sequence.take_end();
            Chunk::End(end)
        }
        Kind::SeekIndex => return Err(Error::new(ErrorKind::SeekIndexMisplaced, 0)),
        Kind::SideIndices => {
            let SideIndices { count, payload } = SideIndices::load(body, sequence.max_side(), seed)?;
            sequence.take_side(count)?;
            Chunk::SideIndices { index, count, payload }
        }
        Kind::Ignorable | Kind::Critical => Chunk::Extension(Extension::load(body, kind, seed)?),
    })
}

/// Reads a target and says whether it can be used (spec 6.5). [CHECK-2] In C2 and C3 a check that differs, and any
/// other fault in the body, makes the chunk damaged. `next` is the index of the next frame.
pub(super) fn target(sequence: &Sequence, next: u64, kind: Kind, body: &Bytes) -> Chunk {
    let Ok(target) = Target::load(body, kind, sequence.limits().max_frames) else {
        return no_target(TargetStatus::Damaged);
    };
    let status = match sequence.resolve_target_at(next, target.index_low, target.epoch_low) {
        Some((index, epoch)) if target.check_holds(index, epoch, sequence.seed()) => {
            sequence.target_status_at(next, index, epoch, target.frames)
        }
        _ => TargetStatus::Damaged,
    };
    Chunk::Target { frames: target.frames, elements: target.elements, lanes: target.lanes, status }
}

/// The chunk for bytes that cannot be read as a target.
pub(super) fn no_target(status: TargetStatus) -> Chunk {
    Chunk::Target { frames: 0, elements: None, lanes: Vec::new(), status }
}

/// Makes payload offsets count from the first byte of the stream header.
pub(super) fn absolute(chunk: Chunk, base: u64) -> Chunk {
    let lane = |payload: Payload| payload.shifted(base);
    let open = |check: Option<OpenCheck>| check.map(|check| check.shifted(base));
    match chunk {
        Chunk::Frame { index, epoch, payload, check } => {
            Chunk::Frame { index, epoch, payload: lane(payload), check: open(check) }
        }
        Chunk::Batch { index, epoch, frames, lanes, check } => {
            Chunk::Batch { index, epoch, frames, lanes: lanes.into_iter().map(lane).collect(), check: open(check) }
        }
        Chunk::Target { frames, elements, lanes, status } => {
            let lanes = lanes.into_iter().map(lane).collect();
            Chunk::Target { frames, elements, lanes, status }
        }
        Chunk::ExactFrame { index, epoch, dtype, payload, hidden, check } => {
            let (payload, hidden, check) = (lane(payload), lane(hidden), open(check));
            Chunk::ExactFrame { index, epoch, dtype, payload, hidden, check }
        }
        Chunk::SideIndices { index, count, payload } => Chunk::SideIndices { index, count, payload: lane(payload) },
        other => other,
    }
}
