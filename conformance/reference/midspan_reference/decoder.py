"""Chapter 6: the decoder. `Decoder.run()` fills `events` and `timeline` or raises MidspanError."""
import numpy as np

from . import container
from .conventions import clamp, crc32, round_shift, u32le
from .entropy import Corrupt, RangeDecoder, check_length
from .errors import MidspanError
from .network import State, clamp16, linear

FRAMES_MAX = 4  # the largest P (4.9)
PENDING, CODED, CONCEALED, EXACT = "pending", "coded", "concealed", "exact"
EARLY_CHUNKS, EARLY_BYTES = 4096, 1 << 20  # 7.2: what this decoder keeps


class Frame:
    def __init__(self, model, quality, epoch, side, w, mean, scale):
        self.model = model
        self.quality = quality
        self.epoch = epoch
        self.side = side  # the side index, or None
        self.w = w
        self.mean = mean
        self.scale = scale
        self.came = {}  # Y of the elements that came in parts
        self.y = None
        self.hidden = None
        self.status = PENDING

    def common(self):
        """6.13, step 1"""
        p = self.model.prediction
        return clamp16(round_shift(np.array(self.y, np.int64) * p.input_multiplier[self.quality],
                                   p.input_shift[self.quality]))

    def predict(self, past):
        """6.13: `past` has the frames before this one, the newest last"""
        p = self.model.prediction
        x = np.zeros((p.frames, self.model.e), np.int64)
        for row, frame in zip(x, reversed(past)):
            row[:] = frame.common()
        acc = (p.diagonal * x).sum(axis=0)
        if p.reduce:
            acc += p.expand @ clamp16(linear(p.reduce, x.reshape(1, -1)))[0]
        predicted = round_shift(acc * p.output_multiplier[self.quality], p.output_shift[self.quality])
        self.mean = np.clip(np.array(self.mean) + predicted, -(2**20), 2**20).tolist()


class Timeline(list):
    """Frames by absolute index, from the first one that the decoder followed on."""

    first = 0

    def __len__(self):
        return self.first + super().__len__()

    def shifted(self, key):
        if isinstance(key, slice):
            return slice(*(at if at is None else max(0, at - self.first) for at in (key.start, key.stop)))
        return key if key < 0 else key - self.first

    def __getitem__(self, key):
        return super().__getitem__(self.shifted(key))

    def __delitem__(self, key):
        super().__delitem__(self.shifted(key))

    def numbered(self):
        return enumerate(self, self.first)


