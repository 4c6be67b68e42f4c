//! The text frames: JSON-RPC 2.0 requests, responses and notifications. No batches: ids pipeline.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::error::{Code, Error};

/// The id that joins a response to its request. This build makes numbers; other programs may use text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Id {
    /// A number.
    Number(u64),
    /// A text of at most 64 bytes.
    Text(String),
}

/// Where a call came from: goes through hub, agent, event, audit and log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// The first caller's request id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

impl Cause {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.request.is_none() && self.traceparent.is_none()
    }
}

/// A text frame, read without copying or parsing parameters and results.
#[derive(Debug)]
pub enum Incoming<'a> {
    /// A call that wants an answer.
    Request {
        /// Joins the answer to it.
        id: Id,
        /// The operation.
        method: Cow<'a, str>,
        /// Its parameters, unparsed; absent means none.
        params: Option<&'a RawValue>,
        /// Where it came from.
        cause: Cause,
    },
    /// A call that wants no answer and never changes anything.
    Notification {
        /// What it is about.
        method: Cow<'a, str>,
        /// Its parameters, unparsed.
        params: Option<&'a RawValue>,
    },
    /// The answer to a call of ours.
    Response {
        /// The call's id; absent where the other side could not read it.
        id: Option<Id>,
        /// The result, unparsed, or the error.
        result: Result<&'a RawValue, Error>,
    },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow, default)]
    jsonrpc: Option<Cow<'a, str>>,
    #[serde(default)]
    id: Option<Id>,
    #[serde(borrow, default)]
    method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<ErrorObject>,
    #[serde(default)]
    cause: Option<Cause>,
}

/// The JSON-RPC error object: our stable code stands in `data.code`.
#[derive(Debug, Serialize, Deserialize)]
struct ErrorObject {
    code: i64,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<ErrorData>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ErrorData {
    code: Code,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    details: Option<Box<Value>>,
}

/// Why a text frame is not a JSON-RPC message. The id is there where it could be read, so that it can be answered.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Malformed {
    /// The request's id, where one could be read.
    pub id: Option<Id>,
    /// The JSON-RPC number: -32700 not JSON, -32600 not a request.
    pub number: i32,
    /// What is wrong.
    pub message: String,
}

impl<'a> Incoming<'a> {
    /// Reads one text frame.
    pub fn parse(text: &'a str) -> Result<Self, Malformed> {
        if text.trim_start().starts_with('[') {
            return Err(Malformed {
                id: None,
                number: -32600,
                message: "batches are not supported: send each request as a message of its own; ids pipeline"
                    .into(),
            });
        }
        let envelope: Envelope<'a> = serde_json::from_str(text).map_err(|error| Malformed {
            id: None,
            number: if error.is_data() { -32600 } else { -32700 },
            message: format!("not a JSON-RPC message: {error}"),
        })?;
        let malformed =
            |id: Option<Id>, message: &str| Malformed { id, number: -32600, message: message.into() };
        if envelope.jsonrpc.as_deref() != Some("2.0") {
            return Err(malformed(envelope.id, "the member 'jsonrpc' must be \"2.0\""));
        }
        if matches!(&envelope.id, Some(Id::Text(text)) if text.len() > 64) {
            return Err(malformed(None, "the member 'id' must be a number or a text of at most 64 bytes"));
        }
        match (envelope.method, envelope.result, envelope.error) {
            (Some(method), None, None) => Ok(match envelope.id {
                Some(id) => Self::Request {
                    id,
                    method,
                    params: envelope.params,
                    cause: envelope.cause.unwrap_or_default(),
                },
                None => Self::Notification { method, params: envelope.params },
            }),
            (None, Some(result), None) => Ok(Self::Response { id: envelope.id, result: Ok(result) }),
            (None, None, Some(error)) => Ok(Self::Response { id: envelope.id, result: Err(error.into()) }),
            _ => Err(malformed(envelope.id, "a message has either 'method', or 'result', or 'error'")),
        }
    }
}

impl From<ErrorObject> for Error {
    fn from(object: ErrorObject) -> Self {
        match object.data {
            Some(data) => Self {
                code: data.code,
                message: object.message,
                retry_after_ms: data.retry_after_ms,
                details: data.details,
            },
            None => Self::new(
                match object.code {
                    -32601 => Code::NotFound,
                    -32700 | -32600 | -32602 => Code::Invalid,
                    _ => Code::Internal,
                },
                object.message,
            ),
        }
    }
}

/// A request as text.
pub fn request(id: u64, method: &str, params: &RawValue, cause: &Cause) -> String {
    #[derive(Serialize)]
    struct Out<'a> {
        jsonrpc: &'static str,
        id: u64,
        method: &'a str,
        params: &'a RawValue,
        #[serde(skip_serializing_if = "Option::is_none")]
        cause: Option<&'a Cause>,
    }
    let cause = (!cause.is_empty()).then_some(cause);
    encode(&Out { jsonrpc: "2.0", id, method, params, cause })
}

