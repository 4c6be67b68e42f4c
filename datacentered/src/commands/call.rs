//! `call` and `operation list`: any operation, by name.

use std::io::Read;

use bytes::Bytes;
use datacentered_client::{Client, ItemEvent};
use datacentered_proto::operations::{self, OperationList};
use datacentered_proto::ops::NoParams;
use datacentered_proto::ops::StreamOpen;
use datacentered_proto::rpc;
use datacentered_proto::{Cursor, Effect, OperationSpec, Served, limits};
use serde_json::{Map, Value, json};

use crate::args::Global;
use crate::args::client::{Call, Operation};
use crate::connect;
use crate::failure::{Failure, Result};
use crate::text::clean::clean;
use crate::ui::state::StateLine;
use crate::ui::writer::{Stream, Writer};
use crate::ui::{self, Ui, connection, table};

/// `call OPERATION [JSON]`.
pub(crate) async fn run(ui: Ui, global: &Global, call: Call) -> Result<()> {
    let params = read_params(&call.params)?;
    let client = connect::connect(global).await?;
    let result = make(ui, &client, &call.operation, params).await;
    connect::finish(client, result).await
}

async fn make(ui: Ui, client: &Client, operation: &str, mut params: Map<String, Value>) -> Result<()> {
    let spec = operations::find(operation);
    if let Some(spec) = spec {
        complete(spec, &mut params, &client.clock().key().to_string());
    }
    match spec.map(|spec| spec.effect) {
        Some(Effect::Items) => items(ui, client, operation, params).await,
        Some(Effect::Bytes | Effect::Upload) => {
            Err(Failure::usage(format!("{operation} is a stream of bytes, which has a command of its own"))
                .hint("run.output: 'datacentered run attach'; run.input: 'datacentered run -i'; hub.backup: 'datacentered hub backup'"))
        }
        // An operation of a newer hub is not in our table; the hub knows it.
        Some(Effect::Read | Effect::Change) | None => {
            let params = rpc::raw(&params).map_err(|error| Failure::usage(error.message))?;
            let reply = client.call_raw(operation, &params).await?;
            let reply: Value = serde_json::from_str(reply.get())
                .map_err(|error| Failure::failed(format!("the hub's reply is not understood: {error}")))?;
            ui.document(&reply)
        }
    }
}

/// Gives a change its key where it has none. A run's id is the key of its creation.
fn complete(spec: &OperationSpec, params: &mut Map<String, Value>, key: &str) {
    if spec.effect == Effect::Change && spec.served == Served::Hub && !params.contains_key("key") {
        params.insert("key".to_owned(), Value::String(key.to_owned()));
    }
}

async fn items(ui: Ui, client: &Client, operation: &str, params: Map<String, Value>) -> Result<()> {
    let from = params.get("cursor").and_then(Value::as_str).map(str::parse::<Cursor>).transpose();
    let from = from.map_err(|error| Failure::usage(format!("the parameter 'cursor' is {error}")))?;
    let mut stream = client.items_raw(operation, from, move |cursor, open: StreamOpen| {
        let mut params = params.clone();
        params.insert("stream".to_owned(), json!(open));
        match cursor {
            Some(cursor) => params.insert("cursor".to_owned(), json!(cursor)),
            None => params.remove("cursor"),
        };
        rpc::raw(&params)
    });
    let state = StateLine::hidden();
    let writer = Writer::start(state.clone())?;
    let mut telling = std::pin::pin!(connection::tell(ui, &state, client));
    let ended: Result<()> = loop {
        tokio::select! {
            event = stream.next() => {
                let line = match event {
                    Ok(Some(ItemEvent::Item { cursor, value })) => json!({"cursor": cursor, "value": value}),
                    Ok(Some(ItemEvent::Gap)) => json!({"gap": true}),
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error.into()),
                };
                let line = ui::encode_line(&line)? + "\n";
                if writer.write(Stream::Out, Bytes::from(line)).await.is_err() {
                    break Ok(());
                }
            }
            never = &mut telling => match never {},
            _ = tokio::signal::ctrl_c() => break Ok(()),
        }
    };
    writer.finish().await?;
    ended
}

fn read_params(given: &str) -> Result<Map<String, Value>> {
    let text = if given == "-" {
        let mut text = String::new();
        std::io::stdin().lock().take(limits::MAX_MESSAGE as u64).read_to_string(&mut text).map_err(
            |error| Failure::usage(format!("cannot read the parameters from standard input: {error}")),
        )?;
        text
    } else {
        given.to_owned()
    };
    serde_json::from_str(&text).map_err(|error| {
        Failure::usage(format!("the parameters are not a JSON object: {error}"))
            .hint("for example: datacentered call host.show '{\"host\":\"web1\"}'")
    })
}

/// `operation ...`.
pub(crate) async fn operation(ui: Ui, global: &Global, command: Operation) -> Result<()> {
    let Operation::List = command;
    let client = connect::connect(global).await?;
    let reply = client.call::<OperationList>(&NoParams {}).await.map_err(Failure::from);
    let operations = connect::finish(client, reply).await?.operations;
    if ui.json() {
        return ui.document(&operations);
    }
    let rows = operations.iter().map(|operation| {
        [
            clean(&operation.name),
            clean(&operation.permission),
            clean(&operation.effect),
            clean(operation.doc.trim()),
        ]
    });
    ui.line(&table::table(["OPERATION", "PERMISSION", "EFFECT", "WHAT IT DOES"], rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_get_a_key_and_keep_their_own() {
        let completed = |operation: &str, params: Value| {
            let Value::Object(mut params) = params else { panic!("an object") };
            complete(operations::find(operation).expect("known"), &mut params, "new");
            Value::Object(params)
        };
        assert_eq!(completed("host.remove", json!({"host": "a"})), json!({"host": "a", "key": "new"}));
        assert_eq!(
            completed("host.remove", json!({"host": "a", "key": "old"})),
            json!({"host": "a", "key": "old"})
        );
        assert_eq!(completed("host.show", json!({"host": "a"})), json!({"host": "a"}));
    }

    #[test]
    fn parameters_are_an_object() {
        assert!(read_params("{}").is_ok());
        for wrong in ["", "[]", "1", "{", "null"] {
            assert_eq!(read_params(wrong).expect_err(wrong).exit, crate::failure::Exit::Usage);
        }
    }
}
