//! The parameters of one integer network, as they are in the model file (spec 4.2).

#![deny(clippy::float_arithmetic)]

use std::fmt;

use crate::error::ErrorKind;
use crate::number::to_u64;

/// The bound of an activation: 16 bits without −32,768 (spec 5).
pub const ACTIVATION_MAX: i32 = 32_767;
/// The bound of Σ|weight| of a row, its bias included (\[MODEL-4\]).
pub const ROW_MAX: i64 = 65_535;
/// The largest multiplier of a requantisation.
pub const MULTIPLIER_MAX: i32 = 32_767;
/// The largest shift of a requantisation; the smallest is 1.
pub const SHIFT_MAX: u8 = 46;
/// The bound of scores, position biases, output offsets and means.
pub const WIDE_MAX: i32 = 1 << 20;
/// The largest numerator of a norm; the smallest is 1.
pub const NORM_MAX: i64 = 1 << 46;
/// Entries of the exp table.
pub const EXP_LEN: usize = 1_024;
/// The largest entry of the exp table, and its entry 0.
pub const EXP_MAX: u16 = 4_095;
/// Entries of the activation table; entry i belongs to the input i + [`PRE_ACTIVATION_MIN`].
pub const ACTIVATION_LEN: usize = 4_096;
/// The smallest input of the activation table (spec 5.4, step 4).
pub const PRE_ACTIVATION_MIN: i32 = -2_048;
/// The largest input of the activation table (spec 5.4, step 4).
pub const PRE_ACTIVATION_MAX: i32 = 2_047;
/// The bound of queries, keys and values (spec 5.3, step 1).
pub const KEY_MAX: i32 = 2_047;
/// The sum of squares under a norm's root is multiplied by 2 to this power (spec 5.2, step 2).
pub const SQUARES_SHIFT: u8 = 8;
/// The shift of a norm's products (spec 5.2, step 4).
pub const NORM_SHIFT: u8 = 20;
/// The numerator of attention's reciprocal is 2 to this power, and its products are shifted by it (spec 5.3, steps 4
/// and 5).
pub const ATTENTION_SHIFT: u8 = 36;
/// The largest width of a block.
pub const WIDTH_MAX: usize = 8_192;
/// The largest number of blocks.
pub const BLOCKS_MAX: usize = 16;
/// The largest number of elements of a head.
pub const HEAD_MAX: usize = 512;
/// The longest window, in frames.
pub const WINDOW_MAX: usize = 4_096;

/// What is wrong with a network or a model, and in which tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The rule that is broken: one of 7xx.
    pub kind: ErrorKind,
    /// The tensor's name. [`NetworkParameters::validate`] leaves out the network's prefix.
    pub tensor: String,
    /// What is wrong with it.
    pub detail: &'static str,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.tensor, self.kind, self.detail)
    }
}

impl std::error::Error for Invalid {}

pub(crate) fn invalid(kind: ErrorKind, tensor: impl Into<String>, detail: &'static str) -> Invalid {
    Invalid { kind, tensor: tensor.into(), detail }
}

/// A linear layer from `inputs` to `outputs` values (spec 4.2, 5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linear {
    /// n, the number of inputs.
    pub inputs: usize,
    /// m, the number of outputs.
    pub outputs: usize,
    /// \[m, n\], row by row, −127 … 127.
    pub weight: Vec<i8>,
    /// \[m\].
    pub bias: Vec<i32>,
    /// \[m\], or \[Q, m\] in the network's last layer; 0 … 32,767.
    pub multiplier: Vec<i32>,
    /// Like `multiplier`; 1 … 46.
    pub shift: Vec<u8>,
}

/// One block: attention at the width d_b, projection, MLP at the width d_(b+1) (spec 5.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Numerator of the norm before attention, 1 … 2^46.
    pub norm1: i64,
    /// Numerator of the norm before the MLP, 1 … 2^46.
    pub norm2: i64,
    /// d_b → d_b.
    pub q: Linear,
    /// d_b → d_b.
    pub k: Linear,
    /// d_b → d_b.
    pub v: Linear,
    /// d_b → d_b.
    pub o: Linear,
    /// d_b → d_(b+1).
    pub proj: Linear,
    /// d_(b+1) → 4·d_(b+1).
    pub up: Linear,
    /// 4·d_(b+1) → d_(b+1).
    pub down: Linear,
    /// \[heads\], 0 … 32,767.
    pub score_multiplier: Vec<i32>,
    /// \[heads\], 1 … 46.
    pub score_shift: Vec<u8>,
    /// \[heads, window\]: relative-position bias by distance, ± 2^20.
    pub position: Vec<i32>,
}

