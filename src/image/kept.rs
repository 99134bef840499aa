//! A repository of which the store may have kept what is asked for. Nobody speaks to its registry
//! before there is something that only the registry knows.

use super::content::{BlobSink, Content, Named};
use super::manifest::{Descriptor, MAX_DOCUMENT_BYTES};
use super::registry::Registry;
use super::{Digest, FetchOptions, ImageError, RegistryReference, SourceKind};
use crate::store::Shelf;
use crate::timing::PhaseTime;
use tokio::sync::OnceCell;

/// A repository in a registry, and what is kept of the image in it that was asked for.
pub(crate) struct Repository<'a> {
    reference: &'a RegistryReference,
    options: &'a FetchOptions,
    registry: OnceCell<Registry<'a>>,
    shelf: Option<Shelf>,
}

impl<'a> Repository<'a> {
    /// Finds out what the reference names. Whether a tag has been moved only the registry knows; what
    /// a digest names cannot change.
    pub(crate) async fn open(
        reference: &'a RegistryReference,
        options: &'a FetchOptions,
    ) -> Result<(Self, Named), ImageError> {
        let name = format!("{}/{}", reference.registry(), reference.repository());
        let shelf_of =
            |digest| options.store.as_ref().map(|store| Shelf::new(store, &name, digest));
        let mut repository = Self { reference, options, registry: OnceCell::new(), shelf: None };
        if let Some(digest) = reference.digest() {
            repository.shelf = shelf_of(digest);
            let mut verify = PhaseTime::default();
            let kept = repository.shelf.as_ref();
            if let Some(bytes) =
                kept.and_then(|shelf| shelf.get(digest, MAX_DOCUMENT_BYTES, &mut verify))
            {
                let (digest, pinned) = (digest.clone(), Some(digest.clone()));
                return Ok((repository, Named { bytes, digest, pinned, verify }));
            }
        }
        let named = repository.registry().await?.named().await?;
        if repository.shelf.is_none() {
            repository.shelf = shelf_of(&named.digest);
        }
        if let Some(shelf) = &repository.shelf {
            shelf.put_unless_there(&named.digest, &named.bytes);
        }
        Ok((repository, named))
    }

    /// Notes what the image is made of. What is kept of a part of one is kept, too.
    pub(crate) fn close(&self) {
        if let Some(shelf) = &self.shelf {
            shelf.finish(&self.reference.to_string());
        }
    }

    async fn registry(&self) -> Result<&Registry<'a>, ImageError> {
        self.registry.get_or_try_init(|| Registry::new(self.reference, self.options)).await
    }
}

impl Content for Repository<'_> {
    fn kind(&self) -> SourceKind {
        SourceKind::Registry
    }

    fn name(&self) -> String {
        self.reference.to_string()
    }

    fn shelf(&self) -> Option<&Shelf> {
        self.shelf.as_ref()
    }

    async fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
        self.registry().await?.document(descriptor).await
    }

    /// A signature may be added or withdrawn at any time, so that these two are always asked for.
    async fn tagged(&self, tag: &str) -> Result<Option<Vec<u8>>, ImageError> {
        self.registry().await?.tagged(tag).await
    }

    async fn referrers(&self, digest: &Digest) -> Result<Option<Vec<u8>>, ImageError> {
        self.registry().await?.referrers(digest).await
    }

    async fn blob(
        &self,
        descriptor: &Descriptor,
        sink: &mut BlobSink<'_>,
    ) -> Result<(), ImageError> {
        self.registry().await?.blob(descriptor, sink).await
    }
}
