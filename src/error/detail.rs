//! The facts of an error: what was wanted, what was found, and whose limit it was.

use std::fmt;

/// Who has set the limit that was exceeded (spec 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Limit {
    /// The stream header declares it, and the stream broke its own declaration.
    Declared,
    /// This end set it, in the setting of this name. A larger value lets the input pass.
    Own(&'static str),
    /// The format fixes it.
    Format,
}

/// The name of a tensor; an error keeps its first 47 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name {
    len: u8,
    bytes: [u8; Name::KEPT],
}

impl Name {
    const KEPT: usize = 47;

    /// Keeps a name, or its beginning.
    #[must_use]
    pub fn new(name: &str) -> Name {
        let mut bytes = [0; Name::KEPT];
        let mut len = 0_u8;
        for (to, from) in bytes.iter_mut().zip(name.bytes()) {
            *to = from;
            len = len.saturating_add(1);
        }
        // A longer name is cut before the character that does not fit.
        while len > 0 && !name.is_char_boundary(usize::from(len)) {
            len = len.saturating_sub(1);
        }
        Name { len, bytes }
    }

    /// The name, or its beginning.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.bytes.get(..usize::from(self.len)).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or("")
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name may come from a file, so characters that a terminal would act on are escaped.
        write!(f, "{}", self.as_str().escape_debug())
    }
}

/// The dimensions of a tensor; an error keeps the first four, up to 2^32 − 1 each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Dims {
    rank: u8,
    sizes: [u32; 4],
}

impl Dims {
    /// Keeps these dimensions.
    #[must_use]
    pub fn new(dims: &[usize]) -> Dims {
        let mut sizes = [0; 4];
        for (to, from) in sizes.iter_mut().zip(dims) {
            *to = u32::try_from(*from).unwrap_or(u32::MAX);
        }
        Dims { rank: u8::try_from(dims.len()).unwrap_or(u8::MAX), sizes }
    }

    /// The number of dimensions.
    #[must_use]
    pub const fn rank(&self) -> u8 {
        self.rank
    }

    /// The first dimensions, at most four.
    #[must_use]
    pub fn sizes(&self) -> &[u32] {
        self.sizes.get(..usize::from(self.rank)).unwrap_or(&self.sizes)
    }
}

impl fmt::Display for Dims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, size) in self.sizes().iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{size}")?;
        }
        f.write_str(if usize::from(self.rank) > self.sizes.len() { ", …]" } else { "]" })
    }
}

