//! C programs decode and encode as the Rust library does, bit for bit: each is run in every way that `support::ways`
//! knows, and what it prints is compared with what Rust says.

mod support;

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use midspan::codec::{
    Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, Frames, SideDelivery,
    TargetRefusal, Verdict,
};
use midspan::error::{Error, Fault};
use midspan::model::synthetic::{Random, SyntheticShape};
use midspan::stream::{Binding, Chunk, Event, JoinPoint, MessageClass, Poll, Reader, ReaderConfig, TargetStatus};
use midspan::wire::{CheckWidth, Dtype, Identity, Mode, OptionalField, StreamHeader};
use serde_json::Value;
use support::{installed, member, model, repository, ways};

// ---- What tests/programs/vectors.c prints ----

fn hex(bytes: impl IntoIterator<Item = u8>) -> String {
    let digits = bytes.into_iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    format!(" {digits}.")
}

fn floats(values: &[f32]) -> String {
    hex(values.iter().flat_map(|value| value.to_ne_bytes()))
}

fn integers(values: &[i16]) -> String {
    hex(values.iter().flat_map(|value| value.to_ne_bytes()))
}

fn fault_number(fault: Fault) -> u32 {
    match fault {
        Fault::Stream => 1,
        Fault::Model => 2,
        Fault::Caller => 3,
        Fault::Resource => 4,
        other => panic!("{other:?}"),
    }
}

fn error_line(error: Error) -> String {
    let (placed, fault) = (u32::from(error.has_offset()), fault_number(error.fault()));
    let mut line = format!("error {} at {placed} {} fault {fault}", error.code(), error.offset());
    let digests = error.digests();
    line += &hex(digests.into_iter().flat_map(|(wanted, _)| wanted));
    line += &hex(digests.and_then(|(_, found)| found).into_iter().flatten());
    // In C a setting is a field of a struct.
    let text = error.to_string().replace("Limits::", "").replace("DecoderConfig::", "");
    line + &format!(": {text}\n")
}

fn header_text(header: &StreamHeader) -> String {
    let mode = u32::from(header.mode == Mode::Layered);
    let binding = match header.binding {
        Binding::Message => 1,
        Binding::ByteStream => 2 * u32::from(header.file),
    };
    let mut text = format!(
        " header {mode} {binding} {} {} {} {} {} {} {} {}",
        header.check.bytes(),
        u32::from(header.side),
        header.quality,
        header.max_frames,
        header.max_chunk_bytes,
        header.max_rewind,
        header.target_horizon.unwrap_or(0),
        header.length_offset
    );
    text += &hex(header.fingerprint);
    text += &hex(header.identity.bytes().into_iter().flatten().copied());
    text += &hex(header.host_digest.into_iter().flatten());
    for field in &header.optional {
        text += &format!(" field {}{}", field.id, hex(field.value.iter().copied()));
    }
    text
}

/// The fields that C's struct of an event has.
#[derive(Default)]
struct Fields<'a> {
    index: Option<u64>,
    end: Option<u64>,
    count: u64,
    done: usize,
    coded: u64,
    elements: (usize, usize),
    verdict: u32,
    refusal: u32,
    dtype: u32,
    extension: u32,
    quality: u8,
    hidden: &'a [f32],
    w: &'a [i16],
    y: &'a [i16],
    side: &'a [u32],
    data: &'a [u8],
    fingerprint: [u8; 32],
    header: Option<&'a StreamHeader>,
}

impl<'a> Fields<'a> {
    fn frames(index: u64, count: usize) -> Self {
        Self { index: Some(index), count: count as u64, ..Self::default() }
    }

    fn of(frames: &'a Frames) -> Self {
        let integers = frames.integers.as_ref().unwrap();
        Self { hidden: &frames.hidden, w: &integers.w, y: &integers.y, ..Self::frames(frames.index, frames.count) }
    }
}

