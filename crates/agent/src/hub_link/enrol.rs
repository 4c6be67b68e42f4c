//! Enrolment: a host whose key the hub does not know yet proves a join token, once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datacentered_link::clock::Clock;
use datacentered_link::url::HubUrl;
use datacentered_link::{Called, Handler, Request};
use datacentered_proto::operations::HostEnrol;
use datacentered_proto::ops::host::{EnrolParams, EnrolReply};
use datacentered_proto::ops::session::Subject;
use datacentered_proto::{Code, Error, HostId};
use tokio::time::{sleep, timeout};

use super::Settings;
use super::connect::{Connected, Credentials, Dialler, Failure};
use super::facts_report::FactsReport;
use super::failures::FailureKind;
use crate::jobs::Jobs;
use crate::text::clean;

/// Longest text of the hub's that is shown, in bytes.
const MAX_QUOTED: usize = 512;

/// Wait before an enrolment is repeated, where the hub names none.
const REPEAT_AFTER: Duration = Duration::from_secs(1);

/// Longest wait before an enrolment is repeated: somebody sits in front of it.
const REPEAT_AFTER_MOST: Duration = Duration::from_secs(30);

/// What the host asks for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The name it would like.
    pub name: String,
    /// Labels it would like; the token's own win.
    pub labels: BTreeMap<String, String>,
}

/// How the hub knows the host from now on.
#[derive(Debug)]
pub enum Enrolled {
    /// It was enrolled and got its certificate.
    Issued(EnrolReply),
    /// An earlier enrolment had reached the hub and its answer was lost: the key is in the registry already.
    Known {
        /// Its identity there.
        host: HostId,
        /// Its name there.
        name: String,
    },
}

/// Why the host could not be enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// No address answered as the hub that made the token.
    #[error("cannot enrol: {message}")]
    Unreachable {
        /// What happened at each address.
        message: String,
    },
    /// The hub does not take this host.
    #[error("the hub did not enrol this host: {message}")]
    Refused {
        /// Why, and what to do.
        message: String,
    },
    /// The hub was there and could not do it.
    #[error(
        "the enrolment did not come to an end: {message}; run the same command again: a token that was used by this \
         host already is accepted from it once more"
    )]
    Unfinished {
        /// Why.
        message: String,
    },
}

impl EnrolError {
    /// The exit code: 3 not reachable, 4 refused, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Unreachable { .. } => 3,
            Self::Refused { .. } => 4,
            Self::Unfinished { .. } => 1,
        }
    }
}

/// One attempt that may be worth another.
struct Again {
    message: String,
    after: Duration,
}

/// Enrols the host with the first of `hubs` that answers.
///
/// The first connection is not waited for: whoever types this sees at once that an address is wrong. What is repeated is
/// an enrolment that may have reached the hub; the hub takes the same key with the same token as the same host.
pub async fn enrol(
    settings: &Settings,
    credentials: &Credentials,
    hubs: &[HubUrl],
    token: &str,
    wanted: &Wanted,
    jobs: &Arc<Jobs>,
    clock: &Clock,
) -> Result<Enrolled, EnrolError> {
    let dialler = Dialler::new(settings, credentials, jobs.clone(), clock.clone());
    let facts = FactsReport::new(settings.facts.clone(), settings.policy.clone(), jobs.boot_id()).now().await;
    let params = EnrolParams {
        token: token.to_owned(),
        name: wanted.name.clone(),
        labels: wanted.labels.clone(),
        facts,
    };
    let answer_timeout = settings.hub.answer_timeout();
    let mut attempts = settings.hub.enrol_attempts.max(1);
    loop {
        attempts -= 1;
        let connected = first_that_answers(&dialler, hubs).await?;
        let result = ask(&connected, &params, answer_timeout).await;
        connected.part("enrolled").await;
        match result? {
            Ok(enrolled) => return Ok(enrolled),
            Err(Again { message, .. }) if attempts == 0 => return Err(EnrolError::Unfinished { message }),
            Err(Again { message, after }) => {
                tracing::warn!(retry_ms = after.as_millis() as u64, "the enrolment is repeated: {message}");
                sleep(after).await;
            }
        }
    }
}

async fn first_that_answers(dialler: &Dialler, hubs: &[HubUrl]) -> Result<Connected, EnrolError> {
    let mut failures: Vec<Failure> = Vec::new();
    for hub in hubs {
        match dialler.connect(hub, Arc::new(NotYet)).await {
            Ok(connected) => return Ok(connected),
            Err(failure) => failures.push(failure),
        }
    }
    let message = failures.iter().map(|failure| failure.message.as_str()).collect::<Vec<_>>().join("; ");
    let refused = |failure: &Failure| {
        matches!(failure.kind, FailureKind::Revoked | FailureKind::Refused | FailureKind::Incompatible)
    };
    if failures.iter().any(refused) {
        return Err(EnrolError::Refused { message });
    }
    Err(EnrolError::Unreachable { message })
}

/// The outer result is final; the inner one may be repeated.
async fn ask(
    connected: &Connected,
    params: &EnrolParams,
    longest: Duration,
) -> Result<Result<Enrolled, Again>, EnrolError> {
    let answered = timeout(longest, connected.link.call::<HostEnrol>(params)).await;
    let error = match answered {
        Ok(Ok(reply)) => return Ok(Ok(Enrolled::Issued(reply))),
        Ok(Err(error)) => error,
        Err(_) => Error::indeterminate(format!("the hub did not answer within {} ms", longest.as_millis())),
    };
    let message = clean(&error.message, MAX_QUOTED);
    match (error.code, &connected.hello.subject) {
        // The greeting has said it: this key is enrolled, and only its certificate is missing, which says no more than
        // the key.
        (Code::Forbidden | Code::Conflict, Subject::Host { id, name }) => {
            Ok(Ok(Enrolled::Known { host: *id, name: name.clone() }))
        }
        (Code::Unavailable | Code::Indeterminate | Code::Limited | Code::Internal | Code::Offline, _) => {
            let after = error.retry_after_ms.map_or(REPEAT_AFTER, Duration::from_millis);
            Ok(Err(Again { message, after: after.min(REPEAT_AFTER_MOST) }))
        }
        _ => Err(EnrolError::Refused { message }),
    }
}

/// Answers a hub that calls a host whose enrolment it has not heard the end of.
#[derive(Debug)]
struct NotYet;

impl Handler for NotYet {
    fn call(&self, request: Request) -> Called {
        let method = clean(&request.method, MAX_QUOTED);
        Called::Now(Err(Error::unavailable(format!(
            "this host is enrolling and cannot serve '{method}' yet; it connects again at once"
        ))))
    }
}
