//! Hostile streams.

use std::sync::Arc;

use bytes::Bytes;
use midspan::codec::{Codec, Encoder, EncoderConfig, SideDelivery};
use midspan::error::Error;
use midspan::model::synthetic::{self, Random, SyntheticShape};
use midspan::stream::{Binding, Limits, Writer};
use midspan::wire::{CheckWidth, Dtype, Identity, Mode, OptionalField, StreamHeader};

use crate::{Case, Input};

/// The largest target horizon (spec 2.2).
const MAX_HORIZON: u32 = 28_672;

/// The default memory limit of a session: what a server would give one session.
const LIMIT: usize = 64 << 20;

/// A stream and the settings of the session that reads it.
pub struct Stream {
    pub binding: Binding,
    /// Messages, or parts of a byte stream. Each is pushed whole, then the decoder is polled.
    pub units: Vec<Bytes>,
    /// One byte at a time.
    pub trickle: bool,
    pub memory_limit: usize,
}

impl Stream {
    pub fn bytes(&self) -> usize {
        self.units.iter().map(|unit| unit.len()).sum()
    }
}

/// What the inputs are made from.
pub struct Kit {
    /// The default model.
    pub codec: Arc<Codec>,
    /// A model to switch to. It takes side indices if the default model does.
    pub other: Arc<Codec>,
}

impl Kit {
    pub fn new() -> Kit {
        let bytes = include_bytes!("../../model/codec.safetensors");
        let codec = Codec::from_bytes(bytes, 1 << 30).expect("the default model");
        let side = codec.model().side().is_some();
        let shape = if side { SyntheticShape::with_side() } else { SyntheticShape::tiny() };
        let other = Codec::new(synthetic::model(&shape, 1)).expect("a synthetic model");
        Kit { codec: codec.into(), other: other.into() }
    }

    /// An honest stream of one-frame chunks, whose side indices are not in it.
    pub fn honest(&self, frames: usize) -> Stream {
        let mut encoder = self.encoder(|_| {});
        let mut random = Random::new(1);
        for _ in 0..frames {
            push(&mut encoder, &self.frame(&mut random)).expect("a frame");
        }
        encoder.end().expect("the end");
        bytes(encoder.take_bytes().expect("a byte stream"))
    }

    fn frame(&self, random: &mut Random) -> Vec<i16> {
        (0..self.codec.model().hidden_width()).map(|_| random.within(-2, 2) as i16).collect()
    }

    fn encoder(&self, change: impl FnOnce(&mut EncoderConfig)) -> Encoder {
        let mut config = EncoderConfig::new(Identity::none()).check(CheckWidth::None);
        change(&mut config);
        Encoder::new(self.codec.clone(), config).expect("an encoder")
    }

    /// A header without checks, after `change`.
    fn header(&self, change: impl FnOnce(&mut StreamHeader)) -> StreamHeader {
        let side = self.codec.model().side().is_some();
        let mut header = StreamHeader { check: CheckWidth::None, side, ..StreamHeader::new(*self.codec.fingerprint()) };
        change(&mut header);
        header
    }

    /// A byte stream: a header, then whatever is written after it.
    fn written(
        &self,
        change: impl FnOnce(&mut StreamHeader),
        write: impl FnOnce(&mut Writer) -> Result<(), Error>,
    ) -> Stream {
        let mut writer = Writer::new(self.header(change), Binding::ByteStream).expect("a writer");
        write(&mut writer).expect("a chunk");
        bytes(writer.take().expect("a byte stream"))
    }

    /// A byte stream: the bytes of a header, then `rest`.
    fn with_header(&self, change: impl FnOnce(&mut StreamHeader), rest: impl IntoIterator<Item = u8>) -> Stream {
        let mut stream = self.written(change, |_| Ok(()));
        let all: Vec<u8> = stream.units[0].iter().copied().chain(rest).collect();
        stream.units = vec![all.into()];
        stream
    }

