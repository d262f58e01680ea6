//! What went wrong, in words that say what to do.

use std::io;
use std::net::SocketAddr;

use outlive_core::transport::TransportError;
use quinn::{ConnectError, ConnectionError, ReadError, WriteError};
use tokio_util::codec::LengthDelimitedCodecError;

use super::halves::DONE;

/// QUIC carries the alerts of TLS as the codes from here on.
const ALERTS: std::ops::Range<u64> = 0x100..0x200;

/// The alert of TLS that says that a key is good, but not the expected one.
const ACCESS_DENIED: u64 = ALERTS.start + 49;

/// The alert of TLS that says that there is no protocol in common.
const NO_APPLICATION_PROTOCOL: u64 = ALERTS.start + 120;

pub(super) fn unreachable(address: impl ToString, reason: impl ToString) -> TransportError {
    TransportError::Unreachable {
        address: address.to_string(),
        reason: reason.to_string(),
    }
}

pub(super) fn dialing(address: SocketAddr, error: &ConnectError) -> TransportError {
    match error {
        ConnectError::EndpointStopping => closed_here(),
        error => unreachable(address, error),
    }
}

/// Why the handshake with whoever is at `address` failed.
pub(super) fn handshake(address: SocketAddr, error: &ConnectionError) -> TransportError {
    let untrusted = |reason: &str| TransportError::Untrusted {
        address: address.to_string(),
        reason: reason.to_owned(),
    };
    match error {
        ConnectionError::TransportError(ours) => match u64::from(ours.code) {
            ACCESS_DENIED => untrusted("the one who answers there is another peer"),
            NO_APPLICATION_PROTOCOL => {
                unreachable(address, "what answers there speaks another protocol")
            }
            code if ALERTS.contains(&code) => {
                untrusted("the one who answers there can't show a peer's key")
            }
            _ => unreachable(address, ours),
        },
        ConnectionError::ConnectionClosed(theirs) => match u64::from(theirs.error_code) {
            NO_APPLICATION_PROTOCOL => {
                unreachable(address, "what answers there speaks another protocol")
            }
            code if ALERTS.contains(&code) => {
                TransportError::Refused("it does not take our key".to_owned())
            }
            _ => unreachable(address, "it takes no connection now"),
        },
        ConnectionError::TimedOut => silent(address),
        ConnectionError::LocallyClosed => closed_here(),
        error => unreachable(address, error),
    }
}

pub(super) fn silent(address: SocketAddr) -> TransportError {
    unreachable(address, "no answer in time")
}

pub(super) fn closed_here() -> TransportError {
    TransportError::Broken("it was closed at this end".to_owned())
}

/// Why a connection ended.
pub(super) fn ended(error: &ConnectionError) -> TransportError {
    TransportError::Broken(match error {
        ConnectionError::ApplicationClosed(theirs) if theirs.error_code == DONE => {
            return TransportError::Finished;
        }
        ConnectionError::ApplicationClosed(_) => "the peer found a fault".to_owned(),
        ConnectionError::TimedOut => "the peer fell silent".to_owned(),
        ConnectionError::LocallyClosed => return closed_here(),
        error => error.to_string(),
    })
}

pub(super) fn writing(error: &WriteError) -> TransportError {
    match error {
        WriteError::ConnectionLost(error) => ended(error),
        WriteError::Stopped(_) => TransportError::Broken("the peer reads no more".to_owned()),
        error => TransportError::Broken(error.to_string()),
    }
}

pub(super) fn reading(error: &ReadError) -> TransportError {
    match error {
        ReadError::ConnectionLost(error) => ended(error),
        error => TransportError::Broken(error.to_string()),
    }
}

/// Why no packet could be read: the connection, or what came over it.
pub(super) fn unframing(error: &io::Error) -> TransportError {
    let source = error.get_ref();
    if let Some(error) = source.and_then(|source| source.downcast_ref::<ReadError>()) {
        return reading(error);
    }
    if source.is_some_and(|source| source.is::<LengthDelimitedCodecError>()) {
        return TransportError::Protocol("it sent a packet that is too long".to_owned());
    }
    TransportError::Protocol(format!("it sent half a packet: {error}"))
}
