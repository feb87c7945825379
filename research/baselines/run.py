"""Baselines for Midspan on one host, at equal distortion. README.md says what is measured, and how.

    python run.py default --midspan PROGRAM --model FOLDER --train TEXT --text TEXT --work FOLDER --out FILE.json
    python run.py stories --midspan PROGRAM --data FOLDER --states FOLDER --work FOLDER --out FILE.json
    python run.py kinds --midspan PROGRAM --out FILE.json NAME=TEXT ...
"""
import argparse
import glob
import json
import os
import sys

import numpy as np

import chart
import coding
from files import Midspan, load, save
from maps import Mapped, coded_rows, eigenbasis, rotated_codes, rotation, weighted_eigenbasis

CALIBRATED = "eigenbasis, Fisher weights, Y by rate"
WITH_TOKENS = CALIBRATED + ", tokens known"
FACTOR = 10**0.5  # between the distortions of a curve's neighbouring points


class Kept:
    """Parts of a result in a folder, each made once, so that a run that was ended goes on."""

    def __init__(self, folder):
        self.folder = folder
        os.makedirs(folder, exist_ok=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def __call__(self, name, make):
        path = self.path(name + ".json")
        if not os.path.exists(path):
            value = make()
            with open(path, "w") as file:
                json.dump(value, file)
            print(name, json.dumps(value)[:200], flush=True)
        with open(path) as file:
            return json.load(file)


def curve(kept, name, mapped, judge, low, high):
    """Points of one map from a divergence below `low` to one above `high`."""
    def point(share):
        def make():
            step = mapped.steps([share])[0]
            bits, hidden = mapped.at(step)
            return {"step": step, "bits": bits} | judge(hidden)
        return kept(f"{name} {share:.5f}", make)

    points, share = [point(0.01)], 0.01
    while points[0]["divergence"] > low:
        share /= FACTOR
        points.insert(0, point(share))
    share = 0.01
    while points[-1]["divergence"] < high and share < 0.5:
        share *= FACTOR
        points.append(point(share))
    return points


def at(points, divergence):
    """Bits at a divergence: straight lines over its logarithm; None outside the points."""
    d = np.log([p["divergence"] for p in points])
    bits = np.interp(np.log(divergence), d, [p["bits"] for p in points], left=np.nan, right=np.nan)
    return None if np.isnan(bits) else float(bits)


def of_integers(kept, name, train, valid, sequence):
    """What a codec's own integers [T, E] cost by other coders: the same distortion."""
    return {
        "static tables a channel": kept(f"{name}, tables", lambda: coding.Tables(train()).bits(valid())),
        "general compressor, a sequence alone":
            kept(f"{name}, alone", lambda: coding.sequences_alone(valid(), sequence)),
        "general compressor, all frames together": kept(f"{name}, together", lambda: coding.all_together(valid())),
    }


def compare(points, curves, fixed):
    """For each point of a codec: bits of every baseline at its distortion, and what share the codec takes."""
    for point in points:
        others = {name: found["bits"] if isinstance(found, dict) else found
                  for name, found in point["integers"].items()}
        others |= {name: at(curve, point["divergence"]) for name, curve in curves.items()}
        others |= {name: at(points, point["divergence"]) for name, points in fixed.items() if len(points) > 1}
        point["baselines"] = others
        point["share"] = {name: point["bits"] / bits for name, bits in others.items() if bits}
    return points


def maps_of(train, valid, weighted):
    return {
        "eigenbasis": Mapped(train, valid, eigenbasis(train)),
        "eigenbasis, Fisher weights": Mapped(train, valid, weighted),
        "random rotation": Mapped(train, valid, rotation(train.shape[1])),
    }


def default(args):
    """The embedded model, whose host was trained with its codec."""
    midspan, kept, frames = Midspan(args.midspan), Kept(args.work), ["--frames", args.frames]
    states = {part: kept.path(part + ".safetensors") for part in ("train", "valid")}
    for part, text, count in (("train", args.train, args.train_frames), ("valid", args.text, args.frames)):
        if not os.path.exists(states[part]):
            midspan("eval", "--text", text, "--frames", count, "--export", states[part])
    train, valid = (load(path, ["hidden"])["hidden"].astype(np.float64) for path in states.values())
    reports = kept("codec", lambda: midspan.json(
        "eval", "--text", args.text, *frames, "--quality", "all", "--batch", "1,128"))
    sequence, points = reports[0]["sequence_frames"], []

    def integers(part, quality, name="y"):
        """Y of a part, as the codec chooses it, or its W."""
        path, stream = kept.path(f"{part}.y{quality}.safetensors"), kept.path("stream.msp")
        if not os.path.exists(path):
            midspan("encode", states[part], "-o", stream, "--quality", quality, "--reset-every", sequence)
            midspan("decode", stream, "-o", path)
        return load(path, [name])[name].astype(np.int64)

    for report in reports:
        quality = report["quality"]
        bits = {batch["batch"]: batch["bits"] for batch in report["batches"]}
        points.append({
            "quality": quality, "bits": bits[1], "bits in chunks of 128 frames": bits[128],
            "divergence": report["divergence"], "agreement": report["greedy_agreement"],
            "perplexity": report["perplexity_through_codec"],
            "integers": of_integers(kept, f"quality {quality}", lambda: integers("train", quality),
                                    lambda: integers("valid", quality), sequence),
            "W": {"the codec's tables": report["batches"][-1]["hyper_prior_bits"],
                  "static tables a channel": coding.Tables(integers("train", quality, "w")).bits(
                      integers("valid", quality, "w"))},
        })

    def judge(hidden):
        path = kept.path("received.safetensors")
        save(path, {"hidden": hidden.astype("<f4")})
        found = midspan.json("eval", "--text", args.text, *frames, "--received", path)
        return {"divergence": found["divergence"], "agreement": found["greedy_agreement"],
                "distortion": found["distortion"]}

    # The sensitivity needs the host's gradients. `calibrate` takes them, and its codec's maps are this basis.
    codec = kept.path("calibrated.safetensors")
    if not os.path.exists(codec):
        midspan("calibrate", "--host", args.model, "--text", args.train, "--no-side", "--out", codec)
    found = load(codec, ["encoder.analysis", "decoder.synthesis", "decoder.quality.step"])
    step = found["decoder.quality.step"][-1].astype(np.float64)  # [E]
    weighted = (found["encoder.analysis"].T / step, (found["decoder.synthesis"] * step).T)
    low, high = (f(p["divergence"] for p in points) for f in (min, max))
    curves = {name: curve(kept, name, mapped, judge, low, high)
              for name, mapped in maps_of(train, valid, weighted).items()}
    links = reports[0]["without_codec"]
    fixed = {}
    for bits in (8, 4):
        link = links[f"int{bits} rows"]
        same = {"divergence": link["divergence"], "agreement": link["greedy_agreement"]}
        fixed[f"int{bits} rows"] = [{"bits": link["bits"]} | same]
        fixed[f"int{bits} rows, static tables"] = [{"bits": coded_rows(train, valid, bits)[0]} | same]

    def calibrated(codec, quality, side):
        """The same basis and static tables as a codec of the project: real bytes, Y chosen by rate."""
        stream, out = kept.path("calibrated.msp"), kept.path("calibrated.out.safetensors")
        midspan("encode", states["valid"], "-o", stream, "--model", codec, "--quality", quality, "--check", 0,
                "--reset-every", sequence, *(["--side-known"] if side else []))
        midspan("decode", stream, "-o", out, "--model", codec, *(["--side", states["valid"]] if side else []))
        return {"bits": 8 * os.path.getsize(stream) / len(valid)} | judge(load(out, ["hidden"])["hidden"])
    qualities = reversed(range(len(found["decoder.quality.step"])))
    fixed[CALIBRATED], fixed[WITH_TOKENS] = [], []
    informed = kept.path("calibrated.tokens.safetensors")
    if not os.path.exists(informed):
        midspan("calibrate", "--host", args.model, "--text", args.train, "--out", informed)
    for quality in qualities:
        fixed[CALIBRATED].append(kept(f"calibrated {quality}", lambda: calibrated(codec, quality, False)))
        fixed[WITH_TOKENS].append(kept(f"calibrated, tokens {quality}", lambda: calibrated(informed, quality, True)))

    def codes(bits):
        size, hidden = rotated_codes(train, valid, bits)
        return {"bits": size} | judge(hidden)
    fixed["random rotation, codes of 2 to 5 bits"] = [kept(f"codes {bits}", lambda: codes(bits)) for bits in (5, 4, 3, 2)]
    return {"host": "default model", "frames": args.frames, "train frames": args.train_frames,
            "codec": compare(points, curves, fixed), "curves": curves, "points": fixed}


def stories(args):
    """stories260K, whose weights do not change: codecs of `midspan calibrate`, judged with PyTorch."""
    sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "experiments"))
    import judge as experiments
    name = f"stories-s{args.split}"
    midspan, kept = Midspan(args.midspan), Kept(args.work)
    files = {part: os.path.join(args.states, f"{name}.{part}.safetensors") for part in ("train", "valid")}
    captures = {part: load(path) for part, path in files.items()}
    train, valid = (captures[part]["hidden"].astype(np.float64) for part in ("train", "valid"))
    judged = experiments.Judge(name, args.states, args.data)

    def judge(hidden):
        found = judged(hidden.astype(np.float32))
        distortion = ((hidden - valid) ** 2).sum() / ((valid - valid.mean(0)) ** 2).sum()
        return {"divergence": found["divergence"], "agreement": found["agreement"], "distortion": float(distortion)}

    sequence, points = int(captures["valid"]["starts"][1]), []
    for kind, options in (("static", ["--no-side"]), ("with tokens", ["--vocabulary", 512])):
        codec = kept.path(f"{kind}.codec.safetensors")
        report = kept(f"calibrate {kind}", lambda: midspan.json(
            "calibrate", "--states", files["train"], *options, "--out", codec, "--json"))
        for quality in range(len(report["qualities"])):
            def coded(part, batch):
                """Bits a frame, Y and the hidden states that come back. Both ends know the tokens."""
                out, stream = kept.path("decoded.safetensors"), kept.path("stream.msp")
                side = [] if kind == "static" else ["--side", files[part]]
                known = side and [*side, "--side-known"]
                midspan("encode", files[part], "-o", stream, "--model", codec, "--quality", quality, "--batch", batch,
                        "--reset-every", sequence, "--check", 0, *known)
                midspan("decode", stream, "-o", out, "--model", codec, *side)
                decoded = load(out, ["y", "hidden"])
                return 8 * os.path.getsize(stream) / len(decoded["y"]), decoded["y"].astype(np.int64), decoded["hidden"]

            def point():
                bits, y, hidden = coded("valid", 1)
                return {"codec": kind, "quality": quality, "bits": bits,
                        "bits in chunks of 128 frames": coded("valid", 128)[0]} | judge(hidden)
            name = f"{kind} {quality}"
            points.append(kept(f"{name}, codec", point))
            points[-1]["integers"] = of_integers(kept, name, lambda: coded("train", 128)[1],
                                                 lambda: coded("valid", 128)[1], sequence)
    low, high = (f(p["divergence"] for p in points) for f in (min, max))
    weighted = weighted_eigenbasis(train, captures["train"]["sensitivity"].astype(np.float64))
    curves = {which: curve(kept, which, mapped, judge, low, high)
              for which, mapped in maps_of(train, valid, weighted).items()}
    fixed = {}
    for bits in (8, 4):
        size, hidden = coded_rows(train, valid, bits)
        same = judge(hidden)
        fixed[f"int{bits} rows"] = [{"bits": bits * train.shape[1] + 16} | same]
        fixed[f"int{bits} rows, static tables"] = [{"bits": size} | same]

    def codes(bits):
        size, hidden = rotated_codes(train, valid, bits)
        return {"bits": size} | judge(hidden)
    fixed["random rotation, codes of 2 to 5 bits"] = [codes(bits) for bits in (5, 4, 3, 2)]
    if args.fit:
        fixed["midspan fit, 512 frames a chunk"] = fitted(args.fit, args.split)
    return {"host": f"stories260K, split {args.split}", "frames": len(valid), "train frames": len(train),
            "codec": compare(points, curves, fixed), "curves": curves, "points": fixed}


