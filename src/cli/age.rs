//! How old something is, in the two units that matter, as kubectl writes it. Must never look at a clock.

use jiff::Timestamp;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The time from `since` (RFC 3339) to `now`; `<unknown>` if it is no instant.
pub fn age(since: Option<&str>, now: Timestamp) -> String {
    match since.and_then(|text| text.parse::<Timestamp>().ok()) {
        Some(since) => span(now.as_second() - since.as_second()),
        None => "<unknown>".to_owned(),
    }
}

/// A number of seconds; clocks that disagree by a little make no negative ages.
pub fn span(seconds: i64) -> String {
    let two = |size: i64, unit: &str, rest: i64, small: &str| match seconds % size / rest {
        0 => format!("{}{unit}", seconds / size),
        more => format!("{}{unit}{more}{small}", seconds / size),
    };
    match seconds {
        ..0 => "0s".to_owned(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(MINUTE, "m", 1, "s"),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(HOUR, "h", MINUTE, "m"),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(DAY, "d", HOUR, "h"),
        s => format!("{}d", s / DAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_kubectls() {
        for (seconds, wanted) in [
            (-5, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (10_000, "166m"),
            (4 * HOUR + 60, "4h1m"),
            (30 * HOUR, "30h"),
            (3 * DAY + 2 * HOUR, "3d2h"),
            (900 * DAY, "900d"),
        ] {
            assert_eq!(span(seconds), wanted);
        }
        assert_eq!(age(Some("2026-01-01T00:00:00Z"), "2026-01-01T00:01:00Z".parse().unwrap()), "60s");
        assert_eq!(age(None, Timestamp::UNIX_EPOCH), "<unknown>");
    }
}
