//! Checks of error types.

use std::error::Error;

/// The texts of an error and of its causes, joined as the program prints them.
///
/// # Panics
/// If a text is empty, or contains that of its cause, which would then be printed twice.
#[track_caller]
pub fn line(error: &dyn Error) -> String {
    let mut texts = vec![error.to_string()];
    let mut below = error.source();
    while let Some(cause) = below {
        let text = cause.to_string();
        assert!(texts.iter().all(|above| !above.contains(&text)), "{text:?} is told twice: {texts:?}");
        texts.push(text);
        below = cause.source();
    }
    assert!(texts.iter().all(|text| !text.is_empty()), "{texts:?}");
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    #[derive(Debug)]
    struct Above(&'static str, std::io::Error);

    impl fmt::Display for Above {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Above {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.1)
        }
    }

    #[test]
    fn causes_are_joined() {
        assert_eq!(line(&Above("a.txt", std::io::Error::other("full"))), "a.txt: full");
    }

    #[test]
    #[should_panic(expected = "told twice")]
    fn a_cause_that_is_told_twice_is_found() {
        line(&Above("a.txt: full", std::io::Error::other("full")));
    }
}
