//! Sealing, step by step: each value is computed from the text of the document, and then the code
//! has to come to the same.

use std::collections::BTreeMap;

use bytes::Bytes;
use outlive_core::seal::{
    Association, Chain, KIND_ONE_WAY, KIND_SEALED, KIND_UNIDENTIFIED, Keys, Locator, OneWay,
    PacketNumber, Phase, Secret, StartId, open_one_way, unwrap, wrap,
};
use outlive_core::wire::frame::{Frame, Handshake};
use outlive_core::wire::packet::PacketBuilder;
use outlive_core::{Entropy, Identity, OpenError, WallTime};

use crate::document::{Vectors, blocks, bytes, hex};
use crate::frames::TOKEN;
use crate::noise::{self, Key, Symmetric};
use crate::peers::{SEEDS, a, b, counting, identities};

const NOW: WallTime = WallTime(1_700_000_000_000);
const NUMBERS: [u64; 2] = [1, 300];
/// The first number of the next phase.
const LATER: u64 = 70_000;

fn starts() -> [StartId; 2] {
    [StartId(counting(0xa0)), StartId(counting(0xb0))]
}

/// What is in every packet of this section.
fn frames() -> Vec<u8> {
    let mut builder = PacketBuilder::new();
    assert!(builder.push(&Frame::Ping(TOKEN)));
    builder.finish()
}

fn key(secret: &Secret) -> Key {
    let bytes = postcard::to_allocvec(secret).expect("a secret encodes");
    bytes.try_into().expect("32 bytes")
}

fn secret(key: Key) -> Secret {
    postcard::from_bytes(&key).expect("32 bytes")
}

/// The secret half for exchanges, as RFC 8032 makes the one for signatures.
fn exchange_secret(seed: [u8; 32]) -> Key {
    ed25519_dalek::SigningKey::from_bytes(&seed).to_scalar_bytes()
}

fn exchange_keys() -> [(Key, Key); 2] {
    SEEDS.map(|from| {
        let secret = exchange_secret(counting(from));
        (secret, noise::public(secret))
    })
}

/// The ephemeral secret that is drawn from this seed.
fn ephemeral(seed: &Secret) -> Key {
    key(&Entropy::from_seed(key(seed)).secret())
}

/// What each side draws for the handshake: its ephemeral secret, and the name of its keys.
fn drawn() -> [(Key, Locator); 2] {
    let (mut of_a, mut of_b) = (entropy(1), entropy(2));
    let seed = of_a.secret();
    let of_a = (ephemeral(&seed), of_a.locator());
    let locator = of_b.locator();
    [of_a, (ephemeral(&of_b.secret()), locator)]
}

fn entropy(n: u8) -> Entropy {
    Entropy::from_seed([n; 32])
}

fn prologue(text: &[u8]) -> Vec<u8> {
    [text, a().as_bytes(), b().as_bytes()].concat()
}

fn compare(vectors: &mut Vectors, name: &str, value: &[u8]) {
    let expected = vectors.take(name);
    assert_eq!(hex(value), hex(&expected), "{name}");
}

pub(crate) fn check_keys(vectors: &mut Vectors) {
    compare(vectors, "peer-seed-b", &counting::<32>(SEEDS[1]));
    compare(vectors, "peer-key-b", b().as_bytes());
    for (name, (secret, public)) in ["a", "b"].iter().zip(exchange_keys()) {
        compare(vectors, &format!("exchange-secret-{name}"), &secret);
        compare(vectors, &format!("exchange-key-{name}"), &public);
    }
}

