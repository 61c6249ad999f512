//! Resolves the destinations of a result: `--push`, `--load` and `-o` (buildx `CreateExports`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::environment::Environment;
use super::registries;
use super::words;
use crate::error::{Error, Result};
use crate::settings::{Compression, Output};

/// The destinations of a result.
#[derive(Debug, Default, PartialEq)]
pub struct Destinations {
    /// Whether to push it to registries.
    pub push: bool,
    /// Whether to load it into the daemon.
    pub load: bool,
    /// The other outputs.
    pub outputs: Vec<Output>,
    /// The values of `name=` in an image's output: the tags if there is no `-t`.
    pub names: Vec<String>,
    /// The values of `annotation.K=V` in an image's output, in the form of `--annotation`.
    pub annotations: Vec<String>,
    /// The value of `compression=` in an image's output.
    pub compression: Option<Compression>,
}

/// Combines `-o`, `--push` and `--load`.
pub fn destinations(
    texts: &[String],
    push: bool,
    load: bool,
    environment: &Environment,
    warnings: &mut Vec<String>,
) -> Result<Destinations> {
    let mut out = Destinations { push, load, ..Destinations::default() };
    let mut to_stdout = false;
    for text in texts {
        let (kind, mut attributes) = parse(text)?;
        let destination = attributes.remove("dest").filter(|destination| !destination.is_empty());
        match (kind.as_str(), destination) {
            ("registry", None) => {
                out.push = true;
                of_image(text, attributes, &mut out, warnings)?;
            }
            ("image", None) => {
                // Without a push, the docker driver's image output goes to the daemon's image store.
                match words::take_boolean("output", &mut attributes, "push", false)? {
                    true => out.push = true,
                    false => out.load = true,
                }
                of_image(text, attributes, &mut out, warnings)?;
            }
            ("docker", None) => {
                out.load = true;
                of_image(text, attributes, &mut out, warnings)?;
            }
            ("registry" | "image", Some(_)) => {
                return Err(Error::usage(format!("invalid --output {text}: type={kind} has no dest")));
            }
            ("cacheonly", _) => {}
            ("local" | "tar" | "oci" | "docker", destination) => {
                let output = to_a_file(text, kind, destination, attributes, environment)?;
                if output.destination.as_deref().is_some_and(|path| path.as_os_str() == "-") {
                    if std::mem::replace(&mut to_stdout, true) {
                        return Err(Error::usage("only one --output can write to standard output"));
                    }
                    if environment.stdout_is_terminal {
                        return Err(Error::usage(format!("--output {text}: refusing to write an archive to a terminal"))
                            .hint("use dest=FILE, or redirect standard output: > FILE"));
                    }
                }
                out.outputs.push(output);
            }
            _ => {
                return Err(Error::usage(format!("invalid --output {text}: unknown type `{kind}`"))
                    .hint("use local, tar, oci, docker, image, registry or cacheonly"));
            }
        }
    }
    // Without any of these flags, `docker build` loads the image.
    out.load |= texts.is_empty() && !out.push;
    Ok(out)
}

/// Parses an output. A bare path is a directory, and `-` is a tar on standard output (buildx `ExportEntry.UnmarshalText`).
fn parse(text: &str) -> Result<(String, BTreeMap<String, String>)> {
    if !text.starts_with("type=") && words::fields(text)? == [text] {
        let kind = if text == "-" { "tar" } else { "local" };
        return Ok((kind.to_owned(), BTreeMap::from([("dest".to_owned(), text.to_owned())])));
    }
    let mut attributes: BTreeMap<String, String> = words::pairs("output", text)?.into_iter().collect();
    match attributes.remove("type").filter(|kind| !kind.is_empty()) {
        Some(kind) => Ok((kind, attributes)),
        None => Err(Error::usage(format!("invalid --output {text}: the type is missing"))
            .hint("use type=local,dest=DIRECTORY or just DIRECTORY")),
    }
}

/// Reads the other attributes of an image's output. An attribute without effect is a warning. One that would change the image is
/// an error.
fn of_image(text: &str, attributes: BTreeMap<String, String>, out: &mut Destinations, warnings: &mut Vec<String>) -> Result<()> {
    let mut level = None;
    let mut kind = None;
    for (key, value) in attributes {
        match key.as_str() {
            "name" => out.names.extend(words::fields(&value)?.into_iter().filter(|name| !name.is_empty())),
            "compression" => kind = Some(value),
            "compression-level" => level = Some(value),
            // These have no effect: hakobi pushes each image under its tags, and the daemon unpacks it.
            "unpack" | "store" | "force-compression" => {}
            "push-by-digest" | "rewrite-timestamp" if words::boolean(&value) != Some(false) => {
                return Err(Error::usage(format!("invalid --output {text}: {key} is not supported")));
            }
            _ => match key.strip_prefix("annotation") {
                // `annotation.K` and `annotation-manifest.K` are `K=V` and `manifest:K=V` in the form of `--annotation`.
                Some(rest) if rest.starts_with(['.', '-']) && rest.contains('.') => {
                    let (place, name) = rest.split_once('.').unwrap_or_default();
                    let place = place.trim_start_matches('-');
                    let place = if place.is_empty() { String::new() } else { format!("{place}:") };
                    out.annotations.push(format!("{place}{name}={value}"));
                }
                _ => warnings.push(format!("--output {text}: {key} has no effect")),
            },
        }
    }
    if kind.is_some() || level.is_some() {
        let kind = kind.unwrap_or_else(|| "gzip".to_owned());
        let level = level.map(|level| format!(":{level}")).unwrap_or_default();
        out.compression = Some(registries::compression(&format!("{kind}{level}"))?);
    }
    Ok(())
}

