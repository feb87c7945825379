"""A codec in the middle of a model, in one process."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Literal, Optional, Tuple, Type

import torch
from torch import nn

from .. import Codec
from ._parts import find, hidden_of, with_hidden
from ._streams import Ids, Receiver, Sender

__all__ = ["Through"]


class Through:
    """What a codec does to a model: as long as this is open, what a submodule gives out is encoded and decoded on its
    way to the next one, and its bytes are counted.

    ::

        with midspan.torch.Through(model, "model.layers.3", codec) as link:
            text = model.generate(ids, max_new_tokens=50)
        print(8 * link.bytes / link.frames, "bits a frame")

    A pass with a KV cache goes on with the streams of the one before, if it has as many rows: call :meth:`begin`
    before the next text. Without a cache every pass is a text of its own: ``streams="new"`` begins for each.

    All positions of a batch are coded and counted, padding too. No gradient passes. A beam search reorders rows, which
    the streams do not follow: values stay right, and some bits are wasted.

    Args:
        module: The whole model.
        at: The name of the submodule, as ``named_modules`` has it.
        codec: The codec model.
        streams: ``"kept"``, the default, goes on with the streams until :meth:`begin`; ``"new"`` begins with each
            pass.
        ids: The name of the model's argument that brings the side indices, [B, T], for a codec that takes them:
            ``"input_ids"`` by default. Passed by name or as the first argument. Both ends are taken to know them,
            unless ``delivery`` says ``"sent"``.
        settings: Those of :class:`Sender` and :class:`midspan.Encoder`.
    """

    def __init__(
        self,
        module: nn.Module,
        at: str,
        codec: Codec,
        *,
        streams: Literal["kept", "new"] = "kept",
        ids: str = "input_ids",
        delivery: Literal["known", "sent"] = "known",
        **settings: Any,
    ) -> None:
        if streams not in ("kept", "new"):
            raise ValueError(f'streams is {streams!r}, not "kept" or "new"')
        self.bytes = 0
        """Bytes sent so far, headers included."""
        self.frames = 0
        """Frames sent so far, of all rows."""
        self._module, self._at, self._codec, self._ids_name = module, at, codec, ids
        self._submodule = find(module, at)
        self._settings = {"delivery": delivery, **settings}
        self._streams = streams
        self._ends: Optional[Tuple[Sender, Receiver]] = None
        self._ids: Optional[Ids] = None
        self._handles: "list[Any]" = []

    def begin(self) -> None:
        """Begins new streams with the next pass."""
        self._ends = None

    def __enter__(self) -> "Through":
        if self._handles:
            raise RuntimeError("it is open already")
        if self._codec.takes_side:
            self._handles.append(self._module.register_forward_pre_hook(self._see, with_kwargs=True))
        self._handles.append(self._submodule.register_forward_hook(self._code))
        return self

    def __exit__(
        self,
        _kind: Optional[Type[BaseException]],
        _error: Optional[BaseException],
        _traceback: Optional[TracebackType],
    ) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _see(self, _module: nn.Module, args: Tuple[Any, ...], kwargs: "dict[str, Any]") -> None:
        self._ids = kwargs.get(self._ids_name, args[0] if args else None)

    def _code(self, _module: nn.Module, _args: Any, output: Any) -> Any:
        hidden = hidden_of(output, self._at)
        if hidden.dim() not in (2, 3):
            raise ValueError(f"the module {self._at!r} gives out {list(hidden.shape)}, not [B, T, E] or [T, E]")
        batch = hidden if hidden.dim() == 3 else hidden[None]
        rows, frames, _ = batch.shape
        if self._ends is None or self._streams == "new":
            self._ends = Sender(self._codec, rows, **self._settings), Receiver(self._codec, rows)
        sender, receiver = self._ends
        if len(sender.encoders) != rows:
            raise ValueError(f"{rows} rows for {len(sender.encoders)} streams: call begin() before another text")
        # A pass that fails must not leave streams whose rows are at different frames.
        self._ends = None
        with torch.no_grad():
            sent = sender.push(batch, self._ids)
            receiver.push(sent)
            decoded = receiver.take(frames, self._ids)
        assert decoded is not None
        self._ends, self._ids = (sender, receiver), None
        self.bytes += sum(map(len, sent))
        self.frames += rows * frames
        decoded = decoded.to(hidden.device, hidden.dtype).reshape(hidden.shape)
        return with_hidden(output, decoded)
