//! What can go wrong with a relay.

use std::io;
use std::net::SocketAddr;

use outlive_core::store::StoreError;
use thiserror::Error;

/// Why a relay could not start or stop, or not take what it was given meanwhile.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RelayError {
    /// Its address is taken, or not one of this machine, or not for this user.
    #[error("can't listen on {address}: {}", of_listening(.error))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// Its store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was given no store.
    #[error("the relay has no store; give it one with `Relay::builder().store(..)`")]
    NoStore,
    /// A setting is zero that says how often something is done.
    #[error("`{setting}` is zero; say how much time has to pass, a second or more")]
    ZeroTime {
        /// The field of [`RelayConfig`](crate::RelayConfig).
        setting: &'static str,
    },
    /// The system gave no randomness.
    #[error("the operating system gave no random numbers")]
    Entropy,
    /// Its certificate can't be used.
    #[error("the certificate is not usable: {reason}; it has to be PEM, the relay's own first")]
    Certificate {
        /// What is wrong with it.
        reason: String,
    },
    /// Its private key can't be used.
    #[error("the private key is not usable: {reason}; it has to be PEM, as PKCS#8, PKCS#1 or SEC1")]
    Key {
        /// What is wrong with it.
        reason: String,
    },
    /// It was started without TLS, and is given a new certificate.
    #[error(
        "the relay was started without TLS, so it shows no certificate; give it one at the start"
    )]
    NoTls,
}

fn of_listening(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program listens there; stop it or choose another port".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "no interface of this machine has that address; 0.0.0.0 or [::] means all of them"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "this user may not; ports below 1024 take CAP_NET_BIND_SERVICE".to_owned()
        }
        _ => error.to_string(),
    }
}
