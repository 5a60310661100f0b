//! The suite can see: for each property one seeded bug, switched on in the real binary, with which a source fails it, for the
//! reason that the table names. Must never take another failure for that one.

use super::{Nats, Property, SingleCopy, Source, cron::Cron, properties::hold};
use std::{marker::PhantomData, ops::Range, panic, path::Path, time::Duration};

/// A bug of `src/testkit.rs`.
trait Bug {
    const NAME: &'static str;
}

/// A source that is broken on purpose.
struct Broken<S, B> {
    source: S,
    bug: PhantomData<B>,
}

impl<S: Source, B: Bug> Source for Broken<S, B> {
    const CLAIMS_BY_DELIVERY: bool = S::CLAIMS_BY_DELIVERY;
    const FLOOD: usize = S::FLOOD;
    const HOLDS: usize = S::HOLDS;
    const KEEPS: bool = S::KEEPS;
    const KEEPS_WHILE_PAUSED: bool = S::KEEPS_WHILE_PAUSED;
    const KIND: &'static str = S::KIND;
    // What the bug withholds never comes.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn shared() -> Self {
        Self { source: S::shared(), bug: PhantomData }
    }

    fn alone() -> Self {
        Self { source: S::alone(), bug: PhantomData }
    }

    fn spec(&self) -> String {
        self.source.spec()
    }

    fn arguments(&self) -> Vec<String> {
        self.source.arguments()
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let mut environment = self.source.environment();
        environment.push(("KUBELESS_BUG", B::NAME.to_owned()));
        environment
    }

    fn state(&self) -> Option<&Path> {
        self.source.state()
    }

    fn is_offer(line: &serde_json::Value) -> bool {
        S::is_offer(line)
    }

    fn publish(&mut self, numbers: Range<usize>, padding: usize) {
        self.source.publish(numbers, padding);
    }

    fn id(&self, number: usize) -> String {
        self.source.id(number)
    }

    fn poison(&mut self) {
        self.source.poison();
    }

    fn kill_server(&mut self) {
        self.source.kill_server();
    }

    fn restart_server(&mut self) {
        self.source.restart_server();
    }

    fn resumed(&self) {
        self.source.resumed();
    }
}

/// A server that is killed does not deliver again each time: a bug that needs it has that many chances.
const ATTEMPTS: usize = 6;

/// The property fails for this source, and `said` stands in the words with which it does.
fn fails<S: Source>(property: Property, said: &str) {
    let failed = (0..ATTEMPTS).find_map(|_| panic::catch_unwind(|| hold::<S>(property)).err());
    let Some(panic) = failed else { panic!("{property:?} does not see the bug") };
    let words = panic.downcast_ref::<String>().map_or("", String::as_str);
    assert!(words.contains(said), "{property:?} fails for another reason: {words}");
}

/// Name of the test: source, property, bug, what the property says of it.
macro_rules! seen {
    ($($name:ident: $source:ty, $property:ident, $bug:literal, $said:literal;)*) => {
        $(
            #[test]
            fn $name() {
                struct Seeded;
                impl Bug for Seeded {
                    const NAME: &'static str = $bug;
                }
                fails::<Broken<$source, Seeded>>(Property::$property, $said);
            }
        )*

        #[test]
        fn every_property_has_a_bug_that_it_sees() {
            let seen = [$(Property::$property),*];
            let blind: Vec<_> = Property::ALL.into_iter().filter(|one| !seen.contains(one)).collect();
            assert!(blind.is_empty(), "no bug shows that these can fail: {blind:?}");
        }
    };
}

seen! {
    a_call_made_twice_is_seen: Nats, DeliversAllOnce, "called_twice", "2000 events were called twice";
    a_stop_that_does_not_wait_is_seen: Nats, AGracefulStopDrains, "no_drain", "\"missed\"";
    a_claim_that_is_not_durable_is_seen: Cron, AKillRepeatsNothing, "claims_in_memory", "events were called twice";
    a_delivery_made_again_that_is_believed_is_seen: SingleCopy, AServerThatWasAwayRepeatsNothing, "reserved_is_called", "events were called twice";
    a_gap_that_is_not_told_is_seen: Nats, AServerThatWasAwayRepeatsNothing, "gap_untold", "without a connection is told";
    poison_that_is_booked_as_delivered_is_seen: Nats, PoisonHasAnOutcome, "poison_is_delivered", "\"delivered\": 33";
    a_buffer_without_a_bound_is_seen: Nats, ASlowFunctionBoundsMemory, "boundless", "bytes of events are held";
    an_edit_that_is_not_heard_is_seen: Nats, ATriggerIsPausedEditedAndDeleted, "deaf_to_edits", "it is paused";
}
