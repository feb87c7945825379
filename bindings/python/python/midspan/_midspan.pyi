# Types of the extension module. Docstrings are those of the module itself: MIDSPAN_WRITE_STUBS=1 pytest
# tests/test_stubs.py writes them.
import os
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Literal, Protocol, Union, final

import numpy
from _typeshed import ReadableBuffer
from numpy.typing import NDArray
from typing_extensions import Self, TypeAlias

from ._chunks import Chunk
from ._errors import Error
from ._events import End, Event, NeedMore
from ._values import Cost, Header, Message, QualityInfo, SeekEntry, Sent

class _Tensor(Protocol):
    def __dlpack__(self) -> Any: ...

# NumPy's arrays have `__dlpack__` too, whatever their dtype is, so dtypes are checked when the call runs.
_Hidden: TypeAlias = _Tensor
_Integers: TypeAlias = _Tensor
_Indices: TypeAlias = Union[_Tensor, Sequence[int]]
_Binding: TypeAlias = Literal["byte_stream", "message", "file"]

__all__ = [
    "Codec",
    "Decoder",
    "Events",
    "Encoder",
    "error_text",
    "file_seek",
    "host_digest",
    "load_header",
    "Chunks",
    "Reader",
    "Together",
    "Writer",
    "__version__",
]
__version__: str

def error_text(number: int, /) -> str | None:
    """What the number of an error means: one sentence in lower case without a full stop, or None for a number that has no
    meaning. The text of an error that happened says more.
    """
def file_seek(header: ReadableBuffer, tail: ReadableBuffer, file_len: int, frame: int) -> SeekEntry:
    """Finds the place in a file at which to join, so as to read the frame with the absolute index ``frame`` (spec 2.10).

    Args:
        header: The file's first bytes, which must include the stream header.
        tail: The file's last bytes, which must include the seek index and the footer after it.
        file_len: The number of bytes of the file.
        frame: The absolute index.

    Returns:
        The last place whose frame is not above ``frame``: pass its offset and its frame to :meth:`Decoder.join`, and push
        the file's bytes from that offset on. With no such place the entry has offset 0: begin with the first byte. The
        index is not compared with the chunks: a join fails if no context begins there. It does not know the last frame
        either: a frame after the end gives the last place.

    Raises:
        StreamError: The header or the index is damaged or cut.
        CallerError: NOT_AVAILABLE for a stream that is no file; INVALID_ARGUMENT for a tail that is too short, with the
            needed number of bytes as ``wanted`` (12 are enough to learn it), or for a file shorter than its tail.
    """
def host_digest(files: Sequence[str | os.PathLike[str]]) -> bytes:
    """The digest of a host model's weights (spec 4.7), for ``host_digest`` of an :class:`Encoder` and a :class:`Decoder`. It
    depends on neither how the weights are spread over the files, nor on the order of the files. Of files larger than
    memory only their headers and 64 KiB at a time are read into it.

    Args:
        files: The paths of the model's safetensors files, in any order.

    Returns:
        SHA-256, 32 bytes.

    Raises:
        OSError: A file cannot be read.
        ValueError: A file is no safetensors file, two tensors have the same name, or there are no weights.
    """
def load_header(data: ReadableBuffer) -> tuple[Header, int]:
    """Reads the header at the beginning of a stream, in either binding, without a model.

    Args:
        data: The stream's first bytes, or its first message.

    Returns:
        The header, and how many bytes it takes.

    Raises:
        StreamError: 101 to 210, TRUNCATED for a header that is cut.
    """

@final
class Codec:
    """A codec model, prepared for this CPU.

    Load it once, with :meth:`load` or :meth:`from_bytes`, and share it: sessions keep no copy, any number of threads may
    use it, and sessions that share one step together. It does not change.
    """
    @classmethod
    def from_bytes(cls, file: ReadableBuffer, *, memory_limit: int = 1073741824) -> Self:
        """Reads a model file (spec chapter 4) from bytes.

        Args:
            file: The file's bytes, not needed afterwards.
            memory_limit: Bytes that the file, and the memory for parsing it, may take; 1 GiB by default, for files that
                are trusted.

        Raises:
            ModelError: 701 to 708 for a file that is no valid model.
            ResourceError: MEMORY_LIMIT.
        """
    @classmethod
    def load(cls, path: str | os.PathLike[str], *, memory_limit: int = 1073741824) -> Self:
        """Reads a model file (spec chapter 4) by its path. No more than ``memory_limit`` bytes of it are read.

        Args:
            path: The file's path.
            memory_limit: As in :meth:`from_bytes`.

        Raises:
            OSError: The file cannot be read.
            ModelError, ResourceError: As in :meth:`from_bytes`.
        """
    @property
    def fingerprint(self) -> bytes:
        """SHA-256 over all that a decoder uses (spec 4.6), 32 bytes. A stream names the model that it needs by it."""
    @property
    def version(self) -> int:
        """The model's version; information only."""
    @property
    def hidden_width(self) -> int:
        """E, values of a hidden state."""
    @property
    def hyper_prior_width(self) -> int:
        """C, values of W in a frame."""
    @property
    def qualities(self) -> int:
        """Q, how many qualities it has: 0 is the coarsest of the default model."""
    @property
    def has_encoder(self) -> bool:
        """Whether the model holds what an encoder needs (spec 4.5)."""
    @property
    def takes_side(self) -> bool:
        """Whether it takes a side index for every frame (spec 6.12)."""
    @property
    def side_vocabulary(self) -> int:
        """V: side indices are 0 to V - 1, and V says that a frame has none. 0 if the model takes none."""
    @property
    def side_ages(self) -> int:
        """A: how many side indices say something of a frame, its own and those of frames before it. 0 if the model takes
        none.
        """
    @property
    def predicted_from(self) -> int:
        """P, how many frames back Y is predicted from (spec 4.9); 0 if the model does not predict. If it does, it cannot be
        used in layered mode.
        """
    @property
    def w_range(self) -> tuple[int, int]:
        """The smallest and the largest value of W."""
    @property
    def y_range(self) -> tuple[int, int]:
        """The smallest and the largest value of Y."""
    def quality(self, quality: int) -> QualityInfo:
        """What the model says about one of its qualities.

        Raises:
            CallerError: UNKNOWN_QUALITY.
        """
    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self, /) -> int: ...

