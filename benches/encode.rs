//! Cost of one event: record to event, event to request headers.

fn main() {}
