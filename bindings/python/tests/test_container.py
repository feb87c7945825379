"""The container alone: chunks in and out, without a model."""

import copy

import pytest
from conftest import states

import midspan
from midspan import ErrorNumber

PRINT = bytes(range(32))


def names(reader):
    return [chunk.name for chunk in reader.chunks()]


def write(writer):
    """One chunk of every kind that joined mode has."""
    writer.frame(b"one")
    writer.batch(3, [b"two", bytearray(b"three")])
    writer.checkpoint(1, 2)
    writer.quality(1, 5)
    writer.exact_frame("bf16", b"four", b"\x01\x02")
    writer.rewind(3)
    writer.extension(27, memoryview(b"note"))
    writer.reset(0, 7, 3, 4)
    writer.model_switch(bytes(32), 9, 2, 0, 5, 6)
    writer.frame(b"five")
    writer.end(7, 8)


def test_what_is_written_is_read():
    writer = midspan.Writer(midspan.Header(PRINT, binding="file", max_rewind=10, fields=((2, b"me"),)))
    write(writer)
    file = writer.take_bytes()
    assert writer.ended and writer.next_index == 4 and writer.take_bytes() == b""
    reader = midspan.Reader()
    assert reader.header is None and reader.poll() == midspan.NeedMore()
    reader.push(file)
    reader.finish()
    chunks = list(reader)
    kinds = "header frame batch checkpoint quality exact rewind extension reset model frame end seek_index footer"
    assert [chunk.name for chunk in chunks] == kinds.split() and reader.poll() == midspan.End()
    assert chunks[0].header == reader.header == midspan.load_header(file)[0]
    assert reader.header.fingerprint == PRINT and reader.header.fields == ((2, b"me"),)
    assert sum(chunk.wire_len for chunk in chunks) == len(file) == reader.offset == writer.offset
    payloads = []
    for chunk in chunks:
        payloads += getattr(chunk, "payloads", ()) or ([chunk.payload] if hasattr(chunk, "payload") else [])
    assert [payload.data for payload in payloads] == [b"one", b"two", b"three", b"four", b"five"]
    for payload in payloads:
        assert file[payload.offset : payload.offset + len(payload.data)] == payload.data
    frame, batch, checkpoint, quality, exact, rewind, extension, reset, model, last, end, seek = chunks[1:13]
    assert (frame.index, frame.epoch, frame.payload.data) == (0, 0, b"one")
    assert (batch.index, batch.frames, [p.data for p in batch.payloads]) == (1, 3, [b"two", b"three"])
    assert (checkpoint.index, checkpoint.digest_w, checkpoint.digest_y) == (4, 1, 2)
    assert (quality.quality, quality.length_offset) == (1, 5)
    assert (exact.index, exact.dtype, exact.payload.data, exact.data) == (4, "bf16", b"four", b"\x01\x02")
    assert rewind.index == 3 and (extension.id, extension.data) == (27, b"note")
    assert (reset.index, reset.epoch, reset.quality, reset.length_offset) == (3, 2, 0, 7)
    assert reset.fingerprint_prefix == PRINT[:8] and (reset.digest_w, reset.digest_y) == (3, 4)
    assert (model.fingerprint, model.model_version, model.quality, model.epoch) == (bytes(32), 9, 2, 3)
    assert (last.index, last.epoch) == (3, 3) and (end.index, end.frames_coded) == (4, 6)
    assert seek.entries == (midspan.SeekEntry(3, reset.offset), midspan.SeekEntry(3, model.offset))
    assert midspan.file_seek(file[:200], file[-100:], len(file), 3) == seek.entries[1]


def test_targets_have_what_is_known_of_them():
    header = midspan.Header(PRINT, mode="layered", binding="message", target_horizon=10)
    writer = midspan.Writer(header)
    writer.frame(b"w0")
    writer.batch(2, [b"w1"])
    writer.target(1, 2, [b"y1"])
    writer.target_part(0, 4, 8, b"y0")
    messages = writer.take_messages()
    assert [message.message_class for message in messages] == ["header"] + ["reliable"] * 2 + ["droppable"] * 2
    reader = midspan.Reader(binding="message")
    for message in messages:
        reader.push_message(message.data)
    reader.push_datagram(b"nonsense")
    *_, batch, part, damaged = reader.chunks()
    assert (batch.status, batch.index, batch.epoch, batch.frames, batch.elements) == ("usable", 1, 0, 2, None)
    assert (part.index, part.frames, part.elements, part.payloads[0].data) == (0, 1, (4, 8), b"y0")
    assert (damaged.status, damaged.index, damaged.payloads, damaged.wire_len) == ("damaged", None, (), 0)


def test_side_indices_are_covered_by_checks():
    writer = midspan.Writer(midspan.Header(PRINT, side=True))
    with pytest.raises(midspan.CallerError) as caught:
        writer.frame(b"one")
    assert caught.value.number == ErrorNumber.WRONG_SIDE_INDICES
    writer.side_indices(1, b"side")
    writer.cover_side([3])
    writer.frame(b"one")
    reader = midspan.Reader()
    reader.push(writer.take_bytes())
    _, side, frame = reader
    assert (side.name, side.index, side.frames, side.payload.data) == ("side_indices", 0, 1, b"side")


