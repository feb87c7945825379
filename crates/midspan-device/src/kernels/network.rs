//! The exact networks on kernels. Contexts are rings in the machine's memory, and one launch runs frames of many
//! contexts.

use std::sync::Arc;

use super::layout::{Batch, Frame, Model};
use super::machine::{Launch, Machine, Memory, Plan, Region, Work};
use crate::error::{Error, Result};
use crate::number::to_u64;
use crate::shape::Shape;
use midspan::error::{Detail, ErrorKind};
use midspan::exact::Timeline;
use midspan::model::NetworkParameters;

/// Frames of one context that pass through all phases together.
pub(super) const TILE: usize = 128;
/// The most frames in a launch.
const ROWS: usize = 4096;

/// A network on a machine. Any number of states may run on it, one step at a time.
#[derive(Debug)]
pub struct KernelNetwork {
    machine: Machine,
    model: Memory,
    widest: usize,
    mlp: usize,
    pub(super) shape: Shape,
    inputs: usize,
    outputs: usize,
    qualities: usize,
}

/// The state of one [`KernelNetwork`] in one context. A clone is a fork: keys and values are copied when either of the
/// two continues.
#[derive(Clone, Debug)]
pub struct KernelState {
    shape: Shape,
    timeline: Timeline,
    /// None before the first step.
    ring: Option<Arc<Memory>>,
}

/// A context before a step, for [`KernelState::restore`].
pub(super) struct ContextBefore {
    timeline: Timeline,
    /// None if the step left the ring's used slots alone.
    ring: Option<Arc<Memory>>,
}

/// The next frames of one context.
#[derive(Debug)]
pub struct KernelStep<'a> {
    /// The context.
    pub state: &'a mut KernelState,
    /// T: how many rows of the input belong to this context. Rows are in the order of the steps.
    pub frames: usize,
    /// The frames' quality.
    pub quality: usize,
}

/// The launches of a step: the frames of each, and the new rings that the contexts take over.
pub(super) struct Batches {
    frames: Vec<(Region, usize)>,
    arrived: Region,
    rings: Vec<Option<Arc<Memory>>>,
}

/// Where launches read the inputs of rows, \[ΣT, d_0\].
#[derive(Clone, Copy)]
pub(super) struct Input {
    /// All but the last `sum_count` inputs of each row.
    pub values: u64,
    /// The last `sum_count` inputs of each row.
    pub sums: u64,
    pub sum_count: usize,
}

impl Input {
    /// All inputs in one place.
    pub(super) fn whole(values: u64) -> Input {
        Input { values, sums: 0, sum_count: 0 }
    }
}

/// The same, with working memory.
pub(super) struct Launches {
    batches: Batches,
    /// x, p, q, the planes, scores.
    work: [Region; 8],
}

impl KernelState {
    /// An empty context, from which rewinds go back by at most `max_rewind` frames.
    #[must_use]
    pub fn new(network: &KernelNetwork, max_rewind: u32) -> KernelState {
        KernelState::of_shape(network.shape.clone(), max_rewind)
    }

    pub(crate) fn of_shape(shape: Shape, max_rewind: u32) -> KernelState {
        KernelState { shape, timeline: Timeline::new(max_rewind), ring: None }
    }

    /// Slots of the ring: a window, the frames that a rewind may undo, and room for the frames of a step that may fail.
    fn slots((_, window): &Shape, max_rewind: u32) -> usize {
        (window - 1).saturating_add(max_rewind as usize).saturating_add(TILE).next_multiple_of(32)
    }

    /// Bytes of keys and values, once there are any.
    pub(crate) fn required_bytes(shape: &Shape, max_rewind: u32) -> usize {
        // Keys take a pair of 16-bit values for each two elements of a head; values take 16 bits each.
        let slot = |(width, heads): &(usize, usize)| 4 * heads * (width / heads).div_ceil(2) + 2 * width;
        shape.0.iter().map(slot).sum::<usize>().saturating_mul(KernelState::slots(shape, max_rewind))
    }

    /// The most bytes that are held once frames have come: a ring of the full length, and briefly a second one when a
    /// fork makes its own or a step is longer than [`TILE`].
    pub(crate) fn bytes_after(&self) -> usize {
        KernelState::required_bytes(&self.shape, self.timeline.max_rewind()).saturating_mul(2)
    }

