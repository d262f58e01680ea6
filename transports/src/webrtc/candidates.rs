//! The peer's candidates: each is sent to until it answers, so that a peer does not choose at how many
//! addresses, nor how.

use outlive_core::limits::{CANDIDATE_BYTES, CANDIDATES};
use outlive_core::transport::TransportError;
use rtc::ice::candidate::unmarshal_candidate;

/// Those of one description, with it and after it: at most [`CANDIDATES`].
#[derive(Debug, Default)]
pub(super) struct Candidates {
    count: usize,
}

impl Candidates {
    /// Begins with a description. Returns it without those of its candidates that are too many.
    pub(super) fn of(sdp: &str) -> (Self, String) {
        let mut candidates = Self::default();
        let kept = sdp
            .split_inclusive('\n')
            .filter(|line| !is_candidate(line) || candidates.admit())
            .collect();
        (candidates, kept)
    }

    const fn admit(&mut self) -> bool {
        let room = self.count < CANDIDATES;
        if room {
            self.count += 1;
        }
        room
    }

    /// Whether one more can be used. Empty: there are no more.
    pub(super) fn take(&mut self, candidate: &str) -> Result<(), TransportError> {
        if candidate.len() > CANDIDATE_BYTES {
            return Err(TransportError::Candidate(format!(
                "it has {} bytes, and may have {CANDIDATE_BYTES}",
                candidate.len()
            )));
        }
        if !candidate.is_empty() && !self.admit() {
            let why = format!("there are {CANDIDATES} of its description already");
            return Err(TransportError::Candidate(why));
        }
        Ok(())
    }
}

/// Whether a line of a description is a candidate, as `rtc` reads it: after empty lines, with spaces
/// around what it says.
fn is_candidate(line: &str) -> bool {
    let value = line.trim_start_matches('\r').strip_prefix("a=");
    value.is_some_and(|value| value.trim_start().starts_with("candidate"))
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

    #[test]
    fn the_first_candidates_of_a_description_stay_and_nothing_else_is_lost() {
        for line in ["a=candidate:1", "\r\ra=candidate:1", "a= \tcandidate:1 "] {
            let sdp = format!("v=0\r\n{}a=end\r\nm=x", format!("{line}\r\n").repeat(300));
            let (mut candidates, kept) = Candidates::of(&sdp);
            assert_eq!(kept.matches("candidate").count(), CANDIDATES);
            assert!(kept.starts_with("v=0\r\n") && kept.ends_with("a=end\r\nm=x"));
            assert!(candidates.take("candidate:2").is_err());
            assert!(candidates.take("").is_ok());
        }
        let few = "v=0\na=candidate:1\na=x";
        let (mut candidates, kept) = Candidates::of(few);
        assert_eq!(kept, few);
        for _ in 1..CANDIDATES {
            assert!(candidates.take("candidate:2").is_ok());
        }
        assert!(candidates.take("candidate:2").is_err());
    }
}
