//! What a simulation has shown, for people and for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use datacentered_sim::Spread;
use serde::Serialize;

use crate::text::size;
use crate::ui::table::fields;

/// A duration in the milliseconds that reports carry.
pub(super) trait Millis {
    /// In milliseconds, with three places behind the point.
    fn millis(&self) -> f64;
}

impl Millis for Duration {
    fn millis(&self) -> f64 {
        self.as_micros() as f64 / 1000.0
    }
}

/// Everything.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) seed: u64,
    pub(super) hosts: usize,
    pub(super) faults: Vec<String>,
    pub(super) faulty_hosts: usize,
    pub(super) connect: Connect,
    pub(super) memory: Memory,
    pub(super) runs: Runs,
    pub(super) reconnect: Reconnect,
    /// Of a hub of our own only.
    pub(super) hub_cpu_ms: Option<f64>,
    pub(super) sim_cpu_ms: Option<f64>,
    pub(super) lies_told: u64,
    pub(super) lies_believed: u64,
    pub(super) output_bytes: u64,
    /// What should not have been; empty where all is well.
    pub(super) wrong: Vec<String>,
}

/// How the hosts came.
#[derive(Debug, Serialize)]
pub(super) struct Connect {
    /// Until all had joined.
    pub(super) joined_ms: f64,
    /// Until all were connected.
    pub(super) online_ms: f64,
    /// From dialling to the greeting, each.
    pub(super) greeting: Times,
    pub(super) refused: u64,
}

/// The hub's resident memory.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "they are the names in the JSON, which carry their unit")]
pub(super) struct Memory {
    pub(super) empty_hub_bytes: u64,
    /// With all hosts connected and idle.
    pub(super) idle_hub_bytes: u64,
    /// With all hosts connected again, at the end.
    pub(super) after_hub_bytes: u64,
    /// What one idle connection takes.
    pub(super) per_connection_bytes: u64,
}

impl Memory {
    pub(super) fn new(empty: u64, idle: u64, after: u64, connections: u64) -> Self {
        Self {
            empty_hub_bytes: empty,
            idle_hub_bytes: idle,
            after_hub_bytes: after,
            per_connection_bytes: idle.saturating_sub(empty) / connections.max(1),
        }
    }
}

/// Commands on all hosts.
#[derive(Debug, Serialize)]
pub(super) struct Runs {
    pub(super) count: usize,
    pub(super) targets: u64,
    /// Until the last host without faults had its outcome.
    pub(super) latency: Times,
    /// Until every host had its outcome.
    pub(super) latency_all: Times,
    /// How targets ended.
    pub(super) outcomes: BTreeMap<String, u64>,
    /// Targets without faults that did not go well.
    pub(super) sound_failed: u64,
    /// Targets without an outcome, or with one without evidence.
    pub(super) unexplained: u64,
}

/// How the hosts came back.
#[derive(Debug, Serialize)]
pub(super) struct Reconnect {
    pub(super) how: &'static str,
    /// How long the hub was away.
    pub(super) down_ms: f64,
    /// From when the hub was there until all were connected.
    pub(super) all_back_ms: f64,
    /// How long each was away.
    pub(super) away: Times,
    /// Attempts that the hub, being there, did not complete.
    pub(super) refused: u64,
}

/// How durations spread, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Times {
    pub(super) count: usize,
    pub(super) p50_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) max_ms: f64,
}

impl From<Spread> for Times {
    fn from(spread: Spread) -> Self {
        Self {
            count: spread.count,
            p50_ms: spread.p50.millis(),
            p95_ms: spread.p95.millis(),
            p99_ms: spread.p99.millis(),
            max_ms: spread.max.millis(),
        }
    }
}

impl Times {
    fn text(self) -> String {
        if self.count == 0 {
            return "none".to_owned();
        }
        format!(
            "half within {}, 95% within {}, longest {}",
            ms(self.p50_ms),
            ms(self.p95_ms),
            ms(self.max_ms)
        )
    }
}

impl Report {
    /// Says what should not have been.
    pub(super) fn judge(&mut self) {
        let mut wrong = |count: u64, what: &str| {
            if count > 0 {
                self.wrong.push(format!("{count} {what}"));
            }
        };
        wrong(self.runs.unexplained, "targets without an explained outcome");
        wrong(self.runs.sound_failed, "targets without faults that did not go well");
        wrong(self.lies_believed, "lies believed by the hub");
    }

