//! `midspan inspect`: shows what a stream contains, without a model.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use super::files::{Input, Printer, input_name};
use super::limits::{Bounds, LimitArgs};
use super::walk::Fault;
use midspan::adapter::hex;
use midspan::stream::{Binding, Chunk, Event, Limits, Poll, Reader, ReaderConfig, TargetStatus};
use midspan::wire::Mode;

/// Show header and chunks of a Midspan file; needs no model.
///
/// Nothing is decoded, so chunks may have as many frames as the format allows, unless --limit says otherwise.
#[derive(Clone, Debug, Args)]
pub(crate) struct InspectArgs {
    /// The Midspan file; - for standard input.
    input: PathBuf,
    /// Print JSON: one object with a list of chunks, one chunk a line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    limits: LimitArgs,
}

/// Runs the command.
///
/// # Errors
/// One line for the user if the stream is damaged, after the chunks before the fault were shown.
pub(crate) fn run(args: &InspectArgs) -> Result<()> {
    let name = input_name(&args.input);
    let mut input = Input::open(&args.input)?;
    let limits = Limits::FORMAT.max_chunk_bytes(Bounds::default().limits.max_chunk_bytes);
    let bounds = args.limits.bounds(Bounds { limits, ..Bounds::default() });
    let mut reader = Reader::new(ReaderConfig::default().limits(bounds.limits));
    let mut block = vec![0; 1 << 16];
    let (mut chunks, mut frames, mut bytes, mut header_bytes) = (0_u64, 0_u64, 0_u64, 0_u64);
    let mut out = Printer::open();
    if args.json {
        out.print("{\n\"chunks\": [")?;
    }
    let error = loop {
        match reader.poll() {
            Ok(Poll::Event(event)) => {
                bytes += event.bytes;
                match &event.chunk {
                    Chunk::Header(_) => header_bytes = event.bytes,
                    Chunk::Frame { .. } | Chunk::ExactFrame { .. } => frames += 1,
                    Chunk::Batch { frames: count, .. } => frames += u64::from(*count),
                    _ => {}
                }
                let shown = describe(&event);
                if args.json {
                    out.print(&format!("{}\n{shown}", if chunks > 0 { "," } else { "" }))?;
                } else {
                    out.print(&format!("{}\n", line(&event, &shown)))?;
                }
                chunks += 1;
            }
            Ok(Poll::NeedMore) => {
                // A stream that is still being written may pause here.
                out.pass_on()?;
                match input.read(&mut block) {
                    Ok(0) => reader.finish(),
                    Ok(read) => reader.push(&block[..read])?,
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error).context(name),
                }
            }
            Ok(Poll::End) => break None,
            Err(error) => break Some(error),
        }
    };
    let fault = error.map(|error| {
        let message = format!("{error}{}", bounds.remedy(&error, reader.header()));
        Fault { error: Some(error), message }
    });
    let per_frame = 8.0 * (bytes - header_bytes) as f64 / frames.max(1) as f64;
    if args.json {
        let error = fault.as_ref().map_or(Value::Null, Fault::json);
        out.print(&format!(
            "\n],\n\"bytes\": {bytes},\n\"frames\": {frames},\n\"bits_per_frame\": {},\n\"error\": {error}\n}}\n",
            json!(per_frame)
        ))?;
    } else {
        let rate = format!("{per_frame:.1} bits a frame without the header");
        out.print(&format!("{bytes} bytes, {frames} frames coded, {rate}\n"))?;
    }
    out.pass_on()?;
    match fault {
        Some(fault) => bail!("{name}: {}", fault.message),
        None => Ok(()),
    }
}

fn line(event: &Event, shown: &Value) -> String {
    let mut text =
        format!("{:>10}  {:>7} bytes  {:<14}", event.offset, event.bytes, shown["kind"].as_str().unwrap_or(""));
    for (key, value) in shown.as_object().into_iter().flatten() {
        if !["kind", "offset", "bytes"].contains(&key.as_str()) {
            text.push_str(&format!(" {key}={value}"));
        }
    }
    text
}

