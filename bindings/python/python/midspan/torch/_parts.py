"""The parts of a module, split by name."""

from __future__ import annotations

import copy
import threading
from typing import Any, Callable, Dict, Optional, Tuple

from torch import Tensor, nn

__all__ = ["Part", "find", "hidden_of", "split", "with_hidden"]

Form = Callable[[Tensor], Any]


def hidden_of(output: Any, at: str) -> Tensor:
    """The hidden state in what a module gives out: a tensor, or the first of a tuple, a list or a mapping."""
    found = output
    if isinstance(found, dict) and found:
        found = next(iter(found.values()))
    elif isinstance(found, (tuple, list)) and found:
        found = found[0]
    if not isinstance(found, Tensor) or not found.is_floating_point():
        raise TypeError(f"the module {at!r} gives out {_kind(found)} where a hidden state was expected")
    return found


def with_hidden(output: Any, hidden: Tensor) -> Any:
    """What a module gave out, with another hidden state in the place of its own."""
    if isinstance(output, Tensor):
        return hidden
    if isinstance(output, dict):
        changed = copy.copy(output)
        changed[next(iter(output))] = hidden
        return changed
    rest = list(output)[1:]
    if isinstance(output, tuple) and hasattr(output, "_fields"):
        return type(output)(hidden, *rest)
    return type(output)([hidden, *rest])


def find(module: nn.Module, at: str) -> nn.Module:
    """The submodule of that name."""
    try:
        found = module.get_submodule(at) if at else None
    except AttributeError:
        found = None
    if found is None:
        near = [name for name, _ in module.named_modules() if name.count(".") <= at.count(".") and name][:40]
        raise ValueError(f"{type(module).__name__} has no submodule {at!r}; there are {', '.join(near)}")
    return found


