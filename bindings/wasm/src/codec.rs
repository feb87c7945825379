//! Codec models.

use std::sync::Arc;

use js_sys::{Int16Array, Uint8Array};
use midspan::error::{Detail, Error, ErrorKind};
use wasm_bindgen::prelude::*;

use crate::array::{byte_array, bytes};
use crate::error::Failure;
use crate::number::count;
use crate::objects;

/// A codec model, prepared for this machine.
#[wasm_bindgen]
pub struct Codec {
    codec: Arc<midspan::codec::Codec>,
}

impl From<Arc<midspan::codec::Codec>> for Codec {
    fn from(codec: Arc<midspan::codec::Codec>) -> Self {
        Self { codec }
    }
}

impl Codec {
    pub(crate) fn share(&self) -> Arc<midspan::codec::Codec> {
        Arc::clone(&self.codec)
    }
}

#[wasm_bindgen]
impl Codec {
    /// Reads a model file (spec chapter 4).
    #[wasm_bindgen(constructor)]
    pub fn new(file: &Uint8Array, memory_limit: u32) -> Result<Codec, JsValue> {
        let limit = usize::try_from(memory_limit).unwrap_or(usize::MAX);
        let found = u64::from(file.length());
        if found > u64::from(memory_limit) {
            let (what, most) = ("bytes of the model file", u64::from(memory_limit));
            let limit = midspan::error::Limit::Own("memory_limit");
            let detail = Detail::Limit { what, limit, most, found };
            return Err(Failure::from(Error::of_call(ErrorKind::MemoryLimit).with(detail)).into());
        }
        let codec = midspan::codec::Codec::from_bytes(&bytes(file)?, limit).map_err(Failure::from)?;
        Ok(Arc::new(codec).into())
    }

    #[wasm_bindgen(getter)]
    pub fn fingerprint(&self) -> Uint8Array {
        byte_array(self.codec.fingerprint())
    }

    #[wasm_bindgen(getter)]
    pub fn version(&self) -> u32 {
        self.codec.model().version()
    }

    #[wasm_bindgen(getter, js_name = hiddenWidth)]
    pub fn hidden_width(&self) -> u32 {
        count(self.codec.model().hidden_width())
    }

    #[wasm_bindgen(getter, js_name = hyperPriorWidth)]
    pub fn hyper_prior_width(&self) -> u32 {
        count(self.codec.model().hyper_prior_width())
    }

    #[wasm_bindgen(getter)]
    pub fn qualities(&self) -> u32 {
        count(self.codec.model().qualities())
    }

    #[wasm_bindgen(getter, js_name = hasEncoder)]
    pub fn has_encoder(&self) -> bool {
        self.codec.encodes()
    }

    #[wasm_bindgen(getter, js_name = takesSide)]
    pub fn takes_side(&self) -> bool {
        self.codec.model().side().is_some()
    }

    #[wasm_bindgen(getter, js_name = sideVocabulary)]
    pub fn side_vocabulary(&self) -> u32 {
        self.codec.model().side().map_or(0, |side| side.vocabulary())
    }

    #[wasm_bindgen(getter, js_name = sideAges)]
    pub fn side_ages(&self) -> u32 {
        self.codec.model().side().map_or(0, |side| count(side.ages()))
    }

    #[wasm_bindgen(getter, js_name = predictedFrom)]
    pub fn predicted_from(&self) -> u32 {
        count(self.codec.model().predicted_from())
    }

    /// The smallest and the largest value of W.
    #[wasm_bindgen(getter, js_name = wRange)]
    pub fn w_range(&self) -> Int16Array {
        let (low, high) = self.codec.model().w_range();
        Int16Array::from(&[low, high][..])
    }

    /// The smallest and the largest value of Y.
    #[wasm_bindgen(getter, js_name = yRange)]
    pub fn y_range(&self) -> Int16Array {
        let (low, high) = self.codec.model().y_range();
        Int16Array::from(&[low, high][..])
    }

    /// What the model says about one of its qualities.
    pub fn quality(&self, quality: u8) -> Result<JsValue, JsValue> {
        let (model, index) = (self.codec.model(), usize::from(quality));
        if index >= model.qualities() {
            let wanted = u64::from(count(model.qualities()));
            let detail = Detail::Number { what: "quality below", wanted, found: quality.into() };
            return Err(Failure::from(Error::of_call(ErrorKind::UnknownQuality).with(detail)).into());
        }
        let (low, high) = model.common_range(index);
        let (weight, bits) = (model.rate_weight(index), model.expected_bits(index).map(f64::from));
        Ok(objects::quality_info(low, high, weight, bits, model.length_offset(index)))
    }

    /// Whether one may stand for the other: of the same fingerprint, and an encoder's part in both or in none.
    pub fn equals(&self, other: &Codec) -> bool {
        other.codec.fingerprint() == self.codec.fingerprint() && other.codec.encodes() == self.codec.encodes()
    }
}
