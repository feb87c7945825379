//! What keeps the sessions of Python's objects, without Python: a panic is caught, and its session stays unusable.

#![expect(clippy::panic, clippy::unwrap_used, reason = "tests panic")]

use std::sync::atomic::{AtomicUsize, Ordering};

use error::Failure;
use session::{Session, guard};

#[path = "../src/session.rs"]
#[expect(dead_code, reason = "all of it is used in the extension module")]
mod session;

/// Failures as `session` has them.
mod error {
    use midspan::error::ErrorKind;

    #[derive(Debug)]
    #[expect(dead_code, reason = "some are only shown")]
    pub(crate) enum Failure {
        Caller(ErrorKind, String),
        Panic(String),
        Poisoned,
        Busy,
    }
}

/// Counts its drops.
struct Counted<'a>(&'a AtomicUsize);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_panic_is_a_failure_and_its_session_stays_unusable() {
    let drops = AtomicUsize::new(0);
    let session = Session::new(Counted(&drops));
    let failed = session.call(|_| -> Result<(), Failure> { panic!("a bug") });
    assert!(matches!(&failed, Err(Failure::Panic(text)) if text == "a bug"), "{failed:?}");
    for _ in 0..2 {
        let failed = session.call(|_| Ok(()));
        assert!(matches!(failed, Err(Failure::Poisoned)), "{failed:?}");
    }
    session.close().unwrap();
    drop(session);
    assert_eq!(drops.load(Ordering::Relaxed), 0, "what a panic left is not dropped");
}

#[test]
fn a_panic_in_a_call_of_many_makes_all_of_them_unusable() {
    let (first, second, other) = (Session::new(1), Session::new(2), Session::new(3));
    let failed = guard(|| -> Result<(), Failure> {
        let _locked = (first.lock()?, second.lock()?);
        panic!("{}", String::from("a bug"))
    });
    assert!(matches!(&failed, Err(Failure::Panic(text)) if text == "a bug"), "{failed:?}");
    for (session, usable) in [(&first, false), (&second, false), (&other, true)] {
        assert_eq!(session.call(|_| Ok(())).is_ok(), usable);
    }
}

#[test]
fn a_session_is_for_one_call_and_dropped_once() {
    let drops = AtomicUsize::new(0);
    let session = Session::new(Counted(&drops));
    {
        let _locked = session.lock().unwrap();
        assert!(matches!(session.call(|_| Ok(())), Err(Failure::Busy)));
        assert!(matches!(session.close(), Err(Failure::Busy)));
    }
    session.call(|_| Ok(())).unwrap();
    session.close().unwrap();
    session.close().unwrap();
    assert!(matches!(session.call(|_| Ok(())), Err(Failure::Caller(..))));
    drop(session);
    drop(Session::new(Counted(&drops)));
    assert_eq!(drops.load(Ordering::Relaxed), 2);
}
