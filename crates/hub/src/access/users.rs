//! Accounts: `user.list`, `user.create`, `user.revoke`, `user.password`.

use datacentered_engine::kv::Expect;
use datacentered_proto::operations::{UserCreate, UserList, UserPassword, UserRevoke};
use datacentered_proto::ops::access::{
    Role, TokenKind, User, UserCreateParams, UserListReply, UserPasswordParams, UserRevokeParams,
};
use datacentered_proto::ops::role::RoleName;
use datacentered_proto::ops::{Done, NoParams};
use datacentered_proto::{Code, Error, UserId};
use serde_json::json;

use super::passwords::check_strength;
use super::roles;
use super::setup::close_setup;
use crate::dispatch::{ChangeCtx, Ctx, Table};
use crate::hub::Hub;
use crate::sessions::Credential;
use crate::store::records::{Keyed as _, TokenRecord, UserRecord};
use crate::store::{Change, Versioned};

/// Longest name of an account, in bytes.
const MAX_NAME: usize = 64;

/// Tokens that end in the same step as their account; any more have ended with it all the same and are swept up later.
const TOKENS_IN_STEP: usize = 400;

/// Registers these operations.
pub(super) fn register(table: &mut Table) {
    table.read::<UserList, _, _>(list);
    table.change::<UserCreate, _, _>(create);
    table.change::<UserRevoke, _, _>(revoke);
    table.change::<UserPassword, _, _>(password);
}

fn view_of(user: &UserRecord) -> User {
    User { id: user.id, name: user.name.clone(), role: user.role.clone(), created: user.created }
}

/// Refuses names that no account may have.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    let first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    if first && name.len() <= MAX_NAME && name.bytes().all(plain) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "an account's name is 1 to {MAX_NAME} of a-z 0-9 . _ - and begins with a letter or digit"
    )))
}

/// A new account's record.
pub(super) async fn new_user(
    hub: &Hub,
    name: String,
    password: String,
    role: RoleName,
) -> Result<UserRecord, Error> {
    let password = hub.access.passwords.hash(password).await?;
    let id = UserId::from_uuid(hub.clock.uuid());
    Ok(UserRecord { id, name, role, password, created: hub.clock.wall() })
}

fn find(ctx: &Ctx, name: &str) -> Result<Versioned<UserRecord>, Error> {
    ctx.hub.store.view(|view| view.users.get(name).cloned()).ok_or_else(|| {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
        Error::not_found(format!("there is no account '{shown}'; 'datacentered user list' shows all"))
    })
}

/// The tokens that an account has, of one kind or all.
fn tokens_of(ctx: &Ctx, user: UserId, kind: Option<TokenKind>) -> Vec<Versioned<TokenRecord>> {
    ctx.hub.store.view(|view| {
        let of_user = |token: &&Versioned<TokenRecord>| {
            token.user == Some(user) && kind.is_none_or(|kind| kind == token.kind)
        };
        view.tokens.values().filter(of_user).take(TOKENS_IN_STEP).cloned().collect()
    })
}

async fn list(ctx: Ctx, _: NoParams) -> Result<UserListReply, Error> {
    let users = ctx.hub.store.view(|view| view.users.values().map(|user| view_of(user)).collect());
    Ok(UserListReply { users })
}

