//! Tells whoever waits that the hub is gone, and that it is back.

use std::convert::Infallible;
use std::time::Duration;

use datacentered_client::{Client, Connection};

use super::Ui;
use super::state::StateLine;
use crate::text::clean::clean;
use crate::text::duration;

/// A link that is back sooner is not worth a word.
const QUIET: Duration = Duration::from_secs(2);

/// Says when the connection is lost for longer than a moment, and when it is back. Runs beside whatever waits.
pub(crate) async fn tell(ui: Ui, state: &StateLine, client: &Client) -> Infallible {
    let say = |text: &str| state.suspend(|| ui.message(text));
    follow(client.connection(), say, |trouble| state.set_trouble(trouble)).await
}

async fn follow(mut connection: Connection, say: impl Fn(&str), show: impl Fn(&'static str)) -> Infallible {
    loop {
        connection.lost().await;
        if tokio::time::timeout(QUIET, connection.restored()).await.is_ok() {
            continue;
        }
        let Some(reason) = connection.reason() else { continue };
        let patience = duration::human(connection.patience());
        say(&format!(
            "connection to the hub lost ({}); trying again for up to {patience} ...",
            clean(&reason)
        ));
        show("connection to the hub lost; ");
        connection.restored().await;
        show("");
        say("connected again");
    }
}
