/* Decodes streams as a script says, and prints every chunk of the container and every event, with all their values in
 * hexadecimal digits. tests/programs.rs prints the same of the Rust library. */
#include "common.h"

typedef struct {
    uint64_t index;
    uint32_t *indices;
    size_t count;
} answer;

typedef struct {
    char *models[8];
    size_t model_count;
    uint32_t messages;
    size_t cut;
    char conceal[16];
    int joins, has_join_index, has_host;
    uint64_t join_offset, join_index;
    uint8_t host[32];
    answer answers[64];
    size_t answer_count, next_answer;
    uint8_t *stream;
    size_t len;
} job;

/* Caller's buffer for hidden states; it begins small, so that it has to grow. */
static float *rows;
static size_t row_capacity;

static int report(midspan_result result) {
    if (result == MIDSPAN_OK) return 1;
    midspan_error error;
    CHECK(midspan_last_error(&error));
    REQUIRE(error.code == result);
    printf("error %d at %u %llu fault %u", error.code, error.has_offset, (unsigned long long)error.offset, error.fault);
    print_hex(error.wanted_digest, error.has_wanted_digest ? sizeof error.wanted_digest : 0);
    print_hex(error.found_digest, error.has_found_digest ? sizeof error.found_digest : 0);
    printf(": %s\n", error.message);
    return 0;
}

/* Polls into the caller's buffer every other time. */
static midspan_result poll_event(midspan_decoder *decoder, midspan_event *event) {
    static unsigned turn;
    if (++turn % 2 == 0) return midspan_decoder_poll(decoder, event);
    midspan_result result = midspan_decoder_poll_into(decoder, rows, row_capacity, event);
    if (result != MIDSPAN_ERROR_SMALL_BUFFER) return result;
    midspan_error error;
    CHECK(midspan_last_error(&error));
    REQUIRE(event->hidden == NULL && event->hidden_len == error.wanted && error.found == row_capacity);
    REQUIRE(event->hidden_len > row_capacity);
    row_capacity = event->hidden_len;
    rows = realloc(rows, row_capacity * sizeof *rows);
    REQUIRE(rows != NULL);
    result = midspan_decoder_poll_into(decoder, rows, row_capacity, event);
    REQUIRE(result == MIDSPAN_OK && event->hidden == rows);
    return result;
}

static void print_event(const midspan_event *event) {
    printf("%s", midspan_event_name(event));
    printf(" %u %llu %llu %llu %llu", event->has_index, (unsigned long long)event->index,
           (unsigned long long)event->end_index, (unsigned long long)event->count, (unsigned long long)event->done);
    printf(" %llu %llu %llu", (unsigned long long)event->frames_coded, (unsigned long long)event->first_element,
           (unsigned long long)event->end_element);
    printf(" %u %u %u %u %u", event->verdict, event->refusal, event->dtype, event->extension_id, event->quality);
    print_hex(event->hidden, event->hidden_len * sizeof(float));
    print_hex(event->w, event->w_len * sizeof(int16_t));
    print_hex(event->y, event->y_len * sizeof(int16_t));
    print_hex(event->side, event->side_len * sizeof(uint32_t));
    print_hex(event->data, event->data_len);
    print_hex(event->fingerprint, sizeof event->fingerprint);
    if (event->header != NULL) {
        const midspan_header *header = event->header;
        printf(" header %u %u %u %u %u %u %u %u %u %u", header->mode, header->binding, header->check, header->side,
               header->quality, header->max_frames, header->max_chunk_bytes, header->max_rewind, header->target_horizon,
               header->length_offset);
        print_hex(header->fingerprint, sizeof header->fingerprint);
        print_hex(header->identity, header->has_identity ? sizeof header->identity : 0);
        print_hex(header->host_digest, header->has_host_digest ? sizeof header->host_digest : 0);
        for (size_t i = 0; i < header->field_count; i++) {
            printf(" field %u", header->fields[i].id);
            print_hex(header->fields[i].data, header->fields[i].len);
        }
    }
    printf("\n");
}

/* Polls until the decoder needs more; 0 after an error. */
static int drain(midspan_decoder *decoder, job *it) {
    for (;;) {
        midspan_event event;
        if (!report(poll_event(decoder, &event))) return 0;
        if (event.kind == MIDSPAN_EVENT_NEED_MORE || event.kind == MIDSPAN_EVENT_END) return 1;
        print_event(&event);
        if (event.kind == MIDSPAN_EVENT_TARGETS_OVERDUE && strcmp(it->conceal, "overdue") == 0) {
            CHECK(midspan_decoder_conceal(decoder, event.index, event.count));
        }
        if (event.kind == MIDSPAN_EVENT_SIDE_WANTED && it->next_answer < it->answer_count) {
            answer *next = &it->answers[it->next_answer++];
            uint64_t index, count;
            CHECK(midspan_decoder_wanted_side(decoder, &index, &count));
            REQUIRE(index == event.index && count == event.count);
            /* A wrong answer is refused, and the chunk goes on waiting. */
            if (next->index == event.index) report(midspan_decoder_give_side(decoder, next->indices, next->count));
        }
    }
}

