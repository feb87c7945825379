/*
 * Midspan: a streaming bitstream format and codec for the hidden states between two halves of a transformer.
 *
 * A time frame is one position of the host's sequence: one hidden state of E values. The target Y is the E integers
 * that the quantiser makes of it. The hyper-prior W is C integers that are sent before Y, from which both ends derive
 * the probabilities of Y. [T, E] is T rows of E values, row by row, without gaps.
 *
 * These rules hold for every function:
 *
 * - Results. A function that can fail returns a midspan_result: 0 (MIDSPAN_OK), a positive number of the specification
 *   (chapter 7.3), or a negative one of this library. A failed call leaves a message and facts for its thread:
 *   midspan_last_error_message and midspan_last_error. A call that fails changes nothing, unless it says so.
 * - Pointers. No pointer may be NULL unless the function says so, except that of an array of 0 values. What a pointer
 *   leads to must be valid, large enough and aligned for its type, and nobody else may write to it during the call. The
 *   library copies what it needs after the call. Any function may refuse a pointer that is not aligned, and a count of
 *   values that no memory holds, with MIDSPAN_ERROR_INVALID_ARGUMENT, also where its list of errors does not name it.
 * - Results through pointers are written only if the call succeeds, unless the function says so. A function that makes
 *   a handle writes NULL if it fails.
 * - Handles are made by _load, _new, _join, _fork and _restore, and freed by the _free of their type, each once. NULL
 *   may be freed. A model may be freed while sessions that were made of it go on.
 * - Threads. Any number of threads may use a model. Each other handle may be used by one call at a time, from any
 *   thread: a second call gets MIDSPAN_ERROR_BUSY. No handle may be freed while another thread uses it.
 * - Bytes that the library hands out (midspan_bytes) are its own memory, not a copy. midspan_bytes_free frees them.
 *   What events and chunks point to belongs to their handle, until its next poll that succeeds.
 * - Structs of settings are set by their _init function first, which also writes the struct's size. An enumeration is a
 *   uint32_t with named values; another value is MIDSPAN_ERROR_INVALID_ARGUMENT.
 * - Sizes. A size_t counts values that lie in memory: those of an array, its rows, the bytes of a buffer. A uint64_t
 *   counts frames and elements of a stream and bytes of its file.
 * - Untrusted input. Streams, datagrams, model files and saved sessions may hold any bytes: they give an event, a wait,
 *   the end or an error. Nothing is allocated by a number in them that was not checked against a limit.
 * - A panic inside the library is caught: MIDSPAN_ERROR_PANIC. Nothing is thrown into the caller, and no call ends the
 *   process, unless the machine has no memory left.
 * - Versions. The layout of structs changes only with the version of the interface: 0.MINOR before version 1.0, and
 *   MAJOR from then on. The name of the shared library contains it, so that no program finds a library with other
 *   structs. MIDSPAN_VERSION_NUMBER is the version of this header, midspan_version_number that of the library.
 */


#ifndef MIDSPAN_H
#define MIDSPAN_H

/* cbindgen makes this file of bindings/c/src; do not edit it. */

#include <stddef.h>
#include <stdint.h>

/**
 * The first number of this header's version, MAJOR.MINOR.PATCH.
 */
#define MIDSPAN_VERSION_MAJOR 0

/**
 * The second number of this header's version.
 */
#define MIDSPAN_VERSION_MINOR 1

/**
 * The third number of this header's version.
 */
#define MIDSPAN_VERSION_PATCH 0

/**
 * The version of this header as one number: 65,536 times major, plus 256 times minor, plus patch.
 */
#define MIDSPAN_VERSION_NUMBER (((MIDSPAN_VERSION_MAJOR << 16) | (MIDSPAN_VERSION_MINOR << 8)) | MIDSPAN_VERSION_PATCH)

/**
 * A decoder of one stream: bytes in, integers and hidden states out. One call at a time may use it.
 *
 * Call order: `midspan_decoder_new`; `midspan_decoder_push` or `midspan_decoder_push_message` as input comes, each
 * followed by polls until it needs more; `midspan_decoder_finish` at the end of input; `midspan_decoder_free`. An
 * error of the stream answers every later push and poll; everything handed out before it stays valid.
 */
typedef struct midspan_decoder midspan_decoder;

/**
 * An encoder of one stream: hidden states or integers in, bytes out. One call at a time may use it.
 *
 * Call order: `midspan_encoder_new`; any of the pushes and control calls; `midspan_encoder_end`;
 * `midspan_encoder_free`. Output can be taken at any time. A call that fails changes nothing, unless it says so.
 */
typedef struct midspan_encoder midspan_encoder;

/**
 * A codec model, prepared for this CPU. It never changes; any number of threads may use it, and sessions share it. It
 * may be freed while sessions that were made of it go on.
 */
typedef struct midspan_model midspan_model;

/**
 * A reader of one stream's chunks. It needs no model, and says nothing about what the payloads hold. One call at a
 * time may use it.
 *
 * Call order: `midspan_reader_new`; `midspan_reader_push` or `midspan_reader_push_message` as input comes, each
 * followed by polls until it needs more; `midspan_reader_finish`; `midspan_reader_free`.
 */
typedef struct midspan_reader midspan_reader;

/**
 * A writer of one stream's chunks, under the rules that a reader applies. Payloads are opaque to it, but none may end
 * in the byte 0. One call at a time may use it. A call that breaks a rule changes nothing.
 */
typedef struct midspan_writer midspan_writer;

/**
 * What a call returns: 0 (`MIDSPAN_OK`), or why it failed. Positive numbers are those of the specification, chapter
 * 7.3, whose hundreds say who is at fault; negative ones are this library's own, and no specification will use them.
 */
typedef int32_t midspan_result;

/**
 * Who has to change something for an error to go away.
 */
typedef uint32_t midspan_fault;

/**
 * Who set a limit that was exceeded.
 */
typedef uint32_t midspan_limit_owner;

/**
 * The facts of the last error of a thread.
 */
typedef struct midspan_error {
    /**
     * Its number; 0 if no call of this thread has failed.
     */
    midspan_result code;
    /**
     * Who is at fault.
     */
    midspan_fault fault;
    /**
     * Where the error is, if `has_offset` is 1; else 0. It counts bytes from the first byte of the stream header, or
     * of the model file for 7xx. For an error of a reader, a decoder or a model file it is the first byte of the field
     * at fault. For 8xx and 9xx, and for an error of a writer or an encoder, it is the first byte of the chunk that
     * was worked on.
     */
    uint64_t offset;
    /**
     * 1 if the error has a place. An error of a call may have none.
     */
    uint32_t has_offset;
    /**
     * 1 if `wanted` holds a number, else 0.
     */
    uint32_t has_wanted;
    /**
     * 1 if `found` holds a number, else 0.
     */
    uint32_t has_found;
    /**
     * The number that was wanted, or the largest that is allowed. With MIDSPAN_ERROR_SMALL_BUFFER it is the needed
     * size, in the units of the call's capacity.
     */
    uint64_t wanted;
    /**
     * The number that was found. One above 2^63 - 1 may be reported as 2^63 - 1. With MIDSPAN_ERROR_SMALL_BUFFER it is
     * the capacity.
     */
    uint64_t found;
    /**
     * 1 if a single value is at fault, and `frame` and `element` say which; else 0.
     */
    uint32_t has_element;
    /**
     * Whose limit was exceeded.
     */
    midspan_limit_owner limit_owner;
    /**
     * The frame of that value, counted in the call from 0.
     */
    uint64_t frame;
    /**
     * Which of the frame's values it is, from 0.
     */
    uint64_t element;
    /**
     * 1 if `wanted_digest` holds a SHA-256, else 0.
     */
    uint32_t has_wanted_digest;
    /**
     * 1 if `found_digest` holds a SHA-256, else 0. An error may have a wanted digest alone.
     */
    uint32_t has_found_digest;
    /**
     * With MIDSPAN_ERROR_WRONG_MODEL the fingerprint of this end's model, with MIDSPAN_ERROR_WRONG_HOST the host
     * digest of this end's settings.
     */
    uint8_t wanted_digest[32];
    /**
     * With MIDSPAN_ERROR_WRONG_MODEL the fingerprint that the stream or the saved session names: load that model. With
     * MIDSPAN_ERROR_WRONG_HOST the host digest that the stream states, if it states one.
     */
    uint8_t found_digest[32];
    /**
     * One sentence for people, NUL-terminated, with what was wanted and found, whose fault it is and where. It belongs
     * to the thread and is valid until the next call that fails in it, or until the thread ends.
     */
    const char *message;
} midspan_error;

/**
 * Bytes that the library made. They are the library's own memory, not a copy, and stay valid until
 * `midspan_bytes_free`, also if the handle that gave them is freed before.
 *
 * The struct owns the bytes. A copy of the struct is no second owner: free one of the two, and use neither afterwards.
 * A function that writes the struct does not free what it held before.
 */
typedef struct midspan_bytes {
    /**
     * The first byte; NULL if there is none.
     */
    const uint8_t *data;
    /**
     * How many.
     */
    size_t len;
    /**
     * For the library.
     */
    void *owner;
} midspan_bytes;

/**
 * How the integers of a frame are coded (spec 6.1, 6.5).
 */
typedef uint32_t midspan_mode;

/**
 * Who delimits the chunks of a stream (spec 2.1).
 */
typedef uint32_t midspan_binding;

/**
 * The check of every chunk of frames (spec 2.5).
 */
typedef uint32_t midspan_check;

/**
 * An optional field of a stream header.
 */
typedef struct midspan_field {
    /**
     * Its id: even, and in ascending order among the fields. 2 is the producer's name, UTF-8.
     */
    uint32_t id;
    /**
     * Its value.
     */
    const uint8_t *data;
    /**
     * How many bytes that has.
     */
    size_t len;
} midspan_field;

/**
 * What a stream says about itself before its first chunk (spec 2.2).
 */
typedef struct midspan_header {
    /**
     * Bytes of this struct. `midspan_header_init` sets it; another value is MIDSPAN_ERROR_INVALID_ARGUMENT.
     */
    size_t struct_size;
    /**
     * The format version: 1 in what this library writes, possibly higher in what it reads.
     */
    uint8_t format_version;
    /**
     * The quality index at the start.
     */
    uint8_t quality;
    /**
     * The length offset at the start, 0 to 16,383 bytes (spec 2.3).
     */
    uint16_t length_offset;
    /**
     * The coding mode.
     */
    midspan_mode mode;
    /**
     * The binding in which the stream is written.
     */
    midspan_binding binding;
    /**
     * The check of frame chunks.
     */
    midspan_check check;
    /**
     * 1 if the stream's models take side indices (spec 6.12), else 0.
     */
    uint32_t side;
    /**
     * The model's version; information only.
     */
    uint32_t model_version;
    /**
     * The most frames of a chunk: 1 to 2^20.
     */
    uint32_t max_frames;
    /**
     * The most bytes of a chunk's body: 72 to 2^30.
     */
    uint32_t max_chunk_bytes;
    /**
     * The most frames that a rewind goes back: 0 to 2^20.
     */
    uint32_t max_rewind;
    /**
     * The most frames that may wait for their target, in layered mode: 1 to 28,672. Not used in joined mode.
     */
    uint32_t target_horizon;
    /**
     * The fingerprint of the model (spec 4.6).
     */
    uint8_t fingerprint[32];
    /**
     * 1 if `identity` holds one, else 0.
     */
    uint32_t has_identity;
    /**
     * 1 if `host_digest` holds one, else 0.
     */
    uint32_t has_host_digest;
    /**
     * Distinguishes the stream from others (spec 2.2).
     */
    uint8_t identity[8];
    /**
     * SHA-256 that identifies the host model's weights (spec 4.7).
     */
    uint8_t host_digest[32];
    /**
     * The optional fields, the identity left out; NULL if there is none.
     */
    const struct midspan_field *fields;
    /**
     * How many.
     */
    size_t field_count;
} midspan_header;

/**
 * What a model says about itself.
 */
