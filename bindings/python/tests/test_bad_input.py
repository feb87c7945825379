"""What cannot be taken is one clear error: nothing is lost, and nothing aborts."""

import copy
import ctypes
import pickle
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy
import pytest
from conftest import MODELS, states
from scripts import DEVICE, field

import midspan
from midspan import ErrorNumber


def number_of(call, kind=midspan.Error):
    with pytest.raises(kind) as caught:
        call()
    return caught.value.number


def stream_of(codec, frames=4):
    encoder = midspan.Encoder(codec, identity=b"12345678")
    for row in states(codec, frames):
        encoder.push_hidden(row)
    encoder.end()
    return encoder.take_bytes()


def drain(decoder):
    """The error that ends the events; the events before it must be sound."""
    try:
        for event in decoder.events():
            assert event.name
    except midspan.Error as error:
        return error
    return None


@pytest.mark.parametrize(
    "hidden, text",
    [
        ([0.0] * 8, "list"),
        ("text", "str"),
        (None, "NoneType"),
        (numpy.zeros(8, numpy.float64), "float64"),
        (numpy.zeros(8, ">f4"), ">f4"),
        (numpy.zeros(8, numpy.int32), "int32"),
        (numpy.zeros(8, numpy.complex64), "complex64"),
        (numpy.zeros(8, "f4,f4"), "f4"),
        (numpy.array([None] * 8), "object"),
        (numpy.array(["a"] * 8), "<U1"),
    ],
)
def test_a_wrong_type_or_dtype_is_a_type_error(codec, hidden, text):
    encoder = midspan.Encoder(codec)
    for call in (encoder.push_hidden, encoder.push_exact, encoder.quantise):
        with pytest.raises(TypeError, match="hidden") as caught:
            call(hidden)
        assert text in str(caught.value)
    assert encoder.next_index == 0


def test_wrong_integers_are_a_type_error(codec):
    encoder, width = midspan.Encoder(codec), codec.hidden_width
    for y in ([0] * width, numpy.zeros(width, numpy.int32), numpy.zeros(width, ">i2")):
        with pytest.raises(TypeError, match="y"):
            encoder.push_y(y)
    for indices in ("text", 3, [1.5], ["a"], numpy.zeros(2), [None], [True], numpy.ones(2, bool)):
        with pytest.raises(TypeError, match="indices"):
            encoder.set_side(indices, "known")
    assert number_of(lambda: encoder.set_side(numpy.zeros((2, 2), int), "known")) == ErrorNumber.WRONG_SHAPE


def test_a_wrong_shape_is_a_value_error(codec):
    encoder, width = midspan.Encoder(codec), codec.hidden_width
    zeros = numpy.zeros
    for shape in [(), (0,), (width + 1,), (0, width), (3, width - 1), (width, 3), (2, 1, width), (1, 1, 1, width)]:
        for call in (encoder.push_hidden, encoder.push_exact, encoder.quantise):
            with pytest.raises(ValueError) as caught:
                call(zeros(shape, numpy.float32))
            assert isinstance(caught.value, midspan.CallerError) and caught.value.fault == "caller"
            assert caught.value.number == ErrorNumber.WRONG_SHAPE and str(list(shape)) in str(caught.value)
        with pytest.raises(ValueError):
            encoder.push_y(zeros(shape, numpy.int16))
    with pytest.raises(ValueError, match="w is"):
        encoder.push_integers(zeros(width, numpy.int16), zeros(codec.hyper_prior_width + 1, numpy.int16))
    with pytest.raises(ValueError):
        encoder.push_integers(zeros((2, width), numpy.int16), zeros((3, codec.hyper_prior_width), numpy.int16))
    many = zeros((1,) * 40, numpy.float32) if numpy.lib.NumpyVersion(numpy.__version__) >= "2.0.0" else zeros((1,) * 32)
    with pytest.raises((ValueError, TypeError)):
        encoder.push_hidden(many)
    assert encoder.next_index == 0


class OnDevice:
    """A tensor on a device, as DLPack tells it."""

    def __init__(self, kind):
        self.kind = kind

    def __dlpack__(self):
        capsule = numpy.zeros(20, numpy.float32).__dlpack__()
        field(capsule, DEVICE, ctypes.c_int32).value = self.kind
        return capsule


