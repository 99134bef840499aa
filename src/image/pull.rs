//! From what a reference resolved to, to an [`Image`].

use super::content::{self, Blob, Content, Named};
use super::error::ImageError;
use super::file::blocking;
use super::image_index;
use super::manifest::{Descriptor, MAX_DOCUMENT_BYTES, Manifest};
use super::runtime_config::{Reading, is_blank};
use super::shape::{self, Module, Plan, Shape};
use super::tarball::{self, Failure, Found};
use super::{Digest, FetchOptions, Image, Progress, consumer};
use crate::timing::{PhaseTime, Stopwatch, timed};
use crate::verdict::{Finding, Rule};

/// Pulls the image that `named` is, or leads to. `watch` has been running since the first request.
pub(crate) async fn pull<C: Content>(
    content: &C,
    named: Named,
    reference: &str,
    watch: Stopwatch,
    options: &FetchOptions,
    progress: &dyn Progress,
) -> Result<Image, ImageError> {
    let resolved = image_index::resolve(content, &named, options).await?;
    let (manifest, mut notes) = (resolved.manifest, resolved.notes);
    let mut verify = resolved.verify;
    let plan = shape::recognise(&manifest).ok_or_else(|| no_module(content, &manifest))?;

    let blobs = download(content, &plan, &manifest, options, progress).await?;
    verify += blobs.verify;
    let fetch = watch.elapsed().without(verify);

    let unpacked = unpack(blobs.module, &plan, &manifest, options).await?;
    verify += unpacked.verify;
    shape_notes(&plan, &manifest, &unpacked, &mut notes);

    let config = unpacked.config.or(blobs.config_layer);
    let mut reading = read_configs(config, blobs.manifest_config);
    reading.apply_annotations(&manifest.annotations);
    notes.append(&mut reading.notes);

    Ok(Image {
        reference: reference.into(),
        kind: content.kind(),
        shape: plan.shape,
        named_digest: Some(named.digest.to_string()),
        manifest_digest: Some(resolved.digest.to_string()),
        wasm: unpacked.wasm,
        wasm_sha256: unpacked.sha256,
        runtime_config: reading.config,
        notes,
        fetch,
        verify,
    })
}

fn no_module<C: Content>(content: &C, manifest: &Manifest) -> ImageError {
    let types = content::list(manifest.layers.iter().map(|layer| {
        match super::error::one_line(&layer.media_type) {
            none if none.is_empty() => "no media type".to_owned(),
            some => some,
        }
    }));
    let reason = match manifest.layers.len() {
        0 => "the image has no layers".into(),
        1 => format!("the image's layer is no Wasm module, and no archive: {types}"),
        n => format!(
            "none of the image's {n} layers is a Wasm module, and the last is no archive: {types}"
        ),
    };
    ImageError::Shape {
        what: content.name(),
        reason,
        consumer_message: consumer::objection(manifest),
        help: REBUILD.into(),
    }
}

const REBUILD: &str = "build the image with `FROM scratch` and `COPY plugin.wasm /plugin.wasm` as its last layer: every consumer takes that";

struct Blobs {
    module: Vec<u8>,
    config_layer: Option<Vec<u8>>,
    manifest_config: Option<Vec<u8>>,
    verify: PhaseTime,
}

/// Gets all the blobs that are needed at once. The manifest's config is one of them whatever it
/// is, so that an image is never called intact when its config is not. Other layers are not read.
async fn download<C: Content>(
    content: &C,
    plan: &Plan<'_>,
    manifest: &Manifest,
    options: &FetchOptions,
    progress: &dyn Progress,
) -> Result<Blobs, ImageError> {
    let (Module::Raw(module) | Module::Archive(module)) = plan.module;
    let config = manifest.config.as_ref();
    // An image often has the same blob in both places.
    let layer_is_config = matches!((plan.config_layer, config),
        (Some(layer), Some(config)) if layer.digest == config.digest && layer.size == config.size);
    let config_layer = plan.config_layer.filter(|_| !layer_is_config);

    let optional = |descriptor: Option<&'_ Descriptor>| {
        let descriptor = descriptor.cloned();
        async move {
            match descriptor {
                Some(d) => content::get(content, &d, MAX_DOCUMENT_BYTES, progress).await.map(Some),
                None => Ok::<Option<Blob>, ImageError>(None),
            }
        }
    };
    let (module, config_layer, config) = futures_util::try_join!(
        content::get(content, module, options.max_module_bytes, progress),
        optional(config_layer),
        optional(config),
    )?;

    let mut verify = module.verify;
    for blob in [&config_layer, &config].into_iter().flatten() {
        verify += blob.verify;
    }
    let config = config.map(|blob| blob.bytes);
    Ok(Blobs {
        module: module.bytes,
        config_layer: match layer_is_config {
            true => config.clone(),
            false => config_layer.map(|blob| blob.bytes),
        },
        manifest_config: config.filter(|_| plan.manifest_config.is_some()),
        verify,
    })
}

