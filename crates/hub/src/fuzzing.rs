//! Decoders that are private otherwise, for fuzz targets. Each function panics where a property does not hold.

use hyper::Method;
use hyper::header::HeaderMap;

/// A request's headers: tokens, cookies, origins, traces, the place of a stream.
pub fn request(method: &Method, headers: &HeaderMap) {
    crate::web::fuzzing::request(method, headers);
}

/// A request's body, as JSON and as a form.
pub fn body(bytes: &[u8]) {
    crate::web::fuzzing::content(bytes);
}

/// A certificate that a host shows, or a public key that it wants certified.
pub fn host_key(bytes: &[u8]) {
    crate::identity::fuzz(bytes);
}

/// A join token as an agent sends it.
pub fn join_secret(text: &str) {
    crate::access::fuzz(text);
}
