//! Accounts, logins and tokens, through the operations that everybody uses.

use serde_json::{Value, json};

use super::maintain::{forget_ended, write_uses};
use crate::server::harness::{Answer, TestHub, password_of};

#[tokio::test]
async fn a_token_lives_and_dies() {
    let hub = TestHub::start().await;
    let params =
        json!({"key": hub.key(), "kind": "api", "name": "ci", "role": "operator", "ttl_ms": 3_600_000});
    let first = hub.local("token.create", &params).await.ok();
    let repeat = hub.local("token.create", &params).await.ok();
    assert_eq!(first, repeat, "a repeat gives the same secret");
    let mut other = params.clone();
    other["role"] = json!("viewer");
    assert_eq!(hub.local("token.create", &other).await.code(), "conflict");

    let token = first["token"].as_str().expect("token");
    assert!(token.starts_with("dc_") && token.len() == 46, "{token}");
    let who = hub.call(token, "session.whoami", &json!({})).await.ok();
    assert_eq!(who["subject"], json!({"kind": "user", "name": "token:ci", "role": "operator"}));
    assert_eq!(hub.call(token, "token.list", &json!({})).await.code(), "forbidden");

    let listed = |reply: Value| {
        let id = first["id"].clone();
        reply["tokens"].as_array().expect("tokens").iter().find(|one| one["id"] == id).cloned()
    };
    let list = hub.local("token.list", &json!({})).await;
    assert!(!list.text().contains(&token[3..]), "no secret in a list");
    assert_eq!(listed(list.ok()).expect("listed").get("last_used"), None);
    write_uses(&hub.hub).await;
    let used = listed(hub.local("token.list", &json!({})).await.ok()).expect("listed");
    assert!(used["last_used"].as_str().expect("used").ends_with(":00.000Z"));

    // Nothing of the secret is in the store, not even in the reply that is kept for repeats.
    hub.hub.store.view(|view| {
        assert!(!format!("{:?}{:?}", view.tokens, view.dedupe).contains(&token[3..]));
    });
    hub.local("token.revoke", &json!({"key": hub.key(), "id": first["id"]})).await.ok();
    let answer = hub.call(token, "session.whoami", &json!({})).await;
    assert_eq!((answer.code().as_str(), answer.text().contains("revoked")), ("unauthenticated", true));
    assert_eq!(listed(hub.local("token.list", &json!({})).await.ok()).expect("listed")["revoked"], true);
    let unknown = json!({"key": hub.key(), "id": "0192d3b0-5f7e-7c51-9b0e-3f1c2a4d5e6f"});
    assert_eq!(hub.local("token.revoke", &unknown).await.code(), "not_found");
    hub.stop().await;
}

#[tokio::test]
async fn secrets_survive_a_restart() {
    let hub = TestHub::start().await;
    let token = hub.token("viewer").await;
    let hub = TestHub::on(hub.stop().await, |_| {}).await;
    hub.call(&token, "host.list", &json!({})).await.ok();
    hub.stop().await;
}