/// The messages of the handshake that A begins, and the keys of A and of B.
fn handshake(mut step: impl FnMut(&str, &[u8])) -> ([Vec<u8>; 2], [Key; 2]) {
    let [(secret_a, public_a), (secret_b, public_b)] = exchange_keys();
    let [(ephemeral_a, locator_a), (ephemeral_b, locator_b)] = drawn();
    let public_ephemeral_a = noise::public(ephemeral_a);
    let public_ephemeral_b = noise::public(ephemeral_b);
    step("ephemeral-a", &ephemeral_a);
    step("ephemeral-b", &ephemeral_b);
    let prologue = prologue(b"outlive session v1\0");
    step("handshake-prologue", &prologue);
    let mut state = Symmetric::new("Noise_IK_25519_ChaChaPoly_BLAKE2s", &prologue, &public_b);
    step("handshake-hash-start", &state.hash);

    let mut first = state.token(&public_ephemeral_a);
    step("exchange-es", &state.mix(ephemeral_a, &public_b));
    first.extend(state.encrypt(&public_a));
    step("exchange-ss", &state.mix(secret_a, &public_b));
    first.extend(state.encrypt(&locator_a.0.to_le_bytes()));
    step("handshake-1", &first);
    step("handshake-hash-1", &state.hash);
    step("handshake-chain-1", &state.chaining_key);

    let mut second = state.token(&public_ephemeral_b);
    step("exchange-ee", &state.mix(ephemeral_b, &public_ephemeral_a));
    step("exchange-se", &state.mix(ephemeral_b, &public_a));
    second.extend(state.encrypt(&locator_b.0.to_le_bytes()));
    step("handshake-2", &second);
    step("handshake-hash-2", &state.hash);
    step("handshake-chain-2", &state.chaining_key);

    let keys = state.split();
    step("chain-a", &keys[0]);
    step("chain-b", &keys[1]);
    // The other side of each exchange.
    assert_eq!(
        noise::shared(ephemeral_a, &public_ephemeral_b),
        noise::shared(ephemeral_b, &public_ephemeral_a)
    );
    assert_eq!(
        noise::shared(secret_a, &public_ephemeral_b),
        noise::shared(ephemeral_b, &public_a)
    );
    assert_eq!(
        noise::shared(secret_b, &public_ephemeral_a),
        noise::shared(ephemeral_a, &public_b)
    );
    ([first, second], keys)
}

/// What the code makes of the same draws: the keys of A and of B, and both messages.
fn agreed() -> ([Keys; 2], [Bytes; 2]) {
    let [of_a, of_b] = identities();
    let (mut one, mut two) = (Keys::default(), Keys::default());
    assert!(one.begin(&mut entropy(1), NOW));
    let first = one.initiation(&of_a, &b()).expect("it was begun");
    let mine = two
        .respond(&of_b, &a(), &first, &mut entropy(2), NOW)
        .expect("an initiation of A");
    let second = two.response(mine).expect("the answer");
    assert!(one.finish(&of_a, &b(), &second, NOW));
    ([one, two], [first, second])
}

pub(crate) fn check_handshake(vectors: &mut Vectors) {
    let (messages, keys) = handshake(|name, value| compare(vectors, name, value));
    let ([one, two], made) = agreed();
    assert_eq!(made.each_ref().map(|m| m.to_vec()), messages);
    let [of_a, of_b] = [&one, &two].map(|keys| &keys.associations[0]);
    assert_eq!([&of_a.send, &of_b.send].map(|c| key(&c.secret)), keys);
    let receive = [&of_b.receive, &of_a.receive];
    assert_eq!(receive.map(|c| key(&c.secret)), keys);
    let [message_1, message_2] = made.map(|message| Handshake { message });
    vectors.frame("initiation", Frame::Initiation(message_1));
    vectors.frame("response", Frame::Response(message_2));
}

fn derive(key: &Key, context: &[u8], detail: &[u8]) -> Key {
    *blake3::keyed_hash(key, &[context, detail].concat()).as_bytes()
}

fn header(to: Locator, phase: u32, start: StartId, number: u64) -> Vec<u8> {
    [
        &[2][..],
        &to.0.to_le_bytes(),
        &phase.to_le_bytes(),
        &start.0,
        &number.to_le_bytes(),
    ]
    .concat()
}

fn packet(phase_secret: &Key, header: &[u8], start: StartId, number: u64) -> Vec<u8> {
    let key = derive(phase_secret, b"outlive packet key v1\0", &start.0);
    [header, &noise::seal(&key, number, header, &frames())].concat()
}

fn open(keys: &mut Keys, packet: &[u8]) -> Result<Vec<u8>, OpenError> {
    let opened = keys.open(&Bytes::copy_from_slice(packet), NOW)?;
    Ok(opened.frames.to_vec())
}

