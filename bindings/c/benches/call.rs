//! What a step costs through the C interface, compared with Rust: one frame is pushed, its bytes are taken, pushed
//! into a decoder, and the hidden state read. Both alternate, so that a noisy machine disturbs them alike.
//!
//! `cargo bench -p midspan-c -- [MODEL] [STEPS]`, with the default model and 2,000 steps.

use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::Arc;
use std::time::Instant;

use midspan::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, SideDelivery};
use midspan::model::synthetic::Random;
use midspan::wire::Identity;
use midspan_c::decoder::*;
use midspan_c::encoder::*;
use midspan_c::event::*;
use midspan_c::model::*;
use midspan_c::output::*;

struct Rust {
    encoder: Encoder,
    decoder: Decoder,
    rows: Vec<f32>,
}

impl Rust {
    fn step(&mut self, hidden: &[f32], side: bool) {
        if side {
            self.encoder.set_side(&[0], SideDelivery::Known).unwrap();
        }
        self.encoder.push_hidden(hidden).unwrap();
        self.decoder.push(&self.encoder.take_bytes().unwrap()).unwrap();
        while let DecoderPoll::Event(event) = self.decoder.poll().unwrap() {
            match event {
                DecoderEvent::SideWanted { .. } => self.decoder.give_side(&[0]).unwrap(),
                DecoderEvent::Frames(frames) => self.rows.copy_from_slice(&frames.hidden),
                _ => {}
            }
        }
    }
}

struct C {
    encoder: *mut midspan_encoder,
    decoder: *mut midspan_decoder,
    rows: Vec<f32>,
}

impl C {
    fn new(file: &[u8], width: usize) -> C {
        let (mut model, mut encoder, mut decoder) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
        let (mut encoding, mut decoding) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        // SAFETY: all pointers are valid, and the settings are set by their functions.
        unsafe {
            assert_eq!(midspan_model_load(file.as_ptr(), file.len(), 1 << 30, &mut model), 0);
            assert_eq!(midspan_encoder_config_init(encoding.as_mut_ptr(), ptr::null()), 0);
            assert_eq!(midspan_encoder_new(model, encoding.as_ptr(), &mut encoder), 0);
            assert_eq!(midspan_decoder_config_init(decoding.as_mut_ptr()), 0);
            assert_eq!(midspan_decoder_new(model, decoding.as_ptr(), &mut decoder), 0);
            midspan_model_free(model);
        }
        C { encoder, decoder, rows: vec![0.0; width] }
    }

    fn step(&mut self, hidden: &[f32], side: bool) {
        let (mut bytes, mut event) = (MaybeUninit::<midspan_bytes>::uninit(), MaybeUninit::<midspan_event>::uninit());
        // SAFETY: the handles live, and results are read only after calls that succeeded.
        unsafe {
            if side {
                assert_eq!(midspan_encoder_set_side(self.encoder, &0, 1, 0), 0);
            }
            assert_eq!(midspan_encoder_push_hidden(self.encoder, hidden.as_ptr(), 1, hidden.len()), 0);
            assert_eq!(midspan_encoder_take_bytes(self.encoder, bytes.as_mut_ptr()), 0);
            let taken = bytes.assume_init_mut();
            assert_eq!(midspan_decoder_push(self.decoder, taken.data, taken.len), 0);
            midspan_bytes_free(taken);
            loop {
                let (rows, room) = (self.rows.as_mut_ptr(), self.rows.len());
                assert_eq!(midspan_decoder_poll_into(self.decoder, rows, room, event.as_mut_ptr()), 0);
                match event.assume_init_ref().kind {
                    MIDSPAN_EVENT_SIDE_WANTED => assert_eq!(midspan_decoder_give_side(self.decoder, &0, 1), 0),
                    MIDSPAN_EVENT_NEED_MORE => break,
                    _ => {}
                }
            }
        }
    }
}

impl Drop for C {
    fn drop(&mut self) {
        // SAFETY: the handles live and nobody else has them.
        unsafe {
            midspan_encoder_free(self.encoder);
            midspan_decoder_free(self.decoder);
        }
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let model = arguments.next().map_or_else(|| root.join("crates/midspan-cli/model/codec.safetensors"), PathBuf::from);
    let steps: usize = arguments.next().map_or(2_000, |steps| steps.parse().unwrap());
    let file = std::fs::read(model).unwrap();
    let codec = Arc::new(Codec::from_bytes(&file, 1 << 30).unwrap());
    let (width, side) = (codec.model().hidden_width(), codec.model().side().is_some());
    let mut rust = Rust {
        encoder: Encoder::new(codec.clone(), EncoderConfig::new(Identity::none())).unwrap(),
        decoder: Decoder::new(codec, DecoderConfig::default()).unwrap(),
        rows: vec![0.0; width],
    };
    let mut c = C::new(&file, width);
    let mut random = Random::new(1);
    let (mut in_rust, mut in_c) = (Vec::new(), Vec::new());
    for step in 0..steps {
        let hidden: Vec<f32> = (0..width).map(|_| random.within(-1000, 1000) as f32 / 1000.0).collect();
        let time = |call: &mut dyn FnMut()| {
            let begin = Instant::now();
            call();
            begin.elapsed().as_nanos() as f64 / 1000.0
        };
        // Whichever goes second finds the model in the cache, so they take turns.
        if step % 2 == 0 {
            in_rust.push(time(&mut || rust.step(&hidden, side)));
            in_c.push(time(&mut || c.step(&hidden, side)));
        } else {
            in_c.push(time(&mut || c.step(&hidden, side)));
            in_rust.push(time(&mut || rust.step(&hidden, side)));
        }
        assert_eq!(rust.rows, c.rows);
    }
    let (in_rust, in_c) = (median(in_rust), median(in_c));
    println!("width {width}, {steps} steps of one frame, both ends: Rust {in_rust:.2} µs, C {in_c:.2} µs a step");
    println!("C takes {:.2} times as long", in_c / in_rust);
}
