//! What one step costs behind sparse causal maps (spec 4.10), one core, medians: `cargo bench --bench sparse`.
//!
//! The models are random, without blocks, as `midspan calibrate` makes them: at most 115 entries a channel after the quantiser
//! and 85 before it. Encoders choose Y by its rate, which takes two runs over a frame. Those with tokens take a side index,
//! whose embedding has a sum for every channel and two for all.

use std::sync::Arc;
use std::time::Instant;

use midspan::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, SideDelivery};
use midspan::model::synthetic::{self, Random, Style, SyntheticShape};
use midspan::model::{CodecModel, Map, SparseMap};
use midspan::wire::{CheckWidth, Identity};

/// Frames of a repeat, with one frame a chunk.
const STEPS: usize = 64;
/// Frames of a repeat in one chunk.
const BATCH: usize = 128;
const REPEATS: usize = 7;
/// Side indices.
const VOCABULARY: u32 = 64;

/// A map whose channels read so many random channels before them.
fn rows(width: usize, entries: usize, random: &mut Random) -> SparseMap {
    let mut map = SparseMap::default();
    for channel in 0..width {
        let mut index: Vec<u16> = (0..entries).map(|_| random.within(0, channel.max(1) as i32 - 1) as u16).collect();
        index.sort_unstable();
        index.dedup();
        index.truncate(if channel == 0 { 0 } else { entries });
        map.count.push(index.len() as u16);
        map.weight.extend(index.iter().map(|_| random.within(-1_000, 1_000) as f32 / 30_000.0));
        map.index.extend(index);
    }
    map
}

fn codec(width: usize, tokens: bool) -> Arc<Codec> {
    let shape = SyntheticShape {
        hidden: width,
        hyper_prior: 1,
        g_y: Vec::new(),
        h: Vec::new(),
        qualities: 1,
        scales: 62,
        side: if tokens { [1, VOCABULARY as usize, width + 2] } else { [0; 3] },
        ..SyntheticShape::tiny()
    };
    let mut parts = synthetic::parts(&shape, Style::Sensible, 1);
    // Means of 0, deviations of three steps.
    let network = &mut parts.decoder_network;
    for (row, (multiplier, offset)) in network.output.multiplier.iter_mut().zip(&mut network.output_offset).enumerate()
    {
        (*multiplier, *offset) = (0, if row < width { 0 } else { 33 });
    }
    if tokens {
        // Every row reads the sum of its channel and the last two.
        let inputs = network.output.inputs;
        for (row, weights) in network.output.weight.chunks_exact_mut(inputs).enumerate() {
            let reads = |input: usize| input == 1 + row % width || input >= inputs - 2;
            weights.iter_mut().enumerate().filter(|(input, _)| !reads(*input)).for_each(|(_, weight)| *weight = 0);
        }
    }
    let mut random = Random::new(2);
    parts.synthesis = Some(Map::Sparse(rows(width, 115, &mut random)));
    if let Some(encoder) = &mut parts.encoder {
        encoder.analysis = Some(Map::Sparse(rows(width, 85, &mut random)));
        encoder.rate_weight = vec![0.1155];
    }
    Arc::new(Codec::new(CodecModel::new(parts).expect("a valid model")).expect("a codec"))
}

/// The times of the calls that give frames, in milliseconds, and the number of their values.
fn decode(codec: &Arc<Codec>, stream: &[u8]) -> (Vec<f64>, usize) {
    let config = DecoderConfig::default().memory_limit(1 << 32);
    let mut decoder = Decoder::new(codec.clone(), config).expect("a decoder");
    decoder.push(stream).expect("bytes");
    decoder.finish();
    let (mut times, mut values) = (Vec::new(), 0);
    loop {
        if let Some((index, count)) = decoder.wanted_side() {
            decoder.give_side(&tokens(index, count)).expect("side indices");
        }
        let clock = Instant::now();
        match decoder.poll().expect("an event") {
            DecoderPoll::Event(DecoderEvent::Frames(frames)) => {
                times.push(clock.elapsed().as_secs_f64() * 1e3);
                values += frames.hidden.len();
            }
            DecoderPoll::Event(_) => {}
            DecoderPoll::NeedMore | DecoderPoll::End => return (times, values),
        }
    }
}

/// The side indices of frames.
fn tokens(first: u64, count: usize) -> Vec<u32> {
    (first..).map(|index| (index * 7) as u32 % VOCABULARY).take(count).collect()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() {
    println!("width  tokens  entries a channel  frames a chunk  encode, ms a frame  decode, ms a frame");
    for (width, known) in [768, 2_048, 4_096].into_iter().flat_map(|width| [(width, false), (width, true)]) {
        let codec = codec(width, known);
        let model = codec.model();
        let entries = |map: Option<&Map>| map.and_then(Map::sparse).map_or(0, |map| map.index.len() / width);
        let mut random = Random::new(3);
        for (frames, batch) in [(STEPS, 1), (BATCH, BATCH)] {
            let values = (0..frames).flat_map(|_| model.step(0).iter().zip(model.offset(0)));
            let hidden: Vec<f32> =
                values.map(|(step, offset)| random.within(-900, 900) as f32 / 256.0 * step + offset).collect();
            let (mut encode, mut back) = (Vec::new(), Vec::new());
            for _ in 0..REPEATS {
                let config = EncoderConfig::new(Identity::none()).check(CheckWidth::None).memory_limit(1 << 32);
                let mut encoder = Encoder::new(codec.clone(), config).expect("an encoder");
                let mut stream = encoder.take_bytes().expect("a header").to_vec();
                for (at, chunk) in hidden.chunks(batch * width).enumerate() {
                    if known {
                        let own = tokens((at * batch) as u64, batch);
                        encoder.set_side(&own, SideDelivery::Known).expect("side indices");
                    }
                    let clock = Instant::now();
                    encoder.push_hidden(chunk).expect("a chunk");
                    stream.extend_from_slice(&encoder.take_bytes().expect("bytes"));
                    encode.push(clock.elapsed().as_secs_f64() * 1e3 / batch as f64);
                }
                encoder.end().expect("an end");
                stream.extend_from_slice(&encoder.take_bytes().expect("bytes"));
                let (times, values) = decode(&codec, &stream);
                assert_eq!(values, hidden.len());
                back.extend(times.iter().map(|time| time / batch as f64));
            }
            let (after, before) = (entries(model.synthesis()), entries(model.analysis()));
            println!(
                "{width:>5}  {:>6}  {:>17}  {batch:>14}  {:>18.3}  {:>18.3}",
                if known { "yes" } else { "no" },
                format!("{after} + {before}"),
                median(encode),
                median(back)
            );
        }
    }
}
