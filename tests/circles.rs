//! Checks that no two files of `src` import each other, directly or through other files.
//!
//! An import is the use of an item that another file defines. A `pub use` counts as an import of the defining file.

#![allow(clippy::unwrap_used)]

mod source;

use std::collections::{BTreeMap, BTreeSet};

use source::files;

/// A module's path from the crate's root.
type Module = Vec<String>;

/// A file as a module.
#[derive(Default)]
struct Parsed {
    /// What it names by a path, from the crate's root.
    named: BTreeSet<Module>,
    /// What it gives out of other modules, by its name here.
    given: BTreeMap<String, Module>,
    /// Its modules.
    modules: BTreeSet<String>,
}

#[test]
fn no_files_import_each_other() {
    let all: BTreeMap<Module, Parsed> = files(&["src"])
        .into_iter()
        .filter(|file| !file.path.ends_with("tests.rs") && !file.path.contains("/tests/") && file.path != "src/main.rs")
        .map(|file| {
            let module = module_of(&file.path);
            let parsed = parsed(&module, &file.code());
            (module, parsed)
        })
        .collect();
    let imports: BTreeMap<&Module, BTreeSet<Module>> = all
        .iter()
        .map(|(module, parsed)| {
            let defined = parsed.named.iter().filter_map(|name| defined_in(&all, name, 0));
            (module, defined.filter(|other| other != module && !other.is_empty()).collect())
        })
        .collect();
    let circles: Vec<String> = imports
        .keys()
        .filter(|module| reaches(&imports, module))
        .map(|module| {
            let others = imports[*module].iter().filter(|other| leads(&imports, other, module));
            format!("{} -> {}", module.join("::"), others.map(|other| other.join("::")).collect::<Vec<_>>().join(", "))
        })
        .collect();
    assert!(circles.is_empty(), "files that import each other:\n{}", circles.join("\n"));
}

#[test]
fn a_circle_is_found() {
    let module = |text: &str| text.split("::").map(str::to_owned).collect::<Module>();
    let parse = |name: &str, code: &str| (module(name), parsed(&module(name), code));
    let all = BTreeMap::from([
        parse("a", "mod x;\nmod y;\npub use x::{First, Second as Other};"),
        parse("a::x", "use super::y::Third;\npub(in crate::a) struct First;"),
        parse("a::y", "fn f(_: &super::First) { crate::b::g() }"),
        parse("b", "use std::fmt;\nfn g() {}\n#[cfg(test)]\nmod tests {\n    use crate::a::First;\n}"),
    ]);
    let of = |name: &str| {
        let named = all[&module(name)].named.iter();
        named.filter_map(|name| defined_in(&all, name, 0)).map(|found| found.join("::")).collect::<BTreeSet<_>>()
    };
    assert_eq!(of("a::x"), BTreeSet::from(["a::y".to_owned()]));
    assert_eq!(of("a::y"), BTreeSet::from(["a::x".to_owned(), "b".to_owned()]));
    assert!(of("a").is_empty() && of("b").is_empty());
}

/// Whether a module leads back to itself.
fn reaches(imports: &BTreeMap<&Module, BTreeSet<Module>>, from: &Module) -> bool {
    imports[from].iter().any(|next| leads(imports, next, from))
}

fn leads(imports: &BTreeMap<&Module, BTreeSet<Module>>, from: &Module, to: &Module) -> bool {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        if module == to {
            return true;
        }
        if seen.insert(module) {
            open.extend(imports.get(module).into_iter().flatten());
        }
    }
    false
}

/// The file that defines what a path names. `None` if it is of another crate.
fn defined_in(all: &BTreeMap<Module, Parsed>, path: &[String], depth: usize) -> Option<Module> {
    let length = (0..=path.len()).rev().find(|length| all.contains_key(&path[..*length]))?;
    let module = &path[..length];
    let given = path.get(length).and_then(|name| all[module].given.get(name)).filter(|_| depth < 8);
    match given {
        Some(from) => defined_in(all, &[from, &path[length + 1..]].concat(), depth + 1),
        None => Some(module.to_vec()),
    }
}

/// `["a", "b"]` of `src/a/b.rs` and of `src/a/b/mod.rs`.
fn module_of(path: &str) -> Module {
    let inside = path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
    if inside == "lib" { Vec::new() } else { inside.split('/').map(str::to_owned).collect() }
}

