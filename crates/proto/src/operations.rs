//! The table of operations: the one place where an operation is defined.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ops::{Done, NoParams, StreamOpened};
use crate::ops::{access, audit, event, file, host, hub, job, role, run, session, terminal};

/// Who answers an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Served {
    /// The hub.
    Hub,
    /// The agents; called by the hub only.
    Agent,
    /// Both ends of every link, by the link itself.
    Link,
}

/// What an operation does to the world, and in what form it answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Reads; may be repeated freely.
    Read,
    /// Changes something; carries a client-made key, so that a repeat gets the first reply.
    Change,
    /// Opens a stream of items.
    Items,
    /// Opens a stream of bytes.
    Bytes,
    /// Opens a stream of bytes that the caller sends.
    Upload,
}

impl Effect {
    /// The word in listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Change => "change",
            Self::Items => "items",
            Self::Bytes => "bytes",
            Self::Upload => "upload",
        }
    }

    /// Whether a stream is opened.
    pub fn is_stream(self) -> bool {
        matches!(self, Self::Items | Self::Bytes | Self::Upload)
    }
}

/// Which permission an operation needs. Nothing is allowed that is not allowed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// No credential: the way in.
    Anyone,
    /// A host key that is not in the registry yet.
    Enrol,
    /// Any account or token, for itself.
    Own,
    /// Role viewer and above.
    View,
    /// Role operator and above.
    Operate,
    /// Role admin.
    Admin,
    /// An enrolled host, for what is its own.
    Agent,
    /// The hub, on its agents.
    Hub,
}

impl Permission {
    /// The word in listings.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::Enrol => "enrol",
            Self::Own => "own",
            Self::View => "view",
            Self::Operate => "operate",
            Self::Admin => "admin",
            Self::Agent => "agent",
            Self::Hub => "hub",
        }
    }
}

/// A schema, made on demand.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct OperationSpec {
    /// `noun.verb`.
    pub name: &'static str,
    /// What it does.
    pub doc: &'static str,
    /// Who answers it.
    pub served: Served,
    /// What it does to the world.
    pub effect: Effect,
    /// Who may call it.
    pub permission: Permission,
    /// Schema of the parameters.
    pub params: SchemaOf,
    /// Schema of the reply.
    pub reply: SchemaOf,
    /// Schema of the stream's items, for streams that HTTP can carry.
    pub item: Option<SchemaOf>,
}

/// An operation, as a type: ties the name to its parameters and reply.
pub trait Operation: Send + Sync + 'static {
    /// Its row in the table.
    const SPEC: &'static OperationSpec;
    /// What it takes.
    type Params: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
    /// What it answers.
    type Reply: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
}

/// An operation that opens a stream of items.
pub trait StreamOperation: Operation {
    /// One item.
    type Item: Serialize + DeserializeOwned + JsonSchema + Send + 'static;
}