#[tokio::test]
async fn no_token_has_more_rights_than_its_maker_or_its_account() {
    let hub = TestHub::start().await;
    hub.user("anna", "admin").await;
    let session = hub.login("anna").await;
    let make = |params: Value| {
        let (hub, session) = (&hub, session.clone());
        async move { hub.call(&session, "token.create", &params).await }
    };
    let reply = make(json!({"key": hub.key(), "kind": "api"})).await.ok();
    let token = reply["token"].as_str().expect("token").to_owned();
    let who = hub.call(&token, "session.whoami", &json!({})).await.ok();
    assert_eq!(who["subject"]["role"], "admin", "the maker's own where none is asked for");
    for bad in [
        json!({"key": hub.key(), "kind": "session"}),
        json!({"key": hub.key(), "kind": "api", "ttl_ms": 0}),
        json!({"key": hub.key(), "kind": "api", "uses": 3}),
        json!({"key": hub.key(), "kind": "api", "labels": {"a": "b"}}),
        json!({"key": hub.key(), "kind": "api", "name": "a\nb"}),
        json!({"key": hub.key(), "kind": "join", "role": "viewer"}),
        json!({"key": hub.key(), "kind": "join", "uses": 0}),
        json!({"key": hub.key(), "kind": "join", "labels": {"a b": "c"}}),
        json!({"key": hub.key(), "kind": "join", "labels": {"a": "c\u{1b}[31m"}}),
        json!({"key": "not-a-key", "kind": "api"}),
    ] {
        assert_eq!(make(bad.clone()).await.code(), "invalid", "{bad}");
    }
    // A token belongs to its account and ends with it, at once.
    hub.user("other", "admin").await;
    hub.local("user.revoke", &json!({"key": hub.key(), "name": "anna"})).await.ok();
    for token in [&token, &session] {
        assert_eq!(hub.call(token, "host.list", &json!({})).await.code(), "unauthenticated");
    }
    // An account of the same name is another account.
    hub.user("anna", "admin").await;
    assert_eq!(hub.call(&token, "host.list", &json!({})).await.code(), "unauthenticated");
    hub.stop().await;
}

#[tokio::test]
async fn join_tokens_enrol_and_nothing_else() {
    let hub = TestHub::start().await;
    let params = json!({"key": hub.key(), "kind": "join", "labels": {"role": "kvm"}});
    let reply = hub.local("token.create", &params).await.ok();
    let token = reply["token"].as_str().expect("token").to_owned();
    let fingerprint = hub.hub.identity.ca_fingerprint();
    assert!(token.starts_with("dcj_") && token.ends_with(&format!("_{fingerprint}")), "{token}");
    assert_eq!(hub.call(&token, "host.list", &json!({})).await.code(), "unauthenticated");
    let as_api =
        format!("dc_{}", token.strip_prefix("dcj_").and_then(|rest| rest.get(..43)).expect("secret"));
    assert_eq!(hub.call(&as_api, "host.list", &json!({})).await.code(), "unauthenticated");
    let peer = crate::sessions::Peer::Local { uid: 0, pid: 0 };
    let found = super::find_join_token(&hub.hub, &token, &peer).expect("found");
    assert_eq!((found.uses_left, found.labels["role"].as_str()), (Some(1), "kvm"));
    super::check_join_token(&hub.hub, &found).expect("is good");
    let api = hub.token("viewer").await;
    for bad in [api.as_str(), "dcj_x", "", &"x".repeat(10_000)] {
        assert!(super::find_join_token(&hub.hub, bad, &peer).is_err());
    }
    hub.local("token.revoke", &json!({"key": hub.key(), "id": reply["id"]})).await.ok();
    let found = super::find_join_token(&hub.hub, &token, &peer).expect("found");
    assert!(super::check_join_token(&hub.hub, &found).expect_err("revoked").message.contains("revoked"));
    hub.stop().await;
}

async fn try_login(hub: &TestHub, name: &str, password: &str) -> Answer {
    let params = json!({"key": hub.key(), "name": name, "password": password});
    hub.call("", "session.login", &params).await
}

