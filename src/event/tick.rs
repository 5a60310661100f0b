//! A scheduled instant as an event, the same whoever calls: the Pod of a Job or the dispatcher. Must never read a clock:
//! the instant is the event's time and its identity.

use super::{Attributes, Event, Position};
use bytes::Bytes;
use http::HeaderValue;

/// The emitter that functions see, as in Kubeless.
pub const EMITTER: &str = "cronjobtrigger.kubeless.io";
/// CloudEvents type of a call by the clock.
pub const TICK_TYPE: &str = "io.kubeless.cron.tick";

/// One instant of one trigger.
#[derive(Clone, Debug)]
pub struct Tick<'a> {
    /// UID of the trigger, the first half of the event's id.
    pub trigger_uid: &'a str,
    /// Path of the trigger in the API, the source of the event.
    pub source: &'a str,
    /// The second half of the id: the instant in UTC, or the name of a Job that was started by hand.
    pub name: String,
    /// The instant, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// JSON that is sent; empty where nothing is.
    pub payload: Bytes,
}

impl Tick<'_> {
    /// The event. Equal ticks make equal events, in every process.
    pub fn event(self) -> Event {
        Event {
            position: Position {
                coordinates: None,
                stream: self.trigger_uid.into(),
                shard: 0,
                sequence: self.time_ms.div_euclid(1000),
                epoch: -1,
                time_ms: self.time_ms,
            },
            business: None,
            lane: None,
            attributes: Attributes {
                id: format!("{}/{}", self.trigger_uid, self.name).into(),
                source: self.source.into(),
                kind: TICK_TYPE.into(),
                subject: None,
                time_ms: self.time_ms,
                extensions: Vec::new(),
            },
            content_type: HeaderValue::from_static("application/json"),
            headers: Vec::new(),
            weight: self.payload.len(),
            exchange: None,
            data: Some(self.payload),
        }
    }
}
