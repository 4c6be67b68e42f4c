//! The hub's view of the `control` bucket, in memory, fed by a watch.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use datacentered_engine::kv::Change;
use datacentered_engine::record::Record;
use datacentered_proto::ops::run::{Counts, OfflinePolicy};
use datacentered_proto::{HostId, JobId, JobState, OperationKey, Outcome, RunId, Timestamp, TokenId};

use super::records::{
    BurntKeyRecord, DedupeRecord, HostNameRecord, HostRecord, HubRecord, JobRecord, JournalRecord, Keyed,
    PresenceRecord, RoleRecord, RunRecord, RunTargetsRecord, SetupRecord, TargetRef, TokenRecord, UserRecord,
};

/// A record and the revision of its last write.
#[derive(Clone, Debug)]
pub struct Versioned<R> {
    /// The revision of its last write.
    pub revision: u64,
    /// The record.
    pub record: Arc<R>,
}

impl<R> std::ops::Deref for Versioned<R> {
    type Target = R;

    fn deref(&self) -> &R {
        &self.record
    }
}

/// What a change was about, for watchers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// A host's record or presence.
    Host(HostId),
    /// A host that left the registry, with its last name.
    HostRemoved(HostId, String),
    /// An account.
    User,
    /// A token.
    Token(TokenId),
    /// A run's record.
    Run(RunId),
    /// A job's record.
    Job(RunId, JobId),
}

/// Where the jobs of a run stand.
#[derive(Clone, Debug, Default)]
pub struct RunJobs {
    /// How many stand where, hosts that were away left out. `targets` counts the job records there are.
    counts: Counts,
    /// Those whose host was away; what that means is the run's to say.
    offline: u32,
    /// Those that have not been offered, in the order of the run's targets.
    pub queued: BTreeSet<JobId>,
}

impl RunJobs {
    /// Counts a job once more, where it stands.
    pub fn add(&mut self, job: &JobRecord) {
        *self.place(job) += 1;
        self.counts.targets += 1;
    }

    fn place(&mut self, job: &JobRecord) -> &mut u32 {
        let counts = &mut self.counts;
        match (&job.outcome, job.state) {
            (Some(outcome), _) if outcome.is_success() => &mut counts.succeeded,
            (Some(Outcome::Offline { .. }), _) => &mut self.offline,
            (Some(_), _) => &mut counts.failed,
            (None, JobState::Queued) => &mut counts.queued,
            (None, _) => &mut counts.under_way,
        }
    }

    /// How many of the run's jobs stand where.
    pub fn counts(&self, run: &RunRecord) -> Counts {
        let mut counts = self.counts;
        match run.offline {
            OfflinePolicy::Skip => counts.succeeded += self.offline,
            OfflinePolicy::Fail | OfflinePolicy::Queue => counts.failed += self.offline,
        }
        counts
    }
}

/// Everything that lists and searches look at. Revisions are those of the `control` bucket.
#[derive(Debug, Default)]
pub struct View {
    /// The bucket revision that this view holds.
    pub revision: u64,
    /// Hosts by identity.
    pub hosts: HashMap<HostId, Versioned<HostRecord>>,
    /// Identities by name, in the order of lists.
    pub host_names: BTreeMap<String, HostId>,
    /// Identities by key fingerprint.
    pub host_keys: HashMap<String, HostId>,
    /// Keys that never return.
    pub burnt_keys: HashMap<String, Arc<BurntKeyRecord>>,
    /// What is known of the hosts' journals.
    pub journals: HashMap<HostId, Versioned<JournalRecord>>,
    /// Presence by host.
    pub presence: HashMap<HostId, Versioned<PresenceRecord>>,
    /// Accounts by name.
    pub users: BTreeMap<String, Versioned<UserRecord>>,
    /// Own roles by name.
    pub roles: BTreeMap<String, Versioned<RoleRecord>>,
    /// Tokens by public id (time-ordered).
    pub tokens: BTreeMap<TokenId, Versioned<TokenRecord>>,
    /// Token ids by the hash of their secret.
    pub token_hashes: HashMap<String, TokenId>,
    /// Runs by id (time-ordered by their makers).
    pub runs: BTreeMap<RunId, Versioned<RunRecord>>,
    /// Pieces of long target lists.
    pub run_targets: HashMap<RunId, BTreeMap<u32, Arc<RunTargetsRecord>>>,
    /// Jobs by id.
    pub jobs: HashMap<JobId, Versioned<JobRecord>>,
    /// Where the jobs of each run stand.
    pub run_jobs: HashMap<RunId, RunJobs>,
    /// Bytes of output of all jobs, as [`View::held_bytes`] has them.
    pub output_bytes: u64,
    /// Jobs that wait for their host, by when they stop waiting.
    pub expiries: BTreeSet<(Timestamp, JobId)>,
    /// Jobs that have not ended or whose output is not complete, by host, in the order of their ids.
    pub open_jobs: HashMap<HostId, BTreeSet<JobId>>,
    /// Runs that have not ended.
    pub active_runs: BTreeSet<RunId>,
    /// First replies, by caller and key.
    pub dedupe: HashMap<(String, OperationKey), Versioned<DedupeRecord>>,
    /// The one-time secret of the first account.
    pub setup: Option<Versioned<SetupRecord>>,
    /// What the hub knows about its own history.
    pub hub: Option<Versioned<HubRecord>>,
}

