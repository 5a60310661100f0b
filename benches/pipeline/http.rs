//! Just enough HTTP/1.1 for a cheap function: where a request ends, and when its event was written. Must never cost
//! more than a line walk, because its cost is in every figure.

use memchr::memchr;

/// One whole request at the start of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bytes up to and including the empty line.
    pub head: usize,
    /// Bytes of the whole request.
    pub whole: usize,
    /// `event-time` in Unix ms, 0 where there is none.
    pub event_ms: i64,
    /// A POST, that is, an event; anything else asks the sink itself.
    pub is_event: bool,
}

/// The request at the start of `buffer`, once all of it is there.
pub fn parse(buffer: &[u8]) -> Option<Request> {
    let (mut at, mut body, mut event_ms) = (0, 0, 0);
    loop {
        let end = at + memchr(b'\n', &buffer[at..])?;
        let line = &buffer[at..end];
        at = end + 1;
        match line.first().map(u8::to_ascii_lowercase) {
            Some(b'\r') => break,
            Some(b'c') => body = after(line, b"content-length:").map_or(body, number),
            Some(b'e') => event_ms = after(line, b"event-time:").and_then(unix_ms).unwrap_or(event_ms),
            _ => {}
        }
    }
    let whole = at + body;
    let is_event = buffer.starts_with(b"POST");
    (buffer.len() >= whole).then_some(Request { head: at, whole, event_ms, is_event })
}

fn after<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let head = line.get(..name.len())?;
    head.eq_ignore_ascii_case(name).then(|| line[name.len()..].trim_ascii())
}

fn number(digits: &[u8]) -> usize {
    digits.iter().take_while(|d| d.is_ascii_digit()).fold(0, |n, d| n * 10 + usize::from(d - b'0'))
}

/// `2026-11-23T10:15:30.250Z` as Unix ms; only this form, which is the product's.
fn unix_ms(text: &[u8]) -> Option<i64> {
    if text.len() != 24 {
        return None;
    }
    let part = |from: usize, to: usize| number(&text[from..to]) as i64;
    let (year, month, day) = (part(0, 4), part(5, 7), part(8, 10));
    // Days since 1970-01-01 of a civil date, with years that begin in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some((((days * 24 + part(11, 13)) * 60 + part(14, 16)) * 60 + part(17, 19)) * 1000 + part(20, 23))
}

/// Unix µs in the first digits of a body written by the feed (`{"at":1790000000123456,…`), 0 where there are none.
pub fn written_us(body: &[u8]) -> i64 {
    body.strip_prefix(b"{\"at\":").map_or(0, number_i64)
}

fn number_i64(digits: &[u8]) -> i64 {
    number(digits) as i64
}
