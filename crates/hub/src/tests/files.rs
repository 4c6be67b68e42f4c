//! Files of hosts, as far as the hub itself answers.

use datacentered_proto::operations::{FileRead, FileStat};
use datacentered_proto::ops::access::Role;
use datacentered_proto::ops::file::{ReadParams, StatParams};
use datacentered_proto::{ByteString, Code};

use super::agent::{Agent, Script};
use super::world::World;

fn stat(host: &str) -> StatParams {
    StatParams { host: host.into(), root: "/etc/hosts".into(), path: ByteString::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_away_unknown_or_too_old_is_told_apart() {
    let world = World::new().await;
    let (_agent, _link) = Agent::join(&world, "old", Script::Run).await;
    Agent::enrol(&world, "away", Script::Run).await;
    let client = world.client(Role::Operator).await;
    for (host, code, says) in [
        ("nosuch", Code::NotFound, "nosuch"),
        ("away", Code::Offline, "not connected"),
        ("old", Code::Conflict, "too old"),
    ] {
        let error = client.call::<FileStat>(&stat(host)).await.expect_err(host);
        assert_eq!(error.code, code, "{error:?}");
        assert!(error.message.contains(says), "{error:?}");
    }
    let read = |stream| ReadParams {
        host: "old".into(),
        root: "/etc/hosts".into(),
        path: ByteString::default(),
        from: 0,
        cursor: None,
        size: None,
        note: false,
        stream,
    };
    let error = client.open::<FileRead>(0, read).await.expect_err("too old");
    assert_eq!(error.code, Code::Conflict, "{error:?}");
}
