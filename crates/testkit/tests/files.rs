//! The crash explorer and the fault injector over several files, proved on a disk in several files:
//! nothing found in the right order, and every planted mistake of order between files found.

mod pair;

use blockdev_core::Result;
use pair::{BLOCK, Bug, Pair, TO_SECOND};
use testkit::crash::{Budget, CrashExplorer, Driver, Report, Scenario, tell};
use testkit::faults::FaultInjector;

fn story(
    name: &str,
    script: impl Fn(&mut Driver<'_, Pair>) -> Result<()> + 'static,
) -> Scenario<'static, Pair> {
    Scenario::new(name, Pair::index(), script)
        .beside(Vec::new())
        .beside(Vec::new())
}

fn scenarios() -> Vec<Scenario<'static, Pair>> {
    let blocks = |n: u64| n * BLOCK;
    vec![
        story("write, flush, write again", move |d| {
            d.write(0, 2 * BLOCK)?;
            d.write(blocks(5) + 1000, 700)?;
            d.flush()?;
            d.write(blocks(5) + 900, 5000)?;
            d.write(512, 2048)?;
            d.flush()
        }),
        story("many at once", move |d| {
            d.write(0, 6 * BLOCK)?;
            d.flush()?;
            (0..6).try_for_each(|n| d.write(blocks(n) + 512 * n, 1200))?;
            (6..12).try_for_each(|n| d.write(blocks(n), 512))
        }),
        story("into another file", move |d| {
            d.write(blocks(1), 3 * BLOCK)?;
            d.write(blocks(9), 700)?;
            d.flush()?;
            d.write(blocks(2), 512)?;
            d.control(TO_SECOND)?;
            d.write(blocks(3), 512)?;
            d.write(blocks(7), 512)?;
            d.flush()
        }),
    ]
}

fn explore(bug: Option<Bug>, states: u64) -> Vec<Report> {
    let pair = Pair { bug };
    let explorer = CrashExplorer::new(&pair, Budget::states(states)).stop_after(1);
    scenarios()
        .iter()
        .map(|story| explorer.run(story))
        .collect()
}

#[test]
fn the_right_order_passes() {
    let reports = explore(None, 3000);
    for report in &reports {
        println!("{report}");
        report.assert_clean();
        assert!(report.exhaustive_points > 0);
    }
    let within = |report: &Report| report.second_level > 0;
    assert!(reports.iter().any(within), "no crash within a move's rerun");
}

#[test]
fn every_wrong_order_between_files_is_found_and_shown_again() {
    use Bug::*;
    for (bug, word) in [
        (IndexBeforeData, ""),
        (WrongFileSynced, ""),
        (FlushLeavesData, ""),
        (NamedBeforeStable, ""),
        (OldCutEarly, ""),
        (RemainsTaken, "carried out again"),
        (OverTakenForBegun, "again: "),
        (ReaderTidies, "changed a file"),
    ] {
        let reports = explore(Some(bug), 3000);
        let mut told = reports.iter().zip(scenarios());
        let found = told.find(|(report, _)| report.bad_count > 0);
        let (report, scenario) = found.unwrap_or_else(|| panic!("{bug:?} is not found"));
        println!("{bug:?}: {report}");
        let first = report.bad[0].clone();
        assert!(first.description.contains(word), "{first}");
        let pair = Pair { bug: Some(bug) };
        let again = CrashExplorer::new(&pair, Budget::states(1)).replay(&scenario, first.state);
        assert_eq!(again.bad, [first], "{bug:?} is shown again by its number");
    }
}

#[test]
fn the_log_says_which_file_a_line_is_about() {
    let told = tell(&Pair::default(), &scenarios()[2]);
    let mut images = told.images.clone();
    for line in &told.log {
        line.entry.apply(&mut images[line.file]);
    }
    assert_eq!(images[1].len(), 0, "given up");
    assert_eq!(images[2].len(), 5 * BLOCK);
    let words: Vec<String> = told.log.iter().map(ToString::to_string).collect();
    assert!(words.iter().any(|word| word == "file 1: set_len 0x0"));
    assert!(words.iter().any(|word| word.starts_with("file 2: write ")));
    assert!(words.iter().any(|word| word == "write 0x0+0x200"));
}

#[test]
fn failures_strike_whichever_file_a_call_is_for() {
    for (bug, clean) in [(None, true), (Some(Bug::SyncErrorIgnored), false)] {
        let pair = Pair { bug };
        let injector = FaultInjector::new(&pair);
        let reports: Vec<_> = scenarios().iter().map(|s| injector.run(s)).collect();
        for report in &reports {
            println!("{bug:?}: {report}");
            if clean {
                report.assert_clean();
            }
        }
        let bad: u64 = reports.iter().map(|report| report.bad_count).sum();
        assert_eq!(bad == 0, clean);
    }
}
