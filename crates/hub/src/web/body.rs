//! Reading what a request brings, within limits of size and time.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use datacentered_proto::Error;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::header::{CONTENT_TYPE, HeaderMap};
use serde_json::value::RawValue;

use crate::config::Limits;

/// Most members of a form or query.
const MAX_PAIRS: usize = 16;

/// The whole body.
///
/// Errors: `too_large`, and `invalid` when it does not come in time or breaks off.
pub(super) async fn read(body: Body, limits: &Limits) -> Result<Bytes, Error> {
    let read = Limited::new(body, limits.max_body).collect();
    match tokio::time::timeout(Duration::from_millis(limits.body_timeout_ms), read).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Error::too_large(format!(
            "the body is larger than {} bytes (limits.max_body)",
            limits.max_body
        ))),
        Ok(Err(_)) => Err(Error::invalid("the body broke off before its end")),
        Err(_) => Err(Error::invalid(format!(
            "the body did not come within {} ms (limits.body_timeout_ms)",
            limits.body_timeout_ms
        ))),
    }
}

/// The parameters in a body: a JSON object, or nothing.
pub(super) fn parameters(headers: &HeaderMap, body: &Bytes) -> Result<Option<Box<RawValue>>, Error> {
    if body.is_empty() {
        return Ok(None);
    }
    // Forms of foreign pages can send other types without asking, but not this one.
    if !is_type(headers, "application/json") {
        return Err(Error::invalid("the parameters must be JSON, with 'Content-Type: application/json'"));
    }
    let text = std::str::from_utf8(body).map_err(|_| Error::invalid("the parameters are not UTF-8"))?;
    object(text).map(Some)
}

/// A text that is a JSON object.
pub(super) fn object(text: &str) -> Result<Box<RawValue>, Error> {
    let raw = RawValue::from_string(text.trim().to_owned())
        .map_err(|error| Error::invalid(format!("the parameters are not JSON: {error}")))?;
    if !raw.get().starts_with('{') {
        return Err(Error::invalid("the parameters must be a JSON object"));
    }
    Ok(raw)
}

/// Whether the body is said to be of this type.
pub(super) fn is_type(headers: &HeaderMap, wanted: &str) -> bool {
    let said = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    said.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted)
}

/// A member of a form or query: its name and value.
pub(super) type Pair<'a> = (Cow<'a, str>, Cow<'a, str>);

/// The members of a form or query; one that comes twice is refused.
pub(super) fn pairs(encoded: &[u8]) -> Result<Vec<Pair<'_>>, Error> {
    let mut found: Vec<Pair<'_>> = Vec::new();
    for (name, value) in form_urlencoded::parse(encoded) {
        if found.len() == MAX_PAIRS || found.iter().any(|(other, _)| *other == name) {
            return Err(Error::invalid("a member is there twice, or there are too many"));
        }
        found.push((name, value));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use datacentered_proto::Code;
    use hyper::header::HeaderValue;

    #[test]
    fn parameters_are_an_object_of_json() {
        let mut headers = HeaderMap::new();
        assert!(parameters(&headers, &Bytes::new()).expect("nothing").is_none());
        assert!(parameters(&headers, &Bytes::from_static(b"{}")).is_err(), "without a type");
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("Application/JSON; charset=utf-8"));
        let read = |text: &'static str| parameters(&headers, &Bytes::from_static(text.as_bytes()));
        assert_eq!(read(" {\"a\":1} ").expect("object").expect("some").get(), "{\"a\":1}");
        for bad in ["[]", "1", "null", "{", "{} {}", "\"{\""] {
            assert_eq!(read(bad).expect_err(bad).code, Code::Invalid);
        }
    }

    #[test]
    fn pairs_come_once() {
        assert_eq!(pairs(b"a=1&b=%20+x").expect("pairs")[1].1, "  x");
        assert!(pairs(b"a=1&a=2").is_err());
    }

    #[tokio::test]
    async fn bodies_are_bounded() {
        let limits = Limits { max_body: 1024, body_timeout_ms: 100, ..Limits::default() };
        let read = |body| async { read(body, &limits).await };
        assert_eq!(read(Body::from(vec![0; 1024])).await.expect("fits").len(), 1024);
        assert_eq!(read(Body::from(vec![0; 1025])).await.expect_err("large").code, Code::TooLarge);
        let never = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        assert_eq!(read(Body::from_stream(never)).await.expect_err("slow").code, Code::Invalid);
    }
}
