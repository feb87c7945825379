// Checks of arguments. A wrong type is a TypeError, and a number that its argument cannot hold a RangeError.

import { ErrorNumber, ofCaller, ours, wrongType } from './errors.js';
import { described } from './runtime.js';

// The name of a typed array's type, in every realm; undefined of anything else.
const tag = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(Uint8Array.prototype), Symbol.toStringTag).get;

export function typeOf(value) {
  return tag.call(value);
}

const BUFFERS = ['[object ArrayBuffer]', '[object SharedArrayBuffer]'];

// An array whose memory was transferred looks like one without values.
function present(name, array) {
  if (array.byteLength === 0) {
    try {
      new Uint8Array(array.buffer);
    } catch {
      throw wrongType(`${name} has no memory: it was transferred`);
    }
  }
  return array;
}

/** Bytes: a Uint8Array, such as a Buffer of Node, or an ArrayBuffer. */
export function bytes(name, value) {
  if (tag.call(value) === 'Uint8Array') return present(name, value);
  if (BUFFERS.includes(Object.prototype.toString.call(value))) {
    try {
      return new Uint8Array(value);
    } catch {
      throw wrongType(`${name} has no memory: it was transferred`);
    }
  }
  throw wrongType(`${name} is ${described(value)}, not a Uint8Array or an ArrayBuffer`);
}

export function optionalBytes(name, value) {
  return value === undefined || value === null ? undefined : bytes(name, value);
}

/** Several of them. */
export function byteArrays(name, value) {
  if (!Array.isArray(value)) throw wrongType(`${name} is ${described(value)}, not an Array of Uint8Arrays`);
  return Array.from(value, (item, place) => bytes(`${name}[${place}]`, item));
}

/** Hidden states: float32, or float16, which is converted without loss. */
export function hiddenStates(name, value) {
  const type = tag.call(value);
  if (type === 'Float32Array') return present(name, value);
  if (type === 'Float16Array') return new Float32Array(present(name, value));
  throw wrongType(`${name} is ${described(value)}, not a Float32Array`);
}

/** Integers W or Y. */
export function integers(name, value) {
  if (tag.call(value) !== 'Int16Array') throw wrongType(`${name} is ${described(value)}, not an Int16Array`);
  return present(name, value);
}

const WHOLE = /^(Big)?(Int|Uint)\d+(Clamped)?Array$/;

/** Side indices: integers of any size, in a typed array or an Array. */
export function sideIndices(name, value) {
  const type = tag.call(value);
  if (type === 'Uint32Array') return present(name, value);
  if (type === undefined ? !Array.isArray(value) : !WHOLE.test(type)) {
    throw wrongType(`${name} is ${described(value)}, not an array of integers`);
  }
  if (type !== undefined) present(name, value);
  for (let place = 0; place < value.length; place++) {
    const index = value[place];
    if (typeof index !== 'bigint' && !Number.isInteger(index)) {
      throw wrongType(`${name}[${place}] is ${typeof index === 'number' ? index : described(index)}, not an integer`);
    }
    if (index < 0 || index > 0xffffffff) {
      throw ofCaller(
        ErrorNumber.WRONG_SIDE_INDICES,
        `side indices are wrong, missing or not wanted (${name}[${place}] is ${index}, not 0 to 4294967295)`,
        { wanted: 0xffffffff, found: index, element: null },
      );
    }
  }
  return Uint32Array.from(value, Number);
}

/** A whole number from 0 to `most`. */
export function whole(name, value, most = Number.MAX_SAFE_INTEGER) {
  if (typeof value !== 'number') throw wrongType(`${name} is ${described(value)}, not a number`);
  if (!Number.isInteger(value) || value < 0 || value > most) {
    throw ours(new RangeError(`${name} is ${value}, not a whole number from 0 to ${most}`));
  }
  return value;
}

export function optionalWhole(name, value, most) {
  return value === undefined || value === null ? undefined : whole(name, value, most);
}

export function optionalNumber(name, value) {
  if (value === undefined || value === null) return undefined;
  if (typeof value !== 'number') throw wrongType(`${name} is ${described(value)}, not a number`);
  return value;
}

export function text(name, value) {
  if (typeof value !== 'string') throw wrongType(`${name} is ${described(value)}, not a string`);
  return value;
}

export function truth(name, value) {
  if (typeof value !== 'boolean') throw wrongType(`${name} is ${described(value)}, not a boolean`);
  return value;
}

/** An identity: eight bytes, or none. */
export function identity(name, value) {
  if (value === null) return new Uint8Array();
  return bytes(name, value);
}

/** Optional fields of a stream header, as ids and values. */
export function fields(name, value) {
  if (value === undefined || value === null) return [new Uint32Array(), []];
  if (!Array.isArray(value)) throw wrongType(`${name} is ${described(value)}, not an Array of { id, data }`);
  const ids = Uint32Array.from(value, (field, place) => {
    if (typeof field !== 'object' || field === null) {
      throw wrongType(`${name}[${place}] is ${described(field)}, not { id, data }`);
    }
    return whole(`${name}[${place}].id`, field.id, U32);
  });
  return [ids, value.map((field, place) => bytes(`${name}[${place}].data`, field.data))];
}

/** Options over their defaults. A name that is no option is an error, because it is a typing error. */
export function options(given, defaults) {
  if (given === undefined || given === null) return { ...defaults };
  if (typeof given !== 'object') throw wrongType(`the options are ${described(given)}, not an object`);
  const chosen = { ...defaults };
  for (const name of Object.keys(given)) {
    if (!Object.hasOwn(defaults, name)) throw wrongType(`there is no option ${name}`);
    if (given[name] !== undefined) chosen[name] = given[name];
  }
  return chosen;
}

/** The largest numbers of Rust's types. */
export const U8 = 0xff;
export const U16 = 0xffff;
export const U32 = 0xffffffff;
