//! Every limit of the protocol in one place, with its unit and what happens at it.

use std::time::Duration;

/// Bytes of one message. A larger one is refused by `send`.
pub const MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// Bytes of payload in one segment. Larger messages are cut into segments.
pub const SEGMENT_BYTES: usize = 16 * 1024;

/// Segments of the largest message.
pub const MESSAGE_SEGMENTS: u32 = (MESSAGE_BYTES / SEGMENT_BYTES) as u32;

/// Bytes of one packet. A larger one is an error of the peer and costs it the link.
pub const PACKET_BYTES: usize = 64 * 1024;

/// Bytes of a message on a volatile channel, which is never cut.
pub const VOLATILE_BYTES: usize = 32 * 1024;

/// Bytes of one message of a handshake. A longer one is an error of the peer.
pub const HANDSHAKE_BYTES: usize = 256;

/// Bytes of the text that tells why a request failed. Longer text is cut by the one who sends it; a
/// peer that sends more has its message dropped as malformed.
pub const FAILURE_BYTES: usize = 1_024;

/// Bytes of a file. A larger one is not taken for sending, and the beginning of one is passed over as
/// malformed.
pub const FILE_BYTES: u64 = 16 * 1024 * 1024 * 1024;

/// Bytes of the name of a file. A longer one is not taken for sending, and the beginning of a file
/// with one is passed over as malformed.
pub const FILE_NAME_BYTES: usize = 255;

/// Bytes of a file in one message. The receiver writes them in one step, and goes on behind them
/// after a crash.
pub const FILE_PART_BYTES: u64 = 1024 * 1024;

/// Channels of one session. A frame that would open one more is an error of the peer.
pub const CHANNELS: usize = 64;

/// Epochs of one peer whose receive state is kept. When one more appears the oldest goes of which the
/// app has committed everything: what still waits of it in a mailbox comes again under a newer epoch.
pub const PEER_EPOCHS: usize = 8;

/// Past epochs of our own that are remembered, to name the first seq of what is offered again.
pub const OWN_EPOCHS: usize = 8;

/// Ranges in one acknowledgement. More are left out; what they held is sent again.
pub const ACK_RANGES: usize = 64;

/// Ranges of all channels in one acknowledgement, so that it always fits into a packet.
pub const ACK_ALL_RANGES: usize = 512;

/// Segments held out of order on one channel. What lies beyond is dropped and comes again.
pub const HELD_SEGMENTS: u64 = 1_024;

/// Segments a receiver lets a direct link run ahead of what it has taken: 8 MiB. A stream that waits
/// for what was lost twice delivers nothing for some round trips, and the sender is not to wait then.
pub const DIRECT_WINDOW: u64 = 512;

/// Segments sent on a direct link, per channel, before the peer's Resume was heard.
pub const FIRST_FLIGHT: u64 = DIRECT_WINDOW / 2;

/// Packets handed to a relay and not yet answered by it, per session.
pub const RELAY_FLIGHT: usize = 32;

/// Bytes of outbox payload an engine keeps in memory; the rest is read when its turn comes.
pub const OUTBOX_CACHE_BYTES: usize = 1024 * 1024;

/// Outbox records read from the store at once.
pub const READ_RECORDS: usize = 256;

/// Bytes of outbox records read from the store at once (at least one record is read).
pub const READ_BYTES: usize = 256 * 1024;

/// Records deleted in one batch.
pub const PURGE_RECORDS: u64 = 4_096;

/// Messages in one channel's inbox that the app has not committed, unless the app sets another
/// limit. When it is full, more is left at the sender or in the mailbox.
pub const INBOX_MESSAGES: u64 = 65_536;

/// Bytes in one channel's inbox that the app has not committed, unless the app sets another limit.
pub const INBOX_BYTES: u64 = 256 * 1024 * 1024;

/// What one channel's inbox takes before it counts as full.
///
/// A full inbox asks for more only when half of it is free again, so let it hold at least twice
/// what the app keeps uncommitted at a time. An empty inbox takes a message of any size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboxLimits {
    /// Messages the app has not committed; at least 1.
    pub messages: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
}

