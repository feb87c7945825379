//! Encoder sessions.

use std::sync::Arc;

use js_sys::{Array, Float32Array, Int16Array, Uint8Array, Uint32Array};
use midspan::codec::{EncoderConfig, Sent};
use midspan::error::Error;
use midspan::stream::Message;
use wasm_bindgen::prelude::*;

use crate::array::{byte_array, byte_arrays, bytes, floats, indices, integers, number};
use crate::codec::Codec;
use crate::config;
use crate::error::Failure;
use crate::number::{count, whole};
use crate::objects;

/// Encodes one stream: hidden states or integers in, bytes out (spec chapter 6).
#[wasm_bindgen]
pub struct Encoder {
    encoder: midspan::codec::Encoder,
}

/// What a message says, as JavaScript's.
pub(crate) fn message_object(message: &Message) -> Result<JsValue, Failure> {
    let (first, end) = (number(message.frames.start)?, number(message.frames.end)?);
    Ok(objects::message(byte_array(&message.bytes), config::class_name(message.class), first, end))
}

/// A message, or `null`.
pub(crate) fn optional_message(message: Option<&Message>) -> Result<JsValue, JsValue> {
    Ok(message.map(message_object).transpose()?.unwrap_or(JsValue::NULL))
}

/// Sums as JavaScript's.
fn sent_object(sent: Sent) -> Result<JsValue, JsValue> {
    Ok(objects::sent(
        number(sent.frames)?,
        number(sent.w_values)?,
        number(sent.y_values)?,
        number(sent.clipped)?,
        number(sent.escaped)?,
        number(sent.payload_bits)?,
        number(sent.compared_frames)?,
        number(sent.compared_bits)?,
        number(sent.expected_bits())?,
    ))
}

impl Encoder {
    fn control(&mut self, call: impl FnOnce(&mut midspan::codec::Encoder) -> Result<(), Error>) -> Result<(), JsValue> {
        Ok(call(&mut self.encoder).map_err(Failure::from)?)
    }

    fn of(mut encoder: midspan::codec::Encoder, keep_integers: bool, track_cost: bool) -> Self {
        encoder.keep_integers(keep_integers);
        encoder.track_cost(track_cost);
        Self { encoder }
    }
}

#[wasm_bindgen]
impl Encoder {
    #[wasm_bindgen(constructor)]
    pub fn new(
        codec: &Codec,
        identity: &Uint8Array,
        mode: &str,
        binding: &str,
        check: u32,
        quality: u8,
        host_digest: Option<Uint8Array>,
        max_frames_per_chunk: u32,
        max_chunk_bytes: u32,
        max_rewind: u32,
        target_horizon: u32,
        datagram_limit: Option<u32>,
        checkpoint_interval: u32,
        lanes: u16,
        rate_weight: Option<f32>,
        length_offset: Option<u16>,
        memory_limit: u32,
        clipping: &str,
        field_ids: Vec<u32>,
        field_values: &Array,
        keep_integers: bool,
        track_cost: bool,
    ) -> Result<Encoder, JsValue> {
        let (binding, file) = config::binding(binding)?;
        let host_digest = host_digest.as_ref().map(bytes).transpose()?;
        let config = EncoderConfig::new(config::identity(&bytes(identity)?)?)
            .mode(config::mode(mode)?)
            .binding(binding)
            .file(file)
            .check(config::check(check)?)
            .quality(quality)
            .host_digest(config::optional_digest("hostDigest", host_digest.as_deref())?)
            .max_frames_per_chunk(max_frames_per_chunk)
            .max_chunk_bytes(max_chunk_bytes)
            .max_rewind(max_rewind)
            .target_horizon(target_horizon)
            .datagram_limit(datagram_limit)
            .checkpoint_interval(checkpoint_interval)
            .lanes(lanes)
            .rate_weight(rate_weight)
            .length_offset(length_offset)
            .memory_limit(usize::try_from(memory_limit).unwrap_or(usize::MAX))
            .clipping(config::clipping(clipping)?)
            .fields(config::fields(&field_ids, byte_arrays(field_values)?));
        let encoder = midspan::codec::Encoder::new(codec.share(), config).map_err(Failure::from)?;
        Ok(Self::of(encoder, keep_integers, track_cost))
    }

    pub fn restore(
        codec: &Codec,
        saved: &Uint8Array,
        memory_limit: u32,
        keep_integers: bool,
        track_cost: bool,
    ) -> Result<Encoder, JsValue> {
        let limit = usize::try_from(memory_limit).unwrap_or(usize::MAX);
        let encoder = midspan::codec::Encoder::restore(codec.share(), &bytes(saved)?, limit).map_err(Failure::from)?;
        Ok(Self::of(encoder, keep_integers, track_cost))
    }

    pub fn save(&self) -> Uint8Array {
        byte_array(&self.encoder.save())
    }

    pub fn fork(&self) -> Encoder {
        Self { encoder: self.encoder.clone() }
    }

    #[wasm_bindgen(js_name = setSide)]
    pub fn set_side(&mut self, side: &Uint32Array, delivery: &str) -> Result<(), JsValue> {
        let (side, delivery) = (indices(side)?, config::delivery(delivery)?);
        self.control(|encoder| encoder.set_side(&side, delivery))
    }

