//! Failures as problem details (RFC 9457).

use axum::response::{IntoResponse, Response};
use datacentered_proto::{Code, Error};
use hyper::StatusCode;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;
use serde_json::Value;

/// An error on its way to an HTTP client.
#[derive(Debug)]
pub(super) struct Problem(pub(super) Error);

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    code: Code,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a Value>,
}

fn title(code: Code) -> &'static str {
    match code {
        Code::Unauthenticated => "No valid credential",
        Code::Forbidden => "Not allowed",
        Code::NotFound => "Not found",
        Code::Conflict => "Another state than expected",
        Code::Invalid => "Malformed request",
        Code::Offline => "The host is not connected",
        Code::Limited => "A limit is reached",
        Code::TooLarge => "Too large",
        Code::Unavailable => "Not possible now",
        Code::Indeterminate => "It may have happened",
        Code::Internal => "A fault of the hub",
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.0.code.http_status();
        respond(&self.0, status)
    }
}

/// The address is right and the method is not. `allow` names the one that is.
pub(super) fn wrong_method(message: impl Into<String>, allow: Option<&'static str>) -> Response {
    let mut response = respond(&Error::invalid(message), StatusCode::METHOD_NOT_ALLOWED.as_u16());
    if let Some(allow) = allow {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
    }
    response
}

fn respond(error: &Error, status: u16) -> Response {
    let document = Document {
        r#type: format!("urn:datacentered:error:{}", error.code),
        title: title(error.code),
        status,
        detail: &error.message,
        code: error.code,
        retry_after_ms: error.retry_after_ms,
        details: error.details.as_deref(),
    };
    let body = serde_json::to_string(&document).unwrap_or_else(|_| "{}".into());
    let mut response = Response::new(body.into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if error.code == Code::Unauthenticated {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"datacentered\""));
    }
    if let Some(ms) = error.retry_after_ms {
        headers.insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000).max(1)));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn the_document_has_what_the_standard_and_the_protocol_ask_for() {
        let error =
            Error::limited("slow down").with_retry_after_ms(1500).with_details(serde_json::json!({"n": 1}));
        let response = Problem(error).into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.headers()["retry-after"], "2");
        let body = response.into_body().collect().await.expect("body").to_bytes();
        let document: Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(
            document,
            serde_json::json!({
                "type": "urn:datacentered:error:limited", "title": "A limit is reached", "status": 429,
                "detail": "slow down", "code": "limited", "retry_after_ms": 1500, "details": {"n": 1}
            })
        );
    }

    #[test]
    fn who_is_not_known_is_told_how_to_be() {
        let response = Problem(Error::unauthenticated("x")).into_response();
        assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"datacentered\"");
    }
}
