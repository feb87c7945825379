use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use candle_core::{Device, Tensor};
use midspan::codec::{
    Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, SideDelivery, Together,
};
use midspan::engine::{ChunkSpec, EncodeJob, Engine, Layout, NetworkName, PrepareJob, Source};
use midspan::error::ErrorKind;
use midspan::exact::Serial;
use midspan::model::CodecModel;
use midspan::model::synthetic::{self, Random, SyntheticShape};
use midspan::stream::Limits;
use midspan::wire::{CheckWidth, Identity, varint};

use super::frames::{Maps, model_of};
use crate::test_models::{fitting, kinds};
use crate::{Coder, Error, KernelCodec, Machine};

const WIDTH: usize = 20;

fn on_machine() -> (Machine, Arc<KernelCodec>) {
    upload_model(synthetic::model(&SyntheticShape::tiny(), 1))
}

/// The same with each of some models.
fn on_machines() -> impl Iterator<Item = (Machine, Arc<KernelCodec>)> {
    kinds(&SyntheticShape::tiny()).into_iter().map(|shape| upload_model(fitting(&shape, 1)))
}

fn upload_model(model: CodecModel) -> (Machine, Arc<KernelCodec>) {
    let machine = Machine::cpu(3);
    let codec = Codec::new(model).unwrap();
    let codec = KernelCodec::new(Arc::new(codec), &machine).unwrap();
    (machine, Arc::new(codec))
}

fn hidden(random: &mut Random, frames: usize) -> Vec<f32> {
    (0..frames * WIDTH).map(|_| random.within(-900, 900) as f32 / 128.0).collect()
}

fn tensor(hidden: &[f32]) -> Tensor {
    Tensor::from_slice(hidden, (hidden.len() / WIDTH, WIDTH), &Device::Cpu).unwrap()
}

/// The side indices of some frames.
fn sides(model: &CodecModel, first: u64, count: usize) -> Vec<u32> {
    let all = u64::from(model.side().unwrap().vocabulary()) + 1;
    (first..).take(count).map(|index| (index.wrapping_mul(7_919) % all) as u32).collect()
}

/// Gives the side indices of the next frames, if the model takes any.
fn set_side<E: Engine>(encoder: &mut Encoder<E>, count: usize) {
    let (model, first) = (encoder.codec().model(), encoder.next_index());
    if model.side().is_some() {
        let delivery = if first.is_multiple_of(2) { SideDelivery::Sent } else { SideDelivery::Known };
        let indices = sides(model, first, count);
        encoder.set_side(&indices, delivery).unwrap();
    }
}

/// Gives the side indices that a poll asks for.
fn give_side<E: Engine, H>(decoder: &mut Decoder<E>, poll: &DecoderPoll<H>) {
    if let DecoderPoll::Event(DecoderEvent::SideWanted { index, count }) = poll {
        let indices = sides(decoder.codec().model(), *index, *count);
        decoder.give_side(&indices).unwrap();
    }
}

/// Limits for chunks with more frames than a launch.
const LIMITS: Limits = Limits::FORMAT.max_frames(4_096).max_chunk_bytes(1 << 24).target_horizon(4_096);

fn encoder_config() -> EncoderConfig {
    EncoderConfig::new(Identity::none())
        .max_frames_per_chunk(LIMITS.max_frames)
        .max_chunk_bytes(LIMITS.max_chunk_bytes)
        .target_horizon(LIMITS.target_horizon)
}

/// The CPU decodes chunks in one call, as a device does.
fn decoder_config() -> DecoderConfig {
    DecoderConfig::default().limits(LIMITS).frames_per_poll(usize::MAX)
}

fn decoder(codec: &Arc<KernelCodec>, coder: Coder) -> Decoder<KernelCodec> {
    let codec = KernelCodec::clone(codec).with_coder(coder);
    Decoder::new(Arc::new(codec), decoder_config()).unwrap()
}

/// A poll with its hidden states on the CPU.
fn on_cpu(poll: DecoderPoll<Tensor>) -> DecoderPoll {
    poll.try_map_hidden(|hidden| hidden.flatten_all()?.to_vec1::<f32>()).unwrap()
}

