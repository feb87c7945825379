//! `midspan-arms check [INSTRUCTIONS]` compares every SIMD arm with the plain one; with INSTRUCTIONS the portable arm
//! must use them on this CPU. `midspan-arms run ARM g_y|h FRAMES COUNT` runs 64 frames COUNT times, in batches of FRAMES,
//! to be counted from outside. `midspan-arms decode ARM MODEL FRAMES` decodes a stream of the model, one frame a chunk.
//! `midspan-arms time ROUNDS` times all arms in turn, and prints medians.

use std::collections::BTreeMap;
use std::time::Instant;

use midspan::exact::Arm;
use midspan_arms::{Decoding, Steps, check};

fn arm(name: &str) -> Arm {
    Arm::available().into_iter().find(|arm| arm.name() == name).expect("an arm that this CPU has")
}

/// Times 64 frames on each arm in turn, and prints the median and the least, in milliseconds a frame.
fn time(rounds: usize) {
    for (network, h) in [("g_y", false), ("h", true)] {
        let mut all: Vec<(Arm, Steps)> = Arm::available().into_iter().map(|arm| (arm, Steps::new(arm, h))).collect();
        for frames in [1, 64] {
            let mut times: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
            for _ in 0..rounds {
                for (number, (_, steps)) in all.iter_mut().enumerate() {
                    let clock = Instant::now();
                    std::hint::black_box(steps.run(frames));
                    times.entry(number).or_default().push(clock.elapsed().as_secs_f64() * 1e3 / 64.0);
                }
            }
            for (number, mut times) in times {
                times.sort_by(f64::total_cmp);
                let (name, median, least) = (all[number].0.name(), times[times.len() / 2], times[0]);
                println!("{network} {name}, batches of {frames}: median {median:.4}, least {least:.4}");
            }
        }
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["check", ref expected @ ..] => {
            for instructions in expected {
                assert_eq!(Arm::Portable.instructions(), *instructions);
            }
            for arm in Arm::available().into_iter().filter(|arm| *arm != Arm::Plain) {
                println!("{} arm ({}): {} networks equal plain", arm.name(), arm.instructions(), check(arm));
            }
        }
        ["run", name, network, frames, count] => {
            let mut steps = Steps::new(arm(name), network == "h");
            let frames = frames.parse().expect("frames");
            let sum: i64 = (0..count.parse().expect("a count")).map(|_: u32| steps.run(frames)).sum();
            println!("{name}: {sum}");
        }
        ["decode", name, model, frames] => {
            let model = std::fs::read(model).expect("a model file");
            let mut decoding = Decoding::new(arm(name), &model, frames.parse().expect("frames"));
            let clock = Instant::now();
            let count = std::iter::from_fn(|| Some(decoding.next()).filter(|&values| values > 0)).count();
            let each = clock.elapsed().as_secs_f64() * 1e3 / count as f64;
            println!("{name}: {count} frames, {each:.4} ms each");
        }
        ["time", rounds] => time(rounds.parse().expect("rounds")),
        _ => panic!("see the head of main.rs"),
    }
}
