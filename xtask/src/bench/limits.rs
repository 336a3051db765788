//! Why rows fall short of their targets: what limits them, and what was tried against it.

use super::targets::{NONE, Rows, rows};

/// One reason.
#[derive(Debug)]
pub(crate) struct Limit {
    /// What rows refer to it by.
    pub(crate) name: &'static str,
    /// The rows that it holds back.
    pub(super) rows: &'static [Rows],
    pub(crate) what: &'static str,
    /// Each in a sentence, with what came of it.
    pub(crate) tried: &'static [&'static str],
}

const PACKED: &[&str] = &["zlib", "zstd"];

pub(super) const LIMITS: &[Limit] = &[
    Limit {
        name: "one copy",
        rows: &[rows("convert", NONE, "qemu-img").but(PACKED)],
        what: "The kernel copies every byte once, under the lock of the destination's inode, and ours asks for \
               nothing else (`copy_file_range`; no measurable time of its own in user space; as fast as `cp`). \
               `qemu-img` copies twice, but on two cores at once. On the disk ours also ends when all is stable, \
               which `-m 16 -W` alone does not wait for.",
        tried: &[
            "Pieces of 128 KiB to 1 MiB: no difference.",
            "Asking the host every 32 MiB to begin writing out (kept): raw to qcow2, 512 MiB on ext4, 0.48 s \
             instead of 0.59 s, medians of five.",
            "Space set aside first, by host calls alone, under load: 0.88 s for 512 MiB instead of 1.08 s once, \
             and lost in the noise when repeated.",
            "Longer ranges for each `copy_file_range`, 64 MiB instead of 1 MiB, the same way: 1.39 s instead of \
             0.92 s.",
        ],
    },
    Limit {
        name: "decode and sync",
        rows: &[rows("convert", PACKED, "qemu-img")],
        what: "Both cores decode, 62 % of the time within libdeflate (zlib) and 29 % within the sequences of zstd; \
               what remains is the kernel's copying. In memory the targets are met; on the disk ours waits until \
               all is stable, which is nearly as long again, and `qemu-img` alone does not.",
        tried: &[
            "One-shot zstd with contexts that are kept, straight into the buffer that is written (kept).",
            "Asking the host every 32 MiB to begin writing out (kept): zstd to raw, 512 MiB on ext4, 0.45 s \
             instead of 0.48 s, medians of five; zlib within the noise.",
            "Pieces in any order for raw destinations: 0.30 s instead of 0.29 s in memory; dropped.",
        ],
    },
    Limit {
        name: "one call of the host",
        rows: &[
            rows("qcow2", &["overwrite,"], "best"),
            rows("qcow2", &["overwrite,"], "virtdisk"),
            rows("vhdx", &["overwrite,"], "virtdisk"),
        ],
        what: "A write into what is stored is one `pwrite`, and so it is with every peer: all of them reach what a \
               plain file does, and twice that is beyond it.",
        tried: &[
            "A lock that writes in place share, instead of one of their own (kept, then not needed).",
            "Places found without any lock and without a look at a page (kept): 337 instructions instead of 1121 \
             for qcow2, 509 instead of 673 for VHDX, beside the kernel's thousands.",
            "Stores through a mapping of the file, in a loop of host calls alone: two to ten times a `pwrite`, but \
             an error of the host there is a signal that ends the process, as is a file that another one cuts.",
        ],
    },
    Limit {
        name: "finding space",
        rows: &[rows("qcow2", &["fresh"], "")],
        what: "The host's file system finds a place for each write: most of the time is its own.",
        tried: &[
            "The table and the refcount block kept at hand for one request, 256 clusters found by one search, and \
             nobody woken who does not wait (kept): 2855 instructions instead of 6531.",
            "Pages copied once a batch instead of at each change (kept).",
            "Requests of several threads mapped under a shared lock where no table changes (kept).",
        ],
    },
    Limit {
        name: "the system call",
        rows: &[rows("qcow2", &["read"], ""), rows("vhdx", &["read"], "")],
        what: "Beside the kernel's copy and its system call stand 509 instructions for a read of qcow2 and 616 for \
               VHDX. The rates move from run to run, the plain file's as well. Why VHDX reads of 4K from one \
               thread, and of 1M from two, are behind virtdisk's was not found out.",
        tried: &[
            "Places found without a lock and without a count of references (kept): 509 instructions instead of \
             1433, 616 instead of 1209.",
            "No list of holes unless there are two, and the first layer asked before anything is noted (kept).",
            "Sector bitmaps by words of one page that is looked up once (kept): a quarter of the instructions.",
        ],
    },
    Limit {
        name: "the disk's sync",
        rows: &[
            rows("qcow2", &["flush"], ""),
            rows("vhdx", &["flush"], ""),
            rows("start", NONE, ""),
        ],
        what: "One `fdatasync` for each flush of data, as with virtdisk, and nothing else that could be measured \
               beside it; a new image is stable before it gets its name, and a command first has to start.",
        tried: &[
            "Syncs counted and brought down to one where only data changed, two where metadata did (kept).",
            "Data alone made stable, the file's other properties only when its length changed (kept).",
            "No zeros written into a new VHDX, no length asked before each of its items, and a qcow2 made by one \
             write of what it needs (kept).",
        ],
    },
    Limit {
        name: "one read for each run",
        rows: &[rows("chain", &["spread"], "1 image")],
        what: "Each 64 KiB lies in another file: a request of 1 MiB is sixteen calls of the host instead of one. \
               Plain reads of the same places, known beforehand, are hardly faster.",
        tried: &[
            "Who holds what is remembered, 4 KiB at least at a time (kept): layers that hold nothing are not asked.",
            "Runs on both sides of what several layers hold joined into one read (kept).",
            "The first layer asked for the whole request before anything is noted (kept): 732 instructions for a \
             read through eight images instead of 1642.",
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_gives_up_before_the_third_attempt() {
        for limit in LIMITS {
            assert!(limit.tried.len() >= 3, "{}", limit.name);
            assert!(!limit.rows.is_empty(), "{}", limit.name);
            let named = LIMITS.iter().filter(|other| other.name == limit.name);
            assert_eq!(named.count(), 1, "{}", limit.name);
        }
    }
}