fn frames_in(poll: &DecoderPoll<Tensor>) -> usize {
    match poll {
        DecoderPoll::Event(DecoderEvent::Frames(frames)) => frames.hidden.dim(0).unwrap(),
        _ => 0,
    }
}

struct Pair {
    device: Encoder<KernelCodec>,
    cpu: Encoder,
}

impl Pair {
    fn new(codec: &Arc<KernelCodec>) -> Pair {
        let config = encoder_config().rate_weight(Some(0.1)).checkpoint_interval(9);
        Pair {
            device: Encoder::new(Arc::clone(codec), config.clone()).unwrap(),
            cpu: Encoder::new(Arc::clone(codec.codec()), config).unwrap(),
        }
    }

    fn set_side(&mut self, count: usize) {
        set_side(&mut self.device, count);
        set_side(&mut self.cpu, count);
    }

    fn push(&mut self, hidden: &[f32]) -> Bytes {
        self.set_side(hidden.len() / WIDTH);
        self.device.push_hidden(&tensor(hidden)).unwrap();
        self.cpu.push_hidden(hidden).unwrap();
        let bytes = self.device.take_bytes().unwrap();
        assert_eq!(bytes, self.cpu.take_bytes().unwrap());
        bytes
    }
}

/// One refusal is found before the networks run, one after. Contexts are unchanged, as far back as a rewind goes.
#[test]
fn refused_frames_leave_contexts_as_they_were() {
    for (_, codec) in on_machines() {
        refused_frames_change_nothing(&codec);
    }
}

fn refused_frames_change_nothing(codec: &Arc<KernelCodec>) {
    let mut random = Random::new(3);
    for frames in [1, 100, 128, 129, 700] {
        let mut pair = Pair::new(codec);
        for _ in 0..3 {
            pair.push(&hidden(&mut random, 150));
        }
        let mut bad = hidden(&mut random, frames);
        bad[frames * WIDTH - 1] = f32::NAN;
        set_side(&mut pair.device, frames);
        let refused = pair.device.push_hidden(&tensor(&bad)).unwrap_err();
        assert_eq!(refused.kind(), Some(ErrorKind::HiddenNotFinite));
        let to = pair.cpu.next_index() - 64;
        pair.device.rewind(to).unwrap();
        pair.cpu.rewind(to).unwrap();
        pair.push(&hidden(&mut random, 2));
        pair.push(&hidden(&mut random, 200));
    }
}

/// The result is [`Error::Device`], nothing is lost, and other sessions continue.
#[test]
fn sessions_outlive_a_full_device() {
    let (machine, codec) = on_machine();
    let mut random = Random::new(5);
    let mut pair = Pair::new(&codec);
    let mut late = Pair::new(&codec);
    pair.push(&hidden(&mut random, 3));

    machine.leave_free(100);
    let long = hidden(&mut random, 2_000);
    for _ in 0..2 {
        assert!(matches!(pair.device.push_hidden(&tensor(&long)), Err(Error::Device(_))), "room to work in");
    }
    assert!(matches!(late.device.push_hidden(&tensor(&long[..WIDTH])), Err(Error::Device(_))), "a context of its own");
    let mut fork = pair.device.clone();
    assert!(matches!(fork.push_hidden(&tensor(&long[..WIDTH])), Err(Error::Device(_))), "a copy of a context");
    drop(fork);
    // The working memory was freed, and a smaller step can use it.
    machine.leave_free(1 << 20);
    pair.push(&hidden(&mut random, 2));
    pair.push(&hidden(&mut random, 1));

    machine.leave_free(1 << 40);
    late.push(&long);
    pair.push(&long);
}

#[test]
fn a_decoder_tries_again_what_did_not_fit() {
    // Each with a machine of its own, because a machine keeps the memory that it has worked in.
    for coder in [Coder::Device, Coder::Cpu, Coder::Automatic] {
        for (machine, codec) in on_machines() {
            tries_again(&machine, &codec, coder);
        }
    }
}

