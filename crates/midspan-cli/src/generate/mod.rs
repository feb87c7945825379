//! `midspan generate`: a split language model that talks through the codec.

mod channel;
mod head;
mod hello;
mod link;
mod live;
mod meet;
mod outcome;
mod report;
mod sample;
mod tail;

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use hello::{SECRET, Side};
use link::Link;
use live::Live;
use report::Report;
use sample::Sampler;

use super::files::print;
use super::limits::{Bounds, LimitArgs};
use super::opening::{OpeningArgs, random};
use crate::bundle::Bundle;
use midspan::adapter::hex;
use midspan::codec::EncoderConfig;
use midspan::wire::Mode;
use midspan::wire::header::{MAX_FRAMES, MAX_HORIZON};

/// Which half this process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// The blocks before the split, and the encoder.
    Head,
    /// The decoder, and the blocks after the split.
    Tail,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Head => "head",
            Role::Tail => "tail",
        }
    }
}

/// Coding mode of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeArg {
    /// One payload a frame: smallest.
    Joined,
    /// Hyper-prior and target in chunks of their own.
    Layered,
}

impl From<ModeArg> for Mode {
    fn from(mode: ModeArg) -> Self {
        match mode {
            ModeArg::Joined => Mode::Joined,
            ModeArg::Layered => Mode::Layered,
        }
    }
}

