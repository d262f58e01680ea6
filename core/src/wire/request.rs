//! Requests and their answers: what the messages of
//! [`ChannelId::REQUESTS`](crate::ChannelId::REQUESTS) hold.
//!
//! ```text
//! message = version kind id ttl body      version, kind: u8, ttl: varint, body: byte string
//! id      = start run count               start, count: varint, run: u64, fixed
//! ```
//!
//! `ttl` is how long the one who asks waits, in milliseconds, and 0 in an answer. An answer bears
//! the id of its request. What follows the body is left for later versions to use and skipped; a
//! kind that is not known is an error of that one message, and never of the channel.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::WireError;
use crate::RequestId;
use crate::limits::FAILURE_BYTES;

/// The version of the messages.
pub const VERSION: u8 = 1;

/// What a message on the channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Somebody asks.
    Request,
    /// The answer.
    Response,
    /// Why there is none.
    Failure,
}

impl Kind {
    /// The number that names it on the wire.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Failure => 3,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Failure,
            _ => return None,
        })
    }
}

/// A message on the channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Somebody asks.
    Request {
        /// The number of the request.
        id: RequestId,
        /// How long an answer is waited for, from when it was sent.
        ttl: Duration,
        /// What is asked.
        payload: Bytes,
    },
    /// The answer.
    Response {
        /// The number of the request.
        id: RequestId,
        /// The answer.
        payload: Bytes,
    },
    /// Why there is none.
    Failure {
        /// The number of the request.
        id: RequestId,
        /// The handler's own words, at most [`FAILURE_BYTES`] of them.
        text: String,
    },
}

/// Bytes that everything before the body takes, roughly.
const HEAD_BYTES: usize = 48;

#[derive(Serialize, Deserialize)]
struct Head {
    kind: u8,
    id: RequestId,
    ttl: u64,
}

impl Message {
    /// The bytes to send. A failure's text is cut where it is too long.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        let (kind, id, ttl, body) = match self {
            Self::Request { id, ttl, payload } => {
                let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
                (Kind::Request, id, ttl, &payload[..])
            }
            Self::Response { id, payload } => (Kind::Response, id, 0, &payload[..]),
            Self::Failure { id, text } => (Kind::Failure, id, 0, cut(text).as_bytes()),
        };
        let head = Head {
            kind: kind.number(),
            id: *id,
            ttl,
        };
        let mut bytes = Vec::with_capacity(body.len().saturating_add(HEAD_BYTES));
        bytes.push(VERSION);
        // Serialising into a growing vector can't fail for these types; an empty message would be
        // found out as malformed, never taken for another.
        let mut bytes = postcard::to_extend(&head, bytes)
            .and_then(|bytes| postcard::to_extend(&body.len(), bytes))
            .unwrap_or_default();
        bytes.extend_from_slice(body);
        bytes.into()
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`WireError`] if the bytes are no message of this version.
    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let (kind, head, rest) = head(bytes)?;
        let (body, _) = postcard::take_from_bytes::<&[u8]>(rest)
            .map_err(WireError::malformed("the body of a request"))?;
        let id = head.id;
        Ok(match kind {
            Kind::Request => Self::Request {
                id,
                ttl: Duration::from_millis(head.ttl),
                payload: bytes.slice_ref(body),
            },
            Kind::Response => Self::Response {
                id,
                payload: bytes.slice_ref(body),
            },
            Kind::Failure if body.len() > FAILURE_BYTES => {
                return Err(WireError::TooLarge {
                    what: "the text of a failure",
                    size: body.len(),
                    limit: FAILURE_BYTES,
                });
            }
            Kind::Failure => Self::Failure {
                id,
                text: std::str::from_utf8(body)
                    .map_err(|_| WireError::Invalid("the text of a failure is not UTF-8"))?
                    .to_owned(),
            },
        })
    }
}

