// Calls of encoders and decoders, and what they tell.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  Codec,
  Decoder,
  Encoder,
  ErrorNumber,
  MODELS,
  codecOf,
  midspan,
  read,
  refused,
  rows,
  states,
  utf8,
} from './support.mjs';

const types = (events) => Array.from(events, (event) => event.type);

function openBoth(codec, options = {}) {
  const { binding = 'byteStream' } = options;
  return [new Encoder(codec, { identity: null, ...options }), new Decoder(codec, { binding, keepIntegers: true })];
}

function carry(encoder, decoder, side = []) {
  decoder.push(encoder.takeBytes());
  const events = [];
  for (const event of decoder) {
    events.push(event);
    if (event.type === 'sideWanted') decoder.giveSide(side.slice(event.index, event.index + event.count));
  }
  return events;
}

test('a model says what it is', () => {
  const [codec, plain] = [codecOf('default'), codecOf('plain')];
  assert.ok(codec.takesSide && codec.sideVocabulary > 2 && codec.sideAges >= 1 && codec.hasEncoder);
  assert.deepEqual([plain.takesSide, plain.sideVocabulary, plain.sideAges, plain.predictedFrom], [false, 0, 0, 0]);
  assert.ok(codecOf('predicted').predictedFrom > 0);
  assert.equal(plain.fingerprint.length, 32);
  assert.ok(plain.wRange[0] < plain.wRange[1] && plain.yRange[0] < plain.yRange[1]);
  const quality = codec.quality(0);
  assert.ok(quality.rangeLow < quality.rangeHigh && quality.rateWeight > 0 && quality.expectedBits > 50);
  const error = refused(() => plain.quality(plain.qualities), ErrorNumber.UNKNOWN_QUALITY, 'caller');
  assert.deepEqual([error.wanted, error.found], [plain.qualities, plain.qualities]);
  const again = Codec.fromBytes(read(MODELS.plain));
  assert.ok(again.equals(plain) && !again.equals(codec) && !again.equals(1));
});

test('control calls reach the decoder', () => {
  const codec = codecOf('plain');
  const [encoder, decoder] = openBoth(codec);
  const hidden = states(codec, 4);
  encoder.pushHidden(rows(codec, hidden, 0, 2));
  encoder.checkpoint();
  encoder.setQuality(1);
  encoder.pushHidden(rows(codec, hidden, 2, 3));
  encoder.rewind(1);
  assert.equal(encoder.nextIndex, 1);
  encoder.extension(27, utf8('note'));
  encoder.reset();
  encoder.pushHidden(rows(codec, hidden, 3, 4));
  encoder.end();
  const events = carry(encoder, decoder);
  assert.deepEqual(
    types(events),
    'opened frames verdict quality frames rewound extension verdict reset frames verdict ended'.split(' '),
  );
  assert.deepEqual(events[0].header.fingerprint, codec.fingerprint);
  assert.deepEqual([events[0].header.maxRewind, events[0].header.identity], [64, null]);
  assert.deepEqual(events[2], { type: 'verdict', index: 0, endIndex: 2, verdict: 'yConfirmed' });
  assert.deepEqual(events[3], { type: 'quality', quality: 1 });
  assert.deepEqual(events[5], { type: 'rewound', index: 1 });
  assert.deepEqual(events[6], { type: 'extension', id: 27, data: utf8('note') });
  assert.deepEqual(events[8], { type: 'reset', index: 1 });
  assert.deepEqual(events.at(-1), { type: 'ended', index: 2, framesCoded: 4 });
  assert.deepEqual(decoder.poll(), { type: 'endOfStream' });
  assert.deepEqual([...decoder], []);
  assert.deepEqual([decoder.nextIndex, decoder.confirmedIndex, decoder.resumeIndex], [2, 2, 2]);
});

test('nothing happens while more is needed', () => {
  const codec = codecOf('plain');
  const [encoder, decoder] = openBoth(codec);
  assert.deepEqual(decoder.poll(), { type: 'needMore' });
  encoder.pushHidden(states(codec, 1));
  const data = encoder.takeBytes();
  assert.equal(encoder.takeBytes().length, 0);
  const seen = [];
  for (const byte of data) {
    decoder.push(Uint8Array.of(byte));
    seen.push(...types(decoder));
  }
  assert.deepEqual(seen, ['opened', 'frames']);
});

