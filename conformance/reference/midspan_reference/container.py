"""Chapter 2: stream header, chunks, bindings, checks. No model is needed here.

`read(data, binding)` yields the header first, then one Chunk after the other, each judged by all
the container's rules before it is handed on, and raises MidspanError at the first fault.
"""
from dataclasses import dataclass, field

from .conventions import Bytes, U32, VARINT_MAX, crc32, u16le, u32le, u64le
from .errors import MidspanError

MAGIC = b"\x4d\x53\x50\x9e"
FOOTER_MAGIC = b"MSPX"
VERSION = 1
LENGTH_OFFSET_MAX = 16383

NAMES = {
    0xC0: "frame", 0xC1: "batch", 0xC2: "target", 0xC3: "target_batch", 0xC4: "checkpoint",
    0xC5: "reset", 0xC6: "rewind", 0xC7: "quality", 0xC8: "model", 0xC9: "exact", 0xCA: "end",
    0xCB: "seek_index", 0xCC: "side_indices", 0xE0: "extension", 0xF0: "critical_extension",
}
CONTROL = {0xC4, 0xC5, 0xC6, 0xC7, 0xC8, 0xC9, 0xCA, 0xCB, 0xCC, 0xE0, 0xF0}


@dataclass
class Header:
    layered: bool = False
    check_width: int = 0
    file: bool = False
    messages: bool = False
    side: bool = False  # the side flag
    fingerprint: bytes = b""
    model_version: int = 0
    quality: int = 0
    host_digest: bytes = b""
    max_frames: int = 0
    max_bytes: int = 0
    max_rewind: int = 0
    horizon: int = 0
    length_offset: int = 0
    identity: bytes = b""
    producer: str = ""
    at: dict = field(default_factory=dict)  # offsets of fields


@dataclass
class Chunk:
    kind: int
    offset: int  # of the leading byte, or of the message
    size: int  # of the whole chunk as it stands in the stream
    start: int = 0  # of the body
    end: int = 0
    index: int = 0  # the absolute index of its first frame, or of the next frame
    frames: int = 0
    lanes: list = field(default_factory=list)  # (offset, payload)
    partition: list = field(default_factory=list)  # (first frame, frame behind the last)
    epoch: int = 0  # behind the chunk
    fields: dict = field(default_factory=dict)
    at: dict = field(default_factory=dict)
    check_holds: bool = True
    deferred: tuple = None  # a check that the decoder judges ([CHECK-3])

    @property
    def name(self):
        return NAMES[self.kind]


def control_crc(header, kind, index, epoch, fields):
    """2.8; index and epoch are those of an exact frame, and mean nothing elsewhere."""
    place = u64le(index) + u32le(epoch) if kind == 0xC9 else b""
    return u32le(crc32(header.identity + place + bytes([kind]) + fields))


def frame_check(header, kind, index, epoch, quality, rest, width, side=()):
    """2.5; `side` are the side indices of the chunk's frames, in a stream with the side flag."""
    if kind in (0xC2, 0xC3):
        quality, side = 0, ()
    rest = rest + b"".join(u32le(s) for s in side)
    value = crc32(header.identity + u64le(index) + u32le(epoch) + bytes([quality, kind]) + rest)
    return bytes(byte or 0xFF for byte in u32le(value)[:width])


