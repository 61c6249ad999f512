//! Tests what a daemon gets when it requests a directory: the hashed files, or an error before the first different file is
//! complete.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use bollard_buildkit_proto::fsutil::types::Stat;
use bollard_buildkit_proto::moby::filesync::v1::file_sync_client::FileSyncClient;
use hyper_util::rt::TokioIo;
use tonic::transport::{Endpoint, Server};

use super::super::expected::ExpectedFile;
use super::super::sync_server::FileSyncServer;
use super::super::times::SentTimes;
use super::*;
use crate::domain::Digest;

/// Requests all files of a directory. Returns the complete files, or the sender's error.
async fn received(service: FileSyncService, include: &[&str]) -> Result<HashMap<String, Vec<u8>>, String> {
    transferred(service, include).await.map(|(_, files)| files)
}

/// Requests all files of a directory, as fsutil's `Receive` does. Returns the list and the complete files, or the sender's error.
async fn transferred(service: FileSyncService, include: &[&str]) -> Result<(Vec<Stat>, HashMap<String, Vec<u8>>), String> {
    let (ours, theirs) = tokio::io::duplex(1 << 16);
    let server = Server::builder().add_service(FileSyncServer(Arc::new(service)));
    tokio::spawn(server.serve_with_incoming(futures::stream::iter([Ok::<_, io::Error>(theirs)])));
    let mut once = Some(ours);
    let connector = tower::service_fn(move |_| {
        let stream = once.take().map(TokioIo::new).ok_or_else(|| io::Error::other("one connection only"));
        async move { stream }
    });
    let channel = Endpoint::from_static("http://session").connect_with_connector(connector).await.expect("a channel");
    let (asking, asked) = mpsc::channel(64);
    let mut request = Request::new(ReceiverStream::new(asked));
    request.metadata_mut().insert("dir-name", "context".parse().expect("a value"));
    for pattern in include {
        // Docker 20.10 sends patterns like this. Later daemons encode characters beyond ASCII.
        request.metadata_mut().append("include-patterns", pattern.as_bytes().try_into().expect("a value"));
    }
    let mut packets = FileSyncClient::new(channel).diff_copy(request).await.expect("an answer").into_inner();
    let mut listed: Vec<Stat> = Vec::new();
    let mut open: HashMap<u32, Vec<u8>> = HashMap::new();
    let mut whole = HashMap::new();
    while let Some(packet) = packets.next().await {
        let packet = packet.map_err(|status| status.to_string())?;
        match (PacketType::try_from(packet.r#type).expect("a kind"), packet.stat) {
            (PacketType::PacketErr, _) => return Err(String::from_utf8_lossy(&packet.data).into_owned()),
            (PacketType::PacketStat, Some(stat)) => listed.push(stat),
            (PacketType::PacketStat, None) => {
                let is_file = |stat: &Stat| stat.mode & !0o777 == 0 && stat.linkname.is_empty();
                for (id, _) in listed.iter().enumerate().filter(|(_, stat)| is_file(stat)) {
                    open.insert(id as u32, Vec::new());
                    let asks = Packet { r#type: PacketType::PacketReq.into(), id: id as u32, ..Packet::default() };
                    asking.send(asks).await.expect("sent");
                }
            }
            (PacketType::PacketData, _) if packet.data.is_empty() => {
                let path = listed[packet.id as usize].path.clone();
                whole.insert(path, open.remove(&packet.id).expect("a file that was asked for"));
                if open.is_empty() {
                    return Ok((listed, whole));
                }
            }
            (PacketType::PacketData, _) => open.get_mut(&packet.id).expect("asked for").extend(packet.data),
            (PacketType::PacketFin | PacketType::PacketReq, _) => {}
        }
    }
    Err("it ended".to_owned())
}

/// A service that sends the context in `root`.
fn service(root: &Path, expected: &Expected, times: &Times) -> FileSyncService {
    let mut directories = LocalDirs::default();
    directories.add("context", root);
    FileSyncService::new(directories, Arc::default(), Failure::default(), expected.clone(), times.clone())
}

/// Returns a context, and a service that must send exactly its files.
fn hashed(include: &[&str]) -> (tempfile::TempDir, FileSyncService, Expected) {
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir(root.path().join("app")).expect("made");
    for (path, text) in [("app/a", "a\n"), ("app/b", "b\n"), ("app/empty", "")] {
        fs::write(root.path().join(path), text).expect("written");
    }
    fs::write(root.path().join("app/large"), vec![7; 3 * CHUNK]).expect("written");
    let expected = Expected::default();
    let include = include.iter().map(|pattern| (*pattern).to_owned()).collect();
    let selection = Selection { include, ..Selection::default() };
    let tree = build_context::hash(root.path(), &selection).expect("hashed");
    expected.expect_trees([(("context".to_owned(), selection), Arc::new(tree))]);
    let service = service(root.path(), &expected, &Times::default());
    (root, service, expected)
}

/// Returns the reported difference after this change to a hashed context.
async fn told(done: impl FnOnce(&Path)) -> String {
    let (root, service, expected) = hashed(&["app"]);
    done(root.path());
    let error = received(service, &["app"]).await.expect_err("it is not sent");
    let difference = expected.moved().expect("it is told").to_string();
    assert_eq!(error, format!("the build context changed while hakobi read it: {difference}"));
    difference
}

#[tokio::test]
async fn what_was_hashed_is_sent() {
    let (_root, service, expected) = hashed(&["app"]);
    let files = received(service, &["app"]).await.expect("sent");
    assert_eq!(files.len(), 4);
    assert_eq!((&*files["app/a"], files["app/large"].len()), (&b"a\n"[..], 3 * CHUNK));
    assert_eq!(expected.moved(), None);
}

#[tokio::test]
async fn nothing_else_is() {
    let write = |path: &'static str, text: &'static str| move |root: &Path| fs::write(root.join(path), text).expect("written");
    assert_eq!(told(write("app/a", "A\n")).await, "app/a: its content changed");
    assert_eq!(told(write("app/a", "")).await, "app/a: its content changed");
    assert_eq!(told(write("app/empty", "more")).await, "app/empty: its content changed");
    assert_eq!(told(write("app/new", "")).await, "app/new: it is new");
    let longer = |root: &Path| fs::write(root.join("app/large"), vec![7; 3 * CHUNK + 1]).expect("written");
    assert_eq!(told(longer).await, "app/large: its content changed");
    let last = |root: &Path| {
        let mut bytes = vec![7; 3 * CHUNK];
        bytes[3 * CHUNK - 1] = 8;
        fs::write(root.join("app/large"), bytes).expect("written");
    };
    assert_eq!(told(last).await, "app/large: its content changed");
    assert_eq!(told(|root| fs::remove_file(root.join("app/b")).expect("removed")).await, "app/b: it was removed");
    let mode = |root: &Path| fs::set_permissions(root.join("app/a"), fs::Permissions::from_mode(0o755)).expect("set");
    assert_eq!(told(mode).await, "app/a: its mode changed");
}

#[tokio::test]
async fn what_was_not_hashed_is_sent_as_it_is() {
    let (root, service, expected) = hashed(&["app/b"]);
    fs::write(root.path().join("app/a"), "other\n").expect("written");
    let files = received(service, &["app/a"]).await.expect("sent");
    assert_eq!((&*files["app/a"], expected.moved()), (&b"other\n"[..], None));
}

#[tokio::test]
async fn what_is_compiled_is_what_the_key_was_made_of() {
    let file = |path: &str, text: Option<&str>| ExpectedFile {
        directory: "context".to_owned(),
        path: path.to_owned(),
        content: text.map(|text| Digest::hash(text.as_bytes())),
    };
    for (expects, moved) in [
        (file("app/a", Some("a\n")), None),
        (file("app/a", Some("other\n")), Some("app/a: its content changed")),
        (file("app/none", None), None),
        (file("app/b", None), Some("app/b: it is new")),
        (file("app/none", Some("text")), Some("app/none: it was removed")),
    ] {
        let (_root, service, expected) = hashed(&["nothing"]);
        expected.expect_files(std::slice::from_ref(&expects));
        let came = received(service, &["app/a", "app/b", "app/none"]).await;
        assert_eq!(expected.moved().map(|moved| moved.to_string()).as_deref(), moved, "{expects:?}");
        assert_eq!(came.is_err(), moved.is_some(), "{expects:?}: {came:?}");
    }
}

#[tokio::test]
async fn patterns_beyond_ascii_are_read_as_they_come() {
    let (root, service, _) = hashed(&["app"]);
    fs::write(root.path().join("é"), "e\n").expect("written");
    let files = received(service, &["é"]).await.expect("sent");
    assert_eq!(files.into_iter().collect::<Vec<_>>(), [("é".to_owned(), b"e\n".to_vec())]);
}

#[test]
fn values_are_decoded_where_a_header_says_so() {
    let mut metadata = MetadataMap::new();
    for value in ["é", "a b", "a+b%41", "\t"] {
        metadata.append("followpaths", value.as_bytes().try_into().expect("a value"));
    }
    assert_eq!(values(&metadata, "followpaths"), ["é", "a b", "a+b%41", "\t"]);
    metadata.insert("followpaths-encoded", "1".parse().expect("a value"));
    metadata.insert("followpaths", "%C3%A9+%2B".parse().expect("a value"));
    assert_eq!(values(&metadata, "followpaths"), ["é +"]);
}

/// Returns the times in the list of a transfer, by path.
async fn times_of(root: &Path, times: &Times) -> HashMap<String, i64> {
    let (listed, _) = transferred(service(root, &Expected::default(), times), &[]).await.expect("sent");
    listed.into_iter().map(|stat| (stat.path, stat.mod_time)).collect()
}

fn chosen(of: &[(&str, i64)]) -> Arc<SentTimes> {
    let mut times = SentTimes::default();
    of.iter().for_each(|(path, time)| times.insert("context", path, *time));
    times.insert("other", "a", 99);
    Arc::new(times)
}

#[tokio::test]
async fn paths_have_the_chosen_times() {
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir(root.path().join("dir")).expect("made");
    for path in ["a", "b", "dir/c"] {
        fs::write(root.path().join(path), path).expect("written");
    }
    std::os::unix::fs::symlink("a", root.path().join("l")).expect("linked");
    let own = |path: &str| {
        let modified = fs::symlink_metadata(root.path().join(path)).expect("there").modified().expect("a time");
        i64::try_from(modified.duration_since(std::time::UNIX_EPOCH).expect("after").as_nanos()).expect("a time")
    };
    let times = Times::default();
    let sent = times_of(root.path(), &times).await;
    assert_eq!((sent["a"], sent["dir"], sent["l"]), (own("a"), own("dir"), own("l")), "without choice");
    times.choose(chosen(&[("a", 1_000_000_000), ("dir", 2), ("dir/c", -3), ("l", 4), ("none", 5)]));
    let sent = times_of(root.path(), &times).await;
    let expected = [("a", 1_000_000_000), ("b", own("b")), ("dir", 2), ("dir/c", -3), ("l", 4)];
    assert_eq!(sent, expected.map(|(path, time)| (path.to_owned(), time)).into());
    // What was sent is noted, with the latest time.
    let noted = times.sent();
    let latest = [("a", own("a")), ("b", own("b")), ("dir", own("dir")), ("dir/c", own("dir/c")), ("l", own("l"))];
    assert!(latest.iter().all(|(path, time)| noted.get("context", path) == Some(*time)), "{noted:?}");
    assert_eq!((noted.iter().count(), noted.get("other", "a")), (5, None));
    times.choose(Arc::default());
    assert_eq!(times_of(root.path(), &times).await["dir/c"], own("dir/c"), "another choice replaces it");
}

#[tokio::test]
async fn the_names_of_one_file_have_one_time() {
    let root = tempfile::tempdir().expect("a directory");
    fs::write(root.path().join("a"), "a").expect("written");
    fs::hard_link(root.path().join("a"), root.path().join("b")).expect("linked");
    fs::hard_link(root.path().join("a"), root.path().join("c")).expect("linked");
    for (choice, expected) in [
        (&[("a", 10), ("b", 30), ("c", 20)][..], 30),
        (&[("a", 30), ("b", 10), ("c", 10)], 30),
        (&[("a", 10), ("b", 10), ("c", 30)], 30),
    ] {
        let times = Times::default();
        times.choose(chosen(choice));
        let sent = times_of(root.path(), &times).await;
        assert_eq!((sent["a"], sent["b"], sent["c"]), (expected, expected, expected), "{choice:?}");
        assert_eq!(times.sent().get("context", "b"), Some(expected));
    }
}

#[test]
fn a_digest_tells_times_apart() {
    let digest = |of: &[(&str, i64)]| chosen(of).digest("context");
    assert_eq!(digest(&[("a", 1), ("b", 2)]), digest(&[("b", 2), ("a", 1)]));
    assert_ne!(digest(&[("a", 1), ("b", 2)]), digest(&[("a", 2), ("b", 1)]));
    assert_eq!(digest(&[]), SentTimes::default().digest("context"));
}
