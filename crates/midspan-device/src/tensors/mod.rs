//! The exact network as candle tensors, without special kernels. It runs on any candle device, including the CPU.
//!
//! Spec chapter 5 bounds every intermediate value. Tensors of floats, or of floats for products and 64-bit integers for
//! the rest, therefore hold each value exactly ([`Carrier`]). On a CPU this is much slower than [`midspan::exact`]. Its
//! purpose is to support every candle device, and to check the other implementations.
//!
//! ```
//! use candle_core::Device;
//! use midspan::exact::{Arm, Network, Serial, State};
//! use midspan_device::tensors::{Carrier, TensorNetwork, TensorState};
//! use midspan::model::synthetic::{self, Style, SyntheticShape};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let parameters = synthetic::h(&SyntheticShape::tiny(), Style::Sensible, 1);
//! let inputs = synthetic::inputs(parameters.inputs(), 5, 100, 2);
//!
//! let network = TensorNetwork::new(&parameters, Carrier::Double, &Device::Cpu)?;
//! let mut state = TensorState::new(&network, 0);
//! let output = network.run(&mut state, &network.input(&inputs)?, 0)?;
//!
//! let plain = Network::new(&parameters, Arm::Plain);
//! let mut expected = Vec::new();
//! plain.run(&mut State::new(&plain, 0), &inputs, 0, &mut expected, &Serial)?;
//! assert_eq!(network.read(&output)?, expected);
//! # Ok(())
//! # }
//! ```

mod block;
mod carrier;
mod codec;
pub(crate) mod engine;
mod product;
mod state;

