//! Side indices of frames, for codec models that take them (spec 6.12).

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use anyhow::{Error, Result, anyhow, bail};
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
    /// Name of their tensor, I32, U32, I64 or U64 [T] or [1, T]. Default: ids.
    #[arg(long, value_name = "NAME")]
    side_tensor: Option<String>,
}

/// Side indices of all frames.
pub(crate) struct Indices {
    /// Each at most V.
    pub(crate) indices: Vec<u32>,
    /// Where they are from, in messages.
    pub(crate) from: String,
}

impl Indices {
    /// Those of `count` frames from number `first` on.
    ///
    /// # Errors
    /// There are fewer.
    pub(crate) fn of(&self, first: u64, count: usize) -> Result<&[u32]> {
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        self.indices.get(first..first.saturating_add(count)).ok_or_else(|| self.too_few())
    }

    fn too_few(&self) -> Error {
        anyhow!("{}: {} side indices, fewer than frames", self.from, self.indices.len())
    }

    /// Checks that every one of so many frames has one, and no more are there.
    ///
    /// # Errors
    /// There are fewer or more.
    pub(crate) fn check(&self, frames: u64) -> Result<()> {
        match (self.indices.len() as u64).cmp(&frames) {
            Ordering::Less => Err(self.too_few()),
            Ordering::Greater => bail!("{}: {} side indices for {frames} frames", self.from, self.indices.len()),
            Ordering::Equal => Ok(()),
        }
    }
}

impl SideArgs {
    /// The file that they are in.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.side.as_deref()
    }

    fn tensor(&self) -> &str {
        self.side_tensor.as_deref().unwrap_or("ids")
    }

    /// The side indices, if they are given. Those that the model does not have become V, which says that a frame has none.
    ///
    /// # Errors
    /// The file has no such tensor; or the codec model takes no side indices.
    pub(crate) fn load(&self, codec: &Codec) -> Result<Option<Indices>> {
        match (&self.side, codec.model().side()) {
            (None, _) => Ok(None),
            (Some(path), Some(side)) => self.read(path, side, "--side".into()).map(Some),
            (Some(_), None) => bail!("--side: the codec model takes no side indices"),
        }
    }

    /// Those of [`SideArgs::load`]; where `--side` names no file, those that the file of the hidden states holds. `None`
    /// if there are none, which is said if the model takes them, unless they are `needed`.
    ///
    /// # Errors
    /// As [`SideArgs::load`]; they are needed and there are none; or there are fewer or more than frames.
    pub(crate) fn load_for(
        &self,
        codec: &Codec,
        input: &Path,
        states: &States,
        needed: bool,
    ) -> Result<Option<Indices>> {
        let own = match codec.model().side() {
            Some(side) if self.side.is_none() => self.in_input(input, states, side)?,
            _ => self.load(codec)?,
        };
        if own.is_none() && needed {
            bail!("--side-known: there are no side indices");
        }
        if own.is_none() && codec.model().side().is_some() {
            let (name, tensor) = (input_name(input), self.tensor());
            let why = if states.has(tensor) {
                format!("{name} is read once, so its tensor {tensor:?} is not taken")
            } else {
                format!("{name} has no tensor {tensor:?}")
            };
            say(&format!("warning: {why}: frames are coded without tokens and take more bits (--side FILE)"));
        }
        own.iter().zip(states.left()).try_for_each(|(own, frames)| own.check(frames))?;
        Ok(own)
    }

    /// Those in the file of the hidden states.
    fn in_input(&self, input: &Path, states: &States, side: &Side) -> Result<Option<Indices>> {
        let name = format!("{}: tensor {:?}", input_name(input), self.tensor());
        if !states.has(self.tensor()) {
            return if self.side_tensor.is_some() { bail!("{name}: there is none") } else { Ok(None) };
        }
        // What is no file cannot be read twice. Standard input is none, even where a file is called -.
        if !is_standard(input) && std::fs::metadata(input).is_ok_and(|input| input.is_file()) {
            self.read(input, side, name).map(Some)
        } else {
            Ok(None)
        }
    }

    fn read(&self, path: &Path, side: &Side, from: String) -> Result<Indices> {
        let indices = capture::load_integers(path, self.tensor())?;
        let unknown = indices.iter().filter(|index| **index > side.vocabulary().into()).count();
        if unknown > 0 {
            let all = indices.len();
            say(&format!("{from}: the codec model does not know {unknown} of {all} tokens: they count as none"));
        }
        Ok(Indices { indices: indices.into_iter().map(|index| side.index_of(index)).collect(), from })
    }
}

/// Side indices of frames that have none, if the model takes any.
fn none(codec: &Codec, frames: usize) -> Option<Vec<u32>> {
    codec.model().side().map(|side| vec![side.vocabulary(); frames])
}

/// Says that the next frames have no side indices, if the model takes any.
///
/// # Errors
/// The stream has ended.
pub(crate) fn set_none<E: Engine>(encoder: &mut Encoder<E>, frames: usize) -> midspan::error::Result<()> {
    send_none(encoder, frames, SideDelivery::Known)
}

/// The same, known to the decoder from where `delivery` says.
///
/// # Errors
/// The stream has ended.
pub(crate) fn send_none<E: Engine>(
    encoder: &mut Encoder<E>,
    frames: usize,
    delivery: SideDelivery,
) -> midspan::error::Result<()> {
    match none(encoder.codec(), frames) {
        Some(indices) => encoder.set_side(&indices, delivery),
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
