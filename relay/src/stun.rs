//! Answers to STUN binding requests ([RFC 8489]): at which address a client's packets arrive here,
//! which is what a peer elsewhere has to dial.
//!
//! Everybody is answered, as it has to be: who asks is not known to the relay, and what it learns is
//! its own address. An answer is at most 24 bytes longer than the request, or 1.6 times as long with
//! its headers, so nobody is flooded by it, and a source that asks too often is not answered. No
//! other request is.
//!
//! [RFC 8489]: https://www.rfc-editor.org/rfc/rfc8489

mod socket;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use stun_types::attribute::{
    Attribute, AttributeStaticType, AttributeType, ErrorCode, UnknownAttributes, XorMappedAddress,
};
use stun_types::message::{
    BINDING, Message, MessageClass, MessageWrite, MessageWriteExt, MessageWriteVec,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use self::socket::{Asker, RECEIVE_BYTES, Socket};
use crate::accounts::{Accounts, SocketAccount, source};
use crate::config::RelayConfig;
use crate::counts::Counts;
use crate::refusals::{RefusalLog, Refused};

/// Bytes of a request. A longer one is not answered: binding requests are short.
const REQUEST_BYTES: usize = 548;

/// Sources whose requests are counted.
const SOURCES: usize = 65_536;

/// Attributes that an answer names as unknown, of all that are.
const UNKNOWN: usize = 4;

/// How long to wait after the socket failed, before it would fail again.
const FAILED: Duration = Duration::from_millis(100);

pub(crate) struct Stun {
    socket: Socket,
    config: Arc<RelayConfig>,
    sources: Accounts<IpAddr, SocketAccount>,
    refusals: Arc<RefusalLog>,
    counts: Arc<Counts>,
}

impl Stun {
    /// Also returns the address, which port 0 leaves open.
    pub(crate) async fn bind(
        address: SocketAddr,
        config: Arc<RelayConfig>,
        refusals: Arc<RefusalLog>,
        counts: Arc<Counts>,
    ) -> io::Result<(Self, SocketAddr)> {
        let socket = Socket::bind(address).await?;
        let address = socket.local_addr()?;
        let sources = Accounts::new(SOURCES);
        let stun = Self {
            socket,
            config,
            sources,
            refusals,
            counts,
        };
        Ok((stun, address))
    }

    pub(crate) async fn run(self, draining: CancellationToken) {
        tokio::select! {
            () = draining.cancelled() => {}
            () = self.receive() => {}
        }
    }

    async fn receive(&self) {
        let mut buffer = vec![0; RECEIVE_BYTES];
        loop {
            let (asker, requests) = match self.socket.receive(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    warn!(%error, "the socket for STUN failed");
                    tokio::time::sleep(FAILED).await;
                    continue;
                }
            };
            for request in requests {
                self.answer(asker, request);
            }
        }
    }

    fn answer(&self, asker: Asker, request: &[u8]) {
        let from = SocketAddr::new(asker.from.ip().to_canonical(), asker.from.port());
        if request.len() <= REQUEST_BYTES
            && self.admits(from.ip())
            && let Some(response) = response(request, from)
            // No room to send: the client asks again.
            && self.socket.answer(asker, &response).is_ok()
        {
            self.counts.stun_answers.add(1);
        }
    }

    fn admits(&self, address: IpAddr) -> bool {
        if address.is_loopback() && !self.config.limit_loopback {
            return true;
        }
        let now = Instant::now();
        let account = self.sources.of(source(address), now);
        let admitted = account.admits(self.config.address_stun, now);
        if !admitted {
            self.refusals.count(Refused::Stun);
        }
        admitted
    }
}

/// What to answer, if that is a binding request.
fn response(request: &[u8], from: SocketAddr) -> Option<Vec<u8>> {
    let request = Message::from_bytes(request).ok()?;
    if !request.has_class(MessageClass::Request) || !request.has_method(BINDING) {
        return None;
    }
    let unknown: Vec<AttributeType> = request
        .iter_attributes()
        .map(|(_, attribute)| attribute.get_type())
        .filter(|kind| kind.comprehension_required() && *kind != XorMappedAddress::TYPE)
        .take(UNKNOWN)
        .collect();
    if unknown.is_empty() {
        let mut response = Message::builder_success(&request, MessageWriteVec::new());
        let seen = XorMappedAddress::new(from, request.transaction_id());
        response.add_attribute(&seen).ok()?;
        return Some(response.finish());
    }
    let mut response = Message::builder_error(&request, MessageWriteVec::new());
    response
        .add_attribute(&ErrorCode::new(420, "").ok()?)
        .ok()?;
    response
        .add_attribute(&UnknownAttributes::new(&unknown))
        .ok()?;
    Some(response.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate::Rate;

    #[tokio::test]
    async fn requests_that_are_not_answered_are_counted() {
        let config = RelayConfig {
            address_stun: Rate::new(1).map(|rate| rate.with_burst(2)),
            limit_loopback: true,
            ..RelayConfig::default()
        };
        let (config, refusals) = (Arc::new(config), Arc::new(RefusalLog::default()));
        let address = ([127, 0, 0, 1], 0).into();
        let binding = Stun::bind(address, config, refusals.clone(), Arc::default());
        let (stun, _) = binding.await.unwrap();
        let admitted = (0..5).filter(|_| stun.admits(here()[0].ip())).count();
        assert_eq!((admitted, refusals.total(Refused::Stun)), (2, 3));
    }

    fn binding() -> Vec<u8> {
        Message::builder_request(BINDING, MessageWriteVec::new()).finish()
    }

    fn here() -> [SocketAddr; 2] {
        [
            ([192, 0, 2, 7], 4433).into(),
            ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7], 4433).into(),
        ]
    }

    #[test]
    fn a_client_learns_where_it_is_seen() {
        for from in here() {
            let request = binding();
            let response = response(&request, from).unwrap();
            let request = Message::from_bytes(&request).unwrap();
            let answer = Message::from_bytes(&response).unwrap();
            assert!(answer.has_class(MessageClass::Success));
            assert_eq!(answer.transaction_id(), request.transaction_id());
            let seen = answer.attribute::<XorMappedAddress>().unwrap();
            assert_eq!(seen.addr(answer.transaction_id()), from);
            assert!(response.len() <= 20 + 24, "{} bytes", response.len());
        }
    }

    #[test]
    fn what_a_request_needs_and_we_do_not_know_is_named() {
        let mut request = binding();
        // CHANGE-REQUEST of an older version, four bytes long.
        request.extend([0, 3, 0, 4, 0, 0, 0, 6]);
        request[3] = 8;
        let response = response(&request, here()[0]).unwrap();
        let answer = Message::from_bytes(&response).unwrap();
        assert!(answer.has_class(MessageClass::Error));
        assert_eq!(answer.attribute::<ErrorCode>().unwrap().code(), 420);
        let unknown = answer.attribute::<UnknownAttributes>().unwrap();
        assert!(unknown.has_attribute(AttributeType::new(3)));
    }

    #[test]
    fn nothing_else_is_answered() {
        let request = binding();
        let answer = response(&request, here()[0]).unwrap();
        let mut indication = request.clone();
        indication[1] |= 0x10;
        let mut allocate = request.clone();
        allocate[1] = 3;
        for other in [&answer, &indication, &allocate, &b"GET / HTTP/1.1".to_vec()] {
            assert_eq!(response(other, here()[0]), None);
        }
        for end in 0..request.len() {
            assert_eq!(response(&request[..end], here()[0]), None);
        }
    }
}
