//! Times the exact network at the paper's shape on one core, with each arm that this CPU supports, and prints medians.
//!
//! `cargo bench --bench exact [-- g_y|h|plain|portable|avx2|avx512vnni|step|batch|quick …]`: no name means all.

use std::time::{Duration, Instant};

use midspan::exact::{Arm, Network, Serial, State};
use midspan::model::NetworkParameters;
use midspan::model::synthetic::{self, Style, SyntheticShape};

/// The median and the minimum, in milliseconds per frame.
struct Times(f64, f64);

impl Times {
    fn per_frame(times: impl Iterator<Item = Duration>, frames: usize) -> Times {
        let mut times: Vec<f64> = times.map(|time| time.as_secs_f64() * 1e3 / frames as f64).collect();
        times.sort_by(f64::total_cmp);
        Times(times[times.len() / 2], times[0])
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.4} ms (least {:.4})", self.0, self.1)
    }
}

/// Times a step with `frame` frames already in the context.
fn step(network: &Network, inputs: &[i16], frame: usize, rounds: usize) -> Times {
    let mut state = State::new(network, 0);
    let mut output = Vec::new();
    let d = network.inputs();
    let mut input = inputs.chunks_exact(d).cycle();
    let mut left = frame;
    while left > 0 {
        let frames = left.min(inputs.len() / d);
        network.run(&mut state, &inputs[..frames * d], 0, &mut output, &Serial).unwrap();
        left -= frames;
    }
    let times = (0..rounds).map(|_| {
        let frame = input.next().unwrap();
        let start = Instant::now();
        network.run(&mut state, frame, 0, &mut output, &Serial).unwrap();
        start.elapsed()
    });
    Times::per_frame(times, 1)
}

/// Times a batch with a whole window of frames already in the context.
fn batch(network: &Network, inputs: &[i16], frames: usize, rounds: usize) -> Times {
    let mut state = State::new(network, 0);
    let mut output = Vec::new();
    let d = network.inputs();
    network.run(&mut state, &inputs[..network.window() * d], 0, &mut output, &Serial).unwrap();
    let times = (0..rounds).map(|_| {
        let start = Instant::now();
        network.run(&mut state, &inputs[..frames * d], 0, &mut output, &Serial).unwrap();
        start.elapsed()
    });
    Times::per_frame(times, frames)
}

/// Measures what growing a ring costs: the time of the first 4,096 steps of a context that may be rewound as far,
/// relative to the same steps with a ring of the full size, and the longest single step in milliseconds.
fn growth(network: &Network, inputs: &[i16]) -> (f64, f64) {
    const FRAMES: usize = 4_096;
    let mut output = Vec::new();
    let mut all = |state: &mut State| {
        let (start, mut longest) = (Instant::now(), Duration::ZERO);
        for input in inputs.chunks_exact(network.inputs()).cycle().take(FRAMES) {
            let start = Instant::now();
            network.run(state, input, 0, &mut output, &Serial).unwrap();
            longest = longest.max(start.elapsed());
        }
        (start.elapsed().as_secs_f64(), longest.as_secs_f64())
    };
    let mut state = State::new(network, FRAMES as u32);
    let (grown, longest) = all(&mut state);
    state.truncate(0).unwrap();
    (grown / all(&mut state).0, longest * 1e3)
}

/// Reads 9 MB over and over. A step reads all weights, so it is compared with this.
fn memory() {
    let buffer = vec![1u64; 9 << 17];
    let times = (0..200).map(|_| {
        let start = Instant::now();
        std::hint::black_box(std::hint::black_box(&buffer).iter().fold(0, |sum: u64, x| sum.wrapping_add(*x)));
        start.elapsed()
    });
    println!("reading 9.4 MB of memory {}", Times::per_frame(times, 1));
}

fn report(name: &str, parameters: &NetworkParameters, arm: Arm, scale: usize, (steps, batches): (bool, bool)) {
    let network = Network::new(parameters, arm);
    let inputs = synthetic::inputs(parameters.inputs(), 512, 60, 7);
    println!(
        "{name} {arm:?}: {:.2} M multiplications, state {:.2} MB",
        parameters.multiplications() as f64 / 1e6,
        State::required_bytes(&network, 64) as f64 / 1e6
    );
    if steps {
        println!("  step at frame 300      {}", step(&network, &inputs, 300, 100 * scale));
        let (early, late) = (step(&network, &inputs, 512, 100 * scale), step(&network, &inputs, 10_000, 100 * scale));
        println!("  step at frame 512      {early}");
        println!("  step at frame 10,000   {late}, {:.3} of that at 512", late.0 / early.0);
        if arm != Arm::Plain {
            let (ratio, longest) = growth(&network, &inputs);
            println!("  4,096 steps that grow  {ratio:.3} of those that do not, the longest {longest:.3} ms");
        }
    }
    if batches {
        println!("  batch of 64, a frame   {}", batch(&network, &inputs, 64, 16 * scale));
        println!("  batch of 512, a frame  {}", batch(&network, &inputs, 512, 2 * scale));
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let has = |name: &str| arguments.iter().any(|a| a.eq_ignore_ascii_case(name));
    let scale = if has("quick") { 1 } else { 5 };
    memory();
    let shape = SyntheticShape::paper();
    let networks =
        [("g_y", synthetic::g_y(&shape, Style::Sensible, 1)), ("h", synthetic::h(&shape, Style::Sensible, 2))];
    let any_network = has("g_y") || has("h");
    let arms = Arm::available();
    let any_arm = arms.iter().any(|arm| has(&format!("{arm:?}")));
    for (name, parameters) in &networks {
        for &arm in arms.iter().rev() {
            if (!any_network || has(name)) && (!any_arm || has(&format!("{arm:?}"))) {
                let scale = if arm == Arm::Plain { 1 } else { scale };
                report(name, parameters, arm, scale, (!has("batch"), !has("step")));
            }
        }
    }
}
