//! The register of one trigger: the last instant that was claimed or passed, and the list of claimed instants without an
//! outcome (C2). Must never do I/O: [`super::store`] reads and writes it.

use crate::api::cronjob_trigger::{CronClaim, CronJobTriggerStatus};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::fmt;

/// Names one start of one trigger's thread, and no other ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A claimed instant without an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The instant, in seconds since the Unix epoch.
    pub instant: i64,
    /// Whose claim it is.
    pub token: Token,
    /// When its call is over, whatever became of it, in seconds since the Unix epoch (C3).
    pub deadline: i64,
    /// Name of that process, for people.
    pub instance: String,
}

/// What the register holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Register {
    /// Instants after this one count; `None`: nobody has looked yet.
    pub since: Option<i64>,
    /// Last instant that was claimed or passed.
    pub last: Option<i64>,
    /// Instants that passed without a call, in all.
    pub missed: u64,
    /// Claimed instants without an outcome, by their instants.
    pub open: Vec<Open>,
}

/// The register as it was read, and which version of it that was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Changes with every write.
    pub version: String,
    /// What it holds.
    pub register: Register,
}

/// A conditional write: takes effect only while the register has that version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Version that must still be there.
    pub version: String,
    /// What is to stand there.
    pub register: Register,
}

/// Why a status cannot be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("status.claim holds {0:?}, which no dispatcher writes; remove it by hand")]
pub struct Unreadable(String);

impl Register {
    /// The last instant that needs no call any more; `None`: nobody has looked yet.
    pub fn settled_until(&self) -> Option<i64> {
        self.last.max(self.since)
    }

    /// As it stands in a status.
    ///
    /// # Errors
    /// A token that no dispatcher wrote.
    pub fn of_status(status: &CronJobTriggerStatus) -> Result<Self, Unreadable> {
        let second = |time: &Time| time.0.as_second();
        let mut open = Vec::with_capacity(status.claim.len());
        for claim in &status.claim {
            let token = u64::from_str_radix(&claim.token, 16).map_err(|_| Unreadable(claim.token.clone()))?;
            open.push(Open {
                instant: second(&claim.instant),
                token: Token(token),
                deadline: second(&claim.deadline),
                instance: claim.instance.clone(),
            });
        }
        open.sort_by_key(|open| open.instant);
        Ok(Self {
            since: status.since.as_ref().map(second),
            last: status.last_scheduled_time.as_ref().map(second),
            missed: status.missed.unwrap_or(0),
            open,
        })
    }

    /// The part of a status that is this register's; the rest is empty.
    pub fn to_status(&self) -> CronJobTriggerStatus {
        let time = |second: i64| Time(Timestamp::from_second(second).unwrap_or_default());
        let claim = self.open.iter().map(|open| CronClaim {
            instant: time(open.instant),
            token: open.token.to_string(),
            deadline: time(open.deadline),
            instance: open.instance.clone(),
        });
        CronJobTriggerStatus {
            since: self.since.map(time),
            last_scheduled_time: self.last.map(time),
            missed: Some(self.missed).filter(|missed| *missed > 0),
            claim: claim.collect(),
            ..CronJobTriggerStatus::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_gives_back_what_was_written_and_junk_is_named() {
        let open = |instant, token| Open {
            instant,
            token: Token(token),
            deadline: instant + 200,
            instance: "dispatcher-0".to_owned(),
        };
        let register = Register {
            since: Some(7),
            last: Some(120),
            missed: 3,
            open: vec![open(60, 1), open(120, u64::MAX)],
        };
        assert_eq!(Register::of_status(&register.to_status()), Ok(register.clone()));
        assert_eq!(Register::of_status(&CronJobTriggerStatus::default()), Ok(Register::default()));
        let mut junk = register.to_status();
        junk.claim[0].token = "mine".to_owned();
        assert!(Register::of_status(&junk).is_err());
    }
}
