//! What requests bring, for fuzz targets. Each function panics where a property does not hold.

use bytes::Bytes;
use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use super::{body, call, credentials, headers};

/// The headers that say who calls, from where, and where a stream goes on.
pub(crate) fn request(method: &Method, given: &HeaderMap) {
    if let Ok(Some(token)) = credentials::bearer(given) {
        assert!(!token.is_empty() && token.trim() == token);
    }
    if let Some(value) = credentials::cookie(given) {
        assert!(!value.is_empty() && !value.contains(';'));
    }
    let own = credentials::require_own_page(method, given).is_ok();
    let says = given.contains_key("origin") || given.contains_key("sec-fetch-site");
    assert!(says || !own, "a cookie counted on a request that does not say where it comes from");
    if let Some(set) = credentials::login_cookie(given, "dc_x", 5) {
        assert!(set.is_sensitive());
    }
    if let Ok(Some(params)) = call::resumed(None, given) {
        assert!(body::object(params.get()).is_ok());
    }
    if let Some(trace) = given.get("traceparent").and_then(|value| value.to_str().ok()) {
        assert!(!headers::is_traceparent(trace) || trace.len() == 55);
    }
}

/// A body: as JSON parameters, and as a form.
pub(crate) fn content(bytes: &[u8]) {
    let mut json = HeaderMap::new();
    json.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let bytes = Bytes::copy_from_slice(bytes);
    if let Ok(Some(params)) = body::parameters(&json, &bytes) {
        // What is routed unparsed may still hold text that is none (half a surrogate pair): whoever reads it refuses it.
        let read = serde_json::from_str::<serde_json::Value>(params.get());
        assert!(read.as_ref().map_or(true, serde_json::Value::is_object));
        json.insert("last-event-id", HeaderValue::from_static("e1-5"));
        match call::resumed(Some(params), &json) {
            Ok(resumed) => {
                let resumed = resumed.expect("parameters");
                let value: serde_json::Value = serde_json::from_str(resumed.get()).expect("it is JSON");
                assert_eq!(value["cursor"], "e1-5");
            }
            Err(_) => assert!(read.is_err(), "an object was refused"),
        }
    }
    if let Ok(pairs) = body::pairs(&bytes) {
        assert!(
            pairs.iter().enumerate().all(|(at, (name, _))| pairs[..at].iter().all(|(one, _)| one != name))
        );
    }
}
