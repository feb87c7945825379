//! Settings that encoders, decoders and the container share, and the numbers of their enumerations.

use midspan::stream::{Binding, Limits};
use midspan::wire::{CheckWidth, Dtype, Mode};

use crate::result::{Failure, Reason};

/// How the integers of a frame are coded (spec 6.1, 6.5).
pub type midspan_mode = u32;

/// The hyper-prior W and the target Y of a frame are sent together.
pub const MIDSPAN_MODE_JOINED: midspan_mode = 0;
/// W and Y are sent in separate chunks; those of Y may be lost.
pub const MIDSPAN_MODE_LAYERED: midspan_mode = 1;

/// Who delimits the chunks of a stream (spec 2.1).
pub type midspan_binding = u32;

/// The stream itself: bytes that may be cut anywhere.
pub const MIDSPAN_BINDING_BYTE_STREAM: midspan_binding = 0;
/// The transport, which delivers each message whole.
pub const MIDSPAN_BINDING_MESSAGE: midspan_binding = 1;
/// A byte stream with a seek index after its end (spec 2.10). Readers and decoders take it as a byte stream.
pub const MIDSPAN_BINDING_FILE: midspan_binding = 2;

/// The check of every chunk of frames (spec 2.5).
pub type midspan_check = u32;

/// None: damage shows only at the next checkpoint, after wrong frames were handed out. Only for transports that detect
/// damage themselves (TLS, QUIC).
pub const MIDSPAN_CHECK_NONE: midspan_check = 0;
/// Eight bits a chunk.
pub const MIDSPAN_CHECK_ONE: midspan_check = 1;
/// Sixteen bits a chunk.
pub const MIDSPAN_CHECK_TWO: midspan_check = 2;

/// What an encoder does with values more than half a step outside the range of the quality (spec 6.8).
pub type midspan_clipping = u32;

/// It clamps and counts them.
pub const MIDSPAN_CLIPPING_REPORT: midspan_clipping = 0;
/// It refuses the push (MIDSPAN_ERROR_HIDDEN_CLIPPED); nothing changes.
pub const MIDSPAN_CLIPPING_REFUSE: midspan_clipping = 1;

/// Where the decoder has the side indices of some frames from (spec 6.12).
pub type midspan_side_delivery = u32;

/// From its own caller (`midspan_decoder_give_side`): they take no bytes.
pub const MIDSPAN_SIDE_KNOWN: midspan_side_delivery = 0;
/// From the stream, ahead of their frames.
pub const MIDSPAN_SIDE_SENT: midspan_side_delivery = 1;

/// The type of the values of an exact frame's hidden state (spec 6.9), all little-endian.
pub type midspan_dtype = u32;

/// IEEE 754 binary32, four bytes.
pub const MIDSPAN_DTYPE_F32: midspan_dtype = 0;
/// IEEE 754 binary16, two bytes.
pub const MIDSPAN_DTYPE_F16: midspan_dtype = 1;
/// bfloat16, two bytes.
pub const MIDSPAN_DTYPE_BF16: midspan_dtype = 2;

/// The most that a reader or decoder accepts from a peer (spec 7.2). A header that declares more is read all the same;
/// what then exceeds a limit is refused when it comes.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct midspan_limits {
    /// Frames of a chunk; 256 by default, 2^20 at most.
    pub max_frames: u32,
    /// Bytes of a chunk's body; 4 MiB by default, 2^30 at most.
    pub max_chunk_bytes: u32,
    /// Frames that a rewind goes back; 1,024 by default, 2^20 at most.
    pub max_rewind: u32,
    /// Frames that may wait for their target; 1,024 by default, 28,672 at most.
    pub target_horizon: u32,
    /// Bytes of early targets that a decoder keeps, and of datagrams that wait to be polled; 1 MiB by default.
    pub early_bytes: u32,
}

impl midspan_limits {
    pub(crate) fn new(limits: Limits) -> Self {
        let Limits { max_frames, max_chunk_bytes, max_rewind, target_horizon, early_bytes, .. } = limits;
        Self { max_frames, max_chunk_bytes, max_rewind, target_horizon, early_bytes }
    }

