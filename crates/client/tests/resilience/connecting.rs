//! The first connection fails at once; later ones are patient, and not for ever.

use std::time::{Duration, Instant};

use datacentered_client::{Client, ClientConfig, Error, HubUrl, Secret, Trust};
use datacentered_link::Called;
use datacentered_proto::Code;
use datacentered_proto::operations::SessionWhoami;
use datacentered_proto::ops::NoParams;

use crate::fake_hub::FakeHub;

#[tokio::test]
async fn the_first_connection_fails_at_once_and_says_where_and_why() {
    let began = Instant::now();
    let urls = vec![
        HubUrl::Unix { path: "/nowhere/at/all/hub.sock".into() },
        "ws://127.0.0.1:1".parse().expect("a URL"),
    ];
    let error = Client::connect(ClientConfig::new(urls)).await.expect_err("nobody is there");
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(matches!(&error, Error::Unreachable { attempts } if attempts.len() == 2), "{error:?}");
    let told = error.to_string();
    assert!(told.contains("unix:/nowhere/at/all/hub.sock: No such file"), "{told}");
    assert!(told.contains("ws://127.0.0.1:1: Connection refused"), "{told}");
}

#[tokio::test]
async fn a_wrong_token_is_not_tried_again() {
    let hub = FakeHub::start(|_, _| Called::NoSuchMethod);
    let mut config = hub.config();
    config.token = Some(Secret::new("wrong"));
    let error = Client::connect(config).await.expect_err("refused");
    assert_eq!(error.code(), Some(Code::Unauthenticated));
    assert_eq!(hub.connections(), 1);
}

#[tokio::test]
async fn without_a_known_key_nothing_is_sent_over_tls() {
    let url = "wss://127.0.0.1:1".parse().expect("a URL");
    let config = ClientConfig::new(vec![url]);
    assert_eq!(config.trust, Trust::Nothing);
    assert!(matches!(Client::connect(config).await, Err(Error::UnknownKey { .. })));
}

#[tokio::test]
async fn a_hub_that_does_not_come_back_is_given_up() {
    let mut hub = FakeHub::start(|_, _| Called::NoSuchMethod);
    let mut config = hub.config();
    config.reconnect_timeout = Duration::from_millis(500);
    let client = Client::connect(config).await.expect("connects");
    hub.down();
    let began = Instant::now();
    let error = client.call::<SessionWhoami>(&NoParams {}).await.expect_err("the hub is gone");
    assert!(matches!(error, Error::GaveUp { .. }), "{error:?}");
    assert!(began.elapsed() >= Duration::from_millis(400) && began.elapsed() < Duration::from_secs(10));
    client.close().await;
}

#[tokio::test]
async fn another_hub_of_the_list_takes_over() {
    let answer = |request: &datacentered_link::Request, _: &_| {
        assert_eq!(request.method, "session.whoami");
        Called::Now(Err(datacentered_proto::Error::conflict("this is hub two")))
    };
    let mut one = FakeHub::start(|_, _| Called::NoSuchMethod);
    let two = FakeHub::start(answer);
    let mut config = one.config();
    config.urls.extend(two.config().urls);
    let client = Client::connect(config).await.expect("connects");
    assert_eq!((one.connections(), two.connections()), (1, 0));
    one.down();
    let error = client.call::<SessionWhoami>(&NoParams {}).await.expect_err("hub two says no");
    assert_eq!(error.code(), Some(Code::Conflict));
    assert_eq!(two.connections(), 1);
}

#[tokio::test]
async fn closing_ends_everything() {
    let hub = FakeHub::start(|_, _| Called::NoSuchMethod);
    let client = hub.client().await;
    let other = client.clone();
    client.close().await;
    assert_eq!(other.call::<SessionWhoami>(&NoParams {}).await.expect_err("closed"), Error::Closed);
}
