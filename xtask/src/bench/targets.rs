//! What is to be reached, a line for each of the project's targets, and which measured rows tell.

use super::limits::{LIMITS, Limit};
use super::results::Row;

/// One target.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) work: &'static str,
    pub(crate) reference: &'static str,
    /// As people read it.
    pub(crate) goal: &'static str,
    judges: &'static [Judge],
}

/// Some of the measured rows.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) group: &'static str,
    /// One of these is in the name of the work; all are, where there are none.
    pub(super) works: &'static [&'static str],
    /// None of these is in it.
    pub(super) but: &'static [&'static str],
    /// What the name of the reference begins with.
    pub(super) reference: &'static str,
}

/// Those of `group` that have one of `works` in their names, and whose reference begins with `reference`.
pub(super) const fn rows(
    group: &'static str,
    works: &'static [&'static str],
    reference: &'static str,
) -> Rows {
    Rows {
        group,
        works,
        but: NONE,
        reference,
    }
}

impl Rows {
    /// The same without those that have one of `works` in their names.
    pub(super) const fn but(mut self, works: &'static [&'static str]) -> Self {
        self.but = works;
        self
    }

    fn have(&self, row: &Row) -> bool {
        let within = |works: &[&str]| works.iter().any(|work| row.work.contains(work));
        self.group == row.group
            && (self.works.is_empty() || within(self.works))
            && !within(self.but)
            && row.reference.starts_with(self.reference)
    }
}

/// Which rows a target is about, and what they need.
#[derive(Debug)]
struct Judge {
    rows: Rows,
    need: Need,
}

#[derive(Debug, Clone, Copy)]
enum Need {
    /// So many times as good as the reference.
    Ratio(f64),
    /// Ours itself, in the row's unit.
    AtLeast(f64),
    Below(f64),
}

pub(super) const NONE: &[&str] = &[];

const fn judge(
    group: &'static str,
    works: &'static [&'static str],
    reference: &'static str,
    need: Need,
) -> Judge {
    let rows = rows(group, works, reference);
    Judge { rows, need }
}

impl Judge {
    const fn but(mut self, works: &'static [&'static str]) -> Self {
        self.rows = self.rows.but(works);
        self
    }

    fn is_met(&self, row: &Row) -> bool {
        match self.need {
            Ratio(least) => row.ratio().is_some_and(|ratio| ratio >= least),
            AtLeast(least) => row.ours.median >= least,
            Below(limit) => row.ours.median < limit,
        }
    }

    fn said(&self) -> String {
        match self.need {
            Ratio(least) => format!(">= {least:.2} times"),
            AtLeast(least) => format!(">= {least}"),
            Below(limit) => format!("< {limit}"),
        }
    }
}

/// What a target says of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) need: String,
    pub(crate) met: Met,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Met {
    Yes,
    /// No, for a reason that is known: the number of it.
    Limited(usize),
    No,
}

impl Met {
    /// Why not, where it is known.
    pub(crate) fn limit(self) -> Option<&'static Limit> {
        match self {
            Self::Limited(number) => LIMITS.get(number),
            Self::Yes | Self::No => None,
        }
    }
}

impl Target {
    pub(crate) fn judges(&self, row: &Row) -> Option<Verdict> {
        let judge = self.judges.iter().find(|judge| judge.rows.have(row))?;
        let limited = || {
            LIMITS
                .iter()
                .position(|limit| limit.rows.iter().any(|rows| rows.have(row)))
        };
        let met = match judge.is_met(row) {
            true => Met::Yes,
            false => limited().map_or(Met::No, Met::Limited),
        };
        let need = judge.said();
        Some(Verdict { need, met })
    }

    /// The groups that measure what it is about.
    pub(crate) fn groups(&self) -> Vec<&'static str> {
        let mut groups: Vec<_> = self.judges.iter().map(|judge| judge.rows.group).collect();
        groups.dedup();
        groups
    }
}

use Need::{AtLeast, Below, Ratio};

