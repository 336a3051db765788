//! Internal snapshots as a table, the one of `qemu-img`.

use diskweave::qcow2::Snapshot;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::plain::plain;
use super::size::human;

/// The table with its heading, in local time; nothing where there is no snapshot.
pub(crate) fn text(snapshots: &[Snapshot]) -> String {
    if snapshots.is_empty() {
        return String::new();
    }
    let mut out = String::from("Snapshot list:\n");
    out += &row(["ID", "TAG", "VM_SIZE", "DATE", "VM_CLOCK", "ICOUNT"]);
    let zone = TimeZone::system();
    for snapshot in snapshots {
        let icount = snapshot.icount.map(|count| count.to_string());
        out += &row([
            &plain(&snapshot.id),
            &plain(&snapshot.name),
            &human(snapshot.vm_state_size),
            &date(snapshot.date_sec, &zone),
            &clock(snapshot.vm_clock_nsec),
            icount.as_deref().unwrap_or("--"),
        ]);
    }
    out
}

/// Padded by bytes, as `qemu-img` pads, not by what is seen of them.
fn row([id, tag, size, date, clock, icount]: [&str; 6]) -> String {
    let rest = |text: &str, width: usize| " ".repeat(width.saturating_sub(text.len()));
    let (id_rest, tag_rest) = (rest(id, 7), rest(tag, 16));
    format!("{id}{id_rest} {tag}{tag_rest} {size:>8} {date:>19} {clock:>15} {icount:>10}\n")
}

fn date(seconds: u32, zone: &TimeZone) -> String {
    let moment = Timestamp::from_second(seconds.into()).expect("32 bits of seconds are in range");
    let local = moment.to_zoned(zone.clone());
    local.strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// How long a guest had run: hours, minutes, seconds, milliseconds.
fn clock(nanoseconds: u64) -> String {
    let milliseconds = nanoseconds / 1_000_000;
    let seconds = milliseconds / 1000;
    format!(
        "{:04}:{:02}:{:02}.{:03}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        milliseconds % 1000
    )
}
