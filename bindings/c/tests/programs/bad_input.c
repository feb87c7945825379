/* What a caller or a peer can do wrong: each gives one clear number and a message, nothing is lost, and no call ends
 * the process.
 *
 *   bad_input MODEL SIDE_MODEL OTHER_MODEL */
#include "common.h"

#include <fenv.h>
#include <math.h>

#define INVALID(call) FAILS(call, MIDSPAN_ERROR_INVALID_ARGUMENT)

static midspan_model *model, *side_model, *other_model;
static size_t width, channels;

/* A place for each kind of result; no call of nulls() may write to one. */
static struct {
    midspan_bytes bytes;
    midspan_message message;
    midspan_event event;
    midspan_chunk chunk;
    midspan_model_info info;
    midspan_quality_info quality;
    midspan_sent sent;
    midspan_range range;
    midspan_seek_entry entry;
    uint32_t flag;
    uint64_t index, count;
    size_t size;
    const int16_t *kept_w, *kept_y;
    uint8_t buffer[8];
    int16_t y[64];
    float hidden[64];
} out;

#define NULL_POINTER(call)                                                                                             \
    do {                                                                                                               \
        FAILS(call, MIDSPAN_ERROR_NULL_POINTER);                                                                       \
        REQUIRE(untouched(&out, sizeof out));                                                                          \
    } while (0)

