//! From hidden states to Y and back: the only floats in the codec (spec 6.7, 6.8).
//!
//! Rust never contracts a product and a sum into one fused operation and never reorders a sum. Both directions
//! therefore give the same bits on every target with IEEE 754 binary32, linear maps included, for which the spec
//! requires less. Only the mode of the thread's floating-point unit can change Y: another rounding mode, or flags that
//! flush subnormal numbers. An encoder refuses to quantise then ([`check_float_mode`]).

use std::hint::black_box;
use std::ops::Range;

use super::sparse::{self, SparseQuantiser};
use crate::error::{Detail, Error, ErrorKind};
use crate::model::{CodecModel, Map};
use crate::number::to_u64;
use crate::wire::Dtype;

/// Values more than half a step outside the range of Y, which were therefore clamped (spec 6.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clipped {
    /// How many.
    pub count: u64,
    /// The index of the first one among the values checked.
    pub first: Option<usize>,
}

impl Clipped {
    /// Finds them among values in steps, as [`to_steps`] gives them.
    #[must_use]
    pub fn find(x: &[f32], range: (i16, i16)) -> Clipped {
        // Exact: both ends have 16 bits.
        let (low, high) = (f32::from(range.0) - 0.5, f32::from(range.1) + 0.5);
        let outside = |x: &f32| *x < low || *x > high;
        let count = x.iter().map(|x| u64::from(outside(x))).sum();
        Clipped { count, first: if count == 0 { None } else { x.iter().position(outside) } }
    }

    /// The error of an encoder that is set to refuse such values; `width` is E.
    ///
    /// # Errors
    /// [`ErrorKind::HiddenClipped`].
    pub fn refuse(&self, width: usize) -> Result<(), Error> {
        let Some(first) = self.first else { return Ok(()) };
        let (frame, element) = place(first, width);
        Err(Error::of_call(ErrorKind::HiddenClipped).with(Detail::Clipped { count: self.count, frame, element }))
    }
}

/// Frame and element of the value at a place among frames of `width` values.
pub fn place(position: usize, width: usize) -> (u64, u64) {
    let count = |number: Option<usize>| to_u64(number.unwrap_or(0));
    (count(position.checked_div(width)), count(position.checked_rem(width)))
}

/// Checks that the floating-point unit of this thread rounds to the nearest and keeps subnormal numbers, as it does
/// unless something has changed its mode. Takes a few operations.
///
/// # Errors
/// [`ErrorKind::FloatMode`].
pub fn check_float_mode() -> Result<(), Error> {
    // A unit in the last place of 1 is 2^−23. Less than half of it rounds down, and more rounds up.
    let (one, quarter, three_quarters) =
        (black_box(1.0_f32), black_box(f32::EPSILON / 4.0), black_box(f32::EPSILON * 0.75));
    let nearest = one + quarter == 1.0 && one + three_quarters == 1.0 + f32::EPSILON;
    // A product below the smallest normal number, and the way back.
    let small = black_box(f32::MIN_POSITIVE) * black_box(0.5);
    let gradual =
        small.to_bits() == 1 << 22 && black_box(f32::from_bits(1 << 22)) * black_box(2.0) == f32::MIN_POSITIVE;
    match (nearest, gradual) {
        (true, true) => Ok(()),
        (false, _) => Err(Error::of_call(ErrorKind::FloatMode).with_detail("it does not round to the nearest")),
        _ => Err(Error::of_call(ErrorKind::FloatMode).with_detail("it flushes subnormal numbers")),
    }
}

/// Hidden states that were checked and are ready to be quantised.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InSteps {
    /// The values to round to the nearest integers, `[T, E]`.
    pub x: Vec<f32>,
    /// The hidden states minus their offsets, `[T, E]`, of a model with sparse maps, for which a choice of Y begins anew;
    /// otherwise empty.
    pub centred: Vec<f32>,
}

