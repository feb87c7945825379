"""Calls of encoders and decoders, and what they tell."""

import copy
import json
import unittest.mock

import numpy
import pytest
from conftest import MODELS, ROOT, events_of, states

import midspan


def names(events):
    return [event.name for event in events]


def open_both(codec, **options):
    binding = options.get("binding", "byte_stream")
    return midspan.Encoder(codec, identity=b"", **options), midspan.Decoder(codec, binding=binding, keep_integers=True)


def carry(encoder, decoder, side=()):
    decoder.push(encoder.take_bytes())
    return events_of(decoder, side)


def test_a_model_says_what_it_is(codecs):
    codec = codecs["default"]
    assert codec.takes_side and codec.side_vocabulary > 2 and codec.side_ages >= 1 and codec.has_encoder
    plain = codecs["plain"]
    assert not plain.takes_side and plain.side_vocabulary == plain.side_ages == plain.predicted_from == 0
    assert codecs["predicted"].predicted_from > 0
    assert len(plain.fingerprint) == 32 and plain.fingerprint != codec.fingerprint
    assert plain.w_range[0] < plain.w_range[1] and plain.y_range[0] < plain.y_range[1]
    quality = codecs["default"].quality(0)
    assert quality.range_low < quality.range_high and quality.rate_weight > 0 and quality.expected_bits > 50
    with pytest.raises(midspan.CallerError) as caught:
        plain.quality(plain.qualities)
    assert caught.value.number == midspan.ErrorNumber.UNKNOWN_QUALITY
    assert (caught.value.wanted, caught.value.found) == (plain.qualities, plain.qualities)


def test_models_are_equal_by_their_fingerprint(codecs):
    again = midspan.Codec.from_bytes(memoryview(MODELS["plain"].read_bytes()))
    assert again == codecs["plain"] != codecs["default"] and again != 1 and len({again, codecs["plain"]}) == 1
    assert codecs["plain"].fingerprint.hex()[:16] in repr(again)


def test_control_calls_reach_the_decoder(codec):
    encoder, decoder = open_both(codec)
    hidden = states(codec, 4)
    encoder.push_hidden(hidden[:2])
    encoder.checkpoint()
    encoder.set_quality(1)
    encoder.push_hidden(hidden[2])
    encoder.rewind(1)
    assert encoder.next_index == 1
    encoder.extension(27, bytearray(b"note"))
    encoder.reset()
    encoder.push_hidden(hidden[3])
    encoder.end()
    events = carry(encoder, decoder)
    assert names(events) == (
        "opened frames verdict quality frames rewound extension verdict reset frames verdict ended".split()
    )
    assert events[0].header == midspan.Header(
        codec.fingerprint, max_rewind=64, model_version=codec.version, length_offset=events[0].header.length_offset
    )
    assert events[2] == midspan.Verdict(0, 2, "y_confirmed") and events[3] == midspan.Quality(1)
    assert events[5] == midspan.Rewound(1) and events[6] == midspan.Extension(27, b"note")
    assert events[8] == midspan.Reset(1) and events[-1] == midspan.Ended(2, 4)
    assert decoder.poll() == midspan.End() and list(decoder.events()) == []
    assert (decoder.next_index, decoder.confirmed_index, decoder.resume_index) == (2, 2, 2)


def test_nothing_happens_while_more_is_needed(codec):
    encoder, decoder = open_both(codec)
    assert decoder.poll() == midspan.NeedMore()
    encoder.push_hidden(states(codec, 1))
    data = encoder.take_bytes()
    assert encoder.take_bytes() == b""
    seen = []
    for at in range(len(data)):
        decoder.push(data[at : at + 1])
        seen += names(decoder)
    assert seen == ["opened", "frames"]


def test_side_indices_are_sent_or_asked_for(codecs):
    codec = codecs["default"]
    encoder, decoder = open_both(codec)
    hidden = states(codec, 5)
    encoder.set_side([2, 1], "sent")
    encoder.push_hidden(hidden[:2])
    encoder.set_side([0, 1, 2], "known")
    encoder.push_hidden(hidden[2:])
    decoder.push(encoder.take_bytes())
    events = list(decoder)
    assert names(events) == ["opened", "side_indices", "frames", "side_wanted"]
    assert (events[1].index, events[1].count, events[1].indices.tolist()) == (0, 2, [2, 1])
    assert events[1].indices.dtype == numpy.uint32
    assert events[3] == midspan.SideWanted(2, 3) and decoder.wanted_side == (2, 3)
    assert decoder.poll() == midspan.NeedMore()
    for wrong in ([0, 1], [0, 1, codec.side_vocabulary + 1], [0, 1, -1], [0, 1, 1 << 32]):
        with pytest.raises(midspan.CallerError) as caught:
            decoder.give_side(wrong)
        assert caught.value.number == midspan.ErrorNumber.WRONG_SIDE_INDICES
    decoder.give_side(numpy.array([0, 1, 2]))
    assert decoder.wanted_side is None
    assert names(decoder) == ["frames"]