/* Every function, with NULL for every pointer that may not be, one after the other. None writes a result. */
static void nulls(void) {
    memset(&out, SENTINEL, sizeof out);
    REQUIRE(width <= sizeof out.hidden / sizeof *out.hidden);
    midspan_encoder *encoder = open_encoder(model, MIDSPAN_BINDING_BYTE_STREAM), *made_encoder;
    midspan_decoder *decoder = open_decoder(model, MIDSPAN_BINDING_BYTE_STREAM), *made_decoder;
    midspan_encoder_config encoder_config;
    midspan_decoder_config decoder_config;
    midspan_reader_config reader_config;
    midspan_header header;
    midspan_reader *reader, *made_reader;
    midspan_writer *writer, *made_writer;
    midspan_model *made_model;
    uint8_t digest[32] = {0}, byte = 1;
    uint32_t flag = 0;
    float *hidden = calloc(width, sizeof *hidden);
    int16_t *y = calloc(width, sizeof *y), *w = calloc(channels, sizeof *w);
    const midspan_model *none[1] = {NULL};
    CHECK(midspan_encoder_config_init(&encoder_config, NULL));
    CHECK(midspan_decoder_config_init(&decoder_config));
    CHECK(midspan_reader_config_init(&reader_config));
    CHECK(midspan_reader_new(&reader_config, &reader));
    CHECK(midspan_header_init(&header, digest));
    CHECK(midspan_writer_new(&header, &writer));

    /* Freeing nothing is allowed. */
    midspan_bytes_free(NULL);
    midspan_model_free(NULL);
    midspan_encoder_free(NULL);
    midspan_decoder_free(NULL);
    midspan_reader_free(NULL);
    midspan_writer_free(NULL);

    NULL_POINTER(midspan_last_error(NULL));
    NULL_POINTER(midspan_model_load(NULL, 1, 1, &made_model));
    REQUIRE(made_model == NULL && says("file"));
    NULL_POINTER(midspan_model_load(&byte, 1, 1, NULL));
    NULL_POINTER(midspan_model_get_info(NULL, &out.info));
    NULL_POINTER(midspan_model_get_info(model, NULL));
    NULL_POINTER(midspan_model_get_quality(NULL, 0, &out.quality));
    NULL_POINTER(midspan_model_get_quality(model, 0, NULL));
    NULL_POINTER(midspan_header_init(NULL, digest));
    NULL_POINTER(midspan_header_init(&header, NULL));

    NULL_POINTER(midspan_encoder_config_init(NULL, NULL));
    NULL_POINTER(midspan_encoder_new(NULL, &encoder_config, &made_encoder));
    REQUIRE(made_encoder == NULL);
    NULL_POINTER(midspan_encoder_new(model, NULL, &made_encoder));
    NULL_POINTER(midspan_encoder_new(model, &encoder_config, NULL));
    NULL_POINTER(midspan_encoder_fork(NULL, &made_encoder));
    NULL_POINTER(midspan_encoder_fork(encoder, NULL));
    NULL_POINTER(midspan_encoder_save(NULL, &out.bytes));
    NULL_POINTER(midspan_encoder_save(encoder, NULL));
    NULL_POINTER(midspan_encoder_restore(NULL, &byte, 1, 1, &made_encoder));
    NULL_POINTER(midspan_encoder_restore(model, NULL, 1, 1, &made_encoder));
    NULL_POINTER(midspan_encoder_restore(model, &byte, 1, 1, NULL));
    NULL_POINTER(midspan_encoder_set_threads(NULL, 2));
    NULL_POINTER(midspan_encoder_get_model(NULL, &out.info));
    NULL_POINTER(midspan_encoder_get_model(encoder, NULL));
    NULL_POINTER(midspan_encoder_set_side(NULL, &flag, 1, MIDSPAN_SIDE_SENT));
    NULL_POINTER(midspan_encoder_set_side(encoder, NULL, 1, MIDSPAN_SIDE_SENT));
    NULL_POINTER(midspan_encoder_push_hidden(NULL, hidden, 1, width));
    NULL_POINTER(midspan_encoder_push_hidden(encoder, NULL, 1, width));
    NULL_POINTER(midspan_encoder_push_y(NULL, y, 1, width));
    NULL_POINTER(midspan_encoder_push_y(encoder, NULL, 1, width));
    NULL_POINTER(midspan_encoder_push_integers(NULL, y, width, w, channels, 1));
    NULL_POINTER(midspan_encoder_push_integers(encoder, NULL, width, w, channels, 1));
    NULL_POINTER(midspan_encoder_push_integers(encoder, y, width, NULL, channels, 1));
    NULL_POINTER(midspan_encoder_push_exact(NULL, MIDSPAN_DTYPE_F32, &byte, 1));
    NULL_POINTER(midspan_encoder_push_exact(encoder, MIDSPAN_DTYPE_F32, NULL, 1));
    NULL_POINTER(midspan_encoder_quantise(NULL, hidden, 1, width, out.y, width));
    NULL_POINTER(midspan_encoder_quantise(encoder, NULL, 1, width, out.y, width));
    NULL_POINTER(midspan_encoder_quantise(encoder, hidden, 1, width, NULL, width));
    NULL_POINTER(midspan_encoder_checkpoint(NULL));
    NULL_POINTER(midspan_encoder_reset(NULL));
    NULL_POINTER(midspan_encoder_rewind(NULL, 0));
    NULL_POINTER(midspan_encoder_set_quality(NULL, 0));
    NULL_POINTER(midspan_encoder_switch_model(NULL, model, 0));
    NULL_POINTER(midspan_encoder_switch_model(encoder, NULL, 0));
    NULL_POINTER(midspan_encoder_extension(NULL, 1, &byte, 1));
    NULL_POINTER(midspan_encoder_extension(encoder, 1, NULL, 1));
    NULL_POINTER(midspan_encoder_end(NULL));
    NULL_POINTER(midspan_encoder_take_bytes(NULL, &out.bytes));
    NULL_POINTER(midspan_encoder_take_bytes(encoder, NULL));
    NULL_POINTER(midspan_encoder_take_bytes_into(NULL, out.buffer, 1, &out.size));
    NULL_POINTER(midspan_encoder_take_bytes_into(encoder, NULL, 1, &out.size));
    NULL_POINTER(midspan_encoder_take_bytes_into(encoder, out.buffer, 1, NULL));
    NULL_POINTER(midspan_encoder_pop_message(NULL, &out.message));
    NULL_POINTER(midspan_encoder_pop_message(encoder, NULL));
    NULL_POINTER(midspan_encoder_pop_message_into(NULL, out.buffer, 1, &out.message));
    NULL_POINTER(midspan_encoder_pop_message_into(encoder, NULL, 1, &out.message));
    NULL_POINTER(midspan_encoder_pop_message_into(encoder, out.buffer, 1, NULL));
    NULL_POINTER(midspan_encoder_next_index(NULL, &out.index));
    NULL_POINTER(midspan_encoder_next_index(encoder, NULL));
    NULL_POINTER(midspan_encoder_keep_integers(NULL, 1));
    NULL_POINTER(midspan_encoder_last_integers(NULL, &out.kept_w, &out.size, &out.kept_y, &out.size));
    NULL_POINTER(midspan_encoder_last_integers(encoder, NULL, &out.size, &out.kept_y, &out.size));
    NULL_POINTER(midspan_encoder_last_integers(encoder, &out.kept_w, NULL, &out.kept_y, &out.size));
    NULL_POINTER(midspan_encoder_last_integers(encoder, &out.kept_w, &out.size, NULL, &out.size));
    NULL_POINTER(midspan_encoder_last_integers(encoder, &out.kept_w, &out.size, &out.kept_y, NULL));
    NULL_POINTER(midspan_encoder_last_clipped(NULL, &out.index));
    NULL_POINTER(midspan_encoder_last_clipped(encoder, NULL));
    NULL_POINTER(midspan_encoder_sent(NULL, &out.sent));
    NULL_POINTER(midspan_encoder_sent(encoder, NULL));
    NULL_POINTER(midspan_encoder_unlike(NULL, &out.flag, &out.sent));
    NULL_POINTER(midspan_encoder_unlike(encoder, NULL, &out.sent));
    CHECK(midspan_encoder_unlike(encoder, &flag, NULL));
    NULL_POINTER(midspan_encoder_memory_bytes(NULL, &out.size));
    NULL_POINTER(midspan_encoder_memory_bytes(encoder, NULL));

    NULL_POINTER(midspan_decoder_config_init(NULL));
    NULL_POINTER(midspan_decoder_new(NULL, &decoder_config, &made_decoder));
    REQUIRE(made_decoder == NULL);
    NULL_POINTER(midspan_decoder_new(model, NULL, &made_decoder));
    NULL_POINTER(midspan_decoder_new(model, &decoder_config, NULL));
    NULL_POINTER(midspan_decoder_join(NULL, &decoder_config, &byte, 1, 0, NULL, &made_decoder));
    NULL_POINTER(midspan_decoder_join(model, NULL, &byte, 1, 0, NULL, &made_decoder));
    NULL_POINTER(midspan_decoder_join(model, &decoder_config, NULL, 1, 0, NULL, &made_decoder));
    NULL_POINTER(midspan_decoder_join(model, &decoder_config, &byte, 1, 0, NULL, NULL));
    NULL_POINTER(midspan_decoder_fork(NULL, &made_decoder));
    NULL_POINTER(midspan_decoder_fork(decoder, NULL));
    NULL_POINTER(midspan_decoder_save(NULL, &out.bytes));
    NULL_POINTER(midspan_decoder_save(decoder, NULL));
    NULL_POINTER(midspan_decoder_restore(NULL, NULL, 0, &decoder_config, &byte, 1, &made_decoder));
    NULL_POINTER(midspan_decoder_restore(model, NULL, 1, &decoder_config, &byte, 1, &made_decoder));
    NULL_POINTER(midspan_decoder_restore(model, none, 1, &decoder_config, &byte, 1, &made_decoder));
    NULL_POINTER(midspan_decoder_restore(model, NULL, 0, NULL, &byte, 1, &made_decoder));
    NULL_POINTER(midspan_decoder_restore(model, NULL, 0, &decoder_config, NULL, 1, &made_decoder));
    NULL_POINTER(midspan_decoder_restore(model, NULL, 0, &decoder_config, &byte, 1, NULL));
    NULL_POINTER(midspan_decoder_add_model(NULL, model));
    NULL_POINTER(midspan_decoder_add_model(decoder, NULL));
    NULL_POINTER(midspan_decoder_set_threads(NULL, 2));
    NULL_POINTER(midspan_decoder_keep_integers(NULL, 1));
    NULL_POINTER(midspan_decoder_get_model(NULL, &out.info));
    NULL_POINTER(midspan_decoder_get_model(decoder, NULL));
    NULL_POINTER(midspan_decoder_push(NULL, &byte, 1));
    NULL_POINTER(midspan_decoder_push(decoder, NULL, 1));
    CHECK(midspan_decoder_push(decoder, NULL, 0));
    NULL_POINTER(midspan_decoder_push_message(NULL, &byte, 1));
    NULL_POINTER(midspan_decoder_push_message(decoder, NULL, 1));
    NULL_POINTER(midspan_decoder_push_datagram(NULL, &byte, 1));
    NULL_POINTER(midspan_decoder_push_datagram(decoder, NULL, 1));
    NULL_POINTER(midspan_decoder_finish(NULL));
    NULL_POINTER(midspan_decoder_poll(NULL, &out.event));
    NULL_POINTER(midspan_decoder_poll(decoder, NULL));
    NULL_POINTER(midspan_decoder_poll_into(NULL, out.hidden, width, &out.event));
    NULL_POINTER(midspan_decoder_poll_into(decoder, NULL, width, &out.event));
    NULL_POINTER(midspan_decoder_poll_into(decoder, out.hidden, width, NULL));
    NULL_POINTER(midspan_decoder_give_side(NULL, &flag, 1));
    NULL_POINTER(midspan_decoder_give_side(decoder, NULL, 1));
    NULL_POINTER(midspan_decoder_wanted_side(NULL, &out.index, &out.count));
    NULL_POINTER(midspan_decoder_wanted_side(decoder, NULL, &out.count));
    NULL_POINTER(midspan_decoder_wanted_side(decoder, &out.index, NULL));
    NULL_POINTER(midspan_decoder_conceal(NULL, 0, 1));
    NULL_POINTER(midspan_decoder_missing_elements(NULL, 0, &out.range, 1, &out.size));
    NULL_POINTER(midspan_decoder_missing_elements(decoder, 0, NULL, 1, &out.size));
    NULL_POINTER(midspan_decoder_missing_elements(decoder, 0, &out.range, 1, NULL));
    NULL_POINTER(midspan_decoder_next_index(NULL, &out.index));
    NULL_POINTER(midspan_decoder_next_index(decoder, NULL));
    NULL_POINTER(midspan_decoder_confirmed_index(NULL, &out.index));
    NULL_POINTER(midspan_decoder_confirmed_index(decoder, NULL));
    NULL_POINTER(midspan_decoder_resume_index(NULL, &out.index));
    NULL_POINTER(midspan_decoder_resume_index(decoder, NULL));
    NULL_POINTER(midspan_decoder_oldest_pending(NULL, &out.flag, &out.index));
    NULL_POINTER(midspan_decoder_oldest_pending(decoder, NULL, &out.index));
    CHECK(midspan_decoder_oldest_pending(decoder, &flag, NULL));
    NULL_POINTER(midspan_decoder_memory_bytes(NULL, &out.size));
    NULL_POINTER(midspan_decoder_memory_bytes(decoder, NULL));

    NULL_POINTER(midspan_reader_config_init(NULL));
    NULL_POINTER(midspan_reader_new(NULL, &made_reader));
    NULL_POINTER(midspan_reader_new(&reader_config, NULL));
    NULL_POINTER(midspan_reader_join(NULL, &byte, 1, 0, NULL, &made_reader));
    NULL_POINTER(midspan_reader_join(&reader_config, NULL, 1, 0, NULL, &made_reader));
    NULL_POINTER(midspan_reader_join(&reader_config, &byte, 1, 0, NULL, NULL));
    NULL_POINTER(midspan_reader_fork(NULL, &made_reader));
    NULL_POINTER(midspan_reader_fork(reader, NULL));
    NULL_POINTER(midspan_reader_save(NULL, &out.bytes));
    NULL_POINTER(midspan_reader_save(reader, NULL));
    NULL_POINTER(midspan_reader_restore(NULL, &byte, 1, &made_reader));
    NULL_POINTER(midspan_reader_restore(&reader_config, NULL, 1, &made_reader));
    NULL_POINTER(midspan_reader_restore(&reader_config, &byte, 1, NULL));
    NULL_POINTER(midspan_reader_push(NULL, &byte, 1));
    NULL_POINTER(midspan_reader_push(reader, NULL, 1));
    NULL_POINTER(midspan_reader_push_message(NULL, &byte, 1));
    NULL_POINTER(midspan_reader_push_message(reader, NULL, 1));
    NULL_POINTER(midspan_reader_push_datagram(NULL, &byte, 1));
    NULL_POINTER(midspan_reader_push_datagram(reader, NULL, 1));
    NULL_POINTER(midspan_reader_finish(NULL));
    NULL_POINTER(midspan_reader_poll(NULL, &out.chunk));
    NULL_POINTER(midspan_reader_poll(reader, NULL));
    NULL_POINTER(midspan_reader_offset(NULL, &out.index));
    NULL_POINTER(midspan_reader_offset(reader, NULL));
    NULL_POINTER(midspan_reader_memory_bytes(NULL, &out.size));
    NULL_POINTER(midspan_reader_memory_bytes(reader, NULL));

    NULL_POINTER(midspan_file_seek(NULL, 1, &byte, 1, 1, 0, &out.entry));
    NULL_POINTER(midspan_file_seek(&byte, 1, NULL, 1, 1, 0, &out.entry));
    NULL_POINTER(midspan_file_seek(&byte, 1, &byte, 1, 1, 0, NULL));

    NULL_POINTER(midspan_writer_new(NULL, &made_writer));
    NULL_POINTER(midspan_writer_new(&header, NULL));
    NULL_POINTER(midspan_writer_fork(NULL, &made_writer));
    NULL_POINTER(midspan_writer_fork(writer, NULL));
    NULL_POINTER(midspan_writer_save(NULL, &out.bytes));
    NULL_POINTER(midspan_writer_save(writer, NULL));
    NULL_POINTER(midspan_writer_restore(NULL, 1, &made_writer));
    NULL_POINTER(midspan_writer_restore(&byte, 1, NULL));
    NULL_POINTER(midspan_writer_frame(NULL, &byte, 1));
    NULL_POINTER(midspan_writer_frame(writer, NULL, 1));
    NULL_POINTER(midspan_writer_batch(NULL, 2, NULL, 0));
    NULL_POINTER(midspan_writer_batch(writer, 2, NULL, 1));
    midspan_payload nothing = {NULL, 1, 0};
    NULL_POINTER(midspan_writer_batch(writer, 2, &nothing, 1));
    NULL_POINTER(midspan_writer_target(NULL, 0, 1, NULL, 0));
    NULL_POINTER(midspan_writer_target(writer, 0, 1, NULL, 1));
    NULL_POINTER(midspan_writer_target_part(NULL, 0, 0, 1, &byte, 1));
    NULL_POINTER(midspan_writer_target_part(writer, 0, 0, 1, NULL, 1));
    NULL_POINTER(midspan_writer_cover_side(NULL, &flag, 1));
    NULL_POINTER(midspan_writer_cover_side(writer, NULL, 1));
    NULL_POINTER(midspan_writer_side_indices(NULL, 1, &byte, 1));
    NULL_POINTER(midspan_writer_side_indices(writer, 1, NULL, 1));
    NULL_POINTER(midspan_writer_checkpoint(NULL, 0, 0));
    NULL_POINTER(midspan_writer_reset(NULL, 0, 0, 0, 0));
    NULL_POINTER(midspan_writer_rewind(NULL, 0));
    NULL_POINTER(midspan_writer_quality(NULL, 0, 0));
    NULL_POINTER(midspan_writer_model_switch(NULL, digest, 0, 0, 0, 0, 0));
    NULL_POINTER(midspan_writer_model_switch(writer, NULL, 0, 0, 0, 0, 0));
    NULL_POINTER(midspan_writer_exact_frame(NULL, MIDSPAN_DTYPE_F32, &byte, 1, &byte, 1));
    NULL_POINTER(midspan_writer_exact_frame(writer, MIDSPAN_DTYPE_F32, NULL, 1, &byte, 1));
    NULL_POINTER(midspan_writer_exact_frame(writer, MIDSPAN_DTYPE_F32, &byte, 1, NULL, 1));
    NULL_POINTER(midspan_writer_extension(NULL, 1, &byte, 1));
    NULL_POINTER(midspan_writer_extension(writer, 1, NULL, 1));
    NULL_POINTER(midspan_writer_end(NULL, 0, 0));
    NULL_POINTER(midspan_writer_take_bytes(NULL, &out.bytes));
    NULL_POINTER(midspan_writer_take_bytes(writer, NULL));
    NULL_POINTER(midspan_writer_take_bytes_into(NULL, out.buffer, 1, &out.size));
    NULL_POINTER(midspan_writer_take_bytes_into(writer, NULL, 1, &out.size));
    NULL_POINTER(midspan_writer_take_bytes_into(writer, out.buffer, 1, NULL));
    NULL_POINTER(midspan_writer_pop_message(NULL, &out.message));
    NULL_POINTER(midspan_writer_pop_message(writer, NULL));
    NULL_POINTER(midspan_writer_pop_message_into(NULL, out.buffer, 1, &out.message));
    NULL_POINTER(midspan_writer_pop_message_into(writer, NULL, 1, &out.message));
    NULL_POINTER(midspan_writer_pop_message_into(writer, out.buffer, 1, NULL));
    NULL_POINTER(midspan_writer_ended(NULL, &out.flag));
    NULL_POINTER(midspan_writer_ended(writer, NULL));
    NULL_POINTER(midspan_writer_memory_bytes(NULL, &out.size));
    NULL_POINTER(midspan_writer_memory_bytes(writer, NULL));
    NULL_POINTER(midspan_writer_position(NULL, &out.index, &out.index));
    NULL_POINTER(midspan_writer_position(writer, NULL, &out.index));
    NULL_POINTER(midspan_writer_position(writer, &out.index, NULL));

    midspan_encoder_free(encoder);
    midspan_decoder_free(decoder);
    midspan_reader_free(reader);
    midspan_writer_free(writer);
    free(hidden);
    free(y);
    free(w);
}