pub use carrier::Carrier;
pub use codec::TensorCodec;
pub use state::TensorState;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use candle_core::{DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::number::to_u64;
use crate::shape::Shape;
use block::{Block, Reach};
use carrier::Power;
use midspan::error::{Detail, Dims, ErrorKind};
use midspan::model::network::{
    ACTIVATION_MAX, ATTENTION_SHIFT, EXP_LEN, KEY_MAX, NORM_SHIFT, PRE_ACTIVATION_MAX, PRE_ACTIVATION_MIN,
    SQUARES_SHIFT, WIDE_MAX,
};
use midspan::model::{Linear, NetworkParameters};
use product::Weights;

/// Frames that pass through all blocks together. This bounds the memory of the attention's scores.
const TILE: usize = 128;

/// Integers as numbers, \[T, `width`\].
///
/// # Errors
/// [`ErrorKind::WrongShape`] unless they are whole frames; [`Error::Device`].
fn frames_of(carrier: Carrier, what: &'static str, values: &[i16], width: usize, device: &Device) -> Result<Tensor> {
    if !values.len().is_multiple_of(width) {
        let (width, found) = (to_u64(width), to_u64(values.len()));
        return Err(Error::call(ErrorKind::WrongShape, Detail::Shape { what, width, found }));
    }
    let frames = values.len() / width;
    Ok(carrier.tensor(values.iter().map(|value| i64::from(*value)), &[frames, width], device)?)
}

/// Multipliers and shifts of some rows (spec 5.1).
struct Scale {
    multiplier: Tensor,
    power: Power,
}

impl Scale {
    fn new(carrier: Carrier, multiplier: &[i32], shift: &[u8], shape: &[usize], device: &Device) -> Result<Scale> {
        let multiplier = carrier.tensor(multiplier.iter().map(|m| i64::from(*m)), shape, device)?;
        Ok(Scale { multiplier, power: Power::new(carrier, shift, shape, device)? })
    }

    /// Selects rows of a scale by quality, \[Q, n\], for frames with the given qualities.
    fn rows(&self, qualities: &Tensor) -> candle_core::Result<Scale> {
        Ok(Scale { multiplier: self.multiplier.index_select(qualities, 0)?, power: self.power.rows(qualities)? })
    }

    /// round_shift(x · multiplier, shift).
    fn apply(&self, carrier: Carrier, x: &Tensor) -> candle_core::Result<Tensor> {
        carrier.round_shift(&x.broadcast_mul(&self.multiplier)?, &self.power)
    }
}

/// A linear layer with a single scale.
struct Layer {
    weights: Weights,
    scale: Scale,
}

impl Layer {
    /// Stacks layers with the same inputs.
    fn new(carrier: Carrier, layers: &[&Linear], device: &Device) -> Result<Layer> {
        let multiplier: Vec<i32> = layers.iter().flat_map(|layer| layer.multiplier.iter().copied()).collect();
        let shift: Vec<u8> = layers.iter().flat_map(|layer| layer.shift.iter().copied()).collect();
        Ok(Layer {
            weights: Weights::new(carrier, layers, device)?,
            scale: Scale::new(carrier, &multiplier, &shift, &[multiplier.len()], device)?,
        })
    }

    /// \[T, n\] → \[T, m\], not yet clamped.
    fn apply(&self, carrier: Carrier, x: &Tensor) -> candle_core::Result<Tensor> {
        self.scale.apply(carrier, &self.weights.sums(carrier, x)?)
    }
}

/// Constants as tensors. With scalars, candle would fuse a multiplication and an addition.
struct Constants {
    bounds: [(Tensor, Tensor); 4],
    norm_unit: Tensor,
    norm_power: Power,
    attention_one: Tensor,
    attention_power: Power,
    activation_middle: Tensor,
    exp_last: Tensor,
}

/// The ranges to which values are clamped.
#[derive(Clone, Copy)]
enum Bounds {
    Activation,
    Key,
    Table,
    Score,
}

impl Constants {
    fn new(carrier: Carrier, device: &Device) -> Result<Constants> {
        let number = |value: i64| carrier.tensor(std::iter::once(value), &[1], device);
        let pair = |low: i32, high: i32| candle_core::Result::Ok((number(low.into())?, number(high.into())?));
        Ok(Constants {
            bounds: [
                pair(-ACTIVATION_MAX, ACTIVATION_MAX)?,
                pair(-KEY_MAX, KEY_MAX)?,
                pair(PRE_ACTIVATION_MIN, PRE_ACTIVATION_MAX)?,
                pair(-WIDE_MAX, WIDE_MAX)?,
            ],
            norm_unit: number(1 << SQUARES_SHIFT)?,
            norm_power: Power::new(carrier, &[NORM_SHIFT], &[1], device)?,
            attention_one: number(1 << ATTENTION_SHIFT)?,
            attention_power: Power::new(carrier, &[ATTENTION_SHIFT], &[1], device)?,
            activation_middle: number((-PRE_ACTIVATION_MIN).into())?,
            exp_last: number(EXP_LEN as i64 - 1)?,
        })
    }

    fn clamp(&self, carrier: Carrier, x: &Tensor, bounds: Bounds) -> candle_core::Result<Tensor> {
        let (low, high) = &self.bounds[bounds as usize];
        carrier.clamp(x, low, high)
    }
}

/// The next frames of one context, for [`TensorNetwork::step`].
#[derive(Debug)]
pub struct TensorStep<'a> {
    /// The context.
    pub state: &'a mut TensorState,
    /// T: how many rows of the input belong to this context. Rows are in the order of the steps.
    pub frames: usize,
    /// The frames' quality.
    pub quality: usize,
}

/// A network's parameters on a device. Immutable; any number of states may run on it.
pub struct TensorNetwork {
    carrier: Carrier,
    device: Device,
    window: usize,
    inputs: usize,
    outputs: usize,
    constants: Constants,
    /// \[1025\]: the exp table, then 0 for frames outside the window.
    exp: Tensor,
    /// \[4096\].
    activation: Tensor,
    /// \[Q, d_0\].
    input: Scale,
    blocks: Vec<Block>,
    output_norm: Option<Tensor>,
    output: Weights,
    /// \[Q, outputs\].
    output_scale: Scale,
    output_offset: Tensor,
    qualities: usize,
    low: Tensor,
    high: Tensor,
}

impl std::fmt::Debug for TensorNetwork {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TensorNetwork")
            .field("carrier", &self.carrier)
            .field("device", &self.device)
            .field("inputs", &self.inputs)
            .field("outputs", &self.outputs)
            .finish_non_exhaustive()
    }
}

