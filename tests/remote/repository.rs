//! A Git repository with a `git daemon` that serves it.

use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A repository that is served, with a file of one line.
pub struct Repository {
    folder: tempfile::TempDir,
    serving: Child,
    port: u16,
}

impl Drop for Repository {
    fn drop(&mut self) {
        let _ = self.serving.kill();
        let _ = self.serving.wait();
    }
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]).args(arguments);
    let ended = command.current_dir(folder).env("HOME", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").output().unwrap();
    assert!(ended.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8_lossy(&ended.stdout).trim().to_owned()
}

impl Repository {
    pub fn served() -> Self {
        let folder = tempfile::tempdir().unwrap();
        git(folder.path(), &["init", "-q", "r.git"]);
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let base = format!("--base-path={}", folder.path().display());
        let listen = ["--listen=127.0.0.1".to_owned(), format!("--port={port}")];
        // The program itself: `git daemon` would leave it running.
        let program = Path::new(&git(folder.path(), &["--exec-path"])).join("git-daemon");
        let mut command = Command::new(program);
        command.args(listen).args(["--export-all", "--reuseaddr", &base]).arg(folder.path());
        let serving = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let repository = Self { folder, serving, port };
        repository.commit("one");
        for _ in 0..100 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        repository
    }

    pub fn git(&self, arguments: &[&str]) -> String {
        git(&self.folder.path().join("r.git"), arguments)
    }

    pub fn commit(&self, text: &str) -> String {
        std::fs::write(self.folder.path().join("r.git/file"), text).unwrap();
        self.git(&["add", "file"]);
        self.git(&["commit", "-q", "-m", text]);
        self.git(&["rev-parse", "HEAD"])
    }

    pub fn url(&self) -> String {
        format!("git://127.0.0.1:{}/r.git", self.port)
    }
}
