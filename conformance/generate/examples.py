"""python -m generate.examples OUTDIR: the annotated streams of spec/examples.

Each stream is listed field by field as it is written. Of the first one a frame is worked through network, tables and
coder, and another one through attention; of one with a map the hidden states are.
"""
import os
import random
import sys

from . import gy
from .coder import BITS, CODED, M0, PLAIN, REPEAT
from .diagram import session
from .encoder import NAMES, Stream
from .manifest import text_of
from .models import Model, f32
from .vectors.common import Source, flip, replace
from .wire import le, varint

TITLES = {
    "frame": "one-frame chunk", "batch": "batch C1", "target": "target C2",
    "target_batch": "target batch C3", "checkpoint": "checkpoint C4", "reset": "context reset C5",
    "rewind": "rewind C6", "quality": "quality switch C7", "model": "model switch C8",
    "exact": "exact frame C9", "end": "end CA", "seek_index": "seek index CB",
    "extension": "ignorable extension E0", "side_indices": "side indices CC",
}
# Field -> how its bytes read.
FIELDS = {
    "magic": ("magic", None), "format": ("format version", "u8"), "least": ("minimum reader version", "u8"),
    "length": ("body length", "varint"), "flags": ("flags", "bits"), "tracks": ("track count", "u8"),
    "fingerprint": ("model fingerprint", None), "version": ("model version", "varint"),
    "quality": ("quality index", "u8"), "host": ("host digest", None),
    "max_frames": ("max frames per chunk", "varint"), "max_bytes": ("max chunk bytes", "varint"),
    "max_rewind": ("max rewind", "varint"), "horizon": ("target horizon", "varint"),
    "length_offset": ("length offset", "varint"),
    "crc": ("crc", "u32"), "kind": ("kind", None), "check": ("check", None),
    "frames": ("frames − 1", "varint"), "lanes": ("lanes − 1", "varint"), "table": ("lane table", "bits"),
    "index": ("index", "varint"), "epoch": ("epoch", "varint"), "coded": ("frames coded", "varint"),
    "w_digest": ("W digest", "u32"), "y_digest": ("Y digest", "u32"),
    "prefix": ("fingerprint prefix", None), "index_low": ("index low", "u16"),
    "epoch_low": ("epoch low", "u8"), "count": ("count", "varint"), "first": ("first", "varint"), "dtype": ("dtype", "u8"),
    "frame_length": ("frame length", "varint"), "hidden": ("hidden state", None), "id": ("extension id", "varint"),
    "data": ("data", None), "tail": ("end of the first message", None), "zero": ("end of the message", None),
    "count": ("count", "varint"), "footer_offset": ("offset of the seek index", "u64"),
    "indices": ("count − 1", "varint"), "footer_magic": ("magic of the footer", "text"), "extra": ("a byte too many", None),
}
# The same for fields that come several times, a number after their name.
NUMBERED = {
    "id": ("optional field id", "varint"), "size": ("its length", "varint"), "value": ("its value", "text"),
    "frame": ("frame delta", "varint"), "offset": ("offset delta", "varint"),
}


def field_of(name):
    return FIELDS.get(name) or NUMBERED[name.rstrip("0123456789")]


def read_varint(piece):
    first, more = piece[0], len(piece) - 1
    return int.from_bytes(bytes([first & (0x7F >> more)]) + piece[1:], "big")


