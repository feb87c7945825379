"""Coding releases the interpreter, and a session is for one call at a time."""

import threading
import time

import numpy
import pytest
from conftest import states

import midspan


def test_python_runs_while_a_session_codes(codec):
    frames = 20_000
    hidden = numpy.tile(states(codec, 500), (frames // 500, 1))
    encoder = midspan.Encoder(codec, memory_limit=1 << 30)
    decoder = midspan.Decoder(codec, memory_limit=1 << 30, frames_per_poll=256)

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
    decoder.push(encoder.take_bytes())
    assert turns_during(lambda: midspan.Together().poll([decoder]) and list(decoder)) > 10
    assert decoder.next_index == frames


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
            if refused == 3:  # Long before the push ends, so that there is something to refuse.
                with pytest.raises(midspan.CallerError):
                    encoder.close()
        time.sleep(0.001)
    thread.join()
    assert refused > 5 and encoder.next_index == len(hidden)


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
