//! A registry with every fault, and what the program makes of each: one clear error, in bounded
//! memory and time, and with nothing written but to its own cache.
//!
//! This is a test binary of its own because the memory of a process begins with that of the one
//! that starts it, which therefore has to be small.

mod layers;
mod registry;

#[path = "../image/server.rs"]
#[allow(dead_code, reason = "other suites use more of it")]
mod server;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use nix::sys::resource::{UsageWho, getrusage};

use crate::{
    registry::{Stored, is_blob, is_manifest},
    server::{Answer, Request, Server},
};

const MIB: u64 = 1 << 20;
/// What a fault may cost beyond the module.
const MAX_RSS_BYTES: u64 = 300 * MIB;
/// No fault may cost this. It is generous, because no test depends on the machine's speed.
const MAX_TIME: Duration = Duration::from_secs(120);

type Handler = Box<dyn Fn(&Request) -> Answer + Send + Sync>;

/// A fault, and what is to be said of it.
struct Case {
    name: &'static str,
    handler: Handler,
    timeout: &'static str,
    expected: Expected,
    /// The most requests that a client may make of such a registry.
    most_requests: usize,
}

enum Expected {
    /// The image could not be had: the rule and a part of its message. Exit code 3.
    Undecided(&'static str, &'static str),
    /// The image was had and is bad. Exit code 1.
    Bad(&'static str, &'static str),
    /// All is well but for what a warning says, if there is one. Exit code 0.
    Passes(Option<&'static str>),
}

use Expected::{Bad, Passes, Undecided};

fn case(
    name: &'static str,
    expected: Expected,
    handler: impl Fn(&Request) -> Answer + Send + Sync + 'static,
) -> Case {
    Case { name, handler: Box::new(handler), timeout: "60s", expected, most_requests: 10 }
}

/// A case whose fault is in the image.
fn image(name: &'static str, expected: Expected, stored: Stored) -> Case {
    case(name, expected, move |request| stored.answer(request))
}

/// A case in which a good image's module is answered for in another way.
fn blob(
    name: &'static str,
    expected: Expected,
    answer: impl Fn(&Request, &[u8]) -> Answer + Send + Sync + 'static,
) -> Case {
    let (stored, module) = (Stored::good(), registry::module());
    case(name, expected, move |request| match is_blob(request, &module) {
        true => answer(request, &module),
        false => stored.answer(request),
    })
}

/// A case in which the manifest is answered for in another way.
fn manifest(
    name: &'static str,
    expected: Expected,
    answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
) -> Case {
    let stored = Stored::good();
    case(name, expected, move |request| match is_manifest(request) {
        true => answer(request),
        false => stored.answer(request),
    })
}

fn cases() -> Vec<Case> {
    let mut cases = refusals();
    cases.extend(transfers());
    cases.extend(redirects());
    cases.extend(documents());
    cases.extend(archives());
    cases
}

fn refusals() -> Vec<Case> {
    let tokens = std::sync::atomic::AtomicUsize::new(0);
    vec![
        case(
            "401 loop",
            Undecided(
                "image/unauthorized",
                "the registry answered 401: UNAUTHORIZED: who is there",
            ),
            move |request| {
                if request.path.starts_with("/token") {
                    let count = tokens.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    return Answer::new(200, format!(r#"{{"token":"t{count}"}}"#));
                }
                let realm = format!("http://{}/token", request.header("host"));
                Answer::error(401, "UNAUTHORIZED", "who is there")
                    .header("WWW-Authenticate", &format!(r#"Bearer realm="{realm}""#))
            },
        ),
        manifest(
            "403",
            Undecided("image/unauthorized", "the registry answered 403: DENIED: not for you"),
            |_| Answer::error(403, "DENIED", "not for you"),
        ),
        manifest(
            "404",
            Undecided(
                "image/not-found",
                "the registry answered 404: MANIFEST_UNKNOWN: no such tag",
            ),
            |_| Answer::error(404, "MANIFEST_UNKNOWN", "no such tag"),
        ),
        manifest(
            "429 with Retry-After, for ever",
            Undecided("image/unreachable", "limits the rate of requests"),
            |_| Answer::error(429, "TOOMANYREQUESTS", "slow down").header("Retry-After", "0"),
        ),
        manifest(
            "429 with a Retry-After of an hour",
            Undecided("image/unreachable", "(it asks to wait 3600 s)"),
            |_| Answer::error(429, "TOOMANYREQUESTS", "slow down").header("Retry-After", "3600"),
        ),
        {
            let (stored, left) = (Stored::good(), std::sync::Mutex::new(2));
            manifest("500 twice, then 200", Passes(None), move |request| {
                let mut left = left.lock().unwrap();
                if *left == 0 {
                    return stored.answer(request);
                }
                *left -= 1;
                Answer::new(500, "").header("Retry-After", "0")
            })
        },
        manifest(
            "a login page",
            Undecided("image/unreachable", "a web page instead of a manifest"),
            |_| Answer::new(200, "<html>Please log in</html>"),
        ),
        manifest(
            "headers without end",
            Undecided("image/unreachable", "message head is too large"),
            |_| Answer::new(200, "").header("X-Long", &"x".repeat(2 << 20)),
        ),
    ]
}

fn transfers() -> Vec<Case> {
    vec![
        blob(
            "a cut body",
            Undecided(
                "image/unreachable",
                "the transfer broke off: end of file before message length reached; tried 4 times",
            ),
            |_, module| Answer::new(200, module).cut(1000),
        ),
        Case {
            timeout: "2s",
            ..blob(
                "a slow body",
                Undecided("image/unreachable", "not complete after 2 s"),
                |_, module| {
                    let pieces = module.len() - 1;
                    Answer::new(200, &module[..1]).followed_by(
                        "x",
                        pieces,
                        Duration::from_millis(50),
                    )
                },
            )
        },
        blob(
            "a wrong digest",
            Bad("image/digest-mismatch", "digest mismatch: expected"),
            |_, module| {
                let mut other = module.to_vec();
                other[100] ^= 1;
                Answer::new(200, other)
            },
        ),
        blob(
            "a body that is too short",
            Bad("image/digest-mismatch", "size mismatch"),
            |_, module| Answer::new(200, &module[..1000]),
        ),
        blob(
            "a body that is too long",
            Bad("image/digest-mismatch", "size mismatch"),
            |_, module| {
                Answer::new(200, module).without_length().followed_by(
                    [0; 1 << 16],
                    1 << 14,
                    Duration::ZERO,
                )
            },
        ),
        image(
            "a wrong size in the descriptor",
            Bad("image/digest-mismatch", "size mismatch: the descriptor says 4 bytes"),
            Stored::good().with_layer_size(4),
        ),
    ]
}

fn redirects() -> Vec<Case> {
    let to = |location: String| Answer::new(307, "").header("Location", &location);
    let nowhere = "http://127.77.0.1:1/blob?signature=hunter2".to_owned();
    vec![
        blob(
            "a redirect loop",
            Undecided("image/unreachable", "more than 5 redirects"),
            move |r, _| to(r.path.clone()),
        ),
        {
            // The other host is asked under another name, and is given nothing.
            let storage = Server::start(|request| {
                let is_told = !request.header("authorization").is_empty();
                Answer::new(if is_told { 500 } else { 200 }, registry::module())
            });
            blob("a redirect to another host", Passes(None), move |_, _| {
                to(format!("http://{}/storage", storage.host().replace("127.0.0.1", "localhost")))
            })
        },
        blob(
            "a redirect to a host that is down",
            Undecided("image/unreachable", "onnection refused"),
            move |_, _| to(nowhere.clone()),
        ),
        blob(
            "a redirect to the cloud's own address",
            Undecided(
                "image/unreachable",
                "169.254.169.254/latest/meta-data/, an address of this machine",
            ),
            move |_, _| to("http://169.254.169.254/latest/meta-data/".to_owned()),
        ),
        blob(
            "a redirect to a file",
            Undecided("image/unreachable", "redirects to what is no http URL"),
            move |_, _| to("file:///etc/passwd".to_owned()),
        ),
    ]
}

fn documents() -> Vec<Case> {
    let spaces = || Answer::new(200, "").followed_by(vec![b' '; 1 << 16], 50 << 4, Duration::ZERO);
    vec![
        manifest(
            "a manifest of 50 MiB",
            Bad("image/too-large", "52428800 bytes, larger than the limit of 4194304 bytes"),
            move |_| spaces(),
        ),
        manifest(
            "a manifest of 50 MiB that does not say so",
            Bad("image/too-large", "larger than the limit of 4194304 bytes"),
            move |_| spaces().without_length(),
        ),
        {
            let index = registry::index(&registry::digest(b"nobody"), 300);
            manifest(
                "an index that names itself",
                Bad("image/digest-mismatch", "digest mismatch"),
                move |_| Answer::new(200, &index),
            )
        },
        image(
            "indexes of indexes",
            Bad("image/invalid", "image indexes are nested more than 3 deep"),
            Stored::good().behind_indexes(12),
        ),
        image(
            "10,000 layers that are nothing",
            Bad("image/shape", "none of the image's 10000 layers is a Wasm module"),
            Stored::layers(10_000, "application/octet-stream"),
        ),
        image(
            "10,000 layers that are modules",
            Passes(Some("the image has 10000 layers with a module")),
            Stored::layers(10_000, "application/vnd.module.wasm.content.layer.v1+wasm"),
        ),
        manifest("invalid JSON", Bad("image/invalid", "is not valid"), |_| {
            Answer::new(200, "{\"a\":")
        }),
        manifest("deep JSON", Bad("image/invalid", "is not valid"), |_| {
            Answer::new(200, "[".repeat(1 << 20))
        }),
        image(
            "a config of 100 MiB",
            Bad("image/too-large", "104857600 bytes, larger than the limit of 4194304 bytes"),
            Stored::good().with_config_size(100 * MIB),
        ),
        {
            let (stored, config) = (Stored::good(), registry::CONFIG.as_bytes());
            case(
                "a config of 100 MiB that does not say so",
                Bad("image/digest-mismatch", "size mismatch"),
                move |request| match is_blob(request, config) {
                    true => Answer::new(200, "").without_length().followed_by(
                        vec![b' '; 1 << 16],
                        100 << 4,
                        Duration::ZERO,
                    ),
                    false => stored.answer(request),
                },
            )
        },
    ]
}

fn archives() -> Vec<Case> {
    let module = registry::module();
    let warns = || Passes(Some("the module's path in the layer is"));
    vec![
        image(
            "a gzip bomb in front of the module",
            Bad("image/too-large", "larger than the limit"),
            Stored::compat(&layers::gzip_bomb("zeros", 10 << 30, &module)),
        ),
        image(
            "a gzip bomb as the module",
            Bad("image/too-large", "plugin.wasm in blob"),
            Stored::compat(&layers::gzip_bomb("plugin.wasm", 10 << 30, &module)),
        ),
        image(
            "a gzip bomb that is cut",
            Bad("image/invalid", "the archive ends inside plugin.wasm: 0 of 268435456 bytes"),
            Stored::compat(&layers::gzip(&layers::entry("plugin.wasm", 256 * MIB))),
        ),
        image(
            "a path with dots",
            warns(),
            Stored::compat(&layers::gzip(&layers::file("../../../tmp/plugin.wasm", &module))),
        ),
        image(
            "an absolute path",
            warns(),
            Stored::compat(&layers::gzip(&layers::file("/etc/plugin.wasm", &module))),
        ),
        image(
            "a symbolic link",
            Bad("image/shape", "is a symbolic link to /etc/passwd, not a file"),
            Stored::compat(&layers::gzip(&layers::link(tar::EntryType::Symlink, "/etc/passwd"))),
        ),
        image(
            "a hard link",
            Bad("image/shape", "is a hard link to ../outside, not a file"),
            Stored::compat(&layers::gzip(&layers::link(tar::EntryType::Link, "../outside"))),
        ),
        image(
            "a device",
            Bad("image/shape", "is a device, not a file"),
            Stored::compat(&layers::gzip(&layers::link(tar::EntryType::Char, ""))),
        ),
        image(
            "a huge declared size",
            Bad("image/too-large", "larger than the limit of 268435456 bytes"),
            Stored::compat(&layers::gzip(&layers::entry("plugin.wasm", i64::MAX as u64))),
        ),
        image(
            "a huge declared size of another file",
            Bad("image/invalid", "the layer is not an intact tar archive"),
            Stored::compat(&layers::gzip(&layers::entry("other", i64::MAX as u64))),
        ),
        image(
            "a sparse file of a terabyte",
            Bad("image/too-large", "1099511627776 bytes, larger than the limit"),
            Stored::compat(&layers::gzip(&layers::sparse("plugin.wasm", 1 << 40, &module))),
        ),
        image(
            "a sparse file of a terabyte in front of the module",
            // It is passed over without being made.
            Passes(None),
            Stored::compat(&layers::gzip(&layers::sparse("zeros", 1 << 40, &module))),
        ),
    ]
}

/// The program, where it could write to nothing but its cache.
fn run(case: &Case, host: &str, home: &Path, cache: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_filtergate"));
    command
        .args(["check", "--timeout", case.timeout, &format!("{host}/acme/filter:v1")])
        .stdin(Stdio::null())
        .current_dir(home)
        .env_clear()
        .env("FILTERGATE_CACHE", cache);
    for folder in ["HOME", "TMPDIR", "DOCKER_CONFIG", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"] {
        command.env(folder, home);
    }
    command.output().unwrap()
}

fn assert_case(case: Case) {
    let server = Server::start(move |request| (case.handler)(request));
    let case = Case { handler: Box::new(|_| Answer::new(500, "")), ..case };
    let (home, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let begun = Instant::now();
    let output = run(&case, &server.host(), home.path(), cache.path());
    let took = begun.elapsed();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let name = case.name;
    let context = format!("{name}:\n{stdout}\n{stderr}");

    let (exit, rule, text, verdict) = match case.expected {
        Undecided(rule, text) => (3, Some(rule), Some(text), "UNDECIDED"),
        Bad(rule, text) => (1, Some(rule), Some(text), "FAIL"),
        Passes(text) => (0, None, text, "PASS"),
    };
    assert_eq!(output.status.code(), Some(exit), "{context}");
    assert_eq!(stderr, "", "{context}");
    let errors: Vec<_> = stdout.lines().filter(|line| line.starts_with("error[")).collect();
    let last = stdout.lines().last().unwrap_or_default();
    assert!(last.starts_with(verdict), "{context}");
    match rule {
        Some(rule) => {
            assert_eq!(errors.len(), 1, "{context}");
            assert!(errors[0].starts_with(&format!("error[{rule}]: ")), "{context}");
            assert!(errors[0].contains(text.unwrap()), "{context}");
            assert!(errors[0].len() < 1000, "{context}");
            assert!(stdout.lines().any(|line| line.starts_with("  help   ")), "{context}");
        }
        None => {
            assert!(errors.is_empty(), "{context}");
            let warns = |line: &str| line.starts_with("warning[") && line.contains(text.unwrap());
            assert!(text.is_none() || stdout.lines().any(warns), "{context}");
        }
    }
    assert!(!stdout.contains("hunter2"), "{context}");
    let requests = server.requests().len();
    assert!(requests <= case.most_requests, "{requests} requests\n{context}");
    let written: Vec<_> = fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(written.is_empty(), "{written:?}\n{context}");
    assert!(took < MAX_TIME, "{took:?}\n{context}");
    let peak = peak_of_children();
    assert!(peak < MAX_RSS_BYTES, "{} MiB or more\n{context}", peak / MIB);
}

/// The largest peak of all processes that were started, so far.
fn peak_of_children() -> u64 {
    let kibibytes = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap().max_rss();
    u64::try_from(kibibytes).unwrap() << 10
}

#[test]
fn every_fault_of_a_registry() {
    // All that is wrong at once. What each said was printed when it failed.
    let failed: Vec<_> = cases()
        .into_iter()
        .map(|case| (case.name, catch_unwind(AssertUnwindSafe(|| assert_case(case)))))
        .filter_map(|(name, result)| result.is_err().then_some(name))
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    // A peak that was never measured would be under every limit.
    let peak = peak_of_children();
    println!("the largest peak was {} MiB", peak / MIB);
    assert!(peak > MIB);
}
