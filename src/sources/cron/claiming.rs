//! One round of a trigger's thread: read what is not known, name what is overdue, plan, write the claim, and only then
//! start calls. Must never start what no certain answer granted, nor claim by a clock that nobody confirmed.

use super::{
    due::{self, Due},
    protocol::{
        Protocol, Purpose, Step,
        plan::{Why, Wish},
    },
    store::{Skew, Store, Trouble},
    thread::CronThread,
};
use crate::{
    api::cronjob_trigger::ConcurrencyPolicy,
    clock,
    dispatch::{Answer, InFlight, Judgement, StartLease, recorder::Ending, subscription::Pending},
    ledger::Outcome,
    testkit,
};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

/// Open instants of one trigger at once; a status is not the place for more.
const MOST_OPEN: usize = 64;
/// What the server's clock said of ours is believed for so long: before a claim it is asked again.
const SKEW_AGE_MS: u64 = 30_000;
/// What was read is fresh for so long: somebody else's claim is named only by a fresh read.
const FRESH_MS: u64 = 1_000;
/// Pause between repetitions of a write whose answer was lost.
const REPEAT: Duration = Duration::from_millis(200);
/// What an event costs beside its bytes; an estimate for the memory budget.
const ENVELOPE: usize = 512;

/// How a write ended, as far as it was waited for.
enum Committed {
    /// It took effect.
    Landed(Purpose),
    /// It did not, and will not.
    Not(String),
    /// Nobody knows yet.
    Unsure(String),
}

impl CronThread {
    /// One round. The error says why nothing is claimed.
    pub(super) fn act(&mut self) -> Result<(), String> {
        match self.protocol.step() {
            Step::Write(_) => return self.settle(),
            Step::Read => self.read()?,
            Step::Plan => {}
        }
        self.check_clock()?;
        if !self.name_overdue()? {
            return Ok(());
        }
        self.claim()
    }

    /// An answer is owed: asks once more.
    fn settle(&mut self) -> Result<(), String> {
        // What it claims cannot start any more: whoever waited for it has gone.
        match commit(&mut self.protocol, self.store.as_mut(), 0) {
            Committed::Landed(purpose) => {
                self.seen_boot_ms = clock::boot_ms();
                self.never_sent(&purpose.claims);
                self.account(&purpose);
                Ok(())
            }
            Committed::Not(why) if why.is_empty() => Ok(()),
            Committed::Not(why) | Committed::Unsure(why) => Err(why),
        }
    }

    fn read(&mut self) -> Result<(), String> {
        let found = self.store.read().map_err(|trouble| words(&trouble))?;
        (self.created, self.seen_boot_ms) = (found.created, clock::boot_ms());
        if let Some(purpose) = self.protocol.read(found.view) {
            self.never_sent(&purpose.claims);
            self.account(&purpose);
        }
        self.replaced();
        Ok(())
    }

    /// Nothing is claimed by a clock that is off, or that nobody has confirmed lately.
    fn check_clock(&mut self) -> Result<(), String> {
        let now_boot = (self.clocks.boot_ms)();
        let stale = |skew: &Skew| now_boot.saturating_sub(skew.boot_ms) > SKEW_AGE_MS;
        if self.store.skew().is_some_and(|skew| stale(&skew)) {
            self.protocol.forget_view();
            self.read()?;
        }
        let Some(skew) = self.store.skew() else { return Ok(()) };
        self.skew.set(skew.at_least_ms as f64 / 1000.0);
        let most = i64::try_from(self.options.max_clock_skew.as_millis()).unwrap_or(i64::MAX);
        if skew.at_least_ms <= most {
            return Ok(());
        }
        // Asked again by the next round.
        self.protocol.forget_view();
        if skew.at_least_ms == i64::MAX {
            return Err(
                "the API server's answers have no Date header: no clock confirms this machine's".to_owned()
            );
        }
        let apart = Duration::from_millis(skew.at_least_ms.unsigned_abs());
        Err(format!(
            "the clock of this machine and that of the API server are at least {apart:.1?} apart; set them by NTP"
        ))
    }

    /// Names claims of others whose deadline has passed (C3). False: what was read is too old for that, read first.
    fn name_overdue(&mut self) -> Result<bool, String> {
        let now_s = self.now_ms().div_euclid(1000);
        // One at a time: what is in the batch already is not named again.
        let busy = !self.unreported.is_empty() || self.flow.is_journal_broken();
        if busy || self.protocol.overdue(now_s).is_empty() {
            return Ok(true);
        }
        if clock::boot_ms().saturating_sub(self.seen_boot_ms) > FRESH_MS {
            self.protocol.forget_view();
            self.read()?;
        }
        for open in self.protocol.overdue(now_s) {
            let (event, owner) = (self.facts.event(open.instant), open.token.to_string());
            let (outcome, reason) = if open.token == self.protocol.token() {
                (Outcome::Unreachable, "claimed by an answer that was lost; never sent")
            } else {
                (Outcome::InDoubt, "claimed by a process that ended before it recorded an outcome")
            };
            let ending = Ending {
                id: &event.attributes.id,
                position: &event.position,
                outcome,
                reason: Some(reason),
                settled: None,
                owner: Some(&owner),
                count: 1,
            };
            tracing::warn!(
                trigger = %self.facts.reference, id = ending.id, outcome = outcome.as_str(), owner,
                instance = open.instance, "Scheduled call of a predecessor has no outcome"
            );
            self.flow.inherited(None, &ending);
            self.unreported.push(open);
        }
        // Once these lines are in the journal, the next round takes the entries out.
        Ok(self.unreported.is_empty())
    }

