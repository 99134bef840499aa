//! How the commands fetch images: options, what an image argument names, and the runtime.

use std::{
    io::{self, Read as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use tokio::runtime::{Builder, Runtime};

use crate::{
    image::{CredentialSource, FetchOptions, Platform, PublicKey, Source, UserPassword},
    report::escape::escape,
    store::{Store, StoreError},
};

use super::{CliError, output, values};

/// The variables that stand for `--username` and a password.
const USERNAME: &str = "FILTERGATE_USERNAME";
const PASSWORD: &str = "FILTERGATE_PASSWORD";

/// The variable that stands for `--no-cache`.
const NO_CACHE: &str = "FILTERGATE_NO_CACHE";

/// The store of the environment's folder.
pub fn open_store() -> Result<Store, StoreError> {
    Store::open(&Store::folder_of_environment()?, warn)
}

fn warn(text: &str) {
    output::print_error(&format!("warning: {}\n", escape(text)));
}

/// Options of every command that fetches images.
#[derive(Debug, Args)]
pub struct FetchArgs {
    /// Take this entry of an image index: OS/ARCH
    #[arg(long, value_name = "PLATFORM", value_parser = values::platform)]
    pub platform: Option<Platform>,

    /// Plain HTTP; loopback hosts get it anyway
    #[arg(long)]
    pub plain_http: bool,

    /// PEM file of CAs to trust beside the system's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,

    /// Registry user, or FILTERGATE_USERNAME
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,

    /// Password on stdin, or in FILTERGATE_PASSWORD
    #[arg(long)]
    pub password_stdin: bool,

    /// Longest time for a whole pull
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = values::duration)]
    pub timeout: Duration,

    /// Keep nothing, use nothing kept: see `cache`
    #[arg(long)]
    pub no_cache: bool,

    /// Largest module accepted
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = values::size)]
    pub max_module_size: u64,

    /// Public key that images must be signed with
    #[arg(long, value_name = "FILE", value_parser = public_key)]
    pub verify_key: Option<PublicKey>,
}

/// Nothing is fetched for a key that cannot be used.
fn public_key(path: &str) -> Result<PublicKey, String> {
    let pem = values::file(path)?;
    PublicKey::from_pem(path, &pem).map_err(|reason| format!("`{path}` {reason}"))
}

impl FetchArgs {
    /// What image arguments name. To be asked before [`Self::options`], which may read a password from
    /// the standard input that an image was to be read from.
    pub fn sources(&self, images: &[String]) -> Result<Vec<Source>, CliError> {
        let sources: Vec<_> = images.iter().map(|image| parse(image)).collect::<Result<_, _>>()?;
        self.only_reader_of_stdin(&sources)?;
        Ok(sources)
    }

    /// What one image argument names, as by [`Self::sources`].
    pub fn source(&self, image: &str) -> Result<Source, CliError> {
        let source = parse(image)?;
        self.only_reader_of_stdin(std::slice::from_ref(&source))?;
        Ok(source)
    }

    /// Standard input can be read once.
    fn only_reader_of_stdin(&self, sources: &[Source]) -> Result<(), CliError> {
        let of_stdin = sources.iter().filter(|source| matches!(source, Source::Stdin)).count();
        let usage = |text: &str| Err(CliError::Usage(text.to_owned()));
        match (of_stdin, self.password_stdin) {
            (0, _) | (1, false) => Ok(()),
            (_, true) => usage(&format!(
                "--password-stdin: standard input is the image `-` already; put the password in {PASSWORD}"
            )),
            (_, false) => usage(
                "`-` is given more than once, and standard input can be read once: save the module in a file",
            ),
        }
    }

    /// The options that these words are.
    pub fn options(&self) -> Result<FetchOptions, CliError> {
        Ok(FetchOptions {
            max_module_bytes: self.max_module_size,
            plain_http: self.plain_http,
            ca_file: self.ca_file.clone(),
            credentials: self.credentials()?,
            timeout: self.timeout,
            platform: self.platform.clone(),
            verify_key: self.verify_key.clone(),
            store: self.store(),
            ..FetchOptions::default()
        })
    }

    /// The store, unless it is not wanted. Without one everything works, only slower.
    pub fn store(&self) -> Option<Arc<Store>> {
        let is_off = std::env::var_os(NO_CACHE).is_some_and(|value| !value.is_empty());
        if self.no_cache || is_off {
            return None;
        }
        match open_store() {
            Ok(store) => Some(Arc::new(store)),
            Err(error) => {
                warn(&format!("{error}; nothing is kept: {}", error.help()));
                None
            }
        }
    }

