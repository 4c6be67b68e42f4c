//! The HTTP face, over real connections.

use serde_json::{Value, json};

use crate::server::harness::{TestHub, exchange, password_of};

const JSON: (&str, &str) = ("content-type", "application/json");
const OWN: (&str, &str) = ("origin", "https://hub.test:7272");
const FOREIGN: (&str, &str) = ("origin", "https://evil.test");

#[tokio::test]
async fn failures_are_problem_documents_that_say_what_to_do() {
    let hub = TestHub::with(|config| config.limits.max_body = 2048).await;
    let viewer = hub.token("viewer").await;
    for (token, operation, body, status, code) in [
        ("", "host.list", "{}", 401, "unauthenticated"),
        ("dc_wrong", "host.list", "{}", 401, "unauthenticated"),
        (viewer.as_str(), "token.list", "{}", 403, "forbidden"),
        (viewer.as_str(), "no.such", "{}", 404, "not_found"),
        (viewer.as_str(), "job.offer", "{}", 404, "not_found"),
        (viewer.as_str(), "host.list", "{", 400, "invalid"),
        (viewer.as_str(), "host.list", "[]", 400, "invalid"),
        (viewer.as_str(), "host.list", "{\"bogus\":1}", 400, "invalid"),
        (viewer.as_str(), "run.input", "{}", 400, "invalid"),
        (viewer.as_str(), "session.hello", "{}", 400, "invalid"),
        (viewer.as_str(), "host.list", &format!("{{\"a\":\"{}\"}}", "x".repeat(4000)), 413, "too_large"),
    ] {
        let bearer = format!("Bearer {token}");
        let mut headers = vec![JSON];
        if !token.is_empty() {
            headers.push(("authorization", bearer.as_str()));
        }
        let answer = hub.http("POST", &format!("/api/v1/{operation}"), &headers, body).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (status, code),
            "{operation} {}",
            answer.text()
        );
        assert!(!answer.json()["detail"].as_str().expect("detail").is_empty());
        assert_eq!(answer.header("www-authenticate").is_empty(), status != 401);
    }
    let answer = hub.call(&viewer, "host.list", &json!({})).await;
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(answer.ok()["hosts"], json!([]));
    assert_eq!(hub.http("GET", "/nowhere", &[], "").await.code(), "not_found");
    assert_eq!(hub.http("DELETE", "/api/v1/host.list", &[], "").await.code(), "invalid");
    let answer = hub.http("GET", "/api/v1/host.list", &[], "").await;
    assert_eq!(answer.status, 405);
    assert_eq!((answer.header("allow"), answer.code().as_str()), ("POST", "invalid"));
    hub.stop().await;
}

#[tokio::test]
async fn tokens_in_addresses_are_refused() {
    let hub = TestHub::start().await;
    let token = hub.token("viewer").await;
    for query in
        [format!("token={token}"), format!("access_token={token}"), format!("params=%7B%7D&token={token}")]
    {
        let answer = hub.http("GET", &format!("/api/v1/event.watch?{query}"), &[], "").await;
        assert_eq!(answer.code(), "invalid");
        assert!(answer.text().contains("never into an address") && !answer.text().contains(&token));
    }
    hub.stop().await;
}

#[tokio::test]
async fn every_response_is_protected_and_named() {
    let hub = TestHub::start().await;
    for (method, path) in
        [("GET", "/"), ("GET", "/setup"), ("GET", "/healthz"), ("POST", "/api/v1/x.y"), ("GET", "/x")]
    {
        let answer = hub.http(method, path, &[], "").await;
        let policy = answer.header("content-security-policy");
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{path}: {policy}"
        );
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("x-frame-options"), "DENY");
        assert_eq!(answer.header("referrer-policy"), "same-origin");
        assert_eq!(answer.header("x-request-id").len(), 36);
        assert!(!answer.text().contains("<script"), "{path}");
    }
    let mine = hub.http("GET", "/healthz", &[("x-request-id", "abc-1")], "").await;
    assert_eq!(mine.header("x-request-id"), "abc-1");
    let bad = hub.http("GET", "/healthz", &[("x-request-id", "a b<script>")], "").await;
    assert_eq!(bad.header("x-request-id").len(), 36);
    let evil = hub.http("GET", "/", &[("host", "evil\"><b>")], "").await;
    assert!(!evil.text().contains("<b>"));
    hub.stop().await;
}