fn event_line(event: &DecoderEvent) -> String {
    let at = |index: &u64| Fields::frames(*index, 0);
    let fields = match event {
        DecoderEvent::Opened(header) => Fields { header: Some(header), ..Fields::default() },
        DecoderEvent::Frames(frames) => Fields::of(frames),
        DecoderEvent::HyperPrior(event) => Fields { w: &event.w, ..Fields::frames(event.index, event.count) },
        DecoderEvent::Targets(event) => {
            Fields { hidden: &event.hidden, y: &event.y, ..Fields::frames(event.index, event.count) }
        }
        DecoderEvent::TargetPart { index, elements } => {
            Fields { elements: (elements.start, elements.end), ..Fields::frames(*index, 1) }
        }
        DecoderEvent::TargetEarly { index, count }
        | DecoderEvent::TargetsOverdue { index, count }
        | DecoderEvent::TargetsDropped { index, count }
        | DecoderEvent::SideWanted { index, count } => Fields::frames(*index, *count),
        DecoderEvent::TargetRefused { index, reason } => {
            let refusal = match reason {
                TargetRefusal::Late => 1,
                TargetRefusal::Damaged => 2,
                TargetRefusal::MemoryLimit => 3,
                TargetRefusal::NoRoom => 4,
                other => panic!("{other:?}"),
            };
            Fields { index: *index, refusal, ..Fields::default() }
        }
        DecoderEvent::ExactFrame(exact) => {
            let dtype = match exact.dtype {
                Dtype::F32 => 0,
                Dtype::F16 => 1,
                Dtype::Bf16 => 2,
            };
            Fields { data: &exact.hidden, dtype, ..Fields::of(&exact.frame) }
        }
        DecoderEvent::Working { index, done, count } => Fields { done: *done, ..Fields::frames(*index, *count) },
        DecoderEvent::Verdict { from, to, verdict } => {
            let verdict = match verdict {
                Verdict::WConfirmed => 1,
                Verdict::YConfirmed => 2,
                Verdict::YUnverifiable => 3,
                other => panic!("{other:?}"),
            };
            Fields { verdict, end: Some(*to), count: to - from, ..at(from) }
        }
        DecoderEvent::Reset { index } | DecoderEvent::Rewound { index } => at(index),
        DecoderEvent::Quality(quality) => Fields { quality: *quality, ..Fields::default() },
        DecoderEvent::Model { fingerprint, index } => Fields { fingerprint: *fingerprint, ..at(index) },
        DecoderEvent::SideIndices { index, indices } => {
            Fields { side: indices, ..Fields::frames(*index, indices.len()) }
        }
        DecoderEvent::Extension { id, data } => Fields { extension: *id, data, ..Fields::default() },
        DecoderEvent::Ended { index, frames_coded } => Fields { coded: *frames_coded, ..at(index) },
        other => panic!("{other:?}"),
    };
    let (has_index, index) = (u32::from(fields.index.is_some()), fields.index.unwrap_or(0));
    let end = fields.end.unwrap_or(index + fields.count);
    let (first, after) = fields.elements;
    let mut line = format!("{} {has_index} {index} {end} {} {}", event.name(), fields.count, fields.done);
    line += &format!(" {} {first} {after}", fields.coded);
    line += &format!(" {} {} {} {} {}", fields.verdict, fields.refusal, fields.dtype, fields.extension, fields.quality);
    line += &(floats(fields.hidden) + &integers(fields.w) + &integers(fields.y));
    line += &hex(fields.side.iter().flat_map(|index| index.to_ne_bytes()));
    line += &(hex(fields.data.iter().copied()) + &hex(fields.fingerprint));
    line += &fields.header.map(header_text).unwrap_or_default();
    line + "\n"
}