/* Calls that are refused between those of a stream; what it sends is what it would have sent without them. */
static void refused_pushes(void) {
    midspan_encoder *encoder = open_encoder(model, MIDSPAN_BINDING_BYTE_STREAM);
    midspan_encoder *undisturbed = open_encoder(model, MIDSPAN_BINDING_BYTE_STREAM);
    float *hidden = calloc(3 * width + 1, sizeof *hidden);
    int16_t *y = calloc(width, sizeof *y), *w = calloc(channels, sizeof *w);
    midspan_error error;
    for (size_t i = 0; i < 3 * width; i++) hidden[i] = (float)((int)(i * 37 % 64) - 32) / 64.0f;
    CHECK(midspan_encoder_push_hidden(encoder, hidden, 2, width));
    CHECK(midspan_encoder_push_hidden(undisturbed, hidden, 2, width));

    FAILS(midspan_encoder_push_hidden(encoder, hidden, 0, width), MIDSPAN_ERROR_WRONG_SHAPE);
    REQUIRE(says("empty"));
    FAILS(midspan_encoder_push_hidden(encoder, hidden, 1, width + 1), MIDSPAN_ERROR_WRONG_SHAPE);
    CHECK(midspan_last_error(&error));
    REQUIRE(error.has_wanted && error.wanted == width && error.has_found && error.found == width + 1);
    REQUIRE(error.fault == MIDSPAN_FAULT_CALLER && says("width") && says("at fault: the caller"));
    FAILS(midspan_encoder_push_hidden(encoder, hidden, 1, 0), MIDSPAN_ERROR_WRONG_SHAPE);
    FAILS(midspan_encoder_push_y(encoder, y, 1, width - 1), MIDSPAN_ERROR_WRONG_SHAPE);
    FAILS(midspan_encoder_push_integers(encoder, y, width, w, channels + 1, 1), MIDSPAN_ERROR_WRONG_SHAPE);
    FAILS(midspan_encoder_push_exact(encoder, MIDSPAN_DTYPE_F16, (uint8_t *)hidden, 4 * width),
          MIDSPAN_ERROR_WRONG_SHAPE);
    FAILS(midspan_encoder_quantise(encoder, hidden, 1, width, y, width - 1), MIDSPAN_ERROR_SMALL_BUFFER);
    CHECK(midspan_last_error(&error));
    REQUIRE(error.wanted == width && error.found == width - 1);
    /* Counts that overflow, or whose bytes do. */
    INVALID(midspan_encoder_push_hidden(encoder, hidden, SIZE_MAX, width));
    INVALID(midspan_encoder_push_hidden(encoder, hidden, SIZE_MAX / width, width));
    /* So many frames that the product, cut to a size_t, is that of one frame. */
    size_t lowest_bit = width & (~width + 1);
    REQUIRE(lowest_bit > 1 && (SIZE_MAX / lowest_bit + 2) * width == width);
    INVALID(midspan_encoder_push_hidden(encoder, hidden, SIZE_MAX / lowest_bit + 2, width));
    INVALID(midspan_encoder_push_y(encoder, y, SIZE_MAX / 2, width));
    INVALID(midspan_encoder_set_side(encoder, (uint32_t *)hidden, SIZE_MAX / 4, MIDSPAN_SIDE_SENT));
    INVALID(midspan_encoder_extension(encoder, 1, (uint8_t *)hidden, SIZE_MAX));
    INVALID(midspan_encoder_push_exact(encoder, MIDSPAN_DTYPE_F32, (uint8_t *)hidden, SIZE_MAX / 2 + 1));
    /* A pointer between two values. */
    INVALID(midspan_encoder_push_hidden(encoder, (float *)(void *)((char *)hidden + 1), 1, width));
    REQUIRE(says("hidden is not aligned"));
    /* Enumerations. */
    INVALID(midspan_encoder_push_exact(encoder, 3, (uint8_t *)hidden, 4 * width));
    CHECK(midspan_last_error(&error));
    REQUIRE(error.has_found && error.found == 3 && says("dtype is 3"));
    uint32_t token = 0;
    INVALID(midspan_encoder_set_side(encoder, &token, 1, 2));
    /* Values. */
    hidden[2 * width + 3] = NAN;
    FAILS(midspan_encoder_push_hidden(encoder, hidden, 3, width), MIDSPAN_ERROR_HIDDEN_NOT_FINITE);
    CHECK(midspan_last_error(&error));
    REQUIRE(error.has_element && error.frame == 2 && error.element == 3 && says("NaN"));
    hidden[2 * width + 3] = -INFINITY;
    FAILS(midspan_encoder_push_hidden(encoder, hidden + 2 * width, 1, width), MIDSPAN_ERROR_HIDDEN_NOT_FINITE);
    hidden[2 * width + 3] = 0.5f;
    y[1] = INT16_MAX;
    FAILS(midspan_encoder_push_y(encoder, y, 1, width), MIDSPAN_ERROR_VALUE_OUT_OF_RANGE);
    /* Another floating-point mode would give another Y. */
    if (fesetround(FE_UPWARD) == 0) {
        volatile float small = 1e-10f;
        volatile float sum = 1.0f + small;
        midspan_result result = MIDSPAN_OK;
        /* valgrind rounds to the nearest all the same. */
        if (sum > 1.0f) result = midspan_encoder_push_hidden(encoder, hidden, 1, width);
        fesetround(FE_TONEAREST);
        if (sum > 1.0f) FAILS(result, MIDSPAN_ERROR_FLOAT_MODE);
    }
    /* Control calls. */
    FAILS(midspan_encoder_rewind(encoder, 2), MIDSPAN_ERROR_REWIND_TARGET);
    FAILS(midspan_encoder_set_quality(encoder, 255), MIDSPAN_ERROR_UNKNOWN_QUALITY);
    FAILS(midspan_encoder_switch_model(encoder, side_model, 0), MIDSPAN_ERROR_WRONG_SIDE_FLAG);
    FAILS(midspan_encoder_set_side(encoder, &token, 1, MIDSPAN_SIDE_SENT), MIDSPAN_ERROR_WRONG_SIDE_INDICES);
    midspan_message message;
    FAILS(midspan_encoder_pop_message(encoder, &message), MIDSPAN_ERROR_NOT_AVAILABLE);
    FAILS(midspan_encoder_pop_message_into(encoder, NULL, 0, &message), MIDSPAN_ERROR_NOT_AVAILABLE);

    CHECK(midspan_encoder_push_hidden(encoder, hidden + 2 * width, 1, width));
    CHECK(midspan_encoder_push_hidden(undisturbed, hidden + 2 * width, 1, width));
    CHECK(midspan_encoder_end(encoder));
    CHECK(midspan_encoder_end(undisturbed));
    FAILS(midspan_encoder_end(encoder), MIDSPAN_ERROR_AFTER_END);
    FAILS(midspan_encoder_push_hidden(encoder, hidden, 1, width), MIDSPAN_ERROR_AFTER_END);
    FAILS(midspan_encoder_checkpoint(encoder), MIDSPAN_ERROR_AFTER_END);
    FAILS(midspan_encoder_reset(encoder), MIDSPAN_ERROR_AFTER_END);
    size_t needed, len;
    FAILS(midspan_encoder_take_bytes_into(encoder, NULL, 0, &needed), MIDSPAN_ERROR_SMALL_BUFFER);
    uint8_t *buffer = malloc(needed);
    FAILS(midspan_encoder_take_bytes_into(encoder, buffer, needed - 1, &len), MIDSPAN_ERROR_SMALL_BUFFER);
    CHECK(midspan_last_error(&error));
    REQUIRE(len == needed && error.wanted == needed && error.found == needed - 1);
    CHECK(midspan_encoder_take_bytes_into(encoder, buffer, needed, &len));
    midspan_bytes bytes;
    CHECK(midspan_encoder_take_bytes(undisturbed, &bytes));
    REQUIRE(bytes.len == len && memcmp(bytes.data, buffer, len) == 0);
    CHECK(midspan_encoder_take_bytes_into(encoder, NULL, 0, &len));
    REQUIRE(len == 0);
    /* The bytes outlive their encoder. */
    midspan_encoder_free(undisturbed);
    midspan_encoder_free(encoder);
    REQUIRE(memcmp(bytes.data, buffer, bytes.len) == 0);
    midspan_bytes_free(&bytes);
    REQUIRE(bytes.data == NULL && bytes.len == 0);
    free(buffer);
    free(hidden);
    free(y);
    free(w);
}

