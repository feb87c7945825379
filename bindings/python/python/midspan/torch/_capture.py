"""Captures of hidden states, from which codecs are made."""

from __future__ import annotations

import glob
import inspect
import os
from pathlib import Path
from types import TracebackType
from typing import Any, Callable, Dict, List, Literal, Optional, Type, Union

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ._parts import find, hidden_of, with_hidden

__all__ = ["Capture"]

Score = Callable[[Any, Tensor], Tensor]


class Capture:
    """Writes the hidden states at a submodule, with the tokens and with what an error costs the second half, to shards
    that ``midspan calibrate --states`` and ``midspan fit --states`` read.

    ::

        with midspan.torch.Capture(model, "model.layers.3", "states/llama") as capture:
            for ids in texts:                          # [B, T]
                capture(input_ids=ids)
        print(capture.paths)                           # states/llama-00001.safetensors ...

    Calls run the model as they are given, and each row of a batch is a sequence. A shard holds ``hidden`` [T, E] in
    the model's own type, ``starts`` of sequences, ``ids`` if there are any, and ``sensitivity``, float32 [E, E]: the
    mean over frames of g gᵀ, g being the gradient of the log-likelihood of outputs that are drawn from the model's own
    predictions (the Fisher information). Codecs know by it which directions matter.

    Args:
        module: The whole model, in the mode in which it will be used: call ``eval()`` before.
        at: The name of the submodule, as ``named_modules`` has it.
        out: The beginning of the shards' paths. Folders are made.
        sensitivity: How the gradients are found. ``"logits"``, the default: the model gives out logits [B, T, V], as
            its ``logits``, itself or first. ``"output"``: for models whose output is an embedding of any shape; the
            error is weighed by the squared distance in it. ``None``: without, which is faster; all directions weigh
            alike then. Or a function of the model's output and the mask [B, T] of frames that count: the scalar to
            derive.
        draws: Gradients for each pass, 1 by default. More make the estimate less noisy.
        frames_per_shard: 65,536 by default; a shard ends with the pass that reaches it.
        host: What the shards say that the model is; its class's name by default.
        seed: Of what is drawn, 0 by default.

    Leaving the ``with`` writes the last shard, after an exception too.

    Raises:
        ValueError: There is no such submodule, or a setting means nothing.
        FileExistsError: Shards of an earlier capture have these paths.
    """

    def __init__(
        self,
        module: nn.Module,
        at: str,
        out: Union[str, "os.PathLike[str]"],
        *,
        sensitivity: Union[Literal["logits", "output"], None, Score] = "logits",
        draws: int = 1,
        frames_per_shard: int = 65536,
        host: Optional[str] = None,
        seed: int = 0,
    ) -> None:
        if draws < 1 or frames_per_shard < 1:
            raise ValueError("draws and frames_per_shard have to be 1 or more")
        known = {"logits": self._likelihood, "output": self._projection, None: None}
        if not callable(sensitivity) and sensitivity not in known:
            raise ValueError(f'sensitivity is {sensitivity!r}, not "logits", "output", None or a function')
        self._score: Optional[Score] = sensitivity if callable(sensitivity) else known[sensitivity]
        self.paths: List[Path] = []
        """The shards that were written."""
        self.frames = 0
        """Frames captured so far."""
        self._module, self._at, self._submodule = module, at, find(module, at)
        self._out, self._draws, self._most = os.fspath(out), draws, frames_per_shard
        self._texts = {"host": host or type(module).__name__, "split": at}
        there = sorted(Path(self._out).parent.glob(glob.escape(Path(self._out).name) + "-[0-9]*.safetensors"))
        if there:
            raise FileExistsError(f"{there[0]} is there: remove what an earlier capture wrote, or choose another name")
        self._generator = torch.Generator().manual_seed(seed)
        self._has_ids = False
        self._sum: Optional[Tensor] = None
        self._hidden: List[Tensor] = []
        self._ids: List[Tensor] = []
        self._starts: List[int] = []
        self._held = 0

    def __call__(self, *args: Any, ids: Optional[Tensor] = None, mask: Optional[Tensor] = None, **kwargs: Any) -> Any:
        """Runs the model, and captures the hidden states of this pass.

        Args:
            args, kwargs: The model's arguments.
            ids: The side index of each frame, [B, T]: by default the model's ``input_ids`` if it has that shape; of a
                submodule of its ``decoder``, ``decoder_input_ids``.
            mask: [B, T], 0 where a frame is padding, which is left out: by default ``attention_mask`` if it has that
                shape, or ``decoder_attention_mask`` likewise.

        Returns:
            What the model gives out.

        Raises:
            ValueError: A hidden state is not finite; shapes do not fit; the output does not depend on the hidden
                state.
        """
        # What is computed in inference mode has no gradient.
        with torch.inference_mode(False):
            return self._captured(args, kwargs, ids, mask)

    def _captured(self, args: Any, kwargs: Dict[str, Any], ids: Optional[Tensor], mask: Optional[Tensor]) -> Any:
        caught: List[Tensor] = []

        def catch(_module: nn.Module, _args: Any, output: Any) -> Any:
            # Copies, because what comes after may write to what it is given.
            hidden = hidden_of(output, self._at).detach().clone()
            if caught:
                raise ValueError(f"the module {self._at!r} ran twice in one pass")
            caught.append(hidden.requires_grad_(self._score is not None))
            # From here on, so that the first half keeps nothing for gradients.
            torch.set_grad_enabled(self._score is not None)
            return with_hidden(output, hidden.clone())

        handle = self._submodule.register_forward_hook(catch)
        try:
            with torch.no_grad():
                output = self._module(*args, **kwargs)
        finally:
            handle.remove()
        if not caught:
            raise RuntimeError(f"the forward pass never reached the module {self._at!r}")
        hidden = caught[0]
        if hidden.dim() not in (2, 3) or 0 in hidden.shape:
            raise ValueError(f"the module {self._at!r} gives out {list(hidden.shape)}, not [B, T, E] or [T, E]")
        shape = hidden.shape[:-1]
        named = _arguments(self._module, args, kwargs)
        which = "decoder_" if "decoder" in self._at.split(".") and "decoder_input_ids" in named else ""
        if ids is None:
            ids = _fitting(named.get(which + "input_ids"), shape, False)
        if mask is None:
            mask = _fitting(named.get(which + "attention_mask"), shape, True)
        for name, given in (("ids", ids), ("mask", mask)):
            if given is not None and given.shape != shape:
                raise ValueError(f"{name} have the shape {list(given.shape)}, and the frames {list(shape)}")
        if ids is not None and bool((ids < 0).any()):
            raise ValueError("an id is below 0")
        if self.frames and (ids is not None) != self._has_ids:
            raise ValueError("some passes have ids and others do not")
        counts = torch.ones(shape, dtype=torch.bool) if mask is None else mask.detach().cpu() != 0
        if not torch.isfinite(hidden[counts.to(hidden.device)]).all():
            raise ValueError("a hidden state is not finite")
        if self._score is not None:
            self._sense(output, hidden, counts)
        hidden = hidden.detach().cpu()
        if hidden.dim() == 2:
            hidden, counts, ids = hidden[None], counts[None], None if ids is None else ids[None]
        for row in range(len(hidden)):
            kept = counts[row]
            if not kept.any():
                continue
            self._starts.append(self._held)
            self._hidden.append(hidden[row][kept])
            self._held += len(self._hidden[-1])
            if ids is not None:
                self._ids.append(ids[row].detach().cpu()[kept])
        self._has_ids = ids is not None
        self.frames += int(counts.sum())
        if self._held >= self._most:
            self._write()
        return output

    def __enter__(self) -> "Capture":
        return self

    def __exit__(
        self,
        _kind: Optional[Type[BaseException]],
        _error: Optional[BaseException],
        _traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def close(self) -> None:
        """Writes the last shard."""
        if self._held:
            self._write()

    def _sense(self, output: Any, hidden: Tensor, counts: Tensor) -> None:
        """Adds g gᵀ of the frames that count."""
        assert self._score is not None
        total = torch.zeros(hidden.shape[-1], hidden.shape[-1], dtype=torch.float64)
        for draw in range(self._draws):
            with torch.enable_grad():
                score = self._score(output, counts)
            none = f"the output does not depend on what {self._at!r} gives out, or its operations have no gradient"
            if not isinstance(score, Tensor) or not score.requires_grad:
                raise ValueError(none)
            (gradient,) = torch.autograd.grad(score, hidden, retain_graph=draw + 1 < self._draws, allow_unused=True)
            if gradient is None:
                raise ValueError(none)
            rows = gradient[counts.to(gradient.device)].float()  # [T, E]
            if not torch.isfinite(rows).all():
                raise ValueError("a gradient is not finite")
            total += (rows.T @ rows).cpu()
        # Of all draws or of none, because a pass that fails is not captured.
        self._sum = total / self._draws + (0 if self._sum is None else self._sum)

    def _likelihood(self, output: Any, counts: Tensor) -> Tensor:
        """The log-likelihood of tokens that are drawn from the model's predictions."""
        if hasattr(output, "logits"):
            logits: Tensor = output.logits
        elif isinstance(output, dict):
            raise ValueError('the model gives out no logits: sensitivity="output" is for embeddings')
        else:
            logits = hidden_of(output, "")
        if logits.shape[:-1] != counts.shape:
            raise ValueError(f"logits have the shape {list(logits.shape)}, and the frames {list(counts.shape)}")
        logits = logits[counts.to(logits.device)].float().log_softmax(-1)  # [T, V]
        drawn = torch.multinomial(logits.detach().cpu().exp(), 1, generator=self._generator)
        return logits.gather(-1, drawn.to(logits.device)).sum()

    def _projection(self, output: Any, _counts: Tensor) -> Tensor:
        """The output in a drawn direction: the mean of g gᵀ is JᵀJ, which weighs errors by squared distance."""
        values = hidden_of(output, "")
        drawn = torch.randn(values.shape, generator=self._generator)
        return (values.float() * drawn.to(values.device)).sum()

    def _write(self) -> None:
        path = Path(f"{self._out}-{len(self.paths) + 1:05d}.safetensors")
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = torch.cat(self._hidden)
        if hidden.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            hidden = hidden.float()
        tensors: Dict[str, Tensor] = {"hidden": hidden, "starts": torch.tensor(self._starts)}
        if self._has_ids:
            tensors["ids"] = torch.cat(self._ids).to(torch.int64)
        if self._sum is not None:
            tensors["sensitivity"] = (self._sum / self._held).float()
        save_file(tensors, path, metadata=self._texts)
        self.paths.append(path)
        self._hidden, self._ids, self._starts, self._held, self._sum = [], [], [], 0, None


def _fitting(given: Any, shape: torch.Size, floats: bool) -> Optional[Tensor]:
    """A tensor of that shape, of integers or booleans unless floats will do."""
    fits = isinstance(given, Tensor) and (floats or not given.is_floating_point()) and given.shape == shape
    return given if fits else None


def _arguments(module: nn.Module, args: Any, kwargs: Dict[str, Any]) -> Dict[str, Any]:
    """A module's arguments by their names."""
    try:
        return {**inspect.signature(module.forward).bind(*args, **kwargs).arguments, **kwargs}
    except (TypeError, ValueError):
        return kwargs
