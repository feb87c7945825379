//! Decoder sessions.

use std::sync::Arc;

use js_sys::{Array, Uint8Array, Uint32Array};
use midspan::codec::DecoderConfig;
use midspan::stream::JoinPoint;
use wasm_bindgen::prelude::*;

use crate::array::{bytes, indices, make_room, number, optional_number, or_null};
use crate::codec::Codec;
use crate::config;
use crate::error::Failure;
use crate::event::poll_object;
use crate::header::header_of;
use crate::number::{count, whole};
use crate::objects;

/// The settings that all ways to a decoder share.
#[wasm_bindgen]
pub struct DecoderSettings {
    config: DecoderConfig,
    models: Vec<Arc<midspan::codec::Codec>>,
    keep_integers: bool,
}

#[wasm_bindgen]
impl DecoderSettings {
    #[wasm_bindgen(constructor)]
    pub fn new(
        binding: &str,
        max_frames: u32,
        max_chunk_bytes: u32,
        max_rewind: u32,
        target_horizon: u32,
        early_bytes: u32,
        memory_limit: u32,
        frames_per_poll: u32,
        host_digest: Option<Uint8Array>,
        keep_integers: bool,
    ) -> Result<DecoderSettings, JsValue> {
        let limits = config::limits(max_frames, max_chunk_bytes, max_rewind, target_horizon, early_bytes);
        let host_digest = host_digest.as_ref().map(bytes).transpose()?;
        let config = DecoderConfig::default()
            .binding(config::binding(binding)?.0)
            .limits(limits)
            .memory_limit(usize::try_from(memory_limit).unwrap_or(usize::MAX))
            .frames_per_poll(usize::try_from(frames_per_poll).unwrap_or(usize::MAX))
            .host_digest(config::optional_digest("hostDigest", host_digest.as_deref())?);
        Ok(Self { config, models: Vec::new(), keep_integers })
    }

    /// Adds a model that the stream may name.
    #[wasm_bindgen(js_name = addModel)]
    pub fn add_model(&mut self, codec: &Codec) {
        self.models.push(codec.share());
    }
}

impl DecoderSettings {
    /// Applies what a decoder does not take when it is made.
    fn finish(&self, mut decoder: midspan::codec::Decoder) -> Decoder {
        decoder.keep_integers(self.keep_integers);
        Decoder { decoder, beyond: None }
    }

    fn add_models(&self, mut decoder: midspan::codec::Decoder) -> Decoder {
        self.models.iter().for_each(|model| decoder.add_model(Arc::clone(model)));
        self.finish(decoder)
    }
}

/// Decodes one stream: bytes in, hidden states and integers out (spec chapter 6).
#[wasm_bindgen]
pub struct Decoder {
    decoder: midspan::codec::Decoder,
    /// An index that JavaScript's numbers do not hold: it ends the session, because its event was lost.
    beyond: Option<Failure>,
}

impl Decoder {
    /// The session, if nothing ended it.
    fn session(&mut self) -> Result<&mut midspan::codec::Decoder, Failure> {
        match &self.beyond {
            Some(failure) => Err(failure.clone()),
            None => Ok(&mut self.decoder),
        }
    }
}

#[wasm_bindgen]
impl Decoder {
    #[wasm_bindgen(constructor)]
    pub fn new(codec: &Codec, settings: &DecoderSettings) -> Result<Decoder, JsValue> {
        let decoder = midspan::codec::Decoder::new(codec.share(), settings.config.clone()).map_err(Failure::from)?;
        Ok(settings.add_models(decoder))
    }

    pub fn join(
        codec: &Codec,
        settings: &DecoderSettings,
        header: &Uint8Array,
        offset: f64,
        index: Option<f64>,
    ) -> Result<Decoder, JsValue> {
        let config = settings.config.clone();
        let (header, _) = header_of(&bytes(header)?, Some(config.binding))?;
        let point = JoinPoint { offset: whole(offset), index: index.map(whole) };
        let decoder = midspan::codec::Decoder::join(codec.share(), config, header, point).map_err(Failure::from)?;
        Ok(settings.add_models(decoder))
    }

    pub fn restore(codec: &Codec, settings: &DecoderSettings, saved: &Uint8Array) -> Result<Decoder, JsValue> {
        let (codec, config, saved) = (codec.share(), settings.config.clone(), bytes(saved)?);
        let decoder = midspan::codec::Decoder::restore(codec, &settings.models, config, &saved);
        Ok(settings.finish(decoder.map_err(Failure::from)?))
    }

