//! Streams together with their content: the truth that decoders are checked against.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::calls::{Op, exact_value};
use super::draw::Draw;
use super::typical::Typical;
use crate::KEEPS_INTEGERS;
use midspan::codec::{Codec, Encoder, EncoderConfig, SideDelivery};
use midspan::error::{Error, ErrorKind, Result};
use midspan::model::CodecModel;
use midspan::model::synthetic::Random;
use midspan::stream::{self, Binding, Poll, Reader, ReaderConfig, TargetStatus};
use midspan::wire::{Dtype, Mode, StreamHeader};

/// A frame as it was coded.
#[derive(Debug, PartialEq)]
pub(super) struct Frame {
    /// `[C]`.
    pub w: Vec<i16>,
    /// `[E]`.
    pub y: Vec<i16>,
    /// The reconstruction from Y, `[E]` (spec 6.7).
    pub hidden: Vec<f32>,
    /// Number of the model in [`Author::models`].
    pub model: usize,
    /// The quality in force.
    pub quality: usize,
    /// The side index, if the model takes any.
    pub side: Option<u32>,
    /// The lossless hidden state, if it is an exact frame.
    pub exact: Option<(Dtype, Bytes)>,
}

/// The side index of the frame with this absolute index. Both ends know it, and it stays the same through rewinds, as
/// that of a text does which is sent again.
pub(super) fn side_index(model: &CodecModel, index: u64) -> Option<u32> {
    let mixed = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    model.side().map(|side| (mixed % (u64::from(side.vocabulary()) + 1)) as u32)
}

/// The content of a chunk.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    /// The stream header.
    Header,
    /// Frames in joined mode.
    Frames(Vec<Arc<Frame>>),
    /// W of frames in layered mode.
    HyperPrior(Vec<Arc<Frame>>),
    /// Y of frames whose hyper-prior came before: all elements of each frame, or a range of elements of one frame.
    Target(Vec<Arc<Frame>>, Option<Range<usize>>),
    /// An exact frame, in either mode.
    Exact(Arc<Frame>),
    /// Side indices of frames to come.
    Side(Vec<u32>),
    /// A checkpoint.
    Checkpoint,
    /// A context reset.
    Reset {
        /// The quality from here on.
        quality: usize,
    },
    /// A rewind.
    Rewind {
        /// The next frame.
        index: u64,
    },
    /// A quality switch.
    Quality(u8),
    /// A model switch.
    Model {
        /// Number of the model.
        model: usize,
        /// The quality from here on.
        quality: usize,
    },
    /// An ignorable extension.
    Extension {
        /// Its id.
        id: u32,
        /// Its data.
        data: Bytes,
    },
    /// The end.
    End {
        /// Frames coded, rewound ones included.
        frames_coded: u64,
    },
    /// What follows the end of a file.
    Behind,
}

/// A chunk, or a message.
#[derive(Clone, Debug)]
pub(super) struct Chunk {
    /// The bytes on the wire.
    pub bytes: Bytes,
    /// The absolute index of its first frame or, if it has none, of the next frame.
    pub index: u64,
    /// The epoch in which its frames were coded, or the epoch that it begins.
    pub epoch: u32,
    /// Its content.
    pub content: Content,
    /// The W and Y digests that it contains.
    pub digests: Option<(u32, u32)>,
}

/// An encoder that keeps a list of what it coded. A clone is a fork of the stream.
#[derive(Clone)]
pub(super) struct Author {
    /// The models that a model switch may name; the first one is the header's.
    pub models: Vec<Arc<Codec>>,
    encoder: Encoder,
    mode: Mode,
    binding: Binding,
    max_rewind: usize,
    /// Finds the ends of chunks.
    splitter: Reader,
    /// The frames that were not rewound.
    timeline: Vec<Arc<Frame>>,
    epoch: u32,
    model: usize,
    quality: usize,
    /// S and H of [CTRL-4].
    start: usize,
    high: usize,
    coded: u64,
    /// Y of the previous frame.
    last: Vec<i16>,
    /// Set if most frames shall be as the model expects them.
    typical: Option<Typical>,
}

