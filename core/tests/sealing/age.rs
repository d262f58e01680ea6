//! Keys that have served for three days are replaced: who has copied them reads nothing that follows.

use std::time::Duration;

use outlive_core::limits::{KEY_AGE, KEY_AGE_LATER};
use outlive_core::link::LinkClass;
use outlive_core::seal::{KIND_ONE_WAY, KIND_SEALED, Keys, Locator};
use outlive_core::transport::Class;

use crate::world::{ALICE, BOB, Seen, World, id};

const HOUR: Duration = Duration::from_secs(3_600);

/// The one that begins: its id is the smaller one.
fn first() -> usize {
    if id(1) < id(2) { ALICE } else { BOB }
}

fn keys(world: &World, who: usize) -> Keys {
    let engine = world.peers[who].engine.as_ref().expect("it runs");
    engine.session().keys.clone()
}

fn sending(world: &World, who: usize) -> Locator {
    keys(world, who).sending.expect("keys")
}

/// Time passes in which neither says anything.
fn idle(world: &mut World, time: Duration) {
    world.now.wall = world.now.wall.plus(time);
}

/// Keys that the peer has as well, and seals under.
fn agree(world: &World) -> bool {
    let theirs = keys(world, BOB).sending().map(|of| of.theirs);
    keys(world, ALICE).sending == theirs
}

#[test]
fn who_copied_the_keys_of_both_reads_for_three_days() {
    for class in [World::relayed_class(), LinkClass::Direct] {
        let mut world = World::acquainted(class);
        let mut thief = [keys(&world, ALICE), keys(&world, BOB)];
        let mut reads = |world: &World, from: usize| {
            let of_messages = world.seen[from..]
                .iter()
                .filter(|seen| seen.packet[0] == KIND_SEALED);
            let opened = of_messages.map(|Seen { to, packet, .. }| {
                let opened = thief[*to].open(packet, world.now.wall);
                opened.is_ok()
            });
            opened.collect::<Vec<_>>()
        };
        let from = world.seen.len();
        idle(&mut world, KEY_AGE - HOUR);
        world.still_works();
        let before = reads(&world, from);
        assert!(!before.is_empty() && before.iter().all(|read| *read));

        idle(&mut world, 2 * HOUR);
        world.still_works();
        let from = world.seen.len();
        world.still_works();
        let after = reads(&world, from);
        assert!(!after.is_empty() && after.iter().all(|read| !read));
    }
}

#[test]
fn one_set_of_keys_is_made_and_nothing_shows_it() {
    for class in [World::relayed_class(), LinkClass::Direct] {
        let mut world = World::acquainted(class);
        for _ in 0..3 {
            let old = sending(&world, ALICE);
            let sets = keys(&world, ALICE).associations.len() + 1;
            idle(&mut world, KEY_AGE);
            let from = world.seen.len();
            world.still_works();
            let kinds = world.kinds(from);
            assert!(kinds.iter().all(|kind| *kind == KIND_SEALED), "{kinds:?}");
            assert_ne!(sending(&world, ALICE), old);
            assert!(agree(&world));
            for who in [ALICE, BOB] {
                assert_eq!(keys(&world, who).associations.len(), sets);
                assert_eq!(keys(&world, who).pending, None);
            }
        }
    }
}

#[test]
fn who_hears_first_begins_and_the_other_answers() {
    for sends in [ALICE, BOB] {
        let mut world = World::acquainted(World::relayed_class());
        idle(&mut world, KEY_AGE_LATER);
        world.send(sends, "after the weekend");
        world.settle();
        assert!(agree(&world));
        for who in [ALICE, BOB] {
            assert_eq!(keys(&world, who).associations.len(), 2);
            assert_eq!(keys(&world, who).pending, None);
        }
    }
}

