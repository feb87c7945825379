//! Random models from a seed, for tests and benchmarks: no training, the same integers on every machine.
//!
//! A [`Style::Sensible`] network keeps its activations spread over their ranges, and its tables are discretised normal
//! distributions, so whole codecs can run on it. The other styles are at the edges of what spec 4.2 allows.

mod cases;
mod network;
mod tables;

pub use cases::Case;

use super::prediction::{LowRank, Prediction};
use super::side::SideParts;
use super::{CodecModel, EncoderPart, Linear, Map, ModelParts, NetworkParameters, Outputs, SparseMap};

/// What a synthetic network's numbers are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Style {
    /// Activations neither die nor saturate all the time.
    Sensible,
    /// Every row of every layer is as large as \[MODEL-4\] allows, and nearly every activation saturates.
    Bounds,
    /// Everything is uniform over its whole range, biases and shifts included.
    Anything,
    /// Every shift is 46.
    LargestShift,
    /// Every shift is 1 and every multiplier 32,767.
    SmallestShift,
    /// Every multiplier is 0 or, rarely, 1.
    ZeroMultiplier,
    /// Norm numerators are 1 or 2^46.
    NormEdges,
}

impl Style {
    /// Every style.
    pub const ALL: [Style; 7] = [
        Style::Sensible,
        Style::Bounds,
        Style::Anything,
        Style::LargestShift,
        Style::SmallestShift,
        Style::ZeroMultiplier,
        Style::NormEdges,
    ];
}

/// The shape of a synthetic model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntheticShape {
    /// E.
    pub hidden: usize,
    /// C.
    pub hyper_prior: usize,
    /// d_1 … d_B of g_y; d_0 is C. None for a network without blocks.
    pub g_y: Vec<usize>,
    /// d_1 … d_B of h; d_0 is E. None for a network without blocks.
    pub h: Vec<usize>,
    /// Heads of every block; for a width that this does not divide, the largest smaller divisor.
    pub heads: usize,
    /// Frames.
    pub window: usize,
    /// Q.
    pub qualities: usize,
    /// S.
    pub scales: usize,
    /// A, V and D; all 0 without side indices.
    pub side: [usize; 3],
}

impl SyntheticShape {
    /// The paper's: E 768, C 24, widths 24/96/192/384/768 and back, 12 heads, a window of 256 frames.
    #[must_use]
    pub fn paper() -> SyntheticShape {
        SyntheticShape {
            hidden: 768,
            hyper_prior: 24,
            g_y: vec![96, 192, 384, 768],
            h: vec![384, 192, 96, 24],
            heads: 12,
            window: 256,
            qualities: 1,
            scales: 64,
            side: [0; 3],
        }
    }

    /// A small one for tests: E 20, C 6, two blocks each way, a window of 8 frames, 2 qualities.
    #[must_use]
    pub fn tiny() -> SyntheticShape {
        SyntheticShape {
            hidden: 20,
            hyper_prior: 6,
            g_y: vec![12, 16],
            h: vec![12, 8],
            heads: 2,
            window: 8,
            qualities: 2,
            scales: 40,
            side: [0; 3],
        }
    }

    /// Any small shape: up to four blocks or none, widths below 90 with few divisors, windows below 50, two qualities.
    #[must_use]
    pub fn random(random: &mut Random) -> SyntheticShape {
        let mut within = |low: i32, high: i32| random.within(low, high) as usize;
        SyntheticShape {
            hidden: within(1, 90),
            hyper_prior: within(1, 12),
            g_y: (0..within(0, 4)).map(|_| within(1, 90)).collect(),
            h: (0..within(0, 4)).map(|_| within(1, 90)).collect(),
            heads: within(1, 6),
            window: within(1, 50),
            qualities: 2,
            scales: within(1, 70),
            side: [0; 3],
        }
    }

