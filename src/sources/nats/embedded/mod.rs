//! A core NATS server for local mode: the client protocol on a loopback port, kept in memory, gone with the process. Must
//! never be taken for a NATS server (its notice says what it does not prove), nor hold more than its bounds for a peer.

mod connection;
mod hub;
pub mod subjects;
mod wire;

use crate::sources::{Embedded, Error};
use hub::Hub;
use std::{net::Ipv4Addr, sync::Arc, thread::JoinHandle, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Clients at once: a dispatcher has one connection a subscription; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;
/// Pause after a failed accept (out of descriptors): no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One server, on a thread of its own.
pub struct EmbeddedServer {
    address: String,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedServer {
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
        let thread = std::thread::Builder::new().name("embedded-nats".to_owned()).spawn(move || {
            runtime.block_on(async {
                // It was bound before: only a process without descriptors fails here.
                let Ok(listener) = TcpListener::from_std(listener) else { return };
                tokio::select! {
                    () = serve(&listener, port) => {}
                    () = stopped.cancelled() => {}
                }
            });
        })?;
        Ok(Self { address: format!("nats://127.0.0.1:{port}"), stop, thread: Some(thread) })
    }
}

/// Serves until it is dropped, and every connection with it.
async fn serve(listener: &TcpListener, port: u16) {
    let hub = Arc::new(Hub::default());
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let hub = Arc::clone(&hub);
                connections.spawn(async move {
                    connection::serve(stream, &hub, port).await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

impl Embedded for EmbeddedServer {
    fn address(&self) -> String {
        self.address.clone()
    }

    fn notice(&self) -> &'static str {
        "embedded NATS server: subjects, wildcards, queue groups and headers in memory; no JetStream, accounts or TLS; it \
         proves the function and the trigger, not a cluster of servers"
    }

    fn ensure_topic(&self, topic: &str, _shards: i32) -> Result<(), Error> {
        // A subject is there as soon as somebody speaks of it.
        if subjects::is_pattern(topic) { Ok(()) } else { Err(format!("{topic:?} is not a subject").into()) }
    }
}

impl Drop for EmbeddedServer {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_nats::{Client, HeaderMap, RequestErrorKind};
    use futures_util::StreamExt as _;
    use std::collections::BTreeMap;

    async fn client(server: &EmbeddedServer) -> Client {
        async_nats::connect(server.address()).await.unwrap()
    }

    /// Returns when the server has done everything that the client asked before.
    async fn round_trip(client: &Client) {
        let nobody = client.request("nobody.here", "?".into()).await.unwrap_err();
        assert_eq!(nobody.kind(), RequestErrorKind::NoResponders);
    }

    #[tokio::test]
    async fn patterns_headers_and_requests_work_with_the_real_client() {
        let server = EmbeddedServer::start().unwrap();
        let (one, two) = (client(&server).await, client(&server).await);
        let mut listener = one.subscribe("orders.*").await.unwrap();
        round_trip(&one).await;
        let mut headers = HeaderMap::new();
        headers.insert("ce-id", "7");
        two.publish_with_headers("orders.eu", headers, "body".into()).await.unwrap();
        let message = listener.next().await.unwrap();
        assert_eq!((&*message.subject, &message.payload[..]), ("orders.eu", &b"body"[..]));
        assert_eq!(message.headers.unwrap().get("ce-id").unwrap().as_str(), "7");
        let asked = tokio::spawn(async move { two.request("orders.us", "?".into()).await });
        let question = listener.next().await.unwrap();
        one.publish(question.reply.unwrap(), "!".into()).await.unwrap();
        assert_eq!(&asked.await.unwrap().unwrap().payload[..], b"!");
    }

    #[tokio::test]
    async fn one_member_of_a_group_gets_a_message_and_every_group_one() {
        let server = EmbeddedServer::start().unwrap();
        let sender = client(&server).await;
        let mut members = Vec::new();
        for group in ["a", "a", "b"] {
            let member = client(&server).await;
            let listens = member.queue_subscribe("jobs.>", group.to_owned()).await.unwrap();
            round_trip(&member).await;
            members.push((group, member, listens));
        }
        const SENT: usize = 50;
        for number in 0..SENT {
            sender.publish(format!("jobs.{number}"), "".into()).await.unwrap();
        }
        sender.publish("jobs.last", "".into()).await.unwrap();
        round_trip(&sender).await;
        let mut counts = BTreeMap::new();
        for (group, member, mut listens) in members {
            // Ends after what the server had for it: the drain is answered behind it.
            member.drain().await.unwrap();
            while listens.next().await.is_some() {
                *counts.entry(group).or_insert(0) += 1;
            }
        }
        assert_eq!(counts.into_iter().collect::<Vec<_>>(), [("a", SENT + 1), ("b", SENT + 1)]);
    }

    #[tokio::test]
    async fn a_subscription_ends_after_as_many_messages_as_it_asked_for() {
        let server = EmbeddedServer::start().unwrap();
        let own = client(&server).await;
        let mut listens = own.subscribe("a").await.unwrap();
        listens.unsubscribe_after(2).await.unwrap();
        for _ in 0..3 {
            own.publish("a", "x".into()).await.unwrap();
        }
        let mut received = 0;
        while listens.next().await.is_some() {
            received += 1;
        }
        assert_eq!(received, 2);
    }
}
