//! `kubeless function call NAME`: one request through the API server's proxy to the function's Service. Must never
//! send a request twice: nothing here tries again.

use super::describe::typed;
use crate::{
    cli::{
        Exit, UsageError,
        output::{self, talk},
        session::{
            PROGRAM, Place, Session, explain,
            objects::{FUNCTIONS, Kind},
            shown,
        },
    },
    cluster::client,
    config::quantity::duration,
};
use anyhow::{Context, anyhow};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::{client::Body, core::Status};
use std::{
    io::{IsTerminal, Read, Write},
    path::PathBuf,
    time::Duration,
};

/// Largest body that is read from a file or from standard input: what the dispatcher hands on by default.
const MAX_BODY: u64 = 64 << 20;
/// Added to the function's own timeout, so that its answer about it arrives.
const MARGIN: Duration = Duration::from_secs(10);
/// Bytes of an error answer that are kept to see who wrote it.
const MAX_STATUS: usize = 64 * 1024;

const PROXY: Kind =
    Kind { kind: "Service", plural: "services/proxy", noun: "service", group: "", version: "v1" };

const EXAMPLES: &str = "Examples:
  kubeless function call hello
  kubeless function call hello --data '{\"name\":\"Ada\"}'
  kubeless function call hello --data @event.json -H 'event-id: 42'
  cat photo.jpg | kubeless function call resize --data @- -H 'content-type: image/jpeg' > small.jpg
";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES, after_help = "Without data it is a GET, with data a POST. The answer's body goes to \
standard output; exit code 3 says that the function answered with an error, 4 that nobody knows whether it ran.")]
pub struct Args {
    /// Name of the function.
    name: String,
    /// Body: a text, @FILE, or @- for standard input.
    #[arg(short, long, value_name = "TEXT|@FILE")]
    data: Option<String>,
    /// Body from a file.
    #[arg(short, long, value_name = "FILE", conflicts_with = "data")]
    file: Option<PathBuf>,
    /// Header, as 'name: value'; may be given several times.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// Longest wait for the answer. Default: the function's own timeout and 10 s.
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    timeout: Option<Duration>,
}

/// Runs the command.
pub fn run(args: &Args, place: &Place) -> anyhow::Result<Exit> {
    let headers = args.headers.iter().map(|text| header(text)).collect::<Result<Vec<_>, _>>()?;
    let data = body(args)?;
    place.run(async |session| {
        let function = typed(&session.get(&FUNCTIONS, &args.name).await?)?;
        let limit = match args.timeout {
            Some(timeout) => timeout,
            None => function.timeout()? + MARGIN,
        };
        let port = function.service_port();
        let port = port.name.unwrap_or_else(|| port.port.to_string());
        let mut request = request(&session.namespace, &args.name, &port, data)?;
        for (name, value) in headers {
            request.headers_mut().insert(name, value);
        }
        let client = place
            .connect
            .patient(PROGRAM, limit)
            .await
            .map_err(|error| explain::connect(&place.connect, &error))?;
        let what = format!("calling {} through {}", args.name, session.connection.server);
        match shown(&what, client.send(request)).await {
            Ok(response) => answer(session, &args.name, response).await,
            Err(error) => {
                talk(&format!("error: {:#}", unanswered(session, &args.name, limit, &error)));
                Ok(Exit::Unknown)
            }
        }
    })
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), UsageError> {
    let wrong = || UsageError(format!("{text:?} is not a header; write -H 'name: value'"));
    let (name, value) = text.split_once([':', '=']).ok_or_else(wrong)?;
    Ok((name.trim().parse().map_err(|_| wrong())?, value.trim().parse().map_err(|_| wrong())?))
}

fn body(args: &Args) -> anyhow::Result<Option<Vec<u8>>> {
    let path = match (&args.data, &args.file) {
        (Some(text), _) => match text.strip_prefix('@') {
            Some(path) => PathBuf::from(path),
            None => return Ok(Some(text.clone().into_bytes())),
        },
        (None, Some(path)) => path.clone(),
        (None, None) => return Ok(None),
    };
    let source: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(std::io::stdin().lock()),
        false => Box::new(std::fs::File::open(&path).with_context(|| format!("opening {}", path.display()))?),
    };
    let mut data = Vec::new();
    source
        .take(MAX_BODY + 1)
        .read_to_end(&mut data)
        .with_context(|| format!("reading {}", path.display()))?;
    anyhow::ensure!(
        data.len() as u64 <= MAX_BODY,
        "{} is larger than {} MiB",
        path.display(),
        MAX_BODY >> 20
    );
    Ok(Some(data))
}

