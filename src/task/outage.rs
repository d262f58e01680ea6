//! What the task does while its store fails: it keeps nobody waiting.
//!
//! Links come and go as ever. What is asked is answered with the failure. What the peer sent is let
//! go by: it waits in its mailbox, and is asked for when the session is loaded again. Of what no mailbox
//! holds the small packets are kept, for what they say may be said once only. So a session
//! that can't be loaded holds up neither its app nor the relay's task, which serves all sessions.

use bytes::Bytes;
use outlive_core::engine::Engine;

use super::input::{Arrival, Command, Input};
use super::{STORE_RETRY, Task};
use crate::error::Error;
use crate::trust::Trust;

/// Packets that are kept, and the bytes of one.
const KEPT_PACKETS: usize = 64;
const KEPT_BYTES: usize = 1_024;

impl Task {
    /// Waits until the store is to be tried again. Returns why the task ends, if it does.
    pub(super) async fn sit_out(&mut self, error: &Error) -> Option<Error> {
        let retry = tokio::time::sleep(STORE_RETRY);
        let mut retry = std::pin::pin!(retry);
        loop {
            tokio::select! {
                () = self.cancel.cancelled() => return Some(Error::Shutdown),
                () = &mut retry => return None,
                input = self.inputs.recv() => match input {
                    None => return Some(Error::Shutdown),
                    Some(Input::Command(Command::Close { reply })) => {
                        self.close(|_| true);
                        // The caller may have gone away.
                        let _ = reply.send(());
                        return Some(Error::Closed);
                    }
                    Some(Input::Command(Command::Trust { reply })) => {
                        let blocked = self.decided().await == Trust::Blocked;
                        if blocked {
                            self.close(|_| true);
                        }
                        let _ = reply.send(());
                        if blocked {
                            return Some(Error::Blocked(self.peer));
                        }
                    }
                    Some(input) => self.let_by(input, error),
                },
            }
        }
    }

    fn let_by(&mut self, input: Input, error: &Error) {
        let outstanding = self.hub.state.borrow().outstanding;
        match input {
            Input::Command(command) => self.decline(command, error),
            Input::Bind(binding) => self.bound(binding, outstanding),
            Input::Lost { generation } => self.unbound(generation, outstanding),
            Input::Presence { generation, online } => {
                self.presence(generation, online);
            }
            Input::Packet(arrival)
                if arrival.envelope.is_none()
                    && arrival.packet.len() <= KEPT_BYTES
                    && self.kept.len() < KEPT_PACKETS =>
            {
                // It may be a part of something larger, which is not to be kept with it.
                let packet = Bytes::copy_from_slice(&arrival.packet);
                self.kept.push(Arrival { packet, ..arrival });
            }
            Input::Packet(_) | Input::Missed { .. } => self.left |= input.is_mail(),
            // Links are proved when they are bound to the session that is loaded again.
            Input::Accepted { .. } | Input::Refused { .. } | Input::NetworkChanged => {}
        }
    }

    fn decline(&mut self, command: Command, error: &Error) {
        // Callers may have gone away.
        match command {
            Command::Send { reply, .. } | Command::Request { reply, .. } => {
                drop(reply.send(Err(error.clone())));
            }
            Command::HandAgain { reply, .. } => drop(reply.send(Err(error.clone()))),
            Command::Commit { in_hand, reply } | Command::Skip { in_hand, reply, .. } => {
                self.hub.inboxes.begin_leaving(in_hand.place());
                drop(reply.send(Err(error.clone())));
            }
            Command::Settle { reply, .. }
            | Command::CancelFile { reply, .. }
            | Command::FileReply { reply, .. }
            | Command::Unidentified { reply, .. }
            | Command::Reads { reply, .. }
            | Command::ReadsAt { reply, .. } => {
                drop(reply.send(Err(error.clone())));
            }
            Command::Volatile { reply, .. } => drop(reply.send(Err(error.clone()))),
            Command::SendFile { reply, .. } => drop(reply.send(Err(error.clone().into()))),
            Command::Cancel { reply, .. } => drop(reply.send(false)),
            Command::Wake { reply } | Command::Close { reply } | Command::Trust { reply } => {
                let _ = reply.send(());
            }
            Command::Hand {
                channel,
                position,
                record,
            } => self.hub.inboxes.put_in_hand((channel, position), record),
            // What is listened to, and waited for, is known to the session, and told when it is loaded.
            Command::Listen { .. }
            | Command::AwaitConsumed { .. }
            | Command::Weight { .. }
            | Command::Exposed(_) => {}
        }
    }

    /// Takes in what was kept. A link that has ended meanwhile counts for nothing, and neither do its packets.
    pub(super) fn hear_what_was_kept(&mut self, engine: &mut Engine) {
        for arrival in std::mem::take(&mut self.kept) {
            self.arrive(engine, arrival);
        }
    }

    /// Asks the relays for what the session let go by, or lost with its engine.
    pub(super) fn ask_for_what_was_missed(&mut self) {
        for generation in self.links.keys().copied().collect::<Vec<_>>() {
            self.redeliver(generation);
        }
    }
}