def test_a_wrong_side_index_is_found(codecs):
    codec = codecs["default"]
    encoder, decoder = open_both(codec)
    encoder.set_side([1], "known")
    encoder.push_hidden(states(codec, 1))
    with pytest.raises(midspan.StreamError) as caught:
        carry(encoder, decoder, [2])
    assert caught.value.number == midspan.ErrorNumber.FRAME_CHECK_MISMATCH


def layered(codec, **options):
    encoder = midspan.Encoder(codec, identity=b"", mode="layered", binding="message", **options)
    return encoder, midspan.Decoder(codec, binding="message")


def test_targets_may_be_lost_and_are_concealed(codec):
    encoder, decoder = layered(codec)
    hidden = states(codec, 3)
    for frame in hidden:
        encoder.push_hidden(frame)
    encoder.end()
    messages = encoder.take_messages()
    assert messages[0].message_class == "header" and encoder.pop_message() is None
    targets = [message for message in messages if message.message_class == "droppable"]
    assert [(message.first_frame, message.end_frame) for message in targets] == [(0, 1), (1, 2), (2, 3)]
    for message in messages:
        if message.message_class != "droppable":
            decoder.push_message(message.data)
    decoder.push_datagram(targets[1].data)
    decoder.push_datagram(b"nonsense")
    events = list(decoder)
    assert names(events) == "opened hyper_prior hyper_prior hyper_prior verdict ended targets refused".split()
    assert events[1].w.shape == (1, codec.hyper_prior_width) and events[4].verdict == "w_confirmed"
    assert events[6].index == 1 and not events[6].concealed and events[7].reason == "damaged"
    assert decoder.oldest_pending == 0
    assert decoder.missing_elements(0) == [range(0, codec.hidden_width)] and decoder.missing_elements(1) is None
    decoder.conceal(0)
    decoder.conceal(2, 1)
    events = list(decoder)
    assert names(events) == ["concealed", "concealed", "verdict"] and events[2].verdict == "y_unverifiable"
    assert events[0].concealed and events[0].hidden.shape == (1, codec.hidden_width)
    with pytest.raises(midspan.CallerError) as caught:
        decoder.conceal(0)
    assert caught.value.number == midspan.ErrorNumber.FRAME_NOT_PENDING
    assert decoder.confirmed_index == 0 and decoder.resume_index == 3


def test_overdue_targets_wait_for_the_caller(codec):
    encoder, decoder = layered(codec, target_horizon=2)
    for frame in states(codec, 3):
        encoder.push_hidden(frame)
    for message in encoder.take_messages():
        if message.message_class != "droppable":
            decoder.push_message(message.data)
    assert [decoder.poll().name for _ in range(4)] == ["opened", "hyper_prior", "hyper_prior", "overdue"]
    with pytest.raises(midspan.CallerError) as caught:
        decoder.poll()
    assert caught.value.number == midspan.ErrorNumber.TARGET_OVERDUE and caught.value.found == 0
    decoder.conceal(0)
    assert names(decoder) == ["concealed", "hyper_prior"]


def test_targets_come_in_parts_that_fit_datagrams(codecs):
    codec = codecs["default"]
    encoder = midspan.Encoder(
        codec, identity=b"", mode="layered", binding="message", datagram_limit=256, quality=codec.qualities - 1
    )
    decoder = midspan.Decoder(codec, binding="message")
    encoder.set_side([1], "sent")
    encoder.push_hidden(states(codec, 1, seed=3) * 3)
    messages = encoder.take_messages()
    parts = [message.data for message in messages if message.message_class == "droppable"]
    assert len(parts) > 1 and all(len(part) <= 256 for part in parts)
    for message in messages:
        if message.message_class != "droppable":
            decoder.push_message(message.data)
    list(decoder)
    decoder.push_datagram(parts[0])
    (part,) = decoder
    assert part.name == "part" and part.index == 0
    missing = decoder.missing_elements(0)
    assert missing == [range(part.end_element, codec.hidden_width)]
    for data in parts[1:]:
        decoder.push_datagram(data)
    assert names(decoder)[-1] == "targets"


