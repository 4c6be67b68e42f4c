//! Who a process runs as.

use std::ffi::CString;

use datacentered_proto::ByteString;
use rustix::process::{getegid, geteuid};
use serde::{Deserialize, Serialize};

use super::failure::{Failure, Step};
use crate::sys::users;

/// A user of the host, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Login name.
    pub name: String,
    /// Number.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups; empty where the process's own are kept.
    pub groups: Vec<u32>,
    /// Home directory.
    pub home: ByteString,
    /// Login shell.
    pub shell: ByteString,
    /// Whether it differs from the agent's, so that it has to be taken on.
    pub switch: bool,
}

impl Identity {
    /// Resolves a user by name or number, or the agent's own. May block for as long as the host's name service does.
    ///
    /// # Errors
    /// `NoSuchUser` where the database has none; a number must be in it too, for its group and home.
    pub fn resolve(user: Option<&str>) -> Result<Self, Failure> {
        let own = geteuid().as_raw();
        let fail = |error: &std::io::Error| Failure::io(Step::User, error, user.unwrap_or("of the agent"));
        let found = match user {
            None => users::by_uid(own).map_err(|error| fail(&error))?,
            Some(name) => {
                let missing = || Failure::at(Step::User, 0, &format!("{name:?}: the host has no such user"));
                let c_name = CString::new(name).map_err(|_| missing())?;
                let by_name = users::by_name(&c_name).map_err(|error| fail(&error))?;
                let found = match (by_name, name.parse::<u32>()) {
                    (None, Ok(uid)) => users::by_uid(uid).map_err(|error| fail(&error))?,
                    (found, _) => found,
                };
                Some(found.ok_or_else(missing)?)
            }
        };
        let Some(found) = found else {
            // An agent in a container may run under a number that no database knows.
            return Ok(Self {
                name: own.to_string(),
                uid: own,
                gid: getegid().as_raw(),
                groups: Vec::new(),
                home: "/".into(),
                shell: "/bin/sh".into(),
                switch: false,
            });
        };
        let switch = found.uid != own;
        let groups = if switch { users::groups(&found.name, found.gid) } else { Vec::new() };
        let or = |text: &CString, default: &str| {
            if text.is_empty() { ByteString::from(default) } else { ByteString(text.as_bytes().to_vec()) }
        };
        Ok(Self {
            name: found.name.to_string_lossy().into_owned(),
            uid: found.uid,
            gid: found.gid,
            groups,
            home: or(&found.home, "/"),
            shell: or(&found.shell, "/bin/sh"),
            switch,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datacentered_proto::outcome::StartFailure;

    #[test]
    fn unknown_users_are_told() {
        for user in ["no-such-user-here", "4000000123", "", "a\0b"] {
            assert_eq!(
                Identity::resolve(Some(user)).expect_err("fails").why,
                StartFailure::NoSuchUser,
                "{user:?}"
            );
        }
    }

    #[test]
    fn ones_own_identity_is_not_switched_to() {
        let own = Identity::resolve(None).expect("resolves");
        assert!(!own.switch);
        assert_eq!(Identity::resolve(Some(&own.uid.to_string())).expect("resolves"), own);
    }
}
