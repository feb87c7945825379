// The package for browsers and bundlers, where `await init()` comes first.

import { ErrorNumber } from './errors.js';
import { whole } from './arguments.js';
import { run } from './runtime.js';

export { Codec } from './codec.js';
export { Decoder } from './decoder.js';
export { Encoder } from './encoder.js';
export { ErrorNumber, MidspanError } from './errors.js';
export { fileSeek, loadHeader } from './header.js';
export { Reader } from './reader.js';
export { init, initSync } from './runtime.js';
export { Writer } from './writer.js';

export function errorText(number) {
  if (number === ErrorNumber.INVALID_ARGUMENT) return 'an argument is invalid';
  if (number === ErrorNumber.PANIC) return 'the library stopped, in this call or an earlier one';
  if (!Number.isInteger(number) || number < 0 || number > 0xffff) return null;
  return run((bindings) => bindings.errorText(whole('number', number))) ?? null;
}

export function moduleMemoryBytes() {
  return run((bindings) => bindings.moduleMemoryBytes());
}
