"""Every conformance vector, and the annotated streams of the specification, decoded by the package."""

import hashlib
import json
from pathlib import Path

import pytest
from conftest import ROOT

import midspan

FOLDERS = [ROOT / "conformance/vectors", ROOT / "spec/examples"]
VECTORS = [
    (folder, vector) for folder in FOLDERS for vector in json.loads((folder / "manifest.json").read_text())["vectors"]
]
# Streams are handed in whole, byte by byte, and in pieces of seven; messages are whole in any case.
WHOLE = 1 << 30
CASES = [
    pytest.param(folder, vector, cut, id=f"{vector['name']}-{name}")
    for folder, vector in VECTORS
    for name, cut in [("whole", WHOLE), ("bytes", 1), ("sevens", 7)]
    if cut == WHOLE or vector["binding"] == "stream"
]


def parts_of(vector, stream, cut):
    """The pieces of a stream that are handed in."""
    skip = vector.get("join", {}).get("offset", 0)
    if vector["binding"] == "stream":
        stream = stream[skip:]
        return [stream[at : at + cut] for at in range(0, len(stream), cut)]
    found, at = [], 0
    while stream:
        length = int.from_bytes(stream[:4], "little")
        found += [stream[4 : 4 + length]] if at >= skip else []
        at += length
        stream = stream[4 + length :]
    return found


def header_of(vector, stream):
    return stream if vector["binding"] == "stream" else stream[4 : 4 + int.from_bytes(stream[:4], "little")]


class Timeline:
    """What is left of a stream's frames, and the reports of its events."""

    def __init__(self):
        self.w, self.y, self.concealed, self.statuses, self.reports = {}, {}, set(), [], []

    def add(self, event):
        name = event.name
        if isinstance(event, (midspan.Frames, midspan.ExactFrame)):
            hidden = event.hidden if isinstance(event, midspan.Frames) else event.exact[None]
            for place in range(event.count):
                self.w[event.index + place] = event.w[place].tobytes()
                self.y[event.index + place] = event.y[place].tobytes(), hidden[place].tobytes()
            report = [name, event.index] + ([event.count] if name == "frames" else [])
        elif isinstance(event, midspan.HyperPrior):
            self.w.update({event.index + place: event.w[place].tobytes() for place in range(event.count)})
            report = [name, event.index, event.count]
        elif isinstance(event, midspan.Targets):
            for place in range(event.count):
                self.y[event.index + place] = event.y[place].tobytes(), event.hidden[place].tobytes()
            if event.concealed:
                self.concealed.update(range(event.index, event.index + event.count))
            else:
                self.statuses.append("usable")
            report = [name, event.index, event.count]
        elif isinstance(event, midspan.TargetPart):
            self.statuses.append("usable")
            report = [name, event.index, event.first_element, event.end_element]
        elif isinstance(event, midspan.TargetEarly):
            self.statuses.append("early")
            report = [name, event.index, event.count]
        elif isinstance(event, midspan.TargetRefused):
            self.statuses.append(event.reason)
            report = [name, event.reason]
        elif isinstance(event, midspan.Verdict):
            report = [name, event.index, event.end_index, event.verdict]
        elif isinstance(event, midspan.SideIndices):
            report = [name, event.index, event.count, *event.indices.tolist()]
        elif isinstance(event, (midspan.Working, midspan.SideWanted)):
            return
        elif isinstance(event, midspan.Opened):
            report = [name]
        elif isinstance(event, midspan.Quality):
            report = [name, event.quality]
        elif isinstance(event, midspan.Extension):
            report = [name, event.id]
        elif isinstance(event, (midspan.TargetsOverdue, midspan.TargetsDropped)):
            report = [name, event.index, event.count]
        else:
            assert isinstance(event, (midspan.Reset, midspan.Model, midspan.Rewound, midspan.Ended)), event
            report = [name, event.index]
            if isinstance(event, midspan.Rewound):
                for frames in (self.w, self.y):
                    for index in [index for index in frames if index >= event.index]:
                        del frames[index]
                self.concealed = {index for index in self.concealed if index < event.index}
        self.reports.append(report)

    def missing(self):
        return sorted(set(self.w) - set(self.y))


def sha256(values):
    return hashlib.sha256(b"".join(values)).hexdigest()


def poll(decoder):
    """An event, or None. An error of the stream is final, whatever is called."""
    try:
        event = decoder.poll()
    except midspan.Error as error:
        if error.number < 800:
            for call in (decoder.poll, lambda: decoder.push(b"0"), lambda: decoder.push_message(b"0")):
                with pytest.raises(midspan.Error) as again:
                    call()
                assert again.value.number in (error.number, midspan.ErrorNumber.NOT_AVAILABLE)
        raise
    return None if isinstance(event, (midspan.NeedMore, midspan.End)) else event


