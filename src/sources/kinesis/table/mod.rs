//! The register in DynamoDB: an item a key, in the layout of the lease table of Amazon's own consumers (KCL), so that people and
//! their tools recognise it. Must never decide by what it read: only the answer to a conditional write says who has a shard.

mod make;

use super::{
    client::{Address, sdk_config, with_code},
    options::Options,
    register::{Row, Start},
};
use crate::register::{Later, Put, Store, Stored};
use aws_sdk_dynamodb::{
    Client,
    error::SdkError,
    operation::{delete_item::DeleteItemError, put_item::PutItemError},
    types::{AttributeValue, ReturnValuesOnConditionCheckFailure},
};
use std::{collections::HashMap, sync::Arc};
use tokio::sync::OnceCell;
use xxhash_rust::xxh3::xxh3_64;

/// The table's key: register, `/`, key.
const LEASE_KEY: &str = "leaseKey";
/// Raised by every accepted write; every write is on condition of it.
const LEASE_COUNTER: &str = "leaseCounter";
/// Who holds the shard; without it nobody does.
const LEASE_OWNER: &str = "leaseOwner";
/// Everything up to this record is claimed, passed or parked. The row decides, this is for people and their tools.
const CHECKPOINT: &str = "checkpoint";
const SUB_SEQUENCE: &str = "checkpointSubSequenceNumber";
const SHARD_ID: &str = "shardId";
/// Our own: the text itself, whole.
const TEXT: &str = "kubelessRow";
/// A lease that is at its end, in the words of the KCL.
const SHARD_END: &str = "SHARD_END";

type Item = HashMap<String, AttributeValue>;

/// See the module.
pub struct LeaseTable {
    address: Address,
    options: Arc<Options>,
    /// Made at the first question: finding credentials may take time.
    sdk: OnceCell<Client>,
    /// Whether the table was seen, or made, and is fit.
    table: OnceCell<()>,
}

impl LeaseTable {
    /// A store in the table of `options`, at `address`. Opens no connection yet.
    pub fn new(address: Address, options: Arc<Options>) -> Self {
        Self { address, options, sdk: OnceCell::new(), table: OnceCell::new() }
    }

    async fn sdk(&self) -> &Client {
        let make = || async { Client::new(&sdk_config(&self.address, &self.options).await) };
        self.sdk.get_or_init(make).await
    }

    fn name(&self) -> &str {
        &self.options.register_table
    }

    async fn ready(&self) -> Result<&Client, String> {
        let sdk = self.sdk().await;
        let found = make::find(sdk, self.name(), &self.address.region);
        self.table.get_or_try_init(|| found).await?;
        Ok(sdk)
    }

    async fn list_now(&self, folder: &str) -> Result<Vec<(String, Stored)>, String> {
        let prefix = format!("{folder}/");
        let sdk = self.ready().await?;
        let (mut found, mut next) = (Vec::new(), None);
        loop {
            // Consistent: what was written before this look began is in it.
            let page = sdk.scan().table_name(self.name()).consistent_read(true);
            let page = page
                .filter_expression("begins_with(#key, :register)")
                .expression_attribute_names("#key", LEASE_KEY)
                .expression_attribute_values(":register", AttributeValue::S(prefix.clone()))
                .set_exclusive_start_key(next.take());
            let page = page.send().await.map_err(|e| self.explain("Scan", &e))?;
            for item in page.items.unwrap_or_default() {
                let key = text(&item, LEASE_KEY).and_then(|key| key.strip_prefix(&prefix));
                if let (Some(key), Some(stored)) = (key, stored(&item)) {
                    found.push((key.to_owned(), stored));
                }
            }
            match page.last_evaluated_key.filter(|key| !key.is_empty()) {
                Some(key) => next = Some(key),
                None => return Ok(found),
            }
        }
    }

    async fn put_now(&self, at: (&str, &str), text: &str, expected: Option<&Stored>) -> Result<Put, String> {
        let item = item(at.0, at.1, text);
        let written = stored(&item).ok_or("a text without a version")?;
        let put = self.ready().await?.put_item().table_name(self.name()).set_item(Some(item));
        let put = match expected {
            Some(expected) => put
                .condition_expression("#counter = :expected")
                .expression_attribute_names("#counter", LEASE_COUNTER)
                .expression_attribute_values(":expected", AttributeValue::N(expected.tag.clone())),
            None => put
                .condition_expression("attribute_not_exists(#key)")
                .expression_attribute_names("#key", LEASE_KEY),
        };
        let put = put.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match put.send().await {
            Ok(_) => Ok(Put::Done(written)),
            Err(error) => match conflict(&error) {
                Some(item) => Ok(Put::Conflict(stored(item))),
                None => Err(self.explain("PutItem", &error)),
            },
        }
    }

    async fn delete_now(&self, at: (&str, &str), expected: &Stored) -> Result<(), String> {
        let delete = self.ready().await?.delete_item().table_name(self.name());
        let delete = delete
            .key(LEASE_KEY, AttributeValue::S(lease_key(at.0, at.1)))
            .condition_expression("#counter = :expected")
            .expression_attribute_names("#counter", LEASE_COUNTER)
            .expression_attribute_values(":expected", AttributeValue::N(expected.tag.clone()));
        match delete.send().await {
            Ok(_) => Ok(()),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(DeleteItemError::is_conditional_check_failed_exception) =>
            {
                Ok(())
            }
            Err(error) => Err(self.explain("DeleteItem", &error)),
        }
    }

