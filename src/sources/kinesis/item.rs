//! What the protocol holds for one record: the decoded event or why it was rejected, and the bytes it holds. Must never
//! be shared between shards.

use super::protocol::Record;
use crate::{
    dispatch::dead_letter::Original,
    event::{Event, Lane, Position},
};
use std::sync::Arc;

/// A decoded record, or why it could not be decoded.
#[derive(Clone, Debug)]
pub enum Body {
    /// To be judged.
    Event(Arc<Event>),
    /// Ends as `rejected` with this reason when its turn comes.
    Rejected(Position, &'static str),
}

/// One record in the protocol's hands.
#[derive(Clone, Debug)]
pub struct Item {
    /// What it is.
    pub body: Body,
    /// For a dead letter; `None` where none are kept.
    pub original: Option<Arc<Original>>,
    /// Bytes it holds.
    pub weight: usize,
}

impl Item {
    /// The `event-id`, empty when the record was not decoded.
    pub fn id(&self) -> &str {
        match &self.body {
            Body::Event(event) => &event.attributes.id,
            Body::Rejected(..) => "",
        }
    }

    /// Where it stands.
    pub fn position(&self) -> &Position {
        match &self.body {
            Body::Event(event) => &event.position,
            Body::Rejected(position, _) => position,
        }
    }
}

impl Record for Item {
    fn lane(&self) -> Option<Lane> {
        match &self.body {
            Body::Event(event) => event.lane,
            Body::Rejected(..) => None,
        }
    }
}
