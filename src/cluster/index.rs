//! [`Index`]: the one way objects reach a cache, whether from a cluster or from a folder. Must never fail: an
//! object that makes no sense was refused before it gets here.

/// A pure state built from objects of one kind. Applying the same object twice changes nothing.
pub trait Index<T> {
    /// What tells two objects of this kind apart.
    type Key;
    /// Adds the object, or replaces the one of the same key.
    fn apply(&mut self, object: T);
    /// Removes the object; unknown ones are no error.
    fn delete(&mut self, key: &Self::Key);
    /// Replaces everything of this kind: what is not in `objects` is gone. Readers see one change.
    fn reset(&mut self, objects: Vec<T>);
}
