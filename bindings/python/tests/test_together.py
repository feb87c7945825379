"""Many streams in one call: [B, T, E] with one stream a row."""

import gc

import numpy
import pytest
from conftest import states
from scripts import Bits, bf16

import midspan


def alone(codec, hidden):
    encoder = midspan.Encoder(codec, identity=b"")
    encoder.push_hidden(hidden)
    return encoder.take_bytes()


def encoders_of(codec, count):
    return [midspan.Encoder(codec, identity=b"", keep_integers=True) for _ in range(count)]


@pytest.mark.parametrize("frames", [1, 5, 20])
@pytest.mark.parametrize("threads", [1, 3])
def test_each_row_is_a_stream(codec, frames, threads):
    hidden = states(codec, 4 * frames).reshape(4, frames, -1)
    together = midspan.Together(threads=threads)
    encoders = encoders_of(codec, 4)
    together.push_hidden(encoders, hidden)
    data = [encoder.take_bytes() for encoder in encoders]
    assert data == [alone(codec, row) for row in hidden] and len(set(data)) == 4

    decoders = [midspan.Decoder(codec) for _ in range(4)]
    for decoder, part in zip(decoders, data):
        decoder.push(part)
    assert [event.name for event in together.poll(decoders)] == ["opened"] * 4
    events = together.poll(decoders)
    assert all(event.hidden.shape == (frames, codec.hidden_width) for event in events)
    single = midspan.Decoder(codec)
    single.push(data[2])
    assert events[2].hidden.tobytes() == list(single)[1].hidden.tobytes()
    assert together.poll(decoders) == [midspan.NeedMore()] * 4
    # Streams that push at most eight frames share the work.
    assert (together.memory_bytes > 0) == (frames <= 8)


def test_every_dtype_and_layout_is_taken(codec):
    hidden = states(codec, 6).reshape(3, 2, -1)
    half, bits = hidden.astype(numpy.float16), bf16(hidden)
    widened = (bits.astype(numpy.uint32) << 16).view(numpy.float32)
    for given, same in [
        (hidden, hidden),
        (numpy.asfortranarray(hidden), hidden),
        (half, half.astype(numpy.float32)),
        (Bits(bits), widened),
        (Bits(bits.transpose(1, 0, 2).copy().transpose(1, 0, 2)), widened),
    ]:
        encoders = encoders_of(codec, 3)
        midspan.Together().push_hidden(encoders, given)
        assert [encoder.take_bytes() for encoder in encoders] == [alone(codec, row) for row in same]
    y = numpy.stack([encoder.last_integers[1] for encoder in encoders])
    encoders = encoders_of(codec, 3)
    midspan.Together().push_y(encoders, y)
    assert [encoder.last_integers[1].tolist() for encoder in encoders] == y.tolist()


def test_a_row_that_fails_leaves_the_others(codec):
    hidden = states(codec, 3).reshape(3, 1, -1)
    hidden[0, 0, 5], hidden[2, 0, 7] = numpy.nan, numpy.inf
    encoders = encoders_of(codec, 3)
    with pytest.raises(midspan.CallerError) as caught:
        midspan.Together().push_hidden(encoders, hidden)
    error = caught.value
    assert error.number == midspan.ErrorNumber.HIDDEN_NOT_FINITE and error.row == 0 and error.element == (0, 5)
    assert sorted(error.errors) == [0, 2] and error.errors[2].row == 2 and error.errors[2].element == (0, 7)
    assert [encoder.next_index for encoder in encoders] == [0, 1, 0]
    assert encoders[1].take_bytes() == alone(codec, hidden[1])


def test_an_error_of_a_batch_does_not_hold_itself(codec):
    hidden = states(codec, 2).reshape(2, 1, -1)
    hidden[0] = numpy.nan
    gc.collect()
    gc.disable()
    try:
        try:
            midspan.Together().push_hidden(encoders_of(codec, 2), hidden)
        except midspan.CallerError as error:
            assert error.row == 0 and error.errors[0].element == error.element == (0, 0)
            assert all(inner is not error for inner in error.errors.values())
            number = id(error)
        assert not any(id(found) == number and isinstance(found, midspan.Error) for found in gc.get_objects())
    finally:
        gc.enable()


def test_an_error_of_a_stream_is_its_outcome(codec):
    data = alone(codec, states(codec, 1))
    decoders = [midspan.Decoder(codec) for _ in range(3)]
    for decoder, part in zip(decoders, [data, b"nonsense", data]):
        decoder.push(part)
    together = midspan.Together()
    for _ in range(2):
        outcomes = together.poll(decoders)
        assert isinstance(outcomes[1], midspan.StreamError) and outcomes[1].row == 1
        assert outcomes[1].number == midspan.ErrorNumber.BAD_MAGIC
    assert [outcome.name for outcome in (outcomes[0], outcomes[2])] == ["frames", "frames"]


def test_wrong_batches_change_nothing(codec, codecs):
    together, encoders = midspan.Together(), encoders_of(codec, 2)
    good = states(codec, 4).reshape(2, 2, -1)
    wrong = [good[:1], good[:, :0], good[:, :, 1:], good[0], numpy.concatenate([good, good])]
    for hidden in wrong:
        with pytest.raises(ValueError) as caught:
            together.push_hidden(encoders, hidden)
        assert caught.value.number == midspan.ErrorNumber.WRONG_SHAPE and str(list(hidden.shape)) in str(caught.value)
    with pytest.raises(TypeError):
        together.push_hidden(encoders, good.astype(numpy.float64))
    with pytest.raises(midspan.CallerError) as caught:
        together.push_hidden([encoders[0], encoders[0]], good)
    assert caught.value.number == midspan.ErrorNumber.INVALID_ARGUMENT
    with pytest.raises(midspan.CallerError) as caught:
        together.push_hidden([encoders[0], midspan.Encoder(codecs["default"])], good)
    assert caught.value.number == midspan.ErrorNumber.WRONG_SHAPE
    closed = midspan.Encoder(codec)
    closed.close()
    with pytest.raises(midspan.CallerError) as caught:
        together.push_hidden([encoders[0], closed], good)
    assert caught.value.number == midspan.ErrorNumber.AFTER_END
    assert [encoder.next_index for encoder in encoders] == [0, 0]
    together.push_hidden([], good[:0])
    together.push_hidden(encoders, good)
    assert [encoder.next_index for encoder in encoders] == [2, 2]
