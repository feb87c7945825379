"""Models of `transformers` in two processes, and pipelines of two and four, with Midspan between them."""

import inspect
import multiprocessing
import os
import queue
import re
import socket
import subprocess
import sys

import pytest
from conftest import MODELS, ROOT

import midspan

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("safetensors")

import midspan.torch as mt  # noqa: E402

sys.path.insert(0, str(ROOT / "bindings/python/examples"))
import split_model  # noqa: E402

WIDTH = 256  # that of the default codec
KINDS = {"gpt2": "transformer.h.1", "llama": "model.layers.1"}


def model_of(kind, width=WIDTH, layers=4):
    """A small model with weights that are drawn."""
    torch.manual_seed(1)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=300, n_positions=256, n_embd=width, n_layer=layers, n_head=4, bos_token_id=0, eos_token_id=0
        )
    else:
        config = transformers.LlamaConfig(
            vocab_size=300,
            hidden_size=width,
            intermediate_size=2 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    model = transformers.AutoModelForCausalLM.from_config(config)
    for value in model.parameters():
        if value.dim() > 1:
            torch.nn.init.normal_(value, std=0.1)
    return model.eval()


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def ids_of(seed, shape):
    return torch.randint(0, 300, shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def written(model, ids, tokens):
    """What a whole model writes."""
    mask = torch.ones_like(ids)
    settings = {"max_new_tokens": tokens, "min_new_tokens": tokens, "do_sample": False, "pad_token_id": 0}
    return model.generate(ids, attention_mask=mask, **settings)[0, ids.shape[1] :].tolist()


@torch.no_grad()
def test_halves_with_caches_are_the_whole(kind):
    model, at = model_of(kind), KINDS[kind]
    ids = ids_of(1, (2, 12))
    want = model(input_ids=ids).logits
    first, rest = mt.split(model, at)
    assert torch.equal(rest(first(input_ids=ids), input_ids=ids).logits, want)
    for cuts in ([1] * 12, [5, 7]):
        near, far = split_model.with_cache(model), split_model.with_cache(model)
        steps = []
        for part in ids.split(cuts, 1):
            hidden = first(input_ids=part, **near)
            steps.append(rest(hidden, inputs_embeds=hidden, **far).logits)
        assert torch.allclose(torch.cat(steps, 1), want, rtol=1e-4, atol=1e-4)
    assert first.module.config.num_hidden_layers == rest.module.config.num_hidden_layers == 2
    # Padding on the left, with a mask.
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    want = model(input_ids=ids, attention_mask=mask).logits
    hidden = first(input_ids=ids, attention_mask=mask)
    assert torch.equal(rest(hidden, input_ids=ids, attention_mask=mask).logits, want)


@torch.no_grad()
def test_two_processes_write_what_one_does(kind, tmp_path):
    """The same tokens as with the codec in the middle of the whole model."""
    model, codec = model_of(kind), midspan.Codec.load(MODELS["default"])
    model.save_pretrained(tmp_path)
    ids = ids_of(2, (1, 9))
    found, sizes = split_model.generate(tmp_path, KINDS[kind], MODELS["default"], ids, 12, 3)
    with mt.Through(model, KINDS[kind], codec, quality=3) as link:
        want = written(model, ids, 12)
    assert found == want and len(set(found)) > 2
    assert link.frames == 9 + 11 and 0 < sum(sizes) - link.bytes < 9 * 3  # the prompt's tokens, which the stream brings


def test_a_captured_model_speaks_through_its_codec(kind, tmp_path):
    program = os.environ.get("MIDSPAN_PROGRAM")
    if program is None:
        pytest.skip("MIDSPAN_PROGRAM does not name the command-line program")
    model, at = model_of(kind, 64), KINDS[kind]
    model.save_pretrained(tmp_path / "model")
    with mt.Capture(model, at, tmp_path / "states", frames_per_shard=4_000) as capture:
        for seed in range(40):
            capture(input_ids=ids_of(seed + 100, (4, 64)))
    path = tmp_path / "codec.safetensors"
    command = [program, "calibrate", "--threads", "1", "--out", path, "--states", *capture.paths]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    codec = midspan.Codec.load(path)
    ids = ids_of(3, (4, 64))
    with torch.no_grad():
        want = model(input_ids=ids).logits.log_softmax(-1)
        spent, lost = [], []
        for quality in range(codec.qualities):
            with mt.Through(model, at, codec, quality=quality, streams="new") as link:
                got = model(input_ids=ids).logits.log_softmax(-1)
            spent.append(link.bytes)
            lost.append((want.exp() * (want - got)).sum(-1).mean().item())
    assert spent == sorted(set(spent)) and lost == sorted(lost, reverse=True)
    # Far fewer bytes than float16, and predictions that are nearly the same.
    assert spent[-1] < 0.4 * ids.numel() * 64 * 2 and lost[-1] < 0.01 * lost[0] + 0.001
    assert (got.argmax(-1) == want.argmax(-1)).float().mean() > 0.9
    found, _ = split_model.generate(tmp_path / "model", at, path, ids[:1, :9], 12, codec.qualities - 1)
    with mt.Through(model, at, codec, quality=codec.qualities - 1):
        assert found == written(model, ids[:1, :9], 12)


def test_the_programs_of_the_readme_run(tmp_path, monkeypatch):
    page = (ROOT / "bindings/python/README.md").read_text(encoding="utf-8")
    programs = re.findall(r"```python\n(.*?)```", page, re.S)
    halves, through, capture, _ = programs[4:]
    model, codec = model_of("llama", layers=6), midspan.Codec.load(MODELS["default"])
    ids = ids_of(1, (1, 7))
    names = {"midspan": midspan, "model": model, "codec": codec, "ids": ids, "texts": [ids, ids]}
    names["near_cache"], names["far_cache"] = (transformers.DynamicCache() for _ in range(2))
    if "cache" not in inspect.signature(model.forward).parameters:
        halves = halves.replace("cache=", "past_key_values=")
    monkeypatch.chdir(tmp_path)
    for program in (halves, through, capture):
        with torch.no_grad():
            exec(program, names)
    assert names["logits"].shape == (1, 7, 300) and names["text"].shape == (1, 57)
    assert names["link"].frames == 7 + 49 and len(list((tmp_path / "states").iterdir())) == 1


def pipeline(rank, world, port, results, kind, coded, steps):
    """One process of a pipeline. The last one gives its logits, the others how many bytes they sent."""
    import torch.distributed as dist
    from torch.distributed.pipelining import ScheduleGPipe

    from midspan.torch.pipelining import CodedStage

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    model = model_of(kind)
    path = KINDS[kind].rsplit(".", 1)[0]
    parts = mt.split(model, *[f"{path}.{4 * (place + 1) // world - 1}" for place in range(world - 1)])

    class Stage(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.module = parts[rank].module

        def forward(self, x):
            if rank == 0:
                return parts[0](input_ids=x, use_cache=False)
            given = parts[rank](x, inputs_embeds=x, use_cache=False)
            return given.logits if rank == world - 1 else given

    codec = midspan.Codec.load(MODELS["default"]) if coded else None
    stage = CodedStage(
        Stage(),
        rank,
        world,
        torch.device("cpu"),
        codec_in=None if coded == "one" else codec,
        codec_out=codec,
        settings={"quality": 5},
    )
    schedule = ScheduleGPipe(stage, 2)
    outputs = []
    for step in range(steps):
        ids = ids_of(step, (4, 16))
        outputs.append(schedule.eval(ids) if rank == 0 else schedule.eval())
    sent = (stage.bytes_sent, stage.plain_bytes)
    results.put((rank, torch.stack(outputs).detach().numpy() if rank == world - 1 else sent))
    dist.barrier()
    dist.destroy_process_group()


def run_pipeline(world, kind, coded, steps=3, wait=240):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=pipeline, args=(rank, world, port, results, kind, coded, steps), daemon=True)
        for rank in range(world)
    ]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=wait) for _ in processes)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * world
    return torch.from_numpy(found.pop(world - 1)), found