    pub fn save(&mut self) -> Result<Uint8Array, JsValue> {
        Ok(Uint8Array::from(&self.session()?.save().map_err(Failure::from)?[..]))
    }

    pub fn fork(&mut self) -> Result<Decoder, JsValue> {
        Ok(Decoder { decoder: self.session()?.clone(), beyond: None })
    }

    #[wasm_bindgen(js_name = addModel)]
    pub fn add_model(&mut self, codec: &Codec) {
        self.decoder.add_model(codec.share());
    }

    pub fn push(&mut self, data: &Uint8Array) -> Result<(), JsValue> {
        let decoder = self.session()?;
        let data = bytes(data)?;
        make_room(decoder.memory_bytes(), data.len())?;
        Ok(decoder.push(&data).map_err(Failure::from)?)
    }

    #[wasm_bindgen(js_name = pushMessage)]
    pub fn push_message(&mut self, message: &Uint8Array) -> Result<(), JsValue> {
        let decoder = self.session()?;
        let message = bytes(message)?;
        make_room(decoder.memory_bytes(), message.len())?;
        Ok(decoder.push_message(&message).map_err(Failure::from)?)
    }

    #[wasm_bindgen(js_name = pushDatagram)]
    pub fn push_datagram(&mut self, datagram: &Uint8Array) -> Result<(), JsValue> {
        let decoder = self.session()?;
        let datagram = bytes(datagram)?;
        make_room(decoder.memory_bytes(), datagram.len())?;
        Ok(decoder.push_datagram(&datagram).map_err(Failure::from)?)
    }

    pub fn finish(&mut self) -> Result<(), JsValue> {
        self.session()?.finish();
        Ok(())
    }

    pub fn poll(&mut self) -> Result<JsValue, JsValue> {
        let poll = self.session()?.poll().map_err(Failure::from)?;
        let object = poll_object(poll);
        self.beyond = object.as_ref().err().cloned();
        Ok(object?)
    }

    #[wasm_bindgen(js_name = giveSide)]
    pub fn give_side(&mut self, side: &Uint32Array) -> Result<(), JsValue> {
        let side = indices(side)?;
        Ok(self.session()?.give_side(&side).map_err(Failure::from)?)
    }

    #[wasm_bindgen(getter, js_name = wantedSide)]
    pub fn wanted_side(&self) -> Result<JsValue, JsValue> {
        let Some((index, frames)) = self.decoder.wanted_side() else { return Ok(JsValue::NULL) };
        Ok(objects::range(number(index)?, f64::from(count(frames))))
    }

    pub fn conceal(&mut self, index: f64, count: f64) -> Result<(), JsValue> {
        // More frames than memory can hold are not pending.
        let count = usize::try_from(whole(count)).unwrap_or(usize::MAX);
        Ok(self.session()?.conceal(whole(index), count).map_err(Failure::from)?)
    }

    #[wasm_bindgen(js_name = missingElements)]
    pub fn missing_elements(&self, index: f64) -> Option<Array> {
        let missing = self.decoder.missing_elements(whole(index))?;
        let place = |place: usize| f64::from(count(place));
        Some(missing.iter().map(|range| objects::elements(place(range.start), place(range.end))).collect())
    }

    #[wasm_bindgen(getter, js_name = oldestPending)]
    pub fn oldest_pending(&self) -> Result<JsValue, JsValue> {
        Ok(or_null(optional_number(self.decoder.oldest_pending())?))
    }

    #[wasm_bindgen(getter)]
    pub fn codec(&self) -> Codec {
        Arc::clone(self.decoder.engine()).into()
    }

    #[wasm_bindgen(getter, js_name = nextIndex)]
    pub fn next_index(&self) -> Result<f64, JsValue> {
        Ok(number(self.decoder.next_index())?)
    }

    #[wasm_bindgen(getter, js_name = confirmedIndex)]
    pub fn confirmed_index(&self) -> Result<f64, JsValue> {
        Ok(number(self.decoder.confirmed_index())?)
    }

    #[wasm_bindgen(getter, js_name = resumeIndex)]
    pub fn resume_index(&self) -> Result<f64, JsValue> {
        Ok(number(self.decoder.resume_index())?)
    }

    #[wasm_bindgen(getter, js_name = memoryBytes)]
    pub fn memory_bytes(&self) -> u32 {
        count(self.decoder.memory_bytes())
    }
}