fn decode<R: Keyed>(change: &Change) -> datacentered_engine::Result<Option<Versioned<R>>> {
    let Some(value) = &change.value else { return Ok(None) };
    let record = Record::<R>::decode(value)?.value;
    Ok(Some(Versioned { revision: change.revision, record: Arc::new(record) }))
}

impl View {
    /// Applies one change. Keys of kinds that this view does not hold (outboxes) are passed over.
    pub fn apply(&mut self, change: &Change, changed: &mut Vec<Changed>) -> datacentered_engine::Result<()> {
        let mut tokens = change.key.tokens();
        let kind = tokens.next().unwrap_or_default();
        let id = tokens.next().unwrap_or_default();
        match kind.as_ref() {
            HostRecord::KIND => self.apply_host(id.parse().ok(), decode(change)?, changed),
            HostNameRecord::KIND if change.value.is_none() => {
                self.host_names.remove(id.as_ref());
            }
            HostNameRecord::KIND => {
                if let Some(record) = decode::<HostNameRecord>(change)? {
                    self.host_names.insert(record.name.clone(), record.host);
                }
            }
            BurntKeyRecord::KIND => {
                if let Some(burnt) = decode::<BurntKeyRecord>(change)? {
                    self.burnt_keys.insert(burnt.fingerprint.clone(), burnt.record);
                }
            }
            JournalRecord::KIND => {
                if let Ok(host) = id.parse() {
                    replace(&mut self.journals, host, decode(change)?);
                }
            }
            PresenceRecord::KIND => {
                if let Ok(host) = id.parse() {
                    replace(&mut self.presence, host, decode(change)?);
                    changed.push(Changed::Host(host));
                }
            }
            UserRecord::KIND => {
                match decode::<UserRecord>(change)? {
                    Some(user) => self.users.insert(user.name.clone(), user),
                    None => self.users.remove(id.as_ref()),
                };
                changed.push(Changed::User);
            }
            RoleRecord::KIND => {
                match decode::<RoleRecord>(change)? {
                    Some(role) => self.roles.insert(role.name.clone(), role),
                    None => self.roles.remove(id.as_ref()),
                };
            }
            TokenRecord::KIND => {
                if let Ok(token) = id.parse::<TokenId>() {
                    self.apply_token(token, decode(change)?);
                    changed.push(Changed::Token(token));
                }
            }
            RunRecord::KIND => {
                if let Ok(run) = id.parse::<RunId>() {
                    self.apply_run(run, decode(change)?);
                    changed.push(Changed::Run(run));
                }
            }
            RunTargetsRecord::KIND => {
                let chunk = tokens.next().unwrap_or_default();
                if let (Ok(run), Ok(chunk)) = (id.parse::<RunId>(), chunk.parse::<u32>()) {
                    self.apply_run_targets(run, chunk, decode(change)?);
                }
            }
            JobRecord::KIND => {
                if let Ok(job) = id.parse::<JobId>() {
                    self.apply_job(job, decode(change)?, changed);
                }
            }
            DedupeRecord::KIND => {
                let key = tokens.next().unwrap_or_default();
                if let Ok(key) = key.parse::<OperationKey>() {
                    replace(&mut self.dedupe, (id.into_owned(), key), decode(change)?);
                }
            }
            SetupRecord::KIND => self.setup = decode(change)?,
            HubRecord::KIND => self.hub = decode(change)?,
            _ => {}
        }
        Ok(())
    }

    fn apply_host(
        &mut self,
        id: Option<HostId>,
        host: Option<Versioned<HostRecord>>,
        changed: &mut Vec<Changed>,
    ) {
        let Some(id) = id else { return };
        if let Some(old) = self.hosts.get(&id) {
            self.host_keys.remove(&old.key_fingerprint);
        }
        match host {
            Some(host) => {
                self.host_keys.insert(host.key_fingerprint.clone(), id);
                self.hosts.insert(id, host);
                changed.push(Changed::Host(id));
            }
            None => {
                if let Some(old) = self.hosts.remove(&id) {
                    changed.push(Changed::HostRemoved(id, old.name.clone()));
                }
            }
        }
    }