def test_stages_with_other_codecs_are_told(tmp_path, capfd):
    with pytest.raises(queue.Empty):
        run_pipeline(2, "gpt2", "one", wait=60)
    assert "this one with 0000000000000000 (0: none)" in capfd.readouterr().err


@pytest.mark.parametrize("world", [2, 4])
def test_a_pipeline_is_coded(kind, world):
    plain, nothing = run_pipeline(world, kind, False)
    assert all(sent == (0, 0) for sent in nothing.values())
    model = model_of(kind)
    with torch.no_grad():
        for step, logits in enumerate(plain):
            assert torch.allclose(model(input_ids=ids_of(step, (4, 16))).logits, logits, rtol=1e-4, atol=1e-4)
    coded, sent = run_pipeline(world, kind, True)
    for bytes_sent, plain_bytes in sent.values():
        assert plain_bytes == 3 * 4 * 16 * WIDTH * 4 and 0 < bytes_sent < plain_bytes / 3
    # What the codec does to the model, as one process finds it: boundary by boundary, in the last step.
    codec = midspan.Codec.load(MODELS["default"])
    path = KINDS[kind].rsplit(".", 1)[0]
    ends = [4 * (place + 1) // world - 1 for place in range(world - 1)]
    links = [mt.Through(model, f"{path}.{end}", codec, quality=5) for end in ends]
    with torch.no_grad():
        for link in links:
            link.__enter__()
        want = model(input_ids=ids_of(2, (4, 16)), use_cache=False).logits
    assert torch.allclose(coded[2], want, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(coded[2], plain[2], rtol=1e-3, atol=1e-3)
    assert (coded[2].argmax(-1) == plain[2].argmax(-1)).float().mean() > 0.8
