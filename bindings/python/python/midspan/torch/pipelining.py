"""Boundaries of ``torch.distributed.pipelining`` that are coded.

::

    stage = midspan.torch.pipelining.CodedStage(
        module, rank, world, device, codec_in=codecs.get(rank - 1), codec_out=codecs.get(rank)
    )
    schedule = torch.distributed.pipelining.ScheduleGPipe(stage, n_microbatches=2)
    output = schedule.eval(ids) if rank == 0 else schedule.eval()

Tried with PyTorch 2.15, gloo, ``ScheduleGPipe``, forward passes alone.
"""

from __future__ import annotations

from typing import Any, Dict, List, Literal, Optional, Tuple

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage

from .. import Codec
from ._streams import Receiver, Sender

__all__ = ["CodedStage"]


class CodedStage(PipelineStage):
    """A stage of a pipeline whose hidden states travel as Midspan's streams, one for each row of each microbatch.

    What a codec codes are tensors [B, T, E] of floats with its E; all others travel as they are. The stages on both
    sides of a boundary have to be of this class and be given the same codec for it, or none: they compare what they
    have with the first microbatch. Codecs that take side indices have them in the stream: the first stage takes them
    from its first argument if it is [B, T] of integers, and later ones from the stage before.

    For inference: ``schedule.eval``, or ``schedule.step`` within ``torch.no_grad``. Gradients do not pass a codec.

    Args:
        submodule, stage_index, num_stages, device: As for ``PipelineStage``.
        codec_in: The codec of the boundary to the stage before; ``None`` for a boundary without.
        codec_out: The codec of the boundary to the stage after; ``None`` for a boundary without.
        steps: ``"new"``, the default: each step's microbatches are texts of their own, and contexts begin anew.
            ``"continued"``: a microbatch goes on with the sequences that it had in the step before.
        settings: Those of :class:`midspan.torch.Sender`, for the boundary to the stage after.
        kwargs: Those of ``PipelineStage``.
    """

    def __init__(
        self,
        submodule: nn.Module,
        stage_index: int,
        num_stages: int,
        device: torch.device,
        *,
        codec_in: Optional[Codec] = None,
        codec_out: Optional[Codec] = None,
        steps: Literal["new", "continued"] = "new",
        settings: Optional[Dict[str, Any]] = None,
        **kwargs: Any,
    ) -> None:
        if steps not in ("new", "continued"):
            raise ValueError(f'steps is {steps!r}, not "new" or "continued"')
        super().__init__(submodule, stage_index, num_stages, device, **kwargs)
        self.bytes_sent = 0
        """Bytes of streams sent to the stage after."""
        self.plain_bytes = 0
        """Bytes that the same hidden states have as they are."""
        self._codec_in, self._codec_out = codec_in, codec_out
        self._new = steps == "new"
        self._settings = {"delivery": "sent", **(settings or {})}
        self._senders: Dict[int, Sender] = {}
        self._receivers: Dict[int, Receiver] = {}
        self._ids: Dict[int, Tensor] = {}
        self._sending: Dict[int, List[Tuple[Any, Tensor]]] = {}
        self._agreed_in = self._agreed_out = False

    def forward_one_chunk(self, fwd_chunk_id: int, args: Any, kwargs: Any = None, *more: Any, **named: Any) -> Any:
        first = args[0] if args else None
        if self.is_first and isinstance(first, Tensor) and first.dim() == 2 and not first.is_floating_point():
            self._ids[fwd_chunk_id] = first
        return super().forward_one_chunk(fwd_chunk_id, args, kwargs, *more, **named)

    def get_fwd_recv_ops(self, fwd_chunk_id: int) -> List[dist.P2POp]:
        """Receives what is coded at once, and returns the operations for the rest."""
        plain, operations = super().get_fwd_recv_ops(fwd_chunk_id), []
        if plain and not self._agreed_in:
            self._compare(plain[0])
        for operation in plain:
            if self._codec_in is not None and _codes(self._codec_in, operation.tensor):
                self._receive(fwd_chunk_id, operation)
            else:
                operations.append(operation)
        return operations

    def get_fwd_send_ops(self, fwd_chunk_id: int) -> List[dist.P2POp]:
        """Sends what is coded at once, so that no peer waits for it, and returns the operations for the rest."""
        self._wait(fwd_chunk_id)
        plain, operations = super().get_fwd_send_ops(fwd_chunk_id), []
        if plain and not self._agreed_out:
            self._post(fwd_chunk_id, plain[0], _fingerprint(self._codec_out).to(plain[0].tensor.device))
            self._agreed_out = True
        if plain and self._codec_out is not None and not any(_codes(self._codec_out, each.tensor) for each in plain):
            shapes = [list(each.tensor.shape) for each in plain]
            raise ValueError(f"the codec codes [B, T, {self._codec_out.hidden_width}], and the stage gives {shapes}")
        for operation in plain:
            if self._codec_out is not None and _codes(self._codec_out, operation.tensor):
                self._send(fwd_chunk_id, operation)
            else:
                operations.append(operation)
        return operations

    def _send(self, chunk: int, operation: dist.P2POp) -> None:
        assert self._codec_out is not None
        if self.has_backward:
            raise RuntimeError("gradients do not pass a codec: use schedule.eval")
        hidden = operation.tensor
        sender = self._senders.get(chunk)
        if sender is None:
            sender = self._senders[chunk] = Sender(self._codec_out, len(hidden), **self._settings)
        elif self._new:
            sender.reset()
        ids = self._ids.pop(chunk, None) if self._codec_out.takes_side else None
        streams = sender.push(hidden, ids)
        head = torch.tensor([len(streams), hidden.shape[1]], device=hidden.device)
        sizes = torch.tensor([len(stream) for stream in streams], device=hidden.device)
        data = torch.frombuffer(bytearray(b"".join(streams)), dtype=torch.uint8).to(hidden.device)
        self.bytes_sent += len(data)
        self.plain_bytes += hidden.numel() * hidden.element_size()
        for tensor in (head, sizes, data):
            self._post(chunk, operation, tensor)

    def release_fwd_send_outputs(self, fwd_chunk_id: int) -> None:
        """Waits for what was sent, as the schedule does for the operations that it has."""
        self._wait(fwd_chunk_id)
        super().release_fwd_send_outputs(fwd_chunk_id)

    def _post(self, chunk: int, operation: dist.P2POp, tensor: Tensor) -> None:
        """Begins to send a tensor to an operation's peer, and keeps it until it is sent."""
        work = dist.isend(tensor, operation.peer, operation.group)
        self._sending.setdefault(chunk, []).append((work, tensor))

    def _wait(self, chunk: int) -> None:
        for work, _ in self._sending.pop(chunk, ()):
            work.wait()

    def _compare(self, operation: dist.P2POp) -> None:
        """Checks that the stage before has the same codec."""
        own = _fingerprint(self._codec_in)
        other = torch.empty(32, dtype=torch.uint8, device=operation.tensor.device)
        dist.recv(other, operation.peer, operation.group)
        if not torch.equal(other.cpu(), own):
            found, wanted = (side.numpy().tobytes().hex()[:16] for side in (other.cpu(), own))
            raise ValueError(f"the stage before codes with the codec {found}, this one with {wanted} (0: none)")
        self._agreed_in = True

    def _receive(self, chunk: int, operation: dist.P2POp) -> None:
        assert self._codec_in is not None
        hidden = operation.tensor
        head = torch.empty(2, dtype=torch.int64, device=hidden.device)
        dist.recv(head, operation.peer, operation.group)
        if head.tolist() != list(hidden.shape[:2]):
            raise RuntimeError(f"the stage before sent {head.tolist()} rows and frames, not {list(hidden.shape[:2])}")
        sizes = torch.empty(len(hidden), dtype=torch.int64, device=hidden.device)
        dist.recv(sizes, operation.peer, operation.group)
        lengths = sizes.tolist()
        # More than codes of any values take, and far less than memory.
        most = 16 * hidden.shape[1] * hidden.shape[2] + 65_536
        if not all(0 <= length <= most for length in lengths):
            raise RuntimeError(f"the stage before announced streams of {lengths} bytes, not of 0 to {most}")
        data = torch.empty(sum(lengths), dtype=torch.uint8, device=hidden.device)
        dist.recv(data, operation.peer, operation.group)
        receiver = self._receivers.get(chunk)
        if receiver is None:
            receiver = self._receivers[chunk] = Receiver(self._codec_in, len(hidden))
        receiver.push([stream.numpy().tobytes() for stream in torch.split(data.cpu(), lengths)])
        decoded = receiver.take(hidden.shape[1])
        if decoded is None:
            raise RuntimeError(f"the stage before sent fewer than {hidden.shape[1]} frames")
        if receiver.ids is not None:
            self._ids[chunk] = receiver.ids
        with torch.no_grad():
            hidden.copy_(decoded)


def _fingerprint(codec: Optional[Codec]) -> Tensor:
    """What a stage says of its codec: 32 bytes, 0 without one."""
    return torch.frombuffer(bytearray(bytes(32) if codec is None else codec.fingerprint), dtype=torch.uint8)


def _codes(codec: Codec, tensor: Tensor) -> bool:
    return tensor.dim() == 3 and tensor.is_floating_point() and tensor.shape[-1] == codec.hidden_width