def reading(form, piece):
    if form == "varint":
        return f"{read_varint(piece):,}"
    if form in ("u8", "u16", "u64"):
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
            name = "stream header" if number == 0 else TITLES.get(next(kinds, None), "footer")
            out += [f"## {name}, at {offset}", "", "| offset | bytes | field | value |", "| --- | --- | --- | --- |"]
            at = offset
            for field, piece in parts:
                if field is None or not piece:
                    continue
                if name == TITLES["side_indices"] and field == "count":
                    field = "indices"
                if field.startswith("payload"):
                    lanes = sum(bool(name) and name.startswith("payload") for name, _ in parts)
                    label = f"payload {field[7:]}" if lanes > 1 else "payload"
                    value = f"{len(piece)} byte" + "s" * (len(piece) != 1)
                elif field == "length" and number and parts[0][0] == "length":
                    body = sum(len(other) for name, other in parts[1:] if name is not None)
                    label, value = "leading byte", f"one frame, body of {body} bytes"
                else:
                    label, form = field_of(field)
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
    s, src = Listed(m, identity=b"example1", optional=((2, b"midspan"),), max_frames=16), calm(1)
    s.say("The optional field with id 1 is the stream's identity: its eight bytes stand before everything that a check, a "
          "crc of a control chunk or a digest covers. (A real one is random; this one can be read.) The field with id 2 "
          "names the producer.")

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
    s.say("The hidden state is (1, −2, −0.4, 0) in f16; it is handed out in place of what step and offset give. "
          "The crc covers index 7 and epoch 1 too, which the chunk does not state.")
    s.reset()
    s.say("The context is empty from here on, the epoch is 2.")
    one()
    w, y = src.frame(m, spread=1, escapes=0)
    s.frame([w[0], m.w_max], lambda means: y(means)[:3] + [m.y_min])
    s.integers(s.index - 1)
    s.say("The second W and the last Y are the ends of their declared ranges and lie outside their tables: each is an escape symbol and a bounded universal "
          "code (3.4).")
    w, y = src.w(m), [m.y_max, m.y_min, 150, -170]
    s.batch([(w, y, (CODED, PLAIN)), (w, y, (REPEAT, REPEAT)), (w, y, (REPEAT, REPEAT))])
    s.integers(s.index - 3, 3)
    s.say("Y of the first frame lies far outside its tables and is plain: 9 bits a value, behind the width (3.5). W and Y of the other two "
          "repeat.")
    s.extension(27, b"ok")
    s.say("An id of the form 27 + 31·n: to be ignored, once the crc was checked.")
    s.end()
    s.say(f"{s.index} frames stand in the timeline, {s.coded} were coded: 2 were rewound.")
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
    s.say("W of the frames 0 to 4 is confirmed at once. Y cannot be judged before frame 1 has its target or is concealed "
          "([DEC-10]).")
    s.frame(*src.frame(m, spread=1, escapes=0))
    s.integers(5, y=False)
    s.target(5)
    s.integers(5, w=False)
    s.end()
    s.conceal(1)
    s.say(f"The decoder's caller has waited to the end and now conceals frame 1: Y becomes the rounded means "
          f"{row(s.timeline[1].y)}. The Y digest of the checkpoint covers frames 0 to 4 and is unverifiable ([DEC-8]); the "
          "one of the end covers frame 5 alone, and holds.")
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
        "A message stream", "[messages.bin](messages.bin): in this file each message stands after its length as u32le; "
        "offsets count in the messages alone. Model: [model.safetensors](model.safetensors).")


def file(m):
    s, src = Listed(m, file=True, check=1, max_frames=8), calm(4)
    s.say("Flag bit 5: a seek index follows the end chunk.")

    def some(count):
        for _ in range(count):
            s.frame(*src.frame(m, spread=1, escapes=0))
            s.integers(s.index - 1)

    some(2)
    s.reset()
    s.say(f"A reader that knows the header may join here: the next frame is 2, the epoch 1. The digests are those of "
          f"frames 0 and 1, which the reset closes; a reader that joins ignores them.")
    some(1)
    s.reset()
    s.reset()
    s.say("A second reset at the same index closes a context without frames: both digests are seed, 0 in a stream "
          "without an identity.")
    some(1)
    s.end()
    at = s.size()
    s.seek_index()
    # The footer is the last part; the sentences belong to the chunk before it.
    offset, parts = s.listing[-2]
    entries = ", ".join(f"({frame}, {place})" for frame, place in s.seek)
    s.listing[-2] = (offset, parts + [(None, f"Entries as (frame, offset): {entries}. Each is the sum of the deltas up to "
                                             "it; the third has a frame delta of 0.")])
    s.say(f"A reader that has the whole file begins here: the last four bytes say that there is a seek index, the eight "
          f"before them that it stands at {at}. For frame 3 it takes the last entry whose frame is not above 3, goes to "
          f"{s.seek[-1][1]}, and checks that a reset stands there that states index 3 ([FILE-3]).")
    return s, "never", s.markdown(
        "A file", "[file.bin](file.bin): the file binding, with resets, a seek index and a footer. Model: "
        "[model.safetensors](model.safetensors).")


