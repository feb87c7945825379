//! Checks whether this machine computes the exact networks exactly. Compares every implementation that it can run with
//! the plain arm.
//!
//! ```
//! use candle_core::Device;
//! use midspan_device::selftest::Suite;
//! use midspan::model::synthetic::{self, SyntheticShape};
//!
//! let model = synthetic::model(&SyntheticShape::tiny(), 1);
//! let suite = Suite::new(&Device::Cpu, &model).networks(3).batches(&[1, 5]).streams(&[2]);
//! assert!(suite.run(&mut |row| println!("{row:?}")).iter().all(|row| row.fault.is_none()));
//! ```

use std::fmt;
use std::sync::Arc;

use candle_core::Device;

use super::TensorCodec;
use super::error::Result;
#[cfg(any(feature = "kernels", feature = "cuda"))]
use super::kernels::{KernelNetwork, KernelState, KernelStep, Machine};
use super::tensors::{Carrier, TensorNetwork, TensorState, TensorStep};
use midspan::check::{Outcome, StreamChecks};
use midspan::codec::Codec;
use midspan::exact::{Arm, Buffers, Network, Serial, State, Step};
use midspan::model::synthetic::{self, Case};
use midspan::model::{CodecModel, NetworkParameters};

/// Number of warps of the kernels on the CPU.
#[cfg(feature = "kernels")]
const WARPS: usize = 11;

/// What is tested, and on which device.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Suite<'a> {
    /// The device of the tensors.
    pub device: &'a Device,
    /// A model with the encoder's part.
    pub model: &'a CodecModel,
    /// Number of random networks, with random shapes and every style.
    pub networks: usize,
    /// Batch sizes in frames, for the model.
    pub batches: &'a [usize],
    /// Numbers of streams that step together.
    pub streams: &'a [usize],
    /// Seed of everything that is random.
    pub seed: u64,
}

/// A way to compute the networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Implementation {
    /// On the CPU.
    Arm(Arm),
    /// Tensors on the device.
    Tensors(Carrier),
    /// The device's kernels, compiled for the CPU.
    #[cfg(feature = "kernels")]
    Kernels,
    /// The device's kernels, on the device.
    #[cfg(feature = "cuda")]
    Cuda,
}

impl fmt::Display for Implementation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Implementation::Arm(Arm::Plain) => "plain arm",
            Implementation::Arm(Arm::Portable) => "portable arm",
            Implementation::Arm(Arm::Avx2) => "AVX2 arm",
            Implementation::Arm(Arm::Avx512Vnni) => "AVX-512 arm",
            Implementation::Arm(arm) => arm.name(),
            Implementation::Tensors(Carrier::Double) => "tensors, f64",
            Implementation::Tensors(Carrier::Single) => "tensors, f32 and i64",
            #[cfg(feature = "kernels")]
            Implementation::Kernels => "kernels, on the CPU",
            #[cfg(feature = "cuda")]
            Implementation::Cuda => "kernels, CUDA",
        })
    }
}

/// The outcome of one check of one implementation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The implementation that was checked.
    pub implementation: Implementation,
    /// The name of the check.
    pub check: &'static str,
    /// Number of networks, batches or streams that were compared, up to the first fault.
    pub cases: usize,
    /// Number of integers, or bytes of streams, that were compared and equal.
    pub compared: u64,
    /// The first difference, or how the device failed.
    pub fault: Option<String>,
}

/// Compares implementations with the plain arm.
type Check<'a> = fn(&Suite<'a>, &mut [Entrant]);

/// Counts equal values up to the first difference.
struct Tally {
    cases: usize,
    compared: u64,
    fault: Option<String>,
}

impl Tally {
    /// Compares integers in rows.
    fn compare(&mut self, found: Result<Vec<i32>>, expected: &[i32], row: usize, what: impl fmt::Display) {
        match found {
            Err(error) => self.fault = Some(format!("{what}: {error}")),
            Ok(found) if found == expected => {
                self.cases += 1;
                self.compared += found.len() as u64;
            }
            Ok(found) => {
                let at =
                    found.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(found.len().min(expected.len()));
                let value = |values: &[i32]| values.get(at).map_or("nothing".into(), i32::to_string);
                let (frame, output) = (at / row.max(1), at % row.max(1));
                let (found, expected) = (value(&found), value(expected));
                self.fault = Some(format!("{what}: frame {frame}, output {output} is {found} instead of {expected}"));
            }
        }
    }
}