fn chunk_line(event: &Event) -> String {
    let name;
    let (mut target, mut index, mut coded, mut elements) = (0, 0, 0, (0, 0));
    let (mut frames, mut epoch, mut part, mut dtype, mut extension, mut version) = (0, 0, 0, 0, 0, 0);
    let (mut digests, mut length_offset, mut quality, mut fingerprint) = ((0, 0), 0, 0, [0; 32]);
    let (mut data, mut joins, mut header) = (&[][..], String::new(), String::new());
    match &event.chunk {
        Chunk::Header(stated) => (name, header) = ("header", format!(" header {}", stated.max_frames)),
        Chunk::Frame { index: first, epoch: of, .. } => (name, index, epoch, frames) = ("frame", *first, *of, 1),
        Chunk::Batch { index: first, epoch: of, frames: count, .. } => {
            (name, index, epoch, frames) = ("batch", *first, *of, *count);
        }
        Chunk::Target { frames: count, elements: of, status, .. } => {
            (name, frames) = ("target", *count);
            (target, index, epoch) = match *status {
                TargetStatus::Usable { index, epoch } => (1, index, epoch),
                TargetStatus::Early { index, epoch } => (2, index, epoch),
                TargetStatus::Late { index, epoch } => (3, index, epoch),
                TargetStatus::Damaged => (4, 0, 0),
                TargetStatus::NoRoom => (5, 0, 0),
            };
            if let Some(of) = of {
                (part, elements) = (1, (of.start, of.end));
            }
        }
        Chunk::Checkpoint(of) => (name, index, digests) = ("checkpoint", of.index, (of.digest_w, of.digest_y)),
        Chunk::Reset(of) => {
            (name, index, epoch, digests) = ("reset", of.index, of.epoch, (of.digest_w, of.digest_y));
            (quality, length_offset) = (of.quality, of.length_offset);
            fingerprint[..8].copy_from_slice(&of.fingerprint_prefix);
        }
        Chunk::Rewind(of) => (name, index) = ("rewind", of.index),
        Chunk::Quality(of) => (name, quality, length_offset) = ("quality", of.quality, of.length_offset),
        Chunk::ModelSwitch(of) => {
            (name, index, epoch, digests) = ("model", of.index, of.epoch, (of.digest_w, of.digest_y));
            (quality, length_offset) = (of.quality, of.length_offset);
            (fingerprint, version) = (of.fingerprint, of.model_version);
        }
        Chunk::ExactFrame { index: first, epoch: of, dtype: kind, hidden, .. } => {
            (name, index, epoch, frames) = ("exact", *first, *of, 1);
            (dtype, data) = (*kind as u32, &hidden.bytes[..]);
        }
        Chunk::SideIndices { index: first, count, .. } => (name, index, frames) = ("side_indices", *first, *count),
        Chunk::Extension(of) => (name, extension, data) = ("extension", of.id, &of.data[..]),
        Chunk::End(of) => {
            (name, index, coded, digests) = ("end", of.index, of.frames_coded, (of.digest_w, of.digest_y));
        }
        Chunk::SeekIndex(of) => {
            name = "seek_index";
            joins = of.entries.iter().map(|entry| format!(" join {} {}", entry.frame, entry.offset)).collect();
        }
        Chunk::Footer => name = "footer",
        other => panic!("{other:?}"),
    }
    let mut line = format!("chunk {name} {target} {} {} {}", event.offset, event.body_offset, event.bytes);
    line += &format!(" {index} {coded} {} {}", elements.0, elements.1);
    line += &format!(" {frames} {epoch} {part} {dtype} {extension} {version} {} {}", digests.0, digests.1);
    line += &format!(" {length_offset} {quality}{}", hex(fingerprint));
    for payload in event.chunk.payloads() {
        line += &format!(" payload {}{}", payload.offset, hex(payload.bytes.iter().copied()));
    }
    line + &hex(data.iter().copied()) + &joins + &header + "\n"
}

/// A vector of a manifest.
struct Job {
    name: String,
    models: Vec<PathBuf>,
    stream: PathBuf,
    binding: Binding,
    cut: usize,
    conceal: String,
    join: Option<JoinPoint>,
    host: Option<String>,
    side: VecDeque<(u64, Vec<u32>)>,
}

impl Job {
    fn of(root: &Path, vector: &Value, cut: usize) -> Job {
        let text = |value: &Value| value.as_str().map(str::to_string);
        let join = vector["join"]["offset"].as_u64();
        Job {
            name: text(&vector["name"]).unwrap(),
            models: vector["models"]
                .as_array()
                .unwrap()
                .iter()
                .map(|model| root.join(model.as_str().unwrap()))
                .collect(),
            stream: root.join(vector["stream"].as_str().unwrap()),
            binding: if vector["binding"] == "messages" { Binding::Message } else { Binding::ByteStream },
            cut,
            conceal: text(&vector["conceal"]).unwrap(),
            join: join.map(|offset| JoinPoint { offset, index: vector["join"]["index"].as_u64() }),
            host: text(&vector["host"]),
            side: serde_json::from_value(vector["side"].clone()).unwrap_or_default(),
        }
    }

