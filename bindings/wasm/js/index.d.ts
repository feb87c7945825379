/// <reference lib="esnext.disposable" />
// Types of the package, and its documentation. Hidden states are float32, W and Y int16, row by row: the value of frame t
// and element e of [T, E] is at t·E + e. Indices of frames and places of bytes are whole numbers below 2^53.

/**
 * Starts the module; a second call does nothing. In Node the import has done so already. Everything else throws
 * NOT_AVAILABLE before.
 * @param source Where the WebAssembly is, if it is not next to the package's files: what `fetch` takes, a `Response`
 *     or a promise of one, its bytes, or a `WebAssembly.Module`.
 */
export function init(source?: string | Bytes | object): Promise<void>;

/** The same at once, from the module's bytes or a `WebAssembly.Module`: for workers. */
export function initSync(module: Bytes | object): void;

/** Bytes of a call: a `Uint8Array`, such as Node's `Buffer`, or an `ArrayBuffer`. They are copied. */
export type Bytes = Uint8Array | ArrayBuffer;

/** Integers of any size, one a frame. */
export type Indices =
  | readonly number[]
  | readonly bigint[]
  | Uint32Array
  | Int32Array
  | Uint16Array
  | Int16Array
  | Uint8Array
  | Int8Array
  | BigUint64Array
  | BigInt64Array;

export type Mode = 'joined' | 'layered';
/** `byteStream`; `message`; or `file`, a byte stream with a seek index. */
export type Binding = 'byteStream' | 'message' | 'file';
export type Dtype = 'f32' | 'f16' | 'bf16';

/** The numbers of errors. Those above 0 are the specification's (7.3), and never change their meaning. */
export const ErrorNumber: {
  readonly INVALID_ARGUMENT: -2;
  readonly PANIC: -4;
  readonly VARINT_NOT_SHORTEST: 101;
  readonly VARINT_RESERVED: 102;
  readonly FIELD_OUT_OF_RANGE: 103;
  readonly BAD_MAGIC: 201;
  readonly READER_TOO_OLD: 202;
  readonly BAD_VERSION: 203;
  readonly HEADER_CRC_MISMATCH: 204;
  readonly RESERVED_HEADER_BITS: 205;
  readonly TRACK_COUNT: 206;
  readonly OPTIONAL_FIELD_ORDER: 207;
  readonly UNKNOWN_CRITICAL_FIELD: 208;
  readonly HEADER_LAYOUT: 209;
  readonly WRONG_BINDING: 210;
  readonly RESERVED_KIND: 301;
  readonly CHUNK_TOO_LONG: 302;
  readonly FRAME_FORM_NOT_SHORTEST: 303;
  readonly KIND_NOT_IN_MODE: 304;
  readonly SEEK_INDEX_MISPLACED: 305;
  readonly CHUNK_LAYOUT: 306;
  readonly DATA_AFTER_END: 307;
  readonly MESSAGE_TOO_SHORT: 308;
  readonly TOO_MANY_FRAMES: 309;
  readonly BATCH_OF_ONE: 310;
  readonly LANE_COUNT: 311;
  readonly LANE_TABLE: 312;
  readonly LANE_PADDING: 313;
  readonly EXACT_DTYPE: 314;
  readonly UNKNOWN_CRITICAL_EXTENSION: 315;
  readonly BAD_FOOTER: 316;
  readonly SEEK_INDEX_ORDER: 317;
  readonly TOO_MANY_CHECKPOINTS: 318;
  readonly SIDE_INDICES_LEFT: 319;
  readonly TRUNCATED: 401;
  readonly FRAME_CHECK_MISMATCH: 402;
  readonly CONTROL_CRC_MISMATCH: 403;
  readonly INDEX_MISMATCH: 404;
  readonly FRAME_TOTAL_MISMATCH: 405;
  readonly EPOCH_MISMATCH: 406;
  readonly REWIND_TARGET: 407;
  readonly REWIND_TOO_FAR: 408;
  readonly DIGEST_MISMATCH_W: 409;
  readonly DIGEST_MISMATCH_Y: 410;
  readonly WRONG_MODEL: 501;
  readonly WRONG_MODEL_AT_RESET: 502;
  readonly EXACT_FRAME_LENGTH: 503;
  readonly UNKNOWN_QUALITY: 504;
  readonly WRONG_HOST: 505;
  readonly WRONG_SIDE_FLAG: 506;
  readonly PREDICTION_LAYERED: 507;
  readonly CORRUPT_PAYLOAD: 601;
  readonly SEAL_NOT_CANONICAL: 602;
  readonly VALUE_OUT_OF_RANGE: 603;
  readonly PAYLOAD_TOO_LONG: 604;
  readonly MODEL_FILE_SYNTAX: 701;
  readonly MODEL_TENSOR_MISSING: 702;
  readonly MODEL_TENSOR_SHAPE: 703;
  readonly MODEL_TENSOR_UNKNOWN: 704;
  readonly MODEL_CONFIG: 705;
  readonly MODEL_ROW_BOUND: 706;
  readonly MODEL_TABLE: 707;
  readonly MODEL_VALUE: 708;
  readonly HIDDEN_NOT_FINITE: 801;
  readonly WRONG_SHAPE: 802;
  readonly AFTER_END: 803;
  readonly NOT_AVAILABLE: 804;
  readonly BAD_CONFIG: 805;
  readonly TARGET_OVERDUE: 806;
  readonly FRAME_NOT_PENDING: 807;
  readonly SAVED_SESSION: 808;
  readonly HIDDEN_CLIPPED: 809;
  readonly FLOAT_MODE: 810;
  readonly ENGINE_FAULT: 811;
  readonly WRONG_SIDE_INDICES: 812;
  readonly MEMORY_LIMIT: 901;
};

/** The name of an error's number. */
export type ErrorCode = keyof typeof ErrorNumber;

/**
 * What the library refuses. Its message says what was wanted and found, whose fault it is and where. Two refusals are
 * JavaScript's own errors: an argument of a wrong type is a `TypeError`; a number that its argument cannot hold, and a
 * conversion for which there is no memory, a `RangeError`.
 */
