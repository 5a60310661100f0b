//! The one place where tests wait for something outside: asks again with growing pauses until a deadline. Must
//! never be given a condition that becomes true by time alone.

use std::{
    thread,
    time::{Duration, Instant},
};

/// First and longest pause between two questions.
const PAUSES: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// Asks until `ask` answers; `None` after `limit`.
pub fn try_until<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    let mut pause = PAUSES.0;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() + pause > end {
            return None;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(PAUSES.1);
    }
}

/// Asks until `ask` answers; panics with `what` after `limit`.
#[track_caller]
pub fn until<T>(what: &str, limit: Duration, ask: impl FnMut() -> Option<T>) -> T {
    match try_until(limit, ask) {
        Some(answer) => answer,
        None => panic!("waited {limit:?} in vain for: {what}"),
    }
}
