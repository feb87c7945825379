//! A decoder's view of a stream, written plainly from spec 6.3 to 6.6 and 6.12. It keeps complete lists, computes
//! digests over them by definition, and keeps nothing that can be computed. It is given the contents of chunks instead
//! of their bytes.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use crate::selftest::author::{Chunk, Content, Frame};
use crate::selftest::typical::inputs;
use midspan::codec::{Codec, DecoderEvent, ExactFrame, Frames, HyperPrior, Integers, TargetRefusal, Targets, Verdict};
use midspan::error::ErrorKind;
use midspan::exact::{Arm, Network, Serial, State};
use midspan::wire::{Mode, StreamHeader};

/// What arrives: a chunk as it was sent, or a target whose check was damaged.
#[derive(Clone, Debug)]
pub(super) struct Arrival {
    pub chunk: Chunk,
    pub damaged: bool,
    /// It comes as a separate datagram ([MSG-7]).
    pub datagram: bool,
}

/// How far ahead of the next frame, and of the current epoch, a target may be (6.5).
const EARLY_FRAMES: u64 = 4_096;
const EARLY_EPOCHS: u32 = 8;

/// The result of a poll, with only the kind of an error.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    Event(Box<DecoderEvent>),
    NeedMore,
    End,
    Error(ErrorKind),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Pending,
    Known,
    Concealed,
    /// A reset or switch dropped its target.
    Dropped,
}

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) frame: Arc<Frame>,
    epoch: u32,
    pub(super) status: Status,
    /// The elements that have come, if they come in parts.
    came: Vec<Range<usize>>,
}

/// A Y digest that waits for targets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Due {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) digest: u32,
}

/// A chunk that waits for overdue targets, then for side indices.
#[derive(Clone, Debug)]
struct Held {
    chunk: Chunk,
    /// The oldest overdue frame that was reported.
    overdue: Option<u64>,
    /// The side indices of its first frames.
    side: Vec<u32>,
    /// Whether the frames without were reported.
    asked: bool,
}

/// The plain decoder.
#[derive(Clone, Debug)]
pub(super) struct Timeline {
    models: Vec<Arc<Codec>>,
    pub(super) header: StreamHeader,
    inbox: VecDeque<Arrival>,
    held: Option<Held>,
    /// Side indices from the stream that no frame has taken yet.
    side: Vec<u32>,
    /// Early targets ([DEC-22]).
    early: Vec<Chunk>,
    pub(super) events: VecDeque<DecoderEvent>,
    pub(super) failed: Option<ErrorKind>,
    /// Whether the reset or switch where it joins is still to come.
    joining: bool,
    /// Whether the header was read.
    begun: bool,
    ended: bool,
    finished: bool,
    /// Absolute index of the first of `frames`.
    first: u64,
    frames: Vec<Entry>,
    epoch: u32,
    /// Where Y digests start: at the start of the context, then at each checkpoint that was not rewound.
    pub(super) starts: Vec<u64>,
    pub(super) due: Vec<Due>,
    /// Ranges of confirmed Y that were not rewound.
    pub(super) confirmed: Vec<(u64, u64)>,
    pub(super) resume: u64,
}

impl Timeline {
    /// A decoder that begins with the stream's header or, if `joining`, later.
    pub(super) fn new(models: Vec<Arc<Codec>>, header: StreamHeader, joining: bool) -> Timeline {
        Timeline {
            models,
            header,
            inbox: VecDeque::new(),
            held: None,
            side: Vec::new(),
            early: Vec::new(),
            events: VecDeque::new(),
            failed: None,
            joining,
            begun: joining,
            ended: false,
            finished: false,
            first: 0,
            frames: Vec::new(),
            epoch: 0,
            starts: vec![0],
            due: Vec::new(),
            confirmed: Vec::new(),
            resume: 0,
        }
    }

    /// Adds a chunk to the input.
    pub(super) fn push(&mut self, arrival: Arrival) {
        self.inbox.push_back(arrival);
    }

    /// Ends the input.
    pub(super) fn finish(&mut self) {
        self.finished = true;
    }

    /// Absolute index of the next frame.
    pub(super) fn next_index(&self) -> u64 {
        self.first + self.frames.len() as u64
    }

