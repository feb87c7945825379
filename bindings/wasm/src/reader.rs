//! The container's reader: chunks, without a model.

use js_sys::{Array, Uint8Array};
use midspan::stream::{Chunk, Event, JoinPoint, Poll, ReaderConfig};
use midspan::wire::Payload;
use wasm_bindgen::prelude::*;

use crate::array::{byte_array, bytes, make_room, number};
use crate::config;
use crate::error::Failure;
use crate::header::{entry_object, header_object, header_of};
use crate::number::{count, exact, rounded, whole};
use crate::objects;

/// The settings that all ways to a reader share.
#[wasm_bindgen]
pub struct ReaderSettings {
    config: ReaderConfig,
}

#[wasm_bindgen]
impl ReaderSettings {
    #[wasm_bindgen(constructor)]
    pub fn new(
        binding: &str,
        max_frames: u32,
        max_chunk_bytes: u32,
        max_rewind: u32,
        target_horizon: u32,
        early_bytes: u32,
    ) -> Result<ReaderSettings, JsValue> {
        let limits = config::limits(max_frames, max_chunk_bytes, max_rewind, target_horizon, early_bytes);
        Ok(Self { config: ReaderConfig::default().binding(config::binding(binding)?.0).limits(limits) })
    }
}

/// Reads the chunks of one stream (spec chapter 2).
#[wasm_bindgen]
pub struct Reader {
    reader: midspan::stream::Reader,
    /// An index that JavaScript's numbers do not hold: it ends the session, because its chunk was lost.
    beyond: Option<Failure>,
}

impl Reader {
    fn of(reader: midspan::stream::Reader) -> Self {
        Self { reader, beyond: None }
    }

    /// The session, if nothing ended it.
    fn session(&mut self) -> Result<&mut midspan::stream::Reader, Failure> {
        match &self.beyond {
            Some(failure) => Err(failure.clone()),
            None => Ok(&mut self.reader),
        }
    }
}

fn payload_object(payload: &Payload) -> Result<JsValue, Failure> {
    Ok(objects::payload(byte_array(&payload.bytes), number(payload.offset)?))
}

fn payloads(payloads: &[Payload]) -> Result<Array, Failure> {
    payloads.iter().map(payload_object).collect()
}

/// A chunk as JavaScript's.
fn chunk_object(event: &Event) -> Result<JsValue, Failure> {
    let of = match &event.chunk {
        Chunk::Header(header) => objects::header_chunk(header_object(header)),
        Chunk::Frame { index, epoch, payload, .. } => {
            objects::frame_chunk(number(*index)?, *epoch, payload_object(payload)?)
        }
        Chunk::Batch { index, epoch, frames, lanes, .. } => {
            objects::batch_chunk(number(*index)?, *epoch, *frames, payloads(lanes)?)
        }
        Chunk::Target { frames, elements, lanes, status } => {
            let (status, place) = config::status(*status);
            let (index, epoch) = (place.map(|(index, _)| index), place.map(|(_, epoch)| epoch));
            // A forged datagram may name any frame and any elements, and ends no session by that.
            let elements = match elements {
                Some(elements) => objects::elements(rounded(elements.start), rounded(elements.end)),
                None => JsValue::NULL,
            };
            objects::target_chunk(status, index.and_then(exact), epoch, *frames, elements, payloads(lanes)?)
        }
        Chunk::Checkpoint(checkpoint) => {
            objects::checkpoint_chunk(number(checkpoint.index)?, checkpoint.digest_w, checkpoint.digest_y)
        }
        Chunk::Reset(reset) => objects::reset_chunk(
            number(reset.index)?,
            reset.epoch,
            byte_array(&reset.fingerprint_prefix),
            reset.quality,
            reset.length_offset,
            reset.digest_w,
            reset.digest_y,
        ),
        Chunk::Rewind(rewind) => objects::placed("rewind", number(rewind.index)?),
        Chunk::Quality(quality) => objects::quality_chunk(quality.quality, quality.length_offset),
        Chunk::ModelSwitch(switch) => objects::model_switch_chunk(
            number(switch.index)?,
            switch.epoch,
            byte_array(&switch.fingerprint),
            switch.model_version,
            switch.quality,
            switch.length_offset,
            switch.digest_w,
            switch.digest_y,
        ),
        Chunk::ExactFrame { index, epoch, dtype, payload, hidden, .. } => {
            let (dtype, data) = (config::dtype_name(*dtype), byte_array(&hidden.bytes));
            objects::exact_frame_chunk(number(*index)?, *epoch, dtype, payload_object(payload)?, data)
        }
        Chunk::SideIndices { index, count, payload } => {
            objects::side_indices_chunk(number(*index)?, *count, payload_object(payload)?)
        }
        Chunk::Extension(extension) => objects::extension(extension.id, byte_array(&extension.data)),
        Chunk::End(end) => {
            objects::end_chunk(number(end.index)?, number(end.frames_coded)?, end.digest_w, end.digest_y)
        }
        Chunk::SeekIndex(seek) => {
            objects::seek_index_chunk(seek.entries.iter().map(entry_object).collect::<Result<Array, _>>()?)
        }
        Chunk::Footer => objects::bare("footer"),
        _ => objects::bare("other"),
    };
    Ok(objects::chunk(of, number(event.offset)?, number(event.body_offset)?, number(event.bytes)?))
}

