//! Random links that come and go, hubs that restart: every job ends in exactly one outcome and is offered to one
//! journal only. From a printed seed; repeat with DC_SEED.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use datacentered_proto::ops::access::Role;
use datacentered_proto::ops::run::OfflinePolicy;
use datacentered_proto::{JobId, Outcome};

use super::agent::{Agent, Script};
use super::clients::{create, output, wait};
use super::world::World;

/// A small generator: what matters is that a seed repeats it.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

fn seed() -> u64 {
    let seed = std::env::var("DC_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |now| now.subsec_nanos().into())
    });
    println!("DC_SEED={seed}");
    seed
}

#[tokio::test(flavor = "multi_thread")]
async fn every_job_ends_once_whatever_happens_to_links_and_hub() {
    let mut random = Random(seed());
    let mut world = World::new().await;
    let mut agents = Vec::new();
    for index in 0..4 {
        let agent = Agent::enrol(&world, &format!("h{index}"), Script::Exit(0)).await;
        let link = agent.connect(&world).await;
        agents.push((agent, Some(link)));
    }
    let mut runs = Vec::new();
    let mut client = world.client(Role::Operator).await;
    for step in 0..120 {
        match random.next(10) {
            0..=4 => {
                let mut params = world.run_params(&["all"]);
                params.offline = OfflinePolicy::Queue;
                create(&client, &params).await.expect("run");
                runs.push(params.key);
            }
            5..=8 => {
                let index = random.next(agents.len() as u64) as usize;
                let (agent, link) = &mut agents[index];
                match link.take() {
                    Some(up) => up.close("test"),
                    None => *link = Some(agent.connect(&world).await),
                }
            }
            _ if step % 7 == 0 => {
                world = world.restart().await;
                client = world.client(Role::Operator).await;
                for (_, link) in &mut agents {
                    *link = None;
                }
            }
            _ => tokio::time::sleep(Duration::from_millis(random.next(20))).await,
        }
    }
    for (agent, link) in &mut agents {
        *link = Some(agent.connect(&world).await);
    }
    let mut jobs: HashMap<JobId, String> = HashMap::new();
    for run in &runs {
        let ended = wait(&client, *run).await;
        for target in ended.targets {
            assert_eq!(target.outcome, Some(Outcome::Exited { code: 0 }), "{run} on {}", target.host);
            assert!(!target.evidence.is_empty());
            let printed = output(&client, *run, Some(&target.host), 0).await;
            let bytes: Vec<u8> = printed.into_iter().flat_map(|(_, bytes)| bytes).collect();
            assert_eq!(bytes, b"out\nerr\n", "{run} on {}", target.host);
            assert!(jobs.insert(target.job, target.host).is_none());
        }
    }
    for (agent, _) in &agents {
        let offered: HashSet<_> = agent.journal.lock().expect("lock").offers.iter().copied().collect();
        for job in offered {
            assert_eq!(jobs.get(&job), Some(&agent.name), "a job was offered to a host that is not its own");
        }
    }
    assert!(!runs.is_empty());
}
