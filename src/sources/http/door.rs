//! The door of all HTTP triggers: from a request to the way of its trigger, and back with the answer. Must never hold up one
//! trigger's callers for another's.

use super::{
    arrival::Raw,
    replies,
    ways::{Way, Ways, host_of},
};
use crate::{
    clock,
    sources::push::{
        front::{Handler, Unread, read},
        offer::{Arrival, Body, Reply, SOON},
        problem::{Told, later, problem},
    },
};
use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;
use http::{Method, Request, StatusCode, header::HOST};
use hyper::body::Incoming;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// Paths of a function's runtime that are no calls: nobody outside has to see them.
const RUNTIME_PATHS: [&str; 2] = ["/healthz", "/metrics"];

/// See the module.
pub struct Door {
    ways: ArcSwap<Ways>,
    publishing: Mutex<()>,
    read_timeout: Duration,
}

impl Door {
    /// Nobody has a way yet. `read_timeout`: longest wait for a body.
    pub fn new(read_timeout: Duration) -> Self {
        Self { ways: ArcSwap::default(), publishing: Mutex::default(), read_timeout }
    }

    /// Opens a way.
    ///
    /// # Errors
    /// Another trigger has it; its name.
    pub fn enter(&self, way: Arc<Way>) -> Result<(), String> {
        let _alone = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.ways.load().with(way)?;
        self.ways.store(Arc::new(next));
        Ok(())
    }

    /// The way's thread is gone.
    pub fn leave(&self, way: &Arc<Way>) {
        let _alone = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.ways.load().without(way);
        self.ways.store(Arc::new(next));
    }
}

impl Handler for Door {
    fn answer(self: Arc<Self>, request: Request<Incoming>, peer: SocketAddr) -> BoxFuture<'static, Told> {
        Box::pin(async move { answer(request, peer, &self).await })
    }
}

/// One request. A dropped future means that the caller is gone: the thread sees that by the way back.
async fn answer(request: Request<Incoming>, peer: SocketAddr, door: &Door) -> Told {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return problem(StatusCode::METHOD_NOT_ALLOWED, "no call to a function");
    }
    let (mut head, body) = request.into_parts();
    let authority = head.uri.authority().map(http::uri::Authority::as_str);
    let host = authority.or_else(|| head.headers.get(HOST)?.to_str().ok()).unwrap_or_default();
    let ways = door.ways.load_full();
    let found = ways.find(host_of(host), head.uri.path());
    let Some((way, rest)) = found.filter(|(_, rest)| !RUNTIME_PATHS.contains(rest)) else {
        return problem(StatusCode::NOT_FOUND, "no HTTP trigger has this host and path");
    };
    if !way.guard.admits(&head.headers) {
        return way.guard.refusal();
    }
    let body = match read(body, way.decoder.limits.max_body_bytes, door.read_timeout).await {
        Ok(body) => body,
        Err(Unread::TooLarge) if way.guard.knows_by_head() => {
            return hand(way, way.decoder.numbers.too_large()).await;
        }
        Err(other) => return other.told(),
    };
    if !way.guard.admits_body(&head.headers, &body) {
        return way.guard.refusal();
    }
    way.guard.strip(&mut head.headers);
    let raw = Raw { head: &head, rest, body: &body, peer, time_ms: clock::unix_ms() };
    let body = match way.decoder.decode(&raw) {
        Ok(ask) => Body::Ask(ask),
        Err((position, rejection)) => Body::Rejected(position, rejection),
    };
    hand(way, body).await
}

async fn hand(way: &Way, body: Body) -> Told {
    let (reply, verdict) = Reply::at_end();
    if way.inbox.try_send(Arrival { body, reply }).is_err() {
        return later("too many requests wait for this trigger, or it is being restarted", SOON);
    }
    match verdict.await {
        Ok(verdict) => replies::told(&verdict),
        // The thread ended without an answer: whether it had claimed is for its successor to say.
        Err(_) => problem(StatusCode::BAD_GATEWAY, "the dispatcher is stopping; the function may have run"),
    }
}
