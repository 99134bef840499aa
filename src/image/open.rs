//! From the manifest of one image to its module: which blobs are read, and what is found in them.

use super::consumer::{self, Extracted, Way};
use super::content::{self, Blob, Content};
use super::error::one_line;
use super::file::blocking;
use super::manifest::{Descriptor, MAX_DOCUMENT_BYTES, Manifest};
use super::runtime_config::{Reading, is_blank};
use super::search::{Hit, Search, Searcher};
use super::shape::{self, Place, Plan, Shape};
use super::tarball::{self, Failure, Found};
use super::{Algorithm, ConfigPlace, Digest, FetchOptions, ImageError, ModulePlace, Progress};
use crate::timing::{PhaseTime, timed};
use crate::verdict::{Finding, Rule};
use std::sync::Arc;

/// The next step for an image that consumers do not take.
pub(crate) const REBUILD: &str = "build the image with `FROM scratch` and `COPY plugin.wasm /plugin.wasm` as its last layer: every consumer takes that";

/// A module, and what came with it.
pub(crate) struct Opened {
    pub wasm: Vec<u8>,
    pub sha256: Digest,
    pub place: ModulePlace,
    pub config: Reading,
    pub config_place: Option<ConfigPlace>,
    /// What is wrong with the image, where the consumers do not take it and it is not plain from
    /// the shape.
    pub fault: Option<String>,
    /// What is merely odd.
    pub remarks: Vec<Finding>,
}

/// The result of opening an image.
pub(crate) struct Attempt {
    pub shape: Shape,
    pub opened: Result<Opened, ImageError>,
    /// What Istio and Envoy Gateway get of the image.
    pub extracted: Extracted,
    /// The config layer of the specification.
    pub config_layer: Option<Vec<u8>>,
    pub verify: PhaseTime,
}

impl Attempt {
    /// Of an image that is not to be opened.
    pub(crate) fn refused(manifest: &Manifest, error: ImageError) -> Self {
        Self {
            shape: shape::recognise(manifest).shape,
            opened: Err(error),
            extracted: Extracted::Unknown,
            config_layer: None,
            verify: PhaseTime::default(),
        }
    }
}

/// Opens the image that `manifest` is.
pub(crate) async fn open<C: Content>(
    content: &C,
    manifest: &Manifest,
    options: &FetchOptions,
    progress: &dyn Progress,
) -> Attempt {
    let plan = shape::recognise(manifest);
    let mut opener = Opener {
        content,
        manifest,
        options,
        progress,
        attempt: Attempt {
            shape: plan.shape,
            opened: Err(no_module(content, manifest, None)),
            extracted: Extracted::Unknown,
            config_layer: None,
            verify: PhaseTime::default(),
        },
    };
    let opened = opener.open(&plan).await;
    Attempt { opened, ..opener.attempt }
}

fn no_module<C: Content>(content: &C, manifest: &Manifest, more: Option<&str>) -> ImageError {
    let types =
        content::list(manifest.layers.iter().map(|layer| match one_line(&layer.media_type) {
            none if none.is_empty() => "no media type".to_owned(),
            some => some,
        }));
    let reason = match manifest.layers.len() {
        0 => "the image has no layers".into(),
        1 => format!("the image's layer is no Wasm module, and no archive: {types}"),
        n => format!(
            "none of the image's {n} layers is a Wasm module, and the last is no archive: {types}"
        ),
    };
    let more = more.map(|more| format!("; {more}")).unwrap_or_default();
    ImageError::Shape {
        what: content.name(),
        reason: reason + &more,
        consumer_message: None,
        help: REBUILD.into(),
    }
}

/// A module before what came with it is added.
struct Module {
    wasm: Vec<u8>,
    sha256: Digest,
    place: ModulePlace,
    config: Option<(Vec<u8>, ConfigPlace)>,
    fault: Option<String>,
    remarks: Vec<Finding>,
}