test('side indices are sent or asked for', () => {
  const codec = codecOf('default');
  const [encoder, decoder] = openBoth(codec);
  const hidden = states(codec, 5);
  encoder.setSide([2, 1], 'sent');
  encoder.pushHidden(rows(codec, hidden, 0, 2));
  encoder.setSide(BigInt64Array.of(0n, 1n, 2n), 'known');
  encoder.pushHidden(rows(codec, hidden, 2, 5));
  decoder.push(encoder.takeBytes());
  const events = [...decoder];
  assert.deepEqual(types(events), ['opened', 'sideIndices', 'frames', 'sideWanted']);
  assert.deepEqual(events[1], { type: 'sideIndices', index: 0, count: 2, indices: Uint32Array.of(2, 1) });
  assert.deepEqual(events[3], { type: 'sideWanted', index: 2, count: 3 });
  assert.deepEqual(decoder.wantedSide, { index: 2, count: 3 });
  assert.deepEqual(decoder.poll(), { type: 'needMore' });
  for (const wrong of [[0, 1], [0, 1, codec.sideVocabulary + 1], [0, 1, -1], [0, 1, 2 ** 32], [0n, 1n, -1n]]) {
    refused(() => decoder.giveSide(wrong), ErrorNumber.WRONG_SIDE_INDICES, 'caller');
  }
  decoder.giveSide(Int32Array.of(0, 1, 2));
  assert.equal(decoder.wantedSide, null);
  assert.deepEqual(types(decoder), ['frames']);
});

test('a wrong side index is found', () => {
  const codec = codecOf('default');
  const [encoder, decoder] = openBoth(codec);
  encoder.setSide([1], 'known');
  encoder.pushHidden(states(codec, 1));
  refused(() => carry(encoder, decoder, [2]), ErrorNumber.FRAME_CHECK_MISMATCH, 'stream');
});

test('targets may be lost and are concealed', () => {
  const codec = codecOf('plain');
  const encoder = new Encoder(codec, { identity: null, mode: 'layered', binding: 'message', datagramLimit: 256 });
  const decoder = new Decoder(codec, { binding: 'message' });
  const hidden = states(codec, 4);
  for (let frame = 0; frame < 4; frame++) encoder.pushHidden(rows(codec, hidden, frame, frame + 1));
  encoder.end();
  const messages = encoder.takeMessages();
  const targets = messages.filter((message) => message.messageClass === 'droppable');
  assert.deepEqual(targets.map((message) => message.firstFrame), [0, 1, 2, 3]);
  // Of the four targets the first comes as a datagram, the others never.
  decoder.pushMessage(messages[0].data);
  decoder.pushDatagram(targets[0].data);
  decoder.pushDatagram(utf8('nonsense'));
  const seen = [...decoder];
  assert.deepEqual(types(seen), ['opened', 'targetEarly', 'targetRefused']);
  assert.deepEqual([seen[2].reason, seen[2].index], ['damaged', null]);
  for (const { data, messageClass } of messages.slice(1)) if (messageClass !== 'droppable') decoder.pushMessage(data);
  decoder.finish();
  seen.push(...decoder);
  assert.equal(decoder.oldestPending, 1);
  assert.deepEqual(decoder.missingElements(1), [{ first: 0, end: codec.hiddenWidth }]);
  assert.equal(decoder.missingElements(0), null);
  refused(() => decoder.conceal(0), ErrorNumber.FRAME_NOT_PENDING, 'caller');
  refused(() => decoder.conceal(1, 2 ** 50), ErrorNumber.FRAME_NOT_PENDING, 'caller');
  decoder.conceal(1, 3);
  const [concealed] = decoder;
  assert.deepEqual([concealed.type, concealed.index, concealed.count, concealed.concealed], ['targets', 1, 3, true]);
  assert.equal(concealed.hidden.length, 3 * codec.hiddenWidth);
  assert.equal(decoder.oldestPending, null);
  assert.deepEqual([decoder.resumeIndex, decoder.confirmedIndex], [4, 0]);
});

test('a stream waits for targets that are overdue', () => {
  const codec = codecOf('plain');
  const encoder = new Encoder(codec, { identity: null, mode: 'layered', binding: 'message', targetHorizon: 2 });
  const decoder = new Decoder(codec, { binding: 'message' });
  const hidden = states(codec, 4);
  for (let frame = 0; frame < 4; frame++) encoder.pushHidden(rows(codec, hidden, frame, frame + 1));
  for (const { data, messageClass } of encoder.takeMessages()) {
    if (messageClass !== 'droppable') decoder.pushMessage(data);
  }
  // Nobody answers, so the events stop there without an error.
  assert.equal([...decoder].at(-1).type, 'targetsOverdue');
  refused(() => decoder.poll(), ErrorNumber.TARGET_OVERDUE, 'caller');
  const seen = [];
  decoder.conceal(0);
  for (const event of decoder) {
    seen.push(event);
    if (event.type === 'targetsOverdue') decoder.conceal(event.index, event.count);
  }
  assert.equal(seen.filter((event) => event.type === 'targets').length, 2);
  assert.equal(decoder.nextIndex, 4);
});

