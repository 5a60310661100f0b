//! A Kinesis endpoint for local mode: the crate `ferrokinesis` on a loopback port, in memory, gone with the process. Must
//! never be taken for Kinesis: its notice says what it does not prove.

use super::publisher::KinesisPublisher;
use crate::sources::{Embedded, Error, Topics as _};
use ferrokinesis::store::StoreOptions;
use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use std::{net::Ipv4Addr, sync::Arc, thread::JoinHandle, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tower::Service as _;

/// Bytes of records that are kept; what is more is refused.
const MAX_RETAINED: u64 = 256 << 20;
/// Shards of all streams.
const MAX_SHARDS: u32 = 1000;
/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;
/// Pause after a failed accept (out of descriptors): no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often records beyond the retention of a stream are dropped.
const REAPING_SECONDS: u64 = 60;

/// One endpoint, on a thread of its own.
pub struct EmbeddedKinesis {
    port: u16,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedKinesis {
    /// Starts it on a free loopback port.
    ///
    /// # Errors
    /// It cannot listen.
    pub fn start() -> Result<Self, Error> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let thread = std::thread::Builder::new().name("embedded-kinesis".to_owned()).spawn(move || {
            runtime.block_on(async {
                // It was bound before: only a process without descriptors fails here.
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                tokio::select! {
                    () = serve(&listener) => {}
                    () = stopped.cancelled() => {}
                }
            });
        })?;
        Ok(Self { port, stop, thread: Some(thread) })
    }
}

/// Serves until it is dropped, and every connection with it.
async fn serve(listener: &TcpListener) {
    let (app, _store) = ferrokinesis::create_app(StoreOptions {
        // A stream is there at once.
        create_stream_ms: 0,
        delete_stream_ms: 0,
        update_stream_ms: 0,
        shard_limit: MAX_SHARDS,
        retention_check_interval_secs: REAPING_SECONDS,
        max_retained_bytes: Some(MAX_RETAINED),
        ..StoreOptions::default()
    });
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let app = app.clone();
                // It accepts every request: there is nothing to wait for before a call.
                let service = service_fn(move |request| app.clone().call(request));
                connections.spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    // An error is the peer's business: it went away, or it sent no HTTP.
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

impl Embedded for EmbeddedKinesis {
    fn address(&self) -> String {
        format!("kinesis+http://127.0.0.1:{}", self.port)
    }

    fn notice(&self) -> &'static str {
        "embedded Kinesis endpoint (ferrokinesis): streams in memory, at most 256 MiB, for every region and any credentials; \
         it proves the function and the trigger, not Amazon's limits or durability"
    }

    fn ensure_topic(&self, topic: &str, shards: i32) -> Result<(), Error> {
        let address = self.address();
        // On a thread without a runtime: whoever asks may be on one.
        let asked = std::thread::scope(|scope| {
            let asking = scope.spawn(|| -> Result<(), Error> {
                let publisher = KinesisPublisher::new(&address)?;
                if publisher.list()?.iter().any(|found| found.name == topic) {
                    return Ok(());
                }
                publisher.create(topic, shards, 1)
            });
            asking.join()
        });
        asked.map_err(|_| "asking the embedded endpoint failed")?
    }
}

impl Drop for EmbeddedKinesis {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
