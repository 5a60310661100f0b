//! Who leads: one `coordination.k8s.io/v1` Lease, taken and renewed under the resource version that was read. Must
//! never compare its clock with another machine's: a holder counts as gone only when its record stood still for the
//! recorded duration while *this* process watched, and a leader believes in itself only for two thirds of that
//! duration after it *sent* its last accepted renewal (boot clock, which counts suspended time).

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock;

/// How long a record must stand still before another may take it, when nothing else is configured.
pub const DEFAULT_DURATION: Duration = Duration::from_secs(15);
/// Longest recorded duration that is believed: a vandal's or a typo's record blocks nobody for longer.
const LONGEST_RECORDED: Duration = Duration::from_secs(120);
/// Looks (and renewals) in one duration: a leader has three tries before it stops believing in itself.
const LOOKS: u32 = 5;

/// What is contended for, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseSettings {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// This process; no other one, nor an earlier start of this one, may ever have had the same.
    pub identity: String,
    /// How long the record must stand still before another may take it.
    pub duration: Duration,
}

/// Whether this process leads. Clones see the same.
#[derive(Clone, Debug)]
pub struct Leadership {
    /// Boot clock in milliseconds until which it is held; 0: not held.
    until: watch::Receiver<u64>,
}

impl Leadership {
    /// Leading for ever: a process that was told that it is alone.
    pub fn always() -> Self {
        Self { until: watch::channel(u64::MAX).1 }
    }

    /// Whether work that only one process may do can be started now.
    pub fn is_held(&self) -> bool {
        clock::boot_ms() < *self.until.borrow()
    }

    /// Returns when this process leads; never if the election has ended without. Cancel-safe.
    pub async fn held(&mut self) {
        while !self.is_held() {
            if self.until.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns when this process does not lead any more. Cancel-safe.
    pub async fn lost(&mut self) {
        loop {
            let until = *self.until.borrow_and_update();
            let left = until.saturating_sub(clock::boot_ms());
            if left == 0 {
                return;
            }
            let deadline = tokio::time::sleep(Duration::from_millis(left));
            tokio::select! {
                changed = self.until.changed() => if changed.is_err() {
                    // The election ended; what it promised last still holds until its time.
                    tokio::time::sleep(Duration::from_millis(left)).await;
                },
                () = deadline => {}
            }
        }
    }
}

/// The contest itself; somebody must run it.
#[derive(Debug)]
pub struct Election {
    api: Api<Lease>,
    candidate: Candidate,
    until: watch::Sender<u64>,
}

/// Prepares an election. Nothing is read or written before [`Election::run`].
pub fn elect(client: Client, settings: LeaseSettings) -> (Leadership, Election) {
    let (until, receiver) = watch::channel(0);
    let api = Api::namespaced(client, &settings.namespace);
    (Leadership { until: receiver }, Election { api, candidate: Candidate::new(settings), until })
}

impl Election {
    /// Contends, renews and contends again until `stop`; then gives the Lease back. Cancel `stop` only once all work
    /// that the leadership allowed has ended.
    pub async fn run(mut self, stop: CancellationToken) {
        let pause = self.candidate.settings.duration / LOOKS;
        loop {
            // One look may take a whole pause; an answer that comes later is as good as none.
            let looked = tokio::select! {
                () = stop.cancelled() => break,
                looked = tokio::time::timeout(pause, self.look()) => looked,
            };
            match looked {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(lease = %self.candidate.settings.name, %error, "Lease not read or written; trying again");
                }
                Err(_) => {
                    tracing::warn!(lease = %self.candidate.settings.name, "No answer about the lease; trying again");
                }
            }
            // Spread, so that candidates do not all write at once.
            let spread = pause.mul_f64(0.8 + 0.4 * fastrand::f64());
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(spread) => {}
            }
        }
        self.until.send_replace(0);
        let _ = tokio::time::timeout(pause, self.give_back()).await;
    }

