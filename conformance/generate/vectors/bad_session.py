"""Streams that break a rule which only a decoder with the model sees."""

from ..encoder import Stream
from .common import (
    A, B, CODED, PLAIN, REPEAT, bad, empty_frame, flip, of_length, replace, some, source, vector,
)


@bad("bad-w-digest", 409, "DEC-8", "a checkpoint with another W digest", container=False)
def _(s, src):
    s.checkpoint(edit=flip("w_digest"), fault="w_digest")


@bad("bad-y-digest", 410, "DEC-8", "a checkpoint with another Y digest", container=False)
def _(s, src):
    s.checkpoint(edit=flip("y_digest"), fault="y_digest")


@bad("bad-y-digest-end", 410, "DEC-8", "an end chunk with another Y digest", container=False)
def _(s, src):
    s.checkpoint()
    some(s, src, 1)
    s.end(edit=flip("y_digest"), fault="y_digest")


@bad("bad-y-digest-not-restarted", 410, "DEC-8", "a Y digest that goes on across a checkpoint",
     container=False)
def _(s, src):
    s.checkpoint()
    some(s, src, 2)
    s.checkpoints[-1] = 0
    s.checkpoint(fault="y_digest")


@vector("bad-y-digest-late", "a Y digest found wrong when the last target comes", "DEC-10", code=410)
def _():
    s, src = Stream(A(), layered=True), source(80)
    some(s, src, 3)
    s.target(0)
    s.checkpoint(edit=flip("y_digest"))
    at = s.marks["y_digest"]
    s.target(2)
    s.broken(at)
    kinds = list(s.kinds)
    s.target(1)
    s.fault_kinds = kinds
    s.end()
    return s


@vector("bad-model", "a stream of another model", "MODEL-11 CAP-5", "b", code=501)
def _():
    s, src = Stream(A(), fault="fingerprint"), source(81)
    some(s, src, 2)
    s.end()
    return s


HOST = bytes(range(1, 33))


@vector("host-expected", "the decoder expects the host digest that the header states", "HOST-1", host=HOST)
def _():
    s, src = Stream(A(), host=HOST), source(85)
    some(s, src, 2)
    s.end()
    return s


@vector("bad-host", "another host digest than the decoder expects", "HOST-1", code=505, host=HOST)
def _():
    s, src = Stream(A(), host=HOST[::-1], fault="host"), source(86)
    some(s, src, 2)
    s.end()
    return s


@vector("bad-host-none", "no host digest where the decoder expects one", "HOST-1", code=505, host=HOST)
def _():
    s, src = Stream(A(), fault="flags"), source(87)
    some(s, src, 2)
    s.end()
    return s


@vector("bad-quality-before-host", "a quality the model does not have is told before the host", "HOST-1 DEC-6",
        code=504, host=HOST)
def _():
    s, src = Stream(A(), head=replace("quality", b"\3"), fault="quality"), source(88)
    some(s, src, 2)
    s.end()
    return s


@bad("bad-switch-model", 501, "DEC-7", "a switch to a model that is not there", container=False)
def _(s, src):
    s.switch(B(), fault="fingerprint")


@vector("bad-quality-header", "a quality the model does not have, in the header", "DEC-6", code=504)
def _():
    s, src = Stream(A(), head=replace("quality", b"\3"), fault="quality"), source(82)
    some(s, src, 2)
    s.end()
    return s


@bad("bad-quality", 504, "DEC-6", "a quality the model does not have, in a switch", container=False)
def _(s, src):
    s.set_quality(3, fault="quality")


@bad("bad-quality-reset", 504, "DEC-6", "a quality the model does not have, in a reset", container=False)
def _(s, src):
    s.reset(edit=replace("quality", b"\3"), fault="quality")


@bad("bad-quality-model", 504, "DEC-6", "a quality the other model does not have", "a b", container=False)
def _(s, src):
    s.switch(B(), 1, fault="quality")


@bad("bad-exact-hidden", 503, "CTRL-6", "a hidden state of another width", container=False)
def _(s, src):
    s.exact(*src.frame(s.model), 1, bytes(22), fault="hidden")


@bad("bad-payload-corrupt", 601, "ENT-1", "a payload whose number is above every interval",
     container=False, check=2)
def _(s, src):
    s.frame(*src.frame(s.model), payload=lambda p: b"\xff" * 8, fault="payload0")


@bad("bad-seal-zero", 602, "SEAL-2", "a payload that ends in 00", container=False)
def _(s, src):
    s.frame(*src.frame(s.model), payload=lambda p: p + b"\0", fault="payload0")


