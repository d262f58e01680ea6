//! The delivery token: with it others reach our mailbox without being named to the relay.

use bytes::Bytes;
use outlive_core::store::{Batch, Store, StoreError};
use outlive_core::transport::DeliveryToken;

use super::Node;
use crate::entropy::random;
use crate::error::Error;

/// Where the token is kept.
const TOKEN_KEY: &[u8] = b"n/delivery-token";

pub(super) async fn load_token(store: &dyn Store) -> Result<Option<DeliveryToken>, Error> {
    let Some(value) = store.get(Bytes::from_static(TOKEN_KEY)).await? else {
        return Ok(None);
    };
    let bytes = <[u8; 32]>::try_from(&value[..]).map_err(|_| StoreError::Damaged {
        what: "the delivery token".to_owned(),
    })?;
    Ok(Some(DeliveryToken::from_bytes(bytes)))
}

impl Node {
    /// The token with which others put messages into our mailbox without being named to the relay
    /// ([`Session::send_unidentified`](crate::Session::send_unidentified)). Drawn when this is called
    /// first, kept on disk, and told to each relay at every sign-in from then on. Give it to
    /// contacts, as text if need be. Cancellation-safe.
    ///
    /// # Errors
    /// [`Error::Store`], or [`Error::Entropy`].
    pub async fn delivery_token(&self) -> Result<DeliveryToken, Error> {
        let _turn = self.inner.token_turn.acquire().await;
        let present = self.inner.token.borrow().clone();
        match present {
            Some(token) => Ok(token),
            None => self.draw_token().await,
        }
    }

    /// Another token in place of the one before. Who has only that one reaches us under its own name
    /// alone, as soon as a relay has heard of it: at once if we are signed in, else when we are.
    /// Dropped half-way, the old token stays in use; after the next start it may be the new one. Call it
    /// again.
    ///
    /// # Errors
    /// As for [`delivery_token`](Self::delivery_token).
    pub async fn renew_delivery_token(&self) -> Result<DeliveryToken, Error> {
        let _turn = self.inner.token_turn.acquire().await;
        self.draw_token().await
    }

    async fn draw_token(&self) -> Result<DeliveryToken, Error> {
        let bytes = random()?;
        let mut batch = Batch::new();
        batch.put(
            Bytes::from_static(TOKEN_KEY),
            Bytes::copy_from_slice(&bytes),
        );
        self.inner.store.commit(batch).await?;
        let token = DeliveryToken::from_bytes(bytes);
        self.inner.token.send_replace(Some(token.clone()));
        Ok(token)
    }
}
