"""A stream under construction: it knows what it encoded, and where every field stands."""
import hashlib
import random
import struct

from .coder import CODED, Coder
from .gy import Context, clamp, predicted, round_shift
from .ledger import reports
from .models import f32
from .wire import bits_to_bytes, crc, le, varint

NAMES = {
    0xC0: "frame", 0xC1: "batch", 0xC2: "target", 0xC3: "target_batch", 0xC4: "checkpoint",
    0xC5: "reset", 0xC6: "rewind", 0xC7: "quality", 0xC8: "model", 0xC9: "exact", 0xCA: "end",
    0xCB: "seek_index", 0xCC: "side_indices", 0xE0: "extension", 0xF0: "critical_extension",
}


class NoFixedPoint(Exception):
    """No lane table agrees with its own length (2.7)."""


class Frame:
    def __init__(self, model, quality, w, means, scales, y, side=None):
        self.model, self.quality = model, quality
        self.side = side
        self.w, self.means, self.scales, self.y = w, means, scales, y
        self.status = "coded"
        self.came = set()  # elements whose target came in parts
        self.hidden = self.reconstruct(y)

    def reconstruct(self, levels):
        """6.7; exact in binary64 before each rounding to binary32"""
        m, q = self.model, self.quality

        def single(x):
            try:
                return f32(x)
            except OverflowError:
                return float("inf") if x > 0 else float("-inf")

        x = [single(v * s) for v, s in zip(levels, m.step[q])]
        if m.synthesis:
            rows = [[a * b for a, b in zip(row, x)] for row in m.synthesis]
            # All terms are multiples of 2^-10 and no sum of them needs more than 24 bits.
            for row, o in zip(rows, m.offset[q]):
                assert sum(abs(a) for a in [*row, o]) < 2**14 and all(a * 1024 % 1 == 0 for a in [*row, o])
            x = [sum(row) for row in rows]
        if m.sparse:
            # Each value of `x` gives way to that of r. Products and sums of two values are rounded once.
            for c, entries in enumerate(m.sparse):
                sums = [0.0] * 16
                for k, (index, weight) in enumerate(entries):
                    sums[k % 16] = single(sums[k % 16] + single(weight * x[index]))
                for half in (8, 4, 2, 1):
                    sums = [single(a + b) for a, b in zip(sums[:half], sums[half:])]
                x[c] = single(sums[0] + x[c])
        return [single(a + o) for a, o in zip(x, m.offset[q])]

    def conceal(self):
        m = self.model
        self.status = "concealed"
        sent = list(enumerate(zip(self.y, self.means)))
        self.y = [y if c in self.came else clamp((x + 32) // 64, m.y_min, m.y_max) for c, (y, x) in sent]
        self.hidden = self.reconstruct([y if c in self.came else x / 64 for c, (y, x) in sent])


def widened(dtype, raw):
    """[EXACT-1]: the bytes of binary32 that an exact frame's values become"""
    if dtype == 0:
        return raw
    out = b""
    for (bits,) in struct.iter_unpack("<H", raw[: len(raw) // 2 * 2]):
        if dtype == 2:
            single = bits << 16
        elif bits & 0x7C00 == 0x7C00:
            single = (bits & 0x8000) << 16 | 0x7F800000 | (bits & 0x3FF) << 13
        else:
            single = int.from_bytes(struct.pack("<f", struct.unpack("<e", le(bits, 2))[0]), "little")
        out += le(single, 4)
    return out


def header_parts(fingerprint, flags=0, tracks=1, version=7, quality=0, host=b"", max_frames=64,
                 max_bytes=1 << 20, max_rewind=16, horizon=None, length_offset=0, optional=()):
    parts = [
        ["flags", bytes([flags])], ["tracks", bytes([tracks])], ["fingerprint", fingerprint],
        ["version", varint(version)], ["quality", bytes([quality])], ["host", host],
        ["max_frames", varint(max_frames)], ["max_bytes", varint(max_bytes)],
        ["max_rewind", varint(max_rewind)],
    ]
    if horizon is not None:
        parts.append(["horizon", varint(horizon)])
    parts.append(["length_offset", varint(length_offset)])
    for i, (ident, value) in enumerate(optional):
        parts += [[f"id{i}", varint(ident)], [f"size{i}", varint(len(value))], [f"value{i}", value]]
    return parts


class Timeline(list):
    """Frames by absolute index, from `first` on."""

    first = 0

    def __len__(self):
        return self.first + super().__len__()

    def at(self, key):
        if isinstance(key, slice):
            return slice(*(i if i is None else max(0, i - self.first) for i in (key.start, key.stop)))
        return key if key < 0 else key - self.first

    def __getitem__(self, key):
        return super().__getitem__(self.at(key))

    def __delitem__(self, key):
        super().__delitem__(self.at(key))


class Stream:
    def __init__(self, model, binding="stream", layered=False, check=0, file=False, quality=0,
                 horizon=8, head=None, fault=None, first_tail=b"\0", identity=b"", **header):
        """`head(parts)` edits the header's parts; `fault` names the one an error must point at."""
        self.model, self.binding, self.layered, self.check = model, binding, layered, check
        self.identity = identity
        if identity:
            header["optional"] = [(1, identity), *header.get("optional", ())]
        self.max_frames = header.get("max_frames", 64)
        self.max_rewind = header.get("max_rewind", 16)
        self.quality = quality
        self.length_offset = header.get("length_offset", 0)
        self.messages = []
        self.kinds = []
        self.log = [("say", "opened")]  # for the ledger
        self.logged = []  # where in the log each chunk's entries begin
        self.statuses = []
        self.fault_offset = None
        self.fault_kinds = None
        self.marks = {}  # parts of the latest chunk -> offset
        self.unverifiable = []
        self.index = self.epoch = self.coded = 0
        self.highest = 0
        self.timeline = Timeline()
        self.joined = None  # where a decoder is to join: (offset, what a seek index says of it)
        self.joined_index = 0
        self.joining = False
        self.given = []  # side indices of a CC chunk that no frame has taken
        self.known = []  # side indices of the next frames that the caller knows; random ones after them
        self.side_random = random.Random(1)
        self.asked = []  # what the caller is asked for by the chunk in the making
        self.answers = []  # what the caller says: [first index, [side indices]]
        self.seek = []
        self.begin_context()
        flags = (1 if layered else 0) | check << 2 | (0x20 if file else 0)
        flags |= 0x10 if header.get("host") else 0
        flags |= 0x40 if binding == "messages" else 0
        flags |= 0x80 if model.embedding else 0
        body = header_parts(model.fingerprint, **{
            "flags": flags, "quality": quality, "horizon": horizon if layered else None, **header})
        parts = [["magic", b"MSP\x9e"], ["format", b"\1"], ["least", b"\1"], ["length", None],
                 *body, ["crc", None]]
        if head:
            head(parts)
        self.finish_header(parts)
        if binding == "messages":
            parts.append(["tail", first_tail])
        self.put(parts, fault)

    @staticmethod
    def finish_header(parts):
        names = [name for name, _ in parts]
        at = names.index("length")
        if parts[at][1] is None:
            parts[at][1] = varint(sum(len(p) for _, p in parts[at + 1 : names.index("crc")]))
        if parts[-1][1] is None:
            parts[-1][1] = le(crc(b"".join(p for _, p in parts[:-1])), 4)

    # -- bytes ---------------------------------------------------------------------------------

    def data(self):
        return b"".join(self.messages)

    def size(self):
        return sum(len(m) for m in self.messages)

    def wrapped(self):
        """The stream file of a vector."""
        if self.binding == "messages":
            return b"".join(le(len(m), 4) + m for m in self.messages)
        return self.data()

    def put(self, parts, fault=None):
        start = position = self.size()
        self.marks = {"start": start}
        for name, piece in parts:
            self.marks.setdefault(name, position)
            position += len(piece)
        self.marks["behind"] = position
        if fault is not None:
            self.broken(fault)
        self.messages.append(b"".join(piece for _, piece in parts))

    def broken(self, fault):
        """From here on the stream is wrong, at the named part or the given offset."""
        assert self.fault_offset is None
        self.fault_offset = self.marks[fault] if isinstance(fault, str) else fault
        self.fault_kinds = list(self.kinds)

    def emit(self, kind, parts, fault=None, edit=None, after=None, check=None, lead=None):
        """A chunk whose body is `parts`; None stands for a check or a crc to be computed.

        `edit` changes the parts before checks and crc, `after` behind them; `lead` replaces the
        bytes before the body.
        """
        parts = [list(p) for p in parts]
        if edit:
            edit(parts)
        for i, part in enumerate(parts):
            if part[0] == "check" and part[1] is None:
                part[1] = self.check_bytes(parts, i, kind, *check)
        if parts and parts[-1][0] == "crc" and parts[-1][1] is None:
            body = b"".join(piece for _, piece in parts[:-1])
            # The crc of an exact frame covers its place too (2.8).
            place = le(check[1], 8) + le(check[2], 4) if kind == 0xC9 else b""
            parts[-1][1] = le(crc(self.identity + place + bytes([kind]) + body), 4)
        if after:
            after(parts)
        body = sum(len(piece) for _, piece in parts)
        if self.binding == "messages":
            if kind != 0xC0 or not body:
                parts = [["kind", bytes([kind])], *parts, ["zero", b"\0"]]
            if lead is not None:
                parts = lead
        elif lead is not None:
            parts = lead + parts
        elif kind == 0xC0 and body < 16512:
            parts = [["length", self.one_frame_lead(body)], *parts]
        else:
            parts = [["kind", bytes([kind])], ["length", varint(body)], *parts]
        self.put(parts, fault)
        if self.asked:  # of a frame chunk
            self.answers.append([self.index - len(self.asked), self.asked])
            self.asked = []
        self.kinds.append(NAMES.get(kind, "?"))
        self.logged.append(len(self.log))

    def one_frame_lead(self, body):
        """2.3: short where the body lies in the window, else medium"""
        x = body - self.length_offset
        if 0 <= x < 128:
            return bytes([x])
        k = body if x < 0 else body - 128
        return bytes([0x80 | k >> 8, k & 255])

    def check_bytes(self, parts, i, kind, width, index, epoch):
        """2.5"""
        if kind == 0xC9:  # the body's crc covers the check, so the check covers the payload alone
            rest = next(piece for name, piece in parts if name == "payload0")
        else:
            rest = b"".join(piece for j, (_, piece) in enumerate(parts) if j != i)
        quality = 0 if kind in (0xC2, 0xC3) else self.quality
        if kind not in (0xC2, 0xC3) and self.model.embedding:
            rest += b"".join(le(frame.side, 4) for frame in self.timeline[index:])
        value = crc(self.identity + le(index, 8) + le(epoch, 4) + bytes([quality, kind]) + rest)
        self.unreplaced = le(value, 4)[:width]  # with the bytes 00 that become FF
        return bytes(b or 255 for b in self.unreplaced)

    # -- joining -------------------------------------------------------------------------------

    def begin_at(self, index, epoch=0):
        """The stream goes on at another place: only a decoder that joins at the next reset can follow it."""
        self.index = self.timeline.first = index
        self.timeline.clear()
        self.epoch = epoch
        self.begin_context()

    def join(self, index=None):
        """A decoder is to join at the next chunk; what it must find begins here."""
        self.joined = (self.size(), index)
        self.joined_index = self.index
        self.kinds, self.statuses, self.unverifiable = [], [], []
        self.log, self.logged = [], []
        self.answers = []
        self.joining = True

    # -- state ---------------------------------------------------------------------------------

    def begin_context(self):
        self.context = Context(self.model.net, self.model.embedding)
        self.given = []
        self.start = self.highest = self.index
        self.checkpoints = [self.index]

    def digest(self, begin, values):
        d = crc(self.identity)
        for frame in self.timeline[begin:]:
            row = getattr(frame, values)
            quality = bytes([frame.quality]) if values == "w" else b""
            side = le(frame.side, 4) if values == "w" and frame.model.embedding else b""
            d = crc(le(d, 4) + quality + le(crc(struct.pack(f"<{len(row)}h", *row) + side), 4))
        return d

    def happened(self, *entry):
        self.log.append(entry)

    def close_context(self):
        """What the log holds of a reset or a switch before the context is new."""
        joining, self.joining = self.joining, False
        if joining:  # a decoder that joins here judges nothing
            self.happened("joined", self.index)
        else:
            self.happened("drop")
            self.happened("state", self.checkpoints[-1], self.index)

    def digests(self):
        return [["w_digest", le(self.digest(self.start, "w"), 4)],
                ["y_digest", le(self.digest(self.checkpoints[-1], "sent"), 4)]]

    def next_side(self):
        """[SIDE-3]: the side index of the next frame, from the stream or else from the caller"""
        if not self.model.embedding:
            return None
        if self.given:
            return self.given.pop(0)
        self.asked.append(self.known.pop(0) if self.known else self.side_random.randint(0, self.model.vocabulary))
        return self.asked[-1]

    def new_frame(self, w, y, modes=(CODED, CODED), since=None):
        """`y` maps means to the Y to send; `modes` are those of W and Y (3.5).

        Frames before the index `since` are no past (6.13).
        """
        side = self.next_side()
        means, scales = self.context.next(w, self.quality, self.model.s, side)
        if self.model.prediction:
            past = self.timeline[max(self.start, since or 0) : self.index]
            means = predicted(self.model, self.quality, means, [(f.quality, f.sent) for f in reversed(past)])
        y = y(means) if callable(y) else y
        frame = Frame(self.model, self.quality, w, means, scales, y, side)
        frame.sent = y
        frame.modes = modes
        frame.epoch = self.epoch
        self.timeline.append(frame)
        self.index += 1
        self.coded += 1
        self.highest = max(self.highest, self.index)
        return frame

    def code_w(self, coder, frames):
        m = frames[0].model
        coder.runs(
            [(frame.modes[0], frame.w, [(m.hyper_prior[frame.quality * m.c + c], 0) for c in range(m.c)])
             for frame in frames])

    def code_y(self, coder, frames, elements=slice(None)):
        m = frames[0].model

        def tables(frame):
            for mean, scale in zip(frame.means[elements], frame.scales[elements]):
                f = m.fraction_bits[scale]
                q = mean if f == 6 else round_shift(mean, 6 - f)
                k = q // 2**f
                fraction = q % 2**f
                yield m.target[m.base[scale] + fraction], clamp(k, m.y_min, m.y_max)

        coder.runs([(frame.modes[1], frame.sent[elements], tables(frame)) for frame in frames])

    def payload(self, frames, w=True, y=True):
        coder = Coder()
        if w:
            self.code_w(coder, frames)
        if y:
            self.code_y(coder, frames)
        self.coder = coder
        return coder.seal()

    @staticmethod
    def partition(t, lanes):
        return [(i * t // lanes, (i + 1) * t // lanes) for i in range(lanes)]

    @staticmethod
    def lane_table(behind, partition, lengths, frames):
        """2.7: the bits, for `behind` bytes behind the field lanes - 1"""
        bits = ""
        remaining, remaining_frames = behind, frames
        for (first, last), length in list(zip(partition, lengths))[:-1]:
            f = last - first
            p = remaining * f // remaining_frames
            k = max(0, p.bit_length() - 5)
            deviation = length - p
            u = 2 * deviation if deviation >= 0 else -2 * deviation - 1
            z = (u // 2**k + 1).bit_length() - 1
            bits += "0" * z + "1" + (bin(u - (2**z - 1) * 2**k)[2:].zfill(z + k) if z + k else "")
            remaining = max(0, remaining - length)
            remaining_frames -= f
        return bits

    @classmethod
    def closed_table(cls, behind, partition, lengths, frames):
        """2.7: the table, closed by a one bit; `behind` bytes follow it"""
        size = 0
        while True:
            bits = cls.lane_table(behind + size, partition, lengths, frames)
            need = len(bits) // 8 + 1
            if need <= size:
                return bits_to_bytes(bits.ljust(8 * size - 1, "0") + "1")
            size = need

    def batch_parts(self, frames, payloads, width):
        t, lanes = len(frames), len(payloads)
        parts = [["frames", varint(t - 1)], ["lanes", varint(lanes - 1)]]
        if lanes > 1:
            lengths = [len(p) for p in payloads]
            partition = self.partition(t, lanes)
            parts.append(["table", self.closed_table(width + sum(lengths), partition, lengths, t)])
        if width:
            parts.append(["check", None])
        return parts + [[f"payload{i}", p] for i, p in enumerate(payloads)]

    # -- chunks --------------------------------------------------------------------------------

    def frame(self, w, y, modes=(CODED, CODED), payload=None, **options):
        """A one-frame chunk; `payload` edits the payload's bytes."""
        index, epoch = self.index, self.epoch
        frame = self.new_frame(w, y, modes)
        data = self.payload([frame], y=not self.layered)
        if payload:
            data = payload(data)
        parts = ([["check", None]] if self.check else []) + [["payload0", data]]
        self.emit(0xC0, parts, check=(self.check, index, epoch), **options)
        self.happened("coded", "hyper_prior" if self.layered else "frames", index, 1)
        if self.layered:
            frame.status = "missing"
        return frame

    def batch(self, frames, lanes=1, payload=None, **options):
        index, epoch = self.index, self.epoch
        spans = self.partition(len(frames), lanes)
        starts = {i: index + a for a, b in spans[1:] for i in range(a, b)}
        frames = [self.new_frame(*frame, since=starts.get(i)) for i, frame in enumerate(frames)]
        payloads = [self.payload(frames[a:b], y=not self.layered)
                    for a, b in spans]
        if payload:
            payloads = payload(payloads)
        self.emit(0xC1, self.batch_parts(frames, payloads, self.check),
                  check=(self.check, index, epoch), **options)
        self.happened("coded", "hyper_prior" if self.layered else "frames", index, len(frames))
        if self.layered:
            for frame in frames:
                frame.status = "missing"

    def target(self, index, status="usable", count=1, lanes=None, epoch=None, payload=None,
               part=None, whole=False, **options):
        """A target of `count` frames from `index` on; `status` is what a decoder must say.

        `part` is (first element, their number): the frame is whole if this is the last part, as `whole` says.
        """
        frames = options.pop("of", None) or self.timeline[index : index + count]
        epoch = frames[0].epoch if epoch is None else epoch
        lanes = lanes or 1
        if part:
            payloads = [self.part_payload(frames[0], *part)]
        else:
            payloads = [self.payload(frames[a:b], w=False)
                        for a, b in self.partition(len(frames), lanes)]
        if payload:
            payloads = payload(payloads)
        parts = [["index_low", le(index % 65536, 2)], ["epoch_low", bytes([epoch % 256])]]
        if len(frames) == 1:
            kind = 0xC2
            fields = [["count", varint(part[1])], ["first", varint(part[0])]] if part else [["count", b"\0"]]
            parts += [*fields, ["check", None], ["payload0", payloads[0]]]
        else:
            kind = 0xC3
            parts += self.batch_parts(frames, payloads, 2)
        self.emit(kind, parts, check=(2, index, epoch), **options)
        self.statuses.append(status)
        self.happened("target", status, range(index, index + len(frames)), None if whole else part)
        if status == "usable":
            self.taken(frames, part, whole)

    def taken(self, frames, part, whole):
        """A decoder takes a target up."""
        for frame in frames:
            if part:
                frame.came |= set(range(part[0], part[0] + part[1]))
                assert whole == (len(frame.came) == self.model.e)
            if not part or whole:
                frame.status = "coded"

    def part_payload(self, frame, first, count):
        coder = Coder()
        self.code_y(coder, [frame], slice(first, first + count))
        return coder.seal()

    def kept(self, status, index=None, count=1, part=None, whole=False, ago=0):
        """What a decoder says of an early target that it kept, of the frames from `index` on: here, or before the
        last `ago` chunks.
        """
        self.statuses.append(status)
        later = self.log[self.logged[-ago] :] if ago else []
        del self.log[len(self.log) - len(later) :]
        self.happened("target", status, range(index or 0, (index or 0) + count), None if whole else part)
        self.logged = [at + (i >= len(self.logged) - ago) for i, at in enumerate(self.logged)]
        self.log += later
        if status == "usable":
            self.taken(self.timeline[index : index + count], part, whole)

    def forward(self, chunks=1, over=1):
        """The last `chunks` chunks overtake the `over` before them."""
        for pieces in (self.messages, self.kinds):
            ahead = pieces[-chunks:]
            pieces[-chunks - over :] = ahead + pieces[-chunks - over : -chunks]
        # What happened at each of these chunks moves with it.
        starts = [*self.logged[-chunks - over :], len(self.log)]
        entries = [self.log[a:b] for a, b in zip(starts, starts[1:])]
        self.log[starts[0] :] = []
        del self.logged[-chunks - over :]
        for entry in entries[over:] + entries[:over]:
            self.logged.append(len(self.log))
            self.log += entry

    def conceal(self, *indices):
        """The decoder's caller conceals these frames: here if they are overdue, or else at the end."""
        self.happened("overdue", indices)
        for i in indices:
            assert self.timeline[i].status == "missing"
            self.timeline[i].conceal()

    def checkpoint(self, unverifiable=False, **options):
        self.emit(0xC4, [["index", varint(self.index)], *self.digests(), ["crc", None]], **options)
        self.happened("state", self.checkpoints[-1], self.index)
        self.checkpoints.append(self.index)
        if unverifiable:
            self.unverifiable.append(self.marks["y_digest"])

    def reset(self, quality=None, unverifiable=False, length_offset=None, **options):
        """Without a length offset the one in force is stated again, here and in both switches."""
        quality = self.quality if quality is None else quality
        length_offset = self.length_offset if length_offset is None else length_offset
        self.seek.append((self.index, self.size()))
        self.epoch = (self.epoch + 1) % 2**32
        self.emit(0xC5, [["index", varint(self.index)], ["epoch", varint(self.epoch)],
                         ["quality", bytes([quality])], ["length_offset", varint(length_offset)],
                         ["prefix", self.model.fingerprint[:8]], *self.digests(),
                         ["crc", None]], **options)
        self.close_context()
        self.happened("say", "reset", self.index)
        if unverifiable:
            self.unverifiable.append(self.marks["y_digest"])
        self.quality = quality
        self.length_offset = length_offset
        self.begin_context()

    def rewind(self, index, **options):
        self.emit(0xC6, [["index", varint(index)], ["crc", None]], **options)
        self.happened("rewind", index)
        if self.start <= index < self.index:
            self.index = index
            del self.timeline[index:]
            self.given = []
            self.context.rewind(index - self.start)
            self.checkpoints = [c for c in self.checkpoints if c <= index]
        self.epoch = (self.epoch + 1) % 2**32

    def set_quality(self, quality, length_offset=None, **options):
        length_offset = self.length_offset if length_offset is None else length_offset
        self.emit(0xC7, [["quality", bytes([quality])], ["length_offset", varint(length_offset)], ["crc", None]],
                  **options)
        self.length_offset = length_offset
        self.happened("say", "quality", quality)
        if quality < self.model.q:
            self.quality = quality

    def switch(self, model, quality=0, unverifiable=False, length_offset=None, **options):
        length_offset = self.length_offset if length_offset is None else length_offset
        self.seek.append((self.index, self.size()))
        self.epoch = (self.epoch + 1) % 2**32
        self.emit(0xC8, [["index", varint(self.index)], ["epoch", varint(self.epoch)],
                         ["fingerprint", model.fingerprint], ["version", varint(3)],
                         ["quality", bytes([quality])], ["length_offset", varint(length_offset)],
                         *self.digests(), ["crc", None]],
                  **options)
        self.length_offset = length_offset
        self.close_context()
        self.happened("say", "model", self.index)
        if unverifiable:
            self.unverifiable.append(self.marks["y_digest"])
        self.model = model
        self.quality = quality if quality < model.q else 0
        self.begin_context()

    def exact(self, w, y, dtype, raw, modes=(CODED, CODED), payload=None, **options):
        index, epoch = self.index, self.epoch
        frame = self.new_frame(w, y, modes)
        frame.status = "exact"
        frame.hidden = widened(dtype, raw)
        data = self.payload([frame])
        if payload:
            data = payload(data)
        parts = [["dtype", bytes([dtype])], ["frame_length", varint(self.check + len(data))]]
        if self.check:
            parts.append(["check", None])
        self.emit(0xC9, parts + [["payload0", data], ["hidden", raw], ["crc", None]],
                  check=(self.check, index, epoch), **options)
        self.happened("say", "exact_frame", index)

    def side_indices(self, side, modes=(CODED, CODED), payload=None, **options):
        """A CC chunk; `modes` are those of the upper and the lower parts (6.12).

        An element of `side` may be a pair of parts that no index has.
        """
        coder, bank = Coder(), self.model.side
        pairs = [s if isinstance(s, tuple) else divmod(s, 256) for s in side]
        upper, lower = [u for u, _ in pairs], [low for _, low in pairs]
        coder.runs([(modes[0], upper, [(bank[0], 0) for _ in pairs])])
        coder.runs([(modes[1], lower, [(bank[1 + u if 0 <= u < len(bank) - 1 else 1], 0) for u in upper])])
        self.coder = coder
        data = coder.seal()
        if payload:
            data = payload(data)
        self.emit(0xCC, [["count", varint(len(side) - 1)], ["payload0", data], ["crc", None]], **options)
        self.happened("say", "side_indices", self.index, len(side), *side)
        self.given = [256 * u + low for u, low in pairs]

    def extension(self, ident, data, kind=0xE0, **options):
        self.emit(kind, [["id", varint(ident)], ["data", data], ["crc", None]], **options)
        self.happened("say", "extension", ident)

    def end(self, unverifiable=False, **options):
        self.emit(0xCA, [["index", varint(self.index)], ["coded", varint(self.coded)],
                         *self.digests(), ["crc", None]], **options)
        self.happened("state", self.checkpoints[-1], self.index)
        self.happened("say", "ended", self.index)
        if unverifiable:
            self.unverifiable.append(self.marks["y_digest"])

    def seek_index(self, entries=None, footer=None, footer_fault=None, **options):
        entries = self.seek if entries is None else entries
        parts = [["count", varint(len(entries))]]
        frame = offset = 0
        for i, (f, o) in enumerate(entries):
            parts += [[f"frame{i}", varint(f - frame)], [f"offset{i}", varint(o - offset)]]
            frame, offset = f, o
        at = self.size()
        self.emit(0xCB, [*parts, ["crc", None]], **options)
        parts = [["footer_offset", le(at, 8)], ["footer_magic", b"MSPX"]]
        if footer:
            footer(parts)
        self.put(parts, footer_fault)

    def raw(self, data, fault=None):
        """Bytes as they are: a message of its own in the message binding."""
        self.put([["raw", data]], fault)

    # -- what a decoder must find --------------------------------------------------------------

    def expected(self, conceal="never"):
        def sha(rows, form):
            digest = hashlib.sha256()
            for row in rows:
                digest.update(row if isinstance(row, bytes) else struct.pack(f"<{len(row)}{form}", *row))
            return digest.hexdigest()

        timeline = [(i, f) for i, f in enumerate(self.timeline, self.timeline.first) if i >= self.joined_index]
        known = [f for _, f in timeline if f.status != "missing"]
        told, confirmed, resume = reports(self.log, conceal, len(self.unverifiable))
        return {
            "events": self.kinds,
            "reports": told,
            "confirmed": confirmed,
            "resume": resume,
            "target_status": self.statuses,
            "frames": len(timeline),
            "w_sha256": sha((f.w for _, f in timeline), "h"),
            "y_sha256": sha((f.y for f in known), "h"),
            "hidden_sha256": sha((f.hidden for f in known), "f"),
            "concealed": [i for i, f in timeline if f.status == "concealed"],
            "missing": [i for i, f in timeline if f.status == "missing"],
            "unverifiable": self.unverifiable,
        }
