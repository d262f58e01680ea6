//! Whose a store is.

use bytes::Bytes;
use outlive_core::PeerId;
use outlive_core::store::{Batch, Store, StoreError, refuse_locked};

use crate::error::Error;

/// Where a store names whose it is.
const PEER_KEY: &[u8] = b"n/peer";

/// Who a store belongs to: the first peer that a node was started as on it. `None` if it is new, or from
/// before stores named anybody. For tools that look into a store without starting a node.
/// Cancellation-safe: it only reads.
///
/// # Errors
/// [`Error::Store`], also if the store is encrypted and was not unlocked.
pub async fn store_owner(store: &dyn Store) -> Result<Option<PeerId>, Error> {
    refuse_locked(store).await?;
    let Some(value) = store.get(Bytes::from_static(PEER_KEY)).await? else {
        return Ok(None);
    };
    let owner = <[u8; 32]>::try_from(&value[..]).ok();
    let owner = owner.and_then(|bytes| PeerId::from_bytes(bytes).ok());
    let owner = owner.ok_or_else(|| StoreError::Damaged {
        what: "whose store it is".to_owned(),
    })?;
    Ok(Some(owner))
}

/// What is to be written so that the store names whose it is: nothing, if it does.
pub(super) async fn refuse_other(store: &dyn Store, given: PeerId) -> Result<Batch, Error> {
    let mut batch = Batch::new();
    match store_owner(store).await? {
        None => batch.put(
            Bytes::from_static(PEER_KEY),
            Bytes::copy_from_slice(given.as_bytes()),
        ),
        Some(owner) if owner == given => {}
        Some(store) => return Err(Error::OtherIdentity { store, given }),
    }
    Ok(batch)
}
