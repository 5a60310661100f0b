//! Journal lines written by hand: the same bytes as serde makes of a [`Line`], without a `Line` for each event. Must
//! never differ from what [`super::journal::read_dir`] reads; a test holds the two together.
//!
//! Hot path: once an event. Allocates nothing but the growth of the buffer.

use super::{Outcome, journal::Line};
use crate::event::{Position, headers::rfc3339_ms};
use std::{io::Write, net::SocketAddr};

/// An ending, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// When it ended, Unix µs.
    pub ended_us: i64,
    /// `event-id`, empty if unknown.
    pub id: &'a str,
    /// Where.
    pub position: &'a Position,
    /// How.
    pub outcome: Outcome,
    /// HTTP status of a complete answer.
    pub status: Option<u16>,
    /// Endpoint of the call.
    pub endpoint: Option<SocketAddr>,
    /// When the request was handed to the connection (Unix ms), 0 if never.
    pub sent_ms: i64,
    /// Duration of the call in microseconds.
    pub took_us: i64,
    /// Why.
    pub reason: Option<&'a str>,
    /// Token of the claimer in hexadecimal, if it was not this owner.
    pub owner: Option<&'a str>,
    /// Events it stands for.
    pub count: u64,
}

/// What stands in every line of one subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Trigger, `namespace/name`.
    pub trigger: String,
    /// The trigger's uid: a trigger made anew under the same name is another series.
    pub uid: String,
    /// Function, `namespace/name`.
    pub function: String,
    /// Owner token in hexadecimal, new for every start of the subscription.
    pub owner: String,
}

/// Writes the lines of one subscription.
#[derive(Debug)]
pub struct LineWriter {
    names: Names,
    /// `","trigger":…,"function":…,"id":`, which is the same in every line.
    head: Vec<u8>,
    /// The endpoint of the last line as text: functions have few.
    endpoint: Option<(SocketAddr, String)>,
}

impl LineWriter {
    /// A writer for one subscription.
    pub fn new(names: Names) -> Self {
        let mut head = b"\",\"trigger\":".to_vec();
        text(&mut head, &names.trigger);
        head.extend_from_slice(b",\"uid\":");
        text(&mut head, &names.uid);
        head.extend_from_slice(b",\"function\":");
        text(&mut head, &names.function);
        head.extend_from_slice(b",\"id\":");
        Self { names, head, endpoint: None }
    }

    /// Appends the line of `entry` to `buffer`.
    pub fn write(&mut self, buffer: &mut Vec<u8>, entry: &Entry<'_>) {
        let position = entry.position;
        buffer.extend_from_slice(b"{\"ts\":\"");
        buffer.extend_from_slice(&time(entry.ended_us));
        buffer.extend_from_slice(&self.head);
        text(buffer, entry.id);
        buffer.extend_from_slice(b",\"stream\":");
        text(buffer, &position.stream);
        match &position.coordinates {
            Some(coordinates) => {
                buffer.extend_from_slice(b",\"shard\":-1,\"sequence\":-1,\"coordinates\":");
                text(buffer, coordinates);
            }
            None => {
                number(buffer, b",\"shard\":", position.shard);
                number(buffer, b",\"sequence\":", position.sequence);
            }
        }
        number(buffer, b",\"epoch\":", position.epoch);
        number(buffer, b",\"time_ms\":", position.time_ms);
        buffer.extend_from_slice(b",\"outcome\":\"");
        buffer.extend_from_slice(entry.outcome.as_str().as_bytes());
        buffer.push(b'"');
        if let Some(status) = entry.status {
            number(buffer, b",\"status\":", status);
        }
        if let Some(endpoint) = entry.endpoint {
            buffer.extend_from_slice(b",\"endpoint\":\"");
            buffer.extend_from_slice(self.endpoint(endpoint).as_bytes());
            buffer.push(b'"');
        }
        if entry.sent_ms != 0 {
            number(buffer, b",\"sent_ms\":", entry.sent_ms);
        }
        if entry.took_us != 0 {
            number(buffer, b",\"took_us\":", entry.took_us);
        }
        if let Some(reason) = entry.reason {
            buffer.extend_from_slice(b",\"reason\":");
            text(buffer, reason);
        }
        buffer.extend_from_slice(b",\"owner\":");
        text(buffer, entry.owner.unwrap_or(&self.names.owner));
        if entry.count != 1 {
            number(buffer, b",\"count\":", entry.count);
        }
        buffer.extend_from_slice(b"}\n");
    }

