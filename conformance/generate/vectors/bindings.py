"""Files and messages that every decoder takes."""
import struct

from ..encoder import Stream
from .common import A, B, empty_frame, some, source, vector


@vector("file", "a file with a seek index over resets and a model switch", "FILE-1 FILE-2 CAP-1", "a b",
        )
def _():
    s, src = Stream(A(), file=True), source(30)
    some(s, src, 3)
    s.reset()
    some(s, src, 2)
    s.switch(B())
    some(s, src, 2)
    s.reset()
    s.end()
    s.seek_index()
    return s


@vector("file-empty-index", "a file whose seek index is empty", "FILE-1")
def _():
    s, src = Stream(A(), file=True), source(31)
    some(s, src, 1)
    s.end()
    s.seek_index([])
    return s


@vector("messages", "every joined chunk as a message", "MSG-1 MSG-2 MSG-3 CAP-1")
def _():
    s, src = Stream(A(), binding="messages", check=1), source(32)
    some(s, src, 3)
    s.batch(src.frames(s.model, 5), lanes=2)
    s.checkpoint()
    s.set_quality(1)
    s.exact(*src.frame(s.model), 0, struct.pack("<12f", *range(12)))
    s.reset()
    some(s, src, 2)
    s.rewind(s.index - 1)
    s.extension(27, b"\0")
    some(s, src, 1)
    s.end()
    return s


@vector("messages-empty", "a frame whose body is empty is the message C0 00", "MSG-2 SEAL-1")
def _():
    s, src = Stream(A(), binding="messages"), source(33)
    empty_frame(s)
    assert s.messages[-1] == b"\xc0\0"
    some(s, src, 2)
    s.end()
    return s


@vector("messages-none", "empty messages are skipped, before the header and after the end too", "MSG-6")
def _():
    s, src = Stream(A(), binding="messages"), source(35)
    s.messages.insert(0, b"")
    s.raw(b"")
    some(s, src, 1)
    s.raw(b"")
    s.raw(b"")
    empty_frame(s)
    some(s, src, 1)
    s.end()
    s.raw(b"")
    return s


@vector("messages-layered", "layered mode in messages", "MSG-3 CHECK-2")
def _():
    s, src = Stream(A(), binding="messages", layered=True), source(34)
    some(s, src, 2)
    s.target(0)
    s.batch(src.frames(s.model, 3))
    s.target(1, count=3)
    s.target(4)
    s.end()
    return s
