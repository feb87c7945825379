//! The warning that hidden states are unlike those that the codec was made for.

use midspan::codec::Encoder;

/// A warning that is given once, however many sessions of a command find their hidden states unlike.
#[derive(Debug, Default)]
pub(crate) struct Warning {
    given: bool,
    /// What comes before the sentence: empty, or the input's name and a colon.
    of: String,
}

impl Warning {
    /// A warning that names its input.
    pub(crate) fn of(input: &str) -> Self {
        Self { of: format!("{input}: "), ..Self::default() }
    }

    /// The line to say, if the session is the first to find what it sends unlike.
    pub(crate) fn after_push(&mut self, encoder: &Encoder) -> Option<String> {
        if self.given {
            return None;
        }
        let unlike = encoder.unlike()?;
        self.given = true;
        Some(format!("warning: {}{unlike}", self.of))
    }
}
