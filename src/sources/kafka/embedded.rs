//! librdkafka's own mock cluster as a broker for local mode: real protocol on a loopback port, kept in memory, gone
//! with the process. Must never be taken for a Kafka: its notice says what it does not prove.

use crate::sources::{Embedded, Error};
use rdkafka::mocking::MockCluster;
use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError, mpsc},
    thread::JoinHandle,
};

type Answer = Result<(), String>;
type Request = (String, i32, mpsc::Sender<Answer>);

/// One mock broker, on a thread of its own: the client's handle must not change threads.
pub struct EmbeddedBroker {
    address: String,
    requests: Mutex<Option<mpsc::Sender<Request>>>,
    thread: Option<JoinHandle<()>>,
}

impl EmbeddedBroker {
    /// Starts it on a free loopback port.
    ///
    /// # Errors
    /// It cannot listen.
    pub fn start() -> Result<Self, Error> {
        let (requests, received) = mpsc::channel();
        let (ready, started) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("embedded-broker".to_owned())
            .spawn(move || serve(&ready, &received))?;
        let address = started.recv().map_err(|_| "the embedded broker ended at once")??;
        Ok(Self { address, requests: Mutex::new(Some(requests)), thread: Some(thread) })
    }
}

fn serve(ready: &mpsc::Sender<Result<String, String>>, requests: &mpsc::Receiver<Request>) {
    let cluster = match MockCluster::new(1) {
        Ok(cluster) => cluster,
        Err(error) => {
            let _ = ready.send(Err(error.to_string()));
            return;
        }
    };
    let _ = ready.send(Ok(cluster.bootstrap_servers()));
    let mut topics = HashSet::new();
    while let Ok((topic, shards, answer)) = requests.recv() {
        let made = if topics.contains(&topic) {
            Ok(())
        } else {
            cluster.create_topic(&topic, shards, 1).map_err(|e| e.to_string())
        };
        topics.insert(topic);
        let _ = answer.send(made);
    }
}

impl Embedded for EmbeddedBroker {
    fn address(&self) -> String {
        self.address.clone()
    }

    fn notice(&self) -> &'static str {
        "embedded Kafka-protocol broker (librdkafka's mock cluster): one broker, in memory, keeps 5 MiB a partition, \
         forgets everything on exit; it proves the function and the trigger, not durability or replication"
    }

    fn ensure_topic(&self, topic: &str, shards: i32) -> Result<(), Error> {
        let (answer, answered) = mpsc::channel();
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = "the embedded broker ended";
        requests.as_ref().ok_or(ended)?.send((topic.to_owned(), shards, answer)).map_err(|_| ended)?;
        Ok(answered.recv().map_err(|_| ended)??)
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
