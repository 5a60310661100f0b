//! The client protocol: lines into operations, messages into frames. Must never read more than its bounds before it says
//! no: a line has an end, and so has a payload.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Deserialize;
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _};

/// Bytes of a control line, as of the real server.
const MAX_LINE: usize = 4096;
/// Bytes of headers and body of a message, as of the real server.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// What a client says about itself.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default)]
pub struct Connect {
    /// Every operation is acknowledged.
    pub verbose: bool,
    /// It receives what it sends itself.
    pub echo: bool,
    /// It reads headers.
    pub headers: bool,
    /// It wants to be told when nobody listens to a request.
    pub no_responders: bool,
}

impl Default for Connect {
    fn default() -> Self {
        Self { verbose: false, echo: true, headers: false, no_responders: false }
    }
}

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where to.
    pub subject: String,
    /// Where answers go.
    pub reply: Option<String>,
    /// Bytes of the payload that are headers.
    pub headers: usize,
    /// Headers and body.
    pub payload: Bytes,
}

/// One operation of a client.
#[derive(Debug)]
pub enum Operation {
    /// CONNECT
    Connect(Connect),
    /// PING
    Ping,
    /// PONG
    Pong,
    /// SUB
    Subscribe {
        /// Subject or pattern.
        subject: String,
        /// Queue group.
        queue: Option<String>,
        /// The client's name for it.
        sid: String,
    },
    /// UNSUB
    Unsubscribe {
        /// The client's name for it.
        sid: String,
        /// After so many messages; at once without.
        after: Option<u64>,
    },
    /// PUB and HPUB
    Publish(Message),
}

/// Why a connection ends, in the words of the protocol.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    /// The client went away.
    #[error("Connection Closed")]
    Closed,
    /// A line is no operation.
    #[error("Unknown Protocol Operation")]
    Unknown,
    /// A line has no end.
    #[error("Maximum Control Line Exceeded")]
    Line,
    /// A message is too large.
    #[error("Maximum Payload Violation")]
    Payload,
}

impl From<std::io::Error> for Refusal {
    fn from(_: std::io::Error) -> Self {
        Self::Closed
    }
}

/// Reads the next operation.
pub async fn read(from: &mut (impl AsyncBufRead + Unpin)) -> Result<Operation, Refusal> {
    let mut line = Vec::new();
    (&mut *from).take(MAX_LINE as u64).read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') {
        return Err(if line.len() < MAX_LINE { Refusal::Closed } else { Refusal::Line });
    }
    let line = std::str::from_utf8(&line).map_err(|_| Refusal::Unknown)?.trim();
    let (verb, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let words: Vec<&str> = rest.split_ascii_whitespace().collect();
    let own = |text: &str| text.to_owned();
    match (verb.to_ascii_uppercase().as_str(), words.as_slice()) {
        ("PING", _) => Ok(Operation::Ping),
        ("PONG", _) => Ok(Operation::Pong),
        ("CONNECT", _) => serde_json::from_str(rest).map(Operation::Connect).map_err(|_| Refusal::Unknown),
        ("SUB", [subject, sid]) => {
            Ok(Operation::Subscribe { subject: own(subject), queue: None, sid: own(sid) })
        }
        ("SUB", [subject, queue, sid]) => {
            Ok(Operation::Subscribe { subject: own(subject), queue: Some(own(queue)), sid: own(sid) })
        }
        ("UNSUB", [sid]) => Ok(Operation::Unsubscribe { sid: own(sid), after: None }),
        ("UNSUB", [sid, after]) => {
            let after = after.parse().map_err(|_| Refusal::Unknown)?;
            // Nought means no limit to those who write it.
            Ok(Operation::Unsubscribe { sid: own(sid), after: Some(after).filter(|after| *after > 0) })
        }
        ("PUB", [to @ .., total]) => publish(from, to, "0", total).await,
        ("HPUB", [to @ .., headers, total]) => publish(from, to, headers, total).await,
        _ => Err(Refusal::Unknown),
    }
}

async fn publish(
    from: &mut (impl AsyncRead + Unpin),
    to: &[&str],
    headers: &str,
    total: &str,
) -> Result<Operation, Refusal> {
    let number = |text: &str| text.parse::<usize>().map_err(|_| Refusal::Unknown);
    let (headers, total) = (number(headers)?, number(total)?);
    let (subject, reply) = match to {
        [subject] => (*subject, None),
        [subject, reply] => (*subject, Some((*reply).to_owned())),
        _ => return Err(Refusal::Unknown),
    };
    if total > MAX_PAYLOAD {
        return Err(Refusal::Payload);
    }
    if headers > total {
        return Err(Refusal::Unknown);
    }
    let mut payload = vec![0; total + 2];
    from.read_exact(&mut payload).await?;
    if !payload.ends_with(b"\r\n") {
        return Err(Refusal::Unknown);
    }
    payload.truncate(total);
    let subject = subject.to_owned();
    Ok(Operation::Publish(Message { subject, reply, headers, payload: payload.into() }))
}

/// The message as the subscription `sid` receives it.
pub fn frame(message: &Message, sid: &str, reads_headers: bool) -> Bytes {
    let (headers, body) = message.payload.split_at(message.headers);
    let reply = message.reply.as_deref().map_or_else(String::new, |reply| format!("{reply} "));
    let (subject, total) = (&message.subject, message.payload.len());
    let mut frame = BytesMut::with_capacity(total + MAX_LINE / 16);
    if headers.is_empty() || !reads_headers {
        frame.put_slice(format!("MSG {subject} {sid} {reply}{}\r\n", body.len()).as_bytes());
    } else {
        frame.put_slice(format!("HMSG {subject} {sid} {reply}{} {total}\r\n", headers.len()).as_bytes());
        frame.put_slice(headers);
    }
    frame.put_slice(body);
    frame.put_slice(b"\r\n");
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn one(text: &str) -> Result<Operation, Refusal> {
        read(&mut text.as_bytes()).await
    }

    #[tokio::test]
    async fn messages_keep_headers_reply_and_body() {
        let Ok(Operation::Publish(message)) = one("HPUB a.b inbox 12 14\r\nNATS/1.0\r\n\r\nhi\r\n").await
        else {
            panic!("not read");
        };
        assert_eq!((message.headers, message.reply.as_deref()), (12, Some("inbox")));
        assert_eq!(frame(&message, "7", true), "HMSG a.b 7 inbox 12 14\r\nNATS/1.0\r\n\r\nhi\r\n".as_bytes());
        assert_eq!(frame(&message, "7", false), "MSG a.b 7 inbox 2\r\nhi\r\n".as_bytes());
        let Ok(Operation::Publish(message)) = one("pub a 0\r\n\r\n").await else { panic!("not read") };
        assert_eq!(frame(&message, "1", true), "MSG a 1 0\r\n\r\n".as_bytes());
    }

    #[tokio::test]
    async fn what_is_no_operation_or_too_large_is_refused() {
        assert_eq!(one("PUB a 1048577\r\n").await.unwrap_err(), Refusal::Payload);
        assert_eq!(one("HPUB a 9 4\r\nabcd\r\n").await.unwrap_err(), Refusal::Unknown);
        assert_eq!(one("PUB a 2\r\nabcd\r\n").await.unwrap_err(), Refusal::Unknown);
        assert_eq!(one("HELO\r\n").await.unwrap_err(), Refusal::Unknown);
        assert_eq!(one("").await.unwrap_err(), Refusal::Closed);
        assert_eq!(one(&"x".repeat(MAX_LINE + 1)).await.unwrap_err(), Refusal::Line);
    }
}
