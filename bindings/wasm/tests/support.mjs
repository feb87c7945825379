// What all tests share: the package, models, hidden states, and the Rust library to compare with.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath, pathToFileURL } from 'node:url';

/** The repository. */
export const ROOT = new URL('../../../', import.meta.url);
/** The package's folder: what build.sh made, unless MIDSPAN_PACKAGE names another one. */
export const PACKAGE = process.env.MIDSPAN_PACKAGE
  ? pathToFileURL(`${process.env.MIDSPAN_PACKAGE}/`)
  : new URL('../pkg/', import.meta.url);
export const midspan = await import(new URL('node.js', PACKAGE));
export const { Codec, Decoder, Encoder, ErrorNumber, MidspanError, Reader, Writer } = midspan;

export const MODELS = {
  plain: 'src/example.safetensors',
  // The default model, which takes side indices.
  default: 'crates/midspan-cli/model/codec.safetensors',
  // Without an encoder's part: they code integers.
  small: 'spec/examples/side.safetensors',
  predicted: 'spec/examples/predicted.safetensors',
  other: 'spec/examples/other.safetensors',
};

export const pathOf = (file) => fileURLToPath(new URL(file, ROOT));
export const read = (file) => readFileSync(new URL(file, ROOT));

const codecs = new Map();

/** The model of this name, read once. */
export function codecOf(name) {
  if (!codecs.has(name)) codecs.set(name, Codec.fromBytes(read(MODELS[name])));
  return codecs.get(name);
}

/** Hidden states [frames, E] within the range of every quality: the sum of three draws for each value. */
export function states(codec, frames, seed = 1) {
  let state = seed >>> 0;
  const draw = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32 - 0.5;
  };
  return Float32Array.from({ length: frames * codec.hiddenWidth }, () => 0.6 * (draw() + draw() + draw()));
}

/** Frames `from` to before `to` of hidden states. */
export const rows = (codec, hidden, from, to) => hidden.subarray(from * codec.hiddenWidth, to * codec.hiddenWidth);

export const utf8 = (text) => new TextEncoder().encode(text);

/** The bytes that a typed array shows. */
export const bytesOf = (array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

/** Fails unless a call throws a MidspanError of this number; gives the error. */
export function refused(call, number, fault) {
  let found;
  assert.throws(call, (error) => {
    found = error;
    assert.ok(error instanceof MidspanError, `${error?.stack}`);
    assert.equal(error.number, number, error.message);
    assert.equal(ErrorNumber[error.code], number);
    if (fault !== undefined) assert.equal(error.fault, fault);
    return true;
  });
  return found;
}

/** Runs examples/rust.rs of the Python package, which MIDSPAN_RUST names if it is built already. */
export function rust(...words) {
  let program = process.env.MIDSPAN_RUST;
  if (program === undefined) {
    const build = ['build', '-q', '--release', '-p', 'midspan-python', '--example', 'rust'];
    execFileSync('cargo', build, { cwd: pathOf('.'), stdio: 'inherit' });
    program = `${process.env.CARGO_TARGET_DIR ?? pathOf('target')}/release/examples/rust`;
    process.env.MIDSPAN_RUST = program;
  }
  return execFileSync(program, words, { maxBuffer: 1 << 28 });
}