export class MidspanError extends Error {
  readonly name: 'MidspanError';
  /** The name of the number, such as `WRONG_SHAPE`. */
  readonly code: ErrorCode;
  /** The number of spec 7.3; below 0 for this package's own. */
  readonly number: number;
  /**
   * Who has to change something: `stream`, the bytes of the stream, final for the session; `model`, the model file or its
   * pairing with the stream; `caller`, nothing changed; `resource`, a limit that this end set; `library`, a bug.
   */
  readonly fault: 'stream' | 'model' | 'caller' | 'resource' | 'library';
  /**
   * Where: bytes from the first byte of the stream header, or of the model file for 7xx, to the first byte of the field at
   * fault. For 8xx and 9xx, and for an error of a writer or an encoder, to the chunk that was worked on. `null` if the
   * error has no place.
   */
  readonly offset: number | null;
  /** The number that was wanted, or the largest that is allowed, or this end's digest. */
  readonly wanted: number | bigint | Uint8Array | null;
  /** The number or the digest that was found. Of WRONG_MODEL it is the fingerprint of the model that the stream needs. */
  readonly found: number | bigint | Uint8Array | null;
  /** The frame of the call and the element of the frame, each from 0, if a single value is at fault. */
  readonly element: { frame: number; element: number } | null;
  /** Whose limit was exceeded: `declared` by the stream header, `own` of this end, `format`. */
  readonly limit: 'declared' | 'own' | 'format' | null;
  /** With a limit of `own`: the option to raise. */
  readonly setting: string | null;
}

/** What the number of an error means: one sentence in lower case without a full stop; `null` for no error's number. */
export function errorText(number: number): string | null;

/** Bytes of the module's memory, which all codecs and sessions share. It grows and never shrinks. */
export function moduleMemoryBytes(): number;

/** What a stream says about itself before its first chunk (spec 2.2). */
export interface Header {
  /** The fingerprint of the model (spec 4.6), 32 bytes. */
  fingerprint: Uint8Array;
  mode: Mode;
  binding: Binding;
  /** Bytes of the check of every chunk of frames: 0, 1 or 2. */
  check: number;
  /** Whether the stream's models take side indices (spec 6.12). */
  side: boolean;
  /** The quality index at the start. */
  quality: number;
  /** The model's version; information only. */
  modelVersion: number;
  /** The most frames of a chunk: 1 to 2^20. */
  maxFrames: number;
  /** The most bytes of a chunk's body: 72 to 2^30. */
  maxChunkBytes: number;
  /** The most frames that a rewind goes back: 0 to 2^20. */
  maxRewind: number;
  /** The most frames that may wait for their target: 1 to 28,672. `null` in joined mode. */
  targetHorizon: number | null;
  /** The length offset at the start, 0 to 16,383 bytes (spec 2.3). */
  lengthOffset: number;
  /** Eight bytes that distinguish the stream from others; `null` if it has none. */
  identity: Uint8Array | null;
  /** SHA-256 that identifies the host model's weights (spec 4.7); `null` if the stream states none. */
  hostDigest: Uint8Array | null;
  /** Optional fields, the identity left out, in ascending order of their even ids. Id 2 is the producer's name in UTF-8. */
  fields: Field[];
  /** 1 in what an encoder writes. A reader takes, and a writer writes, 1 to 255. */
  formatVersion: number;
}

export interface Field {
  id: number;
  data: Uint8Array;
}

/**
 * What a `Writer` is made with: a header of which all but the fingerprint may be left out. Then `mode` is `joined`,
 * `binding` is `byteStream`, `check` 1, `maxFrames` 256, `maxChunkBytes` 4 MiB, `formatVersion` 1, other numbers 0, and
 * the rest absent.
 */
export type HeaderInit = Partial<Header> & Pick<Header, 'fingerprint'>;

/**
 * Reads the header at the beginning of a stream, in either binding, without a model.
 * @param data The stream's first bytes, or its first message.
 * @returns The header, and how many bytes it takes.
 * @throws {MidspanError} 101 to 210; TRUNCATED for a header that is cut.
 */
export function loadHeader(data: Bytes): { header: Header; length: number };

/** A place where a reader of a file may join (spec 2.10). */
export interface SeekEntry {
  /** Absolute index of the next frame there. */
  frame: number;
  /** The offset of the chunk, in bytes. */
  offset: number;
}

/**
 * Finds the place in a file at which to join, so as to read the frame with the absolute index `frame` (spec 2.10).
 * @param header The file's first bytes, which must include the stream header.
 * @param tail The file's last bytes, which must include the seek index and the footer after it.
 * @param fileLen The number of bytes of the file.
 * @returns The last place whose frame is not above `frame`: pass its offset and its frame to `Decoder.join`, and push the
 *     file's bytes from that offset on. With no such place the entry has offset 0: begin with the first byte. The index is
 *     not compared with the chunks: a join fails if no context begins there.
 * @throws {MidspanError} What is damaged or cut; NOT_AVAILABLE for a stream that is no file; INVALID_ARGUMENT for a tail
 *     that is too short, with the needed number of bytes as `wanted` (12 are enough to learn it).
 */
export function fileSeek(header: Bytes, tail: Bytes, fileLen: number, frame: number): SeekEntry;

/** What a model says about one of its qualities. */
export interface QualityInfo {
  /** Hidden states from here ... */
  rangeLow: number;
  /** ... to here are never clamped. Of a model with a map before the quantiser this is a range of what the map gives. */
  rangeHigh: number;
  /** Squared quantiser steps that an encoder gives for one bit (spec 6.8). */
  rateWeight: number;
  /** Mean bits of a frame's payloads (spec 4.4); `null` if the model does not say. */
  expectedBits: number | null;
  /** The length offset that suits one frame a chunk, in bytes (spec 2.3). */
  lengthOffset: number;
}

/**
 * A codec model. Load it once and share it: sessions keep no copy. `close` frees this hold on it; sessions keep theirs.
 */
export class Codec {
  private constructor();
  /**
   * Reads a model file (spec chapter 4).
   * @param file The file's bytes, not needed afterwards.
   * @param options.memoryLimit Bytes that the file, and the memory for parsing it, may take; 1 GiB by default, for files
   *     that are trusted.
   * @throws {MidspanError} 701 to 708 for a file that is no valid model; MEMORY_LIMIT.
   */
  static fromBytes(file: Bytes, options?: { memoryLimit?: number }): Codec;
  /** Every later call of this object throws AFTER_END; a second `close` does nothing. */
  close(): void;
  [Symbol.dispose](): void;
  /** SHA-256 over all that a decoder uses (spec 4.6), 32 bytes. A stream names the model that it needs by it. */
  readonly fingerprint: Uint8Array;
  /** The model's version; information only. */
  readonly version: number;
  /** E, values of a hidden state. */
  readonly hiddenWidth: number;
  /** C, values of W in a frame. */
  readonly hyperPriorWidth: number;
  /** Q, how many qualities it has: 0 is the coarsest of the default model. */
  readonly qualities: number;
  /** Whether the model holds what an encoder needs (spec 4.5). */
  readonly hasEncoder: boolean;
  /** Whether it takes a side index for every frame (spec 6.12). */
  readonly takesSide: boolean;
  /** V: side indices are 0 to V - 1, and V says that a frame has none. 0 if the model takes none. */
  readonly sideVocabulary: number;
  /** A: how many side indices say something of a frame, its own and those of frames before it; or 0. */
  readonly sideAges: number;
  /** P, how many frames back Y is predicted from (spec 4.9), or 0. A model that predicts cannot be used in layered mode. */
  readonly predictedFrom: number;
  /** The smallest and the largest value of W. */
  readonly wRange: [number, number];
  /** The smallest and the largest value of Y. */
  readonly yRange: [number, number];
  /** What the model says about one of its qualities; throws UNKNOWN_QUALITY. */
  quality(quality: number): QualityInfo;
  /** Whether one may stand for the other: of the same fingerprint, and an encoder's part in both or in none. */
  equals(other: unknown): boolean;
}

