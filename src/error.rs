//! The one error type of the library (spec 7.3).
//!
//! An error says what is wrong ([`Error::kind`], a stable number), who is at fault ([`Error::fault`]), where
//! ([`Error::offset`], in bytes from the first byte of the stream header, spec 2.1), and what was wanted and found
//! ([`Error::detail`]).

#![deny(clippy::float_arithmetic)]

mod detail;

use std::ffi::CStr;
use std::fmt;

pub use detail::{Detail, Dims, Limit, Name};

/// Who has to change something for the error to go away (spec 7.3, the hundreds).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The stream's bytes: errors 1xx to 4xx, and 6xx for payloads.
    Stream,
    /// The model file (7xx), or its pairing with this stream (5xx).
    Model,
    /// The caller of the interface (8xx).
    Caller,
    /// A resource that ran out (9xx).
    Resource,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::Stream => "the stream",
            Fault::Model => "the model",
            Fault::Caller => "the caller",
            Fault::Resource => "a resource limit",
        })
    }
}

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $text:literal;)+) => {
        /// What is wrong: one variant per rule of the specification, each with a stable number (spec 7.3).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        #[repr(u16)]
        pub enum ErrorKind {
            $($(#[doc = $doc])+ $name = $code,)+
        }

        impl ErrorKind {
            /// Every kind, in ascending order of [`ErrorKind::code`].
            pub const ALL: &'static [ErrorKind] = &[$(ErrorKind::$name,)+];

            /// The number of spec 7.3. It never changes its meaning.
            #[must_use]
            pub const fn code(self) -> u16 {
                match self { $(ErrorKind::$name => $code,)+ }
            }

            /// The kind with this number, if there is one.
            #[must_use]
            pub const fn from_code(code: u16) -> Option<ErrorKind> {
                match code { $($code => Some(ErrorKind::$name),)+ _ => None }
            }

            /// One sentence without a full stop, in lower case.
            #[must_use]
            pub const fn message(self) -> &'static str {
                match self { $(ErrorKind::$name => $text,)+ }
            }

            /// [`ErrorKind::message`] with a NUL after it, for callers in C.
            #[must_use]
            pub const fn c_message(self) -> &'static CStr {
                let text = match self { $(ErrorKind::$name => concat!($text, "\0"),)+ };
                match CStr::from_bytes_with_nul(text.as_bytes()) {
                    Ok(text) => text,
                    // No text has a NUL inside; a test compares all of them.
                    Err(_) => c"",
                }
            }
        }
    };
}