@final
class Encoder:
    """Encodes one stream: hidden states or integers in, bytes out (spec chapter 6).

    Call order: any of the pushes and control calls, then :meth:`end`. Output can be taken at any time, with
    :meth:`take_bytes` or, in the message binding, :meth:`pop_message` and :meth:`take_messages`. A call that fails
    changes nothing, unless it says so. One call at a time may use an encoder, from any thread; calls that code release
    the interpreter's lock. A signal, such as Ctrl-C, is handled after the call: cut large inputs into pushes.

    Hidden states are float32, float16 or bfloat16, as a NumPy array or as any object with ``__dlpack__`` whose memory is
    the CPU's, such as a ``torch.Tensor``: [T, E], [E] for one frame, or [1, T, E]. Values of float32 are read where they
    are if they are contiguous, row by row. The other types are converted once, without loss. Do not write to them in
    another thread during the call.

    Args:
        codec: The codec model.
        identity: Eight bytes that no other stream has, so that bytes spliced in from another stream are found (spec
            2.2). None, the default, takes them from ``os.urandom``. ``b""`` means no identity: only for transports that
            keep streams apart, and where equal input must give equal bytes.
        mode: ``"joined"``, the default, or ``"layered"`` (spec 6.1, 6.5).
        binding: ``"byte_stream"``, the default; ``"message"``; or ``"file"``, a byte stream with a seek index.
        check: Bytes of the check of each chunk of frames: 1 by default, 0 or 2. 0 only for transports that find damage
            themselves, as TLS and QUIC do.
        quality: Quality index at the start, 0 by default.
        host_digest: SHA-256 of the host model's weights (spec 4.7), 32 bytes, if the decoder is to compare it.
        max_frames_per_chunk: Most frames of a chunk, 1 to 2^20, 256 by default; larger batches are split.
        max_chunk_bytes: Most bytes of a chunk's body, 72 to 2^30, 4 MiB by default.
        max_rewind: How many frames a rewind may go back, 0 to 2^20, 64 by default.
        target_horizon: Layered mode: how many frames back the oldest frame without a target may be, 1 to 28,672, 1,024 by
            default.
        datagram_limit: Layered mode: no message that holds a target is longer than this many bytes, at least 256. None,
            the default, sets no limit.
        checkpoint_interval: A checkpoint is sent whenever this many frames were coded since the last one, 256 by default.
            With 0 only :meth:`checkpoint` sends one.
        lanes: Lanes of a batch chunk (spec 2.6), 1 to 1,024, 1 by default.
        rate_weight: Squared quantiser steps given for one bit when Y is chosen (spec 6.8); 0 sends the nearest integers.
            None, the default, takes the model's own weight.
        length_offset: The length offset (spec 2.3), 0 to 16,383. None, the default, takes the model's.
        memory_limit: Bytes that the session may hold, 64 MiB by default: contexts, output not yet taken, and what coding
            a push takes.
        clipping: What happens to hidden states more than half a step outside the range of the quality: ``"report"``, the
            default, clamps and counts them; ``"refuse"`` refuses the push.
        fields: Optional fields of the stream header: pairs of an even id and bytes, in ascending order of id. None by
            default.
        keep_integers: Whether pushes keep W and Y for :attr:`last_integers`; False by default, unlike in Rust and C,
            because copies take time and few callers want them.
        track_cost: Whether pushes compute their ideal bits for :attr:`last_cost`; False by default.
        threads: Threads for batches, the caller's included; 1 by default. The bytes stay the same.

    Raises:
        CallerError: BAD_CONFIG for a setting out of its range; UNKNOWN_QUALITY; INVALID_ARGUMENT; PREDICTION_LAYERED for
            layered mode with a model that predicts.
        ResourceError: MEMORY_LIMIT if the contexts may come to more than ``memory_limit``.
    """
    def __new__(
        cls,
        codec: Codec,
        *,
        identity: ReadableBuffer | None = None,
        mode: Literal["joined", "layered"] = "joined",
        binding: _Binding = "byte_stream",
        check: Literal[0, 1, 2] = 1,
        quality: int = 0,
        host_digest: ReadableBuffer | None = None,
        max_frames_per_chunk: int = 256,
        max_chunk_bytes: int = 4194304,
        max_rewind: int = 64,
        target_horizon: int = 1024,
        datagram_limit: int | None = None,
        checkpoint_interval: int = 256,
        lanes: int = 1,
        rate_weight: float | None = None,
        length_offset: int | None = None,
        memory_limit: int = 67108864,
        clipping: Literal["report", "refuse"] = "report",
        fields: Sequence[tuple[int, ReadableBuffer]] | None = None,
        keep_integers: bool = False,
        track_cost: bool = False,
        threads: int = 1,
    ) -> Self: ...
    @classmethod
    def restore(
        cls,
        codec: Codec,
        saved: ReadableBuffer,
        *,
        memory_limit: int = 67108864,
        keep_integers: bool = False,
        track_cost: bool = False,
        threads: int = 1,
    ) -> Self:
        """Restores the encoder that :meth:`save` wrote, in this process or another.

        Args:
            codec: The codec model that was in force.
            saved: What :meth:`save` gave.
            memory_limit, keep_integers, track_cost, threads: As for a new encoder; they are not saved.

        Raises:
            CallerError: WRONG_MODEL with the fingerprint of the right one as ``found``; SAVED_SESSION for bytes that are
                damaged or of another version.
            ResourceError: MEMORY_LIMIT.
        """
    def save(self) -> bytes:
        """The session as bytes, output not yet taken included, for :meth:`restore`. Their form belongs to this version of
        the library.
        """
    def fork(self) -> Self:
        """A second encoder that goes on from the same place, with the same output not yet taken. ``copy.copy`` does the
        same.
        """
    def __copy__(self) -> Self: ...
    def close(self) -> None:
        """Frees the session, with output not yet taken. Every later call raises AFTER_END; a second ``close`` does nothing."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_exception: type[BaseException] | BaseException | TracebackType | None) -> None: ...
    def set_side(self, indices: _Indices, delivery: Literal["known", "sent"]) -> None:
        """Gives the side indices of the frames of the next push, one for each (spec 6.12). If the model takes side indices,
        every push needs such a call before it. A second call replaces what the first one gave. They stay until a push
        uses them, even if one is refused, and through resets and rewinds; a model switch drops them.

        Args:
            indices: Integers of any size, [T]: an array, a tensor or a sequence. V, the model's ``side_vocabulary``, says
                that a frame has none; of a token that the model does not know, give ``min(token, V)``.
            delivery: Where the decoder has them from: ``"known"``, its own caller, so that they take no bytes; or
                ``"sent"``, the stream, ahead of their frames.

        Raises:
            CallerError: WRONG_SIDE_INDICES for an index above V or below 0, or if the model takes none; AFTER_END.
            ResourceError: MEMORY_LIMIT.
        """
    def push_hidden(self, hidden: _Hidden) -> None:
        """Codes hidden states: one frame gives a one-frame chunk, more give batch chunks.

        Values more than half a step outside the range of the quality are clamped and counted (:attr:`last_clipped`), or
        refused if ``clipping`` says so.

        Args:
            hidden: [T, E], [E] or [1, T, E], with T of 1 or more; see the class.

        Raises:
            TypeError: It is no array or tensor, or has another dtype.
            CallerError: WRONG_SHAPE; HIDDEN_NOT_FINITE with the ``element`` of the first value that is NaN or infinite;
                HIDDEN_CLIPPED; FLOAT_MODE if the thread's floating-point unit does not round to nearest or flushes
                subnormal numbers, as after ``torch.set_flush_denormal(True)``; NOT_AVAILABLE without an encoder's part in
                the model; WRONG_SIDE_INDICES if :meth:`set_side` gave another number of indices; AFTER_END;
                INVALID_ARGUMENT for a tensor on a device.
            MemoryError: There is none for the conversion.
            BufferError: What the tensor's own library does not give out, such as a tensor that needs gradients: detach it.
            ResourceError: MEMORY_LIMIT: take the output, and call again.
        """
    def push_y(self, y: _Integers) -> None:
        """Codes target integers Y; W comes from the network h.

        Args:
            y: int16, [T, E], [E] or [1, T, E].

        Raises:
            As :meth:`push_hidden`, and CallerError VALUE_OUT_OF_RANGE with the ``element`` of a value out of the model's
            range.
        """
    def push_integers(self, y: _Integers, w: _Integers) -> None:
        """Codes target integers Y, with hyper-prior integers W of the caller's choice. The model needs no encoder's part.

        Args:
            y: int16, [T, E], [E] or [1, T, E].
            w: int16, [T, C], [C] or [1, T, C].

        Raises:
            As :meth:`push_y`.
        """
    def push_exact(self, hidden: _Hidden) -> None:
        """Codes one frame as usual and adds its hidden state without loss, in its own type (spec 6.9). Values outside the
        range of the quality are counted and never refused.

        Args:
            hidden: [E], [1, E] or [1, 1, E]; see the class.

        Raises:
            As :meth:`push_hidden`, and CallerError CHUNK_TOO_LONG if it does not fit ``max_chunk_bytes``.
        """
    def quantise(self, hidden: _Hidden) -> NDArray[numpy.int16]:
        """The integers nearest to hidden states, int16 [T, E], without coding them (spec 6.8). Values outside the range are
        clamped or refused, as ``clipping`` says. If the rate weight is above 0, :meth:`push_hidden` may send others.

        Raises:
            As :meth:`push_hidden`.
        """
    def checkpoint(self) -> None:
        """Sends a checkpoint: absolute index and both digests.

        Raises:
            CallerError: AFTER_END.
            ResourceError: MEMORY_LIMIT: take the output, and call again.
        """
    def reset(self) -> None:
        """Begins a new context; a decoder may join there.

        Raises:
            As :meth:`checkpoint`.
        """
    def rewind(self, index: int) -> None:
        """Moves the timeline back, so that the frame with the absolute index ``index`` is the next one again.

        Raises:
            CallerError: REWIND_TARGET for an index before the context or not back at all; REWIND_TOO_FAR; AFTER_END.
            ResourceError: MEMORY_LIMIT.
        """
    def set_quality(self, quality: int) -> None:
        """Switches to another quality from the next frame on, in the same context.

        Raises:
            CallerError: UNKNOWN_QUALITY; AFTER_END.
            ResourceError: MEMORY_LIMIT.
        """
    def switch_model(self, codec: Codec, quality: int) -> None:
        """Switches to another model, in this quality, from the next frame on, in a new context. The decoder must have it.

        Raises:
            CallerError: UNKNOWN_QUALITY; WRONG_SIDE_FLAG if one model takes side indices and the other does not;
                PREDICTION_LAYERED; BAD_CONFIG; AFTER_END.
            ResourceError: MEMORY_LIMIT.
        """
    def extension(self, id: int, data: ReadableBuffer) -> None:
        """Sends an ignorable extension (spec 2.8).

        Raises:
            CallerError: CHUNK_TOO_LONG; AFTER_END.
            ResourceError: MEMORY_LIMIT.
        """
    def end(self) -> None:
        """Ends the stream. Take the output afterwards. No memory limit refuses this call.

        Raises:
            CallerError: AFTER_END if it has ended.
        """
    def take_bytes(self) -> bytes:
        """Takes the bytes written since the last call, in a byte stream or file. There may be none.

        Raises:
            CallerError: NOT_AVAILABLE in the message binding.
        """
    def pop_message(self) -> Message | None:
        """Takes the next message, in the message binding; None if all were taken.

        Raises:
            CallerError: NOT_AVAILABLE in a byte stream or file.
        """
    def take_messages(self) -> list[Message]:
        """Takes all messages that were written, in order; none if there is none.

        Raises:
            As :meth:`pop_message`.
        """
    @property
    def untaken_bytes(self) -> int:
        """How many bytes :meth:`take_bytes` would give; 0 in the message binding."""
    @property
    def next_message(self) -> Message | None:
        """The message that :meth:`pop_message` would give, which stays; None if all were taken, or in a byte stream or file."""
    @property
    def codec(self) -> Codec:
        """The codec model in force."""
    @property
    def next_index(self) -> int:
        """Absolute index of the next frame."""
    @property
    def last_integers(self) -> tuple[NDArray[numpy.int16], NDArray[numpy.int16]] | None:
        """W, int16 [T, C], and Y, int16 [T, E], of the last push, as copies; None unless the encoder keeps integers."""
    @property
    def last_cost(self) -> Cost | None:
        """Bits of the last push by the frozen tables; None unless the encoder tracks cost."""
    @property
    def last_clipped(self) -> int:
        """How many values of the last push were more than half a step outside the range of the quality and were clamped."""
    @property
    def sent(self) -> Sent:
        """Sums over all frames since the session began. Forks and restored sessions keep counting."""
    @property
    def recently_sent(self) -> Sent:
        """The same sums over recent frames of the model in force, on which :attr:`unlike` judges."""
    @property
    def unlike(self) -> str | None:
        """How what the session sends is unlike what the model in force was made for, by the last few hundred frames: one
        sentence. None if it is not, and with fewer than 128 frames.
        """
    @property
    def memory_bytes(self) -> int:
        """Bytes that the session holds in addition to its model."""

@final
class Decoder:
    """Decodes one stream: bytes in, hidden states and integers out (spec chapter 6).

    Call order: :meth:`push` or :meth:`push_message` as input comes, each followed by :meth:`events`, or :meth:`poll`
    until it needs more; :meth:`finish` at the end of input. An error of the stream is final: every later call raises it
    again, and everything handed out before it stays valid. A signal during a poll, such as Ctrl-C, loses no event: the
    next poll gives it. One call at a time may use a decoder, from any thread; polls release the interpreter's lock.

    ::

        decoder.push(received)
        for event in decoder.events():
            if isinstance(event, midspan.Frames):
                second_half(event.hidden)

    The defaults of all limits are those for a peer that nobody trusts (spec 7.2). Limits are arguments of their own, where
    Rust and C have a struct.

    Args:
        codec: The codec model.
        models: Further models that the stream may name, in its header or in a model switch; none by default.
        binding: ``"byte_stream"``, the default, which reads files too, as ``"file"`` does; or ``"message"``.
        max_frames: Most frames of a chunk, 256 by default, 2^20 at most.
        max_chunk_bytes: Most bytes of a chunk's body, 4 MiB by default, 2^30 at most.
        max_rewind: Most frames that a rewind goes back, 1,024 by default, 2^20 at most.
        target_horizon: Most frames that may wait for their target, 1,024 by default, 28,672 at most.
        early_bytes: Most bytes of early targets that are kept, and of datagrams that wait to be polled; 1 MiB by default.
        memory_limit: Bytes that the session may hold, 64 MiB by default. A chunk that would exceed it is refused before
            anything is set aside for it. Input that was pushed and not yet polled does not count: the caller controls it.
        frames_per_poll: Most frames that one poll decodes, 64 by default. A longer chunk takes several polls, each but
            the last with a :class:`Working`.
        host_digest: SHA-256 of the host model's weights (spec 4.7), 32 bytes: a header that states another one, or none,
            is refused. None, the default, accepts any.
        keep_integers: Whether :class:`Frames` and :class:`ExactFrame` bring W and Y; False by default, unlike in Rust and
            C, because copies take time and few callers want them. Events of layered mode always bring theirs.
        threads: Threads for batches, the caller's included; 1 by default. The values stay the same.

    Raises:
        CallerError: INVALID_ARGUMENT.
    """
    def __new__(
        cls,
        codec: Codec,
        *,
        models: Sequence[Codec] | None = None,
        binding: _Binding = "byte_stream",
        max_frames: int = 256,
        max_chunk_bytes: int = 4194304,
        max_rewind: int = 1024,
        target_horizon: int = 1024,
        early_bytes: int = 1048576,
        memory_limit: int = 67108864,
        frames_per_poll: int = 64,
        host_digest: ReadableBuffer | None = None,
        keep_integers: bool = False,
        threads: int = 1,
    ) -> Self: ...
    @classmethod
    def join(
        cls,
        codec: Codec,
        header: ReadableBuffer,
        offset: int,
        index: int | None = None,
        *,
        models: Sequence[Codec] | None = None,
        binding: _Binding = "byte_stream",
        max_frames: int = 256,
        max_chunk_bytes: int = 4194304,
        max_rewind: int = 1024,
        target_horizon: int = 1024,
        early_bytes: int = 1048576,
        memory_limit: int = 67108864,
        frames_per_poll: int = 64,
        host_digest: ReadableBuffer | None = None,
        keep_integers: bool = False,
        threads: int = 1,
    ) -> Self:
        """A decoder that begins at a context reset or model switch in the middle of a stream (spec 6.6). There is no event
        for the header.

        Args:
            codec: The codec model; the one in force at that place must be this or one of ``models``.
            header: The stream's first bytes, which must include the stream header; in the message binding its first
                message.
            offset: The place of the first byte that will be pushed, from the first byte of the stream.
            index: The absolute index of the next frame there, if a seek index gave it; None by default.
            The others: As for a new decoder.

        Raises:
            StreamError: 101 to 210, TRUNCATED for a header that is cut.
            ModelError: WRONG_HOST.
        """
    @classmethod
    def restore(
        cls,
        codec: Codec,
        saved: ReadableBuffer,
        *,
        models: Sequence[Codec] | None = None,
        binding: _Binding = "byte_stream",
        max_frames: int = 256,
        max_chunk_bytes: int = 4194304,
        max_rewind: int = 1024,
        target_horizon: int = 1024,
        early_bytes: int = 1048576,
        memory_limit: int = 67108864,
        frames_per_poll: int = 64,
        host_digest: ReadableBuffer | None = None,
        keep_integers: bool = False,
        threads: int = 1,
    ) -> Self:
        """Restores the decoder that :meth:`save` wrote, in this process or another. The limits must allow what the stream
        declared.

        Args:
            codec: The codec model; the one that was in force must be this or one of ``models``.
            saved: What :meth:`save` gave.
            The others: As for a new decoder; they are not saved.

        Raises:
            CallerError: WRONG_MODEL with the fingerprint of the right one as ``found``; SAVED_SESSION for bytes that are
                damaged, of another version, or saved under other limits.
            ResourceError: MEMORY_LIMIT.
        """
    def save(self) -> bytes:
        """The session as bytes, input not yet polled included, for :meth:`restore`. Their form belongs to this version of
        the library.

        Raises:
            CallerError: NOT_AVAILABLE while there are events to be polled.
            Error: The stream's, if it had one.
        """
    def fork(self) -> Self:
        """A second decoder that goes on from the same place. ``copy.copy`` does the same."""
    def __copy__(self) -> Self: ...
    def close(self) -> None:
        """Frees the session. Every later call raises AFTER_END; a second ``close`` does nothing."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_exception: type[BaseException] | BaseException | TracebackType | None) -> None: ...
    def add_model(self, codec: Codec) -> None:
        """Adds a model that the stream may name, in its header or in a model switch."""
    def push(self, data: ReadableBuffer) -> None:
        """Hands in bytes of a byte stream or file, cut anywhere. They are copied, and no limit holds for them: poll before
        more is pushed.

        Args:
            data: ``bytes``, or any object with a buffer.

        Raises:
            Error: The stream's, if it had one.
            CallerError: AFTER_END after :meth:`finish`; NOT_AVAILABLE in the message binding.
        """
    def push_message(self, message: ReadableBuffer) -> None:
        """Hands in one message, whole; an empty one is skipped.

        Raises:
            As :meth:`push`, and CallerError NOT_AVAILABLE in a byte stream.
        """
    def push_datagram(self, datagram: ReadableBuffer) -> None:
        """Hands in a datagram, which should be one message of class ``"droppable"``: in both bindings, at any time, also
        after :meth:`finish`. Any bytes are allowed: each datagram that is not empty gives one event, and none ends the
        session.

        Raises:
            Error: The stream's, if it had one.
        """
    def finish(self) -> None:
        """Says that no more input comes: an unfinished stream is an error from then on, instead of a wait."""
    def poll(self) -> Event | NeedMore | End:
        """What happened next: one of the events, :class:`NeedMore` or :class:`End`.

        Raises:
            StreamError, ModelError, ResourceError: The stream's first error, at every later call again.
            CallerError: TARGET_OVERDUE, WRONG_SIDE_INDICES: these are not final. Conceal, or give what is wanted, and
                poll again.
        """
    def events(self) -> Events:
        """An iterator of the events up to the place where more input is needed, or to the end; or up to a
        :class:`SideWanted` or :class:`TargetsOverdue` that nobody answered before the next step. Each step is a poll, and
        raises what that raises otherwise. Handle each event in the loop: a list of them is lost if a later step raises.
        Calls of the decoder between two steps are allowed.
        """
    def __iter__(self, /) -> Events: ...
    def give_side(self, indices: _Indices) -> None:
        """Gives the side indices that :class:`SideWanted` asks for, one for each of its frames. Poll again afterwards.

        Args:
            indices: Integers of any size, [T]: an array, a tensor or a sequence. V, the model's ``side_vocabulary``, says
                that a frame has none; of a token that the model does not know, give ``min(token, V)``.

        Raises:
            CallerError: WRONG_SIDE_INDICES for another number of indices, for one above V or below 0, or if no chunk
                waits for any. Nothing changes then.
            Error: The stream's, if it had one.
        """
    @property
    def wanted_side(self) -> tuple[int, int] | None:
        """The frames whose side indices a chunk waits for: the absolute index of the first one, and how many. None if no
        chunk waits for any.
        """
    def conceal(self, index: int, count: int = 1) -> None:
        """Conceals pending frames with the network's means: one :class:`Targets` with them follows. Elements that came in
        parts keep their values.

        Args:
            index: Absolute index of the first frame.
            count: How many; 1 by default.

        Raises:
            CallerError: FRAME_NOT_PENDING unless all of them are pending. Nothing changes then.
            Error: The stream's, if it had one.
        """
    def missing_elements(self, index: int) -> list[range] | None:
        """The elements of a pending frame that have not come, as ranges in ascending order: one of all elements if no part
        came. None if the frame is not pending.
        """
    @property
    def oldest_pending(self) -> int | None:
        """Absolute index of the oldest frame whose target is pending, in layered mode; None if there is none."""
    @property
    def codec(self) -> Codec:
        """The codec model in force."""
    @property
    def next_index(self) -> int:
        """Absolute index of the next frame."""
    @property
    def confirmed_index(self) -> int:
        """Absolute index before which digests confirmed W and Y of every frame."""
    @property
    def resume_index(self) -> int:
        """Absolute index before which digests confirmed W of every frame: from there the encoder can go on."""
    @property
    def memory_bytes(self) -> int:
        """Bytes that the session holds in addition to its models."""

