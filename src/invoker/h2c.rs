//! HTTP/2 with prior knowledge: connections shared by many calls, as many as the peer's stream limit asks for. Must
//! never call a stream unsent unless the peer says so itself, or its connection is dead and wrote nothing since.

use super::{
    Call, InvokerConfig, Run, SendState,
    error::{Error, Reason, h2_reason},
    io::{Wire, WireIo},
    pool::Endpoint,
    request,
    sink::Sink,
};
use crate::{clock, cluster::target::Target};
use bytes::Bytes;
use futures_util::future::poll_fn;
use h2::{
    RecvStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::{Response, StatusCode};
use std::{cell::Cell, pin::Pin, rc::Rc, task::Poll, time::Duration};
use tokio::time::{Instant, Sleep, timeout_at};
use tokio_util::task::AbortOnDropHandle;

/// One connection; its driver is a local task that ends with it.
#[derive(Debug)]
pub(super) struct Connection {
    sender: SendRequest<Bytes>,
    driver: AbortOnDropHandle<()>,
    wire: Rc<Wire>,
    streams: Cell<usize>,
    /// The peer goes away or broke the protocol: no new streams.
    refused: Cell<bool>,
    last_used: Cell<Instant>,
}

/// One stream in use on a connection.
struct Stream(Rc<Connection>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get() - 1);
        self.0.last_used.set(Instant::now());
    }
}

impl Connection {
    async fn open(wire: Rc<Wire>, config: &InvokerConfig) -> Result<Rc<Self>, Error> {
        let head = u32::try_from(config.max_response_head_bytes).unwrap_or(u32::MAX);
        let io = WireIo(Rc::clone(&wire));
        let (sender, connection) = Builder::new()
            .enable_push(false)
            .max_header_list_size(head)
            .handshake::<_, Bytes>(io)
            .await
            .map_err(|error| unsent(Reason::Closed, error))?;
        let driver = tokio::task::spawn_local(async move {
            // Each stream gets the connection's error itself.
            let _ = connection.await;
        });
        Ok(Rc::new(Self {
            sender,
            driver: AbortOnDropHandle::new(driver),
            wire,
            streams: Cell::new(0),
            refused: Cell::new(false),
            last_used: Cell::new(Instant::now()),
        }))
    }

    fn is_closed(&self) -> bool {
        self.refused.get() || self.driver.is_finished()
    }

    fn has_room(&self) -> bool {
        !self.is_closed() && self.streams.get() < self.sender.current_max_send_streams()
    }

    /// No call uses it, and it is closed or was idle for `max_idle`.
    pub(super) fn is_over(&self, max_idle: Duration) -> bool {
        self.streams.get() == 0 && (self.is_closed() || self.last_used.get().elapsed() >= max_idle)
    }

    fn enter(self: &Rc<Self>) -> Stream {
        self.streams.set(self.streams.get() + 1);
        Stream(Rc::clone(self))
    }
}

/// One call on this protocol.
pub(super) async fn call(
    call: &Call,
    target: &Target,
    endpoint: &Endpoint,
    run: &mut Run<'_>,
    mut deadline: Pin<&mut Sleep>,
) -> Result<StatusCode, Error> {
    let (request, body) = request::h2c(call, &target.authority)?;
    let stream = stream(endpoint, run, deadline.deadline()).await?;
    let connection = &*stream.0;
    let mut sender = connection.sender.clone();
    let ready = timeout_at(deadline.deadline(), poll_fn(|cx| sender.poll_ready(cx))).await;
    match ready {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            connection.refused.set(true);
            return Err(unsent(h2_reason(&error, false).0, error));
        }
        Err(_) => return Err(Error::ConnectTimeout),
    }
    if !call.lease.may_start(clock::boot_ms()) {
        return Err(Error::StartDeadline);
    }
    let before = connection.wire.written();
    run.sent_unix_ms = clock::unix_ms();
    run.first_byte_unix_ms = run.sent_unix_ms;
    // An error here means that the stream was never opened.
    let (answer, mut sending) = sender.send_request(request, body.is_empty()).map_err(|error| {
        connection.refused.set(true);
        unsent(h2_reason(&error, false).0, error)
    })?;
    if !body.is_empty() {
        // Queued whole: the body is in memory anyway, and flow control is the driver's business. A failure here is
        // the stream's failure, which the answer reports.
        let _ = sending.send_data(body, true);
    }
    let response = head(connection, answer, before, deadline.as_mut()).await?;
    let (head, body) = response.into_parts();
    let status = head.status;
    let mut sink = Sink::of(call, run.config.max_response_bytes);
    drain(connection, body, &mut sink, before, deadline).await?;
    sink.hand_over(call, head);
    Ok(status)
}

