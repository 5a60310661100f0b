//! The operator's door: /metrics, /livez, /readyz, /debug. Bound first, stopped last. Must never change the
//! state of the process, and never share a thread with event handling.

mod pages;
pub mod readiness;

pub use readiness::{CheckHandle, Readiness};

use crate::telemetry::Registry;
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible, fmt, future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// Connections at once: probes and a few scrapers need far fewer; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 64;
/// A request head must be complete within this time, and a connection idle for longer is closed.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest life of a connection, so that a reader who never reads cannot hold a place for ever.
const CONNECTION_LIFE: Duration = Duration::from_secs(300);
/// Bytes of a request head.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Pause after a failed accept (out of descriptors): no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long open answers may take when the server stops.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// What the pages show.
#[derive(Clone)]
pub struct AdminContext {
    /// Source of /metrics.
    pub metrics: Registry,
    /// Source of /readyz.
    pub readiness: Readiness,
    /// Source of /debug/subscriptions. Must not block.
    pub subscriptions: Arc<dyn Fn() -> serde_json::Value + Send + Sync>,
}

impl fmt::Debug for AdminContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminContext").field("readiness", &self.readiness).finish_non_exhaustive()
    }
}

/// A bound listener that does not answer yet.
#[derive(Debug)]
pub struct AdminServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl AdminServer {
    /// Binds early, so that a taken port is known before anything else starts. Port 0 takes a free one.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop`; then finishes what is open, for at most a second. The caller owns the task.
    pub async fn serve(self, context: AdminContext, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            while connections.try_join_next().is_some() {}
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(&self.listener, &places) => accepted,
            };
            match accepted {
                Ok((stream, place)) => {
                    let served = serve_one(stream, context.clone(), stop.clone());
                    connections.spawn(async move {
                        served.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "Admin connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(self.listener);
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_GRACE, all).await.is_err() {
            connections.shutdown().await;
        }
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, place))
}

/// One connection to its end. Errors are the peer's business (it went away, it sent no HTTP).
fn serve_one(stream: TcpStream, context: AdminContext, stop: CancellationToken) -> impl Future<Output = ()> {
    let service = service_fn(move |request| {
        let response = pages::answer(&context, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    async move {
        let mut connection = pin!(connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            () = stop.cancelled() => {}
            () = tokio::time::sleep(CONNECTION_LIFE) => {}
        }
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(STOP_GRACE, connection).await;
    }
}
