//! Hidden states outside the range of a quality are counted, or refused if the caller wants it. Y does not depend on
//! the mode of the floating-point unit (spec 6.8).
#![cfg(feature = "codec")]

use std::sync::Arc;

use midspan::codec::{
    Clipping, Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, Input, Push, Together,
};
use midspan::error::{Detail, Error, ErrorKind, Fault};
use midspan::model::synthetic::{self, Style, SyntheticShape};
use midspan::model::{CodecModel, Map};
use midspan::wire::{Dtype, Identity, Mode};

fn shape() -> SyntheticShape {
    SyntheticShape { qualities: 2, ..SyntheticShape::tiny() }
}

/// A model; with `maps`, it has maps that permute and scale elements.
fn codec(maps: bool) -> Arc<Codec> {
    let mut parts = synthetic::parts(&shape(), Style::Sensible, 5);
    if maps {
        let width = parts.e;
        // One map multiplies each element by 4 and moves it; the other map is its inverse.
        let at = |row: usize, column: usize| row == (column + 3) % width;
        let map = |scale: f32, back: bool| {
            let place = move |i: usize| if back { at(i % width, i / width) } else { at(i / width, i % width) };
            (0..width * width).map(|i| if place(i) { scale } else { 0.0 }).collect::<Vec<f32>>()
        };
        parts.synthesis = Some(Map::Full(map(0.25, true)));
        parts.encoder.as_mut().unwrap().analysis = Some(Map::Full(map(4.0, false)));
    }
    Arc::new(Codec::new(CodecModel::new(parts).unwrap()).unwrap())
}

fn config(clipping: Clipping) -> EncoderConfig {
    EncoderConfig::new(Identity::none()).clipping(clipping).quality(1)
}

fn encoder(codec: &Arc<Codec>, clipping: Clipping) -> Encoder {
    Encoder::new(codec.clone(), config(clipping)).unwrap()
}

/// Frames at the offsets of quality 1, with the given values at places (frame, element).
fn frames(codec: &Codec, count: usize, values: &[(usize, usize, f32)]) -> Vec<f32> {
    let offset = codec.model().offset(1);
    let mut hidden = offset.repeat(count);
    values.iter().for_each(|(frame, element, value)| hidden[frame * offset.len() + element] = *value);
    hidden
}

const FAR: &[(usize, usize, f32)] = &[(1, 4, 1e30), (1, 5, -1e30), (4, 0, 3e7), (6, 19, f32::MIN)];

