"""Calls of an encoder, a line each, that `examples/rust.rs` makes in Rust and this file in Python."""

import ctypes
import struct

import numpy

import midspan

IDENTITY = b"identity"
INTEGERS = {"check", "lanes", "quality", "datagram_limit", "max_rewind"}


def settings(line):
    found = dict(word.split("=") for word in line.split(" ")[1:])
    found = {name: int(value) if name in INTEGERS else value for name, value in found.items()}
    if "rate_weight" in found:
        found["rate_weight"] = float(found["rate_weight"])
    return found


def bf16(values):
    """The upper halves of the bits, as bits."""
    return (values.view(numpy.uint32) >> 16).astype(numpy.uint16)


# Where a DLTensor has its parts, in bytes: data and device are 8 bytes each, ndim is 4.
DEVICE, DTYPE = 8, 20


def field(capsule, place, kind):
    """A part of the DLTensor in a capsule, to be read or written."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return kind.from_address(get(capsule, b"dltensor") + place)


class Bits:
    """bfloat16 values as an object that has nothing but DLPack, made of their bits with NumPy's own."""

    def __init__(self, bits):
        self.bits = bits

    def __dlpack__(self):
        capsule = self.bits.__dlpack__()
        # kDLBfloat.
        field(capsule, DTYPE, ctypes.c_uint8).value = 4
        return capsule


def encode(codec, hidden, script):
    """The output of an encoder; of messages each after its length."""
    first, *lines = script.splitlines()
    options = settings(first)
    encoder = midspan.Encoder(codec, identity=IDENTITY, **options)
    for line in lines:
        name, *words = line.split(" ")
        if name == "side":
            encoder.set_side([int(word) for word in words[1:]], words[0])
        elif name in ("push", "push_y"):
            rows = hidden[int(words[0]) : int(words[1])]
            if name == "push":
                encoder.push_hidden(rows)
            else:
                encoder.push_y(encoder.quantise(rows))
        elif name == "integers":
            y = (hidden[int(words[0]) : int(words[1])] * 4).astype(numpy.int16).clip(*codec.y_range)
            encoder.push_integers(y, numpy.full((len(y), codec.hyper_prior_width), codec.w_range[1], numpy.int16))
        elif name == "exact":
            row = hidden[int(words[1])]
            encoder.push_exact(Bits(bf16(row)) if words[0] == "bf16" else row)
        elif name == "quality":
            encoder.set_quality(int(words[0]))
        elif name == "rewind":
            encoder.rewind(int(words[0]))
        elif name == "extension":
            encoder.extension(int(words[0]), words[1].encode())
        else:
            {"reset": encoder.reset, "checkpoint": encoder.checkpoint, "end": encoder.end}[name]()
    if options.get("binding") == "message":
        return b"".join(struct.pack("<I", len(m.data)) + m.data for m in encoder.take_messages())
    return encoder.take_bytes()


def messages(stream):
    """The messages of a stream that has each after its length."""
    found = []
    while stream:
        (length,) = struct.unpack_from("<I", stream)
        found.append(stream[4 : 4 + length])
        stream = stream[4 + length :]
    return found


def _hex(array):
    return "" if array is None else array.tobytes().hex()


def line(event):
    """An event as `examples/rust.rs` prints it."""
    name = event.name
    if isinstance(event, midspan.Opened):
        header = event.header
        return f"{name} {header.identity.hex()} {header.quality} {header.max_rewind}"
    if isinstance(event, (midspan.Frames, midspan.ExactFrame)):
        text = f"{name} {event.index} {event.count} {_hex(event.hidden)} {_hex(event.w)} {_hex(event.y)}"
        return text + (f" {event.data.hex()}" if isinstance(event, midspan.ExactFrame) else "")
    if isinstance(event, midspan.HyperPrior):
        return f"{name} {event.index} {event.count}  {_hex(event.w)} "
    if isinstance(event, midspan.Targets):
        return f"{name} {event.index} {event.count} {_hex(event.hidden)}  {_hex(event.y)}"
    if isinstance(event, midspan.TargetPart):
        return f"{name} {event.index} {event.first_element} {event.end_element}"
    if isinstance(event, midspan.SideIndices):
        return f"{name} {event.index} {event.indices.tolist()}"
    if isinstance(event, midspan.Verdict):
        return f"{name} {event.index} {event.end_index}"
    if isinstance(event, midspan.Quality):
        return f"{name} {event.quality}"
    if isinstance(event, midspan.Extension):
        return f"{name} {event.id} {event.data.hex()}"
    if isinstance(event, midspan.Ended):
        return f"{name} {event.index} {event.frames_coded}"
    if isinstance(event, midspan.SideWanted):
        return f"{name} {event.index} {event.count}"
    return f"{name} {event.index}"


def decode(codec, script, stream):
    """The lines of a decoder's events."""
    binding = settings(script.splitlines()[0]).get("binding", "byte_stream")
    decoder = midspan.Decoder(codec, binding=binding, keep_integers=True)
    if binding == "message":
        for message in messages(stream):
            decoder.push_message(message)
    else:
        decoder.push(stream)
    decoder.finish()
    lines = []
    for event in decoder.events():
        lines.append(line(event))
        if isinstance(event, midspan.SideWanted):
            decoder.give_side([index % 3 for index in range(event.index, event.index + event.count)])
    return lines
