"""Streams of models with side indices that break a rule, callers that do, and broken files of such models."""
import functools

from ..encoder import Stream
from ..wire import crc, le, varint
from .common import A, CODED, MODELS, PLAIN, REPEAT, SIDE, SIDE_SMALL, bad, bad_file, flip, replace, some, source, vector
from .model_files import set_values
from .order import both

HOST = bytes(range(1, 33))
ONE = b"\0" + le(crc(b"\xcc\0"), 4)  # a CC chunk's body of one side index and an empty payload


# -- the container -------------------------------------------------------------------------------


@bad("bad-side-kind", 304, "CHUNK-4", "side indices in a stream without the side flag")
def _(s, src):
    s.put([["kind", b"\xcc"], ["length", varint(5)], ["body", ONE]], "kind")


@bad("bad-side-kind-message", 304, "CHUNK-4", "side indices as a message of a stream without the side flag",
     binding="messages", layered=True)
def _(s, src):
    s.put([["kind", b"\xcc"], ["body", ONE], ["zero", b"\0"]], "kind")


@bad("order-side-kind", 304, "CHUNK-4 VARINT-2 ERR-6", "side indices without the side flag, of a reserved length")
def _(s, src):
    s.put([["kind", b"\xcc"], ["length", b"\xff"]], "kind")


@vector("bad-side-after-end", "side indices after the end", "CHUNK-7", "side", code=307, container=True)
def _():
    s, src = Stream(SIDE()), source(450)
    some(s, src, 1)
    s.end()
    s.side_indices([1], fault="kind")
    return s


@vector("bad-side-join-kind", "joining at side indices", "JOIN-1", "side", code=404, container=True)
def _():
    s, src = Stream(SIDE()), source(451)
    some(s, src, 1)
    s.join()
    s.side_indices([1], fault="kind")
    s.end()
    return s


@bad("bad-side-count", 309, "CTRL-10", "one side index more than max frames per chunk", models="side", max_frames=4)
def _(s, src):
    s.side_indices([1, 2, 3, 4, 5], fault="count")


@bad("bad-side-left", 319, "CTRL-10", "side indices while one is left", models="side", check=1)
def _(s, src):
    s.side_indices([1, 2, 3])
    some(s, src, 2)
    s.side_indices([1, 2, 3], fault="kind")


@bad("bad-side-left-batch", 319, "CTRL-10", "side indices while one is left after a batch, as a message", models="side",
     binding="messages")
def _(s, src):
    s.side_indices([1, 2, 3])
    s.batch(src.frames(s.model, 2))
    s.set_quality(1)
    s.checkpoint()
    s.side_indices([7], fault="start")


@bad("bad-side-crc", 403, "CTRL-1", "side indices with a wrong crc", models="side")
def _(s, src):
    s.side_indices([1, 2, 3], after=flip("crc"), fault="crc")


@bad("bad-side-crc-identity", 403, "CTRL-1 HDR-12",
     "side indices of a stream without an identity, in one that has one", models="side", identity=b"side two")
def _(s, src):
    mine, s.identity = s.identity, b""
    s.side_indices([1, 2, 3], fault="crc")
    s.identity = mine


@bad("bad-side-short", 306, "CTRL-1", "side indices whose body is too short for a crc", models="side")
def _(s, src):
    s.put([["kind", b"\xcc"], ["length", varint(3)], ["body", b"\1\2\3"]], "body")


@bad("bad-side-no-count", 306, "CHUNK-5", "side indices without a count", models="side")
def _(s, src):
    s.side_indices([1], edit=lambda parts: parts.__delitem__(slice(0, 2)), fault="crc")


@bad("bad-side-count-cut", 306, "CHUNK-5", "a count of two bytes of which one is there", models="side", max_frames=1000)
def _(s, src):
    s.side_indices([1], edit=both(replace("count", b"\x80"), replace("payload0", b"")), fault="count")


@bad("bad-side-count-form", 101, "VARINT-1", "a count that is not written shortest", models="side")
def _(s, src):
    s.side_indices([1, 2], edit=replace("count", varint(1, 2)), fault="count")


@bad("order-side-crc", 403, "CTRL-1 CTRL-10 ERR-6", "a wrong crc of side indices that come too early and are too many",
     models="side", max_frames=4)
def _(s, src):
    s.side_indices([1])
    s.side_indices([1, 2, 3, 4, 5], after=flip("crc"), fault="crc")


@bad("order-side-count", 309, "CTRL-10 ERR-6", "too many side indices while one is left: the count first",
     models="side", max_frames=4)
