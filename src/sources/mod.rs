//! Sources: one folder each, one line in the list below.

pub mod kafka;
