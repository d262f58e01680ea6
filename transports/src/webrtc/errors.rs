//! What went wrong, in words that say what to do.

use outlive_core::transport::TransportError;
use webrtc::error::Error;

/// The sockets of a connection could not be had.
pub(super) fn opening(error: &Error) -> TransportError {
    TransportError::Address {
        address: "webrtc".to_owned(),
        reason: error.to_string(),
    }
}

pub(super) fn description(error: &Error) -> TransportError {
    TransportError::Description(error.to_string())
}

pub(super) fn candidate(error: &Error) -> TransportError {
    TransportError::Candidate(error.to_string())
}

pub(super) fn sending(error: &Error) -> TransportError {
    match error {
        Error::ErrDataChannelClosed => closed(),
        error => TransportError::Broken(error.to_string()),
    }
}

pub(super) fn closed() -> TransportError {
    TransportError::Broken("the data channel was closed".to_owned())
}
