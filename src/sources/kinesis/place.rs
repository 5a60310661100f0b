//! Where a record stands in its shard: the sequence number as the service writes it, and which part of an aggregated
//! record. Must never cut a sequence number down to a machine number: it has up to 186 bits.

use serde::{Deserialize, Serialize};
use std::{cmp::Ordering, fmt, str::FromStr, sync::Arc};

/// Most digits of a sequence number that are believed; the service writes 56.
const MAX_DIGITS: usize = 128;

/// A sequence number: decimal digits without leading zeros, ordered as the number they write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sequence(Arc<str>);

/// A record of a shard, or one of those that a producer packed into it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Place {
    /// Sequence number.
    pub sequence: Sequence,
    /// Number inside an aggregated record, from 0; `None` for a record that is not aggregated.
    pub sub: Option<u32>,
}

/// A text that is no sequence number, or no place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a sequence number (1 to 128 digits), nor one with /NUMBER")]
pub struct Malformed(String);

impl Sequence {
    /// As the service writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Sequence {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let digits = text.trim_start_matches('0');
        let plain = (1..=MAX_DIGITS).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        if !plain {
            return Err(Malformed(text.chars().take(MAX_DIGITS).collect()));
        }
        Ok(Self(if digits.is_empty() { "0".into() } else { digits.into() }))
    }
}

impl Ord for Sequence {
    fn cmp(&self, other: &Self) -> Ordering {
        // Without leading zeros more digits are a larger number.
        (self.0.len(), &*self.0).cmp(&(other.0.len(), &*other.0))
    }
}

impl PartialOrd for Sequence {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sub {
            Some(sub) => write!(f, "{}/{sub}", self.sequence.0),
            None => f.write_str(&self.sequence.0),
        }
    }
}

impl FromStr for Place {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let Some((sequence, sub)) = text.split_once('/') else {
            return Ok(Self { sequence: text.parse()?, sub: None });
        };
        let sub = sub.parse().map_err(|_| Malformed(text.chars().take(MAX_DIGITS).collect()))?;
        Ok(Self { sequence: sequence.parse()?, sub: Some(sub) })
    }
}

impl TryFrom<String> for Place {
    type Error = Malformed;

    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_beyond_any_machine_number_keep_their_order() {
        let near: Sequence = "49590338271490256608559692538361571095921575989136588898".parse().unwrap();
        let next: Sequence = "49590338271490256608559692538361571095921575989136588899".parse().unwrap();
        let short: Sequence = "9".parse().unwrap();
        assert!(near < next && short < near);
        assert_eq!("007".parse::<Sequence>().unwrap().as_str(), "7");
        assert_eq!("000".parse::<Sequence>().unwrap().as_str(), "0");
        for bad in ["", "-1", "1.5", "a", "1 ", &"1".repeat(129)] {
            assert!(bad.parse::<Sequence>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_part_stands_after_what_is_before_it_and_before_the_next_record() {
        let places: Vec<Place> =
            ["7", "8/0", "8/1", "8/10", "9", "10/0"].iter().map(|p| p.parse().unwrap()).collect();
        assert!(places.windows(2).all(|pair| pair[0] < pair[1]));
        assert!("8/".parse::<Place>().is_err() && "8/x".parse::<Place>().is_err());
    }

    proptest! {
        #[test]
        fn order_is_that_of_numbers(a in any::<u128>(), b in any::<u128>(), sub in any::<Option<u32>>()) {
            let place = |n: u128| Place { sequence: n.to_string().parse().unwrap(), sub };
            prop_assert_eq!(place(a).cmp(&place(b)), a.cmp(&b));
            prop_assert_eq!(place(a).to_string().parse::<Place>().unwrap(), place(a));
        }
    }
}