impl Author {
    /// Opens a stream. Its header is returned with the first chunks.
    ///
    /// # Errors
    /// As [`Encoder::new`].
    pub(super) fn new(models: Vec<Arc<Codec>>, config: EncoderConfig) -> Result<Author> {
        let (mode, binding, quality) = (config.mode, config.binding, usize::from(config.quality));
        Ok(Author {
            mode,
            binding,
            max_rewind: config.max_rewind as usize,
            encoder: Encoder::new(Arc::clone(&models[0]), config)?,
            splitter: Reader::new(ReaderConfig::default().binding(binding)),
            models,
            timeline: Vec::new(),
            epoch: 0,
            model: 0,
            quality,
            start: 0,
            high: 0,
            coded: 0,
            last: Vec::new(),
            typical: None,
        })
    }

    /// Makes most frames as the model expects them. These are the smallest, and damage is hardest to notice in them.
    #[must_use]
    pub(super) fn with_typical_frames(mut self) -> Author {
        self.typical = Some(Typical::new(self.codec().model(), self.max_rewind as u32));
        self
    }

    /// The stream header, available after its bytes were taken.
    pub(super) fn header(&self) -> Option<&StreamHeader> {
        self.splitter.header()
    }

    /// The absolute index of the next frame.
    fn next_index(&self) -> u64 {
        self.timeline.len() as u64
    }

    /// Makes a call and returns the chunks that it wrote.
    ///
    /// # Errors
    /// The encoder's errors, and those that the library's own reader finds in its bytes.
    pub(super) fn apply(&mut self, op: Op, random: &mut Random) -> Result<Vec<Chunk>> {
        let fresh = match op {
            Op::Push(frames) => {
                let codec = Arc::clone(self.codec());
                let side = self.set_side(frames, random)?;
                if let Some(typical) = self.typical.as_mut().filter(|_| !random.one_in(6)) {
                    let [w, y] = typical.draw(codec.model(), self.quality, frames, &side, random);
                    self.encoder.push_integers(&y, &w)?;
                    let fresh = self.coded(None);
                    return self.written(fresh);
                }
                let y: Vec<i16> = (0..frames).flat_map(|_| self.frame(random)).collect();
                if random.one_in(12) {
                    let (low, high) = self.codec().model().w_range();
                    let channels = self.codec().model().hyper_prior_width() * frames;
                    let w: Vec<i16> = (0..channels).map(|_| random.within(low.into(), high.into()) as i16).collect();
                    self.encoder.push_integers(&y, &w)?;
                } else {
                    self.encoder.push_y(&y)?;
                }
                self.coded(None)
            }
            Op::Exact(dtype) => {
                self.set_side(1, random)?;
                let width = self.codec().model().hidden_width();
                let hidden: Vec<u8> = (0..width).flat_map(|_| exact_value(random, dtype)).collect();
                self.encoder.push_exact(dtype, &hidden)?;
                self.coded(Some((dtype, hidden.into())))
            }
            Op::Checkpoint => self.encoder.checkpoint().map(|()| Vec::new())?,
            Op::Reset => self.encoder.reset().map(|()| Vec::new())?,
            Op::Rewind(place) => {
                let least = self.start.max(self.high.saturating_sub(self.max_rewind));
                let frames = self.timeline.len().saturating_sub(least);
                if frames > 0 {
                    self.encoder.rewind((least + place * frames / 256) as u64)?;
                }
                Vec::new()
            }
            Op::Quality(quality) => {
                let quality = quality % self.codec().model().qualities();
                self.encoder.set_quality(quality as u8)?;
                Vec::new()
            }
            Op::Model(quality) => {
                let codec = Arc::clone(&self.models[(self.model + 1) % self.models.len()]);
                let quality = quality % codec.model().qualities();
                self.encoder.switch_model(codec, quality as u8)?;
                Vec::new()
            }
            Op::Extension(bytes) => {
                let data: Vec<u8> = (0..bytes).map(|_| random.byte()).collect();
                self.encoder.extension(27, &data)?;
                Vec::new()
            }
            Op::Save => {
                self.encoder = Encoder::restore(Arc::clone(self.codec()), &self.encoder.save(), usize::MAX)?;
                Vec::new()
            }
        };
        if let Some(typical) = &mut self.typical {
            let model = self.models[self.model].model();
            fresh.iter().for_each(|frame| {
                typical.follow(model, &frame.w, frame.side.as_slice(), frame.quality);
            });
        }
        self.written(fresh)
    }