def fitted(folder, split):
    """Points of codecs that `midspan fit` learned, from its results: on 66,352 frames that begin with the held-out ones."""
    out = []
    for path in glob.glob(os.path.join(folder, f"plain-split{split}-*.json")):
        with open(path) as file:
            found = json.load(file)["frozen"]
        out.append({"bits": max(found["batches"], key=lambda batch: batch["batch"])["bits"],
                    "divergence": found["divergence"], "agreement": found["greedy_agreement"]})
    return sorted(out, key=lambda point: point["divergence"])


def kinds(args):
    """Bytes a frame at the finest quality by kind of text."""
    midspan, out = Midspan(args.midspan), []
    for pair in args.texts:
        name, path = pair.split("=", 1)
        report = midspan.json("eval", "--text", path, "--frames", args.frames, "--quality", args.quality)
        batch = report["batches"][0]
        out.append({"kind": name, "frames": report["frames"], "bytes a frame": batch["bits"] / 8,
                    "agreement": report["greedy_agreement"], "divergence": report["divergence"]})
        print(json.dumps(out[-1]), flush=True)
    return {"quality": args.quality, "kinds": out}


def table(result):
    """The result as a table of Markdown: bits a frame at the codec's distortion."""
    names = list(dict.fromkeys(name for point in result["codec"] for name in point["baselines"]))
    lines = ["| quality | divergence | codec, one frame a chunk | " + " | ".join(names) + " |",
             "| --- " * (3 + len(names)) + "|"]
    for point in result["codec"]:
        cells = [f"{point['baselines'][name]:.1f} ({100 * point['share'][name]:.0f} %)"
                 if point["baselines"][name] else "–" for name in names]
        title = f"{point.get('codec', '')} {point['quality']}".strip()
        lines.append(f"| {title} | {point['divergence']:.5f} | {point['bits']:.1f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for make in (default, stories, kinds):
        command = commands.add_parser(make.__name__, help=make.__doc__)
        command.set_defaults(make=make)
        command.add_argument("--midspan", required=True, help="the program")
        command.add_argument("--out", required=True, help="the result, JSON; the picture gets .svg in place of .json")
        if make is not kinds:
            command.add_argument("--work", required=True, help="folder for what is made on the way")
    command = commands.choices["default"]
    command.add_argument("--model", required=True, help="folder of the embedded model, crates/midspan-cli/model")
    command.add_argument("--train", required=True, help="text that tables are fitted on")
    command.add_argument("--text", required=True, help="held-out text")
    command.add_argument("--train-frames", type=int, default=49_152)
    command.add_argument("--frames", type=int, default=20_480)
    command = commands.choices["stories"]
    command.add_argument("--states", required=True, help="folder of captures, of research/experiments/capture.py")
    command.add_argument("--data", required=True, help="folder with the public weights")
    command.add_argument("--split", type=int, default=2)
    command.add_argument("--fit", help="folder of results of midspan fit on the same host")
    command = commands.choices["kinds"]
    command.add_argument("--quality", type=int, default=5)
    command.add_argument("--frames", type=int, default=4_096)
    command.add_argument("texts", nargs="+", metavar="NAME=TEXT")
    args = parser.parse_args()
    result = args.make(args)
    if coding.WITHOUT:
        result["compressors without their module"] = sorted(set(coding.WITHOUT))
    with open(args.out, "w") as file:
        json.dump(result, file, indent=1)
        file.write("\n")
    if args.make is not kinds:
        chart.draw(args.out.replace(".json", ".svg"), result)
        print(table(result))


if __name__ == "__main__":
    main()
