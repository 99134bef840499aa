//! Compiled modules: code, and behind it which compiler made it and a digest of all that.
//!
//! The digest is there against damage, and not against people: who could put code here could put
//! its digest here, too. So it is a fast one; SHA-256 would take longer than all the rest of a
//! check that finds its module compiled.

use std::{
    fs::File,
    io::{self, Read, Seek as _, SeekFrom},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
};

use xxhash_rust::xxh3::Xxh3Default;

use super::{Draft, Store, WRONG_DIGEST};

/// How every compiled module ends.
const MAGIC: [u8; 8] = *b"fgcode1\n";
/// The compiler's name, filled up with zeros.
const COMPILER_BYTES: usize = 16;
const DIGEST_BYTES: usize = 16;
const TRAILER_BYTES: usize = COMPILER_BYTES + DIGEST_BYTES + MAGIC.len();

/// A compiled module that is as it was written.
pub(crate) struct Compiled {
    /// The file, at whose start the code is.
    pub file: File,
    /// The compiler that made it.
    pub compiler: String,
}

/// A digest of the code, of what it is said to be, and of who made it.
struct CodeDigest(Xxh3Default);

impl CodeDigest {
    fn new() -> Self {
        Self(Xxh3Default::new())
    }

    fn finish(mut self, compiler: &[u8], name: &str) -> [u8; DIGEST_BYTES] {
        self.0.update(compiler);
        self.0.update(name.as_bytes());
        self.0.digest128().to_be_bytes()
    }
}

/// Verifies the file of a compiled module, and says who made it.
pub(super) fn verify(file: &mut File, name: &str) -> io::Result<String> {
    let wrong = || io::Error::other(WRONG_DIGEST);
    let length = file.metadata()?.len();
    let code = length.checked_sub(TRAILER_BYTES as u64).ok_or_else(wrong)?;
    let mut digest = CodeDigest::new();
    let mut piece = vec![0; 32 << 10];
    let mut left = code;
    while left > 0 {
        let most = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        match file.read(&mut piece[..most])? {
            0 => return Err(wrong()),
            read => {
                digest.0.update(&piece[..read]);
                left -= read as u64;
            }
        }
    }
    let mut trailer = [0; TRAILER_BYTES];
    file.read_exact(&mut trailer)?;
    file.seek(SeekFrom::Start(0))?;
    let (compiler, rest) = trailer.split_at(COMPILER_BYTES);
    let (expected, magic) = rest.split_at(DIGEST_BYTES);
    if magic != MAGIC || digest.finish(compiler, name) != *expected {
        return Err(wrong());
    }
    let compiler = String::from_utf8_lossy(compiler);
    Ok(compiler.trim_end_matches('\0').to_owned())
}

fn trailer(code: &[u8], name: &str, compiler: &str) -> Vec<u8> {
    let mut trailer = compiler.as_bytes().to_vec();
    trailer.resize(COMPILER_BYTES, 0);
    let mut digest = CodeDigest::new();
    digest.0.update(code);
    let digest = digest.finish(&trailer, name);
    trailer.extend(digest);
    trailer.extend(MAGIC);
    trailer
}

impl Store {
    fn compiled_path(&self, name: &str) -> PathBuf {
        self.folder.join("artifacts").join(name)
    }

    /// The compiled module of that name. One that is damaged is none.
    pub(crate) fn compiled(&self, name: &str) -> Option<Compiled> {
        let path = self.compiled_path(name);
        let what = || format!("compiled module {name}");
        let mut file = self.open_entry(&path, what)?;
        match verify(&mut file, name) {
            Ok(compiler) => Some(Compiled { file, compiler }),
            Err(error) => {
                self.damaged(&path, &what(), &error.to_string());
                None
            }
        }
    }

    /// Keeps a compiled module, when there is time.
    pub(crate) fn keep_compiled(
        &self,
        name: String,
        compiler: &'static str,
        code: impl FnOnce() -> io::Result<Vec<u8>> + Send + 'static,
    ) {
        let warnings = Arc::clone(&self.warnings);
        let path = self.compiled_path(&name);
        self.grew.store(true, Ordering::Relaxed);
        self.later(move || {
            let kept = code().and_then(|code| {
                let mut draft = Draft::new(&path)?;
                draft.write(&code)?;
                draft.write(&trailer(&code, &name, compiler))?;
                draft.publish()
            });
            if let Err(error) = kept {
                warnings.not_kept(&error);
            }
        });
    }

    /// Removes a compiled module that was as it was written and is of no use all the same.
    pub(crate) fn discard_compiled(&self, name: &str, reason: &str) {
        self.damaged(&self.compiled_path(name), &format!("compiled module {name}"), reason);
    }
}
