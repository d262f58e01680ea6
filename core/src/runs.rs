//! Sets of counters, kept as runs.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::marker::PhantomData;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Position, Seq};

/// A counter that a [`RunSet`] can hold.
pub trait Counter: Copy + Ord {
    /// The counter with this number.
    fn of(number: u64) -> Self;
    /// Its number.
    fn number(self) -> u64;
}

impl Counter for Seq {
    fn of(number: u64) -> Self {
        Self(number)
    }
    fn number(self) -> u64 {
        self.0
    }
}

impl Counter for Position {
    fn of(number: u64) -> Self {
        Self(number)
    }
    fn number(self) -> u64 {
        self.0
    }
}

/// A set of counters. Its size in memory is that of its gaps, not of its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSet<C> {
    /// First → one past the last, neither touching nor overlapping.
    runs: BTreeMap<u64, u64>,
    counter: PhantomData<C>,
}

impl<C> Default for RunSet<C> {
    fn default() -> Self {
        Self {
            runs: BTreeMap::new(),
            counter: PhantomData,
        }
    }
}

impl<C: Counter> RunSet<C> {
    /// Adds `counter`.
    pub fn insert(&mut self, counter: C) {
        self.insert_run(counter, C::of(counter.number().saturating_add(1)));
    }

    /// Adds all from `first` up to but not including `end`.
    pub fn insert_run(&mut self, first: C, end: C) {
        let (mut first, mut end) = (first.number(), end.number());
        if first >= end {
            return;
        }
        if let Some((&start, &stop)) = self.runs.range(..=first).next_back()
            && stop >= first
        {
            first = start;
            end = end.max(stop);
        }
        while let Some((&start, &stop)) = self.runs.range(first..=end).next() {
            end = end.max(stop);
            self.runs.remove(&start);
        }
        self.runs.insert(first, end);
    }

    /// Removes all from `first` up to but not including `end`.
    pub fn remove_run(&mut self, first: C, end: C) {
        let (first, end) = (first.number(), end.number());
        if first >= end {
            return;
        }
        if let Some((&start, &stop)) = self.runs.range(..first).next_back()
            && stop > first
        {
            self.runs.insert(start, first);
            if stop > end {
                self.runs.insert(end, stop);
            }
        }
        while let Some((&start, &stop)) = self.runs.range(first..end).next() {
            self.runs.remove(&start);
            if stop > end {
                self.runs.insert(end, stop);
            }
        }
    }

    /// Removes all below `bound`.
    pub fn remove_below(&mut self, bound: C) {
        self.remove_run(C::of(0), bound);
    }

    /// Removes all that `other` holds.
    pub fn remove_all(&mut self, other: &Self) {
        for (first, end) in other.iter() {
            self.remove_run(first, end);
        }
    }

    /// Adds all that `other` holds.
    pub fn insert_all(&mut self, other: &Self) {
        for (first, end) in other.iter() {
            self.insert_run(first, end);
        }
    }

    /// Whether `counter` is in the set.
    #[must_use]
    pub fn contains(&self, counter: C) -> bool {
        self.runs
            .range(..=counter.number())
            .next_back()
            .is_some_and(|(_, &end)| counter.number() < end)
    }

    /// The first counter from `from` on that is not in the set.
    #[must_use]
    pub fn first_gap(&self, from: C) -> C {
        match self.runs.range(..=from.number()).next_back() {
            Some((_, &end)) if from.number() < end => C::of(end),
            _ => from,
        }
    }

    /// The runs in order: first, and one past the last.
    pub fn iter(&self) -> impl Iterator<Item = (C, C)> + '_ {
        self.runs
            .iter()
            .map(|(&first, &end)| (C::of(first), C::of(end)))
    }

    /// The least that lies between two runs, from the end of one to where the next begins; of several
    /// the last.
    #[must_use]
    pub fn narrowest_gap(&self) -> Option<(C, C)> {
        let ends = self.iter().map(|(_, end)| end);
        let begins = self.iter().skip(1).map(|(first, _)| first);
        ends.zip(begins)
            .max_by_key(|(end, first)| Reverse(first.number().saturating_sub(end.number())))
    }

    /// How many runs there are.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        self.runs.clear();
    }
}

impl<C: Counter> Serialize for RunSet<C> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.runs.iter())
    }
}

impl<'de, C: Counter> Deserialize<'de> for RunSet<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut set = Self::default();
        for (first, end) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            set.insert_run(C::of(first), C::of(end));
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_run_set_holds_what_a_plain_set_holds(
            ops in proptest::collection::vec((any::<bool>(), 0u64..60, 0u64..20), 0..60),
        ) {
            let mut runs = RunSet::<Seq>::default();
            let mut plain = BTreeSet::new();
            for (add, first, count) in ops {
                let end = first + count;
                if add {
                    runs.insert_run(Seq(first), Seq(end));
                    plain.extend(first..end);
                } else {
                    runs.remove_run(Seq(first), Seq(end));
                    plain.retain(|n| !(first..end).contains(n));
                }
                for n in 0..90 {
                    prop_assert_eq!(runs.contains(Seq(n)), plain.contains(&n));
                    let gap = (n..).find(|m| !plain.contains(m)).unwrap_or(n);
                    prop_assert_eq!(runs.first_gap(Seq(n)), Seq(gap));
                }
                let listed: Vec<_> = runs.iter().collect();
                for pair in listed.windows(2) {
                    prop_assert!(pair[0].1 < pair[1].0, "runs touch: {:?}", listed);
                }
                let gap = |(end, first): (Seq, Seq)| first.0 - end.0;
                let least = listed.windows(2).map(|pair| gap((pair[0].1, pair[1].0))).min();
                prop_assert_eq!(runs.narrowest_gap().map(gap), least);
            }
        }
    }
}
