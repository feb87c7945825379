//! Sessions on kernels. Only coded bytes and the frames' crcs are copied to the host, and W and Y if the session keeps
//! them.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use midspan::engine::parameters::TargetParameters;
use midspan::engine::payload::LaneFault;
use midspan::engine::quantiser::Clipped;
use midspan::engine::{
    self, Codec, CodedChunk, Context, DecodeJob, DecodeSpec, EncodeJob, Engine, Integers, Layout, Memory, NetworkName,
    PrepareJob, TargetPiece,
};
use midspan::exact::{Executor, Serial, parallel_map_mut};

use super::codec::KernelModel;
use super::decode::DecodeStep;
use super::encode::{Copies, EncodeStep, Encoded, Source};
use super::machine::Machine;
use super::network::{KernelNetwork, KernelState, KernelStep};
use crate::decode::decode_on_cpu;
use crate::error::{Error, Result};
use crate::shape::{self, tensor_bytes, to_f32_on, upload};

/// A codec model on a machine that runs kernels. Clones share it.
///
/// It is immutable and shared by sessions (`Arc<KernelCodec>`). Hidden states are tensors, \[T, E\]; those of another
/// float type or on another device are converted. They have to be ready for the calling thread: candle's CUDA devices
/// have a stream for each thread, so synchronise the device before you pass a tensor to another thread. A call decodes a
/// whole chunk: [`Limits::max_frames`](midspan::stream::Limits::max_frames) bounds its work.
///
/// W and Y stay on the machine unless the session keeps them
/// ([`Encoder::keep_integers`](midspan::codec::Encoder::keep_integers),
/// [`Decoder::keep_integers`](midspan::codec::Decoder::keep_integers)): turn that off for speed. A session that tracks
/// its cost, or limits its datagrams, has its payloads made on the CPU.
#[derive(Clone, Debug)]
pub struct KernelCodec {
    codec: Arc<Codec>,
    model: Arc<KernelModel>,
    coder: Coder,
}

/// Where the payloads of chunks that hold Y are decoded. Those of W alone are always decoded on the CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Coder {
    /// On the CPU for one frame of one stream, on the machine for more.
    #[default]
    Automatic,
    /// On the CPU.
    Cpu,
    /// On the machine.
    Device,
}

impl KernelCodec {
    /// Uploads a model to a machine.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn new(codec: Arc<Codec>, machine: &Machine) -> Result<Self> {
        let model = Arc::new(KernelModel::new(codec.model(), machine)?);
        Ok(Self { codec, model, coder: Coder::Automatic })
    }

    /// The same model with payloads decoded elsewhere. The values are the same.
    #[must_use]
    pub fn with_coder(mut self, coder: Coder) -> Self {
        self.coder = coder;
        self
    }

    /// The same model on this CPU.
    #[must_use]
    pub fn codec(&self) -> &Arc<Codec> {
        &self.codec
    }

    /// The device of the tensors.
    #[must_use]
    pub fn device(&self) -> &Device {
        self.model.machine.device()
    }

    pub(super) fn g_y(&self) -> &KernelNetwork {
        self.model.g_y()
    }

    pub(super) fn h(&self) -> Option<&KernelNetwork> {
        self.model.h.as_ref()
    }

    fn network(&self, name: NetworkName) -> Option<&KernelNetwork> {
        match name {
            NetworkName::Gy => Some(self.g_y()),
            NetworkName::H => self.h(),
        }
    }
}

impl Memory for KernelState {
    fn memory_bytes(&self) -> usize {
        KernelState::memory_bytes(self)
    }
}

impl Context for KernelState {
    fn bytes_after(&self, _frames: usize) -> usize {
        KernelState::bytes_after(self)
    }

    fn truncate(&mut self, position: u64) -> midspan::error::Result<()> {
        KernelState::truncate(self, position)
    }

    fn reset(&mut self) {
        KernelState::reset(self);
    }
}

impl Engine for KernelCodec {
    type Context = KernelState;
    type Input = Tensor;
    type Hidden = Tensor;
    /// As f32 on the device. Those of a push of one chunk are checked only when they are coded.
    type Prepared = Tensor;
    type Partial = ();
    type Scratch = ();
    type CallScratch = ();
    type Error = Error;

    fn codec(&self) -> &Codec {
        &self.codec
    }

    fn context(&self, network: NetworkName, max_rewind: u32) -> Option<KernelState> {
        self.network(network).map(|network| KernelState::new(network, max_rewind))
    }

    fn context_bytes(&self, network: NetworkName, max_rewind: u32) -> usize {
        self.network(network).map_or(0, |network| KernelState::required_bytes(&network.shape, max_rewind))
    }

