//! Decodes chunks of many streams to hidden states. Bytes are uploaded to the machine, and hidden states stay there.

use candle_core::Tensor;

use super::codec::{KernelModel, Part, Rows};
use super::layout::{Frames, FramesStep, Lane};
use super::machine::{Launch, Plan, Region};
use super::network::{KernelState, KernelStep};
use crate::error::Result;
use midspan::engine::Integers;
use midspan::engine::payload::LaneFault;
use midspan::engine::side::check_sums;
use midspan::entropy::EntropyError;

/// A joined chunk of one stream.
pub(crate) struct DecodeStep<'a> {
    pub g_y: &'a mut KernelState,
    pub quality: usize,
    pub frames: usize,
    /// The sums of side indices, \[T, D\].
    pub side: &'a [i16],
    /// One payload for each lane.
    pub payloads: Vec<&'a [u8]>,
}

/// A decoded chunk.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// The crc of each frame's W and Y.
    pub crcs: Vec<(u32, u32)>,
    /// \[T, E\] f32 on the machine's device, a part of the tensor of all chunks of the step.
    pub hidden: Tensor,
    /// W and Y, if they were asked for.
    pub integers: Option<Integers>,
}

impl KernelModel {
    /// Decodes a chunk of each stream. A stream whose payload is refused has failed for good.
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`](midspan::error::ErrorKind::WrongShape) for sums that are not \[T, D\];
    /// [`crate::Error::Device`]. No state has then advanced.
    pub(crate) fn decode(&self, steps: &mut [DecodeStep<'_>], copies: bool) -> Result<Vec<Result<Decoded, LaneFault>>> {
        steps.iter().try_for_each(|step| check_sums(step.side, step.frames, self.sums))?;
        let count: usize = steps.iter().map(|step| step.frames).sum();
        let (lanes, payloads) = self.lanes_in(steps);

        let mut plan = Plan::default();
        let for_g_y = self.g_y.append_frames(&mut plan, &mut of_g_y(steps))?;
        let quality = steps.iter().flat_map(|step| std::iter::repeat_n(step.quality as u64, step.frames));
        let rows = Rows { count, quality: plan.append(&quality.collect::<Vec<_>>()) };
        let sums = plan.append(&steps.iter().flat_map(|step| step.side).copied().collect::<Vec<i16>>());
        let (bytes, at_lanes) = (plan.append(&payloads), plan.append(&lanes));
        // What is read back at the end comes first.
        let crcs = (plan.room::<u32>(count), plan.room::<u32>(count));
        let values = count * self.width;
        let result = self.machine.result(&mut plan, (count, self.width))?;
        let (w_region, y) = (plan.room::<i16>(count * self.channels), plan.room::<i16>(values));
        let (tables, shifts) = (plan.room::<u32>(values), plan.room::<i32>(values));
        let map_room = self.map_room(&mut plan, values, self.synthesis_step());
        let output = plan.room::<i32>(2 * values);
        let for_g_y = self.g_y.room(&mut plan, for_g_y);

        let work = self.machine.begin(&plan)?;
        let frames = Frames {
            y: work.at(y),
            output: work.at(output),
            tables: work.at(tables),
            shifts: work.at(shifts),
            result: work.at_result(&result),
            ..map_room.of(&work, self.frames(&work, &rows))
        };
        let coded = (work.at(at_lanes), lanes.len());
        let (bytes, w, input) = (work.at(bytes), work.at(w_region), self.input_of_g_y(&work, w_region, sums));
        let of_y = Part::Y { tables: frames.tables, shifts: frames.shifts };
        // SAFETY: every address belongs to a region of the plan made above, with room for all rows of the steps; the
        // sums were checked against them. Lanes refer only to frames in these regions and to the bytes of their payloads.
        unsafe {
            work.launch(&Launch::Decode(self.coding(Part::W, coded, bytes, w)))?;
            self.g_y.launch(&work, &for_g_y, input, frames.output, 0)?;
            work.launch(&Launch::Frames(frames, FramesStep::Derive))?;
            work.launch(&Launch::Decode(self.coding(of_y, coded, bytes, frames.y)))?;
            work.launch(&Launch::Frames(frames, FramesStep::Reconstruct))?;
            if let Some(step) = self.synthesis_step() {
                work.launch(&Launch::Frames(frames, step))?;
            }
            self.digest(&work, count, (w, frames.y), crcs)?;
        }

        let header = at_lanes.up_to(crcs.1);
        let results = work.read(header)?;
        let bytes_of = |region: Region| &results[region.offset - header.offset..][..region.bytes];
        let lanes: Vec<Lane> = bytemuck::pod_collect_to_vec(bytes_of(at_lanes));
        let crcs: (Vec<u32>, Vec<u32>) =
            (bytemuck::pod_collect_to_vec(bytes_of(crcs.0)), bytemuck::pod_collect_to_vec(bytes_of(crcs.1)));
        let integers = match copies {
            true => Some((work.read_values::<i16>(w_region)?, work.read_values::<i16>(y)?)),
            false => None,
        };
        let hidden = work.finish(result)?;
        let (mut row, mut lane) = (0, 0);
        let mut outcomes = Vec::with_capacity(steps.len());
        for step in steps.iter() {
            let own = &lanes[lane..lane + step.payloads.len()];
            let crcs = crcs.0[row..].iter().copied().zip(crcs.1[row..].iter().copied()).take(step.frames);
            let hidden = hidden.narrow(0, row, step.frames)?;
            let rows = |size: usize| row * size..(row + step.frames) * size;
            let integers = integers
                .as_ref()
                .map(|(w, y)| Integers { w: w[rows(self.channels)].to_vec(), y: y[rows(self.width)].to_vec() });
            outcomes.push(fault(own).map_or(Ok(Decoded { crcs: crcs.collect(), hidden, integers }), Err));
            lane += own.len();
            row += step.frames;
        }
        // Dropped before the memory that the launches use is released.
        drop(work);
        // The state of a refused stream is not used again.
        for_g_y.advance(&mut of_g_y(steps));
        Ok(outcomes)
    }

    /// The lanes of all steps, each positioned before its payload, and the payloads one after the other.
    fn lanes_in(&self, steps: &[DecodeStep<'_>]) -> (Vec<Lane>, Vec<u8>) {
        let (mut all, mut bytes, mut first) = (Vec::new(), Vec::new(), 0);
        for step in steps {
            let lanes = self.lanes(step.quality, first, step.frames, step.payloads.len());
            for (mut lane, payload) in lanes.zip(&step.payloads) {
                let mut start = [0; 8];
                start.iter_mut().zip(*payload).for_each(|(to, from)| *to = *from);
                (lane.bytes, lane.length) = (bytes.len() as u64, payload.len() as u64);
                (lane.low, lane.read) = (u64::from_be_bytes(start), 8);
                bytes.extend_from_slice(payload);
                all.push(lane);
            }
            first += step.frames;
        }
        (all, bytes)
    }
}

/// The step of g_y for each stream.
fn of_g_y<'a>(steps: &'a mut [DecodeStep<'_>]) -> Vec<KernelStep<'a>> {
    let step =
        |step: &'a mut DecodeStep<'_>| KernelStep { state: &mut *step.g_y, frames: step.frames, quality: step.quality };
    steps.iter_mut().map(step).collect()
}

/// The first refusal of W or, if there is none, the first of Y, in the same order as on the CPU ([ERR-6]).
fn fault(lanes: &[Lane]) -> Option<LaneFault> {
    let (lane, error) = lanes
        .iter()
        .map(|lane| lane.error)
        .enumerate()
        .filter(|(_, error)| *error > 0)
        .min_by_key(|(_, error)| error / 8)?;
    Some(LaneFault { lane, error: refusal(error) })
}

/// Converts a refusal from its number in `entropy.h`.
pub(super) fn refusal(error: u64) -> EntropyError {
    match error % 8 {
        1 => EntropyError::Corrupt,
        2 => EntropyError::ValueOutOfRange,
        _ => EntropyError::SealNotCanonical,
    }
}
