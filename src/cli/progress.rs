//! One line on standard error for what takes longer than a moment. Must never write to standard output, nor leave
//! half a line behind.

use std::{
    io::{IsTerminal, Write},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// What is quicker than this says nothing.
const SILENT: Duration = Duration::from_millis(800);
/// How often a terminal's line is drawn anew.
const REDRAW: Duration = Duration::from_millis(250);
/// How often a log (no terminal) is told that it still goes on.
const REPEAT: Duration = Duration::from_secs(15);
/// Longest line of a terminal: one that wraps could not be removed again.
const WIDTH: usize = 76;

/// Shows what is going on until it is dropped. On a terminal one line that is redrawn and removed at the end;
/// elsewhere a line when it begins to take long, and one each time the text changes, at most every 15 seconds.
#[derive(Debug)]
pub struct Progress {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    text: String,
    ended: bool,
}

impl Progress {
    /// Begins.
    pub fn start(text: &str) -> Self {
        let shared = Arc::new(Shared::default());
        text.clone_into(&mut shared.lock().text);
        let thread = std::thread::Builder::new().name("progress".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || shared.draw(std::io::stderr().is_terminal())
        });
        // Without a thread nothing is shown, and everything else works.
        Self { shared, thread: thread.ok() }
    }

    /// Changes the text.
    pub fn say(&self, text: &str) {
        text.clone_into(&mut self.shared.lock().text);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It only draws; if it panicked there is nothing to clean up.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw(&self, terminal: bool) {
        let began = Instant::now();
        let (mut shown, mut shown_at) = (String::new(), None::<Instant>);
        let mut wait = SILENT;
        loop {
            let state = self.lock();
            let waited = self.changed.wait_timeout_while(state, wait, |state| !state.ended);
            let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
            let (ended, text) = (state.ended, state.text.clone());
            drop(state);
            if ended {
                if terminal && shown_at.is_some() {
                    write("\r\x1b[2K");
                }
                return;
            }
            wait = REDRAW;
            if terminal {
                let line: String = super::output::printable(&text).chars().take(WIDTH - 8).collect();
                write(&format!("\r\x1b[2K{line} … {}s", began.elapsed().as_secs()));
                shown_at = Some(Instant::now());
            } else if shown_at.is_none_or(|at| text != shown && at.elapsed() >= REPEAT) {
                write(&format!("{} …\n", super::output::printable(&text)));
                shown = text;
                shown_at = Some(Instant::now());
            }
        }
    }
}

fn write(text: &str) {
    let mut stderr = std::io::stderr().lock();
    // Nobody can be told that standard error is gone.
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}
