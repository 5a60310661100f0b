//! Crash points and seeded bugs for the fault tests; nothing at all without the `testkit` feature. Must never be
//! enabled in a release build.
//!
//! `KUBELESS_POINT=name:n[:kill|stop]` kills (default) or stops the process at the n-th passage of a point.
//! `KUBELESS_BUG=name` switches one seeded protocol bug on. `KUBELESS_CLOCK=path` names a file that holds the wall clock, in
//! milliseconds since the Unix epoch: it stands until a test moves it.

/// Passes a named point of the claim → call → outcome path (names: docs/ARCHITECTURE.md, "Crash points").
#[cfg(not(feature = "testkit"))]
#[inline(always)]
pub fn point(_name: &str) {}

/// Whether a seeded bug is on.
#[cfg(not(feature = "testkit"))]
#[inline(always)]
pub fn bug(_name: &str) -> bool {
    false
}

/// The wall clock that a test holds, if one does.
#[cfg(not(feature = "testkit"))]
#[inline(always)]
pub fn wall_ms() -> Option<i64> {
    None
}

#[cfg(feature = "testkit")]
pub use armed::{bug, point, wall_ms};

#[cfg(feature = "testkit")]
mod armed {
    use rustix::process::{Signal, getpid, kill_process};
    use std::sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    };

    struct Armed {
        name: String,
        at: u64,
        signal: Signal,
        passed: AtomicU64,
    }

    static POINT: LazyLock<Option<Armed>> = LazyLock::new(|| {
        let text = std::env::var("KUBELESS_POINT").ok()?;
        let mut parts = text.split(':');
        let name = parts.next()?.to_owned();
        let at = parts.next().and_then(|n| n.parse().ok()).unwrap_or(1);
        let signal = if parts.next() == Some("stop") { Signal::STOP } else { Signal::KILL };
        Some(Armed { name, at, signal, passed: AtomicU64::new(0) })
    });

    static BUG: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("KUBELESS_BUG").ok());

    static CLOCK: LazyLock<Option<std::path::PathBuf>> =
        LazyLock::new(|| std::env::var_os("KUBELESS_CLOCK").map(Into::into));

    /// The wall clock that a test holds, if one does.
    pub fn wall_ms() -> Option<i64> {
        let path = CLOCK.as_deref()?;
        // Replaced as a whole; a clock that cannot be read is none that a test meant.
        let text =
            std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Some(text.trim().parse().unwrap_or_else(|_| panic!("{}: {text:?} is no time", path.display())))
    }

    /// Passes a named point; may end the process here.
    pub fn point(name: &str) {
        if let Some(armed) = POINT.as_ref()
            && armed.name == name
            && armed.passed.fetch_add(1, Ordering::SeqCst) + 1 == armed.at
        {
            // As `kill -9` from outside would: no destructor, no flush.
            let _ = kill_process(getpid(), armed.signal);
        }
    }

    /// Whether a seeded bug is on.
    pub fn bug(name: &str) -> bool {
        BUG.as_deref() == Some(name)
    }
}