/// Generate text with a model split in two processes that talk through the codec.
#[derive(Clone, Debug, Args)]
pub(crate) struct GenerateArgs {
    /// Text to continue.
    #[arg(default_value = "It was a cold evening in November, and the old house")]
    pub prompt: String,
    /// Tokens to generate.
    #[arg(short = 'n', long, default_value_t = 160, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub tokens: u32,
    /// Coding mode.
    #[arg(long, value_enum, default_value = "joined")]
    pub mode: ModeArg,
    /// Quality index.
    #[arg(long, default_value_t = 0)]
    pub quality: u8,
    /// Weight of one bit when the head chooses Y, in squared quantiser steps of error: more saves bits, 0 sends the
    /// nearest integers. Default: the model's own weight.
    #[arg(long)]
    pub rate_weight: Option<f32>,
    /// Run one half only, for two machines. Without it both halves run here, in two processes over loopback. If the
    /// environment variable MIDSPAN_SECRET is set for both, each turns away peers that do not know it; nothing is
    /// encrypted.
    #[arg(long, value_enum)]
    pub role: Option<Role>,
    /// Wait for the other half at this address; other peers are turned away.
    #[arg(long, conflicts_with = "connect", requires = "role")]
    pub listen: Option<SocketAddr>,
    /// Connect to the other half at this address (host:port).
    #[arg(long, requires = "role")]
    pub connect: Option<String>,
    /// Folder of a model (tokenizer.json, host.safetensors, codec.safetensors). Default: the embedded model.
    #[arg(long)]
    pub model: Option<PathBuf>,
    /// Sampling temperature, 0 for greedy (the tail's setting).
    #[arg(long, default_value_t = 0.8)]
    pub temperature: f32,
    /// Sample among this many most likely tokens (the tail's setting).
    #[arg(long, default_value_t = 40)]
    pub top_k: usize,
    /// Seed of the sampling (the tail's setting).
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Seconds that one half waits for the other to connect, and for each step of the other, before it gives up.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
    /// Print the figures as JSON instead of the text and the table.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    opening: OpeningArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

/// Runs the command.
///
/// # Errors
/// One line for the user, after the text generated so far.
pub(crate) fn run(args: &GenerateArgs) -> Result<()> {
    if !args.temperature.is_finite() || args.temperature < 0.0 {
        bail!("--temperature must be 0 or more");
    }
    let bundle = Bundle::load(args.model.as_deref())?;
    if args.role == Some(Role::Tail) {
        let sampler = Sampler::new(args.temperature, args.top_k, args.seed);
        let bounds = args.limits.bounds(tail_bounds(&bundle));
        return tail::serve(&bundle, meet(args, &bundle, Role::Tail)?, sampler, bounds);
    }
    // Checked before the other half is involved.
    let prompt = head::tokens(&bundle, &args.prompt)?;
    if args.role == Some(Role::Head) {
        return report(args, &bundle, meet(args, &bundle, Role::Head)?, prompt);
    }
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen on loopback")?;
    let address = listener.local_addr().context("cannot listen on loopback")?;
    // Other programs may find the port; only the tail knows this secret.
    let secret = hex(&random::<32>()?);
    let side = Side::new(Role::Head, &bundle, secret.as_bytes())?;
    let mut tail = TailProcess::spawn(args, address, &secret)?;
    let link = meet::listen(&listener, side, Duration::from_secs(args.timeout), || tail.check());
    drop(listener);
    let outcome = link.and_then(|link| report(args, &bundle, link, prompt));
    tail.end(outcome)
}

/// The limits of a tail if the user sets none. The head of this program sends the prompt in one chunk, then one frame
/// at a time, and never rewinds. Attention over a chunk takes memory proportional to the square of its frames.
fn tail_bounds(bundle: &Bundle) -> Bounds {
    let context = u32::try_from(bundle.gpt.config().context).unwrap_or(u32::MAX);
    let mut bounds = Bounds::default();
    bounds.limits.max_frames = context;
    bounds.limits.max_rewind = 0;
    bounds.limits.target_horizon = context;
    bounds
}

fn report(args: &GenerateArgs, bundle: &Bundle, link: Link, prompt: Vec<u32>) -> Result<()> {
    let mut live = Live::new(args.json);
    let context = u32::try_from(bundle.gpt.config().context).unwrap_or(u32::MAX);
    let config = EncoderConfig::new(args.opening.identity()?)
        .mode(args.mode.into())
        .check(args.opening.check)
        .quality(args.quality)
        .host_digest(Some(bundle.host_digest))
        // The prompt is one chunk, as far as the format allows a chunk of that length, and nothing is rewound.
        .max_frames_per_chunk(context.min(MAX_FRAMES))
        .target_horizon(context.min(MAX_HORIZON))
        .max_rewind(0)
        // The input is the user's own, so it needs no limit.
        .memory_limit(usize::MAX)
        .rate_weight(args.rate_weight);
    let outcome = head::run(bundle, link, prompt, args.tokens as usize, config, &mut live);
    let written = live.finish();
    let outcome = outcome?;
    written?;
    let report = Report::new(&outcome, bundle.codec.model().hidden_width());
    if args.json {
        print(format_args!("{}\n", serde_json::to_string_pretty(&report)?))?;
    } else {
        print(format_args!("\n{}", report.table()))?;
    }
    if !report.matched {
        bail!("the tail decoded other integers than the head encoded");
    }
    Ok(())
}

/// Finds the other half as --listen or --connect says.
fn meet(args: &GenerateArgs, bundle: &Bundle, role: Role) -> Result<Link> {
    let secret = std::env::var_os(SECRET).unwrap_or_default();
    let side = Side::new(role, bundle, secret.as_encoded_bytes())?;
    let timeout = Duration::from_secs(args.timeout);
    if let Some(address) = args.listen {
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        return meet::listen(&listener, side, timeout, || Ok(()));
    }
    let Some(address) = &args.connect else { bail!("--role needs --listen or --connect") };
    meet::connect(address, &side, timeout)
}

/// The tail in a separate process, which connects to this one.
struct TailProcess(Child);

impl TailProcess {
    fn spawn(args: &GenerateArgs, address: SocketAddr, secret: &str) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        command.args(["generate", "--role", "tail", "--connect", &address.to_string()]);
        command.args(["--temperature", &args.temperature.to_string(), "--top-k", &args.top_k.to_string()]);
        command.args(["--seed", &args.seed.to_string(), "--timeout", &args.timeout.to_string()]);
        command.args(args.limits.arguments());
        if let Some(model) = &args.model {
            command.arg("--model").arg(model);
        }
        command.env(SECRET, secret);
        // Its errors are reported together with the head's, in one line.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Ok(Self(command.spawn().context("cannot start the tail's process")?))
    }

    /// Whether it may still connect.
    fn check(&mut self) -> Result<()> {
        if let Ok(Some(status)) = self.0.try_wait() {
            bail!("the tail's process ended with {status} before it connected{}", self.last_line());
        }
        Ok(())
    }

    /// Waits for the process to end, or kills it if the head has failed.
    fn end(mut self, outcome: Result<()>) -> Result<()> {
        if outcome.is_err() {
            // The tail may be waiting for a head that never connects.
            let _ = self.0.kill();
        }
        let status = self.0.wait().context("cannot wait for the tail's process")?;
        outcome?;
        if !status.success() {
            bail!("the tail's process ended with {status}{}", self.last_line());
        }
        Ok(())
    }

    /// A colon and the last line that the ended process wrote to standard error.
    fn last_line(&mut self) -> String {
        let mut said = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            // If the line cannot be read, it is only missing from the message.
            let _ = stderr.read_to_string(&mut said);
        }
        said.lines().next_back().map_or(String::new(), |line| format!(": {}", line.trim_start_matches("midspan: ")))
    }
}
