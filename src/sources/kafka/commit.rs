//! Writing the register: one synchronous OffsetCommit for all shards of a proposal, and the reading of its answer by
//! the closed lists of K1 to K3. Must never take an unknown answer for a claim.

use super::{ffi, protocol::plan::Proposal};
use crate::{clock, testkit};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer, ConsumerContext},
    error::{KafkaError, RDKafkaErrorCode},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// K1: a re-send of the library waits at least 0.8 × `retry.backoff.ms` (set to 1 s); a call that took longer than
/// this may have put two copies on the wire.
pub const POSSIBLY_SENT_TWICE: Duration = Duration::from_millis(700);

/// What the register says about one shard's part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Durable, and the assignment still stands.
    Granted,
    /// Durable, but the assignment was lost meanwhile: nothing may start (K4, second half).
    GrantedTooLate,
    /// Provably not written (K2's closed list).
    Refused(RDKafkaErrorCode),
    /// Nobody knows.
    Unknown,
}

/// Why this identity must not commit again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taint {
    /// K1: an answer is unknown, or a second copy may be on the wire: leave, rejoin, re-read.
    Rejoin(&'static str),
    /// K3: kicked out; no commit until the next assign callback.
    UntilAssign,
    /// K7: another process holds this static instance id: stop.
    Fenced,
}

/// The answer to a whole proposal.
#[derive(Debug)]
pub struct Report {
    /// By shard; missing ones are unknown.
    pub parts: BTreeMap<i32, Written>,
    /// How long the call took.
    pub took: Duration,
    /// Boot clock when it was sent (L2).
    pub sent_boot_ms: u64,
    /// What it means for the next commit.
    pub taint: Option<Taint>,
    /// The metadata bound of the broker is lower than ours.
    pub metadata_too_large: bool,
}

impl Report {
    /// The answer for `shard`.
    pub fn of(&self, shard: i32) -> Written {
        self.parts.get(&shard).copied().unwrap_or(Written::Unknown)
    }
}

/// Commits `proposal` and waits at most `wait` for the answers.
pub fn write<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    topic: &str,
    proposal: &Proposal,
    wait: Duration,
) -> Report {
    let sent_boot_ms = clock::boot_ms();
    let started = Instant::now();
    testkit::point("before_claim");
    let Ok(list) = list(topic, proposal) else {
        return unsent(sent_boot_ms, RDKafkaErrorCode::InvalidArgument, proposal);
    };
    // K3: never with generation -1; the broker takes such a commit from anybody while the group is empty.
    if ffi::membership(consumer).is_none_or(|(generation, _)| generation < 0) || consumer.assignment_lost() {
        let mut report = unsent(sent_boot_ms, RDKafkaErrorCode::IllegalGeneration, proposal);
        report.taint = Some(Taint::UntilAssign);
        return report;
    }
    testkit::point("claim_sent");
    let call = ffi::commit(consumer, &list, wait);
    let took = started.elapsed();
    testkit::point("claim_unknown");
    let mut report = match call {
        Ok(ffi::CommitCall::Answered(answers)) => read(&answers, took, sent_boot_ms),
        Ok(ffi::CommitCall::NoAnswer) => Report {
            parts: BTreeMap::new(),
            took,
            sent_boot_ms,
            taint: Some(Taint::Rejoin("no answer to a commit")),
            metadata_too_large: false,
        },
        Err(error) => {
            unsent(sent_boot_ms, error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail), proposal)
        }
    };
    // K4, second half: an answer after the loss starts nothing.
    if consumer.assignment_lost() && !testkit::bug("no_epoch_check") {
        for written in report.parts.values_mut().filter(|w| **w == Written::Granted) {
            *written = Written::GrantedTooLate;
        }
    }
    report
}

fn list(topic: &str, proposal: &Proposal) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::with_capacity(proposal.parts.len());
    for part in &proposal.parts {
        let mut element = list.add_partition(topic, part.shard);
        element.set_offset(Offset::Offset(part.offset))?;
        element.set_metadata(&part.metadata);
    }
    Ok(list)
}

fn unsent(sent_boot_ms: u64, code: RDKafkaErrorCode, proposal: &Proposal) -> Report {
    let parts = proposal.parts.iter().map(|p| (p.shard, Written::Refused(code))).collect();
    Report { parts, took: Duration::ZERO, sent_boot_ms, taint: None, metadata_too_large: false }
}

