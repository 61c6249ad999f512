//! Finds the calls of tools in the text of a command.

use bollard_buildkit_proto::pb;

use super::{TOOLS, Tool};

/// Programs that run no tool, and read no cache unless their arguments name it.
const PLAIN_PROGRAMS: &str = "[ : true false test cd pwd set unset export umask exit return echo printf cat tee ls mkdir rmdir rm cp mv ln \
    touch install chmod chown chgrp mktemp sed grep awk tr cut sort head tail wc sleep date id uname which strip upx tar gzip gunzip \
    unzip zip xz bzip2 curl wget git sha256sum md5sum gpg adduser addgroup useradd groupadd usermod ldconfig update-ca-certificates \
    rustup fi done esac for case";

/// Those of them that read directories.
const READERS: &str = "cat ls cp mv ln install sed grep awk head tail wc tar zip xz bzip2 chmod chown chgrp rm";

/// Words before the name of a program.
const BEFORE_PROGRAMS: &str = "if then else elif do while until ! { } exec env time command sudo nice nohup";

/// A call of a tool.
pub(in crate::plan) struct Call<'a> {
    pub(in crate::plan) tool: &'static Tool,
    /// Whether the call needs only the manifests.
    pub(in crate::plan) installs: bool,
    pub(in crate::plan) words: Vec<&'a str>,
    /// The words before the program.
    pub(in crate::plan) before: Vec<&'a str>,
}

impl Call<'_> {
    /// Returns the option of the call that disables the cache, or `None`.
    pub(in crate::plan) fn keeps_none(&self) -> Option<&'static str> {
        self.tool.keeps_none.iter().copied().find(|option| self.words.contains(option))
    }
}

/// What a command calls.
pub(in crate::plan) struct Commands<'a> {
    /// The calls of tools that use their caches.
    pub(in crate::plan) calls: Vec<Call<'a>>,
    /// Whether it calls a program that may run or read anything.
    pub(in crate::plan) calls_others: bool,
    /// Whether it calls a program that may read directories of its own one, or goes to one above.
    pub(in crate::plan) reads_around: bool,
}

/// Returns the text of a command: that of the shell, or the arguments. Continued lines are one line.
pub(in crate::plan) fn text_of(meta: &pb::Meta) -> String {
    let text = match &*meta.args {
        [_, options @ .., text] if options.iter().any(|option| option.starts_with('-') && option.ends_with('c')) => text.clone(),
        args => args.join(" "),
    };
    text.replace("\\\r\n", " ").replace("\\\n", " ")
}

/// Returns what a command calls.
pub(in crate::plan) fn simple_commands(text: &str) -> Commands<'_> {
    let mut commands = Commands { calls: Vec::new(), calls_others: false, reads_around: false };
    for words in parts(text) {
        let at = words.iter().position(|word| !is_before_program(word)).unwrap_or(words.len());
        let (before, words) = words.split_at(at);
        let Some((program, after)) = words.split_first() else { continue };
        match of_program(program, after) {
            Some(call) => commands.calls.push(Call { before: before.to_vec(), ..call }),
            None => {
                let program = name(program);
                commands.calls_others |= !is_plain(program, after);
                let leaves = program == "cd" && after.first().is_none_or(|to| to.starts_with("..") || *to == "-");
                let is_relative = |word: &&&str| !word.starts_with(['-', '+', '/', '$', '"', '\'']) && !word.contains('=');
                let reads = has_word(READERS, program) && after.iter().any(|word| is_relative(&word));
                commands.reads_around |= leaves || reads;
            }
        }
    }
    commands
}

/// Returns whether a program neither calls tools nor reads caches.
fn is_plain(program: &str, after: &[&str]) -> bool {
    let is_of_system = TOOLS.iter().any(|tool| tool.of_system && tool.programs.contains(&program));
    let is_tool = TOOLS.iter().any(|tool| tool.programs.contains(&program));
    let asks_version = is_tool && matches!(after, ["version" | "--version" | "-V" | "-v"]);
    is_of_system || asks_version || has_word(PLAIN_PROGRAMS, program)
}

