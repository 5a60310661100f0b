//! Follows the dispatcher's journal while it is written. Must never print a line twice or half a line.

use crate::ledger::journal::{self, Line};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom},
    path::PathBuf,
};

/// Lines read in one go, so that a flood of events does not starve the rest of local mode.
const BATCH: usize = 1000;

/// Where reading stands in each segment.
#[derive(Debug)]
pub struct Tail {
    folder: PathBuf,
    read: BTreeMap<u64, u64>,
}

impl Tail {
    /// Starts behind everything that is there now.
    pub fn from_end(folder: PathBuf) -> Self {
        let mut read = BTreeMap::new();
        for (number, path) in journal::segments(&folder).unwrap_or_default() {
            read.insert(number, path.metadata().map_or(0, |data| data.len()));
        }
        Self { folder, read }
    }

    /// Whole lines written since the last call, oldest first, at most a thousand. A folder or segment that is not
    /// there (not yet, not any more) has no lines.
    pub fn poll(&mut self) -> Vec<Line> {
        let mut lines = Vec::new();
        for (number, path) in journal::segments(&self.folder).unwrap_or_default() {
            let offset = self.read.entry(number).or_default();
            if path.metadata().is_ok_and(|data| data.len() == *offset) {
                continue;
            }
            let Ok(mut file) = File::open(&path) else { continue };
            if file.seek(SeekFrom::Start(*offset)).is_err() {
                continue;
            }
            let mut reader = BufReader::new(file);
            let mut text = Vec::new();
            while lines.len() < BATCH && reader.read_until(b'\n', &mut text).is_ok() && text.ends_with(b"\n")
            {
                *offset += text.len() as u64;
                lines.extend(serde_json::from_slice::<Line>(&text));
                text.clear();
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn whole_new_lines_once() {
        let folder = tempfile::tempdir().unwrap();
        let line = |id: &str| {
            format!(
                r#"{{"ts":"2026-01-01T00:00:00Z","trigger":"a/b","function":"a/c","id":"{id}","stream":"t","shard":0,"sequence":1,"epoch":0,"time_ms":1,"outcome":"delivered","owner":"00"}}"#
            )
        };
        let path = folder.path().join("0000000000.jsonl");
        std::fs::write(&path, format!("{}\n", line("old"))).unwrap();
        let mut tail = Tail::from_end(folder.path().to_owned());
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        let new = line("new");
        let (start, end) = new.split_at(20);
        file.write_all(start.as_bytes()).unwrap();
        assert!(tail.poll().is_empty());
        file.write_all(format!("{end}\n").as_bytes()).unwrap();
        std::fs::write(folder.path().join("0000000001.jsonl"), format!("{}\n", line("next"))).unwrap();
        let ids: Vec<String> = tail.poll().into_iter().map(|line| line.id).collect();
        assert_eq!(ids, ["new", "next"]);
        assert!(tail.poll().is_empty());
    }
}