def parse_header(data, messages=False):
    """2.2; returns the header and the offset behind it."""

    def truncated(_):
        return MidspanError(401, len(data), "the stream header is cut")

    for i in range(4):  # [HDR-1]
        if i >= len(data):
            raise truncated(0)
        if data[i] != MAGIC[i]:
            raise MidspanError(201, 0, "magic")
    fixed = Bytes(data, 4, len(data), truncated)
    version = fixed.u8()
    if version == 0:
        raise MidspanError(203, 4, "format version 0")
    least = fixed.u8()
    if least == 0 or least > version:  # [HDR-2] 203 is judged before 202
        raise MidspanError(203, 5, "minimum reader version")
    if least > VERSION:
        raise MidspanError(202, 5, "a newer reader is needed")
    length = fixed.varint(40, 4096)  # [HDR-3]
    start = fixed.position
    fixed.take(length)
    if fixed.uint(4) != crc32(data[: start + length]):  # [HDR-4]
        raise MidspanError(204, start + length, "header crc")
    end = fixed.position

    body = Bytes(data, start, start + length, lambda at: MidspanError(209, at, "header body"))
    h = Header()

    def note(name):
        h.at[name] = body.position

    note("flags")
    flags = body.u8()
    if flags & 3 > 1 or flags >> 2 & 3 == 3:  # [HDR-5]
        raise MidspanError(205, h.at["flags"], "reserved flags")
    if flags & 0x60 == 0x60:  # [HDR-10]
        raise MidspanError(205, h.at["flags"], "a file in messages")
    h.messages = bool(flags & 0x40)
    if h.messages != messages:  # [HDR-13]
        raise MidspanError(210, h.at["flags"], "wrong binding")
    h.layered = flags & 3 == 1
    h.check_width = flags >> 2 & 3
    h.file = bool(flags & 0x20)
    h.side = bool(flags & 0x80)
    note("tracks")
    if body.u8() != 1:  # [HDR-6]
        raise MidspanError(206, h.at["tracks"], "track count")
    note("fingerprint")
    h.fingerprint = body.take(32)
    h.model_version = body.varint(0, U32)
    note("quality")
    h.quality = body.u8()
    if flags & 0x10:
        note("host")
        h.host_digest = body.take(32)
    h.max_frames = body.varint(1, 2**20)
    h.max_bytes = body.varint(72, 2**30)
    h.max_rewind = body.varint(0, 2**20)
    if h.layered:
        h.horizon = body.varint(1, 28672)
    h.length_offset = body.varint(0, LENGTH_OFFSET_MAX)
    previous = -1
    while body.left():
        at = body.position
        ident = body.varint(0, U32)
        if ident <= previous:  # [HDR-7]
            raise MidspanError(207, at, "optional field order")
        previous = ident
        if ident & 1 and ident != 1:
            raise MidspanError(208, at, "unknown critical field")
        at = body.position
        size = body.varint()
        if size > body.left():  # [HDR-8]
            raise MidspanError(209, at, "optional field exceeds the body")
        value = body.take(size)
        if ident == 1:
            if size != 8:  # [HDR-11]
                raise MidspanError(209, at, "an identity has 8 bytes")
            h.identity = value
        if ident == 2:
            h.producer = value.decode("utf-8", "replace")
    return h, end


