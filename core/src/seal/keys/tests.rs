use std::time::Duration;

use super::super::association::PHASES_AHEAD;
use super::*;
use crate::seal::{Phase, StartId};

const NOW: WallTime = WallTime(1_700_000_000_000);
const START: StartId = StartId([5; 8]);

fn entropy(n: u8) -> Entropy {
    Entropy::from_seed([n; 32])
}

fn identity(n: u8) -> Identity {
    Identity::from_seed([n; 32])
}

/// Two peers that have agreed on keys; the second has not used them.
fn agreed() -> [Keys; 2] {
    let (mut one, mut two) = (Keys::default(), Keys::default());
    agree(&mut one, &mut two, 1, NOW);
    [one, two]
}

/// The first begins and has the response; what they draw is of this round, and it is so late for the first.
fn agree(one: &mut Keys, two: &mut Keys, round: u8, now: WallTime) {
    let (first, second) = (identity(1), identity(2));
    assert!(one.begin(&mut entropy(2 * round - 1), now));
    let message = one.initiation(&first, &second.peer_id()).unwrap();
    let peer = first.peer_id();
    let mine = two.respond(&second, &peer, &message, &mut entropy(2 * round), NOW);
    let response = two.response(mine.unwrap()).unwrap();
    assert!(one.finish(&first, &second.peer_id(), &response, now));
}

fn seal(keys: &Keys, number: u64) -> Bytes {
    let of = keys.sending().unwrap();
    of.seal(START, PacketNumber(number), b"frames").unwrap()
}

fn open(keys: &mut Keys, packet: &Bytes, now: WallTime) -> Result<OpenedPacket, OpenError> {
    keys.open(packet, now)
}

/// The second, that has heard of the first that it uses the keys.
fn two_that_uses(one: &Keys, two: &mut Keys) -> Keys {
    open(two, &seal(one, 1), NOW).unwrap();
    two.clone()
}

#[test]
fn a_responder_seals_under_new_keys_once_they_were_used() {
    let [one, mut two] = agreed();
    assert!(two.sending().is_none());
    let opened = open(&mut two, &seal(&one, 1), NOW).unwrap();
    assert!(opened.confirms && !opened.known_start);
    assert!(two.sending().is_some());
    let again = open(&mut two, &seal(&one, 2), NOW).unwrap();
    assert!(!again.confirms && again.known_start);
}

#[test]
fn an_initiation_that_comes_again_has_the_same_answer() {
    let mut two = Keys::default();
    let (first, second) = (identity(1), identity(2));
    let mut one = Keys::default();
    one.begin(&mut entropy(1), NOW);
    let message = one.initiation(&first, &second.peer_id()).unwrap();
    let mut answer = |with: u8| {
        let peer = first.peer_id();
        let mine = two.respond(&second, &peer, &message, &mut entropy(with), NOW);
        (mine.unwrap(), two.associations.len())
    };
    assert_eq!(answer(2), answer(3));
}

#[test]
fn phases_follow_each_other_without_a_pause_and_old_ones_still_open() {
    let [mut one, mut two] = agreed();
    let early = seal(&one, 1);
    let mut late = Vec::new();
    let mut now = NOW;
    for phase in 1..=5 {
        now = now.plus(PHASE_TIME);
        assert!(one.next_phase(PacketNumber(phase * 10), now));
        assert!(!one.next_phase(PacketNumber(phase * 10 + 1), now));
        late.push(seal(&one, phase * 10));
    }
    open(&mut two, &late[4], now).unwrap();
    for packet in late.iter().chain([&early]) {
        assert_eq!(open(&mut two, packet, now).unwrap().frames, &b"frames"[..]);
    }
    let of = two.sending().unwrap();
    assert_eq!((of.receive.phase, of.old.len()), (Phase(5), 5));
    assert!(one.next_phase(PacketNumber(100), now.plus(PHASE_TIME)));
    assert!(!one.next_phase(PacketNumber(100 + PHASE_PACKETS - 1), now.plus(PHASE_TIME)));
    assert!(one.next_phase(PacketNumber(100 + PHASE_PACKETS), now.plus(PHASE_TIME)));
}

#[test]
fn keys_that_are_over_open_as_long_as_a_mailbox_may_hold_what_they_sealed() {
    let [mut one, mut two] = agreed();
    open(&mut two, &seal(&one, 1), NOW).unwrap();
    let waiting = seal(&one, 2);
    let month = NOW.plus(crate::limits::MESSAGE_TTL);
    for round in 2..6 {
        agree(&mut one, &mut two, round, NOW);
        open(&mut two, &seal(&one, 3), NOW).unwrap();
    }
    assert!(open(&mut two, &waiting, month).is_ok());
    assert!(two.associations.len() <= ASSOCIATIONS);
}

