// The page in headless Chromium: `node --test bindings/wasm/tests/page.browser.mjs`. With MIDSPAN_PICTURES, it leaves
// pictures in that folder.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, beforeEach, test } from 'node:test';

import { open } from './browser.mjs';
import { Encoder, MODELS, Reader, codecOf, read, rows, states } from './support.mjs';

let opened;
let page;

before(async () => {
  opened = await open('page/');
  ({ page } = opened);
});
after(() => opened?.close());
beforeEach(() => page.reload());

/** Drops files onto the page, as a person does. */
async function drop(...files) {
  const given = files.map(([name, bytes]) => [name, Buffer.from(bytes).toString('base64')]);
  const transfer = await page.evaluateHandle((files) => {
    const made = new DataTransfer();
    for (const [name, data] of files) {
      made.items.add(new File([Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0))], name));
    }
    return made;
  }, given);
  await page.dispatchEvent('main', 'drop', { dataTransfer: transfer });
}

const state = (pattern) => page.waitForFunction((text) => new RegExp(text).test(document.getElementById('state').textContent), pattern);
const textOf = (selector) => page.textContent(selector);

async function figuresOf(selector) {
  return Object.fromEntries(
    await page.$$eval(`${selector} div`, (all) => all.map((one) => [one.children[0].textContent, one.children[1].textContent])),
  );
}

