use super::*;
use crate::StoreId;
use crate::limits::MAILBOX_RELAY_BYTES;

fn named(round: u64) -> Negotiation {
    Negotiation {
        round: Round(round),
        run: 0x0102_0304_0506_0708,
    }
}

fn mailbox(relay: &str) -> Mailbox {
    Mailbox {
        store: StoreId([7; 16]),
        relay: relay.to_owned(),
    }
}

fn signals() -> Vec<Signal> {
    vec![
        Signal::Offer(Offer {
            negotiation: named(300),
            restarts: None,
            sdp: "v=0".to_owned(),
        }),
        Signal::Offer(Offer {
            negotiation: named(u64::MAX),
            restarts: Some(ConnectionId {
                offer: named(2),
                answered: 7,
            }),
            sdp: String::new(),
        }),
        Signal::Answer(Answer {
            negotiation: named(300),
            own: Round(7),
            run: 0x1112_1314_1516_1718,
            sdp: "v=0".to_owned(),
        }),
        Signal::Candidate(Candidate {
            negotiation: named(300),
            run: 0x0102_0304_0506_0708,
            candidate: "candidate:1 1 udp 1 192.0.2.7 9 typ host".to_owned(),
        }),
        Signal::Decline(Decline {
            negotiation: named(3),
            above: Round(300),
        }),
        Signal::Withdraw(Withdraw {
            round: Round(9),
            declines: Some(named(8)),
        }),
        Signal::Addresses(Addresses {
            round: Round(1),
            heard: Some(Round(2)),
            addresses: vec![
                SocketAddr::from(([192, 0, 2, 7], 4433)),
                SocketAddr::from(([0xfe80, 0, 0, 0, 0, 0, 0, 1], 4433)),
            ],
            reply: true,
        }),
        Signal::Mailboxes(Mailboxes {
            mailboxes: vec![mailbox("wss://192.0.2.7"), mailbox("wss://relay.example")],
        }),
    ]
}

#[test]
fn a_signal_survives_the_way_through_bytes() {
    for signal in signals() {
        assert_eq!(Signal::decode(&signal.to_bytes()), Ok(Some(signal)));
    }
}

#[test]
fn the_bytes_are_those_of_the_protocol() {
    assert_eq!(
        signals()[0].to_bytes()[..],
        [
            1, 1, 0xac, 2, 8, 7, 6, 5, 4, 3, 2, 1, 0, 3, b'v', b'=', b'0'
        ]
    );
}

#[test]
fn a_part_of_a_signal_is_an_error_and_never_a_panic() {
    for signal in signals() {
        let whole = signal.to_bytes();
        for end in 0..whole.len() {
            assert!(Signal::decode(&whole[..end]).is_err());
        }
        for flipped in 0..whole.len() {
            let mut bytes = whole.to_vec();
            bytes[flipped] ^= 0xff;
            // Whatever it is now, reading it is safe.
            let _ = Signal::decode(&bytes);
        }
    }
}

#[test]
fn what_a_later_version_adds_is_skipped() {
    for signal in signals() {
        let mut bytes = signal.to_bytes().to_vec();
        bytes.extend_from_slice(b"more");
        assert_eq!(Signal::decode(&bytes), Ok(Some(signal)));
    }
    assert_eq!(Signal::decode(&[VERSION, 8, 1, 2, 3]), Ok(None));
    assert_eq!(
        Signal::decode(&[VERSION + 1, 1]),
        Err(WireError::Invalid("the signal is of another version"))
    );
}

#[test]
fn what_is_too_large_is_an_error() {
    let long = |n| "a".repeat(n);
    let sdp = |n| {
        Signal::Offer(Offer {
            negotiation: named(1),
            restarts: None,
            sdp: long(n),
        })
    };
    let candidate = |n| {
        Signal::Candidate(Candidate {
            negotiation: named(1),
            run: 1,
            candidate: long(n),
        })
    };
    let addresses = |n| {
        Signal::Addresses(Addresses {
            round: Round(1),
            heard: None,
            addresses: vec![SocketAddr::from(([192, 0, 2, 7], 4433)); n],
            reply: false,
        })
    };
    let mailboxes = |n| {
        Signal::Mailboxes(Mailboxes {
            mailboxes: vec![mailbox("wss://relay.example"); n],
        })
    };
    for (fits, more) in [
        (mailboxes(MAILBOXES), mailboxes(MAILBOXES + 1)),
        (sdp(SDP_BYTES), sdp(SDP_BYTES + 1)),
        (candidate(CANDIDATE_BYTES), candidate(CANDIDATE_BYTES + 1)),
        (addresses(ADDRESSES), addresses(ADDRESSES + 1)),
    ] {
        assert_eq!(Signal::decode(&fits.to_bytes()), Ok(Some(fits)));
        let decoded = Signal::decode(&more.to_bytes());
        assert!(
            matches!(decoded, Err(WireError::TooLarge { .. })),
            "{decoded:?}"
        );
    }
}

#[test]
fn a_log_line_does_not_tell_where_anybody_is() {
    for signal in signals() {
        let text = format!("{signal:?}");
        assert!(!text.contains("v=0") && !text.contains("192"), "{text}");
    }
}

#[test]
fn a_mailbox_at_no_address_is_an_error() {
    let at = |relay: &str| {
        let mailboxes = vec![mailbox(relay)];
        Signal::decode(&Signal::Mailboxes(Mailboxes { mailboxes }).to_bytes())
    };
    assert!(at(&"a".repeat(MAILBOX_RELAY_BYTES)).is_ok());
    for relay in [
        "",
        "wss://relay.example/\n",
        "wss://\u{e9}",
        "wss://me:secret@relay.example",
        "wss://relay.example/?key=secret",
        "wss://relay.example/#1",
        &"a".repeat(MAILBOX_RELAY_BYTES + 1),
    ] {
        assert_eq!(
            at(relay),
            Err(WireError::Invalid("a mailbox is at no address")),
            "{relay:?}"
        );
    }
}
