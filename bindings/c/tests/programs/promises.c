/* What the header promises about values, pointers and places. Each scenario is an argument.
 *
 *   promises SCENARIO MODEL SIDE_MODEL OTHER_MODEL */
#include "common.h"

#include <pthread.h>
#include <stdatomic.h>

static midspan_model *model, *side_model, *other_model;
static size_t width, channels;

/* A copy of what an event or a chunk points to. */
typedef struct {
    uint8_t *bytes;
    size_t len;
} copy;

static copy copy_of(const void *data, size_t len) {
    copy of = {malloc(len + 1), len};
    REQUIRE(of.bytes != NULL && (data != NULL || len == 0));
    if (len > 0) memcpy(of.bytes, data, len);
    return of;
}

/* Whether the memory still holds what was copied. */
static int still(copy of, const void *data) {
    return memcmp(of.bytes, data, of.len) == 0;
}

/* Polls until an event of this kind. */
static midspan_event poll_until(midspan_decoder *decoder, uint32_t kind) {
    midspan_event event;
    for (;;) {
        CHECK(midspan_decoder_poll(decoder, &event));
        if (event.kind == kind) return event;
        REQUIRE(event.kind != MIDSPAN_EVENT_NEED_MORE && event.kind != MIDSPAN_EVENT_END);
    }
}

/* A poll that fails leaves what the last event points to. */
static void old_event_after_a_failed_poll(void) {
    midspan_bytes bytes = stream_of(model);
    midspan_decoder *decoder = open_decoder(model, MIDSPAN_BINDING_BYTE_STREAM);
    midspan_event event, next;
    float *rows = calloc(3 * width, sizeof *rows);
    CHECK(midspan_decoder_push(decoder, bytes.data, bytes.len - 1));
    CHECK(midspan_decoder_finish(decoder));
    /* The header stays while its frames do not fit the buffer. */
    CHECK(midspan_decoder_poll(decoder, &event));
    REQUIRE(event.kind == MIDSPAN_EVENT_OPENED && event.header->field_count == 1);
    FAILS(midspan_decoder_poll_into(decoder, rows, 3 * width - 1, &next), MIDSPAN_ERROR_SMALL_BUFFER);
    REQUIRE(event.header->fields[0].id == 2 && memcmp(event.header->fields[0].data, "C", 1) == 0);
    REQUIRE(event.header->max_frames == 256);
    /* The frames stay after the stream's error, which each poll gives again. */
    event = poll_until(decoder, MIDSPAN_EVENT_FRAMES);
    copy hidden = copy_of(event.hidden, event.hidden_len * sizeof(float));
    copy w = copy_of(event.w, event.w_len * sizeof(int16_t)), y = copy_of(event.y, event.y_len * sizeof(int16_t));
    REQUIRE(event.hidden_len == 3 * width && event.w_len == 3 * channels && event.y_len == 3 * width);
    FAILS(midspan_decoder_poll(decoder, &next), MIDSPAN_ERROR_TRUNCATED);
    FAILS(midspan_decoder_poll_into(decoder, rows, 3 * width, &next), MIDSPAN_ERROR_TRUNCATED);
    FAILS(midspan_decoder_push(decoder, bytes.data, 1), MIDSPAN_ERROR_TRUNCATED);
    REQUIRE(still(hidden, event.hidden) && still(w, event.w) && still(y, event.y));
    midspan_decoder_free(decoder);
    free(hidden.bytes);
    free(w.bytes);
    free(y.bytes);
    free(rows);
    midspan_bytes_free(&bytes);
}

/* A poll that fails leaves what the last chunk points to: its payloads, or the header's fields. */
static void old_chunk_after_a_failed_poll(void) {
    midspan_bytes bytes = stream_of(model);
    midspan_reader_config config;
    CHECK(midspan_reader_config_init(&config));
    /* The stream is cut in its end chunk, then in the chunk after the header. */
    for (int cut_early = 0; cut_early < 2; cut_early++) {
        midspan_reader *reader;
        midspan_chunk chunk, next;
        CHECK(midspan_reader_new(&config, &reader));
        CHECK(midspan_reader_push(reader, bytes.data, bytes.len));
        CHECK(midspan_reader_poll(reader, &chunk));
        size_t header_len = (size_t)chunk.wire_len;
        midspan_reader_free(reader);
        CHECK(midspan_reader_new(&config, &reader));
        CHECK(midspan_reader_push(reader, bytes.data, cut_early ? header_len + 1 : bytes.len - 1));
        CHECK(midspan_reader_finish(reader));
        CHECK(midspan_reader_poll(reader, &chunk));
        if (!cut_early) CHECK(midspan_reader_poll(reader, &chunk));
        copy payload = {NULL, 0};
        if (!cut_early) {
            REQUIRE(chunk.kind == MIDSPAN_CHUNK_BATCH && chunk.payload_count == 1);
            payload = copy_of(chunk.payloads[0].data, chunk.payloads[0].len);
        }
        for (int i = 0; i < 2; i++) FAILS(midspan_reader_poll(reader, &next), MIDSPAN_ERROR_TRUNCATED);
        if (cut_early) {
            REQUIRE(chunk.header->field_count == 1 && memcmp(chunk.header->fields[0].data, "C", 1) == 0);
        } else {
            REQUIRE(payload.len == chunk.payloads[0].len && still(payload, chunk.payloads[0].data));
        }
        midspan_reader_free(reader);
        free(payload.bytes);
    }
    midspan_bytes_free(&bytes);
}

