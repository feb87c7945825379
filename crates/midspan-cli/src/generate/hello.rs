//! How the halves recognise each other before either begins.
//!
//! This exchange belongs to the program and is not part of the format. Each side sends a hello of 90 bytes; the side
//! that connects sends first:
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `MSP-TALK` |
//! | 1 | version of this exchange, 1 |
//! | 1 | role of the sender: 0 head, 1 tail |
//! | 16 | random bytes |
//! | 32 | fingerprint of the codec model |
//! | 32 | SHA-256 of the host's weights |
//!
//! Then each sends a seal of 32 bytes, again the side that connects first. The seal is the SHA-256 of: the SHA-256 of
//! the secret, the hello of the side that connects, the hello of the other side, and the sender's role. It shows that
//! the sender has read the other's hello and knows the secret, which is empty unless `MIDSPAN_SECRET` is set. The side
//! that listens sends its seal to the one peer that it chose. Nothing is encrypted.

use std::io::{self, Read, Write};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::Role;
use super::link::{Link, plainly};
use crate::bundle::Bundle;
use crate::opening::random;
use midspan::adapter::hex;

const MAGIC: [u8; 8] = *b"MSP-TALK";
const VERSION: u8 = 1;
/// Bytes of a hello.
const BYTES: usize = 90;
/// The environment variable that holds the secret.
pub(super) const SECRET: &str = "MIDSPAN_SECRET";

/// What one side says about itself.
pub(super) struct Hello([u8; BYTES]);

/// One side of a connection that is being set up.
pub(super) struct Side {
    role: Role,
    hello: Hello,
    /// SHA-256 of the secret.
    key: [u8; 32],
}

fn role_byte(role: Role) -> u8 {
    match role {
        Role::Head => 0,
        Role::Tail => 1,
    }
}

impl Side {
    /// A side that plays `role` with a model; `secret` is what both sides know.
    ///
    /// # Errors
    /// The system has no source of randomness.
    pub(super) fn new(role: Role, bundle: &Bundle, secret: &[u8]) -> Result<Self> {
        let nonce: [u8; 16] = random()?;
        let mut bytes = [0; BYTES];
        let parts: [&[u8]; 5] =
            [&MAGIC, &[VERSION, role_byte(role)], &nonce, bundle.codec.fingerprint(), &bundle.host_digest];
        bytes.iter_mut().zip(parts.concat()).for_each(|(place, byte)| *place = byte);
        Ok(Self { role, hello: Hello(bytes), key: Sha256::digest(secret).into() })
    }

    /// The seal that `role` gives.
    fn seal(&self, connecting: &Hello, listening: &Hello, role: Role) -> [u8; 32] {
        let mut seal = Sha256::new();
        for part in [&self.key[..], &connecting.0, &listening.0, &[role_byte(role)]] {
            seal.update(part);
        }
        seal.finalize().into()
    }

    fn other(&self) -> Role {
        match self.role {
            Role::Head => Role::Tail,
            Role::Tail => Role::Head,
        }
    }

    /// Reads a hello. The inner result says whether its sender matches this side.
    fn read_hello(&self, link: &mut Link) -> Result<Result<Hello>> {
        let mut bytes = [0; BYTES];
        // Bytes that are not a hello are recognised by their first bytes.
        for (at, due) in MAGIC.iter().enumerate() {
            link.read_exact(&mut bytes[at..=at]).map_err(plainly)?;
            if bytes[at] != *due {
                bail!("it is no half of this program");
            }
        }
        link.read_exact(&mut bytes[MAGIC.len()..]).map_err(plainly)?;
        Ok(self.fits(Hello(bytes)))
    }