typedef struct midspan_model_info {
    /**
     * E, values of a hidden state.
     */
    size_t hidden_width;
    /**
     * C, values of the hyper-prior W in a frame.
     */
    size_t hyper_prior_width;
    /**
     * The number of qualities; they are counted from 0, which is the coarsest of the default model.
     */
    uint32_t qualities;
    /**
     * The model's version, information only.
     */
    uint32_t version;
    /**
     * 1 if it has an encoder's part, so that hidden states can be pushed, else 0.
     */
    uint32_t has_encoder;
    /**
     * 1 if it takes a side index for every frame (spec 6.12), else 0.
     */
    uint32_t takes_side;
    /**
     * V, if it takes side indices: they are 0 to V - 1, and V says that a frame has none. Else 0.
     */
    uint32_t side_vocabulary;
    /**
     * How many side indices decide about a frame, its own and those of the frames before it; 0 if it takes none.
     */
    uint32_t side_ages;
    /**
     * How many frames back it predicts from (spec 4.9); 0 if it does not. A model that predicts has no layered mode.
     */
    uint32_t predicted_from;
    /**
     * The smallest and the largest value of W.
     */
    int16_t w_min;
    /**
     * See `w_min`.
     */
    int16_t w_max;
    /**
     * The smallest and the largest value of Y.
     */
    int16_t y_min;
    /**
     * See `y_min`.
     */
    int16_t y_max;
    /**
     * SHA-256 over all that a decoder uses of it (spec 4.6). Streams name it.
     */
    uint8_t fingerprint[32];
} midspan_model_info;

/**
 * What a model says about one of its qualities.
 */
typedef struct midspan_quality_info {
    /**
     * A hidden state whose values lie within `range_low` and `range_high` is never clamped, in a model without maps
     * around its quantiser; with full maps the range is that of the mapped values, and with sparse maps that of
     * differences.
     */
    float range_low;
    /**
     * See `range_low`.
     */
    float range_high;
    /**
     * The weight with which an encoder chooses Y by its rate (spec 6.8): squared quantiser steps for one bit.
     */
    float rate_weight;
    /**
     * The mean bits of a frame's payloads that are expected, one frame a chunk, in joined mode; 0 if the model does
     * not say.
     */
    float expected_bits;
    /**
     * The length offset that the model recommends (spec 2.3).
     */
    uint16_t length_offset;
} midspan_quality_info;

/**
 * What an encoder does with values more than half a step outside the range of the quality (spec 6.8).
 */
typedef uint32_t midspan_clipping;

/**
 * The settings of an encoder. `midspan_encoder_config_init` sets all of them; change what differs.
 */
typedef struct midspan_encoder_config {
    /**
     * Bytes of this struct. `midspan_encoder_config_init` sets it; another value is MIDSPAN_ERROR_INVALID_ARGUMENT.
     */
    size_t struct_size;
    /**
     * Joined or layered; MIDSPAN_MODE_JOINED by default.
     */
    midspan_mode mode;
    /**
     * Who delimits the chunks; MIDSPAN_BINDING_BYTE_STREAM by default.
     */
    midspan_binding binding;
    /**
     * The check of joined and hyper-prior chunks; MIDSPAN_CHECK_ONE by default.
     */
    midspan_check check;
    /**
     * What happens to hidden states outside the range of the quality; MIDSPAN_CLIPPING_REPORT by default.
     */
    midspan_clipping clipping;
    /**
     * Not 0 if `identity` holds one.
     */
    uint32_t has_identity;
    /**
     * Eight bytes from the caller's random number generator that no other stream has, so that bytes spliced in from
     * another stream are detected (spec 2.2).
     */
    uint8_t identity[8];
    /**
     * Not 0 if `host_digest` holds one; 0 by default.
     */
    uint32_t has_host_digest;
    /**
     * SHA-256 that identifies the host model's weights (spec 4.7), if the decoder is to compare it.
     */
    uint8_t host_digest[32];
    /**
     * Quality index at the start; 0 by default.
     */
    uint8_t quality;
    /**
     * Lanes of a batch chunk (spec 2.6), 1 to 1,024; 1 by default.
     */
    uint16_t lanes;
    /**
     * The length offset (spec 2.3), 0 to 16,383, if `has_length_offset` is not 0. Otherwise the encoder takes the
     * model's recommendation in joined mode, and 0 in layered mode.
     */
    uint16_t length_offset;
    /**
     * Not 0 if `length_offset` applies; 0 by default.
     */
    uint32_t has_length_offset;
    /**
     * Most frames of one chunk, 1 to 2^20; larger batches are split. 256 by default, which decoders accept by default.
     */
    uint32_t max_frames_per_chunk;
    /**
     * Most bytes of one chunk's body, 72 to 2^30; 4 MiB by default.
     */
    uint32_t max_chunk_bytes;
    /**
     * How many frames a rewind may go back, 0 to 2^20; 64 by default.
     */
    uint32_t max_rewind;
    /**
     * Layered mode: how many frames back the oldest frame without a target may be, 1 to 28,672; 1,024 by default.
     */
    uint32_t target_horizon;
    /**
     * Layered mode: no message that holds a target is longer than this many bytes, so that each fits a datagram. At
     * least 256; 0, the default, sets no limit.
     */
    uint32_t datagram_limit;
    /**
     * A checkpoint is sent whenever this many frames were coded since the last one; 256 by default. With 0 only
     * `midspan_encoder_checkpoint` sends one.
     */
    uint32_t checkpoint_interval;
    /**
     * Squared quantiser steps that the encoder gives for one bit when it chooses Y (spec 6.8), if `has_rate_weight` is
     * not 0: finite and at least 0. A weight of 0 sends the nearest integers. Otherwise the encoder takes the model's
     * own weight.
     */
    float rate_weight;
    /**
     * Not 0 if `rate_weight` applies; 0 by default.
     */
    uint32_t has_rate_weight;
    /**
     * Bytes that the session may hold, 64 MiB by default: contexts, output not yet taken, and what coding a push
     * takes.
     */
    size_t memory_limit;
    /**
     * Optional fields of the stream header, in ascending order of id; NULL by default. They are copied when the
     * encoder is made.
     */
    const struct midspan_field *fields;
    /**
     * How many; 0 by default.
     */
    size_t field_count;
} midspan_encoder_config;

/**
 * Where the decoder has the side indices of some frames from (spec 6.12).
 */
typedef uint32_t midspan_side_delivery;

/**
 * The type of the values of an exact frame's hidden state (spec 6.9), all little-endian.
 */
typedef uint32_t midspan_dtype;

/**
 * How a transport must carry a message (spec 2.4).
 */
typedef uint32_t midspan_message_class;

/**
 * A message of the message binding.
 */
typedef struct midspan_message {
    /**
     * The whole message; free it. It has no bytes if there is no message: a message is never empty.
     */
    struct midspan_bytes bytes;
    /**
     * How it must be carried; MIDSPAN_MESSAGE_NONE if there is no message.
     */
    midspan_message_class message_class;
    /**
     * Absolute index of the first frame that it holds, whole or in part.
     */
    uint64_t first_frame;
    /**
     * Absolute index after the last frame that it holds; `first_frame` if it holds none.
     */
    uint64_t end_frame;
} midspan_message;

/**
 * Sums over the frames that an encoder has sent, those that were rewound included.
 */
typedef struct midspan_sent {
    /**
     * Frames.
     */
    uint64_t frames;
    /**
     * Values of W.
     */
    uint64_t w_values;
    /**
     * Values of Y.
     */
    uint64_t y_values;
    /**
     * Values of Y that lay outside the range of the quality and were clamped.
     */
    uint64_t clipped;
    /**
     * Values of W and of Y that their tables do not hold.
     */
    uint64_t escaped;
    /**
     * Bits of the payloads of W and of Y. Framing, checks and side indices are not counted.
     */
    uint64_t payload_bits;
    /**
     * Frames of which the model says how many bits it expects.
     */
    uint64_t compared_frames;
    /**
     * Payload bits of these frames.
     */
    uint64_t compared_bits;
    /**
     * Bits that the model expects of these frames.
     */
    uint64_t expected_bits;
} midspan_sent;

/**
 * What a poll of a decoder gave. Each kind says which fields of `midspan_event` it sets; all others are 0 or NULL.
 */
typedef uint32_t midspan_event_kind;

/**
 * What the digests of the stream say about a range of frames. A digest that differs is an error instead.
 */
typedef uint32_t midspan_verdict;

/**
 * Why a target changed nothing (spec 6.5).
 */
typedef uint32_t midspan_refusal;

/**
 * What a poll of a decoder gave. `kind` says which fields are set; the others are 0 or NULL.
 *
 * What the pointers lead to belongs to the decoder and is valid until its next poll that succeeds, or its `_free`. No
 * other call changes it. `midspan_decoder_poll_into` writes hidden states to the caller's own buffer instead.
 */
typedef struct midspan_event {
    /**
     * What happened.
     */
    midspan_event_kind kind;
    /**
     * With MIDSPAN_EVENT_VERDICT: what the digests say.
     */
    midspan_verdict verdict;
    /**
     * With MIDSPAN_EVENT_TARGET_REFUSED: why.
     */
    midspan_refusal refusal;
    /**
     * With MIDSPAN_EVENT_TARGETS: 1 if some or all integers are the network's means, because the target, or some of
     * its elements, did not come.
     */
    uint32_t concealed;
    /**
     * With MIDSPAN_EVENT_EXACT_FRAME: the type of the values in `data`.
     */
    midspan_dtype dtype;
    /**
     * With MIDSPAN_EVENT_EXTENSION: its id.
     */
    uint32_t extension_id;
    /**
     * With MIDSPAN_EVENT_QUALITY: the quality index.
     */
    uint8_t quality;
    /**
     * 1 if `index` is set.
     */
    uint32_t has_index;
    /**
     * Absolute index of the first frame, or of the next one.
     */
    uint64_t index;
    /**
     * Absolute index after the last frame of which the event is; `index` where it is about no frames.
     */
    uint64_t end_index;
    /**
     * Number of frames, T.
     */
    uint64_t count;
    /**
     * With MIDSPAN_EVENT_WORKING: frames decoded so far.
     */
    uint64_t done;
    /**
     * With MIDSPAN_EVENT_ENDED: frames coded, rewound ones included.
     */
    uint64_t frames_coded;
    /**
     * With MIDSPAN_EVENT_TARGET_PART: the first element.
     */
    uint64_t first_element;
    /**
     * With MIDSPAN_EVENT_TARGET_PART: the element after the last.
     */
    uint64_t end_element;
    /**
     * Reconstructed hidden states, [T, E], row by row.
     */
    const float *hidden;
    /**
     * How many values: T * E.
     */
    size_t hidden_len;
    /**
     * Hyper-prior integers W, [T, C].
     */
    const int16_t *w;
    /**
     * How many values: T * C.
     */
    size_t w_len;
    /**
     * Target integers Y, [T, E].
     */
    const int16_t *y;
    /**
     * How many values: T * E.
     */
    size_t y_len;
    /**
     * With MIDSPAN_EVENT_SIDE_INDICES: one a frame.
     */
    const uint32_t *side;
    /**
     * How many.
     */
    size_t side_len;
    /**
     * With MIDSPAN_EVENT_EXTENSION its data; with MIDSPAN_EVENT_EXACT_FRAME the exact hidden state, E little-endian
     * values, not aligned.
     */
    const uint8_t *data;
    /**
     * How many bytes.
     */
    size_t data_len;
    /**
     * With MIDSPAN_EVENT_OPENED: the stream header.
     */
    const struct midspan_header *header;
    /**
     * With MIDSPAN_EVENT_MODEL: the model's fingerprint.
     */
    uint8_t fingerprint[32];
} midspan_event;

/**
 * The most that a reader or decoder accepts from a peer (spec 7.2). A header that declares more is read all the same;
 * what then exceeds a limit is refused when it comes.
 */
typedef struct midspan_limits {
    /**
     * Frames of a chunk; 256 by default, 2^20 at most.
     */
    uint32_t max_frames;
    /**
     * Bytes of a chunk's body; 4 MiB by default, 2^30 at most.
     */
    uint32_t max_chunk_bytes;
    /**
     * Frames that a rewind goes back; 1,024 by default, 2^20 at most.
     */
    uint32_t max_rewind;
    /**
     * Frames that may wait for their target; 1,024 by default, 28,672 at most.
     */
    uint32_t target_horizon;
    /**
     * Bytes of early targets that a decoder keeps, and of datagrams that wait to be polled; 1 MiB by default.
     */
    uint32_t early_bytes;
} midspan_limits;

/**
 * The settings of a decoder. `midspan_decoder_config_init` sets all of them; change what differs.
 */
