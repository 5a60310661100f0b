//! Configuration: defaults, precedence, and errors that name key, place, range and fix.
#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

use kubeless::{
    config::{Checks, DispatcherConfig, Error, Origin, Override, dump, keys, load, variable_of},
    sources::kafka::options::Options,
};
use std::{collections::BTreeMap, io::Write, time::Duration};

const SHIPPED: &str = include_str!("../../config/dispatcher.toml");

fn read(file: &str, variables: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<DispatcherConfig, Error> {
    let mut temporary = tempfile::NamedTempFile::new().unwrap();
    temporary.write_all(file.as_bytes()).unwrap();
    let variables: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let flag = |(key, value): &(&str, &str)| Override {
        key: (*key).to_owned(),
        value: (*value).to_owned(),
        origin: Origin::Flag("--set".to_owned()),
    };
    load(
        Some(temporary.path()),
        |name| variables.get(name).cloned(),
        flags.iter().map(flag).collect(),
        Checks::All,
    )
}

fn error(file: &str, variables: &[(&str, &str)], flags: &[(&str, &str)]) -> String {
    read(file, variables, flags).unwrap_err().to_string()
}

#[test]
fn the_shipped_file_is_the_default() {
    let shipped: DispatcherConfig = toml::from_str(SHIPPED).unwrap();
    assert_eq!(shipped, DispatcherConfig::default());
}

#[test]
fn the_shipped_file_names_and_explains_every_option() {
    let lines: Vec<&str> = SHIPPED.lines().collect();
    for (key, _) in keys() {
        let name = key.rsplit('.').next().unwrap();
        let at = lines.iter().position(|line| line.starts_with(&format!("{name} = ")));
        let at = at.unwrap_or_else(|| panic!("config/dispatcher.toml does not show {key}"));
        assert!(lines[at - 1].starts_with("# "), "{key} has no sentence");
    }
}

#[test]
fn the_options_of_the_source_are_shown_with_their_defaults() {
    let lines: Vec<&str> = SHIPPED.lines().collect();
    // A sentence has a space behind its `#`, an option has none.
    let option = |line: &str| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).map(str::to_owned);
    let text: Vec<String> =
        lines.iter().map(|line| option(line).unwrap_or_else(|| (*line).to_owned())).collect();
    let config: DispatcherConfig = toml::from_str(&text.join("\n")).unwrap();
    let table = config.sources.get("kafka").unwrap();
    assert_eq!(Options::read(Some(table), |_| None).unwrap(), Options::default());
    for key in toml::Table::try_from(Options::default()).unwrap().keys() {
        let at = lines.iter().position(|line| line.starts_with(&format!("#{key} = ")));
        let at = at.unwrap_or_else(|| panic!("config/dispatcher.toml does not show sources.kafka.{key}"));
        assert!(lines[at - 1].starts_with("# "), "{key} has no sentence");
    }
}

#[test]
fn flag_beats_variable_beats_file_beats_default() {
    let file = "manifests = ['a']\n[invoker]\nworkers = 2\nconnect_timeout = '1s'\nidle_timeout = '1s'\n";
    let variables = [("KUBELESS_INVOKER_CONNECT_TIMEOUT", "3s"), ("KUBELESS_INVOKER_IDLE_TIMEOUT", "3s")];
    let config = read(file, &variables, &[("invoker.idle_timeout", "4s")]).unwrap();
    assert_eq!(config.invoker.max_response_bytes, 64 * 1024);
    assert_eq!(config.invoker.workers, 2);
    assert_eq!(config.invoker.connect_timeout, Duration::from_secs(3));
    assert_eq!(config.invoker.idle_timeout, Duration::from_secs(4));
}

#[test]
fn lists_and_addresses_come_from_variables() {
    let variables = [("KUBELESS_MANIFESTS", "/a:/b"), ("KUBELESS_ADMIN_LISTEN", "127.0.0.1:0")];
    let config = read("", &variables, &[]).unwrap();
    assert_eq!(config.manifests.len(), 2);
    assert_eq!(config.admin.listen.port(), 0);
    assert_eq!(variable_of("memory.max_event_bytes"), "KUBELESS_MEMORY_MAX_EVENT_BYTES");
}

