//! Runs every vector of conformance/ through the Rust decoder.
#![cfg(feature = "codec")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use midspan::codec::{Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, TargetRefusal, Targets, Verdict};
use midspan::error::{Detail, Error, ErrorKind};
use midspan::stream::{Binding, Chunk, JoinPoint, Poll, Reader, ReaderConfig};
use midspan::wire::StreamHeader;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The final timeline: W, and Y with its hidden state, by absolute index.
#[derive(Default)]
struct Timeline {
    w: BTreeMap<u64, Vec<i16>>,
    y: BTreeMap<u64, (Vec<i16>, Vec<f32>)>,
    concealed: BTreeSet<u64>,
    /// The outcome of each target chunk.
    targets: Vec<&'static str>,
    /// Stated Y digests that could not be judged.
    unverifiable: usize,
    /// The events, in the manifest's form (spec 6.10).
    reports: Vec<Value>,
    /// Confirmed and resume index at the end.
    indices: (u64, u64),
}

impl Timeline {
    fn record_w(&mut self, index: u64, w: &[i16], width: usize) {
        self.w.extend((index..).zip(w.chunks_exact(width).map(<[i16]>::to_vec)));
    }

    fn record_y(&mut self, index: u64, y: &[i16], hidden: &[f32], width: usize) {
        let frames = y.chunks_exact(width).zip(hidden.chunks_exact(width));
        self.y.extend((index..).zip(frames.map(|(y, hidden)| (y.to_vec(), hidden.to_vec()))));
    }

    fn record_targets(&mut self, targets: &Targets, width: usize) {
        self.record_y(targets.index, &targets.y, &targets.hidden, width);
        if targets.concealed {
            self.concealed.extend(targets.index..targets.index + targets.count as u64);
        } else {
            self.targets.push("usable");
        }
    }

    fn judged(&mut self, from: u64, to: u64, verdict: Verdict) {
        self.unverifiable += usize::from(verdict == Verdict::YUnverifiable);
        let text = match verdict {
            Verdict::WConfirmed => "w_confirmed",
            Verdict::YConfirmed => "y_confirmed",
            _ => "y_unverifiable",
        };
        self.reports.push(json!(["verdict", from, to, text]));
    }

    /// Takes an event of a model with this hidden width and number of channels.
    fn take(&mut self, event: &DecoderEvent, width: usize, channels: usize) {
        let report = match event {
            DecoderEvent::Opened(_) => json!(["opened"]),
            DecoderEvent::Frames(frames) => {
                let integers = frames.integers.as_ref().unwrap();
                self.record_w(frames.index, &integers.w, channels);
                self.record_y(frames.index, &integers.y, &frames.hidden, width);
                json!(["frames", frames.index, frames.count])
            }
            DecoderEvent::ExactFrame(exact) => {
                let values = midspan::engine::quantiser::to_f32(exact.dtype, &exact.hidden);
                let integers = exact.frame.integers.as_ref().unwrap();
                self.record_w(exact.frame.index, &integers.w, channels);
                self.record_y(exact.frame.index, &integers.y, &values, width);
                json!(["exact_frame", exact.frame.index])
            }
            DecoderEvent::HyperPrior(hyper_prior) => {
                self.record_w(hyper_prior.index, &hyper_prior.w, channels);
                json!(["hyper_prior", hyper_prior.index, hyper_prior.count])
            }
            DecoderEvent::Targets(targets) => {
                self.record_targets(targets, width);
                json!([if targets.concealed { "concealed" } else { "targets" }, targets.index, targets.count])
            }
            DecoderEvent::TargetPart { index, elements } => {
                self.targets.push("usable");
                json!(["part", index, elements.start, elements.end])
            }
            DecoderEvent::TargetEarly { index, count } => {
                self.targets.push("early");
                json!(["early", index, count])
            }
            DecoderEvent::TargetRefused { reason, .. } => {
                let status = match reason {
                    TargetRefusal::Late => "late",
                    TargetRefusal::NoRoom => "no_room",
                    TargetRefusal::Damaged => "damaged",
                    TargetRefusal::MemoryLimit => "no_memory",
                    other => panic!("{other:?} is no refusal of spec 6.10"),
                };
                self.targets.push(status);
                json!(["refused", status])
            }
            DecoderEvent::Verdict { from, to, verdict } => {
                assert_eq!(event.name(), "verdict");
                return self.judged(*from, *to, *verdict);
            }
            DecoderEvent::Rewound { index } => {
                self.w.retain(|i, _| i < index);
                self.y.retain(|i, _| i < index);
                self.concealed.retain(|i| i < index);
                json!(["rewound", index])
            }
            DecoderEvent::TargetsOverdue { index, count } => json!(["overdue", index, count]),
            DecoderEvent::TargetsDropped { index, count } => json!(["dropped", index, count]),
            DecoderEvent::Reset { index } => json!(["reset", index]),
            DecoderEvent::Model { index, .. } => json!(["model", index]),
            DecoderEvent::Quality(quality) => json!(["quality", quality]),
            DecoderEvent::Extension { id, .. } => json!(["extension", id]),
            DecoderEvent::SideIndices { index, indices } => {
                let head = [json!("side_indices"), json!(index), json!(indices.len())];
                Value::from_iter(head.into_iter().chain(indices.iter().map(|index| json!(index))))
            }
            // The wait of [SIDE-3] is no event of the manifest.
            DecoderEvent::SideWanted { .. } => return assert_eq!(event.name(), "side_wanted"),
            DecoderEvent::Ended { index, .. } => json!(["ended", index]),
            // [EVT-1] An event that only this library has: a long chunk is not finished yet.
            DecoderEvent::Working { .. } => return assert_eq!(event.name(), "working"),
            other => panic!("{other:?} is no event of spec 6.10"),
        };
        assert_eq!(report[0], event.name());
        self.reports.push(report);
    }

