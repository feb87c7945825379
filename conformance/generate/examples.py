"""python -m generate.examples OUTDIR: the annotated streams of spec/examples.

Each stream is listed field by field as it is written, and the first frame of the first one is
worked through: network, tables, coder.
"""
import json
import os
import random
import sys

from . import gy
from .coder import BITS
from .encoder import NAMES, Stream
from .models import Model
from .vectors.common import Source

TITLES = {
    "frame": "one-frame chunk", "batch": "batch C1", "target": "target C2",
    "target_batch": "target batch C3", "checkpoint": "checkpoint C4", "reset": "context reset C5",
    "rewind": "rewind C6", "quality": "quality switch C7", "model": "model switch C8",
    "exact": "exact frame C9", "end": "end CA", "seek_index": "seek index CB",
    "extension": "ignorable extension E0",
}
# Field -> how its bytes read.
FIELDS = {
    "magic": ("magic", None), "format": ("format version", "u8"), "least": ("minimum reader version", "u8"),
    "length": ("body length", "varint"), "flags": ("flags", "bits"), "tracks": ("track count", "u8"),
    "fingerprint": ("model fingerprint", None), "version": ("model version", "varint"),
    "quality": ("quality index", "u8"), "host": ("host digest", None),
    "max_frames": ("max frames per chunk", "varint"), "max_bytes": ("max chunk bytes", "varint"),
    "max_rewind": ("max rewind", "varint"), "horizon": ("target horizon", "varint"),
    "crc": ("crc", "u32"), "kind": ("kind", None), "check": ("check", None),
    "frames": ("frames − 1", "varint"), "lanes": ("lanes − 1", "varint"), "table": ("lane table", "bits"),
    "index": ("index", "varint"), "epoch": ("epoch", "varint"), "coded": ("frames coded", "varint"),
    "w_digest": ("W digest", "u32"), "y_digest": ("Y digest", "u32"),
    "prefix": ("fingerprint prefix", None), "index_low": ("index low", "u16"),
    "epoch_low": ("epoch low", "u8"), "dtype": ("dtype", "u8"),
    "frame_length": ("frame length", "varint"), "hidden": ("hidden state", None), "id": ("extension id", "varint"),
    "data": ("data", None), "id0": ("optional field id", "varint"), "size0": ("its length", "varint"),
    "value0": ("its value", "text"), "tail": ("end of the first message", None),
    "zero": ("end of the message", None),
}


def read_varint(piece):
    first, more = piece[0], len(piece) - 1
    return int.from_bytes(bytes([first & (0x7F >> more)]) + piece[1:], "big")


def reading(form, piece):
    if form == "varint":
        return f"{read_varint(piece):,}"
    if form in ("u8", "u16"):
        return str(int.from_bytes(piece, "little"))
    if form == "u32":
        return f"0x{int.from_bytes(piece, 'little'):08X}"
    if form == "bits":
        return " ".join(f"{byte:08b}" for byte in piece)
    if form == "text":
        return f'"{piece.decode()}"'
    return ""


def hexadecimal(piece):
    return " ".join(f"{byte:02x}" for byte in piece)


def row(values):
    return "(" + ", ".join(f"{v:,}".replace("-", "−") for v in values) + ")"


class Listed(Stream):
    """A stream that writes its own listing."""

    def __init__(self, *arguments, **options):
        self.listing = []
        self.note = None
        super().__init__(*arguments, **options)

    def put(self, parts, fault=None):
        self.listing.append((self.size(), [tuple(part) for part in parts]))
        super().put(parts, fault)

    def say(self, text):
        """A sentence below the latest chunk."""
        offset, parts = self.listing[-1]
        self.listing[-1] = (offset, parts + [(None, text)])

    def integers(self, first, count=1, w=True, y=True):
        for i in range(first, first + count):
            frame = self.timeline[i]
            said = ([f"W {row(frame.w)}"] if w else []) + ([f"Y {row(frame.y)}"] if y else [])
            self.say(f"Frame {i}: " + ", ".join(said) + ".")

    def markdown(self, title, introduction):
        kinds = iter(self.kinds)
        out = [f"# {title}", "", introduction, ""]
        for number, (offset, parts) in enumerate(self.listing):
            name = "stream header" if number == 0 else TITLES[next(kinds)]
            out += [f"## {name}, at {offset}", "", "| offset | bytes | field | value |", "| --- | --- | --- | --- |"]
            at = offset
            for field, piece in parts:
                if field is None or not piece:
                    continue
                if field.startswith("payload"):
                    label, value = f"payload {field[7:]}" if len(parts) > 4 else "payload", f"{len(piece)} bytes"
                elif field == "length" and number and parts[0][0] == "length":
                    label, value = "leading byte", f"one frame, body of {piece[0]} bytes"
                else:
                    label, form = FIELDS[field]
                    value = reading(form, piece)
                out.append(f"| {at} | `{hexadecimal(piece)}` | {label} | {value} |")
                at += len(piece)
            sentences = [text for field, text in parts if field is None]
            out += [""] + [line for text in sentences for line in (text, "")]
        return "\n".join(out).rstrip() + "\n"


