//! From what a reference resolved to, to an [`Image`], and to who takes it.

use super::consumer::{self, Consumer, ConsumerVerdict, Extracted};
use super::content::{self, Content, Named};
use super::error::ImageError;
use super::image_index::{self, Resolved, Selected};
use super::manifest::{self, Descriptor, Document, OCI_ARTIFACT};
use super::open::{self, Attempt, Opened, REBUILD};
use super::{Digest, FetchOptions, Image, NoProgress, Platform, Progress, Shape, signature};
use crate::timing::{PhaseTime, Stopwatch};
use crate::verdict::{Finding, Rule};

/// Entries of an index of which the modules are compared.
const MAX_COMPARED: usize = 8;

/// What is known of an image, also where it holds no module.
pub(crate) struct Survey {
    pub image: Result<Image, ImageError>,
    pub consumers: Vec<ConsumerVerdict>,
    /// The digest of the manifest that was selected, if one was.
    pub manifest_digest: Option<Digest>,
    /// The shape that the manifest has.
    pub shape: Option<Shape>,
}

/// Finds out all that there is to know of the image that `named` is, or leads to. `watch` has been
/// running since the first access.
pub(crate) async fn survey<C: Content>(
    content: &C,
    named: &Named,
    reference: &str,
    watch: Stopwatch,
    options: &FetchOptions,
    progress: &dyn Progress,
) -> Survey {
    let mut surveyor = Surveyor { content, named, options, progress, verify: named.verify };
    let found = match surveyor.find().await {
        Ok(found) => found,
        Err(error) => return surveyor.without_a_manifest(error),
    };
    let Found { selected, attempt, mut notes, theirs } = found;
    let Attempt { shape, opened, .. } = attempt;
    let consumers = surveyor.consumers(&theirs);
    let istio = consumers.iter().find(|verdict| verdict.consumer == Consumer::Istio);
    let log = istio.and_then(|verdict| verdict.log.clone());
    let manifest_digest = Some(selected.digest.clone());
    let opened = match opened {
        Ok(opened) => opened,
        Err(error) => {
            let image = Err(error.said_by_consumers(log));
            // Without a module, an image that is like none has no shape at all.
            let shape = Some(shape).filter(|shape| *shape != Shape::Unknown);
            return Survey { image, consumers, manifest_digest, shape };
        }
    };
    if !content.has_manifests() {
        notes.push(Finding::note(
            Rule::ImageShape,
            "the archive has no manifest: who takes the image is judged as `docker push` would write it, and there is no digest to pin",
        ));
    }
    notes.extend(surveyor.consumer_notes(shape, &opened, &selected, &theirs, log.as_deref()));
    let Opened { wasm, sha256, place, mut config, config_place, remarks, .. } = opened;
    notes.extend(remarks);
    notes.append(&mut config.notes);
    let verify = surveyor.verify;
    if let Some(shelf) = content.shelf() {
        shelf.note_module(&sha256);
    }
    let has_digests = content.has_manifests();
    let image = Image {
        reference: reference.into(),
        kind: content.kind(),
        shape,
        named_digest: has_digests.then(|| named.digest.to_string()),
        manifest_digest: has_digests.then(|| selected.digest.to_string()),
        wasm,
        wasm_sha256: sha256.hex().to_owned(),
        module_place: Some(place),
        runtime_config: config.config,
        config_place,
        annotations: selected.manifest.annotations,
        consumers: consumers.clone(),
        notes,
        fetch: watch.elapsed().without(verify),
        verify,
    };
    Survey { image: Ok(image), consumers, manifest_digest, shape: Some(shape) }
}

/// What was found of an image.
struct Found {
    selected: Selected,
    attempt: Attempt,
    notes: Vec<Finding>,
    theirs: Theirs,
}

/// What the consumers get, whatever was asked for here.
enum Theirs {
    /// This image.
    Image { manifest: Box<manifest::Manifest>, digest: Digest, seen: Seen },
    /// None: the index has no entry for linux/amd64.
    NoPlatform,
}

/// What of an attempt the consumers' verdicts rest on.
struct Seen {
    extracted: Extracted,
    config_layer: Option<Vec<u8>>,
}

impl Seen {
    fn of(attempt: &Attempt) -> Self {
        Self { extracted: attempt.extracted.clone(), config_layer: attempt.config_layer.clone() }
    }
}

struct Surveyor<'a, C> {
    content: &'a C,
    named: &'a Named,
    options: &'a FetchOptions,
    progress: &'a dyn Progress,
    verify: PhaseTime,
}

