//! Everything outside of the processes: the log, the registers, one classic group coordinator, the clock and requests
//! that are still on the wire. Must never do what a broker would not do.

use super::oracle::Oracle;
use crate::{
    event::{Attributes, BusinessId, Event, Lane, Position},
    sources::kafka::{
        protocol::Record,
        register::{self, Decoded, Register},
    },
};
use http::header::HeaderValue;
use std::{collections::BTreeMap, sync::Arc};

/// Length of a session on the simulated clock.
pub const SESSION: u64 = 1000;
/// Length of the deduplication window in log time.
pub const SPAN: i64 = 60;

/// A record as the protocol holds it.
#[derive(Clone, Debug)]
pub struct Item(pub Arc<Event>);

impl Record for Item {
    fn lane(&self) -> Option<Lane> {
        self.0.lane
    }
}

/// How one record of the log is made.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    pub key: Option<u8>,
    pub id: Option<u8>,
    pub step_ms: i64,
}

/// One partition.
pub struct Log {
    pub start: i64,
    /// Records below are visible; the others will be written later.
    pub end: i64,
    pub records: Vec<Arc<Event>>,
}

impl Log {
    pub fn new(shard: i32, made: &[Made]) -> Self {
        let mut time_ms = 1000;
        let mut records = Vec::with_capacity(made.len());
        for (sequence, m) in made.iter().enumerate() {
            time_ms += m.step_ms;
            records.push(Arc::new(event(shard, i64::try_from(sequence).expect("small"), time_ms, *m)));
        }
        Self { start: 0, end: 0, records }
    }

    pub fn len(&self) -> i64 {
        i64::try_from(self.records.len()).expect("small")
    }

    pub fn at(&self, offset: i64) -> &Arc<Event> {
        &self.records[usize::try_from(offset).expect("an offset of the log")]
    }

    /// First offset that the log still holds whose own timestamp is not below `time_ms`.
    pub fn at_time(&self, time_ms: i64) -> Option<i64> {
        (self.start..self.end).find(|o| self.at(*o).position.time_ms >= time_ms)
    }
}

fn event(shard: i32, sequence: i64, time_ms: i64, made: Made) -> Event {
    let text: Arc<str> = Arc::from("");
    Event {
        position: Position {
            stream: Arc::clone(&text),
            shard,
            sequence,
            coordinates: None,
            epoch: 0,
            time_ms,
        },
        business: made.id.map(|id| BusinessId::of(&[&[id]])),
        lane: made.key.map(|k| Lane(u64::from(k))),
        attributes: Attributes {
            id: Arc::clone(&text),
            source: Arc::clone(&text),
            kind: text,
            subject: None,
            time_ms,
            extensions: Vec::new(),
        },
        content_type: HeaderValue::from_static("text/plain"),
        headers: Vec::new(),
        data: None,
        weight: 1,
        exchange: None,
    }
}

/// An OffsetCommit as it was encoded.
#[derive(Clone, Debug)]
pub struct Request {
    pub member: u64,
    pub generation: i32,
    pub parts: Vec<(i32, i64, String)>,
}

/// What the coordinator says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Accepted,
    /// `UNKNOWN_MEMBER_ID` or `ILLEGAL_GENERATION`.
    NotYours,
    /// `REBALANCE_IN_PROGRESS`, `NOT_COORDINATOR`.
    NotNow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Empty,
    Preparing,
    Completing,
    Stable,
}

#[derive(Clone, Debug)]
pub struct Joined {
    pub process: usize,
    pub joined: bool,
    pub assigned: Vec<i32>,
}

/// The group coordinator, eager protocol.
pub struct Group {
    pub state: State,
    pub generation: i32,
    pub members: BTreeMap<u64, Joined>,
    last: u64,
}

impl Group {
    pub fn join(&mut self, process: usize, member: Option<u64>) -> u64 {
        let id = member.unwrap_or(self.last + 1);
        self.last = self.last.max(id);
        self.members.insert(id, Joined { process, joined: false, assigned: Vec::new() });
        if self.state != State::Preparing {
            self.prepare();
        }
        self.members.entry(id).and_modify(|m| m.joined = true);
        id
    }

    pub fn remove(&mut self, member: u64) {
        if self.members.remove(&member).is_some() {
            self.prepare();
        }
    }

    pub fn prepare(&mut self) {
        self.state = State::Preparing;
        self.members.values_mut().for_each(|m| m.joined = false);
        if self.members.is_empty() {
            self.state = State::Empty;
            self.generation += 1;
        }
    }

    /// One step of the coordinator; `turn` picks the assignment.
    pub fn advance(&mut self, shards: i32, turn: usize) {
        match self.state {
            State::Preparing if self.members.values().all(|m| m.joined) => {
                self.generation += 1;
                self.state = State::Completing;
            }
            State::Completing => {
                let count = self.members.len();
                for (at, member) in self.members.values_mut().enumerate() {
                    let mine = |s: &i32| (usize::try_from(*s).unwrap_or(0) + turn) % count == at;
                    member.assigned = (0..shards).filter(mine).collect();
                }
                self.state = State::Stable;
            }
            _ => {}
        }
    }
}

/// See the module.
pub struct World {
    pub logs: Vec<Log>,
    pub registers: Vec<Option<(i64, String)>>,
    pub group: Group,
    pub now: u64,
    /// Copies that nobody waits for and that may still arrive.
    pub ghosts: Vec<Request>,
    pub oracle: Oracle,
    pub processes: u64,
}

impl World {
    pub fn new(made: &[Vec<Made>], limits: (usize, usize)) -> Self {
        let logs: Vec<Log> = (0..).zip(made).map(|(shard, made)| Log::new(shard, made)).collect();
        Self {
            registers: vec![None; logs.len()],
            group: Group { state: State::Empty, generation: 0, members: BTreeMap::new(), last: 0 },
            now: SESSION,
            ghosts: Vec::new(),
            oracle: Oracle::new(&logs, limits),
            processes: 0,
            logs,
        }
    }

    pub fn log(&self, shard: i32) -> &Log {
        &self.logs[usize::try_from(shard).expect("a partition")]
    }

    /// Offset and register, as a new owner reads them.
    pub fn read(&self, shard: i32) -> Option<(i64, Register)> {
        let (offset, text) = self.registers[usize::try_from(shard).expect("a partition")].as_ref()?;
        Some((*offset, register_of(text, *offset)))
    }

    /// The coordinator takes an OffsetCommit, by the rules of Apache Kafka's classic group.
    pub fn commit(&mut self, request: &Request) -> Reply {
        let group = &self.group;
        let anybody = request.generation < 0 && group.state == State::Empty;
        if !anybody {
            if !group.members.contains_key(&request.member) || request.generation != group.generation {
                return Reply::NotYours;
            }
            if group.state == State::Completing {
                return Reply::NotNow;
            }
        }
        for (shard, offset, text) in &request.parts {
            let old = self.read(*shard);
            self.oracle.written(*shard, old.as_ref(), *offset, &register_of(text, *offset), text.len());
            self.registers[usize::try_from(*shard).expect("a partition")] = Some((*offset, text.clone()));
        }
        Reply::Accepted
    }
}

fn register_of(text: &str, offset: i64) -> Register {
    match register::decode(text, offset) {
        Decoded::Register(register) => register,
        _ => Register::empty(),
    }
}
