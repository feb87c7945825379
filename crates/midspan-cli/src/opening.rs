//! How the program opens the streams that it writes: options shared by `encode` and `generate`.

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;

use midspan::wire::{CheckWidth, Identity};

/// Options of a stream that is written.
#[derive(Clone, Debug, Args)]
pub(crate) struct OpeningArgs {
    /// Bits of the check in each chunk of frames: 0, 8 or 16.
    #[arg(long, value_name = "BITS", default_value = "8", value_parser = check)]
    pub check: CheckWidth,
    /// The stream's identity, 16 hexadecimal digits, so that equal input gives equal bytes. Default: random.
    #[arg(long, value_name = "HEX16", value_parser = identity)]
    identity: Option<[u8; 8]>,
}

fn check(bits: &str) -> Result<CheckWidth> {
    match bits {
        "0" => Ok(CheckWidth::None),
        "8" => Ok(CheckWidth::One),
        "16" => Ok(CheckWidth::Two),
        _ => bail!("0, 8 or 16"),
    }
}

fn identity(digits: &str) -> Result<[u8; 8]> {
    let is_hexadecimal = digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let value = u64::from_str_radix(digits, 16).ok().filter(|_| is_hexadecimal);
    value.map(u64::to_be_bytes).context("16 hexadecimal digits")
}

impl OpeningArgs {
    /// The stream's identity: eight bytes, different for every stream.
    ///
    /// # Errors
    /// The system has no source of randomness.
    pub(crate) fn identity(&self) -> Result<Identity> {
        Ok(Identity::new(match self.identity {
            Some(identity) => identity,
            None => random()?,
        }))
    }
}

/// Random bytes from the system.
///
/// # Errors
/// The system has no source of randomness.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("the system gives no random bytes: {error}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_read_as_they_are_written() {
        assert_eq!(identity("0123456789abCDef").unwrap(), [0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF]);
        for wrong in ["", "0123456789abcde", "0123456789abcdef0", "+123456789abcdef", "0123456789abcdeg"] {
            assert!(identity(wrong).is_err(), "{wrong}");
        }
        let random = || OpeningArgs { check: CheckWidth::One, identity: None }.identity().unwrap();
        assert_ne!(random(), random());
    }
}
