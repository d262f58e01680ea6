//! `outlive chat`: a conversation in a terminal.
//!
//! Each line of ours is shown with how far it got: `✓` queued on this device, `✓✓` delivered.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};

use anyhow::{Result, bail};
use outlive::{ChannelId, Connectivity, LinkClass, Receipt, ReceiptState, SessionState, Stage};
use rustyline_async::{Readline, ReadlineEvent};

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

pub(crate) async fn run(args: Chat) -> Result<()> {
    args.ways.check()?;
    let relays = args.ways.some_relays(Some(&args.with))?;
    if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        bail!("`chat` needs a terminal; in scripts use `outlive send` and `outlive listen`");
    }
    let (node, store) = crate::data::node(&args.data, &relays, &args.ways).await?;
    let session = crate::data::session(&node, &args.with).await?;
    let mut inbox = session.inbox(ChannelId::MESSAGES)?;
    let mut state = session.state();
    let (mut editor, mut out) = Readline::new(prompt(&state.borrow()))?;
    writeln!(out, "you are {}; end with Ctrl-D", node.peer_id())?;
    let mut waiting: VecDeque<(String, Receipt)> = VecDeque::new();
    let mut status = Box::pin(crate::status::serve(&node, &*store, &args.data.dir));
    loop {
        tokio::select! {
            () = &mut status => {}
            event = editor.readline() => match event? {
                ReadlineEvent::Line(text) if text.is_empty() => {}
                ReadlineEvent::Line(text) => {
                    editor.add_history_entry(text.clone());
                    let receipt = session.send(ChannelId::MESSAGES, text.clone()).await?;
                    writeln!(out, "✓  {text}")?;
                    waiting.push_back((text, receipt));
                }
                ReadlineEvent::Eof | ReadlineEvent::Interrupted => break,
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
    }
    editor.flush()?;
    drop((editor, inbox, session, waiting, status));
    node.shutdown().await?;
    Ok(())
}