test('sessions are forked, saved and restored', () => {
  const codec = codecOf('plain');
  const hidden = states(codec, 6);
  const [encoder, decoder] = openBoth(codec);
  encoder.pushHidden(rows(codec, hidden, 0, 4));
  carry(encoder, decoder);
  const outputs = [];
  for (const sender of [encoder.fork(), Encoder.restore(codec, encoder.save(), { keepIntegers: true }), encoder]) {
    sender.pushHidden(rows(codec, hidden, 4, 6));
    sender.end();
    outputs.push(sender.takeBytes());
  }
  assert.deepEqual(outputs[1], outputs[0]);
  assert.deepEqual(outputs[2], outputs[0]);
  const values = [];
  for (const receiver of [decoder.fork(), Decoder.restore(codec, decoder.save(), { keepIntegers: true }), decoder]) {
    receiver.push(outputs[0]);
    values.push([...receiver].map((event) => (event.type === 'frames' ? event.hidden : event)));
  }
  assert.deepEqual(values[1], values[0]);
  assert.deepEqual(values[2], values[0]);
  assert.equal(decoder.confirmedIndex, 6);
  const wrong = refused(() => Encoder.restore(codecOf('default'), encoder.save()), ErrorNumber.WRONG_MODEL, 'caller');
  assert.deepEqual(wrong.found, codec.fingerprint);
  refused(() => Decoder.restore(codec, utf8('nothing')), ErrorNumber.SAVED_SESSION, 'caller');
});

test('a reader joins a file at a context', () => {
  const codec = codecOf('plain');
  const encoder = new Encoder(codec, { binding: 'file' });
  const hidden = states(codec, 30);
  for (let frame = 0; frame < 30; frame += 10) {
    if (frame > 0) encoder.reset();
    encoder.pushHidden(rows(codec, hidden, frame, frame + 10));
  }
  encoder.end();
  const file = encoder.takeBytes();
  const entry = midspan.fileSeek(file.subarray(0, 200), file.subarray(-100), file.length, 25);
  assert.equal(entry.frame, 20);
  const decoder = Decoder.join(codec, file.subarray(0, 200), entry.offset, entry.frame);
  decoder.push(file.subarray(entry.offset));
  decoder.finish();
  const events = [...decoder];
  assert.deepEqual(types(events), ['reset', 'frames', 'verdict', 'ended']);
  const whole = new Decoder(codec);
  whole.push(file);
  const last = [...whole].filter((event) => event.type === 'frames').at(-1);
  assert.deepEqual(events[1], last);
  refused(() => Decoder.join(codec, file.subarray(0, 20), entry.offset), ErrorNumber.TRUNCATED, 'stream');
});

test('a stream may switch its model', () => {
  const [codec, other] = [codecOf('small'), codecOf('small')];
  const models = [codecOf('predicted'), codecOf('other')];
  const encoder = new Encoder(models[0], { identity: null });
  const push = (model) =>
    encoder.pushIntegers(new Int16Array(model.hiddenWidth), new Int16Array(model.hyperPriorWidth).fill(model.wRange[0]));
  push(models[0]);
  encoder.switchModel(models[1], 0);
  assert.ok(encoder.codec.equals(models[1]));
  push(models[1]);
  encoder.end();
  const data = encoder.takeBytes();
  for (const receiver of [
    new Decoder(models[0], { models: [models[1]] }),
    (() => {
      const later = new Decoder(models[0]);
      later.addModel(models[1]);
      return later;
    })(),
  ]) {
    receiver.push(data);
    const events = [...receiver];
    assert.deepEqual(types(events), ['opened', 'frames', 'verdict', 'model', 'frames', 'verdict', 'ended']);
    assert.deepEqual(events[3].fingerprint, models[1].fingerprint);
    assert.ok(receiver.codec.equals(models[1]));
  }
  const without = new Decoder(models[0]);
  without.push(data);
  const error = refused(() => [...without], ErrorNumber.WRONG_MODEL, 'model');
  assert.deepEqual(error.found, models[1].fingerprint);
  refused(() => encoder.switchModel(models[0], 0), ErrorNumber.AFTER_END);
  refused(() => new Encoder(models[0]).switchModel(codec, 0), ErrorNumber.WRONG_SIDE_FLAG, 'caller');
  assert.ok(codec.equals(other));
});

