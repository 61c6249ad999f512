//! The program's start: settings, runtime, display, signals, exit code.

// The future of a build contains the futures of all its stages.
#![recursion_limit = "256"]

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::process::ExitCode;
use std::time::Duration;

use hakobi::cli::{self, Outcome, OwnProcess};
use hakobi::error::{Error, Kind, Result};
use hakobi::event::Events;
use hakobi::hidden::Hidden;
use hakobi::output::{self, Location, RunReport, Shown, Timeline};
use hakobi::registry::{self, Registries};
use hakobi::settings::{BuildSettings, Command, LoginSettings, ProgressMode, Settings};
use hakobi::{commands, push, shutdown};
use tokio::signal::unix::{SignalKind, signal};

/// The time limit at the end of the process to remove names in the daemon and to abort uploads.
const CLEAN_UP: Duration = Duration::from_secs(4);

fn main() -> ExitCode {
    // These may run without an environment, a home or any other file.
    if let Some(process) = cli::own_process() {
        return own_process(&process);
    }
    let settings = match cli::settings() {
        Ok(settings) => settings,
        Err(Outcome::Shown { text, exit_code }) => {
            if exit_code == 0 {
                let _ = output::to_stdout(&text);
            } else {
                output::to_stderr(&text);
            }
            return ExitCode::from(exit_code);
        }
        Err(Outcome::Failed(error)) => {
            output::to_stderr(&output::error(&error, false));
            return ExitCode::from(error.kind().exit_code());
        }
    };
    registry::install_crypto();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            output::to_stderr(&output::error(&Error::usage("failed to start threads").because(&error), false));
            return ExitCode::from(Kind::Usage.exit_code());
        }
    };
    let code = runtime.block_on(run(settings));
    // A read of standard input cannot be cancelled, and must not delay the end.
    runtime.shutdown_background();
    ExitCode::from(code)
}

fn own_process(process: &OwnProcess) -> ExitCode {
    // The standard library's own streams have buffers, of lines even.
    let streams = (io::stdin().as_fd().try_clone_to_owned(), io::stdout().as_fd().try_clone_to_owned());
    let (Ok(input), Ok(output)) = streams else { return ExitCode::FAILURE };
    ExitCode::from(commands::own_process(process, File::from(input), File::from(output)))
}

async fn run(settings: Settings) -> u8 {
    let (events, receiver) = Events::channel();
    let display = output::spawn(receiver, settings.progress, settings.color);
    for warning in &settings.warnings {
        events.warning(warning.clone());
    }
    let result = tokio::select! {
        result = checked(&settings, &events) => result,
        signal = interrupted() => Err(Error::new(Kind::Interrupted(signal), "interrupted")),
    };
    // A failed run leaves uploads unfinished, like an interrupted one.
    if result.is_err() {
        shutdown::begin();
    }
    shutdown::finished(CLEAN_UP).await;
    let hidden = events.hidden().clone();
    drop(events);
    let shown = display.finish().await;
    match result.map_err(|error| error.without(&hidden)) {
        Ok(done) => done.tell(&settings, &shown, &hidden),
        Err(error) if matches!(settings.command, Command::Login(LoginSettings::Helper(_))) => {
            // By the protocol of docker-credential-helpers, the message of a failure is on standard output, and the exit code is 1.
            let all: Vec<&str> = std::iter::once(error.message()).chain(error.causes().iter().map(|cause| &**cause)).collect();
            let _ = output::to_stdout(&(all.join(": ") + "\n"));
            1
        }
        Err(error) => {
            let mut report = RunReport { version: env!("CARGO_PKG_VERSION").to_owned(), ..RunReport::default() };
            report.steps = shown.steps.reports(None, &HashMap::new());
            report.tier = shown.steps.tier();
            report.seconds.total = shown.timeline.seconds();
            // The error of the run matters more than one of the files.
            let _ = write_files(&settings, &report, &shown.timeline, Some(&error));
            // A closed standard output must not hide the error.
            let _ = error.answer_text().map(|text| output::to_stdout(&output::answer(text)));
            output::to_stderr(&output::error(&error, settings.color));
            error.kind().exit_code()
        }
    }
}

