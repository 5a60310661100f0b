//! Claim stores that several dispatchers share: the same ids at two of them at once, while one of them and the store's servers
//! are killed. Every store is one entry of [`STORES`]. Must never hold the product to a time.

use super::{
    LIMIT,
    rig::{Rig, Told, ask, opened, residual, try_ask},
};
use crate::support::{
    dynamodb::DynamoDb, etcd::Etcd, nats::NatsCluster, redis::Redis, wait, witness::Behaviour,
};
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
    /// What a dispatcher finds in its environment.
    fn environment(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    /// `kill -9` of as many as the store is to survive with what it accepted.
    fn kill9(&mut self);
    /// They come back.
    fn restart(&mut self);
}

struct Nats(NatsCluster);

impl Servers for Nats {
    fn address(&self) -> String {
        self.0.url()
    }

    fn kill9(&mut self) {
        self.0.kill9(0);
    }

    fn restart(&mut self) {
        self.0.restart(0);
    }
}

impl Servers for Etcd {
    fn address(&self) -> String {
        format!("etcd://{}", Self::address(self))
    }

    fn kill9(&mut self) {
        Self::kill9(self);
    }

    fn restart(&mut self) {
        Self::restart(self);
    }
}

impl Servers for Redis {
    fn address(&self) -> String {
        format!("redis://{}", Self::address(self))
    }

    fn kill9(&mut self) {
        Self::kill9(self);
    }

    fn restart(&mut self) {
        Self::restart(self);
    }
}

impl Servers for DynamoDb {
    fn address(&self) -> String {
        "dynamodb://us-east-1/kubeless-claims".to_owned()
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let endpoint = ("AWS_ENDPOINT_URL_DYNAMODB", self.endpoint());
        Self::identity().map(|(name, value)| (name, value.to_owned())).into_iter().chain([endpoint]).collect()
    }

    fn kill9(&mut self) {
        Self::kill9(self);
    }

    fn restart(&mut self) {
        Self::restart(self);
    }
}

/// A store: its name and its servers.
type Entry = (&'static str, fn() -> Box<dyn Servers>);

const NATS: Entry = ("nats", || Box::new(Nats(NatsCluster::start(3))));
const ALONE: Entry = ("nats, one server", || Box::new(Nats(NatsCluster::start(1))));
const ETCD: Entry = ("etcd", || Box::new(Etcd::start()));
const DYNAMODB: Entry = ("dynamodb", || Box::new(DynamoDb::start()));
const REDIS: Entry = ("redis", || Box::new(Redis::start()));

/// Every store.
const STORES: [Entry; 4] = [NATS, ETCD, DYNAMODB, REDIS];
/// Every store, so that none of its servers is left when one is killed.
const LONE: [Entry; 4] = [ALONE, ETCD, DYNAMODB, REDIS];

/// Does the same to each of them, side by side.
fn each(stores: &[Entry], test: impl Fn(&str, &mut dyn Servers) + Sync) {
    thread::scope(|scope| {
        for (name, start) in stores {
            scope.spawn(|| test(name, &mut *start()));
        }
    });
}

#[test]
fn ids_that_race_at_two_dispatchers_while_one_and_the_store_die_make_one_call_each() {
    each(&STORES, race);
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
    let mut rig = shared(&servers.address());
    rig.environment = servers.environment();
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
        servers.kill9();
        servers.restart();
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
    each(&LONE, away);
}

fn away(name: &str, servers: &mut dyn Servers) {
    let mut rig = shared(&servers.address());
    rig.environment = servers.environment();
    let (mut dispatcher, to) = rig.start("one");
    let once = |key: &str| ask(to, "POST /orders", &[("idempotency-key", key)], "a");
    let until_delivered =
        |what: &str, key| wait::until(what, LIMIT * 2, || (once(key).status == 200).then_some(()));
    until_delivered(&format!("{name}: the store is connected"), "k-1");
    servers.kill9();
    let away = once("k-2");
    assert_eq!((away.status, away.header("retry-after").is_some()), (503, true), "{name}: {away:?}");
    assert_eq!(rig.witness.len(), 1, "{name}");
    servers.restart();
    until_delivered(&format!("{name}: claims again"), "k-2");
    let again = once("k-1");
    assert_eq!((again.status, again.header("idempotent-replayed")), (200, Some("true")), "{name}: {again:?}");
    assert_eq!(rig.witness.len(), 2, "{name}");
    wait::until("the residual is zero", LIMIT, || {
        (residual(&mut dispatcher).abs() < f64::EPSILON).then_some(())
    });
}
