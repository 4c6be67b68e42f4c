//! Tells the hub what the host says about itself: at connect and from time to time, where it changed.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use datacentered_link::Link;
use datacentered_proto::operations::HostReport;
use datacentered_proto::ops::host::{Facts, ReportParams};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::facts::{self, FactsConfig};
use crate::policy::PolicyFile;

/// What the hub has been told, and the look that may be under way.
#[derive(Debug)]
pub(super) struct FactsReport {
    config: FactsConfig,
    policy: Arc<PolicyFile>,
    boot_id: String,
    /// The facts that the hub answered, with the epoch of the hub that did: a restored hub may have forgotten them.
    told: Option<(String, Facts)>,
    /// Kept across links, so that a disk that hangs holds one thread and not one for each look.
    look: Option<JoinHandle<Facts>>,
}

impl FactsReport {
    /// Nothing told yet. `boot_id` is the one that the journal goes by.
    pub(super) fn new(config: FactsConfig, policy: Arc<PolicyFile>, boot_id: String) -> Self {
        Self { config, policy, boot_id, told: None, look: None }
    }

    /// The facts now, for the enrolment.
    pub(super) async fn now(&mut self) -> Facts {
        self.look().await.unwrap_or_default()
    }

    /// Tells the hub over one link for as long as it is polled.
    pub(super) async fn keep_telling(&mut self, link: &Link, epoch: &str) -> Infallible {
        loop {
            if let Some(facts) = self.look().await
                && self.is_news(epoch, &facts)
            {
                let params = ReportParams { facts };
                match link.call::<HostReport>(&params).await {
                    Ok(_) => self.told = Some((epoch.to_owned(), params.facts)),
                    Err(error) => {
                        tracing::debug!(code = %error.code, %error, "the hub did not take the host's facts");
                    }
                }
            }
            // What is wrong with the policy is told at once; all else is in no hurry.
            let told = self.told.as_ref().map(|(_, told)| &told.policy);
            let policy_changed = async {
                match told {
                    Some(told) => self.policy.differs_from(told).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                () = sleep(Duration::from_secs(self.config.interval_s)) => {}
                () = policy_changed => {}
            }
        }
    }

    fn is_news(&self, epoch: &str, now: &Facts) -> bool {
        match &self.told {
            Some((told_epoch, told)) => told_epoch != epoch || facts::changed(told, now, &self.config),
            None => true,
        }
    }

    /// One look, on a thread where blocking is allowed; none where it does not come back in time.
    async fn look(&mut self) -> Option<Facts> {
        let config = &self.config;
        let look = self.look.get_or_insert_with(|| {
            let config = config.clone();
            tokio::task::spawn_blocking(move || facts::of_this_host(&config))
        });
        let Ok(seen) = timeout(Duration::from_secs(config.timeout_s), look).await else {
            tracing::warn!(
                "reading the host's facts takes longer than {} s; a disk may hang (see `facts.timeout_s`)",
                config.timeout_s
            );
            return None;
        };
        self.look = None;
        let mut facts = seen.ok()?;
        facts.boot_id.clone_from(&self.boot_id);
        facts.policy = self.policy.facts();
        Some(facts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn facts_are_news_once_for_each_epoch_of_the_hub() {
        let policy = Arc::new(PolicyFile::open("/no/such/policy.toml"));
        let mut report = FactsReport::new(FactsConfig::default(), policy, "boot".into());
        let facts = report.now().await;
        assert_eq!(facts.boot_id, "boot");
        assert!(report.is_news("a", &facts));
        report.told = Some(("a".into(), facts.clone()));
        assert!(!report.is_news("a", &facts));
        assert!(report.is_news("b", &facts), "a restored hub is told again");
        let renamed = Facts { hostname: "other".into(), ..facts };
        assert!(report.is_news("a", &renamed));
    }
}
