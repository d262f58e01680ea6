//! The peer's candidates: each is sent to until it answers, so that a peer does not choose at how many
//! addresses, nor how.

use std::net::{IpAddr, SocketAddr};

use outlive_core::limits::{CANDIDATE_BYTES, CANDIDATES};
use outlive_core::transport::TransportError;
use rtc::ice::candidate::unmarshal_candidate;

use super::description::attribute;
use crate::address::is_of_somebody;

/// Of those with the same IP address so many are used: an interface, and how a few servers see it. A
/// peer that names somebody else's has us send there ten checks a second for each, from each of our own.
const OF_ADDRESS: usize = 4;

/// Those of one description, with it and after it: at most [`CANDIDATES`], and [`OF_ADDRESS`] of each
/// address.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    count: usize,
    /// Where those are that checks are sent to.
    addresses: Vec<IpAddr>,
}

impl Candidates {
    /// Begins with a description. Returns it without those of its candidates that are too many.
    pub(super) fn of(sdp: &str) -> (Self, String) {
        let mut candidates = Self::default();
        let kept = sdp
            .split_inclusive('\n')
            .filter(|line| match attribute(line) {
                Some(("candidate", candidate)) => candidates.admit(candidate).is_ok(),
                _ => true,
            })
            .collect();
        (candidates, kept)
    }

    fn admit(&mut self, candidate: &str) -> Result<(), TransportError> {
        if self.count >= CANDIDATES {
            let why = format!("there are {CANDIDATES} of its description already");
            return Err(TransportError::Candidate(why));
        }
        if let Some(address) = address(candidate) {
            if !is_of_somebody(address) {
                let why = format!("nobody can be at {address}");
                return Err(TransportError::Candidate(why));
            }
            let address = address.ip();
            let same = self.addresses.iter().filter(|other| **other == address);
            if same.count() >= OF_ADDRESS {
                let why = format!("there are {OF_ADDRESS} with its address already");
                return Err(TransportError::Candidate(why));
            }
            self.addresses.push(address);
        }
        self.count += 1;
        Ok(())
    }

    /// Whether one more can be used. Empty: there are no more.
    pub(super) fn take(&mut self, candidate: &str) -> Result<(), TransportError> {
        if candidate.len() > CANDIDATE_BYTES {
            return Err(TransportError::Candidate(format!(
                "it has {} bytes, and may have {CANDIDATE_BYTES}",
                candidate.len()
            )));
        }
        if candidate.is_empty() {
            return Ok(());
        }
        self.admit(candidate)
    }
}

/// Whether checks of a candidate would be sent to nobody. `rtc` has such a one of its own where a family of
/// addresses is bound that this host has none of.
pub(super) fn is_of_nobody(candidate: &str) -> bool {
    address(candidate).is_some_and(|address| !is_of_somebody(address))
}

/// The address that checks are sent to for a candidate, if it has one. For those of TCP none are.
fn address(candidate: &str) -> Option<SocketAddr> {
    // As `rtc` reads it: whoever counts words with the prefix sees another address behind a space.
    let value = candidate.strip_prefix("candidate:").unwrap_or(candidate);
    let mut words = value.split_whitespace().skip(2);
    let (transport, address) = (words.next()?, words.nth(1)?);
    if transport.to_lowercase().starts_with("tcp") {
        return None;
    }
    let ip = address.parse::<IpAddr>().ok()?.to_canonical();
    Some(SocketAddr::new(ip, words.next()?.parse().ok()?))
}

/// Of TCP there is nothing here, and a peer does not choose what we connect to. It is read as `rtc`
/// reads it: whoever splits the words at other spaces sees another transport.
pub(super) fn is_other_than_udp(candidate: &str) -> bool {
    let value = candidate.strip_prefix("candidate:").unwrap_or(candidate);
    unmarshal_candidate(value).is_ok_and(|candidate| !candidate.network_type().is_udp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(n: usize) -> String {
        format!("candidate:1 1 udp 1 192.0.2.{n} 9 typ host")
    }

    #[test]
    fn the_first_candidates_of_a_description_stay_and_nothing_else_is_lost() {
        for before in ["a=", "\r\ra=", "a= \t"] {
            let told: String = (0..200)
                .map(|n| format!("{before}{} \r\n", at(n)))
                .collect();
            let sdp = format!("v=0\r\n{told}a=end\r\nm=x");
            let (mut candidates, kept) = Candidates::of(&sdp);
            assert_eq!(kept.matches("candidate").count(), CANDIDATES);
            assert!(kept.starts_with("v=0\r\n") && kept.ends_with("a=end\r\nm=x"));
            assert!(candidates.take(&at(201)).is_err());
            assert!(candidates.take("").is_ok());
        }
        let few = "v=0\na=candidate:1\na=x";
        let (mut candidates, kept) = Candidates::of(few);
        assert_eq!(kept, few);
        for n in 1..CANDIDATES {
            assert!(candidates.take(&at(n)).is_ok());
        }
        assert!(candidates.take(&at(200)).is_err());
    }

    #[test]
    fn few_candidates_of_an_address_are_used_however_it_is_said() {
        let said = |n: usize| {
            let ip = ["192.0.2.1", "::ffff:192.0.2.1", "::FFFF:c000:201"][n % 3];
            let space = ["", " "][n % 2];
            format!("candidate:{space}{n} 1\u{2003}UDP 1 {ip} {n} typ host")
        };
        let told: String = (0..9).map(|n| format!("a={}\r\n", said(n))).collect();
        let (mut candidates, kept) = Candidates::of(&told);
        assert_eq!(kept.lines().count(), OF_ADDRESS);
        assert!(candidates.take(&said(9)).is_err());
        assert!(candidates.take(&said(10)).is_err());
        assert!(candidates.take(&at(2)).is_ok());
        for nobody in [
            "224.0.0.251 5353",
            "255.255.255.255 9",
            "0.0.0.0 9",
            "ff02::fb 5353",
            "192.0.2.9 0",
        ] {
            let candidate = format!("candidate:1 1 udp 1 {nobody} typ host");
            assert!(is_of_nobody(&candidate), "{nobody}");
            assert!(candidates.take(&candidate).is_err(), "{nobody}");
        }
        // Nothing is sent for this one.
        let tcp = "candidate:1 1 tcp 1 192.0.2.1 9 typ host tcptype active";
        assert!(candidates.take(tcp).is_ok());
    }
}
