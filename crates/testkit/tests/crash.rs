//! The crash explorer, proved on a toy format: nothing found where nothing is wrong, and every
//! planted mistake found.

mod toy;

use std::time::Instant;

use blockdev_core::{Result, ZeroFlags};
use testkit::crash::{
    Budget, Control, CrashExplorer, Driver, Report, Scenario, StateId, closing_line,
};
use testkit::model::{Abilities, Ops, Weights};
use testkit::stamp::stamped;
use toy::{BLOCK, Bug, Toy};

const SIZE: u64 = 32 * BLOCK;

fn scenarios() -> Vec<Scenario<'static, Toy>> {
    let flags = ZeroFlags::default();
    let blocks = |n: u64| n * BLOCK;
    vec![
        Scenario::new("write, flush, write again", Toy::image(SIZE), move |d| {
            d.write(0, 2 * BLOCK)?;
            d.write(blocks(5) + 1000, 700)?;
            d.flush()?;
            d.write(512, 2048)?;
            d.write(blocks(5) + 900, 5000)?;
            d.flush()
        }),
        Scenario::new("free and use again", Toy::image(SIZE), move |d| {
            d.write(0, 3 * BLOCK)?;
            d.flush()?;
            d.write_zeroes(0, BLOCK, flags)?;
            d.write(blocks(8), BLOCK)?;
            d.discard(BLOCK, 2 * BLOCK)?;
            d.flush()?;
            d.write(blocks(9), 3 * BLOCK)?;
            d.flush()
        }),
        Scenario::new("many at once", Toy::image(SIZE), move |d| {
            d.write(0, 8 * BLOCK)?;
            d.flush()?;
            (0..8).try_for_each(|n| d.write(blocks(n) + 512 * n, 1200))?;
            d.write_zeroes(blocks(2), 3 * BLOCK, flags)?;
            (0..8).try_for_each(|n| d.write(blocks(n) + 300, 100))?;
            d.flush()
        }),
        Scenario::new("snapshots", Toy::image(SIZE), move |d| {
            d.write(0, 3 * BLOCK)?;
            d.control(Control::SnapshotCreate(1))?;
            d.write(512, BLOCK)?;
            d.write(blocks(6), BLOCK)?;
            d.flush()?;
            d.control(Control::SnapshotApply(1))?;
            d.write(blocks(2), 512)?;
            d.flush()?;
            d.control(Control::SnapshotDelete(1))?;
            d.write(blocks(7), 512)
        }),
        Scenario::new("resize", Toy::image(SIZE), move |d| {
            d.write(blocks(15), 3 * BLOCK)?;
            d.write(0, 512)?;
            d.flush()?;
            d.control(Control::Resize(16 * BLOCK))?;
            d.write(blocks(3), 512)?;
            d.control(Control::Resize(SIZE))?;
            d.write(blocks(20), 512)
        }),
    ]
}

fn random(seed: u64) -> Scenario<'static, Toy> {
    let script = move |driver: &mut Driver<'_, Toy>| -> Result<()> {
        use blockdev_core::BlockDevice;
        let abilities = Abilities {
            snapshots: 1,
            ..Abilities::of(driver.device().info().caps, BLOCK)
        };
        let mut ops = Ops::new(seed, SIZE, abilities, Weights::default());
        (0..40).try_for_each(|_| driver.apply(ops.next().expect("endless")))
    };
    Scenario::new(format!("random {seed}"), Toy::image(SIZE), script)
}

fn run_all(toy: &Toy, budget: Budget) -> Vec<Report> {
    let explorer = CrashExplorer::new(toy, budget).stop_after(1);
    scenarios()
        .into_iter()
        .chain((0..4).map(random))
        .map(|scenario| explorer.run(&scenario))
        .collect()
}

#[test]
fn a_right_engine_passes() {
    let toy = Toy::default();
    let start = Instant::now();
    let reports = run_all(&toy, Budget::states(4000));
    for report in &reports {
        println!("{report}");
        report.assert_clean();
    }
    println!("{}", closing_line("toy", &reports));
    let states: u64 = reports.iter().map(|report| report.distinct).sum();
    let rate = states as f64 / start.elapsed().as_secs_f64();
    println!("{rate:.0} states a second");
    assert!(states > 5_000, "only {states} states");
    assert!(reports.iter().all(|report| report.exhaustive_points > 0));
    assert!(reports.iter().any(|report| report.second_level > 0));
}

fn over_parent(bug: Option<Bug>) -> (Toy, Scenario<'static, Toy>) {
    let below = stamped(0, usize::try_from(20 * BLOCK).expect("small"), 77_777);
    let mut content = below.clone();
    content.resize(usize::try_from(SIZE).expect("small"), 0);
    let toy = Toy {
        bug,
        parent: Some(below.into()),
    };
    let scenario = Scenario::new("over a parent", Toy::image(SIZE), move |d| {
        d.write(1000, 2000)?;
        d.write(19 * BLOCK + 512, 2 * BLOCK)?;
        d.flush()?;
        d.discard(BLOCK, 2 * BLOCK)?;
        d.write(BLOCK + 512, 512)
    })
    .content(content);
    (toy, scenario)
}

#[test]
fn a_right_engine_over_a_parent_passes() {
    let (toy, scenario) = over_parent(None);
    let report = CrashExplorer::new(&toy, Budget::states(2000)).run(&scenario);
    println!("{report}");
    report.assert_clean();
}

#[test]
fn every_planted_mistake_is_found_and_shown_again() {
    use Bug::*;
    for bug in [
        MappingBeforeData,
        NoBarrier,
        ReuseBeforeDurable,
        EarlyPunch,
        TornEntry,
        SharedOverwritten,
        SizeLost,
        EmptyFlush,
        ZeroInsteadOfParent,
        ApplyInPlace,
        ShrinkClearsFirst,
        RecoveryWipesHeader,
        ReaderWrites,
        Misplaced,
    ] {
        let (mut toy, parent) = over_parent(Some(bug));
        let mut found = None;
        let mut states = 0;
        if bug == ZeroInsteadOfParent {
            let report = CrashExplorer::new(&toy, Budget::states(2000)).run(&parent);
            found = Some((parent, report));
        } else {
            toy.parent = None;
            let explorer = CrashExplorer::new(&toy, Budget::states(2000)).stop_after(1);
            for scenario in scenarios() {
                let report = explorer.run(&scenario);
                states += report.distinct;
                if report.bad_count > 0 {
                    found = Some((scenario, report));
                    break;
                }
            }
        }
        let Some((scenario, report)) = found else {
            panic!("{bug:?} is not found in {states} states");
        };
        println!("{bug:?} after {states} states: {report}");
        let first = report.bad.first().expect("a bad state").clone();
        if bug == RecoveryWipesHeader {
            assert!(first.state.within.is_some(), "only a second crash shows it");
        }
        let again = CrashExplorer::new(&toy, Budget::states(1)).replay(&scenario, first.state);
        assert_eq!(again.bad, [first], "{bug:?} is shown again by its number");
    }
}

#[test]
fn a_state_is_the_same_whatever_the_budget() {
    let toy = Toy {
        bug: Some(Bug::NoBarrier),
        parent: None,
    };
    let scenario = &scenarios()[0];
    let few = CrashExplorer::new(&toy, Budget::states(300)).run(scenario);
    let many = CrashExplorer::new(&toy, Budget::states(3000)).run(scenario);
    assert!(!few.bad.is_empty());
    let ids = |report: &Report| -> Vec<StateId> { report.bad.iter().map(|b| b.state).collect() };
    assert_eq!(ids(&few)[0], ids(&many)[0]);
}
