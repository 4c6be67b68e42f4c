//! The named limits.

use datacentered_proto::limits::MAX_MESSAGE;
use datacentered_proto::ops::job::ExecSpec;
use serde::{Deserialize, Serialize};

/// A setting's name, its value, and between what it must be.
pub(super) type Range = (&'static str, u64, u64, u64);

const MINUTE_MS: u64 = 60 * 1000;
const DAY_MS: u64 = 24 * 60 * MINUTE_MS;

/// Limits of everything that a peer could use up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Most network connections.
    pub connections: usize,
    /// Most connections to the local socket. They are counted apart, so that the administrator always gets in.
    pub local_connections: usize,
    /// Most network connections that have not proved who they are, together.
    pub connections_unauthenticated: usize,
    /// Most connections of one address (IPv6: one /64) that have not proved who they are. A thousand agents behind one
    /// address that all come back at once must fit.
    pub connections_per_address_unauthenticated: usize,
    /// Longest TLS handshake, in milliseconds.
    pub handshake_timeout_ms: u64,
    /// Longest time that the head of an HTTP request may take, in milliseconds; also how long a connection may idle
    /// between two requests.
    pub header_timeout_ms: u64,
    /// Longest time that the body of an HTTP request may take, in milliseconds.
    pub body_timeout_ms: u64,
    /// A link that has not proved who it is after this time is closed, in milliseconds.
    pub hello_timeout_ms: u64,
    /// Sent data that a peer does not take for this long ends its connection, in milliseconds.
    pub write_timeout_ms: u64,
    /// Largest head of an HTTP request, in bytes.
    pub max_header: usize,
    /// Largest body of an HTTP request, in bytes.
    pub max_body: usize,
    /// Most streams over HTTP (server-sent events and downloads) at once.
    pub http_streams: usize,
    /// Items that may wait for the reader of one stream over HTTP.
    pub http_stream_items: usize,
    /// A quiet stream of server-sent events carries a comment after this long, in milliseconds.
    pub http_keepalive_ms: u64,
    /// Most sessions: links, and HTTP requests under way.
    pub sessions: usize,
    /// Most hosts in the registry.
    pub hosts: usize,
    /// Links that the hub takes in a second when a whole fleet comes back; agents spread their return over the time it takes.
    pub accepts_per_second: u64,
    /// Most jobs that have not ended.
    pub open_jobs: usize,
    /// Most bytes of standard input of one run.
    pub input_bytes: u64,
    /// Most files that are passed on between clients and hosts at once; each costs up to 1 MiB.
    pub file_streams: usize,
    /// Limits of one link.
    pub link: datacentered_link::Limits,
    /// First replies remembered for 24 h, so that repeats get them.
    pub remembered_replies: usize,
    /// Failed logins that one address (IPv6: one /64) may make at once.
    pub login_failures_per_address: u32,
    /// Failed logins that one account may see at once, from all addresses together.
    pub login_failures_per_account: u32,
    /// After this long one more failed login is allowed again, in milliseconds.
    pub login_recovery_ms: u64,
    /// Passwords hashed at the same time; each takes 19 MiB and a processor for some 20 ms.
    pub password_workers: usize,
    /// Logins that wait for their turn to be hashed.
    pub password_queue: usize,
    /// Most accounts.
    pub accounts: usize,
    /// Most own roles.
    pub roles: usize,
    /// Most tokens, those of logins included.
    pub tokens: usize,
    /// Longest life of an API token, in milliseconds.
    pub token_ttl_ms: u64,
    /// Longest life of a join token, in milliseconds.
    pub join_token_ttl_ms: u64,
    /// Most hosts that one join token may enrol.
    pub join_token_uses: u32,
    /// Logins that one account may have at once; another one ends the oldest.
    pub logins_per_account: usize,
    /// How long a login lasts, in milliseconds.
    pub login_ttl_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16_384,
            local_connections: 256,
            connections_unauthenticated: 4096,
            connections_per_address_unauthenticated: 2048,
            handshake_timeout_ms: 10_000,
            header_timeout_ms: 15_000,
            body_timeout_ms: 30_000,
            hello_timeout_ms: 30_000,
            write_timeout_ms: 60_000,
            max_header: 16 * 1024,
            max_body: MAX_MESSAGE,
            http_streams: 1024,
            http_stream_items: 16,
            http_keepalive_ms: 15_000,
            sessions: 20_000,
            hosts: 20_000,
            accepts_per_second: 200,
            open_jobs: 200_000,
            input_bytes: 1024 * 1024 * 1024,
            file_streams: 256,
            link: datacentered_link::Limits::default(),
            remembered_replies: 500_000,
            login_failures_per_address: 10,
            login_failures_per_account: 20,
            login_recovery_ms: 6_000,
            password_workers: 2,
            password_queue: 64,
            accounts: 10_000,
            roles: 64,
            tokens: 100_000,
            token_ttl_ms: 3660 * DAY_MS,
            join_token_ttl_ms: 366 * DAY_MS,
            join_token_uses: 100_000,
            logins_per_account: 64,
            login_ttl_ms: 12 * 60 * MINUTE_MS,
        }
    }
}