    fn apply_token(&mut self, id: TokenId, token: Option<Versioned<TokenRecord>>) {
        if let Some(old) = self.tokens.remove(&id) {
            self.token_hashes.remove(&old.secret_hash);
        }
        if let Some(token) = token {
            self.token_hashes.insert(token.secret_hash.clone(), id);
            self.tokens.insert(id, token);
        }
    }

    fn apply_run(&mut self, id: RunId, run: Option<Versioned<RunRecord>>) {
        if let Some(run) = run {
            if run.ended.is_none() {
                self.active_runs.insert(id);
            } else {
                self.active_runs.remove(&id);
            }
            self.runs.insert(id, run);
        } else {
            self.active_runs.remove(&id);
            self.runs.remove(&id);
        }
    }

    fn apply_run_targets(&mut self, run: RunId, chunk: u32, targets: Option<Versioned<RunTargetsRecord>>) {
        match targets {
            Some(targets) => {
                self.run_targets.entry(run).or_default().insert(chunk, targets.record);
            }
            None => {
                if let Some(chunks) = self.run_targets.get_mut(&run) {
                    chunks.remove(&chunk);
                    if chunks.is_empty() {
                        self.run_targets.remove(&run);
                    }
                }
            }
        }
    }

    fn apply_job(&mut self, id: JobId, job: Option<Versioned<JobRecord>>, changed: &mut Vec<Changed>) {
        let host = match &job {
            Some(job) => job.host,
            None => match self.jobs.get(&id) {
                Some(old) => old.host,
                None => return,
            },
        };
        let open = job.as_ref().is_some_and(|job| job.outcome.is_none() || !job.output_complete);
        if open {
            self.open_jobs.entry(host).or_default().insert(id);
        } else if let Some(jobs) = self.open_jobs.get_mut(&host) {
            jobs.remove(&id);
            if jobs.is_empty() {
                self.open_jobs.remove(&host);
            }
        }
        if let Some(old) = self.jobs.remove(&id) {
            self.count(&old, false);
        }
        if let Some(job) = job {
            self.count(&job, true);
            changed.push(Changed::Job(job.run, id));
            self.jobs.insert(id, job);
        }
    }

    /// Keeps the counts of the job's run: each job is counted once, where it stands.
    fn count(&mut self, job: &JobRecord, there: bool) {
        let jobs = self.run_jobs.entry(job.run).or_default();
        let waits = job.outcome.is_none() && job.state == JobState::Queued;
        let bytes = held_bytes(&self.runs, job);
        self.output_bytes = if there {
            self.output_bytes.saturating_add(bytes)
        } else {
            self.output_bytes.saturating_sub(bytes)
        };
        if there {
            jobs.add(job);
            if waits {
                jobs.queued.insert(job.job);
                self.expiries.extend(job.expires.map(|at| (at, job.job)));
            }
        } else {
            let place = jobs.place(job);
            *place = place.saturating_sub(1);
            jobs.counts.targets = jobs.counts.targets.saturating_sub(1);
            if waits {
                jobs.queued.remove(&job.job);
                if let Some(at) = job.expires {
                    self.expiries.remove(&(at, job.job));
                }
            }
            if jobs.counts.targets == 0 {
                self.run_jobs.remove(&job.run);
            }
        }
    }

    /// Bytes of output that the hub keeps of a job, or will: never more than its run allows, whatever the host says.
    pub fn held_bytes(&self, job: &JobRecord) -> u64 {
        held_bytes(&self.runs, job)
    }

    /// Counts the output again: while the view was loaded, jobs may have come before their runs.
    pub(super) fn count_output(&mut self) {
        self.output_bytes =
            self.jobs.values().fold(0, |sum: u64, job| sum.saturating_add(held_bytes(&self.runs, job)));
    }

    /// Every target of a run, in the order of their names; `None` while pieces of the list are missing.
    pub fn targets(&self, run: &RunRecord) -> Option<Vec<TargetRef>> {
        if run.target_chunks == 0 {
            return Some(run.targets.clone());
        }
        let chunks = self.run_targets.get(&run.run)?;
        (chunks.len() == run.target_chunks as usize)
            .then(|| chunks.values().flat_map(|chunk| chunk.targets.iter().cloned()).collect())
    }

    /// The host that a name or an id means.
    pub fn find_host(&self, name_or_id: &str) -> Option<&Versioned<HostRecord>> {
        let id = match self.host_names.get(name_or_id) {
            Some(id) => *id,
            None => name_or_id.parse().ok()?,
        };
        self.hosts.get(&id)
    }
}

fn held_bytes(runs: &BTreeMap<RunId, Versioned<RunRecord>>, job: &JobRecord) -> u64 {
    let limit = runs.get(&job.run).map_or(u64::MAX, |run| run.exec.output_bytes);
    job.held_bytes.unwrap_or_else(|| job.record_bytes().min(limit))
}

fn replace<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}