    fn missing(&self) -> Vec<u64> {
        self.w.keys().filter(|index| !self.y.contains_key(index)).copied().collect()
    }
}

fn sha256(bytes: impl Iterator<Item = u8>) -> String {
    let digest = Sha256::digest(bytes.collect::<Vec<u8>>());
    digest.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
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

/// The input of a vector.
struct Input {
    stream: Vec<u8>,
    binding: Binding,
    cut: usize,
    /// The header, and where the decoder joins.
    join: Option<(StreamHeader, JoinPoint)>,
    /// The host digest that the decoder has to expect.
    host: Option<[u8; 32]>,
    /// What the caller answers to each wait for side indices: the first frame, and the indices.
    side: Vec<(u64, Vec<u32>)>,
}

impl Input {
    fn new(stream: Vec<u8>, vector: &Value, cut: usize) -> Input {
        let binding = if vector["binding"] == "messages" { Binding::Message } else { Binding::ByteStream };
        let join = vector["join"]["offset"].as_u64().map(|offset| {
            let first = if binding == Binding::Message { messages(&stream)[0] } else { &stream };
            let (header, _) = StreamHeader::load(first, Some(binding)).unwrap().unwrap();
            (header, JoinPoint { offset, index: vector["join"]["index"].as_u64() })
        });
        let side = serde_json::from_value(vector["side"].clone()).unwrap_or_default();
        Input { stream, binding, cut, join, host: vector["host"].as_str().map(digest_of), side }
    }

    /// The pieces that are pushed.
    fn parts(&self) -> Vec<&[u8]> {
        let skip = self.join.as_ref().map_or(0, |(_, point)| usize::try_from(point.offset).unwrap());
        match self.binding {
            Binding::ByteStream => self.stream[skip..].chunks(self.cut).collect(),
            Binding::Message => {
                let mut at = 0;
                let before = |message: &&[u8]| {
                    let before = at < skip;
                    at += message.len();
                    before
                };
                messages(&self.stream).into_iter().skip_while(before).collect()
            }
        }
    }
}

/// Polls. If the stream failed, checks that it remains failed.
fn poll(decoder: &mut Decoder) -> Result<DecoderPoll, Error> {
    let outcome = decoder.poll();
    if outcome.as_ref().is_err_and(|error| error.code() < 800) {
        // [ERR-2] The same error answers every later call. [EVT-3] No event follows it.
        assert_eq!(decoder.poll(), outcome);
        let pushed = match decoder.push(&[0]) {
            Err(error) if error.code() == 804 => decoder.push_message(&[0]),
            other => other,
        };
        assert_eq!(pushed.err(), decoder.poll().err());
    }
    outcome
}

/// Fills `timeline`, including its indices if an error ends the stream.
fn decode(codecs: &[Arc<Codec>], input: &Input, conceal: &str, timeline: &mut Timeline) -> Result<(), Error> {
    let (binding, host_digest) = (input.binding, input.host);
    let config = DecoderConfig::default().binding(binding).host_digest(host_digest);
    let mut decoder = match &input.join {
        Some((header, point)) => Decoder::join(codecs[0].clone(), config, header.clone(), *point)?,
        None => Decoder::new(codecs[0].clone(), config)?,
    };
    codecs[1..].iter().for_each(|codec| decoder.add_model(codec.clone()));
    let outcome = hand_in(&mut decoder, input, conceal, timeline);
    timeline.indices = (decoder.confirmed_index(), decoder.resume_index());
    outcome
}

fn hand_in(decoder: &mut Decoder, input: &Input, conceal: &str, timeline: &mut Timeline) -> Result<(), Error> {
    let parts = input.parts();
    let mut side = input.side.iter();
    for step in 0..=parts.len() {
        match parts.get(step) {
            Some(part) if input.binding == Binding::Message => decoder.push_message(part)?,
            Some(part) => decoder.push(part)?,
            None => decoder.finish(),
        }
        loop {
            let width = decoder.codec().model().hidden_width();
            let channels = decoder.codec().model().hyper_prior_width();
            let DecoderPoll::Event(event) = poll(decoder)? else { break };
            timeline.take(&event, width, channels);
            match (event, conceal) {
                (DecoderEvent::TargetsOverdue { index, count }, "overdue") => decoder.conceal(index, count)?,
                (DecoderEvent::SideWanted { index, .. }, _) => {
                    // A wrong answer is refused, and the chunk goes on waiting.
                    if let Some((_, indices)) = side.next().filter(|(first, _)| *first == index) {
                        let _ = decoder.give_side(indices);
                    }
                }
                _ => {}
            }
        }
    }
    if conceal == "end" {
        let width = decoder.codec().model().hidden_width();
        while let Some(index) = decoder.oldest_pending() {
            decoder.conceal(index, 1)?;
            while let DecoderPoll::Event(event) = poll(decoder)? {
                timeline.take(&event, width, 0);
            }
        }
    }
    Ok(())
}

/// The kind of a chunk, as the manifest calls it; `None` if the manifest does not count it.
fn kind_of(chunk: &Chunk) -> Option<&'static str> {
    Some(match chunk {
        Chunk::Frame { .. } => "frame",
        Chunk::Batch { .. } => "batch",
        Chunk::Target { .. } => "target",
        Chunk::Checkpoint(_) => "checkpoint",
        Chunk::Reset(_) => "reset",
        Chunk::Rewind(_) => "rewind",
        Chunk::Quality(_) => "quality",
        Chunk::ModelSwitch(_) => "model",
        Chunk::ExactFrame { .. } => "exact",
        Chunk::End(_) => "end",
        Chunk::SeekIndex(_) => "seek_index",
        Chunk::Extension(_) => "extension",
        Chunk::SideIndices { .. } => "side_indices",
        _ => return None,
    })
}

