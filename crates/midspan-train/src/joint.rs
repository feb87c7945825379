//! Trains host and codec together, in one quality or in several. The loss is the task's loss plus λ times the bits of Y
//! and W.
//!
//! With several qualities every pass draws one. Rounding with steps that are s times as large costs the task about s²
//! times as much, so hidden states and quantiser see a bit of that quality at λ · s²: then the same hidden states and the
//! same quantiser suit all of them. The codec's networks learn from every quality as if a bit of it were worth λ times
//! the usual bits of quality 0 over those of its own, so that one percent counts about the same in each.

use std::collections::BTreeMap;

use candle_core::{Tensor, Var};

use super::Error;
use super::base::{Host, tokens};
use super::codec::{Codec, Config};
use super::data::{Batch, HeldOut};
use super::dial::{Shares, evaluate_each, usual_bits};
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
    shares: Shares,
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
    /// Host and codec for training, and how often each of the codec's qualities is drawn: equally often if `shares` is
    /// empty.
    ///
    /// # Errors
    /// [`Error::Setting`] if the number of shares is not that of the qualities, or no share is above 0.
    pub fn new(host: Host, codec: Codec, trade: Trade, host_learns: bool, shares: &[u64]) -> Result<Self, Error> {
        let shares = Shares::new(shares, codec.qualities().len())?;
        Ok(Self { host, codec, trade, host_learns, shares })
    }

    /// Of a quality: the weight of the networks' bits relative to λ, and that of hidden states and quantiser relative to
    /// the networks'.
    fn weights(&self, index: usize) -> (f64, f64) {
        let (first, own) = (self.codec.qualities()[0], self.codec.qualities()[index]);
        let of_networks = usual_bits(first) / usual_bits(own);
        (of_networks, (own.steps / first.steps).powi(2) / of_networks)
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
        let index = self.shares.draw(batch, step);
        let (of_networks, share) = self.weights(index);
        let coded = self.codec.forward_shared(&hidden, &batch.inputs(), index, share)?;
        let last = model.forward_tail_hidden(&coded.hidden, None)?;
        let task = cross_entropy(&last, model.embedding(), batch.targets())?;
        self.trade.weighted(of_networks).loss(task, &coded.priced, step)
    }

    /// With several qualities, figures of each, with its index appended to their names.
    fn evaluate(&self, text: &HeldOut, threads: usize) -> Result<Metrics, Error> {
        if self.codec.qualities().len() > 1 {
            return evaluate_each(&self.host, &self.codec, text, threads);
        }
        measure::evaluate_one(&self.host.model, &self.codec, text, threads)
    }
}

#[cfg(test)]
mod tests {
    use super::super::base::fresh;
    use super::super::codec::network::Precision;
    use super::super::codec::quality::Quality;
    use super::super::codec::side;
    use super::super::data::Corpus;
    use super::super::optim::Settings;
    use super::super::runner::{Plan, Trainer};
    use super::super::schedule::Schedule;
    use super::*;
    use midspan_host::gpt;
    use std::time::Duration;

    fn setup(lambda: f64) -> (Trainer, Joint, BTreeMap<String, Var>, Corpus) {
        setup_of(lambda, &Config::tiny())
    }

    fn setup_of(lambda: f64, codec: &Config) -> (Trainer, Joint, BTreeMap<String, Var>, Corpus) {
        let cfg = gpt::Config::default().vocab(40).width(16).layers(2).heads(2).split(1).context(16);
        let mut rng = Rng::new(5);
        let mut vars = fresh(&cfg, &mut rng).unwrap();
        let host = Host::new(&cfg, &vars).unwrap();
        let corpus = Corpus::from_ids((0..4000u32).map(|i| (i * i / 7 + i) % 40).collect());
        let batch = corpus.batch(8, 16, &mut Rng::new(1)).unwrap();
        add_codec(codec, &host.model, &batch, &mut rng, &mut vars).unwrap();
        let float = Codec::new(codec, Precision::AsFrozen, &vars).unwrap();
        let joint = Joint::new(host, float, Trade { lambda, ramp: 10 }, true, &[]).unwrap();
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
    fn tokens_save_bits_of_what_they_decide() {
        let held_out = HeldOut { ids: (0..300u32).map(|i| (i * i / 7 + i) % 40).collect(), bytes: 300 };
        let run = |name: &str, side: Option<side::Shape>| {
            let (mut trainer, joint, _, corpus) = setup_of(0.01, &Config::tiny().side(side));
            let after = trainer.run(&joint, &corpus, &held_out, &()).unwrap();
            let dir = std::env::temp_dir().join(format!("midspan-joint-0.01-{}", std::process::id()));
            std::fs::rename(&dir, dir.with_extension(name)).unwrap();
            std::fs::remove_dir_all(dir.with_extension(name)).unwrap();
            after["bits"]
        };
        let (without, with) =
            (run("without", None), run("with", Some(side::Shape { ages: 2, vocabulary: 40, width: 8 })));
        assert!(with < 0.97 * without, "{with} {without}");
    }

    #[test]
    fn every_quality_trains_host_and_codec() {
        let quality = |steps: f64| Quality { steps, rate_weight: 0.1 };
        let side = side::Shape { ages: 2, vocabulary: 40, width: 4 };
        let cfg = Config::tiny().qualities(vec![quality(2.0), quality(0.5)]).side(Some(side));
        let (trainer, joint, vars, corpus) = setup_of(0.01, &cfg);
        // 1.58 and 3.17 bits an element, and a sixteenth of the distortion.
        let (of_networks, share) = joint.weights(1);
        assert!((of_networks - 0.5).abs() < 1e-9 && (share - 1.0 / 8.0).abs() < 1e-9 && joint.weights(0) == (1.0, 1.0));
        let batch = corpus.batch(8, 16, &mut Rng::new(1)).unwrap();
        // Past the ramp of lambda.
        let step = |quality: usize| (10..).find(|step| joint.shares.draw(&batch, *step) == quality).unwrap();
        for drawn in 0..2 {
            let (loss, metrics) = joint.loss(&batch, step(drawn)).unwrap();
            let bits = metrics["bits_y"] + metrics["bits_w"];
            let expected = metrics["loss"] + 0.01 * joint.weights(drawn).0 * bits;
            assert!((f64::from(loss.to_scalar::<f32>().unwrap()) - expected).abs() < 1e-4, "{metrics:?}");
            let grads = loss.backward().unwrap();
            for (name, var) in &vars {
                let moved = grads
                    .get(var)
                    .is_some_and(|g| g.abs().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap() > 0.0);
                let own = match drawn {
                    0 => !name.starts_with("qualities."),
                    _ => !name.starts_with("density."),
                };
                assert_eq!(moved, own, "{name} in quality {drawn}");
            }
        }
        let held_out = HeldOut { ids: (0..80).map(|i| i % 40).collect(), bytes: 300 };
        let figures = joint.evaluate(&held_out, 1).unwrap();
        assert!(figures["bits_1"] > figures["bits_0"] && figures.contains_key("loss_1"), "{figures:?}");
        assert!(Shares::new(&[1], 2).is_err());
        drop(trainer);
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
