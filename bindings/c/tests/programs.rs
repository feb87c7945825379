//! C and C++ programs against the library as a user installs it: what the header and the page promise, and that what goes
//! wrong has one number. Each runs as it is, linked statically, under valgrind and with sanitizers.

mod support;

use std::path::{Path, PathBuf};

use midspan::model::synthetic::SyntheticShape;
use support::{
    Build, Runs, SIZES, compile, installed, links_statically, member, model, repository, structs, ways,
    without_comments,
};

#[test]
fn what_goes_wrong_has_one_number_and_loses_nothing() {
    let Some(prefix) = installed() else { return };
    let (tiny, side) = (SyntheticShape::tiny(), SyntheticShape::with_side());
    let (one, _) = model(prefix, "bad-one.safetensors", &tiny, 11);
    let (with_side, _) = model(prefix, "bad-side.safetensors", &side, 12);
    let (other, _) = model(prefix, "bad-other.safetensors", &tiny, 13);
    for way in ways(prefix, &member("tests/programs/bad_input.c")) {
        assert_eq!(way.run(&[&one, &with_side, &other]), "every refusal has its number\n", "{}", way.name);
    }
}

/// Runs a scenario of tests/programs/promises.c.
fn promise(scenario: &str) {
    let Some(prefix) = installed() else { return };
    let (tiny, side) = (SyntheticShape::tiny(), SyntheticShape::with_side());
    let models = [("one", &tiny, 21), ("side", &side, 22), ("other", &tiny, 23)]
        .map(|(name, shape, seed)| model(prefix, &format!("{scenario}-{name}.safetensors"), shape, seed).0);
    for way in ways(prefix, &member("tests/programs/promises.c")) {
        let arguments: Vec<&Path> =
            [Path::new(scenario)].into_iter().chain(models.iter().map(PathBuf::as_path)).collect();
        assert_eq!(way.run(&arguments), format!("{scenario}\n"), "{}", way.name);
    }
}

#[test]
fn an_old_event_outlives_a_failed_poll() {
    promise("old_event_after_a_failed_poll");
}

#[test]
fn an_old_chunk_outlives_a_failed_poll() {
    promise("old_chunk_after_a_failed_poll");
}

#[test]
fn a_failed_call_writes_no_result() {
    promise("outputs_of_failed_calls");
}

#[test]
fn an_error_tells_its_place_and_its_digests() {
    promise("places_and_digests_of_errors");
}

#[test]
fn a_message_names_a_setting_as_c_does() {
    promise("settings_in_messages");
}

#[test]
fn a_frame_of_a_file_is_found_through_its_seek_index() {
    promise("seeking_in_a_file");
}

#[test]
fn settings_of_another_version_are_refused() {
    promise("settings_of_another_version");
}

#[test]
fn readers_and_writers_fork() {
    promise("forks_of_the_container");
}

#[test]
fn sessions_forget_what_the_header_says() {
    promise("what_a_session_forgets");
}

#[test]
fn an_event_that_did_not_fit_counts_as_the_sessions() {
    promise("session_after_a_small_buffer");
}

#[test]
fn two_threads_share_a_model_a_handle_and_bytes() {
    promise("two_threads");
}

/// bad_input.c calls every function with what it must refuse.
#[test]
fn no_function_is_left_out_of_the_bad_input() {
    let header = std::fs::read_to_string(member("include/midspan.h")).unwrap();
    let program = without_comments(&std::fs::read_to_string(member("tests/programs/bad_input.c")).unwrap());
    let functions: Vec<_> = header
        .lines()
        .filter_map(|line| line.strip_prefix("midspan_result ").or(line.strip_prefix("void ")))
        .filter_map(|line| line.split_once('(').map(|(name, _)| name.trim()))
        .collect();
    assert!(functions.len() > 90, "{functions:?}");
    for name in functions {
        assert!(
            program.contains(&format!("{name}(NULL")) || program.contains(&format!("{name}(model, NULL")),
            "{name}"
        );
    }
}

