//! What Node calls. Arms are numbered as in [`Arm::available`].

use std::cell::RefCell;

use midspan::exact::Arm;

use crate::{Decoding, Steps};

thread_local! {
    static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static STEPS: RefCell<Option<Steps>> = const { RefCell::new(None) };
    static DECODING: RefCell<Option<Decoding>> = const { RefCell::new(None) };
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
    DECODING.set(Some(BYTES.with_borrow(|model| Decoding::new(arm(number), model, frames))));
}

/// Decodes the next frame and returns its number of values, or 0 at the end of the stream.
#[unsafe(no_mangle)]
pub extern "C" fn decode() -> usize {
    DECODING.with_borrow_mut(|decoding| decoding.as_mut().expect("a prepared decoder").next())
}
