//! What crosses the wire.

use bytes::Bytes;
use datacentered_proto::frame::Frame;
use datacentered_proto::operations::{Part, find, recode};
use datacentered_proto::ops::{StreamClose, StreamCredit, StreamEnd, StreamGap, StreamItem, StreamOpen};
use datacentered_proto::rpc::{self, Cause, Id, Incoming};
use datacentered_proto::{
    AuditId, ByteString, Cursor, Error, Evidence, HostId, JobId, JobState, OperationKey, Outcome, RunId,
    SessionId, Timestamp, TokenId, UserId,
};
use serde_json::value::RawValue;

use crate::support::{halves, json, spelled, text};

/// Binary frames.
pub(crate) fn frame(bytes: &[u8]) {
    if let Ok(frame) = Frame::decode(Bytes::copy_from_slice(bytes)) {
        assert_eq!(frame.encode(), bytes);
    }
}

/// Text frames. What is answered to a message that is none is a message itself.
pub(crate) fn message(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    match Incoming::parse(text) {
        Err(problem) => {
            let answer = rpc::malformed(&problem);
            assert!(
                matches!(Incoming::parse(&answer), Ok(Incoming::Response { result: Err(_), .. })),
                "{answer}"
            );
        }
        Ok(Incoming::Request { id: Id::Number(id), method, params: Some(params), cause }) => {
            let again = rpc::request(id, &method, params, &cause);
            let Ok(Incoming::Request { id: i, method: m, params: p, cause: c }) = Incoming::parse(&again)
            else {
                panic!("a request is written as something else: {again}");
            };
            assert_eq!((i, m, p.map(RawValue::get), c), (Id::Number(id), method, Some(params.get()), cause));
        }
        Ok(Incoming::Request { id, method, .. }) => {
            let refused = rpc::no_such_method(&id, &method);
            let Ok(Incoming::Response { id: answered, result: Err(_) }) = Incoming::parse(&refused) else {
                panic!("a refusal is written as something else: {refused}");
            };
            assert_eq!(answered, Some(id));
        }
        Ok(Incoming::Notification { method, params }) => {
            let again = rpc::notification(&method, &params);
            assert!(matches!(Incoming::parse(&again), Ok(Incoming::Notification { .. })), "{again}");
        }
        Ok(Incoming::Response { id, result: Ok(result) }) => {
            let Some(id) = id else { return };
            let again = rpc::response(&id, result);
            let Ok(Incoming::Response { id: i, result: Ok(r) }) = Incoming::parse(&again) else {
                panic!("a response is written as something else: {again}");
            };
            assert_eq!((i, r.get()), (Some(id), result.get()));
        }
        Ok(Incoming::Response { id, result: Err(error) }) => {
            let again = rpc::failure(id.as_ref(), &error);
            let Ok(Incoming::Response { id: i, result: Err(e) }) = Incoming::parse(&again) else {
                panic!("an error is written as something else: {again}");
            };
            assert_eq!((i, e), (id, error));
        }
    }
}

/// Ids, cursors and moments as text.
pub(crate) fn texts(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    spelled::<Cursor>(text);
    spelled::<Timestamp>(text);
    spelled::<HostId>(text);
    spelled::<RunId>(text);
    spelled::<JobId>(text);
    spelled::<UserId>(text);
    spelled::<TokenId>(text);
    spelled::<SessionId>(text);
    spelled::<OperationKey>(text);
    spelled::<AuditId>(text);
    // An id has one spelling only, so that it is a unique key.
    if let Ok(id) = text.parse::<RunId>() {
        assert_eq!(id.to_string(), text);
    }
}

/// Values that stand inside others, and the notifications of streams.
pub(crate) fn values(bytes: &[u8]) {
    json::<ByteString>(bytes);
    json::<Cursor>(bytes);
    json::<Timestamp>(bytes);
    json::<Outcome>(bytes);
    json::<Evidence>(bytes);
    json::<JobState>(bytes);
    json::<Error>(bytes);
    json::<Cause>(bytes);
    json::<Id>(bytes);
    json::<StreamOpen>(bytes);
    json::<StreamCredit>(bytes);
    json::<StreamClose>(bytes);
    json::<StreamGap>(bytes);
    json::<StreamEnd>(bytes);
    if let Ok(item) = serde_json::from_slice::<StreamItem<serde_json::Value>>(bytes) {
        let written = serde_json::to_string(&item).expect("what was read can be written");
        let again: StreamItem<serde_json::Value> = serde_json::from_str(&written).expect("reads back");
        assert_eq!((item.stream, item.cursor), (again.stream, again.cursor));
    }
}

/// Parameters, reply and items of every operation of the table: `NAME`, a zero byte, the JSON. What is written of what was
/// read is read as the same.
pub(crate) fn operation(bytes: &[u8]) {
    let (name, body) = halves(bytes);
    let (Some(name), Some(body)) = (text(name), text(body)) else { return };
    if find(name).is_none() {
        return;
    }
    for part in [Part::Params, Part::Reply, Part::Item] {
        if let Some(written) = recode(name, part, body) {
            let again = recode(name, part, &written);
            assert_eq!(again.as_deref(), Some(written.as_str()), "{name} {part:?}");
        }
    }
}