typedef struct midspan_decoder_config {
    /**
     * Bytes of this struct. `midspan_decoder_config_init` sets it; another value is MIDSPAN_ERROR_INVALID_ARGUMENT.
     */
    size_t struct_size;
    /**
     * Who delimits the chunks; MIDSPAN_BINDING_BYTE_STREAM by default, which reads files too.
     */
    midspan_binding binding;
    /**
     * The most that is accepted from a peer.
     */
    struct midspan_limits limits;
    /**
     * Bytes that the session may hold, 64 MiB by default. A chunk that would exceed it is refused before anything is
     * allocated for it (MIDSPAN_ERROR_MEMORY_LIMIT). Input not yet polled does not count.
     */
    size_t memory_limit;
    /**
     * The most frames that one poll decodes, 64 by default. A longer chunk takes several polls, each but the last with
     * MIDSPAN_EVENT_WORKING.
     */
    size_t frames_per_poll;
    /**
     * Not 0 if `host_digest` holds one; 0 by default.
     */
    uint32_t has_host_digest;
    /**
     * SHA-256 that identifies the host model's weights (spec 4.7): a header that states another one, or none, is
     * refused (MIDSPAN_ERROR_WRONG_HOST).
     */
    uint8_t host_digest[32];
} midspan_decoder_config;

/**
 * A range of elements of a frame.
 */
typedef struct midspan_range {
    /**
     * The first one.
     */
    uint64_t first;
    /**
     * The one after the last.
     */
    uint64_t end;
} midspan_range;

/**
 * The settings of a reader. `midspan_reader_config_init` sets all of them; change what differs.
 */
typedef struct midspan_reader_config {
    /**
     * Bytes of this struct. `midspan_reader_config_init` sets it; another value is MIDSPAN_ERROR_INVALID_ARGUMENT.
     */
    size_t struct_size;
    /**
     * Who delimits the chunks; MIDSPAN_BINDING_BYTE_STREAM by default, which reads files too.
     */
    midspan_binding binding;
    /**
     * The most that is accepted from a peer.
     */
    struct midspan_limits limits;
} midspan_reader_config;

/**
 * What a chunk is. Each kind says which fields of `midspan_chunk` it sets besides the places; all others are 0 or
 * NULL.
 */
typedef uint32_t midspan_chunk_kind;

/**
 * What is known of a target without a model (spec 6.5).
 */
typedef uint32_t midspan_target_status;

/**
 * A payload within a chunk, or what a writer makes one of.
 */
typedef struct midspan_payload {
    /**
     * Its bytes; NULL is allowed for none.
     */
    const uint8_t *data;
    /**
     * How many.
     */
    size_t len;
    /**
     * The place of the first byte, from the first byte of the stream header. A writer does not use it.
     */
    uint64_t offset;
} midspan_payload;

/**
 * A place where a reader of a file may join.
 */
typedef struct midspan_seek_entry {
    /**
     * Absolute index of the next frame there.
     */
    uint64_t frame;
    /**
     * The offset of the chunk.
     */
    uint64_t offset;
} midspan_seek_entry;

/**
 * A chunk, its place and its size. The bytes of all chunks together are those of the stream. `kind` says which of the
 * other fields are set; the others are 0 or NULL. What the pointers lead to belongs to the reader and is valid until
 * its next poll that succeeds, or its `_free`.
 */
typedef struct midspan_chunk {
    /**
     * What it is.
     */
    midspan_chunk_kind kind;
    /**
     * Of a target: what is known of it.
     */
    midspan_target_status target;
    /**
     * The offset of its leading byte, or of the message, from the first byte of the stream header.
     */
    uint64_t offset;
    /**
     * The offset of its body.
     */
    uint64_t body_offset;
    /**
     * How many bytes it has in the stream; 0 for a datagram.
     */
    uint64_t wire_len;
    /**
     * Absolute index of its first frame, or of the next one.
     */
    uint64_t index;
    /**
     * Frames coded, rewound ones included.
     */
    uint64_t frames_coded;
    /**
     * The first element of a part of a target.
     */
    uint64_t first_element;
    /**
     * The element after its last.
     */
    uint64_t end_element;
    /**
     * Its frames.
     */
    uint32_t frames;
    /**
     * The epoch in which its frames were coded, or that begins.
     */
    uint32_t epoch;
    /**
     * 1 if a target holds a part of one frame, else 0.
     */
    uint32_t is_part;
    /**
     * The type of the values in `data` of an exact frame.
     */
    midspan_dtype dtype;
    /**
     * The id of an extension.
     */
    uint32_t extension_id;
    /**
     * The version of a model, information only.
     */
    uint32_t model_version;
    /**
     * The digest of W.
     */
    uint32_t digest_w;
    /**
     * The digest of Y.
     */
    uint32_t digest_y;
    /**
     * A length offset (spec 2.3).
     */
    uint16_t length_offset;
    /**
     * A quality index.
     */
    uint8_t quality;
    /**
     * A model's fingerprint, or its first eight bytes.
     */
    uint8_t fingerprint[32];
    /**
     * Its payloads, lane by lane.
     */
    const struct midspan_payload *payloads;
    /**
     * How many.
     */
    size_t payload_count;
    /**
     * An extension's data, or the little-endian values of an exact frame's hidden state.
     */
    const uint8_t *data;
    /**
     * How many bytes.
     */
    size_t data_len;
    /**
     * A file's places to join, ascending.
     */
    const struct midspan_seek_entry *seek_entries;
    /**
     * How many.
     */
    size_t seek_entry_count;
    /**
     * The stream header.
     */
    const struct midspan_header *header;
} midspan_chunk;

/**
 * The call did what it was asked for.
 */
#define MIDSPAN_OK 0

/**
 * A pointer is NULL that may not be.
 */
#define MIDSPAN_ERROR_NULL_POINTER -1

/**
 * An argument has a value that means nothing: an unknown enumeration value, a count whose bytes no memory can hold, a
 * pointer that is not aligned for its type, settings that no `_init` function of this version set.
 * `midspan_last_error_message` names the argument.
 */
#define MIDSPAN_ERROR_INVALID_ARGUMENT -2

/**
 * The caller's buffer is too small. Nothing was taken and nothing is lost; the needed size is told, and the same call
 * with such a buffer succeeds.
 */
#define MIDSPAN_ERROR_SMALL_BUFFER -3

/**
 * The library has a bug, which was caught (a Rust panic). The handle of this call stays unusable: every later call
 * with it, except its `_free`, gives this number again. Other handles are not affected.
 */
#define MIDSPAN_ERROR_PANIC -4

/**
 * Another thread is in a call with the same handle. Nothing happened.
 */
#define MIDSPAN_ERROR_BUSY -5

/**
 * A varint is not in its shortest form (VARINT-1).
 */
#define MIDSPAN_ERROR_VARINT_NOT_SHORTEST 101

/**
 * A varint begins with the reserved byte 0xFF (VARINT-2).
 */
#define MIDSPAN_ERROR_VARINT_RESERVED 102

/**
 * The value of a field is out of its range (VARINT-3, HDR-3).
 */
#define MIDSPAN_ERROR_FIELD_OUT_OF_RANGE 103

/**
 * The stream does not begin with the magic (HDR-1).
 */
#define MIDSPAN_ERROR_BAD_MAGIC 201

/**
 * The stream asks for a later reader version (HDR-2).
 */
#define MIDSPAN_ERROR_READER_TOO_OLD 202

/**
 * The versions in the header contradict themselves (HDR-2).
 */
#define MIDSPAN_ERROR_BAD_VERSION 203

/**
 * The crc of the stream header differs (HDR-4).
 */
#define MIDSPAN_ERROR_HEADER_CRC_MISMATCH 204

/**
 * A reserved flag of the stream header is set (HDR-5, HDR-10).
 */
#define MIDSPAN_ERROR_RESERVED_HEADER_BITS 205

/**
 * The track count is not 1 (HDR-6).
 */
#define MIDSPAN_ERROR_TRACK_COUNT 206

/**
 * The optional header fields are not in ascending order (HDR-7).
 */
#define MIDSPAN_ERROR_OPTIONAL_FIELD_ORDER 207

/**
 * An unknown critical header field (HDR-7).
 */
#define MIDSPAN_ERROR_UNKNOWN_CRITICAL_FIELD 208

/**
 * A field exceeds the body of the stream header (HDR-8).
 */
#define MIDSPAN_ERROR_HEADER_LAYOUT 209

/**
 * The stream is written in the other binding: messages, or a byte stream (HDR-13).
 */
#define MIDSPAN_ERROR_WRONG_BINDING 210

/**
 * A reserved chunk kind (CHUNK-1, MSG-3, MSG-4).
 */
#define MIDSPAN_ERROR_RESERVED_KIND 301

/**
 * A chunk body is longer than the limit (CHUNK-2).
 */
#define MIDSPAN_ERROR_CHUNK_TOO_LONG 302

/**
 * A one-frame chunk is not in its shortest form (CHUNK-3, MSG-3).
 */
#define MIDSPAN_ERROR_FRAME_FORM_NOT_SHORTEST 303

/**
 * A target chunk in joined mode (CHUNK-4).
 */
#define MIDSPAN_ERROR_KIND_NOT_IN_MODE 304

/**
 * A seek index where there must be none, or none where there must be one (CHUNK-4, FILE-1).
 */
#define MIDSPAN_ERROR_SEEK_INDEX_MISPLACED 305

/**
 * A chunk body is too short or too long for its fields (CHUNK-5, CTRL-6).
 */
#define MIDSPAN_ERROR_CHUNK_LAYOUT 306

/**
 * Data after the end of the stream (CHUNK-7, MSG-5, FILE-1).
 */
#define MIDSPAN_ERROR_DATA_AFTER_END 307

/**
 * A typed message of fewer than two bytes (MSG-3).
 */
#define MIDSPAN_ERROR_MESSAGE_TOO_SHORT 308

/**
 * A batch has more frames than the limit (BATCH-1).
 */
#define MIDSPAN_ERROR_TOO_MANY_FRAMES 309

/**
 * A batch of one frame (BATCH-1).
 */
#define MIDSPAN_ERROR_BATCH_OF_ONE 310

/**
 * A batch has too many lanes (BATCH-2).
 */
#define MIDSPAN_ERROR_LANE_COUNT 311

/**
 * The lane table gives impossible lengths (LANE-1).
 */
#define MIDSPAN_ERROR_LANE_TABLE 312

/**
 * The padding of the lane table is not zero (LANE-2).
 */
#define MIDSPAN_ERROR_LANE_PADDING 313

/**
 * An exact frame has an unknown dtype (CTRL-6).
 */
#define MIDSPAN_ERROR_EXACT_DTYPE 314

/**
 * An unknown critical extension (CTRL-7).
 */
#define MIDSPAN_ERROR_UNKNOWN_CRITICAL_EXTENSION 315

/**
 * The footer of the file is wrong (FILE-1).
 */
#define MIDSPAN_ERROR_BAD_FOOTER 316

/**
 * The entries of the seek index are not in order (FILE-2).
 */
#define MIDSPAN_ERROR_SEEK_INDEX_ORDER 317

/**
 * More checkpoints wait for targets than there may be (DEC-18).
 */
#define MIDSPAN_ERROR_TOO_MANY_CHECKPOINTS 318

/**
 * Side indices come while earlier ones are left (CTRL-10).
 */
#define MIDSPAN_ERROR_SIDE_INDICES_LEFT 319

/**
 * The input ends before the stream does (CHUNK-6).
 */
#define MIDSPAN_ERROR_TRUNCATED 401

/**
 * The check of a frame chunk differs (CHECK-1).
 */
#define MIDSPAN_ERROR_FRAME_CHECK_MISMATCH 402

/**
 * The crc of a control chunk differs (CTRL-1).
 */
#define MIDSPAN_ERROR_CONTROL_CRC_MISMATCH 403

/**
 * A control chunk states a frame index that is not the next frame's (CTRL-2, CTRL-3).
 */
#define MIDSPAN_ERROR_INDEX_MISMATCH 404

/**
 * The end chunk counts another number of frames (CTRL-2).
 */
#define MIDSPAN_ERROR_FRAME_TOTAL_MISMATCH 405

/**
 * A context reset names the wrong epoch (CTRL-3).
 */
#define MIDSPAN_ERROR_EPOCH_MISMATCH 406

/**
 * A rewind goes before the context or not back at all (CTRL-4).
 */
