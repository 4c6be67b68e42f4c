//! Join tokens: `dcj_SECRET_FINGERPRINT`, made by `datacentered token create --join` on the hub.
//!
//! The secret proves to the hub that this host may enrol; the fingerprint proves to this host that it talks to the hub
//! that made the token, before the secret is told to anyone.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::str::FromStr;

use datacentered_link::tls::Fingerprint;

/// What every join token begins with.
const PREFIX: &str = "dcj_";

/// Longest token read from a file or standard input, in bytes.
const MAX_TOKEN: u64 = 4096;

/// A join token, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    secret: String,
    ca_fingerprint: Fingerprint,
}

impl JoinToken {
    /// What proves to the hub that this host may enrol. Never logged.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The public key of the hub's CA.
    pub fn ca_fingerprint(&self) -> Fingerprint {
        self.ca_fingerprint
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken").field("ca_fingerprint", &self.ca_fingerprint).finish_non_exhaustive()
    }
}

/// Why a text is not a join token. Never shows the text: it may be a secret of another kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidToken {
    /// Nothing there.
    #[error("the join token is empty; make one on the hub with `datacentered token create --join`")]
    Empty,
    /// An API token.
    #[error(
        "this is an API token (dc_...), not a join token; make one on the hub with `datacentered token create --join`"
    )]
    ApiToken,
    /// Something else.
    #[error("a join token begins with `dcj_`; make one on the hub with `datacentered token create --join`")]
    Prefix,
    /// No fingerprint at the end.
    #[error(
        "the join token does not end in the fingerprint of the hub's key (`_` and 64 hexadecimal digits); \
         it was probably cut off when it was copied"
    )]
    Fingerprint,
    /// No secret in the middle.
    #[error(
        "the join token has no valid secret between `dcj_` and its fingerprint; copy it again as a whole"
    )]
    Secret,
}

impl FromStr for JoinToken {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let text = text.trim();
        if text.is_empty() {
            return Err(InvalidToken::Empty);
        }
        let Some(rest) = text.strip_prefix(PREFIX) else {
            return Err(if text.starts_with("dc_") { InvalidToken::ApiToken } else { InvalidToken::Prefix });
        };
        // The secret is base64url, so that it may hold `_` itself: the last one ends it.
        let (secret, fingerprint) = rest.rsplit_once('_').ok_or(InvalidToken::Fingerprint)?;
        let ca_fingerprint = fingerprint.parse().map_err(|_| InvalidToken::Fingerprint)?;
        let base64url = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if secret.is_empty() || !secret.bytes().all(base64url) {
            return Err(InvalidToken::Secret);
        }
        Ok(Self { secret: secret.to_owned(), ca_fingerprint })
    }
}

/// Why a token could not be read from where the command line says.
#[derive(Debug, thiserror::Error)]
pub enum TokenSourceError {
    /// The file cannot be read.
    #[error(
        "cannot read the join token from `{path}`; name a file that this user may read, or use `--token -`"
    )]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// Standard input cannot be read.
    #[error("cannot read the join token from standard input")]
    Stdin(#[source] std::io::Error),
    /// What was read is no token.
    #[error(transparent)]
    Invalid(#[from] InvalidToken),
}

/// Reads a token as `--token` names it: the token itself, `@FILE`, or `-` for standard input.
///
/// Only single-use join tokens should stand on a command line, where every user of the host can read them.
pub fn read_token(argument: &str) -> Result<JoinToken, TokenSourceError> {
    if argument == "-" {
        return Ok(first_line(std::io::stdin().lock()).map_err(TokenSourceError::Stdin)?.parse()?);
    }
    let Some(path) = argument.strip_prefix('@') else {
        return Ok(argument.parse()?);
    };
    let path = PathBuf::from(path);
    let read = File::open(&path).and_then(first_line);
    Ok(read.map_err(|source| TokenSourceError::File { path, source })?.parse()?)
}

fn first_line(from: impl Read) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    from.take(MAX_TOKEN).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FINGERPRINT: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn the_last_part_is_the_fingerprint_even_where_the_secret_has_underscores() {
        let token: JoinToken = format!("dcj_ab_c-D_{}", FINGERPRINT.to_uppercase()).parse().expect("parses");
        assert_eq!((token.secret(), token.ca_fingerprint().to_string().as_str()), ("ab_c-D", FINGERPRINT));
        assert!(!format!("{token:?}").contains("ab_c-D"), "a secret is never shown");
    }

    #[test]
    fn each_mistake_is_explained() {
        let cases = [
            ("  ".to_owned(), InvalidToken::Empty),
            ("dc_abc".to_owned(), InvalidToken::ApiToken),
            ("hello".to_owned(), InvalidToken::Prefix),
            ("dcj_abc".to_owned(), InvalidToken::Fingerprint),
            (format!("dcj_abc_{}", &FINGERPRINT[1..]), InvalidToken::Fingerprint),
            (format!("dcj__{FINGERPRINT}"), InvalidToken::Secret),
            (format!("dcj_a b_{FINGERPRINT}"), InvalidToken::Secret),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<JoinToken>().expect_err("is refused"), expected, "{text}");
        }
    }

    #[test]
    fn a_file_holds_the_token_on_its_first_line() {
        let file = tempfile::NamedTempFile::new().expect("creates");
        std::fs::write(file.path(), format!("\n  dcj_s_{FINGERPRINT}  \nrest")).expect("writes");
        let token = read_token(&format!("@{}", file.path().display())).expect("reads");
        assert_eq!(token.secret(), "s");
        let missing = read_token("@/nonexistent/token").expect_err("is not there");
        assert!(missing.to_string().contains("/nonexistent/token"));
    }

    proptest! {
        #[test]
        fn never_panics(text: String) {
            let _ = text.parse::<JoinToken>();
        }
    }
}
