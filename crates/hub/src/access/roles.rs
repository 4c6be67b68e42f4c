//! `role.list`, `role.create`, `role.revoke`.

use datacentered_engine::kv::Expect;
use datacentered_proto::operations::{OPERATIONS, RoleCreate, RoleList, RoleRevoke};
use datacentered_proto::ops::access::Role;
use datacentered_proto::ops::role::{RoleCreateParams, RoleListReply, RoleName, RoleRevokeParams, RoleView};
use datacentered_proto::ops::{Done, NoParams};
use datacentered_proto::{Code, Error, OperationSpec, Permission, Served};
use serde_json::json;

use super::authorize::{authorize, least_role};
use super::own_roles;
use super::tokens::stands;
use crate::dispatch::{ChangeCtx, Ctx, Table};
use crate::hosts;
use crate::hub::Hub;
use crate::store::records::{Keyed as _, RoleRecord};

/// Holders of a role that a refusal names.
const SHOWN_HOLDERS: usize = 5;

/// Registers these operations.
pub(super) fn register(table: &mut Table) {
    table.read::<RoleList, _, _>(list);
    table.change::<RoleCreate, _, _>(create);
    table.change::<RoleRevoke, _, _>(revoke);
}

fn operations(allowed: impl Fn(&OperationSpec) -> bool) -> Vec<String> {
    let served = OPERATIONS.iter().filter(|spec| spec.served == Served::Hub);
    served
        .filter(|spec| spec.permission == Permission::Anyone || allowed(spec))
        .map(|spec| spec.name.to_owned())
        .collect()
}

fn built_in(role: Role) -> RoleView {
    RoleView {
        name: role.into(),
        built_in: true,
        operations: operations(|spec| least_role(spec.permission).is_some_and(|least| role >= least)),
        allow: Vec::new(),
        deny: Vec::new(),
        on: Vec::new(),
        by: None,
        created: None,
    }
}

fn own(role: &RoleRecord) -> RoleView {
    RoleView {
        name: RoleName::Own(role.name.clone()),
        built_in: false,
        operations: operations(|spec| own_roles::allows(role, spec)),
        allow: role.allow.clone(),
        deny: role.deny.clone(),
        on: role.on.clone(),
        by: Some(role.by.clone()),
        created: Some(role.created),
    }
}

async fn list(ctx: Ctx, _: NoParams) -> Result<RoleListReply, Error> {
    let mut roles: Vec<RoleView> = Role::ALL.into_iter().map(built_in).collect();
    ctx.hub.store.view(|view| roles.extend(view.roles.values().map(|role| own(role))));
    Ok(RoleListReply { roles })
}

/// The role of this name must exist for somebody to get it. Hold [`super::Access::role_users`] from here until who gets
/// it is written down, so that the role is not revoked in between.
pub(super) fn require(hub: &Hub, role: &RoleName) -> Result<(), Error> {
    match role {
        RoleName::Own(name) if !hub.store.view(|view| view.roles.contains_key(name)) => {
            Err(Error::not_found(format!(
                "there is no role '{name}'; 'datacentered role list' shows all, 'role create' makes one"
            )))
        }
        _ => Ok(()),
    }
}

async fn create(ctx: ChangeCtx, params: RoleCreateParams) -> Result<RoleView, Error> {
    let hub = &ctx.hub;
    match params.name.parse::<RoleName>() {
        Ok(RoleName::BuiltIn(role)) => {
            return Err(Error::conflict(format!(
                "'{role}' is built in and means the same on every hub; choose another name"
            )));
        }
        Ok(RoleName::Own(_)) => {}
        Err(error) => return Err(Error::invalid(error.to_string())),
    }
    let mut change = ctx.change();
    let record = RoleRecord {
        name: params.name,
        allow: params.allow,
        deny: params.deny,
        on: params.on,
        by: ctx.who.name(),
        created: change.at(),
    };
    own_roles::check(&record)?;
    hosts::parse_selectors(hub, &record.on)?;
    never_more_than_its_maker(&ctx, &record)?;
    let exists = || {
        Error::conflict(format!(
            "there is a role '{}' already, and roles never change; choose another name, or revoke it first",
            record.name
        ))
    };
    let limit = hub.config.limits.roles;
    let (taken, count) = hub.store.view(|view| (view.roles.contains_key(&record.name), view.roles.len()));
    if taken {
        return Err(exists());
    }
    if count >= limit {
        return Err(Error::limited(format!("the hub has {limit} own roles (limits.roles); revoke some")));
    }
    change.put(&record, Expect::Absent);
    change.event(
        "role.created",
        record.name.clone(),
        json!({"by": record.by, "allow": record.allow, "deny": record.deny, "on": record.on}),
    );
    let reply = own(&record);
    match ctx.commit(change, record.name.clone(), Vec::new(), &reply).await {
        Ok(_) => Ok(reply),
        Err(error) if error.code == Code::Conflict => Err(exists()),
        Err(error) => Err(error),
    }
}

