"""Chapter 1: integers, varints, CRC."""
import zlib

from .errors import MidspanError

U32 = 2**32 - 1
VARINT_MAX = 2**56 - 1


def crc32(data):
    return zlib.crc32(data) & 0xFFFFFFFF


def u16le(n):
    return n.to_bytes(2, "little")


def u32le(n):
    return n.to_bytes(4, "little")


def u64le(n):
    return n.to_bytes(8, "little")


def clamp(x, lo, hi):
    return lo if x < lo else hi if x > hi else x


def round_shift(x, s):
    """Works for Python integers and for int64 arrays alike."""
    return (x + (1 << (s - 1))) >> s


class Bytes:
    """A cursor over data[position : end]; `short` makes the error for a field that does not fit.

    `short` is called with the offset of the field's first byte.
    """

    def __init__(self, data, position, end, short):
        self.data = data
        self.position = position
        self.end = end
        self.short = short

    def left(self):
        return self.end - self.position

    def take(self, n):
        if self.left() < n:
            raise self.short(self.position)
        piece = self.data[self.position : self.position + n]
        self.position += n
        return piece

    def u8(self):
        return self.take(1)[0]

    def uint(self, n):
        return int.from_bytes(self.take(n), "little")

    def varint(self, lo=0, hi=VARINT_MAX, out_of_range=103):
        """[VARINT-1] [VARINT-2] [VARINT-3]"""
        start = self.position
        if self.left() < 1:
            raise self.short(start)
        first = self.data[start]
        if first == 0xFF:
            raise MidspanError(102, start, "varint begins with 0xFF")
        n = 8 - (first ^ 0xFF).bit_length()  # leading one bits = bytes that follow
        if self.left() < 1 + n:
            raise self.short(start)
        value = first & (0x7F >> n)
        for byte in self.data[start + 1 : start + 1 + n]:
            value = value << 8 | byte
        if n > 0 and value < 1 << 7 * n:
            raise MidspanError(101, start, "varint is not the shortest")
        if not lo <= value <= hi:
            raise MidspanError(out_of_range, start, f"{value} is outside {lo} ... {hi}")
        self.position = start + 1 + n
        return value