/// What a reader without a model reports about a stream: the kinds of the chunks, and how it ends.
fn container(input: &Input) -> (Vec<&'static str>, Option<Error>) {
    let binding = input.binding;
    let config = ReaderConfig::default().binding(binding);
    let mut reader = match &input.join {
        Some((header, point)) => Reader::join(config, header.clone(), *point),
        None => Reader::new(config),
    };
    let mut kinds = Vec::new();
    let mut place = input.join.as_ref().map_or(0, |(_, point)| point.offset);
    for part in input.parts().into_iter().map(Some).chain([None]) {
        match part {
            Some(part) if binding == Binding::Message => reader.push_message(part).unwrap(),
            Some(part) => reader.push(part).unwrap(),
            None => reader.finish(),
        }
        loop {
            match reader.poll() {
                Ok(Poll::Event(event)) => {
                    // [EVT-4] every byte belongs to one event.
                    assert_eq!(event.offset, place);
                    place = event.offset + event.bytes;
                    kinds.extend(kind_of(&event.chunk));
                }
                Ok(_) => break,
                outcome => {
                    // [ERR-2] an error is final.
                    assert_eq!(reader.poll(), outcome);
                    return (kinds, outcome.err());
                }
            }
        }
    }
    (kinds, None)
}

/// [EVT-4] A reader reports every chunk by its kind. It does not distinguish a target from a target batch.
fn same_kinds(kinds: &[&str], expected: &Value) -> Option<String> {
    let bare = |kind: &Value| kind.as_str().map(|kind| kind.replace("target_batch", "target"));
    let want: Vec<_> = expected["events"].as_array()?.iter().filter_map(bare).collect();
    (kinds != want).then(|| format!("reader: kinds {kinds:?}, not {want:?}"))
}