/// Waits for SIGINT or SIGTERM. A second signal ends the process at once.
async fn interrupted() -> u8 {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) else {
        return std::future::pending().await;
    };
    let number = tokio::select! { _ = interrupt.recv() => 2, _ = terminate.recv() => 15 };
    tokio::spawn(async move {
        tokio::select! { _ = interrupt.recv() => (), _ = terminate.recv() => () }
        std::process::exit(128 + i32::from(number));
    });
    number
}

/// The results of a command, to print after the display ended.
#[derive(Default)]
struct Done {
    built: commands::Built,
    text: Option<String>,
}

impl Done {
    fn new(report: RunReport) -> Self {
        Self { built: commands::Built { report, ..commands::Built::default() }, text: None }
    }

    fn tell(mut self, settings: &Settings, shown: &Shown, hidden: &Hidden) -> u8 {
        let report = &mut self.built.report;
        if matches!(settings.command, Command::Build(_)) {
            let places = self.built.places.into_iter();
            let locations = places
                .map(|(digest, place)| (digest, Location { file: place.file, line: u32::try_from(place.line).unwrap_or(0) }));
            report.steps = shown.steps.reports(Some(&locations.collect()), &self.built.notes);
            let tier = self.built.tier.unwrap_or_else(|| shown.steps.tier());
            for image in &mut report.images {
                image.tier = tier;
            }
            report.tier = tier;
        }
        report.hide(hidden);
        if let Err(error) = write_files(settings, report, &shown.timeline, None) {
            output::to_stderr(&output::error(&error, settings.color));
            return error.kind().exit_code();
        }
        if !matches!(settings.progress, ProgressMode::Quiet) && !matches!(report.outcome, output::Outcome::Failure) {
            output::print_summary(report, settings.progress);
        }
        // Scripts for shells, a credential helper's answer and created files must stay verbatim.
        let is_answer = !matches!(settings.command, Command::Print(_) | Command::Login(_) | Command::Init(_));
        let text = self.text.or(self.built.text);
        if let Some(text) = text.map(|text| if is_answer { output::answer(&hidden.text(&text)) } else { text })
            && output::to_stdout(&text).is_err()
        {
            return Kind::Usage.exit_code();
        }
        self.built.exit_code
    }
}

/// Writes all files that report the run. If one fails, it still writes the others, and returns the first error.
fn write_files(settings: &Settings, report: &RunReport, timeline: &Timeline, error: Option<&Error>) -> Result<()> {
    let mut written = Ok(());
    if let Some(files) = settings.command.files() {
        written = files.report.as_ref().map_or(Ok(()), |path| report.write(path));
        if let Some(path) = &files.timeline {
            let error = error.map(|error| output::error(error, false));
            written = written.and(timeline.write(path, report, error.as_deref()));
        }
    }
    match &settings.command {
        Command::Build(build) => written.and(summarize(build, report)),
        _ => written,
    }
}

/// Writes the run as Markdown to the requested file, and to the CI's summary page.
fn summarize(build: &BuildSettings, report: &RunReport) -> Result<()> {
    let text = output::markdown(report);
    if let Some(path) = &build.hand_off.summary {
        output::write_summary(path, &text)?;
    }
    // The user did not ask for this file, so a failure is only a warning.
    if let Some(Err(error)) = build.hand_off.github_summary.as_ref().map(|path| output::add(path, &text)) {
        output::to_stderr(&output::warning(&format!("the step has no summary: {}", error.message()), false));
    }
    Ok(())
}

/// Runs the command, after a check that the files that report it can be written.
async fn checked(settings: &Settings, events: &Events) -> Result<Done> {
    if let Some(log) = &settings.log {
        output::show_debug(log, events)?;
    }
    let files = settings.command.files();
    let all = files.into_iter().flat_map(|files| [&files.report, &files.timeline]).flatten();
    output::can_write(all.map(|path| &**path))?;
    command(settings, events).await
}