#define MIDSPAN_ERROR_REWIND_TARGET 407

/**
 * A rewind goes back further than the limit (CTRL-4).
 */
#define MIDSPAN_ERROR_REWIND_TOO_FAR 408

/**
 * The W digest differs (DEC-8).
 */
#define MIDSPAN_ERROR_DIGEST_MISMATCH_W 409

/**
 * The Y digest differs (DEC-8).
 */
#define MIDSPAN_ERROR_DIGEST_MISMATCH_Y 410

/**
 * The stream was made with another model (MODEL-11, DEC-7).
 */
#define MIDSPAN_ERROR_WRONG_MODEL 501

/**
 * A context reset names another model (CTRL-3).
 */
#define MIDSPAN_ERROR_WRONG_MODEL_AT_RESET 502

/**
 * The hidden state of an exact frame has the wrong length (CTRL-6).
 */
#define MIDSPAN_ERROR_EXACT_FRAME_LENGTH 503

/**
 * The model does not have this quality (DEC-6).
 */
#define MIDSPAN_ERROR_UNKNOWN_QUALITY 504

/**
 * The stream does not say that it was made for this host model (HOST-1).
 */
#define MIDSPAN_ERROR_WRONG_HOST 505

/**
 * The model takes side indices and the stream has none, or the other way round (SIDE-1).
 */
#define MIDSPAN_ERROR_WRONG_SIDE_FLAG 506

/**
 * The model predicts from decoded frames, which layered mode may lose (PRED-3).
 */
#define MIDSPAN_ERROR_PREDICTION_LAYERED 507

/**
 * A payload is corrupt (ENT-1).
 */
#define MIDSPAN_ERROR_CORRUPT_PAYLOAD 601

/**
 * A payload is not sealed canonically (SEAL-2).
 */
#define MIDSPAN_ERROR_SEAL_NOT_CANONICAL 602

/**
 * A value is out of its declared range (ENT-2).
 */
#define MIDSPAN_ERROR_VALUE_OUT_OF_RANGE 603

/**
 * A payload is longer than its frames can need (MODE-4).
 */
#define MIDSPAN_ERROR_PAYLOAD_TOO_LONG 604

/**
 * The model file is malformed (MODEL-1).
 */
#define MIDSPAN_ERROR_MODEL_FILE_SYNTAX 701

/**
 * The model file lacks a tensor (MODEL-2, MODEL-14).
 */
#define MIDSPAN_ERROR_MODEL_TENSOR_MISSING 702

/**
 * A tensor of the model file has the wrong dtype or shape (MODEL-2, MODEL-6, MODEL-13, MODEL-14).
 */
#define MIDSPAN_ERROR_MODEL_TENSOR_SHAPE 703

/**
 * The model file has an unknown tensor (MODEL-2).
 */
#define MIDSPAN_ERROR_MODEL_TENSOR_UNKNOWN 704

/**
 * The configuration of the model file is out of range (MODEL-3, MODEL-5, MODEL-7).
 */
#define MIDSPAN_ERROR_MODEL_CONFIG 705

/**
 * A row of weights exceeds its bound (MODEL-4, MODEL-14).
 */
#define MIDSPAN_ERROR_MODEL_ROW_BOUND 706

/**
 * A table of the model file is malformed (MODEL-6, MODEL-8, MODEL-9).
 */
#define MIDSPAN_ERROR_MODEL_TABLE 707

/**
 * A value in the model file is out of range (MODEL-5, MODEL-10, MODEL-14).
 */
#define MIDSPAN_ERROR_MODEL_VALUE 708

/**
 * A hidden state is NaN or infinite (spec 6.8).
 */
#define MIDSPAN_ERROR_HIDDEN_NOT_FINITE 801

/**
 * An argument has the wrong shape.
 */
#define MIDSPAN_ERROR_WRONG_SHAPE 802

/**
 * A call after the end.
 */
#define MIDSPAN_ERROR_AFTER_END 803

/**
 * Not available here.
 */
#define MIDSPAN_ERROR_NOT_AVAILABLE 804

/**
 * A bad configuration.
 */
#define MIDSPAN_ERROR_BAD_CONFIG 805

/**
 * Too many frames wait for their target (DEC-14).
 */
#define MIDSPAN_ERROR_TARGET_OVERDUE 806

/**
 * The frame does not wait for a target (DEC-13).
 */
#define MIDSPAN_ERROR_FRAME_NOT_PENDING 807

/**
 * A saved session is damaged or of another version of the library.
 */
#define MIDSPAN_ERROR_SAVED_SESSION 808

/**
 * Hidden states lie out of the range of the quality (spec 6.8).
 */
#define MIDSPAN_ERROR_HIDDEN_CLIPPED 809

/**
 * The floating-point unit of this thread is not in its default mode (spec 6.8).
 */
#define MIDSPAN_ERROR_FLOAT_MODE 810

/**
 * The engine gave something other than what it was asked for.
 */
#define MIDSPAN_ERROR_ENGINE_FAULT 811

/**
 * Side indices are wrong, missing or not wanted (SIDE-4).
 */
#define MIDSPAN_ERROR_WRONG_SIDE_INDICES 812

/**
 * The memory limit does not allow it (MODEL-1).
 */
#define MIDSPAN_ERROR_MEMORY_LIMIT 901

/**
 * There was no error.
 */
#define MIDSPAN_FAULT_NONE 0

/**
 * The stream's bytes.
 */
#define MIDSPAN_FAULT_STREAM 1

/**
 * The model file, or its pairing with this stream.
 */
#define MIDSPAN_FAULT_MODEL 2

/**
 * The caller of this library.
 */
#define MIDSPAN_FAULT_CALLER 3

/**
 * A limit that the caller set and can raise: the message names the setting.
 */
#define MIDSPAN_FAULT_RESOURCE 4

/**
 * This library: a panic.
 */
#define MIDSPAN_FAULT_LIBRARY 5

/**
 * The error is not about a limit.
 */
#define MIDSPAN_LIMIT_NONE 0

/**
 * The stream header declares it, and the stream broke its own declaration.
 */
#define MIDSPAN_LIMIT_DECLARED 1

/**
 * This end set it. A larger value lets the input pass.
 */
#define MIDSPAN_LIMIT_OWN 2

/**
 * The format fixes it.
 */
#define MIDSPAN_LIMIT_FORMAT 3

/**
 * There is no message.
 */
#define MIDSPAN_MESSAGE_NONE 0

/**
 * The stream header: before all others, and without loss.
 */
#define MIDSPAN_MESSAGE_HEADER 1

/**
 * Any chunk but a target: without loss, and in order.
 */
#define MIDSPAN_MESSAGE_RELIABLE 2

/**
 * A target: it may be lost, repeated, late, early or out of order, so a datagram is good enough. The receiver takes it
 * with `midspan_decoder_push_datagram`.
 */
#define MIDSPAN_MESSAGE_DROPPABLE 3

/**
 * The hyper-prior W and the target Y of a frame are sent together.
 */
#define MIDSPAN_MODE_JOINED 0

/**
 * W and Y are sent in separate chunks; those of Y may be lost.
 */
#define MIDSPAN_MODE_LAYERED 1

/**
 * The stream itself: bytes that may be cut anywhere.
 */
#define MIDSPAN_BINDING_BYTE_STREAM 0

/**
 * The transport, which delivers each message whole.
 */
#define MIDSPAN_BINDING_MESSAGE 1

/**
 * A byte stream with a seek index after its end (spec 2.10). Readers and decoders take it as a byte stream.
 */
#define MIDSPAN_BINDING_FILE 2

/**
 * None: damage shows only at the next checkpoint, after wrong frames were handed out. Only for transports that detect
 * damage themselves (TLS, QUIC).
 */
#define MIDSPAN_CHECK_NONE 0

/**
 * Eight bits a chunk.
 */
#define MIDSPAN_CHECK_ONE 1

/**
 * Sixteen bits a chunk.
 */
#define MIDSPAN_CHECK_TWO 2

/**
 * It clamps and counts them.
 */
#define MIDSPAN_CLIPPING_REPORT 0

/**
 * It refuses the push (MIDSPAN_ERROR_HIDDEN_CLIPPED); nothing changes.
 */
#define MIDSPAN_CLIPPING_REFUSE 1

/**
 * From its own caller (`midspan_decoder_give_side`): they take no bytes.
 */
#define MIDSPAN_SIDE_KNOWN 0

/**
 * From the stream, ahead of their frames.
 */
#define MIDSPAN_SIDE_SENT 1

/**
 * IEEE 754 binary32, four bytes.
 */
#define MIDSPAN_DTYPE_F32 0

/**
 * IEEE 754 binary16, two bytes.
 */
#define MIDSPAN_DTYPE_F16 1

/**
 * bfloat16, two bytes.
 */
#define MIDSPAN_DTYPE_BF16 2

/**
 * Nothing happened: more input is needed, or `midspan_decoder_finish`; or side indices, if
 * `midspan_decoder_wanted_side` says so. Not an error.
 */
#define MIDSPAN_EVENT_NEED_MORE 0

/**
 * The stream ended properly. Not an error.
 */
#define MIDSPAN_EVENT_END 1

/**
 * The stream header was read, and its model is the decoder's: `header`.
 */
#define MIDSPAN_EVENT_OPENED 2

/**
 * Frames, in joined mode: `index`, `count`, `hidden` and, if integers are kept, `w` and `y`.
 */
#define MIDSPAN_EVENT_FRAMES 3

/**
 * Hyper-priors of frames, in layered mode, whose targets are pending from now on: `index`, `count`, `w`.
 */
#define MIDSPAN_EVENT_HYPER_PRIOR 4

/**
 * Targets of whole frames, or concealed frames, in layered mode: `index`, `count`, `hidden`, `y`, `concealed`.
 */
#define MIDSPAN_EVENT_TARGETS 5

/**
 * A part of a frame's target; others are still to come: `index`, `first_element`, `end_element`.
 */
#define MIDSPAN_EVENT_TARGET_PART 6

/**
 * A target came before its hyper-prior and is kept: `index`, `count`.
 */
#define MIDSPAN_EVENT_TARGET_EARLY 7

/**
 * A target changed nothing: `refusal` says why; `index`, if `has_index` is 1.
 */
#define MIDSPAN_EVENT_TARGET_REFUSED 8

/**
 * A chunk waits because too many frames are pending: `index`, `count`. Conceal these frames, or give their targets as
 * datagrams, then poll again.
 */
#define MIDSPAN_EVENT_TARGETS_OVERDUE 9

/**
 * A frame with its exact hidden state: as MIDSPAN_EVENT_FRAMES, and `dtype` and `data`, its values as they were
 * pushed.
 */
#define MIDSPAN_EVENT_EXACT_FRAME 10

/**
 * A chunk has more frames than one call decodes: `index` and `count` are the chunk's, `done` of its frames are
 * decoded. Poll again; no input is needed.
 */
#define MIDSPAN_EVENT_WORKING 11

/**
 * What a digest says about frames: `index` to `end_index`, and `verdict`.
 */
#define MIDSPAN_EVENT_VERDICT 12

/**
 * A context reset or model switch dropped the targets of these frames, which had not come: `index`, `count`.
 */
#define MIDSPAN_EVENT_TARGETS_DROPPED 13

/**
 * The context begins anew: `index` of the next frame.
 */
#define MIDSPAN_EVENT_RESET 14

/**
 * The timeline goes back: frames from `index` on are gone.
 */
#define MIDSPAN_EVENT_REWOUND 15

/**
 * Another quality applies from the next frame on: `quality`.
 */
#define MIDSPAN_EVENT_QUALITY 16

/**
 * Another model applies from the next frame on: `fingerprint`, and `index` of the next frame.
 */
#define MIDSPAN_EVENT_MODEL 17

/**
 * A chunk waits for the side indices of these frames, which the stream does not hold: `index`, `count`. Give them with
 * `midspan_decoder_give_side`, then poll again.
 */
#define MIDSPAN_EVENT_SIDE_WANTED 18

/**
 * Side indices of frames to come, which the stream holds: `index`, `count`, `side`.
 */
#define MIDSPAN_EVENT_SIDE_INDICES 19

/**
 * An ignorable extension: `extension_id`, `data`.
 */
#define MIDSPAN_EVENT_EXTENSION 20

/**
 * The end chunk: `index` after the last frame, `frames_coded`, rewound ones included.
 */
