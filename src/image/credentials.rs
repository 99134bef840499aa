//! Where the credentials for a registry come from: what was given for it, `DOCKER_AUTH_CONFIG`, the
//! docker config, and podman's auth files. Within a file they are looked for in docker's order.

use super::error::{ImageError, one_line};
use super::{CredentialSource, RegistryReference, credential_helper};
use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{env, fmt, fs, io};

const AUTH_VARIABLE: &str = "DOCKER_AUTH_CONFIG";
/// What docker calls its Hub, in files and to helpers.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
const DOCKER_HUB: &str = "docker.io";

/// A user and a password that somebody gave. They are for the first registry that they are used
/// with, and no other gets to see them.
#[derive(Clone)]
pub struct UserPassword {
    user: String,
    password: String,
    /// Where they were given, for messages.
    origin: String,
    registry: Arc<OnceLock<String>>,
}

impl UserPassword {
    /// `origin` says where they were given, as messages will have it.
    pub fn new(
        user: impl Into<String>,
        password: impl Into<String>,
        origin: impl Into<String>,
    ) -> Self {
        Self {
            user: user.into(),
            password: password.into(),
            origin: origin.into(),
            registry: Arc::default(),
        }
    }
}

impl fmt::Debug for UserPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UserPassword({}, {}, …)", self.origin, self.user)
    }
}

/// Who asks. It has no `Debug`, so that no message can have it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Login {
    Anonymous,
    Password {
        user: String,
        password: String,
    },
    /// Buys tokens from the token endpoint.
    IdentityToken(String),
    /// Is itself what a registry wants to see.
    RegistryToken(String),
}

/// Who asks, and the place that this is from, for messages.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub login: Login,
    pub origin: String,
}

impl Credentials {
    fn anonymous(why: &str) -> Self {
        Self { login: Login::Anonymous, origin: format!("anonymous: {why}") }
    }
}

/// The error for credentials that cannot be used.
pub(crate) fn failed(reference: &RegistryReference, reason: String) -> ImageError {
    let host = reference.registry();
    ImageError::Credentials {
        host: host.into(),
        reason,
        help: format!("repair the docker config, or run `docker login {host}` again"),
    }
}

/// Finds the credentials for the registry of `reference`. A helper may be silent for `patience`.
pub(crate) async fn find(
    reference: &RegistryReference,
    source: &CredentialSource,
    patience: Duration,
) -> Result<Credentials, ImageError> {
    let places = match source {
        CredentialSource::Anonymous => return Ok(Credentials::anonymous("as asked for")),
        CredentialSource::Given(given) => return claim(given, reference),
        CredentialSource::ConfigFile(path) => vec![Place::File { path: path.clone(), must: true }],
        CredentialSource::Default => default_places(),
    };
    let wanted = Wanted::of(reference, patience);
    // On a thread of its own, which is left behind when the pull's time is over: one of the
    // runtime's would keep the program from ending.
    let (send, receive) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("credentials".into())
        .spawn(move || send.send(find_in(&places, &wanted)))
        .map_err(|e| failed(reference, e.to_string()))?;
    match receive.await {
        Ok(result) => result.map_err(|reason| failed(reference, reason)),
        Err(_) => Err(failed(reference, "reading them failed".into())),
    }
}

fn claim(given: &UserPassword, reference: &RegistryReference) -> Result<Credentials, ImageError> {
    let host = reference.registry();
    let first = given.registry.get_or_init(|| host.to_owned());
    if first != host {
        return Err(ImageError::Credentials {
            host: host.into(),
            reason: format!(
                "those of {} are for one registry, and were used for {first}",
                given.origin
            ),
            help: format!("name images of one registry, or run `docker login {host}` instead"),
        });
    }
    Ok(Credentials {
        login: Login::Password { user: given.user.clone(), password: given.password.clone() },
        origin: given.origin.clone(),
    })
}

/// Where credentials may be.
enum Place {
    /// A variable that is a config itself, not its path.
    Variable(&'static str),
    File {
        path: PathBuf,
        /// Whether it has to be there.
        must: bool,
    },
}

impl Place {
    fn name(&self) -> String {
        match self {
            Place::Variable(name) => (*name).to_owned(),
            Place::File { path, .. } => path.display().to_string(),
        }
    }

    /// The text, if there is any.
    fn read(&self) -> Result<Option<Vec<u8>>, String> {
        use io::ErrorKind::{NotADirectory, NotFound};
        match self {
            Place::Variable(name) => {
                Ok(env::var_os(name).map(std::ffi::OsString::into_encoded_bytes))
            }
            Place::File { path, must } => match fs::read(path) {
                Ok(text) => Ok(Some(text)),
                Err(e) if !must && matches!(e.kind(), NotFound | NotADirectory) => Ok(None),
                Err(e) => Err(format!("{}: {e}", path.display())),
            },
        }
    }
}

/// Docker's, and then podman's.
fn default_places() -> Vec<Place> {
    let var = |name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = |folder| Some(var("HOME")?.join(folder));
    let podman = |folder: PathBuf| folder.join("containers/auth.json");
    let files = [
        var("DOCKER_CONFIG").or_else(|| home(".docker")).map(|dir| dir.join("config.json")),
        var("REGISTRY_AUTH_FILE"),
        var("XDG_RUNTIME_DIR").map(podman),
        var("XDG_CONFIG_HOME").or_else(|| home(".config")).map(podman),
    ];
    let files = files.into_iter().flatten().map(|path| Place::File { path, must: false });
    std::iter::once(Place::Variable(AUTH_VARIABLE)).chain(files).collect()
}

/// What credentials are looked for.
struct Wanted {
    /// One of the names of Docker Hub is [`DOCKER_HUB`].
    host: String,
    repository: String,
    /// The time that a helper may take.
    patience: Duration,
}

impl Wanted {
    fn of(reference: &RegistryReference, patience: Duration) -> Self {
        Self {
            patience,
            host: canonical(reference.registry()).to_owned(),
            repository: reference.repository().to_owned(),
        }
    }

