//! From what a reference names to the place that has it: one door for every command.

use super::archive::{Archive, Bytes};
use super::content::{Content, Named};
use super::file::Opened;
use super::kept::Repository;
use super::pull::{self, Survey};
use super::{
    FetchOptions, Image, ImageError, Inspection, Progress, Selector, Source, file, inspect, layout,
    signature, url,
};
use crate::timing::Stopwatch;
use std::path::Path;

/// What is done with an image, wherever it is.
pub(crate) trait Task {
    type Output;

    /// Does it with the image that `named` is, or leads to. `watch` has been running since the first
    /// access.
    async fn run<C: Content>(
        &self,
        content: &C,
        named: Named,
        watch: Stopwatch,
    ) -> Result<Self::Output, ImageError>;

    /// Is told how far a transfer is.
    fn progress(&self) -> &dyn Progress;

    /// Does it with a module that is in no image.
    fn of_file(&self, image: Image) -> Self::Output;
}

/// Does `task` with what `source` names.
pub(crate) async fn with<T: Task>(
    source: &Source,
    reference: &str,
    options: &FetchOptions,
    task: &T,
) -> Result<T::Output, ImageError> {
    let watch = Stopwatch::process();
    let bare = |image| match options.verify_key {
        Some(_) => Err(signature::unsignable(reference, "a plain file")),
        None => Ok(task.of_file(image)),
    };
    match source {
        Source::File(path) => match file::open(path, options)? {
            Opened::Module(module) => bare(module.into_image(reference)),
            Opened::Archive(bytes) => in_archive(path, bytes, None, options, task, watch).await,
        },
        Source::Stdin => match file::stdin(options).await? {
            Opened::Module(module) => bare(module.into_image(reference)),
            Opened::Archive(bytes) => {
                let name = Path::new("standard input");
                in_archive(name, bytes, None, options, task, watch).await
            }
        },
        Source::Archive { path, selector } => {
            let bytes = file::archive(path)?;
            in_archive(path, bytes, selector.as_ref(), options, task, watch).await
        }
        Source::Directory(path) => {
            let directory = layout::Layout::open_flat(path)?;
            let named = directory.only_image()?;
            task.run(&directory, named, watch).await
        }
        Source::Url(module) => bare(url::fetch(module, reference, options, task.progress()).await?),
        Source::OciLayout { path, selector } => {
            let layout = layout::Layout::open(path)?;
            let named = layout.select(selector.as_ref()).await?;
            task.run(&layout, named, watch).await
        }
        Source::Registry(reference) => {
            let work = async {
                let (repository, named) = Repository::open(reference, options).await?;
                let done = task.run(&repository, named, watch).await;
                repository.close();
                done
            };
            match tokio::time::timeout(options.timeout, work).await {
                Ok(result) => result,
                Err(_) => Err(ImageError::TimedOut {
                    what: reference.to_string(),
                    after: options.timeout,
                }),
            }
        }
    }
}

async fn in_archive<T: Task>(
    path: &Path,
    bytes: Bytes,
    selector: Option<&Selector>,
    options: &FetchOptions,
    task: &T,
    watch: Stopwatch,
) -> Result<T::Output, ImageError> {
    let mut archive = Archive::open(path, bytes, options).await?;
    let named = archive.select(selector).await?;
    task.run(&archive, named, watch).await
}

/// To get the module.
pub(crate) struct Fetch<'a> {
    pub reference: &'a str,
    pub options: &'a FetchOptions,
    pub progress: &'a dyn Progress,
}

impl Task for Fetch<'_> {
    type Output = Image;

    async fn run<C: Content>(
        &self,
        content: &C,
        named: Named,
        watch: Stopwatch,
    ) -> Result<Image, ImageError> {
        let Self { reference, options, progress } = *self;
        pull::survey(content, &named, reference, watch, options, progress).await.image
    }

    fn progress(&self) -> &dyn Progress {
        self.progress
    }

    fn of_file(&self, image: Image) -> Image {
        image
    }
}

/// To get the module and all that is around it.
pub(crate) struct Inspect<'a>(pub Fetch<'a>);

impl Task for Inspect<'_> {
    type Output = Inspection;

    async fn run<C: Content>(
        &self,
        content: &C,
        named: Named,
        watch: Stopwatch,
    ) -> Result<Inspection, ImageError> {
        let Fetch { reference, options, progress } = self.0;
        let survey = pull::survey(content, &named, reference, watch, options, progress).await;
        let Survey { image, consumers, manifest_digest, shape } = survey;
        let tree = inspect::tree(content, &named, manifest_digest.as_ref()).await;
        let has_digests = content.has_manifests();
        let digest = |digest: Option<String>| digest.filter(|_| has_digests);
        Ok(Inspection {
            reference: reference.to_owned(),
            named_digest: digest(Some(named.digest.to_string())),
            manifest_digest: digest(manifest_digest.map(|digest| digest.to_string())),
            shape,
            tree: Some(tree),
            image,
            consumers,
        })
    }

    fn progress(&self) -> &dyn Progress {
        self.0.progress
    }

    fn of_file(&self, image: Image) -> Inspection {
        Inspection::without_a_manifest(self.0.reference, Ok(image))
    }
}
