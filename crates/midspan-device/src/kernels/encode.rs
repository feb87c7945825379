//! Encodes frames of many streams to payloads. Hidden states stay on the machine. Coded bytes and crcs are copied to the
//! host, and what [`Copies`] asks for.

use std::ops::Range;

use candle_core::Tensor;

use super::codec::{self, KernelModel, Rows};
use super::layout::{Frames, FramesStep, Lane, Part};
use super::machine::{self, Launch, Plan, Region, Work};
use super::network::{Input, KernelState, KernelStep};
use crate::error::{Error, Result};
use midspan::engine::payload::lane_span;
use midspan::engine::quantiser::{self, Clipped};
use midspan::engine::side::check_sums;
use midspan::entropy::max_payload_len;
use midspan::error::ErrorKind;

/// Bytes a frame that are downloaded together with the lengths. Longer payloads need a second download.
const LIKELY_BYTES: usize = 256;

/// The chunk that one stream has to code.
pub(crate) struct EncodeStep<'a> {
    /// `None` if the model has no h.
    pub h: Option<&'a mut KernelState>,
    pub g_y: &'a mut KernelState,
    pub quality: usize,
    /// Rate weight, in squared steps a bit.
    pub weight: f32,
    pub frames: usize,
    /// The sums of side indices, \[T, D\].
    pub side: &'a [i16],
    pub lanes: usize,
    /// Whether W and Y have separate payloads.
    pub layered: bool,
    /// Whether values that would be clamped are refused.
    pub refuses: bool,
}

/// Where the chunks' integers come from.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// Hidden states of each step, \[T, E\] f32 on the machine's device.
    Hidden(&'a [&'a Tensor]),
    /// Y of all steps, \[ΣT, E\], and W, \[ΣT, C\], unless h is to make it.
    Integers { y: &'a [i16], w: Option<&'a [i16]> },
}

/// What a step copies to the host beyond what a session always needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Copies {
    /// W and Y.
    Integers,
    /// The tables and shifts of Y too.
    IntegersAndParameters,
}

/// Coded chunks of a step.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// All payloads, one after the other.
    bytes: Vec<u8>,
    /// The end of each lane's payload.
    ends: Vec<usize>,
    /// For each step: its range of frames, its range of lanes, and whether Y has separate lanes.
    chunks: Vec<(Range<usize>, Range<usize>, bool)>,
    crcs: (Vec<u32>, Vec<u32>),
    /// For each step: how many values were clamped.
    clipped: Vec<u64>,
    /// For each lane: how many values their tables do not hold.
    escaped: Vec<u64>,
    /// What was asked for beyond that.
    pub copied: Option<Copied>,
}

/// What a step copies to the host only if that is asked for.
#[derive(Debug)]
pub(crate) struct Copied {
    /// W, \[ΣT, C\].
    pub w: Vec<i16>,
    /// Y as it was sent, \[ΣT, E\].
    pub y: Vec<i16>,
    /// The tables and the shifts of Y, \[ΣT, E\] each.
    pub parameters: (Vec<u32>, Vec<i32>),
}

/// The quantiser's findings, in the form of `frames.h`.
struct Faults(Vec<u32>);

/// A coded chunk.
#[derive(Debug)]
pub(crate) struct Chunk<'a> {
    /// One payload for each lane: W and Y, or only W.
    pub payloads: Vec<&'a [u8]>,
    /// The payloads of Y, in layered mode.
    pub target: Vec<&'a [u8]>,
    /// The crc of each frame's W and Y.
    pub crcs: Vec<(u32, u32)>,
    /// How many values were clamped.
    pub clipped: u64,
    /// How many values of W and Y their tables do not hold.
    pub escaped: u64,
}