    /// The job in the script of tests/programs/vectors.c.
    fn script(&self) -> String {
        let mut text = format!("job {}\n", self.name);
        for model in &self.models {
            text += &format!("model {}\n", model.display());
        }
        if self.binding == Binding::Message {
            text += "messages\n";
        }
        text += &format!("cut {}\nconceal {}\n", self.cut, self.conceal);
        if let Some(point) = &self.join {
            let index = point.index.map(|index| index.to_string()).unwrap_or_default();
            text += &format!("join {} {index}\n", point.offset);
        }
        text += &self.host.as_ref().map(|host| format!("host {host}\n")).unwrap_or_default();
        for (index, indices) in &self.side {
            let list: Vec<_> = indices.iter().map(u32::to_string).collect();
            text += &format!("side {index} {} {}\n", list.len(), list.join(" "));
        }
        text + &format!("run {}\n", self.stream.display())
    }

    fn messages(stream: &[u8]) -> Vec<&[u8]> {
        let mut rest = stream;
        let mut found = Vec::new();
        while let Some((length, behind)) = rest.split_first_chunk::<4>() {
            let (message, behind) = behind.split_at(u32::from_le_bytes(*length) as usize);
            found.push(message);
            rest = behind;
        }
        found
    }

    fn pieces<'a>(&self, stream: &'a [u8]) -> Vec<&'a [u8]> {
        match self.binding {
            Binding::Message => Self::messages(stream),
            Binding::ByteStream => stream.chunks(self.cut).collect(),
        }
    }

    fn drain(&mut self, decoder: &mut Decoder, text: &mut String) -> Result<(), Error> {
        while let DecoderPoll::Event(event) = decoder.poll()? {
            *text += &event_line(&event);
            match event {
                DecoderEvent::TargetsOverdue { index, count } if self.conceal == "overdue" => {
                    decoder.conceal(index, count).unwrap();
                }
                DecoderEvent::SideWanted { index, .. } => {
                    if let Some((_, indices)) = self.side.pop_front().filter(|(first, _)| *first == index)
                        && let Err(error) = decoder.give_side(&indices)
                    {
                        *text += &error_line(error);
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn decode(&mut self, stream: &[u8], decoder: &mut Decoder, text: &mut String) -> Result<(), Error> {
        let skip = self.join.map_or(0, |point| usize::try_from(point.offset).unwrap());
        let mut place = 0;
        for piece in self.pieces(stream) {
            let (begin, end) = (place, place + piece.len());
            place = end;
            match self.binding {
                Binding::Message if begin < skip => continue,
                Binding::Message => decoder.push_message(piece)?,
                Binding::ByteStream if end <= skip && begin < skip => continue,
                Binding::ByteStream => decoder.push(&piece[skip.saturating_sub(begin)..])?,
            }
            self.drain(decoder, text)?;
        }
        decoder.finish();
        self.drain(decoder, text)?;
        while let Some(index) = decoder.oldest_pending().filter(|_| self.conceal == "end") {
            *text += &format!("missing {}\n", decoder.missing_elements(index).unwrap().len());
            decoder.conceal(index, 1).unwrap();
            self.drain(decoder, text)?;
        }
        Ok(())
    }

    fn decoder(&self, stream: &[u8]) -> Result<Decoder, Error> {
        let mut codecs = Vec::new();
        for model in &self.models {
            codecs.push(Arc::new(Codec::from_bytes(&std::fs::read(model).unwrap(), 1 << 24)?));
        }
        let digest = |digits: &String| {
            let bytes = (0..64).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap());
            bytes.collect::<Vec<_>>().try_into().unwrap()
        };
        let config = DecoderConfig::default().binding(self.binding).host_digest(self.host.as_ref().map(digest));
        let mut decoder = match self.join {
            Some(point) => {
                let first = if self.binding == Binding::Message { Self::messages(stream)[0] } else { stream };
                let (header, _) = StreamHeader::load(first, Some(self.binding))?.unwrap();
                Decoder::join(codecs[0].clone(), config, header, point)?
            }
            None => Decoder::new(codecs[0].clone(), config)?,
        };
        codecs.iter().skip(1).for_each(|codec| decoder.add_model(codec.clone()));
        Ok(decoder)
    }

    /// What tests/programs/vectors.c has to print for the job.
    fn expected(mut self) -> String {
        let stream = std::fs::read(&self.stream).unwrap();
        let mut text = format!("job {}\n", self.name);
        match self.decoder(&stream) {
            Err(error) => text += &error_line(error),
            Ok(mut decoder) => {
                if let Err(error) = self.decode(&stream, &mut decoder, &mut text) {
                    text += &error_line(error);
                }
                let (next, confirmed) = (decoder.next_index(), decoder.confirmed_index());
                text += &format!("next {next} confirmed {confirmed} resume {}\n", decoder.resume_index());
            }
        }
        let mut reader = Reader::new(ReaderConfig::default().binding(self.binding));
        let mut pieces = self.pieces(&stream).into_iter();
        loop {
            match reader.poll() {
                Err(error) => {
                    text += &error_line(error);
                    break;
                }
                Ok(Poll::Event(event)) => text += &chunk_line(&event),
                Ok(outcome) => match pieces.next() {
                    Some(piece) if self.binding == Binding::Message => reader.push_message(piece).unwrap(),
                    Some(piece) => reader.push(piece).unwrap(),
                    None if outcome == Poll::End => break,
                    None => reader.finish(),
                },
            }
        }
        text + &format!("read to {}\n", reader.offset())
    }
}

/// The first line in which two texts differ.
fn compare(name: &str, found: &str, wanted: &str) {
    let mut job = "";
    for (found, wanted) in found.lines().zip(wanted.lines()) {
        if wanted.starts_with("job ") || wanted.starts_with("open") {
            job = wanted;
        }
        assert_eq!(found, wanted, "{name}, {job}");
    }
    assert_eq!(found.lines().count(), wanted.lines().count(), "{name}");
}

/// Decodes a manifest's vectors in C and in Rust. Returns how many.
fn vectors(folder: &str, cut: usize) -> usize {
    let Some(prefix) = installed() else { return 0 };
    let root = repository().join(folder);
    let manifest: Value = serde_json::from_slice(&std::fs::read(root.join("manifest.json")).unwrap()).unwrap();
    let all = manifest["vectors"].as_array().unwrap();
    let script: String = all.iter().map(|vector| Job::of(&root, vector, cut).script()).collect();
    let wanted: String = all.iter().map(|vector| Job::of(&root, vector, cut).expected()).collect();
    let path = prefix.join(format!("{}.script", folder.replace('/', "-")));
    std::fs::write(&path, script).unwrap();
    for way in ways(prefix, &member("tests/programs/vectors.c")) {
        compare(way.name, &way.run(&[&path]), &wanted);
    }
    all.len()
}

#[test]
fn the_example_streams_decode_to_what_rust_makes_of_them() {
    let count = vectors("spec/examples", 7);
    assert!(count == 0 || count >= 17);
}

#[test]
fn every_conformance_vector_decodes_to_what_rust_makes_of_it() {
    let count = vectors("conformance/vectors", 11);
    assert!(count == 0 || count >= 600);
}

// ---- What tests/programs/encode.c prints ----

const TAKES_SIDE: &str = "open 0 0 1 1 0 256 256 model
side 1 3 1 4 1 5 9 2 6 5 3
push 10
take
side 0 5
push 1
side 0 8
push 1
take
rewind 11
side 1 7
push 1
checkpoint
side 0 0 1
push 2
end
take
";

/// Joined and layered, byte stream, file and messages, one lane and several, with all control calls.
fn scripts() -> String {
    let mut text = "default\npush 255\npush 1\nforget\ntake\nend\ntake\n".to_string();
    for (mode, binding) in [(0, 0), (1, 0), (0, 2), (1, 1), (0, 1)] {
        for (check, lanes, limit, frames, interval, weight) in
            [(1, 1, 0, 256, 256, "model"), (0, 3, 0, 5, 4, "0"), (2, 2, 256, 7, 0, "0.5")]
        {
            text += &format!("open {mode} {binding} {check} {lanes} {limit} {frames} {interval} {weight}\n");
            text += "push 1\ntake\npush 12\ntake\nquantise 2\npush 1\ncheckpoint\nrewind 14\npush 1\ntake\nfork\n";
            text += "push 3\nrestore\npush 1\nreset\nthreads 2\npush 9\nquality 1\npush 1\nintegers\n";
            text += if mode == 0 { "exact\n" } else { "push 1\n" };
            text += "take\nextension\nswitch 4\npush 2\nend\ntake\ntake\n";
        }
    }
    text
}

struct Encoding<'a> {
    codecs: &'a [Arc<Codec>],
    hidden: &'a [f32],
    rest: &'a [f32],
    encoder: Option<Encoder>,
    binding: Binding,
    text: String,
}

impl<'a> Encoding<'a> {
    fn describe(&mut self, codec: &Codec) {
        let model = codec.model();
        let (vocabulary, ages) = model.side().map_or((0, 0), |side| (side.vocabulary(), side.ages()));
        self.text += &format!("model {} {}", model.hidden_width(), model.hyper_prior_width());
        self.text += &format!(" {} {}", model.qualities(), model.version());
        self.text += &format!(" {} {}", u32::from(codec.encodes()), u32::from(model.side().is_some()));
        self.text += &format!(" {vocabulary} {ages} {}", model.predicted_from());
        let ((w_min, w_max), (y_min, y_max)) = (model.w_range(), model.y_range());
        self.text += &format!(" {w_min} {w_max} {y_min} {y_max}{}\n", hex(*codec.fingerprint()));
    }

    fn describe_qualities(&mut self, codec: &Codec) {
        let model = codec.model();
        for quality in 0..model.qualities() {
            let (low, high) = model.common_range(quality);
            let bits = model.expected_bits(quality).unwrap_or(0.0);
            let values = floats(&[low, high, model.rate_weight(quality), bits]);
            self.text += &format!("quality {}{values}\n", model.length_offset(quality));
        }
    }

    fn open(&mut self, words: &[&str]) {
        let number = |at: usize| words[at].parse::<u32>().unwrap();
        let config = EncoderConfig::new(Identity::new(*b"identity"))
            .mode(if number(0) == 1 { Mode::Layered } else { Mode::Joined })
            .binding(if number(1) == 1 { Binding::Message } else { Binding::ByteStream })
            .file(number(1) == 2)
            .check([CheckWidth::None, CheckWidth::One, CheckWidth::Two][number(2) as usize])
            .lanes(words[3].parse().unwrap())
            .datagram_limit(Some(number(4)).filter(|limit| *limit > 0))
            .max_frames_per_chunk(number(5))
            .checkpoint_interval(number(6))
            .rate_weight(words[7].parse().ok())
            .fields(vec![OptionalField { id: 2, value: b"C".to_vec().into() }]);
        self.binding = config.binding;
        self.rest = self.hidden;
        self.encoder = Some(Encoder::new(self.codecs[0].clone(), config).unwrap());
    }

    fn rows(&mut self, frames: usize) -> &'a [f32] {
        let width = self.codecs[0].model().hidden_width();
        let (rows, rest) = self.rest.split_at(frames * width);
        self.rest = rest;
        rows
    }

    fn step(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        if words[0] == "open" {
            return self.open(&words[1..]);
        }
        if words[0] == "default" {
            (self.binding, self.rest) = (Binding::ByteStream, self.hidden);
            let config = EncoderConfig::new(Identity::none());
            self.encoder = Some(Encoder::new(self.codecs[0].clone(), config).unwrap());
            return;
        }
        let rows = match words[0] {
            "push" | "quantise" => self.rows(number(1) as usize),
            "exact" | "forget" => self.rows(1),
            _ => &[],
        };
        let (codecs, binding) = (self.codecs, self.binding);
        let encoder = self.encoder.as_mut().unwrap();
        match words[0] {
            "push" => {
                encoder.push_hidden(rows).unwrap();
                let sent = encoder.last_integers().unwrap();
                self.text += &format!("integers{}{}\n", integers(&sent.w), integers(&sent.y));
            }
            "quantise" => encoder.push_y(&encoder.quantise(rows).unwrap()).unwrap(),
            "forget" => encoder.push_hidden(rows).unwrap(),
            "integers" => {
                let model = codecs[0].model();
                let mut y = vec![0; 2 * model.hidden_width()];
                y[1] = 1;
                encoder.push_integers(&y, &vec![0; 2 * model.hyper_prior_width()]).unwrap();
            }
            "exact" => {
                let bytes: Vec<u8> = rows.iter().flat_map(|value| value.to_le_bytes()).collect();
                encoder.push_exact(Dtype::F32, &bytes).unwrap();
            }
            "side" => {
                let indices: Vec<u32> = words[2..].iter().map(|word| word.parse().unwrap()).collect();
                let delivery = if number(1) == 1 { SideDelivery::Sent } else { SideDelivery::Known };
                encoder.set_side(&indices, delivery).unwrap();
            }
            "checkpoint" => encoder.checkpoint().unwrap(),
            "reset" => encoder.reset().unwrap(),
            "rewind" => encoder.rewind(number(1)).unwrap(),
            "quality" => encoder.set_quality(number(1) as u8).unwrap(),
            "switch" => {
                encoder.switch_model(codecs[1].clone(), 0).unwrap();
                self.describe(&codecs[1]);
            }
            "extension" => encoder.extension(27, b"grease").unwrap(),
            // None of these changes what is sent.
            "threads" | "fork" | "restore" => {}
            "take" if binding == Binding::Message => {
                while let Some(message) = encoder.pop_message().unwrap() {
                    let class = match message.class {
                        MessageClass::Header => 1,
                        MessageClass::Reliable => 2,
                        MessageClass::Droppable => 3,
                    };
                    let (first, end) = (message.frames.start, message.frames.end);
                    self.text += &format!("message {class} {first} {end}{}\n", hex(message.bytes));
                }
            }
            "take" => self.text += &format!("bytes{}\n", hex(encoder.take_bytes().unwrap())),
            "end" => {
                encoder.end().unwrap();
                let sent = encoder.sent();
                self.text += &format!("sent {} {} {} {}", sent.frames, sent.payload_bits, sent.clipped, sent.escaped);
                self.text += &format!(" next {}\n", encoder.next_index());
                let recent = encoder.recently_sent();
                self.text += &format!("unlike {} {}", u32::from(encoder.unlike().is_some()), recent.frames);
                self.text += &format!(" {} {}\n", recent.y_values, recent.expected_bits());
            }
            other => panic!("{other}"),
        }
    }
}

/// Encodes by a script in C and in Rust.
fn encode(name: &str, script: &str, models: &[(PathBuf, Arc<Codec>)], frames: usize) {
    let Some(prefix) = installed() else { return };
    let width = models[0].1.model().hidden_width();
    let mut random = Random::new(7);
    let hidden: Vec<f32> = (0..frames * width).map(|_| random.within(-3000, 3000) as f32 / 1000.0).collect();
    let (file, path) = (prefix.join(format!("{name}.f32")), prefix.join(format!("{name}.script")));
    std::fs::write(&file, hidden.iter().flat_map(|value| value.to_ne_bytes()).collect::<Vec<_>>()).unwrap();
    std::fs::write(&path, script).unwrap();
    let codecs: Vec<_> = models.iter().map(|(_, codec)| codec.clone()).collect();
    let mut encoding = Encoding {
        codecs: &codecs,
        hidden: &hidden,
        rest: &hidden,
        encoder: None,
        binding: Binding::ByteStream,
        text: String::new(),
    };
    encoding.describe(&codecs[0]);
    encoding.describe_qualities(&codecs[0]);
    script.lines().for_each(|line| encoding.step(line));
    let mut arguments: Vec<&Path> = vec![&file, &path];
    arguments.extend(models.iter().map(|(path, _)| path.as_path()));
    for way in ways(prefix, &member("tests/programs/encode.c")) {
        compare(way.name, &way.run(&arguments), &encoding.text);
    }
}

#[test]
fn fresh_streams_have_the_bytes_that_rust_gives_them() {
    let Some(prefix) = installed() else { return };
    let tiny = SyntheticShape::tiny();
    let models = [model(prefix, "one.safetensors", &tiny, 1), model(prefix, "two.safetensors", &tiny, 2)];
    encode("fresh", &scripts(), &models, 301);
}

#[test]
fn side_indices_in_the_stream_and_known_give_the_bytes_of_rust() {
    let Some(prefix) = installed() else { return };
    let models = [model(prefix, "side.safetensors", &SyntheticShape::with_side(), 3)];
    let layered = TAKES_SIDE.replace("open 0 0", "open 1 0");
    encode("side", &format!("{TAKES_SIDE}{layered}"), &models, 20);
}
