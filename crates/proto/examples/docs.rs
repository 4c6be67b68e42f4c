//! Writes the documents that are made from the table of operations: `cargo run -p datacentered-proto --example docs -- docs`.

use std::path::PathBuf;

use datacentered_proto::openapi::{openapi_document, operations_document};

fn main() -> std::io::Result<()> {
    let dir = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "docs".into()));
    for (name, document) in [("operations.json", operations_document()), ("openapi.json", openapi_document())]
    {
        std::fs::write(dir.join(name), format!("{document:#}\n"))?;
    }
    Ok(())
}