    /// Wide layers, a head of 512 elements, few frames.
    #[must_use]
    pub fn wide() -> SyntheticShape {
        SyntheticShape {
            hidden: 40,
            hyper_prior: 512,
            g_y: vec![600, 24],
            h: vec![8],
            heads: 1,
            window: 4,
            qualities: 1,
            scales: 2,
            side: [0; 3],
        }
    }

    /// [`SyntheticShape::tiny`] with side indices: 300, of three ages, that make 5 sums.
    #[must_use]
    pub fn with_side() -> SyntheticShape {
        SyntheticShape { side: [3, 300, 5], ..SyntheticShape::tiny() }
    }

    /// [`SyntheticShape::tiny`] with networks without blocks.
    #[must_use]
    pub fn blockless() -> SyntheticShape {
        SyntheticShape { g_y: Vec::new(), h: Vec::new(), ..SyntheticShape::tiny() }
    }

    /// The widths d_0 … d_B of g_y, whose first is C + D.
    fn widths_g_y(&self) -> Vec<usize> {
        [&[self.hyper_prior + self.side[2]], self.g_y.as_slice()].concat()
    }

    /// The widths d_0 … d_B of h.
    fn widths_h(&self) -> Vec<usize> {
        [&[self.hidden], self.h.as_slice()].concat()
    }
}

/// A g_y whose attention has the largest possible sums: every frame of a long window has the full weight, and v is at
/// its bound.
#[must_use]
pub fn largest_sums(window: usize) -> NetworkParameters {
    let shape = SyntheticShape { window, g_y: vec![7], hyper_prior: 6, hidden: 3, ..SyntheticShape::tiny() };
    let mut parameters = g_y(&shape, Style::Sensible, 5);
    parameters.exp.fill(super::network::EXP_MAX);
    let v = &mut parameters.blocks[0].v;
    v.weight.fill(0);
    v.bias.fill(2_000_000_000);
    v.shift.fill(10);
    parameters
}

/// A network of 622 inputs without blocks, g_y or h, in which every row reads one input of its own and the last two, as
/// where tokens tell the mean of every channel; some rows read none. With [`Style::Bounds`] rows are as large as
/// \[MODEL-4\] allows.
#[must_use]
pub fn few_inputs(style: Style, is_h: bool) -> NetworkParameters {
    let shape = SyntheticShape { hidden: 610, side: [1, 2, 616], ..SyntheticShape::blockless() };
    let mut parameters = if is_h {
        h(&SyntheticShape { hidden: 622, hyper_prior: 300, ..shape }, style, 12)
    } else {
        g_y(&shape, style, 12)
    };
    let output = &mut parameters.output;
    let inputs = output.inputs;
    for (row, (weights, bias)) in output.weight.chunks_exact_mut(inputs).zip(&mut output.bias).enumerate() {
        let reads = |input: usize| !(128..192).contains(&row) && (input == row % 610 || input >= inputs - 2);
        for (input, weight) in weights.iter_mut().enumerate() {
            *weight = match style {
                _ if !reads(input) => 0,
                Style::Bounds => [-127, 127][(row + input) % 2],
                _ => *weight,
            };
        }
        if let Style::Bounds = style {
            let sum: i32 = weights.iter().map(|weight| i32::from(weight.unsigned_abs())).sum();
            let reach = 32_767 * (65_535 - sum);
            *bias = if row % 2 == 0 { reach } else { -reach };
        }
    }
    parameters
}

/// The range of W in synthetic models.
pub const W_RANGE: (i16, i16) = (-64, 64);
/// The range of Y in synthetic models.
pub const Y_RANGE: (i16, i16) = (-2_000, 2_000);

/// A sensible model.
///
/// # Panics
/// If spec 4.2 does not allow the shape.
#[must_use]
pub fn model(shape: &SyntheticShape, seed: u64) -> CodecModel {
    model_of(shape, Style::Sensible, seed)
}

/// A model of a style.
///
/// # Panics
/// If spec 4.2 does not allow the shape.
#[must_use]
pub fn model_of(shape: &SyntheticShape, style: Style, seed: u64) -> CodecModel {
    CodecModel::new(parts(shape, style, seed)).expect("a synthetic model of an allowed shape is valid")
}

