//! Reading: within the service's limits, no further than what may wait, again from where it was when an iterator grew old.
//! Must never read a record twice into the protocol, nor pass over a gap without a word.

use super::{Engine, Event};
use crate::{
    clock,
    dispatch::{Subscription, dead_letter::Original},
    event::Position,
    ledger::Outcome,
    sources::kinesis::{
        aggregate,
        client::{Batch, Fault, From},
        decode::Raw,
        item::{Body, Item},
        place::{Place, Sequence},
        protocol::shard::{Read, Taken},
        register::Start,
    },
    testkit,
};
use aws_sdk_kinesis::types::Record;
use bytes::Bytes;
use std::{
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

/// Age at which an iterator is replaced; the service forgets one after five minutes.
const OLD: Duration = Duration::from_secs(240);
/// First pause after a refused read; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(400);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A read, answered.
pub(super) struct Fetched {
    shard: String,
    epoch: u64,
    /// Wall clock when it was asked for.
    asked_ms: i64,
    from: From,
    result: Result<Batch, Fault>,
}

impl Engine {
    /// Begins a read of every shard whose turn it is.
    pub(super) fn fetch(&mut self) {
        let now = Instant::now();
        let full = self.parts.flow.memory() >= self.parts.options.memory_bytes;
        let span_ms = self.parts.subscription.window().span_ms();
        let options = &self.parts.options;
        for (id, slot) in &mut self.slots {
            let Some(held) = slot.held.as_mut() else { continue };
            let reader = &mut held.reader;
            let room = !full && held.shard.waiting() < options.max_waiting;
            if reader.busy || reader.ended || now < reader.due || !room || held.giving.is_some() {
                continue;
            }
            let dedup = self.parts.subscription.settings().dedup;
            let from = match held.shard.read_to() {
                _ if reader.from_horizon => From::Horizon,
                Some(last) => From::After(last.sequence.as_str().to_owned()),
                None => first(held.shard.row(), held.shard.needed(), dedup.then_some(span_ms)),
            };
            let iterator = reader.iterator.take().filter(|(_, made)| made.elapsed() < OLD);
            reader.busy = true;
            reader.due = now + options.poll_interval;
            let (client, shard, epoch) = (Rc::clone(&self.client), id.clone(), held.epoch);
            let (limit, asked_ms) = (options.max_read_records, clock::unix_ms());
            self.work.push(Box::pin(async move {
                let iterator = match iterator {
                    Some((iterator, _)) => Ok(iterator),
                    None => client.iterator(&shard, &from).await,
                };
                let result = match iterator {
                    Ok(iterator) => client.read(&iterator, limit).await,
                    Err(fault) => Err(fault),
                };
                Event::Fetched(Fetched { shard, epoch, asked_ms, from, result })
            }));
        }
    }

    /// A read was answered.
    pub(super) fn fetched(&mut self, fetched: Fetched) {
        let Some(held) = self.slots.get_mut(&fetched.shard).and_then(|slot| slot.held.as_mut()) else {
            return;
        };
        if held.epoch != fetched.epoch {
            return;
        }
        held.reader.busy = false;
        match fetched.result {
            Ok(batch) => {
                held.reader.pause = Duration::ZERO;
                testkit::point("after_poll");
                held.show_lag(batch.behind);
                self.gap(&fetched.shard, fetched.asked_ms);
                self.take_batch(&fetched.shard, fetched.asked_ms, batch);
                self.trouble(&fetched.shard, "");
            }
            Err(fault) => self.not_read(&fetched.shard, &fetched.from, &fault),
        }
    }

    fn not_read(&mut self, id: &str, from: &From, fault: &Fault) {
        let Some(held) = self.slots.get_mut(id).and_then(|slot| slot.held.as_mut()) else { return };
        let reader = &mut held.reader;
        reader.iterator = None;
        match fault {
            Fault::Expired => return,
            // The record is beyond its retention: what is left begins later, and what was passed is known by its place.
            Fault::Position(_) if matches!(from, From::At(_) | From::After(_)) => reader.from_horizon = true,
            Fault::Missing(_) => self.describe_at = Instant::now(),
            _ => {}
        }
        reader.pause = (reader.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        reader.due = Instant::now() + reader.pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        if !matches!(fault, Fault::Throttled(_)) {
            self.trouble(id, &format!("shard {id}: {fault}"));
        }
    }

    /// Records that arrived after what was read and are older than the retention may be gone: nobody can count them.
    fn gap(&mut self, id: &str, asked_ms: i64) {
        let Some(retention_ms) = self.generation.as_ref().map(|g| g.retention_ms) else { return };
        let Some(slot) = self.slots.get_mut(id) else { return };
        let Some(held) = slot.held.as_mut() else { return };
        let seen_ms = held.reader.seen_ms;
        held.reader.seen_ms = seen_ms.max(asked_ms - retention_ms);
        if seen_ms < 0 || seen_ms >= asked_ms - retention_ms {
            return;
        }
        let row = held.shard.row();
        let last = held.shard.read_to().or(row.checkpoint.as_ref());
        let after = last.map_or_else(|| "start".to_owned(), Place::to_string);
        tracing::error!(
            shard = id,
            after,
            "Records may have been dropped: nothing was read for longer than they are kept"
        );
        let position = Position {
            stream: Arc::clone(&self.parts.stream),
            shard: slot.number,
            sequence: slot.last_number,
            coordinates: Some(format!("{id}/after {after}").into()),
            epoch: -1,
            time_ms: seen_ms,
        };
        self.parts.flow.unread(
            &position,
            Outcome::Missed,
            "older than the stream's retention; their number is unknown",
            1,
        );
    }

    fn take_batch(&mut self, id: &str, asked_ms: i64, batch: Batch) {
        let records = batch.records.len();
        for record in batch.records {
            self.take_record(id, record);
        }
        let Some(held) = self.slots.get_mut(id).and_then(|slot| slot.held.as_mut()) else { return };
        let reader = &mut held.reader;
        // What was read now is held: the next iterator begins after it.
        reader.from_horizon &= records == 0;
        if records == 0 && batch.at_tip {
            held.shard.at_tip(asked_ms);
            reader.seen_ms = reader.seen_ms.max(asked_ms);
        }
        match batch.next {
            Some(next) => reader.iterator = Some((next, Instant::now())),
            None => {
                reader.ended = true;
                held.shard.complete();
                // Its children are to be found.
                self.describe_at = self.describe_at.min(Instant::now());
            }
        }
    }

    fn take_record(&mut self, id: &str, record: Record) {
        let Ok(sequence) = record.sequence_number.parse::<Sequence>() else {
            tracing::error!(
                shard = id,
                sequence = record.sequence_number,
                "Not a sequence number; the record is left out"
            );
            return;
        };
        let ms = record.approximate_arrival_timestamp.and_then(|t| t.to_millis().ok()).unwrap_or(-1);
        let data = Bytes::from(record.data.into_inner());
        match aggregate::parts(&data) {
            Some(parts) => {
                for (sub, part) in (0..).zip(parts) {
                    let place = Place { sequence: sequence.clone(), sub: Some(sub) };
                    self.take_one(id, place, ms, (part.key, part.data));
                }
            }
            None => self.take_one(
                id,
                Place { sequence, sub: None },
                ms,
                (record.partition_key.unwrap_or_default(), data),
            ),
        }
    }

    fn take_one(&mut self, id: &str, place: Place, ms: i64, (key, data): (String, Bytes)) {
        let Some(slot) = self.slots.get_mut(id) else { return };
        let Some(held) = slot.held.as_mut() else { return };
        slot.last_number += 1;
        let (number, shard) = (slot.last_number, Arc::from(id));
        let raw = Raw { shard, shard_number: slot.number, number, place: place.clone(), key, data, ms };
        let weight = crate::event::record::ENVELOPE + raw.data.len() + raw.key.len();
        let position = self.parts.decoder.position(&raw);
        // The event shares the body with it.
        let original = self.parts.keep_originals.then(|| Arc::new(original(&raw)));
        let body = match self.parts.decoder.decode(&raw) {
            Ok(event) => Body::Event(Arc::new(event)),
            Err(reason) => Body::Rejected(position, reason),
        };
        let window = self.parts.subscription.window().shard(slot.number);
        let row = held.shard.row();
        let (time_ms, is_new) =
            (row.time_ms, row.checkpoint.as_ref().is_none_or(|checkpoint| place > *checkpoint));
        if is_new && !held.shard.is_back() {
            // D1: log time at the checkpoint, whatever was read before it.
            window.rewind(time_ms);
        }
        let log_ms = window.observe(ms);
        let item = Item { body, original, weight };
        let business = windowed(&self.parts.subscription, &item);
        held.reader.seen_ms = held.reader.seen_ms.max(ms);
        let taken = held.shard.read(place, Read { number, ms, log_ms, record: item });
        match taken {
            Taken::Waiting => self.parts.flow.hold(weight),
            Taken::Back { kept } => {
                if kept {
                    self.parts.flow.hold(weight);
                }
                if let Some(id) = business {
                    window.enter(id, number, log_ms);
                }
            }
            Taken::Dropped => {}
        }
    }
}

/// The record as it was put.
fn original(raw: &Raw) -> Original {
    Original { key: Some(raw.key.clone().into()), value: Some(raw.data.clone()), headers: Vec::new() }
}

/// The business id that the window remembers of a record; none of one that the filter drops.
pub(super) fn windowed(subscription: &Subscription, item: &Item) -> Option<crate::event::BusinessId> {
    let Body::Event(event) = &item.body else { return None };
    let settings = subscription.settings();
    let passes = settings.filter.check(event).is_ok();
    event.business.filter(|_| passes && settings.dedup)
}

/// Where reading begins after a take-over: far enough back for the window and for what is parked or to be named.
fn first(
    row: &crate::sources::kinesis::register::Row,
    needed: Option<(&Place, i64)>,
    span_ms: Option<i64>,
) -> From {
    let at = |place: &Place| From::At(place.sequence.as_str().to_owned());
    let Some(checkpoint) = &row.checkpoint else {
        return match row.start {
            Start::Horizon => From::Horizon,
            Start::Time(ms) => From::Time(ms),
        };
    };
    let lowest = needed.map_or(checkpoint, |(place, _)| place.min(checkpoint));
    let window = span_ms.filter(|_| row.time_ms >= 0).map(|span| row.time_ms.saturating_sub(span));
    let window = window.map(|from| if let Start::Time(ms) = row.start { from.max(ms) } else { from });
    match window {
        // Arrival times of neighbours may be out of order: what must be found is asked for by its number.
        Some(from) if needed.is_none_or(|(_, ms)| ms >= 0 && ms > from + 1000) => From::Time(from),
        _ => at(lowest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::kinesis::register::Row;

    #[test]
    fn reading_begins_where_everything_that_is_needed_will_be_seen() {
        let mut row = Row::new(1, Start::Time(500));
        assert_eq!(first(&row, None, Some(10)), From::Time(500));
        row.checkpoint = Some("100/3".parse().unwrap());
        row.time_ms = 9_000;
        assert_eq!(first(&row, None, None), From::At("100".into()), "the rest of an aggregated record");
        assert_eq!(first(&row, None, Some(2_000)), From::Time(7_000));
        assert_eq!(
            first(&row, None, Some(20_000)),
            From::Time(500),
            "nothing before the start was ever claimed"
        );
        let parked: Place = "40".parse().unwrap();
        assert_eq!(first(&row, Some((&parked, 5_000)), Some(2_000)), From::At("40".into()));
        assert_eq!(first(&row, Some((&parked, 8_500)), Some(2_000)), From::Time(7_000));
        assert_eq!(first(&row, Some((&parked, -1)), Some(2_000)), From::At("40".into()));
    }
}
