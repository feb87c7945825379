//! The caller's memory: arguments of C made into slices, places for results, and handles.

use std::sync::{Mutex, MutexGuard, TryLockError};

use crate::result::{Failure, Reason};

/// A place for a result.
#[must_use]
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    pub(crate) fn set(&self, value: T) {
        // SAFETY: whoever called `out` promised that the place can be written to as long as this lives.
        unsafe { self.0.write(value) }
    }
}

/// The place of an argument of this name.
///
/// # Safety
/// If `place` is not NULL, it can be written to during the call.
pub(crate) unsafe fn out<T>(place: *mut T, name: &'static str) -> Result<Out<T>, Failure> {
    check(place, name).map(|()| Out(place))
}

/// The place of a result that the caller may do without.
///
/// # Safety
/// As [`out`].
pub(crate) unsafe fn out_if_wanted<T>(place: *mut T, name: &'static str) -> Result<Option<Out<T>>, Failure> {
    match place.is_null() {
        true => Ok(None),
        // SAFETY: the caller's promise is the same.
        false => unsafe { out(place, name) }.map(Some),
    }
}

/// A place for a handle that is still to be made. Until it is, the caller gets NULL.
///
/// # Safety
/// As [`out`].
pub(crate) unsafe fn out_handle<T>(place: *mut *mut T, name: &'static str) -> Result<Out<*mut T>, Failure> {
    // SAFETY: the caller's promise is the same.
    let place = unsafe { out(place, name) }?;
    place.set(std::ptr::null_mut());
    Ok(place)
}

impl<T> Out<*mut T> {
    /// Gives a handle out; its `_free` takes it back.
    pub(crate) fn give(&self, handle: T) {
        self.set(Box::into_raw(Box::new(handle)));
    }
}

fn check<T>(pointer: *const T, name: &'static str) -> Result<(), Failure> {
    match pointer {
        pointer if pointer.is_null() => Err(Failure::Null(name)),
        pointer if !pointer.is_aligned() => Err(Failure::Argument(name, Reason::NotAligned)),
        _ => Ok(()),
    }
}

/// The values of an argument of this name; NULL is allowed for none.
///
/// # Safety
/// If `values` is not NULL, `count` values can be read there, and nobody writes to them, as long as the slice lives.
pub(crate) unsafe fn input<'a, T>(values: *const T, count: usize, name: &'static str) -> Result<&'a [T], Failure> {
    if count == 0 {
        return Ok(&[]);
    }
    check(values, name)?;
    let bytes = count.checked_mul(size_of::<T>());
    if bytes.is_none_or(|bytes| isize::try_from(bytes).is_err()) {
        return Err(Failure::Argument(name, Reason::TooMany(count)));
    }
    // SAFETY: not NULL, aligned, not too long; the caller promises the rest.
    Ok(unsafe { std::slice::from_raw_parts(values, count) })
}

/// The values of an argument of rows, `[rows, width]`.
///
/// # Safety
/// As [`input`], with rows · width values.
pub(crate) unsafe fn input_rows<'a, T>(
    values: *const T,
    (rows, width): (usize, usize),
    name: &'static str,
) -> Result<&'a [T], Failure> {
    let count = rows.checked_mul(width).ok_or(Failure::Argument(name, Reason::TooMany(rows)))?;
    // SAFETY: the caller's promise is the same.
    unsafe { input(values, count, name) }
}

/// One value of an argument of this name.
///
/// # Safety
/// As [`input`].
pub(crate) unsafe fn input_one<'a, T>(value: *const T, name: &'static str) -> Result<&'a T, Failure> {
    check(value, name)?;
    // SAFETY: not NULL and aligned; the caller promises the rest.
    Ok(unsafe { &*value })
}

