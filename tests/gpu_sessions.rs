//! Sessions on a candle device give the same bytes and events as on the CPU, one by one and together.
#![cfg(feature = "gpu")]

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use midspan::adapter::Threads;
use midspan::codec::{Clipping, Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig};
use midspan::error::{Detail, ErrorKind, Fault};
use midspan::gpu::tensors::Carrier;
use midspan::gpu::{Coder, DeviceCodec, DeviceDecoder, DeviceEncoder, DevicePoll, Error};
use midspan::model::CodecModel;
use midspan::model::synthetic::{self, Random, Style, SyntheticShape};
use midspan::stream::{Binding, MessageClass};
use midspan::wire::{Dtype, Identity, Mode};

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

/// How frames are coded on the device.
#[derive(Clone, Copy)]
enum Way {
    Tensors(Carrier),
    /// By kernels, with payloads decoded on the device or on the CPU.
    #[cfg(feature = "kernels")]
    Kernels(Coder),
}

#[cfg(not(feature = "kernels"))]
const WAYS: [Way; 2] = [Way::Tensors(Carrier::Double), Way::Tensors(Carrier::Single)];
#[cfg(feature = "kernels")]
const WAYS: [Way; 5] = [
    Way::Tensors(Carrier::Double),
    Way::Tensors(Carrier::Single),
    Way::Kernels(Coder::Automatic),
    Way::Kernels(Coder::Cpu),
    Way::Kernels(Coder::Device),
];

impl Way {
    /// Uploads models to one device.
    fn bring(self, models: impl IntoIterator<Item = CodecModel>) -> Vec<Arc<DeviceCodec>> {
        #[cfg(feature = "kernels")]
        let machine = midspan::gpu::kernels::Machine::cpu(3);
        let codec = |model| Arc::new(Codec::new(model).unwrap());
        let bring = |model| match self {
            Way::Tensors(carrier) => DeviceCodec::with_carrier(codec(model), &Device::Cpu, carrier),
            #[cfg(feature = "kernels")]
            Way::Kernels(_) => DeviceCodec::with_kernels(codec(model), &machine),
        };
        models.into_iter().map(|model| Arc::new(bring(model).unwrap())).collect()
    }

    fn coder(self) -> Coder {
        match self {
            Way::Tensors(_) => Coder::Automatic,
            #[cfg(feature = "kernels")]
            Way::Kernels(coder) => coder,
        }
    }

    /// Whether events of frames contain integers, whichever chunks are decoded together.
    fn events_have_integers(self) -> bool {
        self.brings_integers() || self.coder() == Coder::Cpu
    }

    /// Whether an encoder's integers are copied from the device.
    fn brings_integers(self) -> bool {
        matches!(self, Way::Tensors(_))
    }
}

fn on_device(model: CodecModel, way: Way) -> Arc<DeviceCodec> {
    way.bring([model]).remove(0)
}

fn model(seed: u64) -> CodecModel {
    synthetic::model(&SyntheticShape::tiny(), seed)
}

fn tensor(hidden: &[f32]) -> Tensor {
    let width = SyntheticShape::tiny().hidden;
    Tensor::from_slice(hidden, (hidden.len() / width, width), &Device::Cpu).unwrap()
}

/// The device's event with its hidden states put where the CPU's event has them.
fn whole(poll: DevicePoll) -> DecoderPoll {
    let DevicePoll { mut poll, hidden } = poll;
    let values = hidden.map(|hidden| hidden.flatten_all().unwrap().to_vec1::<f32>().unwrap());
    match (&mut poll, values) {
        (DecoderPoll::Event(DecoderEvent::Frames(frames)), Some(values)) => frames.hidden = values,
        (DecoderPoll::Event(DecoderEvent::ExactFrame(exact)), Some(values)) => exact.frame.hidden = values,
        (DecoderPoll::Event(DecoderEvent::Targets(targets)), Some(values)) => targets.hidden = values,
        (_, None) => {}
        (_, Some(_)) => panic!("hidden states with another event"),
    }
    poll
}

/// The CPU's event as the device would report it, possibly without the integers of frames.
fn alike(mut cpu: DecoderPoll, way: Way) -> DecoderPoll {
    if !way.events_have_integers() {
        let frames = match &mut cpu {
            DecoderPoll::Event(DecoderEvent::Frames(frames)) => Some(frames),
            DecoderPoll::Event(DecoderEvent::ExactFrame(exact)) => Some(&mut exact.frame),
            _ => None,
        };
        if let Some(frames) = frames {
            frames.w.clear();
            frames.y.clear();
        }
    }
    cpu
}

