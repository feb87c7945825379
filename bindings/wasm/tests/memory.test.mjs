// Nothing leaks, and an instance that has no memory is replaced.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';

import { Codec, Decoder, Encoder, MODELS, PACKAGE, Reader, codecOf, midspan, read, rows, states } from './support.mjs';

const plain = codecOf('plain');

/** How much the module's memory grows over 10,000 calls, after as many that let it settle. */
function growth(call) {
  for (let round = 0; round < 1_000; round++) call(round);
  const before = midspan.moduleMemoryBytes();
  for (let round = 0; round < 10_000; round++) call(round);
  return midspan.moduleMemoryBytes() - before;
}

test('10,000 frames through one pair of sessions take no memory', () => {
  const encoder = new Encoder(plain);
  const decoder = new Decoder(plain, { keepIntegers: true });
  const hidden = states(plain, 8);
  const grown = growth((round) => {
    encoder.pushHidden(rows(plain, hidden, round % 8, (round % 8) + 1));
    decoder.push(encoder.takeBytes());
    for (const event of decoder) assert.ok(event.type !== 'other');
  });
  assert.equal(grown, 0);
  assert.equal(decoder.nextIndex, 11_000);
});

test('10,000 pairs of sessions that are closed take no memory', () => {
  const hidden = states(plain, 2);
  const grown = growth(() => {
    const encoder = new Encoder(plain);
    encoder.pushHidden(hidden);
    const decoder = new Decoder(plain, { models: [codecOf('other')] });
    decoder.push(encoder.takeBytes());
    assert.equal([...decoder].length, 2);
    const fork = encoder.fork();
    fork.codec.close();
    fork.close();
    encoder.close();
    decoder.close();
    decoder.close();
  });
  assert.equal(grown, 0);
});

test('10,000 calls that are refused take no memory', () => {
  const decoder = new Decoder(plain);
  const encoder = new Encoder(plain);
  const grown = growth(() => {
    for (const call of [
      () => encoder.pushHidden(new Float32Array(3)),
      () => new Encoder(plain, { mode: 'both', fields: [{ id: 2, data: new Uint8Array(100) }] }),
      () => decoder.giveSide([1]),
      () => Decoder.restore(plain, new Uint8Array(100)),
      () => midspan.loadHeader(new Uint8Array(100)),
    ]) {
      assert.throws(call, midspan.MidspanError);
    }
  });
  assert.equal(grown, 0);
});

test('sessions that nobody holds are freed', { skip: globalThis.gc === undefined && 'needs --expose-gc' }, async () => {
  const open = async (count) => {
    for (let round = 0; round < count; round++) {
      new Decoder(plain).push(new Uint8Array(10_000));
      new Reader().push(new Uint8Array(10_000));
    }
    globalThis.gc();
    // Finalizers run between tasks.
    await new Promise((resolve) => setTimeout(resolve, 10));
  };
  for (let round = 0; round < 10; round++) await open(50);
  const before = midspan.moduleMemoryBytes();
  for (let round = 0; round < 20; round++) await open(50);
  assert.equal(midspan.moduleMemoryBytes(), before);
});

/** The module with no more than so many pages of memory. */
function limited(pages) {
  const bytes = readFileSync(new URL('bindings_bg.wasm', PACKAGE));
  let at = 8;
  const leb = () => {
    let value = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++];
      value |= (byte & 127) << shift;
      if (byte < 128) return value >>> 0;
    }
  };
  const encode = (value) => {
    const out = [];
    for (; value > 127; value >>>= 7) out.push((value & 127) | 128);
    return [...out, value];
  };
  while (at < bytes.length) {
    const start = at;
    const [id, length] = [bytes[at++], leb()];
    const end = at + length;
    if (id === 5) {
      const [count, flags] = [leb(), leb()];
      assert.deepEqual([count, flags & 4], [1, 0]);
      const body = [1, 1, ...encode(leb()), ...encode(pages)];
      return Buffer.concat([bytes.subarray(0, start), Buffer.from([5, ...encode(body.length), ...body]), bytes.subarray(end)]);
    }
    at = end;
  }
  throw new Error('the module has no memory');
}

test('what does not fit memory is a RangeError, and an instance that stopped is replaced', async () => {
  // A worker has an instance of its own, here of a module that may have 37.5 MiB.
  const worker = new Worker(
    `
    const { parentPort, workerData } = require('node:worker_threads');
    (async () => {
      const midspan = await import(workerData.index);
      const told = [];
      const tell = (call) => {
        try { told.push(['value', call()]); }
        catch (error) { told.push([error.name, error.code ?? '', error.message]); }
      };
      tell(() => midspan.moduleMemoryBytes());
      midspan.initSync(workerData.module);
      const codec = midspan.Codec.fromBytes(workerData.model);
      const decoder = new midspan.Decoder(codec);
      const big = new Uint8Array(40 << 20);
      tell(() => decoder.push(big));
      tell(() => new midspan.Encoder(codec).pushHidden(new Float32Array(10 << 20)));
      // Its copy fits, and the decoder's does not.
      tell(() => decoder.push(big.subarray(0, 20 << 20)));
      tell(() => decoder.poll().type);
      // The library believes that it may take more than there is.
      const encoder = new midspan.Encoder(codec, { memoryLimit: 2 ** 32 - 1 });
      const note = new Uint8Array(1 << 20);
      tell(() => { for (;;) encoder.extension(27, note); });
      tell(() => encoder.nextIndex);
      tell(() => decoder.poll());
      tell(() => codec.hiddenWidth);
      tell(() => encoder.close());
      tell(() => {
        const again = midspan.Codec.fromBytes(workerData.model);
        const sender = new midspan.Encoder(again);
        sender.pushHidden(new Float32Array(2 * again.hiddenWidth).fill(0.5));
        const receiver = new midspan.Decoder(again);
        // What is lost says so, and harms nothing that is new.
        try { codec.version; } catch {}
        encoder.close();
        receiver.push(sender.takeBytes());
        return [...receiver].map((event) => event.type).join();
      });
      tell(() => midspan.moduleMemoryBytes());
      parentPort.postMessage(told);
    })();
    `,
    {
      eval: true,
      workerData: {
        index: new URL('index.js', PACKAGE).href,
        module: limited(600),
        model: read(MODELS.plain),
      },
    },
  );
  const told = await new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
  await worker.terminate();
  const [early, push, hidden, copy, polled, stopped, encoder, decoder, codec, closed, again, memory] = told;
  assert.deepEqual(early.slice(0, 2), ['MidspanError', 'NOT_AVAILABLE']);
  assert.deepEqual(push, ['RangeError', '', `no memory for ${40 << 20} bytes`]);
  assert.deepEqual(hidden, ['RangeError', '', `no memory for ${40 << 20} bytes`]);
  assert.deepEqual(copy, ['RangeError', '', `no memory for ${20 << 20} bytes`]);
  assert.deepEqual(polled, ['value', 'needMore']);
  for (const lost of [stopped, encoder, decoder, codec]) {
    assert.deepEqual(lost.slice(0, 2), ['MidspanError', 'PANIC'], lost.join());
  }
  assert.ok(stopped[2].includes('memory'), stopped[2]);
  assert.deepEqual(closed, ['value', undefined]);
  assert.deepEqual(again, ['value', 'opened,frames']);
  // The memory is that of a new instance.
  assert.ok(memory[1] < 8 << 20, `${memory}`);
});

test('a model that is closed is freed', () => {
  const file = read(MODELS.plain);
  const grown = growth((round) => {
    if (round % 100 === 0) Codec.fromBytes(file).close();
  });
  assert.equal(grown, 0);
});
