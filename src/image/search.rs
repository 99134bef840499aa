//! The module of an image in which Istio and Envoy Gateway find none: in an earlier layer, under
//! another name, or in a layer of another media type.

use super::content::{self, Content};
use super::error::one_line;
use super::file::blocking;
use super::listing::{self, Listing};
use super::manifest::{Descriptor, Manifest};
use super::shape::{self, Shape};
use super::{FetchOptions, Progress};
use crate::timing::{PhaseTime, timed};
use std::collections::HashSet;
use std::sync::Arc;

/// Archives that are looked into.
const MAX_ARCHIVES: usize = 32;
/// An image with more layers, none of which says what it is, is not searched for one that is a module
/// by its content.
const MAX_UNKNOWN: usize = 8;
/// Earlier layers that are looked into for a runtime config alone, and how large they may be: that a
/// `COPY` makes has the size of its file.
const MAX_CONFIG_LAYERS: usize = 8;
const MAX_CONFIG_LAYER_BYTES: u64 = 1 << 20;

/// A module that was found.
pub(crate) struct Hit {
    /// The index of its layer.
    pub layer: usize,
    /// Its path in the layer; none where the layer is the module itself.
    pub path: Option<String>,
    pub module: Vec<u8>,
    /// A shape that the search has seen, and the manifest does not say.
    pub shape: Option<Shape>,
    /// Where it is, to go on behind what the last layer lacks.
    pub explanation: String,
}

/// What a search came to.
#[derive(Default)]
pub(crate) struct Search {
    pub hit: Option<Hit>,
    /// Why there is none, to go on behind what the last layer lacks.
    pub explanation: Option<String>,
    /// A runtime config that lies in one of the layers: the index of the layer, and its bytes.
    pub config: Option<(usize, Vec<u8>)>,
    pub verify: PhaseTime,
}

/// A file that could be the module.
struct Candidate {
    layer: usize,
    path: Option<String>,
    blob: Arc<Vec<u8>>,
}

/// Where the module is looked for, and with which means.
pub(crate) struct Searcher<'a, C> {
    pub content: &'a C,
    pub manifest: &'a Manifest,
    pub options: &'a FetchOptions,
    pub progress: &'a dyn Progress,
}

