"""What a decoder must report (6.10), worked out from what happened to each frame.

A stream keeps a log while it is made; `reports(log, conceal)` plays it for a caller who conceals `never`, at the `end` or
when frames are `overdue`.
"""


def runs(indices):
    """Consecutive indices as (first, count)."""
    found = []
    for i in sorted(indices):
        if found and sum(found[-1]) == i:
            found[-1][1] += 1
        else:
            found.append([i, 1])
    return found


class Ledger:
    def __init__(self, conceal):
        self.conceal = conceal
        self.reports = []
        self.pending = set()
        self.lost = set()
        self.waiting = []  # stated Y digests that cannot be judged yet: (from, to)
        self.confirmed = self.resume = 0  # [DEC-21]

    def say(self, *words):
        self.reports.append(list(words))

    def verdict(self, stated, text):
        self.say("verdict", *stated, text)

    def judge(self):
        """[DEC-10] [DEC-8]"""
        while self.waiting and not any(i < self.waiting[0][1] for i in self.pending):
            first, last = self.waiting.pop(0)
            known = not any(first <= i < last for i in self.lost)
            self.verdict((first, last), "y_confirmed" if known else "y_unverifiable")
            if known and first <= self.confirmed:
                self.confirmed = max(self.confirmed, last)

    def hide(self, first, count):
        frames = set(range(first, first + count))
        assert frames <= self.pending
        self.pending -= frames
        self.lost |= frames
        self.say("concealed", first, count)
        self.judge()

    # -- what a log holds ----------------------------------------------------------------------

    def coded(self, name, first, count):
        self.say(name, first, count)
        if name == "hyper_prior":
            self.pending |= set(range(first, first + count))

    def target(self, status, indices, part=None):
        """`part`: first element and their number, where the frame is not whole with them."""
        if status == "early":
            self.say("early", indices[0], len(indices))
            return
        if status != "usable":
            self.say("refused", status)
            return
        if part:
            self.say("part", indices[0], part[0], part[0] + part[1])
            return
        self.pending -= set(indices)
        self.say("targets", indices[0], len(indices))
        self.judge()

    def overdue(self, indices):
        if self.conceal == "overdue":
            for first, count in runs(indices):
                self.say("overdue", first, count)
                self.hide(first, count)

    def joined(self, index):
        self.confirmed = self.resume = index

    def state(self, first, last):
        """[DEC-20]"""
        self.resume = last
        self.waiting.append((first, last))
        if any(i < last for i in self.pending):
            self.verdict((first, last), "w_confirmed")
        self.judge()

    def drop(self):
        """[DEC-16]"""
        for first, count in runs(self.pending):
            self.say("dropped", first, count)
        self.lost |= self.pending
        self.pending = set()
        self.judge()

    def rewind(self, index):
        self.pending = {i for i in self.pending if i < index}
        self.lost = {i for i in self.lost if i < index}
        for stated in [s for s in self.waiting if s[1] > index]:
            self.waiting.remove(stated)
            self.verdict(stated, "y_unverifiable")
        self.say("rewound", index)
        self.confirmed = min(self.confirmed, index)
        self.resume = min(self.resume, index)


def reports(log, conceal, unverifiable):
    """The events, the confirmed index and the resume index at the end.

    `unverifiable`: how many Y digests the stream's author says are not judged to the end.
    """
    ledger = Ledger(conceal)
    for name, *arguments in log:
        getattr(ledger, name)(*arguments)
    if conceal == "end":
        for i in sorted(ledger.pending):
            ledger.hide(i, 1)
    unjudged = len(ledger.waiting) + sum(report[-1] == "y_unverifiable" for report in ledger.reports)
    assert unjudged == unverifiable, (unjudged, unverifiable)
    return ledger.reports, ledger.confirmed, ledger.resume
