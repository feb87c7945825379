"""A language model of `transformers` in two Ray actors, with Midspan between its halves.

    python split_ray.py --model FOLDER --at model.layers.3 --codec codec.safetensors --prompt "Once upon a time"

An actor holds one half and the session of its end; what travels between them is bytes, one object for each step. The
sequence lives in the actors: a caller passes references on and waits for tokens alone.
"""

import argparse

import ray
import torch
from split_model import with_cache
from transformers import AutoModelForCausalLM, AutoTokenizer

import midspan
import midspan.torch


@ray.remote
class Near:
    """The first half, of one sequence."""

    def __init__(self, path, at, codec, quality):
        self.codec = midspan.Codec.load(codec)
        self.first = midspan.torch.split(AutoModelForCausalLM.from_pretrained(path).eval(), at)[0]
        self.sender = midspan.torch.Sender(self.codec, quality=quality)
        self.cache = with_cache(self.first.module)
        self.bytes = 0

    @torch.no_grad()
    def step(self, ids, known):
        """Tokens [1, T] in, bytes out. `known`: the far half knows these tokens, because it chose them."""
        hidden = self.first(input_ids=ids, **self.cache)
        side = ids if self.codec.takes_side else None
        (data,) = self.sender.push(hidden, side, delivery="known" if known else "sent")
        self.bytes += len(data)
        return data

    def sent(self):
        """Bytes so far."""
        return self.bytes


@ray.remote
class Far:
    """The second half, and the choice of the next token."""

    def __init__(self, path, at, codec):
        self.rest = midspan.torch.split(AutoModelForCausalLM.from_pretrained(path).eval(), at)[1]
        self.receiver = midspan.torch.Receiver(midspan.Codec.load(codec))
        self.cache = with_cache(self.rest.module)
        self.token = None

    @torch.no_grad()
    def step(self, data):
        """Bytes in, the next token [1, 1] out."""
        self.receiver.push([data])
        hidden = self.receiver.take(ids=self.token)
        logits = self.rest(hidden, inputs_embeds=hidden, **self.cache).logits
        self.token = logits[:, -1:].argmax(-1)
        return self.token


def generate(path, at, codec, ids, tokens, quality):
    """Gives the tokens, and the bytes that went between the actors."""
    near, far = Near.remote(path, at, codec, quality), Far.remote(path, at, codec)
    found, step = [], ids
    for count in range(tokens):
        step = far.step.remote(near.step.remote(step, count > 0))
        found.append(step)
    return [int(token) for token in ray.get(found)], ray.get(near.sent.remote())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder with the model and its tokenizer, on every node")
    parser.add_argument("--at", required=True, help="the block after which it is split: model.layers.3, for instance")
    parser.add_argument("--codec", required=True, help="codec model, on every node")
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--tokens", type=int, default=50, help="how many tokens to write (default 50)")
    parser.add_argument("--quality", type=int, default=0, help="quality of the codec (default 0)")
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    ids = tokenizer(options.prompt, return_tensors="pt").input_ids
    found, sent = generate(options.model, options.at, options.codec, ids, options.tokens, options.quality)
    print(options.prompt + tokenizer.decode(found))
    print(f"{sent} bytes for {ids.shape[1] + len(found) - 1} frames")


if __name__ == "__main__":
    main()