#[tokio::test]
async fn probes_answer_and_metrics_are_for_viewers() {
    let hub = TestHub::start().await;
    assert_eq!(hub.http("GET", "/healthz", &[], "").await.text(), "ok\n");
    assert_eq!(hub.http("GET", "/readyz", &[], "").await.text(), "ready\n");
    let document = hub.http("GET", "/api/openapi.json", &[], "").await.ok();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/api/v1/host.list"].is_object());
    // Being on this machine proves nothing, a reverse proxy is here too.
    assert_eq!(hub.http("GET", "/metrics", &[], "").await.code(), "unauthenticated");
    let token = format!("Bearer {}", hub.token("viewer").await);
    let text = hub.http("GET", "/metrics", &[("authorization", &token)], "").await.text();
    for name in [
        "datacentered_hosts{state=\"online\"} 0",
        "datacentered_engine_commits_total",
        "# HELP",
        "process_resident",
    ] {
        assert!(text.contains(name), "{name} in {text}");
    }
    assert_eq!(exchange(hub.unix().await, "GET", "/metrics", &[], "").await.status, 200);
    hub.stop().await;
}

#[tokio::test]
async fn a_cookie_counts_only_with_the_own_page() {
    let hub = TestHub::with(|config| config.origins = vec!["https://dash.test".into()]).await;
    hub.user("anna", "operator").await;
    let params = json!({"key": hub.key(), "name": "anna", "password": password_of("anna")}).to_string();
    let program = hub.http("POST", "/api/v1/session.login", &[JSON], &params).await;
    assert_eq!(program.header("set-cookie"), "");
    let answer = hub.http("POST", "/api/v1/session.login", &[JSON, OWN], &params).await;
    let cookie = answer.header("set-cookie").to_owned();
    let value = cookie.split(';').next().expect("pair").to_owned();
    assert_eq!(
        value,
        format!("dc_session={}", program.ok()["token"].as_str().expect("token")),
        "a repeat is the same login"
    );
    for word in ["HttpOnly", "Secure", "SameSite=Strict"] {
        assert!(cookie.contains(word), "{cookie}");
    }
    let with_cookie = ("cookie", value.as_str());
    let whoami = |headers: Vec<(&'static str, &'static str)>| {
        let value = value.clone();
        let hub = &hub;
        async move {
            let mut all: Vec<(&str, &str)> = vec![("cookie", value.as_str())];
            all.extend(headers);
            hub.http("POST", "/api/v1/session.whoami", &all, "").await
        }
    };
    assert_eq!(whoami(vec![OWN]).await.ok()["subject"]["name"], "anna");
    assert_eq!(whoami(vec![("origin", "https://dash.test")]).await.status, 200);
    assert_eq!(whoami(vec![FOREIGN]).await.code(), "forbidden");
    assert_eq!(whoami(vec![]).await.code(), "forbidden");
    assert_eq!(whoami(vec![("sec-fetch-site", "same-origin")]).await.code(), "forbidden");
    assert_eq!(whoami(vec![("origin", "null")]).await.code(), "forbidden");
    // A stream with EventSource: browsers leave the origin out there.
    let get = |site: &'static str| {
        let (hub, value) = (&hub, value.clone());
        async move {
            let headers = [("cookie", value.as_str()), ("sec-fetch-site", site)];
            crate::server::harness::send(hub.plain().await, "GET", "/api/v1/event.watch", &headers, "")
                .await
                .status()
        }
    };
    assert_eq!(get("same-origin").await, 200);
    assert_eq!(get("cross-site").await, 403);
    // The link takes the cookie, from the own page only.
    let upgrade = [
        with_cookie,
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let open = |origin: Option<(&'static str, &'static str)>| {
        let headers: Vec<_> = upgrade.iter().copied().chain(origin).collect();
        let hub = &hub;
        async move {
            crate::server::harness::send(hub.plain().await, "GET", "/api/v1/link", &headers, "")
                .await
                .status()
        }
    };
    assert_eq!(open(Some(OWN)).await, 101);
    assert_eq!(open(Some(FOREIGN)).await, 403);
    assert_eq!(open(None).await, 403);
    // Logging out takes it away.
    let out = json!({"key": hub.key()}).to_string();
    let answer = hub.http("POST", "/api/v1/session.logout", &[JSON, OWN, with_cookie], &out).await;
    assert!(answer.header("set-cookie").contains("Max-Age=0"));
    assert_eq!(whoami(vec![OWN]).await.code(), "unauthenticated");
    hub.stop().await;
}

