//! `outlive receive-files`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, bail};
use data_encoding::HEXLOWER;
use indicatif::{MultiProgress, ProgressBar};
use outlive::record::{InboxBody, InboxRecord, Key, ReceivingFileRecord, ReceivingState, Record};
use outlive::{
    ChannelId, Contact, FileError, FileEvent, FileInbox, FileOffer, Node, PeerId, Position,
    SessionInfo, Store, TransferId, Trust,
};
use outlive_core::store::ReadLimit;
use outlive_core::wire::file::FileMessage;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{End, Event, bar, bars, run};
use crate::args::ReceiveFiles;
use crate::output::shown;
use crate::row::PAGE;

/// How long to wait before what could not be placed is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// What happens to the files of one peer. What can't be placed is tried again, and holds up no other.
async fn follow(
    node: Node,
    peer: PeerId,
    out: mpsc::Sender<(PeerId, Result<FileEvent, FileError>)>,
) -> Result<()> {
    let session = node.session(peer).await?;
    let (mut files, mut told) = (None, None);
    loop {
        let event = match &mut files {
            Some(files) => FileInbox::next(files).await,
            None => match session.files().await {
                Ok(opened) => {
                    files = Some(opened);
                    continue;
                }
                Err(error) => Err(error),
            },
        };
        let failed = event.as_ref().err().map(FileError::to_string);
        let ends = matches!(event, Err(FileError::Session(_)));
        // Each time that it is tried again it fails in the same way.
        let known = failed.is_some() && failed == told;
        if !known && out.send((peer, event)).await.is_err() || ends {
            return Ok(());
        }
        if failed.is_some() {
            tokio::time::sleep(AGAIN).await;
        }
        told = failed;
    }
}

/// Receives files of one peer or of all.
struct Receiver<'a> {
    args: &'a ReceiveFiles,
    json: bool,
    bars: Option<MultiProgress>,
    shown: BTreeMap<TransferId, ProgressBar>,
    left: Option<u64>,
    /// Offers that could not be placed, one of a peer at most.
    standing: &'a mut Vec<FileOffer>,
}

impl Receiver<'_> {
    async fn take(&mut self, from: PeerId, event: FileEvent) -> Result<()> {
        match event {
            FileEvent::Offered(offer) => self.offered(offer).await?,
            FileEvent::Progress(transfer, progress) => {
                let bars = self.bars.as_ref();
                let bar = self
                    .shown
                    .entry(transfer)
                    .or_insert_with(|| bar(bars, "a file", progress.size));
                bar.set_position(progress.done);
            }
            FileEvent::Received(file) => {
                self.forget(file.transfer());
                let path = file.path().display().to_string();
                if self.json {
                    let received = Event {
                        from: Some(from.to_string()),
                        path: Some(path),
                        ..Event::new("received", file.transfer()).of(file.info())
                    };
                    crate::output::json(&received)?;
                } else {
                    crate::output::line(path.as_bytes())?;
                }
                file.commit().await?;
                self.left = self.left.map(|left| left.saturating_sub(1));
            }
            FileEvent::Failed(transfer, reason) => {
                self.forget(transfer);
                if self.json {
                    let failed = Event {
                        from: Some(from.to_string()),
                        reason: Some(reason.to_string()),
                        ..Event::new("failed", transfer)
                    };
                    crate::output::json(&failed)?;
                } else {
                    crate::output::say(format_args!("a file did not arrive: {reason}"));
                }
            }
        }
        Ok(())
    }

    async fn offered(&mut self, offer: FileOffer) -> Result<()> {
        let size = offer.size();
        if self.args.max_size.is_some_and(|most| size > most) {
            self.tell_offer("declined", &offer, None)?;
            crate::output::say(format_args!(
                "{} has {size} bytes: declined",
                shown(offer.name())
            ));
            offer.decline();
            return Ok(());
        }
        if let Some((offer, error)) = self.accept(offer).await? {
            self.tell_offer("waiting", &offer, Some(&error))?;
            advise(
                offer.from(),
                &error,
                "make room, start again with another --into,",
            );
            self.standing.push(offer);
        }
        Ok(())
    }

    /// Takes a file. Gives it back if it can't be placed: dropped, it would be declined.
    async fn accept(&mut self, mut offer: FileOffer) -> Result<Option<(FileOffer, FileError)>> {
        match offer.accept(&self.args.into).await {
            Ok(()) => {}
            Err(FileError::Session(error)) => return Err(error.into()),
            Err(error) => return Ok(Some((offer, error))),
        }
        self.tell_offer("accepted", &offer, None)?;
        let bar = bar(self.bars.as_ref(), offer.name(), offer.size());
        self.shown.insert(offer.transfer(), bar);
        Ok(None)
    }

    /// Tries again to place what could not be.
    async fn accept_standing(&mut self) -> Result<()> {
        for offer in std::mem::take(self.standing) {
            if let Some((offer, _)) = self.accept(offer).await? {
                self.standing.push(offer);
            }
        }
        Ok(())
    }

    fn tell_offer(
        &self,
        event: &'static str,
        offer: &FileOffer,
        error: Option<&FileError>,
    ) -> Result<()> {
        if self.json {
            crate::output::json(&Event {
                from: Some(offer.from().to_string()),
                name: Some(offer.name()),
                size: Some(offer.size()),
                hash: Some(HEXLOWER.encode(offer.hash())),
                reason: error.map(ToString::to_string),
                ..Event::new(event, offer.transfer())
            })?;
        }
        Ok(())
    }

    /// What comes of a peer can't be placed for now.
    fn waits(&self, from: PeerId, error: &FileError) -> Result<()> {
        if self.json {
            crate::output::json(&Event {
                from: Some(from.to_string()),
                reason: Some(error.to_string()),
                ..Event::new("waiting", None)
            })?;
        }
        advise(from, error, "make room,");
        Ok(())
    }

    fn forget(&mut self, transfer: TransferId) {
        if let Some(bar) = self.shown.remove(&transfer) {
            bar.finish_and_clear();
        }
    }
}

