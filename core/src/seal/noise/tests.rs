//! Our primitives under snow against the official vectors of the three patterns (from the cacophony
//! collection), and what the handshake promises.

use data_encoding::HEXLOWER_PERMISSIVE as HEX;

use super::*;

struct Vector {
    pattern: &'static str,
    initiator: [&'static str; 2],
    responder: [&'static str; 2],
    hash: &'static str,
    messages: &'static [(&'static str, &'static str)],
}

/// The prologue of all of them.
const PROLOGUE: &str = "4a6f686e2047616c74";

const IK: Vector = Vector {
    pattern: SHARED,
    initiator: [
        "e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1",
        "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a",
    ],
    responder: [
        "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893",
        "bbdb4cdbd309f1a1f2e1456967fe288cadd6f712d65dc7b7793d5e63da6b375b",
    ],
    hash: "48f3cb8bc9319da4ba1e9933991b1c4ed4034f1f126a76d3a1fbcfd7f94248d4",
    messages: &[
        (
            "4c756477696720766f6e204d69736573",
            "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79440b03ddc7aac5\
             123d06a1b23b71670e32e76c28239a7ca4ac8f784de7e44c1adbfc6e83fef7352a58d9d56157\
             400c0a737b1d171ce368229c7b752ac25b8faf4eca690f6d896f543be02c996ab2b86b76",
        ),
        (
            "4d757272617920526f746862617264",
            "95ebc60d2b1fa672c1f46a8aa265ef51bfe38e7ccb39ec5be34069f144808843d9b5a8927f0a\
             c9655ef76833bc7e5561f42e691ac8404efd6fbd6308b6a27c",
        ),
        (
            "462e20412e20486179656b",
            "2c256ed08fcd08c2980f954ee4beaccb61c9581340f5dd2fd1cf3b",
        ),
        (
            "4361726c204d656e676572",
            "d6033f70eee20945c7c9dba304e397ee3b284ff5e00fd9efb095d3",
        ),
        (
            "4a65616e2d426170746973746520536179",
            "a9c068ca5d8babf72560652d8e851adbfac35c8a66e810d560863173e96adf4cfe",
        ),
        (
            "457567656e2042f6686d20766f6e2042617765726b",
            "2a09d8f459e5927e40fdd2eddc99bdafb04e13a26f145cb5cfe9e6ba34c94331ebc17d5156",
        ),
    ],
};

const X: Vector = Vector {
    pattern: ONE_WAY,
    initiator: [
        "e61ef9919cde45dd5f82166404bd08e38bceb5dfdfded0a34c8df7ed542214d1",
        "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a",
    ],
    responder: [
        "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893",
        "",
    ],
    hash: "f781a940343a817adc2483932dd05e7036171cdcf1d0a0bf0cd869f7aa557c6a",
    messages: &[
        (
            "4c756477696720766f6e204d69736573",
            "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79448bc3b729d16d\
             3944f1bfae9fa98e0d306234bfadc44880f99a69c6e55b6c1458e9c9dacab3f29aac44b435c5\
             7dc436d0830ae461a4479228789a38085be55b13e0128564987994de842e73dd0a5c328b",
        ),
        (
            "4d757272617920526f746862617264",
            "aee89720731c98ccf15f4495ae3f6f2f7ed8e2164a1494c9e785b076e69cfc",
        ),
        (
            "462e20412e20486179656b",
            "c88787701dc4365fe9dee7c0f23d91afdc214a459eadbc9f1d0220",
        ),
        (
            "4361726c204d656e676572",
            "d784542b85444798fb7d5bd1317f61ad701b43dd63fe3503efb267",
        ),
        (
            "4a65616e2d426170746973746520536179",
            "fd60a2da59e84a83e247f291752c71036b01f5ca996d8c24f324bf9260b6809d02",
        ),
        (
            "457567656e2042f6686d20766f6e2042617765726b",
            "1897139789b0cf8063b7ae9eba73d1e49e753ab7bb3f19316e54d3e20c69f25e819789c85f",
        ),
    ],
};

const N: Vector = Vector {
    pattern: UNIDENTIFIED,
    initiator: [
        "",
        "893e28b9dc6ca8d611ab664754b8ceb7bac5117349a4439a6b0569da977c464a",
    ],
    responder: [
        "4a3acbfdb163dec651dfa3194dece676d437029c62a408b4c5ea9114246e4893",
        "",
    ],
    hash: "39a2ce8290b63e1e7c94fb9244cea84c645161c0dced1b3f5d0672cf4c6ee4e8",
    messages: &[
        (
            "4c756477696720766f6e204d69736573",
            "ca35def5ae56cec33dc2036731ab14896bc4c75dbb07a61f879f8e3afa4c79441b168ed8bbe8\
             220b52bbbde6593d109d78c299b567f6e69276efcf2659c39073",
        ),
        (
            "4d757272617920526f746862617264",
            "a7b5d1962001e9c4d965ea5f133941e9e6989094bcde637a582c34b954f34a",
        ),
        (
            "462e20412e20486179656b",
            "16ff2557d5d671abe58c88d2a31b58e3a494ab3a6498124be0ea3f",
        ),
        (
            "4361726c204d656e676572",
            "1a6e85b0ef71c38db2c2bf3ebef1d41dc93e26bea6899187d5633d",
        ),
        (
            "4a65616e2d426170746973746520536179",
            "00ad2b7d0a03a748d0aefd3accee7bbbcc0bb0ed64d685b2ee8af78997a0245e3f",
        ),
        (
            "457567656e2042f6686d20766f6e2042617765726b",
            "5631105c749b9550b27d7926dec0c5b83d4bf207688deccd51b50dd7fc9d5e337bba9c3177",
        ),
    ],
};

fn hex(text: &str) -> Vec<u8> {
    HEX.decode(text.as_bytes()).unwrap()
}

fn public(secret: &[u8]) -> Vec<u8> {
    let mut dh = X25519::new();
    dh.set(secret);
    dh.pubkey().to_vec()
}

fn vector_state(vector: &Vector, keys: [&str; 2], remote: Option<&[u8]>) -> HandshakeState {
    let (secret, ephemeral, prologue) = (hex(keys[0]), hex(keys[1]), hex(PROLOGUE));
    let resolver = Box::new(Resolver {
        seed: Secret::new([0; 32]),
    });
    let mut builder = Builder::with_resolver(vector.pattern.parse().unwrap(), resolver)
        .prologue(&prologue)
        .unwrap();
    if !secret.is_empty() {
        builder = builder.local_private_key(&secret).unwrap();
    }
    if !ephemeral.is_empty() {
        builder = builder.fixed_ephemeral_key_for_testing_only(&ephemeral);
    }
    match remote {
        Some(remote) => builder
            .remote_public_key(remote)
            .unwrap()
            .build_initiator()
            .unwrap(),
        None => builder.build_responder().unwrap(),
    }
}

fn check(vector: &Vector) {
    let theirs = public(&hex(vector.responder[0]));
    let mut sides = [
        vector_state(vector, vector.initiator, Some(&theirs)),
        vector_state(vector, vector.responder, None),
    ];
    let mut turn = 0;
    let mut messages = vector.messages.iter();
    while !sides[0].is_handshake_finished() {
        let (payload, ciphertext) = messages.next().unwrap();
        let sent = write(&mut sides[turn], &hex(payload)).unwrap();
        assert_eq!(HEX.encode(&sent), *ciphertext);
        assert_eq!(read(&mut sides[1 - turn], &sent).unwrap(), hex(payload));
        turn = 1 - turn;
    }
    for side in &sides {
        assert_eq!(HEX.encode(side.get_handshake_hash()), vector.hash);
    }
    let one_way = [ONE_WAY, UNIDENTIFIED].contains(&vector.pattern);
    let mut sides = sides.map(|side| side.into_transport_mode().unwrap());
    for (payload, ciphertext) in messages {
        let from = if one_way { 0 } else { turn };
        let mut sent = vec![0; payload.len() / 2 + 16];
        let length = sides[from].write_message(&hex(payload), &mut sent).unwrap();
        assert_eq!(HEX.encode(&sent[..length]), *ciphertext);
        turn = 1 - turn;
    }
}

#[test]
fn the_official_vector_of_the_shared_pattern_holds() {
    check(&IK);
}

#[test]
fn the_official_vector_of_the_one_way_pattern_holds() {
    check(&X);
}

#[test]
fn the_official_vector_of_the_pattern_that_hides_a_sender_holds() {
    check(&N);
}

fn identity(n: u8) -> Identity {
    Identity::from_seed([n; 32])
}

fn id(n: u8) -> PeerId {
    identity(n).peer_id()
}

fn seed(n: u8) -> Secret {
    Secret::new([n; 32])
}

#[test]
fn both_ends_of_a_handshake_have_the_same_keys() {
    let first = initiation(&identity(1), &id(2), &seed(3), Locator(10)).unwrap();
    let (second, theirs) = respond(&identity(2), &id(1), &seed(4), Locator(20), &first).unwrap();
    let ours = finish(&identity(1), &id(2), &seed(3), Locator(10), &second).unwrap();
    assert_eq!((ours.theirs, theirs.theirs), (Locator(20), Locator(10)));
    assert_eq!((&ours.send, &ours.receive), (&theirs.receive, &theirs.send));
    assert_ne!(ours.send, ours.receive);
}

#[test]
fn an_initiation_is_the_same_when_it_is_made_again() {
    let make = || initiation(&identity(1), &id(2), &seed(3), Locator(10)).unwrap();
    assert_eq!(make(), make());
}

#[test]
fn a_handshake_is_good_for_its_two_peers_and_direction_only() {
    let first = initiation(&identity(1), &id(2), &seed(3), Locator(10)).unwrap();
    assert!(respond(&identity(2), &id(3), &seed(4), Locator(20), &first).is_err());
    assert!(respond(&identity(3), &id(1), &seed(4), Locator(20), &first).is_err());
    assert!(respond(&identity(1), &id(2), &seed(4), Locator(20), &first).is_err());
    let (second, _) = respond(&identity(2), &id(1), &seed(4), Locator(20), &first).unwrap();
    assert!(finish(&identity(1), &id(2), &seed(5), Locator(10), &second).is_err());
    for at in 0..second.len() {
        let mut changed = second.clone();
        changed[at] ^= 1;
        assert!(finish(&identity(1), &id(2), &seed(3), Locator(10), &changed).is_err());
    }
    for at in 0..first.len() {
        let mut changed = first.clone();
        changed[at] ^= 1;
        let answer = respond(&identity(2), &id(1), &seed(4), Locator(20), &changed);
        assert!(answer.is_err(), "byte {at}");
    }
}

#[test]
fn a_one_way_packet_opens_for_its_recipient_from_its_sender_only() {
    let sealed = seal_one_way(&identity(1), &id(2), &seed(3), b"hello").unwrap();
    assert_eq!(sealed.len(), 5 + ONE_WAY_BYTES);
    assert_eq!(
        open_one_way(&identity(2), &id(1), &sealed).unwrap(),
        b"hello"
    );
    assert!(open_one_way(&identity(2), &id(3), &sealed).is_err());
    assert!(open_one_way(&identity(3), &id(1), &sealed).is_err());
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 0x80;
        assert!(
            open_one_way(&identity(2), &id(1), &changed).is_err(),
            "byte {at}"
        );
        assert!(open_one_way(&identity(2), &id(1), &sealed[..at]).is_err());
    }
}

#[test]
fn a_point_of_small_order_ends_an_exchange() {
    let mut dh = X25519::new();
    dh.set(&[9; 32]);
    let mut out = [0; 32];
    for point in [[0; 32], {
        let mut one = [0; 32];
        one[0] = 1;
        one
    }] {
        assert!(dh.dh(&point, &mut out).is_err());
    }
}
