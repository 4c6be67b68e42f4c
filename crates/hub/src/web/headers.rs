//! What every request brings and every response carries: where it came from, and how browsers are to treat it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use datacentered_proto::rpc::Cause;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};

use super::Face;

/// Longest request id that is taken from a caller.
const MAX_REQUEST_ID: usize = 64;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What no response may be used for, unless a page says otherwise.
const API_POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Names the request, and protects the response.
pub(super) async fn around(State(face): State<Arc<Face>>, mut request: Request, next: Next) -> Response {
    let cause = cause(&face, request.headers());
    let id = cause.request.clone().and_then(|id| HeaderValue::try_from(id).ok());
    request.extensions_mut().insert(cause);
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if let Some(id) = id {
        headers.insert(X_REQUEST_ID, id);
    }
    protect(headers);
    if face.hub.identity.own_web_certificate() {
        // With a certificate that browsers do not trust they ignore it anyway.
        headers.insert(STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    response
}

fn protect(headers: &mut HeaderMap) {
    let mut default = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    default(CONTENT_SECURITY_POLICY, API_POLICY);
    default(X_CONTENT_TYPE_OPTIONS, "nosniff");
    default(X_FRAME_OPTIONS, "DENY");
    // Not `no-referrer`: with it browsers send forms with the origin `null`.
    default(REFERRER_POLICY, "same-origin");
    default(CACHE_CONTROL, "no-store");
    default(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    default(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    default(HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()");
}

/// Where a request came from: the caller's id, or a new one, and its trace.
fn cause(face: &Face, headers: &HeaderMap) -> Cause {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let plain = |id: &&str| {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        !id.is_empty() && id.len() <= MAX_REQUEST_ID && id.bytes().all(fits)
    };
    let request = text("x-request-id").filter(plain).map(ToOwned::to_owned);
    let request = request.unwrap_or_else(|| face.hub.clock.uuid().to_string());
    let traceparent = text("traceparent").filter(|trace| is_traceparent(trace)).map(ToOwned::to_owned);
    Cause { request: Some(request), traceparent }
}

/// W3C trace context, version 00: `00-TRACE-SPAN-FLAGS`.
pub(super) fn is_traceparent(text: &str) -> bool {
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let parts: Vec<&str> = text.split('-').collect();
    matches!(parts[..], ["00", trace, span, flags] if hex(trace, 32) && hex(span, 16) && hex(flags, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces() {
        assert!(is_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"));
        for bad in
            ["", "00", "00-x-y-z", "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "00-4BF9"]
        {
            assert!(!is_traceparent(bad), "{bad}");
        }
    }

    #[test]
    fn pages_keep_their_own_policy() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("mine"));
        protect(&mut headers);
        assert_eq!(headers[CONTENT_SECURITY_POLICY], "mine");
        assert_eq!(headers[X_FRAME_OPTIONS], "DENY");
        assert_eq!(headers[CACHE_CONTROL], "no-store");
    }
}
