//! Protocol buffers as fields, known or not: an unknown field must change a key, so it must not get lost in decoding.

/// The error for a message that cannot be split into fields.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
#[error("a message of the build graph is truncated")]
pub struct Malformed;

/// One field of a message.
pub(super) struct Field<'a> {
    pub(super) number: u64,
    /// Its content, if it has a length; otherwise `None`.
    pub(super) inside: Option<&'a [u8]>,
    /// All its bytes, with its tag.
    pub(super) whole: &'a [u8],
}

/// Returns the fields of a message, in their order.
///
/// # Errors
/// If the message is malformed.
pub(super) fn fields(message: &[u8]) -> Result<Vec<Field<'_>>, Malformed> {
    let mut out = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let start = rest;
        let tag = varint(&mut rest)?;
        let inside = match tag & 7 {
            0 => {
                varint(&mut rest)?;
                None
            }
            1 => {
                take(&mut rest, 8)?;
                None
            }
            2 => {
                let length = varint(&mut rest)?;
                Some(take(&mut rest, length)?)
            }
            5 => {
                take(&mut rest, 4)?;
                None
            }
            // BuildKit's messages have never had groups.
            _ => return Err(Malformed),
        };
        let (whole, _) = start.split_at(start.len() - rest.len());
        out.push(Field { number: tag >> 3, inside, whole });
    }
    Ok(out)
}

/// Appends a field with a length.
pub(super) fn put(out: &mut Vec<u8>, number: u64, inside: &[u8]) {
    put_varint(out, number << 3 | 2);
    put_varint(out, inside.len() as u64);
    out.extend_from_slice(inside);
}

/// Returns a message with some of its fields changed: `change` returns the new content of a field, or removes it.
///
/// # Errors
/// If the message is malformed.
pub(super) fn rewritten(
    message: &[u8],
    mut change: impl FnMut(&Field<'_>) -> Result<Change, Malformed>,
) -> Result<Vec<u8>, Malformed> {
    let mut out = Vec::with_capacity(message.len());
    for field in fields(message)? {
        match change(&field)? {
            Change::Keep => out.extend_from_slice(field.whole),
            Change::Drop => {}
            Change::To(inside) => put(&mut out, field.number, &inside),
        }
    }
    Ok(out)
}

/// The change of a field.
pub(super) enum Change {
    Keep,
    Drop,
    To(Vec<u8>),
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Result<&'a [u8], Malformed> {
    let length = usize::try_from(length).map_err(|_| Malformed)?;
    let (copied, after) = rest.split_at_checked(length).ok_or(Malformed)?;
    *rest = after;
    Ok(copied)
}

fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = take(rest, 1)? else { return Err(Malformed) };
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_fields_stay_and_cut_ones_are_told() {
        let mut message = Vec::new();
        put(&mut message, 2, b"two");
        put(&mut message, 1000, &[7; 300]);
        message.extend([3 << 3, 0x96, 0x01]);
        let numbers: Vec<u64> = fields(&message).unwrap().iter().map(|field| field.number).collect();
        assert_eq!(numbers, [2, 1000, 3]);
        assert_eq!(rewritten(&message, |_| Ok(Change::Keep)).unwrap(), message);
        let without = rewritten(&message, |field| Ok(if field.number == 2 { Change::Drop } else { Change::Keep })).unwrap();
        assert_eq!(message.len() - without.len(), 5);
        for cut in [1, 4, 200, message.len() - 1] {
            assert!(fields(&message[..cut]).is_err(), "{cut}");
        }
    }
}
