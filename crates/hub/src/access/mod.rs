//! Who may come in: accounts, passwords, tokens, the first account, and what each may call.

mod authorize;
mod limiter;
mod login;
mod maintain;
mod own_roles;
mod passwords;
mod rights;
mod roles;
mod setup;
mod token_ops;
mod tokens;
mod users;

use std::collections::HashMap;
use std::sync::Mutex;

use datacentered_proto::{Timestamp, TokenId};

use crate::config::Limits;
use crate::dispatch::Table;

pub use authorize::{Scope, authorize, least_role, outside};
pub use limiter::Limiter;
pub(crate) use limiter::address_key;
pub use maintain::maintain;
pub use passwords::Passwords;
pub use rights::Rights;
pub use setup::{SetupSecret, is_set_up, prepare_setup};
pub use tokens::{authenticate, check_join_token, find_join_token};

/// The secret in a text is a part of it.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(text: &str) {
    assert!(text.contains(tokens::join_secret(text)));
}

/// What this noun keeps in memory.
#[derive(Debug)]
pub struct Access {
    /// Hashes and checks passwords.
    pub passwords: Passwords,
    /// Failed logins by address.
    by_address: Limiter,
    /// Failed logins by account.
    by_account: Limiter,
    /// Held while somebody gets an own role, and while one is revoked: a role that somebody has never goes.
    role_users: tokio::sync::Mutex<()>,
    /// Uses of tokens that are not written down yet.
    used: Mutex<HashMap<TokenId, Timestamp>>,
}

impl Access {
    /// Nothing has happened yet.
    pub fn new(limits: &Limits) -> Self {
        Self {
            passwords: Passwords::new(limits.password_workers, limits.password_queue),
            by_address: Limiter::new(limits.login_failures_per_address, limits.login_recovery_ms),
            by_account: Limiter::new(limits.login_failures_per_account, limits.login_recovery_ms),
            role_users: tokio::sync::Mutex::new(()),
            used: Mutex::new(HashMap::new()),
        }
    }
}

/// Registers this noun's operations.
pub fn register(table: &mut Table) {
    login::register(table);
    setup::register(table);
    users::register(table);
    roles::register(table);
    token_ops::register(table);
}

#[cfg(test)]
mod tests;