/// A struct of settings that its `_init` function has set. Its first field is its size.
///
/// # Safety
/// As [`input`].
pub(crate) unsafe fn settings<'a, T>(value: *const T, name: &'static str) -> Result<&'a T, Failure> {
    check(value, name)?;
    // The struct of another version may be shorter, so nothing else of it is read before.
    // SAFETY: not NULL, and aligned for a struct that begins with such a field; the caller promises the rest.
    let found = unsafe { value.cast::<usize>().read() };
    match found == size_of::<T>() {
        // SAFETY: the caller's promise is the same.
        true => unsafe { input_one(value, name) },
        false => Err(Failure::Argument(name, Reason::Size { found, wanted: size_of::<T>() })),
    }
}

/// The caller's buffer.
pub(crate) struct Buffer<T> {
    place: *mut T,
    capacity: usize,
    name: &'static str,
}

/// The buffer of an argument of this name; NULL is allowed for a capacity of 0.
///
/// # Safety
/// If `place` is not NULL, `capacity` values can be written there during the call.
pub(crate) unsafe fn buffer<T>(place: *mut T, capacity: usize, name: &'static str) -> Result<Buffer<T>, Failure> {
    if capacity > 0 {
        check(place, name)?;
    }
    Ok(Buffer { place, capacity, name })
}

impl<T: Copy> Buffer<T> {
    /// Whether so many values fit.
    pub(crate) fn holds(&self, needed: usize) -> Result<(), Failure> {
        match needed > self.capacity {
            true => Err(Failure::SmallBuffer { what: self.name, needed, capacity: self.capacity }),
            false => Ok(()),
        }
    }

    /// Copies values to the buffer's beginning; nothing is written if they do not fit.
    pub(crate) fn fill(&self, values: &[T]) -> Result<(), Failure> {
        self.holds(values.len())?;
        if !values.is_empty() {
            // SAFETY: whoever called `buffer` promised that `capacity` values can be written there, and the library's
            // own memory does not overlap with the caller's.
            unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), self.place, values.len()) };
        }
        Ok(())
    }

    pub(crate) fn place(&self) -> *mut T {
        self.place
    }
}

/// The session in a handle, if no call of another thread has it and none has panicked.
///
/// # Safety
/// `handle` is NULL, or a function of this library gave it and it was not freed. It is not freed during the call.
pub(crate) unsafe fn lock<'a, H: Handle + 'a>(
    handle: *const H,
    name: &'static str,
) -> Result<MutexGuard<'a, H::Session>, Failure> {
    check(handle, name)?;
    // SAFETY: not NULL, so it points to a handle that lives.
    match unsafe { &*handle }.session().try_lock() {
        Ok(session) => Ok(session),
        Err(TryLockError::WouldBlock) => Err(Failure::Busy),
        Err(TryLockError::Poisoned(_)) => Err(Failure::Poisoned),
    }
}

/// Frees a handle; NULL is ignored.
///
/// # Safety
/// `handle` is NULL, or a function of this library gave it, it was not freed, and no call uses it.
pub(crate) unsafe fn free<T>(handle: *mut T) {
    if !handle.is_null() {
        crate::result::guard(|| {
            // SAFETY: `Out::give` made it of a box, and nobody else uses it.
            drop(unsafe { Box::from_raw(handle) });
            Ok(())
        });
    }
}

/// Compiles if values of this type may move to another thread.
pub(crate) const fn sent<T: Send>() {}

/// Compiles if threads may share values of this type.
pub(crate) const fn shared<T: Send + Sync>() {}

/// What C has a pointer to: a session that one call at a time uses.
pub(crate) trait Handle {
    type Session;

    fn session(&self) -> &Mutex<Self::Session>;
}

/// Implements [`Handle`] for a struct around a mutex.
macro_rules! handle {
    ($name:ident, $session:ty) => {
        // Any thread may call with it, and two may try at once.
        const _: () = crate::memory::shared::<$name>();

        impl crate::memory::Handle for $name {
            type Session = $session;

            fn session(&self) -> &std::sync::Mutex<$session> {
                &self.0
            }
        }

        impl From<$session> for $name {
            fn from(session: $session) -> Self {
                Self(std::sync::Mutex::new(session))
            }
        }
    };
}

pub(crate) use handle;
