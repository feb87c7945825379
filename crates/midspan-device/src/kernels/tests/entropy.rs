use crate::kernels::decode::refusal;
use crate::kernels::encode::room_of;
use crate::kernels::layout::{self, Coding, Lane, Part};
use crate::kernels::machine::{Launch, Machine, Plan};
use midspan::entropy::{Bank, EntropyError, LaneDecoder, LaneEncoder, RunDecoder, RunEncoder, RunMode};
use midspan::model::synthetic::Random;

/// The values of lanes, first W and then Y, with the tables and shifts of Y.
struct Values {
    all: Vec<i16>,
    tables: Vec<u32>,
    shifts: Vec<i32>,
    lanes: Vec<Lane>,
}

/// The values of samples as lanes.
fn values(samples: &[Sample]) -> Values {
    let mut values = Values { all: Vec::new(), tables: Vec::new(), shifts: Vec::new(), lanes: Vec::new() };
    for sample in samples {
        let mut lane = Lane { range: u64::MAX, ..Lane::default() };
        let first = values.all.len() as u64;
        let (w, y) = (sample.w.len() as u64, sample.y.len() as u64);
        let channels = CHANNELS as u64;
        lane.parts[0] = Part { first, count: w, width: channels, channels, base: 3, finish: 0 };
        lane.parts[1] = Part { first: first + w, count: y, width: sample.width as u64, finish: 1, ..Part::default() };
        values.all.extend(sample.w.iter().chain(&sample.y));
        // Not used for W.
        values.tables.resize(values.all.len() - sample.y.len(), u32::MAX);
        values.shifts.resize(values.all.len() - sample.y.len(), i32::MAX);
        values.tables.extend(&sample.tables);
        values.shifts.extend(&sample.shifts);
        values.lanes.push(lane);
    }
    values
}

/// Runs both parts of lanes. Returns the lanes, their bytes and all values afterwards.
fn run(bank: &Bank, values: &Values, bytes: &[u8], machine: &Machine, decode: bool) -> (Vec<Lane>, Vec<u8>, Vec<i16>) {
    let (tables, boundaries) = layout::bank(bank);
    let mut plan = Plan::default();
    let (tables, boundaries) = (plan.append(&tables), plan.append(&boundaries));
    let (own_tables, shifts) = (plan.append(&values.tables), plan.append(&values.shifts));
    let (lanes, bytes, all) = (plan.append(&values.lanes), plan.append(bytes), plan.append(&values.all));
    let work = machine.begin(&plan).unwrap();
    for part in 0..2 {
        let coding = Coding {
            tables: work.at(tables),
            boundaries: work.at(boundaries),
            bytes: work.at(bytes),
            lanes: work.at(lanes),
            count: values.lanes.len() as u64,
            own_tables: work.at(own_tables),
            shifts: work.at(shifts),
            values: work.at(all),
            low: RANGE.0.into(),
            high: RANGE.1.into(),
            part,
        };
        // SAFETY: lanes, bytes and values are regions of the plan.
        unsafe { work.launch(&if decode { Launch::Decode(coding) } else { Launch::Encode(coding) }).unwrap() };
    }
    (work.read_values(lanes).unwrap(), work.read(bytes).unwrap(), work.read_values(all).unwrap())
}

/// The payloads of samples, coded all at once and packed.
fn encode(bank: &Bank, samples: &[Sample], machine: &Machine) -> Vec<Vec<u8>> {
    let mut values = values(samples);
    let mut room = 0;
    for lane in &mut values.lanes {
        lane.bytes = room;
        room += room_of(lane);
    }
    let (lanes, bytes, _) = run(bank, &values, &vec![0; room as usize], machine, false);
    let mut plan = Plan::default();
    let (at_lanes, at_bytes) = (plan.append(&lanes), plan.append(&bytes));
    let packed = plan.room::<u8>(bytes.len());
    let work = machine.begin(&plan).unwrap();
    let (at_lanes, count) = (work.at(at_lanes), lanes.len() as u64);
    // SAFETY: lanes, bytes and room for all of them are regions of the plan.
    unsafe {
        work.launch(&Launch::Pack { lanes: at_lanes, count, bytes: work.at(at_bytes), packed: work.at(packed) })
            .unwrap();
    }
    let packed = work.read(packed).unwrap();
    let mut rest = packed.as_slice();
    let mut payloads = Vec::new();
    for lane in &lanes {
        let (own, behind) = rest.split_at(lane.length as usize);
        assert_eq!(own, &bytes[lane.bytes as usize..][..own.len()]);
        payloads.push(own.to_vec());
        rest = behind;
    }
    payloads
}

