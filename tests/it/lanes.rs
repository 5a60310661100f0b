//! Lanes of a shard against a naive model that looks everything up in plain lists (rule L1). Must never ask the lanes
//! for anything that the protocol does not ask.

use kubeless::dispatch::lanes::Lanes;
use kubeless::event::Lane;
use proptest::collection::vec;
use proptest::prelude::*;

/// What one lane is known to hold.
#[derive(Clone, Debug, Default)]
struct Naive {
    running: usize,
    parked: Vec<i64>,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The next record of the lane arrives: it starts if it may, else it is parked.
    Arrive(usize),
    /// A call of the lane ends.
    Finish(usize),
    /// Up to so many parked records of the first ready lanes start, first come first.
    Serve(usize),
    /// A parked record of the lane is gone from the log.
    Vanish(usize, usize),
    /// A parked record is read back after a takeover: nothing wakes its lane.
    ReadBack(usize),
    Wake,
}

fn step() -> impl Strategy<Value = Step> {
    let lane = 0..4_usize;
    prop_oneof![
        4 => lane.clone().prop_map(Step::Arrive),
        4 => lane.clone().prop_map(Step::Finish),
        3 => (1..4_usize).prop_map(Step::Serve),
        1 => (lane.clone(), 0..3_usize).prop_map(|(l, k)| Step::Vanish(l, k)),
        1 => lane.prop_map(Step::ReadBack),
        1 => Just(Step::Wake),
    ]
}

fn lane(at: usize) -> Lane {
    Lane(at as u64)
}

/// Lanes that the model calls ready, with what is parked in them.
fn ready(naive: &[Naive]) -> Vec<(usize, Vec<i64>)> {
    let idle = |(_, n): &(usize, &Naive)| n.running == 0 && !n.parked.is_empty();
    naive.iter().enumerate().filter(idle).map(|(at, n)| (at, n.parked.clone())).collect()
}

fn ready_of(lanes: &Lanes) -> Vec<(usize, Vec<i64>)> {
    lanes.ready().map(|(lane, parked)| (lane.0 as usize, parked.iter().copied().collect())).collect()
}

fn apply(step: Step, next: &mut i64, lanes: &mut Lanes, naive: &mut [Naive], asleep: &mut Vec<usize>) {
    match step {
        Step::Arrive(at) => {
            *next += 1;
            let free = naive[at].running == 0 && naive[at].parked.is_empty();
            assert_eq!(lanes.is_free(lane(at)), free, "lane {at}");
            if free {
                lanes.run(lane(at));
                naive[at].running += 1;
            } else {
                lanes.park(lane(at), *next);
                naive[at].parked.push(*next);
            }
        }
        Step::ReadBack(at) => {
            *next += 1;
            if naive[at].running == 0 && naive[at].parked.is_empty() {
                asleep.push(at);
            }
            lanes.park(lane(at), *next);
            naive[at].parked.push(*next);
        }
        Step::Finish(at) if naive[at].running > 0 => {
            lanes.finished(lane(at));
            naive[at].running -= 1;
        }
        Step::Finish(at) => {
            // Nothing is known to run there: it must not do harm.
            if naive[at].parked.is_empty() {
                lanes.finished(lane(at));
            }
        }
        Step::Vanish(at, k) if !naive[at].parked.is_empty() => {
            let k = k % naive[at].parked.len();
            let gone = naive[at].parked.remove(k);
            lanes.unpark(lane(at), gone);
            // Bookkeeping looks at the lane again, so an idle one is awake from here on.
            asleep.retain(|l| *l != at);
        }
        Step::Vanish(..) => {}
        Step::Wake => {
            lanes.wake_idle();
            asleep.clear();
        }
        Step::Serve(most) => serve(most, lanes, naive),
    }
}

/// As a plan and its grant do: parked records leave in order, then their lane runs.
fn serve(most: usize, lanes: &mut Lanes, naive: &mut [Naive]) {
    let mut left = most;
    for (at, parked) in ready_of(lanes) {
        for sequence in parked.into_iter().take(left) {
            assert_eq!(naive[at].parked.remove(0), sequence, "in log order");
            lanes.unpark(lane(at), sequence);
            lanes.run(lane(at));
            naive[at].running += 1;
            left -= 1;
        }
    }
}

proptest! {
    #[test]
    fn l1_lanes_are_what_plain_lists_say(steps in vec(step(), 0..200)) {
        let (mut lanes, mut naive, mut next) = (Lanes::default(), vec![Naive::default(); 4], 0);
        let mut asleep = Vec::new();
        for step in steps {
            apply(step, &mut next, &mut lanes, &mut naive, &mut asleep);
            let mut found = ready_of(&lanes);
            found.sort();
            // Read back and not woken: such a lane may or may not be listed, but never wrongly.
            let all = ready(&naive);
            prop_assert!(found.iter().all(|f| all.contains(f)), "{step:?}: {found:?} of {all:?}");
            let missing = all.iter().filter(|a| !found.contains(a));
            prop_assert!(missing.clone().all(|(at, _)| asleep.contains(at)), "{step:?}: {missing:?} are not ready");
            let empty = naive.iter().all(|n| n.running == 0 && n.parked.is_empty());
            prop_assert_eq!(lanes.is_empty(), empty);
        }
    }

    #[test]
    fn l1_a_lane_that_waited_longest_is_served_first(order in Just(vec![0_usize, 1, 2, 3]).prop_shuffle()) {
        let mut lanes = Lanes::default();
        for at in 0..4_usize {
            lanes.run(lane(at));
            lanes.park(lane(at), at as i64);
        }
        for at in &order {
            lanes.finished(lane(*at));
        }
        let served: Vec<usize> = ready_of(&lanes).into_iter().map(|(at, _)| at).collect();
        prop_assert_eq!(served, order);
    }
}
