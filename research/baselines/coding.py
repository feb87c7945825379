"""What integers [T, E] cost: by general compressors (real bytes) and by static tables (ideal code lengths)."""
import bz2
import lzma

import numpy as np

WITHOUT = []  # compressors whose module is missing


def compressors():
    """Name -> function from bytes to compressed bytes. brotli, zstandard and pyppmd are modules of their own."""
    found = {
        "bz2 -9": lambda data: bz2.compress(data, 9),
        "xz -9e": lambda data: lzma.compress(data, lzma.FORMAT_XZ, lzma.CHECK_NONE, 9 | lzma.PRESET_EXTREME),
    }
    try:
        import brotli
        found["brotli 11"] = lambda data: brotli.compress(data, quality=11, lgwin=24)
    except ImportError:
        WITHOUT.append("brotli")
    try:
        import zstandard
        found["zstd -22"] = zstandard.ZstdCompressor(level=22, write_checksum=False).compress
    except ImportError:
        WITHOUT.append("zstandard")
    try:
        import pyppmd
        for order in (2, 4):
            def ppmd(data, order=order):
                encoder = pyppmd.Ppmd7Encoder(order, 64 << 20)
                return encoder.encode(data) + encoder.flush()
            found[f"PPMd H, order {order}"] = ppmd
    except ImportError:
        WITHOUT.append("pyppmd")
    return found


def forms(integers):
    """Integers [T, E] as bytes, in every form that may suit a compressor best: frame by frame, and channel by channel;
    one byte each, or where one does not fit, the byte 128 before its two bytes; and, where one in ten does not fit, all
    low bytes before all high bytes."""
    out = {}
    for layout, values in (("rows", integers), ("planes", integers.T)):
        values = np.ascontiguousarray(values).ravel().astype("<i2")
        fits = np.abs(values) < 128
        pairs = values.view(np.uint8).reshape(-1, 2)  # [T E, 2]: low, high
        three = np.concatenate([np.where(fits, pairs[:, 0], 128)[:, None].astype(np.uint8), pairs], 1)  # [T E, 3]
        keep = np.stack([np.ones_like(fits), ~fits, ~fits], 1)
        out[f"{layout}, bytes"] = three[keep].tobytes()
        if fits.mean() < 0.9:
            out[f"{layout}, low and high bytes apart"] = pairs.T.tobytes()
    return out


def size(compress, form, parts):
    """Bytes of all parts. A part that lacks a form with wide integers is counted in bytes."""
    return sum(len(compress(part.get(form) or part[form.split(",")[0] + ", bytes"])) for part in parts)


def each(parts):
    """Bits a frame of every compressor in the form that suits it best, [T, E] each part."""
    frames, parts = sum(map(len, parts)), [forms(part) for part in parts]
    out = {}
    for name, compress in compressors().items():
        for form in sorted(set().union(*parts)):
            bits = 8 * size(compress, form, parts) / frames
            if name not in out or bits < out[name]["bits"]:
                out[name] = {"bits": bits, "form": form}
    return out


def best(found):
    """The compressor that takes the fewest bits: its name and bits."""
    return min(((name, value["bits"]) for name, value in found.items()), key=lambda pair: pair[1])


def sequences_alone(integers, sequence, share=8):
    """Each sequence compressed alone. All compressors get one in `share` of the sequences; the one that takes the
    fewest bits there gets all of them, in the same form."""
    sequences = [integers[i:i + sequence] for i in range(0, len(integers), sequence)]
    some = each(sequences[::share])
    name, _ = best(some)
    parts = [forms(part) for part in sequences]
    bits = 8 * size(compressors()[name], some[name]["form"], parts) / len(integers)
    return {"bits": bits, "name": name, "form": some[name]["form"], f"one sequence in {share}": some}


def all_together(integers):
    """All frames compressed as one."""
    found = each([integers])
    name, bits = best(found)
    return {"bits": bits, "name": name, "form": found[name]["form"], "each": found}


class Tables:
    """A static table a channel: a histogram of integers [T, E] with 1/2 added to each count. A value outside the range
    of 99.9 % of them takes an escape, and its distance from the range an Elias gamma code with a sign."""

    def __init__(self, integers):
        self.channels = []
        for values in integers.T:
            low, high = (int(v) for v in np.percentile(values, [0.05, 99.95], method="nearest"))
            index = np.where((values < low) | (values > high), 0, values - low + 1).astype(np.int64)
            counts = np.bincount(index, minlength=high - low + 2) + 0.5
            self.channels.append((low, high, -np.log2(counts / counts.sum())))

    def bits(self, integers):
        """Bits a frame, −log2 of the tables' probabilities."""
        total = 0.0
        for (low, high, cost), values in zip(self.channels, integers.T):
            beyond = np.maximum(np.maximum(low - values, values - high), 0).astype(np.int64)
            total += cost[np.where(beyond > 0, 0, values - low + 1).astype(np.int64)].sum()
            total += (2 * np.floor(np.log2(beyond[beyond > 0])) + 2).sum()
        return float(total / len(integers))
