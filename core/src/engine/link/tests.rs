use super::*;

const T: Duration = Duration::from_secs(100);

#[test]
fn the_answer_to_a_challenge_tells_the_round_trip_if_it_was_said_once() {
    let ms = Duration::from_millis;
    let mut link = Link::new(Generation::at_start(1), LinkClass::Direct, 0, T);
    link.challenge([1; 8], T);
    assert!(!link.answered([2; 8], T + ms(10)) && !link.validated());
    assert!(link.answered([1; 8], T + ms(20)) && link.validated());
    assert_eq!(link.pulse.quality.round_trip(), Some(ms(20)));
    assert!(!link.answered([1; 8], T + ms(30)), "it is answered once");
    link.challenge([3; 8], T);
    link.challenge_again(T + ms(500));
    assert!(link.answered([3; 8], T + ms(510)));
    assert_eq!(
        link.pulse.quality.round_trip(),
        Some(ms(20)),
        "which of both was answered?"
    );
}