/// Admins give what they like. Anybody else, whom an admin allowed to make roles, gives at most what they have
/// themselves, nothing that is the admins', and nothing where they are limited to some hosts: another role's selectors
/// could reach beyond theirs.
fn never_more_than_its_maker(ctx: &Ctx, role: &RoleRecord) -> Result<(), Error> {
    if ctx.who.rights.is_admin() {
        return Ok(());
    }
    for spec in OPERATIONS.iter().filter(|spec| own_roles::allows(role, spec)) {
        let has_it = authorize(&ctx.hub, &ctx.who, spec).is_ok_and(|scope| !scope.is_limited());
        if spec.permission == Permission::Admin || !has_it {
            return Err(Error::forbidden(format!(
                "a role never allows more than its maker may do, and what only admins may do is given by admins: \
                 leave '{}' out, or ask an admin",
                spec.name
            )));
        }
    }
    Ok(())
}

async fn revoke(ctx: ChangeCtx, params: RoleRevokeParams) -> Result<Done, Error> {
    if let Ok(RoleName::BuiltIn(role)) = params.name.parse() {
        return Err(Error::conflict(format!("'{role}' is built in and stays")));
    }
    let _unchanged = ctx.hub.access.role_users.lock().await;
    let Some(role) = ctx.hub.store.view(|view| view.roles.get(&params.name).cloned()) else {
        let shown: String = params.name.chars().filter(|c| !c.is_control()).take(64).collect();
        return Err(Error::not_found(format!(
            "there is no role '{shown}'; 'datacentered role list' shows all"
        )));
    };
    let holders = holders(&ctx.hub, &RoleName::Own(role.name.clone()));
    if !holders.is_empty() {
        let shown = holders.iter().take(SHOWN_HOLDERS).cloned().collect::<Vec<_>>().join(", ");
        return Err(Error::conflict(format!(
            "the role '{}' is in use ({} in all: {shown}{}); revoke these first, or they would be left with nothing",
            role.name,
            holders.len(),
            if holders.len() > SHOWN_HOLDERS { ", ..." } else { "" }
        )));
    }
    let mut change = ctx.change();
    change.check::<RoleRecord>(&role.id(), Expect::Revision(role.revision));
    change.delete::<RoleRecord>(&role.id());
    change.event("role.revoked", role.name.clone(), json!({"by": ctx.who.name()}));
    ctx.commit(change, role.name.clone(), Vec::new(), &Done {}).await?;
    Ok(Done {})
}

/// The accounts and tokens that have a role.
fn holders(hub: &Hub, role: &RoleName) -> Vec<String> {
    let now = hub.clock.wall();
    hub.store.view(|view| {
        let users = view.users.values().filter(|user| user.role == *role);
        let tokens = (view.tokens.values())
            .filter(|token| token.role.as_ref() == Some(role) && stands(view, token, now));
        users
            .map(|user| format!("account {}", user.name))
            .chain(tokens.map(|token| format!("token {}", token.id)))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_includes_the_ones_before_it() {
        let roles = Role::ALL.map(built_in);
        for pair in roles.windows(2) {
            assert!(pair[0].operations.iter().all(|name| pair[1].operations.contains(name)));
            assert!(pair[0].operations.len() < pair[1].operations.len());
        }
        let has = |index: usize, name: &str| roles[index].operations.iter().any(|found| found == name);
        assert!(
            has(0, "host.list") && !has(0, "run.create") && has(1, "run.create") && !has(1, "token.create")
        );
        assert!(has(2, "token.create") && !has(2, "host.enrol"));
    }
}
