//! `outlive verify`, `outlive block` and `outlive unblock`: what a person decides about a peer.

use anyhow::{Result, bail};
use outlive::{PeerId, Trust};
use serde::Serialize;

use crate::args::{Decide, Verify};

/// What scripts read.
pub(crate) const fn name(trust: Trust) -> &'static str {
    match trust {
        Trust::Unknown => "unknown",
        Trust::Pinned => "pinned",
        Trust::Verified => "verified",
        Trust::Blocked => "blocked",
    }
}

#[derive(Serialize)]
struct Row {
    peer: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    safety_number: Option<String>,
    trust: &'static str,
}

fn print(peer: PeerId, safety_number: Option<String>, trust: Trust, json: bool) -> Result<()> {
    let trust = name(trust);
    let peer = peer.to_string();
    if json {
        crate::output::json(&Row {
            peer,
            safety_number,
            trust,
        })?;
    } else if let Some(number) = safety_number {
        crate::output::line(number.as_bytes())?;
        crate::output::line(trust.as_bytes())?;
    } else {
        crate::output::line(format!("{peer}  {trust}").as_bytes())?;
    }
    Ok(())
}

/// Prints the safety number of a peer, and marks it as verified if it was compared.
pub(crate) async fn verify(args: Verify, json: bool) -> Result<()> {
    let peer = args.peer.peer();
    let node = crate::data::alone(&args.data).await?;
    if peer == node.peer_id() {
        bail!("this is the peer id of {} itself", args.data.dir.display());
    }
    if args.confirm {
        if node.trust(peer).await? == Trust::Blocked {
            bail!("this peer is blocked; unblock it first");
        }
        node.set_trust(peer, Trust::Verified).await?;
    }
    let trust = node.trust(peer).await?;
    let number = node.safety_number(peer).to_string();
    print(peer, Some(number), trust, json)?;
    if trust != Trust::Verified {
        crate::output::say(
            "compare this number with the one that the other person sees; if they are the same, run this again with --confirm",
        );
    }
    node.shutdown().await?;
    Ok(())
}

/// Blocks a peer, or unblocks it.
pub(crate) async fn block(args: Decide, blocked: bool, json: bool) -> Result<()> {
    let peer = args.peer.peer();
    let node = crate::data::alone(&args.data).await?;
    if blocked {
        node.block(peer).await?;
    } else {
        node.unblock(peer).await?;
    }
    print(peer, None, node.trust(peer).await?, json)?;
    node.shutdown().await?;
    Ok(())
}