/// The meaning of a network's outputs, which decides their clamp and the last norm (spec 5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outputs {
    /// g_y: `elements` means, clamped to ± 2^20, then `elements` scale indices, clamped to 0 … `scales` − 1.
    Distribution {
        /// E.
        elements: usize,
        /// S.
        scales: usize,
    },
    /// h: `channels` values of W, clamped to `min` … `max`.
    HyperPrior {
        /// C.
        channels: usize,
        /// w_min.
        min: i32,
        /// w_max.
        max: i32,
    },
}

impl Outputs {
    /// The number of outputs: 2E or C.
    #[must_use]
    pub fn len(&self) -> usize {
        match *self {
            Outputs::Distribution { elements, .. } => elements.saturating_mul(2),
            Outputs::HyperPrior { channels, .. } => channels,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The clamp of output `row`: its smallest and its largest value (spec 5.5, step 4).
    #[must_use]
    pub fn bounds(&self, row: usize) -> (i32, i32) {
        match *self {
            Outputs::Distribution { elements, .. } if row < elements => (WIDE_MAX.saturating_neg(), WIDE_MAX),
            Outputs::Distribution { scales, .. } => (0, i32::try_from(scales.saturating_sub(1)).unwrap_or(i32::MAX)),
            Outputs::HyperPrior { min, max, .. } => (min, max),
        }
    }
}

/// The tensors of a network, g_y or h (spec 4.2). They are unchecked until [`NetworkParameters::validate`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkParameters {
    /// d_0 … d_B, in values.
    pub widths: Vec<usize>,
    /// Heads of each block.
    pub heads: Vec<usize>,
    /// Frames that attention sees, the frame itself included; 1 without blocks.
    pub window: usize,
    /// Q: rows of the tensors that differ by quality.
    pub qualities: usize,
    /// \[1024\]; empty without blocks.
    pub exp: Vec<u16>,
    /// \[4096\]; empty without blocks.
    pub activation: Vec<i16>,
    /// \[Q, d_0\], 0 … 32,767.
    pub input_multiplier: Vec<i32>,
    /// \[Q, d_0\], 1 … 46.
    pub input_shift: Vec<u8>,
    /// B blocks, 0 to 16. Without blocks the network is its input's scaling and its last layer.
    pub blocks: Vec<Block>,
    /// What the outputs are.
    pub outputs: Outputs,
    /// Numerator of the norm before the last layer: g_y with blocks has it, h and a g_y without blocks have none.
    pub output_norm: Option<i64>,
    /// d_B → outputs; multiplier and shift by quality.
    pub output: Linear,
    /// \[Q, outputs\], ± 2^20.
    pub output_offset: Vec<i32>,
}

impl NetworkParameters {
    /// d_0, the number of values in a frame's input.
    #[must_use]
    pub fn inputs(&self) -> usize {
        self.widths.first().copied().unwrap_or(0)
    }

    /// Multiplications by weights that one frame takes, without attention.
    #[must_use]
    pub fn multiplications(&self) -> u64 {
        let weights = |layer: &Linear| to_u64(layer.weight.len());
        let layers = self.blocks.iter().flat_map(|b| [&b.q, &b.k, &b.v, &b.o, &b.proj, &b.up, &b.down]);
        layers.chain([&self.output]).map(weights).fold(0, u64::saturating_add)
    }

