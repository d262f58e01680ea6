//! What happens to a peer and to its messages, told on stderr: an app is told of it, and what is printed
//! has no place for it.

use outlive::{
    ChannelId, CloseReason, Delivery, Epoch, Events, Gap, PeerId, Seq, Session, SessionEvent,
};

/// What may wait to be told. Of what comes beyond that a gap is told with the message behind it.
const WAITING: usize = 64;

/// Of the peer of a session and one channel.
pub(crate) struct News {
    peer: PeerId,
    channel: ChannelId,
    events: Events,
    /// The end of the last gap that was told.
    told: Option<(Epoch, Seq)>,
}

impl News {
    pub(crate) fn of(session: &Session, channel: ChannelId) -> Self {
        Self {
            peer: session.peer(),
            channel,
            events: session.events(WAITING),
            told: None,
        }
    }

    /// Tells what happens. Ends when nothing more does. Cancellation-safe.
    pub(crate) async fn tell(&mut self) {
        while let Some((event, _)) = self.events.next().await {
            self.tell_of(&event);
        }
    }

    fn tell_of(&mut self, event: &SessionEvent) {
        let peer = self.peer;
        match event {
            SessionEvent::Gap {
                channel,
                epoch,
                first,
                last,
            } if *channel == self.channel => self.missing(Gap {
                epoch: *epoch,
                first: *first,
                last: *last,
            }),
            SessionEvent::PeerReset { .. } => crate::output::say(format_args!(
                "{peer} lost its store, or has an older one: what it sends may be there already, and its seq \
                 begin anew"
            )),
            SessionEvent::PeerClosed { reason } => crate::output::say(match reason {
                CloseReason::NotAccepted => {
                    format!("{peer} does not accept this peer; what is sent waits until it does")
                }
                // And what later versions may say.
                CloseReason::Closed | _ => {
                    format!("{peer} closed the session; what is sent waits for it")
                }
            }),
            _ => {}
        }
    }

    /// Tells what is missing before a message, where the event of that was before this process.
    pub(crate) fn before(&mut self, delivery: &Delivery) {
        if let Some(gap) = delivery.gap_before() {
            self.missing(gap);
        }
    }

    fn missing(&mut self, gap: Gap) {
        let told = self
            .told
            .is_some_and(|(epoch, last)| epoch == gap.epoch && last >= gap.last);
        if told {
            return;
        }
        self.told = Some((gap.epoch, gap.last));
        let Gap { first, last, .. } = gap;
        let which = if first == last {
            format!("seq {first}")
        } else {
            format!("seq {first} to {last}")
        };
        crate::output::say(format_args!(
            "of what {} sent on channel {}, {which} will never come: it expired, was taken back or lost",
            self.peer, self.channel.0
        ));
    }
}
