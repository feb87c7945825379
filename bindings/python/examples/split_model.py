"""A language model of `transformers` in two processes, with Midspan between its halves.

    python split_model.py --model FOLDER --at model.layers.3 --codec codec.safetensors --prompt "Once upon a time"

The near process has the tokens and the first blocks, the far one the other blocks and the choice of the next token. The
far process learns the prompt from the stream, if the codec takes tokens as side indices, or not at all. Each step sends
the bytes of one frame there and one token back. Models and tokenizers are folders as Hugging Face has them.
"""

import argparse
import inspect
import multiprocessing
import struct

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.cache_utils import DynamicCache

import midspan
import midspan.torch


def with_cache(model):
    """The argument with a KV cache, by the name that this version of the library has for it."""
    name = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    return {name: DynamicCache(), "use_cache": True}


def near(first, codec, connection, ids, tokens, quality):
    """Runs the first half. Gives the tokens that came back, and how many bytes each step sent."""
    sender = midspan.torch.Sender(codec, quality=quality)
    cache, found, sizes = with_cache(first.module), [], []
    for step in range(tokens):
        hidden = first(input_ids=ids, **cache)
        side = (ids if codec.takes_side else None), "sent" if step == 0 else "known"
        (data,) = sender.push(hidden, side[0], delivery=side[1])
        connection.send_bytes(data)
        (token,) = struct.unpack("<I", connection.recv_bytes())
        sizes.append(len(data))
        found.append(token)
        ids = torch.tensor([[token]])
    connection.send_bytes(sender.end()[0])
    return found, sizes


def far(rest, codec, connection):
    """Runs the second half until the stream ends."""
    receiver, cache, token = midspan.torch.Receiver(codec), with_cache(rest.module), None
    while True:
        receiver.push([connection.recv_bytes()])
        hidden = receiver.take(ids=token)
        if hidden is None:
            assert receiver.events[-1][1].name == "ended"
            return
        logits = rest(hidden, inputs_embeds=hidden, **cache).logits
        token = logits[:, -1:].argmax(-1)  # [1, 1]
        connection.send_bytes(struct.pack("<I", int(token)))


def far_process(path, at, codec, connection):
    torch.set_num_threads(1)
    _, rest = midspan.torch.split(AutoModelForCausalLM.from_pretrained(path).eval(), at)
    with torch.no_grad():
        far(rest, midspan.Codec.load(codec), connection)


def generate(path, at, codec, ids, tokens, quality):
    """Generates in two processes; see `near`."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=far_process, args=(path, at, codec, there))
    process.start()
    there.close()
    first, _ = midspan.torch.split(AutoModelForCausalLM.from_pretrained(path).eval(), at)
    with torch.no_grad():
        result = near(first, midspan.Codec.load(codec), here, ids, tokens, quality)
    process.join()
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder with the model and its tokenizer")
    parser.add_argument("--at", required=True, help="the block after which it is split: model.layers.3, for instance")
    parser.add_argument("--codec", required=True, help="codec model, as midspan calibrate makes it from a capture")
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--tokens", type=int, default=50, help="how many tokens to write (default 50)")
    parser.add_argument("--quality", type=int, default=0, help="quality of the codec (default 0)")
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    ids = tokenizer(options.prompt, return_tensors="pt").input_ids
    found, sizes = generate(options.model, options.at, options.codec, ids, options.tokens, options.quality)
    print(options.prompt + tokenizer.decode(found))
    each = sum(sizes[1:]) / max(len(sizes) - 1, 1)
    print(f"prompt: {sizes[0]} bytes for {ids.shape[1]} frames; then {each:.1f} bytes a token")


if __name__ == "__main__":
    main()
