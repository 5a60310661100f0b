//! What whoever pushes is told: for each event and function the answer to the claim, the outcome, and whether the event is to be
//! offered again. Pure. Must never call an event done that a function is still owed.

use super::decode::Decoded;
use crate::{
    event::message::Rejection,
    ledger::Outcome,
    sources::push::{
        offer::{SOON, Verdict},
        problem::Told,
    },
};
use bytes::Bytes;
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::Full;
use serde::Serialize;
use std::time::Duration;

const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// What became of an event for one function.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Part {
    /// The function.
    pub function: String,
    /// `granted`, `refused` or `unknown`; absent: nobody asked the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claim: Option<&'static str>,
    /// The outcome in the journal; absent: the call runs, or nothing was claimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<&'static str>,
    /// How an event ended that was claimed before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub earlier: Option<&'static str>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Whether the event is to be offered again.
    pub again: bool,
    #[serde(skip)]
    after: Duration,
}

impl Part {
    /// Nothing was claimed: it may come again.
    pub fn later(function: &str, why: &str) -> Self {
        let (function, reason) = (function.to_owned(), Some(why.to_owned()));
        Self { function, reason, again: true, after: SOON, ..Self::default() }
    }

    /// The claim stands; nobody waits for the rest.
    pub fn claimed(function: &str) -> Self {
        Self { function: function.to_owned(), claim: Some("granted"), ..Self::default() }
    }

    /// The thread ended without a word. Offered again, the event is called only if it had not been claimed.
    pub fn silent(function: &str) -> Self {
        let why = "the dispatcher is stopping and has not said whether it claimed";
        Self { claim: Some("unknown"), ..Self::later(function, why) }
    }

    /// A verdict.
    pub fn of(function: &str, verdict: Verdict) -> Self {
        let (rejected, duplicate) = (Outcome::Rejected.as_str(), Outcome::Duplicate.as_str());
        let mut part = Self { function: function.to_owned(), ..Self::default() };
        match verdict {
            Verdict::Rejected(why) => {
                (part.outcome, part.reason) = (Some(rejected), Some(why.to_owned()));
            }
            Verdict::Later { why, after, unknown } => {
                (part.reason, part.again, part.after) = (Some(why.to_owned()), true, after);
                part.claim = unknown.then_some("unknown");
            }
            Verdict::Passed(outcome, why) => {
                (part.outcome, part.reason) = (Some(outcome.as_str()), Some(why));
            }
            Verdict::Repeat(held) => {
                (part.claim, part.outcome) = (Some("refused"), Some(duplicate));
                match held.end {
                    Some(end) => part.earlier = Some(end.outcome.as_str()),
                    // Its claim may yet be freed: one that is never sent, or whose caller went away.
                    None => {
                        part.reason = Some("it is being worked on".to_owned());
                        (part.again, part.after) = (true, SOON);
                    }
                }
            }
            Verdict::Mismatch => {
                (part.claim, part.outcome) = (Some("refused"), Some(rejected));
            }
            Verdict::Ended { outcome, reason, .. } => {
                (part.claim, part.outcome) = (Some("granted"), Some(outcome.as_str()));
                part.reason = reason.map(str::to_owned);
                // Provably not sent, and its id is free.
                if outcome == Outcome::Unreachable {
                    (part.again, part.after) = (true, SOON);
                }
            }
        }
        part
    }

    fn runs(&self) -> bool {
        !self.again && self.outcome.is_none()
    }
}

/// What became of an event.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    /// Whether it is to be offered again: for one function at least.
    again: bool,
    functions: Vec<Part>,
}

impl Line {
    /// Of an event, or of what is none.
    pub fn new(event: &Result<Decoded, Rejection>, functions: Vec<Part>) -> Self {
        let name = |pick: fn(&Decoded) -> &str| event.as_ref().ok().map(|event| pick(event).to_owned());
        Self {
            source: name(|event| &event.attributes.source),
            id: name(|event| &event.attributes.id),
            again: functions.iter().any(|part| part.again),
            functions,
        }
    }

    fn is_rejected(&self) -> bool {
        self.functions.iter().all(|part| part.outcome == Some(Outcome::Rejected.as_str()))
    }
}

/// All of it. `early`: the answer was asked for as soon as all is claimed.
pub fn told(lines: &[Line], early: bool) -> Told {
    let parts = || lines.iter().flat_map(|line| &line.functions);
    let (some, all) = (lines.iter().any(|line| line.again), lines.iter().all(|line| line.again));
    let status = if lines.is_empty() {
        StatusCode::OK
    } else if all {
        StatusCode::SERVICE_UNAVAILABLE
    } else if some {
        StatusCode::MULTI_STATUS
    } else if lines.iter().all(Line::is_rejected) {
        StatusCode::BAD_REQUEST
    } else if parts().any(Part::runs) {
        StatusCode::ACCEPTED
    } else {
        StatusCode::OK
    };
    let body = serde_json::json!({ "events": lines });
    let mut told = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *told.status_mut() = status;
    let headers = told.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if some {
        let after = parts().filter(|part| part.again).map(|part| part.after).max().unwrap_or(SOON);
        headers.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
    }
    if early {
        headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static("respond-async"));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::store::{Claim, Digest, End, Held};
    use std::slice::from_ref;

    fn held(end: Option<End>) -> Verdict {
        let key = Digest::of(&[b"k"]);
        let id = String::new();
        let claim = Claim { key, content: key, owner: 1, number: 1, id, made_ms: 0, until_ms: 0 };
        Verdict::Repeat(Box::new(Held { claim, end }))
    }

    fn later(unknown: bool) -> Verdict {
        Verdict::Later { why: "paused", after: Duration::from_secs(7), unknown }
    }

    #[test]
    fn an_event_is_done_only_if_no_function_is_owed_it() {
        let f = "f";
        let of = |verdict| Part::of(f, verdict);
        let ended = || held(Some(End { outcome: Outcome::InDoubt, answer: None }));
        let done = [Verdict::Rejected("ce_time"), Verdict::Passed(Outcome::Filtered, String::new()), ended()];
        assert!(done.into_iter().map(of).all(|part| !part.again && part.outcome.is_some()));
        let open = [later(false), later(true), held(None)];
        assert!(open.into_iter().map(of).all(|part| part.again));
        assert_eq!(of(ended()).earlier, Some("in_doubt"));
        assert_eq!((of(later(true)).claim, of(later(false)).claim), (Some("unknown"), None));
        assert_eq!(Part::silent(f).claim, Some("unknown"));
    }

    #[test]
    fn the_status_sums_up() {
        let f = "f";
        let line = |parts: &[Part]| Line::new(&Err(Rejection::BODY_TOO_LARGE), parts.to_vec());
        let (runs, done) = (Part::claimed(f), Part::of(f, Verdict::Passed(Outcome::Filtered, String::new())));
        let (open, poison) = (Part::of(f, later(false)), Part::of(f, Verdict::Rejected("ce_time")));
        let status = |lines: &[Line]| told(lines, true).status().as_u16();
        assert_eq!(status(&[line(from_ref(&done)), line(from_ref(&poison))]), 200);
        assert_eq!(status(&[line(&[done.clone(), runs])]), 202);
        assert_eq!(status(&[line(from_ref(&done)), line(&[done, open.clone()])]), 207);
        assert_eq!(status(&[line(&[poison])]), 400);
        let all = told(&[line(&[open])], false);
        assert_eq!((all.status().as_u16(), all.headers()["retry-after"].as_bytes()), (503, &b"7"[..]));
    }
}
