//! `filtergate envoy-config`.

use clap::{Args, ValueEnum};
use reqwest::Url;

use crate::{
    CheckOptions,
    envoy_config::{Code, PluginConfig, bootstrap},
    host::Plugin,
    image::{self, Digest, Image, Source},
    report::{
        escape::escape,
        json::{Layout, to_string},
        yaml,
    },
};

use super::{
    CliError,
    exit::Exit,
    fetch::{self, FetchArgs, images_help},
    output, progress,
    run::{BehaviourArgs, FilterChoice, PluginArgs},
};

/// Print the Envoy configuration that runs an image's module
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub struct EnvoyConfig {
    /// A registry reference, a .wasm file, or another (see below)
    #[arg(value_name = "IMAGE")]
    image: String,

    #[command(flatten)]
    plugin: PluginArgs,

    /// Name of the plugin; by default the image's
    #[arg(long, value_name = "NAME")]
    name: Option<String>,

    /// Plugins with the same one share a VM
    #[arg(long, value_name = "ID", default_value = "", hide_default_value = true)]
    vm_id: String,

    #[command(flatten)]
    behaviour: BehaviourArgs,

    /// Filter for: http or network
    #[arg(long, value_name = "KIND", default_value = "http", hide_possible_values = true)]
    filter: FilterChoice,

    /// The module's path where Envoy runs
    #[arg(long, value_name = "PATH", conflicts_with = "remote")]
    filename: Option<String>,

    /// Envoy fetches the module from there
    #[arg(long, value_name = "URL", value_parser = url)]
    remote: Option<Url>,

    /// Cluster for --remote
    #[arg(long, value_name = "NAME", default_value = "wasm_modules")]
    cluster: String,

    /// Print a whole bootstrap, not the filters alone
    #[arg(long)]
    bootstrap: bool,

    /// Output: yaml or json
    #[arg(long, value_name = "FORMAT", default_value = "yaml", hide_possible_values = true)]
    format: ConfigFormat,

    #[command(flatten)]
    fetch: FetchArgs,
}

/// How the configuration is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ConfigFormat {
    Yaml,
    Json,
}

const AFTER_HELP: &str = concat!(
    images_help!(),
    "
Prints a filter for each root_id that the image declares, or of --root-id, as
a list for http_filters or, with --filter network, for a filter chain. Envoy
reads the module from filtergate's store, where it is kept under its SHA-256:
only the store's user can read it, and `cache prune` removes it. So for another
user or machine copy it, and say where it is with --filename; or have Envoy
fetch it with --remote, by its SHA-256, as it does if IMAGE is a URL. What is
in the module is not checked.

A bootstrap listens at 127.0.0.1:10000; HTTP requests are answered by Envoy
itself, and TCP connections lead to 127.0.0.1:10001.

Examples:
  filtergate envoy-config ghcr.io/acme/filter:1.2 --config @filter.json
  filtergate envoy-config filter.wasm --bootstrap > envoy.yaml
  filtergate envoy-config filter.wasm --filename /etc/envoy/filter.wasm
  filtergate envoy-config ghcr.io/acme/filter:1.2 \\
      --remote https://modules.example/filter.wasm --cluster modules

Exit codes: 0 done, 2 wrong usage, 3 the image could not be had or stored"
);