/// A digest from its hexadecimal digits.
fn digest_of(digits: &str) -> [u8; 32] {
    let bytes: Vec<u8> = (0..64).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

/// What is wrong with the outcome of one vector; None if nothing.
fn judge(root: &Path, vector: &Value, cut: usize) -> Option<String> {
    let expected = &vector["expected"];
    let stream = std::fs::read(root.join(vector["stream"].as_str()?)).ok()?;
    let input = Input::new(stream, vector, cut);
    let code = |error: &Error| (u64::from(error.code()), error.offset());
    let mut codecs = Vec::new();
    for model in vector["models"].as_array()? {
        let bytes = std::fs::read(root.join(model.as_str()?)).unwrap();
        match Codec::from_bytes(&bytes, 1 << 24) {
            Ok(codec) => codecs.push(Arc::new(codec)),
            // The offset in a model file is only informative, so only the number is compared.
            Err(error) if expected["code"] == u64::from(error.code()) => return None,
            // [MODEL-12] If a file breaks several rules, any of them may be reported.
            Err(error) if expected["others"].as_array().is_some_and(|codes| codes.contains(&error.code().into())) => {
                return None;
            }
            Err(error) => return Some(format!("model refused: {error}")),
        }
    }
    let mut timeline = Timeline::default();
    let outcome = decode(&codecs, &input, vector["conceal"].as_str()?, &mut timeline);
    if vector["valid"] == false {
        // [ERR-3] the number, and the offset of the field at fault.
        let want = (expected["code"].as_u64()?, expected["offset"].as_u64()?);
        let got = outcome.err();
        if got.as_ref().map(code) != Some(want) {
            return Some(format!("want error {want:?}, got {got:?}"));
        }
        // [DEC-21] The indices at which a stream is cut off.
        let indices = ["confirmed", "resume"].into_iter().zip([timeline.indices.0, timeline.indices.1]);
        if let Some((key, got)) =
            indices.into_iter().find(|(key, got)| expected.get(key).is_some_and(|want| want != got))
        {
            return Some(format!("{key} {got}"));
        }
        if vector["container_only"] == true {
            let (kinds, got) = container(&input);
            if got.as_ref().map(code) != Some(want) {
                return Some(format!("reader: want {want:?}, got {got:?}"));
            }
            return same_kinds(&kinds, expected);
        }
        return None;
    }
    let (kinds, error) = container(&input);
    if let Some(error) = error {
        return Some(format!("reader: {error}"));
    }
    if let Some(fault) = same_kinds(&kinds, expected) {
        return Some(fault);
    }
    if let Err(error) = outcome {
        return Some(format!("want success, got {error}"));
    }
    let w = sha256(timeline.w.values().flatten().flat_map(|value| value.to_le_bytes()));
    let y = sha256(timeline.y.values().flat_map(|(y, _)| y).flat_map(|value| value.to_le_bytes()));
    let hidden = sha256(timeline.y.values().flat_map(|(_, hidden)| hidden).flat_map(|value| value.to_le_bytes()));
    let same = [("w_sha256", w), ("y_sha256", y), ("hidden_sha256", hidden)]
        .into_iter()
        .find(|(key, got)| expected[*key] != **got);
    if let Some((key, _)) = same {
        return Some(format!("{key} differs"));
    }
    if expected["frames"] != timeline.w.len() as u64 {
        return Some(format!("{} frames", timeline.w.len()));
    }
    if expected["target_status"] != Value::from(timeline.targets.clone()) {
        return Some(format!("targets {:?}", timeline.targets));
    }
    let concealed: Vec<u64> = timeline.concealed.iter().copied().collect();
    if expected["concealed"] != Value::from(concealed.clone()) || expected["missing"] != Value::from(timeline.missing())
    {
        return Some(format!("concealed {concealed:?}, missing {:?}", timeline.missing()));
    }
    // [EVT-1] [EVT-2] the events, their order, and what they carry; [ERR-1] for every cut of the input.
    if expected["reports"] != Value::from(timeline.reports.clone()) {
        return Some(format!("reports {}, not {}", Value::from(timeline.reports), expected["reports"]));
    }
    // [DEC-21]
    let (confirmed, resume) = timeline.indices;
    if expected["confirmed"] != confirmed || expected["resume"] != resume {
        return Some(format!("confirmed {confirmed}, resume {resume}"));
    }
    // Checkpoints that wait until the end for targets that nobody conceals are never judged.
    let unjudged = expected["unverifiable"].as_array()?.len();
    let judged = timeline.unverifiable;
    let fits = if timeline.missing().is_empty() { judged == unjudged } else { judged <= unjudged };
    (!fits).then(|| format!("{judged} unverifiable"))
}

/// A folder's manifest; None in the packaged crate, which does not contain the vectors.
fn manifest_of(folder: &str) -> Option<(PathBuf, Value)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let Ok(manifest) = std::fs::read(root.join("manifest.json")) else {
        assert!(!root.exists(), "{folder} has no manifest");
        return None;
    };
    Some((root, serde_json::from_slice(&manifest).unwrap()))
}

