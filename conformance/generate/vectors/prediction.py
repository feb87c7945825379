"""Streams of models that predict (4.9, 6.13), streams that break a rule of theirs, and their files."""
import random

from ..encoder import Stream
from ..gy import Context
from ..models import Model
from .common import (
    A, B, CODED, MODELS, PLAIN, PREDICT, PREDICT_FOUR, PREDICT_SIDE, REPEAT, bad, bad_file, flip, replace, some, source,
    vector, wide,
)
from .model_files import set_values

HOST = bytes(range(1, 33))


def begin(seed, model=PREDICT, **options):
    return Stream(model(), **options), source(seed)


@vector("predict-steps", "one frame a chunk, from no past to a whole one, with checks and checkpoints",
        "PRED-1 MODEL-14 DEC-8", "predict")
def _():
    s, src = begin(500, check=1)
    some(s, src, 7)
    s.checkpoint()
    some(s, src, 3)
    s.end()
    context = Context(s.model.net)
    own = [context.next(f.w, f.quality, s.model.s)[0] for f in s.timeline]
    assert all(f.means != means for f, means in zip(s.timeline, own))
    moves = [abs(a - b) for f, means in zip(s.timeline, own) for a, b in zip(f.means, means)]
    assert 16 < sorted(moves)[len(moves) // 2] < 640  # a quarter of a step to ten steps
    return s


@vector("predict-batch", "batches of one lane: the past goes on within a chunk and from one to the next", "PRED-1 DEC-2",
        "predict")
def _():
    s, src = begin(501, check=2)
    s.batch(src.frames(s.model, 5))
    s.batch(src.frames(s.model, 2))
    some(s, src, 1)
    s.batch(src.frames(s.model, 9))
    s.end()
    return s


@vector("predict-lanes", "batches of several lanes: every lane but the first begins without a past",
        "PRED-1 BATCH-3 DEC-2", "predict")
def _():
    s, src = begin(502, check=1)
    some(s, src, 2)
    s.batch(src.frames(s.model, 11), lanes=4)
    s.batch(src.frames(s.model, 3), lanes=3)
    some(s, src, 2)
    s.batch(src.frames(s.model, 8), lanes=2)
    s.end()
    return s


@vector("predict-four", "four frames back, without a low-rank part and without blocks", "PRED-1 MODEL-14", "predict-four")
def _():
    s, src = begin(503, PREDICT_FOUR)
    some(s, src, 6)
    s.batch(src.frames(s.model, 12), lanes=2)
    s.rewind(s.index - 9)
    some(s, src, 3)
    s.end()
    return s


@vector("predict-rewind", "rewinds within a chunk, to a context's first frame, and from one rewound place to another",
        "PRED-2 DEC-5", "predict")
def _():
    s, src = begin(504, check=1)
    some(s, src, 6)
    s.rewind(4)
    some(s, src, 3)
    s.checkpoint()
    s.batch(src.frames(s.model, 6), lanes=2)
    s.rewind(10)
    some(s, src, 1)
    s.rewind(3)
    some(s, src, 2)
    s.rewind(0)
    some(s, src, 2)
    s.end()
    return s


@vector("predict-quality", "quality switches: the past keeps the quality at which it was coded", "PRED-2 DEC-6",
        "predict")
def _():
    s, src = begin(505, check=1)
    some(s, src, 3)
    s.set_quality(1)
    some(s, src, 1)
    s.set_quality(0)
    s.batch(src.frames(s.model, 4))
    s.set_quality(1)
    s.rewind(6)
    s.batch(src.frames(s.model, 5), lanes=2)
    s.checkpoint()
    s.end()
    return s


@vector("predict-reset", "a context reset leaves no past", "PRED-2", "predict")
def _():
    s, src = begin(506)
    some(s, src, 4)
    s.reset(1)
    some(s, src, 3)
    s.rewind(s.start)
    some(s, src, 2)
    s.reset()
    s.batch(src.frames(s.model, 4))
    s.end()
    return s


@vector("predict-switch", "switches between models that predict and one that does not", "PRED-2 DEC-7",
        "predict predict-four b")
def _():
    s, src = begin(507, check=1)
    some(s, src, 4)
    s.switch(PREDICT_FOUR())
    some(s, src, 6)
    s.switch(B())
    some(s, src, 2)
    s.switch(PREDICT(), 1)
    some(s, src, 3)
    s.end()
    return s


@vector("predict-exact", "exact frames: their Y is past, not their hidden state", "PRED-2 CTRL-8", "predict")
def _():
    s, src = begin(508, check=2)
    hidden = bytes(range(2 * s.model.e))
    some(s, src, 2)
    s.exact(*src.frame(s.model), 1, hidden)
    some(s, src, 2)
    s.exact(*src.frame(s.model), 2, hidden)
    s.batch(src.frames(s.model, 3))
    s.end()
    return s


@vector("predict-modes", "plain and repeated runs of Y among coded ones", "PRED-1 MODE-1 MODE-2 MODE-3", "predict")
def _():
    s, src = begin(509, check=1)
    m = s.model
    y = [3, -2, 0, 7, -9, 1, 4, -4, 2][: m.e]
    s.batch([(src.w(m), y), (src.w(m), y, (CODED, REPEAT)), (src.w(m), y, (CODED, REPEAT)), src.frame(m),
             (src.w(m), src.y(m), (CODED, PLAIN)), src.frame(m), (src.w(m), src.y(m), (CODED, wide(16))), src.frame(m)])
    s.frame(*src.frame(m), (PLAIN, PLAIN))
    s.frame(*src.frame(m))
    s.end()
    return s


@vector("predict-side", "prediction and side indices, of the stream and of the caller", "PRED-1 SIDE-3", "predict-side")
def _():
    s, src = begin(510, PREDICT_SIDE, check=2)
    s.side_random = random.Random(510)
    s.side_indices([0, 3, 5, 1])
    some(s, src, 3)
    s.batch(src.frames(s.model, 6), lanes=2)
    s.rewind(4)
    s.side_indices([2, 2])
    s.batch(src.frames(s.model, 5))
    s.reset()
    some(s, src, 2)
    s.end()
    return s


@vector("predict-messages", "a file of messages, joined", "PRED-1 PRED-3", "predict")
def _():
    s, src = begin(511, binding="messages", check=1, identity=b"predicts")
    some(s, src, 3)
    s.batch(src.frames(s.model, 4), lanes=2)
    some(s, src, 1)
    s.end()
    return s


@vector("predict-join", "joining at a reset: the context there has no past", "PRED-2 JOIN-3", "predict")
def _():
    s, src = begin(512, check=1)
    some(s, src, 4)
    s.join()
    s.reset(1)
    some(s, src, 3)
    s.batch(src.frames(s.model, 4))
    s.end()
    return s


@vector("predict-join-switch", "joining at a switch to a model that predicts", "PRED-2 JOIN-2", "b predict")
def _():
    s, src = begin(513, B, check=1)
    some(s, src, 2)
    s.join()
    s.switch(PREDICT())
    some(s, src, 3)
    s.end()
    return s


@vector("predict-extreme", "Y at the ends of its range, and weights at their bounds: every clamp", "PRED-1 MODEL-14",
        "", model_file=lambda: tight().tensors.file())
def _():
    s = Stream(tight(), check=1)
    low, high, rnd = s.model.y_min, s.model.y_max, random.Random(514)
    for row in ([high] * 4, [low] * 4, [high, low, low, high], [0] * 4):
        s.frame([1, -1], row, (CODED, PLAIN))
        s.batch([([0, 2], lambda means: [max(low, min(high, x // 64)) for x in means]) for _ in range(3)])
    for _ in range(6):
        s.frame([0, 0], [rnd.choice([low, high]) for _ in range(4)], (CODED, PLAIN))
    s.end()
    return s


def tight():
    """Sums exactly at [MODEL-14]'s bound, the largest inputs and multipliers, and a smallest shift."""
    m = Model("tight", 515, e=4, c=2, q=1, widths=(), y=(-32767, 32767), predicts=(2, 1))
    p = m.prediction
    p["input.multiplier"], p["input.shift"] = [[32767, 32767, 1, 0]], [[15, 1, 46, 7]]
    p["diagonal"] = [[32767, -32767, 30000, 5], [32767, -32767, -30000, 6]]
    p["expand"] = [[1], [-1], [127], [-127]]
    p["reduce"] |= {"multiplier": [32767], "shift": [1]}
    p["output.multiplier"], p["output.shift"] = [[1, 32767, 32767, 9000]], [[1, 1, 32, 20]]
    assert sum(abs(row[0]) for row in [*p["diagonal"], p["expand"][0]]) == 65535
    m.tensors = m.to_tensors()
    m.fingerprint = m.tensors.fingerprint()
    return m


# -- what is refused -----------------------------------------------------------------------------


def refused(name, text, rules="PRED-3", expected=None, quality=b"\0", **options):
    more = {"host": expected} if expected else {}

    @vector(name, text, rules, "predict", code=507, **more)
    def _():
        s = Stream(PREDICT(), layered=True, head=replace("quality", quality), fault="flags", **options)
        s.end()
        return s


refused("bad-predict-layered", "layered mode with a model that predicts")
refused("bad-predict-layered-messages", "layered messages with a model that predicts", binding="messages")
refused("order-predict-quality", "layered mode with a model that predicts, and a quality that there is not",
        "PRED-3 DEC-6 ERR-6", quality=b"\7")
refused("order-predict-host", "layered mode with a model that predicts, and no host digest where one is expected",
        "PRED-3 HOST-1 ERR-6", expected=HOST)


@vector("order-predict-side", "layered mode with a model that predicts and takes side indices, without the side flag",
        "SIDE-1 PRED-3 ERR-6", "predict-side", code=506)
def _():
    s = Stream(PREDICT_SIDE(), layered=True, head=replace("flags", b"\1"), fault="flags")
    s.end()
    return s


@bad("bad-predict-switch", 507, "PRED-3", "a switch to a model that predicts, in layered mode", models="a predict",
     container=False, layered=True)
def _(s, src):
    s.switch(PREDICT(), fault="fingerprint")
    s.end()


@bad("order-predict-switch", 507, "PRED-3 DEC-6 DEC-8 ERR-6",
     "a switch to a model that predicts, in layered mode, of a quality that there is not and with another W digest",
     models="a predict", container=False, layered=True)
def _(s, src):
    s.switch(PREDICT(), 99, edit=flip("w_digest"), fault="fingerprint")
    s.end()


@vector("bad-predict-join", "joining a layered stream at a reset of a model that predicts", "PRED-3 JOIN-2", "a predict",
        code=507)
def _():
    s, src = Stream(PREDICT(), layered=True), source(516)
    some(s, src, 1)
    s.join()
    s.reset(fault="prefix")
    s.end()
    return s


@vector("bad-predict-join-switch", "joining a layered stream at a switch to a model that predicts", "PRED-3 JOIN-2",
        "a predict", code=507)
def _():
    s, src = Stream(A(), layered=True), source(517)
    some(s, src, 1)
    s.join()
    s.switch(PREDICT(), fault="fingerprint")
    s.end()
    return s


@bad("bad-predict-digest", 410, "DEC-8 PRED-1", "a Y digest of another Y, in front of which a batch was predicted",
     models="predict", container=False)
def _(s, src):
    s.batch(src.frames(s.model, 3))
    s.checkpoint(edit=flip("y_digest"), fault="y_digest")


@bad("bad-predict-value", 603, "ENT-2 PRED-1", "a Y outside its range, in the third frame of a batch",
     models="predict", container=False)
def _(s, src):
    def beyond(means):
        return [s.model.y_max + 1, *src.y(s.model)(means)[1:]]

    s.batch([src.frame(s.model), src.frame(s.model), (src.w(s.model), beyond)], fault="payload0")


@bad("order-predict-lane", 602, "SEAL-2 PRED-1 ERR-6", "two lanes that are not sealed: the first one counts",
     models="predict", container=False)
def _(s, src):
    s.batch(src.frames(s.model, 6), lanes=3, payload=lambda p: [p[0], p[1] + b"\0", p[2] + b"\0"], fault="payload1")


# -- model files ---------------------------------------------------------------------------------

P = "decoder.prediction."


def small():
    return MODELS["predict-small"]


def bad_model(name, code, text, change, others=()):
    bad_file(small, 518, name, code, "MODEL-14", text, change, others)


def value(name, at, to):
    return lambda t: set_values(t, P + name, lambda v: v.__setitem__(at, to))


def gone(*names):
    def change(t):
        for name in names:
            del t[P + name]

    return change


def reshaped(name, dtype, shape):
    size = {"I8": 1, "U8": 1, "I16": 2, "I32": 4}[dtype]

    def change(t):
        n = size
        for x in shape:
            n *= x
        t[P + name] = (dtype, shape, (b"\1" + bytes(n))[:n])

    return change


REDUCE = ["reduce.weight", "reduce.bias", "reduce.multiplier", "reduce.shift"]
bad_model("model-predict-missing", 702, "no shift for the common unit", gone("input.shift"))
bad_model("model-predict-diagonal", 702, "a low-rank part without diagonals", gone("diagonal"))
bad_model("model-predict-expand", 702, "a layer that reduces, and none that expands", gone("expand"))
bad_model("model-predict-reduce", 702, "a matrix that expands, and no layer that reduces", gone(*REDUCE))
bad_model("model-predict-bias", 702, "a layer that reduces without its bias", gone("reduce.bias"))
bad_model("model-predict-unknown", 704, "an unknown tensor under the prefix",
          lambda t: t.put(P + "offset", "I32", [1, 2]))
bad_model("model-predict-alone", 702, "an unknown tensor under the prefix, and none of those that are known", lambda t: (
    gone("input.multiplier", "input.shift", "diagonal", "output.multiplier", "output.shift", "expand", *REDUCE)(t),
    t.put(P + "offset", "I32", [1, 2])), (704,))
bad_model("model-predict-frames-0", 703, "diagonals of no frame", reshaped("diagonal", "I16", [0, 2]), (706,))
bad_model("model-predict-frames-5", 703, "diagonals of five frames", reshaped("diagonal", "I16", [5, 2]))
bad_model("model-predict-width", 703, "diagonals of three channels, where there are two", reshaped("diagonal", "I16", [1, 3]))
bad_model("model-predict-dtype", 703, "diagonals of dtype I32", reshaped("diagonal", "I32", [1, 2]))
bad_model("model-predict-rank-0", 703, "a rank of 0", reshaped("expand", "I8", [2, 0]))
bad_model("model-predict-rank", 703, "a matrix that expands another number of values than are reduced to",
          reshaped("expand", "I8", [2, 3]))
bad_model("model-predict-input", 708, "a multiplier of 32,768", value("input.multiplier", 1, 32768))
bad_model("model-predict-output", 708, "a shift of 47", value("output.shift", 1, 47))
bad_model("model-predict-shift-0", 708, "a shift of 0", value("input.shift", 0, 0))
bad_model("model-predict-weight", 708, "a weight of -128", value("expand", 1, -128))
bad_model("model-predict-value", 708, "a diagonal of -32,768", value("diagonal", 0, -32768))
bad_model("model-predict-row", 706, "a row of the layer that reduces above its bound", value("reduce.bias", 0, 2**31 - 1))


@lambda make: bad_model("model-predict-bound", 706, "a channel whose weights sum to 65,536", make)
def _(t):
    """Two frames back, and a rank of two."""
    m = tight()
    t.clear()
    t.update(m.tensors)
    set_values(t, P + "expand", lambda v: v.__setitem__(0, 2))