/// With the headers that Kubeless sends.
fn request(namespace: &str, name: &str, port: &str, data: Option<Vec<u8>>) -> anyhow::Result<Request<Body>> {
    let uri = format!("/api/v1/namespaces/{namespace}/services/{name}:{port}/proxy/");
    let method = if data.is_some() { Method::POST } else { Method::GET };
    let mut request = Request::builder()
        .method(method)
        .uri(uri)
        .header("event-id", format!("{:016x}", fastrand::u64(..)))
        .header("event-time", jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
        .header("event-namespace", "cli.kubeless.io");
    if let Some(data) = &data {
        let object = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(data).is_ok();
        let kind = if object { "application/json" } else { "application/x-www-form-urlencoded" };
        request = request.header("event-type", kind).header("content-type", kind);
    }
    Ok(request.body(Body::from(data.unwrap_or_default()))?)
}

async fn answer(session: &Session, name: &str, response: Response<Body>) -> anyhow::Result<Exit> {
    let status = response.status();
    if status.is_success() {
        print(response.into_body()).await.context("the answer broke off")?;
        return Ok(Exit::Ok);
    }
    let (parts, body) = response.into_parts();
    let bytes = http_body_util::Limited::new(body, MAX_STATUS).collect().await;
    let bytes = bytes.map_err(|error| anyhow!("the answer broke off: {error}"))?.to_bytes();
    if let Some(refusal) = own_status(&parts.status, &bytes) {
        let (exit, text) = refused(session, name, refusal);
        talk(&output::printable_lines(&format!("error: {text}")));
        return Ok(exit);
    }
    write(&bytes)?;
    let hint = match status {
        StatusCode::REQUEST_TIMEOUT => "; it ran longer than its timeout (function update --timeout)",
        _ => "",
    };
    talk(&format!(
        "error: function {name} answered {status}{hint}; what it wrote: kubeless function logs {name}"
    ));
    Ok(Exit::FunctionFailed)
}

/// The API server's own words, which it sends in the shape of its errors.
fn own_status(code: &StatusCode, body: &[u8]) -> Option<Status> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    if value["kind"] != "Status" || value["apiVersion"] != "v1" {
        return None;
    }
    let status: Status = serde_json::from_value(value).ok()?;
    (status.code == code.as_u16() && !status.reason.is_empty()).then_some(status)
}

/// Whether the function may have run, and what to do.
fn refused(session: &Session, name: &str, status: Status) -> (Exit, String) {
    let message = status.message.clone();
    if message.contains("no endpoints available") {
        let text = format!("no Pod of {name} is ready; why: kubeless function describe {name}");
        return (Exit::Failed, text);
    }
    if message.contains("error trying to reach service") {
        // A connection that was refused carried nothing; everything else may have.
        let never =
            ["connection refused", "no route to host", "dial tcp"].iter().any(|word| message.contains(word));
        return (if never { Exit::Failed } else { Exit::Unknown }, message);
    }
    if status.code == 404 {
        let text = format!("function {name} has no Service yet; why: kubeless function describe {name}");
        return (Exit::Failed, text);
    }
    let asked = explain::Asked {
        verb: "create",
        kind: PROXY,
        namespace: Some(&session.namespace),
        name,
        server: &session.connection.server,
    };
    (Exit::Failed, format!("{:#}", explain::api(&asked, &kube::Error::Api(status.boxed()))))
}

fn unanswered(session: &Session, name: &str, limit: Duration, error: &kube::Error) -> anyhow::Error {
    let words = client::explain(error);
    if words.contains("timed out") {
        return anyhow!("no answer from function {name} within {}; it may have run", duration::format(limit));
    }
    anyhow!(
        "the connection to {} broke off: {words}; function {name} may have run",
        session.connection.server
    )
}

async fn print(mut body: Body) -> anyhow::Result<()> {
    let mut last = b'\n';
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            last = data.last().copied().unwrap_or(last);
            write(&data)?;
        }
    }
    if last != b'\n' && std::io::stdout().is_terminal() {
        writeln!(std::io::stdout())?;
    }
    Ok(())
}

/// Bytes as they are for a file or pipe; on a terminal control characters are shown, not obeyed.
fn write(data: &[u8]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.is_terminal() {
        true => out.write_all(output::printable_text(&String::from_utf8_lossy(data)).as_bytes())?,
        false => out.write_all(data)?,
    }
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_kubeless() {
        let get = request("shop", "hello", "http-function-port", None).unwrap();
        assert_eq!(get.method(), Method::GET);
        assert_eq!(get.uri(), "/api/v1/namespaces/shop/services/hello:http-function-port/proxy/");
        assert_eq!(get.headers()["event-namespace"], "cli.kubeless.io");
        let post = request("shop", "hello", "8080", Some(b"{\"a\":1}".to_vec())).unwrap();
        assert_eq!(
            (post.method(), &post.headers()["content-type"]),
            (&Method::POST, &"application/json".parse().unwrap())
        );
        let text = request("shop", "hello", "8080", Some(b"hi".to_vec())).unwrap();
        assert_eq!(text.headers()["event-type"], "application/x-www-form-urlencoded");
    }

    #[test]
    fn headers_as_curl_or_as_pairs() {
        for text in ["a: b", "a=b", "a:b"] {
            let (name, value) = header(text).unwrap();
            assert_eq!((name.as_str(), value.to_str().unwrap()), ("a", "b"));
        }
        assert!(header("nothing").is_err() && header("a b: c").is_err());
    }

    #[test]
    fn the_functions_own_json_is_not_the_api_servers() {
        let own = br#"{"kind":"Status","apiVersion":"v1","reason":"Forbidden","code":403,"message":"no"}"#;
        assert!(own_status(&StatusCode::FORBIDDEN, own).is_some());
        assert!(own_status(&StatusCode::INTERNAL_SERVER_ERROR, own).is_none());
        assert!(own_status(&StatusCode::FORBIDDEN, b"{\"error\":1}").is_none());
    }
}
