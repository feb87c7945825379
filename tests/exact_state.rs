//! Contexts: rewind, reset, fork, save and restore, constant memory.

#![cfg(feature = "codec")]

use midspan::error::ErrorKind;
use midspan::exact::{Arm, Network, Serial, State};
use midspan::model::synthetic::{self, Style, SyntheticShape};
use proptest::prelude::*;

const WINDOW: usize = 9;

fn network(arm: Arm) -> Network {
    let shape = SyntheticShape { window: WINDOW, ..SyntheticShape::tiny() };
    Network::new(&synthetic::g_y(&shape, Style::Sensible, 4), arm)
}

fn inputs(network: &Network, frames: usize, seed: u64) -> Vec<i16> {
    synthetic::inputs(network.inputs(), frames, 60, seed)
}

fn run(network: &Network, state: &mut State, input: &[i16], quality: usize) -> Vec<i32> {
    let mut output = Vec::new();
    network.run(state, input, quality, &mut output, &Serial).unwrap();
    output
}

#[derive(Clone, Debug)]
enum Action {
    Run { frames: usize, seed: u64, quality: usize },
    Rewind { back: u64 },
    Reset,
    Fork,
    SaveAndRestore,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let action = prop_oneof![
        6 => (1usize..40, any::<u64>(), 0usize..2).prop_map(|(frames, seed, quality)| Action::Run { frames, seed, quality }),
        4 => (0u64..20).prop_map(|back| Action::Rewind { back }),
        1 => Just(Action::Reset),
        1 => Just(Action::Fork),
        1 => Just(Action::SaveAndRestore),
    ];
    prop::collection::vec(action, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// After any history, the state equals that of a straight run of the remaining frames.
    #[test]
    fn any_history_equals_a_straight_run(actions in actions(), max_rewind in 0u32..30) {
        for arm in Arm::available() {
            let network = network(arm);
            let d = network.inputs();
            let mut state = State::new(&network, max_rewind);
            // The timeline: input and quality of each frame, and the furthest it reached.
            let mut timeline: Vec<(Vec<i16>, usize)> = Vec::new();
            let mut high = 0;
            for action in &actions {
                match *action {
                    Action::Run { frames, seed, quality } => {
                        let input = inputs(&network, frames, seed);
                        run(&network, &mut state, &input, quality);
                        timeline.extend(input.chunks(d).map(|frame| (frame.to_vec(), quality)));
                        high = high.max(timeline.len() as u64);
                    }
                    Action::Rewind { back } => {
                        let now = timeline.len() as u64;
                        let Some(to) = now.checked_sub(back) else { continue };
                        let allowed = high - to <= u64::from(max_rewind);
                        prop_assert_eq!(state.truncate(to).is_ok(), allowed);
                        if allowed {
                            timeline.truncate(to as usize);
                        }
                    }
                    Action::Reset => {
                        state.reset();
                        timeline.clear();
                        high = 0;
                    }
                    Action::Fork => {
                        let fork = state.clone();
                        run(&network, &mut state, &inputs(&network, 50, 1), 0);
                        state = fork;
                    }
                    Action::SaveAndRestore => {
                        let bytes = state.save();
                        state = State::new(&network, max_rewind);
                        state.restore(&network, &bytes).unwrap();
                        prop_assert_eq!(&state.save(), &bytes);
                    }
                }
                prop_assert_eq!(state.position(), timeline.len() as u64);
            }
            let next = inputs(&network, 2, 99);
            let found = run(&network, &mut state, &next, 1);

            let plain = self::network(Arm::Plain);
            let mut straight = State::new(&plain, 0);
            for (input, quality) in &timeline {
                run(&plain, &mut straight, input, *quality);
            }
            prop_assert_eq!(found, run(&plain, &mut straight, &next, 1));
        }
    }
}

#[test]
fn a_saved_state_goes_on_with_another_arm() {
    let plain = network(Arm::Plain);
    let mut state = State::new(&plain, 5);
    run(&plain, &mut state, &inputs(&plain, 200, 1), 0);
    state.truncate(197).unwrap();
    let bytes = state.save();
    // Header and two blocks of widths 6 and 12, k and v of the frames that a rewind as far as allowed still needs:
    // 197 − (200 − 5 − 8) = 10.
    assert_eq!(bytes.len(), 8 + 5 * 8 + 4 * 4 + 10 * 2 * 2 * (6 + 12));
    let next = inputs(&plain, 20, 2);
    let expected = run(&plain, &mut state, &next, 0);
    for arm in Arm::available() {
        let network = network(arm);
        let mut state = State::new(&network, 5);
        state.restore(&network, &bytes).unwrap();
        assert_eq!(state.save(), bytes);
        state.truncate(195).unwrap();
        assert_eq!(state.truncate(194).unwrap_err().kind(), ErrorKind::RewindTooFar);
        state.restore(&network, &bytes).unwrap();
        assert_eq!(run(&network, &mut state, &next, 0), expected);
    }
}

#[test]
fn restoring_refuses_what_does_not_fit() {
    let network = network(Arm::best());
    let mut state = State::new(&network, 5);
    run(&network, &mut state, &inputs(&network, 30, 1), 0);
    let bytes = state.save();
    let mut fresh = State::new(&network, 5);
    for length in 0..bytes.len() {
        assert!(fresh.restore(&network, &bytes[..length]).is_err());
    }
    assert!(fresh.restore(&network, &[bytes.as_slice(), &[0]].concat()).is_err());
    assert!(fresh.restore(&network, &[bytes.as_slice(), &[0, 0]].concat()).is_err());
    // A key of 2,048, any byte of the header except those of the counts, and huge positions.
    let mut bad = bytes.clone();
    let last = bad.len() - 2;
    bad[last..].copy_from_slice(&2_048i16.to_le_bytes());
    assert!(fresh.restore(&network, &bad).is_err());
    for at in (0..64).filter(|at| !(16..32).contains(at)) {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        assert!(fresh.restore(&network, &bad).is_err(), "byte {at}");
    }
    for position in [0, 1, u64::MAX, 1 << 62] {
        for high in [0, 31, u64::MAX, 1 << 62] {
            let mut bad = bytes.clone();
            bad[16..24].copy_from_slice(&position.to_le_bytes());
            bad[24..32].copy_from_slice(&high.to_le_bytes());
            // Whether it succeeds or not, the state can be used afterwards.
            let _ = fresh.restore(&network, &bad);
            run(&network, &mut fresh, &inputs(&network, 3, 1), 0);
        }
    }
    assert!(State::new(&network, 4).restore(&network, &bytes).is_err());
    fresh.restore(&network, &bytes).unwrap();
    assert_eq!(fresh.position(), 30);
}

#[test]
fn a_far_position_works() {
    // A context has no last frame: positions near 2^62 behave as small ones do.
    let network = network(Arm::best());
    let mut state = State::new(&network, 5);
    run(&network, &mut state, &inputs(&network, 100, 1), 0);
    let mut bytes = state.save();
    let slots = 160; // 9 − 1 + 128, in groups of 32
    let far = 100 + slots * (1u64 << 54);
    bytes[16..24].copy_from_slice(&far.to_le_bytes());
    bytes[24..32].copy_from_slice(&far.to_le_bytes());
    let next = inputs(&network, 300, 2);
    let expected = run(&network, &mut state, &next, 0);
    state.restore(&network, &bytes).unwrap();
    assert_eq!(run(&network, &mut state, &next, 0), expected);
    assert_eq!(state.position(), far + 300);
}

#[test]
fn memory_grows_with_frames() {
    for arm in Arm::available() {
        let network = network(arm);
        let most = State::required_bytes(&network, 5_000);
        let mut state = State::new(&network, 5_000);
        assert!(state.memory_bytes() < 1_000, "nothing is set aside for a declared rewind");
        let mut sizes = Vec::new();
        for frames in [1, 31, 200, 1_000, 3_000, 6_000, 10_000] {
            let after = state.bytes_after(frames);
            run(&network, &mut state, &inputs(&network, frames, 1), 0);
            let rings = state.bytes_after(0);
            assert!(rings <= after && rings <= most, "{rings} bytes, {after} foreseen");
            sizes.push(rings as f64 / most as f64);
        }
        // 1, 32, 232, 1,232, 4,232, 10,232 and 20,232 of the 5,008 frames that are kept at most.
        assert!(sizes[0] < 0.01 && sizes[1] < 0.01 && sizes[2] < 0.1 && sizes[3] < 0.5, "{sizes:?}");
        assert_eq!(sizes[5..], [1.0, 1.0]);
        state.reset();
        assert!(state.bytes_after(0) == 0, "what a large context took goes back with it");
        // From then on it is constant.
        let mut state = State::new(&network, 16);
        run(&network, &mut state, &inputs(&network, 200, 1), 0);
        let memory = state.memory_bytes();
        for frames in [1, 64, 1, 500, 3, 1] {
            run(&network, &mut state, &inputs(&network, frames, 1), 0);
        }
        assert_eq!(state.memory_bytes(), memory);
        assert_eq!(state.bytes_after(0), State::required_bytes(&network, 16));
        state.reset();
        assert_eq!(state.memory_bytes(), memory, "what every context needs is kept");
    }
}

#[test]
fn a_context_that_grows_gives_the_integers_of_one_that_is_large() {
    const ALL: usize = 700;
    for arm in Arm::available() {
        let network = network(arm);
        let (d, n) = (network.inputs(), network.outputs());
        let input = inputs(&network, ALL, 3);
        let expected = run(&network, &mut State::new(&network, 0), &input, 0);
        for max_rewind in [0, 3, 40, 300, 1_000] {
            // In steps of one, of groups, and of more than groups and tiles, so that rings are full at every place of a
            // group.
            for step in [1, 7, 32, 33, 129] {
                let mut state = State::new(&network, max_rewind as u32);
                let (mut at, mut high, mut turn) = (0, 0, 0);
                while at < ALL {
                    let end = (at + step).min(ALL);
                    let (own, outputs) = (&input[at * d..end * d], &expected[at * n..end * n]);
                    if turn % 10 == 9 {
                        // A fork and a restored copy continue from here too.
                        let mut restored = State::new(&network, max_rewind as u32);
                        restored.restore(&network, &state.save()).unwrap();
                        assert_eq!(run(&network, &mut state.clone(), own, 0), outputs, "{arm:?} {max_rewind} {step}");
                        assert_eq!(run(&network, &mut restored, own, 0), outputs, "{arm:?} {max_rewind} {step}");
                    }
                    assert_eq!(run(&network, &mut state, own, 0), outputs, "{arm:?} {max_rewind} {step} {at}");
                    (at, high, turn) = (end, high.max(end), turn + 1);
                    if turn % 7 == 0 && turn < 300 {
                        // As far back as possible, but not so far that the test takes too long.
                        at = at.saturating_sub(5 * step).max(high.saturating_sub(max_rewind)).min(at);
                        state.truncate(at as u64).unwrap();
                    }
                }
            }
        }
    }
}

#[test]
fn misuse_is_an_error_and_changes_nothing() {
    let network = network(Arm::best());
    let other = Network::new(&synthetic::h(&SyntheticShape::tiny(), Style::Sensible, 4), Arm::best());
    let mut state = State::new(&network, 2);
    let mut output = vec![5];
    let input = inputs(&network, 3, 1);
    let mut kind = |network: &Network, input: &[i16], quality| {
        network.run(&mut state, input, quality, &mut output, &Serial).unwrap_err().kind()
    };
    assert_eq!(kind(&network, &input[1..], 0), ErrorKind::WrongShape);
    assert_eq!(kind(&network, &input, 2), ErrorKind::UnknownQuality);
    assert_eq!(kind(&other, &input, 0), ErrorKind::WrongShape);
    assert_eq!(output, [5]);
    assert_eq!(state.position(), 0);
    assert_eq!(state.truncate(1).unwrap_err().kind(), ErrorKind::RewindTarget);
    network.run(&mut state, &[], 0, &mut output, &Serial).unwrap();
    assert!(output.is_empty());
    run(&network, &mut state, &input, 0);
    assert_eq!(state.truncate(0).unwrap_err().kind(), ErrorKind::RewindTooFar);
    assert_eq!(state.position(), 3);
}
