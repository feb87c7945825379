// Checked by `tsc --noEmit`, never run: what a program in TypeScript writes, and what must not pass.
import {
  Codec,
  Decoder,
  type DecoderEvent,
  Encoder,
  ErrorNumber,
  MidspanError,
  Reader,
  Writer,
  fileSeek,
  init,
  loadHeader,
} from 'midspan';

export async function send(model: ArrayBuffer, hidden: Float32Array, ids: number[]): Promise<Uint8Array> {
  await init();
  using codec = Codec.fromBytes(model, { memoryLimit: 1 << 28 });
  const encoder = new Encoder(codec, { mode: 'layered', check: 2, lanes: 4, rateWeight: null });
  encoder.setSide(ids, 'sent');
  encoder.pushHidden(hidden);
  encoder.pushExact(new Uint16Array(codec.hiddenWidth), 'bf16');
  encoder.end();
  return encoder.takeBytes();
}

export function receive(codec: Codec, received: Uint8Array): number {
  const decoder = new Decoder(codec, { keepIntegers: true, models: [codec] });
  decoder.push(received);
  let frames = 0;
  for (const event of decoder) {
    if (event.type === 'frames') {
      const hidden: Float32Array = event.hidden;
      frames += hidden.length / codec.hiddenWidth;
      const y: Int16Array | null = event.y;
      void y;
    } else if (event.type === 'sideWanted') {
      decoder.giveSide(new Uint32Array(event.count));
    }
  }
  const next = decoder.poll();
  if (next.type !== 'needMore' && next.type !== 'endOfStream') told(next);
  return frames;
}

function told(event: DecoderEvent): string {
  switch (event.type) {
    case 'verdict':
      return `${event.verdict} ${event.index} to ${event.endIndex}`;
    case 'targetRefused':
      return event.reason;
    default:
      return event.type;
  }
}

export function inspect(file: Uint8Array): string[] {
  const { header, length } = loadHeader(file);
  const reader = new Reader({ binding: header.binding });
  reader.push(file);
  const lines = [`${length}`];
  try {
    for (const chunk of reader) {
      if (chunk.type === 'end') lines.push(`${chunk.framesCoded} frames in ${chunk.offset + chunk.wireLen} bytes`);
      if (chunk.type === 'seekIndex') lines.push(...chunk.entries.map((entry) => `${entry.frame}`));
    }
  } catch (error) {
    if (error instanceof MidspanError && error.number === ErrorNumber.TRUNCATED) lines.push(`${error.offset}`);
    else throw error;
  }
  const entry = fileSeek(file, file, file.length, 3);
  new Writer({ fingerprint: header.fingerprint, side: true }).coverSide([entry.frame]);
  return lines;
}

declare const codec: Codec;
const encoder = new Encoder(codec);
// @ts-expect-error Hidden states are a Float32Array.
encoder.pushHidden([0, 1]);
// @ts-expect-error Hidden states are a Float32Array.
encoder.pushHidden(new Float64Array(4));
// @ts-expect-error There is no such mode.
new Encoder(codec, { mode: 'both' });
// @ts-expect-error There is no such option.
new Decoder(codec, { threads: 2 });
// @ts-expect-error A header has a fingerprint.
new Writer({ quality: 1 });
// @ts-expect-error Codecs come from `Codec.fromBytes`.
new Codec();
// @ts-expect-error A delivery is `known` or `sent`.
encoder.setSide([1], 'maybe');
