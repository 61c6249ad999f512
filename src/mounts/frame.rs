//! Frames of [`super::protocol`]: encodes and decodes a message with its payload, for both sides.

use std::io::{self, Read};

use bytes::{Buf as _, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::protocol::{LARGEST_MESSAGE, LARGEST_PAYLOAD};

/// The two lengths before each message.
const HEAD: usize = 8;

/// Returns a frame.
///
/// # Errors
/// If the message or the payload is larger than the protocol allows.
pub fn encode(message: &impl Serialize, payload: &[u8]) -> io::Result<Vec<u8>> {
    let mut frame = encode_start(message, payload.len())?;
    frame.extend_from_slice(payload);
    Ok(frame)
}

/// Returns a frame without its payload, which the caller sends after it.
///
/// # Errors
/// See [`encode`].
pub fn encode_start(message: &impl Serialize, payload: usize) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; HEAD];
    serde_json::to_writer(&mut frame, message)?;
    let message = frame.len() - HEAD;
    let lengths = check(message, payload)?;
    for (place, length) in frame.chunks_exact_mut(4).zip(lengths) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    Ok(frame)
}

/// Reads the next message. Replaces `payload` by its payload. Returns `None` if the stream ends before the frame.
///
/// # Errors
/// If reading fails, the stream ends inside the frame, or the frame is invalid or too large.
pub fn read_frame<M: DeserializeOwned>(from: &mut impl Read, payload: &mut Vec<u8>) -> io::Result<Option<M>> {
    let mut head = [0; HEAD];
    let mut known = 0;
    while known < HEAD {
        match from.read(&mut head[known..]) {
            Ok(0) if known == 0 => return Ok(None),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => known += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let (message, size) = lengths(&head)?;
    payload.resize(message.max(size), 0);
    from.read_exact(&mut payload[..message])?;
    let message = parse(&payload[..message])?;
    payload.truncate(size);
    from.read_exact(payload)?;
    Ok(Some(message))
}

/// Decodes frames from a stream that arrives in pieces of any size.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
}

impl Decoder {
    /// Takes the next piece.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next message and its payload. Returns `None` until all of them arrived.
    ///
    /// # Errors
    /// If the frame is invalid or too large.
    pub fn next<M: DeserializeOwned>(&mut self) -> io::Result<Option<(M, Bytes)>> {
        let Some(head) = self.buffer.first_chunk() else { return Ok(None) };
        let (message, payload) = lengths(head)?;
        let whole = HEAD + message + payload;
        if self.buffer.len() < whole {
            // One growth instead of many.
            self.buffer.reserve(whole - self.buffer.len());
            return Ok(None);
        }
        let parsed = parse(&self.buffer[HEAD..HEAD + message])?;
        self.buffer.advance(HEAD + message);
        Ok(Some((parsed, self.buffer.split_to(payload).freeze())))
    }

    /// Returns whether a part of a frame has arrived. At the end of the stream, this is an error.
    #[must_use]
    #[cfg(test)]
    pub fn is_inside_frame(&self) -> bool {
        !self.buffer.is_empty()
    }
}

fn parse<M: DeserializeOwned>(message: &[u8]) -> io::Result<M> {
    serde_json::from_slice(message).map_err(|error| invalid(format!("invalid message: {error}")))
}

fn lengths(head: &[u8; HEAD]) -> io::Result<(usize, usize)> {
    let [a, b, c, d, e, f, g, h] = *head;
    let of = |bytes| usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX);
    let (message, payload) = (of([a, b, c, d]), of([e, f, g, h]));
    check(message, payload)?;
    Ok((message, payload))
}

fn check(message: usize, payload: usize) -> io::Result<[u32; 2]> {
    if message > LARGEST_MESSAGE || payload > LARGEST_PAYLOAD {
        return Err(invalid(format!("a frame of {message} and {payload} bytes is too large")));
    }
    // The limits are far below the largest number.
    Ok([message, payload].map(|length| u32::try_from(length).unwrap_or(u32::MAX)))
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::protocol::Request;

    fn frames() -> (Vec<(Request, Vec<u8>)>, Vec<u8>) {
        let all = vec![
            (Request::Fill { mount: 3 }, Vec::new()),
            (Request::Data { mount: 0, file: 7, offset: 1 << 40 }, vec![9; LARGEST_PAYLOAD]),
            (Request::Data { mount: 0, file: 7, offset: 0 }, b"abc".to_vec()),
        ];
        let bytes = all.iter().flat_map(|(message, payload)| encode(message, payload).unwrap()).collect();
        (all, bytes)
    }

    #[test]
    fn frames_arrive_in_pieces_of_any_size() {
        let (all, bytes) = frames();
        for size in [1, 7, 4096, bytes.len()] {
            let (mut decoder, mut found) = (Decoder::default(), Vec::new());
            for piece in bytes.chunks(size) {
                decoder.push(piece);
                while let Some((message, payload)) = decoder.next::<Request>().unwrap() {
                    found.push((message, payload.to_vec()));
                }
            }
            assert!(found == all && !decoder.is_inside_frame(), "{size}");
        }
    }

    #[test]
    fn a_stream_ends_between_frames_only() {
        let (all, bytes) = frames();
        let (mut from, mut payload) = (&bytes[..], Vec::new());
        for expected in &all {
            assert_eq!((read_frame(&mut from, &mut payload).unwrap(), &payload), (Some(expected.0.clone()), &expected.1));
        }
        assert_eq!(read_frame::<Request>(&mut from, &mut payload).unwrap(), None);
        for end in [1, HEAD - 1, HEAD, HEAD + 3] {
            let error = read_frame::<Request>(&mut &bytes[..end], &mut payload).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{end}");
        }
    }

    #[test]
    fn frames_have_limits() {
        let invalid: [&[u8]; 4] = [
            &[0xff; 8],
            &[0, 0, 0, 2, 0, 0x10, 0, 1, b'{', b'}'],
            &[0, 0, 0, 2, 0, 0, 0, 0, b'{', b'}'],
            b"\0\0\0\x10\0\0\0\0{\"ask\":\"dance\"}}",
        ];
        for bytes in invalid {
            let error = read_frame::<Request>(&mut &*bytes, &mut Vec::new()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:?}");
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            assert!(decoder.next::<Request>().is_err(), "{bytes:?}");
        }
        assert!(encode(&"", &vec![0; LARGEST_PAYLOAD + 1]).is_err());
        assert!(encode(&"x".repeat(LARGEST_MESSAGE), &[]).is_err());
    }
}