/// Some frames of [`InSteps`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unrounded<'a> {
    /// [`InSteps::x`].
    pub x: &'a [f32],
    /// [`InSteps::centred`].
    pub centred: &'a [f32],
}

impl<'a> Unrounded<'a> {
    /// The frames `rows` of these, of `width` values each.
    fn rows(self, rows: &Range<usize>, width: usize) -> Unrounded<'a> {
        let own = rows.start.saturating_mul(width)..rows.end.saturating_mul(width);
        let part = |values: &'a [f32]| values.get(own.clone()).unwrap_or(&[]);
        Unrounded { x: part(self.x), centred: part(self.centred) }
    }

    /// One of these frames, of `width` values.
    pub(super) fn frame(self, frame: usize, width: usize) -> Unrounded<'a> {
        self.rows(&(frame..frame.saturating_add(1)), width)
    }
}

impl InSteps {
    /// Hidden states, `[T, E]`, in steps of a quality of a model (spec 6.8).
    ///
    /// # Errors
    /// As [`to_steps`]; [`ErrorKind::NotAvailable`] for a model without an encoder's part.
    pub fn new(model: &CodecModel, hidden: &[f32], quality: usize) -> Result<Self, Error> {
        let Some(reciprocal_step) = model.reciprocal_step(quality) else {
            let missing = Error::of_call(ErrorKind::NotAvailable);
            return Err(missing.with_detail("the model has no quantiser; give Y instead"));
        };
        let offset = model.offset(quality);
        match SparseQuantiser::new(model, quality) {
            None => {
                let analysis = model.analysis().and_then(Map::full);
                Ok(Self { x: to_steps(hidden, offset, analysis, reciprocal_step)?, centred: Vec::new() })
            }
            Some(quantiser) => Self::sparse(&quantiser, hidden, offset),
        }
    }

    /// Hidden states, `[T, E]`, in the steps of a quantiser with sparse maps and these offsets, `[E]` (spec 6.8).
    ///
    /// # Errors
    /// As [`to_steps`].
    pub fn sparse(quantiser: &SparseQuantiser<'_>, hidden: &[f32], offset: &[f32]) -> Result<Self, Error> {
        check_float_mode()?;
        check_finite(hidden, offset.len())?;
        let frames = hidden.chunks_exact(offset.len());
        let centred: Vec<f32> = frames.flat_map(|frame| frame.iter().zip(offset).map(|(h, o)| h - o)).collect();
        let mut x = vec![0.0; centred.len()];
        quantiser.run(&centred, &mut |frame, channel, value| {
            let at = frame.saturating_mul(offset.len()).saturating_add(channel);
            if let Some(x) = x.get_mut(at) {
                *x = value;
            }
            nearest_one(value, quantiser.range)
        });
        if x.iter().any(|x| !x.is_finite()) {
            let error = Error::of_call(ErrorKind::HiddenNotFinite);
            return Err(error.with_detail("the model's sparse maps make no number of values as large as these"));
        }
        Ok(Self { x, centred })
    }

    /// The frames `rows`, of `width` values each.
    #[must_use]
    pub fn rows(&self, rows: &Range<usize>, width: usize) -> Unrounded<'_> {
        Unrounded { x: &self.x, centred: &self.centred }.rows(rows, width)
    }
}

/// Quantises hidden states: `Y = clamp(rne((hidden − offset) · reciprocal_step), range)`, with a map before the product
/// if `analysis` is given, spec 6.8.
///
/// `hidden` is `[T, E]`, the rows are `[E]`, the map `[E, E]`; appends `[T, E]` integers to `y`.
///
/// # Errors
/// As [`to_steps`]; `y` is then unchanged.
pub fn quantise(
    hidden: &[f32],
    offset: &[f32],
    analysis: Option<&[f32]>,
    reciprocal_step: &[f32],
    range: (i16, i16),
    y: &mut Vec<i16>,
) -> Result<(), Error> {
    y.extend(nearest(&to_steps(hidden, offset, analysis, reciprocal_step)?, range));
    Ok(())
}

