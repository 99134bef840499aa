//! Where the credentials for a registry come from, as Istio and the tools built on
//! go-containerregistry look for them: the docker config, and if there is none, podman's auth file.

use super::error::{ImageError, one_line};
use super::{CredentialSource, RegistryReference};
use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_distribution::secrets::RegistryAuth;
use serde_json::Value;
use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A credential helper may ask a cloud, or wait for a person who is not there.
const HELPER_TIMEOUT: Duration = Duration::from_secs(30);
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// Credentials, and the place that they are from, for messages. Never print the first.
pub(crate) struct Credentials {
    pub auth: RegistryAuth,
    pub origin: String,
}

impl Credentials {
    fn anonymous(why: &str) -> Self {
        Self { auth: RegistryAuth::Anonymous, origin: format!("anonymous: {why}") }
    }
}

/// Finds the credentials for the registry of `reference`.
pub(crate) async fn find(
    reference: &RegistryReference,
    source: &CredentialSource,
) -> Result<Credentials, ImageError> {
    let file = match source {
        CredentialSource::Anonymous => return Ok(Credentials::anonymous("as asked for")),
        CredentialSource::ConfigFile(path) => Some(path.clone()),
        CredentialSource::Default => default_file(),
    };
    let host = reference.registry().to_owned();
    let Some(file) = file else {
        return Ok(Credentials::anonymous(
            "there is neither a docker config nor an auth file of podman",
        ));
    };
    let keys = keys(reference);
    let failed = |reason: String| ImageError::Credentials { host: host.clone(), reason };
    // On a thread of its own, which is left behind when the helper hangs: one of the runtime's would
    // keep the program from ending.
    let (send, receive) = tokio::sync::oneshot::channel();
    let shown = file.display().to_string();
    let name = shown.clone();
    std::thread::Builder::new()
        .name("credentials".into())
        .spawn(move || send.send(read(&file, &name, &keys)))
        .map_err(|e| failed(e.to_string()))?;
    match tokio::time::timeout(HELPER_TIMEOUT, receive).await {
        Ok(Ok(result)) => result.map_err(failed),
        Ok(Err(_)) => Err(failed(format!("reading {shown} failed"))),
        Err(_) => Err(failed(format!(
            "the credential helper that {shown} names did not answer within {} s",
            HELPER_TIMEOUT.as_secs()
        ))),
    }
}

fn default_file() -> Option<PathBuf> {
    let var = |name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = var("HOME");
    let docker = var("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
    let podman = "containers/auth.json";
    [
        docker.map(|dir| dir.join("config.json")),
        var("REGISTRY_AUTH_FILE"),
        var("XDG_RUNTIME_DIR").map(|dir| dir.join(podman)),
        var("XDG_CONFIG_HOME")
            .or_else(|| Some(home.as_ref()?.join(".config")))
            .map(|dir| dir.join(podman)),
    ]
    .into_iter()
    .flatten()
    .find(|file| file.exists())
}

/// The keys to look for, the most specific first: podman scopes them by path.
fn keys(reference: &RegistryReference) -> Vec<String> {
    let host = reference.registry();
    let mut keys = Vec::new();
    let mut path = reference.repository();
    loop {
        keys.push(format!("{host}/{path}"));
        match path.rsplit_once('/') {
            Some((parent, _)) => path = parent,
            None => break,
        }
    }
    if matches!(host, "docker.io" | "index.docker.io" | "registry-1.docker.io") {
        keys.push(DOCKER_HUB_KEY.into());
    }
    keys.push(host.into());
    keys
}

/// A broken file is an error. To go on as if there were none would end in "not authorized", with no
/// hint at the cause.
fn read(file: &Path, name: &str, keys: &[String]) -> Result<Credentials, String> {
    let text = std::fs::read(file).map_err(|e| format!("{name}: {e}"))?;
    let mut config: Value = serde_json::from_slice(&text)
        .map_err(|e| format!("{name} is not valid: {}", one_line(&e.to_string())))?;
    scrub(&mut config);
    let text = config.to_string();
    for key in keys {
        let entry = config["auths"].get(key);
        // A helper knows hosts, not paths.
        if key.contains('/') && key != DOCKER_HUB_KEY && entry.is_none() {
            continue;
        }
        let origin = origin(&config, name, key);
        if let Some(token) = entry.and_then(|e| e["registrytoken"].as_str())
            && !token.is_empty()
        {
            return Ok(Credentials { auth: RegistryAuth::Bearer(token.into()), origin });
        }
        match docker_credential::get_credential_from_reader(text.as_bytes(), key) {
            Ok(DockerCredential::UsernamePassword(user, password)) => {
                return Ok(Credentials { auth: RegistryAuth::Basic(user, password), origin });
            }
            Ok(DockerCredential::IdentityToken(_)) => {
                let why = format!("{origin} has an identity token, which cannot be used yet");
                tracing::warn!("{why}");
                return Ok(Credentials::anonymous(&why));
            }
            Err(CredentialRetrievalError::NoCredentialConfigured) => {}
            Err(CredentialRetrievalError::HelperFailure { stdout, .. })
                if stdout.contains("credentials not found") => {}
            Err(CredentialRetrievalError::HelperFailure { helper, stdout, stderr }) => {
                return Err(format!(
                    "{helper} failed: {}",
                    one_line(&format!("{stdout} {stderr}"))
                ));
            }
            Err(error) => {
                let error = error.to_string();
                return Err(format!("{origin}: {}", lowercase_first(&one_line(&error))));
            }
        }
    }
    Ok(Credentials::anonymous(&format!(
        "{name} has no credentials for {}",
        keys.last().map_or("it", String::as_str)
    )))
}

/// Docker takes an empty string for nothing.
fn scrub(config: &mut Value) {
    let Some(config) = config.as_object_mut() else {
        return;
    };
    let is_empty = |value: &Value| value.as_str() == Some("");
    if config.get("credsStore").is_some_and(is_empty) {
        config.remove("credsStore");
    }
    if let Some(auths) = config.get_mut("auths").and_then(Value::as_object_mut) {
        for entry in auths.values_mut().filter_map(Value::as_object_mut) {
            entry.retain(|_, value| !is_empty(value));
        }
    }
}

fn origin(config: &Value, name: &str, key: &str) -> String {
    let helper = config["credHelpers"][key].as_str();
    let entry = config["auths"].get(key).and_then(Value::as_object);
    let in_file = entry.is_some_and(|entry| !entry.is_empty());
    match helper.or_else(|| config["credsStore"].as_str().filter(|_| !in_file)) {
        Some(helper) => format!("docker-credential-{helper}, named in {name}"),
        None => format!("{name}, key {key}"),
    }
}

fn lowercase_first(s: &str) -> String {
    let mut chars = s.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}
