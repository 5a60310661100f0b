//! `kubeless trigger kafka …`, described. Must never hold more than words and pointers into the resource.

use super::spec::KIND;
use crate::api::command::{
    Column, DEAD_LETTER, FUNCTION_SELECTOR, Flag, ORDERING, PAUSED, Publish, Resource, ServerFlag,
    TriggerCommand,
};

/// The command, with the flags of Kubeless under their names and those of the fields that are new.
pub const COMMAND: TriggerCommand = TriggerCommand {
    name: "kafka",
    resource: Resource::ours("KafkaTrigger", "kafkatriggers", "Kafka trigger"),
    trigger: KIND,
    about: "Records of a Kafka topic to functions.",
    examples: &[
        "kubeless trigger kafka create orders --trigger-topic orders --function-selector topic=orders",
        "kubeless trigger kafka update orders --paused",
        "kubeless trigger kafka list -A",
        "kubeless trigger kafka describe orders",
        "kubeless trigger kafka delete orders",
    ],
    flags: &[
        Flag::text("trigger-topic", "TOPIC", "/spec/topic", "Topic to read.").required(),
        FUNCTION_SELECTOR,
        Flag::text(
            "bootstrap-servers",
            "HOST:PORT,…",
            "/spec/bootstrapServers",
            "Brokers. Default: the dispatcher's own (KAFKA_BROKERS).",
        ),
        Flag::text(
            "credentials",
            "SECRET",
            "/spec/credentials",
            "Secret with certificates, user and password.",
        ),
        Flag::text(
            "starting-position",
            "WHERE",
            "/spec/startingPosition",
            "Where a subscription without committed offsets begins: latest (default) or earliest.",
        ),
        ORDERING,
        DEAD_LETTER,
        PAUSED,
    ],
    columns: &[
        Column { title: "TOPIC", pointer: "/spec/topic" },
        Column { title: "FUNCTION SELECTOR", pointer: "/spec/functionSelector" },
    ],
    complete: None,
    publish: Some(Publish {
        example: "kubeless trigger kafka publish --topic orders --data '{\"id\":42}' --id order-42 --broker broker:9092",
        topic: "topic",
        default_topic: Some("kubeless"),
        data: "data",
        key: Some("key"),
        server: &[ServerFlag {
            name: "broker",
            value_name: "HOST:PORT,…",
            help: "Brokers. Default: the session of `kubeless dev` in this folder",
        }],
        address: |said| Ok(said("broker")),
        is_ours: |address| !address.contains("://"),
        make: None,
    }),
};
