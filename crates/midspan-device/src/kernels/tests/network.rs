use crate::kernels::{KernelNetwork, KernelState, KernelStep, Machine};
use crate::test_models::kinds;
use midspan::error::ErrorKind;
use midspan::exact::{Arm, Network, Serial, State};
use midspan::model::NetworkParameters;
use midspan::model::synthetic::{self, Case, Style, SyntheticShape};

fn expected(parameters: &NetworkParameters, inputs: &[i16], quality: usize) -> Vec<i32> {
    let network = Network::new(parameters, Arm::best());
    let mut output = Vec::new();
    network.run(&mut State::new(&network, 0), inputs, quality, &mut output, &Serial).unwrap();
    output
}

/// Repeatedly compares batches of the given sizes with the reference.
fn check(Case { name, parameters, inputs, quality, .. }: &Case, batches: &[usize]) {
    let quality = *quality;
    let expected = expected(parameters, inputs, quality);
    for machine in [Machine::cpu(1), Machine::cpu(7).backwards()] {
        let network = KernelNetwork::new(parameters, &machine).unwrap();
        let mut state = KernelState::new(&network, 0);
        let (mut found, mut rest) = (Vec::new(), inputs.as_slice());
        for &frames in batches.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let frames = frames.min(rest.len() / parameters.inputs());
            let (now, later) = rest.split_at(frames * parameters.inputs());
            found.extend(network.step(&mut [KernelStep { state: &mut state, frames, quality }], now).unwrap());
            rest = later;
        }
        let at = (0..found.len()).find(|&at| found[at] != expected[at]);
        let outputs = parameters.outputs.len();
        let place = at.map(|at| (at / outputs, at % outputs));
        assert!(at.is_none(), "{name}, batches {batches:?}, {machine:?}: frame, output {place:?}");
        assert_eq!(found.len(), expected.len());
    }
}

#[test]
fn kernels_agree_with_the_arms() {
    for case in (0..80).map(Case::random) {
        check(&case, &[case.batch, 1, 9]);
    }
}

/// Some steps need several launches.
#[test]
fn networks_at_their_bounds() {
    for case in Case::extremes() {
        check(&case, &[case.batch, 1, 333, 7]);
    }
}

#[test]
fn contexts_together_are_as_alone_and_rewind() {
    for shape in kinds(&SyntheticShape::tiny()) {
        are_as_alone(&synthetic::g_y(&SyntheticShape { qualities: 3, ..shape }, Style::Sensible, 3));
    }
}

fn are_as_alone(parameters: &NetworkParameters) {
    let reference = Network::new(parameters, Arm::Plain);
    for (machine, long) in [(Machine::cpu(3), 30), (Machine::cpu(5).backwards(), 300)] {
        let network = KernelNetwork::new(parameters, &machine).unwrap();
        let mut states: Vec<KernelState> = (0..7).map(|i| KernelState::new(&network, 4 + i)).collect();
        let mut alone: Vec<State> = (0..7).map(|i| State::new(&reference, 4 + i)).collect();
        for round in 0..20_usize {
            let next = |context: usize| {
                let frames = [1, 1, 3, long, 0][(context * 3 + round) % 5];
                (!(context + round).is_multiple_of(5)).then_some((frames, (context + round) % 3))
            };
            let mut before: Vec<KernelState> = states.clone();
            let mut alone_before = alone.clone();
            let mut steps: Vec<(usize, KernelStep<'_>)> = states
                .iter_mut()
                .enumerate()
                .filter_map(|(i, state)| next(i).map(|(frames, quality)| (i, KernelStep { state, frames, quality })))
                .collect();
            steps.reverse();
            let order: Vec<(usize, usize, usize)> =
                steps.iter().map(|(i, step)| (*i, step.frames, step.quality)).collect();
            let rows: usize = order.iter().map(|(_, frames, _)| frames).sum();
            let inputs = synthetic::inputs(parameters.inputs(), rows, 90, round as u64);
            let mut steps: Vec<KernelStep<'_>> = steps.into_iter().map(|(_, step)| step).collect();
            let output = network.step(&mut steps, &inputs).unwrap();
            // Forks continue independently, after what the originals did meanwhile.
            let (fork, alone_fork) = (&mut before[round % 7], &mut alone_before[round % 7]);
            let input = synthetic::inputs(parameters.inputs(), 2, 90, 1_000 + round as u64);
            let of_fork = network.step(&mut [KernelStep { state: fork, frames: 2, quality: 1 }], &input).unwrap();
            let mut expected = Vec::new();
            reference.run(alone_fork, &input, 1, &mut expected, &Serial).unwrap();
            assert!(of_fork == expected, "round {round}: a fork");
            let (mut expected, mut part, mut rest) = (Vec::new(), Vec::new(), inputs.as_slice());
            for (context, frames, quality) in order {
                let (now, later) = rest.split_at(frames * parameters.inputs());
                reference.run(&mut alone[context], now, quality, &mut part, &Serial).unwrap();
                expected.extend_from_slice(&part);
                rest = later;
            }
            assert!(output == expected, "round {round}");
            for (context, alone) in alone.iter_mut().enumerate().take(round % 7) {
                let to = alone.position().saturating_sub(2);
                let outcome = alone.truncate(to).map_err(|error| error.kind());
                assert_eq!(states[context].truncate(to).map_err(|error| error.kind()), outcome);
            }
        }
    }
}

#[test]
fn wrong_steps_are_refused() {
    let machine = Machine::cpu(2);
    let uploaded = |parameters: NetworkParameters| KernelNetwork::new(&parameters, &machine).unwrap();
    let network = uploaded(synthetic::g_y(&SyntheticShape::tiny(), Style::Sensible, 3));
    let other = uploaded(synthetic::h(&SyntheticShape::tiny(), Style::Sensible, 3));
    let inputs = synthetic::g_y(&SyntheticShape::tiny(), Style::Sensible, 3).inputs();
    let mut state = KernelState::new(&network, 0);
    let kind = |state: &mut KernelState, frames: usize, quality: usize, rows: usize| {
        let outcome = network.step(&mut [KernelStep { state, frames, quality }], &vec![1; rows * inputs]);
        outcome.err().and_then(|error| error.kind())
    };
    assert_eq!(kind(&mut state, 1, 0, 2), Some(ErrorKind::WrongShape));
    assert_eq!(kind(&mut state, 1, 2, 1), Some(ErrorKind::UnknownQuality));
    assert_eq!(kind(&mut KernelState::new(&other, 0), 1, 0, 1), Some(ErrorKind::WrongShape));
    assert_eq!(kind(&mut state, 0, 0, 0), None);
    assert_eq!(state.memory_bytes(), 0);
    assert_eq!(kind(&mut state, 1, 0, 1), None);
    assert!(state.memory_bytes() > 0);
    let parameters = synthetic::g_y(&SyntheticShape::tiny(), Style::Sensible, 3);
    let elsewhere = KernelNetwork::new(&parameters, &Machine::cpu(2)).unwrap();
    let step = KernelStep { state: &mut state, frames: 1, quality: 0 };
    let refused = elsewhere.step(&mut [step], &vec![1; inputs]).unwrap_err();
    assert_eq!(refused.kind(), Some(ErrorKind::WrongShape), "the context lies on the other machine");
    assert_eq!(kind(&mut state, 1, 0, 1), None);
}