struct Stream {
    way: Way,
    device: DeviceEncoder,
    cpu: Encoder,
    device_decoder: DeviceDecoder,
    cpu_decoder: Decoder,
}

impl Stream {
    fn new(way: Way, models: &[Arc<DeviceCodec>], mode: Mode, draw: &mut Random) -> Stream {
        let config = EncoderConfig {
            mode,
            checkpoint_interval: 7,
            lanes: 1 + below(draw, 2) as u16,
            max_frames_per_chunk: [4, 4096][below(draw, 2)],
            rate_weight: [None, Some(0.1)][below(draw, 2)],
            ..EncoderConfig::new(Identity::none())
        };
        let others = models[1..].iter().map(|model| model.codec().clone()).collect();
        let decoder_config = DecoderConfig { models: others, ..DecoderConfig::default() };
        let mut device_decoder = DeviceDecoder::new(models.to_vec(), DecoderConfig::default()).unwrap();
        device_decoder.set_coder(way.coder());
        Stream {
            way,
            device: DeviceEncoder::new(models[0].clone(), config.clone()).unwrap(),
            cpu: Encoder::new(models[0].codec().clone(), config).unwrap(),
            device_decoder,
            cpu_decoder: Decoder::new(models[0].codec().clone(), decoder_config).unwrap(),
        }
    }

    /// Pushes the same frames to both. If one is refused, both refuse alike.
    fn push(&mut self, hidden: &[f32]) {
        let cpu = self.cpu.push_hidden(hidden).map_err(|error| Some(error.kind()));
        assert_eq!(self.device.push(&tensor(hidden)).map_err(|error| error.kind()), cpu);
    }

