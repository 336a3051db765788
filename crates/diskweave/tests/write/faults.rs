//! What a host that fails leaves of a chain.

use testkit::faults::prove;

use crate::stories::STORIES;

#[test]
fn every_failure_is_told_and_the_chain_is_the_old_one_or_the_new() {
    let injected = prove(STORIES, |_| false);
    assert!(injected > 500);
}