static void settings(void) {
    midspan_encoder *encoder;
    midspan_encoder_config good, config;
    CHECK(midspan_encoder_config_init(&good, NULL));
#define WITH(field, value, number)                                                                                     \
    do {                                                                                                               \
        config = good;                                                                                                 \
        config.field = value;                                                                                          \
        FAILS(midspan_encoder_new(model, &config, &encoder), number);                                                  \
        REQUIRE(encoder == NULL);                                                                                      \
    } while (0)
    WITH(mode, 2, MIDSPAN_ERROR_INVALID_ARGUMENT);
    WITH(binding, 3, MIDSPAN_ERROR_INVALID_ARGUMENT);
    WITH(check, 4, MIDSPAN_ERROR_INVALID_ARGUMENT);
    WITH(clipping, UINT32_MAX, MIDSPAN_ERROR_INVALID_ARGUMENT);
    WITH(quality, 200, MIDSPAN_ERROR_UNKNOWN_QUALITY);
    WITH(lanes, 0, MIDSPAN_ERROR_BAD_CONFIG);
    REQUIRE(says("lanes is 0"));
    WITH(max_frames_per_chunk, 0, MIDSPAN_ERROR_BAD_CONFIG);
    WITH(max_rewind, UINT32_MAX, MIDSPAN_ERROR_BAD_CONFIG);
    WITH(datagram_limit, 255, MIDSPAN_ERROR_BAD_CONFIG);
    WITH(memory_limit, 1, MIDSPAN_ERROR_MEMORY_LIMIT);
    REQUIRE(says("memory_limit"));
    midspan_error error;
    CHECK(midspan_last_error(&error));
    REQUIRE(error.fault == MIDSPAN_FAULT_RESOURCE && error.limit_owner == MIDSPAN_LIMIT_OWN && error.wanted == 1);
    WITH(fields, (const midspan_field *)NULL; config.field_count = 1, MIDSPAN_ERROR_NULL_POINTER);
    WITH(has_rate_weight, 1; config.rate_weight = -1.0f, MIDSPAN_ERROR_BAD_CONFIG);
    /* Settings that no _init function set. */
    for (int fill = 0; fill < 256; fill += 255) {
        memset(&config, fill, sizeof config);
        INVALID(midspan_encoder_new(model, &config, &encoder));
        REQUIRE(says("struct_size") && encoder == NULL);
        config.struct_size = sizeof config;
        FAILS(midspan_encoder_new(model, &config, &encoder),
              fill == 0 ? MIDSPAN_ERROR_BAD_CONFIG : MIDSPAN_ERROR_INVALID_ARGUMENT);
    }

    midspan_quality_info quality;
    CHECK(midspan_model_get_quality(model, 0, &quality));
    FAILS(midspan_model_get_quality(model, 255, &quality), MIDSPAN_ERROR_UNKNOWN_QUALITY);

    /* Values that the quality cannot represent. */
    config = good;
    config.clipping = MIDSPAN_CLIPPING_REFUSE;
    CHECK(midspan_encoder_new(model, &config, &encoder));
    float *hidden = calloc(width, sizeof *hidden);
    hidden[1] = 1e30f;
    uint64_t clipped;
    FAILS(midspan_encoder_push_hidden(encoder, hidden, 1, width), MIDSPAN_ERROR_HIDDEN_CLIPPED);
    midspan_encoder_free(encoder);
    encoder = open_encoder(model, MIDSPAN_BINDING_BYTE_STREAM);
    CHECK(midspan_encoder_push_hidden(encoder, hidden, 1, width));
    CHECK(midspan_encoder_last_clipped(encoder, &clipped));
    REQUIRE(clipped == 1);
    midspan_encoder_free(encoder);
    free(hidden);

    midspan_decoder *decoder;
    midspan_decoder_config decoder_config;
    CHECK(midspan_decoder_config_init(&decoder_config));
    decoder_config.binding = 9;
    INVALID(midspan_decoder_new(model, &decoder_config, &decoder));
    REQUIRE(decoder == NULL);
    midspan_reader *reader;
    midspan_reader_config reader_config;
    CHECK(midspan_reader_config_init(&reader_config));
    reader_config.binding = 9;
    INVALID(midspan_reader_new(&reader_config, &reader));
}

