//! `tick`: one call of one function at one scheduled instant, made by the Pod of a Job. Must never send a request twice:
//! it waits until a connection can be made at all, then makes exactly one attempt, and follows no redirect.

use bytes::Bytes;
use clap::Args;
use jiff::Timestamp;
use std::{
    io::{self, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use crate::{
    clock,
    event::{
        Event,
        headers::HeaderTemplate,
        tick::{EMITTER, Tick},
    },
};

/// Variable with the JSON that is sent; absent: a GET request without a body.
pub const PAYLOAD: &str = "KUBELESS_PAYLOAD";
/// Variable with the name of the Job, from which the scheduled instant is read.
pub const JOB_NAME: &str = "KUBELESS_JOB_NAME";

/// Pause between looks whether the function can be reached: nothing has been sent yet.
const LOOK: Duration = Duration::from_millis(500);
/// Longest wait for one connection.
const CONNECT: Duration = Duration::from_secs(5);
/// Bytes of the answer that are shown in the Pod's log.
const SHOWN: u64 = 64 * 1024;
/// A CronJob's Jobs are named after the minute that they were due at.
const SECONDS_PER_MINUTE: i64 = 60;

/// Flags of `tick`. The payload comes as a variable and never passes a shell.
#[derive(Args, Clone, Debug)]
pub struct TickArgs {
    /// Host name of the function's Service.
    #[arg(long, value_name = "NAME")]
    pub host: String,
    /// Port of the Service.
    #[arg(long, value_name = "PORT")]
    pub port: u16,
    /// Seconds to wait for the function to be reachable, and again for its answer.
    #[arg(long, value_name = "SECONDS")]
    pub timeout: u64,
    /// Path of the trigger in the API, the source of the event.
    #[arg(long, value_name = "PATH")]
    pub source: String,
    /// UID of the trigger, the first half of the event's id.
    #[arg(long, value_name = "UID")]
    pub trigger_uid: String,
    /// Name of the Job.
    #[arg(long, value_name = "NAME", env = JOB_NAME)]
    pub job: String,
    /// JSON that is sent.
    #[arg(long, value_name = "JSON", env = PAYLOAD, hide_env_values = true)]
    pub payload: Option<String>,
}

/// Why the call does not count as a success.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was sent.
    #[error("{address} not reachable within {seconds} s: {what}; nothing was sent")]
    Unreachable {
        /// Host and port.
        address: String,
        /// How long was waited.
        seconds: u64,
        /// The last trouble.
        what: String,
    },
    /// A complete answer that is not 2xx.
    #[error("the function answered with status {0}")]
    Failed(u16),
    /// Sent, and no complete answer came.
    #[error("no complete answer: {0}; the function may have run")]
    Unanswered(String),
}

/// Calls the function and shows the beginning of its answer on `out`.
///
/// # Errors
/// See [`Error`].
pub fn run(arguments: &TickArgs, out: &mut dyn Write) -> Result<(), Error> {
    let address = format!("{}:{}", arguments.host, arguments.port);
    wait_until_reachable(&address, Duration::from_secs(arguments.timeout))?;
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        // What a cluster's Pods inherit for the outside world is not for functions.
        .proxy(None)
        .timeout_connect(Some(CONNECT))
        .timeout_global(Some(Duration::from_secs(arguments.timeout)))
        .build()
        .into();
    let mut request = http::Request::builder()
        .uri(format!("http://{address}/"))
        .method(if arguments.payload.is_some() { "POST" } else { "GET" });
    let event = event(arguments, clock::unix_ms());
    let user_agent = concat!("kubeless-tick/", env!("CARGO_PKG_VERSION"));
    for (name, value) in &HeaderTemplate::new(EMITTER, None, user_agent).request_headers(&event) {
        request = request.header(name, value);
    }
    let sent = match &arguments.payload {
        Some(payload) => request.body(payload.clone()).map(|request| agent.run(request)),
        None => request.body(()).map(|request| agent.run(request)),
    };
    let answer = sent.map_err(|error| Error::Unanswered(error.to_string()))?;
    let answer = answer.map_err(|error| Error::Unanswered(error.to_string()))?;
    let status = answer.status();
    let mut body = answer.into_body().into_reader().take(SHOWN);
    // The status is the outcome; a log that cannot be written changes nothing.
    let _ = io::copy(&mut body, out).and_then(|_| writeln!(out));
    if status.is_success() { Ok(()) } else { Err(Error::Failed(status.as_u16())) }
}

/// Returns once a connection was made, which is closed again unused.
fn wait_until_reachable(address: &str, patience: Duration) -> Result<(), Error> {
    let started = Instant::now();
    loop {
        let what = match connect(address) {
            Ok(()) => return Ok(()),
            Err(error) => error.to_string(),
        };
        if started.elapsed() + LOOK > patience {
            let seconds = patience.as_secs();
            return Err(Error::Unreachable { address: address.to_owned(), seconds, what });
        }
        std::thread::sleep(LOOK);
    }
}

fn connect(address: &str) -> io::Result<()> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for resolved in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&resolved, CONNECT) {
            Ok(_) => return Ok(()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// The event of this instant; the same in every attempt, since the Job is named after the instant.
fn event(arguments: &TickArgs, now_ms: i64) -> Event {
    let scheduled = scheduled(&arguments.job);
    let tick = Tick {
        trigger_uid: &arguments.trigger_uid,
        source: &arguments.source,
        name: scheduled.map_or_else(|| arguments.job.clone(), |instant| instant.to_string()),
        time_ms: scheduled.map_or(now_ms, Timestamp::as_millisecond),
        payload: Bytes::from(arguments.payload.clone().unwrap_or_default()),
    };
    tick.event()
}

/// When a Job of a CronJob was due: `<name>-<minutes since 1970>`. Others (started by hand) were not due.
fn scheduled(job: &str) -> Option<Timestamp> {
    let (_, minutes) = job.rsplit_once('-')?;
    let minutes: i64 = minutes.parse().ok().filter(|_| minutes.len() >= 8)?;
    Timestamp::from_second(minutes.checked_mul(SECONDS_PER_MINUTE)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(job: &str, port: u16) -> TickArgs {
        TickArgs {
            host: "127.0.0.1".to_owned(),
            port,
            timeout: 5,
            source: "/apis/kubeless.io/v1beta1/namespaces/n/cronjobtriggers/t".to_owned(),
            trigger_uid: "u".to_owned(),
            job: job.to_owned(),
            payload: Some("{\"a\":\"it's $(HOME)\"}".to_owned()),
        }
    }

    #[test]
    fn the_id_is_the_scheduled_instant_or_the_job() {
        let due = event(&arguments("nightly-28331520", 1), 7);
        assert_eq!(&*due.attributes.id, "u/2023-11-13T16:00:00Z");
        assert_eq!(due.attributes.time_ms, 28_331_520 * 60_000);
        let by_hand = event(&arguments("try-1", 1), 7);
        assert_eq!((&*by_hand.attributes.id, by_hand.attributes.time_ms), ("u/try-1", 7));
    }

    /// Answers one connection that sends something, after one that sends nothing; returns the request.
    fn answer_once(listener: &std::net::TcpListener, answer: &str) -> String {
        loop {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut chunk = [0; 1024];
            while !String::from_utf8_lossy(&request).contains("HOME") {
                match stream.read(&mut chunk) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => request.extend_from_slice(&chunk[..count]),
                }
            }
            if request.is_empty() {
                continue;
            }
            stream.write_all(answer.as_bytes()).unwrap();
            return String::from_utf8_lossy(&request).into_owned();
        }
    }

    #[test]
    fn one_request_with_the_headers_of_every_event() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let function = std::thread::spawn(move || {
            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
            let request = answer_once(&listener, answer);
            let redirect = "HTTP/1.1 302 Found\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n";
            answer_once(&listener, redirect);
            request
        });
        let mut shown = Vec::new();
        run(&arguments("nightly-28331520", port), &mut shown).unwrap();
        assert_eq!(shown, b"hello\n");
        let redirected = run(&arguments("nightly-28331521", port), &mut Vec::new());
        assert!(matches!(redirected, Err(Error::Failed(302))), "{redirected:?}");
        let request = function.join().unwrap().to_ascii_lowercase();
        for wanted in [
            "post / http/1.1",
            "event-id: u/2023-11-13t16:00:00z",
            "event-namespace: cronjobtrigger.kubeless.io",
            "event-type: application/json",
            "event-time: 2023-11-13t16:00:00.000z",
            "ce-type: io.kubeless.cron.tick",
            "content-type: application/json",
        ] {
            assert!(request.contains(wanted), "{wanted} in {request}");
        }
        assert!(request.ends_with("{\"a\":\"it's $(home)\"}"), "{request}");
    }

    #[test]
    fn who_is_not_there_is_not_called() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let mut arguments = arguments("nightly-28331520", port);
        arguments.timeout = 0;
        let result = run(&arguments, &mut Vec::new());
        assert!(matches!(result, Err(Error::Unreachable { .. })), "{result:?}");
    }
}
