"""Frozen models cut in two, in PyTorch: head(inputs) -> hidden [T, E] float32, tail(hidden, inputs) -> outputs.

`inputs` is a dict of tensors for one sequence: `tokens` int [N] and, for Whisper, `audio` float [samples] at 16 kHz.
Tails are differentiable in `hidden`. Split k is the residual stream after block k. `kind` is 'logits' (tail gives
[positions, vocabulary]) or 'vector' (tail gives a unit sentence vector). `data` is a folder with the public weights:

    lm/stories260K.llama2c.bin, lm/stories260K.tok512.bin    stories260K, as llama2.c writes it
    hosts/minilm-l6/model.safetensors, tokenizer.json         all-MiniLM-L6-v2, Hugging Face names
    hosts/whisper-tiny.en/model.safetensors, tokenizer.json   Whisper tiny.en, Hugging Face names
"""
import functools
import json
import os
import re
import struct
import unicodedata

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file


class Weights:
    """Tensors by name, as float32; linear() and norm() by the name's stem."""
    def __init__(self, path):
        self.t = {k: v.float() for k, v in load_file(path).items() if v.is_floating_point()}

    def linear(self, name, x):
        return F.linear(x, self.t[name + '.weight'], self.t.get(name + '.bias'))

    def norm(self, name, x, eps):
        return F.layer_norm(x, x.shape[-1:], self.t[name + '.weight'], self.t[name + '.bias'], eps)


