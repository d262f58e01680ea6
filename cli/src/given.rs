//! What was given on the command line, where that is more than a number or a name.

use std::fmt;
use std::path::Path;

use outlive::{Contact, ContactError, PeerId, TransportError};
use outlive_transports::WebSocketRelay;

/// Arguments that can't be right together, or lack something, in a way that clap can't know. The
/// process ends as when clap finds it.
#[derive(Debug)]
pub(crate) struct WrongUsage(String);

impl WrongUsage {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for WrongUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongUsage {}

/// The address of a relay.
pub(crate) fn relay(text: &str) -> Result<String, String> {
    match WebSocketRelay::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(TransportError::Address { reason, .. }) => Err(reason),
        Err(error) => Err(error.to_string()),
    }
}

/// A peer: its id, or a contact that names its relays too, or a file that holds either. A contact may
/// hold a token, which is a secret.
pub(crate) fn contact(text: &str) -> Result<Contact, String> {
    let Some(file) = text.strip_prefix('@') else {
        let contact = contact_in(text)?;
        if contact.token().is_some() {
            crate::output::say(
                "the token of this contact is on the command line, which others on this machine can read; give the contact as @FILE",
            );
        }
        return Ok(contact);
    };
    let line = crate::secret::first_line(Path::new(file))
        .map_err(|error| format!("the file can't be read: {error:#}"))?;
    if line.len() > crate::secret::MAX_BYTES {
        return Err("the first line of the file is too long for a contact".to_owned());
    }
    std::str::from_utf8(&line)
        .map_err(|_| "the first line of the file is no text".to_owned())
        .and_then(contact_in)
}

fn contact_in(text: &str) -> Result<Contact, String> {
    let text = text.trim();
    if text.contains(':') {
        let contact: Contact = text
            .parse()
            .map_err(|error: ContactError| error.to_string())?;
        for (number, address) in (1..).zip(contact.relays()) {
            relay(address).map_err(|error| format!("relay {number} of the contact: {error}"))?;
        }
        return Ok(contact);
    }
    let peer = text.parse::<PeerId>();
    peer.map(Contact::from).map_err(|error| error.to_string())
}
