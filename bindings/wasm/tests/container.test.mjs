// The container alone: chunks in and out, without a model.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Encoder, ErrorNumber, Reader, Writer, codecOf, midspan, refused, states, utf8 } from './support.mjs';

const PRINT = Uint8Array.from({ length: 32 }, (_, place) => place);
const types = (reader) => Array.from(reader, (chunk) => chunk.type);

test('what is written is read', () => {
  const writer = new Writer({
    fingerprint: PRINT,
    binding: 'file',
    maxRewind: 10,
    fields: [{ id: 2, data: utf8('me') }],
  });
  // One chunk of every kind that joined mode has.
  writer.frame(utf8('one'));
  writer.batch(3, [utf8('two'), utf8('three').buffer]);
  writer.checkpoint(1, 0xffffffff);
  writer.quality(1, 5);
  writer.exactFrame('bf16', utf8('four'), Uint8Array.of(1, 2));
  writer.rewind(3);
  writer.extension(27, utf8('note'));
  writer.reset(0, 7, 3, 4);
  writer.modelSwitch(new Uint8Array(32), 9, 2, 0, 5, 6);
  writer.frame(utf8('five'));
  writer.end(7, 8);
  assert.ok(writer.untakenBytes > 0);
  const file = writer.takeBytes();
  assert.ok(writer.ended);
  assert.deepEqual([writer.nextIndex, writer.takeBytes().length, writer.untakenBytes], [4, 0, 0]);

  const reader = new Reader();
  assert.equal(reader.header, null);
  assert.deepEqual(reader.poll(), { type: 'needMore' });
  reader.push(file);
  reader.finish();
  const chunks = [...reader];
  assert.deepEqual(
    chunks.map((chunk) => chunk.type),
    'header frame batch checkpoint quality exactFrame rewind extension reset modelSwitch frame end seekIndex footer'.split(
      ' ',
    ),
  );
  assert.deepEqual(reader.poll(), { type: 'endOfStream' });
  const { header, length } = midspan.loadHeader(file);
  assert.deepEqual(chunks[0].header, header);
  assert.deepEqual(reader.header, header);
  assert.equal(chunks[0].wireLen, length);
  assert.deepEqual([header.fingerprint, header.fields], [PRINT, [{ id: 2, data: utf8('me') }]]);
  assert.deepEqual(
    [chunks.reduce((sum, chunk) => sum + chunk.wireLen, 0), reader.offset, writer.offset],
    Array(3).fill(file.length),
  );
  const payloads = chunks.flatMap((chunk) => chunk.payloads ?? chunk.payload ?? []);
  assert.deepEqual(payloads.map(({ data }) => Buffer.from(data).toString()), ['one', 'two', 'three', 'four', 'five']);
  for (const { data, offset } of payloads) assert.deepEqual(file.slice(offset, offset + data.length), data);

  const [frame, batch, checkpoint, quality, exact, rewind, extension, reset, model, last, end, seek] = chunks.slice(1);
  assert.deepEqual([frame.index, frame.epoch], [0, 0]);
  assert.deepEqual([batch.index, batch.frames], [1, 3]);
  assert.deepEqual([checkpoint.index, checkpoint.digestW, checkpoint.digestY], [4, 1, 0xffffffff]);
  assert.deepEqual([quality.quality, quality.lengthOffset], [1, 5]);
  assert.deepEqual([exact.index, exact.dtype, exact.data], [4, 'bf16', Uint8Array.of(1, 2)]);
  assert.deepEqual([rewind.index, extension.id, extension.data], [3, 27, utf8('note')]);
  assert.deepEqual([reset.index, reset.epoch, reset.quality, reset.lengthOffset], [3, 2, 0, 7]);
  assert.deepEqual([reset.fingerprintPrefix, reset.digestW, reset.digestY], [PRINT.slice(0, 8), 3, 4]);
  assert.deepEqual([model.fingerprint, model.modelVersion, model.quality, model.epoch], [new Uint8Array(32), 9, 2, 3]);
  assert.deepEqual([last.index, last.epoch, end.index, end.framesCoded], [3, 3, 4, 6]);
  assert.deepEqual(seek.entries, [
    { frame: 3, offset: reset.offset },
    { frame: 3, offset: model.offset },
  ]);
  const find = (tail, frame) => midspan.fileSeek(file.slice(0, 200), file.slice(-tail), file.length, frame);
  assert.deepEqual(find(100, 3), seek.entries[1]);
  assert.deepEqual(find(100, 2), { frame: 0, offset: 0 });
  const short = refused(() => find(12, 3), ErrorNumber.INVALID_ARGUMENT, 'caller');
  assert.deepEqual(find(short.wanted, 3), seek.entries[1]);
  refused(() => midspan.fileSeek(file, file, file.length - 1, 0), ErrorNumber.INVALID_ARGUMENT);
});

