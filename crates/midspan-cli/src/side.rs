//! Side indices of frames, for codec models that take them (spec 6.12).

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;

use super::files::{input_name, is_standard};
use super::tensor::States;
use super::terminal::say;
use midspan::codec::{Codec, Decoder, Encoder, SideDelivery};
use midspan::engine::Engine;
use midspan::model::side::Side;
use midspan_train::calibrate::capture;

/// Where side indices come from.
#[derive(Clone, Debug, Args)]
pub(crate) struct SideArgs {
    /// Side indices (token ids) of all frames, for codec models that take them: a .safetensors file, which may be that of
    /// the hidden states.
    #[arg(long, value_name = "FILE")]
    side: Option<PathBuf>,
    /// Name of their tensor, I32, U32, I64 or U64 [T].
    #[arg(long, value_name = "NAME", default_value = "ids")]
    side_tensor: String,
}

impl SideArgs {
    /// The file that they are in.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.side.as_deref()
    }

    /// The side indices, if they are given. Those that the model does not have become V, which says that a frame has none.
    ///
    /// # Errors
    /// The file has no such tensor; or the codec model takes no side indices.
    pub(crate) fn load(&self, codec: &Codec) -> Result<Option<Vec<u32>>> {
        match (&self.side, codec.model().side()) {
            (None, _) => Ok(None),
            (Some(path), Some(side)) => self.read(path, side).map(Some),
            (Some(_), None) => bail!("--side: the codec model takes no side indices"),
        }
    }

    /// Those of [`SideArgs::load`]; where `--side` names no file, those that the file of the hidden states holds. `None`
    /// if there are none, which is said if the model takes them.
    ///
    /// # Errors
    /// As [`SideArgs::load`].
    pub(crate) fn load_for(&self, codec: &Codec, input: &Path, states: &States) -> Result<Option<Vec<u32>>> {
        match codec.model().side() {
            Some(side) if self.side.is_none() => {
                // Standard input cannot be read twice.
                if states.has(&self.side_tensor) && !is_standard(input) {
                    return self.read(input, side).map(Some);
                }
                say(&format!(
                    "warning: {}: no side indices, so that frames take more bits: the codec model was made for one a \
                     frame (--side)",
                    input_name(input)
                ));
                Ok(None)
            }
            _ => self.load(codec),
        }
    }

    fn read(&self, path: &Path, side: &Side) -> Result<Vec<u32>> {
        let indices = capture::load_integers(path, &self.side_tensor)?;
        let unknown = indices.iter().filter(|index| **index > side.vocabulary().into()).count();
        if unknown > 0 {
            let all = indices.len();
            say(&format!("--side: the codec model does not know {unknown} of {all} tokens: they count as none"));
        }
        Ok(indices.into_iter().map(|index| side.index_of(index)).collect())
    }
}

/// Side indices of frames that have none, if the model takes any.
pub(crate) fn none(codec: &Codec, frames: usize) -> Option<Vec<u32>> {
    codec.model().side().map(|side| vec![side.vocabulary(); frames])
}

/// Says that the next frames have no side indices, if the model takes any.
///
/// # Errors
/// The stream has ended.
pub(crate) fn set_none<E: Engine>(encoder: &mut Encoder<E>, frames: usize) -> midspan::error::Result<()> {
    match none(encoder.codec(), frames) {
        Some(indices) => encoder.set_side(&indices, SideDelivery::Known),
        None => Ok(()),
    }
}

/// Says the same at the decoder's end, which asked for the side indices of so many frames.
///
/// # Errors
/// The decoder did not ask.
pub(crate) fn give_none<E: Engine>(decoder: &mut Decoder<E>, frames: usize) -> midspan::error::Result<()> {
    let indices = none(decoder.codec(), frames).unwrap_or_default();
    decoder.give_side(&indices)
}
