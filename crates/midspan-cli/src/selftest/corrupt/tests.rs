//! Tests that the campaign can fail and reports what it saw.

use super::*;
use crate::selftest::author::{Author, Chunk, Content};
use crate::selftest::calls::Op;
use midspan::codec::{EncoderConfig, Frames, HyperPrior, Integers, Targets, Verdict};
use midspan::model::synthetic::{self, SyntheticShape};
use midspan::wire::{Identity, Mode};

fn models() -> Models {
    Models::new(&synthetic::model(&SyntheticShape::tiny(), 7)).unwrap()
}

/// Models that take side indices, or do not.
fn picked(side: bool) -> Vec<Arc<Codec>> {
    let picks = (1..).map(|seed| models().pick(false, &mut Random::new(seed)));
    { picks }.find(|models| models[0].model().side().is_some() == side).unwrap()
}

/// The chunks of a stream with a fixed identity, whose frames depend on the seed.
fn stream(mode: Mode, seed: u64) -> (Vec<Chunk>, Vec<Unit>) {
    stream_of(false, mode, seed)
}

fn stream_of(side: bool, mode: Mode, seed: u64) -> (Vec<Chunk>, Vec<Unit>) {
    let config = EncoderConfig::new(Identity::new([9; 8])).mode(mode);
    let mut author = Author::new(picked(side), config).unwrap();
    let mut random = Random::new(seed);
    let mut chunks = Vec::new();
    for op in [Op::Push(3), Op::Checkpoint, Op::Push(2), Op::Rewind(128), Op::Push(1), Op::Reset, Op::Push(4)] {
        chunks.extend(author.apply(op, &mut random).unwrap());
    }
    chunks.extend(author.end().unwrap());
    let units = chunks
        .iter()
        .enumerate()
        .map(|(number, chunk)| Unit { number, datagram: false, bytes: chunk.bytes.clone() })
        .collect();
    (chunks, units)
}

/// Decodes `units` and checks the result against `truth`.
fn findings(truth: &Truth, units: &[Unit]) -> Findings {
    findings_of(false, truth, units)
}

fn findings_of(side: bool, truth: &Truth, units: &[Unit]) -> Findings {
    let mut judge = Judge::new(truth);
    let ended = decode(&picked(side), Binding::ByteStream, units, &mut judge, &mut Random::new(1));
    judge.findings(ended == Ok(true))
}

#[test]
fn what_was_coded_is_right() {
    for (mode, side) in [Mode::Joined, Mode::Layered].into_iter().flat_map(|mode| [(mode, false), (mode, true)]) {
        let (chunks, units) = stream_of(side, mode, 1);
        assert_eq!(findings_of(side, &Truth::from_chunks(&chunks), &units), Findings::default());
    }
}

/// A decoder that took another side index from the stream and gave the right W and Y is told from one that did not.
#[test]
fn a_wrong_side_index_from_the_stream_is_counted() {
    let (chunks, _) = stream_of(true, Mode::Joined, 1);
    let truth = Truth::from_chunks(&chunks);
    let coded = chunks.iter().find_map(|chunk| match &chunk.content {
        Content::Frames(frames) => Some(frames.clone()),
        _ => None,
    });
    let coded = coded.unwrap();
    for wrong in [0, 1] {
        let indices: Vec<u32> = coded.iter().map(|frame| frame.side.unwrap() ^ wrong).collect();
        let integers = Some(Integers {
            w: coded.iter().flat_map(|frame| frame.w.clone()).collect(),
            y: coded.iter().flat_map(|frame| frame.y.clone()).collect(),
        });
        let hidden = coded.iter().flat_map(|frame| frame.hidden.clone()).collect();
        let mut judge = Judge::new(&truth);
        judge.hear(&DecoderEvent::SideIndices { index: 0, indices }, 0, 0);
        judge.hear(&DecoderEvent::Frames(Frames { index: 0, count: coded.len(), integers, hidden }), 0, 0);
        assert_eq!(judge.findings(false).wrong > 0, wrong == 1);
    }
}

