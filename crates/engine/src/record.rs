//! The one form of stored records: JSON `{v, at, by, cause, value}`.
//!
//! A record whose value is bytes is a length-prefixed JSON header (`u32` big-endian, then `{v, at, by, cause}`)
//! followed by the raw bytes. Any older version is read (through [`Stored::migrate`]), the current one is written, a
//! newer one is refused.

use bytes::{BufMut, Bytes, BytesMut};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Largest JSON header of a bytes record, in bytes.
const MAX_HEADER: usize = 64 * 1024;

/// A type that is stored as the value of a record.
pub trait Stored: Serialize + DeserializeOwned {
    /// The version written now. Raise it when older programs could not read the new form.
    const VERSION: u32;

    /// What the type is called in errors.
    const NAME: &'static str;

    /// Turns the value of an older version into the current form. The default takes it as it is.
    fn migrate(_from: u32, value: serde_json::Value) -> Result<serde_json::Value> {
        Ok(value)
    }
}

/// Who wrote a record, when, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// When, in milliseconds since the Unix epoch. For people; nothing is ordered by it.
    pub at: i64,
    /// Who: a subject's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// Why: the request's id or trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

/// A value and its provenance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record<T> {
    /// Who wrote it, when, and why.
    pub provenance: Provenance,
    /// The value.
    pub value: T,
}

#[derive(Serialize)]
struct WireOut<'a, T> {
    v: u32,
    #[serde(flatten)]
    provenance: &'a Provenance,
    value: &'a T,
}

#[derive(Serialize)]
struct HeaderOut<'a> {
    v: u32,
    #[serde(flatten)]
    provenance: &'a Provenance,
}

#[derive(Deserialize)]
struct HeaderIn {
    v: u32,
    at: i64,
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    cause: Option<String>,
}

#[derive(Deserialize)]
struct WireIn<'a> {
    v: u32,
    at: i64,
    #[serde(default)]
    by: Option<String>,
    #[serde(default)]
    cause: Option<String>,
    #[serde(borrow)]
    value: &'a serde_json::value::RawValue,
}

fn unreadable(name: &str, why: impl std::fmt::Display) -> Error {
    Error::invalid(format!("the stored {name} cannot be read: {why}"))
}

fn check_version(name: &str, found: u32, supported: u32) -> Result<()> {
    if found > supported {
        return Err(Error::NewerVersion { what: format!("the stored {name}"), found, supported });
    }
    Ok(())
}

impl<T> Record<T> {
    /// A record of `value`.
    pub fn new(provenance: Provenance, value: T) -> Self {
        Self { provenance, value }
    }
}

impl<T: Stored> Record<T> {
    /// The stored form. Errors with [`Error::Invalid`] when the value has no JSON form.
    pub fn encode(&self) -> Result<Bytes> {
        serde_json::to_vec(&WireOut { v: T::VERSION, provenance: &self.provenance, value: &self.value })
            .map(Bytes::from)
            .map_err(|e| Error::invalid(format!("a {} has no JSON form: {e}", T::NAME)))
    }

    /// Reads a stored form. Errors: [`Error::NewerVersion`], [`Error::Invalid`] when it is not such a record.
    pub fn decode(stored: &[u8]) -> Result<Self> {
        let wire: WireIn<'_> = serde_json::from_slice(stored).map_err(|e| unreadable(T::NAME, e))?;
        check_version(T::NAME, wire.v, T::VERSION)?;
        let value = if wire.v == T::VERSION {
            serde_json::from_str(wire.value.get()).map_err(|e| unreadable(T::NAME, e))?
        } else {
            let old = serde_json::from_str(wire.value.get()).map_err(|e| unreadable(T::NAME, e))?;
            serde_json::from_value(T::migrate(wire.v, old)?).map_err(|e| unreadable(T::NAME, e))?
        };
        Ok(Self { provenance: Provenance { at: wire.at, by: wire.by, cause: wire.cause }, value })
    }
}

/// The version of records whose value is bytes.
const BYTES_VERSION: u32 = 1;

