//! The jobs that the fleet was offered last: what a liar needs to speak of jobs that are another host's.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use datacentered_proto::{JobId, RunId};

/// Jobs kept.
const MOST: usize = 256;

/// A job that was offered.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offered {
    pub(crate) host: usize,
    pub(crate) job: JobId,
    pub(crate) run: RunId,
}

/// The last offers of the whole fleet.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<VecDeque<Offered>>);

impl Board {
    pub(crate) fn add(&self, offered: Offered) {
        let mut board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if board.len() >= MOST {
            board.pop_front();
        }
        board.push_back(offered);
    }

    /// One that is not this host's.
    pub(crate) fn of_another(&self, host: usize, random: u64) -> Option<Offered> {
        let board = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = (random % board.len().max(1) as u64) as usize;
        board.iter().cycle().skip(begin).take(board.len()).find(|offered| offered.host != host).copied()
    }
}