#[test]
fn if_both_begin_each_direction_has_new_keys() {
    for class in [World::relayed_class(), LinkClass::Direct] {
        let mut world = World::acquainted(class);
        for _ in 0..5 {
            let old = [ALICE, BOB].map(|who| keys(&world, who).sending().map(|of| of.theirs));
            idle(&mut world, KEY_AGE_LATER);
            let from = world.seen.len();
            // What the two say crosses on its way.
            world.still_works();
            let kinds = world.kinds(from);
            assert!(kinds.iter().all(|kind| *kind == KIND_SEALED), "{kinds:?}");
            for who in [ALICE, BOB] {
                let keys = keys(&world, who);
                assert_ne!(keys.sending().map(|of| of.theirs), old[who]);
                assert_eq!(keys.pending, None);
            }
        }
    }
}

#[test]
fn two_who_say_nothing_replace_nothing() {
    let mut world = World::acquainted(World::relayed_class());
    world.pass(Duration::from_secs(60));
    let old = sending(&world, ALICE);
    let from = world.seen.len();
    idle(&mut world, KEY_AGE * 3);
    world.pass(Duration::from_secs(600));
    assert_eq!(world.seen.len(), from);
    assert_eq!(sending(&world, ALICE), old);
}

#[test]
fn a_day_later_the_peer_has_lost_its_keys() {
    for loser in [ALICE, BOB] {
        let mut world = World::acquainted(World::relayed_class());
        idle(&mut world, KEY_AGE_LATER);
        world.lose_store(loser);
        world.send(1 - loser, "do you know me?");
        world.settle();
        world.pass(Duration::from_secs(60));
        assert_eq!(world.heard[loser].last().unwrap(), "do you know me?");
        world.still_works();
        assert!(agree(&world));
    }
}

#[test]
fn a_store_from_before_the_new_keys_finds_back() {
    for restored in [ALICE, BOB] {
        for days in 1..8 {
            let mut world = World::acquainted(World::relayed_class());
            let backup = world.peers[restored].disk.clone();
            for _ in 0..days {
                idle(&mut world, KEY_AGE);
                world.still_works();
            }
            world.crash(restored);
            world.peers[restored].disk = backup;
            world.start(restored);
            world.bind(restored);
            world.finds_together();
            let old = [ALICE, BOB].map(|who| sending(&world, who));
            idle(&mut world, KEY_AGE_LATER);
            world.still_works();
            assert_ne!([ALICE, BOB].map(|who| sending(&world, who)), old);
        }
    }
}

#[test]
fn what_the_peer_says_under_the_old_keys_meanwhile_does_not_end_it() {
    let mut world = World::acquainted(LinkClass::Direct);
    let (begins, other) = (first(), 1 - first());
    let old = sending(&world, begins);
    idle(&mut world, KEY_AGE);
    world.send(begins, "has something to say");
    world.settle();
    // Neither ever stops: each word of the one crosses one of the other.
    for round in 0..40 {
        for who in [begins, other] {
            world.send(who, &format!("word {round}"));
            world.flush(who);
        }
        let wire: Vec<_> = world.wire.drain(..).collect();
        for Seen { to, packet, .. } in wire {
            world.deliver(to, packet);
        }
        world.listen();
        world.now.elapsed += Duration::from_millis(1);
    }
    assert_ne!(sending(&world, begins), old);
    assert!(agree(&world));
}

#[test]
fn what_is_lost_of_it_is_said_again() {
    for lost in 0..24 {
        let mut world = World::acquainted(LinkClass::Direct);
        let (begins, other) = (first(), 1 - first());
        let old = sending(&world, begins);
        idle(&mut world, KEY_AGE);
        let mut packets = 0;
        for round in 0..30 {
            // One way alone, so that nothing but acknowledgements comes back.
            world.send(begins, &format!("word {round}"));
            for _ in 0..4 {
                for who in [begins, other] {
                    world.flush_all(who);
                }
                world.listen();
                for Seen { to, packet, .. } in std::mem::take(&mut world.wire) {
                    packets += 1;
                    // Three in a row are lost.
                    if !(lost..lost + 3).contains(&packets) {
                        world.deliver(to, packet);
                    }
                }
            }
            world.pass(Duration::from_secs(1));
        }
        assert!(packets > 60, "{packets} packets");
        assert_ne!(sending(&world, begins), old, "lost: {lost}");
        assert!(agree(&world), "lost: {lost}");
        let heard = world.heard[other].last().map(String::as_str);
        assert_eq!(heard, Some("word 29"));
    }
}

