//! Reads a Prometheus text page from a running process. Must never hide a page that cannot be read.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// One sample: name, labels, value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

/// All samples of one scrape.
#[derive(Clone, Debug, Default)]
pub struct Page(pub Vec<Sample>);

impl Page {
    /// Sum of the samples of `name` that have all `labels`; `None` where there is none.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |sample: &&Sample, (key, value): &(&str, &str)| {
            sample.labels.iter().any(|(k, v)| k == key && v == value)
        };
        let fits = |sample: &&Sample| sample.name == name && labels.iter().all(|label| has(sample, label));
        self.0.iter().filter(fits).map(|sample| sample.value).reduce(|a, b| a + b)
    }
}

/// GET `path`: status and body.
pub fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    // HTTP/1.0: the server closes, nothing is chunked.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| std::io::Error::other("no head"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Ok((status, body.to_owned()))
}

/// Scrapes `http://address/metrics`; panics if it cannot.
pub fn scrape(address: SocketAddr) -> Page {
    let (status, body) =
        get(address, "/metrics").unwrap_or_else(|error| panic!("GET {address}/metrics: {error}"));
    assert_eq!(status, 200, "GET {address}/metrics");
    parse(&body)
}

/// Parses Prometheus text; lines that are no samples are left out.
pub fn parse(text: &str) -> Page {
    Page(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
}

fn sample(line: &str) -> Option<Sample> {
    let (series, rest) = match line.find('{') {
        Some(open) => {
            let close = open + line[open..].rfind('}')?;
            ((&line[..open], &line[open + 1..close]), &line[close + 1..])
        }
        None => line.split_once(' ').map(|(name, rest)| ((name, ""), rest))?,
    };
    let value = match rest.split_whitespace().next()? {
        "+Inf" => f64::INFINITY,
        number => number.parse().ok()?,
    };
    Some(Sample { name: series.0.to_owned(), labels: labels(series.1), value })
}

fn labels(mut text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    while let Some((key, rest)) = text.split_once("=\"") {
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next() {
                Some((_, '\\')) => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, other)) => value.push(other),
                    None => break rest.len(),
                },
                Some((at, '"')) => break at + 1,
                Some((_, other)) => value.push(other),
                None => break rest.len(),
            }
        };
        found.push((key.trim_matches([',', ' ']).to_owned(), value));
        text = &rest[end..];
    }
    found
}

#[test]
fn samples_are_summed_over_the_labels_not_asked_for() {
    let page = parse("# HELP x y\nx{a=\"1\",b=\"q\\\"}\"} 2\nx{a=\"1\",b=\"s\"} 3\ny 7\nz{le=\"+Inf\"} 1\n");
    assert_eq!(page.get("x", &[("a", "1")]), Some(5.0));
    assert_eq!(page.get("x", &[("b", "q\"}")]), Some(2.0));
    assert_eq!(page.get("y", &[]), Some(7.0));
    assert_eq!(page.get("x", &[("a", "2")]), None);
    assert_eq!(page.get("z", &[("le", "+Inf")]), Some(1.0));
}