/* The call fails and leaves these places as they were. */
#define LEAVES(call, number, place)                                                                                    \
    do {                                                                                                               \
        memset(&(place), SENTINEL, sizeof(place));                                                                     \
        FAILS(call, number);                                                                                           \
        REQUIRE(untouched(&(place), sizeof(place)));                                                                   \
    } while (0)

/* A call that fails writes no result. If a buffer is too small, it writes the needed length and nothing else. */
static void outputs_of_failed_calls(void) {
    midspan_encoder *bytes_of = open_encoder(model, MIDSPAN_BINDING_BYTE_STREAM);
    midspan_encoder *messages_of = open_encoder(model, MIDSPAN_BINDING_MESSAGE);
    struct {
        uint8_t buffer[8];
        size_t len;
        midspan_bytes bytes;
        midspan_message message;
    } output;
    LEAVES(midspan_encoder_take_bytes(messages_of, &output.bytes), MIDSPAN_ERROR_NOT_AVAILABLE, output);
    LEAVES(midspan_encoder_take_bytes_into(messages_of, output.buffer, 8, &output.len), MIDSPAN_ERROR_NOT_AVAILABLE,
           output);
    LEAVES(midspan_encoder_take_bytes_into(messages_of, NULL, 0, &output.len), MIDSPAN_ERROR_NOT_AVAILABLE, output);
    LEAVES(midspan_encoder_pop_message(bytes_of, &output.message), MIDSPAN_ERROR_NOT_AVAILABLE, output);
    LEAVES(midspan_encoder_pop_message_into(bytes_of, output.buffer, 8, &output.message), MIDSPAN_ERROR_NOT_AVAILABLE,
           output);
    LEAVES(midspan_encoder_take_bytes_into(bytes_of, output.buffer, 8, &output.len), MIDSPAN_ERROR_SMALL_BUFFER,
           output.buffer);
    REQUIRE(output.len > 8);
    LEAVES(midspan_encoder_pop_message_into(messages_of, output.buffer, 8, &output.message),
           MIDSPAN_ERROR_SMALL_BUFFER, output.buffer);
    REQUIRE(output.message.bytes.len > 8 && output.message.bytes.data == NULL && output.message.bytes.owner == NULL);
    REQUIRE(output.message.message_class == MIDSPAN_MESSAGE_HEADER);

    midspan_writer *writers[2];
    for (uint32_t binding = 0; binding < 2; binding++) {
        midspan_header header;
        uint8_t fingerprint[32] = {0};
        CHECK(midspan_header_init(&header, fingerprint));
        header.binding = binding;
        CHECK(midspan_writer_new(&header, &writers[binding]));
    }
    LEAVES(midspan_writer_take_bytes(writers[1], &output.bytes), MIDSPAN_ERROR_NOT_AVAILABLE, output);
    LEAVES(midspan_writer_take_bytes_into(writers[1], output.buffer, 8, &output.len), MIDSPAN_ERROR_NOT_AVAILABLE,
           output);
    LEAVES(midspan_writer_pop_message(writers[0], &output.message), MIDSPAN_ERROR_NOT_AVAILABLE, output);
    LEAVES(midspan_writer_pop_message_into(writers[0], output.buffer, 8, &output.message), MIDSPAN_ERROR_NOT_AVAILABLE,
           output);
    LEAVES(midspan_writer_take_bytes_into(writers[0], output.buffer, 8, &output.len), MIDSPAN_ERROR_SMALL_BUFFER,
           output.buffer);
    LEAVES(midspan_writer_pop_message_into(writers[1], output.buffer, 8, &output.message), MIDSPAN_ERROR_SMALL_BUFFER,
           output.buffer);
    for (int i = 0; i < 2; i++) midspan_writer_free(writers[i]);

    midspan_quality_info quality;
    LEAVES(midspan_model_get_quality(model, 255, &quality), MIDSPAN_ERROR_UNKNOWN_QUALITY, quality);
    float *hidden = calloc(width, sizeof *hidden);
    int16_t y[64];
    REQUIRE(3 * width <= 64);
    LEAVES(midspan_encoder_quantise(bytes_of, hidden, 1, width, y, width - 1), MIDSPAN_ERROR_SMALL_BUFFER, y);
    LEAVES(midspan_encoder_quantise(bytes_of, hidden, 1, width + 1, y, 64), MIDSPAN_ERROR_WRONG_SHAPE, y);
    memset(hidden, 0xff, sizeof *hidden); /* a NaN */
    LEAVES(midspan_encoder_quantise(bytes_of, hidden, 1, width, y, 64), MIDSPAN_ERROR_HIDDEN_NOT_FINITE, y);

    struct {
        midspan_event event;
        midspan_chunk chunk;
        midspan_bytes bytes;
        midspan_range range;
        size_t count;
    } input;
    float rows[64];
    midspan_bytes bytes = stream_of(model);
    midspan_decoder *decoder = open_decoder(model, MIDSPAN_BINDING_BYTE_STREAM);
    LEAVES(midspan_decoder_missing_elements(decoder, 7, &input.range, 1, &input.count),
           MIDSPAN_ERROR_FRAME_NOT_PENDING, input);
    CHECK(midspan_decoder_push(decoder, bytes.data, bytes.len - 1));
    CHECK(midspan_decoder_finish(decoder));
    poll_until(decoder, MIDSPAN_EVENT_OPENED);
    LEAVES(midspan_decoder_poll_into(decoder, rows, 3 * width - 1, &input.event), MIDSPAN_ERROR_SMALL_BUFFER, rows);
    REQUIRE(input.event.hidden_len == 3 * width && input.event.hidden == NULL && input.event.w == NULL);
    LEAVES(midspan_decoder_save(decoder, &input.bytes), MIDSPAN_ERROR_NOT_AVAILABLE, input);
    poll_until(decoder, MIDSPAN_EVENT_FRAMES);
    LEAVES(midspan_decoder_poll(decoder, &input.event), MIDSPAN_ERROR_TRUNCATED, input);
    LEAVES(midspan_decoder_poll_into(decoder, rows, 64, &input.event), MIDSPAN_ERROR_TRUNCATED, input);
    LEAVES(midspan_decoder_poll_into(decoder, rows, 64, &input.event), MIDSPAN_ERROR_TRUNCATED, rows);
    LEAVES(midspan_decoder_save(decoder, &input.bytes), MIDSPAN_ERROR_TRUNCATED, input);
    midspan_decoder_free(decoder);

    midspan_reader_config config;
    midspan_reader *reader;
    CHECK(midspan_reader_config_init(&config));
    CHECK(midspan_reader_new(&config, &reader));
    CHECK(midspan_reader_push(reader, (const uint8_t *)"garbage", 7));
    LEAVES(midspan_reader_poll(reader, &input.chunk), MIDSPAN_ERROR_BAD_MAGIC, input);
    LEAVES(midspan_reader_save(reader, &input.bytes), MIDSPAN_ERROR_BAD_MAGIC, input);
    midspan_reader_free(reader);

    /* A frame that waits for its target misses one range of elements. */
    CHECK(midspan_encoder_push_y(messages_of, memset(y, 0, sizeof y), 1, width));
    decoder = open_decoder(model, MIDSPAN_BINDING_MESSAGE);
    for (int i = 0; i < 2; i++) {
        CHECK(midspan_encoder_pop_message(messages_of, &output.message));
        CHECK(midspan_decoder_push_message(decoder, output.message.bytes.data, output.message.bytes.len));
        midspan_bytes_free(&output.message.bytes);
    }
    poll_until(decoder, MIDSPAN_EVENT_HYPER_PRIOR);
    LEAVES(midspan_decoder_missing_elements(decoder, 0, &input.range, 0, &input.count), MIDSPAN_ERROR_SMALL_BUFFER,
           input.range);
    REQUIRE(input.count == 1);
    midspan_decoder_free(decoder);

    midspan_encoder_free(bytes_of);
    midspan_encoder_free(messages_of);
    midspan_bytes_free(&bytes);
    free(hidden);
}

