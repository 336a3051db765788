//! The model, proved on the toy format: right engines pass, wrong ones do not.

mod toy;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use blockdev_core::{Caps, MemoryStorage};
use testkit::crash::CrashSubject;
use testkit::model::{Abilities, Compare, Ops, Threads, Weights, run_model, run_threads};
use toy::{BLOCK, Bug, Toy};

const SIZE: u64 = 32 * BLOCK;

fn abilities() -> Abilities {
    let caps = Caps {
        write: true,
        write_zeroes: true,
        discard: true,
    };
    Abilities {
        snapshots: 1,
        ..Abilities::of(caps, BLOCK)
    }
}

fn content() -> Vec<u8> {
    vec![0; usize::try_from(SIZE).expect("small")]
}

#[test]
fn a_right_engine_keeps_what_random_guests_write() {
    for seed in 0..20 {
        let ops = Ops::new(seed, SIZE, abilities(), Weights::default()).take(200);
        let toy = Toy::default();
        run_model(
            &toy,
            &Toy::image(SIZE),
            content(),
            seed,
            ops,
            Compare::default(),
        );
        let sizes = Abilities {
            snapshots: 0,
            sizes: vec![SIZE, SIZE / 2, SIZE + BLOCK],
            ..abilities()
        };
        let ops = Ops::new(seed, SIZE, sizes, Weights::default()).take(200);
        run_model(
            &toy,
            &Toy::image(SIZE),
            content(),
            seed,
            ops,
            Compare::default(),
        );
    }
}

#[test]
fn wrong_engines_are_told_with_a_seed_and_few_operations() {
    for bug in [Bug::Misplaced, Bug::SharedOverwritten, Bug::LostZeros] {
        let toy = Toy {
            bug: Some(bug),
            parent: None,
        };
        let told = catch_unwind(AssertUnwindSafe(|| {
            let ops = Ops::new(1, SIZE, abilities(), Weights::default()).take(300);
            let seldom = Compare {
                every: 50,
                check: true,
            };
            run_model(&toy, &Toy::image(SIZE), content(), 1, ops, seldom);
        }));
        let text = *told.unwrap_err().downcast::<String>().unwrap();
        println!("{bug:?}: {}", text.lines().next().unwrap());
        assert!(text.contains("seed 1, "), "{text}");
        assert!(text.lines().count() < 200, "{bug:?} is shown by fewer");
    }
}

#[test]
fn many_guests_of_a_right_engine_read_what_they_may() {
    for seed in 0..4 {
        let storage = Arc::new(MemoryStorage::from(Toy::image(SIZE)));
        let device = Toy::default().open(&[storage], true).unwrap();
        let what = Threads {
            seed,
            ..Threads::default()
        };
        run_threads(&device, &content(), what);
    }
}

#[test]
fn a_write_that_is_lost_between_threads_is_seen() {
    let toy = Toy {
        bug: Some(Bug::LostUpdate),
        parent: None,
    };
    let storage = Arc::new(MemoryStorage::from(Toy::image(SIZE)));
    let device = toy.open(&[storage], true).unwrap();
    let told = catch_unwind(AssertUnwindSafe(|| {
        run_threads(&device, &content(), Threads::default());
    }));
    assert!(told.is_err());
}
