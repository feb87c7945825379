//! The frozen codec model: what is in its file, and when it is refused (spec chapter 4).
//!
//! A [`CodecModel`] holds integers that have passed every check of the chapter: the two integer networks, the table
//! banks and the quantiser's rows. [`CodecModel::from_bytes`] reads a file, [`CodecModel::new`] takes the parts that an
//! exporter has made, and both apply the same checks.
//!
//! ```
//! use midspan::model::CodecModel;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = "src/example.safetensors";
//! let file = std::fs::read(path)?;
//! let model = CodecModel::from_bytes(&file, 1 << 20)?; // takes at most 1 MiB of memory
//! let again = CodecModel::from_bytes(&model.to_bytes(), 1 << 20)?;
//! assert_eq!(again.fingerprint(), model.fingerprint());
//! # Ok(())
//! # }
//! ```

mod file;
pub(crate) mod header;
mod host;
mod map;
pub mod network;
pub mod prediction;
pub mod side;
// It makes models, and reads none.
#[cfg(any(test, feature = "testing"))]
#[allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
pub mod synthetic;
mod tensor;
pub use tensor::header_memory;

pub use host::{HostDigest, HostTensor, host_digest, host_digest_of_file};
pub use map::{Map, SparseMap};
pub use network::{Block, Invalid, Linear, NetworkParameters, Outputs};

use crate::entropy::{Bank, BankError};
use crate::error::{ErrorKind, Result};
use crate::number::to_u64;
use crate::wire::header::MAX_LENGTH_OFFSET;
use network::invalid;
use prediction::{Prediction, Predictor};
use side::{Side, SideParts};

/// The largest number of tables in a bank (\[MODEL-7\]).
pub const TABLES_MAX: usize = 65_536;
/// The largest C (spec 4.1).
pub const HYPER_PRIOR_MAX: usize = 4_096;

/// A bank of tables as it is in the file (spec 4.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// First value of each table.
    pub first: Vec<i32>,
    /// m, the number of values of each table, 1 … 4,096.
    pub size: Vec<u16>,
    /// c\[1\] … c\[m+1\] of each table, table after table.
    pub boundaries: Vec<u16>,
}

const SYNTHESIS: &str = "decoder.synthesis";
const ANALYSIS: &str = "encoder.analysis";
const LENGTH_OFFSET: &str = "encoder.quality.length_offset";
const EXPECTED_BITS: &str = "encoder.quality.expected_bits";

/// What only an encoder needs (spec 4.5).
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderPart {
    /// h.
    pub network: NetworkParameters,
    /// \[Q, E\], finite and above 0.
    pub reciprocal_step: Vec<f32>,
    /// \[Q\], finite and not below 0: squared steps per bit (spec 6.8).
    pub rate_weight: Vec<f32>,
    /// \[Q\], 0 … 16,383: the length offset for one-frame chunks (spec 2.3, 4.4).
    pub length_offset: Vec<u16>,
    /// \[Q\], finite and not below 0: mean bits of the payloads of a frame (spec 4.4), 0 where they are not known.
    pub expected_bits: Vec<f32>,
    /// The map before the quantiser, if the model has one after it; of the same kind.
    pub analysis: Option<Map>,
}

/// The parts of a model before they are checked: what an exporter fills in.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelParts {
    /// Information, 0 … 2^31 − 1.
    pub version: u32,
    /// E, hidden width.
    pub e: usize,
    /// C, hyper-prior width.
    pub c: usize,
    /// Q, number of qualities.
    pub qualities: usize,
    /// (w_min, w_max).
    pub w_range: (i16, i16),
    /// (y_min, y_max).
    pub y_range: (i16, i16),
    /// f of each scale, 0 … 6; its length is S.
    pub fraction_bits: Vec<u8>,
    /// Q · C tables, table quality · C + channel.
    pub hyper_prior: Tables,
    /// Σ 2^f tables, scale after scale.
    pub target: Tables,
    /// \[Q, E\], finite and above 0.
    pub step: Vec<f32>,
    /// \[Q, E\], finite.
    pub offset: Vec<f32>,
    /// The map in the reconstruction (spec 6.7), if there is one.
    pub synthesis: Option<Map>,
    /// What the model knows of side indices, if it takes any.
    pub side: Option<SideParts>,
    /// How Y is predicted from the frames before, if it is.
    pub prediction: Option<Prediction>,
    /// g_y. Its inputs are W, and the sums of side indices after it.
    pub decoder_network: NetworkParameters,
    /// h and the reciprocal steps.
    pub encoder: Option<EncoderPart>,
}

