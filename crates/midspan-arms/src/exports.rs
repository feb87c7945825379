//! What Node calls. Arms are numbered as in [`Arm::available`].

use std::cell::RefCell;
use std::sync::Arc;

use midspan::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig};
use midspan::exact::Arm;
use midspan::model::CodecModel;
use midspan::model::synthetic::Random;
use midspan::wire::{CheckWidth, Identity};

use crate::Steps;

thread_local! {
    static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static STEPS: RefCell<Option<Steps>> = const { RefCell::new(None) };
    static DECODER: RefCell<Option<Decoder>> = const { RefCell::new(None) };
}

fn arm(number: usize) -> Arm {
    Arm::available().get(number).copied().expect("an arm that is available")
}

/// The number of arms.
#[unsafe(no_mangle)]
pub extern "C" fn arms() -> usize {
    Arm::available().len()
}

/// See [`crate::check`].
#[unsafe(no_mangle)]
pub extern "C" fn check(number: usize) -> usize {
    crate::check(arm(number))
}

/// Prepares [`step`] for g_y, or for h.
#[unsafe(no_mangle)]
pub extern "C" fn prepare_steps(number: usize, h: bool) {
    STEPS.set(Some(Steps::new(arm(number), h)));
}

/// Runs 64 frames in batches of this many.
#[unsafe(no_mangle)]
pub extern "C" fn step(frames: usize) -> i64 {
    STEPS.with_borrow_mut(|steps| steps.as_mut().expect("prepared steps").run(frames))
}

/// Room for a model file, where the caller writes it.
#[unsafe(no_mangle)]
pub extern "C" fn room(bytes: usize) -> *mut u8 {
    BYTES.with_borrow_mut(|own| {
        own.clear();
        own.resize(bytes, 0);
        own.as_mut_ptr()
    })
}

/// Takes the model file from [`room`], encodes this many random frames, one a chunk, and prepares [`decode`].
#[unsafe(no_mangle)]
pub extern "C" fn prepare_decoder(number: usize, frames: usize) {
    let model = BYTES.with_borrow(|bytes| CodecModel::from_bytes(bytes, 1 << 26).expect("a model"));
    let codec = Arc::new(Codec::with_arm(model, arm(number)).expect("a codec"));
    let mut random = Random::new(3);
    let model = codec.model();
    let values = (0..frames).flat_map(|_| model.step(0).iter().zip(model.offset(0)));
    let hidden: Vec<f32> =
        values.map(|(step, offset)| random.within(-900, 900) as f32 / 256.0 * step + offset).collect();
    let config = EncoderConfig::new(Identity::none()).check(CheckWidth::None).memory_limit(1 << 30);
    let mut encoder = Encoder::new(codec.clone(), config).expect("an encoder");
    let mut decoder = Decoder::new(codec, DecoderConfig::default().memory_limit(1 << 30)).expect("a decoder");
    for chunk in hidden.chunks(hidden.len() / frames.max(1)) {
        encoder.push_hidden(chunk).expect("a chunk");
        decoder.push(&encoder.take_bytes().expect("bytes")).expect("room");
    }
    encoder.end().expect("an end");
    decoder.push(&encoder.take_bytes().expect("bytes")).expect("room");
    decoder.finish();
    DECODER.set(Some(decoder));
}

/// Decodes the next frame and returns its number of values, or 0 at the end of the stream.
#[unsafe(no_mangle)]
pub extern "C" fn decode() -> usize {
    DECODER.with_borrow_mut(|decoder| {
        let decoder = decoder.as_mut().expect("a prepared decoder");
        loop {
            match decoder.poll().expect("an event") {
                DecoderPoll::Event(DecoderEvent::Frames(frames)) => return frames.hidden.len(),
                DecoderPoll::Event(_) => {}
                DecoderPoll::NeedMore | DecoderPoll::End => return 0,
            }
        }
    })
}
