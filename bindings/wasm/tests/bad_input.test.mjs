// What cannot be taken is one clear error: nothing is lost, and nothing traps.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import vm from 'node:vm';

import {
  Codec,
  Decoder,
  Encoder,
  ErrorNumber,
  MODELS,
  MidspanError,
  Reader,
  Writer,
  codecOf,
  midspan,
  read,
  refused,
  rows,
  states,
  utf8,
} from './support.mjs';

const codec = codecOf('plain');
const width = codec.hiddenWidth;

function throwsType(call, text) {
  assert.throws(call, (error) => error instanceof TypeError && !(error instanceof MidspanError) && error.message.includes(text));
}

function streamOf(frames = 4, options = {}) {
  const encoder = new Encoder(codec, { identity: utf8('12345678'), ...options });
  const hidden = states(codec, frames);
  for (let frame = 0; frame < frames; frame++) encoder.pushHidden(rows(codec, hidden, frame, frame + 1));
  encoder.end();
  return encoder.takeBytes();
}

/** The error that ends the events, or null. */
function drain(session) {
  try {
    for (const event of session) assert.equal(typeof event.type, 'string');
  } catch (error) {
    assert.ok(error instanceof MidspanError, error.stack);
    assert.notEqual(error.number, ErrorNumber.PANIC, error.stack);
    return error;
  }
  return null;
}

test('a wrong type of hidden states is a TypeError', () => {
  const encoder = new Encoder(codec);
  for (const [hidden, text] of [
    [new Float64Array(width), 'Float64Array'],
    [Array(width).fill(0), 'Array'],
    [new Int32Array(width), 'Int32Array'],
    [new Uint8Array(4 * width), 'Uint8Array'],
    [new Float32Array(width).buffer, 'ArrayBuffer'],
    [new DataView(new ArrayBuffer(4 * width)), 'DataView'],
    [{ length: width, 0: 1 }, 'Object'],
    [Object.create(Float32Array.prototype), 'Float32Array'],
    [new Proxy(new Float32Array(width), {}), 'hidden'],
    ['text', 'string'],
    [3, 'number'],
    [null, 'null'],
    [undefined, 'undefined'],
    [Object.create(null), 'object'],
  ]) {
    for (const call of ['pushHidden', 'pushExact', 'quantise']) throwsType(() => encoder[call](hidden), text);
  }
  throwsType(() => encoder.pushExact(new Uint16Array(width)), 'dtype is missing');
  throwsType(() => encoder.pushExact(new Uint16Array(width), 'f32'), 'dtype');
  throwsType(() => encoder.pushExact(new Float32Array(width), 'bf16'), 'dtype');
  assert.equal(encoder.nextIndex, 0);
});

test('arrays of another realm are arrays', () => {
  const encoder = new Encoder(codec);
  encoder.pushHidden(vm.runInNewContext(`new Float32Array(${width})`));
  new Decoder(codec).push(vm.runInNewContext('new Uint8Array(3)'));
  assert.equal(encoder.nextIndex, 1);
});

test('an array whose memory was transferred is a TypeError', () => {
  const encoder = new Encoder(codec);
  const hidden = new Float32Array(width);
  const data = new Uint8Array(8);
  structuredClone(null, { transfer: [hidden.buffer, data.buffer] });
  throwsType(() => encoder.pushHidden(hidden), 'transferred');
  throwsType(() => new Decoder(codec).push(data), 'transferred');
  throwsType(() => new Decoder(codec).push(data.buffer), 'transferred');
});

test('wrong integers are a TypeError', () => {
  const encoder = new Encoder(codec);
  for (const y of [Array(width).fill(0), new Int32Array(width), new Uint16Array(width), null]) {
    throwsType(() => encoder.pushY(y), 'y');
    throwsType(() => encoder.pushIntegers(new Int16Array(width), y), 'w');
  }
  const side = new Encoder(codecOf('default'));
  for (const indices of ['text', 3, [1.5], ['a'], new Float32Array(2), [null], [true], [undefined], [NaN], Array(1), {}]) {
    throwsType(() => side.setSide(indices, 'known'), 'indices');
    throwsType(() => new Decoder(codec).giveSide(indices), 'indices');
  }
  for (const indices of [[-1], [2 ** 32], [2n ** 70n], Int8Array.of(-1), [side.codec.sideVocabulary + 1]]) {
    refused(() => side.setSide(indices, 'known'), ErrorNumber.WRONG_SIDE_INDICES, 'caller');
  }
  refused(() => encoder.setSide([1], 'known'), ErrorNumber.WRONG_SIDE_INDICES, 'caller');
  refused(() => side.setSide([1], 'maybe'), ErrorNumber.INVALID_ARGUMENT, 'caller');
});

