//! A codec model packed for this CPU: g_y, h and the rule that selects tables.

use super::parameters::ParameterRule;
use crate::error::{Detail, Error, ErrorKind};
use crate::exact::{Arm, Network};
use crate::model::CodecModel;

/// A codec model with its networks packed for this CPU. Shared by sessions (`Arc<Codec>`); immutable.
pub struct Codec {
    model: CodecModel,
    fingerprint: [u8; 32],
    g_y: Network,
    h: Option<Network>,
    rule: ParameterRule,
}

impl std::fmt::Debug for Codec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Codec")
            .field("hidden_width", &self.model.hidden_width())
            .field("hyper_prior_width", &self.model.hyper_prior_width())
            .field("encodes", &self.h.is_some())
            .finish_non_exhaustive()
    }
}

impl Codec {
    /// Packs a model for the fastest arm that this CPU has.
    ///
    /// # Errors
    /// As [`Codec::with_arm`].
    pub fn new(model: CodecModel) -> Result<Self, Error> {
        Self::with_arm(model, Arm::best())
    }

    /// Packs a model for a given arm; every arm gives the same integers.
    ///
    /// # Errors
    /// [`ErrorKind::NotAvailable`] if this CPU lacks the arm.
    pub fn with_arm(model: CodecModel, arm: Arm) -> Result<Self, Error> {
        if !Arm::available().contains(&arm) {
            return Err(Error::of_call(ErrorKind::NotAvailable).with_detail("this CPU lacks the chosen arm"));
        }
        let g_y = Network::new(model.decoder_network(), arm);
        let h = model.encoder_network().map(|parameters| Network::new(parameters, arm));
        Ok(Self { fingerprint: model.fingerprint(), rule: ParameterRule::new(&model), g_y, h, model })
    }

    /// Loads a model file (spec chapter 4) of at most `memory_limit` bytes and packs it.
    ///
    /// # Errors
    /// Any of 7xx, or [`ErrorKind::MemoryLimit`].
    pub fn from_bytes(bytes: &[u8], memory_limit: usize) -> Result<Self, Error> {
        Self::new(CodecModel::from_bytes(bytes, memory_limit)?)
    }

    /// The frozen model.
    pub fn model(&self) -> &CodecModel {
        &self.model
    }

    /// The model's fingerprint (spec 4.6).
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// Whether the model holds what an encoder needs (spec 4.5).
    pub fn encodes(&self) -> bool {
        self.h.is_some() && self.model.has_encoder()
    }

    /// The network that makes parameters from W (spec 5).
    pub fn g_y(&self) -> &Network {
        &self.g_y
    }

    /// The network that makes W from Y, if the model has the encoder's part.
    pub fn h(&self) -> Option<&Network> {
        self.h.as_ref()
    }

    /// The rule that selects the tables of Y.
    #[must_use]
    pub fn rule(&self) -> &ParameterRule {
        &self.rule
    }

    /// [DEC-6] A quality not below Q is refused.
    pub(crate) fn check_quality(&self, quality: u8, offset: u64) -> Result<usize, Error> {
        let index = usize::from(quality);
        if index < self.model.qualities() {
            return Ok(index);
        }
        let high = i64::try_from(self.model.qualities()).unwrap_or(i64::MAX).saturating_sub(1);
        let detail = Detail::Range { what: "quality", low: 0, high, found: quality.into() };
        Err(Error::new(ErrorKind::UnknownQuality, offset).with(detail))
    }

    /// The same for a quality that a caller asks for.
    pub(crate) fn own_quality(&self, quality: u8) -> Result<usize, Error> {
        self.check_quality(quality, 0).map_err(Error::of_caller)
    }
}