@pytest.mark.parametrize("kind, name", [(2, "CUDA"), (8, "Metal"), (10, "ROCm"), (99, "99")])
def test_a_tensor_on_a_device_is_refused(codec, kind, name):
    encoder = midspan.Encoder(codec)
    with pytest.raises(ValueError, match=name) as caught:
        encoder.push_hidden(OnDevice(kind))
    assert caught.value.number == ErrorNumber.INVALID_ARGUMENT and "CPU" in str(caught.value)


def test_torch_tensors_that_do_not_fit_are_refused(codec):
    torch = pytest.importorskip("torch")
    encoder, width = midspan.Encoder(codec), codec.hidden_width
    for tensor in (torch.zeros(width, dtype=torch.float64), torch.zeros(width, dtype=torch.int8)):
        with pytest.raises(TypeError):
            encoder.push_hidden(tensor)
    with pytest.raises(ValueError):
        encoder.push_hidden(torch.zeros(2, 1, width))
    with pytest.raises((ValueError, BufferError)):
        encoder.push_hidden(torch.zeros(width, device="meta"))
    with pytest.raises(BufferError, match="grad"):
        encoder.push_hidden(torch.zeros(width, requires_grad=True))


class Repeated:
    """One row that stands for 2^45."""

    def __init__(self, row):
        self.rows = numpy.lib.stride_tricks.as_strided(row, (1 << 45, len(row)), (0, row.strides[0]))

    def __dlpack__(self):
        return self.rows.__dlpack__()


def test_more_values_than_memory_holds_are_a_memory_error(codec):
    encoder, row = midspan.Encoder(codec), states(codec, 1)[0]
    for given in (Repeated(row), Repeated(row).rows, Repeated(row.astype(numpy.float16))):
        with pytest.raises(MemoryError):
            encoder.push_hidden(given)
    # An array that does not fit is not copied first.
    wide = numpy.lib.stride_tricks.as_strided(row, (1 << 45, len(row) - 1), (0, row.strides[0]))
    assert number_of(lambda: encoder.push_hidden(wide)) == ErrorNumber.WRONG_SHAPE
    with pytest.raises(TypeError):
        encoder.push_hidden(numpy.broadcast_to(0.0, (1 << 45, len(row))))
    assert encoder.next_index == 0


class NoCapsule:
    def __dlpack_device__(self):
        return (1, 0)

    def __dlpack__(self):
        return 3


def test_a_tensor_without_a_capsule_is_refused(codec):
    encoder = midspan.Encoder(codec)
    with pytest.raises(TypeError):
        encoder.push_hidden(NoCapsule())


class Kept:
    """A tensor that gives the same capsule each time."""

    def __init__(self, array):
        self.capsule = array.__dlpack__()

    def __dlpack_device__(self):
        return (1, 0)

    def __dlpack__(self, **_):
        return self.capsule


def test_a_capsule_is_taken_once(codec):
    encoder, given = midspan.Encoder(codec), Kept(states(codec, 2))
    encoder.push_hidden(given)
    with pytest.raises(midspan.CallerError, match="used before") as caught:
        encoder.push_hidden(given)
    assert caught.value.number == ErrorNumber.INVALID_ARGUMENT
    with pytest.raises(ValueError):
        numpy.from_dlpack(given)
    assert encoder.next_index == 2


def test_a_tensor_that_is_refused_is_freed_too(codec):
    encoder, freed = midspan.Encoder(codec), []

    class Watched(numpy.ndarray):
        def __del__(self):
            freed.append(self.dtype)

    for dtype in (numpy.float32, numpy.float64):
        given = Kept(numpy.ones((3, 2 * codec.hidden_width), dtype).view(Watched))
        with pytest.raises((ValueError, TypeError)):
            encoder.push_hidden(given)
        del given
        assert freed.pop() == dtype and not freed