fn bytes_of(hidden: &[f32]) -> Vec<u8> {
    hidden.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[test]
fn what_is_clamped_is_counted() {
    for maps in [false, true] {
        let codec = codec(maps);
        let width = codec.model().hidden_width();
        let hidden = frames(&codec, 8, FAR);
        let mut whole = encoder(&codec, Clipping::Report);
        assert_eq!((whole.last_clipped(), whole.clipped()), (0, 0));
        whole.push_hidden(&hidden).unwrap();
        assert_eq!((whole.last_clipped(), whole.clipped()), (4, 4), "maps: {maps}");

        let mut single = encoder(&codec, Clipping::Report);
        let counts: Vec<u64> = hidden
            .chunks(width)
            .map(|frame| {
                single.push_hidden(frame).unwrap();
                single.last_clipped()
            })
            .collect();
        assert_eq!((counts, single.clipped()), (vec![0, 2, 0, 0, 1, 0, 1, 0], 4));

        // A push of several chunks, in layered mode, is one push.
        let chunks = config(Clipping::Report).max_frames_per_chunk(3).mode(Mode::Layered);
        let mut chunked = Encoder::new(codec.clone(), chunks).unwrap();
        chunked.push_hidden(&hidden).unwrap();
        assert_eq!((chunked.last_clipped(), chunked.clipped()), (4, 4));
        // Integers are never clamped.
        chunked.push_y(&vec![0; width]).unwrap();
        assert_eq!((chunked.last_clipped(), chunked.clipped()), (0, 4));

        // Saved sessions and forks continue the count; a rewind does not reduce it.
        let mut restored = Encoder::restore(codec.clone(), &whole.save(), 1 << 24).unwrap();
        assert_eq!((restored.last_clipped(), restored.clipped()), (0, 4));
        restored.push_hidden(&hidden[width..2 * width]).unwrap();
        restored.rewind(0).unwrap();
        assert_eq!((restored.last_clipped(), restored.clipped()), (2, 6));
        let mut fork = whole.clone();
        fork.push_exact(Dtype::F32, &bytes_of(&hidden[4 * width..5 * width])).unwrap();
        assert_eq!((fork.last_clipped(), fork.clipped(), whole.clipped()), (1, 5, 4));

        let mut streams = vec![encoder(&codec, Clipping::Report); 3];
        let parts = [&hidden[..width], &hidden[width..2 * width], &hidden[2 * width..]];
        let mut pushes: Vec<Push<'_>> =
            streams.iter_mut().zip(parts).map(|(encoder, part)| Push { encoder, input: Input::Hidden(part) }).collect();
        assert!(Together::default().push(&mut pushes).iter().all(Result::is_ok));
        assert_eq!(streams.iter().map(Encoder::last_clipped).collect::<Vec<_>>(), [0, 2, 2]);
    }
}

#[test]
fn what_would_be_clamped_is_refused_on_request() {
    for maps in [false, true] {
        let codec = codec(maps);
        let width = codec.model().hidden_width();
        let hidden = frames(&codec, 8, FAR);
        // After the map of the test's model another element is the first far one.
        let first = if maps { 7 } else { 4 };
        let refused = |error: Error, count, frame, element| {
            assert_eq!((error.kind(), error.code(), error.fault()), (ErrorKind::HiddenClipped, 809, Fault::Caller));
            assert_eq!(error.detail(), Some(Detail::Clipped { count, frame, element }), "maps: {maps}");
            let told = format!("{count} values, the first in frame {frame}, element {element}");
            assert!(error.to_string().contains(&told), "{error}");
        };
        let (mut tried, mut spared) = (encoder(&codec, Clipping::Refuse), encoder(&codec, Clipping::Refuse));
        for encoder in [&mut tried, &mut spared] {
            encoder.push_hidden(&hidden[..width]).unwrap();
        }
        refused(tried.push_hidden(&hidden).unwrap_err(), 4, 1, first);
        refused(tried.quantise(&hidden).unwrap_err(), 4, 1, first);
        let mut pushes = [Push { encoder: &mut tried, input: Input::Hidden(&hidden[width..2 * width]) }];
        refused(Together::default().push(&mut pushes)[0].unwrap_err(), 2, 0, first);
        let mut restored = Encoder::restore(codec.clone(), &tried.save(), 1 << 24).unwrap();
        refused(restored.push_hidden(&hidden[width..2 * width]).unwrap_err(), 2, 0, first);
        assert_eq!((tried.last_clipped(), tried.clipped()), (0, 0));
        for encoder in [&mut tried, &mut spared] {
            encoder.push_hidden(&hidden[2 * width..4 * width]).unwrap();
            // An exact frame loses nothing.
            encoder.push_exact(Dtype::F32, &bytes_of(&hidden[width..2 * width])).unwrap();
            assert_eq!((encoder.last_clipped(), encoder.clipped()), (2, 2));
            encoder.end().unwrap();
        }
        let bytes = tried.take_bytes().unwrap();
        assert_eq!(bytes, spared.take_bytes().unwrap(), "a push that was refused changed nothing");
        let mut decoder = Decoder::new(codec.clone(), DecoderConfig::default()).unwrap();
        decoder.push(&bytes).unwrap();
        let exact = loop {
            match decoder.poll().unwrap() {
                DecoderPoll::Event(DecoderEvent::ExactFrame(exact)) => break exact,
                DecoderPoll::Event(_) => {}
                poll => panic!("{poll:?}"),
            }
        };
        assert_eq!(exact.hidden, bytes_of(&hidden[width..2 * width]));
    }
}

/// The range of a quality is what its decoder can represent. Values up to half a step outside it are not clamped.
#[test]
fn the_range_of_a_quality_is_where_clamping_begins() {
    let codec = codec(false);
    let model = codec.model();
    let (low, high) = model.y_range();
    for quality in 0..model.qualities() {
        let config = config(Clipping::Report).quality(quality as u8).rate_weight(Some(0.0));
        let mut encoder = Encoder::new(codec.clone(), config).unwrap();
        let range: Vec<(f32, f32)> = model.range(quality).collect();
        let (lows, highs): (Vec<f32>, Vec<f32>) = range.iter().copied().unzip();
        for (hidden, y) in [(&lows, low), (&highs, high)] {
            encoder.push_hidden(hidden).unwrap();
            assert_eq!((encoder.last_clipped(), &encoder.last_integers().unwrap().y), (0, &vec![y; hidden.len()]));
        }
        let beyond = |share: f32| -> Vec<f32> {
            highs.iter().zip(model.step(quality)).map(|(high, step)| high + share * step).collect()
        };
        encoder.push_hidden(&beyond(0.4)).unwrap();
        assert_eq!(encoder.last_clipped(), 0);
        encoder.push_hidden(&beyond(0.6)).unwrap();
        assert_eq!(encoder.last_clipped(), model.hidden_width() as u64);
        let (least, greatest) = model.common_range(quality);
        assert!(least < greatest && range.iter().all(|(low, high)| *low <= least && greatest <= *high));
        assert!(range.iter().any(|(low, _)| *low == least) && range.iter().any(|(_, high)| *high == greatest));
        for value in [least, greatest, (least + greatest) / 2.0] {
            encoder.push_hidden(&vec![value; model.hidden_width()]).unwrap();
            assert_eq!(encoder.last_clipped(), 0);
        }
    }
    // In a model with maps the range applies to the mapped elements, without offsets.
    let mapped = self::codec(true);
    let (step, range) = (mapped.model().step(1).to_vec(), mapped.model().range(1));
    assert!(range.zip(step).all(|(range, step)| range == (f32::from(low) * step, f32::from(high) * step)));
}

/// Tests that change the control register of the floating-point unit during a call.
#[cfg(target_arch = "x86_64")]
mod float_mode {
    use std::arch::asm;

    use super::*;

    /// Runs `call` with bits of MXCSR set, and restores the register after it.
    fn with_mode<T>(bits: u32, call: impl FnOnce() -> T) -> T {
        let mut before = 0_u32;
        // SAFETY: `stmxcsr` writes four bytes to a valid place, and `ldmxcsr` reads four. The bits select rounding and
        // flushing and raise no exception. Code that runs meanwhile computes with them, as the test wants.
        unsafe { asm!("stmxcsr [{}]", in(reg) &raw mut before, options(nostack)) };
        let changed = before | bits;
        // SAFETY: as above.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const changed, options(nostack)) };
        let made = call();
        // SAFETY: as above.
        unsafe { asm!("ldmxcsr [{}]", in(reg) &raw const before, options(nostack)) };
        made
    }

    const MODES: [(u32, &str); 6] = [
        (0x2000, "round to the nearest"), // down
        (0x4000, "round to the nearest"), // up
        (0x6000, "round to the nearest"), // towards zero
        (0x8000, "flushes subnormal"),    // flush to zero
        (0x0040, "flushes subnormal"),    // denormals are zeros
        (0x8040, "flushes subnormal"),
    ];

    #[test]
    fn an_encoder_refuses_another_mode_of_the_floating_point_unit() {
        for maps in [false, true] {
            let codec = codec(maps);
            let hidden = frames(&codec, 2, &[(0, 0, 0.5), (1, 3, -2.0)]);
            let frame = &hidden[..codec.model().hidden_width()];
            let (mut tried, mut spared) = (encoder(&codec, Clipping::Report), encoder(&codec, Clipping::Report));
            for (bits, told) in MODES {
                let outcomes = with_mode(bits, || {
                    let mut together = Together::default();
                    let mut copy = tried.clone();
                    let mut pushes = [Push { encoder: &mut copy, input: Input::Hidden(&hidden) }];
                    [
                        tried.push_hidden(&hidden),
                        tried.quantise(frame).map(drop),
                        tried.push_exact(Dtype::F32, &bytes_of(frame)),
                        together.push(&mut pushes)[0],
                    ]
                });
                for outcome in outcomes {
                    let error = outcome.unwrap_err();
                    assert_eq!((error.kind(), error.code(), error.fault()), (ErrorKind::FloatMode, 810, Fault::Caller));
                    assert!(error.to_string().contains(told), "{bits:#x}: {error}");
                }
                // Integers do not depend on the mode.
                with_mode(bits, || tried.push_y(&vec![1; frame.len()])).unwrap();
                spared.push_y(&vec![1; frame.len()]).unwrap();
            }
            tried.push_hidden(&hidden).unwrap();
            spared.push_hidden(&hidden).unwrap();
            assert_eq!(tried.take_bytes().unwrap(), spared.take_bytes().unwrap());
        }
    }

    /// Without the guard Y would differ, which is the reason for the guard.
    #[test]
    fn y_would_depend_on_the_mode() {
        let nearest = |x: f32| (std::hint::black_box(x) * std::hint::black_box(1.0 / 3.0)).round_ties_even();
        let values: Vec<f32> = (0..4_000).map(|i| i as f32 * 0.7501).collect();
        let own: Vec<f32> = values.iter().map(|x| nearest(*x)).collect();
        let other: Vec<f32> = with_mode(0x4000, || values.iter().map(|x| nearest(*x)).collect());
        assert_ne!(own, other);
    }

    /// A decoder's integers do not depend on the mode.
    #[test]
    fn a_decoders_integers_depend_on_no_mode() {
        let codec = codec(false);
        let mut encoder = encoder(&codec, Clipping::Report);
        let hidden: Vec<f32> = (0..40 * codec.model().hidden_width()).map(|i| (i % 97) as f32 / 9.0 - 5.0).collect();
        encoder.push_hidden(&hidden).unwrap();
        encoder.end().unwrap();
        let bytes = encoder.take_bytes().unwrap();
        let decode = || {
            let mut decoder = Decoder::new(codec.clone(), DecoderConfig::default()).unwrap();
            decoder.push(&bytes).unwrap();
            loop {
                match decoder.poll().unwrap() {
                    DecoderPoll::Event(DecoderEvent::Frames(frames)) => break frames.integers.unwrap(),
                    DecoderPoll::Event(_) => {}
                    poll => panic!("{poll:?}"),
                }
            }
        };
        let own = decode();
        for (bits, _) in MODES {
            assert_eq!(with_mode(bits, decode), own, "{bits:#x}");
        }
    }
}