struct Unpacked {
    wasm: Vec<u8>,
    sha256: String,
    config: Option<Vec<u8>>,
    remarks: Vec<(String, Option<&'static str>)>,
    consumer_error: Option<&'static str>,
    verify: PhaseTime,
}

async fn unpack(
    blob: Vec<u8>,
    plan: &Plan<'_>,
    manifest: &Manifest,
    options: &FetchOptions,
) -> Result<Unpacked, ImageError> {
    let (descriptor, is_archive) = match plan.module {
        Module::Raw(descriptor) => (descriptor, false),
        Module::Archive(descriptor) => (descriptor, true),
    };
    let limit = options.max_module_bytes;
    let digest = descriptor.digest.clone();
    let (found, sha256, verify) = blocking(move || {
        let mut verify = PhaseTime::default();
        if !is_archive {
            // The blob's digest has just been verified; it need not be computed a second time.
            let sha256 = match digest.algorithm() {
                super::Algorithm::Sha256 => digest,
                super::Algorithm::Sha512 => timed(&mut verify, || Digest::sha256(&blob)),
            };
            let found = Found { module: blob, ..Found::default() };
            return Ok((Ok(found), sha256.hex().to_owned(), verify));
        }
        let (found, sha256) = timed(&mut verify, || {
            let found = tarball::extract(&blob, limit);
            let sha256 = found.as_ref().map(|f| Digest::sha256(&f.module));
            let sha256 = sha256.map(|d| d.hex().to_owned()).unwrap_or_default();
            (found, sha256)
        });
        Ok((found, sha256, verify))
    })
    .await?;
    let found = found.map_err(|failure| archive_error(failure, descriptor, manifest))?;
    Ok(Unpacked {
        wasm: found.module,
        sha256,
        config: found.config,
        remarks: found.remarks,
        consumer_error: found.consumer_error,
        verify,
    })
}

fn archive_error(failure: Failure, layer: &Descriptor, manifest: &Manifest) -> ImageError {
    let what = content::blob_name(layer);
    let consumer_message = |text: Option<String>| {
        text.and_then(|text| match text.starts_with("could not") {
            // What they say of the module's bytes is not about the image.
            false => Some(text),
            true => consumer::archive_objection(manifest, &text),
        })
    };
    match failure {
        Failure::NoModule { reason, consumer } => ImageError::Shape {
            what,
            reason,
            consumer_message: consumer_message(consumer),
            help: REBUILD.into(),
        },
        Failure::Broken { reason, consumer } => {
            ImageError::Invalid { what, reason, consumer_message: consumer_message(consumer) }
        }
        Failure::TooLarge { what: part, limit, actual } => {
            ImageError::TooLarge { what: format!("{part} in {what}"), limit, actual }
        }
    }
}

/// What keeps consumers from taking the image, and what is merely odd about it.
fn shape_notes(
    plan: &Plan<'_>,
    manifest: &Manifest,
    unpacked: &Unpacked,
    notes: &mut Vec<Finding>,
) {
    let objection = consumer::objection(manifest).or_else(|| {
        unpacked.consumer_error.and_then(|error| consumer::archive_objection(manifest, error))
    });
    if let Some(text) = objection {
        notes.push(
            Finding::warning(
                Rule::ImageShape,
                format!(
                    "Istio and Envoy Gateway do not take an image of this shape ({})",
                    plan.shape
                ),
            )
            .help(REBUILD)
            .envoy_text(&text),
        );
    }
    if plan.shape == Shape::Kubewarden {
        notes.push(Finding::warning(
            Rule::ImageShape,
            "the image is annotated as a Kubewarden policy, which is no proxy-wasm filter",
        ));
    }
    if plan.candidates > 1 {
        notes.push(Finding::warning(Rule::ImageShape, format!(
                "the image has {} layers with a module, where the specification has one; the first is used",
                plan.candidates
            ),
        ));
    }
    for (message, help) in &unpacked.remarks {
        let mut finding = Finding::warning(Rule::ImageShape, message.as_str());
        finding.help = help.map(str::to_owned);
        notes.push(finding);
    }
}

/// The layer wins: the specification says that the config is one.
fn read_configs(layer: Option<Vec<u8>>, manifest_config: Option<Vec<u8>>) -> Reading {
    let differ = matches!((&layer, &manifest_config), (Some(a), Some(b)) if a != b);
    let layer = layer.filter(|layer| manifest_config.is_none() || !is_blank(layer));
    let mut reading = Reading::of(layer.as_deref().or(manifest_config.as_deref()));
    if differ {
        reading.notes.push(
            Finding::warning(Rule::ConfigInvalid, "the image has two runtime configs that differ, one as a layer and one as the manifest's config; the layer is used, unless it is empty",
            )
            .help("push the same file in both places, or only the layer"),
        );
    }
    reading
}
