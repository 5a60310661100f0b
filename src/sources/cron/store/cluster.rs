//! The register in the status of the trigger: one merge patch under the resource version that was read, which touches no
//! field but the register's. Must never read from a cache: the server is asked for its newest state.

use super::{Found, Skew, Store, Trouble};
use crate::{
    api::{GROUP, VERSION, cronjob_trigger::CronJobTriggerStatus},
    cluster::{client, target::ObjectRef},
    sources::cron::{
        clocks::Clocks,
        protocol::Answer,
        register::{Register, View, Write},
    },
};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use kube::{Client, client::Body};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::runtime::Handle;

/// Bytes of an answer that are read: a status is far smaller, an object may be 1.5 MiB.
const LONGEST_ANSWER: usize = 4 << 20;
/// A `Date` header says the second and not what was left of it.
const DATE_RESOLUTION_MS: i64 = 1000;

/// An API server and the runtime that its connections run on.
#[derive(Clone)]
pub struct Server {
    /// The client.
    pub client: Client,
    /// The runtime.
    pub runtime: Handle,
}

/// The status of one trigger.
pub struct ClusterStore {
    client: Client,
    runtime: Handle,
    path: String,
    uid: String,
    timeout: Duration,
    skew: Option<Skew>,
    clocks: Clocks,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource_version: String,
    creation_timestamp: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    status: CronJobTriggerStatus,
}

/// A complete answer.
struct Reply {
    status: StatusCode,
    body: Vec<u8>,
}

impl ClusterStore {
    /// The status of `trigger` with this uid. `timeout` bounds each request.
    pub fn new(server: &Server, trigger: &ObjectRef, uid: &str, timeout: Duration, clocks: Clocks) -> Self {
        let path = format!(
            "/apis/{GROUP}/{VERSION}/namespaces/{}/cronjobtriggers/{}/status",
            trigger.namespace, trigger.name
        );
        let (client, runtime) = (server.client.clone(), server.runtime.clone());
        Self { client, runtime, path, uid: uid.to_owned(), timeout, skew: None, clocks }
    }

    /// Sends a request and reads the whole answer; `Err`: nobody knows what became of it.
    fn ask(&mut self, request: Request<Body>) -> Result<Reply, String> {
        let (client, timeout) = (self.client.clone(), self.timeout);
        let sent_ms = (self.clocks.wall_ms)();
        let asked = async move {
            let answer = client.send(request).await.map_err(|error| client::explain(&error))?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, LONGEST_ANSWER).collect().await;
            let body = body.map_err(|error| format!("the answer broke off: {error}"))?;
            Ok::<_, String>((head, body.to_bytes().to_vec()))
        };
        // The timer belongs to that runtime too.
        let answer = self.runtime.block_on(async move { tokio::time::timeout(timeout, asked).await });
        let (head, body) = answer.map_err(|_| format!("no answer within {timeout:?}"))??;
        if let Some(at_least_ms) = distance(&head.headers, sent_ms, (self.clocks.wall_ms)()) {
            self.skew = Some(Skew { at_least_ms, boot_ms: (self.clocks.boot_ms)() });
        }
        Ok(Reply { status: head.status, body })
    }

    fn request(&self, method: &str, body: Vec<u8>) -> Result<Request<Body>, String> {
        let mut request = Request::builder().method(method).uri(self.path.as_str());
        if method == "PATCH" {
            request = request.header(header::CONTENT_TYPE, "application/merge-patch+json");
        }
        request.body(Body::from(body)).map_err(|error| error.to_string())
    }
}

