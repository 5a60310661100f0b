//! Cost of the deduplication window: check and enter per id with a window of 10⁶ ids, and its memory.
//!
//! `cargo bench --bench claims`. The memory line is the growth of the resident set while 10⁶ ids enter.

use criterion::{Criterion, criterion_group, criterion_main};
use kubeless::claims::window::{Overlay, Window, WindowConfig};
use kubeless::event::BusinessId;
use std::hint::black_box;

/// Resident set in kB, 0 where `/proc` does not say.
fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn id(n: i64) -> BusinessId {
    BusinessId::of(&[b"/orders", &n.to_le_bytes()])
}

/// A window of 10⁶ ids spread evenly over its span.
fn full_window() -> Window {
    let window = Window::new(WindowConfig { max_entries: 100_000_000, ..WindowConfig::default() });
    let shard = window.shard(0);
    for n in 0..1_000_000 {
        shard.enter(id(n), n, n * 6 / 10);
    }
    window
}

fn claims(c: &mut Criterion) {
    let before = resident_kb();
    let window = full_window();
    println!("memory: {} ids in {} MB", window.len(), (resident_kb() - before) / 1000);
    let shard = window.shard(0);
    let mut n = 1_000_000_i64;
    c.bench_function("id: hash of two parts", |b| {
        b.iter(|| {
            n += 1;
            id(black_box(n))
        });
    });
    c.bench_function("check: fresh, 10^6 ids", |b| {
        b.iter(|| {
            n += 1;
            shard.check(id(black_box(n)), n, 600_000)
        });
    });
    c.bench_function("batch of 256: check, enter, grant (per batch)", |b| {
        b.iter(|| {
            let mut batch = Overlay::default();
            let mut time = 0;
            for _ in 0..256 {
                n += 1;
                time = shard.observe(n * 6 / 10);
                let id = id(n);
                black_box(batch.check(&shard, id, n, time));
                batch.enter(id, n, time);
            }
            batch.grant(&shard, time);
        });
    });
    println!("standing: {} ids in {} generations", shard.len(), shard.generations());
}

criterion_group!(benches, claims);
criterion_main!(benches);
