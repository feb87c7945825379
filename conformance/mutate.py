"""Vectors that are broken at random, with what the reference decoder says of them.

    python mutate.py OUTDIR [--seed N] [--count N]

Writes streams and a manifest into OUTDIR, to be run with `run.py OUTDIR/manifest.json -- COMMAND` or by another
decoder's own tests. Chunks are dropped, doubled and swapped, their bodies changed; most crcs and checks are made right
again, so that what stands after them is judged. Now and then the caller says something else of side indices. In layered
streams targets are moved, doubled, dropped, and given the names of other frames and epochs. The expected values are the
reference decoder's: where another one differs, one of the two is wrong, or the text.
"""
import argparse
import json
import os
import random
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "reference"))

from midspan_reference import container  # noqa: E402
from midspan_reference.__main__ import summary, unwrap  # noqa: E402
from midspan_reference.conventions import crc32, u16le, u32le  # noqa: E402
from midspan_reference.decoder import Decoder  # noqa: E402
from midspan_reference.errors import MidspanError  # noqa: E402
from midspan_reference.model import load  # noqa: E402

VECTORS = os.path.join(HERE, "vectors")
LARGEST = 2500  # bytes of a stream: the reference is slow
KINDS = [*range(0xC0, 0xCD), 0xE0, 0xF0, 0xD0, 0xFF]


def varint(value):
    size = next(n for n in range(1, 9) if value < 1 << 7 * n)
    return (((0xFF << (9 - size)) & 0xFF) << 8 * (size - 1) | value).to_bytes(size, "big")


def lead(kind, length, messages, length_offset):
    if messages:
        return b"" if kind == 0xC0 else bytes([kind])
    if kind == 0xC0 and length_offset <= length < length_offset + 128:
        return bytes([length - length_offset])
    if kind == 0xC0 and length < 16512:
        k = length if length < length_offset else length - 128
        return bytes([0x80 | k >> 8, k & 255])
    return bytes([kind]) + varint(length)


def join_of(vector):
    return (vector["join"]["offset"], vector["join"]["index"]) if "join" in vector else None


class Whole:
    """A valid stream taken apart."""

    def __init__(self, vector, models):
        with open(os.path.join(VECTORS, vector["stream"]), "rb") as file:
            data = file.read()
        self.messages = vector["binding"] == "messages"
        messages = unwrap(data) if self.messages else None
        data = b"".join(messages) if self.messages else data
        self.joins = "join" in vector
        self.header, *chunks = container.read(data, vector["binding"], messages, join_of(vector))
        self.head = data[: chunks[0].offset]  # where the stream is joined, all that stands before
        self.heads, at = [], 0  # the same as messages
        for message in messages or ():
            if at < len(self.head):
                self.heads.append(message)
            at += len(message)
        # The side indices of each chunk's frames, which only a decoder knows.
        for chunk in chunks:
            chunk.side = ()
        if self.header.side:
            decoder = Decoder(models, vector["conceal"], answers=vector.get("side", ()))
            decoder.run(data, vector["binding"], messages, join_of(vector))
            told = [event for event in decoder.events if event["kind"] != "kept"]
            for chunk, event in zip(chunks, told):
                chunk.side = event.get("side", ())
        # Quality, length offset and epoch in force at each chunk.
        quality, length_offset, epoch = self.header.quality, self.header.length_offset, 0
        for chunk in chunks:
            chunk.length_offset = length_offset
            chunk.quality, chunk.now = quality, chunk.epoch if chunk.frames else epoch
            epoch = chunk.epoch
            if chunk.kind in (0xC5, 0xC7, 0xC8):
                quality, length_offset = chunk.fields["quality"], chunk.fields["length_offset"]
        self.chunks = [(c, data[c.offset : c.start], data[c.start : c.end], data[c.end : c.offset + c.size])
                       for c in chunks]
        last = chunks[-1]
        self.tail = data[last.offset + last.size :]  # a footer