/// An implementation during a check.
struct Entrant {
    implementation: Implementation,
    tally: Tally,
}

/// The implementations that have not failed yet.
fn running(entrants: &mut [Entrant]) -> impl Iterator<Item = &mut Entrant> {
    entrants.iter_mut().filter(|entrant| entrant.tally.fault.is_none())
}

impl<'a> Suite<'a> {
    /// Checks of a device with a model that has the encoder's part: 100 random networks, batches of 1, 7 and 64 frames,
    /// 1 and 33 streams together, seed 1.
    pub fn new(device: &'a Device, model: &'a CodecModel) -> Self {
        Self { device, model, networks: 100, batches: &[1, 7, 64], streams: &[1, 33], seed: 1 }
    }

    midspan::setters! {
        networks: usize,
        batches: &'a [usize],
        streams: &'a [usize],
        seed: u64,
    }

    /// Runs every check, and passes its outcomes to `tell` when it is done. Expected values are computed only once for
    /// all implementations.
    pub fn run(&self, tell: &mut dyn FnMut(&Row)) -> Vec<Row> {
        let checks: [(&'static str, Check<'a>); 5] = [
            ("random networks", Suite::random_networks),
            ("networks at their bounds", Suite::extremes),
            ("batches of the model", Suite::model_batches),
            ("streams of the model together", Suite::streams_together),
            ("streams to and from the plain arm", Suite::sessions),
        ];
        let mut rows = Vec::new();
        for (check, run) in checks {
            let own = self.run_one(check, run);
            own.iter().for_each(&mut *tell);
            rows.extend(own);
        }
        rows
    }

    /// Runs one check. Returns the outcome of each implementation.
    fn run_one(&self, check: &'static str, run: Check<'a>) -> Vec<Row> {
        let own = self.implementations().into_iter();
        let fresh = || Tally { cases: 0, compared: 0, fault: None };
        let mut entrants: Vec<Entrant> = own.map(|implementation| Entrant { implementation, tally: fresh() }).collect();
        run(self, &mut entrants);
        let row = |Entrant { implementation, tally: Tally { cases, compared, fault } }| Row {
            implementation,
            check,
            cases,
            compared,
            fault,
        };
        entrants.into_iter().map(row).collect()
    }

    /// All implementations that this machine and the device can run, except the reference itself.
    fn implementations(&self) -> Vec<Implementation> {
        let arms = Arm::available().into_iter().filter(|arm| *arm != Arm::Plain).map(Implementation::Arm);
        // A device without f64 is tested only with the carrier that it supports.
        let carriers = Carrier::ALL.into_iter().filter(|c| *c == Carrier::Single || !self.device.is_metal());
        let all = arms.chain(carriers.map(Implementation::Tensors));
        #[cfg(feature = "kernels")]
        let all = all.chain([Implementation::Kernels]);
        #[cfg(feature = "cuda")]
        let all = all.chain(self.device.is_cuda().then_some(Implementation::Cuda));
        all.collect()
    }

    /// The machine that runs an implementation's kernels.
    #[cfg(any(feature = "kernels", feature = "cuda"))]
    fn machine(&self, implementation: Implementation) -> Result<Machine> {
        match implementation {
            #[cfg(feature = "cuda")]
            Implementation::Cuda => Machine::cuda(self.device),
            #[cfg(feature = "kernels")]
            Implementation::Kernels => Ok(Machine::cpu(WARPS)),
            _ => Err(super::Error::codec(midspan::error::ErrorKind::NotAvailable, "it has no kernels")),
        }
    }

    /// Runs batches of one context. Returns all outputs.
    fn outputs(
        &self,
        implementation: Implementation,
        parameters: &NetworkParameters,
        inputs: &[i16],
        batch: usize,
        quality: usize,
    ) -> Result<Vec<i32>> {
        let mut all = Vec::new();
        let batches = inputs.chunks(batch.max(1) * parameters.inputs());
        match implementation {
            Implementation::Arm(arm) => {
                let network = Network::new(parameters, arm);
                let (mut state, mut output) = (State::new(&network, 0), Vec::new());
                for batch in batches {
                    network.run(&mut state, batch, quality, &mut output, &Serial)?;
                    all.extend_from_slice(&output);
                }
            }
            Implementation::Tensors(carrier) => {
                let network = TensorNetwork::new(parameters, carrier, self.device)?;
                let mut state = TensorState::new(&network, 0);
                for batch in batches {
                    let output = network.run(&mut state, &network.input(batch)?, quality)?;
                    all.extend(network.read(&output)?);
                }
            }
            #[cfg(any(feature = "kernels", feature = "cuda"))]
            _ => {
                let network = KernelNetwork::new(parameters, &self.machine(implementation)?)?;
                let mut state = KernelState::new(&network, 0);
                for batch in batches {
                    let frames = batch.len() / parameters.inputs();
                    all.extend(network.step(&mut [KernelStep { state: &mut state, frames, quality }], batch)?);
                }
            }
        }
        Ok(all)
    }