/// The configs that are blobs of their own.
struct Configs {
    layer: Option<Vec<u8>>,
    manifest: Option<Vec<u8>>,
}

struct Opener<'a, C> {
    content: &'a C,
    manifest: &'a Manifest,
    options: &'a FetchOptions,
    progress: &'a dyn Progress,
    /// What is to be answered, all but the module.
    attempt: Attempt,
}

impl<C: Content> Opener<'_, C> {
    async fn open(&mut self, plan: &Plan) -> Result<Opened, ImageError> {
        let first = match plan.place {
            Place::Raw(at) => Some(at),
            Place::LastArchive => Some(self.manifest.layers.len() - 1),
            Place::Nowhere => None,
        };
        let (blob, configs) = self.download(plan, first).await?;
        self.attempt.config_layer.clone_from(&configs.layer);
        let mut module = match (plan.place, blob) {
            (Place::Raw(at), Some(blob)) => self.raw(at, blob),
            (Place::LastArchive, Some(blob)) => self.archive(plan, blob).await?,
            _ => self.elsewhere(None, None).await?,
        };
        if plan.candidates > 1 && matches!(plan.place, Place::Raw(_)) {
            module.remarks.push(Finding::warning(Rule::ImageShape, format!(
                "the image has {} layers with a module, where the specification has one; the first is used",
                plan.candidates
            )));
        }
        if self.attempt.shape == Shape::Kubewarden {
            module.remarks.push(Finding::warning(
                Rule::ImageShape,
                "the image is annotated as a Kubewarden policy, which is no proxy-wasm filter",
            ));
        }
        let in_layer = module.config.take();
        let has_config =
            in_layer.is_some() || configs.layer.is_some() || configs.manifest.is_some();
        let apart = match plan.place {
            Place::LastArchive if !has_config && self.manifest.layers.len() > 1 => {
                self.config_apart(&mut module).await
            }
            _ => None,
        };
        let layer_place = ConfigPlace::Layer(plan.config_layer.map_or(0, |at| at + 1));
        let layer = in_layer.or(apart).or(configs.layer.map(|bytes| (bytes, layer_place)));
        let (mut config, mut config_place) = read_configs(layer, configs.manifest);
        if config.apply_annotations(&self.manifest.annotations) {
            config_place.get_or_insert(ConfigPlace::Annotations);
        }
        let Module { wasm, sha256, place, fault, remarks, .. } = module;
        Ok(Opened { wasm, sha256, place, config, config_place, fault, remarks })
    }

    /// Gets at once the blobs that are needed for certain. The manifest's config is one of them
    /// whatever it is, so that an image is never called intact when its config is not.
    async fn download(
        &mut self,
        plan: &Plan,
        module: Option<usize>,
    ) -> Result<(Option<Vec<u8>>, Configs), ImageError> {
        let layers = &self.manifest.layers;
        let config = self.manifest.config.as_ref();
        let config_layer = plan.config_layer.map(|at| &layers[at]);
        // An image often has the same blob in both places.
        let layer_is_config = matches!((config_layer, config),
            (Some(layer), Some(config)) if layer.digest == config.digest && layer.size == config.size);

        let (content, progress) = (self.content, self.progress);
        let optional = |descriptor: Option<Descriptor>, limit| async move {
            match descriptor {
                Some(d) => content::get(content, &d, limit, progress).await.map(Some),
                None => Ok::<Option<Blob>, ImageError>(None),
            }
        };
        let (module, config_layer, config) = futures_util::try_join!(
            optional(module.map(|at| layers[at].clone()), self.options.max_module_bytes),
            optional(config_layer.filter(|_| !layer_is_config).cloned(), MAX_DOCUMENT_BYTES),
            optional(config.cloned(), MAX_DOCUMENT_BYTES),
        )?;
        for blob in [&module, &config_layer, &config].into_iter().flatten() {
            self.attempt.verify += blob.verify;
        }
        let bytes = |blob: Option<Blob>| blob.map(|blob| blob.bytes);
        let config = bytes(config);
        let layer = match layer_is_config {
            true => config.clone(),
            false => bytes(config_layer),
        };
        let manifest = config.filter(|_| plan.is_config_in_manifest);
        Ok((bytes(module), Configs { layer, manifest }))
    }

    fn place(&self, at: usize, path: Option<String>) -> ModulePlace {
        ModulePlace { layer: at + 1, layers: self.manifest.layers.len(), path }
    }

    /// A layer that is the module.
    fn raw(&mut self, at: usize, blob: Vec<u8>) -> Module {
        let layer = &self.manifest.layers[at];
        // Also where an archive was tried before: then it is what they try next.
        if let Way::Content(theirs) | Way::Archive(Some(theirs)) = consumer::way(self.manifest)
            && theirs.digest == layer.digest
        {
            self.attempt.extracted = Extracted::of(&blob);
        }
        // The blob's digest has just been verified; it need not be computed a second time.
        let sha256 = match layer.digest.algorithm() {
            Algorithm::Sha256 => layer.digest.clone(),
            Algorithm::Sha512 => timed(&mut self.attempt.verify, || Digest::sha256(&blob)),
        };
        let place = self.place(at, None);
        Module { wasm: blob, sha256, place, config: None, fault: None, remarks: Vec::new() }
    }

    /// The last layer as an archive; where it has no module, the layer that is one, and where there
    /// is none, the other layers.
    async fn archive(&mut self, plan: &Plan, blob: Vec<u8>) -> Result<Module, ImageError> {
        let at = self.manifest.layers.len() - 1;
        let limit = self.options.max_module_bytes;
        let is_plain_fine = self.content.stores_layers_uncompressed();
        let blob = Arc::new(blob);
        let layer = Arc::clone(&blob);
        let (result, verify) = blocking(move || {
            let mut verify = PhaseTime::default();
            let result = timed(&mut verify, || -> Result<_, Failure> {
                let found = tarball::extract(&layer, limit, is_plain_fine)?;
                Ok((Digest::sha256(&found.module), found))
            });
            Ok((result, verify))
        })
        .await?;
        self.attempt.verify += verify;
        self.attempt.extracted = match &result {
            Ok((_, found)) => found.extracted.clone(),
            Err(failure) => failure.extracted(),
        };
        let is_taken = matches!(self.attempt.extracted, Extracted::File { is_wasm: true });
        if let Some(raw) = plan.raw.filter(|_| !is_taken)
            && (result.is_err() || matches!(consumer::way(self.manifest), Way::Archive(Some(_))))
        {
            let descriptor = &self.manifest.layers[raw];
            let blob = content::get(self.content, descriptor, limit, self.progress).await?;
            self.attempt.verify += blob.verify;
            return Ok(self.raw(raw, blob.bytes));
        }
        match result {
            Ok((sha256, found)) => {
                let Found { module: wasm, path, config, remarks, fault, .. } = found;
                let place = self.place(at, path);
                let config = config.map(|bytes| (bytes, ConfigPlace::File { layer: at + 1 }));
                let remarks = remarks.into_iter().map(|(message, help)| {
                    let mut finding = Finding::warning(Rule::ImageShape, message);
                    finding.help = help.map(str::to_owned);
                    finding
                });
                Ok(Module { wasm, sha256, place, config, fault, remarks: remarks.collect() })
            }
            Err(Failure::NoModule { reason, .. }) => {
                self.elsewhere(Some(reason), Some((at, blob))).await
            }
            Err(failure) => Err(failure.into_error(content::blob_name(&self.manifest.layers[at]))),
        }
    }

    /// The module in a layer in which Istio and Envoy Gateway do not look for it.
    async fn elsewhere(
        &mut self,
        reason: Option<String>,
        have: Option<(usize, Arc<Vec<u8>>)>,
    ) -> Result<Module, ImageError> {
        let Search { hit, explanation, config, verify } = self.searcher().module(have).await;
        self.attempt.verify += verify;
        let Some(hit) = hit else {
            let last = self.manifest.layers.last();
            return Err(match (reason, last) {
                (Some(reason), Some(last)) => ImageError::Shape {
                    what: content::blob_name(last),
                    reason: match explanation {
                        Some(explanation) => format!("{reason}; {explanation}"),
                        None => reason,
                    },
                    consumer_message: None,
                    help: REBUILD.into(),
                },
                _ => no_module(self.content, self.manifest, explanation.as_deref()),
            });
        };
        let Hit { layer, path, module: wasm, shape, explanation } = hit;
        if let Some(shape) = shape {
            self.attempt.shape = shape;
        }
        let reason = reason.unwrap_or_else(|| match &path {
            Some(_) => "the last layer is no archive".into(),
            None => {
                let media_type = one_line(&self.manifest.layers[layer].media_type);
                format!("no layer's media type is that of a module, but of one {media_type}")
            }
        });
        let sha256 = timed(&mut self.attempt.verify, || Digest::sha256(&wasm));
        Ok(Module {
            wasm,
            sha256,
            place: self.place(layer, path),
            config: config.map(|(at, bytes)| (bytes, ConfigPlace::File { layer: at + 1 })),
            fault: Some(format!("{reason}; {explanation}")),
            remarks: Vec::new(),
        })
    }

    /// A runtime config in a layer above which the module's is.
    async fn config_apart(&mut self, module: &mut Module) -> Option<(Vec<u8>, ConfigPlace)> {
        let search = self.searcher().config().await;
        self.attempt.verify += search.verify;
        let (at, bytes) = search.config?;
        module.remarks.push(
            Finding::note(
                Rule::ConfigMissing,
                format!(
                    "the runtime config is in layer {} of {}, not beside the module",
                    at + 1,
                    self.manifest.layers.len()
                ),
            )
            .help("copy both files in one step: the specification has them in the last layer"),
        );
        Some((bytes, ConfigPlace::File { layer: at + 1 }))
    }

    fn searcher(&self) -> Searcher<'_, C> {
        Searcher {
            content: self.content,
            manifest: self.manifest,
            options: self.options,
            progress: self.progress,
        }
    }
}

