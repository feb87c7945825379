//! The built program, and files of hidden states for it.

use std::process::Command;

use midspan::codec::{Encoder, SideDelivery};
use midspan::engine::quantiser;
use midspan::model::CodecModel;
use midspan::model::synthetic::Random;
use midspan_testkit::program;
pub use midspan_testkit::program::{Bench, Bytes, Folder, Run, finish, run, text};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

const PROGRAM: &str = env!("CARGO_BIN_EXE_midspan");

/// The program with arguments, with its output captured.
pub fn command(arguments: &[&str]) -> Command {
    program::command(PROGRAM, arguments)
}

/// Runs the program to its end.
pub fn midspan(arguments: &[&str]) -> Run {
    run(command(arguments))
}

/// Runs the program with a limit on file sizes: `blocks` blocks of 512 bytes.
#[cfg(unix)]
pub fn on_a_full_disk(blocks: usize, arguments: &[&str]) -> Run {
    program::on_a_full_disk(PROGRAM, blocks, arguments)
}

/// The folder of the embedded model.
pub const DEFAULT_MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/model");

/// The embedded codec model.
pub fn default_model() -> CodecModel {
    let bytes = std::fs::read(format!("{DEFAULT_MODEL}/codec.safetensors")).unwrap();
    CodecModel::from_bytes(&bytes, 1 << 30).unwrap()
}

/// Hidden states for the embedded model, `[frames, E]`: a few steps around the offset, and not only at whole steps.
pub fn hidden_states(frames: usize) -> Vec<f32> {
    let model = default_model();
    let mut random = Random::new(1);
    (0..frames)
        .flat_map(|_| model.step(0).iter().zip(model.offset(0)))
        .map(|(step, offset)| {
            let steps = (random.next() >> 40) as f32 / (1 << 24) as f32 * 5.0 - 2.5;
            steps * step + offset
        })
        .collect()
}

/// Y of hidden states and the reconstruction from it, both `[T, E]`.
pub fn quantised(hidden: &[f32]) -> (Vec<i16>, Vec<f32>) {
    let model = default_model();
    let (mut y, mut back) = (Vec::new(), Vec::new());
    let reciprocal = model.reciprocal_step(0).unwrap();
    quantiser::quantise(
        hidden,
        model.offset(0),
        model.analysis().and_then(midspan::model::Map::full),
        reciprocal,
        model.y_range(),
        &mut y,
    )
    .unwrap();
    quantiser::reconstruct(&y, model.step(0), model.synthesis(), model.offset(0), &mut back);
    (y, back)
}

/// A .safetensors file with one tensor, "hidden".
pub fn tensor_file(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Vec<u8> {
    let view = TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
    safetensors::serialize([("hidden", view)], None).unwrap()
}

/// The token of each frame.
pub fn tokens(frames: usize) -> Vec<u32> {
    let vocabulary = default_model().side().unwrap().vocabulary();
    (0..frames as u32).map(|frame| frame.wrapping_mul(2_654_435_761) % vocabulary).collect()
}

/// A .safetensors file with hidden states of any shape, and the token of each frame.
pub fn states_file_of(dtype: Dtype, shape: &[usize], bytes: &[u8]) -> Vec<u8> {
    let frames = shape[shape.len() - 2];
    let ids: Vec<u8> = tokens(frames).iter().flat_map(|token| i64::from(*token).to_le_bytes()).collect();
    let hidden = TensorView::new(dtype, shape.to_vec(), bytes).unwrap();
    let ids = TensorView::new(Dtype::I64, vec![frames], &ids).unwrap();
    safetensors::serialize([("hidden", hidden), ("ids", ids)], None).unwrap()
}

/// A .safetensors file with hidden states, `[T, E]`, and the token of each frame.
pub fn states_file(hidden: &[f32]) -> Vec<u8> {
    let width = default_model().hidden_width();
    let bytes: Vec<u8> = hidden.iter().flat_map(|value| value.to_le_bytes()).collect();
    states_file_of(Dtype::F32, &[hidden.len() / width, width], &bytes)
}

/// Says the tokens of the next frames, which the stream carries.
pub fn send_tokens(encoder: &mut Encoder, frames: usize) {
    encoder.set_side(&tokens(frames), SideDelivery::Sent).unwrap();
}

/// The output of `decode`: hidden states and Y, both `[T, E]`, and W, `[T, C]`.
pub fn decoded_file(path: &str) -> (Vec<f32>, Vec<i16>, Vec<i16>) {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let model = default_model();
    let tensor = |name: &str, dtype: Dtype, columns: usize| {
        let tensor = file.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), dtype, "{name}");
        assert_eq!(tensor.shape()[1..], [columns], "{name}");
        tensor.data().to_vec()
    };
    let integers =
        |bytes: Vec<u8>| bytes.as_chunks().0.iter().map(|value| i16::from_le_bytes(*value)).collect::<Vec<_>>();
    let hidden = tensor("hidden", Dtype::F32, model.hidden_width());
    (
        hidden.as_chunks().0.iter().map(|value| f32::from_le_bytes(*value)).collect(),
        integers(tensor("y", Dtype::I16, model.hidden_width())),
        integers(tensor("w", Dtype::I16, model.hyper_prior_width())),
    )
}