/// The sender and the receiver of README.md, as the functions of a program.
#[test]
fn the_readmes_program_ends() {
    let Some(prefix) = installed() else { return };
    let readme = std::fs::read_to_string(member("README.md")).unwrap();
    let blocks: Vec<&str> = readme.split("```c\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    let [sender, receiver] = blocks[..] else { panic!("{blocks:?}") };
    let common = member("tests/programs/common.h");
    let program = format!(
        r#"#include "{}"
#include <unistd.h>
static uint8_t *file, identity[8], received[4096];
static size_t file_len, received_len, frames = 2, width, capacity;
static midspan_model *model;
static midspan_encoder_config config;
static midspan_encoder *encoder;
static midspan_decoder *decoder;
static midspan_bytes bytes;
static midspan_event event;
static float *hidden, *rows;
static uint64_t arrived;
static void transport_send(const uint8_t *data, size_t len) {{
    REQUIRE(len <= sizeof received);
    memcpy(received, data, len);
    received_len = len;
}}
static void second_half(const float *values, uint64_t count) {{
    REQUIRE(values == rows);
    arrived += count;
}}
static void sender(void) {{
{sender}}}
static void receiver(void) {{
{receiver}}}
int main(int argc, char **argv) {{
    REQUIRE(argc == 2);
    alarm(60); /* a loop without an end */
    file = read_file(argv[1], &file_len);
    midspan_model *same = load_model(argv[1]);
    midspan_model_info info;
    CHECK(midspan_model_get_info(same, &info));
    width = info.hidden_width;
    capacity = frames * width;
    hidden = calloc(capacity, sizeof *hidden);
    rows = calloc(capacity, sizeof *rows);
    decoder = open_decoder(same, MIDSPAN_BINDING_BYTE_STREAM);
    sender();
    receiver();
    REQUIRE(event.kind == MIDSPAN_EVENT_NEED_MORE && arrived == frames);
    CHECK(midspan_encoder_end(encoder));
    CHECK(midspan_encoder_take_bytes(encoder, &bytes));
    transport_send(bytes.data, bytes.len);
    midspan_bytes_free(&bytes);
    receiver();
    REQUIRE(event.kind == MIDSPAN_EVENT_END);
    midspan_encoder_free(encoder);
    midspan_decoder_free(decoder);
    midspan_model_free(model);
    midspan_model_free(same);
    free(file);
    free(hidden);
    free(rows);
    printf("ended\n");
    return 0;
}}
"#,
        common.display()
    );
    let source = prefix.join("readme.c");
    std::fs::write(&source, program).unwrap();
    let (path, _) = model(prefix, "readme.safetensors", &SyntheticShape::tiny(), 31);
    for way in ways(prefix, &source) {
        assert_eq!(way.run(&[&path]), "ended\n", "{}", way.name);
    }
}

#[test]
fn the_examples_run() {
    let Some(prefix) = installed() else { return };
    let example = repository().join("src/example.safetensors");
    for (source, argument, wanted) in [
        ("examples/two_ends.c", &example, "32 frames arrived, 32 confirmed\n"),
        ("examples/two_ends.cpp", &example, "bytes, 4 frames arrived\n"),
        ("examples/container.c", &repository().join("spec/examples/file.bin"), "footer"),
    ] {
        for way in ways(prefix, &member(source)) {
            let said = way.run(&[argument.as_path()]);
            assert!(said.contains(wanted), "{source}, {}: {said}", way.name);
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_program_links_wholly_statically() {
    let Some(prefix) = installed().filter(|_| links_statically()) else { return };
    let program = compile(prefix, &member("examples/two_ends.c"), Build::WhollyStatic);
    let way = Runs { name: "wholly static", command: vec![program.to_str().unwrap().to_string()] };
    let said = way.run(&[&repository().join("src/example.safetensors")]);
    assert!(said.ends_with("32 frames arrived, 32 confirmed\n"), "{said}");
}

/// The header alone, as other languages' compilers see it.
#[test]
fn the_header_is_c99_and_cpp() {
    let Some(prefix) = installed() else { return };
    for (name, standard) in [("header.c", "-std=c99"), ("header.c", "-std=c11"), ("header.cpp", "-std=c++11")] {
        let source = prefix.join(name);
        std::fs::write(&source, "#include <midspan.h>\n").unwrap();
        let compiler = if name.ends_with("cpp") { "CXX" } else { "CC" };
        let usual = if name.ends_with("cpp") { "c++" } else { "cc" };
        let output = std::process::Command::new(std::env::var(compiler).unwrap_or_else(|_| usual.to_string()))
            .args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only"])
            .args(support::pkg_config(prefix, &["--cflags"]))
            .arg(&source)
            .output()
            .unwrap();
        assert!(output.status.success(), "{standard}: {}", support::text(&output));
    }
}

/// C lays the structs out as Rust does, and knows its version.
#[test]
#[cfg(target_pointer_width = "64")]
fn structs_have_the_same_sizes_in_c() {
    let Some(prefix) = installed() else { return };
    let lines: String =
        structs().iter().map(|name| format!("    printf(\"{name} %zu\\n\", sizeof(struct {name}));\n")).collect();
    let source = prefix.join("sizes.c");
    let version = "REQUIRE(midspan_version_number() == MIDSPAN_VERSION_NUMBER);";
    let common = member("tests/programs/common.h");
    let text = format!("#include \"{}\"\nint main(void) {{\n    {version}\n{lines}}}\n", common.display());
    std::fs::write(&source, text).unwrap();
    let wanted: String = SIZES.iter().map(|(name, size)| format!("{name} {size}\n")).collect();
    let shared = &ways(prefix, &source)[0];
    assert_eq!(shared.run(&[]), wanted);
}
