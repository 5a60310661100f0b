//! `kubeless trigger kinesis …`, described. Must never hold more than words and pointers into the resource.

use super::spec::KIND;
use crate::api::command::{Column, Flag, Named, ORDERING, PAUSED, Resource, TriggerCommand};

/// The command, with the flags of Kubeless under their names.
pub const COMMAND: TriggerCommand = TriggerCommand {
    name: "kinesis",
    resource: Resource::ours("KinesisTrigger", "kinesistriggers", "Kinesis trigger"),
    trigger: KIND,
    about: "Records of a Kinesis stream to a function.",
    examples: &[
        "kubeless trigger kinesis create clicks --function-name count --stream clicks \\
      --aws-region eu-central-1 --shard-id shardId-000000000000 --secret aws",
        "kubeless trigger kinesis update clicks --shard-id shardId-000000000001",
        "kubeless trigger kinesis list -A",
        "kubeless trigger kinesis describe clicks",
        "kubeless trigger kinesis delete clicks",
    ],
    flags: &[
        Flag::text("function-name", "NAME", "/spec/function-name", "Function that receives the records.")
            .required()
            .naming(Named::Function),
        Flag::text("stream", "NAME", "/spec/stream", "Stream to read.").required(),
        Flag::text("aws-region", "REGION", "/spec/aws-region", "Region of the stream.").required(),
        Flag::text("shard-id", "SHARD", "/spec/shard", "Shard to read. Default: all."),
        Flag::text(
            "secret",
            "NAME",
            "/spec/secret",
            "Secret with aws_access_key_id and aws_secret_access_key. Default: the dispatcher's own identity.",
        )
        .naming(Named::Secret),
        Flag::text("endpoint", "URL", "/spec/endpoint", "Another service than Amazon's own."),
        ORDERING,
        PAUSED,
    ],
    columns: &[
        Column { title: "REGION", pointer: "/spec/aws-region" },
        Column { title: "STREAM", pointer: "/spec/stream" },
        Column { title: "SHARD", pointer: "/spec/shard" },
        Column { title: "FUNCTION", pointer: "/spec/function-name" },
    ],
    complete: None,
};