/// Decodes payloads all at once. Returns the values or, for a refused payload, the reason and the
/// part.
fn decode(
    bank: &Bank,
    samples: &[Sample],
    payloads: &[Vec<u8>],
    machine: &Machine,
) -> Vec<Result<Vec<i16>, (u64, EntropyError)>> {
    let mut values = values(samples);
    let mut offset = 0;
    for (lane, payload) in values.lanes.iter_mut().zip(payloads) {
        let mut start = [0; 8];
        start.iter_mut().zip(payload).for_each(|(to, from)| *to = *from);
        (lane.bytes, lane.length) = (offset, payload.len() as u64);
        (lane.low, lane.read) = (u64::from_be_bytes(start), 8);
        offset += lane.length;
    }
    values.all.fill(0);
    let (lanes, _, all) = run(bank, &values, &payloads.concat(), machine, true);
    let outcome = |(lane, sample): (&Lane, &Sample)| match lane.error {
        0 => {
            let first = lane.parts[0].first as usize;
            Ok(all[first..first + sample.w.len() + sample.y.len()].to_vec())
        }
        error => Err((error / 8, refusal(error))),
    };
    lanes.iter().zip(samples).map(outcome).collect()
}

/// Tables from one value to hundreds, some with likely escapes.
fn bank(random: &mut Random) -> Bank {
    let (mut first, mut sizes, mut boundaries) = (Vec::new(), Vec::new(), Vec::new());
    for table in 0..40 {
        let size = match table % 5 {
            0 => random.within(1, 3),
            1 => random.within(29, 34),
            2 => random.within(60, 70),
            3 => random.within(1_020, 1_100),
            _ => random.within(1, 40),
        };
        let mut own: Vec<u16> = Vec::new();
        while own.len() < size as usize + 1 {
            own.extend((0..size + 1).map(|_| random.within(1, 65_535) as u16));
            own.sort_unstable();
            own.dedup();
        }
        own.truncate(size as usize + 1);
        first.push(random.within(-size, 3));
        sizes.push(size as u16);
        boundaries.extend(own);
    }
    Bank::new(first, &sizes, boundaries).unwrap()
}

struct Sample {
    /// Values in a frame's Y.
    width: usize,
    w: Vec<i16>,
    y: Vec<i16>,
    tables: Vec<u32>,
    shifts: Vec<i32>,
}

const CHANNELS: usize = 6;
const RANGE: (i16, i16) = (-3_000, 3_000);

/// Frames within their tables, frames far from them, and frames equal to the previous one.
fn sample(random: &mut Random, frames: usize, width: usize) -> Sample {
    let mut values = |count: usize, far: i32| {
        let mut all: Vec<i16> = Vec::new();
        for frame in 0..frames {
            let often = match random.within(0, 3) {
                0 if frame > 0 => {
                    all.extend_from_within((frame - 1) * count..);
                    continue;
                }
                1 => 9,
                _ => 0,
            };
            all.extend((0..count).map(|_| {
                let far = if random.within(0, 9) <= often { far } else { 4 };
                random.within(-far, far) as i16
            }));
        }
        all
    };
    let (w, y) = (values(CHANNELS, 300), values(width, 3_000));
    let tables = (0..frames * width).map(|_| random.within(0, 39) as u32).collect();
    let shifts = (0..frames * width).map(|_| random.within(-20, 20)).collect();
    Sample { width, w, y, tables, shifts }
}

fn reference(bank: &Bank, sample: &Sample) -> Vec<u8> {
    reference_with_modes(bank, sample).0
}

fn reference_with_modes(bank: &Bank, sample: &Sample) -> (Vec<u8>, Vec<RunMode>) {
    let mut encoder = LaneEncoder::new();
    let mut modes = Vec::new();
    let mut runs = RunEncoder::new(bank);
    let mut before = None;
    for frame in sample.w.chunks(CHANNELS) {
        modes.push(runs.encode_run(&mut encoder, 3, frame, before));
        before = Some(frame);
    }
    let mut runs = RunEncoder::new(bank);
    let mut before = None;
    let tables = sample.tables.chunks(sample.width).zip(sample.shifts.chunks(sample.width));
    for (frame, (tables, shifts)) in sample.y.chunks(sample.width).zip(tables) {
        modes.push(runs.encode_row(&mut encoder, tables, shifts, frame, before));
        before = Some(frame);
    }
    (encoder.finish(), modes)
}

fn reference_decode(bank: &Bank, payload: &[u8], like: &Sample) -> Result<Vec<i16>, (u64, EntropyError)> {
    let mut decoder = LaneDecoder::new(payload);
    let mut w: Vec<Vec<i16>> = Vec::new();
    let mut runs = RunDecoder::new(bank, range());
    for _ in like.w.chunks(CHANNELS) {
        let mut frame = vec![0; CHANNELS];
        runs.decode_run(&mut decoder, 3, w.last().map(Vec::as_slice), &mut frame).map_err(|error| (0, error))?;
        w.push(frame);
    }
    let mut y: Vec<Vec<i16>> = Vec::new();
    let mut runs = RunDecoder::new(bank, range());
    for (tables, shifts) in like.tables.chunks(like.width).zip(like.shifts.chunks(like.width)) {
        let mut frame = vec![0; like.width];
        let before = y.last().map(Vec::as_slice);
        runs.decode_row(&mut decoder, tables, shifts, before, &mut frame).map_err(|error| (1, error))?;
        y.push(frame);
    }
    decoder.finish().map_err(|error| (1, error))?;
    Ok(w.into_iter().chain(y).flatten().collect())
}

