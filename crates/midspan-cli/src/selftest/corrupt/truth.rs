//! The content of a stream, as a tree of all states that its timeline ever had, and a judge that compares a decoder's
//! reports with it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::KEEPS_INTEGERS;
use crate::selftest::author::{Chunk, Content, Frame};
use midspan::codec::{DecoderEvent, Frames, Integers, Verdict};

/// A node of the tree: a frame together with all frames before it.
type Node = u32;

/// The root, before the first frame.
const ROOT: Node = 0;

/// All states that a stream's timeline ever had.
///
/// Rewinds make branches. A node is identified by its parent and its W. Frames that have the same history and W but
/// differ in Y, which is very rare for random frames, share a node, and each of them counts as right.
#[derive(Debug, Default)]
pub(super) struct Truth {
    /// The frames coded at each node; the root has none.
    frames: Vec<Vec<Arc<Frame>>>,
    children: HashMap<(Node, Vec<i16>), Node>,
    /// The timeline at the end.
    last: Vec<Node>,
    frames_coded: u64,
}

impl Truth {
    /// Builds the truth from a stream's chunks.
    pub(super) fn from_chunks(chunks: &[Chunk]) -> Truth {
        let mut truth = Truth { frames: vec![Vec::new()], ..Truth::default() };
        let mut path = Vec::new();
        for chunk in chunks {
            match &chunk.content {
                Content::Frames(frames) | Content::HyperPrior(frames) => {
                    frames.iter().for_each(|frame| truth.add(&mut path, frame));
                }
                Content::Exact(frame) => truth.add(&mut path, frame),
                Content::Rewind { index } => path.truncate(*index as usize),
                Content::End { frames_coded } => truth.frames_coded = *frames_coded,
                _ => {}
            }
        }
        truth.last = path;
        truth
    }

    fn add(&mut self, path: &mut Vec<Node>, frame: &Arc<Frame>) {
        let parent = path.last().copied().unwrap_or(ROOT);
        let fresh = self.frames.len() as Node;
        let node = *self.children.entry((parent, frame.w.clone())).or_insert(fresh);
        if node == fresh {
            self.frames.push(Vec::new());
        }
        let coded = &mut self.frames[node as usize];
        if !coded.contains(frame) {
            coded.push(Arc::clone(frame));
        }
        path.push(node);
    }
}

/// What is known of a frame's Y.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Y {
    Pending,
    Right,
    Wrong,
    /// Concealed by the caller; the decoder does not claim that it is right.
    Concealed,
}

/// A frame that a decoder gave.
#[derive(Clone, Copy, Debug)]
struct Given {
    /// `None` if no frame with this W was coded after the frames before it.
    node: Option<Node>,
    y: Y,
}

/// What a decoder did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Frames with a W, Y or hidden state that was not coded at their place.
    pub wrong: u64,
    /// Claims that such a frame, or one that was never given, is right. Claims are verdicts, [`confirmed_index`] and
    /// [`resume_index`].
    ///
    /// [`confirmed_index`]: midspan::codec::Decoder::confirmed_index
    /// [`resume_index`]: midspan::codec::Decoder::resume_index
    pub wrong_confirmed: u64,
    /// Number of targets that were refused, overdue or dropped, and of ranges that cannot be verified.
    pub noticed: u64,
    /// The stream ended as it should, but with frames other than those that were coded. A frame in which only Y is
    /// wrong does not count if the decoder never confirmed that Y: if hyper-priors have no check, a target of the same
    /// index and epoch may be accepted together with another W.
    pub other_end: bool,
}

/// Receives what a decoder reports and counts what is wrong.
#[derive(Debug)]
pub(super) struct Judge<'a> {
    truth: &'a Truth,
    given: Vec<Given>,
    /// Side indices from the stream for the next frames.
    side: VecDeque<u32>,
    /// Number of frames coded, as the decoder reports it.
    total: Option<u64>,
    /// The confirmed index at the decoder's last report.
    confirmed: u64,
    pub(super) findings: Findings,
}

