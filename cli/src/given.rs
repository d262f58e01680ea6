//! What was given on the command line, where that is more than a number or a name.

use std::ffi::OsStr;
use std::fmt;
use std::path::Path;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command};
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

/// Parses what may hold a secret: where it is refused, it is not repeated.
#[derive(Clone)]
pub(crate) struct Unrepeated<T>(pub(crate) fn(&str) -> Result<T, String>);

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Unrepeated<T> {
    type Value = T;

    fn parse_ref(
        &self,
        command: &Command,
        argument: Option<&Arg>,
        value: &OsStr,
    ) -> Result<T, clap::Error> {
        let text = value.to_str().ok_or_else(|| "it is no text".to_owned());
        text.and_then(self.0).map_err(|reason| {
            let whose = argument.map_or_else(String::new, |of| format!(" for '{of}'"));
            let message = format!("invalid value{whose}: {reason}");
            command.clone().error(ErrorKind::ValueValidation, message)
        })
    }
}

/// Whether there may be a user and a password in an address: an `@` before the path, or a port that is
/// none, as where a password holds what begins a path.
fn may_hold_a_password(address: &str) -> bool {
    let Some((_, behind)) = address.split_once("://") else {
        // This is no address, and a password may be anywhere in it.
        return address.contains('@');
    };
    let authority = behind.split(['/', '?', '#']).next().unwrap_or(behind);
    let port = authority.rsplit_once(':').map(|(_, port)| port);
    let is_no_port = port.is_some_and(|port| !port.ends_with(']') && port.parse::<u16>().is_err());
    authority.contains('@') || is_no_port && behind.contains('@')
}

/// The address of a relay.
pub(crate) fn relay(text: &str) -> Result<String, String> {
    // Addresses are told in errors and logs, and given to others in contacts.
    if may_hold_a_password(text) {
        return Err(
            "a relay takes no user and no password; leave them out, with the `@`".to_owned(),
        );
    }
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
        .map_err(|error| format!("@{file} can't be read: {error:#}"))?;
    if line.len() > crate::secret::MAX_BYTES {
        return Err(format!(
            "the first line of @{file} is too long for a contact"
        ));
    }
    std::str::from_utf8(&line)
        .map_err(|_| "it is no text".to_owned())
        .and_then(contact_in)
        .map_err(|error| format!("in the first line of @{file}: {error}"))
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
