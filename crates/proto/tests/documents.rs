//! The checked-in documents say what the code says.

use std::path::Path;

use datacentered_proto::openapi::{openapi_document, operations_document};
use serde_json::Value;

fn check(name: &str, made: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == format!("{made:#}\n"),
        "docs/{name} is stale: run 'make docs' and look at the difference"
    );
}

#[test]
fn operations() {
    check("operations.json", &operations_document());
}

#[test]
fn openapi() {
    check("openapi.json", &openapi_document());
}

#[test]
fn every_reference_in_the_openapi_document_leads_somewhere() {
    fn walk(document: &Value, value: &Value) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    if let (true, Some(target)) = (name == "$ref", member.as_str()) {
                        let pointer = target.strip_prefix('#').expect("a local reference");
                        assert!(document.pointer(pointer).is_some(), "{target} leads nowhere");
                    }
                    walk(document, member);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| walk(document, item)),
            _ => {}
        }
    }
    let document = openapi_document();
    walk(&document, &document);
}
