"""4.7: the digest of a host's weights, over one or several safetensors files.

The files are read in pieces: they may be larger than memory.
"""
import hashlib
import json
import os

from .conventions import u32le, u64le
from .errors import MidspanError

PREFIX = b"midspan-host-1\n"
# dtype -> (code, bits of a value)
DTYPES = {
    "I8": (0, 8), "U8": (1, 8), "I16": (2, 16), "U16": (3, 16), "I32": (4, 32), "I64": (5, 64),
    "F32": (6, 32), "U32": (7, 32), "U64": (8, 64), "F16": (9, 16), "BF16": (10, 16), "F64": (11, 64),
    "BOOL": (12, 8), "F8_E4M3": (13, 8), "F8_E5M2": (14, 8), "F8_E8M0": (15, 8),
    "F8_E4M3FNUZ": (16, 8), "F8_E5M2FNUZ": (17, 8), "F6_E2M3": (18, 6), "F6_E3M2": (19, 6),
    "F4": (20, 4), "C64": (21, 64),
}
BLOCK = 1 << 16


def bad(text):
    return MidspanError(802, 0, text)


def tensors_of(path):
    """(name, dtype, shape, path, first byte, bytes) of each tensor in a file."""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > os.path.getsize(path) - 8:
            raise bad(f"{path}: no safetensors file")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    for name, entry in header.items():
        first, behind = entry["data_offsets"]
        yield name, entry["dtype"], entry["shape"], path, 8 + length + first, behind - first


def host_digest(paths):
    """The 32 bytes of a stream header's host digest."""
    tensors = sorted((t for path in paths for t in tensors_of(path)), key=lambda t: t[0].encode())
    names = [t[0] for t in tensors]
    if len(set(names)) < len(names) or not names:
        raise bad("a name stands twice, or there are no weights")
    digest = hashlib.sha256(PREFIX)
    for name, dtype, shape, path, first, size in tensors:
        if dtype not in DTYPES:
            raise bad(f"{name}: unknown dtype {dtype}")
        code, bits = DTYPES[dtype]
        for x in shape:
            bits *= x
        if bits != 8 * size:
            raise bad(f"{name}: {size} bytes for {dtype} {shape}")
        text = name.encode()
        digest.update(u32le(len(text)) + text + bytes([code]) + u32le(len(shape)))
        digest.update(b"".join(u64le(x) for x in shape))
        with open(path, "rb") as file:
            file.seek(first)
            while size:
                block = file.read(min(size, BLOCK))
                if not block:
                    raise bad(f"{path}: cut")
                digest.update(block)
                size -= len(block)
    return digest.digest()