fn range() -> (i32, i32) {
    (RANGE.0.into(), RANGE.1.into())
}

#[test]
fn payloads_and_refusals_are_the_coders() {
    let mut refused = [0; 3];
    let mut parts = [0; 2];
    let mut modes = [0; 3];
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let bank = bank(&mut random);
        let machine = Machine::cpu(1 + seed as usize % 4);
        let samples: Vec<Sample> = (0..9)
            .map(|_| {
                let (frames, width) = (random.within(0, 5) as usize, random.within(1, 70) as usize);
                sample(&mut random, frames, width)
            })
            .collect();
        let mut payloads = encode(&bank, &samples, &machine);
        let expected: Vec<Vec<u8>> = samples.iter().map(|sample| reference(&bank, sample)).collect();
        assert!(payloads == expected, "seed {seed}");
        for mode in samples.iter().flat_map(|sample| reference_with_modes(&bank, sample).1) {
            modes[mode as usize] += 1;
        }
        // Some payloads are kept, some are damaged, cut or extended.
        for payload in &mut payloads {
            match random.within(0, 7) {
                0 => drop(payload.pop()),
                1 => payload.push(random.within(0, 255) as u8),
                2 => payload.iter_mut().for_each(|byte| *byte = random.within(0, 255) as u8),
                3 if !payload.is_empty() => {
                    let at = random.within(0, payload.len() as i32 - 1) as usize;
                    payload[at] ^= 1 << random.within(0, 7);
                }
                // The highest codes belong to no symbol.
                4 => payload.fill(0xFF),
                _ => (),
            }
        }
        let found = decode(&bank, &samples, &payloads, &machine);
        for ((found, payload), sample) in found.into_iter().zip(&payloads).zip(&samples) {
            let expected = reference_decode(&bank, payload, sample);
            match expected {
                Err((_, EntropyError::Corrupt)) => refused[0] += 1,
                Err((_, EntropyError::ValueOutOfRange)) => refused[1] += 1,
                Err(_) => refused[2] += 1,
                Ok(_) => (),
            }
            if let Err((part, _)) = expected {
                parts[part as usize] += 1;
            }
            assert!(found == expected, "seed {seed}: {:?} instead of {:?}", found.err(), expected.err());
        }
    }
    assert!(refused.iter().all(|count| *count > 2), "{refused:?}");
    assert!(parts.iter().all(|count| *count > 2), "{parts:?}");
    assert!(modes.iter().all(|count| *count > 100), "{modes:?}");
}

#[test]
fn every_carry_and_every_end_is_the_coders() {
    // One frame of few values at a time, so that all kinds of ends and carries are frequent.
    let mut random = Random::new(77);
    let bank = bank(&mut random);
    let samples: Vec<Sample> = (0..4_000).map(|i| sample(&mut random, 1, 1 + i % 9)).collect();
    for (payload, sample) in encode(&bank, &samples, &Machine::cpu(5)).iter().zip(&samples) {
        assert_eq!(*payload, reference(&bank, sample));
    }
}

/// W, and then Y, begins with a repeat.
#[test]
fn a_repeat_at_a_payloads_start_is_refused() {
    let mut random = Random::new(5);
    let bank = bank(&mut random);
    let samples: Vec<Sample> = (0..2).map(|_| sample(&mut random, 2, 40)).collect();
    // A table with the masses of a mode: its high escape is a repeat.
    let modes = Bank::new(vec![0], &[1], vec![65_504, 65_520]).unwrap();
    let payload = |w: Option<&Sample>| {
        let mut encoder = LaneEncoder::new();
        let mut runs = RunEncoder::new(&bank);
        for frame in w.iter().flat_map(|sample| sample.w.chunks(CHANNELS)) {
            runs.encode_run(&mut encoder, 3, frame, None);
        }
        encoder.encode(&modes, 0, 0, 1);
        encoder.finish()
    };
    let payloads = [payload(None), payload(Some(&samples[1]))];
    let found = decode(&bank, &samples, &payloads, &Machine::cpu(2));
    assert_eq!(found, [Err((0, EntropyError::Corrupt)), Err((1, EntropyError::Corrupt))]);
    for ((payload, sample), found) in payloads.iter().zip(&samples).zip(found) {
        assert_eq!(reference_decode(&bank, payload, sample), found);
    }
}
