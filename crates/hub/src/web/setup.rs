//! The form that makes the first account. It runs no script: the secret behind `#` of the setup link never leaves the
//! browser by itself, so the person copies it into the form.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use datacentered_proto::operations::{Operation as _, SessionSetup};
use datacentered_proto::ops::session::{LoginReply, SetupParams};
use datacentered_proto::rpc::Cause;
use datacentered_proto::{Code, Error, OperationKey, rpc};
use hyper::StatusCode;
use hyper::header::{HeaderMap, SET_COOKIE};

use super::html::{escape, page};
use super::{Face, body, call};
use crate::access::is_set_up;
use crate::dispatch::Served;
use crate::server::Connection;

/// `GET /setup`.
pub(super) async fn form(State(face): State<Arc<Face>>) -> Response {
    if face.hub.store.view(is_set_up) {
        return done_already();
    }
    form_page(StatusCode::OK, face.hub.clock.key(), "", None)
}

fn done_already() -> Response {
    page(
        StatusCode::CONFLICT,
        "Set up already",
        "<p>The first account of this hub has been made. Log in with <code>datacentered login</code>; an admin makes \
         further accounts with <code>datacentered user create</code>.</p>\n<p><a href=\"/\">To the hub</a></p>",
    )
}

fn form_page(status: StatusCode, key: OperationKey, name: &str, error: Option<&Error>) -> Response {
    let error = error.map_or_else(String::new, |error| {
        format!("<p class=\"error\" role=\"alert\">{}</p>\n", escape(&error.message))
    });
    let content = format!(
        "{error}<p>Make the first administrator of this hub. The secret is the part behind <code>#</code> of the link that \
         the hub printed when it started; it works once.</p>\n\
         <form method=\"post\" action=\"/setup\" autocomplete=\"off\">\n\
         <input type=\"hidden\" name=\"key\" value=\"{key}\">\n\
         <label for=\"secret\">Setup secret</label>\n\
         <input id=\"secret\" name=\"secret\" type=\"password\" required maxlength=\"256\" autocomplete=\"off\">\n\
         <label for=\"name\">Name</label>\n\
         <input id=\"name\" name=\"name\" required maxlength=\"64\" pattern=\"[a-z0-9][a-z0-9._\\-]*\" \
         autocapitalize=\"none\" spellcheck=\"false\" autocomplete=\"username\" value=\"{}\">\n\
         <label for=\"password\">Password <span class=\"soft\">(at least 10 characters)</span></label>\n\
         <input id=\"password\" name=\"password\" type=\"password\" required minlength=\"10\" \
         autocomplete=\"new-password\">\n\
         <label for=\"repeated\">Password again</label>\n\
         <input id=\"repeated\" name=\"repeated\" type=\"password\" required minlength=\"10\" \
         autocomplete=\"new-password\">\n\
         <button type=\"submit\">Make the account</button>\n</form>",
        escape(name)
    );
    page(status, "Set up this hub", &content)
}

/// `POST /setup`.
pub(super) async fn submit(
    State(face): State<Arc<Face>>,
    Extension(connection): Extension<Connection>,
    Extension(cause): Extension<Cause>,
    request: Request,
) -> Response {
    let (parts, content) = request.into_parts();
    let mut filled = Filled::default();
    let result = match filled.read(&face, &parts.headers, content).await {
        Ok(params) => make(&face, &connection, cause, &parts.method, &parts.headers, &params).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(login) => {
            let content = format!(
                "<p>The account <strong>{}</strong> has been made. On your machine:</p>\n\
                 <pre>datacentered login {}</pre>\n<p><a href=\"/\">To the hub</a></p>",
                escape(&login.name),
                escape(&super::pages::address(&parts.headers)),
            );
            let mut response = page(StatusCode::OK, "Ready", &content);
            if let Some(cookie) = call::cookie_of(&face, &login, &parts.headers) {
                response.headers_mut().insert(SET_COOKIE, cookie);
            }
            response
        }
        Err(error) if error.code == Code::Conflict => done_already(),
        Err(error) => {
            let status = StatusCode::from_u16(error.code.http_status()).unwrap_or(StatusCode::BAD_REQUEST);
            let key = filled.key.unwrap_or_else(|| face.hub.clock.key());
            form_page(status, key, &filled.name, Some(&error))
        }
    }
}

async fn make(
    face: &Arc<Face>,
    connection: &Connection,
    cause: Cause,
    method: &hyper::Method,
    headers: &HeaderMap,
    params: &SetupParams,
) -> Result<LoginReply, Error> {
    let session = call::open_session(face, connection, method, headers).await?;
    match call::call(face, &session, SessionSetup::SPEC, Some(rpc::raw(params)?), cause).await? {
        Served::Reply(reply) => rpc::params(Some(&reply)),
        _ => Err(Error::internal("the setup was not answered with a login")),
    }
}

/// What the person has typed, for the form to be shown again. Never a secret.
#[derive(Default)]
struct Filled {
    key: Option<OperationKey>,
    name: String,
}

impl Filled {
    async fn read(
        &mut self,
        face: &Arc<Face>,
        headers: &HeaderMap,
        content: axum::body::Body,
    ) -> Result<SetupParams, Error> {
        if !body::is_type(headers, "application/x-www-form-urlencoded") {
            return Err(Error::invalid("this address takes the form of GET /setup"));
        }
        let content = body::read(content, &face.hub.config.limits).await?;
        let pairs = body::pairs(&content)?;
        let member = |name: &str| {
            pairs
                .iter()
                .find(|(other, _)| other == name)
                .map(|(_, value)| value.to_string())
                .unwrap_or_default()
        };
        self.name.clear();
        self.name.push_str(member("name").trim());
        self.key = member("key").parse().ok();
        let key = self.key.ok_or_else(|| Error::invalid("the form is incomplete; fill it in again"))?;
        let password = member("password");
        if password != member("repeated") {
            return Err(Error::invalid("the two passwords are not the same"));
        }
        Ok(SetupParams { key, secret: member("secret"), name: self.name.clone(), password })
    }
}
