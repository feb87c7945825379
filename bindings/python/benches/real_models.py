"""What a codec made by `midspan.torch` costs real checkpoints: bits and distortion, and bytes at a pipeline's boundary.

    python real_models.py --data DATA --program MIDSPAN --work FOLDER [--out RESULT.json] [stories minilm pipeline]

DATA has the public weights and texts that `research/experiments/hosts.py` and `inputs.py` name; MIDSPAN is the
command-line program. For each model: the checkpoint becomes a module of `transformers`, whose outputs are compared with
those of `hosts.py`; `midspan.torch.Capture` writes the hidden states of its training texts; the program calibrates a
codec from them; and held-out texts pass through `midspan.torch.Through` at each quality, one frame a chunk. `pipeline`
runs held-out texts through two processes of `torch.distributed.pipelining` over gloo, plain and coded.
"""

import argparse
import json
import operator
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
import transformers
from torch import distributed as dist
from torch.distributed.pipelining import ScheduleGPipe

import midspan
import midspan.torch
from midspan.torch.pipelining import CodedStage

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "research/experiments"))
import hosts
import inputs

STORIES_AT, MINILM_AT = "model.layers.1", "encoder.layer.2"
MICROBATCHES, ROWS, TOKENS = 4, 4, 256


def stories_model(data):
    """stories260K as a Llama of `transformers`."""
    host = hosts.Stories(2, data)
    size = host.emb.shape[1] // host.heads

    def halves(weights, heads):
        """Rows of q or k, whose rotation pairs neighbours there and halves of a head here."""
        return weights.unflatten(0, (heads, size // 2, 2)).transpose(1, 2).reshape(weights.shape)

    config = transformers.LlamaConfig(
        vocab_size=len(host.emb),
        hidden_size=host.width,
        intermediate_size=host.w1.shape[1],
        num_hidden_layers=host.layers,
        num_attention_heads=host.heads,
        num_key_value_heads=host.kv,
        max_position_embeddings=host.context,
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
    )
    state = {"model.embed_tokens.weight": host.emb, "model.norm.weight": host.final, "lm_head.weight": host.emb}
    for layer in range(host.layers):
        stem = f"model.layers.{layer}."
        state |= {
            stem + "input_layernorm.weight": host.att[layer],
            stem + "self_attn.q_proj.weight": halves(host.q[layer], host.heads),
            stem + "self_attn.k_proj.weight": halves(host.k[layer], host.kv),
            stem + "self_attn.v_proj.weight": host.v[layer],
            stem + "self_attn.o_proj.weight": host.o[layer],
            stem + "post_attention_layernorm.weight": host.ffn[layer],
            stem + "mlp.gate_proj.weight": host.w1[layer],
            stem + "mlp.down_proj.weight": host.w2[layer],
            stem + "mlp.up_proj.weight": host.w3[layer],
        }
    model = transformers.LlamaForCausalLM(config)
    model.load_state_dict(state)
    return model.eval()


def minilm_model(data):
    """all-MiniLM-L6-v2 as a BERT of `transformers`."""
    folder = Path(data) / "hosts/minilm-l6"
    model = transformers.BertModel.from_pretrained(folder, dtype=torch.float32, add_pooling_layer=False)
    return model.eval()


def vectors(output):
    """Sentence vectors, [B, E]: the mean over a sentence's tokens, normalised."""
    return F.normalize(output.last_hidden_state.mean(1), dim=-1)


def same_as_host(host, sequence, found):
    want = host.tail(host.head(sequence), sequence)
    difference = (found - want).abs().max().item()
    assert difference < 1e-3 * want.abs().max().item(), f"the converted model differs by {difference}"


def codec_of(name, model, at, sequences, options, **settings):
    """Captures and calibrates. Gives the codec and the seconds of both."""
    work = options.work / name
    begin = time.monotonic()
    with midspan.torch.Capture(model, at, work / "states", **settings) as capture:
        for row in sequences:
            capture(input_ids=row["tokens"].long()[None])
    captured = time.monotonic() - begin
    frames = sum(len(row["tokens"]) for row in sequences)
    path = work / "codec.safetensors"
    begin = time.monotonic()
    command = [options.program, "calibrate", "--out", path, "--states", *capture.paths]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    times = {"train_frames": frames, "capture_seconds": round(captured, 1)}
    return path, times | {"calibrate_seconds": round(time.monotonic() - begin, 1)}


@torch.no_grad()
def curve(model, at, codec, sequences, compare):
    """For each quality: bits a frame in real streams, and what `compare` says of plain and coded outputs."""
    batches = [row["tokens"].long()[None] for row in sequences]
    begin = time.process_time()
    plain = [model(input_ids=ids) for ids in batches]
    alone = time.process_time() - begin
    points = []
    for quality in range(codec.qualities):
        begin = time.process_time()
        settings = {"quality": quality, "streams": "new", "max_frames_per_chunk": 1}
        with midspan.torch.Through(model, at, codec, **settings) as link:
            coded = [model(input_ids=ids) for ids in batches]
        spent = time.process_time() - begin - alone
        point = {"bits": 8 * link.bytes / link.frames, "milliseconds": 1000 * spent / link.frames}
        weights = torch.tensor([float(ids.shape[1]) for ids in batches])
        measures = [compare(a, b) for a, b in zip(plain, coded)]
        for key in measures[0]:
            found = torch.tensor([measure[key] for measure in measures])
            point[key] = ((found * weights).sum() / weights.sum()).item()
        points.append(point)
        print("  " + ", ".join(f"{key} {value:.4f}" for key, value in point.items()), flush=True)
    return points


def divergence(plain, coded):
    a, b = plain.logits.log_softmax(-1), coded.logits.log_softmax(-1)
    agree = (a.argmax(-1) == b.argmax(-1)).float().mean().item()
    return {"divergence": (a.exp() * (a - b)).sum(-1).mean().item(), "agreement": agree}


def cosine(plain, coded):
    return {"cosine": (vectors(plain) * vectors(coded)).sum(-1).mean().item()}


def run(name, options):
    """Captures, calibrates and measures a model."""
    if name == "stories":
        model, host, at = stories_model(options.data), hosts.Stories(2, options.data), STORIES_AT
        train = inputs.stories("train", options.data, options.work)
        settings, compare, outputs = {}, divergence, operator.attrgetter("logits")
    else:
        model, host, at = minilm_model(options.data), hosts.MiniLM(3, options.data), MINILM_AT
        train = inputs.minilm("train", options.data)
        settings, compare, outputs = {"sensitivity": projected}, cosine, vectors
    valid = inputs.inputs(name, "valid", options.data, options.work)
    with torch.no_grad():
        same_as_host(host, valid[0], outputs(model(input_ids=valid[0]["tokens"].long()[None]))[0])
    path, result = codec_of(name, model, at, train, options, **settings)
    codec = midspan.Codec.load(path)
    result |= {"at": at, "width": codec.hidden_width, "valid_frames": sum(len(row["tokens"]) for row in valid)}
    print(f"{name}, {at}: {result}")
    return result | {"points": curve(model, at, codec, valid, compare)}


def projected(output, _mask):
    """The scalar whose gradients weigh errors by what they do to a sentence's vector: a drawn projection of it."""
    found = vectors(output)
    return (found * torch.randn_like(found)).sum() * output.last_hidden_state.shape[1] ** 0.5


class Half(torch.nn.Module):
    """A part as a stage: one tensor in, one out."""

    def __init__(self, part, last):
        super().__init__()
        self.part, self.last = part, last

    def forward(self, x):
        return self.part(x, inputs_embeds=x).logits if self.last else self.part(input_ids=x)


class Counting(CodedStage):
    """Counts the bytes of hidden states that a boundary sends as they are too."""

    sent_plain = 0

    def get_fwd_send_ops(self, fwd_chunk_id):
        operations = super().get_fwd_send_ops(fwd_chunk_id)
        self.sent_plain += sum(operation.tensor.nbytes for operation in operations)
        return operations


def stage_process(rank, port, options, path, quality, answers):
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=2)
    parts = midspan.torch.split(stories_model(options.data), STORIES_AT)
    codec = None if quality is None else midspan.Codec.load(path)
    edges = {"codec_out": codec} if rank == 0 else {"codec_in": codec}
    settings = {} if quality is None else {"settings": {"quality": quality}}
    stage = Counting(Half(parts[rank], rank == 1), rank, 2, torch.device("cpu"), **edges, **settings)
    schedule = ScheduleGPipe(stage, n_microbatches=MICROBATCHES)
    ids = pipeline_ids(options)
    with torch.no_grad():
        output = schedule.eval(ids) if rank == 0 else schedule.eval()
    answers.put((rank, stage.bytes_sent + stage.sent_plain if rank == 0 else output.argmax(-1).tolist()))
    dist.barrier()
    dist.destroy_process_group()


def pipeline_ids(options):
    sequences = inputs.inputs("stories", "valid", options.data, options.work)
    return torch.stack([row["tokens"][:TOKENS].long() for row in sequences[: MICROBATCHES * ROWS]])


def two_processes(options, path, quality):
    """Bytes that crossed the boundary, and the likeliest token of each position."""
    context = torch.multiprocessing.get_context("spawn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    answers = context.Queue()
    work = (port, options, path, quality, answers)
    processes = [context.Process(target=stage_process, args=(rank, *work)) for rank in range(2)]
    for process in processes:
        process.start()
    found = dict(answers.get() for _ in processes)
    for process in processes:
        process.join()
    return found[0], torch.tensor(found[1])


def pipeline(options):
    path = options.work / "stories/codec.safetensors"
    if not path.exists():
        sys.exit("pipeline: the codec of stories comes first")
    plain, want = two_processes(options, path, None)
    frames = MICROBATCHES * ROWS * TOKENS
    result = {"frames": frames, "plain_bytes": plain, "points": []}
    print(f"pipeline of two processes, {frames} frames: plain {plain} bytes")
    for quality in range(midspan.Codec.load(path).qualities):
        sent, found = two_processes(options, path, quality)
        agreement = (found == want).float().mean().item()
        result["points"].append({"bytes": sent, "agreement": agreement})
        print(f"  quality {quality}: {sent} bytes, the same likeliest token in {100 * agreement:.1f} %", flush=True)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["stories", "minilm", "pipeline"], help="all three by default")
    parser.add_argument("--data", required=True, help="folder of weights and texts")
    parser.add_argument("--program", required=True, help="the program midspan")
    parser.add_argument("--work", type=Path, required=True, help="folder for captures and codecs; has to be empty")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    torch.manual_seed(0)
    found = {}
    for part in options.parts:
        found[part] = pipeline(options) if part == "pipeline" else run(part, options)
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
