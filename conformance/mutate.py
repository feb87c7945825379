"""Vectors that are broken at random, with what the reference decoder says of them.

    python mutate.py OUTDIR [--seed N] [--count N]

Writes streams and a manifest into OUTDIR, to be run with `run.py OUTDIR/manifest.json -- COMMAND` or by another decoder's
own tests. Chunks are dropped, doubled and swapped, their bodies changed; most crcs and checks are made right again, so
that what stands after them is judged. The expected values are the reference decoder's: where another one differs, one of
the two is wrong, or the text.
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
from midspan_reference.conventions import crc32, u32le, u64le  # noqa: E402
from midspan_reference.decoder import Decoder  # noqa: E402
from midspan_reference.errors import MidspanError  # noqa: E402
from midspan_reference.model import load  # noqa: E402

VECTORS = os.path.join(HERE, "vectors")
LARGEST = 1500  # bytes of a stream: the reference is slow
KINDS = [*range(0xC0, 0xCC), 0xE0, 0xF0, 0xD0, 0xFF]


def varint(value):
    size = next(n for n in range(1, 9) if value < 1 << 7 * n)
    return (((0xFF << (9 - size)) & 0xFF) << 8 * (size - 1) | value).to_bytes(size, "big")


def lead(kind, length, messages):
    if messages:
        return b"" if kind == 0xC0 else bytes([kind])
    if kind == 0xC0 and length < 128:
        return bytes([length])
    if kind == 0xC0 and length < 16512:
        return bytes([0x80 | (length - 128) >> 8, (length - 128) & 255])
    return bytes([kind]) + varint(length)


class Whole:
    """A valid stream taken apart."""

    def __init__(self, vector):
        with open(os.path.join(VECTORS, vector["stream"]), "rb") as file:
            data = file.read()
        self.messages = vector["binding"] == "messages"
        messages = unwrap(data) if self.messages else None
        data = b"".join(messages) if self.messages else data
        self.header, *chunks = container.read(data, vector["binding"], messages)
        self.head = data[: chunks[0].offset]
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
        if kind in container.CONTROL and rnd.random() < 0.9:
            fields = self.bytes(body[:-4]) if chunk.kind in container.CONTROL else self.bytes(body)
            return kind, fields + u32le(crc32(header.identity + bytes([kind]) + fields))
        if kind == 0xC0 and header.check_width and rnd.random() < 0.8:
            payload = self.bytes(body[header.check_width :])
            check = crc32(header.identity + u64le(chunk.index) + u32le(chunk.epoch) + b"\xc0" + payload)
            return kind, bytes(byte or 255 for byte in u32le(check)[: header.check_width]) + payload
        if kind == chunk.kind in (0xC2, 0xC3) and chunk.check_holds and rnd.random() < 0.8:
            at = chunk.at["check"] - chunk.start
            fields, payload = body[:at], body[at + 2 :]
            if rnd.random() < 0.5:
                fields = fields[:3] + self.bytes(fields[3:])
            else:
                payload = self.bytes(payload)
            check = crc32(header.identity + u64le(chunk.index) + u32le(chunk.fields["epoch"]) + bytes([kind]) + fields
                          + payload)
            return kind, fields + bytes(byte or 255 for byte in u32le(check)[:2]) + payload
        return kind, self.bytes(body) if rnd.random() < 0.9 else body

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
        pieces = [self.head(whole) if rnd.random() < 0.08 else whole.head]
        order, target = self.order(len(whole.chunks))
        for place, number in enumerate(order):
            chunk, front, body, end = whole.chunks[number]
            if place == target:
                kind, body = self.body(whole, chunk, body)
                front = lead(kind, len(body), whole.messages)
            pieces.append(front + body + end)
        if whole.messages:
            keep = rnd.randint(0, len(pieces)) if rnd.random() < 0.05 else len(pieces)
            return b"".join(u32le(len(m)) + m for m in pieces[:keep])
        data = b"".join(pieces) + whole.tail
        if rnd.random() < 0.1:
            data = data[: rnd.randint(0, len(data))]
        return data + (bytes([rnd.randrange(256)]) if rnd.random() < 0.03 else b"")


def judged(vector, data, models):
    """The manifest's entry: what the reference says."""
    decoder = Decoder(models, vector["conceal"])
    messages = unwrap(data) if vector["binding"] == "messages" else None
    try:
        decoder.run(b"".join(messages) if messages is not None else data, vector["binding"], messages)
    except MidspanError as fault:
        expected = {"code": fault.code, "offset": fault.offset}
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
                   if v["valid"] and "join" not in v and "reports" in v["expected"] and "model" not in v["name"]
                   and os.path.getsize(os.path.join(VECTORS, v["stream"])) < LARGEST]
    wholes, models, entries, codes = {}, {}, [], {}
    os.makedirs(options.out, exist_ok=True)
    for number in range(options.count):
        vector = rnd.choice(vectors)
        name = vector["name"]
        whole = wholes.setdefault(name, None) or Whole(vector)
        wholes[name] = whole
        for path in vector["models"]:
            if path not in models:
                with open(os.path.join(VECTORS, path), "rb") as file:
                    models[path] = load(file.read())
        data = mutator.stream(whole)
        conceal = rnd.choice(["never", "end", "overdue"]) if whole.header.layered else "never"
        entry = judged({
            "name": f"{number}-{name}", "description": f"{name}, broken at random", "rules": [],
            "models": [os.path.relpath(os.path.join(VECTORS, p), options.out) for p in vector["models"]],
            "binding": vector["binding"], "conceal": conceal, "stream": f"{number}.bin",
        }, data, [models[path] for path in vector["models"]])
        with open(os.path.join(options.out, entry["stream"]), "wb") as file:
            file.write(data)
        entries.append(entry)
        code = entry["expected"].get("code", "valid")
        codes[code] = codes.get(code, 0) + 1
    with open(os.path.join(options.out, "manifest.json"), "w") as file:
        json.dump({"format": 1, "vectors": entries}, file)
    print(f"{options.count} streams, {codes.pop('valid', 0)} valid, {len(codes)} error numbers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
