//! Settings that sessions share, and the names of their values.

use midspan::codec::{Clipping, SideDelivery};
use midspan::stream::{Binding, Limits, MessageClass, TargetStatus};
use midspan::wire::{CheckWidth, Dtype, Identity, Mode, OptionalField};

use crate::error::Failure;

fn unknown(name: &str, found: &str, wanted: &str) -> Failure {
    Failure::Argument(format!("{name} is {found:?}, not {wanted}"))
}

pub(crate) fn mode(text: &str) -> Result<Mode, Failure> {
    match text {
        "joined" => Ok(Mode::Joined),
        "layered" => Ok(Mode::Layered),
        found => Err(unknown("mode", found, "\"joined\" or \"layered\"")),
    }
}

pub(crate) const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Joined => "joined",
        Mode::Layered => "layered",
    }
}

/// The binding, and whether it is the file binding.
pub(crate) fn binding(text: &str) -> Result<(Binding, bool), Failure> {
    match text {
        "byteStream" => Ok((Binding::ByteStream, false)),
        "message" => Ok((Binding::Message, false)),
        "file" => Ok((Binding::ByteStream, true)),
        found => Err(unknown("binding", found, "\"byteStream\", \"message\" or \"file\"")),
    }
}

pub(crate) const fn binding_name(binding: Binding, file: bool) -> &'static str {
    match binding {
        Binding::ByteStream if file => "file",
        Binding::ByteStream => "byteStream",
        Binding::Message => "message",
    }
}

pub(crate) fn check(bytes: u32) -> Result<CheckWidth, Failure> {
    match bytes {
        0 => Ok(CheckWidth::None),
        1 => Ok(CheckWidth::One),
        2 => Ok(CheckWidth::Two),
        found => Err(Failure::Argument(format!("check is {found}, not 0, 1 or 2"))),
    }
}

pub(crate) fn clipping(text: &str) -> Result<Clipping, Failure> {
    match text {
        "report" => Ok(Clipping::Report),
        "refuse" => Ok(Clipping::Refuse),
        found => Err(unknown("clipping", found, "\"report\" or \"refuse\"")),
    }
}

pub(crate) fn delivery(text: &str) -> Result<SideDelivery, Failure> {
    match text {
        "known" => Ok(SideDelivery::Known),
        "sent" => Ok(SideDelivery::Sent),
        found => Err(unknown("delivery", found, "\"known\" or \"sent\"")),
    }
}

pub(crate) fn dtype(text: &str) -> Result<Dtype, Failure> {
    match text {
        "f32" => Ok(Dtype::F32),
        "f16" => Ok(Dtype::F16),
        "bf16" => Ok(Dtype::Bf16),
        found => Err(unknown("dtype", found, "\"f32\", \"f16\" or \"bf16\"")),
    }
}

pub(crate) const fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F32 => "f32",
        Dtype::F16 => "f16",
        Dtype::Bf16 => "bf16",
    }
}

pub(crate) const fn class_name(class: MessageClass) -> &'static str {
    match class {
        MessageClass::Header => "header",
        MessageClass::Reliable => "reliable",
        MessageClass::Droppable => "droppable",
    }
}

/// The name of a target's status, and its index and epoch where it names them.
pub(crate) const fn status(status: TargetStatus) -> (&'static str, Option<(u64, u32)>) {
    match status {
        TargetStatus::Usable { index, epoch } => ("usable", Some((index, epoch))),
        TargetStatus::Early { index, epoch } => ("early", Some((index, epoch))),
        TargetStatus::Late { index, epoch } => ("late", Some((index, epoch))),
        TargetStatus::Damaged => ("damaged", None),
        TargetStatus::NoRoom => ("noRoom", None),
    }
}

/// An identity of eight bytes, or none for no bytes.
pub(crate) fn identity(bytes: &[u8]) -> Result<Identity, Failure> {
    match <[u8; 8]>::try_from(bytes) {
        Ok(bytes) => Ok(Identity::new(bytes)),
        Err(_) if bytes.is_empty() => Ok(Identity::none()),
        Err(_) => Err(Failure::Argument(format!("identity has {} bytes, not 8 or none", bytes.len()))),
    }
}

/// A SHA-256 of this name.
pub(crate) fn digest(name: &str, bytes: &[u8]) -> Result<[u8; 32], Failure> {
    <[u8; 32]>::try_from(bytes).map_err(|_| Failure::Argument(format!("{name} has {} bytes, not 32", bytes.len())))
}

pub(crate) fn optional_digest(name: &str, bytes: Option<&[u8]>) -> Result<Option<[u8; 32]>, Failure> {
    bytes.map(|bytes| digest(name, bytes)).transpose()
}

/// Optional fields of a stream header: an id for each value.
pub(crate) fn fields(ids: &[u32], values: Vec<Vec<u8>>) -> Vec<OptionalField> {
    ids.iter().zip(values).map(|(id, value)| OptionalField { id: *id, value: value.into() }).collect()
}

pub(crate) fn limits(
    max_frames: u32,
    max_chunk_bytes: u32,
    max_rewind: u32,
    target_horizon: u32,
    early_bytes: u32,
) -> Limits {
    Limits::default()
        .max_frames(max_frames)
        .max_chunk_bytes(max_chunk_bytes)
        .max_rewind(max_rewind)
        .target_horizon(target_horizon)
        .early_bytes(early_bytes)
}