    /// Flags come before the environment, and that before what docker and podman know.
    fn credentials(&self) -> Result<CredentialSource, CliError> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let usage = |text: &str| Err(CliError::Usage(text.to_owned()));
        let user = match &self.username {
            Some(user) => Some((user.clone(), "--username")),
            None => variable(USERNAME).map(|user| (user, USERNAME)),
        };
        let password = match self.password_stdin {
            true => Some((password_from_stdin()?, "--password-stdin")),
            false => variable(PASSWORD).map(|password| (password, PASSWORD)),
        };
        match (user, password) {
            (None, None) => Ok(CredentialSource::Default),
            (Some((user, from)), Some((password, with))) => {
                let origin = format!("{from} and {with}");
                Ok(CredentialSource::Given(UserPassword::new(user, password, origin)))
            }
            (Some((_, from)), None) => {
                usage(&format!("{from} needs a password: give --password-stdin, or set {PASSWORD}"))
            }
            (None, Some((_, with))) => {
                usage(&format!("{with} needs a user: give --username, or set {USERNAME}"))
            }
        }
    }
}

/// All of standard input but its last line break. A password on the command line could be read by
/// everybody on the machine.
fn password_from_stdin() -> Result<String, CliError> {
    const MAX_BYTES: u64 = 64 << 10;
    let usage = |text: &str| CliError::Usage(format!("--password-stdin: {text}"));
    let mut password = String::new();
    io::stdin()
        .take(MAX_BYTES + 1)
        .read_to_string(&mut password)
        .map_err(|error| usage(&format!("cannot read standard input: {error}")))?;
    if password.len() as u64 > MAX_BYTES {
        return Err(usage("standard input is too long for a password"));
    }
    let password = password.strip_suffix('\n').unwrap_or(&password);
    let password = password.strip_suffix('\r').unwrap_or(password);
    if password.is_empty() {
        return Err(usage("standard input is empty"));
    }
    Ok(password.to_owned())
}

/// What images can be, for the end of a command's help.
macro_rules! images_help {
    () => {
        "\
IMAGE is one of
  ghcr.io/acme/filter:1.2           in a registry; also docker://…, oci://…
  oci:DIRECTORY[:TAG]               an OCI layout; dir:DIRECTORY of skopeo
  oci-archive:FILE[:TAG]            an OCI layout in a tar file
  docker-archive:FILE[:NAME:TAG]    what `docker save` writes
  https://HOST/FILE#sha256=HEX      a module, as Envoy fetches it
  FILE, -                           a .wasm or tar file, or standard input
"
    };
}
pub(super) use images_help;

fn parse(reference: &str) -> Result<Source, CliError> {
    Source::parse(reference).map_err(|error| {
        CliError::Usage(format!("{error}; an image is a registry reference (ghcr.io/acme/filter:1.2), oci:DIRECTORY[:TAG], a URL, - for standard input, or a path to a .wasm or .tar file"))
    })
}

/// Refuses a login that was given while the images are of several registries: it is for one of them,
/// and nobody said for which.
pub fn one_registry(options: &FetchOptions, sources: &[Source]) -> Result<(), CliError> {
    let CredentialSource::Given(_) = options.credentials else { return Ok(()) };
    let mut registries = sources.iter().filter_map(|source| match source {
        Source::Registry(reference) => Some(reference.registry()),
        _ => None,
    });
    let Some(first) = registries.next() else { return Ok(()) };
    match registries.find(|other| *other != first) {
        None => Ok(()),
        Some(other) => Err(CliError::Usage(format!(
            "a user and a password are for one registry, and the images are in {first} and {other}; use `docker login` instead"
        ))),
    }
}

/// A runtime on which several jobs can fetch, and which keeps their connections open between their
/// images; none where fewer than two of `sources` need the network.
pub fn shared_runtime(sources: &[Source]) -> Result<Option<Runtime>, CliError> {
    if sources.iter().filter(|source| source.needs_network()).count() < 2 {
        return Ok(None);
    }
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.map(Some).map_err(no_runtime)
}

/// A runtime that can fetch `sources`. Files need neither network nor timers.
pub fn runtime(sources: &[Source]) -> Result<Runtime, CliError> {
    let mut builder = Builder::new_current_thread();
    if sources.iter().any(Source::needs_network) {
        builder.enable_all();
    }
    builder.build().map_err(no_runtime)
}

fn no_runtime(source: io::Error) -> CliError {
    CliError::Io { what: "cannot start the runtime for fetching images", source }
}
