//! Curves from a sweep's points, and comparisons between them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Serialize, Serializer};

use super::point::{Point, kind_name};
use crate::bd_rate::{self, Difference, bd_rate, rate_at};
use crate::gap::{Gap, correlation};
use midspan_train::codec::entropy_model::Kind;

/// What the points of a curve have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    /// The recipe.
    pub recipe: String,
    /// The entropy model.
    pub model: Kind,
    /// Blocks before the split.
    pub split: usize,
}

impl Group {
    /// A name for legends.
    pub(super) fn label(&self) -> String {
        format!("{}, {}, split {}", self.recipe, kind_name(self.model), self.split)
    }
}

/// Curves by group and seed. The points of each are in order of rising rate.
pub(super) type Curves<'a> = BTreeMap<Group, BTreeMap<u64, Vec<&'a Point>>>;

/// Sorts points into curves; controls are left out.
pub(super) fn curves(points: &[Point]) -> Curves<'_> {
    let mut out = Curves::new();
    for point in points {
        let Some(model) = point.entropy_model else { continue };
        let group = Group { recipe: point.recipe.clone(), model, split: point.host.split };
        out.entry(group).or_default().entry(point.seed).or_default().push(point);
    }
    for curve in out.values_mut().flat_map(BTreeMap::values_mut) {
        curve.sort_by(|a, b| a.bits().total_cmp(&b.bits()));
    }
    out
}

/// Rate in bits a token over quality, the negative loss in nats.
fn figures(curve: &[&Point]) -> Vec<bd_rate::Point> {
    curve.iter().map(|point| bd_rate::Point { rate: point.bits(), quality: -point.loss() }).collect()
}

/// By how much one group's rate is above the anchor's at equal loss, or one seed's above another's.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Comparison {
    /// The group's name.
    pub test: String,
    /// The anchor's.
    pub anchor: String,
    /// By seed: the BD-rate or, for a single point, its rate relative to the anchor's at the same loss; or why there is
    /// none.
    pub by_seed: BTreeMap<u64, Result<Difference, bd_rate::Error>>,
    /// The mean of the BD-rates that exist.
    pub mean: Option<f64>,
}

impl Comparison {
    fn new(test: String, anchor: String, by_seed: BTreeMap<u64, Result<Difference, bd_rate::Error>>) -> Self {
        // The difference of a single point is not a BD-rate, and is left out of the mean.
        let curves = by_seed.values().flatten().filter(|found| found.overlap.is_some());
        let found: Vec<f64> = curves.map(|found| found.rate).collect();
        let mean = (!found.is_empty()).then(|| found.iter().sum::<f64>() / found.len() as f64);
        Self { test, anchor, by_seed, mean }
    }
}

/// Compares every group with the one that has the given recipe, the proposed model and the same split.
pub(super) fn compare(curves: &Curves<'_>, anchor_recipe: &str) -> Vec<Comparison> {
    let mut out = Vec::new();
    for (group, seeds) in curves {
        let anchor = Group { recipe: anchor_recipe.into(), model: Kind::Proposed, split: group.split };
        let Some(anchors) = curves.get(&anchor).filter(|_| *group != anchor) else { continue };
        let by_seed: BTreeMap<u64, Result<Difference, bd_rate::Error>> = seeds
            .iter()
            .filter_map(|(seed, curve)| {
                let anchor = anchors.get(seed)?;
                Some((*seed, against(&figures(anchor), &figures(curve))))
            })
            .collect();
        out.push(Comparison::new(group.label(), anchor.label(), by_seed));
    }
    out
}

/// How much seeds differ: compares the seeds of each group with its first seed.
pub(super) fn between_seeds(curves: &Curves<'_>) -> Vec<Comparison> {
    let comparison = |(group, seeds): (&Group, &BTreeMap<u64, Vec<&Point>>)| {
        let (first, anchor) = seeds.first_key_value()?;
        let rest = seeds.iter().skip(1).map(|(seed, curve)| (*seed, against(&figures(anchor), &figures(curve))));
        let by_seed: BTreeMap<_, _> = rest.collect();
        (!by_seed.is_empty()).then(|| Comparison::new(group.label(), format!("its seed {first}"), by_seed))
    };
    curves.iter().filter_map(comparison).collect()
}

fn against(anchor: &[bd_rate::Point], test: &[bd_rate::Point]) -> Result<Difference, bd_rate::Error> {
    match test {
        [point] => Ok(Difference { rate: point.rate / rate_at(anchor, point.quality)? - 1.0, overlap: None }),
        _ => bd_rate(anchor, test),
    }
}

