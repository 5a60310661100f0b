//! Clocks that change: every transition of every zone from 2024 to 2030. Must never know a zone by name.
#![allow(clippy::unwrap_used, reason = "a failed step of a test is a panic")]

use jiff::{
    Timestamp,
    tz::{self, TimeZone},
};
use kubeless::api::occurrences::Occurrences;

const DAY: i64 = 86_400;
/// Every how many transitions the costly comparison is made.
const SAMPLE: usize = 7;

/// Seconds and zone offsets (before, after) of the transitions of a zone.
fn transitions(zone: &TimeZone) -> Vec<(i64, i64, i64)> {
    let (from, to): (Timestamp, Timestamp) =
        ("2024-01-01T00:00:00Z".parse().unwrap(), "2031-01-01T00:00:00Z".parse().unwrap());
    let offset = |at: i64| i64::from(zone.to_offset(Timestamp::from_second(at).unwrap()).seconds());
    let found = zone.following(from).map(|change| change.timestamp()).take_while(|at| *at < to);
    let found = found.map(|at| (at.as_second(), offset(at.as_second() - 1), offset(at.as_second())));
    found.filter(|(_, before, after)| before != after).collect()
}

fn between(schedule: &Occurrences, from: i64, to: i64) -> Vec<i64> {
    std::iter::successors(schedule.after(from), |at| schedule.after(*at)).take_while(|at| *at <= to).collect()
}

#[test]
fn a_fixed_time_is_called_once_a_day_whatever_the_clocks_do() {
    let (mut gaps, mut overlaps, mut zones) = (0, 0, 0);
    for name in tz::db().available() {
        let zone = TimeZone::get(name.as_str()).unwrap();
        zones += 1;
        for (at, before, after) in transitions(&zone) {
            // A minute in the middle of what is left out, or of what comes twice.
            let (first, last) = (at + before.min(after), at + before.max(after));
            let middle = (first + last) / 2;
            let (hour, minute) = (middle.rem_euclid(DAY) / 3600, middle.rem_euclid(3600) / 60);
            let schedule = Occurrences::of(&format!("{minute} {hour} * * *"), Some(name.as_str())).unwrap();
            let calls = between(&schedule, at - 36 * 3600, at + 36 * 3600);
            let wanted = if after > before {
                gaps += 1;
                at
            } else {
                overlaps += 1;
                middle - middle.rem_euclid(60) - before
            };
            assert!(calls.contains(&wanted), "{name} at {at}: {minute} {hour} * * * calls at {calls:?}");
            // Once a day: no two are nearer, or farther, than the clocks moved.
            let day = DAY - (after - before).abs()..=DAY + (after - before).abs();
            assert!(
                calls.windows(2).all(|pair| day.contains(&(pair[1] - pair[0]))),
                "{name} at {at}: {calls:?}"
            );
        }
    }
    println!("{zones} zones, {gaps} gaps, {overlaps} overlaps");
    assert!(zones > 300 && gaps > 500 && overlaps > 500, "{zones} {gaps} {overlaps}");
}

#[test]
fn every_half_hour_of_the_wall_clock_is_called_as_often_as_it_comes() {
    let mut nth = 0;
    for name in tz::db().available() {
        let zone = TimeZone::get(name.as_str()).unwrap();
        for (at, ..) in transitions(&zone) {
            nth += 1;
            if nth % SAMPLE != 0 {
                continue;
            }
            let schedule = Occurrences::of("*/30 * * * *", Some(name.as_str())).unwrap();
            let (from, to) = (at - at.rem_euclid(60) - 2 * 3600, at - at.rem_euclid(60) + 2 * 3600);
            let shown = |second: i64| Timestamp::from_second(second).unwrap().to_zoned(zone.clone());
            let wanted: Vec<i64> = (from / 60 + 1..=to / 60)
                .map(|minute| minute * 60)
                .filter(|second| shown(*second).minute() % 30 == 0 && shown(*second).second() == 0)
                .collect();
            assert_eq!(between(&schedule, from, to), wanted, "{name} at {at}");
        }
    }
    assert!(nth > 1000, "{nth}");
}