def test_an_early_target_is_kept(codec):
    encoder, decoder = layered(codec)
    encoder.push_hidden(states(codec, 1))
    header, hyper_prior, target = encoder.take_messages()
    decoder.push_message(header.data)
    list(decoder)
    decoder.push_datagram(target.data)
    assert list(decoder) == [midspan.TargetEarly(0, 1)]
    decoder.push_message(hyper_prior.data)
    assert names(decoder) == ["hyper_prior", "targets"]


def test_long_chunks_are_decoded_in_slices(codec):
    encoder = midspan.Encoder(codec)
    encoder.push_hidden(states(codec, 100))
    decoder = midspan.Decoder(codec, frames_per_poll=40)
    events = carry(encoder, decoder)
    assert events[1:3] == [midspan.Working(0, 100, 40), midspan.Working(0, 100, 80)]
    assert events[3].count == 100 and len(events) == 4


def test_sessions_are_saved_and_restored(codecs):
    codec = codecs["default"]
    hidden = states(codec, 4)

    def push(encoder, at):
        encoder.set_side([at % 3], "sent")
        encoder.push_hidden(hidden[at])

    encoder, decoder = open_both(codec)
    push(encoder, 0)
    push(encoder, 1)
    first = encoder.take_bytes()
    decoder.push(first)
    events_of(decoder)
    push(encoder, 2)
    restored = midspan.Encoder.restore(codec, encoder.save())
    for each in (encoder, restored):
        push(each, 3)
        each.end()
    rest = encoder.take_bytes()
    assert restored.take_bytes() == rest and restored.sent == encoder.sent and encoder.sent.frames == 4
    again = midspan.Decoder.restore(codec, decoder.save(), keep_integers=True)
    for each in (decoder, again):
        each.push(rest)
    ours, theirs = events_of(decoder), events_of(again)
    assert names(ours) == names(theirs)
    for one, other in zip(ours, theirs):
        if one.name == "frames":
            assert one.hidden.tobytes() == other.hidden.tobytes() and one.w.tobytes() == other.w.tobytes()
    with pytest.raises(midspan.CallerError) as caught:
        midspan.Encoder.restore(codecs["plain"], encoder.save())
    assert caught.value.number == midspan.ErrorNumber.WRONG_MODEL
    assert caught.value.found == codec.fingerprint and caught.value.wanted == codecs["plain"].fingerprint
    for restore in (midspan.Encoder.restore, midspan.Decoder.restore):
        with pytest.raises(midspan.CallerError) as caught:
            restore(codec, b"nonsense")
        assert caught.value.number == midspan.ErrorNumber.SAVED_SESSION


def test_events_not_yet_polled_cannot_be_saved(codec):
    encoder, decoder = layered(codec)
    for frame in states(codec, 2):
        encoder.push_hidden(frame)
    for message in encoder.take_messages():
        if message.message_class != "droppable":
            decoder.push_message(message.data)
    list(decoder)
    decoder.conceal(0)
    with pytest.raises(midspan.CallerError) as caught:
        decoder.save()
    assert caught.value.number == midspan.ErrorNumber.NOT_AVAILABLE


def test_forks_go_on_alone(codec):
    encoder = midspan.Encoder(codec, identity=b"")
    hidden = states(codec, 3)
    encoder.push_hidden(hidden[0])
    fork = copy.copy(encoder)
    assert fork.take_bytes() == encoder.take_bytes()
    fork.push_hidden(hidden[1])
    encoder.push_hidden(hidden[2])
    assert fork.take_bytes() != encoder.take_bytes() and fork.next_index == encoder.next_index == 2


def test_a_model_switch_needs_both_models(codecs):
    plain, other = codecs["plain"], codecs["other"]
    encoder = midspan.Encoder(plain)
    encoder.push_hidden(states(plain, 1))
    encoder.switch_model(other, 0)
    assert encoder.codec == other
    encoder.push_integers(*(numpy.zeros((1, n), numpy.int16) for n in (other.hidden_width, other.hyper_prior_width)))
    data = encoder.take_bytes()
    decoder = midspan.Decoder(plain, models=[other])
    decoder.push(data)
    events = events_of(decoder)
    assert names(events) == ["opened", "frames", "verdict", "model", "frames"]
    assert events[3] == midspan.Model(1, other.fingerprint) and decoder.codec == other
    alone = midspan.Decoder(plain)
    alone.push(data)
    with pytest.raises(midspan.ModelError) as caught:
        events_of(alone)
    assert caught.value.number == midspan.ErrorNumber.WRONG_MODEL and caught.value.found == other.fingerprint
    added = midspan.Decoder(plain)
    added.add_model(other)
    added.push(data)
    assert names(events_of(added)) == names(events)


