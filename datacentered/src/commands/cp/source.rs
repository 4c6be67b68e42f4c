//! Where a file's bytes come from.

use bytes::Bytes;
use datacentered_agent_lib::files::Source;
use datacentered_client::{Client, FileReader};
use datacentered_proto::Error;
use datacentered_proto::ops::StreamOpen;
use datacentered_proto::ops::file::{Entry, ReadNote, ReadParams};
use tokio::task::JoinHandle;

use super::report::Trouble;
use super::side::{Place, Side, block};

/// Bytes read from a disk at a time: the next piece is read while one is sent.
const PIECE: usize = 256 * 1024;

/// Bytes of what the other side has already that are hashed at a time.
const HASHED: u64 = 64 << 20;

/// A file that is read, from any byte on.
#[derive(Debug)]
pub(super) enum From {
    /// On this machine.
    Here(Local),
    /// On a host.
    Host { client: Client, params: ReadParams, reader: Box<FileReader> },
}

impl From {
    /// Opens a file to be read from `at` on.
    pub(super) async fn open(place: &Place, entry: &Entry, at: u64) -> Result<Self, Trouble> {
        match &place.side {
            Side::Here => {
                let (root, path) = place.local()?;
                let size = entry.size;
                let opened = block(move || -> Result<Source, Error> {
                    let mut source = Source::open(&root, &path, Some(size), true)?;
                    while source.at() < at {
                        source.skip(at, HASHED)?;
                    }
                    Ok(source)
                });
                Ok(Self::Here(Local::new(opened.await??)))
            }
            Side::Host { client, name } => {
                let params = ReadParams {
                    host: name.clone(),
                    root: place.root.clone(),
                    path: place.path.clone(),
                    from: at,
                    cursor: None,
                    size: Some(entry.size),
                    note: true,
                    stream: StreamOpen::default(),
                };
                let reader = Box::new(client.read_file(params.clone(), true));
                Ok(Self::Host { client: client.clone(), params, reader })
            }
        }
    }

    /// The next bytes; none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Trouble> {
        match self {
            Self::Here(local) => Ok(local.next().await?),
            Self::Host { reader, .. } => Ok(reader.next().await?),
        }
    }

    /// Goes back to `at`.
    pub(super) async fn go_back(&mut self, at: u64) -> Result<(), Trouble> {
        match self {
            Self::Here(local) => Ok(local.go_back(at).await?),
            Self::Host { client, params, reader } => {
                params.from = at;
                **reader = client.read_file(params.clone(), true);
                Ok(())
            }
        }
    }

    /// The hash of all bytes, and whether the file has grown meanwhile.
    pub(super) async fn note(&mut self) -> Result<ReadNote, Trouble> {
        match self {
            Self::Here(local) => Ok(local.note().await?),
            Self::Host { reader, .. } => Ok(reader.note()?),
        }
    }
}

type Reading = JoinHandle<(Source, Result<Option<Bytes>, Error>)>;

/// A file of this machine, read one piece ahead.
#[derive(Debug)]
pub(super) struct Local {
    /// Absent while a piece is being read.
    source: Option<Source>,
    reading: Option<Reading>,
    /// A piece that was read and not given out.
    ahead: Option<Bytes>,
    /// Going on from here once more, up to what was given out before.
    again: Option<(u64, u64)>,
}

impl Local {
    fn new(source: Source) -> Self {
        Self { source: Some(source), reading: None, ahead: None, again: None }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some((from, to)) = self.again.take_if(|(from, to)| from < to) {
            let most = usize::try_from(to - from).unwrap_or(PIECE).min(PIECE);
            let source = self.idle().await?;
            let (source, bytes) = block(move || {
                let bytes = source.read_again(from, most);
                (source, bytes)
            })
            .await?;
            self.source = Some(source);
            let bytes = bytes?;
            if bytes.is_empty() {
                return Err(Error::conflict("the file became shorter while it was copied"));
            }
            self.again = Some((from + bytes.len() as u64, to));
            return Ok(Some(bytes));
        }
        if let Some(bytes) = self.ahead.take() {
            return Ok(Some(bytes));
        }
        if self.reading.is_none() {
            self.read_ahead();
        }
        let bytes = self.taken().await?;
        if bytes.is_some() {
            self.read_ahead();
        }
        Ok(bytes)
    }

    fn read_ahead(&mut self) {
        if let Some(mut source) = self.source.take() {
            self.reading = Some(tokio::task::spawn_blocking(move || {
                let read = source.read(PIECE);
                (source, read)
            }));
        }
    }

    /// What is being read.
    async fn taken(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(reading) = self.reading.take() else { return Ok(None) };
        let (source, read) = reading.await.map_err(|_| Error::internal("a part of this program failed"))?;
        self.source = Some(source);
        read
    }

    /// The file, when nothing is being read.
    async fn idle(&mut self) -> Result<Source, Error> {
        if self.reading.is_some() {
            self.ahead = self.taken().await?;
        }
        self.source.take().ok_or_else(|| Error::internal("a file was lost by this program"))
    }

    async fn go_back(&mut self, at: u64) -> Result<(), Error> {
        let source = self.idle().await?;
        let given = source.at() - self.ahead.as_ref().map_or(0, |ahead| ahead.len() as u64);
        self.source = Some(source);
        if at > given {
            return Err(Error::conflict("the other side has more of the file than was sent to it"));
        }
        self.again = Some((at, given));
        Ok(())
    }

    async fn note(&mut self) -> Result<ReadNote, Error> {
        self.idle().await?.note()
    }
}
