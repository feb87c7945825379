//! The training loop: data parallel over threads, with a log and checkpoints from which it can be resumed.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use candle_core::{Tensor, Var};

use super::data::{Batch, Corpus, HeldOut};
use super::divergence::{Divergence, Rise};
pub use super::log::Metrics;
use super::log::{Log, Sums};
use super::optim::{Optimizer, Settings};
use super::rng::Rng;
use super::schedule::Schedule;
use super::watch::Watch;
use super::{Error, checkpoint, context};
use midspan_host::ops::cpu_values;
use midspan_host::ops::gemm::Reduced;

/// What a run minimises.
pub trait Objective: Sync {
    /// The loss of a batch, a scalar that is a mean over its positions, and figures to report, which are means too.
    /// `step` is the number of steps taken before.
    ///
    /// # Errors
    /// When the computation fails.
    fn loss(&self, batch: &Batch, step: u64) -> Result<(Tensor, Metrics), Error>;

    /// Figures over held-out text.
    ///
    /// # Errors
    /// When the computation fails.
    fn evaluate(&self, text: &HeldOut, threads: usize) -> Result<Metrics, Error>;

    /// By how much a step's loss may rise above the smoothed loss. Beyond that the run counts as diverged.
    fn most_rise(&self) -> f64 {
        3.0
    }
}

/// How to run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// Folder of checkpoint and log.
    pub out: PathBuf,
    /// Learning-rate schedule; its `total` ends the run.
    pub schedule: Schedule,
    /// Windows in a step.
    pub rows: usize,
    /// Windows in one forward and backward pass of a thread.
    pub micro: usize,
    /// Predicted positions in a window.
    pub len: usize,
    /// Threads.
    pub threads: usize,
    /// Steps between evaluations; 0 for only the last.
    pub eval_every: u64,
    /// Steps between log lines.
    pub log_every: u64,
    /// Time between checkpoints.
    pub save_every: Duration,
    /// Seed of a new run.
    pub seed: u64,
    /// Whether steps multiply in bfloat16 if the CPU can. Evaluations never do.
    pub bfloat16: bool,
}

impl Plan {
    midspan::setters! {
        out: PathBuf,
        schedule: Schedule,
        rows: usize,
        micro: usize,
        len: usize,
        threads: usize,
        eval_every: u64,
        log_every: u64,
        save_every: Duration,
        seed: u64,
        bfloat16: bool,
    }

    /// A run of `steps` steps over windows of `len` positions, with its files in the folder `out`. It uses all
    /// processors. A step has 4,096 positions, or a window for each processor if that is more. The first twentieth of
    /// the steps are warm-up, the last three quarters decay.
    pub fn new(out: PathBuf, steps: u64, len: usize) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let rows = (4096 / len.max(1)).max(threads);
        Self {
            out,
            schedule: Schedule { warmup: steps / 20, start: 0, total: steps, decay: steps / 4 * 3 },
            rows,
            micro: rows.div_ceil(threads).min(8),
            len,
            threads,
            eval_every: 0,
            log_every: 50,
            save_every: Duration::from_secs(300),
            seed: 1,
            bfloat16: false,
        }
    }
}

/// Counters that a checkpoint holds.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Steps taken.
    pub step: u64,
    /// Tokens predicted.
    pub tokens: u64,
    /// The generator that draws the next windows.
    pub rng: Rng,
    /// Sums of the figures since the log's last line.
    pub sums: Sums,
    /// The loss so far, by which divergence is detected.
    pub divergence: Divergence,
}

/// The checkpoint's name in a run's folder.
pub const LAST: &str = "last.safetensors";
/// The name of the checkpoint from before the loss rose far, kept while the loss stays high. With `.old` appended it is
/// that of another run.
pub const GOOD: &str = "good.safetensors";

/// The log's name.
pub const LOG: &str = "log.jsonl";

/// Variables, optimiser and counters of a run.
pub struct Trainer {
    plan: Plan,
    vars: BTreeMap<String, Var>,
    optimizer: Optimizer,
    progress: Progress,
    /// The loss record in the run's last checkpoint, if there is one.
    saved: Option<Divergence>,
    meta: BTreeMap<String, String>,
}