    fn fits(&self, hello: Hello) -> Result<Hello> {
        let own = &self.hello.0;
        let their = &hello.0;
        let differ = |from: usize, to: usize| own[from..to] != their[from..to];
        let short = |bytes: &[u8]| hex(&bytes[..8]);
        if differ(8, 9) {
            bail!("it speaks version {} of this exchange, here it is {VERSION}", their[8]);
        }
        if their[9] != role_byte(self.other()) {
            bail!("it is no {}", self.other().name());
        }
        for (from, what) in [(26, "codec"), (58, "host")] {
            if differ(from, from + 32) {
                let (their, own) = (short(&their[from..]), short(&own[from..]));
                bail!("it has another {what} model, whose digest begins with {their}, here it is {own}");
            }
        }
        Ok(hello)
    }

    /// Checks the other side of a connection that this side made.
    ///
    /// # Errors
    /// What is wrong with the other side.
    pub(super) fn connect(&self, link: &mut Link) -> Result<()> {
        link.write_all(&self.hello.0)?;
        let other = self.read_hello(link)??;
        link.write_all(&self.seal(&self.hello, &other, self.role))?;
        let due = self.seal(&self.hello, &other, self.other());
        let seal = read_seal(link).context("it serves another half, or its MIDSPAN_SECRET is another")?;
        if !equal(&seal, &due) {
            bail!("its {SECRET} is another");
        }
        Ok(())
    }

    /// Checks the other side of a connection that it made. Returns this side's seal, to be sent only to the one peer
    /// that is chosen.
    ///
    /// # Errors
    /// What is wrong with the other side.
    pub(super) fn accept(&self, link: &mut Link) -> Result<[u8; 32]> {
        let other = self.read_hello(link)?;
        // Sent before the check, so that a side that does not match can say why.
        link.write_all(&self.hello.0)?;
        let other = other?;
        let due = self.seal(&other, &self.hello, self.other());
        if !equal(&read_seal(link)?, &due) {
            bail!("its {SECRET} is another");
        }
        Ok(self.seal(&other, &self.hello, self.role))
    }
}

fn read_seal(link: &mut Link) -> io::Result<[u8; 32]> {
    let mut seal = [0; 32];
    link.read_exact(&mut seal).map_err(plainly)?;
    Ok(seal)
}

/// Whether two seals are equal. The time does not depend on where they differ.
fn equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    fn side(role: Role, secret: &str, model: u8) -> Side {
        let mut bytes = [model; BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..10].copy_from_slice(&[VERSION, role_byte(role)]);
        bytes[10..26].copy_from_slice(&random::<16>().unwrap());
        Side { role, hello: Hello(bytes), key: Sha256::digest(secret).into() }
    }

    fn meet(connecting: Side, listening: Side) -> (Result<()>, Result<[u8; 32]>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let link = |stream| Link::new(stream, Duration::from_secs(5)).unwrap();
        std::thread::scope(|scope| {
            let accepted = scope.spawn(move || {
                let mut link = link(listener.accept().unwrap().0);
                let seal = listening.accept(&mut link)?;
                link.write_all(&seal)?;
                Ok(seal)
            });
            let connected = connecting.connect(&mut link(TcpStream::connect(address).unwrap()));
            (connected, accepted.join().unwrap())
        })
    }

    #[test]
    fn halves_that_fit_recognise_each_other() {
        for (a, b) in [(Role::Head, Role::Tail), (Role::Tail, Role::Head)] {
            let (connected, accepted) = meet(side(a, "", 7), side(b, "", 7));
            connected.unwrap();
            accepted.unwrap();
        }
    }

    #[test]
    fn halves_that_do_not_fit_know_why() {
        let says = |outcome: (Result<()>, Result<[u8; 32]>), what: &str| {
            let (connected, accepted) = (outcome.0.unwrap_err(), outcome.1.unwrap_err());
            assert!(format!("{connected:#}").contains(what), "{connected:#}");
            assert!(format!("{accepted:#}").contains(what), "{accepted:#}");
        };
        says(meet(side(Role::Head, "", 7), side(Role::Head, "", 7)), "it is no tail");
        says(meet(side(Role::Head, "", 7), side(Role::Tail, "", 8)), "another codec model");
        says(meet(side(Role::Head, "a", 7), side(Role::Tail, "b", 7)), "MIDSPAN_SECRET is another");
    }
}
