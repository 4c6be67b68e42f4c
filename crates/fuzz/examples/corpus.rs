//! Makes the samples in `corpus/` that can be made: `cargo run -p datacentered-fuzz --example corpus`.
//!
//! Operations are sampled from the schemas in `docs/operations.json`, once with what must be there and once with all there
//! is; each sample must be readable, so that this also checks the schemas. Everything else is written down here.

use std::path::{Path, PathBuf};

use datacentered_fuzz::{TARGETS, field};
use datacentered_proto::operations::{Part, recode};
use serde_json::{Map, Value, json};

const ID: &str = "018f0000-0000-7000-8000-000000000001";
const AT: &str = "2026-01-02T03:04:05.678Z";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (target, _) in TARGETS {
        std::fs::create_dir_all(corpus.join(target))?;
    }
    operations(&corpus)?;
    let write = |target: &str, name: &str, bytes: Vec<u8>| put(&corpus, target, name, bytes);
    for (target, name, text) in TEXTS {
        write(target, name, text.as_bytes().to_vec())?;
    }
    let offer = sample(&document()?, &json!({"$ref": "#/definitions/Offer"}), true, 0);
    let accepted = json!({"t": "accepted", "at": AT, "slot": 1, "offer": offer}).to_string();
    let released = json!({"t": "released", "job": ID}).to_string();
    let cancel = json!({"t": "cancel", "at": AT, "job": ID, "by": "ann"}).to_string();
    write(
        "agent_journal",
        "records",
        tagged(1, &[accepted.as_bytes(), cancel.as_bytes(), released.as_bytes()]),
    )?;
    write("agent_journal", "open_job", tagged(1, &[accepted.as_bytes(), cancel.as_bytes()]))?;
    let last = json!({"t": "accepted", "at": AT, "slot": u32::MAX, "offer": offer}).to_string();
    write("agent_journal", "last_slot", tagged(1, &[last.as_bytes()]))?;
    write("agent_journal", "garbage", [&[0], &b"DCJRNL01"[..], &[7; 120]].concat())?;

    let starting = json!({"at": AT, "boot": "b", "shim": {"pid": 1, "start_ticks": 2}}).to_string();
    let started = json!({"at": AT, "main": {"pid": 3, "start_ticks": 4}, "evidence": []}).to_string();
    let end = json!({"at": AT, "outcome": {"kind": "exited", "code": 0}, "stdout_bytes": 5, "stderr_bytes": 6,
        "evidence": [{"at": AT, "witness": "shim", "fact": "exited", "detail": "x"}]});
    let end = end.to_string();
    write("agent_slot", "whole", tagged(1, &[starting.as_bytes(), started.as_bytes(), end.as_bytes()]))?;
    write("agent_slot", "raw", [&[0], &b"DCS1"[..], &[0; 60]].concat())?;

    let segment = [&b"DCSPOOL1"[..], &[0; 56]].concat();
    let bytes = |at: u64, kind: u8, text: &[u8]| {
        let mut record = vec![kind, 1, 0, 0];
        record.extend_from_slice(&(text.len() as u32).to_le_bytes());
        record.extend_from_slice(&at.to_le_bytes());
        record.extend_from_slice(text);
        record
    };
    let gap = |from: u64, stdout: u64| {
        let numbers = [from + stdout, stdout, 0].map(u64::to_le_bytes).concat();
        bytes(from, 16, &numbers)
    };
    write("agent_spool_record", "segment", segment.clone())?;
    write("agent_spool_record", "bytes", bytes(0, 1, b"out"))?;
    write("agent_spool_record", "gap", gap(3, 9))?;
    let file = [segment.clone(), bytes(0, 1, b"out"), bytes(3, 2, b"err"), gap(6, 10), bytes(16, 1, b"on")];
    write("agent_spool", "one", fields(&[&0u64.to_le_bytes(), &file.concat()]))?;
    // As far as offsets go, and a header that has counted more than there is.
    let mut far = segment.clone();
    far[8..16].copy_from_slice(&(u64::MAX - 1).to_le_bytes());
    far.extend(bytes(u64::MAX - 1, 1, b"out"));
    write("agent_spool", "at_the_end_of_offsets", fields(&[&(u64::MAX - 1).to_le_bytes(), &far]))?;
    let mut counted = file.concat();
    counted[16..24].copy_from_slice(&u64::MAX.to_le_bytes());
    write("agent_spool", "too_much_counted", fields(&[&0u64.to_le_bytes(), &counted]))?;
    let mut second = segment;
    second[8..16].copy_from_slice(&18u64.to_le_bytes());
    second[16..24].copy_from_slice(&15u64.to_le_bytes());
    second[24..32].copy_from_slice(&3u64.to_le_bytes());
    second.extend(bytes(18, 2, b"last"));
    let two = [&0u64.to_le_bytes()[..], &file.concat(), &18u64.to_le_bytes(), &second];
    // The end of the first segment is lost: a hole before the second.
    let short = &file.concat()[..64 + 19];
    let hole = [&0u64.to_le_bytes()[..], short, &18u64.to_le_bytes(), &second];
    write("agent_spool", "hole", fields(&hole))?;
    write("agent_spool", "two", fields(&two))?;

    let manifest = [&b"M"[..], br#"{"format":1,"epoch":"abc","at":5}"#].concat();
    let extra = [&b"X\x00\x02caTEXT"[..]].concat();
    let bucket = br#"{"id":1,"durability":"Always","reserved":2000,"floor":0}"#;
    let bucket =
        [&b"R\x00\x00\x00\x08"[..], &(bucket.len() as u32).to_be_bytes(), b"bcontrol", bucket].concat();
    let most = br#"{"id":1,"durability":"Always","reserved":18446744073709551615,"floor":0}"#;
    let most = [&b"R\x00\x00\x00\x08"[..], &(most.len() as u32).to_be_bytes(), b"bcontrol", most].concat();
    write("engine_backup", "no_revision_left", tagged(1, &[&manifest, &most]))?;
    write("engine_backup", "long_frame", [&[0], &b"DCENGBK\x01M\x00\xff\xff\xff"[..]].concat())?;
    write("engine_backup", "whole", tagged(1, &[&manifest, &extra, &bucket]))?;
    write("engine_backup", "raw", [&[0], &b"DCENGBK\x01M\x00\x00\x00\x02{}"[..]].concat())?;
    let head = r#"{"v":1,"at":5,"by":"u"}"#;
    write(
        "engine_record",
        "bytes",
        [&(head.len() as u32).to_be_bytes()[..], head.as_bytes(), b"value"].concat(),
    )?;
    write("engine_layout", "bucket", [&b"\x08bcontrol"[..], &bucket[17..]].concat())?;
    write("engine_layout", "entry", b"\x08e\0\0\0\x01a.b\x01\0\0\0\0\0\0\0\x05value".to_vec())?;
    write("engine_layout", "change", b"\x0dc\0\0\0\x01\0\0\0\0\0\0\0\x05\x01a.b".to_vec())?;
    write("engine_layout", "head", [&[1][..], &[0; 40]].concat())?;
    write("engine_layout", "item", [&[0; 7][..], &[1], &[0; 8], &[0, 0, 0, 9]].concat())?;

    let frame = [1, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5, b'h', b'i'];
    write("proto_frame", "stdout", frame.to_vec())?;
    messages(&corpus, &frame)?;
    records(&corpus)?;
    keys(&corpus)?;
    Ok(())
}