/* The length of the piece at `at`, and where it begins. */
static size_t piece(const job *it, size_t *at) {
    if (!it->messages) return it->len - *at < it->cut ? it->len - *at : it->cut;
    uint32_t len = 0;
    for (int i = 3; i >= 0; i--) len = len << 8 | it->stream[*at + (size_t)i];
    *at += 4;
    return len;
}

static void decode(job *it, midspan_decoder *decoder) {
    uint64_t place = 0;
    for (size_t at = 0; at < it->len;) {
        size_t len = piece(it, &at);
        const uint8_t *bytes = it->stream + at;
        at += len;
        uint64_t begin = place;
        place += len;
        if (it->joins && begin < it->join_offset) {
            if (it->messages || place <= it->join_offset) continue;
            size_t skip = (size_t)(it->join_offset - begin);
            bytes += skip;
            len -= skip;
        }
        midspan_result pushed = it->messages ? midspan_decoder_push_message(decoder, bytes, len)
                                             : midspan_decoder_push(decoder, bytes, len);
        if (!report(pushed) || !drain(decoder, it)) return;
    }
    CHECK(midspan_decoder_finish(decoder));
    if (!drain(decoder, it)) return;
    for (;;) {
        uint32_t pending;
        uint64_t index;
        CHECK(midspan_decoder_oldest_pending(decoder, &pending, &index));
        if (!pending || strcmp(it->conceal, "end") != 0) return;
        midspan_range missing[1];
        size_t count;
        midspan_result result = midspan_decoder_missing_elements(decoder, index, missing, 1, &count);
        REQUIRE(count > 1 ? result == MIDSPAN_ERROR_SMALL_BUFFER : result == MIDSPAN_OK);
        printf("missing %zu\n", count);
        CHECK(midspan_decoder_conceal(decoder, index, 1));
        if (!drain(decoder, it)) return;
    }
}

static void run_decoder(job *it) {
    midspan_model *models[8] = {0};
    size_t loaded = 0;
    int good = 1;
    for (; good && loaded < it->model_count; loaded++) {
        size_t len;
        uint8_t *file = read_file(it->models[loaded], &len);
        good = report(midspan_model_load(file, len, (size_t)1 << 24, &models[loaded]));
        REQUIRE(good == (models[loaded] != NULL));
        free(file);
    }
    midspan_decoder_config config;
    CHECK(midspan_decoder_config_init(&config));
    config.binding = it->messages ? MIDSPAN_BINDING_MESSAGE : MIDSPAN_BINDING_BYTE_STREAM;
    config.has_host_digest = (uint32_t)it->has_host;
    memcpy(config.host_digest, it->host, sizeof it->host);
    midspan_decoder *decoder = NULL;
    if (good && it->joins) {
        size_t skip = it->messages ? 4 : 0;
        good = report(midspan_decoder_join(models[0], &config, it->stream + skip, it->len - skip, it->join_offset,
                                           it->has_join_index ? &it->join_index : NULL, &decoder));
    } else if (good) {
        CHECK(midspan_decoder_new(models[0], &config, &decoder));
    }
    for (size_t i = 1; good && i < loaded; i++) CHECK(midspan_decoder_add_model(decoder, models[i]));
    /* Sessions share their models. */
    for (size_t i = 0; i < loaded; i++) midspan_model_free(models[i]);
    if (good) {
        decode(it, decoder);
        uint64_t next, confirmed, resume;
        CHECK(midspan_decoder_next_index(decoder, &next));
        CHECK(midspan_decoder_confirmed_index(decoder, &confirmed));
        CHECK(midspan_decoder_resume_index(decoder, &resume));
        printf("next %llu confirmed %llu resume %llu\n", (unsigned long long)next, (unsigned long long)confirmed,
               (unsigned long long)resume);
    }
    midspan_decoder_free(decoder);
}

