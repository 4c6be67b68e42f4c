//! What an agent reads: its journal and slots, spools, shims, tokens, settings, and what the kernel says.

use std::path::Path;

use datacentered_agent_lib::fuzzing;
use datacentered_agent_lib::identity::JoinToken;
use datacentered_agent_lib::journal::slots::{Contents, SLOT_LEN, Slot};
use datacentered_agent_lib::journal::{Journal, Record};
use datacentered_agent_lib::shim::launch::Launch;
use datacentered_agent_lib::shim::wire::{FromShim, ToShim};
use datacentered_agent_lib::spool::{Item, SpoolReader, measure};
use datacentered_link::backoff::Backoff;
use datacentered_proto::JobId;

use crate::support::{block_on, directory, fields, halves, json, text, with_checksum};

/// Where a journal's records begin, and how long the header of one is; see the agent's `journal/file.rs`.
const JOURNAL_HEADER: usize = 64;
const RECORD_HEADER: usize = 24;

/// Most jobs of the journals here.
const MAX_JOBS: u32 = 8;

/// A journal, found on the disk. The first byte says how: as the input is, or as records (fields) with right checksums.
pub(crate) fn journal(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    let file = if mode % 2 == 0 { rest.to_vec() } else { journal_of(&fields(rest)) };
    for payload in fields(rest) {
        json::<Record>(payload);
    }
    let dir = directory();
    std::fs::write(dir.path().join("journal"), &file).expect("written");
    let Ok(first) = Journal::open(dir.path(), MAX_JOBS) else { return };
    let (name, mark) = (first.journal.incarnation().to_owned(), first.journal.high_water());
    drop(first.journal);
    // What was taken once is taken again, and says the same: a torn end is cut only once.
    let second = Journal::open(dir.path(), MAX_JOBS).expect("a journal that was taken");
    assert_eq!((name.as_str(), mark), (second.journal.incarnation(), second.journal.high_water()));
    assert_eq!(first.entries, second.entries);
}

