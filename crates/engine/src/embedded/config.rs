//! Settings and limits of the embedded engine.

use crate::error::{Error, Result};

/// Settings of the embedded engine. Every limit has a name here.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EmbeddedConfig {
    /// How long `Interval` writes wait for their sync, at most, in milliseconds.
    pub sync_interval_ms: u64,
    /// Most requests written together.
    pub group_max: usize,
    /// Most bytes of requests written together (one request always fits).
    pub group_bytes: usize,
    /// Most requests that wait for a writer.
    pub queue_max: usize,
    /// Most bytes of requests that wait for a writer (at least one largest batch).
    pub queue_bytes: usize,
    /// How long a request waits for its place in a full queue before it is answered with `limited`, in milliseconds.
    pub queue_wait_ms: u64,
    /// How long deletions are remembered for watchers that come back, in milliseconds.
    pub tombstone_retention_ms: u64,
    /// Most deletions remembered per bucket.
    pub tombstone_max: usize,
    /// Most buckets.
    pub bucket_max: usize,
    /// Most bytes of keys and values in one `Memory` bucket, remembered deletions included.
    pub memory_bucket_bytes: usize,
    /// Most bytes of recent changes kept per watched bucket; a watcher further behind reads from the store.
    pub watch_buffer_bytes: usize,
    /// Most messages that wait for one bus subscriber.
    pub bus_buffer: usize,
    /// Most bytes of messages that wait for one bus subscriber.
    pub bus_buffer_bytes: usize,
    /// Most bus subscriptions.
    pub bus_subscriptions_max: usize,
    /// Writes are refused while the file system has less free space than this, in bytes, so that the store never runs
    /// into a full disk. Deletions pass down to a quarter of it.
    pub min_free_bytes: u64,
    /// Memory for cached blocks of key-value batches, in bytes.
    pub kv_cache_bytes: u64,
    /// Memory for cached blocks of logs, in bytes.
    pub log_cache_bytes: u64,
    /// Memory for writes that are not yet in tables, in bytes; up to five times this at the worst.
    pub kv_memtable_bytes: u64,
    /// The same for logs.
    pub log_memtable_bytes: u64,
    /// Log bytes forgotten before their space is reclaimed by a compaction.
    pub reclaim_bytes: u64,
    /// How often the background work looks for something to do, in milliseconds.
    pub janitor_interval_ms: u64,
}

impl Default for EmbeddedConfig {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            sync_interval_ms: 50,
            group_max: 512,
            group_bytes: 16 * MIB,
            queue_max: 4096,
            queue_bytes: 64 * MIB,
            queue_wait_ms: 10_000,
            tombstone_retention_ms: 60 * 60 * 1000,
            tombstone_max: 100_000,
            bucket_max: 10_000,
            memory_bucket_bytes: 256 * MIB,
            watch_buffer_bytes: 4 * MIB,
            bus_buffer: 1024,
            bus_buffer_bytes: 4 * MIB,
            bus_subscriptions_max: 100_000,
            min_free_bytes: 256 * 1024 * 1024,
            kv_cache_bytes: 64 * 1024 * 1024,
            log_cache_bytes: 16 * 1024 * 1024,
            kv_memtable_bytes: 16 * 1024 * 1024,
            log_memtable_bytes: 32 * 1024 * 1024,
            reclaim_bytes: 256 * 1024 * 1024,
            janitor_interval_ms: 1000,
        }
    }
}

impl EmbeddedConfig {
    /// Refuses settings that cannot work. Errors with [`Error::Invalid`] naming the setting.
    pub fn validate(&self) -> Result<()> {
        let needs = [
            ("sync_interval_ms", self.sync_interval_ms, 1),
            ("group_max", self.group_max as u64, 1),
            ("group_bytes", self.group_bytes as u64, 1),
            ("queue_max", self.queue_max as u64, 1),
            ("queue_bytes", self.queue_bytes as u64, 2 * crate::kv::MAX_BATCH_BYTES as u64),
            ("bucket_max", self.bucket_max as u64, 1),
            ("bus_buffer", self.bus_buffer as u64, 1),
            ("kv_memtable_bytes", self.kv_memtable_bytes, 1024 * 1024),
            ("log_memtable_bytes", self.log_memtable_bytes, 1024 * 1024),
            ("janitor_interval_ms", self.janitor_interval_ms, 1),
        ];
        for (name, value, least) in needs {
            if value < least {
                return Err(Error::invalid(format!(
                    "the setting `{name}` is {value}, it must be at least {least}"
                )));
            }
        }
        // A semaphore cannot hold more permits than this; nobody means such a value.
        if self.queue_bytes > 64 * 1024 * 1024 * 1024 {
            return Err(Error::invalid("the setting `queue_bytes` must be at most 64 GiB"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        EmbeddedConfig::default().validate().expect("valid");
        let bad = EmbeddedConfig { queue_max: 0, ..EmbeddedConfig::default() };
        assert!(bad.validate().expect_err("invalid").to_string().contains("queue_max"));
    }

    #[test]
    fn reads_partial_settings() {
        let config: EmbeddedConfig = serde_json::from_str(r#"{"group_max": 7}"#).expect("config");
        assert_eq!(config.group_max, 7);
        assert_eq!(config.queue_max, EmbeddedConfig::default().queue_max);
        assert!(serde_json::from_str::<EmbeddedConfig>(r#"{"grop_max": 7}"#).is_err());
    }
}
