//! The list: one line for each source.

use super::{JetStream, Nats, kafka::Kafka, properties};

/// One test a property.
macro_rules! conformance {
    ($module:ident, $source:ty) => {
        mod $module {
            use super::*;

            #[test]
            fn delivers_all_once() {
                properties::delivers_all_once::<$source>();
            }
            #[test]
            fn a_graceful_stop_drains_what_runs() {
                properties::a_graceful_stop_drains_what_runs::<$source>();
            }
            #[test]
            fn kill_nine_of_the_dispatcher_repeats_nothing() {
                properties::kill_nine_of_the_dispatcher_repeats_nothing::<$source>();
            }
            #[test]
            fn a_server_that_goes_and_comes_repeats_nothing() {
                properties::a_server_that_goes_and_comes_repeats_nothing::<$source>();
            }
            #[test]
            fn poison_has_an_outcome_and_blocks_nothing() {
                properties::poison_has_an_outcome_and_blocks_nothing::<$source>();
            }
            #[test]
            fn a_slow_function_bounds_memory() {
                properties::a_slow_function_bounds_memory::<$source>();
            }
            #[test]
            fn a_trigger_is_paused_edited_and_deleted_while_it_runs() {
                properties::a_trigger_is_paused_edited_and_deleted_while_it_runs::<$source>();
            }
        }
    };
}

conformance!(kafka_keeps_the_rules, Kafka);
conformance!(nats_keeps_the_rules, Nats);
conformance!(jetstream_keeps_the_rules, JetStream);