test('targets have what is known of them', () => {
  const writer = new Writer({ fingerprint: PRINT, mode: 'layered', binding: 'message', targetHorizon: 10 });
  writer.frame(utf8('w0'));
  writer.batch(2, [utf8('w1')]);
  writer.target(1, 2, [utf8('y1')]);
  writer.targetPart(0, 4, 8, utf8('y0'));
  assert.equal(writer.nextMessage.messageClass, 'header');
  const messages = writer.takeMessages();
  assert.deepEqual(
    messages.map((message) => message.messageClass),
    ['header', 'reliable', 'reliable', 'droppable', 'droppable'],
  );
  assert.deepEqual([messages[3].firstFrame, messages[3].endFrame], [1, 3]);
  const reader = new Reader({ binding: 'message' });
  for (const { data } of messages) reader.pushMessage(data);
  reader.pushDatagram(utf8('nonsense'));
  const [batch, part, damaged] = [...reader].slice(-3);
  assert.deepEqual(
    [batch.status, batch.index, batch.epoch, batch.frames, batch.elements],
    ['usable', 1, 0, 2, null],
  );
  assert.deepEqual([part.index, part.frames, part.elements], [0, 1, { first: 4, end: 8 }]);
  assert.deepEqual([damaged.status, damaged.index, damaged.payloads, damaged.wireLen], ['damaged', null, [], 0]);
});

test('side indices are covered by checks', () => {
  const writer = new Writer({ fingerprint: PRINT, side: true });
  refused(() => writer.frame(utf8('one')), ErrorNumber.WRONG_SIDE_INDICES, 'caller');
  writer.sideIndices(1, utf8('side'));
  writer.coverSide([3]);
  writer.frame(utf8('one'));
  const reader = new Reader();
  reader.push(writer.takeBytes());
  const [, side] = reader;
  assert.deepEqual([side.type, side.index, side.frames], ['sideIndices', 0, 1]);
});

test('what breaks a rule is refused and changes nothing', () => {
  const writer = new Writer({ fingerprint: PRINT });
  const before = writer.save();
  const one = [utf8('one')];
  for (const [call, number] of [
    [() => writer.frame(utf8('one\0')), ErrorNumber.SEAL_NOT_CANONICAL],
    [() => writer.batch(1, one), ErrorNumber.BATCH_OF_ONE],
    [() => writer.batch(300, one), ErrorNumber.TOO_MANY_FRAMES],
    [() => writer.batch(2, []), ErrorNumber.LANE_COUNT],
    [() => writer.target(0, 1, one), ErrorNumber.KIND_NOT_IN_MODE],
    [() => writer.rewind(1), ErrorNumber.REWIND_TARGET],
    [() => writer.reset(0, 20_000, 0, 0), ErrorNumber.FIELD_OUT_OF_RANGE],
    [() => writer.exactFrame('f32', ...one, utf8('two')), ErrorNumber.WRONG_SHAPE],
    [() => writer.exactFrame('f64', ...one, utf8('two')), ErrorNumber.INVALID_ARGUMENT],
    [() => writer.modelSwitch(utf8('short'), 0, 0, 0, 0, 0), ErrorNumber.INVALID_ARGUMENT],
    [() => writer.popMessage(), ErrorNumber.NOT_AVAILABLE],
  ]) {
    refused(call, number, 'caller');
    assert.deepEqual(writer.save(), before);
  }
  for (const [header, number] of [
    [{ fingerprint: utf8('short') }, ErrorNumber.INVALID_ARGUMENT],
    [{ fingerprint: PRINT, mode: 'both' }, ErrorNumber.INVALID_ARGUMENT],
    [{ fingerprint: PRINT, check: 3 }, ErrorNumber.INVALID_ARGUMENT],
    [{ fingerprint: PRINT, identity: utf8('four') }, ErrorNumber.INVALID_ARGUMENT],
    [{ fingerprint: PRINT, maxFrames: 0 }, ErrorNumber.BAD_CONFIG],
  ]) {
    refused(() => new Writer(header), number, 'caller');
  }
});