/* An event that did not fit was decoded, and its bytes are the session's until it is taken. */
static void session_after_a_small_buffer(void) {
    midspan_bytes bytes = stream_of(model);
    midspan_decoder *decoder = open_decoder(model, MIDSPAN_BINDING_BYTE_STREAM);
    midspan_event event;
    uint64_t index;
    size_t held, taken;
    CHECK(midspan_decoder_push(decoder, bytes.data, bytes.len));
    poll_until(decoder, MIDSPAN_EVENT_OPENED);
    CHECK(midspan_decoder_next_index(decoder, &index));
    REQUIRE(index == 0);
    FAILS(midspan_decoder_poll_into(decoder, NULL, 0, &event), MIDSPAN_ERROR_SMALL_BUFFER);
    CHECK(midspan_decoder_next_index(decoder, &index));
    REQUIRE(index == 3);
    CHECK(midspan_decoder_memory_bytes(decoder, &held));
    event = poll_until(decoder, MIDSPAN_EVENT_FRAMES);
    CHECK(midspan_decoder_memory_bytes(decoder, &taken));
    REQUIRE(held == taken + event.hidden_len * sizeof(float) + (event.w_len + event.y_len) * sizeof(int16_t));
    midspan_decoder_free(decoder);
    midspan_bytes_free(&bytes);
}

static midspan_error last_error(void) {
    midspan_error error;
    CHECK(midspan_last_error(&error));
    return error;
}

