import { U32, bytes, optionalBytes, optionalWhole, options, sideIndices, text, truth, whole } from './arguments.js';
import { Codec } from './codec.js';
import { ErrorNumber, wrongType } from './errors.js';
import { LIMITS, limits } from './limits.js';
import { adopt, argumentOf, close, described, disposable, hold, run, use } from './runtime.js';

const DEFAULTS = {
  models: [],
  ...LIMITS,
  memoryLimit: 67108864,
  framesPerPoll: 64,
  hostDigest: undefined,
  keepIntegers: false,
};

/** Makes a raw decoder with these options. */
function make(codec, given, decoder) {
  argumentOf(Codec, 'codec', codec);
  const chosen = options(given, DEFAULTS);
  if (!Array.isArray(chosen.models)) throw wrongType(`models is ${described(chosen.models)}, not an Array of Codecs`);
  const others = Array.from(chosen.models);
  const values = [
    ...limits(chosen),
    whole('memoryLimit', chosen.memoryLimit, U32),
    whole('framesPerPoll', chosen.framesPerPoll, U32),
    optionalBytes('hostDigest', chosen.hostDigest),
    truth('keepIntegers', chosen.keepIntegers),
  ];
  // Reading the options may have closed some.
  const models = others.map((model, place) => argumentOf(Codec, `models[${place}]`, model));
  const raw = argumentOf(Codec, 'codec', codec);
  return run((bindings) => {
    const settings = new bindings.DecoderSettings(...values);
    try {
      for (const model of models) settings.addModel(model);
      return decoder(bindings.Decoder, raw, settings);
    } finally {
      settings.free();
    }
  });
}

// The numbers of errors that say that nobody answered.
const UNANSWERED = [ErrorNumber.TARGET_OVERDUE, ErrorNumber.WRONG_SIDE_INDICES];

export class Decoder {
  constructor(codec, given) {
    hold(this, make(codec, given, (Raw, raw, settings) => new Raw(raw, settings)));
  }

  static join(codec, header, offset, index, given) {
    header = bytes('header', header);
    whole('offset', offset);
    index = optionalWhole('index', index);
    return adopt(
      Decoder,
      make(codec, given, (Raw, raw, settings) => Raw.join(raw, settings, header, offset, index)),
    );
  }

  static restore(codec, saved, given) {
    saved = bytes('saved', saved);
    return adopt(
      Decoder,
      make(codec, given, (Raw, raw, settings) => Raw.restore(raw, settings, saved)),
    );
  }

  save() {
    return use(this, (decoder) => decoder.save());
  }

  fork() {
    return adopt(Decoder, use(this, (decoder) => decoder.fork()));
  }

  close() {
    close(this);
  }

  addModel(codec) {
    const raw = argumentOf(Codec, 'codec', codec);
    use(this, (decoder) => decoder.addModel(raw));
  }

  push(data) {
    data = bytes('data', data);
    use(this, (decoder) => decoder.push(data));
  }

  pushMessage(message) {
    message = bytes('message', message);
    use(this, (decoder) => decoder.pushMessage(message));
  }

  pushDatagram(datagram) {
    datagram = bytes('datagram', datagram);
    use(this, (decoder) => decoder.pushDatagram(datagram));
  }

  finish() {
    use(this, (decoder) => decoder.finish());
  }

  poll() {
    return use(this, (decoder) => decoder.poll());
  }

  *events() {
    let asked = false;
    for (;;) {
      let event;
      try {
        event = this.poll();
      } catch (error) {
        if (asked && UNANSWERED.includes(error.number)) return;
        throw error;
      }
      if (event.type === 'needMore' || event.type === 'endOfStream') return;
      asked = event.type === 'sideWanted' || event.type === 'targetsOverdue';
      yield event;
    }
  }

  [Symbol.iterator]() {
    return this.events();
  }

  giveSide(indices) {
    indices = sideIndices('indices', indices);
    use(this, (decoder) => decoder.giveSide(indices));
  }

  conceal(index, count = 1) {
    whole('index', index);
    whole('count', count);
    use(this, (decoder) => decoder.conceal(index, count));
  }

  missingElements(index) {
    whole('index', index);
    return use(this, (decoder) => decoder.missingElements(index)) ?? null;
  }

  get wantedSide() {
    return use(this, (decoder) => decoder.wantedSide);
  }

  get oldestPending() {
    return use(this, (decoder) => decoder.oldestPending);
  }

  get codec() {
    return adopt(Codec, use(this, (decoder) => decoder.codec));
  }

  get nextIndex() {
    return use(this, (decoder) => decoder.nextIndex);
  }

  get confirmedIndex() {
    return use(this, (decoder) => decoder.confirmedIndex);
  }

  get resumeIndex() {
    return use(this, (decoder) => decoder.resumeIndex);
  }

  get memoryBytes() {
    return use(this, (decoder) => decoder.memoryBytes);
  }
}

disposable(Decoder);
