//! The rules that a test can switch off, to see that it would notice.

/// A rule of the negotiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[doc(hidden)]
pub enum Rule {
    /// Of two offers that cross, the polite peer's gives way.
    Politeness,
    /// What is older than the newest that was heard is not applied.
    Generations,
    /// An answer is applied to the offer that it names, and to no other.
    AnswersMatch,
    /// Candidates wait for the description they belong to.
    HoldCandidates,
    /// A candidate is added to the negotiation that it names, and to no other.
    CandidatesMatch,
    /// A restart that does not come up ends in a new connection.
    NewAfterRestart,
    /// A peer whose offers are too old to be taken is told where to go on.
    Decline,
    /// An answer takes back the offers that its sender made before.
    TakeBack,
}

/// The rules that are kept: all of them, outside of tests.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rules {
    #[cfg(feature = "sabotage")]
    broken: Option<Rule>,
}

#[cfg(feature = "sabotage")]
impl Rules {
    pub(super) fn keeps(self, rule: Rule) -> bool {
        self.broken != Some(rule)
    }
}

#[cfg(not(feature = "sabotage"))]
impl Rules {
    // Takes the same arguments as the one above, so that its callers need no `cfg`.
    pub(super) const fn keeps(self, _rule: Rule) -> bool {
        true
    }
}

#[cfg(feature = "sabotage")]
impl super::Negotiator {
    /// Breaks a rule from here on.
    #[doc(hidden)]
    pub fn break_rule(&mut self, rule: Rule) {
        self.rules.broken = Some(rule);
    }
}
