//! Bad input: one line that names it, a status that is not 0, and no file touched.

use midspan::codec::{Codec, Encoder, EncoderConfig};
use midspan::model::synthetic::{self, SyntheticShape};
use midspan::wire::Identity;
use safetensors::tensor::Dtype;

use crate::support::{Folder, Run, default_model, hidden_states, midspan, states_file, tensor_file};

/// Runs `encode` on a file. The old output file has to be kept.
#[track_caller]
fn encode_is_refused(folder: &Folder, input: &str, more: &[&str], parts: &[&str]) {
    encode_comes_to_nothing(folder, input, more).refused(parts);
}

/// The run of a command that leaves the old file.
fn encode_comes_to_nothing(folder: &Folder, input: &str, more: &[&str]) -> Run {
    let out = folder.file("out.midspan", b"precious");
    let names = folder.names();
    let run = midspan(&[&["encode", input, "-o", &out], more].concat());
    assert_eq!(std::fs::read(&out).unwrap(), b"precious");
    assert_eq!(folder.names(), names);
    run
}

#[test]
fn encode_refuses_a_missing_file() {
    let folder = Folder::new();
    let missing = folder.path("missing.safetensors");
    encode_is_refused(&folder, &missing, &[], &[&missing, "No such file"]);
}

#[test]
fn encode_refuses_a_folder() {
    let folder = Folder::new();
    encode_is_refused(&folder, &folder.path(""), &[], &[&folder.path("")]);
}

#[test]
fn encode_refuses_what_is_no_safetensors_file() {
    let folder = Folder::new();
    for bytes in [&b"plain text, and more than a header's length"[..], b"", &[0xFF; 64]] {
        let input = folder.file("states.safetensors", bytes);
        encode_is_refused(&folder, &input, &[], &[&input, "no safetensors file"]);
    }
}

#[test]
fn encode_refuses_another_tensor() {
    let folder = Folder::new();
    let input = folder.file("states.safetensors", &states_file(&hidden_states(1)));
    encode_is_refused(&folder, &input, &["--tensor", "states"], &[&input, "no tensor \"states\""]);
}

#[test]
fn encode_refuses_another_shape() {
    let folder = Folder::new();
    let width = default_model().hidden_width();
    for shape in [vec![2, 1, width], vec![1, 1, 2, width], vec![2, width - 1], vec![2, width + 1], vec![width]] {
        let bytes = vec![0; 4 * shape.iter().product::<usize>()];
        let input = folder.file("states.safetensors", &tensor_file(Dtype::F32, &shape, &bytes));
        encode_is_refused(&folder, &input, &[], &[&input, &format!("{shape:?}"), &format!("[T, {width}]")]);
    }
}

#[test]
fn encode_refuses_a_file_without_frames() {
    let folder = Folder::new();
    let width = default_model().hidden_width();
    for shape in [&[0, width][..], &[1, 0, width]] {
        let input = folder.file("states.safetensors", &tensor_file(Dtype::F32, shape, &[]));
        encode_is_refused(&folder, &input, &[], &[&input, "tensor \"hidden\" holds no frame"]);
    }
}

#[test]
fn encode_refuses_what_it_would_clamp_on_request() {
    let folder = Folder::new();
    let mut hidden = hidden_states(300);
    let width = default_model().hidden_width();
    (hidden[170 * width + 9], hidden[170 * width + 12]) = (1e30, -1e30);
    let input = folder.file("states.safetensors", &states_file(&hidden));
    let told = "2 values, the first in frame 170, element 9";
    let more = ["--refuse-clipping", "--quality", "5"];
    encode_comes_to_nothing(&folder, &input, &more).warned().refused(&[&input, told, "error 809"]);
}

/// Clamped values, and only these, are counted on standard error.
#[test]
fn encode_says_what_it_clamped() {
    let folder = Folder::new();
    let mut hidden = hidden_states(300);
    let out = folder.path("out.midspan");
    let encode = |hidden: &[f32]| {
        let input = folder.file("states.safetensors", &states_file(hidden));
        midspan(&["encode", &input, "-o", &out, "--quality", "5", "--refuse-clipping"]).warned().succeeded();
        midspan(&["encode", &input, "-o", &out, "--quality", "5"])
    };
    encode(&hidden).warned().succeeded();
    let input = folder.path("states.safetensors");
    hidden[7] = 1e30;
    folder.file("states.safetensors", &states_file(&hidden));
    let run = midspan(&["encode", &input, "-o", &out, "--quality", "5"]);
    let (low, high) = default_model().common_range(5);
    let told = format!(
        "midspan: {input}: 1 of {} values lie outside the range of quality 5 and were clamped; every element holds {low} \
         to {high}\n",
        hidden.len()
    );
    let run = run.warned();
    assert_eq!((run.code, run.stderr), (Some(0), told));
}

#[test]
fn encode_refuses_another_type() {
    let folder = Folder::new();
    let width = default_model().hidden_width();
    let input = folder.file("states.safetensors", &tensor_file(Dtype::I64, &[1, width], &vec![0; 8 * width]));
    encode_is_refused(&folder, &input, &[], &[&input, "I64, not F32, F16, BF16 or F64"]);
}

