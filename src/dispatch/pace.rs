//! How much may be claimed: no more than the function completes in about one commit round trip beyond what runs
//! (design rule 12), so that a crash leaves little in doubt and a fast function is never starved. Pure arithmetic.

use std::time::Duration;

/// Fewest events that may be claimed while any endpoint is ready.
const FLOOR: usize = 16;
/// Turns' worth of events beside those that run: two (see [`Pace::window`]) and a quarter, because turns differ.
const AHEAD: f64 = 2.25;
/// Commits this many round trips apart did not follow one another: the source's thread had nothing to claim.
const APART: u32 = 3;
/// Longest chain of one lane claimed by one commit.
const LONGEST_CHAIN: usize = 64;

/// Moving averages of call duration and of a turn: one commit round trip and what the source's thread does until the
/// next one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    call_us: f64,
    turn_us: f64,
}

impl Pace {
    /// A call took `took`.
    pub fn called(&mut self, took: Duration) {
        average(&mut self.call_us, took, 0.02);
    }

    /// A commit took `took` and ended `since` after the end of the one before.
    pub fn committed(&mut self, took: Duration, since: Duration) {
        let turn = if since < took * APART { since.max(took) } else { took };
        average(&mut self.turn_us, turn, 0.1);
    }

    /// Calls of one lane that complete in one turn: the length of a chain.
    pub fn depth(&self) -> usize {
        ratio(self.turn_us, self.call_us).clamp(1, LONGEST_CHAIN)
    }

    /// Events that may be claimed and unfinished when a commit is sent: what runs, what completes until its answer
    /// is there, and what it claims itself, which is as much again. Once the answer is there, about one turn's worth is
    /// left beside what runs.
    pub fn window(&self, max_in_flight: usize, cap: usize) -> usize {
        let ahead = ratio(self.turn_us * AHEAD * max_in_flight as f64, self.call_us);
        (max_in_flight + ahead).max(FLOOR).min(cap.max(FLOOR))
    }
}

fn average(value: &mut f64, sample: Duration, weight: f64) {
    let sample = sample.as_secs_f64() * 1e6;
    *value = if *value == 0.0 { sample } else { *value + weight * (sample - *value) };
}

// Both are non-negative and small; the cast saturates.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn ratio(a: f64, b: f64) -> usize {
    if b <= 0.0 { 0 } else { (a / b).ceil().min(65_536.0) as usize }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_functions_are_not_claimed_ahead_and_fast_ones_fill_a_commit() {
        let mut pace = Pace::default();
        assert_eq!(pace.window(64, 256), 64, "nothing measured yet: what may run, no more");
        pace.committed(Duration::from_millis(10), Duration::from_secs(1));
        pace.called(Duration::from_secs(10));
        assert_eq!(pace.window(64, 256), 65);
        assert_eq!(pace.depth(), 1);
        let mut pace = Pace::default();
        pace.committed(Duration::from_millis(10), Duration::from_secs(1));
        pace.called(Duration::from_millis(5));
        assert_eq!(pace.window(64, 1024), 64 + 288);
        assert_eq!(pace.window(64, 256), 256, "the cap holds");
        assert_eq!(pace.depth(), 2);
        assert_eq!(pace.window(1, 4), FLOOR, "the floor holds against a small cap");
        let mut pace = Pace::default();
        pace.called(Duration::from_millis(5));
        pace.committed(Duration::from_millis(10), Duration::from_millis(15));
        assert_eq!(pace.window(64, 1024), 64 + 432, "a turn is more than its commit");
    }
}