/* An error says whether it has a place, and which model or host was wanted and found. */
static void places_and_digests_of_errors(void) {
    static const uint8_t none[32];
    midspan_model_info info, other_info;
    CHECK(midspan_model_get_info(model, &info));
    CHECK(midspan_model_get_info(other_model, &other_info));
    /* A stream of another model names the model that it needs, and so does a saved session. */
    midspan_bytes bytes = stream_of(model), saved;
    midspan_decoder *decoder = open_decoder(other_model, MIDSPAN_BINDING_BYTE_STREAM), *restored;
    midspan_encoder *encoder = open_encoder(model, MIDSPAN_BINDING_BYTE_STREAM), *restored_encoder;
    midspan_decoder_config config;
    midspan_event event;
    CHECK(midspan_decoder_config_init(&config));
    CHECK(midspan_decoder_push(decoder, bytes.data, bytes.len));
    for (int from = 0; from < 3; from++) {
        if (from == 0) {
            FAILS(midspan_decoder_poll(decoder, &event), MIDSPAN_ERROR_WRONG_MODEL);
        } else if (from == 1) {
            midspan_decoder *fresh = open_decoder(model, MIDSPAN_BINDING_BYTE_STREAM);
            CHECK(midspan_decoder_save(fresh, &saved));
            FAILS(midspan_decoder_restore(other_model, NULL, 0, &config, saved.data, saved.len, &restored),
                  MIDSPAN_ERROR_WRONG_MODEL);
            midspan_decoder_free(fresh);
            midspan_bytes_free(&saved);
        } else {
            CHECK(midspan_encoder_save(encoder, &saved));
            FAILS(midspan_encoder_restore(other_model, saved.data, saved.len, 1u << 24, &restored_encoder),
                  MIDSPAN_ERROR_WRONG_MODEL);
            midspan_bytes_free(&saved);
        }
        midspan_error error = last_error();
        REQUIRE(error.has_wanted_digest == 1 && memcmp(error.wanted_digest, other_info.fingerprint, 32) == 0);
        REQUIRE(error.has_found_digest == 1 && memcmp(error.found_digest, info.fingerprint, 32) == 0);
        /* A stream has places, and a saved session has none. */
        REQUIRE(from == 0 ? error.has_offset == 1 && error.offset == 9 : error.has_offset == 0 && error.offset == 0);
    }
    midspan_decoder_free(decoder);
    /* A stream that states no host. */
    config.has_host_digest = 1;
    memset(config.host_digest, 7, sizeof config.host_digest);
    CHECK(midspan_decoder_new(model, &config, &decoder));
    CHECK(midspan_decoder_push(decoder, bytes.data, bytes.len));
    FAILS(midspan_decoder_poll(decoder, &event), MIDSPAN_ERROR_WRONG_HOST);
    midspan_error error = last_error();
    REQUIRE(error.has_wanted_digest == 1 && memcmp(error.wanted_digest, config.host_digest, 32) == 0);
    REQUIRE(error.has_found_digest == 0 && memcmp(error.found_digest, none, 32) == 0);
    midspan_decoder_free(decoder);
    /* Byte 0 is a place, and the error of a call has none. */
    decoder = open_decoder(model, MIDSPAN_BINDING_BYTE_STREAM);
    CHECK(midspan_decoder_push(decoder, (const uint8_t *)"garbage", 7));
    FAILS(midspan_decoder_poll(decoder, &event), MIDSPAN_ERROR_BAD_MAGIC);
    error = last_error();
    REQUIRE(error.has_offset == 1 && error.offset == 0 && error.has_wanted_digest == 0);
    FAILS(midspan_encoder_push_y(encoder, NULL, 0, width), MIDSPAN_ERROR_WRONG_SHAPE);
    error = last_error();
    REQUIRE(error.has_offset == 0 && error.offset == 0);
    /* The error of an encoder or a writer has the offset of the chunk that was to be written. */
    FAILS(midspan_encoder_rewind(encoder, 1), MIDSPAN_ERROR_REWIND_TARGET);
    error = last_error();
    REQUIRE(error.has_offset == 1 && error.offset > 50);
    midspan_header header;
    midspan_writer *writer;
    uint64_t index, offset;
    CHECK(midspan_header_init(&header, none));
    CHECK(midspan_writer_new(&header, &writer));
    CHECK(midspan_writer_frame(writer, (const uint8_t *)"w", 1));
    CHECK(midspan_writer_position(writer, &index, &offset));
    FAILS(midspan_writer_frame(writer, none, 1), MIDSPAN_ERROR_SEAL_NOT_CANONICAL);
    error = last_error();
    REQUIRE(error.has_offset == 1 && error.offset == offset && offset > 50);
    midspan_writer_free(writer);
    midspan_decoder_free(decoder);
    midspan_encoder_free(encoder);
    midspan_bytes_free(&bytes);
}

/* A message names a setting as the field of C's struct. */
static void settings_in_messages(void) {
    midspan_bytes bytes = stream_of(model);
    midspan_decoder_config config;
    midspan_decoder *decoder;
    midspan_event event;
    CHECK(midspan_decoder_config_init(&config));
    config.limits.max_frames = 2;
    CHECK(midspan_decoder_new(model, &config, &decoder));
    CHECK(midspan_decoder_push(decoder, bytes.data, bytes.len));
    poll_until(decoder, MIDSPAN_EVENT_OPENED);
    FAILS(midspan_decoder_poll(decoder, &event), MIDSPAN_ERROR_TOO_MANY_FRAMES);
    REQUIRE(says("raise max_frames)") && !says("::"));
    REQUIRE(last_error().limit_owner == MIDSPAN_LIMIT_OWN && last_error().wanted == 2 && last_error().found == 3);
    midspan_decoder_free(decoder);
    midspan_encoder_config encoder_config;
    midspan_encoder *encoder;
    CHECK(midspan_encoder_config_init(&encoder_config, NULL));
    encoder_config.memory_limit = 1;
    FAILS(midspan_encoder_new(model, &encoder_config, &encoder), MIDSPAN_ERROR_MEMORY_LIMIT);
    REQUIRE(says("raise memory_limit)") && !says("::"));
    midspan_bytes_free(&bytes);
}

enum { FILE_FRAMES = 9, CONTEXT_FRAMES = 3 };

/* A file of three contexts of three frames each. */
static midspan_bytes make_file(uint32_t binding) {
    midspan_encoder *encoder = open_encoder(model, binding);
    midspan_bytes bytes;
    int16_t *y = calloc(width, sizeof *y);
    for (int frame = 0; frame < FILE_FRAMES; frame++) {
        if (frame > 0 && frame % CONTEXT_FRAMES == 0) CHECK(midspan_encoder_reset(encoder));
        y[frame % width] = 1;
        CHECK(midspan_encoder_push_y(encoder, y, 1, width));
    }
    CHECK(midspan_encoder_end(encoder));
    CHECK(midspan_encoder_take_bytes(encoder, &bytes));
    midspan_encoder_free(encoder);
    free(y);
    return bytes;
}

/* Decodes from a place on, up to a frame; writes its integers. */
static void decode_from(midspan_decoder *decoder, midspan_bytes file, midspan_seek_entry from, uint64_t frame,
                        int16_t *y) {
    CHECK(midspan_decoder_push(decoder, file.data + from.offset, file.len - (size_t)from.offset));
    for (;;) {
        midspan_event event = poll_until(decoder, MIDSPAN_EVENT_FRAMES);
        REQUIRE(event.count == 1 && event.index >= from.frame && event.index <= frame);
        if (event.index < frame) continue;
        memcpy(y, event.y, event.y_len * sizeof *y);
        midspan_decoder_free(decoder);
        return;
    }
}

