//! Which endpoint gets the call: power of two choices by calls in flight, around endpoints that just failed. Hot
//! path: no allocation. Must never wait and never know a protocol.

use std::net::SocketAddr;

/// What the choice knows about one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Load {
    /// Calls running there.
    pub(super) in_flight: usize,
    /// A connection to it failed a moment ago.
    pub(super) failing: bool,
}

/// Picks one of `endpoints`, or `None` when there is none: one of the first `near` while they work. `not_again` (where the last attempt failed) and failing
/// endpoints are taken only when there is nothing else.
pub(super) fn choose(
    endpoints: &[SocketAddr],
    near: usize,
    not_again: Option<SocketAddr>,
    load: impl Fn(SocketAddr) -> Load,
) -> Option<SocketAddr> {
    let preferred = if near == 0 { endpoints } else { endpoints.get(..near).unwrap_or(endpoints) };
    let (first, second) = match preferred {
        [] => return None,
        [only] if endpoints.len() == 1 => return Some(*only),
        [only] => (*only, *only),
        [a, b] => (*a, *b),
        many => {
            let a = fastrand::usize(..many.len());
            // One less to draw from, shifted past the first: two different ones with one random number each.
            let b = fastrand::usize(..many.len() - 1);
            (many[a], many[if b >= a { b + 1 } else { b }])
        }
    };
    let rank = |endpoint: SocketAddr| {
        let load = load(endpoint);
        (load.failing, Some(endpoint) == not_again, load.in_flight)
    };
    let (of_first, of_second) = (rank(first), rank(second));
    let mut best = match of_first.cmp(&of_second) {
        std::cmp::Ordering::Less => (of_first, first),
        std::cmp::Ordering::Greater => (of_second, second),
        // Always the first would send everything of an idle function to one pod.
        std::cmp::Ordering::Equal if fastrand::bool() => (of_first, first),
        std::cmp::Ordering::Equal => (of_second, second),
    };
    if best.0.0 || best.0.1 {
        // Both drawn are bad: rare, so look at all of them, far ones too.
        for &endpoint in endpoints {
            best = best.min((rank(endpoint), endpoint));
        }
    }
    Some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, n], 80))
    }

    #[test]
    fn takes_the_less_loaded_of_two_and_avoids_failing_ones() {
        let idle = |_| Load { in_flight: 0, failing: false };
        assert_eq!(choose(&[], 0, None, idle), None);
        assert_eq!(
            choose(&[at(1)], 0, Some(at(1)), idle),
            Some(at(1)),
            "one bad endpoint is better than none"
        );
        let busy = |e| Load { in_flight: if e == at(1) { 9 } else { 2 }, failing: false };
        let failing = |e| Load { in_flight: if e == at(3) { 99 } else { 0 }, failing: e != at(3) };
        for _ in 0..100 {
            assert_eq!(choose(&[at(1), at(2)], 0, None, busy), Some(at(2)));
            assert_eq!(choose(&[at(1), at(2)], 0, Some(at(2)), busy), Some(at(1)));
            assert_eq!(choose(&[at(1), at(2), at(3), at(4)], 0, None, failing), Some(at(3)));
        }
    }

    #[test]
    fn stays_nearby_while_that_works() {
        let idle = |_| Load { in_flight: 0, failing: false };
        let all = [at(1), at(2), at(3), at(4)];
        let failing = |e| Load { in_flight: 0, failing: e == at(1) || e == at(2) };
        let one_failing = |e| Load { in_flight: if e == at(2) { 50 } else { 0 }, failing: e == at(1) };
        for _ in 0..100 {
            assert!([at(1), at(2)].contains(&choose(&all, 2, None, idle).expect("not empty")));
            assert_eq!(choose(&all, 1, None, idle), Some(at(1)));
            assert_ne!(choose(&all, 1, Some(at(1)), idle), Some(at(1)), "where the last attempt failed");
            assert!([at(3), at(4)].contains(&choose(&all, 2, None, failing).expect("not empty")));
            assert_eq!(choose(&all, 2, None, one_failing), Some(at(2)), "busy is not broken");
            assert!(choose(&all, 9, None, idle).is_some(), "more nearby than there are");
        }
    }

    #[test]
    fn spreads_over_idle_endpoints() {
        let all = [at(1), at(2), at(3)];
        let mut seen = [0_u32; 3];
        for _ in 0..3000 {
            let one = choose(&all, 0, None, |_| Load { in_flight: 0, failing: false }).expect("not empty");
            seen[all.iter().position(|e| *e == one).expect("one of them")] += 1;
        }
        assert!(seen.iter().all(|n| (800..1200).contains(n)), "{seen:?}");
    }
}
