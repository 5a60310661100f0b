//! The socket under a connection, counted: how many bytes were written, when the first of a request left, and whether
//! it may leave at all. Hot path: no allocation. Must never report a byte as written that the kernel did not accept.

use crate::{claims::lease::StartLease, clock};
use rustix::net::RecvFlags;
use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Why the wire itself stopped a transfer (the protocol library only sees an I/O error).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It did not.
    #[default]
    None,
    /// The start lease had run out when the first byte was about to leave.
    LeaseEnded,
    /// The peer sent more than one answer may hold.
    TooMuchRead,
}

/// One TCP connection and what is known about its traffic. One thread, so cells.
#[derive(Debug)]
pub(super) struct Wire {
    stream: RefCell<TcpStream>,
    written: Cell<u64>,
    read_left: Cell<usize>,
    first_byte_ms: Cell<i64>,
    gate: RefCell<Option<Arc<StartLease>>>,
    verdict: Cell<Verdict>,
}

impl Wire {
    pub(super) fn new(stream: TcpStream) -> Rc<Self> {
        Rc::new(Self {
            stream: RefCell::new(stream),
            written: Cell::new(0),
            read_left: Cell::new(usize::MAX),
            first_byte_ms: Cell::new(0),
            gate: RefCell::new(None),
            verdict: Cell::new(Verdict::None),
        })
    }

    /// Bytes the kernel accepted since the connection was made.
    pub(super) fn written(&self) -> u64 {
        self.written.get()
    }

    /// Wall clock (Unix ms) when the first byte after [`Wire::arm`] left; 0 if none did.
    pub(super) fn first_byte_ms(&self) -> i64 {
        self.first_byte_ms.get()
    }

    pub(super) fn verdict(&self) -> Verdict {
        self.verdict.get()
    }

    /// Prepares for one request: its first byte leaves only while `lease` allows a start, and its answer may hold
    /// `max_read` bytes in all.
    pub(super) fn arm(&self, lease: Arc<StartLease>, max_read: usize) {
        *self.gate.borrow_mut() = Some(lease);
        self.first_byte_ms.set(0);
        self.read_left.set(max_read);
    }

    /// Whether an idle connection is fit for a request: open, and nothing unasked-for has arrived. Asks the kernel
    /// and not the reactor, which may not have looked at this socket since the peer closed it.
    pub(super) fn is_quiet(&self) -> bool {
        let mut byte = [0_u8; 1];
        let peek = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let answer = rustix::net::recv(&*self.stream.borrow(), &mut byte, peek);
        matches!(answer, Err(rustix::io::Errno::AGAIN))
    }

    /// Asked before every write: the first one of a request passes only with a lease that still allows a start.
    fn pass_gate(&self) -> io::Result<()> {
        let Some(lease) = self.gate.borrow_mut().take() else { return Ok(()) };
        if lease.may_start(clock::boot_ms()) {
            return Ok(());
        }
        self.verdict.set(Verdict::LeaseEnded);
        // A later write of the same request must not slip through.
        *self.gate.borrow_mut() = Some(lease);
        Err(io::Error::other("start lease ended"))
    }

    fn wrote(&self, poll: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = poll {
            self.written.set(self.written.get() + n as u64);
            if self.first_byte_ms.get() == 0 {
                self.first_byte_ms.set(clock::unix_ms());
                crate::testkit::point("after_first_byte");
            }
        }
        poll
    }
}

/// The handle the protocol library owns; the pool keeps the [`Wire`].
#[derive(Debug)]
pub(super) struct WireIo(pub(super) Rc<Wire>);

impl AsyncRead for WireIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = &self.0;
        let left = wire.read_left.get();
        if left == 0 {
            wire.verdict.set(Verdict::TooMuchRead);
            return Poll::Ready(Err(io::Error::other("answer too long")));
        }
        let before = buf.filled().len();
        let poll = Pin::new(&mut *wire.stream.borrow_mut()).poll_read(cx, buf);
        let read = buf.filled().len() - before;
        wire.read_left.set(left.saturating_sub(read));
        if read > 0 {
            crate::testkit::point("before_response_head");
        }
        poll
    }
}

impl AsyncWrite for WireIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.pass_gate()?;
        let poll = Pin::new(&mut *self.0.stream.borrow_mut()).poll_write(cx, buf);
        self.0.wrote(poll)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.pass_gate()?;
        let poll = Pin::new(&mut *self.0.stream.borrow_mut()).poll_write_vectored(cx, bufs);
        self.0.wrote(poll)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn the_gate_lets_nothing_out_once_the_lease_ended_and_counts_what_it_lets_out() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let wire = Wire::new(TcpStream::connect(address).await.expect("connect"));
        let (mut peer, _) = listener.accept().await.expect("accept");
        let lease = Arc::new(StartLease::new(u64::MAX));
        let mut io = WireIo(Rc::clone(&wire));

        wire.arm(Arc::clone(&lease), 4);
        io.write_all(b"abc").await.expect("the lease stands");
        lease.stop();
        io.write_all(b"de").await.expect("begun is begun: only the first byte asks");
        assert_eq!(wire.written(), 5);
        assert!(wire.first_byte_ms() > 0 && wire.is_quiet());

        wire.arm(Arc::clone(&lease), 4);
        for _ in 0..2 {
            io.write_all(b"f").await.expect_err("the lease ended");
        }
        assert_eq!((wire.written(), wire.first_byte_ms(), wire.verdict()), (5, 0, Verdict::LeaseEnded));

        peer.write_all(b"12345678").await.expect("write");
        assert!(!wire.is_quiet(), "bytes nobody asked for");
        let mut got = Vec::new();
        io.read_to_end(&mut got).await.expect_err("more than an answer may hold");
        assert_eq!(wire.verdict(), Verdict::TooMuchRead);
        drop((io, wire));
        let mut seen = Vec::new();
        let _ = peer.read_to_end(&mut seen).await;
        assert_eq!(seen, b"abcde");
    }
}