macro_rules! operations {
    ($(
        $(#[doc = $doc:literal])+
        $type:ident = $name:literal, $served:ident, $effect:ident, $permission:ident, $params:ty => $reply:ty $(, item $item:ty)?;
    )*) => {
        /// Every operation there is, in the order of the table.
        pub const OPERATIONS: &[&OperationSpec] = &[$(<$type as Operation>::SPEC),*];

        $(
            $(#[doc = $doc])+
            #[derive(Clone, Copy, Debug)]
            pub struct $type;

            impl Operation for $type {
                const SPEC: &'static OperationSpec = &OperationSpec {
                    name: $name,
                    doc: concat!($($doc),+),
                    served: Served::$served,
                    effect: Effect::$effect,
                    permission: Permission::$permission,
                    params: |generator| generator.subschema_for::<$params>(),
                    reply: |generator| generator.subschema_for::<$reply>(),
                    item: operations!(@item $($item)?),
                };
                type Params = $params;
                type Reply = $reply;
            }

            $(impl StreamOperation for $type {
                type Item = $item;
            })?
        )*

        /// Reads a part of the named operation as its type and writes it again; none where it is not of that type, or
        /// where there is no such part. For fuzz targets, which know operations by name only.
        #[cfg(feature = "fuzzing")]
        pub fn recode(name: &str, part: Part, text: &str) -> Option<String> {
            match part {
                Part::Params => match name {
                    $($name => recode_as::<<$type as Operation>::Params>(text),)*
                    _ => None,
                },
                Part::Reply => match name {
                    $($name => recode_as::<<$type as Operation>::Reply>(text),)*
                    _ => None,
                },
                Part::Item => match name {
                    $($($name => recode_as::<$item>(text),)?)*
                    _ => None,
                },
            }
        }
    };
    (@item) => { None };
    (@item $item:ty) => { Some(|generator| generator.subschema_for::<$item>()) };
}

operations! {
    /// Asks whether the other end is alive; answered by the link itself.
    LinkPing = "link.ping", Link, Read, Anyone, NoParams => Done;

    /// The first call on every link: protocol version, capabilities, credential.
    SessionHello = "session.hello", Hub, Read, Anyone, session::HelloParams => session::HelloReply;
    /// A session token for a name and password.
    SessionLogin = "session.login", Hub, Change, Anyone, session::LoginParams => session::LoginReply;
    /// The first account, with the one-time secret of the setup link.
    SessionSetup = "session.setup", Hub, Change, Anyone, session::SetupParams => session::LoginReply;
    /// The credential that this session used ends.
    SessionLogout = "session.logout", Hub, Change, Own, session::LogoutParams => Done;
    /// Who this session speaks for.
    SessionWhoami = "session.whoami", Hub, Read, Own, NoParams => session::WhoamiReply;

    /// Every account.
    UserList = "user.list", Hub, Read, Admin, NoParams => access::UserListReply;
    /// A new account.
    UserCreate = "user.create", Hub, Change, Admin, access::UserCreateParams => access::User;
    /// Ends an account, its tokens and its open connections.
    UserRevoke = "user.revoke", Hub, Change, Admin, access::UserRevokeParams => Done;
    /// A new password; every session of the account ends. Admins for anyone, others for themselves.
    UserPassword = "user.password", Hub, Change, Own, access::UserPasswordParams => Done;
    /// The roles and what each allows.
    RoleList = "role.list", Hub, Read, View, NoParams => role::RoleListReply;
    /// A role of one's own: operation patterns, and the hosts that they are for.
    RoleCreate = "role.create", Hub, Change, Admin, role::RoleCreateParams => role::RoleView;
    /// Removes an own role that nobody has any more.
    RoleRevoke = "role.revoke", Hub, Change, Admin, role::RoleRevokeParams => Done;
    /// A new API or join token; its secret is shown this once.
    TokenCreate = "token.create", Hub, Change, Admin, access::TokenCreateParams => access::TokenCreateReply;
    /// Every token, without secrets.
    TokenList = "token.list", Hub, Read, Admin, NoParams => access::TokenListReply;
    /// Ends a token and every connection that uses it.
    TokenRevoke = "token.revoke", Hub, Change, Admin, access::TokenRevokeParams => Done;
    /// Who changed what, where, and how it ended.
    AuditList = "audit.list", Hub, Read, Admin, audit::ListParams => audit::ListReply;

    /// Hosts by name.
    HostList = "host.list", Hub, Read, View, host::ListParams => host::ListReply;
    /// One host.
    HostShow = "host.show", Hub, Read, View, host::HostParams => host::Host;
    /// Sets and removes labels.
    HostLabel = "host.label", Hub, Change, Operate, host::LabelParams => host::Host;
    /// Gives a host another name.
    HostRename = "host.rename", Hub, Change, Operate, host::RenameParams => host::Host;
    /// Refuses the host's key for ever; it stays in the registry.
    HostRevoke = "host.revoke", Hub, Change, Admin, host::ChangeParams => host::Host;
    /// Takes a host out of the registry; its key never returns and its unfinished jobs end as lost(host_removed).
    HostRemove = "host.remove", Hub, Change, Admin, host::ChangeParams => Done;
    /// Every host as it stands, then each change.
    HostWatch = "host.watch", Hub, Items, View, host::WatchParams => StreamOpened, item host::WatchItem;
    /// An agent whose key is not in the registry proves a join token.
    HostEnrol = "host.enrol", Hub, Read, Enrol, host::EnrolParams => host::EnrolReply;
    /// An agent's facts, when they changed.
    HostReport = "host.report", Hub, Read, Agent, host::ReportParams => Done;

    /// Runs a command on every host that the selectors match.
    RunCreate = "run.create", Hub, Change, Operate, run::CreateParams => run::RunReply;
    /// One run and a page of its targets.
    RunShow = "run.show", Hub, Read, View, run::ShowParams => run::RunReply;
    /// Runs, newest first.
    RunList = "run.list", Hub, Read, View, run::ListParams => run::ListReply;
    /// Every target of a run as it stands, then each change, until all have ended.
    RunWatch = "run.watch", Hub, Items, View, run::WatchParams => StreamOpened, item run::Target;
    /// One target's output from a cursor, then as it comes.
    RunOutput = "run.output", Hub, Bytes, View, run::OutputParams => StreamOpened, item run::OutputItem;
    /// Bytes for the standard input of every target.
    RunInput = "run.input", Hub, Upload, Operate, run::InputParams => StreamOpened;
    /// Ends a run's targets.
    RunCancel = "run.cancel", Hub, Change, Operate, run::CancelParams => run::ReachedReply;
    /// Sends a signal to the process trees of a run's targets.
    RunSignal = "run.signal", Hub, Change, Operate, run::SignalParams => run::ReachedReply;
    /// Gives up on targets whose host will not come back.
    RunAbandon = "run.abandon", Hub, Change, Operate, run::AbandonParams => run::ReachedReply;

    /// A process on a pseudo-terminal of a host.
    TerminalOpen = "terminal.open", Hub, Change, Operate, terminal::OpenParams => run::RunReply;
    /// Terminals, newest first.
    TerminalList = "terminal.list", Hub, Read, View, terminal::ListParams => terminal::ListReply;
    /// What a terminal printed, from a cursor, then as it comes.
    TerminalOutput = "terminal.output", Hub, Bytes, Operate, terminal::OutputParams => StreamOpened, item run::OutputItem;
    /// What one client types into a terminal.
    TerminalInput = "terminal.input", Hub, Upload, Operate, terminal::InputParams => StreamOpened;
    /// A terminal's window has another size.
    TerminalResize = "terminal.resize", Hub, Change, Operate, terminal::ResizeParams => run::ReachedReply;

    /// One file, directory or symbolic link on a host.
    FileStat = "file.stat", Hub, Read, Operate, file::StatParams => file::StatReply;
    /// Everything below a directory of a host, in pages.
    FileList = "file.list", Hub, Read, Operate, file::ListParams => file::ListReply;
    /// A file's bytes from an offset.
    FileRead = "file.read", Hub, Bytes, Operate, file::ReadParams => StreamOpened;
    /// Bytes for a file, kept beside its place on the host.
    FileWrite = "file.write", Hub, Upload, Operate, file::WriteParams => StreamOpened;
    /// Puts files that were written, directories and symbolic links in their places on a host.
    FilePlace = "file.place", Hub, Change, Operate, file::PlaceParams => file::PlaceReply;

    /// An agent tells where a job of its stands. Answered when the hub has it on disk.
    JobReport = "job.report", Hub, Read, Agent, job::JobReport => Done;

    /// Events from a cursor, then as they happen.
    EventWatch = "event.watch", Hub, Items, View, event::WatchParams => StreamOpened, item event::Event;

    /// How the hub is.
    HubStatus = "hub.status", Hub, Read, View, NoParams => hub::StatusReply;
    /// One consistent copy of everything, as bytes.
    HubBackup = "hub.backup", Hub, Bytes, Admin, hub::BackupParams => StreamOpened;
    /// Every operation.
    OperationList = "operation.list", Hub, Read, Own, NoParams => hub::OperationsReply;

    /// Hands a job to a host. Answered when it is in the host's journal.
    JobOffer = "job.offer", Agent, Change, Hub, job::Offer => job::JobReport;
    /// Every job that the host has not been told to forget.
    JobList = "job.list", Agent, Read, Hub, job::ListParams => job::ListReply;
    /// What a job was, for a hub that no longer knows.
    JobSpec = "job.spec", Agent, Read, Hub, job::JobParams => job::Offer;
    /// Ends a job; one that has not come yet leaves a tombstone.
    JobCancel = "job.cancel", Agent, Change, Hub, job::CancelParams => job::JobReport;
    /// Sends a signal to a job's process tree.
    JobSignal = "job.signal", Agent, Change, Hub, job::SignalParams => Done;
    /// The window of a job's terminal has another size.
    JobResize = "job.resize", Agent, Change, Hub, job::ResizeParams => Done;
    /// A job's output from an offset, then as it is written.
    JobOutput = "job.output", Agent, Bytes, Hub, job::OutputParams => StreamOpened;
    /// The hub has a job's output up to here on its disk.
    JobAck = "job.ack", Agent, Change, Hub, job::AckParams => Done;
    /// Bytes for a job's standard input.
    JobInput = "job.input", Agent, Upload, Hub, job::InputParams => StreamOpened;
    /// The host may forget these jobs.
    JobRelease = "job.release", Agent, Change, Hub, job::ReleaseParams => Done;
    /// One file, directory or symbolic link.
    HostfileStat = "hostfile.stat", Agent, Read, Hub, file::StatParams => file::StatReply;
    /// Everything below a directory, in pages.
    HostfileList = "hostfile.list", Agent, Read, Hub, file::ListParams => file::ListReply;
    /// A file's bytes from an offset.
    HostfileRead = "hostfile.read", Agent, Bytes, Hub, file::ReadParams => StreamOpened;
    /// Bytes for a file, kept beside its place.
    HostfileWrite = "hostfile.write", Agent, Upload, Hub, file::WriteParams => StreamOpened;
    /// Puts files that were written, directories and symbolic links in their places.
    HostfilePlace = "hostfile.place", Agent, Change, Hub, file::PlaceParams => file::PlaceReply;
    /// The hub is going down in good order.
    AgentDrain = "agent.drain", Agent, Read, Hub, job::DrainParams => Done;
}

/// Which of an operation's types [`recode`] is about.
#[cfg(feature = "fuzzing")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What it takes.
    Params,
    /// What it answers.
    Reply,
    /// An item of its stream.
    Item,
}