#[tokio::test]
async fn guessing_passwords_is_slow_by_address_and_by_account() {
    let hub = TestHub::with(|config| {
        config.limits.login_failures_per_address = 4;
        config.limits.login_failures_per_account = 2;
        config.limits.login_recovery_ms = 600_000;
    })
    .await;
    hub.user("anna", "viewer").await;
    hub.user("bert", "viewer").await;
    for _ in 0..3 {
        // Who knows the password is not held up by having logged in before.
        hub.login("anna").await;
    }
    for _ in 0..2 {
        let answer = try_login(&hub, "anna", "not the password").await;
        assert_eq!((answer.status.as_u16(), answer.code().as_str()), (401, "unauthenticated"));
    }
    let limited = try_login(&hub, "anna", &password_of("anna")).await;
    assert_eq!((limited.status.as_u16(), limited.code().as_str()), (429, "limited"));
    assert!(limited.json()["retry_after_ms"].as_u64().expect("when") > 1000);
    assert!(!limited.header("retry-after").is_empty());
    // Another account from the same address still may, until the address has failed too often; unknown names count.
    hub.login("bert").await;
    for name in ["nobody", "noone"] {
        let answer = try_login(&hub, name, "not the password").await;
        assert_eq!(answer.json()["detail"], "wrong name or password");
    }
    assert_eq!(try_login(&hub, "bert", &password_of("bert")).await.code(), "limited");
    // The header that proxies add does not make another address of it.
    let params = json!({"key": hub.key(), "name": "bert", "password": password_of("bert")}).to_string();
    let headers = [("content-type", "application/json"), ("x-forwarded-for", "203.0.113.9")];
    assert_eq!(hub.http("POST", "/api/v1/session.login", &headers, &params).await.code(), "limited");
    // Failures are in the audit, passwords are not.
    let audit = wait_for_audit(&hub, |entries| {
        entries
            .iter()
            .filter(|entry| entry["operation"] == "session.login" && entry["phase"] == "refused")
            .count()
            == 4
    })
    .await;
    assert!(!audit.contains("not the password") && audit.contains("nobody") && audit.contains("127.0.0.1"));
    hub.stop().await;
}

