//! Linear maps on either side of the quantiser (spec 4.4, 4.10).

use super::network::{Invalid, invalid};
use super::tensor::{File, Tensor};
use super::{ANALYSIS, SYNTHESIS, check_floats};
use crate::error::{ErrorKind, Result};

/// A map before or after the quantiser.
#[derive(Clone, Debug, PartialEq)]
pub enum Map {
    /// \[E, E\], finite: rows are outputs.
    Full(Vec<f32>),
    /// A row for each channel.
    Sparse(SparseMap),
}

impl Map {
    /// The values of a full map, \[E, E\].
    #[must_use]
    pub fn full(&self) -> Option<&[f32]> {
        match self {
            Map::Full(map) => Some(map),
            Map::Sparse(_) => None,
        }
    }

    /// A sparse causal map.
    #[must_use]
    pub fn sparse(&self) -> Option<&SparseMap> {
        match self {
            Map::Full(_) => None,
            Map::Sparse(map) => Some(map),
        }
    }

    /// The kind of the map as `decoder.config` states it.
    pub(super) fn kind(map: Option<&Map>) -> i32 {
        match map {
            None => 0,
            Some(Map::Full(_)) => 1,
            Some(Map::Sparse(_)) => 2,
        }
    }

    /// Checks a map of hidden states of this width.
    pub(super) fn check(&self, width: usize, name: &str) -> Result<(), Invalid> {
        match self {
            Map::Full(map) => check_floats(map, width.saturating_mul(width), name, |_| true),
            Map::Sparse(map) => map.check(width, name),
        }
    }

    /// Reads the synthesis, or the analysis, of a model whose config states this kind.
    pub(super) fn read(file: &mut File<'_>, kind: i32, width: usize, name: &str) -> Result<Option<Map>> {
        Ok(match kind {
            0 => None,
            1 => Some(Map::Full(file.take(name, &[width, width])?)),
            _ => {
                let count: Vec<u16> = file.take(&format!("{name}.count"), &[width])?;
                let entries = entries(&count);
                // [SPARSE-1] index and weight have as many as the counts say.
                Some(Map::Sparse(SparseMap {
                    count,
                    index: file.take(&format!("{name}.index"), &[entries])?,
                    weight: file.take(&format!("{name}.weight"), &[entries])?,
                }))
            }
        })
    }

    /// The map's tensors.
    pub(super) fn write(&self, width: usize, name: &str, tensors: &mut Vec<Tensor>) {
        match self {
            Map::Full(map) => tensors.push(Tensor::new(name, &[width, width], map)),
            Map::Sparse(SparseMap { count, index, weight }) => {
                tensors.push(Tensor::new(format!("{name}.count"), &[count.len()], count));
                tensors.push(Tensor::new(format!("{name}.index"), &[index.len()], index));
                tensors.push(Tensor::new(format!("{name}.weight"), &[weight.len()], weight));
            }
        }
    }
}

/// A sparse causal map: for each channel a row of some of the channels before it (spec 4.10).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SparseMap {
    /// \[E\]: entries of each channel's row.
    pub count: Vec<u16>,
    /// The channel that each entry reads, row after row; strictly rising within a row, and below the row's channel.
    pub index: Vec<u16>,
    /// The finite weight of each entry.
    pub weight: Vec<f32>,
}

impl SparseMap {
    /// Indices and weights of each channel's row, in order.
    pub fn rows(&self) -> impl Iterator<Item = (&[u16], &[f32])> + '_ {
        let (mut index, mut weight) = (self.index.as_slice(), self.weight.as_slice());
        self.count.iter().map(move |count| {
            let entries = usize::from(*count).min(index.len()).min(weight.len());
            let (own_index, index_left) = index.split_at_checked(entries).unwrap_or_default();
            let (own_weight, weight_left) = weight.split_at_checked(entries).unwrap_or_default();
            (index, weight) = (index_left, weight_left);
            (own_index, own_weight)
        })
    }

    fn check(&self, width: usize, name: &str) -> Result<(), Invalid> {
        let fault = |kind, tensor: &str, problem| Err(invalid(kind, format!("{name}.{tensor}"), problem));
        // [SPARSE-1]
        if self.count.len() != width {
            return fault(ErrorKind::ModelTensorShape, "count", "not one entry a channel");
        }
        let total = entries(&self.count);
        if self.index.len() != total {
            return fault(ErrorKind::ModelTensorShape, "index", "its length is not the sum of the counts");
        }
        check_floats(&self.weight, total, &format!("{name}.weight"), |_| true)?;
        let rises = |index: &[u16]| index.windows(2).all(|pair| pair.first() < pair.last());
        let before = |channel: usize, index: &[u16]| index.last().is_none_or(|last| usize::from(*last) < channel);
        if !self.rows().enumerate().all(|(channel, (index, _))| rises(index) && before(channel, index)) {
            return fault(
                ErrorKind::ModelValue,
                "index",
                "a row that does not rise, or does not end before its channel",
            );
        }
        Ok(())
    }
}

/// The entries of all rows.
fn entries(count: &[u16]) -> usize {
    count.iter().map(|count| usize::from(*count)).fold(0, usize::saturating_add)
}

/// Checks that both maps are of one kind (\[MODEL-2\]).
pub(super) fn check_kinds(synthesis: Option<&Map>, analysis: Option<&Map>) -> Result<(), Invalid> {
    if Map::kind(synthesis) == Map::kind(analysis) {
        return Ok(());
    }
    let name = if synthesis.is_none() { SYNTHESIS } else { ANALYSIS };
    Err(invalid(ErrorKind::ModelTensorMissing, name, "maps of two kinds, or on one side alone"))
}
