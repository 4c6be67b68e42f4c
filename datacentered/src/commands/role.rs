//! `role`.

use datacentered_client::Client;
use datacentered_proto::operations::{RoleCreate, RoleList, RoleRevoke};
use datacentered_proto::ops::NoParams;
use datacentered_proto::ops::role::{RoleCreateParams, RoleRevokeParams, RoleView};

use crate::args::Global;
use crate::args::access::Role;
use crate::connect;
use crate::failure::{Failure, Result};
use crate::text::ago;
use crate::text::clean::clean;
use crate::ui::{Ui, table};

/// `role ...`.
pub(crate) async fn role(ui: Ui, global: &Global, command: Role) -> Result<()> {
    let client = connect::connect(global).await?;
    let result = act(ui, &client, command).await;
    connect::finish(client, result).await
}

async fn act(ui: Ui, client: &Client, command: Role) -> Result<()> {
    let key = client.clock().key();
    match command {
        Role::Create { name, allow, deny, on } => {
            let params = RoleCreateParams { key, name, allow, deny, on };
            let role = client.call::<RoleCreate>(&params).await?;
            ui.reply(&role, || {
                format!("the role {} allows {} on {}", role.name, counted(&role), hosts(&role))
            })
        }
        Role::List => {
            let roles = client.call::<RoleList>(&NoParams {}).await?.roles;
            if ui.json() {
                return ui.document(&roles);
            }
            ui.line(&list(&roles))
        }
        Role::Show { name } => {
            let roles = client.call::<RoleList>(&NoParams {}).await?.roles;
            let role = roles.into_iter().find(|role| role.name.as_str() == name).ok_or_else(|| {
                Failure::usage(format!("there is no role '{}'", clean(&name)))
                    .hint("'datacentered role list' shows them all")
            })?;
            ui.reply(&role, || details(&role))
        }
        Role::Revoke { name } => {
            let done = client.call::<RoleRevoke>(&RoleRevokeParams { key, name: name.clone() }).await?;
            ui.reply(&done, || format!("the role {} is gone", clean(&name)))
        }
    }
}

fn counted(role: &RoleView) -> String {
    format!("{} operations", role.operations.len())
}

fn hosts(role: &RoleView) -> String {
    if role.on.is_empty() { "all hosts".to_owned() } else { clean(&role.on.join(" or ")) }
}

/// What a person wrote, where somebody did; else the operations.
fn allowed(role: &RoleView) -> String {
    if role.built_in {
        return clean(&role.operations.join(" "));
    }
    let mut text = role.allow.join(" ");
    if !role.deny.is_empty() {
        text = format!("{text}, not {}", role.deny.join(" "));
    }
    clean(&text)
}

fn list(roles: &[RoleView]) -> String {
    let rows = roles.iter().map(|role| [role.name.to_string(), hosts(role), allowed(role)]);
    table::table(["ROLE", "HOSTS", "ALLOWS"], rows)
}

fn details(role: &RoleView) -> String {
    let mut lines = vec![format!("role        {}", role.name)];
    if !role.built_in {
        lines.push(format!("allow       {}", clean(&role.allow.join(" "))));
    }
    if !role.deny.is_empty() {
        lines.push(format!("deny        {}", clean(&role.deny.join(" "))));
    }
    lines.push(format!("hosts       {}", hosts(role)));
    if let (Some(by), Some(created)) = (&role.by, role.created) {
        lines.push(format!("made        {} by {}", ago::human(created, connect::now()), clean(by)));
    }
    lines.push(format!("operations  {}", clean(&role.operations.join(" "))));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn role(name: &str, built_in: bool, on: &[&str]) -> RoleView {
        RoleView {
            name: name.parse().expect("a role's name"),
            built_in,
            operations: vec!["host.list".into(), "run.create".into()],
            allow: if built_in { vec![] } else { vec!["run.*".into(), "host.list".into()] },
            deny: if built_in { vec![] } else { vec!["run.abandon".into()] },
            on: on.iter().map(ToString::to_string).collect(),
            by: None,
            created: None,
        }
    }

    #[test]
    fn roles_are_shown() {
        let text = list(&[role("viewer", true, &[]), role("web", false, &["web-*", "db1"])]);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(
            lines,
            [
                "ROLE    HOSTS         ALLOWS",
                "viewer  all hosts     host.list run.create",
                "web     web-* or db1  run.* host.list, not run.abandon",
            ]
        );
        assert_eq!(
            details(&role("web", false, &["web-*"])),
            "role        web\nallow       run.* host.list\ndeny        run.abandon\nhosts       web-*\n\
             operations  host.list run.create"
        );
    }
}