kinds! {
    /// [VARINT-1]
    VarintNotShortest = 101, "a varint is not in its shortest form";
    /// [VARINT-2]
    VarintReserved = 102, "a varint begins with the reserved byte 0xFF";
    /// [VARINT-3], [HDR-3]
    FieldOutOfRange = 103, "the value of a field is out of its range";
    /// [HDR-1]
    BadMagic = 201, "the stream does not begin with the magic";
    /// [HDR-2]
    ReaderTooOld = 202, "the stream asks for a later reader version";
    /// [HDR-2]
    BadVersion = 203, "the versions in the header contradict themselves";
    /// [HDR-4]
    HeaderCrcMismatch = 204, "the crc of the stream header differs";
    /// [HDR-5], [HDR-10]
    ReservedHeaderBits = 205, "a reserved flag of the stream header is set";
    /// [HDR-6]
    TrackCount = 206, "the track count is not 1";
    /// [HDR-7]
    OptionalFieldOrder = 207, "the optional header fields are not in ascending order";
    /// [HDR-7]
    UnknownCriticalField = 208, "an unknown critical header field";
    /// [HDR-8]
    HeaderLayout = 209, "a field exceeds the body of the stream header";
    /// [HDR-13]
    WrongBinding = 210, "the stream is written in the other binding: messages, or a byte stream";
    /// [CHUNK-1], [MSG-3], [MSG-4]
    ReservedKind = 301, "a reserved chunk kind";
    /// [CHUNK-2]
    ChunkTooLong = 302, "a chunk body is longer than the limit";
    /// [CHUNK-3], [MSG-3]
    FrameFormNotShortest = 303, "a one-frame chunk is not in its shortest form";
    /// [CHUNK-4]
    KindNotInMode = 304, "a target chunk in joined mode";
    /// [CHUNK-4], [FILE-1]
    SeekIndexMisplaced = 305, "a seek index where there must be none, or none where there must be one";
    /// [CHUNK-5], [CTRL-6]
    ChunkLayout = 306, "a chunk body is too short or too long for its fields";
    /// [CHUNK-7], [MSG-5], [FILE-1]
    DataAfterEnd = 307, "data after the end of the stream";
    /// [MSG-3]
    MessageTooShort = 308, "a typed message of fewer than two bytes";
    /// [BATCH-1]
    TooManyFrames = 309, "a batch has more frames than the limit";
    /// [BATCH-1]
    BatchOfOne = 310, "a batch of one frame";
    /// [BATCH-2]
    LaneCount = 311, "a batch has too many lanes";
    /// [LANE-1]
    LaneTable = 312, "the lane table gives impossible lengths";
    /// [LANE-2]
    LanePadding = 313, "the padding of the lane table is not zero";
    /// [CTRL-6]
    ExactDtype = 314, "an exact frame has an unknown dtype";
    /// [CTRL-7]
    UnknownCriticalExtension = 315, "an unknown critical extension";
    /// [FILE-1]
    BadFooter = 316, "the footer of the file is wrong";
    /// [FILE-2]
    SeekIndexOrder = 317, "the entries of the seek index are not in order";
    /// [DEC-18]
    TooManyCheckpoints = 318, "more checkpoints wait for targets than there may be";
    /// [CTRL-10]
    SideIndicesLeft = 319, "side indices come while earlier ones are left";
    /// [CHUNK-6]
    Truncated = 401, "the input ends before the stream does";
    /// [CHECK-1]
    FrameCheckMismatch = 402, "the check of a frame chunk differs";
    /// [CTRL-1]
    ControlCrcMismatch = 403, "the crc of a control chunk differs";
    /// [CTRL-2], [CTRL-3]
    IndexMismatch = 404, "a control chunk states a frame index that is not the next frame's";
    /// [CTRL-2]
    FrameTotalMismatch = 405, "the end chunk counts another number of frames";
    /// [CTRL-3]
    EpochMismatch = 406, "a context reset names the wrong epoch";
    /// [CTRL-4]
    RewindTarget = 407, "a rewind goes before the context or not back at all";
    /// [CTRL-4]
    RewindTooFar = 408, "a rewind goes back further than the limit";
    /// [DEC-8]
    DigestMismatchW = 409, "the W digest differs";
    /// [DEC-8]
    DigestMismatchY = 410, "the Y digest differs";
    /// [MODEL-11], [DEC-7]
    WrongModel = 501, "the stream was made with another model";
    /// [CTRL-3]
    WrongModelAtReset = 502, "a context reset names another model";
    /// [CTRL-6]
    ExactFrameLength = 503, "the hidden state of an exact frame has the wrong length";
    /// [DEC-6]
    UnknownQuality = 504, "the model does not have this quality";
    /// [HOST-1]
    WrongHost = 505, "the stream does not say that it was made for this host model";
    /// [SIDE-1]
    WrongSideFlag = 506, "the model takes side indices and the stream has none, or the other way round";
    /// [PRED-3]
    PredictionLayered = 507, "the model predicts from decoded frames, which layered mode may lose";
    /// [ENT-1]
    CorruptPayload = 601, "a payload is corrupt";
    /// [SEAL-2]
    SealNotCanonical = 602, "a payload is not sealed canonically";
    /// [ENT-2]
    ValueOutOfRange = 603, "a value is out of its declared range";
    /// [MODE-4]
    PayloadTooLong = 604, "a payload is longer than its frames can need";
    /// [MODEL-1]
    ModelFileSyntax = 701, "the model file is malformed";
    /// [MODEL-2], [MODEL-14]
    ModelTensorMissing = 702, "the model file lacks a tensor";
    /// [MODEL-2], [MODEL-6], [MODEL-13], [MODEL-14]
    ModelTensorShape = 703, "a tensor of the model file has the wrong dtype or shape";
    /// [MODEL-2]
    ModelTensorUnknown = 704, "the model file has an unknown tensor";
    /// [MODEL-3], [MODEL-5], [MODEL-7]
    ModelConfig = 705, "the configuration of the model file is out of range";
    /// [MODEL-4], [MODEL-14]
    ModelRowBound = 706, "a row of weights exceeds its bound";
    /// [MODEL-6], [MODEL-8], [MODEL-9]
    ModelTable = 707, "a table of the model file is malformed";
    /// [MODEL-5], [MODEL-10], [MODEL-14]
    ModelValue = 708, "a value in the model file is out of range";
    /// Spec 6.8.
    HiddenNotFinite = 801, "a hidden state is NaN or infinite";
    /// Interface.
    WrongShape = 802, "an argument has the wrong shape";
    /// Interface.
    AfterEnd = 803, "a call after the end";
    /// Interface.
    NotAvailable = 804, "not available here";
    /// Interface.
    BadConfig = 805, "a bad configuration";
    /// [DEC-14]
    TargetOverdue = 806, "too many frames wait for their target";
    /// [DEC-13]
    FrameNotPending = 807, "the frame does not wait for a target";
    /// Interface.
    SavedSession = 808, "a saved session is damaged or of another version of the library";
    /// Spec 6.8: an encoder that is set to refuse what it would have to clamp.
    HiddenClipped = 809, "hidden states lie out of the range of the quality";
    /// Spec 6.8: Y would depend on the mode of the floating-point unit.
    FloatMode = 810, "the floating-point unit of this thread is not in its default mode";
    /// Interface: only an engine from elsewhere has this fault.
    EngineFault = 811, "the engine gave something other than what it was asked for";
    /// [SIDE-4]
    WrongSideIndices = 812, "side indices are wrong, missing or not wanted";
    /// [MODEL-1], spec 7.2.
    MemoryLimit = 901, "the memory limit does not allow it";
}