def test_nobody_takes_a_tensor_that_is_being_coded():
    # In a process of its own, because it would end with it.
    program = """
import threading, numpy, midspan
from test_bad_input import Kept
from conftest import MODELS

codec = midspan.Codec.load(MODELS["plain"])
encoder = midspan.Encoder(codec, memory_limit=1 << 40)
given = Kept(numpy.zeros((100_000, codec.hidden_width), numpy.float32))
thread = threading.Thread(target=encoder.push_hidden, args=(given,))
thread.start()
while True:
    try:
        encoder.checkpoint()
    except midspan.CallerError:
        break
try:
    numpy.from_dlpack(given)
except ValueError:
    print("refused", thread.is_alive())
thread.join()
assert encoder.next_index == 100_000
"""
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parent)
    assert (done.returncode, done.stdout) == (0, "refused True\n")


class Announced(list):
    """A list that says that it has more items than memory holds."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length


@pytest.mark.parametrize("length", [1 << 50, 1 << 60])
def test_a_length_that_memory_does_not_hold_is_a_memory_error(codec, codecs, length):
    given, side = Announced(length), midspan.Encoder(codecs["default"])
    writer = midspan.Writer(midspan.Header(bytes(32)))
    for call in (
        lambda: side.set_side(given, "known"),
        lambda: midspan.Together().poll(given),
        lambda: midspan.Together().push_y(given, numpy.zeros((0, 1, 1), numpy.int16)),
        lambda: midspan.Encoder(codec, fields=given),
        lambda: midspan.Decoder(codec, models=given),
        lambda: writer.batch(2, given),
    ):
        with pytest.raises(MemoryError):
            call()
    with pytest.raises(MemoryError):
        side.set_side(range(10**14), "known")
    for name in ("identity", "host_digest"):
        with pytest.raises(TypeError):
            midspan.Encoder(codec, **{name: range(10**14)})


def test_an_array_may_change_its_shape_during_a_call(codec):
    y = numpy.zeros((2, codec.hidden_width), numpy.int16)

    class Changing:
        def __dlpack__(self):
            y.shape = -1
            y.dtype = numpy.int8
            return numpy.zeros((2, codec.hyper_prior_width), numpy.int16).__dlpack__()

    encoder, same = midspan.Encoder(codec, identity=b""), midspan.Encoder(codec, identity=b"")
    encoder.push_integers(y, Changing())
    zeros = [numpy.zeros((2, width), numpy.int16) for width in (codec.hidden_width, codec.hyper_prior_width)]
    same.push_integers(*zeros)
    assert encoder.take_bytes() == same.take_bytes()

    hidden = numpy.zeros((50_000, codec.hidden_width), numpy.float32)
    other = midspan.Encoder(codec, identity=b"", memory_limit=1 << 40)
    thread = threading.Thread(target=other.push_hidden, args=(hidden,))
    thread.start()
    while thread.is_alive():
        hidden.dtype = numpy.uint8
        hidden.dtype = numpy.float32
    thread.join()
    assert other.next_index == len(hidden)


def test_a_subclass_has_no_say_in_what_is_read(codec):
    ml_dtypes = pytest.importorskip("ml_dtypes")

    class Lying(numpy.ndarray):
        def view(self, *_):
            return numpy.zeros((4_000, codec.hidden_width), numpy.uint16)

    encoder = midspan.Encoder(codec)
    encoder.push_hidden(states(codec, 4).astype(ml_dtypes.bfloat16).view(Lying))
    assert encoder.next_index == 4


def test_an_exact_frame_is_one_frame(codec):
    encoder = midspan.Encoder(codec)
    for count in (2, 1 << 34):
        # It must be refused before it is converted, which would take a terabyte.
        many = numpy.broadcast_to(numpy.float32(0), (count, codec.hidden_width))
        assert number_of(lambda: encoder.push_exact(many)) == ErrorNumber.WRONG_SHAPE
    encoder.push_exact(states(codec, 1)[None])
    assert encoder.next_index == 1


def test_an_exception_of_an_index_is_its_own(codecs):
    class Raising:
        def __index__(self):
            raise KeyboardInterrupt

    encoder = midspan.Encoder(codecs["default"])
    with pytest.raises(KeyboardInterrupt):
        encoder.set_side([Raising()], "known")
    for index in (1 << 200, -1 << 200):
        assert number_of(lambda: encoder.set_side([index], "known")) == ErrorNumber.WRONG_SIDE_INDICES
    for given in (b"abc", bytearray(b"abc"), memoryview(b"abc")):
        with pytest.raises(TypeError, match="indices"):
            encoder.set_side(given, "known")


def test_a_torch_tensor_to_be_negated_is_refused(codec):
    class Negative(NoCapsule):
        def __dlpack__(self):
            return states(codec, 1).__dlpack__()

        def is_neg(self):
            return True

    with pytest.raises(midspan.CallerError, match="resolve_neg"):
        midspan.Encoder(codec).push_hidden(Negative())


def test_a_masked_array_is_refused(codec, codecs):
    hidden = numpy.ma.array(states(codec, 2), mask=True)
    with pytest.raises(TypeError, match="masked"):
        midspan.Encoder(codec).push_hidden(hidden)
    with pytest.raises(TypeError, match="masked"):
        midspan.Encoder(codec).push_y(hidden.astype(numpy.int16))
    with pytest.raises(TypeError, match="masked"):
        midspan.Encoder(codecs["default"]).set_side(numpy.ma.array([1, 2]), "known")


def test_values_that_do_not_fit_are_named(codec):
    encoder, hidden = midspan.Encoder(codec), states(codec, 3)
    hidden[2, 4] = numpy.nan
    with pytest.raises(midspan.CallerError) as caught:
        encoder.push_hidden(hidden)
    assert caught.value.number == ErrorNumber.HIDDEN_NOT_FINITE and caught.value.element == (2, 4)
    assert caught.value.offset is None and caught.value.wanted is None
    y = numpy.zeros((2, codec.hidden_width), numpy.int16)
    y[1, 3] = codec.y_range[1] + 1
    with pytest.raises(midspan.CallerError) as caught:
        encoder.push_y(y)
    assert caught.value.number == ErrorNumber.VALUE_OUT_OF_RANGE and caught.value.element == (1, 3)
    assert (caught.value.wanted, caught.value.found) == (codec.y_range[1], codec.y_range[1] + 1)
    assert encoder.next_index == 0


def test_side_indices_that_do_not_fit_are_named(codecs):
    codec = codecs["default"]
    encoder = midspan.Encoder(codec)
    for indices, found in [
        ([0, codec.side_vocabulary + 1], codec.side_vocabulary + 1),
        ([-1], -1),
        ([1 << 40], 1 << 40),
        (numpy.array([-7]), -7),
        (numpy.array([1 << 63], numpy.uint64), (1 << 63) - 1),
    ]:
        with pytest.raises(midspan.CallerError) as caught:
            encoder.set_side(indices, "known")
        assert caught.value.number == ErrorNumber.WRONG_SIDE_INDICES and caught.value.found == found
    assert number_of(lambda: encoder.push_hidden(states(codec, 1))) == ErrorNumber.WRONG_SIDE_INDICES
    encoder.set_side([0, 1], "known")
    with pytest.raises(midspan.CallerError) as caught:
        encoder.push_hidden(states(codec, 1))
    assert (caught.value.wanted, caught.value.found) == (1, 2)
    plain = midspan.Encoder(codecs["plain"])
    assert number_of(lambda: plain.set_side([0], "known")) == ErrorNumber.WRONG_SIDE_INDICES


def test_settings_out_of_range_are_named(codec, codecs):
    def error_of(**options):
        with pytest.raises(midspan.CallerError) as caught:
            midspan.Encoder(options.pop("codec", codec), **options)
        return caught.value

    for name, value in [("mode", "both"), ("binding", "pipe"), ("clipping", "clip"), ("check", 3), ("identity", b"123")]:
        error = error_of(**{name: value})
        assert error.number == ErrorNumber.INVALID_ARGUMENT and name in str(error)
    error = error_of(lanes=0)
    assert error.number == ErrorNumber.BAD_CONFIG and "lanes is 0, not 1 to 1024" in str(error)
    assert (error.wanted, error.found) == (1024, 0)
    assert error_of(rate_weight=-1.0).number == ErrorNumber.BAD_CONFIG
    assert error_of(quality=200).number == ErrorNumber.UNKNOWN_QUALITY
    assert error_of(host_digest=b"short").number == ErrorNumber.INVALID_ARGUMENT
    assert error_of(fields=[(3, b"odd")]).number
    with pytest.raises(midspan.Error) as caught:
        midspan.Encoder(codecs["predicted"], mode="layered")
    assert caught.value.number == ErrorNumber.PREDICTION_LAYERED
    for options in ({"quality": -1}, {"quality": 256}, {"lanes": 1 << 20}, {"max_rewind": -1}):
        with pytest.raises(OverflowError):
            midspan.Encoder(codec, **options)
    with pytest.raises(TypeError):
        midspan.Encoder("codec")
    with pytest.raises(TypeError):
        midspan.Encoder(codec, colour="red")
    encoder = midspan.Encoder(codecs["default"])
    assert number_of(lambda: encoder.set_side([0], "maybe")) == ErrorNumber.INVALID_ARGUMENT


def test_an_exceeded_limit_names_the_argument_to_raise(codec):
    with pytest.raises(midspan.ResourceError) as caught:
        midspan.Encoder(codec, memory_limit=100)
    error = caught.value
    assert error.number == ErrorNumber.MEMORY_LIMIT and error.fault == "resource"
    assert error.limit == "own" and error.setting == "memory_limit" and error.wanted == 100 < error.found
    assert "raise memory_limit" in str(error) and "::" not in str(error)

    encoder = midspan.Encoder(codec)
    encoder.push_hidden(states(codec, 20))
    decoder = midspan.Decoder(codec, max_frames=10)
    decoder.push(encoder.take_bytes())
    error = drain(decoder)
    assert isinstance(error, midspan.ResourceError) and error.setting == "max_frames"
    assert (error.wanted, error.found, error.limit) == (10, 20, "own") and error.offset > 0


def test_a_model_file_that_is_wrong_is_refused(tmp_path):
    file = MODELS["plain"].read_bytes()
    for broken in (b"", b"nonsense", file[:-1], file[:1000], b"\xff" * 8 + file[8:]):
        with pytest.raises(midspan.ModelError) as caught:
            midspan.Codec.from_bytes(broken)
        assert 701 <= caught.value.number <= 708 and caught.value.fault == "model"
    with pytest.raises(TypeError):
        midspan.Codec.from_bytes("text")
    with pytest.raises(FileNotFoundError) as caught:
        midspan.Codec.load(tmp_path / "none")
    assert caught.value.filename == str(tmp_path / "none")
    with pytest.raises(IsADirectoryError):
        midspan.Codec.load(tmp_path)
    with pytest.raises(midspan.ResourceError) as caught:
        midspan.Codec.load(MODELS["plain"], memory_limit=len(file) - 1)
    assert caught.value.setting == "memory_limit" and caught.value.number == ErrorNumber.MEMORY_LIMIT
    with pytest.raises(midspan.ResourceError):
        midspan.Codec.load("/dev/zero", memory_limit=1 << 20)
    with pytest.raises(midspan.ResourceError):
        midspan.Codec.from_bytes(file, memory_limit=1000)


def test_garbage_is_an_error_and_final(codec):
    generator = random.Random(1)
    for length in (1, 4, 100, 10_000):
        decoder = midspan.Decoder(codec)
        decoder.push(generator.randbytes(length))
        decoder.finish()
        error = drain(decoder)
        assert isinstance(error, midspan.StreamError) and error.fault == "stream"
        for call in (decoder.poll, lambda: decoder.push(b"more"), lambda: decoder.conceal(0)):
            assert number_of(call) == error.number


def test_every_damaged_byte_is_found(codec):
    data = stream_of(codec)
    for place in range(len(data)):
        decoder = midspan.Decoder(codec)
        decoder.push(data[:place] + bytes([data[place] ^ 0x41]) + data[place + 1 :])
        decoder.finish()
        error = drain(decoder)
        assert isinstance(error, midspan.Error) and error.offset is not None, place


def test_every_cut_is_found(codec):
    data = stream_of(codec)
    for length in range(len(data)):
        decoder = midspan.Decoder(codec)
        decoder.push(data[:length])
        assert drain(decoder) is None and decoder.poll() == midspan.NeedMore()
        decoder.finish()
        error = drain(decoder)
        assert error.number == ErrorNumber.TRUNCATED and error.offset <= length


def test_a_wrong_model_names_the_right_one(codecs):
    data = stream_of(codecs["plain"])
    decoder = midspan.Decoder(codecs["default"])
    decoder.push(data)
    error = drain(decoder)
    assert isinstance(error, midspan.ModelError) and error.number == ErrorNumber.WRONG_MODEL
    assert error.found == codecs["plain"].fingerprint and error.wanted == codecs["default"].fingerprint
    host = midspan.Decoder(codecs["plain"], host_digest=bytes(32))
    host.push(data)
    error = drain(host)
    assert error.number == ErrorNumber.WRONG_HOST and error.wanted == bytes(32) and error.found is None


def test_a_huge_length_takes_no_memory(codec):
    data = stream_of(codec)
    header, length = midspan.load_header(data)
    assert header.max_chunk_bytes == 1 << 22
    # A batch chunk (C1) that announces 2^56 bytes: a varint of eight bytes.
    decoder = midspan.Decoder(codec)
    decoder.push(data[:length] + b"\xc1" + b"\xfe" + b"\xff" * 7)
    error = drain(decoder)
    assert error.number == ErrorNumber.CHUNK_TOO_LONG and error.limit in ("declared", "own")
    assert decoder.memory_bytes < 100_000


def test_a_closed_session_refuses_every_call(codec):
    encoder, decoder = midspan.Encoder(codec), midspan.Decoder(codec)
    reader, writer = midspan.Reader(), midspan.Writer(midspan.Header(codec.fingerprint))
    calls = {
        encoder: ["checkpoint", "reset", "end", "take_bytes", "save", "fork", "pop_message"],
        decoder: ["poll", "finish", "save", "fork", "events"],
        reader: ["poll", "finish", "save", "fork", "chunks"],
        writer: ["take_bytes", "save", "fork", "pop_message"],
    }
    for session, names in calls.items():
        with session as entered:
            assert entered is session
        session.close()
        for name in names:
            with pytest.raises(ValueError, match="closed") as caught:
                result = getattr(session, name)()
                next(result)
            assert caught.value.number == ErrorNumber.AFTER_END
        assert "closed" in repr(session)
    with pytest.raises(ValueError, match="closed"):
        encoder.push_hidden(states(codec, 1))
    with pytest.raises(ValueError, match="closed"):
        decoder.next_index
    with pytest.raises(ValueError, match="closed"):
        copy.copy(encoder)


def test_calls_after_the_end_are_refused(codec):
    encoder = midspan.Encoder(codec)
    encoder.end()
    for call in (encoder.end, encoder.reset, encoder.checkpoint, lambda: encoder.push_hidden(states(codec, 1))):
        assert number_of(call, midspan.CallerError) == ErrorNumber.AFTER_END
    assert encoder.take_bytes()
    decoder = midspan.Decoder(codec)
    decoder.finish()
    assert number_of(lambda: decoder.push(b"1"), midspan.CallerError) == ErrorNumber.AFTER_END
    assert number_of(encoder.pop_message) == ErrorNumber.NOT_AVAILABLE
    messages = midspan.Encoder(codec, binding="message")
    assert number_of(messages.take_bytes) == ErrorNumber.NOT_AVAILABLE
    assert number_of(lambda: midspan.Decoder(codec).push_message(b"1")) == ErrorNumber.NOT_AVAILABLE
    assert number_of(lambda: encoder.rewind(0)) == ErrorNumber.AFTER_END


def test_a_refused_call_changes_nothing(codec):
    encoder = midspan.Encoder(codec, identity=b"")
    hidden = states(codec, 2)
    encoder.push_hidden(hidden[0])
    before = encoder.save()
    for call in (
        lambda: encoder.push_hidden(hidden[:, 1:]),
        lambda: encoder.push_hidden(numpy.full_like(hidden, numpy.nan)),
        lambda: encoder.rewind(7),
        lambda: encoder.set_quality(200),
        lambda: encoder.extension(27, bytes(5 << 20)),
    ):
        with pytest.raises(midspan.Error):
            call()
        assert encoder.save() == before


def test_errors_can_be_copied_and_pickled(codec):
    with pytest.raises(midspan.ResourceError) as caught:
        midspan.Encoder(codec, memory_limit=100)
    for error in (pickle.loads(pickle.dumps(caught.value)), copy.copy(caught.value)):
        assert type(error) is midspan.ResourceError and str(error) == str(caught.value)
        assert vars(error) == vars(caught.value)