    /// A header message, then the messages `rest`.
    fn messages(&self, mode: Mode, rest: impl IntoIterator<Item = Bytes>) -> Stream {
        let header = self.header(|header| of_mode(header, mode));
        let mut writer = Writer::new(header, Binding::Message).expect("a writer");
        let first = writer.pop_message().expect("messages").expect("the header").bytes;
        Stream { binding: Binding::Message, units: [first].into_iter().chain(rest).collect(), ..bytes(Bytes::new()) }
    }
}

/// Codes a frame without a side index.
fn push(encoder: &mut Encoder, y: &[i16]) -> Result<(), Error> {
    if let Some(vocabulary) = encoder.codec().model().side().map(|side| side.vocabulary()) {
        encoder.set_side(&[vocabulary], SideDelivery::Known)?;
    }
    encoder.push_y(y)
}

fn bytes(stream: Bytes) -> Stream {
    Stream { binding: Binding::ByteStream, units: vec![stream], trickle: false, memory_limit: LIMIT }
}

fn of_mode(header: &mut StreamHeader, mode: Mode) {
    header.mode = mode;
    header.target_horizon = (mode == Mode::Layered).then_some(MAX_HORIZON);
}

/// Declares everything as large as the format allows.
fn huge(header: &mut StreamHeader) {
    (header.max_frames, header.max_chunk_bytes, header.max_rewind) = (1 << 20, 1 << 30, 1 << 20);
}

fn huge_layered(header: &mut StreamHeader) {
    huge(header);
    of_mode(header, Mode::Layered);
}

fn layered(header: &mut StreamHeader) {
    of_mode(header, Mode::Layered);
}

fn joined(_: &mut StreamHeader) {}

fn noise(count: usize) -> impl Iterator<Item = u8> {
    let mut random = Random::new(7);
    (0..count).map(move |_| random.next() as u8)
}

/// Sets the session's memory limit to the default.
fn at_default(mut stream: Stream) -> Stream {
    stream.memory_limit = midspan::codec::DecoderConfig::default().memory_limit;
    stream
}

fn trickled(mut stream: Stream) -> Stream {
    stream.trickle = true;
    stream
}

fn times(count: usize, mut write: impl FnMut() -> Result<(), Error>) -> Result<(), Error> {
    (0..count).try_for_each(|_| write())
}

/// The writer, told the side indices of the next frames. These streams have no checks, so any will do.
fn covered(writer: &mut Writer, frames: usize) -> &mut Writer {
    writer.cover_side(&vec![0; frames]);
    writer
}

/// A batch of empty payloads, which are complete ones.
fn bomb(writer: &mut Writer, frames: u32, lanes: usize) -> Result<(), Error> {
    covered(writer, frames as usize).batch(frames, &vec![&[][..]; lanes])
}

/// A typed chunk with any body.
fn chunk(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = bytes::BytesMut::from(&[kind][..]);
    midspan::wire::varint::encode(body.len() as u64, &mut out).expect("a length");
    out.extend_from_slice(body);
    out.to_vec()
}

macro_rules! stream {
    ($name:literal, $kit:ident => $stream:expr) => {{
        fn make($kit: &Kit) -> Input {
            Input::Stream($stream)
        }
        ($name, make as fn(&Kit) -> Input)
    }};
}

