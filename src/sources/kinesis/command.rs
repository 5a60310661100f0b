//! `kubeless trigger kinesis …`, described. Must never hold more than words and pointers into the resource.

use super::spec::KIND;
use crate::api::command::{
    Column, DEAD_LETTER, Flag, Make, Named, ORDERING, PAUSED, Publish, Resource, ServerFlag, TriggerCommand,
};

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
        DEAD_LETTER,
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
    publish: Some(Publish {
        example: "kubeless trigger kinesis publish --stream clicks --aws-region eu-central-1 --partition-key ada --records '{\"n\":1}'",
        topic: "stream",
        default_topic: None,
        data: "records",
        key: Some("partition-key"),
        server: &[
            ServerFlag {
                name: "aws-region",
                value_name: "REGION",
                help: "Region of the stream; credentials are those of the AWS command line. Default: the session of `kubeless dev` in this folder",
            },
            ServerFlag { name: "endpoint", value_name: "URL", help: "Another service than Amazon's own" },
        ],
        address,
        is_ours: |address| address.starts_with("kinesis"),
        make: Some(Make {
            verb: "create-stream",
            about: "Makes a stream and waits until it is there",
            example: "kubeless trigger kinesis create-stream --stream-name clicks --shard-count 2 --aws-region eu-central-1",
            name: "stream-name",
            parts: "shard-count",
        }),
    }),
};

/// What `--aws-region` and `--endpoint` say.
fn address(said: &dyn Fn(&str) -> Option<String>) -> Result<Option<String>, String> {
    match (said("aws-region"), said("endpoint")) {
        (None, None) => Ok(None),
        (Some(region), None) => Ok(Some(format!("kinesis://{region}"))),
        (region, Some(endpoint)) => {
            let url = endpoint.trim_end_matches('/');
            if !(url.starts_with("http://") || url.starts_with("https://")) {
                return Err(format!(
                    "--endpoint {endpoint:?} is not the URL of a service; write for example http://localhost:4566"
                ));
            }
            Ok(Some(format!("kinesis+{url}/{}", region.unwrap_or_default())))
        }
    }
}
