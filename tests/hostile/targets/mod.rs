//! What hakobi reads from others, as functions of hostile bytes. `tests/hostile.rs` and the fuzzers of `fuzz/` call them.
//!
//! A function must not panic and must end soon, whatever the bytes are. It asserts more if the right result is known.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod archive;
mod credentials;
mod definition;
mod endpoint;
mod ignore;
mod images;
mod layer;
mod mounts;
mod registry;
mod stored;
mod upkeep;

use std::cell::RefCell;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};

pub use archive::{archive, compressed};
pub use credentials::credentials;
pub use definition::definition;
pub use endpoint::endpoint;
pub use ignore::ignore;
pub use images::manifest;
pub use layer::{index, layer};
pub use mounts::mounts;
pub use registry::registry;
pub use stored::{object, record};
pub use upkeep::upkeep;

/// A function of hostile bytes.
pub struct Target {
    /// The name of the fuzzer and of the directory of its seeds.
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// How many mutated inputs a normal test tries.
    pub tries: u32,
}

/// All of them. One that opens files or connections is slower, and gets fewer inputs in a normal test.
pub const ALL: &[Target] = &[
    Target { name: "archive", run: archive, tries: 2000 },
    Target { name: "compressed", run: compressed, tries: 500 },
    Target { name: "credentials", run: credentials, tries: 500 },
    Target { name: "definition", run: definition, tries: 1000 },
    Target { name: "endpoint", run: endpoint, tries: 300 },
    Target { name: "ignore", run: ignore, tries: 300 },
    Target { name: "index", run: index, tries: 3000 },
    Target { name: "layer", run: layer, tries: 3000 },
    Target { name: "manifest", run: manifest, tries: 3000 },
    Target { name: "mounts", run: mounts, tries: 500 },
    Target { name: "object", run: object, tries: 3000 },
    Target { name: "record", run: record, tries: 3000 },
    Target { name: "registry", run: registry, tries: 150 },
    Target { name: "upkeep", run: upkeep, tries: 200 },
];

/// The longest time of one input. Only one that hangs takes so long.
const LONGEST: Duration = Duration::from_secs(20);

/// The most bytes that a function reads of a stream: an input of a few bytes may decompress to more than memory has.
const MOST: u64 = 32 << 20;

thread_local! {
    static RUNTIME: RefCell<tokio::runtime::Runtime> =
        RefCell::new(tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));
}

/// Runs a future in this thread's runtime, in which servers live on from one input to the next. Panics if it does not end.
fn run<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.with_borrow(|runtime| runtime.block_on(async { tokio::time::timeout(LONGEST, future).await.expect("it hangs") }))
}

/// Returns the input as a stream.
fn stream(input: &[u8]) -> hakobi::transfer::ByteStream {
    Box::pin(io::Cursor::new(input.to_vec()))
}

/// Reads a stream to its end, or to [`MOST`] bytes.
async fn read(from: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(MOST).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

/// Splits the input into parts at lines of two dashes. A part never ends with the line end before the dashes.
fn parts(input: &[u8]) -> Vec<&[u8]> {
    const BETWEEN: &[u8] = b"\n--\n";
    let (mut rest, mut parts) = (input, Vec::new());
    while let Some(at) = rest.windows(BETWEEN.len()).position(|window| window == BETWEEN) {
        parts.push(&rest[..at]);
        rest = &rest[at + BETWEEN.len()..];
    }
    parts.push(rest);
    parts
}

/// Returns the bytes with each occurrence of a mark replaced.
fn replaced(bytes: &[u8], mark: &[u8], with: &[u8]) -> Vec<u8> {
    let (mut rest, mut out) = (bytes, Vec::with_capacity(bytes.len()));
    while let Some(at) = rest.windows(mark.len()).position(|window| window == mark) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(with);
        rest = &rest[at + mark.len()..];
    }
    out.extend_from_slice(rest);
    out
}

/// Reads the input, and again with the right checksums if it is a tar without them.
fn also_mended(input: &[u8], read: fn(&[u8])) {
    read(input);
    let mended = tar_mended(input);
    if mended != input {
        read(&mended);
    }
}

/// Returns the input with the right checksum in every block that looks like a tar header, so that mutations reach what is behind them.
fn tar_mended(input: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for block in bytes.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    bytes
}

/// Returns whether JSON has a number that is no integer of 64 bits. serde_json may read such a number with another last digit than it
/// wrote, so that nothing is known of the result.
fn has_fractions(json: &[u8]) -> bool {
    fn found(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::Number(number) => number.is_f64(),
            serde_json::Value::Array(values) => values.iter().any(found),
            serde_json::Value::Object(values) => values.values().any(found),
            _ => false,
        }
    }
    serde_json::from_slice(json).is_ok_and(|value| found(&value))
}