/// What is wrong with the outcomes of a manifest's vectors, cut in three ways; None without a manifest.
fn judge_all(folder: &str) -> Option<(Value, String)> {
    let (root, manifest) = manifest_of(folder)?;
    let mut wrong = String::new();
    for vector in manifest["vectors"].as_array().unwrap() {
        for cut in [usize::MAX, 1, 7] {
            if let Some(fault) = judge(&root, vector, cut) {
                writeln!(wrong, "{}, cut {cut}: {fault}", vector["name"]).unwrap();
            }
        }
    }
    Some((manifest, wrong))
}

#[test]
fn every_vector_has_its_outcome() {
    let Some((manifest, wrong)) = judge_all("conformance/vectors") else { return };
    assert!(wrong.is_empty(), "\n{wrong}");
    let vectors = manifest["vectors"].as_array().unwrap();
    let invalid = vectors.iter().filter(|vector| vector["valid"] == false).count();
    assert!(vectors.len() >= 60 && invalid * 3 >= vectors.len());
}

/// Spec 4.7.
#[test]
fn every_host_has_its_digest() {
    let Some((root, manifest)) = manifest_of("conformance/vectors") else { return };
    let hosts = manifest["hosts"].as_array().unwrap();
    for host in hosts {
        let open = |path: &Value| std::fs::File::open(root.join(path.as_str().unwrap())).unwrap();
        let mut files: Vec<_> = host["files"].as_array().unwrap().iter().map(open).collect();
        let digest = midspan::adapter::host_digest(&mut files).unwrap();
        assert_eq!(digest, digest_of(host["digest"].as_str().unwrap()), "{}", host["name"]);
    }
    assert_eq!(hosts.len(), 4);
}

#[test]
fn the_annotated_streams_of_the_specification_decode() {
    let Some((manifest, wrong)) = judge_all("spec/examples") else { return };
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(manifest["vectors"].as_array().unwrap().len() >= 3);
}

/// If library and reference differ, one of them is wrong, or the specification is.
#[test]
#[ignore = "needs streams that conformance/mutate.py wrote; .ci/run makes them"]
fn streams_broken_at_random_are_judged_as_the_reference_does() {
    let folder = std::env::var("MIDSPAN_MUTATED").expect("the folder that mutate.py wrote");
    let (manifest, wrong) = judge_all(&folder).expect("a manifest");
    assert!(wrong.is_empty(), "\n{wrong}");
    assert!(!manifest["vectors"].as_array().unwrap().is_empty());
}

