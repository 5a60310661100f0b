//! The grammar of schedules: the one of Kubernetes' CronJob, which Kubeless handed them to. Must never compute a time:
//! whoever calls by the clock does that.

/// How to write one.
pub const FIX: &str = "write minute, hour, day of month, month, day of week, for example \"*/5 * * * *\", or a name like @hourly";

const NAMES: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Name, smallest and largest number, and words of each field, in order.
const FIELDS: [(&str, u32, u32, &[&str]); 5] = [
    ("minute", 0, 59, &[]),
    ("hour", 0, 23, &[]),
    ("day of month", 1, 31, &[]),
    ("month", 1, 12, &MONTHS),
    ("day of week", 0, 6, &DAYS),
];

/// Why a text is not a schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotASchedule {
    /// Not five fields.
    #[error("a schedule has five fields, this one has {0}")]
    Fields(usize),
    /// One of the names is misspelt, or an interval is none.
    #[error("{0:?} is not the name of a schedule")]
    Name(String),
    /// A field that says nothing.
    #[error("{text:?} is not a {field}: {why}")]
    Field {
        /// Which one.
        field: &'static str,
        /// What stands there.
        text: String,
        /// What is wrong with it.
        why: String,
    },
}

/// Checks a schedule.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check(schedule: &str) -> Result<(), NotASchedule> {
    let text = schedule.trim();
    if text.starts_with('@') {
        let known = NAMES.contains(&text) || interval(text).is_some();
        return if known { Ok(()) } else { Err(NotASchedule::Name(text.to_owned())) };
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(NotASchedule::Fields(fields.len()));
    }
    for (field, limits) in fields.iter().zip(&FIELDS) {
        for part in field.split(',') {
            check_part(part, limits).map_err(|why| NotASchedule::Field {
                field: limits.0,
                text: part.to_owned(),
                why,
            })?;
        }
    }
    Ok(())
}

/// Whether a schedule that passed [`check`] counts from a process's start instead of naming instants.
pub fn is_interval(schedule: &str) -> bool {
    interval(schedule.trim()).is_some()
}

/// Whether this is the IANA name of a time zone.
pub fn is_zone(zone: &str) -> bool {
    // What a machine calls its own zone means nothing on another one.
    !zone.eq_ignore_ascii_case("local") && jiff::tz::TimeZone::get(zone).is_ok()
}

/// `@every 1h30m`: the duration of Go, in hours, minutes and seconds.
fn interval(text: &str) -> Option<()> {
    let mut rest = text.strip_prefix("@every ")?.trim();
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let number = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        rest[..number].parse::<f64>().ok()?;
        let unit = rest[number..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |at| number + at);
        matches!(&rest[number..unit], "h" | "m" | "s" | "ms").then_some(())?;
        rest = &rest[unit..];
    }
    Some(())
}

fn check_part(part: &str, (_, min, max, words): &(&str, u32, u32, &[&str])) -> Result<(), String> {
    let number = |text: &str| -> Result<u32, String> {
        let word = words.iter().position(|word| word.eq_ignore_ascii_case(text));
        let value = match word {
            Some(at) => min + u32::try_from(at).unwrap_or_default(),
            None if text.bytes().all(|c| c.is_ascii_digit()) => {
                text.parse().map_err(|_| format!("numbers go from {min} to {max}"))?
            }
            None => return Err(format!("{text:?} is not a number from {min} to {max}")),
        };
        if (*min..=*max).contains(&value) {
            Ok(value)
        } else {
            Err(format!("numbers go from {min} to {max}"))
        }
    };
    let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
    if let Some(step) = step
        && !step.parse::<u32>().is_ok_and(|step| step > 0)
    {
        return Err(format!("the step {step:?} is not a whole number above 0"));
    }
    if matches!(range, "*" | "?") {
        return Ok(());
    }
    match range.split_once('-') {
        None => number(range).map(drop),
        Some((from, to)) if number(from)? > number(to)? => Err("the range ends before it begins".to_owned()),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_takes_passes() {
        for good in [
            "* * * * *",
            "*/5 * * * *",
            "0 0 1 1 0",
            "0 9-17/2 * JAN-mar MON,Wed,fri",
            "5,10,15-20 ? * * ?",
            "@hourly",
            " @daily ",
            "@every 1h30m",
            "@every 1.5s",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        assert!(is_interval("@every 5m") && !is_interval("@hourly") && !is_interval("* * * * *"));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (bad, wanted) in [
            ("", "a schedule has five fields, this one has 0"),
            ("0 * * * * *", "a schedule has five fields, this one has 6"),
            ("60 * * * *", "\"60\" is not a minute: numbers go from 0 to 59"),
            ("* * * * 7", "\"7\" is not a day of week: numbers go from 0 to 6"),
            ("* * L * *", "\"L\" is not a day of month: \"L\" is not a number from 1 to 31"),
            ("*/0 * * * *", "\"*/0\" is not a minute: the step \"0\" is not a whole number above 0"),
            ("* 5-3 * * *", "\"5-3\" is not a hour: the range ends before it begins"),
            ("*/5 * * *", "a schedule has five fields, this one has 4"),
            ("@minutely", "\"@minutely\" is not the name of a schedule"),
            ("@every 5", "\"@every 5\" is not the name of a schedule"),
            ("@every", "\"@every\" is not the name of a schedule"),
        ] {
            assert_eq!(check(bad).unwrap_err().to_string(), wanted, "{bad}");
        }
    }

    #[test]
    fn zones_are_those_of_the_iana() {
        assert!(is_zone("Europe/Berlin") && is_zone("Etc/UTC"));
        assert!(!is_zone("Mars/Olympus") && !is_zone("Local") && !is_zone(""));
    }
}
