use candle_core::{Device, Tensor};

use crate::kernels::codec::{KernelModel, Rows};
use crate::kernels::layout::{Frames, FramesStep};
use crate::kernels::machine::{Launch, Machine, Plan};
use midspan::engine::choice::Weighing;
use midspan::engine::frame_crc;
use midspan::engine::parameters::TargetParameters;
use midspan::engine::quantiser::{Clipped, InSteps};
use midspan::engine::{Codec, choice, quantiser};
use midspan::model::synthetic::{self, Random, Style, SyntheticShape};
use midspan::model::{CodecModel, Map};

/// Frames in a run.
const COUNT: usize = 29;

/// The kernels' results for frames, `[T, E]` each.
struct Made {
    /// For each frame, how many values were clamped, and the first of them.
    clipped: Vec<(u32, u32)>,
    x: Vec<f32>,
    nearest: Vec<i16>,
    y: Vec<i16>,
    tables: Vec<u32>,
    shifts: Vec<i32>,
    hidden: Vec<f32>,
}

/// A lane of a chunk: its frames, their quality and their rate weight.
#[derive(Clone, Copy)]
struct Stretch {
    frames: usize,
    quality: usize,
    weight: f32,
}

/// Runs every step for the frames of some lanes. `output` is g_y's output, `[T, 2E]`.
fn run(codec: &KernelModel, hidden: &[f32], lanes: &[Stretch], output: &[i32]) -> Option<Made> {
    let each = |lane: &Stretch| std::iter::repeat_n((lane.quality, lane.weight), lane.frames);
    let choices: Vec<(usize, f32)> = lanes.iter().flat_map(each).collect();
    let follows: Vec<u32> = lanes.iter().flat_map(|lane| (0..lane.frames).map(|i| u32::from(i > 0))).collect();
    let (count, width) = (choices.len(), hidden.len() / choices.len());
    let hidden = Tensor::from_slice(hidden, (count, width), &Device::Cpu).unwrap();
    let rows = codec.machine.hidden(&hidden).unwrap();
    let mut plan = Plan::default();
    let quality = plan.append(&choices.iter().map(|(quality, _)| *quality as u64).collect::<Vec<_>>());
    let weight = plan.append(&choices.iter().map(|(_, weight)| *weight).collect::<Vec<_>>());
    let at_hidden = plan.append(&(0..count as u64).map(|i| rows.address + 4 * i * width as u64).collect::<Vec<_>>());
    let faults: Vec<u32> = std::iter::once(0).chain((0..count).flat_map(|_| [0, u32::MAX])).collect();
    let (output, faults, follows) = (plan.append(output), plan.append(&faults), plan.append(&follows));
    let values = count * width;
    let (x, map_input, result) = (plan.room::<f32>(values), plan.room::<f32>(values), plan.room::<f32>(values));
    let (y, tables, shifts) = (plan.room::<i16>(values), plan.room::<u32>(values), plan.room::<i32>(values));
    let (chosen, costs) = (plan.room::<i16>(values), plan.room::<i32>(values));
    let (done, errors) = (plan.room::<f32>(values), plan.room::<f32>(values));
    let work = codec.machine.begin(&plan).unwrap();
    let frames = Frames {
        hidden: work.at(at_hidden),
        weight: work.at(weight),
        x: work.at(x),
        map_input: work.at(map_input),
        done: work.at(done),
        errors: work.at(errors),
        y: work.at(y),
        follows: work.at(follows),
        chosen: work.at(chosen),
        costs: work.at(costs),
        output: work.at(output),
        tables: work.at(tables),
        shifts: work.at(shifts),
        result: work.at(result),
        faults: work.at(faults),
        ..codec.frames(&work, &Rows { count, quality })
    };
    // SAFETY: the arrays are regions of the plan, with room for all rows.
    let launch = |step| unsafe { work.launch(&Launch::Frames(frames, step)).unwrap() };
    let reconstruct = |step| {
        let frames = Frames { y: frames.chosen, ..frames };
        // SAFETY: as above.
        unsafe { work.launch(&Launch::Frames(frames, step)).unwrap() }
    };
    launch(FramesStep::Quantise);
    codec.analysis_step().into_iter().for_each(launch);
    let faults = work.read_values::<u32>(faults).unwrap();
    if faults[0] != 0 {
        return None;
    }
    let nearest = work.read_values(y).unwrap();
    launch(FramesStep::Derive);
    let derived = (work.read_values::<u32>(tables).unwrap(), work.read_values::<i32>(shifts).unwrap());
    launch(if codec.chooses_in_runs() { FramesStep::ChooseRun } else { FramesStep::DeriveAndChoose });
    launch(FramesStep::Settle);
    reconstruct(FramesStep::Reconstruct);
    codec.synthesis_step().into_iter().for_each(reconstruct);
    // The nearest integers are not changed, because later frames are compared with them.
    assert_eq!(nearest, work.read_values::<i16>(y).unwrap());
    assert_eq!(derived, (work.read_values(tables).unwrap(), work.read_values(shifts).unwrap()));
    Some(Made {
        clipped: faults[1..].chunks(2).map(|own| (own[0], own[1])).collect(),
        x: work.read_values(x).unwrap(),
        nearest,
        y: work.read_values(chosen).unwrap(),
        tables: derived.0,
        shifts: derived.1,
        hidden: work.read_values(result).unwrap(),
    })
}

