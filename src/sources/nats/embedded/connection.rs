//! One client from its greeting to its end. Must never let what a client sends end more than its own connection.

use super::{
    hub::{Hub, Outbox, Pending},
    subjects,
    wire::{self, MAX_PAYLOAD, Operation, Refusal},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    io::{AsyncWriteExt as _, BufReader},
    net::{TcpStream, tcp::OwnedWriteHalf},
};

/// A server of this version has what is served here, and no more is asked of it.
const VERSION: &str = "2.2.0";
/// How long the last words to a client that is cut off may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves one client until it goes away or is refused.
pub async fn serve(stream: TcpStream, hub: &Arc<Hub>, port: u16) {
    let _ = stream.set_nodelay(true);
    let (reader, mut writer) = stream.into_split();
    let (id, outbox, mut pending) = hub.enter();
    outbox.send(format!("INFO {}\r\n", info(id, port)));
    let mut client = Client { hub, id, outbox: &outbox, verbose: false };
    let mut reader = BufReader::new(reader);
    let refusal = tokio::select! {
        refusal = client.read_all(&mut reader) => refusal.to_string(),
        () = outbox.cut.cancelled() => "Slow Consumer".to_owned(),
        () = write_all(&mut writer, &mut pending) => Refusal::Closed.to_string(),
    };
    hub.leave(id);
    let farewell = async {
        let _ = writer.write_all(format!("-ERR '{refusal}'\r\n").as_bytes()).await;
        let _ = writer.shutdown().await;
    };
    let _ = tokio::time::timeout(FAREWELL, farewell).await;
}

fn info(id: u64, port: u16) -> serde_json::Value {
    serde_json::json!({
        "server_id": "KUBELESSDEV", "server_name": "kubeless-dev", "version": VERSION, "proto": 1,
        "host": "127.0.0.1", "port": port, "headers": true, "max_payload": MAX_PAYLOAD, "client_id": id,
    })
}

/// Writes until the client does not take it any more.
async fn write_all(writer: &mut OwnedWriteHalf, pending: &mut Pending) {
    while let Some(frame) = pending.next().await {
        if writer.write_all(&frame).await.is_err() {
            return;
        }
    }
}

struct Client<'a> {
    hub: &'a Hub,
    id: u64,
    outbox: &'a Outbox,
    verbose: bool,
}

impl Client<'_> {
    async fn read_all(&mut self, reader: &mut (impl tokio::io::AsyncBufRead + Unpin)) -> Refusal {
        loop {
            match wire::read(reader).await {
                Ok(operation) => self.act(operation),
                Err(refusal) => return refusal,
            }
        }
    }

    fn act(&mut self, operation: Operation) {
        let accepted = match operation {
            Operation::Ping => return self.outbox.send("PONG\r\n"),
            Operation::Pong => return,
            Operation::Connect(connect) => {
                self.verbose = connect.verbose;
                self.hub.connect(self.id, connect);
                true
            }
            Operation::Subscribe { subject, .. } if !subjects::is_pattern(&subject) => false,
            Operation::Subscribe { subject, queue, sid } => {
                if !self.hub.subscribe(self.id, sid, subject, queue) {
                    return self.outbox.send("-ERR 'maximum subscriptions exceeded'\r\n");
                }
                true
            }
            Operation::Unsubscribe { sid, after } => {
                self.hub.unsubscribe(self.id, &sid, after);
                true
            }
            Operation::Publish(message) if !subjects::is_literal(&message.subject) => false,
            Operation::Publish(message) => {
                self.hub.publish(self.id, &message);
                true
            }
        };
        match (accepted, self.verbose) {
            (false, _) => self.outbox.send("-ERR 'Invalid Subject'\r\n"),
            (true, true) => self.outbox.send("+OK\r\n"),
            (true, false) => {}
        }
    }
}
