//! Identifiers short enough for a table, and back.

/// Shortest beginning of an identifier that is looked up.
pub(crate) const SHORTEST: usize = 6;

/// The beginning of an identifier that names it in practice: the whole time part of a UUIDv7, to the millisecond.
pub(crate) fn shorten(id: impl ToString) -> String {
    let mut text = id.to_string();
    text.truncate(13);
    text
}

/// The one of `ids` that begins with `prefix`.
pub(crate) fn find<T: ToString + Copy>(prefix: &str, ids: &[T]) -> Result<T, Unresolved> {
    let mut matches = ids.iter().filter(|id| id.to_string().starts_with(prefix));
    match (matches.next(), matches.next()) {
        (Some(id), None) => Ok(*id),
        (None, _) => Err(Unresolved::None),
        (Some(_), Some(_)) => Err(Unresolved::Several),
    }
}

/// Why the beginning of an identifier does not name one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unresolved {
    /// Nothing begins so.
    None,
    /// More than one does.
    Several,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unique_beginnings_name_an_id() {
        let ids = ["0192d3b0-5f7e-aaaa", "0192d3b0-5f7f-bbbb"];
        assert_eq!(shorten(ids[0]), "0192d3b0-5f7e");
        assert_eq!(find("0192d3b0-5f7e", &ids), Ok(ids[0]));
        assert_eq!(find("0192d3", &ids), Err(Unresolved::Several));
        assert_eq!(find("ffffff", &ids), Err(Unresolved::None));
    }
}