test('a wrong header is named by its field', () => {
  for (const [header, kind, text] of [
    ['header', TypeError, 'header is a string'],
    [{}, TypeError, 'header.fingerprint'],
    [{ fingerprint: 'text' }, TypeError, 'header.fingerprint'],
    [{ fingerprint: PRINT, quality: 300 }, RangeError, 'header.quality'],
    [{ fingerprint: PRINT, maxFrames: -1 }, RangeError, 'header.maxFrames'],
    [{ fingerprint: PRINT, quality: 'high' }, TypeError, 'header.quality'],
    [{ fingerprint: PRINT, fields: [{ id: 2, data: 'me' }] }, TypeError, 'header.fields[0].data'],
    [{ fingerprint: PRINT, mode: 3 }, TypeError, 'header.mode'],
    [{ fingerprint: PRINT, colour: 3 }, TypeError, 'colour'],
  ]) {
    assert.throws(
      () => new Writer(header),
      (error) => error instanceof kind && error.message.includes(text),
    );
  }
});

test('readers and writers are saved and forked', () => {
  const codec = codecOf('plain');
  const encoder = new Encoder(codec);
  encoder.pushHidden(states(codec, 3));
  encoder.reset();
  const first = encoder.takeBytes();
  encoder.end();
  const rest = encoder.takeBytes();
  const reader = new Reader();
  reader.push(first.subarray(0, -1));
  assert.deepEqual(types(reader), ['header', 'batch']);
  for (const other of [Reader.restore(reader.save()), reader.fork(), reader]) {
    other.push(first.subarray(-1));
    other.push(rest);
    other.finish();
    assert.deepEqual(types(other), ['reset', 'end']);
  }
  refused(() => Reader.restore(reader.save(), { binding: 'message' }), ErrorNumber.SAVED_SESSION);

  const whole = new Reader();
  whole.push(first);
  const place = [...whole].at(-1).offset;
  const joined = Reader.join(first, place, 3);
  joined.push(first.subarray(place));
  joined.push(rest);
  joined.finish();
  assert.deepEqual(types(joined), ['reset', 'end']);

  const writer = new Writer({ fingerprint: PRINT });
  writer.frame(utf8('one'));
  for (const other of [Writer.restore(writer.save()), writer.fork()]) {
    other.frame(utf8('two'));
    const taken = Buffer.from(other.takeBytes());
    assert.equal(other.nextIndex, 2);
    assert.equal(taken.indexOf(writer.fork().takeBytes()), 0);
  }
  assert.equal(writer.nextIndex, 1);
  assert.ok(writer.memoryBytes > 0 && reader.memoryBytes >= 0);
});

test('errors have a place and are final', () => {
  const writer = new Writer({ fingerprint: PRINT });
  writer.frame(utf8('one'));
  const data = writer.takeBytes();
  const damaged = data.slice();
  damaged[damaged.length - 1] ^= 1;
  const reader = new Reader();
  reader.push(damaged);
  assert.equal(reader.poll().type, 'header');
  const error = refused(() => reader.poll(), ErrorNumber.FRAME_CHECK_MISMATCH, 'stream');
  assert.equal(error.offset, data.length - 4);
  refused(() => reader.push(data), ErrorNumber.FRAME_CHECK_MISMATCH);
  const cut = new Reader();
  cut.push(data.subarray(0, 20));
  cut.finish();
  refused(() => cut.poll(), ErrorNumber.TRUNCATED, 'stream');
  assert.equal(refused(() => midspan.loadHeader(data.subarray(0, 20)), ErrorNumber.TRUNCATED).offset, 20);
});
