//! The last error of a thread, in C's form.

use std::ffi::c_char;

use crate::memory::out;
use crate::result::{guard, last, midspan_fault, midspan_last_error_message, midspan_limit_owner, midspan_result};

/// The facts of the last error of a thread.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct midspan_error {
    /// Its number; 0 if no call of this thread has failed.
    pub code: midspan_result,
    /// Who is at fault.
    pub fault: midspan_fault,
    /// Where the error is, if `has_offset` is 1; else 0. It counts bytes from the first byte of the stream header, or
    /// of the model file for 7xx. For an error of a reader, a decoder or a model file it is the first byte of the field
    /// at fault. For 8xx and 9xx, and for an error of a writer or an encoder, it is the first byte of the chunk that
    /// was worked on.
    pub offset: u64,
    /// 1 if the error has a place. An error of a call may have none.
    pub has_offset: u32,
    /// 1 if `wanted` holds a number, else 0.
    pub has_wanted: u32,
    /// 1 if `found` holds a number, else 0.
    pub has_found: u32,
    /// The number that was wanted, or the largest that is allowed. With MIDSPAN_ERROR_SMALL_BUFFER it is the needed
    /// size, in the units of the call's capacity.
    pub wanted: u64,
    /// The number that was found. One above 2^63 - 1 may be reported as 2^63 - 1. With MIDSPAN_ERROR_SMALL_BUFFER it is
    /// the capacity.
    pub found: u64,
    /// 1 if a single value is at fault, and `frame` and `element` say which; else 0.
    pub has_element: u32,
    /// Whose limit was exceeded.
    pub limit_owner: midspan_limit_owner,
    /// The frame of that value, counted in the call from 0.
    pub frame: u64,
    /// Which of the frame's values it is, from 0.
    pub element: u64,
    /// 1 if `wanted_digest` holds a SHA-256, else 0.
    pub has_wanted_digest: u32,
    /// 1 if `found_digest` holds a SHA-256, else 0. An error may have a wanted digest alone.
    pub has_found_digest: u32,
    /// With MIDSPAN_ERROR_WRONG_MODEL the fingerprint of this end's model, with MIDSPAN_ERROR_WRONG_HOST the host
    /// digest of this end's settings.
    pub wanted_digest: [u8; 32],
    /// With MIDSPAN_ERROR_WRONG_MODEL the fingerprint that the stream or the saved session names: load that model. With
    /// MIDSPAN_ERROR_WRONG_HOST the host digest that the stream states, if it states one.
    pub found_digest: [u8; 32],
    /// One sentence for people, NUL-terminated, with what was wanted and found, whose fault it is and where. It belongs
    /// to the thread and is valid until the next call that fails in it, or until the thread ends.
    pub message: *const c_char,
}

/// Writes the facts of the last call that failed in this thread to `error`. `code` is 0 if none has failed.
///
/// Errors: MIDSPAN_ERROR_NULL_POINTER.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn midspan_last_error(error: *mut midspan_error) -> midspan_result {
    let facts = last();
    guard(|| {
        // SAFETY: the header's rule on places for results.
        let error = unsafe { out(error, "error") }?;
        let number = |has: Option<u64>| (u32::from(has.is_some()), has.unwrap_or(0));
        let ((has_wanted, wanted), (has_found, found)) = (number(facts.wanted), number(facts.found));
        let (frame, element) = facts.element.unwrap_or((0, 0));
        let digest = |has: Option<[u8; 32]>| (u32::from(has.is_some()), has.unwrap_or_default());
        let (has_wanted_digest, wanted_digest) = digest(facts.digests.map(|(wanted, _)| wanted));
        let (has_found_digest, found_digest) = digest(facts.digests.and_then(|(_, found)| found));
        error.set(midspan_error {
            code: facts.code,
            fault: facts.fault,
            offset: facts.offset.unwrap_or(0),
            has_offset: facts.offset.is_some().into(),
            has_wanted,
            has_found,
            wanted,
            found,
            has_element: facts.element.is_some().into(),
            limit_owner: facts.limit,
            frame,
            element,
            has_wanted_digest,
            has_found_digest,
            wanted_digest,
            found_digest,
            message: midspan_last_error_message(),
        });
        Ok(())
    })
}
