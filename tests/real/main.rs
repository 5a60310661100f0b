//! Real servers: Apache Kafka and child processes of this product.

mod kafka_delivery;
mod dev;
mod kafka_support;
mod oracle_sees;
mod support;
