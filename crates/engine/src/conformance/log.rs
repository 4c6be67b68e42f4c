//! Logs: idempotence, holes, reading, forgetting.

use bytes::Bytes;

use super::{PATIENCE, log_name};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::kv::Durability;
use crate::log::{Append, LogState, MAX_APPEND_ITEMS, MAX_ITEM, Position};

fn item(position: Position, payload: &str) -> Append {
    Append { position, span: payload.len() as u64, payload: Bytes::copy_from_slice(payload.as_bytes()) }
}

async fn append(engine: &Engine, log: &str, items: Vec<Append>) -> Result<LogState> {
    engine.log().append(&log_name(log), items, Durability::Interval).await
}

/// The whole log as text, read a page at a time.
async fn text(engine: &Engine, log: &str, from: u64, page: usize) -> String {
    let mut out = String::new();
    let mut at = from;
    loop {
        let page = engine.log().read(&log_name(log), at, page).await.expect("read");
        if page.items.is_empty() {
            assert_eq!(page.next, at);
            return out;
        }
        for item in page.items {
            out.push_str(std::str::from_utf8(&item.payload).expect("text"));
        }
        assert!(page.next > at, "a page goes forward");
        at = page.next;
    }
}

pub(super) async fn idempotent_by_offset(engine: &Engine) {
    let state = append(engine, "output.j", vec![item(Position::At(0), "abc"), item(Position::At(3), "de")])
        .await
        .expect("append");
    assert_eq!((state.oldest, state.end, state.bytes), (0, 5, 5));
    // The same again, and with something new behind it.
    let again = vec![item(Position::At(0), "abc"), item(Position::At(3), "de"), item(Position::At(5), "f")];
    assert_eq!(append(engine, "output.j", again.clone()).await.expect("append").end, 6);
    let state = engine.log().append(&log_name("output.j"), again, Durability::Always).await.expect("append");
    assert_eq!((state.end, state.bytes), (6, 6));
    assert_eq!(text(engine, "output.j", 0, 100).await, "abcdef");
    assert_eq!(engine.log().state(&log_name("output.j")).await.expect("state"), Some(state));
    assert_eq!(engine.log().state(&log_name("output.none")).await.expect("state"), None);
}

pub(super) async fn idempotent_by_source(engine: &Engine) {
    let at = |source_id, payload| Append { span: 1, ..item(Position::Next { source_id }, payload) };
    let state = append(engine, "events", vec![at(5, "a"), at(9, "b")]).await.expect("append");
    assert_eq!((state.end, state.last_source_id), (2, 9));
    let state = append(engine, "events", vec![at(5, "a"), at(9, "b"), at(12, "c"), at(12, "c")])
        .await
        .expect("append");
    assert_eq!((state.end, state.last_source_id), (3, 12));
    assert_eq!(text(engine, "events", 0, 100).await, "abc");
    let plain = Append { span: 1, ..item(Position::End, "d") };
    assert_eq!(append(engine, "events", vec![plain]).await.expect("append").last_source_id, 12);
}

pub(super) async fn holes(engine: &Engine) {
    let hole = append(engine, "h", vec![item(Position::At(3), "abc")]).await;
    assert!(matches!(hole, Err(Error::Hole { end: 0 })));
    assert_eq!(engine.log().state(&log_name("h")).await.expect("state"), None);
    append(engine, "h", vec![item(Position::At(0), "abc")]).await.expect("append");
    for (offset, payload) in [(4, "x"), (2, "xyz"), (0, "abcd")] {
        let hole = append(engine, "h", vec![item(Position::At(offset), payload)]).await;
        assert!(matches!(hole, Err(Error::Hole { end: 3 })), "{offset} {payload}");
    }
    assert_eq!(text(engine, "h", 0, 100).await, "abc");
}

