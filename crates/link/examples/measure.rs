//! Measures links on this machine: round trips a second, bulk bytes a second with the CPU they cost, bytes per idle link.
//!
//! `cargo run --release -p datacentered-link --example measure`
#![expect(clippy::print_stdout, reason = "its output is what it is for")]
#![allow(missing_docs, reason = "a program")]
#![allow(dead_code, reason = "the tests' helpers are used in part")]

#[path = "../tests/support/server.rs"]
mod server;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use datacentered_link::dial::{self, DialOptions};
use datacentered_link::tls::{Pin, client_config};
use datacentered_link::{Answer, Called, Limits, Link, Request, Side, StreamEvent, StreamWriter};
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::EndReason;
use datacentered_proto::rpc::Cause;
use serde_json::json;
use std::sync::Arc;
use support::{Streaming, echo, empty, nothing, pair, raw, streaming, ws};
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::protocol::Role;

const BULK: u64 = 512 * 1024 * 1024;

fn handler() -> Arc<dyn datacentered_link::Handler> {
    Arc::new(support::On(|request: Request| match request.params::<Streaming>() {
        Ok(Streaming { stream }) => {
            Called::Now(Answer::send(stream, None, |mut writer: StreamWriter| async move {
                let chunk = Bytes::from(vec![7; 256 * 1024]);
                let mut at = 0;
                while at < BULK {
                    if writer.send_bytes(Kind::Stdout, at, chunk.clone()).await.is_err() {
                        return;
                    }
                    at += chunk.len() as u64;
                }
                let _ = writer.end(EndReason::Done, at, None).await;
            }))
        }
        Err(_) => Called::Now(Ok(Answer::Reply(request.params.unwrap_or_else(empty)))),
    }))
}

async fn round_trips(name: &str, link: &Link, at_once: usize) {
    let begun = (Instant::now(), cpu());
    let mut workers = JoinSet::new();
    for _ in 0..at_once {
        let link = link.clone();
        workers.spawn(async move {
            let params = raw(&json!({"key": "a key", "value": "sixty-four bytes of a value, more or less, for a fair number"}));
            let mut done = 0u64;
            let until = Instant::now() + Duration::from_secs(3);
            while Instant::now() < until {
                link.call_raw("test.echo", &params, Cause::default()).await.expect("reply");
                done += 1;
            }
            done
        });
    }
    let done: u64 = workers.join_all().await.into_iter().sum();
    let (wall, used) = (begun.0.elapsed(), cpu().saturating_sub(begun.1));
    println!(
        "{name}, {at_once} in flight: {:.0} round trips/s, {:.1} us CPU each (both ends)",
        done as f64 / wall.as_secs_f64(),
        used.as_secs_f64() * 1e6 / done as f64
    );
}

async fn bulk(name: &str, link: &Link) {
    let begun = (Instant::now(), cpu());
    let (_, mut reader) = link.open_raw("test.bytes", 0, Cause::default(), streaming).await.expect("opens");
    let mut got = 0;
    while let Some(event) = reader.next().await {
        if let StreamEvent::Bytes { payload, .. } = event {
            got += payload.len() as u64;
        }
    }
    assert_eq!(got, BULK);
    let (wall, used) = (begun.0.elapsed(), cpu().saturating_sub(begun.1));
    println!(
        "{name}: {:.0} MB/s, {:.2} s CPU a GB (both ends)",
        got as f64 / 1e6 / wall.as_secs_f64(),
        used.as_secs_f64() / (got as f64 / 1e9)
    );
}

async fn latency_under_bulk(name: &str, link: &Link) {
    let (_, mut reader) = link.open_raw("test.bytes", 0, Cause::default(), streaming).await.expect("opens");
    let mut drain = JoinSet::new();
    drain.spawn(async move { while reader.next().await.is_some() {} });
    let mut times = Vec::new();
    let params = raw(&json!("x"));
    while drain.try_join_next().is_none() {
        let begun = Instant::now();
        link.call_raw("test.echo", &params, Cause::default()).await.expect("reply");
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    println!(
        "{name}: round trip beside a bulk stream: median {:?}, p99 {:?}, worst {:?} ({} calls)",
        times[times.len() / 2],
        times[times.len() * 99 / 100],
        times[times.len() - 1],
        times.len()
    );
}

/// Bytes of this process's memory that are its own.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("statm");
    let field = |n: usize| statm.split(' ').nth(n).and_then(|f| f.parse::<u64>().ok()).expect("number");
    (field(1) - field(2)) * 4096
}

fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

async fn idle(links: usize) {
    let mut drivers = JoinSet::new();
    let mut kept = Vec::new();
    // The pipes are there before, so that only what the links add is counted.
    let pipes: Vec<_> = (0..links).map(|_| tokio::io::duplex(1024)).collect();
    let before = resident();
    for (a, b) in pipes {
        for (stream, role, side) in [(a, Role::Client, Side::Dialled), (b, Role::Server, Side::Accepted)] {
            let (link, driver) = Link::start(ws(stream, role).await, side, nothing(), Limits::default());
            drivers.spawn(driver);
            kept.push(link);
        }
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    for link in &kept {
        let _ = link.call_raw("link.ping", &empty(), Cause::default()).await;
    }
    println!(
        "idle: {} bytes a link, WebSocket included, after a call each",
        (resident() - before) / kept.len() as u64
    );
}

async fn run() {
    idle(2000).await;
    {
        let (a, _b, _drivers) = pair(&Limits::default(), nothing(), handler()).await;
        for at_once in [1, 16, 64] {
            round_trips("in memory", &a, at_once).await;
        }
        bulk("in memory", &a).await;
    }
    let certificates = server::Certificates::new();
    let server = server::serve(&certificates, false, Limits::default(), handler()).await;
    let options = DialOptions {
        tls: Some(client_config(&[Pin::Key(certificates.fingerprint())], None, &[]).expect("config")),
        path: "/link".into(),
        ..DialOptions::default()
    };
    let url = server.address.to_string().parse().expect("url");
    let ws = dial::connect(&url, &options).await.expect("connects");
    let (link, driver) = Link::start(ws, Side::Dialled, echo(), Limits::default());
    let mut drivers = JoinSet::new();
    drivers.spawn(driver);
    for at_once in [1, 16, 64] {
        round_trips("TLS over loopback", &link, at_once).await;
    }
    bulk("TLS over loopback", &link).await;
    latency_under_bulk("TLS over loopback", &link).await;
    drop(server);
}

fn main() {
    tokio::runtime::Runtime::new().expect("runtime").block_on(run());
}
