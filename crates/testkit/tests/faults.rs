//! The fault injector, proved on the toy format.

mod toy;

use blockdev_core::ZeroFlags;
use testkit::crash::{Control, Scenario};
use testkit::faults::{FaultInjector, FaultReport};
use toy::{BLOCK, Bug, Toy};

const SIZE: u64 = 32 * BLOCK;

fn scenarios() -> Vec<Scenario<'static, Toy>> {
    vec![
        Scenario::new("write, zero, flush", Toy::image(SIZE), |d| {
            d.write(0, 3 * BLOCK)?;
            d.flush()?;
            d.write(700, 2000)?;
            d.write_zeroes(BLOCK, 2 * BLOCK, ZeroFlags::default())?;
            d.write(7 * BLOCK, BLOCK)?;
            d.read(0, SIZE)?;
            d.flush()?;
            d.reopen()?;
            d.write(9 * BLOCK + 100, 6000)?;
            d.flush()
        }),
        Scenario::new("snapshot and size", Toy::image(SIZE), |d| {
            d.write(0, 2 * BLOCK)?;
            d.control(Control::SnapshotCreate(1))?;
            d.write(512, 512)?;
            d.flush()?;
            d.control(Control::SnapshotApply(1))?;
            d.control(Control::SnapshotDelete(1))?;
            d.control(Control::Resize(SIZE / 2))?;
            d.write(512, 512)?;
            d.flush()
        }),
    ]
}

fn run(bug: Option<Bug>) -> Vec<FaultReport> {
    let toy = Toy { bug, parent: None };
    let injector = FaultInjector::new(&toy);
    scenarios().iter().map(|s| injector.run(s)).collect()
}

#[test]
fn a_right_engine_bears_every_failure() {
    for report in run(None) {
        println!("{report}");
        report.assert_clean();
        assert!(report.poisoned > 0 && report.states > report.injected);
    }
}

#[test]
fn engines_that_pass_over_failures_are_found() {
    for bug in [
        Bug::SyncErrorIgnored,
        Bug::NotPoisoned,
        Bug::ForgetsOnFailure,
    ] {
        let reports = run(Some(bug));
        let bad = reports.iter().flat_map(|report| &report.bad).next();
        println!("{bug:?}: {}", bad.expect("found"));
    }
}
