//! The kernels between hidden states and symbols, on the CPU.

use super::entropy::{KernelBank, Table};
use super::{Error, ErrorKind, Result};
use crate::codec::choice::LOG2;
use crate::model::CodecModel;

/// `Frames` of `frames.h`.
#[repr(C)]
pub(super) struct Frames {
    count: i64,
    width: i64,
    quality: *const i64,
    weight: *const f32,
    offset: *const f32,
    reciprocal_step: *const f32,
    step: *const f32,
    low: i64,
    high: i64,
    hidden: *const f32,
    x: *mut f32,
    y: *mut i16,
    output: *const i32,
    scales: *const i32,
    tables: *mut u32,
    shifts: *mut i32,
    bank: *const Table,
    boundaries: *const u16,
    logarithms: *const u32,
    result: *mut f32,
    fault: *mut i32,
}

unsafe extern "C" {
    fn midspan_kernels_frames(frames: *const Frames, begin: i64, end: i64, warps: i64);
    fn midspan_kernels_digest(values: *const i16, rows: i64, width: i64, crcs: *mut u32, warps: i64);
}

/// A model's quantiser, rule of tables and bank of Y, laid out for the kernels.
#[derive(Debug)]
pub struct KernelQuantiser {
    width: usize,
    qualities: usize,
    range: (i16, i16),
    /// \[Q, E\].
    offset: Vec<f32>,
    reciprocal_step: Vec<f32>,
    step: Vec<f32>,
    /// Fraction bits and first table of each scale.
    scales: Vec<i32>,
    bank: KernelBank,
}

/// What the kernels make of some frames, `[T, E]` each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KernelFrames {
    /// Hidden states in steps.
    pub x: Vec<f32>,
    /// The nearest integers.
    pub nearest: Vec<i16>,
    /// The integers that are sent.
    pub y: Vec<i16>,
    /// Tables of Y.
    pub tables: Vec<u32>,
    /// Shifts of Y.
    pub shifts: Vec<i32>,
    /// Hidden states again.
    pub hidden: Vec<f32>,
}

impl KernelQuantiser {
    /// Of a model.
    ///
    /// # Errors
    /// [`ErrorKind::NotAvailable`] without an encoder's part, or with linear maps, which have no kernel.
    pub fn new(model: &CodecModel) -> Result<KernelQuantiser> {
        let rows = |row: &dyn Fn(usize) -> Vec<f32>| (0..model.qualities()).flat_map(row).collect::<Vec<f32>>();
        let reciprocal_step = rows(&|q| model.reciprocal_step(q).map_or(Vec::new(), <[f32]>::to_vec));
        if reciprocal_step.is_empty() || model.analysis().is_some() || model.synthesis().is_some() {
            let detail = "the kernels need an encoder's part without maps";
            return Err(Error::new(ErrorKind::NotAvailable, 0).with_detail(detail));
        }
        let bases = model.target_bases();
        let scales = model.fraction_bits().iter().zip(bases).flat_map(|(bits, base)| [i32::from(*bits), base as i32]);
        Ok(KernelQuantiser {
            width: model.hidden_width(),
            qualities: model.qualities(),
            range: model.y_range(),
            offset: rows(&|q| model.offset(q).to_vec()),
            step: rows(&|q| model.step(q).to_vec()),
            reciprocal_step,
            scales: scales.collect(),
            bank: KernelBank::new(model.target()),
        })
    }

