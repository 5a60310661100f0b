//! The status of triggers: what every replica knows, summed up by the one that is elected, written through the status
//! subresource. Must never change anything else of an object, nor hold up an event.
//!
//! Each replica serves its own partitions and counts for itself. The elected one asks the others for the page that they
//! show to people, and says how many did not answer (`docs/decisions/0014-one-writer-of-statuses.md`).

pub mod board;
pub mod change;
pub mod facts;
pub mod peers;
pub mod report;
pub mod writer;