impl Faults {
    /// The initial value for `frames` frames.
    fn none(frames: usize) -> Vec<u32> {
        std::iter::once(0).chain((0..frames).flat_map(|_| [0, u32::MAX])).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Faults {
        Faults(bytemuck::pod_collect_to_vec(bytes))
    }

    fn is_finite(&self) -> bool {
        self.0.first() == Some(&0)
    }

    /// The clamped values of these frames, which have E values each.
    fn clipped(&self, frames: Range<usize>, width: usize) -> Clipped {
        let (rows, _) = self.0.get(1..).unwrap_or_default().as_chunks::<2>();
        let own = rows.get(frames).unwrap_or_default();
        let count = own.iter().map(|[count, _]| u64::from(*count)).sum();
        let first = own.iter().position(|[count, _]| *count > 0);
        Clipped { count, first: first.map(|frame| frame * width + own[frame][1] as usize) }
    }
}

impl Encoded {
    /// How many values of a step were clamped.
    pub(super) fn clipped(&self, step: usize) -> u64 {
        self.clipped[step]
    }

    /// A step's chunk.
    pub(super) fn chunk(&self, step: usize) -> Chunk<'_> {
        let (frames, lanes, layered) = self.chunks[step].clone();
        let payload = |lane: usize| {
            let start = if lane == 0 { 0 } else { self.ends[lane - 1] };
            &self.bytes[start..self.ends[lane]]
        };
        let middle = if layered { lanes.start.midpoint(lanes.end) } else { lanes.end };
        let crc = |frame: usize| (self.crcs.0[frame], self.crcs.1[frame]);
        Chunk {
            payloads: (lanes.start..middle).map(payload).collect(),
            target: (middle..lanes.end).map(payload).collect(),
            crcs: frames.map(crc).collect(),
            clipped: self.clipped[step],
            escaped: self.escaped[lanes].iter().sum(),
        }
    }
}

