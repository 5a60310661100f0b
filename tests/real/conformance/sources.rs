//! The list: one line for each source.

use super::{
    JetStream, Nats, Property, SingleCopy,
    cron::Cron,
    custom::Custom,
    http::Http,
    kafka::Kafka,
    kinesis::{Kinesis, Local, Moto},
    properties::hold,
};

/// One test a property.
macro_rules! conformance {
    ($module:ident, $source:ty) => {
        mod $module {
            use super::*;

            #[test]
            fn delivers_all_once() {
                hold::<$source>(Property::DeliversAllOnce);
            }
            #[test]
            fn a_graceful_stop_drains_what_runs() {
                hold::<$source>(Property::AGracefulStopDrains);
            }
            #[test]
            fn kill_nine_of_the_dispatcher_repeats_nothing() {
                hold::<$source>(Property::AKillRepeatsNothing);
            }
            #[test]
            fn a_server_that_goes_and_comes_repeats_nothing() {
                hold::<$source>(Property::AServerThatWasAwayRepeatsNothing);
            }
            #[test]
            fn poison_has_an_outcome_and_blocks_nothing() {
                hold::<$source>(Property::PoisonHasAnOutcome);
            }
            #[test]
            fn a_slow_function_bounds_memory() {
                hold::<$source>(Property::ASlowFunctionBoundsMemory);
            }
            #[test]
            fn a_trigger_is_paused_edited_and_deleted_while_it_runs() {
                hold::<$source>(Property::ATriggerIsPausedEditedAndDeleted);
            }
        }
    };
}

conformance!(kafka_keeps_the_rules, Kafka);
conformance!(nats_keeps_the_rules, Nats);
conformance!(jetstream_keeps_the_rules, JetStream);
conformance!(jetstream_on_one_server_keeps_the_rules, SingleCopy);
conformance!(kinesis_keeps_the_rules, Kinesis<Local>);
conformance!(kinesis_on_moto_keeps_the_rules, Kinesis<Moto>);
conformance!(cron_keeps_the_rules, Cron);
conformance!(http_keeps_the_rules, Http);
conformance!(custom_keeps_the_rules, Custom);