/* A program that has read both ends of a file finds where to join for a frame. */
static void seeking_in_a_file(void) {
    midspan_bytes file = make_file(MIDSPAN_BINDING_FILE), stream = make_file(MIDSPAN_BINDING_BYTE_STREAM);
    midspan_decoder_config config;
    midspan_decoder *decoder;
    midspan_seek_entry entry, start = {0, 0};
    int16_t *y = calloc(2 * width, sizeof *y);
    CHECK(midspan_decoder_config_init(&config));
    /* Twelve bytes tell how many are needed. */
    const uint8_t *end = file.data + file.len;
#define SEEK(tail_len, frame) midspan_file_seek(file.data, 100, end - (tail_len), tail_len, file.len, frame, &entry)
    LEAVES(SEEK(12, 0), MIDSPAN_ERROR_SMALL_BUFFER, entry);
    midspan_error error = last_error();
    REQUIRE(error.wanted > 12 && error.wanted < file.len && error.found == 12);
    size_t tail = (size_t)error.wanted;
    LEAVES(SEEK(tail - 1, 0), MIDSPAN_ERROR_SMALL_BUFFER, entry);
    LEAVES(SEEK(11, 0), MIDSPAN_ERROR_SMALL_BUFFER, entry);
    REQUIRE(last_error().wanted == 12);
    for (uint64_t frame = 0; frame < FILE_FRAMES; frame++) {
        CHECK(SEEK(frame % 2 == 0 ? tail : file.len, frame));
        uint64_t context = frame / CONTEXT_FRAMES * CONTEXT_FRAMES;
        REQUIRE(entry.frame == context && (entry.offset == 0) == (context == 0));
        CHECK(midspan_decoder_new(model, &config, &decoder));
        decode_from(decoder, file, start, frame, y);
        if (context == 0) continue;
        CHECK(midspan_decoder_join(model, &config, file.data, file.len, entry.offset, &entry.frame, &decoder));
        decode_from(decoder, file, entry, frame, y + width);
        REQUIRE(memcmp(y, y + width, width * sizeof *y) == 0);
    }
    CHECK(SEEK(tail, UINT64_MAX));
    REQUIRE(entry.frame == 6);
    /* What is no file, or no whole file. */
    LEAVES(midspan_file_seek(stream.data, 100, stream.data, stream.len, stream.len, 0, &entry),
           MIDSPAN_ERROR_NOT_AVAILABLE, entry);
    LEAVES(midspan_file_seek(file.data, 20, file.data, file.len, file.len, 0, &entry), MIDSPAN_ERROR_TRUNCATED, entry);
    LEAVES(midspan_file_seek(end - 20, 20, file.data, file.len, file.len, 0, &entry), MIDSPAN_ERROR_BAD_MAGIC, entry);
    LEAVES(midspan_file_seek(file.data, 100, file.data, file.len, file.len - 1, 0, &entry),
           MIDSPAN_ERROR_INVALID_ARGUMENT, entry);
    REQUIRE(says("file_len") && last_error().wanted == file.len && last_error().found == file.len - 1);
    LEAVES(midspan_file_seek(file.data, 100, end - 11, 11, 11, 0, &entry), MIDSPAN_ERROR_BAD_FOOTER, entry);
    LEAVES(midspan_file_seek(file.data, 100, file.data, file.len - 1, file.len - 1, 0, &entry),
           MIDSPAN_ERROR_BAD_FOOTER, entry);
    REQUIRE(last_error().offset == file.len - 13 + 8);
    /* A file of another length: the index is not where the footer says. */
    LEAVES(midspan_file_seek(file.data, 100, end - tail, tail, file.len + 1, 0, &entry), MIDSPAN_ERROR_SMALL_BUFFER,
           entry);
    /* Footers that lead nowhere, and damaged indices. No damage ends the process, or asks for more than a chunk. */
    uint8_t *changed = malloc(file.len);
    for (size_t at = file.len - tail; at < file.len; at++) {
        for (int bit = 0; bit < 8; bit++) {
            memcpy(changed, file.data, file.len);
            changed[at] ^= (uint8_t)(1 << bit);
            memset(&entry, SENTINEL, sizeof entry);
            midspan_result result =
                midspan_file_seek(file.data, 100, changed + file.len - tail, tail, file.len, 5, &entry);
            REQUIRE(untouched(&entry, sizeof entry));
            REQUIRE(result == MIDSPAN_ERROR_SMALL_BUFFER || (result > 100 && result < 500));
            REQUIRE(result != MIDSPAN_ERROR_SMALL_BUFFER || last_error().wanted <= file.len);
        }
    }
    memcpy(changed, file.data, file.len);
    memset(changed + file.len - 12, 0xff, 8);
    LEAVES(midspan_file_seek(file.data, 100, changed, file.len, file.len, 0, &entry), MIDSPAN_ERROR_BAD_FOOTER, entry);
    /* A footer that leads to the stream's first bytes, in a file so long that no chunk reaches from there. */
    memset(changed + file.len - 12, 0, 8);
    LEAVES(midspan_file_seek(file.data, 100, changed, file.len, file.len, 0, &entry),
           MIDSPAN_ERROR_SEEK_INDEX_MISPLACED, entry);
    LEAVES(midspan_file_seek(file.data, 100, changed, file.len, 1u << 30, 0, &entry), MIDSPAN_ERROR_BAD_FOOTER, entry);
    free(changed);
    free(y);
    midspan_bytes_free(&file);
    midspan_bytes_free(&stream);
}