@final
class Events(Iterator[Event]):
    """The events of a decoder up to the place where more input is needed, or an answer."""
    def __iter__(self, /) -> Self: ...
    def __next__(self, /) -> Event: ...

@final
class Together:
    """Steps many streams in one call: their networks' weights are read once for the next frames of all. Each stream's bytes
    and values are those that it would have alone. Large networks gain from this.

    It holds scratch memory alone: each call may have any sessions, which can still be used one by one. Those of one
    :class:`Codec` share the work.

    Args:
        threads: Threads over which streams are spread, the caller's included; 1 by default.
    """
    def __new__(cls, *, threads: int = 1) -> Self: ...
    def push_hidden(self, encoders: Sequence[Encoder], hidden: _Hidden) -> None:
        """Codes the next frames of many streams: row b of ``hidden`` goes to ``encoders[b]``.

        Args:
            encoders: The sessions, each once.
            hidden: [B, T, E], with T of 1 or more and the same for all; otherwise as for :meth:`Encoder.push_hidden`. Rows
                of float32 are read where they are, if the batch is contiguous.

        Raises:
            Error: A row failed as :meth:`Encoder.push_hidden` does: the first such row's error, with its ``row``, and the
                ``errors`` of all rows that failed. All other rows were coded.
            MemoryError, BufferError: As in :meth:`Encoder.push_hidden`. Nothing was coded.
            TypeError, CallerError: The batch has another dtype or shape, or is on a device, or a session is closed, busy or
                given twice. Nothing was coded.
        """
    def push_y(self, encoders: Sequence[Encoder], y: _Integers) -> None:
        """Codes target integers of many streams: row b of ``y`` goes to ``encoders[b]``.

        Args:
            encoders: The sessions, each once.
            y: int16, [B, T, E], with T of 1 or more.

        Raises:
            As :meth:`push_hidden`.
        """
    def poll(self, decoders: Sequence[Decoder]) -> list[Event | NeedMore | End | Error]:
        """What happened next in each of many streams, in their order: what :meth:`Decoder.poll` gives, or, for a stream that
        failed, the error that it would raise, as a value, so that nothing of the others is lost.

        Args:
            decoders: The sessions, each once.

        Raises:
            CallerError: A session is closed, busy or given twice. Nothing was polled.
        """
    @property
    def memory_bytes(self) -> int:
        """Bytes of scratch memory, which grows to what the largest step needs."""