def _(s, src):
    s.side_indices([1])
    s.side_indices([1, 2, 3, 4, 5], fault="count")


@bad("order-side-left", 319, "CTRL-10 MODE-4 ERR-6", "side indices while one is left, in a payload that is too long",
     models="side")
def _(s, src):
    s.side_indices([1])
    s.side_indices([1], payload=lambda p: b"\7" * 99, fault="kind")


# -- the pairing of stream and model -------------------------------------------------------------


def flags(name, text, model, value, rules="SIDE-1", quality=b"\0", expected=None, **options):
    more = {"host": expected} if expected else {}

    @vector(name, text, rules, model, code=506, **more)
    def _():
        edit = both(replace("flags", value), replace("quality", quality))
        s = Stream(MODELS[model], head=edit, fault="flags", **options)
        s.end()
        return s


flags("bad-side-flag", "the side flag, and a model that takes no side indices", "a", b"\x80")
flags("bad-side-no-flag", "a model that takes side indices, and no side flag", "side", b"\0")
flags("bad-side-flag-messages", "the side flag in messages, and a model that takes no side indices", "a", b"\xc0",
      binding="messages")
flags("order-side-flag-quality", "no side flag where the model needs it, and a quality that there is not", "side",
      b"\0", "SIDE-1 DEC-6 ERR-6", quality=b"\7")
flags("order-side-flag-host", "no side flag where the model needs it, and no host digest where one is expected",
      "side", b"\0", "SIDE-1 HOST-1 ERR-6", expected=HOST)
flags("order-side-flag-host-digest", "no side flag where the model needs it, and another host digest than is expected",
      "side", b"\x10", "SIDE-1 HOST-1 ERR-6", expected=HOST, host=HOST[::-1])


@vector("order-side-flag-model", "another model, and no side flag where the stream's own would need it",
        "MODEL-11 SIDE-1 ERR-6", "a", code=501)
def _():
    s = Stream(SIDE(), fault="fingerprint")
    s.end()
    return s


@bad("bad-side-switch", 506, "SIDE-1", "a switch to a model that takes no side indices", models="side a",
     container=False)
def _(s, src):
    s.switch(A(), fault="fingerprint")


@bad("bad-side-switch-flag", 506, "SIDE-1", "a switch to a model that takes side indices, without the side flag",
     models="a side", container=False)
def _(s, src):
    s.switch(SIDE(), fault="fingerprint")
    s.end()


@bad("order-side-switch-quality", 506, "SIDE-1 DEC-6 ERR-6",
     "a switch to a model that takes no side indices, of quality 255", models="side a", container=False)
def _(s, src):
    s.switch(A(), 255, fault="fingerprint")


@bad("order-side-switch-digest", 506, "SIDE-1 DEC-8 ERR-6",
     "a switch to a model that takes no side indices, with another W digest", models="side a", container=False)
def _(s, src):
    s.switch(A(), edit=flip("w_digest"), fault="fingerprint")


def joins(name, text, model, value, join, others=""):
    @vector(name, text, "SIDE-1 JOIN-2" + others, "a side", code=506)
    def _():
        s, src = Stream(MODELS[model], head=replace("flags", value)), source(452)
        some(s, src, 1)
        s.join()
        join(s)
        s.end()
        return s


joins("bad-side-join", "joining at a reset of a model that takes side indices, without the side flag", "side", b"\0",
      lambda s: s.reset(fault="prefix"))
joins("bad-side-join-flag", "joining at a reset of a model that takes none, with the side flag", "a", b"\x80",
      lambda s: s.reset(fault="prefix"))
joins("bad-side-join-switch", "joining at a switch to a model that takes none, with the side flag", "side", b"\x80",
      lambda s: s.switch(A(), fault="fingerprint"))
joins("order-side-join-quality", "joining at a reset of a model that takes none, with the side flag, of quality 255",
      "a", b"\x80", lambda s: s.reset(edit=replace("quality", b"\xff"), fault="prefix"), " DEC-6 ERR-6")


# -- the caller ----------------------------------------------------------------------------------


def caller(name, code, fault, text, rules, lie, chunk, **options):
    """`lie(side)` is what the caller says of the side indices that the chunk was made with."""

    @bad(name, code, rules, text, models="side", container=False, **options)
    def _(s, src):
        s.side_indices([11, 12, 13])
        some(s, src, 3)
        chunk(s, src)
        s.broken(fault)
        s.fault_kinds = s.kinds[:-1]
        s.answers[-1][1] = lie(list(s.answers[-1][1]))


