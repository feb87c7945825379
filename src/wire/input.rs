//! The glue between nom and [`Error`]: a problem is found at a remainder, and reported at an offset.

use bytes::Bytes;
use nom::IResult;
use nom::error::{ErrorKind as NomKind, ParseError};
use nom::number::complete::le_u8;

use super::varint;
use crate::error::{Detail, Error, ErrorKind};
use crate::number::to_u64;

/// What a parser found wrong, and how many bytes were left at the start of the field at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// `None` if the input ends inside the field; the number of the error then depends on what contains the field.
    kind: Option<ErrorKind>,
    detail: Option<Detail>,
    left: usize,
}

impl ParseError<&[u8]> for Problem {
    fn from_error_kind(input: &[u8], _: NomKind) -> Problem {
        Problem { kind: None, detail: Some(CUT), left: input.len() }
    }

    fn append(_: &[u8], _: NomKind, other: Problem) -> Problem {
        other
    }
}

/// The result of one parser over a body that is complete.
pub(crate) type Parsed<'a, T> = IResult<&'a [u8], T, Problem>;

/// The facts of a field that is cut off.
const CUT: Detail = Detail::Text("a field is cut off");

/// Fails with `kind` at the field that begins at `at`.
pub(crate) fn fail<T>(kind: ErrorKind, at: &[u8]) -> Parsed<'_, T> {
    Err(nom::Err::Failure(Problem { kind: Some(kind), detail: None, left: at.len() }))
}

/// Fails with `kind` and these facts at the field that begins at `at`.
pub(crate) fn fail_with<T>(kind: ErrorKind, at: &[u8], detail: Detail) -> Parsed<'_, T> {
    Err(nom::Err::Failure(Problem { kind: Some(kind), detail: Some(detail), left: at.len() }))
}

/// Fails with `error` at the field that begins at `at`.
pub(crate) fn forward<T>(error: Error, at: &[u8]) -> Parsed<'_, T> {
    Err(nom::Err::Failure(Problem { kind: Some(error.kind()), detail: error.detail(), left: at.len() }))
}

/// Fails because the field that begins at `at` is cut off.
pub(crate) fn cut<T>(at: &[u8]) -> Parsed<'_, T> {
    Err(nom::Err::Failure(Problem { kind: None, detail: Some(CUT), left: at.len() }))
}

/// Turns a nom error into one with its offset in `input`; the kind is `layout` if a field was cut off.
pub(crate) fn located(error: nom::Err<Problem>, input: &[u8], layout: ErrorKind) -> Error {
    match error {
        nom::Err::Error(problem) | nom::Err::Failure(problem) => {
            let offset = input.len().saturating_sub(problem.left);
            let kind = problem.kind.unwrap_or(layout);
            Error::new(kind, to_u64(offset)).with_facts(problem.detail)
        }
        nom::Err::Incomplete(_) => Error::new(layout, to_u64(input.len())),
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
        Ok((rest, _)) => {
            let detail = Detail::Number { what: "bytes after the last field", wanted: 0, found: to_u64(rest.len()) };
            let problem = Problem { kind: None, detail: Some(detail), left: rest.len() };
            Err(located(nom::Err::Error(problem), input, layout))
        }
        Err(error) => Err(located(error, input, layout)),
    }
}

/// Reads one byte.
pub(crate) fn byte(input: &[u8]) -> Parsed<'_, u8> {
    le_u8(input)
}

/// Reads one varint of any value.
pub(crate) fn varint(input: &[u8]) -> Parsed<'_, u64> {
    match varint::load(input) {
        Ok(Some((value, bytes))) => match input.get(bytes..) {
            Some(rest) => Ok((rest, value)),
            None => cut(input),
        },
        Ok(None) => cut(input),
        Err(error) => forward(error, input),
    }
}

/// Reads one varint from 0 to 2^32 − 1; `what` names the field.
pub(crate) fn varint_u32(what: &'static str) -> impl Fn(&[u8]) -> Parsed<'_, u32> {
    varint_within(what, 0, u32::MAX)
}

/// Reads one varint from `low` to `high`, both of 32 bits; `what` names the field.
///
/// [VARINT-3] Each field states the range of its value; a reader MUST refuse a value outside (error 103 unless the
/// field names another).
pub(crate) fn varint_within(what: &'static str, low: u32, high: u32) -> impl Fn(&[u8]) -> Parsed<'_, u32> {
    move |input| {
        let (rest, value) = varint(input)?;
        match u32::try_from(value) {
            Ok(value) if (low..=high).contains(&value) => Ok((rest, value)),
            _ => fail_with(ErrorKind::FieldOutOfRange, input, range(what, low, high, value)),
        }
    }
}

/// The facts of a number that is out of its range.
pub(crate) fn range(what: &'static str, low: u32, high: u32, found: u64) -> Detail {
    Detail::Range { what, low: low.into(), high: high.into(), found: i64::try_from(found).unwrap_or(i64::MAX) }
}

/// Reads `N` bytes.
pub(crate) fn array<const N: usize>(input: &[u8]) -> Parsed<'_, [u8; N]> {
    match input.split_first_chunk::<N>() {
        Some((value, rest)) => Ok((rest, *value)),
        None => cut(input),
    }
}

/// The bytes `start..end` of `body` without copying them; empty if they do not exist.
pub(crate) fn part(body: &Bytes, start: usize, end: usize) -> Bytes {
    if start <= end && end <= body.len() { body.slice(start..end) } else { Bytes::new() }
}
