"""Files of tensors (.safetensors), and runs of the `midspan` program."""
import json
import subprocess

import numpy as np

KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U8": "|u1"}


def load(path, names=None):
    """Tensors by name; `names` limits which are read."""
    with open(path, "rb") as file:
        head = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        start, out = file.tell(), {}
        for name, entry in head.items():
            if name == "__metadata__" or names is not None and name not in names:
                continue
            begin, end = entry["data_offsets"]
            file.seek(start + begin)
            out[name] = np.frombuffer(file.read(end - begin), KINDS[entry["dtype"]]).reshape(entry["shape"])
    return out


def save(path, tensors):
    """Writes tensors by name."""
    names, head, at = {np.dtype(kind).str: name for name, kind in KINDS.items()}, {}, 0
    for name, array in tensors.items():
        head[name] = {"dtype": names[array.dtype.str], "shape": array.shape, "data_offsets": [at, at + array.nbytes]}
        at += array.nbytes
    head = json.dumps(head).encode()
    head += b" " * (-len(head) % 8)
    with open(path, "wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for array in tensors.values():
            file.write(np.ascontiguousarray(array).tobytes())


class Midspan:
    """The program at `path`."""

    def __init__(self, path):
        self.path = path

    def __call__(self, *words):
        """Standard output of a run."""
        done = subprocess.run([self.path, *map(str, words)], stdout=subprocess.PIPE, check=True)
        return done.stdout.decode()

    def json(self, *words):
        """Standard output of a run, parsed."""
        return json.loads(self(*words))