async fn wait_for_audit(hub: &TestHub, enough: impl Fn(&[Value]) -> bool) -> String {
    for _ in 0..100 {
        let answer = hub.local("audit.list", &json!({"limit": 500})).await;
        let text = answer.text();
        if enough(answer.ok()["entries"].as_array().expect("entries")) {
            return text;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the audit does not show it");
}

#[tokio::test]
async fn a_login_ends() {
    let hub = TestHub::start().await;
    hub.user("anna", "operator").await;
    let params = json!({"key": hub.key(), "name": "anna", "password": password_of("anna")});
    let first = hub.call("", "session.login", &params).await.ok();
    assert_eq!(first, hub.call("", "session.login", &params).await.ok(), "a repeat is the same login");
    assert_eq!((&first["name"], &first["role"]), (&json!("anna"), &json!("operator")));
    let mut wrong = params.clone();
    wrong["password"] = json!("not the password");
    assert_eq!(
        hub.call("", "session.login", &wrong).await.code(),
        "unauthenticated",
        "the key alone opens nothing"
    );
    let token = first["token"].as_str().expect("token");
    let out = json!({"key": hub.key()});
    hub.call(token, "session.logout", &out).await.ok();
    assert_eq!(hub.call(token, "session.whoami", &json!({})).await.code(), "unauthenticated");
    assert_eq!(hub.local("session.logout", &json!({"key": hub.key()})).await.code(), "invalid");
    hub.stop().await;
}

#[tokio::test]
async fn logins_end_by_themselves_and_are_forgotten() {
    let hub = TestHub::with(|config| config.limits.login_ttl_ms = 1000).await;
    hub.user("anna", "viewer").await;
    let token = hub.login("anna").await;
    hub.call(&token, "host.list", &json!({})).await.ok();
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(hub.call(&token, "host.list", &json!({})).await.code(), "unauthenticated");
    let keep = hub.token("viewer").await;
    forget_ended(&hub.hub).await;
    assert_eq!(hub.hub.store.view(|view| view.tokens.len()), 1);
    hub.call(&keep, "host.list", &json!({})).await.ok();
    hub.stop().await;
}

#[tokio::test]
async fn passwords_are_changed_by_their_owners_and_by_admins() {
    let hub = TestHub::start().await;
    hub.user("root", "admin").await;
    hub.user("anna", "operator").await;
    let root = hub.login("root").await;
    let anna = hub.login("anna").await;
    let change = |token: String, name: &'static str, password: &'static str| {
        let hub = &hub;
        async move {
            let params = json!({"key": hub.key(), "name": name, "password": password});
            hub.call(&token, "user.password", &params).await
        }
    };
    assert_eq!(change(anna.clone(), "root", "taking over now").await.code(), "forbidden");
    assert_eq!(change(anna.clone(), "nobody", "taking over now").await.code(), "forbidden");
    assert_eq!(change(anna.clone(), "anna", "short").await.code(), "invalid");
    // A token of few rights must not win the account's by setting its password.
    let params = json!({"key": hub.key(), "kind": "api", "role": "viewer"});
    let lesser =
        hub.call(&root, "token.create", &params).await.ok()["token"].as_str().expect("token").to_owned();
    assert_eq!(change(lesser, "root", "taking over now").await.code(), "forbidden");

    change(anna.clone(), "anna", "her new password").await.ok();
    assert_eq!(hub.call(&anna, "host.list", &json!({})).await.code(), "unauthenticated", "sessions end");
    assert_eq!(try_login(&hub, "anna", &password_of("anna")).await.code(), "unauthenticated");
    try_login(&hub, "anna", "her new password").await.ok();
    change(root, "anna", "set by an admin").await.ok();
    try_login(&hub, "anna", "set by an admin").await.ok();
    hub.stop().await;
}

#[tokio::test]
async fn accounts_are_made_once_and_one_admin_stays() {
    let hub = TestHub::start().await;
    let params = json!({"key": hub.key(), "name": "root", "password": "a long enough one", "role": "admin"});
    let first = hub.local("user.create", &params).await.ok();
    assert_eq!(first, hub.local("user.create", &params).await.ok());
    assert_eq!(first.get("password"), None);
    let again = json!({"key": hub.key(), "name": "root", "password": "a long enough one", "role": "admin"});
    assert_eq!(hub.local("user.create", &again).await.code(), "conflict");
    // Whoever has the setup link comes too late.
    let setup = json!({"key": hub.key(), "secret": hub.setup_secret(), "name": "me", "password": "a long enough one"});
    assert_eq!(hub.call("", "session.setup", &setup).await.code(), "conflict");
    let root =
        try_login(&hub, "root", "a long enough one").await.ok()["token"].as_str().expect("token").to_owned();
    let revoke = json!({"key": hub.key(), "name": "root"});
    assert_eq!(hub.call(&root, "user.revoke", &revoke).await.code(), "conflict");
    for (name, password) in [("Root", "a long enough one"), ("a b", "a long enough one"), ("x", "short")] {
        let params = json!({"key": hub.key(), "name": name, "password": password, "role": "viewer"});
        assert_eq!(hub.call(&root, "user.create", &params).await.code(), "invalid");
    }
    let stored = hub.hub.store.view(|view| view.users["root"].password.clone());
    assert!(stored.starts_with("$argon2id$"));
    let everything = hub.hub.store.view(|view| format!("{view:?}"));
    assert!(!everything.contains("a long enough one"));
    hub.stop().await;
}

#[tokio::test]
async fn many_logins_of_one_account_end_the_oldest() {
    let hub = TestHub::with(|config| config.limits.logins_per_account = 3).await;
    hub.user("anna", "viewer").await;
    let first = hub.login("anna").await;
    for _ in 0..3 {
        hub.login("anna").await;
    }
    assert_eq!(hub.hub.store.view(|view| view.tokens.len()), 3);
    assert_eq!(hub.call(&first, "host.list", &json!({})).await.code(), "unauthenticated");
    hub.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_login_sent_many_times_at_once_is_one_login() {
    let hub = TestHub::start().await;
    hub.user("anna", "viewer").await;
    let params = json!({"key": hub.key(), "name": "anna", "password": password_of("anna")});
    let calls = (0..8).map(|_| hub.call("", "session.login", &params));
    let replies = futures_util::future::join_all(calls).await;
    let tokens: std::collections::BTreeSet<String> =
        replies.into_iter().map(|reply| reply.ok()["token"].as_str().expect("token").to_owned()).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(hub.hub.store.view(|view| view.tokens.len()), 1);
    hub.stop().await;
}
