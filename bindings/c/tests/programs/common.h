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
