//! Writing a job's standard input: kept in a file that the shim feeds from, so that it survives the agent.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use datacentered_proto::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::job::{Command, Flow, Job};
use super::start::make_dir;
use crate::shim::launch::files;

/// Writes one job's standard input. Several writers agree through offsets.
#[derive(Debug)]
pub struct InputWriter {
    job: Arc<Job>,
    flow: watch::Receiver<Flow>,
    stop: CancellationToken,
    limit: u64,
}

impl InputWriter {
    pub(super) fn new(job: Arc<Job>, limit: u64, stop: CancellationToken) -> Self {
        let flow = job.flow();
        Self { job, flow, stop, limit }
    }

    /// Waits a little; false when the agent is stopping instead.
    pub async fn pause(&self, pause: Duration) -> bool {
        tokio::select! {
            () = tokio::time::sleep(pause) => true,
            () = self.stop.cancelled() => false,
        }
    }

    /// Bytes that the host has, delivered or not: feeding goes on from here.
    pub fn held(&self) -> u64 {
        let (_, length, _) = self.job.for_shim();
        length
    }

    /// Adds bytes at an offset. What the host has already is skipped; waits while too much is undelivered.
    ///
    /// # Errors
    /// `conflict` where bytes are missing in between, where the input was ended, or where the job has ended (then there
    /// is nobody to read it); `unavailable` where the disk does not take it.
    pub async fn write(&mut self, offset: u64, bytes: Bytes) -> Result<(), Error> {
        let limit = self.limit;
        loop {
            let flow = *self.flow.borrow_and_update();
            if flow.ended.is_some() || flow.released {
                return Err(Error::conflict("the job has ended; nobody reads its standard input any more"));
            }
            if self.held().saturating_sub(flow.delivered) < limit {
                break;
            }
            let moved = tokio::select! {
                moved = self.flow.changed() => moved.is_ok(),
                () = self.stop.cancelled() => false,
            };
            if !moved {
                return Err(Error::unavailable("the agent is stopping; go on when it is back"));
            }
        }
        let mut stdin = self.job.stdin.lock().await;
        let held = stdin.length;
        if offset > held {
            return Err(Error::conflict(format!("the host has {held} bytes of input; go on from there"))
                .with_details(serde_json::json!({ "held": held })));
        }
        let skip = usize::try_from(held - offset).unwrap_or(usize::MAX);
        let Some(fresh) = bytes.get(skip..).filter(|fresh| !fresh.is_empty()) else { return Ok(()) };
        if stdin.eof {
            return Err(Error::conflict("the input was ended; nothing can follow"));
        }
        let full = |error: std::io::Error| {
            Error::unavailable(format!(
                "the host cannot store the input ({error}); free some space and go on"
            ))
        };
        let file = if let Some(file) = &stdin.file {
            file
        } else {
            make_dir(&self.job.dir).map_err(full)?;
            let path = self.job.dir.join(files::STDIN);
            let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
            stdin.file.insert(opened.map_err(full)?)
        };
        if let Err(error) = file.write_all_at(fresh, held) {
            let _ = file.set_len(held);
            return Err(full(error));
        }
        stdin.length = held + fresh.len() as u64;
        self.job.stdin_grown(stdin.length, false);
        drop(stdin);
        self.job.nudge(Command::Input);
        Ok(())
    }

    /// Nothing follows: the process reads the end of its input when it has read the rest. Repeating it does nothing.
    ///
    /// # Errors
    /// None today.
    pub async fn eof(&mut self) -> Result<(), Error> {
        let mut stdin = self.job.stdin.lock().await;
        stdin.eof = true;
        self.job.stdin_grown(stdin.length, true);
        drop(stdin);
        self.job.nudge(Command::Input);
        Ok(())
    }
}
