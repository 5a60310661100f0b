//! What tests with real processes stand on: Kafka clusters, a Kinesis endpoint, Kubernetes, the witness function, the product's own processes
//! and the oracle. Must never skip: a missing part panics with the command that brings it.

// Each test binary uses its own part of this.
#![allow(dead_code, unreachable_pub, missing_docs)]

pub mod apiserver;
pub mod certificates;
pub mod cli;
pub mod cluster;
pub mod dynamodb;
pub mod etcd;
pub mod installed;
pub mod kafka;
pub mod kafka_client;
pub mod kinesis;
pub mod kubectl;
pub mod manifests;
pub mod metrics;
pub mod nats;
pub mod oracle;
pub mod ports;
pub mod process;
pub mod redis;
pub mod scenario;
pub mod shop;
pub mod spawn;
pub mod throttle;
pub mod valve;
pub mod wait;
pub mod web;
pub mod witness;
pub mod witness_http;
