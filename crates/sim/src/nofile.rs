//! How many files this process may have open: every link takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that a process needs besides its links.
const BESIDES: u64 = 128;

/// There is no room for so many links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{links} links need {needed} open files and this process may have {allowed}; raise the hard limit \
     (`ulimit -Hn {needed}` as root, or LimitNOFILE= of the unit), or take fewer hosts"
)]
pub struct TooFewFiles {
    /// How many links were asked for.
    pub links: u64,
    /// How many files they need.
    pub needed: u64,
    /// How many there may be.
    pub allowed: u64,
}

/// Raises the soft limit of this process, and of what it starts later, to the hard one; checks that `links` fit.
pub fn make_room(links: usize) -> Result<(), TooFewFiles> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where the system does not allow it, the limit that there is decides.
    let allowed = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    check(links as u64, allowed)
}

fn check(links: u64, allowed: Option<u64>) -> Result<(), TooFewFiles> {
    let needed = links.saturating_add(BESIDES);
    match allowed {
        Some(allowed) if allowed < needed => Err(TooFewFiles { links, needed, allowed }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_must_fit_and_the_error_says_what_to_do() {
        assert_eq!(check(1000, None), Ok(()));
        assert_eq!(check(1000, Some(1000 + BESIDES)), Ok(()));
        let error = check(1000, Some(1024)).expect_err("too few");
        assert!(error.to_string().contains("ulimit -Hn 1128"), "{error}");
    }
}
