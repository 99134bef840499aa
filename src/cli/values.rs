//! Words of the command line as values.

use std::{fs, time::Duration};

use crate::{image::Platform, report::escape::escape};

/// `500ms`, `1s`, `1.5s`, `2m`.
///
/// # Errors
///
/// With the reason.
pub fn duration(text: &str) -> Result<Duration, String> {
    let number_end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let seconds = match unit {
        "ms" => 0.001,
        "s" => 1.0,
        "m" | "min" => 60.0,
        _ => return Err("write a number and a unit: 500ms, 1s or 2m".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| "write a number and a unit: 500ms, 1s or 2m")?;
    Duration::try_from_secs_f64(number * seconds)
        .ok()
        .filter(|duration| !duration.is_zero() && *duration <= Duration::from_secs(86_400))
        .ok_or_else(|| "the time must be more than nothing and at most a day".to_owned())
}

/// An age: what [`duration`] takes, and `12h`, `30d`, without a limit.
///
/// # Errors
///
/// With the reason.
pub fn age(text: &str) -> Result<Duration, String> {
    let long = [("h", 3_600), ("d", 86_400)];
    let number = |(unit, seconds): &(&str, u64)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(*seconds).map(Duration::from_secs)
    };
    match long.iter().find_map(number) {
        Some(age) => Ok(age),
        None => duration(text).map_err(|_| "write a number and a unit: 45m, 12h or 30d".to_owned()),
    }
}

/// `NAME=VALUE`; the value may be empty and may have `=` in it.
///
/// # Errors
///
/// With the reason.
pub fn variable(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "write a name and a value: NAME=VALUE".to_owned())
}

/// `1000000`, `512KiB`, `256MiB`, `1GiB`.
///
/// # Errors
///
/// With the reason.
pub fn size(text: &str) -> Result<u64, String> {
    let number_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(number_end);
    let factor: u64 = match unit.trim_start() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("write bytes, or a number and KiB, MiB or GiB".to_owned()),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(factor))
        .filter(|size| *size > 0)
        .ok_or_else(|| "write bytes, or a number and KiB, MiB or GiB".to_owned())
}

/// `linux/amd64`.
///
/// # Errors
///
/// With the reason.
pub fn platform(text: &str) -> Result<Platform, String> {
    match text.split('/').collect::<Vec<_>>().as_slice() {
        [os, architecture] if !os.is_empty() && !architecture.is_empty() => {
            Ok(Platform { os: (*os).to_owned(), architecture: (*architecture).to_owned() })
        }
        _ => Err("write the system and the architecture: linux/amd64".to_owned()),
    }
}

/// Text, or with a leading `@` the content of a file.
///
/// # Errors
///
/// Where the file cannot be read.
pub fn text_or_file(text: &str) -> Result<Vec<u8>, String> {
    match text.strip_prefix('@') {
        None => Ok(text.as_bytes().to_owned()),
        Some(path) => file(path),
    }
}

/// The content of a file.
///
/// # Errors
///
/// Where it cannot be read.
pub fn file(path: &str) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("cannot read `{}`: {error}", escape(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "1", "s", "-1s", "0s", "1.2.3s", "1h", "9999999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ages() {
        assert_eq!(age("30d"), Ok(Duration::from_secs(30 * 86_400)));
        assert_eq!(age("12h"), Ok(Duration::from_secs(12 * 3_600)));
        assert_eq!(age("5s"), Ok(Duration::from_secs(5)));
        for bad in ["", "d", "-1d", "1.5d", "30", "99999999999999999999d", "9999999999999999999h"] {
            assert!(age(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(size("1000"), Ok(1000));
        assert_eq!(size("256MiB"), Ok(256 << 20));
        assert_eq!(size("1 GiB"), Ok(1 << 30));
        for bad in ["", "0", "MiB", "1MB", "99999999999GiB", "-1"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn platforms() {
        let arm = Platform { os: "linux".to_owned(), architecture: "arm64".to_owned() };
        assert_eq!(platform("linux/arm64"), Ok(arm));
        for bad in ["", "linux", "linux/", "/amd64", "linux/arm/v7"] {
            assert!(platform(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn texts() {
        assert_eq!(text_or_file("{}"), Ok(b"{}".to_vec()));
        assert!(text_or_file("@no/such/file").is_err());
    }
}
