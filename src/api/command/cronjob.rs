//! `kubeless trigger cronjob …`, described. Must never hold more than words and pointers into the resource.

use super::{Column, Flag, Named, PAUSED, Resource, TriggerCommand, Value};
use crate::api::cronjob_trigger::KIND;

/// The command, with the flags of Kubeless under their names and those of the fields that are new.
pub const COMMAND: TriggerCommand = TriggerCommand {
    name: "cronjob",
    resource: Resource::ours("CronJobTrigger", "cronjobtriggers", "cron trigger"),
    trigger: KIND,
    about: "Calls of a function by the clock.",
    examples: &[
        "kubeless trigger cronjob create report --function report --schedule '0 6 * * *'",
        "kubeless trigger cronjob create tick --function tick --schedule @hourly -p '{\"full\":true}'",
        "kubeless trigger cronjob update report --schedule '0 7 * * *' --time-zone Europe/Berlin",
        "kubeless trigger cronjob list",
        "kubeless trigger cronjob describe report",
        "kubeless trigger cronjob delete report tick",
    ],
    flags: &[
        Flag::text("function", "NAME", "/spec/function-name", "Function that is called.")
            .required()
            .naming(Named::Function),
        Flag::text("schedule", "CRON", "/spec/schedule", "When, as in '*/10 * * * *' or @hourly.").required(),
        Flag::text(
            "payload",
            "JSON",
            "/spec/payload",
            "Body of each call. Default: none, and the call is a GET.",
        )
        .of(Value::Json)
        .short('p'),
        Flag::text(
            "payload-from-file",
            "FILE",
            "/spec/payload",
            "Body of each call, from a JSON or YAML file.",
        )
        .of(Value::JsonFile)
        .short('f'),
        Flag::text("time-zone", "ZONE", "/spec/timeZone", "IANA name of the time zone. Default UTC."),
        Flag::text(
            "concurrency-policy",
            "POLICY",
            "/spec/concurrencyPolicy",
            "When a call is due while another runs: Allow (default), Forbid or Replace.",
        ),
        Flag::text(
            "executor",
            "WHO",
            "/spec/executor",
            "What calls: CronJob (default) or Dispatcher (at most once).",
        ),
        Flag::switch("suspend", "/spec/suspend", "Leaves the function uncalled; --suspend=false goes on."),
        PAUSED,
    ],
    columns: &[
        Column { title: "SCHEDULE", pointer: "/spec/schedule" },
        Column { title: "FUNCTION", pointer: "/spec/function-name" },
    ],
    complete: None,
    publish: None,
};
