"""The boundary between two pipeline stages of vLLM, coded by Midspan: one stream for each request.

vLLM hands the flattened batch of a step from stage to stage as a dictionary of tensors: `hidden_states` and, for most
models, `residual`, [N, E] each, the tokens of a request after one another. Its worker (`vllm/v1/worker/gpu_worker.py`,
`execute_model`) sends it by `get_pp_group().send_tensor_dict(output.tensors, ...)` and receives it by
`get_pp_group().recv_tensor_dict(...)`. A worker class of one's own (`--worker-cls`) puts this in between:

    class CodedWorker(Worker):
        def init_device(self):
            super().init_device()
            codec, group = midspan.Codec.load(os.environ["MIDSPAN_CODEC"]), get_pp_group()
            self.out, self.into = Boundary(codec), Boundary(codec)
            send, receive = group.send_tensor_dict, group.recv_tensor_dict
            group.send_tensor_dict = lambda tensors, *a, **k: send(self.out.encode(tensors, self.rows), *a, **k)
            group.recv_tensor_dict = lambda *a, **k: self.into.decode(receive(*a, **k), self.rows, self.device)

        def execute_model(self, scheduler_output):
            self.rows = rows_of(scheduler_output, self.model_runner)
            return super().execute_model(scheduler_output)

`rows_of` lists the step's requests in the order of the batch, with how many tokens each has and whether it begins: the
`num_scheduled_tokens` of the scheduler's output, in the order of the runner's `input_batch.req_ids`; a request begins
where it is new or resumed after preemption. Both stages get the same scheduler's output, so both make the same list.

What was run: `Boundary`, with batches as vLLM makes them, on a CPU (`tests/test_torch.py`). What was not: vLLM itself.
Its versions differ in the names above, and in whether sends are asynchronous. With tensor parallelism within a stage,
pass `all_gather_group=None`: bytes are no tensor of which each rank can send a slice.
"""

from typing import Dict, List, NamedTuple, Sequence

import torch
from torch import Tensor

import midspan


class Row(NamedTuple):
    """A request's part of a step."""

    request: str
    tokens: int
    """How many tokens it has in this step, 1 or more."""
    begins: bool
    """Whether its first token is among them."""
    ids: Sequence[int] = ()
    """The tokens, where the codec takes them: both stages know them from the scheduler."""


class Boundary:
    """One end of the boundary between two stages, for one direction."""

    def __init__(self, codec: midspan.Codec, **settings) -> None:
        self.codec, self.settings = codec, settings
        self.together = midspan.Together()
        self.sessions: Dict[str, object] = {}

    def _sessions_of(self, rows: List[Row], make) -> list:
        """The sessions of the rows; a request that begins gets a new one."""
        for row in rows:
            if row.begins or row.request not in self.sessions:
                self.sessions[row.request] = make()
        return [self.sessions[row.request] for row in rows]

    def _known(self, ids: Sequence[int]) -> List[int]:
        """Tokens that the codec does not know are none."""
        return [min(token, self.codec.side_vocabulary) for token in ids]

    def forget(self, requests) -> None:
        """Drops the sessions of finished requests: the `finished_req_ids` of the scheduler's output."""
        for request in requests:
            self.sessions.pop(request, None)

    def encode(self, tensors: Dict[str, Tensor], rows: List[Row]) -> Dict[str, Tensor]:
        """What travels in place of the tensors: the streams' bytes, their lengths, the shape and the type."""
        hidden = tensors["hidden_states"]
        residual = tensors.get("residual")
        # The next layer adds both before it uses either, so that their sum is all that it needs.
        total = (hidden if residual is None else hidden.float() + residual.float()).detach().cpu()
        encoders = self._sessions_of(rows, lambda: midspan.Encoder(self.codec, identity=b"", **self.settings))
        if self.codec.takes_side:
            for row, encoder in zip(rows, encoders):
                encoder.set_side(self._known(row.ids), "known")
        first = 0
        by_count: Dict[int, list] = {}
        for row, encoder in zip(rows, encoders):
            by_count.setdefault(row.tokens, []).append((encoder, total[first : first + row.tokens]))
            first += row.tokens
        for group in by_count.values():  # Requests with as many tokens step together.
            self.together.push_hidden([encoder for encoder, _ in group], torch.stack([part for _, part in group]))
        data = [encoder.take_bytes() for encoder in encoders]
        return {
            "data": torch.frombuffer(bytearray(b"".join(data)), dtype=torch.uint8),
            "lengths": torch.tensor([len(stream) for stream in data]),
            "like": torch.empty((len(hidden), 0), dtype=hidden.dtype),
            "residual": torch.tensor(residual is not None),
        }

    def decode(self, received: Dict[str, Tensor], rows: List[Row], device="cpu") -> Dict[str, Tensor]:
        """The tensors again. Rows of padding are 0, and the residual holds the sum."""
        like = received["like"]
        total = torch.zeros((len(like), self.codec.hidden_width), dtype=like.dtype)
        decoders = self._sessions_of(rows, lambda: midspan.Decoder(self.codec))
        streams = received["data"].split(received["lengths"].tolist())
        first = 0
        for row, decoder, stream in zip(rows, decoders, streams):
            decoder.push(stream.numpy())
            for event in decoder.events():
                if isinstance(event, midspan.Frames):
                    total[first : first + event.count] = torch.from_numpy(event.hidden).to(like.dtype)
                    first += event.count
                elif isinstance(event, midspan.SideWanted):
                    decoder.give_side(self._known(row.ids))
        assert first == sum(row.tokens for row in rows)
        total = total.to(device)
        if received["residual"]:
            return {"hidden_states": torch.zeros_like(total), "residual": total}
        return {"hidden_states": total}