/// A notification as text.
pub fn notification<T: Serialize>(method: &str, params: &T) -> String {
    #[derive(Serialize)]
    struct Out<'a, T> {
        jsonrpc: &'static str,
        method: &'a str,
        params: &'a T,
    }
    encode(&Out { jsonrpc: "2.0", method, params })
}

/// A successful response as text.
pub fn response(id: &Id, result: &RawValue) -> String {
    #[derive(Serialize)]
    struct Out<'a> {
        jsonrpc: &'static str,
        id: &'a Id,
        result: &'a RawValue,
    }
    encode(&Out { jsonrpc: "2.0", id, result })
}

/// A failed response as text.
pub fn failure(id: Option<&Id>, error: &Error) -> String {
    failure_numbered(id, error.code.rpc_number(), error)
}

/// The answer to a text frame that is not a message.
pub fn malformed(problem: &Malformed) -> String {
    failure_numbered(problem.id.as_ref(), problem.number, &Error::invalid(problem.message.clone()))
}

/// The answer to a method that does not exist.
pub fn no_such_method(id: &Id, method: &str) -> String {
    failure_numbered(Some(id), -32601, &unknown_operation(method))
}

/// The error for an operation that does not exist.
pub fn unknown_operation(method: &str) -> Error {
    let shown: String = method.chars().filter(|c| !c.is_control()).take(64).collect();
    Error::not_found(format!("there is no operation '{shown}'; operation.list names them all"))
}

fn failure_numbered(id: Option<&Id>, number: i32, error: &Error) -> String {
    #[derive(Serialize)]
    struct Out<'a> {
        jsonrpc: &'static str,
        id: Option<&'a Id>,
        error: ErrorObject,
    }
    encode(&Out {
        jsonrpc: "2.0",
        id,
        error: ErrorObject {
            code: i64::from(number),
            message: error.message.clone(),
            data: Some(ErrorData {
                code: error.code,
                retry_after_ms: error.retry_after_ms,
                details: error.details.clone(),
            }),
        },
    })
}

fn encode<T: Serialize>(value: &T) -> String {
    // Our own types encode always; should one ever not, the other side gets an error it can read.
    serde_json::to_string(value).unwrap_or_else(|error| {
        json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32603, "message": error.to_string(),
               "data": {"code": "internal"}}})
        .to_string()
    })
}

/// Any value of ours as raw JSON.
pub fn raw<T: Serialize>(value: &T) -> Result<Box<RawValue>, Error> {
    serde_json::value::to_raw_value(value)
        .map_err(|error| Error::internal(format!("cannot encode as JSON: {error}")))
}

/// Reads parameters; absent ones count as `{}`.
pub fn params<'a, T: Deserialize<'a>>(params: Option<&'a RawValue>) -> Result<T, Error> {
    serde_json::from_str(params.map_or("{}", RawValue::get))
        .map_err(|error| Error::invalid(format!("wrong parameters: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn requests_and_answers() {
        let raw = RawValue::from_string("{\"key\":\"a\"}".into()).expect("json");
        let text = request(1, "data.get", &raw, &Cause::default());
        assert_eq!(text, r#"{"jsonrpc":"2.0","id":1,"method":"data.get","params":{"key":"a"}}"#);
        let Ok(Incoming::Request { id, method, params, .. }) = Incoming::parse(&text) else {
            panic!("request")
        };
        assert_eq!(
            (id, method.as_ref(), params.map(RawValue::get)),
            (Id::Number(1), "data.get", Some(raw.get()))
        );

        let error = Error::conflict("it changed").with_retry_after_ms(5).with_details(json!({"revision": 3}));
        let text = failure(Some(&Id::Text("x".into())), &error);
        let Ok(Incoming::Response { id: Some(Id::Text(id)), result: Err(back) }) = Incoming::parse(&text)
        else {
            panic!("failure")
        };
        assert_eq!((id.as_str(), back), ("x", error));
    }

    #[test]
    fn wrong_messages_say_what_is_wrong() {
        let number = |text: &str| Incoming::parse(text).err().map(|problem| problem.number);
        assert_eq!(number("{"), Some(-32700));
        assert_eq!(number("[]"), Some(-32600));
        assert_eq!(number("1"), Some(-32600));
        assert_eq!(number(r#"{"id":1,"method":"a"}"#), Some(-32600));
        assert_eq!(number(r#"{"jsonrpc":"2.0","id":1}"#), Some(-32600));
        assert_eq!(number(r#"{"jsonrpc":"2.0","id":1,"method":"a","result":1}"#), Some(-32600));
        assert_eq!(number(r#"{"jsonrpc":"2.0","id":{},"method":"a"}"#), Some(-32600));
        assert!(
            number(&format!(r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{}}}"#, "[".repeat(5000)))
                .is_some()
        );
    }

    #[test]
    fn a_foreign_error_without_our_data_is_understood() {
        let text = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}"#;
        let Ok(Incoming::Response { result: Err(error), .. }) = Incoming::parse(text) else {
            panic!("failure")
        };
        assert_eq!(error.code, Code::NotFound);
    }

    proptest! {
        #[test]
        fn never_panics(text: String) {
            let _ = Incoming::parse(&text);
        }
    }
}
