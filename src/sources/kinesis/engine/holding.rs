//! Which shards are held: listing, taking over what is free, giving back what is beyond the share, losing. Must never keep
//! a shard after a write of it was refused.

use super::{
    Engine, Event, Generation, LOOKS, Purpose, RETRY, Wrote,
    claiming::full_window,
    slots::{Held, ORIGIN, Origin, Reader, SHARD, Slot, number},
};
use crate::{
    clock,
    dispatch::StartLease,
    register::{self, Stored, Written},
    sources::{
        Exit,
        kinesis::{
            client::{Fault, Stream},
            protocol::{
                Mutations,
                lease::{Seen, surplus, to_take},
                plan::Plan,
                shard::Shard,
            },
            register::{FIRST_VERSIONS, Row},
        },
    },
    testkit,
};
use std::{
    collections::{BTreeMap, HashSet},
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

/// What is in trouble, beside shards.
const STREAM: &str = "stream";
const REGISTER: &str = "register";
/// Pause before a thread begins anew because the stream under it was made anew.
const ANEW: Duration = Duration::from_secs(1);

impl Engine {
    /// Asks for the stream and the register when it is time.
    pub(super) fn look(&mut self) {
        let now = Instant::now();
        if !self.describing && now >= self.describe_at {
            self.describing = true;
            let client = Rc::clone(&self.client);
            self.work.push(Box::pin(async move { Event::Described(client.describe().await) }));
        }
        let Some(generation) = &self.generation else { return };
        if !self.listing && now >= self.list_at {
            self.listing = true;
            self.list_at = now + self.parts.options.failover_time / LOOKS;
            let (store, folder) = (Rc::clone(&self.store), Rc::clone(&generation.folder));
            let asked_ms = clock::boot_ms();
            self.work
                .push(Box::pin(async move { Event::Listed { result: store.list(&folder).await, asked_ms } }));
            self.show();
        }
    }

    /// A sign of life for the other dispatchers.
    fn show(&mut self) {
        let Some(generation) = self.generation.as_ref().filter(|_| !self.members.busy) else { return };
        self.members.busy = true;
        let (key, (text, stored)) = (self.members.key(), self.members.next());
        let (store, folder) = (Rc::clone(&self.store), Rc::clone(&generation.folder));
        self.work.push(Box::pin(async move {
            let until = tokio::time::Instant::now();
            Event::Present(register::write(&*store, (&folder, &key), &text, stored.as_ref(), until).await)
        }));
    }

    /// Takes the own sign of life away; false where there is none.
    pub(super) fn leave(&mut self) -> bool {
        let (Some(generation), Some(stored)) = (&self.generation, self.members.stored()) else {
            return false;
        };
        let (store, folder) = (Rc::clone(&self.store), Rc::clone(&generation.folder));
        let (key, stored) = (self.members.key(), stored.clone());
        self.work.push(Box::pin(async move {
            if let Err(why) = store.delete(&folder, &key, &stored).await {
                tracing::debug!(why, "The sign of life stays until it is old");
            }
            Event::Left
        }));
        true
    }

    /// The service told of the stream.
    pub(super) fn described(&mut self, result: Result<Stream, Fault>) -> Result<(), Exit> {
        self.describing = false;
        let stream = match result {
            Ok(stream) => stream,
            Err(fault) => {
                self.describe_at = Instant::now() + RETRY;
                // What is held goes on: its own reads tell whether the service is there.
                self.trouble(STREAM, &format!("stream {}: {fault}", self.parts.stream));
                return Ok(());
            }
        };
        self.describe_at = Instant::now() + self.parts.options.shard_sync_interval;
        if self.generation.as_ref().is_some_and(|g| g.created_ms != stream.created_ms) {
            return Err(Exit::Failed(format!("stream {} was made anew", self.parts.stream), ANEW));
        }
        let retention_ms = i64::try_from(stream.retention.as_millis()).unwrap_or(i64::MAX);
        let folder = format!("{}.{}", self.parts.group, stream.created_ms);
        let generation = self.generation.get_or_insert_with(|| Generation {
            created_ms: stream.created_ms,
            retention_ms,
            folder: folder.into(),
            origin: None,
            beginning: false,
            listed: Vec::new(),
        });
        generation.retention_ms = retention_ms;
        generation.listed = stream.shards.iter().map(|shard| shard.id.clone()).collect();
        let wanted: Vec<_> = match &self.parts.only {
            None => stream.shards,
            Some(only) => stream.shards.into_iter().filter(|shard| shard.id == *only).collect(),
        };
        if let (Some(only), true) = (&self.parts.only, wanted.is_empty()) {
            self.trouble(
                STREAM,
                &format!("stream {} has no shard {only}; name one of its own", self.parts.stream),
            );
            return Ok(());
        }
        self.trouble(STREAM, "");
        let listed: HashSet<&str> = wanted.iter().map(|shard| shard.id.as_str()).collect();
        // What is gone from the list is beyond its retention; what is held of it ends by itself.
        self.slots.retain(|id, slot| {
            slot.held.is_some() || slot.busy || !slot.memory.is_empty() || listed.contains(id.as_str())
        });
        for shard in &wanted {
            let parents = if self.parts.only.is_some() { Vec::new() } else { shard.parents.clone() };
            if let Some(slot) = self.slots.get_mut(&shard.id) {
                slot.parents = parents;
            } else {
                let slot = Slot::new(number(&shard.id, &self.slots), parents);
                self.slots.insert(shard.id.clone(), slot);
            }
        }
        Ok(())
    }

    /// The register was read.
    pub(super) fn listed(&mut self, result: Result<Vec<(String, Stored)>, String>, asked_ms: u64) {
        self.listing = false;
        let texts: BTreeMap<String, Stored> = match result {
            Ok(texts) => texts.into_iter().collect(),
            Err(why) => return self.trouble(REGISTER, &why),
        };
        self.trouble(REGISTER, "");
        let Some(generation) = self.generation.as_mut() else { return };
        let origin = texts.get(ORIGIN).and_then(|stored| serde_json::from_str::<Origin>(&stored.text).ok());
        generation.origin = generation.origin.take().or(origin);
        if generation.origin.is_none() {
            return self.begin();
        }
        for (id, slot) in self.slots.iter_mut().filter(|(_, slot)| slot.held.is_none() && !slot.busy) {
            let Some(stored) = texts.get(&format!("{SHARD}{id}")) else {
                slot.known = None;
                continue;
            };
            match Row::decode(&stored.text) {
                Ok(row) => {
                    slot.watch.saw(row.version, asked_ms);
                    slot.known = Some((stored.clone(), row));
                }
                Err(why) => tracing::error!(
                    shard = id,
                    why,
                    "The register's row cannot be read; its shard is left alone"
                ),
            }
        }
        self.members.saw(&texts, asked_ms);
        self.tidy(&texts, asked_ms);
        self.take();
        self.give_back();
        // Also without a shard: service and register have answered, and others serve them.
        self.parts.subscription.set_connected(true);
        self.parts.subscription.metrics().connected.set(1.0);
    }

    /// The first dispatcher that sees the stream writes down where its shards begin.
    fn begin(&mut self) {
        let start = self.start();
        let Some(generation) = self.generation.as_mut().filter(|g| !g.beginning) else { return };
        if self.slots.is_empty() {
            return;
        }
        generation.beginning = true;
        let origin = Origin { start, shards: generation.listed.clone(), by: self.parts.token };
        let text = serde_json::to_string(&origin).unwrap_or_default();
        let (store, folder) = (Rc::clone(&self.store), Rc::clone(&generation.folder));
        self.work.push(Box::pin(async move {
            let until = tokio::time::Instant::now();
            Event::Began(register::write(&*store, (&folder, ORIGIN), &text, None, until).await)
        }));
    }

    /// Whoever was first: the next look at the register tells.
    pub(super) fn began(&mut self, written: &Written) {
        if let Some(generation) = &mut self.generation {
            generation.beginning = false;
        }
        if let Written::Unknown(why) = written {
            self.trouble(REGISTER, why);
        }
        self.list_at = Instant::now();
    }

    /// Rows of shards whose records the service has forgotten, and signs of life of dispatchers that are gone.
    fn tidy(&mut self, texts: &BTreeMap<String, Stored>, now_ms: u64) {
        let Some(generation) = &self.generation else { return };
        let mut rubbish = self.members.forgotten(now_ms, self.failover_ms());
        if self.parts.only.is_none() && !self.slots.is_empty() {
            let (retention_ms, unix_ms) = (generation.retention_ms, clock::unix_ms());
            let gone = texts.iter().filter(|(key, stored)| {
                let id = key.strip_prefix(SHARD);
                let forgotten =
                    || Row::decode(&stored.text).is_ok_and(|row| row.is_forgotten(retention_ms, unix_ms));
                id.is_some_and(|id| !self.slots.contains_key(id)) && forgotten()
            });
            rubbish.extend(gone.map(|(key, stored)| (key.clone(), stored.clone())));
        }
        for (key, stored) in rubbish {
            let (store, folder) = (Rc::clone(&self.store), Rc::clone(&generation.folder));
            self.work.push(Box::pin(async move {
                if let Err(why) = store.delete(&folder, &key, &stored).await {
                    tracing::debug!(key, why, "Not removed from the register");
                }
                Event::Swept
            }));
        }
    }

    fn seen(&self) -> BTreeMap<String, Seen<'_>> {
        let (now_ms, failover_ms) = (clock::boot_ms(), self.failover_ms());
        let seen = self.slots.iter().map(|(id, slot)| {
            let row = slot.held.as_ref().map(|held| held.shard.row());
            let row = row.or(slot.known.as_ref().map(|(_, row)| row));
            let held = slot.held.as_ref().is_some_and(|held| held.giving.is_none()) || slot.busy;
            let expired = slot.watch.is_expired(now_ms, failover_ms);
            (id.clone(), Seen { parents: &slot.parents, row, expired, held })
        });
        seen.collect()
    }

    /// Takes over what is free, up to the share of this dispatcher.
    fn take(&mut self) {
        let Some(generation) = &self.generation else { return };
        let Some(origin) = generation.origin.clone() else { return };
        let members = self.members.count(clock::boot_ms(), self.failover_ms());
        let ignore = testkit::bug("no_parents");
        let free = to_take(&self.seen(), self.parts.token, members, ignore);
        for id in free {
            let Some(slot) = self.slots.get_mut(&id).filter(|s| !s.busy && s.held.is_none()) else {
                continue;
            };
            let row = slot.known.as_ref().map(|(_, row)| row.clone());
            let row = row.unwrap_or_else(|| Row::new(fastrand::u64(FIRST_VERSIONS), origin.of(&id)));
            let shard: Shard<super::super::item::Item> =
                Shard::of(self.parts.token, row, &slot.memory, mutations());
            slot.busy = true;
            let (plan, expected) =
                (shard.plan_flush(), slot.known.as_ref().map(|(stored, _)| stored.clone()));
            testkit::point("before_assign");
            self.send(&id, plan, expected, Purpose::Take);
        }
    }

    /// Gives shards back that others are to have.
    fn give_back(&mut self) {
        let members = self.members.count(clock::boot_ms(), self.failover_ms());
        let surplus = surplus(&self.seen(), members);
        let until = Instant::now() + self.parts.options.handover_drain;
        let held = self.slots.values_mut().rev().filter_map(|slot| slot.held.as_mut());
        for held in held.filter(|held| held.giving.is_none()).take(surplus) {
            held.giving = Some(until);
        }
    }

    /// Writes a row on condition that it still is `expected`.
    pub(super) fn send(&mut self, id: &str, plan: Plan, expected: Option<Stored>, purpose: Purpose) {
        let Some(generation) = &self.generation else { return };
        self.planned += plan.claims();
        if plan.claims() > 0 {
            testkit::point("before_claim");
        }
        let (store, folder) = (Rc::clone(&self.store), Rc::clone(&generation.folder));
        let (shard, sent_ms) = (id.to_owned(), clock::boot_ms());
        // Beyond it another may have the shard; whoever asks then finds out from the register.
        let until = tokio::time::Instant::now() + self.parts.options.failover_time;
        let begun = Instant::now();
        self.work.push(Box::pin(async move {
            let (key, text) = (format!("{SHARD}{shard}"), plan.row.encode());
            // Right before the write, and right after it with its answer unread.
            testkit::point("claim_sent");
            let written = register::write(&*store, (&folder, &key), &text, expected.as_ref(), until).await;
            testkit::point("claim_unknown");
            Event::Wrote(Box::new(Wrote { shard, plan, purpose, written, sent_ms, took: begun.elapsed() }))
        }));
    }

    /// A take-over was answered.
    pub(super) fn took_over(&mut self, wrote: Wrote) {
        let half_ms = self.failover_ms() / 2;
        let Some(slot) = self.slots.get_mut(&wrote.shard) else { return };
        slot.busy = false;
        let row = slot.known.take().map(|(_, row)| row);
        let Written::Granted(stored) = wrote.written else { return };
        // Made anew: calls may have ended since the row was planned.
        let row = row.unwrap_or_else(|| wrote.plan.row.clone());
        let mut shard = Shard::of(self.parts.token, row, &slot.memory, mutations());
        shard.granted(wrote.plan);
        slot.memory.clear();
        self.epoch += 1;
        let window = self.parts.subscription.window();
        window.forget_shard(slot.number);
        window.shard(slot.number).rewind(shard.row().time_ms);
        let (row, now) = (shard.row(), Instant::now());
        tracing::info!(
            trigger = %self.parts.subscription.trigger(), shard = wrote.shard, open = row.open.len(),
            parked = row.parked.len(), "Shard taken over"
        );
        slot.held = Some(Held {
            reader: Reader::new(row),
            shard,
            stored,
            lease: Arc::new(StartLease::new(wrote.sent_ms + half_ms)),
            epoch: self.epoch,
            writing: false,
            written: now,
            announced: HashSet::new(),
            giving: None,
            since: now,
            lag: self.parts.subscription.metrics().lag_seconds(&self.parts.stream, slot.number),
        });
    }

    /// The shard is another's now, or nobody knows whose.
    pub(super) fn lose(&mut self, id: &str, why: &str) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let Some(held) = slot.held.take() else { return };
        // P2: what is queued here may be closed by another already.
        held.lease.stop();
        if !why.is_empty() {
            tracing::warn!(trigger = %self.parts.subscription.trigger(), shard = id, why, "Shard lost");
        }
        let (items, memory) = held.shard.dissolve();
        slot.memory = memory;
        slot.known = None;
        self.parts.subscription.window().forget_shard(slot.number);
        self.parts.flow.release(items.iter().map(|item| item.weight).sum());
        self.list_at = Instant::now();
        for at in [id, &full_window(id)] {
            self.trouble(at, "");
        }
    }
}

fn mutations() -> Mutations {
    Mutations {
        no_carry: testkit::bug("no_carry"),
        early_close: testkit::bug("early_close"),
        name_early: testkit::bug("name_early"),
        name_own: testkit::bug("name_own"),
        flush_unparks: testkit::bug("flush_unparks"),
        no_parents: testkit::bug("no_parents"),
    }
}