/// Hidden states in steps, `(hidden − offset) · reciprocal_step`: the values to round.
///
/// Shapes as for [`quantise`]; returns `[T, E]`.
///
/// # Errors
/// [`ErrorKind::HiddenNotFinite`] if an element is NaN or infinite, with frame and element of the first one;
/// [`ErrorKind::FloatMode`].
pub fn to_steps(
    hidden: &[f32],
    offset: &[f32],
    analysis: Option<&[f32]>,
    reciprocal_step: &[f32],
) -> Result<Vec<f32>, Error> {
    check_float_mode()?;
    check_finite(hidden, offset.len())?;
    let mut x = Vec::with_capacity(hidden.len());
    for frame in hidden.chunks_exact(offset.len()) {
        let centred = frame.iter().zip(offset).map(|(value, offset)| value - offset);
        match analysis {
            None => x.extend(centred.zip(reciprocal_step).map(|(value, r)| value * r)),
            Some(map) => {
                let mapped = mapped(&centred.collect::<Vec<f32>>(), map);
                x.extend(mapped.iter().zip(reciprocal_step).map(|(value, r)| value * r));
            }
        }
    }
    check_not_nan(&x)?;
    Ok(x)
}

/// Checks that hidden states, frames of `width` values, are finite.
///
/// # Errors
/// [`ErrorKind::HiddenNotFinite`].
pub fn check_finite(hidden: &[f32], width: usize) -> Result<(), Error> {
    let Some((position, value)) = hidden.iter().enumerate().find(|(_, value)| !value.is_finite()) else {
        return Ok(());
    };
    let (frame, element) = place(position, width);
    let detail = Detail::Element { frame, element, bits: value.to_bits() };
    Err(Error::of_call(ErrorKind::HiddenNotFinite).with(detail))
}

/// Checks that values in steps are numbers. Only after a map they may not be: sums of large values can overflow
/// binary32 in both directions, and the infinities can meet.
///
/// # Errors
/// [`ErrorKind::HiddenNotFinite`].
pub fn check_not_nan(x: &[f32]) -> Result<(), Error> {
    if x.iter().any(|value| value.is_nan()) {
        let error = Error::of_call(ErrorKind::HiddenNotFinite);
        return Err(error.with_detail("the model's analysis map makes no number of values as large as these"));
    }
    Ok(())
}

/// A frame after a map: `[E]` and `[E, E]` to `[E]`, each sum in the same order everywhere.
fn mapped(frame: &[f32], map: &[f32]) -> Vec<f32> {
    const LANES: usize = 16;
    let dot = |row: &[f32]| {
        let mut sums = [0.0_f32; LANES];
        let ((a, a_rest), (b, b_rest)) = (row.as_chunks::<LANES>(), frame.as_chunks::<LANES>());
        for (a, b) in a.iter().zip(b) {
            sums.iter_mut().zip(a.iter().zip(b)).for_each(|(sum, (a, b))| *sum += a * b);
        }
        let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
        sums.iter().sum::<f32>() + rest
    };
    map.chunks_exact(frame.len().max(1)).map(dot).collect()
}

/// The integers nearest to `x`, halves to the even one, clamped to the range.
pub fn nearest(x: &[f32], range: (i16, i16)) -> impl Iterator<Item = i16> + '_ {
    x.iter().map(move |x| nearest_one(*x, range))
}

/// The integer nearest to `x`, as in [`nearest`].
pub(super) fn nearest_one(x: f32, range: (i16, i16)) -> i16 {
    let (low, high) = (f32::from(range.0), f32::from(range.1));
    // The clamp limits the value to an i16. A product of finite numbers that overflows is an infinity, which the clamp
    // limits too. Only behind a sparse map it can be NaN, which becomes 0, and is then refused.
    #[allow(clippy::cast_possible_truncation)]
    let rounded = x.round_ties_even().clamp(low, high) as i16;
    rounded
}