async function picture(name) {
  const folder = process.env.MIDSPAN_PICTURES;
  if (folder === undefined) return;
  mkdirSync(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
}

/** The bits of each frame of a joined stream, by the container's reader. */
function bitsOf(bytes) {
  const reader = new Reader();
  reader.push(bytes);
  const bits = new Map();
  for (const chunk of reader) {
    if (chunk.type === 'rewind') for (const frame of [...bits.keys()]) if (frame >= chunk.index) bits.delete(frame);
    const frames = chunk.type === 'batch' ? chunk.frames : ['frame', 'exactFrame'].includes(chunk.type) ? 1 : 0;
    for (let frame = 0; frame < frames; frame++) bits.set(chunk.index + frame, (8 * chunk.wireLen) / frames);
  }
  return [...bits].sort(([a], [b]) => a - b);
}

test('an example of the specification is inspected and decoded', async () => {
  const stream = read('spec/examples/joined.bin');
  await drop(['joined.mspan', stream]);
  await state('joined.mspan: whole');
  const header = await textOf('#header-fields');
  for (const text of ['joined', 'byte stream', 'Model version7', 'Producermidspan']) assert.ok(header.includes(text), header);
  const points = await page.$$eval('#bits-plot circle', (all) => all.map((one) => [one.dataset.frame, one.dataset.value].map(Number)));
  assert.deepEqual(points, bitsOf(stream));
  assert.equal(points.length, 13);
  const kinds = await page.$$eval('#strip rect', (all) => all.map((one) => one.dataset.kind));
  const reader = new Reader();
  reader.push(stream);
  assert.equal(kinds.length, [...reader].length);
  assert.deepEqual([kinds[0], kinds.at(-1)], ['header', 'end']);
  assert.ok((await textOf('#event-rows')).includes('back to frame 6'));
  assert.equal(await page.isVisible('#fault'), false);
  assert.equal((await figuresOf('#figures')).Bytes, stream.length.toLocaleString('en'));

  await drop(['model.safetensors', read('spec/examples/model.safetensors')]);
  await state('decoded with model.safetensors');
  const decoded = await figuresOf('#decoded-figures');
  assert.deepEqual([decoded['Frames decoded'], decoded.Confirmed], ['13', '13']);
  const [low, high] = decoded.Range.split(' to ').map(Number);
  assert.ok(low < high, decoded.Range);
  assert.equal(await page.$$eval('#decoded-plot circle', (all) => all.length), 13);
  await picture('example');
});

test('a stream of the default model is inspected and decoded, whatever comes first', async () => {
  const codec = codecOf('default');
  const encoder = new Encoder(codec, { binding: 'file', fields: [{ id: 2, data: new TextEncoder().encode('a test') }] });
  const hidden = states(codec, 260);
  const ids = (from, to) => Array.from({ length: to - from }, (_, place) => (from + place) % codec.sideVocabulary);
  encoder.setSide(ids(0, 100), 'sent');
  encoder.pushHidden(rows(codec, hidden, 0, 100));
  for (let frame = 100; frame < 260; frame++) {
    if (frame === 150) encoder.setQuality(2);
    if (frame === 200) encoder.reset();
    encoder.setSide(ids(frame, frame + 1), 'sent');
    encoder.pushHidden(rows(codec, hidden, frame, frame + 1));
  }
  encoder.end();
  await drop(['codec.safetensors', read(MODELS.default)], ['text.mspan', encoder.takeBytes()]);
  await state('decoded with codec.safetensors');
  assert.ok((await textOf('#header-fields')).includes('a test'));
  const decoded = await figuresOf('#decoded-figures');
  assert.deepEqual([decoded['Frames decoded'], decoded.Confirmed], ['260', '260']);
  assert.equal(await page.getAttribute('#bits-plot svg', 'data-frames'), '260');
  assert.ok((await textOf('#event-rows')).includes('a new context at frame 200'));
  await picture('default');

  // A long one is drawn in groups.
  const long = new Encoder(codecOf('plain'));
  const many = states(codecOf('plain'), 3000);
  for (let frame = 0; frame < 3000; frame++) long.pushHidden(rows(codecOf('plain'), many, frame, frame + 1));
  long.end();
  await drop(['long.mspan', long.takeBytes()]);
  await state('decoding stopped');
  assert.ok((await textOf('#decoded-fault')).includes('WRONG_MODEL'));
  assert.equal(await page.getAttribute('#bits-plot svg', 'data-frames'), '3000');
  assert.ok((await page.$$eval('#strip rect', (all) => all.length)) <= 1600);
  await picture('long');
});

test('side indices that the stream leaves out are asked for', async () => {
  const codec = codecOf('default');
  const encoder = new Encoder(codec);
  encoder.setSide([1], 'known');
  encoder.pushHidden(states(codec, 1));
  encoder.end();
  await drop(['known.mspan', encoder.takeBytes()], ['codec.safetensors', read(MODELS.default)]);
  await state('decoding stopped');
  assert.ok((await textOf('#decoded-fault')).includes('leaves out the side indices of 1 frame from frame 0'));
});

test('layered streams are inspected and decoded', async () => {
  await drop(['layered.mspan', read('spec/examples/layered.bin')], ['model.safetensors', read('spec/examples/model.safetensors')]);
  await state('decoded with');
  assert.ok((await textOf('#header-fields')).includes('layered'));
  assert.notEqual((await figuresOf('#decoded-figures'))['Frames decoded'], '0');
});

test('a broken stream is shown up to where it is broken', async () => {
  const stream = Buffer.from(read('spec/examples/joined.bin'));
  const place = Math.floor(stream.length / 2);
  stream[place] ^= 1;
  await drop(['broken.mspan', stream], ['model.safetensors', read('spec/examples/model.safetensors')]);
  await state('decoding stopped');
  const fault = await textOf('#fault');
  assert.match(fault, /\(\d{3}\) at byte \d+/);
  assert.ok((await page.$$eval('#strip rect', (all) => all.map((one) => one.dataset.kind))).at(-1) === 'not read');
  assert.ok(Number((await figuresOf('#decoded-figures'))['Frames decoded']) > 0);
  await picture('broken');

  await drop(['cut.mspan', stream.subarray(0, 60)]);
  await state('cut.mspan: broken');
  assert.ok((await textOf('#fault')).includes('TRUNCATED'));
});

test('garbage is one error, and the page goes on', async () => {
  for (const [name, bytes] of [
    ['garbage.mspan', Uint8Array.from({ length: 200_000 }, (_, place) => (place * 7919) % 251)],
    ['zeros.mspan', new Uint8Array(3_000_000)],
    ['empty.mspan', new Uint8Array()],
  ]) {
    await drop([name, bytes]);
    await state(`${name}: broken`);
    assert.ok(await page.isVisible('#fault'));
    assert.equal(await page.isVisible('#header'), false);
  }
  await picture('garbage');
  await drop(['nonsense.safetensors', Buffer.from('nonsense')]);
  await state('is no model');
  assert.ok((await textOf('#decoded-fault')).includes('MODEL_FILE_SYNTAX'));
  await page.setInputFiles('#choose-stream', { name: 'file.mspan', mimeType: '', buffer: Buffer.from(read('spec/examples/file.bin')) });
  await state('file.mspan: whole');
  assert.ok((await textOf('#header-fields')).includes('with a seek index'));
  assert.equal(await page.isVisible('#fault'), false);
});

test('nothing went wrong that the page did not show', () => assert.deepEqual(opened.errors, []));

test('the page is one without a framework', () => {
  const html = readFileSync(new URL('../page/index.html', import.meta.url), 'utf8');
  assert.deepEqual([...html.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, file]) => file), ['data:,', 'style.css', 'page.js']);
});
