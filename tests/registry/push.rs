//! Pushing, by the lowest level of the OCI client.

use std::{collections::BTreeSet, path::Path, sync::Mutex};

use filtergate::image::Digest;
use oci_distribution::{
    Client, Reference, RegistryOperation,
    client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol},
    secrets::RegistryAuth,
};
use serde_json::Value;

use crate::images::Pushable;

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A registry that takes pushes from anybody, or from who has a login.
pub struct Registry {
    pub host: String,
    login: RegistryAuth,
    /// Of its certificate, in PEM form; without it the registry speaks plain HTTP.
    ca: Option<Vec<u8>>,
    /// The blobs that a repository has been given, not to send them again.
    pushed: Mutex<BTreeSet<(String, String)>>,
}

impl Registry {
    pub fn new(host: String) -> Self {
        Self { host, login: RegistryAuth::Anonymous, ca: None, pushed: Mutex::default() }
    }

    pub fn with_login(mut self, user: &str, password: &str) -> Self {
        self.login = RegistryAuth::Basic(user.to_owned(), password.to_owned());
        self
    }

    pub fn with_ca(mut self, ca: Vec<u8>) -> Self {
        self.ca = Some(ca);
        self
    }

    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Pushes an image under a tag; its digest.
    pub fn push(&self, repository: &str, tag: &str, image: &Pushable) -> String {
        for blob in &image.blobs {
            self.push_blob(repository, blob);
        }
        self.push_manifest(repository, Some(tag), &image.manifest, &image.media_type)
    }

    /// Pushes a manifest, and before it what it names, from a folder of blobs; its digest.
    pub fn push_with_blobs_of(
        &self,
        repository: &str,
        tag: &str,
        manifest: Vec<u8>,
        media_type: &str,
        folder: &Path,
    ) -> String {
        self.push_named(repository, &manifest, folder);
        self.push_manifest(repository, Some(tag), &manifest, media_type)
    }

    fn push_named(&self, repository: &str, manifest: &[u8], folder: &Path) {
        let manifest: Value = serde_json::from_slice(manifest).unwrap();
        let list = |key: &str| manifest[key].as_array().cloned().unwrap_or_default();
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap();
            let path = folder.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
            std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let config = manifest.get("config").cloned();
        for descriptor in config.into_iter().chain(list("layers")).chain(list("blobs")) {
            self.push_blob(repository, &blob(&descriptor));
        }
        for descriptor in list("manifests") {
            let child = blob(&descriptor);
            self.push_named(repository, &child, folder);
            self.push_manifest(repository, None, &child, descriptor["mediaType"].as_str().unwrap());
        }
    }

    fn push_blob(&self, repository: &str, blob: &[u8]) {
        let digest = Digest::sha256(blob).to_string();
        if !self.pushed.lock().unwrap().insert((repository.to_owned(), digest.clone())) {
            return;
        }
        let target: Reference = self.reference(&format!("{repository}:any")).parse().unwrap();
        block_on(async {
            let client = self.client(&target).await;
            client.push_blob(&target, blob.to_vec(), &digest).await.unwrap_or_else(|error| {
                panic!("cannot push {digest} to {target}: {error}");
            });
        });
    }

    fn push_manifest(
        &self,
        repository: &str,
        tag: Option<&str>,
        manifest: &[u8],
        media_type: &str,
    ) -> String {
        let digest = Digest::sha256(manifest).to_string();
        let name = match tag {
            Some(tag) => format!("{repository}:{tag}"),
            None => format!("{repository}@{digest}"),
        };
        let target: Reference = self.reference(&name).parse().unwrap();
        block_on(async {
            let client = self.client(&target).await;
            let content_type = media_type.parse().unwrap();
            client
                .push_manifest_raw(&target, manifest.to_vec(), content_type)
                .await
                .unwrap_or_else(|error| panic!("cannot push {target}: {error}"));
        });
        digest
    }

    async fn client(&self, target: &Reference) -> Client {
        let config = match &self.ca {
            None => ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() },
            Some(ca) => {
                let ca = Certificate { encoding: CertificateEncoding::Pem, data: ca.clone() };
                ClientConfig { extra_root_certificates: vec![ca], ..ClientConfig::default() }
            }
        };
        let client = Client::try_from(config).unwrap();
        client.auth(target, &self.login, RegistryOperation::Push).await.unwrap_or_else(|error| {
            panic!("the registry does not take pushes to {target}: {error}");
        });
        client
    }
}