impl<C: Content> Surveyor<'_, C> {
    async fn find(&mut self) -> Result<Found, ImageError> {
        let wanted = self.options.platform.as_ref();
        let mut verify = self.verify;
        let resolved = image_index::resolve(self.content, self.named, wanted, &mut verify).await;
        self.verify = verify;
        let (selected, siblings) = match resolved? {
            Resolved::One { selected, siblings } => (selected, siblings),
            Resolved::Other(entries) => return self.any_of(entries).await,
        };
        let (attempt, mut notes) = self.open_signed(&selected).await;
        notes.extend(self.compare(&selected, &attempt, &siblings).await);
        let theirs = match &selected.platform {
            Some(platform) if *platform != Platform::default() => self.theirs_of_index().await?,
            _ => Theirs::Image {
                manifest: selected.manifest.clone(),
                digest: selected.digest.clone(),
                seen: Seen::of(&attempt),
            },
        };
        Ok(Found { selected, attempt, notes, theirs })
    }

    /// The image that the consumers take from an index of which another was asked for.
    async fn theirs_of_index(&mut self) -> Result<Theirs, ImageError> {
        let mut verify = self.verify;
        let resolved = image_index::resolve(self.content, self.named, None, &mut verify).await?;
        self.verify = verify;
        let Resolved::One { selected, .. } = resolved else { return Ok(Theirs::NoPlatform) };
        let attempt = self.open(&selected, &NoProgress).await;
        let seen = Seen::of(&attempt);
        Ok(Theirs::Image { manifest: selected.manifest, digest: selected.digest, seen })
    }

    /// The first of images for platforms that nobody asked for, unless their modules differ.
    async fn any_of(&mut self, entries: Vec<Descriptor>) -> Result<Found, ImageError> {
        let wanted = Platform::default();
        let no_entry = || image_index::no_entry(self.content, &entries, &wanted);
        let Some(first) = entries.first() else { return Err(no_entry()) };
        let mut verify = PhaseTime::default();
        let selected = image_index::open_entry(self.content, first, &mut verify).await?;
        self.verify += verify;
        let (attempt, mut notes) = self.open_signed(&selected).await;
        if let Some(differs) = self.compare(&selected, &attempt, &entries[1..]).await {
            let mut error = no_entry();
            if let ImageError::Shape { reason, help, .. } = &mut error {
                *reason = format!("{reason}, and {}", differs.message);
                *help = format!("say which to look at with `--platform`, and {help}");
            }
            return Err(error);
        }
        let reason = format!(
            "the image index has no entry for {wanted}, only {}",
            image_index::platforms(&entries)
        );
        notes.push(
            Finding::warning(
                Rule::ImageShape,
                format!("{reason}: Istio and Envoy Gateway would not take it"),
            )
            .help(format!("build the image for {wanted} (`docker build --platform {wanted}`)"))
            .envoy_text(&self.no_platform(Consumer::Istio).log.unwrap_or_default()),
        );
        Ok(Found { selected, attempt, notes, theirs: Theirs::NoPlatform })
    }

    /// Opens the image that was asked for, unless it has to be signed and is not.
    async fn open_signed(&mut self, selected: &Selected) -> (Attempt, Vec<Finding>) {
        let mut notes = Vec::new();
        if let Some(key) = &self.options.verify_key {
            let digests = [&self.named.digest, &selected.digest];
            let distinct = if digests[0] == digests[1] { &digests[..1] } else { &digests };
            match signature::verify(self.content, distinct, key).await {
                Ok(note) => notes.push(note),
                Err(error) => return (Attempt::refused(&selected.manifest, error), notes),
            }
        }
        (self.open(selected, self.progress).await, notes)
    }

    async fn open(&mut self, selected: &Selected, progress: &dyn Progress) -> Attempt {
        let attempt = open::open(self.content, &selected.manifest, self.options, progress).await;
        self.verify += attempt.verify;
        attempt
    }

    /// Whether other entries of the index hold another module. What cannot be had of them is not
    /// compared: tools copy an index with one of its images.
    async fn compare(
        &mut self,
        selected: &Selected,
        attempt: &Attempt,
        siblings: &[Descriptor],
    ) -> Option<Finding> {
        let ours = &attempt.opened.as_ref().ok()?.sha256;
        let layers = |selected: &Selected| -> Vec<_> {
            selected.manifest.layers.iter().map(|layer| layer.digest.clone()).collect()
        };
        let mut different = Vec::new();
        for entry in siblings.iter().take(MAX_COMPARED) {
            let mut verify = PhaseTime::default();
            let other = image_index::open_entry(self.content, entry, &mut verify).await;
            self.verify += verify;
            let Ok(other) = other else { continue };
            if layers(&other) == layers(selected) {
                continue;
            }
            let opened = self.open(&other, &NoProgress).await.opened;
            if let Ok(theirs) = opened.map(|opened| opened.sha256)
                && theirs != *ours
            {
                let platform = image_index::platform_of(entry);
                different.push(format!("{platform} sha256 {}…", theirs.short()));
            }
        }
        if different.is_empty() {
            return None;
        }
        let platform = selected.platform.clone().unwrap_or_default();
        Some(
            Finding::warning(
                Rule::ImageShape,
                format!(
                    "the images of the index hold different modules: {platform} sha256 {}…, {}",
                    ours.short(),
                    content::list(different)
                ),
            )
            .help("build the module once and copy it into the image of each platform; `--platform` checks another than that for linux/amd64, which Istio and Envoy Gateway take"),
        )
    }

    /// What keeps consumers from taking the image.
    fn consumer_notes(
        &self,
        shape: Shape,
        opened: &Opened,
        selected: &Selected,
        theirs: &Theirs,
        log: Option<&str>,
    ) -> Vec<Finding> {
        let mut notes = Vec::new();
        let Theirs::Image { manifest, digest, seen } = theirs else { return notes };
        if manifest.media_type == OCI_ARTIFACT {
            notes.push(
                Finding::warning(
                    Rule::ImageShape,
                    "the image is an artifact manifest, which OCI withdrew and registries refuse",
                )
                .help(REBUILD),
            );
            return notes;
        }
        let fetched = consumer::fetcher_verdict(Consumer::Istio, manifest, &seen.extracted);
        // Of the module's bytes there will be a finding of its own.
        let is_about_bytes = seen.extracted == Extracted::File { is_wasm: false };
        if fetched.takes == Some(false) && (!is_about_bytes || opened.fault.is_some()) {
            let message = match &opened.fault {
                Some(fault) => format!("{fault}: Istio and Envoy Gateway do not take the image"),
                None => {
                    format!("Istio and Envoy Gateway do not take an image of this shape ({shape})")
                }
            };
            let log = log.unwrap_or_default();
            notes.push(Finding::warning(Rule::ImageShape, message).help(REBUILD).envoy_text(log));
        } else if let Some(fault) = &opened.fault {
            notes.push(Finding::warning(Rule::ImageShape, fault.clone()).help(REBUILD));
        } else if let Some(pinned) = self.pinned_index(digest)
            && *digest == selected.digest
        {
            // `docker buildx build --push` prints the digest of the index, so that is what people
            // pin; the consumers compare it with the digest of the manifest that they selected.
            let log = consumer::pinned_index(Consumer::Istio, &self.content.name(), pinned, digest);
            notes.push(
                Finding::warning(Rule::ImageShape, format!(
                    "the reference pins an image index; Istio and Envoy Gateway compare the pin with the manifest that they select from it, {digest}, and refuse the image"
                ))
                .help(format!("pin {digest} instead"))
                .envoy_text(&log.log.unwrap_or_default()),
            );
        }
        notes
    }

    /// The pinned digest, if it is not that of the image.
    fn pinned_index(&self, digest: &Digest) -> Option<&Digest> {
        self.named.pinned.as_ref().filter(|pinned| *pinned != digest)
    }

    fn no_platform(&self, consumer: Consumer) -> ConsumerVerdict {
        consumer::no_platform(consumer, &self.content.name())
    }

    /// Everybody's verdict.
    fn consumers(&self, theirs: &Theirs) -> Vec<ConsumerVerdict> {
        let index = match manifest::parse(&self.named.bytes, &self.content.name()) {
            Ok(Document::Index(index)) => Some(index),
            _ => None,
        };
        if let Theirs::Image { manifest, .. } = theirs
            && manifest.media_type == OCI_ARTIFACT
        {
            return consumer::all_unknown("no registry serves such a manifest any more");
        }
        let is_for_wkg = index.as_ref().is_none_or(image_index::is_index_for_wkg);
        Consumer::ALL
            .into_iter()
            .map(|consumer| match (consumer, theirs) {
                (Consumer::Wkg, _) if !is_for_wkg => consumer::wkg_no_platform(),
                (Consumer::Wkg, Theirs::Image { manifest, .. }) => consumer::wkg_verdict(manifest),
                (Consumer::SpecV0, Theirs::Image { manifest, seen, .. }) => {
                    let config = seen.config_layer.as_deref();
                    consumer::spec_verdict(manifest, &seen.extracted, config)
                }
                (Consumer::SpecV0, Theirs::NoPlatform) => consumer::spec_no_platform(),
                (_, Theirs::NoPlatform) => self.no_platform(consumer),
                (_, Theirs::Image { manifest, digest, seen }) => {
                    let verdict = consumer::fetcher_verdict(consumer, manifest, &seen.extracted);
                    match self.pinned_index(digest) {
                        Some(pinned) if verdict.takes == Some(true) => {
                            let name = self.content.name();
                            consumer::pinned_index(consumer, &name, pinned, digest)
                        }
                        _ => verdict,
                    }
                }
            })
            .collect()
    }

    /// An image of which no manifest could be selected.
    fn without_a_manifest(&self, error: ImageError) -> Survey {
        let document = manifest::parse(&self.named.bytes, &self.content.name());
        let has_default = |entry: &Descriptor| {
            !image_index::is_attestation(entry)
                && image_index::platform_of(entry) == Platform::default()
        };
        let no_platform = match &document {
            Ok(Document::Index(index)) => !index.entries.iter().any(has_default),
            _ => false,
        };
        let consumers = match no_platform {
            true => self.consumers(&Theirs::NoPlatform),
            false => consumer::all_unknown("no manifest could be read"),
        };
        let istio = consumers.first().and_then(|verdict| verdict.log.clone());
        let image = Err(error.said_by_consumers(istio));
        Survey { image, consumers, manifest_digest: None, shape: None }
    }
}
