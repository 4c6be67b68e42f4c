//! The host's user database (through the C library, so that LDAP and the like work).

use std::ffi::{CStr, CString};
use std::io;
use std::ptr;

/// Largest buffer for one user's entry, in bytes.
const MAX_ENTRY: usize = 1 << 20;

/// Most groups of one user.
const MAX_GROUPS: usize = 65_536;

/// One user as the database knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: CString,
    /// Number.
    pub uid: u32,
    /// Number of the primary group.
    pub gid: u32,
    /// Home directory.
    pub home: CString,
    /// Login shell.
    pub shell: CString,
}

/// Finds a user by name. May block for as long as the host's name service does.
///
/// # Errors
/// The name service's.
pub fn by_name(name: &CStr) -> io::Result<Option<User>> {
    look_up(|entry, buffer, found| {
        // SAFETY: all pointers are to live objects of the stated sizes.
        unsafe { libc::getpwnam_r(name.as_ptr(), entry, buffer.as_mut_ptr().cast(), buffer.len(), found) }
    })
}

/// Finds a user by number. May block for as long as the host's name service does.
///
/// # Errors
/// The name service's.
pub fn by_uid(uid: u32) -> io::Result<Option<User>> {
    look_up(|entry, buffer, found| {
        // SAFETY: all pointers are to live objects of the stated sizes.
        unsafe { libc::getpwuid_r(uid, entry, buffer.as_mut_ptr().cast(), buffer.len(), found) }
    })
}

fn look_up(
    call: impl Fn(*mut libc::passwd, &mut [u8], *mut *mut libc::passwd) -> libc::c_int,
) -> io::Result<Option<User>> {
    let mut buffer = vec![0u8; 1024];
    loop {
        // SAFETY: passwd is pointers and integers, for which all-zero is valid.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found: *mut libc::passwd = ptr::null_mut();
        match call(&raw mut entry, &mut buffer, &raw mut found) {
            0 if found.is_null() => return Ok(None),
            0 => {
                let text = |pointer: *const libc::c_char| {
                    if pointer.is_null() {
                        return CString::default();
                    }
                    // SAFETY: the call succeeded, so the field points to a C string inside `buffer`, still alive here.
                    unsafe { CStr::from_ptr(pointer) }.to_owned()
                };
                return Ok(Some(User {
                    name: text(entry.pw_name),
                    uid: entry.pw_uid,
                    gid: entry.pw_gid,
                    home: text(entry.pw_dir),
                    shell: text(entry.pw_shell),
                }));
            }
            libc::ERANGE if buffer.len() < MAX_ENTRY => buffer.resize(buffer.len() * 4, 0),
            libc::EINTR => {}
            // The words for "no such entry" that some name services use.
            libc::ENOENT | libc::ESRCH | libc::EBADF | libc::EPERM => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// The numbers of all groups of a user, the given primary one included.
pub fn groups(name: &CStr, gid: u32) -> Vec<u32> {
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut count = groups.len() as libc::c_int;
        // SAFETY: `groups` has room for `count` numbers and the name is a C string.
        let result = unsafe { libc::getgrouplist(name.as_ptr(), gid, groups.as_mut_ptr(), &raw mut count) };
        let count = usize::try_from(count).unwrap_or(0);
        if result >= 0 {
            groups.truncate(count);
            return groups;
        }
        if groups.len() >= MAX_GROUPS {
            return groups;
        }
        groups.resize(count.clamp(groups.len() * 2, MAX_GROUPS), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_found_both_ways() {
        let root = by_uid(0).expect("looks up").expect("exists");
        assert_eq!(by_name(&root.name).expect("looks up"), Some(root.clone()));
        assert!(groups(&root.name, root.gid).contains(&root.gid));
    }

    #[test]
    fn unknown_names_are_none() {
        assert_eq!(by_name(c"no-such-user-here").expect("looks up"), None);
        assert_eq!(by_uid(4_000_000_123).expect("looks up"), None);
    }
}
