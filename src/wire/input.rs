//! The glue between nom and [`Error`]: a problem is found at a remainder, and reported at an offset.

use bytes::Bytes;
use nom::IResult;
use nom::error::{ErrorKind as NomKind, ParseError};
use nom::number::complete::le_u8;

use super::varint;
use crate::error::{Error, ErrorKind};

/// What a parser found wrong, and how many bytes were left where the field at fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// `None`: the input ends inside the field, which the whole that holds it gives a number.
    kind: Option<ErrorKind>,
    left: usize,
}

impl ParseError<&[u8]> for Problem {
    fn from_error_kind(input: &[u8], _: NomKind) -> Problem {
        Problem { kind: None, left: input.len() }
    }

    fn append(_: &[u8], _: NomKind, other: Problem) -> Problem {
        other
    }
}

/// The result of one parser over a body that is there as a whole.
pub(crate) type Parsed<'a, T> = IResult<&'a [u8], T, Problem>;

/// Fails with `kind` at the field that begins at `at`.
pub(crate) fn fail<T>(kind: ErrorKind, at: &[u8]) -> Parsed<'_, T> {
    Err(nom::Err::Failure(Problem { kind: Some(kind), left: at.len() }))
}

/// Fails because the field that begins at `at` is cut off.
pub(crate) fn cut<T>(at: &[u8]) -> Parsed<'_, T> {
    Err(nom::Err::Failure(Problem { kind: None, left: at.len() }))
}

/// A `usize` length as an offset; no target has more than 64 bits.
pub(crate) fn len64(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Gives a nom error its place within `input`, and `layout` where a field was cut off.
pub(crate) fn located(error: nom::Err<Problem>, input: &[u8], layout: ErrorKind) -> Error {
    match error {
        nom::Err::Error(problem) | nom::Err::Failure(problem) => {
            let offset = input.len().saturating_sub(problem.left);
            Error::new(problem.kind.unwrap_or(layout), u64::try_from(offset).unwrap_or(u64::MAX))
        }
        nom::Err::Incomplete(_) => Error::new(layout, len64(input)),
    }
}

/// Runs `parser` over the whole of `input`.
///
/// [CHUNK-5] A body that ends before its last field, or that holds bytes behind its last field, is error 306
/// (`layout`; in the stream header 209).
pub(crate) fn whole<'a, T>(
    input: &'a [u8],
    layout: ErrorKind,
    parser: impl FnOnce(&'a [u8]) -> Parsed<'a, T>,
) -> Result<T, Error> {
    match parser(input) {
        Ok(([], value)) => Ok(value),
        Ok((rest, _)) => Err(located(nom::Err::Error(Problem { kind: None, left: rest.len() }), input, layout)),
        Err(error) => Err(located(error, input, layout)),
    }
}

/// One byte.
pub(crate) fn byte(input: &[u8]) -> Parsed<'_, u8> {
    le_u8(input)
}

/// One varint of any value.
pub(crate) fn varint(input: &[u8]) -> Parsed<'_, u64> {
    match varint::load(input) {
        Ok(Some((value, bytes))) => match input.get(bytes..) {
            Some(rest) => Ok((rest, value)),
            None => cut(input),
        },
        Ok(None) => cut(input),
        Err(error) => fail(error.kind(), input),
    }
}

/// One varint from 0 to 2^32 − 1.
///
/// [VARINT-3] Each field states the range of its value; a reader MUST refuse a value outside (error 103 unless the
/// field names another).
pub(crate) fn varint_u32(input: &[u8]) -> Parsed<'_, u32> {
    let (rest, value) = varint(input)?;
    match u32::try_from(value) {
        Ok(value) => Ok((rest, value)),
        Err(_) => fail(ErrorKind::FieldOutOfRange, input),
    }
}

/// One varint from `low` to `high`, both of 32 bits.
pub(crate) fn varint_within(low: u32, high: u32) -> impl Fn(&[u8]) -> Parsed<'_, u32> {
    move |input| {
        let (rest, value) = varint_u32(input)?;
        if value < low || value > high { fail(ErrorKind::FieldOutOfRange, input) } else { Ok((rest, value)) }
    }
}

/// `N` bytes.
pub(crate) fn array<const N: usize>(input: &[u8]) -> Parsed<'_, [u8; N]> {
    match input.split_first_chunk::<N>() {
        Some((value, rest)) => Ok((rest, *value)),
        None => cut(input),
    }
}

/// The bytes `start..end` of `body` without copying them; none where they do not exist.
pub(crate) fn part(body: &Bytes, start: usize, end: usize) -> Bytes {
    if start <= end && end <= body.len() { body.slice(start..end) } else { Bytes::new() }
}
