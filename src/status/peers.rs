//! The other replicas, asked for what they know. Must never wait for one of them longer than for a moment, nor read more
//! than a page can hold, nor pass over in silence one that did not answer.

use http_body_util::{BodyExt as _, Limited};
use kube::{Client, Config, client::Body};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::task::JoinSet;

use super::report::SubscriptionReport;

/// The page that replicas show.
const PAGE: &str = "/debug/subscriptions";
/// Longest wait for one replica.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of one page: some twenty thousand subscriptions.
const MAX_PAGE: usize = 8 << 20;
/// Replicas that are asked; more are counted as such that did not answer.
const MAX_PEERS: usize = 64;
/// Silent replicas that are named; the rest is counted.
const NAMED: usize = 3;

/// What the others said.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Each that answered, by address.
    pub replicas: Vec<(String, Vec<SubscriptionReport>)>,
    /// Which ones could not be asked, for people; empty: none.
    pub unheard: String,
}

/// Asks every replica behind `peers` (`host:port`; a name may stand for many addresses) but this one.
pub async fn ask(peers: &[String], own_port: u16) -> Answers {
    let mut addresses = BTreeSet::new();
    let mut unknown = Vec::new();
    for peer in peers {
        match tokio::time::timeout(PATIENCE, tokio::net::lookup_host(peer)).await {
            Ok(Ok(found)) => addresses.extend(found.filter(|address| !is_own(*address, own_port))),
            Ok(Err(error)) => unknown.push(format!("other replicas are not found: {peer}: {error}")),
            Err(_) => unknown.push(format!("other replicas are not found: {peer}: no answer about its name")),
        }
    }
    let mut asking = JoinSet::new();
    for address in addresses.iter().take(MAX_PEERS) {
        let address = *address;
        asking.spawn(async move { (address, tokio::time::timeout(PATIENCE, page(address)).await) });
    }
    let mut answers = Answers::default();
    while let Some(Ok((address, answer))) = asking.join_next().await {
        match answer {
            Ok(Ok(reports)) => answers.replicas.push((address.to_string(), reports)),
            Ok(Err(error)) => tracing::debug!(%address, error, "Replica not understood"),
            Err(_) => tracing::debug!(%address, "Replica does not answer"),
        }
    }
    answers.replicas.sort_by(|a, b| a.0.cmp(&b.0));
    let all: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let silent =
        all.iter().map(String::as_str).filter(|one| !answers.replicas.iter().any(|(name, _)| name == one));
    unknown.extend(silence(&silent.collect::<Vec<_>>(), all.len() + 1));
    answers.unheard = unknown.join("; ");
    answers
}

/// A sentence about those that are silent, of `all` replicas.
fn silence(silent: &[&str], all: usize) -> Option<String> {
    let more = if silent.len() > NAMED { ", ..." } else { "" };
    let named = silent.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    (!silent.is_empty()).then(|| format!("{} of {all} replicas did not answer: {named}{more}", silent.len()))
}

async fn page(address: SocketAddr) -> Result<Vec<SubscriptionReport>, String> {
    // The cluster client is an HTTP client with bounds; without credentials it speaks to anybody.
    let uri: http::Uri = format!("http://{address}").parse().map_err(|e| format!("{e}"))?;
    let mut config = Config::new(uri);
    // No TLS here: the machine's list of authorities need not be read, nor be there.
    config.root_cert = Some(Vec::new());
    let client = Client::try_from(config).map_err(|error| error.to_string())?;
    let request = http::Request::get(PAGE).body(Body::empty()).map_err(|error| error.to_string())?;
    let response = client.send(request).await.map_err(|error| error.to_string())?;
    if !response.status().is_success() {
        return Err(format!("HTTP {}", response.status().as_u16()));
    }
    let body =
        Limited::new(response.into_body(), MAX_PAGE).collect().await.map_err(|error| error.to_string())?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| error.to_string())
}

/// Whether the address is this process: it listens on the port, and packets to the address come from the address.
fn is_own(address: SocketAddr, own_port: u16) -> bool {
    address.port() == own_port && own_address_towards(address) == Some(address.ip())
}

/// No packet is sent.
fn own_address_towards(address: SocketAddr) -> Option<IpAddr> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = std::net::UdpSocket::bind(any).ok()?;
    socket.connect(address).ok()?;
    Some(socket.local_addr().ok()?.ip())
}
