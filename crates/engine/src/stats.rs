//! Counters of what the engine did since it was opened.

/// Monotonic counters; take two and subtract.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Stats {
    /// Batches committed with at least one write.
    pub kv_commits: u64,
    /// Batches refused because a check failed.
    pub kv_conflicts: u64,
    /// Values written.
    pub kv_puts: u64,
    /// Keys deleted.
    pub kv_deletes: u64,
    /// Deletions forgotten because they were older than the retention.
    pub kv_tombstones_expired: u64,
    /// Groups of requests written together, of key-value batches.
    pub kv_groups: u64,
    /// Requests in those groups: `kv_grouped / kv_groups` is the mean group.
    pub kv_grouped: u64,
    /// Appends that stored at least one item.
    pub log_appends: u64,
    /// Items stored.
    pub log_items: u64,
    /// Items recognised as repeats and skipped.
    pub log_repeats: u64,
    /// Groups of requests written together, of logs.
    pub log_groups: u64,
    /// Requests in those groups.
    pub log_grouped: u64,
    /// Bytes of keys and values handed to the store, of key-value batches.
    pub kv_bytes: u64,
    /// Bytes of keys and values handed to the store, of logs.
    pub log_bytes: u64,
    /// Syncs to disk of key-value batches (those that the store makes on its own are not counted).
    pub kv_syncs: u64,
    /// Syncs to disk of logs.
    pub log_syncs: u64,
    /// Time spent in those commits that synced, in nanoseconds.
    pub sync_ns: u64,
    /// Watch batches that had to be read from the store because the watcher was new or slow.
    pub watch_catch_ups: u64,
    /// Messages published on the bus.
    pub bus_published: u64,
    /// Messages handed to subscribers.
    pub bus_delivered: u64,
    /// Messages dropped because a subscriber was too slow.
    pub bus_dropped: u64,
}
