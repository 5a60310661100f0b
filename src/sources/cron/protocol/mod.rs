//! The claim protocol of one trigger as a pure state machine: which step comes next, and what an answer means. Must
//! never do I/O, read a clock or start a thread; what it grants may be called once, by whoever drives it.
//!
//! * **C1** An answer that is lost is resolved by the identical conditional write once more, until one answer is
//!   certain: accepted, or refused because the version has moved on (then a fresh read tells whose claim stands there).
//! * **C2** Every write carries all open instants but those whose outcome or report is durable.
//! * **C3** There is no owner: an open instant of another is named only after its deadline, and its owner starts nothing
//!   after its own start deadline (the driver's lease).

pub mod plan;
#[cfg(test)]
mod tests;

use super::{
    due::Span,
    register::{Open, Register, Token, View, Write},
};
use std::collections::{BTreeMap, BTreeSet};

/// Seeded bugs: each must be caught by the protocol's tests.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mutations {
    /// A claim found by a read after a lost answer is taken for another's.
    pub token_ignored: bool,
    /// A lost answer counts as granted.
    pub unknown_fires: bool,
    /// After a lost answer a read decides, without the identical write.
    pub get_is_proof: bool,
    /// Open instants of others are not carried.
    pub no_carry: bool,
    /// Open instants of others are named before their deadline.
    pub names_the_living: bool,
    /// A claim is written without the version that was read.
    pub no_condition: bool,
    /// An entry is taken out before its outcome is durable.
    pub early_close: bool,
}

/// What the driver has to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Read the register, from a quorum.
    Read,
    /// Send this write (again, if it was sent before).
    Write(Write),
    /// Nothing is under way: plan, if there is anything to do.
    Plan,
}

/// The register's answer to a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It took effect; the new version.
    Accepted(String),
    /// The version has moved on: this write, sent ever so often, has no effect any more.
    Conflict,
    /// Nobody knows.
    Unknown,
    /// It was not looked at (no right, no such object).
    Refused,
}

/// What one write was for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purpose {
    /// Instants that it claims.
    pub claims: Vec<i64>,
    /// Instants that it passes over, by reason.
    pub passed: Vec<(Span, plan::Why)>,
}

#[derive(Clone, Debug)]
struct Attempt {
    write: Write,
    purpose: Purpose,
    /// An answer was lost.
    lost: bool,
    /// The version has moved on: a read tells the rest.
    moved: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mine {
    /// Granted, without a durable outcome.
    Running,
    /// Its outcome is durable.
    Ended,
}

/// The state.
#[derive(Clone, Debug)]
pub struct Protocol {
    token: Token,
    instance: String,
    view: Option<View>,
    attempt: Option<Attempt>,
    mine: BTreeMap<i64, Mine>,
    reported: BTreeSet<(i64, Token)>,
    mutations: Mutations,
}

impl Protocol {
    /// Knows nothing yet. `token` is new for every protocol: what it does not know of its own was never sent (N3).
    pub fn new(token: Token, instance: String) -> Self {
        Self {
            token,
            instance,
            view: None,
            attempt: None,
            mine: BTreeMap::new(),
            reported: BTreeSet::new(),
            mutations: Mutations::default(),
        }
    }

    /// Switches seeded bugs on.
    #[cfg(test)]
    pub fn with_mutations(mut self, mutations: Mutations) -> Self {
        self.mutations = mutations;
        self
    }

    /// The token.
    pub fn token(&self) -> Token {
        self.token
    }

    /// What is to be done next.
    pub fn step(&self) -> Step {
        match &self.attempt {
            Some(attempt) if !attempt.moved => Step::Write(attempt.write.clone()),
            _ if self.view.is_none() => Step::Read,
            _ => Step::Plan,
        }
    }

    /// What the register held when it was last read or written; `None`: a read is due.
    pub fn view(&self) -> Option<&View> {
        self.view.as_ref().filter(|_| self.attempt.is_none())
    }

    /// Has the register read before the next plan. Never forgets a write whose answer is not certain.
    pub fn forget_view(&mut self) {
        self.view = None;
    }

    /// What the write under way is for.
    pub fn purpose(&self) -> Option<&Purpose> {
        self.attempt.as_ref().map(|attempt| &attempt.purpose)
    }

    /// Whether a write is under way whose answer is not certain.
    pub fn is_unsure(&self) -> bool {
        self.attempt.is_some()
    }

    /// Instants of other processes (or of an unknown claim of this one) that are open.
    pub fn foreign(&self) -> impl Iterator<Item = &Open> {
        let open = self.view().map(|view| view.register.open.as_slice()).unwrap_or_default();
        open.iter()
            .filter(|open| !self.is_known(open) && !self.reported.contains(&(open.instant, open.token)))
    }

    fn is_known(&self, open: &Open) -> bool {
        open.token == self.token && self.mine.contains_key(&open.instant)
    }

