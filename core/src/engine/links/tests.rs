use super::super::quality::Quality;
use super::*;
use crate::StoreId;
use crate::link::{LinkClass, LinkState, Reads};

const SECOND: Duration = Duration::from_secs(1);
const T: Duration = Duration::from_secs(100);

fn generation(n: u32) -> Generation {
    (0..n).fold(Generation::at_start(1), |g, _| g.next())
}

fn direct(n: u32) -> Link {
    let mut link = Link::new(generation(n), LinkClass::Direct, 0, T);
    link.state = LinkState::Connected;
    link
}

fn relayed(n: u32, rank: u8) -> Link {
    Link::new(
        generation(n),
        LinkClass::Relayed(StoreId([rank; 16])),
        rank,
        T,
    )
}

#[test]
fn a_direct_link_goes_before_a_relayed_one() {
    let mut links = Links::default();
    links.bind(relayed(1, 0), T);
    assert_eq!(links.best(), Some(generation(1)));
    links.bind(direct(2), T);
    assert_eq!(links.best(), Some(generation(2)));
    links.bind(relayed(3, 0), T);
    assert_eq!(links.best(), Some(generation(2)));
    links.unbind(generation(2), T);
    assert_eq!(links.best(), Some(generation(3)));
}

#[test]
fn a_link_that_did_not_answer_its_challenge_carries_nothing_while_there_is_another() {
    let unanswered = |n| Link::new(generation(n), LinkClass::Direct, 0, T);
    let mut links = Links::default();
    links.bind(unanswered(1), T);
    assert_eq!(links.best(), Some(generation(1)));
    links.bind(relayed(2, 0), T);
    assert_eq!(links.best(), Some(generation(2)));
    if let Some(link) = links.get(generation(1)) {
        link.state = LinkState::Connected;
    }
    links.choose(T);
    assert_eq!(links.best(), Some(generation(1)));
}

#[test]
fn two_links_of_like_speed_do_not_take_turns() {
    let mut links = Links::default();
    links.bind(direct(1), T);
    links.bind(direct(2), T);
    let ms = Duration::from_millis;
    for (one, two, best) in [
        (50, 49, 1),
        (50, 41, 1),
        (50, 30, 2),
        (29, 30, 2),
        (20, 30, 1),
    ] {
        for (n, round_trip) in [(1, one), (2, two)] {
            if let Some(link) = links.get(generation(n)) {
                link.pulse.quality = Quality::default();
                link.pulse.quality.measured(ms(round_trip), T);
            }
        }
        links.choose(T);
        assert_eq!(
            links.best(),
            Some(generation(best)),
            "{one} ms against {two} ms"
        );
    }
}

/// A narrow direct link, which carries, and a relay of which is known how soon it answers.
fn narrow(kilobytes: u64) -> Links {
    let mut links = Links::default();
    links.bind(direct(1), T);
    links.bind(relayed(2, 0), T);
    answers(&mut links, 1, 50, T);
    answers(&mut links, 2, 150, T);
    took(&mut links, 1, kilobytes, T);
    links
}

fn answers(links: &mut Links, n: u32, after: u64, now: Duration) {
    if let Some(link) = links.get(generation(n)) {
        let quality = &mut link.pulse.quality;
        (0..20).for_each(|_| quality.measured(Duration::from_millis(after), now));
    }
}

/// A link was full and took in so many KiB a second.
fn took(links: &mut Links, n: u32, kilobytes: u64, now: Duration) {
    if let Some(link) = links.get(generation(n)) {
        link.pulse
            .quality
            .took(kilobytes * 1024, Duration::from_secs(1), now);
    }
    links.choose(now);
}

fn carries(links: &Links, n: u32) -> bool {
    links.best() == Some(generation(n))
}

#[test]
fn a_link_that_takes_in_little_has_a_relay_tried_that_takes_the_file_if_it_is_far_wider() {
    let mut links = narrow(250);
    assert!(carries(&links, 2));
    took(&mut links, 2, 5_000, T + SECOND * 2);
    assert!(carries(&links, 2));
    links.choose(T + SECOND * 60);
    assert!(carries(&links, 2) && links.deadline().is_none());
}

