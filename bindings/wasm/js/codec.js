import { U8, U32, bytes, options, whole } from './arguments.js';
import { wrongType } from './errors.js';
import { adopt, argumentOf, close, disposable, run, use } from './runtime.js';

export class Codec {
  constructor() {
    throw wrongType('a Codec comes from Codec.fromBytes');
  }

  static fromBytes(file, given) {
    const { memoryLimit } = options(given, { memoryLimit: 1073741824 });
    file = bytes('file', file);
    whole('memoryLimit', memoryLimit, U32);
    return adopt(Codec, run((bindings) => new bindings.Codec(file, memoryLimit)));
  }

  close() {
    close(this);
  }

  get fingerprint() {
    return use(this, (codec) => codec.fingerprint);
  }

  get version() {
    return use(this, (codec) => codec.version);
  }

  get hiddenWidth() {
    return use(this, (codec) => codec.hiddenWidth);
  }

  get hyperPriorWidth() {
    return use(this, (codec) => codec.hyperPriorWidth);
  }

  get qualities() {
    return use(this, (codec) => codec.qualities);
  }

  get hasEncoder() {
    return use(this, (codec) => codec.hasEncoder);
  }

  get takesSide() {
    return use(this, (codec) => codec.takesSide);
  }

  get sideVocabulary() {
    return use(this, (codec) => codec.sideVocabulary);
  }

  get sideAges() {
    return use(this, (codec) => codec.sideAges);
  }

  get predictedFrom() {
    return use(this, (codec) => codec.predictedFrom);
  }

  get wRange() {
    return Array.from(use(this, (codec) => codec.wRange));
  }

  get yRange() {
    return Array.from(use(this, (codec) => codec.yRange));
  }

  quality(quality) {
    whole('quality', quality, U8);
    return use(this, (codec) => codec.quality(quality));
  }

  equals(other) {
    if (!(other instanceof Codec)) return false;
    const raw = argumentOf(Codec, 'other', other);
    return use(this, (codec) => codec.equals(raw));
  }
}

disposable(Codec);