/// The parts of a model of a style, which may be changed before [`CodecModel::new`].
#[must_use]
pub fn parts(shape: &SyntheticShape, style: Style, seed: u64) -> ModelParts {
    let mut random = Random::new(seed);
    let fraction_bits = tables::fraction_bits(shape.scales);
    let rows = shape.qualities * shape.hidden;
    // Powers of two, so that every product of the quantiser is exact.
    let steps: Vec<i32> = (0..rows).map(|_| random.within(-3, 1)).collect();
    let power = |exponent: i32| (0..exponent.abs()).fold(1.0, |x: f32, _| if exponent < 0 { x / 2.0 } else { x * 2.0 });
    ModelParts {
        version: 1,
        e: shape.hidden,
        c: shape.hyper_prior,
        qualities: shape.qualities,
        w_range: W_RANGE,
        y_range: Y_RANGE,
        hyper_prior: tables::hyper_prior(shape.qualities * shape.hyper_prior, W_RANGE, &mut random),
        target: tables::target(&fraction_bits),
        step: steps.iter().map(|&exponent| power(exponent)).collect(),
        synthesis: None,
        side: side(shape, style, &mut Random::new(seed ^ 7)),
        prediction: None,
        offset: (0..rows).map(|_| random.within(-8, 8) as f32 / 16.0).collect(),
        decoder_network: g_y(shape, style, random.next()),
        encoder: Some(EncoderPart {
            network: h(shape, style, random.next()),
            reciprocal_step: steps.iter().map(|&exponent| power(-exponent)).collect(),
            rate_weight: vec![0.0; shape.qualities],
            length_offset: vec![0; shape.qualities],
            expected_bits: vec![0.0; shape.qualities],
            analysis: None,
        }),
        fraction_bits,
    }
}

/// What a model of this shape knows of side indices.
fn side(shape: &SyntheticShape, style: Style, random: &mut Random) -> Option<SideParts> {
    let [ages, vocabulary, width] = shape.side;
    // A sensible network takes inputs of a few units.
    let reach = if style == Style::Sensible { 4 } else { 127 };
    (width > 0).then(|| SideParts {
        width,
        vocabulary,
        embedding: (0..ages * vocabulary * width).map(|_| random.within(-reach, reach) as i8).collect(),
        tables: tables::side(vocabulary),
    })
}

/// Adds maps on either side of the quantiser: rotations of pairs of neighbouring channels by right angles, and back, so
/// that hidden states stay exact.
pub fn add_maps(parts: &mut ModelParts) {
    let e = parts.e;
    let (mut analysis, mut synthesis) = (vec![0.0; e * e], vec![0.0; e * e]);
    for c in 0..e {
        let other = if (c ^ 1) < e { c ^ 1 } else { c };
        let sign = if c % 2 == 1 && other != c { -1.0 } else { 1.0 };
        analysis[c * e + other] = sign;
        synthesis[other * e + c] = sign;
    }
    parts.synthesis = Some(Map::Full(synthesis));
    if let Some(encoder) = &mut parts.encoder {
        encoder.analysis = Some(Map::Full(analysis));
    }
}

/// Adds sparse causal maps with rows of every length, from none to all channels before, whose sums depend on their
/// order.
pub fn add_sparse_maps(parts: &mut ModelParts, seed: u64) {
    let mut random = Random::new(seed);
    // Weights are larger in short rows, so that predictions keep the size of what they are made of.
    let mut sparse = |channel: usize, map: &mut SparseMap| {
        let thirds = random.within(0, 3);
        let index: Vec<u16> = (0..channel as u16).filter(|_| random.within(1, 3) <= thirds).collect();
        let reach = 3_000 / (1 + index.len() as i32);
        map.count.push(index.len() as u16);
        map.weight.extend(index.iter().map(|_| random.within(-reach, reach) as f32 / 1_024.0));
        map.index.extend(index);
    };
    let [mut synthesis, mut analysis] = [SparseMap::default(), SparseMap::default()];
    for channel in 0..parts.e {
        sparse(channel, &mut synthesis);
        sparse(channel, &mut analysis);
    }
    parts.synthesis = Some(Map::Sparse(synthesis));
    if let Some(encoder) = &mut parts.encoder {
        encoder.analysis = Some(Map::Sparse(analysis));
    }
}

