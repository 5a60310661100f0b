//! The table of claims in DynamoDB: found, made where that is allowed, and looked at before it is trusted. Must never touch a
//! table that is there already.

use super::words;
use aws_sdk_dynamodb::{
    Client,
    error::{BuildError, ProvideErrorMetadata as _},
    types::{
        AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType,
        MultiRegionConsistency, Projection, ProjectionType, ScalarAttributeType, TableDescription,
        TableStatus, TimeToLiveSpecification,
    },
};
use std::time::Duration;
use tokio::time::Instant;

/// Key of a row: its space, `/`, its key.
pub(super) const ID: &str = "id";
/// When it is over (Unix seconds); the service deletes it some time later.
pub(super) const EXPIRES: &str = "expires";
/// The space of an open claim; not there in others.
pub(super) const OPEN: &str = "open";
/// When an open claim may be taken over (Unix ms).
pub(super) const OPEN_UNTIL: &str = "openUntil";
/// Open claims by space and time.
pub(super) const OPEN_INDEX: &str = "open";
/// Longest wait for a new table; usually a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(500);

/// Returns once the table is there and may be trusted.
pub(super) async fn find(sdk: &Client, name: &str, region: &str) -> Result<(), String> {
    let until = Instant::now() + PATIENCE;
    let mut made = false;
    loop {
        match sdk.describe_table().table_name(name).send().await {
            Ok(answer) => {
                let table = answer.table.unwrap_or_else(|| TableDescription::builder().build());
                if matches!(table.table_status, Some(TableStatus::Active | TableStatus::Updating)) {
                    if made {
                        forget_by_itself(sdk, name).await;
                    }
                    return fit(name, &table);
                }
            }
            Err(error) if error.code() == Some("ResourceNotFoundException") => {
                if !made {
                    make(sdk, name, region).await?;
                    made = true;
                }
            }
            Err(error) => return Err(explain("DescribeTable", name, &words(&error))),
        }
        if Instant::now() >= until {
            return Err(format!("DynamoDB table {name}: not active yet; waiting"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn make(sdk: &Client, name: &str, region: &str) -> Result<(), String> {
    let unfinished = |error: BuildError| error.to_string();
    let attribute = |name: &str, kind| {
        AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().map_err(unfinished)
    };
    let key = |name: &str, kind| {
        KeySchemaElement::builder().attribute_name(name).key_type(kind).build().map_err(unfinished)
    };
    let index = GlobalSecondaryIndex::builder()
        .index_name(OPEN_INDEX)
        .key_schema(key(OPEN, KeyType::Hash)?)
        .key_schema(key(OPEN_UNTIL, KeyType::Range)?)
        .projection(Projection::builder().projection_type(ProjectionType::KeysOnly).build());
    let make = sdk
        .create_table()
        .table_name(name)
        .attribute_definitions(attribute(ID, ScalarAttributeType::S)?)
        .attribute_definitions(attribute(OPEN, ScalarAttributeType::S)?)
        .attribute_definitions(attribute(OPEN_UNTIL, ScalarAttributeType::N)?)
        .key_schema(key(ID, KeyType::Hash)?)
        .global_secondary_indexes(index.build().map_err(unfinished)?)
        .billing_mode(BillingMode::PayPerRequest);
    match make.send().await {
        Ok(_) => {
            tracing::info!(table = name, region, "The table of claims is being made");
            Ok(())
        }
        // Another dispatcher was faster.
        Err(error) if error.code() == Some("ResourceInUseException") => Ok(()),
        Err(error) => Err(format!(
            "DynamoDB table {name}: there is none in {region}, and it cannot be made here ({}); allow dynamodb:CreateTable, or make \
             it as docs/triggers/http.md says",
            words(&error)
        )),
    }
}

/// Old rows cost money and nothing else: a table that cannot be told so keeps them.
async fn forget_by_itself(sdk: &Client, name: &str) {
    let Ok(rule) = TimeToLiveSpecification::builder().enabled(true).attribute_name(EXPIRES).build() else {
        return;
    };
    if let Err(error) =
        sdk.update_time_to_live().table_name(name).time_to_live_specification(rule).send().await
    {
        tracing::warn!(
            table = name,
            error = words(&error),
            "Rows that are over will not be deleted by the service"
        );
    }
}

/// Our key and index, and no copy elsewhere that takes writes without asking this one.
fn fit(name: &str, table: &TableDescription) -> Result<(), String> {
    let is = |keys: Option<&[KeySchemaElement]>, names: &[&str]| {
        let keys = keys.unwrap_or_default().iter().map(|key| key.attribute_name.as_str());
        keys.eq(names.iter().copied())
    };
    let index = table.global_secondary_indexes.as_deref().unwrap_or_default().iter();
    let has_index = index
        .filter(|index| index.index_name.as_deref() == Some(OPEN_INDEX))
        .any(|index| is(index.key_schema.as_deref(), &[OPEN, OPEN_UNTIL]));
    if !is(table.key_schema.as_deref(), &[ID]) || !has_index {
        return Err(format!(
            "DynamoDB table {name}: its key is not {ID} alone, or it has no index {OPEN_INDEX} on {OPEN} and {OPEN_UNTIL}; it is \
             another one's table: name one of our own"
        ));
    }
    let elsewhere = table.replicas.as_ref().is_some_and(|replicas| !replicas.is_empty());
    if elsewhere && table.multi_region_consistency != Some(MultiRegionConsistency::Strong) {
        return Err(format!(
            "DynamoDB table {name}: it is a global table, whose regions take conditional writes without asking one another; at \
             most once would not hold: use a table of one region, or one with strong consistency"
        ));
    }
    Ok(())
}

/// What went wrong, and what to do where that is known.
pub(super) fn explain(what: &str, name: &str, why: &str) -> String {
    let fix =
        if why.contains("AccessDenied") { format!("; allow dynamodb:{what} on it") } else { String::new() };
    format!("DynamoDB table {name}: {what}: {why}{fix}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_dynamodb::types::{
        GlobalSecondaryIndexDescription, ReplicaDescription, builders::TableDescriptionBuilder,
    };

    fn key(name: &str, kind: KeyType) -> KeySchemaElement {
        KeySchemaElement::builder().attribute_name(name).key_type(kind).build().expect("whole")
    }

    fn table(id: &str) -> TableDescriptionBuilder {
        let index = GlobalSecondaryIndexDescription::builder()
            .index_name(OPEN_INDEX)
            .key_schema(key(OPEN, KeyType::Hash))
            .key_schema(key(OPEN_UNTIL, KeyType::Range));
        TableDescription::builder().key_schema(key(id, KeyType::Hash)).global_secondary_indexes(index.build())
    }

    #[test]
    fn a_table_of_another_and_a_global_one_are_refused() {
        assert_eq!(fit("t", &table(ID).build()), Ok(()));
        assert!(fit("t", &table("pk").build()).expect_err("another key").contains("another one's table"));
        let bare = TableDescription::builder().key_schema(key(ID, KeyType::Hash)).build();
        assert!(fit("t", &bare).expect_err("no index").contains("no index"));
        let global = || table(ID).replicas(ReplicaDescription::builder().build());
        assert!(fit("t", &global().build()).expect_err("global").contains("global table"));
        let strong = global().multi_region_consistency(MultiRegionConsistency::Strong);
        assert_eq!(fit("t", &strong.build()), Ok(()));
    }
}
