//! What callers are told: the function's answer, an earlier one again, or a problem in our own words (RFC 9457). Pure.
//! Must never say that a request may be sent again where the function may have run.

use crate::{
    dispatch::store::{Held, Kept},
    event::{exchange::Answer, headers::EVENT_ID},
    ledger::Outcome,
    sources::push::{
        offer::{SOON, Verdict},
        problem::{Told, later, problem},
    },
};
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::{CONTENT_TYPE, RETRY_AFTER},
};
use http_body_util::Full;

/// Says that the answer is that of an earlier request with the same id.
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
/// What became of the event.
const OUTCOME: HeaderName = HeaderName::from_static("kubeless-outcome");

/// A verdict for the caller.
pub fn told(verdict: &Verdict) -> Told {
    match verdict {
        Verdict::Rejected(reason) => rejected(reason),
        Verdict::Later { why, after, .. } => later(why, *after),
        Verdict::Passed(outcome, reason) => passed(*outcome, reason),
        Verdict::Repeat(held) => of_repeat(held),
        Verdict::Mismatch => mismatch(),
        Verdict::Ended { event, outcome, reason } => {
            let answer = event.exchange.as_ref().and_then(|exchange| exchange.answer());
            of_call(&event.attributes.id, *outcome, *reason, answer)
        }
    }
}

/// Why a request is no event.
fn rejected(reason: &str) -> Told {
    let status = match reason {
        "body_too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        "too_many_headers" | "headers_too_large" => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "ce_batch" => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        _ => StatusCode::BAD_REQUEST,
    };
    marked(problem(status, reason), Outcome::Rejected)
}

/// An event that ends without a call.
fn passed(outcome: Outcome, reason: &str) -> Told {
    let status = if outcome == Outcome::Filtered { StatusCode::NO_CONTENT } else { StatusCode::GONE };
    let mut told = problem(status, reason);
    if status == StatusCode::NO_CONTENT {
        *told.body_mut() = Full::default();
        told.headers_mut().remove(CONTENT_TYPE);
    }
    marked(told, outcome)
}

/// What the call brought.
fn of_call(id: &str, outcome: Outcome, reason: Option<&str>, answer: Option<&Answer>) -> Told {
    let told = match (outcome, answer) {
        (Outcome::Delivered | Outcome::Failed, Some(answer)) if answer.whole => {
            let mut told = Response::new(Full::new(answer.body.clone()));
            *told.status_mut() = answer.status;
            *told.headers_mut() = answer.headers.clone();
            told
        }
        (Outcome::Delivered | Outcome::Failed, _) => problem(
            StatusCode::BAD_GATEWAY,
            "the function was called; its answer is longer than is handed on",
        ),
        (Outcome::Unreachable, _) => later("the function could not be reached and was not called", SOON),
        (_, _) if reason == Some("timeout") => {
            problem(StatusCode::GATEWAY_TIMEOUT, "the function did not answer in time; it may have run")
        }
        _ => problem(StatusCode::BAD_GATEWAY, "no complete answer from the function; it may have run"),
    };
    let mut told = marked(told, outcome);
    if let Ok(id) = HeaderValue::from_str(id) {
        told.headers_mut().insert(EVENT_ID, id);
    }
    told
}

/// The same id again.
fn of_repeat(held: &Held) -> Told {
    let Some(end) = &held.end else {
        let mut told = problem(StatusCode::CONFLICT, "a request with this id is being worked on");
        told.headers_mut().insert(RETRY_AFTER, HeaderValue::from(SOON.as_secs()));
        return marked(told, Outcome::Duplicate);
    };
    let mut told = match &end.answer {
        Some(kept) if kept.whole => restored(kept),
        Some(kept) => {
            let status = kept.status;
            let detail = format!("the function answered {status} before; that answer was too large to keep");
            problem(StatusCode::CONFLICT, &detail)
        }
        None if end.outcome == Outcome::InDoubt => problem(
            StatusCode::BAD_GATEWAY,
            "in doubt: the dispatcher that worked on this id ended before it had an outcome; it may have run",
        ),
        None => problem(
            StatusCode::BAD_GATEWAY,
            "the call for this id brought no complete answer; it may have run",
        ),
    };
    told.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    marked(told, Outcome::Duplicate)
}

/// The same id with another content.
fn mismatch() -> Told {
    let detail = "this id was used with another method, path, query, content type or body";
    marked(problem(StatusCode::UNPROCESSABLE_ENTITY, detail), Outcome::Rejected)
}

fn restored(kept: &Kept) -> Told {
    let mut told = Response::new(Full::new(kept.body.clone()));
    *told.status_mut() = StatusCode::from_u16(kept.status).unwrap_or(StatusCode::BAD_GATEWAY);
    for (name, value) in &kept.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_str(value)) {
            told.headers_mut().append(name, value);
        }
    }
    told
}

fn marked(mut told: Told, outcome: Outcome) -> Told {
    told.headers_mut().insert(OUTCOME, HeaderValue::from_static(outcome.as_str()));
    told
}
