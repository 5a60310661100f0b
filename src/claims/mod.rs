//! At-most-once inside one process: [`Claimed`] is the only key to the invoker and [`claim`] its only maker.
//! Must never hand out a [`Claimed`] for anything but a granted answer of the source's register.
//!
//! Types cover one process; restarts and replicas are covered by the order *claim durably, then invoke*, which
//! `tests/faults` proves against real servers.

pub mod lease;
pub mod store;
pub mod window;

/// What the source's register answered to a claim (three answers, sources of truth: the register alone).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The claim is durable and this process still owns the shard: the event may be invoked, once.
    Granted,
    /// The register was not changed: the event may be offered again, by anybody.
    Refused,
    /// Nobody knows: never invoke; the next owner finds out from the register.
    Unknown,
}

/// Proof that this process, and no other, may invoke `T`, once: not `Clone`, moved into the invoker by value.
///
/// With a claim a call compiles:
/// ```
/// # use kubeless::{claims::Claimed, invoker::{Call, Invoker}};
/// async fn once(invoker: &Invoker, call: Claimed<Call>) { invoker.invoke(call).await; }
/// ```
/// Without one it does not:
/// ```compile_fail,E0308
/// # use kubeless::{claims::Claimed, invoker::{Call, Invoker}};
/// async fn once(invoker: &Invoker, call: Call) { invoker.invoke(call).await; }
/// ```
/// Nor does a second call with the same claim:
/// ```compile_fail,E0382
/// # use kubeless::{claims::Claimed, invoker::{Call, Invoker}};
/// async fn twice(invoker: &Invoker, call: Claimed<Call>) { invoker.invoke(call).await; invoker.invoke(call).await; }
/// ```
/// Nor a copy, nor a claim of one's own making:
/// ```compile_fail,E0308
/// # use kubeless::claims::Claimed;
/// fn copy(claim: &Claimed<u32>) -> Claimed<u32> { claim.clone() }
/// ```
/// ```compile_fail,E0423
/// # use kubeless::claims::Claimed;
/// fn make() -> Claimed<u32> { Claimed(7) }
/// ```
#[must_use = "a claimed event that is dropped is lost without an outcome"]
#[derive(Debug)]
pub struct Claimed<T>(T);

impl<T> Claimed<T> {
    /// Looks at the claimed value without spending the claim.
    pub fn get(&self) -> &T {
        &self.0
    }

    /// Turns the claimed value into another one under the same claim.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Claimed<U> {
        Claimed(f(self.0))
    }

    /// Spends the claim. The caller owes the event exactly one outcome.
    pub fn spend(self) -> T {
        self.0
    }
}

/// Writes the claim of `batch` through `write` and turns the granted part into [`Claimed`].
///
/// `write` gets the whole batch (one durable write serves it: group commit) and returns one answer per item in
/// the same order; missing answers count as [`Answer::Unknown`]. Returns the granted items and, with its
/// answer, every other one. Blocking: called on the source's own thread.
pub fn claim<T>(
    batch: Vec<T>,
    write: impl FnOnce(&[T]) -> Vec<Answer>,
) -> (Vec<Claimed<T>>, Vec<(T, Answer)>) {
    let answers = write(&batch);
    let mut granted = Vec::with_capacity(batch.len());
    let mut others = Vec::new();
    let mut answers = answers.into_iter();
    for item in batch {
        match answers.next().unwrap_or(Answer::Unknown) {
            Answer::Granted => granted.push(Claimed(item)),
            answer => others.push((item, answer)),
        }
    }
    (granted, others)
}