def attend(q, k, v, heads, causal=False):
    """q [T,E], k and v [S,E] -> [T,E]"""
    q, k, v = (a.reshape(a.shape[0], heads, -1).transpose(0, 1) for a in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(0, 1).flatten(1)


class Stories:
    """stories260K, llama2.c legacy file. Inputs: tokens [T] or [B,T]; hidden [T,64] or [B,T,64]."""
    kind, width = 'logits', 64
    BOS = 1

    def __init__(self, split, data):
        self.split, self.data = split, data
        with open(os.path.join(data, 'lm/stories260K.llama2c.bin'), 'rb') as f:
            d, h, self.layers, self.heads, self.kv, v, self.context = struct.unpack('7i', f.read(28))
            values = torch.from_numpy(np.fromfile(f, '<f4'))
        n, hs = self.layers, d // self.heads
        assert v > 0  # classifier shared with the embedding
        for name, shape in dict(emb=(v, d), att=(n, d), q=(n, d, d), k=(n, self.kv * hs, d), v=(n, self.kv * hs, d),
                                o=(n, d, d), ffn=(n, d), w1=(n, h, d), w2=(n, d, h), w3=(n, h, d), final=(d,)).items():
            size = int(np.prod(shape))
            setattr(self, name, values[:size].reshape(shape)); values = values[size:]
        angle = torch.arange(self.context)[:, None] * 10000.0 ** (-torch.arange(0, hs, 2) / hs)
        self.rotation = torch.polar(torch.ones_like(angle), angle)  # [context, hs/2]

    def rms(self, x, w):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * w

    def rope(self, x, start):  # x [...,heads,T,hs]; pairs are neighbours
        pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * self.rotation[start:start + x.shape[-2]]).flatten(-2)

    def block(self, i, x, cache=None):
        """cache, a list [keys, values] or [], makes x the frames that follow those in it."""
        a = self.rms(x, self.att[i])
        q, k, v = (F.linear(a, w[i]).unflatten(-1, (h, -1)).transpose(-3, -2)
                   for w, h in ((self.q, self.heads), (self.k, self.kv), (self.v, self.kv)))
        start = cache[0].shape[-2] if cache else 0
        q, k = self.rope(q, start), self.rope(k, start)
        if cache is not None:
            if cache: k, v = torch.cat([cache[0], k], -2), torch.cat([cache[1], v], -2)
            cache[:] = [k, v]
        k, v = (a.repeat_interleave(self.heads // self.kv, -3) for a in (k, v))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=q.shape[-2] > 1)
        x = x + F.linear(a.transpose(-3, -2).flatten(-2), self.o[i])
        a = self.rms(x, self.ffn[i])
        return x + F.linear(F.silu(F.linear(a, self.w1[i])) * F.linear(a, self.w3[i]), self.w2[i])

    def head(self, inputs, caches=None):
        x = self.emb[inputs['tokens'].long()]
        for i in range(self.split): x = self.block(i, x, caches and caches[i])
        return x

    def tail(self, hidden, inputs=None, caches=None):
        x = hidden
        for i in range(self.split, self.layers): x = self.block(i, x, caches and caches[i])
        return F.linear(self.rms(x, self.final), self.emb)

    @torch.no_grad()
    def generate(self, count, length, temperature):
        """[count, length] tokens from BOS; temperature 0 is greedy."""
        tokens, caches = torch.full((count, 1), self.BOS), [_Cache() for _ in range(self.layers)]
        while tokens.shape[1] < length:
            last = {'tokens': tokens[:, -1:]}
            logits = self.tail(self.head(last, caches), last, caches)[:, -1]
            new = torch.multinomial(F.softmax(logits / temperature, -1), 1) if temperature else logits.argmax(-1, True)
            tokens = torch.cat([tokens, new], 1)
        return tokens

    @functools.cached_property
    def pieces(self):
        data, pieces, at = open(os.path.join(self.data, 'lm/stories260K.tok512.bin'), 'rb').read(), [], 4
        while at < len(data):
            score, n = struct.unpack_from('<fi', data, at)
            pieces.append((data[at + 8:at + 8 + n], score)); at += 8 + n
        return pieces

    def encode(self, text):
        """SentencePiece BPE; no piece but a whole one has a space elsewhere than in front, so words go one by one."""
        ids = {p: i for i, (p, _) in enumerate(self.pieces)}

        @functools.cache
        def word(w):
            out = []
            for c in w:
                c = c.encode()
                out += [ids[c]] if c in ids else [b + 3 for b in c]
            while True:
                pairs = [(self.pieces[j][1], -i, j) for i in range(len(out) - 1)
                         if (j := ids.get(self.pieces[out[i]][0] + self.pieces[out[i + 1]][0])) is not None
                         and out[i] >= 259 and out[i + 1] >= 259]
                if not pairs: return out
                _, i, j = max(pairs)
                out[-i:-i + 2] = [j]
        return [i for w in re.findall(r' [^ ]*', ' ' + text) for i in word(w)]

    def decode(self, tokens):
        return b''.join(bytes([t - 3]) if 3 <= t < 259 else b'' if t < 3 else self.pieces[t][0] for t in tokens).decode('utf-8', 'replace')


class _Cache(list):
    def __bool__(self): return len(self) > 0


class MiniLM:
    """all-MiniLM-L6-v2. Inputs: tokens [T] with [CLS] and [SEP]; tail gives the unit sentence vector [384]."""
    kind, width, heads, layers = 'vector', 384, 12, 6

    def __init__(self, split, data):
        self.split, self.data = split, data
        self.w = Weights(os.path.join(data, 'hosts/minilm-l6/model.safetensors'))

    def block(self, i, x):
        w, p = self.w, f'encoder.layer.{i}.'
        a = attend(*(w.linear(p + 'attention.self.' + n, x) for n in ('query', 'key', 'value')), self.heads)
        x = w.norm(p + 'attention.output.LayerNorm', x + w.linear(p + 'attention.output.dense', a), 1e-12)
        a = w.linear(p + 'output.dense', F.gelu(w.linear(p + 'intermediate.dense', x)))
        return w.norm(p + 'output.LayerNorm', x + a, 1e-12)

    def head(self, inputs):
        t, ids = self.w.t, inputs['tokens'].long()
        x = t['embeddings.word_embeddings.weight'][ids] + t['embeddings.position_embeddings.weight'][:len(ids)]
        x = self.w.norm('embeddings.LayerNorm', x + t['embeddings.token_type_embeddings.weight'][0], 1e-12)
        for i in range(self.split): x = self.block(i, x)
        return x

    def tail(self, hidden, inputs=None):
        x = hidden
        for i in range(self.split, self.layers): x = self.block(i, x)
        return F.normalize(x.mean(0), dim=0)

    @functools.cached_property
    def vocab(self):
        return json.load(open(os.path.join(self.data, 'hosts/minilm-l6/tokenizer.json')))['model']['vocab']

    def encode(self, text, limit=128):
        """WordPiece, lower case, accents stripped, at most `limit` tokens with [CLS] and [SEP]."""
        text = unicodedata.normalize('NFD', text.lower())
        text = ''.join(c for c in text if unicodedata.category(c) != 'Mn')
        out = []
        for word in re.findall(r'[^\W_]+|[^\w\s]|_', text):
            at, ids = 0, []
            while at < len(word):
                for end in range(len(word), at, -1):
                    if (i := self.vocab.get(('##' if at else '') + word[at:end])) is not None: break
                else:
                    ids = [self.vocab['[UNK]']]; break
                ids.append(i); at = end
            out += ids
        return [self.vocab['[CLS]']] + out[:limit - 2] + [self.vocab['[SEP]']]


class Whisper:
    """Whisper tiny.en; `tokens` are 50257 50362 ... 50256, and the decoder is fed all but the last."""
    width, heads, layers = 384, 6, 4
    START, PLAIN, END = 50257, 50362, 50256

    def __init__(self, data):
        self.data, self.w = data, Weights(os.path.join(data, 'hosts/whisper-tiny.en/model.safetensors'))

    @functools.cached_property
    def filters(self):  # slaney scale and normalisation, [80, 201]
        hz = lambda m: np.where(m < 15, m * 200 / 3, 1000 * np.exp((m - 15) * np.log(6.4) / 27))
        edges = hz(np.linspace(0, 15 + 27 * np.log(8) / np.log(6.4), 82))
        ramps = edges[:, None] - np.linspace(0, 8000, 201)
        rise, fall = -ramps[:-2] / np.diff(edges)[:-1, None], ramps[2:] / np.diff(edges)[1:, None]
        return torch.tensor(np.maximum(0, np.minimum(rise, fall)) * (2 / (edges[2:] - edges[:-2]))[:, None]).float()

    def mel(self, audio):
        """[80, 3000]: padded to 30 s, as the model was trained; at their own length recordings make it repeat itself."""
        audio = F.pad(audio, (0, 480000 - len(audio)))
        power = torch.stft(audio, 400, 160, window=torch.hann_window(400), return_complex=True)[:, :-1].abs() ** 2
        log = (self.filters @ power).clamp(min=1e-10).log10()
        return (log.maximum(log.max() - 8) + 4) / 4

    @torch.no_grad()
    def encoder(self, audio):
        """[1500,384] after the last norm."""
        w, p = self.w, 'model.encoder.'
        x = self.mel(audio)[None]
        for name, stride in (('conv1', 1), ('conv2', 2)):
            x = F.gelu(F.conv1d(x, w.t[p + name + '.weight'], w.t[p + name + '.bias'], stride, 1))
        x = x[0].T + w.t[p + 'embed_positions.weight']
        for i in range(self.layers):
            x = self.block(f'{p}layers.{i}.', x)
        return w.norm(p + 'layer_norm', x, 1e-5)

    def block(self, p, x, cross=None, causal=False):
        w = self.w
        def attention(name, a, source):
            q = w.linear(name + 'q_proj', a)
            k, v = source if source is not None else (w.linear(name + 'k_proj', a), w.linear(name + 'v_proj', a))
            return w.linear(name + 'out_proj', attend(q, k, v, self.heads, causal and source is None))
        x = x + attention(p + 'self_attn.', w.norm(p + 'self_attn_layer_norm', x, 1e-5), None)
        if cross is not None:
            x = x + attention(p + 'encoder_attn.', w.norm(p + 'encoder_attn_layer_norm', x, 1e-5), cross)
        a = w.norm(p + 'final_layer_norm', x, 1e-5)
        return x + w.linear(p + 'fc2', F.gelu(w.linear(p + 'fc1', a)))

    def cross(self, encoded):
        """Keys and values of the encoder's output for each decoder block."""
        return [tuple(self.w.linear(f'model.decoder.layers.{i}.encoder_attn.{n}_proj', encoded) for n in 'kv')
                for i in range(self.layers)]

    def embed(self, tokens):
        t = self.w.t
        return t['model.decoder.embed_tokens.weight'][tokens.long()] + t['model.decoder.embed_positions.weight'][:len(tokens)]

    def decode(self, x, cross, first, last):
        for i in range(first, last): x = self.block(f'model.decoder.layers.{i}.', x, cross[i], causal=True)
        return x

    def logits(self, x):
        return F.linear(self.w.norm('model.decoder.layer_norm', x, 1e-5), self.w.t['model.decoder.embed_tokens.weight'])

    @torch.no_grad()
    def transcribe(self, audio, limit=160):
        """Greedy; [220, END] are barred in front, as in the model's settings."""
        cross, tokens = self.cross(self.encoder(audio)), [self.START, self.PLAIN]
        while len(tokens) < limit and tokens[-1] != self.END:
            scores = self.logits(self.decode(self.embed(torch.tensor(tokens)), cross, 0, self.layers)[-1])
            if len(tokens) == 2: scores[[220, self.END]] = -torch.inf
            tokens.append(int(scores.argmax()))
        return tokens

    @functools.cached_property
    def pieces(self):
        keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
        rest = [b for b in range(256) if b not in keep]
        back = {chr(b): b for b in keep} | {chr(256 + i): b for i, b in enumerate(rest)}
        vocab = json.load(open(os.path.join(self.data, 'hosts/whisper-tiny.en/tokenizer.json')))['model']['vocab']
        return {i: bytes(back[c] for c in p) for p, i in vocab.items() if i < self.END}

    def text(self, tokens):
        return b''.join(self.pieces.get(int(t), b'') for t in tokens).decode('utf-8', 'replace').strip()


class WhisperEncoder(Whisper):
    """hidden: the encoder's output, 50 frames a second, those of real audio only; the tail puts the output for
    30 s of digital silence, a constant, in place of the frames of padding (transcripts stay the same).
    Outputs: the decoder's logits over the transcript. The first (after 50257) is left out: 50362 is forced there."""
    kind, split = 'logits', 'output'

    @functools.cached_property
    def silence(self):
        return self.encoder(torch.zeros(480000))

    def head(self, inputs):
        return self.encoder(inputs['audio'])[:-(-len(inputs['audio']) // 320)]

    def tail(self, hidden, inputs):
        hidden = torch.cat([hidden, self.silence[len(hidden):]])
        return self.logits(self.decode(self.embed(inputs['tokens'][:-1]), self.cross(hidden), 0, self.layers)[1:])


class WhisperDecoder(Whisper):
    """hidden: the decoder after block `split`, transcript fed in; both ends have the encoder's output."""
    kind = 'logits'

    def __init__(self, split, data):
        super().__init__(data)
        self.split = split

    def prepare(self, inputs):
        if 'cross' not in inputs:
            with torch.no_grad(): inputs['cross'] = self.cross(self.encoder(inputs['audio']))
        return inputs['cross']

    def head(self, inputs):
        return self.decode(self.embed(inputs['tokens'][:-1]), self.prepare(inputs), 0, self.split)

    def tail(self, hidden, inputs):
        return self.logits(self.decode(hidden, self.prepare(inputs), self.split, self.layers)[1:])


def host(name, data):
    """stories-s2, minilm-s3, whisper-enc, whisper-dec-s2: a family and its split."""
    if name == 'whisper-enc':
        return WhisperEncoder(data)
    family, _, split = name.rpartition('-')
    return {'stories': Stories, 'minilm': MiniLM, 'whisper-dec': WhisperDecoder}[family](int(split[1:]), data)
