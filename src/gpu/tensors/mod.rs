//! The exact network as candle tensors, without kernels of its own: on any candle device, the CPU's among them.
//!
//! Spec chapter 5 bounds every intermediate, so that tensors of floats, or of floats for products and 64-bit integers
//! beside them, hold each exactly ([`Carrier`]). Slower than [`crate::exact`] on a CPU and than the kernels on CUDA; what
//! it is for is every other device, and a second opinion.
//!
//! ```
//! use candle_core::Device;
//! use midspan::exact::{Arm, Network, Serial, State};
//! use midspan::gpu::tensors::{Carrier, TensorNetwork, TensorState};
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
mod product;
mod state;

pub use carrier::Carrier;
pub use state::TensorState;

use candle_core::{DType, Device, Tensor};

use super::error::{Error, Result};
use crate::error::ErrorKind;
use crate::model::{Linear, NetworkParameters};
use block::{Block, Reach};
use carrier::Power;
use product::Weights;

/// Frames that pass through all blocks together: bounds the memory of the attention's scores.
const TILE: usize = 128;

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

    /// round_shift(x · multiplier, shift).
    fn apply(&self, carrier: Carrier, x: &Tensor) -> candle_core::Result<Tensor> {
        carrier.round_shift(&x.broadcast_mul(&self.multiplier)?, &self.power)
    }
}

/// A linear layer with its only scale.
struct Layer {
    weights: Weights,
    scale: Scale,
}

impl Layer {
    /// Of layers with the same inputs, one below the other.
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

/// Numbers that stand in for scalars, which would be a multiplication and an addition fused.
struct Constants {
    bounds: [(Tensor, Tensor); 4],
    norm_unit: Tensor,
    norm_power: Power,
    attention_one: Tensor,
    attention_power: Power,
    activation_middle: Tensor,
    exp_last: Tensor,
}

/// Where values are clamped.
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
        let pair = |low: i64, high: i64| candle_core::Result::Ok((number(low)?, number(high)?));
        Ok(Constants {
            bounds: [pair(-32_767, 32_767)?, pair(-2_047, 2_047)?, pair(-2_048, 2_047)?, pair(-1 << 20, 1 << 20)?],
            norm_unit: number(256)?,
            norm_power: Power::new(carrier, &[20], &[1], device)?,
            attention_one: number(1 << 36)?,
            attention_power: Power::new(carrier, &[36], &[1], device)?,
            activation_middle: number(2_048)?,
            exp_last: number(1_023)?,
        })
    }

    fn clamp(&self, carrier: Carrier, x: &Tensor, bounds: Bounds) -> candle_core::Result<Tensor> {
        let (low, high) = &self.bounds[bounds as usize];
        carrier.clamp(x, low, high)
    }
}

/// What the last layer depends on the quality for.
struct Output {
    scale: Scale,
    /// \[outputs\].
    offset: Tensor,
}

