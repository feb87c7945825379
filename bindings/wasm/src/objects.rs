//! What the package's JavaScript makes for Rust: errors, and events, chunks and values as plain objects (`js/objects.js`).

use js_sys::{Array, Float32Array, Int16Array, Uint8Array, Uint32Array};
use wasm_bindgen::prelude::*;

#[wasm_bindgen(raw_module = "./objects.js")]
extern "C" {
    pub(crate) fn panicked(text: &str);
    pub(crate) fn error(
        text: &str,
        number: i32,
        fault: &str,
        offset: Option<f64>,
        wanted: JsValue,
        found: JsValue,
        frame: Option<f64>,
        element: Option<f64>,
        limit: &str,
        setting: &str,
    ) -> JsValue;
    #[wasm_bindgen(js_name = noMemory)]
    pub(crate) fn no_memory(bytes: u32) -> JsValue;
    pub(crate) fn beyond(value: &str) -> JsValue;

    pub(crate) fn header(
        fingerprint: Uint8Array,
        mode: &str,
        binding: &str,
        check: u32,
        side: bool,
        quality: u8,
        model_version: u32,
        max_frames: u32,
        max_chunk_bytes: u32,
        max_rewind: u32,
        target_horizon: Option<u32>,
        length_offset: u16,
        identity: JsValue,
        host_digest: JsValue,
        field_ids: Vec<u32>,
        field_values: Array,
        format_version: u8,
    ) -> JsValue;
    #[wasm_bindgen(js_name = loadedHeader)]
    pub(crate) fn loaded_header(header: JsValue, length: u32) -> JsValue;
    #[wasm_bindgen(js_name = seekEntry)]
    pub(crate) fn seek_entry(frame: f64, offset: f64) -> JsValue;
    pub(crate) fn message(data: Uint8Array, class: &str, first_frame: f64, end_frame: f64) -> JsValue;
    #[wasm_bindgen(js_name = qualityInfo)]
    pub(crate) fn quality_info(
        range_low: f32,
        range_high: f32,
        rate_weight: f32,
        expected_bits: Option<f64>,
        length_offset: u16,
    ) -> JsValue;
    pub(crate) fn sent(
        frames: f64,
        w_values: f64,
        y_values: f64,
        clipped: f64,
        escaped: f64,
        payload_bits: f64,
        compared_frames: f64,
        compared_bits: f64,
        expected_bits: f64,
    ) -> JsValue;
    pub(crate) fn cost(hyper_prior: f64, target: f64) -> JsValue;
    #[wasm_bindgen(js_name = lastIntegers)]
    pub(crate) fn last_integers(w: Int16Array, y: Int16Array) -> JsValue;
    pub(crate) fn range(first: f64, count: f64) -> JsValue;
    pub(crate) fn elements(first: f64, end: f64) -> JsValue;

    // Events.
    /// One that has nothing but a type.
    pub(crate) fn bare(name: &str) -> JsValue;
    /// One with an index.
    pub(crate) fn placed(name: &str, index: f64) -> JsValue;
    /// One with an index and a number of frames.
    pub(crate) fn counted(name: &str, index: f64, count: u32) -> JsValue;
    pub(crate) fn opened(header: JsValue) -> JsValue;
    pub(crate) fn frames(
        index: f64,
        count: u32,
        hidden: Float32Array,
        w: Option<Int16Array>,
        y: Option<Int16Array>,
    ) -> JsValue;
    #[wasm_bindgen(js_name = hyperPrior)]
    pub(crate) fn hyper_prior(index: f64, count: u32, w: Int16Array) -> JsValue;
    pub(crate) fn targets(index: f64, count: u32, hidden: Float32Array, y: Int16Array, concealed: bool) -> JsValue;
    #[wasm_bindgen(js_name = targetPart)]
    pub(crate) fn target_part(index: f64, first_element: u32, end_element: u32) -> JsValue;
    #[wasm_bindgen(js_name = targetRefused)]
    pub(crate) fn target_refused(index: Option<f64>, reason: &str) -> JsValue;
    #[wasm_bindgen(js_name = exactFrame)]
    pub(crate) fn exact_frame(
        index: f64,
        hidden: Float32Array,
        w: Option<Int16Array>,
        y: Option<Int16Array>,
        dtype: &str,
        data: Uint8Array,
    ) -> JsValue;
    pub(crate) fn working(index: f64, count: u32, done: u32) -> JsValue;
    pub(crate) fn verdict(index: f64, end_index: f64, verdict: &str) -> JsValue;
    pub(crate) fn quality(quality: u8) -> JsValue;
    pub(crate) fn model(index: f64, fingerprint: Uint8Array) -> JsValue;
    #[wasm_bindgen(js_name = sideIndices)]
    pub(crate) fn side_indices(index: f64, count: u32, indices: Uint32Array) -> JsValue;
    pub(crate) fn extension(id: u32, data: Uint8Array) -> JsValue;
    pub(crate) fn ended(index: f64, frames_coded: f64) -> JsValue;

    // Chunks, and where they are.
    pub(crate) fn chunk(of: JsValue, offset: f64, body_offset: f64, wire_len: f64) -> JsValue;
    pub(crate) fn payload(data: Uint8Array, offset: f64) -> JsValue;
    #[wasm_bindgen(js_name = headerChunk)]
    pub(crate) fn header_chunk(header: JsValue) -> JsValue;
    #[wasm_bindgen(js_name = frameChunk)]
    pub(crate) fn frame_chunk(index: f64, epoch: u32, payload: JsValue) -> JsValue;
    #[wasm_bindgen(js_name = batchChunk)]
    pub(crate) fn batch_chunk(index: f64, epoch: u32, frames: u32, payloads: Array) -> JsValue;
    #[wasm_bindgen(js_name = targetChunk)]
    pub(crate) fn target_chunk(
        status: &str,
        index: Option<f64>,
        epoch: Option<u32>,
        frames: u32,
        elements: JsValue,
        payloads: Array,
    ) -> JsValue;
    #[wasm_bindgen(js_name = checkpointChunk)]
    pub(crate) fn checkpoint_chunk(index: f64, digest_w: u32, digest_y: u32) -> JsValue;
    #[wasm_bindgen(js_name = resetChunk)]
    pub(crate) fn reset_chunk(
        index: f64,
        epoch: u32,
        fingerprint_prefix: Uint8Array,
        quality: u8,
        length_offset: u16,
        digest_w: u32,
        digest_y: u32,
    ) -> JsValue;
    #[wasm_bindgen(js_name = qualityChunk)]
    pub(crate) fn quality_chunk(quality: u8, length_offset: u16) -> JsValue;
    #[wasm_bindgen(js_name = modelSwitchChunk)]
    pub(crate) fn model_switch_chunk(
        index: f64,
        epoch: u32,
        fingerprint: Uint8Array,
        model_version: u32,
        quality: u8,
        length_offset: u16,
        digest_w: u32,
        digest_y: u32,
    ) -> JsValue;
    #[wasm_bindgen(js_name = exactFrameChunk)]
    pub(crate) fn exact_frame_chunk(index: f64, epoch: u32, dtype: &str, payload: JsValue, data: Uint8Array)
    -> JsValue;
    #[wasm_bindgen(js_name = sideIndicesChunk)]
    pub(crate) fn side_indices_chunk(index: f64, frames: u32, payload: JsValue) -> JsValue;
    #[wasm_bindgen(js_name = endChunk)]
    pub(crate) fn end_chunk(index: f64, frames_coded: f64, digest_w: u32, digest_y: u32) -> JsValue;
    #[wasm_bindgen(js_name = seekIndexChunk)]
    pub(crate) fn seek_index_chunk(entries: Array) -> JsValue;
}
