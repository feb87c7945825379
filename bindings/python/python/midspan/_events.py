"""What a poll of a decoder gives (spec 6.10). Hidden states are float32, W and Y int16, row by row."""

from dataclasses import dataclass
from typing import ClassVar, Literal, Optional, Union

import numpy
from numpy.typing import NDArray

from ._values import Header

__all__ = [
    "End",
    "Ended",
    "Event",
    "ExactFrame",
    "Extension",
    "Frames",
    "HyperPrior",
    "Model",
    "NeedMore",
    "Opened",
    "Other",
    "Quality",
    "Reset",
    "Rewound",
    "SideIndices",
    "SideWanted",
    "TargetEarly",
    "TargetPart",
    "TargetRefused",
    "Targets",
    "TargetsDropped",
    "TargetsOverdue",
    "Verdict",
    "Working",
]


@dataclass(frozen=True)
class NeedMore:
    """Nothing happened: more input is needed, or ``finish``; or side indices, if ``Decoder.wanted_side`` says so."""

    name: ClassVar[Literal["need_more"]] = "need_more"


@dataclass(frozen=True)
class End:
    """The stream ended properly."""

    name: ClassVar[Literal["end"]] = "end"


@dataclass(frozen=True)
class Opened:
    """The stream header was read, and its model is the decoder's."""

    name: ClassVar[Literal["opened"]] = "opened"
    header: Header


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames, in joined mode."""

    name: ClassVar[Literal["frames"]] = "frames"
    index: int
    """Absolute index of the first frame."""
    count: int
    """Number of frames, T."""
    hidden: NDArray[numpy.float32]
    """Reconstructed hidden states, [T, E] (spec 6.7)."""
    w: Optional[NDArray[numpy.int16]]
    """Hyper-prior integers, [T, C]; ``None`` unless the decoder keeps integers."""
    y: Optional[NDArray[numpy.int16]]
    """Target integers, [T, E]; ``None`` unless the decoder keeps integers."""


@dataclass(frozen=True, eq=False)
class HyperPrior:
    """Hyper-priors of frames, in layered mode; their targets are pending from now on."""

    name: ClassVar[Literal["hyper_prior"]] = "hyper_prior"
    index: int
    """Absolute index of the first frame."""
    count: int
    """Number of frames, T."""
    w: NDArray[numpy.int16]
    """Hyper-prior integers, [T, C]."""


@dataclass(frozen=True, eq=False)
class Targets:
    """Targets of whole frames, or concealed frames, in layered mode."""

    index: int
    """Absolute index of the first frame."""
    count: int
    """Number of frames, T."""
    hidden: NDArray[numpy.float32]
    """Reconstructed hidden states, [T, E] (spec 6.7)."""
    y: NDArray[numpy.int16]
    """Target integers, [T, E]."""
    concealed: bool
    """True if some or all integers are the network's means, because the target, or some of its elements, did not
    come."""

    @property
    def name(self) -> Literal["targets", "concealed"]:
        """``"targets"``, or ``"concealed"``."""
        return "concealed" if self.concealed else "targets"


@dataclass(frozen=True)
class TargetPart:
    """A part of a frame's target; others are still to come."""

    name: ClassVar[Literal["part"]] = "part"
    index: int
    """Absolute index of the frame."""
    first_element: int
    end_element: int
    """The element after the last."""


@dataclass(frozen=True)
class TargetEarly:
    """A target came before its hyper-prior and is kept."""

    name: ClassVar[Literal["early"]] = "early"
    index: int
    """Absolute index of the first frame."""
    count: int
    """Number of frames."""


@dataclass(frozen=True)
class TargetRefused:
    """A target changed nothing."""

    name: ClassVar[Literal["refused"]] = "refused"
    index: Optional[int]
    """Absolute index of its first frame, if it names one."""
    reason: str
    """``"late"``: its frames are not pending. ``"damaged"``: it is damaged, or no target. ``"no_memory"``: decoding it
    would exceed the memory limit; its frames still wait. ``"no_room"``: it is early, and there is no room to keep
    it."""


@dataclass(frozen=True)
class TargetsOverdue:
    """A chunk waits because too many frames are pending: conceal these frames, or give their targets as datagrams, then
    poll again."""

    name: ClassVar[Literal["overdue"]] = "overdue"
    index: int
    """Absolute index of the oldest pending frame."""
    count: int
    """How many frames have to be settled."""


_EXACT = {"f32": "<f4", "f16": "<f2", "bf16": "<u2"}


