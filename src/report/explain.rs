//! Rules in more words: what each means, what Envoy makes of it, what to do.

use crate::verdict::Rule;

/// A line for each rule.
pub fn list(rules: &[Rule]) -> String {
    let width = rules.iter().map(|rule| rule.name().len()).max().unwrap_or(0);
    rules.iter().map(|rule| format!("{:<width$}  {}\n", rule.name(), rule.summary())).collect()
}

/// One rule.
pub fn rule(rule: Rule) -> String {
    let class = match rule.envoy_class() {
        Some(class) => format!("\nClass of Envoy's verdict: {class}\n"),
        None => String::new(),
    };
    format!("{rule}: {}\n\n{}\n{class}", rule.summary(), words(rule))
}

fn words(rule: Rule) -> &'static str {
    match rule {
        Rule::ImageNotFound => {
            "\
There is no such file, or the registry has no such image, or does not show it without credentials.
This says nothing of the image: the verdict is undecided. Check the name, the tag and the login."
        }
        Rule::ImageUnauthorized => {
            "\
The registry wants other credentials. They are taken from the docker config or podman's auth file.
Many registries answer this way for images that do not exist. Run `docker login HOST`."
        }
        Rule::ImageUnreachable => {
            "\
The registry did not answer in time, or with an error of its own, or the file cannot be read. The
verdict is undecided: try again, or allow more time with --timeout."
        }
        Rule::ImageDigestMismatch => {
            "\
The bytes are not those that the digest in the reference or the manifest names. Never use such an
image: it was cut or changed on its way. Push it again and pin the digest that the push prints."
        }
        Rule::ImageTooLarge => {
            "\
Istio refuses modules over 256 MiB, and filtergate does so by default. Strip debug information
(`wasm-opt --strip-debug`), or raise the limit with --max-module-size."
        }
        Rule::ImageInvalid => {
            "\
The manifest, a layer or the layout is broken or is something else. The message names the part. An
image that every consumer takes is made with `FROM scratch` and `COPY plugin.wasm /`."
        }
        Rule::ImageShape => {
            "\
Istio, Envoy Gateway and other consumers each take some layouts of an image and refuse others. The
message says who refuses this one and why."
        }
        Rule::ImageNotWritten => {
            "\
The registry refuses what is pushed, or the path cannot be written, or the destination cannot hold
such an image. The message has the reason and the help line the next step. No tag or file of that
name was changed; blobs that were sent before may be there, and harm nobody."
        }
        Rule::ImageSignature => {
            "\
--verify-key names a public key, and the image has no signature by it that is of this image: there
is none, or it is by another key, or of other content. The module was not run. Signatures are
cosign's: the tag `sha256-HEX.sig` beside the image, or a sigstore bundle that refers to it. Sign
with `cosign sign --key …`, and copy the signature wherever the image is copied. With a good
signature this is a note. Transparency logs and certificates are not looked at."
        }
        Rule::ConfigMissing => {
            "\
The image has no runtime configuration, which names the type, the ABI versions and the root_ids.
Envoy does not need it, so that this is a note; without it, only the empty root_id is exercised
unless --root-id names others."
        }
        Rule::ConfigInvalid => {
            "\
The runtime configuration is no JSON object, or fields of it are of the wrong type."
        }
        Rule::ConfigType => {
            "\
The runtime configuration says that the module is for another runtime than `envoy_proxy`, for
example `opa`. It is probably another image than the one that was meant."
        }
        Rule::ConfigRootIds => {
            "\
The runtime configuration names no root_id, or not the way the specification writes it."
        }
        Rule::ConfigAbiVersion => {
            "\
The image declares an ABI version that is unknown, that no current proxy loads, or that the module
is not: its marker and imports tell another. Declare `v0.2.1` for a module of a current SDK."
        }
        Rule::ModuleInvalid => {
            "\
The bytes are no wasm module, or one that is cut off, or one that fails validation. Compare size and
digest with the output of the build. Envoy wants the compiled module, not text and not an archive."
        }
        Rule::ModuleFeature => {
            "\
The module uses a wasm proposal that is off in Envoy's engine. As a warning: one that no compiler of
filtergate has, so that the module was checked without being run; or one that the target's V8 is
said to have off, which was not measured: the verdict is undecided. As a note: one that it is said
to have on. Turn the proposal off in the compiler (rustc: -C target-feature=-NAME, clang:
-mno-NAME)."
        }
        Rule::AbiMarker => {
            "\
Envoy tells the ABI by an export called proxy_abi_version_0_1_0, _0_2_0 or _0_2_1. Without one of
them it refuses the module. SDKs export it; check that the linker keeps it, and that this is a
Proxy-Wasm filter and no component."
        }
        Rule::LinkMissingImport => {
            "\
The module imports a function that this release of Envoy does not have for modules of this ABI.
Envoy stops at the first; filtergate lists all. The help line says which toolchain, SDK or release
brings or has the function. `--target` checks against another release."
        }
        Rule::LinkImportType => {
            "\
Envoy has the function with other parameters or results. Usually the module mixes versions of an
SDK, or declares the import by hand."
        }
        Rule::LinkExportType => {
            "\
A callback or allocator is exported with other parameters or results than this ABI has. Usually the
marker and the callbacks are from two versions of an SDK. ABI 0.1.0 has two parameters in
proxy_on_request_headers and its like, 0.2.0 and later have three."
        }
        Rule::LinkAllocator => {
            "\
Envoy hands data to a module in memory that it gets from `proxy_on_memory_allocate` or `malloc`. One
of them must be exported. C++: -Wl,--export=malloc."
        }
        Rule::LoadInstantiate => {
            "\
The engine cannot make an instance: the memory is over 1 GiB, a data or element segment lies outside
of its memory or table, or the start section trapped."
        }
        Rule::LoadStartTrap => {
            "\
`_initialize`, `_start` or `main` trapped. Before proxy_on_vm_start a module may only log, read the
clock and the environment and the like; any other host function traps there."
        }
        Rule::RootContextTrap => {
            "\
proxy_on_context_create trapped for the root context. Envoy still accepts the configuration where
proxy_on_vm_start succeeds, and then answers every request with 503."
        }
        Rule::RootVmStartFalse => {
            "\
proxy_on_vm_start returned false: the module refuses its VM configuration. Its log lines say why.
Pass what it needs with --vm-config."
        }
        Rule::RootVmStartTrap => {
            "\
proxy_on_vm_start trapped. The log lines before it and the backtrace say where."
        }
        Rule::RootConfigureFalse => {
            "\
proxy_on_configure returned false: the module refuses its configuration. Its log lines say why. Pass
what it needs with --config."
        }
        Rule::RootConfigureTrap => {
            "\
proxy_on_configure trapped, often because it expects a configuration: pass one with --config."
        }
        Rule::RootUnknownId => {
            "\
A control: the image is also loaded under a root_id that it cannot know, and under the empty one. A
module that accepts any name will not notice a wrong root_id in the proxy's configuration."
        }
        Rule::RootNotDistinguished => {
            "\
The module never reads `plugin_root_id`, so that a root_id makes no difference to it."
        }
        Rule::RootWorkerDiffers => {
            "\
Envoy makes one instance for the check of a configuration and one for each worker thread. The first
loaded here and the second did not: start and configure must give the same answer every time."
        }
        Rule::RootNotExercised => {
            "\
The image declares more root_ids than are exercised, or the time was used up before the last one.
Name those that matter with --root-id, or raise --budget."
        }
        Rule::RunTrap => {
            "\
A callback trapped while a request was served, or at its end. Envoy answers that request and every
later one on the same worker thread with 503 (fail closed), or passes the filter by (fail open)."
        }
        Rule::RunTimeout => {
            "\
A callback ran longer than --callback-timeout. Envoy has no limit: the worker thread would hang,
with all connections on it."
        }
        Rule::RunStalled => {
            "\
The filter paused the stream, and nothing is under way that would resume it. The client would wait
until a time-out. Resume the stream, answer it, or return Continue."
        }
        Rule::RunProtocol => {
            "\
The module did what makes no sense to the proxy, such as a second local reply for one stream."
        }
        Rule::RunOtherFilter => {
            "\
Envoy runs a module for HTTP streams or for TCP connections, as the filter that it is configured as.
This module has callbacks only for the other kind: Envoy loads it, creates its contexts and lets all
traffic through. Check it with --filter http or --filter network as it will be deployed."
        }
        Rule::HazardCrashesEnvoy => {
            "\
Envoy does not reject this module: the whole process dies, with every other listener and route in
it. Never roll it out."
        }
        Rule::HazardHangsEnvoy => {
            "\
Envoy does not reject this module: the main thread never comes back from loading it, so that Envoy
does not become ready or takes no more configuration. Never roll it out."
        }
        Rule::HostUnknownCluster => {
            "\
The module called a cluster that the environment does not have, and was told so: proxy_http_call
gives 2 (BadArgument), gRPC calls 4 (ParseFailure). Envoy does the same where no cluster has that
name. What the module does with an answer is not covered by this verdict. Check the name, or say
with --environment which clusters there are and how they answer."
        }
        Rule::HostNotModelled => {
            "\
The module called foreign functions that Envoy has and that are not modelled here. They were
answered as by an Envoy that is built without them. What the module does with an answer is not
covered by the verdict."
        }
        Rule::HostRestricted => {
            "\
The plugin's configuration lists the capabilities that the module has, and a function that it called
is not among them. Envoy logs an error line for each such call and answers 10 (76 for WASI); SDKs
may panic on that."
        }
        Rule::LimitReached => {
            "\
A limit that keeps filtergate itself safe was reached, so that the module was not judged to the end.
It says nothing of what Envoy would do."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_explained() {
        for rule in Rule::ALL {
            let words = words(*rule);
            assert!(!words.is_empty(), "{rule} has no words");
            for line in words.lines() {
                assert!(line.chars().count() <= 100, "{rule}: {line}");
            }
        }
    }
}