#[test]
fn tables_of_sources_are_kept_as_they_are() {
    let config =
        read("manifests = ['a']\n[sources.demo]\nfoo = 1\n", &[], &[("sources.demo.bar", "true")]).unwrap();
    assert_eq!(config.sources["demo"]["foo"].as_integer(), Some(1));
    assert_eq!(config.sources["demo"]["bar"].as_bool(), Some(true));
}

#[test]
fn the_dump_is_read_back_to_the_same_value() {
    let config = read("manifests = ['a']\n[sources.demo]\nfoo = 1\n", &[], &[]).unwrap();
    assert_eq!(toml::from_str::<DispatcherConfig>(&dump(&config)).unwrap(), config);
}

#[test]
fn an_error_in_the_file_names_its_line_and_key() {
    let text = error("manifests = ['a']\n\n[invoker]\nworker = 2\n", &[], &[]);
    assert!(text.contains(":4: ") && text.contains("worker") && text.contains("--dump-config"), "{text}");
    let text = error("manifests = ['a']\n[invoker]\nidle_timeout = 5\n", &[], &[]);
    assert!(text.contains(":3: invoker.idle_timeout: "), "{text}");
    let text = error("manifests = ['a']\n[invoker]\nidle_timeout = '5'\n", &[], &[]);
    assert!(text.contains(":3: invoker.idle_timeout: ") && text.contains("\"30s\""), "{text}");
    let text = error("manifests = \n", &[], &[]);
    assert!(text.contains(":1: "), "{text}");
}

#[test]
fn a_value_out_of_range_names_where_it_was_written_and_the_range() {
    let text = error("manifests = ['a']\n[invoker]\n\nworkers = 0\n", &[], &[]);
    assert!(text.contains(":4: invoker.workers: 0 is out of range; allowed is 1 to 64"), "{text}");
    let text = error("manifests = ['a']\n", &[("KUBELESS_INVOKER_WORKERS", "99")], &[]);
    assert!(
        text.contains("environment variable KUBELESS_INVOKER_WORKERS: invoker.workers: 99 is out"),
        "{text}"
    );
    let text = error("manifests = ['a']\n", &[("KUBELESS_INVOKER_WORKERS", "many")], &[]);
    assert!(text.contains("environment variable KUBELESS_INVOKER_WORKERS: invoker.workers: "), "{text}");
    let text = error("manifests = ['a']\n", &[], &[("shutdown.grace", "5 days")]);
    assert!(text.contains("flag --set: shutdown.grace: ") && text.contains("ms, s, m or h"), "{text}");
    let text = error("manifests = ['a']\n", &[], &[("shutdown.gracious", "5s")]);
    assert!(text.contains("flag --set: shutdown.gracious: ") && text.contains("unknown field"), "{text}");
}

#[test]
fn all_problems_are_told_at_once() {
    let text = error(
        "[invoker]\nworkers = 0\n[journal]\nmax_bytes = '1MiB'\n[kubernetes]\nforbidden_networks = ['x']\n",
        &[],
        &[],
    );
    for part in [
        "kubernetes.forbidden_networks: holds something",
        "invoker.workers",
        ":4: journal.max_bytes: must hold at least two",
    ] {
        assert!(text.contains(part), "{part} missing in {text}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let missing = std::path::Path::new("/nonexistent/dispatcher.toml");
    let text = load(Some(missing), |_| None, Vec::new(), Checks::All).unwrap_err().to_string();
    assert!(text.contains("/nonexistent/dispatcher.toml: cannot be read"), "{text}");
}

#[test]
fn what_is_only_shown_need_not_be_complete() {
    let nothing = |name: &str| (name == "KUBELESS_STATE_DIR").then(String::new);
    let shown = load(None, nothing, Vec::new(), Checks::Types).unwrap();
    assert_eq!(shown.kubernetes, DispatcherConfig::default().kubernetes);
    assert!(load(None, nothing, Vec::new(), Checks::All).is_err());
}
