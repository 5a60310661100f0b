//! One HTTP/1.1 connection and one exchange on it. Hot path. The connection's driver is polled by the call that uses
//! the connection: no task behind our back can write a byte, so the byte counter tells the truth. Must never send a
//! second request before the first one's answer is complete.

use super::{
    InvokerConfig, Run, SendState,
    error::{Error, Reason, http1_reason},
    io::{Verdict, Wire, WireIo},
    pool::Endpoint,
    request,
    sink::Sink,
};
use crate::{clock, cluster::target::Target, invoker::Call, testkit};
use bytes::Bytes;
use futures_util::future::poll_fn;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use std::{
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};
use tokio::time::{Instant, Sleep};

/// Bytes of framing (chunk sizes, a trailing read) allowed on top of the limits of head and body.
const READ_SLACK: usize = 16 * 1024;
/// hyper refuses smaller read buffers.
const MIN_BUFFER: usize = 8 * 1024;

type Driver = http1::Connection<TokioIo<WireIo>, Full<Bytes>>;

/// A connection between two calls, or lent to one.
pub(super) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Pin<Box<Driver>>,
    /// The driver finished: the connection is closed or closing.
    over: bool,
    wire: Rc<Wire>,
    pub(super) last_used: Instant,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("wire", &self.wire)
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

/// How the body of an answer ended.
enum Drained {
    Complete,
    /// Longer than we care to read; the head was complete.
    TooLong,
    Failed(Error),
}

/// One call on this protocol: an idle connection if there is a fit one and this is the first attempt, else a new one.
pub(super) async fn call(
    call: &Call,
    target: &Target,
    endpoint: &Endpoint,
    run: &mut Run<'_>,
    deadline: Pin<&mut Sleep>,
) -> Result<StatusCode, Error> {
    let request = request::http1(call, &target.authority)?;
    let config = run.config;
    // A retry never trusts a used connection again.
    let idle =
        if run.attempts == 1 { endpoint.take_idle(config.idle_timeout, &run.stats.stale) } else { None };
    let mut connection = if let Some(connection) = idle {
        run.stats.reused.set(run.stats.reused.get() + 1);
        connection
    } else {
        let wire = endpoint.dial(run.address, config, deadline.deadline()).await?;
        testkit::point("after_connect");
        run.stats.opened.set(run.stats.opened.get() + 1);
        Connection::open(wire, config).await?
    };
    let answer = connection.exchange(call, request, run, deadline).await;
    if answer.is_ok() && connection.is_reusable() {
        endpoint.put_idle(connection);
    }
    answer
}

impl Connection {
    async fn open(wire: Rc<Wire>, config: &InvokerConfig) -> Result<Self, Error> {
        let mut builder = http1::Builder::new();
        builder
            .max_buf_size(config.max_response_head_bytes.max(MIN_BUFFER))
            .max_header_size(config.max_response_head_bytes);
        let io = TokioIo::new(WireIo(Rc::clone(&wire)));
        let (sender, driver) = builder.handshake(io).await.map_err(|error| Error::Exchange {
            reason: Reason::Closed,
            sent: SendState::NotSent,
            source: Some(error.into()),
        })?;
        Ok(Self { sender, driver: Box::pin(driver), over: false, wire, last_used: Instant::now() })
    }

    /// Open, at rest, and the peer neither closed it nor sent anything unasked-for.
    pub(super) fn is_fit(&self) -> bool {
        !self.over && self.wire.is_quiet()
    }

    fn is_reusable(&self) -> bool {
        !self.over && self.sender.is_ready()
    }

    fn drive(&mut self, cx: &mut Context<'_>) {
        if !self.over && self.driver.as_mut().poll(cx).is_ready() {
            // Why it ended reaches the call through the response or its body.
            self.over = true;
        }
    }

    async fn exchange(
        &mut self,
        call: &Call,
        request: Request<Full<Bytes>>,
        run: &mut Run<'_>,
        mut deadline: Pin<&mut Sleep>,
    ) -> Result<StatusCode, Error> {
        let before = self.wire.written();
        poll_fn(|cx| self.poll_ready(cx, before, deadline.as_mut())).await?;
        let config = run.config;
        let mut sink = Sink::of(call, config.max_response_bytes);
        let max_read = config.max_response_head_bytes + sink.max() + READ_SLACK;
        self.wire.arm(call.lease.clone(), max_read);
        run.sent_unix_ms = clock::unix_ms();
        let head = self.head(request, before, deadline.as_mut()).await;
        run.first_byte_unix_ms = self.wire.first_byte_ms();
        let response = head?;
        testkit::point("before_response_body");
        let (head, mut body) = response.into_parts();
        let status = head.status;
        let drained = if body.is_end_stream() {
            Drained::Complete
        } else {
            self.drain(&mut body, &mut sink, before, deadline).await
        };
        match drained {
            Drained::Complete => self.rest(),
            Drained::TooLong => self.over = true,
            Drained::Failed(error) => return Err(error),
        }
        if status == StatusCode::SWITCHING_PROTOCOLS {
            // Whatever follows on this connection is not HTTP/1.1.
            self.over = true;
        }
        sink.hand_over(call, head);
        self.last_used = Instant::now();
        Ok(status)
    }

