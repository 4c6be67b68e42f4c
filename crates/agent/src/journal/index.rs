//! What the journal holds, where, and which slots are free.

use std::collections::{BTreeMap, BTreeSet};

use datacentered_proto::JobId;

use super::file::Place;
use super::record::{Entry, Record};

#[derive(Debug)]
pub(super) struct Known {
    pub(super) entry: Entry,
    pub(super) places: Vec<Place>,
}

/// What is in the journal and where, and which slots are free.
#[derive(Debug, Default)]
pub(super) struct Index {
    pub(super) jobs: BTreeMap<JobId, Known>,
    pub(super) free: BTreeSet<u32>,
    /// Slots of jobs whose release is not on disk: after a crash such a job would still look into its slot.
    pub(super) freeing: Vec<u32>,
    pub(super) live: u64,
}

impl Index {
    pub(super) fn replay(&mut self, place: Place, payload: &[u8]) {
        // A record of a newer agent that this one does not know adds nothing that this one could act on.
        if let Ok(record) = serde_json::from_slice::<Record>(payload) {
            self.apply(&record, place);
        }
    }

    pub(super) fn apply(&mut self, record: &Record, place: Place) {
        let job = record.job();
        if let Record::Released { .. } = record {
            if let Some(known) = self.jobs.remove(&job) {
                self.live -= known.places.iter().map(|place| place.size()).sum::<u64>();
                self.freeing.extend(known.entry.slot);
            }
            return;
        }
        match (self.jobs.get_mut(&job), Entry::begin(record)) {
            (None, Some(entry)) => {
                self.jobs.insert(job, Known { entry, places: vec![place] });
                self.live += place.size();
            }
            (Some(known), None) => {
                if let Record::Cancel { at, by, .. } = record
                    && known.entry.cancel.is_none()
                {
                    known.entry.cancel = Some((*at, by.clone()));
                    known.places.push(place);
                    self.live += place.size();
                }
            }
            // A second beginning or an addition to nothing cannot have been written by this program.
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    pub(super) fn next_slot(&self) -> u32 {
        self.jobs.values().filter_map(|known| known.entry.slot).max().map_or(0, |slot| slot.saturating_add(1))
    }

    pub(super) fn find_free(&mut self, count: u32) {
        self.freeing.clear();
        let taken: BTreeSet<u32> = self.jobs.values().filter_map(|known| known.entry.slot).collect();
        self.free = (0..count).filter(|slot| !taken.contains(slot)).collect();
    }
}