class Mutator:
    def __init__(self, rnd):
        self.rnd = rnd

    def bytes(self, body):
        rnd, body = self.rnd, bytearray(body)
        for _ in range(rnd.choice([1, 1, 1, 2, 3])):
            choice = rnd.random()
            if choice < 0.5 and body:
                body[rnd.randrange(len(body))] ^= 1 << rnd.randrange(8)
            elif choice < 0.65 and body:
                body[rnd.randrange(len(body))] = rnd.choice([0, 1, 127, 128, 255, rnd.randrange(256)])
            elif choice < 0.8:
                body.insert(rnd.randint(0, len(body)), rnd.choice([0, 1, 255, rnd.randrange(256)]))
            elif body:
                del body[rnd.randrange(len(body))]
        return bytes(body)

    def order(self, count):
        """The chunks that come, by number, and the place of the one whose body changes."""
        rnd, order = self.rnd, list(range(count))
        choice = rnd.random()
        if choice < 0.15:
            order.pop(rnd.randrange(count))
        elif choice < 0.3:
            order.insert(rnd.randint(0, count), rnd.choice(order))
        elif choice < 0.4 and count > 1:
            i = rnd.randrange(count - 1)
            order[i], order[i + 1] = order[i + 1], order[i]
        return order, rnd.randrange(len(order)) if choice >= 0.3 and order else None

    def body(self, whole, chunk, body):
        """Another kind and body, often with a crc or check that fits."""
        rnd, header = self.rnd, whole.header
        kind = rnd.choice(KINDS) if rnd.random() < 0.08 else chunk.kind
        width = header.check_width

        def sealed(fields):
            return fields + container.control_crc(header, kind, chunk.index, chunk.now, fields)

        def check(rest, width=width, epoch=chunk.now):
            return container.frame_check(header, kind, chunk.index, epoch, chunk.quality, rest, width, chunk.side)

        def either(first, second, odds):
            return (self.bytes(first), second) if rnd.random() < odds else (first, self.bytes(second))

        if kind == chunk.kind == 0xC9 and rnd.random() < 0.7:
            hidden, payload = either(chunk.fields["hidden"], chunk.lanes[0][1], 0.4)
            return kind, sealed(body[:1] + varint(width + len(payload)) + check(payload) + payload + hidden)
        if kind in container.CONTROL and rnd.random() < 0.9:
            return kind, sealed(self.bytes(body[:-4] if chunk.kind in container.CONTROL else body))
        if kind == 0xC0 and width and rnd.random() < 0.8:
            payload = self.bytes(body[width:])
            return kind, check(payload) + payload
        if kind == chunk.kind == 0xC1 and width and rnd.random() < 0.8:
            at = chunk.at["check"] - chunk.start
            fields, payload = either(body[:at], body[at + width :], 0.4)
            return kind, fields + check(fields + payload) + payload
        if kind == chunk.kind in (0xC2, 0xC3) and chunk.check_holds and rnd.random() < 0.8:
            at = chunk.at["check"] - chunk.start
            fields, payload = either(body[3:at], body[at + 2 :], 0.5)
            fields = body[:3] + fields
            return kind, fields + check(fields + payload, 2, chunk.fields["epoch"]) + payload
        return kind, self.bytes(body) if rnd.random() < 0.9 else body

    def renamed(self, whole, chunk, body):
        """A target with the name and the check of another frame or epoch."""
        rnd = self.rnd
        index = max(0, chunk.index + rnd.choice([-2, -1, 0, 0, 1, 2, 3, 4095, -65536, 65536]))
        epoch = max(0, chunk.fields["epoch"] + rnd.choice([-1, 0, 0, 1, 2, 8, 9, 256]))
        at = chunk.at["check"] - chunk.start
        fields = u16le(index % 2**16) + bytes([epoch % 2**8]) + body[3:at]
        rest = body[at + 2 :]
        return fields + container.frame_check(whole.header, chunk.kind, index, epoch, 0, fields + rest, 2) + rest

    def targets(self, whole):
        """The chunks, with some targets at other places, twice, not at all, or with other names."""
        rnd, items = self.rnd, list(whole.chunks)
        for _ in range(rnd.randint(1, 6)):
            found = [i for i, (chunk, *_) in enumerate(items) if chunk.kind in (0xC2, 0xC3)]
            if not found:
                break
            i, choice = rnd.choice(found), rnd.random()
            chunk, _, body, end = items[i]
            if choice < 0.5:
                items.insert(rnd.randint(0, len(items) - 1), items.pop(i))
            elif choice < 0.7:
                items.insert(rnd.randint(0, len(items) - 1), items[i])
            elif choice < 0.8:
                items.pop(i)
            elif chunk.check_holds and "check" in chunk.at:
                body = self.renamed(whole, chunk, body)
                item = (chunk, lead(chunk.kind, len(body), whole.messages, chunk.length_offset), body, end)
                items.insert(rnd.randint(0, len(items) - 1), item)
        return items

    def answers(self, side):
        """What the caller says of side indices, at times something else."""
        rnd, side = self.rnd, [[first, list(indices)] for first, indices in side]
        if side and rnd.random() < 0.15:
            at = rnd.randrange(len(side))
            indices = side[at][1]
            choice = rnd.random()
            if choice < 0.5:
                indices[rnd.randrange(len(indices))] = rnd.choice([0, 1, 5, 299, 300, 301, 2**32 - 1])
            elif choice < 0.7:
                indices.append(0)
            elif choice < 0.85:
                indices.pop()
            else:
                side.pop(at)
        return side

    def head(self, whole):
        """Another header, its length and crc most often right."""
        tail = b"\0" if whole.messages else b""
        head = bytearray(self.bytes(whole.head[: len(whole.head) - 4 - len(tail)]))
        if len(head) > 7 and self.rnd.random() < 0.8:
            head[6] = min(127, len(head) - 7)
        return bytes(head) + u32le(crc32(bytes(head))) + tail

    def stream(self, whole):
        """The bytes of a stream file."""
        rnd = self.rnd
        head = self.head(whole) if rnd.random() < 0.08 and not whole.joins else whole.head
        items, place = list(whole.chunks), None
        if whole.header.layered and rnd.random() < 0.5:
            items = self.targets(whole)
            if items and rnd.random() < 0.15:
                place = rnd.randrange(len(items))
        else:
            order, place = self.order(len(items))
            items = [items[number] for number in order]
        pieces = []
        for number, (chunk, front, body, end) in enumerate(items):
            if number == place:
                kind, body = self.body(whole, chunk, body)
                front = lead(kind, len(body), whole.messages, chunk.length_offset)
            pieces.append(front + body + end)
        if whole.messages:
            if rnd.random() < 0.05:
                pieces = pieces[: rnd.randint(0, len(pieces))]
            heads = [head, *whole.heads[1:]] if not whole.joins else whole.heads
            return b"".join(u32le(len(m)) + m for m in heads + pieces)
        data = head + b"".join(pieces) + whole.tail
        if rnd.random() < 0.1:  # a decoder that joins has the header from elsewhere
            data = data[: rnd.randint(len(head) if whole.joins else 0, len(data))]
        return data + (bytes([rnd.randrange(256)]) if rnd.random() < 0.03 else b"")


