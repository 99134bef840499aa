//! What is in the store, for people and programs.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::{
    escape::escape,
    json::{Layout, to_string},
    units::{count, size},
};
use crate::store::{Entry, Pruned, Verified};

/// References that are shown in a row.
const MAX_REFERENCES: usize = 3;

/// The entries as a table.
pub fn list(folder: &Path, entries: &[Entry]) -> String {
    let bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
    let mut out = format!(
        "{}: {}, {}\n",
        escape(&folder.display().to_string()),
        entries_count(entries.len()),
        size(bytes)
    );
    if entries.is_empty() {
        return out;
    }
    let now = SystemTime::now();
    out.push_str(&row("KIND", "DIGEST", "SIZE", "LAST USE", "REFERENCES"));
    for entry in entries {
        let age = now.duration_since(entry.used).unwrap_or_default();
        out.push_str(&row(
            entry.kind.as_str(),
            &name(entry),
            &size(entry.bytes),
            &format!("{} ago", units_of_age(age)),
            &references(entry),
        ));
    }
    out
}

fn row(kind: &str, digest: &str, size: &str, used: &str, references: &str) -> String {
    let line = format!("{kind:<8}  {digest:<36}  {size:>9}  {used:>11}  {references}");
    format!("{}\n", line.trim_end())
}

fn name(entry: &Entry) -> String {
    let digest = format!("{}:{}…", entry.digest.algorithm().name(), entry.digest.short());
    match &entry.compiler {
        Some(compiler) => format!("{digest} {}", escape(compiler)),
        None => digest,
    }
}

fn references(entry: &Entry) -> String {
    let shown: Vec<_> =
        entry.references.iter().take(MAX_REFERENCES).map(|name| escape(name)).collect();
    let more = entry.references.len() - shown.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

fn entries_count(number: usize) -> String {
    if number == 1 { "1 entry".to_owned() } else { format!("{number} entries") }
}

/// An age in its largest unit: `45 s`, `12 min`, `3 h`, `20 d`.
fn units_of_age(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn entry_json(entry: &Entry) -> Value {
    json!({
        "kind": entry.kind.as_str(),
        "digest": entry.digest.to_string(),
        "compiler": entry.compiler,
        "bytes": entry.bytes,
        "used_unix_s": seconds(entry.used),
        "references": entry.references,
        "path": entry.path.display().to_string(),
    })
}

/// The entries as JSON.
pub fn list_json(folder: &Path, entries: &[Entry]) -> String {
    let value = json!({
        "folder": folder.display().to_string(),
        "bytes": entries.iter().map(|entry| entry.bytes).sum::<u64>(),
        "entries": entries.iter().map(entry_json).collect::<Vec<_>>(),
    });
    to_string(&value, Layout::Pretty)
}

/// What was removed.
pub fn pruned(pruned: &Pruned) -> String {
    let unfinished = match pruned.unfinished {
        0 => String::new(),
        number => format!(", and {} of killed runs", count(number, "unfinished file")),
    };
    format!(
        "removed {}, {}{unfinished}; {} left\n",
        entries_count(pruned.entries),
        size(pruned.bytes),
        size(pruned.left_bytes)
    )
}

/// What was removed, as JSON.
pub fn pruned_json(pruned: &Pruned) -> String {
    let value = json!({
        "removed": pruned.entries,
        "removed_bytes": pruned.bytes,
        "removed_unfinished": pruned.unfinished,
        "left_bytes": pruned.left_bytes,
    });
    to_string(&value, Layout::Pretty)
}

/// What is damaged.
pub fn verified(verified: &Verified) -> String {
    let mut out = String::new();
    for (entry, reason) in &verified.damaged {
        out.push_str(&format!(
            "damaged: {} {}: {}\n",
            entry.kind.as_str(),
            name(entry),
            escape(reason)
        ));
    }
    out.push_str(&match verified.damaged.len() {
        0 => format!("{}, all as they were written\n", entries_count(verified.intact)),
        damaged => format!(
            "{} damaged and removed, {} as they were written\n",
            entries_count(damaged),
            verified.intact
        ),
    });
    out
}

/// What is damaged, as JSON.
pub fn verified_json(verified: &Verified) -> String {
    let damaged: Vec<_> = verified
        .damaged
        .iter()
        .map(|(entry, reason)| {
            let mut value = entry_json(entry);
            value["reason"] = json!(reason);
            value
        })
        .collect();
    to_string(&json!({ "intact": verified.intact, "damaged": damaged }), Layout::Pretty)
}
