"""What a poll of a container's reader gives: chunks, their places and their sizes (spec 2)."""

from dataclasses import dataclass
from typing import ClassVar, Literal, Optional, Tuple, Union

from ._values import Header, SeekEntry

__all__ = [
    "BatchChunk",
    "CheckpointChunk",
    "Chunk",
    "EndChunk",
    "ExactFrameChunk",
    "ExtensionChunk",
    "FooterChunk",
    "FrameChunk",
    "HeaderChunk",
    "ModelSwitchChunk",
    "OtherChunk",
    "Payload",
    "QualityChunk",
    "ResetChunk",
    "RewindChunk",
    "SeekIndexChunk",
    "SideIndicesChunk",
    "TargetChunk",
]


@dataclass(frozen=True)
class Payload:
    """Coded integers within a chunk. Without a model they say nothing."""

    data: bytes
    offset: int
    """The place of the first byte, from the first byte of the stream header."""


@dataclass(frozen=True)
class _Chunk:
    offset: int
    """The place of its leading byte, or of the message, from the first byte of the stream header."""
    body_offset: int
    """The place of its body."""
    wire_len: int
    """How many bytes it has in the stream; 0 for a datagram. Those of all chunks together are the stream's."""


@dataclass(frozen=True)
class HeaderChunk(_Chunk):
    """The stream header."""

    name: ClassVar[Literal["header"]] = "header"
    header: Header


@dataclass(frozen=True)
class FrameChunk(_Chunk):
    """One frame, joined or its hyper-prior."""

    name: ClassVar[Literal["frame"]] = "frame"
    index: int
    """Absolute index of the frame."""
    epoch: int
    """The epoch in which it was coded."""
    payload: Payload


@dataclass(frozen=True)
class BatchChunk(_Chunk):
    """A batch, joined or hyper-priors."""

    name: ClassVar[Literal["batch"]] = "batch"
    index: int
    """Absolute index of the first frame."""
    epoch: int
    """The epoch in which the frames were coded."""
    frames: int
    """Number of frames, 2 or more."""
    payloads: Tuple[Payload, ...]
    """One for each lane."""


@dataclass(frozen=True)
class TargetChunk(_Chunk):
    """A target of layered mode, or a part of one."""

    name: ClassVar[Literal["target"]] = "target"
    status: str
    """What is known without a model (spec 6.5): ``"usable"``, ``"early"``, ``"late"``, ``"damaged"`` or ``"no_room"``."""
    index: Optional[int]
    """Absolute index of the first frame; ``None`` if it is damaged or had no room."""
    epoch: Optional[int]
    """The epoch in which the frames were coded; ``None`` as with ``index``."""
    frames: int
    """Number of frames; 0 if it cannot be read."""
    elements: Optional[Tuple[int, int]]
    """The first element and that after the last, if it holds a part of one frame."""
    payloads: Tuple[Payload, ...]
    """One for each lane; none if it cannot be read."""


@dataclass(frozen=True)
class CheckpointChunk(_Chunk):
    """A checkpoint."""

    name: ClassVar[Literal["checkpoint"]] = "checkpoint"
    index: int
    """Absolute index of the next frame."""
    digest_w: int
    digest_y: int


@dataclass(frozen=True)
class ResetChunk(_Chunk):
    """A context reset."""

    name: ClassVar[Literal["reset"]] = "reset"
    index: int
    """Absolute index of the next frame."""
    epoch: int
    """The epoch that begins."""
    fingerprint_prefix: bytes
    """The first eight bytes of the model's fingerprint."""
    quality: int
    length_offset: int
    digest_w: int
    digest_y: int


@dataclass(frozen=True)
class RewindChunk(_Chunk):
    """A rewind."""

    name: ClassVar[Literal["rewind"]] = "rewind"
    index: int
    """Absolute index of the next frame."""


@dataclass(frozen=True)
class QualityChunk(_Chunk):
    """A quality switch."""

    name: ClassVar[Literal["quality"]] = "quality"
    quality: int
    length_offset: int


@dataclass(frozen=True)
class ModelSwitchChunk(_Chunk):
    """A model switch."""

    name: ClassVar[Literal["model"]] = "model"
    index: int
    """Absolute index of the next frame."""
    epoch: int
    """The epoch that begins."""
    fingerprint: bytes
    """The model's fingerprint, 32 bytes."""
    model_version: int
    """Information only."""
    quality: int
    length_offset: int
    digest_w: int
    digest_y: int


@dataclass(frozen=True)
class ExactFrameChunk(_Chunk):
    """A frame with its exact hidden state."""

    name: ClassVar[Literal["exact"]] = "exact"
    index: int
    """Absolute index of the frame."""
    epoch: int
    """The epoch in which it was coded."""
    dtype: str
    """The type of the exact values: ``"f32"``, ``"f16"`` or ``"bf16"``."""
    payload: Payload
    data: bytes
    """The exact hidden state, little-endian values."""


@dataclass(frozen=True)
class SideIndicesChunk(_Chunk):
    """Side indices of the next frames."""

    name: ClassVar[Literal["side_indices"]] = "side_indices"
    index: int
    """Absolute index of the first of these frames."""
    frames: int
    """Number of frames."""
    payload: Payload


@dataclass(frozen=True)
class ExtensionChunk(_Chunk):
    """An ignorable extension."""

    name: ClassVar[Literal["extension"]] = "extension"
    id: int
    data: bytes


@dataclass(frozen=True)
class EndChunk(_Chunk):
    """The end."""

    name: ClassVar[Literal["end"]] = "end"
    index: int
    """Absolute index after the last frame."""
    frames_coded: int
    """Frames coded, rewound ones included."""
    digest_w: int
    digest_y: int


@dataclass(frozen=True)
class SeekIndexChunk(_Chunk):
    """The seek index of a file."""

    name: ClassVar[Literal["seek_index"]] = "seek_index"
    entries: Tuple[SeekEntry, ...]
    """Places to join, ascending."""


@dataclass(frozen=True)
class FooterChunk(_Chunk):
    """The footer of a file."""

    name: ClassVar[Literal["footer"]] = "footer"


@dataclass(frozen=True)
class OtherChunk(_Chunk):
    """A chunk that this version of the package has no name for. Skip it."""

    name: ClassVar[Literal["other"]] = "other"


Chunk = Union[
    HeaderChunk,
    FrameChunk,
    BatchChunk,
    TargetChunk,
    CheckpointChunk,
    ResetChunk,
    RewindChunk,
    QualityChunk,
    ModelSwitchChunk,
    ExactFrameChunk,
    SideIndicesChunk,
    ExtensionChunk,
    EndChunk,
    SeekIndexChunk,
    FooterChunk,
    OtherChunk,
]
