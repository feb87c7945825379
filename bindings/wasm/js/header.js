import {
  U8,
  U16,
  U32,
  bytes,
  fields,
  identity,
  optionalBytes,
  optionalWhole,
  options,
  text,
  truth,
  whole,
} from './arguments.js';
import { wrongType } from './errors.js';
import { described, run } from './runtime.js';

const DEFAULTS = {
  fingerprint: undefined,
  mode: 'joined',
  binding: 'byteStream',
  check: 1,
  side: false,
  quality: 0,
  modelVersion: 0,
  maxFrames: 256,
  maxChunkBytes: 4194304,
  maxRewind: 0,
  targetHorizon: null,
  lengthOffset: 0,
  identity: null,
  hostDigest: null,
  fields: [],
  formatVersion: 1,
};

/** The values of a header, as Rust takes them. */
export function headerValues(header) {
  if (typeof header !== 'object' || header === null) {
    throw wrongType(`header is ${described(header)}, not a header`);
  }
  const chosen = options(header, DEFAULTS);
  return [
    bytes('header.fingerprint', chosen.fingerprint),
    text('header.mode', chosen.mode),
    text('header.binding', chosen.binding),
    whole('header.check', chosen.check, U32),
    truth('header.side', chosen.side),
    whole('header.quality', chosen.quality, U8),
    whole('header.modelVersion', chosen.modelVersion, U32),
    whole('header.maxFrames', chosen.maxFrames, U32),
    whole('header.maxChunkBytes', chosen.maxChunkBytes, U32),
    whole('header.maxRewind', chosen.maxRewind, U32),
    optionalWhole('header.targetHorizon', chosen.targetHorizon, U32),
    whole('header.lengthOffset', chosen.lengthOffset, U16),
    identity('header.identity', chosen.identity),
    optionalBytes('header.hostDigest', chosen.hostDigest),
    ...fields('header.fields', chosen.fields),
    whole('header.formatVersion', chosen.formatVersion, U8),
  ];
}

export function loadHeader(data) {
  data = bytes('data', data);
  return run((bindings) => bindings.loadHeader(data));
}

export function fileSeek(header, tail, fileLen, frame) {
  header = bytes('header', header);
  tail = bytes('tail', tail);
  whole('fileLen', fileLen);
  whole('frame', frame);
  return run((bindings) => bindings.fileSeek(header, tail, fileLen, frame));
}