    /// Open instants that have to be named now: their deadline has passed (C3).
    pub fn overdue(&self, now_s: i64) -> Vec<Open> {
        let over = |open: &&Open| open.deadline < now_s || self.mutations.names_the_living;
        self.foreign().filter(over).cloned().collect()
    }

    /// The report of an open instant is durable.
    pub fn reported(&mut self, open: &Open) {
        self.reported.insert((open.instant, open.token));
    }

    /// The outcome of an instant of ours is durable.
    pub fn ended(&mut self, instant: i64) {
        if let Some(mine) = self.mine.get_mut(&instant) {
            *mine = Mine::Ended;
        }
    }

    /// Open entries as the next write carries them (C2).
    pub fn carried(&self) -> Vec<Open> {
        let open = self.view.as_ref().map(|view| view.register.open.clone()).unwrap_or_default();
        let stays = |open: &Open| {
            if open.token == self.token {
                let ended = self.mine.get(&open.instant) == Some(&Mine::Ended) || self.mutations.early_close;
                !ended && !self.reported.contains(&(open.instant, open.token))
            } else {
                !self.reported.contains(&(open.instant, open.token)) && !self.mutations.no_carry
            }
        };
        open.into_iter().filter(stays).collect()
    }

    /// Whether the register still lists what is durable elsewhere.
    pub fn is_dirty(&self) -> bool {
        self.view().is_some_and(|view| self.carried().len() < view.register.open.len())
    }

    /// Puts a planned write under way: the next [`Self::step`] sends it. Only after [`Step::Plan`].
    pub fn begin(&mut self, mut register: Register, deadline: i64, purpose: Purpose) {
        let Some(view) = self.view.as_ref().filter(|_| self.attempt.is_none()) else { return };
        for instant in &purpose.claims {
            register.open.push(Open {
                instant: *instant,
                token: self.token,
                deadline,
                instance: self.instance.clone(),
            });
        }
        let version = if self.mutations.no_condition { String::new() } else { view.version.clone() };
        let write = Write { version, register };
        self.attempt = Some(Attempt { write, purpose, lost: false, moved: false });
    }

    /// An answer to the write under way. `Some`: it took effect, and this is what it was for.
    pub fn answered(&mut self, answer: Answer) -> Option<Purpose> {
        let attempt = self.attempt.as_mut()?;
        match answer {
            Answer::Accepted(version) => {
                let attempt = self.attempt.take()?;
                self.view = Some(View { version, register: attempt.write.register });
                self.forget_closed();
                Some(self.granted(attempt.purpose))
            }
            Answer::Conflict => {
                (attempt.moved, self.view) = (true, None);
                None
            }
            Answer::Unknown if self.mutations.unknown_fires => {
                let attempt = self.attempt.take()?;
                self.view = None;
                Some(self.granted(attempt.purpose))
            }
            Answer::Unknown => {
                attempt.lost = true;
                attempt.moved |= self.mutations.get_is_proof;
                if attempt.moved {
                    self.view = None;
                }
                None
            }
            Answer::Refused => {
                // One that was sent before may still be on its way: it stays under way until its answer is certain.
                if !attempt.lost {
                    (self.attempt, self.view) = (None, None);
                }
                None
            }
        }
    }

    /// The register was read, from a quorum, after [`Step::Read`]. `Some`: a write whose answer was lost had taken effect.
    pub fn read(&mut self, view: View) -> Option<Purpose> {
        self.view = Some(view);
        let attempt = self.attempt.take_if(|attempt| attempt.moved)?;
        self.forget_closed();
        let register = &self.view.as_ref()?.register;
        let is_ours = |instant: &i64| {
            let found = register.open.iter().any(|open| open.instant == *instant && open.token == self.token);
            found && !self.mine.contains_key(instant) && !self.mutations.token_ignored
        };
        let claims: Vec<i64> = attempt.purpose.claims.iter().copied().filter(is_ours).collect();
        // A write that claims nothing leaves no token. If its answer was lost and the register is at least as far, it is
        // taken for ours: a line that another wrote too is merged by its key, one that nobody wrote would be lost.
        let ours = match attempt.purpose.claims.is_empty() {
            true => attempt.lost && register.last >= attempt.write.register.last,
            false => !claims.is_empty(),
        };
        ours.then(|| self.granted(Purpose { claims, passed: attempt.purpose.passed }))
    }

    fn granted(&mut self, purpose: Purpose) -> Purpose {
        for instant in &purpose.claims {
            self.mine.insert(*instant, Mine::Running);
        }
        purpose
    }

    /// What the register does not list any more need not be remembered.
    fn forget_closed(&mut self) {
        let Some(view) = &self.view else { return };
        let open = &view.register.open;
        let listed =
            |instant: i64, token: Token| open.iter().any(|o| o.instant == instant && o.token == token);
        let token = self.token;
        self.mine.retain(|instant, mine| *mine == Mine::Running || listed(*instant, token));
        self.reported.retain(|(instant, token)| listed(*instant, *token));
    }
}
