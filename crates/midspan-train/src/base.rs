//! Training of the host alone: next-token prediction.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;

use super::Error;
use super::data::{Batch, HeldOut};
use super::loss::{cross_entropy, losses};
use super::parallel::in_threads;
use super::rng::Rng;
use super::runner::{Metrics, Objective};
use midspan_host::gpt::{Config, Gpt};

/// A host and its variables, named `host.…`.
pub struct Host {
    /// The model that uses the variables.
    pub model: Gpt,
}

/// A builder whose tensors are the variables with this prefix.
pub fn builder(vars: &BTreeMap<String, Var>, prefix: &str) -> VarBuilder<'static> {
    let tensors: HashMap<String, Tensor> = vars
        .iter()
        .filter_map(|(n, v)| n.strip_prefix(prefix).map(|n| (n.to_string(), v.as_tensor().clone())))
        .collect();
    VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)
}

/// New variables `host.…`.
///
/// # Errors
/// When a tensor cannot be made.
pub fn fresh(cfg: &Config, rng: &mut Rng) -> Result<BTreeMap<String, Var>, Error> {
    let mut vars = BTreeMap::new();
    for (name, t) in cfg.init(&mut || rng.normal())? {
        vars.insert(format!("host.{name}"), Var::from_tensor(&t)?);
    }
    Ok(vars)
}

/// The inputs of a batch as `[rows, len]` ids.
///
/// # Errors
/// When the tensor cannot be made.
pub fn tokens(batch: &Batch) -> Result<Tensor, Error> {
    Ok(Tensor::from_vec(batch.inputs(), (batch.rows, batch.len), &Device::Cpu)?)
}

impl Host {
    /// The host that uses the variables `host.…`.
    ///
    /// # Errors
    /// When a variable is missing.
    pub fn new(cfg: &Config, vars: &BTreeMap<String, Var>) -> Result<Self, Error> {
        Ok(Self { model: Gpt::new(cfg.clone(), builder(vars, "host."))? })
    }
}

/// Loss in nats per token, perplexity and bits per byte from a sum of nats.
pub fn figures(prefix: &str, nats: f64, text: &HeldOut, out: &mut Metrics) {
    let tokens = text.ids.len().saturating_sub(1).max(1) as f64;
    out.insert(format!("{prefix}loss"), nats / tokens);
    out.insert(format!("{prefix}ppl"), (nats / tokens).exp());
    out.insert(format!("{prefix}bpb"), nats / std::f64::consts::LN_2 / text.bytes.max(1) as f64);
}

/// The loss in nats of the counted predictions of a window, given its hidden states `[1, T, width]`
/// after the second half.
fn counted_loss(model: &Gpt, hidden: &Tensor, ids: &[u32], counted: usize) -> Result<f64, Error> {
    let at = ids.len() - 1 - counted;
    let each = losses(&hidden.narrow(1, at, counted)?, model.embedding(), &ids[at + 1..])?;
    Ok(each.iter().map(|&v| v as f64).sum())
}

impl Objective for Host {
    fn loss(&self, batch: &Batch, _: u64) -> Result<(Tensor, Metrics), Error> {
        let hidden = self.model.forward_head(&tokens(batch)?, None)?;
        let last = self.model.forward_tail_hidden(&hidden, None)?;
        Ok((cross_entropy(&last, self.model.embedding(), batch.targets())?, Metrics::new()))
    }

