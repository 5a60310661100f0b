//! Claim stores that several dispatchers share: the same ids at two of them at once, while one of them and the store's servers
//! are killed. Every store is one entry of [`STORES`]. Must never hold the product to a time.

use super::{
    LIMIT,
    rig::{Rig, Told, ask, opened, residual, try_ask},
};
use crate::support::{etcd::Etcd, nats::NatsCluster, wait, witness::Behaviour};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// Ids, each sent to both dispatchers at once.
const IDS: usize = 300;
/// Ids that are on their way at once.
const CALLERS: usize = 6;

/// Servers of a store.
trait Servers: Sync + Send {
    fn address(&self) -> String;
    /// `kill -9` of as many as the store is to survive with what it accepted; they come back.
    fn kill_and_restart(&mut self);
}

struct Nats(NatsCluster);

impl Servers for Nats {
    fn address(&self) -> String {
        self.0.url()
    }

    fn kill_and_restart(&mut self) {
        self.0.kill9(0);
        self.0.restart(0);
    }
}

impl Servers for Etcd {
    fn address(&self) -> String {
        format!("etcd://{}", Self::address(self))
    }

    fn kill_and_restart(&mut self) {
        Self::kill_and_restart(self);
    }
}

/// A store: its name and its servers.
type Entry = (&'static str, fn() -> Box<dyn Servers>);

const STORES: &[Entry] =
    &[("nats", || Box::new(Nats(NatsCluster::start(3)))), ("etcd", || Box::new(Etcd::start()))];

#[test]
fn ids_that_race_at_two_dispatchers_while_one_and_the_store_die_make_one_call_each() {
    thread::scope(|scope| {
        for (name, start) in STORES {
            scope.spawn(move || race(name, &mut *start()));
        }
    });
}

fn shared(address: &str) -> Rig {
    let store = format!("store=\"{address}\"");
    Rig::new(&[&store, "start_window=\"2s\"", "doubt_margin=\"1s\""], "")
}

/// What the callers were told in the end, by id.
struct Callers {
    /// Where the dispatchers are now; changes when one is started again.
    doors: [Mutex<SocketAddr>; 2],
    next: AtomicUsize,
    told: Mutex<BTreeMap<String, Vec<Told>>>,
}

impl Callers {
    fn run(&self) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= IDS {
                return;
            }
            let id = format!("id-{number}");
            let told: Vec<Told> = thread::scope(|scope| {
                let both: Vec<_> = (0..2)
                    .map(|door| {
                        scope.spawn({
                            let id = &id;
                            move || self.until_told(door, id)
                        })
                    })
                    .collect();
                both.into_iter().map(|caller| caller.join().expect("an answer")).collect()
            });
            self.told.lock().expect("no panic inside").insert(id, told);
        }
    }

    /// Asks until the answer is one that stays: neither "later" nor a broken connection.
    fn until_told(&self, door: usize, id: &str) -> Told {
        wait::until(&format!("an answer for {id} at {door} that stays"), LIMIT * 2, || {
            let to = *self.doors[door].lock().expect("no panic inside");
            let told = try_ask(to, "POST /orders", &[("idempotency-key", id)], "a").ok()?;
            (!matches!(told.status, 404 | 409 | 503)).then_some(told)
        })
    }
}

fn race(name: &str, servers: &mut dyn Servers) {
    let rig = shared(&servers.address());
    rig.witness.always(Behaviour::Answer { status: 200, delay: Duration::from_millis(20) });
    let (mut one, first) = rig.start("one");
    let (mut two, second) = rig.start("two");
    let callers = Callers {
        doors: [Mutex::new(first), Mutex::new(second)],
        next: AtomicUsize::new(0),
        told: Mutex::default(),
    };
    let seen =
        |count| assert!(rig.witness.wait_until(LIMIT, |seen| seen.len() >= count), "{name}: {count} calls");
    thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| callers.run());
        }
        seen(IDS / 4);
        servers.kill_and_restart();
        seen(IDS / 2);
        one.kill9();
        one = rig.launch("one").start();
        *callers.doors[0].lock().expect("no panic inside") = opened(&mut one);
    });
    let told = callers.told.into_inner().expect("no panic inside");
    judge(name, &rig, &told);
    // Somebody else's content under a used id, at the dispatcher that did not call.
    let used = told.iter().find(|(_, told)| told[0].status == 200).expect("one was delivered").0;
    let to = *callers.doors[1].lock().expect("no panic inside");
    assert_eq!(ask(to, "POST /orders", &[("idempotency-key", used)], "b").status, 422, "{name}");
    for dispatcher in [&mut one, &mut two] {
        wait::until("the residual is zero", LIMIT, || {
            (residual(dispatcher).abs() < f64::EPSILON).then_some(())
        });
    }
}

/// Nothing was called twice, both callers were told the same, and what nobody knows is named.
fn judge(name: &str, rig: &Rig, told: &BTreeMap<String, Vec<Told>>) {
    let mut calls: BTreeMap<String, usize> = BTreeMap::new();
    for seen in rig.witness.seen() {
        *calls.entry(seen.id).or_default() += 1;
    }
    let twice: Vec<_> = calls.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "{name}: called twice: {twice:?}");
    let outcomes: BTreeSet<(String, String)> = rig.outcomes().into_iter().collect();
    let has = |outcome: &str, id: &str| outcomes.contains(&(outcome.to_owned(), id.to_owned()));
    let mut doubted = 0;
    assert_eq!(told.len(), IDS, "{name}");
    for (id, told) in told {
        for told in told {
            match told.status {
                200 => assert_eq!(calls.get(id), Some(&1), "{name}: {id}: {told:?}"),
                502 => {
                    doubted += 1;
                    assert!(has("in_doubt", id) || has("unanswered", id), "{name}: {id}: {told:?}");
                }
                _ => panic!("{name}: {id}: {told:?}"),
            }
        }
        let calls_without_end = calls.contains_key(id) && !has("delivered", id) && !has("in_doubt", id);
        assert!(!calls_without_end, "{name}: {id} was called and has no end");
    }
    println!("{name}: {IDS} ids at two dispatchers, {} calls, {doubted} answers in doubt", calls.len());
}

#[test]
fn a_shared_store_that_is_away_means_503_and_no_call_until_it_is_back() {
    let mut servers = NatsCluster::start(1);
    let rig = shared(&servers.url());
    let (mut dispatcher, to) = rig.start("one");
    wait::until("the store is connected", LIMIT, || {
        (ask(to, "POST /orders", &[("idempotency-key", "k-1")], "a").status == 200).then_some(())
    });
    servers.kill9(0);
    let away = ask(to, "POST /orders", &[("idempotency-key", "k-2")], "a");
    assert_eq!((away.status, away.header("retry-after").is_some()), (503, true), "{away:?}");
    assert_eq!(rig.witness.len(), 1);
    servers.restart(0);
    wait::until("claims again", LIMIT, || {
        (ask(to, "POST /orders", &[("idempotency-key", "k-2")], "a").status == 200).then_some(())
    });
    let again = ask(to, "POST /orders", &[("idempotency-key", "k-1")], "a");
    assert_eq!((again.status, again.header("idempotent-replayed")), (200, Some("true")), "{again:?}");
    assert_eq!(rig.witness.len(), 2);
    wait::until("the residual is zero", LIMIT, || {
        (residual(&mut dispatcher).abs() < f64::EPSILON).then_some(())
    });
}