def switch(m, other):
    s, src = Listed(m, check=1, max_frames=8, max_rewind=4), calm(5)

    def one():
        s.frame(*src.frame(s.model, spread=1, escapes=0))
        s.integers(s.index - 1)

    one()
    one()
    s.switch(other)
    s.say(f"From frame 2 on the model is [other.safetensors](other.safetensors), with E = {other.e} and C = {other.c}: the "
          "fingerprint is the whole one. The digests close frames 0 and 1 of the first model. A decoder that does not "
          "have the second one stops here with error 501; what it handed out before stays valid.")
    one()
    s.say("The absolute index goes on, the context is new: g_y sees this frame alone.")
    one()
    s.rewind(3)
    s.say("A rewind goes back to frame 2 at the least: before that the context was another ([CTRL-4]).")
    one()
    s.reset()
    s.say("The prefix is that of the model in force, the second one.")
    s.switch(m, 1, length_offset=3)
    s.say("Back to the first model, in its quality 1. The reset and this switch stand at one index: nothing is between "
          "them, and both digests are seed.")
    one()
    s.say("The length offset is 3 since the switch, so the leading byte states how much longer than 3 bytes the body is "
          "([CHUNK-8]).")
    s.end()
    return s, "never", s.markdown(
        "A model switch", "[switch.bin](switch.bin): to another model and back. Models: "
        "[model.safetensors](model.safetensors) and [other.safetensors](other.safetensors).")


def synthesis(m):
    s, src = Listed(m, check=1, max_frames=8), calm(6)
    for _ in range(2):
        s.frame(*src.frame(m, spread=1, escapes=0))
        s.integers(s.index - 1)
    s.end()
    frame = s.timeline[0]
    q = frame.quality
    text = s.markdown(
        "A synthesis map", "[synthesis.bin](synthesis.bin): a model whose hidden states come through a linear map "
        "(synthesis 1, spec 6.7). Model: [mapped.safetensors](mapped.safetensors).")
    x = [y * step for y, step in zip(frame.y, m.step[q])]
    out = [text, "## Hidden states of frame 0 (6.7)", "", "| channel j | Y | step | x = Y · step |",
           "| --- | --- | --- | --- |"]
    for j, value in enumerate(x):
        out.append(f"| {j} | {frame.y[j]} | {m.step[q][j]!r} | {value!r} |".replace("-", "−").replace("| −−− |", "| --- |"))
    out += ["", "| channel c | row S[c, ·] | products S[c, j] · x[j] | offset | hidden | may differ by |",
            "| --- | --- | --- | --- | --- | --- |"]
    for c, weights in enumerate(m.synthesis):
        products = [a * b + 0.0 for a, b in zip(weights, x)]  # no -0
        bound = (m.e + 2) * (2**-23 * (sum(map(abs, products)) + abs(m.offset[q][c])) + 2**-149)
        cells = [c, row(int(a) for a in weights), "(" + ", ".join(f"{p:g}" for p in products) + ")",
                 f"{m.offset[q][c]!r}", f"{frame.hidden[c]!r}", f"{bound:.3g}"]
        out.append(("| " + " | ".join(str(cell) for cell in cells) + " |").replace("-", "−"))
    out += ["", "The last column is [DEC-19]'s bound. The numbers of this model are so small that every order of the sum gives "
            "the same hidden states, to the bit; those of a real one do not, and only W and Y are the same everywhere.", ""]
    return s, "never", "\n".join(out)


def table(titles, rows):
    """The lines of a table, with the minus signs of text."""
    lines = ["| " + " | ".join(titles) + " |", "| " + " | ".join(["---"] * len(titles)) + " |"]
    return lines + [("| " + " | ".join(str(cell) for cell in cells) + " |").replace("-", "−") for cells in rows]


