import { bytes, optionalWhole, options, whole } from './arguments.js';
import { LIMITS, limits } from './limits.js';
import { adopt, close, disposable, hold, run, use } from './runtime.js';

/** Makes a raw reader with these options. */
function make(given, reader) {
  const values = limits(options(given, LIMITS));
  return run((bindings) => {
    const settings = new bindings.ReaderSettings(...values);
    try {
      return reader(bindings.Reader, settings);
    } finally {
      settings.free();
    }
  });
}

export class Reader {
  constructor(given) {
    hold(this, make(given, (Raw, settings) => new Raw(settings)));
  }

  static join(header, offset, index, given) {
    header = bytes('header', header);
    whole('offset', offset);
    index = optionalWhole('index', index);
    return adopt(
      Reader,
      make(given, (Raw, settings) => Raw.join(settings, header, offset, index)),
    );
  }

  static restore(saved, given) {
    saved = bytes('saved', saved);
    return adopt(
      Reader,
      make(given, (Raw, settings) => Raw.restore(settings, saved)),
    );
  }

  save() {
    return use(this, (reader) => reader.save());
  }

  fork() {
    return adopt(Reader, use(this, (reader) => reader.fork()));
  }

  close() {
    close(this);
  }

  push(data) {
    data = bytes('data', data);
    use(this, (reader) => reader.push(data));
  }

  pushMessage(message) {
    message = bytes('message', message);
    use(this, (reader) => reader.pushMessage(message));
  }

  pushDatagram(datagram) {
    datagram = bytes('datagram', datagram);
    use(this, (reader) => reader.pushDatagram(datagram));
  }

  finish() {
    use(this, (reader) => reader.finish());
  }

  poll() {
    return use(this, (reader) => reader.poll());
  }

  *chunks() {
    for (;;) {
      const chunk = this.poll();
      if (chunk.type === 'needMore' || chunk.type === 'endOfStream') return;
      yield chunk;
    }
  }

  [Symbol.iterator]() {
    return this.chunks();
  }

  get header() {
    return use(this, (reader) => reader.header);
  }

  get offset() {
    return use(this, (reader) => reader.offset);
  }

  get memoryBytes() {
    return use(this, (reader) => reader.memoryBytes);
  }
}

disposable(Reader);
