//! Each message between a peer and its relay.

use bytes::Bytes;
use outlive_core::wire::relay::{
    self, Binding, Class, DeliveryToken, FromRelay, GoodbyeReason, Refusal, Sender, Slot, ToRelay,
    sign_in_statement,
};
use outlive_core::{EnvelopeId, StoreId};

use crate::document::{Vectors, hex};
use crate::peers::{a, b, counting, identities};

const STORE: u8 = 0x60;

/// All that a change of the sign-in statement changes is here.
pub(crate) fn check_sign_in(vectors: &mut Vectors) {
    let (nonce, store) = (counting::<32>(0x40), StoreId(counting(STORE)));
    vectors.message(
        "hello",
        ToRelay::Hello {
            version: relay::VERSION,
            peer: a(),
        },
    );
    vectors.message(
        "challenge",
        FromRelay::Challenge {
            nonce,
            store,
            binding: Binding::None,
        },
    );
    let statement = sign_in_statement(&nonce, store, &a(), None);
    let expected = vectors.take("sign-in-statement");
    assert_eq!(hex(&statement), hex(&expected), "sign-in-statement");
    let proof = relay::prove(&identities()[0], &nonce, store, None);
    let ToRelay::Proof { signature } = &proof else {
        panic!("a proof is a Proof");
    };
    assert_eq!(
        relay::check_proof(&a(), &nonce, store, None, signature),
        Ok(())
    );
    vectors.message("proof", proof);
    vectors.message("welcome", FromRelay::Welcome { max_ttl: 2_592_000 });
}

pub(crate) fn check_envelopes(vectors: &mut Vectors) {
    let packet = Bytes::from_static(b"packet");
    for (name, envelope, class, ttl) in [
        ("submit", 7, Class::Keep, 2_592_001),
        ("submit-newest-only", 8, Class::NewestOnly, 60),
        ("submit-now-or-never", 9, Class::NowOrNever, 0),
    ] {
        vectors.message(
            name,
            ToRelay::Submit {
                envelope: EnvelopeId(envelope),
                to: b(),
                class,
                ttl,
                packet: packet.clone(),
            },
        );
    }
    let envelope = EnvelopeId(7);
    let accepted = FromRelay::Accepted { envelope };
    vectors.message("accepted", accepted.clone());
    vectors.message(
        "refused",
        FromRelay::Refused {
            envelope: EnvelopeId(8),
            reason: Refusal::MailboxFull,
        },
    );
    for (name, envelope) in [("deliver", Some(EnvelopeId(1_000))), ("deliver-now", None)] {
        vectors.message(
            name,
            FromRelay::Deliver {
                from: a().into(),
                envelope,
                packet: packet.clone(),
            },
        );
    }
    vectors.message(
        "acknowledge",
        ToRelay::Acknowledge {
            from: a().into(),
            envelopes: vec![EnvelopeId(1_000), EnvelopeId(1_001)],
        },
    );
    vectors.message("redeliver", ToRelay::Redeliver { from: a().into() });
    vectors.message(
        "park",
        ToRelay::Park {
            from: a().into(),
            envelopes: vec![EnvelopeId(1_000)],
        },
    );
    let (token, slot) = (
        DeliveryToken::from_bytes(counting(0x80)),
        Slot(counting(0xa0)),
    );
    let tokens = vec![token.hash()];
    vectors.message(
        "accept-unidentified",
        ToRelay::AcceptUnidentified { tokens },
    );
    let version = relay::VERSION;
    vectors.message("hello-unidentified", ToRelay::HelloUnidentified { version });
    vectors.message(
        "welcome-unidentified",
        FromRelay::WelcomeUnidentified {
            store: StoreId(counting(STORE)),
            max_ttl: 2_592_000,
        },
    );
    vectors.message(
        "submit-unidentified",
        ToRelay::SubmitUnidentified {
            envelope: EnvelopeId(7),
            to: b(),
            token,
            slot,
            class: Class::Keep,
            ttl: 2_592_001,
            packet: packet.clone(),
        },
    );
    vectors.message(
        "deliver-unidentified",
        FromRelay::Deliver {
            from: Sender::Slot(slot),
            envelope: Some(EnvelopeId(1_002)),
            packet: packet.clone(),
        },
    );
    vectors.message("watch", ToRelay::Watch { peers: vec![b()] });
    let presence = |online| FromRelay::Presence { peer: b(), online };
    vectors.message("presence", presence(true));
    let refused = |reason| FromRelay::Refused { envelope, reason };
    let refusals = [
        Refusal::MailboxFull,
        Refusal::TooLarge,
        Refusal::NotAllowed,
        Refusal::Unavailable,
        Refusal::Token,
    ];
    vectors.messages("refused-reasons", refusals.map(refused).into());
    let goodbyes = [
        GoodbyeReason::Replaced,
        GoodbyeReason::Draining,
        GoodbyeReason::Protocol,
        GoodbyeReason::Signature,
        GoodbyeReason::Version,
        GoodbyeReason::Busy,
    ];
    let goodbye = |reason| FromRelay::Goodbye { reason };
    vectors.messages("goodbye-reasons", goodbyes.map(goodbye).into());
    vectors.messages("websocket-message", vec![accepted, presence(false)]);
}
