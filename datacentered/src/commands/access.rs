//! `user` and `token`.

use datacentered_client::{Client, HubUrl};
use datacentered_proto::operations::{
    TokenCreate as CreateToken, TokenList, TokenRevoke, UserCreate, UserList, UserPassword, UserRevoke,
};
use datacentered_proto::ops::{NoParams, access as wire};
use datacentered_proto::{Timestamp, TokenId};

use crate::args::Global;
use crate::args::access::{Token, TokenCreate, User};
use crate::connect;
use crate::failure::{Failure, Result};
use crate::secret;
use crate::text::clean::clean;
use crate::text::short_id::{self, Unresolved};
use crate::text::{ago, duration};
use crate::ui::{Ui, table};

/// `user ...`.
pub(crate) async fn user(ui: Ui, global: &Global, command: User) -> Result<()> {
    // Asked before connecting: a person may take long to think of a password.
    let password = match &command {
        User::Create { password, .. } | User::Password { password, .. } => {
            secret::password(password.as_deref(), "New password", true)?
        }
        User::List | User::Revoke { .. } => String::new(),
    };
    let client = connect::connect(global).await?;
    let result = act_on_user(ui, &client, command, password).await;
    connect::finish(client, result).await
}

async fn act_on_user(ui: Ui, client: &Client, command: User, password: String) -> Result<()> {
    let key = client.clock().key();
    match command {
        User::Create { name, role, .. } => {
            let params = wire::UserCreateParams { key, name, password, role };
            let user = client.call::<UserCreate>(&params).await?;
            ui.reply(&user, || format!("{} may log in, with the role {}", clean(&user.name), user.role))
        }
        User::List => {
            let users = client.call::<UserList>(&NoParams {}).await?.users;
            if ui.json() {
                return ui.document(&users);
            }
            let now = connect::now();
            let rows = users.iter().map(|user| {
                [
                    clean(&user.name),
                    user.role.to_string(),
                    ago::human(user.created, now),
                    short_id::shorten(user.id),
                ]
            });
            ui.line(&table::table(["NAME", "ROLE", "CREATED", "ID"], rows))
        }
        User::Revoke { name } => {
            let done = client.call::<UserRevoke>(&wire::UserRevokeParams { key, name: name.clone() }).await?;
            ui.reply(&done, || format!("{} is revoked", clean(&name)))
        }
        User::Password { name, .. } => {
            let params = wire::UserPasswordParams { key, name: name.clone(), password };
            let done = client.call::<UserPassword>(&params).await?;
            ui.reply(&done, || format!("{} has a new password; every session has ended", clean(&name)))
        }
    }
}

/// `token ...`.
pub(crate) async fn token(ui: Ui, global: &Global, command: Token) -> Result<()> {
    let client = connect::connect(global).await?;
    let result = act_on_token(ui, &client, command).await;
    connect::finish(client, result).await
}

async fn act_on_token(ui: Ui, client: &Client, command: Token) -> Result<()> {
    match command {
        Token::Create(create) => {
            let reply = client.call::<CreateToken>(&create_params(client, create)).await?;
            // The secret alone, so that it can go straight into a file.
            ui.reply(&reply, || reply.token.clone())?;
            // On a terminal the secret stands there already; behind a pipe it stays out of sight.
            if ui.out_terminal && reply.kind == wire::TokenKind::Join {
                ui.advice(&join_line(client.urls(), &reply.token));
            }
            Ok(())
        }
        Token::List => {
            let tokens = client.call::<TokenList>(&NoParams {}).await?.tokens;
            if ui.json() {
                return ui.document(&tokens);
            }
            if tokens.is_empty() {
                ui.advice("no tokens yet: datacentered token create --join");
                return Ok(());
            }
            ui.line(&list(&tokens, connect::now()))
        }
        Token::Revoke { id } => {
            let id = resolve(client, &id).await?;
            let done = client
                .call::<TokenRevoke>(&wire::TokenRevokeParams { key: client.clock().key(), id })
                .await?;
            ui.reply(&done, || format!("{id} is revoked"))
        }
    }
}

/// What to type on the machine that is to join.
fn join_line(urls: &[HubUrl], token: &str) -> String {
    match urls.iter().find(|url| url.is_tls()) {
        Some(hub) => format!("on the new host: datacentered agent join {hub} --token {token}"),
        // The local socket does not know under which name others reach the hub.
        None => {
            format!(
                "on the new host, with this hub's address for HUB: datacentered agent join HUB --token {token}"
            )
        }
    }
}

fn create_params(client: &Client, create: TokenCreate) -> wire::TokenCreateParams {
    wire::TokenCreateParams {
        key: client.clock().key(),
        kind: if create.join { wire::TokenKind::Join } else { wire::TokenKind::Api },
        name: create.name,
        role: create.role,
        ttl_ms: create.ttl.map(duration::millis),
        uses: create.uses,
        labels: create.labels.into_iter().collect(),
    }
}

async fn resolve(client: &Client, text: &str) -> Result<TokenId> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let unknown = || {
        Failure::usage(format!("no token begins with '{}'", clean(text)))
            .hint("'datacentered token list' shows the ids")
    };
    if text.len() < short_id::SHORTEST {
        return Err(unknown());
    }
    let tokens = client.call::<TokenList>(&NoParams {}).await?.tokens;
    let ids: Vec<TokenId> = tokens.iter().map(|token| token.id).collect();
    short_id::find(text, &ids).map_err(|unresolved| match unresolved {
        Unresolved::None => unknown(),
        Unresolved::Several => {
            Failure::usage(format!("more than one token begins with '{text}'")).hint("give more of the id")
        }
    })
}

fn list(tokens: &[wire::Token], now: Timestamp) -> String {
    let rows = tokens.iter().map(|token| {
        let state = if token.revoked {
            "revoked".to_owned()
        } else if token.expires <= now {
            "expired".to_owned()
        } else {
            format!("ends {}", ago::human(token.expires, now))
        };
        [
            short_id::shorten(token.id),
            token.kind.as_str().to_owned(),
            clean(&token.name),
            token.role.as_ref().map(ToString::to_string).unwrap_or_default(),
            clean(&token.by),
            state,
            token.last_used.map(|used| ago::human(used, now)).unwrap_or_default(),
            token.uses_left.map(|left| left.to_string()).unwrap_or_default(),
        ]
    });
    table::table(["ID", "KIND", "NAME", "ROLE", "BY", "STATE", "LAST USED", "USES LEFT"], rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_to_join_with() {
        let urls = ["wss://hub.example.net:7272".parse().expect("url")];
        assert_eq!(
            join_line(&urls, "dcj_x"),
            "on the new host: datacentered agent join wss://hub.example.net:7272 --token dcj_x"
        );
        assert!(join_line(&[], "dcj_x").ends_with("datacentered agent join HUB --token dcj_x"));
    }

    #[test]
    fn tokens_are_listed_without_secrets() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let token = |n: u8, kind, uses_left| wire::Token {
            id: format!("0192d3b0-5f{n:02}-7c51-9b0e-3f1c2a4d5e6f").parse().expect("id"),
            kind,
            name: "ci".into(),
            by: "ann".into(),
            role: None,
            created: now,
            expires: now.plus_millis(86_400_000),
            last_used: None,
            uses_left,
            labels: [].into(),
            revoked: n == 2,
        };
        let tokens = [token(1, wire::TokenKind::Join, Some(3)), token(2, wire::TokenKind::Api, None)];
        insta::assert_snapshot!("token_table", list(&tokens, now));
    }
}