fn to_a_file(
    text: &str,
    kind: String,
    destination: Option<String>,
    mut attributes: BTreeMap<String, String>,
    environment: &Environment,
) -> Result<Output> {
    let wrong = |what: String| Error::usage(format!("invalid --output {text}: {what}"));
    let packed = match kind.as_str() {
        "local" => false,
        "oci" | "docker" => words::take_boolean("output", &mut attributes, "tar", true)?,
        _ => true,
    };
    let destination = match (destination.as_deref(), packed) {
        (None, false) => return Err(wrong("dest=DIRECTORY is required".to_owned())),
        (Some("-"), false) => return Err(wrong("a directory cannot be written to standard output".to_owned())),
        (None | Some("-"), true) => PathBuf::from("-"),
        (Some(path), _) => {
            let path = environment.resolve(path);
            match std::fs::metadata(&path) {
                Ok(found) if packed && found.is_dir() => return Err(wrong(format!("{} is a directory", path.display()))),
                Ok(found) if !packed && !found.is_dir() => {
                    return Err(wrong(format!("{} is a file, not a directory", path.display())));
                }
                _ => path,
            }
        }
    };
    if !packed && kind != "local" {
        attributes.insert("tar".to_owned(), "false".to_owned());
    }
    Ok(Output { kind, destination: Some(destination), attributes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(texts: &[&str], push: bool, load: bool) -> Result<Destinations> {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        let environment = Environment { current_dir: "/nowhere".into(), ..Environment::default() };
        destinations(&texts, push, load, &environment, &mut Vec::new())
    }

    #[test]
    fn push_and_load_by_any_name() {
        for (texts, push, load, expected) in [
            (&[][..], false, false, (false, true)),
            (&[], true, false, (true, false)),
            (&[], true, true, (true, true)),
            (&["type=registry"], false, false, (true, false)),
            (&["type=image,push=true"], false, false, (true, false)),
            (&["type=image"], false, false, (false, true)),
            (&["type=docker"], true, false, (true, true)),
            (&["type=docker", "type=registry"], false, false, (true, true)),
            (&["out"], false, false, (false, false)),
            (&["out"], false, true, (false, true)),
            (&["type=cacheonly"], false, false, (false, false)),
        ] {
            assert_eq!(
                read(texts, push, load).map(|found| (found.push, found.load)).ok(),
                Some(expected),
                "{texts:?} {push} {load}"
            );
        }
    }

    #[test]
    fn files_and_directories() {
        for (text, kind, destination) in [
            ("out", "local", "/nowhere/out"),
            ("-", "tar", "-"),
            ("type=tar", "tar", "-"),
            ("type=tar,dest=x.tar", "tar", "/nowhere/x.tar"),
            ("type=oci,dest=/x.tar", "oci", "/x.tar"),
            ("type=docker,dest=-", "docker", "-"),
            ("type=oci,tar=false,dest=x", "oci", "/nowhere/x"),
            ("\"type=local\",\"dest=a,b\"", "local", "/nowhere/a,b"),
        ] {
            let found = read(&[text], false, false).map(|found| found.outputs).unwrap_or_default();
            let found = found.first().map(|output| (output.kind.as_str(), output.destination.clone()));
            assert_eq!(found, Some((kind, Some(PathBuf::from(destination)))), "{text}");
        }
        for (texts, word) in [
            (&["type=local"][..], "dest=DIRECTORY is required"),
            (&["type=local,dest=-"], "standard output"),
            (&["-", "type=oci"], "only one"),
            (&["type=zip"], "`zip`"),
            (&["dest=x,y=z"], "the type is missing"),
            (&["type=image,push=maybe"], "push=maybe"),
            (&["type=image,push-by-digest=true"], "push-by-digest"),
            (&["type=tar,dest=/"], "is a directory"),
        ] {
            assert!(read(texts, false, false).is_err_and(|error| error.to_string().contains(word)), "{texts:?}");
        }
    }

    #[test]
    fn what_an_image_says_further() {
        let found = read(
            &["type=image,\"name=a,b:1\",push=true,compression=zstd,compression-level=9,annotation.k=v,annotation-manifest.o.k=w"],
            false,
            false,
        )
        .expect("an output");
        assert_eq!(found.names, ["a", "b:1"]);
        assert_eq!(found.compression, Some(Compression::Zstd(9)));
        assert_eq!(found.annotations, ["manifest:o.k=w", "k=v"]);
    }

    #[test]
    fn a_terminal_gets_no_archive() {
        let environment = Environment { stdout_is_terminal: true, ..Environment::default() };
        assert!(destinations(&["-".to_owned()], false, false, &environment, &mut Vec::new()).is_err());
    }
}
