//! The warning that hidden states are unlike those that the codec was made for.

use midspan::codec::Unlike;

/// A warning that is given once, however many sessions of a command find their hidden states unlike.
#[derive(Debug, Default)]
pub(crate) struct Warning {
    given: bool,
    /// What comes before the sentence: empty, or a name and a colon.
    of: String,
}

impl Warning {
    /// A warning that names its input, or what is measured.
    pub(crate) fn of(name: &str) -> Self {
        Self { of: format!("{name}: "), ..Self::default() }
    }

    /// Names what is measured from here on.
    pub(crate) fn name(&mut self, name: &str) {
        self.of = format!("{name}: ");
    }

    /// The line to say, if a session found its hidden states unlike and none did before. `found` is its
    /// [`unlike`](midspan::codec::Encoder::unlike).
    pub(crate) fn line(&mut self, found: Option<Unlike>) -> Option<String> {
        let unlike = found.filter(|_| !self.given)?;
        self.given = true;
        Some(format!("warning: {}{unlike}", self.of))
    }
}
