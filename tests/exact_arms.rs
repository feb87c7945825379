//! Every arm, every split into batches and every executor gives the integers of the plain arm, one frame at a time.

#![cfg(feature = "codec")]

use midspan::adapter::Threads;
use midspan::exact::{Arm, Executor, Network, Serial, State};
use midspan::model::NetworkParameters;
use midspan::model::synthetic::{self, Case, Style, SyntheticShape};
use proptest::prelude::*;

/// Runs frames in batches of the given sizes, in turn.
fn run(network: &Network, inputs: &[i16], quality: usize, batches: &[usize], executor: &dyn Executor) -> Vec<i32> {
    let mut state = State::new(network, 3);
    let (mut all, mut output) = (Vec::new(), Vec::new());
    let mut rest = inputs;
    for &frames in batches.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (now, later) = rest.split_at((frames * network.inputs()).min(rest.len()));
        network.run(&mut state, now, quality, &mut output, executor).unwrap();
        all.extend_from_slice(&output);
        rest = later;
    }
    assert_eq!(state.position(), (inputs.len() / network.inputs()) as u64);
    all
}

/// The plain arm, one frame at a time.
fn expected(parameters: &NetworkParameters, inputs: &[i16], quality: usize) -> Vec<i32> {
    run(&Network::new(parameters, Arm::Plain), inputs, quality, &[1], &Serial)
}

/// Asserts equality without printing thousands of numbers.
fn same(found: &[i32], expected: &[i32], outputs: usize, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    if let Some(at) = (0..found.len()).find(|&at| found[at] != expected[at]) {
        let (frame, row) = (at / outputs, at % outputs);
        panic!("{what}: frame {frame}, output {row}: {} instead of {}", found[at], expected[at]);
    }
}

fn check_all(Case { name, parameters, inputs, quality, .. }: &Case) {
    let expected = expected(parameters, inputs, *quality);
    for arm in Arm::available() {
        let network = Network::new(parameters, arm);
        assert_eq!(network.arm(), arm);
        let outputs = network.outputs();
        let (two, three) = (Threads::new(2), Threads::new(3));
        let cases: [(&[usize], &dyn Executor); 8] = [
            (&[1], &Serial),
            (&[7], &Serial),
            (&[64], &Serial),
            (&[512], &Serial),
            (&[1, 2, 3, 4, 5, 6, 11, 33], &Serial),
            (&[1], &two),
            (&[64, 3], &two),
            (&[512], &three),
        ];
        for (batches, executor) in cases {
            let found = run(&network, inputs, *quality, batches, executor);
            let parts = executor.parts();
            same(&found, &expected, outputs, &format!("{name}, {arm:?}, batches {batches:?}, {parts} threads"));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn arms_agree(seed in any::<u64>()) {
        let case = Case::random(seed);
        prop_assert_eq!(case.parameters.validate(), Ok(()));
        check_all(&case);
    }
}

#[test]
fn networks_at_their_bounds() {
    Case::extremes().iter().for_each(check_all);
}

/// Windows around a row of the ring, around the bound of weighted sums in 32 bits, and longer than a tile; rings that
/// wrap within a batch.
#[test]
fn windows_and_wraps() {
    for (window, frames, style) in [
        (1, 300, Style::Sensible),
        (31, 700, Style::Sensible),
        (32, 700, Style::Anything),
        (33, 700, Style::Sensible),
        (129, 700, Style::Sensible),
        (256, 1_100, Style::Sensible),
        (257, 1_100, Style::Sensible),
        (700, 1_700, Style::Anything),
    ] {
        let shape = SyntheticShape { window, g_y: vec![7], hyper_prior: 6, hidden: 3, ..SyntheticShape::tiny() };
        let parameters = match style {
            Style::Sensible if window > 255 => synthetic::largest_sums(window),
            _ => synthetic::g_y(&shape, style, 5),
        };
        let inputs = synthetic::inputs(parameters.inputs(), frames, 60, 6);
        let name = format!("{style:?}, a window of {window}");
        check_all(&Case { name, parameters, inputs, batch: frames, quality: 0 });
    }
}

/// 128 frames in shares of ten leave nothing for the last of fourteen threads, nor do 99 in shares of nine for the last
/// of twelve. The arms once panicked on an empty share.
#[test]
fn no_thread_gets_an_empty_share() {
    let shape = SyntheticShape { window: 8, ..SyntheticShape::paper() };
    for parameters in [synthetic::h(&shape, Style::Sensible, 2), synthetic::few_inputs(Style::Anything, false)] {
        let inputs = synthetic::inputs(parameters.inputs(), 128, 60, 3);
        for arm in Arm::available().into_iter().filter(|arm| *arm != Arm::Plain) {
            let network = Network::new(&parameters, arm);
            let expected = run(&network, &inputs, 0, &[128], &Serial);
            for (threads, batches) in [(14, [128, 128]), (12, [99, 29]), (10, [81, 47])] {
                let found = run(&network, &inputs, 0, &batches, &Threads::new(threads));
                same(&found, &expected, network.outputs(), &format!("{arm:?}, {threads} threads"));
            }
        }
    }
}

/// The paper's shape, once: all arms on 40 frames.
#[test]
fn the_papers_shape() {
    let shape = SyntheticShape { window: 24, ..SyntheticShape::paper() };
    for parameters in [synthetic::g_y(&shape, Style::Sensible, 1), synthetic::h(&shape, Style::Sensible, 2)] {
        let inputs = synthetic::inputs(parameters.inputs(), 40, 60, 3);
        let expected = expected(&parameters, &inputs, 0);
        for arm in Arm::available() {
            let network = Network::new(&parameters, arm);
            for batch in [1, 40] {
                same(&run(&network, &inputs, 0, &[batch], &Serial), &expected, network.outputs(), &format!("{arm:?}"));
            }
        }
    }
}

/// Activations of a sensible network neither vanish nor saturate, so its outputs vary.
#[test]
fn sensible_networks_are_sensible() {
    let shape = SyntheticShape { window: 64, ..SyntheticShape::paper() };
    let spread = |values: &[i32]| {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let distinct = {
            let mut d = sorted.clone();
            d.dedup();
            d.len()
        };
        (sorted[sorted.len() / 10], sorted[sorted.len() / 2], sorted[9 * sorted.len() / 10], distinct)
    };
    let parameters = synthetic::g_y(&shape, Style::Sensible, 1);
    let network = Network::new(&parameters, Arm::best());
    let output = run(&network, &synthetic::inputs(24, 64, 30, 3), 0, &[64], &Serial);
    let frames = output.chunks(1_536);
    let means: Vec<i32> = frames.clone().flat_map(|frame| frame[..768].to_vec()).collect();
    let scales: Vec<i32> = frames.flat_map(|frame| frame[768..].to_vec()).collect();
    let (low, middle, high, distinct) = spread(&means);
    assert!((-600..-40).contains(&low) && (-60..60).contains(&middle) && (40..600).contains(&high), "{low} {high}");
    assert!(distinct > 200);
    let (low, _, high, distinct) = spread(&scales);
    assert!(low > 3 && high < 60 && high - low > 10 && distinct > 30, "{low} {high} {distinct}");

    let parameters = synthetic::h(&shape, Style::Sensible, 2);
    let network = Network::new(&parameters, Arm::best());
    let output = run(&network, &synthetic::inputs(768, 64, 60, 3), 0, &[64], &Serial);
    let (low, _, high, distinct) = spread(&output);
    assert!(low > -63 && high < 63 && high - low > 10 && distinct > 30, "{low} {high} {distinct}");
    // Frames differ.
    assert_ne!(output[..24], output[24..48]);
}
