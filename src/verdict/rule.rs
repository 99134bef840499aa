//! The rules: stable names of what a finding can say.

use std::fmt;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The gate fails.
    Error,
    /// Worth a person's look; the gate passes.
    Warning,
    /// For the record.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

macro_rules! rules {
    ($($variant:ident = $name:literal, $class:expr, $what:literal;)*) => {
        /// What a finding says. The names are an API: reports, policies and scripts use them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Rule {
            $(#[doc = $what] $variant,)*
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name, `link/missing-import`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The class that the verdict of a real Envoy is sorted into, where the rule says why
            /// Envoy would not serve with the module.
            pub fn envoy_class(self) -> Option<&'static str> {
                match self { $(Self::$variant => $class,)* }
            }

            /// What the rule says, in one sentence fragment.
            pub fn summary(self) -> &'static str {
                match self { $(Self::$variant => $what,)* }
            }
        }
    };
}

rules! {
    ImageNotFound = "image/not-found", None, "the image does not exist or is private";
    ImageUnauthorized = "image/unauthorized", None, "the registry refused the credentials";
    ImageUnreachable = "image/unreachable", None, "the image could not be fetched";
    ImageDigestMismatch = "image/digest-mismatch", None, "the bytes are not what the digest or size says";
    ImageTooLarge = "image/too-large", None, "the image or module is over the size limit";
    ImageInvalid = "image/invalid", None, "the image's manifest, layers or layout cannot be read";
    ImageShape = "image/shape", None, "some consumers cannot take an image of this shape";
    ImageNotWritten = "image/not-written", None, "the destination does not take the image";
    ImageSignature = "image/signature", None, "whether the image is signed with the key that was asked for";
    ConfigMissing = "config/missing", None, "the image has no runtime configuration";
    ConfigInvalid = "config/invalid", None, "the runtime configuration cannot be read";
    ConfigType = "config/type", None, "the runtime configuration is for another runtime";
    ConfigRootIds = "config/root-ids", None, "the runtime configuration names no root_id, or names them oddly";
    ConfigAbiVersion = "config/abi-version", None, "the declared ABI version is unknown or is not the module's";
    ModuleInvalid = "module/invalid", Some("corrupt"), "not a wasm module, truncated, or invalid";
    ModuleFeature = "module/feature", Some("corrupt"), "the module needs a wasm proposal that an engine lacks";
    AbiMarker = "abi/marker", Some("abi-unknown"), "no known proxy_abi_version_* function export";
    LinkMissingImport = "link/missing-import", Some("missing-import"), "the target does not have an imported function";
    LinkImportType = "link/import-type", Some("import-type"), "the target has an imported function with another type";
    LinkExportType = "link/export-type", Some("export-signature"), "a callback or allocator is exported with the wrong type";
    LinkAllocator = "link/allocator", Some("export-signature"), "neither malloc nor proxy_on_memory_allocate is exported";
    LoadInstantiate = "load/instantiate", Some("instantiate"), "the module cannot be instantiated";
    LoadStartTrap = "load/start-trap", Some("start-trap"), "_initialize, _start or main trapped";
    RootContextTrap = "root/context-trap", Some("context-create-trap"), "proxy_on_context_create of the root context trapped";
    RootVmStartFalse = "root/vm-start-false", Some("vm-start-false"), "proxy_on_vm_start returned false";
    RootVmStartTrap = "root/vm-start-trap", Some("vm-start-trap"), "proxy_on_vm_start trapped";
    RootConfigureFalse = "root/configure-false", Some("configure-false"), "proxy_on_configure returned false";
    RootConfigureTrap = "root/configure-trap", Some("configure-trap"), "proxy_on_configure trapped";
    RootUnknownId = "root/unknown-id", None, "what the module does with a root_id that it does not know";
    RootNotDistinguished = "root/not-distinguished", None, "the module behaves the same for any root_id";
    RootWorkerDiffers = "root/worker-differs", None, "a second instance did not load as the first did";
    RootNotExercised = "root/not-exercised", None, "a declared root_id was not exercised";
    RunTrap = "run/trap", None, "a callback trapped while serving";
    RunTimeout = "run/timeout", None, "a callback ran over its time";
    RunStalled = "run/stalled", None, "a stream was paused and nothing would resume it";
    RunProtocol = "run/protocol", None, "a callback broke the protocol";
    RunOtherFilter = "run/other-filter", None, "the module has callbacks only for another kind of filter";
    HazardCrashesEnvoy = "hazard/crashes-envoy", Some("crash"), "Envoy would not reject the module: it would die";
    HazardHangsEnvoy = "hazard/hangs-envoy", Some("hang"), "Envoy would not reject the module: it would hang";
    HostNotModelled = "host/not-modelled", None, "the module called host functions whose effect is not modelled yet";
    HostRestricted = "host/restricted", None, "the module called host functions that its capabilities leave out";
    HostUnknownCluster = "host/unknown-cluster", None, "the module called a cluster that is not there";
    LimitReached = "limit/reached", None, "a limit of filtergate ended the run";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Rule {
    /// The rule with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|rule| rule.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for rule in Rule::ALL {
            assert_eq!(Rule::from_name(rule.name()), Some(*rule));
        }
    }
}
