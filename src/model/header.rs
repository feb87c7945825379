//! The header of a safetensors file alone, for files that are not in memory.
//!
//! The library safetensors needs the whole file. A host's file may be larger than memory, and its digest needs only
//! names, dtypes, shapes and offsets. The library accepts everything that is accepted here.

#![deny(clippy::float_arithmetic)]

use crate::error::{Detail, Error, ErrorKind, Limit, Name, Result};

/// Bytes of the length before a header.
pub(crate) const LENGTH_BYTES: usize = 8;
/// The largest header accepted, in bytes: room for some 100,000 tensors.
pub(crate) const HEADER_MAX: u64 = 1 << 24;

/// What a header says about one tensor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<u64>,
    /// Where its data begin and end, counted from the first byte after the header.
    pub offsets: (u64, u64),
}

/// A header's tensors, in ascending order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    entries: Vec<Entry>,
}

impl Header {
    /// The length of a header, which comes before it.
    pub(crate) fn length(bytes: [u8; LENGTH_BYTES]) -> Result<u64> {
        let found = u64::from_le_bytes(bytes);
        if found > HEADER_MAX {
            let (what, limit) = ("bytes in the header of a safetensors file", Limit::Format);
            let detail = Detail::Limit { what, limit, most: HEADER_MAX, found };
            return Err(Error::new(ErrorKind::ModelFileSyntax, 0).with(detail));
        }
        Ok(found)
    }

    /// Splits a file in memory into header and data.
    pub(crate) fn split(bytes: &[u8]) -> Result<(Header, &[u8])> {
        let (length, rest) = bytes.split_first_chunk().ok_or_else(|| malformed("it is shorter than 8 bytes"))?;
        let split = usize::try_from(Header::length(*length)?).ok().and_then(|length| rest.split_at_checked(length));
        let (text, data) = split.ok_or_else(|| malformed("its header is longer than the file"))?;
        Ok((Header::parse(text)?, data))
    }

    /// Reads a header's text.
    pub(crate) fn parse(text: &[u8]) -> Result<Header> {
        let text = std::str::from_utf8(text).map_err(|_| malformed("its header is no UTF-8"))?;
        let mut json = Json { rest: text };
        let mut entries = Vec::new();
        json.object(&mut |json, name| {
            if name == "__metadata__" {
                return json.object(&mut |json, _| json.string().map(drop));
            }
            let (mut dtype, mut shape, mut offsets) = (None, None, None);
            json.object(&mut |json, key| {
                match key.as_str() {
                    "dtype" if dtype.is_none() => dtype = Some(json.string()?),
                    "shape" if shape.is_none() => shape = Some(json.numbers()?),
                    "data_offsets" if offsets.is_none() => offsets = Some(json.numbers()?),
                    _ => return None,
                }
                Some(())
            })?;
            let offsets = match offsets?.as_slice() {
                [start, end] if start <= end => (*start, *end),
                _ => return None,
            };
            entries.push(Entry { name, dtype: dtype?, shape: shape?, offsets });
            Some(())
        })
        .filter(|()| json.rest.trim_start_matches(is_space).is_empty())
        .ok_or_else(|| malformed("its header is not the JSON of a safetensors file"))?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let twice = entries.windows(2).find_map(|pair| match pair {
            [a, b] if a.name == b.name => Some(&a.name),
            _ => None,
        });
        match twice {
            Some(name) => {
                let detail = Detail::Tensor { name: Name::new(name), problem: "the name stands twice" };
                Err(Error::new(ErrorKind::ModelFileSyntax, 0).with(detail))
            }
            None => Ok(Header { entries }),
        }
    }

    /// The tensors of a file with this many bytes after its header; they must cover these without gap or overlap.
    pub(crate) fn tensors(&self, length: u64) -> Result<&[Entry]> {
        let mut places: Vec<(u64, u64)> = self.entries.iter().map(|entry| entry.offsets).collect();
        places.sort_unstable();
        let mut next = 0;
        for (start, end) in places {
            if start != next {
                return Err(malformed("a tensor overlaps another one, or leaves a gap"));
            }
            next = end;
        }
        if next == length { Ok(&self.entries) } else { Err(malformed("the tensors do not end where the file ends")) }
    }
}

