/* What the test programs share. */
#ifndef COMMON_H
#define COMMON_H

#include <midspan.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void fail(const char *file, int line, const char *what) {
    fprintf(stderr, "%s:%d: %s: %s\n", file, line, what, midspan_last_error_message());
    exit(1);
}

#define CHECK(call)                                                                                                    \
    do {                                                                                                               \
        if ((call) != MIDSPAN_OK) fail(__FILE__, __LINE__, #call);                                                     \
    } while (0)

#define REQUIRE(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition)) fail(__FILE__, __LINE__, #condition);                                                        \
    } while (0)

/* The call fails with this number, and the thread's last error says so. */
#define FAILS(call, number)                                                                                            \
    do {                                                                                                               \
        midspan_result result_ = (call);                                                                               \
        midspan_error error_;                                                                                          \
        if (result_ != (number)) {                                                                                     \
            fprintf(stderr, "%s:%d: %s: %d, not %d: ", __FILE__, __LINE__, #call, result_, (int)(number));             \
            fail(__FILE__, __LINE__, #call);                                                                           \
        }                                                                                                              \
        CHECK(midspan_last_error(&error_));                                                                            \
        REQUIRE(error_.code == result_ && error_.fault != MIDSPAN_FAULT_NONE);                                         \
        REQUIRE(error_.message == midspan_last_error_message() && strlen(error_.message) > 20);                        \
        REQUIRE(strcmp(midspan_result_text(result_), "not a number of this library") != 0);                            \
    } while (0)

/* The bytes of a file; the caller frees them. */
static inline uint8_t *read_file(const char *path, size_t *len) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) fail(path, 0, "cannot be opened");
    fseek(file, 0, SEEK_END);
    *len = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*len + 1);
    REQUIRE(bytes != NULL && fread(bytes, 1, *len, file) == *len);
    fclose(file);
    return bytes;
}

static inline midspan_model *load_model(const char *path) {
    size_t len;
    uint8_t *file = read_file(path, &len);
    midspan_model *model;
    CHECK(midspan_model_load(file, len, (size_t)1 << 30, &model));
    free(file);
    return model;
}

static inline int says(const char *part) {
    return strstr(midspan_last_error_message(), part) != NULL;
}

static inline midspan_encoder *open_encoder(const midspan_model *of, uint32_t binding) {
    midspan_encoder_config config;
    midspan_encoder *encoder;
    CHECK(midspan_encoder_config_init(&config, NULL));
    config.binding = binding;
    if (binding == MIDSPAN_BINDING_MESSAGE) config.mode = MIDSPAN_MODE_LAYERED;
    midspan_field producer = {2, (const uint8_t *)"C", 1};
    config.fields = &producer;
    config.field_count = 1;
    CHECK(midspan_encoder_new(of, &config, &encoder));
    return encoder;
}

static inline midspan_decoder *open_decoder(const midspan_model *of, uint32_t binding) {
    midspan_decoder_config config;
    midspan_decoder *decoder;
    CHECK(midspan_decoder_config_init(&config));
    config.binding = binding;
    CHECK(midspan_decoder_new(of, &config, &decoder));
    return decoder;
}

/* The bytes of a stream of three frames. */
static inline midspan_bytes stream_of(const midspan_model *of) {
    midspan_encoder *encoder = open_encoder(of, MIDSPAN_BINDING_BYTE_STREAM);
    midspan_model_info info;
    CHECK(midspan_model_get_info(of, &info));
    float *hidden = calloc(3 * info.hidden_width, sizeof *hidden);
    uint32_t tokens[3] = {0, 1, 2};
    if (info.takes_side) CHECK(midspan_encoder_set_side(encoder, tokens, 3, MIDSPAN_SIDE_KNOWN));
    CHECK(midspan_encoder_push_hidden(encoder, hidden, 3, info.hidden_width));
    CHECK(midspan_encoder_end(encoder));
    midspan_bytes bytes;
    CHECK(midspan_encoder_take_bytes(encoder, &bytes));
    midspan_encoder_free(encoder);
    free(hidden);
    return bytes;
}

/* What places for results hold before a call. */
enum { SENTINEL = 0xa5 };

static inline int untouched(const void *place, size_t len) {
    const uint8_t *bytes = place;
    for (size_t i = 0; i < len; i++) {
        if (bytes[i] != SENTINEL) return 0;
    }
    return 1;
}

static inline void print_hex(const void *data, size_t len) {
    static const char digits[] = "0123456789abcdef";
    const uint8_t *bytes = data;
    putchar(' ');
    for (size_t i = 0; i < len; i++) {
        putchar(digits[bytes[i] >> 4]);
        putchar(digits[bytes[i] & 15]);
    }
    putchar('.');
}

/* The next word of a line; NULL at its end. */
static inline char *word(char **line) {
    char *begin = *line + strspn(*line, " \n");
    if (*begin == 0) return NULL;
    char *end = begin + strcspn(begin, " \n");
    *line = *end == 0 ? end : end + 1;
    *end = 0;
    return begin;
}

static inline unsigned long long number(char **line) {
    char *text = word(line);
    REQUIRE(text != NULL);
    return strtoull(text, NULL, 10);
}

#endif