def side(m):
    s, src = Listed(m, check=2, max_frames=8), calm(8)
    s.say("Flag bit 7: the model takes side indices, V = 5 of them ([SIDE-1]).")

    def frames(count, lanes=1):
        if count > 1:
            s.batch(src.frames(m, count, spread=1, escapes=0), lanes=lanes)
        else:
            s.frame(*src.frame(m, spread=1, escapes=0))
        s.integers(s.index - count, count)

    s.side_indices([4, 0, 2])
    s.say("The next three frames have the side indices 4, 0 and 2. One coder codes two runs of three values: the upper parts "
          "with table 0, all 0 here, then the lower parts with table 1 ([SIDE-2]).")
    frames(1)
    s.say("Side index 4. The check covers it, though its bytes are not in this chunk (2.5).")
    frames(3, lanes=2)
    s.say("Frames 1 and 2 take the two indices that are left, 0 and 2. None is left for frame 3: the decoder tells its caller that "
          "frame 3 lacks an index, and holds the chunk until the caller says 1 ([SIDE-3]). Lanes make no difference to indices.")
    s.known = [5]
    frames(1)
    s.say("The caller says 5 = V: frame 4 has no side index, and adds nothing at any age.")
    s.checkpoint()
    s.say("The W digest covers the side indices of all five frames, whether they came from the stream or from the caller.")
    s.end()
    text = s.markdown(
        "Side indices", "[side.bin](side.bin): side indices from the stream and from the caller (6.12). Model: "
        f"[side.safetensors](side.safetensors), with A = {len(m.embedding)} ages and D = {len(m.embedding[0][0])} sums.")
    rows = []
    for t, frame in enumerate(s.timeline):
        ages = [s.timeline[t - a].side if t >= a else None for a in range(len(m.embedding))]
        given = [row(m.embedding[a][index]) if index is not None and index < m.vocabulary else "nothing"
                 for a, index in enumerate(ages)]
        of = gy.Context(m.net, m.embedding)
        of.side = [f.side for f in s.timeline[: t + 1]]
        rows.append([t, frame.side, *given, row([*frame.w, *of.side_sums()])])
    out = [text, "## What g_y takes in (5.5, step 1)", ""]
    out += table(["frame", "side index", "row of age 0", "row of age 1", "in = W and the sums"], rows)
    out += ["", "The row of age 1 is that of the frame before. Frame 0 has none before it in its context.", ""]
    return s, "never", "\n".join(out)


def predicted(m):
    s, src = Listed(m, check=1, max_frames=8), calm(9)
    own = []

    def means(count):
        own.extend(context.next(f.w, f.quality, m.s)[0] for f in s.timeline[s.index - count:])

    def one():
        s.frame(*src.frame(m, spread=1, escapes=0))
        s.integers(s.index - 1)
        means(1)

    context = gy.Context(m.net)
    one()
    one()
    s.batch(src.frames(m, 4, spread=1, escapes=0), lanes=2)
    s.integers(2, 4)
    means(4)
    s.say("Lane 1 begins with frame 4, which has no past although frames 0 to 3 lie in the context: so lanes stay independent of "
          "each other.")
    s.set_quality(1)
    one()
    s.say("Frames 4 and 5 are the past of frame 6. They were coded at quality 0, and its row brings them to the common unit.")
    s.end()
    text = s.markdown(
        "Prediction", "[predicted.bin](predicted.bin): means that are predicted from decoded Y (6.13). Model: "
        "[predicted.safetensors](predicted.safetensors), with P = 2 and R = 1.")
    p = m.prediction
    out = [text, "## The model's prediction (4.9)", ""]
    out += table(["tensor", *(f"channel {c}" for c in range(m.e))],
                 [[f"input.multiplier, shift of quality {q}",
                   *(f"{a:,}, {b}" for a, b in zip(p["input.multiplier"][q], p["input.shift"][q]))] for q in range(m.q)]
                 + [[f"diagonal, distance {d + 1}", *(f"{x:,}" for x in values)] for d, values in enumerate(p["diagonal"])]
                 + [["expand", *(f"{values[0]:,}" for values in p["expand"])]]
                 + [[f"output.multiplier, shift of quality {q}",
                     *(f"{a:,}, {b}" for a, b in zip(p["output.multiplier"][q], p["output.shift"][q]))] for q in range(m.q)])
    few = p["reduce"]
    out += ["", f"reduce: weight {row(few['weight'][0])} on x_1, then x_2; bias {few['bias'][0]:,}, multiplier "
            f"{few['multiplier'][0]:,}, shift {few['shift'][0]}.".replace("-", "−"), "", "## Means of every frame", ""]
    rows = []
    for t, frame in enumerate(s.timeline):
        since = 4 if t in (4, 5) else 0
        past = [(s.timeline[t - d] if t - d >= since else None) for d in (1, 2)]
        x = [[gy.clamp16(gy.round_shift(y * a, b)) for y, a, b in
              zip(f.y, p["input.multiplier"][f.quality], p["input.shift"][f.quality])] if f else [0] * m.e for f in past]
        v = gy.clamp16(gy.linear(few, [value for values in x for value in values])[0])
        acc = [sum(weights[c] * values[c] for weights, values in zip(p["diagonal"], x)) + p["expand"][c][0] * v
               for c in range(m.e)]
        moved = [gy.round_shift(a * k, b) for a, k, b in
                 zip(acc, p["output.multiplier"][frame.quality], p["output.shift"][frame.quality])]
        assert frame.means == [gy.clamp(a + b, -2**20, 2**20) for a, b in zip(own[t], moved)]
        rows.append([t, row(x[0]) if past[0] else "none", row(x[1]) if past[1] else "none", f"{v:,}", row(acc), row(moved),
                     row(own[t]), row(frame.means), row(frame.y)])
    out += table(["frame", "x_1", "x_2", "v", "acc", "p", "m, g_y's means", "means, 1/64 step", "Y"], rows)
    out += ["", "Y is near the means divided by 64. A frame without a past has x = 0 and takes v from the bias alone.", ""]
    return s, "never", "\n".join(out)


