//! Why something could not be measured.

/// One sentence that says what, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failure(String);

/// The result of a step.
pub(crate) type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }

    /// The same, and which figure it was.
    pub(crate) fn of(self, figure: &str) -> Self {
        Self(format!("{figure}: {}", self.0))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<datacentered_client::Error> for Failure {
    fn from(error: datacentered_client::Error) -> Self {
        Self(format!("the hub: {error}"))
    }
}

impl From<datacentered_sim::SimError> for Failure {
    fn from(error: datacentered_sim::SimError) -> Self {
        Self(format!("the simulated hosts: {error}"))
    }
}
