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

/// How long a peer may take to identify itself; less if the timeout is shorter.
const HELLO: Duration = Duration::from_secs(10);
/// How many peers may be identifying themselves at a time. If one more connects, the oldest is turned away.
const PEERS: usize = 32;
/// How many rejected peers are reported.
const TOLD: usize = 16;
/// How often the program looks for a new connection.
const LOOK: Duration = Duration::from_millis(5);

/// A peer that has identified itself, and the seal to be sent to it.
type Recognised = (SocketAddr, Result<(Link, [u8; 32])>);

/// Waits for the other half to connect to `listener`. Any other peer is turned away and does not delay the rest.
/// `still` is called now and then; its error ends the wait.
///
/// # Errors
/// The timeout has passed, or `still` or the listener fails.
pub(super) fn listen(
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
                // With the seal the other side can check this side too.
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
            // A connection may be closed before it is accepted.
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

/// Peers that are identifying themselves, the oldest first.
struct Waiting(VecDeque<(SocketAddr, TcpStream)>);

impl Waiting {
    /// Starts a thread in which a peer identifies itself.
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
            // The peer's thread notices that the connection has ended.
            let _ = oldest.shutdown(Shutdown::Both);
        }
        let mut link = Link::new(stream, timeout)?;
        self.0.push_back((address, link.handle()?));
        let (side, sender) = (Arc::clone(side), sender.clone());
        std::thread::Builder::new().spawn(move || {
            let outcome = side.accept(&mut link).map(|seal| (link, seal));
            // Nobody receives this if the other half was found meanwhile.
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
/// Nobody listens at the address, or another program does, or a half that does not match.
pub(super) fn connect(address: &str, side: &Side, timeout: Duration) -> Result<Link> {
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
