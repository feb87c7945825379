import { U32, text, whole } from './arguments.js';

/** The limits that readers and decoders share, and the binding. */
export const LIMITS = {
  binding: 'byteStream',
  maxFrames: 256,
  maxChunkBytes: 4194304,
  maxRewind: 1024,
  targetHorizon: 1024,
  earlyBytes: 1048576,
};

/** Their values as Rust takes them. */
export function limits(chosen) {
  return [
    text('binding', chosen.binding),
    whole('maxFrames', chosen.maxFrames, U32),
    whole('maxChunkBytes', chosen.maxChunkBytes, U32),
    whole('maxRewind', chosen.maxRewind, U32),
    whole('targetHorizon', chosen.targetHorizon, U32),
    whole('earlyBytes', chosen.earlyBytes, U32),
  ];
}
