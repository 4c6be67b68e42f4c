//! Reading a job's output: from any offset, as it is written, as often as wanted.

use std::sync::Arc;

use bytes::Bytes;
use datacentered_proto::Error;
use datacentered_proto::frame::Kind;
use datacentered_proto::ops::GapReason;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::job::{Flow, Job};
use crate::spool::{Item, SpoolReader};

/// The next thing in a job's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputEvent {
    /// At most 16 KiB of one stream.
    Bytes {
        /// Which stream.
        kind: Kind,
        /// Where the first byte stands in the job's one record.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// These offsets are not there.
    Gap {
        /// First missing.
        from: u64,
        /// First present again.
        to: u64,
        /// Why.
        reason: GapReason,
    },
    /// Nothing will ever follow.
    End {
        /// The length of the record, discarded bytes included.
        offset: u64,
    },
}

/// Reads one job's output. Costs a file and at most 64 KiB while there is something to read.
#[derive(Debug)]
pub struct OutputReader {
    job: Arc<Job>,
    spool: SpoolReader,
    flow: watch::Receiver<Flow>,
    stop: CancellationToken,
}

impl OutputReader {
    pub(super) fn new(job: Arc<Job>, from: u64, stop: CancellationToken) -> Self {
        let flow = job.flow();
        Self { spool: SpoolReader::new(&job.dir, from), flow, stop, job }
    }

    /// Where it stands: everything below was handed out.
    pub fn offset(&self) -> u64 {
        self.spool.offset()
    }

    /// The next event; after [`OutputEvent::End`] the same again. Cancelling the future loses nothing.
    ///
    /// # Errors
    /// `not_found` where the job was released meanwhile; `unavailable` where the disk cannot be read.
    pub async fn next(&mut self) -> Result<OutputEvent, Error> {
        loop {
            // Looked at before reading: what is written after this look changes it again.
            let flow = *self.flow.borrow_and_update();
            if flow.released {
                let id = self.job.id;
                return Err(Error::not_found(format!("job {id} was released; its output is on the hub")));
            }
            if flow.ended.is_some() {
                self.spool.complete();
            }
            let item = self.spool.next().await.map_err(|error| {
                Error::unavailable(format!(
                    "cannot read the job's output on the host ({error}); check its disk"
                ))
            })?;
            match (item, flow.ended) {
                (Item::Bytes { kind, offset, bytes }, _) => {
                    return Ok(OutputEvent::Bytes { kind, offset, bytes });
                }
                (Item::Gap { from, to, reason }, _) => return Ok(OutputEvent::Gap { from, to, reason }),
                (Item::Pending, Some(end)) => {
                    // Counted and neither on disk nor marked there: the disk was full, or the power failed.
                    return Ok(match self.spool.skip_to(end, GapReason::Lost) {
                        Some(Item::Gap { from, to, reason }) => OutputEvent::Gap { from, to, reason },
                        _ => OutputEvent::End { offset: end },
                    });
                }
                (Item::Pending, None) => {
                    let moved = tokio::select! {
                        moved = self.flow.changed() => moved.is_ok(),
                        () = self.stop.cancelled() => false,
                    };
                    if !moved {
                        return Err(Error::unavailable("the agent is stopping; read again when it is back"));
                    }
                }
            }
        }
    }
}
