//! Measurements that were saved, to compare others with.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use super::report::{BenchReport, SCHEMA};

/// A baseline is smaller than this.
const MAX_BYTES: u64 = 64 << 20;
/// The most files that are read from a folder.
const MAX_FILES: usize = 1_000;

/// Why there is no baseline.
#[derive(Debug, thiserror::Error)]
pub enum BaselineError {
    /// The file or folder cannot be read or written.
    #[error("cannot {what} `{path}`: {source}")]
    Io {
        /// `read`, `write`.
        what: &'static str,
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The file is none that `--save` wrote.
    #[error("`{path}` is no saved measurement: {reason}; make one with bench --save")]
    Format {
        /// Which.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Writes a measurement to a file, whole or not at all.
///
/// # Errors
///
/// Where it cannot be written.
pub fn save(report: &BenchReport, path: &Path) -> Result<(), BaselineError> {
    let failed =
        |source| BaselineError::Io { what: "write", path: path.display().to_string(), source };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let text = serde_json::to_string(report).map_err(io::Error::other).map_err(failed)?;
    let mut file = tempfile::Builder::new();
    #[cfg(unix)]
    {
        // As any other file, under the umask.
        use std::os::unix::fs::PermissionsExt as _;
        file.permissions(fs::Permissions::from_mode(0o666));
    }
    let mut file = file.tempfile_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.write_all(b"\n").map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Reads the measurement in a file, or those in a folder's `.json` files, the oldest first.
///
/// # Errors
///
/// Where there is none.
pub fn read(path: &Path) -> Result<Vec<BenchReport>, BaselineError> {
    if !path.is_dir() {
        return Ok(vec![read_file(path)?]);
    }
    let failed =
        |source| BaselineError::Io { what: "read", path: path.display().to_string(), source };
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        if file.extension().is_some_and(|extension| extension == "json") {
            files.push(file);
        }
    }
    files.sort();
    files.truncate(MAX_FILES);
    let mut all: Vec<_> = files.iter().map(|file| read_file(file)).collect::<Result<_, _>>()?;
    if all.is_empty() {
        let reason = "the folder has no .json file".to_owned();
        return Err(BaselineError::Format { path: path.display().to_string(), reason });
    }
    all.sort_by_key(|report| report.created);
    Ok(all)
}

fn read_file(path: &Path) -> Result<BenchReport, BaselineError> {
    let shown = || path.display().to_string();
    let failed = |source| BaselineError::Io { what: "read", path: shown(), source };
    let wrong = |reason: String| BaselineError::Format { path: shown(), reason };
    if fs::metadata(path).map_err(failed)?.len() > MAX_BYTES {
        return Err(wrong(format!("it has more than {} MiB", MAX_BYTES >> 20)));
    }
    let text = fs::read(path).map_err(failed)?;
    /// What every schema has.
    #[derive(serde::Deserialize)]
    struct Head {
        schema: u32,
    }
    let head: Head = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    if head.schema != SCHEMA {
        let schema = head.schema;
        return Err(wrong(format!("its schema is {schema}, and this filtergate reads {SCHEMA}")));
    }
    serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))
}
