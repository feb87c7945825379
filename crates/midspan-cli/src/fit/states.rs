//! Codecs learned from captured hidden states, without the host's second half.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::super::command::repeating_command;
use super::super::results::INTERRUPTED;
use super::super::terminal::{note, say};
use super::super::train::args::{FolderArgs, with_option};
use super::super::training::Training;
use super::FitArgs;
use midspan::adapter::hex;
use midspan::codec::Codec;
use midspan_host::split::SplitHost;
use midspan_train::calibrate::capture::Capture;
use midspan_train::calibrate::expected::{Expected, expected};
use midspan_train::checkpoint;
use midspan_train::fit::{Compared, Learner, Start, States};
use midspan_train::recipes;
use midspan_train::runner::Metrics;

/// The fewest captured frames of a fit: a tenth of them is two.
const LEAST: usize = 20;

/// What was learned, how, and with which outcome.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// The command that repeats this run alone, with files without their folders.
    pub command: String,
    /// Of what the states are, as their files say.
    pub host: String,
    /// Weight of the rate in the loss.
    pub lambda: f64,
    /// Whether errors were weighted by what the second half notices.
    pub sensitivity: bool,
    /// The other options. Results are distinguished by all of them.
    pub options: BTreeMap<String, String>,
    /// Seconds that learning took since it was started or last resumed.
    pub seconds: f64,
    /// Fingerprint of the codec, whose file is in the same folder.
    pub fingerprint: String,
    /// The calibration that the run began with, and what was learned from it, on held-out frames.
    pub compared: Compared,
    /// Figures of training on them.
    pub estimates: Metrics,
    /// Figures of the codec that is kept on them, in real bytes.
    pub expected: Expected,
}

/// Runs the command for captured files.
///
/// # Errors
/// One line that names what failed.
pub(super) fn run(args: &FitArgs) -> Result<()> {
    if args.start == Start::New {
        bail!("--start new: a fit from captured states begins with a calibration");
    }
    let training = Training::watch();
    let capture = Capture::load(&args.states)?;
    if capture.frames() < LEAST {
        bail!("{} captured frames: at least {LEAST} are needed, a tenth of them held out", capture.frames());
    }
    for dtype in &capture.converted {
        say(&format!("{dtype:?} hidden states are taken as f32"));
    }
    let (capture, held_out) = capture.hold_out(10);
    let vocabulary = capture.vocabulary().max(held_out.vocabulary());
    let host = [&capture.host, &capture.split].into_iter().flatten().cloned().collect::<Vec<_>>().join(", ");
    let states = States::new(capture, &held_out)?;
    args.pace.check_passes(states.context(), states.width())?;
    let mut failed = Vec::new();
    for &lambda in &args.lambda {
        let name = args.name(None, lambda);
        let one = One { args, states: &states, held_out: &held_out, host: &host, vocabulary, lambda, name: &name };
        match one.result(&training) {
            // Ctrl-C ends all runs.
            Ok(made) => one.show(&made.context(INTERRUPTED)?),
            Err(error) => {
                if args.lambda.len() > 1 {
                    note(&format!("{name}: failed"));
                }
                failed.push(format!("{name}: {error:#}"));
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!("{}", failed.join("; ")) }
}

/// One codec to be learned.
struct One<'a> {
    args: &'a FitArgs,
    states: &'a States,
    held_out: &'a Capture,
    host: &'a str,
    vocabulary: usize,
    lambda: f64,
    name: &'a str,
}

impl<'a> One<'a> {
    fn learner(&self, folder: PathBuf) -> Result<Learner<'a>> {
        let Self { args, states, .. } = *self;
        let (width, context) = (states.width(), states.context());
        let mut shape = args.shape(width);
        if self.vocabulary == 0 {
            if args.codec.side_ages.is_some_and(|ages| ages > 0) {
                bail!("--side-ages: the captured files have no ids");
            }
            shape = shape.side(None);
        }
        Ok(Learner {
            host: states,
            identity: format!("states {}", states.digest()),
            shape: recipes::shape_for(shape, width, context, self.vocabulary)?,
            start: args.start,
            map: args.map,
            rate_weight: args.codec.rate_weight,
            trade: args.codec.trade(self.lambda),
            settings: args.pace.settings()?.factors(args.codec.factors()),
            plan: args.pace.plan(&FolderArgs { out: folder, seed: args.seed }, context),
        })
    }

    /// The result that there is, or a new one; none if learning was interrupted.
    fn result(&self, training: &Training) -> Result<Option<Outcome>> {
        let asked = self.learner(PathBuf::new())?;
        asked.check()?;
        let asked = asked.options();
        if let Some(outcome) = self.args.keep.load::<Outcome>(self.name)? {
            let keys = asked.keys().map(String::as_str).filter(|key| self.args.pace.is_asked(key));
            checkpoint::check_same("the result", &outcome.options, &asked, keys)
                .map_err(with_option)
                .context("give these runs a --recipe of their own")?;
            note(&format!("{}: the result is there, nothing is learned", self.args.keep.file(self.name).display()));
            return Ok(Some(outcome));
        }
        note(self.name);
        self.args.keep.keep(self.name, |folder| self.make(folder, training))
    }

    fn make(&self, folder: PathBuf, training: &Training) -> Result<Option<Outcome>> {
        let clock = Instant::now();
        let learner = self.learner(folder)?;
        let Some(fitted) = learner.learn_from(self.states, training).map_err(with_option)? else { return Ok(None) };
        let seconds = clock.elapsed().as_secs_f64();
        let bytes = match self.host {
            "" => fitted.model.to_bytes(),
            host => fitted.model.to_bytes_for(host),
        };
        checkpoint::write_atomically(&self.model(), |file| file.write_all(&bytes))?;
        let fingerprint = hex(&fitted.model.fingerprint());
        let codec = Arc::new(Codec::new(fitted.model)?);
        let expected = expected(&codec, self.held_out, self.args.pace.threads)?;
        let (Some(expected), Some(compared)) = (expected.first(), fitted.compared) else { bail!("no quality") };
        Ok(Some(Outcome {
            command: repeating_command(&[("--lambda", self.lambda.to_string())]),
            host: self.host.to_string(),
            lambda: self.lambda,
            sensitivity: self.states.has_sensitivity(),
            options: learner.options(),
            seconds,
            fingerprint,
            compared,
            estimates: fitted.metrics,
            expected: *expected,
        }))
    }

    /// The path of its model.
    fn model(&self) -> PathBuf {
        self.args.keep.results.join(format!("{}.safetensors", self.name))
    }

    /// Prints a result in one line.
    fn show(&self, outcome: &Outcome) {
        let Expected { frames, bits, bits_in_batches, distortion, cosine, .. } = outcome.expected;
        let lost = distortion.map_or("–".into(), |share| format!("{share:.6}"));
        let Compared { calibrated, learned } = &outcome.compared;
        let kept = if outcome.compared.is_learned() { "what was learned" } else { "the calibration" };
        let weighed = if outcome.sensitivity { "" } else { ", all directions alike" };
        note(&format!(
            "{}: {bits:.1} bits a frame, {bits_in_batches:.1} in batches, distortion {lost}, cosine {cosine:.4} on \
             {frames} held-out frames; {kept} is kept: loss {:.5} learned, {:.5} calibrated{weighed}; divergence was \
             not measured: there is no second half",
            self.name, learned.loss, calibrated.loss
        ));
    }
}