#[test]
fn a_packet_far_ahead_costs_little_and_changes_nothing() {
    let [one, mut two] = agreed();
    let mut bytes = seal(&one, 1).to_vec();
    bytes[9..13].copy_from_slice(&u32::MAX.to_le_bytes());
    let before = two.clone();
    let packet = Bytes::from(bytes.clone());
    assert_eq!(
        open(&mut two, &packet, NOW).err(),
        Some(OpenError::UnknownKeys)
    );
    bytes[9..13].copy_from_slice(&PHASES_AHEAD.to_le_bytes());
    assert_eq!(
        open(&mut two, &bytes.into(), NOW).err(),
        Some(OpenError::Forged)
    );
    assert_eq!(two, before);
}

#[test]
fn a_late_response_to_an_earlier_initiation_makes_no_keys() {
    let (first, second) = (identity(1), identity(2));
    let (mut one, mut two) = (Keys::default(), Keys::default());
    one.begin(&mut entropy(1), NOW);
    let message = one.initiation(&first, &second.peer_id()).unwrap();
    let mine = two
        .respond(&second, &first.peer_id(), &message, &mut entropy(2), NOW)
        .unwrap();
    let late = two.response(mine).unwrap();
    one.pending = None;
    one.begin(&mut entropy(3), NOW);
    assert!(!one.finish(&first, &second.peer_id(), &late, NOW));
    assert!(one.pending.is_some() && one.associations.is_empty());
}

/// Two peers that have agreed on keys twice, and the first has used the first set. It can seal under that
/// still, as before or from a copy of its store.
fn agreed_twice() -> [Keys; 2] {
    let [mut one, mut two] = agreed();
    open(&mut two, &seal(&one, 1), NOW).unwrap();
    let before = one.associations[0].send.clone();
    agree(&mut one, &mut two, 2, NOW);
    one.associations[0].send = before;
    [one, two]
}

/// Whether the first had left the keys of this set when its packet came to the second.
fn left([one, two]: &mut [Keys; 2], set: usize, start: StartId, number: u64) -> bool {
    let of = &one.associations[set];
    let packet = of.seal(start, PacketNumber(number), b"frames").unwrap();
    open(two, &packet, NOW).unwrap().left
}

#[test]
fn keys_are_left_when_others_are_used_by_whoever_has_lost_them() {
    let mut peers = agreed_twice();
    let after_a_loss = StartId([6; 8]);
    assert!(!left(&mut peers, 0, START, 2));
    assert!(!left(&mut peers, 1, after_a_loss, 1));
    // It waited somewhere meanwhile.
    assert!(left(&mut peers, 0, START, 3));
    assert!(!left(&mut peers, 1, after_a_loss, 2));
}

#[test]
fn who_has_gone_over_to_new_keys_can_not_read_what_it_sealed_under_the_old() {
    let [mut one, mut two] = agreed();
    let said = seal(&one, 1);
    open(&mut two, &said, NOW).unwrap();
    agree(&mut one, &mut two, 2, NOW);
    assert_eq!(one.associations[0].send.secret, Secret::new([0; 32]));
    open(&mut two, &seal(&one, 2), NOW).unwrap();
    assert_eq!(two.associations[0].send.secret, Secret::new([0; 32]));
}

#[test]
fn keys_are_kept_though_the_clock_was_far_back_when_others_took_their_place() {
    let [mut one, mut two] = agreed();
    let waiting = seal(&two_that_uses(&one, &mut two), 1);
    // Its host has no clock of its own, and has not asked for the time yet.
    agree(&mut one, &mut two, 2, WallTime(1_000_000));
    one.delete_old(NOW);
    assert!(open(&mut one, &waiting, NOW).is_ok());
}

#[test]
fn an_offer_that_nobody_took_goes_when_nothing_can_wait_for_it() {
    let [one, mut two] = agreed();
    assert!(two.offers(two.associations[0].mine, NOW));
    assert!(!two.offers(two.associations[0].mine, NOW.plus(KEY_AGE)));
    assert!(two.delete_old(NOW.plus(KEY_LIFE)));
    assert!(two.associations.is_empty());
    assert!(one.sending().is_some());
}

#[test]
fn keys_that_the_peer_alone_seals_under_are_kept_as_long_as_it_does() {
    let [one, mut two] = agreed_twice();
    let [old, new] = [0, 1].map(|set| one.associations[set].clone());
    let packet = |of: &Association, number| of.seal(START, PacketNumber(number), b"frames");
    open(&mut two, &packet(&new, 2).unwrap(), NOW).unwrap();
    assert_eq!(two.sending, Some(new.theirs));
    let day = Duration::from_secs(24 * 3_600);
    let mut now = NOW;
    for number in 3..43 {
        now = now.plus(day);
        open(&mut two, &packet(&old, number).unwrap(), now).unwrap();
        two.delete_old(now);
    }
    now = now.plus(KEY_LIFE);
    assert!(two.delete_old(now));
    assert!(open(&mut two, &packet(&old, 50).unwrap(), now).is_err());
}

#[test]
fn keys_to_which_a_peer_came_back_are_those_that_it_has_not_left() {
    let mut peers = agreed_twice();
    assert!(!left(&mut peers, 1, START, 2));
    assert!(!left(&mut peers, 0, START, 4));
    assert!(left(&mut peers, 1, START, 3));
    let next_start = StartId([6; 8]);
    assert!(!left(&mut peers, 0, next_start, 5));
}