/// A place on a connection with room, on a new one if there is none.
async fn stream(endpoint: &Endpoint, run: &Run<'_>, deadline: Instant) -> Result<Stream, Error> {
    let room = || endpoint.shared.borrow().iter().find(|c| c.has_room()).map(Connection::enter);
    if let Some(stream) = room() {
        run.stats.reused.set(run.stats.reused.get() + 1);
        return Ok(stream);
    }
    let Ok(_alone) = timeout_at(deadline, endpoint.dialling.lock()).await else {
        return Err(Error::ConnectTimeout);
    };
    // Somebody may have made one while we waited.
    if let Some(stream) = room() {
        run.stats.reused.set(run.stats.reused.get() + 1);
        return Ok(stream);
    }
    let wire = endpoint.dial(run.address, run.config, deadline).await?;
    run.stats.opened.set(run.stats.opened.get() + 1);
    let connection = Connection::open(wire, run.config).await?;
    let stream = connection.enter();
    let mut shared = endpoint.shared.borrow_mut();
    shared.retain(|c| !c.is_closed());
    shared.push(connection);
    Ok(stream)
}

async fn head(
    connection: &Connection,
    mut answer: ResponseFuture,
    before: u64,
    mut deadline: Pin<&mut Sleep>,
) -> Result<Response<RecvStream>, Error> {
    poll_fn(|cx| match Pin::new(&mut answer).poll(cx) {
        Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
        Poll::Ready(Err(error)) => Poll::Ready(Err(failure(connection, before, error, false))),
        Poll::Pending if deadline.as_mut().poll(cx).is_ready() => Poll::Ready(Err(timed_out())),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// Reads the body to its end. One that is too long is cut off: the stream is reset when it is dropped.
async fn drain(
    connection: &Connection,
    mut body: RecvStream,
    sink: &mut Sink,
    before: u64,
    mut deadline: Pin<&mut Sleep>,
) -> Result<(), Error> {
    poll_fn(|cx| {
        loop {
            match body.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => {
                    if !sink.take(&data) {
                        return Poll::Ready(Ok(()));
                    }
                    // Fails only for more than was received.
                    let _ = body.flow_control().release_capacity(data.len());
                }
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Err(match failure(connection, before, error, true) {
                        // The head came, so the function saw the request, whatever the peer says now.
                        Error::Exchange { reason, source, .. } => {
                            Error::Exchange { reason, sent: SendState::MaybeSent, source }
                        }
                        other => other,
                    }));
                }
                Poll::Pending if deadline.as_mut().poll(cx).is_ready() => {
                    return Poll::Ready(Err(timed_out()));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

fn failure(connection: &Connection, before: u64, error: h2::Error, in_body: bool) -> Error {
    let (reason, unprocessed) = h2_reason(&error, in_body);
    if reason != Reason::RefusedStream && !(error.is_reset() && error.is_remote()) {
        connection.refused.set(true);
    }
    let silent = connection.driver.is_finished() && connection.wire.written() == before;
    let sent = if unprocessed || silent { SendState::NotSent } else { SendState::MaybeSent };
    Error::Exchange { reason, sent, source: Some(error.into()) }
}

/// Whether the queued stream got out is not knowable while the connection lives: other calls write on it.
const fn timed_out() -> Error {
    Error::Exchange { reason: Reason::Timeout, sent: SendState::MaybeSent, source: None }
}

fn unsent(reason: Reason, error: h2::Error) -> Error {
    Error::Exchange { reason, sent: SendState::NotSent, source: Some(error.into()) }
}
