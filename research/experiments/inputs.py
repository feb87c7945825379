"""What the hosts read: a list of dicts of tensors for each family, train and valid (held out).

`data` holds, beside the weights, text/tinystories_sample.txt, text/novels_train.txt, text/novels_valid.txt and
speech/*.wav (recordings at 16 kHz, held out only); `states` is where captures are kept. Speech is read by espeak-ng."""
import os
import random
import re
import subprocess
import tempfile
import wave

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from hosts import MiniLM, Stories, Whisper

VOICES = [('en-us', ''), ('en-us', '+f2'), ('en-us', '+m3'), ('en-gb', '+f4'), ('en-gb', '+m7'), ('en-gb-x-rp', ''),
          ('en-gb-x-rp', '+f3'), ('en-gb-scotland', '+m1'), ('en-029', '+f1'), ('en-us-nyc', '+m2')]
HELD_OUT_VOICE = ('en-gb-x-gbclan', '+m5')


def save(path, sequences):
    save_file({f'{i:05}.{k}': (v * 32768).short() if k == 'audio' else v.int()
               for i, s in enumerate(sequences) for k, v in s.items() if k in ('tokens', 'audio')}, path)


def load(path):
    out = {}
    for key, v in sorted(load_file(path).items()):
        i, k = key.split('.')
        out.setdefault(int(i), {})[k] = v.float() / 32768 if k == 'audio' else v
    return list(out.values())


def stories(part, data, states):
    s = Stories(0, data)
    if part == 'train':
        path = os.path.join(states, 'stories.train.inputs.safetensors')
        if not os.path.exists(path):
            torch.manual_seed(1)
            save(path, [{'tokens': t} for t in s.generate(196, 512, 1.0)])
        return load(path)
    ids = [s.BOS] + s.encode(open(os.path.join(data, 'text/tinystories_sample.txt')).read())
    return [{'tokens': torch.tensor(ids[i:i + 512])} for i in range(0, 512 * 40, 512)]


def passages(part, seed, data):
    """Sentences from random places of the novels, without end."""
    rng, lines = random.Random(seed), [l for l in open(os.path.join(data, f'text/novels_{part}.txt')) if len(l) > 40]
    while True:
        yield re.split(r'(?<=[.!?]) +', rng.choice(lines).strip())


def minilm(part, data):
    m, rng, out, frames = MiniLM(0, data), random.Random(2), [], 0
    lines = open(os.path.join(data, f'text/novels_{part}.txt')).read().split('\n')
    while frames < (50000 if part == 'train' else 10000):
        i, limit = rng.randrange(len(lines)), rng.randint(8, 128)  # whole sentences up to a random limit, or one cut there
        sentences = re.split(r'(?<=[.!?]) +', ' '.join(lines[i:i + 30]))[:100]
        rest = iter(sentences[rng.randrange(min(10, len(sentences))):])
        ids = m.encode(next(rest), limit)
        for more in rest:
            if len(ids) + len(more := m.encode(more, 999)[1:-1]) > limit: break
            ids[-1:-1] = more
        if len(ids) > 4: out.append({'tokens': torch.tensor(ids)}); frames += len(ids)
    return out


def read(path):
    """Audio at 16 kHz; other rates are resampled by cutting the spectrum."""
    with wave.open(path) as w:
        rate, x = w.getframerate(), np.frombuffer(w.readframes(w.getnframes()), '<i2') / 32768
    if rate != 16000:
        x = np.pad(x, (0, -len(x) % 441))
        n = len(x) * 320 // 441
        x = np.fft.irfft(np.fft.rfft(x)[:n // 2 + 1], n) * (n / len(x))
    return torch.tensor(x.clip(-1, 32767 / 32768)).float()


def speech(part, data, states):
    """Recordings (held-out only) and espeak-ng; tokens are Whisper's own greedy transcript. Kept in a file."""
    path = os.path.join(states, f'speech.{part}.inputs.safetensors')
    if not os.path.exists(path):
        assert part == 'train' or HELD_OUT_VOICE not in VOICES
        w, rng, out, tokens = Whisper(data), random.Random(4), [], 0
        source = passages(part, 5, data)
        audio = [read(os.path.join(data, f'speech/spk{s}_snt{i}.wav')) for s, n in ((1, 6), (2, 2)) for i in range(1, n + 1)] if part == 'valid' else []
        while tokens < (10000 if part == 'train' else 2500):
            if audio: a = audio.pop(0)
            else:
                voice, variant = rng.choice(VOICES) if part == 'train' else HELD_OUT_VOICE
                sentences, limit = next(source) + next(source) + next(source), rng.randint(40, 340)
                text = ' '.join(sentences[rng.randrange(len(sentences) - 2):])[:limit].rsplit(' ', 1)[0]
                with tempfile.NamedTemporaryFile(suffix='.wav') as f:
                    subprocess.run(['espeak-ng', '-v', voice + variant, '-s', str(rng.randint(130, 190)), '-w', f.name, '--', text], check=True)
                    a = read(f.name)
            if not 16000 <= len(a) <= 470000: continue
            ids = w.transcribe(a)
            if ids[-1] != w.END or len(ids) - 3 > 8 * len(a) / 16000:  # it went round in circles
                continue
            out.append({'audio': a, 'tokens': torch.tensor(ids)})
            tokens += len(ids) - 1
        save(path, out)
    return load(path)


def inputs(name, part, data, states):
    """The inputs of a host's capture."""
    if name.startswith('stories'):
        return stories(part, data, states)
    if name.startswith('minilm'):
        return minilm(part, data)
    out = speech(part, data, states)
    if name == 'whisper-enc' and part == 'train':  # as many as make 40,000 frames
        ends = np.cumsum([-(-len(s['audio']) // 320) for s in out])
        out = out[:int(np.searchsorted(ends, 40000)) + 1]
    return out