const OVERWRITE: &str = "4K random overwrite,";
const FRESH: &str = "4K random fresh write,";
const READ: &str = "4K random read,";
const SEQUENTIAL: &str = "1M sequential read,";

pub(crate) const TARGETS: &[Target] = &[
    Target {
        work: "uncompressed convert, qcow2, raw and VHDX into each other, 1 to 4 GiB",
        reference: "qemu-img convert -m 16 -W",
        goal: "2 times as fast",
        judges: &[judge(
            "convert",
            &[
                "raw -> qcow2",
                "raw -> vhdx",
                "qcow2 -> raw",
                "qcow2 -> vhdx",
                "vhdx -> raw",
                "vhdx -> qcow2",
            ],
            "qemu-img",
            Ratio(2.0),
        )
        .but(&["zlib", "zstd"])],
    },
    Target {
        work: "deflate: decode and encode (qcow2 -c)",
        reference: "qemu-img convert -m 2",
        goal: "decode 2, encode 1.5 times as fast; length within 2 %",
        judges: &[
            judge("convert", &["length of qcow2-zlib"], "", Ratio(1.0 / 1.02)),
            judge("convert", &["raw -> qcow2-zlib"], "qemu-img", Ratio(1.5)),
            judge("convert", &["qcow2-zlib -> "], "qemu-img", Ratio(2.0)),
        ],
    },
    Target {
        work: "zstd: decode and encode",
        reference: "qemu-img convert -m 2",
        goal: "decode 1.5, encode 1.2 times as fast; length within 2 %",
        judges: &[
            judge("convert", &["length of qcow2-zstd"], "", Ratio(1.0 / 1.02)),
            judge("convert", &["raw -> qcow2-zstd"], "qemu-img", Ratio(1.2)),
            judge("convert", &["qcow2-zstd -> "], "qemu-img", Ratio(1.5)),
        ],
    },
    Target {
        work: "empty 64 GiB VHDX -> raw",
        reference: "qemu-img convert",
        goal: "100 times as fast",
        judges: &[judge("sparse", &["empty 64 GiB"], "qemu-img", Ratio(100.0))],
    },
    Target {
        work: "cost of sparse images",
        reference: "the same data in a small disk",
        goal: "by what is allocated, not by the size of the disk",
        judges: &[judge("sparse", &["64 MiB in"], "ours", Ratio(0.67))],
    },
    Target {
        work: "4K random read, allocated, metadata in memory",
        reference: "pread of a plain file",
        goal: "90 % of its rate",
        judges: &[
            judge("qcow2", &[READ], "plain", Ratio(0.9)),
            judge("vhdx", &[READ], "plain", Ratio(0.9)),
        ],
    },
    Target {
        work: "1M sequential read",
        reference: "pread of a plain file",
        goal: "95 % of its rate",
        judges: &[
            judge("qcow2", &[SEQUENTIAL], "plain", Ratio(0.95)),
            judge("vhdx", &[SEQUENTIAL], "plain", Ratio(0.95)),
        ],
    },
    Target {
        work: "4K random writes, VHDX",
        reference: "OpenVMM's engine: 121 k/s over what is there, 44 k/s fresh",
        goal: "above it",
        judges: &[
            judge("vhdx", &[OVERWRITE], "plain", AtLeast(121_000.0)),
            judge("vhdx", &[FRESH], "plain", AtLeast(44_000.0)),
        ],
    },
    Target {
        work: "4K random writes, qcow2",
        reference: "the best of qemu-img bench -w, imago, qcow2-rs, virtdisk",
        goal: "2 times as fast",
        judges: &[judge("qcow2", &[OVERWRITE, FRESH], "best", Ratio(2.0))],
    },
    Target {
        work: "the same jobs through virtdisk's public API",
        reference: "virtdisk",
        goal: "ahead at every one",
        judges: &[
            judge("qcow2", NONE, "virtdisk", Ratio(1.0)),
            judge("vhdx", NONE, "virtdisk", Ratio(1.0)),
        ],
    },
    Target {
        work: "writes from several threads on one image",
        reference: "how a plain file gains by them",
        goal: "scales with cores until the disk (80 % of a plain file's gain)",
        judges: &[judge("threads", &["write"], "plain", Ratio(0.8))],
    },
    Target {
        work: "syncs for each flush of the guest",
        reference: "",
        goal: "1 when only data changed, 2 when metadata did",
        judges: &[
            judge("fsync", &["only data"], "", Below(1.5)),
            judge("fsync", &["metadata"], "", Below(2.5)).but(&["the first"]),
        ],
    },
    Target {
        work: "an overlay made, opened and described",
        reference: "qemu-img create -b",
        goal: "library below 0.3 ms without sync, command below 3 ms",
        judges: &[
            judge("start", &["library"], "", Below(0.3)).but(&["on the disk"]),
            judge("start", &["command"], "", Below(3.0)),
        ],
    },
    Target {
        work: "info on an empty 64 TiB VHDX, 1 MiB blocks",
        reference: "qemu-img info",
        goal: "below 16 MiB of memory",
        judges: &[judge(
            "sparse",
            &["info on an empty 64 TiB"],
            "",
            Below(16.0),
        )],
    },
    Target {
        work: "check of a fully mapped qcow2, 1 TiB",
        reference: "qemu-img check",
        goal: "2 times as fast, memory below 2 bits a cluster and caches",
        judges: &[
            judge("check", &["memory"], "2 bits", Ratio(1.0)),
            judge("check", &["time"], "qemu-img", Ratio(2.0)),
        ],
    },
    Target {
        work: "chain of 1, 8, 64 images, sequential read",
        reference: "one image",
        goal: "0.9 times as fast at 8, 0.7 times at 64",
        judges: &[
            judge("chain", &["1M sequential, 8 images"], "1 image", Ratio(0.9)),
            judge(
                "chain",
                &["1M sequential, 64 images"],
                "1 image",
                Ratio(0.7),
            ),
        ],
    },
    Target {
        work: "1 MiB read through one VHDX parent",
        reference: "vhdx-rs",
        goal: "100 times as fast",
        judges: &[judge(
            "chain",
            &["1M read of parent, 1 thr"],
            "vhdx-rs",
            Ratio(100.0),
        )],
    },
    Target {
        work: "peak memory of convert, any size",
        reference: "",
        goal: "at most 128 MiB",
        judges: &[judge("memory", &["convert"], "", Below(128.0))],
    },
];