impl Record<Bytes> {
    /// The stored form of a bytes value. Errors with [`Error::TooLarge`] when the provenance is absurdly long.
    pub fn encode_bytes(&self) -> Result<Bytes> {
        let header = serde_json::to_vec(&HeaderOut { v: BYTES_VERSION, provenance: &self.provenance })
            .map_err(|e| Error::invalid(format!("the provenance has no JSON form: {e}")))?;
        if header.len() > MAX_HEADER {
            return Err(Error::TooLarge {
                what: "a record's provenance",
                size: header.len() as u64,
                max: MAX_HEADER as u64,
            });
        }
        let mut out = BytesMut::with_capacity(4 + header.len() + self.value.len());
        out.put_u32(header.len() as u32);
        out.put_slice(&header);
        out.put_slice(&self.value);
        Ok(out.freeze())
    }

    /// Reads the stored form of a bytes value, without a copy.
    pub fn decode_bytes(stored: &Bytes) -> Result<Self> {
        const NAME: &str = "bytes value";
        let length = stored.first_chunk::<4>().ok_or_else(|| unreadable(NAME, "it is too short"))?;
        let length = u32::from_be_bytes(*length) as usize;
        if length > MAX_HEADER || stored.len() - 4 < length {
            return Err(unreadable(NAME, "its header has a wrong length"));
        }
        let header: HeaderIn =
            serde_json::from_slice(&stored[4..4 + length]).map_err(|e| unreadable(NAME, e))?;
        check_version(NAME, header.v, BYTES_VERSION)?;
        Ok(Self {
            provenance: Provenance { at: header.at, by: header.by, cause: header.cause },
            value: stored.slice(4 + length..),
        })
    }
}

/// Whether a stored record holds bytes rather than JSON.
pub fn is_bytes_record(stored: &[u8]) -> bool {
    // A header is far below 16 MiB, so that its length starts with a zero byte; JSON never does.
    stored.first() == Some(&0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Thing {
        name: String,
    }

    impl Stored for Thing {
        const VERSION: u32 = 2;
        const NAME: &'static str = "thing";
        fn migrate(from: u32, mut value: serde_json::Value) -> Result<serde_json::Value> {
            assert_eq!(from, 1);
            if let Some(title) = value.get("title").cloned() {
                value["name"] = title;
            }
            Ok(value)
        }
    }

    #[test]
    fn versions() {
        let old = br#"{"v":1,"at":5,"by":"u1","value":{"title":"x"}}"#;
        let record = Record::<Thing>::decode(old).expect("old");
        assert_eq!(record.value.name, "x");
        assert_eq!(record.provenance.by.as_deref(), Some("u1"));
        let newer = br#"{"v":3,"at":5,"value":{}}"#;
        assert!(matches!(
            Record::<Thing>::decode(newer),
            Err(Error::NewerVersion { found: 3, supported: 2, .. })
        ));
        for junk in [&b""[..], b"{", b"[]", br#"{"v":2,"at":1}"#, br#"{"v":2,"at":1,"value":{"name":1}}"#] {
            assert!(matches!(Record::<Thing>::decode(junk), Err(Error::Invalid { .. })));
        }
    }

    #[test]
    fn json_form() {
        let record = Record::new(
            Provenance { at: 7, by: Some("u".into()), cause: Some("c".into()) },
            Thing { name: "n".into() },
        );
        let stored = record.encode().expect("encode");
        assert_eq!(stored, &br#"{"v":2,"at":7,"by":"u","cause":"c","value":{"name":"n"}}"#[..]);
        assert!(!is_bytes_record(&stored));
        assert_eq!(Record::<Thing>::decode(&stored).expect("decode"), record);
    }

    proptest! {
        #[test]
        fn bytes_round_trip(value: Vec<u8>, at: i64, by: Option<String>, cause: Option<String>) {
            let record = Record::new(Provenance { at, by, cause }, Bytes::from(value));
            let stored = record.encode_bytes().expect("encode");
            prop_assert!(is_bytes_record(&stored));
            prop_assert_eq!(Record::decode_bytes(&stored).expect("decode"), record);
        }

        #[test]
        fn decoding_never_panics(stored: Vec<u8>) {
            let _ = Record::<Thing>::decode(&stored);
            let _ = Record::decode_bytes(&Bytes::from(stored));
        }
    }
}
