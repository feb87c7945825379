//! Side indices: their payload in a stream, and the input of g_y that they belong to (spec 5.5, 6.12).

use std::borrow::Cow;

use crate::entropy::{EntropyError, LaneDecoder, LaneEncoder, RunDecoder, RunEncoder, max_payload_len};
use crate::error::{Detail, Error, ErrorKind};
use crate::model::side::Side;
use crate::number::to_u64;

/// The tables for the lower parts of indices with these upper parts: 1 + upper part.
fn lower_tables(upper: &[i16]) -> Vec<u32> {
    upper.iter().map(|upper| u32::from(upper.unsigned_abs()).saturating_add(1)).collect()
}

/// A part of an index, which is below 4,097.
fn part(value: u32) -> i16 {
    i16::try_from(value).unwrap_or(i16::MAX)
}

/// The payload of a CC chunk.
///
/// [SIDE-2] It codes, with one coder, two runs of n values each: the upper parts of all indices with table 0 of the
/// model's side bank; then the lower parts, each with table 1 + upper part.
///
/// # Panics
/// If the model lacks one of the indices.
#[must_use]
pub fn encode(side: &Side, indices: &[u32]) -> Vec<u8> {
    let (upper, lower): (Vec<i16>, Vec<i16>) =
        indices.iter().map(|index| Side::split(*index)).map(|(upper, lower)| (part(upper), part(lower))).unzip();
    let (shifts, mut coder) = (vec![0; indices.len()], LaneEncoder::new());
    let mut code = |tables: &[u32], values: &[i16]| {
        RunEncoder::new(side.tables()).encode_row(&mut coder, tables, &shifts, values, None);
    };
    code(&vec![0; indices.len()], &upper);
    code(&lower_tables(&upper), &lower);
    coder.finish()
}

/// The `count` indices in the payload of a CC chunk.
///
/// # Errors
/// [SIDE-2] [`EntropyError::ValueOutOfRange`] for an upper part outside 0 … floor(V / 256), a lower part outside 0 … 255,
/// or an index above V; [`EntropyError::TooLong`] for more than 12 bytes an index; those of a payload.
pub fn decode(side: &Side, payload: &[u8], count: usize) -> Result<Vec<u32>, EntropyError> {
    if payload.len() as u64 > max_payload_len(count as u64, 2) {
        return Err(EntropyError::TooLong);
    }
    let (most, _) = Side::split(side.vocabulary());
    let (shifts, mut coder) = (vec![0; count], LaneDecoder::new(payload));
    let mut read = |tables: &[u32], most: i32| {
        let mut values = vec![0; count];
        RunDecoder::new(side.tables(), (0, most)).decode_row(&mut coder, tables, &shifts, None, &mut values)?;
        Ok::<_, EntropyError>(values)
    };
    let upper = read(&vec![0; count], most.cast_signed())?;
    let lower = read(&lower_tables(&upper), 255)?;
    let join = |(upper, lower): (&i16, &i16)| side.join(upper.unsigned_abs().into(), lower.unsigned_abs().into());
    let indices = upper.iter().zip(&lower).map(|parts| join(parts).ok_or(EntropyError::ValueOutOfRange));
    let indices = indices.collect::<Result<_, _>>()?;
    coder.finish()?;
    Ok(indices)
}

/// Checks the sums of side indices of a job: D = `width` for each of its frames.
///
/// # Errors
/// [`ErrorKind::WrongShape`] for another number of values.
pub fn check_sums(sums: &[i16], frames: usize, width: usize) -> Result<(), Error> {
    let wanted = frames.saturating_mul(width);
    if sums.len() == wanted {
        return Ok(());
    }
    let (wanted, found) = (to_u64(wanted), to_u64(sums.len()));
    let detail = Detail::Number { what: "sums of side indices, D a frame", wanted, found };
    Err(Error::of_call(ErrorKind::WrongShape).with(detail))
}

/// The input of g_y: W, `[T, C]`, and after each frame's row its sums, `[T, D]` (spec 5.5, step 1). With D = 0 it is W.
#[must_use]
pub fn network_input<'a>(w: &'a [i16], channels: usize, sums: &[i16]) -> Cow<'a, [i16]> {
    let frames = w.len().checked_div(channels).unwrap_or(0);
    match sums.len().checked_div(frames) {
        None | Some(0) => Cow::Borrowed(w),
        Some(width) => {
            let mut input = Vec::with_capacity(w.len().saturating_add(sums.len()));
            for (w, sums) in w.chunks_exact(channels).zip(sums.chunks_exact(width)) {
                input.extend_from_slice(w);
                input.extend_from_slice(sums);
            }
            Cow::Owned(input)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::synthetic::{self, SyntheticShape};

    #[test]
    fn indices_come_back_coded_or_plain() {
        let model = synthetic::model(&SyntheticShape::with_side(), 1);
        let side = model.side().unwrap();
        let likely = vec![1; 50];
        let all: Vec<u32> = (0..=side.vocabulary()).collect();
        let (short, long) = (encode(side, &likely), encode(side, &all));
        assert!(short.len() < likely.len(), "{}", short.len());
        assert!(long.len() < all.len() * 2 + 8, "{}", long.len());
        for (indices, payload) in [(&likely, &short), (&all, &long), (&vec![0], &encode(side, &[0]))] {
            assert_eq!(decode(side, payload, indices.len()).unwrap(), *indices);
        }
        assert!(decode(side, &short[..short.len() - 1], 50).is_err());
        assert_eq!(decode(side, &[1; 13], 1), Err(EntropyError::TooLong));
    }

    #[test]
    fn sums_follow_w_frame_by_frame() {
        assert_eq!(*network_input(&[1, 2, 3, 4], 2, &[5, 6]), [1, 2, 5, 3, 4, 6]);
        assert_eq!(*network_input(&[1, 2, 3, 4], 2, &[]), [1, 2, 3, 4]);
        assert!(network_input(&[], 2, &[]).is_empty());
    }
}