/** A message of the message binding, and what a transport must know about it (spec 2.4). */
export interface Message {
  /** The message, whole; never empty. */
  data: Uint8Array;
  /**
   * `header`: before all others, and without loss. `reliable`: without loss, in order. `droppable`: a target, for which a
   * datagram is good enough; the receiver takes it with `pushDatagram`.
   */
  messageClass: 'header' | 'reliable' | 'droppable';
  /** Absolute index of the first frame that it holds, whole or in part. */
  firstFrame: number;
  /** Absolute index after the last frame that it holds; `firstFrame` if it holds none. */
  endFrame: number;
}

/** Sums over the frames that an encoder has sent, those that were rewound included. */
export interface Sent {
  frames: number;
  /** Values of W. */
  wValues: number;
  /** Values of Y. */
  yValues: number;
  /** Values of Y that were outside the range of the quality and were clamped. */
  clipped: number;
  /** Values of W and of Y that their tables do not hold. */
  escaped: number;
  /** Bits of the payloads of W and of Y. Framing, checks and side indices are not counted. */
  payloadBits: number;
  /** Frames of which the model says how many bits it expects. */
  comparedFrames: number;
  /** Those among `payloadBits` that are these frames'. */
  comparedBits: number;
  /** Bits that the model expects of these frames. */
  expectedBits: number;
}

/** Bits of some frames by the frozen tables; no payload can be shorter. */
export interface Cost {
  /** Bits of W. */
  hyperPrior: number;
  /** Bits of Y given W. */
  target: number;
}

export interface EncoderOptions {
  /**
   * Eight bytes that no other stream has, so that bytes spliced in from another stream are found (spec 2.2). Random by
   * default. `null` means no identity: only for transports that keep streams apart, and where equal input must give equal
   * bytes.
   */
  identity?: Bytes | null;
  /** `joined` by default (spec 6.1, 6.5). */
  mode?: Mode;
  /** `byteStream` by default. */
  binding?: Binding;
  /**
   * Bytes of the check of each chunk of frames: 1 by default, 0 or 2. 0 only for transports that find damage themselves, as
   * TLS and QUIC do.
   */
  check?: 0 | 1 | 2;
  /** Quality index at the start, 0 by default. */
  quality?: number;
  /** SHA-256 of the host model's weights (spec 4.7), 32 bytes, if the decoder is to compare it. */
  hostDigest?: Bytes | null;
  /** Most frames of a chunk, 1 to 2^20, 256 by default; larger batches are split. */
  maxFramesPerChunk?: number;
  /** Most bytes of a chunk's body, 72 to 2^30, 4 MiB by default. */
  maxChunkBytes?: number;
  /** How many frames a rewind may go back, 0 to 2^20, 64 by default. */
  maxRewind?: number;
  /** Layered mode: how many frames back the oldest frame without a target may be, 1 to 28,672, 1,024 by default. */
  targetHorizon?: number;
  /** Layered mode: no message that holds a target is longer than this many bytes, at least 256. No limit by default. */
  datagramLimit?: number | null;
  /**
   * A checkpoint is sent whenever this many frames were coded since the last one, 256 by default. With 0 only `checkpoint`
   * sends one.
   */
  checkpointInterval?: number;
  /** Lanes of a batch chunk (spec 2.6), 1 to 1,024, 1 by default. */
  lanes?: number;
  /**
   * Squared quantiser steps given for one bit when Y is chosen (spec 6.8); 0 sends the nearest integers. The model's own
   * weight by default.
   */
  rateWeight?: number | null;
  /** The length offset (spec 2.3), 0 to 16,383. The model's by default. */
  lengthOffset?: number | null;
  /**
   * Bytes that the session may hold, 64 MiB by default: contexts, output not yet taken, and what coding a push takes.
   */
  memoryLimit?: number;
  /**
   * What happens to hidden states more than half a step outside the range of the quality: `report`, the default, clamps and
   * counts them; `refuse` refuses the push.
   */
  clipping?: 'report' | 'refuse';
  /** Optional fields of the stream header, in ascending order of their even ids. None by default. */
  fields?: readonly { id: number; data: Bytes }[] | null;
  /** Whether pushes keep W and Y for `lastIntegers`; false by default, because copies take time. */
  keepIntegers?: boolean;
  /** Whether pushes compute their ideal bits for `lastCost`; false by default. */
  trackCost?: boolean;
}

/**
 * Encodes one stream: hidden states or integers in, bytes out (spec chapter 6).
 *
 * Call order: any of the pushes and control calls, then `end`. Output can be taken at any time, with `takeBytes` or, in the
 * message binding, `popMessage` and `takeMessages`. A call that fails changes nothing, unless it says so.
 */
