//! What a credential gives: one role, or two that must both allow a thing (a token's, and its account's).

use datacentered_proto::ops::access::Role;
use datacentered_proto::ops::role::RoleName;

/// The roles of a caller. Every one of them must allow what it does; without any it may do nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights(Vec<RoleName>);

impl Rights {
    /// Nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// What one role allows.
    pub fn of(role: impl Into<RoleName>) -> Self {
        Self(vec![role.into()])
    }

    /// What a token's role allows, and never more than the account behind it.
    pub fn of_token(token: RoleName, account: Option<RoleName>) -> Self {
        match (token, account) {
            (token, None) => Self(vec![token]),
            (RoleName::BuiltIn(token), Some(RoleName::BuiltIn(account))) => Self::of(token.min(account)),
            (token, Some(account)) if token == account || account.is(Role::Admin) => Self(vec![token]),
            (token, Some(account)) => Self(vec![token, account]),
        }
    }

    /// Every role, that of the credential itself first.
    pub fn roles(&self) -> &[RoleName] {
        &self.0
    }

    /// The role that the credential itself carries.
    pub fn first(&self) -> Option<&RoleName> {
        self.0.first()
    }

    /// Whether it may do everything.
    pub fn is_admin(&self) -> bool {
        matches!(self.0.as_slice(), [one] if one.is(Role::Admin))
    }

    /// Whether the roles of two callers can be compared at all, and these are no less than `wanted`: a built-in role is
    /// no less than the ones before it, an admin's than any, an own role than itself alone.
    pub fn cover(&self, wanted: &RoleName) -> bool {
        match (self.0.as_slice(), wanted) {
            ([RoleName::BuiltIn(Role::Admin)], _) => true,
            ([RoleName::BuiltIn(own)], RoleName::BuiltIn(wanted)) => wanted <= own,
            ([own], wanted) => own == wanted,
            _ => false,
        }
    }
}

impl std::fmt::Display for Rights {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0.as_slice() {
            [] => f.write_str("no role"),
            [one] => write!(f, "the role {one}"),
            several => {
                let names: Vec<&str> = several.iter().map(RoleName::as_str).collect();
                write!(f, "what the roles {} both allow", names.join(" and "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> RoleName {
        text.parse().expect("a role's name")
    }

    #[test]
    fn a_token_never_has_more_than_its_account() {
        let of = |token: &str, account: &str| Rights::of_token(name(token), Some(name(account)));
        assert_eq!(of("admin", "viewer"), Rights::of(Role::Viewer));
        assert_eq!(of("viewer", "admin"), Rights::of(Role::Viewer));
        assert_eq!(of("web", "admin"), Rights::of(name("web")));
        assert_eq!(of("web", "web"), Rights::of(name("web")));
        assert_eq!(of("web", "db").roles(), [name("web"), name("db")]);
        assert_eq!(of("admin", "web").roles(), [name("admin"), name("web")]);
        assert!(!of("admin", "web").is_admin());
    }

    #[test]
    fn nobody_gives_more_than_they_have() {
        assert!(Rights::of(Role::Admin).cover(&name("web")));
        assert!(Rights::of(Role::Operator).cover(&name("viewer")));
        assert!(!Rights::of(Role::Operator).cover(&name("admin")));
        assert!(!Rights::of(Role::Operator).cover(&name("web")));
        assert!(Rights::of(name("web")).cover(&name("web")));
        // What an own role allows is not compared with what a built-in one does.
        assert!(!Rights::of(name("web")).cover(&name("viewer")));
        let both = Rights::of_token(name("web"), Some(name("db")));
        assert!(!both.cover(&name("web")) && !both.cover(&name("db")));
        assert!(!Rights::none().cover(&name("viewer")));
    }
}
