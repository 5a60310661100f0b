//! `kubeless function top`: calls and failures as the functions count them, CPU and memory as the cluster measures
//! them. Must never fail because one function does not answer: its row says so.

use super::{describe::typed, rows::NONE};
use crate::{
    cli::{
        Exit,
        output::{self, Format, Table, talk},
        session::{Session, objects::FUNCTIONS, shown},
    },
    cluster::client,
};
use futures_util::{StreamExt, stream};
use http::Request;
use serde::Serialize;
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};

/// Longest wait for one function's numbers.
const ANSWER: Duration = Duration::from_secs(5);
/// Functions that are asked at once.
const AT_ONCE: usize = 16;

const EXAMPLES: &str = "Examples:
  kubeless function top
  kubeless function top -A -o json
";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(before_help = EXAMPLES)]
pub struct Args {
    /// Only this function.
    #[arg(short, long, value_name = "NAME")]
    function: Option<String>,
    /// All namespaces.
    #[arg(short = 'A', long = "all-namespaces", conflicts_with = "function")]
    all: bool,
    /// Output format.
    #[arg(short, long, alias = "out", value_enum, default_value_t)]
    output: Format,
}

/// One function and HTTP method. The keys are those of Kubeless, `cpu` and `memory` are new.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
struct Row {
    function: String,
    namespace: String,
    method: String,
    message: String,
    total_calls: u64,
    total_failures: u64,
    total_duration_seconds: f64,
    avg_duration_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<String>,
}

/// Runs the command.
pub async fn run(args: &Args, session: &Session) -> anyhow::Result<Exit> {
    let functions = match &args.function {
        Some(name) => vec![session.get(&FUNCTIONS, name).await?],
        None => session.list(&FUNCTIONS, args.all, None).await?,
    };
    let used = match functions.is_empty() {
        true => BTreeMap::new(),
        false => usage(session, args.all).await,
    };
    let asked = stream::iter(&functions).map(|function| measure(session, function)).buffered(AT_ONCE);
    let answers = shown(&format!("asking {} functions", functions.len()), asked.collect::<Vec<_>>()).await;
    let mut rows: Vec<Row> = answers.into_iter().flatten().collect();
    for row in &mut rows {
        if let Some((cpu, memory)) = used.get(&(row.namespace.clone(), row.function.clone())) {
            row.cpu = Some(format!("{}m", cpu.div_ceil(1_000_000)));
            row.memory = Some(format!("{}Mi", memory >> 20));
        }
    }
    if rows.is_empty() && matches!(args.output, Format::Table | Format::Wide) {
        talk("no functions; -n names another namespace, -A looks everywhere");
        return Ok(Exit::Ok);
    }
    output::list(&mut output::stdout(), args.output, &rows, table, |row| row.function.clone())?;
    Ok(Exit::Ok)
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "NAMESPACE",
        "METHOD",
        "TOTAL_CALLS",
        "TOTAL_FAILURES",
        "TOTAL_DURATION_SECONDS",
        "AVG_DURATION_SECONDS",
        "CPU",
        "MEMORY",
        "MESSAGE",
    ]);
    for row in rows {
        let none = || NONE.to_owned();
        table.row(&[
            row.function.clone(),
            row.namespace.clone(),
            super::rows::some(&row.method),
            row.total_calls.to_string(),
            row.total_failures.to_string(),
            format!("{:.3}", row.total_duration_seconds),
            format!("{:.3}", row.avg_duration_seconds),
            row.cpu.clone().unwrap_or_else(none),
            row.memory.clone().unwrap_or_else(none),
            row.message.clone(),
        ]);
    }
    table
}

/// Nanocores and bytes of each function's Pods, by namespace and name.
async fn usage(session: &Session, all: bool) -> BTreeMap<(String, String), (u64, u64)> {
    let space = if all { String::new() } else { format!("namespaces/{}/", session.namespace) };
    let uri = format!("/apis/metrics.k8s.io/v1beta1/{space}pods?labelSelector=function");
    let mut used = BTreeMap::new();
    let answer = match Request::get(uri).body(Vec::new()) {
        Ok(request) => session.connection.client.request::<Value>(request).await,
        Err(error) => Err(kube::Error::HttpError(error)),
    };
    match answer {
        Ok(list) => {
            for pod in list["items"].as_array().into_iter().flatten() {
                add_pod(&mut used, pod);
            }
        }
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 503 => talk(
            "CPU and MEMORY are missing: this cluster serves no metrics.k8s.io; install metrics-server \
             (https://github.com/kubernetes-sigs/metrics-server)",
        ),
        Err(error) => talk(&output::printable_lines(&format!(
            "CPU and MEMORY are missing: {} (needed: list on pods.metrics.k8s.io)",
            client::explain(&error)
        ))),
    }
    used
}

