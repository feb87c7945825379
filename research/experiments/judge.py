"""What a changed `hidden` of a held-out capture does to the host's outputs.

    python judge.py --data FOLDER --states FOLDER NAME CHANGED.safetensors

divergence: mean KL(original || changed) in nats a position; agreement: share of positions with the same likeliest
output; cosine: of hidden rows, or of sentence vectors (MiniLM). Needs PyTorch and safetensors."""
import argparse
import json
import os

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from hosts import host
from inputs import load


class Judge:
    """The held-out capture of a host, and what its second half makes of it."""

    def __init__(self, name, states, data):
        self.model, path = host(name, data), os.path.join(states, f'{name}.valid')
        capture = load_file(path + '.safetensors')
        self.hidden, ends = capture['hidden'], capture['starts'].tolist()[1:] + [len(capture['hidden'])]
        self.sizes = [b - a for a, b in zip([0] + ends, ends)]
        self.inputs = load(path + '.inputs.safetensors')
        with torch.no_grad():
            self.wanted = [self.model.tail(h, x) for h, x in zip(self.hidden.split(self.sizes), self.inputs)]

    @torch.no_grad()
    def __call__(self, changed):
        changed = torch.as_tensor(changed).float()
        assert changed.shape == self.hidden.shape
        got = [self.model.tail(h, x) for h, x in zip(changed.split(self.sizes), self.inputs)]
        if self.model.kind == 'vector':
            return {'cosine': torch.stack([(a * b).sum() for a, b in zip(self.wanted, got)]).double().mean().item()}
        kl, same = [], []
        for a, b in zip(self.wanted, got):
            p, q = a.log_softmax(-1), b.log_softmax(-1)
            kl.append((p.exp() * (p - q)).sum(-1))
            same.append(a.argmax(-1) == b.argmax(-1))
        return {'divergence': torch.cat(kl).double().mean().item(), 'agreement': torch.cat(same).double().mean().item(),
                'cosine': F.cosine_similarity(changed, self.hidden).mean().item()}


if __name__ == '__main__':
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--data', required=True, help='folder with the public weights')
    a.add_argument('--states', required=True, help='folder of captures')
    a.add_argument('name')
    a.add_argument('changed')
    a = a.parse_args()
    print(json.dumps(Judge(a.name, a.states, a.data)(load_file(a.changed)['hidden'])))