    /// Bytes that are held now. Forks share them until one of them continues.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.ring.as_ref().map_or(0, |ring| ring.bytes())
    }

    /// What [`KernelState::restore`] needs to take back a step of this many frames. Up to [`TILE`] frames are written to
    /// unused slots; more frames go to a copy, so that the ring as it is has to be kept.
    pub(super) fn before(&self, frames: usize) -> ContextBefore {
        ContextBefore { timeline: self.timeline, ring: self.ring.clone().filter(|_| frames > TILE) }
    }

    /// Takes back a step.
    pub(super) fn restore(&mut self, before: ContextBefore) {
        self.timeline = before.timeline;
        self.ring = before.ring.or_else(|| self.ring.take());
    }

    /// Rewinds the context, so that `position` is the next frame again (\[NET-6\]).
    ///
    /// # Errors
    /// As [`midspan::exact::State::truncate`]; the state is then unchanged.
    pub fn truncate(&mut self, position: u64) -> midspan::error::Result<()> {
        self.timeline.truncate(position).map(|_| ())
    }

    /// Empties the context.
    pub fn reset(&mut self) {
        self.timeline.reset();
    }

    /// Where a step of `frames` frames writes keys and values. That is the ring itself if no fork shares it and the
    /// step has at most [`TILE`] frames, for which the ring has room. Otherwise it is a copy, which
    /// [`KernelNetwork::advance`] takes over.
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`] if the ring is on another machine; [`Error::Device`].
    fn ring_for(&mut self, frames: usize, machine: &Machine) -> Result<(u64, Option<Arc<Memory>>)> {
        let fresh = match &mut self.ring {
            Some(ring) => {
                if !machine.holds(ring) {
                    return Err(Error::codec(ErrorKind::WrongShape, "a context on another machine"));
                }
                if frames <= TILE && Arc::get_mut(ring).is_some() {
                    return Ok((ring.address(), None));
                }
                machine.duplicate(ring)?
            }
            None => machine.alloc(KernelState::required_bytes(&self.shape, self.timeline.max_rewind()))?,
        };
        Ok((fresh.address(), Some(Arc::new(fresh))))
    }
}

impl KernelNetwork {
    /// Uploads a network to a machine.
    ///
    /// # Errors
    /// [`Error::Device`].
    ///
    /// # Panics
    /// If the parameters do not pass [`NetworkParameters::validate`], on which exactness and memory bounds depend.
    pub fn new(parameters: &NetworkParameters, machine: &Machine) -> Result<KernelNetwork> {
        if let Err(invalid) = parameters.validate() {
            panic!("parameters of a network that are not valid: {invalid}");
        }
        let model = Model::new(parameters);
        Ok(KernelNetwork {
            machine: machine.clone(),
            model: machine.holding(&model.lines)?,
            widest: model.widest,
            mlp: model.mlp,
            shape: (
                parameters.widths.iter().copied().zip(parameters.heads.iter().copied()).collect(),
                parameters.window,
            ),
            inputs: parameters.inputs(),
            outputs: parameters.outputs.len(),
            qualities: parameters.qualities,
        })
    }

    /// Runs the next frames of many contexts, whose rows follow each other in `input`, \[ΣT, d_0\]. Returns \[ΣT,
    /// outputs\].
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`] if the number of rows is not that of the steps, or a state belongs to another network;
    /// [`ErrorKind::UnknownQuality`]; [`Error::Device`]. No state has then advanced.
    pub fn step(&self, steps: &mut [KernelStep<'_>], input: &[i16]) -> Result<Vec<i32>> {
        let count = steps.iter().try_fold(0_usize, |sum, step| sum.checked_add(step.frames));
        let Some(count) = count.filter(|count| count.checked_mul(self.inputs) == Some(input.len())) else {
            let (width, found) = (to_u64(self.inputs), to_u64(input.len()));
            return Err(Error::call(ErrorKind::WrongShape, Detail::Shape { what: "input of all steps", width, found }));
        };
        let mut plan = Plan::default();
        let batches = self.append_frames(&mut plan, steps)?;
        if count == 0 {
            return Ok(Vec::new());
        }
        let input = plan.append(input);
        let launches = self.room(&mut plan, batches);
        let output = plan.room::<i32>(count * self.outputs);
        let work = self.machine.begin(&plan)?;
        // SAFETY: input and outputs have room for all rows of the steps; the input's length was checked against them.
        unsafe { self.launch(&work, &launches, Input::whole(work.at(input)), work.at(output), 0)? };
        let output = work.read_values(output)?;
        launches.advance(steps);
        Ok(output)
    }

    /// Appends the frames of all launches to the plan.
    pub(super) fn append_frames(&self, plan: &mut Plan, steps: &mut [KernelStep<'_>]) -> Result<Batches> {
        self.check(steps)?;
        let (mut addresses, mut rings) = (Vec::with_capacity(steps.len()), Vec::with_capacity(steps.len()));
        for step in steps.iter_mut() {
            let (address, ring) = step.state.ring_for(step.frames, &self.machine)?;
            addresses.push(address);
            rings.push(ring);
        }
        let launches = KernelNetwork::frames(steps, &addresses);
        let frames: Vec<_> = launches.iter().map(|frames| (plan.append(frames), frames.len())).collect();
        Ok(Batches { arrived: plan.append(&vec![0_u32; frames.len()]), frames, rings })
    }

    pub(super) fn check_quality(&self, quality: usize) -> Result<()> {
        match quality < self.qualities {
            true => Ok(()),
            false => Err(Error::codec(ErrorKind::UnknownQuality, "a quality that the model lacks")),
        }
    }

    fn check(&self, steps: &[KernelStep<'_>]) -> Result<()> {
        if steps.iter().any(|step| step.state.shape != self.shape) {
            return Err(Error::codec(ErrorKind::WrongShape, "the state of another network"));
        }
        steps.iter().try_for_each(|step| self.check_quality(step.quality))?;
        Ok(())
    }

    /// The frames of each launch: at most [`TILE`] of each context, and earlier frames of a context first.
    fn frames(steps: &[KernelStep<'_>], rings: &[u64]) -> Vec<Vec<Frame>> {
        let mut launches = Vec::new();
        let mut done = 0;
        let longest = steps.iter().map(|step| step.frames).max().unwrap_or(0);
        while done < longest {
            let (mut launch, mut first_row) = (Vec::new(), 0);
            for (step, ring) in steps.iter().zip(rings) {
                let slots = KernelState::slots(&step.state.shape, step.state.timeline.max_rewind()) as u64;
                for frame in done..step.frames.min(done + TILE) {
                    let position = step.state.timeline.position() + frame as u64;
                    launch.push(Frame {
                        ring: *ring,
                        position,
                        slot: position % slots,
                        slots,
                        quality: step.quality as u64,
                        row: (first_row + frame) as u64,
                    });
                }
                first_row += step.frames;
                if launch.len() + TILE > ROWS {
                    launches.push(std::mem::take(&mut launch));
                }
            }
            if !launch.is_empty() {
                launches.push(launch);
            }
            done += TILE;
        }
        launches
    }

    /// Reserves working memory for launches.
    pub(super) fn room(&self, plan: &mut Plan, batches: Batches) -> Launches {
        let most = batches.frames.iter().map(|(_, count)| *count).max().unwrap_or(0);
        let (widest, mlp) = (most * self.widest, most * self.mlp);
        let rows = [0; 3].map(|_| plan.room::<i16>(widest));
        let planes = [widest, widest, mlp, mlp].map(|size| plan.room::<u8>(size));
        let scores = plan.room::<i32>(self.machine.warps() * self.shape.1);
        let [x, p, q] = rows;
        let [high, low, mlp_high, mlp_low] = planes;
        Launches { batches, work: [x, p, q, high, low, mlp_high, mlp_low, scores] }
    }

    /// Runs the launches that [`KernelNetwork::room`] prepared. The outputs are \[ΣT, outputs\] in 32 and in 16 bits;
    /// either address may be 0.
    ///
    /// # Safety
    /// `launches` belong to this network and to the plan that `work` runs. The input has at most as many sums as the
    /// network has inputs. The other addresses meet the conditions of `Work::launch`, with room for all rows of the
    /// steps: the input's values are \[ΣT, d_0 − `sum_count`\], and its sums \[ΣT, `sum_count`\].
    pub(super) unsafe fn launch(
        &self,
        work: &Work<'_>,
        launches: &Launches,
        input: Input,
        output: u64,
        codes: u64,
    ) -> Result<()> {
        let [x, p, q, high, low, mlp_high, mlp_low, scores] = launches.work.map(|region| work.at(region));
        for (i, (frames, count)) in launches.batches.frames.iter().enumerate() {
            let batch = Batch {
                model: self.model.address(),
                frames: work.at(*frames),
                count: *count as u64,
                input: input.values,
                sums: input.sums,
                sum_count: input.sum_count as u64,
                output,
                codes,
                arrived: work.at(launches.batches.arrived.part(4 * i, 4)),
                x,
                p,
                q,
                high,
                low,
                mlp_high,
                mlp_low,
                scores,
            };
            // SAFETY: `room` reserved regions for the activations of the most frames of a launch. Rings have the slots
            // that their frames refer to, and are kept by `launches`. The caller guarantees the rest.
            unsafe { work.launch(&Launch::Network(batch))? };
        }
        Ok(())
    }
}

impl Launches {
    /// Advances the states of the steps, after launches that succeeded and whose results were read. Until then nothing
    /// that a state needs has changed.
    pub(super) fn advance(self, steps: &mut [KernelStep<'_>]) {
        for (KernelStep { state, frames, .. }, ring) in steps.iter_mut().zip(self.batches.rings) {
            state.ring = ring.or_else(|| state.ring.take());
            state.timeline.advance(*frames);
        }
    }
}
