//! How the halves find each other: one listens, the other connects.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::hello::Side;
use super::link::Link;
use crate::terminal::say;

/// What a peer may take to say who it is; less where the timeout is shorter.
const HELLO: Duration = Duration::from_secs(10);
/// Peers that may be about to say who they are; the oldest is turned away for one more.
const PEERS: usize = 32;
/// Peers that were turned away and are told of.
const TOLD: usize = 16;
/// How often it is looked for a new connection.
const LOOK: Duration = Duration::from_millis(5);

/// A peer that has said who it is, and the seal that is due to it.
type Recognised = (SocketAddr, Result<(Link, [u8; 32])>);

/// Waits for the other half, which connects to `listener`. Whoever is not that half is turned away, and holds nobody up.
/// `still` is asked now and then whether waiting still makes sense.
///
/// # Errors
/// The timeout, those of `still` and of the listener.
pub fn listen(
    listener: &TcpListener,
    side: Side,
    timeout: Duration,
    mut still: impl FnMut() -> Result<()>,
) -> Result<Link> {
    listener.set_nonblocking(true).context("cannot set up the listener")?;
    let (side, started, mut told) = (Arc::new(side), Instant::now(), 0);
    let mut turned_away = |address: SocketAddr, why: &anyhow::Error| {
        told += 1;
        if told <= TOLD {
            say(&format!("{address} was turned away: {why:#}"));
        }
        if told == TOLD {
            say("others will be turned away without a word");
        }
    };
    let (sender, receiver): (Sender<Recognised>, Receiver<Recognised>) = channel();
    let mut waiting = Waiting(VecDeque::new());
    loop {
        match receiver.try_recv() {
            Ok((address, outcome)) => {
                waiting.forget(address);
                // The seal makes it certain for the other side too.
                let outcome = outcome.and_then(|(mut link, seal)| {
                    link.write_all(&seal)?;
                    link.set_timeout(timeout);
                    Ok(link)
                });
                match outcome {
                    Ok(link) => return Ok(link),
                    Err(why) => turned_away(address, &why),
                }
                continue;
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
        }
        match listener.accept() {
            Ok((stream, address)) => {
                let begun = waiting.begin(stream, address, timeout.min(HELLO), &side, &sender);
                begun.unwrap_or_else(|why| turned_away(address, &why));
                continue;
            }
            // A connection may be gone before it is accepted.
            Err(error) if matches!(error.kind(), std::io::ErrorKind::ConnectionAborted) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("cannot accept a connection"),
        }
        still()?;
        if started.elapsed() > timeout {
            bail!("the other half did not connect within {} s (--timeout)", timeout.as_secs());
        }
        std::thread::sleep(LOOK);
    }
}

/// Peers that are about to say who they are, the oldest first.
struct Waiting(VecDeque<(SocketAddr, TcpStream)>);

impl Waiting {
    /// Lets a peer say who it is, on a thread of its own.
    fn begin(
        &mut self,
        stream: TcpStream,
        address: SocketAddr,
        timeout: Duration,
        side: &Arc<Side>,
        sender: &Sender<Recognised>,
    ) -> Result<()> {
        if self.0.len() >= PEERS
            && let Some((_, oldest)) = self.0.pop_front()
        {
            // Its thread sees the end of the connection.
            let _ = oldest.shutdown(Shutdown::Both);
        }
        let mut link = Link::new(stream, timeout)?;
        self.0.push_back((address, link.handle()?));
        let (side, sender) = (Arc::clone(side), sender.clone());
        std::thread::Builder::new().spawn(move || {
            let outcome = side.accept(&mut link).map(|seal| (link, seal));
            // The other half may have been found meanwhile.
            let _ = sender.send((address, outcome));
        })?;
        Ok(())
    }

    fn forget(&mut self, address: SocketAddr) {
        self.0.retain(|(other, _)| *other != address);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        for (_, stream) in &self.0 {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Connects to the other half, which listens at `address` (host:port).
///
/// # Errors
/// An address where no one listens, or another program, or a half that does not fit.
pub fn connect(address: &str, side: &Side, timeout: Duration) -> Result<Link> {
    let stream = open(address, timeout).with_context(|| format!("cannot connect to {address}"))?;
    let mut link = Link::new(stream, timeout.min(HELLO)).context("cannot set up the connection")?;
    side.connect(&mut link).with_context(|| format!("no half of this program is at {address}"))?;
    link.set_timeout(timeout);
    Ok(link)
}

fn open(address: &str, timeout: Duration) -> Result<TcpStream> {
    let deadline = Instant::now() + timeout;
    let mut last = anyhow!("it is the name of no machine");
    for address in address.to_socket_addrs()? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error.into(),
        }
    }
    Err(last)
}
