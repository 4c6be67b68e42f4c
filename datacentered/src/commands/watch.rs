//! Streams of items on standard output, until their end or Ctrl-C.

use bytes::Bytes;
use datacentered_client::{Client, Error, ItemEvent, ItemStream};
use serde::de::DeserializeOwned;

use crate::failure::Result;
use crate::ui::state::StateLine;
use crate::ui::writer::{Stream, Writer};
use crate::ui::{Ui, connection};

/// Prints what `line` makes of each item. What was missed is said on standard error.
pub(super) async fn print<T: DeserializeOwned>(
    ui: Ui,
    client: &Client,
    stream: &mut ItemStream<T>,
    mut line: impl FnMut(ItemEvent<T>) -> Result<Option<String>>,
) -> Result<()> {
    let state = StateLine::hidden();
    let writer = Writer::start(state.clone())?;
    let mut telling = std::pin::pin!(connection::tell(ui, &state, client));
    let printed: Result<(), Error> = loop {
        tokio::select! {
            event = stream.next() => match event {
                Ok(Some(event)) => {
                    if matches!(event, ItemEvent::Gap) {
                        ui.message("warning: some of it is older than what the hub keeps, and is missing here");
                    }
                    let Some(mut line) = line(event)? else { continue };
                    line.push('\n');
                    if writer.write(Stream::Out, Bytes::from(line)).await.is_err() {
                        break Ok(());
                    }
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            },
            never = &mut telling => match never {},
            // Watching has no end of its own: Ctrl-C is how it ends well.
            _ = tokio::signal::ctrl_c() => break Ok(()),
        }
    };
    writer.finish().await?;
    Ok(printed?)
}
