//! Deduplication window: a naive function of the whole log (rule D1) against the window, with refused batches,
//! parked records and changes of owner; and the same property run over mutants, each of which it must catch.

use kubeless::claims::window::{Overlay, Verdict, Window, WindowConfig};
use kubeless::event::BusinessId;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRng, TestRunner};

const SPAN: i64 = 100;

/// A protocol bug to put into the consumer below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    None,
    /// Time is the consumer's clock, for expiry and for the start of a rebuild.
    WallClock,
    /// Ids enter when planned, not when granted.
    InsertBeforeGrant,
    /// The window knows ids only, not which record they came from.
    NoSequence,
    /// A rebuild reads beyond the claimed position.
    ReadsPast,
    /// Duplicates do not enter, so they do not extend the window of their id.
    DuplicatesDoNotExtend,
    /// Parked records do not enter.
    ParkedDoNotEnter,
    /// A refused batch does not set log time back.
    NoRewind,
}

#[derive(Clone, Debug)]
struct Record {
    ts: i64,
    id: Option<u8>,
}

#[derive(Clone, Debug)]
struct Step {
    batch: usize,
    refused: bool,
    /// Park the fresh records of this batch and judge them again when the batch after it is through.
    park: bool,
    takeover: bool,
    /// Consumer's clock moves on by so much.
    pause: i64,
}

fn id_of(id: u8) -> BusinessId {
    BusinessId::of(&[&[id]])
}

/// Rule D1, read off the log without any state: latest q < r with the same id and ts(r) - ts(q) <= span.
fn naive(log: &[Record]) -> Vec<Option<i64>> {
    let mut time = -1;
    let times: Vec<i64> = log
        .iter()
        .map(|r| {
            time = time.max(r.ts);
            time
        })
        .collect();
    (0..log.len())
        .map(|r| {
            (0..r)
                .rev()
                .find(|&q| {
                    times[r] >= 0
                        && times[q] >= 0
                        && log[r].id.is_some()
                        && log[q].id == log[r].id
                        && times[r] - times[q] <= SPAN
                })
                .map(|q| q as i64)
        })
        .collect()
}

struct Consumer<'a> {
    log: &'a [Record],
    mutant: Mutant,
    window: Window,
    position: usize,
    /// Log time of the last record before the position, as the claim register carries it.
    position_time: i64,
    wall: i64,
    parked: Vec<(usize, i64)>,
    verdicts: Vec<Option<i64>>,
}

impl Consumer<'_> {
    fn time(&self, r: usize) -> i64 {
        let shard = self.window.shard(0);
        if self.mutant == Mutant::WallClock { self.wall } else { shard.observe(self.log[r].ts) }
    }

    fn sequence(&self, r: usize) -> i64 {
        if self.mutant == Mutant::NoSequence { i64::MAX } else { r as i64 }
    }

    fn takeover(&mut self) {
        self.window.forget_shard(0);
        let shard = self.window.shard(0);
        let now = if self.mutant == Mutant::WallClock { self.wall } else { self.position_time };
        let from = self.window.rebuild_from_ms(now);
        let first = self.log.iter().position(|r| r.ts >= from).unwrap_or(self.log.len());
        let past = if self.mutant == Mutant::ReadsPast { 3 } else { 0 };
        for r in first..(self.position + past).min(self.log.len()) {
            let time = if self.mutant == Mutant::WallClock { self.log[r].ts } else { self.time(r) };
            if let Some(id) = self.log[r].id {
                let duplicate = matches!(shard.check(id_of(id), r as i64, time), Verdict::Duplicate { .. });
                let left_out = (self.mutant == Mutant::DuplicatesDoNotExtend && duplicate)
                    || (self.mutant == Mutant::ParkedDoNotEnter && self.parked.iter().any(|p| p.0 == r));
                if !left_out {
                    shard.enter(id_of(id), r as i64, time);
                }
            }
        }
        if self.mutant != Mutant::ReadsPast {
            shard.rewind(self.position_time);
        }
        shard.advance(self.position_time);
    }

    fn batch(&mut self, step: &Step) -> Result<(), String> {
        let end = (self.position + step.batch).min(self.log.len());
        let shard = self.window.shard(0);
        let mut overlay = Overlay::default();
        let mut planned = Vec::new();
        let mut time = self.position_time;
        for r in self.position..end {
            time = self.time(r);
            let Some(id) = self.log[r].id else { continue };
            let verdict = overlay.check(&shard, id_of(id), self.sequence(r), time);
            let duplicate = matches!(verdict, Verdict::Duplicate { .. });
            planned.push((r, time, verdict));
            if (self.mutant == Mutant::DuplicatesDoNotExtend && duplicate)
                || (self.mutant == Mutant::ParkedDoNotEnter && step.park && !duplicate)
            {
                continue;
            }
            if self.mutant == Mutant::InsertBeforeGrant {
                shard.enter(id_of(id), r as i64, time);
            } else {
                overlay.enter(id_of(id), r as i64, time);
            }
        }
        if step.refused {
            if self.mutant != Mutant::NoRewind {
                shard.rewind(self.position_time);
            }
            return Ok(());
        }
        overlay.grant(&shard, time);
        for (r, time, verdict) in planned {
            match verdict {
                Verdict::Duplicate { of } => self.verdicts[r] = Some(of),
                Verdict::Fresh if step.park => self.parked.push((r, time)),
                Verdict::Fresh => {}
                Verdict::Full => return Err("full".into()),
            }
        }
        (self.position, self.position_time) = (end, time);
        Ok(())
    }

    /// L1: parked records are judged once more when their key is free.
    fn unpark(&mut self) -> Result<(), String> {
        let shard = self.window.shard(0);
        for (r, time) in std::mem::take(&mut self.parked) {
            let id = id_of(self.log[r].id.expect("only records with an id are parked"));
            if let Verdict::Duplicate { of } = shard.check(id, self.sequence(r), time) {
                return Err(format!("parked record {r} became a duplicate of {of}"));
            }
        }
        Ok(())
    }
}

