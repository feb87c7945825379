//! Parameters laid out for the SIMD arms.

use crate::model::network::{EXP_LEN, WIDE_MAX};
use crate::model::{Block, Linear, NetworkParameters};

/// 64 weights in a cache line: some inputs of some rows, in the arm's order.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Weights(pub [i8; 64]);

/// The arm's order of weights.
#[derive(Clone, Copy)]
pub(super) struct Order {
    /// Rows of a block of weights, which is contiguous in memory: a multiple of 64 / `inputs` that divides 32.
    pub rows: usize,
    /// Inputs in a line, of 64 / `inputs` rows: 4 or 8.
    pub inputs: usize,
    /// Place in the line of a row and input, both from 0.
    pub place: fn(row: usize, input: usize) -> usize,
    /// A number that the arm adds to every input. It makes a sum too large by this number times the sum of the row's
    /// weights, which the packed biases subtract again.
    pub bias: i32,
}

/// Rounds up to whole lines of 16-bit values.
pub(super) fn pad(n: usize) -> usize {
    n.next_multiple_of(32)
}

/// A linear layer's weights: for each block of rows, for each few inputs, the lines of these inputs.
///
/// Rows and inputs are padded to multiples of 32; weights and biases of the padding are 0.
pub(super) struct Layer {
    /// First line of the layer in [`Packed::weights`].
    pub start: usize,
    /// Inputs, padded.
    pub inputs: usize,
    /// Rows, padded.
    pub rows: usize,
    /// For each row.
    pub bias: Vec<i32>,
}

impl Layer {
    /// Lines of weights.
    pub(super) fn lines(&self) -> usize {
        self.inputs * self.rows / 64
    }
}

/// Multipliers and shifts of a layer, padded with 0 and 1.
pub(super) struct Scale {
    pub multiplier: Vec<i32>,
    /// 64 bits, as the vector shift needs them.
    pub shift: Vec<i64>,
}

/// A layer with its only scale.
pub(super) struct Scaled {
    pub layer: Layer,
    pub scale: Scale,
}

/// The last layer's parameters of one quality.
pub(super) struct Output {
    pub scale: Scale,
    pub offset: Vec<i32>,
}

/// One head's scores.
#[derive(Clone)]
pub(super) struct Score {
    pub multiplier: i32,
    pub shift: u8,
    /// The bias by distance, the largest distance first, between [`EDGE`] entries of [`NOWHERE`] on either side.
    pub position: Vec<i32>,
}

/// Entries before and after the positions of a head, which lanes of frames outside the window read.
pub(super) const EDGE: usize = 32;

/// The position bias of frames outside the window. Real scores are within ± 2^21, so the largest one exceeds a score
/// with this bias by 2^30 + 5·2^20 to 2^30 + 11·2^20, and another real one by 2^22 at most. The bits from 20 up
/// therefore select an entry after the exp table in the first case, and entry 4 at most in the second.
pub(super) const NOWHERE: i32 = -(1 << 30) - 8 * WIDE_MAX;

/// Entries of the exp table, followed by a zero for every entry that a difference to [`NOWHERE`] may select.
pub(super) const EXP_PADDED: usize = EXP_LEN + 16;

pub(super) struct PackedBlock {
    pub width: usize,
    pub next: usize,
    pub heads: usize,
    pub norm1: i64,
    pub norm2: i64,
    /// q, k and v as one layer of 3d rows.
    pub qkv: Scaled,
    pub o: Scaled,
    pub proj: Scaled,
    pub up: Scaled,
    pub down: Scaled,
    pub scores: Vec<Score>,
}

/// A network for a SIMD arm.
pub(super) struct Packed {
    /// All weights, in the order in which a step reads them.
    pub weights: Vec<Weights>,
    pub window: usize,
    pub exp: Vec<i32>,
    /// One entry more than the table, so that reading 32 bits at any entry stays inside.
    pub activation: Vec<i16>,
    /// The input's scaling for each quality.
    pub inputs: Vec<Scale>,
    pub blocks: Vec<PackedBlock>,
    pub output_norm: Option<i64>,
    /// The last layer: all rows, or rows that read few inputs apart from each other.
    pub output: Vec<OutputRows>,
    /// Rows of all of these, padded.
    pub output_rows: usize,
    /// The last width.
    pub last: usize,
}

