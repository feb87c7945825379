//! `midspan inspect`: what stands in a stream, without a model.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::{Value, json};

use super::files::print;
use crate::adapter::hex;
use crate::stream::{Binding, Chunk, Event, Limits, Poll, Reader, ReaderConfig, TargetStatus};
use crate::wire::Mode;

/// Show header and chunks of a Midspan file; needs no model.
#[derive(Clone, Debug, Args)]
pub struct InspectArgs {
    /// The Midspan file.
    input: PathBuf,
    /// Print JSON: one object, chunks in a list.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// One line for the user if the stream is damaged, after what stands before the fault was shown.
pub fn run(args: &InspectArgs) -> Result<()> {
    let name = args.input.display();
    let mut file = File::open(&args.input).with_context(|| name.to_string())?;
    let mut reader = Reader::new(ReaderConfig { limits: Limits::FORMAT, ..ReaderConfig::default() });
    let mut block = vec![0; 1 << 16];
    let (mut chunks, mut frames, mut bytes, mut header_bytes) = (Vec::new(), 0_u64, 0_u64, 0_u64);
    let fault = loop {
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
                    chunks.push(shown);
                } else {
                    print(format_args!("{}\n", line(&event, &shown)))?;
                }
            }
            Ok(Poll::NeedMore) => match file.read(&mut block).with_context(|| name.to_string())? {
                0 => reader.finish(),
                read => reader.push(&block[..read])?,
            },
            Ok(Poll::End) => break None,
            Err(error) => break Some(error),
        }
    };
    let per_frame = 8.0 * (bytes - header_bytes) as f64 / frames.max(1) as f64;
    if args.json {
        let error =
            fault.map(|fault| json!({"code": fault.code(), "offset": fault.offset(), "message": fault.to_string()}));
        let summary =
            json!({"bytes": bytes, "frames": frames, "bits_per_frame": per_frame, "chunks": chunks, "error": error});
        print(format_args!("{}\n", serde_json::to_string_pretty(&summary)?))?;
    } else {
        print(format_args!("{bytes} bytes, {frames} frames coded, {per_frame:.1} bits a frame without the header\n"))?;
    }
    match fault {
        Some(fault) => bail!("{name}: {fault}"),
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
    let payload: usize = event.chunk.payload_bytes().map(|bytes| bytes.len()).sum();
    let mut shown = match &event.chunk {
        Chunk::Header(header) => json!({
            "kind": "header",
            "mode": if header.mode == Mode::Joined { "joined" } else { "layered" },
            "check_bytes": header.check.bytes(),
            "fingerprint": hex(&header.fingerprint),
            "model_version": header.model_version,
            "quality": header.quality,
            "host_digest": header.host_digest.map(|digest| hex(&digest)),
            "max_frames": header.max_frames,
            "max_chunk_bytes": header.max_chunk_bytes,
            "max_rewind": header.max_rewind,
            "target_horizon": header.target_horizon,
            "file": header.file,
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
            "digest_w": format!("{:08x}", checkpoint.digest_w), "digest_y": format!("{:08x}", checkpoint.digest_y),
        }),
        Chunk::Reset(reset) => {
            json!({"kind": "reset", "index": reset.index, "epoch": reset.epoch, "quality": reset.quality})
        }
        Chunk::Rewind(rewind) => json!({"kind": "rewind", "index": rewind.index}),
        Chunk::Quality(quality) => json!({"kind": "quality", "quality": quality.quality}),
        Chunk::ModelSwitch(switch) => json!({
            "kind": "model switch", "index": switch.index, "epoch": switch.epoch, "fingerprint": hex(&switch.fingerprint), "model_version": switch.model_version,
            "quality": switch.quality,
        }),
        Chunk::ExactFrame { index, dtype, hidden, .. } => json!({
            "kind": "exact frame", "index": index, "dtype": format!("{dtype:?}"), "hidden_bytes": hidden.bytes.len(),
            "payload": payload,
        }),
        Chunk::Extension(extension) => {
            json!({"kind": "extension", "id": extension.id, "data_bytes": extension.data.len()})
        }
        Chunk::End(end) => json!({"kind": "end", "index": end.index, "frames_coded": end.frames_coded}),
        Chunk::SeekIndex(index) => json!({"kind": "seek index", "entries": index.entries.len()}),
        Chunk::Footer => json!({"kind": "footer"}),
    };
    if let Some(fields) = shown.as_object_mut() {
        fields.insert("offset".into(), json!(event.offset));
        fields.insert("bytes".into(), json!(event.bytes));
    }
    shown
}