#[wasm_bindgen]
impl Reader {
    #[wasm_bindgen(constructor)]
    pub fn new(settings: &ReaderSettings) -> Reader {
        Self::of(midspan::stream::Reader::new(settings.config))
    }

    pub fn join(
        settings: &ReaderSettings,
        header: &Uint8Array,
        offset: f64,
        index: Option<f64>,
    ) -> Result<Reader, JsValue> {
        let config = settings.config;
        let (header, _) = header_of(&bytes(header)?, Some(config.binding))?;
        let point = JoinPoint { offset: whole(offset), index: index.map(whole) };
        Ok(Self::of(midspan::stream::Reader::join(config, header, point)))
    }

    pub fn restore(settings: &ReaderSettings, saved: &Uint8Array) -> Result<Reader, JsValue> {
        let reader = midspan::stream::Reader::restore(settings.config, &bytes(saved)?);
        Ok(Self::of(reader.map_err(Failure::from)?))
    }

    pub fn save(&mut self) -> Result<Uint8Array, JsValue> {
        Ok(byte_array(&self.session()?.save().map_err(Failure::from)?))
    }

    pub fn fork(&mut self) -> Result<Reader, JsValue> {
        Ok(Self::of(self.session()?.clone()))
    }

    pub fn push(&mut self, data: &Uint8Array) -> Result<(), JsValue> {
        let reader = self.session()?;
        let data = bytes(data)?;
        make_room(reader.memory_bytes(), data.len())?;
        Ok(reader.push(&data).map_err(Failure::from)?)
    }

    #[wasm_bindgen(js_name = pushMessage)]
    pub fn push_message(&mut self, message: &Uint8Array) -> Result<(), JsValue> {
        let reader = self.session()?;
        let message = bytes(message)?;
        make_room(reader.memory_bytes(), message.len())?;
        Ok(reader.push_message(&message).map_err(Failure::from)?)
    }

    #[wasm_bindgen(js_name = pushDatagram)]
    pub fn push_datagram(&mut self, datagram: &Uint8Array) -> Result<(), JsValue> {
        let reader = self.session()?;
        let datagram = bytes(datagram)?;
        make_room(reader.memory_bytes(), datagram.len())?;
        Ok(reader.push_target(&datagram).map_err(Failure::from)?)
    }

    pub fn finish(&mut self) -> Result<(), JsValue> {
        self.session()?.finish();
        Ok(())
    }

    pub fn poll(&mut self) -> Result<JsValue, JsValue> {
        let object = match self.session()?.poll().map_err(Failure::from)? {
            Poll::Event(event) => chunk_object(&event),
            Poll::NeedMore => Ok(objects::bare("needMore")),
            Poll::End => Ok(objects::bare("endOfStream")),
        };
        self.beyond = object.as_ref().err().cloned();
        Ok(object?)
    }

    #[wasm_bindgen(getter)]
    pub fn header(&self) -> JsValue {
        self.reader.header().map_or(JsValue::NULL, header_object)
    }

    #[wasm_bindgen(getter)]
    pub fn offset(&self) -> Result<f64, JsValue> {
        Ok(number(self.reader.offset())?)
    }

    #[wasm_bindgen(getter, js_name = memoryBytes)]
    pub fn memory_bytes(&self) -> u32 {
        count(self.reader.memory_bytes())
    }
}
