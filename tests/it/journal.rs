//! The journal: whole lines, bounded, readable after any crash.

use kubeless::ledger::{
    Outcome,
    journal::{Error, Journal, JournalConfig, Line, read_dir, segments},
};
use std::io::Write as _;

fn line(n: i64) -> Line {
    Line {
        ts: "2026-01-01T00:00:00.000000Z".into(),
        trigger: "ns/t".into(),
        uid: "u".into(),
        function: "ns/f".into(),
        id: format!("id-{n}"),
        stream: "topic".into(),
        shard: 3,
        sequence: n,
        coordinates: None,
        epoch: 1,
        time_ms: 17,
        outcome: Outcome::Delivered,
        status: Some(200),
        endpoint: None,
        sent_ms: 0,
        took_us: 5,
        reason: None,
        owner: "00ff".into(),
        count: 1,
    }
}

fn bytes(n: i64) -> Vec<u8> {
    let mut buffer = serde_json::to_vec(&line(n)).expect("plain fields");
    buffer.push(b'\n');
    buffer
}

#[test]
fn lines_come_back_in_order_over_segments_and_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig { max_bytes: 1 << 20, segment_bytes: 600 };
    for start in [0, 10] {
        let journal = Journal::open(dir.path(), config).unwrap();
        for n in start..start + 10 {
            journal.append(&bytes(n)).unwrap();
        }
    }
    let read: Vec<Line> = read_dir(dir.path()).unwrap().map(Result::unwrap).collect();
    assert_eq!(read, (0..20).map(line).collect::<Vec<_>>());
    assert!(segments(dir.path()).unwrap().len() > 4);
}

#[test]
fn the_oldest_segments_go_and_the_bound_holds() {
    let dir = tempfile::tempdir().unwrap();
    let config = JournalConfig { max_bytes: 3000, segment_bytes: 1000 };
    let journal = Journal::open(dir.path(), config).unwrap();
    for n in 0..200 {
        journal.append(&bytes(n)).unwrap();
    }
    let size: u64 =
        segments(dir.path()).unwrap().iter().map(|(_, p)| std::fs::metadata(p).unwrap().len()).sum();
    assert!(size <= 3000, "{size} bytes");
    let last = read_dir(dir.path()).unwrap().last().unwrap().unwrap();
    assert_eq!(last, line(199), "the newest stay");
}

#[test]
fn a_torn_last_line_is_left_out_and_a_broken_one_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = std::fs::File::create(dir.path().join("0000000000.jsonl")).unwrap();
    file.write_all(&bytes(1)).unwrap();
    file.write_all(b"{broken}\n").unwrap();
    file.write_all(&bytes(2)).unwrap();
    file.write_all(&bytes(3)[..20]).unwrap();
    let read: Vec<_> = read_dir(dir.path()).unwrap().collect();
    assert_eq!(read.len(), 3);
    assert_eq!(read[0].as_ref().unwrap(), &line(1));
    assert!(matches!(&read[1], Err(Error::Line { line: 2, .. })), "{:?}", read[1]);
    assert_eq!(read[2].as_ref().unwrap(), &line(2));
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_that_names_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = Journal::open(&file.path().join("journal"), JournalConfig::default()).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("journal") && text.contains("writable"), "{text}");
}