impl Store for ClusterStore {
    fn read(&mut self) -> Result<Found, Trouble> {
        let request = self.request("GET", Vec::new()).map_err(Trouble::Refused)?;
        let reply = self.ask(request).map_err(Trouble::Away)?;
        match reply.status {
            StatusCode::OK => {}
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                return Err(Trouble::Away(words(&reply)));
            }
            _ => return Err(Trouble::Refused(words(&reply))),
        }
        let object: Object = serde_json::from_slice(&reply.body)
            .map_err(|error| Trouble::Refused(format!("its status cannot be read: {error}")))?;
        if object.metadata.uid != self.uid {
            return Err(Trouble::Refused("it was deleted and made anew".to_owned()));
        }
        let register =
            Register::of_status(&object.status).map_err(|error| Trouble::Refused(error.to_string()))?;
        let view = View { version: object.metadata.resource_version, register };
        Ok(Found { view, created: object.metadata.creation_timestamp.map(|time| time.0.as_second()) })
    }

    fn write(&mut self, write: &Write) -> (Answer, String) {
        let body = patch(write, &self.uid).to_string().into_bytes();
        let request = match self.request("PATCH", body) {
            Ok(request) => request,
            Err(error) => return (Answer::Refused, error),
        };
        let reply = match self.ask(request) {
            Ok(reply) => reply,
            Err(why) => return (Answer::Unknown, why),
        };
        match reply.status {
            StatusCode::OK => match serde_json::from_slice::<Object>(&reply.body) {
                Ok(object) => (Answer::Accepted(object.metadata.resource_version), String::new()),
                Err(error) => (Answer::Unknown, format!("the answer cannot be read: {error}")),
            },
            StatusCode::CONFLICT => (Answer::Conflict, String::new()),
            // A server that is overloaded or loses its store may have done it.
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                (Answer::Unknown, words(&reply))
            }
            _ => (Answer::Refused, words(&reply)),
        }
    }

    fn skew(&self) -> Option<Skew> {
        // Before the first answer nothing is known, which is not the same as a clock that nobody can check.
        Some(self.skew.unwrap_or(Skew { at_least_ms: i64::MAX, boot_ms: 0 }))
    }
}

/// Every field of the register, also what is empty now: a merge patch leaves alone what it does not name.
fn patch(write: &Write, uid: &str) -> Value {
    let status = serde_json::to_value(write.register.to_status()).unwrap_or_default();
    let field = |name: &str| status.get(name).cloned().unwrap_or(Value::Null);
    let names = ["since", "lastScheduledTime", "missed", "claim"];
    let fields: serde_json::Map<String, Value> =
        names.into_iter().map(|name| (name.to_owned(), field(name))).collect();
    json!({ "metadata": { "resourceVersion": write.version, "uid": uid }, "status": fields })
}

/// The server's own words.
fn words(reply: &Reply) -> String {
    let said = serde_json::from_slice::<Value>(&reply.body).ok();
    let said = said.as_ref().and_then(|status| status["message"].as_str()).unwrap_or_default();
    format!("HTTP {} {said}", reply.status.as_u16()).trim_end().to_owned()
}

/// How far the clock that wrote `Date` between two readings of ours is away from both.
fn distance(headers: &HeaderMap, sent_ms: i64, received_ms: i64) -> Option<i64> {
    let date = headers.get(header::DATE)?.to_str().ok()?;
    let server_ms = jiff::fmt::rfc2822::parse(date).ok()?.timestamp().as_millisecond();
    let ahead = sent_ms.min(received_ms) - (server_ms + DATE_RESOLUTION_MS);
    let behind = server_ms - received_ms.max(sent_ms);
    Some(ahead.max(behind).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_empty_is_taken_out_and_nothing_else_is_named() {
        let register = Register { since: Some(0), last: Some(60), missed: 0, open: Vec::new() };
        let write = Write { version: "17".to_owned(), register };
        let wanted = json!({
            "metadata": {"resourceVersion": "17", "uid": "u"},
            "status": {
                "since": "1970-01-01T00:00:00Z", "lastScheduledTime": "1970-01-01T00:01:00Z",
                "missed": null, "claim": null,
            },
        });
        assert_eq!(patch(&write, "u"), wanted);
    }

    #[test]
    fn a_clock_is_off_only_as_far_as_is_certain() {
        let mut headers = HeaderMap::new();
        assert_eq!(distance(&headers, 0, 0), None);
        headers.insert(header::DATE, "Thu, 01 Jan 1970 00:01:40 GMT".parse().expect("a header"));
        for (sent, received, apart) in [
            (100_000, 100_010, 0),
            (100_999, 101_000, 0),
            (103_000, 103_001, 2000),
            (90_000, 98_000, 2000),
            (90_000, 110_000, 0),
            (3_700_000, 3_700_001, 3_599_000),
        ] {
            assert_eq!(distance(&headers, sent, received), Some(apart), "{sent} {received}");
        }
    }
}
