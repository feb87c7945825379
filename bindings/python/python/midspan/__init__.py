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

import numpy as _numpy  # noqa: F401  The extension cannot work without it, and says so here.

from . import _chunks, _errors, _events, _values
from ._chunks import *  # noqa: F403
from ._errors import *  # noqa: F403
from ._events import *  # noqa: F403
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
    load_header,
)
from ._values import *  # noqa: F403

__all__ = sorted(
    [
        "Chunks",
        "Codec",
        "Decoder",
        "Encoder",
        "Events",
        "Reader",
        "Together",
        "Writer",
        "__version__",
        "error_text",
        "file_seek",
        "load_header",
    ]
    + _chunks.__all__
    + _errors.__all__
    + _events.__all__
    + _values.__all__
)

for _module in (_chunks, _errors, _events, _values):
    for _name in _module.__all__:
        if isinstance(_class := getattr(_module, _name), type):
            _class.__module__ = __name__
del _class, _module, _name
