//! `login` and `logout`.

use datacentered_client::{
    Client, ClientConfig, Error, Fingerprint, HubUrl, Secret, Trust, probe_fingerprint,
};
use datacentered_proto::operations::{SessionLogin, SessionLogout, SessionSetup, SessionWhoami};
use datacentered_proto::ops::NoParams;
use datacentered_proto::ops::session::{LoginParams, LogoutParams, SetupParams, Subject};
use serde::Serialize;

use crate::args::Global;
use crate::args::client::Login;
use crate::connect;
use crate::contexts::{self, Context, Contexts};
use crate::failure::{Failure, Result, describe};
use crate::secret;
use crate::text::clean::clean;
use crate::ui::Ui;

/// The path of the link that a new hub prints; its fragment is the secret.
const SETUP_PATH: &str = "/setup";

/// What `login` prints.
#[derive(Debug, Serialize)]
struct LoggedIn<'a> {
    context: &'a str,
    url: String,
    account: Option<&'a str>,
}

/// `login URL|LINK`.
pub(crate) async fn login(ui: Ui, global: &Global, login: Login) -> Result<()> {
    let (urls, secret) = target(&login.url)?;
    let path = contexts::path(global.config.as_deref())?;
    let mut contexts = Contexts::load(&path)?;
    let fingerprint = trusted_key(ui, global, &urls).await?;
    let config = connect::with_trust(urls.clone(), fingerprint.map_or(Trust::Nothing, Trust::Pin));
    let (token, account) = match (&global.token, secret) {
        (Some(_), Some(_)) => {
            return Err(Failure::usage("a setup link makes an account; it does not go with --token"));
        }
        (Some(given), None) => with_token(config, secret::token(given)?).await?,
        (None, secret) => with_password(config, &login, secret).await?,
    };
    let name = login.name.unwrap_or_else(|| default_name(&urls));
    let context = Context {
        urls: urls.iter().map(ToString::to_string).collect(),
        fingerprint: fingerprint.map(|fingerprint| fingerprint.to_string()),
        account,
        token: Some(token),
    };
    contexts.contexts.insert(name.clone(), context.clone());
    contexts.current = Some(name.clone());
    contexts.save(&path)?;
    let told = LoggedIn { context: &name, url: context.urls.join(","), account: context.account.as_deref() };
    ui.reply(&told, || match &context.account {
        Some(account) => format!("logged in as {} (context '{name}')", clean(account)),
        None => format!("logged in (context '{name}')"),
    })
}

/// The hubs of a URL list, and the secret of a setup link.
fn target(text: &str) -> Result<(Vec<HubUrl>, Option<String>)> {
    let Some((link, secret)) = text.split_once('#') else { return Ok((connect::parse_urls(text)?, None)) };
    let hub = link.strip_suffix('/').unwrap_or(link).strip_suffix(SETUP_PATH).ok_or_else(|| {
        Failure::usage("this is neither a hub's URL nor a setup link")
            .hint("a setup link ends with /setup#SECRET")
    })?;
    if secret.is_empty() {
        return Err(Failure::usage("the setup link has no secret")
            .hint("quote it, so that the shell leaves its # alone"));
    }
    Ok((connect::parse_urls(hub)?, Some(secret.to_owned())))
}

/// The key to trust: as given, or as shown and confirmed. None without TLS.
async fn trusted_key(ui: Ui, global: &Global, urls: &[HubUrl]) -> Result<Option<Fingerprint>> {
    if let Some(given) = &global.fingerprint {
        return connect::fingerprint(given).map(Some);
    }
    let Some(url) = urls.iter().find(|url| url.is_tls()) else { return Ok(None) };
    let fingerprint = probe_fingerprint(url).await?;
    ui.message(&format!("the key of {url} has the fingerprint\n  {fingerprint}"));
    ui.message("on the hub's own machine, 'datacentered hub status' shows it as \"web key\"");
    let answer = secret::ask("Is it the same? [yes/no] ").map_err(|failure| {
        failure.hint("confirm it with --fingerprint instead, once you have compared it")
    })?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        Ok(Some(fingerprint))
    } else {
        Err(Failure::usage("not logged in: the key was not confirmed"))
    }
}

/// Connects to a hub that is about to be trusted: nobody is told to log in who does so already.
async fn connect_to_login(config: ClientConfig) -> Result<Client> {
    Client::connect(config).await.map_err(|error| match error {
        Error::UntrustedKey { .. } => Failure::from(error).hint(
            "compare --fingerprint with the \"web key\" that 'datacentered hub status' shows on the hub's machine",
        ),
        _ => error.into(),
    })
}