#define MIDSPAN_EVENT_ENDED 21

/**
 * An event that this interface has no name for. Skip it.
 */
#define MIDSPAN_EVENT_OTHER 255

/**
 * The event is no verdict.
 */
#define MIDSPAN_VERDICT_NONE 0

/**
 * W of every frame equals the encoder's; targets are pending, and another verdict on the range follows.
 */
#define MIDSPAN_VERDICT_W_CONFIRMED 1

/**
 * W and Y of every frame equal the encoder's.
 */
#define MIDSPAN_VERDICT_Y_CONFIRMED 2

/**
 * W of every frame equals the encoder's. Y can never be verified, because a target was lost.
 */
#define MIDSPAN_VERDICT_Y_UNVERIFIABLE 3

/**
 * The event is no refusal.
 */
#define MIDSPAN_REFUSAL_NONE 0

/**
 * Its frames are not pending: they came before, were concealed, or were rewound.
 */
#define MIDSPAN_REFUSAL_LATE 1

/**
 * It is damaged, or no target.
 */
#define MIDSPAN_REFUSAL_DAMAGED 2

/**
 * Decoding it would exceed the memory limit. Its frames still wait.
 */
#define MIDSPAN_REFUSAL_MEMORY_LIMIT 3

/**
 * It is early, and there is no room to keep it.
 */
#define MIDSPAN_REFUSAL_NO_ROOM 4

/**
 * Another reason.
 */
#define MIDSPAN_REFUSAL_OTHER 255

/**
 * No chunk: more input is needed, or `midspan_reader_finish`. Not an error.
 */
#define MIDSPAN_CHUNK_NEED_MORE 0

/**
 * No chunk: the stream is complete. Not an error.
 */
#define MIDSPAN_CHUNK_NO_MORE 1

/**
 * The stream header: `header`.
 */
#define MIDSPAN_CHUNK_HEADER 2

/**
 * One frame, joined or its hyper-prior: `index`, `epoch`, `frames` (1), `payloads` (one).
 */
#define MIDSPAN_CHUNK_FRAME 3

/**
 * A batch: `index`, `epoch`, `frames`, `payloads` (one a lane).
 */
#define MIDSPAN_CHUNK_BATCH 4

/**
 * A target of layered mode, or a part of one: `target`, `frames` and `payloads` (none if it cannot be read), `index`
 * and `epoch` unless it is damaged or had no room, `is_part` with `first_element` and `end_element`.
 */
#define MIDSPAN_CHUNK_TARGET 5

/**
 * A checkpoint: `index`, `digest_w`, `digest_y`.
 */
#define MIDSPAN_CHUNK_CHECKPOINT 6

/**
 * A context reset: `index`, `epoch`, `quality`, `length_offset`, the first 8 bytes of `fingerprint`, both digests.
 */
#define MIDSPAN_CHUNK_RESET 7

/**
 * A rewind: `index` of the next frame.
 */
#define MIDSPAN_CHUNK_REWIND 8

/**
 * A quality switch: `quality`, `length_offset`.
 */
#define MIDSPAN_CHUNK_QUALITY 9

/**
 * A model switch: as a context reset, with the whole `fingerprint` and `model_version`.
 */
#define MIDSPAN_CHUNK_MODEL_SWITCH 10

/**
 * A frame with its exact hidden state: as a frame, and `dtype`, `data`.
 */
#define MIDSPAN_CHUNK_EXACT_FRAME 11

/**
 * Side indices of the next frames: `index`, `frames`, `payloads` (one).
 */
#define MIDSPAN_CHUNK_SIDE_INDICES 12

/**
 * An ignorable extension: `extension_id`, `data`.
 */
#define MIDSPAN_CHUNK_EXTENSION 13

/**
 * The end: `index` after the last frame, `frames_coded`, both digests.
 */
#define MIDSPAN_CHUNK_END 14

/**
 * The seek index of a file: `seek_entries`.
 */
#define MIDSPAN_CHUNK_SEEK_INDEX 15

/**
 * The footer of a file.
 */
#define MIDSPAN_CHUNK_FOOTER 16

/**
 * A chunk that this interface has no name for. Skip it.
 */
#define MIDSPAN_CHUNK_OTHER 255

/**
 * The chunk is no target.
 */
#define MIDSPAN_TARGET_NONE 0

/**
 * Its frames had their hyper-priors in this epoch.
 */
#define MIDSPAN_TARGET_USABLE 1

/**
 * Its frames, or their epoch, have not come yet.
 */
#define MIDSPAN_TARGET_EARLY 2

/**
 * Its frames were rewound, dropped by a new context, or have no target.
 */
#define MIDSPAN_TARGET_LATE 3

/**
 * Its check does not hold, or it cannot be read.
 */
#define MIDSPAN_TARGET_DAMAGED 4

/**
 * A datagram for which the reader had no room.
 */
#define MIDSPAN_TARGET_NO_ROOM 5

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * The version of the library as one number. A program that compares it with MIDSPAN_VERSION_NUMBER learns whether it
 * was compiled with the header of another version.
 */
uint32_t midspan_version_number(void);

/**
 * The version of the library, NUL-terminated, static: "0.1.0".
 */
const char *midspan_version(void);

/**
 * What a result's number means: one sentence in lower case without a full stop, NUL-terminated, static. A number
 * without a meaning has a sentence that says so. `midspan_last_error_message` says more about an error that happened.
 */
const char *midspan_result_text(midspan_result result);

/**
 * The message of the last call that failed in this thread: one sentence, NUL-terminated, UTF-8, at most 511 bytes. It
 * is empty if none has failed. A call that succeeds leaves it; the next that fails overwrites it, and it ends with its
 * thread. Never NULL.
 */
const char *midspan_last_error_message(void);

/**
 * Writes the facts of the last call that failed in this thread to `error`. `code` is 0 if none has failed.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER.
 */
midspan_result midspan_last_error(struct midspan_error *error);

/**
 * Frees bytes that the library made, and sets the struct to no bytes, so that a second call with it does nothing. NULL
 * is ignored, and so are bytes without an owner.
 */
void midspan_bytes_free(struct midspan_bytes *bytes);

/**
 * Sets a header to its defaults, for `midspan_writer_new`: joined mode, a byte stream, 8-bit checks, quality 0, at
 * most 256 frames and 4 MiB a chunk, no rewind, a target horizon of 1,024 frames, no identity, no optional fields.
 * `fingerprint` is that of the model, 32 bytes, which are copied.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER.
 */
midspan_result midspan_header_init(struct midspan_header *header,
                                   const uint8_t *fingerprint);

/**
 * Reads a model file (spec chapter 4) from memory and prepares it for this CPU. `file` holds `len` bytes, which are
 * not needed afterwards. `memory_limit`, in bytes, bounds the file and the memory for parsing it; 1 << 30 suits files
 * that are trusted. `*model` gets the handle, which `midspan_model_free` frees, or NULL.
 *
 * Errors: 701 to 708 for a file that is no valid model, MIDSPAN_ERROR_MEMORY_LIMIT,
 * MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_INVALID_ARGUMENT.
 */
midspan_result midspan_model_load(const uint8_t *file,
                                  size_t len,
                                  size_t memory_limit,
                                  struct midspan_model **model);

/**
 * Frees a model. Sessions that were made of it go on. NULL is ignored.
 */
void midspan_model_free(struct midspan_model *model);

/**
 * Writes what a model says about itself to `*info`.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER.
 */
midspan_result midspan_model_get_info(const struct midspan_model *model,
                                      struct midspan_model_info *info);

/**
 * Writes what a model says about one of its qualities to `*info`.
 *
 * Errors: MIDSPAN_ERROR_UNKNOWN_QUALITY, MIDSPAN_ERROR_NULL_POINTER.
 */
midspan_result midspan_model_get_quality(const struct midspan_model *model,
                                         uint8_t quality,
                                         struct midspan_quality_info *info);

/**
 * Sets an encoder's settings to their defaults. `identity` is eight random bytes, which are copied, or NULL for none.
 * Without an identity, bytes spliced in from another stream of the same model may go unnoticed: leave it out only if
 * the transport keeps streams apart.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER for `config`.
 */
midspan_result midspan_encoder_config_init(struct midspan_encoder_config *config,
                                           const uint8_t *identity);

/**
 * Opens a stream; its header is the first output. `*encoder` gets the handle, which `midspan_encoder_free` frees, or
 * NULL.
 *
 * Errors: MIDSPAN_ERROR_UNKNOWN_QUALITY; MIDSPAN_ERROR_BAD_CONFIG for a setting out of its range, with its name;
 * MIDSPAN_ERROR_PREDICTION_LAYERED for layered mode with a model that predicts; MIDSPAN_ERROR_MEMORY_LIMIT if the
 * contexts may come to more than `memory_limit`; MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER.
 */
midspan_result midspan_encoder_new(const struct midspan_model *model,
                                   const struct midspan_encoder_config *config,
                                   struct midspan_encoder **encoder);

/**
 * Frees an encoder, with output not yet taken. NULL is ignored.
 */
void midspan_encoder_free(struct midspan_encoder *encoder);

/**
 * Forks a stream: `*fork` gets a second encoder that goes on from the same place, with the same output not yet taken
 * and the same threads. `midspan_encoder_free` frees it.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_encoder_fork(const struct midspan_encoder *encoder,
                                    struct midspan_encoder **fork);

/**
 * Saves an encoder as bytes for `midspan_encoder_restore`, also in another process. `*bytes` gets them, and
 * `midspan_bytes_free` frees them. Their form belongs to this version of the library; it is not a wire format.
 *
 * The bytes include output not yet taken, and side indices that no push has used. They do not include the number of
 * threads, the choice of `midspan_encoder_keep_integers` or the integers of the last push: a restored encoder has one
 * thread, keeps integers, and has none yet.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_encoder_save(const struct midspan_encoder *encoder,
                                    struct midspan_bytes *bytes);

/**
 * Restores the encoder that `midspan_encoder_save` wrote. `model` is the one that was in force; `memory_limit` is the
 * limit of the settings from then on, in bytes. `*encoder` gets the handle, or NULL.
 *
 * Errors: MIDSPAN_ERROR_WRONG_MODEL, with the fingerprint of the needed model in `found_digest` of
 * `midspan_last_error`; MIDSPAN_ERROR_SAVED_SESSION for bytes that are damaged or of another version;
 * MIDSPAN_ERROR_MEMORY_LIMIT; MIDSPAN_ERROR_NULL_POINTER.
 */
midspan_result midspan_encoder_restore(const struct midspan_model *model,
                                       const uint8_t *saved,
                                       size_t len,
                                       size_t memory_limit,
                                       struct midspan_encoder **encoder);

/**
 * Lets batches use up to `threads` threads, the caller's included; 1 by default, and 0 means 1. The bytes stay the
 * same. Each push starts its threads and ends them before it returns, which takes some tens of microseconds.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_encoder_set_threads(struct midspan_encoder *encoder,
                                           size_t threads);

/**
 * Writes what the model in force says about itself to `*info`.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_encoder_get_model(const struct midspan_encoder *encoder,
                                         struct midspan_model_info *info);

/**
 * Gives the side indices of the frames of the next push, one for each (spec 6.12). If the model takes side indices,
 * every push needs such a call before it; V, the model's vocabulary, says that a frame has none. `indices` holds
 * `count` of them, which are copied; `delivery` says where the decoder has them from.
 *
 * A second call replaces what the first one gave. The indices stay until a push uses them, also through a push that is
 * refused, a rewind or a reset. A model switch drops them.
 *
 * Errors: MIDSPAN_ERROR_WRONG_SIDE_INDICES for an index above V, or if the model takes none;
 * MIDSPAN_ERROR_MEMORY_LIMIT; MIDSPAN_ERROR_AFTER_END; MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER,
 * MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_encoder_set_side(struct midspan_encoder *encoder,
                                        const uint32_t *indices,
                                        size_t count,
                                        midspan_side_delivery delivery);

/**
 * Codes hidden states: `frames` rows of `width` values each, one after the other, in the machine's byte order. `width`
 * must be E, the model's hidden width. One frame gives a one-frame chunk, more give batch chunks.
 *
 * Values outside the range of the quality are clamped and counted, or refused if the settings say so. The thread's
 * floating-point unit must be in its default mode, which rounds to the nearest and keeps subnormal numbers.
 *
 * Errors: MIDSPAN_ERROR_WRONG_SHAPE for another width or no frame; MIDSPAN_ERROR_HIDDEN_NOT_FINITE with frame and
 * element of the first value that is NaN or infinite; MIDSPAN_ERROR_HIDDEN_CLIPPED; MIDSPAN_ERROR_FLOAT_MODE;
 * MIDSPAN_ERROR_NOT_AVAILABLE without an encoder's part in the model; MIDSPAN_ERROR_WRONG_SIDE_INDICES;
 * MIDSPAN_ERROR_AFTER_END; MIDSPAN_ERROR_MEMORY_LIMIT: take the output, and push again;
 * MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_encoder_push_hidden(struct midspan_encoder *encoder,
                                           const float *hidden,
                                           size_t frames,
                                           size_t width);

/**
 * Codes target integers Y: `frames` rows of `width` values each; `width` must be E. The model's network h makes W.
 *
 * Errors: as `midspan_encoder_push_hidden`, and MIDSPAN_ERROR_VALUE_OUT_OF_RANGE with the place of a value outside the
 * range that the model declares.
 */
