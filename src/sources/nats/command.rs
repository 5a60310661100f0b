//! `kubeless trigger nats …`, described. Must never hold more than words and pointers into the resource.

use super::spec::KIND;
use crate::api::command::{
    Column, DEAD_LETTER, FUNCTION_SELECTOR, Flag, ORDERING, PAUSED, Resource, TriggerCommand,
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
};
