//! Learns a frozen codec from a host's hidden states.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::Var;
use serde::{Deserialize, Serialize};

use super::{Fit, States, evaluate_states, maps, scale_steps, start};
use crate::base::tokens;
use crate::calibrate::capture::Capture;
use crate::calibrate::{Calibration, MapKind};
use crate::codec::fixed::SparsePair;
use crate::codec::network::{Precision, UNIT};
use crate::codec::quality::Quality;
use crate::codec::{Codec, Config};
use crate::data::{Batch, Corpus, HeldOut};
use crate::freeze::codec::{FloatCodec, FloatMaps, Sequence};
use crate::freeze::freeze;
use crate::joint::add_codec;
use crate::measure::frozen::FrozenLink;
use crate::measure::{Link, evaluate};
use crate::optim::Settings;
use crate::rng::Rng;
use crate::runner::{LAST, Metrics, Plan, Trainer};
use crate::trade::Trade;
use crate::watch::Watch;
use crate::{Error, checkpoint, gradient};
use midspan::adapter::hex;
use midspan::codec::{self as frozen, EncoderConfig};
use midspan::model::CodecModel;
use midspan::wire::{CheckWidth, Identity};
use midspan_host::split::SplitHost;

/// Number of scales of the target's tables.
const SCALES: usize = 96;
/// Number of sequences from which steps, maps and fixed-point scales are computed.
const CALIBRATION: usize = 16;
/// The most tokens whose frames a start is calibrated to.
const CAPTURED: usize = 1 << 16;
/// The most tokens on which its distortion is chosen.
const JUDGED: usize = 1 << 12;
/// Factor of the learning rate of g_y's blocks that begin with a calibration: a large constant that they pass on must not
/// leak into the other sums.
const BLOCK_RATE: f32 = 0.1;
/// Factor of the learning rate of linear maps. They begin near their best values. At the full rate they would deviate
/// from each other's inverse by more than a step before the other variables have learned anything.
const MAP_RATE: f32 = 0.03;

/// What a fit begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Start {
    /// A calibration, with its linear maps. Of it and of what was learned the better one is kept.
    #[default]
    Calibration,
    /// New weights.
    New,
}

/// A codec to be learned for a host that does not change.
pub struct Learner<'a> {
    /// The host, cut at its split.
    pub host: &'a dyn SplitHost,
    /// Identifies host and split, so that an unfinished run of another host or split is not resumed.
    pub identity: String,
    /// The codec's shape. With a calibration, [`Learner::map`] says which linear maps it has, whatever this says.
    pub shape: Config,
    /// What it begins with.
    pub start: Start,
    /// The maps of a calibration that it begins with. Full ones, which are learned, by default up to a width of 1,024;
    /// above, sparse ones, which stay as they are with the quantiser: bits alone are then learned, by h, g_y, the embedding
    /// of tokens and the densities of W.
    pub map: Option<MapKind>,
    /// Weight of one bit when Y is chosen, in squared steps.
    pub rate_weight: f64,
    /// The price of a bit in the loss.
    pub trade: Trade,
    /// The optimiser's settings. Linear maps without their own factor get 0.03 of the others' rate. A fit that begins with
    /// a calibration uses AdamW for everything.
    pub settings: Settings,
    /// How to run. Windows have at most the host's context length.
    pub plan: Plan,
}

/// A frozen codec on held-out text, from real streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Bits a token.
    pub bits: f64,
    /// Nats by which the predictions change. It is not measured without the second half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub divergence: Option<f64>,
    /// Share of positions where the likeliest token stays the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// Half the weighted squared error, without the second half.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<f64>,
    /// The divergence or the error, and λ times the bits.
    pub loss: f64,
}

/// The calibration that a fit began with, and what was learned from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// The calibration.
    pub calibrated: Judged,
    /// What was learned.
    pub learned: Judged,
}

impl Compared {
    /// Whether what was learned is better.
    pub fn is_learned(&self) -> bool {
        self.learned.loss < self.calibrated.loss
    }
}

/// What was learned.
pub struct Fitted {
    /// The frozen codec: the calibration that it began with if that is better on held-out text.
    pub model: CodecModel,
    /// Both, if it began with a calibration.
    pub compared: Option<Compared>,
    /// Figures on held-out text: rates in bits a token by exact densities, divergence, agreement, perplexities.
    pub metrics: Metrics,
    /// Tokens of the run.
    pub tokens: u64,
}