def sparse(m):
    s, src = Listed(m, check=1, max_frames=8), calm(10)
    s.frame(*src.frame(m, spread=1, escapes=0))
    s.integers(0)
    s.end()
    frame = s.timeline[0]
    text = s.markdown(
        "A sparse causal map", "[sparse.bin](sparse.bin): a model each of whose channels is predicted from some before it "
        "(synthesis 2, spec 4.10 and 6.7). Model: [sparse.safetensors](sparse.safetensors).")
    out = [text, "## Hidden states of frame 0 (6.7)", "",
           "All numbers are binary32 values, written so that they read back as the same; each product and each sum is rounded.", ""]
    r, rows = [], []
    for c, entries in enumerate(m.sparse):
        x = f32(frame.y[c] * m.step[0][c])
        products = [f32(weight * r[index]) for index, weight in entries]
        assert len(entries) <= 3
        # Entry k goes to the partial sum k: of u_0 … u_15 no more than three are not 0, and u_2 meets u_0 first.
        u = [*products, 0.0, 0.0, 0.0][:3]
        total = f32(f32(u[0] + u[2]) + u[1])
        r.append(f32(total + x))
        assert f32(r[c] + m.offset[0][c]) == frame.hidden[c]
        said = ", ".join(f"{weight!r} · r[{index}] = {product!r}" for (index, weight), product in zip(entries, products))
        rows.append([c, said or "none", repr(total + 0.0), frame.y[c], repr(m.step[0][c]), repr(x), repr(r[c]),
                     repr(m.offset[0][c]), repr(frame.hidden[c])])
    out += table(["channel c", "entries", "row sum P[c]", "Y", "step", "Y · step", "r[c]", "offset", "hidden"], rows)
    out += ["", "The row sum of three entries is (u_0 + u_2) + u_1: the step h = 2 adds u_2 to u_0 before h = 1 adds u_1. "
            "Hidden states are the same to the bit on every device ([SPARSE-2]).", ""]
    return s, "never", "\n".join(out)


