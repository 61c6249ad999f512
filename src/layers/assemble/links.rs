//! Resolves a path within a root like containerd's `fs.RootPath`, including its oddities: these decide where a file is written.

use super::doubt::{AssemblyDoubt, refused, unsure};
use crate::build_context::clean;
use crate::layers::index::follow;

/// Most links that are followed for one path.
const LINKS: usize = 255;

/// Returns a path with all links followed, without a leading `/`. Missing components stay as they are. `link` returns the targets
/// of links.
///
/// Each round follows every component once, from the front, and removes `..` from the text. The rounds end when there is no link
/// left.
///
/// # Errors
/// If there are too many links, or the result is not certain.
pub(super) fn root_path<'a>(path: &str, link: impl Fn(&str) -> Option<&'a str>) -> Result<String, AssemblyDoubt> {
    let mut path = clean(&format!("/{path}"));
    let mut walked = 0;
    loop {
        let before = walked;
        let next = round(&path, &link, &mut walked)?;
        let next = clean(&format!("/{next}"));
        if walked == before && next == path {
            return Ok(path[1..].to_owned());
        }
        path = next;
    }
}

/// Resolves one round. `path` is clean and begins with `/`.
fn round<'a>(path: &str, link: &impl Fn(&str) -> Option<&'a str>, walked: &mut usize) -> Result<String, AssemblyDoubt> {
    let mut at = "/".to_owned();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let here = clean(&format!("{at}/{part}"));
        let Some(target) = target(&here, link)? else {
            at = here;
            continue;
        };
        *walked += 1;
        if *walked > LINKS {
            return refused("too many links");
        }
        at = if target.starts_with('/') { clean(target) } else { clean(&format!("{at}/{target}")) };
    }
    Ok(at)
}

/// Returns the target of a link, or `None` for another file. BuildKit asks the kernel, which follows the links before it in the
/// machine's own root. The result is not certain if one of these leads upwards or to an absolute path.
fn target<'a>(path: &str, link: &impl Fn(&str) -> Option<&'a str>) -> Result<Option<&'a str>, AssemblyDoubt> {
    let path = &path[1..];
    let Some((parent, name)) = path.rsplit_once('/') else { return Ok(link(path)) };
    let Some((parent, links)) = follow(parent, link) else { return refused("too many links") };
    let leaves =
        |path: &String| link(path).is_some_and(|target| target.starts_with('/') || target.split('/').any(|part| part == ".."));
    if links.iter().any(leaves) {
        return unsure(format!("/{path} is behind nested symbolic links"));
    }
    Ok(link(&crate::layers::joined(&parent, name)))
}
