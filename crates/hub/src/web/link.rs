//! The WebSocket: from an HTTP request to a link with a session.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use datacentered_link::upgrade::{Refused, upgrade};
use datacentered_proto::Error;
use datacentered_proto::ops::session::Subject;

use super::Face;
use super::credentials::identify;
use super::problem::Problem;
use crate::metrics::Door;
use crate::server::Connection;
use crate::sessions::{self, Credential, Session, Who};

/// How soon it is first looked whether a new link has proved who it is; then after twice as long, and so on.
const FIRST_LOOK: Duration = Duration::from_millis(20);

/// The longest pause between two looks.
const LONGEST_LOOK: Duration = Duration::from_millis(500);

/// `GET /api/v1/link`.
pub(super) async fn open(
    State(face): State<Arc<Face>>,
    Extension(connection): Extension<Connection>,
    mut request: Request,
) -> Result<Response, Problem> {
    let limits = &face.hub.config.limits.link;
    // The origin is checked in here, on every upgrade.
    let (granted, upgrading) = match upgrade(&mut request, &face.origins, limits) {
        Ok(granted) => granted,
        Err(refused) => return Ok(refusal(refused)),
    };
    let who = if connection.door() == Door::Agent {
        // Who an agent is, its key says, in session.hello.
        Who { subject: Subject::UnknownHost, credential: Credential::HostKey, ..Who::anonymous() }
    } else {
        identify(&face, &connection, request.method(), request.headers()).await?
    };
    let session = Session::open(&face.hub, connection.peer(), connection.host_key(), who)?;
    let hub = face.hub.clone();
    face.hub.tasks.spawn("link", async move {
        let socket = tokio::select! {
            () = session.cancel.cancelled() => return,
            upgraded = upgrading.websocket() => match upgraded {
                Ok(socket) => socket,
                Err(error) => {
                    tracing::debug!(peer = %session.peer, %error, "no link");
                    return;
                }
            },
        };
        let proved = prove(&session, &connection, Duration::from_millis(hub.config.limits.hello_timeout_ms));
        let serve = sessions::serve_link(hub, session.clone(), socket);
        let mut serve = std::pin::pin!(serve);
        // The link ends by itself where nobody proved anything in time: its session is cancelled.
        tokio::select! {
            () = &mut serve => return,
            () = proved => {}
        }
        serve.await;
    });
    Ok(granted.map(|()| Body::empty()))
}

/// Waits until the session speaks for somebody, and makes room for others then. Cancels it where that takes too long.
async fn prove(session: &Arc<Session>, connection: &Connection, patience: Duration) {
    let known = async {
        let mut pause = FIRST_LOOK;
        while matches!(session.who().subject, Subject::Anonymous | Subject::UnknownHost) {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_LOOK);
        }
    };
    if tokio::time::timeout(patience, known).await.is_ok() {
        connection.authenticated();
    } else {
        tracing::debug!(peer = %session.peer, "a link did not say in time who it is");
        session.cancel.cancel();
    }
}

/// The status and headers that the upgrade asks for, with a problem document as the body.
fn refusal(refused: Refused) -> Response {
    use axum::response::IntoResponse as _;
    let error = match refused {
        Refused::Origin => Error::forbidden(format!("{refused} (`origins` of hub.toml)")),
        _ => Error::invalid(refused.to_string()),
    };
    let (parts, _) = refused.response().into_parts();
    let mut response = Problem(error).into_response();
    *response.status_mut() = parts.status;
    for (name, value) in parts.headers {
        if let Some(name) = name.filter(|name| *name != hyper::header::CONTENT_TYPE) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}