/// Rows of the last layer.
pub(super) struct OutputRows {
    /// The first row.
    pub first: usize,
    /// The groups of 4 inputs that the layer reads; `None` for all. The weights of the others are 0.
    pub groups: Option<Vec<usize>>,
    pub layer: Layer,
    /// For each quality.
    pub outputs: Vec<Output>,
    pub low: Vec<i32>,
    pub high: Vec<i32>,
}

/// Rows that are packed together where they read few inputs.
const FEW_ROWS: usize = 64;
/// Rows are packed so if at most one in so many weights is left.
const FEW: usize = 4;

impl Packed {
    pub(super) fn new(network: &NetworkParameters, order: Order) -> Packed {
        let mut weights = Vec::new();
        let blocks = network
            .blocks
            .iter()
            .enumerate()
            .map(|(b, block)| pack_block(network, b, block, order, &mut weights))
            .collect();
        let output = pack_output(network, order, &mut weights);
        let chunk = |q: usize, size: usize| q * size..(q + 1) * size;
        let inputs = network.inputs();
        let mut exp: Vec<i32> = network.exp.iter().map(|&e| e.into()).collect();
        exp.resize(EXP_PADDED, 0);
        let mut activation = network.activation.clone();
        activation.push(0);
        Packed {
            window: network.window,
            exp,
            activation,
            inputs: (0..network.qualities)
                .map(|q| {
                    let multiplier = network.input_multiplier[chunk(q, inputs)].iter().copied();
                    pack_scale(multiplier, network.input_shift[chunk(q, inputs)].iter().copied(), inputs)
                })
                .collect(),
            blocks,
            output_norm: network.output_norm,
            output_rows: output.iter().map(|rows| rows.first + rows.layer.rows).max().unwrap_or(0),
            output,
            weights,
            last: network.widths[network.blocks.len()],
        }
    }

    /// The weights of a layer.
    pub(super) fn weights(&self, layer: &Layer) -> &[Weights] {
        &self.weights[layer.start..][..layer.lines()]
    }
}

/// Packs the last layer. The rows of a network without blocks may read few inputs each: where tokens tell the mean of
/// every channel, row and input are pairs.
fn pack_output(network: &NetworkParameters, order: Order, weights: &mut Vec<Weights>) -> Vec<OutputRows> {
    let layer = &network.output;
    let few = if network.blocks.is_empty() { groups_read(layer) } else { None };
    let Some(groups) = few else {
        return vec![output_rows(network, 0, None, pack_layer(&[layer], order, weights))];
    };
    let all: Vec<&[i8]> = layer.weight.chunks_exact(layer.inputs).collect();
    all.chunks(FEW_ROWS)
        .zip(groups)
        .enumerate()
        .map(|(part, (rows, groups))| {
            let first = part * FEW_ROWS;
            let read = |row: &&[i8]| {
                let values = groups.iter().flat_map(|group| (4 * group..4 * group + 4).map(|i| row.get(i).copied()));
                values.map(Option::unwrap_or_default).collect::<Vec<i8>>()
            };
            let own = Linear {
                inputs: 4 * groups.len(),
                outputs: rows.len(),
                weight: rows.iter().flat_map(read).collect(),
                bias: layer.bias[first..first + rows.len()].to_vec(),
                multiplier: Vec::new(),
                shift: Vec::new(),
            };
            let layer = pack_layer(&[&own], order, weights);
            output_rows(network, first, Some(groups), layer)
        })
        .collect()
}

/// The groups of 4 inputs that each [`FEW_ROWS`] rows read, at least one; `None` if they are not few.
fn groups_read(layer: &Linear) -> Option<Vec<Vec<usize>>> {
    let groups: Vec<Vec<usize>> = layer
        .weight
        .chunks(layer.inputs * FEW_ROWS)
        .map(|rows| {
            let reads = |group: &usize| {
                let own = |row: &[i8]| row.iter().skip(4 * group).take(4).any(|weight| *weight != 0);
                rows.chunks_exact(layer.inputs).any(own)
            };
            let mut groups: Vec<usize> = (0..layer.inputs.div_ceil(4)).filter(reads).collect();
            if groups.is_empty() {
                groups.push(0);
            }
            groups
        })
        .collect();
    let kept: usize = groups.iter().map(|groups| pad(4 * groups.len())).sum();
    (kept * FEW <= pad(layer.inputs) * groups.len()).then_some(groups)
}

