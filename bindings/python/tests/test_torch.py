"""`midspan.torch`: modules split by name, batches as streams, a codec in the middle of a model, and captures."""

import copy
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
from conftest import ROOT

import midspan

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
nn = torch.nn
split_by_name = pytest.importorskip("midspan.torch").split

from safetensors import safe_open  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

import midspan.torch as mt  # noqa: E402


class Block(nn.Module):
    """Adds a function of the mean of all frames so far, so that positions depend on each other."""

    def __init__(self, width, as_tuple):
        super().__init__()
        self.linear, self.as_tuple = nn.Linear(width, width), as_tuple

    def forward(self, x, scale=1.0):
        mean = x.cumsum(-2) / torch.arange(1, x.shape[-2] + 1)[:, None]
        x = x + scale * torch.tanh(self.linear(mean))
        return (x, "rest") if self.as_tuple else x


class Model(nn.Module):
    def __init__(self, width, as_tuple=False, by_name=False):
        super().__init__()
        self.embed = nn.Embedding(30, width)
        self.blocks = nn.ModuleList(Block(width, as_tuple) for _ in range(4))
        self.head = nn.Linear(width, 30)
        self.by_name = by_name

    def forward(self, input_ids, attention_mask=None):
        x = self.embed(input_ids.long())
        for block in self.blocks:
            x = block(hidden_states=x) if self.by_name else block(x, 0.5)
            x = x[0] if isinstance(x, tuple) else x
        return self.head(x)


class ByName(Block):
    def forward(self, hidden_states):
        return super().forward(hidden_states, 0.5)


def model_of(width, kind="tensor"):
    torch.manual_seed(1)
    model = Model(width, kind == "tuple", kind == "name")
    if kind == "name":
        for block in model.blocks:
            block.__class__ = ByName
    return model.eval()


@pytest.fixture
def ids():
    return torch.randint(0, 30, (2, 9), generator=torch.Generator().manual_seed(2))


# Halves


@pytest.mark.parametrize("kind", ["tensor", "tuple", "name"])
@pytest.mark.parametrize("block", [0, 1, 2])
def test_two_halves_are_the_whole(kind, block, ids):
    model = model_of(8, kind)
    want = model(ids)
    first, rest = split_by_name(model, f"blocks.{block}")
    hidden = first(ids)
    assert hidden.shape == (2, 9, 8)
    assert torch.equal(rest(hidden, ids), want) and not torch.equal(rest(hidden + 1, ids), want)
    assert len(first.module.blocks) == block + 1 and len(rest.module.blocks) == 3 - block
    assert len(model.blocks) == 4 and torch.equal(model(ids), want)
    own = {id(value) for value in model.parameters()}
    assert {id(value) for value in [*first.module.parameters(), *rest.module.parameters()]} == own


@pytest.mark.parametrize("kind", ["tensor", "tuple", "name"])
def test_three_parts_and_more_are_the_whole(kind, ids):
    model = model_of(8, kind)
    for at in (["blocks.0", "blocks.1"], ["blocks.0", "blocks.2"], ["blocks.0", "blocks.1", "blocks.2"]):
        first, *middle, last = split_by_name(model, *at)
        hidden = first(ids)
        for part in middle:
            hidden = part(hidden, ids)
        assert torch.equal(last(hidden, ids), model(ids))
        assert sum(len(part.module.blocks) for part in (first, *middle, last)) == 4


def test_lists_that_hold_a_block_more_than_once(ids):
    torch.manual_seed(3)
    act, block = nn.Tanh(), Block(8, False)
    embed = nn.Embedding(30, 8)
    for blocks in ([embed, act, block, act, block, act, nn.Linear(8, 5)], [embed, *[block] * 4]):
        module = nn.Sequential(*blocks)
        for place in range(len(blocks) - 1):
            first, rest = split_by_name(module, str(place))
            hidden = first(ids)
            assert torch.equal(rest(hidden, torch.zeros(2, 9, 8)), module(ids)), place
    model = model_of(8)
    model.forward = lambda ids: model.head(twice(model, model.embed(ids)))
    _, rest = split_by_name(model, "blocks.1")
    rest.module.forward = lambda ids: rest.module.head(twice(rest.module, rest.module.embed(ids)))
    with pytest.raises(RuntimeError, match="more than once"):
        rest(torch.zeros(2, 9, 8), ids)


