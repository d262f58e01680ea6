//! What one person gives to another so that they can reach each other: a peer id, relays where its
//! mailbox may be, and perhaps a token that lets a sender go unnamed there. As text it is a URI, for a
//! message, a web page or a QR code:
//!
//! ```text
//!   outlive:PEERID?relay=wss%3A%2F%2Frelay.example&relay=ws%3A%2F%2F192.0.2.7%3A4400
//! ```
//!
//! The relays are hints: nothing is believed because a contact says so, and a wrong one costs no
//! more than a message that waits. A token is for those alone who are to have it.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::limits::{CONTACT_BYTES, CONTACT_RELAY_BYTES, CONTACT_RELAYS};
use crate::transport::{DeliveryToken, TokenError};
use crate::{PeerId, PeerIdError};

const SCHEME: &str = "outlive:";
const RELAY: &str = "relay=";
const TOKEN: &str = "token=";

/// Why a text is no contact. Places are counted in characters, from 1.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ContactError {
    /// It does not begin as a contact does.
    #[error("a contact begins with `outlive:`; copy it again, all of it")]
    Scheme,
    /// It is longer than a contact may be.
    #[error("a contact has at most {CONTACT_BYTES} characters, this text has {0}")]
    TooLong(usize),
    /// Its peer id is none.
    #[error(transparent)]
    Peer(#[from] PeerIdError),
    /// Something other than a relay or a token stands here, or a second token.
    #[error("at character {0} of the contact: only `relay=` and one `token=` are understood")]
    Parameter(usize),
    /// The token that begins here is none.
    #[error("at character {at} of the contact: {error}")]
    Token {
        /// Where it begins.
        at: usize,
        /// What is wrong with it.
        error: TokenError,
    },
    /// This character can't stand here as it is.
    #[error("character {0} of the contact has no place there; copy it again, all of it")]
    Character(usize),
    /// A `%` is followed by something else than a byte in hex that may be in an address.
    #[error("at character {0} of the contact: `%` is not followed by a byte of an address in hex")]
    Escape(usize),
    /// This relay, counted from 1, has an address that is none.
    #[error("relay {0} of the contact is no ws:// or wss:// address")]
    Relay(usize),
    /// This relay, counted from 1, has an address longer than one may be.
    #[error(
        "relay {0} of the contact has an address of more than {CONTACT_RELAY_BYTES} characters"
    )]
    RelayTooLong(usize),
    /// It names more relays than a contact may.
    #[error("a contact names at most {CONTACT_RELAYS} relays")]
    TooManyRelays,
}

/// A peer, and where it may be reached.
///
/// ```
/// # use outlive_core::{Contact, Identity};
/// let peer = Identity::from_seed([7; 32]).peer_id();
/// let contact = Contact::new(peer, ["wss://relay.example"])?;
/// assert_eq!(contact.to_string(), format!("outlive:{peer}?relay=wss%3A%2F%2Frelay.example"));
/// assert_eq!(contact.to_string().parse(), Ok(contact));
/// # Ok::<(), outlive_core::ContactError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contact {
    peer: PeerId,
    relays: Vec<String>,
    token: Option<DeliveryToken>,
}

impl Contact {
    /// A peer with the addresses of its relays, the best first.
    ///
    /// # Errors
    /// [`ContactError::Relay`], [`ContactError::RelayTooLong`], [`ContactError::TooManyRelays`], or
    /// [`ContactError::TooLong`].
    pub fn new<R: Into<String>>(
        peer: PeerId,
        relays: impl IntoIterator<Item = R>,
    ) -> Result<Self, ContactError> {
        let mut contact = Self::from(peer);
        for relay in relays {
            contact.add(relay.into())?;
        }
        contact.checked()
    }

    /// The peer.
    #[must_use]
    pub const fn peer(&self) -> PeerId {
        self.peer
    }

    /// The addresses of its relays, the best first.
    #[must_use]
    pub fn relays(&self) -> &[String] {
        &self.relays
    }

