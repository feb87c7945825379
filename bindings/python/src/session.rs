//! What sessions share: one call at a time, panics caught, and an end that the caller sets. Nothing here is Python's, so
//! that `tests/session.rs` can test it alone: no call from Python panics.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, TryLockError};

use crate::error::Failure;
use midspan::error::ErrorKind;

/// A session that one call at a time uses. Empty once it is closed.
pub(crate) struct Session<T>(Mutex<Option<T>>);

/// What a panic left is never touched again, not even to drop it; the process frees it.
impl<T> Drop for Session<T> {
    fn drop(&mut self) {
        if let Err(poisoned) = self.0.get_mut() {
            std::mem::forget(poisoned.into_inner().take());
        }
    }
}

impl<T> Session<T> {
    pub(crate) fn new(session: T) -> Self {
        Self(Mutex::new(Some(session)))
    }

    /// The session, if no call of another thread has it, none has panicked, and it is not closed.
    pub(crate) fn lock(&self) -> Result<Locked<'_, T>, Failure> {
        match self.0.try_lock() {
            Ok(guard) if guard.is_none() => Err(closed()),
            Ok(guard) => Ok(Locked(guard)),
            Err(TryLockError::WouldBlock) => Err(Failure::Busy),
            Err(TryLockError::Poisoned(_)) => Err(Failure::Poisoned),
        }
    }

    /// Runs a short call.
    pub(crate) fn call<R>(&self, call: impl FnOnce(&mut T) -> Result<R, Failure>) -> Result<R, Failure> {
        guard(|| self.lock()?.run(call))
    }

    /// Frees the session. A second call does nothing.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        match self.0.try_lock() {
            Ok(mut guard) => *guard = None,
            Err(TryLockError::WouldBlock) => return Err(Failure::Busy),
            Err(TryLockError::Poisoned(_)) => {}
        }
        Ok(())
    }
}

fn closed() -> Failure {
    Failure::Caller(ErrorKind::AfterEnd, String::from("the session is closed"))
}

/// A session in a call.
pub(crate) struct Locked<'a, T>(MutexGuard<'a, Option<T>>);

impl<T> Locked<'_, T> {
    pub(crate) fn run<R>(&mut self, call: impl FnOnce(&mut T) -> Result<R, Failure>) -> Result<R, Failure> {
        self.0.as_mut().map_or_else(|| Err(closed()), call)
    }

    /// `None` never, because a closed session cannot be locked.
    pub(crate) fn get(&mut self) -> Option<&mut T> {
        self.0.as_mut()
    }
}

/// Turns a panic into a failure. The sessions that the call locked are poisoned by then.
pub(crate) fn guard<R>(call: impl FnOnce() -> Result<R, Failure>) -> Result<R, Failure> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|payload| {
        let text = text_of(&*payload);
        // What was panicked with is not dropped: its destructor may be anything.
        std::mem::forget(payload);
        Err(Failure::Panic(text))
    })
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no text").to_string()
}
