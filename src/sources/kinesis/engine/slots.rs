//! What is known of each shard, held here or not, and of the other dispatchers. Must never forget a call that runs: its
//! entry would be taken for one that was never sent.

use super::Wrote;
use crate::{
    dispatch::StartLease,
    register::{Stored, Written, watch::Watch},
    sources::kinesis::{
        item::Item,
        place::Place,
        protocol::shard::{Memory, Shard},
        register::{FIRST_VERSIONS, Row, Start, Token},
    },
    telemetry::Gauge,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

/// Key of the text that says where the first shards begin.
pub(super) const ORIGIN: &str = "stream";
/// Before a shard's id, in its row's key.
pub(super) const SHARD: &str = "shard.";
/// Before a dispatcher's token, in its key.
pub(super) const MEMBER: &str = "member.";
/// Failover times after which the text of a dispatcher that is gone is removed.
const FORGOTTEN: u64 = 10;

/// Where the shards begin that were there when the subscription first saw the stream. Later ones begin at their first
/// record: their parents were read to the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) start: Start,
    pub(super) shards: Vec<String>,
    /// Tells two that begin at the same instant apart.
    pub(super) by: Token,
}

impl Origin {
    pub(super) fn of(&self, shard: &str) -> Start {
        if self.shards.iter().any(|first| first == shard) { self.start } else { Start::Horizon }
    }
}

/// A shard that the service lists, or listed.
pub(super) struct Slot {
    /// Local to this thread: orders nothing, names nothing outside of it.
    pub(super) number: i32,
    pub(super) parents: Vec<String>,
    pub(super) watch: Watch,
    /// The row as it was read last, while the shard is not held.
    pub(super) known: Option<(Stored, Row)>,
    pub(super) held: Option<Held>,
    /// A take-over is on its way.
    pub(super) busy: bool,
    pub(super) memory: Memory,
    /// Number of the record read last.
    pub(super) last_number: i64,
}

/// A shard in the hands of this thread.
pub(super) struct Held {
    pub(super) shard: Shard<Item>,
    pub(super) stored: Stored,
    pub(super) lease: Arc<StartLease>,
    pub(super) epoch: u64,
    /// A row is on its way.
    pub(super) writing: bool,
    /// When a row was last accepted.
    pub(super) written: Instant,
    pub(super) reader: Reader,
    /// Passes whose lines are in the journal, but no accepted row passes over them yet.
    pub(super) announced: HashSet<Place>,
    /// It is being given back, and running calls are waited for until then.
    pub(super) giving: Option<Instant>,
    pub(super) since: Instant,
    /// `kubeless_source_lag_seconds`; the series goes with the shard.
    pub(super) lag: Gauge,
}

impl Held {
    /// How far behind the newest record the last read was, as the service says.
    pub(super) fn show_lag(&self, behind: Option<Duration>) {
        if let Some(behind) = behind {
            self.lag.set(behind.as_secs_f64());
        }
    }
}

/// How far a shard was read.
pub(super) struct Reader {
    pub(super) iterator: Option<(String, Instant)>,
    pub(super) busy: bool,
    pub(super) due: Instant,
    pub(super) pause: Duration,
    /// The position that was needed is not held any more.
    pub(super) from_horizon: bool,
    /// What arrived until then (Unix ms) was read.
    pub(super) seen_ms: i64,
    pub(super) ended: bool,
}

impl Reader {
    pub(super) fn new(row: &Row) -> Self {
        let begun = if let Start::Time(ms) = row.start { ms } else { -1 };
        Self {
            iterator: None,
            busy: false,
            due: Instant::now(),
            pause: Duration::ZERO,
            from_horizon: false,
            seen_ms: row.seen_ms.max(begun),
            ended: false,
        }
    }
}

impl Slot {
    pub(super) fn new(number: i32, parents: Vec<String>) -> Self {
        Self {
            number,
            parents,
            watch: Watch::default(),
            known: None,
            held: None,
            busy: false,
            memory: Memory::new(),
            last_number: 0,
        }
    }
}

/// A number for a shard that no other one has: that of its id where it is one.
pub(super) fn number(id: &str, slots: &BTreeMap<String, Slot>) -> i32 {
    let own = id.rsplit('-').next().and_then(|digits| digits.parse::<i32>().ok()).filter(|n| *n >= 0);
    let taken = |n: i32| slots.values().any(|slot| slot.number == n);
    own.filter(|n| !taken(*n)).unwrap_or_else(|| {
        let lowest = slots.values().map(|slot| slot.number).min().unwrap_or(0);
        lowest.min(-1) - 1
    })
}

/// The dispatchers that serve this subscription.
pub(super) struct Members {
    token: Token,
    version: u64,
    stored: Option<Stored>,
    pub(super) busy: bool,
    others: BTreeMap<String, (Watch, Stored)>,
}

#[derive(Serialize, Deserialize)]
struct Member {
    by: Token,
    version: u64,
}

impl Members {
    pub(super) fn new(token: Token) -> Self {
        Self {
            token,
            version: fastrand::u64(FIRST_VERSIONS),
            stored: None,
            busy: false,
            others: BTreeMap::new(),
        }
    }

    pub(super) fn key(&self) -> String {
        format!("{MEMBER}{}", self.token)
    }

    /// The next sign of life, and what it replaces.
    pub(super) fn next(&mut self) -> (String, Option<Stored>) {
        self.version = self.version.wrapping_add(1);
        let member = Member { by: self.token, version: self.version };
        (serde_json::to_string(&member).unwrap_or_default(), self.stored.clone())
    }

    pub(super) fn present(&mut self, written: Written) {
        self.busy = false;
        if let Written::Granted(stored) = written {
            self.stored = Some(stored);
        }
    }

    pub(super) fn stored(&self) -> Option<&Stored> {
        self.stored.as_ref()
    }

    /// What the register holds now.
    pub(super) fn saw(&mut self, texts: &BTreeMap<String, Stored>, now_ms: u64) {
        let own = self.key();
        // The truth about the own text too: an answer may have been lost.
        self.stored = texts.get(&own).cloned();
        self.others.retain(|key, _| texts.contains_key(key));
        for (key, stored) in texts.iter().filter(|(key, _)| **key != own) {
            let Ok(member) = serde_json::from_str::<Member>(&stored.text) else { continue };
            let other = self.others.entry(key.clone()).or_insert_with(|| (Watch::default(), stored.clone()));
            other.0.saw(member.version, now_ms);
            other.1 = stored.clone();
        }
    }

    /// How many there are, this one included.
    pub(super) fn count(&self, now_ms: u64, failover_ms: u64) -> usize {
        1 + self.others.values().filter(|(watch, _)| !watch.is_expired(now_ms, failover_ms)).count()
    }

    /// Texts of dispatchers that are long gone.
    pub(super) fn forgotten(&self, now_ms: u64, failover_ms: u64) -> Vec<(String, Stored)> {
        let long = failover_ms.saturating_mul(FORGOTTEN);
        let gone = self.others.iter().filter(|(_, (watch, _))| watch.is_expired(now_ms, long));
        gone.map(|(key, (_, stored))| (key.clone(), stored.clone())).collect()
    }
}

impl Wrote {
    pub(super) fn claims(&self) -> usize {
        self.plan.claims()
    }
}
