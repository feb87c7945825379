//! A peer of `generate` that is not this program: its own implementation of the hello, and ways to misbehave after it.

use std::io::{Read, Write};
use std::net::TcpStream;

use midspan_cli::bundle::Bundle;
use sha2::{Digest, Sha256};

/// Bytes of a hello.
pub const HELLO: usize = 90;

/// The hello of `role`, "head" or "tail", for the embedded model.
pub fn hello(role: &str) -> [u8; HELLO] {
    let bundle = Bundle::embedded().unwrap();
    let mut hello = [0x55; HELLO];
    hello[..8].copy_from_slice(b"MSP-TALK");
    hello[8] = 1;
    hello[9] = u8::from(role == "tail");
    hello[26..58].copy_from_slice(bundle.codec.fingerprint());
    hello[58..].copy_from_slice(&bundle.host_digest);
    hello
}

/// The seal by which `role` shows that it has read the other's hello and knows the secret.
pub fn seal(secret: &str, connecting: &[u8], listening: &[u8], role: u8) -> [u8; 32] {
    let mut seal = Sha256::new();
    for part in [&Sha256::digest(secret)[..], connecting, listening, &[role]] {
        seal.update(part);
    }
    seal.finalize().into()
}

/// Plays the listening side as `role`, and recognises the program on the other side.
pub fn accept(stream: &mut TcpStream, role: &str) {
    let mut theirs = [0; HELLO];
    stream.read_exact(&mut theirs).unwrap();
    let own = hello(role);
    assert_eq!((&theirs[..9], theirs[9] ^ own[9]), (&own[..9], 1));
    stream.write_all(&own).unwrap();
    let mut sealed = [0; 32];
    stream.read_exact(&mut sealed).unwrap();
    assert_eq!(sealed, seal("", &theirs, &own, theirs[9]));
    stream.write_all(&seal("", &theirs, &own, own[9])).unwrap();
}

/// Reads until the other side closes.
pub fn wait(stream: &mut TcpStream) {
    let mut block = [0; 4096];
    while stream.read(&mut block).is_ok_and(|read| read > 0) {}
}

/// A message from the tail.
pub fn tail_message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag][..], &(body.len() as u32).to_le_bytes(), body].concat()
}

/// The tail's message with a token.
pub fn token(id: u32) -> Vec<u8> {
    [&[1][..], &id.to_le_bytes()].concat()
}

/// A tail that answers every frame with the next of `tokens`, and then ends normally.
pub fn tail_that_says(mut stream: TcpStream, tokens: Vec<u32>) {
    accept(&mut stream, "tail");
    for id in tokens {
        // The head sends one frame at a time and waits for the answer.
        assert!(stream.read(&mut [0; 1 << 16]).unwrap() > 0);
        stream.write_all(&token(id)).unwrap();
    }
    wait(&mut stream);
    let report = br#"{"w_sha256":"","y_sha256":"","frames":0,"confirmed":0,"decode_seconds":null}"#;
    stream.write_all(&tail_message(2, report)).unwrap();
}
