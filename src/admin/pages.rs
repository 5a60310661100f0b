//! Path → answer, without a socket. Must never take long or change anything: probes and scrapes come here.

use super::{AdminContext, readiness::Readiness};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;

const TEXT: &str = "text/plain; charset=utf-8";
/// The content type that Prometheus asks for.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Answers one request.
pub fn answer<B>(context: &AdminContext, request: &Request<B>) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refusal = page(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned());
        refusal.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refusal;
    }
    let verbose = request
        .uri()
        .query()
        .is_some_and(|query| query.split('&').any(|part| part == "verbose" || part.starts_with("verbose=")));
    match request.uri().path() {
        "/metrics" => page(StatusCode::OK, PROMETHEUS, context.metrics.render()),
        "/livez" | "/healthz" if verbose => {
            page(StatusCode::OK, TEXT, "[+]process ok\nlivez check passed\n".to_owned())
        }
        "/livez" | "/healthz" => page(StatusCode::OK, TEXT, "ok".to_owned()),
        "/readyz" => readyz(&context.readiness, verbose),
        "/debug/subscriptions" => {
            let snapshot = (context.subscriptions)();
            page(StatusCode::OK, "application/json", format!("{snapshot:#}\n"))
        }
        path => match path.strip_prefix("/readyz/") {
            Some(name) => one_check(&context.readiness, name),
            None => not_found(),
        },
    }
}

/// As kube-apiserver: `ok`, or one line for each check when asked or when one fails.
fn readyz(readiness: &Readiness, verbose: bool) -> Response<Full<Bytes>> {
    let checks = readiness.snapshot();
    let ready = checks.iter().all(|(_, state)| state.is_ok());
    if ready && !verbose {
        return page(StatusCode::OK, TEXT, "ok".to_owned());
    }
    let mut text = String::new();
    for (name, state) in &checks {
        match state {
            Ok(()) => text.push_str(&format!("[+]{name} ok\n")),
            Err(reason) => text.push_str(&format!("[-]{name} failed: {reason}\n")),
        }
    }
    text.push_str(if ready { "readyz check passed\n" } else { "readyz check failed\n" });
    page(status_of(ready), TEXT, text)
}

fn one_check(readiness: &Readiness, name: &str) -> Response<Full<Bytes>> {
    match readiness.snapshot().into_iter().find(|(known, _)| known == name) {
        Some((_, Ok(()))) => page(StatusCode::OK, TEXT, "ok".to_owned()),
        Some((_, Err(reason))) => page(status_of(false), TEXT, format!("failed: {reason}\n")),
        None => not_found(),
    }
}

const fn status_of(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn not_found() -> Response<Full<Bytes>> {
    let paths = "not found; there are /metrics /livez /healthz /readyz /debug/subscriptions\n";
    page(StatusCode::NOT_FOUND, TEXT, paths.to_owned())
}

fn page(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