class Rules:
    """Everything a reader must remember between chunks, and the rules for a chunk's body."""

    def __init__(self, header, join_index=None, joining=False):
        self.header = header
        self.joining = joining  # the next chunk is the one at which the reader joins (6.6)
        self.join_index = join_index  # what a seek index says of it ([FILE-3])
        self.index = 0  # of the next frame
        self.epoch = 0
        self.quality = header.quality  # in force
        self.length_offset = header.length_offset  # in force ([CHUNK-8]); a rewind leaves it as it is
        self.coded = 0
        self.context_start = 0  # S of [CTRL-4]
        self.highest = 0  # H of [CTRL-4]
        self.fingerprint = header.fingerprint
        self.side_left = 0  # side indices that no frame has taken ([CTRL-10])
        self.ended = False

    # -- kinds and lengths ---------------------------------------------------------------------

    def judge_kind(self, kind, at):
        if kind not in NAMES:  # [CHUNK-1]
            raise MidspanError(301, at, f"reserved kind {kind:02X}")
        if self.joining and kind not in (0xC5, 0xC8):  # 6.6, [FILE-3]
            raise MidspanError(404, at, "a reader joins at a reset or a model switch")
        if kind in (0xC2, 0xC3) and not self.header.layered:  # [CHUNK-4]
            raise MidspanError(304, at, "targets in joined mode")
        if kind == 0xCC and not self.header.side:
            raise MidspanError(304, at, "side indices in a stream without the side flag")
        if kind == 0xCB and not (self.header.file and self.ended):
            raise MidspanError(305, at, "seek index misplaced")

    def judge_length(self, length, at):
        if length > self.header.max_bytes:  # [CHUNK-2]
            raise MidspanError(302, at, "chunk too long")

    # -- bodies --------------------------------------------------------------------------------

    def body(self, data, chunk):
        """Parses and judges the body of `chunk`, then moves the state behind it."""
        chunk.index = self.index
        end = chunk.end
        if chunk.kind in CONTROL:
            if end - chunk.start < 4:  # [CHUNK-5]
                raise MidspanError(306, chunk.start, "no room for the crc")
            end -= 4
            if data[end : end + 4] != control_crc(
                self.header, chunk.kind, self.index, self.epoch, data[chunk.start : end]
            ):  # [CTRL-1]
                raise MidspanError(403, end, "control crc")
        b = Bytes(data, chunk.start, end, lambda at: MidspanError(306, at, "the body ends early"))
        if chunk.kind in (0xC2, 0xC3):
            self._any_target(b, chunk)
            return
        getattr(self, "_" + chunk.name)(b, chunk)
        if b.left():  # [CHUNK-5]
            raise MidspanError(306, b.position, "bytes behind the last field")
        chunk.epoch = self.epoch

    def _field(self, chunk, name, b, value):
        """Notes a field that begins at b.position; `value` reads it."""
        chunk.at[name] = b.position
        chunk.fields[name] = value()
        return chunk.fields[name]

    def _check(self, b, chunk, width, index, epoch, kind, rest):
        """2.5; `rest` maps the position of the check to the bytes the check covers."""
        at = b.position
        stored = b.take(width)
        chunk.at["check"] = at
        covered = (kind, index, epoch, self.quality, rest(at, b.position), width)
        if self.header.side and kind not in (0xC2, 0xC3):  # [CHECK-3]
            chunk.deferred = (stored, covered)
            return True
        expected = frame_check(self.header, *covered)
        return stored == expected

    def _advance(self, frames, chunk):
        coded = self.coded if self.coded is not None else 0
        if max(self.index, coded) + frames > VARINT_MAX:  # [CTRL-9]
            raise MidspanError(103, chunk.start, "the absolute index leaves its range")
        self.index += frames
        self.side_left = max(0, self.side_left - frames)
        if self.coded is not None:
            self.coded += frames
        self.highest = max(self.highest, self.index)

    def _context(self):
        self.side_left = 0
        self.epoch = (self.epoch + 1) % 2**32
        self.context_start = self.highest = self.index

    def _whole_body(self, chunk, data):
        return lambda at, behind: data[chunk.start : at] + data[behind : chunk.end]

    def _frame(self, b, chunk):
        chunk.frames = 1
        if not self._check(b, chunk, self.header.check_width, self.index, self.epoch, 0xC0,
                           self._whole_body(chunk, b.data)):  # [CHECK-1]
            raise MidspanError(402, chunk.at["check"], "frame check")
        self._rest_is_one_lane(b, chunk)
        self._advance(1, chunk)

    def _rest_is_one_lane(self, b, chunk):
        chunk.partition = [(0, 1)]
        chunk.lanes = [(b.position, b.take(b.left()))]

    def _batch(self, b, chunk):
        self._batch_fields(b, chunk)
        if not self._check(b, chunk, self.header.check_width, self.index, self.epoch, 0xC1,
                           self._whole_body(chunk, b.data)):
            raise MidspanError(402, chunk.at["check"], "frame check")
        self._payloads(b, chunk)
        self._advance(chunk.frames, chunk)

    def _batch_fields(self, b, chunk):
        """frames, lanes and lane table; 2.6, 2.7."""
        at = b.position
        frames = b.varint() + 1
        limit = self.header.max_frames
        if self.header.layered:
            limit = min(limit, self.header.horizon)
        if frames > limit:  # [BATCH-1]
            raise MidspanError(309, at, "too many frames")
        if frames == 1:
            raise MidspanError(310, at, "a batch of one")
        at = b.position
        lanes = b.varint() + 1
        if lanes > min(frames, 1024):  # [BATCH-2]
            raise MidspanError(311, at, "lane count")
        chunk.frames = frames
        chunk.partition = [  # [BATCH-3]
            (i * frames // lanes, (i + 1) * frames // lanes) for i in range(lanes)
        ]
        chunk.at["lane table"] = b.position
        chunk.fields["lengths"] = self._lane_table(b, chunk) if lanes > 1 else []

    def _lane_table(self, b, chunk):
        table_at = b.position
        bits_read = 0

        def bit():
            nonlocal bits_read
            at = table_at + bits_read // 8
            if at >= b.end:
                raise MidspanError(306, table_at, "the body ends in the lane table")
            value = b.data[at] >> (7 - bits_read % 8) & 1
            bits_read += 1
            return value

        def bad():
            return MidspanError(312, table_at, "lane table")

        remaining = b.left()
        remaining_frames = chunk.frames
        lengths = []
        for first, behind in chunk.partition[:-1]:
            f = behind - first
            p = remaining * f // remaining_frames
            k = max(0, p.bit_length() - 5)
            z = 0
            while bit() == 0:
                z += 1
                if z > 24:  # [LANE-1]
                    raise bad()
            x = 0
            for _ in range(z + k):
                x = x << 1 | bit()
            u = (2**z - 1) * 2**k + x
            length = p + (u // 2 if u % 2 == 0 else -(u + 1) // 2)
            if length < 0:
                raise bad()
            lengths.append(length)
            remaining = max(0, remaining - length)
            remaining_frames -= f
        while not bit():  # [LANE-2] zero bits, then a one bit that ends its byte
            pass
        if bits_read % 8:
            raise MidspanError(313, table_at, "lane table not closed")
        width = bits_read // 8
        if sum(lengths) > max(0, b.left() - width - self._width_of_check(chunk)):  # [LANE-1]
            raise bad()
        b.take(width)
        return lengths

    def _width_of_check(self, chunk):
        return 2 if chunk.kind in (0xC2, 0xC3) else self.header.check_width

    def _payloads(self, b, chunk):
        for length in chunk.fields["lengths"] + [None]:
            at = b.position
            chunk.lanes.append((at, b.take(b.left() if length is None else length)))

    def _any_target(self, b, chunk):
        """[CHECK-2]: whatever is wrong in the body makes the chunk damaged."""
        chunk.epoch = self.epoch
        chunk.fields["body"] = b.data[b.position : b.end]
        try:
            getattr(self, "_" + chunk.name)(b, chunk)
        except MidspanError:
            chunk.check_holds = False
            chunk.index, chunk.frames = 0, 0

    def _target(self, b, chunk):
        self._target_fields(b, chunk)
        chunk.frames = 1
        count = self._field(chunk, "count", b, b.varint)
        if count:
            first = self._field(chunk, "first", b, b.varint)
            if first + count > 2**56:  # [PART-1]
                raise MidspanError(103, chunk.at["first"], "elements beyond 2^56")
            chunk.fields["elements"] = (first, first + count)
        self._target_check(b, chunk)
        self._rest_is_one_lane(b, chunk)

    def _target_batch(self, b, chunk):
        self._target_fields(b, chunk)
        self._batch_fields(b, chunk)
        self._target_check(b, chunk)
        self._payloads(b, chunk)

    def _target_fields(self, b, chunk):
        low = self._field(chunk, "index_low", b, lambda: b.uint(2))
        epoch_low = self._field(chunk, "epoch_low", b, b.u8)
        # 6.5, rules 1 and 2: the index nearest the next frame's, the epoch at most 8 after the
        # current one; negative if there is none
        n, e = self.index, self.epoch
        chunk.index = n - 2**15 + (low - (n - 2**15)) % 2**16
        d = (epoch_low - e) % 2**8
        chunk.fields["epoch"] = (e + d) % 2**32 if d <= 8 else e + d - 2**8

    def _target_check(self, b, chunk):
        """6.5, rule 3"""
        index, epoch = chunk.index, chunk.fields["epoch"]
        exist = index >= 0 and epoch >= 0 and index < self.index + 4096
        holds = self._check(b, chunk, 2, max(index, 0), max(epoch, 0), chunk.kind,
                            self._whole_body(chunk, b.data))
        chunk.check_holds = exist and holds  # [CHECK-2]

    def _index_is_next(self, b, chunk):
        index = self._field(chunk, "index", b, b.varint)
        if self.joining and self.join_index in (None, index):
            self.index = chunk.index = index  # [CTRL-3]
            self.coded = None
        if index != self.index or self.joining and self.join_index not in (None, index):  # [CTRL-2] [CTRL-3]
            raise MidspanError(404, chunk.at["index"], "index mismatch")

    def _digests(self, b, chunk):
        self._field(chunk, "w_digest", b, lambda: b.uint(4))
        self._field(chunk, "y_digest", b, lambda: b.uint(4))

    def _checkpoint(self, b, chunk):
        self._index_is_next(b, chunk)
        self._digests(b, chunk)

    def _epoch_is_next(self, b, chunk):
        epoch = self._field(chunk, "epoch", b, lambda: b.varint(0, U32))
        if self.joining:
            self.epoch = (epoch - 1) % 2**32
        if epoch != (self.epoch + 1) % 2**32:
            raise MidspanError(406, chunk.at["epoch"], "epoch mismatch")  # [CTRL-3]

    def _length_offset(self, b, chunk):
        return self._field(chunk, "length_offset", b, lambda: b.varint(0, LENGTH_OFFSET_MAX))

    def _reset(self, b, chunk):
        self._index_is_next(b, chunk)
        self._epoch_is_next(b, chunk)
        quality = self._field(chunk, "quality", b, b.u8)
        length_offset = self._length_offset(b, chunk)
        prefix = self._field(chunk, "prefix", b, lambda: b.take(8))
        if self.joining:
            self.fingerprint = prefix
        if prefix != self.fingerprint[:8]:
            raise MidspanError(502, chunk.at["prefix"], "another model")
        self._digests(b, chunk)
        self.quality, self.length_offset = quality, length_offset
        self._context()

    def _rewind(self, b, chunk):
        index = self._field(chunk, "index", b, b.varint)
        if not self.context_start <= index < self.index:  # [CTRL-4]
            raise MidspanError(407, chunk.at["index"], "rewind target")
        if self.highest - index > self.header.max_rewind:
            raise MidspanError(408, chunk.at["index"], "rewind too far")
        self.index = index
        self.side_left = 0
        self.epoch = (self.epoch + 1) % 2**32

    def _quality(self, b, chunk):
        quality = self._field(chunk, "quality", b, b.u8)
        length_offset = self._length_offset(b, chunk)
        self.quality, self.length_offset = quality, length_offset

    def _model(self, b, chunk):
        self._index_is_next(b, chunk)
        self._epoch_is_next(b, chunk)
        self.fingerprint = self._field(chunk, "fingerprint", b, lambda: b.take(32))
        self._field(chunk, "version", b, lambda: b.varint(0, U32))
        quality = self._field(chunk, "quality", b, b.u8)
        length_offset = self._length_offset(b, chunk)
        self._digests(b, chunk)
        self.quality, self.length_offset = quality, length_offset
        self._context()

    def _exact(self, b, chunk):
        chunk.frames = 1
        if self._field(chunk, "dtype", b, b.u8) > 2:  # [CTRL-6]
            raise MidspanError(314, chunk.at["dtype"], "dtype")
        length = self._field(chunk, "length", b, b.varint)
        if length > b.left():
            raise MidspanError(306, chunk.at["length"], "frame length")
        if length < self.header.check_width:
            raise MidspanError(306, b.position, "frame length below the check")
        inner = Bytes(b.data, b.position, b.position + length, b.short)
        holds = self._check(inner, chunk, self.header.check_width, self.index, self.epoch, 0xC9,
                            lambda at, behind: b.data[behind : inner.end])
        self._rest_is_one_lane(inner, chunk)
        b.take(length)
        self._field(chunk, "hidden", b, lambda: b.take(b.left()))
        if not holds:
            raise MidspanError(402, chunk.at["check"], "frame check")
        self._advance(1, chunk)

    def _end(self, b, chunk):
        self._index_is_next(b, chunk)
        if self._field(chunk, "coded", b, b.varint) != self.coded and self.coded is not None:
            raise MidspanError(405, chunk.at["coded"], "frame total mismatch")
        self._digests(b, chunk)
        self.ended = True

    def _side_indices(self, b, chunk):
        """[CTRL-10]"""
        count = self._field(chunk, "count", b, b.varint) + 1
        if count > self.header.max_frames:
            raise MidspanError(309, chunk.at["count"], "too many side indices")
        chunk.fields["count"] = count
        self._rest_is_one_lane(b, chunk)
        if self.side_left:
            raise MidspanError(319, chunk.offset, "side indices are left")
        self.side_left = count

    def _extension(self, b, chunk):
        self._field(chunk, "id", b, lambda: b.varint(0, U32))
        b.take(b.left())

    def _critical_extension(self, b, chunk):
        self._field(chunk, "id", b, lambda: b.varint(0, U32))
        raise MidspanError(315, chunk.at["id"], "unknown critical extension")  # [CTRL-7]

    def _seek_index(self, b, chunk):
        """2.10"""
        count = b.varint(0, 2**20)
        frame = offset = 0
        entries = []
        for _ in range(count):
            at = b.position
            frame += b.varint()
            if frame >= 2**56:  # [FILE-2]
                raise MidspanError(317, at, "seek index order")
            at = b.position
            offset += b.varint(1, out_of_range=317)  # [FILE-2]
            if offset >= chunk.offset:
                raise MidspanError(317, at, "seek index order")
            entries.append((frame, offset))
        chunk.fields["entries"] = entries


def read(data, binding="stream", messages=None, join=None):
    """Yields the Header, then the Chunks: all, or those from `join` = (offset, index or None) on (6.6)."""
    if binding == "messages":
        yield from read_messages(messages, join)
    else:
        yield from read_stream(data, join)


def read_stream(data, join=None):
    """2.3, 2.10"""
    header, position = parse_header(data)
    yield header
    rules = Rules(header)
    if join:
        position = join[0]
        rules = Rules(header, join[1], joining=True)

    def truncated(_):
        return MidspanError(401, len(data), "the stream is cut")

    while not rules.ended:
        chunk = stream_chunk(data, position, rules, truncated)
        yield chunk
        position = chunk.offset + chunk.size
    if header.file:  # [FILE-1]
        if position >= len(data):
            raise truncated(0)
        if data[position] != 0xCB:
            raise MidspanError(305, position, "a seek index must follow the end")
        chunk = stream_chunk(data, position, rules, truncated)
        yield chunk
        position = chunk.offset + chunk.size
        footer = Bytes(data, position, len(data), truncated)
        footer.take(12)
        if data[position : position + 8] != u64le(chunk.offset):
            raise MidspanError(316, position, "footer offset")
        if data[position + 8 : position + 12] != FOOTER_MAGIC:
            raise MidspanError(316, position + 8, "footer magic")
        position += 12
    if position < len(data):  # [CHUNK-7]
        raise MidspanError(307, position, "data after the end")


def stream_chunk(data, position, rules, truncated):
    cursor = Bytes(data, position, len(data), truncated)
    lead = cursor.u8()
    if lead < 0xC0:
        rules.judge_kind(0xC0, position)
    if lead < 0x80:
        kind, at, length = 0xC0, position, rules.length_offset + lead
    elif lead < 0xC0:
        k = 256 * (lead & 0x3F) + cursor.u8()
        kind, at, length = 0xC0, position, k if k < rules.length_offset else k + 128
    else:
        kind = lead
        rules.judge_kind(kind, position)
        at = cursor.position
        length = cursor.varint()
    rules.judge_length(length, at)
    if lead == 0xC0 and length < 16512:  # [CHUNK-3]
        raise MidspanError(303, at, "one-frame form")
    chunk = Chunk(kind, position, 0, cursor.position, cursor.position + length)
    cursor.take(length)
    chunk.size = cursor.position - position
    rules.body(data, chunk)
    rules.joining = False
    return chunk


def read_messages(messages, join=None):
    """2.4"""
    messages = [message for message in messages if message]  # [MSG-6]
    if not messages:
        raise MidspanError(401, 0, "no message")
    data = messages[0]
    header, position = parse_header(data, messages=True)
    if position == len(data):
        raise MidspanError(401, position, "the first message ends without 00")
    if data[position:] != b"\0":  # [MSG-1]
        at = position if data[position] else position + 1
        raise MidspanError(209, at, "the first message is the header and one 00")
    yield header
    rules = Rules(header, join[1], joining=True) if join else Rules(header)
    for message in messages[1:]:
        offset = len(data)
        data = data + message
        if join and offset < join[0]:
            continue
        late_target = header.layered and message[:1] in (b"\xc2", b"\xc3") and message[-1] == 0
        if rules.ended and not late_target:  # [MSG-5]
            raise MidspanError(307, offset, "message after the end")
        if message[-1] != 0:  # [MSG-2]
            rules.judge_kind(0xC0, offset)
            chunk = Chunk(0xC0, offset, len(message), offset, offset + len(message))
        else:  # [MSG-3]
            if len(message) < 2:
                raise MidspanError(308, offset, "message too short")
            kind = message[0]
            if kind == 0xC0 and len(message) > 2:
                raise MidspanError(303, offset, "one-frame chunk as a typed message")
            rules.judge_kind(kind, offset)
            chunk = Chunk(kind, offset, len(message), offset + 1, offset + len(message) - 1)
        rules.judge_length(chunk.end - chunk.start, offset)
        rules.body(data, chunk)
        rules.joining = False
        yield chunk
    if not rules.ended:
        raise MidspanError(401, len(data), "no end chunk")
