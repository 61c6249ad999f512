//! Tests the files for deployments and later steps, and the rollback of a release.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use serde_json::{Value, json};
use support::build::{Build, NO_DAEMON};
use support::engine::{C28, D28, Engine, crane};
use support::image::base;
use support::machine::{Machine, Run};
use support::parts::{part, unique};

const HAND_OFF: [&str; 14] = [
    "--image-definitions",
    "../imagedefinitions.json",
    "--container-name",
    "web",
    "--container-name",
    "worker",
    "--image-detail",
    "../imageDetail.json",
    "--image-env",
    "../image.env",
    "--summary",
    "../summary.md",
    "--timeline",
    "../timeline.html",
];

fn project(machine: &Machine) -> String {
    machine.write("Dockerfile", &format!("FROM {}\nRUN true\nCOPY src.txt /\n", base("busybox"))).write("src.txt", "one\n");
    format!("{}/{}", part("HAKOBI_TEST_REGISTRY_OPEN"), unique("hand-off"))
}

fn json(machine: &Machine, path: &str) -> Value {
    serde_json::from_str(&machine.read(path)).unwrap()
}

#[test]
fn deployments_get_the_digest() {
    let engine = Engine::fresh(D28);
    let machine = Machine::with(&engine.host());
    let image = project(&machine);
    let tag = format!("{image}:1");
    let build = Build::cached(&machine).push(&tag);
    let handed_off = build.clone().with(&HAND_OFF);
    for (text, tier) in [("one\n", "cold"), ("one\n", "unchanged"), ("two\n", "append")] {
        machine.write("src.txt", text);
        let built = handed_off.done_on_empty(&engine).is(tier);
        let uri = format!("{image}@{}", crane(&["digest", &tag]));
        let named = |name: &str| json!({ "name": name, "imageUri": uri });
        assert_eq!(json(&machine, "../imagedefinitions.json"), json!([named("web"), named("worker")]), "{tier}");
        assert_eq!(json(&machine, "../imageDetail.json"), json!({ "ImageURI": uri }), "{tier}");
        let shell = std::process::Command::new("sh")
            .args(["-c", ". ./image.env; printf '%s %s' \"$IMAGE_URI\" \"$IMAGE_TAG\""])
            .current_dir(machine.folder().join(".."))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&shell.stdout), format!("{uri} 1"), "{tier}");
        assert_eq!(built["ci"]["provider"], "local", "{tier}");
        let summary = machine.read("../summary.md");
        assert!(summary.starts_with("### ") && summary.contains("| total |"), "{summary}");
        // Against the first run, which is the one in which everything ran.
        let (is_first, cold) = (tier == "cold", &built["last_cold"]["seconds"]);
        assert_eq!((cold.is_null(), built.log().contains(" than its last cold build (")), (is_first, !is_first), "{built}");
        assert!(built.log().contains(&format!("s ({tier}): ")), "{built}");
        let page = machine.read("../timeline.html");
        assert!(page.contains(&tag) && page.contains("COPY src.txt /") && !page.contains("<script"), "{page}");
        assert_eq!(page.contains("than its last cold build"), !is_first, "{page}");
    }
    // Another image of the same job comes into the same file; a tag that is there already has its file too.
    std::fs::remove_file(machine.folder().join("../imageDetail.json")).unwrap();
    let skip =
        ["--if-tag-exists", "skip", "--image-definitions", "../imagedefinitions.json", "--image-detail", "../imageDetail.json"];
    build.with(&skip).run().exits(0);
    let names = json(&machine, "../imagedefinitions.json");
    let names: Vec<&str> = names.as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["web", "worker", image.rsplit('/').next().unwrap()]);
    assert!(machine.read("../imageDetail.json").contains("@sha256:"));
}