impl Default for InboxLimits {
    fn default() -> Self {
        Self {
            messages: INBOX_MESSAGES,
            bytes: INBOX_BYTES,
        }
    }
}

/// Skipped messages that are remembered for each channel. Of one more, the oldest is forgotten.
pub const SKIPPED_RECORDS: u64 = 256;

/// Bytes of a skipped message's payload that are kept.
pub const SKIPPED_BYTES: usize = 16 * 1024;

/// Bytes of the reason for which a message was skipped. A longer one is cut.
pub const SKIP_REASON_BYTES: usize = 1_024;

/// Messages of one session that wait in the outbox. When it is full, `send` waits and `try_send`
/// fails. At most 1,024 sends of a session wait; one more fails as well.
pub const OUTBOX_MESSAGES: u64 = 10_000_000;

/// Bytes of one session that wait in the outbox.
pub const OUTBOX_BYTES: u64 = 4 * 1024 * 1024 * 1024;

/// Links bound to one session at once. One more retires the worst of them.
pub const LINKS: usize = 16;

/// Resumes whose answers are still understood, per session.
pub const RESUMES_OPEN: usize = 8;

/// How long a message may wait for its recipient unless the app says otherwise: 30 days.
pub const MESSAGE_TTL: Duration = Duration::from_secs(30 * 24 * 3_600);

/// First wait before asking again when something is outstanding and nothing moves.
pub const PROBE_FIRST: Duration = Duration::from_secs(2);

/// Longest time without such a question while something is outstanding, however much moves
/// meanwhile: what moves may be another channel.
pub const PROBE_BUSY: Duration = Duration::from_secs(60);

/// Longest wait between two such questions on a direct link.
pub const PROBE_MOST_DIRECT: Duration = Duration::from_secs(30);

/// Longest wait between two such questions to a peer that is behind a mailbox.
pub const PROBE_MOST_RELAYED: Duration = Duration::from_secs(600);

/// Silence on a direct link after which a Ping asks whether it lives.
pub const PING_IDLE: Duration = Duration::from_secs(15);

/// Silence on a direct link, while an answer is due, after which it is given up.
pub const LINK_SILENCE: Duration = Duration::from_secs(10);

/// How long an acknowledgement may wait, on a direct link, for the app's answer: nobody notices it, and
/// longer, a sender would wait on an idle link.
pub const ACK_DELAY: Duration = Duration::from_millis(1);

/// How long a commit may wait for company before the peer is told of it.
pub const CONSUMED_DELAY: Duration = Duration::from_millis(50);

/// Packets sealed under one phase of keys before the next begins.
pub const PHASE_PACKETS: u64 = 1 << 22;

/// How long one phase of keys is used for sealing.
pub const PHASE_TIME: Duration = Duration::from_secs(24 * 3_600);

/// How long keys are used before they are replaced, if the two are in touch. It bounds how long somebody
/// who has copied them reads on.
pub const KEY_AGE: Duration = Duration::from_secs(72 * 3_600);

/// The same for the peer with the larger id: the other one has begun by then, and one new set is enough.
pub const KEY_AGE_LATER: Duration = Duration::from_secs(78 * 3_600);

/// How long keys are kept after others took their place: longer than anything sealed under them may
/// wait in a mailbox.
pub const KEY_LIFE: Duration = Duration::from_secs(31 * 24 * 3_600);

/// Keys agreed on that a session keeps. One more, and the oldest go: what is still sealed under them
/// is sent again, sealed anew.
pub const ASSOCIATIONS: usize = 12;

/// Earlier phases of each of them that still open.
pub const OLD_PHASES: usize = 40;

/// Packet numbers taken from the store at once. A crash skips as many.
pub const NUMBER_LEASE: u64 = 1 << 16;

/// Shortest time between two initiations on one link that nothing else asks for.
pub const HANDSHAKE_AGAIN: Duration = Duration::from_secs(5);

/// Longest wait between two handshakes that are begun because packets are under unknown keys or look
/// old, with nothing else to say that the keys there are could be wrong.
pub const HANDSHAKE_MOST: Duration = Duration::from_secs(3_600);

