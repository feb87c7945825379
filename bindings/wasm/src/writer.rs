//! The container's writer: payloads in, bytes out, without a model.

use js_sys::{Array, Uint8Array, Uint32Array};
use midspan::error::Error;
use wasm_bindgen::prelude::*;

use crate::array::{byte_array, byte_arrays, bytes, indices, number};
use crate::config;
use crate::encoder::optional_message;
use crate::error::Failure;
use crate::header::Header;
use crate::number::{count, whole};

/// Writes the chunks of one stream, under the rules that a reader applies (spec chapter 2).
#[wasm_bindgen]
pub struct Writer {
    writer: midspan::stream::Writer,
}

impl Writer {
    fn write(&mut self, write: impl FnOnce(&mut midspan::stream::Writer) -> Result<(), Error>) -> Result<(), JsValue> {
        Ok(write(&mut self.writer).map_err(Failure::from)?)
    }
}

#[wasm_bindgen]
impl Writer {
    #[wasm_bindgen(constructor)]
    pub fn new(header: &Header) -> Result<Writer, JsValue> {
        let writer = midspan::stream::Writer::new(header.header.clone(), header.binding);
        Ok(Self { writer: writer.map_err(Failure::from)? })
    }

    pub fn restore(saved: &Uint8Array) -> Result<Writer, JsValue> {
        Ok(Self { writer: midspan::stream::Writer::restore(&bytes(saved)?).map_err(Failure::from)? })
    }

    pub fn save(&self) -> Uint8Array {
        byte_array(&self.writer.save())
    }

    pub fn fork(&self) -> Writer {
        Self { writer: self.writer.clone() }
    }

    pub fn frame(&mut self, payload: &Uint8Array) -> Result<(), JsValue> {
        let payload = bytes(payload)?;
        self.write(|writer| writer.frame(&payload))
    }

    pub fn batch(&mut self, frames: u32, lanes: &Array) -> Result<(), JsValue> {
        let lanes = byte_arrays(lanes)?;
        self.write(|writer| writer.batch(frames, &lanes))
    }

    pub fn target(&mut self, index: f64, frames: u32, lanes: &Array) -> Result<(), JsValue> {
        let lanes = byte_arrays(lanes)?;
        self.write(|writer| writer.target(whole(index), frames, &lanes))
    }

    #[wasm_bindgen(js_name = targetPart)]
    pub fn target_part(
        &mut self,
        index: f64,
        first_element: f64,
        end_element: f64,
        payload: &Uint8Array,
    ) -> Result<(), JsValue> {
        let payload = bytes(payload)?;
        self.write(|writer| writer.target_part(whole(index), whole(first_element)..whole(end_element), &payload))
    }

    #[wasm_bindgen(js_name = coverSide)]
    pub fn cover_side(&mut self, side: &Uint32Array) -> Result<(), JsValue> {
        let side = indices(side)?;
        self.writer.cover_side(&side);
        Ok(())
    }

    #[wasm_bindgen(js_name = sideIndices)]
    pub fn side_indices(&mut self, count: u32, payload: &Uint8Array) -> Result<(), JsValue> {
        let payload = bytes(payload)?;
        self.write(|writer| writer.side_indices(count, &payload))
    }

    pub fn checkpoint(&mut self, digest_w: u32, digest_y: u32) -> Result<(), JsValue> {
        self.write(|writer| writer.checkpoint(digest_w, digest_y))
    }

    pub fn reset(&mut self, quality: u8, length_offset: u16, digest_w: u32, digest_y: u32) -> Result<(), JsValue> {
        self.write(|writer| writer.reset(quality, length_offset, digest_w, digest_y))
    }

    pub fn rewind(&mut self, index: f64) -> Result<(), JsValue> {
        self.write(|writer| writer.rewind(whole(index)))
    }

    pub fn quality(&mut self, quality: u8, length_offset: u16) -> Result<(), JsValue> {
        self.write(|writer| writer.quality(quality, length_offset))
    }

    #[wasm_bindgen(js_name = modelSwitch)]
    pub fn model_switch(
        &mut self,
        fingerprint: &Uint8Array,
        model_version: u32,
        quality: u8,
        length_offset: u16,
        digest_w: u32,
        digest_y: u32,
    ) -> Result<(), JsValue> {
        let fingerprint = config::digest("fingerprint", &bytes(fingerprint)?)?;
        self.write(|writer| writer.model_switch(fingerprint, model_version, quality, length_offset, digest_w, digest_y))
    }

    #[wasm_bindgen(js_name = exactFrame)]
    pub fn exact_frame(&mut self, dtype: &str, payload: &Uint8Array, hidden: &Uint8Array) -> Result<(), JsValue> {
        let (dtype, payload, hidden) = (config::dtype(dtype)?, bytes(payload)?, bytes(hidden)?);
        self.write(|writer| writer.exact_frame(dtype, &payload, &hidden))
    }

    pub fn extension(&mut self, id: u32, data: &Uint8Array) -> Result<(), JsValue> {
        let data = bytes(data)?;
        self.write(|writer| writer.extension(id, &data))
    }

    pub fn end(&mut self, digest_w: u32, digest_y: u32) -> Result<(), JsValue> {
        self.write(|writer| writer.end(digest_w, digest_y))
    }

    #[wasm_bindgen(js_name = takeBytes)]
    pub fn take_bytes(&mut self) -> Result<Uint8Array, JsValue> {
        Ok(byte_array(&self.writer.take().map_err(Failure::from)?))
    }

    #[wasm_bindgen(js_name = popMessage)]
    pub fn pop_message(&mut self) -> Result<JsValue, JsValue> {
        optional_message(self.writer.pop_message().map_err(Failure::from)?.as_ref())
    }

    #[wasm_bindgen(getter, js_name = untakenBytes)]
    pub fn untaken_bytes(&self) -> u32 {
        count(self.writer.untaken_bytes())
    }

    #[wasm_bindgen(getter, js_name = nextMessage)]
    pub fn next_message(&self) -> Result<JsValue, JsValue> {
        optional_message(self.writer.next_message())
    }

    #[wasm_bindgen(getter, js_name = nextIndex)]
    pub fn next_index(&self) -> Result<f64, JsValue> {
        Ok(number(self.writer.sequence().next_index())?)
    }

    #[wasm_bindgen(getter)]
    pub fn offset(&self) -> Result<f64, JsValue> {
        Ok(number(self.writer.position())?)
    }

    #[wasm_bindgen(getter)]
    pub fn ended(&self) -> bool {
        self.writer.ended()
    }

    #[wasm_bindgen(getter, js_name = memoryBytes)]
    pub fn memory_bytes(&self) -> u32 {
        count(self.writer.memory_bytes())
    }
}
