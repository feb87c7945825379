//! Synthetic integer networks.

use super::tables::exp_neg;
use super::{Random, Style, SyntheticShape};
use crate::model::network::{
    ACTIVATION_LEN, ACTIVATION_MAX, EXP_LEN, EXP_MAX, HEAD_MAX, MULTIPLIER_MAX, NORM_MAX, ROW_MAX, SHIFT_MAX, WIDE_MAX,
};
use crate::model::{Block, Linear, NetworkParameters, Outputs};

/// Typical sizes (root mean square) of values in a sensible network.
const STREAM: u64 = 6_000;
const NORMED: u64 = 4_000;
const QUERY: u64 = 500;
const UP: u64 = 700;
const GATE: u64 = 1_500;

/// Makes layers and scalings of one style.
struct Maker<'a> {
    style: Style,
    random: &'a mut Random,
}

pub(super) fn network(
    shape: &SyntheticShape,
    widths: &[usize],
    outputs: Outputs,
    style: Style,
    random: &mut Random,
) -> NetworkParameters {
    let heads: Vec<usize> = widths[..widths.len() - 1].iter().map(|&width| heads(width, shape.heads)).collect();
    let mut make = Maker { style, random };
    let blocks =
        widths.windows(2).zip(&heads).map(|(pair, &heads)| make.block(pair[0], pair[1], heads, shape.window)).collect();
    let last = widths[widths.len() - 1];
    let input_scales = shape.qualities * widths[0];
    let norm = make.norm(last);
    // Inputs of a few units grow to the stream's size.
    let input: Vec<(i32, u8)> = (0..input_scales).map(|_| make.scaling(1, STREAM / 8)).collect();
    // g_y with blocks normalises the input of its last layer.
    let blockless = widths.len() == 1;
    let normed = matches!(outputs, Outputs::Distribution { .. }) && !blockless;
    let from = if normed { NORMED } else { 2 * STREAM };
    let mut output = make.linear(last, outputs.len(), from, 100);
    let rows: Vec<(i32, u8)> = (0..shape.qualities)
        .flat_map(|_| 0..outputs.len())
        .map(|row| {
            let (low, high) = outputs.bounds(row);
            // Means of ± 2 steps, scale indices over a quarter of their range, W over what its tables hold.
            let share = if low < 0 { 32 } else { 8 };
            let size = if high == WIDE_MAX { 128 } else { (i64::from(high) - i64::from(low)) as u64 / share };
            make.row_scaling(&output, row, from, size.max(1))
        })
        .collect();
    (output.multiplier, output.shift) = rows.into_iter().unzip();
    let (input_multiplier, input_shift) = input.into_iter().unzip();
    NetworkParameters {
        widths: widths.to_vec(),
        window: if blockless { 1 } else { shape.window },
        qualities: shape.qualities,
        exp: if blockless { Vec::new() } else { make.exp() },
        activation: if blockless { Vec::new() } else { make.activation() },
        input_multiplier,
        input_shift,
        blocks,
        outputs,
        output_norm: normed.then_some(norm),
        output,
        output_offset: (0..shape.qualities)
            .flat_map(|_| 0..outputs.len())
            .map(|row| make.offset(outputs, row))
            .collect(),
        heads,
    }
}

/// The largest divisor of `width` that is at most `wanted`, or a larger one if a head would be too wide.
fn heads(width: usize, wanted: usize) -> usize {
    let fits = |&heads: &usize| width.is_multiple_of(heads) && width / heads <= HEAD_MAX;
    (1..=wanted.min(width)).rev().find(fits).or_else(|| (1..=width).find(fits)).unwrap_or(1)
}