fn read(answers: &[ffi::PartitionAnswer], took: Duration, sent_boot_ms: u64) -> Report {
    let twice = took > POSSIBLY_SENT_TWICE;
    let mut report =
        Report { parts: BTreeMap::new(), took, sent_boot_ms, taint: None, metadata_too_large: false };
    for (shard, answer) in answers {
        let written = match answer {
            Ok(()) => Written::Granted,
            // K2: a refusal is definite only if the call was sent once.
            Err(code) if is_refusal(*code) && !twice => Written::Refused(*code),
            Err(_) => Written::Unknown,
        };
        report.metadata_too_large |= matches!(answer, Err(RDKafkaErrorCode::OffsetMetadataTooLarge));
        let taint = taint(written, *answer, twice);
        report.taint = worse(report.taint, taint);
        report.parts.insert(*shard, written);
    }
    report
}

fn taint(written: Written, answer: Result<(), RDKafkaErrorCode>, twice: bool) -> Option<Taint> {
    use RDKafkaErrorCode as E;
    match (written, answer) {
        (_, Err(E::FencedInstanceId)) => Some(Taint::Fenced),
        (Written::Unknown, _) => Some(Taint::Rejoin("unknown answer to a commit")),
        // An OK to a commit that was sent twice is a valid claim; its calls start, then the identity changes (K1).
        (_, Ok(())) if twice => Some(Taint::Rejoin("a commit may have been sent twice")),
        (_, Err(E::UnknownMemberId | E::IllegalGeneration | E::StaleMemberEpoch)) => Some(Taint::UntilAssign),
        _ => None,
    }
}

fn worse(a: Option<Taint>, b: Option<Taint>) -> Option<Taint> {
    let rank = |t: &Option<Taint>| match t {
        None => 0,
        Some(Taint::UntilAssign) => 1,
        Some(Taint::Rejoin(_)) => 2,
        Some(Taint::Fenced) => 3,
    };
    if rank(&b) > rank(&a) { b } else { a }
}

/// K2: the closed list of definite refusals. `REQUEST_TIMED_OUT` is not in it: the append may still complete.
fn is_refusal(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as E;
    matches!(
        code,
        E::UnknownMemberId
            | E::IllegalGeneration
            | E::FencedInstanceId
            | E::RebalanceInProgress
            | E::StaleMemberEpoch
            | E::OffsetMetadataTooLarge
            | E::GroupAuthorizationFailed
            | E::TopicAuthorizationFailed
            | E::NotCoordinator
            | E::CoordinatorLoadInProgress
            // The library's own word that nothing was sent.
            | E::AssignmentLost
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use RDKafkaErrorCode as E;

    const QUICK: Duration = Duration::from_millis(5);
    const SLOW: Duration = Duration::from_millis(701);

    #[test]
    fn k1_a_slow_ok_is_a_claim_and_ends_the_identity() {
        let report = read(&[(0, Ok(()))], SLOW, 0);
        assert_eq!(report.of(0), Written::Granted);
        assert_eq!(report.taint, Some(Taint::Rejoin("a commit may have been sent twice")));
        assert_eq!(read(&[(0, Ok(()))], QUICK, 0).taint, None);
    }

    #[test]
    fn k2_refusals_are_a_closed_list_and_only_if_sent_once() {
        for code in [E::RebalanceInProgress, E::NotCoordinator, E::OffsetMetadataTooLarge] {
            assert_eq!(read(&[(0, Err(code))], QUICK, 0).of(0), Written::Refused(code));
            assert_eq!(read(&[(0, Err(code))], SLOW, 0).of(0), Written::Unknown);
        }
        for code in [E::RequestTimedOut, E::OperationTimedOut, E::BrokerTransportFailure, E::Unknown] {
            let report = read(&[(0, Err(code))], QUICK, 0);
            assert_eq!(report.of(0), Written::Unknown, "{code:?}");
            assert!(matches!(report.taint, Some(Taint::Rejoin(_))));
        }
    }

    #[test]
    fn k3_kicked_out_means_no_commit_until_the_next_assignment() {
        for code in [E::UnknownMemberId, E::IllegalGeneration] {
            assert_eq!(read(&[(0, Err(code))], QUICK, 0).taint, Some(Taint::UntilAssign));
        }
    }

    #[test]
    fn k7_a_fenced_instance_stops() {
        let answers = [(0, Ok(())), (1, Err(E::FencedInstanceId)), (2, Err(E::RequestTimedOut))];
        assert_eq!(read(&answers, QUICK, 0).taint, Some(Taint::Fenced));
    }

    #[test]
    fn an_answer_that_is_missing_is_unknown() {
        assert_eq!(read(&[(0, Ok(()))], QUICK, 0).of(1), Written::Unknown);
    }
}