def one(s, src):
    s.frame(*src.frame(s.model))


def four(s, src):
    s.batch(src.frames(s.model, 4), lanes=2)


def exact(s, src):
    s.exact(*src.frame(s.model), 1, bytes(2 * s.model.e))


def other(at):
    def lie(side):
        side[at] = (side[at] + 1) % 300
        return side

    return lie


caller("bad-side-check8", 402, "check", "a wrong side index from the caller, and a check of one byte",
       "CHECK-1 CHECK-3", other(0), one, check=1)
caller("bad-side-check16", 402, "check", "a wrong side index from the caller, and a check of two bytes",
       "CHECK-1 CHECK-3", other(0), one, check=2)
caller("bad-side-check-batch", 402, "check", "the caller's third of four side indices of a batch is wrong",
       "CHECK-1 CHECK-3", other(2), four, check=2)
caller("bad-side-check-none", 402, "check", "the caller says that a frame has no side index, which has one",
       "CHECK-1 CHECK-3", lambda side: [300], one, check=2)
caller("bad-side-check-exact", 402, "check", "a wrong side index of an exact frame", "CHECK-1 CHECK-3", other(0),
       exact, check=2)
caller("bad-side-check-layered", 402, "check", "a wrong side index of a hyper-prior", "CHECK-1 CHECK-3", other(0), one,
       check=1, layered=True)
caller("bad-side-above", 812, "start", "a side index of V + 1 from the caller", "SIDE-4", lambda side: [301], one,
       check=1)
caller("bad-side-above-batch", 812, "start", "the last side index of a batch is above V", "SIDE-4",
       lambda side: [*side[:3], 5000], four)
caller("bad-side-above-all", 812, "start", "a side index of 2^32 - 1 from the caller", "SIDE-4",
       lambda side: [2**32 - 1],
       one)
caller("bad-side-few", 812, "start", "three side indices for four frames", "SIDE-4", lambda side: side[:3], four,
       check=1)
caller("bad-side-many", 812, "start", "two side indices for one frame", "SIDE-4", lambda side: side * 2, one)
caller("bad-side-wait-message", 812, "start", "no side index from the caller, for a message", "SIDE-4 SIDE-3",
       lambda side: [], four, binding="messages", layered=True, horizon=20)
caller("bad-side-wait-exact", 812, "start", "no side index from the caller, for an exact frame", "SIDE-4 SIDE-3",
       lambda side: [], exact)


@vector("bad-side-wait", "a caller who knows no side index", "SIDE-4 SIDE-3", "side", code=812)
def _():
    s, src = Stream(SIDE(), check=2), source(455)
    some(s, src, 1)
    s.broken("start")
    s.fault_kinds = []
    s.end()
    s.answers = []
    return s


@vector("bad-side-wait-more", "a caller who knows the side indices of two frames, and no more", "SIDE-4 SIDE-3", "side",
        code=812)
def _():
    s, src = Stream(SIDE(), check=1), source(456)
    some(s, src, 2)
    s.batch(src.frames(s.model, 3))
    s.broken("start")
    s.fault_kinds = s.kinds[:-1]
    some(s, src, 1)
    s.end()
    s.answers = s.answers[:2]
    return s


@bad("bad-side-digest", 409, "DEC-8 SIDE-3", "a wrong side index from the caller, found by the next W digest alone",
     models="side", container=False)
def _(s, src):
    s.frame(*src.frame(s.model), (PLAIN, PLAIN))  # no table depends on the side index
    s.answers[-1][1] = other(0)(s.answers[-1][1])
    s.frame(*src.frame(s.model), (PLAIN, PLAIN))
    s.checkpoint(fault="w_digest")


@bad("order-side-wait", 812, "SIDE-4 CHECK-3 ERR-6", "no side index from the caller, for a frame of a wrong check",
     models="side", container=False, check=1)
def _(s, src):
    s.frame(*src.frame(s.model), after=flip("check", 3), fault="start")
    s.answers[-1][1] = []


@bad("order-side-check", 402, "CHECK-3 MODE-4 ERR-6", "a wrong check over a payload that is too long", models="side",
     container=False, check=1)
def _(s, src):
    s.frame(*src.frame(s.model), payload=lambda p: b"\7" * 99, after=flip("check", 3), fault="check")


@bad("bad-side-check-changed", 402, "CHECK-1 CHECK-3", "a batch with one bit flipped in its payload", models="side",
     container=False, check=2)
