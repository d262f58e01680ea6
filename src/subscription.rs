//! Callbacks that end with their owner.
//!
//! Keeps I6: a subscription belongs to the session or the node, not to a link, so no reconnect touches
//! it; two of them never overwrite each other; and when one was dropped its callback is never entered
//! again.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, Weak};

use outlive_core::PeerId;
use tracing::error;

use crate::callback::Callback;
use crate::event::SessionEvent;
use crate::hub::Hold;
use crate::lock::lock;
use crate::state::SessionState;

type Observer = Box<dyn FnMut(PeerId, &SessionEvent, &SessionState) + Send>;

/// All callbacks of one session, or those of a node, which hear of all its sessions.
#[derive(Default)]
pub(crate) struct Registry {
    callbacks: Mutex<Callbacks>,
}

#[derive(Default)]
struct Callbacks {
    /// The number of the last one.
    last: u64,
    by_number: BTreeMap<u64, Arc<Callback<Observer>>>,
    /// Whether the session, or the node, is over: nothing happens in it any more.
    ended: bool,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registry({})", self.len())
    }
}

impl Registry {
    /// Adds a callback. `hold` keeps its session awake, if it is of one: asleep, that would forget the
    /// callback.
    pub(crate) fn add(
        self: &Arc<Self>,
        observer: impl FnMut(PeerId, &SessionEvent, &SessionState) + Send + 'static,
        hold: Option<Hold>,
    ) -> Subscription {
        let callback = Arc::new(Callback::new(Box::new(observer) as Observer));
        let mut callbacks = lock(&self.callbacks);
        callbacks.last = callbacks.last.wrapping_add(1);
        let (number, ended) = (callbacks.last, callbacks.ended);
        if !ended {
            callbacks.by_number.insert(number, callback.clone());
        }
        drop(callbacks);
        if ended {
            // It may own other subscriptions of this registry.
            callback.close();
        }
        Subscription {
            registry: Arc::downgrade(self),
            number,
            callback,
            _hold: hold,
        }
    }

    /// Enters every callback. None is entered while the list of them is locked, so callbacks may
    /// subscribe and unsubscribe.
    ///
    /// One that panics is ended, and harms nothing else: not the others, and not the session's task.
    pub(crate) fn emit(&self, peer: PeerId, event: &SessionEvent, state: &SessionState) {
        let callbacks = lock(&self.callbacks).by_number.clone();
        for (number, callback) in callbacks {
            let run = |observer: &mut Observer| {
                // What a panic left half done is the callback's alone, and that is dropped.
                let run = AssertUnwindSafe(|| observer(peer, event, state));
                let ran = std::panic::catch_unwind(run);
                if ran.is_err() {
                    // Within the run: the task of another session may wait for its end, to enter next.
                    callback.close();
                }
                ran
            };
            if let Some(Err(_panic)) = callback.enter(run) {
                error!("a callback panicked, and is ended");
                lock(&self.callbacks).by_number.remove(&number);
                callback.close();
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.callbacks).by_number.len()
    }

    /// Ends all of them, and whatever is added from now on: the session was closed, or the node was shut
    /// down.
    pub(crate) fn end(&self) {
        let ended = {
            let mut callbacks = lock(&self.callbacks);
            callbacks.ended = true;
            std::mem::take(&mut callbacks.by_number)
        };
        for callback in ended.into_values() {
            callback.close();
        }
    }
}

/// A registered callback. Dropping it ends it: when `drop` has returned, the callback is not
/// running and is never entered again. (Dropped from within the callback itself, it is not entered
/// again after this run.) While it lives, its session stays awake; one of
/// [`Node::on_event`](crate::Node::on_event) keeps none awake.
///
/// So `drop` waits, blocking its thread, for a run of the callback on another one. Hold no lock meanwhile
/// that the callback takes, or both wait for ever; and where a thread must not wait, as that of a user
/// interface, have callbacks that are quick, or drop it on another. A callback may drop its own subscription,
/// but no two may drop each other's: they would wait for each other. A callback runs on its session's
/// task: [`Node::shutdown`](crate::Node::shutdown) and, for what is subscribed to on the session itself,
/// [`Session::close`](crate::Session::close) wait for a run too, enter no callback after it, and drop what
/// the callbacks own, whether or not their subscriptions are dropped yet; dropping those then does not wait.
#[must_use = "a subscription ends when it is dropped"]
pub struct Subscription {
    registry: Weak<Registry>,
    number: u64,
    callback: Arc<Callback<Observer>>,
    _hold: Option<Hold>,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(registry) = self.registry.upgrade() {
            lock(&registry.callbacks).by_number.remove(&self.number);
        }
        self.callback.close();
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subscription({})", self.number)
    }
}

/// Subscriptions that end together.
#[derive(Debug, Default)]
pub struct SubscriptionSet {
    subscriptions: Vec<Subscription>,
}

impl SubscriptionSet {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a subscription.
    pub fn add(&mut self, subscription: Subscription) {
        self.subscriptions.push(subscription);
    }

    /// Ends all of them.
    pub fn clear(&mut self) {
        self.subscriptions.clear();
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.subscriptions.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.subscriptions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use outlive_core::Identity;

    use super::*;

    /// What a callback panics with: something happens in another session before anybody sees it.
    struct Meanwhile(Arc<Registry>);

    impl Drop for Meanwhile {
        fn drop(&mut self) {
            happen(&self.0);
        }
    }

    fn happen(registry: &Registry) {
        let peer = Identity::from_seed([2; 32]).peer_id();
        registry.emit(peer, &SessionEvent::StoreFailed, &SessionState::default());
    }

    #[test]
    fn a_callback_that_has_panicked_is_not_entered_by_another_session() {
        let registry: Arc<Registry> = Arc::default();
        let (entered, inside) = (Arc::new(AtomicUsize::new(0)), registry.clone());
        let counted = entered.clone();
        let observer = move |_, _: &SessionEvent, _: &SessionState| {
            if counted.fetch_add(1, Ordering::SeqCst) == 0 {
                std::panic::panic_any(Meanwhile(inside.clone()));
            }
        };
        let _subscription = registry.add(observer, None);
        happen(&registry);
        assert_eq!(entered.load(Ordering::SeqCst), 1);
        assert_eq!(registry.len(), 0);
    }
}