    /// The same as a value, for a dead letter.
    pub fn line(&self, entry: &Entry<'_>) -> Line {
        let position = entry.position;
        let numbers = match position.coordinates {
            Some(_) => (-1, -1),
            None => (position.shard, position.sequence),
        };
        Line {
            ts: String::from_utf8_lossy(&time(entry.ended_us)).into_owned(),
            trigger: self.names.trigger.clone(),
            uid: self.names.uid.clone(),
            function: self.names.function.clone(),
            id: entry.id.to_owned(),
            stream: position.stream.to_string(),
            shard: numbers.0,
            sequence: numbers.1,
            coordinates: position.coordinates.as_deref().map(str::to_owned),
            epoch: position.epoch,
            time_ms: position.time_ms,
            outcome: entry.outcome,
            status: entry.status,
            endpoint: entry.endpoint.map(|address| address.to_string()),
            sent_ms: entry.sent_ms,
            took_us: entry.took_us,
            reason: entry.reason.map(str::to_owned),
            owner: entry.owner.unwrap_or(&self.names.owner).to_owned(),
            count: entry.count,
        }
    }

    fn endpoint(&mut self, address: SocketAddr) -> &str {
        if self.endpoint.as_ref().is_none_or(|(last, _)| *last != address) {
            self.endpoint = Some((address, address.to_string()));
        }
        self.endpoint.as_ref().map_or("", |(_, text)| text)
    }
}

/// `2026-11-23T10:15:30.250123Z`; a clock outside of four-digit years shows the epoch.
fn time(unix_us: i64) -> [u8; 27] {
    let mut text = *b"1970-01-01T00:00:00.000000Z";
    if let Some(ms) = rfc3339_ms(unix_us.div_euclid(1000)) {
        text[..23].copy_from_slice(&ms[..23]);
        let us = unix_us.rem_euclid(1000);
        for (place, digit) in text[23..26].iter_mut().zip([us / 100, us / 10 % 10, us % 10]) {
            *place = b'0' + digit as u8;
        }
    }
    text
}

fn number(buffer: &mut Vec<u8>, name: &[u8], value: impl itoa::Integer) {
    buffer.extend_from_slice(name);
    buffer.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// A JSON string.
fn text(buffer: &mut Vec<u8>, value: &str) {
    if value.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        buffer.push(b'"');
        buffer.extend_from_slice(value.as_bytes());
        buffer.push(b'"');
    } else if serde_json::to_writer(&mut *buffer, value).is_err() {
        // Writing to memory cannot fail; a line stays a line all the same.
        let _ = buffer.write_all(b"\"\"");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn the_hand_writes_what_serde_writes() {
        let position = Position {
            stream: Arc::from("or\"ders"),
            shard: 3,
            sequence: 1 << 40,
            coordinates: None,
            epoch: -1,
            time_ms: -1,
        };
        let wide = Position { coordinates: Some(Arc::from("shard-\"7\"/4959")), ..position.clone() };
        let called = Entry {
            ended_us: 1_790_000_000_123_456,
            id: "a\\b\u{1}é",
            position: &position,
            outcome: Outcome::Failed,
            status: Some(503),
            endpoint: Some(SocketAddr::from(([127, 0, 0, 1], 8080))),
            sent_ms: 1_790_000_000_100,
            took_us: 23_456,
            reason: Some("status"),
            owner: None,
            count: 1,
        };
        let named = Entry {
            status: None,
            endpoint: None,
            sent_ms: 0,
            took_us: 0,
            outcome: Outcome::InDoubt,
            owner: Some("00ff"),
            count: 7,
            ..called
        };
        let other = Entry { endpoint: Some(SocketAddr::from(([0; 16], 1))), reason: None, id: "", ..called };
        let far = Entry { position: &wide, ..called };
        let mut writer = LineWriter::new(Names {
            trigger: "ns/\"t\"".into(),
            uid: "u-1".into(),
            function: "ns/f".into(),
            owner: "0123".into(),
        });
        for entry in [called, named, other, far, called] {
            let mut by_hand = Vec::new();
            writer.write(&mut by_hand, &entry);
            let line = writer.line(&entry);
            let by_serde = serde_json::to_string(&line).expect("a line is JSON") + "\n";
            assert_eq!(String::from_utf8_lossy(&by_hand), by_serde);
            assert_eq!(line.ts, "2026-09-21T14:13:20.123456Z");
        }
    }
}