#[test]
fn a_relay_that_is_no_wider_gives_it_back() {
    let mut links = narrow(250);
    took(&mut links, 2, 700, T + SECOND * 2);
    assert!(carries(&links, 1) && links.deadline().is_none());
}

#[test]
fn a_trial_that_tells_nothing_ends_and_the_next_is_long_after() {
    let mut links = narrow(250);
    let end = links.deadline().unwrap_or_default();
    assert_eq!(end, T + SECOND * 4);
    links.time_passed(end);
    for seconds in 4..300 {
        answers(&mut links, 2, 150, T + SECOND * seconds);
        took(&mut links, 1, 250, T + SECOND * seconds);
        assert!(carries(&links, 1), "after {seconds} s");
        assert_eq!(links.deadline(), None);
    }
    took(&mut links, 1, 250, T + SECOND * 300);
    assert!(carries(&links, 2));
}

#[test]
fn a_link_that_takes_in_enough_has_none_tried() {
    assert!(carries(&narrow(1_024), 1));
}

#[test]
fn a_relay_is_asked_how_soon_it_answers_and_tried_if_that_is_soon_enough() {
    let mut links = Links::default();
    links.bind(direct(1), T);
    links.bind(relayed(2, 0), T);
    answers(&mut links, 1, 50, T);
    assert!(!links.in_doubt(T), "nobody asks without a reason");
    took(&mut links, 1, 250, T);
    assert!(links.in_doubt(T) && carries(&links, 1), "it is asked");
    answers(&mut links, 2, 900, T);
    links.choose(T);
    assert!(carries(&links, 1), "who talks would wait");
    let later = T + SECOND * 11;
    assert!(!links.in_doubt(later), "nothing is full any more");
    (0..3).for_each(|_| answers(&mut links, 2, 150, T));
    links.choose(T);
    assert!(carries(&links, 2));
}

#[test]
fn of_several_links_the_one_is_tried_that_nobody_knows_and_that_answers_soon() {
    let mut links = Links::default();
    for n in 1..=2 {
        links.bind(direct(n), T);
        answers(&mut links, n, 50, T);
    }
    for (n, after) in [(3, 900), (4, 150)] {
        links.bind(relayed(n, n as u8), T);
        answers(&mut links, n, after, T);
    }
    took(&mut links, 2, 300, T);
    took(&mut links, 1, 250, T);
    assert!(carries(&links, 4), "{:?}", links.best());
}

#[test]
fn no_trial_outlives_the_links() {
    for gone in [&[1_u32, 2][..], &[2], &[2, 1]] {
        let mut links = narrow(250);
        for n in gone {
            links.unbind(generation(*n), T + SECOND);
        }
        links.choose(T + SECOND);
        assert_eq!(links.deadline(), None, "without {gone:?}");
        assert!(carries(&links, 1) || gone.contains(&1));
    }
}

fn refuse(links: &mut Links, n: u32, now: Duration) {
    if let Some(link) = links.get(generation(n)) {
        link.refusals.refused(now);
    }
    links.choose(now);
}

#[test]
fn a_trial_of_a_relay_goes_on_over_its_newer_link_and_not_over_a_direct_one() {
    let mut links = narrow(250);
    links.bind(relayed(3, 0), T + SECOND);
    links.unbind(generation(2), T + SECOND);
    assert!(carries(&links, 3));
    took(&mut links, 3, 5_000, T + SECOND * 3);
    assert!(carries(&links, 3) && links.deadline().is_none());

    let mut links = narrow(250);
    links.bind(direct(3), T + SECOND);
    links.validated(generation(3), T + SECOND);
    assert!(carries(&links, 2));
    links.time_passed(T + SECOND * 4);
    assert!(carries(&links, 3), "the newer one of two alike");
}

#[test]
fn of_two_direct_links_the_one_that_was_tried_goes_back() {
    for (tried, best) in [(400, 1), (5_000, 2)] {
        let mut links = Links::default();
        for n in 1..=2 {
            links.bind(direct(n), T);
            answers(&mut links, n, 50, T);
        }
        took(&mut links, 1, 250, T);
        assert!(carries(&links, 2));
        took(&mut links, 2, tried, T + SECOND * 2);
        assert!(carries(&links, best), "with {tried} KiB a second");
    }
}

