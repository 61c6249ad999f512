//! The process that runs in a container with the mounts, and reads and writes them for hakobi.
//!
//! The container has nothing but hakobi and the mounts, so this code needs no other file and no environment. It writes nowhere else than
//! into the mounts.

mod ahead;
mod attributes;
mod clock;
mod fill;
mod finish;
mod items;
mod listing;
mod place;
mod recent;
mod staging;
mod tree;
mod walk;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::PathBuf;

use self::ahead::ReadAhead;
use self::fill::Fill;
use self::listing::Listing;
use self::staging::Staging;
use super::frame::{encode, read_frame};
use super::protocol::{Reply, Request};

/// The size of the buffers around standard input and output.
const BUFFER: usize = 256 << 10;

/// Answers requests until the input ends. Returns the exit code: 0, or 1 after `Reply::Broken`. Mounts that are being filled at
/// the end are empty again.
pub fn run(directories: &[PathBuf], input: impl Read + Send + 'static, output: impl Write) -> u8 {
    let mut output = BufWriter::with_capacity(BUFFER, output);
    let served = ReadAhead::new(input)
        .and_then(|input| serve(directories, BufReader::with_capacity(BUFFER, input), &mut output))
        .and_then(|()| output.flush());
    let Err(error) = served else { return 0 };
    // Without a reader, nothing is left to tell.
    let _ = say(&mut output, &Reply::Broken { why: error.to_string() }).and_then(|()| output.flush());
    1
}

/// A mount and what hakobi does with it.
struct Mount {
    root: File,
    fill: Option<Fill>,
    listing: Option<Listing>,
}

fn serve(directories: &[PathBuf], mut input: impl Read, output: &mut impl Write) -> io::Result<()> {
    let mut mounts = Vec::new();
    for directory in directories {
        let root = place::open_root(directory)
            .map_err(|error| io::Error::other(format!("failed to open {}: {error}", directory.display())))?;
        mounts.push(Mount { root, fill: None, listing: None });
    }
    let mut payload = Vec::new();
    while let Some(request) = read_frame::<Request>(&mut input, &mut payload)? {
        let mount = number(&request);
        let Some(at) = mounts.get_mut(mount) else { return Err(io::Error::other(format!("there is no mount {mount}"))) };
        at.answer(request, &payload, output).map_err(|error| io::Error::new(error.kind(), format!("mount {mount}: {error}")))?;
    }
    Ok(())
}

fn number(request: &Request) -> usize {
    match request {
        Request::Look { mount }
        | Request::Fill { mount }
        | Request::Entries { mount, .. }
        | Request::Data { mount, .. }
        | Request::Finish { mount }
        | Request::Abandon { mount }
        | Request::List { mount, .. }
        | Request::Send { mount, .. } => *mount,
    }
}

impl Mount {
    fn answer(&mut self, request: Request, payload: &[u8], output: &mut impl Write) -> io::Result<()> {
        let mount = number(&request);
        match request {
            Request::Look { .. } => {
                let is_free = Staging::clean(&self.root)?;
                let looked = walk::walk(&self.root, walk::Options::default(), &mut |_| Ok(()))?;
                // Another process fills the mount at this moment, so it is not for hakobi to fill.
                let is_empty = looked.is_empty && is_free;
                say(output, &Reply::Looked { mount, is_empty, summary: looked.summary, newest: looked.newest })?;
            }
            Request::Fill { .. } if self.fill.is_some() => return Err(io::Error::other("it is being filled already")),
            Request::Fill { .. } => {
                self.fill = Some(Fill::begin(&self.root));
                return Ok(());
            }
            Request::Entries { entries, .. } => {
                self.filling()?.entries(entries);
                return Ok(());
            }
            Request::Data { file, offset, .. } => {
                self.filling()?.data(file, offset, payload);
                return Ok(());
            }
            Request::Finish { .. } => {
                self.filling()?;
                let reply = match self.fill.take().map(finish::finish) {
                    Some(Ok(at)) => Reply::Filled { mount, at },
                    Some(Err(why)) => Reply::Failed { mount, why },
                    None => return Ok(()),
                };
                say(output, &reply)?;
            }
            Request::Abandon { .. } => {
                self.filling()?;
                let why = self.fill.take().and_then(Fill::abandon).unwrap_or_else(|| "abandoned".to_owned());
                say(output, &Reply::Failed { mount, why })?;
            }
            Request::List { since, .. } => self.listing = Some(listing::list(&self.root, mount, since, output)?),
            Request::Send { files, .. } => {
                let listing = self.listing.as_mut().ok_or_else(|| io::Error::other("it has not been listed"))?;
                let gone = listing.send(mount, &files, output)?;
                say(output, &Reply::Sent { mount, gone })?;
            }
        }
        output.flush()
    }

    fn filling(&mut self) -> io::Result<&mut Fill> {
        self.fill.as_mut().ok_or_else(|| io::Error::other("it is not being filled"))
    }
}

fn say(output: &mut impl Write, reply: &Reply) -> io::Result<()> {
    output.write_all(&encode(reply, &[])?)
}
