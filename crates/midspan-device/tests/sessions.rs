//! Sessions on a candle device give the same bytes and events as on the CPU, one by one and together.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use midspan::adapter::Threads;
use midspan::codec::{
    Clipping, Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, Input, Push,
    SideDelivery, Together,
};
use midspan::engine::{ChunkSpec, DecodeJob, DecodeSpec, EncodeJob, Engine, Layout, NetworkName, Source};
use midspan::error::{Detail, ErrorKind, Fault};
use midspan::exact::Serial;
use midspan::model::synthetic::{self, Random, Style, SyntheticShape};
use midspan::model::{CodecModel, Map};
use midspan::stream::{Binding, MessageClass};
use midspan::wire::{Dtype, Identity, Mode, Payload};
use midspan_device::{Carrier, Error, TensorCodec};
#[cfg(feature = "kernels")]
use midspan_device::{Coder, KernelCodec, Machine};

#[allow(dead_code)] // The self-test uses others.
#[path = "../src/test_models.rs"]
mod test_models;

use test_models::{fitting, fitting_sparse, kinds};

/// A number below `bound`.
fn below(random: &mut Random, bound: usize) -> usize {
    random.within(0, bound as i32 - 1) as usize
}

/// Some values are halfway between two integers and some far out; some frames are far out, and some equal the previous
/// one.
fn hidden(random: &mut Random, frames: usize, width: usize) -> Vec<f32> {
    let value = |n: usize| if n == 0 { 3e38 } else { (n as f32 - 2_000.0) / 512.0 };
    let mut all: Vec<f32> = Vec::new();
    for frame in 0..frames {
        match below(random, 6) {
            0 | 1 if frame > 0 => all.extend_from_within((frame - 1) * width..),
            2 => all.extend((0..width).map(|_| (100.0 * value(below(random, 4_001))).min(3e38))),
            _ => all.extend((0..width).map(|_| value(below(random, 4_001)))),
        }
    }
    all
}

/// An engine of this crate.
trait OnDevice: Engine<Input = Tensor, Hidden = Tensor, Error = Error> {
    /// The same model on the CPU.
    fn cpu(&self) -> Arc<Codec>;
}

impl OnDevice for TensorCodec {
    fn cpu(&self) -> Arc<Codec> {
        self.codec().clone()
    }
}

#[cfg(feature = "kernels")]
impl OnDevice for KernelCodec {
    fn cpu(&self) -> Arc<Codec> {
        self.codec().clone()
    }
}

fn codec(model: CodecModel) -> Arc<Codec> {
    Arc::new(Codec::new(model).unwrap())
}