test('a wrong shape is WRONG_SHAPE', () => {
  const encoder = new Encoder(codec);
  for (const count of [0, 1, width - 1, width + 1, 3 * width - 1]) {
    for (const call of ['pushHidden', 'pushExact', 'quantise']) {
      refused(() => encoder[call](new Float32Array(count)), ErrorNumber.WRONG_SHAPE, 'caller');
    }
    refused(() => encoder.pushY(new Int16Array(count)), ErrorNumber.WRONG_SHAPE, 'caller');
  }
  refused(() => encoder.pushExact(new Float32Array(2 * width)), ErrorNumber.WRONG_SHAPE, 'caller');
  const w = new Int16Array(codec.hyperPriorWidth);
  refused(() => encoder.pushIntegers(new Int16Array(2 * width), w), ErrorNumber.WRONG_SHAPE, 'caller');
  assert.equal(encoder.nextIndex, 0);
});

test('a value that cannot be coded is named by its place', () => {
  const encoder = new Encoder(codec);
  for (const value of [NaN, Infinity, -Infinity]) {
    const hidden = states(codec, 3);
    hidden[width + 2] = value;
    const error = refused(() => encoder.pushHidden(hidden), ErrorNumber.HIDDEN_NOT_FINITE, 'caller');
    assert.deepEqual(error.element, { frame: 1, element: 2 });
  }
  const y = new Int16Array(width).fill(codec.yRange[0] - 1, 3, 4);
  const error = refused(() => encoder.pushY(y), ErrorNumber.VALUE_OUT_OF_RANGE, 'caller');
  assert.deepEqual([error.element, error.found], [{ frame: 0, element: 3 }, codec.yRange[0] - 1]);
  assert.equal(encoder.nextIndex, 0);
});

test('side indices have to fit the push', () => {
  const side = codecOf('default');
  const encoder = new Encoder(side);
  const hidden = states(side, 2);
  refused(() => encoder.pushHidden(hidden), ErrorNumber.WRONG_SIDE_INDICES, 'caller');
  encoder.setSide([1], 'known');
  refused(() => encoder.pushHidden(hidden), ErrorNumber.WRONG_SIDE_INDICES, 'caller');
  encoder.setSide([1, 2], 'known');
  encoder.pushHidden(hidden);
  assert.equal(encoder.nextIndex, 2);
});

test('a closed session says so', () => {
  const [encoder, decoder] = [new Encoder(codec), new Decoder(codec)];
  const [reader, writer] = [new Reader(), new Writer({ fingerprint: new Uint8Array(32) })];
  const own = Codec.fromBytes(read(MODELS.plain));
  for (const session of [encoder, decoder, reader, writer, own]) {
    session.close();
    session.close();
    session[Symbol.dispose]?.();
    const getters = Object.entries(Object.getOwnPropertyDescriptors(Object.getPrototypeOf(session)));
    for (const [name, { get }] of getters) {
      if (get === undefined) continue;
      const error = refused(() => session[name], ErrorNumber.AFTER_END, 'caller');
      assert.ok(error.message.includes('closed'));
    }
  }
  for (const call of [
    () => encoder.pushHidden(states(codec, 1)),
    () => encoder.end(),
    () => encoder.takeBytes(),
    () => encoder.fork(),
    () => decoder.push(utf8('a')),
    () => decoder.poll(),
    () => [...decoder],
    () => decoder.finish(),
    () => reader.poll(),
    () => reader.save(),
    () => writer.frame(utf8('a')),
    () => new Encoder(own),
    () => new Decoder(codec, { models: [own] }),
    () => own.equals(codec),
  ]) {
    refused(call, ErrorNumber.AFTER_END, 'caller');
  }
});

