//! Codec of the claim register: the metadata string of Kafka's OffsetCommit (rules N1, N7, L1).
//! Must never truncate a set, never panic on what a broker hands back, and never do I/O.
//!
//! Text is `kb1.` and the unpadded base64url form of one binary body. Numbers are LEB128 varints unless a size
//! is given; sets run downwards, each as the distance minus one from its predecessor, the first from the
//! committed offset:
//!
//! ```text
//! owner u64 LE | seq | zigzag(log time) | n tables, u64 LE each | n open, distances (each followed by its
//! owner index where a table is there: 0 = own) | n parked, distances | check u32 LE
//! ```
//!
//! The check is xxh3 seeded with the committed offset: distances mean nothing beside another offset.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// What every text of ours starts with; the digit is the version.
const PREFIX: &str = "kb1.";
/// Version this build writes, and the highest one it reads.
const VERSION: u32 = 1;
/// Most open and parked entries together that are believed. The protocol's own cap is 256 (N7); the rest is
/// room for a broker with a larger `offset.metadata.max.bytes`.
pub const MAX_ENTRIES: usize = 4096;
/// Budget of rule N7 in characters: half of Kafka's default `offset.metadata.max.bytes` (4096).
pub const DEFAULT_MAX_CHARS: usize = 2048;
/// Longest text looked at, before anything is allocated for it.
const MAX_TEXT: usize = 64 * 1024;
/// Owner, two ten-byte varints, three five-byte counts, check.
const MAX_HEADER: usize = 8 + 10 + 10 + 15 + CHECK;
const CHECK: usize = 4;

/// Owner token: one per start of a subscription's thread, random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Token(pub u64);

/// One claimed record without a durable outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpenEntry {
    /// Offset of the record.
    pub offset: i64,
    /// The process that claimed it; entries of other owners are inherited and carried on (N1).
    pub owner: Token,
}

/// What one partition's committed metadata says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Register {
    /// Process that wrote this register.
    pub owner: Token,
    /// Counts the writes of this owner for this partition, so that two of them can be told apart.
    pub seq: u64,
    /// Log time (rule D1) at the committed offset, milliseconds since the Unix epoch; -1 when unknown.
    pub log_time_ms: i64,
    /// Claimed and not settled; offsets strictly ascending and below the committed offset.
    pub open: Vec<OpenEntry>,
    /// Below the committed offset but **not** claimed (L1); strictly ascending, none of them also open.
    pub parked: Vec<i64>,
}

impl Register {
    /// What a partition without a register of ours has: nothing open, nothing parked, no log time.
    pub fn empty() -> Self {
        Self { owner: Token(0), seq: 0, log_time_ms: -1, open: Vec::new(), parked: Vec::new() }
    }
}

/// Why a register could not be written. Nothing was left out: the text does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// Too many entries for the metadata string: claim fewer, or pause the partition (N7).
    #[error("claim register needs {chars} characters")]
    TooLong {
        /// Length that would have been needed.
        chars: usize,
    },
    /// The caller's sets are not what [`Register`] promises. Writing them would lose the list for the successor.
    #[error("claim register is malformed: {why}")]
    Invalid {
        /// Which promise is broken.
        why: &'static str,
    },
}

/// What a committed metadata string is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// The empty string: nothing was ever claimed here, or an operator reset the group's offsets.
    Empty,
    /// Metadata of another client.
    Foreign,
    /// Ours and readable.
    Register(Register),
    /// Written by a later version of this program: must not be overwritten by this one.
    Newer {
        /// Its version.
        version: u32,
    },
    /// Ours by its prefix, but damaged, or read beside another offset than it was committed with.
    Corrupt {
        /// Closed list of reasons, fit for a log field.
        why: &'static str,
    },
}

/// Text of `register` for a commit of `committed_offset` (the next offset to read), at most `max_chars` long.
///
/// # Errors
/// [`EncodeError::TooLong`] when it does not fit (rule N7: nothing is ever cut off),
/// [`EncodeError::Invalid`] when the sets break what [`Register`] promises.
pub fn encode(register: &Register, committed_offset: i64, max_chars: usize) -> Result<String, EncodeError> {
    check_sets(register, committed_offset).map_err(|why| EncodeError::Invalid { why })?;
    let body = body_of(register, committed_offset);
    let chars = chars_of(body.len());
    if chars > max_chars {
        return Err(EncodeError::TooLong { chars });
    }
    let mut text = String::with_capacity(chars);
    text.push_str(PREFIX);
    URL_SAFE_NO_PAD.encode_string(body, &mut text);
    Ok(text)
}

