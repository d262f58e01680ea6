mod located;

use super::*;
use crate::limits::{DIRECT_AGAIN_MOST, STEADY_TIME};

fn at(seconds: u64) -> Now {
    Now::default().after(Duration::from_secs(seconds))
}

fn address(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 4433))
}

fn rendezvous(start: u32) -> Rendezvous {
    Rendezvous::new(
        Round::at_start(start),
        Entropy::from_seed([start as u8; 32]),
    )
}

fn told(round: u64, addresses: &[SocketAddr], reply: bool) -> Addresses {
    Addresses {
        round: Round(round),
        heard: None,
        addresses: addresses.to_vec(),
        reply,
    }
}

/// What is said and dialed.
fn drain(rendezvous: &mut Rendezvous) -> (Vec<Addresses>, Vec<Vec<SocketAddr>>) {
    let (mut said, mut dialed) = (Vec::new(), Vec::new());
    while let Some(output) = rendezvous.poll() {
        match output {
            RendezvousOutput::Send {
                signal: Signal::Addresses(addresses),
                ..
            } => said.push(addresses),
            RendezvousOutput::Send { signal, .. } => panic!("{signal:?} is of a negotiation"),
            RendezvousOutput::Dial(addresses) => dialed.push(addresses),
        }
    }
    (said, dialed)
}

/// Carries what both say until there is nothing more. Returns what each dialed.
fn exchange(ends: &mut [Rendezvous; 2], now: Now) -> [Vec<Vec<SocketAddr>>; 2] {
    let mut dialed = [Vec::new(), Vec::new()];
    for _ in 0..20 {
        let mut quiet = true;
        for from in 0..2 {
            let (said, dials) = drain(&mut ends[from]);
            dialed[from].extend(dials);
            for signal in said {
                quiet = false;
                ends[1 - from].receive(signal, now);
            }
        }
        if quiet {
            return dialed;
        }
    }
    panic!("they talk for ever");
}

/// Two that know where they are and want each other.
fn met() -> [Rendezvous; 2] {
    let mut ends = [rendezvous(1), rendezvous(2)];
    for (end, last) in ends.iter_mut().zip([1, 2]) {
        end.located(vec![address(last)], at(0));
        end.want(at(0));
    }
    let dialed = exchange(&mut ends, at(0));
    assert_eq!(dialed, [vec![vec![address(2)]], vec![vec![address(1)]]]);
    ends
}

#[test]
fn two_that_want_each_other_dial_each_other_at_once() {
    met();
}

#[test]
fn who_is_asked_answers_and_dials_though_it_did_not_want_to() {
    let mut ends = [rendezvous(1), rendezvous(2)];
    for (end, last) in ends.iter_mut().zip([1, 2]) {
        end.located(vec![address(last)], at(0));
    }
    let dialed = exchange(&mut ends, at(0));
    assert!(dialed.iter().all(Vec::is_empty));
    ends[0].want(at(0));
    let dialed = exchange(&mut ends, at(0));
    assert_eq!(dialed, [vec![vec![address(2)]], vec![vec![address(1)]]]);
}

#[test]
fn a_peer_is_dialed_before_our_own_addresses_are_known() {
    let mut ends = [rendezvous(1), rendezvous(2)];
    ends[1].located(vec![address(2)], at(0));
    ends[0].want(at(0));
    let dialed = exchange(&mut ends, at(0));
    assert_eq!(dialed, [vec![vec![address(2)]], vec![]]);
    // Known now, they are told, and the peer dials too.
    ends[0].located(vec![address(1)], at(2));
    let [_, dialed] = exchange(&mut ends, at(2));
    assert_eq!(dialed, [[address(1)]]);
}

#[test]
fn what_is_stale_changes_nothing() {
    let mut peer = rendezvous(1);
    peer.want(at(0));
    drain(&mut peer);
    peer.receive(told(5, &[address(5)], false), at(1));
    assert_eq!(drain(&mut peer).1, [[address(5)]]);
    for round in [5, 4, 1] {
        peer.receive(told(round, &[address(9)], true), at(10 + round));
        let (_, dialed) = drain(&mut peer);
        assert_eq!(dialed, [[]; 0]);
    }
    assert_eq!(peer.theirs, Theirs::At(vec![address(5)]));
}

