//! The function of the benchmark: one thread, epoll, 200 with two bytes, at once or after a delay that holds nobody
//! else up. Must never be the product's code, nor cost more than it has to: both sides of the ratio pay for it.
//!
//! `GET /reset` forgets; `GET /stats` and, at the end of a run, `GET /latency` tell in `name=value` lines; `GET /head`
//! shows the first event's request head.

use crate::http;
use rustix::{
    event::epoll,
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec},
};
use std::{
    collections::VecDeque,
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::fd::OwnedFd,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const LISTENER: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;
/// More latencies than any run makes are not kept.
const KEPT: usize = 4_000_000;

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

#[derive(Default)]
struct Seen {
    count: u64,
    first_us: i64,
    last_us: i64,
    /// Arrival minus the broker's timestamp, and minus the time of the producer's call, in µs.
    since_broker: Vec<i64>,
    since_producer: Vec<i64>,
    head: Vec<u8>,
}

struct Sink {
    listener: TcpListener,
    epoll: OwnedFd,
    timer: OwnedFd,
    delay: Duration,
    connections: Vec<Option<Connection>>,
    /// Answers that wait, in the order in which they are due: the delay is the same for all.
    due: VecDeque<(Instant, usize)>,
    seen: Seen,
}

/// Serves until killed; prints its port first.
pub fn serve(delay: Duration) -> std::io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?.port());
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
    epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), epoll::EventFlags::IN)?;
    let (connections, due, seen) = (Vec::new(), VecDeque::new(), Seen::default());
    Sink { listener, epoll, timer, delay, connections, due, seen }.run()
}

impl Sink {
    fn run(&mut self) -> std::io::Result<()> {
        let mut events = Vec::with_capacity(256);
        loop {
            events.clear();
            epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), None)?;
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    TIMER => self.answer_due()?,
                    slot => self.readable(slot as usize)?,
                }
            }
        }
    }

    fn accept(&mut self) -> std::io::Result<()> {
        while let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let slot = self.connections.iter().position(Option::is_none).unwrap_or_else(|| {
                self.connections.push(None);
                self.connections.len() - 1
            });
            epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(slot as u64), epoll::EventFlags::IN)?;
            self.connections[slot] = Some(Connection { stream, buffer: vec![0; 16 * 1024], filled: 0 });
        }
        Ok(())
    }

    fn readable(&mut self, slot: usize) -> std::io::Result<()> {
        let Some(mut connection) = self.connections[slot].take() else { return Ok(()) };
        let begun = connection.filled;
        match connection.stream.read(&mut connection.buffer[begun..]) {
            Ok(n) if n > 0 => connection.filled += n,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            // Closed: dropping the socket takes it out of epoll.
            _ => return Ok(()),
        }
        let mut used = 0;
        while let Some(request) = http::parse(&connection.buffer[used..connection.filled]) {
            let bytes = &connection.buffer[used..used + request.whole];
            used += request.whole;
            if !request.is_event {
                let _ = connection.stream.write_all(self.control(bytes).as_bytes());
                return Ok(());
            }
            self.record(&request, bytes);
            if self.delay.is_zero() {
                // A socket buffer that cannot take forty bytes belongs to a client that is gone.
                let _ = connection.stream.write_all(OK);
            } else {
                self.later(slot)?;
            }
        }
        connection.buffer.copy_within(used..connection.filled, 0);
        connection.filled -= used;
        self.connections[slot] = Some(connection);
        Ok(())
    }

    fn record(&mut self, request: &http::Request, bytes: &[u8]) {
        let now = now_us();
        if self.seen.count == 0 {
            self.seen.first_us = now;
            self.seen.head = bytes[..request.head].to_vec();
        }
        self.seen.count += 1;
        self.seen.last_us = now;
        let written = http::written_us(&bytes[request.head..]);
        if written > 0 && self.seen.since_broker.len() < KEPT {
            self.seen.since_broker.push(now - request.event_ms * 1000);
            self.seen.since_producer.push(now - written);
        }
    }

    fn later(&mut self, slot: usize) -> std::io::Result<()> {
        self.due.push_back((Instant::now() + self.delay, slot));
        if self.due.len() == 1 { self.arm(self.delay) } else { Ok(()) }
    }

    fn arm(&self, after: Duration) -> std::io::Result<()> {
        // Zero would disarm it.
        let after = after.max(Duration::from_nanos(1));
        let it_value = Timespec { tv_sec: after.as_secs() as i64, tv_nsec: i64::from(after.subsec_nanos()) };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
        rustix::time::timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }

    fn answer_due(&mut self) -> std::io::Result<()> {
        let mut expirations = [0_u8; 8];
        let _ = rustix::io::read(&self.timer, &mut expirations);
        let now = Instant::now();
        while let Some((due, slot)) = self.due.front().copied() {
            if due > now {
                return self.arm(due - now);
            }
            self.due.pop_front();
            if let Some(connection) = &mut self.connections[slot] {
                let _ = connection.stream.write_all(OK);
            }
        }
        Ok(())
    }

    fn control(&mut self, request: &[u8]) -> String {
        let seen = &mut self.seen;
        let body = if request.starts_with(b"GET /reset") {
            *seen = Seen::default();
            String::new()
        } else if request.starts_with(b"GET /head") {
            String::from_utf8_lossy(&seen.head).into_owned()
        } else if request.starts_with(b"GET /stats") {
            format!("count={}\nfirst_us={}\nlast_us={}\n", seen.count, seen.first_us, seen.last_us)
        } else {
            let mut body = String::new();
            for (name, kept) in [("broker", &mut seen.since_broker), ("producer", &mut seen.since_producer)] {
                kept.sort_unstable();
                for percent in [50, 99] {
                    let at = kept.get(kept.len() * percent / 100).copied().unwrap_or(0);
                    body.push_str(&format!("{name}_p{percent}_us={at}\n"));
                }
            }
            body
        };
        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }
}

/// Wall clock in Unix µs.
pub fn now_us() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}
