// Both ends of a link in C++, where handles free themselves and errors are exceptions.
//
//   c++ -std=c++17 two_ends.cpp $(pkg-config --cflags --libs midspan) -o two_ends
#include <midspan.h>

#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <vector>

struct Free {
    void operator()(midspan_model *handle) const { midspan_model_free(handle); }
    void operator()(midspan_encoder *handle) const { midspan_encoder_free(handle); }
    void operator()(midspan_decoder *handle) const { midspan_decoder_free(handle); }
};
template <class Handle> using Owned = std::unique_ptr<Handle, Free>;

static void check(midspan_result result) {
    if (result != MIDSPAN_OK) throw std::runtime_error(midspan_last_error_message());
}
// The handle that `call` makes.
template <class Handle, class Call> Owned<Handle> make(Call call) {
    Handle *handle = nullptr;
    check(call(&handle));
    return Owned<Handle>(handle);
}
struct Bytes : midspan_bytes {
    explicit Bytes(midspan_encoder *encoder) : midspan_bytes{} { check(midspan_encoder_take_bytes(encoder, this)); }
    ~Bytes() { midspan_bytes_free(this); }
    Bytes(const Bytes &) = delete;
    Bytes &operator=(const Bytes &) = delete;
};

static std::size_t run(const char *path) {
    std::ifstream file(path, std::ios::binary);
    const std::vector<char> model_file{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    auto model = make<midspan_model>([&](midspan_model **made) {
        const auto *bytes = reinterpret_cast<const std::uint8_t *>(model_file.data());
        return midspan_model_load(bytes, model_file.size(), 1u << 30, made);
    });
    midspan_model_info info;
    check(midspan_model_get_info(model.get(), &info));

    midspan_encoder_config encoder_config;
    check(midspan_encoder_config_init(&encoder_config, nullptr)); // no identity: nothing here mixes streams
    auto encoder = make<midspan_encoder>(
        [&](midspan_encoder **made) { return midspan_encoder_new(model.get(), &encoder_config, made); });
    midspan_decoder_config decoder_config;
    check(midspan_decoder_config_init(&decoder_config));
    auto decoder = make<midspan_decoder>(
        [&](midspan_decoder **made) { return midspan_decoder_new(model.get(), &decoder_config, made); });

    const std::vector<float> hidden(4 * info.hidden_width, 0.25f);
    if (info.takes_side) {
        const std::vector<std::uint32_t> tokens(4, 0);
        check(midspan_encoder_set_side(encoder.get(), tokens.data(), tokens.size(), MIDSPAN_SIDE_SENT));
    }
    check(midspan_encoder_push_hidden(encoder.get(), hidden.data(), 4, info.hidden_width));
    check(midspan_encoder_end(encoder.get()));
    const Bytes bytes(encoder.get());
    check(midspan_decoder_push(decoder.get(), bytes.data, bytes.len));
    check(midspan_decoder_finish(decoder.get()));

    std::size_t frames = 0;
    for (midspan_event event{}; event.kind != MIDSPAN_EVENT_END;) {
        check(midspan_decoder_poll(decoder.get(), &event));
        if (event.kind == MIDSPAN_EVENT_FRAMES) frames += static_cast<std::size_t>(event.count);
    }
    std::printf("%zu bytes, %zu frames arrived\n", bytes.len, frames);
    return frames;
}

int main(int argc, char **argv) try {
    if (argc != 2) throw std::runtime_error("usage: two_ends MODEL");
    return run(argv[1]) == 4 ? 0 : 1;
} catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