/// Imitates a decoder that does not compare digests: a valid stream is checked against the truth of another.
#[test]
fn frames_of_another_stream_that_verify_are_counted_as_wrong_and_confirmed() {
    for mode in [Mode::Joined, Mode::Layered] {
        let (truth, other) = (Truth::from_chunks(&stream(mode, 1).0), stream(mode, 2).1);
        let found = findings(&truth, &other);
        assert_eq!((found.wrong, found.other_end), (10, true), "{mode:?}");
        assert!(found.wrong_confirmed > 0, "{mode:?}");
        let count = judge(&Ok((found, Ok(true))), 0);
        assert_eq!((count.noticed, count.wrong, count.wrong_confirmed, count.other_end), (0, 1, 1, 1));
        let mut outcome = Outcome::default();
        outcome.counts.insert((Damage::Flip, 16), count);
        assert!(outcome.broken().unwrap().starts_with("1 corruptions had a wrong frame confirmed, 1 ended"));
    }
}

/// Changes a single value in what a decoder reports.
#[test]
fn one_wrong_value_is_seen_and_so_is_each_claim_about_it() {
    let (chunks, _) = stream(Mode::Joined, 1);
    let truth = Truth::from_chunks(&chunks);
    let Content::Frames(coded) = &chunks[1].content else { panic!() };
    let words = |change: &dyn Fn(&mut Frames)| {
        let mut frames = Frames {
            index: 0,
            count: 3,
            integers: Some(Integers {
                w: coded.iter().flat_map(|frame| frame.w.clone()).collect(),
                y: coded.iter().flat_map(|frame| frame.y.clone()).collect(),
            }),
            hidden: coded.iter().flat_map(|frame| frame.hidden.clone()).collect(),
        };
        change(&mut frames);
        DecoderEvent::Frames(frames)
    };
    let heard = |frames: DecoderEvent, confirmed, resume, verdict: Option<Verdict>| {
        let mut judge = Judge::new(&truth);
        judge.hear(&frames, 0, 0);
        if let Some(verdict) = verdict {
            judge.hear(&DecoderEvent::Verdict { from: 0, to: 3, verdict }, 0, 0);
        }
        judge.pause(confirmed, resume);
        let found = judge.findings(false);
        (found.wrong, found.wrong_confirmed)
    };
    assert_eq!(heard(words(&|_| {}), 3, 3, Some(Verdict::YConfirmed)), (0, 0));
    fn integers(frames: &mut Frames) -> &mut Integers {
        frames.integers.as_mut().unwrap()
    }
    let wrong_y: &dyn Fn(&mut Frames) = &|frames| integers(frames).y[25] += 1;
    assert_eq!(heard(words(wrong_y), 0, 0, None), (1, 0));
    assert_eq!(heard(words(wrong_y), 1, 3, Some(Verdict::WConfirmed)), (1, 0), "frame 1 is wrong, and its Y alone");
    assert_eq!(heard(words(wrong_y), 2, 0, None), (1, 1));
    assert_eq!(heard(words(wrong_y), 0, 0, Some(Verdict::YConfirmed)), (1, 1));
    let wrong_w: &dyn Fn(&mut Frames) = &|frames| integers(frames).w[7] += 1;
    assert_eq!(heard(words(wrong_w), 1, 1, None), (2, 0), "the frame after it has a wrong history");
    assert_eq!(heard(words(wrong_w), 0, 2, None), (2, 1));
    assert_eq!(heard(words(wrong_w), 0, 0, Some(Verdict::WConfirmed)), (2, 1));
    assert_eq!(heard(words(&|frames| frames.hidden[0] = 9e9), 1, 0, None), (1, 1));
    assert_eq!(heard(words(&|_| {}), 4, 0, None), (0, 1), "a frame that was never given");
}