fn tries_again(machine: &Machine, codec: &Arc<KernelCodec>, coder: Coder) {
    let mut random = Random::new(8);
    let mut encoder = Encoder::new(Arc::clone(codec.codec()), encoder_config()).unwrap();
    for frames in [500, 1] {
        set_side(&mut encoder, frames);
        encoder.push_hidden(&hidden(&mut random, frames)).unwrap();
    }
    let bytes = encoder.take_bytes().unwrap();
    let mut cpu = Decoder::new(Arc::clone(codec.codec()), decoder_config()).unwrap();
    let mut device = decoder(codec, coder);
    cpu.push(&bytes).unwrap();
    device.push(&bytes).unwrap();
    machine.leave_free(100);
    let mut failures = 0;
    loop {
        let poll = device.poll();
        if let Err(Error::Device(_)) = poll {
            failures += 1;
            if failures > 2 {
                machine.leave_free(1 << 40);
            }
            continue;
        }
        let expected = cpu.poll().unwrap();
        assert_eq!(on_cpu(poll.unwrap()), expected);
        give_side(&mut cpu, &expected);
        give_side(&mut device, &expected);
        if expected == DecoderPoll::NeedMore {
            break;
        }
    }
    assert_eq!(failures, 3);
}

/// Engines take jobs from anyone, and kernels read what addresses and indices say.
#[test]
fn jobs_that_no_session_makes_are_refused() {
    let (_, codec) = upload_model(synthetic::model(&SyntheticShape::with_side(), 1));
    let hidden = tensor(&hidden(&mut Random::new(1), 3));
    let prepare = |quality, frames_per_chunk| {
        let job = PrepareJob { hidden: &hidden, quality, refuses_clipping: false, frames_per_chunk };
        codec.prepare(&[job], &Serial).remove(0)
    };
    let prepared = prepare(0, 0).unwrap();
    assert_eq!(prepare(9, 1).unwrap_err().kind(), Some(ErrorKind::UnknownQuality));
    let context = |name| codec.context(name, 8).unwrap();
    let encode = |quality, lanes, with_h: bool, rows: std::ops::Range<usize>, side: &[i16]| {
        let (mut h, mut g_y) = (context(NetworkName::H), context(NetworkName::Gy));
        let spec = ChunkSpec {
            frames: 3,
            quality,
            rate_weight: 0.1,
            lanes,
            layout: Layout::Joined,
            refuses_clipping: false,
            keep_integers: false,
            track_cost: false,
        };
        let source = Source::Hidden(&prepared, rows);
        let job =
            EncodeJob { spec, source, side, past: &[], h: with_h.then_some(&mut h), g_y: &mut g_y, scratch: &mut () };
        codec.encode(&mut [job], &mut (), &Serial).map(|coded| coded.len())
    };
    let sums = vec![1; 3 * 5];
    assert_eq!(encode(0, 2, true, 0..3, &sums).unwrap(), 1);
    assert_eq!(encode(9, 2, true, 0..3, &sums).unwrap_err().kind(), Some(ErrorKind::UnknownQuality));
    for (lanes, with_h, rows) in [(0, true, 0..3), (2, false, 0..3), (2, true, 0..2)] {
        assert_eq!(encode(0, lanes, with_h, rows, &sums).unwrap_err().kind(), Some(ErrorKind::WrongShape));
    }
}

/// Hidden states that a decoder made on the CPU cannot be uploaded, after g_y has run. The context goes back, and with it
/// all that a rewind may reach.
#[test]
fn a_failed_upload_changes_nothing() {
    for (machine, codec) in on_machines() {
        failed_uploads_change_nothing(&machine, &codec);
    }
}

