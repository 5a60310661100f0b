//! What the polling thread does to the client and shows to others between two batches: pauses, gauges, lag. Must never
//! claim, start or record anything of a record that was read.

use super::Engine;
use crate::sources::kafka::{context::Context, ffi, protocol::shard::Shard};
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
};

impl Engine {
    pub(in super::super) fn back_pressure(&mut self, consumer: &BaseConsumer<Context>, context: &Context) {
        let mut paused = context.paused();
        let (pause, resume) = self.pause_and_resume(&paused);
        let list = |shards: &[i32]| {
            let mut list = TopicPartitionList::new();
            for shard in shards {
                list.add_partition(&self.topic, *shard);
            }
            list
        };
        // A call that fails is made again by the next round.
        if !pause.is_empty() && consumer.pause(&list(&pause)).is_ok() {
            paused.extend(pause);
        }
        if !resume.is_empty() && consumer.resume(&list(&resume)).is_ok() {
            paused.retain(|shard| !resume.contains(shard));
        }
    }

    pub(in super::super) fn publish_slow(&mut self, consumer: &BaseConsumer<Context>) {
        let mut vanished = Vec::new();
        for (number, shard) in self.protocol.owned_mut() {
            if !shard.is_replaying() {
                let gone = shard.vanished_parked(shard.position());
                vanished.extend(gone.into_iter().map(|offset| (number, offset)));
            }
        }
        for (shard, offset) in vanished {
            self.end_missed(shard, offset, 1, "parked, and compacted away before it was claimed");
        }
        self.flow.publish_slow();
        let metrics = self.subscription.metrics();
        metrics.connected.set(if self.lag.is_empty() { 0.0 } else { 1.0 });
        metrics.parked.set(self.protocol.owned().map(|(_, s)| s.parked()).sum::<usize>() as f64);
        for (shard, gauge) in &self.lag {
            let position = self.protocol.shard(*shard).map_or(0, Shard::position);
            if let Some((_, high)) = ffi::cached_watermarks(consumer.client(), &self.topic, *shard) {
                gauge.set((high - position).max(0) as f64);
            }
        }
    }
}