impl<C: Content> Searcher<'_, C> {
    /// Looks into the layers from the last to the first. `have` is a layer that was had before.
    pub(crate) async fn module(&self, mut have: Option<(usize, Arc<Vec<u8>>)>) -> Search {
        let mut search = Search::default();
        let mut candidates: Vec<Candidate> = Vec::new();
        let mut upper: Vec<Listing> = Vec::new();
        let mut deleted = None;
        let mut named: Option<String> = None;
        let mut unread = None;
        let mut bytes_left = self.options.max_module_bytes;
        let mut unpacked_left = listing::budget(self.options.max_module_bytes);
        for (at, layer) in self.places() {
            let blob = match have.take_if(|(had, _)| *had == at) {
                Some((_, blob)) => blob,
                None => match self.blob(layer, &mut bytes_left, &mut search.verify).await {
                    Ok(blob) => blob,
                    Err(reason) => {
                        unread.get_or_insert(format!("{} was not read: {reason}", self.name(at)));
                        continue;
                    }
                },
            };
            let listed = list(&blob, &mut unpacked_left, &mut search.verify).await;
            let mut listing = match listed {
                Ok(listing) => listing,
                Err(reason) => {
                    unread.get_or_insert(format!("{} cannot be read: {reason}", self.name(at)));
                    continue;
                }
            };
            let is_deleted = |path: &String| upper.iter().any(|layer| layer.deletes(path));
            if search.config.is_none()
                && let Some((_, bytes)) = listing.config.take_if(|(path, _)| !is_deleted(path))
            {
                search.config = Some((at, bytes));
            }
            if let Some(path) = listing.plugins.iter().find(|path| !is_deleted(path)) {
                let candidate =
                    Candidate { layer: at, path: Some(path.clone()), blob: Arc::clone(&blob) };
                let is_boe = listing.is_built_on_envoy || upper.iter().any(|l| l.is_built_on_envoy);
                let shape = is_boe.then_some(Shape::BuiltOnEnvoyBuild);
                let explanation = format!("{} has it", self.name(at));
                self.take(&mut search, candidate, shape, explanation, &mut unpacked_left).await;
                if search.hit.is_some() {
                    return search;
                }
            } else if !listing.plugins.is_empty() {
                deleted.get_or_insert(at);
            }
            named = named.or(listing.manifest_module.take());
            let paths = listing.modules.iter().filter(|path| !is_deleted(path)).cloned().map(Some);
            let paths: Vec<_> = paths.chain(listing.is_bare.then_some(None)).collect();
            candidates.extend(paths.into_iter().map(|path| Candidate {
                layer: at,
                path,
                blob: Arc::clone(&blob),
            }));
            upper.push(listing);
        }
        self.choose(&mut search, candidates, named, &mut unpacked_left).await;
        if search.hit.is_none() && search.explanation.is_none() {
            search.explanation = match deleted {
                Some(at) => Some(format!("{} has it, and a layer above deletes it", self.name(at))),
                None => unread,
            };
        }
        search
    }

    /// A runtime config that is in a layer of its own.
    pub(crate) async fn config(&self) -> Search {
        let mut search = Search::default();
        let mut unpacked_left = listing::budget(MAX_CONFIG_LAYER_BYTES);
        let mut upper: Vec<Listing> = Vec::new();
        let earlier = self.places().skip(1).take(MAX_CONFIG_LAYERS);
        for (at, layer) in earlier.filter(|(_, layer)| layer.size <= MAX_CONFIG_LAYER_BYTES) {
            let mut left = MAX_CONFIG_LAYER_BYTES;
            let blob = self.blob(layer, &mut left, &mut search.verify).await;
            let Ok(blob) = blob else { continue };
            let listed = list(&blob, &mut unpacked_left, &mut search.verify).await;
            let Ok(mut listing) = listed else { continue };
            let is_deleted = |path: &String| upper.iter().any(|layer| layer.deletes(path));
            if let Some((_, bytes)) = listing.config.take_if(|(path, _)| !is_deleted(path)) {
                search.config = Some((at, bytes));
                break;
            }
            upper.push(listing);
        }
        search
    }

    /// Decides among files of other names.
    async fn choose(
        &self,
        search: &mut Search,
        candidates: Vec<Candidate>,
        named: Option<String>,
        left: &mut u64,
    ) {
        if search.hit.is_some() {
            return;
        }
        let count = candidates.len();
        let names = content::list(candidates.iter().map(|candidate| self.shown(candidate)));
        let mut candidates = candidates;
        if let Some(named) = named
            && let Some(at) = candidates.iter().position(|c| c.path.as_ref() == Some(&named))
        {
            let candidate = candidates.swap_remove(at);
            let explanation = format!("`manifest.yaml` names {}", self.shown(&candidate));
            self.take(search, candidate, Some(Shape::Maistra), explanation, left).await;
        } else if count == 1
            && let Some(candidate) = candidates.pop()
        {
            let explanation = format!("{names} is a module");
            self.take(search, candidate, None, explanation, left).await;
        } else if count > 1 {
            search.explanation =
                Some(format!("there are {count} other modules, and nothing says which: {names}"));
        }
    }

    async fn take(
        &self,
        search: &mut Search,
        candidate: Candidate,
        shape: Option<Shape>,
        explanation: String,
        left: &mut u64,
    ) {
        let Candidate { layer, path, blob } = candidate;
        let limit = self.options.max_module_bytes;
        let mut budget = *left;
        let read = blocking({
            let path = path.clone();
            move || {
                let mut verify = PhaseTime::default();
                let module = timed(&mut verify, || {
                    listing::read(&blob, path.as_deref(), limit, &mut budget)
                });
                Ok((module, budget, verify))
            }
        });
        let Ok((module, rest, verify)) = read.await else { return };
        *left = rest;
        search.verify += verify;
        match module {
            Some(module) => search.hit = Some(Hit { layer, path, module, shape, explanation }),
            None => {
                search.explanation =
                    Some(format!("{explanation}, but it is cut, too large, or no module"));
            }
        }
    }

    /// The layers that may hold it, with their indexes. Where no layer is an archive or a module by
    /// its media type, what may be one by its content is taken for it.
    fn places(&self) -> impl Iterator<Item = (usize, &Descriptor)> {
        let layers = &self.manifest.layers;
        let is_any_archive = layers.iter().any(|layer| shape::is_archive(&layer.media_type));
        let is_unknown =
            |layer: &Descriptor| layers.len() <= MAX_UNKNOWN && !shape::is_text(&layer.media_type);
        // The same layer again shows nothing new.
        let mut seen = HashSet::new();
        let all = layers.iter().enumerate().rev();
        all.filter(move |(_, layer)| match is_any_archive {
            true => shape::is_archive(&layer.media_type),
            false => is_unknown(layer),
        })
        .filter(move |(_, layer)| seen.insert(&layer.digest))
        .take(MAX_ARCHIVES)
    }

    async fn blob(
        &self,
        layer: &Descriptor,
        left: &mut u64,
        verify: &mut PhaseTime,
    ) -> Result<Arc<Vec<u8>>, String> {
        let blob = content::get(self.content, layer, *left, self.progress).await;
        let blob = blob.map_err(|error| one_line(&error.to_string()))?;
        *left -= blob.bytes.len() as u64;
        *verify += blob.verify;
        Ok(Arc::new(blob.bytes))
    }

    /// `layer 1 of 2`.
    fn name(&self, at: usize) -> String {
        format!("layer {} of {}", at + 1, self.manifest.layers.len())
    }

    fn shown(&self, candidate: &Candidate) -> String {
        let layer = self.name(candidate.layer);
        match &candidate.path {
            Some(path) => format!("`{}` in {layer}", one_line(path)),
            None => layer,
        }
    }
}

async fn list(
    blob: &Arc<Vec<u8>>,
    left: &mut u64,
    verify: &mut PhaseTime,
) -> Result<Listing, String> {
    let blob = Arc::clone(blob);
    let mut budget = *left;
    let listed = blocking(move || {
        let mut verify = PhaseTime::default();
        let listing = timed(&mut verify, || listing::list(&blob, &mut budget));
        Ok((listing, budget, verify))
    });
    let (listing, rest, time) = listed.await.map_err(|error| error.to_string())?;
    *left = rest;
    *verify += time;
    listing
}
