//! The bus: who gets what.

use bytes::Bytes;

use super::PATIENCE;
use crate::bus::{MAX_MESSAGE, Received, Subscription};
use crate::engine::Engine;
use crate::error::Error;

/// The subjects received up to the message `end`.
async fn until_end(subscription: &mut Subscription) -> Vec<String> {
    let mut subjects = Vec::new();
    loop {
        match tokio::time::timeout(PATIENCE, subscription.recv()).await.expect("in time").expect("open") {
            Received::Message(message) if message.payload == "end" => return subjects,
            Received::Message(message) => subjects.push(message.subject.to_string()),
            Received::Lagged(n) => panic!("lost {n}"),
        }
    }
}

pub(super) async fn wildcards(engine: &Engine) {
    let cases = [
        ("a.b", vec!["a.b"]),
        ("a.*", vec!["a.b", "a.c"]),
        ("*.b", vec!["a.b", "x.b"]),
        ("a.>", vec!["a.b", "a.c", "a.b.c", "a.b.d"]),
        ("a.*.c", vec!["a.b.c"]),
        ("*.*.*", vec!["a.b.c", "a.b.d"]),
        (">", vec!["a", "a.b", "a.c", "a.b.c", "x.b", "a.b.d"]),
        ("a", vec!["a"]),
        ("*", vec!["a"]),
    ];
    let mut subscriptions = Vec::new();
    for (pattern, _) in &cases {
        subscriptions.push(engine.bus().subscribe(pattern).expect("subscribe"));
    }
    for subject in ["a", "a.b", "a.c", "a.b.c", "x.b", "a.b.d"] {
        engine.bus().publish(subject, Bytes::from_static(b"m")).expect("publish");
    }
    // One message that each pattern matches tells where to stop.
    for subject in ["a", "a.b", "a.b.c"] {
        engine.bus().publish(subject, Bytes::from_static(b"end")).expect("publish");
    }
    for ((pattern, expected), subscription) in cases.iter().zip(&mut subscriptions) {
        assert_eq!(&until_end(subscription).await, expected, "{pattern}");
    }
}

pub(super) async fn order_and_limits(engine: &Engine) {
    let mut subscription = engine.bus().subscribe("n").expect("subscribe");
    drop(engine.bus().subscribe("n").expect("subscribe"));
    for n in 0..100u8 {
        engine.bus().publish("n", Bytes::copy_from_slice(&[n])).expect("publish");
    }
    for n in 0..100u8 {
        let received =
            tokio::time::timeout(PATIENCE, subscription.recv()).await.expect("in time").expect("open");
        let Received::Message(message) = received else { panic!("lagged") };
        assert_eq!(message.payload, &[n][..]);
    }
    for bad in ["", "a..b", "a.*", ">"] {
        assert!(matches!(engine.bus().publish(bad, Bytes::new()), Err(Error::Invalid { .. })), "{bad}");
    }
    for bad in ["", "a..b", ">.a", "a*"] {
        assert!(matches!(engine.bus().subscribe(bad), Err(Error::Invalid { .. })), "{bad}");
    }
    let large = engine.bus().publish("n", Bytes::from(vec![0; MAX_MESSAGE + 1]));
    assert!(matches!(large, Err(Error::TooLarge { .. })));
    engine.bus().publish("nobody.listens", Bytes::new()).expect("publish");
}
