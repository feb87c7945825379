"""Batches of hidden states to bytes and back, one stream a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Literal, Optional, Sequence, Tuple, Union

import numpy
import torch
from torch import Tensor

from .. import (
    Codec,
    Decoder,
    Encoder,
    End,
    Error,
    Event,
    ExactFrame,
    Frames,
    HyperPrior,
    NeedMore,
    Rewound,
    SideIndices,
    SideWanted,
    Together,
    Working,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Ids", "Receiver", "Sender"]

VALUES = 1 << 21
"""The most values of a stream in one step."""
Ids = Union[Tensor, Sequence[Sequence[int]]]
"""Side indices, [B, T]: for a language model the tokens."""


class Sender:
    """Encodes batches, one stream a row, as byte streams.

    Args:
        codec: The codec model.
        rows: B, the number of streams; 1 by default.
        delivery: Where the far end has the side indices from, for a codec that takes them: ``"sent"``, the default, in
            the stream; or ``"known"``, from its caller, so that they take no bytes.
        threads: Threads over which the streams are spread, the caller's included; 1 by default.
        settings: Those of :class:`midspan.Encoder`, in joined mode and as a byte stream.

    A side index that the codec does not know, such as a token that no capture had, is coded as none.
    """

    def __init__(
        self,
        codec: Codec,
        rows: int = 1,
        *,
        delivery: Literal["known", "sent"] = "sent",
        threads: int = 1,
        **settings: Any,
    ) -> None:
        if settings.get("binding", "byte_stream") != "byte_stream" or settings.get("mode", "joined") != "joined":
            raise ValueError("a Sender writes byte streams in joined mode; use midspan.Encoder for others")
        if rows < 1:
            raise ValueError(f"{rows} rows: 1 or more")
        self.encoders: List[Encoder] = [Encoder(codec, **settings) for _ in range(rows)]
        """The streams' sessions, for all that is not a push: quality, rewinds, resets."""
        self._delivery = delivery
        self._together = Together(threads=threads)

    def push(
        self, hidden: Tensor, ids: Optional[Ids] = None, *, delivery: Optional[Literal["known", "sent"]] = None
    ) -> List[bytes]:
        """Encodes the next frames of all streams.

        Args:
            hidden: [B, T, E]; or [T, E] of one stream. float32, float16 or bfloat16, on any device, with or without
                gradients, which do not pass.
            ids: Side indices, [B, T], if the codec takes them.
            delivery: That of this push, if it is another: a prompt's tokens may be sent, and those that the far end
                chose known.

        Returns:
            The bytes of each stream that were not taken yet.

        Raises:
            ValueError: There is not one row, or one row of side indices, for each stream; a value is not finite; the
                codec takes side indices, and none are given.
            midspan.Error: As :meth:`midspan.Encoder.set_side` and :meth:`midspan.Together.push_hidden`. What other
                rows coded stays for :meth:`take`, and rows are no longer at one frame: begin new streams.
        """
        hidden = hidden.detach().cpu()
        if hidden.dim() == 2:
            hidden = hidden[None]
        if hidden.dim() != 3 or len(hidden) != len(self.encoders):
            raise ValueError(f"hidden states {list(hidden.shape)} for {len(self.encoders)} streams: [B, T, E]")
        finite = torch.isfinite(hidden).all(-1)
        if not finite.all():
            row, frame = torch.nonzero(~finite)[0].tolist()
            raise ValueError(f"a hidden state of row {row}, frame {frame} is not finite")
        rows = _rows(ids, self.encoders)
        codec = self.encoders[0].codec
        if rows is None and codec.takes_side:
            raise ValueError("the codec takes side indices: pass ids")
        # Pieces, so that what coding takes stays below the default memory limit. Chunks of at most 256 frames, the
        # default, are the same as without them.
        most = max(1, VALUES // (256 * codec.hidden_width)) * 256
        for start in range(0, max(hidden.shape[1], 1), most):
            for encoder, row in zip(self.encoders, rows or ()):
                encoder.set_side(row[start : start + most], delivery or self._delivery)
            self._together.push_hidden(self.encoders, hidden[:, start : start + most])
        return self.take()

    def take(self) -> List[bytes]:
        """The bytes of each stream that were not taken yet."""
        return [encoder.take_bytes() for encoder in self.encoders]

    def end(self) -> List[bytes]:
        """Ends all streams, and returns their last bytes."""
        for encoder in self.encoders:
            encoder.end()
        return self.take()

    def reset(self) -> None:
        """Begins a new context in every stream, for sequences that have nothing to do with those before."""
        for encoder in self.encoders:
            encoder.reset()


class Receiver:
    """Decodes byte streams, one a row, to batches.

    Args:
        codec: The codec model.
        rows: B, the number of streams; 1 by default.
        threads: Threads over which the streams are spread, the caller's included; 1 by default.
        settings: Those of :class:`midspan.Decoder`, for a byte stream in joined mode.

    Rows are taken together: where one stream has failed, take the others' frames from :attr:`decoders`.
    """

    def __init__(self, codec: Codec, rows: int = 1, *, threads: int = 1, **settings: Any) -> None:
        if settings.get("binding", "byte_stream") != "byte_stream":
            raise ValueError("a Receiver reads byte streams; use midspan.Decoder for another binding")
        if rows < 1:
            raise ValueError(f"{rows} rows: 1 or more")
        self.decoders: List[Decoder] = [Decoder(codec, **settings) for _ in range(rows)]
        """The streams' sessions."""
        self.events: List[Tuple[int, Event]] = []
        """What else happened in the last :meth:`take`, with its row: resets, rewinds, verdicts, the exact values of
        frames that were sent without loss."""
        self.ids: Optional[Tensor] = None
        """int64 [B, T]: the side indices of the frames of the last :meth:`take`, where the streams bring them; the
        codec's ``side_vocabulary`` for a frame that has none."""
        self._together = Together(threads=threads)
        self._rows = [_Row() for _ in range(rows)]

    def push(self, data: Sequence[bytes]) -> None:
        """Hands in bytes of each stream, cut anywhere; ``b""`` for a stream of which none came.

        Raises:
            ValueError: There is not one for each stream.
            midspan.Error: A stream failed before, with its ``row``. The others have their bytes.
        """
        if len(data) != len(self.decoders):
            raise ValueError(f"bytes of {len(data)} streams for {len(self.decoders)}")
        failed: Optional[Error] = None
        for row, (decoder, received) in enumerate(zip(self.decoders, data)):
            try:
                if received:
                    decoder.push(received)
            except Error as error:
                error.row = row
                failed = failed or error
        if failed is not None:
            raise failed

    def take(self, frames: Optional[int] = None, ids: Optional[Ids] = None) -> Optional[Tensor]:
        """Takes the next frames of all streams.

        Args:
            frames: T; by default as many as have come of every stream.
            ids: Side indices of the next frames, [B, T], if both ends know them.

        Returns:
            float32 [B, T, E]; None if some of the frames, or all, have not come.

        Raises:
            midspan.Error: The first error of a stream, with its ``row``. Frames that came before it can still be
                taken.
            ValueError: A stream waits for side indices that were not given; there is not one row of them for each
                stream; ``frames`` is below 1; a stream is in layered mode.
        """
        if frames is not None and frames < 1:
            raise ValueError(f"{frames} frames were asked for: 1 or more")
        failed: Optional[Error] = None
        known = _rows(ids, self.decoders)
        self.events = []
        active = list(range(len(self.decoders)))
        wanting: Optional[Tuple[int, int, int]] = None
        while active:
            outcomes = self._together.poll([self.decoders[row] for row in active])
            going = []
            for row, outcome in zip(active, outcomes):
                wanted_side = self.decoders[row].wanted_side
                if isinstance(outcome, Error):
                    outcome.row = row
                    failed = failed or outcome
                elif wanted_side is not None and isinstance(outcome, (NeedMore, SideWanted)):
                    index, count = wanted_side
                    first = index - self._rows[row].first
                    given = numpy.empty(0, numpy.int64) if known is None else known[row][first : first + count]
                    if len(given) < count:
                        wanting = wanting or (row, index, count)
                    else:
                        self.decoders[row].give_side(given)
                        going.append(row)
                elif isinstance(outcome, HyperPrior):
                    raise ValueError(f"the stream of row {row} is in layered mode: use midspan.Decoder")
                elif not isinstance(outcome, (NeedMore, End)):
                    going.append(row)
                    if not self._rows[row].take_in(outcome):
                        self.events.append((row, outcome))
            active = going
        ready = min((row.count for row in self._rows), default=0)
        wanted = ready if frames is None else frames
        if 0 < wanted <= ready:
            parts = [row.take_out(wanted) for row in self._rows]
            brought = [ids for _, ids in parts]
            self.ids = None if any(None in row for row in brought) else torch.tensor(brought)
            hidden = [torch.from_numpy(hidden) for hidden, _ in parts]
            return hidden[0][None] if len(hidden) == 1 else torch.stack(hidden)
        if failed is not None:
            raise failed
        if wanting is not None:
            row, index, count = wanting
            raise ValueError(f"row {row} waits for the side indices of {count} frames from frame {index} on: pass ids")
        return None


class _Row:
    """Frames of one stream that came and were not taken."""

    def __init__(self) -> None:
        self.first = 0
        """Absolute index of the next frame to be taken."""
        self.count = 0
        """How many have come."""
        self._hidden: List[NDArray[numpy.float32]] = []
        self._ids: Dict[int, int] = {}

    def take_in(self, event: Event) -> bool:
        """False for an event that is news to the caller."""
        if isinstance(event, (Frames, ExactFrame)):
            if self.count == 0:
                self.first = event.index
            self._hidden.append(event.hidden)
            self.count += event.count
            return isinstance(event, Frames)
        if isinstance(event, SideIndices):
            self._ids.update(enumerate(event.indices.tolist(), event.index))
            return True
        if isinstance(event, Rewound):
            kept = min(self.count, max(event.index - self.first, 0))
            self._hidden = [_joined(self._hidden)[:kept]] if kept else []
            self.first, self.count = min(self.first, event.index), kept
            self._ids = {index: value for index, value in self._ids.items() if index < event.index}
        return isinstance(event, Working)

    def take_out(self, frames: int) -> Tuple[NDArray[numpy.float32], List[Optional[int]]]:
        """Hidden states, [T, E], and side indices, [T], as far as the stream brought them."""
        hidden = _joined(self._hidden)
        self._hidden = [hidden[frames:]] if len(hidden) > frames else []
        ids = [self._ids.pop(index, None) for index in range(self.first, self.first + frames)]
        self.first += frames
        self.count -= frames
        return hidden[:frames], ids


def _joined(parts: List[NDArray[numpy.float32]]) -> NDArray[numpy.float32]:
    return parts[0] if len(parts) == 1 else numpy.concatenate(parts)


def _rows(ids: Optional[Ids], sessions: Sequence[Union[Encoder, Decoder]]) -> "Optional[List[NDArray[Any]]]":
    """Side indices by row. Those that a session's codec does not know are none."""
    if ids is None:
        return None
    if isinstance(ids, Tensor):
        held = ids.detach().cpu()
        rows = [row.numpy() for row in (held[None] if held.dim() == 1 else held)]
    else:
        rows = [numpy.asarray(row) for row in ids]
    if len(rows) != len(sessions):
        raise ValueError(f"side indices of {len(rows)} rows for {len(sessions)} streams")
    if not all(row.ndim == 1 and (row.dtype.kind in "iu" or row.size == 0) for row in rows):
        raise TypeError("side indices have to be integers, [B, T]")
    return [numpy.minimum(row, session.codec.side_vocabulary) for row, session in zip(rows, sessions)]