    /// Compares what both have sent and passes it on, with some of it lost.
    fn transmit(&mut self, draw: &mut Random) {
        let bytes = self.device.take_bytes().unwrap();
        assert_eq!(bytes, self.cpu.take_bytes().unwrap());
        if self.device.next_index() > 0 && self.way.brings_integers() {
            assert_eq!((self.device.last_w(), self.device.last_y()), (self.cpu.last_w(), self.cpu.last_y()));
        }
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
                    let poll = whole(poll);
                    assert_eq!(poll, alike(cpu.unwrap(), self.way));
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

#[test]
fn bytes_and_events_are_the_cpus() {
    let mut failures = 0;
    for (seed, (way, mode)) in WAYS.into_iter().flat_map(|way| [(way, Mode::Joined), (way, Mode::Layered)]).enumerate()
    {
        let models = way.bring([model(1), model(2)]);
        let mut draw = Random::new(seed as u64);
        let mut in_force = 0;
        let mut stream = Stream::new(way, &models, mode, &mut draw);
        for _ in 0..150 {
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
                    let codec = models[in_force].clone();
                    let outcome = stream.device.switch_model(codec.clone(), 1);
                    outcome.unwrap();
                    stream.cpu.switch_model(codec.codec().clone(), 1).unwrap();
                }
                4 => {
                    let hidden: Vec<u8> = hidden(&mut draw, 1, 20).iter().flat_map(|v| v.to_le_bytes()).collect();
                    stream.device.push_exact(Dtype::F32, &hidden).unwrap();
                    stream.cpu.push_exact(Dtype::F32, &hidden).unwrap();
                }
                5 => {
                    let hidden = hidden(&mut draw, 9, 20);
                    let y = stream.cpu.quantise(&hidden).unwrap();
                    stream.device.push_y(&y).unwrap();
                    stream.cpu.push_y(&y).unwrap();
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
                stream = Stream::new(way, &models, mode, &mut draw);
                in_force = 0;
            }
        }
    }
    assert!(failures > 0);
}

#[test]
fn streams_step_together() {
    for way in WAYS {
        let models = [on_device(model(1), way)];
        let mut draw = Random::new(9);
        let mut streams: Vec<Stream> = (0..6).map(|_| Stream::new(way, &models, Mode::Joined, &mut draw)).collect();
        // The remaining work of each stream runs on threads.
        streams[0].device.set_executor(Arc::new(Threads::new(3)));
        streams[0].device_decoder.set_executor(Arc::new(Threads::new(3)));
        for round in 0..20 {
            let hidden: Vec<Vec<f32>> = streams
                .iter()
                .map(|_| [1, 1, 1, 3][below(&mut draw, 4)])
                .collect::<Vec<_>>()
                .into_iter()
                .map(|frames| hidden(&mut draw, frames, 20))
                .collect();
            let tensors: Vec<Tensor> = hidden.iter().map(|hidden| tensor(hidden)).collect();
            if round == 7 {
                let mut bad = tensors.clone();
                bad[3] = tensor(&[f32::INFINITY; 20]);
                let mut devices: Vec<&mut DeviceEncoder> =
                    streams.iter_mut().map(|stream| &mut stream.device).collect();
                let refused = DeviceEncoder::step(&mut devices, &bad).unwrap_err();
                assert_eq!(refused.kind(), Some(ErrorKind::HiddenNotFinite));
            }
            let mut devices: Vec<&mut DeviceEncoder> = streams.iter_mut().map(|stream| &mut stream.device).collect();
            DeviceEncoder::step(&mut devices, &tensors).unwrap();
            for (stream, hidden) in streams.iter_mut().zip(&hidden) {
                stream.cpu.push_hidden(hidden).unwrap();
                let quality = below(&mut draw, 2) as u8;
                stream.cpu.set_quality(quality).unwrap();
                stream.device.set_quality(quality).unwrap();
                stream.transmit(&mut Random::new(0));
            }
            let mut seen = vec![Vec::new(); streams.len()];
            loop {
                let mut decoders: Vec<&mut DeviceDecoder> =
                    streams.iter_mut().map(|stream| &mut stream.device_decoder).collect();
                let polls = DeviceDecoder::poll_together(&mut decoders);
                let polls: Vec<DecoderPoll> = polls.into_iter().map(|poll| whole(poll.unwrap())).collect();
                let busy = polls.iter().any(|poll| matches!(poll, DecoderPoll::Event(_)));
                seen.iter_mut().zip(polls).for_each(|(seen, poll)| seen.push(poll));
                if !busy {
                    break;
                }
            }
            for (stream, seen) in streams.iter_mut().zip(seen) {
                for poll in seen {
                    assert_eq!(alike(stream.cpu_decoder.poll().unwrap(), way), poll);
                }
            }
        }
    }
}

#[test]
fn lost_targets_are_concealed() {
    WAYS.into_iter().for_each(conceal);
}

fn conceal(way: Way) {
    let codec = on_device(model(5), way);
    let config = EncoderConfig {
        mode: Mode::Layered,
        binding: Binding::Message,
        target_horizon: 3,
        max_frames_per_chunk: 3,
        ..EncoderConfig::new(Identity::none())
    };
    let receive = DecoderConfig { binding: Binding::Message, ..DecoderConfig::default() };
    let mut encoder = DeviceEncoder::new(codec.clone(), config).unwrap();
    let mut device = DeviceDecoder::new(vec![codec.clone()], receive.clone()).unwrap();
    device.set_coder(way.coder());
    let mut cpu = Decoder::new(codec.codec().clone(), receive).unwrap();
    let mut draw = Random::new(4);
    for _ in 0..6 {
        encoder.push(&tensor(&hidden(&mut draw, 1, 20))).unwrap();
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
        let (on_device, on_cpu) = (device.poll(), cpu.poll());
        match on_device {
            Ok(poll) => {
                let poll = whole(poll);
                assert_eq!(Ok(&poll), on_cpu.as_ref());
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
                assert_eq!(error.kind(), on_cpu.err().map(|error| error.kind()));
                break;
            }
        }
    }
    assert!(concealed > 0 && targets > 0, "{concealed} {targets}");
}

#[test]
fn misuse_is_refused() {
    WAYS.into_iter().for_each(misuse);
}

fn misuse(way: Way) {
    let codec = on_device(model(1), way);
    let other = on_device(model(2), way);
    let kind = |outcome: Result<(), Error>| outcome.unwrap_err().kind();
    let mut encoder = DeviceEncoder::new(codec.clone(), EncoderConfig::new(Identity::none())).unwrap();
    let frame = Tensor::zeros((1, 20), DType::F32, &Device::Cpu).unwrap();
    assert_eq!(kind(encoder.push(&frame.flatten_all().unwrap())), Some(ErrorKind::WrongShape));
    assert_eq!(kind(encoder.push(&frame.narrow(1, 0, 19).unwrap())), Some(ErrorKind::WrongShape));
    assert_eq!(kind(encoder.push(&frame.narrow(0, 0, 0).unwrap())), Some(ErrorKind::WrongShape));
    assert_eq!(kind(DeviceEncoder::step(&mut [&mut encoder], &[])), Some(ErrorKind::WrongShape));
    let mut second = DeviceEncoder::new(other.clone(), EncoderConfig::new(Identity::none())).unwrap();
    let outcome = DeviceEncoder::step(&mut [&mut encoder, &mut second], &[frame.clone(), frame.clone()]);
    assert_eq!(kind(outcome), Some(ErrorKind::WrongModel));
    // After a switch through the session alone, the session and the device have different models.
    (*second).switch_model(codec.codec().clone(), 0).unwrap();
    assert_eq!(kind(second.push(&frame)), Some(ErrorKind::WrongModel));
    assert_eq!(kind(second.push_y(&[0; 20])), Some(ErrorKind::WrongModel));
    assert_eq!(kind(second.push_exact(Dtype::F32, &[0; 80])), Some(ErrorKind::WrongModel));
    // Other float types are converted to f32.
    encoder.push(&frame.to_dtype(DType::F16).unwrap()).unwrap();
    encoder.end().unwrap();
    assert_eq!(kind(encoder.push(&frame)), Some(ErrorKind::AfterEnd));

    let none = on_device(model(1).without_encoder(), way);
    let mut encoder = DeviceEncoder::new(none, EncoderConfig::new(Identity::none())).unwrap();
    assert_eq!(kind(encoder.push(&frame)), Some(ErrorKind::NotAvailable));
    assert_eq!(kind(encoder.push_y(&[0; 20])), Some(ErrorKind::NotAvailable));
    let refused = DeviceDecoder::new(Vec::new(), DecoderConfig::default()).unwrap_err();
    assert_eq!(refused.kind(), Some(ErrorKind::BadConfig));
    // A stream of a model that is not on the device.
    let mut decoder = DeviceDecoder::new(vec![other], DecoderConfig::default()).unwrap();
    let mut encoder = DeviceEncoder::new(codec, EncoderConfig::new(Identity::none())).unwrap();
    decoder.push(&encoder.take_bytes().unwrap()).unwrap();
    for _ in 0..2 {
        assert_eq!(decoder.poll().unwrap_err().kind(), Some(ErrorKind::WrongModel));
    }
}

#[test]
fn what_is_clamped_is_counted_or_refused() {
    WAYS.into_iter().for_each(clipping);
}

fn clipping(way: Way) {
    for maps in [false, true] {
        let mut parts = synthetic::parts(&SyntheticShape::tiny(), Style::Sensible, 1);
        if maps {
            let turn = |i: usize| if i / 20 == (i % 20 + 3) % 20 { 2.0 } else { 0.0 };
            parts.synthesis = Some((0..400).map(turn).collect());
            parts.encoder.as_mut().unwrap().analysis = Some((0..400).map(turn).collect());
        }
        let codec = on_device(CodecModel::new(parts).unwrap(), way);
        let mut values = vec![0.5; 9 * 20];
        for far in [25, 26, 60 + 7, 160] {
            values[far] = if far % 2 == 0 { -1e30 } else { 4e20 };
        }
        let config = |clipping, max_frames_per_chunk| EncoderConfig {
            clipping,
            max_frames_per_chunk,
            ..EncoderConfig::new(Identity::none())
        };
        // One chunk, and several of one push.
        for frames in [64, 2] {
            let mut encoder = DeviceEncoder::new(codec.clone(), config(Clipping::Report, frames)).unwrap();
            encoder.push(&tensor(&values)).unwrap();
            assert_eq!((encoder.last_clipped(), encoder.clipped()), (4, 4));
            encoder.push(&tensor(&values[20..40])).unwrap();
            assert_eq!((encoder.last_clipped(), encoder.clipped()), (2, 6));
            encoder.push_y(&[1; 60]).unwrap();
            assert_eq!((encoder.last_clipped(), encoder.clipped()), (0, 6));

            let mut tried = DeviceEncoder::new(codec.clone(), config(Clipping::Refuse, frames)).unwrap();
            let mut cpu = Encoder::new(codec.codec().clone(), config(Clipping::Refuse, frames)).unwrap();
            tried.push(&tensor(&values[..20])).unwrap();
            cpu.push_hidden(&values[..20]).unwrap();
            let refused = tried.push(&tensor(&values)).unwrap_err().codec_error().unwrap();
            let expected = cpu.push_hidden(&values).unwrap_err();
            assert_eq!((refused.kind(), refused.detail()), (ErrorKind::HiddenClipped, expected.detail()));
            assert_eq!(refused.detail().unwrap().found(), Some(4));
            // An exact frame loses nothing.
            let exact: Vec<u8> = values[20..40].iter().flat_map(|value| value.to_le_bytes()).collect();
            tried.push_exact(Dtype::F32, &exact).unwrap();
            cpu.push_exact(Dtype::F32, &exact).unwrap();
            assert_eq!((tried.last_clipped(), tried.clipped()), (2, 2));
            tried.push(&tensor(&values[40..60])).unwrap();
            cpu.push_hidden(&values[40..60]).unwrap();
            assert_eq!(
                tried.take_bytes().unwrap(),
                cpu.take_bytes().unwrap(),
                "a push that was refused changed nothing"
            );
        }
        // Streams of one step have separate counts. If one of them refuses, all are unchanged.
        let open = |clipping| DeviceEncoder::new(codec.clone(), config(clipping, 64)).unwrap();
        let (mut loose, mut strict) = (open(Clipping::Report), open(Clipping::Refuse));
        let parts = [tensor(&values[20..100]), tensor(&values[..20])];
        DeviceEncoder::step(&mut [&mut loose, &mut strict], &parts).unwrap();
        assert_eq!((loose.last_clipped(), strict.last_clipped()), (3, 0));
        let before = (loose.take_bytes().unwrap(), strict.take_bytes().unwrap());
        assert!(!before.0.is_empty() && !before.1.is_empty());
        let parts = [tensor(&values[..20]), tensor(&values[40..80])];
        let refused = DeviceEncoder::step(&mut [&mut loose, &mut strict], &parts).unwrap_err().codec_error().unwrap();
        let element = if maps { 10 } else { 7 };
        assert_eq!(refused.detail(), Some(Detail::Clipped { count: 1, frame: 1, element }));
        assert!(loose.take_bytes().unwrap().is_empty() && strict.take_bytes().unwrap().is_empty());
        assert_eq!((loose.clipped(), strict.clipped()), (3, 0));
    }
}

#[test]
fn refusals_say_what_and_where() {
    WAYS.into_iter().for_each(facts);
}

fn facts(way: Way) {
    let codec = on_device(model(1), way);
    let mut encoder = DeviceEncoder::new(codec.clone(), EncoderConfig::new(Identity::none())).unwrap();
    let refused = |outcome: Result<(), Error>| {
        let error = outcome.unwrap_err().codec_error().unwrap();
        assert_eq!(error.fault(), Fault::Caller, "{error}");
        error.to_string()
    };
    let mut values = vec![0.0; 60];
    (values[47], values[48]) = (f32::NAN, f32::INFINITY);
    let told = refused(encoder.push(&tensor(&values)));
    assert!(told.contains("(NaN in frame 2, element 7)"), "{told}");
    let mut second = DeviceEncoder::new(codec, EncoderConfig::new(Identity::none())).unwrap();
    let streams = &mut [&mut second, &mut encoder];
    let told = refused(DeviceEncoder::step(streams, &[tensor(&values[..40]), tensor(&values[40..])]));
    assert!(told.contains("(NaN in frame 0, element 7)"), "{told}");
    let frame = Tensor::zeros((2, 19), DType::F32, &Device::Cpu).unwrap();
    let told = refused(encoder.push(&frame));
    assert!(told.contains("hidden is [2, 19], not [T, 20] with T of 1 or more"), "{told}");
    let told = refused(DeviceEncoder::step(&mut [&mut encoder], &[]));
    assert!(told.contains("tensors, one for each stream: 1 wanted, 0 found"), "{told}");
    let told = refused(encoder.push_y(&[0; 21]));
    assert!(told.contains("y has 21 values, which are no whole frames of 20"), "{told}");
}

/// [HOST-1]
#[test]
fn a_host_that_is_expected_has_to_be_stated() {
    let codec = on_device(model(1), WAYS[0]);
    for (stated, good) in [(None, false), (Some([2; 32]), false), (Some([1; 32]), true)] {
        let config = EncoderConfig { host_digest: stated, ..EncoderConfig::new(Identity::none()) };
        let bytes = DeviceEncoder::new(codec.clone(), config).unwrap().take_bytes().unwrap();
        let config = DecoderConfig { host_digest: Some([1; 32]), ..DecoderConfig::default() };
        let mut decoder = DeviceDecoder::new(vec![codec.clone()], config).unwrap();
        decoder.push(&bytes).unwrap();
        let kind = decoder.poll().err().and_then(|error| error.kind());
        assert_eq!(kind, if good { None } else { Some(ErrorKind::WrongHost) });
    }
}
