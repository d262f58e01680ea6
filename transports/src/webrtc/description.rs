//! What the peer says in a description, read as `rtc` reads it.

use std::ops::RangeInclusive;

use outlive_core::transport::TransportError;

/// Bytes of the name that a peer gives its end of ICE. RFC 8839 allows 256; ours have 16, and those of
/// browsers and of aiortc 4 or 8. It is in each check, and checks go wherever the peer's candidates say.
const UFRAG_BYTES: RangeInclusive<usize> = 4..=32;

/// Bytes of the password beside it, as in RFC 8839. It is not sent.
const PASSWORD_BYTES: RangeInclusive<usize> = 22..=256;

/// The name and the value of a line that is an attribute: after empty lines, with spaces around what
/// it says.
pub(super) fn attribute(line: &str) -> Option<(&str, &str)> {
    let said = line.trim_start_matches('\r').strip_prefix("a=")?;
    said.trim().split_once(':')
}

/// Whether ICE can be done under the name and the password in a description.
pub(super) fn check_credentials(sdp: &str) -> Result<(), TransportError> {
    for (name, value) in sdp.split('\n').filter_map(attribute) {
        let allowed = match name {
            "ice-ufrag" => UFRAG_BYTES,
            "ice-pwd" => PASSWORD_BYTES,
            _ => continue,
        };
        if !allowed.contains(&value.len()) {
            return Err(TransportError::Description(format!(
                "its {name} has {} bytes, and may have {} to {}",
                value.len(),
                allowed.start(),
                allowed.end()
            )));
        }
    }
    Ok(())
}
