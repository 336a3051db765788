//! Every state a crash can leave.

use testkit::crash::Plan;

use crate::random;
use crate::stories::STORIES;

#[test]
fn every_state_a_crash_can_leave_is_an_image_with_what_was_flushed() {
    let few = Plan {
        states: 1000,
        seconds: None,
        seed: 0,
        random: 30,
    };
    let full = Plan {
        states: 4000,
        random: 60,
        ..few
    };
    let plan = Plan::of_environment(few, full);
    plan.prove("qcow2", STORIES, |seed| random::story(seed, 30));
}
