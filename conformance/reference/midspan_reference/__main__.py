"""Command line.

    python -m midspan_reference decode --model M.safetensors [--model N.safetensors ...]
           [--binding stream|messages] [--conceal never|end|overdue] [--host DIGEST]
           [--side FILE.json] [--join OFFSET [--index N]] [--out F.npz] STREAM
    python -m midspan_reference inspect [--binding stream|messages] [--join OFFSET [--index N]] STREAM
    python -m midspan_reference host FILE.safetensors [FILE.safetensors ...]

With --side the caller knows side indices: the file holds a list of [first index, [side indices]], in the
order in which the decoder asks; an answer that is not what is asked for, or none, is error 812.
With --join the header is read, and then what stands from OFFSET on; N is what a seek index says of it.

Prints one JSON object. Exit code 0: the whole stream was decoded; 2: an error; 1: usage.
A file of messages holds every message behind its length as u32le.
"""
import argparse
import hashlib
import json
import sys

import numpy as np

from . import container
from .decoder import CONCEALED, PENDING, Decoder
from .errors import MidspanError
from .host import host_digest
from .model import load


def unwrap(data):
    messages = []
    position = 0
    while position < len(data):
        n = int.from_bytes(data[position : position + 4], "little")
        if position + 4 + n > len(data):
            sys.exit("the file of messages is cut")
        messages.append(data[position + 4 : position + 4 + n])
        position += 4 + n
    return messages


def sha(parts):
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def summary(decoder):
    timeline = decoder.timeline
    known = [f for f in timeline if f.y is not None]
    return {
        "frames": len(timeline) - timeline.first,
        "w_sha256": sha(np.array(f.w, "<i2").tobytes() for f in timeline),
        "y_sha256": sha(np.array(f.y, "<i2").tobytes() for f in known),
        "hidden_sha256": sha(f.hidden.astype("<f4").tobytes() for f in known),
        "concealed": [i for i, f in timeline.numbered() if f.status == CONCEALED],
        "missing": [i for i, f in timeline.numbered() if f.status == PENDING],
        "unverifiable": sorted(decoder.unverifiable),
    }


def save(path, decoder):
    def ragged(rows, dtype):
        rows = [np.array(r, dtype) for r in rows]
        return np.concatenate(rows) if rows else np.zeros(0, dtype)

    timeline = decoder.timeline
    np.savez(
        path,
        w=ragged([f.w for f in timeline], np.int16),
        y=ragged([f.y if f.y is not None else [0] * f.model.e for f in timeline], np.int16),
        known=np.array([f.y is not None for f in timeline]),
        hidden=ragged([f.hidden if f.hidden is not None else [0] * f.model.e for f in timeline],
                      np.float32),
    )


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="midspan_reference")
    parser.exit_on_error = False
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("decode", "inspect"):
        sub = commands.add_parser(name)
        sub.add_argument("stream")
        sub.add_argument("--binding", choices=["stream", "messages"], default="stream")
        sub.add_argument("--join", type=int)
        sub.add_argument("--index", type=int)
        if name == "decode":
            sub.add_argument("--model", action="append", required=True)
            sub.add_argument("--conceal", choices=["never", "end", "overdue"], default="never")
            sub.add_argument("--host", type=bytes.fromhex)
            sub.add_argument("--side")
            sub.add_argument("--out")
    commands.add_parser("host").add_argument("files", nargs="+")
    try:
        options = parser.parse_args(arguments)
    except SystemExit as stop:
        return 1 if stop.code else 0
    except argparse.ArgumentError as fault:
        print(fault, file=sys.stderr)
        return 1
    if options.command == "host":
        try:
            print(json.dumps({"digest": host_digest(options.files).hex()}))
        except MidspanError as fault:
            print(json.dumps({"error": {"code": fault.code, "offset": fault.offset}, "reason": fault.text}))
            return 2
        return 0
    with open(options.stream, "rb") as file:
        data = file.read()
    messages = None
    if options.binding == "messages":
        messages = unwrap(data)
        data = b"".join(messages)
    events, decoder = [], None
    join = None if options.join is None else (options.join, options.index)
    try:
        if options.command == "inspect":
            for item in container.read(data, options.binding, messages, join):
                if isinstance(item, container.Chunk):
                    events.append({"kind": item.name, "offset": item.offset, "size": item.size,
                                   "index": item.index, "frames": item.frames})
            result = {"events": events}
        else:
            models = []
            for path in options.model:
                with open(path, "rb") as file:
                    models.append(load(file.read()))
            answers = []
            if options.side:
                with open(options.side) as file:
                    answers = json.load(file)
            decoder = Decoder(models, options.conceal, options.host, answers)
            events = decoder.events
            decoder.run(data, options.binding, messages, join)
            result = {"events": events, "reports": decoder.reports, "confirmed": decoder.confirmed,
                      "resume": decoder.resume, **summary(decoder)}
            if options.out:
                save(options.out, decoder)
    except MidspanError as fault:
        indices = {"confirmed": decoder.confirmed, "resume": decoder.resume} if decoder else {}
        print(json.dumps({"events": events, "error": {"code": fault.code, "offset": fault.offset},
                          "reason": fault.text, **indices}))
        return 2
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