    /// One read and at most one write.
    async fn look(&mut self) -> Result<(), kube::Error> {
        let name = self.candidate.settings.name.clone();
        let lease = self.api.get_opt(&name).await?;
        let sent_ms = clock::boot_ms();
        let Some(wanted) = self.candidate.judge(lease.as_ref(), sent_ms, Timestamp::now()) else {
            self.publish(0);
            return Ok(());
        };
        let written = match wanted.metadata.resource_version {
            Some(_) => self.api.replace(&name, &PostParams::default(), &wanted).await,
            None => self.api.create(&PostParams::default(), &wanted).await,
        };
        match written {
            Ok(written) => {
                self.candidate.saw(&written, sent_ms);
                self.publish(sent_ms + self.candidate.trusted_ms());
                Ok(())
            }
            // Somebody was faster. What they wrote is judged at the next look; until then nothing new is promised.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn publish(&self, until: u64) {
        let before = self.until.send_replace(until);
        let name = &self.candidate.settings.name;
        match (before == 0, until == 0) {
            (true, false) => {
                tracing::info!(lease = %name, identity = %self.candidate.settings.identity, "Leading");
            }
            (false, true) => tracing::warn!(lease = %name, "Not leading any more"),
            _ => {}
        }
    }

    async fn give_back(&self) -> Result<(), kube::Error> {
        let settings = &self.candidate.settings;
        let Some(mut lease) = self.api.get_opt(&settings.name).await? else {
            return Ok(());
        };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_deref() != Some(settings.identity.as_str()) {
            return Ok(());
        }
        spec.holder_identity = Some(String::new());
        self.api.replace(&settings.name, &PostParams::default(), &lease).await.map(|_| ())
    }
}

/// The rules, without the network.
#[derive(Debug)]
struct Candidate {
    settings: LeaseSettings,
    /// The record seen last, and since when (boot clock) it has stood still.
    seen: Option<(LeaseSpec, u64)>,
}

impl Candidate {
    fn new(settings: LeaseSettings) -> Self {
        Self { settings, seen: None }
    }

    /// What to write now, if anything: `None` while somebody else holds it.
    fn judge(&mut self, lease: Option<&Lease>, now_ms: u64, now: Timestamp) -> Option<Lease> {
        let Some(lease) = lease else {
            return Some(self.record(ObjectMeta::default(), None, now));
        };
        let since = self.saw(lease, now_ms);
        let spec = lease.spec.clone().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let stood_still = now_ms.saturating_sub(since) >= recorded_ms(&spec, self.settings.duration);
        let free = holder.is_empty() || holder == self.settings.identity || stood_still;
        free.then(|| self.record(lease.metadata.clone(), Some(spec), now))
    }

    /// Remembers a record; returns since when it has stood still.
    fn saw(&mut self, lease: &Lease, now_ms: u64) -> u64 {
        let spec = lease.spec.clone().unwrap_or_default();
        match &self.seen {
            Some((seen, since)) if *seen == spec => *since,
            _ => {
                self.seen = Some((spec, now_ms));
                now_ms
            }
        }
    }

    /// How long after sending a renewal the leadership is believed: less than what others wait.
    fn trusted_ms(&self) -> u64 {
        millis(self.settings.duration * 2 / 3)
    }

