import {
  U8,
  U16,
  U32,
  bytes,
  bytesOf,
  fields,
  hiddenStates,
  identity,
  integers,
  optionalBytes,
  optionalNumber,
  optionalWhole,
  options,
  sideIndices,
  text,
  truth,
  typeOf,
  whole,
} from './arguments.js';
import { Codec } from './codec.js';
import { wrongType } from './errors.js';
import { adopt, argumentOf, close, described, disposable, hold, run, use } from './runtime.js';

const DEFAULTS = {
  identity: undefined,
  mode: 'joined',
  binding: 'byteStream',
  check: 1,
  quality: 0,
  hostDigest: undefined,
  maxFramesPerChunk: 256,
  maxChunkBytes: 4194304,
  maxRewind: 64,
  targetHorizon: 1024,
  datagramLimit: undefined,
  checkpointInterval: 256,
  lanes: 1,
  rateWeight: undefined,
  lengthOffset: undefined,
  memoryLimit: 67108864,
  clipping: 'report',
  fields: undefined,
  keepIntegers: false,
  trackCost: false,
};

export class Encoder {
  constructor(codec, given) {
    argumentOf(Codec, 'codec', codec);
    const chosen = options(given, DEFAULTS);
    const own = chosen.identity === undefined ? crypto.getRandomValues(new Uint8Array(8)) : chosen.identity;
    const settings = [
      identity('identity', own),
      text('mode', chosen.mode),
      text('binding', chosen.binding),
      whole('check', chosen.check, U32),
      whole('quality', chosen.quality, U8),
      optionalBytes('hostDigest', chosen.hostDigest),
      whole('maxFramesPerChunk', chosen.maxFramesPerChunk, U32),
      whole('maxChunkBytes', chosen.maxChunkBytes, U32),
      whole('maxRewind', chosen.maxRewind, U32),
      whole('targetHorizon', chosen.targetHorizon, U32),
      optionalWhole('datagramLimit', chosen.datagramLimit, U32),
      whole('checkpointInterval', chosen.checkpointInterval, U32),
      whole('lanes', chosen.lanes, U16),
      optionalNumber('rateWeight', chosen.rateWeight),
      optionalWhole('lengthOffset', chosen.lengthOffset, U16),
      whole('memoryLimit', chosen.memoryLimit, U32),
      text('clipping', chosen.clipping),
      ...fields('fields', chosen.fields),
      truth('keepIntegers', chosen.keepIntegers),
      truth('trackCost', chosen.trackCost),
    ];
    // Reading the options may have closed it.
    const raw = argumentOf(Codec, 'codec', codec);
    hold(this, run((bindings) => new bindings.Encoder(raw, ...settings)));
  }

  static restore(codec, saved, given) {
    argumentOf(Codec, 'codec', codec);
    saved = bytes('saved', saved);
    const { memoryLimit, keepIntegers, trackCost } = options(given, {
      memoryLimit: DEFAULTS.memoryLimit,
      keepIntegers: false,
      trackCost: false,
    });
    whole('memoryLimit', memoryLimit, U32);
    truth('keepIntegers', keepIntegers);
    truth('trackCost', trackCost);
    const raw = argumentOf(Codec, 'codec', codec);
    return adopt(
      Encoder,
      run((bindings) => bindings.Encoder.restore(raw, saved, memoryLimit, keepIntegers, trackCost)),
    );
  }

  save() {
    return use(this, (encoder) => encoder.save());
  }

  fork() {
    return adopt(Encoder, use(this, (encoder) => encoder.fork()));
  }

  close() {
    close(this);
  }

  setSide(indices, delivery) {
    indices = sideIndices('indices', indices);
    text('delivery', delivery);
    use(this, (encoder) => encoder.setSide(indices, delivery));
  }

  pushHidden(hidden) {
    hidden = hiddenStates('hidden', hidden);
    use(this, (encoder) => encoder.pushHidden(hidden));
  }

  pushY(y) {
    y = integers('y', y);
    use(this, (encoder) => encoder.pushY(y));
  }

  pushIntegers(y, w) {
    y = integers('y', y);
    w = integers('w', w);
    use(this, (encoder) => encoder.pushIntegers(y, w));
  }

  pushExact(hidden, dtype) {
    const type = typeOf(hidden);
    if (type === 'Float32Array') dtype ??= 'f32';
    else if (type === 'Float16Array') dtype ??= 'f16';
    else if (type !== 'Uint16Array') throw wrongType(`hidden is ${described(hidden)}, not a Float32Array`);
    const fits = { Float32Array: ['f32'], Float16Array: ['f16'], Uint16Array: ['f16', 'bf16'] }[type];
    if (!fits.includes(dtype)) {
      const found = dtype === undefined ? 'is missing' : `is ${JSON.stringify(dtype)}`;
      throw wrongType(`dtype ${found}: a ${type} holds ${fits.map((name) => `"${name}"`).join(' or ')}`);
    }
    const view = bytesOf('hidden', hidden);
    use(this, (encoder) => encoder.pushExact(dtype, view));
  }

  quantise(hidden) {
    hidden = hiddenStates('hidden', hidden);
    return use(this, (encoder) => encoder.quantise(hidden));
  }

  checkpoint() {
    use(this, (encoder) => encoder.checkpoint());
  }

  reset() {
    use(this, (encoder) => encoder.reset());
  }

  rewind(index) {
    whole('index', index);
    use(this, (encoder) => encoder.rewind(index));
  }

  setQuality(quality) {
    whole('quality', quality, U8);
    use(this, (encoder) => encoder.setQuality(quality));
  }

  switchModel(codec, quality) {
    const raw = argumentOf(Codec, 'codec', codec);
    whole('quality', quality, U8);
    use(this, (encoder) => encoder.switchModel(raw, quality));
  }

  extension(id, data) {
    whole('id', id, U32);
    data = bytes('data', data);
    use(this, (encoder) => encoder.extension(id, data));
  }

  end() {
    use(this, (encoder) => encoder.end());
  }

  takeBytes() {
    return use(this, (encoder) => encoder.takeBytes());
  }

  popMessage() {
    return use(this, (encoder) => encoder.popMessage());
  }

  takeMessages() {
    const messages = [];
    for (let message = this.popMessage(); message !== null; message = this.popMessage()) messages.push(message);
    return messages;
  }

  get untakenBytes() {
    return use(this, (encoder) => encoder.untakenBytes);
  }

  get nextMessage() {
    return use(this, (encoder) => encoder.nextMessage);
  }

  get codec() {
    return adopt(Codec, use(this, (encoder) => encoder.codec));
  }

  get nextIndex() {
    return use(this, (encoder) => encoder.nextIndex);
  }

  get lastIntegers() {
    return use(this, (encoder) => encoder.lastIntegers);
  }

  get lastCost() {
    return use(this, (encoder) => encoder.lastCost);
  }

  get lastClipped() {
    return use(this, (encoder) => encoder.lastClipped);
  }

  get sent() {
    return use(this, (encoder) => encoder.sent);
  }

  get recentlySent() {
    return use(this, (encoder) => encoder.recentlySent);
  }

  get unlike() {
    return use(this, (encoder) => encoder.unlike) ?? null;
  }

  get memoryBytes() {
    return use(this, (encoder) => encoder.memoryBytes);
  }
}

disposable(Encoder);