    fn reference(&self, parameters: &NetworkParameters, inputs: &[i16], quality: usize) -> Vec<i32> {
        // The plain arm accepts whole frames of any valid network.
        let frames = inputs.len() / parameters.inputs().max(1);
        self.outputs(Implementation::Arm(Arm::Plain), parameters, inputs, frames, quality).unwrap_or_default()
    }

    fn compare_case(&self, entrants: &mut [Entrant], case: &Case) {
        let Case { name, parameters, inputs, batch, quality } = case;
        let expected = self.reference(parameters, inputs, *quality);
        for Entrant { implementation, tally } in running(entrants) {
            let found = self.outputs(*implementation, parameters, inputs, *batch, *quality);
            tally.compare(found, &expected, parameters.outputs.len(), name);
        }
    }

    fn random_networks(&self, entrants: &mut [Entrant]) {
        for network in 0..self.networks as u64 {
            self.compare_case(entrants, &Case::random(self.seed.wrapping_add(network)));
        }
    }

    fn extremes(&self, entrants: &mut [Entrant]) {
        for case in Case::extremes() {
            self.compare_case(entrants, &case);
        }
    }

    /// The model's networks with their names.
    fn networks_of_the_model(&self) -> impl Iterator<Item = (&'static str, &NetworkParameters)> {
        let h = self.model.encoder_network().map(|parameters| ("h", parameters));
        std::iter::once(("g_y", self.model.decoder_network())).chain(h)
    }

    fn model_batches(&self, entrants: &mut [Entrant]) {
        for (name, parameters) in self.networks_of_the_model() {
            let longest = self.batches.iter().copied().max().unwrap_or(0);
            let inputs = synthetic::inputs(parameters.inputs(), longest, 60, self.seed);
            for quality in 0..self.model.qualities() {
                let expected = self.reference(parameters, &inputs, quality);
                // All batches in the last quality, one in the others.
                let count = if quality + 1 == self.model.qualities() { self.batches.len() } else { 1 };
                for &batch in self.batches.iter().rev().take(count) {
                    let what = format!("{name}, quality {quality}, batches of {batch}");
                    for Entrant { implementation, tally } in running(entrants) {
                        let found = self.outputs(*implementation, parameters, &inputs, batch, quality);
                        tally.compare(found, &expected, parameters.outputs.len(), &what);
                    }
                }
            }
        }
    }

    fn streams_together(&self, entrants: &mut [Entrant]) {
        const ROUNDS: usize = 3;
        for (name, parameters) in self.networks_of_the_model() {
            for &streams in self.streams {
                let (d, outputs) = (parameters.inputs(), parameters.outputs.len());
                let quality = |stream: usize| stream % self.model.qualities();
                let inputs = |stream: usize| synthetic::inputs(d, ROUNDS, 60, self.seed ^ stream as u64);
                let inputs: Vec<Vec<i16>> = (0..streams).map(inputs).collect();
                let alone = inputs.iter().enumerate();
                let alone: Vec<Vec<i32>> =
                    alone.map(|(stream, inputs)| self.reference(parameters, inputs, quality(stream))).collect();
                // The outputs are in the order of the steps, round by round.
                let expected: Vec<i32> = (0..ROUNDS)
                    .flat_map(|round| alone.iter().flat_map(move |all| &all[round * outputs..][..outputs]).copied())
                    .collect();
                let rounds: Vec<Vec<&[i16]>> =
                    (0..ROUNDS).map(|round| inputs.iter().map(|all| &all[round * d..][..d]).collect()).collect();
                for Entrant { implementation, tally } in running(entrants) {
                    let found = self.step_rounds(*implementation, parameters, &rounds, &quality);
                    tally.compare(found, &expected, outputs, format_args!("{name}, {streams} streams"));
                }
            }
        }
    }