/// Says what to do. What was accepted stays where it is: another directory helps what was not alone.
fn advise(from: PeerId, error: &FileError, do_what: &str) {
    crate::output::say(format_args!(
        "what {from} sends waits, and is tried again: {error}; {do_what} or refuse it with \
         `outlive block`"
    ));
}

async fn receive_all(node: &Node, args: &ReceiveFiles, json: bool) -> Result<()> {
    // Goes last: as long as somebody follows its peer, an offer that is dropped is declined.
    let mut standing = Vec::new();
    let (sender, mut events) = mpsc::channel(1);
    let mut followed = BTreeSet::new();
    let mut following = JoinSet::new();
    if let Some(contact) = &args.from {
        let peer = contact.peer();
        followed.insert(peer);
        following.spawn(follow(node.clone(), peer, sender.clone()));
    }
    let mut receiver = Receiver {
        args,
        json,
        bars: bars(json),
        shown: BTreeMap::new(),
        left: args.count,
        standing: &mut standing,
    };
    let mut again = tokio::time::interval(AGAIN);
    while receiver.left != Some(0) {
        tokio::select! {
            Some((peer, event)) = events.recv() => match event {
                Ok(event) => receiver.take(peer, event).await?,
                Err(FileError::Session(error)) => return Err(error.into()),
                Err(error) => receiver.waits(peer, &error)?,
            },
            _ = again.tick(), if !receiver.standing.is_empty() => {
                receiver.accept_standing().await?;
            }
            peer = node.next_arrival(), if args.from.is_none() => {
                let peer = peer?;
                if followed.insert(peer) {
                    following.spawn(follow(node.clone(), peer, sender.clone()));
                }
            }
            Some(ended) = following.join_next() => ended??,
        }
    }
    // Its sender is to hear of the last one too.
    following.shutdown().await;
    settle(node, &followed).await
}

/// Waits, for a moment at most, until the peers have what was said to them.
async fn settle(node: &Node, peers: &BTreeSet<PeerId>) -> Result<()> {
    const MOMENT: Duration = Duration::from_secs(3);
    let said = async {
        for peer in peers {
            let mut state = node.session(*peer).await?.state();
            // A session that ends has said what it could.
            let _ = state.wait_for(|state| !state.outstanding).await;
        }
        Ok(())
    };
    // What is left is said at the next start.
    tokio::time::timeout(MOMENT, said).await.unwrap_or(Ok(()))
}

pub(crate) async fn receive(args: ReceiveFiles, json: bool) -> Result<()> {
    args.ways.check()?;
    let relays = args.ways.some_relays(args.from.as_ref())?;
    if !args.into.is_dir() {
        bail!("{} is no directory; make it first", args.into.display());
    }
    let (node, store) =
        crate::data::node(&args.data, &relays, &args.ways, args.from.as_ref()).await?;
    let work = receive_all(&node, &args, json);
    let end = run(&node, &*store, &args.data.dir, args.timeout, work).await;
    let coming = match &end {
        // Nothing more has to come.
        Ok(End::Done) | Err(_) => Ok(false),
        Ok(End::TimeOver | End::Stopped) => {
            let from = args.from.as_ref().map(Contact::peer);
            are_coming(&node, &*store, from).await
        }
    };
    node.shutdown().await?;
    match (end?, coming?) {
        // All that was there has come, and nobody said how many there have to be.
        (End::Stopped, false) if args.count.is_none() => Ok(()),
        (end, coming) => end.conclude(coming),
    }
}

/// What is looked at of one peer, at most.
const LOOKED_AT: ReadLimit = ReadLimit {
    records: 1_024,
    bytes: 1024 * 1024,
};

/// Whether there are files of this peer, or of any, that are not whole yet, or that were offered and not
/// taken.
async fn are_coming(node: &Node, store: &dyn Store, from: Option<PeerId>) -> Result<bool> {
    let is_meant = |info: &&SessionInfo| {
        info.trust != Trust::Blocked && from.is_none_or(|from| from == info.peer)
    };
    let mut after = None;
    loop {
        let page = node.sessions(after, PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(false);
        };
        after = Some(last.peer);
        for info in page.iter().filter(is_meant) {
            if are_coming_of(store, info).await? {
                return Ok(true);
            }
        }
    }
}

async fn are_coming_of(store: &dyn Store, info: &SessionInfo) -> Result<bool> {
    let range = Key::receiving_files(info.peer);
    for (_, row) in store.range(range, LOOKED_AT).await? {
        match ReceivingFileRecord::from_bytes(&row)?.state {
            ReceivingState::Coming | ReceivingState::Naming(_) => return Ok(true),
            ReceivingState::Received(_) => {}
        }
    }
    let Some(inbox) = info.record.inboxes.get(&ChannelId::FILES) else {
        return Ok(false);
    };
    // An offer waits here until it is taken. So may the word that a file which has come is known to
    // have.
    let range = Key::inbox(info.peer, ChannelId::FILES, Position(0), inbox.next);
    for (_, row) in store.range(range, LOOKED_AT).await? {
        if let InboxBody::Inline(payload) = InboxRecord::from_bytes(&row)?.body
            && let Ok(Some(FileMessage::Begin(..))) = FileMessage::decode(&payload)
        {
            return Ok(true);
        }
    }
    Ok(false)
}
