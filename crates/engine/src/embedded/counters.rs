//! The live side of [`crate::Stats`].

use std::sync::atomic::AtomicU64;

macro_rules! counters {
    ($($name:ident),* $(,)?) => {
        /// Counters that the parts of the engine raise.
        #[derive(Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: AtomicU64,)*
        }

        impl Counters {
            /// Copies the counters into `stats`.
            pub(crate) fn fill(&self, stats: &mut crate::Stats) {
                $(stats.$name = self.$name.load(std::sync::atomic::Ordering::Relaxed);)*
            }
        }
    };
}

counters!(
    kv_commits,
    kv_conflicts,
    kv_puts,
    kv_deletes,
    kv_tombstones_expired,
    kv_groups,
    kv_grouped,
    log_appends,
    log_items,
    log_repeats,
    log_groups,
    log_grouped,
    watch_catch_ups,
    bus_published,
    bus_delivered,
    bus_dropped,
);
