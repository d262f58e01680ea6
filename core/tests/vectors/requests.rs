//! What the messages on the channel of requests hold.

use std::time::Duration;

use bytes::Bytes;
use outlive_core::RequestId;
use outlive_core::wire::request::Message;

use crate::document::{Vectors, hex};

pub(crate) fn check(vectors: &mut Vectors) {
    let id = RequestId::new(3, 0x0102_0304_0506_0708, 300);
    for (name, message) in [
        (
            "request-asked",
            Message::Request {
                id,
                ttl: Duration::from_secs(60),
                payload: Bytes::from_static(b"time"),
            },
        ),
        (
            "request-answered",
            Message::Response {
                id,
                payload: Bytes::from_static(b"noon"),
            },
        ),
        (
            "request-failed",
            Message::Failure {
                id,
                text: "no clock".to_owned(),
            },
        ),
    ] {
        let expected = vectors.take(name);
        assert_eq!(hex(&message.to_bytes()), hex(&expected), "{name}, encoded");
        let decoded = Message::decode(&Bytes::from(expected));
        assert_eq!(decoded, Ok(message), "{name}, decoded");
    }
}