/// Reconstructs hidden states: `f32(Y) · step + offset`, rounded after each of the two operations, with a map between
/// them if `synthesis` is given (spec 6.7).
///
/// `y` is `[T, E]`, `step` and `offset` are `[E]`; appends `[T, E]` values to `hidden`.
pub fn reconstruct(y: &[i16], step: &[f32], synthesis: Option<&Map>, offset: &[f32], hidden: &mut Vec<f32>) {
    hidden.reserve(y.len());
    if let Some(map) = synthesis.and_then(Map::sparse) {
        let mut levels = Vec::new();
        for frames in y.chunks(step.len().saturating_mul(sparse::FRAMES)) {
            levels.clear();
            levels.extend(frames.iter().map(|value| f32::from(*value)));
            sparse::reconstruct(&levels, step, map, offset, hidden);
        }
        return;
    }
    for frame in y.chunks_exact(step.len()) {
        from_steps(frame.iter().map(|value| f32::from(*value)), step, synthesis, offset, hidden);
    }
}

/// One frame in steps back to hidden states.
fn from_steps(
    frame: impl Iterator<Item = f32>,
    step: &[f32],
    synthesis: Option<&Map>,
    offset: &[f32],
    hidden: &mut Vec<f32>,
) {
    match synthesis {
        None => hidden.extend(frame.zip(step).zip(offset).map(|((value, step), offset)| value * step + offset)),
        Some(Map::Full(map)) => {
            let x: Vec<f32> = frame.zip(step).map(|(value, step)| value * step).collect();
            hidden.extend(mapped(&x, map).iter().zip(offset).map(|(x, offset)| x + offset));
        }
        Some(Map::Sparse(map)) => sparse::reconstruct(&frame.collect::<Vec<f32>>(), step, map, offset, hidden),
    }
}

/// Bytes that a run over the frames of a model with sparse maps takes while it lasts; 0 for other models.
pub(crate) fn reconstruction_bytes(model: &CodecModel) -> usize {
    // Two values of each element of the frames that go together.
    let frames = model.synthesis().and_then(Map::sparse).map_or(0, |_| sparse::FRAMES);
    frames.saturating_mul(model.hidden_width()).saturating_mul(8)
}

/// Reconstructs one frame from g_y's means, which replace a lost target, and from the Y of the elements that came
/// ([DEC-13]).
///
/// `means` is `[E]` in units of 1/64 step, each within ±2^20, so that its conversion and the division by 64 are exact.
/// `came` is `[E]`, or empty if none came.
pub fn reconstruct_from_means(
    means: &[i32],
    came: &[Option<i16>],
    step: &[f32],
    synthesis: Option<&Map>,
    offset: &[f32],
    hidden: &mut Vec<f32>,
) {
    #[allow(clippy::cast_precision_loss)]
    let values = means.iter().zip(came.iter().copied().chain(std::iter::repeat(None))).map(|(mean, came)| match came {
        Some(y) => f32::from(y),
        None => *mean as f32 / 64.0,
    });
    from_steps(values, step, synthesis, offset, hidden);
}

/// Little-endian values of a type as f32, exactly; bytes after the last whole value are left out.
pub fn to_f32(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        Dtype::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
        Dtype::F16 => bytes.as_chunks().0.iter().map(|b| from_f16(u16::from_le_bytes(*b))).collect(),
        Dtype::Bf16 => {
            bytes.as_chunks().0.iter().map(|b| f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16)).collect()
        }
    }
}

