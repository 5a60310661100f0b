//! A way to one of Amazon's services on which some requests are refused, or answered to nobody. Must never change anything else,
//! nor outlive its test.

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

/// As a shard with too many readers, or a table with too many writers, refuses.
pub const THROTTLED: &str = "ProvisionedThroughputExceededException";
/// As the service refuses whom it knows and nobody allowed.
pub const DENIED: &str = "AccessDeniedException";
const PATIENCE: Duration = Duration::from_secs(20);

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is done and answered.
    Passed,
    /// It is not done; the code says why.
    Refused(&'static str),
    /// It is done, and the answer is lost.
    Lost,
}

/// Which requests are touched, by what stands in their head (lower case), and what becomes of the n-th of them.
#[derive(Clone, Copy)]
struct Rule {
    port: u16,
    target: &'static str,
    fate: fn(usize) -> Fate,
}

/// See the module. Ends on drop.
pub struct Throttle {
    address: SocketAddr,
    touched: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Throttle {
    /// In front of the endpoint at `port`; of three reads of a shard two are refused.
    pub fn start(port: u16) -> Self {
        let two_of_three = |n| if n % 3 == 2 { Fate::Passed } else { Fate::Refused(THROTTLED) };
        Self::start_with(port, "getrecords", two_of_three)
    }

    /// In front of the endpoint at `port`; `fate` decides about the n-th request with `target` (lower case) in its head.
    pub fn start_with(port: u16, target: &'static str, fate: fn(usize) -> Fate) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (touched, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, ended) = (Arc::clone(&touched), Arc::clone(&over));
        let rule = Rule { port, target, fate };
        let thread = thread::spawn(move || {
            let asked = AtomicUsize::new(0);
            thread::scope(|scope| {
                for client in listener.incoming().flatten() {
                    if ended.load(Ordering::SeqCst) {
                        return;
                    }
                    let (asked, count) = (&asked, &*count);
                    scope.spawn(move || serve(client, rule, asked, count));
                }
            });
        });
        Self { address, touched, over, thread: Some(thread) }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests that were refused, or whose answer was lost.
    pub fn touched(&self) -> usize {
        self.touched.load(Ordering::SeqCst)
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
fn serve(mut client: TcpStream, rule: Rule, asked: &AtomicUsize, touched: &AtomicUsize) -> Option<()> {
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
    let fate = if text.contains(rule.target) {
        (rule.fate)(asked.fetch_add(1, Ordering::SeqCst))
    } else {
        Fate::Passed
    };
    touched.fetch_add(usize::from(fate != Fate::Passed), Ordering::SeqCst);
    if let Fate::Refused(code) = fate {
        let body = format!("{{\"__type\":\"{code}\",\"message\":\"the test says so\"}}");
        let length = body.len();
        let head = format!(
            "HTTP/1.1 400 Bad Request\r\nContent-Type: application/x-amz-json-1.1\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
        );
        return client.write_all(format!("{head}{body}").as_bytes()).ok();
    }
    let mut server = TcpStream::connect((Ipv4Addr::LOCALHOST, rule.port)).ok()?;
    server.set_read_timeout(Some(PATIENCE)).ok()?;
    server.write_all(&request[..head - 2]).ok()?;
    server.write_all(b"Connection: close\r\n\r\n").ok()?;
    server.write_all(&request[head..]).ok()?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).ok()?;
    if fate == Fate::Lost {
        return None;
    }
    client.write_all(&answer).ok()
}