midspan_result midspan_encoder_push_y(struct midspan_encoder *encoder,
                                      const int16_t *y,
                                      size_t frames,
                                      size_t width);

/**
 * Codes target integers Y, `frames` rows of `y_width` values, with hyper-prior integers W of the caller's choice,
 * `frames` rows of `w_width` values. The widths must be E and C. The model needs no encoder's part.
 *
 * Errors: as `midspan_encoder_push_y`.
 */
midspan_result midspan_encoder_push_integers(struct midspan_encoder *encoder,
                                             const int16_t *y,
                                             size_t y_width,
                                             const int16_t *w,
                                             size_t w_width,
                                             size_t frames);

/**
 * Codes one frame as usual and adds its hidden state without loss (spec 6.9). `hidden` holds E little-endian values of
 * type `dtype`, in `len` bytes; they need no alignment. Values outside the range of the quality are counted and
 * never refused.
 *
 * Errors: as `midspan_encoder_push_hidden`; MIDSPAN_ERROR_WRONG_SHAPE unless it is one frame of that type;
 * MIDSPAN_ERROR_CHUNK_TOO_LONG if it does not fit `max_chunk_bytes`.
 */
midspan_result midspan_encoder_push_exact(struct midspan_encoder *encoder,
                                          midspan_dtype dtype,
                                          const uint8_t *hidden,
                                          size_t len);

/**
 * Writes the integers nearest to hidden states to `y`, without coding them (spec 6.8). `hidden` holds `frames` rows of
 * `width` values; `width` must be E. `y` has room for `capacity` values; frames · width are needed.
 *
 * Errors: as `midspan_encoder_push_hidden`, and MIDSPAN_ERROR_SMALL_BUFFER.
 */
midspan_result midspan_encoder_quantise(const struct midspan_encoder *encoder,
                                        const float *hidden,
                                        size_t frames,
                                        size_t width,
                                        int16_t *y,
                                        size_t capacity);

/**
 * Sends a checkpoint: absolute index and both digests.
 *
 * Errors: MIDSPAN_ERROR_AFTER_END, MIDSPAN_ERROR_MEMORY_LIMIT, MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY,
 * MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_encoder_checkpoint(struct midspan_encoder *encoder);

/**
 * Begins a new context; a decoder may join there.
 *
 * Errors: as `midspan_encoder_checkpoint`.
 */
midspan_result midspan_encoder_reset(struct midspan_encoder *encoder);

/**
 * Moves the timeline back, so that the frame with the absolute index `index` is the next one again.
 *
 * Errors: MIDSPAN_ERROR_REWIND_TARGET for an index before the context or not back at all;
 * MIDSPAN_ERROR_REWIND_TOO_FAR; and as `midspan_encoder_checkpoint`.
 */
midspan_result midspan_encoder_rewind(struct midspan_encoder *encoder, uint64_t index);

/**
 * Switches to another quality from the next frame on, in the same context.
 *
 * Errors: MIDSPAN_ERROR_UNKNOWN_QUALITY, and as `midspan_encoder_checkpoint`.
 */
midspan_result midspan_encoder_set_quality(struct midspan_encoder *encoder, uint8_t quality);

/**
 * Switches to another model, in this quality, from the next frame on, in a new context. The decoder must have the
 * model. Side indices that `midspan_encoder_set_side` gave and no push has used are dropped.
 *
 * Errors: MIDSPAN_ERROR_UNKNOWN_QUALITY; MIDSPAN_ERROR_WRONG_SIDE_FLAG if one model takes side indices and the other
 * does not; MIDSPAN_ERROR_PREDICTION_LAYERED; MIDSPAN_ERROR_BAD_CONFIG; and as `midspan_encoder_checkpoint`.
 */
midspan_result midspan_encoder_switch_model(struct midspan_encoder *encoder,
                                            const struct midspan_model *model,
                                            uint8_t quality);

/**
 * Sends an ignorable extension (spec 2.8) of this id, with `len` bytes of data.
 *
 * Errors: MIDSPAN_ERROR_CHUNK_TOO_LONG, and as `midspan_encoder_checkpoint`.
 */
midspan_result midspan_encoder_extension(struct midspan_encoder *encoder,
                                         uint32_t id,
                                         const uint8_t *data,
                                         size_t len);

/**
 * Ends the stream. Take the output afterwards. No memory limit refuses this call.
 *
 * Errors: MIDSPAN_ERROR_AFTER_END if it has ended; MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY,
 * MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_encoder_end(struct midspan_encoder *encoder);

/**
 * Takes the bytes written so far, in a byte stream or file, without a copy. `*bytes` gets them, and
 * `midspan_bytes_free` frees them. There may be none. What `*bytes` held before is not freed.
 *
 * Errors: MIDSPAN_ERROR_NOT_AVAILABLE in the message binding; MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY,
 * MIDSPAN_ERROR_PANIC. `*bytes` is not changed then.
 */
midspan_result midspan_encoder_take_bytes(struct midspan_encoder *encoder,
                                          struct midspan_bytes *bytes);

/**
 * Takes the bytes written so far, in a byte stream or file, and copies them to `buffer`, which has room for `capacity`
 * bytes. `*len` gets their number. If they do not fit, the result is MIDSPAN_ERROR_SMALL_BUFFER, `*len` gets the
 * needed number, and the bytes stay in the encoder. A capacity of 0 asks for the number alone.
 *
 * Errors: MIDSPAN_ERROR_SMALL_BUFFER, and as `midspan_encoder_take_bytes`.
 */
midspan_result midspan_encoder_take_bytes_into(struct midspan_encoder *encoder,
                                               uint8_t *buffer,
                                               size_t capacity,
                                               size_t *len);

/**
 * Takes the next message, in the message binding, without a copy. `*message` gets it, and `midspan_bytes_free` frees
 * its bytes. If all messages were taken, `message_class` is MIDSPAN_MESSAGE_NONE. What `*message` held before is not
 * freed.
 *
 * Errors: MIDSPAN_ERROR_NOT_AVAILABLE in a byte stream or file; MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY,
 * MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_encoder_pop_message(struct midspan_encoder *encoder,
                                           struct midspan_message *message);

/**
 * Takes the next message, in the message binding, and copies it to `buffer`, which has room for `capacity` bytes.
 * `message->bytes` is then the buffer, and needs no freeing. If the message does not fit, the result is
 * MIDSPAN_ERROR_SMALL_BUFFER, `*message` describes the message with the needed number in `bytes.len` and no data, and
 * the message stays the next one.
 *
 * Errors: MIDSPAN_ERROR_SMALL_BUFFER, and as `midspan_encoder_pop_message`.
 */
midspan_result midspan_encoder_pop_message_into(struct midspan_encoder *encoder,
                                                uint8_t *buffer,
                                                size_t capacity,
                                                struct midspan_message *message);

/**
 * Writes the absolute index of the next frame to `*index`.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_encoder_next_index(const struct midspan_encoder *encoder, uint64_t *index);

/**
 * Sets whether pushes keep the integers that they send, for `midspan_encoder_last_integers`: 0 for no, any other value
 * for yes, which is the default.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_encoder_keep_integers(struct midspan_encoder *encoder,
                                             uint32_t keep);

/**
 * Gives the integers of the last push, row by row. `*w` and `*y` get pointers to W, [T, C], and to Y, [T, E]; `*w_len`
 * and `*y_len` get their numbers of values. If no integers were kept, the pointers are NULL and the numbers 0. What
 * the pointers lead to belongs to the encoder and is valid until its next push, or its `_free`.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_encoder_last_integers(const struct midspan_encoder *encoder,
                                             const int16_t **w,
                                             size_t *w_len,
                                             const int16_t **y,
                                             size_t *y_len);

/**
 * Writes to `*clipped` how many values of the last push were outside the range of the quality and were clamped.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_encoder_last_clipped(const struct midspan_encoder *encoder,
                                            uint64_t *clipped);

/**
 * Writes the sums over all frames since the session began to `*sent`. Forks and restored sessions keep counting.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_encoder_sent(const struct midspan_encoder *encoder,
                                    struct midspan_sent *sent);

/**
 * Judges whether the model in force was made for what the session sends. `*unlike` gets 1 if it was not, else 0.
 *
 * It gets 1 if the last few hundred frames took more than 8/5 of the bits that the model expects, if the tables lack
 * more than 1 % of the values, or if more than 0.1 % of the values were clamped. With fewer than 128 frames it gets 0.
 * If `recent` is not NULL, `*recent` gets the sums on which this is judged.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_encoder_unlike(const struct midspan_encoder *encoder,
                                      uint32_t *unlike,
                                      struct midspan_sent *recent);

/**
 * Writes the bytes that the session holds to `*bytes`, without its model.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_encoder_memory_bytes(const struct midspan_encoder *encoder, size_t *bytes);

/**
 * The name of an event, NUL-terminated, static: "frames", "need_more". It is "concealed" for MIDSPAN_EVENT_TARGETS
 * with `concealed`, and "other" for NULL and for a kind that has no name. The call reads `kind` and `concealed` alone.
 */
const char *midspan_event_name(const struct midspan_event *event);

/**
 * Sets a decoder's settings to their defaults, which are those for a peer that nobody trusts.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER.
 */
midspan_result midspan_decoder_config_init(struct midspan_decoder_config *config);

/**
 * Makes a decoder for streams of this model. `*decoder` gets the handle, which `midspan_decoder_free` frees, or NULL.
 *
 * Errors: MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER.
 */
midspan_result midspan_decoder_new(const struct midspan_model *model,
                                   const struct midspan_decoder_config *config,
                                   struct midspan_decoder **decoder);

/**
 * Makes a decoder that begins at a context reset or model switch in the middle of a stream (spec 6.6).
 *
 * `header` holds the stream's first `header_len` bytes, which must include its header; in the message binding it is
 * the first message. `offset` is the place of the first byte that will be pushed, from the first byte of the stream.
 * `index` points to the absolute index of the next frame there, which a seek index gives (`midspan_file_seek`), or is
 * NULL. The model in force there must be `model` or one that `midspan_decoder_add_model` adds.
 *
 * Errors: those of a header (101 to 210, MIDSPAN_ERROR_TRUNCATED for one that is cut), MIDSPAN_ERROR_WRONG_HOST;
 * MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER.
 */
midspan_result midspan_decoder_join(const struct midspan_model *model,
                                    const struct midspan_decoder_config *config,
                                    const uint8_t *header,
                                    size_t header_len,
                                    uint64_t offset,
                                    const uint64_t *index,
                                    struct midspan_decoder **decoder);

/**
 * Frees a decoder. What its events point to ends too. NULL is ignored.
 */
void midspan_decoder_free(struct midspan_decoder *decoder);

