//! Tests the smallest build, loaded into a daemon. Only this suite also runs on daemons other than the tests' own.

mod support;

use support::engine::{D28, Engine};
use support::machine::Machine;
use support::parts::unique;

#[test]
fn an_image_is_put_into_the_daemon() {
    // The user's own, where there are no parts: nothing is wiped, and what is made is taken away again.
    let own = std::env::var("HAKOBI_TEST_DAEMON").ok();
    let engine = own.is_none().then(|| Engine::lock(D28));
    let host = own.unwrap_or_else(|| engine.as_ref().map(Engine::host).unwrap_or_default());
    let machine = Machine::with(&host);
    machine.write("Dockerfile", "FROM scratch\nCOPY hello /hello\nLABEL made=by-test\n").write("hello", "hello\n");
    let name = unique("daemon");
    machine.hakobi(&["build", "-t", &name, "--iidfile", "id", "."]).exits(0);

    let docker = engine.as_ref().map_or_else(|| "docker".to_owned(), |_| support::parts::part("HAKOBI_TEST_DOCKER_CLI"));
    let docker = |arguments: &[&str]| support::machine::Run::of(machine.command(&docker).args(arguments)).exits(0).stdout;
    let shown = docker(&["image", "inspect", "--format", "{{.Id}} {{.Config.Labels.made}}", &name]);
    assert_eq!(shown.trim(), format!("{} by-test", machine.read("id")));
    docker(&["image", "rm", &name]);
}