static midspan_result poll_to_end(midspan_decoder *decoder, uint64_t *frames) {
    midspan_event event;
    for (;;) {
        midspan_result result = midspan_decoder_poll(decoder, &event);
        if (result != MIDSPAN_OK) return result;
        if (event.kind == MIDSPAN_EVENT_FRAMES) *frames += event.count;
        if (event.kind == MIDSPAN_EVENT_END || event.kind == MIDSPAN_EVENT_NEED_MORE) return result;
    }
}

static void streams(void) {
    midspan_bytes bytes = stream_of(model);
    midspan_event event;
    uint64_t frames = 0;
    /* Another model. */
    midspan_decoder *decoder = open_decoder(other_model, MIDSPAN_BINDING_BYTE_STREAM);
    CHECK(midspan_decoder_push(decoder, bytes.data, bytes.len));
    FAILS(midspan_decoder_poll(decoder, &event), MIDSPAN_ERROR_WRONG_MODEL);
    midspan_error error;
    CHECK(midspan_last_error(&error));
    REQUIRE(error.fault == MIDSPAN_FAULT_MODEL && error.offset == 9);
    /* The same error answers every later call. */
    FAILS(midspan_decoder_poll(decoder, &event), MIDSPAN_ERROR_WRONG_MODEL);
    FAILS(midspan_decoder_push(decoder, bytes.data, 1), MIDSPAN_ERROR_WRONG_MODEL);
    midspan_decoder_free(decoder);
    /* Garbage, cut, and a changed byte. */
    decoder = open_decoder(model, MIDSPAN_BINDING_BYTE_STREAM);
    CHECK(midspan_decoder_push(decoder, (const uint8_t *)"garbage", 7));
    FAILS(midspan_decoder_poll(decoder, &event), MIDSPAN_ERROR_BAD_MAGIC);
    midspan_decoder_free(decoder);
    for (size_t cut = 0; cut < bytes.len; cut++) {
        decoder = open_decoder(model, MIDSPAN_BINDING_BYTE_STREAM);
        CHECK(midspan_decoder_push(decoder, bytes.data, cut));
        frames = 0;
        CHECK(poll_to_end(decoder, &frames));
        CHECK(midspan_decoder_finish(decoder));
        FAILS(poll_to_end(decoder, &frames), MIDSPAN_ERROR_TRUNCATED);
        FAILS(midspan_decoder_push(decoder, bytes.data, 1), MIDSPAN_ERROR_TRUNCATED);
        midspan_decoder_free(decoder);
    }
    uint8_t *changed = malloc(bytes.len);
    for (size_t at = 0; at < bytes.len; at++) {
        memcpy(changed, bytes.data, bytes.len);
        changed[at] ^= 0x40;
        decoder = open_decoder(model, MIDSPAN_BINDING_BYTE_STREAM);
        CHECK(midspan_decoder_push(decoder, changed, bytes.len));
        CHECK(midspan_decoder_finish(decoder));
        midspan_result result = poll_to_end(decoder, &frames);
        REQUIRE(result > 100 && result < 1000);
        midspan_decoder_free(decoder);
    }
    free(changed);
    /* Without integers, and with threads, the hidden states are the same. */
    midspan_decoder *plain = open_decoder(model, MIDSPAN_BINDING_BYTE_STREAM);
    midspan_event other;
    size_t held, held_more;
    decoder = open_decoder(model, MIDSPAN_BINDING_BYTE_STREAM);
    CHECK(midspan_decoder_keep_integers(decoder, 0));
    CHECK(midspan_decoder_set_threads(decoder, 2));
    CHECK(midspan_decoder_memory_bytes(decoder, &held));
    CHECK(midspan_decoder_push(decoder, bytes.data, bytes.len));
    CHECK(midspan_decoder_memory_bytes(decoder, &held_more));
    REQUIRE(held_more >= held + bytes.len);
    CHECK(midspan_decoder_push(plain, bytes.data, bytes.len));
    for (int i = 0; i < 2; i++) {
        CHECK(midspan_decoder_poll(decoder, &event));
        CHECK(midspan_decoder_poll(plain, &other));
    }
    REQUIRE(event.kind == MIDSPAN_EVENT_FRAMES && event.w == NULL && event.y == NULL && other.y_len == 3 * width);
    REQUIRE(memcmp(event.hidden, other.hidden, 3 * width * sizeof(float)) == 0);
    midspan_model_info info;
    CHECK(midspan_decoder_get_model(decoder, &info));
    REQUIRE(info.hidden_width == width);
    midspan_decoder_free(decoder);
    midspan_decoder_free(plain);
    /* Calls that do not fit the session. */
    decoder = open_decoder(model, MIDSPAN_BINDING_BYTE_STREAM);
    midspan_range range;
    size_t count;
    uint32_t token = 0;
    FAILS(midspan_decoder_push_message(decoder, bytes.data, bytes.len), MIDSPAN_ERROR_NOT_AVAILABLE);
    INVALID(midspan_decoder_push(decoder, bytes.data, SIZE_MAX));
    INVALID(midspan_decoder_push_datagram(decoder, bytes.data, SIZE_MAX / 2 + 1));
    INVALID(midspan_decoder_give_side(decoder, &token, SIZE_MAX / 4));
    FAILS(midspan_decoder_conceal(decoder, 0, 1), MIDSPAN_ERROR_FRAME_NOT_PENDING);
    FAILS(midspan_decoder_conceal(decoder, UINT64_MAX, UINT64_MAX), MIDSPAN_ERROR_FRAME_NOT_PENDING);
    FAILS(midspan_decoder_missing_elements(decoder, 0, &range, 1, &count), MIDSPAN_ERROR_FRAME_NOT_PENDING);
    FAILS(midspan_decoder_give_side(decoder, &token, 1), MIDSPAN_ERROR_WRONG_SIDE_INDICES);
    /* A buffer that is too small: the event stays, for both polls, for a fork, and no save loses it. */
    float *rows = calloc(3 * width, sizeof *rows);
    midspan_decoder *fork;
    midspan_bytes saved = {NULL, 0, NULL};
    CHECK(midspan_decoder_push(decoder, bytes.data, bytes.len));
    CHECK(midspan_decoder_finish(decoder));
    FAILS(midspan_decoder_push(decoder, bytes.data, 1), MIDSPAN_ERROR_AFTER_END);
    CHECK(midspan_decoder_poll_into(decoder, NULL, 0, &event));
    REQUIRE(event.kind == MIDSPAN_EVENT_OPENED && event.header != NULL);
    for (int i = 0; i < 2; i++) {
        FAILS(midspan_decoder_poll_into(decoder, rows, 3 * width - 1, &event), MIDSPAN_ERROR_SMALL_BUFFER);
        REQUIRE(event.kind == MIDSPAN_EVENT_FRAMES && event.count == 3 && event.hidden_len == 3 * width);
        REQUIRE(event.hidden == NULL && event.w == NULL && event.y == NULL);
    }
    FAILS(midspan_decoder_save(decoder, &saved), MIDSPAN_ERROR_NOT_AVAILABLE);
    CHECK(midspan_decoder_fork(decoder, &fork));
    CHECK(midspan_decoder_poll_into(decoder, rows, 3 * width, &event));
    REQUIRE(event.hidden == rows && event.hidden_len == 3 * width && event.y_len == 3 * width);
    CHECK(midspan_decoder_poll(fork, &event));
    REQUIRE(event.hidden != rows && memcmp(event.hidden, rows, event.hidden_len * sizeof *rows) == 0);
    /* The verdict, ended, the end; and the end again. */
    CHECK(midspan_decoder_poll(decoder, &event));
    REQUIRE(event.kind == MIDSPAN_EVENT_VERDICT && event.verdict == MIDSPAN_VERDICT_Y_CONFIRMED);
    REQUIRE(event.index == 0 && event.end_index == 3);
    CHECK(midspan_decoder_poll(decoder, &event));
    REQUIRE(event.kind == MIDSPAN_EVENT_ENDED && event.frames_coded == 3);
    for (int i = 0; i < 2; i++) {
        CHECK(midspan_decoder_poll(decoder, &event));
        REQUIRE(event.kind == MIDSPAN_EVENT_END && event.hidden == NULL && event.has_index == 0);
    }
    midspan_decoder_free(fork);
    midspan_decoder_free(decoder);
    free(rows);
    midspan_bytes_free(&bytes);
}

