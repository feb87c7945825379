"""Chapter 3: range decoder, seal, escapes, modes.

`RangeDecoder` raises `Corrupt` with the error number; the caller knows the lane's offset.
"""
from bisect import bisect_right

HALF = (0, 32768, 65536)
M0 = (0, 65504, 65520, 65536)
M1 = (0, 16384, 16448, 65536)
CODED, PLAIN, REPEAT = range(3)


class Corrupt(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.code = code


def check_length(payload, frames, values):
    """[MODE-4]: `values` are those of one frame."""
    if len(payload) > frames * (2 * values + 8):
        raise Corrupt(604)


class RangeDecoder:
    """3.1"""

    def __init__(self, payload):
        self.payload = payload
        self.words = 0
        self.range = 2**64 - 1
        self.offset = 0
        for _ in range(4):
            self.offset = self.offset << 16 | self.next_word()

    def next_word(self):
        at = 2 * self.words
        self.words += 1
        piece = self.payload[at : at + 2]
        return int.from_bytes(piece + bytes(2 - len(piece)), "big")

    def symbol(self, boundaries):
        scale = self.range >> 16
        q = self.offset // scale
        if q >= 65536:
            raise Corrupt(601)  # [ENT-1]
        i = bisect_right(boundaries, q) - 1
        self.offset -= scale * boundaries[i]
        self.range = scale * (boundaries[i + 1] - boundaries[i])
        if self.range < 2**48:
            self.range <<= 16
            self.offset = self.offset << 16 | self.next_word()
        return i

    def escape(self):
        """The d of 3.4."""
        b = 1
        while b < 16 and self.symbol(HALF) == 1:
            b += 1
        value = 1
        for _ in range(b - 1):
            value = value << 1 | self.symbol(HALF)
        return value - 1

    def value(self, first, boundaries, lo, hi):
        """A value of the table that begins with `first`, boundaries with 0 and 65,536; [ENT-2]."""
        m = len(boundaries) - 3
        i = self.symbol(boundaries)
        if i == 0:
            value = first - 1 - self.escape()
        elif i == m + 1:
            value = first + m + self.escape()
        else:
            value = first + i - 1
        if not lo <= value <= hi:
            raise Corrupt(603)
        return value

    def number(self, bits):
        """[MODE-2]"""
        return self.symbol([i << 16 - bits for i in range((1 << bits) + 1)])

    def plain(self, n, lo, hi):
        number = self.number(n) if n <= 8 else self.number(n - 8) << 8 | self.number(8)
        value = number - (number >> n - 1 << n)
        if not lo <= value <= hi:  # [ENT-2]
            raise Corrupt(603)
        return value

    def runs(self, count, tables, lo, hi):
        """3.5: the runs of one kind; `tables(i)` has (first, boundaries) for each value of run i. The attribute
        `done` has the runs before it.
        """
        runs = self.done = []
        mode = CODED
        for i in range(count):
            mode = self.symbol(M1 if mode == REPEAT else M0)  # [MODE-1]
            if mode == REPEAT:
                if not runs:  # [MODE-3]
                    raise Corrupt(601)
                runs.append(list(runs[-1]))
            elif mode == PLAIN:
                n = self.number(4) + 1
                runs.append([self.plain(n, lo, hi) for _ in tables(i)])
            else:
                runs.append([self.value(*table, lo, hi) for table in tables(i)])
        return runs

    def finish(self):
        """[SEAL-2], after the lane's last symbol."""
        n = len(self.payload)
        if n == 0:
            return
        last = self.payload[-1]
        e = 8 * (2 * self.words - n)
        if last == 0 or e < 0:
            raise Corrupt(602)
        if not (self.offset < 1 << e and (256 - last) << e >= self.range - self.offset):
            raise Corrupt(602)
