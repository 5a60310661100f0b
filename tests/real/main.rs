//! Real servers: Apache Kafka and child processes of this product.

mod support;