test('a codec that its own options close is closed', () => {
  for (const call of [
    (own) => new Encoder(own, { get quality() { own.close(); return 0; } }),
    (own) => new Decoder(own, { get maxFrames() { own.close(); return 4; } }),
    (own) => new Decoder(codec, { models: [own], get maxFrames() { own.close(); return 4; } }),
    (own) => Encoder.restore(own, new Encoder(codec).save(), { get keepIntegers() { own.close(); return false; } }),
  ]) {
    refused(() => call(Codec.fromBytes(read(MODELS.plain))), ErrorNumber.AFTER_END);
  }
  assert.equal(drain(new Decoder(codec)), null);
});

test('a subclass of an array does not say what it holds', () => {
  const bytes = streamOf();
  const lying = (Type) => class extends Type {
    get length() { return 1; }
    get byteLength() { return 1; }
    get byteOffset() { return 8; }
  };
  const encoder = new Encoder(codec, { identity: utf8('12345678') });
  encoder.pushHidden(new (lying(Float32Array))(states(codec, 4)));
  const [want, found] = [new Encoder(codec, { identity: utf8('12345678') }), encoder];
  want.pushHidden(states(codec, 4));
  assert.deepEqual(found.takeBytes(), want.takeBytes());
  const decoder = new Decoder(codec);
  decoder.push(new (lying(Uint8Array))(bytes));
  assert.equal([...decoder].filter((event) => event.type === 'frames').length, 4);
  encoder.pushExact(new (lying(Float32Array))(width));
  encoder.pushY(new (lying(Int16Array))(width));
});

test('sessions keep a model that is closed', () => {
  const own = Codec.fromBytes(read(MODELS.plain));
  const encoder = new Encoder(own);
  own.close();
  encoder.pushHidden(states(codec, 1));
  assert.ok(encoder.codec.equals(codec));
});

test('an ended session takes nothing more', () => {
  const encoder = new Encoder(codec);
  encoder.end();
  refused(() => encoder.end(), ErrorNumber.AFTER_END, 'caller');
  refused(() => encoder.pushHidden(states(codec, 1)), ErrorNumber.AFTER_END, 'caller');
  assert.ok(encoder.takeBytes().length > 0);
  const decoder = new Decoder(codec);
  decoder.finish();
  refused(() => decoder.push(utf8('a')), ErrorNumber.AFTER_END);
});

test('wrong options are refused', () => {
  for (const [options, text] of [
    [{ mode: 3 }, 'mode'],
    [{ lanes: '1' }, 'lanes'],
    [{ lanes: 1n }, 'lanes'],
    [{ maxRewind: null }, 'maxRewind'],
    [{ keepIntegers: 1 }, 'keepIntegers'],
    [{ identity: 'identity' }, 'identity'],
    [{ fields: {} }, 'fields'],
    [{ fields: [3] }, 'fields[0]'],
    [{ fields: [{ id: '2', data: utf8('me') }] }, 'fields[0].id'],
    [{ rateWeight: '1' }, 'rateWeight'],
    [{ rewind: 3 }, 'rewind'],
    [7, 'options'],
  ]) {
    throwsType(() => new Encoder(codec, options), text);
  }
  for (const options of [{ lanes: -1 }, { lanes: 1.5 }, { lanes: 70000 }, { quality: 256 }, { memoryLimit: 2 ** 32 }, { check: NaN }]) {
    assert.throws(() => new Encoder(codec, options), RangeError);
  }
  for (const [options, number, text] of [
    [{ mode: 'both' }, ErrorNumber.INVALID_ARGUMENT, 'mode'],
    [{ binding: 'byte_stream' }, ErrorNumber.INVALID_ARGUMENT, 'byteStream'],
    [{ check: 3 }, ErrorNumber.INVALID_ARGUMENT, 'check'],
    [{ clipping: 'ignore' }, ErrorNumber.INVALID_ARGUMENT, 'clipping'],
    [{ identity: utf8('short') }, ErrorNumber.INVALID_ARGUMENT, 'identity'],
    [{ hostDigest: utf8('short') }, ErrorNumber.INVALID_ARGUMENT, 'hostDigest'],
    [{ quality: 99 }, ErrorNumber.UNKNOWN_QUALITY, ''],
    [{ lanes: 2000 }, ErrorNumber.BAD_CONFIG, 'lanes'],
    [{ maxFramesPerChunk: 0 }, ErrorNumber.BAD_CONFIG, 'maxFramesPerChunk'],
    [{ datagramLimit: 10, mode: 'layered' }, ErrorNumber.BAD_CONFIG, 'datagramLimit'],
    [{ rateWeight: NaN }, ErrorNumber.BAD_CONFIG, 'rateWeight'],
    [{ fields: [{ id: 3, data: utf8('odd') }] }, ErrorNumber.BAD_CONFIG, ''],
  ]) {
    const error = refused(() => new Encoder(codec, options), number, 'caller');
    assert.ok(error.message.includes(text), error.message);
  }
  refused(() => new Encoder(codecOf('predicted'), { mode: 'layered' }), ErrorNumber.PREDICTION_LAYERED);
  const limited = refused(() => new Encoder(codec, { memoryLimit: 10 }), ErrorNumber.MEMORY_LIMIT, 'resource');
  assert.deepEqual([limited.limit, limited.setting], ['own', 'memoryLimit']);
  for (const value of [{}, null, codec.fingerprint, new Encoder(codec), Object.create(Codec.prototype)]) {
    throwsType(() => new Encoder(value), 'codec');
    throwsType(() => new Decoder(value), 'codec');
    throwsType(() => new Decoder(codec, { models: [value] }), 'models[0]');
  }
  throwsType(() => new Codec(), 'fromBytes');
  throwsType(() => Encoder.prototype.end.call({}), 'no object');
  throwsType(() => Decoder.prototype.poll.call(undefined), 'no undefined');
});