def test_a_decoder_joins_in_the_middle(codec):
    encoder = midspan.Encoder(codec, binding="file")
    hidden = states(codec, 6)
    encoder.push_hidden(hidden[:3])
    encoder.reset()
    encoder.push_hidden(hidden[3:])
    encoder.end()
    file = encoder.take_bytes()
    with pytest.raises(midspan.CallerError) as caught:
        midspan.file_seek(file[:100], file[-12:], len(file), 4)
    assert caught.value.found == 12 and caught.value.wanted > 12
    place = midspan.file_seek(file[:100], file[-caught.value.wanted :], len(file), 4)
    assert place.frame == 3
    decoder = midspan.Decoder.join(codec, file, place.offset, place.frame)
    decoder.push(file[place.offset :])
    decoder.finish()
    whole = midspan.Decoder(codec)
    whole.push(file)
    events, all_events = events_of(decoder), events_of(whole)
    assert names(events)[:2] == ["reset", "frames"] and decoder.poll() == midspan.End()
    assert events[1].hidden.tobytes() == [e for e in all_events if e.name == "frames"][1].hidden.tobytes()
    assert midspan.file_seek(file, file, len(file), 2) == midspan.SeekEntry(0, 0)


def test_an_encoder_tells_what_it_sent(codecs):
    codec = codecs["default"]
    encoder = midspan.Encoder(codec, track_cost=True)
    assert encoder.last_cost is None and encoder.unlike is None
    # Nothing like the hidden states of its own host.
    hidden = states(codec, 200) * 10 * codec.quality(0).range_high
    encoder.set_side([codec.side_vocabulary] * 200, "sent")
    encoder.push_hidden(hidden)
    assert encoder.last_clipped > 0 and encoder.sent.clipped == encoder.last_clipped
    assert encoder.sent.frames == 200 and encoder.sent.y_values == 200 * codec.hidden_width
    assert encoder.recently_sent.frames == 200
    assert 0 < encoder.last_cost.target < encoder.sent.payload_bits
    assert isinstance(encoder.unlike, str) and encoder.memory_bytes > 1000
    with pytest.raises(midspan.CallerError) as caught:
        refusing = midspan.Encoder(codec, clipping="refuse")
        refusing.set_side([0], "sent")
        refusing.push_hidden(hidden[:1])
    assert caught.value.number == midspan.ErrorNumber.HIDDEN_CLIPPED and caught.value.element is not None


def test_an_identity_is_random_unless_given(codec):
    def header(**options):
        return midspan.load_header(midspan.Encoder(codec, **options).take_bytes())[0]

    assert header().identity != header().identity and len(header().identity) == 8
    assert header(identity=b"12345678").identity == b"12345678" and header(identity=b"").identity is None
    assert header(fields=[(2, b"me")]).fields == ((2, b"me"),)
    assert header(host_digest=bytes(32), check=2, quality=1).host_digest == bytes(32)


def test_threads_give_the_same_bytes(codec):
    def stream(threads):
        encoder = midspan.Encoder(codec, identity=b"", lanes=4, threads=threads)
        encoder.push_hidden(states(codec, 300))
        encoder.end()
        return encoder.take_bytes()

    assert stream(1) == stream(3)
    decoder = midspan.Decoder(codec, threads=3)
    decoder.push(stream(1))
    assert sum(event.count for event in events_of(decoder) if event.name == "frames") == 300


@pytest.mark.parametrize("finish", [True, False])
def test_events_end_at_a_request_that_nobody_answers(codecs, finish):
    codec, hidden = codecs["default"], states(codecs["default"], 4)
    encoder, decoder = open_both(codec)
    encoder.set_side([1, 2], "sent")
    encoder.push_hidden(hidden[:2])
    encoder.set_side([3, 4], "known")
    encoder.push_hidden(hidden[2:])
    encoder.end()
    decoder.push(encoder.take_bytes())
    if finish:
        decoder.finish()
    assert names(list(decoder.events())) == ["opened", "side_indices", "frames", "side_wanted"]
    if finish:
        for call in (decoder.poll, lambda: next(decoder.events())):
            with pytest.raises(midspan.CallerError) as caught:
                call()
            assert caught.value.number == midspan.ErrorNumber.WRONG_SIDE_INDICES
    decoder.give_side([3, 4])
    assert names(decoder.events())[:2] == ["frames", "verdict"]


