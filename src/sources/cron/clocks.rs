//! The clocks of a trigger's thread: the wall clock, which says what is due and may be set to any time, and the boot
//! clock, which only goes on. Must never let a step of the wall clock go unnoticed for longer than one look.

use crate::clock;
use std::{sync::Arc, time::Duration};

/// How often the clocks are looked at: a step is noticed within this time.
const LOOK: Duration = Duration::from_millis(500);
/// A difference between the clocks' ways above this is a step; less is a clock that is being slewed.
const STEP_MS: i64 = 500;

/// Both clocks; tests bring their own.
#[derive(Clone)]
pub struct Clocks {
    /// Milliseconds since the Unix epoch.
    pub wall_ms: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// Milliseconds since boot, suspended time included.
    pub boot_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Longest wait without a look at them.
    pub look: Duration,
}

impl Default for Clocks {
    /// Those of this machine.
    fn default() -> Self {
        Self { wall_ms: Arc::new(clock::unix_ms), boot_ms: Arc::new(clock::boot_ms), look: LOOK }
    }
}

/// Compares the ways that both clocks went between two looks.
#[derive(Clone, Copy, Debug)]
pub struct StepWatch {
    wall_ms: i64,
    boot_ms: u64,
}

impl StepWatch {
    /// Begins now.
    pub fn new(wall_ms: i64, boot_ms: u64) -> Self {
        Self { wall_ms, boot_ms }
    }

    /// By how many milliseconds the wall clock was set since the last look, if it was.
    pub fn look(&mut self, wall_ms: i64, boot_ms: u64) -> Option<i64> {
        let went = i64::try_from(boot_ms.saturating_sub(self.boot_ms)).unwrap_or(i64::MAX);
        let step = wall_ms.saturating_sub(self.wall_ms).saturating_sub(went);
        *self = Self { wall_ms, boot_ms };
        (step.abs() > STEP_MS).then_some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_once_and_a_suspended_machine_is_none() {
        let mut watch = StepWatch::new(1000, 50);
        assert_eq!(watch.look(1500, 550), None);
        assert_eq!(watch.look(3_602_000, 1050), Some(3_600_000));
        assert_eq!(watch.look(3_602_500, 1550), None);
        assert_eq!(watch.look(2500, 1550), Some(-3_600_000));
        // Both clocks count the time in which the machine slept.
        assert_eq!(watch.look(7_202_500, 7_201_550), None);
    }
}
