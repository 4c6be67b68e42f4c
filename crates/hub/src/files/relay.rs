//! Bytes of files, from one link to another.

use datacentered_link::{StreamEvent, StreamReader, StreamWriter};
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::{EndReason, file::FILE_WINDOW};
use datacentered_proto::{Error, HostId};

use crate::hub::Hub;
use crate::outlet::Outlet;

/// From a host to whoever reads.
pub(super) async fn down(hub: &Hub, host: HostId, from: u64, mut reader: StreamReader, mut outlet: Outlet) {
    let mut at = from;
    loop {
        let event = tokio::select! {
            event = reader.next() => event,
            // Dropping the reader tells the host.
            () = outlet.closed() => return,
        };
        match event {
            Some(StreamEvent::Bytes { kind: Kind::File, offset, payload }) => {
                at = offset + payload.len() as u64;
                if outlet.bytes(Kind::File, offset, payload).await.is_err() {
                    return;
                }
            }
            Some(StreamEvent::End(end)) => {
                let error = match end.reason {
                    EndReason::Done => return outlet.end(EndReason::Done, end.offset, None).await,
                    _ => end.error.unwrap_or_else(|| cut_off(hub, host)),
                };
                return outlet.end(EndReason::Failed, at, Some(error)).await;
            }
            _ => {
                let error = cut_off(hub, host);
                return outlet.end(EndReason::Failed, at, Some(error)).await;
            }
        }
    }
}

fn cut_off(hub: &Hub, host: HostId) -> Error {
    let online = hub.live.is_online(host);
    let why = if online { "the host stopped sending" } else { "the link to the host was lost" };
    Error::unavailable(format!("{why}; read on from the last byte"))
}

/// From a client to a host.
pub(super) async fn up(mut reader: StreamReader, mut writer: StreamWriter) {
    reader.widen(FILE_WINDOW);
    loop {
        let event = tokio::select! {
            event = reader.next() => event,
            // Dropping the reader tells the client, which asks again and hears why from the host.
            () = writer.closed() => return,
        };
        match event {
            Some(StreamEvent::Bytes { kind: Kind::File, offset, payload }) => {
                if writer.send_bytes(Kind::File, offset, payload).await.is_err() {
                    return;
                }
            }
            Some(StreamEvent::End(end)) if end.reason == EndReason::Done => {
                let _ = writer.end(EndReason::Done, end.offset, None).await;
                return;
            }
            // Cut off: what the host has it keeps; dropping the writer says that there is more to come.
            _ => return,
        }
    }
}