impl ErrorKind {
    /// Who is at fault, by the hundreds of the number (spec 7.3).
    #[must_use]
    pub const fn fault(self) -> Fault {
        match self.code() {
            500..=599 | 700..=799 => Fault::Model,
            800..=899 => Fault::Caller,
            900..=999 => Fault::Resource,
            _ => Fault::Stream,
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message())
    }
}

/// One typed error: what, whose fault, where, and the facts.
///
/// It is small and `Copy`, so that a reader that failed can answer every later call with the same error ([ERR-2]). Two
/// errors are equal if number and offset are: the specification fixes these two ([ERR-3]), and not the facts.
#[derive(Clone, Copy, Debug)]
pub struct Error {
    kind: ErrorKind,
    fault: Fault,
    offset: u64,
    /// Whether the offset has a meaning: an error of a call has no place in a stream.
    placed: bool,
    detail: Option<Detail>,
}

/// A `Result` with [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` whose field at fault begins at byte `offset`.
    #[must_use]
    pub const fn new(kind: ErrorKind, offset: u64) -> Error {
        Error { kind, fault: kind.fault(), offset, placed: true, detail: None }
    }

    /// An error of a call, without a place in a stream: the caller or a resource limit is at fault.
    #[must_use]
    pub const fn of_call(kind: ErrorKind) -> Error {
        Error { placed: false, ..Error::new(kind, 0).by_caller() }
    }

    /// The same error with a text for people: which argument is wrong, what to do.
    #[must_use]
    pub const fn with_detail(self, detail: &'static str) -> Error {
        self.with(Detail::Text(detail))
    }

    /// The same error with facts.
    #[must_use]
    pub const fn with(self, detail: Detail) -> Error {
        Error { detail: Some(detail), ..self }
    }

    /// The same error with these facts, or with none.
    #[must_use]
    pub(crate) const fn with_facts(self, detail: Option<Detail>) -> Error {
        Error { detail, ..self }
    }

    /// The same error with another party at fault.
    #[must_use]
    pub const fn blaming(self, fault: Fault) -> Error {
        Error { fault, ..self }
    }

    /// The same error with the caller of a writer or an encoder at fault, who asked for something that no stream may
    /// hold. A resource limit stays a resource limit.
    #[must_use]
    pub const fn by_caller(self) -> Error {
        match self.fault {
            Fault::Resource => self,
            _ => self.blaming(Fault::Caller),
        }
    }

    /// The same error as that of a call, without a place in a stream.
    #[must_use]
    pub const fn of_caller(self) -> Error {
        Error { placed: false, offset: 0, ..self.by_caller() }
    }

    /// The same error at another offset.
    #[must_use]
    pub const fn at(self, offset: u64) -> Error {
        Error { offset, placed: true, ..self }
    }

    /// The same error, `base` bytes later: turns an offset within a chunk into one within the stream.
    #[must_use]
    pub const fn shifted(self, base: u64) -> Error {
        Error { offset: self.offset.saturating_add(base), ..self }
    }

    /// The same error about a limit, which now says whose limit was exceeded: the stream's if the number exceeds what
    /// the stream declares, otherwise this end's own, by its name.
    pub(crate) fn attribute_limit(self, (name, own): (&'static str, u32), declared: u32) -> Error {
        let Some(Detail::Limit { what, found, .. }) = self.detail else { return self };
        if found > u64::from(declared) {
            return self.with(Detail::Limit { what, limit: Limit::Declared, most: declared.into(), found });
        }
        self.with(Detail::Limit { what, limit: Limit::Own(name), most: own.into(), found }).blaming(Fault::Resource)
    }

    /// What is wrong.
    #[must_use]
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The number of [`Error::kind`], spec 7.3.
    #[must_use]
    pub const fn code(&self) -> u16 {
        self.kind.code()
    }

    /// Who is at fault. The hundreds of the number say it ([`ErrorKind::fault`]), with two exceptions: what a writer or
    /// an encoder refuses is its caller's fault, and a reader's own limit is a resource limit.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        self.fault
    }

    /// Bytes from the first byte of the stream header to the first byte of the field at fault ([ERR-3]); for errors 8xx
    /// and 9xx the offset of the chunk being worked on, or 0.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether [`Error::offset`] is a place in a stream or file. The error of a call may have none.
    #[must_use]
    pub const fn has_offset(&self) -> bool {
        self.placed
    }

    /// The facts: what was wanted and found, whose limit it was. Which facts an error has may change between releases.
    #[must_use]
    pub const fn detail(&self) -> Option<Detail> {
        self.detail
    }

    /// The digests of an error 501 or 505: this end's, and the stream's if it states one.
    #[must_use]
    pub fn digests(&self) -> Option<([u8; 32], Option<[u8; 32]>)> {
        match self.detail {
            Some(Detail::Digest { wanted, found, .. }) => Some((wanted, found)),
            _ => None,
        }
    }

    /// Whose limit was exceeded, if the error is about a limit.
    #[must_use]
    pub fn limit(&self) -> Option<Limit> {
        self.detail.and_then(|detail| detail.limit())
    }
}

