//! `KafkaTrigger`: the resource of this source, its checks and its registration. Must never open a connection or
//! read a credential: it holds names of credentials, not the secrets.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, CustomResourceExt, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{
    Violation,
    checker::Checker,
    kind::{Trigger, TriggerKind, TriggerObject, always_dispatcher},
    selector,
    trigger::{Functions, SharedGroups, TriggerGroups, TriggerStatus},
};

/// The registration of this kind.
pub const KIND: TriggerKind = TriggerKind {
    kind: "KafkaTrigger",
    finalizer: Some("kubeless.io/kafkatrigger"),
    crd: KafkaTrigger::crd,
    decode,
    acts: always_dispatcher,
};

const TOPIC_FIX: &str = "write 1 to 249 of a-z, A-Z, 0-9, '.', '_', '-', and neither \".\" nor \"..\"";

/// Records of a Kafka topic, one call per record and selected function.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "kubeless.io",
    version = "v1beta1",
    kind = "KafkaTrigger",
    namespaced,
    status = "TriggerStatus",
    derive = "PartialEq",
    shortname = "kt",
    category = "kubeless",
    category = "triggers",
    doc = "Records of a Kafka topic, one call per record and selected function.",
    selectable = ".spec.topic",
    printcolumn = r#"{"name": "Topic", "type": "string", "jsonPath": ".spec.topic"}"#,
    printcolumn = r#"{"name": "Selector", "type": "string", "jsonPath": ".spec.functionSelector.matchLabels"}"#,
    printcolumn = r#"{"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Paused", "type": "boolean", "jsonPath": ".spec.paused", "priority": 1}"#
)]
#[x_kube(
    validation = ("self.topic != '.' && self.topic != '..'", "a topic cannot be called . or .."),
    validation = (
        "(has(self.startingPosition) && self.startingPosition == 'timestamp') == has(self.startingTimestamp)",
        "startingTimestamp goes with startingPosition: timestamp, and only with it"
    ),
    validation = (
        "!has(self.delivery.deadLetter) || self.delivery.deadLetter.topic != self.topic",
        "an event would circle for ever: name another topic in delivery.deadLetter"
    ),
    validation = (
        "!self.tls.insecureSkipVerify || self.tls.enabled",
        "tls.insecureSkipVerify needs tls.enabled"
    ),
    validation = (
        "!has(self.sasl) || self.sasl.mechanism == 'OAUTHBEARER' || has(self.credentials)",
        "sasl needs credentials: name the Secret with user and password"
    ),
    validation = (
        "!has(self.sasl) || !has(self.sasl.tokenEndpoint) || self.sasl.mechanism == 'OAUTHBEARER'",
        "sasl.tokenEndpoint only goes with mechanism OAUTHBEARER"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct KafkaTriggerSpec {
    /// Topic to read.
    #[schemars(length(min = 1, max = 249), regex(pattern = "^[a-zA-Z0-9._-]+$"))]
    pub topic: String,
    /// Functions of the same namespace that receive each record. Empty: every function of the namespace.
    #[serde(default)]
    pub function_selector: LabelSelector,
    /// Brokers as host:port, separated by commas. Default: the dispatcher's own (`KAFKA_BROKERS`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub bootstrap_servers: Option<String>,
    /// Where a subscription without committed offsets begins. Default latest.
    #[serde(default)]
    pub starting_position: StartingPosition,
    /// Instant (RFC 3339) of `startingPosition: timestamp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub starting_timestamp: Option<String>,
    /// Name of the Secret (or credentials folder) with certificates, user and password. Never a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub credentials: Option<String>,
    /// Encryption of the connection.
    #[serde(default)]
    pub tls: TlsSpec,
    /// Authentication. Default: none (or the client certificate of `credentials`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sasl: Option<SaslSpec>,
    /// What all triggers share.
    #[serde(flatten)]
    pub groups: TriggerGroups,
}

/// Where a subscription without committed offsets begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StartingPosition {
    /// Records that arrive from now on.
    #[default]
    Latest,
    /// The oldest record that the broker still holds.
    Earliest,
    /// The first record at or after `startingTimestamp`.
    Timestamp,
}

/// Encryption of the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsSpec {
    /// Whether the connection is encrypted. Default false.
    pub enabled: bool,
    /// Whether the broker's certificate goes unchecked: for experiments only. Default false.
    pub insecure_skip_verify: bool,
}

/// Authentication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SaslSpec {
    /// SASL mechanism; user, password or token come from `credentials`.
    pub mechanism: SaslMechanism,
    /// URL that issues tokens, for OAUTHBEARER only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub token_endpoint: Option<String>,
}

/// SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SaslMechanism {
    /// User and password in clear text: only over TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// Salted challenge with SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// Salted challenge with SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// OAuth 2 bearer token.
    #[serde(rename = "OAUTHBEARER")]
    OauthBearer,
}