impl KernelModel {
    /// Codes a chunk of each stream.
    ///
    /// # Errors
    /// [`ErrorKind::HiddenNotFinite`], [`ErrorKind::HiddenClipped`], [`ErrorKind::NotAvailable`],
    /// [`ErrorKind::WrongShape`], [`Error::Device`]. No state has then advanced.
    pub(crate) fn encode(
        &self,
        steps: &mut [EncodeStep<'_>],
        source: Source<'_>,
        copies: Option<Copies>,
    ) -> Result<Encoded> {
        let given = matches!(source, Source::Integers { w: Some(_), .. });
        if self.h.is_none() && !given {
            return Err(Error::codec(ErrorKind::NotAvailable, "the model has no h; give W too"));
        }
        let count: usize = steps.iter().map(|step| step.frames).sum();
        let fits = match source {
            Source::Hidden(tensors) => {
                let fits = |(step, rows): (&EncodeStep<'_>, &&Tensor)| rows.dims() == [step.frames, self.width];
                tensors.len() == steps.len() && steps.iter().zip(tensors).all(fits)
            }
            Source::Integers { y, w } => {
                count.checked_mul(self.width) == Some(y.len()) && w.is_none_or(|w| count * self.channels == w.len())
            }
        };
        if !fits {
            return Err(Error::codec(ErrorKind::WrongShape, "rows that are not the steps'"));
        }
        if steps.iter().any(|step| step.h.is_some() != self.h.is_some() || step.lanes == 0) {
            return Err(Error::codec(ErrorKind::WrongShape, "a step without h's context, or without lanes"));
        }
        steps.iter().try_for_each(|step| check_sums(step.side, step.frames, self.sums))?;
        let (lanes, room) = self.lanes_of(steps);
        let hidden = self.hidden_rows(source)?;

        let mut plan = Plan::default();
        let for_h = match &self.h {
            Some(h) => Some((h, h.append_frames(&mut plan, &mut network_steps(steps, |step| step.h.as_deref_mut()))?)),
            None => None,
        };
        let for_g_y = self.g_y.append_frames(&mut plan, &mut network_steps(steps, |step| Some(&mut *step.g_y)))?;
        let rows = Rows { count, quality: plan.append(&each_frame(steps, |step| step.quality as u64)) };
        let weight = plan.append(&each_frame(steps, |step| step.weight));
        let follows = plan.append(&follows(steps));
        let addresses = hidden.iter().zip(&*steps).flat_map(|(rows, step)| self.addresses(rows, step.frames));
        let at_hidden = plan.append(&addresses.collect::<Vec<_>>());
        let (y, w) = match source {
            Source::Hidden(_) => (None, None),
            Source::Integers { y, w } => (Some(plan.append(y)), w.map(|w| plan.append(w))),
        };
        let sums = plan.append(&steps.iter().flat_map(|step| step.side).copied().collect::<Vec<i16>>());
        let (at_lanes, faults) = (plan.append(&lanes), plan.append(&Faults::none(count)));
        // What is read back at the end comes first.
        let crcs = (plan.room::<u32>(count), plan.room::<u32>(count));
        let packed = plan.room::<u8>(room);
        let bytes = plan.room::<u8>(room);
        let values = count * self.width;
        let y = y.unwrap_or_else(|| plan.room::<i16>(values));
        let (x, map_room) = (plan.room::<f32>(values), self.map_room(&mut plan, values, self.analysis_step()));
        let (tables, shifts) = (plan.room::<u32>(values), plan.room::<i32>(values));
        let of_hidden = matches!(source, Source::Hidden(_));
        let chooses = of_hidden && steps.iter().any(|step| step.weight > 0.0);
        let choices = if chooses { values } else { 0 };
        let (chosen, costs) = (plan.room::<i16>(choices), plan.room::<i32>(choices));
        let w = w.unwrap_or_else(|| plan.room::<i16>(count * self.channels));
        let output = plan.room::<i32>(2 * values);
        let for_h = for_h.map(|(h, batches)| (h, h.room(&mut plan, batches)));
        let for_g_y = self.g_y.room(&mut plan, for_g_y);

        let work = self.machine.begin(&plan)?;
        let frames = Frames {
            hidden: work.at(at_hidden),
            weight: work.at(weight),
            x: work.at(x),
            y: work.at(y),
            follows: work.at(follows),
            chosen: work.at(chosen),
            costs: work.at(costs),
            output: work.at(output),
            tables: work.at(tables),
            shifts: work.at(shifts),
            faults: work.at(faults),
            ..map_room.of(&work, self.frames(&work, &rows))
        };
        let sent = if chooses { frames.chosen } else { frames.y };
        let coded = (work.at(at_lanes), lanes.len());
        let of_y = codec::Part::Y { tables: frames.tables, shifts: frames.shifts };
        // SAFETY: every address belongs to a region of the plan made above, with room for all rows of the steps, or to
        // hidden states, which `hidden` keeps; the sums were checked against the steps. Lanes refer only to
        // frames in these regions, and to room for bytes that no payload exceeds.
        unsafe {
            if of_hidden {
                self.quantise(&work, frames)?;
            }
            if let Some((h, for_h)) = &for_h {
                // If W is given, h runs only because its context has to move on.
                h.launch(&work, for_h, Input::whole(frames.y), 0, if given { 0 } else { work.at(w) })?;
            }
            self.g_y.launch(&work, &for_g_y, self.input_of_g_y(&work, w, sums), frames.output, 0)?;
            if chooses {
                if self.chooses_in_runs() {
                    work.launch(&Launch::Frames(frames, FramesStep::Derive))?;
                    work.launch(&Launch::Frames(frames, FramesStep::ChooseRun))?;
                } else {
                    work.launch(&Launch::Frames(frames, FramesStep::DeriveAndChoose))?;
                }
                work.launch(&Launch::Frames(frames, FramesStep::Settle))?;
            } else {
                work.launch(&Launch::Frames(frames, FramesStep::Derive))?;
            }
            self.digest(&work, count, (work.at(w), sent), crcs)?;
            for (part, values) in [(codec::Part::W, work.at(w)), (of_y, sent)] {
                work.launch(&Launch::Encode(self.coding(part, coded, work.at(bytes), values)))?;
            }
            let (lanes, count) = (work.at(at_lanes), lanes.len() as u64);
            work.launch(&Launch::Pack { lanes, count, bytes: work.at(bytes), packed: work.at(packed) })?;
        }

        let likely = packed.part(0, packed.bytes.min(LIKELY_BYTES * rows.count));
        let header = at_lanes.up_to(likely);
        let results = work.read(header)?;
        let bytes_of = |region: Region| &results[region.offset - header.offset..][..region.bytes];
        let found = Faults::from_bytes(bytes_of(faults));
        self.check_finite(&found, source)?;
        let mut first = 0;
        let mut clipped = Vec::with_capacity(steps.len());
        for step in &*steps {
            let own = found.clipped(first..first + step.frames, self.width);
            if step.refuses {
                own.refuse(self.width)?;
            }
            clipped.push(own.count);
            first += step.frames;
        }
        let lanes: Vec<Lane> = bytemuck::pod_collect_to_vec(bytes_of(at_lanes));
        let escaped = lanes.iter().map(|lane| lane.escaped).collect();
        let ends: Vec<usize> = lanes
            .iter()
            .scan(0, |end, lane| {
                *end += lane.length as usize;
                Some(*end)
            })
            .collect();
        let all = ends.last().copied().unwrap_or(0);
        let mut bytes = bytes_of(likely).to_vec();
        if all > bytes.len() {
            bytes.extend(work.read(packed.part(bytes.len(), all - bytes.len()))?);
        }
        let crcs = (bytemuck::pod_collect_to_vec(bytes_of(crcs.0)), bytemuck::pod_collect_to_vec(bytes_of(crcs.1)));
        let copied = match copies {
            None => None,
            Some(copies) => Some(Copied {
                w: work.read_values(w)?,
                y: work.read_values(if chooses { chosen } else { y })?,
                parameters: match copies {
                    Copies::Integers => Default::default(),
                    Copies::IntegersAndParameters => (work.read_values(tables)?, work.read_values(shifts)?),
                },
            }),
        };
        // Dropped before the memory that the launches use is released.
        drop(work);
        if let Some((_, for_h)) = for_h {
            for_h.advance(&mut network_steps(steps, |step| step.h.as_deref_mut()));
        }
        for_g_y.advance(&mut network_steps(steps, |step| Some(&mut *step.g_y)));
        let (mut frame, mut lane) = (0, 0);
        let chunks = steps.iter().map(|step| {
            let frames = frame..frame + step.frames;
            let lanes = lane..lane + step.lanes * if step.layered { 2 } else { 1 };
            (frame, lane) = (frames.end, lanes.end);
            (frames, lanes, step.layered)
        });
        Ok(Encoded { bytes, ends, chunks: chunks.collect(), crcs, clipped, escaped, copied })
    }

    /// Checks whether hidden states, \[T, E\], can be coded, without coding them. Returns the values that would be
    /// clamped.
    ///
    /// # Errors
    /// [`ErrorKind::HiddenNotFinite`], [`ErrorKind::UnknownQuality`], [`Error::Device`].
    pub(crate) fn check(&self, hidden: &Tensor, quality: usize) -> Result<Clipped> {
        let (count, width) = hidden.dims2()?;
        if width != self.width {
            return Err(Error::codec(ErrorKind::WrongShape, "hidden states of another width"));
        }
        self.g_y.check_quality(quality)?;
        let values = count * self.width;
        let (source, hidden) = (Source::Hidden(&[hidden]), self.machine.hidden(hidden)?);
        let mut plan = Plan::default();
        let rows = Rows { count, quality: plan.append(&vec![quality as u64; count]) };
        let at_hidden = plan.append(&self.addresses(&hidden, count).collect::<Vec<_>>());
        let faults = plan.append(&Faults::none(count));
        let (x, y) = (plan.room::<f32>(values), plan.room::<i16>(values));
        let map_room = self.map_room(&mut plan, values, self.analysis_step());
        let work = self.machine.begin(&plan)?;
        let frames = Frames {
            hidden: work.at(at_hidden),
            x: work.at(x),
            y: work.at(y),
            faults: work.at(faults),
            ..map_room.of(&work, self.frames(&work, &rows))
        };
        // SAFETY: every address belongs to a region of the plan made above, with room for all rows, or to the hidden
        // states, which are kept.
        unsafe { self.quantise(&work, frames)? };
        let found = Faults::from_bytes(&work.read(faults)?);
        self.check_finite(&found, source)?;
        Ok(found.clipped(0..count, self.width))
    }

    /// # Errors
    /// [`ErrorKind::HiddenNotFinite`], with the place of the value. The CPU looks for it, since only a refused stream
    /// needs it.
    fn check_finite(&self, faults: &Faults, source: Source<'_>) -> Result<()> {
        if faults.is_finite() {
            return Ok(());
        }
        if let Source::Hidden(tensors) = source {
            for tensor in tensors {
                quantiser::check_finite(&tensor.flatten_all()?.to_vec1::<f32>()?, self.width)?;
            }
        }
        let words = if self.chooses_in_runs() {
            "the model's sparse maps make no number of values as large as these"
        } else {
            "the model's analysis map makes no number of values as large as these"
        };
        Err(Error::codec(ErrorKind::HiddenNotFinite, words))
    }

    /// # Safety
    /// The arrays of `frames` that quantising uses meet the conditions of `Work::launch`.
    unsafe fn quantise(&self, work: &Work<'_>, frames: Frames) -> Result<()> {
        // SAFETY: the caller guarantees it.
        unsafe {
            work.launch(&Launch::Frames(frames, FramesStep::Quantise))?;
            if let Some(step) = self.analysis_step() {
                work.launch(&Launch::Frames(frames, step))?;
            }
        }
        Ok(())
    }

    /// The lanes of all steps (in layered mode those of W, then those of Y), and the most bytes that their payloads may
    /// have.
    fn lanes_of(&self, steps: &[EncodeStep<'_>]) -> (Vec<Lane>, usize) {
        let (mut all, mut first) = (Vec::new(), 0);
        for step in steps {
            let lanes: Vec<Lane> = self.lanes(step.quality, first, step.frames, step.lanes).collect();
            if step.layered {
                all.extend(lanes.iter().map(|lane| {
                    let mut w = *lane;
                    (w.parts[0].finish, w.parts[1].finish, w.parts[1].count) = (1, 0, 0);
                    w
                }));
                all.extend(lanes.iter().map(|lane| {
                    let mut y = *lane;
                    y.parts[0].count = 0;
                    y
                }));
            } else {
                all.extend(lanes);
            }
            first += step.frames;
        }
        let mut room = 0;
        for lane in &mut all {
            lane.bytes = room;
            room += room_of(lane);
        }
        (all, room as usize)
    }

    fn hidden_rows(&self, source: Source<'_>) -> Result<Vec<machine::Hidden>> {
        match source {
            Source::Hidden(tensors) => tensors.iter().map(|tensor| self.machine.hidden(tensor)).collect(),
            Source::Integers { .. } => Ok(Vec::new()),
        }
    }

    /// The addresses of a tensor's rows.
    fn addresses(&self, rows: &machine::Hidden, count: usize) -> impl Iterator<Item = u64> {
        let (first, row) = (rows.address, 4 * self.width as u64);
        (0..count as u64).map(move |frame| first + frame * row)
    }
}

/// The step of one of the networks for each stream.
fn network_steps<'a, 'b>(
    steps: &'a mut [EncodeStep<'b>],
    state: impl for<'c> Fn(&'c mut EncodeStep<'b>) -> Option<&'c mut KernelState>,
) -> Vec<KernelStep<'a>> {
    let step = |step: &'a mut EncodeStep<'b>| {
        let (frames, quality) = (step.frames, step.quality);
        state(step).map(|state| KernelStep { state, frames, quality })
    };
    steps.iter_mut().filter_map(step).collect()
}

/// A value for each frame of each step.
fn each_frame<T: Copy>(steps: &[EncodeStep<'_>], value: impl Fn(&EncodeStep<'_>) -> T) -> Vec<T> {
    steps.iter().flat_map(|step| std::iter::repeat_n(value(step), step.frames)).collect()
}

/// For each frame of each step: 1 if the previous frame is in the same lane, otherwise 0.
fn follows(steps: &[EncodeStep<'_>]) -> Vec<u32> {
    let spans = steps.iter().flat_map(|step| (0..step.lanes).map(|lane| lane_span(step.frames, step.lanes, lane)));
    spans.flat_map(|span| span.clone().map(move |frame| u32::from(frame > span.start))).collect()
}

/// The bytes that a lane may write: its payload, and a run that is taken back, which has at most 46 bits a value (spec
/// 3.6).
pub(super) fn room_of(lane: &Lane) -> u64 {
    let parts = || lane.parts.iter().filter(|part| part.count > 0);
    let payload = |part: &Part| max_payload_len(part.count / part.width, part.width);
    // Eight bytes for the seal, and for words that are written in advance.
    parts().map(payload).sum::<u64>() + 6 * parts().map(|part| part.width).max().unwrap_or(0) + 8
}
