//! The scripted daemon's frontend: parses a few instructions of a Dockerfile.

/// An instruction, with its line.
#[derive(Debug, Clone)]
pub struct Line {
    pub number: i32,
    pub text: String,
    pub instruction: Instruction,
}

#[derive(Debug, Clone)]
pub enum Instruction {
    Copy { from: Option<String>, mode: i32, sources: Vec<String>, target: String },
    Run(String),
    Env(String, String),
    Label(String, String),
    Cmd(String),
}

impl Instruction {
    /// Returns whether it makes a layer.
    pub fn makes_layer(&self) -> bool {
        matches!(self, Self::Copy { .. } | Self::Run(_))
    }
}

/// A stage.
#[derive(Debug, Clone)]
pub struct Stage {
    /// The line of its `FROM`.
    pub number: i32,
    /// An image, `scratch`, or another stage.
    pub base: String,
    pub name: Option<String>,
    pub lines: Vec<Line>,
}

/// Parses a Dockerfile.
///
/// # Errors
/// If an instruction is invalid. The text is like the frontend's.
pub fn parse(text: &str) -> Result<Vec<Stage>, String> {
    let mut stages: Vec<Stage> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let number = i32::try_from(number).unwrap_or(i32::MAX) + 1;
        let text = line.trim().to_owned();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let (word, rest) = text.split_once(' ').unwrap_or((&text, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        let wrong = |why: &str| format!("dockerfile parse error on line {number}: {why}");
        if word == "FROM" {
            let name = match &words[..] {
                [_, "AS", name] => Some((*name).to_owned()),
                [_] => None,
                _ => return Err(wrong("FROM requires either one or three arguments")),
            };
            stages.push(Stage { number, base: words[0].to_owned(), name, lines: Vec::new() });
            continue;
        }
        let pair = |text: &str| {
            let (name, value) = text.split_once('=').ok_or_else(|| wrong("a name and a value"))?;
            Ok::<_, String>((name.to_owned(), value.to_owned()))
        };
        let instruction = match word {
            "COPY" => copied(&words).ok_or_else(|| wrong("COPY requires at least two arguments"))?,
            "RUN" => Instruction::Run(rest.trim().to_owned()),
            "ENV" => pair(rest.trim()).map(|(name, value)| Instruction::Env(name, value))?,
            "LABEL" => pair(rest.trim()).map(|(name, value)| Instruction::Label(name, value))?,
            "CMD" => Instruction::Cmd(rest.trim().to_owned()),
            _ => return Err(wrong(&format!("unknown instruction: {word}"))),
        };
        let stage = stages.last_mut().ok_or_else(|| "no build stage in current context".to_owned())?;
        stage.lines.push(Line { number, text, instruction });
    }
    if stages.is_empty() { Err("the Dockerfile cannot be empty".to_owned()) } else { Ok(stages) }
}

fn copied(words: &[&str]) -> Option<Instruction> {
    let (mut from, mut mode) = (None, -1);
    let mut rest = words;
    while let [first, more @ ..] = rest
        && let Some(flag) = first.strip_prefix("--")
    {
        match flag.split_once('=')? {
            ("from", name) => from = Some(name.to_owned()),
            ("chmod", bits) => mode = i32::from_str_radix(bits, 8).ok()?,
            _ => return None,
        }
        rest = more;
    }
    let (target, sources) = rest.split_last().filter(|(_, sources)| !sources.is_empty())?;
    let sources = sources.iter().map(|source| (*source).to_owned()).collect();
    Some(Instruction::Copy { from, mode, sources, target: (*target).to_owned() })
}
