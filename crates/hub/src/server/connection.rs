//! What is known about a connection, for whatever it asks.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OwnedSemaphorePermit;

use super::admission::Admitted;
use crate::identity::HostKey;
use crate::metrics::{Counted, Door};
use crate::sessions::Peer;

/// One connection. It counts against the limits until the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Connection(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    door: Door,
    peer: Peer,
    host_key: Option<HostKey>,
    admitted: Mutex<Option<Admitted>>,
    _permit: OwnedSemaphorePermit,
    _counted: Counted,
}

impl Connection {
    /// A new connection.
    pub(super) fn new(
        door: Door,
        peer: Peer,
        host_key: Option<HostKey>,
        admitted: Option<Admitted>,
        permit: OwnedSemaphorePermit,
        counted: Counted,
    ) -> Self {
        Self(Arc::new(Inner {
            door,
            peer,
            host_key,
            admitted: Mutex::new(admitted),
            _permit: permit,
            _counted: counted,
        }))
    }

    /// Which door it came in by.
    pub(crate) fn door(&self) -> Door {
        self.0.door
    }

    /// The other end, as the kernel says.
    pub(crate) fn peer(&self) -> Peer {
        self.0.peer
    }

    /// The key that the TLS handshake proved, on the agents' side.
    pub(crate) fn host_key(&self) -> Option<HostKey> {
        self.0.host_key.clone()
    }

    /// The peer has proved who it is: it no longer takes a place of those who have not.
    pub(crate) fn authenticated(&self) {
        self.0.admitted.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}
