//! Channels that are the library's own carry nothing of the app's.

use outlive::{ChannelId, Error, Sending, Session};

use crate::world::{CHAT, id, node, relay, soon};

/// What the app hears when it uses this channel in every way there is.
async fn refusals(session: &Session, channel: ChannelId) -> Vec<Error> {
    let sending = || Sending::default();
    vec![
        session.send(channel, "lost").await.unwrap_err(),
        session
            .send_with(channel, "lost", sending())
            .await
            .unwrap_err(),
        session
            .send_once(b"key", channel, "lost")
            .await
            .unwrap_err(),
        session.try_send(channel, "lost").await.unwrap_err(),
        session
            .start_send(channel, "lost", sending())
            .await
            .unwrap_err(),
        session.send_volatile(channel, "lost").await.unwrap_err(),
        session.listen(channel).await.unwrap_err(),
        session.inbox(channel).unwrap_err(),
    ]
}

#[tokio::test]
async fn nothing_is_taken_for_a_channel_on_which_no_app_would_get_it() {
    let relay = relay().await;
    let (alice, bob) = (node(1, &relay).await, node(2, &relay).await);
    let session = alice.session(id(2)).await.unwrap();
    for number in (0..16).filter(|number| ![1, 2].contains(number)) {
        let channel = ChannelId(number);
        for error in refusals(&session, channel).await {
            let fits = match channel {
                ChannelId::SIGNALING => matches!(error, Error::Signaling(of) if of == channel),
                ChannelId::REQUESTS => matches!(error, Error::Requests(of) if of == channel),
                _ => matches!(error, Error::Reserved(of) if of == channel),
            };
            assert!(fits, "{channel}: {error}");
        }
    }
    let theirs = bob.session(id(1)).await.unwrap();
    for channel in [CHAT, ChannelId::FILES, ChannelId::FIRST_APP] {
        let mut inbox = theirs.inbox(channel).unwrap();
        session.send(channel, "kept").await.unwrap();
        let delivery = soon("the message", inbox.next()).await.unwrap();
        assert_eq!(delivery.payload(), "kept".as_bytes());
        delivery.commit().await.unwrap();
    }
}
