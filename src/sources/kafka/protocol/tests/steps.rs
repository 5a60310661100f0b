//! What a run is made of: its steps, how often each is taken, and what the logs hold. Must never know what a step does.

use super::world::Made;
use proptest::{collection::vec, prelude::*};

/// One step of one party. `m`: a process, `p`: a partition; both are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Fair progress of everybody without faults; calls start, and end only with `work`.
    Rounds {
        n: u8,
        work: bool,
    },
    /// New records become visible.
    Write {
        p: u8,
        n: u8,
    },
    /// `late`: the library learns of the group's state in the middle of it.
    Turn {
        m: u8,
        n: u8,
        due: bool,
        late: bool,
    },
    Library(u8),
    Coordinator(u8),
    Work {
        m: u8,
        k: u8,
    },
    Time(u8),
    /// Metadata change: the group rebalances.
    Move,
    /// SIGTERM; later a new process takes its place.
    Stop(u8),
    Restart(u8),
    Retention {
        p: u8,
        n: u8,
    },
    // What follows are faults.
    Crash(u8),
    Freeze(u8),
    Resume(u8),
    /// The session of a member ends: dead, frozen or alive.
    Expire(u8),
    /// The request on the wire arrives; the answer is not there yet.
    Arrive(u8),
    /// The request waits in the library and takes the identity of the moment it leaves.
    Defer(u8),
    /// The coordinator refuses for a reason of its own.
    Refuse(u8),
    /// The request arrives, its answer does not.
    AnswerLost(u8),
    /// The client gives up; its request arrives later, or never.
    Delay(u8),
    /// The library sends a second copy; the first one arrives later, or never.
    Resend(u8),
    GhostArrives(u8),
    GhostIsGone(u8),
    /// The next LeaveGroup of this process does not arrive.
    LeaveLost(u8),
    /// Another client of the group commits an older offset (K8).
    Rewind(u8),
}

/// A whole run.
#[derive(Clone)]
pub struct Run {
    pub processes: usize,
    pub logs: Vec<Vec<Made>>,
    pub shape: (usize, usize, usize, usize),
    pub steps: Vec<Step>,
}

impl std::fmt::Debug for Run {
    /// One line a log and one line for all steps: a shrunk run has to be read by somebody.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{} processes, entries, chars, window, depth = {:?}", self.processes, self.shape)?;
        for log in &self.logs {
            let records: Vec<_> = log.iter().map(|m| (m.key, m.id, m.step_ms)).collect();
            writeln!(f, "  log (key, id, step): {records:?}")?;
        }
        write!(f, "  steps: {:?}", self.steps)
    }
}

/// How much goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    None,
    Any,
    /// Two processes that die, stand still or are thrown out.
    Zombies,
    /// Commits and their answers only.
    Wire,
    /// One process, a foreign client, no keys.
    Rewinds,
}

/// A step from a process or partition, a number below 8 and two coins.
type Make = fn(u8, u8, bool, bool) -> Step;

const CALM: [(usize, Make); 10] = [
    (6, |_, k, work, _| Step::Rounds { n: 1 + 2 * k, work }),
    (6, |p, k, _, _| Step::Write { p, n: 1 + k % 5 }),
    (24, |m, n, due, late| Step::Turn { m, n, due, late }),
    (8, |m, _, _, _| Step::Library(m)),
    (4, |_, k, _, _| Step::Coordinator(k)),
    (16, |m, k, _, _| Step::Work { m, k }),
    (1, |_, k, _, _| Step::Time(10 + 25 * k)),
    (2, |_, _, _, _| Step::Move),
    (1, |m, _, _, _| Step::Stop(m)),
    (1, |m, _, _, _| Step::Restart(m)),
];

/// Processes that die, stand still or are thrown out.
const ZOMBIES: [(usize, Make); 7] = [
    (2, |m, _, _, _| Step::Crash(m)),
    (3, |m, _, _, _| Step::Freeze(m)),
    (4, |m, _, _, _| Step::Resume(m)),
    (4, |m, _, _, _| Step::Expire(m)),
    (1, |m, _, _, _| Step::LeaveLost(m)),
    (2, |m, _, _, _| Step::Restart(m)),
    (1, |m, _, _, _| Step::Stop(m)),
];

/// What a network and a library do to commits.
const WIRE: [(usize, Make); 8] = [
    (4, |m, _, _, _| Step::Arrive(m)),
    (1, |m, _, _, _| Step::Defer(m)),
    (2, |m, _, _, _| Step::Refuse(m)),
    (2, |m, _, _, _| Step::AnswerLost(m)),
    (3, |m, _, _, _| Step::Delay(m)),
    (3, |m, _, _, _| Step::Resend(m)),
    (4, |_, k, _, _| Step::GhostArrives(k)),
    (1, |_, k, _, _| Step::GhostIsGone(k)),
];

const RETENTION: [(usize, Make); 1] = [(1, |p, k, _, _| Step::Retention { p, n: 1 + k % 3 })];
const REWINDS: [(usize, Make); 1] = [(5, |p, _, _, _| Step::Rewind(p))];

fn made(faults: Faults) -> Vec<Make> {
    let tables: &[&[(usize, Make)]] = match faults {
        Faults::None => &[&CALM],
        Faults::Any => &[&CALM, &CALM, &ZOMBIES, &WIRE, &RETENTION],
        Faults::Zombies => &[&CALM, &ZOMBIES, &ZOMBIES],
        Faults::Wire => &[&CALM, &WIRE],
        // A new process remembers nothing: that is the limit, not the rule.
        Faults::Rewinds => &[&CALM.as_slice()[..8], &REWINDS],
    };
    let all = tables.iter().flat_map(|table| table.iter());
    all.flat_map(|(weight, make)| std::iter::repeat_n(*make, *weight)).collect()
}

/// One number makes a step: a tree of strategies would take longer than the whole run.
fn step(faults: Faults) -> impl Strategy<Value = Step> {
    let made = made(faults);
    (0..u32::MAX).prop_map(move |x| {
        let [kind, more, m, k] = x.to_be_bytes();
        let kind = usize::from(kind) * 256 + usize::from(more);
        made[kind % made.len()](m % 3, k % 8, k & 16 > 0, k & 32 > 0)
    })
}

/// Runs of at most `length` steps.
pub fn runs(faults: Faults, length: usize) -> BoxedStrategy<Run> {
    let keyed = |p: f64, n: u8| proptest::option::weighted(p, 0..n);
    let (keys, ids) = match faults {
        Faults::Rewinds => (Just(None).boxed(), Just(None).boxed()),
        _ => (keyed(0.8, 3).boxed(), keyed(0.5, 5).boxed()),
    };
    let made = (keys, ids, -20..40_i64).prop_map(|(key, id, step_ms)| Made { key, id, step_ms });
    let shape = (
        prop_oneof![Just(3_usize), Just(16), Just(256)],
        prop_oneof![1 => Just(44_usize), 4 => Just(2048)],
        1..12_usize,
        1..4_usize,
    );
    let (fewest, most) = match faults {
        Faults::Rewinds => (1_usize, 1_usize),
        Faults::Zombies => (2, 2),
        _ => (1, 3),
    };
    (fewest..=most, vec(vec(made, 3..14), 1..=3), shape, vec(step(faults), 1..length))
        .prop_map(|(processes, logs, shape, steps)| Run { processes, logs, shape, steps })
        .boxed()
}
