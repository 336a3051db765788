//! `check`.

use diskweave::core::CheckReport;

use super::call::{CACHE, Call, FORCE_SHARE, FORMAT, IMAGE_OPTS, OBJECT, OUTPUT, QUIET};
use crate::commands::check::{Fixed, Look, NOTHING_TO_CHECK, show};
use crate::commands::info::Facts;
use crate::compat::complaint::Complaint;
use crate::compat::findings;
use crate::compat::getopt::Flag;
use crate::compat::image::Named;
use crate::output::plain::complain;

pub(super) const FLAGS: &[Flag] = &[
    QUIET,
    FORMAT,
    IMAGE_OPTS,
    CACHE,
    FORCE_SHARE,
    OUTPUT,
    Flag::value('r', "repair"),
    OBJECT,
];

pub(super) fn run(call: &Call) -> Result<u8, Complaint> {
    let output = call.output()?;
    let leaks_only = match call.said.value("repair").as_deref() {
        None => None,
        Some("leaks") => Some(true),
        Some("all") => Some(false),
        Some(other) => {
            let text = format!("--repair (-r) expects 'leaks' or 'all' not '{other}'");
            return Err(call.usage(text));
        }
    };
    let image = call.one_image()?;
    call.check_cache("cache", "source cache")?;
    let look = Look {
        filename: image.name(),
        output,
        quiet: call.quiet(),
        facts: Facts::OfQemu,
    };
    match leaks_only {
        Some(leaks_only) => repair(&image, leaks_only, &look),
        None => check(&image, &look),
    }
}

fn check(image: &Named, look: &Look<'_>) -> Result<u8, Complaint> {
    let disk = image.disk()?;
    let checked = diskweave::check(&image.path, &disk).map_err(|e| image.cannot_open(&e))?;
    let Some(report) = checked.report else {
        return Err(no_check());
    };
    refuse_unopened(image, &report)?;
    findings::tell(&report);
    Ok(show(&report, Fixed::default(), checked.format, look)?)
}

fn repair(image: &Named, leaks_only: bool, look: &Look<'_>) -> Result<u8, Complaint> {
    let disk = image.disk_to_write()?;
    let checked = diskweave::check(&image.path, &disk).map_err(|e| image.cannot_open(&e))?;
    image.warn_if_raw(checked.format);
    let Some(report) = checked.report else {
        return Err(no_check());
    };
    refuse_unopened(image, &report)?;
    if leaks_only && findings::needs_new_refcounts(&report) {
        findings::tell_counts(&report);
        complain("ERROR need to rebuild refcount structures");
        return Err(Complaint::new("Check failed: Input/output error"));
    }
    let repaired = diskweave::repair(&image.path, &disk, leaks_only);
    let repaired = repaired.map_err(|e| image.cannot_open(&e))?;
    findings::tell_repair(&repaired);
    let fixed = findings::fixed(&repaired);
    Ok(show(&repaired.after, fixed, repaired.format, look)?)
}

/// An image that cannot be opened is not told of to QEMU, whatever is found in it.
fn refuse_unopened(image: &Named, report: &CheckReport) -> Result<(), Complaint> {
    if report.corruptions == 0 {
        return Ok(());
    }
    let opened = image.open_alone();
    let mut findings = report.findings.iter();
    if opened.is_err() && findings.any(|finding| finding.message.contains("snapshots_offset")) {
        let complaint = Complaint::new("ERROR snapshot table offset invalid");
        return Err(complaint.and("Check failed: Invalid argument"));
    }
    opened.map(drop)
}

fn no_check() -> Complaint {
    Complaint::new("This image format does not support checks").with_code(NOTHING_TO_CHECK)
}