impl Maker<'_> {
    fn block(&mut self, d: usize, next: usize, heads: usize, window: usize) -> Block {
        let c = (d / heads) as u64;
        Block {
            norm1: self.norm(d),
            norm2: self.norm(next),
            q: self.linear(d, d, NORMED, QUERY),
            k: self.linear(d, d, NORMED, QUERY),
            v: self.linear(d, d, NORMED, QUERY),
            o: self.linear(d, d, QUERY / 3, STREAM / 2),
            proj: self.linear(d, next, STREAM, STREAM),
            up: self.linear(next, 4 * next, NORMED, UP),
            down: self.linear(4 * next, next, GATE, STREAM / 2),
            // Scores of about 100 steps of the exp table.
            score_multiplier: vec![0; heads],
            score_shift: vec![1; heads],
            position: (0..heads)
                .flat_map(|head| (0..window).map(move |distance| (head, distance)))
                .map(|(head, distance)| self.position(head, distance))
                .collect(),
        }
        .with_scores((0..heads).map(|_| self.scaling(QUERY * QUERY * c.isqrt(), 100)).collect())
    }

    /// A norm whose values are about `NORMED` large: r = N / (16 · sqrt(d) · size), y = x · r / 2^20.
    fn norm(&mut self, width: usize) -> i64 {
        match self.style {
            Style::Anything => (self.random.next() >> 18) as i64 % NORM_MAX + 1,
            Style::Bounds => NORM_MAX,
            Style::NormEdges if self.random.next().is_multiple_of(2) => NORM_MAX,
            Style::NormEdges => 1,
            _ => (((NORMED << 24) * ((width as u64) << 20).isqrt()) >> 10) as i64,
        }
    }

    fn exp(&mut self) -> Vec<u16> {
        let mut table: Vec<u16> = (0..EXP_LEN as u64)
            .map(|i| match self.style {
                Style::Anything => self.random.within(0, EXP_MAX.into()) as u16,
                Style::Bounds => EXP_MAX,
                // 4,095 · exp(−i / 96), and 0 from where it falls below 1/2.
                _ => ((u64::from(EXP_MAX) * exp_neg(i * 256 / 96) + (1 << 31)) >> 32) as u16,
            })
            .collect();
        table[0] = EXP_MAX;
        table
    }

    fn position(&mut self, head: usize, distance: usize) -> i32 {
        let near = (distance as i32).min(100_000 / (head as i32 + 1)) * (head as i32 + 1) / 4;
        match self.style {
            Style::Anything => self.random.within(-WIDE_MAX, WIDE_MAX),
            Style::Bounds => [-WIDE_MAX, WIDE_MAX][self.random.within(0, 1) as usize],
            Style::LargestShift | Style::ZeroMultiplier => 0,
            _ => self.random.within(-20, 20) - near,
        }
    }

    fn activation(&mut self) -> Vec<i16> {
        (0..ACTIVATION_LEN as i32)
            .map(|i| i - 2_048)
            .map(|x| match self.style {
                Style::Anything => self.random.within(-ACTIVATION_MAX, ACTIVATION_MAX),
                Style::Bounds => ACTIVATION_MAX * x.signum(),
                // Hard swish: x · clamp(x + 768, 0, 1536) / 1536, times 4.
                _ => 4 * (x * (x + 768).clamp(0, 1_536) / 1_536),
            } as i16)
            .collect()
    }

    fn offset(&mut self, outputs: Outputs, row: usize) -> i32 {
        let (low, high) = outputs.bounds(row);
        match self.style {
            Style::Anything => self.random.within(-WIDE_MAX, WIDE_MAX),
            Style::Bounds => [-WIDE_MAX, WIDE_MAX][self.random.within(0, 1) as usize],
            _ if high == WIDE_MAX => self.random.within(-64, 64),
            _ if low < 0 => self.random.within(low / 32, high / 32),
            _ => self.random.within(low + (high - low) / 3, high - (high - low) / 3),
        }
    }

    /// A layer that turns values of about `from` into values of about `to`.
    fn linear(&mut self, inputs: usize, outputs: usize, from: u64, to: u64) -> Linear {
        let mut layer = Linear { inputs, outputs, ..EMPTY };
        for _ in 0..outputs {
            let start = layer.weight.len();
            let reach = ((2 * (ROW_MAX - 2_048) / inputs as i64).min(127) as i32).max(1);
            for _ in 0..inputs {
                let weight = match self.style {
                    Style::Bounds => [-127, 127][self.random.within(0, 1) as usize],
                    Style::Anything => self.random.within(-127, 127),
                    _ => self.random.within(-reach, reach),
                };
                layer.weight.push(weight as i8);
            }
            let spare = shrink(&mut layer.weight[start..]);
            let reach = spare * i64::from(ACTIVATION_MAX);
            layer.bias.push(match self.style {
                Style::Bounds => [-reach, reach][self.random.within(0, 1) as usize] as i32,
                Style::Anything => self.random.within(-(reach as i32), reach as i32),
                _ => {
                    let reach = (reach.min((from * 1_000) as i64)) as i32;
                    self.random.within(-reach, reach)
                }
            });
            let (multiplier, shift) = self.row_scaling(&layer, outputs_so_far(&layer) - 1, from, to);
            layer.multiplier.push(multiplier);
            layer.shift.push(shift);
        }
        layer
    }

    /// The scaling of one row, from the size of its sums.
    fn row_scaling(&mut self, layer: &Linear, row: usize, from: u64, to: u64) -> (i32, u8) {
        let weights = &layer.weight[row * layer.inputs..][..layer.inputs];
        let squares: u64 = weights.iter().map(|&w| u64::from(w.unsigned_abs()).pow(2)).sum();
        self.scaling(from * squares.max(1).isqrt(), to)
    }

    /// A multiplier and shift that turn `from` into about `to`.
    fn scaling(&mut self, from: u64, to: u64) -> (i32, u8) {
        match self.style {
            Style::Anything => (self.random.within(0, MULTIPLIER_MAX), self.random.within(1, SHIFT_MAX.into()) as u8),
            Style::LargestShift => (self.random.within(0, MULTIPLIER_MAX), SHIFT_MAX),
            Style::SmallestShift => (MULTIPLIER_MAX, 1),
            Style::ZeroMultiplier => (self.random.within(-20, 1).max(0), self.random.within(1, 20) as u8),
            Style::Bounds => (MULTIPLIER_MAX, self.random.within(10, 34) as u8),
            _ => {
                // The largest shift with which the multiplier fits.
                let fits = |&shift: &u32| (to << shift) / from.max(1) <= 28_000;
                let shift =
                    (1..=u32::from(SHIFT_MAX)).rev().filter(|s| to.leading_zeros() > *s).find(fits).unwrap_or(1);
                let multiplier = ((to << shift) / from.max(1)).clamp(1, 28_000) as i32;
                // A spread of an eighth either way.
                (multiplier + self.random.within(-multiplier / 8, multiplier / 8), shift as u8)
            }
        }
    }
}

const EMPTY: Linear = Linear { inputs: 0, outputs: 0, weight: vec![], bias: vec![], multiplier: vec![], shift: vec![] };

impl Block {
    fn with_scores(mut self, scores: Vec<(i32, u8)>) -> Block {
        (self.score_multiplier, self.score_shift) = scores.into_iter().unzip();
        self
    }
}

fn outputs_so_far(layer: &Linear) -> usize {
    layer.bias.len()
}

/// Makes a row meet \[MODEL-4\] and returns how much of the bound is left.
fn shrink(row: &mut [i8]) -> i64 {
    let size = |row: &[i8]| row.iter().map(|w| i64::from(w.unsigned_abs())).sum::<i64>();
    let mut excess = size(row) - ROW_MAX;
    for weight in row.iter_mut() {
        let cut = excess.clamp(0, weight.unsigned_abs().into());
        *weight -= weight.signum() * cut as i8;
        excess -= cut;
    }
    ROW_MAX - size(row)
}