fn add_pod(used: &mut BTreeMap<(String, String), (u64, u64)>, pod: &Value) {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let sum = used.entry((text("/metadata/namespace"), text("/metadata/labels/function"))).or_default();
    for container in pod["containers"].as_array().into_iter().flatten() {
        let amount = |name: &str| container["usage"][name].as_str().and_then(quantity).unwrap_or(0.0);
        sum.0 += (amount("cpu") * 1e9) as u64;
        sum.1 += amount("memory") as u64;
    }
}

/// A Kubernetes quantity as a number.
fn quantity(text: &str) -> Option<f64> {
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let factor = match unit {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    number.parse::<f64>().ok().map(|number| number * factor)
}

/// What one function says about itself: a row for each method, or one with the reason why there is none.
async fn measure(session: &Session, function: &Value) -> Vec<Row> {
    let text = |field: &str| function["metadata"][field].as_str().unwrap_or_default().to_owned();
    let blank = Row { function: text("name"), namespace: text("namespace"), ..Row::default() };
    match tokio::time::timeout(ANSWER, scrape(session, function, &blank)).await {
        Ok(Ok(page)) => match parse(&page, &blank) {
            rows if rows.is_empty() => vec![Row { message: "not called yet".to_owned(), ..blank }],
            rows => rows,
        },
        Ok(Err(message)) => vec![Row { message, ..blank }],
        Err(_) => vec![Row { message: format!("no answer within {} s", ANSWER.as_secs()), ..blank }],
    }
}

async fn scrape(session: &Session, function: &Value, row: &Row) -> Result<String, String> {
    let port = typed(function).map_err(|error| error.to_string())?.service_port();
    let port = port.name.unwrap_or_else(|| port.port.to_string());
    let uri = format!("/api/v1/namespaces/{}/services/{}:{port}/proxy/metrics", row.namespace, row.function);
    let request = Request::get(uri).body(Vec::new()).map_err(|error| error.to_string())?;
    session.connection.client.request_text(request).await.map_err(|error| client::explain(&error))
}

/// The three metrics of Kubeless's runtimes on a Prometheus page, by method.
fn parse(page: &str, blank: &Row) -> Vec<Row> {
    let mut rows: BTreeMap<String, (Row, f64)> = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let Ok(value) = value.trim().parse::<f64>() else { continue };
        let method =
            labels.split("method=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        let known = [
            "function_calls_total",
            "function_failures_total",
            "function_duration_seconds_sum",
            "function_duration_seconds_count",
        ];
        if !known.contains(&name) {
            continue;
        }
        let (row, count) = rows
            .entry(method.to_owned())
            .or_insert_with(|| (Row { method: method.to_owned(), ..blank.clone() }, 0.0));
        match name {
            "function_calls_total" => row.total_calls += value as u64,
            "function_failures_total" => row.total_failures += value as u64,
            "function_duration_seconds_sum" => row.total_duration_seconds += value,
            _ => *count += value,
        }
    }
    let averaged = rows.into_values().map(|(mut row, count)| {
        row.avg_duration_seconds = if count > 0.0 { row.total_duration_seconds / count } else { 0.0 };
        row
    });
    averaged.filter(|row| row.total_calls > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_metrics_is_a_row_for_each_method() {
        let page = "# HELP x y\nfunction_calls_total{method=\"GET\"} 2.0\nfunction_calls_total{method=\"POST\"} 4.0\n\
            function_failures_total{method=\"POST\"} 1.0\nfunction_duration_seconds_sum{method=\"POST\"} 2.0\n\
            function_duration_seconds_count{method=\"POST\"} 4.0\nfunction_duration_seconds_bucket{le=\"1\",method=\"POST\"} 4.0\n\
            python_info{version=\"3\"} 1.0\n";
        let rows = parse(page, &Row::default());
        assert_eq!(rows.len(), 2);
        assert_eq!((rows[0].method.as_str(), rows[0].total_calls), ("GET", 2));
        assert_eq!((rows[1].total_failures, rows[1].avg_duration_seconds), (1, 0.5));
    }

    #[test]
    fn quantities_are_numbers() {
        assert_eq!(quantity("250m"), Some(0.25));
        assert_eq!(quantity("1Ki"), Some(1024.0));
        assert_eq!(quantity("x"), None);
        let mut used = BTreeMap::new();
        let pod = serde_json::json!({ "metadata": { "namespace": "n", "labels": { "function": "f" } },
            "containers": [{ "usage": { "cpu": "1500000n", "memory": "2048Ki" } }] });
        add_pod(&mut used, &pod);
        assert_eq!(used[&("n".to_owned(), "f".to_owned())], (1_500_000, 2 << 20));
    }
}