export class Encoder {
  /**
   * @throws {MidspanError} BAD_CONFIG for an option out of its range; UNKNOWN_QUALITY; INVALID_ARGUMENT;
   *     PREDICTION_LAYERED for layered mode with a model that predicts; MEMORY_LIMIT if the contexts may come to more than
   *     `memoryLimit`.
   */
  constructor(codec: Codec, options?: EncoderOptions);
  /**
   * Restores the encoder that `save` wrote, in this program or another of the same version of the package.
   * @param options Those that are not saved.
   * @throws {MidspanError} WRONG_MODEL with the fingerprint of the right one as `found`; SAVED_SESSION for bytes that are
   *     damaged or of another version; MEMORY_LIMIT.
   */
  static restore(
    codec: Codec,
    saved: Bytes,
    options?: Pick<EncoderOptions, 'memoryLimit' | 'keepIntegers' | 'trackCost'>,
  ): Encoder;
  /** The session as bytes, output not yet taken included, for `restore`. */
  save(): Uint8Array;
  /** A second encoder that goes on from the same place, with the same output not yet taken. */
  fork(): Encoder;
  /** Frees the session, with output not yet taken. Every later call throws AFTER_END; a second `close` does nothing. */
  close(): void;
  [Symbol.dispose](): void;
  /**
   * Gives the side indices of the frames of the next push, one for each (spec 6.12). If the model takes side indices, every
   * push needs such a call before it. A second call replaces what the first one gave. They stay until a push uses them,
   * even if one is refused, and through resets and rewinds; a model switch drops them.
   * @param indices `sideVocabulary` says that a frame has none; of a token that the model does not know, give
   *     `Math.min(token, codec.sideVocabulary)`.
   * @param delivery Where the decoder has them from: `known`, its own caller, so that they take no bytes; or `sent`, the
   *     stream, ahead of their frames.
   * @throws {MidspanError} WRONG_SIDE_INDICES for an index above V or below 0, or if the model takes none; AFTER_END;
   *     MEMORY_LIMIT.
   */
  setSide(indices: Indices, delivery: 'known' | 'sent'): void;
  /**
   * Codes hidden states: one frame gives a one-frame chunk, more give batch chunks. Values more than half a step outside
   * the range of the quality are clamped and counted (`lastClipped`), or refused if `clipping` says so.
   * @param hidden [T, E], row by row, with T of 1 or more. A `Float16Array` is converted without loss.
   * @throws {TypeError} It is another array, or none.
   * @throws {MidspanError} WRONG_SHAPE; HIDDEN_NOT_FINITE with the `element` of the first value that is NaN or infinite;
   *     HIDDEN_CLIPPED; NOT_AVAILABLE without an encoder's part in the model; WRONG_SIDE_INDICES if `setSide` gave another
   *     number of indices; AFTER_END; MEMORY_LIMIT: take the output, and call again.
   */
  pushHidden(hidden: Float32Array): void;
  /**
   * Codes target integers Y; W comes from the network h.
   * @param y [T, E].
   * @throws {MidspanError} As `pushHidden`, and VALUE_OUT_OF_RANGE with the `element` of a value out of the model's range.
   */
  pushY(y: Int16Array): void;
  /**
   * Codes target integers Y, with hyper-prior integers W of the caller's choice. The model needs no encoder's part.
   * @param y [T, E].
   * @param w [T, C].
   * @throws {MidspanError} As `pushY`.
   */
  pushIntegers(y: Int16Array, w: Int16Array): void;
  /**
   * Codes one frame as usual and adds its hidden state without loss (spec 6.9). Values outside the range of the quality are
   * counted and never refused.
   * @param hidden [E]: float32 values, or the bits of float16 or bfloat16 values.
   * @throws {MidspanError} As `pushHidden`, and CHUNK_TOO_LONG if it does not fit `maxChunkBytes`.
   */
  pushExact(hidden: Float32Array): void;
  pushExact(bits: Uint16Array, dtype: 'f16' | 'bf16'): void;
  /**
   * The integers nearest to hidden states, [T, E], without coding them (spec 6.8). If the rate weight is above 0,
   * `pushHidden` may send others.
   * @throws {MidspanError} As `pushHidden`.
   */
  quantise(hidden: Float32Array): Int16Array;
  /** Sends a checkpoint: absolute index and both digests. Throws AFTER_END, MEMORY_LIMIT. */
  checkpoint(): void;
  /** Begins a new context; a decoder may join there. Throws as `checkpoint`. */
  reset(): void;
  /**
   * Moves the timeline back, so that the frame with the absolute index `index` is the next one again.
   * @throws {MidspanError} REWIND_TARGET for an index before the context or not back at all; REWIND_TOO_FAR; AFTER_END;
   *     MEMORY_LIMIT.
   */
  rewind(index: number): void;
  /** Switches to another quality from the next frame on, in the same context. Throws UNKNOWN_QUALITY, AFTER_END. */
  setQuality(quality: number): void;
  /**
   * Switches to another model, in this quality, from the next frame on, in a new context. The decoder must have it.
   * @throws {MidspanError} UNKNOWN_QUALITY; WRONG_SIDE_FLAG if one model takes side indices and the other does not;
   *     PREDICTION_LAYERED; BAD_CONFIG; AFTER_END; MEMORY_LIMIT.
   */
  switchModel(codec: Codec, quality: number): void;
  /** Sends an ignorable extension (spec 2.8). Throws CHUNK_TOO_LONG, AFTER_END, MEMORY_LIMIT. */
  extension(id: number, data: Bytes): void;
  /** Ends the stream. Take the output afterwards. No memory limit refuses this call. Throws AFTER_END if it has ended. */
  end(): void;
  /** Takes the bytes written since the last call; there may be none. Throws NOT_AVAILABLE in the message binding. */
  takeBytes(): Uint8Array;
  /** Takes the next message; `null` if all were taken. Throws NOT_AVAILABLE in a byte stream or file. */
  popMessage(): Message | null;
  /** Takes all messages that were written, in order. Throws as `popMessage`. */
  takeMessages(): Message[];
  /** How many bytes `takeBytes` would give; 0 in the message binding. */
  readonly untakenBytes: number;
  /** The message that `popMessage` would give, which stays; `null` if all were taken, or in a byte stream or file. */
  readonly nextMessage: Message | null;
  /** The codec model in force. */
  readonly codec: Codec;
  /** Absolute index of the next frame. */
  readonly nextIndex: number;
  /** W, [T, C], and Y, [T, E], of the last push, as copies; `null` unless the encoder keeps integers. */
  readonly lastIntegers: { w: Int16Array; y: Int16Array } | null;
  /** Bits of the last push by the frozen tables; `null` unless the encoder tracks cost. */
  readonly lastCost: Cost | null;
  /** How many values of the last push were more than half a step outside the range of the quality and were clamped. */
  readonly lastClipped: number;
  /** Sums over all frames since the session began. Forks and restored sessions keep counting. */
  readonly sent: Sent;
  /** The same sums over recent frames of the model in force, on which `unlike` judges. */
  readonly recentlySent: Sent;
  /**
   * How what the session sends is unlike what the model in force was made for, by the last few hundred frames: one
   * sentence. `null` if it is not, and with fewer than 128 frames.
   */
  readonly unlike: string | null;
  /** Bytes that the session holds in addition to its model. */
  readonly memoryBytes: number;
}

