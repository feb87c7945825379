import { U8, U16, U32, byteArrays, bytes, sideIndices, text, whole } from './arguments.js';
import { headerValues } from './header.js';
import { adopt, close, disposable, hold, run, use } from './runtime.js';

export class Writer {
  constructor(header) {
    const values = headerValues(header);
    const writer = run((bindings) => {
      const raw = new bindings.Header(...values);
      try {
        return new bindings.Writer(raw);
      } finally {
        raw.free();
      }
    });
    hold(this, writer);
  }

  static restore(saved) {
    saved = bytes('saved', saved);
    return adopt(Writer, run((bindings) => bindings.Writer.restore(saved)));
  }

  save() {
    return use(this, (writer) => writer.save());
  }

  fork() {
    return adopt(Writer, use(this, (writer) => writer.fork()));
  }

  close() {
    close(this);
  }

  frame(payload) {
    payload = bytes('payload', payload);
    use(this, (writer) => writer.frame(payload));
  }

  batch(frames, lanes) {
    whole('frames', frames, U32);
    lanes = byteArrays('lanes', lanes);
    use(this, (writer) => writer.batch(frames, lanes));
  }

  target(index, frames, lanes) {
    whole('index', index);
    whole('frames', frames, U32);
    lanes = byteArrays('lanes', lanes);
    use(this, (writer) => writer.target(index, frames, lanes));
  }

  targetPart(index, firstElement, endElement, payload) {
    whole('index', index);
    whole('firstElement', firstElement);
    whole('endElement', endElement);
    payload = bytes('payload', payload);
    use(this, (writer) => writer.targetPart(index, firstElement, endElement, payload));
  }

  coverSide(indices) {
    indices = sideIndices('indices', indices);
    use(this, (writer) => writer.coverSide(indices));
  }

  sideIndices(count, payload) {
    whole('count', count, U32);
    payload = bytes('payload', payload);
    use(this, (writer) => writer.sideIndices(count, payload));
  }

  checkpoint(digestW, digestY) {
    digests(digestW, digestY);
    use(this, (writer) => writer.checkpoint(digestW, digestY));
  }

  reset(quality, lengthOffset, digestW, digestY) {
    whole('quality', quality, U8);
    whole('lengthOffset', lengthOffset, U16);
    digests(digestW, digestY);
    use(this, (writer) => writer.reset(quality, lengthOffset, digestW, digestY));
  }

  rewind(index) {
    whole('index', index);
    use(this, (writer) => writer.rewind(index));
  }

  quality(quality, lengthOffset) {
    whole('quality', quality, U8);
    whole('lengthOffset', lengthOffset, U16);
    use(this, (writer) => writer.quality(quality, lengthOffset));
  }

  modelSwitch(fingerprint, modelVersion, quality, lengthOffset, digestW, digestY) {
    fingerprint = bytes('fingerprint', fingerprint);
    whole('modelVersion', modelVersion, U32);
    whole('quality', quality, U8);
    whole('lengthOffset', lengthOffset, U16);
    digests(digestW, digestY);
    use(this, (writer) => writer.modelSwitch(fingerprint, modelVersion, quality, lengthOffset, digestW, digestY));
  }

  exactFrame(dtype, payload, hidden) {
    text('dtype', dtype);
    payload = bytes('payload', payload);
    hidden = bytes('hidden', hidden);
    use(this, (writer) => writer.exactFrame(dtype, payload, hidden));
  }

  extension(id, data) {
    whole('id', id, U32);
    data = bytes('data', data);
    use(this, (writer) => writer.extension(id, data));
  }

  end(digestW, digestY) {
    digests(digestW, digestY);
    use(this, (writer) => writer.end(digestW, digestY));
  }

  takeBytes() {
    return use(this, (writer) => writer.takeBytes());
  }

  popMessage() {
    return use(this, (writer) => writer.popMessage());
  }

  takeMessages() {
    const messages = [];
    for (let message = this.popMessage(); message !== null; message = this.popMessage()) messages.push(message);
    return messages;
  }

  get untakenBytes() {
    return use(this, (writer) => writer.untakenBytes);
  }

  get nextMessage() {
    return use(this, (writer) => writer.nextMessage);
  }

  get nextIndex() {
    return use(this, (writer) => writer.nextIndex);
  }

  get offset() {
    return use(this, (writer) => writer.offset);
  }

  get ended() {
    return use(this, (writer) => writer.ended);
  }

  get memoryBytes() {
    return use(this, (writer) => writer.memoryBytes);
  }
}

function digests(digestW, digestY) {
  whole('digestW', digestW, U32);
  whole('digestY', digestY, U32);
}

disposable(Writer);
