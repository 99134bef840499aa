//! All that there is to see of an image: what names what, and who takes it.

use super::content::{self, Content, Named};
use super::error::one_line;
use super::image_index::{self, MAX_DEPTH};
use super::manifest::{self, Descriptor, Document};
use super::{ConsumerVerdict, Digest, Image, ImageError, Platform, Shape};
use crate::timing::PhaseTime;
use std::collections::BTreeMap;
use std::pin::Pin;

/// Manifests and indexes that are read for the tree.
const MAX_DOCUMENTS: usize = 64;

/// An image, also one that holds no module.
#[derive(Debug)]
pub struct Inspection {
    /// The reference as the user typed it.
    pub reference: String,
    /// The digest that the reference resolved to: of an image index, or of a manifest.
    pub named_digest: Option<String>,
    /// The digest of the manifest that was selected.
    pub manifest_digest: Option<String>,
    /// How the image is laid out, as far as a manifest could be read.
    pub shape: Option<Shape>,
    /// What names what; `None` where the module was in no image.
    pub tree: Option<Node>,
    /// The module, or why there is none.
    pub image: Result<Image, ImageError>,
    /// Who takes it; empty where the module was in no image.
    pub consumers: Vec<ConsumerVerdict>,
}

/// A manifest or image index.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is in the words of whatever names it.
    pub descriptor: Part,
    /// The platform of its entry in an index.
    pub platform: Option<Platform>,
    /// Whether the module is looked for in it.
    pub is_selected: bool,
    /// Whether it is no image but says something of one.
    pub is_attestation: bool,
    /// The annotations in itself.
    pub annotations: BTreeMap<String, String>,
    /// What it names.
    pub content: NodeContent,
}

/// What a manifest or image index names.
#[derive(Debug, Clone)]
pub enum NodeContent {
    /// Images.
    Index(Vec<Node>),
    /// The parts of an image.
    Manifest {
        /// Its config.
        config: Option<Part>,
        /// Its layers, the lowest first.
        layers: Vec<Part>,
    },
    /// It was not read, for this reason.
    Unread(String),
}

/// Something that is named by its digest.
#[derive(Debug, Clone)]
pub struct Part {
    /// The media type, empty where none is given.
    pub media_type: String,
    /// What kind of artifact it is.
    pub artifact_type: Option<String>,
    /// The digest, where there are manifests that name it.
    pub digest: Option<String>,
    /// Bytes.
    pub size: u64,
    /// Annotations of the descriptor, the title among them.
    pub annotations: BTreeMap<String, String>,
}

impl Part {
    fn of(descriptor: &Descriptor) -> Self {
        Self {
            media_type: descriptor.media_type.clone(),
            artifact_type: descriptor.artifact_type.clone(),
            digest: Some(descriptor.digest.to_string()),
            size: descriptor.size,
            annotations: descriptor.annotations.clone(),
        }
    }
}

impl Inspection {
    /// Of a module that is in no image, or of what could not be had.
    pub(crate) fn without_a_manifest(reference: &str, image: Result<Image, ImageError>) -> Self {
        let found = image.as_ref().ok();
        Self {
            reference: reference.to_owned(),
            named_digest: None,
            manifest_digest: None,
            shape: found.map(|image| image.shape),
            tree: None,
            consumers: found.map(|image| image.consumers.clone()).unwrap_or_default(),
            image,
        }
    }
}

/// The tree below what a reference resolved to.
pub(crate) async fn tree<C: Content>(
    content: &C,
    named: &Named,
    selected: Option<&Digest>,
) -> Node {
    let descriptor = Descriptor {
        media_type: String::new(),
        digest: named.digest.clone(),
        size: named.bytes.len() as u64,
        annotations: BTreeMap::new(),
        platform: None,
        artifact_type: None,
    };
    let mut walk = Walk { content, selected, left: MAX_DOCUMENTS };
    let mut node = walk.node(&descriptor, &named.bytes, 0).await;
    if !content.has_manifests() {
        node.descriptor.digest = None;
    }
    node
}

struct Walk<'a, C> {
    content: &'a C,
    selected: Option<&'a Digest>,
    /// Documents that may still be read.
    left: usize,
}

impl<C: Content> Walk<'_, C> {
    async fn node(&mut self, descriptor: &Descriptor, bytes: &[u8], depth: usize) -> Node {
        let mut node = self.unread(descriptor, String::new());
        match manifest::parse(bytes, &content::manifest_name(&descriptor.digest)) {
            Err(error) => node.content = NodeContent::Unread(one_line(&error.to_string())),
            Ok(Document::Manifest(manifest)) => {
                name(&mut node.descriptor, &manifest.media_type, manifest::OCI_MANIFEST);
                node.descriptor.artifact_type =
                    manifest.artifact_type.or(node.descriptor.artifact_type);
                node.annotations = manifest.annotations;
                node.content = NodeContent::Manifest {
                    config: manifest.config.as_ref().map(Part::of),
                    layers: manifest.layers.iter().map(Part::of).collect(),
                };
            }
            Ok(Document::Index(index)) => {
                name(&mut node.descriptor, &index.media_type, manifest::OCI_INDEX);
                node.annotations = index.annotations;
                let mut children = Vec::with_capacity(index.entries.len());
                for entry in &index.entries {
                    children.push(self.child(entry, depth + 1).await);
                }
                node.content = NodeContent::Index(children);
            }
        }
        node
    }

    fn child<'s>(
        &'s mut self,
        entry: &'s Descriptor,
        depth: usize,
    ) -> Pin<Box<dyn Future<Output = Node> + 's>> {
        Box::pin(async move {
            if image_index::is_attestation(entry) {
                return self.unread(entry, "an attestation".into());
            }
            if depth > MAX_DEPTH || self.left == 0 {
                return self.unread(entry, "too much to read".into());
            }
            self.left -= 1;
            match content::get_document(self.content, entry, &mut PhaseTime::default()).await {
                Ok(bytes) => self.node(entry, &bytes, depth).await,
                Err(error) => self.unread(entry, one_line(&error.to_string())),
            }
        })
    }

    fn unread(&self, descriptor: &Descriptor, reason: String) -> Node {
        Node {
            descriptor: Part::of(descriptor),
            platform: descriptor.platform.clone(),
            is_selected: self.selected == Some(&descriptor.digest),
            is_attestation: image_index::is_attestation(descriptor),
            annotations: BTreeMap::new(),
            content: NodeContent::Unread(reason),
        }
    }
}

/// Completes the media type of what nothing describes: by what it says of itself, else by its kind.
fn name(part: &mut Part, own: &str, kind: &str) {
    if part.media_type.is_empty() {
        part.media_type = if own.is_empty() { kind } else { own }.to_owned();
    }
}
