//! What this thread knows of deliveries: those it claimed or named. What comes again and is known has its outcome, or will have
//! it; what is not known was delivered to somebody who is gone, or to nobody. Must never hold more than its bound.

use std::collections::{HashMap, VecDeque};

/// Most deliveries that are remembered, the latest.
const REMEMBERED: usize = 65_536;

/// See the module.
#[derive(Debug, Default)]
pub struct Seen {
    times: HashMap<i64, i64>,
    order: VecDeque<i64>,
    /// Where to acknowledge what is named once it is.
    replies: HashMap<i64, String>,
}

impl Seen {
    /// The message with this number and time has an outcome here, or will have one.
    pub fn insert(&mut self, sequence: i64, time_ms: i64) {
        if self.times.insert(sequence, time_ms).is_none() {
            self.order.push_back(sequence);
        }
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.times.remove(&oldest);
        }
    }

    /// Whether this very message is known: a number that is used again is another one.
    pub fn is_known(&self, sequence: i64, time_ms: i64) -> bool {
        self.times.get(&sequence) == Some(&time_ms)
    }

    /// Whether a message with this number is known.
    pub fn has(&self, sequence: i64) -> bool {
        self.times.contains_key(&sequence)
    }

    /// A message that will be named was delivered: it is to be acknowledged then, or the server names it once more.
    pub fn owe(&mut self, sequence: i64, reply: String) {
        if self.replies.len() < REMEMBERED {
            self.replies.insert(sequence, reply);
        }
    }

    /// Where to acknowledge what was named now.
    pub fn owed(&mut self, sequence: i64) -> Option<String> {
        self.replies.remove(&sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_remembered_by_number_and_time() {
        let mut seen = Seen::default();
        for sequence in 0..70_000 {
            seen.insert(sequence, sequence * 10);
        }
        assert!(seen.is_known(69_999, 699_990) && !seen.is_known(69_999, 1) && seen.has(69_999));
        assert!(!seen.has(0) && seen.has(70_000 - 65_536) && !seen.has(70_000 - 65_537));
        assert_eq!(seen.times.len(), REMEMBERED);
        seen.owe(3, "reply".to_owned());
        assert_eq!((seen.owed(3).as_deref(), seen.owed(3)), (Some("reply"), None));
    }
}
