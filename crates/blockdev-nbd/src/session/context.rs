//! Metadata contexts: what can be known of a range without reading it ("Metadata querying").

/// A context that this server knows. Its number on the wire is its own, whatever was selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Context {
    /// `base:allocation`: what is not stored, and what is zeros.
    Allocation,
    /// `qemu:allocation-depth`: which layer of a chain decides, from 1; 0 for none.
    Depth,
}

impl Context {
    /// Those of every export come first.
    pub(crate) const ALL: &[Self] = &[Self::Allocation, Self::Depth];
    pub(crate) const WITHOUT_DEPTH: &[Self] = &[Self::Allocation];

    pub(crate) fn id(self) -> u32 {
        match self {
            Self::Allocation => 1,
            Self::Depth => 2,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Allocation => "base:allocation",
            Self::Depth => "qemu:allocation-depth",
        }
    }

    /// True when `query` is its name; where a namespace alone is a question, also when it is that.
    fn matches(self, query: &[u8], by_namespace: bool) -> bool {
        let name = self.name().as_bytes();
        let namespace = name.iter().position(|byte| *byte == b':');
        let namespace = namespace.map_or(name, |colon| &name[..=colon]);
        query == name || (by_namespace && query == namespace)
    }

    /// Those of `offered` that any of `queries` names, each once. Whoever lists asks by namespace too, and by no
    /// query at all for everything; whoever selects says names.
    pub(crate) fn chosen(offered: &[Self], queries: &[&[u8]], listing: bool) -> Vec<Self> {
        let named = |context: &Self| {
            let mut queries = queries.iter();
            queries.any(|query| context.matches(query, listing))
        };
        let all = listing && queries.is_empty();
        let offered = offered.iter().copied();
        offered.filter(|context| all || named(context)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_a_question_and_no_choice() {
        let chosen = |queries: &[&[u8]], listing| Context::chosen(Context::ALL, queries, listing);
        assert_eq!(chosen(&[], true), Context::ALL);
        assert_eq!(chosen(&[], false), []);
        assert_eq!(chosen(&[b"base:"], true), [Context::Allocation]);
        assert_eq!(chosen(&[b"base:"], false), []);
        let twice: [&[u8]; 3] = [b"qemu:allocation-depth", b"x-other:", b"qemu:"];
        assert_eq!(chosen(&twice, true), [Context::Depth]);
        assert_eq!(chosen(&[b"base:allocation2"], true), []);
        for listing in [true, false] {
            let without = Context::chosen(Context::WITHOUT_DEPTH, &twice, listing);
            assert_eq!(without, [], "what is not offered is not to be had");
        }
    }
}