@final
class Reader:
    """Reads the chunks of one stream (spec chapter 2). It needs no model, and says nothing about what the payloads hold.

    Call order: :meth:`push` or :meth:`push_message` as input comes, each followed by :meth:`chunks`, or :meth:`poll` until
    it needs more; :meth:`finish` at the end of input. An error of the stream is final. One call at a time may use a
    reader, from any thread.

    Args:
        binding: ``"byte_stream"``, the default, which reads files too, as ``"file"`` does; or ``"message"``.
        max_frames, max_chunk_bytes, max_rewind, target_horizon, early_bytes: The most that is accepted from a peer; as
            for a :class:`Decoder`.

    Raises:
        CallerError: INVALID_ARGUMENT.
    """
    def __new__(
        cls,
        *,
        binding: _Binding = "byte_stream",
        max_frames: int = 256,
        max_chunk_bytes: int = 4194304,
        max_rewind: int = 1024,
        target_horizon: int = 1024,
        early_bytes: int = 1048576,
    ) -> Self: ...
    @classmethod
    def join(
        cls,
        header: ReadableBuffer,
        offset: int,
        index: int | None = None,
        *,
        binding: _Binding = "byte_stream",
        max_frames: int = 256,
        max_chunk_bytes: int = 4194304,
        max_rewind: int = 1024,
        target_horizon: int = 1024,
        early_bytes: int = 1048576,
    ) -> Self:
        """A reader that joins a stream at a context reset or model switch; the arguments are those of :meth:`Decoder.join`.

        Raises:
            StreamError: 101 to 210, TRUNCATED for a header that is cut.
        """
    @classmethod
    def restore(
        cls,
        saved: ReadableBuffer,
        *,
        binding: _Binding = "byte_stream",
        max_frames: int = 256,
        max_chunk_bytes: int = 4194304,
        max_rewind: int = 1024,
        target_horizon: int = 1024,
        early_bytes: int = 1048576,
    ) -> Self:
        """Restores the reader that :meth:`save` wrote; the arguments are those of a new one.

        Raises:
            CallerError: SAVED_SESSION, also for a reader of another binding.
        """
    def save(self) -> bytes:
        """The reader as bytes, input not yet polled included, for :meth:`restore`.

        Raises:
            StreamError: The reader's own error, if it failed.
        """
    def fork(self) -> Self:
        """A second reader that goes on from the same place. ``copy.copy`` does the same."""
    def __copy__(self) -> Self: ...
    def close(self) -> None:
        """Frees the reader. Every later call raises AFTER_END; a second ``close`` does nothing."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_exception: type[BaseException] | BaseException | TracebackType | None) -> None: ...
    def push(self, data: ReadableBuffer) -> None:
        """Hands in bytes of a byte stream or file, cut anywhere. They are copied.

        Raises:
            StreamError, ResourceError: The stream's error, if it had one.
            CallerError: AFTER_END after :meth:`finish`; NOT_AVAILABLE in the message binding.
        """
    def push_message(self, message: ReadableBuffer) -> None:
        """Hands in one message, whole; an empty one is skipped.

        Raises:
            As :meth:`push`, and CallerError NOT_AVAILABLE in a byte stream.
        """
    def push_datagram(self, datagram: ReadableBuffer) -> None:
        """Hands in a datagram. Any bytes are allowed: each datagram that is not empty gives one target chunk, and none ends
        the stream.

        Raises:
            StreamError, ResourceError: The stream's error, if it had one.
        """
    def finish(self) -> None:
        """Says that no more input comes: an unfinished stream is an error from then on, instead of a wait."""
    def poll(self) -> Chunk | NeedMore | End:
        """The next chunk, :class:`NeedMore` or :class:`End`.

        Raises:
            StreamError, ModelError, ResourceError: The stream's first error, at every later call again: 101 to 408 and
                502.
        """
    def chunks(self) -> Chunks:
        """An iterator of the chunks up to the place where more input is needed, or to the end. Each step is a poll, and
        raises what that raises. Handle each chunk in the loop: a list of them is lost if a later step raises.
        """
    def __iter__(self, /) -> Chunks: ...
    @property
    def header(self) -> Header | None:
        """The stream header, once it was read; None before."""
    @property
    def offset(self) -> int:
        """The offset of the first byte that no chunk covers yet."""
    @property
    def memory_bytes(self) -> int:
        """Bytes that the reader holds."""

@final
class Chunks(Iterator[Chunk]):
    """The chunks of a reader up to the place where more input is needed."""
    def __iter__(self, /) -> Self: ...
    def __next__(self, /) -> Chunk: ...

@final
class Writer:
    """Writes the chunks of one stream, under the rules that a reader applies (spec chapter 2), without a model. Payloads are
    opaque to it, but none may end in the byte 0. A call that breaks a rule changes nothing. One call at a time may use a
    writer, from any thread.

    Args:
        header: The stream's :class:`Header`, whose binding the writer follows; it is the first output.

    Raises:
        CallerError: BAD_CONFIG for a field of the header that is out of its range; INVALID_ARGUMENT.
        TypeError, OverflowError: The header is none, or a field of it has another type, or is a number beyond its type.
    """
    def __new__(cls, header: Header) -> Self: ...
    @classmethod
    def restore(cls, saved: ReadableBuffer) -> Self:
        """Restores the writer that :meth:`save` wrote.

        Raises:
            CallerError: SAVED_SESSION.
        """
    def save(self) -> bytes:
        """The writer as bytes, output not yet taken included, for :meth:`restore`."""
    def fork(self) -> Self:
        """A second writer that goes on from the same place. ``copy.copy`` does the same."""
    def __copy__(self) -> Self: ...
    def close(self) -> None:
        """Frees the writer, with output not yet taken. Every later call raises AFTER_END; a second ``close`` does nothing."""
    def __enter__(self) -> Self: ...
    def __exit__(self, *_exception: type[BaseException] | BaseException | TracebackType | None) -> None: ...
    def frame(self, payload: ReadableBuffer) -> None:
        """Writes a one-frame chunk: a joined frame, or the hyper-prior of one frame.

        Raises:
            CallerError: CHUNK_TOO_LONG; SEAL_NOT_CANONICAL for a payload that ends in 0; WRONG_SIDE_INDICES in a stream
                with side indices that no :meth:`cover_side` gave; AFTER_END.
        """
    def batch(self, frames: int, lanes: Sequence[ReadableBuffer]) -> None:
        """Writes a batch of ``frames`` frames, 2 or more, with one payload for each lane (spec 2.7).

        Raises:
            CallerError: BATCH_OF_ONE, TOO_MANY_FRAMES, LANE_COUNT, LANE_TABLE, and as :meth:`frame`.
        """
    def target(self, index: int, frames: int, lanes: Sequence[ReadableBuffer]) -> None:
        """Writes the target of ``frames`` frames from the absolute index ``index`` on, in layered mode, with one payload for
        each lane.

        Raises:
            CallerError: KIND_NOT_IN_MODE in joined mode; FRAME_NOT_PENDING for frames that have no hyper-prior; and as
                :meth:`batch`.
        """
    def target_part(self, index: int, first_element: int, end_element: int, payload: ReadableBuffer) -> None:
        """Writes a part of the target of the frame ``index``: its elements from ``first_element`` to before
        ``end_element``.

        Raises:
            CallerError: FIELD_OUT_OF_RANGE for no element, or elements beyond 2^56; and as :meth:`target`.
        """
    def cover_side(self, indices: _Indices) -> None:
        """Gives the side indices that the check of the next frame chunk covers, one for each of its frames. In a stream with
        side indices every frame chunk needs such a call before it.
        """
    def side_indices(self, count: int, payload: ReadableBuffer) -> None:
        """Writes the side indices of the next ``count`` frames, as the model's tables code them.

        Raises:
            CallerError: KIND_NOT_IN_MODE in a stream without side indices; SIDE_INDICES_LEFT; TOO_MANY_FRAMES; and as
                :meth:`frame`.
        """
    def checkpoint(self, digest_w: int, digest_y: int) -> None:
        """Writes a checkpoint at the next frame, with the digests of spec 6.4.

        Raises:
            CallerError: AFTER_END.
        """
    def reset(self, quality: int, length_offset: int, digest_w: int, digest_y: int) -> None:
        """Writes a context reset: the next frame begins a new context. The digests are those of the context that ends.

        Raises:
            CallerError: FIELD_OUT_OF_RANGE for a length offset above 16,383; AFTER_END.
        """
    def rewind(self, index: int) -> None:
        """Writes a rewind: the next frame will have the absolute index ``index``.

        Raises:
            CallerError: REWIND_TARGET, REWIND_TOO_FAR, AFTER_END.
        """
    def quality(self, quality: int, length_offset: int) -> None:
        """Writes a quality switch, which also sets the length offset; the context goes on.

        Raises:
            As :meth:`reset`.
        """
    def model_switch(
        self,
        fingerprint: ReadableBuffer,
        model_version: int,
        quality: int,
        length_offset: int,
        digest_w: int,
        digest_y: int,
    ) -> None:
        """Writes a model switch: the next frame begins a new context with the model of this fingerprint, 32 bytes. The
        digests are those of the context that ends.

        Raises:
            As :meth:`reset`.
        """
    def exact_frame(
        self, dtype: Literal["f32", "f16", "bf16"], payload: ReadableBuffer, hidden: ReadableBuffer
    ) -> None:
        """Writes an exact frame: a joined payload, and the hidden state as little-endian values of type ``dtype``, which is
        ``"f32"``, ``"f16"`` or ``"bf16"``.

        Raises:
            CallerError: WRONG_SHAPE if ``hidden`` is not a whole number of values; and as :meth:`frame`.
        """
    def extension(self, id: int, data: ReadableBuffer) -> None:
        """Writes an ignorable extension of this id.

        Raises:
            As :meth:`checkpoint`, and CallerError CHUNK_TOO_LONG.
        """
    def end(self, digest_w: int, digest_y: int) -> None:
        """Writes the end chunk and, in a file, seek index and footer.

        Raises:
            As :meth:`checkpoint`.
        """
    def take_bytes(self) -> bytes:
        """Takes the bytes written since the last call, in a byte stream or file. There may be none.

        Raises:
            CallerError: NOT_AVAILABLE in the message binding.
        """
    def pop_message(self) -> Message | None:
        """Takes the next message, in the message binding; None if all were taken.

        Raises:
            CallerError: NOT_AVAILABLE in a byte stream or file.
        """
    def take_messages(self) -> list[Message]:
        """Takes all messages that were written, in order; none if there is none.

        Raises:
            As :meth:`pop_message`.
        """
    @property
    def untaken_bytes(self) -> int:
        """How many bytes :meth:`take_bytes` would give; 0 in the message binding."""
    @property
    def next_message(self) -> Message | None:
        """The message that :meth:`pop_message` would give, which stays; None if all were taken, or in a byte stream or file."""
    @property
    def next_index(self) -> int:
        """Absolute index of the next frame."""
    @property
    def offset(self) -> int:
        """The offset of the next chunk, which is the number of bytes written so far."""
    @property
    def ended(self) -> bool:
        """Whether the end chunk was written."""
    @property
    def memory_bytes(self) -> int:
        """Bytes that the writer holds, output not yet taken included."""
