//! Writes what streams bring, on a thread of its own.
//!
//! A pipe whose reader is slow blocks whoever writes to it. The connection must go on answering the hub meanwhile, so
//! writing has a thread, and a short queue in front of it that makes the stream wait.

use std::fs::File;
use std::io::{self, Write};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::state::StateLine;

/// Chunks that wait to be written.
const QUEUE: usize = 16;

/// Where bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// The reader of our output has gone, or the disk is full: [`Writer::finish`] knows which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stopped;

/// Both output streams of this process, in the order of the calls.
#[derive(Debug)]
pub(crate) struct Writer {
    queue: mpsc::Sender<(Stream, Bytes)>,
    result: oneshot::Receiver<io::Result<()>>,
}

impl Writer {
    /// Writes to this process's own streams, below which `state` stands.
    pub(crate) fn start(state: StateLine) -> io::Result<Self> {
        // Past std's buffers: pieces are large already, and an interactive command's few bytes must not wait.
        let out = File::from(rustix::io::dup(rustix::stdio::stdout())?);
        let err = File::from(rustix::io::dup(rustix::stdio::stderr())?);
        Self::over(out, err, state)
    }

    fn over(
        mut out: impl Write + Send + 'static,
        mut err: impl Write + Send + 'static,
        state: StateLine,
    ) -> io::Result<Self> {
        let (queue, mut chunks) = mpsc::channel::<(Stream, Bytes)>(QUEUE);
        let (done, result) = oneshot::channel();
        // The thread ends when the queue closes. One that is stuck in a full pipe ends with the process.
        std::thread::Builder::new().name("output".into()).spawn(move || {
            let mut written = Ok(());
            while let Some((stream, bytes)) = chunks.blocking_recv() {
                written = state.suspend(|| match stream {
                    Stream::Out => out.write_all(&bytes),
                    Stream::Err => err.write_all(&bytes),
                });
                if written.is_err() {
                    break;
                }
            }
            // Nobody may wait any more for how it ended.
            let _ = done.send(written);
        })?;
        Ok(Self { queue, result })
    }

    /// Queues bytes; waits while the queue is full.
    pub(crate) async fn write(&self, stream: Stream, bytes: Bytes) -> Result<(), Stopped> {
        self.queue.send((stream, bytes)).await.map_err(|_| Stopped)
    }

    /// Waits until everything is written, and says whether it was.
    pub(crate) async fn finish(self) -> io::Result<()> {
        drop(self.queue);
        self.result.await.unwrap_or_else(|_| Err(io::Error::other("the writing thread ended early")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("lock").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Broken;

    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn everything_is_written_in_order() {
        let (out, err) = (Shared::default(), Shared::default());
        let writer = Writer::over(out.clone(), err.clone(), StateLine::hidden()).expect("starts");
        for i in 0..100u8 {
            writer.write(Stream::Out, Bytes::from(vec![i])).await.expect("writes");
        }
        writer.write(Stream::Err, Bytes::from_static(b"e")).await.expect("writes");
        writer.finish().await.expect("all written");
        assert_eq!(*out.0.lock().expect("lock"), (0..100).collect::<Vec<u8>>());
        assert_eq!(*err.0.lock().expect("lock"), b"e");
    }

    #[tokio::test]
    async fn a_reader_that_has_gone_stops_the_stream() {
        let writer = Writer::over(Broken, Broken, StateLine::hidden()).expect("starts");
        while writer.write(Stream::Out, Bytes::from_static(b"x")).await.is_ok() {}
        assert_eq!(writer.finish().await.expect_err("broken").kind(), io::ErrorKind::BrokenPipe);
    }
}
