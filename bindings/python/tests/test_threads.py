"""Coding releases the interpreter, and a session is for one call at a time."""

import signal
import sys
import threading
import time

import numpy
import pytest
from conftest import states

import midspan


def test_python_runs_while_a_session_codes(codec):
    frames = 20_000
    hidden = numpy.tile(states(codec, 500), (frames // 500, 1))
    encoder = midspan.Encoder(codec, memory_limit=1 << 30, max_frames_per_chunk=1 << 20)
    limits = {"memory_limit": 1 << 30, "frames_per_poll": 1 << 20, "max_frames": 1 << 20, "max_chunk_bytes": 1 << 30}
    decoders = [midspan.Decoder(codec, **limits) for _ in range(2)]

    def turns_during(work):
        """How often this thread gets a turn while another one works."""
        begun, done, turns = threading.Event(), threading.Event(), 0

        def run():
            begun.set()
            try:
                work()
            finally:
                done.set()

        thread = threading.Thread(target=run)
        thread.start()
        begun.wait()
        while not done.is_set():
            turns += 1
            time.sleep(0.001)
        thread.join()
        return turns

    # A thread that holds the interpreter leaves one turn, before it begins or after it ends.
    assert turns_during(lambda: encoder.push_hidden(hidden)) > 10
    data, together = encoder.take_bytes(), midspan.Together()
    for decoder in decoders:
        decoder.push(data)
        assert decoder.poll().name == "opened"
    # One poll decodes the one chunk: between calls Python gives turns anyway.
    assert turns_during(decoders[0].poll) > 10
    assert turns_during(lambda: together.poll(decoders[1:])) > 10
    assert [decoder.next_index for decoder in decoders] == [frames, frames]


def test_a_busy_row_stops_a_batch_before_it_is_coded(codec):
    frames = 20_000
    busy, idle = (midspan.Encoder(codec, memory_limit=1 << 30) for _ in range(2))
    hidden = numpy.tile(states(codec, 500), (frames // 500, 1))
    thread = threading.Thread(target=busy.push_hidden, args=(hidden,))
    thread.start()
    numbers = set()
    while thread.is_alive() and not numbers:
        try:
            # A push that succeeds has no frames to spare: the row that is not busy would have them too.
            midspan.Together().push_hidden([idle, busy], numpy.full((2, 1, codec.hidden_width), numpy.nan, "f4"))
        except midspan.CallerError as error:
            if error.number != midspan.ErrorNumber.HIDDEN_NOT_FINITE:
                numbers.add(error.number)
    thread.join()
    assert numbers == {midspan.ErrorNumber.BUSY} and (idle.next_index, busy.next_index) == (0, frames)


def test_a_second_call_at_the_same_time_is_refused(codec):
    encoder = midspan.Encoder(codec, memory_limit=1 << 30)
    hidden = numpy.tile(states(codec, 500), (40, 1))
    thread = threading.Thread(target=encoder.push_hidden, args=(hidden,))
    thread.start()
    refused = 0
    while thread.is_alive():
        try:
            encoder.checkpoint()
        except midspan.CallerError as error:
            assert error.number == midspan.ErrorNumber.BUSY and "another thread" in str(error)
            refused += 1
            if refused == 1:  # Long before the push ends, so that there is something to refuse.
                with pytest.raises(midspan.CallerError):
                    encoder.close()
        time.sleep(0.001)
    thread.join()
    assert refused > 0 and encoder.next_index == len(hidden)


def test_threads_share_a_model(codec):
    hidden = states(codec, 300)
    results = {}

    def work(name):
        encoder = midspan.Encoder(codec, identity=b"")
        encoder.push_hidden(hidden)
        encoder.end()
        results[name] = encoder.take_bytes()

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and len(set(results.values())) == 1


@pytest.mark.parametrize("kind", ["encoder", "writer"])
def test_messages_are_taken_by_one_call(codec, kind):
    if kind == "encoder":
        session = midspan.Encoder(codec, binding="message", mode="layered", memory_limit=1 << 30)
        for row in numpy.repeat(states(codec, 1), 4_000, axis=0):
            session.push_hidden(row)
    else:
        session = midspan.Writer(midspan.Header(bytes(32), binding="message"))
        for _ in range(8_000):
            session.frame(b"one")
    taken, interval = [], sys.getswitchinterval()
    count = len(session.fork().take_messages())

    def take():
        try:
            taken.append(len(session.take_messages()))
        except midspan.CallerError as error:
            assert error.number == midspan.ErrorNumber.BUSY

    threads = [threading.Thread(target=take) for _ in range(4)]
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert count > 8_000 and set(taken) <= {0, count} and sum(taken) == count


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="sends itself a signal")
@pytest.mark.parametrize("way", ["together", "messages"])
def test_a_handler_that_raises_loses_nothing_of_many(codec, way):
    class Alarm(Exception):
        pass

    def raise_alarm(*_):
        raise Alarm

    encoder = midspan.Encoder(codec)
    encoder.push_hidden(states(codec, 1))
    data, together = encoder.take_bytes(), midspan.Together()
    before = signal.signal(signal.SIGALRM, raise_alarm)
    try:
        for delay in (0.0005, 0.001, 0.002, 0.004, 0.008):
            found = []
            if way == "together":
                sessions = [midspan.Decoder(codec) for _ in range(2_000)]
                for decoder in sessions:
                    decoder.push(data)
                together.poll(sessions)
            else:
                session = midspan.Writer(midspan.Header(bytes(32), binding="message"))
                for _ in range(4_000):
                    session.frame(b"one")
            call = (lambda: together.poll(sessions)) if way == "together" else session.take_messages
            signal.setitimer(signal.ITIMER_REAL, delay)
            try:
                # Not assigned, so that what Python itself may drop after the call is kept too.
                found.extend(call())
                time.sleep(0.1)
            except Alarm:
                pass
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            found.extend(call())
            kinds = [found.count(midspan.NeedMore()), len(found)]
            assert kinds[1] - kinds[0] == (2_000 if way == "together" else 4_001)
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="sends a signal to a thread")
@pytest.mark.parametrize("way", ["poll", "events", "together"])
def test_an_interrupt_loses_no_event(codec, way):
    frames = 20_000
    encoder = midspan.Encoder(codec, memory_limit=1 << 30, max_frames_per_chunk=1 << 16)
    encoder.push_hidden(numpy.repeat(states(codec, 500), frames // 500, axis=0))
    limits = {"memory_limit": 1 << 30, "frames_per_poll": 1 << 20, "max_frames": 1 << 20, "max_chunk_bytes": 1 << 30}
    decoder = midspan.Decoder(codec, **limits)
    decoder.push(encoder.take_bytes())
    decoders, together = [decoder, midspan.Decoder(codec)], midspan.Together()
    decoders[1].push(b"nonsense")
    assert decoder.poll().name == "opened"
    step = {
        "poll": decoder.poll,
        "events": lambda: next(decoder.events()),
        "together": lambda: together.poll(decoders)[0],
    }[way]
    main = threading.get_ident()

    def interrupt():
        # The decoder is busy while it decodes the chunk.
        while True:
            try:
                decoder.next_index
            except midspan.CallerError:
                break
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    seen = []
    try:
        thread.start()
        while not seen:
            seen.append(step())
        thread.join()
    except KeyboardInterrupt:
        pass
    thread.join()
    if not seen:
        with pytest.raises(midspan.CallerError) as caught:
            decoder.save()
        assert caught.value.number == midspan.ErrorNumber.NOT_AVAILABLE
        seen = [step()]
        assert decoder.fork().poll() == decoder.poll() != seen[0]
    assert [(event.name, event.index, event.count) for event in seen] == [("frames", 0, frames)]
    assert decoder.next_index == frames