    fn explain<E, R>(&self, what: &str, error: &SdkError<E, R>) -> String
    where
        E: aws_sdk_dynamodb::error::ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
        R: std::fmt::Debug + Send + Sync + 'static,
    {
        make::explain(what, self.name(), &with_code(error))
    }
}

impl Store for LeaseTable {
    fn list<'a>(&'a self, folder: &'a str) -> Later<'a, Result<Vec<(String, Stored)>, String>> {
        Box::pin(self.list_now(folder))
    }

    fn put<'a>(
        &'a self,
        folder: &'a str,
        key: &'a str,
        text: &'a str,
        expected: Option<&'a Stored>,
    ) -> Later<'a, Put> {
        Box::pin(
            async move { self.put_now((folder, key), text, expected).await.unwrap_or_else(Put::Unknown) },
        )
    }

    fn delete<'a>(
        &'a self,
        folder: &'a str,
        key: &'a str,
        expected: &'a Stored,
    ) -> Later<'a, Result<(), String>> {
        Box::pin(async move { self.delete_now((folder, key), expected).await })
    }
}

/// The item that stands there instead; empty: none. `None`: the write was not refused by its condition.
fn conflict<R>(error: &SdkError<PutItemError, R>) -> Option<&Item> {
    static NOTHING: std::sync::LazyLock<Item> = std::sync::LazyLock::new(Item::new);
    match error.as_service_error()? {
        PutItemError::ConditionalCheckFailedException(refused) => {
            Some(refused.item.as_ref().unwrap_or(&NOTHING))
        }
        _ => None,
    }
}

fn lease_key(folder: &str, key: &str) -> String {
    format!("{folder}/{key}")
}

fn text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

fn stored(item: &Item) -> Option<Stored> {
    let tag = item.get(LEASE_COUNTER)?.as_n().ok()?.clone();
    Some(Stored { text: text(item, TEXT)?.to_owned(), tag })
}

fn item(folder: &str, key: &str, text: &str) -> Item {
    let string = |text: &str| AttributeValue::S(text.to_owned());
    let mut item = Item::from([
        (LEASE_KEY.to_owned(), AttributeValue::S(lease_key(folder, key))),
        (TEXT.to_owned(), string(text)),
        (LEASE_COUNTER.to_owned(), AttributeValue::N(counter(text).to_string())),
    ]);
    let Ok(row) = Row::decode(text) else { return item };
    let (checkpoint, sub) = match (&row.checkpoint, row.start) {
        _ if row.ended => (SHARD_END, 0),
        (Some(place), _) => (place.sequence.as_str(), place.sub.unwrap_or(0)),
        (None, Start::Horizon) => ("TRIM_HORIZON", 0),
        (None, Start::Time(_)) => ("AT_TIMESTAMP", 0),
    };
    item.insert(CHECKPOINT.to_owned(), string(checkpoint));
    item.insert(SUB_SEQUENCE.to_owned(), AttributeValue::N(sub.to_string()));
    item.insert(SHARD_ID.to_owned(), string(key.split_once('.').map_or(key, |(_, id)| id)));
    if let Some(owner) = row.owner {
        item.insert(LEASE_OWNER.to_owned(), AttributeValue::S(owner.to_string()));
    }
    item
}

/// The version that a text has itself, which two texts under one key share only if both replace the same one; of a text that is
/// written once, its sum.
fn counter(text: &str) -> u64 {
    let own = serde_json::from_str::<serde_json::Value>(text).ok().and_then(|text| text["version"].as_u64());
    own.unwrap_or_else(|| xxh3_64(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::kinesis::register::Token;

    #[test]
    fn an_item_reads_like_a_lease_and_holds_the_whole_row() {
        let mut row = Row::new(41, Start::Horizon);
        let lease = item("f", "shard.shardId-7", &row.encode());
        assert_eq!(text(&lease, LEASE_KEY), Some("f/shard.shardId-7"));
        assert_eq!(text(&lease, CHECKPOINT), Some("TRIM_HORIZON"));
        assert_eq!(text(&lease, LEASE_OWNER), None);
        row.owner = Some(Token(0xab));
        row.checkpoint = Some("4950/3".parse().unwrap());
        let lease = item("f", "shard.shardId-7", &row.encode());
        assert_eq!(text(&lease, CHECKPOINT), Some("4950"));
        assert_eq!(lease[SUB_SEQUENCE].as_n().unwrap(), "3");
        assert_eq!(text(&lease, LEASE_OWNER), Some("00000000000000ab"));
        assert_eq!(text(&lease, SHARD_ID), Some("shardId-7"));
        assert_eq!(stored(&lease), Some(Stored { text: row.encode(), tag: "41".into() }));
        row.ended = true;
        assert_eq!(text(&item("f", "shard.s", &row.encode()), CHECKPOINT), Some(SHARD_END));
        // A text that is no row is kept as it is.
        let other = item("f", "stream", "{}");
        assert!(!other.contains_key(CHECKPOINT));
        assert_eq!(stored(&other).unwrap().text, "{}");
    }
}
