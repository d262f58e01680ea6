//! Whose turn it is.

use std::collections::{HashSet, VecDeque};

use outlive_core::wire::relay::Sender;

/// Senders in the order of their turns, each of them once.
#[derive(Default)]
pub(super) struct Turns {
    order: VecDeque<Sender>,
    waiting: HashSet<Sender>,
}

impl Turns {
    /// Adds a sender at the end, if it does not wait already.
    pub(super) fn add(&mut self, sender: Sender) {
        if self.waiting.insert(sender) {
            self.order.push_back(sender);
        }
    }

    /// Whose turn it is.
    pub(super) fn first(&self) -> Option<Sender> {
        self.order.front().copied()
    }

    /// The turn of the first is over.
    pub(super) fn pass(&mut self) {
        if let Some(sender) = self.order.pop_front() {
            self.waiting.remove(&sender);
        }
    }

    pub(super) fn holds(&self, sender: &Sender) -> bool {
        self.waiting.contains(sender)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}