#[cfg(feature = "fuzzing")]
fn recode_as<T: Serialize + DeserializeOwned>(text: &str) -> Option<String> {
    let value: T = serde_json::from_str(text).ok()?;
    serde_json::to_string(&value).ok()
}

/// The row of an operation.
pub fn find(name: &str) -> Option<&'static OperationSpec> {
    OPERATIONS.iter().copied().find(|spec| spec.name == name)
}

/// Names of the notifications that belong to streams.
pub mod notifications {
    /// One item: [`crate::ops::StreamItem`].
    pub const ITEM: &str = "stream.item";
    /// Credit: [`crate::ops::StreamCredit`].
    pub const CREDIT: &str = "stream.credit";
    /// The receiver wants no more: [`crate::ops::StreamClose`].
    pub const CLOSE: &str = "stream.close";
    /// Something is missing: [`crate::ops::StreamGap`].
    pub const GAP: &str = "stream.gap";
    /// The last thing on a stream: [`crate::ops::StreamEnd`].
    pub const END: &str = "stream.end";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_of_the_form_noun_verb() {
        let mut seen = HashSet::new();
        for spec in OPERATIONS {
            assert!(seen.insert(spec.name), "{} is there twice", spec.name);
            let (noun, verb) = spec.name.split_once('.').expect("noun.verb");
            let plain = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase());
            assert!(plain(noun) && plain(verb), "{}", spec.name);
            assert!(!spec.doc.trim().is_empty());
        }
    }

    #[test]
    fn changing_operations_of_the_hub_take_a_key_and_streams_take_a_stream() {
        for spec in OPERATIONS {
            let mut generator = SchemaGenerator::default();
            let _ = (spec.params)(&mut generator);
            let all = serde_json::to_value(generator.take_definitions(true)).expect("encodes");
            let text = all.to_string();
            if spec.served == Served::Hub && spec.effect == Effect::Change {
                assert!(text.contains("\"key\""), "{} has no key", spec.name);
            }
            if spec.effect.is_stream() {
                assert!(text.contains("\"stream\""), "{} has no stream", spec.name);
            }
        }
    }
}
