//! What to do when the machine lacks something a test needs.

use std::io::Write;

/// True on a machine where a test that cannot run is a failure.
pub(crate) fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| value == "true")
}

/// Something is missing: a failure in CI, a loud line elsewhere.
///
/// # Panics
/// When `CI` is `true`.
pub(crate) fn missing(what: &str) {
    assert!(!is_ci(), "{what}");
    // Past the test harness, which swallows what passing tests print.
    let line = format!("\n*** SKIPPED: {what}\n");
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
}