/// Reads what a broker handed back for `committed_offset`. Total: any text has an answer.
pub fn decode(text: &str, committed_offset: i64) -> Decoded {
    if text.is_empty() {
        return Decoded::Empty;
    }
    match version_of(text) {
        None => return Decoded::Foreign,
        Some(version) if version > VERSION => return Decoded::Newer { version },
        Some(_) => {}
    }
    match decode_body(&text[PREFIX.len()..], committed_offset) {
        Ok(register) => Decoded::Register(register),
        Err(why) => Decoded::Corrupt { why },
    }
}

/// Upper bound in characters of a register with that many entries whose lowest offset lies `span` below the
/// committed one, and with `owners` other owners. Constant time.
pub fn capacity_hint(open: usize, parked: usize, span: u64, owners: usize) -> usize {
    let index = if owners == 0 { 0 } else { varint_len(owners as u64) };
    let sets = distances_bound(open, span) + distances_bound(parked, span);
    chars_of(MAX_HEADER + owners * 8 + sets + open * index)
}

/// Whether `register` still fits `max_chars` after `extra` more entries of its own owner (open or parked) and a
/// commit of `committed_offset`. May say no a little early, never yes too late (N7: asked before a claim).
pub fn fits(register: &Register, committed_offset: i64, extra: usize, max_chars: usize) -> bool {
    let lowest =
        register.open.first().map(|e| e.offset).into_iter().chain(register.parked.first().copied()).min();
    let span = lowest.map_or(extra as u64, |low| committed_offset.saturating_sub(low).max(0) as u64);
    let count = register.open.len() + register.parked.len() + extra;
    let owners = owner_table(register).len();
    let span = span.max(extra as u64);
    // Which set an extra entry joins is not known here, so both must have the room.
    let as_open = capacity_hint(register.open.len() + extra, register.parked.len(), span, owners);
    let as_parked = capacity_hint(register.open.len(), register.parked.len() + extra, span, owners);
    count <= MAX_ENTRIES && as_open.max(as_parked) <= max_chars
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Characters that `bytes` of body make.
const fn chars_of(bytes: usize) -> usize {
    PREFIX.len() + (bytes * 4).div_ceil(3)
}

/// Longest form of `count` distances whose sum is at most `span`: at most `span / 2^(7 b)` of them can need more
/// than `b` bytes.
fn distances_bound(count: usize, span: u64) -> usize {
    let mut bytes = count;
    let mut rest = span >> 7;
    while rest > 0 {
        bytes += count.min(usize::try_from(rest).unwrap_or(usize::MAX));
        rest >>= 7;
    }
    bytes
}

/// `kb<digits>.` or nothing. A zero is nobody's version.
fn version_of(text: &str) -> Option<u32> {
    let (digits, _) = text.strip_prefix("kb")?.split_once('.')?;
    let plain = !digits.is_empty() && digits.len() <= 6 && digits.bytes().all(|b| b.is_ascii_digit());
    if !plain || digits.starts_with('0') {
        return None;
    }
    digits.parse().ok()
}

fn check_sets(register: &Register, committed: i64) -> Result<(), &'static str> {
    if register.open.len() + register.parked.len() > MAX_ENTRIES {
        return Err("too many entries");
    }
    let ascending = register.open.windows(2).all(|w| w[0].offset < w[1].offset)
        && register.parked.windows(2).all(|w| w[0] < w[1]);
    if !ascending {
        return Err("offsets not strictly ascending");
    }
    let first = register.open.first().map(|e| e.offset).into_iter().chain(register.parked.first().copied());
    let last = register.open.last().map(|e| e.offset).into_iter().chain(register.parked.last().copied());
    if committed < 0 || first.min().is_some_and(|o| o < 0) || last.max().is_some_and(|o| o >= committed) {
        return Err("offset out of range");
    }
    let parked_is_open = |o: &i64| register.open.binary_search_by_key(o, |e| e.offset).is_ok();
    if register.parked.iter().any(parked_is_open) {
        return Err("offset both open and parked");
    }
    Ok(())
}

/// Other owners in the order of their first entry, downwards: the same sets always give the same bytes.
fn owner_table(register: &Register) -> Vec<Token> {
    let mut table = Vec::new();
    for entry in register.open.iter().rev() {
        if entry.owner != register.owner && !table.contains(&entry.owner) {
            table.push(entry.owner);
        }
    }
    table
}