/* Saving in the middle, and restoring what is damaged, of another model, or nothing at all. */
static void saved_sessions(void) {
    midspan_bytes bytes = stream_of(model), saved;
    midspan_decoder_config config;
    CHECK(midspan_decoder_config_init(&config));
    midspan_decoder *decoder = open_decoder(model, MIDSPAN_BINDING_BYTE_STREAM), *restored;
    uint64_t frames = 0;
    CHECK(midspan_decoder_push(decoder, bytes.data, bytes.len / 2));
    CHECK(poll_to_end(decoder, &frames));
    CHECK(midspan_decoder_save(decoder, &saved));
    FAILS(midspan_decoder_restore(other_model, NULL, 0, &config, saved.data, saved.len, &restored),
          MIDSPAN_ERROR_WRONG_MODEL);
    REQUIRE(restored == NULL);
    const midspan_model *further[1] = {model};
    CHECK(midspan_decoder_restore(other_model, further, 1, &config, saved.data, saved.len, &restored));
    CHECK(midspan_decoder_push(restored, bytes.data + bytes.len / 2, bytes.len - bytes.len / 2));
    CHECK(midspan_decoder_finish(restored));
    CHECK(poll_to_end(restored, &frames));
    REQUIRE(frames == 3);
    midspan_decoder_free(restored);
    uint8_t *damaged = malloc(saved.len);
    for (size_t at = 0; at < saved.len; at += 7) {
        memcpy(damaged, saved.data, saved.len);
        damaged[at] ^= 1;
        FAILS(midspan_decoder_restore(model, NULL, 0, &config, damaged, saved.len, &restored),
              MIDSPAN_ERROR_SAVED_SESSION);
        REQUIRE(restored == NULL);
    }
    FAILS(midspan_decoder_restore(model, NULL, 0, &config, NULL, 0, &restored), MIDSPAN_ERROR_SAVED_SESSION);
    midspan_encoder *encoder;
    FAILS(midspan_encoder_restore(model, saved.data, saved.len, 1u << 20, &encoder), MIDSPAN_ERROR_SAVED_SESSION);
    midspan_reader *reader;
    midspan_reader_config reader_config;
    CHECK(midspan_reader_config_init(&reader_config));
    FAILS(midspan_reader_restore(&reader_config, saved.data, saved.len, &reader), MIDSPAN_ERROR_SAVED_SESSION);
    midspan_writer *writer;
    FAILS(midspan_writer_restore(saved.data, saved.len, &writer), MIDSPAN_ERROR_SAVED_SESSION);
    INVALID(midspan_writer_restore(saved.data, SIZE_MAX, &writer));
    free(damaged);
    midspan_bytes_free(&saved);
    midspan_decoder_free(decoder);
    midspan_bytes_free(&bytes);
}

/* Side indices: none, too many, out of the vocabulary, at both ends. */
static void side_indices(void) {
    midspan_model_info info;
    CHECK(midspan_model_get_info(side_model, &info));
    REQUIRE(info.takes_side && info.side_vocabulary > 2);
    midspan_encoder *encoder = open_encoder(side_model, MIDSPAN_BINDING_BYTE_STREAM);
    float *hidden = calloc(2 * info.hidden_width, sizeof *hidden);
    uint32_t outside[2] = {0, info.side_vocabulary + 1}, wrong[2] = {1, 1}, none[2] = {0, info.side_vocabulary};
    uint32_t tokens[3] = {0, 1, 2};
    FAILS(midspan_encoder_push_hidden(encoder, hidden, 1, info.hidden_width), MIDSPAN_ERROR_WRONG_SIDE_INDICES);
    FAILS(midspan_encoder_set_side(encoder, outside, 2, MIDSPAN_SIDE_SENT), MIDSPAN_ERROR_WRONG_SIDE_INDICES);
    CHECK(midspan_encoder_set_side(encoder, wrong, 1, MIDSPAN_SIDE_SENT));
    FAILS(midspan_encoder_push_hidden(encoder, hidden, 2, info.hidden_width), MIDSPAN_ERROR_WRONG_SIDE_INDICES);
    CHECK(midspan_encoder_set_side(encoder, none, 2, MIDSPAN_SIDE_SENT));
    CHECK(midspan_encoder_push_hidden(encoder, hidden, 2, info.hidden_width));
    midspan_encoder_free(encoder);
    free(hidden);

    midspan_bytes bytes = stream_of(side_model);
    midspan_decoder *decoder = open_decoder(side_model, MIDSPAN_BINDING_BYTE_STREAM);
    midspan_event event;
    uint64_t frames = 0, index, count;
    CHECK(midspan_decoder_push(decoder, bytes.data, bytes.len));
    CHECK(poll_to_end(decoder, &frames));
    CHECK(midspan_decoder_wanted_side(decoder, &index, &count));
    REQUIRE(frames == 0 && index == 0 && count == 3);
    CHECK(midspan_decoder_finish(decoder));
    FAILS(midspan_decoder_poll(decoder, &event), MIDSPAN_ERROR_WRONG_SIDE_INDICES);
    FAILS(midspan_decoder_give_side(decoder, tokens, 2), MIDSPAN_ERROR_WRONG_SIDE_INDICES);
    FAILS(midspan_decoder_give_side(decoder, outside, 2), MIDSPAN_ERROR_WRONG_SIDE_INDICES);
    /* None of this ended the session. */
    CHECK(midspan_decoder_give_side(decoder, tokens, 3));
    CHECK(poll_to_end(decoder, &frames));
    REQUIRE(frames == 3);
    CHECK(midspan_decoder_wanted_side(decoder, &index, &count));
    REQUIRE(count == 0);
    midspan_decoder_free(decoder);
    midspan_bytes_free(&bytes);
}