pub(super) async fn reads_contain_the_offset(engine: &Engine) {
    let items = vec![
        item(Position::End, "abc"),
        Append { span: 10, ..item(Position::End, "de") },
        item(Position::End, "fgh"),
    ];
    append(engine, "r", items).await.expect("append");
    for (from, starts) in [(0, 0), (2, 0), (3, 3), (12, 3), (13, 13), (15, 13)] {
        let page = engine.log().read(&log_name("r"), from, 1000).await.expect("read");
        assert_eq!(page.items[0].offset, starts, "reading from {from}");
        assert!(from < starts + page.items[0].span);
        assert_eq!((page.next, page.end, page.oldest), (16, 16, 0));
    }
    let page = engine.log().read(&log_name("r"), 0, 1000).await.expect("read");
    let spans: Vec<_> = page.items.iter().map(|item| (item.offset, item.span)).collect();
    assert_eq!(spans, [(0, 3), (3, 10), (13, 3)]);
    for beyond in [16, 17, 1000] {
        let page = engine.log().read(&log_name("r"), beyond, 1000).await.expect("read");
        assert!(page.items.is_empty() && page.next == beyond && page.end == 16);
    }
    assert!(matches!(engine.log().read(&log_name("none"), 0, 1).await, Err(Error::NotFound { .. })));
}

pub(super) async fn pages(engine: &Engine) {
    let all: Vec<_> = (0..500).map(|n| item(Position::End, &format!("{n},"))).collect();
    let expected = (0..500).map(|n| format!("{n},")).collect::<Vec<_>>().concat();
    append(engine, "p", all).await.expect("append");
    for page in [0, 1, 10, 100_000] {
        assert!(text(engine, "p", 0, page).await == expected, "pages of {page}");
    }
    // Large items: one always fits, two only where they do.
    for n in 0..4u8 {
        let payload = Bytes::from(vec![n; MAX_ITEM]);
        let large = Append { position: Position::End, span: MAX_ITEM as u64, payload };
        append(engine, "large", vec![large]).await.expect("append");
    }
    let page = engine.log().read(&log_name("large"), 1, 1).await.expect("read");
    assert_eq!((page.items.len(), page.next), (1, MAX_ITEM as u64));
    let page = engine.log().read(&log_name("large"), 0, 3 * MAX_ITEM).await.expect("read");
    assert_eq!((page.items.len(), page.next), (3, 3 * MAX_ITEM as u64));
    assert!(page.items.iter().enumerate().all(|(n, item)| item.payload == vec![n as u8; MAX_ITEM]));
}

pub(super) async fn trims(engine: &Engine) {
    let log = log_name("t");
    engine.log().trim(&log, 5).await.expect("nothing to trim");
    append(engine, "t", ["abc", "de", "fgh"].map(|text| item(Position::End, text)).to_vec())
        .await
        .expect("append");
    // Inside an item: it stays.
    engine.log().trim(&log, 4).await.expect("trim");
    assert!(matches!(engine.log().read(&log, 0, 10).await, Err(Error::Gap { oldest: 3 })));
    assert_eq!(text(engine, "t", 3, 100).await, "defgh");
    let state = engine.log().state(&log).await.expect("state").expect("there");
    assert_eq!((state.oldest, state.end, state.bytes), (3, 8, 5));
    engine.log().trim(&log, 1).await.expect("already trimmed");
    // Beyond the end: all of it, and it goes on from where it was.
    engine.log().trim(&log, 100).await.expect("trim");
    let state = engine.log().state(&log).await.expect("state").expect("there");
    assert_eq!((state.oldest, state.end, state.bytes), (8, 8, 0));
    assert_eq!(append(engine, "t", vec![item(Position::At(8), "i")]).await.expect("append").end, 9);
    assert_eq!(text(engine, "t", 8, 100).await, "i");
    // Many items at once.
    for _ in 0..6 {
        append(engine, "many", vec![item(Position::End, "x"); MAX_APPEND_ITEMS]).await.expect("append");
    }
    let many = log_name("many");
    engine.log().trim(&many, 5 * MAX_APPEND_ITEMS as u64 + 7).await.expect("trim");
    let state = engine.log().state(&many).await.expect("state").expect("there");
    assert_eq!((state.oldest, state.bytes), (5007, 993));
}