impl Limits {
    /// Between what each value must be.
    pub(super) fn ranges(&self) -> Vec<Range> {
        const HOUR_MS: u64 = 60 * MINUTE_MS;
        const MANY: u64 = 1 << 32;
        vec![
            ("limits.connections", self.connections as u64, 1, 1 << 24),
            ("limits.local_connections", self.local_connections as u64, 1, 1 << 20),
            ("limits.connections_unauthenticated", self.connections_unauthenticated as u64, 1, 1 << 24),
            (
                "limits.connections_per_address_unauthenticated",
                self.connections_per_address_unauthenticated as u64,
                1,
                1 << 24,
            ),
            ("limits.handshake_timeout_ms", self.handshake_timeout_ms, 100, HOUR_MS),
            ("limits.header_timeout_ms", self.header_timeout_ms, 100, HOUR_MS),
            ("limits.body_timeout_ms", self.body_timeout_ms, 100, HOUR_MS),
            ("limits.hello_timeout_ms", self.hello_timeout_ms, 100, HOUR_MS),
            ("limits.write_timeout_ms", self.write_timeout_ms, 1000, HOUR_MS),
            // The HTTP library's own least.
            ("limits.max_header", self.max_header as u64, 8192, 1 << 20),
            ("limits.max_body", self.max_body as u64, 1024, 1 << 26),
            ("limits.http_streams", self.http_streams as u64, 1, 1 << 20),
            ("limits.http_stream_items", self.http_stream_items as u64, 1, 1 << 16),
            ("limits.http_keepalive_ms", self.http_keepalive_ms, 100, HOUR_MS),
            ("limits.sessions", self.sessions as u64, 1, 1 << 24),
            ("limits.hosts", self.hosts as u64, 1, 1 << 24),
            ("limits.accepts_per_second", self.accepts_per_second, 1, 1 << 20),
            ("limits.open_jobs", self.open_jobs as u64, 1, MANY),
            ("limits.input_bytes", self.input_bytes, 1024, 1 << 40),
            ("limits.file_streams", self.file_streams as u64, 1, 1 << 16),
            ("limits.remembered_replies", self.remembered_replies as u64, 1000, MANY),
            ("limits.login_failures_per_address", self.login_failures_per_address.into(), 1, 1 << 16),
            ("limits.login_failures_per_account", self.login_failures_per_account.into(), 1, 1 << 16),
            ("limits.login_recovery_ms", self.login_recovery_ms, 1, HOUR_MS),
            ("limits.password_workers", self.password_workers as u64, 1, 256),
            ("limits.password_queue", self.password_queue as u64, 1, 1 << 16),
            ("limits.accounts", self.accounts as u64, 1, MANY),
            // All of them fit into one reply.
            ("limits.roles", self.roles as u64, 1, 64),
            ("limits.tokens", self.tokens as u64, 1, MANY),
            ("limits.token_ttl_ms", self.token_ttl_ms, MINUTE_MS, 36_600 * DAY_MS),
            ("limits.join_token_ttl_ms", self.join_token_ttl_ms, MINUTE_MS, 36_600 * DAY_MS),
            ("limits.join_token_uses", self.join_token_uses.into(), 1, MANY),
            ("limits.logins_per_account", self.logins_per_account as u64, 1, 1 << 16),
            ("limits.login_ttl_ms", self.login_ttl_ms, 1000, 366 * DAY_MS),
        ]
    }
}