test('indices are whole numbers', () => {
  const [encoder, decoder] = [new Encoder(codec), new Decoder(codec)];
  for (const index of [-1, 0.5, NaN, 2 ** 53, Infinity]) {
    for (const call of [
      () => encoder.rewind(index),
      () => decoder.conceal(index),
      () => decoder.missingElements(index),
      () => Reader.join(utf8('a'), index),
      () => midspan.fileSeek(utf8('a'), utf8('a'), index, 0),
    ]) {
      assert.throws(call, RangeError);
    }
  }
  throwsType(() => encoder.rewind(1n), 'index');
  refused(() => encoder.rewind(2 ** 53 - 1), ErrorNumber.REWIND_TARGET, 'caller');
});

test('a file that is no model is refused', () => {
  const file = read(MODELS.plain);
  refused(() => Codec.fromBytes(new Uint8Array()), ErrorNumber.MODEL_FILE_SYNTAX, 'model');
  for (let cut = 0; cut < file.length; cut += 997) {
    const error = (() => {
      try {
        Codec.fromBytes(file.subarray(0, cut));
      } catch (caught) {
        return caught;
      }
      return null;
    })();
    assert.ok(error instanceof MidspanError && error.fault === 'model', `${cut}: ${error?.stack}`);
  }
  const limited = refused(() => Codec.fromBytes(file, { memoryLimit: 100 }), ErrorNumber.MEMORY_LIMIT, 'resource');
  assert.deepEqual([limited.setting, limited.wanted, limited.found], ['memoryLimit', 100, file.length]);
  throwsType(() => Codec.fromBytes('file'), 'file');
  throwsType(() => Codec.fromBytes(file, { limit: 3 }), 'limit');
});

test('another model is refused before the first frame', () => {
  const decoder = new Decoder(codecOf('default'));
  decoder.push(streamOf());
  const error = refused(() => decoder.poll(), ErrorNumber.WRONG_MODEL, 'model');
  assert.deepEqual([error.wanted, error.found], [codecOf('default').fingerprint, codec.fingerprint]);
});

test('a stream that is cut anywhere is TRUNCATED', () => {
  for (const options of [{}, { binding: 'file' }, { mode: 'layered' }]) {
    const stream = streamOf(3, options);
    for (let cut = 0; cut < stream.length; cut++) {
      for (const session of [new Decoder(codec), new Reader()]) {
        session.push(stream.subarray(0, cut));
        assert.equal(drain(session), null);
        session.finish();
        const error = drain(session);
        assert.equal(error?.number, ErrorNumber.TRUNCATED, `${cut} of ${stream.length}`);
        session.close();
      }
    }
    const whole = new Decoder(codec);
    whole.push(stream);
    whole.finish();
    assert.equal(drain(whole), null);
  }
});

