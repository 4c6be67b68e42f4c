//! Who a request speaks for: a token in its header, a cookie of the hub's own page, or its place on this machine.

use std::sync::Arc;

use datacentered_proto::Error;
use hyper::Method;
use hyper::header::{AUTHORIZATION, COOKIE, HeaderMap, HeaderValue, ORIGIN};

use super::Face;
use crate::access;
use crate::server::Connection;
use crate::sessions::{Peer, Who};

/// The cookie of a logged-in browser.
pub(super) const COOKIE_NAME: &str = "dc_session";

/// Most cookies looked at.
const MAX_COOKIES: usize = 64;

/// Who the request speaks for. An explicit token wins over everything the connection or the browser adds by itself.
///
/// Errors: `unauthenticated` for a credential that is no good (never silently nobody), `forbidden` for a cookie that came
/// from another page than the hub's own.
pub(super) async fn identify(
    face: &Arc<Face>,
    connection: &Connection,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Who, Error> {
    let hub = &face.hub;
    if !face.origins.allow(headers) {
        return Err(Error::forbidden(
            "web pages of this origin may not call the hub; name it in `origins` of hub.toml if they should",
        ));
    }
    let peer = connection.peer();
    if let Some(token) = bearer(headers)? {
        let who = access::authenticate(hub, token, &peer).await?;
        connection.authenticated();
        return Ok(who);
    }
    if let Peer::Local { uid, pid } = peer {
        return Ok(Who::local(uid, pid));
    }
    if let Some(token) = cookie(headers) {
        require_own_page(method, headers)?;
        let who = access::authenticate(hub, token, &peer).await?;
        connection.authenticated();
        return Ok(who);
    }
    Ok(Who::anonymous())
}

/// The token in the `Authorization` header.
pub(super) fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Error> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let token = value.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    match (token, values.next()) {
        (Some(token), None) if !token.is_empty() => Ok(Some(token)),
        _ => Err(Error::unauthenticated("the header Authorization must be one 'Bearer dc_...'")),
    }
}

/// The session cookie, where there is exactly one.
pub(super) fn cookie(headers: &HeaderMap) -> Option<&str> {
    let texts = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = texts.flat_map(|text| text.split(';')).take(MAX_COOKIES);
    let mut found = pairs.filter_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == COOKIE_NAME && !value.is_empty()).then_some(value)
    });
    let first = found.next()?;
    // Two of them: one was planted by a neighbouring name. Neither counts.
    found.next().is_none().then_some(first)
}

/// A browser adds cookies by itself, so that the request must also come from the hub's own page: it says so in `Origin`
/// (already compared), or, where browsers leave that out, in `Sec-Fetch-Site`.
pub(super) fn require_own_page(method: &Method, headers: &HeaderMap) -> Result<(), Error> {
    if headers.contains_key(ORIGIN) {
        return Ok(());
    }
    let site = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
    let safe = *method == Method::GET || *method == Method::HEAD;
    match site {
        // "none": typed or bookmarked by the person.
        Some("same-origin" | "none") if safe => Ok(()),
        _ => Err(Error::forbidden(
            "a session cookie counts only on requests from the hub's own page, which say so in the header Origin; \
             programs use 'Authorization: Bearer dc_...'",
        )),
    }
}

/// Sets the cookie of a login; only for browsers, which say where they come from.
pub(super) fn login_cookie(headers: &HeaderMap, token: &str, seconds: i64) -> Option<HeaderValue> {
    headers.get(ORIGIN)?;
    let text = format!(
        "{COOKIE_NAME}={token}; Path=/; Max-Age={}; HttpOnly; Secure; SameSite=Strict",
        seconds.max(0)
    );
    let mut value = HeaderValue::try_from(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Takes the cookie away.
pub(super) fn logout_cookie(headers: &HeaderMap) -> Option<HeaderValue> {
    cookie(headers)?;
    HeaderValue::try_from(format!("{COOKIE_NAME}=; Path=/; Max-Age=0; HttpOnly; Secure; SameSite=Strict"))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn bearers() {
        assert_eq!(bearer(&headers(&[("authorization", "bearer  dc_x")])).expect("one"), Some("dc_x"));
        assert_eq!(bearer(&headers(&[])).expect("none"), None);
        for bad in ["Basic eDp5", "Bearer", "Bearer ", "dc_x"] {
            assert!(bearer(&headers(&[("authorization", bad)])).is_err(), "{bad}");
        }
        assert!(bearer(&headers(&[("authorization", "Bearer a"), ("authorization", "Bearer b")])).is_err());
    }

    #[test]
    fn one_cookie_counts_two_do_not() {
        assert_eq!(cookie(&headers(&[("cookie", "a=b; dc_session=dc_x; c=d")])), Some("dc_x"));
        assert_eq!(cookie(&headers(&[("cookie", "dc_session=a; dc_session=b")])), None);
        assert_eq!(cookie(&headers(&[("cookie", "xdc_session=a")])), None);
    }

    #[test]
    fn a_cookie_needs_the_own_page() {
        let check = |method: Method, pairs: &[_]| require_own_page(&method, &headers(pairs)).is_ok();
        assert!(check(Method::POST, &[("origin", "https://hub")]));
        assert!(!check(Method::POST, &[]));
        assert!(!check(Method::POST, &[("sec-fetch-site", "same-origin")]));
        assert!(check(Method::GET, &[("sec-fetch-site", "same-origin")]));
        assert!(check(Method::GET, &[("sec-fetch-site", "none")]));
        assert!(!check(Method::GET, &[("sec-fetch-site", "same-site")]));
        assert!(!check(Method::GET, &[("sec-fetch-site", "cross-site")]));
        assert!(!check(Method::GET, &[]));
    }

    #[test]
    fn cookies_are_for_browsers_and_cannot_be_read_by_pages() {
        assert!(login_cookie(&headers(&[]), "dc_x", 5).is_none());
        let cookie = login_cookie(&headers(&[("origin", "https://hub")]), "dc_x", 5).expect("cookie");
        let text = cookie.to_str().expect("text");
        for word in ["dc_session=dc_x", "Max-Age=5", "HttpOnly", "Secure", "SameSite=Strict", "Path=/"] {
            assert!(text.contains(word), "{text}");
        }
        assert!(cookie.is_sensitive());
    }
}
