//! Durations (`250ms`, `30s`, `10m`, `1h`) and sizes (`64KiB`, `256MiB`) as people write them, for serde's `with`.
//! Must never guess a unit: a bare number is refused.

/// Durations.
pub mod duration {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::Duration;

    const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

    /// Parses `250ms`, `30s`, `10m`, `1h`: one whole number and one unit.
    pub fn parse(text: &str) -> Result<Duration, String> {
        let (number, factor) = super::split(text, &UNITS)
            .ok_or_else(|| format!("`{text}` is not a duration: write a whole number and ms, s, m or h, as in \"250ms\" or \"30s\""))?;
        number
            .checked_mul(factor)
            .map(Duration::from_millis)
            .ok_or_else(|| format!("`{text}` is too long for a duration"))
    }

    /// The shortest text that [`parse`] reads back to the same value.
    pub fn format(duration: Duration) -> String {
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        super::join(ms, &UNITS, "ms")
    }

    /// For `#[serde(with)]`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }

    /// For `#[serde(with)]`.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format(*duration))
    }
}

/// Sizes in bytes.
pub mod bytes {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

    /// Parses `512B`, `64KiB`, `256MiB`, `2GiB`.
    pub fn parse(text: &str) -> Result<u64, String> {
        let (number, factor) = super::split(text, &UNITS).ok_or_else(|| {
            format!("`{text}` is not a size: write a whole number and B, KiB, MiB or GiB, as in \"64MiB\"")
        })?;
        number.checked_mul(factor).ok_or_else(|| format!("`{text}` is too large for a size"))
    }

    /// The shortest text that [`parse`] reads back to the same value.
    pub fn format(bytes: u64) -> String {
        super::join(bytes, &UNITS, "B")
    }

    /// For `#[serde(with)]`.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }

    /// For `#[serde(with)]`.
    pub fn serialize<S: Serializer>(bytes: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format(*bytes))
    }
}

fn split(text: &str, units: &[(&str, u64)]) -> Option<(u64, u64)> {
    let text = text.trim();
    let end = text.find(|character: char| !character.is_ascii_digit())?;
    let (number, unit) = (text[..end].parse().ok()?, text[end..].trim());
    units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| (number, *factor))
}

fn join(value: u64, units: &[(&str, u64)], smallest: &str) -> String {
    units
        .iter()
        .find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor))
        .map_or_else(|| format!("{value}{smallest}"), |(name, factor)| format!("{}{name}", value / factor))
}

#[cfg(test)]
mod tests {
    use super::{bytes, duration};
    use std::time::Duration;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["250ms", "30s", "10m", "1h", "90s", "0ms"] {
            assert_eq!(duration::format(duration::parse(text).unwrap()), text);
        }
        for text in ["1B", "64KiB", "256MiB", "2GiB", "1500B"] {
            assert_eq!(bytes::format(bytes::parse(text).unwrap()), text);
        }
        assert_eq!(duration::parse(" 5 s ").unwrap(), Duration::from_secs(5));
    }

    #[test]
    fn a_unit_is_never_guessed() {
        for text in ["5", "", "s", "1.5s", "-1s", "5 min", "18446744073709551615h"] {
            assert!(duration::parse(text).is_err(), "{text}");
        }
        for text in ["5", "5MB", "5mib", "99999999999GiB"] {
            assert!(bytes::parse(text).is_err(), "{text}");
        }
    }
}