def test_events_end_at_targets_that_nobody_conceals(codec):
    encoder, _ = layered(codec, target_horizon=4)
    for row in states(codec, 8):
        encoder.push_hidden(row)
    decoder = midspan.Decoder(codec, binding="message", target_horizon=4)
    for message in encoder.take_messages():
        if message.message_class != "droppable":
            decoder.push_message(message.data)
    events = list(decoder.events())
    assert names(events)[-1] == "overdue" and "hyper_prior" in names(events)
    with pytest.raises(midspan.CallerError) as caught:
        list(decoder.events())
    assert caught.value.number == midspan.ErrorNumber.TARGET_OVERDUE
    decoder.conceal(events[-1].index, events[-1].count)
    assert names(decoder.events())[0] == "concealed"


def test_integers_of_the_last_push_outlive_a_model_switch():
    wide = midspan.Codec.load(ROOT / "conformance/vectors/models/narrow.safetensors")
    narrow = midspan.Codec.load(MODELS["other"])
    assert wide.hidden_width != narrow.hidden_width
    encoder = midspan.Encoder(wide, keep_integers=True)
    y, w = (numpy.zeros((4, width), numpy.int16) for width in (wide.hidden_width, wide.hyper_prior_width))
    encoder.push_integers(y, w)
    encoder.switch_model(narrow, 0)
    encoder.switch_model(narrow, 0)
    for session in (encoder, encoder.fork()):
        assert [part.shape for part in session.last_integers] == [w.shape, y.shape]
    encoder.push_integers(y[:2, : narrow.hidden_width], w[:2, : narrow.hyper_prior_width])
    assert [len(part) for part in encoder.last_integers] == [2, 2]


def test_models_with_and_without_an_encoder_differ(codecs):
    file = MODELS["plain"].read_bytes()
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    tensors = sorted((place["data_offsets"], name) for name, place in header.items() if name != "__metadata__")
    kept, data = {name: header[name] for name in header if name == "__metadata__"}, b""
    for (start, end), name in tensors:
        if not name.startswith("encoder."):
            kept[name] = {**header[name], "data_offsets": [len(data), len(data) + end - start]}
            data += file[8 + length + start : 8 + length + end]
    text = json.dumps(kept).encode()
    text += b" " * (-len(text) % 8)
    bare = midspan.Codec.from_bytes(len(text).to_bytes(8, "little") + text + data)
    assert bare.fingerprint == codecs["plain"].fingerprint and not bare.has_encoder
    assert bare != codecs["plain"] and len({bare, codecs["plain"]}) == 2
    assert bare == unittest.mock.ANY and bare != 1


def test_a_host_digest_is_that_of_its_weights(tmp_path):
    def write(name, tensors):
        header, data = {}, b""
        for tensor, values in tensors.items():
            place = [len(data), len(data) + values.nbytes]
            header[tensor] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": place}
            data += values.tobytes()
        text = json.dumps(header).encode()
        (tmp_path / name).write_bytes(len(text).to_bytes(8, "little") + text + data)
        return tmp_path / name

    a, b = numpy.ones((2, 3), numpy.float32), numpy.zeros(4, numpy.float32)
    both, first, second = write("both", {"a": a, "b": b}), write("first", {"b": b}), write("second", {"a": a})
    digest = midspan.host_digest([both])
    assert isinstance(digest, bytes) and len(digest) == 32
    assert digest == midspan.host_digest([first, str(second)]) != midspan.host_digest([first])
    with pytest.raises(ValueError):
        midspan.host_digest([both, first])
    with pytest.raises(FileNotFoundError) as caught:
        midspan.host_digest([tmp_path / "none"])
    assert caught.value.filename == str(tmp_path / "none")


@pytest.mark.parametrize("kind", ["encoder", "writer"])
def test_output_can_be_seen_before_it_is_taken(codec, kind):
    def make(binding):
        if kind == "encoder":
            return midspan.Encoder(codec, binding=binding)
        return midspan.Writer(midspan.Header(codec.fingerprint, binding=binding))

    stream = make("byte_stream")
    assert stream.next_message is None and stream.untaken_bytes == len(stream.fork().take_bytes()) > 0
    stream.take_bytes()
    assert stream.untaken_bytes == 0
    messages = make("message")
    first = messages.next_message
    assert first.message_class == "header" and messages.next_message == first == messages.pop_message()
    assert messages.next_message is None and messages.untaken_bytes == 0
