//! Where mail is read: the peer's, and ours.

use serde::{Deserialize, Serialize};

use super::Record;
use crate::{Mailbox, MessageId, StoreTime, WallTime};

/// What a session knows of where the peer reads, and what the peer was told of where we do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailboxesRecord {
    /// Where the peer says that it reads, the best first. None: it has not said.
    pub said: Vec<Mailbox>,
    /// The addresses of relays at which the app says that it does, behind those.
    pub named: Vec<String>,
    /// What the peer was told last.
    pub told: Option<Told>,
}

/// What a peer was told of our mailboxes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// They, the best first.
    pub mailboxes: Vec<Mailbox>,
    /// When.
    pub at: WallTime,
    /// The message that told it.
    pub id: MessageId,
    /// Whether its time was over before it was delivered.
    pub lapsed: bool,
}

impl Record for MailboxesRecord {
    const WHAT: &'static str = "the record of where a peer reads its mail";
}

/// Our own mailboxes, with those that we have left and read for as long as something may wait there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnMailboxesRecord {
    /// They.
    pub mailboxes: Vec<OwnMailbox>,
    /// The addresses that all peers were told of last, in their order as texts.
    pub announced: Vec<String>,
}

/// One of our own mailboxes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnMailbox {
    /// Where it is.
    pub mailbox: Mailbox,
    /// Since when it is ours no more, if so.
    pub left: Option<StoreTime>,
}

impl Record for OwnMailboxesRecord {
    const WHAT: &'static str = "the record of our mailboxes";
}