impl TensorNetwork {
    /// Uploads parameters to a device.
    ///
    /// # Errors
    /// [`Error::Device`].
    ///
    /// # Panics
    /// If the parameters do not pass [`NetworkParameters::validate`], on which exactness depends.
    pub fn new(parameters: &NetworkParameters, carrier: Carrier, device: &Device) -> Result<TensorNetwork> {
        if let Err(invalid) = parameters.validate() {
            panic!("parameters of a network that are not valid: {invalid}");
        }
        let (inputs, outputs) = (parameters.inputs(), parameters.outputs.len());
        let bounds: Vec<(i32, i32)> = (0..outputs).map(|row| parameters.outputs.bounds(row)).collect();
        let number = |values: &mut dyn Iterator<Item = i64>, len: usize| carrier.tensor(values, &[len], device);
        let exp = parameters.exp.iter().map(|e| i64::from(*e)).chain([0]);
        Ok(TensorNetwork {
            constants: Constants::new(carrier, device)?,
            exp: number(&mut { exp }, parameters.exp.len() + 1)?,
            activation: number(&mut parameters.activation.iter().map(|a| i64::from(*a)), parameters.activation.len())?,
            input: Scale::new(
                carrier,
                &parameters.input_multiplier,
                &parameters.input_shift,
                &[parameters.qualities, inputs],
                device,
            )?,
            blocks: (0..parameters.blocks.len())
                .map(|b| Block::new(parameters, b, carrier, device))
                .collect::<Result<_>>()?,
            output_norm: parameters
                .output_norm
                .map(|numerator| carrier.tensor(std::iter::once(numerator), &[1], device))
                .transpose()?,
            output: Weights::new(carrier, &[&parameters.output], device)?,
            output_scale: Scale::new(
                carrier,
                &parameters.output.multiplier,
                &parameters.output.shift,
                &[parameters.qualities, outputs],
                device,
            )?,
            output_offset: carrier.tensor(
                parameters.output_offset.iter().map(|o| i64::from(*o)),
                &[parameters.qualities, outputs],
                device,
            )?,
            qualities: parameters.qualities,
            low: number(&mut bounds.iter().map(|b| i64::from(b.0)), outputs)?,
            high: number(&mut bounds.iter().map(|b| i64::from(b.1)), outputs)?,
            window: parameters.window,
            inputs,
            outputs,
            carrier,
            device: device.clone(),
        })
    }

    /// How this network's tensors hold integers.
    #[must_use]
    pub fn carrier(&self) -> Carrier {
        self.carrier
    }

    /// Width and heads of each block, and the window.
    pub(crate) fn shape(&self) -> Shape {
        (self.blocks.iter().map(Block::shape).collect(), self.window)
    }

