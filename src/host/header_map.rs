//! A header map with Envoy's rules (`source/common/http/header_map_impl.cc`).

use std::str::FromStr;

/// Headers or trailers in order. Names are lower case; pseudo headers come first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderMap {
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
    of_request: bool,
}

/// Headers of which Envoy keeps one entry: a second value is appended to the first with a comma
/// (`INLINE_*_HEADERS` in Envoy's `envoy/http/header_map.h`, and the custom inline headers that a
/// stock build registers).
const INLINE: &[&[u8]] = &[
    b":authority",
    b":method",
    b":path",
    b":protocol",
    b":scheme",
    b":status",
    b"connection",
    b"content-length",
    b"content-type",
    b"date",
    b"grpc-message",
    b"grpc-status",
    b"grpc-timeout",
    b"keep-alive",
    b"proxy-connection",
    b"proxy-status",
    b"server",
    b"te",
    b"transfer-encoding",
    b"upgrade",
    b"user-agent",
    b"via",
    b"x-client-trace-id",
    b"x-envoy-attempt-count",
    b"x-envoy-decorator-operation",
    b"x-envoy-downstream-service-cluster",
    b"x-envoy-downstream-service-node",
    b"x-envoy-expected-rq-timeout-ms",
    b"x-envoy-external-address",
    b"x-envoy-force-trace",
    b"x-envoy-internal",
    b"x-envoy-max-retries",
    b"x-envoy-original-path",
    b"x-envoy-retry-on",
    b"x-envoy-upstream-rq-timeout-ms",
    b"x-envoy-upstream-service-time",
    b"x-forwarded-for",
    b"x-forwarded-host",
    b"x-forwarded-port",
    b"x-forwarded-proto",
    b"x-request-id",
];

impl HeaderMap {
    /// An empty map.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty map of a request's headers: in these `host` is another name of `:authority`.
    pub fn request() -> Self {
        Self { of_request: true, ..Self::default() }
    }

    fn key<'a>(&self, name: &'a [u8]) -> &'a [u8] {
        if self.of_request && name.eq_ignore_ascii_case(b"host") { b":authority" } else { name }
    }

    /// A map of these entries.
    pub fn from_pairs<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let mut map = Self::new();
        for (name, value) in pairs {
            map.add(name.as_ref(), value.as_ref());
        }
        map
    }

    /// Number of entries, pseudo headers too.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all names and values (`byteSize`).
    pub fn byte_size(&self) -> usize {
        self.bytes
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        self.entries.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    /// The first value of `name`, which may have upper-case letters.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let name = self.key(name);
        self.entries
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
    }

    /// The first value of `name` as a number.
    pub fn number<T: FromStr>(&self, name: &[u8]) -> Option<T> {
        std::str::from_utf8(self.get(name)?).ok()?.parse().ok()
    }

    /// All values of `name`, joined with commas.
    pub fn joined(&self, name: &[u8]) -> Option<Vec<u8>> {
        let name = self.key(name);
        let values: Vec<_> = self
            .entries
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
            .collect();
        (!values.is_empty()).then(|| values.join(&b','))
    }

    /// Adds an entry, or appends to the one entry of an inline header (`addCopy`).
    pub fn add(&mut self, name: &[u8], value: &[u8]) {
        let name = self.key(name).to_ascii_lowercase();
        if INLINE.contains(&name.as_slice())
            && let Some((_, existing)) = self.entries.iter_mut().find(|(key, _)| *key == name)
        {
            if !existing.is_empty() {
                existing.push(b',');
                self.bytes += 1;
            }
            existing.extend_from_slice(value);
            self.bytes += value.len();
            return;
        }
        self.bytes += name.len() + value.len();
        let at = if name.first() == Some(&b':') {
            self.entries.iter().take_while(|(key, _)| key.first() == Some(&b':')).count()
        } else {
            self.entries.len()
        };
        self.entries.insert(at, (name, value.to_vec()));
    }

    /// Removes all values of `name` and adds one.
    pub fn replace(&mut self, name: &[u8], value: &[u8]) {
        self.remove(name);
        self.add(name, value);
    }

    /// Removes all values of `name`.
    pub fn remove(&mut self, name: &[u8]) {
        let name = self.key(name);
        let bytes = &mut self.bytes;
        self.entries.retain(|(key, value)| {
            let keep = !key.eq_ignore_ascii_case(name);
            if !keep {
                *bytes -= key.len() + value.len();
            }
            keep
        });
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        (self.entries, self.bytes) = (Vec::new(), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_headers_are_joined_and_pseudo_headers_come_first() {
        let mut map =
            HeaderMap::from_pairs([("x-a", "1"), ("X-A", "2"), ("via", "a"), ("via", "b")]);
        map.add(b":path", b"/");
        let seen: Vec<_> = map.iter().collect();
        assert_eq!(
            seen,
            [
                (b":path".as_slice(), b"/".as_slice()),
                (b"x-a", b"1"),
                (b"x-a", b"2"),
                (b"via", b"a,b")
            ]
        );
        let mut request = HeaderMap::request();
        request.add(b"Host", b"a");
        assert_eq!(request.get(b":authority"), Some(b"a".as_slice()));
        map.remove(b"x-a");
        assert_eq!(map.byte_size(), 6 + 6);
    }
}