/* Layered mode in messages: datagrams of any bytes, lost and late targets, parts. */
static void datagrams(void) {
    midspan_encoder_config config;
    midspan_encoder *encoder;
    CHECK(midspan_encoder_config_init(&config, NULL));
    config.mode = MIDSPAN_MODE_LAYERED;
    config.binding = MIDSPAN_BINDING_MESSAGE;
    CHECK(midspan_encoder_new(model, &config, &encoder));
    midspan_decoder *decoder = open_decoder(model, MIDSPAN_BINDING_MESSAGE);
    float *hidden = calloc(width, sizeof *hidden);
    for (int i = 0; i < 3; i++) CHECK(midspan_encoder_push_hidden(encoder, hidden, 1, width));
    midspan_bytes unused;
    FAILS(midspan_encoder_take_bytes(encoder, &unused), MIDSPAN_ERROR_NOT_AVAILABLE);
    midspan_message message, target = {{NULL, 0, NULL}, 0, 0, 0};
    midspan_event event;
    for (;;) {
        CHECK(midspan_encoder_pop_message(encoder, &message));
        if (message.message_class == MIDSPAN_MESSAGE_NONE) break;
        if (message.message_class != MIDSPAN_MESSAGE_DROPPABLE) {
            CHECK(midspan_decoder_push_message(decoder, message.bytes.data, message.bytes.len));
        } else if (message.first_frame == 1) {
            target = message;
            continue;
        }
        midspan_bytes_free(&message.bytes);
    }
    FAILS(midspan_decoder_push(decoder, target.bytes.data, 1), MIDSPAN_ERROR_NOT_AVAILABLE);
    uint64_t frames = 0;
    CHECK(poll_to_end(decoder, &frames));
    uint32_t pending;
    uint64_t index;
    CHECK(midspan_decoder_oldest_pending(decoder, &pending, &index));
    REQUIRE(pending == 1 && index == 0);
    uint8_t noise[200];
    for (size_t i = 0; i < sizeof noise; i++) noise[i] = (uint8_t)(i * 151 + 7);
    for (size_t len = 1; len < sizeof noise; len += 13) {
        CHECK(midspan_decoder_push_datagram(decoder, noise, len));
        CHECK(midspan_decoder_poll(decoder, &event));
        REQUIRE(event.kind == MIDSPAN_EVENT_TARGET_REFUSED && event.refusal == MIDSPAN_REFUSAL_DAMAGED);
    }
    midspan_range ranges[2];
    size_t count;
    FAILS(midspan_decoder_missing_elements(decoder, 0, NULL, 0, &count), MIDSPAN_ERROR_SMALL_BUFFER);
    REQUIRE(count == 1);
    CHECK(midspan_decoder_missing_elements(decoder, 0, ranges, 2, &count));
    REQUIRE(count == 1 && ranges[0].first == 0 && ranges[0].end == width);
    /* The target comes twice: the second is late. */
    for (int i = 0; i < 2; i++) {
        CHECK(midspan_decoder_push_datagram(decoder, target.bytes.data, target.bytes.len));
        CHECK(midspan_decoder_poll(decoder, &event));
        REQUIRE(event.kind == (i == 0 ? MIDSPAN_EVENT_TARGETS : MIDSPAN_EVENT_TARGET_REFUSED));
        REQUIRE(event.refusal == (i == 0 ? MIDSPAN_REFUSAL_NONE : MIDSPAN_REFUSAL_LATE));
    }
    midspan_bytes_free(&target.bytes);
    FAILS(midspan_decoder_conceal(decoder, 0, 2), MIDSPAN_ERROR_FRAME_NOT_PENDING);
    CHECK(midspan_decoder_conceal(decoder, 0, 1));
    CHECK(midspan_decoder_poll(decoder, &event));
    REQUIRE(event.kind == MIDSPAN_EVENT_TARGETS && event.concealed == 1 && event.hidden_len == width);
    midspan_encoder_free(encoder);
    midspan_decoder_free(decoder);
    free(hidden);
}

static void models(const char *path) {
    size_t len;
    uint8_t *file = read_file(path, &len);
    midspan_model *loaded;
    FAILS(midspan_model_load(file, len, 16, &loaded), MIDSPAN_ERROR_MEMORY_LIMIT);
    REQUIRE(loaded == NULL);
    FAILS(midspan_model_load(file, len / 2, 1u << 30, &loaded), MIDSPAN_ERROR_MODEL_FILE_SYNTAX);
    FAILS(midspan_model_load((const uint8_t *)"garbage!garbage!", 16, 1u << 30, &loaded),
          MIDSPAN_ERROR_MODEL_FILE_SYNTAX);
    FAILS(midspan_model_load(NULL, 0, 1u << 30, &loaded), MIDSPAN_ERROR_MODEL_FILE_SYNTAX);
    INVALID(midspan_model_load(file, SIZE_MAX, 1u << 30, &loaded));
    for (size_t at = 0; at < len; at += len / 50 + 1) {
        file[at] ^= 0x80;
        midspan_result result = midspan_model_load(file, len, 1u << 24, &loaded);
        REQUIRE((result == MIDSPAN_OK) == (loaded != NULL));
        REQUIRE(result == MIDSPAN_OK || (result >= 701 && result <= 708));
        midspan_model_free(loaded);
        file[at] ^= 0x80;
    }
    free(file);
}

