//! Byte strings that are usually text: arguments, environment, paths.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes that travel as a JSON string where they are UTF-8, else as `{"base64": "..."}`.
///
/// Unix arguments, environment values and paths are bytes, not text; this keeps them exact without making the
/// common case unreadable.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ByteString(pub Vec<u8>);

impl ByteString {
    /// The bytes themselves.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The bytes as text, with what is not UTF-8 replaced: for messages to people only.
    pub fn to_text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl fmt::Debug for ByteString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b\"{}\"", self.0.escape_ascii())
    }
}

impl From<&str> for ByteString {
    fn from(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }
}

impl From<String> for ByteString {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

impl From<Vec<u8>> for ByteString {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Serialize for ByteString {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Ok(text) = std::str::from_utf8(&self.0) {
            return serializer.serialize_str(text);
        }
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry("base64", &STANDARD.encode(&self.0))?;
        map.end()
    }
}

impl<'de> Deserialize<'de> for ByteString {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = ByteString;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, or {\"base64\": \"...\"} for bytes that are not UTF-8")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteString, E> {
                Ok(ByteString(text.as_bytes().to_vec()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ByteString, A::Error> {
                let Some((field, encoded)) = map.next_entry::<String, String>()? else {
                    return Err(de::Error::missing_field("base64"));
                };
                if field != "base64" {
                    return Err(de::Error::unknown_field(&field, &["base64"]));
                }
                if map.next_entry::<String, String>()?.is_some() {
                    return Err(de::Error::custom("expected only the field 'base64'"));
                }
                STANDARD.decode(&encoded).map(ByteString).map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl JsonSchema for ByteString {
    fn schema_name() -> Cow<'static, str> {
        "ByteString".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Text, or {\"base64\": \"...\"} for bytes that are not UTF-8.",
            "oneOf": [
                {"type": "string"},
                {"type": "object", "required": ["base64"], "additionalProperties": false,
                 "properties": {"base64": {"type": "string", "contentEncoding": "base64"}}}
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn text_stays_readable() {
        assert_eq!(serde_json::to_string(&ByteString::from("a b")).expect("encodes"), "\"a b\"");
        assert_eq!(
            serde_json::to_string(&ByteString(vec![0xff, 0x00])).expect("encodes"),
            "{\"base64\":\"/wA=\"}"
        );
    }

    #[test]
    fn wrong_forms_are_refused() {
        for bad in ["1", "null", "{}", "{\"base64\":\"!\"}", "{\"x\":\"\"}", "{\"base64\":\"\",\"y\":\"\"}"] {
            assert!(serde_json::from_str::<ByteString>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(bytes: Vec<u8>) {
            let text = serde_json::to_string(&ByteString(bytes.clone())).expect("encodes");
            prop_assert_eq!(serde_json::from_str::<ByteString>(&text).expect("decodes").0, bytes);
        }
    }
}