/// How much of what happened is kept. Whatever comes first: the age or the number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Ended runs, with their jobs and output, are kept for this long, in milliseconds.
    pub run_age_ms: u64,
    /// Most runs kept; the oldest that have ended go first.
    pub runs: usize,
    /// Most jobs kept, those of all runs together.
    pub jobs: usize,
    /// Most bytes of output kept, that of all runs together.
    pub output_bytes: u64,
    /// Most events kept.
    pub events: u64,
    /// Most audit entries kept.
    pub audit_entries: u64,
    /// API and join tokens that have ended stay in listings for this long, in milliseconds.
    pub ended_token_age_ms: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            run_age_ms: 30 * DAY_MS,
            runs: 20_000,
            jobs: 500_000,
            output_bytes: 50 << 30,
            events: 1_000_000,
            audit_entries: 5_000_000,
            ended_token_age_ms: 30 * DAY_MS,
        }
    }
}

impl Retention {
    /// Between what each value must be.
    pub(super) fn ranges(&self) -> Vec<Range> {
        const CENTURY_MS: u64 = 36_600 * DAY_MS;
        const MANY: u64 = 1 << 40;
        vec![
            // A repeat within 24 h must find the run that it made.
            ("retention.run_age_ms", self.run_age_ms, DAY_MS, CENTURY_MS),
            ("retention.runs", self.runs as u64, 1, MANY),
            ("retention.jobs", self.jobs as u64, 1, MANY),
            ("retention.output_bytes", self.output_bytes, 1 << 20, MANY),
            ("retention.events", self.events, 1, MANY),
            ("retention.audit_entries", self.audit_entries, 1, MANY),
            ("retention.ended_token_age_ms", self.ended_token_age_ms, 0, CENTURY_MS),
        ]
    }
}

/// Terminals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TerminalsConfig {
    /// Most bytes of one terminal's recording that are kept; the oldest go first, and the terminal goes on.
    pub recording_bytes: u64,
    /// Greatest spool of a terminal on its host, in bytes: what it may print while the hub is away. Full, its programs wait.
    pub spool_bytes: u64,
    /// Bytes that may be typed ahead of what the host has taken.
    pub input_ahead_bytes: u64,
    /// Most clients that may type into one terminal.
    pub writers: usize,
}

impl Default for TerminalsConfig {
    fn default() -> Self {
        Self { recording_bytes: 64 << 20, spool_bytes: 16 << 20, input_ahead_bytes: 1 << 20, writers: 16 }
    }
}

impl TerminalsConfig {
    /// How much is kept of a terminal's recording; none for what is no terminal.
    pub fn recording_of(&self, exec: &ExecSpec) -> Option<u64> {
        exec.terminal.as_ref().map(|_| exec.output_bytes.min(self.recording_bytes))
    }

    /// Between what each value must be.
    pub(super) fn ranges(&self) -> Vec<Range> {
        const MANY: u64 = 1 << 40;
        vec![
            ("terminals.recording_bytes", self.recording_bytes, 64 << 10, MANY),
            ("terminals.spool_bytes", self.spool_bytes, 64 << 10, 64 << 30),
            ("terminals.input_ahead_bytes", self.input_ahead_bytes, 4096, 1 << 30),
            ("terminals.writers", self.writers as u64, 1, 64),
        ]
    }
}
