//! A reader of protobuf's wire format for the few small messages that foreign functions take.

/// A field's value, as far as its wire type tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Any other, which no message here has: skipped.
    Other,
}

/// Deepest nesting of unknown groups, protobuf's own limit.
const MAX_DEPTH: usize = 100;

/// Calls `field` for each field of a message, in order; `None` where protobuf would not parse it.
/// Nothing is allocated, and the time is linear in the message.
pub fn fields<'a>(mut bytes: &'a [u8], mut field: impl FnMut(u32, Value<'a>)) -> Option<()> {
    let mut groups = Vec::new();
    while !bytes.is_empty() {
        let key = u32::try_from(varint(&mut bytes)?).ok()?;
        let number = key >> 3;
        if number == 0 {
            return None;
        }
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut bytes)?),
            1 => take(&mut bytes, 8).map(|_| Value::Other)?,
            2 => {
                let len = usize::try_from(varint(&mut bytes)?).ok()?;
                Value::Bytes(take(&mut bytes, len)?)
            }
            3 if groups.len() < MAX_DEPTH => {
                groups.push(number);
                continue;
            }
            4 if groups.pop() == Some(number) => continue,
            5 => take(&mut bytes, 4).map(|_| Value::Other)?,
            _ => return None,
        };
        if groups.is_empty() {
            field(number, value);
        }
    }
    groups.is_empty().then_some(())
}

/// The text of a `string` field, which protobuf refuses where it is no UTF-8.
pub fn is_text(value: Value<'_>) -> bool {
    !matches!(value, Value::Bytes(bytes) if std::str::from_utf8(bytes).is_err())
}

/// A field with bytes, as it stands in a message.
pub fn bytes_field(number: u32, bytes: &[u8]) -> Vec<u8> {
    let mut field = Vec::with_capacity(bytes.len() + 10);
    for mut value in [u64::from(number << 3 | 2), bytes.len() as u64] {
        while value > 0x7f {
            field.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        field.push(value as u8);
    }
    field.extend_from_slice(bytes);
    field
}

fn take<'a>(bytes: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (head, tail) = bytes.split_at_checked(len)?;
    *bytes = tail;
    Some(head)
}

/// At most ten bytes; bits past the 64th are dropped.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 0x7f).wrapping_shl(shift) & if shift > 63 { 0 } else { u64::MAX };
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> Option<Vec<(u32, Value<'_>)>> {
        let mut seen = Vec::new();
        fields(bytes, |number, value| seen.push((number, value)))?;
        Some(seen)
    }

    #[test]
    fn fields_come_in_order_and_groups_are_skipped() {
        let message = [0x0a, 2, b'r', b'o', 0x1b, 0x08, 1, 0x1c, 0x10, 0x96, 0x01];
        assert_eq!(all(&message), Some(vec![(1, Value::Bytes(b"ro")), (2, Value::Varint(150))]));
    }

    #[test]
    fn cut_and_malformed_messages_do_not_parse() {
        for bytes in [&[0xff][..], &[0x0a, 5, 1], &[0x00, 0], &[0x0f], &[0x1b], &[0x1c], &[0x09, 1]]
        {
            assert_eq!(all(bytes), None, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            all(&bytes);
        }

        #[test]
        fn what_is_written_is_read(number in 1u32..16, text in proptest::collection::vec(any::<u8>(), 0..300)) {
            let message = bytes_field(number, &text);
            prop_assert_eq!(all(&message), Some(vec![(number, Value::Bytes(&text))]));
        }
    }
}