/// What a message is, from its first bytes: all of it need not be there.
///
/// # Errors
/// [`WireError`] if it is no message of this version.
pub fn peek(bytes: &[u8]) -> Result<(Kind, RequestId), WireError> {
    head(bytes).map(|(kind, head, _)| (kind, head.id))
}

fn head(bytes: &[u8]) -> Result<(Kind, Head, &[u8]), WireError> {
    let rest = match bytes.split_first() {
        Some((&VERSION, rest)) => rest,
        Some(_) => return Err(WireError::Invalid("the request is of another version")),
        None => return Err(WireError::Length("a request")),
    };
    let (head, rest) = postcard::take_from_bytes::<Head>(rest)
        .map_err(WireError::malformed("the head of a request"))?;
    let kind = Kind::from_number(head.kind)
        .ok_or(WireError::Invalid("the kind of the request is not known"))?;
    Ok((kind, head, rest))
}

/// As much of a text as a failure holds, cut between characters.
fn cut(text: &str) -> &str {
    let mut end = FAILURE_BYTES.min(text.len());
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages() -> [Message; 3] {
        let id = RequestId::new(3, 0x0102_0304_0506_0708, 300);
        [
            Message::Request {
                id,
                ttl: Duration::from_secs(60),
                payload: Bytes::from_static(b"what time is it"),
            },
            Message::Response {
                id,
                payload: Bytes::new(),
            },
            Message::Failure {
                id,
                text: "no clock here".to_owned(),
            },
        ]
    }

    #[test]
    fn a_message_survives_the_way_through_bytes() {
        for message in messages() {
            assert_eq!(Message::decode(&message.to_bytes()), Ok(message));
        }
    }

    #[test]
    fn the_bytes_are_those_of_the_protocol() {
        let [_, response, _] = messages();
        assert_eq!(
            response.to_bytes()[..],
            [1, 2, 3, 8, 7, 6, 5, 4, 3, 2, 1, 0xac, 2, 0, 0]
        );
    }

    #[test]
    fn a_part_of_a_message_is_an_error_and_never_a_panic() {
        for message in messages() {
            let whole = message.to_bytes();
            for end in 0..whole.len() {
                assert!(Message::decode(&whole.slice(..end)).is_err());
            }
            for flipped in 0..whole.len() {
                let mut bytes = whole.to_vec();
                bytes[flipped] ^= 0xff;
                // Whatever it is now, reading it is safe.
                let _ = Message::decode(&Bytes::from(bytes));
            }
        }
    }

    #[test]
    fn what_a_later_version_adds_behind_the_body_is_skipped() {
        let [request, ..] = messages();
        let mut bytes = request.to_bytes().to_vec();
        bytes.extend_from_slice(b"more");
        assert_eq!(Message::decode(&bytes.into()), Ok(request));
    }

    #[test]
    fn the_head_can_be_read_before_the_rest_has_come() {
        for (message, kind) in
            messages()
                .into_iter()
                .zip([Kind::Request, Kind::Response, Kind::Failure])
        {
            let bytes = message.to_bytes();
            let id = RequestId::new(3, 0x0102_0304_0506_0708, 300);
            assert_eq!(peek(&bytes[..20.min(bytes.len())]), Ok((kind, id)));
        }
        assert!(peek(&[]).is_err());
        assert!(peek(&[VERSION + 1, 1, 1]).is_err());
        assert!(peek(&[VERSION, 9, 3, 8, 7, 6, 5, 4, 3, 2, 1, 1, 0]).is_err());
    }

    #[test]
    fn a_long_failure_is_cut_between_characters() {
        let text = "ü".repeat(FAILURE_BYTES);
        let id = RequestId::new(1, 1, 1);
        let cut = Message::decode(&Message::Failure { id, text }.to_bytes());
        let Ok(Message::Failure { text, .. }) = cut else {
            panic!("{cut:?} is no failure");
        };
        assert!(text.len() <= FAILURE_BYTES && text.chars().all(|c| c == 'ü'));
    }
}