impl<'a> Judge<'a> {
    /// A judge before the first event.
    pub(super) fn new(truth: &'a Truth) -> Judge<'a> {
        Judge {
            truth,
            given: Vec::new(),
            side: VecDeque::new(),
            total: None,
            confirmed: 0,
            findings: Findings::default(),
        }
    }

    /// Takes an event, and the decoder's confirmed index and resume index after it.
    pub(super) fn hear(&mut self, event: &DecoderEvent, confirmed: u64, resume: u64) {
        match event {
            DecoderEvent::Frames(frames) => self.frames(frames, None),
            DecoderEvent::ExactFrame(exact) => self.frames(&exact.frame, Some((exact.dtype, &exact.hidden))),
            DecoderEvent::HyperPrior(prior) => {
                let width = prior.w.len() / prior.count.max(1);
                for (place, w) in prior.w.chunks_exact(width).enumerate() {
                    self.w(prior.index + place as u64, w);
                }
            }
            DecoderEvent::Targets(targets) => {
                let width = targets.y.len() / targets.count.max(1);
                let values = targets.y.chunks_exact(width).zip(targets.hidden.chunks_exact(width));
                for (index, (y, hidden)) in (targets.index..).zip(values) {
                    self.y(index, y, hidden, None, targets.concealed);
                }
            }
            DecoderEvent::Rewound { index } => {
                self.given.truncate(*index as usize);
                // [CTRL-10]
                self.side.clear();
            }
            DecoderEvent::Reset { .. } | DecoderEvent::Model { .. } => self.side.clear(),
            DecoderEvent::SideIndices { indices, .. } => self.side = indices.iter().copied().collect(),
            DecoderEvent::Verdict { from, to, verdict } => {
                self.findings.noticed += u64::from(*verdict == Verdict::YUnverifiable);
                self.claim(*from..*to, *verdict == Verdict::YConfirmed, true);
            }
            DecoderEvent::TargetRefused { .. }
            | DecoderEvent::TargetsOverdue { .. }
            | DecoderEvent::TargetsDropped { .. } => self.findings.noticed += 1,
            DecoderEvent::Ended { frames_coded, .. } => self.total = Some(*frames_coded),
            _ => {}
        }
        self.stands(confirmed, resume, false);
    }

    /// Called when the decoder has no more events for now.
    pub(super) fn pause(&mut self, confirmed: u64, resume: u64) {
        self.stands(confirmed, resume, true);
    }

    /// Returns the findings. `ended` says whether the decoder reported that the stream ended as it should.
    pub(super) fn findings(mut self, ended: bool) -> Findings {
        if ended {
            let confirmed = usize::try_from(self.confirmed).unwrap_or(usize::MAX);
            let right = self.given.iter().take(confirmed).all(|given| given.y != Y::Wrong)
                && self.given.iter().map(|given| given.node).eq(self.truth.last.iter().map(|node| Some(*node)))
                && self.total == Some(self.truth.frames_coded);
            self.findings.other_end = !right;
        }
        self.findings
    }

    /// The decoder claims that all frames before `confirmed` are right, and the W of all before `resume`. Claims whose
    /// events it has not reported yet are counted when it pauses.
    fn stands(&mut self, confirmed: u64, resume: u64, paused: bool) {
        self.confirmed = confirmed;
        self.claim(0..confirmed, true, paused);
        self.claim(0..resume, false, paused);
    }

    /// The decoder claims that frames are right: their W, and also their Y if `y` is true. If `whole` is true, frames
    /// that were not given yet count as wrong.
    fn claim(&mut self, frames: std::ops::Range<u64>, y: bool, whole: bool) {
        let wrong = |given: &Given| {
            given.node.is_none()
                || y && (given.y == Y::Wrong || given.y == Y::Concealed || whole && given.y == Y::Pending)
        };
        let (from, to) = (frames.start as usize, frames.end as usize);
        let known = self.given.get(from.min(self.given.len())..to.min(self.given.len())).unwrap_or(&[]);
        let false_claim = known.iter().any(wrong) || whole && self.given.len() < to;
        self.findings.wrong_confirmed += u64::from(false_claim);
    }

    fn frames(&mut self, frames: &Frames, exact: Option<(midspan::wire::Dtype, &bytes::Bytes)>) {
        let Integers { w, y } = frames.integers.as_ref().expect(KEEPS_INTEGERS);
        let (channels, width) = (w.len() / frames.count.max(1), y.len() / frames.count.max(1));
        let values = y.chunks_exact(width).zip(frames.hidden.chunks_exact(width));
        for ((index, w), (y, hidden)) in (frames.index..).zip(w.chunks_exact(channels)).zip(values) {
            if self.w(index, w) {
                self.y(index, y, hidden, exact, false);
            }
        }
    }

    /// Takes a frame's W. Returns whether the frame may be right. A wrong frame is counted once.
    fn w(&mut self, index: u64, w: &[i16]) -> bool {
        let parent = self.given.last().map_or(Some(ROOT), |given| given.node);
        let follows = index == self.given.len() as u64;
        // A side index that was not coded makes a frame wrong, even if W and Y are right by chance.
        let side = self.side.pop_front();
        let coded = |node: &Node| {
            let frames = self.truth.frames.get(*node as usize).map_or(&[][..], Vec::as_slice);
            side.is_none() || frames.iter().any(|frame| frame.side == side)
        };
        let node = parent.filter(|_| follows).and_then(|parent| self.truth.children.get(&(parent, w.to_vec())));
        let node = node.copied().filter(coded);
        self.given.push(Given { node, y: Y::Pending });
        self.findings.wrong += u64::from(node.is_none());
        node.is_some()
    }

    fn y(
        &mut self,
        index: u64,
        y: &[i16],
        hidden: &[f32],
        exact: Option<(midspan::wire::Dtype, &bytes::Bytes)>,
        concealed: bool,
    ) {
        let Some(given) = self.given.get_mut(index as usize) else {
            self.findings.wrong += 1;
            return;
        };
        given.y = if concealed {
            Y::Concealed
        } else {
            let coded = given.node.and_then(|node| self.truth.frames.get(node as usize));
            let same = |frame: &Arc<Frame>| {
                let lossless = frame.exact.as_ref().map(|(dtype, bytes)| (*dtype, bytes));
                frame.y == y && frame.hidden == hidden && lossless == exact
            };
            if coded.is_some_and(|coded| coded.iter().any(same)) { Y::Right } else { Y::Wrong }
        };
        // A frame with a wrong history was already counted with its W.
        self.findings.wrong += u64::from(given.y == Y::Wrong && given.node.is_some());
    }
}