/* Each struct of settings knows its size, and one of another version is refused before more of it is read. */
static void settings_of_another_version(void) {
    midspan_encoder_config encoding;
    midspan_decoder_config decoding;
    midspan_reader_config reading;
    midspan_header header;
    midspan_encoder *encoder;
    midspan_decoder *decoder;
    midspan_reader *reader;
    midspan_writer *writer;
    uint8_t bytes[32] = {0};
    CHECK(midspan_encoder_config_init(&encoding, NULL));
    CHECK(midspan_decoder_config_init(&decoding));
    CHECK(midspan_reader_config_init(&reading));
    CHECK(midspan_header_init(&header, bytes));
    REQUIRE(encoding.struct_size == sizeof encoding && decoding.struct_size == sizeof decoding);
    REQUIRE(reading.struct_size == sizeof reading && header.struct_size == sizeof header);
    encoding.struct_size--;
    decoding.struct_size++;
    reading.struct_size = 0;
    header.struct_size = 8;
    FAILS(midspan_encoder_new(model, &encoding, &encoder), MIDSPAN_ERROR_INVALID_ARGUMENT);
    REQUIRE(last_error().wanted == sizeof encoding && last_error().found == sizeof encoding - 1);
    REQUIRE(says("struct_size") && encoder == NULL);
    FAILS(midspan_decoder_new(model, &decoding, &decoder), MIDSPAN_ERROR_INVALID_ARGUMENT);
    FAILS(midspan_decoder_join(model, &decoding, bytes, 32, 0, NULL, &decoder), MIDSPAN_ERROR_INVALID_ARGUMENT);
    FAILS(midspan_decoder_restore(model, NULL, 0, &decoding, bytes, 32, &decoder), MIDSPAN_ERROR_INVALID_ARGUMENT);
    FAILS(midspan_reader_new(&reading, &reader), MIDSPAN_ERROR_INVALID_ARGUMENT);
    FAILS(midspan_reader_join(&reading, bytes, 32, 0, NULL, &reader), MIDSPAN_ERROR_INVALID_ARGUMENT);
    FAILS(midspan_reader_restore(&reading, bytes, 32, &reader), MIDSPAN_ERROR_INVALID_ARGUMENT);
    FAILS(midspan_writer_new(&header, &writer), MIDSPAN_ERROR_INVALID_ARGUMENT);
    /* A shorter struct, of which the library reads the size alone. */
    size_t *shorter = malloc(sizeof *shorter);
    *shorter = sizeof *shorter;
    FAILS(midspan_encoder_new(model, (const midspan_encoder_config *)(const void *)shorter, &encoder),
          MIDSPAN_ERROR_INVALID_ARGUMENT);
    free(shorter);
    /* A header that was read has its size too. */
    midspan_bytes stream = stream_of(model);
    decoder = open_decoder(model, MIDSPAN_BINDING_BYTE_STREAM);
    CHECK(midspan_decoder_push(decoder, stream.data, stream.len));
    REQUIRE(poll_until(decoder, MIDSPAN_EVENT_OPENED).header->struct_size == sizeof header);
    midspan_decoder_free(decoder);
    midspan_bytes_free(&stream);
}

/* Forks of container handles go their own way; a writer tells its end and its memory. */
static void forks_of_the_container(void) {
    midspan_header header;
    midspan_writer *writer, *fork;
    midspan_bytes bytes, others;
    static const uint8_t fingerprint[32], data[4096];
    uint32_t ended;
    size_t held, held_more;
    CHECK(midspan_header_init(&header, fingerprint));
    CHECK(midspan_writer_new(&header, &writer));
    CHECK(midspan_writer_frame(writer, (const uint8_t *)"first", 5));
    CHECK(midspan_writer_fork(writer, &fork));
    CHECK(midspan_writer_memory_bytes(fork, &held));
    CHECK(midspan_writer_extension(fork, 27, data, sizeof data));
    CHECK(midspan_writer_memory_bytes(fork, &held_more));
    REQUIRE(held > 50 && held_more > sizeof data);
    CHECK(midspan_writer_frame(writer, (const uint8_t *)"second", 6));
    CHECK(midspan_writer_end(fork, 0, 0));
    CHECK(midspan_writer_ended(fork, &ended));
    REQUIRE(ended == 1);
    CHECK(midspan_writer_ended(writer, &ended));
    REQUIRE(ended == 0);
    CHECK(midspan_writer_end(writer, 0, 0));
    CHECK(midspan_writer_take_bytes(writer, &bytes));
    CHECK(midspan_writer_take_bytes(fork, &others));
    midspan_writer_free(writer);
    midspan_writer_free(fork);
    REQUIRE(others.len > bytes.len && memcmp(bytes.data, others.data, 50) == 0);
    midspan_bytes_free(&others);

    midspan_reader_config config;
    midspan_reader *reader, *second;
    midspan_chunk chunk;
    CHECK(midspan_reader_config_init(&config));
    CHECK(midspan_reader_new(&config, &reader));
    CHECK(midspan_reader_push(reader, bytes.data, bytes.len));
    CHECK(midspan_reader_poll(reader, &chunk));
    CHECK(midspan_reader_poll(reader, &chunk));
    REQUIRE(chunk.kind == MIDSPAN_CHUNK_FRAME && chunk.index == 0);
    midspan_payload first = chunk.payloads[0];
    CHECK(midspan_reader_fork(reader, &second));
    CHECK(midspan_reader_poll(second, &chunk));
    REQUIRE(chunk.index == 1 && memcmp(chunk.payloads[0].data, "second", 6) == 0);
    midspan_reader_free(second);
    /* The first reader's chunk is still there, and its next one is the second frame too. */
    REQUIRE(memcmp(first.data, "first", 5) == 0);
    CHECK(midspan_reader_poll(reader, &chunk));
    REQUIRE(chunk.index == 1 && memcmp(chunk.payloads[0].data, "second", 6) == 0);
    midspan_reader_free(reader);
    midspan_bytes_free(&bytes);
}

