//! The NATS servers of the tests do what tests ask of them: before anything is proven with them.

use crate::support::nats::{Message, NatsCluster};

#[test]
fn a_server_keeps_its_stream_over_a_kill() {
    let mut server = NatsCluster::start(1);
    let client = server.client();
    client.create_stream("kept", &["kept.>"], 1);
    assert_eq!(client.publish_stream((0..3).map(|n| Message::new("kept.a", format!("{n}")))), [1, 2, 3]);
    server.kill9(0);
    server.restart(0);
    assert_eq!(server.client().publish_stream([Message::new("kept.b", "4")]), [4]);
}

#[test]
fn a_cluster_of_three_survives_any_one_server() {
    let mut cluster = NatsCluster::start(3);
    let client = cluster.client();
    client.create_stream("three", &["three.>"], 3);
    client.publish_stream((0..50).map(|n| Message::new("three.a", format!("{n}"))));
    cluster.kill9(1);
    let client = cluster.client();
    client.wait_leader("three");
    let sequences = client.publish_stream([Message::new("three.a", "after")]);
    assert_eq!(sequences, [51]);
    cluster.restart(1);
}
