//! Checks README.md and the other documents: they are short, their links work, and their commands, pipeline and figures are real.

#![allow(clippy::unwrap_used)]

mod source;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use saphyr::{LoadableYamlNode, Yaml};

use source::root;

/// Every document that a reader may open, from the project's root.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["", "docs", "buildspec-examples", "benches"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

/// The text of the first fenced block of this language below a heading.
fn block(text: &str, heading: &str, language: &str) -> String {
    let below = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no `{heading}`")).1;
    let begin = below.split_once(&format!("```{language}\n")).unwrap().1;
    begin.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_readme_is_read_in_one_sitting() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 150, "README.md has {lines} lines: at most 150, the rest goes to docs");
}

/// The table of faults names tests: `FILE::function` or `FILE::{function, function}`, with modules between them.
#[test]
fn every_fault_has_tests_that_exist() {
    let text = read("docs/faults.md");
    let (mut named, mut missing) = (0, Vec::new());
    for quoted in text.split('`').skip(1).step_by(2) {
        let Some((file, path)) = quoted.split_once(".rs::") else { continue };
        let names = path.rsplit_once('{').map_or(path.rsplit("::").next().unwrap(), |(_, names)| names.trim_end_matches('}'));
        let code = fs::read_to_string(root().join(format!("{file}.rs"))).unwrap_or_default();
        for name in names.split(", ") {
            named += 1;
            if !code.contains(&format!("fn {name}(")) {
                missing.push(format!("{file}.rs::{name}"));
            }
        }
    }
    assert!(named > 100 && missing.is_empty(), "{named} tests, of which there are not: {missing:#?}");
}

