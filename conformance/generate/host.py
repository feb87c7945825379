"""Host weights for 4.7: files of equal tensors, and the digest that a generator of its own makes of them."""
import hashlib
import json
import struct

from .models import wrap

# (name, dtype, its code, shape, data)
TENSORS = [
    ("head.weight", "F32", 6, [1, 2], struct.pack("<2f", 1.0, -2.0)),
    ("Head.weight", "BF16", 10, [2], bytes([0x80, 0x3F, 0x00, 0xC0])),
    ("head", "BOOL", 12, [], b"\1"),
]


def digest(tensors):
    """4.7"""
    text = b"midspan-host-1\n"
    for name, _, code, shape, data in sorted(tensors, key=lambda t: t[0].encode()):
        name = name.encode()
        text += struct.pack("<I", len(name)) + name + struct.pack("<BI", code, len(shape))
        text += b"".join(struct.pack("<Q", x) for x in shape) + data
    return hashlib.sha256(text).hexdigest()


def file(tensors, metadata=None):
    """A safetensors file with its tensors in the given order."""
    header = {} if metadata is None else {"__metadata__": metadata}
    data = b""
    for name, dtype, _, shape, piece in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(piece)]}
        data += piece
    return wrap(json.dumps(header, separators=(",", ":")), data)


def hosts():
    """(name, files, digest): each host's weights in one file or several."""
    first, second, third = TENSORS
    other = [(*second[:4], b"\x80\x3f\0\x40"), first, third]
    return [
        ("host", [file(TENSORS)], digest(TENSORS)),
        ("host-other-order", [file([third, first, second], {"format": "pt"})], digest(TENSORS)),
        ("host-two-files", [file([second]), file([third, first])], digest(TENSORS)),
        ("host-other-value", [file(other)], digest(other)),
    ]
