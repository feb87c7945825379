//! The data that the kernels read, as `network.h`, `entropy.h` and `frames.h` declare it: structures of words, some of
//! which are addresses, and a network's bytes.

use bytemuck::{NoUninit, Pod, Zeroable};

use midspan::entropy::Bank;
use midspan::model::{Linear, NetworkParameters};

/// The most blocks that a description has room for ([`midspan::model::network::BLOCKS_MAX`]).
const BLOCKS: usize = 16;
/// Words of a `Layer`, of a `Block` and of a `Net`.
pub(super) const LAYER_WORDS: usize = 5;
pub(super) const BLOCK_WORDS: usize = 8 + 5 * LAYER_WORDS;
pub(super) const NET_WORDS: usize = 12 + LAYER_WORDS + BLOCKS * BLOCK_WORDS;

/// 64 aligned bytes, the alignment for the kernels' wide loads.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(64))]
pub(super) struct Line(pub [u8; 64]);

/// `Frame` of `network.h`.
#[derive(Clone, Copy, Debug, Default, NoUninit)]
#[repr(C)]
pub(super) struct Frame {
    pub ring: u64,
    pub position: u64,
    pub slot: u64,
    pub slots: u64,
    pub quality: u64,
    pub row: u64,
}

/// `Batch` of `network.h`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Batch {
    pub model: u64,
    pub frames: u64,
    pub count: u64,
    pub input: u64,
    pub sums: u64,
    pub sum_count: u64,
    pub output: u64,
    pub codes: u64,
    pub arrived: u64,
    pub x: u64,
    pub p: u64,
    pub q: u64,
    pub high: u64,
    pub low: u64,
    pub mlp_high: u64,
    pub mlp_low: u64,
    pub scores: u64,
}

/// `Table` of `entropy.h`.
#[derive(Clone, Copy, Debug, NoUninit)]
#[repr(C)]
pub(super) struct Table {
    first: i32,
    size: i32,
    start: i32,
    unused: i32,
}

/// `Part` of `entropy.h`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Part {
    pub first: u64,
    pub count: u64,
    /// Values in a run.
    pub width: u64,
    pub channels: u64,
    pub base: u64,
    pub finish: u64,
}

/// `Lane` of `entropy.h`.
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
#[repr(C)]
pub(super) struct Lane {
    pub bytes: u64,
    pub length: u64,
    pub low: u64,
    pub range: u64,
    pub read: u64,
    pub error: u64,
    /// W's values and Y's.
    pub parts: [Part; 2],
    /// How many values their tables do not hold, after encoding.
    pub escaped: u64,
}

/// `Coding` of `entropy.h`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Coding {
    pub tables: u64,
    pub boundaries: u64,
    pub bytes: u64,
    pub lanes: u64,
    pub count: u64,
    pub own_tables: u64,
    pub shifts: u64,
    pub values: u64,
    pub low: i64,
    pub high: i64,
    pub part: u64,
}

/// `Rows` of `frames.h`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Rows {
    pub first: u64,
    pub index: u64,
    pub weight: u64,
}

/// `Frames` of `frames.h`.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub(super) struct Frames {
    pub count: u64,
    pub width: u64,
    pub hidden: u64,
    pub quality: u64,
    pub weight: u64,
    pub offset: u64,
    pub reciprocal_step: u64,
    pub step: u64,
    pub analysis: u64,
    pub synthesis: u64,
    pub sparse_analysis: Rows,
    pub sparse_synthesis: Rows,
    pub done: u64,
    pub errors: u64,
    pub low: i64,
    pub high: i64,
    pub x: u64,
    pub map_input: u64,
    pub y: u64,
    pub follows: u64,
    pub chosen: u64,
    pub costs: u64,
    pub output: u64,
    pub scales: u64,
    pub tables: u64,
    pub shifts: u64,
    pub bank: u64,
    pub boundaries: u64,
    pub logarithms: u64,
    pub result: u64,
    pub faults: u64,
}

/// A step for [`Frames`], with its number in `frames.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FramesStep {
    Quantise,
    QuantiseMapped,
    Derive,
    DeriveAndChoose,
    Settle,
    Reconstruct,
    ReconstructMapped,
    QuantiseRun,
    ChooseRun,
    ReconstructRun,
}

/// A bank's tables, and its boundaries with a 0 before those of each table.
pub(super) fn bank(bank: &Bank) -> (Vec<Table>, Vec<u16>) {
    let (mut tables, mut boundaries) = (Vec::new(), Vec::new());
    for table in 0..bank.tables() {
        let start = boundaries.len() as i32;
        tables.push(Table { first: bank.first(table), size: bank.size(table).into(), start, unused: 0 });
        boundaries.push(0);
        boundaries.extend_from_slice(bank.boundaries(table));
    }
    (tables, boundaries)
}

