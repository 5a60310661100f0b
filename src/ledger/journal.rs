//! The local journal of outcomes: JSON lines in numbered segments, bounded in bytes, written with one `write` per
//! batch. An outcome is durable against the death of the process once `append` returned. Must never hold a payload.

use super::Outcome;
use serde::{Deserialize, Serialize};
use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::Mutex,
};

/// How one event ended. Keyed by (trigger uid, function, stream, shard, sequence, coordinates), and by epoch and time_ms where both
/// lines know them: any own outcome of the claimer supersedes an `in_doubt` of a successor for the same key (rule N6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// When it ended, RFC 3339 UTC.
    pub ts: String,
    /// Trigger, `namespace/name`.
    pub trigger: String,
    /// The trigger's uid: one made anew under the same name is another series.
    #[serde(default)]
    pub uid: String,
    /// Function, `namespace/name`.
    pub function: String,
    /// The `event-id` that the function saw; empty when the record was never decoded.
    pub id: String,
    /// Topic or stream.
    pub stream: String,
    /// Partition or shard.
    pub shard: i32,
    /// Offset or sequence.
    pub sequence: i64,
    /// Shard and sequence as the source writes them, where numbers cannot hold them; both numbers are -1 then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub coordinates: Option<String>,
    /// Leader epoch, -1 when unknown.
    pub epoch: i32,
    /// Record timestamp in ms, -1 when unknown.
    pub time_ms: i64,
    /// How it ended.
    pub outcome: Outcome,
    /// HTTP status of a complete answer.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status: Option<u16>,
    /// Endpoint of the call.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub endpoint: Option<String>,
    /// When the request was handed to the connection (Unix ms), 0 if never.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub sent_ms: i64,
    /// Duration of the call in microseconds.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub took_us: i64,
    /// Why, where the outcome alone does not say it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Owner token of who claimed it, hexadecimal; new for every start of a subscription.
    pub owner: String,
    /// Events this line stands for (a range that the source dropped); 1 otherwise.
    #[serde(skip_serializing_if = "is_one", default = "one")]
    pub count: u64,
}

impl Line {
    /// Where the event stood, for people.
    pub fn position(&self) -> String {
        match &self.coordinates {
            Some(coordinates) => format!("{}/{coordinates}", self.stream),
            None => format!("{}/{}/{}", self.stream, self.shard, self.sequence),
        }
    }
}

// serde's predicates take references.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(n: &i64) -> bool {
    *n == 0
}
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_one(n: &u64) -> bool {
    *n == 1
}
fn one() -> u64 {
    1
}

/// Bounds of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalConfig {
    /// Bytes over all segments. Default 256 MiB.
    pub max_bytes: u64,
    /// Bytes of one segment. Default 16 MiB.
    pub segment_bytes: u64,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self { max_bytes: 256 << 20, segment_bytes: 16 << 20 }
    }
}

/// Why the journal cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("journal {path}: {source}; check that the state folder exists, is writable and has space left")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line is not a journal line.
    #[error("journal {path}:{line}: not a journal line: {what}")]
    Line {
        /// The segment.
        path: PathBuf,
        /// Line number from 1.
        line: usize,
        /// Parser message.
        what: String,
    },
}

#[derive(Debug)]
struct Segment {
    number: u64,
    file: File,
    bytes: u64,
}

/// Appends outcome lines. Shared by all subscriptions of a process; one lock per batch, not per event.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    config: JournalConfig,
    segment: Mutex<Segment>,
}

