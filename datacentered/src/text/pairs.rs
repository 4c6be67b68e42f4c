//! `key=value` arguments: labels and environment.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use datacentered_proto::ByteString;

/// Why a text is not a pair.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotAPair {
    /// No `=`, or nothing before it.
    #[error("expected NAME=VALUE")]
    Form,
    /// A name that is not text.
    #[error("the name before '=' must be UTF-8 text")]
    Name,
}

/// Reads `key=value`.
pub(crate) fn label(text: &str) -> Result<(String, String), NotAPair> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(NotAPair::Form),
    }
}

/// One change of `host label`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LabelChange {
    /// `key=value`.
    Set(String, String),
    /// `key-`.
    Remove(String),
}

/// Reads `key=value`, or `key-` to take a label away.
pub(crate) fn label_change(text: &str) -> Result<LabelChange, NotAPair> {
    match (text.contains('='), text.strip_suffix('-')) {
        (true, _) => label(text).map(|(key, value)| LabelChange::Set(key, value)),
        (false, Some(key)) if !key.is_empty() => Ok(LabelChange::Remove(key.to_owned())),
        _ => Err(NotAPair::Form),
    }
}

/// Reads `NAME=VALUE` where the value may be any bytes.
pub(crate) fn environment(text: OsString) -> Result<(String, ByteString), NotAPair> {
    let mut name = text.into_vec();
    let equals = name.iter().position(|byte| *byte == b'=').ok_or(NotAPair::Form)?;
    if equals == 0 {
        return Err(NotAPair::Form);
    }
    let value = name.split_off(equals + 1);
    name.truncate(equals);
    Ok((String::from_utf8(name).map_err(|_| NotAPair::Name)?, ByteString(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn labels() {
        assert_eq!(label("role=kvm"), Ok(("role".into(), "kvm".into())));
        assert_eq!(label("note=a=b"), Ok(("note".into(), "a=b".into())));
        assert_eq!(label("=x"), Err(NotAPair::Form));
        assert_eq!(label_change("role-"), Ok(LabelChange::Remove("role".into())));
        assert_eq!(label_change("role=kvm-"), Ok(LabelChange::Set("role".into(), "kvm-".into())));
        assert_eq!(label_change("role"), Err(NotAPair::Form));
        assert_eq!(label_change("-"), Err(NotAPair::Form));
    }

    proptest! {
        #[test]
        fn environment_values_stay_exact(name in "[A-Z_]{1,8}", value: Vec<u8>) {
            let mut bytes = format!("{name}=").into_bytes();
            bytes.extend_from_slice(&value);
            prop_assert_eq!(environment(OsString::from_vec(bytes)), Ok((name, ByteString(value))));
        }

        #[test]
        fn never_panics(bytes: Vec<u8>) {
            let _ = environment(OsString::from_vec(bytes));
        }
    }
}