    /// Runs every step for frames, `[T, E]`, each with its quality and its weight of the rate; `output` is what g_y gave,
    /// `[T, 2E]`.
    ///
    /// # Errors
    /// [`ErrorKind::WrongShape`], [`ErrorKind::UnknownQuality`], [`ErrorKind::HiddenNotFinite`].
    pub fn run(&self, hidden: &[f32], of: &[(usize, f32)], output: &[i32], warps: usize) -> Result<KernelFrames> {
        let values = of.len() * self.width;
        if hidden.len() != values || output.len() != 2 * values {
            return Err(Error::new(ErrorKind::WrongShape, 0).with_detail("frames of E values and 2E outputs"));
        }
        if of.iter().any(|(quality, _)| *quality >= self.qualities) {
            return Err(Error::new(ErrorKind::UnknownQuality, 0));
        }
        // What the network's clamps make sure of.
        let scales = self.scales.len() as i32 / 2;
        let rows = output.chunks_exact(2 * self.width);
        if rows.flat_map(|row| &row[self.width..]).any(|scale| !(0..scales).contains(scale)) {
            return Err(Error::new(ErrorKind::WrongShape, 0).with_detail("a scale index that the model lacks"));
        }
        let quality: Vec<i64> = of.iter().map(|(quality, _)| *quality as i64).collect();
        let weight: Vec<f32> = of.iter().map(|(_, weight)| *weight).collect();
        let mut made = KernelFrames {
            x: vec![0.0; values],
            nearest: Vec::new(),
            y: vec![0; values],
            tables: vec![0; values],
            shifts: vec![0; values],
            hidden: vec![0.0; values],
        };
        let mut fault = 0;
        let frames = Frames {
            count: of.len() as i64,
            width: self.width as i64,
            quality: quality.as_ptr(),
            weight: weight.as_ptr(),
            offset: self.offset.as_ptr(),
            reciprocal_step: self.reciprocal_step.as_ptr(),
            step: self.step.as_ptr(),
            low: self.range.0.into(),
            high: self.range.1.into(),
            hidden: hidden.as_ptr(),
            x: made.x.as_mut_ptr(),
            y: made.y.as_mut_ptr(),
            output: output.as_ptr(),
            scales: self.scales.as_ptr(),
            tables: made.tables.as_mut_ptr(),
            shifts: made.shifts.as_mut_ptr(),
            bank: self.bank.tables().as_ptr(),
            boundaries: self.bank.boundaries().as_ptr(),
            logarithms: LOG2.as_ptr(),
            result: made.hidden.as_mut_ptr(),
            fault: &raw mut fault,
        };
        let warps = warps.max(1) as i64;
        // SAFETY: the structure is that of `frames.h` (tested); every array has the size that is stated there, qualities
        // and scale indices are those of the model, and the rule's tables are in the bank, as [MODEL-7] has it. All
        // outlive the calls, which keep no pointer.
        unsafe { midspan_kernels_frames(&raw const frames, 0, 2, warps) };
        made.nearest.clone_from(&made.y);
        // SAFETY: as above.
        unsafe { midspan_kernels_frames(&raw const frames, 2, 5, warps) };
        if fault == 0 { Ok(made) } else { Err(Error::new(ErrorKind::HiddenNotFinite, 0)) }
    }
}

