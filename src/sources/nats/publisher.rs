//! Publishing for `kubeless send`. Must never say that a message went out before a server has it.

use super::client;
use crate::sources::{Error, Outgoing, Publisher};
use async_nats::{Client, ConnectOptions, HeaderMap, HeaderName, HeaderValue};
use futures_util::StreamExt as _;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Longest wait for the connection, and for the server to have everything.
const WAIT: Duration = Duration::from_secs(15);

/// One connection.
pub struct NatsPublisher {
    runtime: Runtime,
    client: Client,
    /// Whether a stream has to say that it stored each message.
    stored: bool,
}

/// Before an address: a stream has to store what is sent.
pub const STORED: &str = "nats+js://";

impl NatsPublisher {
    /// A connection to `address` (`host:port` or a URL, several with commas; those with [`STORED`] wait for a stream).
    ///
    /// # Errors
    /// The address is malformed, or no server answers there.
    pub fn new(address: &str) -> Result<Self, Error> {
        let stored = address.contains(STORED);
        let servers = client::servers(&address.replace(STORED, "nats://"), "--broker")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let options = ConnectOptions::new().name("kubeless-cli").connection_timeout(WAIT);
        let client = runtime.block_on(options.connect(servers))?;
        Ok(Self { runtime, client, stored })
    }

    async fn send(&self, messages: &[Outgoing]) -> Result<Vec<String>, Error> {
        let mut places = Vec::with_capacity(messages.len());
        let streams = async_nats::jetstream::new(self.client.clone());
        for message in messages {
            let id = message.headers.iter().find(|(name, _)| name == "ce_id").map(|(_, id)| id);
            // Without a key of its own an event is sent with its id as key, which says nothing here.
            if message.key.is_some() && message.key.as_ref() != id {
                return Err("a NATS message has no key: leave the key out".into());
            }
            let mut headers = HeaderMap::new();
            for (name, value) in &message.headers {
                // The prefix that CloudEvents gives its attributes on this transport.
                let name = name.strip_prefix("ce_").map_or_else(|| name.clone(), |name| format!("ce-{name}"));
                headers.append(name.parse::<HeaderName>()?, value.parse::<HeaderValue>()?);
            }
            let body = message.data.clone().unwrap_or_default().into();
            if self.stored {
                let sent = streams.publish_with_headers(message.topic.clone(), headers, body).await?;
                let ack = sent.await.map_err(|error| {
                    let topic = &message.topic;
                    format!(
                        "no stream stored {topic}: {error}; is there one with this subject? (nats stream ls)"
                    )
                })?;
                places.push(format!("{}/{}", ack.stream, ack.sequence));
            } else {
                self.client.publish_with_headers(message.topic.clone(), headers, body).await?;
                places.push(message.topic.clone());
            }
        }
        self.round_trip().await?;
        Ok(places)
    }

    /// A message to ourselves: when it is back, the server has everything that was sent before.
    async fn round_trip(&self) -> Result<(), Error> {
        let inbox = self.client.new_inbox();
        let mut own = self.client.subscribe(inbox.clone()).await?;
        self.client.publish(inbox, "".into()).await?;
        own.next().await.ok_or("the server closed the connection")?;
        Ok(())
    }
}

impl Publisher for NatsPublisher {
    fn publish(&self, messages: &[Outgoing]) -> Result<Vec<String>, Error> {
        let sent = async { tokio::time::timeout(WAIT, self.send(messages)).await };
        self.runtime.block_on(sent).map_err(|_| format!("no answer from the server within {WAIT:?}"))?
    }
}
