//! A terminal's recording, piece by piece: what was printed, when, and in which window.

use bytes::Bytes;
use datacentered_client::{Client, OutputEvent, OutputStream, TerminalStart};
use datacentered_proto::ops::GapReason;
use datacentered_proto::ops::run::RunReply;
use datacentered_proto::ops::terminal::Mark;
use datacentered_proto::{RunId, frame::Kind};

use crate::failure::Result;

/// One piece.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// What follows came at this time, in this window.
    Mark(Mark),
    /// What was printed.
    Bytes(Bytes),
    /// A stretch is missing.
    Gap(u64, u64, GapReason),
}

/// Reads marks out of their frames: several may come as one, and one in two parts.
#[derive(Debug, Default)]
pub(super) struct Marks(Vec<u8>);

impl Marks {
    /// The marks that are whole now.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Vec<Mark> {
        self.0.extend_from_slice(bytes);
        let whole = self.0.len() - self.0.len() % Mark::LEN;
        let marks = self.0.chunks_exact(Mark::LEN).filter_map(Mark::decode).collect();
        self.0.drain(..whole);
        marks
    }

    /// Something else came: what was begun is no mark, but the end of one whose beginning is gone.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

/// A recording up to its end, or up to where it is now.
#[derive(Debug)]
pub(super) struct Recording {
    output: OutputStream,
    marks: Marks,
    ready: Vec<Piece>,
    /// For a terminal that has not ended: where its recording ends now.
    end: Option<u64>,
}

impl Recording {
    /// From the oldest that is kept.
    pub(super) fn open(client: &Client, run: RunId, shown: &RunReply) -> Self {
        let active = shown.summary.ended.is_none();
        let end = shown.targets.first().map_or(0, |target| target.stored_bytes);
        Self {
            output: client.terminal_output(run, TerminalStart::From(0)),
            marks: Marks::default(),
            ready: Vec::new(),
            end: active.then_some(end),
        }
    }

    /// The next piece; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Piece>> {
        loop {
            if !self.ready.is_empty() {
                return Ok(Some(self.ready.remove(0)));
            }
            if self.end.is_some_and(|end| self.output.position() >= end) {
                return Ok(None);
            }
            match self.output.next().await? {
                Some(OutputEvent::Bytes { kind: Kind::Mark, bytes, .. }) => {
                    self.ready.extend(self.marks.pass(&bytes).into_iter().map(Piece::Mark));
                }
                Some(OutputEvent::Bytes { bytes, .. }) => {
                    self.marks.forget();
                    return Ok(Some(Piece::Bytes(bytes)));
                }
                Some(OutputEvent::Gap { from, to, reason }) => {
                    self.marks.forget();
                    return Ok(Some(Piece::Gap(from, to, reason)));
                }
                Some(OutputEvent::End { .. }) | None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datacentered_proto::ops::job::Window;
    use proptest::prelude::*;

    proptest! {
        /// However the frames were joined and cut, the marks are the same.
        #[test]
        fn marks_are_found(times in proptest::collection::vec(any::<u64>(), 0..10), size in 1usize..40) {
            let marks: Vec<Mark> = times
                .into_iter()
                .map(|at_ms| Mark { at_ms, window: Window { cols: 80, rows: 24 } })
                .collect();
            let bytes: Vec<u8> = marks.iter().flat_map(|mark| mark.encode()).collect();
            let mut reader = Marks::default();
            let found: Vec<Mark> = bytes.chunks(size).flat_map(|piece| reader.pass(piece)).collect();
            prop_assert_eq!(found, marks);
        }
    }
}
