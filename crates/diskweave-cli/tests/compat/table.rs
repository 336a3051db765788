//! What is compared: tables of cases.

use std::fmt;

/// Every case of one verb.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) verb: &'static str,
    pub(crate) groups: Vec<Group>,
}

/// Cases that start from the same files.
#[derive(Debug)]
pub(crate) struct Group {
    /// The steps by which these are made: see [`given`](super::given).
    pub(crate) given: Vec<&'static str>,
    pub(crate) cases: Vec<Case>,
}

/// One command line, for both.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) verb: &'static str,
    pub(crate) name: &'static str,
    /// What follows the program's name; spaces inside of `'…'` do not part words.
    pub(crate) line: &'static str,
    /// Files that need not be the same byte for byte, each with the format as which they hold the same.
    pub(crate) leaves: Vec<(&'static str, &'static str)>,
    /// What differs and is meant to.
    pub(crate) differs: Vec<Differs>,
}

/// A difference that is kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Differs {
    pub(crate) what: What,
    pub(crate) reason: &'static str,
}

/// What of an answer can differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Code,
    Stdout,
    Stderr,
    Files,
}

impl Table {
    pub(crate) fn new(verb: &'static str) -> Self {
        Self {
            verb,
            groups: Vec::new(),
        }
    }

    /// Begins a group of cases.
    pub(crate) fn given(&mut self, steps: &[&'static str]) -> &mut Self {
        self.groups.push(Group {
            given: steps.to_vec(),
            cases: Vec::new(),
        });
        self
    }

    /// Adds a case to the group.
    pub(crate) fn case(&mut self, name: &'static str, line: &'static str) -> &mut Self {
        let group = self.groups.last_mut().expect("a group was begun");
        group.cases.push(Case {
            verb: self.verb,
            name,
            line,
            leaves: Vec::new(),
            differs: Vec::new(),
        });
        self
    }

    /// The case before leaves `file`, which holds the same as `format`, but not at the same places.
    pub(crate) fn leaves(&mut self, format: &'static str, file: &'static str) -> &mut Self {
        self.last().leaves.push((format, file));
        self
    }

    /// The case before differs, and is meant to.
    pub(crate) fn differs(&mut self, what: What, reason: &'static str) -> &mut Self {
        self.last().differs.push(Differs { what, reason });
        self
    }

    fn last(&mut self) -> &mut Case {
        let group = self.groups.last_mut().expect("a group was begun");
        group.cases.last_mut().expect("a case was added")
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.verb, self.name)
    }
}
