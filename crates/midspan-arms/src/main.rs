//! `midspan-arms check [INSTRUCTIONS]` compares every SIMD arm with the plain one; with INSTRUCTIONS the portable arm
//! must use them on this CPU. `midspan-arms run ARM g_y|h FRAMES COUNT` runs 64 frames COUNT times, in batches of FRAMES,
//! to be counted from outside.

use midspan::exact::Arm;
use midspan_arms::{Steps, check};

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
            let arm = Arm::available().into_iter().find(|arm| arm.name() == name).expect("an arm that this CPU has");
            let mut steps = Steps::new(arm, network == "h");
            let frames = frames.parse().expect("frames");
            let sum: i64 = (0..count.parse().expect("a count")).map(|_: u32| steps.run(frames)).sum();
            println!("{}: {sum}", arm.name());
        }
        _ => panic!("midspan-arms check [INSTRUCTIONS], or midspan-arms run ARM g_y|h FRAMES COUNT"),
    }
}
