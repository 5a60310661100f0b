//! Sources: one folder each, one line in the list below.

pub mod kafka;

/// Trigger kinds of all sources: their definitions and how their objects are read.
pub const KINDS: &[crate::api::kind::TriggerKind] = &[kafka::spec::KIND];