def _(s, src):
    s.batch(src.frames(s.model, 4), lanes=2, after=flip("payload1", 2), fault="check")


@bad("order-side-exact", 503, "CTRL-6 CHECK-3 ERR-6", "an exact frame of another width whose side index is wrong",
     models="side", container=False, check=1)
def _(s, src):
    s.exact(*src.frame(s.model), 1, bytes(2 * s.model.e + 2), fault="hidden")
    s.answers[-1][1] = [301]


@bad("order-side-overdue", 806, "DEC-14 CHECK-3 ERR-6",
     "a hyper-prior above the horizon, of a wrong check and without a side index",
     models="side", container=False, check=1, layered=True, horizon=3)
def _(s, src):
    s.frame(*src.frame(s.model), after=flip("check", 3), fault="start")
    s.answers[-1][1] = []


@vector("order-side-index", "a frame after the last one that a stream can have, of a wrong check",
        "CTRL-9 CHECK-3 ERR-6", "side", code=103, container=True)
def _():
    s, src = Stream(SIDE(), check=2), source(453)
    s.begin_at(2**56 - 1, 5)
    s.join()
    s.reset()
    s.frame(*src.frame(s.model), after=flip("check", 2), fault="check")
    return s


@bad("order-side-layout", 306, "CHUNK-5 CHECK-3 ERR-6",
     "an exact frame without room for its check: no side index is asked for", models="side", check=2)
def _(s, src):
    s.exact(*src.frame(s.model), 1, bytes(2 * s.model.e), edit=replace("frame_length", varint(1)), fault="check")
    s.answers[-1][1] = []


# -- payloads ------------------------------------------------------------------------------------


def payload(name, code, rules, text, side, modes=(CODED, CODED), change=None, model="side"):
    @bad(name, code, rules, text, models=model, container=False, check=1)
    def _(s, src):
        data = (lambda p: change(s, p)) if change else None
        s.side_indices(side, modes, data, fault="payload0")
        s.given = [0] * len(side)  # for what follows


def longer(s, p):
    assert s.coder.inside(p + b"\1")
    return p + b"\1"


def longest(s, p):
    p = p.ljust(11, b"\0") + b"\1"
    assert s.coder.inside(p)
    return p


payload("bad-side-corrupt", 601, "ENT-1", "a payload whose number is above every interval", [1, 2], change=lambda s,
        p: b"\xff" * 8)
payload("bad-side-repeat-upper", 601, "SIDE-2 MODE-3", "upper parts that are a repeat", [1, 2], (REPEAT, CODED))
payload("bad-side-repeat-lower", 601, "SIDE-2 MODE-3", "lower parts that are a repeat of the upper ones", [0, 0],
        (CODED, REPEAT))
payload("bad-side-seal", 602, "SIDE-2 SEAL-2", "a payload that ends in 00", [1, 299], change=lambda s, p: p + b"\0")
payload("bad-side-seal-long", 602, "SIDE-2 SEAL-2", "a payload one byte longer than needed, of the same symbols",
        [1, 299, 4], change=longer)
payload("bad-side-seal-longest", 602, "SIDE-2 SEAL-2 MODE-4",
        "a payload of twelve bytes for one side index: not too long, but longer than needed", [299], change=longest)
payload("bad-side-upper", 603, "SIDE-2 ENT-2", "an upper part above that of V", [1, (2, 0), 3])
payload("bad-side-upper-plain", 603, "SIDE-2 ENT-2", "a plain upper part above that of V", [(2, 0)], (PLAIN, PLAIN))
payload("bad-side-upper-negative", 603, "SIDE-2 ENT-2", "an upper part of -1", [4, (-1, 0)])
payload("bad-side-lower", 603, "SIDE-2 ENT-2", "a lower part of 256", [1, (0, 256)])
payload("bad-side-lower-negative", 603, "SIDE-2 ENT-2", "a lower part of -1", [(1, -1), 0])
payload("bad-side-lower-plain", 603, "SIDE-2 ENT-2", "a plain lower part of -1", [3, (0, -1)], (CODED, PLAIN))
payload("bad-side-index", 603, "SIDE-2 ENT-2", "a side index of V + 1", [300, 301])
payload("bad-side-index-plain", 603, "SIDE-2 ENT-2", "a plain side index of V + 1", [6], (PLAIN, PLAIN),
        model="side-linear")
payload("bad-side-long", 604, "SIDE-2 MODE-4", "a payload of thirteen bytes for one side index", [1],
        change=lambda s, p: b"\7" * 13)
