//! Real servers: Apache Kafka, a Kinesis endpoint, Kubernetes and child processes of this product.

mod apiserver;
mod cli_cluster;
mod cli_pods;
mod cluster_smoke;
mod cluster_walk;
mod conformance;
mod controller;
mod crds;
mod demo;
mod dev;
mod install;
mod kafka_delivery;
mod kafka_lifecycle;
mod kafka_security;
mod kafka_support;
mod kinesis_delivery;
mod kinesis_faults;
mod kubernetes_dispatcher;
mod kubernetes_secrets;
mod kubernetes_watch;
mod nats_faults;
mod nats_security;
mod nats_support;
mod oracle_sees;
mod status;
mod support;