/// Runs a check with every engine: it gets a function that uploads models to one device.
macro_rules! with_every_engine {
    ($($(#[$doc:meta])* $name:ident: $check:ident;)+) => {
        $(
            $(#[$doc])*
            #[test]
            fn $name() {
                for carrier in Carrier::ALL {
                    $check(|model| Arc::new(TensorCodec::with_carrier(codec(model), &Device::Cpu, carrier).unwrap()));
                }
                #[cfg(feature = "kernels")]
                for coder in [Coder::Automatic, Coder::Cpu, Coder::Device] {
                    let machine = Machine::cpu(3);
                    $check(|model| {
                        Arc::new(KernelCodec::new(codec(model), &machine).unwrap().with_coder(coder))
                    });
                }
            }
        )+
    };
}

with_every_engine! {
    bytes_and_events_are_the_cpus: turns;
    streams_go_together: together;
    lost_targets_are_concealed: conceal;
    misuse_is_refused: misuse;
    sums_of_another_shape_are_refused: wrong_sums;
    what_is_clamped_is_counted_or_refused: clipping;
    refusals_say_what_and_where: facts;
    what_a_session_does_not_ask_for_is_not_there: asked;
    costs_and_datagrams_are_the_cpus: costs;
}

fn model(seed: u64) -> CodecModel {
    synthetic::model(&SyntheticShape::tiny(), seed)
}

/// Shapes with E 20 and C 6: with and without side indices, with and without blocks.
fn every_kind() -> Vec<SyntheticShape> {
    let any = SyntheticShape::random(&mut Random::new(3));
    let random = SyntheticShape { side: [1, 40, 7], hidden: 20, hyper_prior: 6, ..any };
    kinds(&SyntheticShape::tiny()).into_iter().chain([random]).collect()
}

/// The side index of a frame.
fn side_of(model: &CodecModel, index: u64) -> u32 {
    let most = model.side().unwrap().vocabulary();
    (index.wrapping_mul(7_919) % (u64::from(most) + 1)) as u32
}

fn sides(model: &CodecModel, first: u64, count: usize) -> Vec<u32> {
    (first..).take(count).map(|index| side_of(model, index)).collect()
}

/// Gives the side indices of the next frames, if the model takes any.
fn set_side<E: Engine>(encoder: &mut Encoder<E>, count: usize, delivery: SideDelivery) {
    let model = encoder.codec().model();
    if model.side().is_some() {
        let indices = sides(model, encoder.next_index(), count);
        encoder.set_side(&indices, delivery).unwrap();
    }
}

/// Some frames' side indices are sent, others are given to the decoder.
fn delivery(index: u64) -> SideDelivery {
    if index.is_multiple_of(3) { SideDelivery::Known } else { SideDelivery::Sent }
}

/// Gives the side indices that a poll asks for.
fn give_side<E: Engine, H>(decoder: &mut Decoder<E>, poll: &DecoderPoll<H>) {
    if let DecoderPoll::Event(DecoderEvent::SideWanted { index, count }) = poll {
        let indices = sides(decoder.codec().model(), *index, *count);
        decoder.give_side(&indices).unwrap();
    }
}

fn tensor(hidden: &[f32]) -> Tensor {
    let width = SyntheticShape::tiny().hidden;
    Tensor::from_slice(hidden, (hidden.len() / width, width), &Device::Cpu).unwrap()
}

/// A poll with its hidden states on the CPU.
fn on_cpu(poll: DecoderPoll<Tensor>) -> DecoderPoll {
    poll.try_map_hidden(|hidden| hidden.flatten_all()?.to_vec1::<f32>()).unwrap()
}

struct Stream<E: OnDevice> {
    device: Encoder<E>,
    cpu: Encoder,
    device_decoder: Decoder<E>,
    cpu_decoder: Decoder,
}

impl<E: OnDevice> Stream<E> {
    fn new(models: &[Arc<E>], mode: Mode, draw: &mut Random) -> Self {
        let config = EncoderConfig::new(Identity::none())
            .mode(mode)
            .checkpoint_interval(7)
            .lanes(1 + below(draw, 2) as u16)
            .max_frames_per_chunk([4, 4096][below(draw, 2)])
            .rate_weight([None, Some(0.1)][below(draw, 2)]);
        // The CPU decodes chunks in one call, as a device does.
        let on_cpu = DecoderConfig::default().frames_per_poll(usize::MAX);
        let mut device_decoder = Decoder::new(models[0].clone(), DecoderConfig::default()).unwrap();
        let mut cpu_decoder = Decoder::new(models[0].cpu(), on_cpu).unwrap();
        for model in &models[1..] {
            device_decoder.add_model(model.clone());
            cpu_decoder.add_model(model.cpu());
        }
        Stream {
            device: Encoder::new(models[0].clone(), config.clone()).unwrap(),
            cpu: Encoder::new(models[0].cpu(), config).unwrap(),
            device_decoder,
            cpu_decoder,
        }
    }

    /// Gives both encoders the side indices of the next frames.
    fn set_side(&mut self, count: usize) {
        let delivery = delivery(self.cpu.next_index());
        set_side(&mut self.cpu, count, delivery);
        set_side(&mut self.device, count, delivery);
    }

    /// Pushes the same frames to both. If one is refused, both refuse alike.
    fn push(&mut self, hidden: &[f32]) {
        self.set_side(hidden.len() / 20);
        let cpu = self.cpu.push_hidden(hidden).map_err(|error| Some(error.kind()));
        assert_eq!(self.device.push_hidden(&tensor(hidden)).map_err(|error| error.kind()), cpu);
    }

    /// Compares what both have sent and passes it on, with some of it lost.
    fn transmit(&mut self, draw: &mut Random) {
        let bytes = self.device.take_bytes().unwrap();
        assert_eq!(bytes, self.cpu.take_bytes().unwrap());
        assert_eq!(self.device.last_integers(), self.cpu.last_integers());
        let mut bytes = bytes.to_vec();
        if below(draw, 60) == 0
            && let Some(byte) = bytes.last_mut()
        {
            *byte ^= 4;
        }
        let _ = self.device_decoder.push(&bytes);
        let _ = self.cpu_decoder.push(&bytes);
    }

    /// Polls both until they need more or fail. Returns whether they failed.
    fn receive(&mut self) -> bool {
        loop {
            let cpu = self.cpu_decoder.poll();
            match self.device_decoder.poll() {
                Ok(poll) => {
                    let poll = on_cpu(poll);
                    assert_eq!(poll, cpu.unwrap());
                    give_side(&mut self.cpu_decoder, &poll);
                    give_side(&mut self.device_decoder, &poll);
                    if !matches!(poll, DecoderPoll::Event(_)) {
                        return false;
                    }
                }
                Err(error) => {
                    assert_eq!(error.kind(), cpu.err().map(|error| error.kind()));
                    return true;
                }
            }
        }
    }
}

fn turns<E: OnDevice>(upload_model: impl Fn(CodecModel) -> Arc<E>) {
    let mut failures = 0;
    let shapes = every_kind();
    let modes = [Mode::Joined, Mode::Layered];
    let cases = shapes.iter().flat_map(|shape| modes.map(|mode| (shape, mode)));
    let cases = cases.flat_map(|(shape, mode)| [(shape, mode, false), (shape, mode, true)]);
    for (seed, (shape, mode, sparse)) in cases.enumerate() {
        let fit = if sparse { fitting_sparse } else { fitting };
        let models = [1, 2].map(|seed| upload_model(fit(shape, seed)));
        // Behind sparse maps the largest numbers overflow.
        let most = if sparse { 1e30 } else { f32::MAX };
        let hidden = |draw: &mut Random, frames: usize, width: usize| -> Vec<f32> {
            hidden(draw, frames, width).iter().map(|value| value.clamp(-most, most)).collect()
        };
        let mut draw = Random::new(seed as u64);
        let mut in_force = 0;
        let mut stream = Stream::new(&models, mode, &mut draw);
        for _ in 0..60 {
            let next = stream.cpu.next_index();
            match below(&mut draw, 16) {
                0 => {
                    let to = next.saturating_sub(below(&mut draw, 4) as u64);
                    let device = stream.device.rewind(to);
                    assert_eq!(stream.cpu.rewind(to), device);
                }
                1 => {
                    let quality = below(&mut draw, 3) as u8;
                    assert_eq!(stream.cpu.set_quality(quality), stream.device.set_quality(quality));
                }
                2 => assert_eq!(stream.cpu.reset(), stream.device.reset()),
                3 => {
                    in_force = 1 - in_force;
                    stream.device.switch_model(models[in_force].clone(), 1).unwrap();
                    stream.cpu.switch_model(models[in_force].cpu(), 1).unwrap();
                }
                4 => {
                    let hidden: Vec<u8> = hidden(&mut draw, 1, 20).iter().flat_map(|v| v.to_le_bytes()).collect();
                    stream.set_side(1);
                    stream.device.push_exact(Dtype::F32, &hidden).unwrap();
                    stream.cpu.push_exact(Dtype::F32, &hidden).unwrap();
                }
                5 => {
                    let hidden = hidden(&mut draw, 9, 20);
                    let y = stream.cpu.quantise(&hidden).unwrap();
                    stream.set_side(9);
                    stream.device.push_y(&y).unwrap();
                    stream.cpu.push_y(&y).unwrap();
                    let w: Vec<i16> = (0..9 * 6).map(|_| draw.within(-3, 3) as i16).collect();
                    stream.set_side(9);
                    stream.device.push_integers(&y, &w).unwrap();
                    stream.cpu.push_integers(&y, &w).unwrap();
                }
                6 => {
                    // Forks continue like their originals.
                    stream.device = stream.device.clone();
                    stream.device_decoder = stream.device_decoder.clone();
                }
                7 => {
                    // If the fault is in the last of several chunks, nothing is coded either.
                    let mut hidden = hidden(&mut draw, 9, 20);
                    hidden[9 * 20 - 1] = f32::NAN;
                    stream.push(&hidden);
                }
                _ => (),
            }
            let frames = [1, 1, 2, 11][below(&mut draw, 4)];
            let hidden = hidden(&mut draw, frames, 20);
            stream.push(&hidden);
            stream.transmit(&mut draw);
            if stream.receive() {
                failures += 1;
                stream = Stream::new(&models, mode, &mut draw);
                in_force = 0;
            }
        }
    }
    assert!(failures > 0);
}

fn together<E: OnDevice>(upload_model: impl Fn(CodecModel) -> Arc<E>) {
    let side = SyntheticShape { side: [1, 40, 7], ..SyntheticShape::blockless() };
    let shapes = [SyntheticShape::tiny(), SyntheticShape::with_side(), side];
    let models: Vec<Arc<E>> = shapes.iter().map(|shape| upload_model(fitting(shape, 1))).collect();
    let mut draw = Random::new(9);
    // Streams of three models, in both modes with each.
    let modes = [Mode::Joined, Mode::Joined, Mode::Layered];
    let mut streams: Vec<Stream<E>> =
        (0..18).map(|stream| Stream::new(&[models[stream % 3].clone()], modes[stream / 3 % 3], &mut draw)).collect();
    let mut together = Together::new(Arc::new(Threads::new(3)));
    for round in 0..20 {
        let hidden: Vec<Vec<f32>> = (0..streams.len())
            .map(|_| {
                let frames = [1, 1, 1, 3, 9][below(&mut draw, 5)];
                hidden(&mut draw, frames, 20)
            })
            .collect();
        let tensors: Vec<Tensor> = hidden
            .iter()
            .enumerate()
            .map(|(i, hidden)| if round == 7 && i == 3 { tensor(&[f32::INFINITY; 20]) } else { tensor(hidden) })
            .collect();
        streams.iter_mut().zip(&hidden).for_each(|(stream, hidden)| stream.set_side(hidden.len() / 20));
        let mut pushes: Vec<Push<'_, E>> = streams
            .iter_mut()
            .zip(&tensors)
            .map(|(stream, hidden)| Push { encoder: &mut stream.device, input: Input::Hidden(hidden) })
            .collect();
        let outcomes = together.push(&mut pushes);
        for (i, ((stream, hidden), outcome)) in streams.iter_mut().zip(&hidden).zip(outcomes).enumerate() {
            if round == 7 && i == 3 {
                assert_eq!(outcome.unwrap_err().kind(), Some(ErrorKind::HiddenNotFinite));
            } else {
                outcome.unwrap();
                stream.cpu.push_hidden(hidden).unwrap();
            }
            let quality = below(&mut draw, 2) as u8;
            stream.cpu.set_quality(quality).unwrap();
            stream.device.set_quality(quality).unwrap();
            stream.transmit(&mut Random::new(0));
        }
        loop {
            let mut decoders: Vec<&mut Decoder<E>> =
                streams.iter_mut().map(|stream| &mut stream.device_decoder).collect();
            let polls = together.poll(&mut decoders);
            let mut busy = false;
            for (stream, poll) in streams.iter_mut().zip(polls) {
                let poll = on_cpu(poll.unwrap());
                busy |= matches!(poll, DecoderPoll::Event(_));
                assert_eq!(stream.cpu_decoder.poll().unwrap(), poll);
                give_side(&mut stream.cpu_decoder, &poll);
                give_side(&mut stream.device_decoder, &poll);
            }
            if !busy {
                break;
            }
        }
    }
}

fn conceal<E: OnDevice>(upload_model: impl Fn(CodecModel) -> Arc<E>) {
    for shape in every_kind() {
        conceal_with(&upload_model(fitting(&shape, 5)));
        conceal_with(&upload_model(fitting_sparse(&shape, 5)));
    }
}

fn conceal_with<E: OnDevice>(codec: &Arc<E>) {
    let config = EncoderConfig::new(Identity::none())
        .mode(Mode::Layered)
        .binding(Binding::Message)
        .target_horizon(3)
        .max_frames_per_chunk(3);
    let mut encoder = Encoder::new(codec.clone(), config).unwrap();
    let receive = DecoderConfig::default().binding(Binding::Message);
    let mut device = Decoder::new(codec.clone(), receive).unwrap();
    let receive = DecoderConfig::default().binding(Binding::Message);
    let mut cpu = Decoder::new(codec.cpu(), receive).unwrap();
    let mut draw = Random::new(4);
    for _ in 0..6 {
        // As many messages with every model.
        set_side(&mut encoder, 1, SideDelivery::Known);
        encoder.push_hidden(&tensor(&hidden(&mut draw, 1, 20))).unwrap();
    }
    let messages: Vec<_> = std::iter::from_fn(|| encoder.pop_message().unwrap()).collect();
    // The header, then a hyper-prior chunk and a target for each frame: some targets are lost.
    for (i, message) in messages.iter().enumerate() {
        if ![2, 4, 6, 8, 12].contains(&i) {
            if message.class == MessageClass::Droppable && i % 4 == 2 {
                device.push_datagram(&message.bytes).unwrap();
                cpu.push_datagram(&message.bytes).unwrap();
            } else {
                device.push_message(&message.bytes).unwrap();
                cpu.push_message(&message.bytes).unwrap();
            }
        }
    }
    let (mut concealed, mut targets) = (0, 0);
    loop {
        let expected = cpu.poll();
        match device.poll() {
            Ok(poll) => {
                let poll = on_cpu(poll);
                assert_eq!(Ok(&poll), expected.as_ref());
                give_side(&mut device, &poll);
                give_side(&mut cpu, &poll);
                match poll {
                    DecoderPoll::Event(DecoderEvent::TargetsOverdue { index, count }) => {
                        device.conceal(index, count).unwrap();
                        cpu.conceal(index, count).unwrap();
                        concealed += count;
                    }
                    DecoderPoll::Event(DecoderEvent::Targets(_)) => targets += 1,
                    DecoderPoll::Event(_) => {}
                    _ => break,
                }
            }
            Err(error) => {
                assert_eq!(error.kind(), expected.err().map(|error| error.kind()));
                break;
            }
        }
    }
    assert!(concealed > 0 && targets > 0, "{concealed} {targets}");
}

fn misuse<E: OnDevice>(upload_model: impl Fn(CodecModel) -> Arc<E>) {
    let codec = upload_model(model(1));
    let other = upload_model(model(2));
    let kind = |outcome: Result<(), Error>| outcome.unwrap_err().kind();
    let mut encoder = Encoder::new(codec.clone(), EncoderConfig::new(Identity::none())).unwrap();
    let frame = Tensor::zeros((1, 20), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(kind(encoder.push_hidden(&frame.flatten_all().unwrap())), Some(ErrorKind::WrongShape));
    assert_eq!(kind(encoder.push_hidden(&frame.narrow(1, 0, 19).unwrap())), Some(ErrorKind::WrongShape));
    assert_eq!(kind(encoder.push_hidden(&frame.narrow(0, 0, 0).unwrap())), Some(ErrorKind::WrongShape));
    // Other float types are converted to f32.
    encoder.push_hidden(&frame.to_dtype(DType::F16).unwrap()).unwrap();
    encoder.end().unwrap();
    assert_eq!(kind(encoder.push_hidden(&frame)), Some(ErrorKind::AfterEnd));

    let none = upload_model(model(1).without_encoder());
    let mut encoder = Encoder::new(none, EncoderConfig::new(Identity::none())).unwrap();
    assert_eq!(kind(encoder.push_hidden(&frame)), Some(ErrorKind::NotAvailable));
    assert_eq!(kind(encoder.push_y(&[0; 20])), Some(ErrorKind::NotAvailable));
    // A stream of another model.
    let mut decoder = Decoder::new(other, DecoderConfig::default()).unwrap();
    let mut encoder = Encoder::new(codec, EncoderConfig::new(Identity::none())).unwrap();
    decoder.push(&encoder.take_bytes().unwrap()).unwrap();
    for _ in 0..2 {
        assert_eq!(decoder.poll().unwrap_err().kind(), Some(ErrorKind::WrongModel));
    }
}

/// No session makes such jobs.
fn wrong_sums<E: OnDevice>(upload_model: impl Fn(CodecModel) -> Arc<E>) {
    let (with, without) = (SyntheticShape::with_side(), SyntheticShape::tiny());
    for (shape, right) in [(with, 15), (without, 0)] {
        let engine = upload_model(synthetic::model(&shape, 1));
        let context = |name| engine.context(name, 8).unwrap();
        let encode = |count: usize| {
            let spec = ChunkSpec {
                frames: 3,
                quality: 0,
                rate_weight: 0.0,
                lanes: 1,
                layout: Layout::Joined,
                refuses_clipping: false,
                keep_integers: false,
                track_cost: false,
            };
            let (mut h, mut g_y, mut scratch) = (context(NetworkName::H), context(NetworkName::Gy), Default::default());
            let (source, side) = (Source::Y(&[0; 60]), vec![1; count]);
            let job = EncodeJob {
                spec,
                source,
                side: &side,
                past: &[],
                h: Some(&mut h),
                g_y: &mut g_y,
                scratch: &mut scratch,
            };
            engine.encode(&mut [job], &mut Default::default(), &Serial).map(|mut coded| coded.remove(0).payloads)
        };
        let payloads = encode(right).unwrap();
        let decode = |count: usize| {
            let spec = DecodeSpec { frames: 3, quality: 0, hyper_prior: false, keep_integers: false };
            let lanes: Vec<_> = payloads.iter().map(|lane| Payload { bytes: lane.clone().into(), offset: 0 }).collect();
            let (mut partial, mut g_y, mut scratch) = (None, context(NetworkName::Gy), Default::default());
            let (partial, g_y, scratch) = (&mut partial, &mut g_y, &mut scratch);
            let job =
                DecodeJob { spec, lanes: &lanes, side: &vec![1; count], past: &[], slice: 3, partial, g_y, scratch };
            engine.decode(&mut [job], &mut Default::default(), &Serial).map(|decoded| decoded[0].is_ok())
        };
        assert!(decode(right).unwrap());
        for wrong in [3, 14, 18].into_iter().chain((right > 0).then_some(0)) {
            assert_eq!(encode(wrong).unwrap_err().kind(), Some(ErrorKind::WrongShape), "{wrong}");
            assert_eq!(decode(wrong).unwrap_err().kind(), Some(ErrorKind::WrongShape), "{wrong}");
        }
    }
}

fn clipping<E: OnDevice>(upload_model: impl Fn(CodecModel) -> Arc<E>) {
    for maps in [false, true] {
        let mut parts = synthetic::parts(&SyntheticShape::tiny(), Style::Sensible, 1);
        if maps {
            let turn = |i: usize| if i / 20 == (i % 20 + 3) % 20 { 2.0 } else { 0.0 };
            parts.synthesis = Some(Map::Full((0..400).map(turn).collect()));
            parts.encoder.as_mut().unwrap().analysis = Some(Map::Full((0..400).map(turn).collect()));
        }
        let codec = upload_model(CodecModel::new(parts).unwrap());
        let mut values = vec![0.5; 9 * 20];
        for far in [25, 26, 60 + 7, 160] {
            values[far] = if far % 2 == 0 { -1e30 } else { 4e20 };
        }
        let config = |clipping, max_frames_per_chunk| {
            EncoderConfig::new(Identity::none()).clipping(clipping).max_frames_per_chunk(max_frames_per_chunk)
        };
        // One chunk, and several of one push.
        for frames in [64, 2] {
            let mut encoder = Encoder::new(codec.clone(), config(Clipping::Report, frames)).unwrap();
            encoder.push_hidden(&tensor(&values)).unwrap();
            assert_eq!((encoder.last_clipped(), encoder.clipped()), (4, 4));
            encoder.push_hidden(&tensor(&values[20..40])).unwrap();
            assert_eq!((encoder.last_clipped(), encoder.clipped()), (2, 6));
            encoder.push_y(&[1; 60]).unwrap();
            assert_eq!((encoder.last_clipped(), encoder.clipped()), (0, 6));

            let mut tried = Encoder::new(codec.clone(), config(Clipping::Refuse, frames)).unwrap();
            let mut cpu = Encoder::new(codec.cpu(), config(Clipping::Refuse, frames)).unwrap();
            tried.push_hidden(&tensor(&values[..20])).unwrap();
            cpu.push_hidden(&values[..20]).unwrap();
            let refused = tried.push_hidden(&tensor(&values)).unwrap_err().codec_error().unwrap();
            let expected = cpu.push_hidden(&values).unwrap_err();
            assert_eq!((refused.kind(), refused.detail()), (ErrorKind::HiddenClipped, expected.detail()));
            assert_eq!(refused.detail().unwrap().found(), Some(4));
            // An exact frame loses nothing.
            let exact: Vec<u8> = values[20..40].iter().flat_map(|value| value.to_le_bytes()).collect();
            tried.push_exact(Dtype::F32, &exact).unwrap();
            cpu.push_exact(Dtype::F32, &exact).unwrap();
            assert_eq!((tried.last_clipped(), tried.clipped()), (2, 2));
            tried.push_hidden(&tensor(&values[40..60])).unwrap();
            cpu.push_hidden(&values[40..60]).unwrap();
            assert_eq!(
                tried.take_bytes().unwrap(),
                cpu.take_bytes().unwrap(),
                "a push that was refused changed nothing"
            );
        }
        // Streams of one call have separate counts. One that refuses is unchanged, and does not hold up the other.
        let open = |clipping| Encoder::new(codec.clone(), config(clipping, 64)).unwrap();
        let (mut loose, mut strict) = (open(Clipping::Report), open(Clipping::Refuse));
        let push = |loose: &mut Encoder<E>, strict: &mut Encoder<E>, hidden: [&[f32]; 2]| {
            let [first, second] = hidden.map(tensor);
            let mut pushes = [
                Push { encoder: loose, input: Input::Hidden(&first) },
                Push { encoder: strict, input: Input::Hidden(&second) },
            ];
            Together::default().push(&mut pushes)
        };
        let outcomes = push(&mut loose, &mut strict, [&values[20..100], &values[..20]]);
        assert!(outcomes.iter().all(Result::is_ok));
        assert_eq!((loose.last_clipped(), strict.last_clipped()), (3, 0));
        assert!(!loose.take_bytes().unwrap().is_empty() && !strict.take_bytes().unwrap().is_empty());
        let mut outcomes = push(&mut loose, &mut strict, [&values[..20], &values[40..80]]);
        let refused = outcomes.pop().unwrap().unwrap_err().codec_error().unwrap();
        let element = if maps { 10 } else { 7 };
        assert_eq!(refused.detail(), Some(Detail::Clipped { count: 1, frame: 1, element }));
        assert!(outcomes.pop().unwrap().is_ok());
        assert!(!loose.take_bytes().unwrap().is_empty() && strict.take_bytes().unwrap().is_empty());
        assert_eq!((loose.clipped(), strict.clipped()), (3, 0));
    }
}

fn facts<E: OnDevice>(upload_model: impl Fn(CodecModel) -> Arc<E>) {
    let codec = upload_model(model(1));
    let mut encoder = Encoder::new(codec.clone(), EncoderConfig::new(Identity::none())).unwrap();
    let refused = |outcome: Result<(), Error>| {
        let error = outcome.unwrap_err().codec_error().unwrap();
        assert_eq!(error.fault(), Fault::Caller, "{error}");
        error.to_string()
    };
    let mut values = vec![0.0; 60];
    (values[47], values[48]) = (f32::NAN, f32::INFINITY);
    let told = refused(encoder.push_hidden(&tensor(&values)));
    assert!(told.contains("(NaN in frame 2, element 7)"), "{told}");
    let mut second = Encoder::new(codec, EncoderConfig::new(Identity::none())).unwrap();
    let (good, bad) = (tensor(&values[..40]), tensor(&values[40..]));
    let mut pushes = [
        Push { encoder: &mut second, input: Input::Hidden(&good) },
        Push { encoder: &mut encoder, input: Input::Hidden(&bad) },
    ];
    let mut outcomes = Together::default().push(&mut pushes);
    let told = refused(outcomes.pop().unwrap());
    assert!(told.contains("(NaN in frame 0, element 7)"), "{told}");
    assert!(outcomes.pop().unwrap().is_ok());
    let frame = Tensor::zeros((2, 19), DType::F32, &Device::Cpu).unwrap();
    let told = refused(encoder.push_hidden(&frame));
    assert!(told.contains("hidden is [2, 19], not [T, 20] with T of 1 or more"), "{told}");
    let told = refused(encoder.push_y(&[0; 21]));
    assert!(told.contains("y has 21 values, which are no whole frames of 20"), "{told}");
}

/// [HOST-1]
#[test]
fn a_host_that_is_expected_has_to_be_stated() {
    let codec = Arc::new(TensorCodec::new(codec(model(1)), &Device::Cpu).unwrap());
    for (stated, good) in [(None, false), (Some([2; 32]), false), (Some([1; 32]), true)] {
        let config = EncoderConfig::new(Identity::none()).host_digest(stated);
        let bytes = Encoder::new(codec.clone(), config).unwrap().take_bytes().unwrap();
        let config = DecoderConfig::default().host_digest(Some([1; 32]));
        let mut decoder = Decoder::new(codec.clone(), config).unwrap();
        decoder.push(&bytes).unwrap();
        let kind = decoder.poll().err().and_then(|error| error.kind());
        assert_eq!(kind, if good { None } else { Some(ErrorKind::WrongHost) });
    }
}

/// The bytes of a stream without integers are the same, and its events say that there are none.
fn asked<E: OnDevice>(upload_model: impl Fn(CodecModel) -> Arc<E>) {
    for shape in every_kind() {
        asked_with(&upload_model(fitting(&shape, 1)));
    }
}

fn asked_with<E: OnDevice>(codec: &Arc<E>) {
    let mut draw = Random::new(3);
    let open = || Encoder::new(codec.clone(), EncoderConfig::new(Identity::none())).unwrap();
    let (mut with, mut without) = (open(), open());
    without.keep_integers(false);
    let mut decoder = Decoder::new(codec.clone(), DecoderConfig::default()).unwrap();
    for frames in [1, 5] {
        let hidden = tensor(&hidden(&mut draw, frames, 20));
        for encoder in [&mut with, &mut without] {
            set_side(encoder, frames, SideDelivery::Known);
            encoder.push_hidden(&hidden).unwrap();
        }
        let kept = with.last_integers().unwrap().clone();
        assert_eq!((kept.w.len(), kept.y.len()), (6 * frames, 20 * frames));
        assert_eq!(without.last_integers(), None);
        let bytes = with.take_bytes().unwrap();
        assert_eq!(bytes, without.take_bytes().unwrap());
        let mut asks = decoder.clone();
        decoder.keep_integers(false);
        for (decoder, expected) in [(&mut asks, Some(kept)), (&mut decoder, None)] {
            decoder.push(&bytes).unwrap();
            let frames = std::iter::from_fn(|| {
                let poll = decoder.poll().unwrap();
                give_side(decoder, &poll);
                match poll {
                    DecoderPoll::Event(event) => Some(event),
                    _ => None,
                }
            });
            let frames = frames.filter_map(|event| match event {
                DecoderEvent::Frames(frames) => Some(frames.integers),
                _ => None,
            });
            assert_eq!(frames.collect::<Vec<_>>(), [expected]);
        }
        decoder.keep_integers(true);
    }
}

/// What an engine has to copy back for them changes no byte.
fn costs<E: OnDevice>(upload_model: impl Fn(CodecModel) -> Arc<E>) {
    for shape in [SyntheticShape::tiny(), SyntheticShape::with_side(), SyntheticShape::blockless()] {
        let shape = SyntheticShape { hidden: 300, ..shape };
        costs_with(&upload_model(fitting(&shape, 1)));
    }
}

fn costs_with<E: OnDevice>(codec: &Arc<E>) {
    for datagram_limit in [None, Some(256)] {
        let config = EncoderConfig::new(Identity::none()).mode(Mode::Layered).datagram_limit(datagram_limit);
        let mut device = Encoder::new(codec.clone(), config.clone()).unwrap();
        let mut cpu = Encoder::new(codec.cpu(), config).unwrap();
        device.track_cost(true);
        cpu.track_cost(true);
        let mut draw = Random::new(5);
        for frames in [1, 6] {
            let hidden: Vec<f32> = (0..frames * 300).map(|_| draw.within(-30_000, 30_000) as f32).collect();
            set_side(&mut device, frames, SideDelivery::Sent);
            set_side(&mut cpu, frames, SideDelivery::Sent);
            device.push_hidden(&Tensor::from_slice(&hidden, (frames, 300), &Device::Cpu).unwrap()).unwrap();
            cpu.push_hidden(&hidden).unwrap();
            assert!(cpu.last_cost().is_some_and(|cost| cost.total() > 1_000.0));
            assert_eq!(device.last_cost(), cpu.last_cost());
            assert_eq!(device.take_bytes().unwrap(), cpu.take_bytes().unwrap());
        }
    }
}
