//! The one spelling of durations in resources: `250ms`, `30s`, `10m`, `24h`. Must never round: a value that
//! is not a whole number of milliseconds is refused.

use std::time::Duration;

use super::Violation;

/// Schema pattern of a duration.
pub const PATTERN: &str = "^[0-9]{1,9}(ms|s|m|h)$";

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a duration: a whole number and one of the units ms, s, m, h is needed")]
pub struct NotADuration;

/// Reads `<digits><ms|s|m|h>`. At most nine digits, no sign, no spaces, no fractions.
///
/// # Errors
/// [`NotADuration`] for everything else.
pub fn parse(text: &str) -> Result<Duration, NotADuration> {
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or(NotADuration)?;
    let (digits, unit) = text.split_at(split);
    if digits.is_empty() || digits.len() > 9 {
        return Err(NotADuration);
    }
    let count: u64 = digits.parse().map_err(|_| NotADuration)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(NotADuration),
    };
    Ok(Duration::from_millis(count * millis))
}

/// Writes a duration in the largest unit that loses nothing. Parts below a millisecond are dropped.
pub fn format(duration: Duration) -> String {
    let millis = duration.as_millis();
    for (unit, size) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if millis > 0 && millis.is_multiple_of(size) {
            return format!("{}{unit}", millis / size);
        }
    }
    format!("{millis}ms")
}

/// Reads a duration that must lie in `min..=max`; adds a violation at `path` and returns `None` otherwise.
pub fn checked(
    text: &str,
    (min, max): (Duration, Duration),
    path: &str,
    violations: &mut Vec<Violation>,
) -> Option<Duration> {
    let range = format!("{} to {}", format(min), format(max));
    match parse(text) {
        Ok(value) if value >= min && value <= max => return Some(value),
        Ok(_) => violations.push(Violation::new(
            path,
            format!("{text:?} is out of range"),
            format!("write a duration from {range}"),
        )),
        Err(error) => violations.push(Violation::new(
            path,
            format!("{text:?} is {error}"),
            format!("write a duration from {range}, for example \"30s\""),
        )),
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_unit_and_nothing_else() {
        for (text, millis) in
            [("250ms", 250), ("30s", 30_000), ("10m", 600_000), ("24h", 86_400_000), ("0s", 0)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "30", "-1s", "1.5s", "30 s", "1d", "1h30m", "1234567890s", "30S", "٣s"] {
            assert_eq!(parse(text), Err(NotADuration), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_reads_back(millis in 0u64..10_000_000_000) {
            let duration = Duration::from_millis(millis);
            if let Ok(read) = parse(&format(duration)) {
                proptest::prop_assert_eq!(read, duration);
            } else {
                proptest::prop_assert!(millis >= 1_000_000_000, "only more than nine digits may be refused");
            }
        }
    }
}
