//! `kubeless trigger nats …`, described. Must never hold more than words and pointers into the resource.

use super::spec::KIND;
use crate::api::command::{
    Column, DEAD_LETTER, FUNCTION_SELECTOR, Flag, ORDERING, PAUSED, Publish, Resource, ServerFlag,
    TriggerCommand,
};

/// The command, with the flags of Kubeless under their names.
pub const COMMAND: TriggerCommand = TriggerCommand {
    name: "nats",
    resource: Resource::ours("NATSTrigger", "natstriggers", "NATS trigger"),
    trigger: KIND,
    about: "Messages of a NATS subject to functions.",
    examples: &[
        "kubeless trigger nats create orders --trigger-topic 'orders.*' --function-selector topic=orders",
        "kubeless trigger nats update orders --paused",
        "kubeless trigger nats list -A",
        "kubeless trigger nats describe orders",
        "kubeless trigger nats delete orders",
    ],
    flags: &[
        Flag::text("trigger-topic", "SUBJECT", "/spec/topic", "Subject; * and > are wildcards.").required(),
        FUNCTION_SELECTOR,
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
        example: "kubeless trigger nats publish --url nats://localhost:4222 --topic orders.created --message '{\"id\":42}'",
        topic: "topic",
        default_topic: Some("kubeless"),
        data: "message",
        key: None,
        server: &[ServerFlag {
            name: "url",
            value_name: "URL",
            help: "Server; nats+js://… waits until a stream stored the events. Default: the session of `kubeless dev` in this folder",
        }],
        address: |said| {
            let with_scheme = |url: String| if url.contains("://") { url } else { format!("nats://{url}") };
            Ok(said("url").map(with_scheme))
        },
        is_ours: |address| address.starts_with("nats"),
        make: None,
    }),
};
