//! Room for those who have not yet proved who they are.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::access::address_key;
use crate::metrics::TurnedAway;

/// Counts connections whose peers are not known yet, altogether and by address. Whoever proves who they are makes room.
#[derive(Clone, Debug)]
pub(crate) struct Admission(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    counts: Mutex<Counts>,
    total: usize,
    per_address: usize,
}

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Admission {
    /// Room for `total`, and for `per_address` of one address.
    pub(crate) fn new(total: usize, per_address: usize) -> Self {
        Self(Arc::new(Inner { counts: Mutex::default(), total, per_address }))
    }

    /// A place for a new connection, or why there is none.
    pub(crate) fn admit(&self, address: IpAddr) -> Result<Admitted, TurnedAway> {
        let key = address_key(address);
        let mut counts = self.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= self.0.total {
            return Err(TurnedAway::Unauthenticated);
        }
        let of_address = counts.by_address.entry(key).or_default();
        if *of_address >= self.0.per_address {
            return Err(TurnedAway::Address);
        }
        *of_address += 1;
        counts.all += 1;
        Ok(Admitted { admission: self.clone(), key })
    }
}

/// A place among those who are not known yet; dropping it makes room.
#[derive(Debug)]
pub(crate) struct Admitted {
    admission: Admission,
    key: IpAddr,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.admission.0.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.all = counts.all.saturating_sub(1);
        if let Some(of_address) = counts.by_address.get_mut(&self.key) {
            *of_address -= 1;
            if *of_address == 0 {
                counts.by_address.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_by_address_and_altogether() {
        let admission = Admission::new(3, 2);
        let address = |last: u8| IpAddr::from([192, 0, 2, last]);
        let first = admission.admit(address(1)).expect("room");
        let _second = admission.admit(address(1)).expect("room");
        assert_eq!(admission.admit(address(1)).expect_err("address full"), TurnedAway::Address);
        let _third = admission.admit(address(2)).expect("room");
        assert_eq!(admission.admit(address(3)).expect_err("full"), TurnedAway::Unauthenticated);
        drop(first);
        let fourth = admission.admit(address(1)).expect("room again");
        drop(fourth);
        assert_eq!(admission.0.counts.lock().expect("lock").by_address.len(), 2);
    }
}
