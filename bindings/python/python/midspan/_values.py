"""Values that sessions give and take: headers, messages, sums."""

from dataclasses import dataclass
from typing import Optional, Tuple

__all__ = ["Cost", "Header", "Message", "QualityInfo", "SeekEntry", "Sent"]


@dataclass(frozen=True)
class Header:
    """What a stream says about itself before its first chunk (spec 2.2)."""

    fingerprint: bytes
    """The fingerprint of the model (spec 4.6), 32 bytes."""
    mode: str = "joined"
    """``"joined"`` or ``"layered"``."""
    binding: str = "byte_stream"
    """``"byte_stream"``, ``"message"``, or ``"file"``: a byte stream with a seek index after its end."""
    check: int = 1
    """Bytes of the check of every chunk of frames: 0, 1 or 2."""
    side: bool = False
    """Whether the stream's models take side indices (spec 6.12)."""
    quality: int = 0
    """The quality index at the start."""
    model_version: int = 0
    """The model's version; information only."""
    max_frames: int = 256
    """The most frames of a chunk: 1 to 2^20."""
    max_chunk_bytes: int = 1 << 22
    """The most bytes of a chunk's body: 72 to 2^30."""
    max_rewind: int = 0
    """The most frames that a rewind goes back: 0 to 2^20."""
    target_horizon: Optional[int] = None
    """The most frames that may wait for their target: 1 to 28,672. In joined mode ``None``."""
    length_offset: int = 0
    """The length offset at the start, 0 to 16,383 bytes (spec 2.3)."""
    identity: Optional[bytes] = None
    """Eight bytes that distinguish the stream from others; ``None`` if it has none."""
    host_digest: Optional[bytes] = None
    """SHA-256 that identifies the host model's weights (spec 4.7); ``None`` if the stream states none."""
    fields: Tuple[Tuple[int, bytes], ...] = ()
    """Optional fields, the identity left out: pairs of an even id and a value, in ascending order of id. Id 2 is the
    producer's name in UTF-8."""
    format_version: int = 1
    """1 in what an encoder writes. A reader takes, and a writer writes, 1 to 255."""


@dataclass(frozen=True)
class Message:
    """A message of the message binding, and what a transport must know about it (spec 2.4)."""

    data: bytes
    """The message, whole; never empty."""
    message_class: str
    """``"header"``: before all others, and without loss. ``"reliable"``: without loss, in order. ``"droppable"``: a
    target, for which a datagram is good enough; the receiver takes it with ``push_datagram``."""
    first_frame: int
    """Absolute index of the first frame that it holds, whole or in part."""
    end_frame: int
    """Absolute index after the last frame that it holds; ``first_frame`` if it holds none."""


@dataclass(frozen=True)
class QualityInfo:
    """What a model says about one of its qualities."""

    range_low: float
    """Hidden states from here ..."""
    range_high: float
    """... to here are never clamped, whatever the element. Of a model with a map before the quantiser this is a range of
    what the map gives."""
    rate_weight: float
    """Squared quantiser steps that an encoder gives for one bit (spec 6.8)."""
    expected_bits: Optional[float]
    """Mean bits of a frame's payloads (spec 4.4); ``None`` if the model does not say."""
    length_offset: int
    """The length offset that suits one frame a chunk, in bytes (spec 2.3)."""


@dataclass(frozen=True)
class Sent:
    """Sums over the frames that an encoder has sent, those that were rewound included."""

    frames: int
    w_values: int
    """Values of W."""
    y_values: int
    """Values of Y."""
    clipped: int
    """Values of Y that were outside the range of the quality and were clamped."""
    escaped: int
    """Values of W and of Y that their tables do not hold."""
    payload_bits: int
    """Bits of the payloads of W and of Y. Framing, checks and side indices are not counted."""
    compared_frames: int
    """Frames of which the model says how many bits it expects."""
    compared_bits: int
    """Those among ``payload_bits`` that are these frames'."""
    expected_bits: int
    """Bits that the model expects of these frames."""


@dataclass(frozen=True)
class Cost:
    """Bits of some frames by the frozen tables; no payload can be shorter."""

    hyper_prior: float
    """Bits of W."""
    target: float
    """Bits of Y given W."""


@dataclass(frozen=True)
class SeekEntry:
    """A place where a reader of a file may join (spec 2.10)."""

    frame: int
    """Absolute index of the next frame there."""
    offset: int
    """The offset of the chunk, in bytes."""
