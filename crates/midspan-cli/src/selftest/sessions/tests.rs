//! Tests that the comparison can fail, and that the plain decoder does what the specification says.

use std::sync::Arc;

use super::timeline::{Arrival, Said, Timeline};
use super::*;
use crate::selftest::author::Frame;
use midspan::codec::{DecoderEvent, Verdict};
use midspan::model::synthetic::{self, SyntheticShape};

fn models() -> Models {
    Models::new(&synthetic::model(&SyntheticShape::tiny(), 7)).unwrap()
}

/// The chunks of some calls, beginning with the header, of models that take side indices or do not.
fn chunks(mode: Mode, side: bool, calls: &[Op]) -> (Author, Vec<Chunk>) {
    let config = EncoderConfig::new(Identity::new([4; 8])).mode(mode).binding(Binding::Message);
    let picks = (1..).map(|seed| models().pick(false, &mut Random::new(seed)));
    let models = { picks }.find(|models| models[0].model().side().is_some() == side).unwrap();
    let mut author = Author::new(models, config).unwrap();
    let mut random = Random::new(3);
    let chunks = calls.iter().flat_map(|op| author.apply(*op, &mut random).unwrap()).collect();
    (author, chunks)
}

#[test]
fn a_short_campaign_finds_no_difference() {
    let outcome = run(&synthetic::model(&SyntheticShape::tiny(), 7), 1, 60, 2, &|_| {}).unwrap();
    assert_eq!(outcome.failed, 0, "{:?}", outcome.differences);
    for (name, count) in outcome.tally.fields() {
        assert!(count > 0 || name == "too many checkpoints waiting", "nothing of this happens: {name}");
    }
}

/// The chunk's content is not the frame in its bytes, which looks like a faulty decoder.
#[test]
fn a_frame_that_differs_is_told() {
    let cases = |mode| [(mode, false, true), (mode, true, true), (mode, true, false)];
    for (mode, takes_side, wrong_w) in [Mode::Joined, Mode::Layered].into_iter().flat_map(cases) {
        let (author, mut sent) = chunks(mode, takes_side, &[Op::Push(2), Op::Checkpoint]);
        for chunk in &mut sent {
            if let Content::Frames(frames) | Content::HyperPrior(frames) = &mut chunk.content {
                let Frame { w, y, hidden, model, quality, side, .. } = &*frames[1];
                let w = w.iter().map(|value| value ^ i16::from(wrong_w)).collect();
                // The decoder was given another one, which its digest covers.
                let side = side.map(|side| side ^ u32::from(!wrong_w));
                let (model, quality) = (*model, *quality);
                let frame = Frame { w, y: y.clone(), hidden: hidden.clone(), model, quality, side, exact: None };
                frames[1] = Arc::new(frame);
            }
        }
        let header = author.header().unwrap().clone();
        let mut receiver = Receiver::new(&author.models, &header, Binding::Message, None, 64, false).unwrap();
        let (mut random, mut tally) = (Random::new(1), Tally::default());
        let found = sent.iter().try_for_each(|chunk| receiver.send(chunk, &mut random, &mut tally));
        let found = found.and_then(|()| receiver.finish(&mut random, &mut tally));
        let told = found.unwrap_err();
        assert!(told.starts_with("the decoder says") || told.contains("that nothing damaged"), "{mode:?}: {told}");
    }
}

/// A case that once ended a valid stream: an older target is pending while a rewind drops a newer checkpoint.
#[test]
fn the_plain_decoder_judges_a_late_target_after_a_rewind_rightly() {
    let calls = [Op::Push(1), Op::Checkpoint, Op::Push(1), Op::Checkpoint, Op::Rewind(128)];
    let (author, sent) = chunks(Mode::Layered, false, &calls);
    let mut plain = Timeline::new(author.models.clone(), author.header().unwrap().clone(), false);
    let late = sent[2].clone();
    assert!(matches!(late.content, Content::Target(..)));
    for chunk in sent.iter().enumerate().filter(|(place, _)| *place != 2).map(|(_, chunk)| chunk).chain([&late]) {
        plain.push(Arrival { chunk: chunk.clone(), damaged: false, datagram: false });
    }
    let mut verdicts = Vec::new();
    loop {
        match plain.poll() {
            Said::Event(event) => {
                if let DecoderEvent::Verdict { from, to, verdict } = *event {
                    verdicts.push((from, to, verdict));
                }
            }
            other => {
                assert_eq!(other, Said::NeedMore);
                break;
            }
        }
    }
    let expected = [
        (0, 1, Verdict::WConfirmed),
        (1, 2, Verdict::WConfirmed),
        (1, 2, Verdict::YUnverifiable),
        (0, 1, Verdict::YConfirmed),
    ];
    assert_eq!((verdicts.as_slice(), plain.confirmed_index(), plain.resume_index()), (&expected[..], 1, 1));
}