    pub(crate) fn limits(self) -> Limits {
        Limits::default()
            .max_frames(self.max_frames)
            .max_chunk_bytes(self.max_chunk_bytes)
            .max_rewind(self.max_rewind)
            .target_horizon(self.target_horizon)
            .early_bytes(self.early_bytes)
    }
}

fn unknown(name: &'static str, found: u32) -> Failure {
    Failure::Argument(name, Reason::Unknown(found))
}

pub(crate) fn mode(number: midspan_mode) -> Result<Mode, Failure> {
    match number {
        MIDSPAN_MODE_JOINED => Ok(Mode::Joined),
        MIDSPAN_MODE_LAYERED => Ok(Mode::Layered),
        found => Err(unknown("mode", found)),
    }
}

pub(crate) fn mode_number(mode: Mode) -> midspan_mode {
    match mode {
        Mode::Joined => MIDSPAN_MODE_JOINED,
        Mode::Layered => MIDSPAN_MODE_LAYERED,
    }
}

/// The binding, and whether it is the file binding.
pub(crate) fn binding(number: midspan_binding) -> Result<(Binding, bool), Failure> {
    match number {
        MIDSPAN_BINDING_BYTE_STREAM => Ok((Binding::ByteStream, false)),
        MIDSPAN_BINDING_MESSAGE => Ok((Binding::Message, false)),
        MIDSPAN_BINDING_FILE => Ok((Binding::ByteStream, true)),
        found => Err(unknown("binding", found)),
    }
}

pub(crate) fn binding_number(binding: Binding, file: bool) -> midspan_binding {
    match binding {
        Binding::ByteStream if file => MIDSPAN_BINDING_FILE,
        Binding::ByteStream => MIDSPAN_BINDING_BYTE_STREAM,
        Binding::Message => MIDSPAN_BINDING_MESSAGE,
    }
}

pub(crate) fn check(number: midspan_check) -> Result<CheckWidth, Failure> {
    match number {
        MIDSPAN_CHECK_NONE => Ok(CheckWidth::None),
        MIDSPAN_CHECK_ONE => Ok(CheckWidth::One),
        MIDSPAN_CHECK_TWO => Ok(CheckWidth::Two),
        found => Err(unknown("check", found)),
    }
}

pub(crate) fn check_number(check: CheckWidth) -> midspan_check {
    match check {
        CheckWidth::None => MIDSPAN_CHECK_NONE,
        CheckWidth::One => MIDSPAN_CHECK_ONE,
        CheckWidth::Two => MIDSPAN_CHECK_TWO,
    }
}

pub(crate) fn clipping(number: midspan_clipping) -> Result<midspan::codec::Clipping, Failure> {
    match number {
        MIDSPAN_CLIPPING_REPORT => Ok(midspan::codec::Clipping::Report),
        MIDSPAN_CLIPPING_REFUSE => Ok(midspan::codec::Clipping::Refuse),
        found => Err(unknown("clipping", found)),
    }
}

pub(crate) fn delivery(number: midspan_side_delivery) -> Result<midspan::codec::SideDelivery, Failure> {
    match number {
        MIDSPAN_SIDE_KNOWN => Ok(midspan::codec::SideDelivery::Known),
        MIDSPAN_SIDE_SENT => Ok(midspan::codec::SideDelivery::Sent),
        found => Err(unknown("delivery", found)),
    }
}

pub(crate) fn dtype(number: midspan_dtype) -> Result<Dtype, Failure> {
    match number {
        MIDSPAN_DTYPE_F32 => Ok(Dtype::F32),
        MIDSPAN_DTYPE_F16 => Ok(Dtype::F16),
        MIDSPAN_DTYPE_BF16 => Ok(Dtype::Bf16),
        found => Err(unknown("dtype", found)),
    }
}

pub(crate) fn dtype_number(dtype: Dtype) -> midspan_dtype {
    match dtype {
        Dtype::F32 => MIDSPAN_DTYPE_F32,
        Dtype::F16 => MIDSPAN_DTYPE_F16,
        Dtype::Bf16 => MIDSPAN_DTYPE_BF16,
    }
}
