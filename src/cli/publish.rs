//! What `push` and `copy` share: shapes and destinations as words, and the result.

use std::collections::BTreeMap;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use crate::{
    image::{
        CredentialSource, Destination, FetchOptions, Image, ImageError, Published, PushShape,
        RuntimeConfig, Source,
    },
    report::{
        escape::escape,
        json::{self, Layout},
    },
    target::Target,
    verdict::{Finding, check_statically},
};

use super::{CliError, exit::Exit, output, run::Format};

/// The shapes that can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ShapeChoice {
    // The specification's two layers.
    Spec,
    // An ordinary image with plugin.wasm in it.
    Compat,
    // The artifact of the CNCF.
    Cncf,
}

impl From<ShapeChoice> for PushShape {
    fn from(choice: ShapeChoice) -> Self {
        match choice {
            ShapeChoice::Spec => Self::Spec,
            ShapeChoice::Compat => Self::Compat,
            ShapeChoice::Cncf => Self::Cncf,
        }
    }
}

/// What a destination argument names.
pub fn destination(text: &str) -> Result<Destination, CliError> {
    Destination::parse(text).map_err(|error| CliError::Usage(error.to_string()))
}

/// The options for getting the source. A login that was given is for the destination, if that is in
/// a registry: the source's comes from the docker or podman files, unless both are in one.
pub fn source_options(
    options: &FetchOptions,
    source: &Source,
    destination: &Destination,
) -> FetchOptions {
    let mut options = options.clone();
    let is_other = match (source, destination) {
        (Source::Registry(from), Destination::Registry(to)) => from.registry() != to.registry(),
        _ => false,
    };
    if is_other && let CredentialSource::Given(_) = options.credentials {
        options.credentials = CredentialSource::Default;
    }
    options
}

/// The annotations of an image that is built anew: those that OCI defines for any image. What they
/// say of a base image or a name is of the image that it was.
pub fn annotations(image: &Image) -> BTreeMap<String, String> {
    const OF_OCI: &str = "org.opencontainers.image.";
    let is_kept = |key: &str| {
        key.strip_prefix(OF_OCI).is_some_and(|key| !key.starts_with("base.") && key != "ref.name")
    };
    let all = image.annotations.iter().filter(|(key, _)| is_kept(key));
    all.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The shape that a destination is written in.
pub fn shape(
    choice: Option<ShapeChoice>,
    destination: &Destination,
) -> Result<PushShape, CliError> {
    let is_docker = matches!(destination, Destination::DockerArchive { .. });
    match (choice, is_docker) {
        (None, false) => Ok(PushShape::Spec),
        (None | Some(ShapeChoice::Compat), true) => Ok(PushShape::Compat),
        (Some(_), true) => Err(CliError::Usage(
            "--shape: a docker-archive holds images of the shape compat only".to_owned(),
        )),
        (Some(choice), false) => Ok(choice.into()),
    }
}

/// A runtime for reading and writing images.
pub fn runtime() -> Result<Runtime, CliError> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| CliError::Io { what: "cannot start the runtime for images", source })
}

/// The runtime config of an image that is built anew: the image's own, unless these say otherwise.
/// The ABI version is by default that of the module's marker.
pub fn runtime_config(image: &Image, abi_versions: &[String], root_ids: &[String]) -> Vec<u8> {
    let own = image.runtime_config.as_ref();
    let is_own = abi_versions.is_empty() && root_ids.is_empty();
    if let Some(RuntimeConfig { raw: raw @ Value::Object(_), .. }) = own.filter(|_| is_own) {
        return raw.to_string().into_bytes();
    }
    let either = |given: &[String], own: Option<&Vec<String>>| match (given, own) {
        ([], Some(own)) => own.clone(),
        (given, _) => given.to_vec(),
    };
    let mut abi_versions = either(abi_versions, own.map(|config| &config.abi_versions));
    if abi_versions.is_empty() {
        let marker = check_statically(&image.wasm, &Target::default()).abi;
        abi_versions.extend(marker.map(|abi| format!("v{abi}")));
    }
    let root_ids = either(root_ids, own.map(|config| &config.root_ids));
    crate::image::write_runtime_config(&abi_versions, &root_ids)
}

/// The result as JSON.
#[derive(Serialize)]
struct Report<'a> {
    schema: u8,
    reference: &'a str,
    written: bool,
    /// The name with the digest.
    pinned: Option<&'a str>,
    digest: Option<&'a str>,
    image_id: Option<&'a str>,
    shape: Option<String>,
    error: Option<Failed>,
    check: Vec<Value>,
}