#[test]
fn encode_refuses_what_is_not_finite() {
    let folder = Folder::new();
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut hidden = hidden_states(300);
        hidden[299 * default_model().hidden_width() + 7] = value;
        let input = folder.file("states.safetensors", &states_file(&hidden));
        let run = encode_comes_to_nothing(&folder, &input, &[]);
        run.warned().refused(&[&input, &value.to_string(), "frame 299"]);
    }
}

#[test]
fn encode_refuses_a_quality_that_the_model_lacks() {
    let folder = Folder::new();
    let input = folder.file("states.safetensors", &states_file(&hidden_states(1)));
    encode_is_refused(&folder, &input, &["--quality", "200"], &["error 504"]);
}

#[test]
fn every_command_refuses_an_unknown_model() {
    let folder = Folder::new();
    let input = folder.file("states.safetensors", &states_file(&hidden_states(1)));
    let (none, empty) = (folder.path("none"), folder.path(""));
    let broken = folder.file("broken.safetensors", b"no model");
    for (model, says) in [(&none, "No such file"), (&empty, "codec.safetensors"), (&broken, "error 701")] {
        encode_is_refused(&folder, &input, &["--model", model], &[model, says]);
        midspan(&["decode", &input, "-o", &folder.path("x"), "--model", model]).refused(&[model, says]);
        midspan(&["verify", &input, "--model", model]).refused(&[model, says]);
        midspan(&["bench", "--model", model]).refused(&[model, says]);
    }
}

#[test]
fn an_output_in_no_folder_is_refused() {
    let folder = Folder::new();
    let input = folder.file("states.safetensors", &states_file(&hidden_states(2)));
    let stream = folder.path("stream.midspan");
    midspan(&["encode", &input, "-o", &stream]).succeeded();
    for out in [folder.path("none/out"), folder.path("")] {
        midspan(&["encode", &input, "-o", &out]).refused(&[&out]);
        midspan(&["decode", &stream, "-o", &out]).refused(&[&out]);
    }
    assert_eq!(folder.names(), ["states.safetensors", "stream.midspan"]);
}

/// Garbage, an empty file, and a safetensors file given by mistake.
#[test]
fn what_is_no_stream_is_refused_and_nothing_written() {
    let folder = Folder::new();
    let out = folder.file("out.safetensors", b"precious");
    for bytes in [&b"a text file that someone took for a stream of hidden states"[..], b"", &[0; 1000]] {
        let stream = folder.file("garbage", bytes);
        midspan(&["decode", &stream, "-o", &out]).refused(&[&stream, "at fault: the stream", "nothing was written"]);
        assert_eq!(std::fs::read(&out).unwrap(), b"precious");
        midspan(&["verify", &stream]).refused(&[&stream, "at fault: the stream"]);
        midspan(&["inspect", &stream]).refused(&[&stream, "at fault: the stream"]);
        let error = midspan(&["inspect", &stream, "--json"]).refused(&[&stream]).json()["error"].clone();
        assert_eq!(error["offset"], 0, "{error}");
    }
    for command in ["decode", "verify", "inspect"] {
        let missing = folder.path("missing");
        let mut arguments = vec![command, &missing];
        if command == "decode" {
            arguments.extend(["-o", &out]);
        }
        midspan(&arguments).refused(&[&missing, "No such file"]);
    }
    assert_eq!(std::fs::read(&out).unwrap(), b"precious");
}

#[test]
fn a_stream_of_another_model_is_refused() {
    let folder = Folder::new();
    let model = synthetic::model(&SyntheticShape::tiny(), 5);
    let (width, file) = (model.hidden_width(), folder.file("tiny.safetensors", &model.to_bytes()));
    let mut encoder = Encoder::new(Codec::new(model).unwrap().into(), EncoderConfig::new(Identity::none())).unwrap();
    encoder.push_hidden(&vec![0.25; 4 * width]).unwrap();
    encoder.end().unwrap();
    let stream = folder.file("stream.midspan", &encoder.take_bytes().unwrap());
    let out = folder.file("out.safetensors", b"precious");
    midspan(&["decode", &stream, "-o", &out]).refused(&[&stream, "error 501"]);
    assert_eq!(std::fs::read(&out).unwrap(), b"precious");
    midspan(&["verify", &stream]).refused(&[&stream, "error 501"]);
    // With its model it decodes, and without any it can be inspected.
    midspan(&["decode", &stream, "-o", &out, "--model", &file]).succeeded();
    midspan(&["inspect", &stream]).succeeded();
}

#[test]
fn a_model_without_encoder_decodes_but_does_not_encode() {
    let folder = Folder::new();
    let input = folder.file("states.safetensors", &states_file(&hidden_states(2)));
    let model = folder.file("decoder.safetensors", &default_model().without_encoder().to_bytes());
    let stream = folder.path("stream.midspan");
    midspan(&["encode", &input, "-o", &stream]).succeeded();
    midspan(&["decode", &stream, "-o", &folder.path("x"), "--model", &model]).succeeded();
    encode_is_refused(&folder, &input, &["--model", &model], &["no quantiser"]);
    midspan(&["bench", "--model", &model]).refused(&[&model, "no encoder's part"]);
}
