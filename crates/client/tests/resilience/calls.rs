//! Calls whose answer is lost are repeated, with the same key.

use std::sync::{Arc, Mutex};

use datacentered_link::{Answer, Called};
use datacentered_proto::operations::HostRemove;
use datacentered_proto::ops::Done;
use datacentered_proto::ops::host::ChangeParams;
use datacentered_proto::{Code, Error, OperationKey};

use crate::fake_hub::FakeHub;

#[tokio::test]
async fn a_change_whose_answer_was_lost_is_repeated_with_its_key() {
    let seen: Arc<Mutex<Vec<OperationKey>>> = Arc::default();
    let keys = Arc::clone(&seen);
    let hub = FakeHub::start(move |request, connection| {
        let params: ChangeParams = request.params().expect("parameters");
        keys.lock().expect("lock").push(params.key);
        if connection.number < 3 {
            // It has happened, and nobody will ever say so on this connection.
            connection.cut();
            return Called::later(std::future::pending());
        }
        Called::reply(&Done {})
    });
    let client = hub.client().await;
    let key = client.clock().key();
    client.call::<HostRemove>(&ChangeParams { key, host: "web1".into() }).await.expect("answered at last");
    assert_eq!(*seen.lock().expect("lock"), [key, key, key]);
    assert_eq!(hub.connections(), 3);
}

#[tokio::test]
async fn a_hub_that_is_busy_is_asked_again_and_one_that_refuses_is_not() {
    let calls = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&calls);
    let hub = FakeHub::start(move |_, _| {
        let mut calls = counted.lock().expect("lock");
        *calls += 1;
        Called::Now(match *calls {
            1 => Err(Error::unavailable("starting").with_retry_after_ms(10)),
            2 => Err(Error::indeterminate("the disk was slow")),
            3 => Answer::of(&Done {}),
            _ => Err(Error::forbidden("no")),
        })
    });
    let client = hub.client().await;
    let params = ChangeParams { key: client.clock().key(), host: "web1".into() };
    client.call::<HostRemove>(&params).await.expect("done");
    assert_eq!(*calls.lock().expect("lock"), 3);
    let error = client.call::<HostRemove>(&params).await.expect_err("refused");
    assert_eq!(error.code(), Some(Code::Forbidden));
    assert_eq!(*calls.lock().expect("lock"), 4);
}

#[tokio::test]
async fn a_call_waits_for_a_hub_that_is_being_restarted() {
    let mut hub = FakeHub::start(|_, _| Called::reply(&Done {}));
    let client = hub.client().await;
    hub.down();
    let params = ChangeParams { key: client.clock().key(), host: "web1".into() };
    let called = client.call::<HostRemove>(&params);
    let restarted = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        hub.up();
    };
    let (answer, ()) = tokio::join!(called, restarted);
    answer.expect("answered by the hub that came back");
}