/** The stream header was read, and its model is the decoder's. */
export interface Opened {
  type: 'opened';
  header: Header;
}
/** Frames, in joined mode. */
export interface Frames {
  type: 'frames';
  /** Absolute index of the first frame. */
  index: number;
  /** Number of frames, T. */
  count: number;
  /** Reconstructed hidden states, [T, E] (spec 6.7). */
  hidden: Float32Array;
  /** Hyper-prior integers, [T, C]; `null` unless the decoder keeps integers. */
  w: Int16Array | null;
  /** Target integers, [T, E]; `null` unless the decoder keeps integers. */
  y: Int16Array | null;
}
/** Hyper-priors of frames, in layered mode; their targets are pending from now on. */
export interface HyperPrior {
  type: 'hyperPrior';
  index: number;
  count: number;
  /** Hyper-prior integers, [T, C]. */
  w: Int16Array;
}
/** Targets of whole frames, or concealed frames, in layered mode. */
export interface Targets {
  type: 'targets';
  index: number;
  count: number;
  /** Reconstructed hidden states, [T, E] (spec 6.7). */
  hidden: Float32Array;
  /** Target integers, [T, E]. */
  y: Int16Array;
  /** Whether some or all integers are the network's means, because the target, or some of its elements, did not come. */
  concealed: boolean;
}
/** A part of a frame's target; others are still to come. */
export interface TargetPart {
  type: 'targetPart';
  index: number;
  firstElement: number;
  /** The element after the last. */
  endElement: number;
}
/** A target came before its hyper-prior and is kept. */
export interface TargetEarly {
  type: 'targetEarly';
  index: number;
  count: number;
}
/** A target changed nothing. */
export interface TargetRefused {
  type: 'targetRefused';
  /** Absolute index of its first frame, if it names one below 2^53. */
  index: number | null;
  /**
   * `late`: its frames are not pending. `damaged`: it is damaged, or no target. `noMemory`: decoding it would exceed the
   * memory limit; its frames still wait. `noRoom`: it is early, and there is no room to keep it.
   */
  reason: 'late' | 'damaged' | 'noMemory' | 'noRoom' | 'other';
}
/**
 * A chunk waits because too many frames are pending: conceal these frames, or give their targets as datagrams, then poll
 * again.
 */
export interface TargetsOverdue {
  type: 'targetsOverdue';
  /** Absolute index of the oldest pending frame. */
  index: number;
  /** How many frames have to be settled. */
  count: number;
}
/** A frame with its exact hidden state (spec 6.9). */
export interface ExactFrame {
  type: 'exactFrame';
  index: number;
  count: 1;
  /** The reconstruction, [E]. */
  hidden: Float32Array;
  w: Int16Array | null;
  y: Int16Array | null;
  /** The type of the exact values. */
  dtype: Dtype;
  /** The exact hidden state, E little-endian values of that type. */
  data: Uint8Array;
  /** The exact hidden state as float32, [E]: every value of the three types has an exact counterpart. */
  exact: Float32Array;
}
/** A chunk has more frames than one call decodes: poll again, no input is needed. */
export interface Working {
  type: 'working';
  /** Absolute index of the chunk's first frame. */
  index: number;
  /** Frames of the chunk. */
  count: number;
  /** Frames decoded. */
  done: number;
}
/** What a digest says about frames. A digest that differs is an error instead. */
export interface Verdict {
  type: 'verdict';
  /** Absolute index of the first frame. */
  index: number;
  /** Absolute index after the last frame. */
  endIndex: number;
  /**
   * `wConfirmed`: W of every frame equals the encoder's; targets are pending, and another verdict on the range follows.
   * `yConfirmed`: W and Y of every frame equal the encoder's. `yUnverifiable`: W does, and Y can never be verified, because
   * a target was lost.
   */
  verdict: 'wConfirmed' | 'yConfirmed' | 'yUnverifiable';
}
/** A context reset or model switch dropped the targets of these frames, which had not come. */
export interface TargetsDropped {
  type: 'targetsDropped';
  index: number;
  count: number;
}
/** The context begins anew. */
export interface Reset {
  type: 'reset';
  /** Absolute index of the next frame. */
  index: number;
}
/** The timeline goes back: frames from `index` on are gone. */
export interface Rewound {
  type: 'rewound';
  /** Absolute index of the next frame. */
  index: number;
}
/** Another quality applies from the next frame on. */
export interface Quality {
  type: 'quality';
  quality: number;
}
/** Another model applies from the next frame on. */
export interface Model {
  type: 'model';
  /** Absolute index of the next frame. */
  index: number;
  /** The model's fingerprint, 32 bytes. */
  fingerprint: Uint8Array;
}
/**
 * A chunk waits for the side indices of these frames, which the stream does not hold: give them with `giveSide`, then poll
 * again.
 */
export interface SideWanted {
  type: 'sideWanted';
  index: number;
  count: number;
}
/** Side indices of frames to come, which the stream holds (spec 6.12). */
export interface SideIndices {
  type: 'sideIndices';
  /** Absolute index of the first of these frames. */
  index: number;
  count: number;
  /** One for each of them, [T]. */
  indices: Uint32Array;
}
/** An ignorable extension (spec 2.8). */
export interface Extension {
  type: 'extension';
  id: number;
  data: Uint8Array;
}
/** The end chunk. */
export interface Ended {
  type: 'ended';
  /** Absolute index after the last frame. */
  index: number;
  /** Frames coded, rewound ones included. */
  framesCoded: number;
}
/** An event that this version of the package has no name for. Skip it. */
export interface Other {
  type: 'other';
}
/** Nothing happened: more input is needed, or `finish`; or side indices, if `Decoder.wantedSide` says so. */
export interface NeedMore {
  type: 'needMore';
}
/** The stream ended properly. */
export interface EndOfStream {
  type: 'endOfStream';
}

/** What a decoder reports (spec 6.10). */
export type DecoderEvent =
  | Opened
  | Frames
  | HyperPrior
  | Targets
  | TargetPart
  | TargetEarly
  | TargetRefused
  | TargetsOverdue
  | ExactFrame
  | Working
  | Verdict
  | TargetsDropped
  | Reset
  | Rewound
  | Quality
  | Model
  | SideWanted
  | SideIndices
  | Extension
  | Ended
  | Other;

/** The most that is accepted from a peer; the defaults are for one that nobody trusts (spec 7.2). */
export interface ReaderOptions {
  /** `byteStream`, the default, which reads files too, as `file` does; or `message`. */
  binding?: Binding;
  /** Most frames of a chunk, 256 by default, 2^20 at most. */
  maxFrames?: number;
  /** Most bytes of a chunk's body, 4 MiB by default, 2^30 at most. */
  maxChunkBytes?: number;
  /** Most frames that a rewind goes back, 1,024 by default, 2^20 at most. */
  maxRewind?: number;
  /** Most frames that may wait for their target, 1,024 by default, 28,672 at most. */
  targetHorizon?: number;
  /** Most bytes of early targets that are kept, and of datagrams that wait to be polled; 1 MiB by default. */
  earlyBytes?: number;
}

