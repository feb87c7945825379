//! Loops over slices in a form that compilers turn into vector code.

/// e^x, relative error below 3e-7; x is clamped to [-87, 88].
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * 0.693_145_75 - n * 1.428_606_8e-6;
    let p = 1.0 / 720.0;
    let p = p * r + 1.0 / 120.0;
    let p = p * r + 1.0 / 24.0;
    let p = p * r + 1.0 / 6.0;
    let p = p * r + 0.5;
    let p = p * r + 1.0;
    let p = p * r + 1.0;
    // n is in [-126, 127]. Neighbouring floats around ROUND are 1 apart, and so are their bits. For a NaN the number
    // has no meaning, but p is a NaN.
    let n = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    p * f32::from_bits(n.wrapping_add(127) << 23)
}

const LANES: usize = 16;

/// Σ f(a_i, b_i) in sixteen partial sums.
#[inline(always)]
fn reduce(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let n = a.len().min(b.len());
    let mut acc = [0f32; LANES];
    let (ac, bc) = (a[..n].chunks_exact(LANES), b[..n].chunks_exact(LANES));
    let tail: f32 = ac.remainder().iter().zip(bc.remainder()).map(|(&x, &y)| f(x, y)).sum();
    for (x, y) in ac.zip(bc) {
        for l in 0..LANES {
            acc[l] += f(x[l], y[l]);
        }
    }
    acc.iter().sum::<f32>() + tail
}

/// Σ a_i b_i.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    reduce(a, b, |x, y| x * y)
}

/// Σ a_i.
pub fn sum(a: &[f32]) -> f32 {
    reduce(a, a, |x, _| x)
}

/// The largest value; -∞ if there are none.
pub fn max(a: &[f32]) -> f32 {
    let mut acc = [f32::NEG_INFINITY; LANES];
    let chunks = a.chunks_exact(LANES);
    let tail = chunks.remainder().iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for x in chunks {
        for l in 0..LANES {
            acc[l] = if x[l] > acc[l] { x[l] } else { acc[l] };
        }
    }
    acc.iter().copied().fold(tail, f32::max)
}

/// Turns a row of scores into probabilities; returns the logarithm of the sum of exponentials.
pub fn softmax(row: &mut [f32]) -> f32 {
    let top = max(row);
    for x in row.iter_mut() {
        *x = exp(*x - top);
    }
    let total = sum(row);
    let scale = 1.0 / total;
    for x in row.iter_mut() {
        *x *= scale;
    }
    top + total.ln()
}

const GELU_A: f32 = 1.595_769; // 2 · sqrt(2 / π)
const GELU_B: f32 = 0.044_715;

/// GELU in its tanh form.
#[inline(always)]
pub fn gelu(x: f32) -> f32 {
    x / (1.0 + exp(-GELU_A * (x + GELU_B * x * x * x)))
}

/// GELU in its tanh form and its derivative.
#[inline(always)]
pub fn gelu_grad(x: f32) -> (f32, f32) {
    let s = 1.0 / (1.0 + exp(-GELU_A * (x + GELU_B * x * x * x)));
    let du = GELU_A * (1.0 + 3.0 * GELU_B * x * x);
    (x * s, s + x * s * (1.0 - s) * du)
}

/// Divides `x` by its root mean square, into `y`; returns the factor.
pub fn rms_norm(x: &[f32], y: &mut [f32]) -> f32 {
    let r = 1.0 / (dot(x, x) / x.len() as f32 + super::NORM_EPS).sqrt();
    for (y, &x) in y.iter_mut().zip(x) {
        *y = x * r;
    }
    r
}

/// The gradient of [`rms_norm`]: adds to `dx` the gradient from `dy`, given the result `y` and the factor.
///
/// A row of zeros gets no gradient: each norm would multiply it by 1/√ε, which overflows after several norms. Such rows
/// are frames whose W is 0 at the start of a context, which stay 0 through all blocks.
pub fn rms_norm_grad(y: &[f32], r: f32, dy: &[f32], dx: &mut [f32]) {
    if y.iter().all(|value| *value == 0.0) {
        return;
    }
    let mean = dot(dy, y) / y.len() as f32;
    for ((d, &g), &y) in dx.iter_mut().zip(dy).zip(y) {
        *d += r * (g - y * mean);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_library() {
        for i in -8700..8800 {
            let x = i as f32 * 0.01;
            let (got, want) = (exp(x) as f64, (x as f64).exp());
            assert!(((got - want) / want).abs() < 3e-7, "{x}: {got} {want}");
        }
    }

    /// Shows only that a NaN passes through. That it causes no access outside a table is shown by a run under Miri.
    #[test]
    fn a_nan_goes_through_exp_gelu_and_softmax() {
        for nan in [f32::NAN, -f32::NAN, f32::from_bits(0x7f80_0001), f32::from_bits(0xffff_ffff)] {
            assert!(exp(nan).is_nan() && gelu(nan).is_nan());
            let mut row = [0.0, nan, 1.0];
            softmax(&mut row);
            assert!(row.iter().all(|x| x.is_nan()));
        }
        assert_eq!((exp(f32::INFINITY), exp(f32::NEG_INFINITY)), (exp(88.0), exp(-87.0)));
    }

    /// Nine norms in a row once multiplied the gradient of frames of zeros by 1,000⁹.
    #[test]
    fn a_row_of_zeros_sends_nothing_back() {
        let (zeros, mut out, mut dx) = ([0f32; 6], [1f32; 6], [0f32; 6]);
        let r = rms_norm(&zeros, &mut out);
        rms_norm_grad(&out, r, &[1.0; 6], &mut dx);
        assert_eq!((out, dx), (zeros, zeros));
        let x = [0.0, 1e-3, 0.0, 0.0, 0.0, 0.0];
        let r = rms_norm(&x, &mut out);
        rms_norm_grad(&out, r, &[1.0; 6], &mut dx);
        assert!(dx[0] > 100.0, "{dx:?}");
    }

    #[test]
    fn reductions_take_every_element() {
        let a: Vec<f32> = (0..37).map(|i| i as f32).collect();
        assert_eq!(sum(&a), 666.0);
        assert_eq!(dot(&a, &a), 16206.0);
        assert_eq!(max(&a), 36.0);
        assert_eq!(max(&[]), f32::NEG_INFINITY);
    }

    #[test]
    fn gelu_derivative_matches_differences() {
        for i in -60..60 {
            let x = i as f32 * 0.1;
            let (y, d) = gelu_grad(x);
            assert!((y - gelu(x)).abs() < 1e-6);
            let want = (gelu(x + 0.01) as f64 - gelu(x - 0.01) as f64) / 0.02;
            assert!((d as f64 - want).abs() < 1e-3, "{x}: {d} {want}");
        }
    }
}
