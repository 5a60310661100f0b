//! A way to the Kinesis endpoint on which most reads are refused, as a shard with too many readers refuses them. Must never
//! change anything else, nor outlive its test.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

const REFUSAL: &str =
    r#"{"__type":"ProvisionedThroughputExceededException","message":"Rate exceeded for shard"}"#;
const PATIENCE: Duration = Duration::from_secs(20);

/// See the module. Ends on drop.
pub struct Throttle {
    address: SocketAddr,
    refused: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Throttle {
    /// In front of the endpoint at `port`; of three reads two are refused.
    pub fn start(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (refused, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, ended) = (Arc::clone(&refused), Arc::clone(&over));
        let thread = thread::spawn(move || {
            let reads = AtomicUsize::new(0);
            thread::scope(|scope| {
                for client in listener.incoming().flatten() {
                    if ended.load(Ordering::SeqCst) {
                        return;
                    }
                    let (reads, count) = (&reads, &*count);
                    scope.spawn(move || serve(client, port, reads, count));
                }
            });
        });
        Self { address, refused, over, thread: Some(thread) }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One request of a connection, which then ends: a client opens another.
fn serve(mut client: TcpStream, port: u16, reads: &AtomicUsize, refused: &AtomicUsize) -> Option<()> {
    client.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut request = Vec::new();
    let head = loop {
        let mut some = [0; 4096];
        let read = client.read(&mut some).ok().filter(|n| *n > 0)?;
        request.extend_from_slice(&some[..read]);
        if let Some(at) = request.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let text = String::from_utf8_lossy(&request[..head]).to_lowercase();
    let length = text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let length: usize = length.unwrap_or(0);
    let mut rest = vec![0; (head + length).saturating_sub(request.len())];
    client.read_exact(&mut rest).ok()?;
    request.extend(rest);
    if text.contains("getrecords") && reads.fetch_add(1, Ordering::SeqCst) % 3 != 2 {
        refused.fetch_add(1, Ordering::SeqCst);
        let length = REFUSAL.len();
        let head = format!(
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        return client.write_all(format!("{head}{REFUSAL}").as_bytes()).ok();
    }
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    server.set_read_timeout(Some(PATIENCE)).ok()?;
    server.write_all(&request[..head - 2]).ok()?;
    server.write_all(b"Connection: close\r\n\r\n").ok()?;
    server.write_all(&request[head..]).ok()?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).ok()?;
    client.write_all(&answer).ok()
}