export interface DecoderOptions extends ReaderOptions {
  /** Further models that the stream may name, in its header or in a model switch; none by default. */
  models?: readonly Codec[];
  /**
   * Bytes that the session may hold, 64 MiB by default. A chunk that would exceed it is refused before anything is set aside
   * for it. Input that was pushed and not yet polled does not count: the caller controls it.
   */
  memoryLimit?: number;
  /** Most frames that one poll decodes, 64 by default. A longer chunk takes several polls, each but the last with `working`. */
  framesPerPoll?: number;
  /**
   * SHA-256 of the host model's weights (spec 4.7), 32 bytes: a header that states another one, or none, is refused. Any is
   * accepted by default.
   */
  hostDigest?: Bytes | null;
  /**
   * Whether `frames` and `exactFrame` bring W and Y; false by default, because copies take time. Events of layered mode
   * always bring theirs.
   */
  keepIntegers?: boolean;
}

/**
 * Decodes one stream: bytes in, hidden states and integers out (spec chapter 6).
 *
 * Call order: `push` or `pushMessage` as input comes, each followed by a loop over the events; `finish` at the end of input,
 * and a last loop. An error of the stream is final: every later call throws it again, and everything handed out before it
 * stays valid.
 *
 *     decoder.push(received);
 *     for (const event of decoder) {
 *       if (event.type === 'frames') secondHalf(event.hidden);
 *     }
 */
export class Decoder implements Iterable<DecoderEvent> {
  /** @throws {MidspanError} INVALID_ARGUMENT. */
  constructor(codec: Codec, options?: DecoderOptions);
  /**
   * A decoder that begins at a context reset or model switch in the middle of a stream (spec 6.6). There is no event for the
   * header.
   * @param codec The codec model; the one in force at that place must be this or one of `models`.
   * @param header The stream's first bytes, which must include the stream header; in the message binding its first message.
   * @param offset The place of the first byte that will be pushed, from the first byte of the stream.
   * @param index The absolute index of the next frame there, if a seek index gave it.
   * @throws {MidspanError} 101 to 210, TRUNCATED for a header that is cut; WRONG_HOST.
   */
  static join(codec: Codec, header: Bytes, offset: number, index?: number | null, options?: DecoderOptions): Decoder;
  /**
   * Restores the decoder that `save` wrote, in this program or another of the same version of the package. The limits must
   * allow what the stream declared.
   * @param codec The codec model; the one that was in force must be this or one of `models`.
   * @throws {MidspanError} WRONG_MODEL with the fingerprint of the right one as `found`; SAVED_SESSION for bytes that are
   *     damaged, of another version, or saved under other limits; MEMORY_LIMIT.
   */
  static restore(codec: Codec, saved: Bytes, options?: DecoderOptions): Decoder;
  /**
   * The session as bytes, input not yet polled included, for `restore`.
   * @throws {MidspanError} NOT_AVAILABLE while there are events to be polled; the stream's, if it had one.
   */
  save(): Uint8Array;
  /** A second decoder that goes on from the same place. */
  fork(): Decoder;
  /** Frees the session. Every later call throws AFTER_END; a second `close` does nothing. */
  close(): void;
  [Symbol.dispose](): void;
  /** Adds a model that the stream may name, in its header or in a model switch. */
  addModel(codec: Codec): void;
  /**
   * Hands in bytes of a byte stream or file, cut anywhere. They are copied, and no limit holds for them: poll before more is
   * pushed.
   * @throws {MidspanError} The stream's, if it had one; AFTER_END after `finish`; NOT_AVAILABLE in the message binding.
   */
  push(data: Bytes): void;
  /** Hands in one message, whole; an empty one is skipped. Throws as `push`, and NOT_AVAILABLE in a byte stream. */
  pushMessage(message: Bytes): void;
  /**
   * Hands in a datagram, which should be one message of class `droppable`: in both bindings, at any time, also after
   * `finish`. Any bytes are allowed: each datagram that is not empty gives one event, and none ends the session.
   */
  pushDatagram(datagram: Bytes): void;
  /** Says that no more input comes: an unfinished stream is an error from then on, instead of a wait. */
  finish(): void;
  /**
   * What happened next.
   * @throws {MidspanError} The stream's first error, at every later call again. TARGET_OVERDUE and WRONG_SIDE_INDICES are
   *     not final: conceal, or give what is wanted, and poll again.
   */
  poll(): DecoderEvent | NeedMore | EndOfStream;
  /**
   * The events up to the place where more input is needed, or to the end; or up to a `sideWanted` or `targetsOverdue` that
   * nobody answered before the next step. Each step is a poll, and throws what that throws otherwise. Handle each event in
   * the loop: an array of them is lost if a later step throws. Calls of the decoder between two steps are allowed.
   */
  events(): Generator<DecoderEvent, void, void>;
  [Symbol.iterator](): Generator<DecoderEvent, void, void>;
  /**
   * Gives the side indices that `sideWanted` asks for, one for each of its frames. Poll again afterwards.
   * @throws {MidspanError} WRONG_SIDE_INDICES for another number of indices, for one above V or below 0, or if no chunk
   *     waits for any: nothing changes then. The stream's, if it had one.
   */
  giveSide(indices: Indices): void;
  /**
   * The frames whose side indices a chunk waits for: the absolute index of the first one, and how many; `null` if no chunk
   * waits for any.
   */
  readonly wantedSide: { index: number; count: number } | null;
  /**
   * Conceals pending frames with the network's means: one `targets` with them follows. Elements that came in parts keep
   * their values.
   * @param index Absolute index of the first frame.
   * @param count How many; 1 by default.
   * @throws {MidspanError} FRAME_NOT_PENDING unless all of them are pending: nothing changes then.
   */
  conceal(index: number, count?: number): void;
  /**
   * The elements of a pending frame that have not come, as ranges in ascending order: one of all elements if no part came.
   * `null` if the frame is not pending.
   */
  missingElements(index: number): { first: number; end: number }[] | null;
  /** Absolute index of the oldest frame whose target is pending, in layered mode; `null` if there is none. */
  readonly oldestPending: number | null;
  /** The codec model in force. */
  readonly codec: Codec;
  /** Absolute index of the next frame. */
  readonly nextIndex: number;
  /** Absolute index before which digests confirmed W and Y of every frame. */
  readonly confirmedIndex: number;
  /** Absolute index before which digests confirmed W of every frame: from there the encoder can go on. */
  readonly resumeIndex: number;
  /** Bytes that the session holds in addition to its models. */
  readonly memoryBytes: number;
}