fn parsed(module: &Module, code: &str) -> Parsed {
    let code = code.split("\n#[cfg(test)]\nmod tests {").next().unwrap();
    let mut code = without_strings(code);
    let mut out = Parsed::default();
    for line in code.lines() {
        let words: Vec<&str> = line.trim().trim_start_matches("pub").trim_start_matches("(super)").split_whitespace().collect();
        if let ["mod", name] = words[..] {
            out.modules.insert(name.trim_end_matches(';').to_owned());
        }
    }
    // `pub(in a::b)` imports nothing.
    while let Some(at) = code.find("(in ") {
        let end = at + code[at..].find(')').unwrap();
        code.replace_range(at..=end, "");
    }
    let mut rest = String::new();
    let mut statement: Option<String> = None;
    for line in code.lines() {
        let trimmed = line.trim_start();
        let start = ["use ", "pub use ", "pub(super) use ", "pub(crate) use "].iter().find(|start| trimmed.starts_with(**start));
        if statement.is_none() && start.is_none() {
            rest.push_str(line);
            rest.push('\n');
            continue;
        }
        let statement_text = statement.get_or_insert_with(String::new);
        statement_text.push_str(trimmed);
        if !trimmed.ends_with(';') {
            continue;
        }
        let text = statement.take().unwrap();
        let (visible, tree) = text.trim_end_matches(';').split_once("use ").unwrap();
        for (path, name) in leaves(tree, &[]) {
            let Some(path) = absolute(module, &path, &out.modules) else { continue };
            if visible.is_empty() {
                out.named.insert(path);
            } else {
                out.given.insert(name, path);
            }
        }
    }
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in rest.match_indices(start) {
            if !rest[..at].ends_with(|last: char| last.is_alphanumeric() || last == '_' || last == ':') {
                let end = rest[at..].find(|next: char| !(next.is_alphanumeric() || next == '_' || next == ':'));
                let path: Module = rest[at..end.map_or(rest.len(), |end| at + end)].split("::").map(str::to_owned).collect();
                out.named.extend(absolute(module, &path, &out.modules));
            }
        }
    }
    out
}

/// A path from the crate's root. `None` if it begins with another crate.
fn absolute(module: &Module, path: &[String], modules: &BTreeSet<String>) -> Option<Module> {
    let mut base = module.clone();
    let mut path = path.to_vec();
    match &*path[0] {
        "crate" => return Some(path.split_off(1)),
        "self" => path = path.split_off(1),
        "super" => {
            while path.first().is_some_and(|first| first == "super") {
                base.pop();
                path.remove(0);
            }
        }
        first if modules.contains(first) => {}
        _ => return None,
    }
    base.extend(path);
    Some(base)
}

/// The paths of a tree of `use`, each with the name that it has from then on.
fn leaves(tree: &str, before: &[String]) -> Vec<(Module, String)> {
    let tree = tree.trim();
    if let Some((start, group)) = tree.split_once('{') {
        let words = start.trim_end_matches("::").split("::").filter(|word| !word.is_empty()).map(str::to_owned);
        let before: Module = before.iter().cloned().chain(words).collect();
        let group = group.trim_end().strip_suffix('}').unwrap();
        let (mut depth, mut from, mut out) = (0, 0, Vec::new());
        for (at, character) in group.char_indices().chain([(group.len(), ',')]) {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    if !group[from..at].trim().is_empty() {
                        out.extend(leaves(&group[from..at], &before));
                    }
                    from = at + 1;
                }
                _ => {}
            }
        }
        return out;
    }
    let (path, name) = tree.split_once(" as ").map_or((tree, None), |(path, name)| (path, Some(name)));
    let path: Module = before.iter().cloned().chain(path.split("::").map(str::to_owned)).filter(|word| word != "self").collect();
    let name = name.map(str::to_owned).or_else(|| path.last().cloned()).unwrap_or_default();
    vec![(path, name)]
}

/// The code without what is in string literals.
fn without_strings(code: &str) -> String {
    let mut out = String::with_capacity(code.len());
    let mut characters = code.chars().peekable();
    let mut previous = ' ';
    while let Some(character) = characters.next() {
        if character == '"' && previous != '\'' {
            while let Some(inside) = characters.next() {
                match inside {
                    '\\' => drop(characters.next()),
                    '"' => break,
                    _ => {}
                }
            }
        } else {
            out.push(character);
        }
        previous = character;
    }
    out
}
