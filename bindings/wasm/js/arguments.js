// Checks of arguments. A wrong type is a TypeError, and a number that its argument cannot hold a RangeError.

import { ErrorNumber, ofCaller, ours, wrongType } from './errors.js';
import { described } from './runtime.js';

// What typed arrays of every realm say of themselves, whatever a subclass says.
const arrays = Object.getPrototypeOf(Uint8Array.prototype);
const [tag, bufferOf, placeOf, countOf, sizeOf] = [Symbol.toStringTag, 'buffer', 'byteOffset', 'length', 'byteLength'].map(
  (name) => Object.getOwnPropertyDescriptor(arrays, name).get,
);

/** The name of a typed array's type; undefined of anything else. */
export function typeOf(value) {
  return tag.call(value);
}

const BUFFERS = ['[object ArrayBuffer]', '[object SharedArrayBuffer]'];

/** The same memory as an array of this type and no subclass. */
function plain(name, array, Type, count = countOf) {
  try {
    return new Type(bufferOf.call(array), placeOf.call(array), count.call(array));
  } catch {
    throw wrongType(`${name} has no memory: it was transferred`);
  }
}

/** Bytes: a Uint8Array, such as a Buffer of Node, or an ArrayBuffer. */
export function bytes(name, value) {
  if (tag.call(value) === 'Uint8Array') return plain(name, value, Uint8Array);
  if (BUFFERS.includes(Object.prototype.toString.call(value))) {
    try {
      return new Uint8Array(value);
    } catch {
      throw wrongType(`${name} has no memory: it was transferred`);
    }
  }
  throw wrongType(`${name} is ${described(value)}, not a Uint8Array or an ArrayBuffer`);
}

/** The bytes of a typed array. */
export function bytesOf(name, array) {
  return plain(name, array, Uint8Array, sizeOf);
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
  if (type === 'Float32Array') return plain(name, value, Float32Array);
  if (type === 'Float16Array') return new Float32Array(plain(name, value, Float16Array));
  throw wrongType(`${name} is ${described(value)}, not a Float32Array`);
}

/** Integers W or Y. */
export function integers(name, value) {
  if (tag.call(value) !== 'Int16Array') throw wrongType(`${name} is ${described(value)}, not an Int16Array`);
  return plain(name, value, Int16Array);
}

const WHOLE = /^(Big)?(Int|Uint)\d+(Clamped)?Array$/;

/** Side indices: integers of any size, in a typed array or an Array. */
export function sideIndices(name, value) {
  const type = tag.call(value);
  if (type === 'Uint32Array') return plain(name, value, Uint32Array);
  if (type === undefined ? !Array.isArray(value) : !WHOLE.test(type)) {
    throw wrongType(`${name} is ${described(value)}, not an array of integers`);
  }
  const given = type === undefined ? value : plain(name, value, globalThis[type]);
  const indices = new Uint32Array(given.length);
  for (let place = 0; place < indices.length; place++) {
    const index = given[place];
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
    indices[place] = Number(index);
  }
  return indices;
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