def test_what_breaks_a_rule_is_refused_and_changes_nothing():
    writer = midspan.Writer(midspan.Header(PRINT))
    before = writer.save()
    for call, number in [
        (lambda: writer.frame(b"one\0"), ErrorNumber.SEAL_NOT_CANONICAL),
        (lambda: writer.batch(1, [b"one"]), ErrorNumber.BATCH_OF_ONE),
        (lambda: writer.batch(300, [b"one"]), ErrorNumber.TOO_MANY_FRAMES),
        (lambda: writer.batch(2, []), ErrorNumber.LANE_COUNT),
        (lambda: writer.target(0, 1, [b"one"]), ErrorNumber.KIND_NOT_IN_MODE),
        (lambda: writer.rewind(1), ErrorNumber.REWIND_TARGET),
        (lambda: writer.reset(0, 20_000, 0, 0), ErrorNumber.FIELD_OUT_OF_RANGE),
        (lambda: writer.exact_frame("f32", b"one", b"two"), ErrorNumber.WRONG_SHAPE),
        (lambda: writer.exact_frame("f64", b"one", b"two"), ErrorNumber.INVALID_ARGUMENT),
        (lambda: writer.model_switch(b"short", 0, 0, 0, 0, 0), ErrorNumber.INVALID_ARGUMENT),
        (writer.pop_message, ErrorNumber.NOT_AVAILABLE),
    ]:
        with pytest.raises(midspan.CallerError) as caught:
            call()
        assert caught.value.number == number
        assert writer.save() == before
    for header in (midspan.Header(b"short"), midspan.Header(PRINT, mode="both"), midspan.Header(PRINT, check=3)):
        with pytest.raises(midspan.CallerError) as caught:
            midspan.Writer(header)
        assert caught.value.number == ErrorNumber.INVALID_ARGUMENT
    with pytest.raises(midspan.CallerError) as caught:
        midspan.Writer(midspan.Header(PRINT, max_frames=0))
    assert caught.value.number == ErrorNumber.BAD_CONFIG
    with pytest.raises(TypeError):
        writer.frame("text")


@pytest.mark.parametrize(
    "given, kind, text",
    [
        ("header", TypeError, "header is a str, not a midspan.Header"),
        (midspan.Header(PRINT, quality=300), OverflowError, "header.quality"),
        (midspan.Header(PRINT, max_frames=-1), OverflowError, "header.max_frames"),
        (midspan.Header(PRINT, quality="high"), TypeError, "header.quality"),
        (midspan.Header("text"), TypeError, "header.fingerprint"),
        (midspan.Header(PRINT, fields=((2, "me"),)), TypeError, "header.fields"),
        (midspan.Header(PRINT, mode=3), TypeError, "header.mode"),
    ],
)
def test_a_wrong_header_is_named_by_its_field(given, kind, text):
    with pytest.raises(kind) as caught:
        midspan.Writer(given)
    assert text in str(caught.value) and "Argument" not in str(caught.value)


def test_bytes_of_a_header_are_any_buffer():
    header = midspan.Header(memoryview(PRINT), identity=bytearray(b"identity"), fields=((2, memoryview(b"me")),))
    plain = midspan.Header(PRINT, identity=b"identity", fields=((2, b"me"),))
    assert midspan.Writer(header).take_bytes() == midspan.Writer(plain).take_bytes()


def test_readers_and_writers_are_saved_and_forked(codec):
    encoder = midspan.Encoder(codec)
    encoder.push_hidden(states(codec, 3))
    encoder.reset()
    reset = len(first := encoder.take_bytes())
    encoder.end()
    rest = encoder.take_bytes()
    reader = midspan.Reader()
    reader.push(first[: reset - 1])
    assert names(reader) == ["header", "batch"]
    for other in (midspan.Reader.restore(reader.save()), copy.copy(reader), reader):
        other.push(first[reset - 1 :] + rest)
        other.finish()
        assert names(other) == ["reset", "end"]
    with pytest.raises(midspan.CallerError) as caught:
        midspan.Reader.restore(reader.save(), binding="message")
    assert caught.value.number == ErrorNumber.SAVED_SESSION

    whole = midspan.Reader()
    whole.push(first)
    place = list(whole)[-1].offset
    joined = midspan.Reader.join(first, place, 3)
    joined.push((first + rest)[place:])
    joined.finish()
    assert names(joined) == ["reset", "end"]

    writer = midspan.Writer(midspan.Header(PRINT))
    writer.frame(b"one")
    for other in (midspan.Writer.restore(writer.save()), copy.copy(writer)):
        other.frame(b"two")
        assert other.next_index == 2 and other.take_bytes().startswith(writer.fork().take_bytes())
    assert writer.next_index == 1 and writer.memory_bytes > 0 and reader.memory_bytes >= 0


def test_errors_have_a_place_and_are_final():
    writer = midspan.Writer(midspan.Header(PRINT))
    writer.frame(b"one")
    data = writer.take_bytes()
    reader = midspan.Reader()
    reader.push(data[:-1] + bytes([data[-1] ^ 1]))
    assert reader.poll().name == "header"
    with pytest.raises(midspan.StreamError) as caught:
        reader.poll()
    assert caught.value.number == ErrorNumber.FRAME_CHECK_MISMATCH and caught.value.offset == len(data) - 4
    with pytest.raises(midspan.StreamError):
        reader.push(b"more")
    cut = midspan.Reader()
    cut.push(data[:20])
    cut.finish()
    with pytest.raises(midspan.StreamError) as caught:
        cut.poll()
    assert caught.value.number == ErrorNumber.TRUNCATED
    with pytest.raises(midspan.StreamError) as caught:
        midspan.load_header(data[:20])
    assert caught.value.number == ErrorNumber.TRUNCATED and caught.value.offset == 20
