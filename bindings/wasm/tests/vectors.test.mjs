// Every conformance vector, and the annotated streams of the specification, decoded by the package.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';

import { Codec, Decoder, ErrorNumber, MidspanError, Reader, bytesOf, read } from './support.mjs';

const FOLDERS = ['conformance/vectors', 'spec/examples'];
const VECTORS = FOLDERS.flatMap((folder) =>
  JSON.parse(read(`${folder}/manifest.json`)).vectors.map((vector) => ({ folder, ...vector })),
);
const WHOLE = 2 ** 30;
// They join at frames beyond JavaScript's whole numbers.
const BEYOND = [
  'bad-index-batch',
  'bad-index-exact',
  'bad-index-frame',
  'index-top',
  'order-index-check',
  'order-index-exact',
  'order-index-payload',
  'order-side-index',
];

/** The pieces of a stream that are handed in. */
function partsOf(vector, stream, cut) {
  const skip = vector.join?.offset ?? 0;
  if (vector.binding === 'stream') {
    const parts = [];
    for (let at = skip; at < stream.length; at += cut) parts.push(stream.subarray(at, Math.min(at + cut, stream.length)));
    return parts;
  }
  const parts = [];
  let at = 0;
  for (let rest = stream; rest.length > 0; ) {
    const length = rest.readUInt32LE(0);
    if (at >= skip) parts.push(rest.subarray(4, 4 + length));
    at += length;
    rest = rest.subarray(4 + length);
  }
  return parts;
}

const headerOf = (vector, stream) =>
  vector.binding === 'stream' ? stream : stream.subarray(4, 4 + stream.readUInt32LE(0));

const VERDICTS = { wConfirmed: 'w_confirmed', yConfirmed: 'y_confirmed', yUnverifiable: 'y_unverifiable' };
const snake = (type) => type.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** What is left of a stream's frames, and the reports of its events. */
class Timeline {
  w = new Map();
  y = new Map();
  hidden = new Map();
  concealed = new Set();
  statuses = [];
  reports = [];

  set(map, event, values) {
    const width = values.length / event.count;
    for (let place = 0; place < event.count; place++) {
      map.set(event.index + place, bytesOf(values.slice(place * width, (place + 1) * width)));
    }
  }

  add(event) {
    const { type, index, count } = event;
    switch (type) {
      case 'frames':
      case 'exactFrame':
        this.set(this.w, event, event.w);
        this.set(this.y, event, event.y);
        this.set(this.hidden, event, type === 'frames' ? event.hidden : event.exact);
        this.reports.push(type === 'frames' ? ['frames', index, count] : ['exact_frame', index]);
        break;
      case 'hyperPrior':
        this.set(this.w, event, event.w);
        this.reports.push(['hyper_prior', index, count]);
        break;
      case 'targets':
        this.set(this.y, event, event.y);
        this.set(this.hidden, event, event.hidden);
        if (event.concealed) for (let place = 0; place < count; place++) this.concealed.add(index + place);
        else this.statuses.push('usable');
        this.reports.push([event.concealed ? 'concealed' : 'targets', index, count]);
        break;
      case 'targetPart':
        this.statuses.push('usable');
        this.reports.push(['part', index, event.firstElement, event.endElement]);
        break;
      case 'targetEarly':
        this.statuses.push('early');
        this.reports.push(['early', index, count]);
        break;
      case 'targetRefused':
        this.statuses.push(snake(event.reason));
        this.reports.push(['refused', snake(event.reason)]);
        break;
      case 'verdict':
        this.reports.push(['verdict', index, event.endIndex, VERDICTS[event.verdict]]);
        break;
      case 'sideIndices':
        this.reports.push(['side_indices', index, count, ...event.indices]);
        break;
      case 'working':
      case 'sideWanted':
        break;
      case 'opened':
        this.reports.push(['opened']);
        break;
      case 'quality':
        this.reports.push(['quality', event.quality]);
        break;
      case 'extension':
        this.reports.push(['extension', event.id]);
        break;
      case 'targetsOverdue':
      case 'targetsDropped':
        this.reports.push([snake(type).slice('targets_'.length), index, count]);
        break;
      default:
        assert.ok(['reset', 'model', 'rewound', 'ended'].includes(type), type);
        this.reports.push([type, index]);
        if (type === 'rewound') {
          for (const map of [this.w, this.y, this.hidden]) {
            for (const frame of [...map.keys()]) if (frame >= index) map.delete(frame);
          }
          for (const frame of [...this.concealed]) if (frame >= index) this.concealed.delete(frame);
        }
    }
  }
}

function sha256(map) {
  const hash = createHash('sha256');
  for (const frame of [...map.keys()].sort((a, b) => a - b)) hash.update(map.get(frame));
  return hash.digest('hex');
}

/** An event, or null. An error of the stream is final, whatever is called. */
function poll(decoder) {
  let event;
  try {
    event = decoder.poll();
  } catch (error) {
    if (error.number < 800) {
      for (const call of ['poll', 'push', 'pushMessage']) {
        assert.throws(
          () => decoder[call](Buffer.from('0')),
          ({ number }) => number === error.number || number === ErrorNumber.NOT_AVAILABLE,
        );
      }
    }
    throw error;
  }
  return event.type === 'needMore' || event.type === 'endOfStream' ? null : event;
}

