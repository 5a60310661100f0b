//! The table of a register in DynamoDB: found, made where that is allowed, and looked at before it is trusted. Must never touch
//! a table that is there already.

use super::LEASE_KEY;
use crate::sources::kinesis::client::with_code;
use aws_sdk_dynamodb::{
    Client,
    error::ProvideErrorMetadata as _,
    types::{
        AttributeDefinition, BillingMode, KeySchemaElement, KeyType, MultiRegionConsistency,
        ScalarAttributeType, TableDescription, TableStatus,
    },
};
use std::time::Duration;
use tokio::time::Instant;

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
                match table.table_status {
                    Some(TableStatus::Active | TableStatus::Updating) => return fit(name, &table),
                    _ if Instant::now() >= until => {
                        return Err(format!("register (DynamoDB table {name}): not active yet; waiting"));
                    }
                    _ => {}
                }
            }
            Err(error) if error.code() == Some("ResourceNotFoundException") => {
                if !made {
                    make(sdk, name, region).await?;
                    made = true;
                } else if Instant::now() >= until {
                    return Err(missing(name, region, "it was asked for and is not there"));
                }
            }
            Err(error) => return Err(explain("DescribeTable", name, &with_code(&error))),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn make(sdk: &Client, name: &str, region: &str) -> Result<(), String> {
    let unfinished = |e: aws_sdk_dynamodb::error::BuildError| e.to_string();
    let attribute = AttributeDefinition::builder()
        .attribute_name(LEASE_KEY)
        .attribute_type(ScalarAttributeType::S)
        .build()
        .map_err(unfinished)?;
    let key = KeySchemaElement::builder().attribute_name(LEASE_KEY).key_type(KeyType::Hash).build();
    let make = sdk.create_table().table_name(name).attribute_definitions(attribute);
    let make = make.key_schema(key.map_err(unfinished)?).billing_mode(BillingMode::PayPerRequest).send();
    match make.await {
        Ok(_) => {
            tracing::info!(table = name, region, "The register's table is being made");
            Ok(())
        }
        // Another dispatcher was faster.
        Err(error) if error.code() == Some("ResourceInUseException") => Ok(()),
        Err(error) => Err(missing(name, region, &with_code(&error))),
    }
}

/// A key of its own, and no copy elsewhere that takes writes without asking this one.
fn fit(name: &str, table: &TableDescription) -> Result<(), String> {
    let keys = table.key_schema.as_deref().unwrap_or_default();
    if !matches!(keys, [key] if key.attribute_name == LEASE_KEY && key.key_type == KeyType::Hash) {
        return Err(format!(
            "register (DynamoDB table {name}): its key is not {LEASE_KEY} alone; it is another one's table: name one of our own in \
             [sources.kinesis] register_table"
        ));
    }
    let elsewhere = table.replicas.as_ref().is_some_and(|replicas| !replicas.is_empty());
    if elsewhere && table.multi_region_consistency != Some(MultiRegionConsistency::Strong) {
        return Err(format!(
            "register (DynamoDB table {name}): it is a global table, whose regions take conditional writes without asking one \
             another; at most once would not hold: use a table of one region, or one with strong consistency"
        ));
    }
    Ok(())
}

fn missing(name: &str, region: &str, why: &str) -> String {
    format!(
        "register (DynamoDB table {name}): there is none in {region}, and it cannot be made here ({why}); allow \
         dynamodb:CreateTable, or run: aws dynamodb create-table --region {region} --table-name {name} \
         --attribute-definitions AttributeName={LEASE_KEY},AttributeType=S \
         --key-schema AttributeName={LEASE_KEY},KeyType=HASH --billing-mode PAY_PER_REQUEST"
    )
}

/// What went wrong, and what to do where that is known.
pub(super) fn explain(what: &str, name: &str, why: &str) -> String {
    let fix =
        if why.contains("AccessDenied") { format!("; allow dynamodb:{what} on it") } else { String::new() };
    format!("register (DynamoDB table {name}): {what}: {why}{fix}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_dynamodb::types::ReplicaDescription;

    fn table(key: &str) -> aws_sdk_dynamodb::types::builders::TableDescriptionBuilder {
        let key = KeySchemaElement::builder().attribute_name(key).key_type(KeyType::Hash).build();
        TableDescription::builder().key_schema(key.unwrap())
    }

    #[test]
    fn a_table_of_another_and_a_global_one_are_refused() {
        assert_eq!(fit("t", &table(LEASE_KEY).build()), Ok(()));
        assert!(fit("t", &table("pk").build()).unwrap_err().contains("another one's table"));
        let global = || table(LEASE_KEY).replicas(ReplicaDescription::builder().build());
        assert!(fit("t", &global().build()).unwrap_err().contains("global table"));
        let strong = global().multi_region_consistency(MultiRegionConsistency::Strong);
        assert_eq!(fit("t", &strong.build()), Ok(()));
    }

    #[test]
    fn the_words_say_what_to_run_and_what_to_allow() {
        let words = missing("t", "eu-central-1", "AccessDeniedException");
        assert!(words.contains("create-table --region eu-central-1 --table-name t"), "{words}");
        assert!(
            explain("PutItem", "t", "AccessDeniedException: no").ends_with("allow dynamodb:PutItem on it")
        );
    }
}