test('an encoder says what it sent', () => {
  const codec = codecOf('plain');
  const encoder = new Encoder(codec, { keepIntegers: true, trackCost: true });
  assert.deepEqual([encoder.lastIntegers, encoder.lastCost, encoder.unlike], [null, null, null]);
  const hidden = states(codec, 3);
  encoder.pushHidden(hidden);
  const { w, y } = encoder.lastIntegers;
  assert.deepEqual([w.length, y.length], [3 * codec.hyperPriorWidth, 3 * codec.hiddenWidth]);
  assert.ok(encoder.lastCost.hyperPrior > 0 && encoder.lastCost.target > 0);
  assert.equal(encoder.lastClipped, 0);
  const { sent } = encoder;
  assert.deepEqual([sent.frames, sent.wValues, sent.yValues], [3, w.length, y.length]);
  assert.ok(sent.payloadBits > 0 && encoder.recentlySent.frames === 3 && encoder.memoryBytes > 0);
  assert.equal(new Encoder(codec, { rateWeight: 0 }).quantise(hidden).length, y.length);
  encoder.pushY(y);
  encoder.pushIntegers(y, w);
  assert.deepEqual(encoder.lastIntegers, { w, y });
  const clipped = new Float32Array(codec.hiddenWidth).fill(1e6);
  encoder.pushHidden(clipped);
  assert.equal(encoder.lastClipped, codec.hiddenWidth);
  const strict = new Encoder(codec, { clipping: 'refuse' });
  const error = refused(() => strict.pushHidden(clipped), ErrorNumber.HIDDEN_CLIPPED, 'caller');
  assert.deepEqual(error.element, { frame: 0, element: 0 });
  assert.equal(strict.nextIndex, 0);
});

test('an exact frame comes without loss', () => {
  const codec = codecOf('plain');
  const hidden = states(codec, 1);
  hidden[0] = -0;
  const bits = Uint16Array.from(new Uint32Array(hidden.buffer), (value) => value >>> 16);
  // 1, -2, the smallest and the largest of float16, and others.
  const halves = Uint16Array.from({ length: codec.hiddenWidth }, (_, place) => [0x3c00, 0xc000, 1, 0x7bff, 0x3555][place % 5]);
  const [encoder, decoder] = openBoth(codec);
  encoder.pushExact(hidden);
  encoder.pushExact(bits, 'bf16');
  encoder.pushExact(halves, 'f16');
  const frames = carry(encoder, decoder).filter((event) => event.type === 'exactFrame');
  assert.deepEqual(frames.map((event) => event.dtype), ['f32', 'bf16', 'f16']);
  assert.deepEqual(frames[0].exact, hidden);
  assert.deepEqual(frames[1].exact, new Float32Array(Uint32Array.from(bits, (value) => value << 16).buffer));
  assert.deepEqual([...frames[2].exact.subarray(0, 4)], [1, -2, 2 ** -24, 65504]);
  assert.deepEqual(frames[2].data, new Uint8Array(halves.buffer));
  assert.equal(frames[0].hidden.length, codec.hiddenWidth);
});

test('a long chunk takes several polls', () => {
  const codec = codecOf('plain');
  const encoder = new Encoder(codec);
  encoder.pushHidden(states(codec, 100));
  const decoder = new Decoder(codec, { framesPerPoll: 40 });
  decoder.push(encoder.takeBytes());
  const events = [...decoder];
  assert.deepEqual(types(events), ['opened', 'working', 'working', 'frames']);
  assert.deepEqual(events[2], { type: 'working', index: 0, count: 100, done: 80 });
});

test('identities are random unless they are given', () => {
  const codec = codecOf('plain');
  const identityOf = (options) => midspan.loadHeader(new Encoder(codec, options).takeBytes()).header.identity;
  assert.equal(identityOf().length, 8);
  assert.notDeepEqual(identityOf(), identityOf());
  assert.equal(identityOf({ identity: null }), null);
  assert.deepEqual(identityOf({ identity: utf8('identity') }), utf8('identity'));
  const fields = [{ id: 2, data: utf8('me') }];
  assert.deepEqual(midspan.loadHeader(new Encoder(codec, { fields }).takeBytes()).header.fields, fields);
});

test('a host digest is compared', () => {
  const codec = codecOf('plain');
  const digest = new Uint8Array(32).fill(7);
  const data = new Encoder(codec, { hostDigest: digest }).takeBytes();
  const same = new Decoder(codec, { hostDigest: digest.buffer });
  same.push(data);
  assert.deepEqual(types(same), ['opened']);
  const other = new Decoder(codec, { hostDigest: new Uint8Array(32) });
  other.push(data);
  const error = refused(() => other.poll(), ErrorNumber.WRONG_HOST, 'model');
  assert.deepEqual([error.wanted, error.found], [new Uint8Array(32), digest]);
});
