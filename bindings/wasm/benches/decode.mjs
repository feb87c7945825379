// Milliseconds a frame that the package takes to encode and to decode one frame at a time, in Node, and with --browser in
// headless Chromium too (it needs playwright-core, and Chromium at CHROMIUM or /usr/bin/chromium).
//
//     node bindings/wasm/benches/decode.mjs [--browser] [--model FILE] [--frames 400] [--rounds 5]

import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';

const { values: options } = parseArgs({
  options: {
    browser: { type: 'boolean', default: false },
    model: { type: 'string', default: new URL('../../../crates/midspan-cli/model/codec.safetensors', import.meta.url).pathname },
    frames: { type: 'string', default: '400' },
    rounds: { type: 'string', default: '5' },
  },
});
const [frames, rounds] = [Number(options.frames), Number(options.rounds)];
const model = readFileSync(options.model);

/** Runs in Node and in a page alike, so it takes all that it uses as arguments. */
function measure({ Codec, Encoder, Decoder }, model, frames, rounds) {
  const codec = Codec.fromBytes(model);
  const width = codec.hiddenWidth;
  let state = 1;
  const draw = () => (state = (Math.imul(state, 1664525) + 1013904223) >>> 0) / 2 ** 32 - 0.5;
  const hidden = Float32Array.from({ length: frames * width }, () => draw() + draw() + draw());
  const ids = Uint32Array.from({ length: frames }, () => Math.floor((draw() + 0.5) * Math.max(codec.sideVocabulary, 1)));
  const times = [];
  for (let round = 0; round < rounds; round++) {
    const encoder = new Encoder(codec);
    const decoder = new Decoder(codec);
    const [encoded, decoded] = [[], []];
    for (let frame = 0; frame < frames; frame++) {
      const begin = performance.now();
      if (codec.takesSide) encoder.setSide(ids.subarray(frame, frame + 1), 'known');
      encoder.pushHidden(hidden.subarray(frame * width, (frame + 1) * width));
      const bytes = encoder.takeBytes();
      const between = performance.now();
      decoder.push(bytes);
      for (const event of decoder) if (event.type === 'sideWanted') decoder.giveSide(ids.subarray(frame, frame + 1));
      decoded.push(performance.now() - between);
      encoded.push(between - begin);
    }
    if (decoder.nextIndex !== frames) throw new Error('frames are missing');
    const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;
    times.push([mean(encoded), mean(decoded)]);
    encoder.close();
    decoder.close();
  }
  const batch = [];
  const encoder = new Encoder(codec, { checkpointInterval: 0 });
  if (codec.takesSide) encoder.setSide(ids, 'sent');
  encoder.pushHidden(hidden);
  const bytes = encoder.takeBytes();
  for (let round = 0; round < rounds; round++) {
    const decoder = new Decoder(codec);
    const begin = performance.now();
    decoder.push(bytes);
    for (const event of decoder) void event;
    batch.push((performance.now() - begin) / frames);
    decoder.close();
  }
  const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];
  return {
    encode: median(times.map(([encode]) => encode)),
    decode: median(times.map(([, decode]) => decode)),
    batch: median(batch),
  };
}

function tell(where, { encode, decode, batch }) {
  console.log(
    `${where}: encode ${encode.toFixed(3)} ms, decode ${decode.toFixed(3)} ms a frame, one at a time; ` +
      `decode ${batch.toFixed(3)} ms a frame in batches`,
  );
}

tell(`Node ${process.versions.node}`, measure(await import('../pkg/node.js'), model, frames, rounds));
if (options.browser) {
  const { open } = await import('../tests/browser.mjs');
  const { page, browser, close } = await open('bench');
  const text = measure.toString();
  const result = await page.evaluate(
    async ([text, model, frames, rounds]) => {
      const midspan = await import('/pkg/index.js');
      await midspan.init();
      const bytes = Uint8Array.from(atob(model), (letter) => letter.charCodeAt(0));
      return new Function(`return (${text})`)()(midspan, bytes, frames, rounds);
    },
    [text, model.toString('base64'), frames, rounds],
  );
  tell(`Chromium ${browser.version()}`, result);
  await close();
}