/* A writer keeps the rules; what it wrote, a reader reads. */
static void container(void) {
    uint8_t digest[32] = {7};
    midspan_header header;
    midspan_writer *writer, *restored;
    CHECK(midspan_header_init(&header, digest));
    midspan_header wrong = header;
    wrong.max_frames = 0;
    FAILS(midspan_writer_new(&wrong, &writer), MIDSPAN_ERROR_BAD_CONFIG);
    REQUIRE(writer == NULL);
    wrong = header;
    wrong.mode = 7;
    INVALID(midspan_writer_new(&wrong, &writer));
    header.mode = MIDSPAN_MODE_LAYERED;
    header.binding = MIDSPAN_BINDING_FILE;
    header.max_rewind = 4;
    CHECK(midspan_writer_new(&header, &writer));
    const midspan_payload lanes[2] = {{(const uint8_t *)"lane one", 8, 0}, {(const uint8_t *)"two", 3, 0}};
    const midspan_payload zero = {(const uint8_t *)"zero\0", 5, 0}, long_one = {digest, SIZE_MAX, 0};
    CHECK(midspan_writer_frame(writer, (const uint8_t *)"w", 1));
    FAILS(midspan_writer_frame(writer, zero.data, zero.len), MIDSPAN_ERROR_SEAL_NOT_CANONICAL);
    FAILS(midspan_writer_batch(writer, 1, lanes, 1), MIDSPAN_ERROR_BATCH_OF_ONE);
    FAILS(midspan_writer_batch(writer, 2, NULL, 0), MIDSPAN_ERROR_LANE_COUNT);
    FAILS(midspan_writer_batch(writer, 1u << 30, lanes, 2), MIDSPAN_ERROR_TOO_MANY_FRAMES);
    INVALID(midspan_writer_batch(writer, 2, &long_one, 1));
    INVALID(midspan_writer_batch(writer, 2, lanes, SIZE_MAX / 8));
    CHECK(midspan_writer_batch(writer, 4, lanes, 2));
    FAILS(midspan_writer_target(writer, 9, 1, lanes, 1), MIDSPAN_ERROR_FRAME_NOT_PENDING);
    CHECK(midspan_writer_target(writer, 0, 1, lanes, 1));
    FAILS(midspan_writer_target_part(writer, 1, 5, 5, lanes[0].data, lanes[0].len), MIDSPAN_ERROR_FIELD_OUT_OF_RANGE);
    FAILS(midspan_writer_target_part(writer, 1, 9, 5, lanes[0].data, lanes[0].len), MIDSPAN_ERROR_FIELD_OUT_OF_RANGE);
    CHECK(midspan_writer_target_part(writer, 1, 5, 9, lanes[0].data, lanes[0].len));
    FAILS(midspan_writer_side_indices(writer, 1, lanes[0].data, 1), MIDSPAN_ERROR_KIND_NOT_IN_MODE);
    FAILS(midspan_writer_rewind(writer, 5), MIDSPAN_ERROR_REWIND_TARGET);
    FAILS(midspan_writer_rewind(writer, 0), MIDSPAN_ERROR_REWIND_TOO_FAR);
    CHECK(midspan_writer_rewind(writer, 4));
    FAILS(midspan_writer_quality(writer, 1, 20000), MIDSPAN_ERROR_FIELD_OUT_OF_RANGE);
    CHECK(midspan_writer_quality(writer, 1, 100));
    CHECK(midspan_writer_checkpoint(writer, 1, 2));
    CHECK(midspan_writer_reset(writer, 0, 0, 3, 4));
    FAILS(midspan_writer_exact_frame(writer, MIDSPAN_DTYPE_F32, lanes[0].data, 1, digest, 3),
          MIDSPAN_ERROR_WRONG_SHAPE);
    INVALID(midspan_writer_exact_frame(writer, 8, lanes[0].data, 1, digest, 4));
    CHECK(midspan_writer_exact_frame(writer, MIDSPAN_DTYPE_BF16, lanes[0].data, 1, digest, 4));
    CHECK(midspan_writer_extension(writer, 27, digest, 5));
    CHECK(midspan_writer_model_switch(writer, digest, 9, 0, 0, 5, 6));
    midspan_bytes saved, bytes;
    CHECK(midspan_writer_save(writer, &saved));
    midspan_writer_free(writer);
    CHECK(midspan_writer_restore(saved.data, saved.len, &restored));
    midspan_bytes_free(&saved);
    CHECK(midspan_writer_end(restored, 7, 8));
    FAILS(midspan_writer_frame(restored, lanes[0].data, 1), MIDSPAN_ERROR_AFTER_END);
    uint64_t index, offset;
    CHECK(midspan_writer_position(restored, &index, &offset));
    size_t needed;
    FAILS(midspan_writer_take_bytes_into(restored, NULL, 0, &needed), MIDSPAN_ERROR_SMALL_BUFFER);
    CHECK(midspan_writer_take_bytes(restored, &bytes));
    REQUIRE(bytes.len == offset && needed == offset && index == 5);
    midspan_message message;
    FAILS(midspan_writer_pop_message(restored, &message), MIDSPAN_ERROR_NOT_AVAILABLE);
    midspan_writer_free(restored);

    static const uint32_t kinds[] = {
        MIDSPAN_CHUNK_HEADER,     MIDSPAN_CHUNK_FRAME,       MIDSPAN_CHUNK_BATCH,        MIDSPAN_CHUNK_TARGET,
        MIDSPAN_CHUNK_TARGET,     MIDSPAN_CHUNK_REWIND,      MIDSPAN_CHUNK_QUALITY,      MIDSPAN_CHUNK_CHECKPOINT,
        MIDSPAN_CHUNK_RESET,      MIDSPAN_CHUNK_EXACT_FRAME, MIDSPAN_CHUNK_EXTENSION,    MIDSPAN_CHUNK_MODEL_SWITCH,
        MIDSPAN_CHUNK_END,        MIDSPAN_CHUNK_SEEK_INDEX,  MIDSPAN_CHUNK_FOOTER,
    };
    midspan_reader_config config;
    midspan_reader *reader;
    midspan_chunk chunk;
    CHECK(midspan_reader_config_init(&config));
    CHECK(midspan_reader_new(&config, &reader));
    INVALID(midspan_reader_push(reader, bytes.data, SIZE_MAX));
    FAILS(midspan_reader_push_message(reader, bytes.data, bytes.len), MIDSPAN_ERROR_NOT_AVAILABLE);
    CHECK(midspan_reader_push(reader, bytes.data, bytes.len));
    CHECK(midspan_reader_finish(reader));
    uint64_t place = 0, join = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        CHECK(midspan_reader_poll(reader, &chunk));
        REQUIRE(chunk.kind == kinds[i] && chunk.offset == place);
        place += chunk.wire_len;
        if (chunk.kind == MIDSPAN_CHUNK_BATCH) {
            REQUIRE(chunk.frames == 4 && chunk.payload_count == 2 && memcmp(chunk.payloads[1].data, "two", 3) == 0);
        }
        if (chunk.is_part) REQUIRE(chunk.first_element == 5 && chunk.end_element == 9);
        if (chunk.kind == MIDSPAN_CHUNK_RESET) join = chunk.offset;
        if (chunk.kind == MIDSPAN_CHUNK_SEEK_INDEX) {
            REQUIRE(chunk.seek_entry_count == 2 && chunk.seek_entries[0].offset == join);
        }
    }
    CHECK(midspan_reader_poll(reader, &chunk));
    REQUIRE(chunk.kind == MIDSPAN_CHUNK_NO_MORE && place == bytes.len);
    midspan_reader_free(reader);
    /* From the reset on; and a header that is cut. */
    CHECK(midspan_reader_join(&config, bytes.data, bytes.len, join, NULL, &reader));
    CHECK(midspan_reader_push(reader, bytes.data + join, bytes.len - (size_t)join));
    CHECK(midspan_reader_poll(reader, &chunk));
    REQUIRE(chunk.kind == MIDSPAN_CHUNK_RESET && chunk.offset == join);
    CHECK(midspan_reader_save(reader, &saved));
    midspan_reader_free(reader);
    CHECK(midspan_reader_restore(&config, saved.data, saved.len, &reader));
    midspan_bytes_free(&saved);
    CHECK(midspan_reader_poll(reader, &chunk));
    REQUIRE(chunk.kind == MIDSPAN_CHUNK_EXACT_FRAME && chunk.data_len == 4);
    midspan_reader_free(reader);
    FAILS(midspan_reader_join(&config, bytes.data, 20, join, NULL, &reader), MIDSPAN_ERROR_TRUNCATED);
    midspan_decoder *decoder;
    midspan_decoder_config decoder_config;
    CHECK(midspan_decoder_config_init(&decoder_config));
    FAILS(midspan_decoder_join(model, &decoder_config, bytes.data, 20, join, NULL, &decoder), MIDSPAN_ERROR_TRUNCATED);
    FAILS(midspan_decoder_join(model, &decoder_config, digest, 32, join, NULL, &decoder), MIDSPAN_ERROR_BAD_MAGIC);
    midspan_bytes_free(&bytes);
}

int main(int argc, char **argv) {
    REQUIRE(argc == 4);
    REQUIRE(strcmp(midspan_last_error_message(), "") == 0);
    midspan_error error;
    CHECK(midspan_last_error(&error));
    REQUIRE(error.code == MIDSPAN_OK && error.fault == MIDSPAN_FAULT_NONE);
    REQUIRE(strcmp(midspan_result_text(MIDSPAN_OK), "no error") == 0 && strlen(midspan_version()) >= 5);
    REQUIRE(strcmp(midspan_result_text(999), "not a number of this library") == 0);
    midspan_event event;
    memset(&event, 0, sizeof event);
    REQUIRE(strcmp(midspan_event_name(&event), "need_more") == 0 && strcmp(midspan_event_name(NULL), "other") == 0);
    event.kind = 99;
    REQUIRE(strcmp(midspan_event_name(&event), "other") == 0 && strcmp(midspan_chunk_name(99), "other") == 0);
    model = load_model(argv[1]);
    side_model = load_model(argv[2]);
    other_model = load_model(argv[3]);
    midspan_model_info info;
    CHECK(midspan_model_get_info(model, &info));
    REQUIRE(info.has_encoder && !info.takes_side);
    width = info.hidden_width;
    channels = info.hyper_prior_width;
    nulls();
    refused_pushes();
    settings();
    streams();
    saved_sessions();
    side_indices();
    datagrams();
    models(argv[1]);
    container();
    midspan_model_free(model);
    midspan_model_free(side_model);
    midspan_model_free(other_model);
    printf("every refusal has its number\n");
    return 0;
}
