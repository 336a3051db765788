//! Why rows fall short of their targets: what limits them, and what was tried against it.

use super::targets::Rows;

/// One reason.
#[derive(Debug)]
pub(crate) struct Limit {
    /// What rows refer to it by.
    pub(crate) name: &'static str,
    /// The rows that it holds back.
    pub(super) rows: &'static [Rows],
    pub(crate) what: &'static str,
    /// Each in a sentence, with what came of it.
    pub(crate) tried: &'static [&'static str],
}

pub(super) const LIMITS: &[Limit] = &[];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gives_up_before_the_third_attempt() {
        for limit in LIMITS {
            assert!(limit.tried.len() >= 3, "{}", limit.name);
            assert!(!limit.rows.is_empty(), "{}", limit.name);
            let named = LIMITS.iter().filter(|other| other.name == limit.name);
            assert_eq!(named.count(), 1, "{}", limit.name);
        }
    }
}
