"""Runs a decoder over a manifest.

    python run.py [MANIFEST]                the reference decoder, in this process; without a manifest
                                            that of vectors/
    python run.py MANIFEST -- COMMAND ...   another one: COMMAND is run with the vector's arguments
    python run.py MANIFEST --cuts           also cuts every small stream at every byte (reference)

Options before `--`: --only TEXT (names that contain it), --jobs N. See README.md for the command's
arguments and answers. Exit code 0 if nothing failed, else 1.
"""
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "reference"))

SUMMARY = ("frames", "w_sha256", "y_sha256", "hidden_sha256", "concealed", "missing", "unverifiable")


def reference(arguments):
    from midspan_reference.__main__ import main

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(arguments)
    return code, out.getvalue()


def command_of(words):
    def run(arguments):
        done = subprocess.run(words + arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              timeout=120, check=False)
        return done.returncode, done.stdout.decode("utf-8", "replace")

    return run


def arguments_of(vector, folder, stream=None, inspect=False, place=None):
    """`place` is a folder for what the command reads from a file."""
    words = ["inspect"] if inspect else ["decode"]
    if not inspect:
        for path in vector["models"]:
            words += ["--model", os.path.join(folder, path)]
        words += ["--conceal", vector["conceal"]]
        if "host" in vector:
            words += ["--host", vector["host"]]
        if "side" in vector:
            path = os.path.join(place, vector["name"] + ".json")
            with open(path, "w") as file:
                json.dump(vector["side"], file)
            words += ["--side", path]
    if "join" in vector:
        words += ["--join", str(vector["join"]["offset"])]
        if vector["join"]["index"] is not None:
            words += ["--index", str(vector["join"]["index"])]
    return words + ["--binding", vector["binding"], stream or os.path.join(folder, vector["stream"])]


def judge(vector, code, text, inspect=False):
    """The reasons why the answer is wrong; None if the decoder does not support the vector."""
    if code == 127:
        return None
    try:
        answer = json.loads(text)
        # What becomes of an early target later is no chunk.
        kinds = [event["kind"] for event in answer["events"] if event["kind"] != "kept"]
    except (ValueError, KeyError, TypeError):
        return [f"exit code {code}, no answer"]
    expected = vector["expected"]
    wrong = []

    def same(what, have, want):
        if have != want:
            wrong.append(f"{what}: {have}, not {want}")

    if vector["valid"]:
        if code != 0:
            return [f"exit code {code}: {answer.get('error')} {answer.get('reason', '')}"]
        same("events", kinds, expected["events"])
        if not inspect:
            same("targets", [e["status"] for e in answer["events"] if "status" in e],
                 expected["target_status"])
            for key in ("reports", "confirmed", "resume"):
                if key in answer:
                    same(key, answer[key], expected[key])
            for key in SUMMARY:
                same(key, answer.get(key), expected[key])
    else:
        same("exit code", code, 2)
        error = answer.get("error") or {}
        if error.get("code") not in expected.get("others", ()):
            same("error", (error.get("code"), error.get("offset")),
                 (expected["code"], expected["offset"]))
        same("events", kinds, expected["events"])
        for key in ("confirmed", "resume"):
            if key in answer and key in expected:
                same(key, answer[key], expected[key])
    return wrong


def judge_host(host, run, folder):
    """The reasons why the digest of a host's weights is wrong; None if the decoder makes none."""
    code, text = run(["host", *(os.path.join(folder, path) for path in host["files"])])
    if code == 127:
        return None
    try:
        answer = json.loads(text)["digest"]
    except (ValueError, KeyError, TypeError):
        return [f"exit code {code}, no digest"]
    return [] if answer == host["digest"] else [f"digest {answer}, not {host['digest']}"]


def cuts(vector, folder):
    """[CHUNK-6]: every true prefix of a valid stream is truncated at its own length."""
    with open(os.path.join(folder, vector["stream"]), "rb") as file:
        data = file.read()
    wrong = []
    with tempfile.TemporaryDirectory() as place:
        path = os.path.join(place, "cut")
        for n in range(len(data)):
            with open(path, "wb") as file:
                file.write(data[:n])
            code, text = reference(arguments_of(vector, folder, path, inspect=True))
            error = json.loads(text).get("error")
            if code != 2 or error != {"code": 401, "offset": n}:
                wrong.append(f"cut at {n}: {error}")
    return wrong


def main(words):
    command = None
    if "--" in words:
        at = words.index("--")
        words, command = words[:at], words[at + 1 :]
    options = {"--only": "", "--jobs": "4"}
    flags = set()
    manifest = None
    while words:
        word = words.pop(0)
        if word in options and words:
            options[word] = words.pop(0)
        elif word == "--cuts":
            flags.add(word)
        elif manifest is None and not word.startswith("-"):
            manifest = word
        else:
            print(__doc__, file=sys.stderr)
            return 1
    if manifest is None:
        manifest = os.path.join(HERE, "vectors", "manifest.json")
    folder = os.path.dirname(os.path.abspath(manifest))
    with open(manifest) as file:
        listed = json.load(file)
    vectors = [v for v in listed["vectors"] if options["--only"] in v["name"]]
    hosts = [h for h in listed.get("hosts", []) if options["--only"] in h["name"]]
    tasks = []
    for vector in vectors:
        tasks.append((vector, False))
        if not command and (vector["valid"] or vector["container_only"]):
            tasks.append((vector, True))  # the container's rules need no model

    def work(task):
        vector, inspect = task
        run = command_of(command) if command else reference
        try:
            with tempfile.TemporaryDirectory() as place:
                code, text = run(arguments_of(vector, folder, inspect=inspect, place=place))
        except Exception as fault:  # a crash is a failure of this vector alone
            return [f"crashed: {fault!r}"]
        return judge(vector, code, text, inspect)

    if command:
        with ThreadPoolExecutor(int(options["--jobs"])) as pool:
            results = list(pool.map(work, tasks))
    else:
        results = [work(task) for task in tasks]
    for host in hosts:
        tasks.append((host, False))
        results.append(judge_host(host, command_of(command) if command else reference, folder))
    passed = failed = skipped = 0
    for (vector, inspect), wrong in zip(tasks, results):
        if wrong is None:
            skipped += 1
        elif wrong:
            failed += 1
            print(f"FAIL {vector['name']}{' (inspect)' if inspect else ''}: {'; '.join(wrong)[:400]}")
        else:
            passed += 1
    if "--cuts" in flags:
        for vector in vectors:
            size = os.path.getsize(os.path.join(folder, vector["stream"]))
            if vector["valid"] and vector["binding"] == "stream" and size < 1500 and "join" not in vector:
                wrong = cuts(vector, folder)
                failed += bool(wrong)
                passed += not wrong
                if wrong:
                    print(f"FAIL {vector['name']} (cuts): {'; '.join(wrong)[:400]}")
    print(f"{passed} passed, {failed} failed" + (f", {skipped} unsupported" if skipped else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
