//! Parses the names that BuildKit gives to the steps of a Dockerfile: `[linux/arm64 build 2/5] COPY . /app`.

/// The parsed name of a Dockerfile's step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StepName {
    /// The platform. Empty unless the build has several.
    pub platform: String,
    /// The stage. BuildKit omits it if the Dockerfile has only one stage; it is then `stage-0`.
    pub stage: String,
    /// The number in the stage, from 1.
    pub number: u32,
    /// The instruction, in one line.
    pub instruction: String,
}

impl StepName {
    /// Parses a name. Returns `None` for all other vertexes: `[internal] …`, `[auth] …`, `exporting …` and hakobi's own steps.
    pub fn parse(name: &str) -> Option<Self> {
        let (bracket, instruction) = name.strip_prefix('[')?.split_once("] ")?;
        let words: Vec<&str> = bracket.split_whitespace().collect();
        let (position, before) = words.split_last()?;
        let (number, count) = position.split_once('/')?;
        let number = number.parse().ok()?;
        count.parse::<u32>().ok()?;
        let (platform, stage) = match before {
            [] => ("", "stage-0"),
            [word] if word.contains('/') => (*word, "stage-0"),
            [word] => ("", *word),
            [platform, stage] => (*platform, *stage),
            _ => return None,
        };
        Some(Self {
            platform: platform.to_owned(),
            stage: stage.to_owned(),
            number,
            instruction: super::text::title(instruction),
        })
    }

    /// Returns whether the step is a stage's base image, which runs nothing.
    pub fn is_base(&self) -> bool {
        self.instruction.get(..5).is_some_and(|word| word.eq_ignore_ascii_case("FROM "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str) -> Option<(String, String, u32, String)> {
        StepName::parse(name).map(|n| (n.platform, n.stage, n.number, n.instruction))
    }

    fn step(platform: &str, stage: &str, number: u32, instruction: &str) -> Option<(String, String, u32, String)> {
        Some((platform.into(), stage.into(), number, instruction.into()))
    }

    #[test]
    fn steps() {
        assert_eq!(parse("[2/5] RUN x [y] z"), step("", "stage-0", 2, "RUN x [y] z"));
        assert_eq!(parse("[build 3/5] RUN make"), step("", "build", 3, "RUN make"));
        assert_eq!(parse("[build  3/12] RUN <<EOF\na\nEOF"), step("", "build", 3, "RUN <<EOF …"));
        assert_eq!(parse("[linux/amd64 build 2/5] COPY a b"), step("linux/amd64", "build", 2, "COPY a b"));
        assert_eq!(parse("[linux/arm/v7 2/5] COPY a b"), step("linux/arm/v7", "stage-0", 2, "COPY a b"));
        assert!(StepName::parse("[1/5] FROM docker.io/library/alpine").is_some_and(|name| name.is_base()));
    }

    #[test]
    fn all_else() {
        for name in [
            "[internal] load build context",
            "[auth] library/alpine:pull token for registry-1.docker.io",
            "[context app] load from client",
            "exporting to image",
            "pushing layers",
            "docker-image://docker.io/docker/dockerfile:1",
            "[a b c 1/2] RUN",
            "",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }
}
