//! A web server of a test's own for a handful of files: code of functions, a package index. Must never serve what it was not
//! given.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// A client that says nothing must not hold the only thread.
const SILENCE: Duration = Duration::from_secs(5);

/// Serves until dropped.
pub struct Web {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Web {
    /// Serves `files`, by path, on a free port of `address`.
    pub fn start(address: Ipv4Addr, files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind((address, 0)).expect("an address of this machine");
        let address = listener.local_addr().expect("it is bound");
        let (asked, ended) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (log, end) = (asked.clone(), ended.clone());
        let serve = move || {
            for stream in listener.incoming().flatten() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                // A client that went away is its own affair.
                let _ = answer(stream, &files, &log);
            }
        };
        let thread = std::thread::Builder::new().name("web".into()).spawn(serve).expect("one more thread");
        Self { address, asked, ended, thread: Some(thread) }
    }

    /// `http://ADDRESS/path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Its address, for clients that want the host alone.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every path that was asked for.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no panic inside").clone()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn answer(
    mut stream: TcpStream,
    files: &BTreeMap<String, Vec<u8>>,
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(SILENCE))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let first = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = first.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    let (status, body) = match files.get(&path) {
        Some(body) => ("200 OK", body.as_slice()),
        None => ("404 Not Found", b"no such file\n".as_slice()),
    };
    let kind = if path.ends_with('/') { "text/html" } else { "application/octet-stream" };
    log.lock().expect("no panic inside").push(path);
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    if !first.starts_with("HEAD") {
        stream.write_all(body)?;
    }
    Ok(())
}