def twice(model, x):
    for block in [*model.blocks, *model.blocks]:
        x = block(x)
    return x


def test_names_are_those_of_the_whole(ids):
    model = model_of(8)
    first, middle, last = split_by_name(model, "blocks.0", "blocks.2")
    assert len(middle.module.blocks) == 2
    parts = split_by_name(model, "blocks.0", "blocks.2.linear", form=lambda hidden: hidden)
    hidden = parts[0](ids)
    tapped = []
    model.blocks[2].linear.register_forward_hook(lambda _m, _a, output: tapped.append(output))
    model(ids)
    assert torch.equal(parts[1](hidden, ids), tapped[0])


def test_a_part_has_its_own_dtype_and_one_call_at_a_time(ids):
    model = model_of(8).to(torch.bfloat16)
    first, rest = split_by_name(model, "blocks.1")
    hidden = first(ids)
    assert hidden.dtype == torch.bfloat16
    assert torch.equal(rest(hidden.float(), ids), model(ids))

    class Embedded(Model):
        def forward(self, embeds):
            for block in self.blocks:
                embeds = block(embeds)
            return self.head(embeds)

    model.__class__ = Embedded
    _, rest = split_by_name(model, "blocks.1")
    given = torch.randn(2, 9, 8)
    assert rest(given, given).dtype == torch.bfloat16 and given.dtype == torch.float32
    model = model_of(8)
    first, rest = split_by_name(model, "blocks.1")
    inputs = [torch.randint(0, 30, (1, 40)) for _ in range(8)]
    wanted = [model(values) for values in inputs]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda values: rest(first(values), values), inputs * 5))
    assert all(torch.equal(a, b) for a, b in zip(found, wanted * 5))


def test_a_sequential_is_split_wherever_it_is(ids):
    torch.manual_seed(3)
    root = nn.Sequential(nn.Embedding(30, 8), Block(8, False), Block(8, False), nn.Linear(8, 30))
    for module, at in ((root, "1"), (nn.Sequential(root, nn.Identity()), "0.1")):
        first, rest = split_by_name(module, at)
        hidden = first(ids)
        # The whole second half begins with its first block, so that any input of the shape will do.
        assert torch.equal(rest(hidden, torch.zeros(2, 9, 8)), root(ids))
    assert len(list(rest.module.modules())) < len(list(module.modules()))