/// Several platforms have one tag, and an index stands for it: that is what goes on.
#[test]
fn several_platforms_are_handed_over_by_their_index() {
    let engine = Engine::fresh(C28);
    let machine = Machine::with(&engine.host());
    let image = format!("{}/{}", part("HAKOBI_TEST_REGISTRY_OPEN"), unique("platforms"));
    let tag = format!("{image}:1");
    // No command runs in it, so that nothing has to be emulated.
    machine.write("Dockerfile", "FROM scratch\nCOPY src.txt /\n").write("src.txt", "one\n");
    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    let build = Build::new(&machine).report("../report.json").with(&["--metadata-file", "../metadata.json"]).push(&tag);
    let built = build.with(&platforms).with(&HAND_OFF).done();

    let digest = crane(&["digest", &tag]);
    let uri = format!("{image}@{digest}");
    let named = |name: &str| json!({ "name": name, "imageUri": uri });
    assert_eq!(json(&machine, "../imagedefinitions.json"), json!([named("web"), named("worker")]));
    assert_eq!(json(&machine, "../imageDetail.json"), json!({ "ImageURI": uri }));
    let variables = format!("export IMAGE_URI={uri}\nexport IMAGE_DIGEST={digest}\nexport IMAGE_TAG=1\n");
    assert_eq!(machine.read("../image.env"), variables);
    let metadata = json(&machine, "../metadata.json");
    assert_eq!((&metadata["containerimage.digest"], &metadata["image.name"]), (&json!(digest), &json!(tag)), "{metadata:#}");
    let descriptor = &metadata["containerimage.descriptor"];
    let index = "application/vnd.oci.image.index.v1+json";
    assert_eq!((&descriptor["digest"], &descriptor["mediaType"]), (&json!(digest), &json!(index)), "{metadata:#}");

    // The report has an image for each, as the index has them.
    let index: Value = serde_json::from_str(&crane(&["manifest", &tag])).unwrap();
    let children = index["manifests"].as_array().unwrap();
    let images = built["images"].as_array().unwrap();
    let told: Vec<&Value> = images.iter().map(|image| &image["platform"]).collect();
    assert_eq!(told, ["linux/amd64", "linux/arm64"], "{built}");
    assert_eq!(children.len(), 2, "{index:#}");
    for (image_report, child) in images.iter().zip(children) {
        let platform = format!("linux/{}", child["platform"]["architecture"].as_str().unwrap());
        assert_eq!((&image_report["platform"], &image_report["digest"]), (&json!(platform), &child["digest"]), "{index:#}");
        assert_eq!(image_report["tags"], json!([{ "ref": tag, "pushed": true }]), "{built}");
        let config = crane(&["config", &format!("{image}@{}", child["digest"].as_str().unwrap())]);
        let config: Value = serde_json::from_str(&config).unwrap();
        assert_eq!(config["architecture"], child["platform"]["architecture"], "{config:#}");
    }
    assert_eq!((&built["strategy"], built.warnings()), (&json!("daemon"), vec![]), "{built}");
    let plan = machine.hakobi(&[&["plan"][..], &platforms, &["."]].concat()).exits(2);
    assert!(plan.stderr.contains("planning requires a single platform"), "{}", plan.stderr);
}

#[test]
fn a_workflow_gets_outputs_and_a_page() {
    let engine = Engine::fresh(D28);
    let machine = Machine::with(&engine.host())
        .set("GITHUB_ACTIONS", "true")
        .set("GITHUB_SHA", "2f1c0a5e8d7b4936a1f0c2e4d6b8a09172635445")
        .set("GITHUB_OUTPUT", "../outputs")
        .set("GITHUB_STEP_SUMMARY", "../page.md");
    let tag = format!("{}:1", project(&machine));
    machine.write("../outputs", "other=1\n").write("../page.md", "# Before\n");
    let build = Build::cached(&machine).push(&tag);
    let built = build.done();
    let (outputs, digest) = (machine.read("../outputs"), crane(&["digest", &tag]));
    assert!(outputs.starts_with("other=1\nimageid=sha256:") && outputs.contains(&format!("\ndigest={digest}\n")), "{outputs}");
    assert!(outputs.contains("\"containerimage.digest\": \""), "{outputs}");
    let page = machine.read("../page.md");
    assert!(page.starts_with("# Before\n### ") && page.contains("| 3 | `COPY src.txt /` | ran | no record"), "{page}");
    assert_eq!(built["ci"], json!({ "provider": "github", "commit": "2f1c0a5e8d7b4936a1f0c2e4d6b8a09172635445" }));
    machine.write("Dockerfile", &format!("FROM {}\nRUN false\n", base("busybox")));
    build.run().exits(1);
    assert!(machine.read("../page.md").contains("Failed."), "a failure has its page too");
    build.with(&["--timeline", "../timeline.html"]).run().exits(1);
    let page = machine.read("../timeline.html");
    assert!(page.contains("RUN false") && page.contains("did not complete successfully"), "{page}");
}

/// A tag that is there already has what scripts and later steps read of it, as if it had been built.
#[test]
fn a_tag_that_is_left_alone_is_told() {
    let engine = Engine::fresh(D28);
    let machine = Machine::with(&engine.host()).set("GITHUB_ACTIONS", "true").set("GITHUB_OUTPUT", "../outputs");
    let image = project(&machine);
    let (tag, other) = (format!("{image}:1"), format!("{image}:2"));
    let build = Build::new(&machine).with(&["--metadata-file", "../metadata.json", "--iidfile", "../iid"]).push(&tag);
    build.run().exits(0);
    let built = json(&machine, "../metadata.json");
    assert!(machine.read("../iid").starts_with("sha256:"));
    for file in ["../metadata.json", "../outputs"] {
        std::fs::remove_file(machine.folder().join(file)).unwrap();
    }
    // Another tag for another image.
    machine.write("src.txt", "two\n");
    Build::new(&machine).push(&other).run().exits(0);
    std::fs::remove_file(machine.folder().join("../outputs")).unwrap();
    build.tag(&other).with(&["--if-tag-exists", "skip"]).run().exits(0);
    let (told, digest) = (json(&machine, "../metadata.json"), crane(&["digest", &tag]));
    assert_eq!((&told["containerimage.digest"], &told["image.name"]), (&json!(digest), &json!(tag)));
    assert_eq!(told["containerimage.descriptor"], built["containerimage.descriptor"]);
    let outputs = machine.read("../outputs");
    assert!(outputs.starts_with(&format!("imageid={digest}\ndigest={digest}\nmetadata<<")), "{outputs}");
    assert!(!machine.folder().join("../iid").exists(), "no daemon has it");
}