    /// Checks every rule of spec 4.2, shapes included. Both the loader and an exporter use it.
    ///
    /// # Errors
    /// The first rule that is broken: a shape (703), the configuration (705), the row bound (706) or a value (708).
    pub fn validate(&self) -> Result<(), Invalid> {
        use ErrorKind::{ModelConfig, ModelTensorShape, ModelValue};
        let blocks = self.blocks.len();
        if blocks > BLOCKS_MAX || self.widths.len() != blocks.saturating_add(1) {
            return Err(invalid(ModelTensorShape, "widths", "there are B + 1 widths, B from 0 to 16"));
        }
        if self.heads.len() != blocks {
            return Err(invalid(ModelTensorShape, "heads", "not one entry a block"));
        }
        // [MODEL-5]
        if self.widths.iter().any(|d| !(1..=WIDTH_MAX).contains(d)) {
            return Err(invalid(ModelValue, "widths", "a width outside 1 to 8,192"));
        }
        for (&heads, &width) in self.heads.iter().zip(&self.widths) {
            // [MODEL-5]
            match width.checked_div(heads) {
                Some(c) if c <= HEAD_MAX && width.checked_rem(heads) == Some(0) => (),
                _ => {
                    return Err(invalid(
                        ModelConfig,
                        "heads",
                        "no divisor of the width, or heads of over 512 elements",
                    ));
                }
            }
        }
        if !(1..=256).contains(&self.qualities) || self.outputs.is_empty() {
            return Err(invalid(ModelConfig, "config", "qualities outside 1 to 256, or no outputs"));
        }
        self.validate_shared()?;
        let inputs = self.inputs().saturating_mul(self.qualities);
        scaling(&self.input_multiplier, &self.input_shift, inputs, "input")?;
        for (b, block) in self.blocks.iter().enumerate() {
            self.validate_block(b, block)?;
        }
        // [MODEL-2]
        match (self.has_output_norm(), self.output_norm) {
            (true, Some(n)) => norm(n, "output.norm")?,
            (false, None) => (),
            (true, None) => {
                return Err(invalid(ErrorKind::ModelTensorMissing, "output.norm", "g_y with blocks must have it"));
            }
            (false, Some(_)) => {
                let detail = "h, and a g_y without blocks, must not have it";
                return Err(invalid(ErrorKind::ModelTensorUnknown, "output.norm", detail));
            }
        }
        let width = self.widths.last().copied().unwrap_or(0);
        linear(&self.output, width, self.outputs.len(), self.qualities, "output")?;
        length(self.output_offset.len(), self.outputs.len().saturating_mul(self.qualities), "output.offset")?;
        wide(&self.output_offset, "output.offset")
    }

    /// Whether the last layer has a norm before it: in g_y with blocks (spec 5.5, step 3).
    #[must_use]
    pub(crate) fn has_output_norm(&self) -> bool {
        matches!(self.outputs, Outputs::Distribution { .. }) && !self.blocks.is_empty()
    }

    /// Checks what all blocks share; without blocks there is none of it.
    fn validate_shared(&self) -> Result<(), Invalid> {
        use ErrorKind::{ModelTensorUnknown, ModelValue};
        if self.blocks.is_empty() {
            // [MODEL-2]
            let unknown = |name| invalid(ModelTensorUnknown, name, "a network without blocks must not have it");
            return match () {
                () if self.window != 1 => Err(unknown("window")),
                () if !self.exp.is_empty() => Err(unknown("exp")),
                () if !self.activation.is_empty() => Err(unknown("activation")),
                () => Ok(()),
            };
        }
        if !(1..=WINDOW_MAX).contains(&self.window) {
            return Err(invalid(ModelValue, "window", "not 1 to 4,096"));
        }
        length(self.exp.len(), EXP_LEN, "exp")?;
        if self.exp.first() != Some(&EXP_MAX) || self.exp.iter().any(|&e| e > EXP_MAX) {
            return Err(invalid(ModelValue, "exp", "entry 0 is not 4,095, or one is above it"));
        }
        length(self.activation.len(), ACTIVATION_LEN, "activation")?;
        if self.activation.contains(&i16::MIN) {
            return Err(invalid(ModelValue, "activation", "an entry of −32,768"));
        }
        Ok(())
    }

