//! `outlive contact`: what to give to somebody, as text and as a QR code.

use anyhow::{Context, Result};
use outlive::Contact;
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use serde::Serialize;

use crate::data::Directory;
use crate::given::WrongUsage;

#[derive(Serialize)]
struct Row {
    contact: String,
}

/// The code in half blocks. Light is what a terminal draws: most are dark.
fn qr(text: &str) -> Result<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L)
        .context("the contact is too long for a QR code; name fewer relays")?;
    Ok(code
        .render::<Dense1x2>()
        .dark_color(Dense1x2::Light)
        .light_color(Dense1x2::Dark)
        .build())
}

pub(crate) async fn run(args: crate::args::Contact, json: bool) -> Result<()> {
    let peer = Directory::open(&args.data)?.identity().peer_id();
    let mut contact =
        Contact::new(peer, args.relay).map_err(|error| WrongUsage::new(error.to_string()))?;
    if args.token {
        let node = crate::data::alone(&args.data).await?;
        contact = contact.with_token(node.delivery_token().await?)?;
        node.shutdown().await?;
    }
    let contact = contact.to_string();
    if json {
        crate::output::json(&Row { contact })?;
        return Ok(());
    }
    crate::output::line(contact.as_bytes())?;
    if args.qr {
        crate::output::line(qr(&contact)?.as_bytes())?;
    }
    Ok(())
}