#[tokio::test]
async fn a_foreign_page_cannot_even_ask() {
    let hub = TestHub::start().await;
    let token = format!("Bearer {}", hub.token("admin").await);
    for headers in [vec![FOREIGN], vec![FOREIGN, ("authorization", token.as_str())]] {
        assert_eq!(hub.http("POST", "/api/v1/hub.status", &headers, "").await.code(), "forbidden");
    }
    let preflight = hub.http("OPTIONS", "/api/v1/hub.status", &[FOREIGN], "").await;
    assert!(preflight.headers.keys().all(|name| !name.as_str().starts_with("access-control")));
    hub.stop().await;
}

fn form(pairs: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

#[tokio::test]
async fn the_first_account_is_made_once_with_the_form() {
    let hub = TestHub::start().await;
    let page = hub.http("GET", "/setup", &[], "").await.text();
    let key = page
        .split("name=\"key\" value=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .expect("key")
        .to_owned();
    assert!(hub.http("GET", "/", &[], "").await.text().contains("href=\"/setup\""));
    let type_ = ("content-type", "application/x-www-form-urlencoded");
    let secret = hub.setup_secret();
    let password = "a long enough one";
    let fill = |secret: &str, password: &str, repeated: &str| {
        form(&[
            ("key", &key),
            ("secret", secret),
            ("name", "root"),
            ("password", password),
            ("repeated", repeated),
        ])
    };
    for (body, headers, status) in [
        (fill("wrong", password, password), vec![type_, OWN], 401),
        (fill(&secret, password, "another one here"), vec![type_, OWN], 400),
        (fill(&secret, "short", "short"), vec![type_, OWN], 400),
        (fill(&secret, password, password), vec![type_, FOREIGN], 403),
        (fill(&secret, password, password), vec![OWN], 400),
    ] {
        let answer = hub.http("POST", "/setup", &headers, &body).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(!answer.text().contains(&secret) && !answer.text().contains(password));
        assert!(answer.text().contains("role=\"alert\""));
    }
    let answer =
        hub.http("POST", "/setup", &[type_, OWN], &fill(&format!("#{secret}"), password, password)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let cookie = answer.header("set-cookie").split(';').next().expect("pair").to_owned();
    let home = hub.http("GET", "/", &[("cookie", &cookie), ("sec-fetch-site", "none")], "").await.text();
    assert!(home.contains("Logged in as root (admin)") && !home.contains("href=\"/setup\""), "{home}");
    // Sent twice, as impatient people do, it is one account; anything else is refused from now on.
    assert_eq!(hub.http("GET", "/setup", &[], "").await.status, 409);
    let again = json!({"key": hub.key(), "secret": secret, "name": "second", "password": password});
    assert_eq!(hub.call("", "session.setup", &again).await.code(), "conflict");
    let users = hub.local("user.list", &json!({})).await.ok();
    assert_eq!(users["users"].as_array().expect("users").len(), 1);
    let data = hub.stop().await;
    let hub = TestHub::on(data, |_| {}).await;
    assert!(hub.listening.setup.is_none(), "the link is printed until it was used");
    assert_eq!(hub.local("hub.status", &json!({})).await.ok()["set_up"], true);
    hub.stop().await;
}

#[tokio::test]
async fn setup_over_the_api_is_repeatable_and_a_new_start_makes_a_new_link() {
    let hub = TestHub::start().await;
    let old = hub.setup_secret();
    let hub = TestHub::on(hub.stop().await, |_| {}).await;
    assert_ne!(hub.setup_secret(), old);
    let params = |secret: &str| {
        json!({"key": "0192d3b0-5f7e-7c51-9b0e-3f1c2a4d5e6f", "secret": secret,
                                       "name": "root", "password": "a long enough one"})
    };
    assert_eq!(hub.call("", "session.setup", &params(&old)).await.code(), "unauthenticated");
    let first = hub.call("", "session.setup", &params(&hub.setup_secret())).await.ok();
    let repeat = hub.call("", "session.setup", &params(&hub.setup_secret())).await.ok();
    assert_eq!(first, repeat);
    let token = first["token"].as_str().expect("token");
    assert_eq!(hub.call(token, "user.list", &json!({})).await.ok()["users"][0]["name"], "root");
    hub.stop().await;
}

fn field<'a>(event: &'a str, name: &str) -> &'a str {
    event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
}

#[tokio::test]
async fn a_stream_of_events_goes_on_where_it_broke_off() {
    let hub = TestHub::start().await;
    let admin = hub.token("admin").await;
    let path = "/api/v1/event.watch?params=%7B%22kinds%22%3A%5B%22user.%22%5D%7D";
    let mut events = hub.events(&admin, path, &[]).await;
    let opening = events.next().await.expect("opening");
    assert_eq!(field(&opening, "event"), "opened");
    // The connection breaks before anything came: nothing is missed all the same.
    let start = field(&opening, "id").to_owned();
    drop(events);
    for name in ["a1", "b2", "c3"] {
        hub.user(name, "viewer").await;
    }
    let mut events = hub.events(&admin, path, &[("last-event-id", &start)]).await;
    assert_eq!(field(&events.next().await.expect("opening"), "id"), start);
    let first = events.next().await.expect("first");
    let value: Value = serde_json::from_str(field(&first, "data")).expect("JSON");
    assert_eq!((&value["kind"], &value["about"]), (&json!("user.created"), &json!("a1")));
    drop(events);
    let mut events = hub.events(&admin, path, &[("last-event-id", field(&first, "id"))]).await;
    events.next().await.expect("opening");
    for name in ["b2", "c3"] {
        let event = events.next().await.expect("event");
        let value: Value = serde_json::from_str(field(&event, "data")).expect("JSON");
        assert_eq!(value["about"], name);
    }
    // A place of another history is told so, and nonsense is refused.
    let bearer = format!("Bearer {admin}");
    let headers = [("authorization", bearer.as_str()), ("last-event-id", "nonsense")];
    assert_eq!(hub.http("GET", path, &headers, "").await.code(), "invalid");
    let headers = [("authorization", bearer.as_str()), ("last-event-id", "zzz-1")];
    let gone = hub.http("GET", path, &headers, "").await.text();
    assert!(gone.contains("event: end") && gone.contains("\"gap\""), "{gone}");
    hub.stop().await;
}

#[tokio::test]
async fn a_revoked_token_ends_its_streams() {
    let hub = TestHub::start().await;
    let created =
        hub.local("token.create", &json!({"key": hub.key(), "kind": "api", "role": "viewer"})).await.ok();
    let token = created["token"].as_str().expect("token");
    let mut events = hub.events(token, "/api/v1/event.watch", &[]).await;
    events.next().await.expect("opening");
    hub.local("token.revoke", &json!({"key": hub.key(), "id": created["id"]})).await.ok();
    let started = std::time::Instant::now();
    let mut last = String::new();
    while let Some(event) = events.next().await {
        last = event;
    }
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
    assert_eq!(field(&last, "event"), "end");
    assert!(field(&last, "data").contains("revoked"), "{last}");
    assert_eq!(hub.call(token, "host.list", &json!({})).await.code(), "unauthenticated");
    hub.stop().await;
}

#[tokio::test]
async fn streams_over_http_are_limited_and_kept_alive() {
    let hub = TestHub::with(|config| {
        config.limits.http_streams = 1;
        config.limits.http_keepalive_ms = 100;
    })
    .await;
    let token = hub.token("viewer").await;
    let bearer = format!("Bearer {token}");
    let headers = [("authorization", bearer.as_str())];
    let first =
        crate::server::harness::send(hub.plain().await, "GET", "/api/v1/event.watch", &headers, "").await;
    assert_eq!(hub.http("GET", "/api/v1/event.watch", &headers, "").await.code(), "limited");
    let mut body = first.into_body();
    let mut text = String::new();
    while !text.contains(": still here\n\n") {
        let frame = http_body_util::BodyExt::frame(&mut body).await.expect("goes on").expect("frame");
        text.push_str(&String::from_utf8_lossy(&frame.into_data().expect("data")));
    }
    drop(body);
    for _ in 0..50 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let second =
            crate::server::harness::send(hub.plain().await, "GET", "/api/v1/event.watch", &headers, "").await;
        if second.status() == 200 {
            hub.stop().await;
            return;
        }
    }
    panic!("a reader that has gone still takes a place");
}