    fn validate_block(&self, b: usize, block: &Block) -> Result<(), Invalid> {
        let prefix = format!("blocks.{b}.");
        let at = |name: &str| format!("{prefix}{name}");
        let width = |b: usize| self.widths.get(b).copied().unwrap_or(0);
        let (d, next) = (width(b), width(b.saturating_add(1)));
        let mlp = next.saturating_mul(4);
        norm(block.norm1, at("norm1"))?;
        norm(block.norm2, at("norm2"))?;
        linear(&block.q, d, d, 1, &at("q"))?;
        linear(&block.k, d, d, 1, &at("k"))?;
        linear(&block.v, d, d, 1, &at("v"))?;
        linear(&block.o, d, d, 1, &at("o"))?;
        linear(&block.proj, d, next, 1, &at("proj"))?;
        linear(&block.up, next, mlp, 1, &at("up"))?;
        linear(&block.down, mlp, next, 1, &at("down"))?;
        let heads = self.heads.get(b).copied().unwrap_or(0);
        scaling(&block.score_multiplier, &block.score_shift, heads, &at("score"))?;
        length(block.position.len(), heads.saturating_mul(self.window), at("position"))?;
        wide(&block.position, at("position"))
    }
}

pub(super) fn length(found: usize, expected: usize, name: impl Into<String>) -> Result<(), Invalid> {
    // [MODEL-2]
    if found == expected {
        Ok(())
    } else {
        Err(invalid(ErrorKind::ModelTensorShape, name, "another number of elements"))
    }
}

fn norm(numerator: i64, name: impl Into<String>) -> Result<(), Invalid> {
    // [MODEL-5]
    if (1..=NORM_MAX).contains(&numerator) {
        Ok(())
    } else {
        Err(invalid(ErrorKind::ModelValue, name, "not 1 to 2^46"))
    }
}

fn wide(values: &[i32], name: impl Into<String>) -> Result<(), Invalid> {
    // [MODEL-5]
    if values.iter().all(|v| (WIDE_MAX.saturating_neg()..=WIDE_MAX).contains(v)) {
        Ok(())
    } else {
        Err(invalid(ErrorKind::ModelValue, name, "a value beyond ± 2^20"))
    }
}

pub(super) fn scaling(multiplier: &[i32], shift: &[u8], len: usize, layer: &str) -> Result<(), Invalid> {
    length(multiplier.len(), len, format!("{layer}.multiplier"))?;
    length(shift.len(), len, format!("{layer}.shift"))?;
    // [MODEL-5]
    if multiplier.iter().any(|m| !(0..=MULTIPLIER_MAX).contains(m)) {
        return Err(invalid(ErrorKind::ModelValue, format!("{layer}.multiplier"), "a value outside 0 to 32,767"));
    }
    if shift.iter().any(|s| !(1..=SHIFT_MAX).contains(s)) {
        return Err(invalid(ErrorKind::ModelValue, format!("{layer}.shift"), "a value outside 1 to 46"));
    }
    Ok(())
}

pub(super) fn linear(layer: &Linear, inputs: usize, outputs: usize, rows: usize, name: &str) -> Result<(), Invalid> {
    let at = |part: &str| format!("{name}.{part}");
    // [MODEL-2]
    if (layer.inputs, layer.outputs) != (inputs, outputs) {
        return Err(invalid(ErrorKind::ModelTensorShape, at("weight"), "not of the layer's widths"));
    }
    length(layer.weight.len(), inputs.saturating_mul(outputs), at("weight"))?;
    length(layer.bias.len(), outputs, at("bias"))?;
    scaling(&layer.multiplier, &layer.shift, outputs.saturating_mul(rows), name)?;
    // [MODEL-5]
    if layer.weight.contains(&i8::MIN) {
        return Err(invalid(ErrorKind::ModelValue, at("weight"), "a weight of −128"));
    }
    // [MODEL-4]
    if layer.weight.chunks_exact(inputs.max(1)).zip(&layer.bias).any(|(row, &bias)| !row_holds(row, bias)) {
        return Err(invalid(
            ErrorKind::ModelRowBound,
            at("weight"),
            "the magnitudes of a row, bias counted in, sum to over 65,535",
        ));
    }
    Ok(())
}

/// Whether a row keeps \[MODEL-4\]: 32,767 · Σ|weight| + |bias| ≤ 32,767 · 65,535.
#[must_use]
pub fn row_holds(row: &[i8], bias: i32) -> bool {
    let weights = row.iter().fold(0i64, |sum, w| sum.saturating_add(i64::from(w.unsigned_abs())));
    let reach = weights.saturating_mul(i64::from(ACTIVATION_MAX)).saturating_add(i64::from(bias.unsigned_abs()));
    reach <= i64::from(ACTIVATION_MAX).saturating_mul(ROW_MAX)
}