/**
 * Forks a session: `*fork` gets a second decoder that goes on from the same place. `midspan_decoder_free` frees it.
 * What the last event points to stays with `decoder`.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_decoder_fork(const struct midspan_decoder *decoder,
                                    struct midspan_decoder **fork);

/**
 * Saves a decoder as bytes for `midspan_decoder_restore`, also in another process. `*bytes` gets them, and
 * `midspan_bytes_free` frees them. Their form belongs to this version of the library; it is not a wire format.
 *
 * The bytes include input not yet polled. They do not include the number of threads, the choice of
 * `midspan_decoder_keep_integers` or the models that `midspan_decoder_add_model` added: a restored decoder has one
 * thread, keeps integers, and has the models that `midspan_decoder_restore` gets.
 *
 * Errors: MIDSPAN_ERROR_NOT_AVAILABLE while there are events to be polled; the session's own error, if it failed;
 * MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_decoder_save(const struct midspan_decoder *decoder,
                                    struct midspan_bytes *bytes);

/**
 * Restores the decoder that `midspan_decoder_save` wrote. The model that was in force must be `model` or one of the
 * `model_count` further ones in `models`, which may be NULL if that is 0. The settings must allow what was declared.
 * `*decoder` gets the handle, or NULL.
 *
 * Errors: MIDSPAN_ERROR_WRONG_MODEL, with the fingerprint of the needed model in `found_digest` of
 * `midspan_last_error`; MIDSPAN_ERROR_SAVED_SESSION for bytes that are damaged, of another version, or saved under
 * other limits; MIDSPAN_ERROR_MEMORY_LIMIT; MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER.
 */
midspan_result midspan_decoder_restore(const struct midspan_model *model,
                                       const struct midspan_model *const *models,
                                       size_t model_count,
                                       const struct midspan_decoder_config *config,
                                       const uint8_t *saved,
                                       size_t len,
                                       struct midspan_decoder **decoder);

/**
 * Adds a model that the stream may name, in its header or in a model switch. The decoder keeps its own share of it.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_decoder_add_model(struct midspan_decoder *decoder,
                                         const struct midspan_model *model);

/**
 * Lets batches use up to `threads` threads, the caller's included; 1 by default, and 0 means 1. The values stay the
 * same. With many threads, more `frames_per_poll` keep all of them busy.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_decoder_set_threads(struct midspan_decoder *decoder,
                                           size_t threads);

/**
 * Sets whether events of frames bring their integers W and Y: 0 for no, any other value for yes, which is the default.
 * Events of layered mode always bring theirs.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_decoder_keep_integers(struct midspan_decoder *decoder,
                                             uint32_t keep);

/**
 * Writes what the model in force says about itself to `*info`.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_decoder_get_model(const struct midspan_decoder *decoder,
                                         struct midspan_model_info *info);

/**
 * Hands in `len` bytes of a byte stream or file, cut anywhere. They are copied.
 *
 * Errors: the stream's error, if it had one; MIDSPAN_ERROR_AFTER_END after `midspan_decoder_finish`;
 * MIDSPAN_ERROR_NOT_AVAILABLE in the message binding; MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER,
 * MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_decoder_push(struct midspan_decoder *decoder,
                                    const uint8_t *bytes,
                                    size_t len);

/**
 * Hands in one message, whole. It is copied; an empty one is skipped.
 *
 * Errors: as `midspan_decoder_push`, and MIDSPAN_ERROR_NOT_AVAILABLE in a byte stream or file.
 */
midspan_result midspan_decoder_push_message(struct midspan_decoder *decoder,
                                            const uint8_t *message,
                                            size_t len);

/**
 * Hands in a datagram, which should be one message of class MIDSPAN_MESSAGE_DROPPABLE. Both bindings allow it, at any
 * time, also after `midspan_decoder_finish`. It may be damaged, repeated or out of order: any bytes are allowed, each
 * datagram that is not empty gives one event, and none ends the session.
 *
 * Errors: the stream's error, if it had one; MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER,
 * MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_decoder_push_datagram(struct midspan_decoder *decoder,
                                             const uint8_t *datagram,
                                             size_t len);

/**
 * Says that no more input comes: an unfinished stream is an error from then on, instead of a wait.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_decoder_finish(struct midspan_decoder *decoder);

/**
 * Writes what happened next to `*event`. Waiting for more input and the end are events too, not errors. What the event
 * points to is valid until the next poll of this decoder that succeeds.
 *
 * Errors: the stream's first error, at every later push and poll again: 101 to 604 and MIDSPAN_ERROR_MEMORY_LIMIT.
 * MIDSPAN_ERROR_TARGET_OVERDUE and MIDSPAN_ERROR_WRONG_SIDE_INDICES are not final: conceal, or give what is wanted,
 * and poll again. MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC. `*event` is not changed then.
 */
midspan_result midspan_decoder_poll(struct midspan_decoder *decoder,
                                    struct midspan_event *event);

/**
 * Polls as `midspan_decoder_poll` does, and writes hidden states to `hidden`, which has room for `capacity` values.
 * `event->hidden` is then `hidden`, and not the decoder's.
 *
 * If the hidden states do not fit, the result is MIDSPAN_ERROR_SMALL_BUFFER. `*event` then describes the event:
 * `hidden_len` is the needed number of values, and all pointers are NULL. The event stays the next one, for either
 * poll. The session has decoded it all the same: `midspan_decoder_next_index`, `midspan_decoder_oldest_pending` and
 * `midspan_decoder_conceal` treat its frames as handed out, and `midspan_decoder_memory_bytes` counts its bytes.
 *
 * Errors: MIDSPAN_ERROR_SMALL_BUFFER, and as `midspan_decoder_poll`.
 */
midspan_result midspan_decoder_poll_into(struct midspan_decoder *decoder,
                                         float *hidden,
                                         size_t capacity,
                                         struct midspan_event *event);

/**
 * Gives the side indices that MIDSPAN_EVENT_SIDE_WANTED asks for, one for each of its frames. An index is at most V,
 * the model's vocabulary, and V says that a frame has none. Poll again afterwards.
 *
 * Errors: MIDSPAN_ERROR_WRONG_SIDE_INDICES for another number of indices, for one above V, or if no chunk waits for
 * any; nothing changes then. The stream's error, if it had one. MIDSPAN_ERROR_INVALID_ARGUMENT,
 * MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_decoder_give_side(struct midspan_decoder *decoder,
                                         const uint32_t *indices,
                                         size_t count);

/**
 * Says which frames a chunk needs side indices for: `*index` gets the absolute index of the first one, and `*count`
 * their number. Both get 0 if no chunk waits for side indices.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_decoder_wanted_side(const struct midspan_decoder *decoder,
                                           uint64_t *index,
                                           uint64_t *count);

/**
 * Conceals `count` pending frames from `index` on with the network's means. One MIDSPAN_EVENT_TARGETS follows with all
 * of them. Elements that came in parts keep their values.
 *
 * Errors: MIDSPAN_ERROR_FRAME_NOT_PENDING unless all of them are pending; nothing changes then. The stream's error, if
 * it had one. MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_decoder_conceal(struct midspan_decoder *decoder,
                                       uint64_t index,
                                       uint64_t count);

/**
 * Writes the elements of a pending frame that have not come to `ranges`, as ranges in ascending order. If no part
 * came, there is one range of all elements. `ranges` has room for `capacity` ranges; `*count` gets their number. If
 * they do not fit, the result is MIDSPAN_ERROR_SMALL_BUFFER, and `*count` gets the needed number.
 *
 * Errors: MIDSPAN_ERROR_FRAME_NOT_PENDING, MIDSPAN_ERROR_SMALL_BUFFER, MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY,
 * MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_decoder_missing_elements(const struct midspan_decoder *decoder,
                                                uint64_t index,
                                                struct midspan_range *ranges,
                                                size_t capacity,
                                                size_t *count);

/**
 * Writes the absolute index of the next frame to `*index`.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_decoder_next_index(const struct midspan_decoder *decoder, uint64_t *index);

/**
 * Writes an absolute index to `*index`: digests confirmed W and Y of every frame before it.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_decoder_confirmed_index(const struct midspan_decoder *decoder,
                                               uint64_t *index);

/**
 * Writes an absolute index to `*index`: digests confirmed W of every frame before it, so that the encoder can go on
 * from there.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_decoder_resume_index(const struct midspan_decoder *decoder,
                                            uint64_t *index);

/**
 * Says whether a frame waits for its target, in layered mode: `*pending` gets 1 or 0. If `index` is not NULL, `*index`
 * gets the absolute index of the oldest such frame, or 0.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_decoder_oldest_pending(const struct midspan_decoder *decoder,
                                              uint32_t *pending,
                                              uint64_t *index);

/**
 * Writes the bytes that the session holds to `*bytes`, without its models and without the event that was polled last.
 * An event that did not fit the buffer of `midspan_decoder_poll_into` counts.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_decoder_memory_bytes(const struct midspan_decoder *decoder,
                                            size_t *bytes);

/**
 * Sets a reader's settings to their defaults, which are those for a peer that nobody trusts.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER.
 */
midspan_result midspan_reader_config_init(struct midspan_reader_config *config);

/**
 * Makes a reader of a stream from its first byte on. `*reader` gets the handle, which `midspan_reader_free` frees, or
 * NULL.
 *
 * Errors: MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER.
 */
midspan_result midspan_reader_new(const struct midspan_reader_config *config,
                                  struct midspan_reader **reader);

/**
 * Makes a reader that joins a stream at a context reset or model switch. Its arguments mean what they mean to
 * `midspan_decoder_join`.
 *
 * Errors: those of a header (101 to 210, MIDSPAN_ERROR_TRUNCATED for one that is cut); MIDSPAN_ERROR_INVALID_ARGUMENT,
 * MIDSPAN_ERROR_NULL_POINTER.
 */
midspan_result midspan_reader_join(const struct midspan_reader_config *config,
                                   const uint8_t *header,
                                   size_t header_len,
                                   uint64_t offset,
                                   const uint64_t *index,
                                   struct midspan_reader **reader);

/**
 * Frees a reader. What its chunks point to ends too. NULL is ignored.
 */
void midspan_reader_free(struct midspan_reader *reader);

/**
 * Forks a reader: `*fork` gets a second one that goes on from the same place, with the same input not yet polled.
 * `midspan_reader_free` frees it. What the last chunk points to stays with `reader`.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_reader_fork(const struct midspan_reader *reader,
                                   struct midspan_reader **fork);

/**
 * Saves a reader as bytes for `midspan_reader_restore`, input not yet polled included. `*bytes` gets them, and
 * `midspan_bytes_free` frees them.
 *
 * Errors: the reader's own error, if it failed; MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_reader_save(const struct midspan_reader *reader,
                                   struct midspan_bytes *bytes);

/**
 * Restores the reader that `midspan_reader_save` wrote. `*reader` gets the handle, or NULL.
 *
 * Errors: MIDSPAN_ERROR_SAVED_SESSION, also for a reader of another binding; MIDSPAN_ERROR_INVALID_ARGUMENT,
 * MIDSPAN_ERROR_NULL_POINTER.
 */
midspan_result midspan_reader_restore(const struct midspan_reader_config *config,
                                      const uint8_t *saved,
                                      size_t len,
                                      struct midspan_reader **reader);

/**
 * Hands in `len` bytes of a byte stream or file, cut anywhere. They are copied.
 *
 * Errors: the stream's error, if it had one; MIDSPAN_ERROR_AFTER_END after `midspan_reader_finish`;
 * MIDSPAN_ERROR_NOT_AVAILABLE in the message binding; MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER,
 * MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_reader_push(struct midspan_reader *reader,
                                   const uint8_t *bytes,
                                   size_t len);

/**
 * Hands in one message, whole. It is copied; an empty one is skipped.
 *
 * Errors: as `midspan_reader_push`, and MIDSPAN_ERROR_NOT_AVAILABLE in a byte stream or file.
 */
midspan_result midspan_reader_push_message(struct midspan_reader *reader,
                                           const uint8_t *message,
                                           size_t len);

/**
 * Hands in a datagram from a path that may lose, repeat or reorder. Any bytes are allowed; each datagram that is not
 * empty gives one target chunk, and none ends the stream.
 *
 * Errors: the stream's error, if it had one; MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER,
 * MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_reader_push_datagram(struct midspan_reader *reader,
                                            const uint8_t *datagram,
                                            size_t len);

/**
 * Says that no more input comes: an unfinished stream is an error from then on, instead of a wait.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_reader_finish(struct midspan_reader *reader);

/**
 * Writes the next chunk to `*chunk`. Waiting for more input and the end are kinds too, not errors. What the chunk
 * points to is valid until the next poll of this reader that succeeds.
 *
 * Errors: the stream's first error, at every later push and poll again: 101 to 408 and 502.
 * MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC. `*chunk` is not changed then.
 */
midspan_result midspan_reader_poll(struct midspan_reader *reader,
                                   struct midspan_chunk *chunk);

