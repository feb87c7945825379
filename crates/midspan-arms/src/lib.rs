//! Checks and times the arms of the exact network on targets on which cargo runs no tests: as a program under an
//! emulator, and as WebAssembly from Node (`run.mjs`).

mod exports;

use std::sync::Arc;

use midspan::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, SideDelivery};
use midspan::exact::{Arm, Network, Serial, State};
use midspan::model::synthetic::{self, Case, Random, Style, SyntheticShape};
use midspan::model::{CodecModel, NetworkParameters};
use midspan::wire::{CheckWidth, Identity};

/// Random networks of [`check`].
const RANDOM: u64 = 40;
/// The most frames of a network in [`check`]; windows and rings of random cases are shorter.
const FRAMES: usize = 300;

fn run(network: &Network, inputs: &[i16], quality: usize, frames: usize) -> Vec<i32> {
    let mut state = State::new(network, 3);
    let (mut all, mut output) = (Vec::new(), Vec::new());
    for input in inputs.chunks(frames * network.inputs()) {
        network.run(&mut state, input, quality, &mut output, &Serial).expect("whole frames");
        all.extend_from_slice(&output);
    }
    all
}

/// Runs networks on the arm, in batches of several sizes, and returns the number of those that equal the plain arm.
///
/// # Panics
/// If this CPU lacks the arm, or a result differs.
#[must_use]
pub fn check(arm: Arm) -> usize {
    assert!(Arm::available().contains(&arm), "this CPU has no {} arm", arm.name());
    let mut cases: Vec<Case> = (0..RANDOM).map(Case::random).collect();
    cases.extend(Case::extremes());
    let shape = SyntheticShape { window: 24, ..SyntheticShape::paper() };
    let paper = [synthetic::g_y(&shape, Style::Sensible, 1), synthetic::h(&shape, Style::Sensible, 2)];
    for (parameters, frames) in paper.into_iter().map(|network| (network, 27)).chain([257, 31].map(|window| {
        // The largest sums of weighted values, which pass 32 bits above a window of 256.
        (synthetic::largest_sums(window), FRAMES)
    })) {
        let inputs = synthetic::inputs(parameters.inputs(), frames, 60, 6);
        cases.push(Case { name: "a given shape".to_owned(), parameters, inputs, batch: frames, quality: 0 });
    }
    for Case { name, parameters, inputs, quality, .. } in &cases {
        let inputs = &inputs[..inputs.len().min(FRAMES * parameters.inputs())];
        let expected = run(&Network::new(parameters, Arm::Plain), inputs, *quality, 1);
        let network = Network::new(parameters, arm);
        assert_eq!(network.arm(), arm);
        for frames in [1, 7, 64] {
            let found = run(&network, inputs, *quality, frames);
            assert!(found == expected, "{name}: {} differs from plain, in batches of {frames}", arm.instructions());
        }
    }
    cases.len()
}

/// A network at the paper's shape that is stepped, or run in batches, with a whole window in its context.
#[derive(Debug)]
pub struct Steps {
    network: Network,
    state: State,
    inputs: Vec<i16>,
    output: Vec<i32>,
}

impl Steps {
    /// g_y, or h.
    #[must_use]
    pub fn new(arm: Arm, h: bool) -> Steps {
        let shape = SyntheticShape::paper();
        let parameters: NetworkParameters =
            if h { synthetic::h(&shape, Style::Sensible, 2) } else { synthetic::g_y(&shape, Style::Sensible, 1) };
        let network = Network::new(&parameters, arm);
        let inputs = synthetic::inputs(parameters.inputs(), 64, 60, 7);
        let state = State::new(&network, 0);
        let mut steps = Steps { network, state, inputs, output: Vec::new() };
        for _ in 0..4 {
            let _ = steps.run(64);
        }
        steps
    }

    /// Runs 64 frames in batches of this many, and returns the sum of all outputs.
    pub fn run(&mut self, frames: usize) -> i64 {
        let mut sum = 0;
        for input in self.inputs.chunks(frames.max(1) * self.network.inputs()) {
            self.network.run(&mut self.state, input, 0, &mut self.output, &Serial).expect("whole frames");
            sum += self.output.iter().copied().map(i64::from).sum::<i64>();
        }
        sum
    }
}

/// A stream of random frames that is decoded, one frame a chunk.
#[derive(Debug)]
pub struct Decoding {
    decoder: Decoder,
}

impl Decoding {
    /// Encodes the frames with this arm and model file.
    ///
    /// # Panics
    /// If the model is not valid, or this CPU lacks the arm.
    #[must_use]
    pub fn new(arm: Arm, model: &[u8], frames: usize) -> Decoding {
        let model = CodecModel::from_bytes(model, 1 << 26).expect("a model");
        let codec = Arc::new(Codec::with_arm(model, arm).expect("an arm that this CPU has"));
        let model = codec.model();
        let mut random = Random::new(3);
        let values = (0..frames).flat_map(|_| model.step(0).iter().zip(model.offset(0)));
        let hidden: Vec<f32> =
            values.map(|(step, offset)| random.within(-900, 900) as f32 / 256.0 * step + offset).collect();
        let config = EncoderConfig::new(Identity::none()).check(CheckWidth::None).memory_limit(1 << 30);
        let mut encoder = Encoder::new(codec.clone(), config).expect("an encoder");
        let config = DecoderConfig::default().memory_limit(1 << 30);
        let mut decoder = Decoder::new(codec.clone(), config).expect("a decoder");
        for chunk in hidden.chunks(hidden.len() / frames.max(1)) {
            if model.side().is_some() {
                encoder.set_side(&[7], SideDelivery::Known).expect("a side index");
            }
            encoder.push_hidden(chunk).expect("a chunk");
            decoder.push(&encoder.take_bytes().expect("bytes")).expect("room");
        }
        encoder.end().expect("an end");
        decoder.push(&encoder.take_bytes().expect("bytes")).expect("room");
        decoder.finish();
        Decoding { decoder }
    }

    /// Decodes the next frame and returns its number of values, or 0 at the end of the stream.
    ///
    /// # Panics
    /// If the stream does not decode.
    #[allow(clippy::should_implement_trait)] // no iterator: the values are only counted
    pub fn next(&mut self) -> usize {
        loop {
            if let Some((_, count)) = self.decoder.wanted_side() {
                self.decoder.give_side(&vec![7; count]).expect("side indices");
            }
            match self.decoder.poll().expect("an event") {
                DecoderPoll::Event(DecoderEvent::Frames(frames)) => return frames.hidden.len(),
                DecoderPoll::Event(_) => {}
                DecoderPoll::NeedMore | DecoderPoll::End => return 0,
            }
        }
    }
}