/** Coded integers within a chunk. Without a model they say nothing. */
export interface Payload {
  data: Uint8Array;
  /** The place of the first byte, from the first byte of the stream header. */
  offset: number;
}

interface Placed {
  /** The place of the leading byte, or of the message, from the first byte of the stream header. */
  offset: number;
  /** The place of the body. */
  bodyOffset: number;
  /** How many bytes it has in the stream; 0 for a datagram. Those of all chunks together are the stream's. */
  wireLen: number;
}
/** The stream header. */
export interface HeaderChunk extends Placed {
  type: 'header';
  header: Header;
}
/** One frame, joined or its hyper-prior. */
export interface FrameChunk extends Placed {
  type: 'frame';
  /** Absolute index of the frame. */
  index: number;
  /** The epoch in which it was coded. */
  epoch: number;
  payload: Payload;
}
/** A batch, joined or hyper-priors. */
export interface BatchChunk extends Placed {
  type: 'batch';
  /** Absolute index of the first frame. */
  index: number;
  epoch: number;
  /** Number of frames, 2 or more. */
  frames: number;
  /** One for each lane. */
  payloads: Payload[];
}
/** A target of layered mode, or a part of one. */
export interface TargetChunk extends Placed {
  type: 'target';
  /** What is known without a model (spec 6.5). */
  status: 'usable' | 'early' | 'late' | 'damaged' | 'noRoom';
  /** Absolute index of the first frame; `null` if it is damaged or had no room, or for one of 2^53 or more. */
  index: number | null;
  epoch: number | null;
  /** Number of frames; 0 if it cannot be read. */
  frames: number;
  /** The first element and that after the last, if it holds a part of one frame; rounded above 2^53. */
  elements: { first: number; end: number } | null;
  /** One for each lane; none if it cannot be read. */
  payloads: Payload[];
}
/** A checkpoint. */
export interface CheckpointChunk extends Placed {
  type: 'checkpoint';
  /** Absolute index of the next frame. */
  index: number;
  digestW: number;
  digestY: number;
}
/** A context reset. */
export interface ResetChunk extends Placed {
  type: 'reset';
  /** Absolute index of the next frame. */
  index: number;
  /** The epoch that begins. */
  epoch: number;
  /** The first eight bytes of the model's fingerprint. */
  fingerprintPrefix: Uint8Array;
  quality: number;
  lengthOffset: number;
  digestW: number;
  digestY: number;
}
/** A rewind. */
export interface RewindChunk extends Placed {
  type: 'rewind';
  /** Absolute index of the next frame. */
  index: number;
}
/** A quality switch. */
export interface QualityChunk extends Placed {
  type: 'quality';
  quality: number;
  lengthOffset: number;
}
/** A model switch. */
export interface ModelSwitchChunk extends Placed {
  type: 'modelSwitch';
  /** Absolute index of the next frame. */
  index: number;
  /** The epoch that begins. */
  epoch: number;
  /** The model's fingerprint, 32 bytes. */
  fingerprint: Uint8Array;
  /** Information only. */
  modelVersion: number;
  quality: number;
  lengthOffset: number;
  digestW: number;
  digestY: number;
}
/** A frame with its exact hidden state. */
export interface ExactFrameChunk extends Placed {
  type: 'exactFrame';
  index: number;
  epoch: number;
  /** The type of the exact values. */
  dtype: Dtype;
  payload: Payload;
  /** The exact hidden state, little-endian values. */
  data: Uint8Array;
}
/** Side indices of the next frames. */
export interface SideIndicesChunk extends Placed {
  type: 'sideIndices';
  /** Absolute index of the first of these frames. */
  index: number;
  frames: number;
  payload: Payload;
}
/** An ignorable extension. */
export interface ExtensionChunk extends Placed {
  type: 'extension';
  id: number;
  data: Uint8Array;
}
/** The end. */
export interface EndChunk extends Placed {
  type: 'end';
  /** Absolute index after the last frame. */
  index: number;
  /** Frames coded, rewound ones included. */
  framesCoded: number;
  digestW: number;
  digestY: number;
}
/** The seek index of a file. */
export interface SeekIndexChunk extends Placed {
  type: 'seekIndex';
  /** Places to join, ascending. */
  entries: SeekEntry[];
}
/** The footer of a file. */
export interface FooterChunk extends Placed {
  type: 'footer';
}
/** A chunk that this version of the package has no name for. Skip it. */
export interface OtherChunk extends Placed {
  type: 'other';
}

/** A chunk of a stream, its place and its size (spec chapter 2). */
export type Chunk =
  | HeaderChunk
  | FrameChunk
  | BatchChunk
  | TargetChunk
  | CheckpointChunk
  | ResetChunk
  | RewindChunk
  | QualityChunk
  | ModelSwitchChunk
  | ExactFrameChunk
  | SideIndicesChunk
  | ExtensionChunk
  | EndChunk
  | SeekIndexChunk
  | FooterChunk
  | OtherChunk;

/**
 * Reads the chunks of one stream (spec chapter 2). It needs no model, and says nothing about what the payloads hold.
 *
 * Call order: `push` or `pushMessage` as input comes, each followed by a loop over the chunks; `finish` at the end of input,
 * and a last loop. An error of the stream is final.
 */