impl SaslMechanism {
    /// The name as librdkafka's `sasl.mechanism` takes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OauthBearer => "OAUTHBEARER",
        }
    }
}

impl Trigger for KafkaTrigger {
    const KIND: &'static str = KIND.kind;

    fn groups(&self) -> SharedGroups<'_> {
        self.spec.groups.of(Functions::Selected(&self.spec.function_selector))
    }

    fn violations(&self) -> Vec<Violation> {
        let mut violations = Vec::new();
        let spec = &self.spec;
        check_topic(&spec.topic, "/spec/topic", &mut violations);
        if let Some(dead_letter) = &spec.groups.delivery.dead_letter {
            check_topic(&dead_letter.topic, "/spec/delivery/deadLetter/topic", &mut violations);
            if dead_letter.topic == spec.topic {
                violations.push(Violation::new(
                    "/spec/delivery/deadLetter/topic",
                    "the dead-letter topic is the topic that is read: an event would circle for ever",
                    "name another topic",
                ));
            }
        }
        if let Some(servers) = &spec.bootstrap_servers {
            check_servers(servers, &mut violations);
        }
        self.check_start(&mut violations);
        self.check_security(&mut violations);
        violations
    }
}

impl KafkaTrigger {
    fn check_start(&self, violations: &mut Vec<Violation>) {
        let at = "/spec/startingTimestamp";
        match (self.spec.starting_position, &self.spec.starting_timestamp) {
            (StartingPosition::Timestamp, None) => violations.push(Violation::new(
                "/spec/startingPosition",
                "startingPosition: timestamp needs startingTimestamp",
                "add startingTimestamp, for example \"2026-11-23T10:00:00Z\"",
            )),
            (StartingPosition::Timestamp, Some(text)) if text.parse::<jiff::Timestamp>().is_err() => {
                let fix = "write RFC 3339, for example \"2026-11-23T10:00:00Z\"";
                violations.push(Violation::new(at, format!("{text:?} is not an instant"), fix));
            }
            (StartingPosition::Timestamp, Some(_)) | (_, None) => {}
            (_, Some(_)) => violations.push(Violation::new(
                at,
                "startingTimestamp only goes with startingPosition: timestamp",
                "write startingPosition: timestamp, or remove startingTimestamp",
            )),
        }
    }

    fn check_security(&self, violations: &mut Vec<Violation>) {
        let spec = &self.spec;
        if let Some(name) = spec.credentials.as_ref().filter(|name| !selector::is_dns_label(name)) {
            violations.push(Violation::new(
                "/spec/credentials",
                format!("{name:?} is not the name of a Secret or credentials folder"),
                "write its name (a-z, 0-9, '-'), not a path",
            ));
        }
        if spec.tls.insecure_skip_verify && !spec.tls.enabled {
            let what = "insecureSkipVerify without tls.enabled does nothing";
            violations.push(Violation::new("/spec/tls/insecureSkipVerify", what, "add tls.enabled: true"));
        }
        let Some(sasl) = &spec.sasl else {
            return;
        };
        let bearer = sasl.mechanism == SaslMechanism::OauthBearer;
        if sasl.token_endpoint.is_some() && !bearer {
            let what = format!("tokenEndpoint means nothing to {}", sasl.mechanism.as_str());
            let fix = "remove it, or use mechanism OAUTHBEARER";
            violations.push(Violation::new("/spec/sasl/tokenEndpoint", what, fix));
        }
        if !bearer && spec.credentials.is_none() {
            let what = format!("{} needs a user and a password", sasl.mechanism.as_str());
            let fix = "add credentials: <name of the Secret or folder>";
            violations.push(Violation::new("/spec/sasl/mechanism", what, fix));
        }
    }
}

/// Whether Kafka accepts `topic` as a name.
pub fn is_topic(topic: &str) -> bool {
    (1..=249).contains(&topic.len())
        && !matches!(topic, "." | "..")
        && topic.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-'))
}

fn check_topic(topic: &str, path: &str, violations: &mut Vec<Violation>) {
    if !is_topic(topic) {
        violations.push(Violation::new(path, format!("{topic:?} is not a topic name"), TOPIC_FIX));
    }
}

fn check_servers(servers: &str, violations: &mut Vec<Violation>) {
    for server in servers.split(',').map(str::trim) {
        let fits = server.rsplit_once(':').is_some_and(|(host, port)| {
            !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0) && !server.contains("//")
        });
        if !fits {
            violations.push(Violation::new(
                "/spec/bootstrapServers",
                format!("{server:?} is not host:port"),
                "write for example broker-0:9092,broker-1:9092",
            ));
        }
    }
}

/// Reads and checks a whole KafkaTrigger; the typed object is a [`KafkaTrigger`].
///
/// # Errors
/// Everything that is wrong with it.
pub fn decode(object: serde_json::Value) -> Result<TriggerObject, Vec<Violation>> {
    static CHECKER: Checker = Checker::new(KafkaTrigger::crd);
    CHECKER.trigger::<KafkaTrigger>(object)
}
