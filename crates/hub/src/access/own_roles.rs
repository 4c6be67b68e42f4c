//! What an own role allows: patterns of operations, less those that it denies.

use datacentered_proto::operations::OPERATIONS;
use datacentered_proto::{Error, OperationSpec, Permission, Served};

use crate::hosts::selector::{Selector, glob_matches};
use crate::store::records::RoleRecord;

/// Most patterns in one role, allowed and denied together.
const MAX_PATTERNS: usize = 64;

/// Most selectors in one role.
const MAX_SELECTORS: usize = 16;

/// Bytes of patterns and selectors in one role. The list of all roles fits into one message.
const MAX_TEXT: usize = 2048;

/// Whether an operation's name fits a pattern: itself, or with `*` for any run of characters.
fn fits(pattern: &str, name: &str) -> bool {
    glob_matches(pattern, name)
}

/// Whether roles have a say in an operation at all.
pub(super) fn for_roles(spec: &OperationSpec) -> bool {
    spec.served == Served::Hub
        && matches!(
            spec.permission,
            Permission::Own | Permission::View | Permission::Operate | Permission::Admin
        )
}

/// Whether an own role allows an operation. What only admins may do has to be named in full; what everybody may do for
/// themselves has to be denied.
pub(super) fn allows(role: &RoleRecord, spec: &OperationSpec) -> bool {
    if !for_roles(spec) || role.deny.iter().any(|pattern| fits(pattern, spec.name)) {
        return false;
    }
    match spec.permission {
        Permission::Own => true,
        Permission::Admin => role.allow.iter().any(|name| name == spec.name),
        _ => role.allow.iter().any(|pattern| fits(pattern, spec.name)),
    }
}

/// Whether an operation looks at the whole hub, so that it cannot be limited to some hosts.
fn about_the_whole_hub(spec: &OperationSpec) -> bool {
    spec.permission == Permission::Admin && !spec.name.starts_with("host.")
}

/// Refuses roles that mean nothing, or that cannot hold what they promise.
pub(super) fn check(role: &RoleRecord) -> Result<(), Error> {
    if role.allow.is_empty() {
        return Err(Error::invalid("a role without 'allow' allows nothing; name operations such as 'run.*'"));
    }
    if role.allow.len() + role.deny.len() > MAX_PATTERNS {
        return Err(Error::limited(format!("a role has at most {MAX_PATTERNS} patterns")));
    }
    if role.on.len() > MAX_SELECTORS {
        return Err(Error::limited(format!("a role has at most {MAX_SELECTORS} selectors")));
    }
    let texts = || role.allow.iter().chain(&role.deny).chain(&role.on);
    if texts().map(String::len).sum::<usize>() > MAX_TEXT {
        return Err(Error::limited(format!(
            "the patterns and selectors of a role have at most {MAX_TEXT} bytes together; use shorter patterns, or \
             a label for the hosts"
        )));
    }
    for pattern in role.allow.iter().chain(&role.deny) {
        check_pattern(pattern)?;
    }
    for selector in &role.on {
        Selector::parse(selector).map_err(|error| Error::invalid(error.to_string()))?;
    }
    let whole = OPERATIONS.iter().find(|spec| about_the_whole_hub(spec) && allows(role, spec));
    if let Some(spec) = whole.filter(|_| !role.on.is_empty()) {
        return Err(Error::invalid(format!(
            "'{}' is about the whole hub and cannot be limited to some hosts; put it into a role without 'on'",
            spec.name
        )));
    }
    Ok(())
}

fn check_pattern(pattern: &str) -> Result<(), Error> {
    let plain = |b: u8| b.is_ascii_lowercase() || matches!(b, b'.' | b'*');
    if pattern.is_empty() || !pattern.bytes().all(plain) {
        return Err(Error::invalid(format!(
            "'{}' is no pattern of operations: give a name such as 'run.create', or one with '*' such as 'run.*'",
            pattern.escape_debug().take(80).collect::<String>()
        )));
    }
    let means_something = OPERATIONS.iter().any(|spec| for_roles(spec) && fits(pattern, spec.name));
    if means_something {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "'{pattern}' fits no operation that a role can allow; 'datacentered call operation.list' shows all"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datacentered_proto::Timestamp;
    use datacentered_proto::operations::find;

    fn role(allow: &[&str], deny: &[&str], on: &[&str]) -> RoleRecord {
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        RoleRecord {
            name: "x".into(),
            allow: texts(allow),
            deny: texts(deny),
            on: texts(on),
            by: "test".into(),
            created: Timestamp::from_millis(0),
        }
    }

    fn may(role: &RoleRecord, name: &str) -> bool {
        allows(role, find(name).expect("an operation"))
    }

    #[test]
    fn patterns_allow_and_deny() {
        let web = role(&["run.*", "host.list"], &["run.abandon"], &[]);
        for (name, expected) in [
            ("run.create", true),
            ("run.abandon", false),
            ("host.list", true),
            ("host.show", false),
            ("session.whoami", true),
            ("token.create", false),
        ] {
            assert_eq!(may(&web, name), expected, "{name}");
        }
    }

    #[test]
    fn what_only_admins_may_do_is_named_in_full() {
        for pattern in ["*", "token.*", "token.create*", "*.create", "tok*"] {
            let wide = role(&[pattern], &[], &[]);
            assert!(!may(&wide, "token.create") && !may(&wide, "token.list"), "{pattern}");
        }
        let named = role(&["token.create"], &[], &[]);
        assert!(may(&named, "token.create") && !may(&named, "token.list"));
        assert!(!may(&role(&["token.create"], &["token.*"], &[]), "token.create"));
        // What belongs to hosts and to nobody stays theirs.
        let all = role(&["*", "host.revoke"], &[], &[]);
        for name in ["host.report", "host.enrol", "job.report", "job.offer"] {
            assert!(!may(&all, name), "{name}");
        }
    }

    #[test]
    fn roles_that_mean_nothing_are_refused() {
        check(&role(&["*"], &["run.*"], &["web-*,role=web"])).expect("a good one");
        check(&role(&["*.list"], &[], &[])).expect("a pattern that begins with a star");
        check(&role(&["host.revoke"], &[], &["web-*"])).expect("hosts can be limited");
        check(&role(&["audit.list"], &[], &[])).expect("the whole hub");
        for bad in [
            role(&[], &[], &[]),
            role(&[""], &[], &[]),
            role(&["run.nothing"], &[], &[]),
            role(&["job.offer"], &[], &[]),
            role(&["run create"], &[], &[]),
            role(&["run.*"], &["runs.*"], &[]),
            role(&["run.*"], &[], &["a,,b"]),
            role(&["audit.list"], &[], &["web-*"]),
            role(&["token.create", "run.*"], &[], &["web-*"]),
        ] {
            assert!(check(&bad).is_err(), "{bad:?}");
        }
    }
}