test('garbage is one error, and everything else goes on', () => {
  let state = 7;
  const draw = (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
  const stream = streamOf(6);
  for (let round = 0; round < 400; round++) {
    const bytes = round % 2 ? stream.slice() : Uint8Array.from({ length: draw(300) }, () => draw(256));
    if (round % 2) for (let flips = 1 + draw(3); flips > 0; flips--) bytes[draw(bytes.length)] ^= 1 << draw(8);
    for (const session of [new Decoder(codec), new Reader()]) {
      session.push(bytes);
      session.finish();
      const first = drain(session);
      if (first !== null) assert.equal(drain(session).number, first.number);
      session.close();
    }
    const datagrams = new Decoder(codec);
    datagrams.pushDatagram(bytes);
    assert.equal(drain(datagrams), null);
    datagrams.close();
  }
});

test('huge lengths take no memory', () => {
  const header = new Encoder(codec, { identity: null, maxChunkBytes: 2 ** 30, maxFramesPerChunk: 2 ** 20 }).takeBytes();
  const before = midspan.moduleMemoryBytes();
  // A batch (spec 2.3) that says that it has 2^30 bytes.
  for (const kind of [0xc0, 0xc1, 0xca, 0xe0]) {
    const limits = { maxChunkBytes: 2 ** 30, maxFrames: 2 ** 20 };
    for (const session of [new Decoder(codec, limits), new Reader(limits), new Decoder(codec), new Reader()]) {
      session.push(header);
      session.push(Uint8Array.of(kind, 0xf0, 0x40, 0, 0, 0, 1, 2, 3));
      drain(session);
      session.finish();
      assert.ok(drain(session) !== null);
      session.close();
    }
  }
  assert.ok(midspan.moduleMemoryBytes() - before < 4 << 20);
});

test('limits name the option to raise', () => {
  const encoder = new Encoder(codec);
  encoder.pushHidden(states(codec, 20));
  const data = encoder.takeBytes();
  for (const [options, setting] of [
    [{ maxFrames: 10 }, 'maxFrames'],
    [{ maxChunkBytes: 72 }, 'maxChunkBytes'],
    [{ memoryLimit: 1000 }, 'memoryLimit'],
  ]) {
    const decoder = new Decoder(codec, options);
    decoder.push(data);
    const error = drain(decoder);
    assert.deepEqual([error.fault, error.limit, error.setting], ['resource', 'own', setting]);
    assert.ok(error.message.includes(`raise ${setting}`), error.message);
  }
  const full = new Encoder(codec, { memoryLimit: 200_000 });
  let error = null;
  for (let round = 0; error === null; round++) {
    try {
      full.pushHidden(states(codec, 50));
    } catch (caught) {
      error = caught;
    }
    assert.ok(round < 10_000);
  }
  assert.deepEqual([error.number, error.setting], [ErrorNumber.MEMORY_LIMIT, 'memoryLimit']);
  full.takeBytes();
  full.pushHidden(states(codec, 1));
});

test('the wrong binding is not available', () => {
  const messages = new Encoder(codec, { binding: 'message' });
  refused(() => messages.takeBytes(), ErrorNumber.NOT_AVAILABLE, 'caller');
  const stream = new Encoder(codec);
  refused(() => stream.takeMessages(), ErrorNumber.NOT_AVAILABLE, 'caller');
  assert.deepEqual([stream.nextMessage, messages.untakenBytes], [null, 0]);
  refused(() => new Decoder(codec, { binding: 'message' }).push(utf8('a')), ErrorNumber.NOT_AVAILABLE);
  refused(() => new Decoder(codec).pushMessage(utf8('a')), ErrorNumber.NOT_AVAILABLE);
  refused(() => new Encoder(codecOf('small')).pushHidden(states(codecOf('small'), 1)), ErrorNumber.WRONG_SIDE_INDICES);
  const small = new Encoder(codecOf('small'));
  small.setSide([0], 'known');
  refused(() => small.pushHidden(states(codecOf('small'), 1)), ErrorNumber.NOT_AVAILABLE, 'caller');
});

test('bytes are nothing else', () => {
  for (const data of ['text', [1, 2], 3, null, undefined, new Float32Array(2), {}]) {
    throwsType(() => new Decoder(codec).push(data), 'data');
    throwsType(() => new Reader().pushDatagram(data), 'datagram');
    throwsType(() => midspan.loadHeader(data), 'data');
    throwsType(() => Decoder.restore(codec, data), 'saved');
  }
});