/// Number of target tables: the sum of 2^f over the scales, each f at most 6.
fn target_tables(fraction_bits: &[u8]) -> usize {
    fraction_bits.iter().fold(0usize, |sum, &bits| sum.saturating_add(1 << bits.min(6)))
}

impl ModelParts {
    /// Checks everything except the tables, which [`ModelParts::banks`] checks.
    fn check(&self) -> Result<(), Invalid> {
        let config = |holds: bool, detail| {
            // [MODEL-3]
            if holds { Ok(()) } else { Err(invalid(ErrorKind::ModelConfig, "decoder.config", detail)) }
        };
        let range = |(low, high): (i16, i16)| low > i16::MIN && low <= 0 && high >= 0 && low < high;
        config(i32::try_from(self.version).is_ok(), "the model version is not 0 to 2^31 − 1")?;
        config((1..=65_536).contains(&self.e), "E is not 1 to 65,536")?;
        config((1..=HYPER_PRIOR_MAX).contains(&self.c), "C is not 1 to 4,096")?;
        config((1..=256).contains(&self.qualities), "Q is not 1 to 256")?;
        config(range(self.w_range), "the range of W lacks 0, is empty or leaves ± 32,767")?;
        config(range(self.y_range), "the range of Y lacks 0, is empty or leaves ± 32,767")?;
        config((1..=256).contains(&self.fraction_bits.len()), "S is not 1 to 256")?;
        let outputs = Outputs::Distribution { elements: self.e, scales: self.fraction_bits.len() };
        let side = self.side.as_ref().map_or(0, |side| side.width);
        self.check_network(&self.decoder_network, "decoder.network.", self.c.saturating_add(side), outputs)?;
        self.side.as_ref().map_or(Ok(()), SideParts::check)?;
        self.prediction.as_ref().map_or(Ok(()), |prediction| prediction.check(self.qualities, self.e))?;
        // [MODEL-5]
        if self.fraction_bits.iter().any(|&bits| bits > 6) {
            return Err(invalid(ErrorKind::ModelValue, "decoder.target.fraction_bits", "a value above 6"));
        }
        let values = self.qualities.saturating_mul(self.e);
        check_floats(&self.step, values, "decoder.quality.step", |x| x > 0.0)?;
        check_floats(&self.offset, values, "decoder.quality.offset", |_| true)?;
        if let Some(synthesis) = &self.synthesis {
            synthesis.check(self.e, SYNTHESIS)?;
        }
        if let Some(encoder) = &self.encoder {
            let (min, max) = (self.w_range.0.into(), self.w_range.1.into());
            let outputs = Outputs::HyperPrior { channels: self.c, min, max };
            self.check_network(&encoder.network, "encoder.network.", self.e, outputs)?;
            check_floats(&encoder.reciprocal_step, values, "encoder.quality.reciprocal_step", |x| x > 0.0)?;
            check_floats(&encoder.rate_weight, self.qualities, "encoder.quality.rate_weight", |x| x >= 0.0)?;
            check_length_offsets(&encoder.length_offset, self.qualities)?;
            check_expected_bits(&encoder.expected_bits, self.qualities)?;
            map::check_kinds(self.synthesis.as_ref(), encoder.analysis.as_ref())?;
            if let Some(analysis) = &encoder.analysis {
                analysis.check(self.e, ANALYSIS)?;
            }
        }
        Ok(())
    }

