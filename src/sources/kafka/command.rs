//! `kubeless trigger kafka …`, described. Must never hold more than words and pointers into the resource.

use super::spec::KIND;
use crate::api::command::{Column, Flag, Resource, TriggerCommand, Value};

/// The command, with the flags of Kubeless under their names and those of the fields that are new.
pub const COMMAND: TriggerCommand = TriggerCommand {
    name: "kafka",
    resource: Resource { kind: "KafkaTrigger", plural: "kafkatriggers", noun: "Kafka trigger" },
    trigger: KIND,
    about: "Records of a Kafka topic to functions.",
    examples: &[
        "kubeless trigger kafka create orders --trigger-topic orders --function-selector topic=orders",
        "kubeless trigger kafka update orders --paused",
        "kubeless trigger kafka list -A",
        "kubeless trigger kafka delete orders",
    ],
    flags: &[
        Flag {
            name: "trigger-topic",
            short: None,
            value_name: "TOPIC",
            help: "Topic to read.",
            pointer: "/spec/topic",
            value: Value::Text,
            required: true,
        },
        Flag {
            name: "function-selector",
            short: None,
            value_name: "K=V,…",
            help: "Labels of the functions that receive the records.",
            pointer: "/spec/functionSelector",
            value: Value::Labels,
            required: true,
        },
        Flag {
            name: "bootstrap-servers",
            short: None,
            value_name: "HOST:PORT,…",
            help: "Brokers. Default: the dispatcher's own (KAFKA_BROKERS).",
            pointer: "/spec/bootstrapServers",
            value: Value::Text,
            required: false,
        },
        Flag {
            name: "credentials",
            short: None,
            value_name: "SECRET",
            help: "Secret with certificates, user and password.",
            pointer: "/spec/credentials",
            value: Value::Text,
            required: false,
        },
        Flag {
            name: "starting-position",
            short: None,
            value_name: "WHERE",
            help: "Where a subscription without committed offsets begins: latest (default) or earliest.",
            pointer: "/spec/startingPosition",
            value: Value::Text,
            required: false,
        },
        Flag {
            name: "ordering",
            short: None,
            value_name: "ORDER",
            help: "Which records wait for each other: Key (default), Partition or None.",
            pointer: "/spec/ordering",
            value: Value::Text,
            required: false,
        },
        Flag {
            name: "dead-letter-topic",
            short: None,
            value_name: "TOPIC",
            help: "Where records that were not delivered are kept.",
            pointer: "/spec/delivery/deadLetter/topic",
            value: Value::Text,
            required: false,
        },
        Flag {
            name: "paused",
            short: None,
            value_name: "BOOL",
            help: "Leaves new records at the broker; --paused=false goes on.",
            pointer: "/spec/paused",
            value: Value::Bool,
            required: false,
        },
    ],
    columns: &[
        Column { title: "TOPIC", pointer: "/spec/topic" },
        Column { title: "FUNCTION SELECTOR", pointer: "/spec/functionSelector" },
    ],
};
