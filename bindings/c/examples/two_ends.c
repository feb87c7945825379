/* Both ends of a link in one process: hidden states in, bytes across, hidden states out.
 *
 *   cc two_ends.c $(pkg-config --cflags --libs midspan) -o two_ends
 *   ./two_ends crates/midspan-cli/model/codec.safetensors
 *
 * A real program runs the ends on two machines, and sends the bytes over a transport of its own. */
#include <midspan.h>
#include <stdio.h>
#include <stdlib.h>

static void check(midspan_result result) {
    if (result != MIDSPAN_OK) {
        fprintf(stderr, "%s\n", midspan_last_error_message());
        exit(1);
    }
}

/* The file's bytes; the caller frees them. */
static uint8_t *read_file(const char *path, size_t *len) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(1);
    }
    *len = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*len);
    if (bytes == NULL || fread(bytes, 1, *len, file) != *len) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(1);
    }
    fclose(file);
    return bytes;
}

/* Polls until the decoder needs more. Hidden states go to `rows`, which has room for `capacity` values. Returns how
 * many frames came. */
static uint64_t receive(midspan_decoder *decoder, float *rows, size_t capacity, const uint32_t *tokens) {
    uint64_t frames = 0;
    for (;;) {
        midspan_event event;
        check(midspan_decoder_poll_into(decoder, rows, capacity, &event));
        switch (event.kind) {
        case MIDSPAN_EVENT_FRAMES:
            frames += event.count; /* rows holds them, for the second half of the model */
            break;
        case MIDSPAN_EVENT_SIDE_WANTED: /* this end chose the token itself */
            check(midspan_decoder_give_side(decoder, tokens, (size_t)event.count));
            break;
        case MIDSPAN_EVENT_NEED_MORE:
        case MIDSPAN_EVENT_END:
            return frames;
        default:
            break;
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: two_ends MODEL\n");
        return 2;
    }
    size_t len;
    uint8_t *file = read_file(argv[1], &len);
    midspan_model *model;
    check(midspan_model_load(file, len, (size_t)1 << 30, &model));
    free(file);
    midspan_model_info info;
    check(midspan_model_get_info(model, &info));
    size_t width = info.hidden_width;

    /* Eight bytes of a random number generator identify the stream. */
    uint8_t identity[8] = {0x9e, 0x37, 0x79, 0xb9, 0x7f, 0x4a, 0x7c, 0x15};
    midspan_encoder_config encoder_config;
    check(midspan_encoder_config_init(&encoder_config, identity));
    midspan_encoder *encoder;
    check(midspan_encoder_new(model, &encoder_config, &encoder));
    midspan_decoder_config decoder_config;
    check(midspan_decoder_config_init(&decoder_config));
    midspan_decoder *decoder;
    check(midspan_decoder_new(model, &decoder_config, &decoder));
    midspan_model_free(model); /* both sessions share it */

    enum { PROMPT = 16, STEPS = 17 };
    float *sent = calloc(PROMPT * width, sizeof *sent), *received = calloc(PROMPT * width, sizeof *received);
    uint64_t state = 1, total = 0;
    for (int step = 0; step < STEPS; step++) {
        size_t frames = step == 0 ? PROMPT : 1; /* a prompt in one batch, then one frame a token */
        for (size_t i = 0; i < frames * width; i++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            sent[i] = (float)(int8_t)(state >> 56) / 128.0f; /* the first half of the model gives these */
        }
        uint32_t tokens[PROMPT] = {0};
        if (info.takes_side) {
            midspan_side_delivery delivery = step == 0 ? MIDSPAN_SIDE_SENT : MIDSPAN_SIDE_KNOWN;
            check(midspan_encoder_set_side(encoder, tokens, frames, delivery));
        }
        check(midspan_encoder_push_hidden(encoder, sent, frames, width));
        midspan_bytes bytes;
        check(midspan_encoder_take_bytes(encoder, &bytes)); /* only what is new */
        if (step < 3) {
            printf("%zu frames: %zu bytes\n", frames, bytes.len);
        }
        check(midspan_decoder_push(decoder, bytes.data, bytes.len));
        midspan_bytes_free(&bytes);
        total += receive(decoder, received, PROMPT * width, tokens);
    }
    check(midspan_encoder_end(encoder));
    midspan_bytes bytes;
    check(midspan_encoder_take_bytes(encoder, &bytes));
    check(midspan_decoder_push(decoder, bytes.data, bytes.len));
    midspan_bytes_free(&bytes);
    check(midspan_decoder_finish(decoder));
    total += receive(decoder, received, PROMPT * width, NULL);
    uint64_t confirmed;
    check(midspan_decoder_confirmed_index(decoder, &confirmed));
    printf("%llu frames arrived, %llu confirmed\n", (unsigned long long)total, (unsigned long long)confirmed);

    midspan_encoder_free(encoder);
    midspan_decoder_free(decoder);
    free(sent);
    free(received);
    return total == PROMPT + STEPS - 1 && confirmed == total ? 0 : 1;
}