#[test]
fn a_peer_that_lost_its_state_is_heard_again() {
    let [first, mut lost] = met();
    let mut ends = [first, rendezvous(0)];
    assert!(lost.own.is_after(ends[1].own));
    ends[1].located(vec![address(7)], at(20));
    ends[1].want(at(20));
    let [dialed, _] = exchange(&mut ends, at(20));
    assert_eq!(dialed.last(), Some(&vec![address(7)]));
    // What it had said before comes late, and does not count.
    lost.located(vec![address(8)], at(21));
    let (late, _) = drain(&mut lost);
    ends[0].receive(late[0].clone(), at(25));
    assert_eq!(ends[0].theirs, Theirs::At(vec![address(7)]));
    exchange(&mut ends, at(25));
}

#[test]
fn a_link_that_ends_is_sought_again_at_once_and_from_both_ends() {
    let mut ends = met();
    for end in &mut ends {
        end.linked(at(1));
    }
    let later = at(1 + STEADY_TIME.as_secs());
    // Only one of them has noticed.
    ends[0].unlinked(later);
    let dialed = exchange(&mut ends, later);
    assert_eq!(dialed, [vec![vec![address(2)]], vec![vec![address(1)]]]);
}

#[test]
fn a_peer_that_slept_is_found_by_whichever_end_tries_first() {
    for sleeper in 0..2 {
        let mut ends = met();
        for end in &mut ends {
            end.linked(at(1));
        }
        // It sleeps: the other notices, asks and dials again and again, and nobody hears.
        let awake = 1 - sleeper;
        ends[awake].unlinked(at(100));
        let mut now = at(100);
        let mut tries = 0;
        while now.elapsed < Duration::from_secs(4 * 3_600) {
            let (_, dialed) = drain(&mut ends[awake]);
            if !dialed.is_empty() {
                tries += 1;
                now.elapsed += Duration::from_secs(5);
                ends[awake].dial_failed(now);
            }
            let next = ends[awake].deadline().expect("it never gives up");
            assert!(next <= now.elapsed + DIRECT_AGAIN_MOST);
            now.elapsed = next;
            ends[awake].tick(now);
        }
        assert!(tries > 30 && tries < 200, "{tries} tries");
        // It wakes, and does not know yet that its link is gone: the next question tells it.
        let dialed = exchange(&mut ends, now);
        assert!(dialed.iter().all(|dialed| dialed.len() == 1), "{dialed:?}");
    }
}

#[test]
fn links_that_die_young_are_sought_with_growing_waits() {
    let [mut end, _] = met();
    let mut now = at(1);
    let mut waits = Vec::new();
    for _ in 0..8 {
        end.linked(now);
        now.elapsed += Duration::from_millis(100);
        end.unlinked(now);
        let next = end.deadline().expect("it will be sought again");
        waits.push(next - now.elapsed);
        now.elapsed = next;
        end.tick(now);
        drain(&mut end);
    }
    assert!(waits[7] > waits[0] * 20, "{waits:?}");
}

#[test]
fn who_forbids_direct_links_is_neither_told_of_nor_asked_for_ever() {
    let mut ends = met();
    exchange(&mut ends, at(1));
    ends[0].forbid();
    let (said, _) = drain(&mut ends[0]);
    assert_eq!(said.len(), 1);
    assert_eq!((&said[0].addresses[..], said[0].reply), (&[][..], false));
    ends[1].receive(said[0].clone(), at(2));
    ends[1].dial_failed(at(5));
    assert_eq!(ends[1].deadline(), None);
    assert_eq!(drain(&mut ends[1]), (vec![], vec![]));
    // It is not told where we are when it asks, nor dialed.
    ends[1].wake(at(10));
    ends[0].located(vec![address(3)], at(10));
    let (asked, _) = drain(&mut ends[1]);
    ends[0].receive(asked[0].clone(), at(10));
    let (said, dialed) = drain(&mut ends[0]);
    assert!(dialed.is_empty() && said.iter().all(|said| said.addresses.is_empty()));
    // Allowed again, it says so.
    ends[0].allow();
    let [_, dialed] = exchange(&mut ends, at(20));
    assert_eq!(dialed, [[address(3)]]);
}