fn malformed(problem: &'static str) -> Error {
    Error::new(ErrorKind::ModelFileSyntax, 0).with_detail(problem)
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r')
}

/// The rest of a text. Every method returns `None` if the text does not continue with what it reads.
struct Json<'a> {
    rest: &'a str,
}

impl Json<'_> {
    /// Takes a mark, and any space before it.
    fn mark(&mut self, mark: char) -> bool {
        match self.rest.trim_start_matches(is_space).strip_prefix(mark) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Reads an object. `value` reads each of its values, and is given the key.
    fn object(&mut self, value: &mut dyn FnMut(&mut Self, String) -> Option<()>) -> Option<()> {
        self.mark('{').then_some(())?;
        if self.mark('}') {
            return Some(());
        }
        loop {
            let key = self.string()?;
            self.mark(':').then_some(())?;
            value(self, key)?;
            if self.mark('}') {
                return Some(());
            }
            self.mark(',').then_some(())?;
        }
    }

    /// Reads an array of integers that are not negative.
    fn numbers(&mut self) -> Option<Vec<u64>> {
        self.mark('[').then_some(())?;
        let mut numbers = Vec::new();
        if self.mark(']') {
            return Some(numbers);
        }
        loop {
            let rest = self.rest.trim_start_matches(is_space);
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let (digits, behind) = rest.split_at_checked(end)?;
            // JSON has no leading zeros; a number beyond u64 does not parse.
            if digits.len() > 1 && digits.starts_with('0') {
                return None;
            }
            numbers.push(digits.parse().ok()?);
            self.rest = behind;
            if self.mark(']') {
                return Some(numbers);
            }
            self.mark(',').then_some(())?;
        }
    }

    /// Reads a string.
    fn string(&mut self) -> Option<String> {
        self.mark('"').then_some(())?;
        let mut text = String::new();
        loop {
            let end = self.rest.find(['"', '\\'])?;
            let (plain, behind) = self.rest.split_at_checked(end)?;
            // Control characters must be escaped.
            if plain.bytes().any(|byte| byte < 0x20) {
                return None;
            }
            text.push_str(plain);
            self.rest = behind;
            let mut marks = self.rest.chars();
            if marks.next()? == '"' {
                self.rest = marks.as_str();
                return Some(text);
            }
            let escaped = marks.next()?;
            self.rest = marks.as_str();
            text.push(match escaped {
                '"' | '\\' | '/' => escaped,
                'b' => '\u{8}',
                'f' => '\u{c}',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => self.code_point()?,
                _ => return None,
            });
        }
    }

    /// Reads what follows `\u`: four digits, or twice four for a character of two UTF-16 units.
    fn code_point(&mut self) -> Option<char> {
        let first = self.unit()?;
        if !(0xD800..0xDC00).contains(&first) {
            return char::from_u32(first);
        }
        self.rest = self.rest.strip_prefix("\\u")?;
        let second = self.unit()?.checked_sub(0xDC00).filter(|low| *low < 0x400)?;
        char::from_u32(0x1_0000_u32.checked_add((first & 0x3FF) << 10)?.checked_add(second)?)
    }

    fn unit(&mut self) -> Option<u32> {
        let (digits, behind) = self.rest.split_at_checked(4)?;
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        self.rest = behind;
        u32::from_str_radix(digits, 16).ok()
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]
mod tests {
    use proptest::prelude::*;
    use safetensors::SafeTensors;

    use super::*;

    /// A file with this header and this many bytes after it.
    fn file(header: &str, data: usize) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![5; data]].concat()
    }

    fn accepts(bytes: &[u8]) -> bool {
        let own =
            Header::split(bytes).and_then(|(header, data)| header.tensors(data.len() as u64).map(<[Entry]>::to_vec));
        let Ok(entries) = own else { return false };
        let (_, metadata) = SafeTensors::read_metadata(bytes).expect("what is accepted here the library accepts");
        let read_by_library = |entry: &Entry| {
            let info = metadata.info(&entry.name).expect("the same names");
            let shape: Vec<u64> = info.shape.iter().map(|size| *size as u64).collect();
            let offsets = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
            Entry { name: entry.name.clone(), dtype: info.dtype.to_string(), shape, offsets }
        };
        assert!(entries.iter().all(|entry| read_by_library(entry) == *entry));
        assert_eq!(metadata.tensors().len(), entries.len());
        true
    }

    #[test]
    fn headers_as_the_library_has_them() {
        for (header, data) in [
            (r#"{}"#, 0),
            (r#" { } "#, 0),
            (r#"{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#, 4),
            (
                r#"{"b":{"data_offsets":[4,10],"shape":[3],"dtype":"I16"},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#,
                10,
            ),
            (
                r#"{"__metadata__":{"x":"{}[],\"","y":""},"\u00e9\ud83d\ude00\/\n":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#,
                0,
            ),
        ] {
            assert!(accepts(&file(header, data)), "{header}");
            assert!(!accepts(&file(header, data + 1)), "{header}");
            let cut = file(header.trim_end().strip_suffix('}').unwrap(), data);
            assert!(!accepts(&cut), "{header}");
        }
    }

    #[test]
    fn what_is_no_header() {
        let entry = |fields: &str| format!(r#"{{"a":{{{fields}}}}}"#);
        for header in [
            String::from("[]"),
            String::from("{} {}"),
            String::from(r#"{"__metadata__":{"x":1}}"#),
            entry(r#""dtype":"F32","shape":[1]"#),
            entry(r#""dtype":"F32","shape":[1],"data_offsets":[0,4,4]"#),
            entry(r#""dtype":"F32","shape":[1],"data_offsets":[4,0]"#),
            entry(r#""dtype":"F32","shape":[01],"data_offsets":[0,4]"#),
            entry(r#""dtype":"F32","shape":[-1],"data_offsets":[0,4]"#),
            entry(r#""dtype":"F32","shape":[1,],"data_offsets":[0,4]"#),
            entry(r#""dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,4]"#),
            entry(r#""dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]"#),
            entry("\"dtype\":\"F\n32\",\"shape\":[1],\"data_offsets\":[0,4]"),
            String::from(r#"{"\ud83d":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#),
            String::from(r#"{"\u+123":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#),
            String::from(
                r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[0],"data_offsets":[4,4]}}"#,
            ),
            String::from(
                r#"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]},"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]}}"#,
            ),
        ] {
            let bytes = file(&header, 4);
            let outcome =
                Header::split(&bytes).and_then(|(header, data)| header.tensors(data.len() as u64).map(<[_]>::len));
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::ModelFileSyntax, "{header}");
        }
        for bytes in
            [&[][..], &[1, 0, 0, 0, 0, 0, 0], &[1, 0, 0, 0, 0, 0, 0, 0], &[0xff; 9], &[1, 0, 0, 0, 0, 0, 0, 0, 0xff]]
        {
            assert_eq!(Header::split(bytes).unwrap_err().kind(), ErrorKind::ModelFileSyntax);
        }
    }

    proptest! {
        /// Headers one change away from a good one: never accepted if the library refuses them, and read as it reads
        /// them.
        #[test]
        fn changed_headers(place in 0_usize..200, byte in 0_u8..128) {
            let header = r#"{"__metadata__":{"k":"v\u0041"},"b\n":{"dtype":"I16","shape":[3,1],"data_offsets":[4,10]},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}"#;
            let mut bytes = file(header, 10);
            let at = 8 + place % header.len();
            bytes[at] = byte;
            if let Ok((header, data)) = Header::split(&bytes) {
                // An unknown dtype is for the digest to refuse.
                let known = header.entries.iter().all(|entry| ["F32", "I16"].contains(&entry.dtype.as_str()));
                let sizes = header.entries.iter().all(|entry| {
                    let each = if entry.dtype == "F32" { 4 } else { 2 };
                    entry.offsets.1 - entry.offsets.0 == each * entry.shape.iter().product::<u64>()
                });
                if known && sizes && header.tensors(data.len() as u64).is_ok() {
                    prop_assert!(accepts(&bytes));
                }
            }
        }
    }
}
