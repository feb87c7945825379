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


def general(integers, sequence, share=8):
    """What the compressors take of integers [T, E]. All of them get one in `share` of the sequences, each sequence
    alone and all together, in every form; the one that takes the fewest bits gets all frames. Bits a frame."""
    sequences = [integers[i:i + sequence] for i in range(0, len(integers), sequence)]
    some, found, best = sequences[::share], {}, None
    for unit, parts in (("a sequence each", some), ("all together", [np.concatenate(some)])):
        frames, parts = sum(map(len, parts)), [forms(part) for part in parts]
        for name, compress in compressors().items():
            for form in sorted(set().union(*parts)):
                bits = 8 * size(compress, form, parts) / frames
                key = f"{name}, {unit}"
                if key not in found or bits < found[key]["bits"]:
                    found[key] = {"bits": bits, "form": form}
                if best is None or bits < best[0]:
                    best = (bits, name, form, unit)
    _, name, form, unit = best
    parts = [forms(part) for part in (sequences if unit == "a sequence each" else [integers])]
    bits = 8 * size(compressors()[name], form, parts) / len(integers)
    return {"best": {"bits": bits, "name": name, "form": form, "unit": unit}, f"one sequence in {share}": found}


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