fn same_verdicts(mutant: Mutant, log: &[Record], steps: &[Step], generations: usize) -> Result<(), String> {
    let window = Window::new(WindowConfig { span_ms: SPAN, max_entries: 10_000, generations });
    let mut consumer = Consumer {
        log,
        mutant,
        window,
        position: 0,
        position_time: -1,
        wall: log.iter().map(|r| r.ts).max().unwrap_or(0),
        parked: Vec::new(),
        verdicts: vec![None; log.len()],
    };
    let rest = Step { batch: log.len(), refused: false, park: false, takeover: false, pause: 0 };
    for step in steps.iter().chain([&rest]) {
        consumer.wall += step.pause;
        if step.takeover {
            consumer.takeover();
        }
        let parked_before = !consumer.parked.is_empty();
        consumer.batch(step)?;
        if parked_before {
            consumer.unpark()?;
        }
        if consumer.window.shard(0).generations() > generations.max(3) {
            return Err(format!("{} generations stand", consumer.window.shard(0).generations()));
        }
    }
    consumer.unpark()?;
    let expected = naive(log);
    if consumer.verdicts == expected {
        Ok(())
    } else {
        Err(format!("{:?} != {expected:?}", consumer.verdicts))
    }
}

fn any_log() -> impl Strategy<Value = Vec<Record>> {
    let step = prop_oneof![4 => 0_i64..5, 3 => 5_i64..60, 1 => 60_i64..300];
    vec((step, proptest::option::weighted(0.9, 0_u8..6), 0_i64..30, 0..20), 0..60).prop_map(|records| {
        let mut now = 0;
        let mut log = Vec::new();
        for (step, id, late, unknown) in records {
            now += step;
            log.push(Record { ts: if unknown == 0 { -1 } else { (now - late).max(0) }, id });
        }
        log
    })
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        1_usize..12,
        prop::bool::weighted(0.3),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.3),
        0_i64..60,
    );
    vec(
        step.prop_map(|(batch, refused, park, takeover, pause)| Step {
            batch,
            refused,
            park,
            takeover,
            pause,
        }),
        0..14,
    )
}

fn run(mutant: Mutant, cases: u32) -> Result<(), String> {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let strategy = (any_log(), any_steps(), 3_usize..9);
    runner
        .run(&strategy, |(log, steps, generations)| {
            same_verdicts(mutant, &log, &steps, generations).map_err(TestCaseError::fail)
        })
        .map_err(|e| match e {
            TestError::Fail(why, (log, steps, generations)) => {
                format!("{why}\n{log:?}\n{steps:?}\n{generations}")
            }
            TestError::Abort(why) => format!("aborted: {why}"),
        })
}

#[test]
fn d1_verdicts_are_a_function_of_the_log_across_rebuilds() {
    if let Err(why) = run(Mutant::None, 4000) {
        panic!("{why}");
    }
}

#[test]
fn d1_d2_every_mutant_is_caught() {
    for mutant in [
        Mutant::WallClock,
        Mutant::InsertBeforeGrant,
        Mutant::NoSequence,
        Mutant::ReadsPast,
        Mutant::DuplicatesDoNotExtend,
        Mutant::ParkedDoNotEnter,
        Mutant::NoRewind,
    ] {
        let why = run(mutant, 4000).expect_err(&format!("{mutant:?} was not caught"));
        assert!(!why.starts_with("aborted"), "{mutant:?}: {why}");
    }
}

