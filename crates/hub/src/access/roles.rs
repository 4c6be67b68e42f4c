//! `role.list`.

use datacentered_proto::operations::{OPERATIONS, RoleList};
use datacentered_proto::ops::access::{Role, RoleListReply, RoleView};
use datacentered_proto::{Permission, Served};

use super::least_role;
use crate::dispatch::Table;

/// Registers this operation.
pub(super) fn register(table: &mut Table) {
    table.read::<RoleList, _, _>(|_, _| async { Ok(roles()) });
}

fn roles() -> RoleListReply {
    let allows = |role: Role, permission: Permission| {
        permission == Permission::Anyone || least_role(permission).is_some_and(|least| role >= least)
    };
    let operations = |role: Role| {
        let served = OPERATIONS.iter().filter(|spec| spec.served == Served::Hub);
        served.filter(|spec| allows(role, spec.permission)).map(|spec| spec.name.to_owned()).collect()
    };
    RoleListReply {
        roles: Role::ALL.into_iter().map(|name| RoleView { name, operations: operations(name) }).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_includes_the_ones_before_it() {
        let roles = roles().roles;
        assert_eq!(roles.len(), 3);
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
