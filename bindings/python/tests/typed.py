"""Not run: `test_types.py` has mypy judge it."""

import numpy

import midspan

codec = midspan.Codec.load("codec.safetensors")
encoder = midspan.Encoder(codec, mode="layered", fields=[(2, b"me")])
encoder.set_side([1, 2], "sent")
encoder.push_hidden(numpy.zeros((2, 4), numpy.float32))
encoder.push_hidden([0.0, 1.0])  # error: arg-type
encoder.push_y("text")  # error: arg-type
encoder.set_side([1], "guessed")  # error: arg-type
midspan.Encoder(codec, mode="both")  # error: arg-type
data: bytes = encoder.take_bytes()
messages: "list[midspan.Message]" = encoder.take_messages()

decoder = midspan.Decoder(codec)
decoder.push(memoryview(data))
decoder.push("text")  # error: arg-type
for event in decoder.events():
    name: str = event.name
    if isinstance(event, midspan.Frames):
        count: int = event.count
        event.hidden.shape.index(count)
    elif isinstance(event, midspan.SideWanted):
        decoder.give_side([0] * event.count)
        event.hidden  # error: attr-defined
for outcome in midspan.Together().poll([decoder]):
    if isinstance(outcome, midspan.Error):
        row: "int | None" = outcome.row