@bad("bad-seal-only-zero", 602, "SEAL-2", "an empty payload written as 00", container=False)
def _(s, src):
    original = s.payload
    s.payload = lambda frames, **o: original(frames, **o) + b"\0"
    empty_frame(s)
    s.payload = original
    assert s.data()[-1:] == b"\0"
    s.broken("payload0")
    s.fault_kinds = s.kinds[:-1]


@bad("bad-seal-long", 602, "SEAL-2", "a payload one byte longer than needed, of the same symbols",
     container=False)
def _(s, src):
    def longer(p):
        assert s.coder.inside(p + b"\1")
        return p + b"\1"

    s.frame(*src.frame(s.model), payload=longer, fault="payload0")


@bad("bad-seal-not-smallest", 602, "SEAL-2", "the second smallest of the shortest payloads",
     container=False)
def _(s, src):
    def candidate(coder, p):
        p = p[:-1] + bytes([p[-1] + 1 & 255])
        return p if p[-1] and coder.inside(p) else None

    w, y = trial(s, src, candidate)
    s.frame(w, y, payload=lambda p: candidate(s.coder, p), fault="payload0")


@bad("bad-seal-above-empty", 602, "SEAL-2", "the smallest number above 0 of its length, for an empty payload",
     container=False)
def _(s, src):
    original = s.payload

    def above(frames, **options):
        assert original(frames, **options) == b""
        coder = s.coder
        n = 1
        while not coder.inside(bytes(n - 1) + b"\1"):
            n += 1
        return bytes(n - 1) + b"\1"

    s.payload = above
    empty_frame(s)
    s.payload = original
    s.broken("payload0")
    s.fault_kinds = s.kinds[:-1]


@bad("bad-seal-beyond-words", 602, "SEAL-2", "a payload of more bytes than the words a decoder reads",
     container=False)
def _(s, src):
    def beyond(p):
        p = p.ljust(2 * s.coder.words, b"\0") + b"\1"
        assert s.coder.inside(p)
        return p

    s.frame(*src.frame(s.model), payload=beyond, fault="payload0")


@bad("bad-seal-smaller", 602, "SEAL-2", "a smaller number than the canonical one, in a longer string",
     container=False)