#[test]
fn every_link_leads_to_a_file() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for target in text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target) {
            let (file, heading) = target.split_once('#').map_or((target, None), |(file, heading)| (file, Some(heading)));
            if file.contains("://") {
                continue;
            }
            let path = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            if !path.exists() || heading.is_some_and(|heading| !headings(&path).iter().any(|known| known == heading)) {
                broken.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

/// The anchors of a document's headings, as GitHub makes them.
fn headings(document: &Path) -> Vec<String> {
    let text = fs::read_to_string(document).unwrap();
    let titles = text.lines().filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
    titles.map(|title| title.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-")).collect()
}

#[test]
fn every_document_of_docs_is_in_its_index() {
    let index = read("docs/README.md");
    for document in documents().iter().filter(|path| path.parent().unwrap().ends_with("docs")) {
        let name = document.file_name().unwrap().to_str().unwrap();
        assert!(name == "README.md" || index.contains(&format!("]({name})")), "docs/README.md does not link {name}");
    }
}

/// What stands as code in a document and is a call of hakobi: in backticks, or on a line of a block.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_block = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if in_block {
            found.extend(line.find("hakobi ").map(|at| line[at..].split(" #").next().unwrap().to_owned()));
        } else {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found.retain(|code| code.starts_with("hakobi "));
    found
}

#[test]
fn every_option_in_a_command_is_one_of_hakobi() {
    let mut helps = HashMap::new();
    let mut unknown = Vec::new();
    for document in documents() {
        for call in commands(&fs::read_to_string(&document).unwrap()) {
            let mut words = call.split([' ', '\'', '"']).skip(1).filter(|word| !word.is_empty());
            let mut name = words.next().unwrap_or_default().trim_end_matches(',').to_owned();
            // A placeholder, or prose in an example's output.
            if name.is_empty() || !name.chars().all(|letter| letter.is_ascii_lowercase()) {
                continue;
            }
            if name == "cache" {
                name = format!("cache {}", words.next().filter(|word| *word != "…").unwrap_or("ls"));
            }
            let help: &String = helps.entry(name.clone()).or_insert_with(|| {
                let output = Command::new(env!("CARGO_BIN_EXE_hakobi")).args(name.split(' ')).arg("--help").output().unwrap();
                if output.status.success() { String::from_utf8(output.stdout).unwrap() } else { String::new() }
            });
            let options = words.filter(|word| word.starts_with("--") && word.len() > 2);
            let options = options.map(|word| word.split(['=', '(', ')', ',', '$', '[']).next().unwrap());
            let wrong: Vec<_> = options.filter(|option| !help.split([' ', '[', '=', ',']).any(|word| word == *option)).collect();
            if help.is_empty() || !wrong.is_empty() {
                unknown.push(format!("{}: `{call}`: {}", document.display(), wrong.join(" ")));
            }
        }
    }
    assert!(helps.len() > 10, "commands were found: {helps:?}");
    assert!(unknown.is_empty(), "not in the help:\n{}", unknown.join("\n"));
}

#[test]
fn the_pipeline_is_whole_and_installs_hakobi() {
    let text = block(&read("README.md"), "## AWS CodeBuild", "yaml");
    assert!(text.lines().count() <= 10, "{text}");
    let documents = Yaml::load_from_str(&text).unwrap();
    let commands = |phase: &str| -> Vec<String> {
        let commands = documents[0]["phases"][phase]["commands"].as_sequence().unwrap().iter();
        commands.map(|command| command.as_str().unwrap().to_owned()).collect()
    };
    let [build] = &commands("build")[..] else { panic!("{text}") };
    assert!(build.starts_with("hakobi build ") && build.contains(" --push "), "{build}");
    let [fetch, check, unpack] = &commands("install")[..] else { panic!("{text}") };

    // An archive as release/run makes it, in the place where the first command puts it.
    let folder = tempfile::tempdir().unwrap();
    let name = fetch.split(['/', ' ']).find(|part| part.ends_with("-linux.tar.gz")).unwrap().trim_end_matches(".tar.gz");
    assert_eq!(name, format!("hakobi-{}-x86_64-linux", env!("CARGO_PKG_VERSION")));
    let archive = folder.path().join("hakobi.tar.gz");
    fs::create_dir_all(folder.path().join(name).join("completions")).unwrap();
    for file in ["hakobi", "completions/_hakobi"] {
        fs::write(folder.path().join(name).join(file), file).unwrap();
    }
    let run = |command: &str| {
        let status = Command::new("sh").args(["-ec", command]).current_dir(folder.path()).status().unwrap();
        assert!(status.success(), "{command}");
    };
    run(&format!("tar -czf hakobi.tar.gz {name} && mkdir bin"));
    let here = |command: &str| {
        let command = command.replace("/tmp/hakobi.tar.gz", archive.to_str().unwrap());
        command.replace("/usr/local/bin", folder.path().join("bin").to_str().unwrap())
    };
    run(&here(&check.replace("YOUR-SHA256", "$(sha256sum hakobi.tar.gz | cut -d' ' -f1)")));
    run(&here(unpack));
    let installed: Vec<_> = fs::read_dir(folder.path().join("bin")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(installed, ["hakobi"]);
}

#[test]
fn figures_and_chart_are_those_of_the_benchmark() {
    let peers = root().join("benches/peers");
    let run = |program: &str, arguments: &[&str]| {
        let output =
            Command::new(peers.join(program)).arg("../results.json").args(arguments).current_dir(&peers).output().unwrap();
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let table = run("table", &["--markdown"]);
    assert!(table.contains("hakobi, store in S3") && table.lines().count() > 5, "{table}");
    for file in ["README.md", "docs/comparison.md"] {
        assert!(read(file).contains(&table), "{file} has not the table of benches/results.json:\n{table}");
    }
    assert_eq!(run("chart", &[]), read("benches/results.svg"), "benches/peers/chart benches/results.json makes the chart");
}

/// Medians of a run, as the table and the chart read them.
#[test]
fn medians_are_of_each_peer_and_scenario() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results.tsv");
    let head = "engine\tproject\tscenario\tpeer\trun\tseconds\tpushed\tdown\tup\n";
    let row =
        |peer: &str, run: u32, seconds: &str| format!("c28\tcompiled\tcold\t{peer}\t{run}\t{seconds}\t8\t2000000\t1500000\n");
    let rows = [row("store", 1, "9.5"), row("buildx", 1, "20"), row("store", 2, "10.5"), row("store", 3, "100")];
    fs::write(&results, head.to_owned() + &rows.concat()).unwrap();
    let output = Command::new(root().join("benches/peers/medians"))
        .arg(&results)
        .args(["date=2026-01-31", "cores=2", "rate_mbit=1000", "runs=3"])
        .output()
        .unwrap();
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["date"], &told["runs"]), (&"2026-01-31".into(), &3.into()));
    let [store, buildx] = &told["results"].as_array().unwrap()[..] else { panic!("{told}") };
    assert_eq!((&store["peer"], &store["seconds"], &store["mb_up"]), (&"store".into(), &10.5.into(), &1.5.into()));
    assert_eq!((&buildx["peer"], &buildx["seconds"], &buildx["scenario"]), (&"buildx".into(), &20.0.into(), &"cold".into()));
}