/* What saving leaves out, and what a model switch drops. */
static void what_a_session_forgets(void) {
    const int16_t *w, *y;
    size_t w_len, y_len;
    midspan_bytes saved;
    int16_t *row = calloc(width, sizeof *row);
    /* The integers of the last push, and the choice to keep none. */
    midspan_encoder *encoder = open_encoder(model, MIDSPAN_BINDING_BYTE_STREAM), *restored;
    CHECK(midspan_encoder_push_y(encoder, row, 1, width));
    CHECK(midspan_encoder_keep_integers(encoder, 0));
    CHECK(midspan_encoder_save(encoder, &saved));
    CHECK(midspan_encoder_restore(model, saved.data, saved.len, 1u << 26, &restored));
    midspan_bytes_free(&saved);
    CHECK(midspan_encoder_last_integers(restored, &w, &w_len, &y, &y_len));
    REQUIRE(w == NULL && w_len == 0 && y == NULL && y_len == 0);
    CHECK(midspan_encoder_push_y(restored, row, 1, width));
    CHECK(midspan_encoder_last_integers(restored, &w, &w_len, &y, &y_len));
    REQUIRE(w_len == channels && y_len == width);
    /* They last until the next push. */
    copy old = copy_of(y, y_len * sizeof *y);
    CHECK(midspan_encoder_reset(restored));
    FAILS(midspan_encoder_push_y(restored, row, 1, width + 1), MIDSPAN_ERROR_WRONG_SHAPE);
    REQUIRE(still(old, y));
    free(old.bytes);
    midspan_encoder_free(restored);
    midspan_encoder_free(encoder);
    /* Side indices stay through a refused push, a rewind, a reset and a restore; a model switch drops them. */
    midspan_model_info info;
    CHECK(midspan_model_get_info(side_model, &info));
    float *hidden = calloc(2 * info.hidden_width, sizeof *hidden);
    uint32_t tokens[1] = {1};
    encoder = open_encoder(side_model, MIDSPAN_BINDING_BYTE_STREAM);
    CHECK(midspan_encoder_set_side(encoder, tokens, 1, MIDSPAN_SIDE_SENT));
    CHECK(midspan_encoder_push_hidden(encoder, hidden, 1, info.hidden_width));
    CHECK(midspan_encoder_set_side(encoder, tokens, 1, MIDSPAN_SIDE_SENT));
    FAILS(midspan_encoder_push_hidden(encoder, hidden, 2, info.hidden_width), MIDSPAN_ERROR_WRONG_SIDE_INDICES);
    CHECK(midspan_encoder_rewind(encoder, 0));
    CHECK(midspan_encoder_reset(encoder));
    CHECK(midspan_encoder_save(encoder, &saved));
    CHECK(midspan_encoder_restore(side_model, saved.data, saved.len, 1u << 26, &restored));
    midspan_bytes_free(&saved);
    CHECK(midspan_encoder_push_hidden(restored, hidden, 1, info.hidden_width));
    CHECK(midspan_encoder_switch_model(encoder, side_model, 0));
    FAILS(midspan_encoder_push_hidden(encoder, hidden, 1, info.hidden_width), MIDSPAN_ERROR_WRONG_SIDE_INDICES);
    midspan_encoder_free(restored);
    midspan_encoder_free(encoder);
    /* Side indices that a writer's next chunk would have covered. */
    midspan_header header;
    midspan_writer *writer, *other;
    CHECK(midspan_header_init(&header, info.fingerprint));
    header.side = 1;
    CHECK(midspan_writer_new(&header, &writer));
    CHECK(midspan_writer_cover_side(writer, tokens, 1));
    CHECK(midspan_writer_save(writer, &saved));
    CHECK(midspan_writer_restore(saved.data, saved.len, &other));
    midspan_bytes_free(&saved);
    CHECK(midspan_writer_frame(writer, (const uint8_t *)"w", 1));
    FAILS(midspan_writer_frame(other, (const uint8_t *)"w", 1), MIDSPAN_ERROR_WRONG_SIDE_INDICES);
    CHECK(midspan_writer_cover_side(other, tokens, 1));
    CHECK(midspan_writer_frame(other, (const uint8_t *)"w", 1));
    midspan_writer_free(writer);
    midspan_writer_free(other);
    /* The length offset that no setting states. */
    for (uint32_t mode = 0; mode < 2; mode++) {
        midspan_encoder_config config;
        midspan_quality_info quality;
        midspan_decoder *decoder = open_decoder(model, MIDSPAN_BINDING_BYTE_STREAM);
        midspan_bytes bytes;
        CHECK(midspan_encoder_config_init(&config, NULL));
        config.mode = mode;
        CHECK(midspan_model_get_quality(model, 0, &quality));
        REQUIRE(quality.length_offset == 20);
        CHECK(midspan_encoder_new(model, &config, &encoder));
        CHECK(midspan_encoder_take_bytes(encoder, &bytes));
        CHECK(midspan_decoder_push(decoder, bytes.data, bytes.len));
        uint16_t wanted = mode == MIDSPAN_MODE_JOINED ? 20 : 0;
        REQUIRE(poll_until(decoder, MIDSPAN_EVENT_OPENED).header->length_offset == wanted);
        midspan_bytes_free(&bytes);
        midspan_decoder_free(decoder);
        midspan_encoder_free(encoder);
    }
    free(hidden);
    free(row);
}