    fn claim(&mut self) -> Result<(), String> {
        // Since the clock was confirmed it may have been set: then the next round asks again before anything is due.
        if self.look_at_clocks() {
            return Ok(());
        }
        let now_ms = self.now_ms();
        let wish = self.wish(now_ms);
        let paused = self.flow.subscription().settings().paused;
        let due = if paused { Due::default() } else { self.due(&wish) };
        let subscription = Arc::clone(self.flow.subscription());
        let mut judging = subscription.judging(now_ms);
        let mut events = HashMap::new();
        let facts = &self.facts;
        let planned = self.protocol.plan(&due, &wish, |instant| {
            let event = facts.event(instant);
            let why = match judging.judge(0, instant, instant.saturating_mul(1000), &event) {
                Judgement::Pass(Outcome::Filtered, _) => Some(Why::Filtered),
                Judgement::Pass(..) => Some(Why::Expired),
                Judgement::Start | Judgement::Wait => None,
            };
            events.insert(instant, Arc::new(event));
            why
        });
        if !planned {
            return self.note_quiet(&due, paused);
        }
        let claims = self.protocol.purpose().map(|purpose| purpose.claims.clone()).unwrap_or_default();
        testkit::point(if claims.is_empty() { "before_done_flush" } else { "before_claim" });
        let batch: Vec<Arc<crate::event::Event>> =
            claims.iter().filter_map(|instant| events.remove(instant)).collect();
        self.write(batch)
    }

    /// Writes what is planned; starts what is granted.
    fn write(&mut self, events: Vec<Arc<crate::event::Event>>) -> Result<(), String> {
        let window_ms = u64::try_from(self.options.start_window.as_millis()).unwrap_or(0);
        // From before the write is sent: whatever it takes, nothing starts after what the entry promises (C3).
        let until = clock::boot_ms() + window_ms;
        let (protocol, store) = (&mut self.protocol, self.store.as_mut());
        let mut end = Committed::Not(String::new());
        if events.is_empty() {
            end = commit(protocol, store, until);
        } else {
            let lease = Arc::new(StartLease::new(until));
            let batch = events.into_iter().zip(0..).map(|(event, chain)| {
                let weight = event.weight + ENVELOPE;
                self.flow.hold(weight);
                let call = InFlight { event: Arc::clone(&event), original: None, weight, note: () };
                (Pending { shard: 0, chain, event, lease: Arc::clone(&lease) }, call)
            });
            let batch: Vec<_> = batch.collect();
            let began = Instant::now();
            let others = self.flow.claim(batch, |pending| {
                end = commit(protocol, store, until);
                if matches!(end, Committed::Landed(_)) {
                    testkit::point("after_claim");
                }
                answers(&end, pending)
            });
            self.flow.pace.committed(began.elapsed(), Duration::MAX);
            for (call, answer) in others {
                let metrics = self.flow.subscription().metrics();
                match answer {
                    Answer::Unknown => metrics.claims_unknown.increment(1),
                    _ => metrics.claims_refused.increment(1),
                }
                self.flow.release(call.weight);
            }
        }
        match end {
            Committed::Landed(purpose) => {
                self.seen_boot_ms = clock::boot_ms();
                let granted = purpose.claims.len() as u64;
                self.flow.subscription().metrics().claims_granted.increment(granted);
                self.account(&purpose);
                self.replaced();
                Ok(())
            }
            Committed::Not(why) if why.is_empty() => Ok(()),
            Committed::Not(why) | Committed::Unsure(why) => Err(why),
        }
    }

    /// Instants that a write passed over, once it took effect.
    fn account(&mut self, purpose: &Purpose) {
        self.quiet = None;
        for (span, why) in &purpose.passed {
            let (outcome, reason) = match why {
                Why::Late => (Outcome::Missed, "nobody could call in time"),
                Why::Overlap => {
                    (Outcome::Missed, "the call before it still ran, and concurrencyPolicy is Forbid")
                }
                Why::Filtered => (Outcome::Filtered, "filter"),
                Why::Expired => (Outcome::Expired, "older than delivery.expireAfter"),
                Why::Suspended => continue,
            };
            let position = self.facts.position(span.last);
            self.flow.unread(&position, outcome, reason, span.count);
            if outcome == Outcome::Missed {
                tracing::warn!(
                    trigger = %self.facts.reference, count = span.count, first = %self.facts.position(span.first),
                    last = %position, reason, "Scheduled calls missed"
                );
            }
        }
    }