/// The maps of a model: none, full ones whose sums round, or sparse ones.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Maps {
    None,
    Full,
    Sparse,
}

pub(super) const MAPS: [Maps; 3] = [Maps::None, Maps::Full, Maps::Sparse];

pub(super) fn model_of(shape: &SyntheticShape, seed: u64, maps: Maps) -> CodecModel {
    let mut parts = synthetic::parts(shape, Style::Sensible, seed);
    match maps {
        Maps::None => {}
        Maps::Full => {
            let mut random = Random::new(seed);
            let values = shape.hidden * shape.hidden;
            let mut map = || Map::Full((0..values).map(|_| random.within(-999, 999) as f32 / 777.0).collect());
            parts.synthesis = Some(map());
            parts.encoder.as_mut().unwrap().analysis = Some(map());
        }
        Maps::Sparse => synthetic::add_sparse_maps(&mut parts, seed),
    }
    CodecModel::new(parts).unwrap()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Lanes with `COUNT` frames in total.
fn lanes(random: &mut Random) -> Vec<Stretch> {
    let mut lanes = Vec::new();
    let mut left = COUNT;
    while left > 0 {
        let frames = left.min(random.within(1, 7) as usize);
        let weight = [0.0, 0.05, 0.2, 2.0][random.within(0, 3) as usize];
        lanes.push(Stretch { frames, quality: random.within(0, 2) as usize, weight });
        left -= frames;
    }
    lanes
}

/// Hidden states near the means (without regard to maps) with some far out; some whole frames are far out, and some
/// equal the previous one.
fn hidden_near(random: &mut Random, model: &CodecModel, lanes: &[Stretch], output: &[i32]) -> Vec<f32> {
    let width = model.hidden_width();
    let qualities = lanes.iter().flat_map(|lane| std::iter::repeat_n(lane.quality, lane.frames));
    let mut all: Vec<f32> = Vec::new();
    for (frame, (quality, output)) in qualities.zip(output.chunks(2 * width)).enumerate() {
        let kind = random.within(0, 6);
        if kind < 2 && frame > 0 {
            all.extend_from_within((frame - 1) * width..);
            continue;
        }
        let places = model.step(quality).iter().zip(model.offset(quality));
        for (mean, (step, offset)) in output.iter().zip(places) {
            let x = match random.within(0, 400) {
                0 => 3e30,
                1 => -40_000.0,
                n if kind == 2 => (n - 200) as f32,
                n => *mean as f32 / 64.0 + (n - 200) as f32 / 256.0,
            };
            all.push(x * step + offset);
        }
    }
    all
}

#[test]
fn frames_are_the_codecs() {
    let (mut moved, mut clamped, mut clipped, mut alike, mut plain) = (0, 0, 0, 0, 0);
    for seed in 0..18 {
        let shape = SyntheticShape { hidden: 7 + 6 * seed as usize, qualities: 3, ..SyntheticShape::tiny() };
        let maps = MAPS[seed as usize % 3];
        let codec = Codec::new(model_of(&shape, seed, maps)).unwrap();
        let (model, width) = (codec.model(), shape.hidden);
        let kernels = KernelModel::new(model, &Machine::cpu(1 + seed as usize % 3)).unwrap();
        assert_eq!(kernels.chooses_in_runs(), maps == Maps::Sparse);
        assert_eq!(kernels.synthesis_step().is_some(), maps != Maps::None);
        let mut random = Random::new(seed);
        let lanes = lanes(&mut random);
        let output: Vec<i32> = (0..COUNT)
            .flat_map(|_| {
                let mean = (0..width).map(|_| random.within(-400, 400)).collect::<Vec<_>>();
                let scale = (0..width).map(|_| random.within(0, shape.scales as i32 - 1)).collect::<Vec<_>>();
                [mean, scale].concat()
            })
            .collect();
        let hidden = hidden_near(&mut random, model, &lanes, &output);
        let found = run(&kernels, &hidden, &lanes, &output).unwrap();
        let mut first = 0;
        for Stretch { frames, quality, weight } in lanes {
            let own = first * width..(first + frames) * width;
            let (offset, step) = (model.offset(quality), model.step(quality));
            let in_steps = InSteps::new(model, &hidden[own.clone()], quality).unwrap();
            let x = &in_steps.x;
            assert_eq!(bits(&found.x[own.clone()]), bits(x), "{maps:?}");
            let mut y: Vec<i16> = quantiser::nearest(x, model.y_range()).collect();
            assert_eq!(found.nearest[own.clone()], y);
            for (x, found) in x.chunks(width).zip(&found.clipped[first..]) {
                let outside = Clipped::find(x, model.y_range());
                let first = outside.first.map_or(u32::MAX, |first| first as u32);
                assert_eq!(*found, (outside.count as u32, first), "{maps:?}");
                clipped += outside.count;
            }
            clamped += y.iter().filter(|y| **y == model.y_range().1).count();
            let mut parameters = TargetParameters::default();
            codec.rule().derive(&output[2 * own.start..2 * own.end], &mut parameters);
            assert_eq!(found.tables[own.clone()], parameters.tables);
            assert_eq!(found.shifts[own.clone()], parameters.shifts);
            let before = y.clone();
            let weighing = Weighing { quality, weight, lanes: 1 };
            choice::choose(model, &parameters, weighing, in_steps.rows(&(0..frames), width), &mut y);
            assert_eq!(found.y[own.clone()], y);
            moved += before.iter().zip(&y).filter(|(before, y)| before != y).count();
            let rows: Vec<(&[i16], &[i16])> = before.chunks(width).zip(y.chunks(width)).collect();
            alike += rows.windows(2).filter(|two| two[0].0 == two[1].0 && two[1].0 != two[1].1).count();
            plain += rows.iter().filter(|(before, y)| weight == 2.0 && before == y).count();
            let mut again = Vec::new();
            quantiser::reconstruct(&y, step, model.synthesis(), offset, &mut again);
            assert_eq!(bits(&found.hidden[own]), bits(&again), "{maps:?}");
            first += frames;
        }
    }
    assert!(moved > 500 && clamped > 50 && clipped > 50, "{moved} {clamped} {clipped}");
    assert!(alike > 5 && plain > 5, "{alike} {plain}");
}

#[test]
fn what_is_no_number_is_found() {
    for maps in MAPS {
        let model = model_of(&SyntheticShape::tiny(), 1, maps);
        let kernels = KernelModel::new(&model, &Machine::cpu(2)).unwrap();
        let lane = Stretch { frames: 1, quality: 0, weight: 0.0 };
        let run = |hidden: &[f32]| run(&kernels, hidden, &[lane], &[0; 40]).is_some();
        let mut hidden = [0.0; 20];
        assert!(run(&hidden));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            hidden[13] = bad;
            assert!(!run(&hidden));
        }
        // Only after a map can sums that overflow in both directions meet.
        let far: Vec<f32> = (0..20).map(|i| if i % 2 == 0 { f32::MAX } else { -f32::MAX }).collect();
        let on_cpu = InSteps::new(&model, &far, 0);
        assert_eq!(run(&far), on_cpu.is_ok(), "{maps:?}");
    }
}

#[test]
fn digests_are_the_codecs() {
    let (mut random, machine) = (Random::new(4), Machine::cpu(2));
    for width in (1..70).chain([255, 256, 257, 768]) {
        let values: Vec<i16> = (0..5 * width).map(|_| random.within(-32_768, 32_767) as i16).collect();
        let expected: Vec<u32> = values.chunks(width).map(frame_crc).collect();
        let mut plan = Plan::default();
        let (at, crcs) = (plan.append(&values), plan.room::<u32>(5));
        let work = machine.begin(&plan).unwrap();
        let (values, width) = (work.at(at), width as u64);
        // SAFETY: five rows and five crcs are regions of the plan.
        unsafe { work.launch(&Launch::Digest { values, rows: 5, width, crcs: work.at(crcs) }).unwrap() };
        assert_eq!(work.read_values::<u32>(crcs).unwrap(), expected, "{width}");
    }
}
