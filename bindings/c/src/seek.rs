//! Seeking in a file: the seek index leads to a chunk at which to join.

use midspan::stream::Binding;
use midspan::wire::{SeekEntry, SeekIndex, Tail};

use crate::header::header_of;
use crate::memory::{input, out};
use crate::reader::midspan_seek_entry;
use crate::result::{Failure, Reason, guard, midspan_result, to_u64};

/// Finds the place in a file at which to join, so as to read the frame with the absolute index `frame` (spec 2.10).
///
/// `header` holds the first `header_len` bytes of the file, which must include the stream header. `tail` holds the last
/// `tail_len` bytes of the file, which must include the seek index and the footer after it. `file_len` is the number of
/// bytes of the file.
///
/// `*entry` gets the last place whose frame is not above `frame`. Pass its offset and its frame to
/// `midspan_decoder_join` or `midspan_reader_join`, and push the file's bytes from that offset on. If there is no such
/// place, the entry has offset 0 and frame 0: begin with `midspan_decoder_new` and the file's first byte. The index is
/// not compared with the chunks: a join fails if no context begins there. It does not know the last frame either: a
/// frame after the end gives the last place.
///
/// If the tail is too short, the result is MIDSPAN_ERROR_SMALL_BUFFER, and `wanted` of `midspan_last_error` is the
/// needed `tail_len`. A tail of 12 bytes is enough to learn it.
///
/// Errors: those of a header (101 to 210, MIDSPAN_ERROR_TRUNCATED for one that is cut); MIDSPAN_ERROR_NOT_AVAILABLE for
/// a stream that is no file; MIDSPAN_ERROR_BAD_FOOTER, MIDSPAN_ERROR_SEEK_INDEX_MISPLACED,
/// MIDSPAN_ERROR_SEEK_INDEX_ORDER and other errors of a chunk (101 to 403) for an index that is damaged or cut;
/// MIDSPAN_ERROR_SMALL_BUFFER; MIDSPAN_ERROR_INVALID_ARGUMENT, also for a `file_len` below `tail_len`;
/// MIDSPAN_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_file_seek(
    header: *const u8,
    header_len: usize,
    tail: *const u8,
    tail_len: usize,
    file_len: u64,
    frame: u64,
    entry: *mut midspan_seek_entry,
) -> midspan_result {
    guard(|| {
        // SAFETY: the header's rules on arguments.
        let (header, tail, entry) =
            unsafe { (input(header, header_len, "header")?, input(tail, tail_len, "tail")?, out(entry, "entry")?) };
        let header = header_of(header, Binding::ByteStream)?;
        if file_len < to_u64(tail.len()) {
            let reason = Reason::Below { found: file_len, least: to_u64(tail.len()) };
            return Err(Failure::Argument("file_len", reason));
        }
        let index = match SeekIndex::from_tail(&header, tail, file_len)? {
            Tail::Index(index) => index,
            Tail::Short { wanted } => {
                return Err(Failure::SmallBuffer { what: "tail", needed: wanted, capacity: tail.len() });
            }
        };
        let found = index.find(frame).unwrap_or(SeekEntry { frame: 0, offset: 0 });
        entry.set(midspan_seek_entry { frame: found.frame, offset: found.offset });
        Ok(())
    })
}