/// Returns the call of a tool that begins with this program. Returns `None` for other programs, and for other work of a tool.
fn of_program<'a>(program: &'a str, after: &[&'a str]) -> Option<Call<'a>> {
    // `python3 -m pip install x`
    if let ("python" | "python3", ["-m", module, after @ ..]) = (name(program), after) {
        return of_program(module, after);
    }
    let tool = TOOLS.iter().find(|tool| tool.programs.contains(&name(program)))?;
    // `apt-get install ccache` calls no ccache, and `ccache gcc …` compiles.
    if !tool.wrappers.is_empty() {
        return Some(Call { tool, installs: false, words: after.to_vec(), before: Vec::new() });
    }
    arguments(tool, after)
}

fn arguments<'a>(tool: &'static Tool, after: &[&'a str]) -> Option<Call<'a>> {
    let plain = after.iter().filter(|word| !word.starts_with('-') && !word.contains('='));
    let plain: Vec<&str> = plain.map(|word| word.trim_matches(['"', '\''])).collect();
    let says = |phrase: &&str| match phrase.split_once(' ') {
        Some((first, second)) => plain.first() == Some(&first) && plain.get(1) == Some(&second),
        None => plain.first().copied().unwrap_or("") == *phrase,
    };
    let installs = tool.installs.iter().any(&says);
    (installs || tool.builds.iter().any(says)).then(|| Call { tool, installs, words: after.to_vec(), before: Vec::new() })
}

/// Returns the first call of a package manager in a command, or `None` if there is none.
pub(in crate::plan) fn call(command: &str) -> Option<Call<'_>> {
    parts(command).into_iter().find_map(|words| {
        let (tool, at) = words.iter().enumerate().find_map(|(at, word)| {
            let name = name(word);
            let tool = TOOLS.iter().find(|tool| tool.programs.contains(&name) && tool.wrappers.is_empty());
            Some((tool?, at))
        })?;
        // `RUN apt-get install pip` calls a package manager, `which pip` calls none.
        if words[..at].iter().any(|word| matches!(*word, "which" | "echo" | "rm" | "command" | "ls" | "cd" | "test")) {
            return None;
        }
        arguments(tool, &words[at + 1..])
    })
}

/// Splits a shell's text into simple commands, and these into words. Quotes do not matter: a word in a text may count as a program, and
/// then the command counts as calling more than it does.
pub(in crate::plan) fn parts(text: &str) -> Vec<Vec<&str>> {
    let parts = text.split(['\n', ';', '&', '|', '(', ')', '`']).map(|part| part.split_whitespace());
    parts
        .map(|words| words.filter(|word| *word != "\\" && *word != "$").collect())
        .filter(|words: &Vec<&str>| !words.is_empty())
        .collect()
}

fn name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word).trim_matches(['"', '\''])
}

fn has_word(words: &str, word: &str) -> bool {
    words.split(' ').any(|one| one == word)
}

fn is_before_program(word: &str) -> bool {
    let is_assignment = word
        .split_once('=')
        .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|char| char.is_ascii_alphanumeric() || char == '_'));
    is_assignment || has_word(BEFORE_PROGRAMS, word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_found_in_commands() {
        let of = |command: &str| call(command).map(|call| (call.tool.programs[0], call.installs));
        for (command, expected) in [
            ("/bin/sh -c npm ci", Some(("npm", true))),
            ("/bin/sh -c npm run ci", None),
            ("/bin/sh -c apt-get update && apt-get -y install pip", Some(("apt-get", true))),
            ("/bin/sh -c apt-get update", None),
            ("/bin/sh -c python3 -m pip install --no-cache-dir -r requirements.txt", Some(("pip", true))),
            ("/bin/sh -c /opt/bin/pip3 install x", Some(("pip", true))),
            ("/bin/sh -c which npm install", None),
            ("/bin/sh -c cd /app;yarn --frozen-lockfile", Some(("yarn", true))),
            ("/bin/sh -c yarn build", None),
            ("/bin/sh -c CGO_ENABLED=0 go build ./...", Some(("go", false))),
            ("/bin/sh -c go mod download", Some(("go", true))),
            ("/bin/sh -c go mod tidy", Some(("go", false))),
            ("/bin/sh -c go generate", None),
            ("/bin/sh -c ./mvnw -B package", Some(("mvn", false))),
            ("/bin/sh -c make", None),
        ] {
            assert_eq!(of(command), expected, "{command}");
        }
    }

    #[test]
    fn a_command_says_what_it_calls() {
        let of = |text: &str| {
            let commands = simple_commands(text);
            let tools: Vec<&str> = commands.calls.iter().map(|call| call.tool.programs[0]).collect();
            (tools.join(" "), commands.calls_others)
        };
        for (text, tools, calls_others) in [
            ("CGO_ENABLED=0 go build -o /app ./cmd/app && strip /app", "go", false),
            ("set -eux; \\\n  if [ -f go.mod ]; then go mod download; fi", "go", false),
            ("go mod download && ./build.sh", "go", true),
            ("npm ci && npm run build", "npm", true),
            ("python3 -m pip install x", "pip", false),
            ("$TOOL build", "", true),
            ("X=$(cat version) cargo build --release", "cargo", false),
            ("ccache gcc -c a.c", "ccache", false),
            ("apt-get install -y ccache", "apt-get", false),
            ("apt-get update && apt-get install -y git && rm -rf /var/lib/apt/lists/*", "apt-get", false),
            ("go version && go generate ./...", "", true),
            ("cp target/release/app /app", "", false),
        ] {
            assert_eq!(of(text), (tools.to_owned(), calls_others), "{text}");
        }
    }

    #[test]
    fn caches_are_where_variables_say_or_root_has_them() {
        let env = |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let first = |command, pairs: &[(&str, &str)], user| call(command).unwrap().tool.caches[0].folder(&env(pairs), user);
        let go = "go mod download";
        assert_eq!(first(go, &[("GOPATH", "/go/")], ""), Some("/go/pkg/mod".to_owned()));
        assert_eq!(first(go, &[], "root"), Some("/root/go/pkg/mod".to_owned()));
        assert_eq!(first(go, &[("HOME", "/home/me/")], "0"), Some("/home/me/go/pkg/mod".to_owned()));
        assert_eq!(first(go, &[], "app"), None, "whose home is not known");
        assert_eq!(first(go, &[("GOMODCACHE", "cache")], ""), None, "in which directory, only the command knows");
        let pip = call("pip install --no-cache-dir x").unwrap();
        assert_eq!(pip.keeps_none(), Some("--no-cache-dir"));
    }
}