def judged(vector, data, models):
    """The manifest's entry: what the reference says."""
    decoder = Decoder(models, vector["conceal"], answers=vector.get("side", ()))
    messages = unwrap(data) if vector["binding"] == "messages" else None
    try:
        decoder.run(b"".join(messages) if messages is not None else data, vector["binding"], messages, join_of(vector))
    except MidspanError as fault:
        expected = {"code": fault.code, "offset": fault.offset}
        if fault.code == 401:  # nothing was judged in part
            expected.update(confirmed=decoder.confirmed, resume=decoder.resume)
    else:
        expected = {"reports": decoder.reports, "confirmed": decoder.confirmed, "resume": decoder.resume,
                    "target_status": [e["status"] for e in decoder.events if "status" in e], **summary(decoder)}
    # An early target has a second entry when it is decided; it is no chunk.
    expected["events"] = [event["kind"] for event in decoder.events if event["kind"] != "kept"]
    return {**vector, "valid": "code" not in expected, "container_only": False, "expected": expected}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1000)
    options = parser.parse_args()
    rnd = random.Random(options.seed)
    mutator = Mutator(rnd)
    with open(os.path.join(VECTORS, "manifest.json")) as file:
        vectors = [v for v in json.load(file)["vectors"]
                   if v["valid"] and "host" not in v and "reports" in v["expected"]
                   and os.path.getsize(os.path.join(VECTORS, v["stream"])) < LARGEST]
    wholes, models, entries, codes = {}, {}, [], {}
    os.makedirs(options.out, exist_ok=True)
    for number in range(options.count):
        vector = rnd.choice(vectors)
        name = vector["name"]
        for path in vector["models"]:
            if path not in models:
                with open(os.path.join(VECTORS, path), "rb") as file:
                    models[path] = load(file.read())
        whole = wholes.setdefault(name, None) or Whole(vector, [models[path] for path in vector["models"]])
        wholes[name] = whole
        data = mutator.stream(whole)
        conceal = rnd.choice(["never", "end", "overdue"]) if whole.header.layered else "never"
        entry = judged({
            "name": f"{number}-{name}", "description": f"{name}, broken at random", "rules": [],
            "models": [os.path.relpath(os.path.join(VECTORS, p), options.out) for p in vector["models"]],
            "binding": vector["binding"], "conceal": conceal, "stream": f"{number}.bin",
            **{key: vector[key] for key in ("join",) if key in vector},
            **({"side": mutator.answers(vector["side"])} if "side" in vector else {}),
        }, data, [models[path] for path in vector["models"]])
        with open(os.path.join(options.out, entry["stream"]), "wb") as file:
            file.write(data)
        entries.append(entry)
        code = entry["expected"].get("code", "valid")
        codes[code] = codes.get(code, 0) + 1
    with open(os.path.join(options.out, "manifest.json"), "w") as file:
        json.dump({"format": 1, "vectors": entries}, file)
    valid = codes.pop("valid", 0)
    print(f"{options.count} streams, {valid} valid, {len(codes)} error numbers: "
          + ", ".join(f"{code} {count} times" for code, count in sorted(codes.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
