//! A simulated network: partitions, lost machines, reconnecting with backoff. Nothing is lost and nothing comes twice.

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use datacentered_link::backoff::{Backoff, Policy};
use datacentered_link::clock::Clock;
use datacentered_link::dial::{self, DialOptions};
use datacentered_link::{Answer, Called, Limits, Link, Request, Side, StreamEvent, StreamWriter};
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::StreamOpen;
use datacentered_proto::rpc::Cause;
use datacentered_proto::{Code, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use support::*;
use tokio::task::JoinSet;

const PORT: u16 = 7272;

/// What the hub's record holds at `at`.
fn byte(at: u64) -> u8 {
    (at.wrapping_mul(2_654_435_761) >> 13) as u8
}

#[derive(Serialize, Deserialize)]
struct ReadParams {
    from: u64,
    stream: StreamOpen,
}

/// A hub with one record of bytes that can be read from any offset, a kilobyte every fifty milliseconds, and a counter.
async fn hub(applied: Arc<Mutex<Vec<u64>>>) -> turmoil::Result {
    let handler = Arc::new(On(move |request: Request| match request.method.as_str() {
        "test.read" => Called::Now(request.params::<ReadParams>().and_then(|params| {
            Answer::send(params.stream, None, move |mut writer: StreamWriter| async move {
                let mut at = params.from;
                loop {
                    let chunk: Vec<u8> = (at..at + 1024).map(byte).collect();
                    if writer.send_bytes(Kind::Stdout, at, chunk.into()).await.is_err() {
                        return;
                    }
                    at += 1024;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            })
        })),
        "test.add" => {
            // A repeat of the same key is answered as the first and does nothing.
            let Ok(key) = request.params::<u64>() else { return Called::NoSuchMethod };
            let Ok(mut applied) = applied.lock() else { return Called::NoSuchMethod };
            if !applied.contains(&key) {
                applied.push(key);
            }
            Called::reply(&true)
        }
        _ => Called::NoSuchMethod,
    }));
    let listener = turmoil::net::TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT)).await?;
    let mut links = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await?;
        let handler = handler.clone();
        links.spawn(async move {
            if let Ok(ws) = tokio_tungstenite::accept_async(stream).await {
                Link::start(ws, Side::Accepted, handler, Limits::default()).1.await;
            }
        });
        while links.try_join_next().is_some() {}
    }
}

/// Reads the record and adds keys until `end` bytes have come, over as many links as it takes. Returns the links it took.
async fn client(clock: Clock, end: u64, adds: u64) -> Result<u64, Box<dyn std::error::Error>> {
    let mut backoff = Backoff::new(Policy::default());
    let (mut at, mut next_add, mut links) = (0, 0, 0);
    let url = "ws://localhost".parse()?;
    while at < end || next_add < adds {
        let Ok(Ok(stream)) =
            tokio::time::timeout(Duration::from_secs(10), turmoil::net::TcpStream::connect(("hub", PORT)))
                .await
        else {
            tokio::time::sleep(backoff.next(clock.boot(), clock.random())).await;
            continue;
        };
        let Ok(ws) = dial::over(&url, &DialOptions::default(), stream).await else {
            tokio::time::sleep(backoff.next(clock.boot(), clock.random())).await;
            continue;
        };
        links += 1;
        backoff.connected(clock.boot());
        let (link, driver) = Link::start(ws, Side::Dialled, nothing(), Limits::default());
        let mut drivers = JoinSet::new();
        drivers.spawn(driver);
        let read = async {
            let from = at;
            let params = move |stream| raw(&json!(ReadParams { from, stream }));
            let Ok((_, mut reader)) = link.open_raw("test.read", from, Cause::default(), params).await else {
                return;
            };
            while let Some(event) = reader.next().await {
                match event {
                    StreamEvent::Bytes { offset, payload, .. } => {
                        assert_eq!(offset, at, "neither a hole nor a repeat");
                        for (i, got) in payload.iter().enumerate() {
                            assert_eq!(*got, byte(at + i as u64));
                        }
                        at += payload.len() as u64;
                        if at >= end {
                            return;
                        }
                    }
                    StreamEvent::End(end) => {
                        assert_eq!((end.offset, end.error.map(|e| e.code)), (at, Some(Code::Unavailable)));
                        return;
                    }
                    other => panic!("{other:?}"),
                }
            }
        };
        let add = async {
            while next_add < adds {
                match link.call_raw("test.add", &raw(&json!(next_add)), Cause::default()).await {
                    Ok(_) => next_add += 1,
                    // Not sent, or perhaps done: in both cases the same key goes again.
                    Err(error) => {
                        assert!(matches!(error.code, Code::Unavailable | Code::Indeterminate), "{error:?}");
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        };
        tokio::join!(read, add);
        link.close("lost or done");
        link.closed().await;
        drivers.abort_all();
        tokio::time::sleep(backoff.next(clock.boot(), clock.random())).await;
    }
    Ok(links)
}

fn simulate(seed: u64, faults: impl Fn(&mut turmoil::Sim<'_>, u64)) -> u64 {
    let mut sim = turmoil::Builder::new()
        .simulation_duration(Duration::from_mins(15))
        .tick_duration(Duration::from_millis(10))
        .rng_seed(seed)
        .build();
    let applied = Arc::new(Mutex::new(Vec::new()));
    let record = applied.clone();
    sim.host("hub", move || hub(record.clone()));
    let took = Arc::new(AtomicU64::new(0));
    let links = took.clone();
    sim.client("client", async move {
        let clock = Clock::following_tokio(Timestamp::EPOCH, seed);
        links.store(client(clock, 512 * 1024, 100).await?, Ordering::SeqCst);
        Ok(())
    });
    let mut step = 0;
    while !sim.step().expect("no fault of the programs") {
        step += 1;
        faults(&mut sim, step);
    }
    assert_eq!(*applied.lock().expect("unpoisoned"), (0..100).collect::<Vec<_>>(), "each once, in order");
    took.load(Ordering::SeqCst)
}

#[test]
fn without_faults_one_link_does_it_all() {
    assert_eq!(simulate(1, |_, _| {}), 1);
}

#[test]
fn a_partition_is_survived_without_hole_or_repeat() {
    // Ticks of 10 ms: cut after 10 s for 60 s, again after 90 s for 40 s.
    let links = simulate(2, |sim, step| match step {
        1_000 | 9_000 => sim.partition("client", "hub"),
        7_000 | 13_000 => sim.repair("client", "hub"),
        _ => {}
    });
    assert!(links >= 2, "{links}");
}

#[test]
fn a_hub_that_crashes_is_found_again() {
    let links = simulate(3, |sim, step| match step {
        1_500 | 6_000 => sim.crash("hub"),
        2_000 | 6_300 => sim.bounce("hub"),
        _ => {}
    });
    assert!(links >= 2, "{links}");
}

#[test]
fn random_short_cuts() {
    for seed in 10..12 {
        println!("seed {seed}");
        simulate(seed, |sim, step| {
            // A cut somewhere every ten seconds, for up to five.
            let at = (seed * 7919 + step / 1_000 * 104_729) % 500;
            match step % 1_000 {
                tick if tick == at => sim.partition("client", "hub"),
                tick if tick == at + 1 + (seed * 31 + step / 1_000 * 17) % 490 => sim.repair("client", "hub"),
                _ => {}
            }
        });
    }
}