    /// Claims that were granted too late to be called.
    fn never_sent(&mut self, claims: &[i64]) {
        for instant in claims {
            let position = self.facts.position(*instant);
            let reason = "claimed by an answer that was lost; never sent";
            self.flow.unread(&position, Outcome::Unreachable, reason, 1);
            self.unwritten.push(*instant);
        }
    }

    /// `Replace`: calls of ours are not waited for once a later one was claimed, by whomever.
    fn replaced(&mut self) {
        if self.facts.policy != ConcurrencyPolicy::Replace {
            return;
        }
        let open = self.protocol.view().into_iter().flat_map(|view| &view.register.open);
        let Some(newest) = open.map(|open| open.instant).max() else { return };
        let older: Vec<_> = self.flow.running().filter(|(_, instant)| *instant < newest).collect();
        for place in older {
            let reason = "not waited for: a later call took its place (concurrencyPolicy Replace)";
            if let Some(ended) = self.flow.give_up(place, reason) {
                self.note(&ended);
            }
        }
    }

    fn due(&mut self, wish: &Wish) -> Due {
        let last = self.protocol.view().and_then(|view| view.register.settled_until());
        let after = last.unwrap_or(wish.since);
        let due =
            due::due(|at| self.facts.occurrences.after(at), after, wish.now_ms.div_euclid(1000), wish.keep());
        let waiting = due.older.map_or(0, |span| span.count) + due.newest.len() as u64;
        self.lag.set(waiting as f64);
        due
    }

    /// Nothing was to be written: remembers until when, or says what is waited for.
    fn note_quiet(&mut self, due: &Due, paused: bool) -> Result<(), String> {
        if let Some(last) = self.protocol.view().and_then(|view| view.register.settled_until())
            && due.newest.is_empty()
            && !paused
        {
            self.quiet = Some((last, due.next.unwrap_or(i64::MAX)));
        }
        Ok(())
    }

    fn wish(&self, now_ms: i64) -> Wish {
        let subscription = self.flow.subscription();
        let open = self.protocol.view().map_or(0, |view| view.register.open.len());
        let grace = self.watched_from;
        let longest_call = subscription.call_timeout();
        let now_s = now_ms.div_euclid(1000);
        let over = self.options.start_window + longest_call + self.options.doubt_margin;
        Wish {
            now_ms,
            // One that was only just made counts from its beginning, an old one from now.
            since: self.created.filter(|created| (grace..=now_s).contains(created)).unwrap_or(now_s),
            watched_from: grace,
            suspended_until: self.suspended_until,
            patience: self.facts.patience,
            catch_up: self.facts.catch_up,
            forbid: self.facts.policy == ConcurrencyPolicy::Forbid,
            room: self.flow.budget(self.flow.calls()).min(MOST_OPEN.saturating_sub(open)),
            deadline: now_s + i64::try_from(over.as_secs()).unwrap_or(i64::MAX) + 1,
        }
    }

    /// One step towards a register that lists nothing of ours that has ended.
    pub(super) fn close_once(&mut self) -> Result<(), String> {
        match self.protocol.step() {
            Step::Write(_) => self.settle(),
            Step::Read => self.read(),
            Step::Plan => {
                let wish = self.wish(self.now_ms());
                if self.protocol.plan(&Due::default(), &wish, |_| None) {
                    self.write(Vec::new())
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// Sends the write under way until its answer is certain or the boot clock says `until`.
fn commit(protocol: &mut Protocol, store: &mut dyn Store, until: u64) -> Committed {
    loop {
        let mut why = String::new();
        match protocol.step() {
            Step::Write(write) => {
                testkit::point("claim_sent");
                let (answer, words) = store.write(&write);
                testkit::point("claim_unknown");
                why = words;
                if let Some(purpose) = protocol.answered(answer) {
                    return Committed::Landed(purpose);
                }
            }
            // The version has moved on: whose claim stands there?
            Step::Read => match store.read() {
                Ok(found) => {
                    return match protocol.read(found.view) {
                        Some(purpose) => Committed::Landed(purpose),
                        None => Committed::Not(why),
                    };
                }
                Err(trouble) => why = words(&trouble),
            },
            Step::Plan => return Committed::Not(why),
        }
        if !protocol.is_unsure() {
            return Committed::Not(why);
        }
        if matches!(protocol.step(), Step::Read) && why.is_empty() {
            continue;
        }
        if clock::boot_ms() >= until {
            return Committed::Unsure(why);
        }
        std::thread::sleep(REPEAT);
    }
}

fn answers(end: &Committed, pending: &[Pending]) -> Vec<Answer> {
    let answer = |item: &Pending| match end {
        Committed::Landed(purpose) if purpose.claims.contains(&item.event.position.sequence) => {
            Answer::Granted
        }
        Committed::Unsure(_) => Answer::Unknown,
        _ => Answer::Refused,
    };
    pending.iter().map(answer).collect()
}

fn words(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Away(why) => format!("the register does not answer: {why}"),
        Trouble::Refused(why) => format!("the register cannot be used: {why}"),
    }
}
