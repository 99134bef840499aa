//! The page of `filtergate bench --html`: one file that takes nothing from elsewhere, in which text stays
//! text.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What a name may try.
const HOSTILE: &str = r#"<script>alert(1)<!--<img src=x onerror=alert(1)>"'&amp;"#;

/// The elements that a page is made of.
const ELEMENTS: [&str; 23] = [
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "span", "i", "div", "table",
    "tr", "th", "td", "svg", "rect", "text", "line", "circle", "polyline", "!doctype",
];
/// Those of them that end with their tag.
const VOID: [&str; 2] = ["meta", "!doctype"];

/// A tag as it stands in the page.
struct Tag<'a> {
    name: &'a str,
    /// What follows the name.
    attributes: &'a str,
    /// The text up to the next tag.
    text: &'a str,
    ends: bool,
    is_empty: bool,
}

/// All tags. A `<` that begins none is one with a name that no element has.
fn tags(page: &str) -> Vec<Tag<'_>> {
    let pieces = page.split('<').skip(1);
    pieces
        .map(|piece| {
            let (tag, text) = piece.split_once('>').unwrap_or((piece, ""));
            let ends = tag.starts_with('/');
            let is_empty = tag.ends_with('/');
            let tag = tag.trim_matches('/');
            let (name, attributes) = tag.split_once(' ').unwrap_or((tag, ""));
            Tag { name, attributes, text, ends, is_empty }
        })
        .collect()
}

/// The names and values of attributes.
fn attributes(mut text: &str) -> Vec<(&str, &str)> {
    let mut all = Vec::new();
    while let Some((name, rest)) = text.split_once("=\"") {
        let (value, rest) = rest.split_once('"').expect("a value ends");
        all.push((name.trim(), value));
        text = rest;
    }
    all
}

/// A module of the golden cases under a name that no page should trust, and its page.
struct Fixture {
    folder: tempfile::TempDir,
    image: String,
}

impl Fixture {
    fn new() -> Self {
        let wat = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/counts.wat");
        let folder = tempfile::tempdir().unwrap();
        let image = format!("{HOSTILE}.wasm");
        fs::write(folder.path().join(&image), wat::parse_file(wat).unwrap()).unwrap();
        Self { folder, image }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn bench(&self, arguments: &[&str]) {
        let output = Command::new(env!("CARGO_BIN_EXE_filtergate"))
            .args(["bench", &self.image, "--runs", "2", "--warmup", "0", "--root-id", HOSTILE])
            .args(arguments)
            .env("FILTERGATE_CACHE", self.path("cache"))
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {errors}");
    }

    /// The page with everything that a page can have, a name everywhere where one can stand.
    fn page(&self) -> String {
        let exchanges = serde_json::json!([{
            "name": format!("</svg></style>{HOSTILE}\u{1b}[31m\u{202e}"),
            "request": { "method": "GET", "path": "/", "host": "example.com" },
        }]);
        let exchanges = exchanges.to_string();
        let saved = format!("{HOSTILE}.json");
        self.bench(&["--exchanges", &exchanges, "--save", &saved]);
        let budget = "memory=1GiB";
        self.bench(&[
            "--exchanges",
            &exchanges,
            "--baseline",
            &saved,
            "--budget",
            budget,
            "--no-gate",
            "--html",
            "page.html",
        ]);
        fs::read_to_string(self.path("page.html")).unwrap()
    }
}

#[test]
fn each_section_is_there_and_nothing_comes_from_elsewhere() {
    let page = Fixture::new().page();
    let tags = tags(&page);
    let mut open = Vec::new();
    for tag in &tags {
        assert!(ELEMENTS.contains(&tag.name), "<{} {}>", tag.name, tag.attributes);
        if tag.ends {
            assert_eq!(open.pop(), Some(tag.name));
            continue;
        }
        for (name, value) in attributes(tag.attributes) {
            let loads = ["href", "src", "srcset", "data", "action", "style", "xlink:href"];
            assert!(!loads.contains(&name) && !name.starts_with("on"), "{name} of <{}>", tag.name);
            assert!(!value.contains("://") && !value.contains("url("), "{name}={value}");
        }
        if !tag.is_empty && !VOID.contains(&tag.name) {
            open.push(tag.name);
        }
    }
    assert_eq!(open, Vec::<&str>::new());
    let style = tags.iter().find(|tag| tag.name == "style").unwrap().text;
    assert!(!style.contains("url(") && !style.contains("@import"), "{style}");
    let policy = tags.iter().find(|tag| tag.attributes.contains("Content-Security-Policy"));
    assert!(policy.unwrap().attributes.contains("default-src 'none'"));

    let shown = HOSTILE.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let shown = shown.replace('"', "&quot;").replace('\'', "&#39;");
    let titles = |name: &str| {
        let of = tags.iter().filter(|tag| tag.name == name && !tag.ends);
        // A machine without a counter has a line in its place.
        of.map(|tag| tag.text).filter(|text| *text != "Hardware instructions").collect::<Vec<_>>()
    };
    assert_eq!(titles("h1"), [format!("{shown}.wasm")]);
    assert_eq!(
        titles("h2"),
        [
            "Load, by phase",
            "Fuel of an exchange, by winch",
            "Memory, by stage",
            "Distributions of CPU time",
            &format!("Against {shown}.json, under winch"),
            "History",
            "Exact counters, by winch",
        ]
    );
    // Bars of the load, of fuel and of memory, the distributions, and five courses of the history.
    let pictures = tags.iter().filter(|tag| tag.name == "svg" && !tag.ends);
    let names: Vec<_> = pictures.map(|tag| attributes(tag.attributes)).collect();
    assert!(
        names
            .iter()
            .all(|all| all.iter().any(|(name, value)| *name == "aria-label" && !value.is_empty()))
    );
    assert_eq!(names.len(), 9);
}

#[test]
fn names_are_shown_as_they_are() {
    let page = Fixture::new().page();
    for raw in ["<script", "<img", "<!--", "onerror=alert(1)>\"", "\u{1b}", "\u{202e}"] {
        assert!(!page.contains(raw), "{raw:?}");
    }
    assert!(page.contains(
        "&lt;script&gt;alert(1)&lt;!--&lt;img src=x onerror=alert(1)&gt;&quot;&#39;&amp;amp;"
    ));
    assert!(page.contains("&lt;/svg&gt;&lt;/style&gt;"));
}
