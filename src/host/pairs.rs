//! The encoding of header lists across the boundary (proxy-wasm-cpp-host `src/pairs_util.cc`).

/// Most bytes that a list from a module may have.
const MAX_BYTES: usize = 1 << 20;
/// Most pairs that a list from a module may have.
const MAX_PAIRS: usize = 1024;

/// Encodes pairs: count, then the two lengths of each, then each name and value with a NUL.
pub fn encode<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone) -> Vec<u8> {
    let word = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    let mut out = Vec::new();
    out.extend(word(pairs.clone().count()));
    for (name, value) in pairs.clone() {
        out.extend(word(name.len()));
        out.extend(word(value.len()));
    }
    for (name, value) in pairs {
        out.extend_from_slice(name);
        out.push(0);
        out.extend_from_slice(value);
        out.push(0);
    }
    out
}

/// Decodes what a module sent. As in Envoy, anything malformed or over a limit is an empty list,
/// never an error.
pub fn decode(bytes: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    try_decode(bytes).unwrap_or_default()
}

fn try_decode(bytes: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    if bytes.len() > MAX_BYTES {
        return None;
    }
    let mut rest = bytes;
    let count = word(&mut rest)?;
    if count > MAX_PAIRS {
        return None;
    }
    let mut sizes = Vec::with_capacity(count);
    for _ in 0..count {
        sizes.push((word(&mut rest)?, word(&mut rest)?));
    }
    let mut pairs = Vec::with_capacity(count);
    for (name, value) in sizes {
        pairs.push((text(&mut rest, name)?, text(&mut rest, value)?));
    }
    rest.is_empty().then_some(pairs)
}

fn word(rest: &mut &[u8]) -> Option<usize> {
    let (word, tail) = rest.split_first_chunk::<4>()?;
    *rest = tail;
    usize::try_from(u32::from_le_bytes(*word)).ok()
}

fn text(rest: &mut &[u8], len: usize) -> Option<Vec<u8>> {
    let (text, tail) = rest.split_at_checked(len)?;
    let (nul, tail) = tail.split_first()?;
    *rest = tail;
    (*nul == 0).then(|| text.to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn borrowed(pairs: &[(Vec<u8>, Vec<u8>)]) -> impl Iterator<Item = (&[u8], &[u8])> + Clone {
        pairs.iter().map(|(n, v)| (n.as_slice(), v.as_slice()))
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(pairs: Vec<(Vec<u8>, Vec<u8>)>) {
            prop_assert_eq!(decode(&encode(borrowed(&pairs))), pairs);
        }

        #[test]
        fn any_bytes_are_survived(bytes: Vec<u8>) {
            decode(&bytes);
        }

        #[test]
        fn a_cut_list_is_empty(pairs in prop::collection::vec(any::<(Vec<u8>, Vec<u8>)>(), 1..8), cut in 1usize..64) {
            let bytes = encode(borrowed(&pairs));
            let cut = cut.min(bytes.len());
            prop_assert!(decode(&bytes[..bytes.len() - cut]).is_empty());
        }
    }

    #[test]
    fn limits() {
        let many = vec![(b"a".to_vec(), b"b".to_vec()); MAX_PAIRS + 1];
        assert!(decode(&encode(borrowed(&many))).is_empty());
        assert_eq!(decode(&encode(borrowed(&many[1..]))).len(), MAX_PAIRS);
        let big = [(b"a".to_vec(), vec![b'x'; MAX_BYTES])];
        assert!(decode(&encode(borrowed(&big))).is_empty());
    }
}