/// The parameters of the rows of a packed layer, of which `first` is the first.
fn output_rows(network: &NetworkParameters, first: usize, groups: Option<Vec<usize>>, layer: Layer) -> OutputRows {
    let all = network.outputs.len();
    let end = all.min(first + layer.rows);
    let bounds = || (first..end).map(|row| network.outputs.bounds(row));
    let padded = |mut values: Vec<i32>| {
        values.resize(layer.rows, 0);
        values
    };
    OutputRows {
        first,
        groups,
        outputs: (0..network.qualities)
            .map(|q| {
                let own = q * all + first..q * all + end;
                let scale = pack_scale(
                    network.output.multiplier[own.clone()].iter().copied(),
                    network.output.shift[own.clone()].iter().copied(),
                    layer.rows,
                );
                Output { scale, offset: padded(network.output_offset[own].to_vec()) }
            })
            .collect(),
        low: padded(bounds().map(|(low, _)| low).collect()),
        high: padded(bounds().map(|(_, high)| high).collect()),
        layer,
    }
}

fn pack_block(
    network: &NetworkParameters,
    b: usize,
    block: &Block,
    order: Order,
    weights: &mut Vec<Weights>,
) -> PackedBlock {
    let mut scaled = |layers: &[&Linear]| {
        let layer = pack_layer(layers, order, weights);
        let multiplier = layers.iter().flat_map(|layer| layer.multiplier.iter().copied());
        let shift = layers.iter().flat_map(|layer| layer.shift.iter().copied());
        let scale = pack_scale(multiplier, shift, layer.rows);
        Scaled { layer, scale }
    };
    PackedBlock {
        width: network.widths[b],
        next: network.widths[b + 1],
        heads: network.heads[b],
        norm1: block.norm1,
        norm2: block.norm2,
        qkv: scaled(&[&block.q, &block.k, &block.v]),
        o: scaled(&[&block.o]),
        proj: scaled(&[&block.proj]),
        up: scaled(&[&block.up]),
        down: scaled(&[&block.down]),
        scores: (0..network.heads[b])
            .map(|head| {
                let own = &block.position[head * network.window..][..network.window];
                let mut position = vec![NOWHERE; EDGE];
                position.extend(own.iter().rev());
                position.resize(position.len() + EDGE, NOWHERE);
                Score { multiplier: block.score_multiplier[head], shift: block.score_shift[head], position }
            })
            .collect(),
    }
}

/// Packs layers with the same inputs, one below the other.
fn pack_layer(layers: &[&Linear], order: Order, weights: &mut Vec<Weights>) -> Layer {
    let n = layers[0].inputs;
    let rows: Vec<(&[i8], i32)> =
        layers.iter().flat_map(|layer| layer.weight.chunks_exact(n).zip(layer.bias.iter().copied())).collect();
    let start = weights.len();
    let layer_rows = pad(rows.len());
    let line_rows = 64 / order.inputs;
    for first in (0..layer_rows).step_by(order.rows) {
        for input in (0..pad(n)).step_by(order.inputs) {
            for lines in (0..order.rows).step_by(line_rows) {
                let mut line = Weights([0; 64]);
                for row in 0..line_rows {
                    let Some((row_weights, _)) = rows.get(first + lines + row) else { continue };
                    for (i, &weight) in row_weights.iter().skip(input).take(order.inputs).enumerate() {
                        line.0[(order.place)(row, i)] = weight;
                    }
                }
                weights.push(line);
            }
        }
    }
    let mut bias: Vec<i32> = rows
        .iter()
        .map(|&(row, bias)| {
            let sum: i32 = row.iter().map(|&w| i32::from(w)).sum();
            bias.wrapping_sub(sum.wrapping_mul(order.bias))
        })
        .collect();
    bias.resize(layer_rows, 0);
    Layer { start, inputs: pad(n), rows: layer_rows, bias }
}

fn pack_scale(multiplier: impl Iterator<Item = i32>, shift: impl Iterator<Item = u8>, rows: usize) -> Scale {
    let mut multiplier: Vec<i32> = multiplier.collect();
    let mut shift: Vec<i64> = shift.map(i64::from).collect();
    multiplier.resize(rows, 0);
    shift.resize(rows, 1);
    Scale { multiplier, shift }
}
