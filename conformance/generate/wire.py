"""Small pieces of bytes."""
import zlib


def le(value, size):
    return value.to_bytes(size, "little")


def crc(data):
    return zlib.crc32(data)


def varint(value, size=None):
    """1.2; `size` forces a longer form, for vectors that break [VARINT-1]."""
    if size is None:
        size = next(n for n in range(1, 9) if value < 1 << 7 * n)
    prefix = (0xFF << (9 - size)) & 0xFF  # size - 1 one bits, then a zero bit
    return ((prefix << 8 * (size - 1)) | value).to_bytes(size, "big")


def bits_to_bytes(bits):
    bits = bits + "0" * (-len(bits) % 8)
    return int("1" + bits, 2).to_bytes(len(bits) // 8 + 1, "big")[1:] if bits else b""
