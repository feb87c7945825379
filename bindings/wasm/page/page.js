// The inspector: reads a dropped stream with the container's reader, and decodes it with a dropped model. Work is done in
// slices, so that the page answers in between, whatever the file holds.

import { Codec, Decoder, MidspanError, Reader, init } from '../pkg/index.js';
import { curve, strip } from './plot.js';

const at = (id) => document.getElementById(id);
const grouped = (value, digits = 0) => value.toLocaleString('en', { maximumFractionDigits: digits });
const many = (count, name) => `${grouped(count)} ${name}${count === 1 ? '' : 's'}`;
const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');

// The file is the user's own, so more is accepted than from a peer.
const LIMITS = { maxFrames: 65536, maxChunkBytes: 64 << 20, maxRewind: 65536 };
const MEMORY = 512 << 20;
/** Bytes of a push, and milliseconds after which the page is let do something else. */
const [PIECE, SLICE] = [1 << 16, 25];
/** The most rows of the table of events. */
const MOST_ROWS = 1000;

const COLOURS = {
  header: 'header',
  frame: 'frame',
  batch: 'batch',
  target: 'target',
  sideIndices: 'side',
  exactFrame: 'exact',
  end: 'end',
  seekIndex: 'end',
  footer: 'end',
  broken: 'broken',
};
const NAMES = {
  sideIndices: 'side indices',
  exactFrame: 'exact frame',
  modelSwitch: 'model switch',
  seekIndex: 'seek index',
  broken: 'not read',
};
const nameOf = (kind) => NAMES[kind] ?? kind;
const colourOf = (kind) => COLOURS[kind] ?? 'control';

let stream = null;
let model = null;
// Of a run: a file that is dropped later ends the work on the one before.
let run = 0;

/** Lets the page do something else if a slice is over. */
function slices(own) {
  let begin = performance.now();
  return async () => {
    if (performance.now() - begin < SLICE) return;
    await new Promise((resolve) => setTimeout(resolve));
    if (own !== run) throw new Superseded();
    begin = performance.now();
  };
}

class Superseded extends Error {}

function show(id, shown = true) {
  at(id).hidden = !shown;
}

function say(text) {
  at('state').textContent = text;
}

function row(cells, kind = 'td') {
  const made = document.createElement('tr');
  for (const cell of cells) {
    const data = document.createElement(kind);
    if (cell instanceof Node) data.append(cell);
    else data.textContent = String(cell);
    if (typeof cell === 'number' || /^(< )?[\d,.]+( %)?$/.test(cell)) data.className = 'number';
    made.append(data);
  }
  return made;
}

function figures(id, pairs) {
  at(id).replaceChildren(
    ...pairs.map(([name, value]) => {
      const made = document.createElement('div');
      const [label, figure] = [document.createElement('span'), document.createElement('b')];
      [label.textContent, figure.textContent] = [name, value];
      made.append(label, figure);
      return made;
    }),
  );
}

