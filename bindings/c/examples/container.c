/* Lists the chunks of a stream, without a model.
 *
 *   cc container.c $(pkg-config --cflags --libs midspan) -o container
 *   ./container spec/examples/file.bin */
#include <midspan.h>
#include <stdio.h>
#include <stdlib.h>

static void check(midspan_result result) {
    if (result != MIDSPAN_OK) {
        fprintf(stderr, "error %d: %s\n", result, midspan_last_error_message());
        exit(1);
    }
}

int main(int argc, char **argv) {
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (file == NULL) {
        fprintf(stderr, "usage: container STREAM\n");
        return 2;
    }
    midspan_reader_config config;
    check(midspan_reader_config_init(&config));
    midspan_reader *reader;
    check(midspan_reader_new(&config, &reader));
    for (;;) {
        midspan_chunk chunk;
        check(midspan_reader_poll(reader, &chunk));
        if (chunk.kind == MIDSPAN_CHUNK_NO_MORE) {
            break;
        }
        if (chunk.kind == MIDSPAN_CHUNK_NEED_MORE) {
            uint8_t bytes[4096];
            size_t len = fread(bytes, 1, sizeof bytes, file);
            check(len > 0 ? midspan_reader_push(reader, bytes, len) : midspan_reader_finish(reader));
            continue;
        }
        size_t payload = 0;
        for (size_t lane = 0; lane < chunk.payload_count; lane++) {
            payload += chunk.payloads[lane].len;
        }
        printf("%8llu  %-12s %6llu bytes", (unsigned long long)chunk.offset, midspan_chunk_name(chunk.kind),
               (unsigned long long)chunk.wire_len);
        if (chunk.frames > 0) {
            printf(", frames %llu to %llu, payload of %zu bytes", (unsigned long long)chunk.index,
                   (unsigned long long)(chunk.index + chunk.frames), payload);
        }
        if (chunk.header != NULL) {
            printf(", quality %d, %s", chunk.header->quality,
                   chunk.header->mode == MIDSPAN_MODE_LAYERED ? "layered" : "joined");
        }
        printf("\n");
    }
    midspan_reader_free(reader);
    fclose(file);
    return 0;
}