    #[wasm_bindgen(js_name = pushHidden)]
    pub fn push_hidden(&mut self, hidden: &Float32Array) -> Result<(), JsValue> {
        let hidden = floats(hidden)?;
        self.control(|encoder| encoder.push_hidden(&hidden))
    }

    #[wasm_bindgen(js_name = pushY)]
    pub fn push_y(&mut self, y: &Int16Array) -> Result<(), JsValue> {
        let y = integers(y)?;
        self.control(|encoder| encoder.push_y(&y))
    }

    #[wasm_bindgen(js_name = pushIntegers)]
    pub fn push_integers(&mut self, y: &Int16Array, w: &Int16Array) -> Result<(), JsValue> {
        let (y, w) = (integers(y)?, integers(w)?);
        self.control(|encoder| encoder.push_integers(&y, &w))
    }

    /// The hidden state as little-endian bytes of a type.
    #[wasm_bindgen(js_name = pushExact)]
    pub fn push_exact(&mut self, dtype: &str, hidden: &Uint8Array) -> Result<(), JsValue> {
        let (dtype, hidden) = (config::dtype(dtype)?, bytes(hidden)?);
        self.control(|encoder| encoder.push_exact(dtype, &hidden))
    }

    pub fn quantise(&self, hidden: &Float32Array) -> Result<Int16Array, JsValue> {
        let y = self.encoder.quantise(&floats(hidden)?).map_err(Failure::from)?;
        Ok(Int16Array::from(&y[..]))
    }

    pub fn checkpoint(&mut self) -> Result<(), JsValue> {
        self.control(midspan::codec::Encoder::checkpoint)
    }

    pub fn reset(&mut self) -> Result<(), JsValue> {
        self.control(midspan::codec::Encoder::reset)
    }

    pub fn rewind(&mut self, index: f64) -> Result<(), JsValue> {
        self.control(|encoder| encoder.rewind(whole(index)))
    }

    #[wasm_bindgen(js_name = setQuality)]
    pub fn set_quality(&mut self, quality: u8) -> Result<(), JsValue> {
        self.control(|encoder| encoder.set_quality(quality))
    }

    #[wasm_bindgen(js_name = switchModel)]
    pub fn switch_model(&mut self, codec: &Codec, quality: u8) -> Result<(), JsValue> {
        self.control(|encoder| encoder.switch_model(codec.share(), quality))
    }

    pub fn extension(&mut self, id: u32, data: &Uint8Array) -> Result<(), JsValue> {
        let data = bytes(data)?;
        self.control(|encoder| encoder.extension(id, &data))
    }

    pub fn end(&mut self) -> Result<(), JsValue> {
        self.control(midspan::codec::Encoder::end)
    }

    #[wasm_bindgen(js_name = takeBytes)]
    pub fn take_bytes(&mut self) -> Result<Uint8Array, JsValue> {
        Ok(byte_array(&self.encoder.take_bytes().map_err(Failure::from)?))
    }

    #[wasm_bindgen(js_name = popMessage)]
    pub fn pop_message(&mut self) -> Result<JsValue, JsValue> {
        optional_message(self.encoder.pop_message().map_err(Failure::from)?.as_ref())
    }

    #[wasm_bindgen(getter, js_name = untakenBytes)]
    pub fn untaken_bytes(&self) -> u32 {
        count(self.encoder.untaken_bytes())
    }

    #[wasm_bindgen(getter, js_name = nextMessage)]
    pub fn next_message(&self) -> Result<JsValue, JsValue> {
        optional_message(self.encoder.next_message())
    }

    #[wasm_bindgen(getter)]
    pub fn codec(&self) -> Codec {
        Arc::clone(self.encoder.engine()).into()
    }

    #[wasm_bindgen(getter, js_name = nextIndex)]
    pub fn next_index(&self) -> Result<f64, JsValue> {
        Ok(number(self.encoder.next_index())?)
    }

    #[wasm_bindgen(getter, js_name = lastIntegers)]
    pub fn last_integers(&self) -> JsValue {
        let values = |values: &[i16]| Int16Array::from(values);
        let both = self.encoder.last_integers();
        both.map_or(JsValue::NULL, |both| objects::last_integers(values(&both.w), values(&both.y)))
    }

    #[wasm_bindgen(getter, js_name = lastCost)]
    pub fn last_cost(&self) -> JsValue {
        self.encoder.last_cost().map_or(JsValue::NULL, |cost| objects::cost(cost.hyper_prior, cost.target))
    }

    #[wasm_bindgen(getter, js_name = lastClipped)]
    pub fn last_clipped(&self) -> Result<f64, JsValue> {
        Ok(number(self.encoder.last_clipped())?)
    }

    #[wasm_bindgen(getter)]
    pub fn sent(&self) -> Result<JsValue, JsValue> {
        sent_object(self.encoder.sent())
    }

    #[wasm_bindgen(getter, js_name = recentlySent)]
    pub fn recently_sent(&self) -> Result<JsValue, JsValue> {
        sent_object(self.encoder.recently_sent())
    }

    #[wasm_bindgen(getter)]
    pub fn unlike(&self) -> Option<String> {
        self.encoder.unlike().map(|unlike| unlike.to_string())
    }

    #[wasm_bindgen(getter, js_name = memoryBytes)]
    pub fn memory_bytes(&self) -> u32 {
        count(self.encoder.memory_bytes())
    }
}
