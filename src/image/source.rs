//! From what a reference names to the place that has it: one door for every command.

use super::content::{Content, Named};
use super::kept::Repository;
use super::pull::{self, Survey};
use super::{
    FetchOptions, Image, ImageError, Inspection, Progress, Source, file, inspect, layout, signature,
};
use crate::timing::Stopwatch;

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
    match source {
        Source::File(_) if options.verify_key.is_some() => {
            Err(signature::unsignable(reference, "a plain file"))
        }
        Source::File(path) => Ok(task.of_file(file::fetch(path, reference, options).await?)),
        Source::OciLayout { path, selector } => {
            let layout = layout::Layout::open(path).await?;
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

    fn of_file(&self, image: Image) -> Inspection {
        Inspection::without_a_manifest(self.0.reference, Ok(image))
    }
}