def attention(m, frames):
    """Attention of block 0 over the frames 0 … 3 of the joined stream."""
    net = m.net
    block = net["blocks"][0]
    heads = block["heads"]
    width = m.widths[0] // heads
    out = ["# Attention over several frames", "",
           f"Block 0 of g_y for the first four frames of [joined.bin](joined.bin) (5.3). The model has d = {m.widths[0]}, "
           f"H = {heads}, so heads of c = {width} element; the window is {net['window']} frames.", "",
           "## Queries, keys and values", "", "| frame | W | n = norm(x, norm1) | q | k | v |",
           "| --- | --- | --- | --- | --- | --- |"]
    seen = []
    for t, frame in enumerate(frames):
        x = [gy.clamp16(gy.round_shift(w * a, b))
             for w, a, b in zip(frame.w, net["input.multiplier"][frame.quality], net["input.shift"][frame.quality])]
        n = gy.norm(x, block["norm1"])
        q, k, v = ([gy.clamp(y, -2047, 2047) for y in gy.linear(block[layer], n)] for layer in "qkv")
        seen.append((q, k, v))
        out.append(f"| {t} | {row(frame.w)} | {row(n)} | {row(q)} | {row(k)} | {row(v)} |")
    out += ["", "k and v of a frame stay as they are: they are what the state keeps (5.6).", "", "## Scores and weights", ""]
    for g in range(heads):
        out.append(f"Head {g}: score multiplier {block['score.multiplier'][g]:,}, shift {block['score.shift'][g]}, position "
                   f"{row(block['position'][g])} for the distances 0, 1, 2.")
        out.append("")
    out += ["| frame t | head | frames u | dot | z | z_max − z | e | sum | r = floor(2^36 / sum) | o | a |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    context = gy.Context(net)
    kept = []
    for t, frame in enumerate(frames):
        x = [gy.clamp16(gy.round_shift(w * a, b))
             for w, a, b in zip(frame.w, net["input.multiplier"][frame.quality], net["input.shift"][frame.quality])]
        given = context.attention(block, kept, gy.norm(x, block["norm1"]))
        result = []
        for g in range(heads):
            head = range(g * width, (g + 1) * width)
            us = range(max(0, t - net["window"] + 1), t + 1)
            dots = [sum(seen[t][0][j] * seen[u][1][j] for j in head) for u in us]
            z = [gy.clamp(gy.round_shift(dot * block["score.multiplier"][g], block["score.shift"][g]), -2**20, 2**20)
                 + block["position"][g][t - u] for dot, u in zip(dots, us)]
            under = [max(z) - value for value in z]
            e = [net["exp"][min(value, 1023)] for value in under]
            r = 2**36 // sum(e)
            o = [sum(weight * seen[u][2][j] for weight, u in zip(e, us)) for j in head]
            a = [gy.round_shift(value * r, 36) for value in o]
            result += a
            cells = [t, g, row(us), row(dots), row(z), row(under), row(e), f"{sum(e):,}", f"{r:,}", row(o), row(a)]
            out.append("| " + " | ".join(str(cell) for cell in cells) + " |")
        assert result == given
    out += ["", "Frame 3 no longer sees frame 0: it lies outside the window ([NET-3]). Frame 0 sees itself alone, so its e is "
            "exp[0] = 4,095 and a is v. A rewind to frame 2 would drop k and v of frames 2 and 3; the next frame would then see "
            "frames 0 and 1 again ([NET-6]).", ""]
    return "\n".join(out)


def invalid(m):
    """Streams that are refused: (name, what it shows, error number, stream, the part at fault, a sentence)."""
    found = []

    def one(name, title, code, fault, text, chunk, **options):
        s, src = Listed(m, check=1, max_frames=8, **options), calm(7)
        s.frame(*src.frame(m, spread=1, escapes=0))
        kinds = list(s.kinds)
        chunk(s, src)
        s.fault_offset = s.marks[fault]
        s.fault_kinds = kinds
        found.append((name, title, code, s, fault, text))

    one("length", "A length above the limit", 302, "length",
        "The header allows bodies of 72 bytes. The reader refuses the length when it is there; it does not wait for the body, "
        "and sets no memory aside ([CHUNK-2], [ERR-4]). So this input ends here.",
        lambda s, src: s.put([["kind", b"\xe0"], ["length", varint(73)]]), max_bytes=72)
    one("check", "A damaged payload", 402, "check",
        "One bit of the payload was flipped on the way, so the check differs ([CHECK-1]). The error stands at the check.",
        lambda s, src: s.frame(*src.frame(m, spread=1, escapes=0), after=flip("payload0", 2)))
    one("seal", "A payload that is not sealed", 602, "payload0",
        "A byte 01 after the payload stands for a number inside the interval still, so that the same symbols come out, and the "
        "check was made for these bytes. But the payload is not the shortest: [SEAL-2].",
        lambda s, src: s.frame(*src.frame(m, spread=1, escapes=0), payload=lambda p: p + b"\1"))
    one("index", "A checkpoint at another index", 404, "index",
        "The crc holds, so the index is what its writer meant: a frame was lost between the two ends ([CTRL-2], [DEC-15]).",
        lambda s, src: s.checkpoint(edit=replace("index", varint(2))))
    one("epoch", "A reset that leaves an epoch out", 406, "epoch",
        "The epoch is 0, so the reset must state 1 ([CTRL-3]): a rewind or reset before it did not arrive.",
        lambda s, src: s.reset(edit=replace("epoch", varint(2))))
    one("form", "A varint that is too long", 101, "index",
        "1 in two bytes: every value has one form ([VARINT-1]). The form of a field is judged before its value.",
        lambda s, src: s.checkpoint(edit=replace("index", varint(1, 2))))
    one("order", "Two faults in one chunk", 502, "prefix",
        "The quality is one that the model does not have (error 504), and the prefix is another model's (error 502). The prefix "
        "stands after the quality, but it is a rule of the container, and all of those come before the rules that need a model "
        "(7.4).",
        lambda s, src: s.reset(edit=lambda parts: [replace("quality", b"\x09")(parts), flip("prefix", 7)(parts)]))
    one("cut", "Input that ends too early", 401, "behind",
        "The crc's last two bytes are missing. The chunk's index is wrong too, but a body is judged when it is whole: the error "
        "is 401, at the length of the input ([CHUNK-6]).",
        lambda s, src: s.checkpoint(edit=replace("index", varint(9)), after=lambda parts: parts.__setitem__(-1, ["crc", b"\0\0"]),
                                    lead=[["kind", b"\xc4"], ["length", varint(13)]]))
    return found


def invalid_page(cases):
    out = ["# Streams that are refused", "",
           "Each stream has a header with check width 1 and *max frames per chunk* 8, then one frame that is right, then the chunk "
           "shown, with which it is refused. The bytes before that chunk are not shown. Model: "
           "[model.safetensors](model.safetensors).", ""]
    for name, title, code, s, fault, text in cases:
        offset, parts = s.listing[-1]
        out += [f"## {title}: error {code} at {s.fault_offset}", "", f"[invalid-{name}.bin](invalid-{name}.bin), from {offset}:", "",
                "| offset | bytes | field | value |", "| --- | --- | --- | --- |"]
        at = offset
        for field, piece in parts:
            if not piece:
                continue
            if field.startswith("payload"):
                label, value = "payload", f"{len(piece)} bytes"
            elif field == "length" and parts[0][0] == "length":
                label, value = "leading byte", f"one frame, body of {piece[0]} bytes"
            else:
                label, form = field_of(field)
                value = reading(form, piece) if field != "crc" or len(piece) == 4 else "cut"
            mark = "**" if field == fault else ""
            out.append(f"| {mark}{at}{mark} | `{hexadecimal(piece)}` | {mark}{label}{mark} | {value} |")
            at += len(piece)
        out += ["", text, ""]
    return "\n".join(out)


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

    assert frame.modes == (CODED, CODED)
    symbols.append(("mode of W", "coded", M0, CODED))
    for c, value in enumerate(frame.w):
        plan(f"W[{c}]", m.hyper_prior[q * m.c + c], 0, value)
    symbols.append(("mode of Y", "coded", M0, CODED))
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
    other = Model("other", 9, e=3, c=1, widths=(3,), window=2, scales=((0.8, 0), (2, 1)))
    mapped = Model("mapped", 10, e=3, c=1, widths=(3,), window=2, scales=((0.8, 0), (2, 1)), mapped=True)
    small = {"e": 3, "c": 1, "widths": (3,), "window": 2, "scales": ((0.8, 0), (2, 1))}
    sides = Model("side", 11, side=(2, 5, 2), side_tables=((0, 1), (0, 5)), **small)
    predicts = Model("predicted", 12, q=2, predicts=(2, 1), **small)
    sparsely = Model("sparse", 13, sparse=True, **{**small, "e": 4})
    for file_name, one in (("model", m), ("other", other), ("mapped", mapped), ("side", sides), ("predicted", predicts),
                           ("sparse", sparsely)):
        write(f"{file_name}.safetensors", one.tensors.file())
    entries = []
    for name, make, models in (("joined", joined, [m]), ("layered", layered, [m]), ("messages", messages, [m]),
                               ("file", file, [m]), ("switch", switch, [m, other]), ("synthesis", synthesis, [mapped]),
                               ("side", side, [sides]), ("predicted", predicted, [predicts]),
                               ("sparse", sparse, [sparsely])):
        stream, conceal, text = make(*models)
        write(f"{name}.bin", stream.wrapped())
        write(f"{name}.md", text)
        names = ["model.safetensors" if one is m else f"{one.name}.safetensors" for one in models]
        entries.append({
            "name": f"example-{name}", "description": text.splitlines()[0][2:], "rules": [],
            "models": names, "binding": stream.binding, "conceal": conceal,
            "stream": f"{name}.bin", "valid": True, "container_only": False, "expected": stream.expected(conceal),
            **({"side": stream.answers} if stream.answers else {}),
        })
        if name == "joined":
            first = dict(stream.listing[1][1])["payload0"]
            # The rewind and the reset leave the first frames alone.
            write("frame.md", worked(m, stream.timeline[0], first))
            write("attention.md", attention(m, stream.timeline[:4]))
    cases = invalid(m)
    for name, title, code, stream, _, _ in cases:
        write(f"invalid-{name}.bin", stream.wrapped())
        entries.append({
            "name": f"example-invalid-{name}", "description": title, "rules": [], "models": ["model.safetensors"],
            "binding": "stream", "conceal": "never", "stream": f"invalid-{name}.bin", "valid": False,
            "container_only": code < 500 or code == 502,
            "expected": {"code": code, "offset": stream.fault_offset, "events": stream.fault_kinds},
        })
    write("invalid.md", invalid_page(cases))
    write("session.svg", session())
    write("manifest.json", text_of(entries))
    write("README.md", "\n".join([
        "# Examples", "",
        "Streams annotated byte by byte, with models small enough to compute by hand. Written by "
        "`python -m generate.examples` in [conformance/](../../conformance/README.md); every decoder of this project "
        "decodes them in its tests.", "",
        "| file | shows |", "| --- | --- |",
        "| [joined.md](joined.md) | joined mode in a byte stream: frames, a batch of two lanes, control chunks, escapes, plain and repeated runs |",
        "| [layered.md](layered.md) | layered mode: hyper-priors, targets out of order, damage and concealment |",
        "| [messages.md](messages.md) | the message binding |",
        "| [file.md](file.md) | the file binding: resets, a seek index, a footer, and how a reader jumps |",
        "| [switch.md](switch.md) | a model switch, and back |",
        "| [synthesis.md](synthesis.md) | hidden states through a linear map |",
        "| [side.md](side.md) | side indices from the stream and from the caller |",
        "| [predicted.md](predicted.md) | means that are predicted from decoded Y |",
        "| [sparse.md](sparse.md) | hidden states through a sparse causal map, to the bit |",
        "| [invalid.md](invalid.md) | streams that are refused, with the error and its place |",
        "| [frame.md](frame.md) | one frame through network, tables, coder and seal, with every intermediate |",
        "| [attention.md](attention.md) | attention over several frames, with every intermediate |",
        "| session.svg | the states of a decoder session (6.11) |",
        "| manifest.json | what a decoder must find, in the form of the conformance manifest "
        "([conformance/README.md](../../conformance/README.md)); `frames` and the SHA-256 are those of the timeline "
        "that is left at the end, without frames that a rewind took away |", ""]))
    return 0


assert set(TITLES) <= set(NAMES.values())

if __name__ == "__main__":
    sys.exit(main())
