//! Answers of registries, token services and ECR.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hakobi::aws::AwsSource;
use hakobi::domain::{Digest, RawManifest, RegistryHost, Repository, media_type};
use hakobi::event::Events;
use hakobi::registry::{Kind, Options, Patience, Registries};
use hakobi::settings::RegistrySettings;
use hakobi::transfer::BytesSource;
use reqwest::Url;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The largest blob that is read as a whole.
const CAP: u64 = 64 << 10;

/// The most answers to one input: a client may follow a redirect, log in and try again, but not for ever.
const MOST_ANSWERS: usize = 200;

const BRIEF: Duration = Duration::from_millis(40);

#[derive(Clone)]
struct Script {
    address: String,
    /// The answers that remain. The last one is given again and again.
    answers: Arc<Mutex<(VecDeque<Vec<u8>>, usize)>>,
}

impl Script {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let script = Self { address: listener.local_addr().unwrap().to_string(), answers: Arc::default() };
        let answering = script.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answer = answering.next();
                tokio::spawn(answered(stream, answer));
            }
        });
        script
    }

    fn next(&self) -> Vec<u8> {
        let mut answers = self.answers.lock().unwrap();
        answers.1 += 1;
        if answers.0.len() > 1 { answers.0.pop_front().unwrap() } else { answers.0.front().cloned().unwrap_or_default() }
    }

    /// Sets the next answers. `HOST` in them is this server.
    fn set(&self, answers: &[&[u8]]) {
        let answers = answers.iter().map(|answer| self.kept_here(&super::replaced(answer, b"HOST", self.address.as_bytes())));
        *self.answers.lock().unwrap() = (answers.collect(), 0);
    }

    /// Drops headers that lead a client to another server: a test talks to no stranger.
    fn kept_here(&self, answer: &[u8]) -> Vec<u8> {
        let own: Url = format!("http://{}/v2/app/", self.address).parse().unwrap();
        let leads_away = |line: &[u8]| {
            let line = String::from_utf8_lossy(line).to_ascii_lowercase();
            let is_checked = ["location", "www-authenticate", "link", "refresh"].iter().any(|name| line.contains(name));
            let mut urls = line.split(['"', '<', '>', ',', ' ']).chain(line.split_once(':').map(|(_, value)| value.trim()));
            is_checked && urls.any(|url| own.join(url).is_ok_and(|url| url.has_host() && url.origin() != own.origin()))
        };
        let lines: Vec<&[u8]> = answer.split(|byte| *byte == b'\n').filter(|line| !leads_away(line)).collect();
        lines.join(&b'\n')
    }
}

/// Reads a request's head, answers, and closes the connection.
async fn answered(mut stream: TcpStream, answer: Vec<u8>) {
    let mut head = vec![0; 16 << 10];
    let _ = tokio::time::timeout(BRIEF, stream.read(&mut head)).await;
    let _ = stream.write_all(&answer).await;
    let _ = stream.shutdown().await;
    // A close with unread bytes would reset the connection, and the client would lose the answer.
    let _ = tokio::time::timeout(BRIEF, tokio::io::copy(&mut stream, &mut tokio::io::sink())).await;
}

/// Gives the input's parts as answers. The first byte says which operation asks. What is verified must have the requested digest.
pub fn registry(input: &[u8]) {
    thread_local! {
        static SCRIPT: RefCell<Option<Script>> = const { RefCell::new(None) };
    }
    let Some((operation, rest)) = input.split_first() else { return };
    super::run(async {
        let script = match SCRIPT.with_borrow(Clone::clone) {
            Some(script) => script,
            None => Script::start().await,
        };
        SCRIPT.set(Some(script.clone()));
        script.set(&super::parts(rest));
        ask(*operation, &script).await;
        assert!(script.answers.lock().unwrap().1 <= MOST_ANSWERS, "too many requests");
    });
}

async fn ask(operation: u8, script: &Script) {
    let patience = Patience {
        total: BRIEF,
        first_pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(2),
        stall: 5 * BRIEF,
        answer: 5 * BRIEF,
        ..Patience::default()
    };
    let endpoint = format!("http://{}", script.address);
    let aws = AwsSource::Fixed { endpoint, access_key: "key".to_owned(), secret_key: "key".to_owned() };
    let registries = Registries::with(&RegistrySettings::default(), Events::none(), Options { patience, aws });
    let host = RegistryHost::new(script.address.clone());
    let client = registries.repository(&Repository { host: host.clone(), path: "app".to_owned() });
    let digest = Digest::hash(b"content");
    let failed = match operation {
        b'm' => client.manifest("latest").await.map(drop).err(),
        b'd' => client
            .manifest(&digest.to_string())
            .await
            .map(|found| assert!(found.is_none_or(|found| found.digest() == digest), "a manifest of another digest"))
            .err(),
        b'h' => client.head_manifest("latest").await.map(drop).err(),
        b's' => client.blob_size(&digest).await.map(drop).err(),
        b'b' => client.read_blob(&digest, CAP).await.map(|bytes| assert_eq!(Digest::hash(&bytes), digest)).err(),
        b't' => client.tags().await.map(drop).err(),
        b'a' => client.push_access(None).await.map(drop).err(),
        b'p' => {
            let manifest = RawManifest { media_type: media_type::OCI_MANIFEST.to_owned(), bytes: b"{}"[..].into() };
            client.put_manifest(&manifest, "latest").await.map(drop).err()
        }
        b'u' => client.upload(&BytesSource::new(b"content"[..].into()), None, Arc::new(|_| ())).await.map(drop).err(),
        b'l' => registries.check_login(&host).await.map(drop).err(),
        b'e' => {
            let ecr = RegistryHost::new("123456789012.dkr.ecr.eu-west-1.amazonaws.com");
            registries.aws_login(&ecr).await.map(drop).err()
        }
        _ => return,
    };
    if let Some(error) = failed {
        let _ = (error.to_string(), error.hint(), error.kind == Kind::Damaged, error.is_silence());
    }
}