/// A journal's file with these records.
fn journal_of(payloads: &[&[u8]]) -> Vec<u8> {
    let incarnation = *b"0123456789abcdef";
    let mut file = vec![0; JOURNAL_HEADER];
    file[..8].copy_from_slice(b"DCJRNL01");
    file[8..24].copy_from_slice(&incarnation);
    let covered = file[..40].to_vec();
    with_checksum(&mut file, 40, &[&covered], true);
    for (number, payload) in payloads.iter().enumerate() {
        let position = file.len();
        let mut head = [0; RECORD_HEADER];
        head[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        head[8..16].copy_from_slice(&(number as u64 + 1).to_le_bytes());
        let generation = 0u64.to_le_bytes();
        let at = (position as u64).to_le_bytes();
        let parts = [&incarnation[..], &generation, &at, &head[..4], &head[8..], payload];
        let parts = parts.map(<[u8]>::to_vec);
        with_checksum(&mut head, 4, &parts.each_ref().map(Vec::as_slice), true);
        file.extend_from_slice(&head);
        file.extend_from_slice(payload);
        file.resize(file.len().next_multiple_of(8), 0);
    }
    file.resize(file.len() + 512, 0);
    file
}

/// Where the areas of a slot begin; see the agent's `journal/slots.rs`.
const AREAS: [usize; 3] = [0, 512, 1536];

/// A slot. The first byte says how: as the input is, or as its three areas (fields) with right checksums. What is read is
/// written, and read as the same.
pub(crate) fn slot(bytes: &[u8]) {
    let Some((mode, rest)) = bytes.split_first() else { return };
    let job: JobId = "018f0000-0000-7000-8000-000000000001".parse().expect("an id");
    let mut file = vec![0; SLOT_LEN as usize];
    if mode % 2 == 0 {
        let length = rest.len().min(file.len());
        file[..length].copy_from_slice(&rest[..length]);
    } else {
        for (at, payload) in AREAS.into_iter().zip(fields(rest)) {
            let mut record = b"DCS1".to_vec();
            record.extend_from_slice(&(payload.len() as u32).to_le_bytes());
            record.extend_from_slice(job.uuid().as_bytes());
            let head = record.clone();
            record.extend_from_slice(&[0; 4]);
            with_checksum(&mut record, 24, &[&head, payload], true);
            record.extend_from_slice(payload);
            let length = record.len().min(file.len() - at);
            file[at..at + length].copy_from_slice(&record[..length]);
        }
    }
    let dir = directory();
    let path = dir.path().join("slots");
    std::fs::write(&path, &file).expect("written");
    let found = Slot::open(&path, 0, job).and_then(|slot| slot.read()).expect("readable");
    std::fs::write(&path, vec![0; SLOT_LEN as usize]).expect("written");
    let slot = Slot::open(&path, 0, job).expect("opened");
    assert_eq!(slot.read().expect("readable"), Contents::default());
    // What is larger when written again than it was (an unusual spelling) may not fit; what fits is the same.
    if let Some(starting) = found.starting
        && slot.write_starting(&starting).is_ok()
    {
        assert_eq!(slot.read().expect("readable").starting, Some(starting));
    }
    if let Some(started) = found.started
        && slot.write_started(&started).is_ok()
    {
        assert_eq!(slot.read().expect("readable").started, Some(started));
    }
    if let Some(end) = found.end
        && slot.write_end(&end).is_ok()
    {
        let again = slot.read().expect("readable").end.expect("what was written");
        // Evidence that does not fit is cut, the outcome never.
        assert_eq!((again.outcome, again.stdout_bytes), (end.outcome.clone(), end.stdout_bytes));
        let _ = end.offset();
    }
}

/// The headers inside a spool's segments.
pub(crate) fn spool_record(bytes: &[u8]) {
    fuzzing::spool_record(bytes);
}

/// A spool as found on the disk: fields in pairs, the first offset of a segment (eight bytes) and the segment's file. It
/// is counted and read from two places; a reader that moves on never hands out a byte twice.
pub(crate) fn spool(bytes: &[u8]) {
    let fields = fields(bytes);
    let dir = directory();
    let mut last = 0;
    for pair in fields.chunks(2).take(8) {
        let (start, content) = (pair[0], pair.get(1).copied().unwrap_or_default());
        let start = start.try_into().map_or(0, u64::from_le_bytes);
        last = last.max(start);
        std::fs::write(dir.path().join(format!("spool.{start:016x}")), content).expect("written");
    }
    let totals = measure(dir.path()).expect("readable");
    assert!(totals.offset >= last || totals.offset == 0 || fields.len() > 2);
    for from in [0, last] {
        let mut reader = SpoolReader::new(dir.path(), from);
        reader.complete();
        // More items than the input can hold would be a reader that does not move on.
        let mut left = bytes.len() + 16;
        block_on(false, async {
            loop {
                let before = reader.offset();
                match reader.next().await.expect("readable") {
                    Item::Pending => break,
                    Item::Bytes { offset, bytes, .. } => {
                        assert!(offset == before && !bytes.is_empty());
                        assert_eq!(reader.offset(), offset + bytes.len() as u64);
                    }
                    Item::Gap { from, to, .. } => {
                        assert!(from == before && to > from && reader.offset() == to);
                    }
                }
                left = left.checked_sub(1).expect("the reader comes to an end");
            }
        });
    }
}

/// What agent and shim say to each other, and what a shim is started with.
pub(crate) fn shim_wire(bytes: &[u8]) {
    json::<ToShim>(bytes);
    json::<FromShim>(bytes);
    if let Ok(launch) = serde_json::from_slice::<Launch>(bytes) {
        let written = serde_json::to_string(&launch).expect("what was read can be written");
        let again: Launch = serde_json::from_str(&written).expect("what was written can be read");
        assert_eq!(format!("{launch:?}"), format!("{again:?}"));
    }
}

/// Join tokens. No error and no debugging text shows the secret.
pub(crate) fn join_token(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let Ok(token) = text.parse::<JoinToken>() else { return };
    assert!(!token.secret().is_empty() && text.contains(token.secret()));
    let again = format!("dcj_{}_{}", token.secret(), token.ca_fingerprint()).parse();
    assert_eq!(again, Ok(token));
}

/// `agent.toml`. With settings that were taken, reconnecting has a delay.
pub(crate) fn config(bytes: &[u8]) {
    let Some(config) = text(bytes).and_then(fuzzing::config) else { return };
    let mut backoff = Backoff::new(config.reconnect);
    for random in [0, u64::MAX, 1 << 63] {
        let _ = backoff.next(std::time::Duration::from_secs(1), random);
    }
    let limits = &config.link;
    let _ = (limits.silence(), limits.drain_timeout(), datacentered_link::websocket_config(limits));
}

/// What the hub said at the enrolment, as found on the disk.
pub(crate) fn enrolment(bytes: &[u8]) {
    let dir = directory();
    let path = dir.path().join("enrolment.json");
    std::fs::write(&path, bytes).expect("written");
    if fuzzing::enrolment(Path::new(&path)) {
        assert!(!bytes.is_empty());
    }
}

/// What the kernel says: mounts, control groups (behind a zero byte), and a process's line, in which it names itself.
pub(crate) fn kernel(bytes: &[u8]) {
    fuzzing::mounts(bytes);
    fuzzing::process(bytes);
    let (mounts, groups) = halves(bytes);
    if let (Some(mounts), Some(groups)) = (text(mounts), text(groups)) {
        fuzzing::cgroups(mounts, groups);
    }
}
