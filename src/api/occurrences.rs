//! The instants that a schedule names in its time zone, one after the other. Must never read a clock: the caller says
//! after which instant. The grammar is the one of [`super::schedule`], so that a CronJob and the dispatcher call at the
//! same instants; the zone's rules are those compiled in, or of the machine where it has some.

use croner::{
    Cron,
    parser::{CronParser, Seconds, Year},
};
use jiff::{Timestamp, tz::TimeZone};

use super::schedule::{self, NotASchedule};

/// Largest number of each field: what a start without an end (`5/15`) runs to.
const LARGEST: [u32; 5] = [59, 23, 31, 12, 6];

/// A schedule in a time zone.
#[derive(Clone, Debug)]
pub struct Occurrences {
    cron: Cron,
    zone: TimeZone,
}

/// Why a schedule names no instants.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is none.
    #[error(transparent)]
    Schedule(#[from] NotASchedule),
    /// It counts from the start of a process.
    #[error("{0:?} counts from the start of a process and names no instants")]
    Interval(String),
    /// Not a name of the IANA.
    #[error("{0:?} is not a time zone: write its IANA name, for example Europe/Berlin or Etc/UTC")]
    Zone(String),
}

impl Occurrences {
    /// Reads a schedule; no zone means UTC.
    ///
    /// # Errors
    /// [`Error`].
    pub fn of(schedule: &str, zone: Option<&str>) -> Result<Self, Error> {
        schedule::check(schedule)?;
        if schedule::is_interval(schedule) {
            return Err(Error::Interval(schedule.trim().to_owned()));
        }
        let zone = match zone {
            None => TimeZone::UTC,
            Some(name) if !schedule::is_zone(name) => return Err(Error::Zone(name.to_owned())),
            Some(name) => TimeZone::get(name).map_err(|_| Error::Zone(name.to_owned()))?,
        };
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(&normal(schedule));
        let cron = cron.map_err(|_| NotASchedule::Name(schedule.trim().to_owned()))?;
        Ok(Self { cron, zone })
    }

    /// The first instant after `unix_s`, in seconds since the Unix epoch; `None`: there is none any more.
    pub fn after(&self, unix_s: i64) -> Option<i64> {
        let from = Timestamp::from_second(unix_s).ok()?.to_zoned(self.zone.clone());
        let next = self.cron.find_next_occurrence(&from, false).ok()?.timestamp().as_second();
        // Whoever walks from instant to instant must get on.
        (next > unix_s).then_some(next)
    }

    /// The zone, for people.
    pub fn zone(&self) -> &TimeZone {
        &self.zone
    }
}

/// The schedule in the words of the library, with the meaning that Kubernetes gives it.
fn normal(schedule: &str) -> String {
    let text = schedule.trim();
    if text.starts_with('@') {
        return if text == "@midnight" { "@daily".to_owned() } else { text.to_owned() };
    }
    let fields = text.split_whitespace().zip(LARGEST).map(|(field, largest)| {
        field.split(',').map(|part| normal_part(part, largest)).collect::<Vec<_>>().join(",")
    });
    fields.collect::<Vec<_>>().join(" ")
}

fn normal_part(part: &str, largest: u32) -> String {
    let part = part.replace('?', "*");
    match part.split_once('/') {
        // Every one is no restriction: it must not turn "day of month or day of week" on.
        Some(("*", step)) if step.parse() == Ok(1) => "*".to_owned(),
        Some((start, step)) if start != "*" && !start.contains('-') => format!("{start}-{largest}/{step}"),
        _ => part,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instants(schedule: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let occurrences = Occurrences::of(schedule, Some(zone)).expect("a schedule");
        let from: Timestamp = from.parse().expect("an instant");
        let walk = std::iter::successors(occurrences.after(from.as_second()), |t| occurrences.after(*t));
        walk.take(count).map(|t| Timestamp::from_second(t).expect("in range").to_string()).collect()
    }

    #[test]
    fn what_kubernetes_takes_means_the_same_here() {
        let from = "2026-01-01T00:00:00Z";
        for (schedule, wanted) in [
            ("? ? ? * ?", ["2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z"]),
            ("@midnight", ["2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"]),
            ("@weekly", ["2026-01-04T00:00:00Z", "2026-01-11T00:00:00Z"]),
            ("5/20 * * * *", ["2026-01-01T00:05:00Z", "2026-01-01T00:25:00Z"]),
            // Every day of the month is no restriction: Mondays only.
            ("0 0 */1 * 1", ["2026-01-05T00:00:00Z", "2026-01-12T00:00:00Z"]),
            // Two restrictions: either.
            ("0 0 13 * 5", ["2026-01-02T00:00:00Z", "2026-01-09T00:00:00Z"]),
            ("0 9-17/4 * JAN-mar MON,Wed,fri", ["2026-01-02T09:00:00Z", "2026-01-02T13:00:00Z"]),
            ("5,10 0 ? * ?", ["2026-01-01T00:05:00Z", "2026-01-01T00:10:00Z"]),
        ] {
            assert_eq!(instants(schedule, "Etc/UTC", from, 2), wanted, "{schedule}");
        }
    }

    #[test]
    fn clocks_that_change_make_no_call_twice_and_lose_none() {
        let zone = "Europe/Berlin";
        // 02:30 does not exist on 29 March: just after the gap. It exists twice on 25 October: the first time.
        let spring = ["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"];
        assert_eq!(instants("30 2 * * *", zone, "2026-03-28T00:00:00Z", 3), spring);
        let autumn = ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"];
        assert_eq!(instants("30 2 * * *", zone, "2026-10-24T00:00:00Z", 3), autumn);
        // Every half hour means just that, whatever the clock on the wall shows.
        let each =
            ["2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z", "2026-10-25T01:30:00Z", "2026-10-25T02:00:00Z"];
        assert_eq!(instants("*/30 * * * *", zone, "2026-10-25T00:20:00Z", 4), each);
    }

    #[test]
    fn what_names_no_instants_is_told() {
        assert!(matches!(Occurrences::of("@every 5m", None), Err(Error::Interval(_))));
        assert!(matches!(Occurrences::of("* * * * 9", None), Err(Error::Schedule(_))));
        assert!(matches!(Occurrences::of("* * * * *", Some("Mars/Olympus")), Err(Error::Zone(_))));
        let never = Occurrences::of("0 0 31 2 *", None).expect("five fields");
        assert_eq!(never.after(0), None);
    }
}
