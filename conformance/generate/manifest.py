"""A manifest as text: indented, with flat lists on one line each."""
import json
import re


def text_of(entries, hosts=()):
    parts = {"format": 1, "vectors": entries}
    if hosts:
        parts["hosts"] = hosts
    text = json.dumps(parts, indent=1)
    flat = re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda m: "[" + re.sub(r"\s*\n\s*", " ", m[1]) + "]", text)
    assert json.loads(flat) == json.loads(text)
    return flat + "\n"
