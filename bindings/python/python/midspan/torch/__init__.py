"""Midspan for PyTorch: split a module by name, send what crosses the split, and capture it for a codec.

The first half::

    first, _ = midspan.torch.split(model, "model.layers.3")
    sender = midspan.torch.Sender(codec)
    hidden = first(input_ids=ids, cache=cache)             # [1, T, E], after layer 3
    transport.send(sender.push(hidden, ids)[0])            # the bytes of the stream, only what is new

The second half, in another process::

    _, rest = midspan.torch.split(model, "model.layers.3")
    receiver = midspan.torch.Receiver(codec)
    receiver.push([received])
    hidden = receiver.take(frames=ids.shape[1])            # [1, T, E]; None until all of them have come
    logits = rest(hidden, input_ids=ids, cache=cache).logits

:class:`Through` shows what a codec does to a model in one process, :class:`Capture` writes the hidden states from
which ``midspan calibrate`` and ``midspan fit`` make one, and :mod:`midspan.torch.pipelining` codes the boundaries of
``torch.distributed.pipelining``. Sessions run on the CPU: hidden states of another device are copied there and back.
"""

from ._capture import Capture
from ._parts import Part, split
from ._streams import Receiver, Sender
from ._through import Through

__all__ = ["Capture", "Part", "Receiver", "Sender", "Through", "split"]

for _name in __all__:
    globals()[_name].__module__ = __name__
del _name