    /// Ends the stream and returns the last chunks.
    ///
    /// # Errors
    /// As [`Author::apply`].
    pub(super) fn end(&mut self) -> Result<Vec<Chunk>> {
        self.encoder.end()?;
        self.written(Vec::new())
    }

    fn codec(&self) -> &Arc<Codec> {
        &self.models[self.model]
    }

    /// Says the side indices of the next frames, if the model takes any: in the stream, or known to the decoder.
    fn set_side(&mut self, frames: usize, random: &mut Random) -> Result<Vec<u32>> {
        let next = self.next_index();
        let model = self.codec().model();
        let indices: Vec<u32> = (next..next + frames as u64).filter_map(|index| side_index(model, index)).collect();
        if !indices.is_empty() {
            let delivery = random.pick(&[SideDelivery::Known, SideDelivery::Sent]);
            self.encoder.set_side(&indices, delivery)?;
        }
        Ok(indices)
    }

    /// Draws Y of a frame: often small, and sometimes far out, noise, zero or equal to the previous frame's.
    fn frame(&mut self, random: &mut Random) -> Vec<i16> {
        let width = self.codec().model().hidden_width();
        let (low, high) = self.codec().model().y_range();
        let style = random.below(16);
        if style == 0 || self.last.len() != width {
            self.last = vec![0; width];
        }
        if style == 2 {
            // Noise that no table expects.
            self.last.fill_with(|| random.within(low.into(), high.into()) as i16);
        } else if style > 2 {
            let reach = [1, 3, 9][random.below(3)];
            self.last.fill_with(|| {
                let value = random.within(-reach, reach);
                (if random.one_in(60) { value * 150 } else { value }).clamp(low.into(), high.into()) as i16
            });
        }
        self.last.clone()
    }

    /// The frames of the last push.
    fn coded(&self, exact: Option<(Dtype, Bytes)>) -> Vec<Arc<Frame>> {
        let model = self.codec().model();
        let (step, offset) = (model.step(self.quality), model.offset(self.quality));
        let integers = self.encoder.last_integers().expect(KEEPS_INTEGERS);
        let w = integers.w.chunks_exact(model.hyper_prior_width());
        let y = integers.y.chunks_exact(model.hidden_width());
        w.zip(y)
            .zip(self.next_index()..)
            .map(|((w, y), index)| {
                let scaled = y.iter().zip(step).map(|(y, step)| f32::from(*y) * step);
                let hidden = scaled.zip(offset).map(|(scaled, offset)| scaled + offset).collect();
                let (side, exact) = (side_index(model, index), exact.clone());
                let (model, quality) = (self.model, self.quality);
                Arc::new(Frame { w: w.to_vec(), y: y.to_vec(), hidden, model, quality, side, exact })
            })
            .collect()
    }

    /// Takes what the encoder wrote, chunk by chunk. `fresh` are the frames that it coded.
    fn written(&mut self, fresh: Vec<Arc<Frame>>) -> Result<Vec<Chunk>> {
        let mut pieces = Vec::new();
        match self.binding {
            Binding::Message => {
                while let Some(message) = self.encoder.pop_message()? {
                    pieces.push(message.bytes);
                }
            }
            Binding::ByteStream => pieces.push(self.encoder.take_bytes()?),
        }
        let mut fresh = fresh.into_iter();
        let mut chunks = Vec::new();
        for mut piece in pieces {
            match self.binding {
                Binding::Message => self.splitter.push_message(&piece)?,
                Binding::ByteStream => self.splitter.push(&piece)?,
            }
            while let Poll::Event(event) = self.splitter.poll()? {
                let bytes = piece.split_to((event.bytes as usize).min(piece.len()));
                chunks.push(self.chunk(bytes, event.chunk, &mut fresh)?);
            }
        }
        Ok(chunks)
    }