pub(crate) fn check_packets(vectors: &mut Vectors) {
    compare(vectors, "frames", &frames());
    let (_, chains) = handshake(|_, _| {});
    let [(_, locator_a), (_, locator_b)] = drawn();
    let starts = starts();
    let ([mut one, mut two], _) = agreed();
    let secrets = chains.map(|chain| derive(&chain, b"outlive phase v1\0", &[]));
    let key = derive(&secrets[0], b"outlive packet key v1\0", &starts[0].0);
    compare(vectors, "phase-secret", &secrets[0]);
    compare(vectors, "packet-key", &key);

    let of_a = header(locator_b, 0, starts[0], NUMBERS[0]);
    let of_a = packet(&secrets[0], &of_a, starts[0], NUMBERS[0]);
    compare(vectors, "sealed-a", &of_a);
    assert_eq!(made(&one.associations[0], 0, NUMBERS[0]), of_a);
    assert_eq!(open(&mut two, &of_a), Ok(frames()));

    let of_b = header(locator_a, 0, starts[1], NUMBERS[1]);
    let of_b = packet(&secrets[1], &of_b, starts[1], NUMBERS[1]);
    compare(vectors, "sealed-b", &of_b);
    assert_eq!(made(&two.associations[0], 1, NUMBERS[1]), of_b);
    assert_eq!(open(&mut one, &of_b), Ok(frames()));

    let chain = derive(&chains[0], b"outlive next phase v1\0", &[]);
    let phase_secret = derive(&chain, b"outlive phase v1\0", &[]);
    compare(vectors, "next-chain", &chain);
    compare(vectors, "next-phase-secret", &phase_secret);
    let next = header(locator_b, 1, starts[0], LATER);
    let next = packet(&phase_secret, &next, starts[0], LATER);
    compare(vectors, "sealed-next", &next);
    let association = Association {
        send: Chain {
            phase: Phase(1),
            secret: secret(chain),
            ..one.associations[0].send.clone()
        },
        ..one.associations[0].clone()
    };
    assert_eq!(made(&association, 0, LATER), next);
    assert_eq!(open(&mut two, &next), Ok(frames()));
    // What the phase before sealed still opens.
    assert_eq!(open(&mut two, &of_a), Ok(frames()));
}

fn made(of: &Association, who: usize, number: u64) -> Vec<u8> {
    of.seal(starts()[who], PacketNumber(number), &frames())
        .expect("it fits")
        .to_vec()
}

pub(crate) fn check_one_way(vectors: &mut Vectors) {
    let [(secret_a, public_a), (_, public_b)] = exchange_keys();
    let ephemeral = ephemeral(&entropy(3).secret());
    compare(vectors, "ephemeral-one-way", &ephemeral);
    let number = (NOW.0 << 20) + 1;
    let start = starts()[0];
    let payload = [&start.0[..], &number.to_le_bytes(), &frames()].concat();
    compare(vectors, "one-way-payload", &payload);
    let prologue = prologue(b"outlive one-way v1\0");
    compare(vectors, "one-way-prologue", &prologue);
    let mut state = Symmetric::new("Noise_X_25519_ChaChaPoly_BLAKE2s", &prologue, &public_b);
    let mut packet = vec![KIND_ONE_WAY];
    packet.extend(state.token(&noise::public(ephemeral)));
    state.mix(ephemeral, &public_b);
    packet.extend(state.encrypt(&public_a));
    state.mix(secret_a, &public_b);
    packet.extend(state.encrypt(&payload));
    compare(vectors, "one-way", &packet);

    let [of_a, of_b] = identities();
    let sealed = OneWay::new(start).seal(&of_a, &b(), &frames(), &mut entropy(3), NOW);
    assert_eq!(sealed.expect("it fits"), packet);
    let opened = open_one_way(&of_b, &a(), &packet).expect("it is A's");
    assert_eq!(opened.start, start);
    assert_eq!(opened.number, PacketNumber(number));
    assert_eq!(opened.frames, frames());
}

/// A packet as A would seal it by itself for B, but with the exchange key of another.
fn in_the_name_of_a(secret: Key, payload: &[u8]) -> Vec<u8> {
    let [_, (_, public_b)] = exchange_keys();
    let ephemeral = ephemeral(&entropy(3).secret());
    let prologue = prologue(b"outlive one-way v1\0");
    let mut state = Symmetric::new("Noise_X_25519_ChaChaPoly_BLAKE2s", &prologue, &public_b);
    let mut packet = vec![KIND_ONE_WAY];
    packet.extend(state.token(&noise::public(ephemeral)));
    state.mix(ephemeral, &public_b);
    packet.extend(state.encrypt(&noise::public(secret)));
    state.mix(secret, &public_b);
    packet.extend(state.encrypt(payload));
    packet
}