impl EnvoyConfig {
    /// Fetches the image, keeps its module, and prints the configuration.
    pub fn execute(&self) -> Result<Exit, CliError> {
        super::diagnostics::start(0);
        let source = self.fetch.source(&self.image)?;
        let mut options = CheckOptions {
            fetch: self.fetch.options()?,
            filter: self.filter.into(),
            ..self.plugin.options()?
        };
        self.behaviour.apply(&mut options);
        let runtime = fetch::runtime(std::slice::from_ref(&source))?;
        let progress = progress::progress(true);
        let fetched = image::fetch(&source, &self.image, &options.fetch, &*progress);
        let image = runtime
            .block_on(fetched)
            .map_err(|error| CliError::NotMeasured(format!("{error}; {}", error.help())))?;
        let stored;
        let remote = self.remote.as_ref().or(match &source {
            Source::Url(module) => Some(module.url()),
            _ => None,
        });
        let code = match (&self.filename, remote) {
            (Some(path), _) => Code::File(path),
            (None, Some(url)) => {
                Code::Remote { url, sha256: &image.wasm_sha256, cluster: &self.cluster }
            }
            (None, None) => {
                stored = keep(&image, &options)?;
                Code::File(&stored)
            }
        };
        let configuration = self.configuration(&image, &options, &code);
        output::print(&match self.format {
            ConfigFormat::Yaml => yaml::render(&configuration),
            ConfigFormat::Json => to_string(&configuration, Layout::Pretty),
        })?;
        Ok(Exit::Pass)
    }

    fn configuration(
        &self,
        image: &Image,
        options: &CheckOptions,
        code: &Code<'_>,
    ) -> serde_json::Value {
        let mut root_ids = crate::root_ids(options, image);
        if root_ids.is_empty() {
            root_ids.push(String::new());
        }
        let name = self.name.clone().unwrap_or_else(|| name_of(&self.image));
        let filters = root_ids
            .iter()
            .map(|root_id| {
                let plugin = Plugin {
                    name: name.clone(),
                    root_id: root_id.clone(),
                    vm_id: self.vm_id.clone(),
                    ..options.plugin.clone()
                };
                // Filters of one chain have names of their own.
                let filter_name = match root_ids.len() {
                    1 => name.clone(),
                    _ => format!("{name}.{root_id}"),
                };
                let (filter, failure_policy) = (options.filter, options.failure_policy);
                PluginConfig { filter, plugin, failure_policy }.filter(&filter_name, code)
            })
            .collect();
        match self.bootstrap {
            true => bootstrap(options.filter, filters, code),
            false => serde_json::Value::Array(filters),
        }
    }
}

/// The module's path in the store.
fn keep(image: &Image, options: &CheckOptions) -> Result<String, CliError> {
    let store = options.fetch.store.as_ref().ok_or_else(|| {
        CliError::Usage(
            "there is no store to keep the module in: say with --filename where Envoy finds it, or with --remote"
                .to_owned(),
        )
    })?;
    let what = "cannot keep the module in the store";
    let io = |source| CliError::Io { what, source };
    let digest: Digest = format!("sha256:{}", image.wasm_sha256)
        .parse()
        .map_err(|error| io(std::io::Error::other(error)))?;
    let path = store.keep_blob(&digest, &image.wasm).map_err(io)?;
    match path.to_str() {
        Some(path) => Ok(path.to_owned()),
        None => Err(CliError::Usage(format!(
            "Envoy takes no path that is not UTF-8, as the store's is: {}",
            escape(&path.display().to_string())
        ))),
    }
}

/// The last part of a reference's name, without tag, digest and extension.
fn name_of(reference: &str) -> String {
    let path = reference.split('@').next().unwrap_or_default();
    let path = path.split(['#', '?']).next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    let last = last.strip_prefix("oci:").unwrap_or(last);
    let name = last.split(':').next().unwrap_or_default();
    let name = name.strip_suffix(".wasm").unwrap_or(name);
    if name.is_empty() { "wasm".to_owned() } else { name.to_owned() }
}

fn url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|error| format!("{error}: write http:// or https://"))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err("write http:// or https://".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (reference, name) in [
            ("ghcr.io/acme/filter:1.2", "filter"),
            ("localhost:5000/filter@sha256:00", "filter"),
            ("target/release/my_filter.wasm", "my_filter"),
            ("oci:build/image:1.2", "image"),
            ("oci:image", "image"),
            ("https://modules.example/x/filter.wasm?v=1#sha256=00", "filter"),
            (".wasm", "wasm"),
        ] {
            assert_eq!(name_of(reference), name);
        }
    }
}