def model():
    return Model("example", 7, e=4, c=2, q=2, widths=(4, 6), heads=[2, 1], window=3,
                 scales=((0.6, 0), (1.5, 1), (3, 2)))


def calm(seed):
    """A source whose W and Y stay small, so that one reads them at a glance."""
    source = Source(seed)
    rnd = random.Random(seed)
    source.w = lambda m: [rnd.randint(-3, 3) for _ in range(m.c)]
    return source


def joined(m):
    s, src = Listed(m, optional=((2, b"midspan"),), max_frames=16), calm(1)
    s.say("The optional field with id 2 names the producer.")

    def one():
        s.frame(*src.frame(m, spread=1, escapes=0))
        s.integers(s.index - 1)

    one()
    s.say("[The worked frame](frame.md) follows this one through network and coder.")
    one()
    s.batch(src.frames(m, 5, spread=1, escapes=0), lanes=2)
    s.integers(s.index - 5, 5)
    s.say("Lane 0 holds frames 2 and 3, lane 1 frames 4 to 6 ([BATCH-3]); each codes all its W, then all its Y.")
    s.checkpoint()
    s.say("The next frame is 7. The Y digest starts anew here.")
    s.set_quality(1)
    one()
    s.say("Coded with the second row of steps, gains and hyper-prior tables; the context goes on.")
    s.rewind(6)
    s.say("Frames 6 and 7 are gone; the epoch is 1.")
    one()
    s.exact([1, -2], src.y(m, spread=1, escapes=0), 1, bytes.fromhex("003c00c066b60000"))
    s.integers(s.index - 1)
    s.say("The hidden state is (1, −2, −0.4, 0) in f16; it is handed out in place of what step and offset give.")
    s.reset()
    s.say("The context is empty from here on, the epoch is 2.")
    one()
    w, y = src.frame(m, spread=1, escapes=0)
    s.frame([w[0], m.w_max], lambda means: y(means)[:3] + [m.y_min])
    s.integers(s.index - 1)
    s.say("The second W and the last Y are the ends of their declared ranges and lie outside their tables: each is an escape symbol and a bounded universal "
          "code (3.4).")
    s.extension(27, b"ok")
    s.say("An id of the form 27 + 31·n: to be ignored, once the crc was checked.")
    s.end()
    s.say("10 frames stand in the timeline, 12 were coded: 2 were rewound.")
    return s, "never", s.markdown(
        "A joined byte stream", "[joined.bin](joined.bin), one-frame chunks without checks, a batch of two lanes, and "
        "every control chunk but a model switch. Model: [model.safetensors](model.safetensors).")


def layered(m):
    s, src = Listed(m, layered=True, check=1, horizon=8, max_frames=8), calm(2)
    s.say("Check width 1: hyper-prior chunks carry a check of one byte; targets always carry two.")
    s.frame(*src.frame(m, spread=1, escapes=0))
    s.integers(0, y=False)
    s.target(0)
    s.integers(0, w=False)
    s.batch(src.frames(m, 4, spread=1, escapes=0))
    s.integers(1, 4, y=False)
    s.target(3, count=2)
    s.integers(3, 2, w=False)
    s.say("Targets may come in any order.")

    def spoil(parts):
        for part in parts:
            if part[0] == "payload0":
                part[1] = bytes([part[1][0] ^ 0x10]) + part[1][1:]

    s.target(1, "damaged", after=spoil)
    s.say("One bit of the payload is wrong, so the check differs: an event, no error ([CHECK-2]). Frame 1 goes on "
          "waiting.")
    s.target(2)
    s.integers(2, w=False)
    s.checkpoint(unverifiable=True)
    s.say("W is verified at once. Y cannot be judged before frame 1 has its target or is concealed ([DEC-10]).")
    s.conceal(1)
    s.say(f"Behind this chunk the decoder's caller conceals frame 1: Y becomes the rounded means "
          f"{row(s.timeline[1].y)}, and the checkpoint's Y digest is unverifiable ([DEC-8]).")
    s.frame(*src.frame(m, spread=1, escapes=0))
    s.integers(5, y=False)
    s.target(5)
    s.integers(5, w=False)
    s.end()
    s.say("The Y digest covers frame 5 alone, and holds.")
    return s, "end", s.markdown(
        "A layered byte stream", "[layered.bin](layered.bin): hyper-prior and target chunks, a batch, targets out of "
        "order, one damaged and concealed. Model: [model.safetensors](model.safetensors).")