/// A mailbox at a relay: of what matters in its newest form one packet waits.
#[derive(Default)]
struct Mailbox(Vec<Seen>);

impl Mailbox {
    fn put(&mut self, seen: Seen) {
        if seen.class == Class::NewestOnly {
            self.0.retain(|of| of.class != Class::NewestOnly);
        }
        if seen.class != Class::NowOrNever {
            self.0.push(seen);
        }
    }
}

/// One comes when the other has gone: it starts anew, reads what was left for it, and says what there is.
fn turn(world: &mut World, mailboxes: &mut [Mailbox; 2], who: usize, says: &str) {
    world.crash(who);
    world.start(who);
    world.bind(who);
    if !says.is_empty() {
        world.send(who, says);
    }
    for seen in std::mem::take(&mut mailboxes[who].0) {
        world.deliver(who, seen.packet);
        // It takes longer to read than to write.
        world.flush_all(who);
    }
    world.listen();
    world.flush_all(who);
    if !says.is_empty() {
        // Behind the word that what was left has come.
        world.send(who, says);
        world.flush_all(who);
    }
    // Only now is anybody told what it said: it was there for a moment.
    for seen in world.wire.drain(..) {
        mailboxes[seen.to].put(seen);
    }
    world.unbind(who);
}

#[test]
fn it_is_done_by_two_who_are_never_there_at_the_same_time() {
    for hours in [1, 30, 80] {
        let mut world = World::acquainted(World::relayed_class());
        world.unbind(ALICE);
        world.unbind(BOB);
        let old = sending(&world, ALICE);
        let mut mailboxes = <[Mailbox; 2]>::default();
        idle(&mut world, KEY_AGE);
        for round in 0..12 {
            let who = round % 2;
            turn(&mut world, &mut mailboxes, who, &format!("turn {round}"));
            let engine = world.peers[who].engine.as_ref().expect("it runs");
            let waiting = engine.session().out.values();
            let waiting: u64 = waiting.map(|out| out.next.0 - out.low.0).sum();
            assert_eq!(
                waiting, 2,
                "what was said the last time is not known to have come"
            );
            idle(&mut world, HOUR * hours);
        }
        assert_ne!(sending(&world, ALICE), old, "turns of {hours} h");
        for who in [ALICE, BOB] {
            assert_eq!(world.heard[who].len(), 11 + 2 * who);
        }
    }
}

#[test]
fn two_who_take_turns_and_have_nothing_to_say_fall_silent() {
    for hours in [1, 14, 30, 80, 200] {
        let mut world = World::acquainted(World::relayed_class());
        world.unbind(ALICE);
        world.unbind(BOB);
        let mut mailboxes = <[Mailbox; 2]>::default();
        idle(&mut world, KEY_AGE * 2);
        turn(&mut world, &mut mailboxes, ALICE, "a last word");
        for round in 1..14 {
            idle(&mut world, HOUR * hours);
            turn(&mut world, &mut mailboxes, round % 2, "");
        }
        assert!(
            mailboxes.iter().all(|of| of.0.is_empty()),
            "turns of {hours} h"
        );
    }
}

#[test]
fn a_first_contact_played_again_takes_no_offer_away() {
    let mut world = World::acquainted(LinkClass::Direct);
    let (begins, other) = (first(), 1 - first());
    let seen = world.seen.clone();
    let by_itself = |seen: &&Seen| seen.to == other && seen.packet[0] == KIND_ONE_WAY;
    let contact: Vec<_> = seen.iter().filter(by_itself).collect();
    assert!(!contact.is_empty());
    idle(&mut world, KEY_AGE);
    world.send(other, "has something to say");
    world.flush_all(other);
    let offers = |world: &World| {
        let keys = keys(world, other);
        keys.associations
            .iter()
            .find(|of| of.answer.is_some())
            .map(|of| of.mine)
    };
    while offers(&world).is_none() {
        let Seen { to, packet, .. } = world.wire.pop_front().expect("it goes on");
        world.deliver(to, packet);
        for who in [begins, other] {
            world.flush_all(who);
        }
    }
    let offered = offers(&world);
    world.now.elapsed += Duration::from_secs(3);
    for recorded in contact {
        world.deliver(other, recorded.packet.clone());
    }
    world.flush_all(other);
    assert_eq!(offers(&world), offered);
    world.settle();
    assert!(agree(&world) && keys(&world, other).sending == offered);
}