    fn check_network(
        &self,
        network: &NetworkParameters,
        prefix: &str,
        inputs: usize,
        outputs: Outputs,
    ) -> Result<(), Invalid> {
        let name = |tensor: &str| format!("{prefix}{tensor}");
        // [MODEL-5]
        if network.inputs() != inputs || network.outputs != outputs || network.qualities != self.qualities {
            return Err(invalid(ErrorKind::ModelConfig, name("widths"), "the network does not fit the configuration"));
        }
        // [MODEL-4], [MODEL-5]
        network.validate().map_err(|fault| Invalid { tensor: name(&fault.tensor), ..fault })
    }

    /// Checks both banks and builds them; the tables move out of the parts.
    fn banks(&mut self) -> Result<(Bank, Bank), Invalid> {
        let (low, high) = (i64::from(self.w_range.0), i64::from(self.w_range.1));
        let count = self.qualities.saturating_mul(self.c);
        // [MODEL-8]
        let inside = |first: i64, last: i64| low <= first && last <= high;
        let hyper_prior = bank(
            std::mem::take(&mut self.hyper_prior),
            "decoder.hyper_prior.",
            count,
            (inside, "a table has values outside the range of W"),
        )?;
        let count = target_tables(&self.fraction_bits);
        // [MODEL-9]
        let holds_zero = |first: i64, last: i64| first <= 0 && 0 <= last;
        let target = bank(
            std::mem::take(&mut self.target),
            "decoder.target.",
            count,
            (holds_zero, "a table lacks the value 0"),
        )?;
        Ok((hyper_prior, target))
    }
}

fn check_floats(values: &[f32], count: usize, name: &str, holds: impl Fn(f32) -> bool) -> Result<(), Invalid> {
    // [MODEL-2]
    if values.len() != count {
        return Err(invalid(ErrorKind::ModelTensorShape, name, "another number of elements"));
    }
    // [MODEL-10]
    if values.iter().all(|&x| x.is_finite() && holds(x)) {
        Ok(())
    } else {
        Err(invalid(ErrorKind::ModelValue, name, "a value that is not finite or out of its range"))
    }
}

fn check_length_offsets(values: &[u16], count: usize) -> Result<(), Invalid> {
    // [MODEL-2]
    if values.len() != count {
        return Err(invalid(ErrorKind::ModelTensorShape, LENGTH_OFFSET, "another number of elements"));
    }
    // [MODEL-5]
    if values.iter().all(|&offset| offset <= MAX_LENGTH_OFFSET) {
        Ok(())
    } else {
        Err(invalid(ErrorKind::ModelValue, LENGTH_OFFSET, "a value above 16,383"))
    }
}

fn check_expected_bits(values: &[f32], count: usize) -> Result<(), Invalid> {
    check_floats(values, count, EXPECTED_BITS, |bits| bits >= 0.0)
}

