/* Encodes as a script says and prints the output in hexadecimal digits. tests/programs.rs prints the same of the Rust
 * library.
 *
 *   encode HIDDEN SCRIPT MODEL [MODEL ...] */
#include "common.h"

/* Takes the output, without a copy and into a buffer in turn. */
static void take(midspan_encoder *encoder, uint32_t binding) {
    static unsigned turn;
    turn++;
    if (binding == MIDSPAN_BINDING_MESSAGE) {
        for (;;) {
            midspan_message message;
            uint8_t buffer[65536];
            if (turn % 2 == 0) {
                CHECK(midspan_encoder_pop_message(encoder, &message));
            } else {
                midspan_result result = midspan_encoder_pop_message_into(encoder, buffer, 0, &message);
                if (message.message_class != MIDSPAN_MESSAGE_NONE) {
                    size_t needed = message.bytes.len;
                    REQUIRE(result == MIDSPAN_ERROR_SMALL_BUFFER && needed > 0 && needed <= sizeof buffer);
                    REQUIRE(midspan_encoder_pop_message_into(encoder, buffer, needed - 1, &message) ==
                            MIDSPAN_ERROR_SMALL_BUFFER);
                    CHECK(midspan_encoder_pop_message_into(encoder, buffer, needed, &message));
                    REQUIRE(message.bytes.data == buffer && message.bytes.len == needed);
                } else {
                    REQUIRE(result == MIDSPAN_OK);
                }
            }
            if (message.message_class == MIDSPAN_MESSAGE_NONE) return;
            printf("message %u %llu %llu", message.message_class, (unsigned long long)message.first_frame,
                   (unsigned long long)message.end_frame);
            print_hex(message.bytes.data, message.bytes.len);
            printf("\n");
            midspan_bytes_free(&message.bytes);
        }
    }
    printf("bytes");
    if (turn % 2 == 0) {
        midspan_bytes bytes;
        CHECK(midspan_encoder_take_bytes(encoder, &bytes));
        print_hex(bytes.data, bytes.len);
        midspan_bytes_free(&bytes);
        midspan_bytes_free(&bytes); /* a second time does nothing */
    } else {
        size_t needed, len;
        midspan_result result = midspan_encoder_take_bytes_into(encoder, NULL, 0, &needed);
        REQUIRE(result == (needed > 0 ? MIDSPAN_ERROR_SMALL_BUFFER : MIDSPAN_OK));
        uint8_t *buffer = malloc(needed + 1);
        if (needed > 0) {
            REQUIRE(midspan_encoder_take_bytes_into(encoder, buffer, needed - 1, &len) == MIDSPAN_ERROR_SMALL_BUFFER);
            REQUIRE(len == needed);
        }
        CHECK(midspan_encoder_take_bytes_into(encoder, buffer, needed, &len));
        REQUIRE(len == needed);
        print_hex(buffer, len);
        free(buffer);
    }
    printf("\n");
}

static void print_model(const midspan_model_info *info) {
    printf("model %zu %zu %u %u %u %u %u %u %u", info->hidden_width, info->hyper_prior_width, info->qualities,
           info->version, info->has_encoder, info->takes_side, info->side_vocabulary, info->side_ages,
           info->predicted_from);
    printf(" %d %d %d %d", info->w_min, info->w_max, info->y_min, info->y_max);
    print_hex(info->fingerprint, sizeof info->fingerprint);
    printf("\n");
}