async fn command(settings: &Settings, events: &Events) -> Result<Done> {
    match &settings.command {
        Command::Build(build) => {
            let built = Box::pin(commands::build(settings, build, events, tokio::io::stdin())).await?;
            Ok(Done { built, text: None })
        }
        Command::Plan { build, json } => {
            let plan = commands::plan(settings, build, *json, events, tokio::io::stdin());
            let commands::Answer { text, exit_code } = Box::pin(plan).await?;
            let built = commands::Built { exit_code, ..commands::Built::default() };
            Ok(Done { built, text: Some(text) })
        }
        Command::Push { images, settings: push, .. } => {
            let report = Box::pin(commands::push(settings, images, push, events)).await?;
            Ok(Done::new(report))
        }
        Command::Promote { source, targets, settings: push } => {
            let registries = Registries::new(&settings.registries, events.clone());
            let text = Box::pin(commands::promote(&registries, source, targets, push, events)).await?;
            Ok(Done { text: Some(text), ..Done::default() })
        }
        Command::History(image) => {
            let registries = Registries::new(&settings.registries, events.clone());
            Ok(Done { text: Some(Box::pin(commands::history(&registries, image)).await?), ..Done::default() })
        }
        Command::Save { images, cache, compression, .. } => {
            let report = Box::pin(commands::save(settings, images, cache, *compression, events)).await?;
            Ok(Done::new(report))
        }
        Command::Restore { images, cache, .. } => {
            Ok(Done::new(Box::pin(commands::restore(settings, images, cache, events)).await?))
        }
        Command::Import { from, name, cache, compression } => {
            let report = commands::import(settings, from, name.as_ref(), cache, *compression, events);
            Ok(Done::new(Box::pin(report).await?))
        }
        Command::Export { image, file, cache } => {
            Ok(Done::new(Box::pin(commands::export(settings, image, file.as_deref(), cache, events)).await?))
        }
        Command::Cache { command, cache } => {
            let commands::Answer { text, exit_code } =
                Box::pin(commands::cache(command.clone(), cache, &settings.registries, events)).await?;
            let built = commands::Built { exit_code, ..commands::Built::default() };
            Ok(Done { built, text: Some(text) })
        }
        Command::Doctor(doctor) => {
            let commands::Answer { text, exit_code } = Box::pin(commands::doctor(settings, doctor, events)).await?;
            let built = commands::Built { exit_code, ..commands::Built::default() };
            Ok(Done { built, text: Some(text) })
        }
        Command::Init(init) => Ok(Done { text: Some(commands::init(init)?), ..Done::default() }),
        Command::Login(login) => {
            let registries = Registries::new(&settings.registries, events.clone());
            Ok(Done { text: Some(Box::pin(self::login(&registries, login, settings)).await?), ..Done::default() })
        }
        Command::Print(text) => Ok(Done { text: Some(text.clone()), ..Done::default() }),
    }
}

async fn login(registries: &Registries, login: &LoginSettings, settings: &Settings) -> Result<String> {
    match login {
        LoginSettings::Check(host) => match push::login::check(registries, host).await? {
            Some(found) => Ok(format!("{host} accepts the credentials from {}\n", found.origin)),
            None => Err(Error::push(format!("found no credentials for {host}")).hint(format!(
                "store credentials with `docker login {host}`; for ECR, hakobi uses the AWS credentials of this machine"
            ))),
        },
        LoginSettings::Write(host) => {
            let folder = settings.registries.docker_config.as_ref().ok_or_else(|| {
                Error::usage("cannot determine the directory of Docker's config.json").hint("set HOME or DOCKER_CONFIG")
            })?;
            let path = push::login::write(registries, host, folder).await?;
            Ok(format!("wrote the credentials for {host} to {}\n", path.display()))
        }
        LoginSettings::Helper(server) => push::login::helper(registries, server).await,
    }
}
