//! A TCP way to a server that can be shut in one direction: what comes from there stands still, as on a network that drops it, while
//! the other direction goes on; opened again, it arrives late. Must never let a byte by while it is shut, nor lose one.

use super::ports::free_port;
use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
};

/// One direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    ToServer,
    ToClient,
}

#[derive(Default)]
struct State {
    to_server_shut: bool,
    to_client_shut: bool,
    over: bool,
    /// Both ends of every connection, to be ended with the valve.
    connections: Vec<TcpStream>,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// See the module. Ends with all its connections when dropped.
pub struct Valve {
    port: u16,
    state: Shared,
    thread: Option<thread::JoinHandle<()>>,
}

impl Valve {
    /// In front of the server at `server`, open both ways.
    pub fn start(server: u16) -> Self {
        let port = free_port();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a free port");
        let state = Shared::default();
        let shared = Arc::clone(&state);
        let thread = thread::spawn(move || {
            thread::scope(|scope| {
                for client in listener.incoming().flatten() {
                    // Before the server is asked: when the valve ends, the server may be gone.
                    if shared.0.lock().expect("sound").over {
                        return;
                    }
                    let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server)) else { continue };
                    let mut state = shared.0.lock().expect("sound");
                    if state.over {
                        return;
                    }
                    let copy = |stream: &TcpStream| stream.try_clone().expect("a handle more");
                    state.connections.extend([copy(&client), copy(&server)]);
                    let (from_client, to_server, shared) = (copy(&client), copy(&server), &shared);
                    scope.spawn(move || pump(from_client, to_server, Direction::ToServer, shared));
                    scope.spawn(move || pump(server, client, Direction::ToClient, shared));
                }
            });
        });
        Self { port, state, thread: Some(thread) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Nothing goes that way any more.
    pub fn shut(&self, direction: Direction) {
        self.set(direction, true);
    }

    /// Everything goes that way again, what came meanwhile first.
    pub fn open(&self, direction: Direction) {
        self.set(direction, false);
    }

    fn set(&self, direction: Direction, shut: bool) {
        let mut state = self.state.0.lock().expect("sound");
        *way(&mut state, direction) = shut;
        self.state.1.notify_all();
    }
}

fn way(state: &mut State, direction: Direction) -> &mut bool {
    match direction {
        Direction::ToServer => &mut state.to_server_shut,
        Direction::ToClient => &mut state.to_client_shut,
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, direction: Direction, shared: &Shared) {
    let mut buffer = [0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).unwrap_or(0);
        let mut state = shared.0.lock().expect("sound");
        while *way(&mut state, direction) && !state.over {
            state = shared.1.wait(state).expect("sound");
        }
        let over = state.over;
        drop(state);
        if over || read == 0 || to.write_all(&buffer[..read]).is_err() {
            let _ = to.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
    }
}

impl Drop for Valve {
    fn drop(&mut self) {
        {
            let mut state = self.state.0.lock().expect("sound");
            state.over = true;
            state.connections.drain(..).for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
            self.state.1.notify_all();
        }
        // Wakes the listener.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
