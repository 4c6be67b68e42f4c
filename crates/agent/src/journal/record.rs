//! The journal's records, and what they add up to for one job.

use datacentered_proto::ops::job::Offer;
use datacentered_proto::outcome::StartFailure;
use datacentered_proto::{JobId, Outcome, RunId, Timestamp};
use serde::{Deserialize, Serialize};

/// One thing that happened. Written as JSON; fields may be added, none may change its meaning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "records pass by one at a time; none is stored")]
pub enum Record {
    /// The host took a job.
    Accepted {
        /// When.
        at: Timestamp,
        /// The slot that is reserved for it.
        slot: u32,
        /// All of what was asked for.
        offer: Offer,
    },
    /// The host would not have it ([`crate::jobs::Refuse`]).
    Refused {
        /// When.
        at: Timestamp,
        /// The job.
        job: JobId,
        /// Its run.
        run: RunId,
        /// Why not.
        why: String,
    },
    /// There was no room to accept it.
    NoRoom {
        /// When.
        at: Timestamp,
        /// The job.
        job: JobId,
        /// Its run.
        run: RunId,
        /// The word for it.
        why: StartFailure,
    },
    /// A cancel came before its job did.
    Tombstone {
        /// When.
        at: Timestamp,
        /// The job.
        job: JobId,
        /// Its run.
        run: RunId,
        /// Who cancelled it.
        by: String,
    },
    /// A cancel of an accepted job.
    Cancel {
        /// When.
        at: Timestamp,
        /// The job.
        job: JobId,
        /// Who asked.
        by: String,
    },
    /// The hub has everything: forget it.
    Released {
        /// The job.
        job: JobId,
    },
}

impl Record {
    /// The job it is about.
    pub fn job(&self) -> JobId {
        match self {
            Self::Accepted { offer, .. } => offer.job,
            Self::Refused { job, .. }
            | Self::NoRoom { job, .. }
            | Self::Tombstone { job, .. }
            | Self::Cancel { job, .. }
            | Self::Released { job } => *job,
        }
    }
}

/// What the journal says about one job that was not released.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The job.
    pub job: JobId,
    /// Its run.
    pub run: RunId,
    /// When it was accepted, or decided.
    pub at: Timestamp,
    /// Its slot, where it was accepted.
    pub slot: Option<u32>,
    /// The outcome, where the journal itself has it: refused, cancelled before it came.
    pub outcome: Option<Outcome>,
    /// The first cancel of an accepted job: when, and by whom.
    pub cancel: Option<(Timestamp, String)>,
}

impl Entry {
    /// The entry that a record begins; `None` for those that only add to one.
    pub fn begin(record: &Record) -> Option<Self> {
        let decided = |at: &Timestamp, job: &JobId, run: &RunId, outcome| {
            Some(Self { job: *job, run: *run, at: *at, slot: None, outcome: Some(outcome), cancel: None })
        };
        match record {
            Record::Accepted { at, slot, offer } => Some(Self {
                job: offer.job,
                run: offer.run,
                at: *at,
                slot: Some(*slot),
                outcome: None,
                cancel: None,
            }),
            Record::Refused { at, job, run, why } => {
                decided(at, job, run, Outcome::Refused { why: why.clone() })
            }
            Record::NoRoom { at, job, run, why } => {
                decided(at, job, run, Outcome::FailedToStart { why: *why })
            }
            Record::Tombstone { at, job, run, by } => {
                decided(at, job, run, Outcome::Cancelled { by: by.clone() })
            }
            Record::Cancel { .. } | Record::Released { .. } => None,
        }
    }
}