/// The crc of each row of `width` integers (spec 6.4).
///
/// # Errors
/// [`ErrorKind::WrongShape`] unless there are whole rows.
pub fn digests(values: &[i16], width: usize, warps: usize) -> Result<Vec<u32>> {
    if width == 0 || !values.len().is_multiple_of(width) {
        return Err(Error::new(ErrorKind::WrongShape, 0).with_detail("rows of integers"));
    }
    let rows = values.len() / width;
    let mut crcs = vec![0; rows];
    let warps = warps.max(1) as i64;
    // SAFETY: as many rows of integers, and crcs, as are stated; no pointer is kept.
    unsafe { midspan_kernels_digest(values.as_ptr(), rows as i64, width as i64, crcs.as_mut_ptr(), warps) };
    Ok(crcs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::digest::frame_crc;
    use crate::codec::parameters::TargetParameters;
    use crate::codec::{Codec, choice, quantiser};
    use crate::model::synthetic::{self, Random, SyntheticShape};

    #[test]
    fn frames_are_the_codecs() {
        let (mut moved, mut clamped) = (0, 0);
        for seed in 0..12 {
            let shape = SyntheticShape { hidden: 7 + 9 * seed as usize, qualities: 3, ..SyntheticShape::tiny() };
            let codec = Codec::new(synthetic::model(&shape, seed)).unwrap();
            let (model, width) = (codec.model(), shape.hidden);
            let kernels = KernelQuantiser::new(model).unwrap();
            let mut random = Random::new(seed);
            let of: Vec<(usize, f32)> =
                (0..19).map(|i| (i % 3, [0.0, 0.05, 0.2, 2.0][random.within(0, 3) as usize])).collect();
            let hidden: Vec<f32> = (0..19 * width)
                .map(|_| match random.within(0, 60) {
                    0 => 3e38,
                    1 => -40_000.0,
                    n => (n - 30) as f32 / 8.0 + random.within(-9, 9) as f32 / 4096.0,
                })
                .collect();
            let output: Vec<i32> = (0..19)
                .flat_map(|_| {
                    let mean = (0..width).map(|_| random.within(-400, 400)).collect::<Vec<_>>();
                    let scale = (0..width).map(|_| random.within(0, shape.scales as i32 - 1)).collect::<Vec<_>>();
                    [mean, scale].concat()
                })
                .collect();
            let found = kernels.run(&hidden, &of, &output, 1 + seed as usize % 3).unwrap();
            for (frame, (quality, weight)) in of.into_iter().enumerate() {
                let own = frame * width..(frame + 1) * width;
                let (offset, step) = (model.offset(quality), model.step(quality));
                let reciprocal = model.reciprocal_step(quality).unwrap();
                let x = quantiser::in_steps(&hidden[own.clone()], offset, None, reciprocal).unwrap();
                assert_eq!(found.x[own.clone()], x);
                let mut y: Vec<i16> = quantiser::nearest(&x, model.y_range()).collect();
                assert_eq!(found.nearest[own.clone()], y);
                clamped += y.iter().filter(|y| **y == model.y_range().1).count();
                let mut parameters = TargetParameters::default();
                codec.rule().derive(&output[2 * own.start..2 * own.end], &mut parameters);
                assert_eq!(found.tables[own.clone()], parameters.tables);
                assert_eq!(found.shifts[own.clone()], parameters.shifts);
                let before = y.clone();
                choice::choose(model, &parameters, weight, &x, &mut y);
                assert_eq!(found.y[own.clone()], y);
                moved += before.iter().zip(&y).filter(|(before, y)| before != y).count();
                let mut again = Vec::new();
                quantiser::reconstruct(&y, step, None, offset, &mut again);
                assert_eq!(found.hidden[own], again);
            }
        }
        assert!(moved > 500 && clamped > 50, "{moved} {clamped}");
    }

    #[test]
    fn digests_are_the_codecs() {
        let mut random = Random::new(4);
        for width in (1..70).chain([255, 256, 257, 768]) {
            let values: Vec<i16> = (0..5 * width).map(|_| random.within(-32_768, 32_767) as i16).collect();
            let expected: Vec<u32> = values.chunks(width).map(frame_crc).collect();
            assert_eq!(digests(&values, width, 2).unwrap(), expected, "{width}");
        }
        assert!(digests(&[], 3, 1).unwrap().is_empty());
        assert_eq!(digests(&[1], 2, 1).unwrap_err().kind(), ErrorKind::WrongShape);
    }

    #[test]
    fn what_cannot_be_coded_is_refused() {
        let model = synthetic::model(&SyntheticShape::tiny(), 1);
        let kernels = KernelQuantiser::new(&model).unwrap();
        let kind = |hidden: &[f32], quality: usize, output: &[i32]| {
            kernels.run(hidden, &[(quality, 0.0)], output, 1).unwrap_err().kind()
        };
        let (zeros, output) = (vec![0.0; 20], vec![0; 40]);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut hidden = zeros.clone();
            hidden[13] = bad;
            assert_eq!(kind(&hidden, 0, &output), ErrorKind::HiddenNotFinite);
        }
        assert_eq!(kind(&zeros[1..], 0, &output), ErrorKind::WrongShape);
        assert_eq!(kind(&zeros, 2, &output), ErrorKind::UnknownQuality);
        assert_eq!(kind(&zeros, 0, &[99; 40]), ErrorKind::WrongShape);
        let refused = KernelQuantiser::new(&model.without_encoder()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotAvailable);
    }
}
