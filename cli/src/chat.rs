//! `outlive chat`: a conversation in a terminal.
//!
//! Each line of ours is shown with how far it got: `✓` queued on this device, `✓✓` delivered.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anyhow::{Result, bail};
use outlive::{ChannelId, Connectivity, LinkClass, Receipt, ReceiptState, SessionState, Stage};
use rustyline_async::{Readline, ReadlineEvent};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::args::Chat;
use crate::output::shown;

fn prompt(state: &SessionState) -> String {
    match (state.connectivity(), state.peer_online) {
        (Connectivity::Offline, _) => "[offline] > ".to_owned(),
        (Connectivity::Direct, _) => match state.carrier() {
            Some(link) if link.class == LinkClass::Direct => format!("[{}] > ", link.transport),
            // It is there, and does not carry yet.
            _ => "[peer online] > ".to_owned(),
        },
        (Connectivity::Relayed, Some(true)) => "[peer online] > ".to_owned(),
        (Connectivity::Relayed, _) => "[peer away] > ".to_owned(),
    }
}

/// Waits until the oldest of our lines is delivered or has ended.
async fn settled(waiting: &VecDeque<(String, Receipt)>) -> Result<ReceiptState> {
    let Some((_, receipt)) = waiting.front() else {
        return std::future::pending().await;
    };
    let mut state = receipt.state();
    loop {
        match state {
            ReceiptState::Reached(stage) if stage >= Stage::Delivered => return Ok(state),
            ReceiptState::Ended(_) => return Ok(state),
            ReceiptState::Reached(_) | ReceiptState::Waiting(_) => {
                state = receipt.changed(state).await?;
            }
        }
    }
}

/// How long a chat whose terminal is gone may take to end. The editor may be stuck in reading from it.
const TO_END: Duration = Duration::from_secs(5);

/// Waits until nobody is at the other end of the terminal, which the editor does not tell.
async fn is_gone() -> io::Result<()> {
    #[allow(
        deprecated,
        reason = "the other way is unsafe, and stdin is open as long as the process is there"
    )]
    let terminal = AsyncFd::with_interest(io::stdin(), Interest::READABLE)?;
    loop {
        let mut told = terminal.readable().await?;
        if told.ready().is_read_closed() {
            return Ok(());
        }
        // What is there to be read is the editor's.
        told.clear_ready();
    }
}

/// Tells when the terminal is gone, and ends the process if that does not. What was said is on disk.
async fn watch_terminal(gone: oneshot::Sender<()>) {
    if is_gone().await.is_err() {
        // It can't be watched here; the signal of its end does without.
        return std::future::pending().await;
    }
    // Whoever does not listen is at its end already.
    let _ = gone.send(());
    tokio::time::sleep(TO_END).await;
    std::process::exit(1);
}

pub(crate) async fn run(args: Chat) -> Result<()> {
    args.ways.check()?;
    let relays = args.ways.some_relays(Some(&args.with))?;
    if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
        bail!("`chat` needs a terminal; in scripts use `outlive send` and `outlive listen`");
    }
    let (node, store) =
        crate::data::node(&args.data, &relays, &args.ways, Some(&args.with)).await?;
    let session = crate::data::session(&node, &args.with, &args.ways).await?;
    let mut inbox = session.inbox(ChannelId::MESSAGES)?;
    let mut state = session.state();
    let (mut editor, mut out) = Readline::new(prompt(&state.borrow()))?;
    writeln!(out, "you are {}; end with Ctrl-D", node.peer_id())?;
    let mut waiting: VecDeque<(String, Receipt)> = VecDeque::new();
    let mut status = Box::pin(crate::status::serve(&node, &*store, &args.data.dir));
    let (tell, mut gone) = oneshot::channel();
    let mut watching = JoinSet::new();
    watching.spawn(watch_terminal(tell));
    let there = loop {
        tokio::select! {
            () = &mut status => {}
            _ = &mut gone => break false,
            event = editor.readline() => match event? {
                ReadlineEvent::Line(text) if text.is_empty() => {}
                ReadlineEvent::Line(text) => {
                    editor.add_history_entry(text.clone());
                    let receipt = session.send(ChannelId::MESSAGES, text.clone()).await?;
                    writeln!(out, "✓  {text}")?;
                    waiting.push_back((text, receipt));
                }
                ReadlineEvent::Eof | ReadlineEvent::Interrupted => break true,
            },
            delivery = inbox.next() => {
                let delivery = delivery?;
                let text = shown(&String::from_utf8_lossy(delivery.payload()));
                let mark = if delivery.redelivered() { " (again)" } else { "" };
                writeln!(out, "<  {text}{mark}")?;
                delivery.commit().await?;
            }
            settled = settled(&waiting) => {
                let settled = settled?;
                if let Some((text, _)) = waiting.pop_front() {
                    match settled {
                        ReceiptState::Ended(how) => writeln!(out, "✗  {text} ({how})")?,
                        ReceiptState::Reached(_) | ReceiptState::Waiting(_) => {
                            writeln!(out, "✓✓ {text}")?;
                        }
                    }
                }
            }
            changed = state.changed() => {
                changed?;
                let prompt = prompt(&state.borrow_and_update());
                editor.update_prompt(&prompt)?;
            }
        }
    };
    if there {
        editor.flush()?;
    }
    drop((editor, inbox, session, waiting, status));
    node.shutdown().await?;
    Ok(())
}
