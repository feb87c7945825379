"""Hidden states and integers of all kinds that are taken, and what is given out."""

import numpy
import pytest
from conftest import events_of, states
from scripts import Bits, bf16

import midspan


def stream(codec, push, **options):
    """The bytes of a stream in which `push` pushes."""
    encoder = midspan.Encoder(codec, identity=b"", **options)
    push(encoder)
    encoder.end()
    return encoder.take_bytes()


def pushed(codec, *hidden):
    return stream(codec, lambda encoder: [encoder.push_hidden(values) for values in hidden])


class Tensor:
    """An object that has nothing but DLPack."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self):
        return self.array.__dlpack__()


class Versioned(Tensor):
    """The same with the versioned struct, which NumPy gives from 2.1 on."""

    def __dlpack__(self, *, max_version=None):
        if numpy.lib.NumpyVersion(numpy.__version__) < "2.1.0":
            pytest.skip("this NumPy has no versioned DLPack")
        return self.array.__dlpack__(max_version=max_version)


def test_shapes_are_one_frame_or_many(codec):
    hidden = states(codec, 5)
    assert pushed(codec, hidden[0]) == pushed(codec, hidden[:1]) == pushed(codec, hidden[None, :1])
    assert pushed(codec, hidden) == pushed(codec, hidden[None])
    assert pushed(codec, hidden) != pushed(codec, hidden[:4])


def test_any_strides_give_the_same_bytes(codec):
    hidden = states(codec, 6)
    expected = pushed(codec, hidden)
    wide = numpy.zeros((6, 2 * codec.hidden_width), numpy.float32)
    wide[:, ::2] = hidden
    shifted = numpy.frombuffer(bytearray(b"x" + hidden.tobytes()), numpy.uint8)[1:]
    unaligned = shifted.view(numpy.float32).reshape(hidden.shape)
    assert not unaligned.flags.aligned
    backwards = hidden[::-1, ::-1].copy()[::-1, ::-1]
    views = [numpy.asfortranarray(hidden), wide[:, ::2], hidden[::-1].copy()[::-1], backwards, unaligned]
    for view in views:
        assert pushed(codec, view) == expected
        assert pushed(codec, Tensor(view)) == expected
    assert not any(view.flags.c_contiguous and view.flags.aligned for view in views)
    constant = numpy.broadcast_to(hidden[0], hidden.shape)
    assert pushed(codec, constant) == pushed(codec, constant.copy()) == pushed(codec, Tensor(constant.copy()))


@pytest.mark.parametrize("given", [Versioned, Tensor, numpy.asarray])
def test_readonly_arrays_are_taken(codec, given):
    hidden = states(codec, 2)
    expected = pushed(codec, hidden)
    hidden.flags.writeable = False
    if given is Tensor:
        # The struct without a version cannot say that memory must not be written to.
        with pytest.raises(BufferError):
            pushed(codec, given(hidden))
    else:
        assert pushed(codec, given(hidden)) == expected


def test_half_precision_is_converted_without_loss(codec):
    half = states(codec, 4).astype(numpy.float16)
    half[0, :3] = [6.1e-05, 5.9e-08, -0.0]  # the smallest normal number, the smallest number
    expected = pushed(codec, half.astype(numpy.float32))
    assert pushed(codec, half) == pushed(codec, Tensor(half)) == expected
    bits = bf16(states(codec, 4))
    widened = (bits.astype(numpy.uint32) << 16).view(numpy.float32)
    assert pushed(codec, Bits(bits)) == pushed(codec, widened)
    assert pushed(codec, Bits(numpy.asfortranarray(bits))) == pushed(codec, widened)


def test_numpy_bfloat16_is_taken(codec):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    bits = bf16(states(codec, 4))
    assert pushed(codec, bits.view(ml_dtypes.bfloat16)) == pushed(codec, Bits(bits))


def test_torch_tensors_are_taken(codec):
    torch = pytest.importorskip("torch")
    hidden = states(codec, 4)
    tensor = torch.from_numpy(hidden)
    assert pushed(codec, tensor) == pushed(codec, hidden)
    assert pushed(codec, tensor[None]) == pushed(codec, hidden)
    assert pushed(codec, tensor.t().contiguous().t()) == pushed(codec, hidden)
    assert pushed(codec, tensor[:1].expand(4, -1)) == pushed(codec, numpy.repeat(hidden[:1], 4, axis=0))
    for dtype in (torch.float16, torch.bfloat16):
        converted = tensor.to(dtype)
        assert pushed(codec, converted) == pushed(codec, converted.to(torch.float32))
        assert pushed(codec, converted[1:]) == pushed(codec, converted[1:].to(torch.float32))
    y = midspan.Encoder(codec).quantise(tensor)
    assert stream(codec, lambda encoder: encoder.push_y(torch.from_numpy(y))) == stream(
        codec, lambda encoder: encoder.push_y(y)
    )


def test_what_is_decoded_is_an_array_of_its_own(codec):
    hidden = states(codec, 9)
    decoder = midspan.Decoder(codec, keep_integers=True)
    decoder.push(pushed(codec, hidden[:4], hidden[4:]))
    frames = [event for event in events_of(decoder) if isinstance(event, midspan.Frames)]
    assert [(event.index, event.count) for event in frames] == [(0, 4), (4, 5)]
    for event in frames:
        assert event.hidden.dtype == numpy.float32 and event.hidden.shape == (event.count, codec.hidden_width)
        assert event.y.dtype == numpy.int16 and event.y.shape == event.hidden.shape
        assert event.w.dtype == numpy.int16 and event.w.shape == (event.count, codec.hyper_prior_width)
        assert event.hidden.flags.c_contiguous and event.hidden.flags.writeable
        # NumPy made no memory of its own for it: it is the decoder's.
        assert not event.hidden.flags.owndata and type(event.hidden.base).__name__ == "PySliceContainer"
        assert numpy.from_dlpack(event.hidden).ctypes.data == event.hidden.ctypes.data
    del decoder
    assert abs(numpy.concatenate([event.hidden for event in frames]) - hidden).max() < 1


def test_integers_are_given_on_request(codec):
    hidden = states(codec, 3)
    decoder = midspan.Decoder(codec)
    decoder.push(pushed(codec, hidden))
    (event,) = [event for event in events_of(decoder) if isinstance(event, midspan.Frames)]
    assert event.w is None and event.y is None

    encoder = midspan.Encoder(codec, rate_weight=0)
    encoder.push_hidden(hidden)
    assert encoder.last_integers is None
    encoder = midspan.Encoder(codec, keep_integers=True, rate_weight=0)
    assert encoder.last_integers is None
    encoder.push_hidden(hidden)
    w, y = encoder.last_integers
    assert w.shape == (3, codec.hyper_prior_width) and w.dtype == numpy.int16
    assert (y == encoder.quantise(hidden)).all()
    again = stream(codec, lambda other: other.push_integers(y, w), rate_weight=0)
    assert again == stream(codec, lambda other: other.push_hidden(hidden), rate_weight=0)


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_exact_frames_come_out_as_they_went_in(codec, dtype):
    row = states(codec, 1)[0] * 100
    given = {"f32": row, "f16": row.astype(numpy.float16), "bf16": Bits(bf16(row))}[dtype]
    decoder = midspan.Decoder(codec)
    decoder.push(stream(codec, lambda encoder: encoder.push_exact(given)))
    (event,) = [event for event in events_of(decoder) if isinstance(event, midspan.ExactFrame)]
    assert event.dtype == dtype and event.hidden.shape == (1, codec.hidden_width) and event.w is None
    exact = (given.bits.astype(numpy.uint32) << 16).view(numpy.float32) if dtype == "bf16" else given
    assert event.exact.tobytes() == exact.astype(numpy.float32).tobytes()


@pytest.mark.parametrize("given", [[1, 2, 0], (1, 2, 0), *(numpy.array([1, 2, 0], d) for d in "bBhHiIqQ")])
def test_side_indices_are_any_integers(codecs, given):
    codec, hidden = codecs["default"], states(codecs["default"], 3)

    def push(indices):
        def calls(encoder):
            encoder.set_side(indices, "sent")
            encoder.push_hidden(hidden)

        return stream(codec, calls)

    expected = push([1, 2, 0])
    assert push(given) == expected != push([1, 2, 1])
    if isinstance(given, numpy.ndarray):
        assert push(Tensor(given)) == push(given[None]) == push(numpy.repeat(given, 2)[::2]) == expected
