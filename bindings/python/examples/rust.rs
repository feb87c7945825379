//! What the Rust library does, for the Python package's tests and benchmark to compare with.
//!
//! ```text
//! rust encode MODEL HIDDEN SCRIPT     an encoder's output, to standard output; in messages, each after its length
//! rust decode MODEL SCRIPT STREAM     a decoder's events, a line each
//! rust peak MODEL FRAMES              bytes by which one push of so many frames raises the memory at its highest
//! rust model OUT                      writes a random model of the paper's shape: E 768, C 24
//! rust time MODEL                     for each number in the standard input, nanoseconds of so many steps of one frame
//! ```
//!
//! HIDDEN holds f32 values, little-endian, row by row. SCRIPT has a call a line, the first of which opens the session;
//! `tests/scripts.py` says which there are, and makes the same calls in Python.

use std::error::Error;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use midspan::codec::{
    Codec, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig, Frames, SideDelivery,
};
use midspan::model::synthetic::{self, Random, SyntheticShape};
use midspan::stream::Binding;
use midspan::wire::{CheckWidth, Dtype, Identity, Mode};

type Done = Result<(), Box<dyn Error>>;

fn main() -> Done {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["encode", model, hidden, script] => encode(codec(model)?, &floats(hidden)?, &std::fs::read_to_string(script)?),
        ["decode", model, script, stream] => {
            decode(codec(model)?, &std::fs::read_to_string(script)?, &std::fs::read(stream)?)
        }
        ["peak", model, frames] => peak(codec(model)?, frames.parse()?),
        ["model", path] => {
            let model = synthetic::model(&SyntheticShape::paper(), 1);
            Ok(std::fs::write(path, model.to_bytes())?)
        }
        ["time", model] => time(codec(model)?),
        _ => Err("see the top of examples/rust.rs".into()),
    }
}

fn codec(path: &str) -> Result<Arc<Codec>, Box<dyn Error>> {
    Ok(Arc::new(Codec::from_bytes(&std::fs::read(path)?, 1 << 30)?))
}