/// A pull request of a fork has no secrets: it is built, and the job is green.
#[test]
fn a_fork_is_built_and_not_pushed() {
    let engine = Engine::fresh(D28);
    let machine = Machine::with(&engine.host())
        .set("TRAVIS", "true")
        .set("TRAVIS_PULL_REQUEST", "7")
        .set("TRAVIS_SECURE_ENV_VARS", "false");
    let tag = format!("{}:1", project(&machine));
    let built = Build::new(&machine).cache("../cache").push(&tag).run().exits(0);
    assert!(built.stderr.contains("building the image without pushing it"), "{}", built.stderr);
    assert_eq!(engine.docker(&["run", "--rm", &tag, "cat", "/src.txt"]), "one");
    machine.hakobi(&["promote", &tag, "2"]).exits(3);
}

#[test]
fn what_cannot_be_handed_over_is_said_before_anything_runs() {
    let machine = Machine::with(NO_DAEMON);
    machine.write("Dockerfile", "FROM scratch\n");
    let wrong = |options: &[&str], words: &str| {
        let run = Build::new(&machine).tag("r.example.com/app:1").with(options).run().exits(2);
        assert!(run.stderr.contains(words), "{}", run.stderr);
    };
    wrong(&["--image-definitions", "x.json"], "requires --push");
    wrong(&["--push", "--container-name", "web"], "--image-definitions");
    for flag in ["--timeline", "--metadata-file", "--iidfile"] {
        wrong(&[flag, "nowhere/file"], "does not exist");
    }
    let push = machine.hakobi(&["push", "r.example.com/app:1", "--report", "nowhere/report.json"]).exits(2);
    assert!(push.stderr.contains("does not exist"), "{}", push.stderr);
}

/// What a tag stood for before, each digest with the line that rolls back to it, as `promote --list` tells them.
fn before(told: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = told.lines().skip(1).map(str::trim).collect();
    let one = |pair: &[&str]| {
        let digest = pair[0].strip_prefix("before: ").unwrap_or_else(|| panic!("{told}"));
        (digest.split(',').next().unwrap().to_owned(), pair[1].to_owned())
    };
    lines.chunks_exact(2).map(one).collect()
}

#[test]
fn a_release_is_rolled_back_by_the_line_that_is_told() {
    let engine = Engine::fresh(D28);
    let machine = Machine::with(&engine.host());
    let image = project(&machine);
    let live = format!("{image}:live");
    let list = |code| machine.hakobi(&["promote", "--list", &live]).exits(code);
    let built = ["1", "2", "3"].map(|tag| {
        machine.write("src.txt", tag);
        let tag = format!("{image}:{tag}");
        Build::new(&machine).with(&["--cache-mode", "off"]).push(&tag).run().exits(0);
        (crane(&["digest", &tag]), tag)
    });
    let [(one, first), (two, second), (three, third)] = built;
    let absent = list(3);
    assert!(absent.stderr.contains(&format!("no image {live} in the registry")), "{}", absent.stderr);
    assert_eq!(absent.stdout, "");

    machine.hakobi(&["promote", &first, "live"]).exits(0);
    let told = list(0).stdout;
    assert!(told.starts_with(&format!("{live} points to {one}, made ")), "{told}");
    assert!(told.contains("no earlier images are recorded"), "{told}");
    for newer in [&second, &third] {
        machine.hakobi(&["promote", newer, "live"]).exits(0);
    }
    let told = list(0).stdout;
    assert!(told.starts_with(&format!("{live} points to {three}, made ")), "{told}");
    // What was made last stands first.
    let back = |digest: &str| format!("hakobi promote {image}:live-previous-{} {live}", &digest["sha256:".len()..][..12]);
    assert_eq!(before(&told), [(two.clone(), back(&two)), (one.clone(), back(&one))], "{told}");

    Run::of(machine.command("sh").args(["-c", &back(&two)])).exits(0);
    assert_eq!(crane(&["digest", &live]), two);
    let told = list(0).stdout;
    assert!(told.starts_with(&format!("{live} points to {two}, made ")), "{told}");
    assert_eq!(before(&told), [(three.clone(), back(&three)), (one.clone(), back(&one))], "and forward again: {told}");

    let by_digest = machine.hakobi(&["promote", "--list", &format!("{image}@{two}")]).exits(2);
    assert!(
        by_digest.stderr.contains("names a digest, which has no history: a digest always names the same image"),
        "{}",
        by_digest.stderr
    );
    machine.hakobi(&["promote", "--list", &live, "prod"]).exits(2);
}
