// Bytes and values are those of the Rust library, bit for bit.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';

import { decode, encode } from './scripts.mjs';
import { MODELS, bytesOf, codecOf, pathOf, rust, states } from './support.mjs';

const SCRIPT = `\
push 0 1
push 1 2
push 2 40
checkpoint
quality 1
push 40 41
rewind 38
push 41 44
extension 27 note
reset
push_y 44 46
exact f32 46
exact bf16 47
push 48 64
end`;
const SIDE = `\
side sent 0 1 2
push 0 3
side known 0
push 3 4
side known 1 2 0 1
push 4 8
rewind 5
side known 2
push 8 9
side sent 0 1 2 0 1 2
push 9 15
end`;
const WAYS = [
  ['plain', 'open', SCRIPT],
  ['plain', 'open binding=message lanes=3 check=2', SCRIPT],
  ['plain', 'open binding=file check=0 rate_weight=0', SCRIPT],
  ['plain', 'open mode=layered lanes=2', SCRIPT.replace('exact f32 46\nexact bf16 47\n', '')],
  ['plain', 'open mode=layered binding=message datagram_limit=256', SCRIPT.replace('exact bf16 47\n', '')],
  ['default', 'open', SIDE],
  ['default', 'open mode=layered binding=message', SIDE],
  ['default', 'open quality=2 lanes=2', SIDE],
  ['default', 'open mode=layered', SIDE],
  ['predicted', 'open', 'integers 0 20\nreset\nintegers 20 21\nend'],
  ['small', 'open lanes=2', SIDE.replaceAll('push', 'integers')],
  ['small', 'open mode=layered binding=message', SIDE.replaceAll('push', 'integers')],
];

const folder = mkdtempSync(join(tmpdir(), 'midspan-wasm-'));
after(() => rmSync(folder, { recursive: true }));

for (const [model, opened, calls] of WAYS) {
  test(`a fresh stream of ${model}, ${opened}, is that of Rust`, () => {
    const [codec, script, path] = [codecOf(model), `${opened}\n${calls}`, pathOf(MODELS[model])];
    const hidden = states(codec, 64);
    const file = (name) => join(folder, name);
    writeFileSync(file('hidden'), bytesOf(hidden));
    writeFileSync(file('script'), script);
    const stream = encode(codec, hidden, script);
    assert.deepEqual(stream, rust('encode', path, file('hidden'), file('script')));

    writeFileSync(file('stream'), stream);
    const lines = decode(codec, script, stream);
    const ofRust = rust('decode', path, file('script'), file('stream')).toString().trimEnd().split('\n');
    assert.deepEqual(lines, ofRust);
    assert.ok(lines.length > 5 && lines.at(-1).startsWith('ended'));
  });
}