/// What an error knows in addition to its number and its offset.
///
/// *wanted* is what this end has, or what the rest of the input requires; *found* is what is in the input, or what the
/// caller gave. Ranges include both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Detail {
    /// A text: which argument is wrong, what to do.
    Text(&'static str),
    /// A number is not the one that it must be.
    Number {
        /// The number's name.
        what: &'static str,
        /// The only valid one.
        wanted: u64,
        /// The one that was found.
        found: u64,
    },
    /// A number is out of its range.
    Range {
        /// The number's name.
        what: &'static str,
        /// The smallest valid one.
        low: i64,
        /// The largest valid one.
        high: i64,
        /// The one that was found.
        found: i64,
    },
    /// A byte has a value that means nothing here.
    Byte {
        /// Which byte.
        what: &'static str,
        /// Its value.
        found: u8,
    },
    /// An id has no meaning in this version.
    Id {
        /// The id's name.
        what: &'static str,
        /// The id.
        found: u64,
    },
    /// A number is above a limit.
    Limit {
        /// What is counted.
        what: &'static str,
        /// Whose limit.
        limit: Limit,
        /// The largest number that it allows.
        most: u64,
        /// The number that was found.
        found: u64,
    },
    /// A crc, a check or one of a stream's two digests.
    Crc {
        /// The one computed from what it covers.
        wanted: u32,
        /// The one in the stream.
        found: u32,
    },
    /// A SHA-256: the fingerprint of a model or the digest of a host.
    Digest {
        /// Which of them.
        what: &'static str,
        /// This end's.
        wanted: [u8; 32],
        /// The stream's; `None` if it states none.
        found: Option<[u8; 32]>,
    },
    /// The first bytes of a model's fingerprint.
    Prefix {
        /// Those of the current model.
        wanted: [u8; 8],
        /// Those in the stream.
        found: [u8; 8],
    },
    /// An argument is not a whole number of frames.
    Shape {
        /// The argument.
        what: &'static str,
        /// Values of a frame: E.
        width: u64,
        /// Values given.
        found: u64,
    },
    /// A tensor of frames is not \[T, E\] with T ≥ 1.
    Frames {
        /// The argument.
        what: &'static str,
        /// E.
        width: u64,
        /// The shape that was given.
        found: Dims,
    },
    /// A hidden state's value is NaN or infinite.
    Element {
        /// Which frame of the call, from 0.
        frame: u64,
        /// Which of its E values, from 0.
        element: u64,
        /// The value's bits, as [`f32::to_bits`] gives them.
        bits: u32,
    },
    /// An integer to encode is out of the range that the model declares.
    Value {
        /// Which frame of the call, from 0.
        frame: u64,
        /// Which of its values, from 0.
        element: u64,
        /// The smallest value.
        low: i16,
        /// The largest value.
        high: i16,
        /// The value given.
        found: i16,
    },
    /// Hidden states are out of the range of the quality.
    Clipped {
        /// How many values.
        count: u64,
        /// The frame of the first one, counted in the call from 0.
        frame: u64,
        /// Which of the frame's E values it is, from 0.
        element: u64,
    },
    /// A setting is out of its range.
    Setting {
        /// Its name, as the caller writes it.
        name: &'static str,
        /// The smallest valid value.
        low: u64,
        /// The largest valid value.
        high: u64,
        /// The value given.
        found: u64,
    },
    /// A setting that is not an integer is out of its range.
    Float {
        /// Its name, as the caller writes it.
        name: &'static str,
        /// Its range.
        wanted: &'static str,
        /// The value's bits, as [`f32::to_bits`] gives them.
        bits: u32,
    },
    /// What is wrong with a tensor of a model file.
    Tensor {
        /// Its name.
        name: Name,
        /// What is wrong; empty if the error's number says it.
        problem: &'static str,
    },
    /// A tensor of a model file has another shape.
    TensorShape {
        /// Its name.
        name: Name,
        /// The shape that it must have.
        wanted: Dims,
        /// The one that it has.
        found: Dims,
    },
    /// A tensor of a model file has another type.
    TensorDtype {
        /// Its name.
        name: Name,
        /// The type that it must have.
        wanted: &'static str,
        /// The one that it has.
        found: &'static str,
    },
}

impl Detail {
    /// The number that was wanted, or the largest that is allowed, if there is one.
    #[must_use]
    pub fn wanted(&self) -> Option<u64> {
        match *self {
            Detail::Number { wanted, .. } => Some(wanted),
            Detail::Limit { most, .. } => Some(most),
            Detail::Setting { high, .. } => Some(high),
            Detail::Range { high, .. } => u64::try_from(high).ok(),
            Detail::Crc { wanted, .. } => Some(wanted.into()),
            Detail::Shape { width, .. } | Detail::Frames { width, .. } => Some(width),
            _ => None,
        }
    }

    /// The number that was found, if there is one.
    #[must_use]
    pub fn found(&self) -> Option<u64> {
        match *self {
            Detail::Number { found, .. }
            | Detail::Limit { found, .. }
            | Detail::Setting { found, .. }
            | Detail::Shape { found, .. } => Some(found),
            Detail::Range { found, .. } => u64::try_from(found).ok(),
            Detail::Crc { found, .. } => Some(found.into()),
            Detail::Byte { found, .. } => Some(found.into()),
            Detail::Id { found, .. } => Some(found),
            Detail::Clipped { count, .. } => Some(count),
            _ => None,
        }
    }