fn small(max_entries: usize) -> Window {
    Window::new(WindowConfig { span_ms: SPAN, max_entries, generations: 4 })
}

#[test]
fn d1_expiry_is_log_time() {
    let window = small(10);
    let shard = window.shard(0);
    shard.enter(id_of(1), 0, 1000);
    assert_eq!(shard.check(id_of(1), 1, 1100), Verdict::Duplicate { of: 0 }, "the span is inclusive");
    assert_eq!(shard.check(id_of(1), 1, 1101), Verdict::Fresh, "although its generation stands");
    assert_eq!(shard.generations(), 1);
    shard.advance(1300);
    assert_eq!((shard.generations(), window.len()), (0, 0));
}

#[test]
fn d1_a_lagging_shard_keeps_its_own_time() {
    let window = small(10);
    let (ahead, behind) = (window.shard(0), window.shard(1));
    behind.enter(id_of(1), 0, 1000);
    ahead.enter(id_of(1), 0, 900_000);
    ahead.advance(900_000);
    assert_eq!(behind.check(id_of(1), 7, 1050), Verdict::Duplicate { of: 0 });
    assert_eq!(behind.check(id_of(2), 7, 1050), Verdict::Fresh);
}

#[test]
fn d1_log_time_is_monotone_and_unknown_time_is_no_time() {
    let shard = small(10).shard(0);
    assert_eq!(shard.observe(-1), -1);
    shard.enter(id_of(1), 0, -1);
    assert_eq!(shard.check(id_of(1), 1, -1), Verdict::Fresh);
    assert!(shard.is_empty());
    assert_eq!(
        (shard.observe(50), shard.observe(20), shard.observe(-1), shard.observe(60)),
        (50, 50, 50, 60)
    );
    shard.rewind(20);
    assert_eq!(shard.observe(30), 30);
}

#[test]
fn d2_a_refused_batch_leaves_nothing() {
    let shard = small(10).shard(0);
    let mut batch = Overlay::default();
    batch.enter(id_of(1), 5, 10);
    assert_eq!(batch.check(&shard, id_of(1), 6, 10), Verdict::Duplicate { of: 5 });
    drop(batch);
    assert_eq!(shard.check(id_of(1), 6, 10), Verdict::Fresh);
}

#[test]
fn d2_a_record_is_never_its_own_duplicate() {
    let shard = small(10).shard(0);
    shard.enter(id_of(1), 5, 10);
    assert_eq!(shard.check(id_of(1), 5, 10), Verdict::Fresh);
    assert_eq!(shard.check(id_of(1), 4, 10), Verdict::Fresh);
    assert_eq!(shard.check(id_of(1), 6, 10), Verdict::Duplicate { of: 5 });
}

#[test]
fn full_holds_back_and_evicts_nothing() {
    let window = small(3);
    let (shard, other) = (window.shard(0), window.shard(1));
    shard.enter(id_of(1), 0, 1000);
    other.enter(id_of(1), 0, 1000);
    let mut batch = Overlay::default();
    assert_eq!(batch.check(&shard, id_of(2), 1, 1000), Verdict::Fresh);
    batch.enter(id_of(2), 1, 1000);
    assert_eq!(batch.check(&shard, id_of(3), 2, 1000), Verdict::Full, "planned ids count");
    assert_eq!(batch.check(&shard, id_of(1), 2, 1000), Verdict::Duplicate { of: 0 }, "needs no room");
    batch.grant(&shard, 1000);
    assert_eq!(shard.check(id_of(3), 2, 1100), Verdict::Full);
    shard.advance(1100);
    assert_eq!(shard.check(id_of(1), 3, 1100), Verdict::Duplicate { of: 0 }, "still inside");
    shard.advance(1300);
    assert_eq!(shard.check(id_of(3), 2, 1300), Verdict::Fresh);
    assert_eq!(window.len(), 1, "the other shard's time has not moved");
    window.forget_shard(1);
    drop(other);
    assert!(window.is_empty());
}

#[test]
fn truncation_is_asked_for_and_says_how_far() {
    let shard = small(3).shard(0);
    assert_eq!(shard.truncate_oldest(), None);
    shard.enter(id_of(1), 0, 1000);
    let until = shard.truncate_oldest().unwrap();
    assert!(until > 1000 && until <= 1000 + SPAN, "{until}");
    assert!(shard.is_empty());
}

#[test]
fn a_forgotten_shard_starts_empty() {
    let window = small(10);
    window.shard(3).enter(id_of(1), 0, 10);
    assert_eq!(window.shard(3).check(id_of(1), 1, 10), Verdict::Duplicate { of: 0 });
    window.forget_shard(3);
    assert_eq!(window.shard(3).check(id_of(1), 1, 10), Verdict::Fresh);
}
