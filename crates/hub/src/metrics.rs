//! What the hub counts, in Prometheus' text format.
//!
//! Every hub has its own recorder, so that two hubs in one process (as in tests) do not mix their numbers.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use datacentered_proto::operations::OPERATIONS;
use datacentered_proto::{Code, JobState, Served};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder as _, Unit};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::hub::Hub;
use crate::status::resident_bytes;

const METADATA: Metadata<'static> = Metadata::new("datacentered_hub", Level::INFO, None);

/// Upper bounds of the buckets of latencies, in seconds.
const SECONDS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How often latencies are gathered into their buckets.
const UPKEEP: Duration = Duration::from_secs(5);

/// Which door a connection came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// TLS, ALPN `datacentered/1`.
    Agent,
    /// TLS, anything else.
    Web,
    /// Without TLS, loopback only.
    Plain,
    /// The local socket.
    Local,
}

impl Door {
    const ALL: [Self; 4] = [Self::Agent, Self::Web, Self::Plain, Self::Local];

    fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Web => "web",
            Self::Plain => "plain",
            Self::Local => "local",
        }
    }
}

/// Why a connection was turned away before it could ask for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TurnedAway {
    /// Too many of its address have not proved who they are.
    Address,
    /// Too many have not, altogether.
    Unauthenticated,
    /// The TLS handshake failed or took too long.
    Handshake,
    /// Another user than the hub's on the local socket.
    LocalUser,
}

impl TurnedAway {
    const ALL: [Self; 4] = [Self::Address, Self::Unauthenticated, Self::Handshake, Self::LocalUser];

    fn as_str(self) -> &'static str {
        match self {
            Self::Address => "address_limit",
            Self::Unauthenticated => "unauthenticated_limit",
            Self::Handshake => "handshake",
            Self::LocalUser => "local_user",
        }
    }
}

struct Calls {
    results: [OnceLock<Counter>; Code::ALL.len() + 1],
    seconds: Histogram,
}

/// The counters of one hub.
pub struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    calls: HashMap<&'static str, Calls>,
    links: Gauge,
    links_total: Counter,
    connections: [Gauge; 4],
    connections_total: [Counter; 4],
    turned_away: [Counter; 4],
    logins_refused: Counter,
    credentials_refused: Counter,
    http_streams: Gauge,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn key(name: &'static str, labels: &[(&'static str, &'static str)]) -> Key {
    Key::from_parts(name, labels.iter().map(|(name, value)| Label::new(*name, *value)).collect::<Vec<_>>())
}

/// Every name and what it counts.
const COUNTERS: &[(&str, &str)] = &[
    ("datacentered_calls_total", "Calls of operations by their result."),
    ("datacentered_links_total", "Links opened."),
    ("datacentered_connections_total", "Connections accepted, by door."),
    ("datacentered_connections_turned_away_total", "Connections that were turned away, by reason."),
    ("datacentered_logins_refused_total", "Logins that failed or were over the limit."),
    ("datacentered_credentials_refused_total", "Tokens that were refused."),
    ("datacentered_jobs_ended_total", "Jobs that have ended, by outcome."),
    ("datacentered_engine_commits_total", "Batches committed."),
    ("datacentered_engine_conflicts_total", "Batches refused because a check failed."),
    ("datacentered_engine_log_items_total", "Items appended to logs."),
    ("datacentered_engine_syncs_total", "Syncs to disk."),
    ("datacentered_engine_bytes_total", "Bytes handed to the store."),
    ("datacentered_engine_bus_dropped_total", "Messages dropped because a subscriber was too slow."),
];

const GAUGES: &[(&str, &str)] = &[
    ("datacentered_build_info", "Always 1; the version is a label."),
    ("datacentered_links", "Open links."),
    ("datacentered_connections", "Open connections, by door."),
    ("datacentered_http_streams", "Open streams over HTTP."),
    ("datacentered_clients", "Sessions of people and programs."),
    ("datacentered_hosts", "Hosts in the registry, by whether they are online."),
    ("datacentered_runs_active", "Runs that have not ended."),
    ("datacentered_jobs", "Jobs that have not ended, by state."),
    ("datacentered_tokens", "Tokens, ended ones that are still listed included."),
    ("datacentered_users", "Accounts."),
    ("process_resident_memory_bytes", "Resident memory."),
    ("process_start_time_seconds", "When the hub was started, in seconds since the Unix epoch."),
];