#[test]
fn whatever_a_hostile_peer_says_it_is_dialed_once_a_second_and_nowhere_else() {
    let mut peer = rendezvous(1);
    peer.located(vec![address(1)], at(0));
    peer.want(at(0));
    drain(&mut peer);
    let nowhere = [
        SocketAddr::from(([0, 0, 0, 0], 1)),
        SocketAddr::from(([255, 255, 255, 255], 1)),
        SocketAddr::from(([224, 0, 0, 1], 1)),
        SocketAddr::from(([192, 0, 2, 1], 0)),
        SocketAddr::from(([0xff02, 0, 0, 0, 0, 0, 0, 1], 1)),
        SocketAddr::from(([0_u16; 8], 1)),
    ];
    let mut now = at(1);
    let mut dials = 0;
    for round in 0..10_000_u64 {
        let mut addresses = vec![address(round as u8), address((round >> 8) as u8)];
        addresses.extend(nowhere);
        let round = [round + 10, u64::MAX, 1 << 63, round << 40][round as usize % 4];
        let mut signal = told(round, &addresses, round % 3 != 0);
        signal.heard = Some(Round(round.wrapping_mul(31)));
        peer.receive(signal, now);
        peer.tick(now);
        let (said, dialed) = drain(&mut peer);
        assert!(said.len() <= 1, "one word for one word");
        for addresses in &dialed {
            assert!(addresses.iter().all(|a| !nowhere.contains(a)) && addresses.len() <= 2);
        }
        dials += dialed.len();
        now.elapsed += Duration::from_millis(10);
    }
    assert!(dials <= 101, "{dials} dials in 100 s");
    let too_many = vec![address(1); ADDRESSES + 1];
    peer.receive(told(1, &too_many, true), now);
    assert_eq!(drain(&mut peer), (vec![], vec![]));
}

#[test]
fn a_peer_is_dialed_where_others_say_that_it_is_before_it_has_said_so_itself() {
    let mut one = rendezvous(1);
    one.given(vec![address(9)], at(1));
    assert_eq!(drain(&mut one).1, Vec::<Vec<_>>::new(), "nothing is wanted");
    one.want(at(1));
    assert_eq!(drain(&mut one).1, [[address(9)]]);
    one.dial_failed(at(2));
    one.receive(told(1, &[address(2), address(9)], false), at(5));
    assert_eq!(drain(&mut one).1, [[address(9), address(2)]]);
    one.dial_failed(at(10));
    one.given(vec![address(8)], at(10));
    assert_eq!(drain(&mut one).1, [[address(8), address(2), address(9)]]);
    // It does not want to be found.
    one.receive(told(2, &[], false), at(20));
    one.dial_failed(at(21));
    one.given(vec![address(7)], at(22));
    one.tick(at(1_000));
    assert_eq!(drain(&mut one).1, Vec::<Vec<_>>::new());
}

#[test]
fn of_very_many_given_addresses_some_are_dialed() {
    let mut one = rendezvous(1);
    one.want(at(1));
    one.given((1..=100).map(address).collect(), at(2));
    let dialed = drain(&mut one).1;
    assert_eq!(dialed.len(), 1);
    assert_eq!(dialed[0].len(), GIVEN_ADDRESSES);
}

#[test]
fn while_a_link_may_be_dead_the_peer_is_dialed_beside_it_once_a_second() {
    let mut one = rendezvous(1);
    one.want(at(1));
    one.receive(told(1, &[address(2)], false), at(1));
    one.linked(at(2));
    drain(&mut one);
    one.tick(at(50));
    assert_eq!(one.deadline(), None);
    one.doubt(true, at(100));
    assert_eq!(drain(&mut one).1, [[address(2)]]);
    one.doubt(true, at(100));
    assert_eq!(drain(&mut one).1, Vec::<Vec<_>>::new());
    assert_eq!(one.deadline(), Some(at(101).elapsed));
    one.tick(at(101));
    one.dial_failed(at(101));
    assert_eq!(drain(&mut one).1, [[address(2)]]);
    one.doubt(false, at(102));
    assert_eq!(one.deadline(), None);
    one.tick(at(200));
    assert_eq!(drain(&mut one), (Vec::new(), Vec::new()));
    // Nor is it where links are not wanted.
    one.allow();
    one.doubt(true, at(300));
    one.forbid();
    one.tick(at(301));
    assert_eq!(drain(&mut one).1, Vec::<Vec<_>>::new());
}

