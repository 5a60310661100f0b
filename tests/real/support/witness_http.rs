//! The witness's side of one HTTP/1.1 connection, written by hand: it must see the first byte and be able to
//! misbehave in the middle. Must never answer before the request is in the log.

use super::witness::{Behaviour, Seen, Shared};
use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time,
};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// A head longer than this is a fault of the client.
const LONGEST_HEAD: usize = 1 << 20;

pub(super) async fn connection(mut stream: TcpStream, own: SocketAddr, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let mut buffer: Vec<u8> = Vec::with_capacity(16 * 1024);
    loop {
        if buffer.is_empty() && !matches!(stream.read_buf(&mut buffer).await, Ok(n) if n > 0) {
            return;
        }
        let first_byte = SystemTime::now();
        let head_end = loop {
            if let Some(at) = find_head_end(&buffer) {
                break at;
            }
            if buffer.len() > LONGEST_HEAD || !matches!(stream.read_buf(&mut buffer).await, Ok(n) if n > 0) {
                shared.log.lock().expect("no panic inside").torn += 1;
                return;
            }
        };
        let (seen, body_len) = parse(&buffer[..head_end], first_byte, shared.keep.load(Ordering::Relaxed));
        let Some(index) = record(&shared, &seen) else { return };
        let Some(body_len) = body_len else {
            // Chunked or unframed bodies are not what the product sends.
            let _ = stream.write_all(b"HTTP/1.1 411 Length Required\r\ncontent-length: 0\r\n\r\n").await;
            return;
        };
        while buffer.len() < head_end + body_len {
            if !matches!(stream.read_buf(&mut buffer).await, Ok(n) if n > 0) {
                return;
            }
        }
        if shared.keep.load(Ordering::Relaxed) {
            let body = buffer[head_end..head_end + body_len].to_vec();
            shared.log.lock().expect("no panic inside").seen[index].body = body;
        }
        buffer.drain(..head_end + body_len);
        let script = shared.script.read().expect("no panic inside").clone();
        let behaviour = script.map_or(Behaviour::OK, |script| script(&seen));
        if !act(behaviour, &mut stream, own, &shared).await {
            return;
        }
    }
}

/// Carries out `behaviour`; false ends the connection.
async fn act(behaviour: Behaviour, stream: &mut TcpStream, own: SocketAddr, shared: &Shared) -> bool {
    match behaviour {
        Behaviour::Answer { status, delay } => {
            if !delay.is_zero() {
                time::sleep(delay).await;
            }
            // Counted before it is sent: who was told 2xx is in the count.
            if (200..300).contains(&status) {
                shared.log.lock().expect("no panic inside").answered_2xx += 1;
            }
            if status == 200 {
                return stream.write_all(OK).await.is_ok();
            }
            let answer = format!("HTTP/1.1 {status} Status\r\ncontent-length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.is_ok()
        }
        Behaviour::Hang => {
            // Until the client gives up.
            let mut rest = [0; 1024];
            while matches!(stream.read(&mut rest).await, Ok(n) if n > 0) {}
            false
        }
        Behaviour::ResetBeforeHead => {
            reset(stream);
            false
        }
        Behaviour::ResetAfterHead => {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n").await;
            reset(stream);
            false
        }
        Behaviour::Redirect307 => {
            let answer = format!(
                "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://{own}/\r\ncontent-length: 0\r\n\r\n"
            );
            stream.write_all(answer.as_bytes()).await.is_ok()
        }
        Behaviour::SlowDrip { gap } => drip(stream, gap).await,
    }
}

async fn drip(stream: &mut TcpStream, gap: Duration) -> bool {
    if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n").await.is_err() {
        return false;
    }
    for _ in 0..10 {
        time::sleep(gap).await;
        if stream.write_all(b".").await.is_err() {
            return false;
        }
    }
    true
}

/// The next close of `stream` sends RST in place of FIN.
fn reset(stream: &TcpStream) {
    rst_on_close(stream).expect("an open socket");
}

#[allow(deprecated, reason = "the drawback, blocking on close, does not exist at zero seconds")]
fn rst_on_close(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_linger(Some(Duration::ZERO))
}

fn record(shared: &Shared, seen: &Seen) -> Option<usize> {
    let mut log = shared.log.lock().ok()?;
    *log.per_id.entry(seen.id.clone()).or_default() += 1;
    log.seen.push(seen.clone());
    shared.news.notify_all();
    Some(log.seen.len() - 1)
}

fn find_head_end(buffer: &[u8]) -> Option<usize> {
    buffer.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// What the head says, and the length of the body if the head tells it.
fn parse(head: &[u8], first_byte: SystemTime, keep: bool) -> (Seen, Option<usize>) {
    let text = String::from_utf8_lossy(head);
    let mut seen = Seen {
        id: String::new(),
        topic: String::new(),
        partition: -1,
        offset: -1,
        first_byte,
        at: Instant::now(),
        head: if keep { text.to_string() } else { String::new() },
        body: Vec::new(),
    };
    let (mut length, mut chunked) = (0, false);
    for (name, value) in text.lines().filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "event-id" => value.clone_into(&mut seen.id),
            "event-topic" => value.clone_into(&mut seen.topic),
            "event-partition" => seen.partition = value.parse().unwrap_or(-1),
            "event-offset" => seen.offset = value.parse().unwrap_or(-1),
            "content-length" => length = value.parse().unwrap_or(0),
            "transfer-encoding" => chunked = true,
            _ => {}
        }
    }
    (seen, (!chunked).then_some(length))
}
