//! Links over WebRTC to peers that are not ours: aiortc, and a browser without a window.
//!
//! ```text
//!   WebRtc ── offer, answer, candidates ── Call ── lines of JSON ── aiortc_peer.py, chromium_peer.html
//!      └──────────── ICE, DTLS, SCTP, data channel on 127.0.0.1 ───────────┘
//! ```
//!
//! Each line is an array of two texts, `[kind, text]`.
//!
//! | we say | | they say | |
//! |---|---|---|---|
//! | `make` | offer, with a data channel of these settings | `heard` | all messages, each as it should be |
//! | `offer`, `answer`, `candidate` | ours | `offer`, `answer`, `candidate` | theirs |
//! | `restart` | offer a restart of ICE | `wrong` | something is |
//! | `close` | end it | `closed` | the channel is |
//!
//! All that they say goes through the bytes of a signal, so that it is seen to fit the limits of a
//! session's signaling.
//!
//! What was found on the way:
//!
//! * Browsers refuse an answer to a restart of ICE that takes the part in DTLS which is theirs; so each
//!   answer tells the part that the first one settled.
//! * aiortc gives up a description without candidates before it can be told any, and tells its own
//!   in its description alone. So its peer here waits for the last of ours.
//! * A browser that hides its addresses has candidates that we do not look up. It finds us, whoever
//!   offers, for it is told our addresses.
//! * Chromium says that a channel which the other end has made is open before it is. What a page sends
//!   on it until then is lost without a word: on a busy machine the first messages. So its page here
//!   begins when it has heard us.
//! * A channel that is in order but gives up what was lost can't be told from a reliable one, as
//!   `webrtc` 0.21 does not say. One that is not in order is refused.
//!
//! Where one of them is not installed its tests say so and are skipped; with
//! `OUTLIVE_INTEROP=required` they fail.
#![cfg(unix)]

mod call;
mod foreign;
mod messages;

use self::call::Call;
use self::foreign::{Addresses, Foreign};

#[tokio::test]
async fn aiortc_takes_our_offer() {
    let Some(aiortc) = Foreign::aiortc().await else {
        return;
    };
    let mut call = Call::begin(aiortc, true).await;
    let mut link = call.up().await;
    call.talk(&mut link).await;
    call.we_close(link).await;
}

#[tokio::test]
async fn we_take_an_offer_of_aiortc() {
    let Some(aiortc) = Foreign::aiortc().await else {
        return;
    };
    let mut call = Call::begin(aiortc, false).await;
    let mut link = call.up().await;
    call.talk(&mut link).await;
    call.they_close(link).await;
}

#[tokio::test]
async fn a_browser_takes_our_offer() {
    let Some(chromium) = Foreign::chromium(Addresses::Told).await else {
        return;
    };
    let mut call = Call::begin(chromium, true).await;
    let mut link = call.up().await;
    call.talk(&mut link).await;
    assert!(call.refused.is_empty(), "{:?}", call.refused);
    call.we_close(link).await;
}

#[tokio::test]
async fn we_take_an_offer_of_a_browser() {
    let Some(chromium) = Foreign::chromium(Addresses::Told).await else {
        return;
    };
    let mut call = Call::begin(chromium, false).await;
    let mut link = call.up().await;
    call.talk(&mut link).await;
    assert!(call.refused.is_empty(), "{:?}", call.refused);
    call.they_close(link).await;
}

#[tokio::test]
async fn a_browser_that_hides_its_addresses_is_found_whoever_offers() {
    for we_offer in [true, false] {
        let Some(chromium) = Foreign::chromium(Addresses::Hidden).await else {
            return;
        };
        let mut call = Call::begin(chromium, we_offer).await;
        let mut link = call.up().await;
        call.talk(&mut link).await;
        call.they_close(link).await;
    }
}

#[tokio::test]
async fn restarts_of_ice_keep_the_link_to_a_browser_whoever_begins_them() {
    for we_offer in [true, false] {
        let Some(chromium) = Foreign::chromium(Addresses::Told).await else {
            return;
        };
        let mut call = Call::begin(chromium, we_offer).await;
        let mut link = call.up().await;
        for we_begin in [true, false] {
            if we_begin {
                call.offer(true).await;
            } else {
                call.theirs.say("restart", "").await;
            }
            call.comes_back().await;
        }
        call.talk(&mut link).await;
        call.we_close(link).await;
    }
}

#[tokio::test]
async fn a_channel_without_order_comes_to_nothing() {
    let settings = r#"{ "ordered": false, "maxRetransmits": 0 }"#;
    if let Some(aiortc) = Foreign::aiortc().await {
        Call::theirs(aiortc, settings)
            .await
            .comes_to_nothing()
            .await;
    }
    if let Some(chromium) = Foreign::chromium(Addresses::Told).await {
        Call::theirs(chromium, settings)
            .await
            .comes_to_nothing()
            .await;
    }
}
