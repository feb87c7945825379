#!/usr/bin/env python3
"""Fills fuzz/corpus/<target>/ from the conformance vectors."""
import json
import pathlib
import shutil

root = pathlib.Path(__file__).resolve().parent
vectors = root.parent / "conformance" / "vectors"
path = vectors / "manifest.json"
manifest = json.loads(path.read_text()) if path.exists() else {"vectors": []}
targets = {name: root / "corpus" / name for name in ("reader", "split_independence", "model_file", "decoder_session")}
for folder in targets.values():
    folder.mkdir(parents=True, exist_ok=True)
for vector in manifest["vectors"]:
    stream = vectors / vector["stream"]
    # The first byte selects the binding in the stream targets: even for bytes, odd for messages.
    binding = 1 if vector["binding"] == "messages" else 0
    for name in ("reader", "split_independence", "decoder_session"):
        (targets[name] / stream.name).write_bytes(bytes([binding]) + stream.read_bytes())
for model in sorted(vectors.glob("**/*.safetensors")):
    shutil.copy(model, targets["model_file"] / model.name)