/// Rate and measures at a split: those of one codec, or interpolated between several at a given loss.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Depth {
    /// Blocks before the split.
    pub split: usize,
    /// Bits a token.
    pub bits: f64,
    /// Half the mean logarithm of the covariance's eigenvalues.
    pub half_log_determinant: f64,
    /// The same for hidden states in the host's own units; NaN if channels have different steps.
    pub of_hidden_states: f64,
    /// Rademacher complexity of Y.
    pub rademacher: f64,
    /// Logarithm of the Lipschitz constant.
    pub log_lipschitz: f64,
}

/// Rate over depth at one loss.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Depths {
    /// The loss in nats, through the codec.
    pub loss: f64,
    /// One entry for each split.
    pub splits: Vec<Depth>,
    /// Pearson's correlation of the rate with each measure, and with the split itself.
    pub correlation: BTreeMap<&'static str, f64>,
    /// The same over all codecs, whatever their loss.
    pub over_all: BTreeMap<&'static str, f64>,
    /// The same over the codecs of one λ.
    pub at_lambda: BTreeMap<String, BTreeMap<&'static str, f64>>,
}

/// Why there are no rates over depth. In results it is its text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum NoDepths {
    /// The splits have fewer than two λ in common.
    FewLambdas,
    /// No loss is reached by the curves of all splits.
    NoCommonLoss {
        /// The largest of the splits' least losses, nats.
        low: f64,
        /// The least of their largest.
        high: f64,
    },
    /// A split's curve cannot be interpolated. The text is that of the curve's error.
    Curve(bd_rate::Error),
}

