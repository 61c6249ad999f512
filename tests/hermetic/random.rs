//! Tests random projects with random edits between builds: each image equals the one that the model builds without hakobi.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::prelude::*;
use proptest::sample::select;

use crate::scripted::daemon::StoreKind;
use crate::world::World;

/// The default number of random cases. PROPTEST_CASES overrides it.
const CASES: u32 = 24;

#[derive(Debug, Clone)]
enum Line {
    /// The whole source directory.
    Folder(&'static str),
    File(&'static str),
    WithMode(u32),
    /// The output of another stage, counted backwards from this one.
    OfStage(usize, &'static str, &'static str),
    Sum(u8),
    Compile(&'static str),
    Written(u8),
    Removed(u8),
    Variable(u8, u8),
    Label(u8),
}

#[derive(Debug, Clone)]
struct Project {
    stages: Vec<Vec<Line>>,
    /// Whether the last stage is `FROM scratch`.
    on_nothing: bool,
    files: BTreeMap<&'static str, String>,
}

#[derive(Debug, Clone)]
enum Edit {
    Nothing,
    File(&'static str, u8),
    /// A comment, which `compile` ignores.
    Comment(&'static str, u8),
    NewLine(usize, usize, Line),
    LessLine(usize, usize),
}

const FILES: [&str; 3] = ["src/a", "src/b/c", "top"];

impl Project {
    fn dockerfile(&self) -> String {
        let mut text = String::new();
        for (place, lines) in self.stages.iter().enumerate() {
            let is_last = place + 1 == self.stages.len();
            let base = if is_last && self.on_nothing { "scratch" } else { "BASE" };
            writeln!(text, "FROM {base} AS s{place}\nRUN write /out/here stage {place}").unwrap();
            for line in lines {
                let _ = match line {
                    Line::Folder(target) => writeln!(text, "COPY src {target}"),
                    Line::File(target) => writeln!(text, "COPY top {target}"),
                    Line::WithMode(mode) => writeln!(text, "COPY --chmod={mode:o} src/a /modes/"),
                    Line::OfStage(back, source, target) => match place.checked_sub(back + 1) {
                        Some(other) => writeln!(text, "COPY --from=s{other} {source} {target}"),
                        None => Ok(()),
                    },
                    Line::Sum(number) => writeln!(text, "RUN sum /out/sum{number}"),
                    Line::Compile(out) => writeln!(text, "RUN compile /app {out}"),
                    Line::Written(number) => writeln!(text, "RUN write /out/w{number} text"),
                    Line::Removed(number) => writeln!(text, "RUN remove /out/w{number}"),
                    Line::Variable(name, value) => writeln!(text, "ENV V{name}={value}"),
                    Line::Label(value) => writeln!(text, "LABEL l={value}"),
                };
            }
        }
        text
    }

    fn edit(&mut self, edit: &Edit) {
        let count = self.stages.len();
        match edit {
            Edit::Nothing => {}
            Edit::File(name, content) => drop(self.files.insert(name, format!("{content}\n"))),
            Edit::Comment(name, text) => self.files.entry(name).or_default().push_str(&format!("# {text}\n")),
            Edit::NewLine(stage, place, line) => {
                let lines = &mut self.stages[stage % count];
                lines.insert(place % (lines.len() + 1), line.clone());
            }
            Edit::LessLine(stage, place) => {
                let lines = &mut self.stages[stage % count];
                if !lines.is_empty() {
                    lines.remove(place % lines.len());
                }
            }
        }
    }

    fn put(&self, world: &World) {
        world.put_dockerfile(&self.dockerfile());
        for (name, content) in &self.files {
            world.write(name, content);
        }
    }
}

fn line() -> impl Strategy<Value = Line> {
    let target = || select(vec!["/app/", "/app/deep/er", "/app/x", "/t/"]);
    prop_oneof![
        3 => target().prop_map(Line::Folder),
        3 => select(vec!["/app/top", "/t/", "/new/top"]).prop_map(Line::File),
        1 => select(vec![0o600, 0o755]).prop_map(Line::WithMode),
        4 => (0_usize..2, select(vec!["/out", "/out/here"]), select(vec!["/app/", "/from/"]))
            .prop_map(|(back, source, target)| Line::OfStage(back, source, target)),
        2 => (0_u8..3).prop_map(Line::Sum),
        2 => select(vec!["/out/app", "/app/compiled"]).prop_map(Line::Compile),
        1 => (0_u8..2).prop_map(Line::Written),
        1 => (0_u8..2).prop_map(Line::Removed),
        1 => (0_u8..2, 0_u8..3).prop_map(|(name, value)| Line::Variable(name, value)),
        1 => (0_u8..3).prop_map(Line::Label),
    ]
}

fn edit() -> impl Strategy<Value = Edit> {
    prop_oneof![
        1 => Just(Edit::Nothing),
        4 => (select(FILES.to_vec()), any::<u8>()).prop_map(|(name, content)| Edit::File(name, content)),
        2 => (select(FILES.to_vec()), any::<u8>()).prop_map(|(name, text)| Edit::Comment(name, text)),
        2 => (0_usize..3, 0_usize..4, line()).prop_map(|(stage, place, line)| Edit::NewLine(stage, place, line)),
        1 => (0_usize..3, 0_usize..4).prop_map(|(stage, place)| Edit::LessLine(stage, place)),
    ]
}

fn project() -> impl Strategy<Value = Project> {
    let stages = prop::collection::vec(prop::collection::vec(line(), 0..4), 1..4);
    (stages, prop::bool::weighted(0.2)).prop_map(|(stages, on_nothing)| {
        let files = FILES.map(|name| (name, format!("first {name}\n"))).into();
        Project { stages, on_nothing, files }
    })
}

/// Each edit, and whether the daemon is new before the next build.
fn edits() -> impl Strategy<Value = Vec<(Edit, bool)>> {
    prop::collection::vec((edit(), prop::bool::weighted(0.8)), 1..4)
}

#[test]
fn every_image_is_the_one_that_a_plain_build_makes() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let config = ProptestConfig { cases, max_shrink_iters: 100, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(mut project in project(), edits in edits(), overlay in any::<bool>())| {
        let store = if overlay { StoreKind::GraphDriver } else { StoreKind::Containerd };
        let world = World::on(store, "");
        project.put(&world);
        world.build(&[]);
        for (edit, is_new) in edits {
            project.edit(&edit);
            project.put(&world);
            if is_new {
                world.wiped();
            }
            let built = world.build(&[]);
            prop_assert_eq!(built.warnings(), Vec::<String>::new(), "{}", built.stderr);
        }
        let same = world.wiped().build(&[]);
        prop_assert_eq!(same.tier(), "unchanged", "{}", same.stderr);
    });
}
