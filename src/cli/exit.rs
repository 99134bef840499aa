//! Exit codes. They are an API: scripts and pipelines branch on them.

use crate::verdict::{Outcome, Verdict};

/// What the process exits with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: every image passed.
    Pass,
    /// 1: an image failed.
    Fail,
    /// 2: the command line is wrong. Nothing was fetched.
    Usage,
    /// 3: an image could not be had, or a limit of this machine kept it from being judged.
    Undecided,
    /// 4: there was nothing to test.
    NothingTested,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Fail => 1,
            Self::Usage => 2,
            Self::Undecided => 3,
            Self::NothingTested => 4,
        }
    }

    /// The code for one verdict.
    pub fn of(verdict: &Verdict) -> Self {
        match verdict.outcome {
            Outcome::Fail => Self::Fail,
            Outcome::Undecided => Self::Undecided,
            // A module that loads under no root_id was not tested.
            Outcome::Pass if verdict.roots.is_empty() => Self::NothingTested,
            Outcome::Pass => Self::Pass,
        }
    }

    /// The worse of two: fail, then undecided, then nothing tested, then pass.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        let weight = |exit| match exit {
            Self::Pass => 0,
            Self::NothingTested => 1,
            Self::Undecided => 2,
            Self::Fail => 3,
            Self::Usage => 4,
        };
        if weight(other) > weight(self) { other } else { self }
    }
}

#[cfg(test)]
mod tests {
    use super::Exit::*;

    #[test]
    fn a_failure_outweighs_everything_else() {
        assert_eq!(Pass.worst(Undecided), Undecided);
        assert_eq!(Undecided.worst(Fail), Fail);
        assert_eq!(Fail.worst(Undecided), Fail);
        assert_eq!(NothingTested.worst(Pass), NothingTested);
    }
}
