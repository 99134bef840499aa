//! Proxies that are an Envoy under another version number, and the Envoy in each of their releases.

/// A minor release of a distribution of Envoy.
#[derive(Debug, PartialEq, Eq)]
pub struct DistributionRelease {
    /// Its name in targets: `istio`, `envoy-gateway`.
    pub distribution: &'static str,
    /// Major and minor number.
    pub version: (u8, u8),
    /// The minor number of the Envoy release in it.
    pub envoy_minor: u8,
    /// Where that is said.
    pub source: &'static str,
}

const fn istio(minor: u8, envoy_minor: u8, source: &'static str) -> DistributionRelease {
    DistributionRelease { distribution: "istio", version: (1, minor), envoy_minor, source }
}

const fn gateway(major: u8, minor: u8, envoy_minor: u8) -> DistributionRelease {
    DistributionRelease {
        distribution: "envoy-gateway",
        version: (major, minor),
        envoy_minor,
        source: "https://gateway.envoyproxy.io/news/releases/matrix/",
    }
}

/// The releases of all distributions, oldest first.
///
/// Istio: the Envoy branch from which istio/proxy's release branch is kept up to date
/// (`UPDATE_BRANCH` in istio/test-infra). Envoy Gateway: its compatibility matrix; 0.2 to 0.6 name a
/// branch there, later ones an image. Releases with an Envoy older than the tables are left out.
#[rustfmt::skip]
pub static DISTRIBUTIONS: &[DistributionRelease] = &[
    istio(14, 22, "https://github.com/istio/test-infra/blob/d3e5d81e9/prow/config/jobs/proxy-1.14.yaml"),
    istio(15, 23, "https://github.com/istio/test-infra/blob/12fd84e82/prow/config/jobs/proxy-1.15.yaml"),
    istio(16, 24, "https://github.com/istio/test-infra/blob/1594218af/prow/config/jobs/proxy-1.16.yaml"),
    istio(17, 25, "https://github.com/istio/test-infra/blob/f645ae332/prow/config/jobs/proxy-1.17.yaml"),
    istio(18, 26, "https://github.com/istio/test-infra/blob/ce7a8d9a3/prow/config/jobs/proxy-1.18.yaml"),
    istio(19, 27, "https://github.com/istio/test-infra/blob/352604a5e/prow/config/jobs/proxy-1.19.yaml"),
    istio(20, 28, "https://github.com/istio/test-infra/blob/ac9b1936f/prow/config/jobs/proxy-1.20.yaml"),
    istio(21, 29, "https://github.com/istio/test-infra/blob/495f62e19/prow/config/jobs/proxy-1.21.yaml"),
    istio(22, 30, "https://github.com/istio/test-infra/blob/f8552b0c7/prow/config/jobs/proxy-1.22.yaml"),
    istio(23, 31, "https://github.com/istio/test-infra/blob/e2c1f127a/prow/config/jobs/proxy-1.23.yaml"),
    istio(24, 32, "https://github.com/istio/test-infra/blob/db305b76b/prow/config/jobs/proxy-1.24.yaml"),
    istio(25, 33, "https://github.com/istio/test-infra/blob/5dad11bc6/prow/config/jobs/proxy-1.25.yaml"),
    istio(26, 34, "https://github.com/istio/test-infra/blob/27f41238d/prow/config/jobs/proxy-1.26.yaml"),
    istio(27, 35, "https://github.com/istio/test-infra/blob/821a73527/prow/config/jobs/proxy-1.27.yaml"),
    istio(28, 36, "https://github.com/istio/test-infra/blob/54962548c/prow/config/jobs/proxy-1.28.yaml"),
    istio(29, 37, "https://github.com/istio/test-infra/blob/e9c205897/prow/config/jobs/proxy-1.29.yaml"),
    istio(30, 38, "https://github.com/istio/test-infra/blob/5d4f3ccb5/prow/config/jobs/proxy-1.30.yaml"),
    istio(31, 39, "https://github.com/istio/test-infra/blob/45604581e/prow/aws/config/jobs/proxy-1.31.yaml"),
    gateway(0, 2, 23),
    gateway(0, 3, 25),
    gateway(0, 4, 26),
    gateway(0, 5, 27),
    gateway(0, 6, 28),
    gateway(1, 0, 29),
    gateway(1, 1, 31),
    gateway(1, 2, 32),
    gateway(1, 3, 33),
    gateway(1, 4, 34),
    gateway(1, 5, 35),
    gateway(1, 6, 36),
    gateway(1, 7, 37),
    gateway(1, 8, 38),
    gateway(1, 9, 39),
];