#[test]
fn a_relay_that_was_left_for_its_delay_is_not_used_again_for_what_it_took_in() {
    let mut links = narrow(250);
    took(&mut links, 2, 5_000, T + SECOND * 2);
    assert!(carries(&links, 2));
    answers(&mut links, 1, 50, T + SECOND * 3);
    answers(&mut links, 2, 3_000, T + SECOND * 3);
    links.choose(T + SECOND * 3);
    assert!(carries(&links, 1));
    for seconds in 4..120 {
        answers(&mut links, 1, 50, T + SECOND * seconds);
        links.choose(T + SECOND * seconds);
        assert!(carries(&links, 1), "after {seconds} s");
    }
}

#[test]
fn a_relay_that_refuses_is_not_tried() {
    let mut links = narrow(250);
    refuse(&mut links, 2, T + SECOND);
    assert!(carries(&links, 1) && links.deadline().is_none());

    let mut links = narrow(1_024);
    refuse(&mut links, 2, T + SECOND);
    took(&mut links, 1, 100, T + SECOND * 5);
    assert!(carries(&links, 1));
}

#[test]
fn a_relay_that_refuses_now_and_then_keeps_nothing_from_a_link_that_lags() {
    let mut links = narrow(250);
    took(&mut links, 2, 5_000, T + SECOND * 2);
    assert!(carries(&links, 2), "the direct one lags");
    for seconds in [3, 5, 8, 13] {
        refuse(&mut links, 2, T + SECOND * seconds);
        assert!(carries(&links, 1), "and is better than nothing");
        links.choose(T + SECOND * (seconds + 2));
        assert!(carries(&links, 1), "they do not take turns");
    }
    links.choose(T + SECOND * 43);
    assert!(carries(&links, 2));
    for times in 1..3 {
        let now = T + SECOND * (43 + times * 40);
        refuse(&mut links, 2, now);
        links.choose(now + SECOND * 31);
        let is_held = times == 2;
        assert_eq!(carries(&links, 1), is_held, "it waits 16 s, and 32");
    }
}

fn read(links: &mut Links, n: u32, reads: Reads) {
    if let Some(link) = links.get(generation(n)) {
        link.reads = reads;
    }
    links.choose(T);
}

#[test]
fn what_is_left_where_the_peer_reads_nothing_is_no_way_to_it() {
    let mut links = Links::default();
    links.bind(relayed(1, 0), T);
    read(&mut links, 1, Reads::Never);
    assert_eq!(links.best(), None);
    assert!(links.get_or_best(generation(1)).is_none());
    links.bind(relayed(2, 9), T);
    assert!(carries(&links, 2), "whatever its rank");
    let found = links.get_or_best(generation(1)).map(|link| link.generation);
    assert_eq!(found, Some(generation(2)));
    read(&mut links, 1, Reads::Perhaps);
    assert!(
        carries(&links, 2),
        "its mailbox goes before where it is now"
    );
    read(&mut links, 2, Reads::Never);
    assert!(carries(&links, 1));
    read(&mut links, 1, Reads::Never);
    assert_eq!(links.best(), None);
    links.bind(direct(3), T);
    assert!(carries(&links, 3));
}

#[test]
fn nothing_is_tried_where_the_peer_reads_nothing() {
    let mut links = narrow(1_024);
    read(&mut links, 2, Reads::Never);
    took(&mut links, 1, 250, T);
    assert!(carries(&links, 1) && links.deadline().is_none());
    let mut links = narrow(250);
    assert!(carries(&links, 2), "on trial");
    read(&mut links, 2, Reads::Never);
    assert!(carries(&links, 1) && links.deadline().is_none());
}

#[test]
fn one_link_too_many_retires_the_worst() {
    let mut links = Links::default();
    links.bind(relayed(1, 1), T);
    for n in 2..=LINKS as u32 {
        assert_eq!(links.bind(direct(n), T), None);
    }
    assert_eq!(links.bind(direct(99), T), Some(generation(1)));
    assert_eq!(links.len(), LINKS);
}
