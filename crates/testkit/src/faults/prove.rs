//! Failures of the host under every story of a format.

use super::FaultInjector;
use crate::crash::{CrashSubject, Named, asks_for_much};

/// Tells every story of `named` under failures, but for the subjects that `is_left_out` names, and
/// says how many failures that were. Of every kind of call the first few fail, or, where the
/// environment asks for more than a few crash states, each of them.
///
/// # Panics
/// With the report of a story that ends badly, or in which nothing could be made to fail.
#[expect(clippy::print_stdout, reason = "what a proof came to is printed")]
pub fn prove<S: CrashSubject>(named: &[Named<S>], is_left_out: impl Fn(&S) -> bool) -> u64 {
    let calls = if asks_for_much() { u64::MAX } else { 4 };
    let mut injected = 0;
    for (name, make) in named {
        let (subject, mut scenario) = make();
        if is_left_out(&subject) {
            continue;
        }
        scenario.name = (*name).into();
        let report = FaultInjector::new(&subject)
            .states(3)
            .at_most(calls)
            .run(&scenario);
        println!("{report}");
        report.assert_clean();
        injected += report.injected;
    }
    println!("{injected} failures");
    injected
}