fn floats(path: &str) -> Result<Vec<f32>, Box<dyn Error>> {
    Ok(std::fs::read(path)?.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
}

fn opened(words: &[&str]) -> Result<EncoderConfig, Box<dyn Error>> {
    let mut config = EncoderConfig::new(Identity::new(*b"identity"));
    for word in words {
        let (name, value) = word.split_once('=').ok_or("a setting is name=value")?;
        config = match name {
            "mode" => config.mode(if value == "layered" { Mode::Layered } else { Mode::Joined }),
            "binding" => {
                let binding = if value == "message" { Binding::Message } else { Binding::ByteStream };
                config.binding(binding).file(value == "file")
            }
            "check" => config.check([CheckWidth::None, CheckWidth::One, CheckWidth::Two][value.parse::<usize>()?]),
            "lanes" => config.lanes(value.parse()?),
            "quality" => config.quality(value.parse()?),
            "datagram_limit" => config.datagram_limit(Some(value.parse()?)),
            "rate_weight" => config.rate_weight(Some(value.parse()?)),
            "max_rewind" => config.max_rewind(value.parse()?),
            other => return Err(format!("{other} is no setting here").into()),
        };
    }
    Ok(config)
}

/// bfloat16 of f32: the upper half of its bits.
fn bf16(value: f32) -> [u8; 2] {
    let [_, _, low, high] = value.to_le_bytes();
    [low, high]
}

fn encode(codec: Arc<Codec>, hidden: &[f32], script: &str) -> Done {
    let width = codec.model().hidden_width();
    let mut lines = script.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let config = opened(&lines.next().ok_or("an empty script")?[1..])?;
    let messages = config.binding == Binding::Message;
    let mut encoder = Encoder::new(codec, config)?;
    let numbers = |words: &[&str]| words.iter().map(|word| word.parse()).collect::<Result<Vec<u64>, _>>();
    for words in lines {
        match words[..] {
            ["side", delivery, ref indices @ ..] => {
                let delivery = if delivery == "sent" { SideDelivery::Sent } else { SideDelivery::Known };
                let indices: Vec<u32> = indices.iter().map(|index| index.parse()).collect::<Result<_, _>>()?;
                encoder.set_side(&indices, delivery)?;
            }
            ["push", ref range @ ..] => {
                let range = numbers(range)?;
                encoder.push_hidden(&hidden[range[0] as usize * width..range[1] as usize * width])?;
            }
            ["push_y", ref range @ ..] => {
                let range = numbers(range)?;
                let y = encoder.quantise(&hidden[range[0] as usize * width..range[1] as usize * width])?;
                encoder.push_y(&y)?;
            }
            ["integers", ref range @ ..] => {
                let (range, model) = (numbers(range)?, encoder.codec().model());
                let rows = &hidden[range[0] as usize * width..range[1] as usize * width];
                let (low, high) = model.y_range();
                let y: Vec<i16> = rows.iter().map(|value| ((value * 4.0) as i16).clamp(low, high)).collect();
                let w = vec![model.w_range().1; (range[1] - range[0]) as usize * model.hyper_prior_width()];
                encoder.push_integers(&y, &w)?;
            }
            ["exact", dtype, frame] => {
                let frame = frame.parse::<usize>()?;
                let values = &hidden[frame * width..(frame + 1) * width];
                let (dtype, bytes): (_, Vec<u8>) = match dtype {
                    "bf16" => (Dtype::Bf16, values.iter().flat_map(|value| bf16(*value)).collect()),
                    _ => (Dtype::F32, values.iter().flat_map(|value| value.to_le_bytes()).collect()),
                };
                encoder.push_exact(dtype, &bytes)?;
            }
            ["quality", quality] => encoder.set_quality(quality.parse()?)?,
            ["rewind", index] => encoder.rewind(index.parse()?)?,
            ["reset"] => encoder.reset()?,
            ["checkpoint"] => encoder.checkpoint()?,
            ["extension", id, data] => encoder.extension(id.parse()?, data.as_bytes())?,
            ["end"] => encoder.end()?,
            _ => return Err(format!("{words:?} is no call here").into()),
        }
    }
    let mut out = std::io::stdout().lock();
    match messages {
        false => out.write_all(&encoder.take_bytes()?)?,
        true => {
            while let Some(message) = encoder.pop_message()? {
                out.write_all(&(message.bytes.len() as u32).to_le_bytes())?;
                out.write_all(&message.bytes)?;
            }
        }
    }
    Ok(())
}

fn hex(bytes: impl IntoIterator<Item = u8>) -> String {
    bytes.into_iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn values(hidden: &[f32], w: &[i16], y: &[i16]) -> String {
    let integers = |values: &[i16]| hex(values.iter().flat_map(|value| value.to_le_bytes()));
    format!("{} {} {}", hex(hidden.iter().flat_map(|value| value.to_le_bytes())), integers(w), integers(y))
}

fn of_frames(frames: &Frames) -> String {
    let integers = frames.integers.clone().unwrap_or_default();
    format!("{} {} {}", frames.index, frames.count, values(&frames.hidden, &integers.w, &integers.y))
}

fn line(event: &DecoderEvent) -> String {
    match event {
        DecoderEvent::Opened(header) => {
            let identity = hex(header.identity.bytes().into_iter().flatten().copied());
            format!("opened {identity} {} {}", header.quality, header.max_rewind)
        }
        DecoderEvent::Frames(frames) => format!("frames {}", of_frames(frames)),
        DecoderEvent::ExactFrame(exact) => {
            format!("exact_frame {} {}", of_frames(&exact.frame), hex(exact.hidden.clone()))
        }
        DecoderEvent::HyperPrior(event) => {
            format!("hyper_prior {} {} {}", event.index, event.count, values(&[], &event.w, &[]))
        }
        DecoderEvent::Targets(event) => {
            let name = if event.concealed { "concealed" } else { "targets" };
            format!("{name} {} {} {}", event.index, event.count, values(&event.hidden, &[], &event.y))
        }
        DecoderEvent::TargetPart { index, elements } => format!("part {index} {} {}", elements.start, elements.end),
        DecoderEvent::SideWanted { index, count } => format!("side_wanted {index} {count}"),
        DecoderEvent::SideIndices { index, indices } => format!("side_indices {index} {indices:?}"),
        DecoderEvent::Verdict { from, to, .. } => format!("verdict {from} {to}"),
        DecoderEvent::Rewound { index } => format!("rewound {index}"),
        DecoderEvent::Reset { index } => format!("reset {index}"),
        DecoderEvent::Quality(quality) => format!("quality {quality}"),
        DecoderEvent::Extension { id, data } => format!("extension {id} {}", hex(data.clone())),
        DecoderEvent::Ended { index, frames_coded } => format!("ended {index} {frames_coded}"),
        other => format!("{other:?}"),
    }
}

fn decode(codec: Arc<Codec>, script: &str, stream: &[u8]) -> Done {
    let config = opened(&script.lines().next().ok_or("an empty script")?.split(' ').collect::<Vec<_>>()[1..])?;
    let mut decoder = Decoder::new(codec, DecoderConfig::default().binding(config.binding))?;
    match config.binding {
        Binding::ByteStream => decoder.push(stream)?,
        Binding::Message => {
            let mut rest = stream;
            while let Some((length, after)) = rest.split_first_chunk::<4>() {
                let (message, after) = after.split_at(u32::from_le_bytes(*length) as usize);
                decoder.push_message(message)?;
                rest = after;
            }
        }
    }
    decoder.finish();
    while let DecoderPoll::Event(event) = decoder.poll()? {
        println!("{}", line(&event));
        if let DecoderEvent::SideWanted { index, count } = event {
            // As the script gives them.
            let indices: Vec<u32> = (index..index + count as u64).map(|index| (index % 3) as u32).collect();
            decoder.give_side(&indices)?;
        }
    }
    Ok(())
}

/// The most memory that this process has had, in bytes.
fn highest() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}

fn peak(codec: Arc<Codec>, frames: usize) -> Done {
    let hidden = vec![1.0; frames * codec.model().hidden_width()];
    let mut encoder = Encoder::new(codec, EncoderConfig::new(Identity::none()).memory_limit(usize::MAX))?;
    encoder.keep_integers(false);
    let before = highest()?;
    encoder.push_hidden(&hidden)?;
    println!("{}", highest()? - before);
    Ok(())
}

/// Steps as many as a line of the standard input asks for, and tells how long each took; then waits for the next line.
fn time(codec: Arc<Codec>) -> Done {
    let (width, side) = (codec.model().hidden_width(), codec.model().side().is_some());
    let mut encoder = Encoder::new(codec.clone(), EncoderConfig::new(Identity::none()))?;
    let mut decoder = Decoder::new(codec, DecoderConfig::default())?;
    encoder.keep_integers(false);
    decoder.keep_integers(false);
    let mut random = Random::new(1);
    for line in std::io::stdin().lines() {
        let mut row = || (0..width).map(|_| random.within(-1000, 1000) as f32 / 1000.0).collect();
        let rows: Vec<Vec<f32>> = (0..line?.parse::<usize>()?).map(|_| row()).collect();
        let mut times = String::new();
        for hidden in &rows {
            let begin = Instant::now();
            if side {
                encoder.set_side(&[0], SideDelivery::Known)?;
            }
            encoder.push_hidden(hidden)?;
            let bytes = encoder.take_bytes()?;
            let encoded = begin.elapsed().as_nanos();
            let begin = Instant::now();
            decoder.push(&bytes)?;
            let mut received = Vec::new();
            while let DecoderPoll::Event(event) = decoder.poll()? {
                match event {
                    DecoderEvent::SideWanted { .. } => decoder.give_side(&[0])?,
                    DecoderEvent::Frames(frames) => received = frames.hidden,
                    _ => {}
                }
            }
            let decoded = begin.elapsed().as_nanos();
            assert_eq!(received.len(), width);
            times += &format!("{encoded} {decoded} ");
        }
        println!("{times}");
    }
    Ok(())
}