def messages(m):
    s, src = Listed(m, binding="messages", max_frames=8), calm(3)
    s.say("The first message is the header and one byte 00 ([MSG-1]).")

    def one():
        s.frame(*src.frame(m, spread=1, escapes=0))
        s.integers(s.index - 1)

    one()
    s.say("A message that does not end in 00 is the body of a one-frame chunk: nothing was spent on its kind or length "
          "([MSG-2]).")
    one()
    s.batch(src.frames(m, 3, spread=1, escapes=0))
    s.integers(2, 3)
    s.say("A message that ends in 00 is typed by its first byte ([MSG-3]).")
    s.checkpoint()
    one()
    s.end()
    return s, "never", s.markdown(
        "A message stream", "[messages.bin](messages.bin): in this file each message stands behind its length as u32le; "
        "offsets count in the messages alone. Model: [model.safetensors](model.safetensors).")


def worked(m, frame, payload):
    """Frame 0 of the joined stream: network, tables, coder."""
    net, q = m.net, frame.quality
    out = ["# One frame, worked through", "",
           "Frame 0 of [joined.bin](joined.bin) with [model.safetensors](model.safetensors): E = 4, C = 2, widths "
           f"{row(m.widths)}, quality {q}. W is {row(frame.w)}.", "", "## g_y (chapter 5)", "",
           "| step | value |", "| --- | --- |"]

    def note(name, values):
        out.append(f"| {name} | {row(values)} |")

    x = [gy.clamp16(gy.round_shift(v * a, b))
         for v, a, b in zip(frame.w, net["input.multiplier"][q], net["input.shift"][q])]
    note("5.5.1 input", x)
    for b, block in enumerate(net["blocks"]):
        n = gy.norm(x, block["norm1"])
        note(f"block {b}: n = norm(x, norm1)", n)
        for layer in "qkv":
            note(f"block {b}: {layer}", [gy.clamp(y, -2047, 2047) for y in gy.linear(block[layer], n)])
        a = gy.Context(net).attention(block, [], n)
        note(f"block {b}: a (one frame: every e is exp[0], so a is v)", a)
        x = [gy.clamp16(i + gy.clamp16(j)) for i, j in zip(x, gy.linear(block["o"], a))]
        note(f"block {b}: x₁", x)
        p = [gy.clamp16(y) for y in gy.linear(block["proj"], x)]
        note(f"block {b}: p", p)
        mlp = gy.norm(p, block["norm2"])
        note(f"block {b}: m = norm(p, norm2)", mlp)
        u = [gy.clamp(y, -2048, 2047) for y in gy.linear(block["up"], mlp)]
        note(f"block {b}: u", u)
        g = [net["activation"][y + 2048] for y in u]
        note(f"block {b}: g", g)
        x = [gy.clamp16(i + gy.clamp16(j)) for i, j in zip(p, gy.linear(block["down"], g))]
        note(f"block {b}: x₂", x)
    note("5.5.3 norm(x, output.norm)", gy.norm(x, net["output.norm"]))
    note("means, unit 1/64", frame.means)
    note("scale indices", frame.scales)
    out += ["", "## Tables of Y (6.2)", "", "| channel | mean | scale | f | q | k | fraction | table | Y |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    symbols = []

    def plan(label, table, shift, value):
        first, c = table
        first += shift
        size = len(c) - 3
        if first <= value < first + size:
            symbols.append((label, f"{value}", c, value - first + 1))
            return
        low = value < first
        symbols.append((label, "low escape" if low else "high escape", c, 0 if low else size + 1))
        d = first - 1 - value if low else value - first - size
        digits = bin(d + 1)[2:]
        for bit in "1" * (len(digits) - 1) + ("" if len(digits) == 16 else "0") + digits[1:]:
            symbols.append((label, f"escape bit {bit}", BITS, int(bit)))

    for c, value in enumerate(frame.w):
        plan(f"W[{c}]", m.hyper_prior[q * m.c + c], 0, value)
    for c, (mean, scale, value) in enumerate(zip(frame.means, frame.scales, frame.y)):
        f = m.fraction_bits[scale]
        rounded = mean if f == 6 else gy.round_shift(mean, 6 - f)
        k, fraction = rounded >> f, rounded - (rounded >> f << f)
        table = m.base[scale] + fraction
        plan(f"Y[{c}]", m.target[table], gy.clamp(k, m.y_min, m.y_max), value)
        cells = [c, mean, scale, f, rounded, k, fraction, table, value]
        out.append("| " + " | ".join(str(cell).replace("-", "−") for cell in cells) + " |")
    out += ["", "## Range decoder (3.1)", "", f"The payload is `{hexadecimal(payload)}`.", "",
            "| symbol | value | offset before | range before | scale | q | c[i] … c[i + 1] |",
            "| --- | --- | --- | --- | --- | --- | --- |"]
    padded = payload + bytes(64)
    words = 4
    offset, extent = int.from_bytes(padded[:8], "big"), 2**64 - 1
    for label, value, c, i in symbols:
        scale = extent >> 16
        quotient = offset // scale
        assert c[i] <= quotient < c[i + 1]
        out.append(f"| {label} | {value.replace('-', '−')} | `{offset:016x}` | `{extent:016x}` | `{scale:012x}` | "
                   f"{quotient} | {c[i]} … {c[i + 1]} |")
        offset, extent = offset - scale * c[i], scale * (c[i + 1] - c[i])
        if extent < 2**48:
            extent <<= 16
            offset = offset << 16 | int.from_bytes(padded[2 * words : 2 * words + 2], "big")
            words += 1
    length, last = len(payload), payload[-1]
    e = 8 * (2 * words - length)
    out += ["", f"At the end offset is `{offset:016x}`, range `{extent:016x}`, words {words}; N = {length}, last = {last}, "
            f"e = 8·(2·{words} − {length}) = {e}. offset < 2^{e} and {256 - last}·2^{e} ≥ range − offset: the payload "
            "is canonical (3.3).", "",
            "## Reconstruction (6.7)", "", "| channel | Y | step | offset | hidden |", "| --- | --- | --- | --- | --- |"]
    for c in range(m.e):
        out.append(f"| {c} | {frame.y[c]} | {m.step[q][c]!r} | {m.offset[q][c]!r} | {frame.hidden[c]!r} |"
                   .replace("| -", "| −"))
    return "\n".join(out) + "\n"


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 1
    root = sys.argv[1]
    os.makedirs(root, exist_ok=True)

    def write(path, data):
        with open(os.path.join(root, path), "wb") as file:
            file.write(data if isinstance(data, bytes) else data.encode())

    m = model()
    write("model.safetensors", m.tensors.file())
    entries = []
    for name, make in (("joined", joined), ("layered", layered), ("messages", messages)):
        stream, conceal, text = make(m)
        write(f"{name}.bin", stream.wrapped())
        write(f"{name}.md", text)
        entries.append({
            "name": f"example-{name}", "description": text.splitlines()[0][2:], "rules": [],
            "models": ["model.safetensors"], "binding": stream.binding, "conceal": conceal,
            "stream": f"{name}.bin", "valid": True, "container_only": False, "expected": stream.expected(conceal),
        })
        if name == "joined":
            first = dict(stream.listing[1][1])["payload0"]
            # The rewind and the reset leave frame 0 alone.
            write("frame.md", worked(m, stream.timeline[0], first))
    write("manifest.json", json.dumps({"format": 1, "vectors": entries}, indent=1) + "\n")
    write("README.md", "\n".join([
        "# Examples", "",
        "Streams annotated byte by byte, with a model small enough to compute by hand. Written by "
        "`python -m generate.examples` in [conformance/](../../conformance/README.md); every decoder of this project "
        "decodes them in its tests.", "",
        "| file | shows |", "| --- | --- |",
        "| [joined.md](joined.md) | joined mode in a byte stream: frames, a batch of two lanes, control chunks, escapes |",
        "| [layered.md](layered.md) | layered mode: hyper-priors, targets out of order, damage and concealment |",
        "| [messages.md](messages.md) | the message binding |",
        "| [frame.md](frame.md) | one frame through network, tables, coder and seal, with every intermediate |",
        "| manifest.json | what a decoder must find, in the form of the conformance manifest |", ""]))
    return 0


assert set(TITLES) <= set(NAMES.values())

if __name__ == "__main__":
    sys.exit(main())