fn failed_uploads_change_nothing(machine: &Machine, codec: &Arc<KernelCodec>) {
    let mut random = Random::new(8);
    for frames in [1, 100, 128, 129, 500] {
        let mut pair = Pair::new(codec);
        let mut cpu = Decoder::new(Arc::clone(codec.codec()), decoder_config()).unwrap();
        let mut device = decoder(codec, Coder::Cpu);
        let mut receive = |bytes: &[u8], failing: bool| {
            cpu.push(bytes).unwrap();
            device.push(bytes).unwrap();
            let mut failures = 0;
            loop {
                machine.fail_uploads(failing && failures < 2);
                match device.poll() {
                    Err(Error::Device(_)) => failures += 1,
                    poll => {
                        let expected = cpu.poll().unwrap();
                        assert_eq!(on_cpu(poll.unwrap()), expected, "{frames} frames");
                        give_side(&mut cpu, &expected);
                        give_side(&mut device, &expected);
                        if expected == DecoderPoll::NeedMore {
                            return failures;
                        }
                    }
                }
            }
        };
        receive(&pair.push(&hidden(&mut random, 300)), false);
        assert_eq!(receive(&pair.push(&hidden(&mut random, frames)), true), 2);
        let rewind = |pair: &mut Pair| {
            let index = pair.cpu.next_index() - 64.min(frames as u64 + 20);
            pair.cpu.rewind(index).unwrap();
            pair.device.rewind(index).unwrap();
        };
        rewind(&mut pair);
        assert_eq!(receive(&pair.push(&hidden(&mut random, 3)), true), 2);
    }
}

/// Whichever launch fails, in chunks with one or several launches of the networks, nothing has changed, as far back as
/// a rewind goes.
#[test]
fn a_failed_launch_changes_nothing() {
    for (machine, codec) in on_machines() {
        failed_launches_change_nothing(&machine, &codec);
    }
}

fn failed_launches_change_nothing(machine: &Machine, codec: &Arc<KernelCodec>) {
    let mut random = Random::new(7);
    for frames in [1, 100, 500] {
        let mut pair = Pair::new(codec);
        let mut cpu = Decoder::new(Arc::clone(codec.codec()), decoder_config()).unwrap();
        let mut device = decoder(codec, Coder::Device);
        let mut receive = |bytes: &[u8], failing: bool| {
            cpu.push(bytes).unwrap();
            device.push(bytes).unwrap();
            let mut failures = 0;
            loop {
                machine.fail_after(failing.then_some(failures));
                let poll = match device.poll() {
                    Err(Error::Device(_)) => {
                        failures += 1;
                        continue;
                    }
                    poll => poll.unwrap(),
                };
                let expected = cpu.poll().unwrap();
                assert_eq!(on_cpu(poll), expected);
                give_side(&mut cpu, &expected);
                give_side(&mut device, &expected);
                if expected == DecoderPoll::NeedMore {
                    machine.fail_after(None);
                    return failures;
                }
            }
        };
        receive(&pair.push(&hidden(&mut random, 300)), false);
        let next = tensor(&hidden(&mut random, frames));
        let mut failures = 0;
        pair.set_side(frames);
        machine.fail_after(Some(0));
        while let Err(Error::Device(_)) = pair.device.push_hidden(&next) {
            failures += 1;
            // Rewind as far as possible and continue: all keys and values are still there.
            let mut fork = pair.device.clone();
            machine.fail_after(None);
            fork.rewind(300 - 64).unwrap();
            let mut alone = pair.cpu.clone();
            alone.rewind(300 - 64).unwrap();
            let again = hidden(&mut random, 3);
            set_side(&mut fork, 3);
            set_side(&mut alone, 3);
            fork.push_hidden(&tensor(&again)).unwrap();
            alone.push_hidden(&again).unwrap();
            assert_eq!(fork.take_bytes().unwrap(), alone.take_bytes().unwrap());
            drop(fork);
            machine.fail_after(Some(failures));
        }
        machine.fail_after(None);
        assert!(failures > 5, "{failures}");
        pair.cpu.push_hidden(&next.flatten_all().unwrap().to_vec1::<f32>().unwrap()).unwrap();
        let bytes = pair.device.take_bytes().unwrap();
        assert_eq!(bytes, pair.cpu.take_bytes().unwrap());
        assert!(receive(&bytes, true) > 5);
        receive(&pair.push(&hidden(&mut random, 150)), false);
    }
}

