//! The way from a handle to the task of its session.

use std::sync::Arc;

use outlive_core::store::StoreError;
use tokio::sync::mpsc;

use crate::error::Error;
use crate::hub::{Hold, Hub};
use crate::node::Inner;
use crate::task::{Command, Input};

/// The way to a session's task, wherever it is at the moment.
#[derive(Clone)]
pub(crate) struct Route {
    inner: Arc<Inner>,
    hub: Hold,
}

impl Route {
    pub(crate) const fn new(inner: Arc<Inner>, hub: Hold) -> Self {
        Self { inner, hub }
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    pub(crate) fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    pub(crate) fn hold(&self) -> Hold {
        self.hub.clone()
    }

    /// A place among the task's inputs. Cancellation-safe.
    pub(crate) async fn reserve(&self) -> Result<mpsc::OwnedPermit<Input>, Error> {
        loop {
            if let Ok(place) = self.inputs()?.reserve_owned().await {
                return Ok(place);
            }
        }
    }

    pub(crate) async fn send(&self, command: Command) -> Result<(), Error> {
        let mut input = Input::Command(command);
        loop {
            match self.inputs()?.send(input).await {
                Ok(()) => return Ok(()),
                // The task ended between the two: there is a new one.
                Err(mpsc::error::SendError(back)) => input = back,
            }
        }
    }

    fn inputs(&self) -> Result<mpsc::Sender<Input>, Error> {
        self.still_there()?;
        let inputs = self.inner.inputs(self.hub.peer)?;
        // If it ended between the two, they are those of the session that came after it.
        self.still_there()?;
        Ok(inputs)
    }

    fn still_there(&self) -> Result<(), Error> {
        if self.hub.ended.is_cancelled() {
            return Err(self.gone());
        }
        Ok(())
    }

    /// Waits until the session was closed or the node shut down.
    pub(crate) async fn ended(&self) {
        self.hub.ended.cancelled().await;
    }

    /// Why the store failed, if it is because its node was shut down.
    pub(crate) fn or_gone(&self, error: Error) -> Error {
        match error {
            Error::Store(StoreError::Closed) if self.inner.cancel.is_cancelled() => self.gone(),
            error => error,
        }
    }

    /// What it was, for whoever has lost an answer by it.
    pub(crate) fn gone(&self) -> Error {
        if self.inner.cancel.is_cancelled() {
            Error::Shutdown
        } else if self.inner.admission.is_blocked(self.hub.peer) {
            Error::Blocked(self.hub.peer)
        } else {
            Error::Closed
        }
    }
}
