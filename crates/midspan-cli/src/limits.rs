//! The limits of what a command accepts from an untrusted stream.

use std::fmt::{self, Display};

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;

use midspan::codec::DecoderConfig;
use midspan::error::{Error, ErrorKind};
use midspan::stream::Limits;
use midspan::wire::StreamHeader;

/// The limits of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// What the container accepts.
    pub limits: Limits,
    /// Bytes that the decoder may keep.
    pub memory: usize,
    /// Bytes of rows that may be written.
    pub output: u64,
}

impl Default for Bounds {
    /// Limits that are safe for any stream: the library's own (256 frames and 4 MiB a chunk, 1,024 frames of rewind and
    /// of horizon, 1 MiB of early targets, 64 MiB of memory) and 1 GiB of rows.
    fn default() -> Self {
        Self { limits: Limits::default(), memory: DecoderConfig::default().memory_limit, output: 1 << 30 }
    }
}

/// One of the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Setting {
    Frames(u32),
    Bytes(u32),
    Rewind(u32),
    Horizon(u32),
    Early(u32),
    Memory(usize),
    Output(u64),
}

impl Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Frames(number) => write!(f, "frames={number}"),
            Setting::Bytes(number) => write!(f, "bytes={number}"),
            Setting::Rewind(number) => write!(f, "rewind={number}"),
            Setting::Horizon(number) => write!(f, "horizon={number}"),
            Setting::Early(number) => write!(f, "early={number}"),
            Setting::Memory(number) => write!(f, "memory={number}"),
            Setting::Output(number) => write!(f, "output={number}"),
        }
    }
}

/// Limits on the command line.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct LimitArgs {
    /// Accept more or less than by default: frames=N in a chunk (256), bytes=N in a chunk (4M), rewind=N frames (1024),
    /// horizon=N frames that wait for their target (1024), early=N bytes of targets that wait for their frames (1M),
    /// memory=N bytes of the decoder (64M), output=N bytes of rows (1G). Separate several with commas. N may end in K,
    /// M or G.
    #[arg(long = "limit", value_name = "NAME=N", value_delimiter = ',', value_parser = setting)]
    limits: Vec<Setting>,
}

/// Reads `frames=4096`.
fn setting(text: &str) -> Result<Setting> {
    let (name, number) = text.split_once('=').context("a limit is NAME=N")?;
    let digits = number.trim_end_matches(['K', 'M', 'G']);
    let shift = match &number[digits.len()..] {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => bail!("{number:?} is no number"),
    };
    let number = digits.parse::<u64>().ok().and_then(|value| value.checked_mul(1 << shift));
    let number = number.with_context(|| format!("{digits:?} is no number that a limit can have"))?;
    let narrow = || u32::try_from(number).map_err(|_| anyhow!("{number} is more than any stream may declare"));
    match name {
        "frames" => narrow().map(Setting::Frames),
        "bytes" => narrow().map(Setting::Bytes),
        "rewind" => narrow().map(Setting::Rewind),
        "horizon" => narrow().map(Setting::Horizon),
        "early" => narrow().map(Setting::Early),
        "memory" => Ok(Setting::Memory(usize::try_from(number)?)),
        "output" => Ok(Setting::Output(number)),
        _ => bail!("the limits are frames, bytes, rewind, horizon, early, memory and output"),
    }
}

impl LimitArgs {
    /// The arguments that give another process of this program the same limits.
    pub(crate) fn arguments(&self) -> impl Iterator<Item = String> {
        self.limits.iter().map(|setting| format!("--limit={setting}"))
    }

    /// The limits that apply, given `bounds` as the defaults.
    pub(crate) fn bounds(&self, mut bounds: Bounds) -> Bounds {
        for setting in &self.limits {
            match *setting {
                Setting::Frames(frames) => bounds.limits.max_frames = frames,
                Setting::Bytes(bytes) => bounds.limits.max_chunk_bytes = bytes,
                Setting::Rewind(frames) => bounds.limits.max_rewind = frames,
                Setting::Horizon(frames) => bounds.limits.target_horizon = frames,
                Setting::Early(bytes) => bounds.limits.early_bytes = bytes,
                Setting::Memory(bytes) => bounds.memory = bytes,
                Setting::Output(bytes) => bounds.output = bytes,
            }
        }
        bounds
    }
}

impl Bounds {
    /// A decoder's settings under these limits.
    pub(crate) fn decoder(&self) -> DecoderConfig {
        DecoderConfig::default().limits(self.limits).memory_limit(self.memory)
    }

    /// A text to append to an error: which option to use so that the stream is accepted. It is empty if no option
    /// helps. An option other than `memory` is named only if the stream's header, `declared`, allows more than the
    /// limit of this program.
    pub(crate) fn remedy(&self, error: &Error, declared: Option<&StreamHeader>) -> String {
        if error.kind() == ErrorKind::MemoryLimit {
            return format!("; --limit memory=N raises it, here it is {}", self.memory);
        }
        let Some(declared) = declared.map(Limits::declared) else { return String::new() };
        let raise = |name: &str, own: u32, declared: u32| match own < declared {
            true => format!("; --limit {name}={declared} allows what the stream declares, here it is {own}"),
            false => String::new(),
        };
        match error.kind() {
            // In layered mode a chunk cannot have more frames than may wait for their target.
            ErrorKind::TooManyFrames => {
                let frames = raise("frames", self.limits.max_frames, declared.max_frames);
                frames + &raise("horizon", self.limits.target_horizon, declared.target_horizon)
            }
            ErrorKind::ChunkTooLong => raise("bytes", self.limits.max_chunk_bytes, declared.max_chunk_bytes),
            ErrorKind::RewindTooFar => raise("rewind", self.limits.max_rewind, declared.max_rewind),
            ErrorKind::TargetOverdue | ErrorKind::TooManyCheckpoints => {
                raise("horizon", self.limits.target_horizon, declared.target_horizon)
            }
            _ => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_others_refused() {
        assert_eq!(setting("frames=300").unwrap(), Setting::Frames(300));
        assert_eq!(setting("output=3G").unwrap(), Setting::Output(3 << 30));
        assert_eq!(setting("bytes=2K").unwrap(), Setting::Bytes(2_048));
        for right in ["frames=1", "bytes=2", "rewind=3", "horizon=4", "early=5", "memory=6", "output=7"] {
            assert_eq!(setting(right).unwrap().to_string(), right);
        }
        for wrong in ["frames", "frames=", "frames=-1", "frames=1KK", "frames=8G", "output=99999999999G", "depth=1"] {
            assert!(setting(wrong).is_err(), "{wrong}");
        }
    }
}
