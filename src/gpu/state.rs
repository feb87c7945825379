//! The context of a network on a device, for tensors or kernels.

#[cfg(any(feature = "kernels", feature = "cuda"))]
use super::kernels::KernelState;
use super::shape::Shape;
use super::tensors::TensorState;
use crate::codec::Context;
use crate::error::{Detail, Error, ErrorKind, Result};
use crate::exact::Network;

/// Keys and values of one network in one context on a device. A clone is a fork.
#[derive(Clone, Debug)]
pub struct DeviceState(State);

#[derive(Clone, Debug)]
enum State {
    /// Before the first frame. Only that frame decides how keys and values are kept.
    Empty(Shape, u32),
    Tensors(TensorState),
    #[cfg(any(feature = "kernels", feature = "cuda"))]
    Kernels(KernelState),
}

impl DeviceState {
    /// The context as tensors.
    ///
    /// # Errors
    /// [`ErrorKind::WrongModel`] if kernels keep it.
    pub(super) fn tensors(&mut self) -> Result<&mut TensorState> {
        if let State::Empty(shape, max_rewind) = &self.0 {
            self.0 = State::Tensors(TensorState::of_shape(shape.clone(), *max_rewind));
        }
        match &mut self.0 {
            State::Tensors(state) => Ok(state),
            _ => Err(Error::of_call(ErrorKind::WrongModel).with_detail("a context that kernels keep")),
        }
    }

    /// The context as kernels keep it.
    ///
    /// # Errors
    /// [`ErrorKind::WrongModel`] if it is kept as tensors.
    #[cfg(any(feature = "kernels", feature = "cuda"))]
    pub(super) fn kernels(&mut self) -> Result<&mut KernelState> {
        if let State::Empty(shape, max_rewind) = &self.0 {
            self.0 = State::Kernels(KernelState::of_shape(shape.clone(), *max_rewind));
        }
        match &mut self.0 {
            State::Kernels(state) => Ok(state),
            _ => Err(Error::of_call(ErrorKind::WrongModel).with_detail("a context of tensors")),
        }
    }
}

impl Context for DeviceState {
    const WHOLE_CHUNKS: bool = true;

    fn open(network: &Network, max_rewind: u32) -> Self {
        Self(State::Empty(network.shape(), max_rewind))
    }

    /// The most bytes that either of the two takes.
    fn required_bytes(network: &Network, max_rewind: u32) -> usize {
        let shape = network.shape();
        let bytes = TensorState::required_bytes(&shape, max_rewind);
        #[cfg(any(feature = "kernels", feature = "cuda"))]
        let bytes = bytes.max(KernelState::required_bytes(&shape, max_rewind));
        bytes
    }

    fn bytes_after(&self, frames: usize) -> usize {
        match &self.0 {
            // The larger of the two.
            State::Empty(shape, max_rewind) => {
                let bytes = TensorState::of_shape(shape.clone(), *max_rewind).bytes_after(frames);
                #[cfg(any(feature = "kernels", feature = "cuda"))]
                let bytes = bytes.max(KernelState::required_bytes(shape, *max_rewind));
                bytes
            }
            State::Tensors(state) => state.bytes_after(frames),
            #[cfg(any(feature = "kernels", feature = "cuda"))]
            State::Kernels(state) => state.bytes_after(),
        }
    }

    fn memory_bytes(&self) -> usize {
        match &self.0 {
            State::Empty(..) => 0,
            State::Tensors(state) => state.memory_bytes(),
            #[cfg(any(feature = "kernels", feature = "cuda"))]
            State::Kernels(state) => state.memory_bytes(),
        }
    }

    fn truncate(&mut self, position: u64) -> Result<()> {
        match &mut self.0 {
            State::Empty(..) if position == 0 => Ok(()),
            State::Empty(..) => {
                let found = i64::try_from(position).unwrap_or(i64::MAX);
                let detail = Detail::Range { what: "position to go back to", low: 0, high: 0, found };
                Err(Error::of_call(ErrorKind::RewindTarget).with(detail))
            }
            State::Tensors(state) => state.truncate(position),
            #[cfg(any(feature = "kernels", feature = "cuda"))]
            State::Kernels(state) => state.truncate(position),
        }
    }

    fn reset(&mut self) {
        match &mut self.0 {
            State::Empty(..) => {}
            State::Tensors(state) => state.reset(),
            #[cfg(any(feature = "kernels", feature = "cuda"))]
            State::Kernels(state) => state.reset(),
        }
    }
}