/// A network's bytes, and the sizes of a batch's buffers.
pub(super) struct Model {
    pub lines: Vec<Line>,
    /// Values in a row of x, p and q: the largest width, rounded up to whole lines of bytes.
    pub widest: usize,
    /// Values in a row of the MLP.
    pub mlp: usize,
}

/// Rounds up to whole lines of bytes.
fn pad(n: usize) -> usize {
    n.next_multiple_of(64)
}

/// Writes the description, then the data that it points to.
struct Writer {
    data: Vec<u8>,
}

impl Writer {
    /// Appends bytes at the next line. Returns their offset.
    fn append(&mut self, bytes: impl IntoIterator<Item = u8>) -> i64 {
        self.data.resize(pad(self.data.len()), 0);
        let offset = self.data.len();
        self.data.extend(bytes);
        offset as i64
    }

    fn append_i32(&mut self, values: impl IntoIterator<Item = i32>) -> i64 {
        self.append(values.into_iter().flat_map(i32::to_le_bytes))
    }

    /// Appends multipliers and shifts in pairs.
    fn append_scales(&mut self, multiplier: &[i32], shift: &[u8]) -> i64 {
        self.append_i32(multiplier.iter().zip(shift).flat_map(|(m, s)| [*m, i32::from(*s)]))
    }

    /// Appends layers with the same inputs, stacked, as one `Layer`. The last layer has as many scales as there are
    /// qualities.
    fn append_layer(&mut self, layers: &[&Linear]) -> [i64; LAYER_WORDS] {
        let inputs = layers[0].inputs;
        let stride = pad(inputs);
        let rows = || layers.iter().flat_map(|layer| layer.weight.chunks_exact(inputs));
        let weight = self.append(rows().flat_map(|row| {
            let zeros = std::iter::repeat_n(0, stride - inputs);
            row.iter().map(|w| w.cast_unsigned()).chain(zeros)
        }));
        let sums: Vec<i32> = rows().map(|row| 128 * row.iter().map(|w| i32::from(*w)).sum::<i32>()).collect();
        let bias: Vec<i32> = layers.iter().flat_map(|layer| layer.bias.iter().copied()).collect();
        let scale = layers.iter().flat_map(|layer| layer.multiplier.iter().zip(&layer.shift));
        let scales = scale.enumerate().flat_map(|(i, (multiplier, shift))| {
            let row = i % bias.len();
            [bias[row], sums[row], *multiplier, i32::from(*shift)]
        });
        let scales: Vec<i32> = scales.collect();
        [weight, self.append_i32(scales), inputs as i64, stride as i64, bias.len() as i64]
    }
}

impl Model {
    pub(super) fn new(network: &NetworkParameters) -> Model {
        let widest = pad(network.widths.iter().copied().max().unwrap_or(0));
        let mlp = widest.max(pad(4 * network.widths.iter().copied().max().unwrap_or(0)));
        let mut writer = Writer { data: vec![0; 8 * NET_WORDS] };
        let (mut blocks, mut slot_bytes) = (Vec::new(), 0);
        for (b, block) in network.blocks.iter().enumerate() {
            let (width, heads) = (network.widths[b], network.heads[b]);
            let next = network.widths[b + 1];
            blocks.extend([width as i64, next as i64, heads as i64, block.norm1, block.norm2]);
            blocks.push(writer.append_scales(&block.score_multiplier, &block.score_shift));
            blocks.push(writer.append_i32(block.position.iter().copied()));
            blocks.push(slot_bytes as i64);
            slot_bytes += 4 * heads * (width / heads).div_ceil(2) + 2 * width;
            for layers in
                [&[&block.q, &block.k, &block.v][..], &[&block.o], &[&block.proj], &[&block.up], &[&block.down]]
            {
                blocks.extend(writer.append_layer(layers));
            }
        }
        let outputs = network.outputs.len();
        let mut words = vec![
            network.blocks.len() as i64,
            network.window as i64,
            network.inputs() as i64,
            outputs as i64,
            widest as i64,
            mlp as i64,
            writer.append(network.exp.iter().flat_map(|e| e.to_le_bytes())),
            writer.append(network.activation.iter().flat_map(|a| a.to_le_bytes())),
            writer.append_scales(&network.input_multiplier, &network.input_shift),
            network.output_norm.unwrap_or(0),
            writer.append_i32(network.output_offset.iter().copied()),
            writer.append_i32((0..outputs).flat_map(|row| <[i32; 2]>::from(network.outputs.bounds(row)))),
        ];
        words.extend(writer.append_layer(&[&network.output]));
        words.extend(blocks);
        let mut data = writer.data;
        for (place, word) in data.as_chunks_mut::<8>().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        data.resize(pad(data.len()), 0);
        Model { lines: data.as_chunks().0.iter().map(|line| Line(*line)).collect(), widest, mlp }
    }
}