impl fmt::Display for NoDepths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FewLambdas => f.write_str("the splits have fewer than two λ in common"),
            Self::NoCommonLoss { low, high } => write!(f, "no loss is common to all splits: {low:.4} to {high:.4}"),
            Self::Curve(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for NoDepths {}

impl Serialize for NoDepths {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

fn correlations(depths: &[Depth]) -> BTreeMap<&'static str, f64> {
    let values = |measure: fn(&Depth) -> f64| depths.iter().map(measure).collect::<Vec<f64>>();
    let bits = values(|depth| depth.bits);
    let with = |measure: fn(&Depth) -> f64| correlation(&bits, &values(measure));
    let mut found = BTreeMap::from([
        ("split", with(|depth| depth.split as f64)),
        ("half_log_determinant", with(|depth| depth.half_log_determinant)),
        ("rademacher", with(|depth| depth.rademacher)),
        ("log_lipschitz", with(|depth| depth.log_lipschitz)),
    ]);
    if depths.iter().all(|depth| !depth.of_hidden_states.is_nan()) {
        found.insert("of_hidden_states", with(|depth| depth.of_hidden_states));
    }
    found
}

/// Rates and measures of a recipe's proposed model over its splits, for each seed, at the middle of the losses that all
/// splits reach. Seeds with fewer than three splits whose curves have the gap's measures are left out. Linear
/// interpolation is above the curve that more points would show, so only points at a λ that all splits have are used.
pub(super) fn depths(curves: &Curves<'_>, recipe: &str) -> BTreeMap<u64, Result<Depths, NoDepths>> {
    let mut by_seed: BTreeMap<u64, Vec<(usize, Vec<&Point>)>> = BTreeMap::new();
    for (group, seeds) in curves.iter().filter(|(group, _)| group.recipe == recipe && group.model == Kind::Proposed) {
        for (seed, curve) in seeds {
            let curve: Vec<&Point> = curve.iter().copied().filter(|point| point.gap.is_some()).collect();
            if curve.len() > 1 {
                by_seed.entry(*seed).or_default().push((group.split, curve));
            }
        }
    }
    by_seed.retain(|_, splits| splits.len() > 2);
    for splits in by_seed.values_mut() {
        let lambdas = |curve: &[&Point]| curve.iter().map(|point| point.lambda.to_bits()).collect::<BTreeSet<u64>>();
        let common = splits.iter().map(|(_, curve)| lambdas(curve)).reduce(|a, b| &a & &b).unwrap_or_default();
        splits.iter_mut().for_each(|(_, curve)| curve.retain(|point| common.contains(&point.lambda.to_bits())));
    }
    by_seed.into_iter().map(|(seed, splits)| (seed, depth(&splits))).collect()
}

fn depth(chosen: &[(usize, Vec<&Point>)]) -> Result<Depths, NoDepths> {
    if chosen.iter().any(|(_, curve)| curve.len() < 2) {
        return Err(NoDepths::FewLambdas);
    }
    let losses = |curve: &[&Point]| curve.iter().map(|point| point.loss()).collect::<Vec<f64>>();
    let least = |v: Vec<f64>| v.into_iter().fold(f64::INFINITY, f64::min);
    let most = |v: Vec<f64>| v.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let low = most(chosen.iter().map(|(_, curve)| least(losses(curve))).collect());
    let high = least(chosen.iter().map(|(_, curve)| most(losses(curve))).collect());
    if low >= high {
        return Err(NoDepths::NoCommonLoss { low, high });
    }
    let loss = low.midpoint(high);
    let splits = chosen.iter().map(|(split, curve)| {
        let at_loss = |measure: fn(&Gap) -> f64| {
            let pairs: Vec<(f64, f64)> =
                curve.iter().filter_map(|point| Some((point.loss(), measure(point.gap.as_ref()?)))).collect();
            linear(&pairs, loss)
        };
        Ok(Depth {
            split: *split,
            bits: rate_at(&figures(curve), -loss).map_err(NoDepths::Curve)?,
            half_log_determinant: at_loss(|gap| gap.half_log_determinant),
            of_hidden_states: at_loss(of_hidden_states),
            rademacher: at_loss(|gap| gap.rademacher),
            log_lipschitz: at_loss(|gap| gap.log_lipschitz),
        })
    });
    let splits = splits.collect::<Result<Vec<Depth>, NoDepths>>()?;
    let points = chosen.iter().flat_map(|(split, curve)| curve.iter().map(move |point| (*split, *point)));
    let codecs: Vec<(f64, Depth)> =
        points.filter_map(|(split, point)| Some((point.lambda, codec(split, point)?))).collect();
    let correlations_at = |lambda: Option<f64>| {
        let chosen = codecs.iter().filter(|(own, _)| lambda.is_none_or(|lambda| lambda == *own));
        correlations(&chosen.map(|(_, depth)| depth.clone()).collect::<Vec<Depth>>())
    };
    let at_lambda = codecs.iter().map(|(lambda, _)| (lambda.to_string(), correlations_at(Some(*lambda)))).collect();
    Ok(Depths { loss, correlation: correlations(&splits), over_all: correlations_at(None), at_lambda, splits })
}

/// Half the mean logarithm of the eigenvalues of hidden states' covariance, in the host's units; NaN without one step.
fn of_hidden_states(gap: &Gap) -> f64 {
    gap.half_log_determinant + gap.log_step.unwrap_or(f64::NAN)
}

/// The measures of one codec.
fn codec(split: usize, point: &Point) -> Option<Depth> {
    let gap = point.gap.as_ref()?;
    Some(Depth {
        split,
        bits: point.bits(),
        half_log_determinant: gap.half_log_determinant,
        of_hidden_states: of_hidden_states(gap),
        rademacher: gap.rademacher,
        log_lipschitz: gap.log_lipschitz,
    })
}

/// The value at x by linear interpolation between points. Outside the points, the value at the nearest end.
fn linear(points: &[(f64, f64)], x: f64) -> f64 {
    let mut points = points.to_vec();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let Some(piece) = points.windows(2).find(|pair| x <= pair[1].0) else {
        return points.last().map_or(f64::NAN, |point| point.1);
    };
    let [(x0, y0), (x1, y1)] = [piece[0], piece[1]];
    y0 + (y1 - y0) * ((x - x0) / (x1 - x0)).clamp(0.0, 1.0)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::gap::Effort;
    use midspan_host::gpt;

    /// A point of a curve on which the logarithm of the rate falls linearly with the loss, so that λ is 1 / bits.
    pub(crate) fn point(recipe: &str, model: Kind, split: usize, seed: u64, (bits, loss): (f64, f64)) -> Point {
        Point {
            command: String::new(),
            recipe: recipe.into(),
            entropy_model: Some(model),
            lambda: 1.0 / bits,
            seed,
            options: BTreeMap::new(),
            steps: 1,
            tokens: 1,
            seconds: 1.0,
            host: gpt::Config::default().split(split),
            codec: None,
            rate_weight: 0.0,
            float: true,
            bfloat16: Some(false),
            decoder_multiplications: 0,
            metrics: BTreeMap::from([("bits".into(), bits), ("loss".into(), loss)]),
            last_word: None,
            compressors: BTreeMap::new(),
            without_codec: BTreeMap::new(),
            gap: Some(Gap {
                half_log_determinant: bits / 100.0,
                log_step: Some(split as f64),
                rademacher: -bits,
                log_lipschitz: 1.0,
                effort: Effort::default(),
            }),
        }
    }

    fn points(recipe: &str, model: Kind, split: usize, seed: u64, factor: f64) -> Vec<Point> {
        let at = |loss: f64| (factor * 100.0 * (4.0 - loss).exp(), loss);
        let each = |loss: f64| Point { lambda: loss - 3.0, ..point(recipe, model, split, seed, at(loss)) };
        [3.9, 3.7, 3.5, 3.3].map(each).to_vec()
    }

    #[test]
    fn comparisons_are_by_split_and_seed() {
        let all = [
            points("paper", Kind::Proposed, 4, 1, 1.0),
            points("paper", Kind::Proposed, 4, 2, 2.0),
            points("paper", Kind::Fourier, 4, 1, 1.5),
            points("paper", Kind::Fourier, 4, 2, 2.5),
            points("ours", Kind::Proposed, 4, 1, 0.8),
            points("ours", Kind::Proposed, 6, 1, 0.8),
            points("single", Kind::Proposed, 4, 1, 1.1)[2..3].to_vec(),
        ];
        let all = all.concat();
        let curves = curves(&all);
        let found = compare(&curves, "paper");
        let mean = |test: &str| found.iter().find(|c| c.test == test).and_then(|c| c.mean).unwrap();
        assert_eq!(found.len(), 3, "no anchor at split 6");
        let single = found.iter().find(|c| c.test == "single, proposed, split 4").unwrap();
        assert!((single.by_seed[&1].as_ref().unwrap().rate - 0.1).abs() < 1e-9 && single.mean.is_none());
        assert!((mean("paper, fourier, split 4") - 0.375).abs() < 1e-9);
        assert!((mean("ours, proposed, split 4") + 0.2).abs() < 1e-9);
        let [proposed, fourier] = &between_seeds(&curves)[..] else { panic!("two have two seeds") };
        assert_eq!(proposed.test, "paper, proposed, split 4");
        assert!((proposed.by_seed[&2].as_ref().unwrap().rate - 1.0).abs() < 1e-9 && proposed.anchor == "its seed 1");
        assert!((fourier.mean.unwrap() - 2.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn depth_at_equal_loss() {
        let all: Vec<Point> =
            [(1, 1.0), (2, 2.0), (3, 3.0)].iter().flat_map(|(s, f)| points("p", Kind::Proposed, *s, 1, *f)).collect();
        let by_seed = depths(&curves(&all), "p");
        let found = by_seed[&1].as_ref().unwrap();
        assert!((found.loss - 3.6).abs() < 1e-9);
        for depth in &found.splits {
            assert!((depth.bits - depth.split as f64 * 100.0 * 0.4_f64.exp()).abs() < 1e-6, "{depth:?}");
        }
        assert!((found.correlation["split"] - 1.0).abs() < 1e-9);
        assert!(found.correlation["half_log_determinant"] > 0.999 && found.correlation["rademacher"] < -0.999);
        // A step that grows with the split's number.
        let grown = |depth: &Depth| depth.of_hidden_states - depth.half_log_determinant;
        assert!(found.splits.iter().all(|depth| (grown(depth) - depth.split as f64).abs() < 1e-9));
        assert!(found.correlation["of_hidden_states"] > 0.999);
        let mut unknown = all.clone();
        unknown[0].gap.as_mut().unwrap().log_step = None;
        let unknown = depths(&curves(&unknown), "p")[&1].clone().unwrap();
        assert!(!unknown.over_all.contains_key("of_hidden_states") && unknown.over_all.contains_key("split"));
        // Among the codecs of one λ the rates follow the splits; over all codecs their spread counts too.
        let lambda = all[0].lambda.to_string();
        assert!(found.at_lambda.len() == 4 && (found.at_lambda[&lambda]["split"] - 1.0).abs() < 1e-9);
        assert!((0.5..0.95).contains(&found.over_all["split"]), "{found:?}");
        assert!((found.over_all["half_log_determinant"] - 1.0).abs() < 1e-9);
        assert!(depths(&curves(&all[..8]), "p").is_empty(), "two splits are no curve");
        let fault = |all: &[Point]| depths(&curves(all), "p")[&1].clone().unwrap_err();
        let mut disjoint = all.clone();
        disjoint[..4].iter_mut().for_each(|point| {
            point.metrics.insert("loss".into(), point.loss() + 1.0);
        });
        let NoDepths::NoCommonLoss { low, high } = fault(&disjoint) else { panic!("{:?}", fault(&disjoint)) };
        assert!((low - 4.3).abs() < 1e-9 && (high - 3.9).abs() < 1e-9, "{low} {high}");
        assert_eq!(
            serde_json::to_string(&fault(&disjoint)).unwrap(),
            "\"no loss is common to all splits: 4.3000 to 3.9000\""
        );

        // An additional point of one split that is off its line changes nothing.
        let more = Point { lambda: 0.55, ..point("p", Kind::Proposed, 2, 1, (1.0, 3.55)) };
        let with = [&all[..], &[more]].concat();
        assert_eq!(depths(&curves(&with), "p")[&1].as_ref().unwrap().splits, found.splits);
        let two = [&all[..2], &all[6..8], &all[8..]].concat();
        assert_eq!(fault(&two), NoDepths::FewLambdas);
        // Two points of one loss are no curve.
        let mut level = all.clone();
        let loss = level[0].loss();
        level[1].metrics.insert("loss".into(), loss);
        let curve = bd_rate::Error::Curve { which: bd_rate::Which::Only, fault: bd_rate::Fault::SameQuality };
        assert_eq!(fault(&level), NoDepths::Curve(curve));
    }
}
