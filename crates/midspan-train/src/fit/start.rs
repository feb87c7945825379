//! What a fit begins with: a calibration of the wanted trade.
//!
//! The calibration decides maps, offsets and the step. g_y begins with its predictions: the sums of side indices are the
//! calibration's tables, and blocks pass them on unchanged, because attention and MLP begin with outputs of 0. A norm is
//! before g_y's outputs; a large constant among the sums makes it about a constant factor. W begins as 0 nearly
//! everywhere, and costs next to nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Device, Tensor, Var};
use nalgebra::{DMatrix, DVector, SymmetricEigen};

use super::variable;
use crate::calibrate::capture::Capture;
use crate::calibrate::known::Known;
use crate::calibrate::maps::{gram, rows};
use crate::calibrate::{Calibration, MapKind, levels};
use crate::codec::density::deep;
use crate::codec::fixed::SparsePair;
use crate::codec::quantiser::START;
use crate::codec::{Config, SCALES, side};
use crate::rng::Rng;
use crate::{Error, Result};
use midspan::engine::quantiser::InSteps;
use midspan::model::{CodecModel, Map};

/// The largest gain of a new h. A channel whose Y is nearly always 0 needs no more.
const GAIN: f32 = 2.0;
/// The constant among the sums, as a multiple of the root of what the others' squares add up to.
const CONSTANT: f32 = 3.0;
/// The first sums: the constant, and how loud a frame is.
const FIRST: usize = 2;
/// New weights that pass nothing on yet, as a part of usual ones.
const SMALL: f64 = 0.1;
/// The width of W's first distributions.
const WIDTH: f32 = 0.3;
/// Iterations towards the leading directions of predictions.
const ITERATIONS: usize = 20;
/// Rounds of the search for a distortion.
const ROUNDS: usize = 4;
/// Distortions tried in a round, on each side of the best one so far.
const SPREAD: i32 = 2;
/// The largest distortion that is tried.
const MOST: f64 = 0.9;

/// The sparse maps of a calibrated model, if it has such.
pub(super) fn sparse(model: &CodecModel) -> Option<Arc<SparsePair>> {
    let (analysis, synthesis) = (model.analysis()?.sparse()?.clone(), model.synthesis()?.sparse()?.clone());
    Some(Arc::new(SparsePair { analysis, synthesis }))
}

/// Refuses a shape that cannot begin with a calibration that has such maps, of hidden states of `width` values.
///
/// # Errors
/// [`Error::Setting`] for hidden states that are too wide, or too few sums of side indices.
pub(super) fn check(cfg: &Config, width: usize, map: MapKind) -> Result<()> {
    map.check(width)?;
    match cfg.side.map(|side| side.width).filter(|width| *width <= FIRST) {
        Some(width) => Err(Error::setting("the sums of side indices", width, format!("above {FIRST}"))),
        None => Ok(()),
    }
}

/// The calibration whose distortion makes the loss least. `judge` gives the loss of every quality of a model.
///
/// # Errors
/// Those of [`Calibration::run`] and of `judge`.
pub(super) fn choose(
    base: &Calibration,
    capture: &Capture,
    judge: &dyn Fn(CodecModel) -> Result<Vec<f64>>,
) -> Result<CodecModel> {
    let (mut best, mut ratio) = (0.01_f64, 5.0_f64);
    for _ in 0..ROUNDS {
        let at = |power: i32| best * ratio.powi(power);
        let ends = [at(-SPREAD), at(SPREAD)];
        let mut tried: Vec<f64> = (-SPREAD..=SPREAD).rev().map(at).filter(|share| *share < MOST).collect();
        let model = loop {
            match base.clone().distortions(tried.clone()).run(capture, &mut |_| ()) {
                // Finer steps would clip.
                Err(Error::Setting { name: "a distortion", .. }) if tried.len() > 1 => drop(tried.pop()),
                other => break other?,
            }
        };
        let losses = judge(model)?;
        let found = tried.iter().copied().zip(losses).min_by(|a, b| a.1.total_cmp(&b.1));
        let Some((found, _)) = found else { break };
        best = found;
        // Beyond an end that was tried there may be better ones; what lies beyond a limit cannot be tried.
        if !ends.contains(&best) {
            ratio = ratio.cbrt();
        }
    }
    base.clone().distortions(vec![best]).run(capture, &mut |_| ())
}