impl Learner<'_> {
    /// Refuses settings that cannot be learned, before any work is done.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first that is wrong.
    pub fn check(&self) -> Result<(), Error> {
        self.shape().check(self.host.width())?;
        if self.start == Start::Calibration {
            start::check(&self.shape, self.host.width(), self.map_kind())?;
        } else if self.map.is_some() {
            return Err(Error::setting("the kind of the maps", "given", "left out: only a calibration has a choice"));
        }
        if !(self.rate_weight >= 0.0 && self.rate_weight.is_finite()) {
            return Err(Error::setting("the rate weight", self.rate_weight, "0 or more"));
        }
        self.trade.check()
    }

    /// The shape, with what a start needs.
    fn shape(&self) -> Config {
        match self.start {
            Start::Calibration => self.shape.clone().maps(self.map_kind() == MapKind::Full).units(true),
            Start::New => self.shape.clone(),
        }
    }

    /// The kind of a calibration's maps.
    fn map_kind(&self) -> MapKind {
        self.map.unwrap_or_else(|| MapKind::of_width(self.host.width()))
    }

    /// Names and values of all options that determine the codec, except the text.
    pub fn options(&self) -> BTreeMap<String, String> {
        let Self { trade, plan, .. } = self;
        let mut fields = vec![
            ("host", self.identity.clone()),
            ("codec", self.shape().recorded()),
            ("lambda", trade.lambda.to_string()),
            ("ramp", trade.ramp.to_string()),
            ("rate_weight", self.rate_weight.to_string()),
            ("seed", plan.seed.to_string()),
            ("schedule", format!("{:?}", plan.schedule)),
            ("windows", format!("{} of {}", plan.rows, plan.len)),
            ("optimizer", format!("{:?}", self.settings())),
            ("bfloat16", plan.bfloat16.to_string()),
        ];
        match self.start {
            Start::Calibration => {
                fields.push(("start", "calibration".into()));
                if self.map_kind() == MapKind::Sparse {
                    fields.push(("map", "sparse".into()));
                }
            }
            Start::New if self.shape.maps => fields.push(("maps", maps::BEGINNING.into())),
            Start::New => {}
        }
        fields.into_iter().map(|(name, value)| (name.to_string(), value)).collect()
    }

    fn settings(&self) -> Settings {
        let mut settings = self.settings.clone();
        if self.start == Start::Calibration {
            // Muon turns every direction of a matrix alike, those that are right already too: scales run to their bounds
            // within ten steps.
            settings.muon = false;
            let own = settings.factors.iter().find(|(prefix, _)| prefix.is_empty()).map_or(1.0, |(_, rate)| *rate);
            let slow = [(format!("g_y.{UNIT}"), 0.0), ("g_y.blocks.".into(), BLOCK_RATE * own)];
            settings.factors.splice(0..0, slow);
        }
        if self.shape().maps {
            let factors = &mut settings.factors;
            let others = factors.iter().position(|(prefix, _)| prefix.is_empty());
            let rate = MAP_RATE * others.map_or(1.0, |at| factors[at].1);
            let own = ["quantiser.analysis", "quantiser.synthesis"].map(|name| (name.to_string(), rate));
            // The first factor that matches is used.
            let at = others.unwrap_or(factors.len());
            factors.splice(at..at, own);
        }
        settings
    }

    /// Learns on windows of `corpus` and freezes the codec. Resumes an unfinished run of the same options and text in
    /// the plan's folder. Returns `None` if the watcher ended it.
    ///
    /// # Errors
    /// What [`Learner::check`] refuses; [`Error::NoGradient`] for a host from which nothing can be learned;
    /// [`Error::Differs`] if the checkpoint belongs to another run; [`Error::Io`] if a file cannot be written;
    /// [`Error::Diverged`]; and [`Error::Factor`] or [`Error::Model`] if the model file cannot hold the network.
    pub fn learn(&self, corpus: &Corpus, held_out: &HeldOut, watch: &dyn Watch) -> Result<Option<Fitted>, Error> {
        self.learn_until((corpus, held_out), None, self.plan.schedule.total, watch)
    }

    /// Learns from captured hidden states, which are also [`Learner::host`], and freezes the codec.
    ///
    /// # Errors
    /// Those of [`Learner::learn`]; [`Error::Setting`] for a fit that begins with new weights.
    pub fn learn_from(&self, states: &States, watch: &dyn Watch) -> Result<Option<Fitted>, Error> {
        if self.start == Start::New {
            return Err(Error::setting("the start of a fit from captured states", "new weights", "a calibration"));
        }
        self.learn_until((&states.corpus(), &states.held_out()), Some(states), self.plan.schedule.total, watch)
    }

    fn learn_until(
        &self,
        (corpus, held_out): (&Corpus, &HeldOut),
        states: Option<&States>,
        step: u64,
        watch: &dyn Watch,
    ) -> Result<Option<Fitted>, Error> {
        self.check()?;
        let Self { host, trade, plan, .. } = self;
        let shape = &self.shape();
        let batch = corpus.batch(CALIBRATION, plan.len, &mut Rng::new(plan.seed))?;
        if states.is_none() {
            gradient::check(*host, &batch, &mut Rng::new(plan.seed))?;
        }
        let mut vars = BTreeMap::new();
        add_codec(shape, *host, &batch, &mut Rng::new(plan.seed), &mut vars)?;
        let calibrated = match self.start {
            Start::Calibration => Some(self.begin(corpus, states, &vars)?),
            Start::New if shape.maps => {
                maps::begin(*host, &batch, plan.seed, &vars)?;
                None
            }
            Start::New => None,
        };
        let sparse = calibrated.as_ref().and_then(start::sparse);
        let fit = |vars: &BTreeMap<String, Var>| -> Result<Fit<'_>, Error> {
            let mut codec = Codec::new(shape, Precision::AsFrozen, vars)?.with_rate_weight(self.rate_weight);
            if let Some(maps) = &sparse {
                codec = codec.with_sparse(maps.clone())?;
            }
            Ok(match states {
                Some(states) => Fit::from_states(states, codec, *trade),
                None => Fit::new(*host, codec, *trade),
            })
        };
        if self.start == Start::New {
            scale_steps(&vars, fit(&vars)?.steps_factor(&batch)?)?;
            if shape.maps {
                maps::bound(&vars)?;
            }
        }
        let fit = fit(&vars)?;
        let mut meta = self.options();
        // A run that goes on has to have the maps and steps that it began with, and no checkpoint holds sparse maps.
        if let Some(calibrated) = calibrated.as_ref().filter(|_| sparse.is_some()) {
            meta.insert("calibration".into(), hex(&calibrated.fingerprint()));
        }
        meta.insert("text".into(), states.map_or_else(|| hex(&corpus.digest()), |states| states.digest().to_string()));
        let mut trainer = Trainer::new(plan.clone(), vars.clone(), self.settings(), meta.clone());
        let last = plan.out.join(LAST);
        if last.exists() {
            let resumed = checkpoint::load(&last)?;
            let keys = meta.keys().map(String::as_str);
            checkpoint::check_same("the run's checkpoint", &resumed.1, &meta, keys)?;
            trainer.resume(&resumed)?;
        }
        let metrics = trainer.run_until(&fit, corpus, held_out, step, watch)?;
        if trainer.progress().step < plan.schedule.total {
            return Ok(None);
        }
        let tokens = trainer.progress().tokens;
        let learned = self.frozen(&vars, sparse, (&batch, corpus), states)?;
        let Some(calibrated) = calibrated else {
            return Ok(Some(Fitted { model: learned, compared: None, metrics, tokens }));
        };
        let judged = |model: &CodecModel| -> Result<Judged, Error> {
            let judged = self.judge(model.clone(), held_out, states)?;
            judged.first().copied().ok_or_else(|| Error::lacks("the frozen codec", "a quality"))
        };
        let compared = Compared { calibrated: judged(&calibrated)?, learned: judged(&learned)? };
        let model = if compared.is_learned() { learned } else { calibrated };
        Ok(Some(Fitted { model, compared: Some(compared), metrics, tokens }))
    }

    /// Begins with the calibration whose distortion suits λ best. Returns it.
    fn begin(
        &self,
        corpus: &Corpus,
        states: Option<&States>,
        vars: &BTreeMap<String, Var>,
    ) -> Result<CodecModel, Error> {
        let Self { host, plan, .. } = self;
        let shape = self.shape();
        // The distortion is chosen on text that the calibration does not see, or on the last captured frames.
        let (seen, other) = corpus.ids().split_at(corpus.len() - (corpus.len() / 8).clamp(2, JUDGED));
        let from_host: Capture;
        let capture = match states {
            Some(states) => states.capture(),
            None => {
                let seen = &seen[..seen.len().min(CAPTURED)];
                from_host = Capture::from_host(*host, seen, plan.seed, plan.threads)?;
                &from_host
            }
        };
        // What is learned does not predict, and it begins as the calibration does.
        let base = Calibration::default()
            .map(Some(self.map_kind()))
            .prediction(false)
            .rate_weight(self.rate_weight)
            .side(shape.side.is_some())
            .vocabulary(shape.side.map(|side| side.vocabulary))
            .threads(plan.threads);
        let text = HeldOut { ids: other.to_vec(), bytes: other.len() };
        let judge = |model: CodecModel| -> Result<Vec<f64>, Error> {
            Ok(self.judge(model, &text, states)?.into_iter().map(|judged| judged.loss).collect())
        };
        let model = start::choose(&base, capture, &judge)?;
        start::begin(&model, capture, &shape, (plan.seed, plan.threads), vars)?;
        Ok(model)
    }

    /// Every quality of a frozen codec on a text.
    fn judge(&self, model: CodecModel, text: &HeldOut, states: Option<&States>) -> Result<Vec<Judged>, Error> {
        let (qualities, codec) = (model.qualities(), Arc::new(frozen::Codec::new(model)?));
        let link = |quality: usize| {
            let config = EncoderConfig::new(Identity::none()).quality(quality as u8).check(CheckWidth::None);
            FrozenLink::new(codec.clone(), &config)
        };
        let links = (0..qualities).map(link).collect::<Result<Vec<_>, _>>()?;
        let links: Vec<&dyn Link> = links.iter().map(|link| link as &dyn Link).collect();
        let figures = match states {
            Some(states) => evaluate_states(states, &links, text, self.plan.threads)?,
            None => evaluate(self.host, &links, text, self.plan.threads)?,
        };
        let judged = |figures: &Metrics| {
            let of = |name: &str| figures.get(name).copied();
            let (bits, divergence, error) = (of("bits").unwrap_or(f64::NAN), of("divergence"), of("error"));
            let loss = divergence.or(error).unwrap_or(f64::NAN) + self.trade.lambda * bits;
            Judged { bits, divergence, agreement: of("agreement"), error, loss }
        };
        Ok(figures.iter().map(judged).collect())
    }

    /// The frozen model of trained variables, with sparse maps if there are such; `batch` sets its fixed-point scales.
    fn frozen(
        &self,
        vars: &BTreeMap<String, Var>,
        sparse: Option<Arc<SparsePair>>,
        (batch, corpus): (&Batch, &Corpus),
        states: Option<&States>,
    ) -> Result<CodecModel, Error> {
        let tensors = vars.iter().map(|(name, var)| (name.clone(), var.as_tensor().clone())).collect();
        let mut float = FloatCodec::from_weights(&tensors, &self.shape(), SCALES, Precision::AsFrozen)?;
        float.maps = sparse.map(FloatMaps::Sparse).or(float.maps);
        let hidden = self.host.head(&tokens(batch)?)?.detach(); // [rows, T, width]
        let inputs = batch.inputs();
        let rows = inputs.chunks(batch.len).enumerate().map(|(row, ids)| {
            let ids = states.map_or_else(|| ids.to_vec(), |states| states.ids(ids));
            Ok(Sequence { hidden: hidden.get(row)?.flatten_all()?.to_vec1::<f32>()?, ids })
        });
        let rows = rows.collect::<Result<Vec<_>, Error>>()?;
        let quality = Quality { steps: 1.0, rate_weight: self.rate_weight };
        let known: Vec<u32>;
        let tokens = match states {
            Some(states) => {
                known = states.ids(corpus.ids());
                &known[..]
            }
            None => corpus.ids(),
        };
        freeze(&float, &[quality], &rows, tokens, 1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use candle_core::{Device, Tensor};
    use nalgebra::DMatrix;

    use super::*;
    use crate::codec::entropy_model::Kind;
    use crate::codec::side;
    use crate::schedule::Schedule;
    use midspan::codec::{self, Decoder, DecoderConfig, DecoderEvent, DecoderPoll, Encoder, EncoderConfig};
    use midspan_host::llama::Llama;
    use midspan_host::testing::llama_file;
    use midspan_host::testing::random;

    fn learner<'a>(host: &'a Llama, name: &str, steps: u64) -> Learner<'a> {
        let out = std::env::temp_dir().join(format!("midspan-fit-{name}-{}", std::process::id()));
        Learner {
            host,
            identity: "a host".into(),
            shape: Config { maps: true, ..Config::tiny() },
            start: Start::New,
            map: None,
            rate_weight: 0.1,
            trade: Trade { lambda: 1e-4, ramp: 1 },
            settings: Settings::default(),
            plan: Plan {
                out,
                schedule: Schedule { warmup: 0, start: 0, total: steps, decay: 0 },
                rows: 2,
                micro: 2,
                len: 10,
                threads: 1,
                eval_every: 0,
                log_every: 100,
                save_every: Duration::from_secs(1000),
                seed: 1,
                bfloat16: false,
            },
        }
    }

    fn texts() -> (Corpus, HeldOut) {
        let ids: Vec<u32> = (0..400u32).map(|i| i * i / 7 % 30).collect();
        let held_out = HeldOut { ids: ids[..60].to_vec(), bytes: 60 };
        (Corpus::from_ids(ids), held_out)
    }

    #[test]
    fn an_interrupted_run_goes_on_and_another_one_does_not() {
        let host = Llama::from_bytes(&llama_file(30), 1).unwrap();
        let (corpus, held_out) = texts();
        let whole = learner(&host, "whole", 6);
        let at_once = whole.learn(&corpus, &held_out, &()).unwrap().unwrap();
        let parts = learner(&host, "parts", 6);
        assert!(parts.learn_until((&corpus, &held_out), None, 3, &()).unwrap().is_none());
        let other_text = Corpus::from_ids((0..300).map(|i| i % 30).collect());
        let error = parts.learn(&other_text, &held_out, &()).map(|_| ()).unwrap_err();
        assert!(matches!(&error, Error::Differs { key, .. } if key == "text"), "{error:?}");
        let six = parts.learn(&corpus, &held_out, &()).unwrap().unwrap();
        assert_eq!(six.model.to_bytes(), at_once.model.to_bytes());
        assert_eq!((six.metrics, six.tokens), (at_once.metrics, 6 * 20));
        let refused = |change: fn(&mut Learner<'_>), line: &str| {
            let mut other = learner(&host, "parts", 6);
            change(&mut other);
            let error = other.learn(&corpus, &held_out, &()).map(|_| ()).unwrap_err().to_string();
            assert!(error.contains(line), "{error}");
        };
        refused(|learner| learner.trade.lambda = 2e-4, "another lambda: 0.0001, asked for: 0.0002");
        refused(|learner| learner.rate_weight = 0.2, "another rate_weight");
        refused(|learner| learner.identity = "another host".into(), "another host: a host");
        refused(|learner| learner.plan.seed = 2, "another seed");
        refused(|learner| learner.shape.window = 8, "another codec");
        refused(|learner| learner.trade.ramp = 2, "another ramp");
        refused(|learner| learner.plan.schedule.total = 5, "another schedule");
        refused(|learner| learner.plan.rows = 4, "another windows: 2 of 10, asked for: 4 of 10");
        refused(|learner| learner.settings.factors = vec![("quantiser.".into(), 0.0)], "another optimizer");
        refused(|learner| learner.plan.bfloat16 = true, "another bfloat16");
        for folder in [&whole.plan.out, &parts.plan.out] {
            std::fs::remove_dir_all(folder).unwrap();
        }
    }

    /// Text whose tokens follow from others in most places.
    fn told() -> (Corpus, HeldOut) {
        let mut rng = Rng::new(8);
        let mut token = 0;
        let next = |_| {
            token = (5 * token + 1 + rng.below(3) as u32) % 30;
            token
        };
        let ids: Vec<u32> = (0..6_000).map(next).collect();
        let held_out = HeldOut { ids: ids[5_500..].to_vec(), bytes: 500 };
        (Corpus::from_ids(ids[..5_500].to_vec()), held_out)
    }

    #[test]
    fn a_fit_begins_with_the_calibration_and_keeps_the_better() {
        let host = Llama::from_bytes(&llama_file(30), 1).unwrap();
        let (corpus, held_out) = told();
        for (name, width, more) in [("all", 20, 1.06), ("some", 8, 1.4), ("none", 0, 1.06)] {
            let side = (width > 0).then_some(side::Shape { ages: 3, vocabulary: 30, width });
            let shape = Config { maps: false, ..Config::tiny() }.g_y_widths(vec![4, 24, 24]).side(side);
            let trade = Trade { lambda: 1e-5, ramp: 1 };
            let learner = Learner { shape, trade, start: Start::Calibration, ..learner(&host, name, 0) };
            let fitted = learner.learn(&corpus, &held_out, &()).unwrap().unwrap();
            let Compared { calibrated, learned } = fitted.compared.unwrap();
            // Nothing was learned yet, and it costs what the calibration does.
            assert!(
                (learned.divergence.unwrap() / calibrated.divergence.unwrap() - 1.0).abs() < 0.1,
                "{name}: {learned:?} {calibrated:?}"
            );
            assert!((0.94..more).contains(&(learned.bits / calibrated.bits)), "{name}: {learned:?} {calibrated:?}");
            let is_learned = learned.loss < calibrated.loss;
            assert_eq!(is_learned, fitted.compared.unwrap().is_learned());
            // The calibration has no W.
            assert_eq!(fitted.model.hyper_prior_width(), if is_learned { 4 } else { 1 });
            assert_eq!(fitted.model.side().is_some(), side.is_some());
            std::fs::remove_dir_all(&learner.plan.out).unwrap();
        }
    }

    #[test]
    fn a_fit_learns_what_its_calibration_does_not_know() {
        let host = Llama::from_bytes(&llama_file(30), 1).unwrap();
        let (corpus, held_out) = told();
        let side = Some(side::Shape { ages: 3, vocabulary: 30, width: 20 });
        let shape = Config::tiny().g_y_widths(vec![4, 24, 24]).side(side);
        let base = learner(&host, "more", 250);
        let plan = Plan { rows: 16, micro: 16, ..base.plan.clone() };
        let trade = Trade { lambda: 1e-5, ramp: 1 };
        let learner = Learner { shape, trade, start: Start::Calibration, plan, ..base };
        let Compared { calibrated, learned } =
            learner.learn(&corpus, &held_out, &()).unwrap().unwrap().compared.unwrap();
        assert!(learned.loss < calibrated.loss && learned.bits < 0.99 * calibrated.bits, "{learned:?} {calibrated:?}");
        std::fs::remove_dir_all(&learner.plan.out).unwrap();
    }

    /// Frames that their tokens decide in part, in sequences of 50.
    fn captured(frames: usize, seed: u64, sensitivity: Option<f64>) -> Capture {
        let mut rng = Rng::new(3);
        let table: Vec<f32> = (0..30 * 16).map(|_| 4.0 * rng.normal()).collect();
        let mut rng = Rng::new(seed);
        let ids: Vec<u32> = (0..frames).map(|_| rng.below(30) as u32).collect();
        let hidden = ids.iter().flat_map(|id| table[16 * *id as usize..][..16].to_vec());
        let hidden = hidden.map(|x| x + rng.normal()).collect();
        let starts = (0..frames).step_by(50).collect();
        let sensitivity = sensitivity.map(|weight| {
            let mut weights = DMatrix::identity(16, 16);
            (0..8).for_each(|at| weights[(at, at)] = weight);
            weights
        });
        Capture { ids: Some(ids), starts, sensitivity, ..Capture::new(hidden, 16).unwrap() }
    }

    #[test]
    fn a_fit_from_captured_states_minimises_the_weighted_error() {
        let lost = |sensitivity: Option<f64>| {
            let states = States::new(captured(3_000, 1, sensitivity), &captured(600, 2, sensitivity)).unwrap();
            assert_eq!((states.vocab(), states.context()), (3_600, 50));
            assert!(
                states.tail(&Tensor::zeros((1, 2, 16), candle_core::DType::F32, &Device::Cpu).unwrap(), 1).is_err()
            );
            let side = Some(side::Shape { ages: 2, vocabulary: 30, width: 20 });
            let shape = Config::tiny().g_y_widths(vec![4, 24, 24]).side(side);
            let name = format!("states-{sensitivity:?}");
            let host = Llama::from_bytes(&llama_file(30), 1).unwrap();
            let base = learner(&host, &name, 30);
            let trade = Trade { lambda: 0.02, ramp: 1 };
            let learner = Learner { host: &states, shape, trade, start: Start::Calibration, ..base };
            let fitted = learner.learn_from(&states, &()).unwrap().unwrap();
            let Compared { calibrated, learned } = fitted.compared.unwrap();
            assert!(learned.loss < 1.1 * calibrated.loss && learned.divergence.is_none(), "{learned:?} {calibrated:?}");
            assert!(fitted.metrics["bits"] > 0.0 && fitted.metrics["error"] > 0.0, "{:?}", fitted.metrics);
            let side = fitted.model.side().map(|side| (side.ages(), side.vocabulary(), side.width()));
            assert_eq!(side.map(|(_, vocabulary, _)| vocabulary), Some(30));
            std::fs::remove_dir_all(&learner.plan.out).unwrap();
            assert!(Learner { start: Start::New, ..learner }.learn_from(&states, &()).is_err());
            // What is lost of the first half of elements, over what is lost of the others.
            let codec = Arc::new(codec::Codec::new(fitted.model).unwrap());
            let held_out = captured(600, 2, None);
            let link = FrozenLink::new(codec, &EncoderConfig::new(Identity::none())).unwrap();
            let hidden = Tensor::from_slice(&held_out.hidden, (1, 600, 16), &Device::Cpu).unwrap();
            let after = link.carry(&hidden, held_out.ids.as_ref().unwrap()).unwrap().hidden;
            let error = (after - hidden).unwrap().sqr().unwrap().mean(1).unwrap().to_vec2::<f32>().unwrap();
            error[0][..8].iter().sum::<f32>() / error[0][8..].iter().sum::<f32>()
        };
        let (even, weighed) = (lost(None), lost(Some(16.0)));
        assert!((0.7..1.4).contains(&even) && weighed < 0.2, "{even} {weighed}");
    }

    /// Fits from captured states with sparse maps, and with an h without blocks.
    #[test]
    fn a_fit_with_sparse_maps_leaves_the_quantiser_as_it_is() {
        let mut rng = Rng::new(5);
        let mix: Vec<f32> = (0..16 * 16).map(|_| 0.4 * rng.normal()).collect();
        let correlated = |capture: Capture| {
            let hidden = capture.hidden.chunks_exact(16).flat_map(|frame| {
                let of = |row: &[f32]| row.iter().zip(frame).map(|(a, x)| a * x).sum::<f32>();
                frame.iter().zip(mix.chunks_exact(16)).map(move |(x, row)| x + of(row)).collect::<Vec<f32>>()
            });
            Capture { hidden: hidden.collect(), ..capture }
        };
        let made = |seed, frames| correlated(captured(frames, seed, Some(4.0)));
        let states = States::new(made(1, 3_000), &made(2, 600)).unwrap();
        let host = Llama::from_bytes(&llama_file(30), 1).unwrap();
        // With fewer sums than channels, the start has only a part of the calibration. Learning finds the rest again.
        let side = Some(side::Shape { ages: 2, vocabulary: 30, width: 12 });
        let shape = Config::tiny().h_widths(vec![16]).g_y_widths(vec![4, 24, 24]).side(side);
        let (start, map) = (Start::Calibration, Some(MapKind::Sparse));
        let trade = Trade { lambda: 0.02, ramp: 1 };
        let begun = |name: &str, steps: u64| {
            let base = learner(&host, name, steps);
            Learner { host: &states, shape: shape.clone(), trade, start, map, ..base }
        };
        let learner = begun("sparse", 60);
        assert_eq!(learner.options()["map"], "sparse");
        let batch = states.corpus().batch(4, states.context(), &mut Rng::new(1)).unwrap();
        let mut vars = BTreeMap::new();
        add_codec(&learner.shape(), &states, &batch, &mut Rng::new(1), &mut vars).unwrap();
        let calibration = learner.begin(&states.corpus(), Some(&states), &vars).unwrap();
        let fitted = learner.learn_from(&states, &()).unwrap().unwrap();
        let learned = fitted.compared.unwrap().learned;
        let unlearned = begun("sparse-0", 0);
        let first = unlearned.learn_from(&states, &()).unwrap().unwrap().compared.unwrap().learned;
        assert!(learned.bits < 0.97 * first.bits, "{learned:?} {first:?}");
        assert!((learned.error.unwrap() / first.error.unwrap() - 1.0).abs() < 0.05, "{learned:?} {first:?}");
        // A run that goes on learns the same, from the same calibration.
        let parts = begun("sparse-parts", 60);
        let texts = (&states.corpus(), &states.held_out());
        assert!(parts.learn_until(texts, Some(&states), 25, &()).unwrap().is_none());
        let again = parts.learn_from(&states, &()).unwrap().unwrap();
        assert_eq!(again.model.fingerprint(), fitted.model.fingerprint());
        let resumed = checkpoint::load(&parts.plan.out.join(LAST)).unwrap().1;
        assert_eq!(resumed["calibration"], hex(&calibration.fingerprint()));
        // The frozen codec chooses Y as training did and reconstructs the same. No gradient reaches the quantiser.
        let maps = start::sparse(&calibration).unwrap();
        assert_eq!(start::sparse(&fitted.model).as_ref(), Some(&maps));
        let entries: u32 = maps.synthesis.count.iter().chain(&maps.analysis.count).map(|count| u32::from(*count)).sum();
        assert!(entries > 16, "{entries}");
        let float = Codec::new(&learner.shape(), Precision::AsFrozen, &vars).unwrap().with_rate_weight(0.5);
        let float = float.with_sparse(maps.clone()).unwrap();
        let numbers: Vec<u32> = states.held_out().ids[..50].to_vec();
        let hidden = states.head(&Tensor::from_slice(&numbers, (1, 50), &Device::Cpu).unwrap()).unwrap();
        let coded = float.forward(&hidden, &states.ids(&numbers)).unwrap();
        let bits = (coded.priced.bits_y.sum_all().unwrap() + coded.priced.bits_w.sum_all().unwrap()).unwrap();
        let loss = (bits + coded.hidden.sqr().unwrap().sum_all().unwrap()).unwrap();
        let grads = loss.backward().unwrap();
        for (name, var) in &vars {
            assert_eq!(
                grads.get(var).is_some(),
                !name.starts_with("quantiser.") && name != "g_y.output.unit",
                "{name}"
            );
        }
        let model = learner.frozen(&vars, Some(maps.clone()), (&batch, &states.corpus()), Some(&states)).unwrap();
        assert_eq!(start::sparse(&model), Some(maps));
        let close = |(a, b): (&f32, &f32)| (a / b - 1.0).abs() < 1e-5;
        for model in [&model, &fitted.model] {
            assert_eq!(model.offset(0), calibration.offset(0));
            assert!(model.step(0).iter().zip(calibration.step(0)).all(close));
        }
        let codec = Arc::new(codec::Codec::new(model).unwrap());
        let values = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for weight in [0.0, 0.5] {
            let float = match weight {
                0.0 => values(&float.quantiser.to_steps(&hidden).unwrap().round().unwrap()),
                _ => values(&coded.priced.y),
            };
            let config = EncoderConfig::new(Identity::none()).rate_weight(Some(weight));
            let mut encoder = Encoder::new(codec.clone(), config).unwrap();
            encoder.set_side(&states.ids(&numbers), codec::SideDelivery::Known).unwrap();
            encoder.push_hidden(&values(&hidden)).unwrap();
            let frozen = encoder.last_integers().unwrap();
            let same = frozen.y.iter().zip(&float).filter(|(a, b)| f32::from(**a) == **b).count();
            assert_eq!(frozen.y.len(), float.len());
            assert!(same as f64 > 0.98 * float.len() as f64, "{weight}: {same} of {}", float.len());
            assert!(float.iter().any(|y| y.abs() > 2.0));
        }
        let link = FrozenLink::new(codec, &EncoderConfig::new(Identity::none()).rate_weight(Some(0.5))).unwrap();
        let after = link.carry(&hidden, &states.ids(&numbers)).unwrap().hidden;
        let (mut far, mut squares) = (0.0_f32, 0.0_f32);
        for (a, b) in values(&after).iter().zip(values(&coded.hidden)) {
            far += (a - b).powi(2);
            squares += b.powi(2);
        }
        // Where another integer is chosen, channels after it differ too.
        assert!(far < 1e-3 * squares, "{far} of {squares}");
        for learner in [&learner, &unlearned, &parts] {
            std::fs::remove_dir_all(&learner.plan.out).unwrap();
        }
    }

    #[test]
    fn maps_learn_slowly_unless_told() {
        let host = Llama::from_bytes(&llama_file(30), 1).unwrap();
        let factors = |own: &[(&str, f32)], maps: bool| -> Vec<(String, f32)> {
            let mut learner = learner(&host, "slow", 1);
            learner.shape.maps = maps;
            learner.settings.factors = own.iter().map(|(name, factor)| (name.to_string(), *factor)).collect();
            learner.settings().factors
        };
        let named =
            |own: &[(&str, f32)]| own.iter().map(|(name, factor)| (name.to_string(), *factor)).collect::<Vec<_>>();
        let maps = |rate: f32| [("quantiser.analysis", rate), ("quantiser.synthesis", rate)];
        assert_eq!(factors(&[], true), named(&maps(0.03)));
        assert_eq!(factors(&[], false), []);
        let steps = ("quantiser.log_step", 0.0);
        assert_eq!(factors(&[steps, ("", 2.0)], true), named(&[&[steps], &maps(0.06)[..], &[("", 2.0)]].concat()));
    }

    #[test]
    fn what_cannot_be_learned_is_refused() {
        let host = Llama::from_bytes(&llama_file(30), 1).unwrap();
        let refused = |change: fn(&mut Learner<'_>), line: &str| {
            let mut other = learner(&host, "refused", 1);
            other.check().unwrap();
            change(&mut other);
            let error = other.check().unwrap_err();
            assert!(matches!(error, Error::Setting { .. }), "{error:?}");
            assert_eq!(error.to_string(), line);
        };
        refused(|learner| learner.trade.lambda = f64::NAN, "lambda must be 0 or more, not NaN");
        refused(|learner| learner.trade.lambda = -1.0, "lambda must be 0 or more, not -1");
        refused(|learner| learner.rate_weight = f64::INFINITY, "the rate weight must be 0 or more, not inf");
        refused(|learner| learner.shape.h_widths[0] = 12, "h's first width must be the host's, 16, not 12");
        refused(|learner| learner.shape.channels = 5, "g_y's first width must be the channels of W, 5, not 4");
        let shared = "widths must be multiples of the heads, 3, but for the last, not [16, 8, 4]";
        refused(|learner| learner.shape.heads = 3, shared);
        refused(|learner| learner.shape.g_y_widths.truncate(1), "the number of widths must be at least 2, not 1");
        refused(|learner| learner.shape.h_widths.clear(), "h's first width must be the host's, 16, not missing");
        refused(
            |learner| learner.map = Some(MapKind::Sparse),
            "the kind of the maps must be left out: only a calibration has a choice, not given",
        );
        refused(|learner| learner.shape.g_y_widths[1] = 0, "widths must be above 0, not [4, 0, 16]");
        refused(
            |learner| {
                learner.shape.channels = 4_098;
                learner.shape.g_y_widths[0] = 4_098;
            },
            "the number of W's channels must be at most 4096, not 4098",
        );
        refused(
            |learner| learner.shape.g_y_widths[1] = 8_194,
            "the largest width must be at most 8192 in a model file, not 8194",
        );
        refused(
            |learner| learner.shape.g_y_widths[1] = 2_048,
            "the largest width of a head must be at most 512 in a model file, not 1024",
        );
        refused(|learner| learner.shape.window = 4_097, "the window must be at most 4096 in a model file, not 4097");
        refused(|learner| learner.shape.window = 0, "the window must be at least 1 in a model file, not 0");
        refused(
            |learner| learner.shape.h_widths.extend([4; 16]),
            "the number of blocks must be at most 16 in a model file, not 18",
        );
        refused(
            |learner| learner.shape.entropy_model = Kind::Fourier,
            "the entropy model must be the proposed one, which can be frozen, not Fourier",
        );
    }

    /// With maps that are far from the identity, the frozen codec quantises and reconstructs as training did.
    #[test]
    fn maps_are_frozen_as_they_were_learned() {
        let host = Llama::from_bytes(&llama_file(30), 1).unwrap();
        let learner = learner(&host, "maps", 1);
        let batch = texts().0.batch(8, 10, &mut Rng::new(1)).unwrap();
        let mut vars = BTreeMap::new();
        add_codec(&learner.shape, &host, &batch, &mut Rng::new(2), &mut vars).unwrap();
        for (seed, name) in [(1, "quantiser.analysis"), (2, "quantiser.synthesis")] {
            vars[name].set(&random(&[16, 16], seed).as_tensor().clone()).unwrap();
        }
        let float = Codec::new(&learner.shape, Precision::AsFrozen, &vars).unwrap();
        let model = learner.frozen(&vars, None, (&batch, &texts().0), None).unwrap();
        let codec = Arc::new(codec::Codec::new(model).unwrap());
        let hidden = host.head(&tokens(&batch).unwrap()).unwrap().get(3).unwrap(); // [T, width]
        let values = hidden.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let config = EncoderConfig::new(Identity::none()).rate_weight(Some(0.0));
        let mut encoder = Encoder::new(codec.clone(), config).unwrap();
        encoder.push_hidden(&values).unwrap();
        let y = float.quantiser.to_steps(&hidden).unwrap().round().unwrap();
        let expected: Vec<i16> = y.flatten_all().unwrap().to_vec1().unwrap().iter().map(|y: &f32| *y as i16).collect();
        assert_eq!(encoder.last_integers().unwrap().y, expected);
        assert!(expected.iter().any(|y| y.abs() > 1));
        let mut decoder = Decoder::new(codec, DecoderConfig::default()).unwrap();
        decoder.push(&encoder.take_bytes().unwrap()).unwrap();
        let frames = loop {
            match decoder.poll().unwrap() {
                DecoderPoll::Event(DecoderEvent::Frames(frames)) => break frames,
                DecoderPoll::Event(_) => {}
                other => panic!("{other:?}"),
            }
        };
        let decoded = Tensor::from_vec(frames.hidden, hidden.shape(), &Device::Cpu).unwrap();
        let distance = (decoded - float.quantiser.reconstruct(&y).unwrap()).unwrap().abs().unwrap();
        let distance = distance.max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(distance < 1e-4, "{distance}");
    }
}