    /// The frame and the element at fault, each from 0, if a single value is at fault.
    #[must_use]
    pub fn element(&self) -> Option<(u64, u64)> {
        match *self {
            Detail::Element { frame, element, .. }
            | Detail::Value { frame, element, .. }
            | Detail::Clipped { frame, element, .. } => Some((frame, element)),
            _ => None,
        }
    }

    /// Whose limit was exceeded, if the detail is about a limit.
    #[must_use]
    pub fn limit(&self) -> Option<Limit> {
        match *self {
            Detail::Limit { limit, .. } => Some(limit),
            _ => None,
        }
    }

    /// The same facts with the limit set by someone else.
    pub(crate) fn with_limit(self, limit: Limit) -> Detail {
        match self {
            Detail::Limit { what, most, found, .. } => Detail::Limit { what, limit, most, found },
            other => other,
        }
    }
}

/// The first 16 hexadecimal digits of a digest.
struct Short<'a>(&'a [u8]);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(8).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        if self.0.len() > 8 { f.write_str("…") } else { Ok(()) }
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Detail::Text(text) => f.write_str(text),
            Detail::Number { what, wanted, found } => write!(f, "{what}: {wanted} wanted, {found} found"),
            Detail::Range { what, low, high, found } if low == high => {
                write!(f, "{what}: {low} wanted, {found} found")
            }
            Detail::Range { what, low, high, found } => write!(f, "{what}: {low} to {high} wanted, {found} found"),
            Detail::Byte { what, found } => write!(f, "{what} 0x{found:02X}"),
            Detail::Id { what, found } => write!(f, "{what} {found}"),
            Detail::Limit { what, limit, most, found } => {
                write!(f, "{found} {what}, ")?;
                match limit {
                    Limit::Declared => write!(f, "the stream header declares at most {most}"),
                    Limit::Own(setting) => write!(f, "this end allows at most {most}: raise {setting}"),
                    Limit::Format => write!(f, "the format allows at most {most}"),
                }
            }
            Detail::Crc { wanted, found } => write!(f, "{wanted:#x} wanted, {found:#x} found"),
            Detail::Digest { what, wanted, found: Some(found) } => {
                write!(f, "{what}: {} wanted, {} found", Short(wanted), Short(found))
            }
            Detail::Digest { what, wanted, found: None } => write!(f, "{what}: {} wanted, none found", Short(wanted)),
            Detail::Prefix { wanted, found } => {
                write!(f, "fingerprint prefix: {} wanted, {} found", Short(wanted), Short(found))
            }
            Detail::Shape { what, width, found: 0 } => write!(f, "{what} is empty, a frame has {width} values"),
            Detail::Shape { what, width, found } => {
                write!(f, "{what} has {found} values, which are no whole frames of {width}")
            }
            Detail::Frames { what, width, found } => {
                write!(f, "{what} is {found}, not [T, {width}] with T of 1 or more")
            }
            Detail::Element { frame, element, bits } => {
                write!(f, "{} in frame {frame}, element {element}", f32::from_bits(*bits))
            }
            Detail::Value { frame, element, low, high, found } => {
                write!(f, "{found} in frame {frame}, element {element}: {low} to {high} wanted")
            }
            Detail::Clipped { count, frame, element } => {
                write!(f, "{count} values, the first in frame {frame}, element {element}")
            }
            Detail::Setting { name, low, high, found } => write!(f, "{name} is {found}, not {low} to {high}"),
            Detail::Float { name, wanted, bits } => write!(f, "{name} is {}, not {wanted}", f32::from_bits(*bits)),
            Detail::Tensor { name, problem: "" } => write!(f, "{name}"),
            Detail::Tensor { name, problem } => write!(f, "{name}: {problem}"),
            Detail::TensorShape { name, wanted, found } => write!(f, "{name}: {wanted} wanted, {found} found"),
            Detail::TensorDtype { name, wanted, found } => write!(f, "{name}: {wanted} wanted, {found} found"),
        }
    }
}
