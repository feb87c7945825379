"""Midspan: a streaming codec for the hidden states between two halves of a transformer.

A *time frame* is one position of the host's sequence, T the number of them in a chunk, E the number of values of a hidden
state, C that of values of W. Y, the *target*, is the E integers that the quantiser makes of a hidden state; W, the
*hyper-prior*, is a few integers sent before Y, from which both ends derive the probabilities of Y.

::

    codec = midspan.Codec.load("codec.safetensors")
    encoder = midspan.Encoder(codec)
    encoder.push_hidden(hidden)                # [T, E]: a NumPy array or a torch.Tensor
    transport.send(encoder.take_bytes())       # only what is new; after the last frame, encoder.end()

    decoder = midspan.Decoder(codec)
    decoder.push(received)                     # cut anywhere
    for event in decoder.events():
        if isinstance(event, midspan.Frames):
            second_half(event.hidden)          # float32 [T, E]; when no more comes, decoder.finish()
"""

from ._chunks import (
    BatchChunk,
    CheckpointChunk,
    Chunk,
    EndChunk,
    ExactFrameChunk,
    ExtensionChunk,
    FooterChunk,
    FrameChunk,
    HeaderChunk,
    ModelSwitchChunk,
    OtherChunk,
    Payload,
    QualityChunk,
    ResetChunk,
    RewindChunk,
    SeekIndexChunk,
    SideIndicesChunk,
    TargetChunk,
)
from ._errors import (
    CallerError,
    Error,
    ErrorNumber,
    LibraryError,
    ModelError,
    ResourceError,
    StreamError,
)
from ._events import (
    End,
    Ended,
    Event,
    ExactFrame,
    Extension,
    Frames,
    HyperPrior,
    Model,
    NeedMore,
    Opened,
    Other,
    Quality,
    Reset,
    Rewound,
    SideIndices,
    SideWanted,
    TargetEarly,
    TargetPart,
    TargetRefused,
    Targets,
    TargetsDropped,
    TargetsOverdue,
    Verdict,
    Working,
)
from ._midspan import (
    Chunks,
    Codec,
    Decoder,
    Encoder,
    Events,
    Reader,
    Together,
    Writer,
    __version__,
    error_text,
    file_seek,
    host_digest,
    load_header,
)
from ._values import (
    Cost,
    Header,
    Message,
    QualityInfo,
    SeekEntry,
    Sent,
)

__all__ = [
    "BatchChunk",
    "CallerError",
    "CheckpointChunk",
    "Chunk",
    "Chunks",
    "Codec",
    "Cost",
    "Decoder",
    "Encoder",
    "End",
    "EndChunk",
    "Ended",
    "Error",
    "ErrorNumber",
    "Event",
    "Events",
    "ExactFrame",
    "ExactFrameChunk",
    "Extension",
    "ExtensionChunk",
    "FooterChunk",
    "FrameChunk",
    "Frames",
    "Header",
    "HeaderChunk",
    "HyperPrior",
    "LibraryError",
    "Message",
    "Model",
    "ModelError",
    "ModelSwitchChunk",
    "NeedMore",
    "Opened",
    "Other",
    "OtherChunk",
    "Payload",
    "Quality",
    "QualityChunk",
    "QualityInfo",
    "Reader",
    "Reset",
    "ResetChunk",
    "ResourceError",
    "RewindChunk",
    "Rewound",
    "SeekEntry",
    "SeekIndexChunk",
    "Sent",
    "SideIndices",
    "SideIndicesChunk",
    "SideWanted",
    "StreamError",
    "TargetChunk",
    "TargetEarly",
    "TargetPart",
    "TargetRefused",
    "Targets",
    "TargetsDropped",
    "TargetsOverdue",
    "Together",
    "Verdict",
    "Working",
    "Writer",
    "__version__",
    "error_text",
    "file_seek",
    "host_digest",
    "load_header",
]

# Tracebacks and pickles name classes as users do, and go on to work if a class moves to another file.
for _name in __all__:
    _found = globals()[_name]
    if isinstance(_found, type):
        _found.__module__ = __name__
del _found, _name