export class Reader implements Iterable<Chunk> {
  /** @throws {MidspanError} INVALID_ARGUMENT. */
  constructor(options?: ReaderOptions);
  /**
   * A reader that joins a stream at a context reset or model switch; the arguments are those of `Decoder.join`.
   * @throws {MidspanError} 101 to 210, TRUNCATED for a header that is cut.
   */
  static join(header: Bytes, offset: number, index?: number | null, options?: ReaderOptions): Reader;
  /** Restores the reader that `save` wrote. Throws SAVED_SESSION, also for a reader of another binding. */
  static restore(saved: Bytes, options?: ReaderOptions): Reader;
  /** The reader as bytes, input not yet polled included. Throws the stream's error, if it had one. */
  save(): Uint8Array;
  /** A second reader that goes on from the same place. */
  fork(): Reader;
  /** Frees the reader. Every later call throws AFTER_END; a second `close` does nothing. */
  close(): void;
  [Symbol.dispose](): void;
  /** Hands in bytes of a byte stream or file, cut anywhere. They are copied. Throws as `Decoder.push`. */
  push(data: Bytes): void;
  /** Hands in one message, whole; an empty one is skipped. */
  pushMessage(message: Bytes): void;
  /** Hands in a datagram. Any bytes are allowed: each that is not empty gives one `target`, and none ends the stream. */
  pushDatagram(datagram: Bytes): void;
  /** Says that no more input comes: an unfinished stream is an error from then on, instead of a wait. */
  finish(): void;
  /**
   * The next chunk.
   * @throws {MidspanError} The stream's first error, at every later call again: 101 to 408 and 502.
   */
  poll(): Chunk | NeedMore | EndOfStream;
  /**
   * The chunks up to the place where more input is needed, or to the end. Each step is a poll, and throws what that throws.
   * Handle each chunk in the loop: an array of them is lost if a later step throws.
   */
  chunks(): Generator<Chunk, void, void>;
  [Symbol.iterator](): Generator<Chunk, void, void>;
  /** The stream header, once it was read; `null` before. */
  readonly header: Header | null;
  /** The offset of the first byte that no chunk covers yet. */
  readonly offset: number;
  /** Bytes that the reader holds. */
  readonly memoryBytes: number;
}

/**
 * Writes the chunks of one stream, under the rules that a reader applies (spec chapter 2), without a model. Payloads are
 * opaque to it, but none may end in the byte 0. A call that breaks a rule throws and changes nothing.
 */
export class Writer {
  /** @throws {MidspanError} BAD_CONFIG for a field of the header that is out of its range; INVALID_ARGUMENT. */
  constructor(header: HeaderInit);
  /** Restores the writer that `save` wrote. Throws SAVED_SESSION. */
  static restore(saved: Bytes): Writer;
  /** The writer as bytes, output not yet taken included. */
  save(): Uint8Array;
  /** A second writer that goes on from the same place. */
  fork(): Writer;
  /** Frees the writer, with output not yet taken. Every later call throws AFTER_END; a second `close` does nothing. */
  close(): void;
  [Symbol.dispose](): void;
  /**
   * Writes a one-frame chunk: a joined frame, or the hyper-prior of one frame.
   * @throws {MidspanError} CHUNK_TOO_LONG; SEAL_NOT_CANONICAL for a payload that ends in 0; WRONG_SIDE_INDICES in a stream
   *     with side indices that no `coverSide` gave; AFTER_END.
   */
  frame(payload: Bytes): void;
  /**
   * Writes a batch of `frames` frames, 2 or more, with one payload for each lane (spec 2.7).
   * @throws {MidspanError} BATCH_OF_ONE, TOO_MANY_FRAMES, LANE_COUNT, LANE_TABLE, and as `frame`.
   */
  batch(frames: number, lanes: readonly Bytes[]): void;
  /**
   * Writes the target of `frames` frames from the absolute index `index` on, in layered mode, with one payload a lane.
   * @throws {MidspanError} KIND_NOT_IN_MODE in joined mode; FRAME_NOT_PENDING for frames that have no hyper-prior; and as
   *     `batch`.
   */
  target(index: number, frames: number, lanes: readonly Bytes[]): void;
  /**
   * Writes a part of the target of the frame `index`: its elements from `firstElement` to before `endElement`.
   * @throws {MidspanError} FIELD_OUT_OF_RANGE for no element; and as `target`.
   */
  targetPart(index: number, firstElement: number, endElement: number, payload: Bytes): void;
  /**
   * Gives the side indices that the check of the next frame chunk covers, one for each of its frames. In a stream with side
   * indices every frame chunk needs such a call before it.
   */
  coverSide(indices: Indices): void;
  /**
   * Writes the side indices of the next `count` frames, as the model's tables code them.
   * @throws {MidspanError} KIND_NOT_IN_MODE in a stream without side indices; SIDE_INDICES_LEFT; TOO_MANY_FRAMES; and as
   *     `frame`.
   */
  sideIndices(count: number, payload: Bytes): void;
  /** Writes a checkpoint at the next frame, with the digests of spec 6.4. Throws AFTER_END. */
  checkpoint(digestW: number, digestY: number): void;
  /**
   * Writes a context reset: the next frame begins a new context. The digests are those of the context that ends.
   * @throws {MidspanError} FIELD_OUT_OF_RANGE for a length offset above 16,383; AFTER_END.
   */
  reset(quality: number, lengthOffset: number, digestW: number, digestY: number): void;
  /** Writes a rewind: the next frame will have the absolute index `index`. Throws REWIND_TARGET, REWIND_TOO_FAR, AFTER_END. */
  rewind(index: number): void;
  /** Writes a quality switch, which also sets the length offset; the context goes on. Throws as `reset`. */
  quality(quality: number, lengthOffset: number): void;
  /**
   * Writes a model switch: the next frame begins a new context with the model of this fingerprint, 32 bytes. The digests
   * are those of the context that ends. Throws as `reset`.
   */
  modelSwitch(
    fingerprint: Bytes,
    modelVersion: number,
    quality: number,
    lengthOffset: number,
    digestW: number,
    digestY: number,
  ): void;
  /**
   * Writes an exact frame: a joined payload, and the hidden state as little-endian values of type `dtype`.
   * @throws {MidspanError} WRONG_SHAPE if `hidden` is not a whole number of values; and as `frame`.
   */
  exactFrame(dtype: Dtype, payload: Bytes, hidden: Bytes): void;
  /** Writes an ignorable extension of this id. Throws CHUNK_TOO_LONG, AFTER_END. */
  extension(id: number, data: Bytes): void;
  /** Writes the end chunk and, in a file, seek index and footer. Throws AFTER_END. */
  end(digestW: number, digestY: number): void;
  /** Takes the bytes written since the last call; there may be none. Throws NOT_AVAILABLE in the message binding. */
  takeBytes(): Uint8Array;
  /** Takes the next message; `null` if all were taken. Throws NOT_AVAILABLE in a byte stream or file. */
  popMessage(): Message | null;
  /** Takes all messages that were written, in order. Throws as `popMessage`. */
  takeMessages(): Message[];
  /** How many bytes `takeBytes` would give; 0 in the message binding. */
  readonly untakenBytes: number;
  /** The message that `popMessage` would give, which stays. */
  readonly nextMessage: Message | null;
  /** Absolute index of the next frame. */
  readonly nextIndex: number;
  /** The offset of the next chunk, which is the number of bytes written so far. */
  readonly offset: number;
  /** Whether the end chunk was written. */
  readonly ended: boolean;
  /** Bytes that the writer holds, output not yet taken included. */
  readonly memoryBytes: number;
}
