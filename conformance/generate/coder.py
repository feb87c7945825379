"""3.2 and 3.3 by their definitions, on integers without bound: no carry, no shortcut."""

BITS = (0, 32768, 65536)
CODED, PLAIN, REPEAT = range(3)
M0 = (0, 65504, 65520, 65536)
M1 = (0, 16384, 16448, 65536)


def wide(n):
    """A plain run of this width."""
    return PLAIN, n


class Coder:
    def __init__(self):
        self.low = 0
        self.range = 2**64 - 1
        self.words = 4  # low counts in units of 2 ** (-16 * words)

    def symbol(self, c, i):
        scale = self.range >> 16
        self.low += scale * c[i]
        self.range = scale * (c[i + 1] - c[i])
        if self.range < 2**48:
            self.low <<= 16
            self.range <<= 16
            self.words += 1

    def value(self, table, shift, value):
        """3.4: `value` with a table (first, boundaries) whose values are shifted by `shift`."""
        first, c = table
        first += shift
        m = len(c) - 3
        if value < first:
            self.symbol(c, 0)
            self.escape(first - 1 - value)
        elif value >= first + m:
            self.symbol(c, m + 1)
            self.escape(value - (first + m))
        else:
            self.symbol(c, value - first + 1)

    def escape(self, d):
        digits = bin(d + 1)[2:]
        b = len(digits)
        assert b <= 16
        for bit in "1" * (b - 1) + ("" if b == 16 else "0") + digits[1:]:
            self.symbol(BITS, int(bit))

    def number(self, number, bits):
        """3.5: one of 2^bits equally likely numbers"""
        self.symbol(range(0, 65537, 2 ** (16 - bits)), number)

    def plain(self, values, n=None):
        """[MODE-2]; without `n` in the smallest width"""
        if n is None:
            n = max(len(bin(v if v >= 0 else -1 - v)) - 1 if v not in (0, -1) else 1 for v in values)
        self.number(n - 1, 4)
        for v in values:
            assert -(2 ** (n - 1)) <= v < 2 ** (n - 1)
            number = v % 2**n
            if n > 8:
                self.number(number // 256, n - 8)
                self.number(number % 256, 8)
            else:
                self.number(number, n)

    def runs(self, runs):
        """3.5: `runs` has a mode, values, and a (table, shift) for each value."""
        before = None
        for mode, values, tables in runs:
            mode, *width = mode if isinstance(mode, tuple) else (mode,)
            self.symbol(M1 if before and before[0] == REPEAT else M0, mode)
            if mode == PLAIN:
                self.plain(values, *width)
            elif mode == REPEAT:
                assert before is None or before[1] == values
            else:
                for value, (table, shift) in zip(values, tables):
                    self.value(table, shift, value)
            before = mode, values

    def inside(self, payload):
        """Does the payload's number lie in [L, L + R)?"""
        one = 1 << 16 * self.words
        v = int.from_bytes(payload, "big") * one
        size = 256 ** len(payload)
        return self.low * size <= v < (self.low + self.range) * size

    def seal(self):
        """[SEAL-1]; a length n does for all greater lengths too, so bisection finds the first."""
        one = 1 << 16 * self.words

        def smallest(n):
            return -(-self.low * 256**n // one)  # the smallest multiple of 256^-n not below L

        short, enough = -1, 2 * self.words
        while enough - short > 1:
            n = (short + enough) // 2
            if smallest(n) * one < (self.low + self.range) * 256**n:
                enough = n
            else:
                short = n
        return smallest(enough).to_bytes(enough, "big")