fn describe(event: &Event) -> Value {
    let digest = |digest: u32| format!("{digest:08x}");
    let payload: usize = event.chunk.payload_bytes().map(|bytes| bytes.len()).sum();
    let mut shown = match &event.chunk {
        Chunk::Header(header) => json!({
            "kind": "header",
            "mode": if header.mode == Mode::Joined { "joined" } else { "layered" },
            "check_bytes": header.check.bytes(),
            "identity": header.identity.bytes().map(|identity| hex(identity)),
            "fingerprint": hex(&header.fingerprint),
            "model_version": header.model_version,
            "quality": header.quality,
            "host_digest": header.host_digest.map(|digest| hex(&digest)),
            "max_frames": header.max_frames,
            "max_chunk_bytes": header.max_chunk_bytes,
            "max_rewind": header.max_rewind,
            "target_horizon": header.target_horizon,
            "length_offset": header.length_offset,
            "file": header.file,
            "side_indices": header.side,
            "messages": header.binding == Binding::Message,
            "producer": header.producer(),
        }),
        Chunk::Frame { index, .. } => json!({"kind": "frame", "index": index, "payload": payload}),
        Chunk::Batch { index, frames, lanes, .. } => {
            json!({"kind": "batch", "index": index, "frames": frames, "lanes": lanes.len(), "payload": payload})
        }
        Chunk::Target { frames, elements, lanes, status } => {
            let (state, index) = match status {
                TargetStatus::Usable { index, .. } => ("usable", Some(index)),
                TargetStatus::Early { index, .. } => ("early", Some(index)),
                TargetStatus::Late { index, .. } => ("late", Some(index)),
                _ => ("damaged", None),
            };
            json!({
                "kind": "target", "index": index, "frames": frames, "lanes": lanes.len(), "status": state,
                "elements": elements.as_ref().map(|elements| [elements.start, elements.end]), "payload": payload,
            })
        }
        Chunk::Checkpoint(checkpoint) => json!({
            "kind": "checkpoint", "index": checkpoint.index,
            "digest_w": digest(checkpoint.digest_w), "digest_y": digest(checkpoint.digest_y),
        }),
        Chunk::Reset(reset) => json!({
            "kind": "reset", "index": reset.index, "epoch": reset.epoch, "quality": reset.quality,
            "length_offset": reset.length_offset,
            "digest_w": digest(reset.digest_w), "digest_y": digest(reset.digest_y),
        }),
        Chunk::Rewind(rewind) => json!({"kind": "rewind", "index": rewind.index}),
        Chunk::Quality(quality) => json!({
            "kind": "quality", "quality": quality.quality, "length_offset": quality.length_offset,
        }),
        Chunk::ModelSwitch(switch) => json!({
            "kind": "model switch", "index": switch.index, "epoch": switch.epoch,
            "fingerprint": hex(&switch.fingerprint), "model_version": switch.model_version,
            "quality": switch.quality, "length_offset": switch.length_offset,
            "digest_w": digest(switch.digest_w), "digest_y": digest(switch.digest_y),
        }),
        Chunk::ExactFrame { index, dtype, hidden, .. } => json!({
            "kind": "exact frame", "index": index, "dtype": format!("{dtype:?}"), "hidden_bytes": hidden.bytes.len(),
            "payload": payload,
        }),
        Chunk::SideIndices { index, count, .. } => {
            json!({"kind": "side indices", "index": index, "frames": count, "payload": payload})
        }
        Chunk::Extension(extension) => {
            json!({"kind": "extension", "id": extension.id, "data_bytes": extension.data.len()})
        }
        Chunk::End(end) => json!({
            "kind": "end", "index": end.index, "frames_coded": end.frames_coded,
            "digest_w": digest(end.digest_w), "digest_y": digest(end.digest_y),
        }),
        Chunk::SeekIndex(index) => json!({"kind": "seek index", "entries": index.entries.len()}),
        Chunk::Footer => json!({"kind": "footer"}),
        // A kind that this program does not know.
        _ => json!({"kind": "other"}),
    };
    if let Some(fields) = shown.as_object_mut() {
        fields.insert("offset".into(), json!(event.offset));
        fields.insert("bytes".into(), json!(event.bytes));
    }
    shown
}
