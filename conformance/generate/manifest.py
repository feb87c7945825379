"""A manifest as text: indented, with flat lists on one line each."""
import json
import re


def text_of(entries):
    text = json.dumps({"format": 1, "vectors": entries}, indent=1)
    flat = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda m: "[" + re.sub(r"\s*\n\s*", " ", m[1]) + "]", text)
    assert json.loads(flat)["vectors"] == json.loads(text)["vectors"]
    return flat + "\n"