/// Every hostile stream.
pub const CASES: &[Case] = &[
    stream!("header alone", kit => kit.with_header(joined, [])),
    stream!("header alone, default limits", kit => at_default(kit.with_header(joined, []))),
    stream!("header with all limits at their largest, joined", kit => kit.with_header(huge, [])),
    stream!("header with all limits at their largest, layered", kit => kit.with_header(huge_layered, [])),
    stream!("header with all limits at their largest, default limits", kit => at_default(kit.with_header(huge_layered, []))),
    stream!("header with one optional field of 4,000 bytes", kit => kit.with_header(
        |header| header.set_optional(40, vec![0; 4_000]), [])),
    stream!("header with 1,300 optional fields", kit => kit.with_header(
        |header| header.optional = (0..1_300).map(|n| OptionalField { id: 4 + 2 * n, value: Bytes::new() }).collect(), [])),
    stream!("header, a byte at a time", kit => trickled(kit.with_header(
        |header| header.set_optional(40, vec![0; 4_000]), []))),
    stream!("header that ends after its length", kit => bytes(Bytes::from_static(b"MSP\x9e\x01\x01\x90\x00"))
        .or(kit)),
    stream!("a batch of 65,536 empty frames", kit => kit.written(huge, |writer| bomb(writer, 65_536, 1))),
    stream!("a batch of 65,536 empty frames, default limits", kit => at_default(kit.written(huge, |writer| bomb(writer, 65_536, 1)))),
    stream!("8 batches of 4,096 empty frames", kit => kit.written(huge, |writer| times(8, || bomb(writer, 4_096, 1)))),
    stream!("200 batches of 256 empty frames", kit => kit.written(huge, |writer| times(200, || bomb(writer, 256, 1)))),
    stream!("20,000 empty frames, a chunk each", kit => kit.written(joined, |writer| times(20_000, || covered(writer, 1).frame(&[])))),
    stream!("a hyper-prior of 28,672 empty frames", kit => kit.written(huge_layered, |writer| bomb(writer, MAX_HORIZON, 1))),
    stream!("a hyper-prior of 28,672 empty frames, default limits", kit => at_default(kit.written(huge_layered, |writer| bomb(writer, MAX_HORIZON, 1)))),
    stream!("100 hyper-priors of 256 empty frames, all pending", kit => kit.written(
        layered, |writer| times(100, || bomb(writer, 256, 1)))),
    stream!("100 hyper-priors, all pending, default limits", kit => at_default(kit.written(
        layered, |writer| times(100, || bomb(writer, 256, 1))))),
    stream!("100 hyper-priors, each overdue and concealed", kit => kit.written(
        |header| { layered(header); header.target_horizon = Some(256) }, |writer| times(100, || bomb(writer, 256, 1)))),
    stream!("hyper-priors of one frame, overdue one by one", kit => kit.written(
        |header| { layered(header); header.target_horizon = Some(1) }, |writer| times(10_000, || covered(writer, 1).frame(&[])))),
    stream!("50 batches of 256 frames and 256 lanes", kit => kit.written(joined, |writer| times(50, || bomb(writer, 256, 256)))),
    stream!("50 batches of 1,024 frames and 1,024 lanes", kit => kit.written(
        |header| header.max_frames = 1_024, |writer| times(50, || bomb(writer, 1_024, 1_024)))),
    stream!("a lane table of zeros without end", kit => kit.with_header(joined, chunk(0xc1, &[&[0x87, 0xff, 0x87, 0xff][..], &[0; 1 << 20]].concat()))),
    stream!("a payload of 4 MB of noise", kit => kit.written(huge, |writer| {
        covered(writer, 1).frame(&[&noise(4 << 20).collect::<Vec<u8>>()[..], b"\x01"].concat())
    })),
    stream!("a payload of 4 MB of FF", kit => kit.written(huge, |writer| covered(writer, 1).frame(&vec![0xff; 4 << 20]))),
    stream!("a batch of 4 MB of noise", kit => kit.written(huge, |writer| {
        covered(writer, 256).batch(256, &[[&noise(4 << 20).collect::<Vec<u8>>()[..], b"\x01"].concat()])
    })),
    stream!("a chunk that says it has 2^30 bytes", kit => kit.with_header(huge, [0xc1, 0xf4, 0, 0, 0, 0])),
    stream!("the longest chunk, cut before its last byte, a byte at a time", kit => trickled(kit.with_header(huge, {
        let body = Limits::default().max_chunk_bytes as usize;
        let mut all = chunk(0xc1, &noise(body).collect::<Vec<u8>>());
        all.pop();
        all
    }))),
    stream!("100,000 checkpoints", kit => kit.written(joined, |writer| times(100_000, || writer.checkpoint(0, 0)))),
    stream!("100,000 quality switches", kit => kit.written(joined, |writer| times(100_000, || writer.quality(1, 0)))),
    stream!("50,000 context resets", kit => kit.written(joined, |writer| times(50_000, || writer.reset(0, 0, 0, 0)))),
    stream!("50,000 context resets, max rewind 2^16", kit => kit.written(
        |header| header.max_rewind = 1 << 16, |writer| times(50_000, || writer.reset(0, 0, 0, 0)))),
    stream!("10,000 model switches to and fro", kit => kit.written(joined, |writer| times(5_000, || {
        writer.model_switch(*kit.other.fingerprint(), 1, 0, 0, 0, 0)?;
        writer.model_switch(*kit.codec.fingerprint(), 1, 0, 0, 0, 0)
    }))),
    stream!("20,000 model switches to the model in force", kit => kit.written(joined, |writer| times(20_000, || {
        writer.model_switch(*kit.codec.fingerprint(), 1, 0, 0, 0, 0)
    }))),
    stream!("10,000 frames, each rewound", kit => kit.written(|header| header.max_rewind = 64, |writer| times(10_000, || {
        covered(writer, 1).frame(&[])?;
        writer.rewind(0)
    }))),
    stream!("256 frames pending and rewound, 50 times", kit => kit.written(
        |header| { layered(header); header.max_rewind = 256 },
        |writer| times(50, || bomb(writer, 256, 1).and_then(|()| writer.rewind(0))))),
    stream!("200,000 extensions without data", kit => kit.written(joined, |writer| times(200_000, || writer.extension(27, &[])))),
    stream!("4 extensions of 1 MB", kit => kit.written(joined, |writer| times(4, || writer.extension(27, &[0; 1 << 20])))),
    stream!("checkpoints that all wait for one target", kit => {
        // The first digest covers W as a decoder reads it from an empty payload; the chunks after it repeat it.
        let mut encoder = kit.encoder(|config| { config.mode = Mode::Layered; config.target_horizon = MAX_HORIZON });
        let mut random = Random::new(1);
        push(&mut encoder, &kit.frame(&mut random)).expect("a frame");
        times(60_000, || encoder.checkpoint()).expect("checkpoints");
        let all = encoder.take_bytes().expect("a byte stream");
        // Remove the target.
        without_targets(all)
    }),
    stream!("targets that nothing waits for, 50,000", kit => kit.messages(Mode::Layered, {
        let target = Bytes::from_static(b"\xc2\x00\x00\x00\x01\x02payload\x01\x00");
        std::iter::repeat_n(target, 50_000)
    })),
    stream!("damaged targets of a pending frame, 50,000", kit => kit.messages(Mode::Layered, {
        let target = Bytes::from_static(b"\xc2\x00\x00\x00\x01\x02payload\x01\x00");
        [Bytes::from_static(b"\x01")].into_iter().chain(std::iter::repeat_n(target, 50_000))
    })),
    stream!("target batches that say 65,536 frames, 20,000", kit => kit.messages(Mode::Layered, {
        let target = Bytes::from_static(b"\xc3\x00\x00\x00\xc0\xff\xff\x00\x01\x02payload\x01\x00");
        std::iter::repeat_n(target, 20_000)
    })),
    stream!("target batches of 1,024 lanes of noise, 200", kit => kit.messages(Mode::Layered, {
        let body: Vec<u8> = noise(4_096).collect();
        let target = [&b"\xc3\x00\x00\x00\x87\xff\x87\xff"[..], &body, b"\x01\x00"].concat();
        std::iter::repeat_n(Bytes::from(target), 200)
    })),
    stream!("2,000 exact frames with empty payloads", kit => kit.written(joined, |writer| times(2_000, || {
        covered(writer, 1).exact_frame(Dtype::F32, &[], &[0; 1_024])
    }))),
    stream!("an exact frame whose hidden state has 4 MB", kit => kit.written(huge, |writer| {
        covered(writer, 1).exact_frame(Dtype::F32, &[], &vec![0; 4 << 20])
    })),
    stream!("a seek index that says 2^20 entries", kit => kit.with_header(
        |header| header.file = true, end().into_iter().chain(chunk(0xcb, b"\xd0\x00\x00\x01\x01\x00\x00\x00\x00")))),
    stream!("a seek index of 1,000,000 entries", kit => kit.with_header(|header| { huge(header); header.file = true }, {
        let mut body = bytes::BytesMut::new();
        midspan::wire::varint::encode(1_000_000, &mut body).expect("a count");
        body.extend_from_slice(&[1; 2_000_000]);
        let crc = crc32(&[&[0xcb][..], &body].concat());
        body.extend_from_slice(&crc.to_le_bytes());
        end().into_iter().chain(chunk(0xcb, &body)).collect::<Vec<u8>>()
    })),
    stream!("1 MB of noise", kit => bytes(noise(1 << 20).collect()).or(kit)),
    stream!("a header and 1 MB of noise", kit => kit.with_header(joined, noise(1 << 20))),
    stream!("a header and 20,000 zeros: empty frames", kit => kit.with_header(joined, std::iter::repeat_n(0, 20_000))),
    stream!("20,000 messages of one byte", kit => kit.messages(Mode::Joined, std::iter::repeat_n(Bytes::from_static(b"\x01"), 20_000))),
    stream!("20,000 empty messages", kit => kit.messages(Mode::Joined, std::iter::repeat_n(Bytes::new(), 20_000))),
    stream!("a message of 16 MB of noise", kit => kit.messages(Mode::Joined, [noise(16 << 20).chain([1]).collect()])),
    stream!("an honest stream of 200 frames, a byte at a time", kit => trickled(kit.honest(200))),
    stream!("a batch of 256 empty frames, a byte at a time", kit => trickled(kit.written(joined, |writer| times(20, || bomb(writer, 256, 1))))),
    stream!("200 frames of values at the ends of their range", kit => {
        let mut encoder = kit.encoder(|_| {});
        let (low, high) = kit.codec.model().y_range();
        let frame: Vec<i16> = (0..kit.codec.model().hidden_width()).map(|c| if c % 2 == 0 { low } else { high }).collect();
        times(200, || push(&mut encoder, &frame)).expect("frames");
        bytes(encoder.take_bytes().expect("a byte stream"))
    }),
];

/// An end chunk of a stream without frames.
fn end() -> Vec<u8> {
    let mut body = vec![0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let crc = crc32(&[&[0xca][..], &body].concat());
    body.extend_from_slice(&crc.to_le_bytes());
    chunk(0xca, &body)
}

/// The CRC-32 as spec 1.3 defines it, computed bit by bit.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

/// A layered byte stream whose targets were lost.
fn without_targets(all: Bytes) -> Stream {
    let mut reader = midspan::stream::Reader::new(midspan::stream::ReaderConfig::default());
    reader.push(&all).expect("bytes");
    let mut kept = Vec::new();
    while let Ok(midspan::stream::Poll::Event(event)) = reader.poll() {
        if !matches!(event.chunk, midspan::stream::Chunk::Target { .. }) {
            let start = event.offset as usize;
            kept.extend_from_slice(&all[start..start + event.bytes as usize]);
        }
    }
    bytes(kept.into())
}

impl Stream {
    /// For streams that need nothing from the kit.
    fn or(self, _kit: &Kit) -> Stream {
        self
    }
}