def hand_in(decoder, vector, parts, timeline):
    push = decoder.push if vector["binding"] == "stream" else decoder.push_message
    side = iter(vector.get("side", []))
    for part in [*parts, None]:
        decoder.finish() if part is None else push(part)
        while (event := poll(decoder)) is not None:
            timeline.add(event)
            if isinstance(event, midspan.TargetsOverdue) and vector["conceal"] == "overdue":
                decoder.conceal(event.index, event.count)
            if isinstance(event, midspan.SideWanted):
                first, indices = next(side, (None, None))
                if first == event.index:
                    try:
                        decoder.give_side(indices)
                    except midspan.CallerError as error:
                        assert error.number == midspan.ErrorNumber.WRONG_SIDE_INDICES
    while vector["conceal"] == "end" and decoder.oldest_pending is not None:
        decoder.conceal(decoder.oldest_pending)
        while (event := poll(decoder)) is not None:
            timeline.add(event)


def container(vector, stream, parts):
    """The kinds of the chunks, and the error, of a reader without a model."""
    binding = "byte_stream" if vector["binding"] == "stream" else "message"
    place = 0
    if "join" in vector:
        place = vector["join"]["offset"]
        reader = midspan.Reader.join(header_of(vector, stream), place, vector["join"]["index"], binding=binding)
    else:
        reader = midspan.Reader(binding=binding)
    kinds = []
    for part in [*parts, None]:
        if part is None:
            reader.finish()
        else:
            (reader.push if binding == "byte_stream" else reader.push_message)(part)
        try:
            for chunk in reader.chunks():
                assert chunk.offset == place
                place = chunk.offset + chunk.wire_len
                kinds += [chunk.name] if chunk.name not in ("header", "footer") else []
        except midspan.Error as error:
            with pytest.raises(midspan.Error) as again:
                reader.poll()
            assert (again.value.number, again.value.offset) == (error.number, error.offset)
            return kinds, error
    return kinds, None


@pytest.mark.parametrize("folder, vector, cut", CASES)
def test_vector(folder, vector, cut):
    expected = vector["expected"]
    stream = (Path(folder) / vector["stream"]).read_bytes()
    try:
        models = [midspan.Codec.load(folder / model, memory_limit=1 << 24) for model in vector["models"]]
    except midspan.ModelError as error:
        assert error.number in [expected["code"], *expected.get("others", [])]
        return

    parts, timeline = parts_of(vector, stream, cut), Timeline()
    options = {
        "models": models[1:],
        "binding": "byte_stream" if vector["binding"] == "stream" else "message",
        "host_digest": bytes.fromhex(vector["host"]) if "host" in vector else None,
        "keep_integers": True,
    }
    decoder = None
    try:
        if "join" in vector:
            join = vector["join"]
            decoder = midspan.Decoder.join(
                models[0], header_of(vector, stream), join["offset"], join["index"], **options
            )
        else:
            decoder = midspan.Decoder(models[0], **options)
        hand_in(decoder, vector, parts, timeline)
    except midspan.Error as error:
        assert not vector["valid"], error
        assert (error.number, error.offset or 0) == (expected["code"], expected["offset"]), error
        if decoder is not None and "confirmed" in expected:
            assert decoder.confirmed_index == expected["confirmed"]
            assert decoder.resume_index == expected["resume"]
        if vector["container_only"]:
            kinds, found = container(vector, stream, parts)
            assert (found.number, found.offset) == (error.number, error.offset)
            assert kinds == [kind.replace("target_batch", "target") for kind in expected["events"]]
        return
    assert vector["valid"], "it was not refused"

    assert timeline.reports == expected["reports"]
    assert timeline.statuses == expected["target_status"]
    assert len(timeline.w) == expected["frames"]
    assert sorted(timeline.concealed) == expected["concealed"] and timeline.missing() == expected["missing"]
    assert (decoder.confirmed_index, decoder.resume_index) == (expected["confirmed"], expected["resume"])
    assert sha256(timeline.w[index] for index in sorted(timeline.w)) == expected["w_sha256"]
    assert sha256(timeline.y[index][0] for index in sorted(timeline.y)) == expected["y_sha256"]
    assert sha256(timeline.y[index][1] for index in sorted(timeline.y)) == expected["hidden_sha256"]
    kinds, error = container(vector, stream, parts)
    assert error is None
    assert kinds == [kind.replace("target_batch", "target") for kind in expected["events"]]


def test_there_are_vectors():
    assert len(VECTORS) >= 600