#[cfg(test)]
mod tests {
    use super::super::results::Value;
    use super::*;

    fn verdicts(row: &Row) -> Vec<Verdict> {
        let verdicts = TARGETS.iter().filter_map(|target| target.judges(row));
        verdicts.collect()
    }

    #[test]
    fn a_row_is_judged_by_its_own_target_alone() {
        let times = |work: &str, reference: &str, theirs| {
            let row = Row::new("convert", work, "s", Value::once(1.0));
            row.beside(reference, Value::once(theirs))
        };
        let told = |work: &str, reference: &str, theirs| {
            let verdicts = verdicts(&times(work, reference, theirs)).into_iter();
            let told: Vec<_> = verdicts.map(|v| (v.need, v.met == Met::Yes)).collect();
            told
        };
        let plain = told("qcow2 -> raw, in memory", "qemu-img -m 16 -W", 1.9);
        assert_eq!(plain, [(">= 2.00 times".into(), false)]);
        let packed = told("raw -> qcow2-zlib, in memory", "qemu-img -m 2", 1.6);
        assert_eq!(packed, [(">= 1.50 times".into(), true)]);
        let packed = told("qcow2-zstd -> qcow2, on the disk", "qemu-img, durable", 1.6);
        assert_eq!(packed, [(">= 1.50 times".into(), true)]);
        assert_eq!(told("raw -> raw, in memory", "qemu-img -m 16 -W", 1.0), []);
        // Also where virtdisk was the best of all, it is asked for once.
        let mut best = times("4K first write, 1 thr", "best (virtdisk)", 2.0);
        best.group = "vhdx".into();
        assert_eq!(verdicts(&best), []);
    }
}