/// Everything that is plain text.
const TEXTS: &[(&str, &str, &str)] = &[
    (
        "proto_message",
        "request",
        r#"{"jsonrpc":"2.0","id":1,"method":"host.list","params":{},"cause":{"request":"r"}}"#,
    ),
    ("proto_message", "named", r#"{"jsonrpc":"2.0","id":"a","method":"host.list"}"#),
    ("proto_message", "notification", r#"{"jsonrpc":"2.0","method":"stream.close","params":{"stream":1}}"#),
    ("proto_message", "response", r#"{"jsonrpc":"2.0","id":1,"result":{"a":[1,2.5,null]}}"#),
    (
        "proto_message",
        "error",
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"m","data":{"code":"conflict","retry_after_ms":5,"details":{"a":1}}}}"#,
    ),
    ("proto_texts", "cursor", "5f3a-120"),
    ("proto_texts", "id", ID),
    ("proto_texts", "moment", AT),
    ("proto_values", "text", r#""a b""#),
    ("proto_values", "bytes", r#"{"base64":"/wA="}"#),
    ("proto_values", "exited", r#"{"kind":"exited","code":7}"#),
    ("proto_values", "lost", r#"{"kind":"lost","why":"abandoned","by":"ann"}"#),
    ("proto_values", "evidence", r#"{"at":"2026-01-02T03:04:05.678Z","witness":"agent","fact":"accepted"}"#),
    ("proto_values", "gap", r#"{"stream":1,"from":5,"to":9,"reason":"lost"}"#),
    ("proto_values", "end", r#"{"stream":1,"reason":"done","offset":9}"#),
    ("proto_values", "item", r#"{"stream":1,"cursor":"e-1","value":{"a":1}}"#),
    ("link_url", "tls", "https://hub.example.net:7272"),
    ("link_url", "list", "a.example, https://[::1]:7272,b"),
    ("link_url", "proxy", "http://user:p%40ss@proxy:3128"),
    ("link_fingerprint", "hex", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"),
    (
        "link_upgrade",
        "proper",
        "host\0hub:7272\0origin\0https://hub:7272\0connection\0keep-alive, Upgrade\0upgrade\0websocket\0sec-websocket-version\x0013\0sec-websocket-key\0dGhlIHNhbXBsZSBub25jZQ==",
    ),
    ("agent_shim_wire", "hello", r#"{"t":"hello","version":1}"#),
    ("agent_shim_wire", "input", r#"{"t":"input","length":5,"eof":true}"#),
    ("agent_shim_wire", "progress", r#"{"t":"progress","stdout":1,"stderr":2,"stdin":3}"#),
    (
        "agent_shim_wire",
        "ended",
        r#"{"t":"ended","at":"2026-01-02T03:04:05.678Z","outcome":{"kind":"signaled","signal":9},"stdout_bytes":1,"stderr_bytes":2}"#,
    ),
    (
        "agent_join_token",
        "whole",
        "dcj_se_cret-1_00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
    ),
    (
        "agent_config",
        "some",
        "name = \"web-1\"\n[labels]\nrole = \"kvm\"\n[reconnect]\nbase_ms = 500\ncap_ms = 30000\n[link]\nheartbeat_ms = 10000\nstream_window = 1048576\n[facts]\ninterval_s = 300\n[jobs]\nmax_jobs = 100\nmax_spool_bytes = 67108864\ncgroups = false\n",
    ),
    ("agent_enrolment", "broken", r#"{"v":1,"hubs":["https://hub:7272"]}"#),
    (
        "agent_kernel",
        "mounts",
        "36 35 98:0 / /mnt\\0401 rw shared:1 - ext4 /dev/sda rw\n30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\x000::/system.slice/a.service\n",
    ),
    ("agent_kernel", "stat", "5 (a) b) S 1 5 5 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 1000 10"),
    ("hub_selector", "names", "web-*,db1,role=kvm"),
    ("hub_selector", "sets", "role in (kvm,db),!old,version>=1.2.10,os!=debian"),
    (
        "hub_config",
        "some",
        "listen = \"[::]:7272\"\nlisten_plain = \"127.0.0.1:7273\"\norigins = [\"https://dash.example.net\"]\npublic_url = \"https://hub.example.net:7272\"\n[limits]\nsessions = 1000\naccepts_per_second = 100\n",
    ),
    (
        "hub_request",
        "token",
        "\x01authorization\0Bearer dc_abc\0last-event-id\0e1-5\0traceparent\x0000-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
    (
        "hub_request",
        "cookie",
        "\0cookie\0a=b; dc_session=dc_x\0origin\0https://hub\0host\0hub\0sec-fetch-site\0same-origin",
    ),
    ("hub_body", "json", r#"{"on":["all"],"cursor":"e-1"}"#),
    ("hub_body", "form", "key=a&name=ann&password=x%20y&repeated=x+y"),
    ("engine_names", "key", "job.018f0000-0000-7000-8000-000000000001"),
    ("engine_names", "escaped", "outbox.a=2Eb.c"),
];

fn put(corpus: &Path, target: &str, name: &str, bytes: Vec<u8>) -> std::io::Result<()> {
    let path: PathBuf = corpus.join(target).join(name);
    std::fs::write(path, bytes)
}

fn fields(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().flat_map(|part| field(part)).collect()
}

/// A first byte that says how, then fields.
fn tagged(mode: u8, parts: &[&[u8]]) -> Vec<u8> {
    [vec![mode], fields(parts)].concat()
}

fn document() -> Result<Value, Box<dyn std::error::Error>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/operations.json");
    Ok(serde_json::from_str(&std::fs::read_to_string(path)?)?)
}

/// Samples of every operation's types.
fn operations(corpus: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let document = document()?;
    for operation in document["operations"].as_array().into_iter().flatten() {
        let name = operation["name"].as_str().ok_or("an operation without a name")?;
        for (part, member) in [(Part::Params, "params"), (Part::Reply, "reply"), (Part::Item, "item")] {
            let schema = &operation[member];
            if schema.is_null() {
                continue;
            }
            for (all, word) in [(false, "least"), (true, "most")] {
                let text = sample(&document, schema, all, 0).to_string();
                if recode(name, part, &text).is_none() {
                    return Err(
                        format!("the schema of {name} ({member}) allows what is not read: {text}").into()
                    );
                }
                if text != "{}" {
                    let bytes = [name.as_bytes(), &[0], text.as_bytes()].concat();
                    put(corpus, "proto_operation", &format!("{name}.{member}.{word}"), bytes)?;
                }
            }
        }
    }
    Ok(())
}

/// A value that a schema allows: with all members or only those that must be there.
fn sample(document: &Value, schema: &Value, all: bool, depth: u32) -> Value {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix("#/definitions/")) {
        return sample(document, &document["definitions"][name], all, depth + 1);
    }
    if let Some(value) = schema.get("const") {
        return value.clone();
    }
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    let mut members = Map::new();
    if let Some(first) = ["anyOf", "oneOf"].iter().find_map(|word| schema[word].as_array()?.first()) {
        match sample(document, first, all, depth + 1) {
            Value::Object(inner) => members.extend(inner),
            plain => return plain,
        }
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        match sample(document, part, all, depth + 1) {
            Value::Object(inner) => members.extend(inner),
            plain => return plain,
        }
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.first().cloned().unwrap_or_default(),
        kind => kind.clone(),
    };
    match (kind.as_str(), schema["format"].as_str()) {
        (Some("string"), Some("uuid")) => json!(ID),
        (Some("string"), Some("date-time")) => json!(AT),
        (Some("string"), _) if schema.get("pattern").is_some() => json!("e1-5"),
        (Some("string"), _) => json!("text"),
        (Some("integer" | "number"), _) => json!(1),
        (Some("boolean"), _) => json!(true),
        (Some("null"), _) => Value::Null,
        (Some("array"), _) if all && depth < 12 => {
            json!([sample(document, &schema["items"], all, depth + 1)])
        }
        (Some("array"), _) => json!([]),
        _ => {
            let required: Vec<&str> =
                schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
                if all || required.contains(&name.as_str()) {
                    members.insert(name.clone(), sample(document, inner, all, depth + 1));
                }
            }
            let further = &schema["additionalProperties"];
            if all && further.is_object() {
                members.insert("key".into(), sample(document, further, all, depth + 1));
            }
            Value::Object(members)
        }
    }
}

/// What the other side of a link may send.
fn messages(corpus: &Path, frame: &[u8]) -> std::io::Result<()> {
    let text = |value: Value| [&[0][..], value.to_string().as_bytes()].concat();
    let opened = text(json!({"jsonrpc": "2.0", "id": 1, "result": {}}));
    let bytes = |stream: u8, offset: u8, payload: &[u8]| {
        let mut frame = frame[..16].to_vec();
        (frame[7], frame[15]) = (stream, offset);
        [&[1][..], &frame, payload].concat()
    };
    let notify =
        |name: &str, params: Value| text(json!({"jsonrpc": "2.0", "method": name, "params": params}));
    let gap = notify("stream.gap", json!({"stream": 2, "from": 2, "to": 9, "reason": "lost"}));
    let end = notify("stream.end", json!({"stream": 2, "reason": "done", "offset": 11}));
    let stream = [&opened[..], &bytes(2, 0, b"hi"), &gap, &bytes(2, 9, b"on"), &end];
    put(corpus, "link_websocket", "stream", tagged(1, &stream))?;
    let call = |id: u8, method: &str, stream: u8| {
        let params = json!({"stream": {"id": stream, "credit": 1000}});
        text(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
    };
    let credit = notify("stream.credit", json!({"stream": 1, "upto": 5000}));
    let close = notify("stream.close", json!({"stream": 1}));
    let calls =
        [&call(1, "test.send", 1)[..], &credit, &close, &call(2, "test.receive", 3), &bytes(3, 0, b"in")];
    put(corpus, "link_websocket", "calls", tagged(1, &calls))?;
    let item = notify("stream.item", json!({"stream": 2, "cursor": "e-1", "value": {}}));
    put(corpus, "link_websocket", "item", tagged(1, &[&opened, &item, &call(7, "link.ping", 0)]))?;
    // A ping, a masked text frame and a close, as they are on the wire.
    let raw = [0, 0x89, 0x80, 0, 0, 0, 0, 0x81, 0x82, 0, 0, 0, 0, b'{', b'}', 0x88, 0x80, 0, 0, 0, 0];
    put(corpus, "link_websocket", "raw", raw.to_vec())
}

/// Records as the hub keeps them.
fn records(corpus: &Path) -> std::io::Result<()> {
    let wrapped = |key: &str, value: Value| {
        [key.as_bytes(), &[0], json!({"v": 1, "at": 5, "by": "u", "value": value}).to_string().as_bytes()]
            .concat()
    };
    let host = json!({"id": ID, "name": "web-1", "labels": {"role": "kvm"}, "key_fingerprint": "aa", "revoked": null,
        "enrolled": AT, "enrolled_by": ID, "facts": {}});
    let job = json!({"job": ID, "run": ID, "host": ID, "host_name": "web-1", "state": "ended", "incarnation": "a",
        "expires": AT, "cancel": null, "outcome": {"kind": "exited", "code": 0}, "evidence": [], "started": AT,
        "ended": AT, "stdout_bytes": 5, "stderr_bytes": 6, "output_complete": false});
    let run = json!({"run": ID, "by": "ann", "caller": "user-1", "params_hash": "h", "created": AT, "ended": null,
        "on": ["all"], "exec": {"argv": ["true"]}, "offline": "queue", "expires_ms": 5, "max_parallel": null,
        "target_count": 1, "targets": [{"job": ID, "host": ID, "name": "web-1"}], "target_chunks": 0, "audit": ID});
    let token = json!({"id": ID, "kind": "api", "name": "t", "by": "ann", "user": null, "user_name": null,
        "role": "viewer", "secret_hash": "h", "created": AT, "expires": AT, "last_used": null, "uses_left": 1,
        "labels": {}, "revoked": false});
    let presence = json!({"host": ID, "online": true, "since": AT, "last_seen": AT, "reason": null});
    let whole = [
        wrapped(&format!("host.{ID}"), host),
        wrapped("hostname.web-1", json!({"name": "web-1", "host": ID})),
        wrapped("burntkey.aa", json!({"fingerprint": "aa", "host": ID, "name": "web-1"})),
        wrapped(&format!("journal.{ID}"), json!({"host": ID, "incarnation": "a", "high_water": 7})),
        wrapped(&format!("presence.{ID}"), presence),
        wrapped(&format!("run.{ID}"), run),
        wrapped(&format!("job.{ID}"), job.clone()),
        wrapped(&format!("job.{ID}"), job),
        wrapped(&format!("token.{ID}"), token),
        wrapped(
            "user.ann",
            json!({"id": ID, "name": "ann", "role": "admin", "password": "p", "created": AT}),
        ),
        wrapped("setup.first", json!({"secret_hash": "h"})),
        wrapped("hub.self", json!({"epoch": "e", "restored": null})),
        format!("job.{ID}").into_bytes(),
        format!("host.{ID}").into_bytes(),
    ];
    let parts: Vec<&[u8]> = whole.iter().map(Vec::as_slice).collect();
    put(corpus, "hub_record", "all", fields(&parts))?;
    for (name, part) in ["host", "name", "burnt", "journal", "presence", "run", "job"].iter().zip(&whole) {
        put(corpus, "hub_record", name, field(part))?;
    }
    Ok(())
}

/// Public keys as hosts have them.
fn keys(corpus: &Path) -> std::io::Result<()> {
    let ed25519 = [&b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00"[..], &[7; 32]].concat();
    put(corpus, "hub_host_key", "ed25519", ed25519.clone())?;
    put(corpus, "link_fingerprint", "key", ed25519)
}