    /// Checks whole streams ([`StreamChecks`]).
    fn sessions(&self, entrants: &mut [Entrant]) {
        match StreamChecks::new(self.model, self.streams, self.seed) {
            Ok(checks) => running(entrants).for_each(|Entrant { implementation, tally }| {
                match self.check_streams(*implementation, &checks) {
                    Ok(Outcome { cases, compared, fault, .. }) => *tally = Tally { cases, compared, fault },
                    Err(error) => tally.fault = Some(error.to_string()),
                }
            }),
            Err(error) => {
                running(entrants).for_each(|entrant| entrant.tally.fault = Some(format!("the plain arm: {error}")));
            }
        }
    }

    /// Runs the checks on the engine of an implementation.
    fn check_streams(&self, implementation: Implementation, checks: &StreamChecks) -> Result<Outcome> {
        let codec = |arm| Codec::with_arm(self.model.clone(), arm).map(Arc::new);
        Ok(match implementation {
            Implementation::Arm(arm) => checks.run(&codec(arm)?),
            Implementation::Tensors(carrier) => {
                checks.run(&Arc::new(TensorCodec::with_carrier(codec(Arm::Plain)?, self.device, carrier)?))
            }
            #[cfg(any(feature = "kernels", feature = "cuda"))]
            _ => {
                // Use the device's coder even where the CPU's would be chosen, because the CPU's is covered by other
                // rows of the table.
                let engine = super::KernelCodec::new(codec(Arm::Plain)?, &self.machine(implementation)?)?;
                checks.run(&Arc::new(engine.with_coder(super::Coder::Device)))
            }
        })
    }