    /// With what lets a sender go unnamed at the peer's relay. Whoever has the contact has it too.
    ///
    /// # Errors
    /// [`ContactError::TooLong`].
    pub fn with_token(mut self, token: DeliveryToken) -> Result<Self, ContactError> {
        self.token = Some(token);
        self.checked()
    }

    /// What lets a sender go unnamed at the peer's relay, if the peer gave it out.
    #[must_use]
    pub const fn token(&self) -> Option<&DeliveryToken> {
        self.token.as_ref()
    }

    /// What stood there as it is grows when it is written anew.
    fn checked(self) -> Result<Self, ContactError> {
        match self.to_string().len() {
            length if length > CONTACT_BYTES => Err(ContactError::TooLong(length)),
            _ => Ok(self),
        }
    }

    fn add(&mut self, relay: String) -> Result<(), ContactError> {
        let number = self.relays.len() + 1;
        if self.relays.len() >= CONTACT_RELAYS {
            return Err(ContactError::TooManyRelays);
        }
        if relay.len() > CONTACT_RELAY_BYTES {
            return Err(ContactError::RelayTooLong(number));
        }
        let rest = relay
            .strip_prefix("wss://")
            .or_else(|| relay.strip_prefix("ws://"));
        let named = rest.is_some_and(|rest| rest.starts_with(|c| !matches!(c, '/' | '?' | '#')));
        if !named || !relay.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ContactError::Relay(number));
        }
        self.relays.push(relay);
        Ok(())
    }
}

impl From<PeerId> for Contact {
    /// A peer of which no relay is known.
    fn from(peer: PeerId) -> Self {
        Self {
            peer,
            relays: Vec::new(),
            token: None,
        }
    }
}

/// The characters that mean themselves in every part of a URI ([RFC 3986]).
///
/// [RFC 3986]: https://www.rfc-editor.org/rfc/rfc3986#section-2.3
const fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The further characters that may stand in a query as they are, but for `&`, which ends a value.
const fn allowed(byte: u8) -> bool {
    unreserved(byte)
        || matches!(byte, b'!' | b'$' | b'\''..=b',' | b'/' | b':'..=b';' | b'=' | b'?' | b'@')
}

impl fmt::Display for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.peer)?;
        let mut before = '?';
        for relay in &self.relays {
            write!(f, "{before}{RELAY}")?;
            for byte in relay.bytes() {
                if unreserved(byte) {
                    write!(f, "{}", char::from(byte))?;
                } else {
                    write!(f, "%{byte:02X}")?;
                }
            }
            before = '&';
        }
        match &self.token {
            Some(token) => write!(f, "{before}{TOKEN}{}", token.to_text()),
            None => Ok(()),
        }
    }
}

impl FromStr for Contact {
    type Err = ContactError;

    /// Space around it is not part of it: it comes with what is copied.
    fn from_str(text: &str) -> Result<Self, ContactError> {
        let text = text.trim();
        if text.len() > CONTACT_BYTES {
            return Err(ContactError::TooLong(text.chars().count()));
        }
        // Nothing outside ASCII has a place, so from here on bytes are characters.
        if let Some(at) = text.chars().position(|c| !c.is_ascii_graphic()) {
            return Err(ContactError::Character(at + 1));
        }
        let (scheme, rest) = text
            .split_at_checked(SCHEME.len())
            .ok_or(ContactError::Scheme)?;
        if !scheme.eq_ignore_ascii_case(SCHEME) {
            return Err(ContactError::Scheme);
        }
        let Some((peer, query)) = rest.split_once('?') else {
            return Ok(Self::from(rest.parse::<PeerId>()?));
        };
        let mut contact = Self::from(peer.parse::<PeerId>()?);
        let mut at = SCHEME.len() + peer.len() + 2;
        for parameter in query.split('&') {
            if let Some(value) = parameter.strip_prefix(RELAY) {
                contact.add(unescape(value, at + RELAY.len())?)?;
            } else if let Some(value) = parameter.strip_prefix(TOKEN)
                && contact.token.is_none()
            {
                let at = at + TOKEN.len();
                let token = value.parse();
                contact.token = Some(token.map_err(|error| ContactError::Token { at, error })?);
            } else {
                return Err(ContactError::Parameter(at));
            }
            at += parameter.len() + 1;
        }
        contact.checked()
    }
}

