//! Times and sizes for people.

/// Nanoseconds with three digits or so: `640 ns`, `12.3 µs`, `4.56 ms`, `1.23 s`.
pub fn time(ns: u64) -> String {
    scaled(ns as f64, 1000.0, &["ns", "µs", "ms", "s"])
}

/// Bytes by powers of 1024: `365 B`, `89.2 KiB`, `3.41 MiB`.
pub fn size(bytes: u64) -> String {
    scaled(bytes as f64, 1024.0, &["B", "KiB", "MiB", "GiB"])
}

fn scaled(mut value: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let digits = match value {
        _ if unit == 0 => 0,
        v if v >= 99.95 => 0,
        v if v >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.digits$} {}", units[unit])
}

/// `1 root_id`, `2 root_ids`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits() {
        for (ns, text) in [
            (0, "0 ns"),
            (640, "640 ns"),
            (999, "999 ns"),
            (1_234, "1.23 µs"),
            (12_345, "12.3 µs"),
            (999_900, "1.00 ms"),
            (123_456_789, "123 ms"),
            (61_000_000_000, "61.0 s"),
            (3_600_000_000_000, "3600 s"),
        ] {
            assert_eq!(time(ns), text);
        }
        assert_eq!(size(365), "365 B");
        assert_eq!(size(91_341), "89.2 KiB");
        assert_eq!(size(256 << 20), "256 MiB");
    }
}
