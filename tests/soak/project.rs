//! The project of the soak: a state of its files, and what an image of that state contains.

use std::collections::BTreeMap;
use std::path::Path;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;

use crate::support::image::{base, contents};

const FOLDERS: [&str; 3] = ["app", "lib", "src"];

/// A state of the project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The files by their paths.
    files: BTreeMap<String, String>,
    /// A number in a command.
    command: u32,
    /// A number in the image's config.
    label: u32,
}

impl State {
    pub fn first() -> Self {
        let paths = FOLDERS.into_iter().flat_map(|folder| (0..6).map(move |file| format!("{folder}/{file}.txt")));
        Self { files: paths.map(|path| (path.clone(), format!("{path}\n"))).collect(), command: 0, label: 0 }
    }

    /// Makes one random edit.
    pub fn edit(&mut self, random: &mut StdRng) {
        let path = self.files.keys().choose(random).unwrap().clone();
        let folder = path.split('/').next().unwrap();
        let text = format!("{}\n", random.random::<u32>());
        match random.random_range(0..12) {
            0 => drop(self.files.insert(format!("{folder}/{}.txt", random.random_range(0..20)), text)),
            // A folder without files would not be copied.
            1 if self.files.keys().filter(|other| other.starts_with(folder)).count() > 2 => drop(self.files.remove(&path)),
            2 => self.command += 1,
            3 => self.label += 1,
            // A file that takes some time to move.
            4 => {
                let lines = (0..random.random_range(1..40_000)).map(|_| format!("{}\n", random.random::<u32>()));
                let text = lines.collect();
                self.files.insert(path, text);
            }
            _ => drop(self.files.insert(path, text)),
        }
    }

    /// Writes the files and the Dockerfile, all with the present time, as a checkout does.
    pub fn check_out(&self, folder: &Path) {
        for folder in FOLDERS.map(|name| folder.join(name)) {
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(&folder).unwrap();
        }
        for (path, text) in &self.files {
            std::fs::write(folder.join(path), text).unwrap();
        }
        std::fs::write(folder.join("Dockerfile"), self.dockerfile()).unwrap();
    }

    /// A stage that compiles each file once for its content, a command on copied files, and files that are copied last.
    fn dockerfile(&self) -> String {
        let (base, command, label) = (base("busybox"), self.command, self.label);
        format!(
            "FROM {base} AS build\n\
             COPY src /src\n\
             RUN --mount=type=cache,target=/objects for f in /src/*; do h=$(sha256sum < $f); h=${{h%% *}}; \
             [ -e /objects/$h ] || {{ new=$(mktemp /objects/new.XXXXXX) && cp $f $new && mv $new /objects/$h; }}; \
             cat /objects/$h >> /all || exit 1; done\n\
             FROM {base}\n\
             RUN echo {command} > /command\n\
             COPY lib /lib-of-app\n\
             RUN cat /lib-of-app/* > /sum\n\
             COPY --from=build /all /all\n\
             COPY app /app\n\
             LABEL number={label}\n"
        )
    }

    /// Checks that the image has what a build of this state makes, and no other file of the project.
    pub fn is_in(&self, image: &str) -> Result<(), String> {
        let of = |folder: &str| {
            let texts = self.files.iter().filter(|(path, _)| path.starts_with(folder)).map(|(_, text)| text.as_str());
            texts.collect::<String>()
        };
        let mut expected = BTreeMap::from([
            ("all".to_owned(), of("src/")),
            ("sum".to_owned(), of("lib/")),
            ("command".to_owned(), format!("{}\n", self.command)),
        ]);
        for (path, text) in &self.files {
            if let Some(rest) = path.strip_prefix("lib/") {
                expected.insert(format!("lib-of-app/{rest}"), text.clone());
            } else if path.starts_with("app/") {
                expected.insert(path.clone(), text.clone());
            }
        }
        let is_ours =
            |path: &str| ["all", "sum", "command"].contains(&path) || path.starts_with("app/") || path.starts_with("lib-of-app/");
        let found: BTreeMap<_, _> = contents(image)?.into_iter().filter(|(path, _)| is_ours(path)).collect();
        if found == expected {
            return Ok(());
        }
        let brief = |files: &BTreeMap<String, String>, path: &String| {
            files.get(path).map(|text| (text.len(), text.chars().take(40).collect::<String>()))
        };
        let paths: std::collections::BTreeSet<_> = found.keys().chain(expected.keys()).collect();
        let differ = paths.into_iter().filter(|path| found.get(*path) != expected.get(*path));
        let differ: Vec<_> = differ.map(|path| (path, brief(&found, path), brief(&expected, path))).collect();
        Err(format!("(path, found, expected) {differ:?}"))
    }
}