/// For each number with which a stream or a model file can be refused: phrases that state the facts, of which the
/// error's text has to contain one. If the number says everything, there are none.
const TOLD: &[(u16, &[&str])] = &[
    (101, &["bytes of a varint: 1 wanted, "]),
    (102, &[]),
    (103, &["header body length: 40 to 4096 wanted, ", " wanted, "]),
    (201, &["not a Midspan stream: 0x"]),
    (202, &["reader version: 1 wanted, "]),
    (203, &["minimum reader version: 1 ", "a format version of 0"]),
    (204, &[" wanted, 0x"]),
    (205, &["flags 0x", "the file binding in messages"]),
    (206, &["tracks: 1 wanted, "]),
    (207, &["id of an optional field: "]),
    (208, &["field "]),
    (209, &["a field is cut off", "bytes after the last field: 0 wanted, ", "bytes of the identity: 8 wanted, "]),
    (210, &["the header states messages", "the header states a byte stream"]),
    (301, &["kind 0x"]),
    (302, &["bytes in a chunk, the stream header declares at most "]),
    (303, &["bytes: 16512 to ", "a one-frame message has no kind"]),
    (304, &[]),
    (305, &["no seek index after the end of a file, but 0x", "where there must be none"]),
    (
        306,
        &[
            "a field is cut off",
            "no room for the crc",
            "no room for the check",
            "bytes after the last field: 0 wanted, ",
        ],
    ),
    (307, &[]),
    (308, &[]),
    (309, &[" side indices in a chunk, ", " frames in a chunk, the stream header declares at most "]),
    (310, &[]),
    (311, &["lanes: 1 to "]),
    (312, &[]),
    (313, &[]),
    (314, &["dtype 0x"]),
    (315, &["extension "]),
    (316, &["offset of the seek index: ", "it does not end in MSPX"]),
    (317, &["offsets ascend and lie before the seek index", "a frame's index stays below 2^56"]),
    (318, &[" checkpoints that wait, the stream header declares at most "]),
    (319, &["side indices that are left: "]),
    (401, &[]),
    (402, &[" wanted, 0x"]),
    (403, &[" wanted, 0x"]),
    (404, &["index of the next frame: ", "neither a context reset nor a model switch"]),
    (405, &["frames coded: "]),
    (406, &["epoch: "]),
    (407, &["index to go back to: "]),
    (408, &[" frames back, the stream header declares at most "]),
    (409, &[" wanted, 0x"]),
    (410, &[" wanted, 0x"]),
    (501, &["fingerprint: "]),
    (502, &["fingerprint prefix: "]),
    (503, &["bytes of the hidden state: "]),
    (504, &["quality: 0 "]),
    (505, &["host digest: "]),
    (506, &["the model takes none", "the model takes some"]),
    (507, &["joined mode alone"]),
    (601, &[]),
    (602, &[]),
    (603, &[]),
    (604, &["bytes in a payload, the format allows at most "]),
    (
        701,
        &[
            "its header",
            "the tensors do not end",
            "a tensor overlaps",
            "a key stands twice",
            "a dtype that",
            "does not begin with a brace",
        ],
    ),
    (702, &["decoder.", "encoder."]),
    (703, &[" wanted, ", "boundaries: its length is not"]),
    (704, &["decoder."]),
    (705, &[" wanted, ", "decoder.", "encoder."]),
    (706, &["weight: the magnitudes of a row", "the magnitudes of a channel's weights"]),
    (707, &["they do not rise", "outside the range of W", "lacks the value 0", "no part of a side index"]),
    (708, &["decoder."]),
    (806, &["conceal from frame "]),
    (812, &["give the side indices from frame "]),
];

/// The error with which a vector is refused; None if it is not refused.
fn refusal(root: &Path, vector: &Value) -> Option<Error> {
    let read = |path: &Value| std::fs::read(root.join(path.as_str().unwrap())).unwrap();
    let mut codecs = Vec::new();
    for model in vector["models"].as_array()? {
        match Codec::from_bytes(&read(model), 1 << 24) {
            Ok(codec) => codecs.push(Arc::new(codec)),
            Err(error) => return Some(error),
        }
    }
    let input = Input::new(read(&vector["stream"]), vector, usize::MAX);
    decode(&codecs, &input, vector["conceal"].as_str()?, &mut Timeline::default()).err()
}

#[test]
fn every_error_says_what_was_wanted_and_found() {
    let Some((root, manifest)) = manifest_of("conformance/vectors") else { return };
    let (mut seen, mut wrong) = (BTreeSet::new(), String::new());
    for vector in manifest["vectors"].as_array().unwrap().iter().filter(|vector| vector["valid"] == false) {
        let error = refusal(&root, vector).unwrap();
        let text = error.to_string();
        let told = TOLD.iter().find(|(code, _)| *code == error.code()).map(|(_, told)| *told);
        let ending = format!(" at byte {}; at fault: {}; error {}", error.offset(), error.fault(), error.code());
        let differ = !matches!(error.detail(), Some(Detail::Number { wanted, found, .. }) if wanted == found);
        let good = told.is_some_and(|told| told.is_empty() || told.iter().any(|part| text.contains(part)))
            && text.ends_with(&ending)
            && error.fault() == error.kind().fault()
            && differ;
        if !good {
            writeln!(wrong, "{}: {text}", vector["name"]).unwrap();
        }
        seen.insert(error.code());
    }
    assert!(wrong.is_empty(), "\n{wrong}");
    // Every number that a stream or a model file can be refused with has a line above, and a vector.
    let all = ErrorKind::ALL.iter().map(|kind| kind.code()).filter(|code| *code < 800 || [806, 812].contains(code));
    let all: BTreeSet<u16> = all.collect();
    assert_eq!(TOLD.iter().map(|(code, _)| *code).collect::<BTreeSet<_>>(), all);
    assert_eq!(seen, all);
}
