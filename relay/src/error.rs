//! What can go wrong with a relay.

use std::net::SocketAddr;

use outlive_core::store::StoreError;
use thiserror::Error;

/// Why a relay could not start or stop.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RelayError {
    /// Its address is taken, or not one of this machine.
    #[error("can't listen on {address}: {source}; choose another address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Its store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was given no store.
    #[error("the relay has no store; give it one with `Relay::builder().store(..)`")]
    NoStore,
    /// The system gave no randomness.
    #[error("the operating system gave no random numbers")]
    Entropy,
}