/// Checks the tables of one bank and builds it; `holds` judges the first and last value of a table, and `problem` says
/// what it found.
fn bank(
    tables: Tables,
    prefix: &str,
    count: usize,
    (holds, problem): (impl Fn(i64, i64) -> bool, &'static str),
) -> Result<Bank, Invalid> {
    let fault = |kind, name: &str, detail| invalid(kind, format!("{prefix}{name}"), detail);
    // [MODEL-7]
    if count > TABLES_MAX {
        return Err(fault(ErrorKind::ModelConfig, "first", "more than 65,536 tables"));
    }
    // [MODEL-2]
    if tables.first.len() != count || tables.size.len() != count {
        return Err(fault(ErrorKind::ModelTensorShape, "first", "not one entry a table"));
    }
    // [MODEL-5]
    if tables.size.iter().any(|m| !(1..=4_096).contains(m)) {
        return Err(fault(ErrorKind::ModelValue, "size", "a value outside 1 to 4,096"));
    }
    let last = |first: i32, m: u16| i64::from(first).saturating_add(i64::from(m)).saturating_sub(1);
    if tables.first.iter().zip(&tables.size).any(|(&first, &m)| !holds(i64::from(first), last(first, m))) {
        return Err(fault(ErrorKind::ModelTable, "first", problem));
    }
    // [MODEL-6]
    Bank::new(tables.first, &tables.size, tables.boundaries).map_err(|error| match error {
        BankError::Length { .. } => {
            fault(ErrorKind::ModelTensorShape, "boundaries", "its length is not the sum of m + 1")
        }
        _ => fault(ErrorKind::ModelTable, "boundaries", "they do not rise"),
    })
}

/// A frozen codec model that has passed every check of spec chapter 4.
#[derive(Clone, Debug)]
pub struct CodecModel {
    /// The tables have moved into the banks.
    parts: ModelParts,
    hyper_prior: Bank,
    target: Bank,
    side: Option<Side>,
    fingerprint: [u8; 32],
}

impl CodecModel {
    /// Checks the parts of a model.
    ///
    /// # Errors
    /// The first rule that is broken (7xx), and the tensor.
    pub fn new(mut parts: ModelParts) -> Result<CodecModel, Invalid> {
        parts.check()?;
        let (hyper_prior, target) = parts.banks()?;
        let side = match parts.side.take() {
            Some(mut side) => {
                let bank = side.bank()?;
                Some(Side::new(side, bank))
            }
            None => None,
        };
        let mut model = CodecModel { parts, hyper_prior, target, side, fingerprint: [0; 32] };
        model.fingerprint = file::fingerprint(&file::tensors(&model, false));
        Ok(model)
    }

    /// Reads a model file. `memory_limit`, in bytes, bounds the file and the memory for parsing its header: four times
    /// the header, and 128 bytes for every name, number and list in it. The model in memory is about as large as the
    /// file, plus 170 bytes for each of at most 131,072 tables; during reading there are three copies of it.
    ///
    /// # Errors
    /// One of 7xx with the offset in the file of the data of the tensor at fault (0 if it is missing), or 901.
    pub fn from_bytes(bytes: &[u8], memory_limit: usize) -> Result<CodecModel> {
        let (file, parts) = file::read(bytes, to_u64(memory_limit))?;
        CodecModel::new(parts).map_err(|invalid| file.error(&invalid))
    }

    /// The model as a file. Equal models give equal bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        file::write(&file::tensors(self, true), None)
    }

    /// [`CodecModel::to_bytes`] with an entry `host` in the file's metadata that says whose codec it is. It is for
    /// people; no reader uses it.
    #[must_use]
    pub fn to_bytes_for(&self, host: &str) -> Vec<u8> {
        file::write(&file::tensors(self, true), Some(host))
    }

    /// SHA-256 over all that a decoder uses (spec 4.6).
    #[must_use]
    pub fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    /// The model version, information.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.parts.version
    }

    /// E, values of a hidden state.
    #[must_use]
    pub fn hidden_width(&self) -> usize {
        self.parts.e
    }

    /// C, values of W in a frame.
    #[must_use]
    pub fn hyper_prior_width(&self) -> usize {
        self.parts.c
    }

    /// Q.
    #[must_use]
    pub fn qualities(&self) -> usize {
        self.parts.qualities
    }

    /// (w_min, w_max).
    #[must_use]
    pub fn w_range(&self) -> (i16, i16) {
        self.parts.w_range
    }

    /// (y_min, y_max).
    #[must_use]
    pub fn y_range(&self) -> (i16, i16) {
        self.parts.y_range
    }

    /// S.
    #[must_use]
    pub fn scales(&self) -> usize {
        self.parts.fraction_bits.len()
    }

    /// f of each scale, 0 … 6.
    #[must_use]
    pub fn fraction_bits(&self) -> &[u8] {
        &self.parts.fraction_bits
    }

    /// The number of the first target table of each scale (spec 4.3).
    pub fn target_bases(&self) -> impl Iterator<Item = u32> + '_ {
        self.parts.fraction_bits.iter().scan(0u32, |next, &bits| {
            let base = *next;
            *next = base.saturating_add(1 << bits.min(6));
            Some(base)
        })
    }

    /// Tables of W: table quality · C + channel.
    #[must_use]
    pub fn hyper_prior(&self) -> &Bank {
        &self.hyper_prior
    }

    /// Tables of Y: table base of the scale + fraction of the mean.
    #[must_use]
    pub fn target(&self) -> &Bank {
        &self.target
    }

    /// What the model knows of side indices, if it takes any (spec 4.8).
    #[must_use]
    pub fn side(&self) -> Option<&Side> {
        self.side.as_ref()
    }

    /// D, sums of side indices that g_y takes after W (spec 5.5); 0 if the model takes no side indices.
    #[must_use]
    pub fn side_width(&self) -> usize {
        self.side().map_or(0, Side::width)
    }

    /// How Y is predicted from the frames before, if it is (spec 4.9).
    #[must_use]
    pub fn prediction(&self) -> Option<&Prediction> {
        self.parts.prediction.as_ref()
    }

    /// P, how many frames back prediction looks; 0 if the model does not predict.
    #[must_use]
    pub fn predicted_from(&self) -> usize {
        self.prediction().map_or(0, |prediction| prediction.frames(self.parts.e))
    }

    /// What predicts Y of frames of a quality, if the model predicts (spec 6.13).
    #[must_use]
    pub fn predictor(&self, quality: usize) -> Option<Predictor<'_>> {
        self.prediction().map(|prediction| prediction.predictor(self.parts.e, quality))
    }

    /// Steps of a quality, \[E\].
    ///
    /// # Panics
    /// If there is no such quality.
    #[must_use]
    pub fn step(&self, quality: usize) -> &[f32] {
        self.row(&self.parts.step, quality)
    }

    /// Offsets of a quality, \[E\].
    ///
    /// # Panics
    /// If there is no such quality.
    #[must_use]
    pub fn offset(&self, quality: usize) -> &[f32] {
        self.row(&self.parts.offset, quality)
    }

    /// The range of a quality: for each of the E elements the smallest and the largest value that it can represent,
    /// offset + step · y_min and offset + step · y_max. An encoder clamps values more than half a step outside (spec
    /// 6.8).
    ///
    /// If the model has full maps, these are the ranges of the elements after [`CodecModel::analysis`], which is applied
    /// to the hidden state minus its offset; the offset is then not included. With sparse maps they are those of the
    /// elements' differences from what is predicted of them.
    ///
    /// # Panics
    /// If there is no such quality.
    pub fn range(&self, quality: usize) -> impl Iterator<Item = (f32, f32)> + '_ {
        let (low, high) = (f32::from(self.parts.y_range.0), f32::from(self.parts.y_range.1));
        let maps = self.parts.synthesis.is_some();
        self.step(quality).iter().zip(self.offset(quality)).map(move |(step, offset)| {
            let offset = if maps { 0.0 } else { *offset };
            (low * step + offset, high * step + offset)
        })
    }

    /// The range that every element of a quality can represent: from the largest lower end of [`CodecModel::range`] to
    /// the smallest upper end. A hidden state within it is never clamped.
    ///
    /// # Panics
    /// If there is no such quality.
    #[must_use]
    pub fn common_range(&self, quality: usize) -> (f32, f32) {
        let narrower = |all: (f32, f32), own: (f32, f32)| (all.0.max(own.0), all.1.min(own.1));
        self.range(quality).fold((f32::NEG_INFINITY, f32::INFINITY), narrower)
    }

    /// The map in the reconstruction (spec 6.7), if there is one.
    #[must_use]
    pub fn synthesis(&self) -> Option<&Map> {
        self.parts.synthesis.as_ref()
    }

    /// The map before the quantiser (spec 6.8); an encoder's part, if there is one.
    #[must_use]
    pub fn analysis(&self) -> Option<&Map> {
        self.parts.encoder.as_ref().and_then(|encoder| encoder.analysis.as_ref())
    }

    /// Reciprocal steps of a quality, \[E\]; an encoder's part.
    ///
    /// # Panics
    /// If there is no such quality.
    #[must_use]
    pub fn reciprocal_step(&self, quality: usize) -> Option<&[f32]> {
        self.parts.encoder.as_ref().map(|encoder| self.row(&encoder.reciprocal_step, quality))
    }

    /// The number of squared steps that an encoder of a quality gives for one bit (spec 6.8); 0 without an encoder's
    /// part.
    #[must_use]
    pub fn rate_weight(&self, quality: usize) -> f32 {
        let weights = self.parts.encoder.as_ref().map(|encoder| &encoder.rate_weight);
        weights.and_then(|weights| weights.get(quality)).copied().unwrap_or(0.0)
    }

    /// The length offset that suits the one-frame chunks of a quality (spec 2.3): joined ones, with a check of one byte.
    /// An encoder may use another; 0 without an encoder's part.
    #[must_use]
    pub fn length_offset(&self, quality: usize) -> u16 {
        let offsets = self.parts.encoder.as_ref().map(|encoder| &encoder.length_offset);
        offsets.and_then(|offsets| offsets.get(quality)).copied().unwrap_or(0)
    }

    /// The same model with other length offsets, \[Q\]; [`crate::wire::kind::best_length_offset`] finds one. The
    /// fingerprint stays the same: only encoders use them. A model without an encoder's part stays as it is.
    ///
    /// # Errors
    /// [`ErrorKind::ModelTensorShape`] for another number than Q; [`ErrorKind::ModelValue`] for one above 16,383.
    pub fn with_length_offsets(mut self, offsets: Vec<u16>) -> Result<CodecModel, Invalid> {
        check_length_offsets(&offsets, self.parts.qualities)?;
        if let Some(encoder) = &mut self.parts.encoder {
            encoder.length_offset = offsets;
        }
        Ok(self)
    }

    /// The mean bits of a frame's payloads in a quality: W and Y, without framing and checks, at one frame a chunk in
    /// joined mode, on hidden states like those that the model was made for, with their side indices if the model takes
    /// any (spec 4.4). `None` if the model does not say, or has no encoder's part.
    #[must_use]
    pub fn expected_bits(&self, quality: usize) -> Option<f32> {
        let expected = self.parts.encoder.as_ref().map(|encoder| &encoder.expected_bits);
        expected.and_then(|expected| expected.get(quality)).copied().filter(|bits| *bits > 0.0)
    }

    /// [`CodecModel::expected_bits`] in 1/256 bit, at most 2^48; 0 if the model does not say.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // positive, and within 2^48
    pub(crate) fn expected_bits_in_256ths(&self, quality: usize) -> u64 {
        let most = (1_u64 << 48) as f32;
        self.expected_bits(quality).map_or(0, |bits| (256.0 * bits).min(most) as u64)
    }

    /// The same model with other expected bits, \[Q\]; 0 for a quality of which they are not known. The fingerprint
    /// stays the same: only encoders use them. A model without an encoder's part stays as it is.
    ///
    /// # Errors
    /// [`ErrorKind::ModelTensorShape`] for another number than Q; [`ErrorKind::ModelValue`] for one that is not finite
    /// or below 0.
    pub fn with_expected_bits(mut self, bits: Vec<f32>) -> Result<CodecModel, Invalid> {
        check_expected_bits(&bits, self.parts.qualities)?;
        if let Some(encoder) = &mut self.parts.encoder {
            encoder.expected_bits = bits;
        }
        Ok(self)
    }

    /// The parameters of g_y.
    #[must_use]
    pub fn decoder_network(&self) -> &NetworkParameters {
        &self.parts.decoder_network
    }

    /// The parameters of h, if the model has an encoder's part.
    #[must_use]
    pub fn encoder_network(&self) -> Option<&NetworkParameters> {
        self.parts.encoder.as_ref().map(|encoder| &encoder.network)
    }

    /// Whether the model has an encoder's part (spec 4.5).
    #[must_use]
    pub fn has_encoder(&self) -> bool {
        self.parts.encoder.is_some()
    }

    /// The same model without an encoder's part; the fingerprint stays the same.
    #[must_use]
    pub fn without_encoder(mut self) -> CodecModel {
        self.parts.encoder = None;
        self
    }

    #[allow(clippy::arithmetic_side_effects, clippy::indexing_slicing)] // documented to panic
    fn row<'a>(&self, rows: &'a [f32], quality: usize) -> &'a [f32] {
        &rows[quality * self.parts.e..][..self.parts.e]
    }
}
