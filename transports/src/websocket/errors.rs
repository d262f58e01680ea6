//! What went wrong while connecting, in words that say what to do.

use std::io;

use outlive_core::transport::TransportError;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::handshake::client::Response;

/// Characters of an HTTP answer that are passed on. The rest says nothing more.
const ANSWER_CHARS: usize = 120;

pub(super) fn connecting(address: &str, error: Error) -> TransportError {
    let unreachable = |reason: String| TransportError::Unreachable {
        address: address.to_owned(),
        reason,
    };
    let tls = match &error {
        Error::Io(error) => of_tls(error),
        _ => None,
    };
    match (tls, &error) {
        (Some(rustls::Error::InvalidCertificate(reason)), _) => TransportError::Untrusted {
            address: address.to_owned(),
            reason: certificate(reason),
        },
        (Some(rustls::Error::InvalidMessage(_)), _) => {
            unreachable("what answers there does not speak TLS; try ws://".to_owned())
        }
        (_, Error::Http(response)) => unreachable(answer(response)),
        (
            _,
            Error::Protocol(ProtocolError::HandshakeIncomplete | ProtocolError::HttparseError(_)),
        ) => unreachable(
            "what answers there is no relay, or takes no more connections of this address for now; if it \
             speaks TLS, use wss://"
                .to_owned(),
        ),
        (_, Error::Io(error)) => unreachable(error.to_string()),
        (_, error) => unreachable(error.to_string()),
    }
}

fn of_tls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn certificate(error: &rustls::CertificateError) -> String {
    use rustls::CertificateError as Bad;
    match error {
        // The second: one of the same name was trusted, but another key.
        Bad::UnknownIssuer | Bad::BadSignature => {
            "no authority that is trusted here issued it; name the one that did".to_owned()
        }
        Bad::Expired | Bad::ExpiredContext { .. } => "it has expired".to_owned(),
        Bad::NotValidYet | Bad::NotValidYetContext { .. } => {
            "it is not valid yet; is the clock of this machine right?".to_owned()
        }
        Bad::NotValidForName | Bad::NotValidForNameContext { .. } => {
            "it is for another name".to_owned()
        }
        other => other.to_string(),
    }
}

/// An HTTP answer that is no upgrade, with its first line if that is text.
fn answer(response: &Response) -> String {
    let body = response.body().as_deref().unwrap_or_default();
    let line: String = String::from_utf8_lossy(body)
        .lines()
        .next()
        .unwrap_or_default()
        .chars()
        // What a stranger says has no business in our terminal.
        .filter(|c| !c.is_control() && *c != char::REPLACEMENT_CHARACTER)
        .take(ANSWER_CHARS)
        .collect();
    match (response.status(), line.trim()) {
        (status, "") => format!("it answered {status}"),
        (status, line) => format!("it answered {status}: {line}"),
    }
}

#[cfg(test)]
mod tests {
    use tokio_tungstenite::tungstenite::http;

    use super::*;

    #[test]
    fn an_answer_of_a_stranger_is_cut_and_cleaned() {
        let body = format!("no \x1b[2J{}\nmore", "x".repeat(1_000));
        let response = http::Response::builder()
            .status(503)
            .body(Some(body.into_bytes()))
            .expect("a response");
        let text = answer(&response);
        assert!(text.starts_with("it answered 503 Service Unavailable: no [2Jxxx"));
        assert!(text.len() < 200 && !text.contains('\x1b'));
    }
}
