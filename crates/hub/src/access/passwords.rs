//! Passwords: argon2id, on a bounded number of threads.

use std::sync::{Arc, OnceLock};

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use datacentered_proto::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Shortest password, in characters.
const MIN_CHARS: usize = 10;

/// Longest password, in bytes.
const MAX_BYTES: usize = 1024;

/// Hashes and checks passwords, a few at a time.
#[derive(Debug)]
pub struct Passwords {
    /// Those being hashed and those that wait.
    places: Arc<Semaphore>,
    /// Those being hashed.
    workers: Arc<Semaphore>,
    /// The hash that a name nobody has is checked against, so that it takes as long as one that somebody has.
    nobody: Arc<OnceLock<String>>,
}

/// Held while a password is hashed.
struct Turn {
    _place: OwnedSemaphorePermit,
    _worker: OwnedSemaphorePermit,
}

impl Passwords {
    /// At most `workers` at a time, while at most `queue` wait.
    pub fn new(workers: usize, queue: usize) -> Self {
        Self {
            places: Arc::new(Semaphore::new(workers + queue)),
            workers: Arc::new(Semaphore::new(workers)),
            nobody: Arc::default(),
        }
    }

    async fn turn(&self) -> Result<Turn, Error> {
        let busy =
            || Error::limited("too many logins at once; try again in a moment").with_retry_after_ms(1000);
        let place = self.places.clone().try_acquire_owned().map_err(|_| busy())?;
        let worker = self.workers.clone().acquire_owned().await.map_err(|_| busy())?;
        Ok(Turn { _place: place, _worker: worker })
    }

    async fn run<T, F>(&self, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, Error> + Send + 'static,
    {
        let turn = self.turn().await?;
        // The turn ends with the work, also where nobody waits for it any more.
        tokio::task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        })
        .await
        .unwrap_or_else(|_| Err(Error::internal("a password could not be hashed; the hub's log has more")))
    }

    /// The stored form of a new password.
    pub async fn hash(&self, password: String) -> Result<String, Error> {
        self.run(move || hash(&password)).await
    }

    /// Whether the password is the stored one. Without a stored one it takes as long, and is not.
    pub async fn verify(&self, password: String, stored: Option<String>) -> Result<bool, Error> {
        let nobody = self.nobody.clone();
        self.run(move || {
            if password.len() > MAX_BYTES {
                return Ok(false);
            }
            let Some(stored) = stored else {
                if nobody.get().is_none() {
                    // Losing a race is fine: any hash will do.
                    let _ = nobody.set(hash("a password that no account has")?);
                }
                let stored = nobody.get().map_or("", String::as_str);
                let _ = Argon2::default().verify_password(password.as_bytes(), stored);
                return Ok(false);
            };
            Ok(Argon2::default().verify_password(password.as_bytes(), stored.as_str()).is_ok())
        })
        .await
    }
}

fn hash(password: &str) -> Result<String, Error> {
    Argon2::default()
        .hash_password(password.as_bytes())
        .map(|hash| hash.to_string())
        .map_err(|error| Error::internal(format!("a password could not be hashed: {error}")))
}

/// Refuses passwords that cannot be used, and says why.
pub(super) fn check_strength(name: &str, password: &str) -> Result<(), Error> {
    if password.chars().count() < MIN_CHARS {
        return Err(Error::invalid(format!(
            "the password is too short: use at least {MIN_CHARS} characters"
        )));
    }
    if password.len() > MAX_BYTES {
        return Err(Error::invalid(format!("the password is too long: use at most {MAX_BYTES} bytes")));
    }
    let mut chars = password.chars();
    let first = chars.next();
    if chars.all(|other| Some(other) == first) {
        return Err(Error::invalid("the password is one character repeated; use another"));
    }
    if password.to_lowercase().contains(&name.to_lowercase()) && password.len() < name.len() + MIN_CHARS {
        return Err(Error::invalid("the password contains the account's name; use another"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use datacentered_proto::Code;

    #[tokio::test]
    async fn the_right_password_and_no_other() {
        let passwords = Passwords::new(1, 4);
        let stored = passwords.hash("correct horse battery".into()).await.expect("hashes");
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(
            passwords.verify("correct horse battery".into(), Some(stored.clone())).await.expect("checks")
        );
        assert!(!passwords.verify("correct horse".into(), Some(stored)).await.expect("checks"));
        assert!(!passwords.verify("a password that no account has".into(), None).await.expect("checks"));
        assert!(!passwords.verify("x".into(), Some("not a hash".into())).await.expect("checks"));
    }

    #[tokio::test]
    async fn a_full_queue_says_so() {
        let passwords = Arc::new(Passwords::new(1, 1));
        let first = passwords.turn().await.expect("first");
        let waiting = tokio::spawn({
            let passwords = passwords.clone();
            async move { passwords.turn().await.is_ok() }
        });
        tokio::task::yield_now().await;
        let error = passwords.turn().await.err().expect("full");
        assert_eq!(error.code, Code::Limited);
        assert!(error.retry_after_ms.is_some());
        drop(first);
        assert!(waiting.await.expect("joins"));
    }

    #[test]
    fn weak_passwords_are_refused() {
        for bad in ["short", "aaaaaaaaaaaa", "administrator"] {
            assert!(check_strength("administrator", bad).is_err(), "{bad}");
        }
        assert!(check_strength("x", &"ä".repeat(600)).is_err());
        check_strength("anna", "a good pass").expect("is fine");
        check_strength("a", "pässwörter").expect("ten characters");
    }
}
