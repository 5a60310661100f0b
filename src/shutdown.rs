//! How the process stops: the first signal means drain, the second (or the deadline) means abort. Must never
//! exit the process by itself: whoever owns work asks the tokens and ends it.

use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The two stages of stopping. Clones see the same stages; threads ask, tasks wait.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    draining: CancellationToken,
    abort: CancellationToken,
}

impl Shutdown {
    /// Nothing asked to stop yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One request to stop: the first starts draining, any further one aborts. What a signal does.
    pub fn request(&self) {
        if self.draining.is_cancelled() {
            self.abort.cancel();
        }
        self.draining.cancel();
    }

    /// Gives up on draining at once (implies draining).
    pub fn abort_now(&self) {
        self.draining.cancel();
        self.abort.cancel();
    }

    /// For threads: whether to take no more work.
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// For threads: whether to give up on running work too.
    pub fn is_aborting(&self) -> bool {
        self.abort.is_cancelled()
    }

    /// For tasks: returns when draining starts. Cancel-safe.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// For tasks: returns when running work is given up. Cancel-safe.
    pub async fn aborting(&self) {
        self.abort.cancelled().await;
    }

    /// The token behind [`Self::draining`], for what wants to derive children from it.
    pub fn draining_token(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Listens for SIGTERM and SIGINT until the process aborts. The caller owns the returned future and must
    /// await it in a task of its own. `grace` is how long draining may take before it becomes an abort.
    ///
    /// Handlers are in place when this returns, so no early signal kills the process.
    pub fn listen(
        &self,
        grace: Option<Duration>,
    ) -> std::io::Result<impl Future<Output = ()> + Send + use<>> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let shutdown = self.clone();
        Ok(async move {
            let deadline = shutdown.deadline(grace);
            let signals = async {
                while !shutdown.is_aborting() {
                    let name = tokio::select! {
                        _ = terminate.recv() => "SIGTERM",
                        _ = interrupt.recv() => "SIGINT",
                        () = shutdown.aborting() => break,
                    };
                    tracing::info!(signal = name, again = shutdown.is_draining(), "Stop requested");
                    shutdown.request();
                }
            };
            tokio::join!(deadline, signals);
        })
    }

    /// Turns draining into an abort after `grace`.
    async fn deadline(&self, grace: Option<Duration>) {
        let Some(grace) = grace else { return };
        self.draining().await;
        tokio::select! {
            () = self.aborting() => {}
            () = tokio::time::sleep(grace) => {
                tracing::warn!(grace_ms = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX), "Drain deadline passed");
                self.abort_now();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_request_drains_second_aborts() {
        let shutdown = Shutdown::new();
        let seen_by_a_thread = shutdown.clone();
        assert!(!seen_by_a_thread.is_draining());
        shutdown.request();
        assert!(seen_by_a_thread.is_draining() && !seen_by_a_thread.is_aborting());
        shutdown.request();
        assert!(seen_by_a_thread.is_aborting());
    }

    #[test]
    fn abort_now_implies_draining() {
        let shutdown = Shutdown::new();
        shutdown.abort_now();
        assert!(shutdown.is_draining() && shutdown.is_aborting());
    }

    #[tokio::test]
    async fn the_deadline_turns_draining_into_an_abort() {
        let shutdown = Shutdown::new();
        let listener = tokio::spawn(shutdown.listen(Some(Duration::from_millis(20))).unwrap());
        shutdown.request();
        shutdown.aborting().await;
        listener.await.unwrap();
    }

    #[tokio::test]
    async fn without_a_deadline_the_listener_ends_at_the_abort() {
        let shutdown = Shutdown::new();
        let listener = tokio::spawn(shutdown.listen(None).unwrap());
        shutdown.request();
        shutdown.draining().await;
        assert!(!shutdown.is_aborting());
        shutdown.request();
        listener.await.unwrap();
    }
}