    fn evaluate(&self, text: &HeldOut, threads: usize) -> Result<Metrics, Error> {
        let model = &self.model;
        let context = model.config().context;
        let windows = text.windows(context, (context / 2).max(1));
        let nats = in_threads(&windows, threads, |(ids, counted)| {
            let inputs = Tensor::from_slice(&ids[..ids.len() - 1], (1, ids.len() - 1), &Device::Cpu)?;
            let hidden = model.forward_head(&inputs, None)?.detach();
            let last = model.forward_tail_hidden(&hidden, None)?;
            counted_loss(model, &last, ids, *counted)
        })?;
        let mut out = Metrics::new();
        figures("", nats.iter().sum(), text, &mut out);
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::super::data::Corpus;
    use super::super::divergence::Rise;
    use super::super::optim::Settings;
    use super::super::runner::{Plan, Trainer};
    use super::super::schedule::Schedule;
    use super::*;
    use std::path::PathBuf;
    use std::time::Duration;

    fn tiny() -> Config {
        Config::default().vocab(40).width(16).layers(2).heads(2).split(1).context(16)
    }

    fn trainer(dir: &str, total: u64, threads: usize) -> (Trainer, Host, BTreeMap<String, Var>) {
        trainer_saving(dir, total, threads, Duration::ZERO)
    }

    fn trainer_saving(
        dir: &str,
        total: u64,
        threads: usize,
        save_every: Duration,
    ) -> (Trainer, Host, BTreeMap<String, Var>) {
        let vars = fresh(&tiny(), &mut Rng::new(5)).unwrap();
        let host = Host::new(&tiny(), &vars).unwrap();
        let plan = Plan {
            out: std::env::temp_dir().join(format!("midspan-{dir}-{}", std::process::id())),
            schedule: Schedule { warmup: 5, start: 0, total, decay: 10 },
            rows: 8,
            micro: 3,
            len: 16,
            threads,
            eval_every: 0,
            log_every: 10,
            save_every,
            seed: 3,
            bfloat16: false,
        };
        (Trainer::new(plan, vars.clone(), Settings::default(), BTreeMap::new()), host, vars)
    }

    fn corpus() -> Corpus {
        Corpus::from_ids((0..4000u32).map(|i| (i * i / 7 + i) % 40).collect())
    }

    #[test]
    fn every_variable_receives_a_gradient_that_threads_do_not_change() {
        let (two, host, vars) = trainer("a", 1, 2);
        let batch = corpus().batch(8, 16, &mut Rng::new(1)).unwrap();
        let (grads, _) = two.gradients(&host, &batch).unwrap();
        for name in vars.keys() {
            let g = grads.get(name).unwrap_or_else(|| panic!("{name} has no gradient"));
            assert!(g.iter().any(|v| *v != 0.0), "{name} has a zero gradient");
        }
        // The mean over the whole batch, without threads and parts.
        let (loss, _) = host.loss(&batch, 0).unwrap();
        let store = loss.backward().unwrap();
        for (name, var) in &vars {
            let want = store.get(var).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let top = want.iter().fold(0f32, |m, v| m.max(v.abs()));
            for (a, b) in grads[name].iter().zip(&want) {
                assert!((a - b).abs() < 1e-3 * top + 1e-7, "{name}: {a} {b}");
            }
        }
    }

    /// A host that reports another loss than its own, and whose own loss is multiplied.
    struct Astray(Host, fn(u64) -> f64, f64);

    impl Objective for Astray {
        fn loss(&self, batch: &Batch, step: u64) -> Result<(Tensor, Metrics), Error> {
            let (loss, _) = self.0.loss(batch, step)?;
            Ok(((loss * self.2)?, Metrics::from([("loss".into(), (self.1)(step))])))
        }

        fn evaluate(&self, text: &HeldOut, threads: usize) -> Result<Metrics, Error> {
            self.0.evaluate(text, threads)
        }
    }

    /// A run of 900 steps of [`Astray`] in a separate folder, and the state of its checkpoints.
    struct AstrayRun {
        trainer: Trainer,
        objective: Astray,
        dir: PathBuf,
    }

    impl AstrayRun {
        fn new(name: &str, save_every: Duration, said: fn(u64) -> f64) -> Self {
            let (trainer, host, _) = trainer_saving(name, 900, 1, save_every);
            let dir = std::env::temp_dir().join(format!("midspan-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            Self { trainer, objective: Astray(host, said, 1.0), dir }
        }

        fn until(&mut self, step: u64) -> Result<Metrics, Error> {
            let held_out = HeldOut { ids: (0..200u32).map(|i| (i * i / 7 + i) % 40).collect(), bytes: 200 };
            self.trainer.run_until(&self.objective, &corpus(), &held_out, step, &())
        }

        /// The steps of the last checkpoint and of the good one.
        fn steps(&self) -> [Option<u64>; 2] {
            ["last.safetensors", "good.safetensors"].map(|name| {
                let path = self.dir.join(name);
                let step = |path| super::super::checkpoint::load(path).unwrap().1["step"].parse().unwrap();
                path.exists().then(|| step(&path))
            })
        }
    }

    impl Drop for AstrayRun {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }

    #[test]
    fn a_checkpoint_from_before_the_loss_rose_stays_until_it_has_come_back() {
        // The loss rises by 4 in 80 steps, stays there, and falls again.
        let said = |step| 2.0 + 0.05 * (step as f64).min(80.0) - if step > 250 { 4.0 } else { 0.0 };
        let mut run = AstrayRun::new("back", Duration::ZERO, said);
        run.until(250).unwrap();
        assert!(matches!(run.steps(), [Some(250), Some(60..200)]), "{:?}", run.steps());
        run.until(400).unwrap();
        assert_eq!(run.steps(), [Some(400), None]);
    }

    #[test]
    fn a_loss_that_comes_back_a_little_leaves_the_good_checkpoint() {
        let said = |step| match step {
            0..200 => (2.0 + 0.05 * (step as f64 - 50.0)).clamp(2.0, 5.9),
            _ if step % 200 < 100 => 5.9,
            _ => 4.6,
        };
        let mut run = AstrayRun::new("waves", Duration::ZERO, said);
        run.until(700).unwrap();
        assert!(matches!(run.steps(), [Some(700), Some(60..200)]), "{:?}", run.steps());
    }

    #[test]
    fn a_run_that_diverges_slowly_leaves_the_good_checkpoint_as_its_last() {
        let mut run = AstrayRun::new("slow", Duration::ZERO, |step| 2.0 + 0.03 * step as f64);
        let error = run.until(900).unwrap_err();
        let Error::Diverged { step: 201..900, rise: Rise::Slow { smooth, lowest, .. }, rename_error: None } = error
        else {
            panic!("{error:?}")
        };
        assert!(smooth > lowest + 6.0, "{smooth} {lowest}");
        assert!(matches!(run.steps(), [Some(60..200), None]), "{:?}", run.steps());
    }

    #[test]
    fn no_good_checkpoint_is_anothers_or_was_far_already() {
        let mut run = AstrayRun::new("others", Duration::MAX, |step| 2.0 + 0.03 * step as f64);
        for name in ["good.safetensors", "last.safetensors"] {
            std::fs::write(run.dir.join(name), "another's").unwrap();
        }
        for step in [200, 201] {
            run.until(step).unwrap();
            assert_eq!(run.steps(), [Some(step), None]);
        }
        assert!(matches!(run.until(900), Err(Error::Diverged { rename_error: None, .. })));
        assert_eq!(run.steps(), [Some(201), None]);
        assert_eq!(std::fs::read_to_string(run.dir.join("good.safetensors.old")).unwrap(), "another's");
    }

    #[test]
    fn gradients_whose_norm_is_not_finite_are_divergence() {
        let mut run = AstrayRun::new("steep", Duration::MAX, |_| 2.0);
        run.objective.2 = 1e24;
        let error = run.until(900).unwrap_err();
        assert!(matches!(error, Error::Diverged { step: 0, rise: Rise::Gradients { loss: 2.0, .. }, .. }), "{error:?}");
        assert!(error.to_string().starts_with("diverged at step 0: loss 2, gradients of norm "), "{error}");
    }

    #[test]
    fn a_good_checkpoint_that_cannot_be_moved_is_told() {
        let mut run = AstrayRun::new("stuck", Duration::ZERO, |step| 2.0 + 0.05 * (step as f64).min(80.0));
        run.until(250).unwrap();
        // Nothing can be renamed to the name of a folder that is not empty.
        let last = run.dir.join("last.safetensors");
        std::fs::remove_file(&last).unwrap();
        std::fs::create_dir_all(last.join("more")).unwrap();
        run.objective.1 = |_| f64::NAN;
        let error = run.until(900).unwrap_err();
        let Error::Diverged {
            step: 250,
            rise: Rise::NotFinite { before: Some(_), .. },
            rename_error: Some(rename_error),
        } = &error
        else {
            panic!("{error:?}")
        };
        assert!(matches!(&**rename_error, Error::Io { path, .. } if path.ends_with("good.safetensors")), "{error:?}");
        let causes = std::iter::successors(std::error::Error::source(&error), |&cause| cause.source());
        let line = causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"));
        assert!(line.starts_with("diverged at step 250: loss NaN, before "), "{line}");
        assert_eq!(line.matches("; its good checkpoint stays: ").count(), 1, "{line}");
        assert_eq!(line.matches("good.safetensors").count(), 1, "{line}");
        assert!(run.dir.join("good.safetensors").exists());
    }

    #[test]
    fn learns_and_resumes_where_it_stopped() {
        let held_out = HeldOut { ids: (0..200u32).map(|i| (i * i / 7 + i) % 40).collect(), bytes: 200 };
        let (mut whole, host, vars) = trainer("b", 40, 2);
        let before = host.evaluate(&held_out, 2).unwrap()["loss"];
        whole.run(&host, &corpus(), &held_out, &()).unwrap();
        let after = host.evaluate(&held_out, 2).unwrap()["loss"];
        assert!(after < before - 0.3, "{before} {after}");
        let want = vars["host.embed.weight"].flatten_all().unwrap().to_vec1::<f32>().unwrap();

        let (mut first, host, _) = trainer("c", 40, 2);
        let dir = std::env::temp_dir().join(format!("midspan-c-{}", std::process::id()));
        first.run_until(&host, &corpus(), &held_out, 17, &()).unwrap();
        let loaded = super::super::checkpoint::load(&dir.join("last.safetensors")).unwrap();
        let (mut second, host, vars) = trainer("c", 40, 2);
        let mut foreign = loaded.clone();
        foreign.0.insert("host.more".into(), vars["host.embed.weight"].as_tensor().clone());
        assert!(matches!(second.resume(&foreign), Err(Error::Foreign { name }) if name == "host.more"));
        second.resume(&loaded).unwrap();
        assert_eq!(second.progress().step, 17);
        second.run(&host, &corpus(), &held_out, &()).unwrap();
        let got = vars["host.embed.weight"].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(got, want);
        // The smoothed loss, by which divergence is detected, is resumed too.
        let smooth = |trainer: &Trainer| trainer.progress().divergence.smooth.unwrap();
        assert!((smooth(&second) - smooth(&whole)).abs() < 1e-12);
        // The log covers the whole run, and a run that has ended adds nothing to it.
        second.run(&host, &corpus(), &held_out, &()).unwrap();
        let log = |name: &str, kind: &str| -> Vec<BTreeMap<String, f64>> {
            let dir = std::env::temp_dir().join(format!("midspan-{name}-{}", std::process::id()));
            let text = std::fs::read_to_string(dir.join("log.jsonl")).unwrap();
            let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            let figures = |line: serde_json::Value| {
                let fields =
                    line.as_object().unwrap().iter().filter(|(name, _)| !["kind", "tok_s"].contains(&&name[..]));
                fields.map(|(name, value)| (name.clone(), value.as_f64().unwrap())).collect()
            };
            lines.filter(|line| line["kind"] == kind).map(figures).collect()
        };
        let all = |name: &str| [log(name, "train"), log(name, "eval")].concat();
        let (parts, at_once) = (all("c"), all("b"));
        assert_eq!((parts.len(), at_once.len()), (5, 5));
        for (part, whole) in parts.iter().zip(&at_once) {
            assert!(part.keys().eq(whole.keys()));
            assert!(
                part.iter().zip(whole).all(|(a, b)| (a.1 - b.1).abs() < 1e-12 * b.1.abs().max(1.0)),
                "{part:?} {whole:?}"
            );
        }
        for d in ["b", "c"] {
            let _ = std::fs::remove_dir_all(std::env::temp_dir().join(format!("midspan-{d}-{}", std::process::id())));
        }
    }
}
