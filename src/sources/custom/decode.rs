//! Request → events: CloudEvents in binary and structured mode and in batches. Must never make an event of what does not name
//! itself by source and id, nor hold more of a batch than its limit.

use crate::{
    event::{
        Attributes,
        cloudevents::{Context, Invalid},
        message::{self, Headers, Limits, Rejection},
        record,
    },
    sources::push::binding::{PREFIX, decoded},
};
use bytes::Bytes;
use http::{
    HeaderMap,
    header::{CONTENT_TYPE, HeaderName, HeaderValue},
};
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::{cell::Cell, sync::Arc};

const BATCH: &[u8] = b"application/cloudevents-batch";
const STRUCTURED: &[u8] = b"application/cloudevents+json";

/// An event before it has a place: the same for every function.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// Attributes.
    pub attributes: Attributes,
    /// Type of the data.
    pub content_type: HeaderValue,
    /// Trace context.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Data.
    pub data: Option<Bytes>,
    /// Bytes that it holds.
    pub weight: usize,
}

/// A batch has more events than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany;

/// The events of a request, in order. `time_ms`: of those that name none.
///
/// # Errors
/// There are more than `most`.
pub fn events(
    (limits, most): (&Limits, usize),
    headers: &HeaderMap,
    body: &Bytes,
    time_ms: i64,
) -> Result<Vec<Result<Decoded, Rejection>>, TooMany> {
    let kind = headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    if !kind.get(..BATCH.len()).is_some_and(|head| head.eq_ignore_ascii_case(BATCH)) {
        let list = decoded(headers);
        let list: Vec<(&str, Option<&[u8]>)> = list.iter().map(|(n, v)| (*n, Some(&**v))).collect();
        return Ok(vec![event(limits, &list, body, time_ms)]);
    }
    let over = Cell::new(false);
    let mut json = serde_json::Deserializer::from_slice(body);
    let list = Bounded { most, over: &over }.deserialize(&mut json);
    let Ok(list) = list.and_then(|list| json.end().map(|()| list)) else {
        return if over.get() { Err(TooMany) } else { Ok(vec![Err(Invalid::Structure.into())]) };
    };
    let mode: [(&str, Option<&[u8]>); 1] = [("content-type", Some(STRUCTURED))];
    let each = list.into_iter().map(|json| {
        let part = body.slice_ref(json.get().as_bytes());
        event(limits, &mode, &part, time_ms)
    });
    Ok(each.collect())
}

fn event(limits: &Limits, list: &Headers<'_>, body: &Bytes, time_ms: i64) -> Result<Decoded, Rejection> {
    let scan = message::scan(limits, Some(body), list, PREFIX)?;
    let keep = |part: &[u8]| body.slice_ref(part);
    let message::Parts { context, data, content_type } =
        message::parts(&scan, Some(body), list, PREFIX, keep)?;
    let context = context.ok_or(Invalid::Missing)?;
    let mut headers = Vec::with_capacity(2);
    message::trace(&scan, Some(&context), &mut headers);
    let weight = record::ENVELOPE + body.len() + scan.bytes;
    Ok(Decoded { attributes: attributes(context, time_ms), content_type, headers, data, weight })
}

fn attributes(context: Context<'_>, time_ms: i64) -> Attributes {
    Attributes {
        id: Arc::from(&*context.id),
        source: Arc::from(&*context.source),
        kind: Arc::from(&*context.kind),
        subject: context.subject.as_deref().map(Arc::from),
        time_ms: context.time_ms.unwrap_or(time_ms),
        extensions: context.extensions,
    }
}

/// Reads a list of at most so many members.
struct Bounded<'a> {
    most: usize,
    over: &'a Cell<bool>,
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Vec<&'de RawValue>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a list of CloudEvents")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(json) = list.next_element()? {
            if found.len() == self.most {
                self.over.set(true);
                return Err(A::Error::custom("too many"));
            }
            found.push(json);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { max_body_bytes: 1 << 10, max_headers: 20, max_header_bytes: 1 << 10 };

    fn read(
        headers: &[(&str, &str)],
        body: &str,
        most: usize,
    ) -> Result<Vec<Result<String, &'static str>>, TooMany> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            map.insert(name, HeaderValue::from_str(value).expect("a value"));
        }
        let body = Bytes::copy_from_slice(body.as_bytes());
        let list = events((&LIMITS, most), &map, &body, 5)?;
        Ok(list
            .into_iter()
            .map(|one| one.map(|e| e.attributes.id.to_string()).map_err(|r| r.reason))
            .collect())
    }

    #[test]
    fn three_modes_and_what_is_none_of_them() {
        let binary = [("ce-specversion", "1.0"), ("ce-id", "e%2D1"), ("ce-source", "/s"), ("ce-type", "t")];
        assert_eq!(read(&binary, "x", 9), Ok(vec![Ok("e-1".to_owned())]));
        let one = r#"{"specversion":"1.0","id":"e-1","source":"/s","type":"t","data":{}}"#;
        let structured = [("content-type", "application/cloudevents+json; charset=utf-8")];
        assert_eq!(read(&structured, one, 9), Ok(vec![Ok("e-1".to_owned())]));
        assert_eq!(read(&structured, "no JSON", 9), Ok(vec![Err("ce_structure")]));
        assert_eq!(
            read(&[("content-type", "application/json")], "{}", 9),
            Ok(vec![Err("ce_missing_attribute")])
        );
        let batch = [("content-type", "application/cloudevents-batch+json")];
        let list = format!("[{one}, {{\"id\":\"no\"}}, 7]");
        let wanted = vec![Ok("e-1".to_owned()), Err("ce_missing_attribute"), Err("ce_structure")];
        assert_eq!(read(&batch, &list, 3), Ok(wanted));
        assert_eq!(read(&batch, &list, 2), Err(TooMany));
        assert_eq!(read(&batch, "[]", 2), Ok(vec![]));
        assert_eq!(read(&batch, "[1", 2), Ok(vec![Err("ce_structure")]));
    }
}