/**
 * Writes the offset of the first byte that no chunk covers yet to `*offset`.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_reader_offset(const struct midspan_reader *reader, uint64_t *offset);

/**
 * Writes the bytes that the reader holds to `*bytes`, without the chunk that was polled last.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_reader_memory_bytes(const struct midspan_reader *reader, size_t *bytes);

/**
 * The name of a kind of chunk, NUL-terminated, static: "frame", "need_more". It is "other" for a number that is no
 * kind.
 */
const char *midspan_chunk_name(midspan_chunk_kind kind);

/**
 * Finds the place in a file at which to join, so as to read the frame with the absolute index `frame` (spec 2.10).
 *
 * `header` holds the first `header_len` bytes of the file, which must include the stream header. `tail` holds the last
 * `tail_len` bytes of the file, which must include the seek index and the footer after it. `file_len` is the number of
 * bytes of the file.
 *
 * `*entry` gets the last place whose frame is not above `frame`. Pass its offset and its frame to
 * `midspan_decoder_join` or `midspan_reader_join`, and push the file's bytes from that offset on. If there is no such
 * place, the entry has offset 0 and frame 0: begin with `midspan_decoder_new` and the file's first byte. The index is
 * not compared with the chunks: a join fails if no context begins there. It does not know the last frame either: a
 * frame after the end gives the last place.
 *
 * If the tail is too short, the result is MIDSPAN_ERROR_SMALL_BUFFER, and `wanted` of `midspan_last_error` is the
 * needed `tail_len`. A tail of 12 bytes is enough to learn it.
 *
 * Errors: those of a header (101 to 210, MIDSPAN_ERROR_TRUNCATED for one that is cut); MIDSPAN_ERROR_NOT_AVAILABLE for
 * a stream that is no file; MIDSPAN_ERROR_BAD_FOOTER, MIDSPAN_ERROR_SEEK_INDEX_MISPLACED,
 * MIDSPAN_ERROR_SEEK_INDEX_ORDER and other errors of a chunk (101 to 403) for an index that is damaged or cut;
 * MIDSPAN_ERROR_SMALL_BUFFER; MIDSPAN_ERROR_INVALID_ARGUMENT, also for a `file_len` below `tail_len`;
 * MIDSPAN_ERROR_NULL_POINTER.
 */
midspan_result midspan_file_seek(const uint8_t *header,
                                 size_t header_len,
                                 const uint8_t *tail,
                                 size_t tail_len,
                                 uint64_t file_len,
                                 uint64_t frame,
                                 struct midspan_seek_entry *entry);

/**
 * Begins a stream: the header is the first output. `*writer` gets the handle, which `midspan_writer_free` frees, or
 * NULL.
 *
 * Errors: MIDSPAN_ERROR_BAD_CONFIG for a header that is out of range; MIDSPAN_ERROR_INVALID_ARGUMENT,
 * MIDSPAN_ERROR_NULL_POINTER.
 */
midspan_result midspan_writer_new(const struct midspan_header *header,
                                  struct midspan_writer **writer);

/**
 * Frees a writer, with output not yet taken. NULL is ignored.
 */
void midspan_writer_free(struct midspan_writer *writer);

/**
 * Forks a stream: `*fork` gets a second writer that goes on from the same place, with the same output not yet taken.
 * `midspan_writer_free` frees it.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_writer_fork(const struct midspan_writer *writer,
                                   struct midspan_writer **fork);

/**
 * Saves a writer as bytes for `midspan_writer_restore`. `*bytes` gets them, and `midspan_bytes_free` frees them.
 *
 * The bytes include output not yet taken. They do not include side indices of `midspan_writer_cover_side` that wait
 * for their chunk: give them again after the restore.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_writer_save(const struct midspan_writer *writer,
                                   struct midspan_bytes *bytes);

/**
 * Restores the writer that `midspan_writer_save` wrote. `*writer` gets the handle, or NULL.
 *
 * Errors: MIDSPAN_ERROR_SAVED_SESSION, MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER.
 */
midspan_result midspan_writer_restore(const uint8_t *saved,
                                      size_t len,
                                      struct midspan_writer **writer);

/**
 * Writes a one-frame chunk with a payload of `len` bytes: a joined frame, or the hyper-prior of one frame.
 *
 * Errors: MIDSPAN_ERROR_CHUNK_TOO_LONG, MIDSPAN_ERROR_SEAL_NOT_CANONICAL for a payload that ends in 0,
 * MIDSPAN_ERROR_WRONG_SIDE_INDICES in a stream with side indices that no `midspan_writer_cover_side` gave,
 * MIDSPAN_ERROR_AFTER_END, MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY,
 * MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_writer_frame(struct midspan_writer *writer,
                                    const uint8_t *payload,
                                    size_t len);

/**
 * Writes a batch of `frames` frames, 2 or more, with one payload for each of `lane_count` lanes (spec 2.7).
 *
 * Errors: MIDSPAN_ERROR_BATCH_OF_ONE, MIDSPAN_ERROR_TOO_MANY_FRAMES, MIDSPAN_ERROR_LANE_COUNT,
 * MIDSPAN_ERROR_LANE_TABLE, and as `midspan_writer_frame`.
 */
midspan_result midspan_writer_batch(struct midspan_writer *writer,
                                    uint32_t frames,
                                    const struct midspan_payload *lanes,
                                    size_t lane_count);

/**
 * Writes the target of `frames` frames from the absolute index `index` on, in layered mode, with one payload a lane.
 *
 * Errors: MIDSPAN_ERROR_KIND_NOT_IN_MODE in joined mode; MIDSPAN_ERROR_FRAME_NOT_PENDING for frames that have no
 * hyper-prior; and as `midspan_writer_batch`.
 */
midspan_result midspan_writer_target(struct midspan_writer *writer,
                                     uint64_t index,
                                     uint32_t frames,
                                     const struct midspan_payload *lanes,
                                     size_t lane_count);

/**
 * Writes a part of the target of the frame `index`: its elements from `first_element` to before `end_element`.
 *
 * Errors: MIDSPAN_ERROR_FIELD_OUT_OF_RANGE for no element, or elements beyond 2^56; and as `midspan_writer_target`.
 */
midspan_result midspan_writer_target_part(struct midspan_writer *writer,
                                          uint64_t index,
                                          uint64_t first_element,
                                          uint64_t end_element,
                                          const uint8_t *payload,
                                          size_t len);

/**
 * Gives the side indices that the check of the next frame chunk covers, one for each of its frames. In a stream with
 * side indices every frame chunk needs such a call before it.
 *
 * Errors: MIDSPAN_ERROR_INVALID_ARGUMENT, MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_writer_cover_side(struct midspan_writer *writer,
                                         const uint32_t *indices,
                                         size_t count);

/**
 * Writes the side indices of the next `count` frames, as the model's tables code them.
 *
 * Errors: MIDSPAN_ERROR_KIND_NOT_IN_MODE in a stream without side indices; MIDSPAN_ERROR_SIDE_INDICES_LEFT;
 * MIDSPAN_ERROR_TOO_MANY_FRAMES; and as `midspan_writer_frame`.
 */
midspan_result midspan_writer_side_indices(struct midspan_writer *writer,
                                           uint32_t count,
                                           const uint8_t *payload,
                                           size_t len);

/**
 * Writes a checkpoint at the next frame, with the digests of spec 6.4.
 *
 * Errors: MIDSPAN_ERROR_CHUNK_TOO_LONG, MIDSPAN_ERROR_AFTER_END, MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY,
 * MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_writer_checkpoint(struct midspan_writer *writer,
                                         uint32_t digest_w,
                                         uint32_t digest_y);

/**
 * Writes a context reset: the next frame begins a new context. The digests are those of the context that ends.
 *
 * Errors: MIDSPAN_ERROR_FIELD_OUT_OF_RANGE for a length offset above 16,383; and as `midspan_writer_checkpoint`.
 */
midspan_result midspan_writer_reset(struct midspan_writer *writer,
                                    uint8_t quality,
                                    uint16_t length_offset,
                                    uint32_t digest_w,
                                    uint32_t digest_y);

/**
 * Writes a rewind: the next frame will have the absolute index `index`.
 *
 * Errors: MIDSPAN_ERROR_REWIND_TARGET, MIDSPAN_ERROR_REWIND_TOO_FAR, and as `midspan_writer_checkpoint`.
 */
midspan_result midspan_writer_rewind(struct midspan_writer *writer,
                                     uint64_t index);

/**
 * Writes a quality switch, which also sets the length offset; the context goes on.
 *
 * Errors: as `midspan_writer_reset`.
 */
midspan_result midspan_writer_quality(struct midspan_writer *writer,
                                      uint8_t quality,
                                      uint16_t length_offset);

/**
 * Writes a model switch: the next frame begins a new context with the model of this fingerprint, 32 bytes. The digests
 * are those of the context that ends.
 *
 * Errors: as `midspan_writer_reset`.
 */
midspan_result midspan_writer_model_switch(struct midspan_writer *writer,
                                           const uint8_t *fingerprint,
                                           uint32_t model_version,
                                           uint8_t quality,
                                           uint16_t length_offset,
                                           uint32_t digest_w,
                                           uint32_t digest_y);

/**
 * Writes an exact frame: a joined payload, and the hidden state as little-endian values of type `dtype`.
 *
 * Errors: MIDSPAN_ERROR_WRONG_SHAPE if `hidden` is not a whole number of values; and as `midspan_writer_frame`.
 */
midspan_result midspan_writer_exact_frame(struct midspan_writer *writer,
                                          midspan_dtype dtype,
                                          const uint8_t *payload,
                                          size_t payload_len,
                                          const uint8_t *hidden,
                                          size_t hidden_len);

/**
 * Writes an ignorable extension of this id.
 *
 * Errors: MIDSPAN_ERROR_INVALID_ARGUMENT, and as `midspan_writer_checkpoint`.
 */
midspan_result midspan_writer_extension(struct midspan_writer *writer,
                                        uint32_t id,
                                        const uint8_t *data,
                                        size_t len);

/**
 * Writes the end chunk and, in a file, seek index and footer.
 *
 * Errors: as `midspan_writer_checkpoint`.
 */
midspan_result midspan_writer_end(struct midspan_writer *writer,
                                  uint32_t digest_w,
                                  uint32_t digest_y);

/**
 * Takes the bytes written so far, as `midspan_encoder_take_bytes` does.
 *
 * Errors: as `midspan_encoder_take_bytes`.
 */
midspan_result midspan_writer_take_bytes(struct midspan_writer *writer,
                                         struct midspan_bytes *bytes);

/**
 * Takes the bytes written so far and copies them to `buffer`, as `midspan_encoder_take_bytes_into` does.
 *
 * Errors: as `midspan_encoder_take_bytes_into`.
 */
midspan_result midspan_writer_take_bytes_into(struct midspan_writer *writer,
                                              uint8_t *buffer,
                                              size_t capacity,
                                              size_t *len);

/**
 * Takes the next message, as `midspan_encoder_pop_message` does.
 *
 * Errors: as `midspan_encoder_pop_message`.
 */
midspan_result midspan_writer_pop_message(struct midspan_writer *writer,
                                          struct midspan_message *message);

/**
 * Takes the next message and copies it to `buffer`, as `midspan_encoder_pop_message_into` does.
 *
 * Errors: as `midspan_encoder_pop_message_into`.
 */
midspan_result midspan_writer_pop_message_into(struct midspan_writer *writer,
                                               uint8_t *buffer,
                                               size_t capacity,
                                               struct midspan_message *message);

/**
 * Writes the absolute index of the next frame to `*index` and the offset of the next chunk to `*offset`. The offset is
 * the number of bytes written so far.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_writer_position(const struct midspan_writer *writer,
                                       uint64_t *index,
                                       uint64_t *offset);

/**
 * Writes 1 to `*ended` if the end chunk was written, else 0.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_writer_ended(const struct midspan_writer *writer, uint32_t *ended);

/**
 * Writes the bytes that the writer holds to `*bytes`, output not yet taken included.
 *
 * Errors: MIDSPAN_ERROR_NULL_POINTER, MIDSPAN_ERROR_BUSY, MIDSPAN_ERROR_PANIC.
 */
midspan_result midspan_writer_memory_bytes(const struct midspan_writer *writer, size_t *bytes);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MIDSPAN_H */
