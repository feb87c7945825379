//! Contexts that are stepped together give the same integers as alone, whatever other contexts join, leave or rewind.

#![cfg(feature = "codec")]

use midspan::adapter::Threads;
use midspan::error::ErrorKind;
use midspan::exact::{Arm, Buffers, Executor, Network, Serial, State, Step};
use midspan::model::synthetic::{self, Random, Style, SyntheticShape};

/// A number below `bound`.
fn below(random: &mut Random, bound: usize) -> usize {
    random.within(0, bound as i32 - 1) as usize
}

/// A context stepped with others, and one stepped alone on the plain arm.
struct Pair {
    state: State,
    alone: State,
    quality: usize,
}

const REWIND: u32 = 9;

/// Steps contexts together for a while, and compares each with its counterpart.
fn run(style: Style, arm: Arm, executor: &dyn Executor, contexts: usize, seed: u64) {
    let parameters = synthetic::g_y(&SyntheticShape { qualities: 3, ..SyntheticShape::tiny() }, style, seed);
    let (network, plain) = (Network::new(&parameters, arm), Network::new(&parameters, Arm::Plain));
    let mut draw = Random::new(seed);
    let mut pairs: Vec<Pair> = Vec::new();
    let mut buffers = Buffers::default();
    let mut plain_output = Vec::new();
    for round in 0..12 {
        while pairs.len() < contexts {
            let (state, alone) = (State::new(&network, REWIND), State::new(&plain, REWIND));
            pairs.push(Pair { state, alone, quality: below(&mut draw, 3) });
        }
        for pair in &mut pairs {
            match below(&mut draw, 8) {
                0 => pair.quality = below(&mut draw, 3),
                1 => {
                    let back = below(&mut draw, 4) as u64;
                    let to = pair.state.position().saturating_sub(back);
                    assert_eq!(pair.state.truncate(to).is_ok(), pair.alone.truncate(to).is_ok());
                }
                _ => (),
            }
        }
        // Mostly one frame; sometimes none, some, or more than share a pass.
        let frames: Vec<usize> = pairs.iter().map(|_| [1, 1, 1, 1, 0, 3, 8, 30][below(&mut draw, 8)]).collect();
        let inputs: Vec<Vec<i16>> = frames
            .iter()
            .enumerate()
            .map(|(i, &frames)| synthetic::inputs(network.inputs(), frames, 90, seed ^ (round << 32) ^ i as u64))
            .collect();
        let mut outputs = vec![vec![77; 3]; pairs.len()];
        let mut steps: Vec<Step<'_>> = pairs
            .iter_mut()
            .zip(&inputs)
            .zip(&mut outputs)
            .map(|((pair, input), output)| Step { state: &mut pair.state, quality: pair.quality, input, output })
            .collect();
        network.step(&mut buffers, &mut steps, executor).unwrap();
        for ((pair, input), output) in pairs.iter_mut().zip(&inputs).zip(&outputs) {
            plain.run(&mut pair.alone, input, pair.quality, &mut plain_output, &Serial).unwrap();
            assert!(*output == plain_output, "{style:?} {arm:?} round {round}");
            assert_eq!(pair.state.position(), pair.alone.position());
        }
        // Some leave; others take their places.
        pairs.retain(|_| below(&mut draw, 6) > 0);
    }
    for pair in &pairs {
        assert_eq!(pair.state.save(), pair.alone.save());
    }
}

#[test]
fn contexts_together_are_as_alone() {
    for arm in Arm::available() {
        for (style, contexts) in
            [(Style::Sensible, 1), (Style::Sensible, 37), (Style::Anything, 12), (Style::Bounds, 5)]
        {
            run(style, arm, &Serial, contexts, 5);
            run(style, arm, &Threads::new(3), contexts, 6);
        }
        run(Style::Sensible, arm, &Threads::new(2), 140, 7);
    }
}

#[test]
fn one_wrong_step_changes_none() {
    let parameters = synthetic::g_y(&SyntheticShape::tiny(), Style::Sensible, 1);
    let other = Network::new(&synthetic::h(&SyntheticShape::tiny(), Style::Sensible, 1), Arm::best());
    let network = Network::new(&parameters, Arm::best());
    let input = synthetic::inputs(network.inputs(), 1, 50, 2);
    let mut foreign = State::new(&other, 0);
    for case in 0..3 {
        let (mut good, mut bad) = (State::new(&network, 0), State::new(&network, 0));
        let (mut first, mut second) = (vec![1], vec![2]);
        let mut steps = [
            Step { state: &mut good, quality: 0, input: &input, output: &mut first },
            Step {
                state: if case == 0 { &mut foreign } else { &mut bad },
                quality: if case == 1 { 2 } else { 0 },
                input: if case == 2 { &input[1..] } else { &input },
                output: &mut second,
            },
        ];
        let error = network.step(&mut Buffers::default(), &mut steps, &Serial).unwrap_err();
        let expected = if case == 1 { ErrorKind::UnknownQuality } else { ErrorKind::WrongShape };
        assert_eq!(error.kind(), expected);
        assert_eq!((good.position(), first, second), (0, vec![1], vec![2]));
    }
}

#[test]
fn buffers_stay_as_they_are_once_grown() {
    let parameters = synthetic::g_y(&SyntheticShape::tiny(), Style::Sensible, 1);
    let network = Network::new(&parameters, Arm::best());
    let input = synthetic::inputs(network.inputs(), 1, 50, 2);
    let mut states: Vec<State> = (0..20).map(|_| State::new(&network, 0)).collect();
    let mut outputs = vec![Vec::new(); states.len()];
    let mut buffers = Buffers::default();
    let mut step = |buffers: &mut Buffers| {
        let mut steps: Vec<Step<'_>> = states
            .iter_mut()
            .zip(&mut outputs)
            .map(|(state, output)| Step { state, quality: 0, input: &input, output })
            .collect();
        network.step(buffers, &mut steps, &Serial).unwrap();
    };
    step(&mut buffers);
    let memory = buffers.memory_bytes();
    assert!(memory > 0);
    (0..40).for_each(|_| step(&mut buffers));
    assert_eq!(buffers.memory_bytes(), memory);
}

/// A step of no frames gives none.
#[test]
fn steps_without_frames_change_nothing() {
    for parameters in
        [synthetic::h(&SyntheticShape::paper(), Style::Sensible, 2), synthetic::few_inputs(Style::Anything, false)]
    {
        for arm in Arm::available() {
            let network = Network::new(&parameters, arm);
            let (mut state, mut output) = (State::new(&network, 0), vec![1]);
            let mut steps = [Step { state: &mut state, quality: 0, input: &[], output: &mut output }];
            network.step(&mut Buffers::default(), &mut steps, &Serial).unwrap();
            network.run(&mut state, &[], 0, &mut Vec::new(), &Serial).unwrap();
            assert_eq!((state.position(), output), (0, Vec::new()), "{arm:?}");
        }
    }
}