/// Makes a model predict from `frames` frames, with a part of this rank that mixes channels; with rank 0 there is none.
/// Predictions move means by a step or so, now and then by much more.
pub fn add_prediction(parts: &mut ModelParts, frames: usize, rank: usize, seed: u64) {
    let mut random = Random::new(seed ^ 11);
    let (e, rows) = (parts.e, parts.qualities * parts.e);
    let shifts = |random: &mut Random, low, high| (0..rows).map(|_| random.within(low, high) as u8).collect();
    let multipliers = |random: &mut Random| (0..rows).map(|_| random.within(16_000, 32_767)).collect();
    // Of 64 weights and more none is large, so that the sums keep their bounds.
    let reach = (65_000 / (frames * e).max(1)).min(127) as i32;
    let low_rank = (rank > 0).then(|| LowRank {
        reduce: Linear {
            inputs: frames * e,
            outputs: rank,
            weight: (0..rank * frames * e).map(|_| random.within(-reach, reach) as i8).collect(),
            bias: (0..rank).map(|_| random.within(-9_000, 9_000)).collect(),
            multiplier: (0..rank).map(|_| random.within(16_000, 32_767)).collect(),
            shift: (0..rank).map(|_| random.within(18, 22) as u8).collect(),
        },
        expand: (0..rank * e).map(|_| random.within(-100, 100).min(30_000 / rank as i32) as i8).collect(),
    });
    parts.prediction = Some(Prediction {
        input_multiplier: multipliers(&mut random),
        input_shift: shifts(&mut random, 9, 12),
        diagonal: (0..frames * e).map(|_| random.within(-500, 2_000) as i16).collect(),
        low_rank,
        output_multiplier: multipliers(&mut random),
        output_shift: shifts(&mut random, 23, 26),
    });
}

/// The network g_y of a shape and style.
#[must_use]
pub fn g_y(shape: &SyntheticShape, style: Style, seed: u64) -> NetworkParameters {
    let outputs = Outputs::Distribution { elements: shape.hidden, scales: shape.scales };
    network::network(shape, &shape.widths_g_y(), outputs, style, &mut Random::new(seed))
}

/// The network h of a shape and style.
#[must_use]
pub fn h(shape: &SyntheticShape, style: Style, seed: u64) -> NetworkParameters {
    let (min, max) = (W_RANGE.0.into(), W_RANGE.1.into());
    let outputs = Outputs::HyperPrior { channels: shape.hyper_prior, min, max };
    network::network(shape, &shape.widths_h(), outputs, style, &mut Random::new(seed))
}

/// Inputs for `frames` frames of a network with values in ± `reach`, \[frames, `inputs`\]: correlated in time, as
/// hidden states are.
#[must_use]
pub fn inputs(inputs: usize, frames: usize, reach: i16, seed: u64) -> Vec<i16> {
    let mut random = Random::new(seed);
    let reach = i32::from(reach);
    let mut state = vec![0i32; inputs];
    let mut all = Vec::with_capacity(inputs * frames);
    for _ in 0..frames {
        for value in &mut state {
            let fresh = random.within(-reach, reach);
            *value = (*value / 2 + fresh).clamp(-reach, reach);
            all.push(*value as i16);
        }
    }
    all
}

/// SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers that depend only on the seed.
    #[must_use]
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next 64 bits.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `low` … `high`; nearly uniform.
    pub fn within(&mut self, low: i32, high: i32) -> i32 {
        let span = (i64::from(high) - i64::from(low) + 1) as u128;
        let place = (u128::from(self.next()) * span) >> 64;
        (i64::from(low) + place as i64) as i32
    }
}