static void print_chunk(const midspan_chunk *chunk) {
    printf("chunk %s %u %llu %llu %llu", midspan_chunk_name(chunk->kind), chunk->target,
           (unsigned long long)chunk->offset, (unsigned long long)chunk->body_offset,
           (unsigned long long)chunk->wire_len);
    printf(" %llu %llu %llu %llu", (unsigned long long)chunk->index, (unsigned long long)chunk->frames_coded,
           (unsigned long long)chunk->first_element, (unsigned long long)chunk->end_element);
    printf(" %u %u %u %u %u %u %u %u %u %u", chunk->frames, chunk->epoch, chunk->is_part, chunk->dtype,
           chunk->extension_id, chunk->model_version, chunk->digest_w, chunk->digest_y, chunk->length_offset,
           chunk->quality);
    print_hex(chunk->fingerprint, sizeof chunk->fingerprint);
    for (size_t i = 0; i < chunk->payload_count; i++) {
        printf(" payload %llu", (unsigned long long)chunk->payloads[i].offset);
        print_hex(chunk->payloads[i].data, chunk->payloads[i].len);
    }
    print_hex(chunk->data, chunk->data_len);
    for (size_t i = 0; i < chunk->seek_entry_count; i++) {
        printf(" join %llu %llu", (unsigned long long)chunk->seek_entries[i].frame,
               (unsigned long long)chunk->seek_entries[i].offset);
    }
    if (chunk->header != NULL) printf(" header %u", chunk->header->max_frames);
    printf("\n");
}

static void run_reader(const job *it) {
    midspan_reader_config config;
    CHECK(midspan_reader_config_init(&config));
    config.binding = it->messages ? MIDSPAN_BINDING_MESSAGE : MIDSPAN_BINDING_FILE;
    midspan_reader *reader;
    CHECK(midspan_reader_new(&config, &reader));
    for (size_t at = 0;;) {
        midspan_chunk chunk;
        if (!report(midspan_reader_poll(reader, &chunk))) break;
        if (chunk.kind == MIDSPAN_CHUNK_NO_MORE && at >= it->len) break;
        if (chunk.kind != MIDSPAN_CHUNK_NEED_MORE && chunk.kind != MIDSPAN_CHUNK_NO_MORE) {
            print_chunk(&chunk);
        } else if (at >= it->len) {
            CHECK(midspan_reader_finish(reader));
        } else {
            size_t len = piece(it, &at);
            CHECK(it->messages ? midspan_reader_push_message(reader, it->stream + at, len)
                               : midspan_reader_push(reader, it->stream + at, len));
            at += len;
        }
    }
    uint64_t offset;
    CHECK(midspan_reader_offset(reader, &offset));
    printf("read to %llu\n", (unsigned long long)offset);
    midspan_reader_free(reader);
}

static void parse_host(job *it, const char *digits) {
    it->has_host = 1;
    for (size_t i = 0; i < 32; i++) {
        char byte[3] = {digits[2 * i], digits[2 * i + 1], 0};
        it->host[i] = (uint8_t)strtoul(byte, NULL, 16);
    }
}

int main(int argc, char **argv) {
    REQUIRE(argc == 2);
    size_t len;
    char *script = (char *)read_file(argv[1], &len);
    script[len] = 0;
    job it;
    memset(&it, 0, sizeof it);
    for (char *line = script, *next; *line != 0; line = next) {
        next = line + strcspn(line, "\n");
        if (*next != 0) *next++ = 0;
        char *command = word(&line);
        if (command == NULL) continue;
        if (strcmp(command, "job") == 0) {
            memset(&it, 0, sizeof it);
            printf("job %s\n", word(&line));
        } else if (strcmp(command, "model") == 0) {
            REQUIRE(it.model_count < 8);
            it.models[it.model_count++] = word(&line);
        } else if (strcmp(command, "messages") == 0) {
            it.messages = 1;
        } else if (strcmp(command, "cut") == 0) {
            it.cut = (size_t)number(&line);
        } else if (strcmp(command, "conceal") == 0) {
            snprintf(it.conceal, sizeof it.conceal, "%s", word(&line));
        } else if (strcmp(command, "join") == 0) {
            it.joins = 1;
            it.join_offset = number(&line);
            char *index = word(&line);
            it.has_join_index = index != NULL;
            it.join_index = index == NULL ? 0 : strtoull(index, NULL, 10);
        } else if (strcmp(command, "host") == 0) {
            parse_host(&it, word(&line));
        } else if (strcmp(command, "side") == 0) {
            REQUIRE(it.answer_count < 64);
            answer *answer = &it.answers[it.answer_count++];
            answer->index = number(&line);
            answer->count = (size_t)number(&line);
            answer->indices = calloc(answer->count + 1, sizeof(uint32_t));
            for (size_t i = 0; i < answer->count; i++) answer->indices[i] = (uint32_t)number(&line);
        } else if (strcmp(command, "run") == 0) {
            it.stream = read_file(word(&line), &it.len);
            run_decoder(&it);
            run_reader(&it);
            free(it.stream);
            for (size_t i = 0; i < it.answer_count; i++) free(it.answers[i].indices);
        } else {
            REQUIRE(0);
        }
    }
    free(script);
    free(rows);
    return 0;
}
