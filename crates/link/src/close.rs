//! Why a link ended.

use std::time::Duration;

use datacentered_proto::Error;
use tokio_tungstenite::tungstenite::Error as WsError;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// Why a link ended. The text is for a log line; programs decide by the variant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// This side closed it in good order.
    #[error("closed by this side: {reason}")]
    Closed {
        /// Why, as given to [`crate::Link::close`].
        reason: String,
    },
    /// The other side closed it in good order, or said what we did wrong.
    #[error("closed by the other side ({code}): {reason}")]
    ClosedByPeer {
        /// The WebSocket close code (RFC 6455, 7.4).
        code: u16,
        /// What the other side said; untrusted text.
        reason: String,
    },
    /// Nothing was heard for too long, so the other side or the way to it is gone; connect again.
    #[error("nothing was heard for {} s although asked; the other side or the network is gone", silence.as_secs())]
    Silent {
        /// How long.
        silence: Duration,
    },
    /// The connection broke; connect again.
    #[error("the connection broke: {detail}")]
    Lost {
        /// What the system said.
        detail: String,
    },
    /// The other side sent a message over the limit; it has to page or stream instead.
    #[error("the other side sent a message of {size} bytes; at most {limit} are allowed")]
    TooLarge {
        /// Its size in bytes, as announced.
        size: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// The other side broke the protocol; it is faulty or not one of ours.
    #[error("the other side broke the protocol: {detail}")]
    Protocol {
        /// How.
        detail: String,
    },
    /// The [`crate::Driver`] was dropped before the connection had ended.
    #[error("this side stopped running the connection")]
    Dropped,
}

impl CloseReason {
    /// From what the WebSocket reports.
    pub(crate) fn from_websocket(error: WsError) -> Self {
        match error {
            WsError::Capacity(CapacityError::MessageTooLong { size, max_size }) => {
                Self::TooLarge { size, limit: max_size }
            }
            WsError::ConnectionClosed | WsError::AlreadyClosed => {
                Self::Lost { detail: "it ended without a word".into() }
            }
            WsError::Utf8(_) => Self::Protocol { detail: "a text frame is not UTF-8".into() },
            WsError::Protocol(
                tokio_tungstenite::tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            ) => Self::Lost { detail: "the other side went away without closing".into() },
            WsError::Protocol(error) => Self::Protocol { detail: error.to_string() },
            WsError::Io(error) => Self::Lost { detail: error.to_string() },
            other => Self::Lost { detail: other.to_string() },
        }
    }

    /// What the other side is told.
    pub(crate) fn close_code(&self) -> CloseCode {
        match self {
            Self::Closed { .. } => CloseCode::Normal,
            Self::TooLarge { .. } => CloseCode::Size,
            Self::Protocol { detail } if detail.contains("UTF-8") => CloseCode::Invalid,
            Self::Protocol { .. } => CloseCode::Protocol,
            Self::ClosedByPeer { .. } | Self::Silent { .. } | Self::Lost { .. } | Self::Dropped => {
                CloseCode::Away
            }
        }
    }

    /// For what was never sent: it did not happen.
    pub(crate) fn unavailable(&self) -> Error {
        Error::unavailable(format!("the link has ended ({self}); try again over a new one"))
    }

    /// For what was sent and not answered: it may have happened.
    pub(crate) fn indeterminate(&self) -> Error {
        Error::indeterminate(format!(
            "the link ended before the answer came ({self}); repeat the call with the same key"
        ))
    }
}