#[test]
fn a_link_that_is_up_stays_known_whatever_comes_of_dialing_beside_it() {
    let mut one = rendezvous(1);
    one.located(vec![address(1)], at(1));
    one.want(at(1));
    one.receive(told(1, &[address(2)], false), at(1));
    one.linked(at(2));
    drain(&mut one);
    one.doubt(true, at(3));
    assert_eq!(drain(&mut one).1, [[address(2)]]);
    // Just now, so that it is for later.
    one.doubt(false, at(3));
    one.wake(at(3));
    one.located(vec![address(3)], at(3));
    assert_eq!(drain(&mut one).1, Vec::<Vec<_>>::new());
    assert_eq!(one.deadline(), Some(at(4).elapsed));
    one.tick(at(4));
    assert_eq!(drain(&mut one).1, [[address(2)]]);
    assert_eq!(one.deadline(), None, "once is enough");
    // Where there is nobody to dial it changes nothing either.
    one.receive(told(2, &[], false), at(6));
    one.located(vec![address(4)], at(7));
    assert_eq!(one.deadline(), None);
    one.receive(told(3, &[address(5)], false), at(8));
    assert_eq!(drain(&mut one).1, Vec::<Vec<_>>::new());

    one.unlinked(at(100));
    let (said, dialed) = drain(&mut one);
    assert!(said.iter().any(|said| said.reply), "it is sought again");
    assert_eq!(dialed, [[address(5)]]);
}

#[test]
fn a_link_that_the_peer_let_go_while_it_is_still_wanted_is_sought_with_growing_waits() {
    let [mut end, _] = met();
    let mut now = at(1);
    let mut waits = Vec::new();
    for _ in 0..8 {
        end.linked(now);
        now.elapsed += STEADY_TIME;
        end.parted(now);
        assert_eq!(drain(&mut end), (vec![], vec![]), "not at once");
        let next = end.deadline().expect("it will be sought again");
        waits.push(next - now.elapsed);
        now.elapsed = next;
        end.tick(now);
        drain(&mut end);
    }
    assert!(waits[7] > waits[0] * 20, "{waits:?}");
    // One that it had use for is another matter.
    end.linked(now);
    now.elapsed += Duration::from_secs(3_600);
    end.parted(now);
    let next = end.deadline().expect("it will be sought again");
    assert!(next - now.elapsed < waits[7] / 10);
    now.elapsed = next;
    end.tick(now);
    drain(&mut end);
    // Where it is not, nothing is waited for.
    end.linked(now);
    end.allow();
    end.parted(now);
    assert_eq!((end.deadline(), drain(&mut end)), (None, (vec![], vec![])));
}

#[test]
fn what_was_to_be_said_and_dialed_when_links_are_forbidden_is_not() {
    let [mut end, _] = met();
    end.linked(at(1));
    end.unlinked(at(30));
    end.located(vec![address(3)], at(30));
    end.given(vec![address(4)], at(30));
    end.forbid();
    let (said, dialed) = drain(&mut end);
    assert_eq!((said.len(), dialed), (1, vec![]));
    assert_eq!((&said[0].addresses[..], said[0].reply), (&[][..], false));
    // It is asked just before.
    let mut end = rendezvous(3);
    end.receive(told(1, &[address(2)], true), at(1));
    end.forbid();
    let (said, dialed) = drain(&mut end);
    assert_eq!((said.len(), dialed), (1, vec![]), "it gets its answer");
}

#[test]
fn a_peer_that_asks_twice_within_a_second_is_dialed_twice_though_no_link_is_wanted() {
    for linked in [false, true] {
        let mut peer = rendezvous(1);
        peer.receive(told(1, &[address(2)], true), at(10));
        assert_eq!(drain(&mut peer).1, [[address(2)]]);
        if linked {
            peer.linked(at(10));
        }
        peer.receive(told(2, &[address(3)], true), at(10));
        peer.allow();
        assert_eq!(drain(&mut peer).1, Vec::<Vec<_>>::new());
        assert_eq!(peer.deadline(), Some(at(11).elapsed), "linked: {linked}");
        peer.tick(at(11));
        assert_eq!(drain(&mut peer).1, [[address(3)]]);
        peer.dial_failed(at(12));
        assert_eq!(peer.deadline(), None, "once is enough");
    }
}

#[test]
fn a_change_of_the_network_begins_anew_however_far_a_dial_has_come() {
    let [mut end, _] = met();
    end.wake(at(5));
    let (said, dialed) = drain(&mut end);
    assert!(said.len() == 1 && said[0].reply);
    assert_eq!(dialed, [[address(2)]]);
}