/// The text that `value` stands for, whose first character is the `at`-th of the contact.
fn unescape(value: &str, at: usize) -> Result<String, ContactError> {
    let mut plain = String::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let place = at + (value.len() - rest.len());
        match byte {
            b'%' => {
                let (byte, behind) = escaped(behind).ok_or(ContactError::Escape(place))?;
                plain.push(char::from(byte));
                rest = behind;
            }
            byte if allowed(byte) => {
                plain.push(char::from(byte));
                rest = behind;
            }
            _ => return Err(ContactError::Character(place)),
        }
    }
    Ok(plain)
}

/// The visible ASCII character behind a `%`, and what follows it.
fn escaped(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, rest) = bytes.split_first_chunk::<2>()?;
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    let byte = u8::try_from(high? * 16 + low?).ok()?;
    byte.is_ascii_graphic().then_some((byte, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Identity;

    fn peer(n: u8) -> PeerId {
        Identity::from_seed([n; 32]).peer_id()
    }

    #[test]
    fn space_around_a_contact_is_none_of_it() {
        let contact = Contact::from(peer(1));
        let text = contact.to_string();
        assert_eq!(format!("\n{text} \r\n").parse(), Ok(contact));
        let amid = format!("{} {}", &text[..20], &text[20..]);
        assert_eq!(amid.parse::<Contact>(), Err(ContactError::Character(21)));
    }

    fn parse(text: &str) -> Result<Contact, ContactError> {
        text.parse()
    }

    #[test]
    fn a_contact_survives_the_way_through_text() {
        for relays in [
            vec![],
            vec!["wss://relay.example"],
            vec!["ws://192.0.2.7:4400/v1?a=b&c=%20#d", "wss://[2001:db8::1]/"],
        ] {
            let contact = Contact::new(peer(1), relays.clone()).unwrap();
            let read = parse(&contact.to_string()).unwrap();
            assert_eq!(read, contact);
            assert_eq!(read.peer(), peer(1));
            assert_eq!(read.relays(), relays);
        }
    }

    #[test]
    fn a_token_goes_with_a_contact_and_is_not_shown() {
        let token = DeliveryToken::from_bytes([7; 32]);
        for relays in [vec![], vec!["wss://relay.example"]] {
            let contact = Contact::new(peer(1), relays).unwrap();
            let contact = contact.with_token(token.clone()).unwrap();
            let text = contact.to_string();
            assert!(text.ends_with(&format!("token={}", token.to_text())));
            assert_eq!(parse(&text).unwrap(), contact);
            assert!(!format!("{contact:?}").contains(&token.to_text()));
        }
        let id = peer(1).to_string();
        let first = parse(&format!(
            "outlive:{id}?token={}&relay=ws://host",
            token.to_text()
        ));
        assert_eq!(first.unwrap().token(), Some(&token));
        let short = parse(&format!("outlive:{id}?token=abc"));
        let at = 8 + id.len() + 1 + TOKEN.len() + 1;
        assert_eq!(
            short,
            Err(ContactError::Token {
                at,
                error: TokenError
            })
        );
        let text = token.to_text();
        let twice = parse(&format!("outlive:{id}?token={text}&token={text}"));
        assert!(
            matches!(twice, Err(ContactError::Parameter(_))),
            "{twice:?}"
        );
    }

    #[test]
    fn an_address_that_is_not_escaped_is_understood_all_the_same() {
        let text = format!("Outlive:{}?relay=ws://host:1/path", peer(1));
        assert_eq!(parse(&text).unwrap().relays(), ["ws://host:1/path"]);
    }

    #[test]
    fn a_typo_says_where_it_is() {
        let id = peer(1).to_string();
        let base = 8 + id.len();
        let with = |tail: &str| parse(&format!("outlive:{id}{tail}"));
        assert_eq!(parse(""), Err(ContactError::Scheme));
        assert_eq!(parse(&id), Err(ContactError::Scheme));
        assert_eq!(parse("outlive"), Err(ContactError::Scheme));
        assert_eq!(
            parse(&format!("outlive:{}!", &id[..51])),
            Err(ContactError::Peer(PeerIdError::Character(52)))
        );
        assert_eq!(
            parse("outlive:"),
            Err(ContactError::Peer(PeerIdError::Length(0)))
        );
        assert_eq!(with("?"), Err(ContactError::Parameter(base + 2)));
        assert_eq!(with("?rela=ws://h"), Err(ContactError::Parameter(base + 2)));
        assert_eq!(
            with("?relay=ws://h&"),
            Err(ContactError::Parameter(base + 15))
        );
        assert_eq!(with("?relay=h"), Err(ContactError::Relay(1)));
        assert_eq!(with("?relay=ws://"), Err(ContactError::Relay(1)));
        assert_eq!(
            with("?relay=ws://h&relay=http://h"),
            Err(ContactError::Relay(2))
        );
        assert_eq!(
            with("?relay=ws://h%2"),
            Err(ContactError::Escape(base + 14))
        );
        assert_eq!(
            with("?relay=ws://h%00"),
            Err(ContactError::Escape(base + 14))
        );
        assert_eq!(
            with("?relay=ws://h#x"),
            Err(ContactError::Character(base + 14))
        );
        assert_eq!(
            with("?relay=ws://h x"),
            Err(ContactError::Character(base + 14))
        );
        assert_eq!(
            with("?relay=ws://hé"),
            Err(ContactError::Character(base + 14))
        );
    }

    #[test]
    fn what_is_too_much_is_refused() {
        let relay = |n: usize| format!("ws://{}", "h".repeat(n - 5));
        let longest = CONTACT_RELAY_BYTES;
        assert!(Contact::new(peer(1), vec!["ws://h"; CONTACT_RELAYS]).is_ok());
        assert_eq!(
            Contact::new(peer(1), vec!["ws://h"; CONTACT_RELAYS + 1]),
            Err(ContactError::TooManyRelays)
        );
        assert!(Contact::new(peer(1), [relay(longest)]).is_ok());
        assert_eq!(
            Contact::new(peer(1), ["ws://h".to_owned(), relay(longest + 1)]),
            Err(ContactError::RelayTooLong(2))
        );
        let wide = format!("ws://h{}", "/".repeat(longest - 6));
        assert!(matches!(
            Contact::new(peer(1), vec![wide.clone(); CONTACT_RELAYS]),
            Err(ContactError::TooLong(_))
        ));
        // As it is, it is short enough; written anew it would not be.
        let text = format!("outlive:{}?relay={wide}&relay={wide}&relay={wide}", peer(1));
        assert!(text.len() <= CONTACT_BYTES);
        assert!(matches!(parse(&text), Err(ContactError::TooLong(_))));
        let text = format!("outlive:{}", "é".repeat(CONTACT_BYTES));
        assert_eq!(parse(&text), Err(ContactError::TooLong(CONTACT_BYTES + 8)));
    }

    proptest! {
        #[test]
        fn any_contact_survives_the_way_through_text(
            seed in any::<[u8; 32]>(),
            relays in proptest::collection::vec("wss?://[!\"$-.0->@-~][!-~]{0,80}", 0..=CONTACT_RELAYS),
        ) {
            let peer = Identity::from_seed(seed).peer_id();
            let contact = Contact::new(peer, relays).unwrap();
            prop_assert_eq!(parse(&contact.to_string()), Ok(contact));
        }

        #[test]
        fn any_text_is_a_contact_that_reads_the_same_again_or_an_error(
            tail in "(\\?|relay=|ws://|%|[0-9A-F]{2}|&|\\PC){0,20}",
        ) {
            let _ = parse(&tail);
            if let Ok(contact) = parse(&format!("outlive:{}{tail}", peer(1))) {
                prop_assert_eq!(parse(&contact.to_string()), Ok(contact));
            }
        }
    }
}