/// A network's parameters on a device. Immutable; any number of states may run on it.
pub struct TensorNetwork {
    carrier: Carrier,
    device: Device,
    window: usize,
    inputs: usize,
    outputs: usize,
    constants: Constants,
    /// \[1025\]: the exp table, and 0 for frames out of the window.
    exp: Tensor,
    /// \[4096\].
    activation: Tensor,
    /// For each quality.
    input: Vec<Scale>,
    blocks: Vec<Block>,
    output_norm: Option<Tensor>,
    output: Weights,
    /// For each quality.
    scales: Vec<Output>,
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
    /// Brings parameters to a device.
    ///
    /// # Errors
    /// [`Error::Device`].
    ///
    /// # Panics
    /// If the parameters do not pass [`NetworkParameters::validate`], on which exactness rests.
    pub fn new(parameters: &NetworkParameters, carrier: Carrier, device: &Device) -> Result<TensorNetwork> {
        if let Err(invalid) = parameters.validate() {
            panic!("parameters of a network that are not valid: {invalid}");
        }
        let (inputs, outputs) = (parameters.inputs(), parameters.outputs.len());
        let of = |quality: usize, rows: usize| quality * rows..(quality + 1) * rows;
        let bounds: Vec<(i32, i32)> = (0..outputs).map(|row| parameters.outputs.bounds(row)).collect();
        let number = |values: &mut dyn Iterator<Item = i64>, len: usize| carrier.tensor(values, &[len], device);
        let exp = parameters.exp.iter().map(|e| i64::from(*e)).chain([0]);
        Ok(TensorNetwork {
            constants: Constants::new(carrier, device)?,
            exp: number(&mut { exp }, parameters.exp.len() + 1)?,
            activation: number(&mut parameters.activation.iter().map(|a| i64::from(*a)), parameters.activation.len())?,
            input: (0..parameters.qualities)
                .map(|q| {
                    let own = of(q, inputs);
                    let multiplier = &parameters.input_multiplier[own.clone()];
                    Scale::new(carrier, multiplier, &parameters.input_shift[own], &[inputs], device)
                })
                .collect::<Result<_>>()?,
            blocks: (0..parameters.blocks.len())
                .map(|b| Block::new(parameters, b, carrier, device))
                .collect::<Result<_>>()?,
            output_norm: parameters
                .output_norm
                .map(|numerator| carrier.tensor(std::iter::once(numerator), &[1], device))
                .transpose()?,
            output: Weights::new(carrier, &[&parameters.output], device)?,
            scales: (0..parameters.qualities)
                .map(|q| {
                    let own = of(q, outputs);
                    let multiplier = &parameters.output.multiplier[own.clone()];
                    let shift = &parameters.output.shift[own.clone()];
                    let mut offset = parameters.output_offset[own].iter().map(|o| i64::from(*o));
                    Ok(Output {
                        scale: Scale::new(carrier, multiplier, shift, &[outputs], device)?,
                        offset: number(&mut offset, outputs)?,
                    })
                })
                .collect::<Result<_>>()?,
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
    fn shape(&self) -> (Vec<(usize, usize)>, usize) {
        (self.blocks.iter().map(Block::shape).collect(), self.window)
    }

    fn window(&self) -> usize {
        self.window
    }

    /// Integers as an input, \[T, d_0\].
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`] unless they are whole frames; [`Error::Device`].
    pub fn input(&self, values: &[i16]) -> Result<Tensor> {
        if !values.len().is_multiple_of(self.inputs) {
            return Err(Error::codec(ErrorKind::WrongShape, "the input is not a number of frames"));
        }
        let values_i64 = values.iter().map(|v| i64::from(*v));
        Ok(self.carrier.tensor(values_i64, &[values.len() / self.inputs, self.inputs], &self.device)?)
    }

    /// An output's integers, row by row.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn read(&self, output: &Tensor) -> Result<Vec<i32>> {
        // Outputs are within ± 2^20: exact in every type on the way.
        let values = output.flatten_all()?.to_dtype(DType::I64)?.to_vec1::<i64>()?;
        Ok(values.into_iter().map(|v| v as i32).collect())
    }

    /// Runs the next T frames of a context: `input` is \[T, d_0\], the result \[T, outputs\], both tensors of numbers of
    /// this network's carrier. The context moves on by T frames.
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`], [`ErrorKind::UnknownQuality`]; [`Error::Device`]. The state is then unchanged.
    pub fn run(&self, state: &mut TensorState, input: &Tensor, quality: usize) -> Result<Tensor> {
        let shape = input.dims2().ok().filter(|(_, width)| *width == self.inputs);
        let Some((frames, _)) = shape.filter(|_| input.dtype() == self.carrier.number()) else {
            return Err(Error::codec(ErrorKind::WrongShape, "the input is not [T, d_0] numbers"));
        };
        if !state.fits(self) {
            return Err(Error::codec(ErrorKind::WrongShape, "the state of another network"));
        }
        let (Some(scale), Some(last)) = (self.input.get(quality), self.scales.get(quality)) else {
            return Err(Error::codec(ErrorKind::UnknownQuality, "a quality that the model lacks"));
        };
        // The tensors of a state are never written to: the copy is of a few pointers.
        let mut next = state.clone();
        let mut outputs = Vec::with_capacity(frames.div_ceil(TILE));
        for first in (0..frames).step_by(TILE) {
            let tile = input.narrow(0, first, TILE.min(frames - first))?;
            outputs.push(self.run_tile(&mut next, &tile, scale, last)?);
        }
        let output = match outputs.as_slice() {
            [] => Tensor::zeros((0, self.outputs), self.carrier.number(), &self.device)?,
            [only] => only.clone(),
            tiles => Tensor::cat(tiles, 0)?,
        };
        *state = next;
        Ok(output)
    }

    fn run_tile(&self, state: &mut TensorState, input: &Tensor, scale: &Scale, last: &Output) -> Result<Tensor> {
        let (carrier, frames) = (self.carrier, input.dim(0)?);
        let held = state.held().min(self.window - 1);
        let reach = Reach::new(carrier, frames, held, self.window, &self.device)?;
        // Spec 5.5, step 1.
        let mut x = self.constants.clamp(carrier, &scale.apply(carrier, input)?, Bounds::Activation)?;
        for (b, block) in self.blocks.iter().enumerate() {
            x = block.run(self, state, b, &x, &reach)?;
        }
        state.advance(frames)?;
        // Steps 3 and 4.
        if let Some(numerator) = &self.output_norm {
            x = self.norm(&x, numerator)?;
        }
        let sums = last.scale.apply(carrier, &self.output.sums(carrier, &x)?)?;
        Ok(carrier.clamp(&sums.broadcast_add(&last.offset)?, &self.low, &self.high)?)
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

    /// Entries of a table, \[…\] → \[…\].
    fn look_up(&self, table: &Tensor, index: &Tensor) -> candle_core::Result<Tensor> {
        let flat = index.flatten_all()?.to_dtype(DType::U32)?;
        table.index_select(&flat, 0)?.reshape(index.shape())
    }
}