    /// What a helper is asked for. It knows hosts, not paths.
    fn server(&self) -> &str {
        if self.host == DOCKER_HUB { DOCKER_HUB_KEY } else { &self.host }
    }
}

fn canonical(host: &str) -> &str {
    match host {
        "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
        host => host,
    }
}

/// A broken file is an error. To go on as if there were none would end in "not authorized", with no
/// hint at the cause.
fn find_in(places: &[Place], wanted: &Wanted) -> Result<Credentials, String> {
    let mut without = Vec::new();
    for place in places {
        let name = place.name();
        let Some(text) = place.read()? else { continue };
        // Docker takes an empty file for one without entries.
        if text.trim_ascii().is_empty() {
            continue;
        }
        if let Some(found) = Config::parse(&text, &name)?.find(wanted, &name)? {
            return Ok(found);
        }
        without.push(name);
    }
    Ok(Credentials::anonymous(&match without.as_slice() {
        [] => "there is neither a docker config nor an auth file of podman".to_owned(),
        names => format!("no credentials for {} in {}", wanted.host, names.join(" or ")),
    }))
}

/// The docker config and podman's auth files, as far as they are about credentials.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Config {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

/// Docker takes an empty string for nothing.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl Config {
    fn parse(text: &[u8], name: &str) -> Result<Self, String> {
        let config: Value = serde_json::from_slice(text)
            .map_err(|e| format!("{name} is not valid: {}", one_line(&e.to_string())))?;
        // The parser's own message would quote the value, which may be a password.
        serde_json::from_value(config).map_err(|_| {
            format!(
                "{name} is not valid: `auths`, `credHelpers` or `credsStore` is of another kind than docker's"
            )
        })
    }

    /// The helper for the host, the helper for all hosts, and then the file itself.
    fn find(&self, wanted: &Wanted, name: &str) -> Result<Option<Credentials>, String> {
        let of_host = self.cred_helpers.iter().flatten().find(|(key, _)| {
            let (host, path) = scope(key);
            host == wanted.host && path.is_empty()
        });
        let helpers = of_host.map(|(_, helper)| helper).into_iter().chain(&self.creds_store);
        for helper in helpers.filter(|helper| !helper.is_empty()) {
            let origin = format!("docker-credential-{helper}, named in {name}");
            let answer = credential_helper::ask(helper, wanted.server(), wanted.patience);
            if let Some(login) = answer.map_err(|reason| format!("{origin}: {reason}"))? {
                return Ok(Some(Credentials { login, origin }));
            }
        }
        let mut entries: Vec<_> = self
            .auths
            .iter()
            .flatten()
            .filter_map(|(key, entry)| Some((scope(key), key, entry.as_ref()?)))
            .filter(|((host, path), ..)| *host == wanted.host && covers(path, &wanted.repository))
            .collect();
        // The most specific first: podman scopes them by path. Of the same scope the plain name.
        entries.sort_by_key(|((_, path), key, _)| (usize::MAX - path.len(), key.len()));
        for (_, key, entry) in entries {
            let origin = format!("{name}, key {}", one_line(key));
            if let Some(login) = entry.login().map_err(|reason| format!("{origin}: {reason}"))? {
                return Ok(Some(Credentials { login, origin }));
            }
        }
        Ok(None)
    }
}

/// What a key is for: a host, and the repositories below a path. A key may be a host, the URL of a
/// registry's API, or a host with a path.
fn scope(key: &str) -> (&str, &str) {
    let without_scheme = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let (host, path) = without_scheme
        .unwrap_or(key)
        .split_once('/')
        .unwrap_or_else(|| (without_scheme.unwrap_or(key), ""));
    let path = path.trim_end_matches('/');
    let is_api = without_scheme.is_some() || matches!(path, "v1" | "v2");
    (canonical(host), if is_api { "" } else { path })
}

/// Whether a repository is the one that a path names, or below it.
fn covers(path: &str, repository: &str) -> bool {
    match repository.strip_prefix(path) {
        Some(rest) => path.is_empty() || rest.is_empty() || rest.starts_with('/'),
        None => false,
    }
}

impl Entry {
    /// Docker leaves an entry empty when a helper has the secret.
    fn login(&self) -> Result<Option<Login>, String> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        if let Some(token) = given(&self.registrytoken) {
            return Ok(Some(Login::RegistryToken(token)));
        }
        if let Some(token) = given(&self.identitytoken) {
            return Ok(Some(Login::IdentityToken(token)));
        }
        if let Some(auth) = given(&self.auth) {
            let (user, password) = decode(&auth)
                .ok_or("`auth` is not the base64 of a user, a colon and a password")?;
            return Ok(Some(Login::Password { user, password }));
        }
        Ok(given(&self.username)
            .zip(given(&self.password))
            .map(|(user, password)| Login::Password { user, password }))
    }
}

/// The base64 of `USER:PASSWORD`, with or without padding. Docker pads passwords, too.
fn decode(auth: &str) -> Option<(String, String)> {
    let padding =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decoded = GeneralPurpose::new(&STANDARD, padding).decode(auth.trim()).ok()?;
    let text = String::from_utf8(decoded).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.trim_matches('\0').to_owned()))
}
