//! The documents made from the table of operations: the operations with their schemas, and OpenAPI 3.1.

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::error::Error;
use crate::operations::{Effect, OPERATIONS, OperationSpec, Served};

/// HTTP prefix of every operation.
pub const HTTP_PREFIX: &str = "/api/v1/";

fn generator(definitions: &'static str) -> SchemaGenerator {
    SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = definitions.into())
        .into_generator()
}

fn first_paragraph(doc: &str) -> String {
    doc.trim().to_owned()
}

/// Every operation with the schemas of its parameters, reply and items, and the protocol's version.
pub fn operations_document() -> Value {
    let mut generator = generator("/definitions");
    let rows: Vec<Value> = OPERATIONS
        .iter()
        .map(|spec| {
            let mut row = Map::new();
            row.insert("name".into(), spec.name.into());
            row.insert("doc".into(), first_paragraph(spec.doc).into());
            let served = match spec.served {
                Served::Hub => "hub",
                Served::Agent => "agent",
                Served::Link => "link",
            };
            row.insert("served_by".into(), served.into());
            row.insert("effect".into(), spec.effect.as_str().into());
            row.insert("permission".into(), spec.permission.as_str().into());
            row.insert("params".into(), (spec.params)(&mut generator).to_value());
            row.insert("reply".into(), (spec.reply)(&mut generator).to_value());
            if let Some(item) = spec.item {
                row.insert("item".into(), item(&mut generator).to_value());
            }
            Value::Object(row)
        })
        .collect();
    json!({
        "protocol": crate::PROTOCOL,
        "capabilities": crate::CAPABILITIES,
        "operations": rows,
        "definitions": generator.take_definitions(true),
    })
}

fn http_path(spec: &OperationSpec, generator: &mut SchemaGenerator) -> Value {
    let problem = json!({
        "description": "It failed: the member 'code' is stable, 'detail' says what to do next.",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    });
    let params = (spec.params)(generator).to_value();
    let (media, schema) = if let (true, Some(item)) = (spec.effect.is_stream(), spec.item) {
        ("text/event-stream", item(generator).to_value())
    } else if spec.effect == Effect::Bytes {
        ("application/octet-stream", json!({"type": "string", "format": "binary"}))
    } else {
        ("application/json", (spec.reply)(generator).to_value())
    };
    let mut content = Map::new();
    content.insert(media.into(), json!({"schema": schema}));
    let responses = json!({"200": {"description": "Done.", "content": content}, "default": problem});
    let mut path = Map::new();
    path.insert(
        "post".into(),
        json!({
            "operationId": spec.name,
            "summary": first_paragraph(spec.doc),
            "description": format!("Permission: {}. Effect: {}.", spec.permission.as_str(), spec.effect.as_str()),
            "tags": [spec.name.split('.').next().unwrap_or_default()],
            "requestBody": {"required": true, "content": {"application/json": {"schema": params}}},
            "responses": responses,
        }),
    );
    if spec.effect == Effect::Items || (spec.effect == Effect::Bytes && spec.item.is_some()) {
        path.insert(
            "get".into(),
            json!({
                "operationId": format!("{}.sse", spec.name),
                "summary": first_paragraph(spec.doc),
                "description": "Server-sent events; the id of each is its cursor, so that Last-Event-ID resumes.",
                "tags": [spec.name.split('.').next().unwrap_or_default()],
                "parameters": [{"name": "params", "in": "query", "description": "The parameters as JSON.",
                                "content": {"application/json": {"schema": params}}}],
                "responses": responses,
            }),
        );
    }
    Value::Object(path)
}

/// The OpenAPI 3.1 document of the HTTP face: what the hub serves at `/api/openapi.json`.
pub fn openapi_document() -> Value {
    let mut generator = generator("/components/schemas");
    let mut paths = Map::new();
    for spec in OPERATIONS.iter().filter(|spec| spec.served == Served::Hub) {
        // Uploads and the agents' own calls need a link.
        if spec.effect == Effect::Upload || matches!(spec.name, "session.hello" | "host.enrol") {
            continue;
        }
        if spec.permission == crate::Permission::Agent {
            continue;
        }
        paths.insert(format!("{HTTP_PREFIX}{}", spec.name), http_path(spec, &mut generator));
    }
    let _ = generator.subschema_for::<Error>();
    let mut schemas = generator.take_definitions(true);
    schemas.insert(
        "Problem".into(),
        json!({
            "type": "object",
            "description": "A failure (RFC 9457).",
            "required": ["type", "title", "status", "detail", "code"],
            "properties": {
                "type": {"type": "string"},
                "title": {"type": "string"},
                "status": {"type": "integer"},
                "detail": {"type": "string"},
                "code": {"$ref": "#/components/schemas/Code"},
                "retry_after_ms": {"type": "integer"},
                "details": {}
            }
        }),
    );
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "DataCentered",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Every operation of the hub as POST; streams also as server-sent events."
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "A token (dc_...)."}}
        }
    })
}
