//! What a peer hears when we are found elsewhere.

use super::*;

#[test]
fn addresses_are_told_again_when_they_change_and_only_then() {
    let mut ends = met();
    for end in &mut ends {
        end.linked(at(1));
    }
    ends[0].located(vec![address(1)], at(2));
    assert_eq!(drain(&mut ends[0]), (vec![], vec![]));
    ends[0].wake(at(3));
    ends[0].located(vec![address(9)], at(3));
    let (said, dialed) = drain(&mut ends[0]);
    // The link that is up may not have moved: both dial anew.
    assert_eq!(dialed, [[address(2)]]);
    assert_eq!(said.len(), 1);
    assert_eq!(said[0].addresses, [address(9)]);
    assert!(said[0].reply);
    ends[1].receive(said[0].clone(), at(3));
    let (said, dialed) = drain(&mut ends[1]);
    assert_eq!(dialed, [[address(9)]]);
    assert_eq!(said.len(), 1);
    assert!(!said[0].reply);
    ends[1].unlinked(at(30));
    let (_, dialed) = drain(&mut ends[1]);
    assert_eq!(dialed, [[address(9)]]);
}

#[test]
fn addresses_that_change_while_the_network_does_not_are_told_and_nobody_is_dialed() {
    let mut ends = met();
    for end in &mut ends {
        end.linked(at(1));
    }
    ends[0].located(vec![address(9)], at(30));
    let (said, dialed) = drain(&mut ends[0]);
    assert_eq!((said.len(), dialed), (1, vec![]));
    assert_eq!(
        (&said[0].addresses[..], said[0].reply),
        (&[address(9)][..], false)
    );
    ends[1].receive(said[0].clone(), at(30));
    assert_eq!(drain(&mut ends[1]), (vec![], vec![]));
    // They know where to dial when the link is lost.
    ends[1].unlinked(at(60));
    assert_eq!(drain(&mut ends[1]).1, [[address(9)]]);
}

#[test]
fn another_port_is_no_reason_to_ask_a_peer_that_was_not_reached() {
    let mut ends = met();
    ends[0].dial_failed(at(1));
    let until = ends[0].deadline().expect("it is sought again");
    for port in 1..=100 {
        ends[0].located(vec![(address(1).ip(), port).into()], at(1));
    }
    assert_eq!(drain(&mut ends[0]), (vec![], vec![]));
    assert_eq!(ends[0].deadline(), Some(until));
    let now = Now {
        elapsed: until,
        ..at(1)
    };
    ends[0].tick(now);
    let (said, dialed) = drain(&mut ends[0]);
    assert_eq!((said.len(), dialed.len()), (1, 1));
    assert_eq!(said[0].addresses, [(address(1).ip(), 100).into()]);
    // Elsewhere is another matter.
    ends[0].dial_failed(now);
    ends[0].located(vec![address(9)], now);
    assert_eq!(drain(&mut ends[0]).0.len(), 1);
}

#[test]
fn a_peer_that_turns_up_is_told_of_the_port_that_it_was_not_woken_for() {
    let mut end = rendezvous(1);
    end.located(vec![address(1)], at(0));
    end.want(at(0));
    assert_eq!(drain(&mut end).0.len(), 1);
    let port: SocketAddr = (address(1).ip(), 7).into();
    end.located(vec![port], at(1));
    assert_eq!(drain(&mut end), (vec![], vec![]));
    end.receive(told(5, &[address(2)], false), at(2));
    let (said, dialed) = drain(&mut end);
    assert_eq!(dialed, [[address(2)]]);
    assert_eq!(said.len(), 1);
    assert_eq!(
        (&said[0].addresses[..], said[0].reply),
        (&[port][..], false)
    );
    // Once.
    end.receive(told(6, &[address(2)], false), at(3));
    assert_eq!(drain(&mut end).0, []);
}
