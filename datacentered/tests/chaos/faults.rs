//! What is done to the fleet, from a seed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::fleet::Fleet;
use crate::place::Place;
use crate::random::Random;

/// Something that has to be set right again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heal {
    Thaw(usize),
    Open(usize),
    Hasten(usize),
    Continue(Victim),
    FreeHost(usize),
    FreeHub,
    Network,
    Clock(usize),
}

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Hub,
    Agent(usize),
    Shim(i32),
}

/// All faults, and which of them are in force.
#[derive(Debug)]
pub(crate) struct Faults {
    random: Random,
    place: Place,
    next: Instant,
    healing: Vec<(Instant, Heal)>,
    /// How often each kind was made.
    pub(crate) made: BTreeMap<&'static str, u64>,
}

impl Faults {
    pub(crate) fn new(seed: u64, place: Place) -> Self {
        let random = Random::new(seed, 1);
        Self { random, place, next: Instant::now(), healing: Vec::new(), made: BTreeMap::new() }
    }

    /// Makes the next fault where it is time to, and heals those whose time is over.
    pub(crate) fn step(&mut self, fleet: &mut Fleet) {
        let now = Instant::now();
        let (over, rest) = std::mem::take(&mut self.healing).into_iter().partition(|(at, _)| *at <= now);
        self.healing = rest;
        for (_, heal) in over {
            self.heal(fleet, heal);
        }
        if now >= self.next {
            self.make(fleet);
            self.next = now + self.random.millis(20, 400);
        }
    }

    /// Sets everything right.
    pub(crate) fn end(&mut self, fleet: &mut Fleet) {
        for (_, heal) in std::mem::take(&mut self.healing) {
            self.heal(fleet, heal);
        }
    }

    fn make(&mut self, fleet: &mut Fleet) {
        let host = self.random.below(fleet.hosts.len() as u64) as usize;
        let kind = match self.random.below(100) {
            0..=9 => {
                let down = self.random.millis(0, 1500);
                fleet.hub.kill(down);
                "hub killed"
            }
            10..=29 => {
                let down = self.random.millis(0, 1500);
                fleet.hosts[host].agent.kill(down);
                "agent killed"
            }
            30..=36 => {
                let shims = fleet.hosts[host].shims();
                let Some(pid) = self.one_of(&shims) else { return };
                signal(pid, Signal::KILL);
                "shim killed"
            }
            37..=53 => {
                fleet.hosts[host].proxy.cut();
                "link cut"
            }
            54..=58 => {
                fleet.hosts[host].proxy.set_frozen(true);
                self.heal_within(3000, Heal::Thaw(host));
                "link frozen"
            }
            59..=62 => {
                fleet.hosts[host].proxy.set_closed(true);
                fleet.hosts[host].proxy.cut();
                self.heal_within(1500, Heal::Open(host));
                "way closed"
            }
            63..=69 => {
                fleet.hosts[host].proxy.set_delay(self.random.millis(1, 120));
                self.heal_within(2500, Heal::Hasten(host));
                "link delayed"
            }
            70..=72 => {
                fleet.hub.signal(Signal::STOP);
                self.heal_within(900, Heal::Continue(Victim::Hub));
                "hub stopped"
            }
            73..=77 => {
                fleet.hosts[host].agent.signal(Signal::STOP);
                self.heal_within(1500, Heal::Continue(Victim::Agent(host)));
                "agent stopped"
            }
            78..=82 => {
                let shims = fleet.hosts[host].shims();
                let Some(pid) = self.one_of(&shims) else { return };
                signal(pid, Signal::STOP);
                self.heal_within(1500, Heal::Continue(Victim::Shim(pid)));
                "shim stopped"
            }
            83..=86 => {
                let Some(disk) = &fleet.hosts[host].disk else { return };
                disk.fill();
                self.heal_within(1200, Heal::FreeHost(host));
                "host's disk full"
            }
            87..=88 => {
                let Some(disk) = &fleet.hub_disk else { return };
                disk.fill();
                self.heal_within(800, Heal::FreeHub);
                "hub's disk full"
            }
            89..=95 if !self.place.is_isolated() => return,
            89..=92 => {
                let percent = 1 + self.random.below(20);
                self.place.set_loss(&fleet.ports(), percent);
                self.heal_within(2500, Heal::Network);
                "packets lost"
            }
            93..=95 => {
                self.place.set_rate(Some(500 + self.random.below(8000)));
                self.heal_within(2500, Heal::Network);
                "network slow"
            }
            _ => {
                if !fleet.hosts[host].has_clock() {
                    return;
                }
                let seconds = self.random.below(14_400) as i64 - 7200;
                fleet.hosts[host].set_clock(seconds);
                self.heal_within(4000, Heal::Clock(host));
                "clock jumped"
            }
        };
        *self.made.entry(kind).or_default() += 1;
    }

    fn heal_within(&mut self, most_ms: u64, heal: Heal) {
        let at = Instant::now() + self.random.millis(50, most_ms);
        // The latest of a kind counts: an earlier healing must not end it.
        self.healing.retain(|(_, known)| *known != heal);
        self.healing.push((at, heal));
    }

    fn heal(&self, fleet: &Fleet, heal: Heal) {
        match heal {
            Heal::Thaw(host) => fleet.hosts[host].proxy.set_frozen(false),
            Heal::Open(host) => fleet.hosts[host].proxy.set_closed(false),
            Heal::Hasten(host) => fleet.hosts[host].proxy.set_delay(Duration::ZERO),
            Heal::Continue(Victim::Hub) => fleet.hub.signal(Signal::CONT),
            Heal::Continue(Victim::Agent(host)) => fleet.hosts[host].agent.signal(Signal::CONT),
            Heal::Continue(Victim::Shim(pid)) => signal(pid, Signal::CONT),
            Heal::FreeHost(host) => fleet.hosts[host].disk.iter().for_each(crate::place::SmallDisk::free),
            Heal::FreeHub => fleet.hub_disk.iter().for_each(crate::place::SmallDisk::free),
            Heal::Network => {
                self.place.set_loss(&[], 0);
                self.place.set_rate(None);
            }
            Heal::Clock(host) => fleet.hosts[host].set_clock(0),
        }
    }

    fn one_of(&mut self, pids: &[i32]) -> Option<i32> {
        if pids.is_empty() {
            return None;
        }
        Some(pids[self.random.below(pids.len() as u64) as usize])
    }

    /// Whether this kind of fault was made at all.
    pub(crate) fn has(&self, kind: &str) -> bool {
        self.made.contains_key(kind)
    }
}

fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        kill_process(pid, signal).ok();
    }
}