payload("order-side-seal", 603, "SIDE-2 SEAL-2 ERR-6", "a side index of V + 1 in a payload that ends in 00", [301],
        change=lambda s, p: p + b"\0")


@bad("order-side-payload", 603, "SIDE-2 ERR-6", "a side index above V: the payload is judged before a frame needs it",
     models="side", container=False)
def _(s, src):
    s.side_indices([301], fault="payload0")
    s.given = []


# -- model files ---------------------------------------------------------------------------------

EMBEDDING = "decoder.side.embedding"


bad_model = functools.partial(bad_file, SIDE_SMALL, 454)


def gone(name):
    return lambda t: t.__delitem__(name)


def embedding(*shape, dtype="I8"):
    size = 1
    for x in shape:
        size *= x
    return lambda t: t.__setitem__(EMBEDDING, (dtype, list(shape), bytes(size)))


def value(name, at, to):
    return lambda t: set_values(t, name, lambda v: v.__setitem__(at, to))


def without_side(t):
    """D = 0 with all that this asks for, and the tensors under decoder.side. still there."""
    for name in [name for name in t if not name.startswith("decoder.side.")]:
        del t[name]
    t.update(MODELS["b"].tensors)


bad_model("model-side-missing", 702, "MODEL-2 MODEL-13", "a side width without an embedding", gone(EMBEDDING))
bad_model("model-side-bank-missing", 702, "MODEL-2 MODEL-13", "a side width without the sizes of its tables",
          gone("decoder.side.size"))
bad_model("model-side-width-other", 703, "MODEL-2", "an embedding of another width", embedding(1, 300, 3))
bad_model("model-side-dimensions", 703, "MODEL-2", "an embedding of two dimensions", embedding(300, 2))
bad_model("model-side-dtype", 703, "MODEL-2", "an embedding of dtype U8", embedding(1, 300, 2, dtype="U8"))
bad_model("model-side-ages-0", 703, "MODEL-13", "an embedding of no age", embedding(0, 300, 2))
bad_model("model-side-ages-17", 703, "MODEL-13", "an embedding of 17 ages", embedding(17, 300, 2))
bad_model("model-side-vocabulary-0", 703, "MODEL-13", "V = 0", embedding(1, 0, 2))
bad_model("model-side-vocabulary", 703, "MODEL-2 MODEL-13", "V = 600, and tables for 300", embedding(1, 600, 2))
bad_model("model-side-boundaries", 703, "MODEL-6 MODEL-13", "a boundary too many",
          lambda t: t.__setitem__("decoder.side.boundaries", ("U16", [t["decoder.side.boundaries"][1][0] + 1],
                                                              t["decoder.side.boundaries"][2] + b"\xff\xff")))
bad_model("model-side-value", 708, "MODEL-13", "an embedding with a value of -128", value(EMBEDDING, 77, -128))
bad_model("model-side-size-0", 708, "MODEL-5", "a table of side indices without a value",
          value("decoder.side.size", 1, 0), others=[703])
bad_model("model-side-unknown", 704, "MODEL-2 MODEL-13", "tensors of side indices where D is 0", without_side)
bad_model("model-side-width-negative", 705, "MODEL-3", "a side width of -1", value("decoder.config", 11, -1))
bad_model("model-side-width-high", 705, "MODEL-3", "a side width of 8,192", value("decoder.config", 11, 8192))
bad_model("model-side-first-width", 705, "MODEL-5", "a side width of 1 for networks and an embedding of 2",
          value("decoder.config", 11, 1), others=[703])
bad_model("model-side-table-order", 707, "MODEL-6 MODEL-13", "two equal boundaries in a table of lower parts",
          lambda t: set_values(t, "decoder.side.boundaries", lambda v: v.__setitem__(5, v[4])))


def first(table, to):
    return value("decoder.side.first", table, to)


bad_model("model-side-table-upper", 707, "MODEL-13", "a table of upper parts that holds one above that of V",
          first(0, 2))
bad_model("model-side-table-upper-low", 707, "MODEL-13", "a table of upper parts that holds -1", first(0, -1))
bad_model("model-side-table-lower", 707, "MODEL-13", "a table of lower parts that holds 256", first(1, 197))
bad_model("model-side-table-lower-low", 707, "MODEL-13", "a table of lower parts that holds -1", first(2, -1))
bad_model("model-side-table-end", 707, "MODEL-13", "a table of lower parts that begins at 2^31 - 1",
          first(1, 2**31 - 1))