    /// A chunk is decoded in one call.
    fn frames_per_call(&self, remaining: usize, _limit: usize) -> usize {
        remaining
    }

    fn frames(&self, hidden: &Tensor) -> midspan::error::Result<usize> {
        shape::frames(&self.codec, hidden)
    }

    fn prepare(&self, jobs: &[PrepareJob<'_, Self>], _executor: &dyn Executor) -> Vec<Result<Tensor>> {
        jobs.iter().map(|job| self.prepare_one(job)).collect()
    }

    fn encode(
        &self,
        jobs: &mut [EncodeJob<'_, Self>],
        _scratch: &mut (),
        executor: &dyn Executor,
    ) -> Result<Vec<CodedChunk>> {
        if self.codec.model().prediction().is_some() {
            return self.encode_predicted(jobs, executor);
        }
        let mut input = Input::default();
        jobs.iter().try_for_each(|job| input.add(job))?;
        let tensors: Vec<&Tensor> = input.hidden.iter().collect();
        let source = match tensors.is_empty() {
            false => Source::Hidden(&tensors),
            true => Source::Integers { y: &input.y, w: (!input.w.is_empty()).then_some(&*input.w) },
        };
        let copies = jobs.iter().filter_map(|job| wanted(&job.spec)).max();
        let mut steps: Vec<EncodeStep<'_>> = jobs
            .iter_mut()
            .map(|job| EncodeStep {
                h: job.h.as_deref_mut(),
                g_y: job.g_y,
                quality: job.spec.quality,
                weight: job.spec.rate_weight,
                frames: job.spec.frames,
                side: job.side,
                lanes: job.spec.lanes,
                layered: job.spec.layout != Layout::Joined,
                refuses: job.spec.refuses_clipping,
            })
            .collect();
        let mut coded = self.model.encode(&mut steps, source, copies)?;
        drop(steps);
        let copied = coded.copied.take();

        let (width, channels) = (self.codec.model().hidden_width(), self.codec.model().hyper_prior_width());
        let mut row = 0;
        let mut chunks: Vec<_> = jobs
            .iter()
            .enumerate()
            .map(|(i, job)| {
                let first = row;
                row += job.spec.frames;
                (i, job.spec, first..row)
            })
            .collect();
        let own: &dyn Executor = if chunks.len() == 1 { executor } else { &Serial };
        Ok(parallel_map_mut(executor, &mut chunks, |(i, spec, rows)| {
            let values = |size: usize| rows.start * size..rows.end * size;
            let integers = copied
                .as_ref()
                .map(|copied| Integers { w: copied.w[values(channels)].to_vec(), y: copied.y[values(width)].to_vec() });
            match (wanted(spec), integers, &copied) {
                (Some(Copies::IntegersAndParameters), Some(integers), Some(copied)) => {
                    let (tables, shifts) = &copied.parameters;
                    let parameters = TargetParameters {
                        tables: tables[values(width)].to_vec(),
                        shifts: shifts[values(width)].to_vec(),
                    };
                    spec.code(&self.codec, own, &parameters, integers, coded.clipped(*i))
                }
                (_, integers, _) => {
                    CodedChunk { integers: integers.filter(|_| spec.keep_integers), ..coded_chunk(&coded, *i) }
                }
            }
        }))
    }

    fn decode(
        &self,
        jobs: &mut [DecodeJob<'_, Self>],
        _scratch: &mut (),
        executor: &dyn Executor,
    ) -> Result<engine::DecodeResults<Tensor>> {
        let on_device = match self.coder {
            Coder::Automatic => jobs.len() > 1 || jobs.iter().any(|job| job.spec.frames > 1),
            Coder::Cpu => false,
            Coder::Device => true,
        };
        // A frame's tables then depend on the Y of the frame before, which the kernels do not predict from.
        let on_device = on_device && self.codec.model().prediction().is_none();
        match on_device && jobs.iter().all(|job| !job.spec.hyper_prior) {
            true => self.decode_payloads_on_device(jobs),
            false => self.decode_payloads_on_cpu(jobs, executor),
        }
    }

    fn download(hidden: &Tensor) -> Result<Vec<f32>> {
        Ok(hidden.flatten_all()?.to_vec1()?)
    }

    fn upload(&self, values: &mut Vec<f32>) -> Result<Tensor> {
        #[cfg(all(test, feature = "kernels"))]
        self.model.machine.check_upload()?;
        upload(&self.codec, values, self.device())
    }

    fn hidden_bytes(hidden: &Tensor) -> usize {
        tensor_bytes(hidden)
    }
}

/// What the jobs of a call code.
#[derive(Default)]
struct Input {
    hidden: Vec<Tensor>,
    y: Vec<i16>,
    w: Vec<i16>,
}

impl Input {
    fn add(&mut self, job: &EncodeJob<'_, KernelCodec>) -> Result<()> {
        match &job.source {
            engine::Source::Hidden(tensor, rows) => self.hidden.push(tensor.narrow(0, rows.start, rows.len())?),
            engine::Source::Y(y) => self.y.extend_from_slice(y),
            engine::Source::Integers { w, y } => {
                self.y.extend_from_slice(y);
                self.w.extend_from_slice(w);
            }
        }
        Ok(())
    }
}

/// What has to be copied to the host for a chunk.
fn wanted(spec: &engine::ChunkSpec) -> Option<Copies> {
    let limited = matches!(spec.layout, Layout::Layered { datagram_limit: Some(_) });
    match (spec.track_cost || limited, spec.keep_integers) {
        (true, _) => Some(Copies::IntegersAndParameters),
        (false, true) => Some(Copies::Integers),
        (false, false) => None,
    }
}

/// The chunk of a step.
fn coded_chunk(coded: &Encoded, step: usize) -> CodedChunk {
    let chunk = coded.chunk(step);
    let owned = |payloads: &[&[u8]]| payloads.iter().map(|payload| payload.to_vec()).collect::<Vec<_>>();
    let targets = match chunk.target.as_slice() {
        [] => Vec::new(),
        lanes => vec![TargetPiece::whole(chunk.crcs.len(), owned(lanes))],
    };
    CodedChunk {
        payloads: owned(&chunk.payloads),
        targets,
        clipped: chunk.clipped,
        escaped: chunk.escaped,
        crcs: chunk.crcs,
        integers: None,
        cost: None,
    }
}

impl KernelCodec {
    fn prepare_one(&self, job: &PrepareJob<'_, Self>) -> Result<Tensor> {
        let hidden = to_f32_on(&self.codec, job.hidden, self.device())?;
        let frames = hidden.dim(0)?;
        if frames > job.frames_per_chunk {
            // Everything that can be refused is checked before anything is coded.
            let width = self.codec.model().hidden_width();
            let mut all = Clipped::default();
            let per_chunk = job.frames_per_chunk.max(1);
            for first in (0..frames).step_by(per_chunk) {
                let part = hidden.narrow(0, first, per_chunk.min(frames - first))?;
                let own = self.model.check(&part, job.quality)?;
                all.count += own.count;
                all.first = all.first.or(own.first.map(|place| first * width + place));
            }
            if job.refuses_clipping {
                all.refuse(width)?;
            }
        }
        Ok(hidden)
    }

    fn decode_payloads_on_device(&self, jobs: &mut [DecodeJob<'_, Self>]) -> Result<engine::DecodeResults<Tensor>> {
        let copies = jobs.iter().any(|job| job.spec.keep_integers);
        let wants: Vec<bool> = jobs.iter().map(|job| job.spec.keep_integers).collect();
        let mut steps: Vec<DecodeStep<'_>> = jobs
            .iter_mut()
            .map(|job| DecodeStep {
                g_y: job.g_y,
                quality: job.spec.quality,
                frames: job.spec.frames,
                side: job.side,
                payloads: job.lanes.iter().map(|lane| &*lane.bytes).collect(),
            })
            .collect();
        let decoded = self.model.decode(&mut steps, copies)?;
        let frames = |(decoded, wants): (Result<super::decode::Decoded, LaneFault>, bool)| {
            let super::decode::Decoded { crcs, hidden, integers } = decoded?;
            Ok(engine::Decoded::Frames { crcs, integers: integers.filter(|_| wants), hidden })
        };
        Ok(decoded.into_iter().zip(wants).map(frames).collect())
    }

    fn decode_payloads_on_cpu(
        &self,
        jobs: &mut [DecodeJob<'_, Self>],
        executor: &dyn Executor,
    ) -> Result<engine::DecodeResults<Tensor>> {
        let before: Vec<_> = jobs.iter().map(|job| job.g_y.before(job.spec.frames)).collect();
        let decoded = decode_on_cpu(self, jobs, executor, |jobs, good, input| {
            let steps = jobs.iter_mut().zip(good).filter(|(_, good)| **good);
            let steps = steps.map(|(job, _)| {
                let DecodeSpec { frames, quality, .. } = job.spec;
                KernelStep { state: job.g_y, frames, quality }
            });
            self.model.g_y().step(&mut steps.collect::<Vec<_>>(), input)
        });
        if decoded.is_err() {
            jobs.iter_mut().zip(before).for_each(|(job, before)| job.g_y.restore(before));
        }
        decoded
    }
}