function handIn(decoder, vector, parts, timeline) {
  const side = [...(vector.side ?? [])];
  const events = () => {
    for (let event = poll(decoder); event !== null; event = poll(decoder)) {
      timeline.add(event);
      if (event.type === 'targetsOverdue' && vector.conceal === 'overdue') decoder.conceal(event.index, event.count);
      if (event.type === 'sideWanted') {
        const [first, indices] = side.shift() ?? [];
        if (first === event.index) {
          try {
            decoder.giveSide(indices);
          } catch (error) {
            assert.equal(error.number, ErrorNumber.WRONG_SIDE_INDICES);
          }
        }
      }
    }
  };
  for (const part of parts) {
    if (vector.binding === 'stream') decoder.push(part);
    else decoder.pushMessage(part);
    events();
  }
  decoder.finish();
  events();
  while (vector.conceal === 'end' && decoder.oldestPending !== null) {
    decoder.conceal(decoder.oldestPending);
    events();
  }
}

// The names of chunks that are not those of the manifest.
const KINDS = { exactFrame: 'exact', modelSwitch: 'model' };

/** The kinds of the chunks, and the error, of a reader without a model. */
function container(vector, stream, parts) {
  const binding = vector.binding === 'stream' ? 'byteStream' : 'message';
  let place = vector.join?.offset ?? 0;
  const reader = vector.join
    ? Reader.join(headerOf(vector, stream), place, vector.join.index, { binding })
    : new Reader({ binding });
  const kinds = [];
  for (const part of [...parts, null]) {
    try {
      if (part === null) reader.finish();
      else if (binding === 'byteStream') reader.push(part);
      else reader.pushMessage(part);
      for (const chunk of reader) {
        assert.equal(chunk.offset, place);
        place = chunk.offset + chunk.wireLen;
        if (chunk.type !== 'header' && chunk.type !== 'footer') kinds.push(KINDS[chunk.type] ?? snake(chunk.type));
      }
    } catch (error) {
      assert.throws(
        () => reader.poll(),
        ({ number, offset }) => number === error.number && offset === error.offset,
      );
      return { kinds, error };
    }
  }
  return { kinds, error: null };
}

const kindsOf = (expected) => expected.events.map((kind) => kind.replace('target_batch', 'target'));

function check(vector, cut) {
  const { expected, folder } = vector;
  const stream = read(`${folder}/${vector.stream}`);
  const models = vector.models.map((model) => Codec.fromBytes(read(`${folder}/${model}`), { memoryLimit: 1 << 24 }));
  const parts = partsOf(vector, stream, cut);
  const timeline = new Timeline();
  const options = {
    models: models.slice(1),
    binding: vector.binding === 'stream' ? 'byteStream' : 'message',
    hostDigest: vector.host === undefined ? null : Buffer.from(vector.host, 'hex'),
    keepIntegers: true,
  };
  let decoder = null;
  let failure = null;
  try {
    decoder = vector.join
      ? Decoder.join(models[0], headerOf(vector, stream), vector.join.offset, vector.join.index, options)
      : new Decoder(models[0], options);
    handIn(decoder, vector, parts, timeline);
  } catch (error) {
    if (!(error instanceof MidspanError)) throw error;
    failure = error;
  }
  if (BEYOND.includes(vector.name)) {
    // No number stands for another one.
    assert.equal(failure?.number, ErrorNumber.NOT_AVAILABLE);
    assert.ok(failure.found > 2n ** 53n);
    assert.throws(() => decoder.poll(), { number: ErrorNumber.NOT_AVAILABLE });
  } else if (failure !== null) {
    assert.ok(!vector.valid, failure.stack);
    assert.deepEqual([failure.number, failure.offset ?? 0], [expected.code, expected.offset], failure.message);
    if (decoder !== null && expected.confirmed !== undefined) {
      assert.deepEqual([decoder.confirmedIndex, decoder.resumeIndex], [expected.confirmed, expected.resume]);
    }
    if (vector.container_only) {
      const { kinds, error } = container(vector, stream, parts);
      assert.deepEqual([error.number, error.offset], [failure.number, failure.offset]);
      assert.deepEqual(kinds, kindsOf(expected));
    }
  } else {
    assert.ok(vector.valid, 'it was not refused');
    assert.deepEqual(timeline.reports, expected.reports);
    assert.deepEqual(timeline.statuses, expected.target_status);
    assert.equal(timeline.w.size, expected.frames);
    assert.deepEqual([...timeline.concealed].sort((a, b) => a - b), expected.concealed);
    assert.deepEqual([...timeline.w.keys()].filter((frame) => !timeline.y.has(frame)), expected.missing);
    assert.deepEqual([decoder.confirmedIndex, decoder.resumeIndex], [expected.confirmed, expected.resume]);
    assert.equal(sha256(timeline.w), expected.w_sha256);
    assert.equal(sha256(timeline.y), expected.y_sha256);
    assert.equal(sha256(timeline.hidden), expected.hidden_sha256);
    const { kinds, error } = container(vector, stream, parts);
    assert.equal(error, null);
    assert.deepEqual(kinds, kindsOf(expected));
  }
  decoder?.close();
  models.forEach((model) => model.close());
}

for (const vector of VECTORS) {
  test(`${vector.name}`, () => {
    try {
      for (const model of vector.models) {
        Codec.fromBytes(read(`${vector.folder}/${model}`), { memoryLimit: 1 << 24 }).close();
      }
    } catch (error) {
      const { code, others = [] } = vector.expected;
      assert.ok(error instanceof MidspanError && [code, ...others].includes(error.number), error.stack);
      return;
    }
    // Streams are handed in whole, byte by byte, and in pieces of seven; messages are whole in any case.
    for (const cut of vector.binding === 'stream' ? [WHOLE, 1, 7] : [WHOLE]) check(vector, cut);
  });
}

test('there are vectors', () => assert.ok(VECTORS.length >= 600));