impl Journal {
    /// Opens `dir` (made if missing) and starts a new segment after the highest one.
    ///
    /// # Errors
    /// The folder cannot be made, listed or written.
    pub fn open(dir: &Path, config: JournalConfig) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).map_err(|e| io(dir, e))?;
        let number = segments(dir)?.last().map_or(0, |(n, _)| n + 1);
        let segment = next_segment(dir, number)?;
        let number = segment.number;
        let journal = Self { dir: dir.to_owned(), config, segment: Mutex::new(segment) };
        journal.remove_old(number)?;
        Ok(journal)
    }

    /// Writes whole lines with one `write` (they survive the death of this process from here on) and removes the
    /// oldest segments beyond the bound.
    ///
    /// # Errors
    /// The disk is full or broken. Nothing may be treated as recorded then.
    pub fn append(&self, lines: &[u8]) -> Result<(), Error> {
        if lines.is_empty() {
            return Ok(());
        }
        let mut segment = self.segment.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if segment.bytes > 0 && segment.bytes + lines.len() as u64 > self.config.segment_bytes {
            *segment = next_segment(&self.dir, segment.number + 1)?;
            self.remove_old(segment.number)?;
        }
        if let Err(error) = segment.file.write_all(lines) {
            // Part of it may stand there: the next attempt must not be glued to a torn line.
            let _ = segment.file.set_len(segment.bytes);
            return Err(io(&self.dir, error));
        }
        segment.bytes += lines.len() as u64;
        Ok(())
    }

    fn remove_old(&self, current: u64) -> Result<(), Error> {
        // By size, not by number: each start of the process begins a segment, however short the one before.
        let mut left = self.config.max_bytes.saturating_sub(self.config.segment_bytes);
        for (_, path) in segments(&self.dir)?.into_iter().rev().filter(|(n, _)| *n != current) {
            let size = std::fs::metadata(&path).map_or(0, |m| m.len());
            if size > left {
                left = 0;
                std::fs::remove_file(&path).map_err(|e| io(&path, e))?;
            } else {
                left -= size;
            }
        }
        Ok(())
    }
}

/// Segments of `dir`, oldest first.
///
/// # Errors
/// The folder cannot be listed.
pub fn segments(dir: &Path) -> Result<Vec<(u64, PathBuf)>, Error> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| io(dir, e))? {
        let path = entry.map_err(|e| io(dir, e))?.path();
        let number = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".jsonl"));
        if let Some(number) = number.and_then(|n| n.parse().ok()) {
            found.push((number, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Reads all lines of a journal, oldest first. A last line without its newline (a write in progress, or one torn by
/// a crash) is left out; any other bad line is an error in its place and the rest goes on.
///
/// # Errors
/// The folder cannot be listed.
pub fn read_dir(dir: &Path) -> Result<impl Iterator<Item = Result<Line, Error>>, Error> {
    Ok(segments(dir)?.into_iter().flat_map(|(_, path)| read_segment(path)))
}

fn read_segment(path: PathBuf) -> Box<dyn Iterator<Item = Result<Line, Error>>> {
    let file = match File::open(&path) {
        Ok(file) => file,
        // Removed by rotation between the listing and now.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Box::new(std::iter::empty()),
        Err(e) => return Box::new(std::iter::once(Err(io(&path, e)))),
    };
    let mut reader = BufReader::new(file);
    let mut number = 0;
    Box::new(std::iter::from_fn(move || {
        let mut text = Vec::new();
        match reader.read_until(b'\n', &mut text) {
            Ok(0) => None,
            Ok(_) if text.last() != Some(&b'\n') => None,
            Ok(_) => {
                number += 1;
                Some(serde_json::from_slice(&text).map_err(|e| Error::Line {
                    path: path.clone(),
                    line: number,
                    what: e.to_string(),
                }))
            }
            Err(e) => Some(Err(io(&path, e))),
        }
    }))
}

/// The first segment from `number` on that is not there yet: another process may write into the same folder.
fn next_segment(dir: &Path, mut number: u64) -> Result<Segment, Error> {
    loop {
        match create(dir, number) {
            Ok(file) => return Ok(Segment { number, file, bytes: 0 }),
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::AlreadyExists => {
                number += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

fn create(dir: &Path, number: u64) -> Result<File, Error> {
    let path = dir.join(format!("{number:010}.jsonl"));
    OpenOptions::new().create_new(true).append(true).open(&path).map_err(|e| io(&path, e))
}

fn io(path: &Path, source: std::io::Error) -> Error {
    Error::Io { path: path.to_owned(), source }
}
