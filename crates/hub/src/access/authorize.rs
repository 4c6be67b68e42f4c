//! The one place that decides who may call what, and on which hosts.
//!
//! [`authorize`] answers the first half, with a [`Scope`] for the second: every handler asks the scope about each host
//! it touches or shows, at that moment, so that a host which leaves a role's selectors leaves open streams too.

use std::sync::Arc;

use datacentered_proto::ops::access::Role;
use datacentered_proto::ops::role::RoleName;
use datacentered_proto::ops::session::Subject;
use datacentered_proto::{Error, HostId, OperationSpec, Permission};

use super::own_roles;
use crate::hosts::selector::Selector;
use crate::hosts::with_traits;
use crate::hub::Hub;
use crate::sessions::{Credential, Who};
use crate::store::View;
use crate::store::records::{HostRecord, TargetRef};

/// The least role that a permission needs, where roles have it at all.
pub fn least_role(permission: Permission) -> Option<Role> {
    match permission {
        Permission::Own | Permission::View => Some(Role::Viewer),
        Permission::Operate => Some(Role::Operator),
        Permission::Admin => Some(Role::Admin),
        Permission::Anyone | Permission::Enrol | Permission::Agent | Permission::Hub => None,
    }
}

/// On which hosts a caller may do what it may do.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// One union of selectors for each role that is limited to hosts; a host must be in every one. Empty: all hosts.
    limits: Arc<[Vec<Selector>]>,
}

impl Scope {
    /// Whether some hosts may be outside.
    pub fn is_limited(&self) -> bool {
        !self.limits.is_empty()
    }

    /// Whether a host is inside, as it stands now.
    pub fn allows(&self, hub: &Hub, host: &HostRecord) -> bool {
        self.limits.is_empty()
            || with_traits(hub, host, |traits| {
                self.limits.iter().all(|union| union.iter().any(|selector| selector.matches(traits)))
            })
    }

    /// Whether the host with this id is inside. One that left the registry is in no limited scope.
    pub fn allows_id(&self, hub: &Hub, view: &View, host: HostId) -> bool {
        self.limits.is_empty() || view.hosts.get(&host).is_some_and(|host| self.allows(hub, host))
    }

    /// The targets whose hosts are inside.
    pub fn keep(&self, hub: &Hub, view: &View, targets: &mut Vec<TargetRef>) {
        if self.is_limited() {
            targets.retain(|target| self.allows_id(hub, view, target.host));
        }
    }

    /// Refuses a host that is outside.
    pub fn require(&self, hub: &Hub, host: &HostRecord) -> Result<(), Error> {
        if self.allows(hub, host) { Ok(()) } else { Err(outside(&host.name)) }
    }
}

/// Why a host cannot be used.
pub fn outside(host: &str) -> Error {
    Error::forbidden(format!(
        "your role is limited to some hosts, and '{host}' is not one of them; 'datacentered host list' shows yours"
    ))
}

/// What one role of a caller says about an operation.
enum Verdict {
    /// Not this.
    No,
    /// On all hosts.
    Yes,
    /// On the hosts that these selectors match.
    On(Vec<Selector>),
}

fn verdict(hub: &Hub, role: &RoleName, spec: &OperationSpec) -> Verdict {
    let name = match role {
        RoleName::BuiltIn(role) => {
            let enough = least_role(spec.permission).is_some_and(|least| *role >= least);
            return if enough { Verdict::Yes } else { Verdict::No };
        }
        RoleName::Own(name) => name,
    };
    // A role that is gone allows nothing.
    let Some(role) = hub.store.view(|view| view.roles.get(name).cloned()) else { return Verdict::No };
    if !own_roles::allows(&role, spec) {
        return Verdict::No;
    }
    if role.on.is_empty() {
        return Verdict::Yes;
    }
    // A selector that can no longer be read matches nothing; the union of none is no host at all.
    Verdict::On(role.on.iter().filter_map(|text| Selector::parse(text).ok()).collect())
}

/// Whether `who` may call the operation, and on which hosts. What a host may do to which object is decided where the
/// object is.
///
/// Errors: `unauthenticated` for strangers, else `forbidden`, both saying what is needed.
pub fn authorize(hub: &Hub, who: &Who, spec: &OperationSpec) -> Result<Scope, Error> {
    let is_host_key = who.credential == Credential::HostKey;
    let mut limits = Vec::new();
    let allowed = match spec.permission {
        // A host's key opens the agents' operations and nothing else.
        Permission::Anyone => !is_host_key || matches!(spec.name, "session.hello" | "link.ping"),
        // An enrolled host may ask again: its first reply may have been lost.
        Permission::Enrol => matches!(who.subject, Subject::UnknownHost | Subject::Host { .. }),
        Permission::Agent => matches!(who.subject, Subject::Host { .. }),
        Permission::Hub => false,
        Permission::Own | Permission::View | Permission::Operate | Permission::Admin => {
            let roles = who.rights.roles();
            let all = roles.iter().all(|role| match verdict(hub, role, spec) {
                Verdict::No => false,
                Verdict::Yes => true,
                Verdict::On(selectors) => {
                    limits.push(selectors);
                    true
                }
            });
            all && !roles.is_empty()
        }
    };
    if allowed {
        return Ok(Scope { limits: limits.into() });
    }
    if matches!(who.subject, Subject::Anonymous) {
        return Err(Error::unauthenticated(format!(
            "'{}' needs a credential: log in with 'datacentered login', or give a token with --token or in \
             session.hello",
            spec.name
        )));
    }
    let needed = match least_role(spec.permission) {
        Some(role) => format!("the role {role} or above, or an own role that allows it"),
        None => format!("to be called with the permission '{}'", spec.permission.as_str()),
    };
    Err(Error::forbidden(format!("'{}' needs {needed}; {} has {}", spec.name, who.name(), who.rights)))
}

#[cfg(test)]
mod tests {
    use super::super::Rights;
    use super::*;
    use crate::server::harness::TestHub;
    use datacentered_proto::operations::OPERATIONS;
    use datacentered_proto::{HostId, Served, ids::uuid_v7};

    fn user(role: Role) -> Who {
        Who {
            subject: Subject::User { name: "x".into(), role: role.into() },
            rights: Rights::of(role),
            credential: Credential::Token(datacentered_proto::TokenId::from_uuid(uuid_v7(1, [0; 10]))),
            user: None,
        }
    }

    fn host() -> Who {
        Who {
            subject: Subject::Host { id: HostId::from_uuid(uuid_v7(1, [0; 10])), name: "h".into() },
            rights: Rights::none(),
            credential: Credential::HostKey,
            user: None,
        }
    }

    /// The whole table against every kind of caller; what each may call is written down here a second time.
    #[tokio::test]
    async fn every_operation_for_every_caller() {
        let hub = TestHub::start().await;
        for spec in OPERATIONS.iter().filter(|spec| spec.served == Served::Hub) {
            let may = |who: &Who| authorize(&hub.hub, who, spec).is_ok();
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
        hub.stop().await;
    }
}
