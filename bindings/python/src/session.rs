//! What sessions share: one call at a time, panics caught, and an end that the caller sets.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, TryLockError};

use pyo3::prelude::*;

use crate::error::Failure;

/// A session that one call at a time uses. Empty once it is closed.
pub(crate) struct Session<T>(Mutex<Option<T>>);

impl<T> Session<T> {
    pub(crate) fn new(session: T) -> Self {
        Self(Mutex::new(Some(session)))
    }

    /// The session, if no call of another thread has it, none has panicked, and it is not closed.
    pub(crate) fn lock(&self) -> Result<Locked<'_, T>, Failure> {
        match self.0.try_lock() {
            Ok(guard) if guard.is_none() => Err(Failure::Closed),
            Ok(guard) => Ok(Locked(guard)),
            Err(TryLockError::WouldBlock) => Err(Failure::Busy),
            Err(TryLockError::Poisoned(_)) => Err(Failure::Poisoned),
        }
    }

    /// Runs a short call.
    pub(crate) fn call<R>(&self, call: impl FnOnce(&mut T) -> Result<R, Failure>) -> Result<R, Failure> {
        guard(|| self.lock()?.run(call))
    }

    /// Runs a call that codes, while other threads run Python.
    pub(crate) fn detached<R: Send>(
        &self,
        py: Python<'_>,
        call: impl FnOnce(&mut T) -> Result<R, Failure> + Send,
    ) -> Result<R, Failure>
    where
        T: Send,
    {
        py.detach(|| self.call(call))
    }

    /// Frees the session. A second call does nothing.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        match self.0.try_lock() {
            Ok(mut guard) => *guard = None,
            Err(TryLockError::WouldBlock) => return Err(Failure::Busy),
            // What a panic left is never touched again, not even to drop it; the process frees it.
            Err(TryLockError::Poisoned(_)) => {}
        }
        Ok(())
    }
}

/// A session in a call.
pub(crate) struct Locked<'a, T>(MutexGuard<'a, Option<T>>);

impl<T> Locked<'_, T> {
    pub(crate) fn run<R>(&mut self, call: impl FnOnce(&mut T) -> Result<R, Failure>) -> Result<R, Failure> {
        self.0.as_mut().map_or(Err(Failure::Closed), call)
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