enum { THREADS = 2, BATCH = 64, MOST_CALLS = 10000 };

/* The handle that both threads call, and how its calls ended. */
static midspan_encoder *contended;
static atomic_uint done, refused;

/* A thread that gets bytes of another one. */
static void *one_of_two_threads(void *argument) {
    midspan_bytes *handed = argument;
    /* Another thread's error is not this one's. */
    REQUIRE(last_error().code == MIDSPAN_OK && midspan_last_error_message()[0] == 0);
    /* Its bytes can be read and freed here. Both threads encode with one model, and the stream is the same. */
    midspan_bytes own = stream_of(model);
    REQUIRE(own.len == handed->len && memcmp(own.data, handed->data, own.len) == 0);
    midspan_bytes_free(&own);
    midspan_bytes_free(handed);
    /* A call with the handle is whole, or refused while the other thread is in one; both happen. */
    int16_t *rows = calloc(BATCH * width, sizeof *rows);
    for (int calls = 0; calls < 8 || atomic_load(&refused) == 0; calls++) {
        REQUIRE(calls < MOST_CALLS);
        midspan_result result = midspan_encoder_push_y(contended, rows, BATCH, width);
        REQUIRE(result == MIDSPAN_OK || (result == MIDSPAN_ERROR_BUSY && last_error().code == MIDSPAN_ERROR_BUSY));
        atomic_fetch_add(result == MIDSPAN_OK ? &done : &refused, 1);
    }
    free(rows);
    midspan_quality_info quality;
    FAILS(midspan_model_get_quality(model, 255, &quality), MIDSPAN_ERROR_UNKNOWN_QUALITY);
    return NULL;
}

/* Threads share a model and a handle, hand bytes to each other, and have errors of their own. */
static void two_threads(void) {
    pthread_t threads[THREADS];
    midspan_bytes handed[THREADS], bytes;
    contended = open_encoder(model, MIDSPAN_BINDING_BYTE_STREAM);
    FAILS(midspan_encoder_push_y(contended, NULL, 0, width), MIDSPAN_ERROR_WRONG_SHAPE);
    const char *message = midspan_last_error_message();
    copy kept = copy_of(message, strlen(message) + 1);
    for (int i = 0; i < THREADS; i++) handed[i] = stream_of(model);
    for (int i = 0; i < THREADS; i++) {
        REQUIRE(pthread_create(&threads[i], NULL, one_of_two_threads, &handed[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++) {
        REQUIRE(pthread_join(threads[i], NULL) == 0);
        REQUIRE(handed[i].data == NULL && handed[i].owner == NULL);
    }
    REQUIRE(last_error().code == MIDSPAN_ERROR_WRONG_SHAPE);
    REQUIRE(midspan_last_error_message() == message && still(kept, message));
    free(kept.bytes);
    /* The stream has the frames of the calls that were not refused. */
    CHECK(midspan_encoder_end(contended));
    CHECK(midspan_encoder_take_bytes(contended, &bytes));
    midspan_encoder_free(contended);
    midspan_decoder *decoder = open_decoder(model, MIDSPAN_BINDING_BYTE_STREAM);
    CHECK(midspan_decoder_push(decoder, bytes.data, bytes.len));
    unsigned frames = 0;
    for (midspan_event event = {.kind = MIDSPAN_EVENT_NEED_MORE}; event.kind != MIDSPAN_EVENT_END;) {
        CHECK(midspan_decoder_poll(decoder, &event));
        REQUIRE(event.kind != MIDSPAN_EVENT_NEED_MORE);
        if (event.kind == MIDSPAN_EVENT_FRAMES) frames += (unsigned)event.count;
    }
    REQUIRE(frames == BATCH * atomic_load(&done));
    midspan_decoder_free(decoder);
    midspan_bytes_free(&bytes);
}

static const struct {
    const char *name;
    void (*run)(void);
} scenarios[] = {
    {"old_event_after_a_failed_poll", old_event_after_a_failed_poll},
    {"old_chunk_after_a_failed_poll", old_chunk_after_a_failed_poll},
    {"outputs_of_failed_calls", outputs_of_failed_calls},
    {"session_after_a_small_buffer", session_after_a_small_buffer},
    {"places_and_digests_of_errors", places_and_digests_of_errors},
    {"settings_in_messages", settings_in_messages},
    {"seeking_in_a_file", seeking_in_a_file},
    {"settings_of_another_version", settings_of_another_version},
    {"forks_of_the_container", forks_of_the_container},
    {"what_a_session_forgets", what_a_session_forgets},
    {"two_threads", two_threads},
};

int main(int argc, char **argv) {
    REQUIRE(argc == 5);
    model = load_model(argv[2]);
    side_model = load_model(argv[3]);
    other_model = load_model(argv[4]);
    midspan_model_info info;
    CHECK(midspan_model_get_info(model, &info));
    width = info.hidden_width;
    channels = info.hyper_prior_width;
    size_t run = 0;
    for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++) {
        if (strcmp(scenarios[i].name, argv[1]) != 0) continue;
        scenarios[i].run();
        run++;
    }
    REQUIRE(run == 1);
    midspan_model_free(model);
    midspan_model_free(side_model);
    midspan_model_free(other_model);
    printf("%s\n", argv[1]);
    return 0;
}
