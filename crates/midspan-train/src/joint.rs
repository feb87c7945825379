//! Trains host and codec together. The loss is the task's loss plus λ times the bits of Y and W.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};

use super::Error;
use super::base::{Host, tokens};
use super::codec::{Codec, Config};
use super::data::{Batch, HeldOut};
use super::loss::cross_entropy;
use super::measure;
use super::rng::Rng;
use super::runner::{Metrics, Objective};
use super::trade::Trade;
use midspan_host::split::SplitHost;

/// A host and a codec at its split.
pub struct Joint {
    host: Host,
    codec: Codec,
    trade: Trade,
    /// Whether the host is trained too.
    host_learns: bool,
}

/// Mean and standard deviation of each channel of the hidden state at the split, over a batch.
///
/// # Errors
/// When the computation fails.
pub fn statistics(host: &dyn SplitHost, batch: &Batch) -> Result<(Vec<f32>, Vec<f32>), Error> {
    let hidden = host.head(&tokens(batch)?)?.detach().flatten(0, 1)?; // [rows * len, width]
    let mean = hidden.mean(0)?;
    let std = hidden.broadcast_sub(&mean)?.sqr()?.mean(0)?.sqrt()?;
    Ok((mean.to_vec1()?, std.to_vec1()?))
}

/// Adds new variables of the codec to the host's. The quantiser is fitted to the host's hidden
/// states over `batch`.
///
/// # Errors
/// When the computation fails.
pub fn add_codec(
    cfg: &Config,
    host: &dyn SplitHost,
    batch: &Batch,
    rng: &mut Rng,
    vars: &mut BTreeMap<String, Var>,
) -> Result<(), Error> {
    let (mean, std) = statistics(host, batch)?;
    for (name, t) in cfg.init(&mean, &std, rng)? {
        vars.insert(name, Var::from_tensor(&t)?);
    }
    Ok(())
}

impl Joint {
    /// Host and codec for training.
    pub fn new(host: Host, codec: Codec, trade: Trade, host_learns: bool) -> Self {
        Self { host, codec, trade, host_learns }
    }

    /// The codec.
    pub fn codec(&self) -> &Codec {
        &self.codec
    }
}

impl Objective for Joint {
    fn loss(&self, batch: &Batch, step: u64) -> Result<(Tensor, Metrics), Error> {
        let model = &self.host.model;
        let mut hidden = model.forward_head(&tokens(batch)?, None)?;
        if !self.host_learns {
            hidden = hidden.detach();
        }
        let coded = self.codec.forward(&hidden, &batch.inputs())?;
        let last = model.forward_tail_hidden(&coded.hidden, None)?;
        let task = cross_entropy(&last, model.embedding(), batch.targets())?;
        self.trade.loss(task, &coded.priced, step)
    }

    fn evaluate(&self, text: &HeldOut, threads: usize) -> Result<Metrics, Error> {
        measure::evaluate_one(&self.host.model, &self.codec, text, threads)
    }
}

#[cfg(test)]
mod tests {
    use super::super::base::fresh;
    use super::super::codec::network::Precision;
    use super::super::data::Corpus;
    use super::super::optim::Settings;
    use super::super::runner::{Plan, Trainer};
    use super::super::schedule::Schedule;
    use super::*;
    use midspan_host::gpt;
    use std::time::Duration;

    fn setup(lambda: f64) -> (Trainer, Joint, BTreeMap<String, Var>, Corpus) {
        let cfg = gpt::Config::default().vocab(40).width(16).layers(2).heads(2).split(1).context(16);
        let codec = Config::tiny();
        let mut rng = Rng::new(5);
        let mut vars = fresh(&cfg, &mut rng).unwrap();
        let host = Host::new(&cfg, &vars).unwrap();
        let corpus = Corpus::from_ids((0..4000u32).map(|i| (i * i / 7 + i) % 40).collect());
        let batch = corpus.batch(8, 16, &mut Rng::new(1)).unwrap();
        add_codec(&codec, &host.model, &batch, &mut rng, &mut vars).unwrap();
        let joint =
            Joint::new(host, Codec::new(&codec, Precision::AsFrozen, &vars).unwrap(), Trade { lambda, ramp: 10 }, true);
        let plan = Plan {
            out: std::env::temp_dir().join(format!("midspan-joint-{lambda}-{}", std::process::id())),
            schedule: Schedule { warmup: 5, start: 0, total: 60, decay: 20 },
            rows: 8,
            micro: 3,
            len: 16,
            threads: 2,
            eval_every: 0,
            log_every: 20,
            save_every: Duration::from_secs(1000),
            seed: 3,
            bfloat16: false,
        };
        (Trainer::new(plan, vars.clone(), Settings::default(), BTreeMap::new()), joint, vars, corpus)
    }

    #[test]
    fn y_starts_with_a_spread_of_two_and_every_variable_learns() {
        let (trainer, joint, vars, corpus) = setup(0.01);
        let batch = corpus.batch(8, 16, &mut Rng::new(1)).unwrap();
        let (grads, metrics) = trainer.gradients(&joint, &batch).unwrap();
        assert!((metrics["rms_y"] - 2.0).abs() < 0.2, "{}", metrics["rms_y"]);
        for name in vars.keys() {
            let g = grads.get(name).unwrap_or_else(|| panic!("{name} has no gradient"));
            assert!(g.iter().any(|v| *v != 0.0), "{name} has a zero gradient");
        }
    }

    #[test]
    fn lambda_trades_bits() {
        let held_out = HeldOut { ids: (0..300u32).map(|i| (i * i / 7 + i) % 40).collect(), bytes: 300 };
        let run = |lambda: f64| {
            let (mut trainer, joint, _, corpus) = setup(lambda);
            let before = joint.evaluate(&held_out, 2).unwrap();
            let after = trainer.run(&joint, &corpus, &held_out, &()).unwrap();
            let dir = std::env::temp_dir().join(format!("midspan-joint-{lambda}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(dir);
            (before["bits"], after["bits"])
        };
        let (start, low) = run(0.001);
        let (_, high) = run(0.5);
        assert!(low < start && high < 0.9 * low, "{start} {low} {high}");
    }
}