/// How long after a peer has used the keys there are a packet under unknown ones is no reason to
/// doubt them.
pub const KEYS_PROVEN: Duration = Duration::from_secs(60);

/// Packets that fail to open before a link is given up. The runtime binds another one over the same
/// relay after a wait that grows each time.
pub const FORGED_PACKETS: u32 = 64;

/// Characters of a contact as text. It still fits a QR code; a longer text is refused.
pub const CONTACT_BYTES: usize = 2_048;

/// Relays a contact names. One with more is refused.
pub const CONTACT_RELAYS: usize = 8;

/// Characters of the address of one of them.
pub const CONTACT_RELAY_BYTES: usize = 256;

/// Mailboxes of one peer. Those beyond are not told; a signal with more is an error of the peer.
pub const MAILBOXES: usize = 4;

/// Characters of the address of a relay at which one is. It is not told, and a signal with one is an error of
/// the peer, if it is longer.
pub const MAILBOX_RELAY_BYTES: usize = 256;

/// Peers may leave something in a mailbox for so long after its owner has ceased to tell of it: as long as a
/// message waits at most.
pub const LEFT_MAILBOX_TIME: Duration = MESSAGE_TTL;

/// How old the word of our mailboxes may be before the peer is told once more, in case it did not arrive.
pub const MAILBOXES_AGAIN: Duration = Duration::from_secs(15 * 24 * 3_600);

/// Strangers that may wait to be accepted. One more is refused until one of them is accepted or
/// blocked.
pub const STRANGERS: usize = 1_024;

/// Bytes a stranger may make us keep before it is accepted. What it sends beyond them stays in the
/// mailbox.
pub const STRANGER_BYTES: u64 = 256 * 1024;

/// Peers that may be blocked. The next has to wait until one is unblocked.
pub const BLOCKED_PEERS: usize = 65_536;

/// Bytes of a session description in an offer or an answer. A longer one is not sent, and an error
/// of the peer.
pub const SDP_BYTES: usize = 16 * 1024;

/// Bytes of one ICE candidate. A longer one is not sent, and an error of the peer.
pub const CANDIDATE_BYTES: usize = 1_024;

/// Candidates of one side of a negotiation, the word that there are no more included. What comes
/// beyond them is dropped.
pub const CANDIDATES: usize = 32;

/// Addresses that one signal tells. Those beyond are not sent; a signal with more is an error of the
/// peer.
pub const ADDRESSES: usize = 16;

/// Addresses of one peer that are known otherwise than from the peer itself. Those beyond are not
/// dialed.
pub const GIVEN_ADDRESSES: usize = 8;

/// How long a negotiation may take from its beginning until its connection carries data. Also how
/// long its signals matter. A connection that is not up by then is given up; too short, and it never
/// comes up over a slow relay; too long, and one lost answer costs as much.
pub const NEGOTIATION_TIME: Duration = Duration::from_secs(30);

/// The same for an ICE restart, after which a new connection is tried. Shorter: the peer has
/// answered before, and a restart may hang for reasons that a new connection does not have.
pub const ICE_RESTART_TIME: Duration = Duration::from_secs(10);

/// How long a connection must have been up so that its end is no failure of the negotiation before,
/// and is met at once. What comes up and dies sooner is tried again with back-off.
pub const STEADY_TIME: Duration = Duration::from_secs(10);

/// Span of the first wait after a direct link could not be had.
pub const DIRECT_AGAIN_FIRST: Duration = Duration::from_secs(1);

/// Widest span of such waits: a peer that can be reached again is found within it.
pub const DIRECT_AGAIN_MOST: Duration = Duration::from_secs(300);

/// Wait before an offer to a peer that has said that it wants none, unless it makes one itself.
pub const WITHDRAWN_TIME: Duration = Duration::from_secs(3_600);

/// Shortest time from one dialing of a peer's addresses to the next, whatever it asks for.
pub const DIAL_APART: Duration = Duration::from_secs(1);

/// How long the word of where we are, or that direct links are not wanted, waits for the peer.
pub const ADDRESSES_TTL: Duration = Duration::from_secs(600);
