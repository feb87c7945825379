//! A network small enough to compute by hand. Every number below comes from the formulas of spec chapter 5, computed
//! without this library.
//!
//! One block of widths 2 → 3, one head, a window of 2 frames. The results of each step for frame 2, input (100, 90):
//!
//! | step | values |
//! | --- | --- |
//! | 5.5, 1: x | 31250, 23039 |
//! | 5.2: ss, s, r, n | 1507358021, 621195, 110624, (3297, 2431) |
//! | 5.3, 1: q, k, v | (1536, 2047), (2047, −1255), (1288, −1685) |
//! | 5.3, 2: dot, z of frames 1 and 2 | (1046017, 575207), (47 − 3, 26) |
//! | 5.3, 3: e | 4095, 255 |
//! | 5.3, 4, 5: r, o, a | 15797580, (−2628150, −8812140), (−604, −2026) |
//! | 5.4, 2: o, x₁ | (−11915, −21446), (19335, 1593) |
//! | 5.4, 3: p | 18481, 22439, −9498 |
//! | 5.4, 4: s, r, m | 489314, 210660, (3713, 4508, −1908) |
//! | 5.4, 4: u | −350, 120, −264, −12, −19, 277, −192, 125, 123, 484, −71, −498 |
//! | 5.4, 5: down, x₂ | (−104, 1195, 50), (18377, 23634, −9448) |
//! | 5.5, 3: x | 4795, 6167, −2465 |
//! | 5.5, 4: outputs | 50, 395, 4, 1 |

#![cfg(feature = "codec")]

use midspan::exact::{Arm, Network, Serial, State};
use midspan::model::{Block, Linear, NetworkParameters, Outputs};

fn linear(weight: Vec<i8>, bias: Vec<i32>, multiplier: Vec<i32>, shift: Vec<u8>) -> Linear {
    let outputs = bias.len();
    Linear { inputs: weight.len() / outputs, outputs, weight, bias, multiplier, shift }
}

fn parameters() -> NetworkParameters {
    let up = (0..12).flat_map(|i| (0..3).map(move |j| ((i * 3 + j * 5) % 11 - 5) as i8)).collect();
    let down = (0..3).flat_map(|i| (0..12).map(move |j| ((i * 7 + j * 2) % 13 - 6) as i8)).collect();
    NetworkParameters {
        widths: vec![2, 3],
        heads: vec![1],
        window: 2,
        qualities: 1,
        exp: (0..1_024).map(|i: u32| 4_095 >> (i / 4).min(12)).collect(),
        activation: (0..4_096).map(|i| if i < 4_000 { (i - 2_048).max(0) } else { 7_000 }).collect(),
        input_multiplier: vec![20_000, 32_767],
        input_shift: vec![6, 7],
        blocks: vec![Block {
            norm1: 1 << 36,
            norm2: 3 << 35,
            q: linear(vec![3, -2, 1, 4], vec![5, -6], vec![20_000, 30_000], vec![16, 17]),
            k: linear(vec![2, 1, -3, 2], vec![0, 7], vec![25_000, 32_767], vec![16, 17]),
            v: linear(vec![1, 1, 2, -5], vec![-100, 40], vec![30_000, 20_000], vec![17, 16]),
            o: linear(vec![50, 7, -9, 60], vec![1_000, -1_000], vec![9_000, 12_000], vec![15, 16]),
            proj: linear(
                vec![10, -20, 30, 5, -7, 7],
                vec![0, 200, -300],
                vec![30_000, 20_000, 10_000],
                vec![18, 19, 17],
            ),
            up: linear(
                up,
                (0..12).map(|i| i * 500 - 2_500).collect(),
                (0..12).map(|i| 1_500 + 100 * i).collect(),
                vec![17; 12],
            ),
            down: linear(down, vec![0, 900, -77], vec![8_000, 9_000, 32_767], vec![16, 15, 17]),
            score_multiplier: vec![3_000],
            score_shift: vec![26],
            position: vec![0, -3],
        }],
        outputs: Outputs::Distribution { elements: 2, scales: 6 },
        output_norm: Some(1 << 37),
        output: linear(
            vec![5, -3, 2, 1, 1, 1, -4, 6, 0, 9, -9, 1],
            vec![3, 0, -5, 1_000],
            vec![300, 400, 17, 9],
            vec![12, 13, 19, 18],
        ),
        output_offset: vec![10, -20, 3, 1],
    }
}

#[test]
fn the_example_of_the_chapter() {
    let parameters = parameters();
    assert_eq!(parameters.validate(), Ok(()));
    let inputs = [3, -5, -7, 2, 100, 90, 0, 0, -1, 1];
    let expected = [
        [-2755, -199, 4, 0], // the last is −2 before its clamp
        [3360, 22, 1, 5],    // clamped
        [50, 395, 4, 1],
        [2142, 316, 2, 3], // an input of zeros: s = max(1, 0), and q, k and v are biases
        [3013, 113, 2, 4],
    ];
    for arm in Arm::available() {
        let network = Network::new(&parameters, arm);
        let mut state = State::new(&network, 0);
        let mut output = Vec::new();
        network.run(&mut state, &inputs, 0, &mut output, &Serial).unwrap();
        assert_eq!(output, expected.concat(), "{arm:?}");
    }
}

/// Tests the last layer's clamps, with the sums of h.
#[test]
fn the_outputs_of_h_are_clamped() {
    let mut parameters = parameters();
    parameters.outputs = Outputs::HyperPrior { channels: 4, min: -50, max: 300 };
    parameters.output_norm = None;
    assert_eq!(parameters.validate(), Ok(()));
    for arm in Arm::available() {
        let network = Network::new(&parameters, arm);
        let mut state = State::new(&network, 0);
        let mut output = Vec::new();
        network.run(&mut state, &[3, -5, 100, 90], 0, &mut output, &Serial).unwrap();
        // x₂ of frame 0 is (−32767, 6362, 10688): sums (−161542, −15717, 169235, −340473), scaled and with offsets
        // (−11822, −787, 8, −11).
        assert_eq!(output[..4], [-50, -50, 8, -11], "{arm:?}");
    }
}
