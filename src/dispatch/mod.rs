//! Claim → call → outcome, batch by batch: the only room that sees claims, router and invoker together. A source
//! hands decoded events to its [`Subscription`] and writes the claim when asked. Must never start a call that was
//! not claimed, and never let an event go without an outcome.

pub mod backoff;
pub mod dead_letter;
pub mod flow;
pub mod judge;
pub mod lanes;
pub mod pace;
pub mod recorder;
pub mod settings;
pub mod subscription;
pub mod worker;

// What a source needs of the rooms below, through this one door.
pub use crate::claims::{
    Answer, Claimed,
    lease::StartLease,
    store,
    window::{Window, WindowConfig},
};
pub use crate::router::{
    Router,
    table::{Route, SubscriptionKey},
};
pub use flow::{Ended, Flow, FlowParts, InFlight};
pub use judge::{Judgement, Judging, Reason};
pub use settings::Settings;
pub use subscription::{Subscription, SubscriptionParts};
pub use worker::{Done, DoneSender, Workers};
