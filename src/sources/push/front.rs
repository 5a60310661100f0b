//! A listener, HTTP/1.1 and HTTP/2 with prior knowledge on one port: connections, limits, bodies. Must never read more of a request
//! than its limits allow, nor know what it asks for.

use super::{
    offer::SOON,
    problem::{self, Told},
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use std::{
    convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, thread::JoinHandle, time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long callers may take to read their last answer when the process ends.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Pause after a connection that could not be accepted (too many open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// HTTP/2 streams of one connection at once.
const MAX_STREAMS: u32 = 256;

/// What a listener is held to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Connections at once; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Requests at once; more are answered with 503.
    pub max_requests: usize,
    /// Bytes of a request's head.
    pub max_header_bytes: usize,
    /// Longest wait for the head, and then for the body, of a request.
    pub read_timeout: Duration,
}

/// Answers requests. A dropped future means that the caller is gone.
pub trait Handler: Send + Sync + 'static {
    /// One request of this peer.
    fn answer(self: Arc<Self>, request: Request<Incoming>, peer: SocketAddr) -> BoxFuture<'static, Told>;
}

/// See the module. Ends when it is dropped, once its callers have their answers.
pub struct Front {
    address: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    limits: Limits,
    handler: Arc<dyn Handler>,
    requests: Semaphore,
}

impl Front {
    /// Binds the address and serves on a thread of its own.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn open(limits: Limits, handler: Arc<dyn Handler>) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(limits.listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let requests = Semaphore::new(limits.max_requests);
        let shared = Arc::new(Shared { limits, handler, requests });
        let stop = CancellationToken::new();
        let told = stop.clone();
        let thread = std::thread::Builder::new().name("front".to_owned()).spawn(move || {
            runtime.block_on(async {
                match TcpListener::from_std(listener) {
                    Ok(listener) => serve(listener, shared, told).await,
                    Err(error) => tracing::error!(%error, "Requests cannot be taken"),
                }
            });
        })?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(shared.limits.max_connections));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                let (shared, stop) = (Arc::clone(&shared), stop.clone());
                connections.spawn(async move {
                    connection(stream, peer, shared, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "HTTP connection not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    connections.close();
    let _ = tokio::time::timeout(STOP_GRACE, connections.wait()).await;
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

/// One connection to its end, HTTP/1.1 or HTTP/2 as its first bytes say.
async fn connection(stream: TcpStream, peer: SocketAddr, shared: Arc<Shared>, stop: CancellationToken) {
    let head = shared.limits.max_header_bytes;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.limits.read_timeout)
        .max_buf_size(head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(shared.limits.read_timeout)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX));
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move {
            let Ok(_place) = shared.requests.try_acquire() else {
                return Ok::<_, Infallible>(problem::later("too many requests at once", SOON));
            };
            Ok(Arc::clone(&shared.handler).answer(request, peer).await)
        }
    });
    let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // Errors are the peer's business: it went away, or it sent no HTTP.
        _ = serving.as_mut() => return,
        () = stop.cancelled() => {}
    }
    serving.as_mut().graceful_shutdown();
    let _ = tokio::time::timeout(STOP_GRACE, serving).await;
}

/// Why there is no body.
pub enum Unread {
    /// It is, or says that it will be, longer than allowed.
    TooLarge,
    /// It did not come in time.
    TooSlow,
    /// It broke off.
    Broken,
}

impl Unread {
    /// What the caller is told.
    pub fn told(&self) -> Told {
        match self {
            Self::TooLarge => problem::problem(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large"),
            Self::TooSlow => problem::problem(StatusCode::REQUEST_TIMEOUT, "the body did not come in time"),
            Self::Broken => problem::problem(StatusCode::BAD_REQUEST, "the body broke off"),
        }
    }
}

/// A request's body, `most` bytes of it at most.
///
/// # Errors
/// It is longer, slower than `patience`, or it broke off.
pub async fn read(body: Incoming, most: usize, patience: Duration) -> Result<Bytes, Unread> {
    use http_body::Body as _;
    // What it announces is refused before any of it is read.
    if usize::try_from(body.size_hint().lower()).map_or(true, |announced| announced > most) {
        return Err(Unread::TooLarge);
    }
    match tokio::time::timeout(patience, Limited::new(body, most).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Unread::TooLarge),
        Ok(Err(_)) => Err(Unread::Broken),
        Err(_) => Err(Unread::TooSlow),
    }
}
