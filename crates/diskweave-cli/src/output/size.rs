//! Sizes, for people: three digits and a unit.

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// `bytes` as `qemu-img` shows it: `6 MiB`, `1.95 GiB`, `512 B`.
pub(crate) fn human(bytes: u64) -> String {
    let mut unit = 0;
    // Precise to far more digits than are shown.
    #[allow(clippy::cast_precision_loss)]
    let mut value = bytes as f64;
    // The next unit begins at 1000, so that no more than three digits are needed.
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else if value >= 1.0 {
        2
    } else {
        3
    };
    let mut text = format!("{value:.digits$}");
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    format!("{text} {}", UNITS[unit])
}

/// A number of bytes with an optional unit: `4096`, `4k`, `1M`, `2G`, `1T`.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match &text[digits.len()..] {
        "" | "b" | "B" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        "t" | "T" => 40,
        unit => return Err(format!("{unit:?} is no unit; use k, M, G or T")),
    };
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("{text:?} is no number of bytes"))?;
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| format!("{text} is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits_and_no_trailing_zeros() {
        for (bytes, text) in [
            (0, "0 B"),
            (513, "513 B"),
            (1024, "1 KiB"),
            (1023, "0.999 KiB"),
            (6 << 20, "6 MiB"),
            (197_120, "192 KiB"),
            (200_704, "196 KiB"),
            (2_093_796_557, "1.95 GiB"),
            (64 << 40, "64 TiB"),
        ] {
            assert_eq!(human(bytes), text, "{bytes}");
        }
    }

    #[test]
    fn sizes_that_do_not_fit_are_refused() {
        assert_eq!(parse("4k"), Ok(4096));
        assert_eq!(parse("0"), Ok(0));
        for bad in ["", "k", "-1", "1x", "99999999999T"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