class _Cut(BaseException):
    """Ends a forward pass at the split. No ``Exception``, so that no model's own handler takes it for an error."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


class Part:
    """A part of a split module; :func:`split` makes it.

    Call it with the arguments of the whole module, and, unless it is the first part, with the hidden state [B, T, E]
    before them. The last part gives what the whole module does, every other part the hidden state after it. One call at
    a time runs; another thread's waits.

    The arguments of later parts say how many positions there are, and bring what is no hidden state, such as masks and
    a KV cache of their own. Where the tokens are not known, ``inputs_embeds=hidden`` will do for a language model of
    ``transformers``. The hidden state is taken to the part's dtype and device, there too. All parts but the last have
    to be given a KV cache: one that the module makes itself is lost, because the forward pass ends at the split.
    """

    def __init__(self, module: nn.Module, start: Optional[str], end: Optional[str], form: Optional[Form]) -> None:
        self.module = module
        """The module with which it runs. It shares the parameters of the whole and lacks the other parts' blocks."""
        self._start, self._end, self._form = start, end, form
        self._lock = threading.RLock()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            return self._run(*args, **kwargs) if self._start is None else self._continue(self._start, *args, **kwargs)

    def _continue(self, start: str, *args: Any, **kwargs: Any) -> Any:
        """The module, from the hidden state on that comes first."""
        hidden = args[0] if args else None
        if not isinstance(hidden, Tensor) or not hidden.is_floating_point():
            raise TypeError("the hidden state has to come first")

        def own(value: Any) -> Any:
            """The hidden state in this part's dtype and device; a copy, because modules may write to what they get."""
            if value is not hidden:
                return value
            like = next((value for value in self.module.parameters() if value.is_floating_point()), hidden)
            return hidden.to(like.device, like.dtype, copy=True)

        left = [own(value) for value in args[1:]]
        named = {name: own(value) for name, value in kwargs.items()}
        reached, times = 0, _times(self.module, start)

        def instead() -> Any:
            nonlocal reached
            reached += 1
            assert self._form is not None
            return self._form(own(hidden))

        def before(_module: nn.Module, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
            nonlocal reached
            reached += 1
            if reached > times:
                raise RuntimeError(f"{start!r} runs more than once in a pass: only a chain of blocks can be split")
            if reached > 1:
                return None
            by_name = "hidden_states" in kwargs
            made = kwargs["hidden_states"] if by_name else args[0] if args else None
            if not isinstance(made, Tensor):
                raise TypeError("the block after the split does not take a hidden state as its first argument")
            if made.shape != hidden.shape:
                raise ValueError(
                    f"the arguments make hidden states of the shape {list(made.shape)}, but {list(hidden.shape)} came"
                )
            given = hidden.to(made.device, made.dtype, copy=True)
            return (args, {**kwargs, "hidden_states": given}) if by_name else ((given, *args[1:]), kwargs)

        place = self.module.get_submodule(start)
        handle = None
        if isinstance(place, _Absent):
            place.instead = instead
        else:
            handle = place.register_forward_pre_hook(before, with_kwargs=True)
        try:
            output = self._run(*left, **named)
        finally:
            if isinstance(place, _Absent):
                place.instead = None
            if handle is not None:
                handle.remove()
        if reached == 0:
            raise RuntimeError("the forward pass never reached what comes after the split")
        return output

    def _run(self, *args: Any, **kwargs: Any) -> Any:
        """The module, up to the end of this part."""
        if self._end is None:
            return self.module(*args, **kwargs)
        # A list may hold a block more than once: the pass ends after the last of its places.
        left = _times(self.module, self._end)

        def cut(_module: nn.Module, _args: Any, output: Any) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise _Cut(output)

        handle = self.module.get_submodule(self._end).register_forward_hook(cut)
        try:
            self.module(*args, **kwargs)
        except _Cut as reached:
            return hidden_of(reached.output, self._end)
        finally:
            handle.remove()
        raise RuntimeError(f"the forward pass never reached the module {self._end!r}")


class _Absent(nn.Module):
    """Where a part was."""

    instead: Optional[Callable[[], Any]] = None
    """Gives what the part would have given."""

    def forward(self, *_args: Any, **_kwargs: Any) -> Any:
        if self.instead is None:
            raise RuntimeError("what an earlier part gives out is needed here too: pass it among the arguments")
        return self.instead()


def split(module: nn.Module, *at: str, form: Form = lambda hidden: hidden) -> Tuple[Part, ...]:
    """Splits a module after one of its submodules, or after several: one part more than names.

    Where the submodule is a block of an ``nn.ModuleList`` or ``nn.Sequential``, each part keeps only its own blocks.
    Layers that count KV caches by ``layer_idx``, as those of ``transformers`` do, are counted anew in later parts: a
    part with its own cache begins it with its first layer, and its ``module.config`` says how many it has. Any other
    submodule, such as an encoder, is the first half itself; what the module runs before it, both halves run.

    It is right where the blocks are a chain: each runs once, takes what the one before gave, and all else that they
    need comes from the arguments. Where the first block makes what later ones use, as the position bias of T5, or
    where blocks go by their number in the list, it is not. Try it once: ``rest(first(x), x)`` has to be ``module(x)``.

    The parts share the parameters of the module and cost no memory of their own: what changes those of a part changes
    the module's. To free what a part does not need, drop ``module`` and the other parts.

    Args:
        module: The whole model. Its blocks stay as they are.
        at: The name of the submodule after which it is split, as ``named_modules`` has it: ``"transformer.h.5"``.
            Several come in the order in which they run.
        form: Makes what a submodule would have given out of a hidden state, where it is no block of a list: for an
            encoder of ``transformers``, ``lambda hidden: BaseModelOutput(last_hidden_state=hidden)``.

    Raises:
        ValueError: There is no such submodule, or no block comes after it in its list, or names are out of order.
    """
    if not at:
        raise ValueError("no submodule was named")
    parts, left, start, start_form = [], module, None, None
    removed: Dict[str, int] = {}
    for whole_name in at:
        find(module, whole_name)
        name = _shifted(whole_name, removed)
        path, _, own = name.rpartition(".")
        blocks = left.get_submodule(path)
        if not isinstance(blocks, (nn.ModuleList, nn.Sequential)):
            parts.append(Part(_copied(left), start, name, start_form))
            left, start, start_form = _copied(left), name, form
            setattr(left.get_submodule(path), own, _Absent())
            continue
        count, end = len(blocks._modules), list(blocks._modules).index(own) + 1
        if end == count:
            raise ValueError(f"{whole_name!r} is the last block of its list: split after an earlier one")
        parts.append(Part(_shortened(left, path, 0, end), start, _joined(path, end - 1), start_form))
        left, start, start_form = _shortened(left, path, end, count), _joined(path, 0), None
        removed[path] = removed.get(path, 0) + end
    return (*parts, Part(left, start, None, start_form))


def _shifted(name: str, removed: Dict[str, int]) -> str:
    """The name in what is left, where so many blocks of lists are gone."""
    for path, gone in removed.items():
        before = path + "." if path else ""
        number, _, rest = name[len(before) :].partition(".")
        if name.startswith(before) and number.isdecimal():
            if int(number) < gone:
                raise ValueError(f"{name!r} does not come after the names before it")
            name = ".".join([_joined(path, int(number) - gone), *([rest] if rest else [])])
    return name


def _joined(path: str, place: int) -> str:
    return f"{path}.{place}" if path else str(place)


def _copied(module: nn.Module) -> nn.Module:
    """A copy with the same parameters and buffers."""
    memo = {id(shared): shared for shared in [*module.parameters(), *module.buffers()]}
    return copy.deepcopy(module, memo)


def _times(module: nn.Module, at: str) -> int:
    """How many places of its list the module at ``at`` has."""
    path, _, name = at.rpartition(".")
    places = module.get_submodule(path)._modules
    return sum(block is places[name] for block in places.values())


def _shortened(module: nn.Module, path: str, start: int, end: int) -> nn.Module:
    """A copy with the same parameters that has only these blocks of the list at ``path``, numbered from 0."""
    module = _copied(module)
    blocks = module.get_submodule(path)
    count = len(blocks._modules)
    kept = list(blocks._modules.values())[start:end]
    blocks._modules.clear()
    blocks._modules.update((str(place), block) for place, block in enumerate(kept))
    for inner in blocks.modules():
        index = inner.__dict__.get("layer_idx")
        if isinstance(index, int):
            inner.__dict__["layer_idx"] = index - start
    for config in {id(found): found for found in map(_config, module.modules()) if found is not None}.values():
        if config.num_hidden_layers == count:
            config.num_hidden_layers = end - start
            if len(getattr(config, "layer_types", None) or ()) == count:
                config.layer_types = config.layer_types[start:end]
    return module


def _config(module: nn.Module) -> Any:
    found = module.__dict__.get("config")
    return found if hasattr(found, "num_hidden_layers") else None


def _kind(found: Any) -> str:
    return f"a tensor of {found.dtype}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