    /// For people.
    pub(super) fn table(&self) -> String {
        let faulty = if self.faults.is_empty() {
            String::new()
        } else {
            format!("{} on {} hosts", self.faults.join(", "), self.faulty_hosts)
        };
        let memory = &self.memory;
        let outcomes: Vec<String> =
            self.runs.outcomes.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
        let lies = if self.lies_told > 0 {
            format!("{} told, {} believed", self.lies_told, self.lies_believed)
        } else {
            String::new()
        };
        fields([
            ("seed", self.seed.to_string()),
            ("hosts", self.hosts.to_string()),
            ("faults", faulty),
            (
                "joined",
                format!(
                    "all within {}, connected within {}",
                    ms(self.connect.joined_ms),
                    ms(self.connect.online_ms)
                ),
            ),
            ("greeting", self.connect.greeting.text()),
            (
                "hub memory",
                format!(
                    "{} empty, {} with all connected: {} for each; {} at the end",
                    size::human(memory.empty_hub_bytes),
                    size::human(memory.idle_hub_bytes),
                    size::human(memory.per_connection_bytes),
                    size::human(memory.after_hub_bytes)
                ),
            ),
            ("commands", format!("{} on all hosts, {} targets", self.runs.count, self.runs.targets)),
            ("latency", self.runs.latency.text()),
            (
                "with faulty",
                if self.faults.is_empty() { String::new() } else { self.runs.latency_all.text() },
            ),
            ("outcomes", outcomes.join(", ")),
            ("lies", lies),
            ("output", if self.output_bytes > 0 { size::human(self.output_bytes) } else { String::new() }),
            (
                "back",
                format!(
                    "{}: away for {}, all back {} later, {} refused",
                    self.reconnect.how,
                    ms(self.reconnect.down_ms),
                    ms(self.reconnect.all_back_ms),
                    self.reconnect.refused
                ),
            ),
            ("away", self.reconnect.away.text()),
            ("hub CPU", self.hub_cpu_ms.map(ms).unwrap_or_default()),
            ("hosts' CPU", self.sim_cpu_ms.map(ms).unwrap_or_default()),
        ])
    }
}

/// Milliseconds for a person.
fn ms(ms: f64) -> String {
    if ms >= 10_000.0 { format!("{:.1} s", ms / 1000.0) } else { format!("{ms:.1} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let times = Times::from(Spread::of(vec![Duration::from_millis(20), Duration::from_millis(30)]));
        Report {
            seed: 7,
            hosts: 2,
            faults: vec!["lie".into()],
            faulty_hosts: 1,
            connect: Connect { joined_ms: 50.0, online_ms: 61.5, greeting: times, refused: 0 },
            memory: Memory::new(10 << 20, 11 << 20, 12 << 20, 2),
            runs: Runs {
                count: 2,
                targets: 4,
                latency: times,
                latency_all: times,
                outcomes: [("exited(0)".to_owned(), 4)].into(),
                sound_failed: 0,
                unexplained: 0,
            },
            reconnect: Reconnect {
                how: "hub killed",
                down_ms: 2000.0,
                all_back_ms: 12_345.0,
                away: times,
                refused: 0,
            },
            hub_cpu_ms: Some(120.0),
            sim_cpu_ms: None,
            lies_told: 3,
            lies_believed: 0,
            output_bytes: 0,
            wrong: Vec::new(),
        }
    }

    #[test]
    fn for_people() {
        insta::assert_snapshot!(report().table(), @r"
        seed         7
        hosts        2
        faults       lie on 1 hosts
        joined       all within 50.0 ms, connected within 61.5 ms
        greeting     half within 20.0 ms, 95% within 30.0 ms, longest 30.0 ms
        hub memory   10.0 MiB empty, 11.0 MiB with all connected: 512.0 KiB for each; 12.0 MiB at the end
        commands     2 on all hosts, 4 targets
        latency      half within 20.0 ms, 95% within 30.0 ms, longest 30.0 ms
        with faulty  half within 20.0 ms, 95% within 30.0 ms, longest 30.0 ms
        outcomes     4 exited(0)
        lies         3 told, 0 believed
        back         hub killed: away for 2000.0 ms, all back 12.3 s later, 0 refused
        away         half within 20.0 ms, 95% within 30.0 ms, longest 30.0 ms
        hub CPU      120.0 ms
        ");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let mut all_well = report();
        all_well.judge();
        assert!(all_well.wrong.is_empty());
        let mut believed = report();
        believed.lies_believed = 2;
        believed.runs.unexplained = 1;
        believed.judge();
        assert_eq!(believed.wrong, ["1 targets without an explained outcome", "2 lies believed by the hub"]);
    }
}
