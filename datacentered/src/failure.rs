//! Why a command did not go well: its exit code, its sentence, and what to do next.

use std::fmt;
use std::io;
use std::process::ExitCode;

use datacentered_client as client;
use datacentered_proto::operations::SessionLogin;
use datacentered_proto::ops::session::Subject;
use datacentered_proto::{Code, Operation};

/// What the process ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Something failed.
    Failed,
    /// The command line was wrong, or nothing matched.
    Usage,
    /// The hub could not be reached.
    Unreachable,
    /// Not allowed.
    Forbidden,
    /// The reader of our output has gone; as if SIGPIPE had ended us.
    BrokenPipe,
    /// Exactly this code.
    Code(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
            Exit::Forbidden => 4,
            Exit::BrokenPipe => 141,
            Exit::Code(code) => code,
        })
    }
}

/// A command that did not go well.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What the process ends with.
    pub(crate) exit: Exit,
    /// What went wrong; nothing is printed where it is empty.
    pub(crate) message: String,
    /// What to do next.
    pub(crate) hint: Option<String>,
}

/// The result of a command.
pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// Something failed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// The command line was wrong, or nothing matched.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The hub could not be reached.
    pub(crate) fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Exit::Unreachable, message)
    }

    /// An exit code, with nothing more to say.
    pub(crate) fn silent(exit: Exit) -> Self {
        Self::new(exit, String::new())
    }

    /// An error and everything behind it, as one sentence.
    pub(crate) fn chain(error: &dyn std::error::Error) -> String {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text
    }

    /// Adds what to do next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure with another exit code.
    pub(crate) fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    fn refused(operation: &str, error: &datacentered_proto::Error) -> Self {
        let message = crate::text::clean::clean(&error.message);
        match error.code {
            Code::Unauthenticated if operation == SessionLogin::SPEC.name => {
                Self::new(Exit::Forbidden, message)
                    .hint("an admin can set a new password: datacentered user password NAME")
            }
            // The hub says who lacks what, and what to do about it.
            Code::Unauthenticated | Code::Forbidden => Self::new(Exit::Forbidden, message),
            Code::NotFound | Code::Invalid | Code::TooLarge => Self::usage(message),
            Code::Unavailable => Self::unreachable(message).hint("it did not happen; try again later"),
            Code::Indeterminate => {
                Self::unreachable(message).hint("it may have happened: look before you repeat it")
            }
            Code::Limited => match error.retry_after_ms {
                Some(ms) => Self::failed(message).hint(format!("try again in {} s", ms.div_ceil(1000))),
                None => Self::failed(message),
            },
            Code::Conflict | Code::Offline | Code::Internal => Self::failed(message),
        }
    }
}

/// Who a session speaks for, for a person.
pub(crate) fn describe(subject: &Subject) -> String {
    match subject {
        Subject::Anonymous => "not logged in".to_owned(),
        Subject::UnknownHost => "a host that has not joined".to_owned(),
        Subject::Host { name, .. } => format!("the host '{}'", crate::text::clean::clean(name)),
        Subject::User { name, role } => {
            format!("'{}' with the role '{role}'", crate::text::clean::clean(name))
        }
        Subject::Local { uid, .. } => format!("the local user {uid} (role 'admin')"),
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        let message = error.to_string();
        match error {
            client::Error::Unreachable { .. } => {
                Self::unreachable(message).hint("check that the hub runs there, and that the address is right")
            }
            client::Error::UntrustedKey { .. } => Self::unreachable(message).hint(
                "it may be an attack; if the hub's key was replaced on purpose, log in again: datacentered login URL",
            ),
            client::Error::UnknownKey { .. } => Self::unreachable(message)
                .hint("'datacentered login URL' shows and remembers its fingerprint; --fingerprint names it for once"),
            client::Error::GaveUp { .. } => Self::unreachable(message)
                .hint("runs go on without this client: see 'datacentered run list' when the hub is back"),
            client::Error::Invalid(_) => Self::usage(message),
            client::Error::Closed | client::Error::InputLost { .. } => Self::failed(message),
            client::Error::Refused { operation, error } => Self::refused(&operation, &error),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::silent(Exit::BrokenPipe)
        } else {
            Self::failed(format!("cannot write the output: {error}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datacentered_proto::Error;

    fn refused(error: Error) -> client::Error {
        client::Error::Refused { operation: "host.remove".into(), error }
    }

    #[test]
    fn the_hubs_advice_is_not_repeated() {
        for error in
            [Error::forbidden("'host.remove' needs the role admin"), Error::unauthenticated("log in")]
        {
            assert_eq!(Failure::from(refused(error)).hint, None);
        }
        let wrong = Error::unauthenticated("wrong name or password");
        let failure =
            Failure::from(client::Error::Refused { operation: "session.login".into(), error: wrong });
        assert!(failure.hint.is_some_and(|hint| hint.contains("user password")));
    }

    #[test]
    fn exit_codes_by_kind() {
        let exit = |error| Failure::from(refused(error)).exit;
        assert_eq!(exit(Error::not_found("")), Exit::Usage);
        assert_eq!(exit(Error::invalid("")), Exit::Usage);
        assert_eq!(exit(Error::unauthenticated("")), Exit::Forbidden);
        assert_eq!(exit(Error::unavailable("")), Exit::Unreachable);
        assert_eq!(exit(Error::conflict("")), Exit::Failed);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).exit, Exit::BrokenPipe);
    }
}
