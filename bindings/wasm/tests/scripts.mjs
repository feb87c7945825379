// Calls of an encoder, a line each, that examples/rust.rs of the Python package makes in Rust and this file here.

import { Decoder, Encoder, bytesOf, rows, utf8 } from './support.mjs';

const NUMBERS = ['check', 'lanes', 'quality', 'datagram_limit', 'max_rewind', 'rate_weight'];
const camel = (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());

function settings(line) {
  const pairs = line
    .split(' ')
    .slice(1)
    .map((word) => word.split('='));
  return Object.fromEntries(
    pairs.map(([name, value]) => [camel(name), NUMBERS.includes(name) ? Number(value) : camel(value)]),
  );
}

/** The output of an encoder; of messages each after its length. */
export function encode(codec, hidden, script) {
  const [first, ...lines] = script.split('\n');
  const options = settings(first);
  const encoder = new Encoder(codec, { identity: utf8('identity'), ...options });
  for (const line of lines) {
    const [name, ...words] = line.split(' ');
    const between = () => rows(codec, hidden, Number(words[0]), Number(words[1]));
    const calls = {
      side: () => encoder.setSide(words.slice(1).map(Number), words[0]),
      push: () => encoder.pushHidden(between()),
      push_y: () => encoder.pushY(encoder.quantise(between())),
      integers: () => {
        const [low, high] = codec.yRange;
        const y = Int16Array.from(between(), (value) => Math.min(Math.max(Math.trunc(value * 4), low), high));
        const frames = y.length / codec.hiddenWidth;
        encoder.pushIntegers(y, new Int16Array(frames * codec.hyperPriorWidth).fill(codec.wRange[1]));
      },
      exact: () => {
        const row = rows(codec, hidden, Number(words[1]), Number(words[1]) + 1).slice();
        if (words[0] === 'f32') encoder.pushExact(row);
        else encoder.pushExact(Uint16Array.from(new Uint32Array(row.buffer), (bits) => bits >>> 16), 'bf16');
      },
      quality: () => encoder.setQuality(Number(words[0])),
      rewind: () => encoder.rewind(Number(words[0])),
      extension: () => encoder.extension(Number(words[0]), utf8(words[1])),
      reset: () => encoder.reset(),
      checkpoint: () => encoder.checkpoint(),
      end: () => encoder.end(),
    };
    calls[name]();
  }
  if (options.binding !== 'message') return Buffer.from(encoder.takeBytes());
  return Buffer.concat(
    encoder.takeMessages().flatMap(({ data }) => {
      const length = Buffer.alloc(4);
      length.writeUInt32LE(data.length);
      return [length, data];
    }),
  );
}

const hex = (array) => (array === null ? '' : Buffer.from(bytesOf(array)).toString('hex'));
const snake = (type) => type.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

/** An event as examples/rust.rs prints it. */
function line(event) {
  const { type, index, count } = event;
  switch (type) {
    case 'opened':
      return `opened ${hex(event.header.identity)} ${event.header.quality} ${event.header.maxRewind}`;
    case 'frames':
      return `frames ${index} ${count} ${hex(event.hidden)} ${hex(event.w)} ${hex(event.y)}`;
    case 'exactFrame':
      return `exact_frame ${index} 1 ${hex(event.hidden)} ${hex(event.w)} ${hex(event.y)} ${hex(event.data)}`;
    case 'hyperPrior':
      return `hyper_prior ${index} ${count}  ${hex(event.w)} `;
    case 'targets':
      return `${event.concealed ? 'concealed' : 'targets'} ${index} ${count} ${hex(event.hidden)}  ${hex(event.y)}`;
    case 'targetPart':
      return `part ${index} ${event.firstElement} ${event.endElement}`;
    case 'sideIndices':
      return `side_indices ${index} [${Array.from(event.indices).join(', ')}]`;
    case 'verdict':
      return `verdict ${index} ${event.endIndex}`;
    case 'quality':
      return `quality ${event.quality}`;
    case 'extension':
      return `extension ${event.id} ${hex(event.data)}`;
    case 'ended':
      return `ended ${index} ${event.framesCoded}`;
    case 'sideWanted':
      return `side_wanted ${index} ${count}`;
    default:
      return `${snake(type)} ${index}`;
  }
}

/** The lines of a decoder's events. */
export function decode(codec, script, stream) {
  const { binding = 'byteStream' } = settings(script.split('\n')[0]);
  const decoder = new Decoder(codec, { binding, keepIntegers: true });
  if (binding === 'message') {
    for (let rest = stream; rest.length > 0; ) {
      const end = 4 + rest.readUInt32LE(0);
      decoder.pushMessage(rest.subarray(4, end));
      rest = rest.subarray(end);
    }
  } else decoder.push(stream);
  decoder.finish();
  const lines = [];
  for (const event of decoder) {
    lines.push(line(event));
    if (event.type === 'sideWanted') {
      decoder.giveSide(Array.from({ length: event.count }, (_, place) => (event.index + place) % 3));
    }
  }
  return lines;
}
