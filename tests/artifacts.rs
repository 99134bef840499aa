//! Compiled modules from the store.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use filtergate::{
    CheckOptions,
    bench::Phase,
    image::FetchOptions,
    store::Store,
    verdict::{Outcome, Verdict},
    vm::{Compiler, VmOptions},
};

#[path = "support/check.rs"]
mod check;

/// A store in a folder of its own, and what it warned of.
struct Kept {
    folder: tempfile::TempDir,
    warnings: Arc<Mutex<Vec<String>>>,
}

impl Kept {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), warnings: Arc::default() }
    }

    /// A check in a store of its own, which is closed behind it.
    fn check(&self, file: &Path, compiler: Compiler) -> Verdict {
        let warnings = Arc::clone(&self.warnings);
        let tell = move |text: &str| warnings.lock().unwrap().push(text.to_owned());
        let store = Arc::new(Store::open(self.folder.path(), tell).unwrap());
        let options = CheckOptions {
            fetch: FetchOptions { store: Some(store), ..FetchOptions::default() },
            vm: VmOptions { compiler, ..VmOptions::default() },
            ..CheckOptions::default()
        };
        check::check(file.to_str().unwrap(), &options)
    }

    fn artifacts(&self) -> Vec<PathBuf> {
        let folder = fs::read_dir(self.folder.path().join("v1/artifacts")).unwrap();
        let mut paths: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    }

    fn warnings(&self) -> Vec<String> {
        std::mem::take(&mut *self.warnings.lock().unwrap())
    }
}

fn filter(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("filters/prebuilt/{name}.wasm"))
}

/// Whether a check compiled the module; otherwise it had it from the store.
fn has_compiled(verdict: &Verdict) -> bool {
    let phases = [Phase::Compile, Phase::Artifact].map(|phase| verdict.phases.get(phase).is_some());
    assert!(phases == [true, false] || phases == [false, true], "{phases:?}");
    phases[0]
}

#[test]
fn a_module_is_compiled_once() {
    let (kept, file) = (Kept::new(), filter("add-header"));
    let first = kept.check(&file, Compiler::Winch);
    let second = kept.check(&file, Compiler::Winch);
    assert_eq!((has_compiled(&first), has_compiled(&second)), (true, false));
    assert_eq!(second.outcome, Outcome::Pass);
    assert_eq!(format!("{:?}", second.findings), format!("{:?}", first.findings));
    assert_eq!(second.compiler, Some(Compiler::Winch));
    for (first, second) in first.roots.iter().zip(&second.roots) {
        assert_eq!(format!("{:?}", first.exchanges), format!("{:?}", second.exchanges));
    }
    // For another compiler it is another.
    let third = kept.check(&file, Compiler::CraneliftSpeed);
    assert_eq!((has_compiled(&third), third.compiler), (true, Some(Compiler::CraneliftSpeed)));
    assert!(!has_compiled(&kept.check(&file, Compiler::CraneliftSpeed)));
    assert_eq!(kept.artifacts().len(), 2);
    // Other bytes are another module.
    let other = kept.check(&filter("deny-path"), Compiler::Winch);
    assert!(has_compiled(&other));
    assert_eq!(kept.warnings(), [""; 0]);
}

#[test]
fn what_winch_does_not_take_is_compiled_once_too() {
    let kept = Kept::new();
    let wat = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/tail-call.wat");
    let file = kept.folder.path().join("tail-call.wasm");
    fs::write(&file, wat::parse_file(wat).unwrap()).unwrap();
    for compiled in [true, false] {
        let verdict = kept.check(&file, Compiler::Winch);
        assert_eq!(verdict.compiler, Some(Compiler::CraneliftFast));
        assert_eq!(has_compiled(&verdict), compiled);
    }
}

#[test]
fn what_is_damaged_is_compiled_again() {
    let (kept, file) = (Kept::new(), filter("add-header"));
    kept.check(&file, Compiler::Winch);
    let [path] = kept.artifacts().try_into().unwrap();
    let whole = fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let mut other_end = whole.clone();
    *other_end.last_mut().unwrap() ^= 1;
    let mut other_compiler = whole.clone();
    let at = whole.len() - 40;
    assert_eq!(&whole[at..at + 5], b"winch");
    other_compiler[at..at + 5].copy_from_slice(b"wInch");
    let cases =
        [&flipped, &other_end, &other_compiler, &whole[..whole.len() / 2], b"", &whole[1..]];
    for damage in cases {
        fs::write(&path, damage).unwrap();
        let verdict = kept.check(&file, Compiler::Winch);
        assert_eq!((has_compiled(&verdict), verdict.outcome), (true, Outcome::Pass));
        let warnings = kept.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("compiled module"), "{warnings:?}");
        assert_eq!(fs::read(&path).unwrap(), whole);
    }
    assert!(!has_compiled(&kept.check(&file, Compiler::Winch)));
}

#[test]
fn the_code_of_another_module_is_not_taken() {
    let (kept, other) = (Kept::new(), Kept::new());
    let file = filter("add-header");
    kept.check(&file, Compiler::Winch);
    other.check(&filter("deny-path"), Compiler::Winch);
    fs::copy(&other.artifacts()[0], &kept.artifacts()[0]).unwrap();
    let verdict = kept.check(&file, Compiler::Winch);
    assert_eq!((has_compiled(&verdict), verdict.outcome), (true, Outcome::Pass));
    assert_eq!(kept.warnings().len(), 1);
}

#[test]
fn a_module_that_is_refused_before_leaves_nothing() {
    let kept = Kept::new();
    let file = kept.folder.path().join("empty.wasm");
    fs::write(&file, b"\0asm\x01\0\0\0").unwrap();
    assert_eq!(kept.check(&file, Compiler::Winch).outcome, Outcome::Fail);
    assert!(kept.artifacts().is_empty());
}