/// How old the keys are that a peer seals under.
fn age(world: &World, who: usize) -> Duration {
    let keys = keys(world, who);
    keys.sending().expect("keys").born.until(world.now.wall)
}

#[test]
fn no_keys_get_older_than_six_days_though_each_time_two_sets_are_made() {
    let mut world = World::acquainted(World::relayed_class());
    for _ in 0..60 {
        idle(&mut world, HOUR * 26);
        // What the two say crosses on its way.
        world.still_works();
        for who in [ALICE, BOB] {
            let age = age(&world, who);
            assert!(age <= KEY_AGE * 2 + HOUR * 27, "{age:?}");
        }
    }
}

#[test]
fn two_who_take_turns_have_no_old_keys_for_long() {
    for hours in [1, 14, 30, 80] {
        let mut world = World::acquainted(World::relayed_class());
        world.unbind(ALICE);
        world.unbind(BOB);
        let mut mailboxes = <[Mailbox; 2]>::default();
        for round in 0..80 {
            let who = round % 2;
            turn(&mut world, &mut mailboxes, who, "news");
            idle(&mut world, HOUR * hours);
            let age = age(&world, who);
            assert!(age <= KEY_AGE * 2 + HOUR * hours * 6, "{age:?}");
        }
    }
}

#[test]
fn what_waits_for_a_month_opens_however_often_keys_were_replaced_meanwhile() {
    let mut world = World::acquainted(World::relayed_class());
    world.send(ALICE, "waits");
    world.flush_all(ALICE);
    let waiting = world.wire.pop_front().expect("the message");
    for day in 0..30 {
        idle(&mut world, HOUR * 24);
        for who in [BOB, ALICE, BOB] {
            world.send(who, "meanwhile");
            world.settle();
        }
        let opened = keys(&world, BOB).open(&waiting.packet, world.now.wall);
        assert!(opened.is_ok(), "after {day} days");
    }
    let sets = keys(&world, BOB).associations.len();
    assert!(sets > 8, "{sets} sets of keys");
}

#[test]
fn a_recorded_beginning_takes_no_offer_away() {
    let mut world = World::acquainted(LinkClass::Direct);
    let (begins, other) = (first(), 1 - first());
    let from = world.seen.len();
    idle(&mut world, KEY_AGE);
    world.still_works();
    let recorded: Vec<_> = world.seen[from..].to_vec();
    idle(&mut world, KEY_AGE);
    world.send(begins, "has something to say");
    // Whatever the other does, the recording comes in between.
    for _ in 0..20 {
        for who in [begins, other] {
            world.flush_all(who);
        }
        world.listen();
        for Seen { to, packet, .. } in std::mem::take(&mut world.wire) {
            world.deliver(to, packet);
            // One that is not new is answered rarely.
            world.now.elapsed += Duration::from_secs(3);
            for old in recorded.iter().filter(|old| old.to == other) {
                world.deliver(other, old.packet.clone());
            }
            world.flush_all(other);
        }
    }
    assert!(agree(&world));
}

#[test]
fn a_clock_that_was_far_ahead_when_keys_were_made_keeps_them_no_longer() {
    let mut world = World::relayed();
    let then = world.now.wall;
    world.now.wall = then.plus(KEY_AGE * 400);
    for who in [ALICE, BOB] {
        world.bind(who);
        world.send(who, "hello");
    }
    world.settle();
    world.pass(Duration::from_secs(60));
    let old = sending(&world, ALICE);
    world.now.wall = then;
    world.still_works();
    world.still_works();
    assert_ne!(sending(&world, ALICE), old);
}
