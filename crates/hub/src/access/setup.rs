//! The first account, made with a one-time secret that the hub prints while there is none.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use datacentered_engine::kv::Expect;
use datacentered_proto::operations::SessionSetup;
use datacentered_proto::ops::access::{Role, TokenKind};
use datacentered_proto::ops::session::{LoginReply, SetupParams};
use datacentered_proto::{Error, TokenId};
use serde_json::{Value, json};

use super::login::{Attempt, audit_failure, login_record, login_reply};
use super::passwords::check_strength;
use super::tokens::token_text;
use super::users::{check_name, new_user};
use crate::dispatch::{ChangeCtx, Table};
use crate::hub::Hub;
use crate::identity::sha256_hex;
use crate::store::records::SetupRecord;
use crate::store::{Change, View};

/// Bytes of randomness in the secret.
const SECRET_LEN: usize = 24;

/// The one-time secret. Only whoever reads the hub's output has it.
pub struct SetupSecret(String);

impl SetupSecret {
    /// The secret itself, to be shown once.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for SetupSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SetupSecret(...)")
    }
}

/// Whether the first account has been made.
pub fn is_set_up(view: &View) -> bool {
    !view.users.is_empty() || view.setup.as_ref().is_some_and(|setup| setup.secret_hash.is_none())
}

/// A fresh secret, while there is no account: links of earlier starts end.
pub async fn prepare_setup(hub: &Arc<Hub>) -> Result<Option<SetupSecret>, Error> {
    if hub.store.view(is_set_up) {
        return Ok(None);
    }
    let mut random = [0; SECRET_LEN];
    getrandom::fill(&mut random)
        .map_err(|error| Error::internal(format!("no randomness for the setup secret: {error}")))?;
    let secret = URL_SAFE_NO_PAD.encode(random);
    let mut change = Change::new(&hub.clock, "hub", None);
    change.put_unchecked(&SetupRecord { secret_hash: Some(sha256_hex(secret.as_bytes())) });
    hub.store.commit(change).await?;
    Ok(Some(SetupSecret(secret)))
}

/// Registers this operation.
pub(super) fn register(table: &mut Table) {
    table.change_replayed::<SessionSetup, _, _>(setup, replay);
}

/// Puts the token back into a remembered reply.
fn replay(hub: &Arc<Hub>, reply: Value) -> Result<Value, Error> {
    let mut reply: LoginReply = serde_json::from_value(reply)
        .map_err(|error| Error::internal(format!("the first reply cannot be read: {error}")))?;
    reply.token = token_text(&hub.identity, TokenKind::Session, reply.id);
    serde_json::to_value(reply)
        .map_err(|error| Error::internal(format!("the reply cannot be encoded: {error}")))
}

/// Ends the setup in the same step as an account is made.
pub(super) fn close_setup(change: &mut Change) {
    change.put_unchecked(&SetupRecord { secret_hash: None });
}

async fn setup(ctx: ChangeCtx, params: SetupParams) -> Result<LoginReply, Error> {
    let hub = &ctx.hub;
    let attempt = Attempt::begin(hub, &ctx.session.peer, None)?;
    let record = hub.store.view(|view| if is_set_up(view) { None } else { view.setup.clone() });
    let Some(record) = record else {
        // Nobody learns anything by asking, and guessing still counts.
        return Err(Error::conflict("this hub is set up already; log in with 'datacentered login'"));
    };
    let given = sha256_hex(params.secret.trim().trim_start_matches('#').as_bytes());
    if record.secret_hash.as_deref() != Some(given.as_str()) {
        let error = Error::unauthenticated(
            "the setup secret is wrong or has ended: use the link that the hub printed at its last start",
        );
        audit_failure(&ctx, "setup", &error).await;
        return Err(error);
    }
    attempt.forgive();
    check_name(&params.name)?;
    check_strength(&params.name, &params.password)?;
    let user = new_user(hub, params.name, params.password, Role::Admin.into()).await?;
    let token = login_record(hub, TokenId::from_uuid(hub.clock.uuid()), &user);
    let mut change = Change::new(&hub.clock, user.name.clone(), ctx.cause.request.clone());
    change.put(&SetupRecord { secret_hash: None }, Expect::Revision(record.revision));
    change.put(&user, Expect::Absent);
    change.put(&token, Expect::Absent);
    change.event("user.created", user.name.clone(), json!({"role": user.role, "by": "setup"}));
    let reply = login_reply(hub, &token, &user);
    let remembered = LoginReply { token: String::new(), ..reply.clone() };
    ctx.commit(change, user.name.clone(), Vec::new(), &remembered).await?;
    Ok(reply)
}
