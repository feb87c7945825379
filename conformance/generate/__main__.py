"""python -m generate OUTDIR: models, streams and manifest.json."""
import os
import sys

from . import host, vectors
from .ledger import reports
from .manifest import text_of


def main():
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 1
    out = sys.argv[1]
    for part in ("hosts", "models", "streams"):
        os.makedirs(os.path.join(out, part), exist_ok=True)

    def write(path, data):
        with open(os.path.join(out, path), "wb") as file:
            file.write(data)

    for name, model in vectors.build_models().items():
        write(f"models/{name}.safetensors", model.tensors.file())
    manifest = []
    names = set()
    for name, text, rules, models, options, make in vectors.VECTORS:
        assert name not in names, name
        names.add(name)
        paths = [f"models/{m}.safetensors" for m in models]
        if "model_file" in options:
            paths = [f"models/{name}.safetensors"]
            write(paths[0], options["model_file"]())
        stream = make()
        code = options.get("code")
        assert (code is None) == (stream.fault_offset is None), name
        entry = {
            "name": name, "description": text, "rules": rules, "models": paths,
            "binding": stream.binding, "conceal": options.get("conceal") or "never",
            "stream": f"streams/{name}.bin", "valid": code is None,
        }
        if stream.joined:
            entry["join"] = dict(zip(("offset", "index"), stream.joined))
        if "host" in options:
            entry["host"] = options["host"].hex()
        if stream.answers:
            entry["side"] = stream.answers
        if code is None:
            entry["container_only"] = False
            entry["expected"] = stream.expected(entry["conceal"])
        else:
            entry["container_only"] = bool(options.get("container"))
            entry["expected"] = {"code": code, "offset": stream.fault_offset,
                                 "events": stream.fault_kinds}
            if options.get("indices"):  # what holds where the stream is cut off
                _, *indices = reports(stream.log, entry["conceal"], len(stream.unverifiable))
                entry["expected"].update(zip(("confirmed", "resume"), indices))
            if options.get("others"):
                entry["expected"]["others"] = options["others"]
        write(entry["stream"], stream.wrapped())
        manifest.append(entry)
    hosts = []
    for name, files, digest in host.hosts():
        paths = [f"hosts/{name}{f'-{i}' if len(files) > 1 else ''}.safetensors" for i in range(len(files))]
        for path, data in zip(paths, files):
            write(path, data)
        hosts.append({"name": name, "files": paths, "digest": digest})
    with open(os.path.join(out, "manifest.json"), "w") as file:
        file.write(text_of(manifest, hosts))
    valid = sum(e["valid"] for e in manifest)
    print(f"{len(manifest)} vectors: {valid} valid, {len(manifest) - valid} invalid")
    return 0


if __name__ == "__main__":
    sys.exit(main())