async fn create(ctx: ChangeCtx, params: UserCreateParams) -> Result<User, Error> {
    check_name(&params.name)?;
    check_strength(&params.name, &params.password)?;
    let limit = ctx.hub.config.limits.accounts;
    let (taken, count) = ctx.hub.store.view(|view| (view.users.contains_key(&params.name), view.users.len()));
    let exists = |name: &str| {
        Error::conflict(format!(
            "there is an account '{name}' already; choose another name or revoke it first"
        ))
    };
    if taken {
        return Err(exists(&params.name));
    }
    if count >= limit {
        return Err(Error::limited(format!("the hub has {limit} accounts (limits.accounts); revoke some")));
    }
    if !ctx.who.rights.cover(&params.role) {
        return Err(Error::forbidden(format!(
            "an account never has more rights than its maker: {} was asked for, the maker has {}",
            params.role, ctx.who.rights
        )));
    }
    let user = new_user(&ctx.hub, params.name, params.password, params.role).await?;
    let _role_stays = ctx.hub.access.role_users.lock().await;
    roles::require(&ctx.hub, &user.role)?;
    let mut change = ctx.change();
    change.put(&user, Expect::Absent);
    close_setup(&mut change);
    change.event("user.created", user.name.clone(), json!({"role": user.role, "by": ctx.who.name()}));
    let reply = view_of(&user);
    match ctx.commit(change, format!("{} ({})", user.name, user.role), Vec::new(), &reply).await {
        Ok(_) => Ok(reply),
        Err(error) if error.code == Code::Conflict => Err(exists(&user.name)),
        Err(error) => Err(error),
    }
}

async fn revoke(ctx: ChangeCtx, params: UserRevokeParams) -> Result<Done, Error> {
    let user = find(&ctx, &params.name)?;
    let last_admin = user.role.is(Role::Admin)
        && ctx
            .hub
            .store
            .view(|view| view.users.values().filter(|user| user.role.is(Role::Admin)).count() == 1);
    if last_admin && ctx.who.credential != Credential::Local {
        return Err(Error::conflict(
            "this is the last admin account; create another admin first, or revoke it over the hub's local socket",
        ));
    }
    let mut change = ctx.change();
    change.check::<UserRecord>(&user.id(), Expect::Revision(user.revision));
    change.delete::<UserRecord>(&user.id());
    for token in tokens_of(&ctx, user.id, None) {
        change.delete::<TokenRecord>(&token.id());
    }
    change.event("user.revoked", user.name.clone(), json!({"by": ctx.who.name()}));
    ctx.commit(change, user.name.clone(), Vec::new(), &Done {}).await?;
    Ok(Done {})
}

async fn password(ctx: ChangeCtx, params: UserPasswordParams) -> Result<Done, Error> {
    let user = find_for_password(&ctx, &params.name)?;
    check_strength(&params.name, &params.password)?;
    let password = ctx.hub.access.passwords.hash(params.password).await?;
    let mut change = ctx.change();
    change.put(&UserRecord { password, ..UserRecord::clone(&user) }, Expect::Revision(user.revision));
    end_logins(&mut change, &tokens_of(&ctx, user.id, Some(TokenKind::Session)));
    change.event("user.password", user.name.clone(), json!({"by": ctx.who.name()}));
    ctx.commit(change, user.name.clone(), Vec::new(), &Done {}).await?;
    Ok(Done {})
}

/// Admins may change every password, others their own. An API token of lesser rights than its account may not: with the
/// password it would have all of them.
fn find_for_password(ctx: &Ctx, name: &str) -> Result<Versioned<UserRecord>, Error> {
    if ctx.who.rights.is_admin() {
        return find(ctx, name);
    }
    let logged_in = match &ctx.who.credential {
        Credential::Token(id) => ctx
            .hub
            .store
            .view(|view| view.tokens.get(id).is_some_and(|token| token.kind == TokenKind::Session)),
        _ => false,
    };
    let own = find(ctx, name).ok().filter(|user| logged_in && Some(user.id) == ctx.who.user);
    own.ok_or_else(|| {
        Error::forbidden("only an admin changes the password of others; log in with your own to change yours")
    })
}

fn end_logins(change: &mut Change, logins: &[Versioned<TokenRecord>]) {
    for token in logins {
        change.delete::<TokenRecord>(&token.id());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "0", "anna.b_c-d", &"x".repeat(64)] {
            check_name(good).expect(good);
        }
        for bad in ["", "-a", ".a", "Anna", "a b", "ä", "a:b", "a/b", &"x".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
