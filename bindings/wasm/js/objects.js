// What Rust makes with JavaScript: errors, and events, chunks and values as plain objects. The names of the functions
// are those of `src/objects.rs`, and the objects are those of `index.d.ts`.

import { MidspanError, ours } from './errors.js';
import { notePanic } from './panics.js';

const orNull = (value) => value ?? null;

export function panicked(text) {
  notePanic(text);
}

export function error(text, number, fault, offset, wanted, found, frame, element, limit, setting) {
  return ours(
    new MidspanError(text, number, {
      fault,
      offset: orNull(offset),
      wanted,
      found,
      element: frame === undefined ? null : { frame, element },
      limit: limit || null,
      setting: setting || null,
    }),
  );
}

export function noMemory(bytes) {
  return ours(new RangeError(`no memory for ${bytes} bytes`));
}

export function beyond(value) {
  return ours(
    new MidspanError(
      `the stream has the index or place ${value}, beyond the whole numbers of JavaScript; at fault: the caller; error 804`,
      804,
      { fault: 'caller', found: BigInt(value), wanted: Number.MAX_SAFE_INTEGER },
    ),
  );
}

export function header(
  fingerprint,
  mode,
  binding,
  check,
  side,
  quality,
  modelVersion,
  maxFrames,
  maxChunkBytes,
  maxRewind,
  targetHorizon,
  lengthOffset,
  identity,
  hostDigest,
  ids,
  values,
  formatVersion,
) {
  return {
    fingerprint,
    mode,
    binding,
    check,
    side,
    quality,
    modelVersion,
    maxFrames,
    maxChunkBytes,
    maxRewind,
    targetHorizon: orNull(targetHorizon),
    lengthOffset,
    identity,
    hostDigest,
    fields: values.map((data, place) => ({ id: ids[place], data })),
    formatVersion,
  };
}

export const loadedHeader = (header, length) => ({ header, length });
export const seekEntry = (frame, offset) => ({ frame, offset });
export const message = (data, messageClass, firstFrame, endFrame) => ({ data, messageClass, firstFrame, endFrame });
export const qualityInfo = (rangeLow, rangeHigh, rateWeight, expectedBits, lengthOffset) => ({
  rangeLow,
  rangeHigh,
  rateWeight,
  expectedBits: orNull(expectedBits),
  lengthOffset,
});
export const sent = (
  frames,
  wValues,
  yValues,
  clipped,
  escaped,
  payloadBits,
  comparedFrames,
  comparedBits,
  expectedBits,
) => ({ frames, wValues, yValues, clipped, escaped, payloadBits, comparedFrames, comparedBits, expectedBits });
export const cost = (hyperPrior, target) => ({ hyperPrior, target });
export const lastIntegers = (w, y) => ({ w, y });
export const range = (index, count) => ({ index, count });
export const elements = (first, end) => ({ first, end });

// Events.
export const bare = (type) => ({ type });
export const placed = (type, index) => ({ type, index });
export const counted = (type, index, count) => ({ type, index, count });
export const opened = (header) => ({ type: 'opened', header });
export const frames = (index, count, hidden, w, y) => ({
  type: 'frames',
  index,
  count,
  hidden,
  w: orNull(w),
  y: orNull(y),
});
export const hyperPrior = (index, count, w) => ({ type: 'hyperPrior', index, count, w });
export const targets = (index, count, hidden, y, concealed) => ({ type: 'targets', index, count, hidden, y, concealed });
export const targetPart = (index, firstElement, endElement) => ({ type: 'targetPart', index, firstElement, endElement });
export const targetRefused = (index, reason) => ({ type: 'targetRefused', index: orNull(index), reason });
export const exactFrame = (index, hidden, w, y, dtype, data) => ({
  type: 'exactFrame',
  index,
  count: 1,
  hidden,
  w: orNull(w),
  y: orNull(y),
  dtype,
  data,
  exact: exactValues(dtype, data),
});
export const working = (index, count, done) => ({ type: 'working', index, count, done });
export const verdict = (index, endIndex, verdict) => ({ type: 'verdict', index, endIndex, verdict });
export const quality = (quality) => ({ type: 'quality', quality });
export const model = (index, fingerprint) => ({ type: 'model', index, fingerprint });
export const sideIndices = (index, count, indices) => ({ type: 'sideIndices', index, count, indices });
export const extension = (id, data) => ({ type: 'extension', id, data });
export const ended = (index, framesCoded) => ({ type: 'ended', index, framesCoded });

// Chunks.
export const chunk = (of, offset, bodyOffset, wireLen) => ({ ...of, offset, bodyOffset, wireLen });
export const payload = (data, offset) => ({ data, offset });
export const headerChunk = (header) => ({ type: 'header', header });
export const frameChunk = (index, epoch, payload) => ({ type: 'frame', index, epoch, payload });
export const batchChunk = (index, epoch, frames, payloads) => ({ type: 'batch', index, epoch, frames, payloads });
export const targetChunk = (status, index, epoch, frames, elements, payloads) => ({
  type: 'target',
  status,
  index: orNull(index),
  epoch: orNull(epoch),
  frames,
  elements,
  payloads,
});
export const checkpointChunk = (index, digestW, digestY) => ({ type: 'checkpoint', index, digestW, digestY });
export const resetChunk = (index, epoch, fingerprintPrefix, quality, lengthOffset, digestW, digestY) => ({
  type: 'reset',
  index,
  epoch,
  fingerprintPrefix,
  quality,
  lengthOffset,
  digestW,
  digestY,
});
export const qualityChunk = (quality, lengthOffset) => ({ type: 'quality', quality, lengthOffset });
export const modelSwitchChunk = (
  index,
  epoch,
  fingerprint,
  modelVersion,
  quality,
  lengthOffset,
  digestW,
  digestY,
) => ({ type: 'modelSwitch', index, epoch, fingerprint, modelVersion, quality, lengthOffset, digestW, digestY });
export const exactFrameChunk = (index, epoch, dtype, payload, data) => ({
  type: 'exactFrame',
  index,
  epoch,
  dtype,
  payload,
  data,
});
export const sideIndicesChunk = (index, frames, payload) => ({ type: 'sideIndices', index, frames, payload });
export const endChunk = (index, framesCoded, digestW, digestY) => ({
  type: 'end',
  index,
  framesCoded,
  digestW,
  digestY,
});
export const seekIndexChunk = (entries) => ({ type: 'seekIndex', entries });

// An exact hidden state as float32: every value of the three types has an exact counterpart.
function exactValues(dtype, data) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const size = dtype === 'f32' ? 4 : 2;
  // Written as bits, so that those of a NaN stay.
  const bits = new Uint32Array(data.byteLength / size);
  for (let place = 0; place < bits.length; place++) {
    if (dtype === 'f32') bits[place] = view.getUint32(4 * place, true);
    else if (dtype === 'bf16') bits[place] = view.getUint16(2 * place, true) << 16;
    else bits[place] = fromHalf(view.getUint16(2 * place, true));
  }
  return new Float32Array(bits.buffer);
}

const one = new Float32Array(1);

// The bits of float32 for those of float16.
function fromHalf(half) {
  const [sign, exponent, fraction] = [(half >> 15) << 31, (half >> 10) & 31, half & 1023];
  if (exponent === 31) return sign | 0x7f800000 | (fraction << 13);
  if (exponent > 0) return sign | ((exponent + 112) << 23) | (fraction << 13);
  one[0] = fraction * 2 ** -24;
  return sign | new Uint32Array(one.buffer)[0];
}