int main(int argc, char **argv) {
    REQUIRE(argc >= 4);
    size_t bytes, script_len;
    uint8_t *file = read_file(argv[1], &bytes);
    float *hidden = malloc(bytes + sizeof(float)), *next_row = hidden;
    memcpy(hidden, file, bytes);
    free(file);
    char *script = (char *)read_file(argv[2], &script_len);
    script[script_len] = 0;
    midspan_model *model = load_model(argv[3]);
    midspan_model_info info;
    CHECK(midspan_model_get_info(model, &info));
    print_model(&info);
    for (uint32_t quality = 0; quality < info.qualities; quality++) {
        midspan_quality_info of;
        CHECK(midspan_model_get_quality(model, (uint8_t)quality, &of));
        const float values[4] = {of.range_low, of.range_high, of.rate_weight, of.expected_bits};
        printf("quality %u", of.length_offset);
        print_hex(values, sizeof values);
        printf("\n");
    }
    midspan_encoder *encoder = NULL;
    midspan_encoder_config config;
    memset(&config, 0, sizeof config);
    for (char *line = script, *after; *line != 0; line = after) {
        after = line + strcspn(line, "\n");
        if (*after != 0) *after++ = 0;
        char *command = word(&line);
        if (command == NULL) continue;
        if (strcmp(command, "open") == 0) {
            midspan_encoder_free(encoder);
            next_row = hidden;
            CHECK(midspan_encoder_config_init(&config, (const uint8_t *)"identity"));
            config.mode = (uint32_t)number(&line);
            config.binding = (uint32_t)number(&line);
            config.check = (uint32_t)number(&line);
            config.lanes = (uint16_t)number(&line);
            config.datagram_limit = (uint32_t)number(&line);
            config.max_frames_per_chunk = (uint32_t)number(&line);
            config.checkpoint_interval = (uint32_t)number(&line);
            char *weight = word(&line);
            config.has_rate_weight = strcmp(weight, "model") != 0;
            config.rate_weight = strtof(weight, NULL);
            midspan_field field = {2, (const uint8_t *)"C", 1};
            config.fields = &field;
            config.field_count = 1;
            CHECK(midspan_encoder_new(model, &config, &encoder));
        } else if (strcmp(command, "default") == 0) {
            midspan_encoder_free(encoder);
            next_row = hidden;
            CHECK(midspan_encoder_config_init(&config, NULL));
            CHECK(midspan_encoder_new(model, &config, &encoder));
        } else if (strcmp(command, "forget") == 0) {
            const int16_t *w, *y;
            size_t w_len, y_len;
            CHECK(midspan_encoder_keep_integers(encoder, 0));
            CHECK(midspan_encoder_push_hidden(encoder, next_row, 1, info.hidden_width));
            CHECK(midspan_encoder_last_integers(encoder, &w, &w_len, &y, &y_len));
            REQUIRE(w == NULL && w_len == 0 && y == NULL && y_len == 0);
            CHECK(midspan_encoder_keep_integers(encoder, 1));
            next_row += info.hidden_width;
        } else if (strcmp(command, "push") == 0) {
            size_t frames = (size_t)number(&line);
            CHECK(midspan_encoder_push_hidden(encoder, next_row, frames, info.hidden_width));
            const int16_t *w, *y;
            size_t w_len, y_len;
            CHECK(midspan_encoder_last_integers(encoder, &w, &w_len, &y, &y_len));
            REQUIRE(w_len == frames * info.hyper_prior_width && y_len == frames * info.hidden_width);
            printf("integers");
            print_hex(w, w_len * sizeof *w);
            print_hex(y, y_len * sizeof *y);
            printf("\n");
            next_row += frames * info.hidden_width;
        } else if (strcmp(command, "quantise") == 0) {
            size_t frames = (size_t)number(&line), values = frames * info.hidden_width;
            int16_t *y = malloc(values * sizeof *y);
            REQUIRE(midspan_encoder_quantise(encoder, next_row, frames, info.hidden_width, y, values - 1) ==
                    MIDSPAN_ERROR_SMALL_BUFFER);
            CHECK(midspan_encoder_quantise(encoder, next_row, frames, info.hidden_width, y, values));
            CHECK(midspan_encoder_push_y(encoder, y, frames, info.hidden_width));
            free(y);
            next_row += values;
        } else if (strcmp(command, "integers") == 0) {
            int16_t *y = calloc(2 * info.hidden_width, sizeof *y), *w = calloc(2 * info.hyper_prior_width, sizeof *w);
            y[1] = 1;
            CHECK(midspan_encoder_push_integers(encoder, y, info.hidden_width, w, info.hyper_prior_width, 2));
            free(y);
            free(w);
        } else if (strcmp(command, "exact") == 0) {
            /* Bytes need no alignment. */
            size_t len = info.hidden_width * sizeof(float);
            uint8_t *row = malloc(len + 1);
            memcpy(row + 1, next_row, len);
            CHECK(midspan_encoder_push_exact(encoder, MIDSPAN_DTYPE_F32, row + 1, len));
            free(row);
            next_row += info.hidden_width;
        } else if (strcmp(command, "side") == 0) {
            uint32_t delivery = (uint32_t)number(&line), indices[64];
            size_t count = 0;
            for (char *text; (text = word(&line)) != NULL;) {
                REQUIRE(count < 64);
                indices[count++] = (uint32_t)strtoul(text, NULL, 10);
            }
            CHECK(midspan_encoder_set_side(encoder, indices, count, delivery));
        } else if (strcmp(command, "checkpoint") == 0) {
            CHECK(midspan_encoder_checkpoint(encoder));
        } else if (strcmp(command, "reset") == 0) {
            CHECK(midspan_encoder_reset(encoder));
        } else if (strcmp(command, "rewind") == 0) {
            CHECK(midspan_encoder_rewind(encoder, number(&line)));
        } else if (strcmp(command, "quality") == 0) {
            CHECK(midspan_encoder_set_quality(encoder, (uint8_t)number(&line)));
        } else if (strcmp(command, "switch") == 0) {
            midspan_model *other = load_model(argv[number(&line)]);
            CHECK(midspan_encoder_switch_model(encoder, other, 0));
            midspan_model_free(other);
            midspan_model_info in_force;
            CHECK(midspan_encoder_get_model(encoder, &in_force));
            print_model(&in_force);
        } else if (strcmp(command, "extension") == 0) {
            CHECK(midspan_encoder_extension(encoder, 27, (const uint8_t *)"grease", 6));
        } else if (strcmp(command, "threads") == 0) {
            CHECK(midspan_encoder_set_threads(encoder, (size_t)number(&line)));
        } else if (strcmp(command, "fork") == 0) {
            /* The fork goes on; what the other one does does not matter to it. */
            midspan_encoder *fork;
            CHECK(midspan_encoder_fork(encoder, &fork));
            CHECK(midspan_encoder_end(encoder));
            midspan_encoder_free(encoder);
            encoder = fork;
        } else if (strcmp(command, "restore") == 0) {
            midspan_bytes saved;
            CHECK(midspan_encoder_save(encoder, &saved));
            midspan_encoder_free(encoder);
            CHECK(midspan_encoder_restore(model, saved.data, saved.len, (size_t)64 << 20, &encoder));
            midspan_bytes_free(&saved);
        } else if (strcmp(command, "take") == 0) {
            take(encoder, config.binding);
        } else if (strcmp(command, "end") == 0) {
            CHECK(midspan_encoder_end(encoder));
            midspan_sent sent, recent;
            uint64_t index;
            uint32_t unlike;
            size_t held;
            CHECK(midspan_encoder_sent(encoder, &sent));
            CHECK(midspan_encoder_next_index(encoder, &index));
            printf("sent %llu %llu %llu %llu next %llu\n", (unsigned long long)sent.frames,
                   (unsigned long long)sent.payload_bits, (unsigned long long)sent.clipped,
                   (unsigned long long)sent.escaped, (unsigned long long)index);
            CHECK(midspan_encoder_unlike(encoder, &unlike, &recent));
            printf("unlike %u %llu %llu %llu\n", unlike, (unsigned long long)recent.frames,
                   (unsigned long long)recent.y_values, (unsigned long long)recent.expected_bits);
            CHECK(midspan_encoder_memory_bytes(encoder, &held));
            REQUIRE(held > 100);
        } else {
            REQUIRE(0);
        }
    }
    midspan_encoder_free(encoder);
    midspan_model_free(model);
    free(hidden);
    free(script);
    return 0;
}