    /// Integers as an input, \[T, d_0\].
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`] unless they are whole frames; [`Error::Device`].
    pub fn input(&self, values: &[i16]) -> Result<Tensor> {
        frames_of(self.carrier, "input", values, self.inputs, &self.device)
    }

    /// An output's integers, row by row. They fit 21 bits, and W fits 16.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn read(&self, output: &Tensor) -> Result<Vec<i32>> {
        // Outputs are within ± 2^20, so every conversion is exact.
        let values = output.flatten_all()?.to_dtype(DType::I64)?.to_vec1::<i64>()?;
        Ok(values.into_iter().map(|v| v as i32).collect())
    }

    /// Runs the next T frames of a context: `input` is \[T, d_0\], the result \[T, outputs\], both tensors of numbers
    /// of this network's carrier. The context advances by T frames.
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`], [`ErrorKind::UnknownQuality`]; [`Error::Device`]. The state is then unchanged.
    pub fn run(&self, state: &mut TensorState, input: &Tensor, quality: usize) -> Result<Tensor> {
        let frames = input.dims().first().copied().unwrap_or(0);
        self.step(&mut [TensorStep { state, frames, quality }], input)
    }

    /// Runs the next frames of many contexts, whose rows follow each other in `input`, \[ΣT, d_0\]. Returns \[ΣT,
    /// outputs\]. Each context gets the same integers as if it ran alone.
    ///
    /// # Errors
    /// As [`TensorNetwork::run`]; all states are then unchanged.
    pub fn step(&self, steps: &mut [TensorStep<'_>], input: &Tensor) -> Result<Tensor> {
        let frames = steps.iter().map(|step| step.frames).sum::<usize>();
        if input.dims() != [frames, self.inputs] {
            let (width, found) = (to_u64(self.inputs), Dims::new(input.dims()));
            return Err(Error::call(ErrorKind::WrongShape, Detail::Frames { what: "input", width, found }));
        }
        if input.dtype() != self.carrier.number() {
            return Err(Error::codec(ErrorKind::WrongShape, "the input's numbers are not of the carrier's type"));
        }
        if steps.iter().any(|step| !step.state.fits(self)) {
            return Err(Error::codec(ErrorKind::WrongShape, "the state of another network"));
        }
        if steps.iter().any(|step| step.quality >= self.qualities) {
            return Err(Error::codec(ErrorKind::UnknownQuality, "a quality that the model lacks"));
        }
        // The tensors of a state are never written to, so a clone copies only a few pointers.
        let mut next: Vec<TensorState> = steps.iter().map(|step| step.state.clone()).collect();
        let output = match steps {
            _ if frames == 0 => Tensor::zeros((0, self.outputs), self.carrier.number(), &self.device)?,
            [only] => {
                let mut tiles = Vec::with_capacity(frames.div_ceil(TILE));
                for first in (0..frames).step_by(TILE) {
                    let rows = TILE.min(frames - first);
                    tiles.push(self.run_rows(&mut next, &[(rows, only.quality)], &input.narrow(0, first, rows)?)?);
                }
                if let [tile] = tiles.as_slice() { tile.clone() } else { Tensor::cat(&tiles, 0)? }
            }
            _ => {
                let shares: Vec<(usize, usize)> = steps.iter().map(|step| (step.frames, step.quality)).collect();
                self.run_rows(&mut next, &shares, input)?
            }
        };
        steps.iter_mut().zip(next).for_each(|(step, next)| *step.state = next);
        Ok(output)
    }

    /// Runs rows of contexts, with the number of each one's rows and their quality.
    fn run_rows(&self, states: &mut [TensorState], shares: &[(usize, usize)], input: &Tensor) -> Result<Tensor> {
        let carrier = self.carrier;
        // Contexts with equal numbers of frames and earlier frames share a `Reach`.
        let past = |state: &TensorState| state.held().min(self.window - 1);
        let mut reaches = BTreeMap::new();
        for (state, (frames, _)) in states.iter().zip(shares) {
            if let Entry::Vacant(place) = reaches.entry((*frames, past(state))) {
                place.insert(Reach::new(carrier, *frames, past(state), self.window, &self.device)?);
            }
        }
        let reach = |(state, (frames, _)): (&TensorState, &(usize, usize))| &reaches[&(*frames, past(state))];
        let reaches: Vec<&Reach> = states.iter().zip(shares).map(reach).collect();
        let mut qualities: Vec<u32> =
            shares.iter().flat_map(|(rows, q)| std::iter::repeat_n(*q as u32, *rows)).collect();
        if qualities.iter().all(|q| *q == qualities[0]) {
            // One row is enough for all frames.
            qualities.truncate(1);
        }
        let qualities = Tensor::new(qualities, &self.device)?;
        // Spec 5.5, step 1.
        let scaled = self.input.rows(&qualities)?.apply(carrier, input)?;
        let mut x = self.constants.clamp(carrier, &scaled, Bounds::Activation)?;
        for (b, block) in self.blocks.iter().enumerate() {
            x = block.run(self, states, b, &x, &reaches)?;
        }
        for (state, (frames, _)) in states.iter_mut().zip(shares) {
            state.advance(*frames)?;
        }
        // Steps 3 and 4.
        if let Some(numerator) = &self.output_norm {
            x = self.norm(&x, numerator)?;
        }
        let sums = self.output_scale.rows(&qualities)?.apply(carrier, &self.output.sums(carrier, &x)?)?;
        let sums = sums.broadcast_add(&self.output_offset.index_select(&qualities, 0)?)?;
        Ok(carrier.clamp(&sums, &self.low, &self.high)?)
    }

    /// Spec 5.2: \[T, d\] → \[T, d\]. \[NET-2\]
    fn norm(&self, x: &Tensor, numerator: &Tensor) -> candle_core::Result<Tensor> {
        let (carrier, constants) = (self.carrier, &self.constants);
        let squares = x.mul(x)?.sum_keepdim(1)?; // [T, 1]
        let s = carrier.square_root(&squares.broadcast_mul(&constants.norm_unit)?)?;
        let r = carrier.divide(numerator, &s)?;
        let y = carrier.round_shift(&x.broadcast_mul(&r)?, &constants.norm_power)?;
        constants.clamp(carrier, &y, Bounds::Activation)
    }

    /// Looks up entries of a table, \[…\] → \[…\].
    fn look_up(&self, table: &Tensor, index: &Tensor) -> candle_core::Result<Tensor> {
        let flat = index.flatten_all()?.to_dtype(DType::U32)?;
        table.index_select(&flat, 0)?.reshape(index.shape())
    }
}
