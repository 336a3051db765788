//! The command in the place of qemu-img: every pair of command lines is run by both, in folders that
//! have the same in them, and both must answer and leave the same.

#![cfg(unix)]
// Here a failure is a panic, and what is printed is the table that was asked for.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod amend;
mod bench;
mod bitmap;
mod check;
mod commit;
mod compare;
mod convert;
mod create;
mod dd;
mod given;
mod global;
mod info;
mod map;
mod measure;
mod page;
mod pair;
mod rebase;
mod resize;
mod snapshot;
mod table;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::thread;

use table::{Case, Group, Table};
use testkit::oracle::QemuImg;

/// Every verb's pairs.
fn tables() -> Vec<Table> {
    vec![
        global::table(),
        info::table(),
        create::table(),
        check::table(),
        convert::table(),
        map::table(),
        measure::table(),
        compare::table(),
        commit::table(),
        rebase::table(),
        resize::table(),
        snapshot::table(),
        amend::table(),
        bitmap::table(),
        dd::table(),
        bench::table(),
    ]
}

/// What became of one verb's pairs.
#[derive(Debug, Default)]
struct Sum {
    equal: usize,
    listed: usize,
    wrong: usize,
}

#[test]
fn whatever_qemu_img_is_asked_is_answered_as_it_answers() {
    if QemuImg::find().is_none() {
        return;
    }
    let tables = tables();
    let order: Vec<&str> = tables.iter().map(|table| table.verb).collect();
    let only = std::env::var("DISKWEAVE_COMPAT").ok();
    let groups: VecDeque<Group> = tables.into_iter().flat_map(|table| table.groups).collect();
    let groups = Mutex::new(groups);
    let sums: Mutex<BTreeMap<&str, Sum>> = Mutex::default();
    let complaints: Mutex<Vec<String>> = Mutex::default();
    let workers = thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let work = || {
        while let Some(mut group) = next(&groups) {
            if let Some(only) = &only {
                group.cases.retain(|case| case.to_string().contains(only));
            }
            if group.cases.is_empty() {
                continue;
            }
            let Some(given) = given::prepare(&group.given) else {
                continue;
            };
            for case in &group.cases {
                let found = pair::run(case, given.path());
                let mut sums = sums.lock().unwrap();
                let sum = sums.entry(case.verb).or_default();
                match judge(case, &found) {
                    Err(text) => {
                        sum.wrong += 1;
                        complaints.lock().unwrap().push(text);
                    }
                    Ok(()) if case.differs.is_empty() => sum.equal += 1,
                    Ok(()) => sum.listed += 1,
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    let complaints = complaints.into_inner().unwrap();
    for complaint in &complaints {
        println!("{complaint}\n");
    }
    println!("verb        pairs  equal  listed  wrong");
    let sums = sums.into_inner().unwrap();
    let mut all = Sum::default();
    for verb in order {
        let Some(sum) = sums.get(verb) else { continue };
        row(verb, sum);
        all.equal += sum.equal;
        all.listed += sum.listed;
        all.wrong += sum.wrong;
    }
    row("all", &all);
    assert!(
        complaints.is_empty(),
        "{} pairs differ:\n{}",
        complaints.len(),
        complaints.join("\n\n")
    );
}

fn row(verb: &str, sum: &Sum) {
    let pairs = sum.equal + sum.listed + sum.wrong;
    let Sum {
        equal,
        listed,
        wrong,
    } = sum;
    println!("{verb:<10} {pairs:>6} {equal:>6} {listed:>7} {wrong:>6}");
}

fn next(groups: &Mutex<VecDeque<Group>>) -> Option<Group> {
    groups.lock().unwrap().pop_front()
}

/// Whether exactly that differs of which it is listed.
fn judge(case: &Case, found: &[pair::Difference]) -> Result<(), String> {
    let unlisted = found
        .iter()
        .filter(|found| case.differs.iter().all(|listed| listed.what != found.what));
    let unlisted: Vec<String> = unlisted.map(|found| found.text.clone()).collect();
    let vanished = case
        .differs
        .iter()
        .filter(|listed| found.iter().all(|found| listed.what != found.what));
    let vanished =
        vanished.map(|listed| format!("no {:?} differs any more: {}", listed.what, listed.reason));
    let all: Vec<String> = unlisted.into_iter().chain(vanished).collect();
    if all.is_empty() {
        return Ok(());
    }
    Err(format!("{case}: {}\n{}", case.line, all.join("\n")))
}

#[test]
fn no_two_pairs_have_one_name_and_there_are_many() {
    let tables = tables();
    let cases = || {
        let groups = tables.iter().flat_map(|table| &table.groups);
        groups.flat_map(|group| &group.cases)
    };
    let mut names: Vec<String> = cases().map(ToString::to_string).collect();
    assert!(names.len() >= 300, "{}", names.len());
    names.sort();
    let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
    assert_eq!(twice, None);
}
