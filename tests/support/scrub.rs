//! Takes out of what a command printed what differs from run to run or from machine to machine.

/// What a command printed, without what differs from run to run or from machine to machine.
pub fn normalized(text: &str) -> String {
    let text = replace_numbers_before(text, &[" ns", " µs", " ms"], "[time]");
    let mut text = replace_hex(&text);
    // What the bench warns of depends on how busy the machine is.
    if let Some((head, tail)) = text.split_once("\"warnings\": [")
        && let Some((_, tail)) = tail.rsplit_once(']')
    {
        text = format!("{head}\"warnings\": [\"[warnings]\"]{tail}");
    }
    without_instructions(&text).split_inclusive('\n').map(normalized_line).collect()
}

/// Whether instructions are counted is the machine's business: their table and the words that stand in
/// for it become the same, as do the numbers in JSON and their absence.
fn without_instructions(text: &str) -> String {
    let mut out = String::new();
    let mut lines = text.split_inclusive('\n').peekable();
    while let Some(line) = lines.next() {
        let key = line.find("\"instructions\": ").map(|at| &line[..at]);
        if line.starts_with("hardware instructions") {
            out.push_str("hardware instructions [counted, or why not]\n");
            while lines.next_if(|line| *line != "\n").is_some() {}
        } else if let Some(indent) = key {
            let end = match line.trim_end().ends_with('{') {
                true => {
                    lines.by_ref().find(|line| line.trim_start().starts_with('}')).unwrap_or(line)
                }
                false => line,
            };
            let comma = if end.trim_end().ends_with(',') { "," } else { "" };
            out.push_str(&format!("{indent}\"instructions\": \"[counted or null]\"{comma}\n"));
        } else {
            out.push_str(line);
        }
    }
    out
}

fn normalized_line(line: &str) -> String {
    let mut line = line.to_owned();
    for field in [
        "wall_ns",
        "cpu_ns",
        "begun_ns",
        "took_ns",
        "median",
        "mad",
        "min",
        "low",
        "high",
        "outliers",
        "created",
        "compiled_bytes",
        "cores",
        "resident_bytes",
        "spent",
    ] {
        for key in [format!("\"{field}\": "), format!("\"{field}\":")] {
            line = replace_numbers_after(&line, &key, "0");
        }
    }
    // What is no whole number or no number at all.
    for field in [
        "load_average",
        "busy",
        "stolen",
        "seconds",
        "cpu",
        "engine",
        "slower_machine",
        "instructions_not_counted",
    ] {
        let key = format!("\"{field}\": ");
        if let Some((head, rest)) = line.split_once(&key) {
            let comma = if rest.trim_end().ends_with(',') { "," } else { "" };
            line = format!("{head}{key}\"[{field}]\"{comma}\n");
        }
    }
    if line.starts_with("exact counters, by ") {
        let (head, tail) = line.split_once("made ").unwrap();
        line = format!("{head}made [size] of {}", tail.split_once(" of ").unwrap().1);
    }
    // The columns of the bench tables are as wide as their numbers.
    let is_trace = line.trim_start().starts_with("[time]");
    let is_head = line.contains("95 % interval");
    if is_head || line.contains("[time]") && !line.starts_with("time ") {
        let words: Vec<_> = line.split_whitespace().collect();
        let is_number = |at: usize| {
            let word = words.get(at).map(|word| word.trim_start_matches('+'));
            word.is_some_and(|word| word.parse::<f64>().is_ok())
        };
        let follows = |at: usize, word: &str| at > 0 && words[at - 1] == word;
        let precedes = |at: usize, word: &str| words.get(at + 1) == Some(&word);
        // `2 of 20` outliers, `+5.0 %`, and a p of four digits. Other numbers are exact.
        let is_measured = |at: usize| {
            is_number(at)
                && (precedes(at, "of") && is_number(at + 2)
                    || follows(at, "of") && is_number(at - 2)
                    || precedes(at, "%")
                    || words[at].split_once('.').is_some_and(|(_, digits)| digits.len() == 4))
        };
        let words = (0..words.len()).map(|at| match words[at] {
            // Noise makes a slope negative.
            "-[time]" | "-[time]," => &words[at][1..],
            _ if !is_head && !is_trace && is_measured(at) => "[n]",
            word => word,
        });
        line = words.collect::<Vec<_>>().join(" ") + "\n";
    }
    let about_the_machine =
        ["warning: wall time", "warning: the machine", "warning: the hypervisor"];
    if about_the_machine.iter().any(|start| line.starts_with(start))
        || line.contains("too short to compare")
        || line.starts_with("the machine was ")
    {
        return String::new();
    }
    line
}

/// `12.3 µs` and `0 ns` become `word`.
fn replace_numbers_before(text: &str, units: &[&str], word: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let end = rest[start..]
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .map_or(rest.len(), |length| start + length);
        out.push_str(&rest[..start]);
        match units.iter().find(|unit| rest[end..].starts_with(**unit)) {
            Some(unit) => {
                out.push_str(word);
                rest = &rest[end + unit.len()..];
            }
            None => {
                out.push_str(&rest[start..end]);
                rest = &rest[end..];
            }
        }
    }
    out + rest
}

fn replace_numbers_after(text: &str, key: &str, word: &str) -> String {
    let mut parts = text.split(key);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(key);
        let number = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        if number > 0 {
            out.push_str(word);
        }
        out.push_str(&part[number..]);
    }
    out
}

/// Digests, and the first part of one.
fn replace_hex(text: &str) -> String {
    let mut out = String::new();
    let mut run = String::new();
    for c in text.chars().chain(['\n']) {
        if c.is_ascii_digit() || ('a'..='f').contains(&c) {
            run.push(c);
            continue;
        }
        let digest = run.len() == 64 || run.len() == 12 && c == '…';
        out.push_str(if digest { "[digest]" } else { &run });
        run.clear();
        out.push(c);
    }
    out.pop();
    out
}
