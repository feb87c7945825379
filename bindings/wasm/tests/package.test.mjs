// What the package says of itself.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

import { ErrorNumber, MODELS, PACKAGE, midspan, pathOf, read, rows, states } from './support.mjs';

const types = readFileSync(new URL('index.d.ts', PACKAGE), 'utf8');
const source = (file) => read(file).toString();

test('numbers and names of errors are those of the specification', () => {
  const ofPython = source('bindings/python/python/midspan/_errors.py').matchAll(/^ {4}([A-Z][A-Z0-9_]+) = (-?\d+)$/gm);
  // One thread runs a module, so that no call finds a session in another one.
  const expected = Object.fromEntries([...ofPython].map(([, name, number]) => [name, Number(number)]).filter(([name]) => name !== 'BUSY'));
  assert.deepEqual(ErrorNumber, expected);
  const ofSpec = [...source('spec/07-limits-errors.md').matchAll(/^\| (\d{3}) \|/gm)].map(([, number]) => Number(number));
  assert.deepEqual(Object.values(ErrorNumber).filter((number) => number > 0), ofSpec);
  for (const number of Object.values(ErrorNumber)) assert.ok(midspan.errorText(number), `${number}`);
  for (const number of [0, -1, 999, 1.5, 70_000]) assert.equal(midspan.errorText(number), null);
});

test('types declare what there is', () => {
  for (const [name, value] of Object.entries(midspan)) assert.match(types, new RegExp(`^export (class|function|const) ${name}\\b`, 'm'));
  for (const [, name] of types.matchAll(/^export (?:class|function|const) (\w+)/gm)) assert.ok(name in midspan, name);
  for (const [, name, body] of types.matchAll(/^export class (\w+)[^{]*\{\n(.*?)^\}/gms)) {
    if (name === 'MidspanError') continue;
    const declared = [...body.matchAll(/^ {2}(static |readonly )?(?:\[Symbol\.(\w+)\]|(\w+))(?=[(:])/gm)].map(
      ([, kind, symbol, method]) => `${kind === 'static ' ? kind : ''}${symbol ?? method}`,
    );
    const described = (object) =>
      Reflect.ownKeys(object).map((key) => (typeof key === 'symbol' ? key.description.replace(/^(Symbol|nodejs)\./, '') : key));
    const found = [
      ...described(midspan[name].prototype),
      ...described(midspan[name]).filter((key) => !['length', 'name', 'prototype'].includes(key)).map((key) => `static ${key}`),
    ];
    const names = new Set(declared.filter((key) => key !== 'constructor'));
    if (!('dispose' in Symbol)) names.delete('dispose');
    assert.deepEqual([...names].sort(), found.filter((key) => key !== 'constructor').sort(), name);
  }
});

test('the default options are those of Python', () => {
  const stub = source('bindings/python/python/midspan/_midspan.pyi');
  for (const name of ['Encoder', 'Decoder', 'Reader']) {
    const body = stub.slice(stub.indexOf(`class ${name}:`));
    const signature = body.slice(body.indexOf('def __new__'), body.indexOf('-> Self'));
    const expected = [...signature.matchAll(/^ {8}(\w+): .* = /gm)].map(([, option]) =>
      option.replace(/_(.)/g, (_, letter) => letter.toUpperCase()),
    );
    const file = readFileSync(new URL(`${name.toLowerCase()}.js`, PACKAGE), 'utf8');
    const limits = readFileSync(new URL('limits.js', PACKAGE), 'utf8');
    const defaults = (file.match(/const DEFAULTS = \{\n(.*?)\n\};/s)?.[1] ?? '').replace(
      '...LIMITS,',
      limits.match(/LIMITS = \{\n(.*?)\n\};/s)[1],
    );
    const text = name === 'Reader' ? limits.match(/LIMITS = \{\n(.*?)\n\};/s)[1] : defaults;
    const found = [...text.matchAll(/^ *(\w+): (.*),$/gm)];
    // A module has one thread.
    assert.deepEqual(found.map(([, option]) => option), expected.filter((option) => option !== 'threads'), name);
    for (const [, option, value] of found) {
      const python = signature.match(new RegExp(`^ {8}${option.replace(/[A-Z]/g, (l) => `_${l.toLowerCase()}`)}: .* = (.*?),?$`, 'm'))[1];
      const same = { undefined: 'None', '[]': 'None', false: 'False', "'byteStream'": '"byte_stream"' };
      assert.equal(same[value] ?? value.replaceAll("'", '"'), python, option);
    }
  }
});

test('the package holds what it names, and no path of the machine that built it', () => {
  const description = JSON.parse(readFileSync(new URL('package.json', PACKAGE)));
  const [, version] = source('Cargo.toml').match(/^version = "(.*)"$/m);
  assert.equal(description.version, version);
  const named = JSON.stringify(description.exports).match(/\.\/[\w.]+/g).filter((file) => !file.startsWith('./midspan.'));
  for (const file of [...named, description.types]) assert.ok(existsSync(new URL(file, PACKAGE)), file);
  const module = readFileSync(new URL('bindings_bg.wasm', PACKAGE));
  for (const path of [pathOf('.'), process.env.HOME ?? '/root']) {
    if (path.length > 3) assert.equal(module.indexOf(path), -1, path);
  }
});

test('the README asks for the wasm-bindgen of Cargo.lock', () => {
  const [, version] = source('Cargo.lock').match(/name = "wasm-bindgen"\nversion = "(.*)"/);
  assert.ok(source('bindings/wasm/README.md').includes(`wasm-bindgen-cli --version ${version}\n`));
});

test('the programs of the README run', async () => {
  const programs = [...source('bindings/wasm/README.md').matchAll(/```js\n(.*?)```/gs)].map(([, text]) => text);
  const [sender, receiver, container] = programs;
  const codec = midspan.Codec.fromBytes(read(MODELS.default));
  const hidden = states(codec, 5);
  const names = {
    ids: [1, 2, 3, 4, 5],
    hidden,
    model: read(MODELS.default),
    sent: [],
    seen: [],
    ...midspan,
  };
  names.transport = { send: (bytes) => names.sent.push(bytes) };
  names.secondHalf = (values) => names.seen.push(values);
  const run = (program, more = {}) => {
    const all = { ...names, ...more };
    const body = program.replace(/^import .*$/gm, '');
    return new Function(...Object.keys(all), `${body}\nreturn typeof encoder === 'undefined' ? null : encoder;`)(...Object.values(all));
  };
  run(sender);
  assert.equal(names.sent.length, 1);
  run(receiver, { codec, received: names.sent[0] });
  assert.deepEqual(names.seen.map((values) => values.length), [rows(codec, hidden, 0, 5).length]);
  const lines = [];
  run(container, { bytes: names.sent[0], console: { log: (...words) => lines.push(words) } });
  assert.deepEqual(lines.map(([, type]) => type), ['header', 'sideIndices', 'batch']);
});