pub(super) async fn tails(engine: &Engine) {
    let log = log_name("followed");
    let mut tail = engine.log().tail(&log).await.expect("tail");
    assert_eq!(*tail.borrow_and_update(), 0);
    append(engine, "followed", vec![item(Position::End, "abc")]).await.expect("append");
    tokio::time::timeout(PATIENCE, tail.changed()).await.expect("in time").expect("open");
    assert_eq!(*tail.borrow_and_update(), 3);
    assert_eq!(*engine.log().tail(&log).await.expect("tail").borrow(), 3);
    // What is told is already readable.
    let reader = tokio::spawn({
        let engine = engine.clone();
        async move {
            let log = log_name("followed");
            let mut at = 3;
            while at < 103 {
                tail.changed().await.expect("open");
                let end = *tail.borrow_and_update();
                let page = engine.log().read(&log, at, 1 << 20).await.expect("read");
                assert!(page.next >= end, "the tail says {end}, the log ends at {}", page.next);
                at = page.next;
            }
            tail
        }
    });
    for _ in 0..100 {
        append(engine, "followed", vec![item(Position::End, "x")]).await.expect("append");
    }
    let mut tail = tokio::time::timeout(PATIENCE, reader).await.expect("in time").expect("reader");
    // The reader may have read further than it was told.
    tail.mark_unchanged();
    engine.log().remove(&log).await.expect("remove");
    tokio::time::timeout(PATIENCE, tail.changed()).await.expect("in time").expect_err("gone");
}

pub(super) async fn removes(engine: &Engine) {
    let log = log_name("gone");
    engine.log().remove(&log).await.expect("nothing to remove");
    append(engine, "gone", vec![item(Position::At(0), "abc")]).await.expect("append");
    append(engine, "stays", vec![item(Position::At(0), "xyz")]).await.expect("append");
    engine.log().remove(&log).await.expect("remove");
    assert_eq!(engine.log().state(&log).await.expect("state"), None);
    assert!(matches!(engine.log().read(&log, 0, 1).await, Err(Error::NotFound { .. })));
    // A new one of the same name starts empty.
    assert_eq!(append(engine, "gone", vec![item(Position::At(0), "d")]).await.expect("append").end, 1);
    assert_eq!(text(engine, "gone", 0, 100).await, "d");
    assert_eq!(text(engine, "stays", 0, 100).await, "xyz");
}

pub(super) async fn limits(engine: &Engine) {
    let large = Append { position: Position::End, span: 1, payload: vec![0; MAX_ITEM + 1].into() };
    assert!(matches!(append(engine, "l", vec![large]).await, Err(Error::TooLarge { .. })));
    let many = vec![item(Position::End, "x"); MAX_APPEND_ITEMS + 1];
    assert!(matches!(append(engine, "l", many).await, Err(Error::TooLarge { .. })));
    let nothing = Append { span: 0, ..item(Position::End, "x") };
    assert!(matches!(append(engine, "l", vec![nothing]).await, Err(Error::Invalid { .. })));
    let memory =
        engine.log().append(&log_name("l"), vec![item(Position::End, "x")], Durability::Memory).await;
    assert!(matches!(memory, Err(Error::Invalid { .. })));
    assert_eq!(append(engine, "l", Vec::new()).await.expect("nothing").end, 0);
    let huge = u64::MAX - 1;
    assert!(matches!(
        append(engine, "l", vec![item(Position::At(huge), "x")]).await,
        Err(Error::Hole { .. })
    ));
}

/// One item of an append that does not fit refuses them all.
pub(super) async fn all_or_nothing(engine: &Engine) {
    append(engine, "a", vec![item(Position::At(0), "abc")]).await.expect("append");
    let torn = vec![item(Position::At(3), "de"), item(Position::At(9), "f")];
    assert!(matches!(append(engine, "a", torn).await, Err(Error::Hole { end: 3 })));
    assert_eq!(text(engine, "a", 0, 100).await, "abc");
    // Many writers of one log at its end: everything is there once.
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..8 {
        let engine = engine.clone();
        tasks.spawn(async move {
            for _ in 0..20 {
                append(&engine, "shared", vec![item(Position::End, &n.to_string())]).await.expect("append");
            }
        });
    }
    tasks.join_all().await;
    let all = text(engine, "shared", 0, 64).await;
    for n in 0..8 {
        assert_eq!(all.matches(&n.to_string()).count(), 20);
    }
}
