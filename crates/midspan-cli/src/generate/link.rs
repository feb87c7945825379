//! A connection on which every step has a deadline.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A connection to the other half. All bytes that a step needs have to arrive within the step's time, however few come
/// at a time.
pub(super) struct Link {
    stream: TcpStream,
    timeout: Duration,
    deadline: Instant,
}

impl Link {
    /// Wraps a connection. Its first step begins now.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn new(stream: TcpStream, timeout: Duration) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        // Do not wait to fill a TCP segment.
        stream.set_nodelay(true)?;
        Ok(Self { stream, timeout, deadline: Instant::now() + timeout })
    }

    /// Begins a step: its bytes have to arrive within the timeout.
    pub(super) fn step(&mut self) {
        self.deadline = Instant::now() + self.timeout;
    }

    /// From now on every step may take `timeout`.
    pub(super) fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
        self.step();
    }

    /// The connection itself, to end it from elsewhere.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn handle(&self) -> io::Result<TcpStream> {
        self.stream.try_clone()
    }

    /// Says that nothing more will be sent.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn finish_writing(&self) -> io::Result<()> {
        self.stream.shutdown(std::net::Shutdown::Write)
    }

    /// How much of the step's time is left.
    fn left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(self.late()) } else { Ok(Some(left)) }
    }

    fn late(&self) -> io::Error {
        let seconds = self.timeout.as_secs_f64();
        io::Error::new(ErrorKind::TimedOut, format!("it was silent or too slow for {seconds} s"))
    }

    fn plainly(&self, error: io::Error) -> io::Error {
        match error.kind() {
            // Which of the two a timeout gives depends on the system.
            ErrorKind::WouldBlock | ErrorKind::TimedOut => self.late(),
            _ => plainly(error),
        }
    }
}

/// The same error, but with a plain text if the connection has ended.
pub(super) fn plainly(error: io::Error) -> io::Error {
    match error.kind() {
        // Which of these it is depends on what was in progress.
        ErrorKind::UnexpectedEof
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::NotConnected => io::Error::new(error.kind(), "it closed the connection"),
        _ => error,
    }
}

impl Read for Link {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(bytes).map_err(|error| self.plainly(error))
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes).map_err(|error| self.plainly(error))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