    /// [DEC-11], [DEC-21]: how far the confirmed ranges go without a gap.
    pub(super) fn confirmed_index(&self) -> u64 {
        let mut index = self.first;
        while let Some((_, to)) = self.confirmed.iter().find(|(from, to)| *from <= index && *to > index) {
            index = *to;
        }
        index
    }

    /// [DEC-21]
    pub(super) fn resume_index(&self) -> u64 {
        self.resume
    }

    /// The oldest pending frame.
    pub(super) fn oldest_pending(&self) -> Option<u64> {
        self.pending().next()
    }

    /// Whether a session could be saved now, which is the case if nothing is left to report.
    pub(super) fn is_quiet(&self) -> bool {
        self.events.is_empty() && self.failed.is_none()
    }

    /// Whether an error ended the session.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Returns the next event, error or state.
    pub(super) fn poll(&mut self) -> Said {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Said::Event(Box::new(event));
            }
            if let Some(kind) = self.failed {
                return Said::Error(kind);
            }
            if self.take_due() {
                continue;
            }
            if let Some(mut held) = self.held.take() {
                if let Some((index, count)) = self.overdue(&held.chunk) {
                    // [DEC-14] Datagrams are processed while the chunk waits.
                    if self.take_datagram() {
                        self.held = Some(held);
                        continue;
                    }
                    let told = held.overdue.replace(index);
                    self.held = Some(held);
                    if told == Some(index) {
                        return Said::Error(ErrorKind::TargetOverdue);
                    }
                    self.events.push_back(DecoderEvent::TargetsOverdue { index, count });
                } else if let Some((index, count)) = self.lacks_side(&held) {
                    // [SIDE-3]
                    let asked = held.asked;
                    self.held = Some(Held { asked: true, ..held });
                    if !asked {
                        self.events.push_back(DecoderEvent::SideWanted { index, count });
                    } else if !self.take_datagram() {
                        // [SIDE-4]
                        let done = Said::Error(ErrorKind::WrongSideIndices);
                        return if self.finished { done } else { Said::NeedMore };
                    }
                } else {
                    self.frames(&held.chunk);
                }
                continue;
            }
            match self.inbox.pop_front() {
                Some(arrival) => self.take(arrival),
                None if self.ended => return Said::End,
                None if self.finished => self.failed = Some(ErrorKind::Truncated),
                None => return Said::NeedMore,
            }
        }
    }

    /// Takes the oldest datagram that waits. Returns whether there was one.
    fn take_datagram(&mut self) -> bool {
        let place = self.inbox.iter().position(|arrival| arrival.datagram);
        let arrival = place.and_then(|place| self.inbox.remove(place));
        arrival.map(|arrival| self.take(arrival)).is_some()
    }

    /// Gives the side indices that a chunk waits for.
    pub(super) fn give_side(&mut self, indices: &[u32]) {
        if let Some(held) = &mut self.held {
            held.side.extend_from_slice(indices);
        }
    }

    /// [DEC-13]
    ///
    /// # Errors
    /// As for the decoder.
    pub(super) fn conceal(&mut self, index: u64, count: usize) -> Result<(), ErrorKind> {
        if let Some(kind) = self.failed {
            return Err(kind);
        }
        let frames = index..index.saturating_add(count as u64);
        if count == 0 || !frames.clone().all(|index| self.is_pending(index)) {
            return Err(ErrorKind::FrameNotPending);
        }
        let (mut y, mut hidden) = (Vec::new(), Vec::new());
        for (index, means) in frames.clone().zip(self.means(frames.end).into_iter().rev().take(count).rev()) {
            let frame = Arc::clone(&self.entry(index).frame);
            let model = self.models[frame.model].model();
            let (low, high) = (i32::from(model.y_range().0), i32::from(model.y_range().1));
            let (step, offset) = (model.step(frame.quality), model.offset(frame.quality));
            let came = self.entry(index).came.clone();
            for (element, ((mean, step), offset)) in means.into_iter().zip(step).zip(offset).enumerate() {
                let known = came.iter().any(|part| part.contains(&element)).then_some(frame.y[element]);
                y.push(known.unwrap_or(((mean + 32) >> 6).clamp(low, high) as i16));
                let scaled = known.map_or(mean as f32 / 64.0, f32::from) * step;
                hidden.push(scaled + offset);
            }
            self.entry_mut(index).status = Status::Concealed;
        }
        self.events.push_back(DecoderEvent::Targets(Targets { index, count, y, hidden, concealed: true }));
        self.judge_due();
        Ok(())
    }

    pub(super) fn entry(&self, index: u64) -> &Entry {
        &self.frames[(index - self.first) as usize]
    }

    fn entry_mut(&mut self, index: u64) -> &mut Entry {
        &mut self.frames[(index - self.first) as usize]
    }

    fn is_pending(&self, index: u64) -> bool {
        (self.first..self.next_index()).contains(&index) && self.entry(index).status == Status::Pending
    }

    fn pending(&self) -> impl Iterator<Item = u64> {
        (self.first..self.next_index()).filter(|index| self.is_pending(*index))
    }

    /// The means that g_y gives for the context's frames before `end`. Recomputes the whole context, frame by frame.
    fn means(&self, end: u64) -> Vec<Vec<i32>> {
        let start = self.starts[0];
        let context = &self.frames[(start - self.first) as usize..(end - self.first) as usize];
        let Some(last) = context.last() else { return Vec::new() };
        let model = self.models[last.frame.model].model();
        let network = Network::new(model.decoder_network(), Arm::Plain);
        let mut state = State::new(&network, 0);
        let mut means = Vec::new();
        let mut side = Vec::new();
        for Entry { frame, .. } in context {
            side.extend(frame.side);
            let mut output = Vec::new();
            let inputs = inputs(model, &frame.w, &side);
            let _ = network.run(&mut state, &inputs, frame.quality, &mut output, &Serial);
            output.truncate(model.hidden_width());
            means.push(output);
        }
        means
    }

    fn take(&mut self, Arrival { chunk, damaged, datagram }: Arrival) {
        if datagram && (self.header.mode == Mode::Joined || self.joining || !self.begun) {
            self.refuse(None, TargetRefusal::Damaged);
            return;
        }
        match &chunk.content {
            Content::Header => {
                self.begun = true;
                self.events.push_back(DecoderEvent::Opened(Box::new(self.header.clone())));
            }
            Content::Frames(_) | Content::HyperPrior(_) | Content::Exact(_) => {
                let count = self.side.len().min(frames_in(&chunk).len());
                let side = self.side.drain(..count).collect();
                self.held = Some(Held { chunk, overdue: None, side, asked: false });
            }
            Content::Side(indices) => {
                self.side.clone_from(indices);
                self.events.push_back(DecoderEvent::SideIndices { index: chunk.index, indices: indices.clone() });
            }
            Content::Target(..) => self.target(chunk, damaged),
            Content::Checkpoint => {
                // [DEC-18]
                if self.due.len() as u64 > u64::from(self.header.target_horizon.unwrap_or(0)) {
                    self.failed = Some(ErrorKind::TooManyCheckpoints);
                    return;
                }
                self.judge(&chunk);
                self.starts.push(self.next_index());
            }
            Content::Reset { .. } => {
                self.end_context(&chunk, DecoderEvent::Reset { index: chunk.index });
            }
            Content::Model { model, .. } => {
                let fingerprint = *self.models[*model].fingerprint();
                self.end_context(&chunk, DecoderEvent::Model { fingerprint, index: chunk.index });
            }
            Content::Rewind { index } => self.rewind(*index, chunk.epoch),
            Content::Quality(quality) => self.events.push_back(DecoderEvent::Quality(*quality)),
            Content::Extension { id, data } => {
                self.events.push_back(DecoderEvent::Extension { id: *id, data: data.clone() });
            }
            Content::End { frames_coded } => {
                self.judge(&chunk);
                if self.failed.is_none() {
                    self.ended = true;
                    self.events.push_back(DecoderEvent::Ended { index: chunk.index, frames_coded: *frames_coded });
                }
            }
            Content::Behind => {}
        }
    }

    /// [SIDE-3] The frames of a chunk that lack a side index: the first, and how many.
    fn lacks_side(&self, held: &Held) -> Option<(u64, usize)> {
        let frames = frames_in(&held.chunk);
        let lacking = frames.len() - held.side.len();
        let takes = frames.first().is_some_and(|frame| frame.side.is_some());
        (takes && lacking > 0).then(|| (self.next_index() + held.side.len() as u64, lacking))
    }

    /// [DEC-14] The oldest run of consecutive pending frames that blocks a chunk.
    fn overdue(&self, chunk: &Chunk) -> Option<(u64, usize)> {
        let count = match &chunk.content {
            Content::HyperPrior(frames) => frames.len() as u64,
            Content::Exact(_) => 1,
            _ => return None,
        };
        let horizon = u64::from(self.header.target_horizon.unwrap_or(u32::MAX));
        let behind = (self.next_index() + count).saturating_sub(horizon);
        let oldest = self.oldest_pending().filter(|oldest| *oldest < behind)?;
        let count = (oldest..behind).take_while(|index| self.is_pending(*index)).count();
        Some((oldest, count))
    }

    /// Takes the frames of a chunk.
    fn frames(&mut self, chunk: &Chunk) {
        let index = self.next_index();
        let (frames, status) = match &chunk.content {
            Content::Frames(frames) => (frames.clone(), Status::Known),
            Content::HyperPrior(frames) => (frames.clone(), Status::Pending),
            Content::Exact(frame) => (vec![Arc::clone(frame)], Status::Known),
            _ => return,
        };
        let count = frames.len();
        let w: Vec<i16> = frames.iter().flat_map(|frame| frame.w.clone()).collect();
        let y = frames.iter().flat_map(|frame| frame.y.clone()).collect();
        let hidden = frames.iter().flat_map(|frame| frame.hidden.clone()).collect();
        let exact = frames.first().and_then(|frame| frame.exact.clone());
        self.events.push_back(if status == Status::Pending {
            DecoderEvent::HyperPrior(HyperPrior { index, count, w })
        } else {
            let all = Frames { index, count, integers: Some(Integers { w, y }), hidden };
            match exact {
                Some((dtype, hidden)) => DecoderEvent::ExactFrame(ExactFrame { frame: all, dtype, hidden }),
                None => DecoderEvent::Frames(all),
            }
        });
        let epoch = self.epoch;
        self.frames.extend(frames.into_iter().map(|frame| Entry { frame, epoch, status, came: Vec::new() }));
    }

    fn refuse(&mut self, index: Option<u64>, reason: TargetRefusal) {
        self.events.push_back(DecoderEvent::TargetRefused { index, reason });
    }

    /// Takes a target (6.5). Sessions have too few epochs and frames for their low bits to be ambiguous, so a target
    /// names the frame that it was made for, or none.
    fn target(&mut self, chunk: Chunk, damaged: bool) {
        let (index, count) = (chunk.index, frames_of(&chunk) as usize);
        if damaged || chunk.epoch > self.epoch + EARLY_EPOCHS || index >= self.next_index() + EARLY_FRAMES {
            self.refuse(None, TargetRefusal::Damaged);
        } else if self.is_early(&chunk) {
            if !self.early.iter().any(|kept| kept.bytes == chunk.bytes) {
                self.early.push(chunk);
            }
            self.events.push_back(DecoderEvent::TargetEarly { index, count });
        } else {
            self.take_target(&chunk);
        }
    }

    fn is_early(&self, chunk: &Chunk) -> bool {
        let to_come = chunk.index + frames_of(chunk) > self.next_index();
        !self.ended && (chunk.epoch > self.epoch || chunk.epoch == self.epoch && to_come)
    }

    /// [DEC-22] Uses the oldest early target that is no longer early. Returns whether there was one.
    fn take_due(&mut self) -> bool {
        let due = self.early.iter().position(|chunk| !self.is_early(chunk));
        if let Some(place) = due {
            let chunk = self.early.remove(place);
            self.take_target(&chunk);
        }
        due.is_some()
    }

    /// Takes a target that is not early: it is usable or late.
    fn take_target(&mut self, chunk: &Chunk) {
        let Content::Target(_, elements) = &chunk.content else { return };
        let (index, frames) = (chunk.index, chunk.index..chunk.index + frames_of(chunk));
        let waits = |index: u64| self.is_pending(index) && self.entry(index).epoch == chunk.epoch;
        if !frames.clone().all(waits) {
            self.refuse(Some(index), TargetRefusal::Late);
            return;
        }
        let width = self.entry(index).frame.y.len();
        let own = elements.clone().unwrap_or(0..width);
        let came = |part: &Range<usize>| part.start < own.end && own.start < part.end;
        if frames.clone().any(|index| self.entry(index).came.iter().any(came)) {
            self.refuse(Some(index), TargetRefusal::Late);
            return;
        }
        if elements.is_some() {
            // [DEC-23]
            let entry = self.entry_mut(index);
            entry.came.push(own.clone());
            if entry.came.iter().map(Range::len).sum::<usize>() < width {
                self.events.push_back(DecoderEvent::TargetPart { index, elements: own });
                return;
            }
        }
        let (mut y, mut hidden) = (Vec::new(), Vec::new());
        let count = frames_of(chunk) as usize;
        for index in frames {
            let entry = self.entry_mut(index);
            entry.status = Status::Known;
            y.extend_from_slice(&entry.frame.y);
            hidden.extend_from_slice(&entry.frame.hidden);
        }
        self.events.push_back(DecoderEvent::Targets(Targets { index, count, y, hidden, concealed: false }));
        self.judge_due();
    }

    /// The elements of a pending frame that have not come.
    pub(super) fn missing_elements(&self, index: u64) -> Option<Vec<Range<usize>>> {
        let entry = self.is_pending(index).then(|| self.entry(index))?;
        let missing = |element: &usize| !entry.came.iter().any(|part| part.contains(element));
        let elements: Vec<usize> = (0..entry.frame.y.len()).filter(missing).collect();
        Some(elements.chunk_by(|a, b| a + 1 == *b).map(|run| run[0]..run[run.len() - 1] + 1).collect())
    }

    /// [DEC-5], [DEC-9], [DEC-16]
    fn rewind(&mut self, index: u64, epoch: u32) {
        let (kept, gone) = self.due.iter().partition(|due| due.to <= index);
        self.due = kept;
        for Due { from, to, .. } in gone {
            self.events.push_back(DecoderEvent::Verdict { from, to, verdict: Verdict::YUnverifiable });
        }
        self.frames.truncate((index - self.first) as usize);
        self.starts.retain(|start| *start <= index);
        self.confirmed.iter_mut().for_each(|(_, to)| *to = (*to).min(index));
        self.resume = self.resume.min(index);
        self.epoch = epoch;
        // [CTRL-10]
        self.side.clear();
        self.events.push_back(DecoderEvent::Rewound { index });
    }

    /// Takes a context reset or model switch; `event` says which.
    fn end_context(&mut self, chunk: &Chunk, event: DecoderEvent) {
        if self.joining {
            // 6.6
            self.joining = false;
            (self.first, self.resume) = (chunk.index, chunk.index);
        } else {
            let dropped: Vec<u64> = self.pending().collect();
            for run in dropped.chunk_by(|a, b| a + 1 == *b) {
                self.events.push_back(DecoderEvent::TargetsDropped { index: run[0], count: run.len() });
            }
            dropped.iter().for_each(|index| self.entry_mut(*index).status = Status::Dropped);
            self.judge_due();
            self.judge(chunk);
        }
        self.starts = vec![chunk.index];
        self.side.clear();
        self.epoch = chunk.epoch;
        if self.failed.is_none() {
            self.events.push_back(event);
        }
    }
}

/// The frames of a chunk that is no target.
fn frames_in(chunk: &Chunk) -> &[Arc<Frame>] {
    match &chunk.content {
        Content::Frames(frames) | Content::HyperPrior(frames) => frames,
        Content::Exact(frame) => std::slice::from_ref(frame),
        _ => &[],
    }
}

fn frames_of(target: &Chunk) -> u64 {
    match &target.content {
        Content::Target(frames, _) => frames.len() as u64,
        _ => 0,
    }
}