impl PartialEq for Error {
    fn eq(&self, other: &Error) -> bool {
        (self.kind, self.offset) == (other.kind, other.offset)
    }
}

impl Eq for Error {}

impl std::hash::Hash for Error {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.kind, self.offset).hash(state);
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)?;
        if let Some(detail) = self.detail {
            write!(f, " ({detail})")?;
        }
        if self.placed {
            write!(f, " at byte {}", self.offset)?;
        }
        write!(f, "; at fault: {}; error {}", self.fault, self.code())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation
)]
mod tests {
    use super::*;

    #[test]
    fn numbers_ascend_and_lead_back_to_their_kind() {
        let codes: Vec<u16> = ErrorKind::ALL.iter().map(|kind| kind.code()).collect();
        assert!(codes.windows(2).all(|pair| pair[0] < pair[1]));
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::from_code(kind.code()), Some(*kind));
            assert_eq!(kind.c_message().to_str(), Ok(kind.message()));
        }
        assert_eq!(ErrorKind::from_code(0), None);
        assert_eq!(ErrorKind::from_code(320), None);
        assert_eq!(codes.len(), 3 + 10 + 19 + 10 + 7 + 4 + 8 + 12 + 1);
    }

    #[test]
    fn every_number_of_the_specification_has_a_kind() {
        let spec = include_str!("../spec/07-limits-errors.md");
        let numbers: Vec<u16> = spec.lines().filter_map(|line| line.get(2..5)?.parse().ok()).collect();
        let codes: Vec<u16> = ErrorKind::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(numbers, codes);
    }

    #[test]
    fn display_says_what_where_and_who() {
        let error = Error::new(ErrorKind::FrameCheckMismatch, 5).shifted(7).with_detail("of a batch");
        assert_eq!(
            error.to_string(),
            "the check of a frame chunk differs (of a batch) at byte 12; at fault: the stream; error 402"
        );
        assert!(error.has_offset() && !Error::of_call(ErrorKind::AfterEnd).has_offset());
        assert_eq!(Error::new(ErrorKind::MemoryLimit, 0).fault(), Fault::Resource);
        assert_eq!(Error::new(ErrorKind::WrongHost, 0).fault(), Fault::Model);
        assert_eq!(Error::new(ErrorKind::AfterEnd, 0).fault(), Fault::Caller);
    }
}
