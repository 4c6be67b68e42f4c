//! A link of 10 Mbit/s, saturated by output: calls in the same direction are answered all the same.
//!
//! Hub and agent stand in network namespaces of their own, joined by a veth pair that `tc tbf` throttles both ways. That
//! takes root; without it there is nothing to test with, and the test says so and ends.

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{World, wait_until};
use datacentered_client::{Client, ClientConfig};
use datacentered_proto::RunId;
use datacentered_proto::operations::RunSignal;
use datacentered_proto::ops::run::SignalParams;
use rustix::process::Signal;

/// Far more than the link can carry while this test runs, from a command that is still there to be signalled.
const FLOOD: &str = "head -c 200M /dev/zero; exec sleep 1000";

/// A pair of network namespaces, gone at the end.
struct Namespaces {
    hub: String,
    host: String,
}

fn ip(args: &[&str]) -> bool {
    Command::new("ip").args(args).output().is_ok_and(|output| output.status.success())
}

impl Namespaces {
    fn new() -> Option<Self> {
        let id = std::process::id();
        let this = Self { hub: format!("dc-hub-{id}"), host: format!("dc-host-{id}") };
        let (near, far) = (format!("dch{id}"), format!("dca{id}"));
        let made = ip(&["netns", "add", &this.hub])
            && ip(&["netns", "add", &this.host])
            && ip(&[
                "link", "add", &near, "netns", &this.hub, "type", "veth", "peer", "name", &far, "netns",
                &this.host,
            ]);
        let set_up = made
            && [(&this.hub, &near, "10.231.7.1/24"), (&this.host, &far, "10.231.7.2/24")].iter().all(
                |(namespace, device, address)| {
                    ip(&["-n", namespace, "addr", "add", address, "dev", device])
                        && ip(&["-n", namespace, "link", "set", device, "up"])
                        && ip(&["-n", namespace, "link", "set", "lo", "up"])
                        && ip(&[
                            "netns", "exec", namespace, "tc", "qdisc", "add", "dev", device, "root", "tbf",
                            "rate", "10mbit", "burst", "16kb", "latency", "30ms",
                        ])
                },
            );
        set_up.then_some(this)
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.hub]);
        ip(&["netns", "del", &self.host]);
    }
}

/// How many calls are timed.
const CALLS: usize = 300;

/// Signals a run many times over one connection; how long each call took.
fn signal_often(hub: &str, run: RunId) -> Vec<Duration> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let hub = hub.parse().expect("a hub's URL");
        let client = Client::connect(ClientConfig::new(vec![hub])).await.expect("the hub is there");
        let mut took = Vec::new();
        for _ in 0..CALLS {
            let key = client.clock().key();
            let params = SignalParams { key, run, signal: Signal::CONT.as_raw(), hosts: Vec::new() };
            let asked = Instant::now();
            let reached = client.call::<RunSignal>(&params).await.expect("answered");
            took.push(asked.elapsed());
            assert_eq!(reached.targets, 1);
        }
        client.close().await;
        took
    })
}

#[test]
fn calls_on_a_saturated_link_are_answered_quickly() {
    if !rustix::process::getuid().is_root() {
        println!("not root: no network namespaces, nothing tested");
        return;
    }
    let namespaces = Namespaces::new().expect("network namespaces, with iproute2 installed");
    let mut world = World::new_in(&namespaces.hub, "10.231.7.1:0");
    world.add_host_in(&namespaces.host, "web1");

    let flood = world.run(["run", "--on", "web1", "--detach", "-o", "json", "--", "sh", "-c", FLOOD]);
    let flood = flood.ok().json()["run"].as_str().expect("a run").to_owned();
    let stored = |run: &str| {
        let shown = world.run(["run", "show", run, "-o", "json"]).ok().json();
        shown["targets"][0]["stored_bytes"].as_u64().unwrap_or(0)
    };
    wait_until("the link is busy", || stored(&flood) > 1_000_000);
    let began = Instant::now();
    let before = stored(&flood);

    // Each signal is a call of the hub's on the agent, whose answer comes the way of the flood.
    let mut took = signal_often(&world.socket(), flood.parse().expect("an id"));
    let carried = stored(&flood) - before;
    let rate = carried as f64 * 8.0 / began.elapsed().as_secs_f64() / 1e6;
    took.sort_unstable();
    let (median, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    println!("median {median:?}, p99 {p99:?}, while the link carried {rate:.1} Mbit/s of output");
    assert!(rate > 6.0, "the link was not saturated: {rate:.1} Mbit/s");
    // The aim is 200 ms; a busy test machine gets five times that, and the figure is printed.
    assert!(p99 < Duration::from_secs(1), "p99 {p99:?}");
    assert!(median < Duration::from_millis(200), "median {median:?}");
    world.run(["run", "cancel", &flood]);
}