async fn with_token(mut config: ClientConfig, token: String) -> Result<(String, Option<String>)> {
    config.token = Some(Secret::new(token.clone()));
    let client = connect_to_login(config).await?;
    let whoami = client.call::<SessionWhoami>(&NoParams {}).await.map_err(Failure::from);
    let account = match connect::finish(client, whoami).await?.subject {
        Subject::User { name, .. } => Some(name),
        Subject::Local { .. } => None,
        other => {
            return Err(Failure::usage(format!(
                "this token is not one to log in with: the hub takes it for {}",
                describe(&other)
            )));
        }
    };
    Ok((token, account))
}

async fn with_password(
    config: ClientConfig,
    login: &Login,
    setup: Option<String>,
) -> Result<(String, Option<String>)> {
    let name = match &login.user {
        Some(name) => name.clone(),
        None if setup.is_some() => secret::ask("Name of the first account: ")?,
        None => secret::ask("Account: ")?,
    };
    let password = secret::password(login.password.as_deref(), "Password", setup.is_some())?;
    let client = connect_to_login(config).await?;
    let key = client.clock().key();
    let reply = match setup {
        Some(secret) => client.call::<SessionSetup>(&SetupParams { key, secret, name, password }).await,
        None => client.call::<SessionLogin>(&LoginParams { key, name, password }).await,
    };
    let reply = connect::finish(client, reply.map_err(Failure::from)).await?;
    Ok((reply.token, Some(reply.name)))
}

fn default_name(urls: &[HubUrl]) -> String {
    match urls.first() {
        Some(HubUrl::Tls { host, .. } | HubUrl::Plain { host, .. }) => host.clone(),
        Some(HubUrl::Unix { .. }) | None => "local".to_owned(),
    }
}

/// `logout`: the token ends on the hub first, then it is forgotten here.
pub(crate) async fn logout(ui: Ui, global: &Global) -> Result<()> {
    let path = contexts::path(global.config.as_deref())?;
    let mut contexts = Contexts::load(&path)?;
    let Some((name, context)) = contexts.pick(global.context.as_deref())? else {
        return Err(Failure::usage("you are not logged in")
            .hint("'datacentered context list' shows the logins there are"));
    };
    let name = name.to_owned();
    if context.token.is_none() {
        return Err(Failure::usage(format!("you are not logged in to '{name}'")));
    }
    let mut chosen = global.clone();
    (chosen.context, chosen.hub, chosen.token) = (Some(name.clone()), None, None);
    match Client::connect(connect::config(&chosen)?).await {
        Ok(client) => {
            let done = client.call::<SessionLogout>(&LogoutParams { key: client.clock().key() }).await;
            connect::finish(client, done.map_err(Failure::from)).await?;
        }
        // The hub does not know the token any more: that is what was asked for.
        Err(error) if error.code() == Some(datacentered_proto::Code::Unauthenticated) => {}
        Err(error) => return Err(error.into()),
    }
    if let Some(context) = contexts.contexts.get_mut(&name) {
        (context.token, context.account) = (None, None);
    }
    contexts.save(&path)?;
    ui.reply(&serde_json::json!({"context": name}), || format!("logged out of '{name}'"))
}

/// `whoami`.
pub(crate) async fn whoami(ui: Ui, global: &Global) -> Result<()> {
    let client = connect::connect(global).await?;
    let reply = client.call::<SessionWhoami>(&NoParams {}).await.map_err(Failure::from);
    let reply = connect::finish(client, reply).await?;
    ui.reply(&reply, || describe(&reply.subject))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setup_links_are_told_from_urls() {
        let (urls, secret) = target("https://hub.example.net:7272/setup#s3cret").expect("link");
        assert_eq!(urls, ["wss://hub.example.net:7272".parse().expect("url")]);
        assert_eq!(secret.as_deref(), Some("s3cret"));
        let (urls, secret) = target("hub.example.net").expect("url");
        assert_eq!((urls.len(), secret), (1, None));
        assert_eq!(default_name(&urls), "hub.example.net");
        for wrong in ["https://hub/setup#", "https://hub/other#x", "#x", ""] {
            assert!(target(wrong).is_err(), "{wrong}");
        }
    }
}
