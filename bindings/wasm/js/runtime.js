// The instance of the module, and what holds its codecs and sessions.
//
// A call that ends in the middle (a panic of Rust's, or no memory) leaves an instance in which nothing may be used. It is
// replaced by a new one at once: what was made before is lost and says so, and what is made afterwards works.

import bindgen, * as bindings from './bindings.js';
import { ErrorNumber, isOurs, ofCaller, panic, wrongType } from './errors.js';
import { takePanic } from './panics.js';

let ready = false;
let starting = null;
// The number of the instance.
let generation = 0;

/** Starts the module, unless it was started. */
export async function init(source) {
  if (ready) return;
  starting ??= bindgen({ module_or_path: await source });
  try {
    await starting;
    ready = true;
  } finally {
    starting = null;
  }
}

/** The same at once, from the module's bytes or a compiled module. */
export function initSync(module) {
  if (ready) return;
  bindings.initSync({ module });
  ready = true;
}

function failed(error) {
  if (isOurs(error)) return error;
  const text = takePanic() ?? `${error?.message ?? error}, most likely for want of memory`;
  generation += 1;
  try {
    bindings.__wbg_reset_state();
  } catch {
    ready = false;
  }
  const lost = panic(`the library stopped (${text}), and all codecs and sessions made before are lost`);
  lost.cause = error;
  return lost;
}

/** Runs a call of the module. */
export function run(call) {
  if (!ready) throw ofCaller(ErrorNumber.NOT_AVAILABLE, 'the module was not started: await init() first');
  try {
    return call(bindings);
  } catch (error) {
    throw failed(error);
  }
}

const handles = new WeakMap();

/** Makes an object the holder of a raw one. */
export function hold(object, raw) {
  handles.set(object, { raw, generation });
  return object;
}

/** A holder of this class, without its constructor. */
export function adopt(Class, raw) {
  return hold(Object.create(Class.prototype), raw);
}

function rawOf(object, what) {
  const handle = handles.get(object);
  if (handle === undefined) throw wrongType(`this is no ${what}`);
  if (handle.raw === null) throw ofCaller(ErrorNumber.AFTER_END, `the ${what} is closed`);
  if (handle.generation !== generation) {
    throw panic(`the library stopped in an earlier call, and this ${what} is lost`);
  }
  return handle.raw;
}

/** Runs a call of the raw object that another one holds. */
export function use(object, call) {
  const raw = rawOf(object, nameOf(object));
  return run(() => call(raw));
}

function nameOf(object) {
  return typeof object === 'object' && object !== null ? object.constructor.name.toLowerCase() : typeof object;
}

/** The raw object of an argument that must be of a class. */
export function argumentOf(Class, name, value) {
  if (!(value instanceof Class) || !handles.has(value)) {
    throw wrongType(`${name} is ${described(value)}, not a ${Class.name}`);
  }
  return rawOf(value, Class.name.toLowerCase());
}

/** Frees what an object holds. A second call does nothing. */
export function close(object) {
  const handle = handles.get(object);
  if (handle === undefined || handle.raw === null) return;
  const { raw } = handle;
  handle.raw = null;
  if (handle.generation === generation) run(() => raw.free());
}

/** Gives a class `Symbol.dispose` where JavaScript has it, for `using`. */
export function disposable(Class) {
  if (typeof Symbol.dispose === 'symbol') {
    Object.defineProperty(Class.prototype, Symbol.dispose, {
      value() {
        this.close();
      },
      configurable: true,
      writable: true,
    });
  }
}

/** What a value is, for people. */
export function described(value) {
  if (value === null || value === undefined) return String(value);
  if (typeof value === 'object') return `a ${value.constructor?.name || 'object'}`;
  return `a ${typeof value}`;
}