pub(crate) fn check_wrapping(vectors: &mut Vectors) {
    let [_, (_, public_b)] = exchange_keys();
    let ephemeral = ephemeral(&entropy(4).secret());
    compare(vectors, "ephemeral-wrapping", &ephemeral);
    let prologue = [b"outlive unidentified v1\0", &b().as_bytes()[..]].concat();
    let mut state = Symmetric::new("Noise_N_25519_ChaChaPoly_BLAKE2s", &prologue, &public_b);
    let ([one, _], _) = agreed();
    let inside = made(&one.associations[0], 0, NUMBERS[0]);
    let mut packet = vec![KIND_UNIDENTIFIED];
    packet.extend(state.token(&noise::public(ephemeral)));
    state.mix(ephemeral, &public_b);
    packet.extend(state.encrypt(&[a().as_bytes(), &inside[..]].concat()));
    compare(vectors, "wrapped", &packet);

    let wrapped = wrap(&a(), &b(), &inside, &mut entropy(4));
    assert_eq!(wrapped.expect("it fits"), packet);
    let unwrapped = unwrap(&identities()[1], &packet);
    assert_eq!(unwrapped, Ok((a(), Bytes::from(inside))));
}

/// Who gets a packet that must not open, and as whose.
fn refused(name: &str, packet: &[u8]) -> Option<OpenError> {
    let ([_, mut two], _) = agreed();
    match packet.first() {
        Some(&KIND_SEALED) => open(&mut two, packet).err(),
        Some(&KIND_ONE_WAY) => open_one_way(&identities()[1], &a(), packet).err(),
        Some(&kind) => Some(OpenError::Kind(kind)),
        None => panic!("{name} is empty"),
    }
}

#[test]
fn what_the_document_says_does_not_open_does_not_open_for_that_reason() {
    let third = Identity::from_seed(counting(0x40));
    let (_, chains) = handshake(|_, _| {});
    let [(_, locator_a), (_, locator_b)] = drawn();
    let [start_a, start_b] = starts();
    let secrets = chains.map(|chain| derive(&chain, b"outlive phase v1\0", &[]));
    let first = header(locator_b, 0, start_a, 1);
    let of_a = packet(&secrets[0], &first, start_a, 1);
    let changed = |at: usize| {
        let mut packet = of_a.clone();
        packet[at] ^= 1;
        packet
    };
    let wrong = header(locator_b, 0, start_b, 300);
    let back = header(locator_a, 0, start_a, 1);
    let far = header(locator_b, 513, start_a, 1);
    let next = |chain: Key, _| derive(&chain, b"outlive next phase v1\0", &[]);
    let chain = (0..513).fold(chains[0], next);
    let far_secret = derive(&chain, b"outlive phase v1\0", &[]);
    let number = ((NOW.0 << 20) + 1).to_le_bytes();
    let payload = [&start_a.0[..], &number, &frames()].concat();
    let one_way = |from: &Identity, to| {
        OneWay::new(start_a)
            .seal(from, to, &frames(), &mut entropy(3), NOW)
            .expect("it fits")
            .to_vec()
    };
    let cases: [(&str, Vec<u8>, OpenError); 10] = [
        ("unopened-tag", changed(of_a.len() - 1), OpenError::Forged),
        ("unopened-number", changed(21), OpenError::Forged),
        (
            "unopened-direction",
            packet(&secrets[1], &wrong, start_b, 300),
            OpenError::Forged,
        ),
        (
            "unopened-locator",
            packet(&secrets[0], &back, start_a, 1),
            OpenError::UnknownKeys,
        ),
        (
            "unopened-phase",
            packet(&far_secret, &far, start_a, 1),
            OpenError::UnknownKeys,
        ),
        ("unopened-short", of_a[..44].to_vec(), OpenError::Short(44)),
        ("unopened-sender", one_way(&third, &b()), OpenError::Forged),
        (
            "unopened-impostor",
            in_the_name_of_a(exchange_secret(counting(0x40)), &payload),
            OpenError::Forged,
        ),
        (
            "unopened-recipient",
            one_way(&identities()[0], &third.peer_id()),
            OpenError::Forged,
        ),
        (
            "unopened-plain",
            [&[1][..], &frames()].concat(),
            OpenError::Kind(1),
        ),
    ];
    let mut document = blocks("vector-unopened");
    for (name, packet, error) in cases {
        let lines = document.remove(name);
        let lines = lines.unwrap_or_else(|| panic!("the document lacks the vector {name}"));
        assert_eq!(hex(&bytes(&lines)), hex(&packet), "{name}");
        assert_eq!(refused(name, &packet), Some(error), "{name}");
    }
    assert_eq!(document, BTreeMap::new(), "vectors that no test knows");
}
