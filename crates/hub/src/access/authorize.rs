//! The one place that decides who may call what.

use datacentered_proto::ops::access::Role;
use datacentered_proto::ops::session::Subject;
use datacentered_proto::{Error, OperationSpec, Permission};

use crate::sessions::{Credential, Who};

/// The least role that a permission needs, where roles have it at all.
pub fn least_role(permission: Permission) -> Option<Role> {
    match permission {
        Permission::Own | Permission::View => Some(Role::Viewer),
        Permission::Operate => Some(Role::Operator),
        Permission::Admin => Some(Role::Admin),
        Permission::Anyone | Permission::Enrol | Permission::Agent | Permission::Hub => None,
    }
}

/// Whether `who` may call the operation at all. What a host may do to which object is decided where the object is.
///
/// Errors: `unauthenticated` for strangers, else `forbidden`, both saying what is needed.
pub fn authorize(who: &Who, spec: &OperationSpec) -> Result<(), Error> {
    let is_host_key = who.credential == Credential::HostKey;
    let allowed = match spec.permission {
        // A host's key opens the agents' operations and nothing else.
        Permission::Anyone => !is_host_key || matches!(spec.name, "session.hello" | "link.ping"),
        // An enrolled host may ask again: its first reply may have been lost.
        Permission::Enrol => matches!(who.subject, Subject::UnknownHost | Subject::Host { .. }),
        Permission::Agent => matches!(who.subject, Subject::Host { .. }),
        Permission::Hub => false,
        Permission::Own | Permission::View | Permission::Operate | Permission::Admin => {
            match (who.role, least_role(spec.permission)) {
                (Some(role), Some(least)) => role >= least,
                _ => false,
            }
        }
    };
    if allowed {
        return Ok(());
    }
    if matches!(who.subject, Subject::Anonymous) {
        return Err(Error::unauthenticated(format!(
            "'{}' needs a credential: log in with 'datacentered login', or give a token with --token or in \
             session.hello",
            spec.name
        )));
    }
    let needed = match least_role(spec.permission) {
        Some(role) => format!("the role {role} or above"),
        None => format!("to be called with the permission '{}'", spec.permission.as_str()),
    };
    let has = match who.role {
        Some(role) => format!("{} has the role {role}", who.name()),
        None => format!("{} has none", who.name()),
    };
    Err(Error::forbidden(format!("'{}' needs {needed}; {has}", spec.name)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use datacentered_proto::operations::OPERATIONS;
    use datacentered_proto::{HostId, Served, ids::uuid_v7};

    fn user(role: Role) -> Who {
        Who {
            subject: Subject::User { name: "x".into(), role },
            role: Some(role),
            credential: Credential::Token(datacentered_proto::TokenId::from_uuid(uuid_v7(1, [0; 10]))),
            user: None,
        }
    }

    fn host() -> Who {
        Who {
            subject: Subject::Host { id: HostId::from_uuid(uuid_v7(1, [0; 10])), name: "h".into() },
            role: None,
            credential: Credential::HostKey,
            user: None,
        }
    }

    /// The whole table against every kind of caller; what each may call is written down here a second time.
    #[test]
    fn every_operation_for_every_caller() {
        for spec in OPERATIONS.iter().filter(|spec| spec.served == Served::Hub) {
            let may = |who: &Who| authorize(who, spec).is_ok();
            let (anyone, enrol, agent, least) = match spec.permission {
                Permission::Anyone => (true, false, false, None),
                Permission::Enrol => (false, true, false, None),
                Permission::Agent => (false, false, true, None),
                Permission::Own | Permission::View => (false, false, false, Some(0)),
                Permission::Operate => (false, false, false, Some(1)),
                Permission::Admin => (false, false, false, Some(2)),
                Permission::Hub => (false, false, false, None),
            };
            let hello = spec.name == "session.hello";
            let unknown =
                Who { subject: Subject::UnknownHost, credential: Credential::HostKey, ..Who::anonymous() };
            assert_eq!(may(&Who::anonymous()), anyone, "{} by a stranger", spec.name);
            assert_eq!(may(&unknown), enrol || hello, "{} by an unknown host", spec.name);
            assert_eq!(may(&host()), agent || enrol || hello, "{} by a host", spec.name);
            for (index, role) in Role::ALL.into_iter().enumerate() {
                let expected = anyone || least.is_some_and(|least| index >= least);
                assert_eq!(may(&user(role)), expected, "{} by {role}", spec.name);
            }
            assert_eq!(may(&Who::local(0, 1)), anyone || least.is_some(), "{} locally", spec.name);
        }
    }
}