class Decoder:
    def __init__(self, models, conceal="never", host=None, answers=()):
        self.models = {m.fingerprint: m for m in models}
        self.host = host  # the host digest that is expected, if any
        self.conceal = conceal
        self.answers = list(answers)  # what the caller knows: [first index, [side indices]], in order
        self.events = []
        self.reports = []  # 6.10, in order
        self.timeline = Timeline()
        self.confirmed = self.resume = 0  # [DEC-21]
        self.dropped = set()  # frames whose targets a reset or a switch dropped
        self.unverifiable = []  # offsets of Y digests that could not be judged
        self.complete = False

    def run(self, data, binding="stream", messages=None, join=None):
        items = container.read(data, binding, messages, join)
        self.joining = join is not None
        self.start(next(items))
        if not self.joining:
            self.report("opened")
        for chunk in items:
            event = {"kind": chunk.name, "offset": chunk.offset, "size": chunk.size,
                     "index": chunk.index, "frames": chunk.frames}
            getattr(self, "_" + chunk.name)(chunk, event)
            self.events.append(event)
            self.judge_kept(chunk)
        if self.conceal == "end":
            for i in sorted(self.pending):
                self.conceal_frames([i])
        self.unverifiable += [entry[3] for entry in self.due]
        self.complete = True

    def report(self, *words):
        self.reports.append(list(words))

    def verdict(self, begin, end, text):
        """[DEC-20]"""
        self.report("verdict", begin, end, text)

    # -- context -------------------------------------------------------------------------------

    def start(self, header):
        self.header = header
        self.ended = False
        self.kept = []  # early targets, in the order in which they came
        self.given = []  # side indices of a CC chunk that are left
        self.epoch = 0
        if self.joining:  # 6.6: the chunk there says which model and quality
            return
        self.use_model(header.fingerprint, header.at["fingerprint"], header.at["flags"])
        self.use_quality(header.quality, header.at["quality"])
        if self.host is not None and header.host_digest != self.host:  # [HOST-1]
            raise MidspanError(505, header.at["host" if header.host_digest else "flags"], "wrong host")
        self.new_context()

    def use_model(self, fingerprint, at, flag_at=None):
        if fingerprint not in self.models:  # [MODEL-11] [DEC-7]
            raise MidspanError(501, at, "wrong model")
        self.model = self.models[fingerprint]
        if self.header.side != (self.model.embedding is not None):  # [SIDE-1]
            raise MidspanError(506, at if flag_at is None else flag_at, "side flag")
        if self.header.layered and self.model.prediction:  # [PRED-3]
            raise MidspanError(507, at if flag_at is None else flag_at, "prediction in layered mode")

    def use_quality(self, quality, at):
        if quality >= self.model.q:  # [DEC-6]
            raise MidspanError(504, at, "unknown quality")
        self.quality = quality

    def new_context(self):
        self.begin = len(self.timeline)
        self.state = State(self.model.network, self.model.embedding)
        self.given = []  # [CTRL-10]
        self.windows = [self.begin]  # where the Y digest began: the context, then the checkpoints
        self.pending = set()
        self.due = []  # checkpoints whose Y digest waits: (begin, index, value, offset)

    def drop_rewound(self, index):
        """[DEC-16]"""
        self.pending -= {i for i in self.pending if i >= index}
        for entry in [d for d in self.due if d[1] > index]:
            self.due.remove(entry)
            self.unverifiable.append(entry[3])
            self.verdict(entry[0], entry[1], "y_unverifiable")

    def end_context(self, chunk):
        """[DEC-8] [DEC-16]: targets that have not come are lost."""
        if self.joining:  # 6.6: it cannot judge the digests
            self.joining = False
            self.timeline.first = self.confirmed = self.resume = chunk.index
            return
        for run in runs(self.pending):
            self.report("dropped", *run)
        self.dropped |= self.pending
        self.pending = set()
        self.judge_due()
        self.judge_digests(chunk)

    # -- side indices --------------------------------------------------------------------------

    def _side_indices(self, chunk, event):
        """[SIDE-2]"""
        count = chunk.fields["count"]
        self.guarded(chunk, 0, check_length, chunk.lanes[0][1], count, 2)
        self.given = self.guarded(chunk, 0, self.decode_side, chunk.lanes[0][1], count)
        self.report("side_indices", chunk.index, count, *self.given)

    def decode_side(self, payload, count):
        m = self.model
        coder = RangeDecoder(payload)
        (upper,) = coder.runs(1, lambda _: [m.side[0]] * count, 0, m.vocabulary // 256)
        (lower,) = coder.runs(1, lambda _: [m.side[1 + u] for u in upper], 0, 255)
        side = [256 * u + low for u, low in zip(upper, lower)]
        if max(side) > m.vocabulary:
            raise Corrupt(603)
        coder.finish()
        return side

    def take_side(self, chunk, event):
        """[SIDE-3] [CHECK-3]: the side indices of a chunk's frames, and then its check"""
        if not self.header.side:
            return None
        side, self.given = self.given[: chunk.frames], self.given[chunk.frames :]
        lacking = chunk.frames - len(side)
        if lacking:
            side += self.ask(chunk, chunk.index + len(side), lacking)
        stored, covered = chunk.deferred
        if stored != container.frame_check(self.header, *covered, side):
            raise MidspanError(402, chunk.at["check"], "frame check")
        event["side"] = side
        return side

    def ask(self, chunk, first, count):
        """The caller's next answer. Where it is not what is asked for, the caller gives up: [SIDE-4]."""
        answer = self.answers.pop(0) if self.answers else [first, []]
        if answer[0] != first or len(answer[1]) != count or not all(
            0 <= index <= self.model.vocabulary for index in answer[1]
        ):
            raise MidspanError(812, chunk.offset, f"{count} side indices are needed from frame {first} on")
        return list(answer[1])

    # -- parameters and payloads ---------------------------------------------------------------

    def parameters(self, w, chunk, side):
        """Runs g_y on the frames of a chunk and appends them to the timeline."""
        m = self.model
        out = self.state.run(w, self.quality, side)
        means = np.clip(out[:, : m.e], -(2**20), 2**20)
        scales = np.clip(out[:, m.e :], 0, m.s - 1)
        frames = [Frame(m, self.quality, chunk.epoch, *row)
                  for row in zip(side or [None] * len(w), w, means.tolist(), scales.tolist())]
        self.timeline += frames
        return frames

    def decode_w(self, coder, count):
        """[DEC-1]"""
        m = self.model
        tables = m.hyper_prior[self.quality * m.c : (self.quality + 1) * m.c]
        return coder.runs(count, lambda _: tables, m.w_min, m.w_max)

    def decode_y(self, coder, frames, past=(), elements=slice(None)):
        """6.2, 6.13; all frames are of one model, and those of `past` lie before them"""
        if not frames:
            return []
        m = frames[0].model

        def tables(i):
            frame = frames[i]
            if m.prediction:
                for before, y in zip(frames, coder.done):
                    before.y = y
                frame.predict([*past, *frames[:i]][-m.prediction.frames :])
            for mean, scale in zip(frame.mean[elements], frame.scale[elements]):
                f = m.fraction_bits[scale]
                q = mean if f == 6 else round_shift(mean, 6 - f)
                k = q >> f
                fraction = q - (k << f)
                k = clamp(k, m.y_min, m.y_max)
                first, boundaries = m.target[m.base[scale] + fraction]
                yield first + k, boundaries

        return coder.runs(len(frames), tables, m.y_min, m.y_max)

    def check_lengths(self, chunk, values):
        """[MODE-4]"""
        for i, (first, behind) in enumerate(chunk.partition):
            self.guarded(chunk, i, check_length, chunk.lanes[i][1], behind - first, values)

    def guarded(self, chunk, lane, work, *arguments):
        """An entropy coder's fault is reported at the lane's first byte."""
        try:
            return work(*arguments)
        except Corrupt as fault:
            raise MidspanError(fault.code, chunk.lanes[lane][0], "payload") from None

    def set_y(self, frame, y):
        """6.7"""
        frame.y = y
        frame.status = CODED
        frame.hidden = reconstruct(frame, np.array(y, np.float32))

    def joined(self, chunk, event):
        """6.1, [DEC-2], [DEC-3]"""
        side = self.take_side(chunk, event)
        self.check_lengths(chunk, self.model.e + self.model.c)
        lanes = range(len(chunk.lanes))
        coders = [RangeDecoder(payload) for _, payload in chunk.lanes]
        sizes = [behind - first for first, behind in chunk.partition]
        w = []
        for i in lanes:
            w += self.guarded(chunk, i, self.decode_w, coders[i], sizes[i])
        frames = self.parameters(w, chunk, side)
        for i in lanes:
            own = frames[slice(*chunk.partition[i])]
            past = self.timeline[max(self.begin, chunk.index - FRAMES_MAX) : chunk.index] if i == 0 else []
            for frame, y in zip(own, self.guarded(chunk, i, self.decode_y, coders[i], own, past)):
                self.set_y(frame, y)
            self.guarded(chunk, i, coders[i].finish)

    def hyper_prior(self, chunk, event):
        self.make_room(chunk)
        side = self.take_side(chunk, event)
        self.check_lengths(chunk, self.model.c)
        w = []
        for i, (first, behind) in enumerate(chunk.partition):
            coder = RangeDecoder(chunk.lanes[i][1])
            w += self.guarded(chunk, i, self.decode_w, coder, behind - first)
            self.guarded(chunk, i, coder.finish)
        begin = len(self.timeline)
        self.parameters(w, chunk, side)
        self.pending |= set(range(begin, len(self.timeline)))

    # -- frame chunks --------------------------------------------------------------------------

    def _frame(self, chunk, event):
        if self.header.layered:
            self.hyper_prior(chunk, event)
        else:
            self.joined(chunk, event)
        self.report("hyper_prior" if self.header.layered else "frames", chunk.index, chunk.frames)

    _batch = _frame

    def _target(self, chunk, event):
        """6.5; event["status"] is usable, early, late or damaged (or no_room)."""
        status = event["status"] = self.judge_target(chunk, chunk.epoch)
        if status == "early":  # [DEC-22]
            if self.names(chunk) not in map(self.names, self.kept):
                size = sum(len(kept.fields["body"]) for kept in [*self.kept, chunk])
                if size > EARLY_BYTES or len(self.kept) == EARLY_CHUNKS:
                    status = event["status"] = "no_room"
                else:
                    self.kept.append(chunk)
        self.report_target(chunk, status)

    def report_target(self, chunk, status):
        """6.10; what a usable target reports, take_target has said."""
        if status == "early":
            self.report("early", chunk.index, chunk.frames)
        elif status != "usable":
            self.report("refused", status)

    _target_batch = _target

    @staticmethod
    def names(chunk):
        """[DEC-22]: chunks that agree in these are equal."""
        payloads = [payload for _, payload in chunk.lanes]
        return chunk.index, chunk.frames, chunk.fields["epoch"], chunk.fields.get("elements"), payloads

    def judge_target(self, chunk, epoch):
        """6.5, rules 3 to 6, and the target taken up if it is usable; `epoch` is the current one."""
        if not chunk.check_holds:
            return "damaged"
        ahead = (chunk.fields["epoch"] - epoch) % 2**32
        indices = range(chunk.index, chunk.index + chunk.frames)
        to_come = 1 <= ahead <= 8 or ahead == 0 and indices.stop > len(self.timeline)
        if to_come and not self.ended:
            return "early"
        named = chunk.fields["epoch"]
        if not all(i in self.pending and self.timeline[i].epoch == named for i in indices):
            return "late"
        return self.take_target(chunk, indices)

    def judge_kept(self, chunk):
        """[DEC-22]: what is no longer early after `chunk` gives an event of its own."""
        for kept in list(self.kept):
            status = self.judge_target(kept, chunk.epoch)
            if status != "early":
                self.kept.remove(kept)
                self.report_target(kept, status)
                self.events.append({"kind": "kept", "offset": kept.offset, "size": 0, "index": kept.index,
                                    "frames": kept.frames, "status": status})

    def take_target(self, chunk, indices):
        """A target whose frames are pending."""
        frames = self.timeline[indices.start : indices.stop]
        elements = range(*chunk.fields.get("elements", (0, self.model.e)))
        if elements.stop > self.model.e:  # [DEC-23]
            return "damaged"
        if any(element in frame.came for frame in frames for element in elements):
            return "late"
        ys = []
        try:
            for (a, b), (_, payload) in zip(chunk.partition, chunk.lanes):
                check_length(payload, b - a, len(elements))
                coder = RangeDecoder(payload)
                ys += self.decode_y(coder, frames[a:b], elements=slice(elements.start, elements.stop))
                coder.finish()
        except Corrupt:  # [DEC-12]
            return "damaged"
        for i, frame, y in zip(indices, frames, ys):
            frame.came.update(zip(elements, y))
            if len(frame.came) == self.model.e:
                self.set_y(frame, [frame.came[c] for c in range(self.model.e)])
                self.pending.remove(i)
        if indices[0] in self.pending:
            self.report("part", chunk.index, elements.start, elements.stop)
        else:
            self.report("targets", chunk.index, chunk.frames)
        self.judge_due()
        return "usable"

    def _exact(self, chunk, event):
        """6.9"""
        dtype = chunk.fields["dtype"]
        raw = chunk.fields["hidden"]
        if len(raw) != self.model.e * (4, 2, 2)[dtype]:  # [CTRL-6]
            raise MidspanError(503, chunk.at["hidden"], "length of the hidden state")
        if self.header.layered:
            self.make_room(chunk)
        self.joined(chunk, event)
        if dtype == 2:
            hidden = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        elif dtype == 1:
            hidden = widened_half(np.frombuffer(raw, "<u2").astype(np.uint32)).view(np.float32)
        else:
            hidden = np.frombuffer(raw, "<f4")
        self.timeline[-1].hidden = hidden
        self.timeline[-1].status = EXACT
        self.report("exact_frame", chunk.index)

    # -- losses --------------------------------------------------------------------------------

    def make_room(self, chunk):
        """[DEC-14]"""
        first = len(self.timeline) + chunk.frames - self.header.horizon
        for begin, count in runs(i for i in self.pending if i < first):
            self.report("overdue", begin, count)
            if self.conceal != "overdue":
                raise MidspanError(806, chunk.offset, "target overdue")
            self.conceal_frames(range(begin, begin + count))

    def conceal_frames(self, indices):
        """[DEC-13]"""
        for i in indices:
            frame = self.timeline[i]
            m = frame.model
            frame.y = [frame.came.get(c, clamp((mean + 32) >> 6, m.y_min, m.y_max))
                       for c, mean in enumerate(frame.mean)]
            levels = np.array(frame.mean, np.float32) * np.float32(2**-6)
            levels[list(frame.came)] = list(frame.came.values())
            frame.hidden = reconstruct(frame, levels)
            frame.status = CONCEALED
        self.pending -= set(indices)
        self.report("concealed", indices[0], len(indices))
        self.judge_due()

    # -- digests -------------------------------------------------------------------------------

    def digest(self, begin, end, values):
        """6.4"""
        d = crc32(self.header.identity)
        for frame in self.timeline[begin:end]:
            covered = np.array(getattr(frame, values), "<i2").tobytes()
            if values == "w" and frame.side is not None:
                covered += u32le(frame.side)
            quality = bytes([frame.quality]) if values == "w" else b""
            d = crc32(u32le(d) + quality + u32le(crc32(covered)))
        return d

    def judge_digests(self, chunk):
        """[DEC-8]"""
        if self.digest(self.begin, len(self.timeline), "w") != chunk.fields["w_digest"]:
            raise MidspanError(409, chunk.at["w_digest"], "W digest mismatch")
        self.due.append((self.windows[-1], len(self.timeline), chunk.fields["y_digest"],
                         chunk.at["y_digest"]))
        self.resume = len(self.timeline)
        if min(self.pending, default=len(self.timeline)) < len(self.timeline):
            self.verdict(*self.due[-1][:2], "w_confirmed")
        self.judge_due()

    def judge_due(self):
        """[DEC-10]"""
        oldest = min(self.pending, default=len(self.timeline))
        while self.due and self.due[0][1] <= oldest:
            begin, end, value, at = self.due.pop(0)
            frames = range(begin, end)
            if any(self.timeline[i].status == CONCEALED or i in self.dropped for i in frames):
                self.unverifiable.append(at)
                self.verdict(begin, end, "y_unverifiable")
            elif self.digest(begin, end, "y") != value:
                raise MidspanError(410, at, "Y digest mismatch")
            else:
                self.verdict(begin, end, "y_confirmed")
                if begin <= self.confirmed:
                    self.confirmed = max(self.confirmed, end)

    def _checkpoint(self, chunk, event):
        if len(self.due) > self.header.horizon:  # [DEC-18]
            raise MidspanError(318, chunk.at["index"], "too many checkpoints waiting")
        self.judge_digests(chunk)
        self.windows.append(len(self.timeline))

    def _end(self, chunk, event):
        """[DEC-17]"""
        self.ended = True
        self.judge_digests(chunk)
        self.report("ended", chunk.index)

    # -- control -------------------------------------------------------------------------------

    def _reset(self, chunk, event):
        if self.joining:
            known = [f for f in self.models if f[:8] == chunk.fields["prefix"]]
            if not known:
                raise MidspanError(502, chunk.at["prefix"], "a model that is not there")
            self.use_model(known[0], chunk.at["prefix"])
        self.use_quality(chunk.fields["quality"], chunk.at["quality"])
        self.end_context(chunk)
        self.new_context()
        self.report("reset", chunk.index)

    def _rewind(self, chunk, event):
        """[DEC-5] [DEC-9]"""
        index = chunk.fields["index"]
        self.given = []  # [CTRL-10]
        self.drop_rewound(index)
        del self.timeline[index:]
        self.state.rewind(index - self.begin)
        self.windows = [w for w in self.windows if w <= index]
        self.judge_due()
        self.report("rewound", index)
        self.confirmed = min(self.confirmed, index)
        self.resume = min(self.resume, index)

    def _quality(self, chunk, event):
        self.use_quality(chunk.fields["quality"], chunk.at["quality"])
        self.report("quality", self.quality)

    def _model(self, chunk, event):
        self.use_model(chunk.fields["fingerprint"], chunk.at["fingerprint"])
        self.use_quality(chunk.fields["quality"], chunk.at["quality"])
        self.end_context(chunk)
        self.new_context()
        self.report("model", chunk.index)

    def _extension(self, chunk, event):
        self.report("extension", chunk.fields["id"])

    def _seek_index(self, chunk, event):
        event["entries"] = chunk.fields["entries"]


def runs(indices):
    """Indices that follow each other, as [first, count]."""
    found = []
    for i in sorted(indices):
        if found and found[-1][0] + found[-1][1] == i:
            found[-1][1] += 1
        else:
            found.append([i, 1])
    return found


def widened_half(bits):
    """[EXACT-1]: binary16 to binary32, as bits"""
    single = bits.astype(np.uint16).view(np.float16).astype(np.float32).view(np.uint32)
    special = (bits & 0x8000) << 16 | 0x7F800000 | (bits & 0x3FF) << 13
    return np.where(bits & 0x7C00 == 0x7C00, special, single)


def row_sum(row, values):
    """4.10, in binary32"""
    index, weight = row
    sums = np.zeros(16, np.float32)
    for k in range(0, len(index), 16):
        products = weight[k : k + 16] * values[index[k : k + 16]]
        sums[: len(products)] = sums[: len(products)] + products
    for half in (8, 4, 2, 1):
        sums = sums[:half] + sums[half : 2 * half]
    return sums[0]


def reconstruct(frame, levels):
    """6.7: two roundings in binary32; a map between them in binary64, a sparse causal one in binary32"""
    step = frame.model.step[frame.quality]
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        product = (levels * step).astype(np.float32)
        if isinstance(frame.model.synthesis, list):  # [SPARSE-2]
            for c, row in enumerate(frame.model.synthesis):
                product[c] = row_sum(row, product) + product[c]
        elif frame.model.synthesis is not None:  # [DEC-19]
            product = frame.model.synthesis.astype(np.float64) @ product.astype(np.float64)
        return (product + frame.model.offset[frame.quality]).astype(np.float32)