    /// The content of a chunk from the encoder. Only the kind, the number of frames and the fields of control chunks
    /// are taken from the reader.
    fn chunk(
        &mut self,
        bytes: Bytes,
        chunk: stream::Chunk,
        fresh: &mut impl Iterator<Item = Arc<Frame>>,
    ) -> Result<Chunk> {
        let (mut index, mut digests) = (self.next_index(), None);
        let content = match chunk {
            stream::Chunk::Header(_) => Content::Header,
            stream::Chunk::Frame { .. } => self.take_frames(fresh.take(1).collect()),
            stream::Chunk::Batch { frames, .. } => self.take_frames(fresh.take(frames as usize).collect()),
            stream::Chunk::ExactFrame { .. } => match fresh.next() {
                Some(frame) => {
                    self.take_frames(vec![Arc::clone(&frame)]);
                    Content::Exact(frame)
                }
                None => return Err(surprise()),
            },
            stream::Chunk::SideIndices { count, .. } => {
                let model = self.codec().model();
                Content::Side((index..index + u64::from(count)).filter_map(|index| side_index(model, index)).collect())
            }
            stream::Chunk::Target { frames, elements, status, .. } => {
                let TargetStatus::Usable { index: first, .. } = status else { return Err(surprise()) };
                index = first;
                let own = self.timeline.get(first as usize..first as usize + frames as usize).ok_or_else(surprise)?;
                let elements = elements.map(|elements| elements.start as usize..elements.end as usize);
                Content::Target(own.to_vec(), elements)
            }
            stream::Chunk::Checkpoint(checkpoint) => {
                digests = Some((checkpoint.digest_w, checkpoint.digest_y));
                Content::Checkpoint
            }
            stream::Chunk::Reset(reset) => {
                digests = Some((reset.digest_w, reset.digest_y));
                self.begin_context(self.model, reset.quality);
                Content::Reset { quality: self.quality }
            }
            stream::Chunk::ModelSwitch(switch) => {
                digests = Some((switch.digest_w, switch.digest_y));
                let known = self.models.iter().position(|codec| *codec.fingerprint() == switch.fingerprint);
                self.begin_context(known.ok_or_else(surprise)?, switch.quality);
                Content::Model { model: self.model, quality: self.quality }
            }
            stream::Chunk::Rewind(rewind) => {
                self.timeline.truncate(rewind.index as usize);
                if let Some(typical) = &mut self.typical {
                    typical.rewind(rewind.index - self.start as u64);
                }
                self.epoch += 1;
                index = rewind.index;
                Content::Rewind { index }
            }
            stream::Chunk::Quality(quality) => {
                self.quality = quality.quality.into();
                Content::Quality(quality.quality)
            }
            stream::Chunk::Extension(extension) => Content::Extension { id: extension.id, data: extension.data },
            stream::Chunk::End(end) => {
                digests = Some((end.digest_w, end.digest_y));
                Content::End { frames_coded: self.coded }
            }
            _ => Content::Behind,
        };
        Ok(Chunk { bytes, index, epoch: self.epoch, content, digests })
    }

    fn take_frames(&mut self, frames: Vec<Arc<Frame>>) -> Content {
        self.timeline.extend(frames.iter().cloned());
        self.high = self.high.max(self.timeline.len());
        self.coded += frames.len() as u64;
        match self.mode {
            Mode::Joined => Content::Frames(frames),
            Mode::Layered => Content::HyperPrior(frames),
        }
    }

    fn begin_context(&mut self, model: usize, quality: u8) {
        if let Some(typical) = &mut self.typical {
            let other = (model != self.model).then(|| self.models[model].model());
            typical.begin(other);
        }
        (self.model, self.quality) = (model, quality.into());
        self.epoch += 1;
        (self.start, self.high) = (self.timeline.len(), self.timeline.len());
    }
}

fn surprise() -> Error {
    Error::new(ErrorKind::NotAvailable, 0).with_detail("the encoder wrote other chunks than it was asked for")
}
