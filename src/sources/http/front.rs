//! The listener of all HTTP triggers: connections, limits, bodies, and the way to a trigger's thread. Must never read more of a
//! request than its limits allow, nor hold up one trigger's callers for another's.

use super::{
    arrival::{Arrival, Body, Raw},
    options::{Options, size},
    replies::{self, SOON, Told},
    ways::{Way, Ways, host_of},
};
use crate::{clock, event::message::Rejection};
use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header::HOST};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long callers may take to read their last answer when the process ends.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// Pause after a connection that could not be accepted (too many open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// HTTP/2 streams of one connection at once.
const MAX_STREAMS: u32 = 256;
/// Paths of a function's runtime that are no calls: nobody outside has to see them.
const RUNTIME_PATHS: [&str; 2] = ["/healthz", "/metrics"];

/// See the module. Ends when it is dropped, once its callers have their answers.
pub struct Front {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
    publishing: Mutex<()>,
}

struct Shared {
    options: Options,
    ways: ArcSwap<Ways>,
    requests: Arc<Semaphore>,
}

impl Front {
    /// Binds the address and serves on a thread of its own.
    ///
    /// # Errors
    /// The address cannot be had.
    pub fn open(options: &Options) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind(options.listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = Arc::new(Shared {
            options: options.clone(),
            ways: ArcSwap::default(),
            requests: Arc::new(Semaphore::new(options.max_requests)),
        });
        let stop = CancellationToken::new();
        let (told, serving) = (stop.clone(), Arc::clone(&shared));
        let thread = std::thread::Builder::new().name("http-front".to_owned()).spawn(move || {
            runtime.block_on(async {
                match TcpListener::from_std(listener) {
                    Ok(listener) => serve(listener, serving, told).await,
                    Err(error) => tracing::error!(%error, "HTTP requests cannot be taken"),
                }
            });
        })?;
        tracing::info!(%address, "HTTP requests are taken");
        Ok(Self { shared, address, stop, thread: Some(thread), publishing: Mutex::default() })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Opens a way.
    ///
    /// # Errors
    /// Another trigger has it; its name.
    pub fn enter(&self, way: Arc<Way>) -> Result<(), String> {
        let _alone = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.shared.ways.load().with(way)?;
        self.shared.ways.store(Arc::new(next));
        Ok(())
    }

    /// The way's thread is gone.
    pub fn leave(&self, way: &Arc<Way>) {
        let _alone = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.shared.ways.load().without(way);
        self.shared.ways.store(Arc::new(next));
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
    let places = Arc::new(Semaphore::new(shared.options.max_connections));
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
    let head = size(shared.options.max_header_bytes);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(shared.options.read_timeout)
        .max_buf_size(head);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(shared.options.read_timeout)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(head).unwrap_or(u32::MAX));
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(answer(request, peer, &shared).await) }
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

/// One request. A dropped future means that the caller is gone: the thread sees that by the way back.
async fn answer(request: Request<Incoming>, peer: SocketAddr, shared: &Shared) -> Told {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return replies::problem(StatusCode::METHOD_NOT_ALLOWED, "no call to a function");
    }
    let (head, body) = request.into_parts();
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    let host = authority.or_else(|| head.headers.get(HOST)?.to_str().ok()).unwrap_or_default();
    let ways = shared.ways.load_full();
    let found = ways.find(host_of(host), head.uri.path());
    let Some((way, rest)) = found.filter(|(_, rest)| !RUNTIME_PATHS.contains(rest)) else {
        return replies::problem(StatusCode::NOT_FOUND, "no HTTP trigger has this host and path");
    };
    let Ok(_place) = shared.requests.try_acquire() else {
        return replies::later("too many requests at once", SOON);
    };
    let most = way.decoder.limits.max_body_bytes;
    let body = match read(body, most, shared.options.read_timeout).await {
        Ok(body) => body,
        Err(Unread::TooLarge) => {
            let position = way.decoder.next_position(clock::unix_ms());
            return hand(way, |reply| Arrival {
                body: Body::Rejected(position, Rejection::BODY_TOO_LARGE),
                reply,
            })
            .await;
        }
        Err(Unread::TooSlow) => {
            return replies::problem(StatusCode::REQUEST_TIMEOUT, "the body did not come in time");
        }
        Err(Unread::Broken) => return replies::problem(StatusCode::BAD_REQUEST, "the body broke off"),
    };
    let raw = Raw { head: &head, rest, body: &body, peer, time_ms: clock::unix_ms() };
    let body = match way.decoder.decode(&raw) {
        Ok(ask) => Body::Ask(ask),
        Err((position, rejection)) => Body::Rejected(position, rejection),
    };
    hand(way, |reply| Arrival { body, reply }).await
}

async fn hand(way: &Way, arrival: impl FnOnce(super::arrival::Reply) -> Arrival) -> Told {
    let (reply, told) = oneshot::channel();
    if way.inbox.try_send(arrival(reply)).is_err() {
        return replies::later("too many requests wait for this trigger, or it is being restarted", SOON);
    }
    // The thread ended without an answer: whether it had claimed is for its successor to say.
    let gone =
        || replies::problem(StatusCode::BAD_GATEWAY, "the dispatcher is stopping; the function may have run");
    told.await.unwrap_or_else(|_| gone())
}

/// Why there is no body.
enum Unread {
    TooLarge,
    TooSlow,
    Broken,
}

async fn read(body: Incoming, most: usize, patience: Duration) -> Result<Bytes, Unread> {
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