/** Says what is wrong, and shows the bytes there. */
function fault(id, error, bytes) {
  const place = at(id);
  const title = document.createElement('strong');
  const text = document.createElement('p');
  const where = error.offset === null || error.offset === undefined ? '' : ` at byte ${grouped(error.offset)}`;
  title.textContent = error instanceof MidspanError ? `${error.code} (${error.number})${where}` : error.name;
  text.textContent = error.message;
  place.replaceChildren(title, text);
  if (where && bytes !== undefined) {
    const dump = document.createElement('pre');
    const first = Math.max(0, error.offset - 16);
    const mark = document.createElement('mark');
    mark.textContent = error.offset < bytes.length ? hex(bytes.subarray(error.offset, error.offset + 1)) : 'end';
    const spaced = (part) => Array.from(part, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
    dump.append(
      `${grouped(first)}:  ${spaced(bytes.subarray(first, error.offset))} `,
      mark,
      ` ${spaced(bytes.subarray(error.offset + 1, error.offset + 17))}`,
    );
    place.append(dump);
  }
  show(id);
}

/** What a chunk says, apart from its place. */
function detailOf(chunk) {
  const digests = () => `digests ${chunk.digestW.toString(16)}, ${chunk.digestY.toString(16)}`;
  switch (chunk.type) {
    case 'header':
      return `${chunk.header.mode}, ${chunk.header.binding}`;
    case 'frame':
    case 'exactFrame':
      return `frame ${chunk.index}`;
    case 'batch':
      return `frames ${chunk.index} to ${chunk.index + chunk.frames - 1}, ${many(chunk.payloads.length, 'lane')}`;
    case 'target':
      return `${chunk.status}, ${many(chunk.frames, 'frame')}${chunk.index === null ? '' : ` from ${chunk.index}`}`;
    case 'sideIndices':
      return `of ${many(chunk.frames, 'frame')} from ${chunk.index}`;
    case 'checkpoint':
      return `before frame ${chunk.index}, ${digests()}`;
    case 'reset':
      return `a new context at frame ${chunk.index}, quality ${chunk.quality}`;
    case 'rewind':
      return `back to frame ${chunk.index}`;
    case 'quality':
      return `quality ${chunk.quality}`;
    case 'modelSwitch':
      return `model ${hex(chunk.fingerprint).slice(0, 16)}… from frame ${chunk.index}, quality ${chunk.quality}`;
    case 'extension':
      return `id ${chunk.id}, ${many(chunk.data.length, 'byte')}`;
    case 'end':
      return `after frame ${chunk.index - 1}, ${many(chunk.framesCoded, 'frame')} coded, ${digests()}`;
    case 'seekIndex':
      return `${many(chunk.entries.length, 'place')} to join`;
    default:
      return '';
  }
}

/** Reads a stream's chunks: their places, and the bits of each frame. */
async function inspect(bytes, pause) {
  const reader = new Reader(LIMITS);
  const [parts, bits, kinds] = [[], new Map(), new Map()];
  const found = { header: null, parts, bits, kinds, events: [], error: null, coded: 0 };
  const add = (index, frames, size) => {
    for (let frame = index; frame < index + frames; frame++) {
      const one = bits.get(frame) ?? { bits: 0, shared: false };
      one.bits += (8 * size) / frames;
      one.shared ||= frames > 1;
      bits.set(frame, one);
    }
  };
  const take = (chunk) => {
    const [name, detail] = [nameOf(chunk.type), detailOf(chunk)];
    const text = `${name} at byte ${chunk.offset}, ${chunk.wireLen} bytes\n${detail}`;
    parts.push({ kind: name, colour: colourOf(chunk.type), offset: chunk.offset, bytes: chunk.wireLen, text });
    const kind = kinds.get(chunk.type) ?? { count: 0, bytes: 0 };
    kinds.set(chunk.type, { count: kind.count + 1, bytes: kind.bytes + chunk.wireLen });
    if (chunk.type === 'header') found.header = chunk.header;
    if (chunk.type === 'frame' || chunk.type === 'exactFrame') add(chunk.index, 1, chunk.wireLen);
    if (chunk.type === 'batch' || chunk.type === 'sideIndices') add(chunk.index, chunk.frames, chunk.wireLen);
    if (chunk.type === 'target' && chunk.index !== null) add(chunk.index, chunk.frames, chunk.wireLen);
    if (chunk.type === 'frame' || chunk.type === 'exactFrame') found.coded += 1;
    if (chunk.type === 'batch') found.coded += chunk.frames;
    if (chunk.type === 'rewind') for (const frame of [...bits.keys()]) if (frame >= chunk.index) bits.delete(frame);
    if (!['frame', 'batch', 'target', 'sideIndices'].includes(chunk.type)) found.events.push([chunk.offset, name, detail]);
  };
  try {
    for (let place = 0; place < bytes.length; place += PIECE) {
      reader.push(bytes.subarray(place, place + PIECE));
      for (const chunk of reader) {
        take(chunk);
        await pause();
      }
      say(`Reading: ${grouped((100 * place) / bytes.length)} %`);
      await pause();
    }
    reader.finish();
    for (const chunk of reader) take(chunk);
  } catch (error) {
    if (error instanceof Superseded) throw error;
    found.error = error;
    const read = parts.length === 0 ? 0 : parts.at(-1).offset + parts.at(-1).bytes;
    const left = bytes.length - read;
    if (left > 0) {
      const text = `${many(left, 'byte')} from byte ${read} on are not read: ${error.message}`;
      parts.push({ kind: nameOf('broken'), colour: 'broken', offset: read, bytes: left, text });
      kinds.set('broken', { count: 1, bytes: left });
    }
    found.events.push([error.offset ?? read, error.code ?? error.name, error.message, true]);
  } finally {
    reader.close();
  }
  return found;
}

function headerFields(header) {
  const list = at('header-fields');
  const values = [
    ['Mode', header.mode],
    ['Binding', { byteStream: 'byte stream', message: 'messages', file: 'file, with a seek index' }[header.binding]],
    ['Model', hex(header.fingerprint), true],
    ['Model version', header.modelVersion],
    ['Quality at the start', header.quality],
    ['Check', header.check === 0 ? 'none' : `${8 * header.check} bits a chunk`],
    ['Side indices', header.side ? 'yes' : 'no'],
    ['Identity', header.identity === null ? 'none' : hex(header.identity), header.identity !== null],
    ['Host digest', header.hostDigest === null ? 'none' : hex(header.hostDigest), header.hostDigest !== null],
    ['Frames of a chunk', `at most ${grouped(header.maxFrames)}`],
    ['Bytes of a chunk', `at most ${grouped(header.maxChunkBytes)}`],
    ['Frames of a rewind', `at most ${grouped(header.maxRewind)}`],
    ['Target horizon', header.targetHorizon === null ? 'none' : `${grouped(header.targetHorizon)} frames`],
    ['Length offset', `${header.lengthOffset} bytes`],
    ['Format version', header.formatVersion],
    ...header.fields.map(({ id, data }) => [
      id === 2 ? 'Producer' : `Field ${id}`,
      id === 2 ? new TextDecoder().decode(data) : hex(data),
      id !== 2,
    ]),
  ];
  list.replaceChildren(
    ...values.flatMap(([name, value, code]) => {
      const [term, text] = [document.createElement('dt'), document.createElement('dd')];
      term.textContent = name;
      if (code) text.append(Object.assign(document.createElement('code'), { textContent: value }));
      else text.textContent = String(value);
      return [term, text];
    }),
  );
  show('header');
}

function events(rows) {
  const [head, body] = [document.createElement('thead'), document.createElement('tbody')];
  head.append(row(['Byte', 'What', ''], 'th'));
  head.rows[0].cells[0].className = 'number';
  const shown = rows.length > MOST_ROWS ? [...rows.slice(0, MOST_ROWS - 50), ...rows.slice(-50)] : rows;
  for (const [offset, name, detail, bad] of shown) {
    const made = row([grouped(offset), name, detail]);
    if (bad) made.className = 'bad';
    body.append(made);
  }
  at('event-rows').replaceChildren(head, body);
  const left = rows.length - shown.length;
  at('events-note').textContent =
    `Chunks other than frames, targets and side indices${left > 0 ? `; ${grouped(left)} are left out before the last 50` : ''}.`;
  show('events', rows.length > 0);
}

const share = (part) => (part < 0.0005 ? '< 0.1 %' : `${grouped(100 * part, 1)} %`);

function drawChunks(found, length) {
  at('strip').replaceChildren(strip(found.parts, length));
  const [head, body] = [document.createElement('thead'), document.createElement('tbody')];
  head.append(row(['Kind', 'Chunks', 'Bytes', 'Share'], 'th'));
  for (const cell of [...head.rows[0].cells].slice(1)) cell.className = 'number';
  for (const [kind, { count, bytes }] of [...found.kinds].sort(([, a], [, b]) => b.bytes - a.bytes)) {
    const name = document.createElement('span');
    const key = Object.assign(document.createElement('i'), { className: 'key' });
    key.style.background = `var(--${colourOf(kind)})`;
    name.append(key, nameOf(kind));
    body.append(row([name, grouped(count), grouped(bytes), share(bytes / length)]));
  }
  at('kinds').replaceChildren(head, body);
  show('chunks', found.parts.length > 0);
}

function drawBits(found) {
  const points = [...found.bits]
    .sort(([a], [b]) => a - b)
    .map(([index, { bits, shared }]) => ({
      index,
      value: bits,
      shared,
      text: `frame ${index}: ${grouped(bits, 1)} bits${shared ? ', a mean of its batch' : ''}`,
    }));
  if (points.length === 0) return;
  at('bits-note').textContent = `All bytes of a frame's chunks, framing and checks included; the dashed line is the mean.${
    points.some((point) => point.shared) ? ' Hollow points are means over a chunk of several frames.' : ''
  }`;
  at('bits-plot').replaceChildren(curve(points, 'bits'));
  show('bits');
}

async function open() {
  const own = ++run;
  const { name, bytes } = stream;
  for (const id of ['fault', 'summary', 'header', 'chunks', 'bits', 'decoding', 'decoded-fault', 'events']) show(id, false);
  say('Reading…');
  const found = await inspect(bytes, slices(own));
  if (found.error !== null) fault('fault', found.error, bytes);
  if (found.header !== null) headerFields(found.header);
  const frames = found.bits.size;
  const framed = [...found.bits.values()].reduce((sum, { bits }) => sum + bits, 0);
  figures('figures', [
    ['Bytes', grouped(bytes.length)],
    ['Chunks', grouped(found.parts.length - (found.kinds.has('broken') ? 1 : 0))],
    ['Frames', grouped(frames)],
    ['Bits a frame', frames === 0 ? '–' : grouped(framed / frames, 1)],
    ['Rewound frames', grouped(Math.max(found.coded - frames, 0))],
  ]);
  show('summary', found.header !== null);
  drawChunks(found, bytes.length);
  drawBits(found);
  events(found.events);
  say(`${name}: ${found.error === null ? 'whole' : 'broken'}, ${grouped(bytes.length)} bytes`);
  if (model !== null && found.header !== null) await decode(bytes, found, own);
}

async function decode(bytes, found, own) {
  let note = '';
  show('decoded-fault', false);
  at('decoded-plot').replaceChildren();
  at('decoded-note').textContent = '';
  const pause = slices(own);
  let decoder = null;
  const points = [];
  const sums = { count: 0, sum: 0, squares: 0, low: Infinity, high: -Infinity, concealed: 0, ms: 0 };
  const add = (event) => {
    const { hidden, index, count } = event;
    const width = hidden.length / count;
    for (let frame = 0; frame < count; frame++) {
      let squares = 0;
      for (let place = frame * width; place < (frame + 1) * width; place++) {
        const value = hidden[place];
        sums.sum += value;
        squares += value * value;
        if (value < sums.low) sums.low = value;
        if (value > sums.high) sums.high = value;
      }
      sums.squares += squares;
      points.push({ index: index + frame, value: Math.sqrt(squares / width) });
    }
    sums.count += hidden.length;
    if (event.concealed) sums.concealed += count;
  };
  const tell = () => {
    const mean = sums.sum / sums.count;
    const number = (value) => (sums.count === 0 ? '–' : value.toFixed(3));
    figures('decoded-figures', [
      ['Frames decoded', grouped(points.length)],
      ['Confirmed', grouped(decoder?.confirmedIndex ?? 0)],
      ['ms a frame', points.length === 0 ? '–' : (sums.ms / points.length).toFixed(3)],
      ['Mean', number(mean)],
      ['Deviation', number(Math.sqrt(Math.max(sums.squares / sums.count - mean * mean, 0)))],
      ['Range', sums.count === 0 ? '–' : `${sums.low.toPrecision(3)} to ${sums.high.toPrecision(3)}`],
    ]);
  };
  const events = async () => {
    for (;;) {
      const begin = performance.now();
      const event = decoder.poll();
      sums.ms += performance.now() - begin;
      if (event.type === 'needMore' || event.type === 'endOfStream') return;
      if (event.type === 'frames' || event.type === 'targets' || event.type === 'exactFrame') add(event);
      if (event.type === 'rewound') while (points.length > 0 && points.at(-1).index >= event.index) points.pop();
      if (event.type === 'targetsOverdue') decoder.conceal(event.index, event.count);
      if (event.type === 'sideWanted') {
        throw new Error(
          `The stream leaves out the side indices of ${many(event.count, 'frame')} from frame ${event.index} on, because the far end ` +
            'knows them. They are not in this file, so decoding stops here.',
        );
      }
      await pause();
    }
  };
  show('decoding');
  try {
    decoder = new Decoder(model.codec, { ...LIMITS, memoryLimit: MEMORY, framesPerPoll: 16 });
    for (let place = 0; place < bytes.length; place += PIECE) {
      decoder.push(bytes.subarray(place, place + PIECE));
      await events();
      say(`Decoding: ${grouped((100 * place) / bytes.length)} %`);
      await pause();
    }
    decoder.finish();
    await events();
    while (decoder.oldestPending !== null) {
      decoder.conceal(decoder.oldestPending);
      await events();
    }
    say(`${stream.name}: decoded with ${model.name}`);
  } catch (error) {
    if (error instanceof Superseded) throw error;
    // What the container found is shown already.
    const known = found.error !== null && found.error.number === error.number && found.error.offset === error.offset;
    if (known) note = ' Decoding stopped at the fault above.';
    else fault('decoded-fault', error, bytes);
    say(`${stream.name}: decoding stopped`);
  } finally {
    tell();
    decoder?.close();
  }
  if (points.length > 0) {
    const concealed = sums.concealed > 0 ? ` ${grouped(sums.concealed)} frames are concealed.` : '';
    at('decoded-note').textContent = `Root mean square of each hidden state, as reconstructed.${concealed}${note}`;
    at('decoded-plot').replaceChildren(curve(points.sort((a, b) => a.index - b.index), 'root mean square'));
  }
}

/** A safetensors file begins with the length of its header, which is JSON. */
const isModel = (bytes, name) => /\.safetensors$/i.test(name) || (bytes.length > 9 && bytes[8] === 0x7b && bytes[7] === 0);

async function take(file, kind) {
  if (file === undefined) return;
  try {
    await init();
    const bytes = new Uint8Array(await file.arrayBuffer());
    if (kind === 'model' || (kind === undefined && isModel(bytes, file.name))) {
      at('model-name').textContent = file.name;
      let codec;
      try {
        codec = Codec.fromBytes(bytes, { memoryLimit: MEMORY });
      } catch (error) {
        show('decoding');
        at('decoded-figures').replaceChildren();
        at('decoded-plot').replaceChildren();
        fault('decoded-fault', error);
        say(`${file.name} is no model`);
        return;
      }
      model?.codec.close();
      model = { name: file.name, codec };
      at('model-name').textContent =
        `${file.name}: ${codec.hiddenWidth} values a frame, ${codec.qualities} qualities${codec.takesSide ? ', side indices' : ''}`;
      if (stream === null) say('Now drop a stream.');
      else await open();
    } else {
      stream = { name: file.name, bytes };
      at('stream-name').textContent = file.name;
      await open();
    }
  } catch (error) {
    if (error instanceof Superseded) return;
    fault('fault', error);
    say('');
  }
}

at('choose-stream').addEventListener('change', (event) => take(event.target.files[0], 'stream'));
at('choose-model').addEventListener('change', (event) => take(event.target.files[0], 'model'));
for (const type of ['dragenter', 'dragover']) {
  addEventListener(type, (event) => {
    event.preventDefault();
    document.body.classList.add('over');
  });
}
addEventListener('dragleave', (event) => {
  if (event.relatedTarget === null) document.body.classList.remove('over');
});
addEventListener('drop', async (event) => {
  event.preventDefault();
  document.body.classList.remove('over');
  // A stream and its model may come together; where each was dropped does not matter.
  for (const file of [...event.dataTransfer.files]) await take(file);
});
