"""Captures of a frozen host at its split, from its public weights.

    python capture.py --data FOLDER --states FOLDER NAME ...

NAME: stories-s2, minilm-s3, whisper-enc, whisper-dec-s2, or another split. For each, NAME.train.safetensors and
NAME.valid.safetensors in the folder of states, in the format that `midspan calibrate --states` reads: `hidden` F32
[T, E], `starts` I32 of sequences, `ids` I32 [T] where frames are tokens, and `sensitivity` F32 [E, E], the mean over
frames of g gT, g being a gradient of the outputs in the hidden state. Inputs go to NAME.PART.inputs.safetensors, for
judge.py. Needs PyTorch and safetensors; for speech, espeak-ng."""
import argparse
import os

import torch
from safetensors.torch import save_file

from hosts import host
from inputs import inputs, save

DRAWS = 4


def gradients(model, hidden, x):
    """DRAWS gradients [T, E]. For logits: of the log-likelihood of outputs drawn from the model's predictions, summed
    over positions. For a vector v: of u·v with u normal, times sqrt(T), so that the mean over frames of g gT is for a
    whole sentence (1 - cosine is half of dT g gT d)."""
    hidden = hidden.detach().requires_grad_()
    out = model.tail(hidden, x)
    for i in range(DRAWS):
        if model.kind == 'logits':
            p = out.log_softmax(-1)
            y = p.gather(-1, torch.multinomial(p.detach().exp(), 1)).sum()
        else:
            y = (out * torch.randn_like(out)).sum() * len(hidden) ** 0.5
        yield torch.autograd.grad(y, hidden, retain_graph=i + 1 < DRAWS)[0]


def capture(name, part, data, states):
    """Writes one capture."""
    model = host(name, data)
    torch.manual_seed(0)
    sequences, rows, starts, total = inputs(name, part, data, states), [], [], 0
    sensitivity = torch.zeros(model.width, model.width, dtype=torch.float64)
    for x in sequences:
        with torch.no_grad():
            hidden = model.head(x)
        for g in gradients(model, hidden, x):
            sensitivity += (g.T @ g).double() / DRAWS
        rows.append(hidden)
        starts.append(total)
        total += len(hidden)
        x.pop('cross', None)
    out = {'hidden': torch.cat(rows), 'starts': torch.tensor(starts).int(), 'sensitivity': (sensitivity / total).float()}
    if name != 'whisper-enc':
        out['ids'] = torch.cat([x['tokens'][:len(h)] for x, h in zip(sequences, rows)]).int()
    path = os.path.join(states, f'{name}.{part}')
    save_file(out, path + '.safetensors', {'host': name.rsplit('-s', 1)[0], 'split': str(model.split)})
    save(path + '.inputs.safetensors', sequences)
    print(name, part, {k: list(v.shape) for k, v in out.items()}, flush=True)


if __name__ == '__main__':
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument('--data', required=True, help='folder with the public weights and texts')
    a.add_argument('--states', required=True, help='folder of captures')
    a.add_argument('names', nargs='+')
    a = a.parse_args()
    os.makedirs(a.states, exist_ok=True)
    for name in a.names:
        for part in ('train', 'valid'):
            capture(name, part, a.data, a.states)
