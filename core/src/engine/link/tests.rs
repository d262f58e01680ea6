use super::*;
use crate::StoreId;

const T: Duration = Duration::from_secs(100);

fn link(class: LinkClass) -> Link {
    Link::new(Generation::at_start(1), class, 0, T)
}

fn direct() -> Link {
    link(LinkClass::Direct)
}

#[test]
fn the_answer_to_a_challenge_tells_the_round_trip_if_it_was_said_once() {
    let ms = Duration::from_millis;
    let mut link = direct();
    link.challenge([1; 8], T);
    assert!(!link.answered([2; 8], T + ms(10)) && !link.validated());
    assert!(link.answered([1; 8], T + ms(20)) && link.validated());
    assert_eq!(link.quality.round_trip(), Some(ms(20)));
    assert!(!link.answered([1; 8], T + ms(30)), "it is answered once");
    link.challenge([3; 8], T);
    link.challenge_again(T + ms(500));
    assert!(link.answered([3; 8], T + ms(510)));
    assert_eq!(
        link.quality.round_trip(),
        Some(ms(20)),
        "which of both was answered?"
    );
}

#[test]
fn acks_are_overdue_long_before_a_link_is_dead() {
    let mut link = direct();
    link.quality.measured(Duration::from_millis(50), T);
    link.asks(T);
    let later = T + Duration::from_millis(300);
    assert!(link.overdue(later) && link.ping_due(later) && !link.silent(later));
    assert!(link.silent(T + LINK_SILENCE));
    link.heard(later);
    assert!(!link.overdue(T + LINK_SILENCE));
}

#[test]
fn a_pong_that_a_relay_never_brings_is_not_waited_for_for_ever() {
    let (ms, every) = (Duration::from_millis, Duration::from_millis(500));
    let mut link = link(LinkClass::Relayed(StoreId([1; 16])));
    link.ping([1; 8], false, T);
    assert!(!link.sample_due(every, T + every));
    let later = T + PONG_LOST;
    assert!(link.sample_due(every, later));
    link.ping([2; 8], false, later);
    assert!(!link.pong([1; 8], later + ms(10)), "it is forgotten");
    assert!(link.pong([2; 8], later + ms(20)));
    assert_eq!(link.quality.round_trip(), Some(ms(20)));
}