    /// Steps streams together, with one frame of each in a round. Returns all outputs.
    fn step_rounds(
        &self,
        implementation: Implementation,
        parameters: &NetworkParameters,
        rounds: &[Vec<&[i16]>],
        quality: &dyn Fn(usize) -> usize,
    ) -> Result<Vec<i32>> {
        let streams = rounds.first().map_or(0, Vec::len);
        let mut all = Vec::new();
        match implementation {
            Implementation::Arm(arm) => {
                let network = Network::new(parameters, arm);
                let mut states: Vec<State> = (0..streams).map(|_| State::new(&network, 0)).collect();
                let (mut outputs, mut buffers) = (vec![Vec::new(); streams], Buffers::default());
                for round in rounds {
                    let mut steps: Vec<Step<'_>> = states
                        .iter_mut()
                        .zip(&mut outputs)
                        .zip(round)
                        .enumerate()
                        .map(|(i, ((state, output), &input))| Step { state, quality: quality(i), input, output })
                        .collect();
                    network.step(&mut buffers, &mut steps, &Serial)?;
                    all.extend(outputs.iter().flatten());
                }
            }
            Implementation::Tensors(carrier) => {
                let network = TensorNetwork::new(parameters, carrier, self.device)?;
                let mut states: Vec<TensorState> = (0..streams).map(|_| TensorState::new(&network, 0)).collect();
                for round in rounds {
                    let step = |(i, state)| TensorStep { state, frames: 1, quality: quality(i) };
                    let mut steps: Vec<TensorStep<'_>> = states.iter_mut().enumerate().map(step).collect();
                    let output = network.step(&mut steps, &network.input(&round.concat())?)?;
                    all.extend(network.read(&output)?);
                }
            }
            #[cfg(any(feature = "kernels", feature = "cuda"))]
            _ => {
                let network = KernelNetwork::new(parameters, &self.machine(implementation)?)?;
                let mut states: Vec<KernelState> = (0..streams).map(|_| KernelState::new(&network, 0)).collect();
                for round in rounds {
                    let step = |(i, state)| KernelStep { state, frames: 1, quality: quality(i) };
                    let mut steps: Vec<KernelStep<'_>> = states.iter_mut().enumerate().map(step).collect();
                    all.extend(network.step(&mut steps, &round.concat())?);
                }
            }
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_models::{fitting, fitting_sparse, kinds, predicting, predicting_sparse};
    use midspan::model::synthetic::SyntheticShape;

    fn tally_of(found: Result<Vec<i32>>, expected: &[i32]) -> Tally {
        let mut tally = Tally { cases: 0, compared: 0, fault: None };
        tally.compare(found, expected, 2, "h");
        tally
    }

    #[test]
    fn the_first_difference_is_told() {
        let good = tally_of(Ok(vec![1, 2, 3, 4]), &[1, 2, 3, 4]);
        assert_eq!((good.cases, good.compared, good.fault), (1, 4, None));
        let bad = tally_of(Ok(vec![1, 2, 3, 5]), &[1, 2, 3, 4]);
        assert_eq!(bad.fault.as_deref(), Some("h: frame 1, output 1 is 5 instead of 4"));
        assert_eq!((bad.cases, bad.compared), (0, 0));
        let short = tally_of(Ok(vec![1]), &[1, 2]);
        assert_eq!(short.fault.as_deref(), Some("h: frame 0, output 1 is nothing instead of 2"));
        let failed = tally_of(Err(candle_core::Error::Msg("out of memory".into()).into()), &[]);
        assert_eq!(failed.fault.as_deref(), Some("h: the device failed: out of memory"));
    }

    #[test]
    fn every_implementation_passes_every_check() {
        let model = synthetic::model(&SyntheticShape::tiny(), 1);
        let suite =
            Suite { device: &Device::Cpu, model: &model, networks: 8, batches: &[1, 30], streams: &[1, 9], seed: 3 };
        let mut told = Vec::new();
        let rows = suite.run(&mut |row| told.push(row.clone()));
        assert_eq!(rows, told);
        let kernels = usize::from(cfg!(feature = "kernels"));
        assert_eq!(rows.len(), 5 * (Arm::available().len() - 1 + Carrier::ALL.len() + kernels));
        for row in rows {
            assert!(row.fault.is_none() && row.cases > 3 && row.compared > 500, "{row:?}");
        }
    }

    /// Models with side indices, without blocks, and with sparse maps.
    #[test]
    fn streams_of_every_kind_of_model_pass() {
        let many_ages = SyntheticShape { side: [16, 256, 1], ..SyntheticShape::tiny() };
        let any = SyntheticShape::random(&mut synthetic::Random::new(5));
        let random = SyntheticShape { side: [1, 40, 7], ..any };
        let shapes: Vec<_> = kinds(&SyntheticShape::tiny()).into_iter().chain([many_ages, random]).collect();
        let sparse = shapes.iter().skip(2).map(|shape| (shape, fitting_sparse(shape, 1)));
        for (shape, model) in shapes.iter().map(|shape| (shape, fitting(shape, 1))).chain(sparse) {
            let suite = Suite::new(&Device::Cpu, &model).batches(&[1, 30]).streams(&[1, 9]);
            let checks: [Check<'_>; 3] = [Suite::model_batches, Suite::streams_together, Suite::sessions];
            for row in checks.into_iter().flat_map(|check| suite.run_one("", check)) {
                assert!(row.fault.is_none() && row.cases > 3 && row.compared > 500, "{shape:?}: {row:?}");
            }
        }
    }

    /// Models that predict from decoded frames.
    #[test]
    fn streams_of_models_that_predict_pass() {
        let shapes = kinds(&SyntheticShape::tiny());
        let models = shapes.iter().zip([[1, 0], [2, 3], [4, 1], [3, 6]]);
        let models = models.map(|(shape, predicts)| (shape, predicting(shape, predicts, 1)));
        for (shape, model) in models.chain([(&shapes[0], predicting_sparse(&shapes[0], [2, 3], 1))]) {
            let suite = Suite::new(&Device::Cpu, &model).streams(&[1, 9]);
            let checks: [Check<'_>; 2] = [Suite::streams_together, Suite::sessions];
            for row in checks.into_iter().flat_map(|check| suite.run_one("", check)) {
                assert!(row.fault.is_none() && row.cases > 1 && row.compared > 500, "{shape:?}: {row:?}");
            }
        }
    }

    #[test]
    fn a_model_of_others_numbers_is_told_apart() {
        // Imitates a wrong implementation by another model's integers.
        let (one, two) = (synthetic::model(&SyntheticShape::tiny(), 1), synthetic::model(&SyntheticShape::tiny(), 2));
        let suite = Suite { device: &Device::Cpu, model: &one, networks: 0, batches: &[], streams: &[], seed: 3 };
        let inputs = synthetic::inputs(6, 4, 60, 1);
        let found = suite.outputs(Implementation::Tensors(Carrier::Single), two.decoder_network(), &inputs, 2, 0);
        let expected = suite.reference(one.decoder_network(), &inputs, 0);
        assert!(tally_of(found, &expected).fault.is_some());
    }
}