@dataclass(frozen=True, eq=False)
class ExactFrame:
    """A frame with its exact hidden state (spec 6.9)."""

    name: ClassVar[Literal["exact_frame"]] = "exact_frame"
    index: int
    """Absolute index of the frame."""
    hidden: NDArray[numpy.float32]
    """The reconstruction, [1, E]."""
    w: Optional[NDArray[numpy.int16]]
    """Hyper-prior integers, [1, C]; ``None`` unless the decoder keeps integers."""
    y: Optional[NDArray[numpy.int16]]
    """Target integers, [1, E]; ``None`` unless the decoder keeps integers."""
    dtype: str
    """The type of the exact values: ``"f32"``, ``"f16"`` or ``"bf16"``."""
    data: bytes
    """The exact hidden state, E little-endian values of that type."""

    @property
    def count(self) -> int:
        """1."""
        return 1

    @property
    def exact(self) -> NDArray[numpy.float32]:
        """The exact hidden state as float32, [E]: every value of the three types has an exact counterpart."""
        values = numpy.frombuffer(self.data, _EXACT[self.dtype])
        if self.dtype == "bf16":
            return (values.astype(numpy.uint32) << 16).view(numpy.float32)
        return values.astype(numpy.float32)


@dataclass(frozen=True)
class Working:
    """A chunk has more frames than one call decodes: poll again, no input is needed."""

    name: ClassVar[Literal["working"]] = "working"
    index: int
    """Absolute index of the chunk's first frame."""
    count: int
    """Frames of the chunk."""
    done: int
    """Frames decoded."""


@dataclass(frozen=True)
class Verdict:
    """What a digest says about frames. A digest that differs is an error instead."""

    name: ClassVar[Literal["verdict"]] = "verdict"
    index: int
    """Absolute index of the first frame."""
    end_index: int
    """Absolute index after the last frame."""
    verdict: str
    """``"w_confirmed"``: W of every frame equals the encoder's; targets are pending, and another verdict on the range
    follows. ``"y_confirmed"``: W and Y of every frame equal the encoder's. ``"y_unverifiable"``: W does, and Y can
    never be verified, because a target was lost."""


@dataclass(frozen=True)
class TargetsDropped:
    """A context reset or model switch dropped the targets of these frames, which had not come."""

    name: ClassVar[Literal["dropped"]] = "dropped"
    index: int
    """Absolute index of the first frame."""
    count: int
    """Number of frames."""


@dataclass(frozen=True)
class Reset:
    """The context begins anew."""

    name: ClassVar[Literal["reset"]] = "reset"
    index: int
    """Absolute index of the next frame."""


@dataclass(frozen=True)
class Rewound:
    """The timeline goes back: frames from ``index`` on are gone."""

    name: ClassVar[Literal["rewound"]] = "rewound"
    index: int
    """Absolute index of the next frame."""


@dataclass(frozen=True)
class Quality:
    """Another quality applies from the next frame on."""

    name: ClassVar[Literal["quality"]] = "quality"
    quality: int
    """Its index."""


@dataclass(frozen=True)
class Model:
    """Another model applies from the next frame on."""

    name: ClassVar[Literal["model"]] = "model"
    index: int
    """Absolute index of the next frame."""
    fingerprint: bytes
    """The model's fingerprint, 32 bytes."""


@dataclass(frozen=True)
class SideWanted:
    """A chunk waits for the side indices of these frames, which the stream does not hold: give them with
    ``Decoder.give_side``, then poll again."""

    name: ClassVar[Literal["side_wanted"]] = "side_wanted"
    index: int
    """Absolute index of the first frame."""
    count: int
    """Number of frames."""


@dataclass(frozen=True, eq=False)
class SideIndices:
    """Side indices of frames to come, which the stream holds (spec 6.12)."""

    name: ClassVar[Literal["side_indices"]] = "side_indices"
    index: int
    """Absolute index of the first of these frames."""
    count: int
    """Number of frames."""
    indices: NDArray[numpy.uint32]
    """One for each of them, [T]."""


@dataclass(frozen=True)
class Extension:
    """An ignorable extension (spec 2.8)."""

    name: ClassVar[Literal["extension"]] = "extension"
    id: int
    data: bytes


@dataclass(frozen=True)
class Ended:
    """The end chunk."""

    name: ClassVar[Literal["ended"]] = "ended"
    index: int
    """Absolute index after the last frame."""
    frames_coded: int
    """Frames coded, rewound ones included."""


@dataclass(frozen=True)
class Other:
    """An event that this version of the package has no name for. Skip it."""

    name: ClassVar[Literal["other"]] = "other"


Event = Union[
    Opened,
    Frames,
    HyperPrior,
    Targets,
    TargetPart,
    TargetEarly,
    TargetRefused,
    TargetsOverdue,
    ExactFrame,
    Working,
    Verdict,
    TargetsDropped,
    Reset,
    Rewound,
    Quality,
    Model,
    SideWanted,
    SideIndices,
    Extension,
    Ended,
    Other,
]