def test_a_first_half_that_is_no_block_of_a_list(ids):
    class Speech(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = model_of(8), nn.Linear(30, 5)

        def forward(self, ids):
            return self.decoder(self.encoder(ids)[0])

    model = Speech()
    # The encoder gives out a tensor here, of which [0] is the first row.
    first, rest = split_by_name(model, "encoder", form=lambda hidden: hidden)
    assert torch.equal(rest(first(ids), ids), model(ids))
    assert not list(rest.module.encoder.parameters())
    half = copy.deepcopy(model).half()
    _, rest = split_by_name(half, "encoder", form=lambda hidden: (hidden[0], hidden))
    assert rest(first(ids), ids).dtype == torch.float16


def test_a_part_that_needs_what_an_earlier_one_gave_is_told(ids):
    """As a decoder with attention to an encoder's output does, which is no chain."""

    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = nn.Embedding(30, 8), nn.ModuleList([Block(8, False), Block(8, False)])

        def forward(self, ids, encoded=None):
            x = encoded = self.encoder(ids) if encoded is None else encoded
            for block in self.decoder:
                x = block(x) + encoded
            return x

    model = Both()
    first, middle, last = split_by_name(model, "encoder", "decoder.0")
    encoded = first(ids)
    hidden = middle(encoded, ids)
    with pytest.raises(RuntimeError, match="pass it among the arguments"):
        last(hidden, ids)
    # The sum after the first block is outside the blocks, so that the last part begins with what it is given.
    assert torch.equal(last(hidden + encoded, ids, encoded), model(ids))


def test_what_cannot_be_split_is_told(ids):
    model = model_of(8)
    with pytest.raises(ValueError, match="no submodule 'blocks.9'.*blocks"):
        split_by_name(model, "blocks.9")
    with pytest.raises(ValueError, match="last block"):
        split_by_name(model, "blocks.3")
    with pytest.raises(ValueError, match="no submodule ''"):
        split_by_name(model, "")
    first, rest = split_by_name(model, "blocks.1")
    with pytest.raises(ValueError, match=r"\[2, 9, 8\], but \[2, 8, 8\] came"):
        rest(first(ids)[:, 1:], ids)
    with pytest.raises(TypeError, match="gives out a tensor of torch.int64"):
        split_by_name(nn.Sequential(nn.Identity(), nn.Identity()), "0")[0](ids)
    with pytest.raises(ValueError, match="no submodule was named"):
        split_by_name(model)
    for names in (("blocks.1", "blocks.1"), ("blocks.1", "blocks.0")):
        with pytest.raises(ValueError, match="does not come after"):
            split_by_name(model, *names)
    with pytest.raises(TypeError, match="has to come first"):
        rest(input_ids=ids)
    model.unused = nn.Linear(2, 2)
    with pytest.raises(RuntimeError, match="never reached"):
        split_by_name(model, "unused")[0](ids)
    with pytest.raises(RuntimeError, match="never reached"):
        split_by_name(model, "unused")[1](torch.zeros(2, 9, 8), ids)
    assert not model.blocks[1]._forward_hooks


# Streams


def test_a_batch_arrives_as_its_rows_would(codec):
    hidden = 0.3 * torch.randn(3, 7, codec.hidden_width)
    sender, receiver = mt.Sender(codec, 3, identity=b""), mt.Receiver(codec, 3)
    alone = midspan.Encoder(codec, identity=b"")
    alone.push_hidden(hidden[1].numpy())
    data = sender.push(hidden.requires_grad_())
    assert data[1] == alone.take_bytes()
    receiver.push([stream[:20] for stream in data])
    assert receiver.take() is None
    receiver.push([stream[20:] for stream in data])
    assert receiver.take(8) is None
    first, rest = receiver.take(3), receiver.take()
    assert first.shape == (3, 3, codec.hidden_width) and rest.shape == (3, 4, codec.hidden_width)
    decoder = midspan.Decoder(codec)
    decoder.push(data[1])
    (frames,) = [event for event in decoder.events() if isinstance(event, midspan.Frames)]
    assert torch.equal(torch.cat([first, rest], 1)[1], torch.from_numpy(frames.hidden))
    receiver.push(sender.end())
    assert receiver.take() is None and [event.name for row, event in receiver.events if row == 2][-1] == "ended"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_coded(codec, dtype):
    hidden = (0.3 * torch.randn(1, 4, codec.hidden_width)).to(dtype)
    sent = [mt.Sender(codec, identity=b"").push(values) for values in (hidden, hidden.float(), hidden[0])]
    assert sent[0] == sent[1] == sent[2]


@pytest.mark.parametrize("delivery", ["known", "sent"])
def test_side_indices_are_known_or_sent(codecs, delivery):
    codec = codecs["default"]
    ids = torch.arange(12).reshape(2, 6)
    hidden = 0.3 * torch.randn(2, 6, codec.hidden_width)
    sender, receiver = mt.Sender(codec, 2, delivery=delivery), mt.Receiver(codec, 2)
    for part in (slice(0, 4), slice(4, 6)):
        receiver.push(sender.push(hidden[:, part], ids[:, part]))
    if delivery == "known":
        with pytest.raises(ValueError, match="row 0 waits for the side indices of 4 frames from frame 0 on"):
            receiver.take()
        with pytest.raises(ValueError, match="rows for 2 streams"):
            receiver.take(ids=ids[:1])
        assert receiver.take(4, ids=ids).shape == (2, 4, codec.hidden_width) and receiver.ids is None
    else:
        receiver.take(4)
        assert torch.equal(receiver.ids, ids[:, :4])
    assert receiver.take(ids=ids[:, 4:] if delivery == "known" else None).shape == (2, 2, codec.hidden_width)
    with pytest.raises(ValueError, match="pass ids"):
        sender.push(hidden)
    with pytest.raises(ValueError, match="3 rows"):
        sender.push(hidden, [[1]] * 3)
    with pytest.raises(TypeError, match="integers"):
        sender.push(hidden, ids / 2)
    with pytest.raises(midspan.CallerError) as error:
        sender.push(hidden, ids - 12)
    assert error.value.number == midspan.ErrorNumber.WRONG_SIDE_INDICES


@pytest.mark.parametrize("name", ["plain", "default"])
def test_rewound_frames_are_gone(codecs, name):
    codec = codecs[name]
    hidden = 0.3 * torch.randn(1, 8, codec.hidden_width, generator=torch.Generator().manual_seed(5))
    ids = torch.arange(8)[None] if codec.takes_side else None
    sender, receiver = mt.Sender(codec, delivery="known", rate_weight=0), mt.Receiver(codec)
    nearest = mt.Sender(codec, delivery="known", rate_weight=0)
    alone = mt.Receiver(codec)
    alone.push(nearest.push(hidden, ids))
    want = alone.take(ids=ids)  # each frame's values depend on itself alone

    def push(start, end):
        receiver.push(sender.push(hidden[:, start:end], None if ids is None else ids[:, start:end]))

    def take(*frames):
        return receiver.take(ids=None if ids is None else ids[:, list(frames)])

    push(0, 5)
    assert torch.equal(receiver.take(2, ids=ids), want[:, :2])  # 2 to 4 wait
    sender.encoders[0].rewind(3)
    push(5, 6)
    assert torch.equal(take(2, 5), want[:, [2, 5]])  # frame 2, and the new frame 3
    assert [event for _, event in receiver.events if isinstance(event, midspan.Rewound)] == [midspan.Rewound(3)]
    sender.encoders[0].rewind(1)
    push(6, 8)
    assert torch.equal(take(6, 7), want[:, 6:]) and receiver.decoders[0].next_index == 3


def test_a_damaged_stream_is_told_with_its_row_and_loses_nothing(codec):
    hidden = 0.3 * torch.randn(2, 4, codec.hidden_width)
    sender, receiver = mt.Sender(codec, 2), mt.Receiver(codec, 2)
    receiver.push(sender.push(hidden[:, :2]))
    assert receiver.take().shape[1] == 2
    data = sender.push(hidden[:, 2:])
    receiver.push([b"", data[1] + b"\xff" * 40])  # the first row needs more when the second one fails
    with pytest.raises(midspan.StreamError) as error:
        receiver.take()
    assert error.value.row == 1
    receiver.push([data[0], b""])
    assert receiver.take().shape[1] == 2
    with pytest.raises(ValueError, match="bytes of 1 streams for 2"):
        receiver.push([b""])
    for frames in (0, -1):
        with pytest.raises(ValueError, match="1 or more"):
            receiver.take(frames)
    for kind in (mt.Sender, mt.Receiver):
        with pytest.raises(ValueError, match="byte streams"):
            kind(codec, binding="message")


@pytest.mark.parametrize("delivery", ["known", "sent"])
def test_an_unknown_token_is_none(codecs, delivery):
    """A captured codec knows the tokens of its capture alone."""
    codec = codecs["default"]
    hidden = 0.3 * torch.randn(1, 3, codec.hidden_width)
    sender, receiver = mt.Sender(codec, delivery=delivery), mt.Receiver(codec)
    ids = torch.tensor([[5, 1_000_000, 7]])
    receiver.push(sender.push(hidden, ids))
    assert receiver.take(ids=ids if delivery == "known" else None) is not None
    if delivery == "sent":
        assert receiver.ids.tolist() == [[5, codec.side_vocabulary, 7]]


def test_tokens_that_were_rewound_are_gone(codecs):
    codec = codecs["default"]
    hidden = 0.3 * torch.randn(1, 4, codec.hidden_width)
    sender, receiver = mt.Sender(codec), mt.Receiver(codec)
    receiver.push(sender.push(hidden, torch.tensor([[1, 2, 3, 4]])))
    sender.encoders[0].rewind(2)
    receiver.push(sender.push(hidden[:, :1], torch.tensor([[9]])))
    assert receiver.take().shape[1] == 3 and receiver.ids.tolist() == [[1, 2, 9]]


def test_what_a_sender_does_not_take_is_refused_before_anything_is_coded(codec):
    width = codec.hidden_width
    sender = mt.Sender(codec, 2, identity=b"")
    hidden = 0.3 * torch.randn(2, 3, width)
    broken = hidden.clone()
    broken[1, 2, 0] = float("nan")
    for wrong, match in (
        (broken, "row 1, frame 2 is not finite"),
        (hidden[:1], "for 2 streams"),
        (hidden[0], "for 2 streams"),
        (hidden[None], "for 2 streams"),
    ):
        with pytest.raises(ValueError, match=match):
            sender.push(wrong)
    for wrong in (hidden.double(), hidden.int()):
        with pytest.raises(TypeError):
            sender.push(wrong)
    with pytest.raises(midspan.CallerError):
        sender.push(hidden[..., 1:])
    assert sender.push(hidden) == mt.Sender(codec, 2, identity=b"").push(hidden)
    with pytest.raises(ValueError, match="joined mode"):
        mt.Sender(codec, mode="layered")
    for kind in (mt.Sender, mt.Receiver):
        with pytest.raises(ValueError, match="1 or more"):
            kind(codec, 0)
    layered = midspan.Encoder(codec, mode="layered")
    layered.push_hidden(hidden[0].numpy())
    receiver = mt.Receiver(codec, 2)
    receiver.push([b"", layered.take_bytes()])
    with pytest.raises(ValueError, match="row 1 is in layered mode"):
        receiver.take()


def test_what_happened_is_that_of_the_last_take(codec):
    hidden = 0.3 * torch.randn(1, 4, codec.hidden_width)
    sender, receiver = mt.Sender(codec, checkpoint_interval=2), mt.Receiver(codec)
    for _ in range(3):
        receiver.push(sender.push(hidden))
        assert receiver.take() is not None
        assert 1 <= len([event for _, event in receiver.events if isinstance(event, midspan.Verdict)]) <= 2


def test_long_texts_take_no_more_memory_than_a_session_may(codec, monkeypatch):
    """Pieces give the same bytes."""
    from midspan.torch import _streams

    hidden = 0.3 * torch.randn(2, 1100, codec.hidden_width)
    whole = mt.Sender(codec, 2, identity=b"").push(hidden)
    monkeypatch.setattr(_streams, "VALUES", 600 * codec.hidden_width)
    counts = []
    push = midspan.Together.push_hidden

    class Counted:
        def __init__(self, **settings):
            self.own = midspan.Together(**settings)

        def push_hidden(self, encoders, part):
            counts.append(part.shape[1])
            push(self.own, encoders, part)

    monkeypatch.setattr(_streams, "Together", Counted)
    assert mt.Sender(codec, 2, identity=b"").push(hidden) == whole and counts == [512, 512, 76]


def test_exact_frames_and_a_dead_stream_lose_nothing(codec):
    hidden = 0.3 * torch.randn(2, 1, codec.hidden_width)
    sender, receiver = mt.Sender(codec, 2), mt.Receiver(codec, 2)
    for encoder, row in zip(sender.encoders, hidden):
        encoder.push_exact(row[0].numpy())
    receiver.push(sender.take())
    assert receiver.take().shape == (2, 1, codec.hidden_width)
    exact = [event.exact for _, event in receiver.events if isinstance(event, midspan.ExactFrame)]
    assert numpy.array_equal(exact, hidden[:, 0].numpy())
    data = sender.push(hidden)
    receiver.push([b"\xff" * 40, b""])
    with pytest.raises(midspan.StreamError):
        receiver.take()
    with pytest.raises(midspan.StreamError) as error:
        receiver.push(data)
    assert error.value.row == 0
    assert [event for event in receiver.decoders[1].events() if isinstance(event, midspan.Frames)]


# Through


@pytest.mark.parametrize("kind", ["tensor", "tuple", "name"])
def test_a_model_runs_through_a_codec(codec, kind, ids):
    model = model_of(codec.hidden_width, kind)
    want = model(ids)
    first, rest = split_by_name(model, "blocks.1")
    hidden = first(ids)
    sender, receiver = mt.Sender(codec, 2, quality=1), mt.Receiver(codec, 2)
    data = sender.push(hidden)
    receiver.push(data)
    with mt.Through(model, "blocks.1", codec, quality=1) as link:
        got = model(ids)
    assert torch.equal(got, rest(receiver.take(), ids)) and not torch.equal(got, want)
    assert link.bytes == sum(map(len, data)) and link.frames == 18
    assert torch.equal(model(ids), want)


def test_streams_go_on_or_begin_anew(codecs, ids):
    codec = codecs["default"]
    model = model_of(codec.hidden_width)
    with mt.Through(model, "blocks.0", codec, identity=b"") as link:
        model(ids)
        once = link.bytes
        model(input_ids=ids)
        kept = link.bytes - once
        with pytest.raises(ValueError, match="begin"):
            model(ids[:1])
        link.begin()
        model(ids)
        assert link.bytes - once - kept == once != kept
    with mt.Through(model, "blocks.0", codec, identity=b"", streams="new") as link:
        model(ids)
        model(ids)
        assert link.bytes == 2 * once
    with mt.Through(model, "blocks.0", codec, identity=b"", delivery="sent") as link:
        model(ids)
        assert link.bytes > once
    with pytest.raises(ValueError, match="streams"):
        mt.Through(model, "blocks.0", codec, streams="old")


def test_a_pass_that_fails_leaves_nothing_for_the_next(codec, ids):
    model = model_of(codec.hidden_width)
    first, rest = split_by_name(model, "blocks.0")
    with mt.Through(model, "blocks.0", codec, identity=b"") as link:
        with pytest.raises(RuntimeError, match="open"):
            link.__enter__()
        model(ids)
        before = link.bytes, link.frames
        keep = model.embed.weight.data.clone()
        model.embed.weight.data[int(ids[1, 3])] = float("nan")
        with pytest.raises(ValueError, match="row 1"):
            model(ids)
        model.embed.weight.data = keep
        assert (link.bytes, link.frames) == before
        want = mt.Receiver(codec, 2)
        want.push(mt.Sender(codec, 2).push(first(ids)))
        assert torch.equal(model(ids), rest(want.take(), ids))
    with mt.Through(nn.Sequential(nn.Flatten(0), nn.Identity()), "0", codec) as _, pytest.raises(ValueError):
        link = mt.Through(module := nn.Sequential(nn.Unflatten(0, (1, 1, 2, -1))), "0", codec)
        with link:
            module(torch.zeros(2 * codec.hidden_width))


# Captures


def test_a_capture_holds_what_went_by(tmp_path, ids):
    model = model_of(8)
    first, _ = split_by_name(model, "blocks.2")
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    with mt.Capture(model, "blocks.2", tmp_path / "new" / "states", frames_per_shard=20) as capture:
        assert torch.equal(capture(ids), model(ids))
        capture(input_ids=ids, attention_mask=mask)
        assert len(capture.paths) == 1 and capture.frames == 32
        capture(ids[:1])
    assert [path.name for path in capture.paths] == ["states-00001.safetensors", "states-00002.safetensors"]
    one, two = map(load_file, capture.paths)
    hidden = first(ids)
    assert one["starts"].tolist() == [0, 9, 18, 27] and two["starts"].tolist() == [0]
    want = torch.cat([hidden[0], hidden[1], hidden[0], hidden[1, 4:]])
    assert torch.equal(one["hidden"], want) and torch.equal(two["hidden"], hidden[0])
    assert torch.equal(one["ids"], torch.cat([ids[0], ids[1], ids[0], ids[1, 4:]]))
    assert one["sensitivity"].shape == (8, 8) and one["sensitivity"].dtype == torch.float32
    with safe_open(capture.paths[0], "pt") as file:
        assert file.metadata() == {"host": "Model", "split": "blocks.2"}
    assert all(value.grad is None for value in model.parameters()) and torch.is_grad_enabled()


def test_the_sensitivity_is_the_fisher_information(tmp_path, ids):
    """After the last block the logits are linear in the hidden state, so that it is known: Hᵀ (diag p − p pᵀ) H."""
    model = model_of(8)
    first, _ = split_by_name(model, "blocks.2")
    model.blocks[3].linear.weight.data.zero_()
    with mt.Capture(model, "blocks.2", tmp_path / "states", draws=400) as capture:
        logits = capture(ids)
    p = logits.reshape(-1, 30).softmax(-1)
    weight = model.head.weight
    inner = torch.diag(p.mean(0)) - p.T @ p / len(p)
    want = (weight.T @ inner @ weight).detach()
    found = load_file(capture.paths[0])["sensitivity"]
    assert (found - want).norm() < 0.1 * want.norm()
    with mt.Capture(model, "blocks.2", tmp_path / "output", sensitivity="output", draws=400) as capture:
        capture(ids)
    found = load_file(capture.paths[0])["sensitivity"]
    want = (weight.T @ weight).detach()
    assert (found - want).norm() < 0.1 * want.norm()


def test_a_sensitivity_of_ones_own_or_none(tmp_path, ids):
    model = model_of(8)

    def score(output, counts):
        assert counts.shape == ids.shape
        return output[..., 0].sum()

    with mt.Capture(model, "blocks.2", tmp_path / "own", sensitivity=score) as capture:
        capture(ids)
    found = load_file(capture.paths[0])["sensitivity"]
    assert torch.linalg.matrix_rank(found, hermitian=True, rtol=1e-3) < 8 or found.norm() > 0
    with mt.Capture(model, "blocks.2", tmp_path / "none", sensitivity=None) as capture, torch.inference_mode():
        capture(ids)
    assert set(load_file(capture.paths[0])) == {"hidden", "starts", "ids"}


def test_a_capture_overwrites_no_other_and_keeps_what_it_has(tmp_path, ids):
    model = model_of(8)
    with pytest.raises(KeyboardInterrupt), mt.Capture(model, "blocks.1", tmp_path / "states") as capture:
        capture(ids)
        raise KeyboardInterrupt
    assert load_file(capture.paths[0])["hidden"].shape == (18, 8)
    with pytest.raises(FileExistsError, match="states-00001"):
        mt.Capture(model, "blocks.1", tmp_path / "states")
    mt.Capture(model, "blocks.1", tmp_path / "stat")


def test_a_capture_is_of_what_the_module_gave(tmp_path, ids):
    """Whatever comes after may write to it; masks may be floats and come by place; inference mode is no matter."""

    class InPlace(Block):
        def forward(self, x, scale):
            return x.mul_(2.0)

    model = model_of(8)
    model.blocks[2].__class__ = InPlace
    first, rest = split_by_name(model, "blocks.1")
    hidden = first(ids)
    kept = hidden.clone()
    with torch.no_grad():
        rest(hidden, ids)
    assert torch.equal(hidden, kept)
    mask = torch.ones(ids.shape)
    mask[0, :5] = 0
    for number, sensitivity in enumerate(("logits", None)):
        path = tmp_path / f"states{number}"
        with mt.Capture(model, "blocks.1", path, sensitivity=sensitivity) as capture, torch.inference_mode():
            capture(ids, mask)
        found = load_file(capture.paths[0])
        assert torch.equal(found["hidden"], torch.cat([kept[0, 5:], kept[1]])) and found["starts"].tolist() == [0, 4]


def test_a_decoder_has_tokens_of_its_own(tmp_path, ids):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.decoder = nn.Embedding(30, 8), model_of(8)

        def forward(self, input_ids, decoder_input_ids, attention_mask=None):
            return self.decoder(decoder_input_ids) + self.encoder(input_ids).sum()

    other = (ids + 1) % 30
    with mt.Capture(Both(), "decoder.blocks.1", tmp_path / "states") as capture:
        capture(ids, other, attention_mask=torch.zeros_like(ids))
    assert torch.equal(load_file(capture.paths[0])["ids"], other.flatten())


def test_types_stay_as_the_model_has_them(tmp_path, ids):
    model = model_of(8).to(torch.bfloat16)
    with mt.Capture(model, "blocks.1", tmp_path / "states") as capture:
        capture(ids)
    assert load_file(capture.paths[0])["hidden"].dtype == torch.bfloat16


def test_a_pass_that_fails_counts_for_nothing(tmp_path, ids):
    """Neither its frames nor its gradients, of which some draws may have been made."""
    model = model_of(8)
    draws = []

    def score(output, counts):
        draws.append(1)
        return output.sum() * (float("nan") if len(draws) == 4 else 1.0)

    def linear(output, counts):
        return output.sum()

    with mt.Capture(model, "blocks.1", tmp_path / "broken", sensitivity=score, draws=2) as capture:
        capture(ids)
        with pytest.raises(ValueError, match="gradient is not finite"):
            capture(ids)
    with mt.Capture(model, "blocks.1", tmp_path / "whole", sensitivity=linear, draws=2) as whole:
        whole(ids)
    found, want = load_file(capture.paths[0]), load_file(whole.paths[0])
    assert torch.equal(found["sensitivity"], want["sensitivity"]) and len(found["hidden"]) == 18


def test_what_cannot_be_captured_is_told(tmp_path, ids):
    model = model_of(8)

    def capture(**settings):
        return mt.Capture(model, "blocks.1", tmp_path / "states", **settings)

    for settings in ({"draws": 0}, {"frames_per_shard": 0}, {"sensitivity": "guess"}):
        with pytest.raises(ValueError):
            capture(**settings)
    with pytest.raises(ValueError, match="does not depend"):
        capture(sensitivity=lambda output, _: model.head.bias.sum())(ids)
    with pytest.raises(ValueError, match="does not depend"):
        capture(sensitivity=lambda output, _: output.detach().sum())(ids)
    with pytest.raises(ValueError, match="ids have the shape"):
        capture()(ids, ids=ids[:1])
    with pytest.raises(ValueError, match="mask have the shape"):
        capture()(ids, mask=ids[:1])
    some = capture()
    some(ids)
    with pytest.raises(ValueError, match="some passes have ids"):
        some(ids.to(torch.float32))
    model.embed.weight.data[:] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        capture()(ids)
    assert not list(tmp_path.iterdir()) and not model.blocks[1]._forward_hooks


def test_a_capture_is_calibrated_and_the_codec_codes(tmp_path):
    program = os.environ.get("MIDSPAN_PROGRAM")
    if program is None:
        pytest.skip("MIDSPAN_PROGRAM does not name the command-line program")
    model = model_of(16)
    with mt.Capture(model, "blocks.1", tmp_path / "states", frames_per_shard=2000) as capture:
        for seed in range(30):
            capture(torch.randint(0, 30, (4, 40), generator=torch.Generator().manual_seed(seed)))
    codec = tmp_path / "codec.safetensors"
    command = [program, "calibrate", "--threads", "1", "--out", codec, "--states", *capture.paths]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    codec = midspan.Codec.load(codec)
    assert codec.takes_side and codec.hidden_width == 16
    ids = torch.randint(0, 30, (4, 40), generator=torch.Generator().manual_seed(99))
    want = model(ids).log_softmax(-1)
    spent, lost = [], []
    for quality in range(codec.qualities):
        with mt.Through(model, "blocks.1", codec, quality=quality, streams="new") as link:
            got = model(ids).log_softmax(-1)
        spent.append(link.bytes)
        lost.append((want.exp() * (want - got)).sum(-1).mean().item())
    assert spent == sorted(spent) and lost == sorted(lost, reverse=True) and lost[-1] < 0.002


@pytest.mark.parametrize("name", ["plain", "default"])
def test_a_step_of_a_batch_server_crosses_as_bytes(codecs, name):
    """`examples/vllm_boundary.py`: requests come, have prompts, take turns and begin again, in batches with padding."""
    sys.path.insert(0, str(ROOT / "bindings/python/examples"))
    from vllm_boundary import Boundary, Row

    codec = codecs[name]
    out, into = Boundary(codec, rate_weight=0), Boundary(codec)
    steps = [
        [Row("a", 5, True), Row("b", 3, True)],
        [Row("a", 1, False), Row("b", 1, False), Row("c", 4, True)],
        [Row("c", 1, False), Row("a", 1, False)],
        [Row("b", 5, True), Row("a", 1, False)],  # b was preempted
    ]
    generator = torch.Generator().manual_seed(4)
    for number, rows in enumerate(steps):
        rows = [row._replace(ids=[number, 1_000_000, 3, 4, 5][: row.tokens]) for row in rows]
        count = sum(row.tokens for row in rows)
        hidden, residual = (0.2 * torch.randn(2, count + 3, codec.hidden_width, generator=generator)).to(torch.bfloat16)
        tensors = {"hidden_states": hidden, "residual": residual} if number % 2 == 0 else {"hidden_states": hidden}
        sent = out.encode(tensors, rows)
        got = into.decode(sent, rows)
        assert set(got) == set(tensors) and all(value.dtype == torch.bfloat16 for value in got.values())
        total = sum(value.float() for value in tensors.values())
        alone = mt.Receiver(codec)
        ids = torch.zeros(1, count, dtype=torch.int64) if codec.takes_side else None
        alone.push(mt.Sender(codec, rate_weight=0).push(total[None, :count], ids))
        assert torch.equal(sum(got.values())[:count], alone.take()[0].to(torch.bfloat16))
        assert not sum(got.values())[count:].any()
    assert len(out.sessions) == 3
    out.forget(["a", "none"])
    assert len(out.sessions) == 2