#[test]
fn a_concealed_or_pending_frame_is_not_confirmed() {
    let (chunks, _) = stream(Mode::Layered, 1);
    let truth = Truth::from_chunks(&chunks);
    let Content::HyperPrior(coded) = &chunks[1].content else { panic!() };
    let w = coded.iter().flat_map(|frame| frame.w.clone()).collect();
    let mut judge = Judge::new(&truth);
    judge.hear(&DecoderEvent::HyperPrior(HyperPrior { index: 0, count: 3, w }), 0, 3);
    judge.pause(0, 3);
    assert_eq!(judge.findings.wrong_confirmed, 0);
    judge.pause(1, 3);
    assert_eq!(judge.findings.wrong_confirmed, 1, "its target has not come");
    let (y, hidden) = (coded[0].y.clone(), coded[0].hidden.clone());
    judge.hear(&DecoderEvent::Targets(Targets { index: 0, count: 1, y, hidden, concealed: true }), 0, 3);
    assert_eq!((judge.findings.wrong, judge.findings.wrong_confirmed), (0, 1));
    judge.pause(1, 3);
    assert_eq!(judge.findings.wrong_confirmed, 2);
}

/// Seed 2228 of a campaign: in a stream without checks a reset was dropped, so a target met the hyper-prior of another
/// epoch. Its seal was valid, later targets were missing, and the decoder never confirmed that frame's Y.
#[test]
fn a_wrong_y_that_nobody_confirms_ends_no_other_stream() {
    let (chunks, _) = stream(Mode::Layered, 1);
    let Content::HyperPrior(coded) = &chunks[1].content else { panic!() };
    // Only the three frames, with the header before them and the end after them.
    let end = Chunk { content: Content::End { frames_coded: 3 }, ..chunks[0].clone() };
    let truth = Truth::from_chunks(&[chunks[0].clone(), chunks[1].clone(), end]);
    let ended = |confirmed: u64, wrong_w: bool| {
        let mut judge = Judge::new(&truth);
        let mut w: Vec<i16> = coded.iter().flat_map(|frame| frame.w.clone()).collect();
        w[0] += i16::from(wrong_w);
        judge.hear(&DecoderEvent::HyperPrior(HyperPrior { index: 0, count: 3, w }), 0, 0);
        let mut y: Vec<i16> = coded.iter().flat_map(|frame| frame.y.clone()).collect();
        y[0] += 1;
        let hidden = coded.iter().flat_map(|frame| frame.hidden.clone()).collect();
        judge.hear(&DecoderEvent::Targets(Targets { index: 0, count: 3, y, hidden, concealed: false }), 0, 0);
        judge.hear(&DecoderEvent::Ended { index: 3, frames_coded: 3 }, confirmed, 3);
        judge.findings(true)
    };
    assert!(!ended(0, false).other_end);
    let called_right = ended(1, false);
    assert!(called_right.other_end && called_right.wrong_confirmed > 0);
    assert!(ended(0, true).other_end, "W is confirmed or nothing is");
}

#[test]
fn the_share_of_wrong_frames_under_the_default_check_is_bounded() {
    let counts = |trials, wrong, check| {
        let mut outcome = Outcome::default();
        outcome.counts.insert((Damage::Swap, check), Count { trials, wrong, ..Count::default() });
        outcome.broken().is_some()
    };
    assert!(!counts(20_000, 100, 8) && counts(20_000, 101, 8));
    assert!(!counts(1_000, 11, 8) && counts(1_000, 12, 8), "5 and three standard deviations");
    assert!(!counts(1_000, 900, 0) && !counts(1_000, 900, 16));
}

/// The result of a run does not depend on the number of threads, every kind occurs under every check, and some
/// corruptions have large effects.
#[test]
fn a_short_campaign_holds_and_repeats() {
    let model = synthetic::model(&SyntheticShape::tiny(), 7);
    let campaign = |threads| run(&model, 5, 2_050, threads, &|_| {}).unwrap();
    let outcome = campaign(1);
    assert_eq!(outcome.broken(), None, "{:?}", outcome.faults);
    assert_eq!((outcome.total(None).trials, outcome.streams), (2_050, 21));
    assert_eq!(campaign(3).counts, outcome.counts);
    for kind in Damage::ALL {
        let trials: u64 =
            outcome.counts.iter().filter(|((own, _), _)| *own == kind).map(|(_, count)| count.trials).sum();
        assert!(trials > 50, "{kind:?}: {trials}");
    }
    let unchecked = outcome.total(Some(0));
    assert!(unchecked.wrong * 20 > unchecked.trials, "{unchecked:?}");
}
