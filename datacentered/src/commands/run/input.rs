//! `-i`: this process's standard input, to every target.

use std::io::{self, Read};

use bytes::Bytes;
use datacentered_client::Client;
use datacentered_proto::RunId;
use datacentered_proto::limits::BULK_CHUNK;
use tokio::sync::mpsc;

use crate::failure::{Failure, Result};

/// Chunks that are read ahead.
const QUEUE: usize = 4;

/// Feeds the run where that is asked for; comes back only when that fails.
pub(crate) async fn feed_or_fail(client: &Client, run: RunId, stdin: bool) -> Failure {
    if stdin && let Err(failure) = feed(client, run).await {
        return failure;
    }
    std::future::pending().await
}

/// Feeds the run until the end of input, or until it takes no more.
async fn feed(client: &Client, run: RunId) -> Result<()> {
    let mut chunks = read_stdin()?;
    let mut input = client.input(run);
    while let Some(chunk) = chunks.recv().await {
        let bytes = chunk.map_err(|error| Failure::failed(format!("cannot read standard input: {error}")))?;
        if !input.write(bytes).await? {
            // Every target has ended or closed its input; what is left has no reader.
            return Ok(());
        }
    }
    Ok(input.finish().await?)
}

/// Reads on a thread: a read of a terminal or a pipe cannot be given up, so it ends with the process.
pub(crate) fn read_stdin() -> Result<mpsc::Receiver<io::Result<Bytes>>> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    std::thread::Builder::new()
        .name("input".into())
        .spawn(move || {
            let mut stdin = io::stdin().lock();
            let mut buffer = vec![0; BULK_CHUNK];
            loop {
                let chunk = match stdin.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(length) => Ok(Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default())),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(error) => Err(error),
                };
                let failed = chunk.is_err();
                if sender.blocking_send(chunk).is_err() || failed {
                    return;
                }
            }
        })
        .map_err(|error| Failure::failed(format!("cannot read standard input: {error}")))?;
    Ok(receiver)
}