fn body_of(register: &Register, committed: i64) -> Vec<u8> {
    let table = owner_table(register);
    let mut body = Vec::with_capacity(64 + 3 * (register.open.len() + register.parked.len()));
    body.extend_from_slice(&register.owner.0.to_le_bytes());
    put(&mut body, register.seq);
    put(&mut body, zigzag(register.log_time_ms));
    put(&mut body, table.len() as u64);
    for token in &table {
        body.extend_from_slice(&token.0.to_le_bytes());
    }
    put(&mut body, register.open.len() as u64);
    let mut above = committed;
    for entry in register.open.iter().rev() {
        put(&mut body, (above - entry.offset - 1) as u64);
        if !table.is_empty() {
            let index = table.iter().position(|t| *t == entry.owner).map_or(0, |at| at + 1);
            put(&mut body, index as u64);
        }
        above = entry.offset;
    }
    put(&mut body, register.parked.len() as u64);
    let mut above = committed;
    for offset in register.parked.iter().rev() {
        put(&mut body, (above - offset - 1) as u64);
        above = *offset;
    }
    let check = check_of(&body, committed);
    body.extend_from_slice(&check.to_le_bytes());
    body
}

fn check_of(body: &[u8], committed: i64) -> u32 {
    // The low half of the hash is as good as any.
    xxh3_64_with_seed(body, committed as u64) as u32
}

fn decode_body(text: &str, committed: i64) -> Result<Register, &'static str> {
    if committed < 0 {
        return Err("no committed offset");
    }
    if text.len() > MAX_TEXT {
        return Err("too long");
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| "not base64url")?;
    let (body, check) = bytes.split_last_chunk::<CHECK>().ok_or("cut short")?;
    if u32::from_le_bytes(*check) != check_of(body, committed) {
        return Err("check failed");
    }
    let mut reader = Reader(body);
    let owner = Token(reader.word()?);
    let seq = reader.varint()?;
    let log_time_ms = unzigzag(reader.varint()?);
    let owners = reader.count()?;
    let table = (0..owners).map(|_| reader.word().map(Token)).collect::<Result<Vec<_>, _>>()?;
    let mut open = Vec::new();
    let mut above = committed;
    for _ in 0..reader.count()? {
        above = reader.below(above)?;
        let index = if table.is_empty() { 0 } else { reader.varint()? };
        open.push(OpenEntry { offset: above, owner: owner_at(owner, &table, index)? });
    }
    let mut parked = Vec::new();
    let mut above = committed;
    for _ in 0..reader.count()? {
        above = reader.below(above)?;
        parked.push(above);
    }
    open.reverse();
    parked.reverse();
    let register = Register { owner, seq, log_time_ms, open, parked };
    check_sets(&register, committed)?;
    // One text per register: longer varints, unused owners and bytes behind the end are not ours.
    if body_of(&register, committed) != bytes {
        return Err("not in canonical form");
    }
    Ok(register)
}

fn owner_at(own: Token, table: &[Token], index: u64) -> Result<Token, &'static str> {
    match usize::try_from(index).map_err(|_| "owner index out of range")? {
        0 => Ok(own),
        at => table.get(at - 1).copied().ok_or("owner index out of range"),
    }
}

/// Bounded reader: every step either shortens the rest or fails.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn word(&mut self) -> Result<u64, &'static str> {
        let (head, rest) = self.0.split_first_chunk::<8>().ok_or("cut short")?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*head))
    }

    fn varint(&mut self) -> Result<u64, &'static str> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or("cut short")?;
            self.0 = rest;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("number too long")
    }

    fn count(&mut self) -> Result<usize, &'static str> {
        let count = usize::try_from(self.varint()?).map_err(|_| "too many entries")?;
        if count > MAX_ENTRIES { Err("too many entries") } else { Ok(count) }
    }

    fn below(&mut self, above: i64) -> Result<i64, &'static str> {
        let distance = i64::try_from(self.varint()?).map_err(|_| "offset out of range")?;
        above
            .checked_sub(distance)
            .and_then(|o| o.checked_sub(1))
            .filter(|o| *o >= 0)
            .ok_or("offset out of range")
    }
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn varint_len(value: u64) -> usize {
    (64 - value.leading_zeros() as usize).max(1).div_ceil(7)
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