def _(s, src):
    def candidate(coder, p):
        n = len(p) + 1
        longer = -(-coder.low * 256**n // (1 << 16 * coder.words))
        longer = longer.to_bytes(n, "big")
        return longer if longer[-1] and longer < p and coder.inside(longer) else None

    w, y = trial(s, src, candidate)
    s.frame(w, y, payload=lambda p: candidate(s.coder, p), fault="payload0")


def trial(s, src, good):
    """A frame for which `good(coder, payload)` holds."""
    for _ in range(200):
        copy_of = Stream(s.model)
        copy_of.context.seen = [list(x) for x in s.context.seen]
        w, y = src.frame(s.model)
        p = copy_of.payload([copy_of.new_frame(w, y)])
        if good(copy_of.coder, p):
            return w, copy_of.timeline[-1].y
    raise AssertionError


@bad("bad-seal-lane", 602, "SEAL-2 DEC-3", "the second of three lanes ends in 00", container=False)
def _(s, src):
    s.batch(src.frames(s.model, 6), lanes=3, payload=lambda p: [p[0], p[1] + b"\0", p[2]],
            fault="payload1")


@bad("bad-value-w", 603, "ENT-2", "a W below w_min", container=False)
def _(s, src):
    w, y = src.frame(s.model)
    s.frame([w[0], s.model.w_min - 1, *w[2:]], y, fault="payload0")


@bad("bad-value-y", 603, "ENT-2", "a Y above y_max", container=False)
def _(s, src):
    w, y = src.frame(s.model)

    def beyond(means):
        return [s.model.y_max + 1, *y(means)[1:]]

    s.frame(w, beyond, fault="payload0")


@bad("bad-repeat-w", 601, "MODE-3", "a frame whose W is a repeat", container=False)
def _(s, src):
    s.frame(*src.frame(s.model), (REPEAT, CODED), fault="payload0")


@bad("bad-repeat-y", 601, "MODE-3", "a second lane whose first Y is a repeat", container=False)
def _(s, src):
    same = src.w(s.model), [0] * s.model.e
    modes = [(CODED, CODED), (REPEAT, REPEAT), (CODED, REPEAT), (REPEAT, REPEAT)]
    s.batch([(*same, both) for both in modes], lanes=2, fault="payload1")


@bad("bad-repeat-hyper-prior", 601, "MODE-3", "a hyper-prior that is a repeat", container=False, layered=True)
def _(s, src):
    s.frame(*src.frame(s.model), (REPEAT, CODED), fault="payload0")


@bad("bad-plain-w", 603, "ENT-2 MODE-2", "a plain W above w_max", container=False)
def _(s, src):
    w, y = src.frame(s.model)
    s.frame([*w[:-1], s.model.w_max + 1], y, (PLAIN, CODED), fault="payload0")


@bad("bad-plain-y", 603, "ENT-2 MODE-2", "a plain Y below y_min", container=False)
def _(s, src):
    w, y = src.frame(s.model)
    s.frame(w, lambda means: [*y(means)[:-1], s.model.y_min - 1], (CODED, PLAIN), fault="payload0")


@bad("bad-plain-y-16", 603, "ENT-2 MODE-2", "a plain Y of -32,768, which no declared range holds", "extreme",
     container=False)
def _(s, src):
    w, y = src.frame(s.model)
    s.frame(w, lambda means: [-32768, *y(means)[1:]], (CODED, PLAIN), fault="payload0")


@bad("bad-payload-long", 604, "MODE-4", "a payload one byte longer than its frame may take", "extreme",
     container=False)
def _(s, src):
    m = s.model
    s.frame(*of_length(s, 2 * (m.e + m.c) + 9), fault="payload0")


@bad("bad-payload-long-lane", 604, "MODE-4", "the second of two lanes is too long for its two frames", "extreme",
     container=False)
def _(s, src):
    m = s.model
    ends = lambda means: [m.y_min if x > 0 else m.y_max for x in means]
    s.batch([*src.frames(m, 2), *((src.w(m), ends) for _ in range(2))], lanes=2, fault="payload1")


@bad("bad-hyper-prior-long", 604, "MODE-4", "a hyper-prior too long for its frame", "extreme", container=False,
     layered=True)
def _(s, src):
    m = s.model
    w = [m.w_min, m.w_max, m.w_min, m.w_max, m.w_min]
    s.frame(w, src.y(m), fault="payload0")
    assert len(s.payload(s.timeline[-1:], y=False)) > 2 * m.c + 8


@bad("bad-exact-long", 604, "MODE-4 CTRL-6", "an exact frame whose payload is too long", "extreme", container=False)
def _(s, src):
    m = s.model
    ends = lambda means: [m.y_min if x > 0 else m.y_max for x in means]
    s.exact(src.w(m), ends, 1, bytes(2 * m.e), fault="payload0")


@bad("bad-hyper-prior-seal", 602, "SEAL-2", "a hyper-prior payload that ends in 00", container=False,
     layered=True)
def _(s, src):
    s.frame(*src.frame(s.model), payload=lambda p: p + b"\0", fault="payload0")


@bad("bad-overdue", 806, "DEC-14", "a hyper-prior above the horizon; the caller conceals nothing",
     container=False, layered=True, horizon=3)
def _(s, src):
    s.frame(*src.frame(s.model), fault="start")


@bad("bad-overdue-exact", 806, "DEC-14 CTRL-8", "an exact frame above the horizon; the caller conceals nothing",
     container=False, layered=True, horizon=3)
def _(s, src):
    s.exact(*src.frame(s.model), 0, bytes(4 * s.model.e), fault="start")


@vector("layered-exact-overdue", "an exact frame, and a batch behind a gap, make pending frames overdue",
        "DEC-14 CTRL-8", conceal="overdue")
def _():
    s, src = Stream(A(), layered=True, horizon=3), source(121)
    some(s, src, 3)
    s.target(1)
    s.conceal(0)
    s.exact(*src.frame(s.model), 0, bytes(4 * s.model.e))
    some(s, src, 1)
    s.target(4)
    s.conceal(2)
    some(s, src, 3)
    s.target(6)
    s.conceal(5, 7)
    s.batch(src.frames(s.model, 3))
    s.target(8, count=3)
    s.end(unverifiable=True)
    return s


@vector("bad-overdue-age", "a hyper-prior more than the horizon above the only pending frame", "DEC-14",
        code=806)
def _():
    s, src = Stream(A(), layered=True, horizon=3), source(64)
    some(s, src, 1)
    for i in (1, 2):
        some(s, src, 1)
        s.target(i)
    s.frame(*src.frame(s.model), fault="start")
    s.end()
    return s


@vector("bad-y-digest-behind-end", "the end's Y digest found wrong by a target behind it", "MSG-5 DEC-10",
        code=410)
def _():
    s, src = Stream(A(), binding="messages", layered=True), source(65)
    some(s, src, 2)
    s.target(1)
    s.end(edit=flip("y_digest"))
    at = s.marks["y_digest"]
    s.broken(at)
    s.target(0)
    return s