fn add(sum: &mut BTreeMap<String, Vec<f32>>, name: &str, grad: &Tensor) -> Result<(), Error> {
    let grad = grad.contiguous()?;
    let (guard, layout) = grad.storage_and_layout();
    let values = cpu_values(&guard, layout)?;
    match sum.get_mut(name) {
        Some(s) => s.iter_mut().zip(values).for_each(|(s, v)| *s += v),
        None => {
            sum.insert(name.to_string(), values.to_vec());
        }
    }
    Ok(())
}

type Gradients = (BTreeMap<String, Vec<f32>>, Metrics);

/// Locks a run's folder until the file is dropped or the process ends. Systems that cannot lock folders have no lock.
fn lock(folder: &Path) -> Result<Option<File>, Error> {
    let Ok(file) = File::open(folder) else { return Ok(None) };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(Error::InUse { folder: folder.to_path_buf() }),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

impl Trainer {
    /// A run from step 0 that trains `vars`. `meta` is written to its checkpoints.
    pub fn new(plan: Plan, vars: BTreeMap<String, Var>, settings: Settings, meta: BTreeMap<String, String>) -> Self {
        let optimizer = Optimizer::new(&vars, settings);
        let (sums, divergence) = (Sums::default(), Divergence::default());
        let progress = Progress { step: 0, tokens: 0, rng: Rng::new(plan.seed), sums, divergence };
        Self { plan, vars, optimizer, progress, saved: None, meta }
    }

    /// The counters.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Takes weights, optimiser state and counters from a checkpoint of the same run.
    ///
    /// # Errors
    /// [`Error::Lacks`] if a weight, a part of the optimiser's state or a counter is missing, [`Error::Foreign`] if there
    /// is a weight that this run does not have, [`Error::Field`] if a counter cannot be read.
    pub fn resume(&mut self, (tensors, meta): &checkpoint::Loaded) -> Result<(), Error> {
        let lacks = |part: &str| Error::lacks("the checkpoint", part);
        for (name, var) in &self.vars {
            let t = tensors.get(name).ok_or_else(|| lacks(name))?;
            var.set(t)?;
        }
        let is_foreign = |name: &&String| !name.starts_with("optimizer.") && !self.vars.contains_key(*name);
        if let Some(name) = tensors.keys().find(is_foreign) {
            return Err(Error::Foreign { name: name.clone() });
        }
        let state = checkpoint::part(tensors, "optimizer.");
        if let Some(name) = self.optimizer.lacks(&state) {
            return Err(lacks(&format!("the optimiser's state of {name}")));
        }
        self.optimizer.restore(&state)?;
        let number = |key: &str| -> Result<u64, Error> {
            let text = meta.get(key).ok_or_else(|| lacks(key))?;
            text.parse().map_err(|error| Error::field(key, error))
        };
        let log = meta.get("log").ok_or_else(|| lacks("log"))?;
        let (sums, divergence) = serde_json::from_str(log).map_err(|error| Error::field("log", error))?;
        let rng = Rng::new(number("rng")?);
        self.progress = Progress { step: number("step")?, tokens: number("tokens")?, rng, sums, divergence };
        self.saved = Some(divergence);
        Ok(())
    }

    /// Takes over another run's optimiser state for variables of the same names. The caller has to set the weights.
    ///
    /// # Errors
    /// When a tensor cannot be read.
    pub fn inherit(&mut self, (tensors, _): &checkpoint::Loaded) -> Result<(), Error> {
        Ok(self.optimizer.restore(&checkpoint::part(tensors, "optimizer."))?)
    }

    /// Writes the checkpoint `name` in the run's folder.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, name: &str) -> Result<(), Error> {
        let mut tensors: BTreeMap<String, Tensor> =
            self.vars.iter().map(|(n, v)| (n.clone(), v.as_tensor().clone())).collect();
        for (n, t) in self.optimizer.state()? {
            tensors.insert(format!("optimizer.{n}"), t);
        }
        let mut meta = self.meta.clone();
        meta.insert("step".into(), self.progress.step.to_string());
        meta.insert("tokens".into(), self.progress.tokens.to_string());
        meta.insert("rng".into(), self.progress.rng.state().to_string());
        let log = serde_json::to_string(&(&self.progress.sums, self.progress.divergence));
        meta.insert("log".into(), log.map_err(|error| Error::field("log", error))?);
        checkpoint::save(&self.plan.out.join(name), &tensors, &meta)
    }

    /// Writes the checkpoint. If the smoothed loss is more than `most` above its minimum, the run may be diverging. The
    /// last checkpoint from before that is then kept under another name, until the loss has fallen to half of `most`
    /// above its minimum, or the run has diverged.
    fn save_last(&mut self, most: f64) -> Result<(), Error> {
        let [last, good] = [LAST, GOOD].map(|name| self.plan.out.join(name));
        let is_good = |divergence: Divergence| !divergence.is_far(most);
        if !is_good(self.progress.divergence) && self.saved.is_some_and(is_good) && last.exists() && !good.exists() {
            // Checkpoints are replaced and never overwritten, so a hard link keeps this one without the space of a
            // copy.
            if std::fs::hard_link(&last, &good).is_err() {
                let bytes = std::fs::read(&last).map_err(context(&last))?;
                checkpoint::write_atomically(&good, |file| file.write_all(&bytes))?;
            }
        }
        self.save(LAST)?;
        self.saved = Some(self.progress.divergence);
        if self.progress.divergence.has_come_back(most) && good.exists() {
            std::fs::remove_file(&good).map_err(context(&good))?;
        }
        Ok(())
    }

    /// The error of a run that has diverged. Makes the last good checkpoint the last one.
    fn diverged(&mut self, rise: Rise) -> Error {
        let [last, good] = [LAST, GOOD].map(|name| self.plan.out.join(name));
        let mut rename_error = None;
        if good.exists() {
            match std::fs::rename(&good, &last) {
                Ok(()) => self.saved = Some(Divergence::default()),
                Err(error) => rename_error = Some(Box::new(context(&good)(error))),
            }
        }
        Error::Diverged { step: self.progress.step, rise, rename_error }
    }

    /// Gradients and figures of one part of a step, by passes of `micro` windows.
    fn part(&self, objective: &dyn Objective, batch: &Batch, all: usize) -> Result<Gradients, Error> {
        let mut grads = BTreeMap::new();
        let mut metrics = Metrics::new();
        for part in batch.split(self.plan.micro) {
            let weight = part.rows as f64 / all as f64;
            let (loss, figures) = objective.loss(&part, self.progress.step)?;
            let value = loss.to_scalar::<f32>()? as f64;
            let store = (loss * weight)?.backward()?;
            for (name, var) in &self.vars {
                if let Some(g) = store.get(var) {
                    add(&mut grads, name, g)?;
                }
            }
            *metrics.entry("objective".into()).or_default() += value * weight;
            for (k, v) in figures {
                *metrics.entry(k).or_default() += v * weight;
            }
        }
        Ok((grads, metrics))
    }

    /// The gradients of a batch, and its figures.
    ///
    /// # Errors
    /// Those of the objective, [`Error::EmptyBatch`], [`Error::Panicked`].
    pub fn gradients(&self, objective: &dyn Objective, batch: &Batch) -> Result<Gradients, Error> {
        let per = batch.rows.div_ceil(self.plan.threads.max(1));
        let parts = batch.split(per);
        let sums: Vec<Result<Gradients, Error>> = std::thread::scope(|s| {
            let joins: Vec<_> = parts.iter().map(|p| s.spawn(|| self.part(objective, p, batch.rows))).collect();
            joins.into_iter().map(|j| j.join().unwrap_or_else(|_| Err(Error::Panicked))).collect()
        });
        let mut total: Option<Gradients> = None;
        for sum in sums {
            let (grads, metrics) = sum?;
            match &mut total {
                None => total = Some((grads, metrics)),
                Some((g, m)) => {
                    for (name, v) in grads {
                        let to = g.entry(name).or_insert_with(|| vec![0.0; v.len()]);
                        to.iter_mut().zip(v).for_each(|(t, v)| *t += v);
                    }
                    for (k, v) in metrics {
                        *m.entry(k).or_default() += v;
                    }
                }
            }
        }
        total.ok_or(Error::EmptyBatch)
    }

    /// Trains until the schedule ends, the watcher stops it, or the run diverges. Leaves a checkpoint
    /// `last.safetensors` and the log `log.jsonl`. Returns the evaluation at the schedule's end, or no figures if it
    /// was stopped before.
    ///
    /// # Errors
    /// [`Error::Diverged`] if the loss or the gradients' norm is not finite or the loss rises too far (the last good
    /// checkpoint is then kept), [`Error::InUse`] if another run is at work in the plan's folder, [`Error::Io`] if a file
    /// cannot be written, and those of the objective.
    pub fn run(
        &mut self,
        objective: &dyn Objective,
        corpus: &Corpus,
        valid: &HeldOut,
        watch: &dyn Watch,
    ) -> Result<Metrics, Error> {
        self.run_until(objective, corpus, valid, self.plan.schedule.total, watch)
    }

    /// As [`Trainer::run`] with the same schedule, but ends at step `total`.
    ///
    /// # Errors
    /// As for [`Trainer::run`].
    pub fn run_until(
        &mut self,
        objective: &dyn Objective,
        corpus: &Corpus,
        valid: &HeldOut,
        total: u64,
        watch: &dyn Watch,
    ) -> Result<Metrics, Error> {
        std::fs::create_dir_all(&self.plan.out).map_err(context(&self.plan.out))?;
        let _lock = lock(&self.plan.out)?;
        let began = self.progress.step;
        let mut log = Log::open(&self.plan.out.join(LOG), began)?;
        let good = self.plan.out.join(GOOD);
        for name in [LAST, GOOD] {
            checkpoint::remove_parts(&self.plan.out.join(name));
        }
        if good.exists() && self.saved.is_none_or(|saved| saved.has_come_back(objective.most_rise())) {
            // It belongs to another run, or is older than the checkpoint that this run resumes from.
            std::fs::rename(&good, good.with_extension("safetensors.old")).map_err(context(&good))?;
        }
        watch.begin(total);
        let (mut saved, mut marked) = (Instant::now(), (Instant::now(), self.progress.tokens));
        while self.progress.step < total && !watch.stops() {
            let batch = corpus.batch(self.plan.rows, self.plan.len, &mut self.progress.rng)?;
            let reduced = Reduced::begin(self.plan.bfloat16);
            let (grads, mut metrics) = self.gradients(objective, &batch)?;
            let value = metrics.get("objective").copied().unwrap_or(f64::NAN);
            // The task's loss alone, if it is reported separately, because the objective rises with λ.
            let task = metrics.get("loss").copied().unwrap_or(value);
            let seen = if value.is_finite() {
                self.progress.divergence.take(task, objective.most_rise())
            } else {
                Err(Rise::Objective { loss: task, objective: value })
            };
            seen.map_err(|rise| self.diverged(rise))?;
            let rate = self.plan.schedule.rate(self.progress.step);
            let norm = self.optimizer.step(&grads, rate, self.plan.threads)?;
            if !norm.is_finite() {
                return Err(self.diverged(Rise::Gradients { loss: task, norm }));
            }
            drop(reduced);
            self.progress.step += 1;
            self.progress.tokens += (batch.rows * batch.len) as u64;
            metrics.insert("grad_norm".into(), norm);
            self.progress.sums.add(metrics);
            let step = self.progress.step;
            if step.is_multiple_of(self.plan.log_every.max(1)) {
                let seconds = marked.0.elapsed().as_secs_f64();
                let mut line = self.progress.sums.take();
                line.insert("tok_s".into(), (self.progress.tokens - marked.1) as f64 / seconds);
                line.insert("rate".into(), rate as f64);
                self.report(&mut log, "train", &line, watch)?;
                marked = (Instant::now(), self.progress.tokens);
            }
            if self.plan.eval_every > 0 && step.is_multiple_of(self.plan.eval_every) && step < total {
                let line = objective.evaluate(valid, self.plan.threads)?;
                self.report(&mut log, "eval", &line, watch)?;
                marked = (Instant::now(), self.progress.tokens);
            }
            if saved.elapsed() >= self.plan.save_every {
                self.save_last(objective.most_rise())?;
                saved = Instant::now();
            }
        }
        self.save_last(objective.most_rise())?;
        if self.progress.step < self.plan.schedule.total {
            return Ok(Metrics::new());
        }
        let line = objective.evaluate(valid, self.plan.threads)?;
        // If no step was taken, the evaluation is already in the log.
        if began < self.progress.step {
            self.report(&mut log, "eval", &line, watch)?;
        }
        Ok(line)
    }

    fn report(&self, log: &mut Log, kind: &str, line: &Metrics, watch: &dyn Watch) -> Result<(), Error> {
        log.write(kind, (self.progress.step, self.progress.tokens), line)?;
        watch.figures(kind, self.progress.step, line);
        Ok(())
    }
}