/// IEEE 754 binary16 to binary32: every value has an exact counterpart.
///
/// [EXACT-1] Of an infinite or NaN f16 the sign stays, the exponent is all ones, and the ten bits of the fraction are
/// followed by 13 zero bits.
fn from_f16(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let fraction = f32::from(bits & 0x03FF);
    let value = match bits >> 10 & 0x1F {
        0 => fraction / 16_777_216.0, // fraction · 2^−24
        // No arithmetic, because it may make a NaN quiet or lose its sign.
        31 => return f32::from_bits(u32::from(bits & 0x8000) << 16 | 0x7F80_0000 | u32::from(bits & 0x03FF) << 13),
        // 2^(exponent − 15), from its bits: the biases of the two formats differ by 112.
        exponent => f32::from_bits(u32::from(exponent).wrapping_add(112) << 23) * (1.0 + fraction / 1024.0),
    };
    sign * value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_half_to_even_and_saturates() {
        let mut y = Vec::new();
        quantise(&[0.5, 1.5, -2.5, 1e30, -1e30, 0.49999997], &[0.0], None, &[1.0], (-7, 9), &mut y).unwrap();
        assert_eq!(y, [0, 2, -2, 9, -7, 0]);
    }

    #[test]
    fn refuses_what_is_not_finite_and_keeps_the_output() {
        let mut y = vec![3];
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let error = quantise(&[0.0, bad], &[0.0], None, &[1.0], (-7, 7), &mut y).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::HiddenNotFinite);
            assert_eq!(y, [3]);
        }
    }

    #[test]
    fn a_product_that_overflows_saturates() {
        let mut y = Vec::new();
        quantise(&[f32::MAX], &[f32::MIN], None, &[2.0], (-5, 5), &mut y).unwrap();
        assert_eq!(y, [5]);
    }

    #[test]
    fn reconstruction_rounds_twice() {
        // 3 · 0.1 rounds to 0.3 + 1.1920929e-8; fused with the offset it would give another last bit.
        let (step, offset) = (0.1_f32, -0.3_f32);
        let mut hidden = Vec::new();
        reconstruct(&[3], &[step], None, &[offset], &mut hidden);
        assert_eq!(hidden[0].to_bits(), ((3.0_f32 * step) + offset).to_bits());
        assert_ne!(hidden[0].to_bits(), 3.0_f32.mul_add(step, offset).to_bits());
    }

    #[test]
    fn maps_stand_between_offset_and_step() {
        // A rotation by a right angle and back, in steps of 1/2 and 4.
        let (analysis, synthesis) = ([0.0, 1.0, -1.0, 0.0], Map::Full(vec![0.0, -1.0, 1.0, 0.0]));
        let (step, reciprocal, offset) = ([0.5, 4.0], [2.0, 0.25], [1.0, -1.0]);
        let (mut y, mut hidden) = (Vec::new(), Vec::new());
        quantise(&[9.0, 2.0, 1.0, -1.0], &offset, Some(&analysis), &reciprocal, (-99, 99), &mut y).unwrap();
        assert_eq!(y, [6, -2, 0, 0]);
        reconstruct(&y, &step, Some(&synthesis), &offset, &mut hidden);
        assert_eq!(hidden, [9.0, 2.0, 1.0, -1.0]);
        reconstruct_from_means(&[32, 64], &[], &step, Some(&synthesis), &offset, &mut hidden);
        assert_eq!(hidden[4..], [-3.0, -0.75]);
    }

    #[test]
    fn a_map_that_makes_no_number_is_refused() {
        let (hidden, map) = ([f32::MAX, f32::MAX], [f32::MAX, -f32::MAX, 1.0, 0.0]);
        let error = to_steps(&hidden, &[0.0, 0.0], Some(&map), &[1.0, 1.0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::HiddenNotFinite);
        // An infinity is treated like any large value.
        let mut y = Vec::new();
        quantise(&hidden, &[0.0; 2], Some(&[f32::MAX, 0.0, 0.0, -3.0]), &[1.0; 2], (-5, 7), &mut y).unwrap();
        assert_eq!(y, [7, -5]);
    }

    /// A map keeps the spec's bound ([DEC-19]), and a frame among others gives what it gives alone.
    #[test]
    fn a_map_is_as_exact_as_the_spec_asks() {
        let width = 53_usize;
        let mut state = 1_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from((state >> 16) as i16) / 4096.0
        };
        let map: Vec<f32> = (0..width * width).map(|_| random()).collect();
        let (step, offset): (Vec<f32>, Vec<f32>) = (0..width).map(|_| (random().abs() + 0.01, random())).unzip();
        let y: Vec<i16> = (0..3 * width).map(|_| random() as i16 * 20).collect();
        let mut hidden = Vec::new();
        let whole = Map::Full(map.clone());
        reconstruct(&y, &step, Some(&whole), &offset, &mut hidden);
        for (y, hidden) in y.chunks_exact(width).zip(hidden.chunks_exact(width)) {
            for (c, got) in hidden.iter().enumerate() {
                let terms = y.iter().zip(&step).zip(&map[c * width..]);
                let terms: Vec<f64> =
                    terms.map(|((y, step), s)| f64::from(f32::from(*y) * step) * f64::from(*s)).collect();
                let exact = terms.iter().sum::<f64>() + f64::from(offset[c]);
                let size = terms.iter().map(|term| term.abs()).sum::<f64>() + f64::from(offset[c].abs());
                assert!((f64::from(*got) - exact).abs() <= (width + 2) as f64 * size / 8_388_608.0);
            }
            let mut alone = Vec::new();
            reconstruct(y, &step, Some(&whole), &offset, &mut alone);
            assert_eq!(alone, hidden);
        }
    }

    #[test]
    fn half_precision_converts_exactly() {
        for (bits, value) in [
            (0x3C00, 1.0),
            (0xC000, -2.0),
            (0x7BFF, 65_504.0),
            (0x0001, 5.960_464_5e-8),
            (0x0400, 6.103_515_6e-5),
            (0x3555, 0.333_251_95),
        ] {
            assert_eq!(to_f32(Dtype::F16, &u16::to_le_bytes(bits)), [value]);
        }
        assert!(
            to_f32(Dtype::F16, &[0x00, 0xFC])[0] == f32::NEG_INFINITY && to_f32(Dtype::F16, &[1, 0x7C])[0].is_nan()
        );
        // [EXACT-1] no NaN loses its bits: the first is a signalling one, the last has every bit set.
        for (half, single) in
            [(0x7C01, 0x7F80_2000), (0xFD55, 0xFFAA_A000), (0x7E00, 0x7FC0_0000), (0xFFFF, 0xFFFF_E000)]
        {
            let got = to_f32(Dtype::F16, &u16::to_le_bytes(half))[0];
            assert_eq!(got.to_bits(), single, "{half:#06x}: {:#010x}", got.to_bits());
        }
        assert_eq!(to_f32(Dtype::F32, &0x7F80_0001_u32.to_le_bytes())[0].to_bits(), 0x7F80_0001);
        assert_eq!(to_f32(Dtype::Bf16, &[0x81, 0xFF])[0].to_bits(), 0xFF81_0000);
        assert_eq!(to_f32(Dtype::Bf16, &[0x80, 0x3F, 0x20, 0xC1]), [1.0, -10.0]);
        assert_eq!(to_f32(Dtype::F32, &1.5_f32.to_le_bytes()), [1.5]);
    }

    #[test]
    fn means_keep_their_fraction() {
        let mut hidden = Vec::new();
        reconstruct_from_means(&[96, -1], &[], &[2.0, 64.0], None, &[1.0, 0.0], &mut hidden);
        assert_eq!(hidden, [4.0, -1.0]);
        // Elements that came keep their Y.
        reconstruct_from_means(&[96, -1], &[Some(7), None], &[2.0, 64.0], None, &[1.0, 0.0], &mut hidden);
        reconstruct_from_means(&[96, -1], &[None, Some(-3)], &[2.0, 64.0], None, &[1.0, 0.0], &mut hidden);
        assert_eq!(hidden[2..], [15.0, -1.0, 4.0, -192.0]);
    }
}
