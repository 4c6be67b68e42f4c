//! One atomic change of the hub's state.

use bytes::Bytes;
use datacentered_engine::kv::{Batch, Expect};
use datacentered_engine::record::{Provenance, Record};
use datacentered_engine::{LogName, outbox::outbox_key};
use datacentered_link::clock::Clock;
use datacentered_proto::ops::audit::AuditEntry;
use datacentered_proto::ops::event::Event;
use datacentered_proto::{Error, Timestamp};

use super::records::{Keyed, key_of};
use super::{AUDIT_LOG, EVENT_LOG, engine_error};

/// Records to write, with what must follow from them. Commits whole or not at all.
#[derive(Debug)]
pub struct Change {
    batch: Batch,
    clock: Clock,
    at: Timestamp,
    by: String,
    cause: Option<String>,
    error: Option<Error>,
}

impl Change {
    /// A change made by `by`, at this moment.
    pub fn new(clock: &Clock, by: impl Into<String>, cause: Option<String>) -> Self {
        Self {
            batch: Batch::new(),
            clock: clock.clone(),
            at: clock.wall(),
            by: by.into(),
            cause,
            error: None,
        }
    }

    /// When it is made, for the records in it.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// How many writes and checks it has.
    pub fn len(&self) -> usize {
        self.batch.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty()
    }

    fn edit(&mut self, edit: impl FnOnce(Batch) -> Result<Batch, datacentered_engine::Error>) {
        if self.error.is_none() {
            match edit(std::mem::take(&mut self.batch)) {
                Ok(batch) => self.batch = batch,
                Err(error) => self.error = Some(engine_error(error)),
            }
        }
    }

    fn provenance(&self) -> Provenance {
        Provenance { at: self.at.as_millis(), by: Some(self.by.clone()), cause: self.cause.clone() }
    }

    /// Writes a record where its key is as expected.
    pub fn put<R: Keyed>(&mut self, record: &R, expect: Expect) {
        let provenance = self.provenance();
        self.edit(|batch| {
            let key = record.key()?;
            let stored = Record::new(provenance, record.clone()).encode()?;
            Ok(batch.check(key.clone(), expect).put(key, stored))
        });
    }

    /// Writes a record whatever stands under its key. Only for facts that one task owns.
    pub fn put_unchecked<R: Keyed>(&mut self, record: &R) {
        let provenance = self.provenance();
        self.edit(|batch| {
            let stored = Record::new(provenance, record.clone()).encode()?;
            Ok(batch.put(record.key()?, stored))
        });
    }

    /// Deletes the record of kind `R` with this id.
    pub fn delete<R: Keyed>(&mut self, id: &[String]) {
        self.edit(|batch| Ok(batch.delete(key_of::<R>(id)?)));
    }

    /// Checks the record of kind `R` with this id without writing it.
    pub fn check<R: Keyed>(&mut self, id: &[String], expect: Expect) {
        self.edit(|batch| Ok(batch.check(key_of::<R>(id)?, expect)));
    }

    fn outbox(&mut self, log: &str, payload: serde_json::Result<Vec<u8>>) {
        let id = self.clock.uuid().to_string();
        self.edit(|batch| {
            let payload = payload.map_err(|error| datacentered_engine::Error::invalid(error.to_string()))?;
            let key = outbox_key(&LogName::parse(log)?, &id)?;
            Ok(batch.put(key, Bytes::from(payload)))
        });
    }

    /// An event that follows from it.
    pub fn event(&mut self, kind: &str, about: impl Into<String>, detail: serde_json::Value) {
        let event = Event { at: self.at, kind: kind.into(), about: about.into(), detail };
        self.outbox(EVENT_LOG, serde_json::to_vec(&event));
    }

    /// An audit entry that follows from it.
    pub fn audit(&mut self, entry: &AuditEntry) {
        self.outbox(AUDIT_LOG, serde_json::to_vec(entry));
    }

    pub(super) fn into_batch(self) -> Result<Batch, Error> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.batch),
        }
    }
}