    fn record(&self, metadata: ObjectMeta, before: Option<LeaseSpec>, now: Timestamp) -> Lease {
        let identity = &self.settings.identity;
        let before = before.unwrap_or_default();
        let renewal = before.holder_identity.as_ref() == Some(identity);
        let transitions = before.lease_transitions.unwrap_or(0);
        let seconds = i32::try_from(self.settings.duration.as_secs()).unwrap_or(i32::MAX);
        Lease {
            metadata: ObjectMeta { name: Some(self.settings.name.clone()), ..metadata },
            spec: Some(LeaseSpec {
                holder_identity: Some(identity.clone()),
                lease_duration_seconds: Some(seconds.max(1)),
                acquire_time: if renewal { before.acquire_time } else { Some(MicroTime(now)) },
                renew_time: Some(MicroTime(now)),
                lease_transitions: Some(if renewal { transitions } else { transitions.saturating_add(1) }),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// How long this record must stand still, as its writer said, within reason.
fn recorded_ms(spec: &LeaseSpec, own: Duration) -> u64 {
    let recorded = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    millis(recorded.map_or(own, Duration::from_secs).clamp(Duration::from_secs(1), LONGEST_RECORDED))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(identity: &str) -> Candidate {
        Candidate::new(LeaseSettings {
            namespace: "kubeless".to_owned(),
            name: "kubeless-controller".to_owned(),
            identity: identity.to_owned(),
            duration: DEFAULT_DURATION,
        })
    }

    fn stored(wanted: &Lease, version: u32) -> Lease {
        let mut lease = wanted.clone();
        lease.metadata.resource_version = Some(version.to_string());
        lease
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn an_absent_lease_is_created_and_renewed_under_its_version() {
        let mut a = candidate("a");
        let first = a.judge(None, 1_000, at(1)).expect("free");
        assert_eq!(first.metadata.resource_version, None);
        let kept = stored(&first, 7);
        let second = a.judge(Some(&kept), 4_000, at(4)).expect("ours");
        assert_eq!(second.metadata.resource_version.as_deref(), Some("7"));
        let (first, second) = (first.spec.unwrap(), second.spec.unwrap());
        assert_eq!(first.acquire_time, second.acquire_time);
        assert_eq!((first.lease_transitions, second.lease_transitions), (Some(1), Some(1)));
        assert!(second.renew_time > first.renew_time);
    }

    #[test]
    fn a_record_that_moves_is_never_taken_whatever_its_clock_says() {
        let (mut a, mut b) = (candidate("a"), candidate("b"));
        for step in 0..20_u32 {
            // The holder's clock stands in 1970; only that the record moves counts.
            let kept = stored(&a.judge(None, 0, at(i64::from(step))).unwrap(), step + 1);
            assert!(b.judge(Some(&kept), u64::from(step) * 14_000, at(4_000_000_000)).is_none());
        }
    }

    #[test]
    fn a_record_that_stood_still_for_its_duration_is_taken_and_counted() {
        let (mut a, mut b) = (candidate("a"), candidate("b"));
        let kept = stored(&a.judge(None, 0, at(0)).unwrap(), 1);
        assert!(b.judge(Some(&kept), 50_000, at(50)).is_none(), "first seen now");
        assert!(b.judge(Some(&kept), 64_999, at(65)).is_none());
        let taken = b.judge(Some(&kept), 65_000, at(65)).expect("stood still for 15 s");
        let spec = taken.spec.unwrap();
        assert_eq!(spec.holder_identity.as_deref(), Some("b"));
        assert_eq!(spec.lease_transitions, Some(2));
        assert_eq!(taken.metadata.resource_version.as_deref(), Some("1"));
    }

    #[test]
    fn a_lease_that_was_given_back_is_taken_at_once() {
        let (mut a, mut b) = (candidate("a"), candidate("b"));
        let mut kept = stored(&a.judge(None, 0, at(0)).unwrap(), 1);
        kept.spec.as_mut().unwrap().holder_identity = Some(String::new());
        assert!(b.judge(Some(&kept), 1, at(1)).is_some());
    }

    #[test]
    fn a_recorded_duration_is_believed_within_reason_only() {
        let (mut a, mut b) = (candidate("a"), candidate("b"));
        let mut kept = stored(&a.judge(None, 0, at(0)).unwrap(), 1);
        kept.spec.as_mut().unwrap().lease_duration_seconds = Some(i32::MAX);
        assert!(b.judge(Some(&kept), 0, at(0)).is_none());
        assert!(b.judge(Some(&kept), 119_999, at(1)).is_none());
        assert!(b.judge(Some(&kept), 120_000, at(1)).is_some());
    }

    #[test]
    fn a_leader_believes_in_itself_for_less_than_others_wait() {
        let a = candidate("a");
        assert!(a.trusted_ms() < millis(DEFAULT_DURATION));
    }

    #[tokio::test]
    async fn leadership_ends_with_its_time_even_if_nobody_says_so() {
        let (until, receiver) = watch::channel(clock::boot_ms() + 30);
        let mut leadership = Leadership { until: receiver };
        assert!(leadership.is_held());
        leadership.lost().await;
        assert!(!leadership.is_held());
        until.send_replace(clock::boot_ms() + 60_000);
        leadership.held().await;
        until.send_replace(0);
        leadership.lost().await;
        assert!(Leadership::always().is_held());
    }
}
