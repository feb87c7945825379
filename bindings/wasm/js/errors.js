// Errors, and their numbers.

/** The numbers of errors. Those above 0 are the specification's (7.3), and never change their meaning. */
export const ErrorNumber = Object.freeze({
  INVALID_ARGUMENT: -2,
  PANIC: -4,
  VARINT_NOT_SHORTEST: 101,
  VARINT_RESERVED: 102,
  FIELD_OUT_OF_RANGE: 103,
  BAD_MAGIC: 201,
  READER_TOO_OLD: 202,
  BAD_VERSION: 203,
  HEADER_CRC_MISMATCH: 204,
  RESERVED_HEADER_BITS: 205,
  TRACK_COUNT: 206,
  OPTIONAL_FIELD_ORDER: 207,
  UNKNOWN_CRITICAL_FIELD: 208,
  HEADER_LAYOUT: 209,
  WRONG_BINDING: 210,
  RESERVED_KIND: 301,
  CHUNK_TOO_LONG: 302,
  FRAME_FORM_NOT_SHORTEST: 303,
  KIND_NOT_IN_MODE: 304,
  SEEK_INDEX_MISPLACED: 305,
  CHUNK_LAYOUT: 306,
  DATA_AFTER_END: 307,
  MESSAGE_TOO_SHORT: 308,
  TOO_MANY_FRAMES: 309,
  BATCH_OF_ONE: 310,
  LANE_COUNT: 311,
  LANE_TABLE: 312,
  LANE_PADDING: 313,
  EXACT_DTYPE: 314,
  UNKNOWN_CRITICAL_EXTENSION: 315,
  BAD_FOOTER: 316,
  SEEK_INDEX_ORDER: 317,
  TOO_MANY_CHECKPOINTS: 318,
  SIDE_INDICES_LEFT: 319,
  TRUNCATED: 401,
  FRAME_CHECK_MISMATCH: 402,
  CONTROL_CRC_MISMATCH: 403,
  INDEX_MISMATCH: 404,
  FRAME_TOTAL_MISMATCH: 405,
  EPOCH_MISMATCH: 406,
  REWIND_TARGET: 407,
  REWIND_TOO_FAR: 408,
  DIGEST_MISMATCH_W: 409,
  DIGEST_MISMATCH_Y: 410,
  WRONG_MODEL: 501,
  WRONG_MODEL_AT_RESET: 502,
  EXACT_FRAME_LENGTH: 503,
  UNKNOWN_QUALITY: 504,
  WRONG_HOST: 505,
  WRONG_SIDE_FLAG: 506,
  PREDICTION_LAYERED: 507,
  CORRUPT_PAYLOAD: 601,
  SEAL_NOT_CANONICAL: 602,
  VALUE_OUT_OF_RANGE: 603,
  PAYLOAD_TOO_LONG: 604,
  MODEL_FILE_SYNTAX: 701,
  MODEL_TENSOR_MISSING: 702,
  MODEL_TENSOR_SHAPE: 703,
  MODEL_TENSOR_UNKNOWN: 704,
  MODEL_CONFIG: 705,
  MODEL_ROW_BOUND: 706,
  MODEL_TABLE: 707,
  MODEL_VALUE: 708,
  HIDDEN_NOT_FINITE: 801,
  WRONG_SHAPE: 802,
  AFTER_END: 803,
  NOT_AVAILABLE: 804,
  BAD_CONFIG: 805,
  TARGET_OVERDUE: 806,
  FRAME_NOT_PENDING: 807,
  SAVED_SESSION: 808,
  HIDDEN_CLIPPED: 809,
  FLOAT_MODE: 810,
  ENGINE_FAULT: 811,
  WRONG_SIDE_INDICES: 812,
  MEMORY_LIMIT: 901,
});

const NAMES = new Map(Object.entries(ErrorNumber).map(([name, number]) => [number, name]));

/** The name of a number. */
export function nameOf(number) {
  return NAMES.get(number) ?? `ERROR_${number}`;
}

/** What the library refuses. */
export class MidspanError extends Error {
  constructor(message, number, facts = {}) {
    super(message);
    this.number = number;
    this.code = nameOf(number);
    this.fault = facts.fault ?? 'library';
    this.offset = facts.offset ?? null;
    this.wanted = facts.wanted ?? null;
    this.found = facts.found ?? null;
    this.element = facts.element ?? null;
    this.limit = facts.limit ?? null;
    this.setting = facts.setting ?? null;
  }
}
Object.defineProperty(MidspanError.prototype, 'name', { value: 'MidspanError', configurable: true, writable: true });

// Errors that this package made. Whatever else a call throws, it ended in the middle.
const made = new WeakSet();

export function ours(error) {
  made.add(error);
  return error;
}

export function isOurs(error) {
  return typeof error === 'object' && error !== null && made.has(error);
}

/** An argument has the wrong type. */
export function wrongType(text) {
  return ours(new TypeError(text));
}

/** The caller's error of a number of the specification's. */
export function ofCaller(number, text, facts = {}) {
  return ours(new MidspanError(`${text}; at fault: the caller; error ${number}`, number, { fault: 'caller', ...facts }));
}

/** The library's own fault, which was caught. */
export function panic(text) {
  const { PANIC } = ErrorNumber;
  return ours(new MidspanError(`${text}; at fault: the library; error ${PANIC}`, PANIC, { fault: 'library' }));
}
