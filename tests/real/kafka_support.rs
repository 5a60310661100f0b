//! The harness itself against real Apache Kafka: what the other tests build on holds. Must never test the product.

use crate::support::{
    kafka::{self, KafkaCluster, Options},
    kafka_client::Record,
    wait,
    witness::{Behaviour, Witness},
};
use rdkafka::{Message, consumer::Consumer};
use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

#[test]
fn ten_thousand_records_go_in_and_come_out() {
    let cluster = kafka::shared();
    let client = cluster.client();
    client.create_topic("support-10k", 4, 1);
    let started = Instant::now();
    let record = |i: u32| {
        Record::new(vec![b'x'; 256]).key(i.to_string()).header("n", i.to_string()).partition((i % 4) as i32)
    };
    assert_eq!(client.produce_many("support-10k", (0..10_000).map(record)), 10_000);
    println!("10,000 records produced in {:.1?}", started.elapsed());
    assert_eq!(client.end_offsets("support-10k"), [2500; 4]);

    let consumer = client.consumer("support-10k-group");
    consumer.subscribe(&["support-10k"]).expect("a plain topic");
    let mut keys = BTreeSet::new();
    let end = Instant::now() + Duration::from_secs(60);
    while keys.len() < 10_000 && Instant::now() < end {
        if let Some(message) = consumer.poll(Duration::from_millis(200)) {
            let message = message.expect("no error on a healthy broker");
            keys.insert(message.key().expect("every record has a key").to_vec());
        }
    }
    assert_eq!(keys.len(), 10_000);
}

#[test]
fn committed_metadata_comes_back() {
    let client = kafka::shared().client();
    client.create_topic("support-meta", 2, 1);
    client.produce_many("support-meta", (0..10).map(|i| Record::new("x").partition(i % 2)));
    client.commit("support-meta-group", "support-meta", 1, 3, "token=a;open=1,2");
    let found = client.committed("support-meta-group", "support-meta");
    assert_eq!((found[0].offset, found[1].offset), (None, Some(3)));
    assert_eq!(found[1].metadata, "token=a;open=1,2");
    client.delete_records("support-meta", 0, 2);
    assert_eq!(client.end_offsets("support-meta"), [5, 5]);
}

#[test]
fn a_cluster_of_three_survives_its_coordinator() {
    let mut cluster = KafkaCluster::start(3, &Options::default());
    cluster.client().create_topic("support-three", 3, 3);
    cluster.client().produce_many("support-three", (0..300).map(|i| Record::new("x").partition(i % 3)));
    cluster.wait_in_sync("__consumer_offsets");
    let first = cluster.coordinator_of("g");
    cluster.client().commit("g", "support-three", 0, 42, "before");

    let started = Instant::now();
    cluster.kill9(first);
    let moved = wait::until("another coordinator", Duration::from_secs(60), || {
        Some(cluster.coordinator_of("g")).filter(|now| *now != first)
    });
    println!("coordinator moved from {first} to {moved} after {:.1?}", started.elapsed());
    let found = cluster.client().committed("g", "support-three");
    assert_eq!((found[0].offset, found[0].metadata.as_str()), (Some(42), "before"));
    cluster.client().produce_many("support-three", (0..300).map(|i| Record::new("y").partition(i % 3)));

    let started = Instant::now();
    cluster.restart(first);
    println!("broker {first} is back after {:.1?}", started.elapsed());
    cluster.wait_in_sync("support-three");
    assert_eq!(cluster.client().end_offsets("support-three"), [200; 3]);

    let started = Instant::now();
    cluster.stop_graceful(moved);
    println!("broker {moved} stopped in order after {:.1?}", started.elapsed());
    cluster.suspend(first);
    cluster.resume(first);
    assert_eq!(cluster.client().end_offsets("support-three"), [200; 3]);
}

fn request(id: &str) -> String {
    format!(
        "POST / HTTP/1.1\r\nhost: f\r\nevent-id: {id}\r\nevent-partition: 1\r\nevent-offset: 7\r\ncontent-length: 2\r\n\r\nhi"
    )
}

/// Sends one request on a connection of its own: the answer's bytes, or the error.
fn call(witness: &Witness, id: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(witness.address())?;
    stream.write_all(request(id).as_bytes())?;
    let mut answer = vec![0; 4096];
    let mut got = stream.read(&mut answer)?;
    if got > 0 && !answer.starts_with(b"HTTP/1.1 307") && !answer[..got].ends_with(b"ok") {
        got += stream.read(&mut answer[got..])?;
    }
    Ok(String::from_utf8_lossy(&answer[..got]).into_owned())
}

#[test]
fn the_witness_records_first_and_misbehaves_on_demand() {
    let witness = Witness::start();
    witness.script(|seen| match seen.id.as_str() {
        "before" => Behaviour::ResetBeforeHead,
        "after" => Behaviour::ResetAfterHead,
        "redirect" => Behaviour::Redirect307,
        _ => Behaviour::OK,
    });
    assert!(call(&witness, "a").expect("an answer").ends_with("\r\n\r\nok"));
    assert_eq!(call(&witness, "before").expect_err("a reset").kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(call(&witness, "after").expect_err("a reset").kind(), std::io::ErrorKind::ConnectionReset);
    assert!(call(&witness, "redirect").expect("an answer").contains("307"));
    assert_eq!(witness.invoked_twice(), Vec::<String>::new());
    call(&witness, "a").expect("an answer");
    assert_eq!(witness.invoked_twice(), ["a"]);
    let seen = witness.seen();
    assert_eq!((seen.len(), seen[0].partition, seen[0].offset), (5, 1, 7));

    witness.refuse();
    assert_eq!(call(&witness, "b").expect_err("refused").kind(), std::io::ErrorKind::ConnectionRefused);
    witness.reopen();
    assert!(call(&witness, "b").is_ok());
    witness.wait_for(6, Duration::from_secs(5));
}

#[test]
fn the_witness_keeps_up_with_pipelined_load() {
    const PER_CONNECTION: usize = 5000;
    let witness = Witness::start();
    let started = Instant::now();
    std::thread::scope(|scope| {
        for connection in 0..4 {
            let witness = &witness;
            scope.spawn(move || {
                let mut stream = TcpStream::connect(witness.address()).expect("it listens");
                let mut answers = vec![0; 100 * 1024];
                for block in 0..PER_CONNECTION / 50 {
                    let many: String =
                        (0..50).map(|i| request(&format!("{connection}-{block}-{i}"))).collect();
                    stream.write_all(many.as_bytes()).expect("it reads");
                    let wanted = 50 * "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".len();
                    stream.read_exact(&mut answers[..wanted]).expect("it answers");
                }
            });
        }
    });
    let rate = 4.0 * PER_CONNECTION as f64 / started.elapsed().as_secs_f64();
    println!("the witness took {rate:.0} requests a second");
    assert_eq!((witness.len(), witness.distinct()), (4 * PER_CONNECTION, 4 * PER_CONNECTION));
}