/// A device that has memory for only some of the streams' chunks at a time decodes all of them, in parts.
#[test]
fn a_large_stream_does_not_hold_up_others() {
    let (machine, codec) = on_machine();
    let mut random = Random::new(9);
    let mut bytes = Vec::new();
    for frames in [2_000, 1, 1] {
        let mut encoder = Encoder::new(Arc::clone(codec.codec()), encoder_config()).unwrap();
        encoder.push_hidden(&hidden(&mut random, frames)).unwrap();
        bytes.push(encoder.take_bytes().unwrap());
    }
    let mut decoders: Vec<_> = bytes.iter().map(|_| decoder(&codec, Coder::Automatic)).collect();
    for (decoder, bytes) in decoders.iter_mut().zip(&bytes) {
        decoder.push(bytes).unwrap();
    }
    machine.leave_free(200_000);
    let mut frames = [0; 3];
    let mut failed = [false; 3];
    for _ in 0..4 {
        let polls = Together::default().poll(&mut decoders.iter_mut().collect::<Vec<_>>());
        for (i, poll) in polls.into_iter().enumerate() {
            match poll {
                Ok(poll) => frames[i] += frames_in(&poll),
                Err(Error::Device(_)) => failed[i] = true,
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert_eq!((frames, failed), ([0, 1, 1], [true, false, false]));
    machine.leave_free(1 << 40);
    assert_eq!(frames_in(&decoders[0].poll().unwrap()), 2_000);
}

/// Payloads that are longer than the bytes downloaded with the lengths.
#[test]
fn long_payloads_come_whole() {
    let shape = SyntheticShape { hidden: 300, ..SyntheticShape::tiny() };
    let (_, codec) = upload_model(synthetic::model(&shape, 1));
    let mut encoder = Encoder::new(Arc::clone(&codec), encoder_config()).unwrap();
    let mut cpu = Encoder::new(Arc::clone(codec.codec()), encoder_config()).unwrap();
    let mut random = Random::new(4);
    for frames in [1, 5] {
        let hidden: Vec<f32> = (0..frames * 300).map(|_| random.within(-30_000, 30_000) as f32).collect();
        encoder.push_hidden(&Tensor::from_slice(&hidden, (frames, 300), &Device::Cpu).unwrap()).unwrap();
        cpu.push_hidden(&hidden).unwrap();
        let bytes = encoder.take_bytes().unwrap();
        assert_eq!(bytes, cpu.take_bytes().unwrap());
        assert!(bytes.len() > 256 * frames, "{}", bytes.len());
    }
}

/// With maps on each side of the quantiser, bytes and bits of hidden states are the same as on the CPU.
#[test]
fn models_with_maps_are_coded_alike() {
    for shape in kinds(&SyntheticShape::tiny()) {
        for maps in [Maps::Full, Maps::Sparse] {
            are_coded_alike(&upload_model(model_of(&shape, 2, maps)).1);
        }
    }
}

fn are_coded_alike(codec: &Arc<KernelCodec>) {
    let mut random = Random::new(2);
    let mut pair = Pair::new(codec);
    let mut cpu = Decoder::new(Arc::clone(codec.codec()), decoder_config()).unwrap();
    let mut device = decoder(codec, Coder::Device);
    let mut compared = 0;
    for frames in [1, 30, 2, 150] {
        let bytes = pair.push(&hidden(&mut random, frames));
        cpu.push(&bytes).unwrap();
        device.push(&bytes).unwrap();
        loop {
            match (cpu.poll().unwrap(), on_cpu(device.poll().unwrap())) {
                (
                    DecoderPoll::Event(DecoderEvent::Frames(expected)),
                    DecoderPoll::Event(DecoderEvent::Frames(found)),
                ) => {
                    assert_eq!(found.integers, expected.integers);
                    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&found.hidden), bits(&expected.hidden));
                    compared += found.hidden.len();
                }
                (expected, found) => {
                    assert_eq!(found, expected);
                    give_side(&mut cpu, &found);
                    give_side(&mut device, &found);
                    if found == DecoderPoll::NeedMore {
                        break;
                    }
                }
            }
        }
    }
    assert_eq!(compared, 183 * WIDTH);
}

/// If several lanes have faults, the first fault of W is reported or, if there is none, the first of Y, as on the CPU.
#[test]
fn the_same_lane_is_blamed() {
    let (_, codec) = on_machine();
    let mut random = Random::new(6);
    // Without checks, because they would find every fault first.
    let config = encoder_config().lanes(4).check(CheckWidth::None);
    let mut kinds = std::collections::BTreeSet::new();
    let mut later = 0;
    for _ in 0..300 {
        let mut encoder = Encoder::new(Arc::clone(codec.codec()), config.clone()).unwrap();
        let header = encoder.take_bytes().unwrap();
        encoder.push_hidden(&hidden(&mut random, 40)).unwrap();
        let mut chunk = encoder.take_bytes().unwrap().to_vec();
        for _ in 0..3 {
            let at = random.within(40, chunk.len() as i32 - 1) as usize;
            chunk[at] = random.within(0, 255) as u8;
        }
        let bytes = [&*header, &chunk].concat();
        let mut cpu = Decoder::new(Arc::clone(codec.codec()), decoder_config()).unwrap();
        let mut device = decoder(&codec, Coder::Device);
        cpu.push(&bytes).unwrap();
        device.push(&bytes).unwrap();
        let expected = (0..2).map(|_| cpu.poll()).find_map(|poll| poll.err());
        let on_device = (0..2).map(|_| device.poll()).find_map(|poll| poll.err());
        let on_device = on_device.map(|error| match error {
            Error::Codec(error) => error,
            Error::Device(error) => panic!("{error}"),
        });
        assert_eq!(on_device, expected);
        assert_eq!(device.next_index(), cpu.next_index());
        if let Some(error) = expected {
            kinds.insert(format!("{:?}", error.kind()));
            later += usize::from(error.offset() > header.len() as u64 + 40);
        }
    }
    assert!(kinds.len() >= 2 && later > 20, "{kinds:?} {later}");
}

/// One of several streams that are decoded together has a payload above the bound. The others are decoded.
#[test]
fn a_payload_above_the_bound_is_refused_as_on_the_cpu() {
    let (_, codec) = on_machine();
    let model = codec.codec().model();
    let most = 4 * (2 * (model.hidden_width() + model.hyper_prior_width()) + 8);
    let mut encoder = Encoder::new(Arc::clone(codec.codec()), encoder_config().check(CheckWidth::None)).unwrap();
    let header = encoder.take_bytes().unwrap();
    encoder.push_hidden(&hidden(&mut Random::new(3), 4)).unwrap();
    let right = [&*header, &encoder.take_bytes().unwrap()].concat();
    // Kind C1, length, frames - 1, lanes - 1, payload.
    let batch = |length: usize| {
        let body = [&[3, 0], &vec![0xFF; length][..]].concat();
        let mut chunk = BytesMut::from(&header[..]);
        chunk.put_u8(0xC1);
        varint::encode(body.len() as u64, &mut chunk).unwrap();
        chunk.extend_from_slice(&body);
        chunk
    };
    let streams = [&right[..], &batch(most + 1), &batch(most), &right];
    let open = |bytes: &&[u8]| {
        let mut cpu = Decoder::new(Arc::clone(codec.codec()), decoder_config()).unwrap();
        let mut device = decoder(&codec, Coder::Device);
        cpu.push(bytes).unwrap();
        device.push(bytes).unwrap();
        cpu.poll().unwrap();
        device.poll().unwrap();
        (cpu.poll().map(drop), device)
    };
    let (expected, mut devices): (Vec<_>, Vec<_>) = streams.iter().map(open).unzip();
    let mut devices: Vec<&mut Decoder<KernelCodec>> = devices.iter_mut().collect();
    let found = Together::default().poll(&mut devices).into_iter().map(|poll| match poll {
        Ok(_) => Ok(()),
        Err(Error::Codec(error)) => Err(error),
        Err(Error::Device(error)) => panic!("{error}"),
    });
    assert_eq!(found.collect::<Vec<_>>(), expected);
    let kinds: Vec<_> = expected.iter().map(|outcome| outcome.map_err(|error| error.kind())).collect();
    let (long, corrupt) = (ErrorKind::PayloadTooLong, ErrorKind::CorruptPayload);
    assert_eq!(kinds, [Ok(()), Err(long), Err(corrupt), Ok(())]);
}