const CALL_SECONDS: &str = "datacentered_call_seconds";

impl Metrics {
    /// Nothing has been counted yet.
    pub(crate) fn new() -> Self {
        let builder = match PrometheusBuilder::new().set_buckets(SECONDS) {
            Ok(builder) => builder,
            // Only an empty list is refused.
            Err(_) => PrometheusBuilder::new(),
        };
        let recorder = builder.build_recorder();
        for (name, help) in COUNTERS {
            recorder.describe_counter(KeyName::from_const_str(name), None, (*help).into());
        }
        for (name, help) in GAUGES {
            recorder.describe_gauge(KeyName::from_const_str(name), None, (*help).into());
        }
        recorder.describe_histogram(
            KeyName::from_const_str(CALL_SECONDS),
            Some(Unit::Seconds),
            "How long calls took.".into(),
        );
        let counter = |name, labels: &[_]| recorder.register_counter(&key(name, labels), &METADATA);
        let gauge = |name, labels: &[_]| recorder.register_gauge(&key(name, labels), &METADATA);
        let served = OPERATIONS.iter().filter(|spec| spec.served == Served::Hub);
        let calls = served
            .map(|spec| {
                let labels = key(CALL_SECONDS, &[("operation", spec.name)]);
                let seconds = recorder.register_histogram(&labels, &METADATA);
                (spec.name, Calls { results: std::array::from_fn(|_| OnceLock::new()), seconds })
            })
            .collect();
        gauge("datacentered_build_info", &[("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
        Self {
            calls,
            links: gauge("datacentered_links", &[]),
            links_total: counter("datacentered_links_total", &[]),
            connections: Door::ALL.map(|door| gauge("datacentered_connections", &[("door", door.as_str())])),
            connections_total: Door::ALL
                .map(|door| counter("datacentered_connections_total", &[("door", door.as_str())])),
            turned_away: TurnedAway::ALL.map(|why| {
                counter("datacentered_connections_turned_away_total", &[("reason", why.as_str())])
            }),
            logins_refused: counter("datacentered_logins_refused_total", &[]),
            credentials_refused: counter("datacentered_credentials_refused_total", &[]),
            http_streams: gauge("datacentered_http_streams", &[]),
            handle: recorder.handle(),
            recorder,
        }
    }

    /// A call of an operation has been answered; `error` is its code where it failed.
    pub(crate) fn call(&self, operation: &str, error: Option<Code>, took: Duration) {
        let Some((name, calls)) = self.calls.get_key_value(operation) else { return };
        calls.seconds.record(took.as_secs_f64());
        let (index, result) = match error {
            None => (0, "ok"),
            Some(code) => {
                (1 + Code::ALL.iter().position(|other| *other == code).unwrap_or_default(), code.as_str())
            }
        };
        let counter = calls.results[index].get_or_init(|| {
            let labels = [("operation", *name), ("result", result)];
            self.recorder.register_counter(&key("datacentered_calls_total", &labels), &METADATA)
        });
        counter.increment(1);
    }

    /// A link was opened.
    pub(crate) fn link_opened(&self) {
        self.links.increment(1.0);
        self.links_total.increment(1);
    }

    /// A link has ended.
    pub(crate) fn link_closed(&self) {
        self.links.decrement(1.0);
    }

    /// A job has ended with this kind of outcome.
    pub(crate) fn job_ended(&self, outcome: &'static str) {
        let labels = [("outcome", outcome)];
        self.recorder
            .register_counter(&key("datacentered_jobs_ended_total", &labels), &METADATA)
            .increment(1);
    }

    /// A login failed, or was over the limit.
    pub(crate) fn login_refused(&self) {
        self.logins_refused.increment(1);
    }

    /// A token was refused.
    pub(crate) fn credential_refused(&self) {
        self.credentials_refused.increment(1);
    }

    /// A connection was turned away.
    pub(crate) fn turned_away(&self, why: TurnedAway) {
        self.turned_away[why as usize].increment(1);
    }

    /// A connection was accepted; it counts until the guard is dropped.
    pub(crate) fn connection(&self, door: Door) -> Counted {
        self.connections_total[door as usize].increment(1);
        Counted::new(self.connections[door as usize].clone())
    }

    /// A stream over HTTP was opened; it counts until the guard is dropped.
    pub(crate) fn http_stream(&self) -> Counted {
        Counted::new(self.http_streams.clone())
    }

    fn set(&self, name: &'static str, labels: &[(&'static str, &'static str)], value: f64) {
        self.recorder.register_gauge(&key(name, labels), &METADATA).set(value);
    }

    fn absolute(&self, name: &'static str, labels: &[(&'static str, &'static str)], value: u64) {
        self.recorder.register_counter(&key(name, labels), &METADATA).absolute(value);
    }

    /// Everything as text.
    pub(crate) fn render(&self, hub: &Hub) -> String {
        let mut jobs = [0_u32; 5];
        let (hosts, online, runs, tokens, users) = hub.store.view(|view| {
            for job in view.open_jobs.values().flatten().filter_map(|id| view.jobs.get(id)) {
                jobs[job.state as usize] += 1;
            }
            let online = view.presence.values().filter(|presence| presence.online).count();
            (view.hosts.len(), online, view.active_runs.len(), view.tokens.len(), view.users.len())
        });
        self.set("datacentered_hosts", &[("state", "online")], online as f64);
        self.set("datacentered_hosts", &[("state", "offline")], hosts.saturating_sub(online) as f64);
        self.set("datacentered_runs_active", &[], runs as f64);
        for state in [JobState::Queued, JobState::Offered, JobState::Accepted, JobState::Running] {
            self.set("datacentered_jobs", &[("state", state.as_str())], f64::from(jobs[state as usize]));
        }
        self.set("datacentered_tokens", &[], tokens as f64);
        self.set("datacentered_users", &[], users as f64);
        self.set("datacentered_clients", &[], hub.sessions.clients() as f64);
        self.set("process_resident_memory_bytes", &[], resident_bytes() as f64);
        self.set("process_start_time_seconds", &[], hub.started.as_millis() as f64 / 1000.0);
        let engine = hub.engine.stats();
        self.absolute("datacentered_engine_commits_total", &[], engine.kv_commits);
        self.absolute("datacentered_engine_conflicts_total", &[], engine.kv_conflicts);
        self.absolute("datacentered_engine_log_items_total", &[], engine.log_items);
        self.absolute("datacentered_engine_syncs_total", &[("store", "kv")], engine.kv_syncs);
        self.absolute("datacentered_engine_syncs_total", &[("store", "log")], engine.log_syncs);
        self.absolute("datacentered_engine_bytes_total", &[("store", "kv")], engine.kv_bytes);
        self.absolute("datacentered_engine_bytes_total", &[("store", "log")], engine.log_bytes);
        self.absolute("datacentered_engine_bus_dropped_total", &[], engine.bus_dropped);
        self.handle.render()
    }
}

/// Something that counts for as long as it lives.
pub(crate) struct Counted(Gauge);

impl Counted {
    fn new(gauge: Gauge) -> Self {
        gauge.increment(1.0);
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}

impl std::fmt::Debug for Counted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Counted")
    }
}

/// Gathers latencies into their buckets until the hub stops; between two scrapes they would pile up.
pub(crate) async fn upkeep(hub: Arc<Hub>) {
    loop {
        tokio::select! {
            () = hub.stop.cancelled() => return,
            () = tokio::time::sleep(UPKEEP) => hub.metrics.handle.run_upkeep(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hubs_in_one_process_count_apart() {
        let (one, other) = (Metrics::new(), Metrics::new());
        one.call("host.list", None, Duration::from_millis(3));
        one.call("host.list", Some(Code::Forbidden), Duration::from_millis(3));
        one.call("no.such", None, Duration::ZERO);
        let kept = one.connection(Door::Web);
        drop(one.connection(Door::Web));
        let text = one.handle.render();
        for line in [
            r#"datacentered_calls_total{operation="host.list",result="ok"} 1"#,
            r#"datacentered_calls_total{operation="host.list",result="forbidden"} 1"#,
            r#"datacentered_call_seconds_bucket{operation="host.list",le="0.005"} 2"#,
            r#"datacentered_connections{door="web"} 1"#,
            r#"datacentered_connections_total{door="web"} 2"#,
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
        assert!(!text.contains("no.such"));
        assert!(!other.handle.render().contains("host.list\",result"));
        drop(kept);
    }
}