impl Failure {
    /// The failure as an error of the blob `what`.
    fn into_error(self, what: String) -> ImageError {
        let consumer_message = None;
        match self {
            Failure::NoModule { reason, .. } => {
                ImageError::Shape { what, reason, consumer_message, help: REBUILD.into() }
            }
            Failure::Broken { reason, .. } => {
                ImageError::Invalid { what, reason, consumer_message }
            }
            Failure::TooLarge { what: part, limit, actual } => {
                ImageError::TooLarge { what: format!("{part} in {what}"), limit, actual }
            }
        }
    }
}

/// The layer wins: the specification says that the config is one.
fn read_configs(
    layer: Option<(Vec<u8>, ConfigPlace)>,
    manifest_config: Option<Vec<u8>>,
) -> (Reading, Option<ConfigPlace>) {
    let differ = matches!((&layer, &manifest_config), (Some((a, _)), Some(b)) if a != b);
    let layer = layer.filter(|(layer, _)| manifest_config.is_none() || !is_blank(layer));
    let (bytes, place) = match (layer, manifest_config) {
        (Some((bytes, place)), _) => (Some(bytes), Some(place)),
        (None, Some(bytes)) => (Some(bytes), Some(ConfigPlace::ManifestConfig)),
        (None, None) => (None, None),
    };
    let mut reading = Reading::of(bytes.as_deref());
    if differ {
        reading.notes.push(
            Finding::warning(Rule::ConfigInvalid, "the image has two runtime configs that differ, one as a layer and one as the manifest's config; the layer is used, unless it is empty",
            )
            .help("push the same file in both places, or only the layer"),
        );
    }
    let place = place.filter(|_| bytes.is_some_and(|bytes| !is_blank(&bytes)));
    (reading, place)
}