/// Sets the variables of a codec to begin as a calibrated model does.
///
/// # Errors
/// [`Error::Tensor`] if a computation fails, [`Error::Lacks`] if a variable is missing, [`Error::Codec`] if a captured
/// value is not finite.
pub(super) fn begin(
    model: &CodecModel,
    capture: &Capture,
    cfg: &Config,
    (seed, threads): (u64, usize),
    vars: &BTreeMap<String, Var>,
) -> Result<()> {
    let width = capture.width;
    let mut rng = Rng::new(seed);
    let set = |name: &str, values: Vec<f32>| -> Result<()> {
        let var = variable(vars, name)?;
        Ok(var.set(&Tensor::from_vec(values, var.shape(), &Device::Cpu)?)?)
    };
    let (step, offset) = (model.step(0), model.offset(0));
    set("quantiser.log_step", step.iter().map(|step| step.ln()).collect())?;
    set("quantiser.offset", offset.to_vec())?;
    for (name, map) in [("analysis", model.analysis()), ("synthesis", model.synthesis())] {
        // Sparse maps are no variables.
        if let Some(map) = map.and_then(Map::full) {
            set(&format!("quantiser.{name}"), map.to_vec())?;
        }
    }
    let frames = InSteps::new(model, &capture.hidden, 0)?.x; // [T, E]
    let channels: Vec<Vec<f32>> = (0..width).map(|e| frames.iter().skip(e).step_by(width).copied().collect()).collect();
    let known = match (&capture.ids, cfg.side) {
        (Some(ids), Some(side)) => Some(Known::fit(&channels, ids, &capture.starts, side.vocabulary, threads)?),
        _ => None,
    };
    // h sees channels that all vary alike.
    let spread = |values: &[f32]| {
        let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / values.len() as f64;
        (values.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt() as f32
    };
    set("h.input_gain", channels.iter().map(|x| (0.5 * START / spread(x).max(1e-6)).min(GAIN)).collect())?;
    let output = variable(vars, "h.output.weight")?;
    output.set(&(output.as_tensor() * SMALL)?)?;
    for (name, t) in deep::init_as_wide(cfg.channels, WIDTH, &mut rng)? {
        variable(vars, &format!("density.{name}"))?.set(&t)?;
    }
    // What is left of channels, in usual frames.
    let left = Left::new(&channels, known.as_ref());
    let mut units: Vec<f32> = left.scale.iter().map(|scale| scale.max(SCALES.0 as f32)).collect();
    let mut bias: Vec<f32> = left.mean.iter().zip(&units).map(|(mean, unit)| mean / unit).collect();
    bias.extend(left.scale.iter().map(|scale| scale.max(0.5 * SCALES.0 as f32).log2()));
    let output = variable(vars, "g_y.output.weight")?;
    let mut weights = (output.as_tensor() * SMALL)?.to_vec2::<f32>()?; // [2E, last]
    if let (Some(known), Some(side)) = (&known, cfg.side) {
        let sums = Sums::new(known, &units, side, &mut rng)?;
        set(side::EMBEDDING, sums.entries)?;
        let gain = variable(vars, "g_y.input_gain")?;
        let mut gains = gain.as_tensor().to_vec1::<f32>()?;
        gains[cfg.channels..].fill(1.0);
        set("g_y.input_gain", gains)?;
        pass_on(cfg, vars)?;
        // Sums beyond the narrowest width get lost on the way.
        let reach = cfg.g_y_widths.iter().skip(1).copied().min().unwrap_or(0);
        // The root mean square before the outputs.
        let root = (sums.squares * (1.0 + CONSTANT * CONSTANT) / weights[0].len() as f32).sqrt();
        for (e, unit) in units.iter_mut().enumerate() {
            for (at, weight) in weights[e].iter_mut().take(reach).skip(FIRST).zip(&sums.directions[e]) {
                *at += weight;
            }
            weights[width + e][1] += root;
            bias[e] /= root;
            *unit *= root;
        }
    }
    set("g_y.output.weight", weights.concat())?;
    set("g_y.output.bias", bias)?;
    units.resize(2 * width, 1.0);
    set("g_y.output.unit", units)
}

/// Lets blocks of g_y pass on their input: the sums of side indices in their order, then W, as far as widths reach.
fn pass_on(cfg: &Config, vars: &BTreeMap<String, Var>) -> Result<()> {
    let widths = cfg.g_y().widths;
    for (block, pair) in widths.windows(2).enumerate() {
        for name in ["o", "down"] {
            let var = variable(vars, &format!("g_y.blocks.{block}.{name}.weight"))?;
            var.set(&var.zeros_like()?)?;
        }
        let var = variable(vars, &format!("g_y.blocks.{block}.proj.weight"))?;
        let mut proj = var.as_tensor().to_vec2::<f32>()?; // [b, a]
        for (row, weights) in proj.iter_mut().enumerate().take(pair[0]) {
            // The first block's input has W before the sums.
            let from = if block == 0 { (row + cfg.channels) % pair[0] } else { row };
            weights.iter_mut().for_each(|weight| *weight *= SMALL as f32 * SMALL as f32);
            weights[from] = 1.0;
        }
        let values = Tensor::from_vec(proj.concat(), var.shape(), &Device::Cpu)?;
        var.set(&values)?;
    }
    Ok(())
}

/// Base-2 logarithm of how much louder a frame of one level more is.
fn octaves() -> f32 {
    (1.0 / levels::levels(2.0)) as f32
}

/// The largest eigenvalues of a symmetric matrix without negative ones, `[count]`, and their vectors, `[E, count]`: by
/// orthogonal iteration, because all vectors of a wide matrix would take E³ operations. They need not be exact: training
/// goes on from them.
fn leading(matrix: &DMatrix<f64>, count: usize, rng: &mut Rng) -> (DVector<f64>, DMatrix<f64>) {
    let mut basis = DMatrix::from_fn(matrix.nrows(), count, |_, _| f64::from(rng.normal()));
    for _ in 0..ITERATIONS {
        basis = (matrix * &basis).qr().q();
    }
    let eigen = SymmetricEigen::new(basis.transpose() * matrix * &basis);
    (eigen.eigenvalues, basis * eigen.eigenvectors)
}

/// What predictions leave of channels, in steps.
struct Left {
    /// `[E]`.
    mean: Vec<f32>,
    /// `[E]`: standard deviation in a frame that is as loud as usual.
    scale: Vec<f32>,
}

impl Left {
    fn new(channels: &[Vec<f32>], known: Option<&Known>) -> Self {
        let louder = |frame: usize| known.map_or(1.0, |known| f64::from(octaves() * known.louder[frame] as f32).exp2());
        let of = |(e, channel): (usize, &Vec<f32>)| {
            let left = |(frame, x): (usize, &f32)| f64::from(x - known.map_or(0.0, |known| known.predicted[e][frame]));
            let frames = channel.len().max(1) as f64;
            let mean = channel.iter().enumerate().map(left).sum::<f64>() / frames;
            let square = |at: (usize, &f32)| ((left(at) - mean) / louder(at.0)).powi(2);
            (mean as f32, (channel.iter().enumerate().map(square).sum::<f64>() / frames).sqrt() as f32)
        };
        let (mean, scale) = channels.iter().enumerate().map(of).unzip();
        Self { mean, scale }
    }
}

/// The embedding that a codec begins with.
struct Sums {
    /// `[A, V, D]`.
    entries: Vec<f32>,
    /// `[E]`, each at most D − [`FIRST`]: the weights of the sums after the first ones for the mean of each channel, in
    /// units of the channels.
    directions: Vec<Vec<f32>>,
    /// The mean over frames of the sum of the squares of these sums.
    squares: f32,
}

impl Sums {
    /// The tables of `known`, in units of each channel, `[E]`: one sum for each channel where there is room. Otherwise the
    /// directions in which predictions vary most.
    fn new(known: &Known, units: &[f32], side: side::Shape, rng: &mut Rng) -> Result<Self> {
        let (width, vocabulary) = (units.len(), known.parts.vocabulary);
        let ages = known.parts.embedding.len() / (vocabulary * (width + 1));
        let room = side.width.saturating_sub(FIRST).min(width);
        // What one of an entry is worth: a layer's input is 64 times the sum.
        let worth: Vec<f32> = known.unit.iter().zip(units).map(|(one, unit)| 64.0 * one / unit).collect();
        let predicted = known.predicted.iter().zip(units);
        let predicted: Vec<f32> = predicted.flat_map(|(channel, unit)| channel.iter().map(move |x| x / unit)).collect();
        let frames = predicted.len() / width;
        let predicted = Tensor::from_vec(predicted, (width, frames), &Device::Cpu)?; // [E, T]
        let products = gram(&predicted.t()?.contiguous()?)? / frames as f64;
        let (values, vectors) = if room == width {
            (products.diagonal(), DMatrix::identity(width, width))
        } else {
            leading(&products, room, rng)
        };
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
        let kept = DMatrix::from_fn(width, room, |e, at| vectors[(e, order[at])]);
        let directions: Vec<Vec<f32>> = rows(&kept).chunks(room.max(1)).map(<[f32]>::to_vec).collect();
        let squares = order.iter().take(room).map(|at| values[*at] as f32).sum::<f32>().max(1e-6);
        let constant = CONSTANT * squares.sqrt();
        let mut entries: Vec<f32> = Vec::with_capacity(side.ages * side.vocabulary * side.width);
        for age in 0..side.ages {
            for index in 0..side.vocabulary {
                let row = (age < ages && index < vocabulary)
                    .then(|| &known.parts.embedding[(age * vocabulary + index) * (width + 1)..][..width + 1]);
                let loud = row.map_or(0.0, |row| octaves() / 16.0 * f32::from(row[width]));
                let first = [if age == 0 { constant } else { 0.0 }, loud];
                entries.extend(first.into_iter().take(side.width));
                let told = |at: usize| {
                    row.map_or(0.0, |row| {
                        let each = row.iter().zip(&worth).zip(&directions);
                        each.map(|((x, worth), direction)| f32::from(*x) * worth * direction[at]).sum()
                    })
                };
                entries.extend((0..room).map(told));
                // Further sums are free.
                entries.extend((FIRST + room..side.width).map(|_| SMALL as f32 * rng.normal()));
            }
        }
        Ok(Self { entries, directions, squares })
    }
}
