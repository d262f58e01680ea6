//! What the messages about files hold.

use bytes::Bytes;
use outlive_core::TransferId;
use outlive_core::wire::file::{FileInfo, FileMessage, StopReason};

use crate::document::{Vectors, hex};

pub(crate) fn check(vectors: &mut Vectors) {
    let mut transfer = [0; 16];
    for (byte, n) in transfer.iter_mut().zip(0xa0..) {
        *byte = n;
    }
    let transfer = TransferId(transfer);
    let content = Bytes::from_static(b"hi");
    for (name, message) in [
        (
            "file-begin",
            FileMessage::Begin(
                transfer,
                FileInfo {
                    name: "a.txt".to_owned(),
                    size: 300,
                    hash: [0xee; 32],
                },
            ),
        ),
        (
            "file-part",
            FileMessage::Part {
                transfer,
                offset: 298,
                bytes: content,
            },
        ),
        (
            "file-stop",
            FileMessage::Stop(transfer, StopReason::Changed),
        ),
        ("file-done", FileMessage::Done(transfer)),
    ] {
        let expected = vectors.take(name);
        assert_eq!(hex(&message.to_bytes()), hex(&expected), "{name}, encoded");
        let decoded = FileMessage::decode(&Bytes::from(expected));
        assert_eq!(decoded, Ok(Some(message)), "{name}, decoded");
    }
}