    fn poll_ready(
        &mut self,
        cx: &mut Context<'_>,
        before: u64,
        deadline: Pin<&mut Sleep>,
    ) -> Poll<Result<(), Error>> {
        self.drive(cx);
        match self.sender.poll_ready(cx) {
            Poll::Ready(Ok(())) => Poll::Ready(Ok(())),
            Poll::Ready(Err(error)) => Poll::Ready(Err(self.failure(before, Some(&error), false))),
            Poll::Pending => deadline.poll(cx).map(|()| Err(self.exchange_error(Reason::Timeout, before))),
        }
    }

    /// Sends the request and waits for the head of its final answer.
    async fn head(
        &mut self,
        request: Request<Full<Bytes>>,
        before: u64,
        mut deadline: Pin<&mut Sleep>,
    ) -> Result<Response<Incoming>, Error> {
        let mut answer = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| {
            self.drive(cx);
            match answer.as_mut().poll(cx) {
                Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
                Poll::Ready(Err(error)) => Poll::Ready(Err(self.failure(before, Some(error.error()), false))),
                Poll::Pending if self.over => Poll::Ready(Err(self.failure(before, None, false))),
                Poll::Pending if deadline.as_mut().poll(cx).is_ready() => {
                    Poll::Ready(Err(self.exchange_error(Reason::Timeout, before)))
                }
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    /// Reads the body to its end, within the limit of bytes and time.
    async fn drain(
        &mut self,
        body: &mut Incoming,
        sink: &mut Sink,
        before: u64,
        mut deadline: Pin<&mut Sleep>,
    ) -> Drained {
        poll_fn(|cx| {
            self.drive(cx);
            loop {
                match Pin::new(&mut *body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        if frame.data_ref().is_some_and(|data| !sink.take(data)) {
                            return Poll::Ready(Drained::TooLong);
                        }
                    }
                    Poll::Ready(None) => return Poll::Ready(Drained::Complete),
                    Poll::Ready(Some(Err(_))) if self.wire.verdict() == Verdict::TooMuchRead => {
                        sink.overflow();
                        return Poll::Ready(Drained::TooLong);
                    }
                    Poll::Ready(Some(Err(error))) => {
                        return Poll::Ready(Drained::Failed(self.failure(before, Some(&error), true)));
                    }
                    Poll::Pending => break,
                }
            }
            if self.over {
                return Poll::Ready(Drained::Failed(self.exchange_error(Reason::Truncated, before)));
            }
            if deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Drained::Failed(self.exchange_error(Reason::Timeout, before)));
            }
            Poll::Pending
        })
        .await
    }

    /// Brings the driver to rest after an answer: it notices `Connection: close`, a closed peer and bytes that
    /// nobody asked for. With a waker of nobody, so that an idle connection wakes no call that is over.
    fn rest(&mut self) {
        self.drive(&mut Context::from_waker(std::task::Waker::noop()));
    }

    /// What went wrong, told from the counter, the wire's own verdict and hyper's error, in this order.
    fn failure(&self, before: u64, error: Option<&hyper::Error>, in_body: bool) -> Error {
        let sent = self.sent_since(before);
        match self.wire.verdict() {
            Verdict::LeaseEnded if sent == SendState::NotSent => return Error::StartDeadline,
            Verdict::TooMuchRead => return self.exchange_error(Reason::HeadTooLarge, before),
            _ => {}
        }
        let reason = error.map_or(Reason::Closed, |error| http1_reason(error, in_body));
        // hyper's errors are not `Clone`; their text is enough for a log line.
        Error::Exchange { reason, sent, source: error.map(|error| error.to_string().into()) }
    }

    fn exchange_error(&self, reason: Reason, before: u64) -> Error {
        Error::Exchange { reason, sent: self.sent_since(before), source: None }
    }

    fn sent_since(&self, before: u64) -> SendState {
        if self.wire.written() == before { SendState::NotSent } else { SendState::MaybeSent }
    }
}