#[derive(Serialize)]
struct Failed {
    rule: &'static str,
    message: String,
    help: String,
}

/// What became of a push or copy.
pub struct Outcome<'a> {
    /// The destination as typed.
    pub reference: &'a str,
    /// The shape, where the image was built anew.
    pub shape: Option<PushShape>,
    /// What was written; an error; or neither, where the check stood against it.
    pub result: Option<Result<Published, ImageError>>,
    /// The check's verdicts, as JSON.
    pub check: Vec<Value>,
}

impl Outcome<'_> {
    /// Prints the result. Only the image's name goes to standard output, so that a script can take
    /// it; everything else goes beside it.
    pub fn print(&self, format: Format) -> Result<(), CliError> {
        let published = self.result.as_ref().and_then(|result| result.as_ref().ok());
        let error = self.result.as_ref().and_then(|result| result.as_ref().err());
        if format == Format::Json {
            let report = Report {
                schema: 1,
                reference: self.reference,
                written: published.is_some(),
                pinned: published.map(|published| published.reference.as_str()),
                digest: published.and_then(|published| published.digest.as_deref()),
                image_id: published.and_then(|published| published.image_id.as_deref()),
                shape: self.shape.map(|shape| shape.to_string()),
                error: error.map(|error| Failed {
                    rule: error.rule().name(),
                    message: error.to_string(),
                    help: error.help(),
                }),
                check: self.check.clone(),
            };
            return output::print(&json::to_string(&report, Layout::Pretty));
        }
        if let Some(published) = published {
            output::print(&format!("{}\n", escape(&published.reference)))?;
            if let Some(id) = &published.image_id {
                output::print_error(&format!("image id {id}\n"));
            }
        }
        if let Some(error) = error {
            let (message, help) = (error.to_string(), error.help());
            output::print_error(&format!(
                "error[{}]: {}\n  help   {}\n",
                error.rule(),
                escape(&message),
                escape(&help)
            ));
        }
        Ok(())
    }

    /// The exit code of a push or copy that came to writing.
    pub fn exit(&self) -> Exit {
        match &self.result {
            Some(Ok(_)) => Exit::Pass,
            Some(Err(error)) if error.is_verdict() => Exit::Fail,
            Some(Err(_)) | None => Exit::Undecided,
        }
    }
}

/// Says on standard error who does not take what is written.
pub fn warn_of(shape: PushShape) {
    if shape == PushShape::Cncf {
        output::print_error(
            "warning: Istio and Envoy Gateway do not take images of the shape cncf, which have no runtime config either\n",
        );
    }
}

/// The runtime config in a file, and what the specification says of it.
pub fn read_runtime_config(bytes: &[u8]) -> Result<(RuntimeConfig, Vec<Finding>), CliError> {
    let (config, notes) = RuntimeConfig::read(Some(bytes));
    match config {
        Some(config) => Ok((config, notes)),
        None => {
            let reason = notes.first().map_or("is no runtime config", |note| &note.message);
            Err(CliError::Usage(format!("--runtime-config: {reason}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::UserPassword;

    #[test]
    fn a_login_is_for_the_destination() {
        let login = UserPassword::new("user", "secret", "a test");
        let options =
            FetchOptions { credentials: CredentialSource::Given(login), ..FetchOptions::default() };
        for (source, destination, is_for_source) in [
            ("ghcr.io/acme/x:1", "quay.io/acme/x:1", false),
            ("ghcr.io/acme/x:1", "ghcr.io/acme/y:1", true),
            ("ghcr.io/acme/x:1", "oci:layout", true),
            ("oci:layout", "quay.io/acme/x:1", true),
        ] {
            let (from, to) =
                (Source::parse(source).unwrap(), Destination::parse(destination).unwrap());
            let credentials = source_options(&options, &from, &to).credentials;
            let is_given = matches!(credentials, CredentialSource::Given(_));
            assert_eq!(is_given, is_for_source, "{source} to {destination}");
        }
    }

    #[test]
    fn annotations_of_the_image_that_it_was_are_left_out() {
        let mut image = Image::of_module("x", Vec::new());
        for key in [
            "org.opencontainers.image.source",
            "org.opencontainers.image.base.name",
            "org.opencontainers.image.ref.name",
            "module.wasm.runtime/type",
            "com.example.team",
        ] {
            image.annotations.insert(key.to_owned(), "x".to_owned());
        }
        let kept: Vec<_> = annotations(&image).into_keys().collect();
        assert_eq!(kept, ["org.opencontainers.image.source"]);
    }
}
