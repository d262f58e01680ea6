//! What the messages on the channel of signaling hold.

use std::net::SocketAddr;

use outlive_core::wire::WireError;
use outlive_core::wire::signal::{
    Addresses, Answer, Candidate, ConnectionId, Decline, Mailboxes, Offer, Signal, Withdraw,
};
use outlive_core::{Mailbox, Negotiation, Round, StoreId};

use crate::document::{Vectors, bytes, hex};

pub(crate) fn check(vectors: &mut Vectors) {
    let asked = Negotiation {
        round: Round((3 << 32) | 1),
        run: 0x0102_0304_0506_0708,
    };
    let answered = 0x1112_1314_1516_1718;
    for (name, signal) in [
        (
            "signal-offer",
            Signal::Offer(Offer {
                negotiation: asked,
                restarts: None,
                sdp: "v=0".to_owned(),
            }),
        ),
        (
            "signal-restart",
            Signal::Offer(Offer {
                negotiation: Negotiation {
                    round: asked.round.next(),
                    ..asked
                },
                restarts: Some(ConnectionId {
                    offer: asked,
                    answered,
                }),
                sdp: "v=0".to_owned(),
            }),
        ),
        (
            "signal-answer",
            Signal::Answer(Answer {
                negotiation: asked,
                own: Round(2 << 32),
                run: answered,
                sdp: "v=0".to_owned(),
            }),
        ),
        (
            "signal-candidate",
            Signal::Candidate(Candidate {
                negotiation: asked,
                run: answered,
                candidate: String::new(),
            }),
        ),
        (
            "signal-decline",
            Signal::Decline(Decline {
                negotiation: asked,
                above: Round((57 << 32) | 12),
            }),
        ),
        (
            "signal-withdraw",
            Signal::Withdraw(Withdraw {
                round: Round(2 << 32),
                declines: Some(asked),
            }),
        ),
        (
            "signal-addresses",
            Signal::Addresses(Addresses {
                round: Round((3 << 32) | 1),
                heard: Some(Round((2 << 32) | 5)),
                addresses: vec![
                    SocketAddr::from(([192, 0, 2, 7], 4433)),
                    SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7], 443)),
                ],
                reply: true,
            }),
        ),
        (
            "signal-mailboxes",
            Signal::Mailboxes(Mailboxes {
                mailboxes: vec![Mailbox {
                    store: StoreId([0x5a; 16]),
                    relay: "wss://relay.example".to_owned(),
                }],
            }),
        ),
    ] {
        let expected = vectors.take(name);
        assert_eq!(hex(&signal.to_bytes()), hex(&expected), "{name}, encoded");
        let decoded = Signal::decode(&expected);
        assert_eq!(decoded, Ok(Some(signal)), "{name}, decoded");
    }
    let later = vectors.take("signal-later");
    assert_eq!(
        Signal::decode(&later),
        Ok(None),
        "a kind of a later version"
    );
    let refused = Signal::decode(&bytes(&["02 01"]));
    let reason = WireError::Invalid("the signal is of another version");
    assert_eq!(refused, Err(reason));
}
