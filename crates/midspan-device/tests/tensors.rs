//! The network on candle tensors gives the plain arm's integers, with either carrier, on the CPU device.

use candle_core::{DType, Device, Tensor};
use midspan::error::ErrorKind;
use midspan::exact::{Arm, Network, Serial, State};
use midspan::model::NetworkParameters;
use midspan::model::synthetic::{self, Case, Style, SyntheticShape};
use midspan_device::tensors::{Carrier, TensorNetwork, TensorState, TensorStep};
use proptest::prelude::*;

fn expected(parameters: &NetworkParameters, inputs: &[i16], quality: usize) -> Vec<i32> {
    let network = Network::new(parameters, Arm::best());
    let mut output = Vec::new();
    network.run(&mut State::new(&network, 0), inputs, quality, &mut output, &Serial).unwrap();
    output
}

/// With and without side indices and blocks.
fn shapes() -> [SyntheticShape; 4] {
    let blockless = SyntheticShape::blockless();
    let side = SyntheticShape { side: [1, 40, 7], ..SyntheticShape::blockless() };
    [SyntheticShape::tiny(), SyntheticShape::with_side(), blockless, side]
}

/// Compares both carriers with the reference, in batches of the given sizes, in turn.
fn check(Case { name, parameters, inputs, quality, .. }: &Case, batches: &[usize]) {
    let quality = *quality;
    let expected = expected(parameters, inputs, quality);
    for carrier in Carrier::ALL {
        let network = TensorNetwork::new(parameters, carrier, &Device::Cpu).unwrap();
        let mut state = TensorState::new(&network, 0);
        let (mut found, mut rest) = (Vec::new(), inputs.as_slice());
        for &frames in batches.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (now, later) = rest.split_at((frames * parameters.inputs()).min(rest.len()));
            let output = network.run(&mut state, &network.input(now).unwrap(), quality).unwrap();
            found.extend(network.read(&output).unwrap());
            rest = later;
        }
        let at = (0..found.len()).find(|&at| found[at] != expected[at]);
        let outputs = parameters.outputs.len();
        assert!(
            at.is_none(),
            "{name}, {carrier:?}, batches {batches:?}: frame, output {:?}",
            at.map(|at| (at / outputs, at % outputs))
        );
        assert_eq!(found.len(), expected.len());
        assert_eq!(state.position(), (inputs.len() / parameters.inputs()) as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn carriers_agree_with_the_arms(seed in any::<u64>()) {
        let case = Case::random(seed);
        check(&case, &[case.batch, 1]);
    }
}

#[test]
fn networks_at_their_bounds() {
    for case in Case::extremes() {
        check(&case, &[case.batch, 1, 333, 7]);
    }
}

#[test]
fn rewinds_and_forks_go_back_to_what_was() {
    for shape in shapes() {
        go_back(&synthetic::g_y(&shape, Style::Sensible, 3));
    }
}

fn go_back(parameters: &NetworkParameters) {
    let inputs = synthetic::inputs(parameters.inputs(), 60, 90, 4);
    let frame = |at: usize| &inputs[at * parameters.inputs()..][..parameters.inputs()];
    for carrier in Carrier::ALL {
        let network = TensorNetwork::new(parameters, carrier, &Device::Cpu).unwrap();
        let reference = Network::new(parameters, Arm::Plain);
        let (mut state, mut alone) = (TensorState::new(&network, 6), State::new(&reference, 6));
        let mut expected = Vec::new();
        // Forwards, with a rewind every few frames, sometimes as far as allowed; then a reset.
        let steps = [9usize, 3, 12, 6, 1, 0, 20, 6, 4, 2, 70, 3, 5];
        let mut at = 0;
        for (forwards, back) in steps.into_iter().zip([6u64, 0, 1, 6, 1, 0, 5, 6, 6, 1, 0, 2, 3]) {
            if forwards == 70 {
                state.reset();
                alone.reset();
                continue;
            }
            for _ in 0..forwards {
                let fork = state.clone();
                let input = network.input(frame(at % 60)).unwrap();
                let output = network.run(&mut state, &input, 0).unwrap();
                reference.run(&mut alone, frame(at % 60), 0, &mut expected, &Serial).unwrap();
                assert_eq!(network.read(&output).unwrap(), expected, "{carrier:?} frame {at}");
                let again = network.run(&mut fork.clone(), &input, 0).unwrap();
                assert_eq!(network.read(&again).unwrap(), expected);
                at += 1;
            }
            let to = state.position().saturating_sub(back);
            let outcome = state.truncate(to);
            assert_eq!(outcome, alone.truncate(to));
            assert_eq!(state.position(), alone.position());
        }
        assert_eq!(state.truncate(state.position() + 1).unwrap_err().kind(), ErrorKind::RewindTarget);
    }
}

#[test]
fn wrong_arguments_change_nothing() {
    let parameters = synthetic::g_y(&SyntheticShape::tiny(), Style::Sensible, 3);
    let other = synthetic::h(&SyntheticShape::tiny(), Style::Sensible, 3);
    let network = TensorNetwork::new(&parameters, Carrier::Double, &Device::Cpu).unwrap();
    let other = TensorNetwork::new(&other, Carrier::Double, &Device::Cpu).unwrap();
    let input = network.input(&vec![3; parameters.inputs()]).unwrap();
    let mut state = TensorState::new(&network, 0);
    let kind = |outcome: midspan_device::Result<Tensor>| outcome.unwrap_err().kind();
    assert_eq!(kind(network.input(&[1])), Some(ErrorKind::WrongShape));
    assert_eq!(kind(network.run(&mut state, &input, 2)), Some(ErrorKind::UnknownQuality));
    assert_eq!(kind(network.run(&mut TensorState::new(&other, 0), &input, 0)), Some(ErrorKind::WrongShape));
    let f32s = input.to_dtype(DType::F32).unwrap();
    assert_eq!(kind(network.run(&mut state, &f32s, 0)), Some(ErrorKind::WrongShape));
    assert_eq!(kind(network.run(&mut state, &input.flatten_all().unwrap(), 0)), Some(ErrorKind::WrongShape));
    assert_eq!(state.position(), 0);
    let none = network.run(&mut state, &network.input(&[]).unwrap(), 0).unwrap();
    assert_eq!((none.dims(), state.position()), (&[0, parameters.outputs.len()][..], 0));
}

#[test]
fn contexts_together_are_as_alone() {
    for shape in shapes() {
        are_as_alone(&synthetic::g_y(&SyntheticShape { qualities: 3, ..shape }, Style::Sensible, 3));
    }
}

fn are_as_alone(parameters: &NetworkParameters) {
    let reference = Network::new(parameters, Arm::Plain);
    for carrier in Carrier::ALL {
        let network = TensorNetwork::new(parameters, carrier, &Device::Cpu).unwrap();
        let mut states: Vec<TensorState> = (0..5).map(|_| TensorState::new(&network, 4)).collect();
        let mut alone: Vec<State> = (0..5).map(|_| State::new(&reference, 4)).collect();
        for round in 0..9_usize {
            let frames = [1, round % 3, 1, 7, 140 * (round % 2)];
            let qualities = if round % 2 == 0 { [0, 1, 2, 1, 0] } else { [round % 3; 5] };
            let rows = frames.iter().sum::<usize>();
            let inputs = synthetic::inputs(parameters.inputs(), rows, 90, round as u64);
            let mut steps: Vec<TensorStep<'_>> = states
                .iter_mut()
                .zip(frames)
                .zip(qualities)
                .map(|((state, frames), quality)| TensorStep { state, frames, quality })
                .collect();
            let output = network.step(&mut steps, &network.input(&inputs).unwrap()).unwrap();
            let (mut expected, mut part, mut rest) = (Vec::new(), Vec::new(), inputs.as_slice());
            for ((state, frames), quality) in alone.iter_mut().zip(frames).zip(qualities) {
                let (now, later) = rest.split_at(frames * parameters.inputs());
                reference.run(state, now, quality, &mut part, &Serial).unwrap();
                expected.extend_from_slice(&part);
                rest = later;
            }
            assert!(network.read(&output).unwrap() == expected, "{carrier:?} round {round}");
            for (state, alone) in states.iter_mut().zip(&mut alone).take(round % 5) {
                let to = alone.position().saturating_sub(2);
                assert_eq!(state.truncate(to), alone.truncate(to));
            }
        }
    }
}
