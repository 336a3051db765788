//! Every state a crash can leave, of all files of a chain at once.

use testkit::crash::Plan;

use crate::stories::{STORIES, random};

#[test]
fn every_state_a_crash_can_leave_is_the_old_chain_or_the_new_and_is_finished_by_another_run() {
    let few = Plan {
        states: 250,
        seconds: None,
        seed: 0,
        random: 10,
    };
    let full = Plan {
        states: 4000,
        random: 40,
        ..few
    };
    let plan = Plan::of_environment(few, full);
    plan.prove("chain", STORIES, random);
}
